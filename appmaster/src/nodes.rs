//! One stream to each node where containers are started; opened again for ever.
//!
//! A request stays here until the node has said what came of it, and is sent again on every new
//! stream: the agent starts a container once, however often it is asked to.

use std::collections::{BTreeMap, HashMap};

use bobbin_proto::v1;
use bobbin_proto::v1::container_manager_client::ContainerManagerClient;
use bobbin_service::{Target, connect, status_words};
use bobbin_types::{ContainerState, MESSAGE_BYTES_MAX};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::client::Backoff;
use crate::input::{Inbox, Input};

/// A wish about one container of a node.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Start {
        container_id: String,
        request: Box<v1::StartRequest>,
        /// Proves the attempt to this node; the newest is used for new streams.
        node_token: String,
    },
    Stop {
        container_id: String,
    },
}

/// The streams by the nodes' addresses.
#[derive(Debug)]
pub(crate) struct Nodes {
    inbox: Inbox,
    stop: CancellationToken,
    streams: HashMap<String, mpsc::UnboundedSender<Wish>>,
}

impl Nodes {
    pub(crate) fn new(inbox: Inbox, stop: CancellationToken) -> Nodes {
        Nodes {
            inbox,
            stop,
            streams: HashMap::new(),
        }
    }

    pub(crate) fn wish(&mut self, address: &str, wish: Wish) {
        let stream = self.streams.entry(address.to_owned()).or_insert_with(|| {
            let (sender, wishes) = mpsc::unbounded_channel();
            let node = Node {
                address: address.to_owned(),
                token: String::new(),
                wishes,
                open: BTreeMap::new(),
                inbox: self.inbox.clone(),
            };
            tokio::spawn(node.run(self.stop.clone()));
            sender
        });
        // The stream's task ends only with the master.
        let _ = stream.send(wish);
    }
}

struct Node {
    address: String,
    token: String,
    wishes: mpsc::UnboundedReceiver<Wish>,
    /// Wishes without an answer, by container.
    open: BTreeMap<String, v1::ManageRequest>,
    inbox: Inbox,
}

impl Node {
    async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        loop {
            let words = tokio::select! {
                words = self.one_stream(&mut backoff) => words,
                () = stop.cancelled() => return,
            };
            let Some(words) = words else { return };
            tracing::debug!(node = self.address, "stream to the node is lost: {words}");
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// `None` when the master has gone.
    async fn one_stream(&mut self, backoff: &mut Backoff) -> Option<String> {
        // A token is needed to connect, and it comes with the first wish.
        while self.token.is_empty() {
            let wish = self.wishes.recv().await?;
            self.note(wish);
        }
        let target = Target::Tcp(self.address.clone());
        let channel = match connect(&target, Some(&self.token)).await {
            Ok(channel) => channel,
            Err(e) => return Some(e.to_string()),
        };
        while let Ok(wish) = self.wishes.try_recv() {
            self.note(wish);
        }
        let (requests, receiver) = mpsc::unbounded_channel();
        for request in self.open.values() {
            let _ = requests.send(request.clone());
        }
        let mut client =
            ContainerManagerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut events = match client.manage(UnboundedReceiverStream::new(receiver)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Some(status_words(&status)),
        };
        loop {
            tokio::select! {
                wish = self.wishes.recv() => {
                    if let Some(request) = self.note(wish?) {
                        let _ = requests.send(request);
                    }
                }
                event = events.message() => match event {
                    Ok(Some(v1::ManageEvent { status: Some(status) })) => {
                        *backoff = Backoff::new();
                        self.settle(&status);
                        self.inbox.send(Input::Container(status)).await.ok()?;
                    }
                    Ok(Some(v1::ManageEvent { status: None })) => {}
                    Ok(None) => return Some("the node closed it".to_owned()),
                    Err(status) => return Some(status_words(&status)),
                },
            }
        }
    }

    fn note(&mut self, wish: Wish) -> Option<v1::ManageRequest> {
        let (container_id, request) = match wish {
            Wish::Start {
                container_id,
                request,
                node_token,
            } => {
                self.token = node_token;
                (container_id, v1::manage_request::Request::Start(*request))
            }
            Wish::Stop { container_id } => {
                let stop = v1::StopRequest {
                    container_id: container_id.clone(),
                };
                (container_id, v1::manage_request::Request::Stop(stop))
            }
        };
        let request = v1::ManageRequest {
            request: Some(request),
        };
        // A stop replaces the start that was not answered: what never started needs no end.
        self.open.insert(container_id, request.clone());
        Some(request)
    }

    fn settle(&mut self, status: &v1::ContainerStatus) {
        let ended = status
            .state
            .parse()
            .is_ok_and(|state: ContainerState| state.is_ended());
        let is_stop = self
            .open
            .get(&status.container_id)
            .is_some_and(|r| matches!(r.request, Some(v1::manage_request::Request::Stop(_))));
        if ended || !is_stop {
            self.open.remove(&status.container_id);
        }
    }
}
