//! Container runtimes to compare with, given the same isolation as a container of ours.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bobbin_sandbox::ContainerSpec;
use serde_json::json;

/// A runtime that may be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    Crun,
    Runc,
    Bwrap,
}

impl Runtime {
    /// By the name on the command line.
    pub(crate) fn from_name(name: &str) -> Option<Runtime> {
        match name {
            "crun" => Some(Runtime::Crun),
            "runc" => Some(Runtime::Runc),
            "bwrap" => Some(Runtime::Bwrap),
            _ => None,
        }
    }

    /// The program, and what brings it.
    pub(crate) fn program(self) -> (&'static str, &'static str) {
        match self {
            Runtime::Crun => ("crun", "apt-get install crun"),
            Runtime::Runc => ("runc", "apt-get install runc"),
            Runtime::Bwrap => ("bwrap", "apt-get install bubblewrap"),
        }
    }
}

/// Where a program is, looked up in the usual folders.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
        .into_iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
}

/// One run of `true` in the runtime, from before its start to its end.
///
/// # Errors
/// When it does not end with 0.
pub(crate) fn run_once(
    runtime: Runtime,
    spec: &ContainerSpec,
    bundle: &Path,
    count: u64,
) -> anyhow::Result<Duration> {
    let (program, _) = runtime.program();
    let path = find(program).with_context(|| format!("{program} is not installed"))?;
    let mut command = command(runtime, &path, spec, bundle, count);
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    let time = start.elapsed();
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    Ok(time)
}

#[expect(
    clippy::disallowed_methods,
    reason = "starting the runtime is what is measured"
)]
fn command(
    runtime: Runtime,
    path: &Path,
    spec: &ContainerSpec,
    bundle: &Path,
    count: u64,
) -> Command {
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    if std::env::var_os("BOBBIN_BENCH_VERBOSE").is_none() {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    match runtime {
        Runtime::Crun | Runtime::Runc => {
            command.arg("--root").arg(bundle.join("state")).arg("run");
            command
                .arg("--bundle")
                .arg(bundle)
                .arg(format!("bench-{}-{count}", std::process::id()));
        }
        Runtime::Bwrap => {
            command.args([
                "--unshare-pid",
                "--unshare-ipc",
                "--unshare-uts",
                "--die-with-parent",
            ]);
            for folder in ["usr", "etc", "opt"] {
                command
                    .arg("--ro-bind")
                    .args([format!("/{folder}"), format!("/{folder}")]);
            }
            for (to, link) in [
                ("usr/bin", "/bin"),
                ("usr/lib", "/lib"),
                ("usr/lib64", "/lib64"),
            ] {
                command.args(["--symlink", to, link]);
            }
            command.args([
                "--ro-bind",
                "/sys",
                "/sys",
                "--proc",
                "/proc",
                "--dev",
                "/dev",
            ]);
            command.args(["--tmpfs", "/tmp"]);
            for folder in [&spec.work_dir, &spec.log_dir] {
                command.arg("--bind").arg(folder).arg(folder);
            }
            command.arg("--bind").arg(&spec.run_dir).arg("/run/bobbin");
            command
                .arg("--chdir")
                .arg(&spec.work_dir)
                .args(["--cap-drop", "ALL"]);
            command.args(["--", "/usr/bin/true"]);
            command.uid(spec.uid).gid(spec.gid);
        }
    }
    command
}

/// Writes an OCI bundle whose container sees what ours sees.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write_bundle(bundle: &Path, spec: &ContainerSpec, group: &str) -> anyhow::Result<()> {
    let root = bundle.join("rootfs");
    for folder in [
        "usr",
        "etc",
        "opt",
        "proc",
        "sys",
        "dev",
        "tmp",
        "run/bobbin",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    for (link, to) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ] {
        let link = root.join(link);
        if !link.exists() {
            std::os::unix::fs::symlink(to, link)?;
        }
    }
    fs::write(
        bundle.join("config.json"),
        serde_json::to_vec(&config(spec, group))?,
    )?;
    Ok(())
}

fn config(spec: &ContainerSpec, group: &str) -> serde_json::Value {
    let bind = |source: &Path, target: &Path, mode: &str| {
        json!({
            "source": source, "destination": target, "type": "bind",
            "options": ["bind", mode, "nosuid", "nodev"],
        })
    };
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc",
               "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "mode=755", "size=64k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
               "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
               "options": ["nosuid", "nodev", "mode=1777", "size=16m"]}),
        json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "nodev", "mode=1777", "size=16m"]}),
    ];
    for folder in ["/usr", "/etc", "/opt", "/sys"] {
        mounts.push(bind(Path::new(folder), Path::new(folder), "ro"));
    }
    mounts.push(bind(&spec.work_dir, &spec.work_dir, "rw"));
    mounts.push(bind(&spec.log_dir, &spec.log_dir, "rw"));
    mounts.push(bind(&spec.run_dir, Path::new("/run/bobbin"), "rw"));
    let nofile = json!([{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]);
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "terminal": false, "user": {"uid": spec.uid, "gid": spec.gid},
            "args": ["/usr/bin/true"], "env": ["PATH=/usr/bin:/bin"], "cwd": spec.work_dir,
            "capabilities": {}, "rlimits": nofile, "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": mounts,
        "linux": {
            "cgroupsPath": group,
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
            "resources": {
                "memory": {"limit": spec.memory_mib << 20},
                "cpu": {"shares": 1024},
                "pids": {"limit": spec.pids_max},
            },
            "seccomp": seccomp(),
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// A list of about the length of ours; what it refuses makes no difference to the time.
fn seccomp() -> serde_json::Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{
            "names": [
                "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "bpf",
                "perf_event_open", "userfaultfd", "add_key", "request_key", "keyctl", "ptrace",
                "process_vm_readv", "process_vm_writev", "kcmp", "settimeofday", "clock_settime",
                "adjtimex", "init_module", "finit_module", "delete_module", "kexec_load", "reboot",
                "swapon", "swapoff", "quotactl", "acct", "syslog", "sethostname", "vhangup",
                "open_by_handle_at", "name_to_handle_at", "fanotify_init", "move_pages"
            ],
            "action": "SCMP_ACT_ERRNO"
        }]
    })
}
