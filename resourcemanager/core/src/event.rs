//! Everything that can happen to the resource manager: closed enums of domain types.

use std::collections::BTreeMap;
use std::sync::Arc;

use bobbin_types::{
    ApplicationId, AttemptId, ContainerId, ExitStatus, FinalStatus, NodeId, Resource, WallMillis,
};

use crate::authority::Principal;
use crate::launch::LaunchContext;
use crate::record::Record;

/// Names a caller who waits for a [`crate::Effect::Reply`]; the driver keeps the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names one stream of a node, of a master or of a lease holder. The driver numbers them; a number
/// is never used twice in a process, so what an old stream still says is told from the new one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Every event may come late or twice, apart from replies' requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The wall clock, for records and people only. The driver sends it first in every batch.
    WallClock(WallMillis),
    /// The deadline that [`crate::ResourceManager::next_deadline`] named has come.
    Tick,

    /// Start-up: one record of the journal, in order.
    Recovered(Record),
    /// Start-up: the journal is read. What this event emits must be durable before a door opens:
    /// it holds the new epoch, on which container ids rest.
    RecoveryDone,

    /// Reply: [`crate::Reply::NewApplication`].
    NewApplication {
        request: RequestId,
        principal: Principal,
    },
    /// Reply: [`crate::Reply::Submitted`]. Idempotent by application id.
    Submit {
        request: RequestId,
        principal: Principal,
        submission: Box<Submission>,
    },
    /// Reply: [`crate::Reply::Killed`]; with `wait` when every container of it is gone.
    Kill {
        request: RequestId,
        principal: Principal,
        application: ApplicationId,
        wait: bool,
        reason: String,
    },
    /// Reply: [`crate::Reply::PrioritySet`].
    SetPriority {
        request: RequestId,
        principal: Principal,
        application: ApplicationId,
        /// Higher is more urgent.
        priority: i32,
    },
    /// Reply: [`crate::Reply::Moved`].
    MoveToQueue {
        request: RequestId,
        principal: Principal,
        application: ApplicationId,
        queue: String,
    },
    /// When the application is ended if it still runs then. Reply: [`crate::Reply::TimeoutSet`].
    SetTimeout {
        request: RequestId,
        principal: Principal,
        application: ApplicationId,
        /// `None`: never.
        expires: Option<WallMillis>,
    },
    /// Ends the live attempt as a failed one that counts; another follows if one is left.
    /// Reply: [`crate::Reply::AttemptFailing`].
    FailAttempt {
        request: RequestId,
        principal: Principal,
        attempt: AttemptId,
    },
    /// Reply: [`crate::Reply::Signaled`], when the order is on its way to the container's node.
    SignalContainer {
        request: RequestId,
        principal: Principal,
        container: ContainerId,
        signal: ContainerSignal,
    },
    /// The caller of a waiting request has gone away: no reply any more.
    RequestAbandoned {
        request: RequestId,
        application: ApplicationId,
    },
    /// A lease stream names its application, first and at every renewal.
    /// Reply: [`crate::Reply::LeaseHeld`].
    LeaseHeld {
        request: RequestId,
        principal: Principal,
        application: ApplicationId,
        session: SessionId,
    },
    LeaseLost {
        application: ApplicationId,
        session: SessionId,
    },

    /// First message of a node's stream. Answered by `NodeCommand::Registered` or `Refused`.
    NodeRegistered {
        session: SessionId,
        principal: Principal,
        registration: Box<NodeRegistration>,
    },
    NodeStreamLost {
        node: NodeId,
        session: SessionId,
    },
    NodeHeartbeat {
        node: NodeId,
        session: SessionId,
        heartbeat: NodeHeartbeat,
    },
    /// The container's process runs (a master's or another's). The resource lets a restarted
    /// resource manager account for a grant of its predecessor; `None` from agents that omit it.
    ContainerStarted {
        node: NodeId,
        session: SessionId,
        container: ContainerId,
        resource: Option<Resource>,
    },
    /// Sent again by the agent until `NodeCommand::AcknowledgeExit`.
    ContainerExited {
        node: NodeId,
        session: SessionId,
        exit: ContainerExit,
    },

    /// First message of a master's stream. Answered by `MasterMessage::Registered` or `Shutdown`.
    MasterAttached {
        session: SessionId,
        principal: Principal,
        attempt: AttemptId,
        registration: Box<MasterRegistration>,
    },
    MasterStreamLost {
        attempt: AttemptId,
        session: SessionId,
    },
    MasterAsks {
        attempt: AttemptId,
        session: SessionId,
        asks: Vec<Ask>,
    },
    MasterReleases {
        attempt: AttemptId,
        session: SessionId,
        containers: Vec<ContainerId>,
    },
    /// The master knows of these ends. Only from masters of YARN's contract, which do not list what
    /// they hold: until then the exit is not acknowledged to the node, so that it is told again
    /// after a restart in between.
    MasterAcknowledges {
        attempt: AttemptId,
        session: SessionId,
        containers: Vec<ContainerId>,
    },
    /// Hosts on which the master wants no container, and hosts on which it wants them again.
    /// Beyond the limit answered by `MasterMessage::BlacklistRefused`, and nothing is changed.
    MasterBlacklist {
        attempt: AttemptId,
        session: SessionId,
        additions: Vec<String>,
        removals: Vec<String>,
    },
    /// Each is answered by `MasterMessage::Updated` or `MasterMessage::UpdateRefused`.
    MasterUpdates {
        attempt: AttemptId,
        session: SessionId,
        updates: Vec<ContainerUpdate>,
    },
    /// The master unregisters. Answered by `MasterMessage::FinishAcknowledged` once durable.
    MasterFinishes {
        attempt: AttemptId,
        session: SessionId,
        finish: Finish,
    },
    MasterHeartbeat {
        attempt: AttemptId,
        session: SessionId,
        progress_permille: u16,
        /// `None`: as it was.
        tracking_url: Option<String>,
    },
}

