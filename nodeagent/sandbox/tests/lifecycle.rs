//! How containers end, are limited, outlive their launcher and leave nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests are tests, which clippy does not see in this folder"
)]

mod common;

use std::fs;
use std::path::Path;
use std::time::Instant;

use bobbin_sandbox::{
    Adopted, CgroupLimits, CgroupRoot, ContainerSpec, CpuMode, Launcher, OutputFiles, PassedSignal,
    Stop, adopt, change_memory, pass_signal, signal_container,
};
use common::{Container, Host, is_root, wait_ended, wait_for};

fn limits(memory_mib: u64, pids_max: u32) -> CgroupLimits {
    CgroupLimits {
        memory_mib,
        vcores: 1,
        cpu: CpuMode::Share,
        pids_max,
    }
}

/// Groups of one test, removed at its end even if it fails.
struct Groups(CgroupRoot);

impl Groups {
    fn new(name: &str) -> Groups {
        Groups(CgroupRoot::detect(None, &format!("test-{name}-{}", std::process::id())).unwrap())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.0.remove_all().unwrap();
    }
}

fn limited(host: &Host, groups: &Groups, script: &str, memory_mib: u64) -> ContainerSpec {
    let mut spec = host.sh(script);
    spec.memory_mib = memory_mib;
    let lease = groups
        .0
        .lease(&spec.container_id, &limits(memory_mib, 20))
        .unwrap();
    spec.cgroups = Some(lease);
    spec
}

/// Processes of the host whose command line holds `mark`.
fn processes(mark: &str) -> usize {
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0;
    };
    entries
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| {
            line.windows(mark.len())
                .any(|window| window == mark.as_bytes())
        })
        .count()
}

#[test]
fn above_its_memory() {
    if !is_root("memory") {
        return;
    }
    // Before any child: on v2 the own group must hold no other process.
    let groups = Groups::new("memory");
    let host = Host::new();
    let script = "exec /usr/bin/python3 -c 'x=bytearray(300<<20)'";
    let spec = limited(&host, &groups, script, 64);
    let lease = spec.cgroups.clone().unwrap();
    let (record, ..) = host.run(spec);
    assert_eq!(record.exit_status, -104, "{record:?}");
    let words = &record.diagnostics;
    assert!(
        words.contains("64.0 MB of 64 MB physical memory used"),
        "{words}"
    );
    assert!(words.contains("python3"), "{words}");
    groups.0.release(lease).unwrap();
    // What fits, fits.
    let spec = limited(
        &host,
        &groups,
        "exec /usr/bin/python3 -c 'x=bytearray(20<<20)'",
        64,
    );
    let lease = spec.cgroups.clone().unwrap();
    assert_eq!(host.run(spec).0.exit_status, 0);
    let usage = groups.0.usage(&lease);
    assert!(usage.cpu_usec > 0 && usage.pids == 0, "{usage:?}");
    groups.0.release(lease).unwrap();
    // Memory in files counts too. On v1 a write that does not fit is refused with an error, which
    // the program may meet before it needs memory itself.
    let mut spec = limited(&host, &groups, "head -c 200m /dev/zero > /dev/shm/x", 64);
    spec.limits.tmp_mib = 400;
    let (record, _, err) = host.run(spec);
    let refused = record.exit_status == 1 && err.contains("Cannot allocate memory");
    assert!(record.exit_status == -104 || refused, "{record:?} {err}");
}

#[test]
fn memory_without_groups_is_measured() {
    if !is_root("measured memory") {
        return;
    }
    let host = Host::new();
    let mut spec = host.sh("/usr/bin/python3 -c 'x=bytearray(300<<20); input()' < /dev/zero");
    spec.memory_mib = 64;
    let (record, ..) = host.run(spec);
    assert_eq!(record.exit_status, -104, "{record:?}");
    assert!(
        record.diagnostics.contains("of 64 MB physical memory used"),
        "{record:?}"
    );
}

