//! What an administrator sets, parsed and checked by the daemon.

/// Settings of the core. All durations are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Attempts of an application that asks for none. Source: `yarn.resourcemanager.am.max-attempts`.
    pub max_attempts: u32,
    /// Ended applications that are remembered.
    /// Source: `yarn.resourcemanager.max-completed-applications`.
    pub applications_retained: usize,
    /// A master that says nothing for longer has failed. Source: `yarn.am.liveness-monitor.expiry-interval-ms`.
    pub am_expiry_ms: u64,
    /// A client-mode master, or a `tie_to_client` submitter, that is away for longer has gone.
    pub client_lease_ms: u64,
    /// A node that says nothing for longer is lost. Source: `yarn.nm.liveness-monitor.expiry-interval-ms`.
    pub node_expiry_ms: u64,
    /// Source: `yarn.resourcemanager.nodemanagers.heartbeat-interval-ms`.
    pub heartbeat_interval_ms: u64,
    /// A granted container that is not started for longer is taken back.
    /// Source: `yarn.resourcemanager.rm.container-allocation.expiry-interval-ms`.
    pub allocation_expiry_ms: u64,
    /// A master that has unregistered ends within this, or is ended.
    pub finish_grace_ms: u64,
    /// What masters may take of the cluster together, in thousandths; one master always fits.
    /// Source: `yarn.scheduler.capacity.maximum-am-resource-percent`.
    pub max_am_share_permille: u32,
    /// Names of the queues; never empty.
    pub queues: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            max_attempts: 2,
            applications_retained: 10_000,
            am_expiry_ms: 60_000,
            client_lease_ms: 10_000,
            node_expiry_ms: 30_000,
            heartbeat_interval_ms: 1_000,
            allocation_expiry_ms: 600_000,
            finish_grace_ms: 60_000,
            max_am_share_permille: 500,
            queues: vec!["default".to_owned()],
        }
    }
}
