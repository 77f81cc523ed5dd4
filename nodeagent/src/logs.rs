//! Containers' logs: listed, read, followed. The same bytes while the container runs and after.
//!
//! A container can put anything into its log folder, and the reader is root: so only regular files
//! with one name are read, opened below the log folder without following any link.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, PoisonError};

use bobbin_proto::v1;
use bobbin_types::{ApplicationId, CHUNK_BYTES, ContainerId};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::Status;

use crate::folder::{Folder, is_plain_file};
use crate::folders::{Folders, found};
use crate::ready::when_readable;

/// Block in which the beginning of the last lines is looked for.
const TAIL_BLOCK_BYTES: usize = 1 << 20;
/// How far back it is looked for: a container can make a file of any length, without any content.
const TAIL_BYTES_MAX: u64 = 1 << 30;
/// Readers that look at a time: each keeps a processor busy.
const TAIL_READERS_MAX: usize = 2;
/// Log files of a container that are listed: it may make any number of them.
const FILES_MAX: usize = 1_000;
/// Longest name of a log file, bytes.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a failed container's stderr that go into its diagnostics.
/// Source: `yarn.nodemanager.container.stderr.tail.bytes`.
const DIAGNOSTICS_TAIL_BYTES: u64 = 4096;

/// How far a container is, as far as its logs are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Preparing,
    Running,
    /// Its files do not grow any more.
    Ended,
}

/// What the agent's own output files of a YARN container are called; see
/// [`bobbin_sandbox::OutputFiles`].
const PRELAUNCH_OUT: &str = "prelaunch.out";
const PRELAUNCH_ERR: &str = "prelaunch.err";

/// The stages of the containers that this agent process supervises.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    all: Mutex<HashMap<ContainerId, watch::Sender<Stage>>>,
}

impl Stages {
    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, watch::Sender<Stage>>> {
        // Every change is one statement, so a panic elsewhere leaves the map consistent.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, id: ContainerId, stage: Stage) {
        let mut all = self.all();
        all.entry(id)
            .or_insert_with(|| watch::Sender::new(stage))
            .send_replace(stage);
    }

    pub(crate) fn forget(&self, id: &ContainerId) {
        if let Some(sender) = self.all().remove(id) {
            sender.send_replace(Stage::Ended);
        }
    }

    fn subscribe(&self, id: &ContainerId) -> watch::Receiver<Stage> {
        // One that is not supervised has ended, or was never here.
        self.all().get(id).map_or_else(
            || watch::Sender::new(Stage::Ended).subscribe(),
            watch::Sender::subscribe,
        )
    }

    /// Containers that may still write logs.
    pub(crate) fn living(&self) -> Vec<ContainerId> {
        let all = self.all();
        all.iter()
            .filter(|(_, s)| *s.borrow() == Stage::Running)
            .map(|(id, _)| *id)
            .collect()
    }
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("'{0}' is not the name of a log file")]
    Name(String),
    #[error("{container} has no log '{file}' on node {node}")]
    NotFound {
        container: ContainerId,
        file: String,
        node: String,
    },
    #[error(
        "'{file}' of {container} is not a plain file: links, fifos, devices and files with two names are not read"
    )]
    NotPlain {
        container: ContainerId,
        file: String,
    },
    #[error("cannot read '{file}' of {container}: {source}")]
    Io {
        container: ContainerId,
        file: String,
        source: io::Error,
    },
}

impl LogError {
    pub(crate) fn status(&self) -> Status {
        let text = self.to_string();
        match self {
            LogError::Name(_) => Status::invalid_argument(text),
            LogError::NotFound { .. } => Status::not_found(text),
            LogError::NotPlain { .. } => Status::failed_precondition(text),
            LogError::Io { .. } => Status::internal(text),
        }
    }
}

/// What is to be read.
#[derive(Clone, Debug)]
pub(crate) struct ReadRequest {
    pub(crate) container: ContainerId,
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) follow: bool,
    pub(crate) since_ms: u64,
}

/// Where a client's chunks go.
pub(crate) type ChunkSender = mpsc::Sender<Result<v1::LogChunk, Status>>;

#[derive(Clone, Debug)]
pub(crate) struct Logs {
    folders: Arc<Folders>,
    pub(crate) stages: Arc<Stages>,
    node: String,
    tail_readers: Arc<Semaphore>,
}

struct Watch {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
}

