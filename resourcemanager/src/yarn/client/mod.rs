//! ApplicationClientProtocol: what submitters and the `yarn` command line ask, on port 8032.
//!
//! Every method asks the one authority function, then translates to the same events and reports as
//! `bobbin.v1.Client`; nothing is decided here. What Bobbin does not offer answers at once, in words.
//! Source: `ClientRMService` of Hadoop.

mod applications;
mod changes;
mod cluster;
pub(crate) mod submit;
pub(crate) mod tokens;

use std::future::Future;
use std::sync::Arc;

use bobbin_hadoop::connection::Proof;
use bobbin_hadoop::convert::required;
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::proto::yarn;
use bobbin_hadoop::protocol::{ClientMethod, Protocol};
use bobbin_hadoop::server::{AuditedCall, Caller, Outcome, Service};
use bobbin_hadoop::wire;
use bobbin_rm_core::view::ApplicationReport;
use bobbin_rm_core::{Acls, Object, Operation, Refusal, ResourceManager};
use bobbin_service::wall_now;
use bobbin_types::ApplicationId;
use bytes::Bytes;
use prost::Message;

use super::YarnDoors;
use super::caller::Client;
use super::exceptions::{denied, failed, malformed, refused};
use super::report::Links;
use crate::driver::DriverHandle;
use crate::grpc::identify::decide;

/// The service; clones share everything.
#[derive(Clone)]
pub(crate) struct ClientService {
    doors: YarnDoors,
    links: Arc<Links>,
}

impl ClientService {
    pub(crate) fn new(doors: YarnDoors) -> ClientService {
        let links = Arc::new(Links::of(doors.addresses.http));
        ClientService { doors, links }
    }

    /// Reads the core.
    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&ResourceManager) -> T + Send + 'static,
    ) -> Result<T, RpcException> {
        self.doors
            .driver
            .read(question)
            .await
            .map_err(|e| failed(&e))
    }

    fn driver(&self) -> &DriverHandle {
        &self.doors.driver
    }

    /// The application that a request names, if the caller may do this to it.
    async fn application(
        &self,
        client: &Client,
        id: Option<&yarn::ApplicationId>,
        operation: Operation,
    ) -> Result<ApplicationReport, RpcException> {
        let report = self.known(application_id(id)?).await?;
        authorize(client, operation, &report)?;
        Ok(report)
    }

    async fn known(&self, id: ApplicationId) -> Result<ApplicationReport, RpcException> {
        self.read(move |core| core.application(id))
            .await?
            .ok_or_else(|| refused(&Refusal::UnknownApplication(id.to_string())))
    }

    /// Runs one method: decodes its request, encodes its answer.
    async fn run<Q, A, F>(
        &self,
        method: ClientMethod,
        request: Bytes,
        handler: impl FnOnce(Q) -> F,
    ) -> Result<Bytes, RpcException>
    where
        Q: Message + Default,
        A: Message,
        F: Future<Output = Result<A, RpcException>>,
    {
        let request =
            wire::decode(request).map_err(|e| RpcException::malformed(method.name(), &e))?;
        // The answer of a method may be long; its future need not be on every call's stack.
        let answer = Box::pin(handler(request)).await?;
        Ok(answer.encode_to_vec().into())
    }

    async fn dispatch(
        &self,
        client: &Client,
        method: ClientMethod,
        request: Bytes,
    ) -> Result<Bytes, RpcException> {
        use ClientMethod as M;
        macro_rules! answer {
            ($handler:ident) => {
                self.run(method, request, |q| self.$handler(client, q))
                    .await
            };
        }
        if !of_one_application(method)
            && let Some(life) = client.expired(wall_now())
        {
            return Err(life.over());
        }
        match method {
            M::GetNewApplication => answer!(get_new_application),
            M::SubmitApplication => answer!(submit_application),
            M::ForceKillApplication => answer!(force_kill),
            M::FailApplicationAttempt => answer!(fail_attempt),
            M::MoveApplicationAcrossQueues => answer!(move_application),
            M::UpdateApplicationPriority => answer!(update_priority),
            M::UpdateApplicationTimeouts => answer!(update_timeouts),
            M::SignalToContainer => answer!(signal_container),
            M::GetApplicationReport => answer!(get_application_report),
            M::GetApplications => answer!(get_applications),
            M::GetApplicationAttemptReport => answer!(get_attempt),
            M::GetApplicationAttempts => answer!(get_attempts),
            M::GetContainerReport => answer!(get_container),
            M::GetContainers => answer!(get_containers),
            M::GetClusterMetrics => answer!(get_cluster_metrics),
            M::GetClusterNodes => answer!(get_cluster_nodes),
            M::GetQueueInfo => answer!(get_queue_info),
            M::GetQueueUserAcls => answer!(get_queue_acls),
            M::GetNodeToLabels => answer!(get_node_to_labels),
            M::GetLabelsToNodes => answer!(get_labels_to_nodes),
            M::GetClusterNodeLabels => answer!(get_labels),
            M::GetResourceTypeInfo => answer!(get_resource_types),
            M::GetClusterNodeAttributes => answer!(get_attributes),
            M::GetAttributesToNodes => answer!(get_attributes_to_nodes),
            M::GetNodesToAttributes => answer!(get_nodes_to_attributes),
            M::GetDelegationToken => answer!(get_delegation_token),
            M::RenewDelegationToken => answer!(renew_delegation_token),
            M::CancelDelegationToken => answer!(cancel_delegation_token),
            M::GetNewReservation
            | M::SubmitReservation
            | M::UpdateReservation
            | M::DeleteReservation
            | M::ListReservations => {
                let instead = "it has no reservations; submit to a queue";
                Err(RpcException::not_offered(method.name(), instead))
            }
            M::GetResourceProfiles | M::GetResourceProfile => {
                let instead = "it has no resource profiles; ask for memory and vcores";
                Err(RpcException::not_offered(method.name(), instead))
            }
        }
    }
}

