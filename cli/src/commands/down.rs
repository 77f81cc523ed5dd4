//! `bobbin down`.

use std::time::Duration;

use bobbin_proto::v1;
use bobbin_types::YarnApplicationState;
use futures::StreamExt;
use nix::sys::signal::{Signal, kill as signal};
use nix::unistd::Pid;

use crate::args::DownArgs;
use crate::cluster::Cluster;
use crate::commands::kill::kill;
use crate::commands::up::connect;
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
    if rm.is_alive() || rm.was_killed() {
        bar.say("killing applications".to_owned());
        // What is not recorded as killed would be started again by the next `up`; but a cluster that
        // cannot do even that is ended all the same.
        let kills = kill_applications(layout, &programs, &rm, &agents);
        let killed = tokio::time::timeout(KILLS_MAX, kills).await;
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

/// Has the resource manager kill everything; one that died is started for it, because only it can
/// record a kill. One that dies just now is tried again.
async fn kill_applications(
    layout: &Layout,
    programs: &Programs,
    rm: &Daemon,
    agents: &[Daemon],
) -> Result<(), Failure> {
    let deadline = std::time::Instant::now() + KILLS_MAX;
    loop {
        let mut started = Vec::new();
        if !rm.is_alive() {
            started.push(rm.start(programs)?);
        }
        let killed = match connect(layout, &mut started, deadline).await {
            Ok(cluster) => {
                // Just started, it may wait long for what its nodes have not told it yet.
                let wait = started.is_empty() && agents.iter().any(Daemon::is_alive);
                kill_all(&cluster, wait).await
            }
            Err(failure) => Err(failure),
        };
        if killed.is_ok() || std::time::Instant::now() > deadline {
            return killed;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits for processes only where that is asked: `--end-containers` ends them all the same.
async fn kill_all(cluster: &Cluster, wait: bool) -> Result<(), Failure> {
    let states: Vec<_> = YarnApplicationState::ALL
        .iter()
        .filter(|s| !s.is_ended())
        .map(|s| s.as_str().to_owned())
        .collect();
    let wanted = v1::ListApplicationsRequest {
        states,
        ..v1::ListApplicationsRequest::default()
    };
    let running = cluster.applications(wanted, usize::MAX).await?;
    let kills = running.into_iter().map(|report| async move {
        kill(cluster, &report.id, wait, "the cluster was ended")
            .await
            .map(drop)
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
