//! One container in the resource manager: granted, fetched by its master (or sent to the node for
//! a master's own), running, completed.
//!
//! `Released`, `Killed` and `Expired` say that it is to end: its room stays taken until its node
//! has said that it is gone and will never start, so room is never given twice.

use std::sync::Arc;

use bobbin_types::{
    ApplicationId, ContainerId, ContainerState, ExitStatus, Millis, NodeId, Resource, WallMillis,
};

use crate::application::EndedContainer;
use crate::event::{ContainerExit, SessionId};
use crate::launch::LaunchContract;
use crate::limits::ENDED_CONTAINERS_MAX;
use crate::liveness::DeadlineKey;
use crate::manager::ResourceManager;
use crate::node::NodeKey;
use crate::scheduler::{room, smaller};
use crate::{CompletedContainer, Effect, MasterMessage, NodeCommand};

/// What moves a container on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContainerInput {
    Granted,
    /// Sent to its master, or to its node for a master's own.
    Fetched,
    Started,
    /// A node that registered runs it, and it was granted before a restart.
    Recovered,
    ReleaseAsked,
    /// Not started in time.
    NeverStarted,
    KillOrdered,
    Exited,
}

impl ContainerInput {
    #[cfg(test)]
    pub(crate) const ALL: &'static [ContainerInput] = &[
        ContainerInput::Granted,
        ContainerInput::Fetched,
        ContainerInput::Started,
        ContainerInput::Recovered,
        ContainerInput::ReleaseAsked,
        ContainerInput::NeverStarted,
        ContainerInput::KillOrdered,
        ContainerInput::Exited,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ContainerInput::Granted => "granted",
            ContainerInput::Fetched => "fetched",
            ContainerInput::Started => "started",
            ContainerInput::Recovered => "recovered",
            ContainerInput::ReleaseAsked => "release asked",
            ContainerInput::NeverStarted => "never started",
            ContainerInput::KillOrdered => "kill ordered",
            ContainerInput::Exited => "exited",
        }
    }
}

/// The state after an input, `None` where the pair is impossible.
///
/// Source: the transition table of YARN's `RMContainerImpl`; reservations come with queues.
pub(crate) fn next_state(state: ContainerState, input: ContainerInput) -> Option<ContainerState> {
    use ContainerInput as I;
    use ContainerState as S;
    match (state, input) {
        (S::New, I::Granted) => Some(S::Allocated),
        (S::Allocated, I::Fetched) => Some(S::Acquired),
        (S::Acquired | S::Running, I::Started) => Some(S::Running),
        (S::New, I::Recovered) => Some(S::Running),
        (S::Allocated | S::Acquired | S::Running, I::ReleaseAsked) => Some(S::Released),
        (S::Acquired, I::NeverStarted) => Some(S::Expired),
        (S::New | S::Allocated | S::Acquired | S::Running, I::KillOrdered) => Some(S::Killed),
        (S::Allocated | S::Acquired | S::Running, I::Exited) => Some(S::Completed),
        // Too late to start: its node has been told to end it.
        (S::Released, I::Started | I::Exited) => Some(S::Released),
        (S::Expired, I::Started | I::Exited) => Some(S::Expired),
        (S::Killed, I::Started | I::Exited) => Some(S::Killed),
        (
            S::New
            | S::Reserved
            | S::Allocated
            | S::Acquired
            | S::Running
            | S::Completed
            | S::Expired
            | S::Released
            | S::Killed,
            I::Granted
            | I::Fetched
            | I::Started
            | I::Recovered
            | I::ReleaseAsked
            | I::NeverStarted
            | I::KillOrdered
            | I::Exited,
        ) => None,
    }
}

/// What a node was told when it was told to end a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StopOrder {
    pub(crate) exit_status: ExitStatus,
    pub(crate) diagnostics: Arc<str>,
}

/// A container whose end is not known.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) node: NodeKey,
    pub(crate) resource: Resource,
    pub(crate) state: ContainerState,
    pub(crate) is_master: bool,
    /// Its node has said that it runs, or ran.
    pub(crate) started: bool,
    pub(crate) stop: Option<StopOrder>,
    /// Of the ask that it was granted for.
    pub(crate) priority: i32,
    pub(crate) request_id: i64,
    /// How often its size was changed.
    pub(crate) version: u32,
    /// Not so of one that a former resource manager granted: then its master's number counts.
    pub(crate) version_known: bool,
    /// Its node has been told that it shall have only this, and has not said that it is done.
    pub(crate) shrinks_to: Option<Resource>,
    pub(crate) created: WallMillis,
    /// It is in its application's sums. Not so once its node was given up, or if nobody knows its
    /// application.
    pub(crate) accounted: bool,
}

