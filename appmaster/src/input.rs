//! Everything that reaches the application master's one task, from whatever door.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use bobbin_am_core::{Counts, Event, StageId, TaskRef};
use bobbin_proto::v1;
use bobbin_types::{ContainerId, ExitStatus};
use tokio::sync::{mpsc, oneshot};

use crate::held::Held;

/// Inbox of the master's task.
pub(crate) type Inbox = mpsc::Sender<Input>;
/// Places in the inbox; who finds it full waits, and with it its peer.
pub(crate) const INBOX_PLACES: usize = 1_024;

/// Commands to one executor; it cannot grow beyond launches and kills of its slots.
pub(crate) type Commands = mpsc::UnboundedSender<Result<v1::ExecutorCommand, tonic::Status>>;

pub(crate) enum Input {
    Event(Event),

    /// A stream to the resource manager is being opened: what to say first, and where to listen.
    RmAttaching(oneshot::Sender<(v1::RegisterMaster, mpsc::UnboundedReceiver<v1::AmMessage>)>),
    Rm(v1::rm_message::Message),
    /// The stream is lost and will be opened again.
    RmLost,
    /// The attempt is over for the resource manager, or it refuses the attempt's token.
    RmRefused(String),
    /// A node's word about a container.
    Container(v1::ContainerStatus),

    ExecutorAttached(AttachedExecutor),
    ExecutorWord {
        container: ContainerId,
        connection: u64,
        word: ExecutorWord,
    },
    ExecutorGone {
        container: ContainerId,
        connection: u64,
    },

    OpenStage {
        out: StageOut,
        reply: oneshot::Sender<StageId>,
    },
    Submit {
        stage: StageId,
        task: v1::NewTask,
    },
    Cancel {
        stage: StageId,
        task_id: u64,
    },
    Info(oneshot::Sender<Counts>),
    Watch(mpsc::Sender<Result<v1::ExecutorEvent, tonic::Status>>),
    /// The driver has ended. With a message, it is said to the resource manager until it is
    /// acknowledged; the reply says whether it was (or the attempt was over anyway).
    End {
        finish: Option<v1::Finish>,
        reply: oneshot::Sender<bool>,
    },
}

pub(crate) struct AttachedExecutor {
    pub(crate) container: ContainerId,
    /// Unique in this process: words of an older connection are ignored.
    pub(crate) connection: u64,
    pub(crate) slots: u32,
    pub(crate) commands: Commands,
}

pub(crate) enum ExecutorWord {
    Heartbeat,
    Started(TaskRef),
    Ended {
        task: TaskRef,
        exit_status: ExitStatus,
        problem: String,
        output: Held,
    },
}

/// Where a stage's events go.
pub(crate) struct StageOut {
    pub(crate) items: mpsc::UnboundedSender<StageItem>,
    pub(crate) shared: Arc<StageShared>,
}

/// What the master's task and a stage's outflow both count.
#[derive(Debug, Default)]
pub(crate) struct StageShared {
    /// Bytes of final output that the driver has not read yet.
    pub(crate) undelivered: AtomicU64,
    pub(crate) throttled: AtomicBool,
}

/// Undelivered bytes above which nothing of the stage starts, and below which it starts again.
pub(crate) const THROTTLE_ABOVE: u64 = 256 << 20;
pub(crate) const THROTTLE_BELOW: u64 = 64 << 20;

pub(crate) enum StageItem {
    Event(v1::TaskEvent),
    /// The task's output, then its end.
    Final {
        task_id: u64,
        output: Held,
        ended: v1::TaskFinal,
    },
    Refused(tonic::Status),
}
