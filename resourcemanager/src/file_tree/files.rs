//! The whole tree: what is there, and who may see it.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::attributes::{Attributes, are_kept};
use super::error::{FilesError, disk};
use super::path::TreePath;
use super::permission::{Access, Person};

/// Entries in one batch. Source: `dfs.ls.limit`, HDFS.
const BATCH_ENTRIES: usize = 1_000;
/// Folders in the root that are being removed; no path names them.
pub(super) const TRASH_PREFIX: &str = ".upload-trash-";
/// A folder's children are counted up to this.
const CHILDREN_COUNTED_MAX: usize = 10_000;

/// The tree below one folder, with permissions. Clones are the same tree.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(super) root: PathBuf,
    /// Owner of what belongs to nobody else.
    pub(super) superuser: String,
    pub(super) bytes_max: u64,
    /// Checks and the change that they are for are one step: changes exclude everything else.
    pub(super) order: Arc<RwLock<()>>,
    /// Inodes of files under construction.
    pub(super) writing: Arc<Mutex<BTreeSet<u64>>>,
}

/// What a client sees of a file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name in the listed folder; empty when it was asked for itself.
    pub(crate) name: String,
    pub(crate) is_folder: bool,
    /// Bytes; 0 for a folder.
    pub(crate) length: u64,
    pub(crate) owner: String,
    pub(crate) group: String,
    pub(crate) mode: u32,
    pub(crate) modified_ms: i64,
    pub(crate) accessed_ms: i64,
    pub(crate) id: u64,
    pub(crate) children: usize,
}

/// A piece of a listing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// The name behind which the next page begins; it may have gone meanwhile.
    pub(crate) last: String,
    /// How many more there are.
    pub(crate) remaining: usize,
}

/// What stands below a path, itself included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) folders: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Something that is there.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) disk: PathBuf,
    pub(super) metadata: Metadata,
    pub(super) attributes: Attributes,
}

