//! What the driver has to do: closed enums of domain types, in the order in which they must leave.

use std::sync::Arc;

use bobbin_types::{
    ApplicationId, ApplicationState, AttemptId, AttemptState, ContainerId, ExitStatus, NodeId,
    NodeState, Resource, UserName, WallMillis,
};

use crate::event::{ContainerSignal, ContainerUpdate, RequestId, SessionId, UpdateKind};
use crate::launch::LaunchContext;
use crate::record::{Record, SubmittedApplication};
use crate::refusal::Refusal;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Must be durable before any later effect that [`Effect::needs_sync`] leaves.
    /// A crash between the two is harmless.
    Persist(Record),
    Reply {
        request: RequestId,
        result: Result<Reply, Refusal>,
    },
    ToNode {
        node: NodeId,
        session: SessionId,
        command: NodeCommand,
    },
    ToMaster {
        attempt: AttemptId,
        session: SessionId,
        message: MasterMessage,
    },
    /// End this stream: it is refused or another one took its place. What was sent to it before
    /// still leaves.
    CloseSession { session: SessionId },
    /// Its report has changed: wake its watchers. At most one per event and application.
    ApplicationChanged(ApplicationId),
    /// It has ended and nothing of it runs: its uploads can go.
    DeleteStaging {
        application: ApplicationId,
        user: UserName,
    },
    /// To be logged at info.
    Transitioned(Transition),
    /// To be logged at warn: an event came that its object's state does not know. Nothing was done.
    Illegal(IllegalTransition),
}

impl Effect {
    /// Whether this effect may leave only after every record before it, in this batch or an earlier
    /// one, is durable. Effects to one peer keep their order in any case.
    ///
    /// What commits the cluster to something waits: replies, the registration of a node (it is on
    /// record before it works), the start of a master, the acknowledgment of an end, the end of an
    /// application's containers. Grants, refusals and
    /// completions need not: after a crash the peers register again with what they hold.
    #[must_use]
    pub fn needs_sync(&self) -> bool {
        match self {
            Effect::Reply { .. } | Effect::ApplicationChanged(_) | Effect::DeleteStaging { .. } => {
                true
            }
            Effect::ToNode { command, .. } => match command {
                NodeCommand::StartContainer(_)
                | NodeCommand::StopContainer { .. }
                | NodeCommand::AcknowledgeExit { .. }
                | NodeCommand::ApplicationEnded { .. }
                | NodeCommand::RevokeAttempt { .. }
                | NodeCommand::Registered { .. } => true,
                NodeCommand::Refused { .. }
                | NodeCommand::SignalContainer { .. }
                | NodeCommand::ResizeContainer { .. } => false,
            },
            Effect::ToMaster { message, .. } => match message {
                MasterMessage::FinishAcknowledged | MasterMessage::Shutdown { .. } => true,
                MasterMessage::Registered(_)
                | MasterMessage::Granted(_)
                | MasterMessage::Completed(_)
                | MasterMessage::AskRefused { .. }
                | MasterMessage::BlacklistRefused { .. }
                | MasterMessage::Inherited(_)
                | MasterMessage::Updated(_)
                | MasterMessage::UpdateRefused { .. } => false,
            },
            Effect::Persist(_)
            | Effect::CloseSession { .. }
            | Effect::Transitioned(_)
            | Effect::Illegal(_) => false,
        }
    }
}

