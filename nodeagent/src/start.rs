//! The agent from its settings to its end.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bobbin_na_core::{Event, NodeAgent, NodeConfig};
use bobbin_sandbox::cgroup::Controller;
use bobbin_sandbox::{CgroupRoot, Launcher, lacks_socket_scope, probe};
use bobbin_service::{
    DaemonInfo, FolderLock, Listener, RunFiles, ServeLimits, Target, connect_lazy, create_folder,
    lock_folder, notify_ready, notify_stopping, on_signals,
};
use bobbin_types::NodeId;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::Accounts;
use crate::archive::ArchiveLimits;
use crate::config::Config;
use crate::driver::{Driver, INBOX_MAX, Input};
use crate::folders::Folders;
use crate::launch::chain;
use crate::live::Live;
use crate::localizer::{Localizer, LocalizerLimits, keep_tidy};
use crate::logs::Logs;
use crate::node::{Keys, Node};
use crate::readable::readable;
use crate::remote::Remote;
use crate::remote::credentials::Stores;
use crate::remote::transfer::Patience;
use crate::remote::transport::{Transport, Waits};
use crate::store::Store;
use crate::systemd::Scope;
use crate::usage::Machine;
use crate::webhdfs::Trees;
use crate::yarn::Extras;
use crate::yarn::contract::NodeEnvironment;
use crate::{disk_guard, grpc, rm_link, systemd, web, yarn};

/// Programs that every container finds in `/run/bobbin/bin`.
const PROGRAMS: [&str; 3] = ["bobbin", "bobbin-executor", "bobbin-appmaster"];
const LAUNCHER: &str = "bobbin-container-init";
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the end waits for clean-ups that are under way; the next start finishes them.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// Makes the agent's own folders and takes them for this process alone.
pub(crate) fn own_folders(config: &Config) -> anyhow::Result<FolderLock> {
    create_folder(&config.folders.lib, 0o700)?;
    create_folder(&config.folders.run, 0o755)?;
    Ok(lock_folder(&config.folders.lib)?)
}

/// A name for the agent's control groups that no other agent of the host has.
pub(crate) fn group_name(config: &Config) -> String {
    let digest = Sha256::digest(config.folders.lib.as_os_str().as_encoded_bytes());
    let digits: String = digest.iter().take(4).map(|b| format!("{b:02x}")).collect();
    format!("{}-{digits}", config.name)
}

/// The setting's place for groups, if there is one.
pub(crate) fn cgroup_setting(config: &Config) -> Option<&Path> {
    let root = &config.sandbox.cgroup_root;
    (!root.as_os_str().is_empty()).then_some(root.as_path())
}

/// The scope that the groups belong into, on a host that systemd runs.
async fn open_scope(config: &Config) -> anyhow::Result<Option<Scope>> {
    if !systemd::wants_scope(config) {
        return Ok(None);
    }
    let launcher = own_programs()?.join(LAUNCHER);
    match systemd::open_scope(&group_name(config), &launcher).await {
        Ok(scope) => Ok(Some(scope)),
        Err(e) => {
            tracing::warn!(
                "no scope for the containers: {e:#}; their groups stand below the agent's own, so a \
                 unit of systemd that runs this agent cannot be restarted while containers run"
            );
            Ok(None)
        }
    }
}

/// What the profile can enforce here.
struct Enforcement {
    cgroups: Option<CgroupRoot>,
    problems: Vec<String>,
    lacks: Vec<String>,
}

fn enforcement(config: &Config, scope: Option<&Scope>) -> Enforcement {
    let missing = probe();
    let place = scope.map(|scope| scope.group.as_path());
    let place = place.or_else(|| cgroup_setting(config));
    let (cgroups, no_groups) = match CgroupRoot::detect(place, &group_name(config)) {
        Ok(cgroups) => (Some(cgroups), None),
        Err(e) => (None, Some(chain(&e))),
    };
    if config.is_rootless() {
        // What the own group has does not matter: the containers' place has its own words.
        let mut lacks = missing;
        lacks.retain(|part| !part.starts_with("cgroups: "));
        match (&cgroups, no_groups) {
            (Some(groups), _) => lacks.extend(controllers_missing(groups)),
            (None, reason) => lacks.push(format!(
                "control groups: memory is measured and enforced some moments later, processor time and \
                 the number of processes are not limited ({}); cure: run it where `systemd --user` and its bus run, \
                 on a host with cgroup v2",
                reason.unwrap_or_default()
            )),
        }
        return Enforcement {
            cgroups,
            problems: Vec::new(),
            lacks,
        };
    }
    let mut problems = missing;
    problems.extend(no_groups.map(|reason| format!("control groups: {reason}")));
    Enforcement {
        cgroups,
        problems,
        lacks: Vec::new(),
    }
}

