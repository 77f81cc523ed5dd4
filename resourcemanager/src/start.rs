//! From settings to a daemon that serves: folders, lock, secret, journal, index, core, doors.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bobbin_journal::Journal;
use bobbin_proto::v1::application_master_server::ApplicationMasterServer;
use bobbin_proto::v1::client_server::ClientServer;
use bobbin_proto::v1::node_server::NodeServer;
use bobbin_proto::v1::staging_server::StagingServer;
use bobbin_rm_core::{Effect, Event, Record, ResourceManager};
use bobbin_service::{
    DaemonInfo, FolderLock, Listener, MonotonicClock, RunFiles, ServeError, ServeLimits,
    account_of_uid, create_folder, load_or_create_secret, lock_folder, notify_ready,
    notify_stopping, on_signals, own_uid, raise_file_limit, wall_now,
};
use bobbin_types::MESSAGE_BYTES_MAX;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::config::Config;
use crate::driver::{Backing, COMPACT_BYTES, Driver, DriverHandle};
use crate::file_tree::{FileTree, Files};
use crate::grpc::Doors;
use crate::grpc::app_master::MasterService;
use crate::grpc::client::ClientService;
use crate::grpc::identify::Doorkeeper;
use crate::grpc::node::NodeService;
use crate::grpc::staging::StagingService;
use crate::minter::Minter;
use crate::records;
use crate::revoked::Revoked;
use crate::store::{Store, is_new};
use crate::web::{self, Web};
use crate::yarn::{self, Addresses, Listeners, YarnDoors};

/// The socket is everybody's: who connects is proven by the kernel.
const SOCKET_MODE: u32 = 0o666;
/// Uploads for an id that was never submitted are kept so long.
const UNSUBMITTED_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Index changes are handed over in pieces of so many records at start.
const INDEX_BATCH: usize = 1_000;

/// Runs the daemon until a signal ends it.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    raise_file_limit();
    // Work is short and the driver is one task; more threads would only move caches about.
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .thread_name("rm")
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(config));
    // File work that still runs is not waited for: it is safe to be cut off.
    runtime.shutdown_background();
    result
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let signals = on_signals().context("cannot handle signals")?;
    let lock = folders(&config)?;
    let lib = &config.folders.lib;
    let secret = load_or_create_secret(&lib.join("secret"))?;
    let clock = MonotonicClock::start();
    let recovered = recover(&config, clock)?;
    let minter = Minter::new(secret.clone(), config.tokens.clone());
    let revoked = Revoked::open(&lib.join("revoked_tokens"))?;
    let doorkeeper = Doorkeeper::new(secret, config.root_runs_as.clone()).with_revoked(revoked);
    let Recovered {
        core,
        effects,
        backing,
    } = recovered;
    let (store, tree) = (backing.store.clone(), backing.tree.clone());
    remove_leftovers(&core, &tree);
    let (mut driver, handle) = Driver::new(core, clock, backing, effects);
    driver.settle().await?;
    let stop = CancellationToken::new();
    let kept = Kept {
        doorkeeper,
        minter,
        handle,
        store,
        tree,
    };
    let mut servers = Servers::open(&config, kept, &stop).await?;
    let stop_driver = CancellationToken::new();
    let mut driving = tokio::spawn(driver.run(stop_driver.clone()));
    notify_ready();
    let early = tokio::select! {
        () = signals.cancelled() => Ok(()),
        ended = &mut driving => ended.context("the driver was cut off")?.map_err(anyhow::Error::from),
        ended = &mut servers.grpc => ended.context("the servers were cut off")?.map_err(anyhow::Error::from),
    };
    notify_stopping();
    stop.cancel();
    servers.run_files.remove();
    if early.is_ok() {
        if !servers.grpc.is_finished() {
            servers.grpc.await.context("the servers were cut off")??;
        }
        servers.web.await.context("the web door was cut off")?;
        servers.yarn.join_all().await;
        stop_driver.cancel();
        driving.await.context("the driver was cut off")??;
    }
    // Best effort: a stale socket is replaced at the next start.
    drop(std::fs::remove_file(&config.socket));
    drop(lock);
    tracing::info!("stopped");
    early
}

/// What the doors are made of.
struct Kept {
    doorkeeper: Doorkeeper,
    minter: Minter,
    handle: DriverHandle,
    store: Store,
    tree: FileTree,
}

/// The doors, open until their stop.
struct Servers {
    grpc: JoinHandle<Result<(), ServeError>>,
    web: JoinHandle<()>,
    yarn: JoinSet<()>,
    run_files: RunFiles,
}

