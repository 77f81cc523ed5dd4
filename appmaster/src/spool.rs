//! Output that waits: in memory within a budget, in one unnamed file beyond it.
//!
//! Held output cannot be refused (the task that wrote it is done) and must not fill the memory. The
//! file has no name, so nothing is left of it whatever happens; what is read or dropped is given
//! back to the file system by punching holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use nix::fcntl::{FallocateFlags, fallocate};

/// Memory that all output of one spool may take, bytes.
const MEMORY_BYTES: u64 = 32 << 20;

/// Where waiting output is kept.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: std::path::PathBuf,
    file: OnceLock<File>,
    /// End of the part of the file that was ever used.
    file_end: AtomicU64,
    memory: AtomicU64,
    memory_max: u64,
}

/// One piece of waiting output; dropping it frees its place.
#[derive(Debug)]
pub(crate) struct Piece {
    place: Place,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Place {
    Memory(Bytes),
    File { offset: u64, len: usize },
}

impl Spool {
    /// `folder` is where the file is made when memory does not suffice.
    pub(crate) fn new(folder: &Path) -> Spool {
        Spool::with_memory(folder, MEMORY_BYTES)
    }

    fn with_memory(folder: &Path, memory_max: u64) -> Spool {
        Spool {
            shared: Arc::new(Shared {
                folder: folder.to_owned(),
                file: OnceLock::new(),
                file_end: AtomicU64::new(0),
                memory: AtomicU64::new(0),
                memory_max,
            }),
        }
    }

    /// # Errors
    /// The file cannot be made or written (a full disk).
    pub(crate) fn put(&self, bytes: Bytes) -> io::Result<Piece> {
        let shared = &self.shared;
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let before = shared.memory.fetch_add(len, Ordering::Relaxed);
        if before.saturating_add(len) <= shared.memory_max {
            return Ok(Piece {
                place: Place::Memory(bytes),
                shared: Arc::clone(shared),
            });
        }
        shared.memory.fetch_sub(len, Ordering::Relaxed);
        let offset = shared.file_end.fetch_add(len, Ordering::Relaxed);
        shared.file()?.write_all_at(&bytes, offset)?;
        Ok(Piece {
            place: Place::File {
                offset,
                len: bytes.len(),
            },
            shared: Arc::clone(shared),
        })
    }
}

impl Shared {
    fn file(&self) -> io::Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let made = tempfile::tempfile_in(&self.folder)?;
        // Of two made at once, the first stays.
        Ok(self.file.get_or_init(|| made))
    }
}

impl Piece {
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(&self) -> io::Result<Bytes> {
        match &self.place {
            Place::Memory(bytes) => Ok(bytes.clone()),
            Place::File { offset, len } => {
                let mut buffer = vec![0; *len];
                self.shared.file()?.read_exact_at(&mut buffer, *offset)?;
                Ok(buffer.into())
            }
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        match &self.place {
            Place::Memory(bytes) => {
                let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.shared.memory.fetch_sub(len, Ordering::Relaxed);
            }
            Place::File { offset, len } => {
                let hole =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                if let (Some(file), Ok(offset), Ok(len)) = (
                    self.shared.file.get(),
                    i64::try_from(*offset),
                    i64::try_from(*len),
                ) {
                    // A file system without holes keeps the bytes until the spool is gone.
                    let _ = fallocate(file, hole, offset, len);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn beyond_the_budget_the_file_takes_over_and_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::with_memory(folder.path(), 100);
        let first = spool.put(Bytes::from(vec![1; 80])).unwrap();
        let second = spool.put(Bytes::from(vec![2; 1 << 20])).unwrap();
        let third = spool.put(Bytes::from(vec![3; 20])).unwrap();
        assert!(matches!(first.place, Place::Memory(_)));
        assert!(matches!(second.place, Place::File { .. }));
        assert!(matches!(third.place, Place::Memory(_)));
        assert_eq!(second.read().unwrap(), vec![2; 1 << 20]);
        assert_eq!(first.read().unwrap(), vec![1; 80]);
        let file = spool.shared.file.get().unwrap();
        let used = file.metadata().unwrap().blocks();
        drop(second);
        assert!(file.metadata().unwrap().blocks() < used);
        // No name is left behind.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        drop((first, third));
        assert_eq!(spool.shared.memory.load(Ordering::Relaxed), 0);
    }
}
