//! The struct, its one entrance, and what can be read from it.

use std::collections::{BTreeMap, BTreeSet};

use bobbin_types::{ApplicationId, AttemptId, ContainerId, Millis, Resource, UserName, WallMillis};

use crate::accounting::Accounting;
use crate::container::{Container, ContainerEvent, ContainerPhase, Next, next_phase};
use crate::effect::Effect;
use crate::event::{Event, Exit, NodeConfig, NodeUsage, Origin, StreamId};

/// The state machine of one node agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAgent {
    pub(crate) config: NodeConfig,
    pub(crate) accounting: Accounting,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    /// Ids that must not start again, until their tokens have expired.
    pub(crate) used: BTreeMap<ContainerId, WallMillis>,
    /// Attempts whose tokens are dead, and whether their containers go on for the next one.
    pub(crate) revoked: BTreeMap<AttemptId, bool>,
    /// Ended applications whose logs are kept, with the wall time of their end.
    pub(crate) ended: BTreeMap<ApplicationId, WallMillis>,
    /// Applications with folders here that have not ended.
    pub(crate) applications: BTreeSet<ApplicationId>,
    /// Ended applications whose caches go when their last container is cleaned up.
    pub(crate) ending: BTreeSet<ApplicationId>,
    /// Applications whose logs are being deleted.
    pub(crate) deleting: BTreeSet<ApplicationId>,
    pub(crate) masters: BTreeMap<StreamId, AttemptId>,
    pub(crate) problems: Vec<String>,
    pub(crate) usage: NodeUsage,
    pub(crate) rm_attached: bool,
    /// Set by the registration.
    pub(crate) heartbeat_interval_ms: Option<u64>,
    pub(crate) heartbeat_due: Option<Millis>,
    pub(crate) housekeeping_due: Option<Millis>,
    pub(crate) illegal_transitions: u64,
}

/// A container as the daemon's doors may show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    pub container: ContainerId,
    pub user: UserName,
    pub resource: Resource,
    pub origin: Origin,
    pub phase: ContainerPhase,
    /// Whether the cluster has told it to end.
    pub stopping: bool,
    /// How it ended, once its processes are gone.
    pub exit: Option<Exit>,
}

impl NodeAgent {
    #[must_use]
    pub fn new(config: NodeConfig) -> NodeAgent {
        NodeAgent {
            accounting: Accounting::new(&config.total, &config.reserved),
            config,
            containers: BTreeMap::new(),
            used: BTreeMap::new(),
            revoked: BTreeMap::new(),
            ended: BTreeMap::new(),
            applications: BTreeSet::new(),
            ending: BTreeSet::new(),
            deleting: BTreeSet::new(),
            masters: BTreeMap::new(),
            problems: Vec::new(),
            usage: NodeUsage::default(),
            rm_attached: false,
            heartbeat_interval_ms: None,
            heartbeat_due: None,
            housekeeping_due: Some(Millis(0)),
            illegal_transitions: 0,
        }
    }

