//! ContainerManagementProtocol: YARN's masters start, watch, signal, resize and end their containers.
//!
//! A caller is its NM token and nothing else. Which containers it may touch, the core says of every
//! call; a start also needs its container token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::proto::common::Token;
use bobbin_hadoop::proto::yarn;
use bobbin_hadoop::protocol::{ContainerMethod, Protocol};
use bobbin_hadoop::server::{
    AuditedCall, Authenticator, Caller, Ended, Limits, Outcome, Peer, Service, Sparing, TokenProof,
    serve as serve_port,
};
use bobbin_hadoop::tokens::MasterKeys;
use bobbin_hadoop::wire::decode;
use bobbin_na_core::{CallRequest, ContainerReport, ContainerSignal, Origin};
use bobbin_types::{ContainerId, ContainerState};
use bytes::Bytes;
use futures::future::join_all;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::answers::{Outcomes, exception, failed, status};
use super::contract::{auxiliary_service, no_such_service};
use super::extra::{Progress, add, fetch_claims};
use super::launch_context::{launch_context, local_resources};
use super::tokens::{self, BadToken, Grant, Master};
use crate::driver::{Input, Wanted};
use crate::launch::{Order, problem, resource_problem};
use crate::node::Node;
use crate::question::ask;

/// Containers in one call: a master starts one, or a few, at a time.
const CONTAINERS_PER_CALL_MAX: usize = 1_000;
/// Refused calls that the audit log tells.
const REFUSALS_PER_SECOND_MAX: u32 = 10;

/// Serves until `stop`; done when the last connection is closed.
pub(crate) async fn serve(
    listener: TcpListener,
    node: Arc<Node>,
    driver: mpsc::Sender<Input>,
    stop: CancellationToken,
) {
    let limits = Limits {
        // Settings that were loaded have one.
        protection: node.config.protection().unwrap_or_default(),
        ..Limits::default()
    };
    let doorman = Doorman { node: node.clone() };
    let service = Arc::new(ContainerService {
        node,
        driver,
        refusals: Seldom::new(),
    });
    let observer = Sparing::new(|peer, reason: &Ended, untold| {
        tracing::info!(door = "yarn", %peer, untold, "a connection was ended: {reason}");
    });
    let stopped = stop.cancelled_owned();
    serve_port(listener, doorman, service, observer, limits, stopped).await;
}

fn no_key() -> RpcException {
    let words = "this node has not registered with its resource manager yet: it has no key to check \
                 tokens with";
    RpcException::new(ExceptionClass::NmNotYetReady, words)
}

/// Proves masters by their NM tokens, and nobody by anything else.
struct Doorman {
    node: Arc<Node>,
}

impl Authenticator for Doorman {
    type Principal = Master;

    async fn simple(&self, peer: &Peer) -> Result<Master, RpcException> {
        // Asked of every client, to know what to offer: those with a token go on.
        tracing::debug!(remote = %peer.remote, "a connection without a token yet");
        let words = "SIMPLE authentication is not enabled.  Available:[TOKEN]. Only an application \
                     master may call a node, and is proven by its NM token alone, which comes with \
                     its first container on the node";
        Err(RpcException::new(ExceptionClass::AccessControl, words))
    }

    async fn token(
        &self,
        _: &Peer,
        identifier: &Bytes,
    ) -> Result<TokenProof<Master>, RpcException> {
        let proven = self
            .node
            .keys
            .hadoop()
            .ok_or_else(no_key)
            .and_then(|keys| tokens::master(&keys, &self.node.node_id, identifier));
        // A refusal is told with the end of its connection.
        proven.map(|(principal, password)| TokenProof {
            password,
            principal,
        })
    }
}

struct ContainerService {
    node: Arc<Node>,
    driver: mpsc::Sender<Input>,
    refusals: Seldom,
}

/// Keeps the audit log readable, and its disk free, under a flood of refused calls.
#[derive(Debug)]
struct Seldom(Mutex<(Instant, u32)>);

impl Seldom {
    fn new() -> Seldom {
        Seldom(Mutex::new((Instant::now(), 0)))
    }

    /// Whether one more may be told.
    fn may(&self, now: Instant) -> bool {
        // Whatever a panic leaves here is a time and a count.
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.0) >= Duration::from_secs(1) {
            *window = (now, 0);
        }
        window.1 = window.1.saturating_add(1);
        window.1 <= REFUSALS_PER_SECOND_MAX
    }
}

