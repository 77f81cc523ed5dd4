//! Containers of an ordinary user on a host that lets nobody but root make namespaces.
//!
//! What is left: a session and an environment of their own, no new privileges, the seccomp filter, limits,
//! control groups if leased, the log, memory that is measured. Nothing is mounted, so what other containers
//! find at `/run/bobbin` is in the run folder itself, as links.
//! No pid namespace ends everything with PID 1: whatever a container starts stays below its monitor, which
//! takes orphans in (`PR_SET_CHILD_SUBREAPER`) and ends them one by one.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::base::{self, Builder, Failed, failed};
use crate::memory::tree;
use crate::mounts;
use crate::plan::RUN_TARGET;
use crate::process;
use crate::spare::map_user;
use crate::spec::ContainerSpec;
use crate::sys;

/// Looks at a container's processes before those that are known are killed, come what may.
const STOP_ROUNDS: u32 = 20;
/// Looks until nobody is left; a process in the kernel's hands may need some.
const KILL_ROUNDS: u32 = 2_000;
/// Between two looks at processes that have been killed.
const GONE_LOOK: Duration = Duration::from_millis(1);

/// Whether this account may have a container's namespaces and mounts: everything is made once in a process
/// that then ends.
///
/// # Errors
/// The first step that is refused.
pub(crate) fn try_namespaces() -> Result<(), Failed> {
    let (ours, theirs) = UnixStream::pair().map_err(failed("socket pair"))?;
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    let forked = sys::fork_into(u64::from(namespaces.unsigned_abs()), None)
        .map_err(failed("new namespaces"))?;
    let Some(pid) = forked else {
        drop(ours);
        let words = match make_all(&theirs) {
            Ok(()) => "R".to_owned(),
            Err(error) => format!("{}: {}", error.step, error.source),
        };
        // The parent sees the end of the stream if even this fails.
        let _ = io::Write::write_all(&mut &theirs, words.as_bytes());
        sys::leave(0);
    };
    drop(theirs);
    let mapped = map_user(pid);
    if mapped.is_ok() {
        let _ = io::Write::write_all(&mut &ours, b"G");
    }
    let _ = ours.shutdown(std::net::Shutdown::Write);
    let mut words = String::new();
    let read = io::Read::read_to_string(&mut &ours, &mut words);
    let _ = waitpid(Pid::from_raw(pid), None);
    mapped?;
    read.map_err(failed("hear of the first container's namespaces"))?;
    match words.as_str() {
        "R" => Ok(()),
        _ => Err(Failed {
            step: format!("namespaces of its own: {words}"),
            source: io::Error::from_raw_os_error(libc::EPERM),
        }),
    }
}

/// What PID 1 does first in the rootless profile.
fn make_all(parent: &UnixStream) -> Result<(), Failed> {
    let mut go = [0_u8; 1];
    io::Read::read_exact(&mut &*parent, &mut go).map_err(failed("map the user"))?;
    base::assemble(Builder::UserNamespace)?;
    mounts::mount_proc(c"proc")?;
    base::finish()?;
    mounts::mount_kernel_files(Builder::UserNamespace)
}

/// Puts a link where a bind would be: below the run folder and in the work folder, where the agent has made
/// an empty place for it.
///
/// # Errors
/// When a bind is wanted anywhere else, or the place is not empty.
pub(crate) fn place(spec: &ContainerSpec) -> Result<(), Failed> {
    for bind in &spec.binds {
        let (source, target) = (&bind.source, &bind.target);
        // What is where it is, and a folder that holds the container's own, are there already.
        if source == target || spec.work_dir.starts_with(target) {
            continue;
        }
        let place = match target.strip_prefix(RUN_TARGET) {
            Ok(below) => spec.run_dir.join(below),
            Err(_) if target.starts_with(&spec.work_dir) => target.clone(),
            Err(_) => {
                return Err(Failed {
                    step: format!(
                        "show {} at {}, which needs namespaces",
                        source.display(),
                        target.display()
                    ),
                    source: io::Error::from_raw_os_error(libc::EPERM),
                });
            }
        };
        link(source, &place).map_err(failed(format!("link {}", place.display())))?;
    }
    Ok(())
}

fn link(source: &Path, place: &Path) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Ok(there) if there.is_dir() => fs::remove_dir(place)?,
        Ok(_) => fs::remove_file(place)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    std::os::unix::fs::symlink(source, place)
}

/// Ends every process below this one, which takes in orphans.
///
/// They are stopped first, so that none makes another meanwhile. A process is signalled by a descriptor
/// that was opened before it was seen below us, so that no stranger with its number is met.
pub(crate) fn kill_below() {
    let own = nix::unistd::getpid().as_raw();
    for _ in 0..STOP_ROUNDS {
        let known = living_below(own);
        for (_, process) in &known {
            // Ended meanwhile is fine.
            let _ = process::send_signal(process, libc::SIGSTOP);
        }
        let stopped = |pid: &i32| known.iter().any(|(known, _)| known == pid);
        if tree(own).iter().skip(1).all(stopped) {
            break;
        }
    }
    for _ in 0..KILL_ROUNDS {
        let left = living_below(own);
        if left.is_empty() {
            return;
        }
        for (_, process) in &left {
            let _ = process::send_signal(process, libc::SIGKILL);
        }
        // Not children of ours, most of them: there is nothing to wait for.
        std::thread::sleep(GONE_LOOK);
    }
}

/// The processes below `own` that have not ended.
fn living_below(own: i32) -> Vec<(i32, OwnedFd)> {
    let opened: Vec<(i32, OwnedFd)> = tree(own)
        .into_iter()
        .skip(1)
        .filter_map(|pid| Some((pid, process::open_pidfd(pid).ok()?)))
        .collect();
    let again = tree(own);
    opened
        .into_iter()
        .filter(|(pid, _)| again.contains(pid) && !has_ended(*pid))
        .collect()
}

/// Source: field 3 of proc_pid_stat(5).
fn has_ended(pid: i32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let name_end = stat.iter().rposition(|&byte| byte == b')');
    let state = name_end.and_then(|at| stat.get(at + 2));
    matches!(state, None | Some(b'Z' | b'X'))
}

/// Takes the ends of all children that were not this one's own.
pub(crate) fn reap_orphans(own_child: Pid) {
    for pid in tree(nix::unistd::getpid().as_raw()).into_iter().skip(1) {
        if pid != own_child.as_raw() {
            // Another's child, or still running: then it is not ours to wait for.
            let _ = waitpid(
                Pid::from_raw(pid),
                Some(nix::sys::wait::WaitPidFlag::WNOHANG),
            );
        }
    }
}
