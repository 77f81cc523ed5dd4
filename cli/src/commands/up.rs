//! `bobbin up`.

use std::time::{Duration, Instant};

use bobbin_proto::v1;
use bobbin_proto::v1::create_token_request::Subject;
use bobbin_service::{Target, lock_folder};
use bobbin_types::NodeState;

use crate::args::UpArgs;
use crate::cluster::{Cluster, sentence};
use crate::commands::submit::Interrupts;
use crate::commands::{client_config, down, token};
use crate::exit_codes::DONE;
use crate::failure::{Failure, Kind, Outcome};
use crate::hadoop_conf::Host;
use crate::host::{self, Daemon, Layout, Programs, Started};
use crate::output::{self, Bar};

/// How long the whole may take to be ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// Between two questions whether it is; from the first to the longest.
const LOOK_MIN: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(100);
/// Node tokens are made anew whenever an agent is started.
const TOKEN_VALID_MS: u64 = 365 * 86_400_000;
/// Between two looks at the daemons while `up` stays.
const WATCH: Duration = Duration::from_millis(500);

pub(crate) async fn run(args: &UpArgs, quiet: bool) -> Outcome {
    let layout = Layout::of(args.dir.as_deref())?;
    let programs = Programs::beside_this_one()?;
    // Ctrl+C from here on must end what was started.
    let mut interrupts = Interrupts::listen()?;
    let mut started = Vec::new();
    let ready = tokio::select! {
        ready = start(args, &layout, &programs, &mut started, quiet) => ready,
        () = interrupts.next() => Err(Failure::new(Kind::Failed, "interrupted before the cluster was ready")),
    };
    if let Err(failure) = ready {
        for daemon in started.into_iter().rev() {
            daemon.stop().await;
        }
        return Err(failure);
    }
    if args.detach {
        return Ok(DONE);
    }
    if !quiet {
        output::note("Ctrl+C ends the cluster");
    }
    stay(&mut started, &mut interrupts).await;
    down::end(&layout, quiet).await
}

/// Makes what is missing and starts what is dead, until every node runs.
async fn start(
    args: &UpArgs,
    layout: &Layout,
    programs: &Programs,
    started: &mut Vec<Started>,
    quiet: bool,
) -> Result<(), Failure> {
    prepare(args, layout)?;
    let lock = lock_folder(&layout.lib()).map_err(|e| {
        Failure::new(
            Kind::Refused,
            format!("another `bobbin up` is at work: {}", sentence(&e)),
        )
    })?;
    host::heal_settings(layout, &layout.nodes())?;
    programs.link_into(&layout.bin())?;
    Programs::write_script(&layout.bin())?;
    host::write_env(layout)?;
    let bar = Bar::waiting(quiet, "starting the cluster".to_owned());
    let rm = Daemon::resourcemanager(layout);
    let agents = Daemon::nodeagents(layout);
    for daemon in agents.iter().chain([&rm]) {
        daemon.let_die().await;
    }
    let dead: Vec<_> = agents.iter().filter(|a| !a.is_alive()).collect();
    let was_alive = rm.is_alive() && dead.is_empty();
    if !rm.is_alive() {
        started.push(rm.start(programs)?);
    }
    let deadline = Instant::now() + READY_MAX;
    let cluster = connect(layout, started, deadline).await?;
    for_hadoop(layout, &cluster).await?;
    for agent in dead {
        bar.say(format!("starting {}", agent.name));
        let subject = Subject::Node(host::host_of(layout, &agent.name));
        let made = token::request(&cluster, subject, TOKEN_VALID_MS).await?;
        token::write(&layout.token_of(&agent.name), &made)?;
        started.push(agent.start(programs)?);
    }
    bar.say("waiting for the nodes".to_owned());
    let reports = wait_for_nodes(&cluster, started, &agents, deadline).await?;
    drop(bar);
    drop(lock);
    if !quiet {
        tell(layout, &reports, was_alive);
    }
    Ok(())
}

/// What Hadoop's clients need: their configuration, and a token of whoever runs this.
async fn for_hadoop(layout: &Layout, cluster: &Cluster) -> Result<(), Failure> {
    let here = Host::Bound {
        otherwise: host::HOST.to_owned(),
    };
    let conf = client_config::conf(cluster, &here, None).await?;
    if let Err(failure) = conf.write(&layout.hadoop_conf()) {
        if failure.kind != Kind::Refused {
            return Err(failure);
        }
        // Somebody's own configuration: it stays.
        output::note(&failure.message);
    }
    let path = layout.hadoop_token();
    match token::request_hadoop(cluster, TOKEN_VALID_MS).await? {
        Some(credentials) => token::write_bytes(&path, &credentials),
        None => match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::file("cannot remove the old", &path, &e))
            }
            Ok(()) | Err(_) => Ok(()),
        },
    }
}

