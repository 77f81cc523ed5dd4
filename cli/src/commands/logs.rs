//! `bobbin app logs`.

use std::sync::Arc;

use bobbin_proto::v1;
use bobbin_proto::v1::read_logs_request::Source;
use bobbin_types::ContainerId;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;

use crate::args::AppLogsArgs;
use crate::cluster::{Cluster, about};
use crate::commands::follow::{Followed, LogFile, Sink, Watcher, copy, follow, until};
use crate::exit_codes::DONE;
use crate::failure::{Failure, Kind, Outcome};
use crate::{output, parse};

pub(crate) async fn run(args: &AppLogsArgs, rm: Option<&str>, quiet: bool) -> Outcome {
    let several = args.ids.len() > 1;
    if several && (args.follow || args.container.is_some()) {
        return Err(Failure::usage(
            "with -f or --container the log of one application is printed, not of several",
        )
        .try_this("one `bobbin app logs ID -f` for each"));
    }
    let cluster = Cluster::connect(rm).await?;
    let mut first = None;
    // One after the other: their bytes have no other border.
    for id in &args.ids {
        if several && !quiet {
            output::note(&format!("the log of {id}:"));
        }
        match print(&cluster, args, id).await {
            Err(failure) if first.is_none() => first = Some(failure),
            Err(failure) => output::error(&failure),
            Ok(()) => {}
        }
    }
    first.map_or(Ok(DONE), Err)
}

async fn print(cluster: &Cluster, args: &AppLogsArgs, id: &str) -> Result<(), Failure> {
    // Asked for even when the id is whole: the newest attempt must be known, and that it exists.
    let report = cluster.application(id).await?;
    let source = source(cluster, args, &report).await?;
    let log = LogFile {
        application_id: report.id.clone(),
        source,
        file: String::new(),
        tail_lines: args.tail,
        since_ms: args.since.map_or(0, |since| {
            bobbin_service::wall_now()
                .0
                .saturating_sub(parse::millis(since))
        }),
    };
    let result = match (&args.file, args.follow) {
        (Some(file), false) => one(cluster, &log, file).await,
        (None, false) => both(cluster, &log).await,
        (file, true) => live(cluster, &log, file.as_deref(), args.attempt.is_none()).await,
    };
    result.map_err(|failure| about(failure, &report.id))
}

/// Whose log: the driver's newest attempt unless something else is said.
async fn source(
    cluster: &Cluster,
    args: &AppLogsArgs,
    report: &v1::ApplicationReport,
) -> Result<Source, Failure> {
    let Some(container) = &args.container else {
        return Ok(Source::DriverAttempt(driver_attempt(args.attempt, report)?));
    };
    if container.parse::<ContainerId>().is_ok() {
        return Ok(Source::ContainerId(container.clone()));
    }
    let known = cluster.containers(&report.id).await?;
    let mut ids = known
        .into_iter()
        .map(|c| c.container_id)
        .filter(|id| id.ends_with(container));
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(Source::ContainerId(id)),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "'{container}' is the end of several containers' ids"
        ))
        .try_this(format!(
            "write more of it: `bobbin app containers {}`",
            report.id
        ))),
        (None, _) => Err(Failure::new(
            Kind::NotFound,
            format!("{} has no container '{container}'", report.id),
        )
        .try_this(format!("`bobbin app containers {}`", report.id))),
    }
}

fn driver_attempt(wanted: Option<u32>, report: &v1::ApplicationReport) -> Result<u32, Failure> {
    let id = &report.id;
    if report.unmanaged {
        return Err(Failure::new(
            Kind::NotFound,
            format!("the driver of {id} runs where it was submitted: its output is there"),
        )
        .try_this(format!(
            "an executor's log: `bobbin app logs {id} --container CONTAINER`"
        )));
    }
    let newest = report.attempts.iter().map(|a| a.attempt).max().unwrap_or(1);
    match wanted {
        Some(attempt) if attempt > newest => Err(Failure::new(
            Kind::NotFound,
            format!("{id} has {newest} attempts, not {attempt}"),
        )
        .try_this(format!("`bobbin app attempts {id}`"))),
        Some(attempt) => Ok(attempt),
        None => Ok(newest),
    }
}

fn named(log: &LogFile, file: &str) -> LogFile {
    LogFile {
        file: file.to_owned(),
        ..log.clone()
    }
}

async fn one(cluster: &Cluster, log: &LogFile, file: &str) -> Result<(), Failure> {
    copy(
        cluster,
        &named(log, file),
        &mut Sink::new(crate::output::out_stream()),
    )
    .await
}

