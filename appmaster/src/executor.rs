//! The executor: task slots in one container.
//!
//! It dials its application master, runs what it is sent as child processes, and streams their
//! output. When the stream breaks it ends its tasks (the master counts them as lost) and dials
//! again; when the master stays away it goes. Nothing of a task outlives it.

mod result;
mod task;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bobbin_proto::v1;
use bobbin_proto::v1::executor_gateway_client::ExecutorGatewayClient;
use bobbin_service::{Target, connect, status_words};
use bobbin_types::MESSAGE_BYTES_MAX;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::api::AppMasterError;
use crate::client::Backoff;
use crate::processes::{end_all_descendants, reap_descendants};
use crate::settings::TASK_OUTPUT_BYTES_MAX;

/// Variables that tell an executor what tasks need not know.
pub(crate) const ADDRESS_VARIABLE: &str = "BOBBIN_AM_ADDRESS";
pub(crate) const SLOTS_VARIABLE: &str = "BOBBIN_EXECUTOR_SLOTS";
pub(crate) const OUTPUT_VARIABLE: &str = "BOBBIN_TASK_OUTPUT_BYTES_MAX";
pub(crate) const SECRET_FILE_VARIABLE: &str = "BOBBIN_EXECUTOR_SECRET_FILE";
pub(crate) const DETACHED_VARIABLE: &str = "BOBBIN_EXECUTOR_DETACHED_MS";
pub(crate) const HIDDEN_VARIABLES: [&str; 5] = [
    ADDRESS_VARIABLE,
    SLOTS_VARIABLE,
    OUTPUT_VARIABLE,
    SECRET_FILE_VARIABLE,
    DETACHED_VARIABLE,
];

/// Where a container's executor finds the application's secret.
const SECRET_FILE: &str = "secrets/executor-secret";
/// Without its master for so long, an executor goes.
const DETACHED: Duration = Duration::from_secs(5);
/// Messages on their way; tasks wait when the master does not take them.
const OUTWARD_PLACES: usize = 64;

/// The container's run folder: where it is bound, or where an agent without namespaces says it is.
pub(crate) fn run_folder() -> PathBuf {
    std::env::var_os("BOBBIN_RUN_DIR").map_or_else(|| PathBuf::from("/run/bobbin"), PathBuf::from)
}

/// What an executor is told at its start.
#[derive(Clone, Debug)]
pub struct ExecutorOptions {
    /// The master's gateway, host:port.
    pub address: String,
    pub secret: String,
    pub container_id: String,
    pub host: String,
    pub slots: u32,
    /// Of one attempt, stdout and stderr together.
    pub output_bytes_max: u64,
    /// How long to go on without the master.
    pub detached: Duration,
}

impl ExecutorOptions {
    /// # Errors
    /// The variable or file that is missing or wrong.
    pub fn from_environment() -> Result<ExecutorOptions, AppMasterError> {
        let secret_file = std::env::var_os(SECRET_FILE_VARIABLE)
            .map_or_else(|| run_folder().join(SECRET_FILE), PathBuf::from);
        let secret = std::fs::read_to_string(&secret_file).map_err(AppMasterError::io(format!(
            "read {}",
            secret_file.display()
        )))?;
        let detached_ms = number(DETACHED_VARIABLE)?;
        let slots = number(SLOTS_VARIABLE)?.unwrap_or(1);
        Ok(ExecutorOptions {
            address: text(ADDRESS_VARIABLE)?,
            secret: secret.trim().to_owned(),
            container_id: text("BOBBIN_CONTAINER_ID")?,
            host: std::env::var("BOBBIN_NODE_HOST").unwrap_or_default(),
            slots: u32::try_from(slots).unwrap_or(u32::MAX).max(1),
            output_bytes_max: number(OUTPUT_VARIABLE)?.unwrap_or(TASK_OUTPUT_BYTES_MAX),
            detached: detached_ms.map_or(DETACHED, Duration::from_millis),
        })
    }
}

fn text(variable: &'static str) -> Result<String, AppMasterError> {
    std::env::var(variable).map_err(|e| AppMasterError::Environment {
        variable,
        problem: e.to_string(),
    })
}

fn number(variable: &'static str) -> Result<Option<u64>, AppMasterError> {
    let Some(value) = std::env::var_os(variable) else {
        return Ok(None);
    };
    let value = value.to_string_lossy();
    let number = value.parse().map_err(|_| AppMasterError::Environment {
        variable,
        problem: format!("'{value}' is not a whole number"),
    })?;
    Ok(Some(number))
}

/// Why a stream to the master ended.
enum End {
    /// Dial again. `attached`: the master had answered.
    Lost { attached: bool, words: String },
    /// The master does not want this executor any more.
    Dismissed(String),
}

