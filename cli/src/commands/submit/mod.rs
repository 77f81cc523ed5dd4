//! `bobbin submit`: everything is checked here before anything is sent.

mod client_mode;
mod cluster_mode;
mod interrupt;
mod local_mode;
mod plan;
mod sources;
mod text_files;
mod upload;

pub(crate) use interrupt::Interrupts;

use crate::args::{DeployMode, Master, SubmitArgs};
use crate::cluster::Cluster;
use crate::failure::{Failure, Kind, Outcome};
use crate::output;

pub(crate) async fn run(args: SubmitArgs, rm: Option<&str>, quiet: bool) -> Outcome {
    check_modes(&args)?;
    let plan = plan::Plan::new(&args)?;
    // The master would refuse what it does not know, but only after the submission.
    let settings = local_mode::app_settings(&plan.settings)?;
    note_unused(&args, &plan, quiet);
    match (args.master, args.deploy_mode) {
        (Master::Local { slots }, _) => local_mode::run(&args, plan, settings, slots).await,
        (Master::Cluster, DeployMode::Client) => {
            let cluster = Cluster::connect(rm).await?;
            client_mode::run(cluster, &args, plan, settings, quiet).await
        }
        (Master::Cluster, DeployMode::Cluster) => {
            let cluster = Cluster::connect(rm).await?;
            cluster_mode::run(cluster, &args, plan, quiet).await
        }
    }
}

/// Flags that cannot go together, beyond what the parser knows.
fn check_modes(args: &SubmitArgs) -> Result<(), Failure> {
    let is_local = matches!(args.master, Master::Local { .. });
    if is_local && args.deploy_mode == DeployMode::Cluster {
        return Err(
            Failure::usage("--master local runs the driver here, not in cluster mode")
                .try_this("leave out --deploy-mode cluster, or --master"),
        );
    }
    if args.deploy_mode == DeployMode::Cluster {
        return Ok(());
    }
    if args.detach {
        return Err(
            Failure::usage("--detach needs a driver that runs in the cluster")
                .try_this("--deploy-mode cluster --detach"),
        );
    }
    if args.tie_to_client {
        return Err(Failure::usage(
            "--tie-to-client is for cluster mode: in client mode the driver runs here anyway",
        )
        .try_this("leave it out, or --deploy-mode cluster"));
    }
    Ok(())
}

/// A refusal by the resource manager: nothing was wrong with the command line as such, so the exit code
/// is not that of wrong usage.
fn refused(mut failure: Failure) -> Failure {
    if failure.kind == Kind::Usage {
        failure.kind = Kind::Refused;
    }
    if failure.kind == Kind::Refused && failure.cure.is_none() {
        let cure = if failure.message.contains("MiB") {
            "ask for less: --driver-memory, --driver-cores; `bobbin node list` shows what nodes have"
        } else {
            "`bobbin submit --help`"
        };
        return failure.try_this(cure);
    }
    failure
}

/// Says what was asked for and has no meaning here.
fn note_unused(args: &SubmitArgs, plan: &plan::Plan, quiet: bool) {
    let runs_here = args.deploy_mode == DeployMode::Client;
    let has_executors = args.master == Master::Cluster && args.num_executors > 0;
    if runs_here && !has_executors && plan.has_resources() && !quiet {
        output::note(
            "--files and --archives are for containers; everything runs here, beside the files",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_managers_refusal_is_not_wrong_usage() {
        let failure = refused(Failure::usage("1048640 MiB is more than any node has"));
        assert_eq!(failure.kind, Kind::Refused);
        assert!(failure.cure.unwrap().contains("--driver-memory"));
        let away = Failure::new(Kind::Unreachable, "gone");
        assert_eq!(refused(away.clone()), away);
    }
}
