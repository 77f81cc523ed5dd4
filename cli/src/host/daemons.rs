//! The daemons of a cluster on this host: started, found alive, stopped.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bobbin_service::{DaemonInfo, process_start_ticks, read_daemon_info};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::{Layout, RESOURCEMANAGER};
use super::leftovers::daemon_with;
use crate::failure::{Failure, Kind, io_words};

/// Programs that a cluster on this host is made of.
const PROGRAMS: [&str; 6] = [
    "bobbin",
    "bobbin-resourcemanager",
    "bobbin-nodeagent",
    "bobbin-container-init",
    "bobbin-appmaster",
    "bobbin-executor",
];
/// How long a daemon may take to stop after TERM before it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Between two looks at a process that ends; it is not our child, so nobody tells us.
const LOOK: Duration = Duration::from_millis(10);
/// Variables that daemons are given; everything else of the caller's stays with him.
const VARIABLES: [&str; 8] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "XDG_RUNTIME_DIR",
    "DBUS_SYSTEM_BUS_ADDRESS",
];

/// The folder with all of Bobbin's programs: the one that this one is in.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// # Errors
    /// One is missing, named.
    pub(crate) fn beside_this_one() -> Result<Programs, Failure> {
        let own = std::env::current_exe().map_err(|e| {
            Failure::new(
                Kind::Failed,
                format!("this program's own file is not known: {}", io_words(&e)),
            )
        })?;
        let folder = own
            .parent()
            .map_or_else(|| PathBuf::from("/"), Path::to_owned);
        let missing: Vec<_> = PROGRAMS
            .iter()
            .filter(|p| !folder.join(p).is_file())
            .copied()
            .collect();
        if missing.is_empty() {
            return Ok(Programs { folder });
        }
        Err(Failure::new(
            Kind::Failed,
            format!("{} is not in {}", missing.join(", "), folder.display()),
        )
        .try_this("cargo build --release --workspace builds all of them"))
    }

    /// Writes the script that runs YARN's own classes beside the links.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write_script(bin: &Path) -> Result<(), Failure> {
        const SCRIPT: &str = include_str!("../../scripts/bobbin-yarn");
        bobbin_service::atomic_write(&bin.join("bobbin-yarn"), SCRIPT.as_bytes(), 0o755)
            .map_err(|e| Failure::new(Kind::Failed, crate::cluster::sentence(&e)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Links all of them into a folder, over older links.
    ///
    /// # Errors
    /// A link cannot be made.
    pub(crate) fn link_into(&self, bin: &Path) -> Result<(), Failure> {
        for name in PROGRAMS {
            let (target, link) = (self.path(name), bin.join(name));
            if std::fs::read_link(&link).is_ok_and(|old| old == target) {
                continue;
            }
            let failed = |e: &std::io::Error| Failure::file("cannot make the link", &link, e);
            match std::fs::remove_file(&link) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(&e)),
                Ok(()) | Err(_) => {}
            }
            std::os::unix::fs::symlink(&target, &link).map_err(|e| failed(&e))?;
        }
        Ok(())
    }
}

/// One daemon of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    /// `resourcemanager` or `node1`...
    pub(crate) name: String,
    program: &'static str,
    layout: Layout,
}

impl Daemon {
    pub(crate) fn resourcemanager(layout: &Layout) -> Daemon {
        Daemon {
            name: RESOURCEMANAGER.to_owned(),
            program: "bobbin-resourcemanager",
            layout: layout.clone(),
        }
    }

    /// The cluster's node agents, in order.
    pub(crate) fn nodeagents(layout: &Layout) -> Vec<Daemon> {
        let agent = |name| Daemon {
            name,
            program: "bobbin-nodeagent",
            layout: layout.clone(),
        };
        layout.nodes().into_iter().map(agent).collect()
    }

    /// What it says of itself, if it lives and is ready.
    pub(crate) fn ready(&self) -> Option<DaemonInfo> {
        let info = read_daemon_info(&self.layout.run(), &self.name).ok()??;
        info.is_alive().then_some(info)
    }

    /// Whether it lives, be it that it only starts.
    pub(crate) fn is_alive(&self) -> bool {
        self.process().is_some()
    }

