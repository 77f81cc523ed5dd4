//! Changes of names and attributes. Each is checked and made in one step, and durable before it is
//! answered. Source: the semantics of HDFS, `FSDirRenameOp`, `FSDirDeleteOp`, `FSDirAttrOp`.

use std::fs::{File, FileTimes};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use super::attributes::Attributes;
use super::error::{FilesError, disk};
use super::files::{Files, Found, TRASH_PREFIX, visible_names};
use super::path::TreePath;
use super::permission::{Access, Person};

/// New times, Unix milliseconds; `None` keeps the old one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimesChange {
    pub(crate) modified_ms: Option<u64>,
    pub(crate) accessed_ms: Option<u64>,
}

/// Makes a file's attributes, or a folder's entries, durable.
pub(super) fn sync(path: &Path) -> Result<(), FilesError> {
    File::open(path)
        .and_then(|f| f.sync_all())
        .map_err(disk("sync", path))
}

pub(super) fn sync_parent(path: &Path) -> Result<(), FilesError> {
    path.parent().map_or(Ok(()), sync)
}

impl Files {
    pub(super) fn changing(&self) -> RwLockWriteGuard<'_, ()> {
        self.order.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refuse_staging(&self, path: &TreePath) -> Result<(), FilesError> {
        if path.is_staging() {
            return Err(FilesError::Denied(format!(
                "{path} is filled and removed by Bobbin itself"
            )));
        }
        Ok(())
    }

    /// Makes the person's own home when something in it is asked for the first time.
    pub(super) fn make_home(&self, person: &Person, path: &TreePath) -> Result<(), FilesError> {
        if path.home_owner() != Some(person.name.as_str()) {
            return Ok(());
        }
        let home = TreePath::parse(&super::home_of(&person.name))?;
        if self.find(&home)?.is_some() {
            return Ok(());
        }
        let attributes = Attributes {
            owner: person.name.clone(),
            group: person.group().to_owned(),
            mode: 0o700,
        };
        self.make_folder(&home, &attributes)
    }

