//! A launcher and folders for one test, and the wait for what a container leaves.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests are tests, which clippy does not see in this folder"
)]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bobbin_sandbox::{
    Bind, ContainerSpec, CpuMode, ExitRecord, LaunchError, Launched, Launcher, Limits, OutputFiles,
    Profile, read_exit,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// An account that owns nothing on any host.
pub const UID: u32 = 65_533;

/// Whether this test can run; says loudly if not.
pub fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIPPED: {test} needs root");
    }
    root
}

pub struct Host {
    pub launcher: Launcher,
    pub dir: tempfile::TempDir,
    count: std::cell::Cell<u32>,
}

pub struct Container {
    pub spec: ContainerSpec,
    pub launched: Launched,
}

impl Host {
    pub fn new() -> Host {
        Host::with(|init, _| init.to_owned())
    }

    /// A launcher without root, as an ordinary user has it.
    pub fn rootless() -> Host {
        Host::with(|init, dir| {
            // The program may lie in a folder that only root can enter.
            let copy = dir.join("init");
            fs::copy(init, &copy).unwrap();
            let script = dir.join("init.sh");
            let drop = format!("setpriv --reuid {UID} --regid {UID} --clear-groups");
            let text = format!("#!/bin/sh\nexec {drop} -- {} \"$@\"\n", copy.display());
            fs::write(&script, text).unwrap();
            for (path, mode) in [(dir, 0o755), (&copy, 0o755), (&script, 0o755)] {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            script
        })
    }

    fn with(program: impl FnOnce(&Path, &Path) -> PathBuf) -> Host {
        let dir = tempfile::Builder::new()
            .prefix("bobbin-test-sandbox-")
            .tempdir()
            .unwrap();
        let init = Path::new(env!("CARGO_BIN_EXE_bobbin-container-init"));
        let launcher = Launcher::start(&program(init, dir.path())).unwrap();
        Host {
            launcher,
            dir,
            count: std::cell::Cell::new(0),
        }
    }

    /// A specification with folders of its own.
    pub fn spec(&self, argv: &[&str]) -> ContainerSpec {
        self.count.set(self.count.get() + 1);
        let base = self.dir.path().join(format!("c{}", self.count.get()));
        let folder = |name: &str, mode: u32| {
            let path = base.join(name);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            chown(&path, Some(UID), Some(UID)).unwrap();
            path
        };
        ContainerSpec {
            container_id: format!(
                "container_e01_1790000000000_0001_01_{:06}",
                self.count.get()
            ),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            environment: vec![
                (
                    "PATH".into(),
                    "/run/bobbin/bin:/usr/local/bin:/usr/bin:/bin".into(),
                ),
                ("A".into(), "1 é".into()),
            ],
            uid: UID,
            gid: UID,
            groups: vec![],
            user_name: "nobody".into(),
            host_name: String::new(),
            work_dir: folder("work", 0o750),
            binds: vec![],
            log_dir: folder("log", 0o750),
            output_files: OutputFiles::Standard,
            log_bytes_max: 1 << 20,
            private_dir: folder("private", 0o700),
            run_dir: folder("run", 0o755),
            memory_mib: 64,
            vcores: 1,
            cpu: CpuMode::Share,
            pids_max: 100,
            limits: Limits {
                tmp_mib: 16,
                ..Limits::default()
            },
            kill_grace_ms: 100,
            profile: Profile::Full,
            cgroups: None,
        }
    }

    pub fn sh(&self, script: &str) -> ContainerSpec {
        self.spec(&["/bin/sh", "-c", script])
    }

    pub fn start(&self, spec: ContainerSpec) -> Container {
        let launched = self.launcher.launch(&spec).unwrap();
        Container { spec, launched }
    }

    pub fn run(&self, spec: ContainerSpec) -> (ExitRecord, String, String) {
        let container = self.start(spec);
        let record = container.wait();
        (record, container.log("stdout"), container.log("stderr"))
    }

    /// Runs a script and returns its output; it must succeed.
    pub fn out(&self, script: &str) -> String {
        let (record, out, err) = self.run(self.sh(script));
        assert_eq!(record.exit_status, 0, "{script}: {out}{err}");
        out.trim_end().to_owned()
    }

    pub fn refused(&self, spec: &ContainerSpec) -> LaunchError {
        self.launcher.launch(spec).unwrap_err()
    }
}

impl Container {
    pub fn wait(&self) -> ExitRecord {
        assert!(
            wait_ended(&self.launched.pidfd),
            "the monitor has not ended in 30 s"
        );
        read_exit(&self.spec.private_dir)
            .unwrap()
            .expect("an exit file")
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.spec.log_dir.join(name)).unwrap()
    }
}

pub fn wait_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(30_000_u16)) == Ok(1)
}

/// Waits for a condition that another process brings about.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "waited 30 s for {what}");
        std::thread::yield_now();
    }
}

pub fn bind(source: PathBuf, target: impl Into<PathBuf>, writable: bool) -> Bind {
    Bind {
        source,
        target: target.into(),
        writable,
    }
}
