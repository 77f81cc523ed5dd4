//! `bobbin map`: one task per input on the executors, results in input order.
//!
//! Inputs are read only as fast as results leave: at most [`MapOptions::window`] tasks are between
//! the two ends, and output that came out of order waits in a spool with a memory budget.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;

use bobbin_proto::v1;
use bobbin_proto::v1::driver_client::DriverClient;
use bobbin_service::{ConnectError, RpcChannel, Target, connect, status_words};
use bobbin_types::MESSAGE_BYTES_MAX;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::spool::{Piece, Spool};

/// Tasks between the first input that is not printed and the last that was read.
pub const WINDOW: usize = 8_192;
/// Failed tasks that are named in the summary; the others are only counted.
const FAILED_NAMED: usize = 100;
/// Bytes of an input that are shown when its task failed.
const SHOWN_BYTES: usize = 200;

/// What to run where.
#[derive(Clone, Debug)]
pub struct MapOptions {
    /// The driver's socket: the value of `BOBBIN_DRIVER_SOCKET`.
    pub socket: PathBuf,
    /// Every `{}` in every word is replaced by the input.
    pub command: Vec<String>,
    /// For the tasks, beside `BOBBIN_TASK_INPUT`.
    pub environment: BTreeMap<String, String>,
    pub window: usize,
}

/// Where results go; called in input order. An error of it ends the map.
pub trait MapSink {
    /// # Errors
    /// Nobody reads it any more.
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// # Errors
    /// Nobody reads it any more.
    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Called at every change; drawing less often is up to the sink.
    fn progress(&mut self, progress: &MapProgress);
    /// A task that finally failed, in the order of its input, after its output.
    fn failed(&mut self, task: &FailedTask);
    /// All output that can be had now was handed over.
    ///
    /// # Errors
    /// Nobody reads it any more.
    fn flush(&mut self) -> io::Result<()>;
}

/// Where the map stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapProgress {
    /// Inputs read so far; all of them once `complete`.
    pub total: u64,
    pub complete: bool,
    pub done: u64,
    pub running: u64,
    pub failed: u64,
    /// Attempts that were tried again.
    pub retried: u64,
}

/// A task that finally failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedTask {
    /// From 1.
    pub number: u64,
    /// The input, cut after 200 bytes.
    pub input: String,
    pub exit_status: i32,
    pub attempts: u32,
    /// Why it could not run or was lost; empty when its own exit status says all.
    pub problem: String,
}

/// The end of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapSummary {
    pub tasks: u64,
    pub failed: u64,
    /// The first 100 of them.
    pub failed_tasks: Vec<FailedTask>,
}

