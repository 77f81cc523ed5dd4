//! The doors of unmodified Hadoop clients: YARN's protocols, translated to the core's events.
//!
//! `bobbin-hadoop` speaks the wire; here is who calls, and what a call means.

mod admin;
mod caller;
pub(crate) mod client;
pub(crate) mod exceptions;
pub(crate) mod iso_time;
pub(crate) mod master;
mod mint;
pub(crate) mod report;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use bobbin_hadoop::protection::Protection;
use bobbin_hadoop::server::{Ended, Limits, Observer, Service, Sparing, serve as serve_door};
use bobbin_proto::v1;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Yarn};
use crate::driver::DriverHandle;
use crate::grpc::identify::Doorkeeper;
use crate::minter::Minter;
use admin::AdminService;
use caller::{Client, ClientDoorman};
use client::ClientService;
use master::{MasterDoorman, MasterService};

/// One bound listener for each door.
pub(crate) struct Listeners {
    pub(crate) client: Door,
    pub(crate) scheduler: Door,
    pub(crate) admin: Door,
}

/// A listener with its address, as bound.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
}

/// Where the doors are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) client: SocketAddr,
    pub(crate) scheduler: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// What every door needs.
#[derive(Clone)]
pub(crate) struct YarnDoors {
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) driver: DriverHandle,
    pub(crate) minter: Minter,
    pub(crate) addresses: Addresses,
    /// When this process began, Unix milliseconds: YARN's `rmIdentifier`.
    pub(crate) started_ms: u64,
}

impl Listeners {
    /// Binds all three; port 0 takes a free one.
    ///
    /// # Errors
    /// An address is malformed, taken, or not this host's.
    pub(crate) async fn bind(settings: &Yarn) -> anyhow::Result<Listeners> {
        Ok(Listeners {
            client: Door::bind(&settings.client_listen, "yarn.client_listen").await?,
            scheduler: Door::bind(&settings.scheduler_listen, "yarn.scheduler_listen").await?,
            admin: Door::bind(&settings.admin_listen, "yarn.admin_listen").await?,
        })
    }

    pub(crate) fn addresses(&self, http: SocketAddr) -> Addresses {
        Addresses {
            client: self.client.address,
            scheduler: self.scheduler.address,
            admin: self.admin.address,
            http,
        }
    }
}

impl Door {
    async fn bind(listen: &str, key: &'static str) -> anyhow::Result<Door> {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen} ({key})"))?;
        let address = listener
            .local_addr()
            .with_context(|| format!("cannot tell the port of {listen}"))?;
        Ok(Door { listener, address })
    }
}

impl Addresses {
    /// What the configuration of Hadoop's clients is made of.
    pub(crate) fn for_clients(&self, config: &Config) -> v1::HadoopDoors {
        v1::HadoopDoors {
            client: self.client.to_string(),
            scheduler: self.scheduler.to_string(),
            admin: self.admin.to_string(),
            http: self.http.to_string(),
            max_attempts: config.core.max_attempts,
            am_expiry_ms: config.core.am_expiry_ms,
            rpc_protection: config.protection.names(),
        }
    }

    /// For the run file.
    pub(crate) fn named(&self) -> BTreeMap<String, String> {
        [
            ("client", self.client),
            ("scheduler", self.scheduler),
            ("admin", self.admin),
        ]
        .map(|(name, address)| (name.to_owned(), address.to_string()))
        .into()
    }
}

/// Serves all doors until `stop`; done when the last connection is closed.
pub(crate) fn serve(
    listeners: Listeners,
    doors: &YarnDoors,
    protection: Protection,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let limits = Limits {
        protection,
        ..Limits::default()
    };
    let mut serving = JoinSet::new();
    let doorman = MasterDoorman {
        doors: doors.clone(),
    };
    serving.spawn(serve_door(
        listeners.scheduler.listener,
        doorman,
        Arc::new(MasterService::new(doors.clone())),
        log_end("scheduler"),
        limits,
        stop.clone().cancelled_owned(),
    ));
    let mut for_clients = ForClients {
        doors,
        limits,
        stop,
        serving: &mut serving,
    };
    for_clients.serve(
        "client",
        listeners.client,
        ClientService::new(doors.clone()),
    );
    for_clients.serve("admin", listeners.admin, AdminService::new(doors.clone()));
    serving
}

/// The doors whose callers are users.
struct ForClients<'a> {
    doors: &'a YarnDoors,
    limits: Limits,
    stop: &'a CancellationToken,
    serving: &'a mut JoinSet<()>,
}

impl ForClients<'_> {
    fn serve(&mut self, name: &'static str, door: Door, service: impl Service<Client>) {
        let doorman = ClientDoorman {
            doorkeeper: self.doors.doorkeeper.clone(),
            minter: self.doors.minter.clone(),
        };
        let stopped = self.stop.clone().cancelled_owned();
        let (limits, service) = (self.limits, Arc::new(service));
        self.serving.spawn(serve_door(
            door.listener,
            doorman,
            service,
            log_end(name),
            limits,
            stopped,
        ));
    }
}

/// One line in the log for a connection that ended badly; of a flood some.
fn log_end(door: &'static str) -> impl Observer {
    Sparing::new(move |peer, reason: &Ended, untold| {
        tracing::info!(door, %peer, untold, "a connection was ended: {reason}");
    })
}
