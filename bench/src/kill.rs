//! `bobbin-bench kill`: a running application of many containers is killed, beside killing and removing
//! the same tree straight.
//!
//! Ours is measured to the answer of the kill, which comes when every process has gone, and to the
//! moment when nothing is left of folders and groups but the agents' pools of empty groups. The floor
//! kills every process of as many containers that were launched without an agent, waits until all are
//! reaped, and removes their groups and folders, as one thread. Logs and exit records stay in both.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bobbin_proto::v1;
use bobbin_proto::v1::client_client::ClientClient;
use bobbin_sandbox::{CgroupLimits, CgroupRoot, ContainerSpec, Launched, Launcher};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::cluster::{Cluster, beside};
use crate::launch::spec_in;
use crate::master::{Master, Until, Wanted};
use crate::progress;
use crate::stats::{Spread, spread};

#[derive(Debug, clap::Args)]
pub(crate) struct KillArguments {
    /// Containers of the application.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    containers: u32,
    /// Rounds; each starts and kills both once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

const AGENTS: u32 = 2;
/// Of each container.
const MEMORY_MIB: u64 = 8;
/// Until nothing is left, after the answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is looked for is looked for so often.
const LOOK: Duration = Duration::from_millis(1);
/// Empty groups that an agent keeps. Source: `POOL_MAX` of the sandbox.
const POOLED: usize = 64;

#[derive(Debug, serde::Serialize)]
struct Report {
    containers: u32,
    rounds: u32,
    /// Milliseconds.
    answered: Spread,
    gone: Spread,
    bare: Spread,
    /// Round by round.
    answered_to_bare: Spread,
    gone_to_bare: Spread,
}

/// Runs the benchmark on a cluster of its own and prints its result.
///
/// # Errors
/// When not root, a part of it fails, or something is left behind.
pub(crate) fn run(arguments: &KillArguments) -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "launching containers of other users needs root"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let vcores = arguments.containers.div_ceil(AGENTS) + 8;
    let cluster = Cluster::up(
        usize::try_from(AGENTS)?,
        &[("BOBBIN_NA__RESOURCES__VCORES", vcores.to_string())],
    )?;
    let launcher = Launcher::start(&beside("bobbin-container-init")?)?;
    let (mut answered, mut gone, mut bares) = (vec![], vec![], vec![]);
    for round in 1..=arguments.rounds {
        let (answer, all) = runtime.block_on(ours(&cluster, arguments.containers))?;
        let bare = bare(&cluster, &launcher, round, arguments.containers)?;
        progress(&format!(
            "round {round}: answered {answer:.1} ms, gone {all:.1} ms, bare {bare:.1} ms, ratios {:.2} and {:.2}",
            answer / bare,
            all / bare
        ));
        answered.push(answer);
        gone.push(all);
        bares.push(bare);
    }
    let ratios = |ours: &[f64]| {
        let each: Vec<f64> = ours.iter().zip(&bares).map(|(a, b)| a / b).collect();
        spread(&each)
    };
    let report = Report {
        containers: arguments.containers,
        rounds: arguments.rounds,
        answered_to_bare: ratios(&answered),
        gone_to_bare: ratios(&gone),
        answered: spread(&answered),
        gone: spread(&gone),
        bare: spread(&bares),
    };
    print(arguments, &report)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// To the answer, and until nothing is left; milliseconds.
async fn ours(cluster: &Cluster, containers: u32) -> anyhow::Result<(f64, f64)> {
    let mut master = Master::register(cluster, "kill").await?;
    let wanted = Wanted {
        count: containers,
        memory_mib: MEMORY_MIB,
        until: Until::AllRun,
        argv: &|_| vec!["/bin/sleep".to_owned(), "1000".to_owned()],
    };
    let wave = master.run(&wanted).await?;
    ensure!(
        wave.running == usize::try_from(containers)? && wave.ended.is_empty(),
        "{} of {containers} containers run, {} have ended",
        wave.running,
        wave.ended.len()
    );
    let traces = cluster
        .node_names()
        .map(|node| Traces::of(cluster, &node, &master.application_id))
        .collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(
        traces.iter().all(|traces| !traces.are_gone()),
        "the containers' folders are not where they are looked for"
    );
    let mut client = ClientClient::new(cluster.connect(None).await?);
    let request = v1::KillApplicationRequest {
        application_id: master.application_id.clone(),
        wait: true,
        reason: "the benchmark kills it".to_owned(),
    };
    let start = Instant::now();
    client.kill_application(request).await?;
    let answered = start.elapsed();
    while !traces.iter().all(Traces::are_gone) {
        ensure!(start.elapsed() < PATIENCE, "something is left behind");
        std::thread::sleep(LOOK);
    }
    Ok((ms(answered), ms(start.elapsed())))
}

/// What a node has of an application while it runs.
struct Traces {
    /// Work folders.
    folders: PathBuf,
    /// What is being removed.
    trash: PathBuf,
    /// The agent's groups of memory.
    groups: PathBuf,
}

impl Traces {
    fn of(cluster: &Cluster, node: &str, application: &str) -> anyhow::Result<Traces> {
        let lib = cluster.folder().join("lib").join(node);
        // Source: `group_name` of the agent.
        let digest = Sha256::digest(lib.as_os_str().as_encoded_bytes());
        let digits: String = digest.iter().take(4).map(|b| format!("{b:02x}")).collect();
        let local = lib.join("local");
        Ok(Traces {
            folders: local.join("usercache/nobody/appcache").join(application),
            trash: local.join("trash"),
            groups: own_memory_group()?.join(format!("bobbin-{node}-{digits}")),
        })
    }

