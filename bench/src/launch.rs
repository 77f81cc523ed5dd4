//! `bobbin-bench launch`: one sandboxed launch, as the agent does it, beside its floor.
//!
//! Each round measures every contender once, one after the other; a ratio is the median over the
//! rounds of the quotient within a round.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bobbin_sandbox::{
    CgroupLimits, CgroupRoot, ContainerSpec, CpuMode, Launcher, Limits, Profile, read_exit,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::runtimes::{Runtime, find};
use crate::stats::{Summary, median_ratio, summary};

/// An account that owns nothing.
const UID: u32 = 65_533;

#[derive(Debug, clap::Args)]
pub(crate) struct LaunchArguments {
    /// Rounds; each measures every contender once.
    #[arg(long, default_value_t = 300)]
    rounds: usize,
    /// What to measure beside our launch: bare (the same isolation written straight), least (less
    /// isolation), crun, runc, bwrap.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "bare,least,crun,runc,bwrap"
    )]
    vs: Vec<String>,
    /// MiB of memory the launching process holds, as a large agent would.
    #[arg(long, default_value_t = 0)]
    ballast: usize,
    /// The launcher; beside this program if not given.
    #[arg(long)]
    init: Option<PathBuf>,
    /// text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// One contender's series.
#[derive(Debug, serde::Serialize)]
struct Row {
    name: String,
    /// To the execution of the program, where it is known.
    to_exec: Option<Summary>,
    /// To the end of the program.
    to_end: Summary,
    /// Our time to the end, divided by this one's, pair by pair.
    ours_to_this: f64,
}

struct Series {
    name: String,
    to_exec: Vec<Duration>,
    to_end: Vec<Duration>,
}

/// Runs the benchmark and prints its result.
///
/// # Errors
/// When not root, or a launch fails.
pub(crate) fn run(arguments: &LaunchArguments) -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "launching containers of other users needs root"
    );
    let dir = tempfile::Builder::new().prefix("bobbin-bench-").tempdir()?;
    let name = format!("bench-{}", std::process::id());
    let groups = CgroupRoot::detect(None, &name).context("control groups")?;
    let result = measure(arguments, dir.path(), &groups);
    groups.remove_all().context("control groups")?;
    remove_runtime_groups(&groups);
    let (rows, missing) = result?;
    print(arguments, &rows, &missing)
}

fn measure(
    arguments: &LaunchArguments,
    dir: &Path,
    groups: &CgroupRoot,
) -> anyhow::Result<(Vec<Row>, Vec<String>)> {
    let mut missing = Vec::new();
    let mut contenders: Vec<&str> = Vec::new();
    for name in &arguments.vs {
        match Runtime::from_name(name).map(Runtime::program) {
            Some((program, cure)) if find(program).is_none() => {
                missing.push(format!("{program} is not installed; try: {cure}"));
            }
            Some(_) => contenders.push(name),
            None if name == "bare" || name == "least" => contenders.push(name),
            None => bail!("--vs {name}: one of bare, least, crun, runc, bwrap"),
        }
    }
    let init = match &arguments.init {
        Some(init) => init.clone(),
        None => std::env::current_exe()?.with_file_name("bobbin-container-init"),
    };
    let launcher = Launcher::start(&init)?;
    let mut floors = Worker::start(dir, None)?;
    let unified = Path::new("/sys/fs/cgroup/unified");
    let mut runtimes = Worker::start(dir, unified.exists().then_some(unified))?;
    let ballast = vec![1_u8; arguments.ballast << 20];
    let mut ours = Series {
        name: "bobbin".into(),
        to_exec: vec![],
        to_end: vec![],
    };
    let mut others: Vec<Series> = contenders
        .iter()
        .map(|name| Series {
            name: (*name).to_owned(),
            to_exec: vec![],
            to_end: vec![],
        })
        .collect();
    let warm_up = 5.min(arguments.rounds);
    for round in 0..arguments.rounds + warm_up {
        let spec = spec_in(&dir.join(format!("c{round}")))?;
        let (to_exec, to_end) = ours_once(&launcher, groups, spec)?;
        if round >= warm_up {
            ours.to_exec.push(to_exec);
            ours.to_end.push(to_end);
        }
        for series in &mut others {
            let floor = series.name == "bare" || series.name == "least";
            let worker = if floor { &mut floors } else { &mut runtimes };
            let (to_exec, to_end) = worker.once(&series.name)?;
            if round >= warm_up {
                series.to_exec.push(to_exec);
                series.to_end.push(to_end);
            }
        }
    }
    ensure!(
        ballast.iter().step_by(4096).all(|byte| *byte == 1),
        "the ballast has changed"
    );
    floors.end()?;
    runtimes.end()?;
    let rows = std::iter::once(&ours)
        .chain(&others)
        .map(|series| row(series, &ours))
        .collect();
    Ok((rows, missing))
}

fn row(series: &Series, ours: &Series) -> Row {
    let known = series.to_exec.iter().any(|time| !time.is_zero());
    Row {
        name: series.name.clone(),
        to_exec: known.then(|| summary(&series.to_exec)),
        to_end: summary(&series.to_end),
        ours_to_this: median_ratio(&ours.to_end, &series.to_end),
    }
}