    /// Waits until it is gone, if it is being killed: until then it looks alive and holds its port.
    pub(crate) async fn let_die(&self) {
        let deadline = Instant::now() + STOP_MAX;
        let pid = read_daemon_info(&self.layout.run(), &self.name)
            .ok()
            .flatten()
            .map_or(0, |info| info.pid);
        while is_dying(pid) && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Its pid and start time.
    fn process(&self) -> Option<(i32, u64)> {
        if let Some(info) = self.ready() {
            return Some((info.pid, info.start_ticks));
        }
        let pid = daemon_with(self.program, &self.layout.conf_of(&self.name))?;
        Some((pid, process_start_ticks(pid)?))
    }

    /// Starts it in a session of its own, with its log as standard output and error.
    ///
    /// # Errors
    /// It cannot be started.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the launch code of `bobbin up`"
    )]
    pub(crate) fn start(&self, programs: &Programs) -> Result<Started, Failure> {
        let log_path = self.layout.log_of(&self.name);
        let failed = |e: &std::io::Error| Failure::file("cannot open the log", &log_path, e);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(&log_path)
            .map_err(|e| failed(&e))?;
        let log_begin = log.metadata().map_or(0, |m| m.len());
        let again = log.try_clone().map_err(|e| failed(&e))?;
        let mut command = Command::new(programs.path("bobbin"));
        command
            .args(["daemon-exec", "--"])
            .arg(programs.path(self.program))
            .arg("--conf")
            .arg(self.layout.conf_of(&self.name))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            .env_clear()
            .envs(
                VARIABLES
                    .iter()
                    .filter_map(|name| Some((*name, std::env::var_os(name)?))),
            )
            .envs(std::env::vars_os().filter(|(name, _)| is_setting(name)));
        let child = command.spawn().map_err(|e| {
            Failure::new(
                Kind::Failed,
                format!("{} cannot be started: {}", self.program, io_words(&e)),
            )
        })?;
        Ok(Started {
            daemon: self.clone(),
            child,
            log_begin,
        })
    }

    /// Stops it: TERM, then KILL when it does not end. Stopping what is dead is fine.
    ///
    /// # Errors
    /// It cannot be signaled.
    pub(crate) async fn stop(&self) -> Result<(), Failure> {
        let Some((pid, start_ticks)) = self.process() else {
            return Ok(());
        };
        end_process(pid, start_ticks, STOP_MAX).await.map_err(|e| {
            Failure::new(
                Kind::Failed,
                format!("{} (pid {pid}) cannot be ended: {e}", self.name),
            )
        })
    }

    /// Has a node agent's program end every container on record. The agent itself must not run.
    ///
    /// # Errors
    /// It did not succeed.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the launch code of `bobbin down`"
    )]
    pub(crate) async fn end_containers(&self, programs: &Programs) -> Result<(), Failure> {
        let log_path = self.layout.log_of(&self.name);
        let failed = |why: String| {
            Failure::new(
                Kind::Failed,
                format!("containers of {} may be left: {why}", self.name),
            )
            .try_this(format!("look into {}", log_path.display()))
        };
        let log = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o640)
                .open(&log_path)
        };
        let (out, err) = (
            log().map_err(|e| failed(io_words(&e)))?,
            log().map_err(|e| failed(io_words(&e)))?,
        );
        let mut command = tokio::process::Command::new(programs.path(self.program));
        command
            .arg("--conf")
            .arg(self.layout.conf_of(&self.name))
            .arg("--end-containers")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .env_clear()
            .envs(
                VARIABLES
                    .iter()
                    .filter_map(|name| Some((*name, std::env::var_os(name)?))),
            )
            .kill_on_drop(true);
        let run = async { command.status().await.map_err(|e| io_words(&e)) };
        match tokio::time::timeout(Duration::from_secs(60), run).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(failed(format!(
                "bobbin-nodeagent --end-containers: {status}"
            ))),
            Ok(Err(why)) => Err(failed(why)),
            Err(_) => Err(failed(
                "bobbin-nodeagent --end-containers does not end".to_owned(),
            )),
        }
    }

    /// Whether it died without an orderly stop: its run file is still there.
    pub(crate) fn was_killed(&self) -> bool {
        !self.is_alive()
            && self
                .layout
                .run()
                .join(format!("{}.json", self.name))
                .exists()
    }

    /// Removes what says that it runs, once it does not.
    pub(crate) fn remove_run_files(&self) {
        let run = self.layout.run();
        for ending in ["pid", "json", "sock"] {
            // What is not there need not be removed.
            let _ = std::fs::remove_file(run.join(format!("{}.{ending}", self.name)));
        }
    }
}

/// Settings in the environment go to the daemons, as they would when started by hand.
fn is_setting(name: &std::ffi::OsStr) -> bool {
    name.to_str()
        .is_some_and(|n| n.starts_with("BOBBIN_RM__") || n.starts_with("BOBBIN_NA__"))
}

/// Whether a process has been killed or is exiting, and is not gone yet.
/// Source: proc(5), `SigPnd` and `ShdPnd` of `status`, field 9 of `stat`; `PF_EXITING` of linux/sched.h.
fn is_dying(pid: i32) -> bool {
    const SIGKILL_PENDING: u64 = 1 << 8;
    const PF_EXITING: u64 = 0x4;
    let dying = |task: &Path| {
        let read = |file: &str| std::fs::read_to_string(task.join(file)).unwrap_or_default();
        let killed = read("status")
            .lines()
            .filter_map(|l| {
                l.strip_prefix("SigPnd:")
                    .or_else(|| l.strip_prefix("ShdPnd:"))
            })
            .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .any(|mask| mask & SIGKILL_PENDING != 0);
        // Of a zombie nothing is left but its status, which its parent may read when it likes.
        let stat = read("stat");
        let mut fields = stat
            .rsplit_once(')')
            .map_or("", |(_, rest)| rest)
            .split_ascii_whitespace();
        let state = fields.next().unwrap_or("X");
        let flags = fields.nth(5).and_then(|f| f.parse::<u64>().ok());
        !matches!(state, "Z" | "X") && (killed || flags.is_some_and(|f| f & PF_EXITING != 0))
    };
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .any(|task| dying(&task.path()))
}

