//! `bobbin-bench submit-e2e --resident`: the same without the start of a client.
//!
//! Two ways: a session of client mode, whose master asks for a container, starts the program in it and
//! hears of its end; and a submission over an open connection, to the first line of its driver in the
//! followed log. The floor is a bare call over an open connection plus the bare sandbox, to its end.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bobbin_proto::v1;
use bobbin_proto::v1::client_client::ClientClient;
use bobbin_proto::v1::read_logs_request::Source;
use bobbin_service::RpcChannel;

use crate::bare_rpc::{BareClient, BareServer};
use crate::cluster::Cluster;
use crate::launch::Worker;
use crate::master::{Master, Until, Wanted};
use crate::progress;
use crate::stats::{Summary, median_ratio, summary};
use crate::submission::submission;
use crate::submit_e2e::{PAUSE, SHOWN, SubmitArguments, WARM_UP, ms};

/// For anything of a round.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, serde::Serialize)]
struct Report {
    rounds: u32,
    session: Summary,
    submit: Summary,
    call: Summary,
    sandbox: Summary,
    /// Round by round, to the sum of the floor's parts.
    session_ratio: f64,
    submit_ratio: f64,
}

/// Runs the benchmark on a cluster of its own and prints its result.
///
/// # Errors
/// A part of it fails.
pub(crate) fn run(arguments: &SubmitArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(measure(arguments.rounds))?;
    print(arguments, &report)
}

async fn measure(rounds: u32) -> anyhow::Result<Report> {
    let cluster = Cluster::up(2, &[])?;
    let bare = BareServer::start(cluster.scratch())?;
    let mut caller = BareClient::connect(bare.socket()).await?;
    let mut floors = Worker::start(cluster.scratch(), None)?;
    let mut client = ClientClient::new(cluster.connect(None).await?);
    let mut master = Master::register(&cluster, "resident").await?;
    let (mut sessions, mut submits) = (Vec::new(), Vec::new());
    let (mut calls, mut sandboxes) = (Vec::new(), Vec::new());
    let warm_up = WARM_UP.min(rounds);
    for round in 0..rounds + warm_up {
        let session = session(&mut master).await?;
        tokio::time::sleep(PAUSE).await;
        let submit = submit(&mut client).await?;
        tokio::time::sleep(PAUSE).await;
        let start = Instant::now();
        caller
            .submit(submission("resident", &["/bin/echo", "line"], 1))
            .await?;
        let call = start.elapsed();
        let (_, sandbox) = floors.once("bare")?;
        tokio::time::sleep(PAUSE).await;
        if round < warm_up {
            continue;
        }
        if (round - warm_up).is_multiple_of(SHOWN) {
            progress(&format!(
                "round {}: session {:.2} ms, submission {:.2} ms, call {:.3} ms, sandbox {:.2} ms",
                round - warm_up + 1,
                ms(session),
                ms(submit),
                ms(call),
                ms(sandbox)
            ));
        }
        sessions.push(session);
        submits.push(submit);
        calls.push(call);
        sandboxes.push(sandbox);
    }
    floors.end()?;
    master.finish().await?;
    let floor: Vec<Duration> = calls.iter().zip(&sandboxes).map(|(a, b)| *a + *b).collect();
    Ok(Report {
        rounds,
        session_ratio: median_ratio(&sessions, &floor),
        submit_ratio: median_ratio(&submits, &floor),
        session: summary(&sessions),
        submit: summary(&submits),
        call: summary(&calls),
        sandbox: summary(&sandboxes),
    })
}

/// Asks, starts, and hears of the end.
async fn session(master: &mut Master) -> anyhow::Result<Duration> {
    let wanted = Wanted {
        count: 1,
        memory_mib: 64,
        until: Until::AllEnded,
        argv: &|_| ["/bin/echo", "line"].map(str::to_owned).to_vec(),
    };
    let wave = master.run(&wanted).await?;
    match wave.ended.values().next() {
        Some(end) if end.exit_status == 0 => Ok(wave.time),
        other => bail!("the session's container has ended as {other:?}"),
    }
}

/// Submits and follows; what comes after the first line is waited for, unmeasured.
async fn submit(client: &mut ClientClient<RpcChannel>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let submitted = client
        .submit_application(submission("resident", &["/bin/echo", "line"], 1))
        .await?
        .into_inner();
    let follow = v1::ReadLogsRequest {
        application_id: submitted.application_id.clone(),
        source: Some(Source::DriverAttempt(1)),
        file: "stdout".to_owned(),
        follow: true,
        ..v1::ReadLogsRequest::default()
    };
    let followed = async {
        let mut chunks = client.read_logs(follow).await?.into_inner();
        let first = chunks.message().await?.context("no line came")?;
        let time = start.elapsed();
        if first.data != b"line\n" {
            bail!("not a line: {first:?}");
        }
        let watch = v1::GetApplicationRequest {
            application_id: submitted.application_id,
        };
        let mut reports = client.watch_application(watch).await?.into_inner();
        while let Some(report) = reports.message().await? {
            if report.state == "FINISHED" {
                return Ok(time);
            }
        }
        bail!("the watch has ended")
    };
    tokio::time::timeout(PATIENCE, followed).await?
}

fn print(arguments: &SubmitArguments, report: &Report) -> anyhow::Result<()> {
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    println!(
        "`/bin/echo line` without the start of a client; {} rounds.\n",
        report.rounds
    );
    println!("| part | p50 ms | p90 | p99 | / floor |\n|---|---|---|---|---|");
    for (name, times, ratio) in [
        (
            "session of client mode: ask, container, its end heard",
            report.session,
            Some(report.session_ratio),
        ),
        (
            "submission over an open connection, to the driver's first line",
            report.submit,
            Some(report.submit_ratio),
        ),
        (
            "floor: bare call over an open connection",
            report.call,
            None,
        ),
        ("floor: bare sandbox, to its end", report.sandbox, None),
    ] {
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        println!(
            "| {name} | {:.3} | {:.3} | {:.3} | {ratio} |",
            times.p50_ms, times.p90_ms, times.p99_ms
        );
    }
    Ok(())
}