/// What a container's processes are told. Source: `SignalContainerCommand`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerSignal {
    /// SIGQUIT: a JVM writes its threads to its standard output.
    ThreadDump,
    /// SIGTERM.
    Graceful,
    /// SIGKILL.
    Forceful,
}

/// A running container shall have more, or less. Source: `UpdateContainerRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerUpdate {
    pub container: ContainerId,
    /// The container's version that the master knows.
    pub version: u32,
    pub kind: UpdateKind,
    /// What it shall have then.
    pub resource: Resource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UpdateKind {
    Increase,
    Decrease,
}

/// A submission as a door has read it; the core checks every limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// From `NewApplication`, or none: then the reply names a new one.
    pub application: Option<ApplicationId>,
    pub name: String,
    /// Empty: `default`.
    pub queue: String,
    /// Higher is more urgent, as for YARN's applications.
    pub priority: i32,
    /// The submitter's process is the application master; there is no launch context then.
    pub unmanaged: bool,
    pub launch: LaunchContext,
    /// Of the master's container, overhead included.
    pub resource: Resource,
    pub overhead: Resource,
    /// 0: the cluster's default.
    pub max_attempts: u32,
    pub tags: Vec<String>,
    /// From the submission; 0: never.
    pub timeout_ms: u64,
    pub tie_to_client: bool,
    /// Empty: `BOBBIN`.
    pub application_type: String,
    pub settings: BTreeMap<String, String>,
    /// Of the nodes it may run on; empty: any.
    pub node_label: String,
    /// Containers of a failed attempt run on and are handed to the next one.
    pub keep_containers: bool,
    /// Failed attempts that ended longer ago do not count. `None`: all count.
    /// Source: `attempt_failures_validity_interval`.
    pub failures_validity_ms: Option<u64>,
    /// Who may view it beside its owner: YARN's text, `user1,user2 group1,group2`, or `*`.
    pub view_acl: String,
    /// Who may change it beside its owner.
    pub modify_acl: String,
}

