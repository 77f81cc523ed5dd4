//! Cluster mode: `bobbin-appmaster` in its container, PROGRAM as its child in the same sandbox.

use std::collections::BTreeMap;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use bobbin_am_core::ApplicationMaster;
use bobbin_service::{Listener, Target};
use bobbin_types::{AttemptId, ExitStatus};
use tokio_util::sync::CancellationToken;

use crate::api::AppMasterError;
use crate::backend::{Backend, Cluster, ExecutorLaunch};
use crate::client::{self, ResourceManager};
use crate::client_mode::{driver_end, driver_variables, finish_message};
use crate::driver::{DriverProcess, EarlyDriver};
use crate::executor::run_folder;
use crate::master::Verdict;
use crate::nodes::Nodes;
use crate::settings::AppSettings;
use crate::shell::{DRIVER_SOCKET_MODE, Doors, executor_environment, private_folder};
use crate::shipped_files::read_shipped_files;

/// In the run folder: where the sandbox has room for the driver's socket.
const DRIVER_SOCKET: &str = "driver.sock";
const SECRETS: &str = "secrets";
const ATTEMPT_TOKEN: &str = "secrets/attempt-token";
/// Overrides [`ATTEMPT_TOKEN`], for tests outside containers.
const ATTEMPT_TOKEN_VARIABLE: &str = "BOBBIN_ATTEMPT_TOKEN_FILE";
/// A driver that ended well is said to the resource manager for so long while that is away; longer
/// than any restart of it, so that a success is not run again.
const FINISH_WAIT: Duration = Duration::from_secs(600);

/// The driver and what it was started with.
#[derive(Debug)]
pub struct ClusterMode {
    attempt: AttemptId,
    settings: AppSettings,
    rm: ResourceManager,
    socket: UnixListener,
    /// Elsewhere than in a container, where the socket is.
    _folder: Option<tempfile::TempDir>,
    driver: EarlyDriver,
}

impl ClusterMode {
    /// Starts PROGRAM as the driver, before anything else is: its first line is what people wait for.
    /// To be called inside a runtime.
    ///
    /// # Errors
    /// The container's environment is not what an agent makes, or the driver's socket cannot be had.
    pub fn start(argv: &[String]) -> Result<ClusterMode, AppMasterError> {
        let attempt = attempt()?;
        let settings = match std::env::var("BOBBIN_CONF_JSON") {
            Ok(json) => AppSettings::from_json(&json),
            Err(_) => AppSettings::from_map(&BTreeMap::new()),
        }
        .map_err(AppMasterError::Settings)?;
        let rm = resource_manager()?;
        let (socket, path, folder) = bind_socket()?;
        let driver = EarlyDriver::start(argv, &driver_variables(&attempt, &path))?;
        Ok(ClusterMode {
            attempt,
            settings,
            rm,
            socket,
            _folder: folder,
            driver,
        })
    }
}

/// Attends to the driver until its end; returns the exit status of this container.
///
/// # Errors
/// The doors cannot be had.
pub async fn run_cluster_mode(mode: ClusterMode) -> Result<ExitStatus, AppMasterError> {
    let ClusterMode {
        attempt,
        settings,
        rm,
        socket,
        _folder,
        driver,
    } = mode;
    let mut driver = DriverProcess::adopt(driver);
    let socket = Listener::of_unix(socket).map_err(AppMasterError::Serve)?;
    let host = std::env::var("BOBBIN_NODE_HOST").unwrap_or_default();
    let doors = Doors::with_socket(socket, &[&host]).await?;

    let stop = CancellationToken::new();
    let _stop_at_end = stop.clone().drop_guard();
    let slots = settings.executor_resource.vcores;
    let launch = ExecutorLaunch {
        environment: executor_environment(
            &submitted_environment(),
            &doors.gateway_address,
            slots,
            &settings,
        ),
        secret: doors.gateway_address.secret.clone(),
        files: read_shipped_files(&run_folder().join(SECRETS))
            .map_err(AppMasterError::io("read the list of shipped files"))?,
    };
    let inbox = doors.inbox();
    let nodes = Nodes::new(inbox.clone(), stop.clone());
    let backend = Backend::Cluster(Cluster::new(nodes, launch));
    let core = ApplicationMaster::new(settings.core_config());
    let mut shell = doors.open(attempt, &settings, core, backend, stop.clone());
    tokio::spawn(client::run(rm, inbox, stop));

    let (status, verdict) = shell.attend(&mut driver).await;
    driver.end_group();
    let over = matches!(verdict, Some(Verdict::Over(_)));
    let mut end = driver_end(status, verdict);
    // Another attempt would not find the program either.
    if let Some(words) = driver.start_error.take() {
        end.diagnostics = words;
    }
    // A failed driver ends its attempt without a word: the resource manager sees the exit status
    // and starts the next attempt. With words of our own the end is final.
    let is_final = !end.failed || (!end.diagnostics.is_empty() && !over);
    let finish = is_final.then(|| finish_message(&end));
    let status = finish
        .as_ref()
        .and_then(|f| f.exit_status)
        .map_or(end.exit_status, ExitStatus);
    if !shell.end(finish, FINISH_WAIT).await {
        tracing::error!("the resource manager did not acknowledge the end of the application");
    }
    shell.stop.cancel();
    Ok(status)
}