impl Logs {
    pub(crate) fn new(folders: Arc<Folders>, stages: Arc<Stages>, node: String) -> Logs {
        Logs {
            folders,
            stages,
            node,
            tail_readers: Arc::new(Semaphore::new(TAIL_READERS_MAX)),
        }
    }

    fn folder(&self, id: &ContainerId) -> io::Result<Option<Folder>> {
        found(
            self.folders
                .log
                .folder(format!("{}/{id}", id.application())),
        )
    }

    /// Opens one log; `None` when it is not there (yet).
    fn open(&self, id: &ContainerId, name: &str) -> Result<Option<File>, LogError> {
        let error = |source: io::Error| match source.raw_os_error() {
            Some(libc::ELOOP | libc::ENXIO | libc::EXDEV | libc::ENOTDIR) => LogError::NotPlain {
                container: *id,
                file: name.to_owned(),
            },
            _ => LogError::Io {
                container: *id,
                file: name.to_owned(),
                source,
            },
        };
        let Some(folder) = self.folder(id).map_err(error)? else {
            return Ok(None);
        };
        let Some(file) = found(folder.read(name)).map_err(error)? else {
            return Ok(None);
        };
        if is_plain_file(&file).map_err(error)? {
            Ok(Some(file))
        } else {
            Err(LogError::NotPlain {
                container: *id,
                file: name.to_owned(),
            })
        }
    }

    /// The uid of the container's user, by its log folder, which is the user's in a folder of the
    /// agent's; `None` when there is none.
    pub(crate) fn owner(&self, id: &ContainerId) -> io::Result<Option<u32>> {
        let Some(folder) = found(self.folders.log.folder(id.application().to_string()))? else {
            return Ok(None);
        };
        let stat = folder.look(std::ffi::OsStr::new(&id.to_string()))?;
        Ok(stat.map(|stat| stat.st_uid))
    }

    /// One log file, open, with what the system says of it now. Blocks.
    ///
    /// # Errors
    /// It is not there, or no plain file.
    pub(crate) fn open_plain(
        &self,
        id: &ContainerId,
        name: &str,
    ) -> Result<(File, std::fs::Metadata), LogError> {
        check_name(name)?;
        let file = self.open(id, name)?.ok_or_else(|| LogError::NotFound {
            container: *id,
            file: name.to_owned(),
            node: self.node.clone(),
        })?;
        let metadata = file.metadata().map_err(|source| LogError::Io {
            container: *id,
            file: name.to_owned(),
            source,
        })?;
        Ok((file, metadata))
    }

