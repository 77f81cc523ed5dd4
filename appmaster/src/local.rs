//! Local mode: driver and executor on this host, no daemon at all.

use bobbin_am_core::{ApplicationMaster, Config};
use bobbin_service::wall_now;
use bobbin_types::{ApplicationId, AttemptId, NodeId, Resource};
use tokio_util::sync::CancellationToken;

use crate::api::{AppMasterError, DriverEnd, LocalMode};
use crate::backend::{Backend, EXECUTOR_PROGRAM, ExecutorLaunch};
use crate::client_mode::{APPMASTER_PROGRAM, driver_end, driver_variables};
use crate::driver::{DriverProcess, find_program};
use crate::executor;
use crate::local_executors::LocalExecutors;
use crate::shell::{Doors, executor_environment, private_folder};
use crate::shipped_files::ShippedFiles;

/// Runs the driver to its end, with one executor of `slots` slots beside it.
///
/// # Errors
/// The master's own doors or programs cannot be had. A driver that cannot be started is no error:
/// its exit status says so.
pub async fn run_local(mode: LocalMode) -> Result<DriverEnd, AppMasterError> {
    let guard = find_program(APPMASTER_PROGRAM)?;
    let program = find_program(EXECUTOR_PROGRAM)?;
    let folder = private_folder()?;
    let socket = folder.path().join("driver.sock");
    let attempt = AttemptId {
        application: ApplicationId {
            cluster_timestamp: wall_now().0,
            sequence: 1,
        },
        attempt: 1,
    };
    let doors = Doors::bind(&socket, &[]).await?;
    let mut variables: Vec<_> = mode.environment.clone().into_iter().collect();
    variables.extend(driver_variables(&attempt, &socket));
    let mut driver = DriverProcess::start_guarded(&guard, folder.path(), &mode.argv, &variables)?;

    let slots = mode.slots.unwrap_or_else(cores).max(1);
    let secret_file = folder.path().join("executor-secret");
    bobbin_service::atomic_write(&secret_file, doors.gateway_address.secret.as_bytes(), 0o600)
        .map_err(|e| AppMasterError::io("write the executor's secret")(std::io::Error::other(e)))?;
    let mut environment = executor_environment(
        &mode.environment,
        &doors.gateway_address,
        slots,
        &mode.settings,
    );
    for (name, value) in driver_variables(&attempt, &socket) {
        environment.insert(name, value);
    }
    // Tasks are no drivers.
    environment.remove("BOBBIN_DRIVER_SOCKET");
    let secret_file = secret_file.display().to_string();
    environment.insert(executor::SECRET_FILE_VARIABLE.to_owned(), secret_file);
    // A master that has gone does not come back.
    environment.insert(executor::DETACHED_VARIABLE.to_owned(), "0".to_owned());
    let backend = Backend::Local(LocalExecutors {
        inbox: doors.inbox(),
        attempt,
        folder: folder.path().to_owned(),
        node: this_host()?,
        program,
        launch: ExecutorLaunch {
            environment,
            secret: doors.gateway_address.secret.clone(),
            files: ShippedFiles::default(),
        },
        groups: std::collections::HashMap::new(),
        granted: 0,
    });
    let stop = CancellationToken::new();
    let _stop_at_end = stop.clone().drop_guard();
    let memory_mib = mode.settings.executor_resource.memory_mib;
    let mut config = Config::new(1, Resource::new(memory_mib, slots));
    config.allow_task_failures(mode.settings.task_failures_max);
    let core = ApplicationMaster::new(config);
    let mut shell = doors.open(attempt, &mode.settings, core, backend, stop);
    let (status, verdict) = shell.attend(&mut driver).await;
    // Its guard has gone: nobody would remove the folder if this process were killed now.
    drop(folder);
    let end = driver_end(status, verdict);
    shell.end(None, std::time::Duration::from_secs(5)).await;
    shell.stop.cancel();
    Ok(end)
}

/// This host, as a node that has no agent.
fn this_host() -> Result<NodeId, AppMasterError> {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|h| h.into_string().ok());
    let node = format!("{}:0", host.as_deref().unwrap_or("localhost"));
    node.parse()
        .or_else(|_| "localhost:0".parse())
        .map_err(|e: bobbin_types::IdError| AppMasterError::Environment {
            variable: "HOSTNAME",
            problem: e.to_string(),
        })
}

/// Cores this process may use.
fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores).unwrap_or(1)
}