/// Ends a process that is known by its pid and start time: TERM, `patience`, KILL.
async fn end_process(pid: i32, start_ticks: u64, patience: Duration) -> Result<(), String> {
    let lives = || process_start_ticks(pid) == Some(start_ticks);
    for (signal, patience) in [(Signal::SIGTERM, patience), (Signal::SIGKILL, STOP_MAX)] {
        if !lives() {
            return Ok(());
        }
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(e) => return Err(e.desc().to_lowercase()),
        }
        let deadline = Instant::now() + patience;
        while lives() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }
    if lives() {
        Err("it survives SIGKILL".to_owned())
    } else {
        Ok(())
    }
}

/// A daemon that this process started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) daemon: Daemon,
    child: Child,
    /// Where this start's lines begin in its log.
    log_begin: u64,
}

impl Started {
    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Why it ended, by the last line of its log.
    pub(crate) fn failure(&self, status: ExitStatus) -> Failure {
        let path = self.daemon.layout.log_of(&self.daemon.name);
        let last = last_line(&path, self.log_begin).unwrap_or_default();
        let why = if last.is_empty() {
            String::new()
        } else {
            format!(": {last}")
        };
        Failure::new(
            Kind::Failed,
            format!("{} did not stay up ({status}){why}", self.daemon.name),
        )
        .try_this(format!("look into {}", path.display()))
    }

    /// Ends it again.
    pub(crate) async fn stop(mut self) {
        if self.ended().is_none() {
            let pid = i32::try_from(self.child.id()).unwrap_or(0);
            if let Some(ticks) = process_start_ticks(pid) {
                // It is ours and its end is only tidiness: the failure that led here is told.
                let _ = end_process(pid, ticks, STOP_MAX).await;
            }
            let _ = self.child.try_wait();
        }
        self.daemon.remove_run_files();
    }
}

/// The last line with words in it from `begin` on, without colors, for a message.
fn last_line(path: &Path, begin: u64) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    file.seek(SeekFrom::Start(begin)).ok()?;
    let mut text = Vec::new();
    file.take(1 << 20).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().find(|l| !l.trim().is_empty())?;
    Some(
        crate::text::printable(line.trim())
            .chars()
            .take(500)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_this_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "old words\nnew one\n\n").unwrap();
        assert_eq!(last_line(&path, 10).as_deref(), Some("new one"));
        assert_eq!(last_line(&path, 19), None);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a process to end")]
    fn a_process_that_ignores_term_is_killed() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut child = Command::new("/bin/sh")
            .args([
                "-c",
                "trap '' TERM; echo ready; while :; do sleep 100 & wait; done",
            ])
            .stdout(Stdio::piped())
            .process_group_of_its_own()
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut ready)
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let ticks = process_start_ticks(pid).unwrap();
        runtime
            .block_on(end_process(pid, ticks, Duration::from_millis(30)))
            .unwrap();
        assert_eq!(process_start_ticks(pid), None);
        // Its sleeping child is in the same group.
        let _ = nix::sys::signal::killpg(Pid::from_raw(pid), Signal::SIGKILL);
        child.wait().unwrap();
        runtime
            .block_on(end_process(pid, ticks, Duration::from_millis(30)))
            .unwrap();
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a process to kill")]
    fn the_killed_are_let_die() {
        assert!(!is_dying(i32::try_from(std::process::id()).unwrap()));
        let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(!is_dying(pid));
        child.kill().unwrap();
        let deadline = Instant::now() + STOP_MAX;
        while is_dying(pid) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(process_start_ticks(pid), None);
        assert!(!is_dying(pid));
        child.wait().unwrap();
    }

    trait OwnGroup {
        fn process_group_of_its_own(&mut self) -> &mut Self;
    }

    impl OwnGroup for Command {
        fn process_group_of_its_own(&mut self) -> &mut Command {
            use std::os::unix::process::CommandExt;
            self.process_group(0)
        }
    }

    #[test]
    fn links_are_made_anew() {
        let (old, new, bin) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        for folder in [old.path(), new.path(), new.path()] {
            Programs {
                folder: folder.to_owned(),
            }
            .link_into(bin.path())
            .unwrap();
        }
        for name in PROGRAMS {
            assert_eq!(
                std::fs::read_link(bin.path().join(name)).unwrap(),
                new.path().join(name)
            );
        }
    }
}
