//! `bobbin-bench map`: many short tasks with `bobbin map` on two executors, beside HyperQueue with a
//! worker of as many cores.
//!
//! A driver in its container waits for a number, runs so many tasks and says when it began and ended.
//! HyperQueue (its Python package, which has server and worker in it) submits one job of as many
//! tasks. Both keep what each task writes; both are up and idle before a round. Bobbin is measured from
//! the start of `bobbin map` to its end, HyperQueue from the submission to the last task's output.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::cluster::{Cluster, command};
use crate::fifo::Fifo;
use crate::progress;
use crate::stats::{Spread, spread};

#[derive(Debug, clap::Args)]
pub(crate) struct MapArguments {
    /// Tasks in all rounds together.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..))]
    tasks: u32,
    /// Rounds; each runs its part of the tasks with both, one after the other.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Python with the package hyperqueue; without it Bobbin is measured alone.
    #[arg(long, default_value = "target/hyperqueue/bin/python3")]
    hyperqueue: PathBuf,
    /// text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// What each task runs, with its number as the only argument.
const PROGRAM: &str = "/bin/echo";
/// Executors of one core, and cores of HyperQueue's worker.
const CORES: u32 = 2;
/// For one round of either.
const PATIENCE: Duration = Duration::from_secs(120);
/// Answers with the nanoseconds it took and the number of whole outputs.
const DRIVER: &str = "cd $BOBBIN_SHARED_DIR; while read count < go && [ $count != end ]; do \
    began=$(date +%s%N); seq $count | bobbin --quiet map -- /bin/echo {} > /tmp/outputs; \
    ended=$(date +%s%N); seq $count | cmp -s - /tmp/outputs && whole=$count || whole=0; \
    echo $((ended - began)) $whole > said; done";

#[derive(Debug, serde::Serialize)]
struct Report {
    tasks: u32,
    rounds: u32,
    /// Tasks a second.
    bobbin: Spread,
    hyperqueue: Option<Spread>,
    /// Bobbin's rate divided by HyperQueue's of the same round.
    ratio: Option<Spread>,
    /// Tasks of Bobbin's whose output is not there.
    lost: u32,
}

/// Runs the benchmark on a cluster of its own and prints its result.
///
/// # Errors
/// A part of it fails; a machine without HyperQueue is told of and not an error.
pub(crate) fn run(arguments: &MapArguments) -> anyhow::Result<()> {
    let mut bobbin = Driver::start()?;
    let mut hyperqueue = match HyperQueue::start(&arguments.hyperqueue) {
        Ok(peer) => Some(peer),
        Err(e) => {
            progress(&format!(
                "SKIPPED: HyperQueue is not compared with: {e:#}; try: python3 -m venv \
                 target/hyperqueue && target/hyperqueue/bin/pip install hyperqueue"
            ));
            None
        }
    };
    let each = arguments.tasks.div_ceil(arguments.rounds);
    let (mut ours, mut theirs, mut ratios, mut lost) = (vec![], vec![], vec![], 0);
    for round in 0..=arguments.rounds {
        // The first is not counted: executors come up, files are read for the first time.
        let warm_up = round == 0;
        let count = if warm_up { each.min(100) } else { each };
        let (our_rate, whole) = bobbin.tasks(count)?;
        let their_rate = hyperqueue
            .as_mut()
            .map(|peer| peer.tasks(count))
            .transpose()?;
        if warm_up {
            continue;
        }
        lost += count - whole;
        ours.push(our_rate);
        let mut words = format!("round {round}: {count} tasks, bobbin {our_rate:.0}/s");
        if let Some(their_rate) = their_rate {
            theirs.push(their_rate);
            ratios.push(our_rate / their_rate);
            words += &format!(
                ", HyperQueue {their_rate:.0}/s, ratio {:.2}",
                our_rate / their_rate
            );
        }
        progress(&words);
    }
    bobbin.end()?;
    if let Some(peer) = hyperqueue {
        peer.end();
    }
    let compared = |values: &[f64]| (!values.is_empty()).then(|| spread(values));
    let report = Report {
        tasks: each * arguments.rounds,
        rounds: arguments.rounds,
        bobbin: spread(&ours),
        hyperqueue: compared(&theirs),
        ratio: compared(&ratios),
        lost,
    };
    print(arguments, &report)
}

/// A driver that runs what it is told.
struct Driver {
    go: Fifo,
    said: Fifo,
    submit: Child,
    // Ended last.
    _cluster: Cluster,
}

impl Driver {
    fn start() -> anyhow::Result<Driver> {
        let cluster = Cluster::up(2, &[])?;
        let shared = cluster.folder().join("shared");
        let go = Fifo::make(&shared.join("go"))?;
        let said = Fifo::make(&shared.join("said"))?;
        let executors = CORES.to_string();
        let submit = cluster
            .bobbin()
            .args(["submit", "--quiet", "--deploy-mode", "cluster"])
            .args(["--num-executors", &executors, "--executor-memory", "256m"])
            .args(["--tie-to-client", "--", "sh", "-c", DRIVER])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("bobbin submit")?;
        Ok(Driver {
            go,
            said,
            submit,
            _cluster: cluster,
        })
    }

