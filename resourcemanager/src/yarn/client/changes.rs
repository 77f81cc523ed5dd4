//! What changes something: ids, submissions, kills, moves, priorities, timeouts, signals.

use bobbin_hadoop::convert::required;
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::proto::yarn;
use bobbin_rm_core::{ContainerSignal, Object, Operation};
use bobbin_types::{ApplicationState, AttemptId, ContainerId};

use super::submit::{queue, submission};
use super::{ClientService, application_id};
use crate::grpc::identify::decide;
use crate::requests::NewApplication;
use crate::yarn::caller::Client;
use crate::yarn::exceptions::{denied, failed, malformed};
use crate::yarn::{iso_time, report};

impl ClientService {
    pub(super) async fn get_new_application(
        &self,
        client: &Client,
        _: yarn::GetNewApplicationRequest,
    ) -> Result<yarn::GetNewApplicationResponse, RpcException> {
        let object = Object::Cluster;
        decide(&client.principal, Operation::NewApplication, &object).map_err(denied)?;
        let new = self.driver().new_application(&client.principal).await;
        let NewApplication {
            application,
            largest_container,
            ..
        } = new.map_err(|e| failed(&e))?;
        let maximum = report::maximum(largest_container);
        Ok(yarn::GetNewApplicationResponse {
            application_id: Some(application.into()),
            maximum_capability: Some(report::resource(&maximum)),
        })
    }

    /// Answered when the submission is durable. Idempotent by application id.
    pub(super) async fn submit_application(
        &self,
        client: &Client,
        request: yarn::SubmitApplicationRequest,
    ) -> Result<yarn::SubmitApplicationResponse, RpcException> {
        let object = Object::Cluster;
        decide(&client.principal, Operation::SubmitApplication, &object).map_err(denied)?;
        let context = request.application_submission_context.ok_or_else(|| {
            let words = "the request has no ApplicationSubmissionContext";
            RpcException::new(ExceptionClass::IllegalArgument, words)
        })?;
        let attempts_max = self.read(|core| core.config().max_attempts).await?;
        let submission = submission(context, attempts_max)?;
        let submitted = self.driver().submit(&client.principal, submission).await;
        submitted.map_err(|e| failed(&e))?;
        Ok(yarn::SubmitApplicationResponse {})
    }

    /// Clients ask again, five times a second, until the kill is complete.
    pub(super) async fn force_kill(
        &self,
        client: &Client,
        request: yarn::KillApplicationRequest,
    ) -> Result<yarn::KillApplicationResponse, RpcException> {
        let known = self
            .application(
                client,
                request.application_id.as_ref(),
                Operation::KillApplication,
            )
            .await?;
        let answer = |done| yarn::KillApplicationResponse {
            is_kill_completed: Some(done),
        };
        // As YARN: one that has said its final status is past being killed.
        if known.state.is_ended() || known.state == ApplicationState::Finishing {
            return Ok(answer(true));
        }
        if known.state == ApplicationState::Killing {
            return Ok(answer(false));
        }
        let (driver, application) = (self.driver(), known.id);
        let reason = printable(request.diagnostics());
        let number = driver.request_id();
        let killed = driver
            .kill(number, &client.principal, application, false, reason)
            .await;
        killed.map_err(|e| failed(&e))?;
        let now = self.known(application).await?;
        Ok(answer(now.state.is_ended()))
    }

    pub(super) async fn fail_attempt(
        &self,
        client: &Client,
        request: yarn::FailApplicationAttemptRequest,
    ) -> Result<yarn::FailApplicationAttemptResponse, RpcException> {
        let id = request.application_attempt_id.as_ref();
        let id = required("application_attempt_id", id).map_err(malformed)?;
        let attempt: AttemptId = id.try_into().map_err(malformed)?;
        let application = attempt.application.into();
        self.application(client, Some(&application), Operation::FailAttempt)
            .await?;
        let failing = self.driver().fail_attempt(&client.principal, attempt).await;
        failing.map_err(|e| failed(&e))?;
        Ok(yarn::FailApplicationAttemptResponse {})
    }

