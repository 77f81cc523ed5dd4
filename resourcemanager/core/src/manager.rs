//! The resource manager as one value: every event goes in at one place.

use bobbin_types::{ApplicationId, AttemptId, ContainerId, Millis, NodeId, WallMillis};

use crate::view::{
    ApplicationFilter, ApplicationReport, ClusterReport, ContainerReport, NodeReport, Page,
};
use crate::{Config, Effect, Event, Principal, Record, Refusal};

/// The whole state of a resource manager.
#[derive(Clone, Debug)]
pub struct ResourceManager {
    config: Config,
    epoch: u32,
    cluster_timestamp: u64,
    wall: WallMillis,
}

impl ResourceManager {
    /// A resource manager that knows nothing yet. `epoch` is one more than the last one on record
    /// (1 the first time), `cluster_timestamp` the one on record or, the first time, now.
    #[must_use]
    pub fn new(config: Config, epoch: u32, cluster_timestamp: u64) -> ResourceManager {
        ResourceManager {
            config,
            epoch,
            cluster_timestamp,
            wall: WallMillis(0),
        }
    }

    /// Takes one event in; appends what has to be done. Total: what is wrong is answered.
    pub fn handle(&mut self, _now: Millis, event: Event, _effects: &mut Vec<Effect>) {
        if let Event::WallClock(wall) = event {
            self.wall = wall;
        }
    }

    /// When the driver has to send [`Event::Tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        None
    }

    /// Records that rebuild the whole surviving state: a compacted journal.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Record> {
        vec![Record::Epoch {
            epoch: self.epoch,
            cluster_timestamp: self.cluster_timestamp,
        }]
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    #[must_use]
    pub fn cluster(&self) -> ClusterReport {
        ClusterReport {
            epoch: self.epoch,
            cluster_timestamp: self.cluster_timestamp,
            largest_container: bobbin_types::Resource::default(),
            nodes_running: 0,
            total: bobbin_types::Resource::default(),
            used: bobbin_types::Resource::default(),
            applications: 0,
            applications_live: 0,
            illegal_transitions: 0,
        }
    }

    /// Reads a whole id, a unique end of one, or `@last` (the caller's newest).
    ///
    /// # Errors
    /// Unknown, or ambiguous.
    pub fn resolve(&self, _principal: &Principal, text: &str) -> Result<ApplicationId, Refusal> {
        Err(Refusal::UnknownApplication(text.to_owned()))
    }

    /// The owner, for the authority function; `None` when the application is unknown.
    #[must_use]
    pub fn owner(&self, _application: ApplicationId) -> Option<&bobbin_types::UserName> {
        None
    }

    /// With its attempts and, while it waits, the reason.
    #[must_use]
    pub fn application(&self, _application: ApplicationId) -> Option<ApplicationReport> {
        None
    }

    /// Newest first, without attempts; only what `principal` may view.
    #[must_use]
    pub fn applications(
        &self,
        _principal: &Principal,
        _filter: &ApplicationFilter,
        _page_size: usize,
        _after: Option<ApplicationId>,
    ) -> Page<ApplicationReport, ApplicationId> {
        Page {
            rows: Vec::new(),
            next: None,
        }
    }

    /// Of one application, live ones and remembered ended ones, in the order of their ids.
    #[must_use]
    pub fn containers(
        &self,
        _application: ApplicationId,
        _page_size: usize,
        _after: Option<ContainerId>,
    ) -> Page<ContainerReport, ContainerId> {
        Page {
            rows: Vec::new(),
            next: None,
        }
    }

    #[must_use]
    pub fn container(&self, _container: ContainerId) -> Option<ContainerReport> {
        None
    }

    /// The master's container of an attempt, of the newest when `attempt` is 0.
    #[must_use]
    pub fn master_container(
        &self,
        _application: ApplicationId,
        _attempt: u32,
    ) -> Option<ContainerReport> {
        None
    }

    /// The nodes that ran containers of the application, with their addresses.
    #[must_use]
    pub fn application_nodes(&self, _application: ApplicationId) -> Vec<NodeReport> {
        Vec::new()
    }

    #[must_use]
    pub fn nodes(&self) -> Vec<NodeReport> {
        Vec::new()
    }

    #[must_use]
    pub fn node(&self, _node: &NodeId) -> Option<NodeReport> {
        None
    }

    /// Whether this attempt's token is still good: it is its application's live attempt.
    #[must_use]
    pub fn attempt_is_live(&self, _attempt: AttemptId) -> bool {
        false
    }
}
