//! The two files a monitor leaves in the container's private folder: who it is, and how it ended.
//!
//! Both are written under a temporary name and renamed, so that a reader sees all or nothing.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::json::{self, Value};
use crate::process;

/// Name of the file written before the program starts.
pub const START_FILE: &str = "start.json";
/// Name of the file written when the container has ended.
pub const EXIT_FILE: &str = "exit.json";

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitRecord {
    /// 0 to 255, 128+n for signal n, -104 for a container above its memory.
    pub exit_status: i32,
    /// The signal that ended the program, if one did.
    pub signal: Option<i32>,
    /// Words for the user; empty when the exit status says it all.
    pub diagnostics: String,
    /// Wall clock.
    pub ended_ms: u64,
}

/// Who watches a container. The start time tells it from a later process with the same pid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartRecord {
    pub container_id: String,
    pub monitor_pid: i32,
    /// Start time since boot in clock ticks. Source: field 22 of proc_pid_stat(5).
    pub monitor_start_ticks: u64,
    /// Number of the cgroup slot it runs in, for `CgroupRoot::readopt`.
    pub cgroup_slot: Option<u32>,
}

/// What is left of a container that another agent process started.
#[derive(Debug)]
pub enum Adopted {
    /// It runs. The pidfd becomes readable when its monitor has ended.
    Running { start: StartRecord, pidfd: OwnedFd },
    /// It ended and left word.
    Ended(ExitRecord),
    /// It was never started, or its monitor was killed: nothing of it lives.
    Gone,
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a record of this launcher", path.display())]
    Malformed { path: PathBuf },
    #[error("cannot watch process {pid}")]
    Watch { pid: i32, source: io::Error },
}

impl ExitRecord {
    pub(crate) fn to_json(&self) -> String {
        json::write(&[
            ("exit_status", Value::Number(i64::from(self.exit_status))),
            (
                "signal",
                self.signal
                    .map_or(Value::Null, |signal| Value::Number(i64::from(signal))),
            ),
            ("diagnostics", Value::Text(self.diagnostics.clone())),
            (
                "ended_ms",
                Value::Number(i64::try_from(self.ended_ms).unwrap_or(i64::MAX)),
            ),
        ])
    }

    fn from_json(text: &str) -> Option<ExitRecord> {
        let fields = json::read(text)?;
        Some(ExitRecord {
            exit_status: i32::try_from(json::number(&fields, "exit_status")?).ok()?,
            signal: json::number(&fields, "signal").and_then(|signal| i32::try_from(signal).ok()),
            diagnostics: json::text(&fields, "diagnostics")?.to_owned(),
            ended_ms: u64::try_from(json::number(&fields, "ended_ms")?).ok()?,
        })
    }
}

impl StartRecord {
    pub(crate) fn to_json(&self) -> String {
        json::write(&[
            ("container_id", Value::Text(self.container_id.clone())),
            ("monitor_pid", Value::Number(i64::from(self.monitor_pid))),
            (
                "monitor_start_ticks",
                Value::Number(i64::try_from(self.monitor_start_ticks).unwrap_or(i64::MAX)),
            ),
            (
                "cgroup_slot",
                self.cgroup_slot
                    .map_or(Value::Null, |slot| Value::Number(i64::from(slot))),
            ),
        ])
    }

    fn from_json(text: &str) -> Option<StartRecord> {
        let fields = json::read(text)?;
        Some(StartRecord {
            container_id: json::text(&fields, "container_id")?.to_owned(),
            monitor_pid: i32::try_from(json::number(&fields, "monitor_pid")?).ok()?,
            monitor_start_ticks: u64::try_from(json::number(&fields, "monitor_start_ticks")?)
                .ok()?,
            cgroup_slot: json::number(&fields, "cgroup_slot")
                .and_then(|slot| u32::try_from(slot).ok()),
        })
    }
}

/// The container's exit record, or `None` while there is none.
///
/// # Errors
/// When the file is there and cannot be read or understood.
pub fn read_exit(private_dir: &Path) -> Result<Option<ExitRecord>, RecordError> {
    read_record(&private_dir.join(EXIT_FILE), ExitRecord::from_json)
}

/// The container's start record, or `None` if its monitor never came so far.
///
/// # Errors
/// When the file is there and cannot be read or understood.
pub fn read_start(private_dir: &Path) -> Result<Option<StartRecord>, RecordError> {
    read_record(&private_dir.join(START_FILE), StartRecord::from_json)
}