    /// Takes one event; total, never fails. Effects leave in order.
    pub fn handle(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Recovered(record) => self.on_recovered(record),
            Event::Found { container, found } => self.on_found(now, container, found, effects),
            Event::ApplicationFound(application) => self.on_application_found(application),
            Event::Problems(problems) => self.problems = problems,
            Event::RmAttached => self.on_rm_attached(now, effects),
            Event::RmLost => self.on_rm_lost(),
            Event::RmRegistered {
                heartbeat_interval_ms,
                wall,
            } => self.on_rm_registered(now, heartbeat_interval_ms, wall, effects),
            Event::Start {
                starter,
                claims,
                problem,
                wall,
            } => self.on_start(now, starter, claims, problem, wall, effects),
            Event::Stop {
                container,
                exit,
                wall,
            } => self.on_stop(now, container, exit, wall, effects),
            Event::RevokeAttempt {
                attempt,
                keep_containers,
            } => self.on_revoke_attempt(now, attempt, keep_containers, effects),
            Event::Signal { container, signal } => self.on_signal(container, signal, effects),
            Event::Resize {
                container,
                resource,
                version,
            } => self.on_resize(container, resource, version, effects),
            Event::ApplicationEnded { application, wall } => {
                self.on_application_ended(now, application, wall, effects);
            }
            Event::ExitAcknowledged(container) => self.on_acknowledged(container, effects),
            Event::MasterAttached { stream, attempt } => {
                self.on_master_attached(stream, attempt, effects);
            }
            Event::MasterLost(stream) => drop(self.masters.remove(&stream)),
            Event::StopByMaster {
                stream,
                container,
                wall,
            } => self.on_stop_by_master(now, stream, container, wall, effects),
            Event::Call {
                call,
                attempt,
                request,
                wall,
            } => self.on_call(now, call, attempt, request, wall, effects),
            Event::Localized(container) => self.on_localized(container, effects),
            Event::LocalizeFailed { container, exit } => {
                self.on_ended(container, ContainerEvent::LocalizeFailed, exit, effects);
            }
            Event::Launched(container) => self.on_launched(container, effects),
            Event::LaunchFailed { container, exit } => {
                self.on_ended(container, ContainerEvent::LaunchFailed, exit, effects);
            }
            Event::Exited { container, exit } => {
                self.on_ended(container, ContainerEvent::Exited, exit, effects);
            }
            Event::CleanedUp(container) => self.on_cleaned_up(now, container, effects),
            Event::LogsDeleted(application) => self.on_logs_deleted(application, effects),
            Event::UsageSample(usage) => self.usage = usage,
            Event::Tick { wall } => self.on_tick(now, wall, effects),
        }
    }

    /// When [`Event::Tick`] is wanted next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let reports = || {
            self.containers
                .values()
                .filter_map(|c| c.report_again)
                .min()
        };
        let again = if self.rm_attached { reports() } else { None };
        [self.heartbeat_due, self.housekeeping_due, again]
            .into_iter()
            .flatten()
            .min()
    }

    #[must_use]
    pub fn accounting(&self) -> &Accounting {
        &self.accounting
    }

    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// What the machine used when it was last measured.
    #[must_use]
    pub fn usage(&self) -> NodeUsage {
        self.usage
    }

    /// Why it takes no work; empty when it does.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Events that came in a phase where they cannot happen; the driver logs its growth.
    #[must_use]
    pub fn illegal_transitions(&self) -> u64 {
        self.illegal_transitions
    }

    #[must_use]
    pub fn container(&self, id: &ContainerId) -> Option<ContainerView> {
        self.containers.get(id).map(view)
    }

    pub fn containers(&self) -> impl Iterator<Item = ContainerView> + '_ {
        self.containers.values().map(view)
    }

    /// Whether the resource manager said that it has ended: nothing of it starts any more.
    #[must_use]
    pub fn has_ended(&self, application: &ApplicationId) -> bool {
        self.ended.contains_key(application)
    }

    #[must_use]
    pub fn is_revoked(&self, attempt: &AttemptId) -> bool {
        self.revoked.contains_key(attempt) || self.ended.contains_key(&attempt.application)
    }

    /// Moves a container along the table; `None` when it is unknown or the event is illegal there.
    pub(crate) fn step(
        &mut self,
        id: &ContainerId,
        event: ContainerEvent,
    ) -> Option<&mut Container> {
        let Some(container) = self.containers.get_mut(id) else {
            self.illegal_transitions += 1;
            return None;
        };
        match next_phase(container.phase, event) {
            Next::Go(phase) => {
                if container.phase.holds_resource() && !phase.holds_resource() {
                    self.accounting.release(&container.resource);
                }
                container.phase = phase;
                Some(container)
            }
            Next::Stay => Some(container),
            Next::Illegal => {
                self.illegal_transitions += 1;
                None
            }
        }
    }

    /// The stream of the master that manages a container.
    pub(crate) fn stream_for(&self, id: &ContainerId) -> Option<StreamId> {
        self.masters
            .iter()
            .find(|(_, attempt)| self.manages(attempt, id))
            .map(|(stream, _)| *stream)
    }

    /// The streams of an attempt: at most one.
    pub(crate) fn stream_of(&self, attempt: &AttemptId) -> Option<StreamId> {
        self.masters
            .iter()
            .find(|(_, a)| *a == attempt)
            .map(|(stream, _)| *stream)
    }
}

fn view(container: &Container) -> ContainerView {
    ContainerView {
        container: container.id,
        user: container.user.clone(),
        resource: container.resource,
        origin: container.origin,
        phase: container.phase,
        stopping: container.stop.is_some(),
        exit: container.exit.clone(),
    }
}
