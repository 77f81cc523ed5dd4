//! What a grant does: a container comes to be on a node, for a master or for one of its asks.

use std::sync::Arc;

use bobbin_types::{AttemptId, ContainerId, ContainerState, Millis, Resource};

use crate::attempt::AttemptInput;
use crate::container::{Container, ContainerInput, next_state};
use crate::event::AskKey;
use crate::limits::CONTAINERS_PER_APPLICATION_MAX;
use crate::liveness::DeadlineKey;
use crate::manager::ResourceManager;
use crate::node::NodeKey;
use crate::record::Record;
use crate::scheduler::PlannedGrant;
use crate::{Effect, Grant};

impl ResourceManager {
    /// Puts a new container of the application's live attempt on a node.
    fn place_container(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        node: NodeKey,
        resource: Resource,
        ask: Option<&AskKey>,
    ) -> Option<ContainerId> {
        let epoch = self.epoch;
        let current = self.current_attempt_mut(attempt)?;
        current.container_number = current.container_number.checked_add(1)?;
        let id = ContainerId {
            attempt,
            epoch,
            number: current.container_number,
        };
        current.nodes.insert(node);
        let state = next_state(ContainerState::New, ContainerInput::Granted)
            .expect("a new container can be granted");
        self.add_container(Container {
            id,
            node,
            resource,
            state,
            is_master: ask.is_none(),
            started: false,
            stop: None,
            priority: ask.map_or(0, |ask| ask.priority),
            request_id: ask.map_or(-1, |ask| ask.request_id),
            version: 0,
            version_known: true,
            shrinks_to: None,
            created: self.wall,
            accounted: true,
        });
        let until = now + self.config.allocation_expiry_ms;
        self.deadlines.set(DeadlineKey::Allocation(id), until);
        self.pending.changed.insert(attempt.application);
        Some(id)
    }

    /// The master's container of a waiting attempt: recorded, then started.
    pub(crate) fn grant_master(
        &mut self,
        now: Millis,
        grant: &PlannedGrant,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let application = grant.demand.turn.application;
        self.queue.remove(&grant.demand);
        let waiting = self
            .applications
            .get(&application)
            .and_then(|a| a.live_attempt());
        let Some(attempt) = waiting.map(|attempt| attempt.id) else {
            return false;
        };
        if !self.step_attempt(attempt, AttemptInput::ContainerGranted, effects) {
            return false;
        }
        let placed = self.place_container(now, attempt, grant.node, grant.size, None);
        let Some(container) = placed else {
            return false;
        };
        let wall = self.wall;
        let node = self.nodes.get(&grant.node).map(|node| node.id.clone());
        if let (Some(node), Some(current)) = (node, self.current_attempt_mut(attempt)) {
            let place = Some((container, node));
            current.place.clone_from(&place);
            current.started = Some(wall);
            effects.push(Effect::Persist(Record::AttemptStarted {
                attempt,
                place,
                wall,
            }));
        }
        self.send_start(container, effects);
        self.mark_fetched(container, effects);
        self.step_attempt(attempt, AttemptInput::Launched, effects);
        true
    }

    /// What a master is told of a container that it has.
    pub(crate) fn grant_of(&self, id: ContainerId) -> Option<Grant> {
        let container = self.containers.get(&id)?;
        let node = self.nodes.get(&container.node)?;
        let application = self.applications.get(&id.application())?;
        Some(Grant {
            container: id,
            node: node.id.clone(),
            node_grpc_address: node.grpc_address.clone(),
            node_http_address: node.http_address.clone(),
            user: application.spec.user.clone(),
            resource: container.resource,
            priority: container.priority,
            request_id: container.request_id,
            version: container.version,
        })
    }

    /// One container for an ask of a running application.
    pub(crate) fn grant_ask(
        &mut self,
        now: Millis,
        grant: &PlannedGrant,
        ask: &Arc<AskKey>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let id = grant.demand.turn.application;
        let Some(application) = self.applications.get(&id) else {
            return false;
        };
        let attempt = application
            .live_attempt()
            .filter(|attempt| attempt.session.is_some())
            .map(|attempt| attempt.id);
        let has_room = application.live.len() < CONTAINERS_PER_APPLICATION_MAX;
        let (Some(attempt), true) = (attempt, has_room) else {
            self.queue.remove(&grant.demand);
            return false;
        };
        let placed = self.place_container(now, attempt, grant.node, grant.size, Some(ask));
        let Some(container) = placed else {
            return false;
        };
        self.mark_fetched(container, effects);
        let Some(application) = self.applications.get_mut(&id) else {
            return false;
        };
        if let Some(wanted) = application.asks.get_mut(ask) {
            wanted.count = wanted.count.saturating_sub(1);
            if wanted.count == 0 {
                application.asks.remove(ask);
                self.queue.remove(&grant.demand);
            }
        }
        let Some(message) = self.grant_of(container) else {
            return false;
        };
        self.pending
            .grants
            .entry(attempt)
            .or_default()
            .push(message);
        true
    }
}
