//! The place of the containers' groups on a host that systemd runs: a scope, asked for over D-Bus.
//!
//! Under cgroup v2 a service whose group hands out controllers cannot be started again in it, and a
//! container must outlive a restart of the agent. So the groups stand in a unit of their own,
//! `bobbin-containers-<agent>.scope` of `bobbin-containers.slice`, which systemd leaves to us
//! (`Delegate=yes`). It lives as long as a process is in it: the agent's holder and launcher, and each
//! container with its monitor. The last one's end removes it, without anybody's doing.
//!
//! An ordinary user's agent asks the user's own manager (`systemd --user`), which was given controllers
//! (`user@.service`: memory, pids, cpu). From a login's session such an agent may not put processes into
//! the scope itself, because it owns no group that holds both: it has the manager move it there.
//!
//! Source: systemd's "Control Group APIs and Delegation", org.freedesktop.systemd1(5).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bobbin_sandbox::cgroup::{Controller, Layout};
use bobbin_sandbox::{CgroupRoot, Holder};
use futures::StreamExt;
use zbus::wire::{OwnedObjectPath, Variant};
use zbus::{Connection, Proxy};

use crate::config::Config;

const SERVICE: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";
const SLICE: &str = "bobbin-containers.slice";
/// The group in the scope for processes that are no container's: processes may not be beside groups
/// that have limits.
const LEAF: &str = "monitors";
/// The longest that systemd may take for one job.
const JOB_MAX: Duration = Duration::from_secs(20);
/// A scope whose last process has just ended is gone after this, times the number of tries.
const AGAIN: Duration = Duration::from_millis(100);
const TRIES: u32 = 100;

/// The scope, and a process of this agent that keeps it.
#[derive(Debug)]
pub(crate) struct Scope {
    /// As in `/proc/self/cgroup`.
    pub(crate) group: PathBuf,
    /// The folder of the leaf for processes that are no container's.
    pub(crate) leaf: PathBuf,
    _holder: Holder,
}

/// Which service manager makes the scope.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Manager {
    /// The system's, over the system's bus.
    System,
    /// That of an ordinary user, over the user's bus at this socket. (Its own socket's answers have no
    /// sender that a bus would give, which zbus refuses.)
    User(PathBuf),
}

/// The manager to ask: systemd runs this host, and an ordinary user's manager runs.
fn manager() -> Option<Manager> {
    // Source: sd_booted(3).
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return Some(Manager::System);
    }
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    named
        .into_iter()
        .chain([usual])
        .find(|folder| folder.join("systemd/private").exists() && folder.join("bus").exists())
        .map(|folder| Manager::User(folder.join("bus")))
}

/// Whether the groups belong into a scope: a service manager can be asked, all controllers are in the
/// unified hierarchy, and the administrator has not chosen a place.
pub(crate) fn wants_scope(config: &Config) -> bool {
    config.sandbox.cgroup_root.as_os_str().is_empty() && manager().is_some() && mount().is_some()
}

/// Where the unified hierarchy is mounted, if memory is limited in it.
fn mount() -> Option<PathBuf> {
    let layout = Layout::read().ok()?;
    let memory = layout.of(Controller::Memory)?;
    (memory.version == 2).then(|| memory.mount.clone())
}

fn unit_name(group_name: &str) -> String {
    format!("bobbin-containers-{group_name}.scope")
}

/// Makes the scope, or joins the one that an earlier agent process made and containers still keep.
///
/// # Errors
/// systemd cannot be reached or refuses.
pub(crate) async fn open_scope(group_name: &str, init_program: &Path) -> anyhow::Result<Scope> {
    let mount = mount().context("there is no unified hierarchy with the memory controller")?;
    let systemd = Systemd::connect().await?;
    let unit = unit_name(group_name);
    let holder = Holder::start(init_program).context("cannot start the scope's process")?;
    let mut last = None;
    for _ in 0..TRIES {
        if systemd.make_scope(&unit, holder.pid()).await? {
            tracing::info!(%unit, "made the containers' scope");
        }
        match enter(&systemd, &unit, &mount, holder.pid()).await {
            Ok(Some((group, leaf))) => {
                if !may_move_into(&mount, &leaf) {
                    systemd.attach(&unit, std::process::id()).await?;
                }
                return Ok(Scope {
                    group,
                    leaf,
                    _holder: holder,
                });
            }
            Ok(None) => {}
            Err(e) => last = Some(e),
        }
        // The last process of the former scope has ended and systemd is putting it away.
        tokio::time::sleep(AGAIN).await;
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("{unit} neither lives nor ends")))
}

