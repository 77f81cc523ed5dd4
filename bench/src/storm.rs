//! `bobbin-bench storm`: short containers by the thousand through the whole of Bobbin, beside two bare
//! loops over the same isolation.
//!
//! A master of our own asks for all containers at once, starts each at its node, and hears how each
//! ended; afterwards each one's output is looked up in its node's log folder. The floor is two small
//! processes that launch the same program in the same isolation, one after the other each, and keep
//! nothing. Rounds of both take turns.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::cluster::Cluster;
use crate::launch::Worker;
use crate::master::{Master, Until, Wanted, Wave};
use crate::progress;
use crate::stats::{Spread, spread};
use crate::worker::MANY;

#[derive(Debug, clap::Args)]
pub(crate) struct StormArguments {
    /// Containers in all rounds together.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..))]
    containers: u32,
    /// Rounds; each runs its part of the containers on Bobbin, then as many in the bare loops.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Node agents, all on this machine.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    agents: u32,
    /// Containers that each agent may run at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    slots: u32,
    /// text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// Of each container.
const MEMORY_MIB: u64 = 64;
/// A dynamic program of the system that writes its arguments to its output.
const FLOOR_PROGRAM: &str = "/bin/echo";
/// As many loops as the machine of the goal has cores.
const LOOPS: u32 = 2;

#[derive(Debug, serde::Serialize)]
struct Report {
    containers: u32,
    rounds: u32,
    agents: u32,
    slots: u32,
    /// Containers a second.
    bobbin: Spread,
    bare: Spread,
    /// Bobbin's rate divided by the bare loops' of the same round.
    ratio: Spread,
    /// Containers whose end was not heard, whose exit status is wrong or whose output is not there.
    lost: usize,
}

/// Runs the benchmark on a cluster of its own and prints its result.
///
/// # Errors
/// When not root, or a part of it fails; lost containers are a result.
pub(crate) fn run(arguments: &StormArguments) -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "launching containers of other users needs root"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(measure(arguments))?;
    print(arguments, &report)
}

async fn measure(arguments: &StormArguments) -> anyhow::Result<Report> {
    let agents = usize::try_from(arguments.agents)?;
    let settings = [("BOBBIN_NA__RESOURCES__VCORES", arguments.slots.to_string())];
    let cluster = Cluster::up(agents, &settings)?;
    let mut loops = (0..LOOPS)
        .map(|_| Worker::start_running(cluster.scratch(), FLOOR_PROGRAM))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut master = Master::register(&cluster, "storm").await?;
    let each = arguments.containers.div_ceil(arguments.rounds);
    let (mut ours, mut bares, mut ratios, mut lost) = (vec![], vec![], vec![], 0);
    for round in 0..=arguments.rounds {
        // The first is not counted: pools are empty and pages cold.
        let warm_up = round == 0;
        let count = if warm_up { each.min(100) } else { each };
        let wave = wave(&mut master, count).await?;
        let missing = missing(&cluster, &master, &wave, count)?;
        let bare = bare(&mut loops, count)?;
        if warm_up {
            ensure!(
                missing == 0,
                "{missing} containers of the first {count} are lost"
            );
            continue;
        }
        let (our_rate, bare_rate) = (rate(count, wave.time), rate(count, bare));
        progress(&format!(
            "round {round}: {count} containers, bobbin {our_rate:.0}/s, bare {bare_rate:.0}/s, \
             ratio {:.3}, lost {missing}",
            our_rate / bare_rate
        ));
        lost += missing;
        ours.push(our_rate);
        bares.push(bare_rate);
        ratios.push(our_rate / bare_rate);
    }
    master.finish().await?;
    for worker in loops {
        worker.end()?;
    }
    Ok(Report {
        containers: each * arguments.rounds,
        rounds: arguments.rounds,
        agents: arguments.agents,
        slots: arguments.slots,
        bobbin: spread(&ours),
        bare: spread(&bares),
        ratio: spread(&ratios),
        lost,
    })
}

async fn wave(master: &mut Master, count: u32) -> anyhow::Result<Wave> {
    let wanted = Wanted {
        count,
        memory_mib: MEMORY_MIB,
        until: Until::AllEnded,
        argv: &|number| vec![FLOOR_PROGRAM.to_owned(), said_by(number)],
    };
    master.run(&wanted).await
}

fn said_by(number: u32) -> String {
    format!("container {number}")
}

/// How many did not end with 0 and their own line in their log.
fn missing(cluster: &Cluster, master: &Master, wave: &Wave, count: u32) -> anyhow::Result<usize> {
    let folders: Vec<PathBuf> = cluster
        .node_names()
        .map(|node| {
            let logs = cluster.folder().join("log").join(node);
            logs.join(&master.application_id)
        })
        .collect();
    let mut good = 0;
    for (container, end) in &wave.ended {
        let wanted = format!("{}\n", said_by(end.number));
        let output = folders
            .iter()
            .find_map(|folder| std::fs::read(folder.join(container).join("stdout")).ok());
        if end.exit_status == 0 && output.as_deref() == Some(wanted.as_bytes()) {
            good += 1;
        } else {
            progress(&format!(
                "{container}: exit status {}, output {}",
                end.exit_status,
                output.map_or_else(
                    || "not there".to_owned(),
                    |bytes| format!("{:?}", String::from_utf8_lossy(&bytes))
                )
            ));
        }
    }
    Ok(usize::try_from(count)?.saturating_sub(good))
}

/// The same number of bare launches, shared among the loops.
fn bare(loops: &mut [Worker], count: u32) -> anyhow::Result<Duration> {
    let each = count / LOOPS;
    let what = format!("{MANY}{each}");
    let start = Instant::now();
    for worker in &mut *loops {
        worker.begin(&what)?;
    }
    for worker in loops {
        worker.result(&what).context("the floor")?;
    }
    // Scaled where the number is odd.
    Ok(start
        .elapsed()
        .mul_f64(f64::from(count) / f64::from(each * LOOPS)))
}

fn rate(count: u32, time: Duration) -> f64 {
    f64::from(count) / time.as_secs_f64().max(f64::EPSILON)
}

fn print(arguments: &StormArguments, report: &Report) -> anyhow::Result<()> {
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    println!(
        "{} containers of `{FLOOR_PROGRAM} WORDS` in {} rounds on {} agents of {} slots; exit status and \
         output of each looked up: {} lost.\n",
        report.containers, report.rounds, report.agents, report.slots, report.lost
    );
    println!("| containers a second | median | least | most |\n|---|---|---|---|");
    for (name, spread) in [
        ("bobbin, through resource manager and agents", report.bobbin),
        ("bare loops of the same isolation, 2 workers", report.bare),
    ] {
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} |",
            spread.median, spread.least, spread.most
        );
    }
    println!(
        "\nratio to the bare loops: {:.2} (median over the rounds; {:.2} to {:.2})",
        report.ratio.median, report.ratio.least, report.ratio.most
    );
    Ok(())
}
