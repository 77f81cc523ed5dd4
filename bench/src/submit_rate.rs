//! `bobbin-bench submit-rate`: durable submissions by 1, 16 and 256 resident clients, beside bare calls
//! of the same size and a bare journal.
//!
//! Each client has a connection of its own and one submission under way. The applications are whole
//! ones (a launch, settings, resources) that wait in their queue, because the only node is taken; each
//! round has a cluster of its own, so that every round begins with an empty one. The floor of one
//! client is one bare call plus one `fdatasync` of as many bytes.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bobbin_proto::v1;
use bobbin_proto::v1::client_client::ClientClient;
use bobbin_service::{RpcChannel, Target};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::bare_rpc::{BareClient, BareServer};
use crate::cluster::Cluster;
use crate::progress;
use crate::stats::{Spread, Summary, spread, summary};
use crate::submission::submission;

#[derive(Debug, clap::Args)]
pub(crate) struct SubmitRateArguments {
    /// Clients at a time; several numbers are measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1,16,256",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    clients: Vec<u32>,
    /// Rounds; each measures both sides with every number of clients.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Submissions of all clients together, with each number of clients.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(10..=6_000))]
    submissions: u32,
    /// text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// Syncs a round, and calls before each measurement.
const SYNCS: u64 = 200;
const WARM_UP: u32 = 20;
/// One client alone needs no more to have a median.
const ALONE_MAX: u32 = 500;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, serde::Serialize)]
struct Report {
    rounds: u32,
    /// Of one submission, encoded.
    request_bytes: usize,
    rows: Vec<Row>,
    /// One after the other on a preallocated file.
    fdatasync_p50_ms: f64,
    /// The time of one submission alone divided by the bare call's and one sync's, round by round.
    alone_to_floor: Option<Spread>,
}

#[derive(Debug, serde::Serialize)]
struct Row {
    clients: u32,
    bobbin: Summary,
    bare: Summary,
    /// A second.
    bobbin_rate: Spread,
    bare_rate: Spread,
    /// Appends of as many writers to a journal in this process.
    journal_rate: Spread,
    /// Of the rates, round by round.
    bobbin_to_bare: Spread,
    bobbin_to_journal: Spread,
}

/// One side with one number of clients in one round.
struct Load {
    times: Vec<Duration>,
    rate: f64,
}

/// All rounds with one number of clients.
#[derive(Default)]
struct Series {
    bobbin: Vec<Load>,
    bare: Vec<Load>,
    journal: Vec<f64>,
}

/// Runs the benchmark on clusters of its own and prints its result.
///
/// # Errors
/// A part of it fails.
pub(crate) fn run(arguments: &SubmitRateArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(measure(arguments))?;
    print(arguments, &report)
}

async fn measure(arguments: &SubmitRateArguments) -> anyhow::Result<Report> {
    let mut all: Vec<Series> = arguments
        .clients
        .iter()
        .map(|_| Series::default())
        .collect();
    let mut syncs = Vec::new();
    for round in 1..=arguments.rounds {
        let settings = [("BOBBIN_NA__RESOURCES__VCORES", "1".to_owned())];
        let cluster = Cluster::up(1, &settings)?;
        let bare = BareServer::start(cluster.scratch())?;
        fill(&cluster).await?;
        let synced = fdatasync(
            cluster.scratch(),
            encoded(&submission("submit-rate", &["/bin/sleep", "1000"], 2)),
        )?;
        for (clients, series) in arguments.clients.iter().zip(&mut all) {
            let each = each(arguments.submissions, *clients);
            let ours = load(Side::Bobbin, &cluster.socket(), *clients, each).await?;
            let floor = load(Side::Bare, bare.socket(), *clients, each).await?;
            let journal = journal(cluster.scratch(), *clients, each).await?;
            progress(&format!(
                "round {round}, {clients} clients: {:.0}/s, p50 {:.3} ms; bare {:.0}/s, {:.3} ms; \
                 journal {journal:.0}/s; fdatasync {:.3} ms; ratio {:.2}",
                ours.rate,
                summary(&ours.times).p50_ms,
                floor.rate,
                summary(&floor.times).p50_ms,
                summary(&synced).p50_ms,
                ours.rate / floor.rate
            ));
            series.bobbin.push(ours);
            series.bare.push(floor);
            series.journal.push(journal);
        }
        syncs.push(synced);
    }
    Ok(report(arguments, &all, &syncs))
}