/// Puts the holder into the scope's leaf; `None` when the scope is not alive.
async fn enter(
    systemd: &Systemd,
    unit: &str,
    mount: &Path,
    holder: u32,
) -> anyhow::Result<Option<(PathBuf, PathBuf)>> {
    let Some(group) = systemd.living_group(unit).await? else {
        return Ok(None);
    };
    let folder = mount.join(group.strip_prefix("/").unwrap_or(&group));
    let leaf = folder.join(LEAF);
    match std::fs::create_dir(&leaf) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(e).with_context(|| format!("cannot make {}", leaf.display()));
        }
        Ok(()) | Err(_) => {}
    }
    std::fs::write(leaf.join("cgroup.procs"), holder.to_string())
        .with_context(|| format!("cannot join {}", leaf.display()))?;
    // It may have been given up just before the holder was in it.
    let still = systemd.living_group(unit).await?;
    Ok((still.as_ref() == Some(&group)).then_some((group, leaf)))
}

/// Whether this process may put its children into the group: it must own what holds both groups.
///
/// Source: Documentation/admin-guide/cgroup-v2.rst, "Delegation Containment".
fn may_move_into(mount: &Path, leaf: &Path) -> bool {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return false;
    };
    let own = mount.join(own);
    let Some(common) = leaf.ancestors().find(|group| own.starts_with(group)) else {
        return false;
    };
    let procs = common.join("cgroup.procs");
    nix::unistd::access(&procs, nix::unistd::AccessFlags::W_OK).is_ok()
}

