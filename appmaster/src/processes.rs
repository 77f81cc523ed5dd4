//! Ending whole families of processes.
//!
//! A process that made itself the reaper of its descendants (`PR_SET_CHILD_SUBREAPER`) gets every
//! orphan among them as a child, sessions of their own or not, so a walk over `/proc` finds all.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Longest time for the kernel to end what was killed (a process in an uninterruptible wait).
const GIVE_UP: Duration = Duration::from_secs(5);

/// Makes this process the reaper of all its descendants. Source: prctl(2).
pub(crate) fn reap_descendants() {
    if let Err(e) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!("cannot become the reaper of descendants: {e}");
    }
}

/// Children of every process, from `/proc/PID/stat`.
fn children_of_all() -> HashMap<i32, Vec<i32>> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return children;
    };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

/// Field 4 of `/proc/PID/stat`; the name before it may hold anything, so it is cut off at its end.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// All processes below `root`, `root` itself not included.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let children = children_of_all();
    let mut found = Vec::new();
    let mut to_visit = vec![root];
    while let Some(pid) = to_visit.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            found.push(*child);
            to_visit.push(*child);
        }
    }
    found
}

/// Kills every process whose environment has `variable` (`NAME=value`): what an executor that was
/// killed outside a container left behind.
pub(crate) fn end_marked(variable: &str) {
    let start = Instant::now();
    let own = nix::unistd::getpid().as_raw();
    while start.elapsed() < GIVE_UP {
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return;
        };
        let marked = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| *pid != own && is_marked(*pid, variable));
        let killed = marked.filter(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok());
        // What was killed has no environment soon; what it started meanwhile is found next time.
        if killed.count() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_marked(pid: i32, variable: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment
        .split(|byte| *byte == 0)
        .any(|entry| entry == variable.as_bytes())
}

/// Kills every descendant of this process and reaps them; returns when none is left.
///
/// For a process that is about to end and waits for its children nowhere else.
pub(crate) fn end_all_descendants() {
    let own = nix::unistd::getpid().as_raw();
    let start = Instant::now();
    while start.elapsed() < GIVE_UP {
        for pid in descendants(own) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) => {}
                // No child is left, so no descendant is.
                Err(Errno::ECHILD) => return,
                Err(_) => break,
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
