//! The agent's own door: masters start and stop their containers, logs are read.
//!
//! Every call shows a token signed with this node's key; what it may do follows from the token alone.
//! Denied calls are audited.

use std::pin::Pin;
use std::sync::Arc;

use bobbin_na_core::{Event, Origin, Starter, StreamId};
use bobbin_proto::v1;
use bobbin_proto::v1::container_manager_server::{ContainerManager, ContainerManagerServer};
use bobbin_proto::v1::logs_server::{Logs, LogsServer};
use bobbin_proto::v1::manage_request::Request as Wanted;
use bobbin_proto::v1::usages_server::{Usages, UsagesServer};
use bobbin_service::{Claims, TokenKind, bearer, wall_now};
use bobbin_types::{ApplicationId, AttemptId, ContainerId, MESSAGE_BYTES_MAX};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::driver::{Input, OUTBOX_MAX};
use crate::launch::{Order, chain, problem};
use crate::logs::ReadRequest;
use crate::node::Node;
use crate::translate;

/// Chunks on their way to a reader of a log.
const CHUNKS_MAX: usize = 4;

#[derive(Clone, Debug)]
pub(crate) struct Door {
    node: Arc<Node>,
    driver: mpsc::Sender<Input>,
}

pub(crate) fn routes(node: Arc<Node>, driver: mpsc::Sender<Input>) -> Routes {
    let door = Door { node, driver };
    let manager = ContainerManagerServer::new(door.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let usages = UsagesServer::new(door.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let logs = LogsServer::new(door).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Routes::new(manager).add_service(logs).add_service(usages)
}

fn audit_denied(operation: &str, object: &str, reason: &str) {
    tracing::warn!(target: "audit", operation, object, result = "denied", reason);
}

/// Whether a token lets its holder read the logs of this container (or, without one, of the
/// whole application).
///
/// The relay's token is as wide as the resource manager made it; a master's is for its own
/// application, a container's for itself.
pub(crate) fn may_read(
    claims: &Claims,
    application: &ApplicationId,
    container: Option<&ContainerId>,
) -> bool {
    let application = application.to_string();
    let container = container.map(ToString::to_string);
    match claims.kind {
        TokenKind::Relay => {
            (claims.application.is_empty() || claims.application == application)
                && (claims.container.is_empty() || container.as_ref() == Some(&claims.container))
        }
        TokenKind::AmNode => claims
            .attempt
            .parse::<AttemptId>()
            .is_ok_and(|attempt| attempt.application.to_string() == application),
        TokenKind::Container => container.as_ref() == Some(&claims.container),
        TokenKind::User | TokenKind::Node | TokenKind::Attempt | TokenKind::Files => false,
    }
}

impl Door {
    fn claims<T>(
        &self,
        operation: &str,
        request: &Request<T>,
        kinds: &[TokenKind],
    ) -> Result<Claims, Status> {
        let deny = |reason: String| {
            audit_denied(operation, "", &reason);
            Status::unauthenticated(reason)
        };
        let token = bearer(request.metadata()).map_err(|e| deny(e.to_string()))?;
        self.node
            .keys
            .verify(&self.node.node_id, token, kinds)
            .map_err(|e| deny(chain(&e)))
    }

    fn authorize_log(
        &self,
        claims: &Claims,
        application: &ApplicationId,
        container: Option<&ContainerId>,
    ) -> Result<(), Status> {
        if may_read(claims, application, container) {
            return Ok(());
        }
        let object = container.map_or_else(|| application.to_string(), ToString::to_string);
        audit_denied("read-log", &object, "the token is for something else");
        Err(Status::permission_denied(format!(
            "the token does not give the logs of {object}"
        )))
    }

    async fn send(&self, input: Input) -> Result<(), Status> {
        self.driver
            .send(input)
            .await
            .map_err(|_| Status::unavailable("the node agent stops"))
    }

    /// Takes a master's requests until its stream ends.
    async fn serve_master(
        self,
        stream: StreamId,
        mut requests: Streaming<v1::ManageRequest>,
        events: mpsc::Sender<Result<v1::ManageEvent, Status>>,
    ) {
        loop {
            let request = tokio::select! {
                request = requests.message() => request,
                // The driver closed it: its attempt has ended, or it has another stream.
                () = events.closed() => break,
            };
            let taken = match request {
                Ok(Some(request)) => self.take(stream, request).await,
                Ok(None) => break,
                Err(e) => {
                    tracing::debug!("a master's stream ended: {e}");
                    break;
                }
            };
            if let Err(status) = taken {
                // A reader that is gone needs no reason.
                let _ = events.send(Err(status)).await;
                break;
            }
        }
        // A driver that is gone forgets its streams anyway.
        let _ = self
            .driver
            .send(Input::Event(Event::MasterLost(stream)))
            .await;
    }

    async fn take(&self, stream: StreamId, request: v1::ManageRequest) -> Result<(), Status> {
        match request.request {
            None => Err(Status::invalid_argument("a request without content")),
            Some(Wanted::Start(start)) => {
                let input = self.translate_start(stream, start)?;
                self.send(input).await
            }
            Some(Wanted::Stop(stop)) => {
                let container = stop
                    .container_id
                    .parse()
                    .map_err(|e: bobbin_types::IdError| Status::invalid_argument(e.to_string()))?;
                let event = Event::StopByMaster {
                    stream,
                    container,
                    wall: wall_now(),
                };
                self.send(Input::Event(event)).await
            }
        }
    }

    fn translate_start(&self, stream: StreamId, start: v1::StartRequest) -> Result<Input, Status> {
        let deny = |reason: String| {
            audit_denied("start", "container", &reason);
            Status::unauthenticated(format!("container token: {reason}"))
        };
        let claims = self
            .node
            .keys
            .verify_ended(
                &self.node.node_id,
                &start.container_token,
                &[TokenKind::Container],
            )
            .map_err(|e| deny(chain(&e)))?;
        let claims = translate::claims(&claims).map_err(|e| deny(chain(&e)))?;
        let launch = start.launch.unwrap_or_default();
        Ok(Input::Start {
            starter: Starter::Master(stream),
            claims,
            problem: problem(&launch),
            order: Box::new(Order {
                launch,
                origin: Origin::Master,
                container_token: start.container_token.into(),
            }),
        })
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::ManageEvent, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<v1::LogChunk, Status>> + Send>>;

#[tonic::async_trait]
impl ContainerManager for Door {
    type ManageStream = Events;

    async fn manage(
        &self,
        request: Request<Streaming<v1::ManageRequest>>,
    ) -> Result<Response<Events>, Status> {
        let claims = self.claims("manage", &request, &[TokenKind::AmNode])?;
        let attempt = claims
            .attempt
            .parse()
            .map_err(|e: bobbin_types::IdError| Status::unauthenticated(e.to_string()))?;
        let (events, receiver) = mpsc::channel(OUTBOX_MAX);
        let (reply, answer) = oneshot::channel();
        let attached = Input::MasterAttached {
            attempt,
            events: events.clone(),
            reply,
        };
        self.send(attached).await?;
        let stream = answer
            .await
            .map_err(|_| Status::unavailable("the node agent stops"))?;
        let requests = request.into_inner();
        // The driver holds one sender, this task the other; the stream ends when both are gone.
        let serving = self.clone().serve_master(stream, requests, events);
        self.node.background.spawn(serving);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl Logs for Door {
    type ReadLogStream = Chunks;

    async fn read_log(
        &self,
        request: Request<v1::ReadLogRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let kinds = [TokenKind::Relay, TokenKind::AmNode, TokenKind::Container];
        let claims = self.claims("read-log", &request, &kinds)?;
        let wanted = request.into_inner();
        let container: ContainerId = wanted
            .container_id
            .parse()
            .map_err(|e: bobbin_types::IdError| Status::invalid_argument(e.to_string()))?;
        self.authorize_log(&claims, &container.application(), Some(&container))?;
        let read = ReadRequest {
            container,
            file: wanted.file,
            offset: wanted.offset,
            tail_lines: wanted.tail_lines,
            follow: wanted.follow,
            since_ms: wanted.since_ms,
        };
        let (out, chunks) = mpsc::channel(CHUNKS_MAX);
        let logs = self.node.logs.clone();
        self.node.background.spawn(async move {
            if let Err(e) = logs.read(read, &out).await {
                // A reader that is gone needs no reason.
                let _ = out.send(Err(e.status())).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(chunks))))
    }

    async fn list_logs(
        &self,
        request: Request<v1::ListLogsRequest>,
    ) -> Result<Response<v1::ListLogsResponse>, Status> {
        let kinds = [TokenKind::Relay, TokenKind::AmNode, TokenKind::Container];
        let claims = self.claims("read-log", &request, &kinds)?;
        let wanted = request.into_inner();
        let bad = |e: bobbin_types::IdError| Status::invalid_argument(e.to_string());
        let container = match wanted.container_id.as_str() {
            "" => None,
            id => Some(id.parse::<ContainerId>().map_err(bad)?),
        };
        let application = match (&container, wanted.application_id.as_str()) {
            (Some(container), "") => container.application(),
            (_, id) => id.parse::<ApplicationId>().map_err(bad)?,
        };
        if container.is_some_and(|c| c.application() != application) {
            return Err(Status::invalid_argument(
                "the container is of another application",
            ));
        }
        self.authorize_log(&claims, &application, container.as_ref())?;
        let logs = self.node.logs.clone();
        let listed =
            tokio::task::spawn_blocking(move || logs.list(&application, container.as_ref()))
                .await
                .map_err(|e| Status::internal(e.to_string()))?
                .map_err(|e| Status::internal(format!("cannot list the logs: {e}")))?;
        Ok(Response::new(v1::ListLogsResponse { logs: listed }))
    }
}

#[tonic::async_trait]
impl Usages for Door {
    async fn list_usages(
        &self,
        request: Request<v1::ListUsagesRequest>,
    ) -> Result<Response<v1::ListUsagesResponse>, Status> {
        let claims = self.claims("list-usages", &request, &[TokenKind::Relay])?;
        let wanted = request.into_inner();
        let application: ApplicationId = wanted
            .application_id
            .parse()
            .map_err(|e: bobbin_types::IdError| Status::invalid_argument(e.to_string()))?;
        if !may_read(&claims, &application, None) {
            audit_denied(
                "list-usages",
                &application.to_string(),
                "the token is for something else",
            );
            return Err(Status::permission_denied(format!(
                "the token does not give what {application} uses"
            )));
        }
        let _turn = self.node.live.turn().await;
        let node = self.node.clone();
        let measured = tokio::task::spawn_blocking(move || {
            node.live.measure(&application, node.cgroups.as_ref())
        });
        let usages = measured
            .await
            .map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(v1::ListUsagesResponse { usages }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bobbin_types::WallMillis;

    #[test]
    fn a_token_gives_only_what_it_says() {
        let container: ContainerId = "container_e01_7_0001_01_000002".parse().unwrap();
        let other: ContainerId = "container_e01_7_0002_01_000001".parse().unwrap();
        let claims = |kind, change: fn(&mut Claims)| {
            let mut claims = Claims::new(kind, WallMillis(1));
            change(&mut claims);
            claims
        };
        let may = |claims: &Claims, id: &ContainerId| {
            (
                may_read(claims, &id.application(), Some(id)),
                may_read(claims, &id.application(), None),
            )
        };
        let any = claims(TokenKind::Relay, |_| {});
        assert_eq!(may(&any, &container), (true, true));
        let of_app = claims(TokenKind::Relay, |c| {
            c.application = "application_7_0001".into()
        });
        assert_eq!(may(&of_app, &container), (true, true));
        assert_eq!(may(&of_app, &other), (false, false));
        let of_one = claims(TokenKind::Container, |c| {
            c.container = "container_e01_7_0001_01_000002".into();
        });
        assert_eq!(may(&of_one, &container), (true, false));
        assert_eq!(may(&of_one, &other), (false, false));
        let master = claims(TokenKind::AmNode, |c| {
            c.attempt = "appattempt_7_0001_000003".into()
        });
        assert_eq!(may(&master, &container), (true, true));
        assert_eq!(may(&master, &other), (false, false));
        for kind in [TokenKind::User, TokenKind::Node, TokenKind::Attempt] {
            assert_eq!(may(&claims(kind, |_| {}), &container), (false, false));
        }
    }
}