impl Service<Master> for ContainerService {
    async fn call(
        &self,
        caller: &Caller<Master>,
        protocol: &str,
        method: &str,
        request: Bytes,
    ) -> Result<Bytes, RpcException> {
        if protocol != Protocol::ContainerManagement.name() {
            let instead = "a node's port speaks ContainerManagementProtocol; masters register and \
                           ask at the resource manager's scheduler address";
            return Err(RpcException::not_offered(protocol, instead));
        }
        let Some(method) = ContainerMethod::from_name(method) else {
            let instead = "ContainerManagementProtocol has no such method";
            return Err(RpcException::not_offered(method, instead));
        };
        self.dispatch(caller.principal, method, request).await
    }

    fn audit(&self, caller: &Caller<Master>, call: &AuditedCall<'_>, outcome: Outcome<'_>) {
        let (principal, operation) = (caller.principal.attempt, call.method);
        match outcome {
            Outcome::Refused(e) if self.refusals.may(Instant::now()) => {
                tracing::warn!(target: "audit", %principal, operation, result = "refused", reason = e.message);
            }
            Outcome::Refused(_) | Outcome::Answered | Outcome::Abandoned => {
                tracing::debug!(target: "audit", %principal, operation, ?outcome);
            }
        }
    }
}

fn read<M: Message + Default>(method: ContainerMethod, request: Bytes) -> Result<M, RpcException> {
    decode(request).map_err(|e| RpcException::malformed(method.name(), &e))
}

