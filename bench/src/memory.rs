//! `bobbin-bench memory`: what the daemons hold, idle and with many running containers.
//!
//! The daemons' own memory is their resident set; monitors and PID 1 of containers share most pages, so
//! theirs is the proportional set. Each round has a cluster of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bobbin_service::read_daemon_info;

use crate::cluster::{Cluster, beside};
use crate::master::{Master, Until, Wanted};
use crate::progress;
use crate::stats::{Spread, spread};

#[derive(Debug, clap::Args)]
pub(crate) struct MemoryArguments {
    /// Running containers.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    containers: u32,
    /// Rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

const AGENTS: u32 = 2;
/// Of each container.
const MEMORY_MIB: u64 = 8;
/// Daemons make ready what they keep in stock.
const SETTLE: Duration = Duration::from_secs(1);
/// Until the last monitor has gone.
const PATIENCE: Duration = Duration::from_secs(30);
const MIB: f64 = 1024.0 * 1024.0;

/// Bytes at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    resource_manager: f64,
    /// All agents together.
    agents: f64,
    /// All launchers, monitors and PID 1s together.
    monitors: f64,
}

#[derive(Debug, serde::Serialize)]
struct Row {
    what: &'static str,
    /// MiB.
    idle: Spread,
    busy: Spread,
    /// When all containers have ended.
    after: Spread,
    /// What one container adds, bytes.
    bytes_per_container: Spread,
}

#[derive(Debug, serde::Serialize)]
struct Report {
    containers: u32,
    agents: u32,
    rounds: u32,
    rows: Vec<Row>,
}

/// Runs the benchmark on clusters of its own and prints its result.
///
/// # Errors
/// When not root, or a part of it fails.
pub(crate) fn run(arguments: &MemoryArguments) -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "launching containers of other users needs root"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        let moments = runtime.block_on(measure(arguments.containers))?;
        let [idle, busy, after] = moments;
        progress(&format!(
            "round {round}: resource manager {:.1}, {:.1}, {:.1} MiB; agents {:.1}, {:.1}, {:.1}; monitors {:.1}, {:.1}, {:.1}",
            idle.resource_manager / MIB,
            busy.resource_manager / MIB,
            after.resource_manager / MIB,
            idle.agents / MIB,
            busy.agents / MIB,
            after.agents / MIB,
            idle.monitors / MIB,
            busy.monitors / MIB,
            after.monitors / MIB,
        ));
        rounds.push(moments);
    }
    print(arguments, &report(arguments, &rounds))
}

fn report(arguments: &MemoryArguments, rounds: &[[Moment; 3]]) -> Report {
    let row = |what, part: fn(&Moment) -> f64| {
        let mib = |at: usize| {
            let values: Vec<f64> = rounds.iter().map(|m| part(&m[at]) / MIB).collect();
            spread(&values)
        };
        let each: Vec<f64> = rounds
            .iter()
            .map(|[idle, busy, _]| (part(busy) - part(idle)) / f64::from(arguments.containers))
            .collect();
        Row {
            what,
            idle: mib(0),
            busy: mib(1),
            after: mib(2),
            bytes_per_container: spread(&each),
        }
    };
    Report {
        containers: arguments.containers,
        agents: AGENTS,
        rounds: arguments.rounds,
        rows: vec![
            row("resource manager (RSS)", |m| m.resource_manager),
            row("both agents (RSS)", |m| m.agents),
            row("launchers, monitors, PID 1s (PSS)", |m| m.monitors),
        ],
    }
}

