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
    CgroupLimits, CgroupRoot, ContainerSpec, CpuMode, Launcher, Limits, OutputFiles, Profile,
    read_exit,
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

/// What a launch leaves for later (the next spare, groups, the kernel's own clean-up) is done in this
/// pause, so that no contender pays for another. The sustained rate has no pauses.
const PAUSE: Duration = Duration::from_millis(8);

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

impl Series {
    fn new(name: &str) -> Series {
        Series {
            name: name.to_owned(),
            to_exec: Vec::new(),
            to_end: Vec::new(),
        }
    }

    fn push(&mut self, (to_exec, to_end): (Duration, Duration), counts: bool) {
        if counts {
            self.to_exec.push(to_exec);
            self.to_end.push(to_end);
        }
    }
}

/// Our launch from a small process, beside the one from a process with ballast.
pub(crate) const SMALL: &str = "bobbin-small";

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
    print(arguments, &result?)
}

/// What a run has found.
#[derive(Debug, serde::Serialize)]
struct Report {
    rounds: usize,
    ballast_mib: usize,
    rows: Vec<Row>,
    /// Launches a second, one after the other without pauses.
    sustained_per_second: f64,
    sustained_bare_per_second: f64,
    skipped: Vec<String>,
}

/// The measuring processes: runtimes need one without the v2 tree of a hybrid host.
struct Workers {
    floors: Worker,
    runtimes: Worker,
}

impl Workers {
    fn once(&mut self, name: &str) -> anyhow::Result<(Duration, Duration)> {
        match Runtime::from_name(name) {
            Some(_) => self.runtimes.once(name),
            None => self.floors.once(name),
        }
    }
}

/// The contenders that can be measured here, and why the others cannot.
fn contenders(arguments: &LaunchArguments) -> anyhow::Result<(Vec<Series>, Vec<String>)> {
    let mut skipped = Vec::new();
    let mut names = Vec::new();
    if arguments.ballast > 0 {
        names.push(SMALL);
    }
    for name in &arguments.vs {
        match Runtime::from_name(name).map(Runtime::program) {
            Some((program, cure)) if find(program).is_none() => {
                skipped.push(format!("{program} is not installed; try: {cure}"));
            }
            Some(_) => names.push(name),
            None if name == "bare" || name == "least" => names.push(name),
            None => bail!("--vs {name}: one of bare, least, crun, runc, bwrap"),
        }
    }
    Ok((names.into_iter().map(Series::new).collect(), skipped))
}

fn measure(arguments: &LaunchArguments, dir: &Path, groups: &CgroupRoot) -> anyhow::Result<Report> {
    let (mut others, skipped) = contenders(arguments)?;
    let init = match &arguments.init {
        Some(init) => init.clone(),
        None => init_beside()?,
    };
    let launcher = Launcher::start(&init)?;
    let unified = Path::new("/sys/fs/cgroup/unified");
    let mut workers = Workers {
        floors: Worker::start_with(dir, &init, None, None)?,
        runtimes: Worker::start_with(dir, &init, unified.exists().then_some(unified), None)?,
    };
    let ballast = vec![1_u8; arguments.ballast << 20];
    let mut ours = Series::new("bobbin");
    let warm_up = 5.min(arguments.rounds);
    for round in 0..arguments.rounds + warm_up {
        let spec = spec_in(&dir.join(format!("c{round}")))?;
        std::thread::sleep(PAUSE);
        ours.push(ours_once(&launcher, groups, spec)?, round >= warm_up);
        for series in &mut others {
            std::thread::sleep(PAUSE);
            series.push(workers.once(&series.name)?, round >= warm_up);
        }
    }
    let mut specs = (0..arguments.rounds)
        .map(|round| spec_in(&dir.join(format!("s{round}"))))
        .collect::<anyhow::Result<Vec<_>>>()?;
    std::thread::sleep(PAUSE);
    let sustained_per_second = sustained(arguments.rounds, || {
        let spec = specs.pop().context("one specification per launch")?;
        ours_once(&launcher, groups, spec)
    })?;
    let sustained_bare_per_second = sustained(arguments.rounds, || workers.floors.once("bare"))?;
    ensure!(
        ballast.iter().step_by(4096).all(|byte| *byte == 1),
        "the ballast has changed"
    );
    workers.floors.end()?;
    workers.runtimes.end()?;
    let rows = std::iter::once(&ours)
        .chain(&others)
        .map(|series| row(series, &ours))
        .collect();
    Ok(Report {
        rounds: arguments.rounds,
        ballast_mib: arguments.ballast,
        rows,
        sustained_per_second,
        sustained_bare_per_second,
        skipped,
    })
}