/// What the kernel lacks, which no profile can make up for.
fn lacks_of_host(no_namespaces: Option<String>) -> impl Iterator<Item = String> {
    let words = no_namespaces.map(|reason| {
        format!(
            "namespaces: containers see your other processes and their /tmp, and may write what you may \
             ({reason}); cure: `bobbin doctor` names the setting that forbids user namespaces"
        )
    });
    words.into_iter().chain(lacks_socket_scope())
}

/// What the groups that an ordinary user was given cannot limit, in words.
fn controllers_missing(groups: &CgroupRoot) -> Vec<String> {
    [
        (Controller::Cpu, "processor time is not limited"),
        (Controller::Pids, "the number of processes is not limited"),
    ]
    .into_iter()
    .filter(|(controller, _)| groups.layout().of(*controller).is_none())
    .map(|(controller, words)| {
        let name = controller.name();
        format!("control groups: {words}; cure: `Delegate=memory pids cpu` for user@.service gives {name}")
    })
    .collect()
}

/// Serves until a signal.
pub(crate) async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = on_signals().context("cannot take signals")?;
    let lock = own_folders(&config)?;
    let listener = Listener::tcp(&config.grpc.listen).await?;
    let containers = bind(&config.yarn.listen, "yarn.listen").await?;
    let http = bind(&config.http.listen, "http.listen").await?;
    let bound = Bound {
        grpc: listener
            .local_addr()
            .context("the listener has no address")?,
        yarn: containers
            .local_addr()
            .context("the listener has no address")?,
        http: http.local_addr().context("the listener has no address")?,
    };
    let name = config.name.clone();
    let run = config.folders.run.clone();
    let (store, records) = Store::open(&config.folders.lib)?;
    let scope = open_scope(&config).await?;
    let (node, problems) = open_node(config, &bound, scope)?;
    for problem in &problems {
        tracing::error!("this agent takes no work: {problem}");
    }
    for lack in &node.lacks {
        tracing::warn!("this node lacks: {lack}");
    }
    let core = NodeAgent::new(NodeConfig {
        node: node.node_id.clone(),
        total: node.offered.0,
        reserved: node.offered.1,
        log_retain_ms: node.config.logs.retain_ms,
    });
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let driver = Driver::recover(
        node.clone(),
        core,
        store,
        records,
        problems,
        (sender.clone(), inbox),
    )
    .await?;
    let info = DaemonInfo {
        grpc: node.grpc_address.clone(),
        node_id: node.node_id.to_string(),
        http: node.http_address.clone(),
        yarn: [("containers".to_owned(), bound.yarn.to_string())].into(),
        ..DaemonInfo::of_this_process(env!("CARGO_PKG_VERSION"))
    };
    let run_files = RunFiles::write(&run, &name, &info)?;
    let mut doors = JoinSet::new();
    doors.spawn(keep_tidy(node.localizer.clone(), stop.clone()));
    doors.spawn(web::serve(http, node.clone(), sender.clone(), stop.clone()));
    doors.spawn(yarn::door::serve(
        containers,
        node.clone(),
        sender.clone(),
        stop.clone(),
    ));
    let tasks = start_tasks(&node, driver, sender, listener, doors, &stop);
    notify_ready();
    tracing::info!(node = %node.node_id, grpc = %node.grpc_address, "serving");
    let result = tasks.wait(&stop).await;
    notify_stopping();
    finish(&node).await;
    run_files.remove();
    drop(lock);
    result
}

struct Tasks {
    driver: tokio::task::JoinHandle<Result<(), crate::driver::DriverError>>,
    server: tokio::task::JoinHandle<Result<(), bobbin_service::ServeError>>,
    link: tokio::task::JoinHandle<()>,
    doors: JoinSet<()>,
    guard: tokio::task::JoinHandle<()>,
    sampler: tokio::task::JoinHandle<()>,
}

fn start_tasks(
    node: &Arc<Node>,
    driver: Driver,
    sender: mpsc::Sender<Input>,
    listener: Listener,
    doors: JoinSet<()>,
    stop: &CancellationToken,
) -> Tasks {
    let routes = grpc::routes(node.clone(), sender.clone());
    let limits = ServeLimits::default();
    Tasks {
        driver: tokio::spawn(driver.run(stop.clone())),
        server: tokio::spawn(bobbin_service::serve(
            routes,
            vec![listener],
            limits,
            stop.clone(),
        )),
        link: tokio::spawn(rm_link::run(node.clone(), sender.clone(), stop.clone())),
        doors,
        guard: tokio::spawn(disk_guard::run(node.clone(), sender.clone(), stop.clone())),
        sampler: tokio::spawn(sample(sender, stop.clone())),
    }
}

