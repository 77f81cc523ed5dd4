//! Why the file tree refuses something.

use std::io;
use std::path::{Path, PathBuf};

/// A refusal, in the words that a client's user reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error("invalid path name: {0}")]
    InvalidPath(String),
    #[error("{0}")]
    Illegal(String),
    #[error("file does not exist: {0}")]
    NotFound(String),
    #[error("{0} is not a directory")]
    NotAFolder(String),
    #[error("{0} is a directory, not a file")]
    IsAFolder(String),
    #[error("{0} already exists")]
    Exists(String),
    #[error("{0} is a non-empty directory")]
    NotEmpty(String),
    #[error("Permission denied: {0}")]
    Denied(String),
    #[error("{0} is being written by another client")]
    BeingWritten(String),
    #[error("a file has at most {allowed} bytes here (files.upload_bytes_max)")]
    TooLarge { allowed: u64 },
    #[error("the disk of the resource manager is full")]
    DiskFull,
    #[error("cannot {action} {}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Names what was being done when the disk failed.
pub(super) fn disk(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> FilesError + use<> {
    let path = path.to_owned();
    move |source| {
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return FilesError::DiskFull;
        }
        FilesError::Io {
            action,
            path,
            source,
        }
    }
}
