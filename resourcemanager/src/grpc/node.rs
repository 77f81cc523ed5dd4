//! `bobbin.v1.Node`: one stream a node agent.

use std::collections::BTreeMap;

use bobbin_proto::v1;
use bobbin_proto::v1::node_command::Command;
use bobbin_proto::v1::node_message::Message;
use bobbin_proto::v1::node_server::Node;
use bobbin_proto::{FieldError, field};
use bobbin_rm_core::{
    Event, LaunchContract, NodeCommand, NodeRegistration, Object, Operation, Principal, SessionId,
    StartContainer,
};
use bobbin_types::{NodeId, Resource};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::identify::authorize;
use super::status::{failed, malformed};
use super::translate::{
    exit_from_wire, heartbeat_from_wire, launch_to_wire, node_registration_from_wire,
    signal_to_wire,
};
use super::{Doors, first_message};
use crate::driver::PeerMessage;
use crate::yarn::master::prepare;

/// Commands under way to one node, beside those that wait in the driver's channel.
const COMMANDS_AHEAD: usize = 64;
/// The secret under which a master finds its attempt's token.
const ATTEMPT_TOKEN: &str = "attempt-token";

/// The service.
#[derive(Clone)]
pub(crate) struct NodeService {
    doors: Doors,
}

type Commands = mpsc::Sender<Result<v1::NodeCommand, Status>>;

impl NodeService {
    pub(crate) fn new(doors: Doors) -> NodeService {
        NodeService { doors }
    }

    async fn attach_stream(
        &self,
        principal: Principal,
        mut inbound: Streaming<v1::NodeMessage>,
        commands: &Commands,
    ) -> Result<(), Status> {
        let first = first_message(&mut inbound).await?;
        let Some(Message::Register(register)) = first.message else {
            return Err(Status::invalid_argument(
                "the first message of a node registers it",
            ));
        };
        let registration = node_registration_from_wire(register).map_err(malformed)?;
        let node = registration.node.clone();
        authorize(&principal, Operation::AttachNode, &Object::Node(&node))?;
        let (session, messages) = self
            .doors
            .driver
            .open_session()
            .await
            .map_err(|e| failed(&e))?;
        let registration: Box<NodeRegistration> = Box::new(registration);
        self.doors
            .driver
            .event(Event::NodeRegistered {
                session,
                principal,
                registration,
            })
            .await;
        let result = tokio::select! {
            result = self.receive(&node, session, &mut inbound) => result,
            () = self.send(&node, messages, commands) => Ok(()),
            () = self.doors.stop.cancelled() => Err(Status::unavailable("the resource manager is stopping")),
        };
        self.doors
            .driver
            .event(Event::NodeStreamLost { node, session })
            .await;
        self.doors.driver.close_session(session).await;
        result
    }

    /// Events of the node until its stream ends.
    async fn receive(
        &self,
        node: &NodeId,
        session: SessionId,
        inbound: &mut Streaming<v1::NodeMessage>,
    ) -> Result<(), Status> {
        while let Some(message) = inbound.message().await? {
            if let Some(event) = event(node, session, message).map_err(malformed)? {
                self.doors.driver.event(event).await;
            }
        }
        Ok(())
    }