/// Idle, with the containers, and when they have ended.
async fn measure(containers: u32) -> anyhow::Result<[Moment; 3]> {
    let vcores = containers.div_ceil(AGENTS) + 8;
    let settings = [("BOBBIN_NA__RESOURCES__VCORES", vcores.to_string())];
    let cluster = Cluster::up(usize::try_from(AGENTS)?, &settings)?;
    let daemons = Daemons::of(&cluster)?;
    let mut master = Master::register(&cluster, "memory").await?;
    tokio::time::sleep(SETTLE).await;
    let idle = daemons.moment()?;
    let spares = daemons.monitors()?.len();
    let orders = cluster.folder().join("shared/end");
    let script = format!("until [ -e {} ]; do sleep 1; done", orders.display());
    let wanted = Wanted {
        count: containers,
        memory_mib: MEMORY_MIB,
        until: Until::AllRun,
        argv: &|_| ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
    };
    let wave = master.run(&wanted).await?;
    ensure!(
        wave.running == usize::try_from(containers)? && wave.ended.is_empty(),
        "{} of {containers} containers run, {} have ended",
        wave.running,
        wave.ended.len()
    );
    tokio::time::sleep(SETTLE).await;
    let busy = daemons.moment()?;
    master.finish().await?;
    let end = Instant::now() + PATIENCE;
    while daemons.monitors()?.len() > spares {
        ensure!(
            Instant::now() < end,
            "monitors are left of containers that have ended"
        );
        tokio::time::sleep(SETTLE / 10).await;
    }
    tokio::time::sleep(SETTLE).await;
    Ok([idle, busy, daemons.moment()?])
}

/// Whose memory is looked at.
struct Daemons {
    resource_manager: i32,
    agents: Vec<i32>,
    launcher: PathBuf,
}

impl Daemons {
    fn of(cluster: &Cluster) -> anyhow::Result<Daemons> {
        let run = cluster.folder().join("run");
        let pid = |name: &str| -> anyhow::Result<i32> {
            let info = read_daemon_info(&run, name)?;
            Ok(info.with_context(|| format!("{name} does not run"))?.pid)
        };
        Ok(Daemons {
            resource_manager: pid("resourcemanager")?,
            agents: cluster
                .node_names()
                .map(|name| pid(&name))
                .collect::<anyhow::Result<_>>()?,
            launcher: beside("bobbin-container-init")?,
        })
    }

    fn moment(&self) -> anyhow::Result<Moment> {
        let mut moment = Moment {
            resource_manager: resident(self.resource_manager)?,
            ..Moment::default()
        };
        for agent in &self.agents {
            moment.agents += resident(*agent)?;
        }
        for monitor in self.monitors()? {
            // One that ends meanwhile holds nothing.
            moment.monitors += kib("smaps_rollup", "Pss:", monitor).unwrap_or(0.0);
        }
        Ok(moment)
    }

    /// Every process of the launcher that descends from these agents.
    fn monitors(&self) -> anyhow::Result<Vec<i32>> {
        let mut parents = std::collections::HashMap::new();
        for entry in std::fs::read_dir("/proc")? {
            let Some(pid) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if let Some(parent) = parent(pid) {
                parents.insert(pid, parent);
            }
        }
        let is_ours = |pid: &i32| {
            let mut at = *pid;
            // No chain is longer than there are processes.
            for _ in 0..parents.len() {
                if self.agents.contains(&at) {
                    return true;
                }
                let Some(parent) = parents.get(&at) else {
                    return false;
                };
                at = *parent;
            }
            false
        };
        Ok(parents
            .keys()
            .copied()
            .filter(|pid| runs(*pid, &self.launcher) && is_ours(pid))
            .collect())
    }
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let rest = stat.rsplit_once(')')?.1;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn runs(pid: i32, program: &Path) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
}

fn resident(pid: i32) -> anyhow::Result<f64> {
    kib("status", "VmRSS:", pid).with_context(|| format!("process {pid} is not there"))
}

/// A line of a file in a process's folder, in bytes.
fn kib(file: &str, field: &str, pid: i32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

fn print(arguments: &MemoryArguments, report: &Report) -> anyhow::Result<()> {
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    println!(
        "{} running containers on {AGENTS} agents; medians of {} rounds.\n",
        report.containers, report.rounds
    );
    println!(
        "| process | idle MiB | with containers | after their end | bytes per container |\n\
         |---|---|---|---|---|"
    );
    for row in &report.rows {
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.0} ({:.0} to {:.0}) |",
            row.what,
            row.idle.median,
            row.busy.median,
            row.after.median,
            row.bytes_per_container.median,
            row.bytes_per_container.least,
            row.bytes_per_container.most
        );
    }
    Ok(())
}
