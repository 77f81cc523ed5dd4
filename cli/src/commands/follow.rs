//! Following an application: its reports, and its logs from byte to byte, over restarts of the resource
//! manager.
//!
//! [`Watcher`] is a task that keeps the newest report; [`follow`] reads one log file and, after a lost
//! connection, resumes at the byte it had come to, so that there is neither a gap nor a double.

use std::sync::Arc;
use std::time::Duration;

use bobbin_proto::v1;
use bobbin_proto::v1::read_logs_request::Source;
use bobbin_types::{AttemptState, YarnApplicationState};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::failure::{Failure, Kind, is_connection};
use crate::text::printable;

/// First and longest pause between two tries to reach what is away.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How long the log of what has ended may be silent before it is given up.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// The newest known of an application.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) report: Option<Arc<v1::ApplicationReport>>,
    /// It has ended and no more reports come.
    pub(crate) ended: bool,
    /// It cannot be watched any more.
    failure: Option<Failure>,
}

/// Keeps the newest report of one application; ends with it, or when dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    known: watch::Receiver<Known>,
    task: JoinHandle<()>,
}

impl Watcher {
    pub(crate) fn start(cluster: &Cluster, id: &str) -> Watcher {
        let (sender, known) = watch::channel(Known::default());
        let task = tokio::spawn(keep_watching(cluster.clone(), id.to_owned(), sender));
        Watcher { known, task }
    }

    pub(crate) fn known(&self) -> watch::Receiver<Known> {
        self.known.clone()
    }

    /// The last report, once the application has ended.
    ///
    /// # Errors
    /// It cannot be watched: unknown, or not allowed.
    pub(crate) async fn ended(&mut self) -> Result<Arc<v1::ApplicationReport>, Failure> {
        until(&mut self.known, |known| known.ended).await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The first report that is as wanted.
///
/// # Errors
/// The application cannot be watched.
pub(crate) async fn until(
    known: &mut watch::Receiver<Known>,
    wanted: impl Fn(&Known) -> bool,
) -> Result<Arc<v1::ApplicationReport>, Failure> {
    loop {
        {
            let newest = known.borrow_and_update();
            if let Some(failure) = &newest.failure {
                return Err(failure.clone());
            }
            if let Some(report) = newest.report.as_ref().filter(|_| wanted(&newest)) {
                return Ok(report.clone());
            }
        }
        if known.changed().await.is_err() {
            return Err(Failure::new(
                Kind::Failed,
                "the watch of the application ended early",
            ));
        }
    }
}

async fn keep_watching(cluster: Cluster, id: String, sender: watch::Sender<Known>) {
    let mut pause = Backoff::default();
    loop {
        let request = v1::GetApplicationRequest {
            application_id: id.clone(),
        };
        let result = match cluster.client().watch_application(request).await {
            Ok(stream) => watch_stream(stream.into_inner(), &sender, &mut pause).await,
            Err(status) => Err(status),
        };
        match result {
            Ok(()) if sender.borrow().ended => return,
            Ok(()) => pause.wait().await,
            Err(status) if is_connection(&status) => pause.wait().await,
            Err(status) => {
                let failure = cluster.failure(&status);
                sender.send_modify(|known| known.failure = Some(failure));
                return;
            }
        }
    }
}

async fn watch_stream(
    mut stream: tonic::Streaming<v1::ApplicationReport>,
    sender: &watch::Sender<Known>,
    pause: &mut Backoff,
) -> Result<(), tonic::Status> {
    while let Some(report) = stream.message().await? {
        *pause = Backoff::default();
        let ended = state_of(&report).is_some_and(YarnApplicationState::is_ended);
        sender.send_modify(|known| {
            known.report = Some(Arc::new(report));
            known.ended = false;
        });
        if ended && stream.message().await?.is_none() {
            break;
        }
    }
    // Only the end of the stream says that nothing of the application is still to come.
    sender.send_modify(|known| {
        known.ended = known
            .report
            .as_ref()
            .is_some_and(|r| state_of(r).is_some_and(YarnApplicationState::is_ended));
    });
    Ok(())
}

/// Pauses that grow from 10 ms to half a second.
#[derive(Debug)]
struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { next: BACKOFF_MIN }
    }
}

impl Backoff {
    fn step(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(BACKOFF_MAX);
        now
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.step()).await;
    }
}

pub(crate) fn state_of(report: &v1::ApplicationReport) -> Option<YarnApplicationState> {
    report.state.parse().ok()
}

/// Whether an attempt, or else its whole application, has ended.
fn attempt_ended(known: &Known, attempt: u32) -> bool {
    let reported = |report: &Arc<v1::ApplicationReport>| {
        report
            .attempts
            .iter()
            .any(|a| a.attempt == attempt && a.state.parse().is_ok_and(AttemptState::is_ended))
    };
    known.ended || known.report.as_ref().is_some_and(reported)
}

