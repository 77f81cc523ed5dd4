//! The agent's journal: opened, replayed, appended to, compacted.
//!
//! The journal is the truth and small (a few records a container), so there is no index beside it:
//! the core's own maps are one.

use std::path::{Path, PathBuf};

use bobbin_journal::{Completion, Health, Journal, JournalError, Options};
use bobbin_na_core::Record;

use crate::records::{self, RecordError};

/// The journal is compacted when so many bytes came since its snapshot, and they are more than it.
const COMPACT_BYTES: u64 = 4 << 20;
const SEGMENT_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Store {
    journal: Journal,
    compacting: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the journal cannot be opened")]
    Journal(#[source] JournalError),
    #[error("record {sequence} of the journal in {} cannot be read", folder.display())]
    Record {
        folder: PathBuf,
        sequence: u64,
        #[source]
        source: RecordError,
    },
}

impl Store {
    /// Opens `<lib>/journal` and returns its records in order. Blocks.
    pub(crate) fn open(lib: &Path) -> Result<(Store, Vec<Record>), StoreError> {
        let folder = lib.join("journal");
        let mut all = Vec::new();
        let mut bad = None;
        let options = Options {
            segment_bytes: SEGMENT_BYTES,
        };
        let opened = Journal::open(
            &folder,
            options,
            &mut |sequence, bytes| match records::decode(bytes) {
                Ok(record) => all.push(record),
                Err(e) => {
                    bad.get_or_insert((sequence, e));
                }
            },
        )
        .map_err(StoreError::Journal)?;
        if let Some((sequence, source)) = bad {
            return Err(StoreError::Record {
                folder,
                sequence,
                source,
            });
        }
        for note in &opened.notes {
            tracing::warn!("journal: {note}");
        }
        Ok((
            Store {
                journal: opened.journal,
                compacting: false,
            },
            all,
        ))
    }

    /// Hands records over; the completion resolves when they are durable.
    pub(crate) fn append(&self, records: &[Record]) -> Completion {
        self.journal
            .append(records.iter().map(records::encode).collect())
    }

    pub(crate) fn health(&self) -> tokio::sync::watch::Receiver<Health> {
        self.journal.health()
    }

    /// Whether the journal has grown enough to be replaced by a snapshot.
    pub(crate) fn wants_compaction(&self) -> bool {
        let (since, snapshot) = self.journal.bytes();
        !self.compacting && since > COMPACT_BYTES.max(snapshot)
    }

    pub(crate) fn compact(&mut self, snapshot: &[Record]) -> Completion {
        self.compacting = true;
        self.journal
            .compact(snapshot.iter().map(records::encode).collect())
    }

    pub(crate) fn compacted(&mut self) {
        self.compacting = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bobbin_types::{ContainerId, WallMillis};

    fn done(number: u32) -> Record {
        let container: ContainerId = format!("container_e01_7_0001_01_{number:06}")
            .parse()
            .unwrap();
        Record::Done {
            container,
            expires: WallMillis(1),
        }
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart_and_a_compaction() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, records) = Store::open(dir.path()).unwrap();
        assert!(records.is_empty());
        store.append(&[done(1), done(2)]).wait().unwrap();
        store.compact(&[done(2)]).wait().unwrap();
        store.append(&[done(3)]).wait().unwrap();
        drop(store);
        // The files close with the journal's thread.
        let records = loop {
            match Store::open(dir.path()) {
                Ok((_, records)) => break records,
                Err(StoreError::Journal(_)) => std::thread::yield_now(),
                Err(e) => panic!("{e}"),
            }
        };
        assert_eq!(records, vec![done(2), done(3)]);
    }
}
