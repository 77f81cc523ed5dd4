//! Client mode: the driver runs here, and this process is its application master.

use bobbin_appmaster::{AppSettings, ClientMode, ShippedFiles, run_client_mode};
use bobbin_proto::v1;
use bobbin_types::YarnApplicationState;

use super::cluster_mode::check_executors;
use super::interrupt::Interrupts;
use super::local_mode::{end, failure};
use super::plan::Plan;
use super::upload;
use crate::args::SubmitArgs;
use crate::cluster::Cluster;
use crate::commands::follow::state_of;
use crate::exit_codes::{DONE, KILLED};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::Bar;
use crate::{output, parse};

pub(crate) async fn run(
    cluster: Cluster,
    args: &SubmitArgs,
    mut plan: Plan,
    settings: AppSettings,
    quiet: bool,
) -> Outcome {
    let mut interrupts = Interrupts::listen()?;
    if args.num_executors > 0 {
        let mut client = cluster.client();
        let answer = cluster
            .answer(client.get_cluster(v1::GetClusterRequest {}))
            .await?;
        check_executors(args, answer.largest_container.as_ref())?;
    }
    let (application_id, files) = ship(&cluster, args, &mut plan, quiet).await?;
    let request = v1::SubmitApplicationRequest {
        application_id,
        name: plan.name,
        queue: args.queue.clone(),
        unmanaged: true,
        max_attempts: 1,
        tags: plan.tags,
        timeout_ms: args.timeout.map_or(0, parse::millis),
        application_type: "BOBBIN".to_owned(),
        settings: plan.settings.into_iter().collect(),
        ..v1::SubmitApplicationRequest::default()
    };
    let mut client = cluster.client();
    let answer = cluster
        .answer(client.submit_application(request))
        .await
        .map_err(super::refused)?;
    let attempt = answer.attempt_id.parse().map_err(|e| {
        Failure::new(
            Kind::Failed,
            format!("the resource manager's answer cannot be used: {e}"),
        )
    })?;
    let mode = ClientMode {
        resource_manager: cluster.target.clone(),
        attempt,
        attempt_token: answer.attempt_token,
        argv: plan.argv,
        environment: plan.environment,
        settings,
        files: ShippedFiles {
            files,
            stores: plan.stores,
        },
    };
    let ended = super::local_mode::to_the_end(run_client_mode(mode), &mut interrupts)
        .await
        .map_err(|e| failure(&e))?;
    let was_ended = ended.failed && !ended.diagnostics.is_empty();
    let mut code = end(&ended);
    if was_ended && is_killed(&cluster, &answer.application_id).await {
        code = KILLED;
    }
    if code != DONE && args.num_executors > 0 && !quiet {
        output::note(&hint(&answer.application_id));
    }
    Ok(code)
}

/// Uploads what the executors shall have; the driver runs here and has its files already.
async fn ship(
    cluster: &Cluster,
    args: &SubmitArgs,
    plan: &mut Plan,
    quiet: bool,
) -> Result<(String, Vec<v1::LocalResource>), Failure> {
    if args.num_executors == 0 || !plan.has_resources() {
        return Ok((String::new(), Vec::new()));
    }
    let mut files = std::mem::take(&mut plan.of_nodes);
    let mut client = cluster.client();
    let new = cluster
        .answer(client.new_application(v1::NewApplicationRequest {}))
        .await?;
    let bar = Bar::bytes(quiet, plan.upload_bytes(), "uploading".to_owned());
    files.extend(upload::all(cluster, &new.application_id, &plan.uploads, &bar).await?);
    Ok((new.application_id, files))
}

/// Whether it was somebody's kill that ended the driver: its own status is then only the signal's.
async fn is_killed(cluster: &Cluster, id: &str) -> bool {
    let report = cluster.application(id).await;
    report.is_ok_and(|report| state_of(&report) == Some(YarnApplicationState::Killed))
}

/// Where to look further: the driver's own words were on this terminal.
fn hint(id: &str) -> String {
    format!(
        "the executors' logs: `bobbin app containers {id}`, `bobbin app logs {id} --container CONTAINER`"
    )
}
