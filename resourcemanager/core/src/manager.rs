//! The resource manager as one value: every event goes in at one place.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bobbin_types::{
    ApplicationId, AttemptId, ContainerId, Millis, NodeId, Resource, UserName, WallMillis,
};

use crate::application::Application;
use crate::container::Container;
use crate::event::Fetching;
use crate::live::LiveApplications;
use crate::liveness::Deadlines;
use crate::node::{Node, NodeKey};
use crate::queue::{Queue, share_of};
use crate::scheduler::{
    ClusterView, DemandKey, FitBands, NodeIndex, PlannedGrant, Rooms, Trigger, plan, room,
};
use crate::{Config, Effect, Event, Grant, IllegalTransition, MasterMessage};

/// Ids of applications: handed out, reserved in the journal, forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids {
    /// The last one handed out.
    pub(crate) last: u32,
    /// All up to here are reserved in the journal.
    pub(crate) reserved: u32,
    /// One up to here that is not on record has ended and was forgotten.
    pub(crate) floor: u32,
    /// To whom those were handed out that are not submitted yet.
    pub(crate) issued: BTreeMap<ApplicationId, UserName>,
}

/// What an event has brought about and is dealt with at its end. Empty between events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Nodes with more room than before.
    pub(crate) rooms: BTreeSet<NodeKey>,
    /// Masters may take more than before.
    pub(crate) masters: bool,
    /// New demands.
    pub(crate) demands: BTreeSet<DemandKey>,
    pub(crate) grants: BTreeMap<AttemptId, Vec<Grant>>,
    pub(crate) changed: BTreeSet<ApplicationId>,
}

/// The whole state of a resource manager.
#[derive(Clone, Debug)]
pub struct ResourceManager {
    pub(crate) config: Config,
    pub(crate) epoch: u32,
    pub(crate) cluster_timestamp: u64,
    pub(crate) wall: WallMillis,
    /// When the event came that is being handled.
    pub(crate) now: Millis,
    /// The journal is read.
    pub(crate) ready: bool,
    /// Nodes of before the start may still come back.
    pub(crate) recovering: bool,
    /// Nodes on record: they have registered and were not given up since.
    pub(crate) known_nodes: BTreeSet<NodeId>,
    /// Those of them that have not registered since the start.
    pub(crate) awaited_nodes: BTreeSet<NodeId>,
    /// All nodes on record are back, so that no process of before the start is unseen. Not so when
    /// none is on record: then only time tells.
    pub(crate) nodes_are_back: bool,
    pub(crate) ids: Ids,
    /// Submissions so far: the order in the queue.
    pub(crate) submissions: u64,
    /// How many of them are from before the start.
    pub(crate) submissions_recovered: u64,
    pub(crate) applications: BTreeMap<ApplicationId, Application>,
    pub(crate) live_applications: LiveApplications,
    /// Oldest first.
    pub(crate) ended: VecDeque<ApplicationId>,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    /// Files that containers wait for, as their nodes say.
    pub(crate) fetching: BTreeMap<ContainerId, Vec<Fetching>>,
    /// Oldest first.
    pub(crate) ended_containers: VecDeque<ContainerId>,
    pub(crate) nodes: BTreeMap<NodeKey, Node>,
    pub(crate) node_keys: BTreeMap<NodeId, NodeKey>,
    pub(crate) next_node_key: u32,
    /// Of nodes that are registered and not lost.
    pub(crate) totals: BTreeMap<NodeKey, Resource>,
    pub(crate) largest: FitBands<NodeKey, Rooms>,
    pub(crate) cluster_total: Resource,
    /// What is in use on those of `totals`, and its sum.
    pub(crate) counted: BTreeMap<NodeKey, Resource>,
    pub(crate) cluster_used: Resource,
    /// Changes of nodes' states so far.
    pub(crate) node_changes: u64,
    /// Nodes that take work.
    pub(crate) index: NodeIndex,
    pub(crate) queue: Queue,
    pub(crate) deadlines: Deadlines,
    pub(crate) pending: Pending,
    pub(crate) illegal_transitions: u64,
}