/// Why a map could not be done. A task that fails is no error: see [`MapSummary::failed`].
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error("the driver's socket does not answer")]
    Connect(#[source] ConnectError),
    #[error("this application has no executors: submit with --num-executors N")]
    NoExecutors,
    #[error("the command is empty")]
    NoCommand,
    #[error("input {number} {problem}")]
    Input { number: u64, problem: &'static str },
    #[error("input {number} cannot be read")]
    Read {
        number: u64,
        #[source]
        source: io::Error,
    },
    #[error("output cannot be written")]
    Output(#[source] io::Error),
    #[error("waiting output cannot be kept")]
    Spool(#[source] io::Error),
    #[error("the application master refused: {words}")]
    Refused { words: String },
    #[error("the application master went away before all tasks were done: {words}")]
    Lost { words: String },
}

/// Runs one task per input and hands the results to `sink` in input order.
///
/// # Errors
/// See [`MapError`]; tasks that still run are cancelled then.
pub async fn run<I, S>(options: MapOptions, inputs: I, sink: &mut S) -> Result<MapSummary, MapError>
where
    I: Stream<Item = io::Result<Vec<u8>>> + Unpin,
    S: MapSink,
{
    if options.command.is_empty() {
        return Err(MapError::NoCommand);
    }
    let target = Target::Unix(options.socket.clone());
    let channel = connect(&target, None).await.map_err(MapError::Connect)?;
    let mut client = DriverClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    check_executors(&mut client).await?;
    let (requests, receiver) = mpsc::channel(256);
    let events = client
        .run_tasks(ReceiverStream::new(receiver))
        .await
        .map_err(refused)?
        .into_inner();
    let folder = std::env::temp_dir();
    let map = Map {
        options,
        sink,
        spool: Spool::new(&folder),
        waiting: VecDeque::new(),
        first: 0,
        progress: MapProgress::default(),
        summary: MapSummary::default(),
    };
    map.drive(inputs, Some(requests), events).await
}

async fn check_executors(client: &mut DriverClient<RpcChannel>) -> Result<(), MapError> {
    let info = client
        .get_info(v1::GetInfoRequest {})
        .await
        .map_err(refused)?
        .into_inner();
    if info.executors_max == 0 && info.executors_up == 0 {
        return Err(MapError::NoExecutors);
    }
    Ok(())
}

fn refused(status: tonic::Status) -> MapError {
    MapError::Refused {
        words: status_words(&status),
    }
}

/// A task whose result has not been handed over.
#[derive(Debug, Default)]
struct Waiting {
    input: String,
    running: bool,
    output: Vec<(Stream2, Piece)>,
    ended: Option<v1::TaskFinal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream2 {
    Stdout,
    Stderr,
}

struct Map<'a, S> {
    options: MapOptions,
    sink: &'a mut S,
    spool: Spool,
    /// From task number `first` on, without a gap.
    waiting: VecDeque<Waiting>,
    first: u64,
    progress: MapProgress,
    summary: MapSummary,
}

impl<S: MapSink> Map<'_, S> {
    async fn drive<I>(
        mut self,
        mut inputs: I,
        mut requests: Option<mpsc::Sender<v1::TaskRequest>>,
        mut events: Streaming<v1::TaskEvent>,
    ) -> Result<MapSummary, MapError>
    where
        I: Stream<Item = io::Result<Vec<u8>>> + Unpin,
    {
        loop {
            let room = self.waiting.len() < self.options.window.max(1);
            let sender = requests.as_ref().filter(|_| room);
            let ended = tokio::select! {
                // Results first: they make room.
                biased;
                event = events.message() => {
                    if self.on_message(event)? { break }
                    false
                }
                permit = reserve(sender), if sender.is_some() => match permit {
                    Some(permit) => tokio::select! {
                        // Reading an input may wait (a pipe), so events go on beside it.
                        biased;
                        event = events.message() => {
                            if self.on_message(event)? { break }
                            false
                        }
                        input = inputs.next() => match input {
                            Some(input) => {
                                permit.send(self.task(input)?);
                                false
                            }
                            None => {
                                self.progress.complete = true;
                                self.sink.progress(&self.progress);
                                true
                            }
                        },
                    },
                    // The stream has ended; the next event says why.
                    None => true,
                },
            };
            if ended {
                requests = None;
            }
        }
        self.sink.flush().map_err(MapError::Output)?;
        self.summary.tasks = self.progress.total;
        self.summary.failed = self.progress.failed;
        Ok(self.summary)
    }

    /// True when the stream has ended as it should.
    fn on_message(
        &mut self,
        event: Result<Option<v1::TaskEvent>, tonic::Status>,
    ) -> Result<bool, MapError> {
        let lost = |words: String| Err(MapError::Lost { words });
        match event {
            Ok(Some(event)) => self.on_event(event).map(|()| false),
            Ok(None) if self.is_done() => Ok(true),
            Ok(None) => lost("its stream ended".to_owned()),
            Err(status) => lost(status_words(&status)),
        }
    }

    fn is_done(&self) -> bool {
        self.progress.complete && self.waiting.is_empty()
    }

    /// The request for the next input.
    fn task(&mut self, input: io::Result<Vec<u8>>) -> Result<v1::TaskRequest, MapError> {
        let number = self.progress.total + 1;
        let bytes = input.map_err(|source| MapError::Read { number, source })?;
        let problem = |problem| MapError::Input { number, problem };
        let text = String::from_utf8(bytes).map_err(|_| problem("is not UTF-8"))?;
        if text.contains('\0') {
            return Err(problem("holds a NUL byte, which no argument can"));
        }
        if text.len() >= bobbin_types::ARGUMENT_BYTES_MAX {
            return Err(problem("has more than 128 KiB, which no argument can"));
        }
        let argv = self.options.command.iter().map(|w| w.replace("{}", &text));
        let argv: Vec<_> = argv.collect();
        if argv.iter().map(|w| w.len() + 1).sum::<usize>() > bobbin_types::ARGUMENTS_BYTES_MAX {
            return Err(problem("makes the command longer than 1 MiB"));
        }
        let mut environment: std::collections::HashMap<_, _> =
            self.options.environment.clone().into_iter().collect();
        environment.insert("BOBBIN_TASK_INPUT".to_owned(), text.clone());
        let task_id = self.progress.total;
        self.progress.total += 1;
        self.waiting.push_back(Waiting {
            input: shown(&text),
            ..Waiting::default()
        });
        self.sink.progress(&self.progress);
        let task = v1::NewTask {
            task_id,
            argv,
            environment,
            stdin: Vec::new(),
            slots: 1,
            result_format: v1::ResultFormat::Bytes.into(),
        };
        Ok(v1::TaskRequest {
            request: Some(v1::task_request::Request::Task(task)),
        })
    }

    fn on_event(&mut self, event: v1::TaskEvent) -> Result<(), MapError> {
        let index = event.task_id.checked_sub(self.first);
        let index = index.and_then(|i| usize::try_from(i).ok());
        let Some(task) = index.and_then(|i| self.waiting.get_mut(i)) else {
            return Ok(());
        };
        match event.event {
            Some(v1::task_event::Event::Running(_)) => {
                self.progress.running += u64::from(!task.running);
                task.running = true;
            }
            Some(v1::task_event::Event::Retry(_)) => {
                self.progress.running -= u64::from(task.running);
                self.progress.retried += 1;
                task.running = false;
            }
            Some(v1::task_event::Event::Output(bytes)) => {
                for (stream, bytes) in [
                    (Stream2::Stdout, bytes.stdout),
                    (Stream2::Stderr, bytes.stderr),
                ] {
                    if !bytes.is_empty() {
                        let piece = self.spool.put(Bytes::from(bytes));
                        task.output.push((stream, piece.map_err(MapError::Spool)?));
                    }
                }
                if index == Some(0) {
                    self.hand_over()?;
                }
                return Ok(());
            }
            Some(v1::task_event::Event::Ended(ended)) => {
                self.progress.running -= u64::from(task.running);
                self.progress.done += 1;
                self.progress.failed += u64::from(has_failed(&ended));
                task.running = false;
                task.ended = Some(ended);
                self.hand_over()?;
            }
            None => {}
        }
        self.sink.progress(&self.progress);
        Ok(())
    }

    /// Hands over everything from the first task on that is in order.
    fn hand_over(&mut self) -> Result<(), MapError> {
        while let Some(task) = self.waiting.front_mut() {
            for (stream, piece) in task.output.drain(..) {
                let bytes = piece.read().map_err(MapError::Spool)?;
                match stream {
                    Stream2::Stdout => self.sink.stdout(&bytes),
                    Stream2::Stderr => self.sink.stderr(&bytes),
                }
                .map_err(MapError::Output)?;
            }
            let Some(ended) = task.ended.take() else {
                break;
            };
            if has_failed(&ended) {
                let failed = FailedTask {
                    number: self.first + 1,
                    input: std::mem::take(&mut task.input),
                    exit_status: ended.exit_status,
                    attempts: ended.attempts,
                    problem: ended.problem,
                };
                self.sink.failed(&failed);
                if self.summary.failed_tasks.len() < FAILED_NAMED {
                    self.summary.failed_tasks.push(failed);
                }
            }
            self.waiting.pop_front();
            self.first += 1;
        }
        self.sink.flush().map_err(MapError::Output)
    }
}

fn has_failed(ended: &v1::TaskFinal) -> bool {
    ended.exit_status != 0 || !ended.problem.is_empty()
}

async fn reserve<T>(sender: Option<&mpsc::Sender<T>>) -> Option<mpsc::Permit<'_, T>> {
    sender?.reserve().await.ok()
}

/// An input as it is shown to people: cut, without control characters.
fn shown(text: &str) -> String {
    let mut end = text.len().min(SHOWN_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end]
        .chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_inputs_are_short_and_harmless() {
        assert_eq!(shown("a\tb\x1b[2J"), "a\u{FFFD}b\u{FFFD}[2J");
        let long = "é".repeat(300);
        assert_eq!(shown(&long).chars().count(), 100);
    }
}
