//! `<run>/NAME.pid` and `<run>/NAME.json`: which daemon runs here and where it is reached.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{FileError, atomic_write};

/// What a running daemon says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonInfo {
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: tells this process from a later one with the same pid.
    pub start_ticks: u64,
    pub version: String,
    /// host:port of its gRPC, as bound.
    pub grpc: String,
    /// host:port of its HTTP, as bound; empty when it has none.
    pub http: String,
    /// host:port of each Hadoop IPC door, as bound, by its name: `client`, `scheduler` and `admin`
    /// of a resource manager, `containers` of a node agent.
    pub yarn: BTreeMap<String, String>,
    /// Its unix socket; empty when it has none.
    pub socket: PathBuf,
    /// A node agent's id; empty otherwise.
    pub node_id: String,
}

/// A run file that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RunFileError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is not a daemon's run file", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// The two files of this process; removed by [`RunFiles::remove`] at an orderly stop.
#[derive(Debug)]
pub struct RunFiles {
    pid: PathBuf,
    json: PathBuf,
}

impl RunFiles {
    /// Writes both files, each atomically; the json last, so that who sees it can connect.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(run: &Path, name: &str, info: &DaemonInfo) -> Result<RunFiles, RunFileError> {
        let files = RunFiles {
            pid: run.join(format!("{name}.pid")),
            json: run.join(format!("{name}.json")),
        };
        atomic_write(&files.pid, format!("{}\n", info.pid).as_bytes(), 0o644)?;
        let mut text = serde_json::to_vec(info).map_err(|source| RunFileError::Malformed {
            path: files.json.clone(),
            source,
        })?;
        text.push(b'\n');
        atomic_write(&files.json, &text, 0o644)?;
        Ok(files)
    }

    /// Removes both files; one that is gone already is fine.
    pub fn remove(self) {
        for path in [&self.json, &self.pid] {
            if let Err(e) = std::fs::remove_file(path) {
                tracing::debug!("cannot remove {}: {e}", path.display());
            }
        }
    }
}

impl DaemonInfo {
    /// This process.
    #[must_use]
    pub fn of_this_process(version: &str) -> DaemonInfo {
        let pid = nix::unistd::getpid().as_raw();
        DaemonInfo {
            pid,
            start_ticks: process_start_ticks(pid).unwrap_or(0),
            version: version.to_owned(),
            ..DaemonInfo::default()
        }
    }

    /// Whether the process that wrote the file still lives (not merely one with its pid).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.pid > 0 && process_start_ticks(self.pid) == Some(self.start_ticks)
    }
}

/// Reads `<run>/NAME.json`; `None` when there is none.
///
/// # Errors
/// It is there but cannot be read or is something else.
pub fn read_daemon_info(run: &Path, name: &str) -> Result<Option<DaemonInfo>, RunFileError> {
    let path = run.join(format!("{name}.json"));
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| RunFileError::Malformed { path, source }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::new("read", &path)(e).into()),
    }
}

/// When a living process started, in clock ticks since boot; `None` when there is none or it is a
/// zombie. Source: proc(5), `/proc/pid/stat` field 22.
#[must_use]
pub fn process_start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so fields are counted from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_read_removed() {
        let run = tempfile::tempdir().unwrap();
        let mut info = DaemonInfo::of_this_process("0.1.0");
        info.grpc = "127.0.0.1:1".into();
        let files = RunFiles::write(run.path(), "node1", &info).unwrap();
        let read = read_daemon_info(run.path(), "node1").unwrap().unwrap();
        assert_eq!(read, info);
        assert!(read.is_alive());
        assert!(
            !DaemonInfo {
                start_ticks: info.start_ticks + 1,
                ..info
            }
            .is_alive()
        );
        files.remove();
        assert_eq!(read_daemon_info(run.path(), "node1").unwrap(), None);
        assert_eq!(std::fs::read_dir(run.path()).unwrap().count(), 0);
    }

    #[test]
    fn rubbish_is_refused() {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join("x.json"), "{").unwrap();
        assert!(read_daemon_info(run.path(), "x").is_err());
    }
}
