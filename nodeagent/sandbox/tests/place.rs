//! Where an agent's groups and helpers stand, when that is not its own group.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bobbin_sandbox::cgroup::{CgroupLimits, Controller, Layout};
use bobbin_sandbox::{CgroupRoot, CpuMode, Holder, Launcher};

fn init() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_bobbin-container-init"))
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The own group in the v2 hierarchy, with or without controllers.
fn own_v2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").expect("proc is mounted");
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let point = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(point))
    })?;
    let groups = fs::read_to_string("/proc/self/cgroup").expect("proc is mounted");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(mount.join(own))
}

fn within_seconds(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_holder_lives_as_long_as_its_owner() {
    let holder = Holder::start(init()).unwrap();
    let process = PathBuf::from(format!("/proc/{}", holder.pid()));
    assert!(process.exists());
    drop(holder);
    assert!(!process.exists());
}

#[test]
fn launch_servers_are_born_in_the_group_they_are_told() {
    let own = own_v2().filter(|_| is_root());
    let Some(own) = own else {
        eprintln!(
            "SKIPPED: launch_servers_are_born_in_the_group_they_are_told needs root and cgroup2"
        );
        return;
    };
    let group = own.join(format!("bobbin-test-place-{}", std::process::id()));
    assert!(Launcher::start_in(init(), Some(group.clone())).is_err());
    fs::create_dir(&group).unwrap();
    let launcher = Launcher::start_in(init(), Some(group.clone())).unwrap();
    let there = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    let server = launcher.server_pid().to_string();
    assert!(there.lines().any(|pid| pid == server), "{server}: {there}");
    let own_there = std::process::id().to_string();
    assert!(there.lines().all(|pid| pid != own_there), "{there}");
    drop(launcher);
    within_seconds("spares end with their server", || {
        fs::remove_dir(&group).is_ok()
    });
}

#[test]
fn what_an_agent_left_is_removed_and_nothing_is_made() {
    if !is_root() {
        eprintln!("SKIPPED: what_an_agent_left_is_removed_and_nothing_is_made needs root");
        return;
    }
    let name = format!("test-left-{}", std::process::id());
    let memory = Layout::read()
        .unwrap()
        .of(Controller::Memory)
        .unwrap()
        .own
        .clone();
    let base = memory.join(format!("bobbin-{name}"));
    CgroupRoot::remove_leftovers_of(None, &name).unwrap();
    assert!(!base.exists());
    let groups = CgroupRoot::detect(None, &name).unwrap();
    let limits = CgroupLimits {
        memory_mib: 64,
        vcores: 1,
        cpu: CpuMode::Share,
        pids_max: 10,
    };
    let lease = groups.lease("one", &limits).unwrap();
    assert!(lease.memory.unwrap().0.starts_with(&base));
    drop(groups);
    assert!(base.exists());
    CgroupRoot::remove_leftovers_of(None, &name).unwrap();
    assert!(!base.exists());
}
