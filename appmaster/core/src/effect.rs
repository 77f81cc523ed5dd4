//! What an application master wants done.

use bobbin_types::{ContainerId, ExitStatus, NodeId, Resource};

use crate::event::{StageId, TaskKey, TaskRef};

/// An absolute ask, replacing the earlier one of the same key (priority, place, capability,
/// request id); executors have one key only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub priority: i32,
    pub capability: Resource,
    pub count: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    // To the resource manager.
    SendAsk(Ask),
    Release(Vec<ContainerId>),

    // To nodes.
    StartExecutor {
        container: ContainerId,
        node: NodeId,
    },
    StopExecutor {
        container: ContainerId,
        node: NodeId,
    },

    // To executors.
    /// Its stream is refused or closed: it ends at once.
    DismissExecutor {
        container: ContainerId,
        reason: String,
    },
    LaunchTask {
        container: ContainerId,
        task: TaskRef,
    },
    KillTask {
        container: ContainerId,
        task: TaskRef,
    },

    // To the shell itself: the held output of this attempt is of no use any more.
    DiscardOutput {
        task: TaskRef,
    },

    // To the driver.
    TaskRunning {
        stage: StageId,
        task: TaskRef,
        container: ContainerId,
        node: NodeId,
    },
    TaskRetried {
        stage: StageId,
        task: TaskRef,
        exit_status: ExitStatus,
        problem: String,
    },
    /// Exactly once for each task of a stage that is not broken. `output_of` is the attempt whose
    /// output goes to the driver first.
    TaskFinal {
        stage: StageId,
        task: TaskKey,
        output_of: Option<TaskRef>,
        exit_status: ExitStatus,
        attempts: u32,
        problem: String,
    },
    /// The stage is closed and every task of it is final, or it is broken: forget it.
    StageEnded {
        stage: StageId,
    },
    ExecutorUp {
        container: ContainerId,
        node: NodeId,
        slots: u32,
    },
    ExecutorDown {
        container: ContainerId,
        node: NodeId,
        reason: String,
    },
    /// No executor can be had: the application fails with these words. Said once.
    Fail {
        diagnostics: String,
    },
}
