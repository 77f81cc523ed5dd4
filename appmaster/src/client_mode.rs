//! Client mode: the driver runs here, its executors in the cluster; this process is the master.

use std::time::Duration;

use bobbin_am_core::ApplicationMaster;
use bobbin_proto::v1;
use bobbin_types::{ExitStatus, FinalStatus};
use tokio_util::sync::CancellationToken;

use crate::api::{AppMasterError, ClientMode, DriverEnd};
use crate::backend::{Backend, Cluster, ExecutorLaunch};
use crate::client::{self, ResourceManager};
use crate::driver::{DriverProcess, find_program};
use crate::master::Verdict;
use crate::nodes::Nodes;
use crate::shell::{Doors, executor_environment, own_address_towards, private_folder};

/// The program that is also the guard.
pub(crate) const APPMASTER_PROGRAM: &str = "bobbin-appmaster";
/// A person waits: longer than the restart of a resource manager, not for ever.
const FINISH_WAIT: Duration = Duration::from_secs(30);

/// Runs the driver to its end and says it to the resource manager.
///
/// The driver starts at once; executors are asked for beside it. Call it inside a runtime with all
/// drivers enabled; SIGTERM, SIGINT, SIGHUP and SIGQUIT go to the driver while it runs.
///
/// # Errors
/// The master's own doors or programs cannot be had. A driver that cannot be started is no error:
/// its exit status says so.
pub async fn run_client_mode(mode: ClientMode) -> Result<DriverEnd, AppMasterError> {
    let guard = find_program(APPMASTER_PROGRAM)?;
    let folder = private_folder()?;
    let socket = folder.path().join("driver.sock");
    let host = own_address_towards(&mode.resource_manager);
    let doors = Doors::bind(&socket, &[&host]).await?;
    let mut environment: Vec<_> = mode.environment.clone().into_iter().collect();
    environment.extend(driver_variables(&mode.attempt, &socket));
    let mut driver = DriverProcess::start_guarded(&guard, folder.path(), &mode.argv, &environment)?;

    let stop = CancellationToken::new();
    let _stop_at_end = stop.clone().drop_guard();
    let slots = mode.settings.executor_resource.vcores;
    let launch = ExecutorLaunch {
        environment: executor_environment(
            &mode.environment,
            &doors.gateway_address,
            slots,
            &mode.settings,
        ),
        secret: doors.gateway_address.secret.clone(),
        files: mode.files.clone(),
    };
    let inbox = doors.inbox();
    let nodes = Nodes::new(inbox.clone(), stop.clone());
    let backend = Backend::Cluster(Cluster::new(nodes, launch));
    let core = ApplicationMaster::new(mode.settings.core_config());
    let mut shell = doors.open(mode.attempt, &mode.settings, core, backend, stop.clone());
    let rm = ResourceManager {
        target: mode.resource_manager.clone(),
        attempt_token: mode.attempt_token.clone(),
    };
    tokio::spawn(client::run(rm, inbox, stop));

    let (status, verdict) = shell.attend(&mut driver).await;
    // Its guard has gone: nobody would remove the folder if this process were killed now.
    drop(folder);
    let end = driver_end(status, verdict);
    let finish = finish_message(&end);
    let acknowledged = shell.end(Some(finish), FINISH_WAIT).await;
    shell.stop.cancel();
    Ok(DriverEnd {
        acknowledged,
        ..end
    })
}

/// What a driver finds in its environment in every mode.
pub(crate) fn driver_variables(
    attempt: &bobbin_types::AttemptId,
    socket: &std::path::Path,
) -> [(String, String); 3] {
    [
        (
            "BOBBIN_APPLICATION_ID".to_owned(),
            attempt.application.to_string(),
        ),
        ("BOBBIN_ATTEMPT".to_owned(), attempt.attempt.to_string()),
        (
            "BOBBIN_DRIVER_SOCKET".to_owned(),
            socket.display().to_string(),
        ),
    ]
}

pub(crate) fn driver_end(status: ExitStatus, verdict: Option<Verdict>) -> DriverEnd {
    let (diagnostics, failed) = match verdict {
        Some(Verdict::Failed(words) | Verdict::Over(words)) => (words, true),
        None => (String::new(), !status.is_success()),
    };
    DriverEnd {
        exit_status: status,
        diagnostics,
        acknowledged: true,
        failed,
    }
}

pub(crate) fn finish_message(end: &DriverEnd) -> v1::Finish {
    let (final_status, exit_status) = match (end.failed, end.exit_status) {
        (false, status) => (FinalStatus::Succeeded, status),
        // A driver that ended well although no executor could be had.
        (true, ExitStatus::SUCCESS) => (FinalStatus::Failed, ExitStatus(i32::from(BOBBIN_FAILED))),
        (true, status) => (FinalStatus::Failed, status),
    };
    let diagnostics = match (end.diagnostics.is_empty(), end.failed) {
        (false, _) => end.diagnostics.clone(),
        (true, true) => format!("the driver ended with exit status {exit_status}"),
        (true, false) => String::new(),
    };
    v1::Finish {
        final_status: final_status.to_string(),
        exit_status: Some(exit_status.0),
        diagnostics,
    }
}

/// Bobbin failed, not the driver.
pub(crate) const BOBBIN_FAILED: u8 = 125;
