//! `bobbin down`.

use std::time::Duration;

use bobbin_service::Target;
use bobbin_types::YarnApplicationState;
use futures::StreamExt;
use nix::sys::signal::{Signal, kill as signal};
use nix::unistd::Pid;

use crate::args::DownArgs;
use crate::cluster::Cluster;
use crate::commands::kill::kill;
use crate::exit_codes::DONE;
use crate::failure::{Failure, Kind, Outcome};
use crate::host::{Daemon, Layout, Programs, processes};
use crate::output::{self, Bar};

/// How long running applications are given to end in order.
const KILLS_MAX: Duration = Duration::from_secs(20);
/// Kills on the way at a time.
const KILLS_AT_ONCE: usize = 64;
/// How long processes may take to go after SIGKILL.
const GONE_MAX: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

pub(crate) async fn run(args: &DownArgs, quiet: bool) -> Outcome {
    let layout = Layout::of(args.dir.as_deref())?;
    if !layout.exists() {
        return Err(layout.nothing_here());
    }
    end(&layout, quiet).await
}

/// Ends everything of a cluster, in whatever state it is.
pub(crate) async fn end(layout: &Layout, quiet: bool) -> Outcome {
    let programs = Programs::beside_this_one()?;
    let bar = Bar::waiting(quiet, "ending the cluster".to_owned());
    let rm = Daemon::resourcemanager(layout);
    let agents = Daemon::nodeagents(layout);
    if rm.alive().is_some() && agents.iter().any(|a| a.alive().is_some()) {
        bar.say("killing applications".to_owned());
        // What is not recorded as killed would be started again by the next `up`; but a cluster that
        // cannot do even that is ended all the same.
        let killed = tokio::time::timeout(KILLS_MAX, kill_applications(layout)).await;
        if !matches!(killed, Ok(Ok(()))) {
            bar.suspend(|| output::note("not every application could be killed in order"));
        }
    }
    bar.say("ending daemons".to_owned());
    let mut first = None;
    let mut keep = |result: Result<(), Failure>| {
        if let Err(failure) = result
            && first.is_none()
        {
            first = Some(failure);
        }
    };
    for result in futures::future::join_all(agents.iter().map(Daemon::stop)).await {
        keep(result);
    }
    bar.say("ending containers".to_owned());
    let ends = agents.iter().map(|agent| agent.end_containers(&programs));
    for result in futures::future::join_all(ends).await {
        keep(result);
    }
    keep(rm.stop().await);
    keep(end_leftovers(layout).await);
    drop(bar);
    if let Some(failure) = first {
        return Err(failure);
    }
    for daemon in agents.iter().chain([&rm]) {
        daemon.remove_run_files();
    }
    if !quiet {
        output::note(&format!(
            "nothing of the cluster in {} runs",
            layout.dir.display()
        ));
    }
    Ok(DONE)
}

async fn kill_applications(layout: &Layout) -> Result<(), Failure> {
    let cluster = Cluster::connect_to(Target::Unix(layout.socket()), None).await?;
    let states: Vec<_> = YarnApplicationState::ALL
        .iter()
        .filter(|s| !s.is_ended())
        .map(|s| s.as_str().to_owned())
        .collect();
    let running = cluster.applications(&states, "", usize::MAX).await?;
    let kills = running.into_iter().map(|report| {
        let cluster = &cluster;
        async move {
            kill(cluster, &report.id, true, "the cluster was ended")
                .await
                .map(drop)
        }
    });
    futures::stream::iter(kills)
        .buffer_unordered(KILLS_AT_ONCE)
        .fold(Ok(()), |all: Result<(), Failure>, one| async {
            all.and(one)
        })
        .await
}

/// Kills what should not be there any more, and says so when it stays.
async fn end_leftovers(layout: &Layout) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + GONE_MAX;
    loop {
        let left = processes(layout);
        if left.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            let shown: Vec<_> = left
                .iter()
                .take(5)
                .map(|p| format!("{} ({})", p.pid, p.command))
                .collect();
            return Err(Failure::new(
                Kind::Failed,
                format!(
                    "{} processes of the cluster are left: {}",
                    left.len(),
                    shown.join(", ")
                ),
            )
            .try_this("`bobbin down` again, as the user who started it"));
        }
        for process in left {
            // Gone meanwhile, or not ours: the next look tells.
            let _ = signal(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        tokio::time::sleep(LOOK).await;
    }
}