/// The driver's stdout on ours, then its stderr on ours.
async fn both(cluster: &Cluster, log: &LogFile) -> Result<(), Failure> {
    copy(
        cluster,
        &named(log, "stdout"),
        &mut Sink::new(crate::output::out_stream()),
    )
    .await?;
    copy(
        cluster,
        &named(log, "stderr"),
        &mut Sink::new(crate::output::err_stream()),
    )
    .await
}

/// Follows to the end, or until nobody reads any more: that only ends the following.
/// With `goes_on`, over all attempts to come.
async fn live(
    cluster: &Cluster,
    log: &LogFile,
    file: Option<&str>,
    goes_on: bool,
) -> Result<(), Failure> {
    let reader_gone = Arc::new(Notify::new());
    tokio::select! {
        result = follow_all(cluster, log, file, goes_on, reader_gone.clone()) => result,
        () = reader_gone.notified() => Ok(()),
    }
}

async fn follow_all(
    cluster: &Cluster,
    log: &LogFile,
    file: Option<&str>,
    goes_on: bool,
    reader_gone: Arc<Notify>,
) -> Result<(), Failure> {
    let watcher = Watcher::start(cluster, &log.application_id);
    let mut out = Sink::watched(crate::output::out_stream(), reader_gone);
    let mut log = log.clone();
    loop {
        let followed = follow_one(cluster, &log, file, &watcher, &mut out).await?;
        let Source::DriverAttempt(attempt) = log.source else {
            return followed;
        };
        let next = attempt + 1;
        if !goes_on || !is_relaunched(&watcher, next).await? {
            return followed;
        }
        // The whole log of the next attempt: where to begin was asked for once.
        let id = log.application_id.clone();
        log = LogFile::of_driver(&id, next, "");
    }
}

/// Whether attempt `next` begins, or the application has ended without it.
async fn is_relaunched(watcher: &Watcher, next: u32) -> Result<bool, Failure> {
    let begun = |r: &v1::ApplicationReport| r.attempts.iter().any(|a| a.attempt >= next);
    let report = until(&mut watcher.known(), |known| {
        known.ended || known.report.as_deref().is_some_and(begun)
    })
    .await?;
    Ok(begun(&report))
}

/// One container's log to its end; the inner result is that it could not be had.
async fn follow_one<W: AsyncWrite + Unpin>(
    cluster: &Cluster,
    log: &LogFile,
    file: Option<&str>,
    watcher: &Watcher,
    out: &mut Sink<W>,
) -> Result<Result<(), Failure>, Failure> {
    let followed = match file {
        Some(file) => {
            vec![follow(cluster, &named(log, file), watcher.known(), out).await?]
        }
        None => {
            let mut err = Sink::new(crate::output::err_stream());
            let (stdout, stderr) = (named(log, "stdout"), named(log, "stderr"));
            let (a, b) = tokio::join!(
                follow(cluster, &stdout, watcher.known(), out),
                follow(cluster, &stderr, watcher.known(), &mut err),
            );
            vec![a?, b?]
        }
    };
    for result in followed {
        if let Followed::Missing(failure) = result {
            return Ok(Err(failure));
        }
    }
    Ok(Ok(()))
}

/// Says on standard error that a log is not whole.
pub(crate) fn note_missing(what: &str, failure: &Failure) {
    output::note(&format!("{what}: {}", failure.message));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(attempts: u32, unmanaged: bool) -> v1::ApplicationReport {
        let attempts = (1..=attempts)
            .map(|attempt| v1::AttemptReport {
                attempt,
                ..v1::AttemptReport::default()
            })
            .collect();
        v1::ApplicationReport {
            id: "application_1_0001".into(),
            attempts,
            unmanaged,
            ..v1::ApplicationReport::default()
        }
    }

    #[test]
    fn the_newest_attempt_unless_said_otherwise() {
        assert_eq!(driver_attempt(None, &report(3, false)), Ok(3));
        assert_eq!(driver_attempt(Some(1), &report(3, false)), Ok(1));
        assert_eq!(driver_attempt(None, &report(0, false)), Ok(1));
        assert_eq!(
            driver_attempt(Some(4), &report(3, false)).unwrap_err().kind,
            Kind::NotFound
        );
        let client = driver_attempt(None, &report(1, true)).unwrap_err();
        assert!(
            client.message.contains("where it was submitted"),
            "{client}"
        );
    }
}