/// Ends whatever is in the scope, removes the groups and the scope itself. None is fine.
///
/// # Errors
/// systemd cannot be reached, or the scope does not end.
pub(crate) async fn end_scope(group_name: &str) -> anyhow::Result<()> {
    let systemd = Systemd::connect().await?;
    let unit = unit_name(group_name);
    let Some(group) = systemd.living_group(&unit).await? else {
        return Ok(());
    };
    CgroupRoot::remove_leftovers_of(Some(&group), group_name)?;
    systemd.stop(&unit).await?;
    for _ in 0..TRIES {
        if systemd.living_group(&unit).await?.is_none() {
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    }
    bail!("{unit} does not end");
}

/// A service manager that answers.
struct Systemd {
    connection: Connection,
    manager: Proxy<'static>,
}

impl Systemd {
    async fn connect() -> anyhow::Result<Systemd> {
        let whose = manager().context("no systemd runs here")?;
        let connection = match &whose {
            Manager::System => Connection::system()
                .await
                .context("no connection to the system bus")?,
            Manager::User(socket) => {
                let words = || format!("no connection to {}", socket.display());
                let stream = std::os::unix::net::UnixStream::connect(socket).with_context(words)?;
                let builder = zbus::connection::Builder::unix_stream(stream);
                builder.build().await.with_context(words)?
            }
        };
        let manager = Proxy::new(
            &connection,
            SERVICE,
            MANAGER,
            "org.freedesktop.systemd1.Manager",
        )
        .await?;
        // Without a subscriber it tells nobody of jobs that end.
        let () = manager.call("Subscribe", &()).await?;
        Ok(Systemd {
            connection,
            manager,
        })
    }

    /// The unit's group when the unit is active; `None` when it is not there, or going.
    async fn living_group(&self, unit: &str) -> anyhow::Result<Option<PathBuf>> {
        let found: Result<OwnedObjectPath, _> = self.manager.call("GetUnit", &(unit)).await;
        let path = match found {
            Ok(path) => path,
            Err(e) if is_error(&e, "NoSuchUnit") => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("systemd does not tell of {unit}")),
        };
        let read = async |interface: &'static str, name: &'static str| {
            let proxy = Proxy::new(
                &self.connection,
                SERVICE,
                path.as_ref(),
                "org.freedesktop.DBus.Properties",
            )
            .await?;
            let value: zbus::wire::OwnedVariant = proxy.call("Get", &(interface, name)).await?;
            String::try_from(value)
        };
        let answers = async {
            let state = read("org.freedesktop.systemd1.Unit", "ActiveState").await?;
            let group = read("org.freedesktop.systemd1.Scope", "ControlGroup").await?;
            Ok::<_, zbus::Error>((state, group))
        };
        match answers.await {
            Ok((state, group)) if state == "active" && !group.is_empty() => {
                Ok(Some(PathBuf::from(group)))
            }
            Ok(_) => Ok(None),
            // It went between the two questions.
            Err(e) if is_error(&e, "NoSuchUnit") || is_unknown_object(&e) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("systemd does not tell of {unit}")),
        }
    }

    /// Makes the scope around `process`; false when a unit of this name is there.
    async fn make_scope(&self, unit: &str, process: u32) -> anyhow::Result<bool> {
        let properties: Vec<(&str, Variant<'_>)> = vec![
            ("Description", "Containers of a Bobbin node agent".into()),
            ("Slice", SLICE.into()),
            ("Delegate", true.into()),
            ("MemoryAccounting", true.into()),
            ("CPUAccounting", true.into()),
            ("TasksAccounting", true.into()),
            // Each container has its own limit; the system's default would bind all together.
            ("TasksMax", u64::MAX.into()),
            // A unit that ended in an unusual way is not kept for its name.
            ("CollectMode", "inactive-or-failed".into()),
            ("TimeoutStopUSec", 10_000_000_u64.into()),
            ("PIDs", vec![process].into()),
        ];
        let auxiliary: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let arguments = (unit, "fail", properties, auxiliary);
        match self.job("StartTransientUnit", &arguments).await {
            Ok(result) => {
                ensure!(result == "done", "systemd's job for {unit}: {result}");
                Ok(true)
            }
            Err(JobError::Bus(e)) if is_error(&e, "UnitExists") => Ok(false),
            Err(e) => Err(e).with_context(|| format!("systemd does not make {unit}")),
        }
    }

    /// Moves a process of the same user into the scope's leaf.
    async fn attach(&self, unit: &str, process: u32) -> anyhow::Result<()> {
        let arguments = (unit, format!("/{LEAF}"), vec![process]);
        let moved = self.manager.call("AttachProcessesToUnit", &arguments).await;
        let () = moved.with_context(|| format!("systemd does not move this agent into {unit}"))?;
        Ok(())
    }

    async fn stop(&self, unit: &str) -> anyhow::Result<()> {
        match self.job("StopUnit", &(unit, "replace")).await {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => bail!("systemd's job to stop {unit}: {result}"),
            // The last process was its end.
            Err(JobError::Bus(e)) if is_error(&e, "NoSuchUnit") => Ok(()),
            Err(e) => Err(e).with_context(|| format!("systemd does not stop {unit}")),
        }
    }

    /// Calls a method that starts a job, and waits for the job's result in systemd's word.
    async fn job<B>(&self, method: &'static str, arguments: &B) -> Result<String, JobError>
    where
        B: serde::Serialize + zbus::wire::DynamicType + Sync,
    {
        let mut ended = self.manager.receive_signal("JobRemoved").await?;
        let started: OwnedObjectPath = self.manager.call(method, arguments).await?;
        let wait = async {
            while let Some(signal) = ended.next().await {
                let body = signal.body();
                let (_, job, _, result): (u32, OwnedObjectPath, String, String) =
                    body.deserialize()?;
                if job == started {
                    return Ok(result);
                }
            }
            Err(JobError::Silent)
        };
        tokio::time::timeout(JOB_MAX, wait)
            .await
            .unwrap_or(Err(JobError::Silent))
    }
}

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error(transparent)]
    Bus(#[from] zbus::Error),
    #[error("systemd does not tell of the job's end")]
    Silent,
}

/// Whether systemd answered with this error of its own.
fn is_error(error: &zbus::Error, name: &str) -> bool {
    let zbus::Error::MethodError(told, _, _) = error else {
        return false;
    };
    told.as_str().strip_prefix("org.freedesktop.systemd1.") == Some(name)
}

/// Whether the object that was asked is not there (any more).
fn is_unknown_object(error: &zbus::Error) -> bool {
    let zbus::Error::FDO(told) = error else {
        return false;
    };
    matches!(**told, zbus::fdo::Error::UnknownObject(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_administrators_place_is_taken_as_it_is() {
        let mut config = Config::default();
        config.sandbox.cgroup_root = "/machine".into();
        assert!(!wants_scope(&config));
    }

    #[test]
    fn a_scope_is_wanted_only_where_systemd_runs() {
        let config = Config::default();
        assert!(!wants_scope(&config) || Path::new("/run/systemd/system").exists());
    }
}
