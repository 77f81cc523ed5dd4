//! One node: it registers over a stream with all that runs on it, beats, is lost when nothing was
//! heard of it for the expiry, and may come back with what it still runs.
//!
//! A node without a stream gets no work. Its containers stay its own until it is given up.

use std::collections::BTreeSet;

use bobbin_types::{
    ApplicationId, AttemptId, ContainerId, ContainerState, ExitStatus, Millis, NodeId, NodeState,
    Resource, WallMillis,
};

use crate::authority::{Object, Operation, Principal, may};
use crate::container::{Container, ContainerInput};
use crate::event::{
    ContainerExit, NodeHeartbeat, NodeRegistration, ReportedContainer, ReportedStatus, SessionId,
};
use crate::limits::{
    APPLICATIONS_PER_NODE_MAX, CONTAINERS_PER_NODE_MAX, NODE_UNITS_MAX, NODE_VCORES_MAX, NODES_MAX,
    WORD_BYTES_MAX,
};
use crate::liveness::DeadlineKey;
use crate::manager::ResourceManager;
use crate::master::{full, too_many};
use crate::{Effect, NodeCommand, Refusal, StartContainer, Transition};

/// A node's number in this process: cheap to copy, unlike its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeKey(pub(crate) u32);

/// What moves a node on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeInput {
    /// Registered, without and with problems.
    RegisteredWell,
    RegisteredIll,
    /// Its heartbeat says so.
    FellIll,
    Recovered,
    /// Nothing was heard of it for the expiry.
    Expired,
}

impl NodeInput {
    #[cfg(test)]
    pub(crate) const ALL: &'static [NodeInput] = &[
        NodeInput::RegisteredWell,
        NodeInput::RegisteredIll,
        NodeInput::FellIll,
        NodeInput::Recovered,
        NodeInput::Expired,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            NodeInput::RegisteredWell => "registered well",
            NodeInput::RegisteredIll => "registered ill",
            NodeInput::FellIll => "fell ill",
            NodeInput::Recovered => "recovered",
            NodeInput::Expired => "expired",
        }
    }
}

/// The state after an input, `None` where the pair is impossible. The states of decommissioning
/// have no way in yet.
///
/// Source: the transition table of YARN's `RMNodeImpl`.
pub(crate) fn next_state(state: NodeState, input: NodeInput) -> Option<NodeState> {
    use NodeInput as I;
    use NodeState as S;
    match (state, input) {
        (S::New | S::Running | S::Unhealthy | S::Lost, I::RegisteredWell) => Some(S::Running),
        (S::New | S::Running | S::Unhealthy | S::Lost, I::RegisteredIll) => Some(S::Unhealthy),
        (S::Running | S::Unhealthy, I::FellIll) => Some(S::Unhealthy),
        (S::Running | S::Unhealthy, I::Recovered) => Some(S::Running),
        (S::New | S::Running | S::Unhealthy, I::Expired) => Some(S::Lost),
        (
            S::New | S::Decommissioning | S::Decommissioned | S::Lost | S::Rebooted | S::Shutdown,
            I::RegisteredWell | I::RegisteredIll | I::FellIll | I::Recovered | I::Expired,
        ) => None,
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) key: NodeKey,
    pub(crate) id: NodeId,
    pub(crate) state: NodeState,
    pub(crate) session: Option<SessionId>,
    pub(crate) total: Resource,
    pub(crate) used: Resource,
    pub(crate) reserved: Resource,
    /// All whose end it has not reported, given-up ones included.
    pub(crate) containers: BTreeSet<ContainerId>,
    pub(crate) grpc_address: String,
    pub(crate) http_address: String,
    pub(crate) profile: String,
    pub(crate) problems: Vec<String>,
    pub(crate) lacks: Vec<String>,
    pub(crate) version: String,
    pub(crate) last_heard: Millis,
    pub(crate) last_seen: WallMillis,
    pub(crate) memory_used_mib: u64,
    pub(crate) cpu_permille: u32,
    /// Of its containers, those that it fetches files for.
    pub(crate) fetching: BTreeSet<ContainerId>,
    /// The number of the last change of its state or size among all nodes'.
    pub(crate) changed: u64,
}

