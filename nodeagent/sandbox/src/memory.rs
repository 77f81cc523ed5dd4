//! A container's memory: hearing of a shortage, and telling who used what.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::cgroup::{MemoryEvents, stat_field};

/// Processes listed in a post mortem.
const LISTED_MAX: usize = 40;
/// Bytes of a command line in it.
const COMMAND_BYTES_MAX: usize = 200;
/// How long command lines are waited for, all together.
const COMMANDS: Duration = Duration::from_millis(200);
const COMMANDS_STACK_BYTES: usize = 64 << 10;

/// One process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) rss_bytes: u64,
}

/// Tells when a group has run out of memory.
#[derive(Debug)]
pub(crate) enum Watch {
    /// The eventfd counts shortages of a program's own pages. (A write into a file in memory that does
    /// not fit is refused with ENOMEM instead: the kernel tells nobody of it.)
    V1 { event: EventFd, group: PathBuf },
    /// `memory.events`, which is readable as urgent data when it has changed.
    V2 {
        events: File,
        group: PathBuf,
        kills_before: u64,
    },
}

impl Watch {
    /// Starts to watch a leased group.
    ///
    /// # Errors
    /// When its files cannot be opened.
    pub(crate) fn new(group: &Path, events: MemoryEvents) -> io::Result<Watch> {
        match events {
            MemoryEvents::V1 => {
                let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
                let control = File::open(group.join("memory.oom_control"))?;
                let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
                // Source: Documentation/admin-guide/cgroup-v1/memory.rst, 9. Memory thresholds.
                fs::write(group.join("cgroup.event_control"), line)?;
                Ok(Watch::V1 {
                    event,
                    group: group.to_owned(),
                })
            }
            MemoryEvents::V2 => {
                let kills_before = kills(group, events);
                let events = File::open(group.join("memory.events"))?;
                Ok(Watch::V2 {
                    events,
                    group: group.to_owned(),
                    kills_before,
                })
            }
        }
    }

    /// What to wait for: v1 for input, v2 for urgent data.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Watch::V1 { event, .. } => event.as_fd(),
            Watch::V2 { events, .. } => events.as_fd(),
        }
    }

    /// Takes the news. Whether the group is short of memory now or was.
    pub(crate) fn is_short(&mut self) -> bool {
        match self {
            // The event also comes when the group is removed, which cannot be while we live in it.
            Watch::V1 { event, .. } => event.read().is_ok_and(|count| count > 0),
            Watch::V2 { events, .. } => {
                let mut text = String::new();
                let read = events
                    .seek(SeekFrom::Start(0))
                    .and_then(|_| events.read_to_string(&mut text));
                read.is_ok() && self.has_killed()
            }
        }
    }

    /// Whether the kernel has ended a process of the group for memory.
    pub(crate) fn has_killed(&self) -> bool {
        match self {
            Watch::V1 { group, .. } => kills(group, MemoryEvents::V1) > 0,
            Watch::V2 {
                group,
                kills_before,
                ..
            } => kills(group, MemoryEvents::V2) > *kills_before,
        }
    }

    /// Bytes in use at this moment.
    pub(crate) fn usage_bytes(&self) -> Option<u64> {
        let file = match self {
            Watch::V1 { group, .. } => group.join("memory.usage_in_bytes"),
            Watch::V2 { group, .. } => group.join("memory.current"),
        };
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// The processes of the group.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let (Watch::V1 { group, .. } | Watch::V2 { group, .. }) = self;
        let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        listed
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect()
    }
}

fn kills(group: &Path, events: MemoryEvents) -> u64 {
    let file = match events {
        MemoryEvents::V1 => "memory.oom_control",
        MemoryEvents::V2 => "memory.events",
    };
    stat_field(&group.join(file), "oom_kill").unwrap_or(0)
}

/// All processes below `root_pid`, itself included, without a group to ask.
///
/// In a pid namespace orphans become children of PID 1, so nothing escapes the walk.
pub(crate) fn tree(root_pid: i32) -> Vec<i32> {
    let mut found = vec![root_pid];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for thread in threads.filter_map(Result::ok) {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<i32>().ok()),
            );
        }
    }
    found
}

/// What is known of each process; those that have ended meanwhile are left out.
pub(crate) fn sample(pids: &[i32]) -> Vec<Process> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let page = page
        .ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096);
    let mut processes: Vec<Process> = pids
        .iter()
        .filter_map(|pid| {
            let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
            let statm = String::from_utf8(file("statm")?).ok()?;
            let rss: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
            Some(Process {
                pid: *pid,
                name: printable(&file("comm")?).trim().to_owned(),
                command: String::new(),
                rss_bytes: rss.saturating_mul(page),
            })
        })
        .collect();
    processes.sort_by_key(|process| (std::cmp::Reverse(process.rss_bytes), process.pid));
    let listed = processes.len().min(LISTED_MAX);
    add_commands(&mut processes[..listed], |pid| {
        fs::read(format!("/proc/{pid}/cmdline")).ok()
    });
    processes
}

/// Whether a thread of an earlier sample still waits for a command line.
static READING: AtomicBool = AtomicBool::new(false);

