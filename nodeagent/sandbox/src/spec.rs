//! What the agent asks for: one container, completely described.

use std::ffi::CStr;
use std::path::PathBuf;

use crate::cgroup::CgroupLease;

/// How far a container is shut in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Everything: namespaces, own root, another uid, no capabilities, seccomp, cgroups if leased.
    Full,
    /// One user namespace that maps the caller's own uid: for `bobbin up` by an ordinary user.
    Rootless,
    /// The rootless one where namespaces are refused: processes of the caller's own user with no new
    /// privileges, the filter and limits, and nothing hidden from them.
    Plain,
}

/// How vcores bind the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuMode {
    /// A share of the processor when it is contended, all of it otherwise.
    Share,
    /// Never more than the granted vcores.
    HardCap,
}

/// A file or folder of the host that the container sees.
///
/// Both paths are absolute and without `.`, `..` or symbolic links: what is followed is what the
/// agent checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub source: PathBuf,
    pub target: PathBuf,
    pub writable: bool,
}

/// Limits that are not resources of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// RLIMIT_NOFILE, soft and hard; the agent's own hard limit if that may not be lifted.
    pub open_files: u64,
    /// RLIMIT_NPROC of the uid over the whole host, soft and hard; 0 leaves it as it is.
    /// The container's own processes are bounded by `pids_max`.
    pub user_processes: u64,
    /// Size of the private `/tmp` and of `/dev/shm`, each, in MiB.
    pub tmp_mib: u64,
    /// How willingly the kernel ends the container when the host itself has no memory, 0 to 1000.
    pub oom_score_adj: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            open_files: 65_536,
            user_processes: 0,
            tmp_mib: 1024,
            oom_score_adj: 500,
        }
    }
}

/// A signal for the program's process group that need not be its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedSignal {
    /// TERM, and no KILL after it.
    Term,
    /// QUIT: a JVM prints its threads.
    Quit,
}

/// What the two files of the program's output are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFiles {
    /// `stdout` and `stderr`.
    Standard,
    /// `prelaunch.out` and `prelaunch.err`: the command makes its own `stdout` and `stderr`.
    /// Source: `ContainerLaunch.CONTAINER_PRE_LAUNCH_STDOUT`.
    Prelaunch,
}

impl OutputFiles {
    /// The names of the files for standard output and standard error.
    #[must_use]
    pub fn names(self) -> [&'static CStr; 2] {
        match self {
            OutputFiles::Standard => [c"stdout", c"stderr"],
            OutputFiles::Prelaunch => [c"prelaunch.out", c"prelaunch.err"],
        }
    }
}

/// One container, as the agent wants it.
///
/// Every folder is an absolute path without symbolic links in it (the agent resolves its configured
/// folders once, at start): the launcher opens them as root and refuses to follow any link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpec {
    /// YARN's form; the end of it becomes the monitor's process name.
    pub container_id: String,
    /// Program and arguments. A bare name is looked up in the environment's PATH, in the container.
    pub argv: Vec<String>,
    /// The whole environment; nothing else is inherited.
    pub environment: Vec<(String, String)>,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, exactly these.
    pub groups: Vec<u32>,
    pub user_name: String,
    /// Host name inside; empty keeps the host's.
    pub host_name: String,
    /// Current folder of the program, bound writable at the same path.
    pub work_dir: PathBuf,
    /// Further binds. A parent must not come after its child: they are sorted by depth.
    pub binds: Vec<Bind>,
    /// Folder of the logs, bound writable at the same path; the output files are made in it.
    pub log_dir: PathBuf,
    pub output_files: OutputFiles,
    /// Bytes of both output files together, then a mark and silence. 0 means no limit.
    pub log_bytes_max: u64,
    /// The agent's own folder for this container, not seen inside: start and exit file.
    pub private_dir: PathBuf,
    /// Bound writable at `/run/bobbin`; its `bin` folder is bound over itself read-only.
    pub run_dir: PathBuf,
    pub memory_mib: u64,
    pub vcores: u32,
    pub cpu: CpuMode,
    /// Most processes and threads at a time.
    pub pids_max: u32,
    pub limits: Limits,
    /// Time between TERM and KILL when the container is stopped.
    pub kill_grace_ms: u32,
    pub profile: Profile,
    /// The control groups to run in; without them memory is measured by sampling.
    pub cgroups: Option<CgroupLease>,
}
