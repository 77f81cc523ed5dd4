//! `bobbin-bench submit-e2e`: from `bobbin submit` to the driver's first line, beside its floor.
//!
//! The floor is what no cluster manager can go below on this machine: a bare one-shot gRPC client
//! (start, connect to a unix socket, one call, end) plus a bare sandbox of the same isolation that
//! runs the program, one after the other. Each round measures ours and both parts of the floor once.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bobbin_proto::v1;
use bobbin_proto::v1::logs_client::LogsClient;
use bobbin_proto::v1::logs_server::{Logs, LogsServer};
use bobbin_service::{Listener, ServeLimits, Target};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::launch::Worker;
use crate::stats::{Summary, median_ratio, summary};

#[derive(Debug, clap::Args)]
pub(crate) struct SubmitArguments {
    /// Rounds; each measures ours and the floor once.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneShotArguments {
    socket: PathBuf,
}

#[derive(Debug, serde::Serialize)]
struct Report {
    submit: Summary,
    client: Summary,
    sandbox: Summary,
    /// Ours divided by the sum of the floor's parts, round by round.
    ratio: f64,
}

/// The bare server: it answers and does nothing else.
#[derive(Debug)]
struct Nothing;

#[tonic::async_trait]
impl Logs for Nothing {
    type ReadLogStream = tokio_stream::Empty<Result<v1::LogChunk, Status>>;

    async fn read_log(
        &self,
        _request: Request<v1::ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }

    async fn list_logs(
        &self,
        _request: Request<v1::ListLogsRequest>,
    ) -> Result<Response<v1::ListLogsResponse>, Status> {
        Ok(Response::new(v1::ListLogsResponse::default()))
    }
}

/// The floor's client: one call, one line, the end.
///
/// # Errors
/// Nobody answers.
pub(crate) fn one_shot(arguments: &OneShotArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let target = Target::Unix(arguments.socket.clone());
        let channel = bobbin_service::connect(&target, None).await?;
        LogsClient::new(channel)
            .list_logs(v1::ListLogsRequest::default())
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
    let dir = tempfile::Builder::new().prefix("bobbin-bench-").tempdir()?;
    // Containers of another user look through it.
    std::fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let cluster = dir.path().join("cluster");
    let bobbin = beside("bobbin")?;
    let up = run_quietly(
        command(&bobbin)
            .args(["up", "--detach", "--nodes", "2", "--dir"])
            .arg(&cluster),
    );
    let result = up.and_then(|()| measure(arguments, dir.path(), &cluster, &bobbin));
    run_quietly(command(&bobbin).args(["down", "--dir"]).arg(&cluster))?;
    print(arguments, &result?)
}

fn measure(
    arguments: &SubmitArguments,
    dir: &Path,
    cluster: &Path,
    bobbin: &Path,
) -> anyhow::Result<Report> {
    let socket = dir.join("bare.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let stop = CancellationToken::new();
    let listener = {
        let _inside = runtime.enter();
        Listener::unix(&socket, 0o600)?
    };
    let routes = tonic::service::Routes::new(LogsServer::new(Nothing));
    let server = runtime.spawn(bobbin_service::serve(
        routes,
        vec![listener],
        ServeLimits::default(),
        stop.clone(),
    ));
    let mut floors = Worker::start(dir, None)?;
    let program = std::env::current_exe()?;
    let (mut submits, mut clients, mut sandboxes) = (Vec::new(), Vec::new(), Vec::new());
    let warm_up = 5.min(arguments.rounds);
    for round in 0..arguments.rounds + warm_up {
        let submit = first_line(
            command(bobbin)
                .env("BOBBIN_RM_SOCKET", cluster.join("run/resourcemanager.sock"))
                .args([
                    "submit",
                    "--deploy-mode",
                    "cluster",
                    "--driver-memory",
                    "64m",
                    "--",
                ])
                .args(["/bin/echo", "line"]),
        )?;
        let client = first_line(command(&program).arg("one-shot").arg(&socket))?;
        let (_, sandbox) = floors.once("bare")?;
        if round >= warm_up {
            submits.push(submit);
            clients.push(client);
            sandboxes.push(sandbox);
        }
    }
    floors.end()?;
    stop.cancel();
    runtime.block_on(server)??;
    let floor: Vec<Duration> = clients
        .iter()
        .zip(&sandboxes)
        .map(|(a, b)| *a + *b)
        .collect();
    Ok(Report {
        ratio: median_ratio(&submits, &floor),
        submit: summary(&submits),
        client: summary(&clients),
        sandbox: summary(&sandboxes),
    })
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

fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is not built", path.display());
    Ok(path)
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured are whole programs"
)]
fn command(program: &Path) -> Command {
    Command::new(program)
}

fn run_quietly(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn print(arguments: &SubmitArguments, report: &Report) -> anyhow::Result<()> {
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    println!(
        "`bobbin submit --deploy-mode cluster -- /bin/echo line` to its first line; {} rounds.\n",
        arguments.rounds
    );
    println!("| part | p50 ms | p90 | p99 |\n|---|---|---|---|");
    for (name, times) in [
        ("bobbin submit to the driver's first line", report.submit),
        ("floor: one-shot gRPC client", report.client),
        ("floor: bare sandbox, to its end", report.sandbox),
    ] {
        println!(
            "| {name} | {:.3} | {:.3} | {:.3} |",
            times.p50_ms, times.p90_ms, times.p99_ms
        );
    }
    println!(
        "\nratio to the floor's sum, median over the rounds: {:.2}",
        report.ratio
    );
    Ok(())
}
