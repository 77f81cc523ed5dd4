//! What can go wrong, and whether it does now.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a journal cannot be opened or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the journal in {} is in use by another process", folder.display())]
    InUse { folder: PathBuf },
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    /// Something that was durable cannot be read back. It is not repaired by guessing.
    #[error(
        "{} is damaged at byte {offset}: {problem}; restore the file, or move the whole folder aside to begin anew", file.display()
    )]
    Damaged {
        file: PathBuf,
        offset: u64,
        problem: String,
    },
    #[error(
        "a record of {bytes} bytes is larger than {} bytes",
        crate::RECORD_BYTES_MAX
    )]
    RecordTooLarge { bytes: usize },
    #[error("the journal is closed")]
    Closed,
}

impl JournalError {
    /// With its cause, for people.
    #[must_use]
    pub fn words(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> JournalError {
        JournalError::Io {
            action,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }
}

/// Whether appended batches become durable.
#[derive(Clone, Debug)]
pub enum Health {
    Well,
    /// Batches wait; the writer tries again. The reason is for those who are refused meanwhile.
    Failing(JournalError),
}

impl Health {
    #[must_use]
    pub fn problem(&self) -> Option<&JournalError> {
        match self {
            Health::Well => None,
            Health::Failing(error) => Some(error),
        }
    }
}
