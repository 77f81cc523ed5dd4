//! What can happen to a node agent: closed enums of domain types.

use crate::calls::{CallId, CallRequest};
use bobbin_types::{
    ApplicationId, AttemptId, ContainerId, ExitStatus, NodeId, Resource, UserName, WallMillis,
};

/// What the core must know of the node; fixed while the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    pub node: NodeId,
    /// All that the machine has (or the settings say).
    pub total: Resource,
    /// Kept back for the system; containers share what remains.
    pub reserved: Resource,
    /// Logs of an ended application are deleted after this many milliseconds.
    /// Source: `yarn.nodemanager.log.retain-seconds`.
    pub log_retain_ms: u64,
}

/// One stream of an application master, numbered by the driver; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Which side a start came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A master's container, started by the resource manager.
    ResourceManager,
    /// Started by the attempt's master.
    Master,
}

/// What a verified container token says. The agent believes nothing else about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerClaims {
    pub container: ContainerId,
    pub user: UserName,
    pub resource: Resource,
    pub expires: WallMillis,
}

/// How a container's processes ended, as the launcher or the localizer tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub exit_status: ExitStatus,
    pub diagnostics: String,
}

/// What a restarted agent found of a container on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Running,
    /// It ended while the agent was away; its exit status was kept.
    Ended(Exit),
    /// It never started, or the host was restarted: nothing of it is left.
    Gone,
}

/// A signal for what runs in a container.
///
/// Source: `SignalContainerCommand`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerSignal {
    /// QUIT: a JVM prints its threads.
    ThreadDump,
    /// TERM.
    Graceful,
    /// KILL.
    Forceful,
}

/// What a node uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeUsage {
    pub memory_used_mib: u64,
    /// Of all the machine's cpus together: 1000 is all of them busy.
    pub cpu_permille: u32,
}

/// What must survive the agent. A restarted agent replays its records as [`Event::Recovered`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Durable before the launch: whatever happens after, this id is never launched again.
    Admitted {
        claims: ContainerClaims,
        origin: Origin,
    },
    /// Its end has a reason of the cluster's own.
    StopRequested {
        container: ContainerId,
        exit: Exit,
    },
    Exited {
        container: ContainerId,
        exit: Exit,
    },
    /// Acknowledged by the resource manager (or never to be started); its token is used up.
    Done {
        container: ContainerId,
        expires: WallMillis,
    },
    AttemptRevoked {
        attempt: AttemptId,
        /// Its containers go on, for the application's next attempt.
        keep_containers: bool,
    },
    /// A running container has another size.
    Resized {
        container: ContainerId,
        resource: Resource,
        version: u32,
    },
    ApplicationEnded {
        application: ApplicationId,
        ended: WallMillis,
    },
    LogsDeleted(ApplicationId),
}

/// Everything that a node agent can be told. Every event may come twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Start-up, first: the journal's records in order.
    Recovered(Record),
    /// Start-up, second: what was found of each container on record that is not done.
    Found {
        container: ContainerId,
        found: Found,
    },
    /// Start-up: folders or logs of an application were found.
    ApplicationFound(ApplicationId),
    /// Why this agent takes no work now; empty when all is well.
    Problems(Vec<String>),

    /// A stream to the resource manager is open: the agent registers.
    RmAttached,
    RmLost,
    RmRegistered {
        heartbeat_interval_ms: u64,
        wall: WallMillis,
    },
    /// A start whose token is verified. `problem` says why the launch context cannot be used.
    Start {
        starter: Starter,
        claims: ContainerClaims,
        problem: Option<String>,
        wall: WallMillis,
    },
    /// The resource manager ends a container, with the exit status it shall have.
    Stop {
        container: ContainerId,
        exit: Exit,
        wall: WallMillis,
    },
    /// The tokens of an attempt are dead here. Its containers end, or go on for the next attempt.
    RevokeAttempt {
        attempt: AttemptId,
        keep_containers: bool,
    },
    /// A person wants a signal sent to what runs in a container.
    Signal {
        container: ContainerId,
        signal: ContainerSignal,
    },
    /// The resource manager gives a running container another size.
    Resize {
        container: ContainerId,
        resource: Resource,
        version: u32,
    },
    ApplicationEnded {
        application: ApplicationId,
        wall: WallMillis,
    },
    ExitAcknowledged(ContainerId),

    /// A master's stream is open; its token for this node was verified.
    MasterAttached {
        stream: StreamId,
        attempt: AttemptId,
    },
    MasterLost(StreamId),
    /// The master of this stream ends one of its containers.
    StopByMaster {
        stream: StreamId,
        container: ContainerId,
        wall: WallMillis,
    },

    /// A call of a master without a stream; answered by [`crate::Effect::AnswerCall`].
    Call {
        call: CallId,
        /// Whose token proved the call.
        attempt: AttemptId,
        request: CallRequest,
        wall: WallMillis,
    },

    // From a container's supervisor, in this order.
    Localized(ContainerId),
    LocalizeFailed {
        container: ContainerId,
        exit: Exit,
    },
    Launched(ContainerId),
    LaunchFailed {
        container: ContainerId,
        exit: Exit,
    },
    Exited {
        container: ContainerId,
        exit: Exit,
    },
    /// Its groups, mounts and folders are gone; logs and the exit file are left.
    CleanedUp(ContainerId),

    LogsDeleted(ApplicationId),
    UsageSample(NodeUsage),
    /// The deadline that [`crate::NodeAgent::next_deadline`] named has come.
    Tick {
        wall: WallMillis,
    },
}

/// Who asks for a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starter {
    ResourceManager,
    Master(StreamId),
    /// A master without a stream.
    Call {
        call: CallId,
        /// Whose token proved the call.
        attempt: AttemptId,
    },
}
