//! `bobbin-bench logs`: a line from a container to `bobbin app logs -f`, and how many of them a second.
//!
//! The container's program is this one: it writes each line with one system call, with the time at
//! which it did. Each round lets it write single lines with pauses, then a flood of lines of 1 KiB; the
//! floor is a bare stream that sends messages of 1 KiB to another process and back.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use bobbin_proto::v1;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::bare_rpc::{BareClient, BareServer};
use crate::cluster::{Cluster, quietly};
use crate::fifo::Fifo;
use crate::progress;
use crate::stats::{Spread, Summary, spread, summary};

#[derive(Debug, clap::Args)]
pub(crate) struct LogsArguments {
    /// Rounds; each measures both sides once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Single lines of a round.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    lines: u32,
    /// Lines of 1 KiB of a round's flood. All rounds stay below what an agent keeps of one log.
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(100..=50_000))]
    flood: u32,
    /// text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WriteLinesArguments {
    /// A named pipe that says what to write: `single N`, `flood N`, `end`.
    orders: PathBuf,
}

/// Of a line of a flood, its end included.
const LINE_BYTES: usize = 1024;
/// Between single lines.
const PAUSE: Duration = Duration::from_millis(2);
/// Messages that may be on their way of the bare stream.
const WINDOW: usize = 1024;
/// Echoes one after the other, a round.
const ECHOES: u32 = 500;
const READY: &str = "ready";

#[derive(Debug, serde::Serialize)]
struct Report {
    rounds: u32,
    line: Summary,
    /// There and back of one message of the bare stream: two of the hops of a line.
    bare_echo: Summary,
    /// Lines of 1 KiB a second, from the first one's writing to the last one's reading.
    lines_per_second: Spread,
    /// Messages of 1 KiB a second, there and back.
    bare_per_second: Spread,
    ratio: Spread,
}

/// The container's program.
///
/// # Errors
/// The pipe or the output cannot be used.
pub(crate) fn write_lines(arguments: &WriteLinesArguments) -> anyhow::Result<()> {
    // Both ends, so that it has no end while nobody writes.
    let orders = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&arguments.orders)?;
    let mut out =
        std::fs::File::from(std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned()?);
    out.write_all(format!("{READY}\n").as_bytes())?;
    for order in BufReader::new(orders).lines() {
        let order = order?;
        let mut words = order.split(' ');
        let (what, count) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or("0"),
        );
        let count: u32 = count.parse()?;
        match what {
            "single" => {
                for _ in 0..count {
                    std::thread::sleep(PAUSE);
                    out.write_all(format!("{}\n", now()).as_bytes())?;
                }
            }
            "flood" => {
                for _ in 0..count {
                    let mut line = now().to_string().into_bytes();
                    line.resize(LINE_BYTES - 1, b'.');
                    line.push(b'\n');
                    out.write_all(&line)?;
                }
            }
            "end" => return Ok(()),
            other => bail!("'{other}' is no order"),
        }
    }
    Ok(())
}

/// Nanoseconds of the clock that this process and a container share.
fn now() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_nanos()
}

/// Runs the benchmark on a cluster of its own and prints its result.
///
/// # Errors
/// A part of it fails.
pub(crate) fn run(arguments: &LogsArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let cluster = Cluster::up(1, &[])?;
    let bare = BareServer::start(cluster.scratch())?;
    let mut writer = Writer::start(&cluster)?;
    let (mut singles, mut echoes) = (Vec::new(), Vec::new());
    let (mut rates, mut bare_rates) = (Vec::new(), Vec::new());
    for round in 0..=arguments.rounds {
        // The first is not counted.
        let (lines, flood) = if round == 0 {
            (arguments.lines.min(20), arguments.flood.min(1_000))
        } else {
            (arguments.lines, arguments.flood)
        };
        let times = writer.single(lines)?;
        let (echo, bare_rate) = runtime.block_on(stream(bare.socket(), flood))?;
        let rate = writer.flood(flood)?;
        if round == 0 {
            continue;
        }
        progress(&format!(
            "round {round}: line p50 {:.3} ms, bare echo {:.3} ms; {rate:.0} lines/s, bare {bare_rate:.0}/s, ratio {:.2}",
            summary(&times).p50_ms,
            summary(&echo).p50_ms,
            rate / bare_rate
        ));
        singles.extend(times);
        echoes.extend(echo);
        rates.push(rate);
        bare_rates.push(bare_rate);
    }
    writer.end()?;
    let ratios: Vec<f64> = rates.iter().zip(&bare_rates).map(|(a, b)| a / b).collect();
    let report = Report {
        rounds: arguments.rounds,
        line: summary(&singles),
        bare_echo: summary(&echoes),
        lines_per_second: spread(&rates),
        bare_per_second: spread(&bare_rates),
        ratio: spread(&ratios),
    };
    print(arguments, &report)
}

/// The container that writes, and the command that follows it.
struct Writer {
    orders: Fifo,
    follower: Child,
    lines: BufReader<ChildStdout>,
}

