//! `bobbin-bench submit-e2e`: from `bobbin submit` to the driver's first line, beside its floor.
//!
//! The floor is what no cluster manager can go below on this machine: a bare one-shot gRPC client
//! (start, connect to a unix socket, one call, end) plus a bare sandbox of the same isolation that
//! runs the program, one after the other. Each round measures ours and both parts of the floor once.
//! With `--vs slurm` each round also runs `srun` of the same program on a tuned Slurm.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bobbin_proto::v1;

use crate::bare_rpc::{BareClient, BareServer};
use crate::cluster::{Cluster, command};
use crate::launch::Worker;
use crate::progress;
use crate::slurm::Slurm;
use crate::stats::{Summary, median_ratio, summary};

#[derive(Debug, clap::Args)]
pub(crate) struct SubmitArguments {
    /// Rounds; each measures ours and the floor once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: u32,
    /// What to measure beside the floor: slurm (Debian's, started for this).
    #[arg(long, value_delimiter = ',', value_parser = ["floor", "slurm"], default_value = "floor")]
    vs: Vec<String>,
    /// No process is started: a connection that stays open submits, and a session of client mode runs
    /// the program in a container.
    #[arg(long, conflicts_with = "vs")]
    resident: bool,
    /// text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    pub(crate) output: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneShotArguments {
    socket: PathBuf,
}

#[derive(Debug, serde::Serialize)]
struct Report {
    rounds: u32,
    submit: Summary,
    client: Summary,
    sandbox: Summary,
    /// Ours divided by the sum of the floor's parts, round by round.
    ratio: f64,
    srun: Option<Summary>,
    /// How many times faster than Slurm, round by round.
    times_faster_than_slurm: Option<f64>,
    skipped: Vec<String>,
}

/// What one contender leaves for later is done in this pause, so that no other pays for it.
pub(crate) const PAUSE: Duration = Duration::from_millis(15);
/// Rounds that are not counted.
pub(crate) const WARM_UP: u32 = 5;
/// A round in so many is shown.
pub(crate) const SHOWN: u32 = 10;

/// The floor's client: one call, one line, the end.
///
/// # Errors
/// Nobody answers.
pub(crate) fn one_shot(arguments: &OneShotArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut client = BareClient::connect(&arguments.socket).await?;
        client
            .submit(v1::SubmitApplicationRequest::default())
            .await?;
        println!("answered");
        Ok(())
    })
}

/// Runs the benchmark on a cluster of its own and prints its result.
///
/// # Errors
/// When not root, or a part cannot be run.
pub(crate) fn run(arguments: &SubmitArguments) -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the floor's sandbox needs root"
    );
    if arguments.resident {
        return crate::resident::run(arguments);
    }
    let cluster = Cluster::up(2, &[])?;
    let (mut slurm, mut skipped) = (None, Vec::new());
    if arguments.vs.iter().any(|name| name == "slurm") {
        match Slurm::start(cluster.scratch())? {
            Ok(started) => slurm = Some(started),
            Err(missing) => {
                let words = format!("slurm is left out: {missing}");
                progress(&words);
                skipped.push(words);
            }
        }
    }
    let report = measure(arguments, &cluster, slurm.as_ref(), skipped)?;
    print(arguments, &report)
}

fn measure(
    arguments: &SubmitArguments,
    cluster: &Cluster,
    slurm: Option<&Slurm>,
    skipped: Vec<String>,
) -> anyhow::Result<Report> {
    let bare = BareServer::start(cluster.scratch())?;
    let mut floors = Worker::start(cluster.scratch(), None)?;
    let program = std::env::current_exe()?;
    let (mut submits, mut clients, mut sandboxes) = (Vec::new(), Vec::new(), Vec::new());
    let mut sruns = Vec::new();
    let warm_up = WARM_UP.min(arguments.rounds);
    for round in 0..arguments.rounds + warm_up {
        let submit = first_line(
            cluster
                .bobbin()
                .args(["submit", "--deploy-mode", "cluster"])
                .args(["--driver-memory", "64m", "--", "/bin/echo", "line"]),
        )?;
        std::thread::sleep(PAUSE);
        let client = first_line(command(&program).arg("one-shot").arg(bare.socket()))?;
        let (_, sandbox) = floors.once("bare")?;
        std::thread::sleep(PAUSE);
        let srun = slurm
            .map(|slurm| first_line(slurm.srun().args(["/bin/echo", "line"])))
            .transpose()?;
        std::thread::sleep(PAUSE);
        if round < warm_up {
            continue;
        }
        submits.push(submit);
        clients.push(client);
        sandboxes.push(sandbox);
        sruns.extend(srun);
        if (round - warm_up).is_multiple_of(SHOWN) {
            let srun = srun.map_or_else(String::new, |srun| format!(", srun {:.1} ms", ms(srun)));
            progress(&format!(
                "round {}: submit {:.2} ms, client {:.2} ms, sandbox {:.2} ms{srun}",
                round - warm_up + 1,
                ms(submit),
                ms(client),
                ms(sandbox)
            ));
        }
    }
    floors.end()?;
    let floor: Vec<Duration> = clients
        .iter()
        .zip(&sandboxes)
        .map(|(a, b)| *a + *b)
        .collect();
    Ok(Report {
        rounds: arguments.rounds,
        ratio: median_ratio(&submits, &floor),
        submit: summary(&submits),
        client: summary(&clients),
        sandbox: summary(&sandboxes),
        srun: slurm.map(|_| summary(&sruns)),
        times_faster_than_slurm: slurm.map(|_| median_ratio(&sruns, &submits)),
        skipped,
    })
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// From before the start of a program to its first line; the rest of it is waited for, unmeasured.
fn first_line(command: &mut Command) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start a program")?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let time = start.elapsed();
    let status = child.wait()?;
    ensure!(
        status.success() && !line.is_empty(),
        "{command:?} ended with {status}: {line:?}"
    );
    Ok(time)
}

fn print(arguments: &SubmitArguments, report: &Report) -> anyhow::Result<()> {
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    println!(
        "`bobbin submit --deploy-mode cluster -- /bin/echo line` to its first line; {} rounds.\n",
        report.rounds
    );
    println!("| part | p50 ms | p90 | p99 |\n|---|---|---|---|");
    let srun = report
        .srun
        .map(|srun| ("tuned slurm: srun /bin/echo line", srun));
    for (name, times) in [
        ("bobbin submit to the driver's first line", report.submit),
        ("floor: one-shot gRPC client", report.client),
        ("floor: bare sandbox, to its end", report.sandbox),
    ]
    .into_iter()
    .chain(srun)
    {
        println!(
            "| {name} | {:.3} | {:.3} | {:.3} |",
            times.p50_ms, times.p90_ms, times.p99_ms
        );
    }
    println!(
        "\nratio to the floor's sum, median over the rounds: {:.2}",
        report.ratio
    );
    if let Some(faster) = report.times_faster_than_slurm {
        println!("times faster than srun, median over the rounds: {faster:.1}");
    }
    for words in &report.skipped {
        println!("{words}");
    }
    Ok(())
}