impl Node {
    fn new(key: NodeKey, id: NodeId) -> Node {
        Node {
            key,
            id,
            state: NodeState::New,
            session: None,
            total: Resource::default(),
            used: Resource::default(),
            reserved: Resource::default(),
            containers: BTreeSet::new(),
            grpc_address: String::new(),
            http_address: String::new(),
            profile: String::new(),
            problems: Vec::new(),
            lacks: Vec::new(),
            version: String::new(),
            last_heard: Millis(0),
            last_seen: WallMillis(0),
            memory_used_mib: 0,
            cpu_permille: 0,
            fetching: BTreeSet::new(),
            changed: 0,
        }
    }

    fn is_forgettable(&self) -> bool {
        self.state == NodeState::Lost && self.containers.is_empty()
    }

    /// Whether new containers may be placed here.
    pub(crate) fn takes_work(&self) -> bool {
        self.state == NodeState::Running && self.session.is_some()
    }
}

impl ResourceManager {
    /// The node of that name; a new one that has not registered if there is none.
    pub(crate) fn node_key(&mut self, id: &NodeId) -> NodeKey {
        if let Some(key) = self.node_keys.get(id) {
            return *key;
        }
        let key = NodeKey(self.next_node_key);
        self.next_node_key = self
            .next_node_key
            .checked_add(1)
            .expect("fewer nodes than 2^32");
        self.node_keys.insert(id.clone(), key);
        self.nodes.insert(key, Node::new(key, id.clone()));
        key
    }

    /// Beyond the limit a lost node with nothing on it is forgotten. Scans, but only then.
    fn make_room_for_node(&mut self) {
        if self.nodes.len() < NODES_MAX {
            return;
        }
        let forgettable = self.nodes.values().find(|node| node.is_forgettable());
        let Some((key, id)) = forgettable.map(|node| (node.key, node.id.clone())) else {
            return;
        };
        self.nodes.remove(&key);
        self.node_keys.remove(&id);
        self.deadlines.cancel(DeadlineKey::Node(key));
    }

    /// The node, if it says this on its current stream; it is a sign of life then.
    pub(crate) fn heard_from(
        &mut self,
        now: Millis,
        id: &NodeId,
        session: SessionId,
    ) -> Option<NodeKey> {
        let key = *self.node_keys.get(id)?;
        let wall = self.wall;
        let node = self.nodes.get_mut(&key)?;
        if node.session != Some(session) {
            return None;
        }
        node.last_heard = now;
        node.last_seen = wall;
        Some(key)
    }

    /// Sends if the node has a stream; what it misses is made up for when it registers.
    pub(crate) fn tell_node(
        &mut self,
        key: NodeKey,
        command: NodeCommand,
        effects: &mut Vec<Effect>,
    ) {
        let Some(node) = self.nodes.get(&key) else {
            return;
        };
        if let Some(session) = node.session {
            effects.push(Effect::ToNode {
                node: node.id.clone(),
                session,
                command,
            });
        }
    }

    fn step_node(&mut self, key: NodeKey, input: NodeInput, effects: &mut Vec<Effect>) -> bool {
        let Some(node) = self.nodes.get_mut(&key) else {
            return false;
        };
        let from = node.state;
        let Some(to) = next_state(from, input) else {
            let name = node.id.to_string();
            self.illegal(name, from.as_str(), input.as_str(), effects);
            return false;
        };
        node.state = to;
        if from != to {
            self.node_changes += 1;
            node.changed = self.node_changes;
            let node = node.id.clone();
            effects.push(Effect::Transitioned(Transition::Node { node, from, to }));
        }
        true
    }

    /// Brings the scheduler's index up to date with a node.
    pub(crate) fn reindex(&mut self, key: NodeKey) {
        let Some(node) = self.nodes.get(&key) else {
            return;
        };
        if node.takes_work() {
            self.index.put(key, node.id.host(), &node.total, &node.used);
        } else {
            self.index.remove(key, node.id.host());
        }
        self.recount(key);
    }