impl Writer {
    fn start(cluster: &Cluster) -> anyhow::Result<Writer> {
        let shared = cluster.folder().join("shared");
        let program = shared.join("write-lines");
        std::fs::copy(std::env::current_exe()?, &program)?;
        let orders = Fifo::make(&shared.join("orders"))?;
        let mut submit = cluster.bobbin();
        submit
            .args(["submit", "--deploy-mode", "cluster", "--detach"])
            .args(["--driver-memory", "256m", "--"])
            .arg(&program)
            .arg("write-lines")
            .arg(shared.join("orders"));
        let id = quietly(&mut submit)?;
        let mut follow = cluster.bobbin();
        let mut follower = follow
            .args(["app", "logs", "-f", "--driver", id.trim()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{follow:?}"))?;
        let lines = BufReader::with_capacity(1 << 18, follower.stdout.take().context("no output")?);
        let mut writer = Writer {
            orders,
            follower,
            lines,
        };
        let mut first = Vec::new();
        writer.read(&mut first)?;
        ensure!(
            first == READY.as_bytes(),
            "the container says {}",
            String::from_utf8_lossy(&first)
        );
        Ok(writer)
    }

    /// The next line without its end.
    fn read(&mut self, line: &mut Vec<u8>) -> anyhow::Result<()> {
        line.clear();
        self.lines.read_until(b'\n', line)?;
        ensure!(line.pop() == Some(b'\n'), "the following has ended");
        Ok(())
    }

    /// The next line's time, and how long ago it was.
    fn time(&mut self, line: &mut Vec<u8>) -> anyhow::Result<(u128, Duration)> {
        self.read(line)?;
        let digits = line.split(|byte| *byte == b'.').next().unwrap_or_default();
        let written: u128 = std::str::from_utf8(digits)?.parse()?;
        let nanos = u64::try_from(now().saturating_sub(written))?;
        Ok((written, Duration::from_nanos(nanos)))
    }

    fn single(&mut self, count: u32) -> anyhow::Result<Vec<Duration>> {
        self.orders.say(&format!("single {count}"))?;
        let mut line = Vec::new();
        (0..count).map(|_| Ok(self.time(&mut line)?.1)).collect()
    }

    /// Lines a second.
    fn flood(&mut self, count: u32) -> anyhow::Result<f64> {
        self.orders.say(&format!("flood {count}"))?;
        let mut line = Vec::with_capacity(LINE_BYTES);
        let (first, _) = self.time(&mut line)?;
        for _ in 1..count {
            self.read(&mut line)?;
            ensure!(
                line.len() + 1 == LINE_BYTES,
                "a line of {} bytes",
                line.len() + 1
            );
        }
        let nanos = u64::try_from(now().saturating_sub(first))?;
        Ok(f64::from(count) / Duration::from_nanos(nanos).as_secs_f64())
    }

    fn end(mut self) -> anyhow::Result<()> {
        self.orders.say("end")?;
        let status = self.follower.wait()?;
        ensure!(status.success(), "the following ended with {status}");
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // One that has ended already is only reaped.
        let _ = self.follower.kill();
        let _ = self.follower.wait();
    }
}

/// The bare stream: single echoes, and messages a second with a window.
async fn stream(socket: &Path, count: u32) -> anyhow::Result<(Vec<Duration>, f64)> {
    let mut client = BareClient::connect(socket).await?;
    let (sender, outward) = mpsc::unbounded_channel();
    let mut back = client.echo(UnboundedReceiverStream::new(outward)).await?;
    let message = v1::LogChunk {
        data: vec![b'.'; LINE_BYTES],
        ..v1::LogChunk::default()
    };
    let mut times = Vec::new();
    for _ in 0..ECHOES {
        let before = Instant::now();
        sender.send(message.clone())?;
        back.message().await?.context("the stream has ended")?;
        times.push(before.elapsed());
    }
    let window = std::sync::Arc::new(Semaphore::new(WINDOW));
    let (begun, permits) = (Instant::now(), window.clone());
    let sending = tokio::spawn(async move {
        for _ in 0..count {
            permits.acquire().await?.forget();
            sender.send(message.clone())?;
        }
        anyhow::Ok(())
    });
    for _ in 0..count {
        back.message().await?.context("the stream has ended")?;
        window.add_permits(1);
    }
    let time = begun.elapsed();
    sending.await??;
    Ok((times, f64::from(count) / time.as_secs_f64()))
}

fn print(arguments: &LogsArguments, report: &Report) -> anyhow::Result<()> {
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    println!(
        "A container's lines in the output of `bobbin app logs -f`; {} rounds.\n",
        report.rounds
    );
    println!("| from | p50 ms | p90 | p99 |\n|---|---|---|---|");
    for (name, times) in [
        (
            "write in the container to read of the follower's output",
            report.line,
        ),
        ("floor: a bare stream, there and back", report.bare_echo),
    ] {
        println!(
            "| {name} | {:.3} | {:.3} | {:.3} |",
            times.p50_ms, times.p90_ms, times.p99_ms
        );
    }
    println!(
        "\n| lines of 1 KiB | a second | least | most | / bare stream |\n|---|---|---|---|---|"
    );
    for (name, rate, ratio) in [
        (
            "container to follower",
            report.lines_per_second,
            report.ratio.median,
        ),
        (
            "bare stream, there and back, window 1024",
            report.bare_per_second,
            1.0,
        ),
    ] {
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {ratio:.2} |",
            rate.median, rate.least, rate.most
        );
    }
    Ok(())
}
