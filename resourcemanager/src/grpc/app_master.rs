//! `bobbin.v1.ApplicationMaster`: one stream an attempt.

use bobbin_proto::FieldError;
use bobbin_proto::v1;
use bobbin_proto::v1::am_message::Message;
use bobbin_proto::v1::application_master_server::ApplicationMaster;
use bobbin_proto::v1::rm_message::Message as Answer;
use bobbin_rm_core::{Event, Grant, MasterMessage, Object, Operation, Principal, SessionId};
use bobbin_types::AttemptId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::identify::authorize;
use super::pages::in_pieces;
use super::status::{failed, malformed};
use super::translate::{
    asks_from_wire, completed_to_wire, finish_from_wire, master_registration_from_wire,
    progress_from_wire, release_from_wire,
};
use super::{Doors, first_message};
use crate::driver::PeerMessage;
use crate::minter::Minter;

/// Messages under way to one master, beside those that wait in the driver's channel.
const MESSAGES_AHEAD: usize = 64;

/// The service.
#[derive(Clone)]
pub(crate) struct MasterService {
    doors: Doors,
}

type Messages = mpsc::Sender<Result<v1::RmMessage, Status>>;

impl MasterService {
    pub(crate) fn new(doors: Doors) -> MasterService {
        MasterService { doors }
    }

    async fn attach_stream(
        &self,
        principal: Principal,
        attempt: AttemptId,
        mut inbound: Streaming<v1::AmMessage>,
        outbound: &Messages,
    ) -> Result<(), Status> {
        let first = first_message(&mut inbound).await?;
        let Some(Message::Register(register)) = first.message else {
            return Err(Status::invalid_argument(
                "the first message of a master registers it",
            ));
        };
        let registration = Box::new(master_registration_from_wire(register).map_err(malformed)?);
        let driver = &self.doors.driver;
        let (session, messages) = driver.open_session().await.map_err(|e| failed(&e))?;
        driver
            .event(Event::MasterAttached {
                session,
                principal,
                attempt,
                registration,
            })
            .await;
        let result = tokio::select! {
            result = self.receive(attempt, session, &mut inbound) => result,
            () = self.send(attempt, messages, outbound) => Ok(()),
            () = self.doors.stop.cancelled() => Err(Status::unavailable("the resource manager is stopping")),
        };
        driver
            .event(Event::MasterStreamLost { attempt, session })
            .await;
        driver.close_session(session).await;
        result
    }

