//! Containers that shall have more, or less, than they were granted.
//!
//! More is taken at once from the node's room, and the master brings the node the token that says
//! so. Less is ordered at the node; its room is free when the node has said that it is done.

use bobbin_types::{AttemptId, ContainerId, ContainerState, Millis, Resource};

use crate::event::{ContainerUpdate, SessionId, UpdateKind};
use crate::limits::UPDATES_PER_MESSAGE_MAX;
use crate::manager::ResourceManager;
use crate::scheduler::room;
use crate::{Effect, MasterMessage, NodeCommand, Refusal, UpdatedContainer};

impl ResourceManager {
    pub(crate) fn on_master_updates(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        session: SessionId,
        updates: Vec<ContainerUpdate>,
        effects: &mut Vec<Effect>,
    ) {
        if !self.master_says(now, attempt, session) {
            return;
        }
        let mut updated = Vec::new();
        // Beyond the limit nothing is answered: the master still wants it and says so.
        for update in updates.into_iter().take(UPDATES_PER_MESSAGE_MAX) {
            match self.update_container(attempt, &update, effects) {
                Ok(container) => updated.push(container),
                Err(reason) => {
                    let version = self.containers.get(&update.container).map(|c| c.version);
                    let message = MasterMessage::UpdateRefused {
                        update,
                        version,
                        reason,
                    };
                    self.tell_master(attempt, message, effects);
                }
            }
        }
        if !updated.is_empty() {
            self.tell_master(attempt, MasterMessage::Updated(updated), effects);
            self.pending.changed.insert(attempt.application);
        }
    }

    fn update_container(
        &mut self,
        attempt: AttemptId,
        update: &ContainerUpdate,
        effects: &mut Vec<Effect>,
    ) -> Result<UpdatedContainer, Refusal> {
        let id = update.container;
        if self.heir(id) != Some(attempt) {
            return Err(Refusal::UnknownContainer(id));
        }
        let container = self
            .containers
            .get(&id)
            .ok_or(Refusal::UnknownContainer(id))?;
        if container.state != ContainerState::Running || container.is_master {
            return Err(Refusal::ContainerNotRunning(id));
        }
        if container.version_known && container.version != update.version {
            return Err(Refusal::ContainerVersion {
                container: id,
                given: update.version,
                current: container.version,
            });
        }
        let (has, wants, node) = (container.resource, update.resource, container.node);
        let (well, direction) = match update.kind {
            UpdateKind::Increase => (has.fits_in(&wants) && has != wants, "increase"),
            UpdateKind::Decrease => {
                let some = wants.memory_mib > 0 && wants.vcores > 0;
                (wants.fits_in(&has) && has != wants && some, "decrease")
            }
        };
        if !well {
            return Err(Refusal::NotAChange {
                container: id,
                has: Box::new(has),
                asked: Box::new(wants),
                direction,
            });
        }
        match update.kind {
            UpdateKind::Increase => self.check_room(id, &has, &wants)?,
            UpdateKind::Decrease => {}
        }
        let Some(container) = self.containers.get_mut(&id) else {
            return Err(Refusal::UnknownContainer(id));
        };
        container.version = update.version.saturating_add(1);
        container.version_known = true;
        let version = container.version;
        match update.kind {
            UpdateKind::Increase => {
                container.shrinks_to = None;
                self.set_size(id, wants);
            }
            UpdateKind::Decrease => {
                container.shrinks_to = Some(wants);
                let command = NodeCommand::ResizeContainer {
                    container: id,
                    resource: wants,
                    version,
                };
                self.tell_node(node, command, effects);
            }
        }
        let mut container = self.grant_of(id).ok_or(Refusal::UnknownContainer(id))?;
        container.resource = wants;
        let kind = update.kind;
        Ok(UpdatedContainer { kind, container })
    }

    fn check_room(&self, id: ContainerId, has: &Resource, wants: &Resource) -> Result<(), Refusal> {
        let container = self.containers.get(&id);
        let node = container.and_then(|c| self.nodes.get(&c.node));
        let node = node.ok_or(Refusal::UnknownContainer(id))?;
        let room = room(&node.total, &node.used);
        let more = wants.checked_sub(has);
        if more.is_some_and(|more| more.fits_in(&room)) {
            return Ok(());
        }
        Err(Refusal::NoRoomToGrow {
            container: id,
            node: node.id.clone(),
            asked: Box::new(*wants),
            room: Box::new(room),
        })
    }

    /// Its node runs the container with this size: if it was to give something up, it has. One that
    /// has more than is known here was given it by a former resource manager.
    pub(crate) fn size_reported(&mut self, id: ContainerId, resource: &Resource) {
        let Some(container) = self.containers.get_mut(&id) else {
            return;
        };
        let (has, node) = (container.resource, container.node);
        if container.shrinks_to == Some(*resource) {
            container.shrinks_to = None;
            self.set_size(id, *resource);
            self.pending.rooms.insert(node);
        } else if !container.version_known && has != *resource && has.fits_in(resource) {
            // Room that is not there cannot be taken.
            if self.check_room(id, &has, resource).is_ok() {
                self.set_size(id, *resource);
            }
        }
    }

    /// Its node is back: what it was to give up it is told again.
    pub(crate) fn send_resize(&mut self, id: ContainerId, effects: &mut Vec<Effect>) {
        let Some(container) = self.containers.get(&id) else {
            return;
        };
        if let Some(resource) = container.shrinks_to {
            let command = NodeCommand::ResizeContainer {
                container: id,
                resource,
                version: container.version,
            };
            self.tell_node(container.node, command, effects);
        }
    }

    /// Brings all sums up to date with a container's new size.
    fn set_size(&mut self, id: ContainerId, size: Resource) {
        let now = self.now;
        let Some(container) = self.containers.get_mut(&id) else {
            return;
        };
        let old = std::mem::replace(&mut container.resource, size);
        let (node_key, accounted) = (container.node, container.accounted);
        let change = |sum: &Resource| {
            sum.checked_sub(&old)
                .expect("a container is in its sums")
                .checked_add(&size)
                .expect("sums of containers fit 64 bits")
        };
        if let Some(node) = self.nodes.get_mut(&node_key) {
            node.used = change(&node.used);
        }
        if let Some(application) = self.applications.get_mut(&id.application())
            && accounted
        {
            application.usage.add(&application.used, now);
            application.used = change(&application.used);
        }
        self.reindex(node_key);
    }
}
