//! Where executors come from: a cluster's resource manager and nodes, or this host.

use std::collections::{BTreeMap, HashMap};

use bobbin_am_core::{Ask, Completed, Event, Grant};
use bobbin_proto::v1;
use bobbin_types::{ContainerId, NodeId, OBJECT_STORE_SECRET, Resource};
use tokio::sync::mpsc;

use crate::local_executors::LocalExecutors;
use crate::nodes::{Nodes, Wish};
use crate::shipped_files::ShippedFiles;

/// The program that executors run, found in the container's PATH.
pub(crate) const EXECUTOR_PROGRAM: &str = "bobbin-executor";

/// What every executor is started with.
#[derive(Clone, Debug)]
pub(crate) struct ExecutorLaunch {
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) secret: String,
    /// Localized into every executor's working folder.
    pub(crate) files: ShippedFiles,
}

pub(crate) enum Backend {
    Cluster(Cluster),
    Local(LocalExecutors),
}

impl Backend {
    /// Asks; a backend that can grant at once returns the grants.
    pub(crate) fn ask(&mut self, ask: &Ask) -> Vec<Event> {
        match self {
            Backend::Cluster(cluster) => {
                let asks = v1::Asks {
                    asks: vec![wire_ask(ask)],
                };
                cluster.tell(v1::am_message::Message::Asks(asks));
                Vec::new()
            }
            Backend::Local(local) => local.grant(ask),
        }
    }

    pub(crate) fn release(&mut self, containers: &[ContainerId]) {
        match self {
            Backend::Cluster(cluster) => {
                for container in containers {
                    cluster.grants.remove(container);
                }
                let container_ids = containers.iter().map(ToString::to_string).collect();
                cluster.tell(v1::am_message::Message::Release(v1::Release {
                    container_ids,
                }));
            }
            Backend::Local(local) => local.end(containers),
        }
    }

    pub(crate) fn start(&mut self, container: ContainerId) {
        match self {
            Backend::Cluster(cluster) => cluster.start(container),
            Backend::Local(local) => local.start(container),
        }
    }

    pub(crate) fn stop(&mut self, container: ContainerId) {
        match self {
            Backend::Cluster(cluster) => cluster.stop(container),
            Backend::Local(local) => local.end(&[container]),
        }
    }

    pub(crate) fn forget(&mut self, ended: &[Completed]) {
        if let Backend::Cluster(cluster) = self {
            for ended in ended {
                cluster.grants.remove(&ended.container);
            }
        }
    }
}

/// Containers of a resource manager, started by node agents.
pub(crate) struct Cluster {
    /// Messages to the resource manager, while a stream is open.
    pub(crate) rm: Option<mpsc::UnboundedSender<v1::AmMessage>>,
    pub(crate) nodes: Nodes,
    pub(crate) launch: ExecutorLaunch,
    grants: HashMap<ContainerId, v1::Grant>,
}

impl Cluster {
    pub(crate) fn new(nodes: Nodes, launch: ExecutorLaunch) -> Cluster {
        Cluster {
            rm: None,
            nodes,
            launch,
            grants: HashMap::new(),
        }
    }

    /// Without a stream nothing is said: the next registration says it all.
    pub(crate) fn tell(&self, message: v1::am_message::Message) {
        if let Some(rm) = &self.rm {
            let _ = rm.send(v1::AmMessage {
                message: Some(message),
            });
        }
    }

    /// Keeps the tokens and hands the core what it decides on; malformed grants are given back.
    pub(crate) fn take_grants(&mut self, grants: v1::Grants) -> Event {
        let mut taken = Vec::new();
        let mut refused = Vec::new();
        for grant in grants.grants {
            match parse_grant(&grant) {
                Ok(parsed) => {
                    self.grants.insert(parsed.container, grant);
                    taken.push(parsed);
                }
                Err(e) => {
                    tracing::warn!("a grant of the resource manager is malformed: {e}");
                    refused.push(grant.container_id);
                }
            }
        }
        if !refused.is_empty() {
            let container_ids = refused;
            self.tell(v1::am_message::Message::Release(v1::Release {
                container_ids,
            }));
        }
        Event::Granted(taken)
    }

    fn start(&mut self, container: ContainerId) {
        let Some(grant) = self.grants.get(&container) else {
            return;
        };
        let ShippedFiles { files, stores } = self.launch.files.clone();
        let secret = self.launch.secret.clone().into_bytes();
        let mut secrets: HashMap<_, _> = [("executor-secret".to_owned(), secret)].into();
        if !stores.is_empty() {
            secrets.insert(OBJECT_STORE_SECRET.to_owned(), stores);
        }
        let launch = v1::LaunchContext {
            argv: vec![EXECUTOR_PROGRAM.to_owned()],
            environment: self.launch.environment.clone().into_iter().collect(),
            local_resources: files,
            secrets,
            ..v1::LaunchContext::default()
        };
        let wish = Wish::Start {
            container_id: grant.container_id.clone(),
            node_token: grant.node_token.clone(),
            request: Box::new(v1::StartRequest {
                container_token: grant.container_token.clone(),
                launch: Some(launch),
            }),
        };
        self.nodes.wish(&grant.node_grpc_address, wish);
    }

    fn stop(&mut self, container: ContainerId) {
        if let Some(grant) = self.grants.get(&container) {
            let container_id = grant.container_id.clone();
            self.nodes
                .wish(&grant.node_grpc_address, Wish::Stop { container_id });
        }
    }
}

pub(crate) fn wire_ask(ask: &Ask) -> v1::Ask {
    v1::Ask {
        priority: ask.priority,
        place: "*".to_owned(),
        capability: Some(ask.capability.into()),
        request_id: 0,
        count: ask.count,
        node_label: String::new(),
        relax_locality: true,
    }
}

fn parse_grant(grant: &v1::Grant) -> Result<Grant, bobbin_proto::FieldError> {
    let container = bobbin_proto::field("container_id", &grant.container_id)?;
    let node: NodeId = bobbin_proto::field("node_id", &grant.node_id)?;
    let resource = match &grant.resource {
        Some(resource) => Resource::try_from(resource)?,
        None => Resource::default(),
    };
    Ok(Grant {
        container,
        node,
        resource,
    })
}