    fn make_folder(&self, path: &TreePath, attributes: &Attributes) -> Result<(), FilesError> {
        let on_disk = path.on_disk(&self.root);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&on_disk)
            .map_err(disk("create", &on_disk))?;
        attributes.write(&on_disk)?;
        sync_parent(&on_disk)
    }

    /// Whether something may be added in the nearest folder above `path` that is there.
    pub(super) fn may_add_below(&self, person: &Person, path: &TreePath) -> Result<(), FilesError> {
        let above: Vec<TreePath> = path.ancestors().collect();
        for folder in above.iter().rev() {
            if let Some(found) = self.find(folder)? {
                if !found.metadata.is_dir() {
                    return Err(FilesError::NotAFolder(folder.to_string()));
                }
                return person.check(folder, &found.attributes, Access::CHANGE);
            }
        }
        Ok(())
    }

    /// Makes `path` and what is missing above it; the caller has checked.
    pub(super) fn make_missing(
        &self,
        person: &Person,
        path: &TreePath,
        mode: u32,
    ) -> Result<(), FilesError> {
        let above: Vec<TreePath> = path.ancestors().skip(1).collect();
        for folder in above.iter().chain([path]) {
            if self.find(folder)?.is_none() {
                let parent = folder.parent().unwrap_or_else(|| folder.clone());
                // What stands between must stay usable for who made it.
                let mode = if folder == path { mode } else { mode | 0o300 };
                let attributes = self.new_attributes(person, &parent, mode)?;
                self.make_folder(folder, &attributes)?;
            }
        }
        Ok(())
    }

    /// MKDIRS: a folder that is there is fine.
    pub(crate) fn make_folders(
        &self,
        person: &Person,
        path: &TreePath,
        mode: u32,
    ) -> Result<(), FilesError> {
        let _order = self.changing();
        self.make_home(person, path)?;
        self.traverse(person, path)?;
        match self.find(path)? {
            Some(found) if found.metadata.is_dir() => return Ok(()),
            Some(_) => return Err(FilesError::Exists(format!("{path} as a file"))),
            None => {}
        }
        self.refuse_staging(path)?;
        self.may_add_below(person, path)?;
        self.make_missing(person, path, mode & 0o1777)
    }

    /// Whether `found` at `path` may be taken out of its folder.
    fn may_take(&self, person: &Person, path: &TreePath, found: &Found) -> Result<(), FilesError> {
        let parent = match path.parent() {
            Some(parent) if !path.is_fixed() => parent,
            Some(_) | None => {
                return Err(FilesError::Denied(format!("{path} is the tree's own")));
            }
        };
        self.refuse_staging(path)?;
        if let Some(folder) = self.find(&parent)? {
            person.check(&parent, &folder.attributes, Access::CHANGE)?;
            person.check_sticky(path, &folder.attributes, &found.attributes)?;
        }
        Ok(())
    }

    /// DELETE; `false` when nothing is there.
    pub(crate) fn delete(
        &self,
        person: &Person,
        path: &TreePath,
        recursive: bool,
    ) -> Result<bool, FilesError> {
        let order = self.changing();
        self.traverse(person, path)?;
        let Some(found) = self.find(path)? else {
            return Ok(false);
        };
        self.may_take(person, path, &found)?;
        let mut trashed = None;
        if !found.metadata.is_dir() {
            std::fs::remove_file(&found.disk).map_err(disk("remove", &found.disk))?;
        } else if recursive {
            self.may_empty(person, path)?;
            trashed = Some(self.discard(&found.disk)?);
        } else {
            if !visible_names(&found.disk)?.is_empty() {
                return Err(FilesError::NotEmpty(path.to_string()));
            }
            std::fs::remove_dir(&found.disk).map_err(disk("remove", &found.disk))?;
        }
        sync_parent(&found.disk)?;
        drop(order);
        // Out of everybody's sight, so others need not wait for a large tree.
        if let Some(trashed) = trashed {
            std::fs::remove_dir_all(&trashed).map_err(disk("remove", &trashed))?;
        }
        Ok(true)
    }

    /// Moves a folder where nobody sees it; what a stop leaves there goes at the next start.
    fn discard(&self, folder: &Path) -> Result<PathBuf, FilesError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let to = self.root.join(format!("{TRASH_PREFIX}{number}"));
        std::fs::rename(folder, &to).map_err(disk("move", folder))?;
        Ok(to)
    }

    /// Whether everything in every folder below `top` may be removed.
    fn may_empty(&self, person: &Person, top: &TreePath) -> Result<(), FilesError> {
        if person.administrator {
            return Ok(());
        }
        let mut open = vec![top.clone()];
        while let Some(path) = open.pop() {
            let Some(folder) = self.find(&path)? else {
                continue;
            };
            let names = visible_names(&folder.disk)?;
            if !names.is_empty() {
                person.check(&path, &folder.attributes, Access::ALL)?;
            }
            for name in names {
                let below = path.join(&name);
                self.refuse_staging(&below)?;
                if let Some(entry) = self.find(&below)? {
                    person.check_sticky(&below, &folder.attributes, &entry.attributes)?;
                    if entry.metadata.is_dir() {
                        open.push(below);
                    }
                }
            }
        }
        Ok(())
    }

    /// RENAME without options: into `to` if that is a folder; `false` when it cannot be.
    pub(crate) fn rename(
        &self,
        person: &Person,
        from: &TreePath,
        to: &TreePath,
    ) -> Result<bool, FilesError> {
        let _order = self.changing();
        self.make_home(person, to)?;
        self.traverse(person, from)?;
        let Some(source) = self.find(from)? else {
            return Ok(false);
        };
        if from == to {
            return Ok(!source.metadata.is_dir());
        }
        self.traverse(person, to)?;
        let to = match self.find(to)? {
            Some(target) if target.metadata.is_dir() => to.join(from.name()),
            Some(_) => return Ok(false),
            None => to.clone(),
        };
        let parent_is_there = match to.parent() {
            Some(parent) => self.find(&parent)?.is_some_and(|p| p.metadata.is_dir()),
            None => false,
        };
        if to.is_in(from) || !parent_is_there || self.find(&to)?.is_some() {
            return Ok(false);
        }
        self.traverse(person, &to)?;
        self.move_over(person, from, &source, &to)?;
        Ok(true)
    }

    /// RENAME with options: exactly to `to`, over a file or an empty folder if `overwrite`.
    pub(crate) fn rename_exactly(
        &self,
        person: &Person,
        from: &TreePath,
        to: &TreePath,
        overwrite: bool,
    ) -> Result<(), FilesError> {
        let _order = self.changing();
        let source = self.reach(person, from)?;
        self.traverse(person, to)?;
        if from == to {
            return Err(FilesError::Exists(format!("source and target {to}")));
        }
        if to.is_in(from) {
            return Err(FilesError::Illegal(format!("{to} stands below {from}")));
        }
        if let Some(target) = self.find(to)? {
            if !overwrite {
                return Err(FilesError::Exists(to.to_string()));
            }
            match (source.metadata.is_dir(), target.metadata.is_dir()) {
                (true, false) => return Err(FilesError::NotAFolder(to.to_string())),
                (false, true) => return Err(FilesError::IsAFolder(to.to_string())),
                (true, true) if !visible_names(&target.disk)?.is_empty() => {
                    return Err(FilesError::NotEmpty(to.to_string()));
                }
                (true, true) | (false, false) => self.may_take(person, to, &target)?,
            }
        }
        match to.parent().map(|p| (self.find(&p), p)) {
            Some((Ok(Some(parent)), _)) if parent.metadata.is_dir() => {}
            Some((Ok(Some(_)), parent)) => return Err(FilesError::NotAFolder(parent.to_string())),
            Some((Err(e), _)) => return Err(e),
            Some((Ok(None), parent)) => return Err(FilesError::NotFound(parent.to_string())),
            None => return Err(FilesError::Exists(to.to_string())),
        }
        self.move_over(person, from, &source, to)
    }

    fn move_over(
        &self,
        person: &Person,
        from: &TreePath,
        source: &Found,
        to: &TreePath,
    ) -> Result<(), FilesError> {
        self.may_take(person, from, source)?;
        self.refuse_staging(to)?;
        // A home, with the staging part in it, stays where its name says whose it is.
        if from.components().len() == 2 && from.home_owner().is_some() {
            return Err(FilesError::Denied(format!("{from} is a home")));
        }
        self.may_add_below(person, to)?;
        // What was described by its place keeps its description at the new one.
        source.attributes.write(&source.disk)?;
        let target = to.on_disk(&self.root);
        std::fs::rename(&source.disk, &target).map_err(disk("rename", &source.disk))?;
        sync_parent(&target)?;
        sync_parent(&source.disk)
    }

    /// Changes attributes that only the owner changes.
    fn change(
        &self,
        person: &Person,
        path: &TreePath,
        edit: impl FnOnce(&mut Attributes) -> Result<(), FilesError>,
    ) -> Result<(), FilesError> {
        let _order = self.changing();
        let found = self.reach(person, path)?;
        person.check_owner(path, &found.attributes)?;
        self.refuse_staging(path)?;
        if path.is_fixed() && !person.administrator {
            return Err(FilesError::Denied(format!("{path} is the tree's own")));
        }
        let mut attributes = found.attributes.clone();
        edit(&mut attributes)?;
        if attributes != found.attributes {
            attributes.write(&found.disk)?;
            sync(&found.disk)?;
        }
        Ok(())
    }

    /// SETPERMISSION.
    pub(crate) fn set_mode(
        &self,
        person: &Person,
        path: &TreePath,
        mode: u32,
    ) -> Result<(), FilesError> {
        self.change(person, path, |attributes| {
            attributes.mode = mode & 0o1777;
            Ok(())
        })
    }

    /// SETOWNER: administrators give anything to anybody, owners to one of their groups.
    pub(crate) fn set_owner(
        &self,
        person: &Person,
        path: &TreePath,
        owner: Option<&str>,
        group: Option<&str>,
    ) -> Result<(), FilesError> {
        self.change(person, path, |attributes| {
            let denied = |what: &str| Err(FilesError::Denied(format!("{} {what}", person.name)));
            if let Some(owner) = owner.filter(|o| *o != attributes.owner) {
                if !person.administrator {
                    return denied("is not an administrator, who may give files away");
                }
                owner.clone_into(&mut attributes.owner);
            }
            if let Some(group) = group.filter(|g| *g != attributes.group) {
                if !person.administrator && !person.groups.iter().any(|g| g == group) {
                    return denied(&format!("is not in the group {group}"));
                }
                group.clone_into(&mut attributes.group);
            }
            Ok(())
        })
    }

    /// SETTIMES, for who may write.
    pub(crate) fn set_times(
        &self,
        person: &Person,
        path: &TreePath,
        change: TimesChange,
    ) -> Result<(), FilesError> {
        let _order = self.changing();
        let found = self.reach(person, path)?;
        person.check(path, &found.attributes, Access::WRITE)?;
        self.refuse_staging(path)?;
        let at = |ms: u64| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
        let mut times = FileTimes::new();
        if let Some(modified) = change.modified_ms.and_then(at) {
            times = times.set_modified(modified);
        }
        if let Some(accessed) = change.accessed_ms.and_then(at) {
            times = times.set_accessed(accessed);
        }
        File::open(&found.disk)
            .and_then(|file| {
                file.set_times(times)?;
                file.sync_all()
            })
            .map_err(disk("set the times of", &found.disk))
    }
}

#[cfg(test)]
mod tests;