    /// Brings the sum of what is in use up to date with a node: one that is lost is not in it.
    fn recount(&mut self, key: NodeKey) {
        let node = self.nodes.get(&key);
        let used = node
            .filter(|_| self.totals.contains_key(&key))
            .map(|node| node.used);
        let old = match used {
            Some(used) => self.counted.insert(key, used),
            None => self.counted.remove(&key),
        };
        let rest = self
            .cluster_used
            .checked_sub(&old.unwrap_or_default())
            .expect("a node's use is in the cluster's sum");
        self.cluster_used = rest
            .checked_add(&used.unwrap_or_default())
            .expect("sums of containers fit 64 bits");
    }

    /// Changes what the cluster has by what this node has now.
    fn set_total(&mut self, key: NodeKey, total: Option<Resource>) {
        let old = self.totals.get(&key).copied().unwrap_or_default();
        self.cluster_total = self
            .cluster_total
            .checked_sub(&old)
            .expect("a node is in the cluster's sum");
        self.largest.remove(&key, &old);
        self.totals.remove(&key);
        if let Some(total) = total {
            self.totals.insert(key, total);
            self.largest.insert(key, total);
            self.cluster_total = self
                .cluster_total
                .checked_add(&total)
                .expect("totals are checked when a node registers");
        }
        self.pending.masters = true;
        self.recount(key);
    }

    pub(crate) fn on_node_registered(
        &mut self,
        now: Millis,
        session: SessionId,
        principal: &Principal,
        registration: NodeRegistration,
        effects: &mut Vec<Effect>,
    ) {
        let id = registration.node.clone();
        if let Err(reason) = self.node_may_register(principal, &registration) {
            refuse_node(id, session, reason, effects);
            return;
        }
        self.make_room_for_node();
        self.note_known(&id, effects);
        let key = self.node_key(&id);
        let wall = self.wall;
        let Some(node) = self.nodes.get_mut(&key) else {
            return;
        };
        if let Some(session) = node.session.replace(session).filter(|old| *old != session) {
            effects.push(Effect::CloseSession { session });
        }
        let NodeRegistration {
            total,
            problems,
            containers,
            applications,
            ..
        } = registration;
        if node.total != total {
            self.node_changes += 1;
            node.changed = self.node_changes;
        }
        node.total = total;
        node.reserved = registration.reserved;
        node.grpc_address = registration.grpc_address;
        node.http_address = registration.http_address;
        node.profile = registration.profile;
        node.lacks = registration.lacks;
        node.version = registration.version;
        node.last_heard = now;
        node.last_seen = wall;
        let input = if problems.is_empty() {
            NodeInput::RegisteredWell
        } else {
            NodeInput::RegisteredIll
        };
        node.problems = problems;
        self.step_node(key, input, effects);
        self.set_total(key, Some(total));
        self.watch_node(now, key);
        let registered = NodeCommand::Registered {
            heartbeat_interval_ms: self.config.heartbeat_interval_ms,
            expiry_ms: self.config.node_expiry_ms,
            epoch: self.epoch,
        };
        self.tell_node(key, registered, effects);
        let listed: BTreeSet<ContainerId> = containers.iter().map(|c| c.container).collect();
        for reported in containers {
            self.container_listed(now, key, reported, effects);
        }
        self.containers_not_listed(now, key, &listed, effects);
        for application in applications {
            self.application_held(key, application, effects);
        }
        self.reindex(key);
        self.pending.rooms.insert(key);
        self.no_longer_expected(now, &id, effects);
    }

    fn node_may_register(
        &self,
        principal: &Principal,
        registration: &NodeRegistration,
    ) -> Result<(), Refusal> {
        let node = &registration.node;
        may(principal, Operation::AttachNode, &Object::Node(node))?;
        if registration.total.memory_mib == 0 || registration.total.vcores == 0 {
            let total = registration.total;
            return Err(Refusal::NodeWithoutResources {
                node: node.clone(),
                total,
            });
        }
        too_many(
            "containers of a node",
            registration.containers.len(),
            CONTAINERS_PER_NODE_MAX,
        )?;
        too_many(
            "applications of a node",
            registration.applications.len(),
            APPLICATIONS_PER_NODE_MAX,
        )?;
        let what = "address of a node";
        bobbin_types::check_text(what, &registration.grpc_address, WORD_BYTES_MAX)?;
        if !registration.http_address.is_empty() {
            bobbin_types::check_text(what, &registration.http_address, WORD_BYTES_MAX)?;
        }
        if !self.node_keys.contains_key(node) && self.nodes.len() >= NODES_MAX {
            let has_lost = self.nodes.values().any(Node::is_forgettable);
            if !has_lost {
                return Err(full(
                    "nodes of the cluster",
                    self.nodes.len() + 1,
                    NODES_MAX,
                ));
            }
        }
        let total = registration.total;
        let too_large = total.memory_mib > NODE_UNITS_MAX
            || total.vcores > NODE_VCORES_MAX
            || total.countable.iter().any(|units| *units > NODE_UNITS_MAX);
        if too_large {
            return Err(Refusal::NodeTooLarge {
                node: node.clone(),
                total,
            });
        }
        Ok(())
    }

