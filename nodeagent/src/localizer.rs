//! Local resources: fetched once, shared as far as their visibility allows, bound read-only.
//!
//! A request that is on its way is shared by all who ask for the same; it is given up when the last of
//! them is gone. A copy is made in a folder that only the agent can enter and gets its place by a
//! rename when it is whole.

mod key;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bobbin_proto::v1;
use bobbin_service::{Account, RpcChannel, wall_now};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::account::{Rights, owner, with_rights};
use crate::archive::{ArchiveError, ArchiveLimits, unpack};
use crate::cache::{Bounds, Cache, CacheKey, Entry, Scope};
use crate::fetch::{Expected, FetchError, Source, copy_file, fetch_staged};
use crate::folder::{Folder, give};
use crate::folders::{Folders, found};
use crate::remote::place::shown_source;
use crate::remote::transfer::{Counter, transfer};
use crate::remote::{Remote, RemoteFile, Said};
use crate::webhdfs::{Proof, Trees};
use key::{archive_kind, cache_key, remote_key, source_name};

const CONTENT: &str = "content";
const KEY_FILE: &str = "key.json";
/// Files on their way that are told of; the rest are on their way all the same.
const FETCHING_MAX: usize = 1_000;
/// Between two looks for copies that were not used for too long.
const TIDY_PAUSE: Duration = Duration::from_secs(600);

/// Why a resource is not there for the container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalizeError {
    #[error("cannot localize '{name}' from {resource}")]
    Fetch {
        name: String,
        resource: String,
        source: FetchError,
    },
    #[error("cannot localize '{name}' from {resource}")]
    Archive {
        name: String,
        resource: String,
        source: ArchiveError,
    },
    #[error("cannot localize '{name}' from {resource}: {action}")]
    Io {
        name: String,
        resource: String,
        action: &'static str,
        source: io::Error,
    },
    #[error("the localization was given up")]
    GivenUp,
}

impl LocalizeError {
    /// What the source is was found out, and then it was something else.
    fn is_changed(&self) -> bool {
        matches!(
            self,
            LocalizeError::Fetch {
                source: FetchError::Changed,
                ..
            }
        )
    }
}

/// Who asks, for which application, with which proof.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) account: Arc<Account>,
    pub(crate) application: String,
    pub(crate) container: String,
    pub(crate) container_token: Arc<str>,
    /// The application's Credentials stream; empty for none.
    pub(crate) credentials: Bytes,
    /// The application's credentials for object stores and web servers; empty for none.
    pub(crate) stores: Bytes,
}

/// A container's file that is on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetching {
    pub(crate) container: String,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// 0: not known.
    pub(crate) bytes_total: u64,
}

/// A localized copy that stays while this lives.
#[derive(Debug)]
pub(crate) struct Hold {
    localizer: Arc<Localizer>,
    key: CacheKey,
    pub(crate) entry: Entry,
}

impl Hold {
    /// The copy's absolute path.
    pub(crate) fn path(&self) -> PathBuf {
        self.localizer
            .folders
            .local_path
            .join(&self.entry.folder)
            .join(CONTENT)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let now = wall_now().0;
        self.localizer.state().cache.release(&self.key, now);
        if !matches!(self.key.scope, Scope::Application { .. }) {
            // For a later agent, that removes what was not used for long. Without it, it is older.
            let file = self.entry.folder.join(KEY_FILE);
            let file = self.localizer.folders.local.read(file);
            drop(file.and_then(|file| file.set_modified(std::time::SystemTime::now())));
        }
    }
}

/// Limits from the settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalizerLimits {
    pub(crate) cache_bytes: u64,
    /// 0: however old.
    pub(crate) cache_age_ms: u64,
    pub(crate) file_bytes_max: u64,
    pub(crate) archive: ArchiveLimits,
}

type Flight = Shared<BoxFuture<'static, Result<(), Arc<LocalizeError>>>>;

#[derive(Debug, Default)]
struct State {
    cache: Cache,
    flights: HashMap<CacheKey, InFlight>,
    /// By container and name: how far the files are that it waits for.
    waiting: BTreeMap<(String, String), Arc<Counter>>,
    /// The number of the next copy's folder; unique over all scopes.
    next: u64,
}

#[derive(Debug)]
struct InFlight {
    flight: Flight,
    counter: Arc<Counter>,
    waiters: u64,
    abort: tokio::task::AbortHandle,
}