fn read_record<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, RecordError> {
    match fs::read_to_string(path) {
        // An agent that was killed while it forbade a start.
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => match parse(&text) {
            Some(record) => Ok(Some(record)),
            None => Err(RecordError::Malformed {
                path: path.to_owned(),
            }),
        },
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RecordError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// What became of the container of `private_dir`, which an earlier agent process started.
///
/// # Errors
/// When a record is there and cannot be read, or the running monitor cannot be watched.
pub fn adopt(private_dir: &Path) -> Result<Adopted, RecordError> {
    if let Some(start) = read_start(private_dir)? {
        let pid = start.monitor_pid;
        match process::open_pidfd(pid) {
            // The ticks are compared after the pidfd is open, so the pid cannot be reused between.
            Ok(pidfd) if process::start_ticks(pid) == Some(start.monitor_start_ticks) => {
                if !process::has_ended(&pidfd) {
                    return Ok(Adopted::Running { start, pidfd });
                }
            }
            Ok(_) => {}
            Err(source) if source.raw_os_error() == Some(libc::ESRCH) => {}
            Err(source) => return Err(RecordError::Watch { pid, source }),
        }
    }
    // Read last: a monitor that ended just now wrote it before it ended.
    Ok(match read_exit(private_dir)? {
        Some(record) => Adopted::Ended(record),
        None => Adopted::Gone,
    })
}

/// Makes sure that a container found [`Adopted::Gone`] never starts: its monitor may still be on its
/// way there, since the agent that ordered it was killed. The monitor then finds the start file taken
/// and gives up.
///
/// False when the monitor was quicker: it is to be adopted after all.
///
/// # Errors
/// When the file cannot be written.
pub fn forbid_start(private_dir: &Path) -> Result<bool, RecordError> {
    let path = private_dir.join(START_FILE);
    // No process has these ticks, so it reads as a monitor that is gone.
    let nobody = StartRecord {
        container_id: String::new(),
        monitor_pid: 1,
        monitor_start_ticks: 0,
        cgroup_slot: None,
    };
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        io::Write::write_all(&mut file, nobody.to_json().as_bytes())
    };
    match write() {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match read_start(private_dir)? {
            // Forbidden before, or its monitor lived and is gone.
            Some(start) => {
                Ok(process::start_ticks(start.monitor_pid) != Some(start.monitor_start_ticks))
            }
            None => Ok(true),
        },
        // Without its folder no monitor can start it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(RecordError::Read { path, source }),
    }
}

/// Where the memory stands that a container was given after its launch, MiB.
const MEMORY_FILE: &str = "memory_mib";

/// Tells a container's monitor that its memory has changed: it measures by it and says it in words.
/// The control group's limit is changed apart ([`crate::CgroupRoot::resize`]).
///
/// # Errors
/// When the file cannot be written.
pub fn change_memory(private_dir: &Path, memory_mib: u64) -> io::Result<()> {
    let temporary = private_dir.join(format!("{MEMORY_FILE}.tmp"));
    fs::write(&temporary, memory_mib.to_string())?;
    fs::rename(&temporary, private_dir.join(MEMORY_FILE))
}

/// What [`change_memory`] wrote.
pub(crate) fn changed_memory(private_dir: &fs::File) -> Option<u64> {
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    let name = std::ffi::CString::new(MEMORY_FILE).ok()?;
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW;
    let file = crate::sys::open_strict(private_dir.as_raw_fd(), &name, flags, 0).ok()?;
    let mut text = String::new();
    fs::File::from(file)
        .take(32)
        .read_to_string(&mut text)
        .ok()?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_record_comes_back() {
        for signal in [None, Some(9)] {
            let record = ExitRecord {
                exit_status: -104,
                signal,
                diagnostics: "128.0 MB of 128 MB physical memory used\n\"x\"".into(),
                ended_ms: 1_790_000_000_123,
            };
            assert_eq!(ExitRecord::from_json(&record.to_json()), Some(record));
        }
    }

    #[test]
    fn adopt_tells_running_ended_and_gone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(adopt(dir.path()).unwrap(), Adopted::Gone));
        let own = i32::try_from(std::process::id()).unwrap();
        let mut start = StartRecord {
            container_id: "container_e01_1_0001_01_000001".into(),
            monitor_pid: own,
            monitor_start_ticks: process::start_ticks(own).unwrap(),
            cgroup_slot: Some(3),
        };
        fs::write(dir.path().join(START_FILE), start.to_json()).unwrap();
        assert!(
            matches!(adopt(dir.path()).unwrap(), Adopted::Running { start: s, .. } if s == start)
        );
        // The same pid with another start time is another process.
        start.monitor_start_ticks += 1;
        fs::write(dir.path().join(START_FILE), start.to_json()).unwrap();
        assert!(matches!(adopt(dir.path()).unwrap(), Adopted::Gone));
        let exit = ExitRecord {
            exit_status: 7,
            signal: None,
            diagnostics: String::new(),
            ended_ms: 1,
        };
        fs::write(dir.path().join(EXIT_FILE), exit.to_json()).unwrap();
        assert!(matches!(adopt(dir.path()).unwrap(), Adopted::Ended(e) if e == exit));
        assert!(forbid_start(dir.path()).unwrap(), "its monitor is gone");
        fs::write(dir.path().join(EXIT_FILE), "{").unwrap();
        assert!(matches!(
            adopt(dir.path()),
            Err(RecordError::Malformed { .. })
        ));
    }

    #[test]
    fn a_forbidden_start_reads_as_gone_and_a_living_monitor_wins() {
        let dir = tempfile::tempdir().unwrap();
        assert!(forbid_start(dir.path()).unwrap());
        assert!(matches!(adopt(dir.path()).unwrap(), Adopted::Gone));
        assert!(forbid_start(dir.path()).unwrap(), "again");
        assert!(forbid_start(&dir.path().join("missing")).unwrap());
        let own = i32::try_from(std::process::id()).unwrap();
        let start = StartRecord {
            container_id: String::new(),
            monitor_pid: own,
            monitor_start_ticks: process::start_ticks(own).unwrap(),
            cgroup_slot: None,
        };
        fs::write(dir.path().join(START_FILE), start.to_json()).unwrap();
        assert!(!forbid_start(dir.path()).unwrap());
    }

    #[test]
    fn a_changed_memory_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = fs::File::open(dir.path()).unwrap();
        assert_eq!(changed_memory(&folder), None);
        change_memory(dir.path(), 512).unwrap();
        assert_eq!(changed_memory(&folder), Some(512));
        change_memory(dir.path(), 64).unwrap();
        assert_eq!(changed_memory(&folder), Some(64));
    }
}