/// Adds what `read` gives for each process, as far as it does so in time.
///
/// The kernel reads a command line in the memory of its process, and waits for that process's own
/// work on it: in a storm of forks at the limit for minutes, in which nobody would end the
/// container. So a thread of its own waits.
fn add_commands<F>(processes: &mut [Process], read: F)
where
    F: Fn(i32) -> Option<Vec<u8>> + Send + 'static,
{
    if processes.is_empty() || READING.swap(true, Ordering::Relaxed) {
        return;
    }
    let pids: Vec<i32> = processes.iter().map(|process| process.pid).collect();
    let (sender, commands) = mpsc::channel();
    let reading = move || {
        for (index, pid) in pids.into_iter().enumerate() {
            // Without a receiver nobody waits any more.
            if sender.send((index, read(pid))).is_err() {
                break;
            }
        }
        READING.store(false, Ordering::Relaxed);
    };
    let thread = std::thread::Builder::new().stack_size(COMMANDS_STACK_BYTES);
    if thread.spawn(reading).is_err() {
        READING.store(false, Ordering::Relaxed);
        return;
    }
    let end = Instant::now() + COMMANDS;
    while let Ok((index, command)) =
        commands.recv_timeout(end.saturating_duration_since(Instant::now()))
    {
        if let (Some(process), Some(mut command)) = (processes.get_mut(index), command) {
            command.truncate(COMMAND_BYTES_MAX);
            printable(&command)
                .trim_end()
                .clone_into(&mut process.command);
        }
    }
}

/// Text that a terminal can take: a program chooses its name and arguments itself.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Bytes in the form of Hadoop's messages, which Spark's allocator looks for.
///
/// Source: `StringUtils.TraditionalBinaryPrefix`.
fn in_units(bytes: u64, exact_without_fraction: bool) -> String {
    let (unit, name) = match bytes {
        0..0x10_0000 => (1_u64 << 10, "KB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MB"),
        _ => (1 << 30, "GB"),
    };
    if exact_without_fraction && bytes.is_multiple_of(unit) {
        return format!("{} {name}", bytes / unit);
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// The words for a container that was ended for its memory.
pub(crate) fn post_mortem(
    container_id: &str,
    usage_bytes: u64,
    limit_bytes: u64,
    processes: &[Process],
) -> String {
    let mut text = format!(
        "Container {container_id} was ended above its memory: {} of {} physical memory used.",
        in_units(usage_bytes, false),
        in_units(limit_bytes, true),
    );
    if !processes.is_empty() {
        text.push_str(" Its processes by resident memory:");
    }
    for process in processes.iter().take(LISTED_MAX) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n  pid {} ({}) {}: {}",
            process.pid,
            process.name,
            in_units(process.rss_bytes, false),
            process.command,
        );
    }
    if processes.len() > LISTED_MAX {
        let _ = write!(text, "\n  and {} more", processes.len() - LISTED_MAX);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_spark_looks_for() {
        let processes = [Process {
            pid: 7,
            name: "python3".into(),
            command: "python3 -c x".into(),
            rss_bytes: 126 << 20,
        }];
        let text = post_mortem("container_1", 128 << 20, 128 << 20, &processes);
        assert_eq!(
            text,
            "Container container_1 was ended above its memory: 128.0 MB of 128 MB physical memory \
             used. Its processes by resident memory:\n  pid 7 (python3) 126.0 MB: python3 -c x"
        );
    }

    #[test]
    fn sizes_in_words() {
        assert_eq!(in_units(0, false), "0.0 KB");
        assert_eq!(in_units(1536 << 20, true), "1.5 GB");
        assert_eq!(in_units(1 << 30, true), "1 GB");
        assert_eq!(in_units((1 << 30) - 1, true), "1024.0 MB");
    }

    #[test]
    fn a_tree_holds_the_asking_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let pids = tree(own);
        assert_eq!(pids[0], own);
        let sampled = sample(&pids);
        assert!(
            sampled
                .iter()
                .any(|process| process.pid == own && process.rss_bytes > 0)
        );
    }

    /// A storm of forks at its limit kept the monitor reading a command line for minutes, and the
    /// container alive.
    #[test]
    fn a_command_line_that_does_not_come_holds_nobody_up() {
        let mut processes = [7, 8, 9].map(|pid| Process {
            pid,
            name: "storm".into(),
            command: String::new(),
            rss_bytes: 1,
        });
        let (go, wait) = mpsc::channel::<()>();
        add_commands(&mut processes, move |pid| {
            if pid == 8 {
                // The test's end lets it go.
                let _ = wait.recv();
            }
            Some(format!("storm\0{pid}\0").into_bytes())
        });
        assert_eq!(processes[0].command, "storm 7");
        assert_eq!(processes[1].command, "");
        // No second thread beside one that waits.
        let before = processes.clone();
        add_commands(&mut processes, |_| Some(b"never".to_vec()));
        assert_eq!(processes, before);
        drop(go);
    }

    #[test]
    fn names_with_escapes_are_harmless() {
        assert_eq!(printable(b"a\x1b[2J\nb\0c"), "a [2J b c");
    }
}
