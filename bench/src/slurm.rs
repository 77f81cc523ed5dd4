//! A Slurm of a benchmark's own: Debian's daemons, started by hand in a temporary folder on loopback.
//!
//! Tuned for short interactive jobs: backfill with the shortest intervals, allocation at submission
//! (no `defer`), no accounting, no plugins for tasks, and processes tracked by parentage, which is the
//! cheapest way Slurm has. Its jobs run as root in no sandbox.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{command, quietly};

/// What must be installed, and where Debian puts it.
const PROGRAMS: [&str; 4] = [
    "/usr/sbin/munged",
    "/usr/sbin/slurmctld",
    "/usr/sbin/slurmd",
    "/usr/bin/srun",
];
/// Until its node takes jobs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until a daemon has ended on request.
const END: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// Running daemons; ended when dropped.
#[derive(Debug)]
pub(crate) struct Slurm {
    daemons: Vec<Child>,
    conf: PathBuf,
}

impl Slurm {
    /// Starts one with its files in `dir`; words for people when it is not installed.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Result<Slurm, String>> {
        if let Some(missing) = PROGRAMS.iter().find(|path| !Path::new(path).exists()) {
            return Ok(Err(format!(
                "{missing} is not there: `apt-get install slurm-wlm munge`"
            )));
        }
        let dir = dir.join("slurm");
        for folder in ["", "spool", "state"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let mut slurm = Slurm {
            daemons: Vec::new(),
            conf: dir.join("slurm.conf"),
        };
        slurm.start_daemons(&dir).context("slurm")?;
        Ok(Ok(slurm))
    }

    fn start_daemons(&mut self, dir: &Path) -> anyhow::Result<()> {
        let key = dir.join("munge.key");
        let mut random = [0; 128];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut random)?;
        let mut file = fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&key)?;
        std::io::Write::write_all(&mut file, &random)?;
        let at = |name: &str| dir.join(name).display().to_string();
        self.daemon(
            dir,
            command(Path::new(PROGRAMS[0]))
                // It warns of folders that others may write to, as /tmp.
                .args(["--foreground", "--force"])
                .arg(format!("--key-file={}", key.display()))
                .arg(format!("--socket={}", at("munge.sock")))
                .arg(format!("--pid-file={}", at("munged.pid")))
                .arg(format!("--log-file={}", at("munged.log")))
                .arg(format!("--seed-file={}", at("munged.seed"))),
        )?;
        fs::write(&self.conf, conf(dir)?)?;
        let socket = dir.join("munge.sock");
        wait_for(|| Ok(socket.exists()), "munged makes no socket")?;
        for program in &PROGRAMS[1..3] {
            let mut daemon = command(Path::new(program));
            daemon.arg("-D").arg("-f").arg(&self.conf);
            self.daemon(dir, &mut daemon)?;
        }
        wait_for(
            || {
                // While the controller starts, nobody answers.
                let mut ask = self.command("/usr/bin/sinfo");
                let state = quietly(ask.args(["--noheader", "--format=%T"]));
                Ok(state.is_ok_and(|state| state.trim() == "idle"))
            },
            "its node does not become idle",
        )
    }

    fn daemon(&mut self, dir: &Path, daemon: &mut Command) -> anyhow::Result<()> {
        let words = fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join("daemons.out"))?;
        let child = daemon
            .stdin(Stdio::null())
            .stdout(words.try_clone()?)
            .stderr(words)
            .spawn()
            .with_context(|| format!("{daemon:?}"))?;
        self.daemons.push(child);
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command(Path::new(program));
        command.env("SLURM_CONF", &self.conf);
        command
    }

    /// Runs a program as a job and shows its output.
    pub(crate) fn srun(&self) -> Command {
        self.command(PROGRAMS[3])
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // Jobs' daemon first, so that it can say goodbye; the keeper of proofs last.
        for daemon in self.daemons.iter_mut().rev() {
            let end = Instant::now() + END;
            if let Ok(pid) = i32::try_from(daemon.id()) {
                // One that has ended by itself is reaped below.
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            while matches!(daemon.try_wait(), Ok(None)) {
                if Instant::now() > end {
                    let _ = daemon.kill();
                }
                std::thread::sleep(LOOK);
            }
        }
    }
}

fn wait_for(mut there: impl FnMut() -> anyhow::Result<bool>, words: &str) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !there()? {
        ensure!(Instant::now() < end, "{words}");
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// The settings. Source: slurm.conf(5).
fn conf(dir: &Path) -> anyhow::Result<String> {
    let host = nix::unistd::gethostname()?;
    let host = host.to_str().context("the host's name is no text")?;
    let host = host.split('.').next().unwrap_or(host);
    // Held until both are known, so that they differ.
    let listeners = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    ];
    let [controller, node] = [
        listeners[0].local_addr()?.port(),
        listeners[1].local_addr()?.port(),
    ];
    let dir = dir.display();
    Ok(format!(
        "ClusterName=bench\n\
         SlurmctldHost={host}(127.0.0.1)\n\
         SlurmctldPort={controller}\n\
         SlurmdPort={node}\n\
         SlurmUser=root\n\
         SlurmdUser=root\n\
         AuthType=auth/munge\n\
         AuthInfo=socket={dir}/munge.sock\n\
         CredType=cred/munge\n\
         MpiDefault=none\n\
         ProctrackType=proctrack/linuxproc\n\
         TaskPlugin=task/none\n\
         SwitchType=switch/none\n\
         JobAcctGatherType=jobacct_gather/none\n\
         AccountingStorageType=accounting_storage/none\n\
         JobCompType=jobcomp/none\n\
         SelectType=select/cons_tres\n\
         SchedulerType=sched/backfill\n\
         SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0\n\
         SlurmdParameters=config_overrides\n\
         SlurmctldDebug=error\n\
         SlurmdDebug=error\n\
         SlurmctldLogFile={dir}/slurmctld.log\n\
         SlurmdLogFile={dir}/slurmd.log\n\
         SlurmctldPidFile={dir}/slurmctld.pid\n\
         SlurmdPidFile={dir}/slurmd.pid\n\
         SlurmdSpoolDir={dir}/spool\n\
         StateSaveLocation={dir}/state\n\
         NodeName={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN\n\
         PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
    ))
}
