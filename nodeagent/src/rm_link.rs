//! The stream to the resource manager: opened with the node's token, opened again for ever.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bobbin_na_core::{ContainerSignal, Event, Exit, Origin, Starter};
use bobbin_proto::v1;
use bobbin_proto::v1::node_client::NodeClient;
use bobbin_proto::v1::node_command::Command;
use bobbin_service::{Target, TokenKind, connect, status_words, wall_now};
use bobbin_types::{ExitStatus, MESSAGE_BYTES_MAX, Resource};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::driver::{Input, OUTBOX_MAX};
use crate::launch::{Order, chain, problem};
use crate::node::Node;
use crate::translate;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(1);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("the node token in {path} cannot be read: {source}")]
    Token {
        path: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    Connect(#[from] bobbin_service::ConnectError),
    #[error("{}", status_words(.0))]
    Status(Box<tonic::Status>),
    #[error("the resource manager closed the stream")]
    Closed,
    #[error("the resource manager refuses this node: {0}")]
    Refused(String),
    #[error("the resource manager sent what cannot be read: {0}")]
    Malformed(String),
    #[error("the node key cannot be kept: {0}")]
    Key(String),
}

impl From<tonic::Status> for LinkError {
    fn from(status: tonic::Status) -> LinkError {
        LinkError::Status(Box::new(status))
    }
}

/// Keeps a stream open until `stop`.
pub(crate) async fn run(node: Arc<Node>, driver: mpsc::Sender<Input>, stop: CancellationToken) {
    let mut backoff = BACKOFF_FIRST;
    let mut last = String::new();
    loop {
        let mut registered = false;
        let error = tokio::select! {
            result = attach(&node, &driver, &mut registered) => result.err(),
            () = stop.cancelled() => return,
        };
        if driver.send(Input::Event(Event::RmLost)).await.is_err() {
            return;
        }
        let words = error.map_or_else(|| LinkError::Closed.to_string(), |e| chain(&e));
        // The same words once: this is tried for as long as the resource manager is away.
        if registered || words != last {
            let address = &node.config.resourcemanager.address;
            tracing::warn!(%address, "no stream to the resource manager: {words}; trying again");
        }
        last = words;
        if registered {
            backoff = BACKOFF_FIRST;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = stop.cancelled() => return,
        }
        backoff = (backoff * 2).min(BACKOFF_LAST);
    }
}

async fn attach(
    node: &Arc<Node>,
    driver: &mpsc::Sender<Input>,
    registered: &mut bool,
) -> Result<(), LinkError> {
    let token = read_token(&node.config.resourcemanager.token_file)?;
    let target = Target::Tcp(node.config.resourcemanager.address.clone());
    let channel = connect(&target, Some(&token)).await?;
    let (messages, outbox) = mpsc::channel(OUTBOX_MAX);
    let mut client = NodeClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX * 2);
    // The registration is the first message; the server may answer only when it has it.
    if driver.send(Input::RmAttached(messages)).await.is_err() {
        return Err(LinkError::Closed);
    }
    let mut commands = client
        .attach(ReceiverStream::new(outbox))
        .await?
        .into_inner();
    while let Some(command) = commands.message().await? {
        let Some(command) = command.command else {
            continue;
        };
        let input = translate_command(node, command, registered).await?;
        if let Some(input) = input
            && driver.send(input).await.is_err()
        {
            return Err(LinkError::Closed);
        }
    }
    Ok(())
}

fn read_token(path: &Path) -> Result<String, LinkError> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|source| LinkError::Token {
            path: path.display().to_string(),
            source,
        })
}

fn parse<T>(text: &str) -> Result<T, LinkError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|e: T::Err| LinkError::Malformed(e.to_string()))
}

async fn translate_command(
    node: &Arc<Node>,
    command: Command,
    registered: &mut bool,
) -> Result<Option<Input>, LinkError> {
    let event = match command {
        Command::Registered(r) => {
            let keys = node.clone();
            tokio::task::spawn_blocking(move || keys.keys.set(&r.node_key))
                .await
                .map_err(|e| LinkError::Key(e.to_string()))?
                .map_err(|e| LinkError::Key(chain(&e)))?;
            node.localizer.trees.set_own(&r.http_address);
            *registered = true;
            tracing::info!(epoch = r.epoch, "registered with the resource manager");
            let heartbeat_interval_ms = r.heartbeat_interval_ms;
            Event::RmRegistered {
                heartbeat_interval_ms,
                wall: wall_now(),
            }
        }
        Command::StartContainer(start) => return Ok(Some(translate_start(node, start)?)),
        Command::StopContainer(stop) => Event::Stop {
            container: parse(&stop.container_id)?,
            exit: Exit {
                exit_status: ExitStatus(stop.exit_status),
                diagnostics: stop.diagnostics,
            },
            wall: wall_now(),
        },
        Command::AcknowledgeExit(ack) => Event::ExitAcknowledged(parse(&ack.container_id)?),
        Command::ApplicationEnded(ended) => Event::ApplicationEnded {
            application: parse(&ended.application_id)?,
            wall: wall_now(),
        },
        Command::Refused(refused) => return Err(LinkError::Refused(refused.reason)),
        Command::RevokeAttempt(revoke) => Event::RevokeAttempt {
            attempt: parse(&revoke.attempt_id)?,
            keep_containers: revoke.keep_containers,
        },
        Command::SignalContainer(signal) => Event::Signal {
            container: parse(&signal.container_id)?,
            signal: match signal.signal() {
                v1::ContainerSignal::ThreadDump => ContainerSignal::ThreadDump,
                v1::ContainerSignal::Graceful => ContainerSignal::Graceful,
                v1::ContainerSignal::Forceful => ContainerSignal::Forceful,
            },
        },
        Command::ResizeContainer(resize) => Event::Resize {
            container: parse(&resize.container_id)?,
            resource: Resource::try_from(&resize.resource.unwrap_or_default())
                .map_err(|e| LinkError::Malformed(e.to_string()))?,
            version: resize.version,
        },
    };
    Ok(Some(Input::Event(event)))
}

fn translate_start(node: &Node, start: v1::StartContainer) -> Result<Input, LinkError> {
    let malformed = |e: &dyn std::error::Error| LinkError::Malformed(chain(e));
    // A bad token means that the keys differ: another registration brings the right one.
    let claims = node
        .keys
        .verify_ended(
            &node.node_id,
            &start.container_token,
            &[TokenKind::Container],
        )
        .map_err(|e| malformed(&e))?;
    let claims = translate::claims(&claims).map_err(|e| malformed(&e))?;
    let launch = start.launch.unwrap_or_default();
    Ok(Input::Start {
        starter: Starter::ResourceManager,
        claims,
        problem: problem(&launch),
        order: Box::new(Order {
            launch,
            origin: Origin::ResourceManager,
            container_token: start.container_token.into(),
        }),
    })
}
