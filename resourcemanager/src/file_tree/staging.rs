//! What submissions ship, by user and application: the part of the tree that `bobbin` itself fills.
//!
//! Sources are named `bobbin:/user/<user>/.bobbinStaging/<application>/<name>`. The owner is the
//! user in the path; mode and mtime are the file's own.
//!
//! Blocking: callers keep it off the runtime's own threads.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bobbin_types::{ApplicationId, NameError, UserName, check_text};
use sha2::{Digest, Sha256};

/// Files that one application may ship.
pub(crate) const FILES_PER_APPLICATION_MAX: usize = bobbin_types::LOCAL_RESOURCES_MAX;
/// Bytes of a file's name. Source: `NAME_MAX`, linux/limits.h, less room for a temporary name.
const NAME_BYTES_MAX: usize = 200;
const SCHEME: &str = "bobbin:";

#[derive(Debug, thiserror::Error)]
pub(crate) enum FileTreeError {
    #[error("file name: {0}")]
    Name(#[from] NameError),
    #[error("'{0}' is no file name: it must be one path component")]
    NotOneComponent(String),
    #[error("'{0}' is no source: expected bobbin:/user/<user>/.bobbinStaging/<application>/<name>")]
    NotASource(String),
    #[error("{name} has more than the {announced} bytes announced")]
    TooLong { name: String, announced: u64 },
    #[error("{name} has {received} bytes, {announced} were announced")]
    TooShort {
        name: String,
        announced: u64,
        received: u64,
    },
    #[error(
        "{name} has {announced} bytes; at most {allowed} may be uploaded (files.upload_bytes_max)"
    )]
    TooLarge {
        name: String,
        announced: u64,
        allowed: u64,
    },
    #[error("{application} has shipped {FILES_PER_APPLICATION_MAX} files, no more are allowed")]
    TooMany { application: ApplicationId },
    #[error("no file {0}")]
    NotFound(String),
    #[error("the disk below {} is full", .0.display())]
    DiskFull(PathBuf),
    #[error("cannot {action} {}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A source's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) user: UserName,
    pub(crate) application: ApplicationId,
    pub(crate) name: String,
}

/// What is uploaded, as the client announced it.
#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    pub(crate) name: String,
    /// Permission bits; others are dropped.
    pub(crate) mode: u32,
    /// Unix milliseconds.
    pub(crate) mtime_ms: u64,
    pub(crate) size: u64,
}

/// A file that is durable.
#[derive(Clone, Debug)]
pub(crate) struct Uploaded {
    pub(crate) source: String,
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) mtime_ms: u64,
}

/// The tree below one folder.
#[derive(Clone, Debug)]
pub(crate) struct FileTree {
    root: PathBuf,
    upload_bytes_max: u64,
}

/// An upload under way; dropped before [`Upload::finish`] it leaves nothing.
#[derive(Debug)]
pub(crate) struct Upload {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    announcement: Announcement,
    source: String,
    received: u64,
    digest: Sha256,
}

impl Source {
    /// Reads `bobbin:/user/<user>/.bobbinStaging/<application>/<name>`.
    pub(crate) fn parse(text: &str) -> Result<Source, FileTreeError> {
        let shown = || {
            text.chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect::<String>()
        };
        let wrong = || FileTreeError::NotASource(shown());
        let path = text
            .strip_prefix(SCHEME)
            .and_then(|p| p.strip_prefix('/'))
            .ok_or_else(wrong)?;
        let parts: Vec<&str> = path.split('/').collect();
        let ["user", user, ".bobbinStaging", application, name] = parts.as_slice() else {
            return Err(wrong());
        };
        check_name(name)?;
        Ok(Source {
            user: user.parse().map_err(|_| wrong())?,
            application: application.parse().map_err(|_| wrong())?,
            name: (*name).to_owned(),
        })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{SCHEME}/{}/{}",
            staging(&self.user, &self.application),
            self.name
        )
    }
}

fn staging(user: &UserName, application: &ApplicationId) -> String {
    format!("user/{user}/.bobbinStaging/{application}")
}

/// The staging folder's own name, as clients are told it.
pub(crate) fn staging_source(user: &UserName, application: &ApplicationId) -> String {
    format!("{SCHEME}/{}", staging(user, application))
}