/// In a container the socket is where every driver expects it; elsewhere in a folder of our own.
fn bind_socket() -> Result<(UnixListener, PathBuf, Option<tempfile::TempDir>), AppMasterError> {
    let socket = run_folder().join(DRIVER_SOCKET);
    if let Ok(bound) = Listener::bind_unix(&socket, DRIVER_SOCKET_MODE) {
        return Ok((bound, socket, None));
    }
    if let Some((bound, socket)) = bind_through_descriptor() {
        return Ok((bound, socket, None));
    }
    let folder = private_folder()?;
    let socket = folder.path().join("driver.sock");
    let bound = Listener::bind_unix(&socket, DRIVER_SOCKET_MODE).map_err(AppMasterError::Serve)?;
    Ok((bound, socket, Some(folder)))
}

/// Without namespaces the run folder's path is longer than a socket's may be (108 bytes, unix(7)). A path
/// through this process's descriptor of it is short, good for every process of the same user, and what is
/// bound there goes with the folder, however this process ends.
fn bind_through_descriptor() -> Option<(UnixListener, PathBuf)> {
    let folder = std::fs::File::open(run_folder()).ok()?;
    // Open as long as this process lives: the path leads through it.
    let number = folder.into_raw_fd();
    let own = std::process::id();
    let socket = PathBuf::from(format!("/proc/{own}/fd/{number}/{DRIVER_SOCKET}"));
    let bound = Listener::bind_unix(&socket, DRIVER_SOCKET_MODE).ok()?;
    Some((bound, socket))
}

fn variable(variable: &'static str) -> Result<String, AppMasterError> {
    std::env::var(variable).map_err(|e| AppMasterError::Environment {
        variable,
        problem: e.to_string(),
    })
}

fn attempt() -> Result<AttemptId, AppMasterError> {
    let wrong = |variable| move |problem: String| AppMasterError::Environment { variable, problem };
    let application = variable("BOBBIN_APPLICATION_ID")?
        .parse()
        .map_err(|e: bobbin_types::IdError| wrong("BOBBIN_APPLICATION_ID")(e.to_string()))?;
    let attempt = variable("BOBBIN_ATTEMPT")?
        .parse()
        .map_err(|e: std::num::ParseIntError| wrong("BOBBIN_ATTEMPT")(e.to_string()))?;
    Ok(AttemptId {
        application,
        attempt,
    })
}

fn resource_manager() -> Result<ResourceManager, AppMasterError> {
    let file = std::env::var_os(ATTEMPT_TOKEN_VARIABLE)
        .map_or_else(|| run_folder().join(ATTEMPT_TOKEN), PathBuf::from);
    let token = std::fs::read_to_string(&file)
        .map_err(AppMasterError::io(format!("read {}", file.display())))?;
    Ok(ResourceManager {
        target: Target::Tcp(variable("BOBBIN_RM_ADDRESS")?),
        attempt_token: token.trim().to_owned(),
    })
}

/// The variables of the submission (`--env`), which executors get too: everything that the agent
/// does not set for each container itself.
fn submitted_environment() -> BTreeMap<String, String> {
    const OF_THE_AGENT: [&str; 8] = [
        "PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "PWD", "SHLVL",
    ];
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !name.starts_with("BOBBIN_") && !OF_THE_AGENT.contains(&&**name))
        .collect()
}
