//! Streams between processes: in order, with delay; a lost message is a lost stream.

use bobbin_am_core::TaskRef;
use bobbin_na_core::{ContainerClaims, ContainerReport, Heartbeat, Registration};
use bobbin_rm_core::{
    Ask, ContainerUpdate, Finish, MasterMessage, MasterRegistration, NodeCommand,
};
use bobbin_types::{AttemptId, ContainerId, Millis};

/// A stream's number; never used twice in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) u64);

/// Who is at the two ends: the caller opened it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Caller: this incarnation of the agent on a node.
    NodeToRm { node: usize, life: u64 },
    /// Caller: a master.
    MasterToRm { master: usize },
    /// Caller: a master; called: this incarnation of the agent.
    MasterToNode {
        master: usize,
        node: usize,
        life: u64,
    },
}

/// One stream.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) ends: Ends,
    /// The resource manager's incarnation at the called end, for streams to it.
    pub(crate) rm_life: u64,
    pub(crate) broken: bool,
    /// Deliveries keep their order: none comes before the last one scheduled, by direction.
    pub(crate) last: [Millis; 2],
}

/// Which end a message or a loss comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Caller,
    Called,
}

/// Everything that travels.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    NodeRegister(Registration),
    NodeHeartbeat(Heartbeat),
    NodeStarted(ContainerReport),
    NodeExited(ContainerReport),
    ToNode(NodeCommand),
    MasterRegister(MasterRegistration),
    MasterAsks(Vec<Ask>),
    MasterRelease(Vec<ContainerId>),
    MasterFinish(Finish),
    MasterHeartbeat,
    MasterBlacklist {
        additions: Vec<String>,
        removals: Vec<String>,
    },
    MasterUpdate(ContainerUpdate),
    MasterAcknowledge(Vec<ContainerId>),
    ToMaster(MasterMessage),
    Start(ContainerClaims),
    Stop(ContainerId),
    /// A container's new size, with its token.
    Update {
        attempt: AttemptId,
        claims: ContainerClaims,
        version: u32,
    },
    Report(ContainerReport),
}

/// What an executor and its master say to each other; their stream lives and dies with both.
#[derive(Clone, Debug)]
pub(crate) enum ExecutorMessage {
    Register,
    TaskEnded(TaskRef, i32),
}