impl Container {
    /// Its node has been told to end it, or is to be told when it comes back.
    pub(crate) fn is_stopping(&self) -> bool {
        self.state.is_ended()
    }
}

impl ResourceManager {
    fn step_container(
        &mut self,
        id: ContainerId,
        input: ContainerInput,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(container) = self.containers.get_mut(&id) else {
            return false;
        };
        let Some(to) = next_state(container.state, input) else {
            let state = container.state.as_str();
            self.illegal(id.to_string(), state, input.as_str(), effects);
            return false;
        };
        container.state = to;
        true
    }

    /// Takes a new container into all sums: of its node, its application, the masters' share.
    pub(crate) fn add_container(&mut self, container: Container) {
        let id = container.id;
        let (node_key, resource) = (container.node, container.resource);
        if let Some(node) = self.nodes.get_mut(&node_key) {
            node.used = node
                .used
                .checked_add(&resource)
                .expect("sums of containers fit 64 bits");
            node.containers.insert(id);
        }
        if container.accounted {
            if let Some(application) = self.applications.get_mut(&id.application()) {
                application.live.insert(id);
                application.usage.add(&application.used, self.now);
                application.used = application
                    .used
                    .checked_add(&resource)
                    .expect("sums of containers fit 64 bits");
                application.nodes.insert(node_key);
            }
            if container.is_master {
                let used = &mut self.queue.am_used;
                *used = used
                    .checked_add(&resource)
                    .expect("sums of containers fit 64 bits");
            }
        }
        self.containers.insert(id, container);
        self.reindex(node_key);
    }