impl Files {
    /// The tree in `root`, which [`super::FileTree`] has made.
    ///
    /// # Errors
    /// The disk refuses, or its file system keeps no extended attributes.
    pub(crate) fn open(
        root: &Path,
        superuser: String,
        bytes_max: u64,
    ) -> Result<Files, FilesError> {
        for name in ["user", "tmp"] {
            let folder = root.join(name);
            match std::fs::create_dir(&folder) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(disk("create", &folder)(e));
                }
                Ok(()) | Err(_) => {}
            }
        }
        empty_trash(root)?;
        are_kept(root).map_err(disk("keep owners and modes (extended attributes) in", root))?;
        Ok(Files {
            root: root.to_owned(),
            superuser,
            bytes_max,
            order: Arc::default(),
            writing: Arc::default(),
        })
    }

    /// Whatever is at `path`, without any check; `None` when there is nothing.
    pub(super) fn find(&self, path: &TreePath) -> Result<Option<Found>, FilesError> {
        let on_disk = path.on_disk(&self.root);
        let metadata = match std::fs::symlink_metadata(&on_disk) {
            Ok(metadata) => metadata,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(disk("look at", &on_disk)(e)),
        };
        if !metadata.is_file() && !metadata.is_dir() {
            return Ok(None);
        }
        let attributes = Attributes::read(path, &on_disk, &metadata, &self.superuser)?;
        Ok(Some(Found {
            disk: on_disk,
            metadata,
            attributes,
        }))
    }

    /// Checks that `person` may enter every folder above `path` that is there.
    pub(super) fn traverse(&self, person: &Person, path: &TreePath) -> Result<(), FilesError> {
        for above in path.ancestors() {
            let Some(found) = self.find(&above)? else {
                return Ok(());
            };
            if !found.metadata.is_dir() {
                return Err(FilesError::NotAFolder(above.to_string()));
            }
            person.check(&above, &found.attributes, Access::ENTER)?;
        }
        Ok(())
    }

    /// What is at `path`, for somebody who may know.
    pub(super) fn reach(&self, person: &Person, path: &TreePath) -> Result<Found, FilesError> {
        self.traverse(person, path)?;
        self.find(path)?
            .ok_or_else(|| FilesError::NotFound(path.to_string()))
    }

    fn reading(&self) -> std::sync::RwLockReadGuard<'_, ()> {
        self.order.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// GETFILESTATUS.
    pub(crate) fn status(&self, person: &Person, path: &TreePath) -> Result<Entry, FilesError> {
        let _order = self.reading();
        let found = self.reach(person, path)?;
        Ok(entry(String::new(), found))
    }

    /// LISTSTATUS_BATCH: what comes after the name `after`; of a file it is the file alone.
    pub(crate) fn list_after(
        &self,
        person: &Person,
        path: &TreePath,
        after: &str,
    ) -> Result<Page, FilesError> {
        let _order = self.reading();
        let Some(mut names) = self.names(person, path)? else {
            let entries = vec![entry(String::new(), self.reach(person, path)?)];
            return Ok(Page {
                entries,
                ..Page::default()
            });
        };
        names.retain(|name| name.as_str() > after);
        let remaining = names.len().saturating_sub(BATCH_ENTRIES);
        names.truncate(BATCH_ENTRIES);
        Ok(Page {
            last: names.last().cloned().unwrap_or_default(),
            entries: self.entries(path, names)?,
            remaining,
        })
    }

    /// The sorted names in a folder; `None` for a file.
    fn names(&self, person: &Person, path: &TreePath) -> Result<Option<Vec<String>>, FilesError> {
        let found = self.reach(person, path)?;
        if !found.metadata.is_dir() {
            return Ok(None);
        }
        person.check(path, &found.attributes, Access::LIST)?;
        let mut names = visible_names(&found.disk)?;
        names.sort_unstable();
        Ok(Some(names))
    }

    fn entries(&self, path: &TreePath, names: Vec<String>) -> Result<Vec<Entry>, FilesError> {
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            // A file of the staging part may have gone meanwhile.
            if let Some(found) = self.find(&path.join(&name))? {
                entries.push(entry(name, found));
            }
        }
        Ok(entries)
    }

    /// CHECKACCESS.
    pub(crate) fn check_access(
        &self,
        person: &Person,
        path: &TreePath,
        access: Access,
    ) -> Result<(), FilesError> {
        let _order = self.reading();
        let found = self.reach(person, path)?;
        person.check(path, &found.attributes, access)
    }

    /// GETCONTENTSUMMARY and GETQUOTAUSAGE: needs to list every folder below.
    pub(crate) fn summary(&self, person: &Person, path: &TreePath) -> Result<Summary, FilesError> {
        let mut summary = Summary::default();
        let order = self.reading();
        let top = self.reach(person, path)?;
        drop(order);
        let mut open = vec![(path.clone(), top)];
        while let Some((path, found)) = open.pop() {
            if !found.metadata.is_dir() {
                summary.files += 1;
                summary.bytes = summary.bytes.saturating_add(found.metadata.len());
                continue;
            }
            // Folder by folder: a large tree must not hold up those who change something.
            let _order = self.reading();
            person.check(&path, &found.attributes, Access::LIST)?;
            summary.folders += 1;
            let names = match visible_names(&found.disk) {
                // It went away meanwhile.
                Err(FilesError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    Vec::new()
                }
                other => other?,
            };
            for name in names {
                let below = path.join(&name);
                match self.find(&below)? {
                    Some(found) if found.metadata.is_dir() => open.push((below, found)),
                    Some(file) => {
                        summary.files += 1;
                        summary.bytes = summary.bytes.saturating_add(file.metadata.len());
                    }
                    None => {}
                }
            }
        }
        Ok(summary)
    }
}

/// Removes what an earlier process was removing.
fn empty_trash(root: &Path) -> Result<(), FilesError> {
    for entry in std::fs::read_dir(root).map_err(disk("list", root))? {
        let entry = entry.map_err(disk("list", root))?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(TRASH_PREFIX)
        {
            let path = entry.path();
            std::fs::remove_dir_all(&path).map_err(disk("remove", &path))?;
        }
    }
    Ok(())
}

/// Names in a folder that the tree knows: not those of uploads under way.
pub(super) fn visible_names(folder: &Path) -> Result<Vec<String>, FilesError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(disk("list", folder))? {
        let entry = entry.map_err(disk("list", folder))?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with(".upload-")
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn entry(name: String, found: Found) -> Entry {
    let Found {
        disk,
        metadata,
        attributes,
    } = found;
    let ms = |seconds: i64, nanoseconds: i64| {
        seconds
            .saturating_mul(1_000)
            .saturating_add(nanoseconds / 1_000_000)
    };
    let children = if metadata.is_dir() {
        std::fs::read_dir(&disk).map_or(0, |c| c.take(CHILDREN_COUNTED_MAX).count())
    } else {
        0
    };
    Entry {
        name,
        is_folder: metadata.is_dir(),
        length: if metadata.is_dir() { 0 } else { metadata.len() },
        owner: attributes.owner,
        group: attributes.group,
        mode: attributes.mode,
        modified_ms: ms(metadata.mtime(), metadata.mtime_nsec()),
        accessed_ms: ms(metadata.atime(), metadata.atime_nsec()),
        id: metadata.ino(),
        children,
    }
}
