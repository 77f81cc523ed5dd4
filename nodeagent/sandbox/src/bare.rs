//! The floor that benchmarks compare a launch with: the same isolation, written straight.
//!
//! One process, no monitor, no PID 1 of its own, no logs, no records: clone into the namespaces,
//! join pooled groups, make the root, become the user, filter, execute, reap.
//! Measured from a small single-threaded process, so that nothing but the kernel's own work counts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::base::{self, Builder, Failed, failed};
use crate::error::LaunchError;
use crate::inside;
use crate::mounts;
use crate::plan::{self, RootPlan};
use crate::program::Program;
use crate::seccomp;
use crate::spec::ContainerSpec;
use crate::sys;

/// How much of the root is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareRoot {
    /// The same mounts as in a container.
    Same,
    /// The host's root bound as it is, and a new `/proc`: the least a pid namespace needs.
    Least,
}

/// Times of one bare launch, from before the clone.
#[derive(Clone, Copy, Debug)]
pub struct BareTimes {
    pub to_exec: Duration,
    pub to_reaped: Duration,
}

/// A prepared floor: what can be known before is not measured.
#[derive(Debug)]
pub struct Bare {
    spec: ContainerSpec,
    plan: RootPlan,
    filter: Vec<libc::sock_filter>,
    groups: Vec<File>,
    null: File,
}

impl Bare {
    /// # Errors
    /// When the specification is refused or its groups cannot be opened.
    pub fn new(spec: &ContainerSpec) -> Result<Bare, LaunchError> {
        plan::check(spec)?;
        let setup = |error: Failed| LaunchError::Setup {
            step: error.step,
            source: error.source,
        };
        let open = |path: &std::path::Path| OpenOptions::new().write(true).open(path);
        let mut groups = Vec::new();
        if let Some(lease) = &spec.cgroups {
            let joined = lease.groups.iter().map(|group| group.join("tasks"));
            let joined_v2 = lease.into_v2.iter().map(|group| group.join("cgroup.procs"));
            for file in joined.chain(joined_v2) {
                groups.push(
                    open(&file)
                        .map_err(failed("open the groups"))
                        .map_err(setup)?,
                );
            }
        }
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        Ok(Bare {
            spec: spec.clone(),
            plan: plan::plan(spec, base::resolv_target().as_deref())?,
            filter: seccomp::filter(),
            groups,
            null: null.map_err(failed("open /dev/null")).map_err(setup)?,
        })
    }

    /// One launch, to the end of the program. The calling process must have one thread.
    ///
    /// # Errors
    /// The step that failed, or that the program did not exit with 0.
    pub fn run(&self, root: BareRoot) -> Result<BareTimes, LaunchError> {
        self.run_steps(root).map_err(|error| LaunchError::Setup {
            step: error.step,
            source: error.source,
        })
    }

    fn run_steps(&self, root: BareRoot) -> Result<BareTimes, Failed> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe"))?;
        let namespaces =
            libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNS;
        let start = Instant::now();
        let forked = sys::fork_into(u64::from(namespaces.unsigned_abs()), None);
        let Some(pid) = forked.map_err(failed("new namespaces"))? else {
            let Err(error) = self.inside(root);
            let words = format!("{}: {}", error.step, error.source);
            // The parent sees the end of the pipe if even this fails.
            let _ = File::from(write).write_all(words.as_bytes());
            sys::leave(1)
        };
        drop(write);
        let mut words = String::new();
        File::from(read)
            .read_to_string(&mut words)
            .map_err(failed("wait for the program"))?;
        let to_exec = start.elapsed();
        let status = waitpid(Pid::from_raw(pid), None).map_err(failed("reap"))?;
        let to_reaped = start.elapsed();
        if status == WaitStatus::Exited(Pid::from_raw(pid), 0) {
            return Ok(BareTimes { to_exec, to_reaped });
        }
        let source = io::Error::other(format!("{status:?}"));
        Err(Failed {
            step: format!("bare launch {words}"),
            source,
        })
    }

    fn inside(&self, root: BareRoot) -> Result<std::convert::Infallible, Failed> {
        for mut group in &self.groups {
            group.write_all(b"0").map_err(failed("join the groups"))?;
        }
        match root {
            BareRoot::Same => self.same_root()?,
            BareRoot::Least => least_root()?,
        }
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(failed("no new privileges"))?;
        let outputs = [self.null.as_fd(), self.null.as_fd()];
        inside::restrict_self(&self.spec, outputs, &self.filter)?;
        let null = std::os::fd::AsRawFd::as_raw_fd(&self.null);
        Program::new(&self.spec, [null; 3])?.execute_here()
    }

    fn same_root(&self) -> Result<(), Failed> {
        let trees = mounts::open_trees(&self.plan)?;
        base::assemble(Builder::Root)?;
        mounts::make_tops(libc::AT_FDCWD, &self.plan)?;
        base::finish()?;
        mounts::mount_proc(c"/proc")?;
        mounts::mount_kernel_files(Builder::Root)?;
        fs::write("/proc/self/oom_score_adj", "500").map_err(failed("set oom_score_adj"))?;
        mounts::mount_private(&self.spec.limits, &self.plan)?;
        for (index, tree) in &trees {
            if let Some(attachment) = self.plan.attachments.get(*index) {
                mounts::place(attachment, tree).map_err(failed("bind"))?;
            }
        }
        Ok(())
    }
}

fn least_root() -> Result<(), Failed> {
    sys::mount_flags(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE)
        .map_err(failed("leave the host's mount propagation"))?;
    let root =
        sys::open_tree(libc::AT_FDCWD, c"/", sys::Depth::Alone).map_err(failed("open the root"))?;
    sys::attach(root.as_fd(), c"/tmp").map_err(failed("bind the root"))?;
    nix::unistd::chdir("/tmp").map_err(failed("enter the root"))?;
    mounts::mount_proc(c"proc")?;
    sys::pivot_here().map_err(failed("change the root"))
}