    /// A registering node names a container that it has.
    fn container_listed(
        &mut self,
        now: Millis,
        node: NodeKey,
        reported: ReportedContainer,
        effects: &mut Vec<Effect>,
    ) {
        let id = reported.container;
        let known = self.containers.get(&id).map(|c| (c.node, c.is_stopping()));
        match (reported.status, known) {
            (
                ReportedStatus::Ended {
                    exit_status,
                    diagnostics,
                },
                _,
            ) => {
                let exit = ContainerExit {
                    container: id,
                    exit_status,
                    diagnostics,
                };
                self.container_exit_reported(now, node, exit, effects);
            }
            (ReportedStatus::Starting | ReportedStatus::Running, Some((at, _))) if at != node => {
                self.illegal(id.to_string(), "ON ANOTHER NODE", "listed", effects);
            }
            (ReportedStatus::Starting | ReportedStatus::Running, Some((_, true))) => {
                self.hold_successor(id);
                self.send_stop(id, effects);
            }
            (ReportedStatus::Running, Some((_, false))) => {
                self.container_runs(now, id, effects);
                self.size_reported(id, &reported.resource);
                self.send_resize(id, effects);
            }
            (ReportedStatus::Starting, Some((_, false))) => {}
            (ReportedStatus::Starting | ReportedStatus::Running, None) => {
                self.foreign_runs(node, id, Some(reported.resource), effects);
            }
        }
    }

    /// A registering node does not name these, although they were placed on it.
    fn containers_not_listed(
        &mut self,
        now: Millis,
        key: NodeKey,
        listed: &BTreeSet<ContainerId>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(node) = self.nodes.get(&key) else {
            return;
        };
        let missing: Vec<ContainerId> = node.containers.difference(listed).copied().collect();
        for id in missing {
            let Some(container) = self.containers.get(&id) else {
                continue;
            };
            if container.started {
                let (status, words) = match &container.stop {
                    Some(stop) => (stop.exit_status, stop.diagnostics.to_string()),
                    None => (
                        ExitStatus::ABORTED,
                        "its node no longer knows it".to_owned(),
                    ),
                };
                self.container_gone(now, id, status, &words, effects);
            } else if container.is_stopping() {
                // It may still be started with a token that was handed out: the agent has to
                // promise that it will not.
                self.send_stop(id, effects);
            } else if container.is_master {
                self.send_start(id, effects);
            }
        }
    }

    /// Tells a master's node to start it.
    pub(crate) fn send_start(&mut self, id: ContainerId, effects: &mut Vec<Effect>) {
        let Some(container) = self.containers.get(&id) else {
            return;
        };
        let Some(application) = self.applications.get(&id.application()) else {
            return;
        };
        let start = StartContainer {
            container: id,
            resource: container.resource,
            application: std::sync::Arc::clone(&application.spec),
        };
        let node = container.node;
        self.tell_node(
            node,
            NodeCommand::StartContainer(std::sync::Arc::new(start)),
            effects,
        );
    }

    /// A registering node holds folders of this application.
    fn application_held(&mut self, key: NodeKey, id: ApplicationId, effects: &mut Vec<Effect>) {
        let ended = match self.applications.get_mut(&id) {
            None => true,
            Some(application) => {
                application.nodes.insert(key);
                application.state.is_ended()
            }
        };
        if ended {
            let command = NodeCommand::ApplicationEnded { application: id };
            self.tell_node(key, command, effects);
            return;
        }
        // It may have missed that earlier attempts are over.
        let application = self.applications.get(&id);
        let over: Vec<AttemptId> = application
            .into_iter()
            .flat_map(|application| &application.attempts)
            .filter(|attempt| attempt.state.is_ended())
            .map(|attempt| attempt.id)
            .collect();
        let keep_containers = application.is_some_and(|a| a.spec.submission.keep_containers);
        for attempt in over {
            let command = NodeCommand::RevokeAttempt {
                attempt,
                keep_containers,
            };
            self.tell_node(key, command, effects);
        }
    }

