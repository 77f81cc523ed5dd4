//! `bobbin top`: the cluster as it changes.
//!
//! A pure core (`state`, `table`, `keys`, `columns`, `log_view`; drawn by `frame`) is told of keys,
//! answers and log bytes; this shell reads the terminal, asks the resource manager and draws.
//! Three tasks: the loop here, one that looks at the cluster at the interval (`looking`), and while a
//! log is shown one that reads it (`reading`). What they say comes over one bounded channel.

mod batch;
mod columns;
mod frame;
mod keys;
mod log_view;
mod source;
mod state;
mod table;
mod terminal;

use std::time::Duration;

use bobbin_proto::v1;
use bobbin_proto::v1::read_logs_request::Source;
use crossterm::event::{Event as TerminalEvent, EventStream};
use futures::{FutureExt, StreamExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::args::TopArgs;
use crate::cluster::Cluster;
use crate::commands::kill::kill;
use crate::exit_codes::{DONE, of_signal};
use crate::failure::{Failure, Outcome};
use crate::output;

use frame::{Look, draw};
use keys::Action;
use log_view::LogSource;
use state::{Overlay, Snapshot, Top, Wanted};
use terminal::{Screen, broken, check};

/// News that wait for the loop; who brings more waits.
const NEWS_MAX: usize = 64;
/// Keys that are taken before the next frame: pasting must not cost a frame a letter.
const KEYS_PER_FRAME: usize = 256;
/// Bytes of a log before what is there now that are shown: lines of it, rather.
const TAIL_LINES: u64 = 500;
/// Before a log that broke off is asked for again.
const RETRY: Duration = Duration::from_millis(500);

/// What the other tasks say.
#[derive(Debug)]
enum News {
    Seen(Box<Snapshot>),
    Failed(String),
    Killed(Result<v1::KillApplicationResponse, Failure>),
    Log(LogSource, Vec<u8>),
    LogStatus(LogSource, String),
}

pub(crate) async fn run(args: &TopArgs, rm: Option<&str>) -> Outcome {
    let rounds = match (args.once, args.rounds, args.output) {
        (true, _, _) | (false, None, Some(_)) => Some(1),
        (false, rounds @ Some(_), _) => rounds,
        (false, None, None) => None,
    };
    if rounds.is_none() {
        check()?;
    }
    let cluster = Cluster::connect(rm).await?;
    let of = match &args.id {
        Some(id) => Some(cluster.application(id).await?.id),
        None => None,
    };
    match rounds {
        Some(rounds) => batch::run(&cluster, args, of, args.interval, rounds).await,
        None => interactive(&cluster, args, of).await,
    }
}

async fn interactive(cluster: &Cluster, args: &TopArgs, of: Option<String>) -> Outcome {
    let mut top = Top::new(of, args.all, bobbin_service::wall_now().0);
    let (news, mut inbox) = mpsc::channel(NEWS_MAX);
    let (wanted, what) = watch::channel(top.wanted());
    let looking = tokio::spawn(looking(cluster.clone(), what, args.interval, news.clone()));
    let mut shell = Shell {
        cluster: cluster.clone(),
        wanted,
        news,
        reading: None,
    };
    let screen = Screen::take();
    let result = match screen {
        Ok(mut screen) => shell.show(&mut top, &mut screen, &mut inbox).await,
        Err(failure) => Err(failure),
    };
    looking.abort();
    if let Some((_, task)) = shell.reading {
        task.abort();
    }
    result
}

/// The loop's hands.
struct Shell {
    cluster: Cluster,
    wanted: watch::Sender<Wanted>,
    news: mpsc::Sender<News>,
    /// Which log is read, and who reads it.
    reading: Option<(LogSource, tokio::task::JoinHandle<()>)>,
}

impl Shell {
    async fn show(
        &mut self,
        top: &mut Top,
        screen: &mut Screen,
        inbox: &mut mpsc::Receiver<News>,
    ) -> Outcome {
        let look = Look {
            color: output::takes_color(),
        };
        let mut keys = EventStream::new();
        let unlistened = |e: std::io::Error| broken(&e);
        let mut terminate = signal(SignalKind::terminate()).map_err(unlistened)?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(unlistened)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(unlistened)?;
        let mut quit = signal(SignalKind::quit()).map_err(unlistened)?;
        let mut resumed = signal(SignalKind::from_raw(nix::libc::SIGCONT)).map_err(unlistened)?;
        loop {
            let drawn = screen.terminal.draw(|frame| {
                draw(top, look, frame);
            });
            drawn.map_err(|e| broken(&e))?;
            let action = tokio::select! {
                biased;
                _ = terminate.recv() => return Ok(of_signal(15)),
                _ = hang_up.recv() => return Ok(of_signal(1)),
                _ = interrupt.recv() => return Ok(of_signal(2)),
                _ = quit.recv() => return Ok(of_signal(3)),
                // Another program may have drawn on it meanwhile.
                _ = resumed.recv() => Action::Redraw,
                event = keys.next() => match event {
                    Some(Ok(event)) => typed(top, event, &mut keys),
                    Some(Err(e)) => return Err(broken(&e)),
                    // The terminal is gone.
                    None => return Ok(of_signal(1)),
                },
                Some(news) = inbox.recv() => {
                    take(top, news);
                    while let Ok(news) = inbox.try_recv() {
                        take(top, news);
                    }
                    Action::None
                }
            };
            match action {
                Action::None => {}
                Action::Quit => return Ok(DONE),
                Action::Suspend => screen.suspend()?,
                Action::Redraw => screen.clear().map_err(|e| broken(&e))?,
                Action::Kill(id) => self.kill(top, id),
            }
            self.follow(top);
        }
    }

    /// Has the other tasks do what the state now wants.
    fn follow(&mut self, top: &Top) {
        let wanted = top.wanted();
        self.wanted.send_if_modified(|old| {
            let changed = *old != wanted;
            *old = wanted;
            changed
        });
        let log = match &top.overlay {
            Overlay::Log(log) => Some(&log.source),
            Overlay::None
            | Overlay::Help
            | Overlay::Filter { .. }
            | Overlay::Kill { .. }
            | Overlay::Details { .. } => None,
        };
        if self.reading.as_ref().map(|(source, _)| source) == log {
            return;
        }
        if let Some((_, task)) = self.reading.take() {
            task.abort();
        }
        if let Some(source) = log {
            let task = reading(self.cluster.clone(), source.clone(), self.news.clone());
            self.reading = Some((source.clone(), tokio::spawn(task)));
        }
    }

    fn kill(&self, top: &mut Top, id: String) {
        top.tell(format!("{id} is being killed"), false);
        let (cluster, news) = (self.cluster.clone(), self.news.clone());
        tokio::spawn(async move {
            let killed = kill(&cluster, &id, false, "killed with bobbin top").await;
            // A loop that has ended needs no news.
            let _ = news.send(News::Killed(killed)).await;
        });
    }
}

/// Takes a key and those that wait behind it.
fn typed(top: &mut Top, first: TerminalEvent, keys: &mut EventStream) -> Action {
    let mut event = Some(first);
    for _ in 0..KEYS_PER_FRAME {
        match event {
            Some(TerminalEvent::Key(key)) => match top.on_key(key) {
                Action::None => {}
                action @ (Action::Quit | Action::Suspend | Action::Redraw | Action::Kill(_)) => {
                    return action;
                }
            },
            // Smaller and large again before anybody looked is no change of size, and yet a screen
            // that has lost something.
            Some(TerminalEvent::Resize(..)) => return Action::Redraw,
            Some(
                TerminalEvent::FocusGained
                | TerminalEvent::FocusLost
                | TerminalEvent::Mouse(_)
                | TerminalEvent::Paste(_),
            ) => {}
            None => return Action::None,
        }
        // What is broken is told by the next wait.
        event = keys.next().now_or_never().flatten().and_then(Result::ok);
    }
    Action::None
}

fn take(top: &mut Top, news: News) {
    match news {
        News::Seen(snapshot) => top.on_snapshot(*snapshot),
        News::Failed(reason) => top.on_failed(reason),
        News::Killed(Ok(answer)) if answer.already_ended => {
            top.tell(format!("{} had ended before", answer.application_id), false);
        }
        News::Killed(Ok(answer)) => {
            top.tell(format!("{} is being killed", answer.application_id), false)
        }
        News::Killed(Err(failure)) => top.tell(failure.message, true),
        News::Log(source, bytes) => top.on_log(&source, &bytes),
        News::LogStatus(source, words) => top.on_log_status(&source, words),
    }
}

/// Looks at the cluster now, at every change of what is wanted, and at the interval.
async fn looking(
    cluster: Cluster,
    mut what: watch::Receiver<Wanted>,
    interval: Duration,
    news: mpsc::Sender<News>,
) {
    loop {
        let wanted = what.borrow_and_update().clone();
        let seen = tokio::select! {
            seen = source::look(&cluster, &wanted) => seen,
            // An answer to what is no longer wanted is not waited for.
            Ok(()) = what.changed() => continue,
        };
        let said = match seen {
            Ok(snapshot) => News::Seen(Box::new(snapshot)),
            Err(failure) => News::Failed(failure.message),
        };
        if news.send(said).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(interval), if !wanted.paused => {}
            changed = what.changed() => if changed.is_err() { return },
        }
    }
}

