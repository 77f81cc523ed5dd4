//! Read models: plain structs that answer questions about the cluster. They change nothing.

use std::collections::BTreeSet;

use bobbin_types::{
    ApplicationId, ApplicationState, AttemptId, AttemptState, ContainerId, ContainerState,
    ExitStatus, FinalStatus, NodeId, NodeState, Resource, UserName, WallMillis,
};

use crate::event::Ask;
use crate::launch::LaunchContract;
use crate::usage::ResourceSeconds;

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

/// Nodes by state, and what everybody has and wants.
///
/// Source: `YarnClusterMetrics`, `QueueStatistics` and `/ws/v1/cluster/metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMetrics {
    /// Running ones and all others.
    pub nodes: NodeCounts,
    pub total: Resource,
    pub statistics: QueueStatistics,
}

/// Nodes that have registered since the start, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    pub running: usize,
    pub unhealthy: usize,
    pub lost: usize,
    pub decommissioning: usize,
    pub decommissioned: usize,
    pub rebooted: usize,
    pub shutdown: usize,
}

/// Known applications, ended ones included, and what the live ones have and want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStatistics {
    /// All that are known.
    pub submitted: usize,
    /// Not ended, and no master is registered.
    pub pending: usize,
    pub running: usize,
    /// Ended after their master's farewell.
    pub completed: usize,
    pub killed: usize,
    pub failed: usize,
    /// Users with applications that have not ended.
    pub users: usize,
    pub allocated: Resource,
    pub allocated_containers: usize,
    /// Asked for and not granted, masters' own included.
    pub wanted: Resource,
    pub wanted_containers: u64,
    /// What nobody has.
    pub available: Resource,
}

/// A queue. All queues share the whole cluster: none has a part of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueReport {
    pub name: String,
    /// What is its own whatever the others do, in thousandths of the cluster: all if it is alone.
    pub capacity_permille: u32,
    pub maximum_permille: u32,
    /// What its applications have now, in thousandths of the cluster (the dominant kind).
    pub used_permille: u32,
    pub statistics: QueueStatistics,
}

/// When an application is ended if it still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutReport {
    pub expires: WallMillis,
    pub remaining_ms: u64,
}

/// Where an attempt's master is, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterPlace {
    pub container: ContainerId,
    pub node: NodeId,
    /// Empty if not known.
    pub node_http_address: String,
}

/// What a master is told beside its grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterView {
    pub nodes_running: usize,
    /// What nobody has now.
    pub available: Resource,
    pub priority: i32,
    /// Pass it as `since` the next time.
    pub node_changes: u64,
    /// Nodes whose state has changed since, as they are now.
    pub changed_nodes: Vec<NodeReport>,
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
    /// The master's own; once it has unregistered, the one it named for its history.
    pub tracking_url: String,
    /// Where the current attempt's master said it is.
    pub host: String,
    pub rpc_port: i32,
    pub current_attempt: Option<AttemptId>,
    pub current_attempt_state: Option<AttemptState>,
    /// Of the current attempt; none while it waits, and for unmanaged ones.
    pub master: Option<MasterPlace>,
    /// When the first master was started.
    pub launched: Option<WallMillis>,
    pub used_seconds: ResourceSeconds,
    /// Asked for and not granted, its master's container included.
    pub wanted: Resource,
    pub wanted_containers: u64,
    /// What its master asks for and has not got, in the order in which it is served.
    pub asks: Vec<Ask>,
    pub timeout: Option<TimeoutReport>,
    pub node_label: String,
    pub view_acl: String,
    pub modify_acl: String,
    pub keep_containers: bool,
    pub max_attempts: u32,
    pub contract: LaunchContract,
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
    pub host: String,
    pub rpc_port: i32,
    /// As [`ApplicationReport::tracking_url`].
    pub tracking_url: String,
    /// Of its master's node; empty if not known.
    pub node_http_address: String,
    /// Hosts on which it wants no containers.
    pub blacklist: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerReport {
    pub container: ContainerId,
    pub node: NodeId,
    /// Where its node's agent was last reached; empty if not known.
    pub node_grpc_address: String,
    pub node_http_address: String,
    pub state: ContainerState,
    pub resource: Resource,
    pub exit_status: Option<ExitStatus>,
    pub diagnostics: String,
    pub is_master: bool,
    /// Of the ask that it was granted for; 0 for masters.
    pub priority: i32,
    /// When it was granted; of a former resource manager's, when it was seen again. `None`: not
    /// known any more.
    pub created: Option<WallMillis>,
    pub finished: Option<WallMillis>,
    /// How often its size was changed.
    pub version: u32,
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
    pub http_address: String,
    pub rack: String,
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
    /// Empty: everybody's.
    pub users: BTreeSet<UserName>,
    /// Empty: all.
    pub queues: BTreeSet<String>,
    /// Empty: all. Upper and lower case are one here, as in YARN.
    pub types: BTreeSet<String>,
    /// Empty: all; otherwise one of these. Upper and lower case are one.
    pub tags: BTreeSet<String>,
    pub name: Option<String>,
    pub final_status: Option<FinalStatus>,
    /// First and last moment of its submission, both included.
    pub submitted: Option<(WallMillis, WallMillis)>,
    /// First and last moment of its end, both included; one that lives has none.
    pub finished: Option<(WallMillis, WallMillis)>,
}