    pub(crate) fn on_node_stream_lost(&mut self, now: Millis, id: &NodeId, session: SessionId) {
        let Some(key) = self.heard_from(now, id, session) else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(&key) {
            node.session = None;
        }
        self.note_fetching(key, Vec::new());
        self.reindex(key);
        self.watch_node(now, key);
    }

    pub(crate) fn on_node_heartbeat(
        &mut self,
        now: Millis,
        id: &NodeId,
        session: SessionId,
        heartbeat: NodeHeartbeat,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.heard_from(now, id, session) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(&key) else {
            return;
        };
        node.memory_used_mib = heartbeat.memory_used_mib;
        node.cpu_permille = heartbeat.cpu_permille;
        self.note_fetching(key, heartbeat.fetching);
        let Some(node) = self.nodes.get_mut(&key) else {
            return;
        };
        if node.problems == heartbeat.problems {
            return;
        }
        let input = if heartbeat.problems.is_empty() {
            NodeInput::Recovered
        } else {
            NodeInput::FellIll
        };
        node.problems = heartbeat.problems;
        self.step_node(key, input, effects);
        self.reindex(key);
        self.pending.rooms.insert(key);
    }

    /// Nothing was heard of the node for the expiry: it is given up with all that it ran.
    pub(crate) fn node_expired(&mut self, now: Millis, key: NodeKey, effects: &mut Vec<Effect>) {
        if !self.step_node(key, NodeInput::Expired, effects) {
            return;
        }
        let Some(node) = self.nodes.get_mut(&key) else {
            return;
        };
        if let Some(session) = node.session.take() {
            effects.push(Effect::CloseSession { session });
        }
        let name = node.id.clone();
        let containers: Vec<ContainerId> = node.containers.iter().copied().collect();
        self.note_fetching(key, Vec::new());
        self.reindex(key);
        self.set_total(key, None);
        let reason = format!(
            "node {name} was not heard of for {} ms and is given up",
            self.config.node_expiry_ms
        );
        for id in containers {
            self.container_given_up(now, id, &name, &reason, effects);
        }
        self.forget_known(now, &name, effects);
    }

    /// Its application is told that it is gone. It stays in its node's sums until the node comes
    /// back and says so: it may run there.
    fn container_given_up(
        &mut self,
        now: Millis,
        id: ContainerId,
        node: &NodeId,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(container) = self.containers.get(&id) else {
            return;
        };
        let was_accounted = container.accounted;
        let ended = Container {
            state: ContainerState::Completed,
            ..container.clone()
        };
        let (input, status) = (
            ContainerInput::KillOrdered,
            ExitStatus::KILLED_AFTER_APP_COMPLETION,
        );
        self.stop_container(id, input, status, reason, effects);
        self.detach_container(id);
        self.free_successor(now, id, effects);
        if was_accounted {
            let end = (ExitStatus::ABORTED, reason);
            self.container_ended(now, &ended, Some(node.clone()), end, effects);
        }
    }

    pub(crate) fn watch_node(&mut self, now: Millis, key: NodeKey) {
        self.deadlines
            .set(DeadlineKey::Node(key), now + self.config.node_expiry_ms);
    }
}

/// Says why an agent may not register, and ends its stream.
fn refuse_node(node: NodeId, session: SessionId, reason: Refusal, effects: &mut Vec<Effect>) {
    let command = NodeCommand::Refused { reason };
    effects.push(Effect::ToNode {
        node,
        session,
        command,
    });
    effects.push(Effect::CloseSession { session });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_node_may_come_back() {
        assert_eq!(
            next_state(NodeState::Lost, NodeInput::RegisteredWell),
            Some(NodeState::Running)
        );
        assert_eq!(next_state(NodeState::Lost, NodeInput::Expired), None);
    }
}
