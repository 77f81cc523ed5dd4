//! Calls of masters that hold no stream: YARN's, each proven by a token of its attempt and answered once.
//!
//! They do what a stream's requests do; starts come as [`Event::Start`](crate::Event::Start) with
//! [`Starter::Call`](crate::Starter::Call).
//!
//! Source: `ContainerManagerImpl`.

use bobbin_types::{AttemptId, ContainerId, ExitStatus, Millis, WallMillis};

use crate::agent::NodeAgent;
use crate::container::ContainerPhase;
use crate::effect::{ContainerReport, Effect};
use crate::event::{ContainerClaims, ContainerSignal, Exit};

/// One call, numbered by the driver; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What a call wants of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallRequest {
    Status(ContainerId),
    Stop(ContainerId),
    Signal {
        container: ContainerId,
        signal: ContainerSignal,
    },
    /// Another size, as a token with a later version of the container grants it.
    Update {
        claims: ContainerClaims,
        version: u32,
    },
}

impl CallRequest {
    fn container(&self) -> ContainerId {
        match self {
            CallRequest::Status(container)
            | CallRequest::Stop(container)
            | CallRequest::Signal { container, .. } => *container,
            CallRequest::Update { claims, .. } => claims.container,
        }
    }
}

/// Why a call does nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("{0} has ended: its tokens are dead on this node")]
    AttemptEnded(AttemptId),
    #[error("{container} is not of {attempt}, whose token the call shows")]
    NotYours {
        container: ContainerId,
        attempt: AttemptId,
    },
    #[error("Container {0} is not handled by this NodeManager")]
    NotHandled(ContainerId),
    #[error("Container {0} was recently stopped on node manager.")]
    RecentlyEnded(ContainerId),
    #[error("Container {0} already is running on this node!!")]
    AlreadyStarted(ContainerId),
    #[error("Container {container} is not running: it is {phase:?}")]
    NotRunning {
        container: ContainerId,
        phase: ContainerPhase,
    },
    #[error(
        "Container {container} has version {known} already; the token is for version {version}"
    )]
    Version {
        container: ContainerId,
        known: u32,
        version: u32,
    },
    #[error("{0}")]
    Refused(String),
}

impl NodeAgent {
    /// Whether the tokens of `attempt` manage this container: its own ones, and those that an attempt
    /// before it has left behind.
    pub(crate) fn manages(&self, attempt: &AttemptId, id: &ContainerId) -> bool {
        id.attempt == *attempt
            || (id.application() == attempt.application
                && id.attempt.attempt < attempt.attempt
                && self.revoked.get(&id.attempt) == Some(&true))
    }

    pub(crate) fn on_call(
        &mut self,
        now: Millis,
        call: CallId,
        attempt: AttemptId,
        request: CallRequest,
        wall: WallMillis,
        effects: &mut Vec<Effect>,
    ) {
        let id = request.container();
        let result = self
            .check_call(&attempt, &id)
            .and_then(|()| self.answer_call(now, request, wall, effects))
            .and_then(|()| {
                let container = self.containers.get(&id);
                container
                    .map(crate::container::Container::report)
                    .ok_or(CallError::NotHandled(id))
            });
        effects.push(Effect::AnswerCall {
            call,
            result: result.map(Box::new),
        });
    }

    fn check_call(&self, attempt: &AttemptId, id: &ContainerId) -> Result<(), CallError> {
        if self.is_revoked(attempt) {
            return Err(CallError::AttemptEnded(*attempt));
        }
        if !self.manages(attempt, id) {
            return Err(CallError::NotYours {
                container: *id,
                attempt: *attempt,
            });
        }
        if self.containers.contains_key(id) {
            Ok(())
        } else if self.used.contains_key(id) {
            Err(CallError::RecentlyEnded(*id))
        } else {
            Err(CallError::NotHandled(*id))
        }
    }

    fn answer_call(
        &mut self,
        now: Millis,
        request: CallRequest,
        wall: WallMillis,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CallError> {
        match request {
            CallRequest::Status(_) => Ok(()),
            CallRequest::Stop(id) => {
                let exit = Exit {
                    exit_status: ExitStatus::KILLED_BY_APPMASTER,
                    diagnostics: "Container killed by the ApplicationMaster.".to_owned(),
                };
                self.stop_known(now, id, exit, effects);
                Ok(())
            }
            CallRequest::Signal { container, signal } => {
                self.on_signal(container, signal, effects);
                Ok(())
            }
            CallRequest::Update { claims, version } => self.update(&claims, version, wall, effects),
        }
    }

    /// A signal for what runs; what does not run yet or any more is left alone, as in YARN.
    pub(crate) fn on_signal(
        &mut self,
        id: ContainerId,
        signal: ContainerSignal,
        effects: &mut Vec<Effect>,
    ) {
        let runs = self
            .containers
            .get(&id)
            .is_some_and(|c| c.phase == ContainerPhase::Running);
        if runs {
            effects.push(Effect::Signal {
                container: id,
                signal,
            });
        }
    }

    /// The report of a start that was admitted, or why it was not.
    pub(crate) fn answer_start(
        call: CallId,
        result: Result<ContainerReport, CallError>,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::AnswerCall {
            call,
            result: result.map(Box::new),
        });
    }
}
