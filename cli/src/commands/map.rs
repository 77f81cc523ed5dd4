//! `bobbin map`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use bobbin_appmaster::map_client::{
    FailedTask, MapError, MapOptions, MapProgress, MapSink, WINDOW, run as run_map,
};
use futures::Stream;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};

use crate::args::MapArgs;
use crate::cluster::sentence;
use crate::exit_codes::{DONE, FAILED};
use crate::failure::{Failure, Kind, Outcome, io_words};
use crate::output::{self, Bar};
use crate::text::printable;

/// Names the socket of the application master. Source: DESIGN, "Deploy modes".
const SOCKET_VARIABLE: &str = "BOBBIN_DRIVER_SOCKET";

pub(crate) async fn run(args: MapArgs, quiet: bool) -> Outcome {
    let socket = std::env::var_os(SOCKET_VARIABLE)
        .filter(|s| !s.is_empty())
        .ok_or_else(|| {
            Failure::new(
                Kind::Refused,
                format!("`bobbin map` works inside a driver: {SOCKET_VARIABLE} is not set"),
            )
            .try_this("bobbin submit --num-executors 2 -- sh -c 'seq 20 | bobbin map -- echo {}'")
        })?;
    let end = if args.null { b'\0' } else { b'\n' };
    let inputs = Box::pin(segments(open(&args.inputs).await?, end));
    let options = MapOptions {
        socket: socket.into(),
        command: args.command,
        environment: BTreeMap::new(),
        window: WINDOW,
    };
    let mut sink = Sink {
        out: io::BufWriter::new(io::stdout()),
        bar: Bar::count(quiet, 0, "tasks".to_owned()),
        shown: 0,
    };
    let result = run_map(options, inputs, &mut sink).await;
    drop(sink);
    match result {
        Ok(summary) if summary.failed == 0 => Ok(DONE),
        Ok(summary) => {
            output::note(&format!(
                "{} of {} tasks failed",
                summary.failed, summary.tasks
            ));
            Ok(FAILED)
        }
        // Whoever reads has seen enough: the tasks that ran are cancelled, and nothing need be said.
        Err(MapError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(FAILED),
        Err(error) => Err(failure(&error)),
    }
}

fn failure(error: &MapError) -> Failure {
    let kind = match error {
        MapError::NoExecutors | MapError::Refused { .. } => Kind::Refused,
        MapError::NoCommand | MapError::Input { .. } => Kind::Usage,
        MapError::Connect(_) => Kind::Unreachable,
        MapError::Read { .. }
        | MapError::Output(_)
        | MapError::Spool(_)
        | MapError::Lost { .. } => Kind::Failed,
    };
    let failure = Failure::new(kind, sentence(error));
    if matches!(error, MapError::NoExecutors) {
        return failure.try_this("bobbin submit --num-executors 2 ...");
    }
    failure
}

async fn open(path: &Path) -> Result<Box<dyn AsyncBufRead + Unpin>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(tokio::io::stdin())));
    }
    let file = tokio::fs::File::open(path).await.map_err(|e| {
        Failure::usage(format!(
            "--inputs: '{}' cannot be read: {}",
            path.display(),
            io_words(&e)
        ))
        .try_this("look at its path and permissions")
    })?;
    Ok(Box::new(BufReader::new(file)))
}

/// What stands between two ends; nothing behind the last end is no input.
fn segments(
    reader: Box<dyn AsyncBufRead + Unpin>,
    end: u8,
) -> impl Stream<Item = io::Result<Vec<u8>>> {
    futures::stream::try_unfold(reader, move |mut reader| async move {
        let mut segment = Vec::new();
        if reader.read_until(end, &mut segment).await? == 0 {
            return Ok(None);
        }
        if segment.last() == Some(&end) {
            segment.pop();
        }
        Ok(Some((segment, reader)))
    })
}

/// Standard output and error, with the bar out of their way.
struct Sink {
    out: io::BufWriter<io::Stdout>,
    bar: Bar,
    /// Tasks that the bar has counted.
    shown: u64,
}

impl MapSink for Sink {
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bar.suspend(|| io::stderr().write_all(bytes))
    }

    fn progress(&mut self, progress: &MapProgress) {
        self.bar.set_total(progress.total);
        self.bar.add(progress.done.saturating_sub(self.shown));
        self.shown = progress.done;
        self.bar.say(match (progress.failed, progress.retried) {
            (0, 0) => format!("{} running", progress.running),
            (failed, retried) => {
                format!(
                    "{} running, {failed} failed, {retried} tried again",
                    progress.running
                )
            }
        });
    }

    fn failed(&mut self, task: &FailedTask) {
        let words = words(task);
        self.bar.suspend(|| output::note(&words));
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.out.buffer().is_empty() {
            return Ok(());
        }
        let out = &mut self.out;
        self.bar.suspend(|| out.flush())
    }
}

fn words(task: &FailedTask) -> String {
    let times = if task.attempts == 1 {
        "once".to_owned()
    } else {
        format!("{} times", task.attempts)
    };
    let why = match task.problem.as_str() {
        "" => format!("exit status {}", task.exit_status),
        problem => printable(problem),
    };
    format!(
        "task {} ({}) failed {times}: {why}",
        task.number, task.input
    )
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    async fn split(text: &'static [u8], end: u8) -> Vec<String> {
        let reader: Box<dyn AsyncBufRead + Unpin> = Box::new(text);
        let all: Vec<Vec<u8>> = segments(reader, end).try_collect().await.unwrap();
        all.into_iter()
            .map(|s| String::from_utf8(s).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn inputs() {
        assert_eq!(split(b"a\n\nb c\n", b'\n').await, ["a", "", "b c"]);
        assert_eq!(split(b"a\nb", b'\n').await, ["a", "b"]);
        assert_eq!(split(b"a\nb\0c", b'\0').await, ["a\nb", "c"]);
        assert!(split(b"", b'\n').await.is_empty());
    }

    #[test]
    fn a_failed_task_in_words() {
        let mut task = FailedTask {
            number: 2,
            input: "x".into(),
            exit_status: 1,
            attempts: 4,
            problem: String::new(),
        };
        assert_eq!(words(&task), "task 2 (x) failed 4 times: exit status 1");
        task.attempts = 1;
        task.problem = "too much output".into();
        assert_eq!(words(&task), "task 2 (x) failed once: too much output");
    }

    #[test]
    fn without_executors_the_cure_is_named() {
        let failure = failure(&MapError::NoExecutors);
        assert_eq!(failure.kind, Kind::Refused);
        assert!(failure.cure.unwrap().contains("--num-executors"));
    }
}
