//! Another size for a container that runs.
//!
//! More comes with a token that its master shows, for which the resource manager has taken the room
//! already; less is ordered by the resource manager. Each change has a version, so that neither a
//! repeat nor one that was overtaken has an effect.

use bobbin_types::{ContainerId, Resource, WallMillis};

use crate::agent::NodeAgent;
use crate::calls::CallError;
use crate::container::ContainerPhase;
use crate::effect::Effect;
use crate::event::{ContainerClaims, Record};

impl NodeAgent {
    /// By a master's token. Source: `ContainerManagerImpl.updateContainerInternal`.
    pub(crate) fn update(
        &mut self,
        claims: &ContainerClaims,
        version: u32,
        wall: WallMillis,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CallError> {
        let id = claims.container;
        if claims.expires <= wall {
            return Err(CallError::Refused(format!(
                "the token of {id} expired {} ms ago",
                wall.0 - claims.expires.0
            )));
        }
        let container = self.containers.get(&id).ok_or(CallError::NotHandled(id))?;
        if container.phase != ContainerPhase::Running {
            return Err(CallError::NotRunning {
                container: id,
                phase: container.phase,
            });
        }
        if version <= container.version {
            return Err(CallError::Version {
                container: id,
                known: container.version,
                version,
            });
        }
        self.resize(id, claims.resource, version, effects)
            .map_err(CallError::Refused)
    }

    /// By order of the resource manager.
    pub(crate) fn on_resize(
        &mut self,
        id: ContainerId,
        resource: Resource,
        version: u32,
        effects: &mut Vec<Effect>,
    ) {
        let Some(container) = self.containers.get(&id) else {
            return;
        };
        match container.phase {
            ContainerPhase::Running if version > container.version => {
                // What does not fit was told before the node's settings shrank: the size stays.
                let _ = self.resize(id, resource, version, effects);
            }
            // A repeat: its answer may have been lost.
            ContainerPhase::Running => {
                if self.rm_attached {
                    effects.push(Effect::ReportStartedToRm(container.report()));
                }
            }
            ContainerPhase::New
            | ContainerPhase::Localizing
            | ContainerPhase::Launching
            | ContainerPhase::Stopping
            | ContainerPhase::CleaningUp
            | ContainerPhase::Exited
            | ContainerPhase::Done => {}
        }
    }

    fn resize(
        &mut self,
        id: ContainerId,
        resource: Resource,
        version: u32,
        effects: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let former = self.containers[&id].resource;
        self.accounting.exchange(&former, &resource)?;
        let container = self
            .containers
            .get_mut(&id)
            .expect("its resource was just read");
        container.resource = resource;
        container.version = version;
        let report = container.report();
        effects.push(Effect::Persist(Record::Resized {
            container: id,
            resource,
            version,
        }));
        effects.push(Effect::Resize {
            container: id,
            resource,
        });
        if self.rm_attached {
            effects.push(Effect::ReportStartedToRm(report));
        }
        Ok(())
    }
}