fn bytes(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn check_count(count: usize) -> Result<(), RpcException> {
    if count <= CONTAINERS_PER_CALL_MAX {
        return Ok(());
    }
    Err(RpcException::new(
        ExceptionClass::Yarn,
        format!("{count} containers in one call, at most {CONTAINERS_PER_CALL_MAX} are taken"),
    ))
}

fn container_id(wire: Option<&yarn::ContainerId>) -> Result<ContainerId, RpcException> {
    bobbin_hadoop::convert::required("container_id", wire)
        .and_then(ContainerId::try_from)
        .map_err(|e| RpcException::new(ExceptionClass::IllegalArgument, e.to_string()))
}

impl ContainerService {
    async fn dispatch(
        &self,
        master: Master,
        method: ContainerMethod,
        request: Bytes,
    ) -> Result<Bytes, RpcException> {
        match method {
            ContainerMethod::StartContainers => {
                let request = read(method, request)?;
                Ok(bytes(&self.start(master, request).await?))
            }
            ContainerMethod::StopContainers => {
                let request = read(method, request)?;
                Ok(bytes(&self.stop(master, request).await?))
            }
            ContainerMethod::GetContainerStatuses => {
                let request = read(method, request)?;
                Ok(bytes(&self.statuses(master, request).await?))
            }
            ContainerMethod::IncreaseContainersResource => {
                let request: yarn::IncreaseContainersResourceRequest = read(method, request)?;
                let outcomes = self.update(master, request.increase_containers).await?;
                Ok(bytes(&yarn::IncreaseContainersResourceResponse {
                    succeeded_requests: outcomes.succeeded,
                    failed_requests: outcomes.failed,
                }))
            }
            ContainerMethod::UpdateContainer => {
                let request: yarn::ContainerUpdateRequest = read(method, request)?;
                let outcomes = self.update(master, request.update_container_token).await?;
                Ok(bytes(&yarn::ContainerUpdateResponse {
                    succeeded_requests: outcomes.succeeded,
                    failed_requests: outcomes.failed,
                }))
            }
            ContainerMethod::SignalToContainer => {
                let request: yarn::SignalContainerRequest = read(method, request)?;
                self.signal(master, &request).await?;
                Ok(bytes(&yarn::SignalContainerResponse {}))
            }
            ContainerMethod::Localize => {
                let request = read(method, request)?;
                self.localize(master, request).await?;
                Ok(bytes(&yarn::ResourceLocalizationResponse {}))
            }
            ContainerMethod::GetLocalizationStatuses => {
                let request = read(method, request)?;
                Ok(bytes(&self.localizations(master, request).await?))
            }
            ContainerMethod::ReInitializeContainer
            | ContainerMethod::RestartContainer
            | ContainerMethod::RollbackLastReInitialization
            | ContainerMethod::CommitLastReInitialization => Err(RpcException::not_offered(
                method.name(),
                "a container runs one program once; ask for another container",
            )),
        }
    }

    async fn called(
        &self,
        master: Master,
        wanted: Wanted,
    ) -> Result<Box<ContainerReport>, RpcException> {
        let (reply, answer) = oneshot::channel();
        let input = Input::Called {
            attempt: master.attempt,
            wanted,
            reply,
        };
        let stops = || RpcException::new(ExceptionClass::Yarn, "the node agent stops");
        self.driver.send(input).await.map_err(|_| stops())?;
        let result = answer.await.map_err(|_| stops())?;
        result.map_err(|e| exception(&e))
    }

    async fn ask_of(
        &self,
        master: Master,
        request: CallRequest,
    ) -> Result<Box<ContainerReport>, RpcException> {
        self.called(master, Wanted::Other(request)).await
    }

    fn keys(&self) -> Result<Arc<MasterKeys>, RpcException> {
        self.node.keys.hadoop().ok_or_else(no_key)
    }

    async fn start(
        &self,
        master: Master,
        request: yarn::StartContainersRequest,
    ) -> Result<yarn::StartContainersResponse, RpcException> {
        check_count(request.start_container_request.len())?;
        let keys = self.keys()?;
        let starts = request
            .start_container_request
            .into_iter()
            .map(|start| self.start_one(master, &keys, start));
        let mut response = yarn::StartContainersResponse::default();
        for result in join_all(starts).await {
            match result {
                Ok(id) => response.succeeded_requests.push(id.into()),
                Err(bad) => {
                    let container = bad.container.map(Into::into);
                    response
                        .failed_requests
                        .push(failed(container, bad.exception));
                }
            }
        }
        Ok(response)
    }

    async fn start_one(
        &self,
        master: Master,
        keys: &MasterKeys,
        start: yarn::StartContainerRequest,
    ) -> Result<ContainerId, Box<BadToken>> {
        let token = start.container_token.as_ref();
        let Grant { claims, version: _ } = tokens::container(keys, &self.node.node_id, token)?;
        let id = claims.container;
        let failed = |exception| {
            Box::new(BadToken {
                container: Some(id),
                exception,
            })
        };
        let wire = start.container_launch_context.unwrap_or_default();
        let launch = launch_context(wire).map_err(failed)?;
        if let Some(name) = auxiliary_service(&launch) {
            let words = no_such_service(name);
            let exception = RpcException::new(ExceptionClass::InvalidAuxService, words);
            return Err(failed(exception));
        }
        let account = self.node.accounts.resolve(&claims.user, &self.node.config);
        // A user that this node has not is refused in words when its folders are made.
        let container_token = account.map_or_else(
            |_| "".into(),
            |account| {
                let mut token = fetch_claims(&self.node, id, &account);
                token.resource = Some(claims.resource.into());
                self.node.keys.container_token(&token)
            },
        );
        let wanted = Wanted::Start {
            claims,
            problem: problem(&launch),
            order: Box::new(Order {
                launch,
                origin: Origin::Master,
                container_token,
            }),
        };
        self.called(master, wanted).await.map_err(failed)?;
        Ok(id)
    }

    async fn stop(
        &self,
        master: Master,
        request: yarn::StopContainersRequest,
    ) -> Result<yarn::StopContainersResponse, RpcException> {
        check_count(request.container_id.len())?;
        let mut outcomes = Outcomes::default();
        for wire in request.container_id {
            let id = container_id(Some(&wire))?;
            outcomes.add(id, self.ask_of(master, CallRequest::Stop(id)).await);
        }
        Ok(yarn::StopContainersResponse {
            succeeded_requests: outcomes.succeeded,
            failed_requests: outcomes.failed,
        })
    }

    async fn statuses(
        &self,
        master: Master,
        request: yarn::GetContainerStatusesRequest,
    ) -> Result<yarn::GetContainerStatusesResponse, RpcException> {
        check_count(request.container_id.len())?;
        let mut response = yarn::GetContainerStatusesResponse::default();
        for wire in request.container_id {
            let id = container_id(Some(&wire))?;
            match self.ask_of(master, CallRequest::Status(id)).await {
                Ok(report) => response.status.push(status(&report)),
                Err(e) => response.failed_requests.push(failed(Some(wire), e)),
            }
        }
        Ok(response)
    }

    async fn update(&self, master: Master, all: Vec<Token>) -> Result<Outcomes, RpcException> {
        check_count(all.len())?;
        let keys = self.keys()?;
        let mut outcomes = Outcomes::default();
        for token in all {
            match tokens::container(&keys, &self.node.node_id, Some(&token)) {
                Ok(Grant { claims, version }) => {
                    let id = claims.container;
                    let request = CallRequest::Update { claims, version };
                    outcomes.add(id, self.ask_of(master, request).await);
                }
                Err(bad) => {
                    let container = bad.container.map(Into::into);
                    outcomes.failed.push(failed(container, bad.exception));
                }
            }
        }
        Ok(outcomes)
    }

    async fn signal(
        &self,
        master: Master,
        request: &yarn::SignalContainerRequest,
    ) -> Result<(), RpcException> {
        let container = container_id(Some(&request.container_id))?;
        let signal = match request.command() {
            yarn::SignalContainerCommand::OutputThreadDump => ContainerSignal::ThreadDump,
            yarn::SignalContainerCommand::GracefulShutdown => ContainerSignal::Graceful,
            yarn::SignalContainerCommand::ForcefulShutdown => ContainerSignal::Forceful,
        };
        let request = CallRequest::Signal { container, signal };
        self.ask_of(master, request).await.map(drop)
    }

    async fn localize(
        &self,
        master: Master,
        request: yarn::ResourceLocalizationRequest,
    ) -> Result<(), RpcException> {
        let refused = |words: String| RpcException::new(ExceptionClass::Yarn, words);
        let id = container_id(request.container_id.as_ref())?;
        let report = self.ask_of(master, CallRequest::Status(id)).await?;
        if report.state != ContainerState::Running {
            return Err(refused(format!(
                "{id} is not running: files can be added to a running container only"
            )));
        }
        let resources = local_resources(request.local_resources)?;
        if let Some(words) = resource_problem(&resources) {
            return Err(refused(words));
        }
        let user = ask(&self.driver, move |core| {
            core.container(&id).map(|c| c.user)
        })
        .await;
        let Some(Some(user)) = user else {
            return Err(refused(format!("{id} has just ended")));
        };
        add(&self.node, id, &user, resources).map_err(refused)
    }

    async fn localizations(
        &self,
        master: Master,
        request: yarn::GetLocalizationStatusesRequest,
    ) -> Result<yarn::GetLocalizationStatusesResponse, RpcException> {
        check_count(request.container_id.len())?;
        let mut response = yarn::GetLocalizationStatusesResponse::default();
        for wire in request.container_id {
            let id = container_id(Some(&wire))?;
            match self.ask_of(master, CallRequest::Status(id)).await {
                Ok(_) => {
                    let all = self.node.extras.of(&id);
                    let statuses = yarn::ContainerLocalizationStatuses {
                        container_id: Some(wire),
                        localization_statuses: all.into_iter().map(localization).collect(),
                    };
                    response.cntn_localization_statuses.push(statuses);
                }
                Err(e) => response.failed_requests.push(failed(Some(wire), e)),
            }
        }
        Ok(response)
    }
}

fn localization((name, progress): (String, Progress)) -> yarn::LocalizationStatus {
    let (state, diagnostics) = match progress {
        Progress::Pending => (yarn::LocalizationState::LPending, String::new()),
        Progress::Completed => (yarn::LocalizationState::LCompleted, String::new()),
        Progress::Failed(words) => (yarn::LocalizationState::LFailed, words),
    };
    yarn::LocalizationStatus {
        resource_key: Some(name),
        localization_state: Some(state.into()),
        diagnostics: Some(diagnostics),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_method() {
        let page = include_str!("../../../docs/reference/yarn-containers.md");
        for method in ContainerMethod::ALL {
            let name = format!("`{}`", method.name());
            assert!(
                page.contains(&name),
                "docs/reference/yarn-containers.md lacks {name}"
            );
        }
    }

    #[test]
    fn a_flood_of_refusals_is_told_in_few_lines() {
        let seldom = Seldom::new();
        let now = Instant::now();
        let told = |at| (0..1_000).filter(|_| seldom.may(at)).count();
        assert_eq!(told(now), 10);
        assert_eq!(told(now + Duration::from_secs(1)), 10);
    }
}
