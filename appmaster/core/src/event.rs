//! What happens to an application master.

use bobbin_types::{ContainerId, ExitStatus, NodeId, Resource};

/// One `RunTasks` stream of the driver. Numbers grow; a smaller one is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageId(pub u64);

/// A task over all stages: chosen by the shell, never used twice, growing with the submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey(pub u64);

/// One attempt of a task; attempts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskRef {
    pub task: TaskKey,
    pub attempt: u32,
}

/// A container granted by the resource manager. Its tokens stay with the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub container: ContainerId,
    pub node: NodeId,
    pub resource: Resource,
}

/// The end of a container, from the resource manager or from its node, whoever says it first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    pub container: ContainerId,
    pub exit_status: ExitStatus,
    pub diagnostics: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The deadline of `next_deadline` has come.
    Tick,

    // From the resource manager.
    /// Registered, for the first time or again; the shell's registration carried the asks and
    /// containers of [`crate::ApplicationMaster::registration`] as they are at this event.
    MasterRegistered {
        /// Nodes that can take work now.
        nodes_running: u32,
    },
    Granted(Vec<Grant>),
    ContainersCompleted(Vec<Completed>),
    AskRefused {
        reason: String,
    },

    // From nodes and executors.
    /// The node says that the executor's process runs.
    ContainerStarted {
        container: ContainerId,
    },
    /// The executor dialed in. Of an executor that was registered before, every task it held is
    /// lost: it ends its tasks when its stream breaks.
    ExecutorRegistered {
        container: ContainerId,
        slots: u32,
    },
    ExecutorDetached {
        container: ContainerId,
    },
    /// Any word of it.
    ExecutorHeard {
        container: ContainerId,
    },
    TaskStarted {
        container: ContainerId,
        task: TaskRef,
    },
    TaskEnded {
        container: ContainerId,
        task: TaskRef,
        exit_status: ExitStatus,
        /// Why it could not run or was ended by the executor; empty otherwise.
        problem: String,
    },

    // From the driver.
    StageOpened {
        stage: StageId,
    },
    TaskSubmitted {
        stage: StageId,
        task: TaskKey,
        /// Slots that it takes of one executor; 0 counts as 1.
        slots: u32,
    },
    TaskCancelled {
        stage: StageId,
        task: TaskKey,
    },
    /// Every task submitted so far that is not final; more may come.
    StageCancelled {
        stage: StageId,
    },
    /// No more tasks will come.
    StageClosed {
        stage: StageId,
    },
    /// The driver's stream is gone: nobody waits for its tasks.
    StageBroken {
        stage: StageId,
    },
    /// The driver does not read its results: nothing of this stage starts until it does.
    StageThrottled {
        stage: StageId,
        throttled: bool,
    },
    ExecutorsWanted {
        count: u32,
    },
    /// The driver has ended: everything is given back.
    ShutDown,
}
