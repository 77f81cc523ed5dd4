//! For drivers written in Rust: executors and tasks over the driver's socket.
//!
//! ```no_run
//! # async fn example() -> Result<(), bobbin_appmaster::sdk::SdkError> {
//! use bobbin_appmaster::sdk::{Driver, Task};
//!
//! let driver = Driver::connect().await?;
//! let tasks = (1..=4).map(|n| Task::new(["expr", &n.to_string(), "*", &n.to_string()]));
//! for result in driver.run(tasks).await? {
//!     print!("{}", String::from_utf8_lossy(&result.stdout));
//! }
//! # Ok(())
//! # }
//! ```
//! [`Driver::run`] is for tasks whose results fit in memory together; [`Driver::open_stage`] hands
//! results over one by one, as they come, while further tasks are submitted or cancelled. Whoever
//! does not read results is sent no more than 16,384 of them: the rest waits at the master.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use bobbin_proto::v1;
use bobbin_proto::v1::driver_client::DriverClient;
use bobbin_service::{ConnectError, RpcChannel, Target, connect, status_words};
use bobbin_types::MESSAGE_BYTES_MAX;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::arrow::{ArrowDefect, ArrowSummary, read_stream};
pub use crate::arrow::{ConcatError, concat_results};

/// Where every driver finds its socket's path.
pub const SOCKET_VARIABLE: &str = "BOBBIN_DRIVER_SOCKET";
/// Requests under way to the master.
const REQUESTS_AHEAD: usize = 256;

/// Why a driver got no answer. A task that fails is no error: see [`TaskResult`].
#[derive(Debug, thiserror::Error)]
pub enum SdkError {
    #[error(
        "{SOCKET_VARIABLE} is not set: this program is not a driver; start it with `bobbin submit`"
    )]
    NoDriver,
    #[error("the driver's socket does not answer")]
    Connect(#[source] ConnectError),
    #[error("the application master refused: {words}")]
    Refused { words: String },
    #[error("the application master went away before all tasks were done: {words}")]
    Lost { words: String },
}

fn refused(status: &Status) -> SdkError {
    SdkError::Refused {
        words: status_words(status),
    }
}

/// The application as its master sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    pub application_id: String,
    /// From 1.
    pub attempt: u32,
    pub executors_wanted: u32,
    /// More than `executors_wanted` only with dynamic allocation.
    pub executors_max: u32,
    pub executors_up: u32,
    /// Task slots of the executors that are up.
    pub slots: u32,
}

/// A process to be run on an executor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Program and arguments; nothing is expanded.
    pub argv: Vec<String>,
    /// On top of the executor's.
    pub environment: BTreeMap<String, String>,
    pub stdin: Vec<u8>,
    /// Of one executor (`--executor-cores` is how many it has); 0 counts as 1.
    pub slots: u32,
    pub result_format: ResultFormat,
}

/// What a task's stdout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResultFormat {
    /// Nobody looks at it.
    #[default]
    Bytes,
    /// One Arrow IPC stream; a task that writes anything else has failed.
    ArrowIpcStream,
}

impl ResultFormat {
    fn wire(self) -> v1::ResultFormat {
        match self {
            ResultFormat::Bytes => v1::ResultFormat::Bytes,
            ResultFormat::ArrowIpcStream => v1::ResultFormat::ArrowIpcStream,
        }
    }
}

impl Task {
    /// A program with its arguments, in one slot.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Task {
        Task {
            argv: argv.into_iter().map(Into::into).collect(),
            ..Task::default()
        }
    }

    #[must_use]
    pub fn with_stdin(mut self, stdin: impl Into<Vec<u8>>) -> Task {
        self.stdin = stdin.into();
        self
    }

    #[must_use]
    pub fn with_slots(mut self, slots: u32) -> Task {
        self.slots = slots;
        self
    }

    /// Its stdout is an Arrow IPC stream: see [`TaskResult::record_batches`].
    #[must_use]
    pub fn with_arrow_result(mut self) -> Task {
        self.result_format = ResultFormat::ArrowIpcStream;
        self
    }

    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Task {
        self.environment.insert(name.into(), value.into());
        self
    }
}