#[test]
fn a_fork_bomb_meets_its_limit() {
    if !is_root("pids") {
        return;
    }
    // Before any child: on v2 the own group must hold no other process.
    let groups = Groups::new("pids");
    let host = Host::new();
    let script = "for i in $(seq 50); do sleep 60 & done 2>/dev/null; exit 5";
    let spec = limited(&host, &groups, script, 64);
    let lease = spec.cgroups.clone().unwrap();
    let (record, _, err) = host.run(spec);
    assert!(
        record.exit_status == 5 || record.exit_status == 2,
        "{record:?} {err}"
    );
    groups.0.release(lease).unwrap();
}

#[test]
fn daemons_die_with_their_container() {
    if !is_root("daemons") {
        return;
    }
    let host = Host::new();
    let mark = format!("86{}", std::process::id());
    let script = format!("setsid sh -c 'sleep {mark} & sleep {mark} &' ; exit 4");
    let (record, ..) = host.run(host.sh(&script));
    assert_eq!(record.exit_status, 4);
    assert_eq!(processes(&mark), 0);
}

fn started(host: &Host, script: &str) -> Container {
    started_with_grace(host, script, 100)
}

fn started_with_grace(host: &Host, script: &str, kill_grace_ms: u32) -> Container {
    let spec = host.sh(&format!("{script}; echo up; while :; do sleep 1; done"));
    let container = host.start(ContainerSpec {
        kill_grace_ms,
        ..spec
    });
    wait_for("the program's line", || container.log("stdout") == "up\n");
    container
}

#[test]
fn stopping_with_and_without_consent() {
    if !is_root("stopping") {
        return;
    }
    let host = Host::new();
    // Long enough for a busy machine: it is not waited for when the program goes by itself.
    let container = started_with_grace(&host, "trap 'exit 9' TERM", 20_000);
    signal_container(&container.launched.pidfd, Stop::TermThenKill).unwrap();
    assert_eq!(container.wait().exit_status, 9);

    let container = started(&host, "trap '' TERM");
    let before = Instant::now();
    signal_container(&container.launched.pidfd, Stop::TermThenKill).unwrap();
    signal_container(&container.launched.pidfd, Stop::TermThenKill).unwrap();
    let record = container.wait();
    assert_eq!((record.exit_status, record.signal), (137, Some(9)));
    assert!(
        before.elapsed().as_millis() >= 100,
        "the grace time was cut short"
    );

    let container = started(&host, "trap '' TERM");
    signal_container(&container.launched.pidfd, Stop::Kill).unwrap();
    assert_eq!(container.wait().exit_status, 137);
    // Asking again is fine.
    signal_container(&container.launched.pidfd, Stop::Kill).unwrap();
}

#[test]
fn a_killed_monitor_takes_its_container_along() {
    if !is_root("killed monitor") {
        return;
    }
    let host = Host::new();
    let mark = format!("87{}", std::process::id());
    let container = started(&host, &format!("setsid sleep {mark} & :"));
    signal_container(&container.launched.pidfd, Stop::KillMonitor).unwrap();
    assert!(wait_ended(&container.launched.pidfd));
    wait_for("the container's end", || processes(&mark) == 0);
    assert!(matches!(
        adopt(&container.spec.private_dir).unwrap(),
        Adopted::Gone
    ));
}

#[test]
fn containers_outlive_the_launcher() {
    if !is_root("outliving") {
        return;
    }
    let mut host = Host::new();
    let script = "while ! test -e go; do sleep 0.01; done; echo late; exit 6";
    let container = host.start(host.sh(script));
    let init = Path::new(env!("CARGO_BIN_EXE_bobbin-container-init"));
    // The old server ends when the last owner of its socket is gone.
    let old = i32::try_from(host.launcher.server_pid()).unwrap();
    host.launcher = Launcher::start(init).unwrap();
    assert!(bobbin_sandbox::process::start_ticks(old).is_none());
    let Adopted::Running { start, pidfd } = adopt(&container.spec.private_dir).unwrap() else {
        panic!("it does not run")
    };
    assert_eq!(start.container_id, container.spec.container_id);
    assert_eq!(start.monitor_pid, container.launched.monitor_pid);
    assert_eq!(
        start.monitor_start_ticks,
        container.launched.monitor_start_ticks
    );
    fs::write(container.spec.work_dir.join("go"), "").unwrap();
    assert!(wait_ended(&pidfd));
    let Adopted::Ended(record) = adopt(&container.spec.private_dir).unwrap() else {
        panic!("no record")
    };
    assert_eq!(record.exit_status, 6);
    assert_eq!(container.log("stdout"), "late\n");
}

