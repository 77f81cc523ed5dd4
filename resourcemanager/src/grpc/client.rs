//! `bobbin.v1.Client`: what people and programs ask of the resource manager.

use bobbin_proto::v1;
use bobbin_proto::v1::client_server::Client;
use bobbin_proto::v1::create_token_request::Subject;
use bobbin_proto::{FieldError, field};
use bobbin_rm_core::view::{ApplicationFilter, ApplicationReport};
use bobbin_rm_core::{Event, Object, Operation, Principal, RequestId};
use bobbin_service::wall_now;
use bobbin_types::{ApplicationId, UserName, WallMillis};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Doors;
use super::identify::authorize;
use super::logs::LogRelay;
use super::pages::{bounded, fitting};
use super::status::{failed, malformed, refused};
use super::translate::{
    application_to_wire, cluster_to_wire, container_to_wire, node_to_wire, submission_from_wire,
};
use crate::driver::DriverHandle;
use crate::file_tree::staging_source;
use crate::requests::NewApplication;
use crate::store::{Query, Resolved, Store};
use crate::yarn::client::tokens::credentials;

/// Answers under way to one slow watcher.
const ANSWERS_AHEAD: usize = 4;
/// Longest text that may name an application, bytes.
const NAME_BYTES_MAX: usize = 255;

/// The service.
#[derive(Clone)]
pub(crate) struct ClientService {
    pub(super) doors: Doors,
    store: Store,
    relay: LogRelay,
}

type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl ClientService {
    pub(crate) fn new(doors: Doors, store: Store) -> ClientService {
        let relay = LogRelay::new(doors.clone());
        ClientService {
            doors,
            store,
            relay,
        }
    }

    /// The application that `text` names for the caller, which must be allowed `operation` on it.
    async fn application<T>(
        &self,
        request: &Request<T>,
        text: &str,
        operation: Operation,
    ) -> Result<(Principal, ApplicationId, UserName), Status> {
        let principal = self.doors.doorkeeper.principal(request)?;
        if text.len() > NAME_BYTES_MAX {
            return Err(malformed(FieldError {
                field: "application_id",
                problem: format!("has {} bytes, at most {NAME_BYTES_MAX}", text.len()),
            }));
        }
        let text = self.looked_up(&principal, text).await;
        let asker = principal.clone();
        let found = self.doors.driver.read(move |core| {
            let id = core.resolve(&asker, &text)?;
            Ok((id, core.rights(id)))
        });
        let (id, rights) = found
            .await
            .map_err(|e| failed(&e))?
            .map_err(|refusal| refused(&refusal))?;
        // Known a moment ago, so its owner is.
        let rights = rights.ok_or_else(|| Status::not_found(format!("{id} was forgotten")))?;
        authorize(&principal, operation, &rights.object())?;
        Ok((principal, id, rights.owner))
    }

    /// Asks the index, so that the core need not look through all its applications. What the index
    /// does not know for certain goes to the core as it was written.
    async fn looked_up(&self, principal: &Principal, text: &str) -> String {
        let query = match (text, principal) {
            ("@last", Principal::User { name, .. }) => Query::Last(name.clone()),
            _ if text.starts_with('@') || text.is_empty() => return text.to_owned(),
            _ if text.parse::<ApplicationId>().is_ok() => return text.to_owned(),
            _ => Query::Suffix(text.to_owned()),
        };
        match self.store.resolve(query).await {
            Ok(Resolved::One(id)) => id.to_string(),
            Ok(Resolved::Nothing | Resolved::Several(..)) | Err(_) => text.to_owned(),
        }
    }

    async fn report(&self, id: ApplicationId) -> Result<ApplicationReport, Status> {
        report(&self.doors.driver, id).await
    }

    fn submitter(&self, principal: &Principal) -> Result<UserName, Status> {
        match principal {
            Principal::User { name, .. } => Ok(name.clone()),
            Principal::Attempt(_)
            | Principal::Node(_)
            | Principal::Container(_)
            | Principal::Tenant(_) => {
                Err(Status::permission_denied("only users submit applications"))
            }
        }
    }
}

pub(super) async fn report(
    driver: &DriverHandle,
    id: ApplicationId,
) -> Result<ApplicationReport, Status> {
    driver
        .read(move |core| core.application(id))
        .await
        .map_err(|e| failed(&e))?
        .ok_or_else(|| Status::not_found(format!("{id} has ended and was forgotten")))
}

