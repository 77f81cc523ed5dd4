//! What the tests share: a driver that waits to be told, and a sink that remembers.
#![allow(dead_code, reason = "not every test uses everything")]

pub(crate) mod fake;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bobbin_appmaster::map_client::{
    FailedTask, MapError, MapOptions, MapProgress, MapSink, MapSummary, WINDOW, run,
};

/// Polls until `condition` gives something; panics with `status` when it takes too long.
pub(crate) async fn wait_for<T>(status: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "waited too long for {status}"
        );
        pace.tick().await;
    }
}

/// A driver in shell: says where its socket is, then waits for an exit status.
pub(crate) struct ShellDriver {
    pub(crate) folder: tempfile::TempDir,
}

impl ShellDriver {
    pub(crate) fn new() -> ShellDriver {
        let folder = tempfile::Builder::new()
            .prefix("bobbin-test-")
            .tempdir()
            .unwrap();
        let fifo = folder.path().join("end");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        ShellDriver { folder }
    }

    pub(crate) fn argv(&self) -> Vec<String> {
        let script = r#"printf %s "$BOBBIN_DRIVER_SOCKET" >"$1/socket.new"
            echo "$BOBBIN_APPLICATION_ID $BOBBIN_ATTEMPT $MARK" >"$1/ids"
            mv "$1/socket.new" "$1/socket"; read status <"$1/end"; exit "$status""#;
        let folder = self.folder.path().display().to_string();
        ["sh", "-c", script, "sh", &folder]
            .map(str::to_owned)
            .to_vec()
    }

    pub(crate) async fn socket(&self) -> PathBuf {
        let file = self.folder.path().join("socket");
        let path = wait_for("the driver's socket", || {
            std::fs::read_to_string(&file).ok()
        })
        .await;
        path.into()
    }

    pub(crate) fn ids(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("ids")).unwrap()
    }

    /// Lets the driver end.
    pub(crate) async fn end(&self, status: i32) {
        let fifo = self.folder.path().join("end");
        tokio::task::spawn_blocking(move || std::fs::write(fifo, format!("{status}\n")).unwrap())
            .await
            .unwrap();
    }
}

/// Remembers everything.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) failed: Vec<FailedTask>,
    pub(crate) last: MapProgress,
}

impl Sink {
    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }
}

impl MapSink for Sink {
    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdout.extend_from_slice(bytes);
        Ok(())
    }
    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stderr.extend_from_slice(bytes);
        Ok(())
    }
    fn progress(&mut self, progress: &MapProgress) {
        self.last = *progress;
    }
    fn failed(&mut self, task: &FailedTask) {
        self.failed.push(task.clone());
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Maps `inputs` over `command` on the driver's socket.
pub(crate) async fn map(
    socket: &Path,
    command: &[&str],
    inputs: impl IntoIterator<Item = String>,
) -> (Result<MapSummary, MapError>, Sink) {
    let mut sink = Sink::default();
    let options = MapOptions {
        socket: socket.to_owned(),
        command: command.iter().map(|w| (*w).to_owned()).collect(),
        environment: Default::default(),
        window: WINDOW,
    };
    let inputs: Vec<_> = inputs.into_iter().map(|i| Ok(i.into_bytes())).collect();
    let summary = run(options, futures::stream::iter(inputs), &mut sink).await;
    (summary, sink)
}

pub(crate) fn numbers(count: u64) -> Vec<String> {
    (1..=count).map(|n| n.to_string()).collect()
}

/// Whether a process is there and no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|s| {
            s.rsplit_once(')')
                .map(|(_, r)| !r.trim_start().starts_with('Z'))
        })
        .unwrap_or(false)
}
