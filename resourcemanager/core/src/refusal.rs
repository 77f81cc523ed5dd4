//! Why a request is refused: the thing, the limit, the cure, with the numbers.

use bobbin_types::{ApplicationId, AttemptId, ContainerId, NameError, NodeId, Resource};

use crate::authority::Denied;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("no application '{0}' is known here; list them with 'bobbin app list'")]
    UnknownApplication(String),
    #[error("'{text}' could be {first} or {second}: write more of it")]
    AmbiguousApplication {
        text: String,
        first: ApplicationId,
        second: ApplicationId,
    },
    #[error("user {0} has no application here yet")]
    NoApplicationYet(String),
    #[error("{0} was not handed out by this cluster; get an id first or submit without one")]
    IdNotIssued(ApplicationId),
    #[error("{0} was handed out to another user")]
    IdOfAnother(ApplicationId),
    #[error("{0} has ended and was forgotten")]
    IdForgotten(ApplicationId),
    #[error("{0} has ended")]
    ApplicationEnded(ApplicationId),
    #[error("no application ids are left; this cluster has handed out all 4,294,967,295")]
    IdsExhausted,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{what}: {number} given, at most {max} are allowed")]
    TooMany {
        what: &'static str,
        number: u64,
        max: u64,
    },
    #[error("{what} would be {number}, at most {max} are held at once")]
    Full {
        what: &'static str,
        number: u64,
        max: u64,
    },
    #[error("{what} is {number}, at least {min} is needed")]
    TooLittle {
        what: &'static str,
        number: u64,
        min: u64,
    },
    #[error(
        "{asked} is more than any node has; the largest nodes have {largest} (kind by kind, {nodes} nodes)"
    )]
    LargerThanLargestNode {
        asked: Box<Resource>,
        largest: Box<Resource>,
        nodes: usize,
    },
    #[error("no queue '{queue}'; there is {known}")]
    UnknownQueue { queue: String, known: String },
    #[error("no node has the label '{0}'")]
    UnknownLabel(String),
    #[error("no rack '{0}'; all nodes are in /default-rack")]
    UnknownRack(String),
    #[error("a managed application needs a program to start")]
    NoProgram,
    #[error("an unmanaged application is its submitter's own process: it has no program to start")]
    UnmanagedWithProgram,
    #[error("{attempt} is over: {reason}")]
    AttemptOver { attempt: AttemptId, reason: String },
    #[error("no attempt {0} is known here; list them with 'bobbin app attempts'")]
    UnknownAttempt(AttemptId),
    #[error("{0} has no master yet that could be failed; kill its application instead")]
    AttemptNotStarted(AttemptId),
    #[error("no container {0} is known here; list them with 'bobbin app containers'")]
    UnknownContainer(ContainerId),
    #[error("{0} does not run: it has ended, ends, or was not started yet")]
    ContainerNotRunning(ContainerId),
    #[error("node {node} of {container} is away; try again when it is back")]
    NodeAway {
        node: NodeId,
        container: ContainerId,
    },
    #[error(
        "the end of {application} would be {expires_ms} (Unix milliseconds): it is {now_ms} now, and only a later time can be set"
    )]
    TimeoutInPast {
        application: ApplicationId,
        expires_ms: u64,
        now_ms: u64,
    },
    #[error("{container} is at version {current}, not {given}")]
    ContainerVersion {
        container: ContainerId,
        given: u32,
        current: u32,
    },
    #[error("{container} has {has}: {asked} is no {direction} of it")]
    NotAChange {
        container: ContainerId,
        has: Box<Resource>,
        asked: Box<Resource>,
        direction: &'static str,
    },
    #[error("{container} cannot have {asked}: its node {node} has {room} left")]
    NoRoomToGrow {
        container: ContainerId,
        node: NodeId,
        asked: Box<Resource>,
        room: Box<Resource>,
    },
    #[error("node {node} offers {total}: at least 1 MiB and 1 vcore are needed")]
    NodeWithoutResources { node: NodeId, total: Resource },
    #[error("node {node} offers {total}: at most 2^40 MiB and 65536 vcores are believed")]
    NodeTooLarge { node: NodeId, total: Resource },
    #[error("the resource manager has not read its journal yet; try again")]
    Recovering,
}

/// What a door makes of a refusal: a gRPC status, a Hadoop exception, an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    NotFound,
    Denied,
    /// The request itself is wrong; repeating it will not help.
    Invalid,
    /// A limit on what is held at once: it may succeed later.
    Exhausted,
    /// The object's state does not allow it.
    Conflict,
    Unavailable,
}

impl Refusal {
    #[must_use]
    pub fn kind(&self) -> RefusalKind {
        match self {
            Refusal::Denied(_) | Refusal::IdOfAnother(_) => RefusalKind::Denied,
            Refusal::UnknownApplication(_)
            | Refusal::UnknownAttempt(_)
            | Refusal::UnknownContainer(_)
            | Refusal::NoApplicationYet(_) => RefusalKind::NotFound,
            Refusal::AmbiguousApplication { .. }
            | Refusal::IdNotIssued(_)
            | Refusal::Name(_)
            | Refusal::TooLittle { .. }
            | Refusal::TooMany { .. }
            | Refusal::LargerThanLargestNode { .. }
            | Refusal::UnknownQueue { .. }
            | Refusal::UnknownLabel(_)
            | Refusal::UnknownRack(_)
            | Refusal::NoProgram
            | Refusal::UnmanagedWithProgram
            | Refusal::TimeoutInPast { .. }
            | Refusal::ContainerVersion { .. }
            | Refusal::NotAChange { .. }
            | Refusal::NodeWithoutResources { .. }
            | Refusal::NodeTooLarge { .. } => RefusalKind::Invalid,
            Refusal::Full { .. } | Refusal::IdsExhausted | Refusal::NoRoomToGrow { .. } => {
                RefusalKind::Exhausted
            }
            Refusal::IdForgotten(_)
            | Refusal::ApplicationEnded(_)
            | Refusal::AttemptNotStarted(_)
            | Refusal::ContainerNotRunning(_)
            | Refusal::AttemptOver { .. } => RefusalKind::Conflict,
            Refusal::Recovering | Refusal::NodeAway { .. } => RefusalKind::Unavailable,
        }
    }
}