impl ResourceManager {
    /// A resource manager that knows nothing yet. `epoch` is one more than the last one on record
    /// (1 the first time), `cluster_timestamp` the one on record or, the first time, the wall clock.
    ///
    /// The driver replays the journal as [`Event::Recovered`], sends [`Event::WallClock`], then
    /// [`Event::RecoveryDone`], and opens its doors when what that emitted is durable.
    #[must_use]
    pub fn new(config: Config, epoch: u32, cluster_timestamp: u64) -> ResourceManager {
        ResourceManager {
            config,
            epoch,
            cluster_timestamp,
            wall: WallMillis(0),
            now: Millis(0),
            ready: false,
            recovering: false,
            known_nodes: BTreeSet::new(),
            awaited_nodes: BTreeSet::new(),
            nodes_are_back: false,
            ids: Ids::default(),
            submissions: 0,
            submissions_recovered: 0,
            applications: BTreeMap::new(),
            live_applications: LiveApplications::default(),
            ended: VecDeque::new(),
            containers: BTreeMap::new(),
            fetching: BTreeMap::new(),
            ended_containers: VecDeque::new(),
            nodes: BTreeMap::new(),
            node_keys: BTreeMap::new(),
            next_node_key: 0,
            totals: BTreeMap::new(),
            largest: FitBands::new(),
            cluster_total: Resource::default(),
            counted: BTreeMap::new(),
            cluster_used: Resource::default(),
            node_changes: 0,
            index: NodeIndex::new(),
            queue: Queue::new(),
            deadlines: Deadlines::default(),
            pending: Pending::default(),
            illegal_transitions: 0,
        }
    }

