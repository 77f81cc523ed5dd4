//! `bobbin-bench am-restart`: from the crash of an application master to its successor's driver
//! running, beside a plain submission of the same master.
//!
//! Both are measured to the same word of the same driver. The submission is the bare call, without the
//! start of a command line. In the first attempt the driver then kills its master with SIGKILL, when it
//! is told to.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bobbin_proto::v1;
use bobbin_proto::v1::client_client::ClientClient;
use bobbin_service::RpcChannel;

use crate::cluster::Cluster;
use crate::fifo::Fifo;
use crate::progress;
use crate::stats::{Summary, median_ratio, summary};
use crate::submission::submission;

#[derive(Debug, clap::Args)]
pub(crate) struct AmRestartArguments {
    /// Rounds; each submits an application and lets its master crash once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// For anything of a round.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a submission and a registration leave for later is done in this pause.
const PAUSE: Duration = Duration::from_millis(20);
const WARM_UP: u32 = 3;
/// Says which attempt it is; the first one kills its parent, the master, when told to go.
const DRIVER: &str = "echo $BOBBIN_ATTEMPT > $BOBBIN_SHARED_DIR/said; \
    [ $BOBBIN_ATTEMPT = 1 ] || exit 0; \
    read word < $BOBBIN_SHARED_DIR/go; kill -9 $PPID; sleep 60";

#[derive(Debug, serde::Serialize)]
struct Report {
    rounds: u32,
    /// From the call to the driver's word.
    submit: Summary,
    /// From the word to kill to the next driver's word.
    restart: Summary,
    /// Median over the rounds.
    ratio: f64,
}

/// Runs the benchmark on a cluster of its own and prints its result.
///
/// # Errors
/// A part of it fails.
pub(crate) fn run(arguments: &AmRestartArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let report = runtime.block_on(measure(arguments))?;
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!(
        "`bobbin-appmaster` with a shell as its driver, to the driver's first word; {} rounds.\n",
        report.rounds
    );
    println!("| from | p50 ms | p90 | p99 |\n|---|---|---|---|");
    for (name, times) in [
        ("the submission (one call)", report.submit),
        ("SIGKILL to the master, to the next attempt", report.restart),
    ] {
        println!(
            "| {name} | {:.3} | {:.3} | {:.3} |",
            times.p50_ms, times.p90_ms, times.p99_ms
        );
    }
    println!(
        "\nratio of the restart to the submission, median over the rounds: {:.2}",
        report.ratio
    );
    Ok(())
}

struct Round<'a> {
    client: ClientClient<RpcChannel>,
    said: &'a mut Fifo,
    go: &'a mut Fifo,
}

async fn measure(arguments: &AmRestartArguments) -> anyhow::Result<Report> {
    let cluster = Cluster::up(2, &[])?;
    let shared = cluster.folder().join("shared");
    let (mut said, mut go) = (
        Fifo::make(&shared.join("said"))?,
        Fifo::make(&shared.join("go"))?,
    );
    let mut round = Round {
        client: ClientClient::new(cluster.connect(None).await?),
        said: &mut said,
        go: &mut go,
    };
    let (mut submits, mut restarts) = (Vec::new(), Vec::new());
    for number in 0..arguments.rounds + WARM_UP {
        let (submit, restart) = round.run().await?;
        if number >= WARM_UP {
            submits.push(submit);
            restarts.push(restart);
        }
        if number % 20 == WARM_UP {
            let (submit, restart) = (submit.as_secs_f64() * 1e3, restart.as_secs_f64() * 1e3);
            progress(&format!(
                "round {number}: submit {submit:.2} ms, restart {restart:.2} ms"
            ));
        }
    }
    Ok(Report {
        rounds: arguments.rounds,
        submit: summary(&submits),
        restart: summary(&restarts),
        ratio: median_ratio(&restarts, &submits),
    })
}

impl Round<'_> {
    async fn run(&mut self) -> anyhow::Result<(Duration, Duration)> {
        let start = Instant::now();
        let id = self
            .client
            .submit_application(submission("am-restart", &["/bin/sh", "-c", DRIVER], 2))
            .await?;
        let id = id.into_inner().application_id;
        self.hear("1")?;
        let submit = start.elapsed();
        self.wait_for(&id, |report| report.state == "RUNNING")
            .await?;
        tokio::time::sleep(PAUSE).await;
        let start = Instant::now();
        self.go.say("go")?;
        self.hear("2")?;
        let restart = start.elapsed();
        let report = self
            .wait_for(&id, |report| report.state == "FINISHED")
            .await?;
        ensure!(
            report.attempts.len() == 2,
            "{id} had {} attempts",
            report.attempts.len()
        );
        tokio::time::sleep(PAUSE).await;
        Ok((submit, restart))
    }

    /// Nothing else goes on in this process, so it may block for it.
    fn hear(&mut self, wanted: &str) -> anyhow::Result<()> {
        let word = self.said.hear(PATIENCE)?;
        ensure!(word == wanted, "attempt {wanted} is awaited, not {word}");
        Ok(())
    }

    async fn wait_for(
        &mut self,
        id: &str,
        wanted: fn(&v1::ApplicationReport) -> bool,
    ) -> anyhow::Result<v1::ApplicationReport> {
        let request = v1::GetApplicationRequest {
            application_id: id.to_owned(),
        };
        let mut reports = self.client.watch_application(request).await?.into_inner();
        let waiting = async {
            loop {
                let report = reports.message().await?.context("the watch has ended")?;
                if wanted(&report) {
                    return Ok(report);
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await?
    }
}