/// The folder with its settings.
fn prepare(args: &UpArgs, layout: &Layout) -> Result<(), Failure> {
    if layout.exists() {
        let nodes = layout.nodes();
        let there = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        if args.nodes.is_some_and(|wanted| wanted != there) {
            return Err(Failure::new(
                Kind::Refused,
                format!("the cluster in {} has {there} nodes, for good", layout.dir.display()),
            )
            .try_this(format!(
                "`bobbin up` without --nodes, another --dir, or `bobbin down --dir {0}` and remove {0}",
                host::quote(&layout.dir.display().to_string())
            )));
        }
        // Folders that somebody removed are made again.
        return layout.create(&nodes);
    }
    let nodes: Vec<_> = (1..=args.nodes.unwrap_or(1)).map(host::node_name).collect();
    layout.check_new()?;
    layout.create(&nodes)?;
    host::write_settings(layout, &nodes)
}

/// Ends with the failure of a daemon that did not stay up.
fn check(started: &mut [Started]) -> Result<(), Failure> {
    for daemon in started {
        if let Some(status) = daemon.ended() {
            return Err(daemon.failure(status));
        }
    }
    Ok(())
}

/// Connects to the cluster's resource manager as soon as it answers.
///
/// # Errors
/// A daemon that was started did not stay up, or nobody answers in time.
pub(crate) async fn connect(
    layout: &Layout,
    started: &mut [Started],
    deadline: Instant,
) -> Result<Cluster, Failure> {
    let mut look = LOOK_MIN;
    loop {
        check(started)?;
        match Cluster::connect_to(Target::Unix(layout.socket()), None).await {
            Ok(cluster) => return Ok(cluster),
            Err(failure) if Instant::now() > deadline => {
                return Err(not_ready(layout, &failure.message));
            }
            Err(_) => {}
        }
        tokio::time::sleep(look).await;
        look = (look * 2).min(LOOK_MAX);
    }
}

fn not_ready(layout: &Layout, why: &str) -> Failure {
    Failure::new(
        Kind::TimedOut,
        format!(
            "the cluster was not ready after {} s: {why}",
            READY_MAX.as_secs()
        ),
    )
    .try_this(format!("look into {}", layout.log().display()))
}

async fn wait_for_nodes(
    cluster: &Cluster,
    started: &mut [Started],
    agents: &[Daemon],
    deadline: Instant,
) -> Result<Vec<v1::NodeReport>, Failure> {
    let running = |n: &v1::NodeReport| n.state == NodeState::Running.as_str();
    let mut look = LOOK_MIN;
    loop {
        check(started)?;
        let reports = cluster.nodes().await?;
        // The resource manager still takes an agent that has just died for running; the run file is
        // the new one's word.
        let ready = agents.iter().all(|agent| agent.ready().is_some());
        if ready && reports.iter().filter(|n| running(n)).count() >= agents.len() {
            return Ok(reports);
        }
        // What a node lacks does not come by waiting.
        let unhealthy = reports
            .iter()
            .find(|n| n.state == NodeState::Unhealthy.as_str());
        if let Some(node) = unhealthy.filter(|n| !n.problems.is_empty()) {
            return Err(Failure::new(
                Kind::Failed,
                format!("{} takes no work: {}", node.id, node.problems.join("; ")),
            ));
        }
        if Instant::now() > deadline {
            let states: Vec<_> = reports
                .iter()
                .map(|n| format!("{} {}", n.id, n.state))
                .collect();
            return Err(Failure::new(
                Kind::TimedOut,
                format!(
                    "{} nodes were not running after {} s: {}",
                    agents.len(),
                    READY_MAX.as_secs(),
                    if states.is_empty() {
                        "none came".to_owned()
                    } else {
                        states.join(", ")
                    }
                ),
            ));
        }
        tokio::time::sleep(look).await;
        look = (look * 2).min(LOOK_MAX);
    }
}

/// What there is, what it lacks, and how to use it.
fn tell(layout: &Layout, reports: &[v1::NodeReport], was_alive: bool) {
    let sum = |of: fn(&v1::Resource) -> u64| -> u64 {
        reports
            .iter()
            .filter_map(|n| n.total.as_ref())
            .map(of)
            .sum()
    };
    let (memory_mib, vcores) = (sum(|r| r.memory_mib), sum(|r| u64::from(r.vcores)));
    let verb = if was_alive { "already runs" } else { "runs" };
    output::note(&format!(
        "the cluster in {} {verb}: {} nodes, {memory_mib} MiB, {vcores} vcores",
        layout.dir.display(),
        reports.len()
    ));
    for node in reports.iter().filter(|n| !n.problems.is_empty()) {
        output::note(&format!(
            "{} ({}): {}",
            node.id,
            node.profile,
            node.problems.join("; ")
        ));
    }
    let env = host::quote(&layout.env().display().to_string());
    output::note(&format!("`. {env}` makes a shell use it"));
}

/// Stays until Ctrl+C; says when a daemon ends meanwhile.
async fn stay(started: &mut Vec<Started>, interrupts: &mut Interrupts) {
    let mut look = tokio::time::interval(WATCH);
    loop {
        tokio::select! {
            () = interrupts.next() => return,
            _ = look.tick() => {
                started.retain_mut(|daemon| match daemon.ended() {
                    None => true,
                    Some(status) => {
                        output::error(&daemon.failure(status).try_this("`bobbin up` starts it again"));
                        false
                    }
                });
            }
        }
    }
}
