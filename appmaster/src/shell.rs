//! What every mode starts: the driver's socket, the executors' gateway, the master's task.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bobbin_am_core::ApplicationMaster;
use bobbin_proto::v1;
use bobbin_proto::v1::driver_server::DriverServer;
use bobbin_proto::v1::executor_gateway_server::ExecutorGatewayServer;
use bobbin_service::{Listener, ServeLimits, Target, serve};
use bobbin_types::{AttemptId, ExitStatus, MESSAGE_BYTES_MAX};
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::api::AppMasterError;
use crate::backend::Backend;
use crate::driver::{DriverProcess, say};
use crate::driver_service::DriverService;
use crate::executor;
use crate::gateway::Gateway;
use crate::input::{INBOX_PLACES, Inbox, Input};
use crate::master::{Master, Verdict};
use crate::settings::AppSettings;
use crate::spool::Spool;

/// A driver whose application has failed may say so itself for so long.
const FAILED_GRACE: Duration = Duration::from_secs(10);
/// From SIGTERM to SIGKILL.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// Of the driver's socket: nobody else's.
pub(crate) const DRIVER_SOCKET_MODE: u32 = 0o600;

/// A running application master.
pub(crate) struct Shell {
    pub(crate) inbox: Inbox,
    pub(crate) verdicts: watch::Receiver<Option<Verdict>>,
    pub(crate) stop: CancellationToken,
}

/// Where executors dial in, and with what.
#[derive(Clone, Debug)]
pub(crate) struct GatewayAddress {
    /// host:port
    pub(crate) address: String,
    pub(crate) secret: String,
}

/// The doors, bound before anything is started that might knock.
pub(crate) struct Doors {
    driver: Listener,
    gateway: Listener,
    pub(crate) gateway_address: GatewayAddress,
    inbox: Inbox,
    inputs: mpsc::Receiver<Input>,
}

impl Doors {
    /// `socket` is the driver's; `hosts` are tried in turn for the executors' gateway.
    pub(crate) async fn bind(socket: &Path, hosts: &[&str]) -> Result<Doors, AppMasterError> {
        let driver = Listener::unix(socket, DRIVER_SOCKET_MODE).map_err(AppMasterError::Serve)?;
        Doors::with_socket(driver, hosts).await
    }

    /// As [`Doors::bind`], with the driver's socket.
    pub(crate) async fn with_socket(
        driver: Listener,
        hosts: &[&str],
    ) -> Result<Doors, AppMasterError> {
        let mut bound = None;
        for host in hosts.iter().filter(|h| !h.is_empty()) {
            if let Ok(listener) = Listener::tcp(&format!("{host}:0")).await {
                bound = Some(listener);
                break;
            }
        }
        let gateway = match bound {
            Some(listener) => listener,
            None => Listener::tcp("127.0.0.1:0")
                .await
                .map_err(AppMasterError::Serve)?,
        };
        let address = gateway
            .local_addr()
            .map_or_else(String::new, |a: SocketAddr| a.to_string());
        let secret = random_text()?;
        let (inbox, inputs) = mpsc::channel(INBOX_PLACES);
        Ok(Doors {
            driver,
            gateway,
            gateway_address: GatewayAddress { address, secret },
            inbox,
            inputs,
        })
    }

    pub(crate) fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// Opens the doors and starts the master.
    pub(crate) fn open(
        self,
        attempt: AttemptId,
        settings: &AppSettings,
        core: ApplicationMaster,
        backend: Backend,
        stop: CancellationToken,
    ) -> Shell {
        let spool = Spool::new(&std::env::temp_dir());
        let driver = DriverService {
            attempt,
            inbox: self.inbox.clone(),
        };
        let driver = DriverServer::new(driver).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let gateway = Gateway::new(
            self.gateway_address.secret,
            self.inbox.clone(),
            spool,
            settings.task_output_bytes_max,
        );
        let gateway =
            ExecutorGatewayServer::new(gateway).max_decoding_message_size(MESSAGE_BYTES_MAX);
        for (routes, listener) in [
            (Routes::new(driver), self.driver),
            (Routes::new(gateway), self.gateway),
        ] {
            let stop = stop.clone();
            tokio::spawn(async move {
                if let Err(e) = serve(routes, vec![listener], ServeLimits::default(), stop).await {
                    tracing::error!("a door of the application master is closed: {e}");
                }
            });
        }
        let host = self.gateway_address.address;
        let (master, verdicts) = Master::new(core, backend, self.inputs, host);
        tokio::spawn(master.run(stop.clone()));
        Shell {
            inbox: self.inbox,
            verdicts,
            stop,
        }
    }
}

