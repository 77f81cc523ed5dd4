//! Folders of ended containers that are as they were made, for the next container of the same
//! application.
//!
//! Most containers leave their run folder, and many their work folder, as they found it. Making and
//! removing some eight folders for each was the largest part of an agent's time in a storm of short
//! containers. What differs from a new folder in anything that its user could have changed is not kept.
//! Nothing passes from one application to another.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bobbin_sandbox::{EXIT_TEMPORARY, START_TEMPORARY};
use bobbin_types::ApplicationId;
use nix::sys::stat::{SFlag, fstat};
use rustix::fs::{IFlags, flistxattr_query, ioctl_getflags};

use crate::folder::{Folder, Owner};

/// Kept at a time, of all applications and kinds.
const SPARES_MAX: usize = 96;
/// A folder that had many names in it stays large on most file systems.
const FOLDER_BYTES_MAX: i64 = 4096;
/// What a user may set on a folder of its own and a later container would notice.
const FLAGS: IFlags = IFlags::APPEND
    .union(IFlags::COMPRESSED)
    .union(IFlags::DIRSYNC)
    .union(IFlags::IMMUTABLE)
    .union(IFlags::JOURNALING)
    .union(IFlags::NOATIME)
    .union(IFlags::NOCOW)
    .union(IFlags::NODUMP)
    .union(IFlags::NOTAIL)
    .union(IFlags::PROJECT_INHERIT)
    .union(IFlags::SECURE_REMOVAL)
    .union(IFlags::SYNC)
    .union(IFlags::TOPDIR)
    .union(IFlags::UNRM);

/// Which folder of a container it was, and can be again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Work,
    Run,
    /// Only the agent and monitors write there. Its records are kept as files to be written anew: on a
    /// file system without a journal ext4 looks at each file removed in the last minute for each new one.
    Private,
}

/// One folder as it is made: its mode and whether it is the user's.
struct Made {
    name: &'static str,
    mode: u32,
    users: bool,
}

impl Kind {
    /// What is made in it.
    fn children(self) -> &'static [Made] {
        const fn made(name: &'static str, mode: u32, users: bool) -> Made {
            Made { name, mode, users }
        }
        match self {
            Kind::Work => const { &[made("tmp", 0o700, true)] },
            Kind::Run => const { &[made("bin", 0o755, false), made("secrets", 0o700, true)] },
            Kind::Private => &[],
        }
    }
}

#[derive(Debug)]
struct Spare {
    application: ApplicationId,
    kind: Kind,
    name: String,
}

#[derive(Debug, Default)]
struct State {
    counter: u64,
    /// Oldest first.
    spares: VecDeque<Spare>,
    /// Of applications that make containers here.
    owners: HashMap<ApplicationId, Owner>,
}

/// The spares, by their names in a folder that nobody but the agent can enter.
#[derive(Debug)]
pub(crate) struct SpareFolders {
    folder: Folder,
    state: Mutex<State>,
}