#[derive(Debug)]
pub(crate) struct Localizer {
    folders: Arc<Folders>,
    limits: LocalizerLimits,
    /// To the resource manager, without a token of its own.
    staging: RpcChannel,
    /// Where webhdfs: sources may be.
    pub(crate) trees: Trees,
    /// Where all other sources are.
    remote: Remote,
    /// Copies made before the host was restarted are not trusted: they were never synced.
    boot_id: String,
    state: Mutex<State>,
}

/// What is written beside a copy.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    boot_id: String,
    key: CacheKey,
    bytes: u64,
}

impl Localizer {
    /// Takes over the copies that an earlier agent made; removes halves. Blocks.
    pub(crate) fn open(
        folders: Arc<Folders>,
        limits: LocalizerLimits,
        staging: RpcChannel,
        trees: Trees,
        remote: Remote,
    ) -> io::Result<Arc<Localizer>> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let localizer = Localizer {
            folders,
            limits,
            staging,
            trees,
            remote,
            boot_id,
            state: Mutex::new(State::default()),
        };
        let mut places = vec![PathBuf::from("filecache")];
        for user in localizer.folders.local.folder("usercache")?.names()? {
            places.push(format!("usercache/{user}/filecache").into());
            let appcache = format!("usercache/{user}/appcache");
            if let Some(folder) = found(localizer.folders.local.folder(&appcache))? {
                let names = folder.names()?;
                places.extend(
                    names
                        .iter()
                        .map(|n| format!("{appcache}/{n}/filecache").into()),
                );
            }
        }
        for place in places {
            localizer.take_over(&place)?;
        }
        Ok(Arc::new(localizer))
    }

    fn take_over(&self, place: &Path) -> io::Result<()> {
        let Some(folder) = found(self.folders.local.folder(place))? else {
            return Ok(());
        };
        for name in folder.names()? {
            let number = name.parse::<u64>().ok();
            let stored = number.and_then(|_| self.read_stored(&folder, &name));
            match stored {
                Some((stored, used_ms)) if stored.key.scope.folder() == place => {
                    let is_folder = stored.key.archive;
                    let entry = Entry {
                        folder: place.join(&name),
                        is_folder,
                        bytes: stored.bytes,
                    };
                    self.state().cache.insert(stored.key, entry, used_ms);
                }
                Some(_) | None => {
                    if let Some(trashed) = self.folders.discard(&folder, &name)? {
                        self.folders.empty(&trashed)?;
                    }
                }
            }
            let mut state = self.state();
            state.next = state.next.max(number.map_or(0, |n| n.saturating_add(1)));
        }
        Ok(())
    }

    /// With the time of its last use.
    fn read_stored(&self, folder: &Folder, name: &str) -> Option<(Stored, u64)> {
        let file = folder.read(Path::new(name).join(KEY_FILE)).ok()?;
        let used = file
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()?;
        let used = used.duration_since(std::time::UNIX_EPOCH).ok()?;
        let used_ms = u64::try_from(used.as_millis()).ok()?;
        let stored: Stored = serde_json::from_reader(io::BufReader::new(file)).ok()?;
        (stored.boot_id == self.boot_id).then_some((stored, used_ms))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one statement, so a panic elsewhere leaves the state consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds again what an adopted container uses, by the folders it wrote down.
    pub(crate) fn hold_again(self: &Arc<Self>, folders: &[PathBuf]) -> Vec<Hold> {
        let mut holds = Vec::new();
        for folder in folders {
            let held = self.state().cache.hold_folder(folder, wall_now().0);
            if let Some((key, entry)) = held {
                holds.push(Hold {
                    localizer: self.clone(),
                    key,
                    entry,
                });
            }
        }
        holds
    }

    /// How many copies there are, and their bytes.
    pub(crate) fn cached(&self) -> (usize, u64) {
        self.state().cache.totals()
    }

    pub(crate) fn forget_application(&self, application: &str) {
        self.state().cache.forget_application(application);
    }

    /// The copy of one resource, made now unless it is there.
    ///
    /// # Errors
    /// Why it cannot be had, naming the resource. May be dropped at any time.
    pub(crate) async fn localize(
        self: &Arc<Self>,
        resource: &v1::LocalResource,
        asker: &Asker,
    ) -> Result<Hold, Arc<LocalizeError>> {
        let mut wanted = self.wanted(resource, asker).await.map_err(Arc::new)?;
        let mut tries = 0;
        loop {
            let held = self.state().cache.hold(&wanted.key, wall_now().0);
            if let Some(entry) = held {
                let hold = Hold {
                    localizer: self.clone(),
                    key: wanted.key,
                    entry,
                };
                if tries > 0 {
                    // Now that the new copy is held, it is not the one that goes.
                    self.clone().tidy().await;
                }
                return Ok(hold);
            }
            let (waiter, joined) = self.join(&wanted, resource, asker);
            let flight = waiter.flight.clone();
            let outcome = flight.await;
            drop(waiter);
            tries += 1;
            match outcome {
                Ok(()) if tries < 3 => {}
                Ok(()) => return Err(Arc::new(LocalizeError::GivenUp)),
                Err(e) if e.is_changed() && tries < 3 => {
                    wanted = self.wanted(resource, asker).await.map_err(Arc::new)?;
                }
                // Another one's request, maybe with a token that died: once more with our own.
                Err(_) if joined && tries < 3 => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Finds out which copy would do; of a source without digest its server is asked.
    async fn wanted(
        &self,
        resource: &v1::LocalResource,
        asker: &Asker,
    ) -> Result<Wanted, LocalizeError> {
        let at = |source| fetch_error(resource, source);
        let source = Source::parse(&resource.source).map_err(at)?;
        let Source::Remote(place) = &source else {
            let key = cache_key(resource, asker);
            return Ok(Wanted {
                key,
                source,
                remote: None,
            });
        };
        let user = &asker.account.name;
        let finding = self.remote.file(place, user, &asker.stores);
        let file = finding.await.map_err(at)?;
        if resource.visibility() == v1::Visibility::Public && !file.for_everybody {
            return Err(at(FetchError::NotPublicByKey));
        }
        let said = if resource.sha256.is_empty() {
            let _seat = self.remote.seat(user).await;
            let looking = file.origin.look(self.remote.patience);
            Some(looking.await.map_err(at)?)
        } else {
            None
        };
        let key = remote_key(resource, asker, &file, said.as_ref());
        Ok(Wanted {
            key,
            source,
            remote: Some((file, said)),
        })
    }

    /// What containers wait for now, in the order of their ids.
    pub(crate) fn fetching(&self) -> Vec<Fetching> {
        let state = self.state();
        let some = state.waiting.iter().take(FETCHING_MAX);
        let all = some.map(|((container, name), counter)| {
            let (bytes, bytes_total) = counter.get();
            Fetching {
                container: container.clone(),
                name: name.clone(),
                bytes,
                bytes_total,
            }
        });
        all.collect()
    }

    fn join(
        self: &Arc<Self>,
        wanted: &Wanted,
        resource: &v1::LocalResource,
        asker: &Asker,
    ) -> (Waiter, bool) {
        let mut state = self.state();
        let key = &wanted.key;
        let joined = state.flights.contains_key(key);
        if !joined {
            let number = state.next;
            state.next += 1;
            let counter = Arc::new(Counter::default());
            counter.set_total(resource.size);
            let work = Work {
                localizer: self.clone(),
                wanted: wanted.clone(),
                resource: resource.clone(),
                asker: asker.clone(),
                counter: counter.clone(),
                number,
            };
            let task = tokio::spawn(work.run());
            let abort = task.abort_handle();
            let flight: BoxFuture<'static, _> = Box::pin(async move {
                task.await
                    .unwrap_or_else(|_| Err(Arc::new(LocalizeError::GivenUp)))
            });
            let flight = InFlight {
                flight: flight.shared(),
                counter,
                waiters: 0,
                abort,
            };
            state.flights.insert(key.clone(), flight);
        }
        let in_flight = state
            .flights
            .get_mut(key)
            .expect("it was there or was just inserted");
        in_flight.waiters += 1;
        let flight = in_flight.flight.clone();
        let counter = in_flight.counter.clone();
        let waits = (asker.container.clone(), resource.name.clone());
        state.waiting.insert(waits.clone(), counter);
        (
            Waiter {
                localizer: self.clone(),
                key: key.clone(),
                flight,
                waits,
            },
            joined,
        )
    }

    /// Removes copies until the cache is as its bounds want it.
    pub(crate) async fn tidy(self: Arc<Self>) {
        // A task that panics has said so; the next one tidies up.
        drop(tokio::task::spawn_blocking(move || self.remove_evicted()).await);
    }

    fn remove_evicted(&self) {
        let bounds = Bounds {
            bytes_max: self.limits.cache_bytes,
            age_max_ms: self.limits.cache_age_ms,
        };
        let evicted = self.state().cache.evict(bounds, wall_now().0);
        for entry in evicted {
            let (Some(parent), Some(name)) = (
                entry.folder.parent(),
                entry.folder.file_name().and_then(|n| n.to_str()),
            ) else {
                continue;
            };
            let removed = self.folders.local.folder(parent).and_then(|parent| {
                match self.folders.discard(&parent, name)? {
                    Some(trashed) => self.folders.empty(&trashed),
                    None => Ok(()),
                }
            });
            if let Err(e) = removed {
                tracing::warn!(
                    "cannot remove {} from the cache: {e}",
                    entry.folder.display()
                );
            }
        }
    }
}

/// Removes what was not used for long, until `stop`.
pub(crate) async fn keep_tidy(localizer: Arc<Localizer>, stop: CancellationToken) {
    loop {
        localizer.clone().tidy().await;
        tokio::select! {
            () = tokio::time::sleep(TIDY_PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One of those who wait for a copy; the last one that leaves ends the work.
struct Waiter {
    localizer: Arc<Localizer>,
    key: CacheKey,
    flight: Flight,
    waits: (String, String),
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.localizer.state();
        state.waiting.remove(&self.waits);
        if let Some(in_flight) = state.flights.get_mut(&self.key) {
            // A later flight of the same key is somebody else's.
            if !in_flight.flight.ptr_eq(&self.flight) {
                return;
            }
            in_flight.waiters -= 1;
            if in_flight.waiters == 0 {
                in_flight.abort.abort();
                state.flights.remove(&self.key);
            }
        }
    }
}

/// Which copy a request is for, and where it is made from.
#[derive(Clone, Debug)]
struct Wanted {
    key: CacheKey,
    source: Source,
    /// Of sources outside the cluster, with what their servers have said of them.
    remote: Option<(RemoteFile, Option<Said>)>,
}

fn fetch_error(resource: &v1::LocalResource, source: FetchError) -> LocalizeError {
    LocalizeError::Fetch {
        name: resource.name.clone(),
        resource: shown_source(&resource.source),
        source,
    }
}

/// Makes one copy.
struct Work {
    localizer: Arc<Localizer>,
    wanted: Wanted,
    resource: v1::LocalResource,
    asker: Asker,
    counter: Arc<Counter>,
    number: u64,
}

/// A copy that is not whole: removed unless it gets its place.
struct Part {
    folders: Arc<Folders>,
    scope: Folder,
    name: String,
    folder: Folder,
    placed: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        // Moving it is quick; what it holds goes at once too, since the localizer's tasks may block.
        let removed = self.folders.discard(&self.scope, &self.name);
        if let Ok(Some(trashed)) = removed {
            let _ = self.folders.empty(&trashed);
        }
    }
}

impl Work {
    async fn run(self) -> Result<(), Arc<LocalizeError>> {
        let localizer = self.localizer.clone();
        let key = self.wanted.key.clone();
        let entry = self.copy().await.map_err(Arc::new)?;
        localizer.state().cache.insert(key, entry, wall_now().0);
        Ok(())
    }

    fn io(&self, action: &'static str) -> impl FnOnce(io::Error) -> LocalizeError + use<> {
        let (name, resource) = (
            self.resource.name.clone(),
            shown_source(&self.resource.source),
        );
        move |source| LocalizeError::Io {
            name,
            resource,
            action,
            source,
        }
    }

    fn fetch_error(&self, source: FetchError) -> LocalizeError {
        fetch_error(&self.resource, source)
    }

    async fn copy(self) -> Result<Entry, LocalizeError> {
        let part = self.part().map_err(self.io("cannot make a folder"))?;
        let mut file = part
            .folder
            .create(std::ffi::OsStr::new("download"), 0o600)
            .map_err(self.io("cannot make a file"))?;
        let expected = Expected {
            size: self.resource.size,
            mtime_ms: self.resource.mtime_ms,
            sha256: self.resource.sha256.clone(),
            bytes_max: self.localizer.limits.file_bytes_max,
            shown: shown_source(&self.resource.source),
        };
        self.fetch(&expected, &mut file)
            .await
            .map_err(|e| self.fetch_error(e))?;
        let work = move || self.finish(part, file, &expected);
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or(Err(LocalizeError::GivenUp))
    }

    /// Gets the bytes, except of a file of this node.
    async fn fetch(&self, expected: &Expected, file: &mut File) -> Result<(), FetchError> {
        let counted = (expected, &self.counter);
        let token = &self.asker.container_token;
        match &self.wanted.source {
            Source::Staged(path) => {
                let channel = self.localizer.staging.clone();
                fetch_staged(channel, path, token, counted, file).await?;
            }
            Source::WebHdfs(place) => {
                let proof = Proof {
                    user: self.asker.account.name.clone(),
                    container_token: token.clone(),
                    credentials: self.asker.credentials.clone(),
                };
                let public = self.wanted.key.scope == Scope::Public;
                let place = (self.resource.source.as_str(), place);
                let trees = &self.localizer.trees;
                let counted = (expected, self.counter.as_ref());
                trees.fetch(place, &proof, public, counted, file).await?;
            }
            Source::Remote(_) => {
                let Some((remote, said)) = &self.wanted.remote else {
                    return Err(FetchError::Source);
                };
                let fetcher = &self.localizer.remote;
                let _seat = fetcher.seat(&self.asker.account.name).await;
                let patience = fetcher.patience;
                transfer(&remote.origin, said.clone(), counted, file, patience).await?;
            }
            // With the user's rights, which are a thread's own.
            Source::File(_) => {}
        }
        Ok(())
    }

    fn part(&self) -> io::Result<Part> {
        let folders = &self.localizer.folders;
        let account = &self.asker.account;
        let passable = owner(account).map(|(_, gid)| (0, gid));
        let scope = match &self.wanted.key.scope {
            Scope::Public => folders.local.folder("filecache")?,
            Scope::Private { .. } => folders.user(account)?.make("filecache", 0o710, passable)?,
            Scope::Application { application, .. } => {
                let application = application.parse().map_err(io::Error::other)?;
                folders
                    .application(account, &application)?
                    .make("filecache", 0o710, passable)?
            }
        };
        let name = format!("{}.part", self.number);
        let folder = scope.make(&name, 0o700, None)?;
        Ok(Part {
            folders: folders.clone(),
            scope,
            name,
            folder,
            placed: false,
        })
    }

    /// Copies (a file of this node), unpacks, and gives the copy its place. Blocks.
    fn finish(
        self,
        mut part: Part,
        mut file: File,
        expected: &Expected,
    ) -> Result<Entry, LocalizeError> {
        let key = &self.wanted.key;
        let public = key.scope == Scope::Public;
        let rights = Rights::of(&self.asker.account);
        if let Source::File(path) = &self.wanted.source {
            copy_file(path, &rights, public, expected, &mut file)
                .map_err(|e| self.fetch_error(e))?;
        }
        let bytes = if key.archive {
            drop(file);
            self.unpack(&part, if public { Rights::nobody() } else { rights })?
        } else {
            let mode = match (public, key.executable) {
                (true, false) => 0o444,
                (true, true) => 0o555,
                (false, false) => 0o400,
                (false, true) => 0o500,
            };
            let owner = if public {
                None
            } else {
                owner(&self.asker.account)
            };
            give(&file, mode, owner).map_err(self.io("cannot give it to the user"))?;
            let bytes = file.metadata().map_err(self.io("cannot look at it"))?.len();
            part.folder
                .rename("download", &part.folder, CONTENT)
                .map_err(self.io("cannot place it"))?;
            bytes
        };
        let stored = Stored {
            boot_id: self.localizer.boot_id.clone(),
            key: key.clone(),
            bytes,
        };
        let json = serde_json::to_vec(&stored).expect("keys are strings and numbers");
        let name = self.number.to_string();
        let place = || -> io::Result<()> {
            part.folder.write(KEY_FILE, &json, 0o600, None)?;
            if public {
                part.folder.set_mode(0o755)?;
            } else {
                part.folder
                    .set_owner(owner(&self.asker.account).map(|(_, gid)| (0, gid)))?;
                part.folder.set_mode(0o710)?;
            }
            part.scope.rename(&part.name, &part.scope, &name)
        };
        place().map_err(self.io("cannot place it"))?;
        part.placed = true;
        let folder = key.scope.folder().join(&name);
        Ok(Entry {
            folder,
            is_folder: key.archive,
            bytes,
        })
    }

    fn unpack(&self, part: &Part, rights: Rights) -> Result<u64, LocalizeError> {
        let archive_error = |source| LocalizeError::Archive {
            name: self.resource.name.clone(),
            resource: shown_source(&self.resource.source),
            source,
        };
        let named = &source_name(&self.resource);
        let kind = archive_kind(&self.resource).map_err(archive_error)?;
        let unpacking = || -> io::Result<Result<u64, ArchiveError>> {
            let archive = part.folder.read("download")?;
            let owner = (bobbin_service::own_uid() == 0).then_some((rights.uid, rights.gid));
            let root = part.folder.make(CONTENT, 0o755, owner)?;
            let limits = self.localizer.limits.archive;
            let unpacked =
                with_rights(&rights, || Ok(unpack(archive, kind, named, &root, limits)))?;
            part.folder.unlink(std::ffi::OsStr::new("download"))?;
            Ok(unpacked)
        };
        unpacking()
            .map_err(self.io("cannot unpack it"))?
            .map_err(archive_error)
    }
}

#[cfg(test)]
mod tests;