impl Servers {
    /// Binds every address, serves, and says where in the run files.
    async fn open(
        config: &Config,
        kept: Kept,
        stop: &CancellationToken,
    ) -> anyhow::Result<Servers> {
        let Kept {
            doorkeeper,
            minter,
            handle,
            store,
            tree,
        } = kept;
        let (http, address) = web::bind(&config.http_listen).await?;
        let mut web = web_door(config, (&doorkeeper, &handle), &minter, address)?;
        let listeners = Listeners::bind(&config.yarn).await?;
        let addresses = listeners.addresses(address);
        let hadoop = YarnDoors {
            doorkeeper: doorkeeper.clone(),
            driver: handle.clone(),
            minter: minter.clone(),
            addresses,
            started_ms: web.started_ms,
        };
        let doors = Doors {
            doorkeeper: doorkeeper.clone(),
            driver: handle,
            minter,
            addresses,
            hadoop: addresses.for_clients(config),
            stop: stop.clone(),
        };
        let routes = routes(doors, store, StagingService::new(doorkeeper, tree));
        let tcp = Listener::tcp(&config.listen).await?;
        let unix = Listener::unix(&config.socket, SOCKET_MODE)?;
        let info = daemon_info(&tcp, &addresses, &config.socket);
        web.doors = info.yarn.values().cloned().collect();
        web.doors.extend([info.grpc.clone(), info.http.clone()]);
        let grpc = tokio::spawn(bobbin_service::serve(
            routes,
            vec![tcp, unix],
            ServeLimits::default(),
            stop.clone(),
        ));
        let servers = Servers {
            grpc,
            yarn: yarn::serve(listeners, &hadoop, config.protection, stop),
            web: tokio::spawn(web::serve(http, web, stop.clone())),
            run_files: RunFiles::write(&config.folders.run, "resourcemanager", &info)?,
        };
        tracing::info!(grpc = info.grpc, http = info.http, socket = %info.socket.display(), "serving");
        Ok(servers)
    }
}

fn folders(config: &Config) -> anyhow::Result<FolderLock> {
    create_folder(&config.folders.lib, 0o700)?;
    create_folder(&config.folders.run, 0o755)?;
    create_folder(&config.folders.log, 0o755)?;
    Ok(lock_folder(&config.folders.lib)?)
}

/// The HTTP door; what is nobody's in its file tree belongs to the account of this process.
fn web_door(
    config: &Config,
    (doorkeeper, driver): (&Doorkeeper, &DriverHandle),
    minter: &Minter,
    address: SocketAddr,
) -> anyhow::Result<Web> {
    let superuser = account_of_uid(own_uid()).map_or_else(|_| "root".to_owned(), |own| own.name);
    let root = config.folders.lib.join("files");
    Ok(Web {
        doorkeeper: doorkeeper.clone(),
        driver: driver.clone(),
        minter: minter.clone(),
        files: Files::open(&root, superuser, config.upload_bytes_max)?,
        address,
        started_ms: wall_now().0,
        doors: Vec::new(),
        seats: web::Seats::default(),
        lists: web::Seats::default(),
        writes: web::Seats::default(),
    })
}

fn daemon_info(tcp: &Listener, addresses: &Addresses, socket: &Path) -> DaemonInfo {
    DaemonInfo {
        grpc: tcp.local_addr().map(|a| a.to_string()).unwrap_or_default(),
        http: addresses.http.to_string(),
        yarn: addresses.named(),
        socket: std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned()),
        ..DaemonInfo::of_this_process(env!("CARGO_PKG_VERSION"))
    }
}