    pub(super) async fn move_application(
        &self,
        client: &Client,
        request: yarn::MoveApplicationAcrossQueuesRequest,
    ) -> Result<yarn::MoveApplicationAcrossQueuesResponse, RpcException> {
        let application = application_id(Some(&request.application_id))?;
        let id = Some(&request.application_id);
        self.application(client, id, Operation::MoveApplication)
            .await?;
        let queue = queue(&request.target_queue).to_owned();
        let driver = self.driver();
        let moved = driver
            .move_to_queue(&client.principal, application, queue)
            .await;
        moved.map_err(|e| failed(&e))?;
        Ok(yarn::MoveApplicationAcrossQueuesResponse {})
    }

    pub(super) async fn update_priority(
        &self,
        client: &Client,
        request: yarn::UpdateApplicationPriorityRequest,
    ) -> Result<yarn::UpdateApplicationPriorityResponse, RpcException> {
        let application = application_id(Some(&request.application_id))?;
        let id = Some(&request.application_id);
        self.application(client, id, Operation::SetPriority).await?;
        let wanted = request.application_priority.priority();
        let driver = self.driver();
        let set = driver
            .set_priority(&client.principal, application, wanted)
            .await;
        let priority = set.map_err(|e| failed(&e))?;
        Ok(yarn::UpdateApplicationPriorityResponse {
            application_priority: Some(yarn::Priority {
                priority: Some(priority),
            }),
        })
    }

    pub(super) async fn update_timeouts(
        &self,
        client: &Client,
        request: yarn::UpdateApplicationTimeoutsRequest,
    ) -> Result<yarn::UpdateApplicationTimeoutsResponse, RpcException> {
        let application = application_id(Some(&request.application_id))?;
        let id = Some(&request.application_id);
        self.application(client, id, Operation::SetTimeout).await?;
        // The last one counts: there is one type of timeout only.
        let wanted = request.application_timeouts.last().ok_or_else(|| {
            let words = "At least one ApplicationTimeoutType should be configured for updating \
                         timeouts.";
            RpcException::new(ExceptionClass::Yarn, words)
        })?;
        let expires = iso_time::parse(wanted.expire_time())
            .map_err(|e| RpcException::new(ExceptionClass::Yarn, format!("expire_time: {e}")))?;
        let driver = self.driver();
        let set = driver
            .set_timeout(&client.principal, application, Some(expires))
            .await;
        let expires = set.map_err(|e| failed(&e))?;
        let lifetime = yarn::ApplicationTimeoutType::AppTimeoutLifetime;
        let set = expires.map(|expires| yarn::ApplicationUpdateTimeoutMap {
            application_timeout_type: Some(lifetime.into()),
            expire_time: Some(iso_time::format(expires)),
        });
        Ok(yarn::UpdateApplicationTimeoutsResponse {
            application_timeouts: set.into_iter().collect(),
        })
    }

    pub(super) async fn signal_container(
        &self,
        client: &Client,
        request: yarn::SignalContainerRequest,
    ) -> Result<yarn::SignalContainerResponse, RpcException> {
        let signal = match request.command() {
            yarn::SignalContainerCommand::OutputThreadDump => ContainerSignal::ThreadDump,
            yarn::SignalContainerCommand::GracefulShutdown => ContainerSignal::Graceful,
            yarn::SignalContainerCommand::ForcefulShutdown => ContainerSignal::Forceful,
        };
        let container: ContainerId = (&request.container_id).try_into().map_err(malformed)?;
        let application = container.application().into();
        self.application(client, Some(&application), Operation::SignalContainer)
            .await?;
        let signaled = self
            .driver()
            .signal(&client.principal, container, signal)
            .await;
        signaled.map_err(|e| failed(&e))?;
        Ok(yarn::SignalContainerResponse {})
    }
}

/// A client's words without what the core would refuse: it is a kill, which must not fail for that.
fn printable(words: &str) -> String {
    let spaced = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut printable: String = spaced.collect();
    let longest = bobbin_rm_core::limits::TEXT_BYTES_MAX;
    printable.truncate(printable.floor_char_boundary(longest));
    printable.trim().to_owned()
}