#[test]
fn a_forbidden_start_does_not_happen() {
    if !is_root("forbidden start") {
        return;
    }
    let host = Host::new();
    let spec = host.sh("touch ran");
    assert!(bobbin_sandbox::forbid_start(&spec.private_dir).unwrap());
    let error = host.refused(&spec);
    assert!(error.to_string().contains("start file"), "{error}");
    assert!(!spec.work_dir.join("ran").exists());
    assert!(matches!(adopt(&spec.private_dir).unwrap(), Adopted::Gone));
}

#[test]
fn a_killed_server_is_replaced() {
    if !is_root("killed server") {
        return;
    }
    let host = Host::new();
    assert_eq!(host.out("echo 1"), "1");
    let pid = i32::try_from(host.launcher.server_pid()).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    // Its spares take what they can until they see the end; then a new server is started.
    for round in 0..5 {
        assert_eq!(host.out(&format!("echo {round}")), round.to_string());
    }
}

#[test]
fn output_beyond_the_limit_is_cut() {
    if !is_root("log limit") {
        return;
    }
    let host = Host::new();
    let mut spec = host.sh("head -c 300000 /dev/zero | tr '\\0' x; echo late; exit 3");
    spec.log_bytes_max = 100_000;
    let (record, out, _) = host.run(spec);
    assert_eq!(record.exit_status, 3);
    assert!(out.len() < 100_200, "{}", out.len());
    assert!(out[..100_000].bytes().all(|byte| byte == b'x'));
    assert!(out[100_000..].contains("bobbin: cut here") && !out.contains("late"));
}

#[test]
fn nothing_is_left() {
    if !is_root("leftovers") {
        return;
    }
    // Before any child: on v2 the own group must hold no other process.
    let groups = Groups::new("left");
    let host = Host::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for round in 0..50 {
        let spec = limited(&host, &groups, "sleep 0 & exit 1", 32 + round % 3);
        let lease = spec.cgroups.clone().unwrap();
        let container = host.start(spec);
        assert_eq!(container.wait().exit_status, 1);
        groups.0.release(lease).unwrap();
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    let init = format!("test-left-{}", std::process::id());
    let memory = groups
        .0
        .layout()
        .of(bobbin_sandbox::cgroup::Controller::Memory)
        .unwrap();
    let base = memory.own.join(format!("bobbin-{init}"));
    // One after the other: one group was enough.
    let slots = || {
        fs::read_dir(&base)
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().is_dir())
    };
    assert_eq!(slots().count(), 1);
    groups.0.drain_pool().unwrap();
    assert_eq!(slots().count(), 0);
    // Server and spares only.
    let server = host.launcher.server_pid();
    let children =
        || fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap_or_default();
    wait_for("ended monitors to be reaped", || {
        children().split_whitespace().count() == 3
    });
    let host_dir = host.dir.path().to_owned();
    drop(host);
    assert!(!host_dir.exists());
}

#[test]
fn many_at_once() {
    if !is_root("parallel launches") {
        return;
    }
    let host = Host::new();
    let specs: Vec<_> = (0..24).map(|n| host.sh(&format!("exit {n}"))).collect();
    let launcher = &host.launcher;
    std::thread::scope(|scope| {
        for (n, spec) in specs.into_iter().enumerate() {
            scope.spawn(move || {
                let launched = launcher.launch(&spec).unwrap();
                let code = Container { spec, launched }.wait().exit_status;
                assert_eq!(usize::try_from(code).unwrap(), n);
            });
        }
    });
}

