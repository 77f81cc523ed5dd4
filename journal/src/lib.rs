//! An append-only, checksummed log with group commit: what was answered is in it before the answer.
//!
//! One thread named "journal" owns the files. It gathers every batch that came while the last one
//! was being synced into one frame, writes it into a preallocated segment, syncs once, and only then
//! completes the batches. When it cannot write (full disk, I/O error) it keeps the batch, says so
//! through [`Journal::health`], and tries again: the order of records is the order of appends, always,
//! and nothing is completed that is not durable.
//!
//! On disk: `segment-<first sequence>.log` files, each a header and frames; a frame is a length, a
//! CRC-32, the sequence of its first record and its records. A frame that was not synced may be torn;
//! it is cut when the journal is opened, and that is said. Damage before the last frame is refused
//! with file and offset: records are never skipped silently.
//!
//! Deliberately absent: any knowledge of what the records mean.

mod error;
mod frame;
mod open;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll};

use tokio::sync::{oneshot, watch};

pub use error::{Health, JournalError};
use writer::Message;

/// Largest single record, bytes.
pub const RECORD_BYTES_MAX: usize = 16 << 20;

/// How a journal is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size to which a segment is preallocated, bytes. A larger batch gets a segment of its own.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        // Zeros are written ahead, so a sync never has to journal the file's own metadata; larger
        // segments would make the pause of a rotation visible.
        Options {
            segment_bytes: 8 << 20,
        }
    }
}

/// A journal that was opened, and what was seen.
#[derive(Debug)]
pub struct Opened {
    pub journal: Journal,
    /// Records that were replayed.
    pub records: u64,
    /// A torn tail that was cut, in words for the log.
    pub notes: Vec<String>,
}

/// The handle of an open journal. Clones share it; the files are closed when the last is gone.
#[derive(Clone, Debug)]
pub struct Journal {
    sender: mpsc::Sender<Message>,
    health: watch::Receiver<Health>,
    sizes: Arc<Sizes>,
}

/// Bytes on disk, for the decision when to compact.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    pub(crate) since_snapshot: AtomicU64,
    pub(crate) snapshot: AtomicU64,
}

/// Resolves when its batch is durable, with the sequence of the batch's last record.
///
/// It does not resolve while the journal cannot be written, see [`Journal::health`].
#[derive(Debug)]
pub struct Completion {
    receiver: oneshot::Receiver<Result<u64, JournalError>>,
}

impl Future for Completion {
    type Output = Result<u64, JournalError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver)
            .poll(cx)
            .map(|done| done.unwrap_or(Err(JournalError::Closed)))
    }
}

impl Completion {
    /// Waits on this thread; for callers outside a runtime.
    ///
    /// # Errors
    /// As the future's.
    pub fn wait(self) -> Result<u64, JournalError> {
        self.receiver
            .blocking_recv()
            .unwrap_or(Err(JournalError::Closed))
    }
}

impl Journal {
    /// Opens (or creates, 0700) the journal in `folder` and replays it: `record` gets each record
    /// in order with its sequence, from 1. Blocking.
    ///
    /// # Errors
    /// The folder is in use, cannot be read or written, or a file is damaged.
    pub fn open(
        folder: &Path,
        options: Options,
        record: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<Opened, JournalError> {
        Journal::open_with(folder, options, record, Box::new(std::fs::File::sync_data))
    }

    fn open_with(
        folder: &Path,
        options: Options,
        record: &mut dyn FnMut(u64, &[u8]),
        sync: writer::SyncFile,
    ) -> Result<Opened, JournalError> {
        let replayed = open::open(folder, options, record)?;
        let (sender, messages) = mpsc::channel();
        let (health_sender, health) = watch::channel(Health::Well);
        let sizes = Arc::new(Sizes::default());
        sizes
            .since_snapshot
            .store(replayed.bytes_since_snapshot, Ordering::Relaxed);
        sizes
            .snapshot
            .store(replayed.snapshot_bytes, Ordering::Relaxed);
        let writer = writer::Writer {
            folder: folder.to_owned(),
            options,
            current: replayed.current,
            next_sequence: replayed.next_sequence,
            health: health_sender,
            sizes: sizes.clone(),
            sync,
            _lock: replayed.lock,
        };
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(&messages))
            .map_err(|source| JournalError::io("start a thread for", folder, source))?;
        Ok(Opened {
            journal: Journal {
                sender,
                health,
                sizes,
            },
            records: replayed.records,
            notes: replayed.notes,
        })
    }

    /// Hands the batch to the writer and returns at once. Batches become durable in the order of
    /// these calls; one batch is all or nothing. An empty batch completes after those before it.
    #[must_use]
    pub fn append(&self, records: Vec<Vec<u8>>) -> Completion {
        let (done, receiver) = oneshot::channel();
        if let Some(large) = records.iter().find(|r| r.len() > RECORD_BYTES_MAX) {
            let refused = JournalError::RecordTooLarge { bytes: large.len() };
            // The receiver is in this function, so the send succeeds.
            let _ = done.send(Err(refused));
            return Completion { receiver };
        }
        // When the writer is gone the sender is dropped with the message: "closed".
        let _ = self.sender.send(Message::Append { records, done });
        Completion { receiver }
    }

    /// Replaces everything appended so far by `snapshot`: it is written to a new segment, and only
    /// when that is durable are the older ones dropped. Batches appended later come after it.
    #[must_use]
    pub fn compact(&self, snapshot: Vec<Vec<u8>>) -> Completion {
        let (done, receiver) = oneshot::channel();
        let _ = self.sender.send(Message::Compact { snapshot, done });
        Completion { receiver }
    }

    /// Whether the journal can be written now; changes are seen at once.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Bytes appended since the last snapshot, and of that snapshot.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.sizes.since_snapshot.load(Ordering::Relaxed),
            self.sizes.snapshot.load(Ordering::Relaxed),
        )
    }

    /// Ends the writer after what was appended; the mark it leaves makes later damage of the last
    /// frame distinguishable from a torn one. Other handles fail from then on.
    #[must_use]
    pub fn close(self) -> Completion {
        let (done, receiver) = oneshot::channel();
        let _ = self.sender.send(Message::Close { done });
        Completion { receiver }
    }
}