/// Follows a log's end for as long as it is shown.
async fn reading(cluster: Cluster, source: LogSource, news: mpsc::Sender<News>) {
    let mut offset = None;
    loop {
        let request = v1::ReadLogsRequest {
            application_id: source.application.clone(),
            source: Some(match &source.container {
                Some(id) => Source::ContainerId(id.clone()),
                None => Source::DriverAttempt(0),
            }),
            file: source.file.to_owned(),
            offset: offset.unwrap_or(0),
            tail_lines: offset.is_none().then_some(TAIL_LINES),
            follow: true,
            since_ms: 0,
        };
        let said = match read_log(&cluster, request, &source, &mut offset, &news).await {
            Ok(()) => "it has ended".to_owned(),
            Err(status) => cluster.failure(&status).message,
        };
        let over = said == "it has ended";
        let status = News::LogStatus(source.clone(), said);
        if news.send(status).await.is_err() || over {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn read_log(
    cluster: &Cluster,
    request: v1::ReadLogsRequest,
    source: &LogSource,
    offset: &mut Option<u64>,
    news: &mpsc::Sender<News>,
) -> Result<(), tonic::Status> {
    let mut stream = cluster.client().read_logs(request).await?.into_inner();
    let following = News::LogStatus(source.clone(), "following".to_owned());
    if news.send(following).await.is_err() {
        return Ok(());
    }
    while let Some(chunk) = stream.message().await? {
        let length = u64::try_from(chunk.data.len()).unwrap_or(u64::MAX);
        *offset = Some(chunk.offset.saturating_add(length));
        let over = chunk.end;
        if news
            .send(News::Log(source.clone(), chunk.data))
            .await
            .is_err()
            || over
        {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