/// The methods for which an expired token may still be good: each asks [`authorize`].
fn of_one_application(method: ClientMethod) -> bool {
    matches!(
        method,
        ClientMethod::GetApplicationReport
            | ClientMethod::ForceKillApplication
            | ClientMethod::GetApplicationAttemptReport
            | ClientMethod::GetApplicationAttempts
            | ClientMethod::GetContainerReport
            | ClientMethod::GetContainers
    )
}

/// Whether the caller may do this to the application.
///
/// An expired token stays good for what its owner submitted while it was valid: a driver that polls
/// its application must not lose it because its token ends.
fn authorize(
    client: &Client,
    operation: Operation,
    report: &ApplicationReport,
) -> Result<(), RpcException> {
    if let Some(life) = client.expired(wall_now()) {
        let submitted_with_it = client.user() == Some(&report.user)
            && (life.issued..life.expires).contains(&report.submitted);
        if !submitted_with_it {
            return Err(life.over());
        }
    }
    let object = Object::Application {
        id: report.id,
        owner: &report.user,
        acls: Acls {
            view: &report.view_acl,
            modify: &report.modify_acl,
        },
    };
    decide(&client.principal, operation, &object).map_err(denied)
}

fn application_id(id: Option<&yarn::ApplicationId>) -> Result<ApplicationId, RpcException> {
    let id = required("application_id", id).map_err(malformed)?;
    id.try_into().map_err(malformed)
}

/// Refuses calls of another port's protocol, by a class that no client retries.
pub(in crate::yarn) fn check_protocol(spoken: Protocol, asked: &str) -> Result<(), RpcException> {
    if Protocol::from_name(asked) == Some(spoken) {
        return Ok(());
    }
    let shown: String = asked.chars().filter(|c| !c.is_control()).take(80).collect();
    let words = format!("This port speaks {}, not '{shown}'", spoken.name());
    Err(RpcException::new(ExceptionClass::Yarn, words))
}

/// Refuses a caller whose token was canceled, also on a connection that it opened before.
pub(in crate::yarn) fn check_canceled(
    doors: &YarnDoors,
    caller: &Caller<Client>,
) -> Result<(), RpcException> {
    match &caller.proof {
        Proof::Token { identifier } if doors.doorkeeper.revoked().contains(identifier) => {
            let words = "the token was canceled";
            Err(RpcException::new(ExceptionClass::InvalidToken, words))
        }
        Proof::Token { .. } | Proof::Simple => Ok(()),
    }
}

impl Service<Client> for ClientService {
    async fn call(
        &self,
        caller: &Caller<Client>,
        protocol: &str,
        method: &str,
        request: Bytes,
    ) -> Result<Bytes, RpcException> {
        check_protocol(Protocol::ApplicationClient, protocol)?;
        check_canceled(&self.doors, caller)?;
        let known = ClientMethod::from_name(method).ok_or_else(|| {
            RpcException::not_offered(method, "ApplicationClientProtocol has no such method")
        })?;
        self.dispatch(&caller.principal, known, request).await
    }

    fn audit(&self, caller: &Caller<Client>, call: &AuditedCall<'_>, outcome: Outcome<'_>) {
        // What only looks is asked every second by every driver.
        let looks = call.method.starts_with("get") && call.method != "getDelegationToken";
        super::caller::audit(caller, call, outcome, !looks);
    }
}