/// How an application ended, in a line; with its diagnostics when the driver's own exit status does not
/// say all.
pub(crate) fn end_words(report: &v1::ApplicationReport) -> String {
    let exit = report
        .exit_status
        .map_or_else(String::new, |s| format!(" with exit status {s}"));
    let own = report.exit_status.is_some_and(|status| status >= 0);
    let why = match report.diagnostics.trim() {
        words if own || words.is_empty() => String::new(),
        words => format!(": {}", printable(words)),
    };
    format!("{} ended {}{exit}{why}", report.id, report.state)
}

/// One log file of one container.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    pub(crate) application_id: String,
    pub(crate) source: Source,
    pub(crate) file: String,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) since_ms: u64,
}

impl LogFile {
    /// A file of a driver's attempt, from its first byte.
    pub(crate) fn of_driver(application_id: &str, attempt: u32, file: &str) -> LogFile {
        LogFile {
            application_id: application_id.to_owned(),
            source: Source::DriverAttempt(attempt),
            file: file.to_owned(),
            tail_lines: None,
            since_ms: 0,
        }
    }

    fn request(&self, position: &Position, follow: bool) -> v1::ReadLogsRequest {
        let begun = position.next.is_some();
        v1::ReadLogsRequest {
            application_id: self.application_id.clone(),
            source: Some(self.source.clone()),
            file: self.file.clone(),
            offset: position.next.unwrap_or(0),
            // Where to begin is asked for once; from then on the offset says it.
            tail_lines: self.tail_lines.filter(|_| !begun),
            follow,
            since_ms: if begun { 0 } else { self.since_ms },
        }
    }

    fn has_ended(&self, known: &Known) -> bool {
        match &self.source {
            Source::DriverAttempt(attempt) if *attempt > 0 => attempt_ended(known, *attempt),
            Source::DriverAttempt(_) | Source::ContainerId(_) => known.ended,
        }
    }
}

/// How far a file has been read.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    next: Option<u64>,
}

impl Position {
    /// What of a chunk is new: a resumed stream may begin before the byte that was reached.
    fn take<'a>(&mut self, offset: u64, data: &'a [u8]) -> &'a [u8] {
        let known = self.next.map_or(0, |next| next.saturating_sub(offset));
        let fresh = match usize::try_from(known) {
            Ok(known) => data.get(known..).unwrap_or(&[]),
            Err(_) => &[],
        };
        let end = offset.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        self.next = Some(self.next.map_or(end, |next| next.max(end)));
        fresh
    }
}

/// Where a log's bytes go. Nobody reading any more is no error: the rest is dropped, and who waits
/// for that is told.
#[derive(Debug)]
pub(crate) struct Sink<W> {
    writer: W,
    closed: bool,
    reader_gone: Option<Arc<Notify>>,
}

impl<W: AsyncWrite + Unpin> Sink<W> {
    pub(crate) fn new(writer: W) -> Sink<W> {
        Sink {
            writer,
            closed: false,
            reader_gone: None,
        }
    }

    /// As [`Sink::new`]; `reader_gone` is told once when nobody reads any more.
    pub(crate) fn watched(writer: W, reader_gone: Arc<Notify>) -> Sink<W> {
        Sink {
            reader_gone: Some(reader_gone),
            ..Sink::new(writer)
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.closed || bytes.is_empty() {
            return Ok(());
        }
        let result = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        match result.await {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {
                self.closed = true;
                if let Some(reader_gone) = &self.reader_gone {
                    reader_gone.notify_one();
                }
                Ok(())
            }
            Err(e) => Err(Failure::new(
                Kind::Failed,
                format!(
                    "the output cannot be written: {}",
                    crate::failure::io_words(&e)
                ),
            )),
            Ok(()) => Ok(()),
        }
    }
}

/// How far a file was followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// To its end.
    Whole,
    /// There is none (any more), and why.
    Missing(Failure),
}

/// Copies a file as it is now.
///
/// # Errors
/// There is none, or it cannot be had.
pub(crate) async fn copy<W: AsyncWrite + Unpin>(
    cluster: &Cluster,
    log: &LogFile,
    sink: &mut Sink<W>,
) -> Result<(), Failure> {
    let mut position = Position::default();
    let request = log.request(&position, false);
    let failed = |status: tonic::Status| cluster.failure(&status);
    let mut stream = cluster
        .client()
        .read_logs(request)
        .await
        .map_err(failed)?
        .into_inner();
    while let Some(chunk) = stream.message().await.map_err(failed)? {
        sink.write(position.take(chunk.offset, &chunk.data)).await?;
    }
    Ok(())
}

/// Copies a file until its container has ended, whatever happens to the connection.
///
/// # Errors
/// The output cannot be written, or the file may not be read.
pub(crate) async fn follow<W: AsyncWrite + Unpin>(
    cluster: &Cluster,
    log: &LogFile,
    mut known: watch::Receiver<Known>,
    sink: &mut Sink<W>,
) -> Result<Followed, Failure> {
    let mut position = Position::default();
    let mut pause = Backoff::default();
    let mut silent_since: Option<tokio::time::Instant> = None;
    loop {
        let before = position.next;
        // Whether it had ended is asked before the try: what a later try finds missing stays missing.
        let ended = log.has_ended(&known.borrow_and_update());
        let result = follow_stream(cluster, log, &mut position, &mut known, sink).await?;
        let problem = match result {
            Stream::End => return Ok(Followed::Whole),
            Stream::Broken(problem) => problem,
        };
        if position.next != before {
            pause = Backoff::default();
            silent_since = None;
        }
        if ended && matches!(problem.kind, Kind::Refused | Kind::Usage | Kind::NotFound) {
            return Ok(Followed::Missing(problem));
        }
        if ended {
            let since = *silent_since.get_or_insert_with(tokio::time::Instant::now);
            if since.elapsed() > SILENCE_MAX {
                return Ok(Followed::Missing(problem));
            }
        }
        // A new report may say that the container has started or ended: then it is tried at once.
        tokio::select! {
            () = pause.wait() => {}
            Ok(()) = known.changed() => {}
        }
    }
}

