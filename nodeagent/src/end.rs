//! `--end-containers`: ends what an agent left running, without a trace but logs and exit files.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bobbin_na_core::{Event, NodeAgent, NodeConfig};
use bobbin_sandbox::{Adopted, CgroupRoot, Stop, adopt, process, signal_container};
use bobbin_types::{ContainerId, Millis};

use crate::config::Config;
use crate::folders::Folders;
use crate::launch::chain;
use crate::start::{cgroup_setting, group_name, own_folders};
use crate::store::Store;
use crate::systemd;

/// How long each harder way of ending is waited for, after the grace.
const STEP: Duration = Duration::from_secs(3);

/// Ends every container of this agent's folders and removes its groups. Blocks.
pub(crate) fn end_containers(config: &Config) -> anyhow::Result<()> {
    let _lock = own_folders(config)?;
    let folders = Folders::open(&config.folders.local, &config.folders.log)?;
    let ids = folders.private_containers()?;
    let mut running = Vec::new();
    for id in &ids {
        let private = folders.paths(id, "unknown").private;
        match adopt(&private) {
            Ok(Adopted::Running { pidfd, .. }) => running.push((*id, pidfd)),
            Ok(Adopted::Ended(_) | Adopted::Gone) => {}
            Err(e) => tracing::error!(container = %id, "{}", chain(&e)),
        }
    }
    tracing::info!(
        known = ids.len(),
        running = running.len(),
        "ending containers"
    );
    let grace = Duration::from_millis(config.sandbox.kill_grace_ms.into());
    let first = grace + STEP;
    for (stop, wait) in [
        (Stop::TermThenKill, first),
        (Stop::Kill, STEP),
        (Stop::KillMonitor, STEP),
    ] {
        running = step(running, stop, wait);
    }
    for (id, _) in &running {
        tracing::error!(container = %id, "it cannot be ended");
    }
    clean_up(config, &folders, &ids)?;
    if let Err(e) = remove_groups(config) {
        tracing::error!("groups are left: {e:#}");
    }
    anyhow::ensure!(
        running.is_empty(),
        "{} containers could not be ended",
        running.len()
    );
    Ok(())
}

/// Removes the agent's groups, and the scope that they stood in.
fn remove_groups(config: &Config) -> anyhow::Result<()> {
    let name = group_name(config);
    let below = CgroupRoot::remove_leftovers_of(cgroup_setting(config), &name);
    if systemd::wants_scope(config) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(systemd::end_scope(&name))?;
    }
    Ok(below?)
}

/// Signals all and waits; returns those that are still there.
fn step(
    running: Vec<(ContainerId, OwnedFd)>,
    stop: Stop,
    wait: Duration,
) -> Vec<(ContainerId, OwnedFd)> {
    for (id, monitor) in &running {
        if let Err(e) = signal_container(monitor, stop) {
            tracing::error!(container = %id, "cannot end it: {e}");
        }
    }
    let end = Instant::now() + wait;
    running
        .into_iter()
        .filter(|(_, monitor)| !ended_by(monitor, end))
        .collect()
}

fn ended_by(monitor: &OwnedFd, end: Instant) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(_) | Err(_) => return process::has_ended(monitor),
        }
    }
}

/// Removes the work folders; the users are on record. Exit files stay, so that a later start of the
/// agent tells how each container ended.
fn clean_up(config: &Config, folders: &Folders, ids: &[ContainerId]) -> anyhow::Result<()> {
    let (_store, records) = Store::open(&config.folders.lib)?;
    let mut core = NodeAgent::new(NodeConfig {
        node: "none:0".parse()?,
        total: bobbin_types::Resource::default(),
        reserved: bobbin_types::Resource::default(),
        log_retain_ms: u64::MAX,
    });
    for record in records {
        core.handle(Millis(0), Event::Recovered(record), &mut Vec::new());
    }
    for id in ids {
        let Some(container) = core.container(id) else {
            continue;
        };
        let trashed = folders.clean_up_container(id, container.user.as_str());
        let emptied = trashed.and_then(|all| all.iter().try_for_each(|name| folders.empty(name)));
        if let Err(e) = emptied {
            tracing::error!(container = %id, "clean-up: {e}");
        }
    }
    Ok(())
}