    /// Sends the log's chunks until its end, or, following, until the container's. Returns early
    /// when the client is gone.
    pub(crate) async fn read(
        &self,
        request: ReadRequest,
        out: &ChunkSender,
    ) -> Result<(), LogError> {
        check_name(&request.file)?;
        let id = request.container;
        let mut stage = self.stages.subscribe(&id);
        let mut events = None;
        let mut reader: Option<Reader> = None;
        loop {
            // Before the file is read: what is written until the end is then seen.
            let ended = *stage.borrow_and_update() == Stage::Ended;
            if request.follow && events.is_none() {
                // Before the file is looked for, so that its creation is seen.
                events = self.watch(&id)?;
            }
            if reader.is_none() {
                reader = self.open(&id, &request.file)?.map(|file| Reader {
                    file: Arc::new(file),
                    offset: None,
                    tail_readers: self.tail_readers.clone(),
                });
            }
            match &mut reader {
                Some(reader) => {
                    let done =
                        reader
                            .send_all(&request, out)
                            .await
                            .map_err(|source| LogError::Io {
                                container: id,
                                file: request.file.clone(),
                                source,
                            })?;
                    let Some(offset) = done else { return Ok(()) };
                    if ended || !request.follow {
                        let last = v1::LogChunk {
                            data: Vec::new(),
                            offset,
                            end: ended,
                        };
                        // A client that is gone needs no last word.
                        let _ = out.send(Ok(last)).await;
                        return Ok(());
                    }
                }
                None if ended || !request.follow => {
                    let (file, node) = (request.file, self.node.clone());
                    return Err(LogError::NotFound {
                        container: id,
                        file,
                        node,
                    });
                }
                None => {}
            }
            let waited = wait(events.as_ref(), &mut stage, out).await;
            let goes_on = waited.map_err(|source| LogError::Io {
                container: id,
                file: request.file.clone(),
                source,
            })?;
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Watches the container's log folder; `None` while it is not there.
    fn watch(&self, id: &ContainerId) -> Result<Option<Watch>, LogError> {
        let watch = || -> io::Result<Option<Watch>> {
            let Some(folder) = self.folder(id)? else {
                return Ok(None);
            };
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            // Through the open folder, so that nobody can put another one under its name.
            let path = format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd());
            let flags =
                AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
            inotify.add_watch(path.as_str(), flags)?;
            let ready = when_readable(inotify.as_fd().try_clone_to_owned()?)?;
            Ok(Some(Watch { inotify, ready }))
        };
        watch().map_err(|source| LogError::Io {
            container: *id,
            file: "the log folder".to_owned(),
            source,
        })
    }

    /// The logs of one container, or of all containers of an application that are here.
    pub(crate) fn list(
        &self,
        application: &ApplicationId,
        container: Option<&ContainerId>,
    ) -> io::Result<Vec<v1::LogInfo>> {
        let Some(folder) = found(self.folders.log.folder(application.to_string()))? else {
            return Ok(Vec::new());
        };
        let mut logs = Vec::new();
        for name in folder.names()? {
            let Ok(id) = name.parse::<ContainerId>() else {
                continue;
            };
            if container.is_some_and(|wanted| *wanted != id) {
                continue;
            }
            let Some(files) = found(folder.folder(&name))? else {
                continue;
            };
            for file in files.names_up_to(FILES_MAX)? {
                if check_name(&file).is_err() {
                    continue;
                }
                let Ok(open) = files.read(&file) else {
                    continue;
                };
                if !is_plain_file(&open)? {
                    continue;
                }
                let metadata = open.metadata()?;
                logs.push(v1::LogInfo {
                    container_id: name.clone(),
                    file,
                    size: metadata.len(),
                    mtime_ms: mtime_ms(&metadata),
                });
            }
        }
        Ok(logs)
    }

    /// Whether its command makes its output files itself, as YARN's do.
    pub(crate) fn are_own(&self, id: &ContainerId) -> bool {
        let folder = self.folder(id).ok().flatten();
        folder.is_some_and(|folder| {
            let mark = std::ffi::OsStr::new(PRELAUNCH_OUT);
            folder.look(mark).is_ok_and(|found| found.is_some())
        })
    }

    /// The last lines of a container's stderr, for its diagnostics; of what its launch script said, if
    /// there is no other.
    pub(crate) fn stderr_tail(&self, id: &ContainerId) -> String {
        ["stderr", PRELAUNCH_ERR]
            .into_iter()
            .map(|name| self.tail(id, name))
            .find(|tail| !tail.is_empty())
            .unwrap_or_default()
    }

    fn tail(&self, id: &ContainerId, name: &str) -> String {
        let read = || -> Option<String> {
            let file = self.open(id, name).ok()??;
            let length = file.metadata().ok()?.len();
            let start = length.saturating_sub(DIAGNOSTICS_TAIL_BYTES);
            let mut bytes = vec![0; usize::try_from(length - start).ok()?];
            file.read_exact_at(&mut bytes, start).ok()?;
            if start > 0 {
                // The first line is cut; it goes unless it is all there is.
                let line = bytes
                    .iter()
                    .position(|b| *b == b'\n')
                    .map_or(0, |at| at + 1);
                bytes.drain(..line);
            }
            let text = String::from_utf8_lossy(&bytes);
            let text: String = text
                .chars()
                .filter(|c| !c.is_control() || *c == '\n' || *c == '\t')
                .collect();
            Some(text.trim_end().to_owned())
        };
        read().unwrap_or_default()
    }
}

/// Waits until there may be more to read; false when the client is gone.
async fn wait(
    events: Option<&Watch>,
    stage: &mut watch::Receiver<Stage>,
    out: &ChunkSender,
) -> io::Result<bool> {
    let changed = async {
        match events {
            Some(watch) => wait_for_events(watch).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = changed => result.map(|()| true),
        result = stage.changed() => {
            if result.is_err() {
                // Its sender is gone: the container was forgotten, so it has ended.
                *stage = watch::Sender::new(Stage::Ended).subscribe();
            }
            Ok(true)
        }
        () = out.closed() => Ok(false),
    }
}

async fn wait_for_events(watch: &Watch) -> io::Result<()> {
    let mut guard = watch.ready.readable().await?;
    // What they say does not matter: the file is looked at again.
    match watch.inotify.read_events() {
        Ok(_) => Ok(()),
        Err(nix::errno::Errno::EAGAIN) => {
            guard.clear_ready();
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

fn check_name(name: &str) -> Result<(), LogError> {
    let good = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c.is_control());
    if good {
        Ok(())
    } else {
        Err(LogError::Name(
            name.chars().filter(|c| !c.is_control()).take(80).collect(),
        ))
    }
}

pub(crate) fn mtime_ms(metadata: &std::fs::Metadata) -> u64 {
    let ms = metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000;
    u64::try_from(ms).unwrap_or(0)
}

struct Reader {
    file: Arc<File>,
    /// Set when it is known where to begin.
    offset: Option<u64>,
    tail_readers: Arc<Semaphore>,
}

impl Reader {
    /// Sends what is there now; the offset behind it, or `None` when the client is gone.
    async fn send_all(
        &mut self,
        request: &ReadRequest,
        out: &ChunkSender,
    ) -> io::Result<Option<u64>> {
        let mut offset = match self.offset {
            Some(offset) => offset,
            None => match self.begin(request, out).await? {
                Some(offset) => offset,
                None => return Ok(None),
            },
        };
        loop {
            let file = self.file.clone();
            let read = move || -> io::Result<Vec<u8>> {
                let mut data = vec![0; CHUNK_BYTES];
                let n = file.read_at(&mut data, offset)?;
                data.truncate(n);
                Ok(data)
            };
            let data = tokio::task::spawn_blocking(read)
                .await
                .map_err(io::Error::other)??;
            if data.is_empty() {
                self.offset = Some(offset);
                return Ok(Some(offset));
            }
            let bytes = u64::try_from(data.len()).unwrap_or(0);
            let chunk = v1::LogChunk {
                data,
                offset,
                end: false,
            };
            if out.send(Ok(chunk)).await.is_err() {
                return Ok(None);
            }
            offset += bytes;
        }
    }

    /// Where to begin, or `None` when the client is gone.
    async fn begin(&self, request: &ReadRequest, out: &ChunkSender) -> io::Result<Option<u64>> {
        let metadata = self.file.metadata()?;
        if request.since_ms > 0 && mtime_ms(&metadata) < request.since_ms {
            // Nothing was written since.
            return Ok(Some(metadata.len().max(request.offset)));
        }
        let Some(lines) = request.tail_lines else {
            return Ok(Some(request.offset));
        };
        let _turn = self
            .tail_readers
            .acquire()
            .await
            .map_err(io::Error::other)?;
        let start = self
            .tail_offset((metadata.len(), TAIL_BYTES_MAX), lines, out)
            .await?;
        Ok(start.map(|start| start.max(request.offset)))
    }

    /// Where the last `lines` lines begin, found by reading backwards, `bytes_max` at most. A
    /// last line without its end counts as one. `None` when the client is gone.
    async fn tail_offset(
        &self,
        (length, bytes_max): (u64, u64),
        lines: u64,
        out: &ChunkSender,
    ) -> io::Result<Option<u64>> {
        let most_back = length.saturating_sub(bytes_max);
        let mut search = TailSearch {
            length,
            end: length,
            wanted: lines,
            found: (lines == 0).then_some(length),
        };
        while search.found.is_none() && search.end > most_back {
            if out.is_closed() {
                return Ok(None);
            }
            let file = self.file.clone();
            let step = move || search.one_block(&file).map(|()| search);
            search = tokio::task::spawn_blocking(step)
                .await
                .map_err(io::Error::other)??;
        }
        Ok(Some(search.found.unwrap_or(search.end)))
    }
}

/// The search for the beginning of the last lines.
#[derive(Clone, Copy, Debug)]
struct TailSearch {
    length: u64,
    /// What is behind it has been looked at.
    end: u64,
    /// Line ends still to be found.
    wanted: u64,
    found: Option<u64>,
}

impl TailSearch {
    /// Looks at the block before `end`. Blocks.
    fn one_block(&mut self, file: &File) -> io::Result<()> {
        let size = self
            .end
            .min(u64::try_from(TAIL_BLOCK_BYTES).unwrap_or(u64::MAX));
        let start = self.end - size;
        let mut part = vec![0; usize::try_from(size).unwrap_or(TAIL_BLOCK_BYTES)];
        file.read_exact_at(&mut part, start)?;
        self.end = start;
        for (i, byte) in part.iter().enumerate().rev() {
            let at = start + u64::try_from(i).unwrap_or(0);
            // The end of the very last line begins no further one.
            if *byte == b'\n' && at + 1 != self.length {
                self.wanted -= 1;
                if self.wanted == 0 {
                    self.found = Some(at + 1);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