impl SpareFolders {
    /// Spares of an earlier agent are removed: nobody knows whose they were.
    ///
    /// # Errors
    /// One of them cannot be removed.
    pub(crate) fn open(folder: Folder) -> io::Result<SpareFolders> {
        for name in folder.names()? {
            folder.remove_tree(&name)?;
        }
        Ok(SpareFolders {
            folder,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whose an application's folders are; without it nothing of it is kept.
    pub(crate) fn note_owner(&self, application: ApplicationId, owner: Owner) {
        self.state().owners.insert(application, owner);
    }

    /// Puts a spare under this name; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be moved there.
    pub(crate) fn take(
        &self,
        application: ApplicationId,
        kind: Kind,
        parent: &Folder,
        name: &str,
    ) -> io::Result<Option<Folder>> {
        let spare = {
            let mut state = self.state();
            let at = state
                .spares
                .iter()
                .position(|spare| spare.application == application && spare.kind == kind);
            at.and_then(|at| state.spares.remove(at))
        };
        let Some(spare) = spare else { return Ok(None) };
        self.folder.rename(&spare.name, parent, name)?;
        parent.folder(name).map(Some)
    }

    /// Keeps the folder of an ended container if it is as it was made; false leaves it where it is.
    ///
    /// # Errors
    /// It cannot be looked at or moved.
    pub(crate) fn keep(
        &self,
        application: ApplicationId,
        kind: Kind,
        parent: &Folder,
        name: &str,
    ) -> io::Result<bool> {
        let owner = {
            let state = self.state();
            match state.owners.get(&application) {
                Some(owner) if state.spares.len() < SPARES_MAX => *owner,
                Some(_) | None => return Ok(false),
            }
        };
        if !is_as_made(parent, name, kind, owner)? {
            return Ok(false);
        }
        let spare = {
            let mut state = self.state();
            state.counter += 1;
            state.counter.to_string()
        };
        parent.rename(name, &self.folder, &spare)?;
        let mut state = self.state();
        if state.owners.contains_key(&application) {
            state.spares.push_back(Spare {
                application,
                kind,
                name: spare,
            });
            return Ok(true);
        }
        drop(state);
        // The application has ended meanwhile.
        self.folder.remove_tree(&spare)?;
        Ok(true)
    }

    /// Removes what an ended application has.
    ///
    /// # Errors
    /// A folder cannot be removed.
    pub(crate) fn forget(&self, application: &ApplicationId) -> io::Result<()> {
        let names: Vec<String> = {
            let mut state = self.state();
            state.owners.remove(application);
            let (gone, kept): (VecDeque<Spare>, VecDeque<Spare>) =
                std::mem::take(&mut state.spares)
                    .into_iter()
                    .partition(|spare| spare.application == *application);
            state.spares = kept;
            gone.into_iter().map(|spare| spare.name).collect()
        };
        names
            .iter()
            .try_for_each(|name| self.folder.remove_tree(name))
    }
}

/// Whether nobody could tell the folder from a new one.
fn is_as_made(parent: &Folder, name: &str, kind: Kind, owner: Owner) -> io::Result<bool> {
    let flags = flags_of(parent);
    let (folder, expected) = match kind {
        Kind::Work | Kind::Run => (parent.folder(name)?, owner),
        Kind::Private => (parent.folder(name)?, None),
    };
    if !is_untouched(&folder, 0o700, expected, flags)? {
        return Ok(false);
    }
    if kind == Kind::Private {
        return folder.has_only(&[START_TEMPORARY, EXIT_TEMPORARY]);
    }
    for made in kind.children() {
        let child = match folder.folder(made.name) {
            Ok(child) => child,
            // It is made when it is needed.
            Err(e) if e.kind() == io::ErrorKind::NotFound && kind == Kind::Run => continue,
            // Gone, a link, a file, or closed.
            Err(_) => return Ok(false),
        };
        let expected = if made.users { owner } else { None };
        if !is_untouched(&child, made.mode, expected, flags)? || !child.has_only(&[])? {
            return Ok(false);
        }
    }
    let names: Vec<&str> = kind.children().iter().map(|made| made.name).collect();
    folder.has_only(&names)
}

/// Mode, owner, size, attributes and flags are those of a new folder.
fn is_untouched(folder: &Folder, mode: u32, owner: Owner, flags: IFlags) -> io::Result<bool> {
    let stat = fstat(folder)?;
    let (uid, gid) = owner.unwrap_or_else(|| {
        (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        )
    });
    let same = stat.st_mode == SFlag::S_IFDIR.bits() | mode
        && (stat.st_uid, stat.st_gid) == (uid, gid)
        && stat.st_size <= FOLDER_BYTES_MAX;
    // A file system without attributes has none that were set.
    let plain = match flistxattr_query(folder) {
        Ok(bytes) => bytes == 0,
        Err(e) => e == rustix::io::Errno::NOTSUP,
    };
    Ok(same && plain && flags_of(folder) == flags)
}

/// Flags that count; none where the file system has none.
fn flags_of(folder: &Folder) -> IFlags {
    ioctl_getflags(folder).map_or(IFlags::empty(), |flags| flags & FLAGS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    struct Place {
        dir: tempfile::TempDir,
        parent: Folder,
        spares: SpareFolders,
    }

    fn application(number: u32) -> ApplicationId {
        format!("application_7_{number:04}").parse().unwrap()
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let top = Folder::open(dir.path()).unwrap();
        let spares = SpareFolders::open(top.make("spare", 0o700, None).unwrap()).unwrap();
        spares.note_owner(application(1), None);
        let parent = top.make("parent", 0o710, None).unwrap();
        Place {
            dir,
            parent,
            spares,
        }
    }

    impl Place {
        fn work(&self, name: &str) -> PathBuf {
            let work = self.parent.make(name, 0o700, None).unwrap();
            work.make("tmp", 0o700, None).unwrap();
            self.dir.path().join("parent").join(name)
        }

        fn keep(&self, name: &str) -> bool {
            (self.spares)
                .keep(application(1), Kind::Work, &self.parent, name)
                .unwrap()
        }

        fn spares_on_disk(&self) -> usize {
            fs::read_dir(self.dir.path().join("spare")).unwrap().count()
        }
    }

    #[test]
    fn an_untouched_folder_is_used_again_by_its_application_alone() {
        let place = place();
        let path = place.work("c1");
        assert!(place.keep("c1"));
        assert!(!path.exists());
        let take = |number, kind| {
            (place.spares)
                .take(application(number), kind, &place.parent, "c2")
                .unwrap()
        };
        assert!(take(2, Kind::Work).is_none());
        assert!(take(1, Kind::Run).is_none());
        assert!(take(1, Kind::Work).unwrap().has_only(&["tmp"]).unwrap());
        assert!(take(1, Kind::Work).is_none(), "it is used once");
        assert_eq!(place.spares_on_disk(), 0);
    }

    #[test]
    fn whatever_its_user_changed_is_seen() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 9] = [
            ("file", |work| fs::write(work.join("f"), "").unwrap()),
            ("deep", |work| fs::write(work.join("tmp/f"), "").unwrap()),
            ("odd", |work| {
                use std::os::unix::ffi::OsStrExt;
                let name = std::ffi::OsStr::from_bytes(b"\xff");
                fs::write(work.join(name), "").unwrap();
            }),
            ("gone", |work| fs::remove_dir(work.join("tmp")).unwrap()),
            ("link", |work| {
                fs::remove_dir(work.join("tmp")).unwrap();
                symlink("/etc", work.join("tmp")).unwrap();
            }),
            ("open", |work| {
                fs::set_permissions(work, Permissions::from_mode(0o777)).unwrap();
            }),
            ("sticky", |work| {
                fs::set_permissions(work.join("tmp"), Permissions::from_mode(0o1700)).unwrap();
            }),
            ("flag", |work| {
                let folder = Folder::open(work).unwrap();
                let flags = ioctl_getflags(&folder).unwrap();
                rustix::fs::ioctl_setflags(&folder, flags | IFlags::NODUMP).unwrap();
            }),
            ("large", |work| {
                for number in 0..400 {
                    fs::write(work.join(format!("{number:0100}")), "").unwrap();
                }
                for number in 0..400 {
                    fs::remove_file(work.join(format!("{number:0100}"))).unwrap();
                }
            }),
        ];
        let place = place();
        for (name, change) in changes {
            let work = place.work(name);
            // Some file systems have no flags, and some shrink their folders.
            let probe = Folder::open(&work).unwrap();
            if name == "flag" && ioctl_getflags(&probe).is_err() {
                continue;
            }
            change(&work);
            if name == "large" && fs::metadata(&work).unwrap().len() <= 4096 {
                continue;
            }
            assert!(!place.keep(name), "{name}");
            assert!(work.exists(), "{name}");
        }
        assert_eq!(place.spares_on_disk(), 0);
    }

    #[test]
    fn an_ended_application_keeps_nothing_and_spares_are_bounded() {
        let place = place();
        for number in 0..=SPARES_MAX {
            place.work(&format!("c{number}"));
            assert_eq!(place.keep(&format!("c{number}")), number < SPARES_MAX);
        }
        place.spares.forget(&application(1)).unwrap();
        assert_eq!(place.spares_on_disk(), 0);
        place.work("late");
        assert!(!place.keep("late"));
    }
}