fn each(submissions: u32, clients: u32) -> u32 {
    let most = if clients == 1 { ALONE_MAX } else { submissions };
    submissions.min(most).div_ceil(clients)
}

fn report(arguments: &SubmitRateArguments, all: &[Series], syncs: &[Vec<Duration>]) -> Report {
    let p50 = |times: &[Duration]| summary(times).p50_ms;
    let rows = arguments.clients.iter().zip(all).map(|(clients, series)| {
        let times = |side: &[Load]| -> Vec<Duration> {
            side.iter().flat_map(|load| load.times.clone()).collect()
        };
        let rates = |side: &[Load]| -> Vec<f64> { side.iter().map(|load| load.rate).collect() };
        let quotients = |floor: &[f64]| -> Vec<f64> {
            let ours = rates(&series.bobbin);
            ours.iter().zip(floor).map(|(a, b)| a / b).collect()
        };
        Row {
            clients: *clients,
            bobbin: summary(&times(&series.bobbin)),
            bare: summary(&times(&series.bare)),
            bobbin_rate: spread(&rates(&series.bobbin)),
            bare_rate: spread(&rates(&series.bare)),
            journal_rate: spread(&series.journal),
            bobbin_to_bare: spread(&quotients(&rates(&series.bare))),
            bobbin_to_journal: spread(&quotients(&series.journal)),
        }
    });
    let alone = arguments.clients.iter().position(|clients| *clients == 1);
    let alone_to_floor = alone.and_then(|at| all.get(at)).map(|series| {
        let ratios: Vec<f64> = series
            .bobbin
            .iter()
            .zip(&series.bare)
            .zip(syncs)
            .map(|((ours, bare), sync)| p50(&ours.times) / (p50(&bare.times) + p50(sync)))
            .collect();
        spread(&ratios)
    });
    Report {
        rounds: arguments.rounds,
        request_bytes: encoded(&submission("submit-rate", &["/bin/sleep", "1000"], 2)),
        rows: rows.collect(),
        fdatasync_p50_ms: p50(&syncs.concat()),
        alone_to_floor,
    }
}

fn encoded(request: &v1::SubmitApplicationRequest) -> usize {
    prost::Message::encoded_len(request)
}

/// Takes the only node, so that what follows waits.
async fn fill(cluster: &Cluster) -> anyhow::Result<()> {
    let mut client = ClientClient::new(cluster.connect(None).await?);
    let submitted = client
        .submit_application(submission("submit-rate", &["/bin/sleep", "1000"], 2))
        .await?
        .into_inner();
    let request = v1::GetApplicationRequest {
        application_id: submitted.application_id,
    };
    let mut reports = client.watch_application(request).await?.into_inner();
    let running = async {
        while let Some(report) = reports.message().await? {
            if report.state == "RUNNING" {
                return Ok(());
            }
        }
        anyhow::bail!("the watch has ended")
    };
    tokio::time::timeout(PATIENCE, running).await?
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Bobbin,
    Bare,
}

enum Client {
    Bobbin(ClientClient<RpcChannel>),
    Bare(BareClient),
}

impl Client {
    async fn connect(side: Side, socket: &Path) -> anyhow::Result<Client> {
        Ok(match side {
            Side::Bobbin => {
                let target = Target::Unix(socket.to_owned());
                Client::Bobbin(ClientClient::new(
                    bobbin_service::connect(&target, None).await?,
                ))
            }
            Side::Bare => Client::Bare(BareClient::connect(socket).await?),
        })
    }