fn check_name(name: &str) -> Result<(), FileTreeError> {
    check_text("file name", name, NAME_BYTES_MAX)?;
    // Temporary names begin with a dot and a word of ours.
    if name.contains('/') || name == "." || name == ".." || name.starts_with(".upload-") {
        return Err(FileTreeError::NotOneComponent(name.to_owned()));
    }
    Ok(())
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> FileTreeError {
    if matches!(
        source.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        FileTreeError::DiskFull(path.to_owned())
    } else {
        FileTreeError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

fn sync_folder(folder: &Path) -> Result<(), FileTreeError> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(|e| io_error("sync", folder, e))
}

impl FileTree {
    /// The tree below `root`, made with mode 0700 if it is not there.
    pub(crate) fn open(root: &Path, upload_bytes_max: u64) -> Result<FileTree, FileTreeError> {
        make_folder(root)?;
        Ok(FileTree {
            root: root.to_owned(),
            upload_bytes_max,
        })
    }

    fn folder(&self, user: &UserName, application: &ApplicationId) -> PathBuf {
        self.root.join(staging(user, application))
    }

    /// Begins to take a file into an application's staging folder.
    pub(crate) fn begin(
        &self,
        user: &UserName,
        application: &ApplicationId,
        announcement: Announcement,
    ) -> Result<Upload, FileTreeError> {
        check_name(&announcement.name)?;
        if announcement.size > self.upload_bytes_max {
            return Err(FileTreeError::TooLarge {
                name: announcement.name,
                announced: announcement.size,
                allowed: self.upload_bytes_max,
            });
        }
        let folder = self.folder(user, application);
        make_folder(&folder)?;
        let entries = std::fs::read_dir(&folder).map_err(|e| io_error("list", &folder, e))?;
        if entries.take(FILES_PER_APPLICATION_MAX).count() == FILES_PER_APPLICATION_MAX {
            return Err(FileTreeError::TooMany {
                application: *application,
            });
        }
        let temporary = folder.join(format!(".upload-{}", announcement.name));
        // A repeated upload of the same name replaces one that was cut off.
        remove_file(&temporary)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|e| io_error("create", &temporary, e))?;
        let name = announcement.name.clone();
        let source = Source {
            user: user.clone(),
            application: *application,
            name,
        };
        Ok(Upload {
            file,
            temporary,
            target: folder.join(&announcement.name),
            announcement,
            source: source.to_string(),
            received: 0,
            digest: Sha256::new(),
        })
    }

    /// Opens a file for reading; the size is of what is there now.
    pub(crate) fn read(&self, source: &Source) -> Result<(File, u64), FileTreeError> {
        let path = self
            .folder(&source.user, &source.application)
            .join(&source.name);
        let open = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .and_then(|file| file.metadata().map(|m| (file, m)));
        match open {
            Ok((file, metadata)) if metadata.is_file() => Ok((file, metadata.len())),
            Ok(_) => Err(FileTreeError::NotFound(source.to_string())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(FileTreeError::NotFound(source.to_string()))
            }
            Err(e) => Err(io_error("open", &path, e)),
        }
    }

    /// Removes everything an application shipped; nothing to remove is fine.
    pub(crate) fn remove(
        &self,
        user: &UserName,
        application: &ApplicationId,
    ) -> Result<(), FileTreeError> {
        let folder = self.folder(user, application);
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(io_error("remove", &folder, e)),
        }
    }

    /// Whether nothing was added for longer than `age`.
    pub(crate) fn is_older(
        &self,
        user: &UserName,
        application: &ApplicationId,
        age: std::time::Duration,
    ) -> bool {
        std::fs::metadata(self.folder(user, application))
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|changed| changed.elapsed().is_ok_and(|since| since > age))
    }

    /// Applications that have something here, for the removal of leftovers at start.
    pub(crate) fn applications(&self) -> Vec<(UserName, ApplicationId)> {
        let names = |folder: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .filter_map(|e| e.file_name().into_string().ok())
                .collect()
        };
        let mut found = Vec::new();
        for user in names(&self.root.join("user")) {
            let Ok(user) = user.parse::<UserName>() else {
                continue;
            };
            let folder = self
                .root
                .join("user")
                .join(user.as_str())
                .join(".bobbinStaging");
            found.extend(
                names(&folder)
                    .iter()
                    .filter_map(|a| Some((user.clone(), a.parse().ok()?))),
            );
        }
        found
    }
}

fn make_folder(folder: &Path) -> Result<(), FileTreeError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| io_error("create", folder, e))
}

fn remove_file(path: &Path) -> Result<(), FileTreeError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error("remove", path, e)),
    }
}