/// Names a task within its stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// A task that is final: done, or failed for the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskResult {
    /// In the order of submission, from 0.
    pub id: u64,
    /// The program's; 128+n when a signal ended it; negative when it never ran.
    pub exit_status: i32,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it could not run or was lost; empty when the exit status says all.
    pub problem: String,
    /// Of the attempt that counts.
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// What its executor read, of a task that ended well and whose result is an Arrow IPC stream.
    pub arrow: Option<ArrowSummary>,
    /// What is wrong with such a result.
    pub arrow_defect: Option<v1::ArrowDefect>,
}

impl TaskResult {
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.exit_status == 0 && self.problem.is_empty()
    }

    /// Its stdout as an Arrow IPC stream, checked as the executor checks it: whoever wrote it, it
    /// is read within the limits of [`crate::arrow`]. Results of several tasks: [`concat_results`].
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn record_batches(&self) -> Result<Vec<RecordBatch>, ArrowDefect> {
        read_stream(&self.stdout).map(|(_, batches, _)| batches)
    }
}

/// What happens to tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    Running {
        id: TaskId,
        container_id: String,
        node_id: String,
        attempt: u32,
    },
    /// An attempt failed; there will be another one.
    Retried {
        id: TaskId,
        attempt: u32,
        exit_status: i32,
        problem: String,
    },
    Ended(TaskResult),
}

/// An executor that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorChange {
    pub container_id: String,
    pub node_id: String,
    pub is_up: bool,
    pub slots: u32,
    /// Why it went.
    pub reason: String,
}

/// The connection to the application master.
#[derive(Clone, Debug)]
pub struct Driver {
    client: DriverClient<RpcChannel>,
}

impl Driver {
    /// Connects to the socket that this process's environment names.
    ///
    /// # Errors
    /// `NoDriver` outside an application; `Connect`.
    pub async fn connect() -> Result<Driver, SdkError> {
        let socket = std::env::var_os(SOCKET_VARIABLE).ok_or(SdkError::NoDriver)?;
        Driver::connect_to(Path::new(&socket)).await
    }