impl Submission {
    /// What an ended application is remembered by.
    pub(crate) fn without_launch(&self) -> Submission {
        Submission {
            application: self.application,
            name: self.name.clone(),
            queue: self.queue.clone(),
            priority: self.priority,
            unmanaged: self.unmanaged,
            launch: LaunchContext {
                contract: self.launch.contract,
                ..LaunchContext::default()
            },
            resource: self.resource,
            overhead: self.overhead,
            max_attempts: self.max_attempts,
            tags: self.tags.clone(),
            timeout_ms: self.timeout_ms,
            tie_to_client: self.tie_to_client,
            application_type: self.application_type.clone(),
            settings: BTreeMap::new(),
            node_label: self.node_label.clone(),
            keep_containers: self.keep_containers,
            failures_validity_ms: self.failures_validity_ms,
            view_acl: self.view_acl.clone(),
            modify_acl: self.modify_acl.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRegistration {
    pub node: NodeId,
    /// Where masters and the log relay reach the agent.
    pub grpc_address: String,
    /// Where its container logs are shown; empty: nowhere.
    pub http_address: String,
    /// What containers may use: the machine less what is reserved.
    pub total: Resource,
    pub reserved: Resource,
    pub profile: String,
    /// Not empty: the agent takes no work, and why.
    pub problems: Vec<String>,
    /// What the profile lacks by design.
    pub lacks: Vec<String>,
    /// Every container that runs or is on its way, and every end that was not acknowledged.
    pub containers: Vec<ReportedContainer>,
    pub version: String,
    /// Applications of which the agent still holds folders.
    pub applications: Vec<ApplicationId>,
}

/// A container as its node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedContainer {
    pub container: ContainerId,
    pub resource: Resource,
    pub status: ReportedStatus,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportedStatus {
    /// Accepted by the agent; its process does not run yet.
    Starting,
    Running,
    Ended {
        exit_status: ExitStatus,
        diagnostics: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeHeartbeat {
    /// Measured on the machine; shown only.
    pub memory_used_mib: u64,
    pub cpu_permille: u32,
    pub problems: Vec<String>,
    /// Files that its containers wait for.
    pub fetching: Vec<Fetching>,
}

/// A file on its way to a container's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetching {
    pub container: ContainerId,
    pub name: String,
    pub bytes: u64,
    /// 0: not known.
    pub bytes_total: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerExit {
    pub container: ContainerId,
    pub exit_status: ExitStatus,
    pub diagnostics: String,
}

/// What a master says on every new stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MasterRegistration {
    pub host: String,
    /// Where it answers its clients; negative or 0: nowhere.
    pub rpc_port: i32,
    pub tracking_url: String,
    /// All its outstanding asks; they replace what is on record.
    pub asks: Vec<Ask>,
    /// All containers it holds. A granted container that is not named was never received by it
    /// and is taken back. `None`: it holds what is on record, as YARN's masters, which do not list.
    pub containers: Option<Vec<ContainerId>>,
}

/// What tells one ask of an application from another.
///
/// Ordered by the number of its priority first: the lower is served first, as among YARN's asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskKey {
    pub priority: i32,
    pub request_id: i64,
    /// `*`, a host, or a rack (`/rack`).
    pub place: String,
    pub capability: Resource,
    /// Empty: any node.
    pub node_label: String,
}

/// `count` containers are still wanted under the key: an absolute number that replaces the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub key: Arc<AskKey>,
    /// 0 takes the ask back.
    pub count: u32,
    /// Another place will do when the one asked for has no room.
    pub relax_locality: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    pub final_status: FinalStatus,
    /// The driver's.
    pub exit_status: Option<ExitStatus>,
    pub diagnostics: String,
    /// Where its history is shown from now on; empty: nowhere.
    pub tracking_url: String,
}