    /// Takes a container out of its application's sums; its node's room stays taken.
    pub(crate) fn detach_container(&mut self, id: ContainerId) {
        let Some(container) = self.containers.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut container.accounted, false) {
            return;
        }
        let (resource, is_master) = (container.resource, container.is_master);
        if let Some(application) = self.applications.get_mut(&id.application()) {
            application.live.remove(&id);
            application.usage.add(&application.used, self.now);
            application.used = application
                .used
                .checked_sub(&resource)
                .expect("a container is in its sums");
        }
        if is_master {
            let used = &mut self.queue.am_used;
            *used = used
                .checked_sub(&resource)
                .expect("a master is in the masters' sum");
            self.pending.masters = true;
        }
    }

    /// Tells the container's node to end it, now or when it is back.
    pub(crate) fn stop_container(
        &mut self,
        id: ContainerId,
        input: ContainerInput,
        exit_status: ExitStatus,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        if self.containers.get(&id).is_none_or(Container::is_stopping)
            || !self.step_container(id, input, effects)
        {
            return;
        }
        self.deadlines.cancel(DeadlineKey::Allocation(id));
        if let Some(container) = self.containers.get_mut(&id) {
            container.stop = Some(StopOrder {
                exit_status,
                diagnostics: crate::text::clip(reason),
            });
        }
        self.send_stop(id, effects);
    }

    /// Sends, or sends again, the order to end a container.
    pub(crate) fn send_stop(&mut self, id: ContainerId, effects: &mut Vec<Effect>) {
        let Some(container) = self.containers.get(&id) else {
            return;
        };
        let Some(stop) = container.stop.clone() else {
            return;
        };
        let command = NodeCommand::StopContainer {
            container: id,
            exit_status: stop.exit_status,
            diagnostics: stop.diagnostics.to_string(),
        };
        self.tell_node(container.node, command, effects);
    }

    pub(crate) fn mark_fetched(&mut self, id: ContainerId, effects: &mut Vec<Effect>) {
        self.step_container(id, ContainerInput::Fetched, effects);
    }

    pub(crate) fn on_container_started(
        &mut self,
        now: Millis,
        node: &NodeId,
        session: SessionId,
        (container, resource): (ContainerId, Option<Resource>),
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.heard_from(now, node, session) else {
            return;
        };
        match self.containers.get(&container) {
            Some(known) if known.node == key => {
                self.container_runs(now, container, effects);
                if let Some(resource) = resource {
                    self.size_reported(container, &resource);
                }
            }
            Some(_) => {
                self.illegal(container.to_string(), "ON ANOTHER NODE", "started", effects);
            }
            None => self.foreign_runs(key, container, resource, effects),
        }
    }

    /// Its node says that it runs.
    pub(crate) fn container_runs(
        &mut self,
        now: Millis,
        id: ContainerId,
        effects: &mut Vec<Effect>,
    ) {
        if !self.step_container(id, ContainerInput::Started, effects) {
            return;
        }
        self.deadlines.cancel(DeadlineKey::Allocation(id));
        let Some(container) = self.containers.get_mut(&id) else {
            return;
        };
        let first = !std::mem::replace(&mut container.started, true);
        if first && container.is_master && !container.is_stopping() {
            self.master_runs(now, id.attempt, effects);
        }
        self.pending.changed.insert(id.application());
    }

    /// A node runs a container that is in no table: granted by a former resource manager, or given
    /// up since. It is taken over if its attempt lives and it is plain that room is taken by it;
    /// otherwise it is ended.
    pub(crate) fn foreign_runs(
        &mut self,
        node: NodeKey,
        id: ContainerId,
        resource: Option<Resource>,
        effects: &mut Vec<Effect>,
    ) {
        // Room that is not there cannot be taken: the sums stay true whatever a node says.
        let resource = self
            .nodes
            .get(&node)
            .map(|node| room(&node.total, &node.used))
            .map_or_else(Resource::default, |room| {
                smaller(&room, &resource.unwrap_or_default())
            });
        let wanted = id.epoch < self.epoch
            && self.is_recovering()
            && !resource.is_zero()
            && self.heir(id).is_some();
        let known = self.applications.contains_key(&id.application());
        self.add_container(Container {
            id,
            node,
            resource,
            state: ContainerState::New,
            is_master: false,
            started: true,
            stop: None,
            priority: 0,
            request_id: -1,
            version: 0,
            version_known: false,
            shrinks_to: None,
            created: self.wall,
            accounted: known,
        });
        if wanted {
            self.step_container(id, ContainerInput::Recovered, effects);
            self.adopted(id, effects);
        } else {
            self.hold_successor(id);
            self.stop_container(
                id,
                ContainerInput::KillOrdered,
                ExitStatus::KILLED_AFTER_APP_COMPLETION,
                "its attempt is over, or the cluster gave its node up",
                effects,
            );
        }
    }

    pub(crate) fn on_container_exited(
        &mut self,
        now: Millis,
        node: &NodeId,
        session: SessionId,
        exit: ContainerExit,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.heard_from(now, node, session) else {
            return;
        };
        self.container_exit_reported(now, key, exit, effects);
    }

    /// A node says that a container is gone (or never was and never will be); it is acknowledged
    /// once what follows from it is durable.
    pub(crate) fn container_exit_reported(
        &mut self,
        now: Millis,
        node: NodeKey,
        exit: ContainerExit,
        effects: &mut Vec<Effect>,
    ) {
        let id = exit.container;
        match self.containers.get(&id) {
            Some(known) if known.node != node => {
                self.illegal(id.to_string(), "ON ANOTHER NODE", "exited", effects);
            }
            Some(_) => {
                self.container_gone(now, id, exit.exit_status, &exit.diagnostics, effects);
            }
            None => self.foreign_exited(node, &exit, effects),
        }
        // A master that does not list what it holds has to know first.
        let heir = self.heir(id).and_then(|heir| self.attempt(heir));
        if heir.is_some_and(|attempt| attempt.unacknowledged.contains(&id)) {
            return;
        }
        self.tell_node(
            node,
            NodeCommand::AcknowledgeExit { container: id },
            effects,
        );
    }

    /// Nobody needs to hear of this end again: its node may forget it, if it is over there.
    pub(crate) fn acknowledge_exit(&mut self, id: ContainerId, effects: &mut Vec<Effect>) {
        let application = self.applications.get(&id.application());
        let ended = application.and_then(|a| a.ended_containers.get(&id));
        let node = ended.and_then(|ended| ended.node.as_ref());
        let key = node.and_then(|node| self.node_keys.get(node)).copied();
        if let (Some(key), false) = (key, self.containers.contains_key(&id)) {
            let command = NodeCommand::AcknowledgeExit { container: id };
            self.tell_node(key, command, effects);
        }
    }

    /// Nobody will run this container any more: its room is free.
    pub(crate) fn container_gone(
        &mut self,
        now: Millis,
        id: ContainerId,
        exit_status: ExitStatus,
        diagnostics: &str,
        effects: &mut Vec<Effect>,
    ) {
        if !self.step_container(id, ContainerInput::Exited, effects) {
            return;
        }
        let was_accounted = self.containers.get(&id).is_some_and(|c| c.accounted);
        self.detach_container(id);
        let Some(container) = self.containers.remove(&id) else {
            return;
        };
        self.deadlines.cancel(DeadlineKey::Allocation(id));
        if let Some(node) = self.nodes.get_mut(&container.node) {
            node.used = node
                .used
                .checked_sub(&container.resource)
                .expect("a container is in its sums");
            node.containers.remove(&id);
        }
        self.reindex(container.node);
        self.pending.rooms.insert(container.node);
        self.free_successor(now, id, effects);
        if was_accounted {
            let node = self.nodes.get(&container.node).map(|node| node.id.clone());
            self.container_ended(now, &container, node, (exit_status, diagnostics), effects);
        }
    }

    /// What its application makes of a container's end.
    pub(crate) fn container_ended(
        &mut self,
        now: Millis,
        container: &Container,
        node: Option<NodeId>,
        (exit_status, diagnostics): (ExitStatus, &str),
        effects: &mut Vec<Effect>,
    ) {
        let id = container.id;
        let ended = EndedContainer {
            node,
            resource: container.resource,
            state: container.state,
            exit_status,
            diagnostics: crate::text::clip(diagnostics),
            is_master: container.is_master,
            priority: container.priority,
            version: container.version,
            created: Some(container.created),
            finished: self.wall,
        };
        self.remember_ended(id, ended.clone());
        self.pending.changed.insert(id.application());
        if container.is_master {
            self.master_ended(now, id.attempt, exit_status, &ended.diagnostics, effects);
        } else {
            self.report_completed(id, &ended, effects);
        }
        self.settle(now, id.application(), effects);
    }

    /// An end of a container in no table: seen by nobody since a restart, or reported again.
    fn foreign_exited(&mut self, node: NodeKey, exit: &ContainerExit, effects: &mut Vec<Effect>) {
        let id = exit.container;
        if self.heir(id).is_none() {
            return;
        }
        let Some(application) = self.applications.get(&id.application()) else {
            return;
        };
        if application.ended_containers.contains_key(&id) {
            return;
        }
        let ended = EndedContainer {
            node: self.nodes.get(&node).map(|node| node.id.clone()),
            resource: Resource::default(),
            state: ContainerState::Completed,
            exit_status: exit.exit_status,
            diagnostics: crate::text::clip(&exit.diagnostics),
            is_master: false,
            priority: 0,
            version: 0,
            created: None,
            finished: self.wall,
        };
        self.remember_ended(id, ended.clone());
        self.no_longer_awaited(id);
        self.report_completed(id, &ended, effects);
    }

    /// Tells the master that has the container now, at once or when it is back.
    fn report_completed(
        &mut self,
        id: ContainerId,
        ended: &EndedContainer,
        effects: &mut Vec<Effect>,
    ) {
        let Some(heir) = self.heir(id) else {
            return;
        };
        let contract = self.applications.get(&id.application());
        let contract = contract.map(|a| a.spec.submission.launch.contract);
        let Some(attempt) = self.current_attempt_mut(heir) else {
            return;
        };
        if contract == Some(LaunchContract::Yarn) {
            attempt.unacknowledged.insert(id);
        }
        if attempt.session.is_none() {
            attempt.undelivered.insert(id);
        } else {
            let message = MasterMessage::Completed(vec![completed(id, ended)]);
            self.tell_master(heir, message, effects);
        }
    }

    fn remember_ended(&mut self, id: ContainerId, ended: EndedContainer) {
        let Some(application) = self.applications.get_mut(&id.application()) else {
            return;
        };
        if application.ended_containers.insert(id, ended).is_none() {
            self.ended_containers.push_back(id);
        }
        while self.ended_containers.len() > ENDED_CONTAINERS_MAX {
            let Some(oldest) = self.ended_containers.pop_front() else {
                return;
            };
            let application: ApplicationId = oldest.application();
            if let Some(application) = self.applications.get_mut(&application) {
                application.ended_containers.remove(&oldest);
            }
        }
    }
}

/// The master's message for an ended container.
pub(crate) fn completed(id: ContainerId, ended: &EndedContainer) -> CompletedContainer {
    CompletedContainer {
        container: id,
        node: ended.node.clone(),
        resource: ended.resource,
        exit_status: ended.exit_status,
        diagnostics: ended.diagnostics.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_on_its_way_out_stays_there() {
        for state in [
            ContainerState::Released,
            ContainerState::Killed,
            ContainerState::Expired,
        ] {
            for input in ContainerInput::ALL {
                let next = next_state(state, *input);
                assert!(next.is_none() || next == Some(state), "{state} {input:?}");
            }
        }
    }
}