fn routes(doors: Doors, store: Store, staging: StagingService) -> Routes {
    Routes::new(
        ClientServer::new(ClientService::new(doors.clone(), store))
            .max_decoding_message_size(MESSAGE_BYTES_MAX),
    )
    .add_service(
        NodeServer::new(NodeService::new(doors.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX),
    )
    .add_service(
        ApplicationMasterServer::new(MasterService::new(doors))
            .max_decoding_message_size(MESSAGE_BYTES_MAX),
    )
    .add_service(StagingServer::new(staging).max_decoding_message_size(MESSAGE_BYTES_MAX))
    .prepare()
}

/// What the journal brought back.
struct Recovered {
    core: ResourceManager,
    effects: Vec<Effect>,
    backing: Backing,
}

fn recover(config: &Config, clock: MonotonicClock) -> anyhow::Result<Recovered> {
    let lib = &config.folders.lib;
    let mut records: Vec<(u64, Record)> = Vec::new();
    let mut unreadable = None;
    let opened = Journal::open(
        &lib.join("journal"),
        bobbin_journal::Options::default(),
        &mut |sequence, bytes| match records::decode(bytes) {
            Ok(record) => records.push((sequence, record)),
            Err(e) => drop(unreadable.get_or_insert((sequence, e))),
        },
    )?;
    if let Some((sequence, e)) = unreadable {
        return Err(anyhow::Error::new(e).context(format!(
            "record {sequence} of the journal cannot be read; was it written by a newer version?"
        )));
    }
    for note in &opened.notes {
        tracing::warn!("journal: {note}");
    }
    let tree = FileTree::open(&lib.join("files"), config.upload_bytes_max)?;
    let store = index(&lib.join("index"), &records)?;
    let (epoch, cluster_timestamp) = last_epoch(&records);
    let mut core = ResourceManager::new(config.core.clone(), epoch + 1, cluster_timestamp);
    let mut effects = Vec::new();
    let now = clock.now();
    let count = records.len();
    for (_, record) in records {
        core.handle(now, Event::Recovered(record), &mut effects);
    }
    core.handle(now, Event::WallClock(wall_now()), &mut effects);
    core.handle(now, Event::RecoveryDone, &mut effects);
    let cluster = core.cluster();
    tracing::info!(
        records = count,
        epoch = cluster.epoch,
        applications = cluster.applications,
        live = cluster.applications_live,
        "the journal is read"
    );
    let backing = Backing {
        journal: opened.journal,
        store,
        tree,
        compact_bytes: COMPACT_BYTES,
    };
    Ok(Recovered {
        core,
        effects,
        backing,
    })
}

/// The last epoch on record, and when the cluster began; 0 and now the first time.
fn last_epoch(records: &[(u64, Record)]) -> (u32, u64) {
    let epochs = records.iter().filter_map(|(_, record)| match record {
        Record::Epoch {
            epoch,
            cluster_timestamp,
        } => Some((*epoch, *cluster_timestamp)),
        Record::SequenceReserved { .. }
        | Record::NodeKnown { .. }
        | Record::NodeForgotten { .. }
        | Record::ApplicationSubmitted(_)
        | Record::KillRequested { .. }
        | Record::AttemptStarted { .. }
        | Record::AttemptRegistered { .. }
        | Record::AttemptFailing { .. }
        | Record::AttemptFinishing { .. }
        | Record::AttemptFinished { .. }
        | Record::ApplicationFinished { .. }
        | Record::ApplicationUpdated { .. }
        | Record::ApplicationRemoved { .. } => None,
    });
    epochs.max().unwrap_or_else(|| (0, wall_now().0))
}

/// Opens the index and brings it up to the journal; one that is ahead of the journal is another
/// journal's, and is made anew.
fn index(folder: &Path, records: &[(u64, Record)]) -> anyhow::Result<Store> {
    let last = records.last().map_or(0, |(sequence, _)| *sequence);
    let mut opened = Store::open(folder)?;
    if opened.applied > last {
        tracing::warn!(
            applied = opened.applied,
            last,
            "the index is ahead of the journal: rebuilt"
        );
        opened.store.flush();
        drop(opened);
        let aside = folder.with_extension(format!("stale-{}", wall_now().0));
        std::fs::rename(folder, &aside)
            .with_context(|| format!("cannot move {} aside", folder.display()))?;
        opened = Store::open(folder)?;
    }
    for note in &opened.notes {
        tracing::warn!("index: {note}");
    }
    let mut piece = Vec::new();
    let mut piece_end = 0;
    for (sequence, record) in records.iter().filter(|(s, _)| is_new(opened.applied, *s)) {
        piece.push(record.clone());
        piece_end = *sequence;
        if piece.len() == INDEX_BATCH {
            opened.store.apply(piece_end, &piece);
            piece.clear();
        }
    }
    if !piece.is_empty() {
        opened.store.apply(piece_end, &piece);
    }
    Ok(opened.store)
}

/// Uploads whose application ended while nobody could remove them. One that was never submitted
/// keeps its uploads for a day: its submission may be on its way.
fn remove_leftovers(core: &ResourceManager, tree: &FileTree) {
    for (user, application) in tree.applications() {
        let useless = match core.application(application) {
            Some(report) => report.state.is_ended(),
            None => tree.is_older(&user, &application, UNSUBMITTED_KEPT),
        };
        if useless && let Err(e) = tree.remove(&user, &application) {
            tracing::warn!(%application, "its uploads cannot be removed: {e}");
        }
    }
}
