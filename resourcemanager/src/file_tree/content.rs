//! What is in files: created, appended, read. Bytes never are in memory as a whole.
//!
//! As in HDFS a file is there, empty, from the moment it is created, and what was written before a
//! writer went away stays: an event log is read while it grows, and after its driver died.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::attributes::Attributes;
use super::changes::sync_parent;
use super::error::{FilesError, disk};
use super::files::Files;
use super::path::TreePath;
use super::permission::{Access, Person};

/// How a file is to be created.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Creation {
    pub(crate) overwrite: bool,
    pub(crate) create_parent: bool,
    pub(crate) mode: u32,
}

/// An open file; nobody else writes it until it is dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    path: PathBuf,
    length: u64,
    allowed: u64,
    inode: u64,
    writing: Arc<Mutex<BTreeSet<u64>>>,
}

impl Writer {
    /// Appends the next bytes; readers see them from then on.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.length > self.allowed {
            return Err(FilesError::TooLarge {
                allowed: self.allowed,
            });
        }
        self.file
            .write_all(bytes)
            .map_err(disk("write", &self.path))
    }

    /// Makes everything written durable.
    pub(crate) fn finish(self) -> Result<(), FilesError> {
        self.file.sync_all().map_err(disk("sync", &self.path))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        writing.remove(&self.inode);
    }
}

impl Files {
    fn may_create(
        &self,
        person: &Person,
        path: &TreePath,
        creation: Creation,
    ) -> Result<(), FilesError> {
        self.traverse(person, path)?;
        self.refuse_staging(path)?;
        if let Some(old) = self.find(path)? {
            if old.metadata.is_dir() {
                return Err(FilesError::Exists(format!("{path} as a directory")));
            }
            if !creation.overwrite {
                return Err(FilesError::Exists(path.to_string()));
            }
            return person.check(path, &old.attributes, Access::WRITE);
        }
        let parent = path
            .parent()
            .ok_or_else(|| FilesError::Exists(path.to_string()))?;
        if !creation.create_parent && self.find(&parent)?.is_none() {
            return Err(FilesError::NotFound(parent.to_string()));
        }
        self.may_add_below(person, path)
    }

    /// Creates a file, replacing an old one if that is asked for.
    pub(crate) fn create(
        &self,
        person: &Person,
        path: &TreePath,
        creation: Creation,
    ) -> Result<Writer, FilesError> {
        let _order = self.changing();
        self.make_home(person, path)?;
        self.may_create(person, path, creation)?;
        let parent = path
            .parent()
            .ok_or_else(|| FilesError::Exists(path.to_string()))?;
        self.make_missing(person, &parent, 0o755)?;
        let on_disk = path.on_disk(&self.root);
        if self.find(path)?.is_some() {
            std::fs::remove_file(&on_disk).map_err(disk("replace", &on_disk))?;
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&on_disk)
            .map_err(disk("create", &on_disk))?;
        self.new_attributes(person, &parent, creation.mode & 0o777)?
            .write(&on_disk)?;
        sync_parent(&on_disk)?;
        self.writer(file, path, &on_disk)
    }

    /// Opens the empty file that [`Files::create`] has made a moment ago, as it is now; makes it anew if
    /// that is not what is there any more.
    pub(crate) fn fill(
        &self,
        person: &Person,
        path: &TreePath,
        creation: Creation,
    ) -> Result<Writer, FilesError> {
        let is_empty = {
            let _order = self.changing();
            self.find(path)?
                .is_some_and(|found| found.metadata.is_file() && found.metadata.len() == 0)
        };
        if is_empty && let Ok(writer) = self.append(person, path) {
            return Ok(writer);
        }
        let overwrite = true;
        self.create(
            person,
            path,
            Creation {
                overwrite,
                ..creation
            },
        )
    }

    /// Opens a file for more at its end.
    pub(crate) fn append(&self, person: &Person, path: &TreePath) -> Result<Writer, FilesError> {
        let _order = self.changing();
        self.may_append(person, path)?;
        let on_disk = path.on_disk(&self.root);
        let file = OpenOptions::new()
            .append(true)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&on_disk)
            .map_err(disk("open", &on_disk))?;
        self.writer(file, path, &on_disk)
    }

    /// Whether [`Files::append`] would do it now.
    pub(crate) fn check_append(&self, person: &Person, path: &TreePath) -> Result<(), FilesError> {
        let _order = self.changing();
        self.may_append(person, path)
    }

    fn may_append(&self, person: &Person, path: &TreePath) -> Result<(), FilesError> {
        let found = self.reach(person, path)?;
        self.refuse_staging(path)?;
        if found.metadata.is_dir() {
            return Err(FilesError::IsAFolder(path.to_string()));
        }
        person.check(path, &found.attributes, Access::WRITE)
    }

    fn writer(&self, file: File, path: &TreePath, on_disk: &Path) -> Result<Writer, FilesError> {
        let metadata = file.metadata().map_err(disk("look at", on_disk))?;
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !writing.insert(metadata.ino()) {
            return Err(FilesError::BeingWritten(path.to_string()));
        }
        Ok(Writer {
            file,
            path: on_disk.to_owned(),
            length: metadata.len(),
            allowed: self.bytes_max,
            inode: metadata.ino(),
            writing: self.writing.clone(),
        })
    }

    /// Opens a file at `offset`; the number is of the bytes from there to its end now.
    pub(crate) fn read(
        &self,
        person: &Person,
        path: &TreePath,
        offset: u64,
    ) -> Result<(File, u64), FilesError> {
        let order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        let found = self.reach(person, path)?;
        if found.metadata.is_dir() {
            return Err(FilesError::IsAFolder(path.to_string()));
        }
        person.check(path, &found.attributes, Access::READ)?;
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&found.disk)
            .map_err(disk("open", &found.disk))?;
        drop(order);
        let length = file.metadata().map_err(disk("look at", &found.disk))?.len();
        let Some(left) = length.checked_sub(offset) else {
            return Err(FilesError::Illegal(format!(
                "offset={offset} is behind the end of {path}, which has {length} bytes"
            )));
        };
        file.seek(SeekFrom::Start(offset))
            .map_err(disk("read", &found.disk))?;
        Ok((file, left))
    }

    /// What a new entry of `parent` gets: its creator, and the folder's group as in BSD and HDFS.
    pub(super) fn new_attributes(
        &self,
        person: &Person,
        parent: &TreePath,
        mode: u32,
    ) -> Result<Attributes, FilesError> {
        let group = self
            .find(parent)?
            .map_or_else(|| person.group().to_owned(), |p| p.attributes.group);
        Ok(Attributes {
            owner: person.name.clone(),
            group,
            mode,
        })
    }
}
