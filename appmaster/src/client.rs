//! The stream to the resource manager: opened again for ever, with a registration first.
//!
//! The outage of a resource manager disturbs nobody: asks and releases made meanwhile are in the
//! next registration, which is absolute.

use std::time::Duration;

use bobbin_proto::v1;
use bobbin_proto::v1::application_master_client::ApplicationMasterClient;
use bobbin_service::{ConnectError, Target, connect, status_words};
use bobbin_types::MESSAGE_BYTES_MAX;
use futures::StreamExt;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::input::{Inbox, Input};

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A pause that doubles up to a second; every connection of this crate uses it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff(BACKOFF_FIRST)
    }

    pub(crate) fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(BACKOFF_MAX);
        now
    }
}

/// The resource manager as one attempt sees it.
#[derive(Clone, Debug)]
pub(crate) struct ResourceManager {
    pub(crate) target: Target,
    pub(crate) attempt_token: String,
}

enum Lost {
    /// Tried again.
    Stream,
    /// Not tried again.
    Refused(String),
    /// Nobody listens to us any more.
    Stopped,
}

/// Keeps a stream open until `stop`.
pub(crate) async fn run(rm: ResourceManager, inbox: Inbox, stop: CancellationToken) {
    let mut backoff = Backoff::new();
    loop {
        let lost = tokio::select! {
            lost = one_stream(&rm, &inbox, &mut backoff) => lost,
            () = stop.cancelled() => return,
        };
        let told = match lost {
            Lost::Stream => inbox.send(Input::RmLost).await,
            Lost::Refused(words) => {
                let _ = inbox.send(Input::RmRefused(words)).await;
                return;
            }
            Lost::Stopped => return,
        };
        if told.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn one_stream(rm: &ResourceManager, inbox: &Inbox, backoff: &mut Backoff) -> Lost {
    let channel = match connect(&rm.target, Some(&rm.attempt_token)).await {
        Ok(channel) => channel,
        Err(e @ ConnectError::Refused { .. }) => {
            tracing::debug!("the resource manager does not answer: {e}");
            return Lost::Stream;
        }
        Err(e) => return Lost::Refused(e.to_string()),
    };
    let (reply, attached) = oneshot::channel();
    if inbox.send(Input::RmAttaching(reply)).await.is_err() {
        return Lost::Stopped;
    }
    let Ok((register, messages)) = attached.await else {
        return Lost::Stopped;
    };
    let first = v1::AmMessage {
        message: Some(v1::am_message::Message::Register(register)),
    };
    let outward = futures::stream::iter([first]).chain(UnboundedReceiverStream::new(messages));
    let mut client =
        ApplicationMasterClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut inward = match client.attach(outward).await {
        Ok(response) => response.into_inner(),
        Err(status) => return lost(&status),
    };
    loop {
        match inward.message().await {
            Ok(Some(v1::RmMessage {
                message: Some(message),
            })) => {
                *backoff = Backoff::new();
                if inbox.send(Input::Rm(message)).await.is_err() {
                    return Lost::Stopped;
                }
            }
            Ok(Some(v1::RmMessage { message: None })) => {}
            Ok(None) => return Lost::Stream,
            Err(status) => return lost(&status),
        }
    }
}

fn lost(status: &tonic::Status) -> Lost {
    use tonic::Code;
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied | Code::NotFound => {
            Lost::Refused(status_words(status))
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => {
            tracing::debug!(
                "the resource manager's stream broke: {}",
                status_words(status)
            );
            Lost::Stream
        }
    }
}