/// Tells the core that the caller of a waiting request has gone, however its future ends.
struct AbandonGuard {
    driver: Option<DriverHandle>,
    request: RequestId,
    application: ApplicationId,
}

impl Drop for AbandonGuard {
    fn drop(&mut self) {
        let Some(driver) = self.driver.take() else {
            return;
        };
        let event = Event::RequestAbandoned {
            request: self.request,
            application: self.application,
        };
        tokio::spawn(async move { driver.event(event).await });
    }
}

#[tonic::async_trait]
impl Client for ClientService {
    async fn get_cluster(
        &self,
        request: Request<v1::GetClusterRequest>,
    ) -> Result<Response<v1::GetClusterResponse>, Status> {
        let principal = self.doors.doorkeeper.principal(&request)?;
        authorize(&principal, Operation::ViewCluster, &Object::Cluster)?;
        let cluster = self.doors.driver.read(|core| core.cluster());
        let mut answer = cluster_to_wire(&cluster.await.map_err(|e| failed(&e))?);
        (answer.user, answer.administrator) = match principal {
            Principal::User {
                name,
                administrator,
                ..
            } => (name.to_string(), administrator),
            other @ (Principal::Attempt(_)
            | Principal::Node(_)
            | Principal::Container(_)
            | Principal::Tenant(_)) => (other.to_string(), false),
        };
        answer.hadoop = Some(self.doors.hadoop.clone());
        Ok(Response::new(answer))
    }

    async fn new_application(
        &self,
        request: Request<v1::NewApplicationRequest>,
    ) -> Result<Response<v1::NewApplicationResponse>, Status> {
        let principal = self.doors.doorkeeper.principal(&request)?;
        authorize(&principal, Operation::NewApplication, &Object::Cluster)?;
        let new = self.doors.driver.new_application(&principal).await;
        let NewApplication {
            application,
            largest_container,
            user,
        } = new.map_err(|e| failed(&e))?;
        Ok(Response::new(v1::NewApplicationResponse {
            application_id: application.to_string(),
            largest_container: Some(largest_container.into()),
            staging_dir: staging_source(&user, &application),
        }))
    }

    async fn submit_application(
        &self,
        request: Request<v1::SubmitApplicationRequest>,
    ) -> Result<Response<v1::SubmitApplicationResponse>, Status> {
        let principal = self.doors.doorkeeper.principal(&request)?;
        authorize(&principal, Operation::SubmitApplication, &Object::Cluster)?;
        let user = self.submitter(&principal)?;
        let submission = submission_from_wire(request.into_inner()).map_err(malformed)?;
        let submitted = self.doors.driver.submit(&principal, submission).await;
        let (application, attempt) = submitted.map_err(|e| failed(&e))?;
        Ok(Response::new(v1::SubmitApplicationResponse {
            application_id: application.to_string(),
            attempt_id: attempt.map(|a| a.to_string()).unwrap_or_default(),
            attempt_token: attempt
                .map(|attempt| self.doors.minter.attempt(attempt, &user))
                .unwrap_or_default(),
        }))
    }

    async fn get_application(
        &self,
        request: Request<v1::GetApplicationRequest>,
    ) -> Result<Response<v1::ApplicationReport>, Status> {
        let text = request.get_ref().application_id.clone();
        let (_, id, _) = self
            .application(&request, &text, Operation::ViewApplication)
            .await?;
        let report = application_to_wire(self.report(id).await?);
        Ok(Response::new(bounded(report)))
    }