#[test]
fn signals_are_passed_on_and_end_nothing_by_themselves() {
    if !is_root("signals") {
        return;
    }
    let host = Host::new();
    let script = "trap 'echo quit' QUIT; trap 'echo term; exit 4' TERM; echo up; \
                  while :; do sleep 0.05; done";
    let container = host.start(host.spec(&["/bin/bash", "-c", script]));
    wait_for("the program", || container.log("stdout") == "up\n");
    pass_signal(&container.launched.pidfd, PassedSignal::Quit).unwrap();
    wait_for("QUIT", || container.log("stdout") == "up\nquit\n");
    pass_signal(&container.launched.pidfd, PassedSignal::Term).unwrap();
    assert_eq!(container.wait().exit_status, 4);
    assert_eq!(container.log("stdout"), "up\nquit\nterm\n");
    pass_signal(&container.launched.pidfd, PassedSignal::Quit).unwrap();
}

#[test]
fn a_command_that_makes_its_own_output_files_finds_their_names_free() {
    if !is_root("output files") {
        return;
    }
    let host = Host::new();
    let mut spec = host.sh("echo first; echo wrong >&2; exec echo second >$LOGS/stdout");
    let logs = spec.log_dir.display().to_string();
    spec.environment.push(("LOGS".into(), logs));
    spec.output_files = OutputFiles::Prelaunch;
    let container = host.start(spec);
    assert_eq!(container.wait().exit_status, 0);
    assert_eq!(container.log("stdout"), "second\n");
    assert_eq!(container.log("prelaunch.out"), "first\n");
    assert_eq!(container.log("prelaunch.err"), "wrong\n");
    assert!(!container.spec.log_dir.join("stderr").exists());
}

#[test]
fn more_memory_while_it_runs() {
    if !is_root("resizing") {
        return;
    }
    // Before any child: on v2 the own group must hold no other process.
    let groups = Groups::new("resize");
    let host = Host::new();
    let script = "while [ ! -e go ]; do sleep 0.02; done; \
                  exec /usr/bin/python3 -c 'x=bytearray(100<<20); y=open(\"said\",\"w\"); \
                  y.write(\"100\"); y.close(); x=bytearray(600<<20)'";
    let spec = limited(&host, &groups, script, 32);
    let lease = spec.cgroups.clone().unwrap();
    let container = host.start(spec);
    groups.0.resize(&lease, &limits(256, 20)).unwrap();
    change_memory(&container.spec.private_dir, 256).unwrap();
    fs::write(container.spec.work_dir.join("go"), "").unwrap();
    let record = container.wait();
    let said = fs::read_to_string(container.spec.work_dir.join("said")).unwrap();
    assert_eq!(said, "100", "it has had room for 100 MiB");
    assert_eq!(record.exit_status, -104);
    assert!(
        record
            .diagnostics
            .contains("of 256 MB physical memory used"),
        "{}",
        record.diagnostics
    );
    groups.0.release(lease).unwrap();
}

#[test]
fn what_a_shell_leaves_behind_has_the_grace_time_too() {
    if !is_root("the grace of others") {
        return;
    }
    let host = Host::new();
    // As YARN's commands are: the shell dies of TERM at once, what it runs takes its time.
    let script = "/bin/bash -c 'trap \"sleep 0.2; echo saved; exit 3\" TERM; echo up; \
                  while :; do sleep 0.02; done' 1>&1";
    let mut spec = host.spec(&["/bin/bash", "-c", &format!("{script}; exit 5")]);
    spec.kill_grace_ms = 20_000;
    let container = host.start(spec);
    wait_for("the program", || container.log("stdout") == "up\n");
    let begin = Instant::now();
    signal_container(&container.launched.pidfd, Stop::TermThenKill).unwrap();
    assert_eq!(container.wait().exit_status, 143);
    assert_eq!(container.log("stdout"), "up\nsaved\n");
    assert!(
        begin.elapsed().as_secs() < 15,
        "it ends with the last of them"
    );
}