    async fn receive(
        &self,
        attempt: AttemptId,
        session: SessionId,
        inbound: &mut Streaming<v1::AmMessage>,
    ) -> Result<(), Status> {
        while let Some(message) = inbound.message().await? {
            if let Some(event) = event(attempt, session, message).map_err(malformed)? {
                self.doors.driver.event(event).await;
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        attempt: AttemptId,
        mut messages: mpsc::Receiver<PeerMessage>,
        outbound: &Messages,
    ) {
        while let Some(message) = messages.recv().await {
            let PeerMessage::Master(message) = message else {
                continue;
            };
            for message in messages_to_wire(&self.doors.minter, attempt, message) {
                let message = Some(message);
                if outbound.send(Ok(v1::RmMessage { message })).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tonic::async_trait]
impl ApplicationMaster for MasterService {
    type AttachStream = ReceiverStream<Result<v1::RmMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AmMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let principal = self.doors.doorkeeper.principal(&request)?;
        let attempt = match &principal {
            Principal::Attempt(attempt) => *attempt,
            Principal::User { .. }
            | Principal::Node(_)
            | Principal::Container(_)
            | Principal::Tenant(_) => {
                authorize(&principal, Operation::AttachMaster, &Object::Cluster)?;
                return Err(Status::permission_denied(
                    "only an attempt's token registers a master",
                ));
            }
        };
        authorize(
            &principal,
            Operation::AttachMaster,
            &Object::Attempt(attempt),
        )?;
        let inbound = request.into_inner();
        let (messages, outbound) = mpsc::channel(MESSAGES_AHEAD);
        let service = self.clone();
        // Answered before the registration has come: a master may wait for that.
        tokio::spawn(async move {
            let ended = service
                .attach_stream(principal, attempt, inbound, &messages)
                .await;
            if let Err(status) = ended {
                tracing::info!(%attempt, "a master's stream ended: {}", status.message());
                // The master may be gone.
                drop(messages.send(Err(status)).await);
            }
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

fn event(
    attempt: AttemptId,
    session: SessionId,
    message: v1::AmMessage,
) -> Result<Option<Event>, FieldError> {
    Ok(match message.message {
        // From a newer master: what is not understood is not answered.
        None => None,
        Some(Message::Register(_)) => {
            return Err(FieldError {
                field: "register",
                problem: "only the first message of a stream registers".to_owned(),
            });
        }
        Some(Message::Asks(asks)) => Some(Event::MasterAsks {
            attempt,
            session,
            asks: asks_from_wire(asks.asks)?,
        }),
        Some(Message::Release(release)) => {
            let containers = release_from_wire(&release)?;
            Some(Event::MasterReleases {
                attempt,
                session,
                containers,
            })
        }
        Some(Message::Finish(finish)) => Some(Event::MasterFinishes {
            attempt,
            session,
            finish: finish_from_wire(finish)?,
        }),
        Some(Message::Heartbeat(heartbeat)) => {
            let progress_permille = progress_from_wire(&heartbeat);
            Some(Event::MasterHeartbeat {
                attempt,
                session,
                progress_permille,
                tracking_url: None,
            })
        }
    })
}

/// Long lists become several messages: a client takes none above the limit.
fn messages_to_wire(minter: &Minter, attempt: AttemptId, message: MasterMessage) -> Vec<Answer> {
    let answer = match message {
        MasterMessage::Granted(grants) => {
            let grants = grants
                .iter()
                .map(|grant| grant_to_wire(minter, attempt, grant));
            let answer = |grants| Answer::Grants(v1::Grants { grants });
            return in_pieces(grants).into_iter().map(answer).collect();
        }
        MasterMessage::Completed(containers) => {
            let answer = |containers| Answer::Completed(v1::Completed { containers });
            return in_pieces(containers.iter().map(completed_to_wire))
                .into_iter()
                .map(answer)
                .collect();
        }
        MasterMessage::Registered(registered) => Answer::Registered(v1::MasterRegistered {
            application_id: registered.attempt.application.to_string(),
            attempt: registered.attempt.attempt,
            user: registered.user.to_string(),
            largest_container: Some(registered.largest_container.into()),
            heartbeat_interval_ms: registered.heartbeat_interval_ms,
            nodes_running: u32::try_from(registered.nodes_running).unwrap_or(u32::MAX),
        }),
        MasterMessage::Shutdown { reason } => Answer::Shutdown(v1::MasterShutdown { reason }),
        MasterMessage::FinishAcknowledged => Answer::FinishAcknowledged(v1::FinishAcknowledged {}),
        MasterMessage::AskRefused {
            priority,
            request_id,
            reason,
        } => Answer::AskRefused(v1::AskRefused {
            priority,
            request_id,
            reason: reason.to_string(),
        }),
        // This door takes neither blacklists nor updates, and offers no kept containers.
        MasterMessage::BlacklistRefused { .. }
        | MasterMessage::Inherited(_)
        | MasterMessage::Updated(_)
        | MasterMessage::UpdateRefused { .. } => return Vec::new(),
    };
    vec![answer]
}

fn grant_to_wire(minter: &Minter, attempt: AttemptId, grant: &Grant) -> v1::Grant {
    let (node_token, container_token) = minter.grant(attempt, grant);
    v1::Grant {
        container_id: grant.container.to_string(),
        node_id: grant.node.to_string(),
        node_grpc_address: grant.node_grpc_address.clone(),
        resource: Some(grant.resource.into()),
        priority: grant.priority,
        request_id: grant.request_id,
        node_token,
        container_token,
    }
}