    /// Tasks a second, and how many outputs were whole.
    fn tasks(&mut self, count: u32) -> anyhow::Result<(f64, u32)> {
        self.go.say(&count.to_string())?;
        let answer = self.said.hear(PATIENCE)?;
        let (nanoseconds, whole) = answer.split_once(' ').context("half an answer")?;
        let time = Duration::from_nanos(nanoseconds.parse()?);
        Ok((rate(count, time.as_secs_f64()), whole.parse()?))
    }

    fn end(mut self) -> anyhow::Result<()> {
        self.go.say("end")?;
        let status = self.submit.wait()?;
        ensure!(status.success(), "the driver ended with {status}");
        Ok(())
    }
}

/// HyperQueue's server and worker in a Python process.
struct HyperQueue {
    process: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl HyperQueue {
    fn start(python: &Path) -> anyhow::Result<HyperQueue> {
        ensure!(python.exists(), "{} is not there", python.display());
        let mut process = command(python)
            .args(["-c", include_str!("hyperqueue.py")])
            .args([&CORES.to_string(), PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| python.display().to_string())?;
        let input = process.stdin.take().context("no input")?;
        let output = process.stdout.take().context("no output")?;
        let mut peer = HyperQueue {
            process,
            input,
            answers: lines(output),
        };
        let ready = peer.hear()?;
        ensure!(ready == "ready", "it said {ready:?}");
        Ok(peer)
    }

    fn hear(&mut self) -> anyhow::Result<String> {
        let answer = self.answers.recv_timeout(PATIENCE);
        if answer.is_err() {
            // Either it has ended already or it is to.
            let _ = self.process.kill();
        }
        answer.context("HyperQueue does not answer")
    }

    /// Tasks a second.
    fn tasks(&mut self, count: u32) -> anyhow::Result<f64> {
        writeln!(self.input, "{count}")?;
        let answer = self.hear()?;
        let (seconds, whole) = answer.split_once(' ').context("half an answer")?;
        ensure!(
            whole.parse() == Ok(count),
            "HyperQueue has {whole} of {count} outputs"
        );
        Ok(rate(count, seconds.parse()?))
    }

    /// It has been seen to hang at its own end.
    fn end(self) {
        let HyperQueue {
            mut process,
            input,
            answers,
        } = self;
        drop(input);
        // Its output's end is its own end, mostly.
        let _ = answers.recv_timeout(Duration::from_secs(5));
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// A thread that ends with what it reads from.
fn lines(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // HyperQueue has things to say, too.
            if let Some(answer) = line.strip_prefix("answer ")
                && sender.send(answer.to_owned()).is_err()
            {
                return;
            }
        }
    });
    receiver
}

fn rate(count: u32, seconds: f64) -> f64 {
    f64::from(count) / seconds.max(f64::EPSILON)
}

fn print(arguments: &MapArguments, report: &Report) -> anyhow::Result<()> {
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    println!(
        "{} tasks of `{PROGRAM} NUMBER` in {} rounds on {CORES} cores, output of each kept; {} of Bobbin's \
         are lost.\n",
        report.tasks, report.rounds, report.lost
    );
    println!("| tasks a second | median | least | most |\n|---|---|---|---|");
    let rows = [
        ("bobbin map, 2 executors", Some(report.bobbin)),
        ("HyperQueue, 1 worker of 2 cores", report.hyperqueue),
    ];
    for (name, spread) in rows {
        if let Some(Spread {
            median,
            least,
            most,
        }) = spread
        {
            println!("| {name} | {median:.0} | {least:.0} | {most:.0} |");
        }
    }
    if let Some(ratio) = report.ratio {
        println!(
            "\nratio to HyperQueue: {:.2} (median over the rounds; {:.2} to {:.2})",
            ratio.median, ratio.least, ratio.most
        );
    }
    Ok(())
}