enum Stream {
    End,
    Broken(Failure),
}

async fn follow_stream<W: AsyncWrite + Unpin>(
    cluster: &Cluster,
    log: &LogFile,
    position: &mut Position,
    known: &mut watch::Receiver<Known>,
    sink: &mut Sink<W>,
) -> Result<Stream, Failure> {
    let request = log.request(position, true);
    let mut client = cluster.client();
    let open = async {
        match client.read_logs(request).await {
            Ok(stream) => Ok(stream.into_inner()),
            Err(status) => Err(cluster.failure(&status)),
        }
    };
    let mut stream = tokio::select! {
        opened = open => match opened {
            Ok(stream) => stream,
            Err(failure) => return Ok(Stream::Broken(failure)),
        },
        () = silence(log, known.clone()) => return Ok(Stream::Broken(silent(log))),
    };
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = silence(log, known.clone()) => return Ok(Stream::Broken(silent(log))),
        };
        match message {
            Ok(Some(chunk)) => {
                sink.write(position.take(chunk.offset, &chunk.data)).await?;
                if chunk.end {
                    return Ok(Stream::End);
                }
            }
            Ok(None) => {
                let words = format!("the log {} ended early", log.file);
                return Ok(Stream::Broken(Failure::new(Kind::Failed, words)));
            }
            Err(status) => return Ok(Stream::Broken(cluster.failure(&status))),
        }
    }
}

/// Ends when the log should long have ended.
async fn silence(log: &LogFile, mut known: watch::Receiver<Known>) {
    // A watcher that is gone says nothing any more: then only the log itself can end.
    if known.wait_for(|known| log.has_ended(known)).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(SILENCE_MAX).await;
}

fn silent(log: &LogFile) -> Failure {
    let words = format!("the node says nothing more of the log {}", log.file);
    Failure::new(Kind::Failed, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_gap_nor_double() {
        let mut position = Position { next: Some(0) };
        assert_eq!(position.take(0, b"hello"), b"hello");
        assert_eq!(position.take(0, b"hello wo"), b" wo");
        assert_eq!(position.take(2, b"llo"), b"");
        assert_eq!(position.take(8, b"rld"), b"rld");
        assert_eq!(position.next, Some(11));
        let mut tail = Position::default();
        assert_eq!(tail.take(1000, b"last"), b"last");
        assert_eq!(tail.next, Some(1004));
    }

    #[test]
    fn where_to_begin_is_asked_once() {
        let mut log = LogFile::of_driver("application_1_0001", 1, "stdout");
        log.tail_lines = Some(3);
        let mut position = Position::default();
        assert_eq!(log.request(&position, true).tail_lines, Some(3));
        position.take(50, b"x");
        let again = log.request(&position, true);
        assert_eq!((again.tail_lines, again.offset), (None, 51));
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let mut pause = Backoff::default();
        let steps: Vec<_> = (0..8).map(|_| pause.step().as_millis()).collect();
        assert_eq!(steps, [10, 20, 40, 80, 160, 320, 500, 500]);
    }

    fn known(state: &str, attempts: &[(u32, &str)]) -> Known {
        let attempts = attempts
            .iter()
            .map(|(attempt, state)| v1::AttemptReport {
                attempt: *attempt,
                state: (*state).to_owned(),
                ..v1::AttemptReport::default()
            })
            .collect();
        let report = v1::ApplicationReport {
            state: state.to_owned(),
            attempts,
            ..v1::ApplicationReport::default()
        };
        Known {
            report: Some(Arc::new(report)),
            ended: false,
            failure: None,
        }
    }

    #[test]
    fn an_attempt_ends_before_its_application() {
        let both = known("RUNNING", &[(1, "FAILED"), (2, "RUNNING")]);
        assert!(attempt_ended(&both, 1));
        assert!(!attempt_ended(&both, 2));
        assert!(attempt_ended(
            &Known {
                ended: true,
                ..both
            },
            2
        ));
        assert!(!attempt_ended(&Known::default(), 1));
    }

    #[tokio::test]
    async fn a_closed_reader_is_no_error() {
        let (reader, writer) = tokio::io::duplex(8);
        drop(reader);
        let mut sink = Sink::new(writer);
        assert_eq!(sink.write(b"lost").await, Ok(()));
        assert!(sink.closed);
        assert_eq!(sink.write(b"lost").await, Ok(()));
    }
}
