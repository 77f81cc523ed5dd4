//! What a container sees beyond the shared base: its own `/proc`, terminals, memory file systems,
//! and the host's folders that were asked for.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, fstat, mknod};

use crate::base::{Builder, Failed, failed};
use crate::plan::{self, Attachment, RootPlan};
use crate::spec::Limits;
use crate::sys;

/// Files of `/proc` that tell about the host or act on it.
const MASKED: [&CStr; 5] = [
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/sysrq-trigger",
    c"/proc/timer_list",
    c"/proc/kmsg",
];

pub(crate) fn mount_proc(to: &CStr) -> Result<(), Failed> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    sys::mount_new(c"proc", to, flags, c"").map_err(failed("mount /proc"))
}

/// What of `/proc` is closed, and the terminals, which belong to this container alone.
pub(crate) fn mount_kernel_files(builder: Builder) -> Result<(), Failed> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    sys::mount_flags(c"/proc/sys", c"/proc/sys", libc::MS_BIND)
        .map_err(failed("bind /proc/sys"))?;
    sys::mount_flags(
        c"none",
        c"/proc/sys",
        libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | flags,
    )
    .map_err(failed("make /proc/sys read-only"))?;
    for file in MASKED {
        match sys::mount_flags(c"/dev/null", file, libc::MS_BIND) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                return Err(failed(format!("mask {}", file.to_string_lossy()))(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let options = match builder {
        Builder::Root => c"newinstance,ptmxmode=0666,mode=0620,gid=5",
        Builder::UserNamespace => c"newinstance,ptmxmode=0666,mode=0620",
    };
    sys::mount_new(
        c"devpts",
        c"/dev/pts",
        libc::MS_NOSUID | libc::MS_NOEXEC,
        options,
    )
    .map_err(failed("mount /dev/pts"))
}

/// Opens every source of the plan as a detached mount with its restrictions on.
///
/// No symbolic link is followed. Called by whoever sees the host's tree with the needed right: the
/// monitor, or PID 1 itself in its user namespace.
pub(crate) fn open_trees(plan: &RootPlan) -> Result<Vec<(usize, OwnedFd)>, Failed> {
    let mut trees = Vec::with_capacity(plan.attachments.len());
    for (index, attachment) in plan.attachments.iter().enumerate() {
        match open_source(attachment) {
            Ok(tree) => trees.push((index, tree)),
            Err(error) if attachment.optional && error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                let step = match source.raw_os_error() {
                    Some(libc::ELOOP) => "open without following a symbolic link",
                    _ => "open",
                };
                return Err(Failed {
                    step: format!("{step} {}", attachment.source.display()),
                    source,
                });
            }
        }
    }
    Ok(trees)
}

fn open_source(attachment: &Attachment) -> io::Result<OwnedFd> {
    let path = CString::new(attachment.source.as_os_str().as_bytes())?;
    let source = sys::open_strict(libc::AT_FDCWD, &path, libc::O_PATH, 0)?;
    let tree = sys::open_tree(source.as_raw_fd(), c"", attachment.depth)?;
    let mut flags = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV;
    if !attachment.writable {
        flags |= sys::MOUNT_ATTR_RDONLY;
    }
    sys::restrict(tree.as_fd(), flags)?;
    Ok(tree)
}

/// Makes the folders of the plan's first components in the base that all containers share.
pub(crate) fn make_tops(base: i32, plan: &RootPlan) -> Result<(), Failed> {
    let mut last: Option<&std::ffi::OsStr> = None;
    for attachment in &plan.attachments {
        let Some(top) = attachment.target.components().nth(1) else {
            continue;
        };
        let top = top.as_os_str();
        if last == Some(top) || top == "tmp" || top == "run" {
            continue;
        }
        last = Some(top);
        if plan::SYSTEM_FOLDERS.iter().any(|folder| top == *folder) {
            continue;
        }
        // SAFETY: the descriptor is either a valid folder or AT_FDCWD and outlives the call.
        let base = unsafe { BorrowedFd::borrow_raw(base) };
        match nix::sys::stat::mkdirat(base, Path::new(top), Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => {
                return Err(failed(format!("make /{}", top.to_string_lossy()))(error));
            }
        }
    }
    Ok(())
}

/// The file systems in memory that only this container has.
pub(crate) fn mount_private(limits: &Limits, plan: &RootPlan) -> Result<(), Failed> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    let size = limits.tmp_mib.max(1);
    let options = CString::new(format!("mode=1777,size={size}m")).unwrap_or_default();
    sys::mount_new(c"tmpfs", c"/tmp", flags, &options).map_err(failed("mount /tmp"))?;
    sys::mount_new(c"tmpfs", c"/dev/shm", flags, &options).map_err(failed("mount /dev/shm"))?;
    for top in &plan.tops {
        sys::mount_new(c"tmpfs", top, flags, c"mode=0755,size=1m")
            .map_err(failed(format!("mount {}", top.to_string_lossy())))?;
    }
    Ok(())
}

/// Attaches one tree at its target.
pub(crate) fn place(attachment: &Attachment, tree: &OwnedFd) -> io::Result<()> {
    let target = CString::new(attachment.target.as_os_str().as_bytes())?;
    for parent in &attachment.parents {
        match nix::unistd::mkdir(parent.as_c_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if attachment.fresh {
        make_point(&target, tree)?;
        return sys::attach(tree.as_fd(), &target);
    }
    let point = match sys::open_strict(libc::AT_FDCWD, &target, libc::O_PATH, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_point_inside(attachment, tree)?;
            sys::open_strict(libc::AT_FDCWD, &target, libc::O_PATH, 0)?
        }
        result => result?,
    };
    sys::attach_at(tree.as_fd(), point.as_fd())
}

/// A mount point of the tree's own kind in a tmpfs that nobody else has touched.
fn make_point(target: &CStr, tree: &OwnedFd) -> io::Result<()> {
    if is_folder(tree)? {
        nix::unistd::mkdir(target, Mode::from_bits_truncate(0o755))?;
    } else {
        mknod(target, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)?;
    }
    Ok(())
}

/// The same inside another bind, where a user may have put links: only the last component is made,
/// in a parent that was opened without following any.
fn make_point_inside(attachment: &Attachment, tree: &OwnedFd) -> io::Result<()> {
    let (Some(parent), Some(name)) = (attachment.target.parent(), attachment.target.file_name())
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = CString::new(parent.as_os_str().as_bytes())?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let parent = sys::open_strict(libc::AT_FDCWD, &parent, flags, 0)?;
    let mode = Mode::from_bits_truncate(0o755);
    if is_folder(tree)? {
        nix::sys::stat::mkdirat(parent.as_fd(), Path::new(name), mode)?;
    } else {
        let mode = Mode::from_bits_truncate(0o644);
        nix::sys::stat::mknodat(parent.as_fd(), Path::new(name), SFlag::S_IFREG, mode, 0)?;
    }
    Ok(())
}

fn is_folder(tree: &OwnedFd) -> io::Result<bool> {
    Ok(fstat(tree)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}