    /// When the driver has to send [`Event::Tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.next()
    }

    /// Takes one event in; appends what has to be done, in order. Total: what is wrong is answered.
    pub fn handle(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        self.now = now;
        self.dispatch(now, event, effects);
        self.schedule(now, effects);
        for (attempt, grants) in std::mem::take(&mut self.pending.grants) {
            self.tell_master(attempt, MasterMessage::Granted(grants), effects);
        }
        let changed = std::mem::take(&mut self.pending.changed);
        effects.extend(changed.into_iter().map(Effect::ApplicationChanged));
    }

    fn dispatch(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::WallClock(wall) => self.wall = wall,
            Event::Tick => self.on_tick(now, effects),
            Event::Recovered(record) => self.on_recovered(record),
            Event::RecoveryDone => self.on_recovery_done(now, effects),
            Event::NewApplication { .. }
            | Event::Submit { .. }
            | Event::Kill { .. }
            | Event::RequestAbandoned { .. }
            | Event::LeaseHeld { .. }
            | Event::LeaseLost { .. } => self.dispatch_client(now, event, effects),
            Event::SetPriority { .. }
            | Event::MoveToQueue { .. }
            | Event::SetTimeout { .. }
            | Event::FailAttempt { .. }
            | Event::SignalContainer { .. } => self.dispatch_change(now, event, effects),
            Event::NodeRegistered {
                session,
                principal,
                registration,
            } => {
                self.on_node_registered(now, session, &principal, *registration, effects);
            }
            Event::NodeStreamLost { node, session } => {
                self.on_node_stream_lost(now, &node, session);
            }
            Event::NodeHeartbeat {
                node,
                session,
                heartbeat,
            } => {
                self.on_node_heartbeat(now, &node, session, heartbeat, effects);
            }
            Event::ContainerStarted {
                node,
                session,
                container,
                resource,
            } => {
                let started = (container, resource);
                self.on_container_started(now, &node, session, started, effects);
            }
            Event::ContainerExited {
                node,
                session,
                exit,
            } => {
                self.on_container_exited(now, &node, session, exit, effects);
            }
            Event::MasterAttached { .. }
            | Event::MasterStreamLost { .. }
            | Event::MasterAsks { .. }
            | Event::MasterReleases { .. }
            | Event::MasterAcknowledges { .. }
            | Event::MasterBlacklist { .. }
            | Event::MasterUpdates { .. }
            | Event::MasterFinishes { .. }
            | Event::MasterHeartbeat { .. } => self.dispatch_master(now, event, effects),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the caller lists the events"
    )]
    fn dispatch_client(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::NewApplication { request, principal } => {
                self.on_new_application(request, &principal, effects);
            }
            Event::Submit {
                request,
                principal,
                submission,
            } => {
                self.on_submit(now, request, &principal, *submission, effects);
            }
            Event::Kill {
                request,
                principal,
                application,
                wait,
                reason,
            } => {
                let kill = crate::submission::Kill {
                    principal,
                    application,
                    wait,
                    reason,
                };
                self.on_kill(now, request, &kill, effects);
            }
            Event::RequestAbandoned {
                request,
                application,
            } => {
                if let Some(application) = self.applications.get_mut(&application) {
                    application
                        .kill_waiters
                        .retain(|(waiter, _)| *waiter != request);
                }
            }
            Event::LeaseHeld {
                request,
                principal,
                application,
                session,
            } => {
                self.on_lease_held(request, &principal, application, session, effects);
            }
            Event::LeaseLost {
                application,
                session,
            } => {
                self.on_lease_lost(now, application, session);
            }
            _ => {}
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the caller lists the events"
    )]
    fn dispatch_master(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::MasterAttached {
                session,
                principal,
                attempt,
                registration,
            } => {
                let who = (&principal, attempt);
                self.on_master_attached(now, session, who, *registration, effects);
            }
            Event::MasterStreamLost { attempt, session } => {
                self.on_master_stream_lost(now, attempt, session);
            }
            Event::MasterAsks {
                attempt,
                session,
                asks,
            } => {
                self.on_master_asks(now, attempt, session, asks, effects);
            }
            Event::MasterReleases {
                attempt,
                session,
                containers,
            } => {
                self.on_master_releases(now, attempt, session, &containers, effects);
            }
            Event::MasterFinishes {
                attempt,
                session,
                finish,
            } => {
                self.on_master_finishes(now, attempt, session, finish, effects);
            }
            Event::MasterAcknowledges {
                attempt,
                session,
                containers,
            } => {
                self.on_master_acknowledges(now, attempt, session, &containers, effects);
            }
            Event::MasterBlacklist {
                attempt,
                session,
                additions,
                removals,
            } => {
                let change = (additions, removals);
                self.on_master_blacklist(now, attempt, session, change, effects);
            }
            Event::MasterUpdates {
                attempt,
                session,
                updates,
            } => {
                self.on_master_updates(now, attempt, session, updates, effects);
            }
            Event::MasterHeartbeat {
                attempt,
                session,
                progress_permille,
                tracking_url,
            } => {
                let said = (progress_permille, tracking_url);
                self.on_master_heartbeat(now, attempt, session, said, effects);
            }
            _ => {}
        }
    }

    /// Hands out what room this event has made possible: room first, so that afterwards a new
    /// demand is the only one that may find some.
    fn schedule(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if !self.ready {
            return;
        }
        while let Some(node) = self.pending.rooms.pop_first() {
            self.serve(now, &Trigger::Room(node), effects);
        }
        if std::mem::take(&mut self.pending.masters) {
            self.serve(now, &Trigger::Masters, effects);
        }
        while let Some(demand) = self.pending.demands.pop_first() {
            self.serve(now, &Trigger::Demand(demand), effects);
        }
    }

    fn serve(&mut self, now: Millis, trigger: &Trigger, effects: &mut Vec<Effect>) {
        loop {
            let node = match trigger {
                Trigger::Room(key) => self
                    .nodes
                    .get(key)
                    .map(|node| (node.id.host(), room(&node.total, &node.used))),
                Trigger::Masters | Trigger::Demand(_) => None,
            };
            let view = ClusterView {
                index: &self.index,
                queue: &self.queue,
                am_limit: self.am_limit(),
                node,
            };
            let plan = plan(&view, trigger, now);
            let mut granted = false;
            for grant in &plan.grants {
                granted |= self.apply(now, grant, effects);
            }
            if !granted {
                return;
            }
        }
    }

    /// Makes a planned grant true, if it still can be.
    fn apply(&mut self, now: Millis, grant: &PlannedGrant, effects: &mut Vec<Effect>) -> bool {
        let waits = self.queue.size_of(&grant.demand) == Some(grant.size);
        let fits = self.nodes.get(&grant.node).is_some_and(|node| {
            node.takes_work() && grant.size.fits_in(&room(&node.total, &node.used))
        });
        if !waits || !fits {
            return false;
        }
        match &grant.demand.ask {
            None => {
                grant.size.fits_in(&self.queue.am_room(&self.am_limit()))
                    && self.grant_master(now, grant, effects)
            }
            Some(ask) => self.grant_ask(now, grant, ask, effects),
        }
    }

    pub(crate) fn am_limit(&self) -> Resource {
        share_of(&self.cluster_total, self.config.max_am_share_permille)
    }

    /// Of the registered nodes, kind by kind; zero when there is none.
    pub(crate) fn largest_container(&self) -> Resource {
        self.largest.best().unwrap_or_default()
    }

    /// Whether nodes and containers of before the start may still turn up.
    pub(crate) fn is_recovering(&self) -> bool {
        self.recovering
    }

    /// Counts and reports an input that a state does not know.
    pub(crate) fn illegal(
        &mut self,
        object: String,
        state: &'static str,
        input: &'static str,
        effects: &mut Vec<Effect>,
    ) {
        self.illegal_transitions += 1;
        effects.push(Effect::Illegal(IllegalTransition {
            object,
            state,
            input,
        }));
    }
}