impl Tasks {
    /// Waits for the signal, or for the first part that fails; then for all.
    async fn wait(mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let first = tokio::select! {
            () = stop.cancelled() => Ok(()),
            result = &mut self.driver => result.map_err(anyhow::Error::from).and_then(|r| r.map_err(Into::into)),
            result = &mut self.server => result.map_err(anyhow::Error::from).and_then(|r| r.map_err(Into::into)),
        };
        stop.cancel();
        let all = async {
            if !self.driver.is_finished() {
                let _ = (&mut self.driver).await;
            }
            if !self.server.is_finished() {
                let _ = (&mut self.server).await;
            }
            let _ = self.link.await;
            self.doors.join_all().await;
            let _ = self.guard.await;
            let _ = self.sampler.await;
        };
        if tokio::time::timeout(STOP_WAIT, all).await.is_err() {
            tracing::warn!("a part of the agent did not end in time");
        }
        first
    }
}

async fn finish(node: &Arc<Node>) {
    node.background.close();
    if tokio::time::timeout(STOP_WAIT, node.background.wait())
        .await
        .is_err()
    {
        tracing::info!("clean-ups are under way; the next start finishes them");
    }
    if let Some(cgroups) = &node.cgroups
        && let Err(e) = cgroups.drain_pool()
    {
        tracing::warn!("empty groups are left: {}", chain(&e));
    }
}

/// The addresses of the doors, as bound.
struct Bound {
    grpc: SocketAddr,
    yarn: SocketAddr,
    http: SocketAddr,
}

async fn bind(listen: &str, key: &'static str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen} ({key})"))
}

/// What others know this agent by.
struct Identity {
    node_id: NodeId,
    grpc_address: String,
    http_address: String,
}

/// The node's id has the port of the YARN door, as in YARN.
fn identity(config: &Config, bound: &Bound) -> anyhow::Result<Identity> {
    let host = if config.host.is_empty() {
        nix::unistd::gethostname()
            .context("cannot tell this machine's name; set host")?
            .to_string_lossy()
            .into_owned()
    } else {
        config.host.clone()
    };
    let told = |address: SocketAddr| {
        if address.ip().is_unspecified() {
            format!("{host}:{}", address.port())
        } else {
            address.to_string()
        }
    };
    let grpc_address = if config.grpc.advertise.is_empty() {
        told(bound.grpc)
    } else {
        config.grpc.advertise.clone()
    };
    Ok(Identity {
        node_id: format!("{host}:{}", bound.yarn.port())
            .parse()
            .context("the setting host")?,
        grpc_address,
        http_address: told(bound.http),
    })
}

/// The shared folders without links in them: the launcher follows none.
fn shared_dirs(config: &Config) -> anyhow::Result<Vec<PathBuf>> {
    let real = |dir: &PathBuf| {
        dir.canonicalize().with_context(|| {
            format!(
                "the setting sandbox.shared_dirs: {} cannot be used",
                dir.display()
            )
        })
    };
    config.sandbox.shared_dirs.iter().map(real).collect()
}

/// How files from outside the cluster are fetched.
fn remote(config: &Config) -> anyhow::Result<Remote> {
    let settings = &config.localizer;
    let gate = config
        .gate()
        .map_err(|(key, problem)| anyhow::anyhow!("the setting {key}: {problem}"))?;
    if !settings.credentials_file.as_os_str().is_empty() {
        // Read again for every file; a mistake shall be seen now.
        Stores::read(&settings.credentials_file)
            .map_err(|words| anyhow::anyhow!("the setting localizer.credentials_file: {words}"))?;
    }
    let transport = Transport::new(settings.ca_file.clone(), Waits::default());
    let credentials = settings.credentials_file.clone();
    Ok(Remote::new(
        gate,
        transport,
        credentials,
        Patience::default(),
    ))
}

fn localizer(config: &Config, folders: &Arc<Folders>) -> anyhow::Result<Arc<Localizer>> {
    let staging = connect_lazy(&Target::Tcp(config.resourcemanager.address.clone()), None)
        .context("the setting resourcemanager.address")?;
    let limits = LocalizerLimits {
        cache_bytes: config.localizer.cache_bytes,
        cache_age_ms: config.localizer.cache_age_ms,
        file_bytes_max: config.localizer.file_bytes_max,
        archive: ArchiveLimits {
            bytes_max: config.localizer.archive_bytes_max,
            entries_max: config.localizer.archive_entries_max,
            ratio_max: config.localizer.archive_ratio_max,
        },
    };
    let trees = Trees::new(
        &config.resourcemanager.address,
        config.localizer.webhdfs_hosts.clone(),
    );
    Localizer::open(folders.clone(), limits, staging, trees, remote(config)?)
        .context("cannot read the cache of localized files")
}

