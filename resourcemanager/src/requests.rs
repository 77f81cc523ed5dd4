//! What every door asks of the core, once: the event, and the reply that belongs to it.
//!
//! Doors read their wire's request, call one of these, and write the answer; the core alone decides.

use bobbin_rm_core::{ContainerSignal, Event, Principal, Reply, RequestId, SessionId, Submission};
use bobbin_types::{ApplicationId, AttemptId, ContainerId, Resource, UserName, WallMillis};

use crate::driver::{DriverHandle, Failure};

/// An id that was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewApplication {
    pub(crate) application: ApplicationId,
    /// Zero while no node has registered.
    pub(crate) largest_container: Resource,
    pub(crate) user: UserName,
}

/// The driver answered with another kind of reply: its bug, not the caller's.
fn unexpected(reply: &Reply) -> Failure {
    tracing::error!(?reply, "unexpected reply");
    Failure::Unexpected
}

impl DriverHandle {
    pub(crate) async fn new_application(
        &self,
        principal: &Principal,
    ) -> Result<NewApplication, Failure> {
        let principal = principal.clone();
        let reply = self
            .request(|request| Event::NewApplication { request, principal })
            .await?;
        let Reply::NewApplication {
            application,
            largest_container,
            user,
        } = reply
        else {
            return Err(unexpected(&reply));
        };
        Ok(NewApplication {
            application,
            largest_container,
            user,
        })
    }

    /// The application, and the attempt that an unmanaged one's submitter is. Durable then.
    pub(crate) async fn submit(
        &self,
        principal: &Principal,
        submission: Submission,
    ) -> Result<(ApplicationId, Option<AttemptId>), Failure> {
        let (principal, submission) = (principal.clone(), Box::new(submission));
        let reply = self
            .request(|request| Event::Submit {
                request,
                principal,
                submission,
            })
            .await?;
        let Reply::Submitted {
            application,
            attempt,
        } = reply
        else {
            return Err(unexpected(&reply));
        };
        Ok((application, attempt))
    }

    /// Whether it had ended already. With `wait` answered when every container of it is gone; whoever
    /// goes away before says so by `Event::RequestAbandoned` with `number`.
    pub(crate) async fn kill(
        &self,
        number: RequestId,
        principal: &Principal,
        application: ApplicationId,
        wait: bool,
        reason: String,
    ) -> Result<bool, Failure> {
        let principal = principal.clone();
        let reply = self
            .request_numbered(number, |request| Event::Kill {
                request,
                principal,
                application,
                wait,
                reason,
            })
            .await?;
        let Reply::Killed { already_ended, .. } = reply else {
            return Err(unexpected(&reply));
        };
        Ok(already_ended)
    }

    /// How long the lease then lasts, milliseconds.
    pub(crate) async fn hold_lease(
        &self,
        principal: &Principal,
        application: ApplicationId,
        session: SessionId,
    ) -> Result<u64, Failure> {
        let principal = principal.clone();
        let reply = self
            .request(|request| Event::LeaseHeld {
                request,
                principal,
                application,
                session,
            })
            .await?;
        let Reply::LeaseHeld { lease_ms } = reply else {
            return Err(unexpected(&reply));
        };
        Ok(lease_ms)
    }

    /// The priority as it is now.
    pub(crate) async fn set_priority(
        &self,
        principal: &Principal,
        application: ApplicationId,
        priority: i32,
    ) -> Result<i32, Failure> {
        let principal = principal.clone();
        let reply = self
            .request(|request| Event::SetPriority {
                request,
                principal,
                application,
                priority,
            })
            .await?;
        let Reply::PrioritySet { priority, .. } = reply else {
            return Err(unexpected(&reply));
        };
        Ok(priority)
    }

    /// The queue that it is in now.
    pub(crate) async fn move_to_queue(
        &self,
        principal: &Principal,
        application: ApplicationId,
        queue: String,
    ) -> Result<String, Failure> {
        let principal = principal.clone();
        let reply = self
            .request(|request| Event::MoveToQueue {
                request,
                principal,
                application,
                queue,
            })
            .await?;
        let Reply::Moved { queue, .. } = reply else {
            return Err(unexpected(&reply));
        };
        Ok(queue)
    }

    /// When it is ended now; `None`: never.
    pub(crate) async fn set_timeout(
        &self,
        principal: &Principal,
        application: ApplicationId,
        expires: Option<WallMillis>,
    ) -> Result<Option<WallMillis>, Failure> {
        let principal = principal.clone();
        let reply = self
            .request(|request| Event::SetTimeout {
                request,
                principal,
                application,
                expires,
            })
            .await?;
        let Reply::TimeoutSet { expires, .. } = reply else {
            return Err(unexpected(&reply));
        };
        Ok(expires)
    }

    pub(crate) async fn fail_attempt(
        &self,
        principal: &Principal,
        attempt: AttemptId,
    ) -> Result<(), Failure> {
        let principal = principal.clone();
        let reply = self
            .request(|request| Event::FailAttempt {
                request,
                principal,
                attempt,
            })
            .await?;
        let Reply::AttemptFailing { .. } = reply else {
            return Err(unexpected(&reply));
        };
        Ok(())
    }

    pub(crate) async fn signal(
        &self,
        principal: &Principal,
        container: ContainerId,
        signal: ContainerSignal,
    ) -> Result<(), Failure> {
        let principal = principal.clone();
        let reply = self
            .request(|request| Event::SignalContainer {
                request,
                principal,
                container,
                signal,
            })
            .await?;
        let Reply::Signaled { .. } = reply else {
            return Err(unexpected(&reply));
        };
        Ok(())
    }
}