    async fn submit(&mut self) -> anyhow::Result<()> {
        let answer = match self {
            Client::Bobbin(client) => client
                .submit_application(submission("submit-rate", &["/bin/sleep", "1000"], 2))
                .await?
                .into_inner(),
            Client::Bare(client) => {
                client
                    .submit(submission("submit-rate", &["/bin/sleep", "1000"], 2))
                    .await?
            }
        };
        ensure!(!answer.application_id.is_empty(), "an empty answer");
        Ok(())
    }
}

async fn load(side: Side, socket: &Path, clients: u32, each: u32) -> anyhow::Result<Load> {
    let start = Arc::new(Barrier::new(usize::try_from(clients)? + 1));
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let mut client = Client::connect(side, socket).await?;
        let start = start.clone();
        tasks.spawn(async move {
            for _ in 0..WARM_UP.div_ceil(clients) {
                client.submit().await?;
            }
            start.wait().await;
            let mut times = Vec::new();
            for _ in 0..each {
                let before = Instant::now();
                client.submit().await?;
                times.push(before.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    // A client that failed never comes to the barrier.
    tokio::time::timeout(PATIENCE, start.wait())
        .await
        .context("a client failed before it began")?;
    let begun = Instant::now();
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Load { times, rate })
}

/// Each sync alone, of records of `bytes`.
fn fdatasync(dir: &Path, bytes: usize) -> anyhow::Result<Vec<Duration>> {
    let path = dir.join("fdatasync");
    let file = std::fs::File::create(&path)?;
    let record = vec![1; bytes];
    let length = u64::try_from(bytes)?;
    // Written ahead as journals do, so that no sync changes the file's metadata.
    file.write_all_at(&vec![0; usize::try_from(SYNCS)? * bytes], 0)?;
    file.sync_all()?;
    let mut times = Vec::new();
    for number in 0..SYNCS {
        let before = Instant::now();
        file.write_all_at(&record, number * length)?;
        file.sync_data()?;
        times.push(before.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(times)
}

/// As many writers appending to a journal; appends a second.
async fn journal(dir: &Path, writers: u32, each: u32) -> anyhow::Result<f64> {
    let folder = dir.join("journal");
    let opened =
        bobbin_journal::Journal::open(&folder, bobbin_journal::Options::default(), &mut |_, _| {})?;
    let record =
        prost::Message::encode_to_vec(&submission("submit-rate", &["/bin/sleep", "1000"], 2));
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..writers {
        let (journal, record) = (opened.journal.clone(), record.clone());
        tasks.spawn(async move {
            for _ in 0..each {
                journal.append(vec![record.clone()]).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let rate = f64::from(writers * each) / begun.elapsed().as_secs_f64();
    drop(opened);
    std::fs::remove_dir_all(&folder)?;
    Ok(rate)
}

fn print(arguments: &SubmitRateArguments, report: &Report) -> anyhow::Result<()> {
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    println!(
        "Durable submissions of {} bytes, a connection each; {} rounds.\n",
        report.request_bytes, report.rounds
    );
    println!(
        "| clients | bobbin /s | bare gRPC /s | bare journal /s | / bare gRPC | / journal | p50 ms | p99 ms | bare p50 ms |\n\
         |---|---|---|---|---|---|---|---|---|"
    );
    for row in &report.rows {
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.2} ({:.2} to {:.2}) | {:.2} | {:.3} | {:.3} | {:.3} |",
            row.clients,
            row.bobbin_rate.median,
            row.bare_rate.median,
            row.journal_rate.median,
            row.bobbin_to_bare.median,
            row.bobbin_to_bare.least,
            row.bobbin_to_bare.most,
            row.bobbin_to_journal.median,
            row.bobbin.p50_ms,
            row.bobbin.p99_ms,
            row.bare.p50_ms,
        );
    }
    if let Some(ratio) = report.alone_to_floor {
        println!(
            "\none client to one bare call and one fdatasync ({:.3} ms), p50: {:.2} ({:.2} to {:.2})",
            report.fdatasync_p50_ms, ratio.median, ratio.least, ratio.most
        );
    }
    Ok(())
}