    async fn list_applications(
        &self,
        request: Request<v1::ListApplicationsRequest>,
    ) -> Result<Response<v1::ListApplicationsResponse>, Status> {
        let principal = self.doors.doorkeeper.principal(&request)?;
        authorize(&principal, Operation::ViewCluster, &Object::Cluster)?;
        let wanted = request.into_inner();
        let states = wanted.states.iter().map(|state| field("states", state));
        let filter = ApplicationFilter {
            states: states.collect::<Result<_, _>>().map_err(malformed)?,
            users: optional("user", &wanted.user)?.into_iter().collect(),
            queues: wanted.queues.into_iter().collect(),
            types: wanted.application_types.into_iter().collect(),
            tags: wanted.tags.into_iter().collect(),
            name: Some(wanted.name).filter(|name| !name.is_empty()),
            final_status: optional("final_status", &wanted.final_status)?,
            ..ApplicationFilter::default()
        };
        let after = optional("page_token", &wanted.page_token)?;
        let size = page_size(wanted.page_size);
        let page = self
            .doors
            .driver
            .read(move |core| core.applications(&principal, &filter, size, after))
            .await
            .map_err(|e| failed(&e))?;
        let mut rows: Vec<_> = page.rows.into_iter().map(application_to_wire).collect();
        let mut next = page.next.map(|id| id.to_string());
        let fitting = fitting(&rows);
        if fitting < rows.len() {
            rows.truncate(fitting);
            next = rows.last().map(|row| row.id.clone());
        }
        Ok(Response::new(v1::ListApplicationsResponse {
            applications: rows,
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Result<Response<v1::ListContainersResponse>, Status> {
        let wanted = request.get_ref().clone();
        let (_, id, owner) = self
            .application(&request, &wanted.application_id, Operation::ViewApplication)
            .await?;
        let after = optional("page_token", &wanted.page_token)?;
        let size = page_size(wanted.page_size);
        let page = self
            .doors
            .driver
            .read(move |core| core.containers(id, size, after))
            .await
            .map_err(|e| failed(&e))?;
        let mut rows: Vec<_> = page.rows.iter().map(container_to_wire).collect();
        let mut next = page.next.map(|id| id.to_string());
        let fitting = fitting(&rows);
        if fitting < rows.len() {
            rows.truncate(fitting);
            next = rows.last().map(|row| row.container_id.clone());
        }
        let (usages, silent_nodes) = if wanted.usage {
            let shown = page.rows.get(..rows.len()).unwrap_or_default();
            self.relay.usages(id, &owner, shown).await
        } else {
            (Vec::new(), Vec::new())
        };
        Ok(Response::new(v1::ListContainersResponse {
            containers: rows,
            next_page_token: next.unwrap_or_default(),
            usages,
            silent_nodes,
        }))
    }

    async fn kill_application(
        &self,
        request: Request<v1::KillApplicationRequest>,
    ) -> Result<Response<v1::KillApplicationResponse>, Status> {
        let v1::KillApplicationRequest {
            application_id,
            wait,
            reason,
        } = request.get_ref().clone();
        let (principal, application, _) = self
            .application(&request, &application_id, Operation::KillApplication)
            .await?;
        let driver = &self.doors.driver;
        let number = driver.request_id();
        let mut guard = AbandonGuard {
            driver: None,
            request: number,
            application,
        };
        if wait {
            guard.driver = Some(driver.clone());
        }
        let killed = driver
            .kill(number, &principal, application, wait, reason)
            .await;
        guard.driver = None;
        let already_ended = killed.map_err(|e| failed(&e))?;
        let application_id = application.to_string();
        Ok(Response::new(v1::KillApplicationResponse {
            application_id,
            already_ended,
        }))
    }

    async fn move_application(
        &self,
        request: Request<v1::MoveApplicationRequest>,
    ) -> Result<Response<v1::MoveApplicationResponse>, Status> {
        let text = request.get_ref().application_id.clone();
        let (principal, application, _) = self
            .application(&request, &text, Operation::MoveApplication)
            .await?;
        let queue = request.into_inner().queue;
        let driver = &self.doors.driver;
        let moved = driver.move_to_queue(&principal, application, queue).await;
        Ok(Response::new(v1::MoveApplicationResponse {
            application_id: application.to_string(),
            queue: moved.map_err(|e| failed(&e))?,
        }))
    }

    async fn set_priority(
        &self,
        request: Request<v1::SetPriorityRequest>,
    ) -> Result<Response<v1::SetPriorityResponse>, Status> {
        let text = request.get_ref().application_id.clone();
        let (principal, application, _) = self
            .application(&request, &text, Operation::SetPriority)
            .await?;
        let wanted = request.into_inner().priority;
        let driver = &self.doors.driver;
        let set = driver.set_priority(&principal, application, wanted).await;
        Ok(Response::new(v1::SetPriorityResponse {
            application_id: application.to_string(),
            priority: set.map_err(|e| failed(&e))?,
        }))
    }

    async fn set_timeout(
        &self,
        request: Request<v1::SetTimeoutRequest>,
    ) -> Result<Response<v1::SetTimeoutResponse>, Status> {
        let text = request.get_ref().application_id.clone();
        let (principal, application, _) = self
            .application(&request, &text, Operation::SetTimeout)
            .await?;
        let span_ms = request.into_inner().timeout_ms;
        let expires = (span_ms > 0).then(|| WallMillis(wall_now().0.saturating_add(span_ms)));
        let driver = &self.doors.driver;
        let set = driver.set_timeout(&principal, application, expires).await;
        let expires = set.map_err(|e| failed(&e))?;
        Ok(Response::new(v1::SetTimeoutResponse {
            application_id: application.to_string(),
            expires_ms: expires.map_or(0, |moment| moment.0),
        }))
    }

    type WatchApplicationStream = Answers<v1::ApplicationReport>;

    async fn watch_application(
        &self,
        request: Request<v1::GetApplicationRequest>,
    ) -> Result<Response<Self::WatchApplicationStream>, Status> {
        let text = request.get_ref().application_id.clone();
        let (_, id, _) = self
            .application(&request, &text, Operation::ViewApplication)
            .await?;
        let driver = self.doors.driver.clone();
        let (answers, stream) = mpsc::channel(ANSWERS_AHEAD);
        tokio::spawn(async move {
            // Before the first report, so that no change falls between.
            let mut changes = driver.watch(id);
            loop {
                changes.mark_unchanged();
                let answer = report(&driver, id).await;
                let last = answer
                    .as_ref()
                    .map_or(true, |report| report.state.is_ended());
                if answers
                    .send(answer.map(|report| bounded(application_to_wire(report))))
                    .await
                    .is_err()
                    || last
                {
                    return;
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = answers.closed() => return,
                }
            }
        });
        let stop = self.doors.stop.clone().cancelled_owned();
        Ok(Response::new(Box::pin(
            ReceiverStream::new(stream).take_until(stop),
        )))
    }

    type HoldLeaseStream = Answers<v1::HoldLeaseResponse>;

    async fn hold_lease(
        &self,
        request: Request<Streaming<v1::HoldLeaseRequest>>,
    ) -> Result<Response<Self::HoldLeaseStream>, Status> {
        let principal = self.doors.doorkeeper.principal(&request)?;
        let mut renewals = request.into_inner();
        let (answers, stream) = mpsc::channel(ANSWERS_AHEAD);
        let service = self.clone();
        // Answered before the first renewal has come: a client may wait for that.
        tokio::spawn(async move {
            if let Err(status) = service.lease(&principal, &mut renewals, &answers).await {
                // The client may be gone.
                drop(answers.send(Err(status)).await);
            }
        });
        let stop = self.doors.stop.clone().cancelled_owned();
        Ok(Response::new(Box::pin(
            ReceiverStream::new(stream).take_until(stop),
        )))
    }

    type ReadLogsStream = Answers<v1::LogChunk>;

    async fn read_logs(
        &self,
        request: Request<v1::ReadLogsRequest>,
    ) -> Result<Response<Self::ReadLogsStream>, Status> {
        let wanted = request.get_ref().clone();
        let (_, id, owner) = self
            .application(&request, &wanted.application_id, Operation::ReadLogs)
            .await?;
        let chunks = self.relay.read(id, owner, wanted).await?;
        let stop = self.doors.stop.clone().cancelled_owned();
        Ok(Response::new(Box::pin(
            ReceiverStream::new(chunks).take_until(stop),
        )))
    }

    async fn list_log_files(
        &self,
        request: Request<v1::ListLogFilesRequest>,
    ) -> Result<Response<v1::ListLogFilesResponse>, Status> {
        let wanted = request.get_ref().clone();
        let (_, id, owner) = self
            .application(&request, &wanted.application_id, Operation::ReadLogs)
            .await?;
        let container = optional("container_id", &wanted.container_id)?;
        let files = self.relay.list(id, &owner, container).await?;
        Ok(Response::new(v1::ListLogFilesResponse { files }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let principal = self.doors.doorkeeper.principal(&request)?;
        authorize(&principal, Operation::ViewNodes, &Object::Cluster)?;
        let nodes = self
            .doors
            .driver
            .read(|core| core.nodes())
            .await
            .map_err(|e| failed(&e))?;
        let nodes = nodes.into_iter().map(node_to_wire).collect();
        Ok(Response::new(v1::ListNodesResponse { nodes }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let principal = self.doors.doorkeeper.principal(&request)?;
        let v1::CreateTokenRequest {
            subject,
            valid_ms,
            hadoop,
        } = request.into_inner();
        let minter = &self.doors.minter;
        let user = match subject {
            Some(Subject::Node(_)) if hadoop => {
                return Err(Status::invalid_argument(
                    "a Hadoop token file is a user's: leave 'node' or 'hadoop' out",
                ));
            }
            Some(Subject::Node(host)) => {
                authorize(&principal, Operation::CreateNodeToken, &Object::Host(&host))?;
                check_host(&host)?;
                let (token, expires) = minter.node(&host, valid_ms);
                return Ok(Response::new(v1::CreateTokenResponse {
                    token,
                    expires_ms: expires.0,
                    hadoop_credentials: Vec::new(),
                }));
            }
            Some(Subject::User(name)) if !name.is_empty() => {
                let named: UserName = field("user", &name).map_err(malformed)?;
                self.doors.doorkeeper.submitter_called(named)
            }
            Some(Subject::User(_)) | None => self.submitter(&principal)?,
        };
        authorize(&principal, Operation::CreateUserToken, &Object::User(&user))?;
        let (token, expires) = minter.user(&user, valid_ms);
        let hadoop_credentials = if hadoop {
            // Who asked for another's token stays known.
            let asked = self.submitter(&principal)?;
            let real_user = if asked == user { "" } else { asked.as_str() };
            let of = (token.as_str(), expires);
            credentials(minter, &self.doors.addresses, &user, real_user, of).to_vec()
        } else {
            Vec::new()
        };
        Ok(Response::new(v1::CreateTokenResponse {
            token,
            expires_ms: expires.0,
            hadoop_credentials,
        }))
    }
}

impl ClientService {
    /// Renews the lease with every message; it is lost when the stream ends, however it does.
    async fn lease(
        &self,
        principal: &Principal,
        renewals: &mut Streaming<v1::HoldLeaseRequest>,
        answers: &mpsc::Sender<Result<v1::HoldLeaseResponse, Status>>,
    ) -> Result<(), Status> {
        let driver = &self.doors.driver;
        let session = driver.silent_session();
        let mut held: Option<ApplicationId> = None;
        let ended = loop {
            let renewal = tokio::select! {
                renewal = renewals.message() => renewal,
                // The client went away, or the resource manager stops.
                () = answers.closed() => break Ok(()),
            };
            let text = match renewal {
                Ok(Some(renewal)) => renewal.application_id,
                Ok(None) => break Ok(()),
                Err(status) => break Err(status),
            };
            let application = match field("application_id", &text) {
                Ok(application) if held.is_none_or(|held| held == application) => application,
                Ok(_) => {
                    break Err(Status::invalid_argument(
                        "a lease stream is for one application",
                    ));
                }
                Err(e) => break Err(malformed(e)),
            };
            match driver.hold_lease(principal, application, session).await {
                Ok(lease_ms) => {
                    held = Some(application);
                    let answer = v1::HoldLeaseResponse { lease_ms };
                    if answers.send(Ok(answer)).await.is_err() {
                        break Ok(());
                    }
                }
                Err(e) => break Err(failed(&e)),
            }
        };
        if let Some(application) = held {
            tracing::info!(target: "audit", %principal, %application, "lease lost");
            driver
                .event(Event::LeaseLost {
                    application,
                    session,
                })
                .await;
        }
        ended
    }
}

fn optional<T>(name: &'static str, text: &str) -> Result<Option<T>, Status>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    if text.is_empty() {
        Ok(None)
    } else {
        field(name, text).map(Some).map_err(malformed)
    }
}

fn page_size(wanted: u32) -> usize {
    usize::try_from(wanted).unwrap_or(usize::MAX)
}

fn check_host(host: &str) -> Result<(), Status> {
    let well = !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if well {
        Ok(())
    } else {
        Err(Status::invalid_argument(
            "node: write the agent's host name, letters, digits, '-', '_' and '.', at most 253",
        ))
    }
}
