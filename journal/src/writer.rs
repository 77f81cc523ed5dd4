//! The thread that owns the files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use nix::fcntl::Flock;
use tokio::sync::{oneshot, watch};

use crate::error::{Health, JournalError};
use crate::segment::{self, Current, HEADER_BYTES, Header, Kind};
use crate::{Options, Sizes, frame};

/// Batches are gathered into one frame up to so many bytes.
const FRAME_BYTES: usize = 4 << 20;
/// Pauses between tries while the disk fails.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(1);

/// Makes a file's data durable; tests put errors here.
pub(crate) type SyncFile = Box<dyn FnMut(&File) -> io::Result<()> + Send>;

type Done = oneshot::Sender<Result<u64, JournalError>>;

#[derive(Debug)]
pub(crate) enum Message {
    Append { records: Vec<Vec<u8>>, done: Done },
    Compact { snapshot: Vec<Vec<u8>>, done: Done },
    Close { done: Done },
}

pub(crate) struct Writer {
    pub(crate) folder: PathBuf,
    pub(crate) options: Options,
    pub(crate) current: Option<Current>,
    pub(crate) next_sequence: u64,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) sizes: Arc<Sizes>,
    pub(crate) sync: SyncFile,
    pub(crate) _lock: Flock<File>,
}

/// Appends that share one sync.
#[derive(Default)]
struct Batch {
    records: Vec<Vec<u8>>,
    bytes: usize,
    /// Each with the number of records up to and with its own.
    waiting: Vec<(Done, usize)>,
}

impl Batch {
    fn add(&mut self, records: Vec<Vec<u8>>, done: Done) {
        self.bytes += records.iter().map(|r| r.len() + 4).sum::<usize>();
        self.records.extend(records);
        self.waiting.push((done, self.records.len()));
    }
}

/// Messages that came while a try failed, to be handled first.
struct Inbox<'a> {
    messages: &'a Receiver<Message>,
    next: Option<Message>,
}

impl Inbox<'_> {
    fn recv(&mut self) -> Option<Message> {
        self.next.take().or_else(|| self.messages.recv().ok())
    }

    /// The next append, if it is there already and is one.
    fn more(&mut self) -> Option<(Vec<Vec<u8>>, Done)> {
        if self.next.is_none() {
            self.next = self.messages.try_recv().ok();
        }
        match self.next.take() {
            Some(Message::Append { records, done }) => Some((records, done)),
            other => {
                self.next = other;
                None
            }
        }
    }

    /// Waits before the next try; false when nobody is left to tell.
    fn pause(&mut self, pause: Duration) -> bool {
        if self.next.is_some() {
            std::thread::sleep(pause);
            return !matches!(self.next, Some(Message::Close { .. }));
        }
        match self.messages.recv_timeout(pause) {
            Ok(message) => {
                let closing = matches!(message, Message::Close { .. });
                self.next = Some(message);
                !closing
            }
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }
}

impl Writer {
    pub(crate) fn run(mut self, messages: &Receiver<Message>) {
        let mut inbox = Inbox {
            messages,
            next: None,
        };
        while let Some(message) = inbox.recv() {
            match message {
                Message::Append { records, done } => {
                    let mut batch = Batch::default();
                    batch.add(records, done);
                    while batch.bytes < FRAME_BYTES {
                        let Some((records, done)) = inbox.more() else {
                            break;
                        };
                        batch.add(records, done);
                    }
                    if !self.until_written(batch, &mut inbox) {
                        return;
                    }
                }
                Message::Compact { snapshot, done } => {
                    // Failing to compact loses nothing: the caller may try again later.
                    let result = self.compact(&snapshot);
                    let _ = done.send(result);
                }
                Message::Close { done } => {
                    let _ = done.send(self.mark_closed());
                    return;
                }
            }
        }
    }

    /// Tries until the batch is durable. False when the journal was closed meanwhile: the batch is
    /// then not acknowledged.
    fn until_written(&mut self, batch: Batch, inbox: &mut Inbox<'_>) -> bool {
        let mut pause = RETRY_FIRST;
        if !batch.records.is_empty() {
            while let Err(error) = self.write(&batch.records) {
                tracing::error!(
                    "journal: {}; nothing new is acknowledged until it can be written",
                    error.words()
                );
                self.health.send_replace(Health::Failing(error));
                if !inbox.pause(pause) {
                    return false;
                }
                pause = (pause * 2).min(RETRY_LAST);
            }
            if self.health.borrow().problem().is_some() {
                tracing::warn!("journal: written again");
                self.health.send_replace(Health::Well);
            }
        }
        let first = self.next_sequence;
        let count = |records: usize| u64::try_from(records).expect("counts fit 64 bits");
        self.next_sequence += count(batch.records.len());
        for (done, records) in batch.waiting {
            // A caller that went away does not make its records undone.
            let _ = done.send(Ok(first + count(records) - 1));
        }
        true
    }

