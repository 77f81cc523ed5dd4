//! A small process of one thread that measures floors and runtimes on request.
//!
//! It reads one word a line and answers with two times in nanoseconds: to the execution of the
//! program and to its end (the first is 0 for a runtime, which does not tell).

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use bobbin_sandbox::bare::{Bare, BareRoot};
use bobbin_sandbox::{CgroupLimits, CgroupRoot, CpuMode, Launcher};

use crate::launch::{SMALL, ours_once, spec_in};
use crate::runtimes::{Runtime, run_once, write_bundle};

/// Before a number: as many bare launches, one after the other; the second time is for all of them.
pub(crate) const MANY: &str = "bare-times-";

#[derive(Debug, clap::Args)]
pub(crate) struct WorkerArguments {
    /// Folder for the containers' folders.
    dir: PathBuf,
    /// The launcher, for our own launch from a small process.
    #[arg(long)]
    init: PathBuf,
    /// What the floor runs instead of `true`, which must need no arguments.
    #[arg(long)]
    program: Option<String>,
    /// Hide this mount first (a v2 tree that runtimes cannot take for a hybrid host).
    #[arg(long)]
    hide: Option<PathBuf>,
}

/// Serves measurements until its input ends.
///
/// # Errors
/// When the floor cannot be set up or a launch fails.
pub(crate) fn run(arguments: &WorkerArguments) -> anyhow::Result<()> {
    if let Some(path) = &arguments.hide {
        hide(path)?;
    }
    let name = format!("bench-worker-{}", std::process::id());
    let groups = CgroupRoot::detect(None, &name).context("control groups")?;
    let result = serve(arguments, &groups);
    groups.remove_all().context("control groups")?;
    result
}

fn hide(path: &Path) -> anyhow::Result<()> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("own mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("private mounts")?;
    umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("hide {}", path.display()))
}

fn serve(arguments: &WorkerArguments, groups: &CgroupRoot) -> anyhow::Result<()> {
    let dir = &arguments.dir;
    let mut spec = spec_in(&dir.join(format!("worker-{}", std::process::id())))?;
    if let Some(program) = &arguments.program {
        spec.argv = vec![program.clone()];
    }
    let limits = CgroupLimits {
        memory_mib: spec.memory_mib,
        vcores: spec.vcores,
        cpu: CpuMode::Share,
        pids_max: spec.pids_max,
    };
    spec.cgroups = Some(groups.lease("floor", &limits)?);
    let bare = Bare::new(&spec)?;
    let bundle = dir.join(format!("bundle-{}", std::process::id()));
    let parent = own_group()?;
    write_bundle(
        &bundle,
        &spec,
        &format!("{parent}/bobbin-bench-{}", std::process::id()),
    )?;
    let mut launcher = None;
    let mut count = 0;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        count += 1;
        let (to_exec, to_end) = match line.as_str() {
            "bare" | "least" => {
                let root = if line == "bare" {
                    BareRoot::Same
                } else {
                    BareRoot::Least
                };
                let times = bare.run(root)?;
                (times.to_exec.as_nanos(), times.to_reaped.as_nanos())
            }
            many if many.starts_with(MANY) => {
                let start = Instant::now();
                for _ in 0..many[MANY.len()..].parse()? {
                    bare.run(BareRoot::Same)?;
                }
                (0, start.elapsed().as_nanos())
            }
            SMALL => {
                let launcher = match &launcher {
                    Some(launcher) => launcher,
                    None => launcher.insert(Launcher::start(&arguments.init)?),
                };
                let spec = spec_in(&dir.join(format!("small-{}-{count}", std::process::id())))?;
                let (to_exec, to_end) = ours_once(launcher, groups, spec)?;
                (to_exec.as_nanos(), to_end.as_nanos())
            }
            name => {
                let runtime = Runtime::from_name(name).with_context(|| name.to_owned())?;
                (0, run_once(runtime, &spec, &bundle, count)?.as_nanos())
            }
        };
        writeln!(out, "{to_exec} {to_end}")?;
        out.flush()?;
    }
    Ok(())
}

/// The own memory group: runtimes, too, may only make groups below it.
fn own_group() -> anyhow::Result<String> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
    let of = |controller: &str| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let names = parts.next()?;
            let path = parts.next()?;
            names
                .split(',')
                .any(|name| name == controller)
                .then(|| path.to_owned())
        })
    };
    let group = of("memory").or_else(|| of("")).unwrap_or_default();
    Ok(group.trim_end_matches('/').to_owned())
}