fn open_node(
    config: Config,
    bound: &Bound,
    scope: Option<Scope>,
) -> anyhow::Result<(Arc<Node>, Vec<String>)> {
    let Identity {
        node_id,
        grpc_address,
        http_address,
    } = identity(&config, bound)?;
    let machine = Machine::new().context("cannot look at this machine")?;
    let offered = config.offered(machine.memory_mib(), machine.cores());
    let folders = Arc::new(Folders::open(&config.folders.local, &config.folders.log)?);
    let localizer = localizer(&config, &folders)?;
    let programs = own_programs()?;
    let Enforcement {
        cgroups,
        problems,
        mut lacks,
    } = enforcement(&config, scope.as_ref());
    let bin = config.folders.lib.canonicalize()?.join("bin");
    place_programs(&programs, &bin).context("cannot place the containers' programs")?;
    let leaf = scope.as_ref().map(|scope| scope.leaf.clone());
    let launcher = Launcher::start_in(&programs.join(LAUNCHER), leaf)?;
    lacks.extend(lacks_of_host(launcher.no_namespaces()));
    let shared_dirs = shared_dirs(&config)?;
    let environment = NodeEnvironment::new(&config.yarn.java_home, |name| std::env::var(name).ok());
    let readable = readable(&config.sandbox, environment.java_home.as_deref())?;
    let logs = Logs::new(folders.clone(), Arc::default(), node_id.to_string());
    let keys = Keys::open(&config.folders.lib);
    let node = Node {
        config,
        node_id,
        offered,
        lacks,
        grpc_address,
        http_address,
        folders,
        localizer,
        launcher,
        cgroups,
        _scope: scope,
        bin,
        shared_dirs,
        readable,
        environment,
        extras: Extras::default(),
        logs,
        live: Live::default(),
        keys,
        accounts: Accounts::default(),
        background: TaskTracker::new(),
    };
    Ok((Arc::new(node), problems))
}

/// The folder in which this program is: the others are beside it.
fn own_programs() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let folder = own
        .parent()
        .context("this program is in no folder")?
        .to_owned();
    if !folder.join(LAUNCHER).exists() {
        bail!(
            "{LAUNCHER} is not beside this program, in {}",
            folder.display()
        );
    }
    Ok(folder)
}

/// Puts the programs that containers see into a folder of their own: links where the file system
/// lets, copies otherwise. Each is replaced by a rename, so that a running one is not disturbed.
fn place_programs(from: &Path, bin: &Path) -> anyhow::Result<()> {
    create_folder(bin, 0o755)?;
    std::fs::set_permissions(bin, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for name in PROGRAMS {
        let (source, target) = (from.join(name), bin.join(name));
        match place(&source, &target) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                tracing::warn!("{} is missing: containers cannot use it", source.display());
            }
            Err(e) => return Err(e).with_context(|| source.display().to_string()),
        }
    }
    Ok(())
}

fn place(source: &Path, target: &Path) -> io::Result<()> {
    let wanted = std::fs::metadata(source)?;
    if let Ok(there) = std::fs::metadata(target) {
        let same_file = (there.dev(), there.ino()) == (wanted.dev(), wanted.ino());
        let same_copy = (there.len(), there.modified()?) == (wanted.len(), wanted.modified()?);
        if same_file || same_copy {
            return Ok(());
        }
    }
    let temporary = target.with_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    if std::fs::hard_link(source, &temporary).is_err() {
        std::fs::copy(source, &temporary)?;
        std::fs::File::options()
            .write(true)
            .open(&temporary)?
            .set_modified(wanted.modified()?)?;
    }
    std::fs::rename(&temporary, target)
}

/// Samples the machine each second.
async fn sample(driver: mpsc::Sender<Input>, stop: CancellationToken) {
    let Ok(mut machine) = Machine::new() else {
        return;
    };
    let mut interval = tokio::time::interval(SAMPLE_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stop.cancelled() => return,
        }
        let sampling = tokio::task::spawn_blocking(move || {
            let usage = machine.sample();
            (machine, usage)
        });
        let Ok((back, usage)) = sampling.await else {
            return;
        };
        machine = back;
        if driver
            .send(Input::Event(Event::UsageSample(usage)))
            .await
            .is_err()
        {
            return;
        }
    }
}