    fn write(&mut self, records: &[Vec<u8>]) -> Result<(), JournalError> {
        let Some(bytes) = frame::encode(self.next_sequence, records) else {
            return Err(JournalError::RecordTooLarge { bytes: usize::MAX });
        };
        let length = u64::try_from(bytes.len()).expect("frame sizes fit 64 bits");
        let mut current = match self.current.take() {
            Some(current) if current.offset + length <= current.capacity => current,
            full => self.rotate(full, length)?,
        };
        let written = current
            .file
            .write_all_at(&bytes, current.offset)
            .and_then(|()| (self.sync)(&current.file));
        match written {
            Ok(()) => {
                current.offset += length;
                self.sizes
                    .since_snapshot
                    .fetch_add(length, Ordering::Relaxed);
                self.current = Some(current);
                Ok(())
            }
            Err(source) => {
                let error = JournalError::io("write", &current.path, source);
                // After a failed sync nobody knows what is on the disk behind the last good frame,
                // so that is never written again: it is cut, and the next try has a new segment.
                current.capacity = current.offset;
                self.current = Some(current);
                Err(error)
            }
        }
    }

    /// Cuts the full segment to what is durable, and makes the next one.
    fn rotate(&mut self, full: Option<Current>, length: u64) -> Result<Current, JournalError> {
        if let Some(full) = full {
            let cut = full
                .file
                .set_len(full.offset)
                .and_then(|()| full.file.sync_all());
            let path = full.path.clone();
            // Kept until the new one is there; the next try comes this way again.
            let empty = full.is_empty();
            self.current = Some(Current {
                capacity: full.offset,
                ..full
            });
            cut.map_err(|e| JournalError::io("cut", &path, e))?;
            if empty {
                // Same first sequence, same name: creating the new one replaces it.
                tracing::debug!("journal: {} is replaced", path.display());
            }
        }
        let header = Header {
            kind: Kind::Log,
            first_sequence: self.next_sequence,
        };
        let overhead = u64::try_from(HEADER_BYTES).expect("a header's size fits 64 bits");
        let capacity = self.options.segment_bytes.max(length + overhead);
        segment::create(&self.folder, header, &[], capacity)
    }

    fn compact(&mut self, snapshot: &[Vec<u8>]) -> Result<u64, JournalError> {
        let mut content = Vec::new();
        let mut sequence = self.next_sequence;
        let mut rest = snapshot;
        while !rest.is_empty() {
            let mut bytes = 0;
            let take = rest
                .iter()
                .take_while(|record| {
                    let fits = bytes < FRAME_BYTES;
                    bytes += record.len() + 4;
                    fits
                })
                .count();
            let (now, later) = rest.split_at(take);
            content.extend(
                frame::encode(sequence, now)
                    .ok_or(JournalError::RecordTooLarge { bytes: usize::MAX })?,
            );
            sequence += u64::try_from(now.len()).expect("counts fit 64 bits");
            rest = later;
        }
        if self.current.as_ref().is_some_and(Current::is_empty) {
            // It has the name that the snapshot takes; the next append makes another.
            self.current = None;
        }
        let old = segments_before(&self.folder, self.next_sequence)?;
        let replaced = segment::path_of(&self.folder, self.next_sequence);
        let header = Header {
            kind: Kind::Snapshot,
            first_sequence: self.next_sequence,
        };
        if snapshot.is_empty() {
            // A snapshot takes at least one sequence, so that the segment after it has another name.
            content.extend(frame::encode(sequence, &[Vec::new()]).expect("an empty record fits"));
            sequence += 1;
        }
        let made = segment::create(&self.folder, header, &content, 0)?;
        debug_assert_eq!(made.path, replaced);
        self.current = None;
        self.next_sequence = sequence;
        self.sizes.since_snapshot.store(0, Ordering::Relaxed);
        self.sizes.snapshot.store(made.offset, Ordering::Relaxed);
        // From here on opening ignores the old ones, so a failed removal loses nothing.
        if let Err(error) = remove_segments(&self.folder, &old) {
            tracing::warn!("journal: {}", error.words());
        }
        Ok(sequence - 1)
    }

    fn mark_closed(&mut self) -> Result<u64, JournalError> {
        if self.current.is_some() {
            self.write(&[])?;
        }
        Ok(self.next_sequence - 1)
    }
}

fn segments_before(folder: &Path, sequence: u64) -> Result<Vec<PathBuf>, JournalError> {
    let list = |e| JournalError::io("list", folder, e);
    let limit = segment::path_of(folder, sequence);
    let mut old = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(list)? {
        let path = entry.map_err(list)?.path();
        let is_segment = path
            .file_name()
            .and_then(|n| n.to_str())
            .is_some_and(|n| n.starts_with("segment-"));
        if is_segment && path < limit {
            old.push(path);
        }
    }
    Ok(old)
}

/// Removes segments that are no longer needed, and makes that durable.
pub(crate) fn remove_segments(folder: &Path, segments: &[PathBuf]) -> Result<(), JournalError> {
    if segments.is_empty() {
        return Ok(());
    }
    for path in segments {
        std::fs::remove_file(path).map_err(|e| JournalError::io("remove", path, e))?;
    }
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(|e| JournalError::io("sync", folder, e))
}