/// Answers to requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    NewApplication {
        application: ApplicationId,
        /// Of the registered nodes, kind by kind; zero when there is none.
        largest_container: Resource,
        user: UserName,
    },
    Submitted {
        application: ApplicationId,
        /// Unmanaged only: the attempt that the submitter's process is. The door mints its token.
        attempt: Option<AttemptId>,
    },
    Killed {
        application: ApplicationId,
        already_ended: bool,
    },
    LeaseHeld {
        lease_ms: u64,
    },
    /// As it is now.
    PrioritySet {
        application: ApplicationId,
        priority: i32,
    },
    Moved {
        application: ApplicationId,
        queue: String,
    },
    /// As it is now; `None`: never.
    TimeoutSet {
        application: ApplicationId,
        expires: Option<WallMillis>,
    },
    /// Its master is being ended.
    AttemptFailing {
        attempt: AttemptId,
    },
    Signaled {
        container: ContainerId,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeCommand {
    /// The door adds the node's key.
    Registered {
        heartbeat_interval_ms: u64,
        expiry_ms: u64,
        epoch: u32,
    },
    /// The stream is closed after it.
    Refused {
        reason: Refusal,
    },
    /// Starts a master's container. Sent again after a lost stream if the agent does not list the
    /// container; the agent starts an id at most once. The door mints the container's token and the
    /// attempt's.
    StartContainer(Arc<StartContainer>),
    /// The agent answers with the container's exit even if it never heard of it, and from then on
    /// refuses to start it: until then its room is not given to another.
    StopContainer {
        container: ContainerId,
        exit_status: ExitStatus,
        diagnostics: String,
    },
    AcknowledgeExit {
        container: ContainerId,
    },
    ApplicationEnded {
        application: ApplicationId,
    },
    /// The attempt's tokens are dead, and its containers end unless they are kept for the next
    /// attempt (those of them that shall end are named by `StopContainer`).
    RevokeAttempt {
        attempt: AttemptId,
        keep_containers: bool,
    },
    /// Sent once: a lost stream loses it.
    SignalContainer {
        container: ContainerId,
        signal: ContainerSignal,
    },
    /// The container gives up what it has beyond this. The agent says `ContainerStarted` with the
    /// new size; until then the room stays taken.
    ResizeContainer {
        container: ContainerId,
        resource: Resource,
        version: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartContainer {
    pub container: ContainerId,
    pub resource: Resource,
    /// Its user and its launch context; the door adds the attempt's token to the secrets.
    pub application: Arc<SubmittedApplication>,
}

impl StartContainer {
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.application.user
    }

    #[must_use]
    pub fn launch(&self) -> &LaunchContext {
        &self.application.submission.launch
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MasterMessage {
    Registered(MasterRegistered),
    /// All grants of one event in one message. The door mints their tokens.
    Granted(Vec<Grant>),
    Completed(Vec<CompletedContainer>),
    /// The attempt is over; the stream is closed after it.
    Shutdown {
        reason: String,
    },
    FinishAcknowledged,
    AskRefused {
        priority: i32,
        request_id: i64,
        reason: Refusal,
    },
    BlacklistRefused {
        reason: Refusal,
    },
    /// Running containers of earlier attempts that were kept and turned up after it registered.
    Inherited(Vec<Grant>),
    /// The door mints a container token with the new size and version.
    Updated(Vec<UpdatedContainer>),
    UpdateRefused {
        update: ContainerUpdate,
        /// The container's; `None`: it is not known.
        version: Option<u32>,
        reason: Refusal,
    },
}

/// A container that has, or shall have, another size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdatedContainer {
    pub kind: UpdateKind,
    /// With the new size and version.
    pub container: Grant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterRegistered {
    pub attempt: AttemptId,
    pub user: UserName,
    pub largest_container: Resource,
    pub heartbeat_interval_ms: u64,
    pub nodes_running: usize,
    pub queue: String,
    /// Its application's, as they were submitted.
    pub view_acl: String,
    pub modify_acl: String,
    /// Running containers of earlier attempts that were kept for this one. The door adds their
    /// nodes' tokens.
    pub containers_from_previous_attempts: Vec<Grant>,
    /// Where [`crate::view::MasterView`] starts to tell of nodes.
    pub node_changes: u64,
}

/// Room on a node for one container, until it is started, released or expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub container: ContainerId,
    pub node: NodeId,
    pub node_grpc_address: String,
    pub node_http_address: String,
    pub user: UserName,
    pub resource: Resource,
    pub priority: i32,
    pub request_id: i64,
    /// 0, and one more with every update.
    pub version: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletedContainer {
    pub container: ContainerId,
    /// `None`: nobody knows where it was.
    pub node: Option<NodeId>,
    pub resource: Resource,
    pub exit_status: ExitStatus,
    pub diagnostics: String,
}

/// A change of state, for the log. Containers' are too many for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    Application {
        application: ApplicationId,
        from: ApplicationState,
        to: ApplicationState,
    },
    Attempt {
        attempt: AttemptId,
        from: AttemptState,
        to: AttemptState,
    },
    Node {
        node: NodeId,
        from: NodeState,
        to: NodeState,
    },
}

/// An object and an input that its state does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IllegalTransition {
    pub object: String,
    pub state: &'static str,
    pub input: &'static str,
}