/// Launches a second over a series without pauses.
fn sustained(
    rounds: usize,
    mut once: impl FnMut() -> anyhow::Result<(Duration, Duration)>,
) -> anyhow::Result<f64> {
    let start = Instant::now();
    for _ in 0..rounds {
        once()?;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a number of rounds is far below 2^52"
    )]
    let rounds = rounds as f64;
    Ok(rounds / start.elapsed().as_secs_f64().max(f64::EPSILON))
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
///
/// # Errors
/// When a step fails or the program does not exit with 0.
pub(crate) fn ours_once(
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
        output_files: OutputFiles::Standard,
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

fn init_beside() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("bobbin-container-init"))
}

/// A measuring process; it ends when its input does.
pub(crate) struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// With the launcher that stands beside this program.
    pub(crate) fn start(dir: &Path, hide: Option<&Path>) -> anyhow::Result<Worker> {
        Worker::start_with(dir, &init_beside()?, hide, None)
    }

    /// As [`Worker::start`], with a floor that runs another program than `true`.
    pub(crate) fn start_running(dir: &Path, program: &str) -> anyhow::Result<Worker> {
        Worker::start_with(dir, &init_beside()?, None, Some(program))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a small process measures what a large one would not"
    )]
    fn start_with(
        dir: &Path,
        init: &Path,
        hide: Option<&Path>,
        program: Option<&str>,
    ) -> anyhow::Result<Worker> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("worker")
            .arg(dir)
            .arg("--init")
            .arg(init)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(hide) = hide {
            command.arg("--hide").arg(hide);
        }
        if let Some(program) = program {
            command.arg("--program").arg(program);
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
        self.begin(what)?;
        self.result(what)
    }

    /// Starts a measurement, so that others can run beside it; its `result` must be fetched.
    pub(crate) fn begin(&mut self, what: &str) -> anyhow::Result<()> {
        writeln!(self.input, "{what}").context("the measuring process has ended")
    }

    pub(crate) fn result(&mut self, what: &str) -> anyhow::Result<(Duration, Duration)> {
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

fn print(arguments: &LaunchArguments, report: &Report) -> anyhow::Result<()> {
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    let mut text = String::new();
    writeln!(
        text,
        "One launch of dynamic /usr/bin/true, reap included; {} rounds, {} MiB held.\n",
        report.rounds, report.ballast_mib
    )?;
    writeln!(
        text,
        "| launch | to exec p50 ms | to end p50 ms | p90 | p99 | bobbin / this |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|")?;
    for row in &report.rows {
        let to_exec = row
            .to_exec
            .map_or_else(|| "-".to_owned(), |t| format!("{:.3}", t.p50_ms));
        let end = row.to_end;
        writeln!(
            text,
            "| {} | {to_exec} | {:.3} | {:.3} | {:.3} | {:.2} |",
            row.name, end.p50_ms, end.p90_ms, end.p99_ms, row.ours_to_this
        )?;
    }
    writeln!(
        text,
        "\nOne after the other without pauses: {:.0} launches/s, bare {:.0}/s ({:.2} of it).",
        report.sustained_per_second,
        report.sustained_bare_per_second,
        report.sustained_per_second / report.sustained_bare_per_second
    )?;
    for line in &report.skipped {
        writeln!(text, "\nSKIPPED: {line}")?;
    }
    println!("{text}");
    Ok(())
}