    /// Commands to the node until its session is closed or nobody listens.
    async fn send(
        &self,
        node: &NodeId,
        mut messages: mpsc::Receiver<PeerMessage>,
        commands: &Commands,
    ) {
        while let Some(message) = messages.recv().await {
            let PeerMessage::Node(command) = message else {
                continue;
            };
            let command = command_to_wire(&self.doors, node, command);
            if commands
                .send(Ok(v1::NodeCommand {
                    command: Some(command),
                }))
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    type AttachStream = ReceiverStream<Result<v1::NodeCommand, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let principal = self.doors.doorkeeper.principal(&request)?;
        if let Principal::Node(host) = &principal {
            authorize(&principal, Operation::AttachNode, &Object::Host(host))?;
        } else {
            authorize(&principal, Operation::AttachNode, &Object::Cluster)?;
        }
        let inbound = request.into_inner();
        let (commands, outbound) = mpsc::channel(COMMANDS_AHEAD);
        let service = self.clone();
        // Answered before the registration has come: an agent may wait for that.
        tokio::spawn(async move {
            if let Err(status) = service.attach_stream(principal, inbound, &commands).await {
                tracing::info!("a node's stream ended: {}", status.message());
                // The agent may be gone.
                drop(commands.send(Err(status)).await);
            }
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

fn event(
    node: &NodeId,
    session: SessionId,
    message: v1::NodeMessage,
) -> Result<Option<Event>, FieldError> {
    let node = node.clone();
    Ok(match message.message {
        // From a newer agent: what is not understood is not answered.
        None => None,
        Some(Message::Register(_)) => {
            return Err(FieldError {
                field: "register",
                problem: "only the first message of a stream registers".to_owned(),
            });
        }
        Some(Message::Heartbeat(heartbeat)) => {
            let heartbeat = heartbeat_from_wire(heartbeat);
            Some(Event::NodeHeartbeat {
                node,
                session,
                heartbeat,
            })
        }
        Some(Message::ContainerStarted(started)) => {
            let container = field("container_started.container_id", &started.container_id)?;
            let resource = started
                .resource
                .as_ref()
                .map(Resource::try_from)
                .transpose()?;
            Some(Event::ContainerStarted {
                node,
                session,
                container,
                resource,
            })
        }
        Some(Message::ContainerExited(exited)) => {
            let exit = exit_from_wire(exited)?;
            Some(Event::ContainerExited {
                node,
                session,
                exit,
            })
        }
    })
}

fn command_to_wire(doors: &Doors, node: &NodeId, command: NodeCommand) -> Command {
    let minter = &doors.minter;
    match command {
        NodeCommand::Registered {
            heartbeat_interval_ms,
            expiry_ms,
            epoch,
        } => Command::Registered(v1::NodeRegistered {
            node_key: minter.node_key(node),
            heartbeat_interval_ms,
            expiry_ms,
            epoch,
            http_address: doors.addresses.http.to_string(),
        }),
        NodeCommand::Refused { reason } => Command::Refused(v1::NodeRefused {
            reason: reason.to_string(),
        }),
        NodeCommand::StartContainer(start) => {
            Command::StartContainer(start_to_wire(doors, node, &start))
        }
        NodeCommand::StopContainer {
            container,
            exit_status,
            diagnostics,
        } => Command::StopContainer(v1::StopContainer {
            container_id: container.to_string(),
            exit_status: exit_status.0,
            diagnostics,
        }),
        NodeCommand::AcknowledgeExit { container } => {
            Command::AcknowledgeExit(v1::AcknowledgeExit {
                container_id: container.to_string(),
            })
        }
        NodeCommand::ApplicationEnded { application } => {
            Command::ApplicationEnded(v1::ApplicationEnded {
                application_id: application.to_string(),
            })
        }
        NodeCommand::RevokeAttempt {
            attempt,
            keep_containers,
        } => Command::RevokeAttempt(v1::RevokeAttempt {
            attempt_id: attempt.to_string(),
            keep_containers,
        }),
        NodeCommand::SignalContainer { container, signal } => {
            Command::SignalContainer(v1::SignalContainer {
                container_id: container.to_string(),
                signal: signal_to_wire(signal).into(),
            })
        }
        NodeCommand::ResizeContainer {
            container,
            resource,
            version,
        } => Command::ResizeContainer(v1::ResizeContainer {
            container_id: container.to_string(),
            resource: Some(resource.into()),
            version,
        }),
    }
}

/// A master's start, with what proves it: to a YARN master its AMRM token, to ours its own.
fn start_to_wire(doors: &Doors, node: &NodeId, start: &StartContainer) -> v1::StartContainer {
    let StartContainer {
        container,
        resource,
        application,
    } = start;
    let minter = &doors.minter;
    let (user, launch) = (start.user(), start.launch());
    let attempt = container.attempt;
    let launch = match launch.contract {
        LaunchContract::Bobbin => {
            let token = minter.attempt(attempt, user).into_bytes();
            launch_to_wire(launch, BTreeMap::from([(ATTEMPT_TOKEN.to_owned(), token)]))
        }
        LaunchContract::Yarn => {
            let scheduler = doors.addresses.scheduler.to_string();
            let secrets = prepare::secrets(minter, attempt, launch, &scheduler);
            launch_to_wire(&prepare::with_environment(application), secrets)
        }
    };
    v1::StartContainer {
        container_token: minter.container(*container, node, user, *resource),
        launch: Some(launch),
    }
}
