//! The core's answers in YARN's words.

use bobbin_hadoop::convert::write_resource;
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::proto::yarn;
use bobbin_na_core::{CallError, ContainerReport, INVALID};
use bobbin_types::{ContainerId, ContainerState};

/// The exception a client gets for a call that does nothing.
pub(super) fn exception(error: &CallError) -> RpcException {
    let class = match error {
        CallError::AttemptEnded(_) => ExceptionClass::InvalidToken,
        CallError::NotYours { .. }
        | CallError::NotHandled(_)
        | CallError::RecentlyEnded(_)
        | CallError::AlreadyStarted(_)
        | CallError::NotRunning { .. }
        | CallError::Version { .. }
        | CallError::Refused(_) => ExceptionClass::Yarn,
    };
    RpcException::new(class, error.to_string())
}

/// An exception of one container among several.
///
/// Source: `SerializedExceptionPBImpl`.
pub(super) fn failed(
    container: Option<yarn::ContainerId>,
    exception: RpcException,
) -> yarn::ContainerExceptionMap {
    yarn::ContainerExceptionMap {
        container_id: container,
        exception: Some(yarn::SerializedException {
            message: Some(exception.message),
            trace: Some(String::new()),
            class_name: Some(exception.class.name().to_owned()),
            cause: None,
        }),
    }
}

/// Which calls of many succeeded.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    pub(super) succeeded: Vec<yarn::ContainerId>,
    pub(super) failed: Vec<yarn::ContainerExceptionMap>,
}

impl Outcomes {
    pub(super) fn add<T>(&mut self, container: ContainerId, result: Result<T, RpcException>) {
        match result {
            Ok(_) => self.succeeded.push(container.into()),
            Err(e) => self.failed.push(failed(Some(container.into()), e)),
        }
    }
}

/// How a container is. Source: `ContainerImpl.cloneAndGetContainerStatus`.
pub(super) fn status(report: &ContainerReport) -> yarn::ContainerStatus {
    let (state, sub_state) = match report.state {
        ContainerState::New
        | ContainerState::Reserved
        | ContainerState::Allocated
        | ContainerState::Acquired => (
            yarn::ContainerState::CRunning,
            yarn::ContainerSubState::CssScheduled,
        ),
        ContainerState::Running => (
            yarn::ContainerState::CRunning,
            yarn::ContainerSubState::CssRunning,
        ),
        ContainerState::Completed
        | ContainerState::Expired
        | ContainerState::Released
        | ContainerState::Killed => (
            yarn::ContainerState::CComplete,
            yarn::ContainerSubState::CssDone,
        ),
    };
    yarn::ContainerStatus {
        container_id: Some(report.container.into()),
        state: Some(state.into()),
        diagnostics: Some(report.diagnostics.clone()),
        exit_status: Some(report.exit_status.unwrap_or(INVALID).0),
        capability: Some(write_resource(&report.resource, &[])),
        execution_type: Some(yarn::ExecutionType::Guaranteed.into()),
        container_sub_state: Some(sub_state.into()),
        ..yarn::ContainerStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bobbin_hadoop::exceptions::Reaction;
    use bobbin_types::{ExitStatus, Resource};

    #[test]
    fn no_refusal_is_retried_by_a_client() {
        let container: ContainerId = "container_e01_7_0001_01_000002".parse().unwrap();
        let errors = [
            CallError::AttemptEnded(container.attempt),
            CallError::NotYours {
                container,
                attempt: container.attempt,
            },
            CallError::NotHandled(container),
            CallError::RecentlyEnded(container),
            CallError::AlreadyStarted(container),
            CallError::NotRunning {
                container,
                phase: bobbin_na_core::ContainerPhase::New,
            },
            CallError::Version {
                container,
                known: 1,
                version: 1,
            },
            CallError::Refused("x".into()),
        ];
        for error in errors {
            assert_eq!(exception(&error).class.reaction(), Reaction::AtOnce);
        }
    }

    #[test]
    fn states_as_yarn_tells_them() {
        let report = |state, exit_status| ContainerReport {
            container: "container_e01_7_0001_01_000002".parse().unwrap(),
            state,
            exit_status,
            diagnostics: "words".into(),
            resource: Resource::new(128, 1),
        };
        let running = status(&report(ContainerState::Acquired, None));
        assert_eq!(running.state(), yarn::ContainerState::CRunning);
        assert_eq!(running.exit_status(), -1000);
        assert_eq!(
            running.container_sub_state(),
            yarn::ContainerSubState::CssScheduled
        );
        let ended = status(&report(ContainerState::Completed, Some(ExitStatus(143))));
        assert_eq!(ended.state(), yarn::ContainerState::CComplete);
        assert_eq!((ended.exit_status(), ended.diagnostics()), (143, "words"));
        assert_eq!(ended.capability.unwrap().memory(), 128);
    }
}