/// What the agent does for a container: lease groups, launch, wait for its end and read how.
fn ours_once(
    launcher: &Launcher,
    groups: &CgroupRoot,
    mut spec: ContainerSpec,
) -> anyhow::Result<(Duration, Duration)> {
    let limits = CgroupLimits {
        memory_mib: spec.memory_mib,
        vcores: spec.vcores,
        cpu: spec.cpu,
        pids_max: spec.pids_max,
    };
    let start = Instant::now();
    spec.cgroups = Some(groups.lease(&spec.container_id, &limits)?);
    let launched = launcher.launch(&spec)?;
    let to_exec = start.elapsed();
    let mut fds = [PollFd::new(launched.pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE)?;
    let record = read_exit(&spec.private_dir)?.context("there is no exit file")?;
    let to_end = start.elapsed();
    ensure!(
        record.exit_status == 0,
        "the program ended with {}",
        record.exit_status
    );
    if let Some(lease) = spec.cgroups {
        groups.release(lease)?;
    }
    Ok((to_exec, to_end))
}

/// A container of `true` with folders of its own.
///
/// # Errors
/// When the folders cannot be made.
pub(crate) fn spec_in(dir: &Path) -> anyhow::Result<ContainerSpec> {
    let folder = |name: &str| -> anyhow::Result<PathBuf> {
        let path = dir.join(name);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750))?;
        chown(&path, Some(UID), Some(UID))?;
        Ok(path)
    };
    Ok(ContainerSpec {
        container_id: "container_e01_1790000000000_0001_01_000001".into(),
        argv: vec!["/usr/bin/true".into()],
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        uid: UID,
        gid: UID,
        groups: vec![],
        user_name: "nobody".into(),
        host_name: String::new(),
        work_dir: folder("work")?,
        binds: vec![],
        log_dir: folder("log")?,
        log_bytes_max: 1 << 30,
        private_dir: folder("private")?,
        run_dir: folder("run")?,
        memory_mib: 256,
        vcores: 1,
        cpu: CpuMode::Share,
        pids_max: 1000,
        limits: Limits {
            tmp_mib: 16,
            open_files: 1024,
            ..Limits::default()
        },
        kill_grace_ms: 250,
        profile: Profile::Full,
        cgroups: None,
    })
}

/// A measuring process; it ends when its input does.
pub(crate) struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    #[expect(
        clippy::disallowed_methods,
        reason = "a small process measures what a large one would not"
    )]
    pub(crate) fn start(dir: &Path, hide: Option<&Path>) -> anyhow::Result<Worker> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("worker")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(hide) = hide {
            command.arg("--hide").arg(hide);
        }
        let mut child = command
            .spawn()
            .context("cannot start the measuring process")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Worker {
            child,
            input,
            output,
        })
    }

    pub(crate) fn once(&mut self, what: &str) -> anyhow::Result<(Duration, Duration)> {
        writeln!(self.input, "{what}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let mut times = line
            .split_whitespace()
            .map(|word| word.parse().map(Duration::from_nanos));
        match (times.next(), times.next()) {
            (Some(Ok(to_exec)), Some(Ok(to_end))) => Ok((to_exec, to_end)),
            _ => bail!("measuring {what}: {line}"),
        }
    }

    pub(crate) fn end(self) -> anyhow::Result<()> {
        let Worker {
            mut child,
            input,
            output,
        } = self;
        drop((input, output));
        let status = child.wait()?;
        ensure!(
            status.success(),
            "the measuring process ended with {status}"
        );
        Ok(())
    }
}

/// Runtimes make the whole path of a group in every hierarchy and take only its end away.
fn remove_runtime_groups(groups: &CgroupRoot) {
    let Some(memory) = groups
        .layout()
        .of(bobbin_sandbox::cgroup::Controller::Memory)
    else {
        return;
    };
    let Ok(own) = memory.own.strip_prefix(&memory.mount) else {
        return;
    };
    let Some(top) = memory.mount.parent() else {
        return;
    };
    let Ok(hierarchies) = fs::read_dir(top) else {
        return;
    };
    for hierarchy in hierarchies.filter_map(Result::ok).map(|entry| entry.path()) {
        if hierarchy == memory.mount {
            continue;
        }
        for part in own.ancestors().filter(|part| *part != Path::new("")) {
            // Only an empty group can be removed, so nobody else's is.
            let _ = fs::remove_dir(hierarchy.join(part));
        }
    }
}

fn print(arguments: &LaunchArguments, rows: &[Row], missing: &[String]) -> anyhow::Result<()> {
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(rows)?);
        return Ok(());
    }
    let mut text = String::new();
    writeln!(
        text,
        "One launch of dynamic /usr/bin/true, reap included; {} rounds, {} MiB held.\n",
        arguments.rounds, arguments.ballast
    )?;
    writeln!(
        text,
        "| launch | to exec p50 ms | to end p50 ms | p90 | p99 | bobbin / this |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|")?;
    for row in rows {
        let to_exec = row
            .to_exec
            .map_or_else(|| "-".to_owned(), |times| format!("{:.3}", times.p50_ms));
        let end = row.to_end;
        writeln!(
            text,
            "| {} | {to_exec} | {:.3} | {:.3} | {:.3} | {:.2} |",
            row.name, end.p50_ms, end.p90_ms, end.p99_ms, row.ours_to_this
        )?;
    }
    for line in missing {
        writeln!(text, "\nSKIPPED: {line}")?;
    }
    println!("{text}");
    Ok(())
}
