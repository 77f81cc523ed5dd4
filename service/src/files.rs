//! Files that must be whole: atomic writes, synced folders, one daemon a folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// A file operation that failed, with what was tried and on what.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    pub action: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        let path = path.to_owned();
        move |source| FileError {
            action,
            path,
            source,
        }
    }
}

/// Writes `bytes` to `path` so that a reader, or a crash, sees the old file or the new one, whole.
///
/// # Errors
/// The step that failed; the old file is then untouched.
pub fn atomic_write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let write = || -> io::Result<()> {
        // One that a crashed writer left, or a link that somebody else put into a shared folder.
        match std::fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        // The mode that was asked for, whatever the umask.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        // Best effort: the error that is reported is the one that matters.
        let _ = std::fs::remove_file(&temporary);
        FileError {
            action: "write",
            path: path.to_owned(),
            source,
        }
    })?;
    sync_folder(folder)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// The folder cannot be opened or synced.
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(FileError::new("sync folder", folder))
}

/// Creates a folder with its parents; `mode` is given to those that did not exist.
///
/// # Errors
/// It cannot be created, or something that is no folder has its name.
pub fn create_folder(folder: &Path, mode: u32) -> Result<(), FileError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .map_err(FileError::new("create folder", folder))
}

/// Holds a folder for one daemon until it is dropped (or the process ends, however it ends).
#[derive(Debug)]
pub struct FolderLock {
    _file: Flock<File>,
}

/// Why a folder cannot be had alone.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("the folder {} is in use by process {holder}: one daemon a folder; stop that one, or choose another folder", folder.display())]
    Held { folder: PathBuf, holder: String },
    #[error(transparent)]
    File(#[from] FileError),
}

/// Takes `<folder>/lock` for this process.
///
/// # Errors
/// Another process has it (named by its pid), or the file cannot be opened.
pub fn lock_folder(folder: &Path) -> Result<FolderLock, LockError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(FileError::new("open", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            let mut write = || -> io::Result<()> {
                file.set_len(0)?;
                file.rewind()?;
                write!(&mut *file, "{}", std::process::id())
            };
            write().map_err(FileError::new("write", &path))?;
            Ok(FolderLock { _file: file })
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            // Only for the message; an unreadable lock file is still a held one.
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() {
                "(unknown)"
            } else {
                holder.trim()
            };
            Err(LockError::Held {
                folder: folder.to_owned(),
                holder: holder.to_owned(),
            })
        }
        Err((_, errno)) => Err(LockError::File(FileError::new("lock", &path)(errno.into()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_whole_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        atomic_write(&path, b"one", 0o644).unwrap();
        atomic_write(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary stays"
        );
    }

    #[test]
    fn a_link_in_a_shared_folder_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "whole").unwrap();
        let planted = format!(".file.{}.tmp", std::process::id());
        std::os::unix::fs::symlink(&victim, folder.path().join(planted)).unwrap();
        let path = folder.path().join("file");
        atomic_write(&path, b"new", 0o644).unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"whole");
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(!path.is_symlink());
    }

    #[test]
    fn a_second_holder_is_refused_with_the_first_ones_pid() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock_folder(folder.path()).unwrap();
        let refused = lock_folder(folder.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&std::process::id().to_string()),
            "{refused}"
        );
        drop(first);
        lock_folder(folder.path()).unwrap();
    }
}