    /// # Errors
    /// `Connect`.
    pub async fn connect_to(socket: &Path) -> Result<Driver, SdkError> {
        let target = Target::Unix(PathBuf::from(socket));
        let channel = connect(&target, None).await.map_err(SdkError::Connect)?;
        let client = DriverClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Driver { client })
    }

    /// # Errors
    /// `Refused`.
    pub async fn info(&self) -> Result<Info, SdkError> {
        let mut client = self.client.clone();
        let info = client.get_info(v1::GetInfoRequest {}).await;
        let info = info.map_err(|status| refused(&status))?.into_inner();
        Ok(Info {
            application_id: info.application_id,
            attempt: info.attempt,
            executors_wanted: info.executors_wanted,
            executors_max: info.executors_max,
            executors_up: info.executors_up,
            slots: info.slots,
        })
    }

    /// Asks for this many executors from now on; dynamic allocation ends.
    ///
    /// # Errors
    /// `Refused`: too many.
    pub async fn set_executors(&self, count: u32) -> Result<(), SdkError> {
        let mut client = self.client.clone();
        let set = client
            .set_executors(v1::SetExecutorsRequest { count })
            .await;
        set.map(drop).map_err(|status| refused(&status))
    }

    /// Executors that come and go from now on, beginning with those that are up.
    ///
    /// # Errors
    /// `Refused`.
    pub async fn watch_executors(&self) -> Result<ExecutorChanges, SdkError> {
        let mut client = self.client.clone();
        let events = client.watch_executors(v1::WatchExecutorsRequest {}).await;
        let events = events.map_err(|status| refused(&status))?.into_inner();
        Ok(ExecutorChanges { events })
    }

    /// Begins a stage: tasks in at one end, results out at the other.
    ///
    /// # Errors
    /// `Refused`.
    pub async fn open_stage(&self) -> Result<(Submitter, Results), SdkError> {
        let mut client = self.client.clone();
        let (requests, receiver) = mpsc::channel(REQUESTS_AHEAD);
        let events = client.run_tasks(ReceiverStream::new(receiver)).await;
        let events = events.map_err(|status| refused(&status))?.into_inner();
        let results = Results {
            events,
            outputs: HashMap::new(),
        };
        Ok((Submitter { requests, next: 0 }, results))
    }

    /// Runs tasks and returns their results in the same order; failed ones are among them.
    ///
    /// # Errors
    /// `Refused`, and `Lost`: then the tasks that still ran were cancelled.
    pub async fn run(
        &self,
        tasks: impl IntoIterator<Item = Task>,
    ) -> Result<Vec<TaskResult>, SdkError> {
        let (mut submitter, mut results) = self.open_stage().await?;
        let mut done = BTreeMap::new();
        for task in tasks {
            // Results are taken in between: the master accepts so many tasks ahead of them only.
            let submitting = submitter.submit(task);
            tokio::pin!(submitting);
            loop {
                tokio::select! {
                    biased;
                    submitted = &mut submitting => {
                        if submitted.is_none() {
                            return Err(results.why_it_ended().await);
                        }
                        break;
                    }
                    result = results.next_result() => match result {
                        Some(result) => {
                            let result = result?;
                            done.insert(result.id, result);
                        }
                        None => return Err(SdkError::Lost { words: "its stream ended".to_owned() }),
                    },
                }
            }
        }
        let submitted = submitter.next;
        drop(submitter);
        while let Some(result) = results.next_result().await {
            let result = result?;
            done.insert(result.id, result);
        }
        if u64::try_from(done.len()) != Ok(submitted) {
            let words = format!("{} of {submitted} tasks are done", done.len());
            return Err(SdkError::Lost { words });
        }
        Ok(done.into_values().collect())
    }
}

/// Takes a stage's tasks. Dropping it says that no more will come.
#[derive(Debug)]
pub struct Submitter {
    requests: mpsc::Sender<v1::TaskRequest>,
    next: u64,
}

impl Submitter {
    /// Waits while too many results are unread. `None`: the stage has ended; its results say why.
    pub async fn submit(&mut self, task: Task) -> Option<TaskId> {
        let id = TaskId(self.next);
        let task = v1::NewTask {
            task_id: id.0,
            argv: task.argv,
            environment: task.environment.into_iter().collect(),
            stdin: task.stdin,
            slots: task.slots,
            result_format: task.result_format.wire().into(),
        };
        let permit = self.requests.reserve().await.ok()?;
        permit.send(v1::TaskRequest {
            request: Some(v1::task_request::Request::Task(task)),
        });
        self.next += 1;
        Some(id)
    }

    /// Ends a task; its result says that it was cancelled, unless it came first.
    pub async fn cancel(&self, id: TaskId) {
        let cancel = v1::CancelTask { task_id: id.0 };
        let request = v1::TaskRequest {
            request: Some(v1::task_request::Request::Cancel(cancel)),
        };
        // A stage that has ended has nothing to cancel.
        drop(self.requests.send(request).await);
    }

    /// Ends every task submitted so far that has not ended; each still has its result. More may be
    /// submitted. Whoever wants no results drops the stage's [`Results`] instead.
    pub async fn cancel_all(&self) {
        let request = v1::TaskRequest {
            request: Some(v1::task_request::Request::CancelStage(v1::CancelStage {})),
        };
        drop(self.requests.send(request).await);
    }
}