/// Until the master dismisses the executor or stays away, or `stop`. Ends every task.
pub async fn run_executor(options: ExecutorOptions, stop: CancellationToken) -> ExitCode {
    reap_descendants();
    let mut last_seen = Instant::now();
    let mut backoff = Backoff::new();
    let code = loop {
        let mut executor = Executor::new(&options);
        let end = tokio::select! {
            end = executor.one_stream() => end,
            () = stop.cancelled() => End::Dismissed("it was told to stop".to_owned()),
        };
        executor.end_tasks().await;
        match end {
            End::Dismissed(words) => {
                tracing::info!("the executor goes: {words}");
                break ExitCode::SUCCESS;
            }
            End::Lost { attached, words } => {
                tracing::info!("the application master is away: {words}");
                if attached {
                    last_seen = Instant::now();
                    backoff = Backoff::new();
                }
            }
        }
        if last_seen.elapsed() >= options.detached {
            tracing::warn!("the application master stayed away: the executor goes");
            break ExitCode::from(1);
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = stop.cancelled() => break ExitCode::SUCCESS,
        }
    };
    // What left its task's group.
    end_all_descendants();
    code
}

type TaskKey = (u64, u32);

struct Executor<'a> {
    options: &'a ExecutorOptions,
    tasks: JoinSet<TaskKey>,
    kills: HashMap<TaskKey, CancellationToken>,
    waited: task::Waited,
}

impl<'a> Executor<'a> {
    fn new(options: &'a ExecutorOptions) -> Executor<'a> {
        Executor {
            options,
            tasks: JoinSet::new(),
            kills: HashMap::new(),
            waited: task::Waited::default(),
        }
    }

    async fn one_stream(&mut self) -> End {
        let lost = |attached, words: String| End::Lost { attached, words };
        let target = Target::Tcp(self.options.address.clone());
        let channel = match connect(&target, Some(&self.options.secret)).await {
            Ok(channel) => channel,
            Err(e) => return lost(false, e.to_string()),
        };
        let (outward, receiver) = mpsc::channel(OUTWARD_PLACES);
        let register = v1::RegisterExecutor {
            container_id: self.options.container_id.clone(),
            slots: self.options.slots,
            host: self.options.host.clone(),
            running: Vec::new(),
        };
        let register = message(v1::executor_message::Message::Register(register));
        if outward.send(register).await.is_err() {
            return lost(false, "the stream broke at once".to_owned());
        }
        let mut client =
            ExecutorGatewayClient::new(channel).max_decoding_message_size(2 * MESSAGE_BYTES_MAX);
        let mut commands = match client.attach(ReceiverStream::new(receiver)).await {
            Ok(response) => response.into_inner(),
            // The secret is wrong, or of an attempt that is over.
            Err(status) if status.code() == tonic::Code::Unauthenticated => {
                return End::Dismissed(status_words(&status));
            }
            Err(status) => return lost(false, status_words(&status)),
        };
        let mut attached = false;
        let mut heartbeat = tokio::time::interval(Duration::from_secs(3));
        loop {
            tokio::select! {
                command = commands.message() => match command {
                    Ok(Some(command)) => match command.command {
                        Some(v1::executor_command::Command::Registered(registered)) => {
                            attached = true;
                            let ms = registered.heartbeat_interval_ms.clamp(100, 60_000);
                            heartbeat = tokio::time::interval(Duration::from_millis(ms));
                        }
                        Some(v1::executor_command::Command::Shutdown(shutdown)) => {
                            return End::Dismissed(shutdown.reason);
                        }
                        Some(v1::executor_command::Command::LaunchTask(launch)) => {
                            self.launch(launch, &outward);
                        }
                        Some(v1::executor_command::Command::KillTask(kill)) => {
                            let key = kill.task.map(|t| (t.task_id, t.attempt));
                            if let Some(kill) = key.and_then(|k| self.kills.get(&k)) {
                                kill.cancel();
                            }
                        }
                        None => {}
                    },
                    Ok(None) => return lost(attached, "the stream ended".to_owned()),
                    Err(status) => return lost(attached, status_words(&status)),
                },
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(key) = ended {
                        self.kills.remove(&key);
                    }
                }
                _ = heartbeat.tick() => {
                    // When it cannot be sent, the full stream itself is the sign of life.
                    let beat = v1::executor_message::Message::Heartbeat(v1::ExecutorHeartbeat {});
                    let _ = outward.try_send(message(beat));
                }
            }
        }
    }

    fn launch(&mut self, launch: v1::LaunchTask, outward: &mpsc::Sender<v1::ExecutorMessage>) {
        let Some(task) = launch.task else { return };
        let kill = CancellationToken::new();
        let key = (task.task_id, task.attempt);
        self.kills.insert(key, kill.clone());
        let output_bytes_max = self.options.output_bytes_max;
        let outward = outward.clone();
        let running = task::start(task, launch, output_bytes_max, &self.waited);
        self.tasks.spawn(async move {
            running.run(outward, kill).await;
            key
        });
    }

    async fn end_tasks(&mut self) {
        for kill in self.kills.values() {
            kill.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
        self.kills.clear();
    }
}

fn message(message: v1::executor_message::Message) -> v1::ExecutorMessage {
    v1::ExecutorMessage {
        message: Some(message),
    }
}
