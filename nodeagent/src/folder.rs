//! An open folder, and file work below it that never leaves it.
//!
//! The agent is root and users can write below some of its folders. So every path is resolved from an
//! open folder with openat2 (`RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`): a link or `..` that a user
//! put there is an error, not a way out. Source: openat2(2).

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmod, fchmodat, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, symlinkat, unlinkat};

/// Folders deeper than this are moved up before they are emptied: a user's tree may be deeper than
/// the agent has file descriptors.
const DEPTH_MAX: u32 = 48;

/// An owner that a new file or folder gets; `None` leaves the agent's own.
pub(crate) type Owner = Option<(u32, u32)>;

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Folder> for OwnedFd {
    fn from(folder: Folder) -> OwnedFd {
        folder.fd
    }
}

fn how(flags: OFlag, mode: Mode) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(mode)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        )
}

fn with_mode(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode)
}

impl Folder {
    /// Opens a folder that only the administrator can have put there.
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Folder {
            fd: nix::fcntl::open(path, flags, Mode::empty())?,
        })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Folder> {
        Ok(Folder {
            fd: self.fd.try_clone()?,
        })
    }

    /// Opens a folder below this one.
    pub(crate) fn folder(&self, path: impl AsRef<Path>) -> io::Result<Folder> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        Ok(Folder {
            fd: openat2(&self.fd, path.as_ref(), how(flags, Mode::empty()))?,
        })
    }

    /// Makes a folder of one name, or takes the one that is there; mode and owner are given only to
    /// a new one.
    pub(crate) fn make(&self, name: &str, mode: u32, owner: Owner) -> io::Result<Folder> {
        match mkdirat(&self.fd, name, with_mode(0o700)) {
            Ok(()) => {
                let made = self.folder(name)?;
                made.set_owner(owner)?;
                if mode != 0o700 {
                    fchmod(&made.fd, with_mode(mode))?;
                }
                Ok(made)
            }
            Err(Errno::EEXIST) => self.folder(name),
            Err(e) => Err(e.into()),
        }
    }

    pub(crate) fn set_owner(&self, owner: Owner) -> io::Result<()> {
        if let Some((uid, gid)) = owner {
            fchown(&self.fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(())
    }

    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fchmod(&self.fd, with_mode(mode))?)
    }

    /// Opens what is there for reading, whatever it is, without waiting (a fifo would).
    pub(crate) fn read(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        Ok(openat2(&self.fd, path.as_ref(), how(flags, Mode::empty()))?.into())
    }

    /// Creates a file that must not be there yet.
    pub(crate) fn create(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        Ok(openat2(&self.fd, Path::new(name), how(flags, with_mode(mode)))?.into())
    }

    /// Writes a whole small new file.
    pub(crate) fn write(
        &self,
        name: &str,
        bytes: &[u8],
        mode: u32,
        owner: Owner,
    ) -> io::Result<()> {
        let mut file = self.create(OsStr::new(name), 0o600)?;
        file.write_all(bytes)?;
        give(&file, mode, owner)
    }

    pub(crate) fn symlink(&self, target: &OsStr, name: &OsStr) -> io::Result<()> {
        Ok(symlinkat(Path::new(target), &self.fd, Path::new(name))?)
    }

    pub(crate) fn unlink(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(
            &self.fd,
            Path::new(name),
            UnlinkatFlags::NoRemoveDir,
        )?)
    }

    /// What has this name, a link itself and not its target; `None` when nothing has.
    pub(crate) fn look(&self, name: &OsStr) -> io::Result<Option<FileStat>> {
        match fstatat(&self.fd, Path::new(name), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    pub(crate) fn rename(&self, name: &str, to: &Folder, new_name: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, name, &to.fd, new_name)?)
    }

    /// Names in this folder, sorted, without `.` and `..`; names that are no UTF-8 are left out.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        self.names_up_to(usize::MAX)
    }

    /// As [`Folder::names`], of a folder in which a user may have made any number of them: `most`.
    pub(crate) fn names_up_to(&self, most: usize) -> io::Result<Vec<String>> {
        let mut names: Vec<_> = self
            .raw_names(most)?
            .into_iter()
            .filter_map(|(name, _)| name.into_string().ok())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Whether every name in this folder is one of these, names that are no UTF-8 included.
    pub(crate) fn has_only(self, names: &[&str]) -> io::Result<bool> {
        let mut dir = nix::dir::Dir::from_fd(self.fd)?;
        for entry in dir.iter() {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            let is_known = name.to_str().is_ok_and(|name| names.contains(&name));
            if name != c"." && name != c".." && !is_known {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn raw_names(&self, most: usize) -> io::Result<Vec<(std::ffi::CString, bool)>> {
        // A second description: reading must not depend on where another reader stands.
        let mut dir = nix::dir::Dir::from_fd(self.folder(".")?.fd)?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            if names.len() == most {
                break;
            }
            if name != c"." && name != c".." {
                let folder = entry.file_type() == Some(nix::dir::Type::Directory);
                names.push((name.to_owned(), folder));
            }
        }
        Ok(names)
    }

    /// Removes a tree in this folder, which nobody but the agent can write to. Follows no link.
    pub(crate) fn remove_tree(&self, name: &str) -> io::Result<()> {
        let mut counter = 0_u64;
        let mut trees = vec![name.to_owned()];
        while let Some(tree) = trees.pop() {
            match self.folder(tree.as_str()) {
                Ok(folder) => {
                    folder.empty(self, name, 0, &mut counter, &mut trees)?;
                    remove_dir(self, OsStr::new(&tree))?;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                // Not a folder (or a link): the name itself goes.
                Err(_) => match self.unlink(OsStr::new(&tree)) {
                    Err(e) if e.raw_os_error() == Some(Errno::EISDIR as i32) => {
                        // A folder that its owner closed; only in a rootless agent.
                        open_up(self, OsStr::new(&tree))?;
                        let folder = self.folder(tree.as_str())?;
                        folder.empty(self, name, 0, &mut counter, &mut trees)?;
                        remove_dir(self, OsStr::new(&tree))?;
                    }
                    other => other?,
                },
            }
        }
        Ok(())
    }

    fn empty(
        &self,
        top: &Folder,
        top_name: &str,
        depth: u32,
        counter: &mut u64,
        trees: &mut Vec<String>,
    ) -> io::Result<()> {
        let names = match self.raw_names(usize::MAX) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                self.set_mode(0o700)?;
                self.raw_names(usize::MAX)?
            }
            names => names?,
        };
        for (name, is_folder) in names {
            let name = OsStr::from_bytes(name.as_bytes());
            if !is_folder {
                match self.unlink(name) {
                    Ok(()) => continue,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    // A file system that does not tell types: it is a folder after all.
                    Err(e) if e.raw_os_error() == Some(Errno::EISDIR as i32) => {}
                    Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                        self.set_mode(0o700)?;
                        self.unlink(name)?;
                        continue;
                    }
                    Err(e) => return Err(e),
                }
            }
            if depth >= DEPTH_MAX {
                *counter += 1;
                let new_name = format!("{top_name}.{counter}");
                renameat(&self.fd, Path::new(name), &top.fd, new_name.as_str())?;
                trees.push(new_name);
                continue;
            }
            let folder = match self.folder(Path::new(name)) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    open_up(self, name)?;
                    self.folder(Path::new(name))?
                }
                folder => folder?,
            };
            folder.empty(top, top_name, depth + 1, counter, trees)?;
            remove_dir(self, name)?;
        }
        Ok(())
    }
}

fn open_up(parent: &Folder, name: &OsStr) -> io::Result<()> {
    let flags = FchmodatFlags::NoFollowSymlink;
    match fchmodat(&parent.fd, Path::new(name), with_mode(0o700), flags) {
        // Older kernels cannot refuse links here; the folder is the agent's own by now.
        Err(Errno::EOPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

fn remove_dir(parent: &Folder, name: &OsStr) -> io::Result<()> {
    match unlinkat(&parent.fd, Path::new(name), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Gives a file its final mode and owner; the owner first, since a change of owner drops modes.
pub(crate) fn give(file: &File, mode: u32, owner: Owner) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(fchmod(file, with_mode(mode))?)
}

/// Whether this is a regular file with no other name.
///
/// A second name could be of a file that somebody else may read and the asker may not.
pub(crate) fn is_plain_file(file: &File) -> io::Result<bool> {
    let stat = fstat(file)?;
    Ok(stat.st_mode & libc::S_IFMT == libc::S_IFREG && stat.st_nlink <= 1)
}