impl Shell {
    /// Until the driver has ended, by itself or because its application is over.
    pub(crate) async fn attend(
        &mut self,
        driver: &mut DriverProcess,
    ) -> (ExitStatus, Option<Verdict>) {
        let verdict = tokio::select! {
            biased;
            status = driver.wait() => {
                let verdict = self.verdict();
                say_verdict(verdict.as_ref());
                return (status, verdict);
            }
            () = judged(&mut self.verdicts) => self.verdict(),
        };
        say_verdict(verdict.as_ref());
        // A driver that waits for tasks has just been told that they failed.
        if matches!(verdict, Some(Verdict::Failed(_)))
            && let Ok(status) = tokio::time::timeout(FAILED_GRACE, driver.wait()).await
        {
            return (status, verdict);
        }
        driver.signal(Signal::SIGTERM);
        if let Ok(status) = tokio::time::timeout(KILL_GRACE, driver.wait()).await {
            return (status, verdict);
        }
        driver.signal(Signal::SIGUSR1);
        driver.end_group();
        (driver.wait().await, verdict)
    }

    fn verdict(&self) -> Option<Verdict> {
        self.verdicts.borrow().clone()
    }

    /// Gives everything back and says the end; true when it was acknowledged within `wait`.
    pub(crate) async fn end(&self, finish: Option<v1::Finish>, wait: Duration) -> bool {
        let (reply, acknowledged) = oneshot::channel();
        if self.inbox.send(Input::End { finish, reply }).await.is_err() {
            return false;
        }
        tokio::time::timeout(wait, acknowledged)
            .await
            .is_ok_and(|a| a.unwrap_or(false))
    }
}

fn say_verdict(verdict: Option<&Verdict>) {
    match verdict {
        Some(Verdict::Failed(words)) => say(words),
        Some(Verdict::Over(words)) => say(&format!("the application is over: {words}")),
        None => {}
    }
}

async fn judged(verdicts: &mut watch::Receiver<Option<Verdict>>) {
    if verdicts.wait_for(Option::is_some).await.is_err() {
        // The master's task ends only with the shell.
        std::future::pending().await
    }
}

/// A folder of this process alone, for its sockets.
pub(crate) fn private_folder() -> Result<tempfile::TempDir, AppMasterError> {
    let preferred = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|folder| folder.is_dir());
    let mut builder = tempfile::Builder::new();
    builder.prefix("bobbin-");
    let made = preferred.and_then(|folder| builder.tempdir_in(folder).ok());
    match made {
        Some(folder) => Ok(folder),
        None => builder
            .tempdir_in("/tmp")
            .map_err(AppMasterError::io("make a folder in /tmp")),
    }
}

/// The variables every executor is started with.
pub(crate) fn executor_environment(
    given: &BTreeMap<String, String>,
    gateway: &GatewayAddress,
    slots: u32,
    settings: &AppSettings,
) -> BTreeMap<String, String> {
    let mut environment = given.clone();
    for (name, value) in [
        (executor::ADDRESS_VARIABLE, gateway.address.clone()),
        (executor::SLOTS_VARIABLE, slots.to_string()),
        (
            executor::OUTPUT_VARIABLE,
            settings.task_output_bytes_max.to_string(),
        ),
    ] {
        environment.insert(name.to_owned(), value);
    }
    environment
}

/// This host's address towards `target`, where its nodes find it too.
pub(crate) fn own_address_towards(target: &Target) -> String {
    let loopback = "127.0.0.1".to_owned();
    let Target::Tcp(address) = target else {
        return loopback;
    };
    // Connecting a datagram socket sends nothing; it only chooses a route.
    let route = || {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect(address.as_str()).ok()?;
        socket.local_addr().ok()
    };
    route().map_or(loopback, |a| a.ip().to_string())
}

/// 256 random bits as text.
fn random_text() -> Result<String, AppMasterError> {
    use std::fmt::Write;
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|e| AppMasterError::io("get random bytes")(std::io::Error::other(e)))?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