/// A stage's events. Dropping it cancels what still runs.
#[derive(Debug)]
pub struct Results {
    events: Streaming<v1::TaskEvent>,
    outputs: HashMap<u64, (Vec<u8>, Vec<u8>)>,
}

impl Results {
    /// The next event; `None` when the submitter is dropped and every task has ended.
    pub async fn next_event(&mut self) -> Option<Result<TaskEvent, SdkError>> {
        loop {
            let event = match self.events.message().await {
                Ok(event) => event?,
                Err(status) => {
                    let words = status_words(&status);
                    return Some(Err(SdkError::Lost { words }));
                }
            };
            if let Some(event) = self.take(event) {
                return Some(Ok(event));
            }
        }
    }

    /// The next task that is final, whichever it is; `None` as for [`Results::next_event`].
    pub async fn next_result(&mut self) -> Option<Result<TaskResult, SdkError>> {
        loop {
            match self.next_event().await? {
                Ok(TaskEvent::Ended(result)) => return Some(Ok(result)),
                Ok(TaskEvent::Running { .. } | TaskEvent::Retried { .. }) => {}
                Err(e) => return Some(Err(e)),
            }
        }
    }

    async fn why_it_ended(&mut self) -> SdkError {
        loop {
            match self.next_event().await {
                Some(Ok(_)) => {}
                Some(Err(e)) => return e,
                None => {
                    let words = "its stream ended".to_owned();
                    return SdkError::Lost { words };
                }
            }
        }
    }

    fn take(&mut self, event: v1::TaskEvent) -> Option<TaskEvent> {
        use v1::task_event::Event;
        let id = TaskId(event.task_id);
        match event.event? {
            Event::Running(running) => Some(TaskEvent::Running {
                id,
                container_id: running.container_id,
                node_id: running.node_id,
                attempt: running.attempt,
            }),
            Event::Retry(retry) => Some(TaskEvent::Retried {
                id,
                attempt: retry.attempt,
                exit_status: retry.exit_status,
                problem: retry.problem,
            }),
            Event::Output(bytes) => {
                let (stdout, stderr) = self.outputs.entry(id.0).or_default();
                stdout.extend_from_slice(&bytes.stdout);
                stderr.extend_from_slice(&bytes.stderr);
                None
            }
            Event::Ended(ended) => {
                let (stdout, stderr) = self.outputs.remove(&id.0).unwrap_or_default();
                let (arrow, arrow_defect) = ended.arrow.map_or((None, None), of_arrow);
                Some(TaskEvent::Ended(TaskResult {
                    id: id.0,
                    exit_status: ended.exit_status,
                    attempts: ended.attempts,
                    problem: ended.problem,
                    stdout,
                    stderr,
                    arrow,
                    arrow_defect,
                }))
            }
        }
    }
}

/// A result that was read, or what is wrong with it.
fn of_arrow(wire: v1::ArrowResult) -> (Option<ArrowSummary>, Option<v1::ArrowDefect>) {
    let defect = wire.defect();
    if defect != v1::ArrowDefect::None {
        return (None, Some(defect));
    }
    let summary = ArrowSummary {
        rows: wire.rows,
        batches: wire.batches,
        schema_fingerprint: wire.schema_fingerprint,
    };
    (Some(summary), None)
}

/// Executors as they come and go.
#[derive(Debug)]
pub struct ExecutorChanges {
    events: Streaming<v1::ExecutorEvent>,
}

impl ExecutorChanges {
    /// `None` when the master goes.
    pub async fn next_change(&mut self) -> Option<Result<ExecutorChange, SdkError>> {
        match self.events.message().await {
            Ok(event) => event.map(|event| {
                Ok(ExecutorChange {
                    container_id: event.container_id,
                    node_id: event.node_id,
                    is_up: event.up,
                    slots: event.slots,
                    reason: event.reason,
                })
            }),
            Err(status) => Some(Err(SdkError::Lost {
                words: status_words(&status),
            })),
        }
    }
}
