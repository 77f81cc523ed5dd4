//! Read models: plain structs that answer questions about the cluster. They change nothing.

use bobbin_types::{
    ApplicationId, ApplicationState, AttemptId, AttemptState, ContainerId, ContainerState,
    ExitStatus, FinalStatus, NodeId, NodeState, Resource, UserName, WallMillis,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterReport {
    pub epoch: u32,
    pub cluster_timestamp: u64,
    /// Of the registered nodes, kind by kind; zero when there is none.
    pub largest_container: Resource,
    pub nodes_running: usize,
    /// Of nodes that take work or run containers.
    pub total: Resource,
    pub used: Resource,
    /// Known ones, ended ones included.
    pub applications: usize,
    pub applications_live: usize,
    /// Events that found no matching state, since the start.
    pub illegal_transitions: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationReport {
    pub id: ApplicationId,
    pub name: String,
    pub user: UserName,
    pub queue: String,
    /// The internal state; clients see `state.as_yarn()`.
    pub state: ApplicationState,
    pub final_status: FinalStatus,
    pub exit_status: Option<ExitStatus>,
    pub diagnostics: String,
    pub submitted: WallMillis,
    /// When the newest attempt's master was first started.
    pub started: Option<WallMillis>,
    pub finished: Option<WallMillis>,
    /// Empty in lists.
    pub attempts: Vec<AttemptReport>,
    pub application_type: String,
    pub tags: Vec<String>,
    pub priority: i32,
    /// Granted now, the master's own included.
    pub used: Resource,
    pub containers: usize,
    pub overhead: Resource,
    /// Why it waits, while it waits; empty otherwise.
    pub waiting: String,
    pub unmanaged: bool,
    pub progress_permille: u16,
    pub tracking_url: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptReport {
    pub attempt: AttemptId,
    pub state: AttemptState,
    pub exit_status: Option<ExitStatus>,
    pub node: Option<NodeId>,
    /// Its master's.
    pub container: Option<ContainerId>,
    pub diagnostics: String,
    pub started: Option<WallMillis>,
    pub finished: Option<WallMillis>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerReport {
    pub container: ContainerId,
    pub node: NodeId,
    /// Where its node's agent was last reached; empty if not known.
    pub node_grpc_address: String,
    pub state: ContainerState,
    pub resource: Resource,
    pub exit_status: Option<ExitStatus>,
    pub diagnostics: String,
    pub is_master: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    pub id: NodeId,
    pub state: NodeState,
    /// It has a stream now.
    pub connected: bool,
    pub total: Resource,
    pub used: Resource,
    pub reserved: Resource,
    pub containers: usize,
    pub grpc_address: String,
    pub profile: String,
    /// Why it takes no work, then what its profile lacks.
    pub problems: Vec<String>,
    pub lacks: Vec<String>,
    pub last_seen: WallMillis,
    pub version: String,
    /// Measured on the machine.
    pub memory_used_mib: u64,
    pub cpu_permille: u32,
}

/// One page of a list; `next` is where the following one starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, K> {
    pub rows: Vec<T>,
    /// Pass it as `after` for the next page; `None` at the end.
    pub next: Option<K>,
}

/// Which applications a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplicationFilter {
    /// Empty: all.
    pub states: Vec<bobbin_types::YarnApplicationState>,
    pub user: Option<UserName>,
}