    fn are_gone(&self) -> bool {
        let empty = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count) == 0;
        if self.folders.exists() || !empty(&self.trash) {
            return false;
        }
        let slots: Vec<PathBuf> = std::fs::read_dir(&self.groups)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect();
        slots.len() <= POOLED && slots.iter().all(|slot| processes_in(slot).is_empty())
    }
}

/// Where agents of this process's group have theirs.
fn own_memory_group() -> anyhow::Result<PathBuf> {
    let layout = bobbin_sandbox::cgroup::Layout::read()?;
    let memory = layout
        .of(bobbin_sandbox::cgroup::Controller::Memory)
        .context("there is no memory controller")?;
    Ok(memory.own.clone())
}

fn processes_in(group: &Path) -> Vec<i32> {
    std::fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid > 0)
        .collect()
}

/// The same tree, ended straight; milliseconds.
fn bare(
    cluster: &Cluster,
    launcher: &Launcher,
    round: u32,
    containers: u32,
) -> anyhow::Result<f64> {
    let groups = CgroupRoot::detect(None, &format!("bench-{}", std::process::id()))?;
    let dir = cluster.scratch().join(format!("bare-{round}"));
    let launched = (0..containers)
        .map(|number| launch(launcher, &groups, &dir.join(number.to_string())))
        .collect::<anyhow::Result<Vec<_>>>();
    let time = launched.and_then(|launched| end(&launched));
    // Also when something failed.
    groups.remove_all()?;
    std::fs::remove_dir_all(&dir)?;
    time
}

fn launch(
    launcher: &Launcher,
    groups: &CgroupRoot,
    dir: &Path,
) -> anyhow::Result<(ContainerSpec, Launched)> {
    let mut spec = spec_in(dir)?;
    spec.argv = vec!["/bin/sleep".to_owned(), "1000".to_owned()];
    spec.memory_mib = MEMORY_MIB;
    let limits = CgroupLimits {
        memory_mib: spec.memory_mib,
        vcores: spec.vcores,
        cpu: spec.cpu,
        pids_max: spec.pids_max,
    };
    spec.cgroups = Some(groups.lease(&spec.container_id, &limits)?);
    let launched = launcher.launch(&spec)?;
    Ok((spec, launched))
}

fn end(containers: &[(ContainerSpec, Launched)]) -> anyhow::Result<f64> {
    let mut processes = Vec::new();
    for (spec, _) in containers {
        let lease = spec.cgroups.as_ref().context("it has groups")?;
        let (group, _) = lease.memory.as_ref().context("it has a memory group")?;
        let listed = processes_in(group);
        ensure!(!listed.is_empty(), "a container is empty");
        processes.extend(listed);
    }
    let start = Instant::now();
    for pid in processes {
        // The kernel ends a program with its PID 1.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for (_, launched) in containers {
        let mut fds = [PollFd::new(launched.pidfd.as_fd(), PollFlags::POLLIN)];
        while poll(&mut fds, PollTimeout::NONE)? == 0 {}
    }
    remove_groups(containers)?;
    for (spec, _) in containers {
        std::fs::remove_dir_all(&spec.work_dir)?;
        std::fs::remove_dir_all(&spec.run_dir)?;
    }
    Ok(ms(start.elapsed()))
}

/// Removes each group as soon as the kernel lets it go, which may be a moment after the last process.
fn remove_groups(containers: &[(ContainerSpec, Launched)]) -> anyhow::Result<()> {
    let leases = containers
        .iter()
        .filter_map(|(spec, _)| spec.cgroups.as_ref());
    let mut left: Vec<&PathBuf> = leases
        .flat_map(|lease| lease.groups.iter().chain(&lease.into_v2))
        .collect();
    while !left.is_empty() {
        let mut problem = None;
        left.retain(|group| match std::fs::remove_dir(group) {
            Ok(()) => false,
            Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => true,
            Err(e) => {
                problem = Some(e);
                false
            }
        });
        if let Some(e) = problem {
            return Err(e).context("a group cannot be removed");
        }
        if !left.is_empty() {
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

fn print(arguments: &KillArguments, report: &Report) -> anyhow::Result<()> {
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    println!(
        "An application of {} containers (`sleep`) on {AGENTS} agents is killed; {} rounds.\n",
        report.containers, report.rounds
    );
    println!("| to | median ms | least | most | / bare |\n|---|---|---|---|---|");
    for (name, spread, ratio) in [
        (
            "the answer: every process reaped",
            report.answered,
            Some(report.answered_to_bare),
        ),
        (
            "nothing left: folders and groups removed",
            report.gone,
            Some(report.gone_to_bare),
        ),
        (
            "bare: the same tree killed, reaped and removed",
            report.bare,
            None,
        ),
    ] {
        let ratio = ratio.map_or_else(|| "1.00".to_owned(), |r| format!("{:.2}", r.median));
        println!(
            "| {name} | {:.1} | {:.1} | {:.1} | {ratio} |",
            spread.median, spread.least, spread.most
        );
    }
    Ok(())
}