impl Upload {
    /// Takes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FileTreeError> {
        self.received = self.received.saturating_add(bytes.len() as u64);
        if self.received > self.announcement.size {
            return Err(FileTreeError::TooLong {
                name: self.announcement.name.clone(),
                announced: self.announcement.size,
            });
        }
        self.digest.update(bytes);
        self.file
            .write_all(bytes)
            .map_err(|e| io_error("write", &self.temporary, e))
    }

    /// Makes the file durable under its name.
    pub(crate) fn finish(self) -> Result<Uploaded, FileTreeError> {
        let Announcement {
            name,
            mode,
            mtime_ms,
            size,
        } = self.announcement.clone();
        if self.received < size {
            let received = self.received;
            return Err(FileTreeError::TooShort {
                name,
                announced: size,
                received,
            });
        }
        let mtime = SystemTime::UNIX_EPOCH + Duration::from_millis(mtime_ms);
        self.file
            .set_permissions(std::fs::Permissions::from_mode(mode & 0o777))
            .and_then(|()| self.file.set_modified(mtime))
            .and_then(|()| self.file.sync_all())
            .and_then(|()| std::fs::rename(&self.temporary, &self.target))
            .map_err(|e| io_error("keep", &self.target, e))?;
        if let Some(folder) = self.target.parent() {
            sync_folder(folder)?;
        }
        let sha256 = self.digest.clone().finalize().into();
        Ok(Uploaded {
            source: self.source.clone(),
            size,
            sha256,
            mtime_ms,
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // After `finish` it has another name and this finds nothing.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn application() -> ApplicationId {
        ApplicationId {
            cluster_timestamp: 1_700_000_000_000,
            sequence: 1,
        }
    }

    fn alice() -> UserName {
        "alice".parse().unwrap()
    }

    fn announce(name: &str, size: u64) -> Announcement {
        Announcement {
            name: name.to_owned(),
            mode: 0o755,
            mtime_ms: 1_000_000,
            size,
        }
    }

    #[test]
    fn uploaded_read_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let tree = FileTree::open(folder.path(), 1 << 20).unwrap();
        let mut upload = tree
            .begin(&alice(), &application(), announce("driver", 5))
            .unwrap();
        upload.write(b"he").unwrap();
        upload.write(b"llo").unwrap();
        let uploaded = upload.finish().unwrap();
        assert_eq!(
            uploaded.source,
            "bobbin:/user/alice/.bobbinStaging/application_1700000000000_0001/driver"
        );
        assert_eq!(
            uploaded.sha256.as_slice(),
            Sha256::digest(b"hello").as_slice()
        );
        let source = Source::parse(&uploaded.source).unwrap();
        let (mut file, size) = tree.read(&source).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), size), ("hello", 5));
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(tree.applications(), vec![(alice(), application())]);
        tree.remove(&alice(), &application()).unwrap();
        assert!(matches!(
            tree.read(&source),
            Err(FileTreeError::NotFound(_))
        ));
        tree.remove(&alice(), &application()).unwrap();
    }

    #[test]
    fn what_was_announced_counts() {
        let folder = tempfile::tempdir().unwrap();
        let tree = FileTree::open(folder.path(), 10).unwrap();
        let begin = |size| tree.begin(&alice(), &application(), announce("f", size));
        assert!(matches!(begin(11), Err(FileTreeError::TooLarge { .. })));
        let mut upload = begin(2).unwrap();
        assert!(matches!(
            upload.write(b"abc"),
            Err(FileTreeError::TooLong { .. })
        ));
        drop(upload);
        let mut upload = begin(2).unwrap();
        upload.write(b"a").unwrap();
        assert!(matches!(
            upload.finish(),
            Err(FileTreeError::TooShort { .. })
        ));
        // Nothing of either is left.
        let left = std::fs::read_dir(tree.folder(&alice(), &application()))
            .unwrap()
            .count();
        assert_eq!(left, 0);
    }

    #[test]
    fn names_and_sources_that_lead_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let tree = FileTree::open(folder.path(), 10).unwrap();
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a\0b",
            "a\nb",
            ".upload-x",
            &"x".repeat(300),
        ] {
            let begun = tree.begin(&alice(), &application(), announce(name, 1));
            assert!(begun.is_err(), "{name:?}");
        }
        let good = "bobbin:/user/alice/.bobbinStaging/application_1_0001/x";
        assert!(Source::parse(good).is_ok());
        for text in [
            "",
            "file:/etc/passwd",
            "bobbin:/etc/passwd",
            "bobbin:/user/../.bobbinStaging/application_1_0001/x",
            "bobbin:/user/alice/.bobbinStaging/../x",
            "bobbin:/user/alice/.bobbinStaging/application_1_0001/..",
            "bobbin:/user/alice/.bobbinStaging/application_1_0001/a/b",
            "bobbin://user/alice/.bobbinStaging/application_1_0001/x",
        ] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }
}
