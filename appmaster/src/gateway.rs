//! The executor gateway: executors dial in with the application's secret.
//!
//! A task a connection: it holds the output of running attempts (spooled beyond a memory budget) and
//! turns messages into inputs; a full inbox holds the executor back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bobbin_am_core::{TaskKey, TaskRef};
use bobbin_proto::v1;
use bobbin_proto::v1::executor_gateway_server::ExecutorGateway;
use bobbin_service::bearer;
use bobbin_types::{ContainerId, ExitStatus};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::held::{Held, OutputStream};
use crate::input::{AttachedExecutor, ExecutorWord, Inbox, Input};
use crate::spool::Spool;

/// Of executors to their master, milliseconds.
pub(crate) const HEARTBEAT_INTERVAL_MS: u64 = 3_000;

pub(crate) struct Gateway {
    shared: Arc<Shared>,
}

struct Shared {
    secret: String,
    inbox: Inbox,
    spool: Spool,
    /// Output of one attempt that is kept; executors end a task that has more.
    output_bytes_max: u64,
    connections: AtomicU64,
}

impl Gateway {
    pub(crate) fn new(
        secret: String,
        inbox: Inbox,
        spool: Spool,
        output_bytes_max: u64,
    ) -> Gateway {
        Gateway {
            shared: Arc::new(Shared {
                secret,
                inbox,
                spool,
                output_bytes_max,
                connections: AtomicU64::new(0),
            }),
        }
    }
}

/// Compares without telling by its time how much was right.
fn same_secret(given: &str, secret: &str) -> bool {
    let differs = given
        .bytes()
        .zip(secret.bytes())
        .fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == secret.len() && std::hint::black_box(differs) == 0
}

#[tonic::async_trait]
impl ExecutorGateway for Gateway {
    type AttachStream = UnboundedReceiverStream<Result<v1::ExecutorCommand, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::ExecutorMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let given =
            bearer(request.metadata()).map_err(|e| Status::unauthenticated(e.to_string()))?;
        if !same_secret(given, &self.shared.secret) {
            let words = "this is not the secret of this application's executors";
            return Err(Status::unauthenticated(words));
        }
        let (commands, receiver) = mpsc::unbounded_channel();
        let connection = self.shared.connections.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        let messages = request.into_inner();
        tokio::spawn(async move {
            let refuse = commands.clone();
            if let Err(status) = attend(shared, connection, commands, messages).await {
                let _ = refuse.send(Err(status));
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver)))
    }
}

/// From the registration to the end of the stream.
async fn attend(
    shared: Arc<Shared>,
    connection: u64,
    commands: crate::input::Commands,
    mut messages: Streaming<v1::ExecutorMessage>,
) -> Result<(), Status> {
    let gone = || Status::unavailable("the application master is going away");
    let Some(v1::executor_message::Message::Register(register)) =
        messages.message().await?.and_then(|m| m.message)
    else {
        return Err(Status::failed_precondition("an executor registers first"));
    };
    let container: ContainerId = bobbin_proto::field("container_id", &register.container_id)
        .map_err(|e| Status::invalid_argument(e.to_string()))?;
    let attached = AttachedExecutor {
        container,
        connection,
        slots: register.slots,
        commands,
    };
    let attached = Input::ExecutorAttached(attached);
    shared.inbox.send(attached).await.map_err(|_| gone())?;
    let mut held = HashMap::new();
    while let Ok(Some(message)) = messages.message().await {
        let Some(word) = message
            .message
            .and_then(|m| on_message(&shared, &mut held, m))
        else {
            continue;
        };
        let word = Input::ExecutorWord {
            container,
            connection,
            word,
        };
        shared.inbox.send(word).await.map_err(|_| gone())?;
    }
    let end = Input::ExecutorGone {
        container,
        connection,
    };
    shared.inbox.send(end).await.map_err(|_| gone())
}

/// Holds output back, and makes a word for the master of everything else.
fn on_message(
    shared: &Shared,
    held: &mut HashMap<TaskRef, Held>,
    message: v1::executor_message::Message,
) -> Option<ExecutorWord> {
    match message {
        v1::executor_message::Message::Register(_)
        | v1::executor_message::Message::Heartbeat(_) => Some(ExecutorWord::Heartbeat),
        v1::executor_message::Message::TaskStarted(started) => {
            let task = task_ref(started.task?);
            held.insert(task, Held::default());
            Some(ExecutorWord::Started(task))
        }
        v1::executor_message::Message::TaskOutput(output) => {
            let held = held.entry(task_ref(output.task?)).or_default();
            // The executor ends a task above the limit; this only bounds what a broken one sends.
            if held.bytes() <= shared.output_bytes_max.saturating_add(1 << 20) {
                held.push(&shared.spool, OutputStream::Stdout, &output.stdout);
                held.push(&shared.spool, OutputStream::Stderr, &output.stderr);
            }
            None
        }
        v1::executor_message::Message::TaskEnded(ended) => {
            let task = task_ref(ended.task?);
            let mut output = held.remove(&task).unwrap_or_default();
            output.settle(&shared.spool);
            output.set_arrow(ended.arrow);
            let problem = match output.problem() {
                Some(words) if ended.problem.is_empty() => words.to_owned(),
                Some(_) | None => ended.problem,
            };
            Some(ExecutorWord::Ended {
                task,
                exit_status: ExitStatus(ended.exit_status),
                problem,
                output,
            })
        }
    }
}

fn task_ref(wire: v1::TaskRef) -> TaskRef {
    TaskRef {
        task: TaskKey(wire.task_id),
        attempt: wire.attempt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_must_be_the_same() {
        assert!(same_secret("abc", "abc"));
        for wrong in ["", "ab", "abd", "abcd"] {
            assert!(!same_secret(wrong, "abc"), "{wrong}");
        }
    }
}
