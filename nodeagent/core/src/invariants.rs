//! What is true of a node agent after every event.

use bobbin_types::{ContainerId, Resource};

use crate::agent::NodeAgent;
use crate::container::ContainerPhase;

/// An invariant that does not hold: a bug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvariantError {
    #[error("{counted} are counted as used, the containers hold {held}")]
    Accounting {
        counted: Box<Resource>,
        held: Box<Resource>,
    },
    #[error("{0} has no exit although it is {1:?}")]
    NoExit(ContainerId, ContainerPhase),
    #[error("{0} is live and its token is counted as used up")]
    LiveAndUsed(ContainerId),
    #[error("{0} is Done and kept")]
    DoneKept(ContainerId),
    #[error("two streams serve one attempt")]
    TwoStreams,
}

impl NodeAgent {
    /// Checks every invariant; the simulator and the property tests call it after each event.
    ///
    /// # Errors
    /// The first one that does not hold.
    pub fn check_invariants(&self) -> Result<(), InvariantError> {
        let mut held = Resource::default();
        for container in self.containers.values() {
            if container.phase.holds_resource() {
                held = held.checked_add(&container.resource).unwrap_or(held);
            }
            match container.phase {
                ContainerPhase::Done => return Err(InvariantError::DoneKept(container.id)),
                ContainerPhase::CleaningUp | ContainerPhase::Exited if container.exit.is_none() => {
                    return Err(InvariantError::NoExit(container.id, container.phase));
                }
                ContainerPhase::New
                | ContainerPhase::Localizing
                | ContainerPhase::Launching
                | ContainerPhase::Running
                | ContainerPhase::Stopping
                | ContainerPhase::CleaningUp
                | ContainerPhase::Exited => {}
            }
            if self.used.contains_key(&container.id) {
                return Err(InvariantError::LiveAndUsed(container.id));
            }
        }
        if held != self.accounting.used() {
            return Err(InvariantError::Accounting {
                counted: Box::new(self.accounting.used()),
                held: Box::new(held),
            });
        }
        let mut attempts: Vec<_> = self.masters.values().collect();
        attempts.sort_unstable();
        if attempts.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(InvariantError::TwoStreams);
        }
        Ok(())
    }
}
