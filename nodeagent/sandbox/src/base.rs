//! The part of a root that all containers share, built once by the server.
//!
//! It stands alone in a mount namespace of its own, without the host's tree.
//! A container starts with a copy of that small namespace, so there is nothing to detach (which
//! waits for the kernel's readers) and the host's mounts are not copied for every launch.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::plan::SYSTEM_FOLDERS;
use crate::sys::{self, Depth};

/// Where the base is put together; any folder that every host has.
const WORKSHOP: &CStr = c"/tmp";

const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Who puts the base together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builder {
    /// Real root: makes devices and hides what is mounted below `/sys`.
    Root,
    /// Root of a user namespace: binds devices, and everything below what it binds.
    UserNamespace,
}

/// What the server keeps of the base.
#[derive(Debug)]
pub(crate) struct Base {
    /// The namespace that holds nothing but the base.
    pub(crate) namespace: OwnedFd,
    /// The base's root through a writable mount: for further mount points in it.
    pub(crate) writable_root: OwnedFd,
}

/// A step that failed, in words.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) step: String,
    pub(crate) source: io::Error,
}

pub(crate) fn failed<T>(step: impl Into<String>) -> impl FnOnce(T) -> Failed
where
    T: Into<io::Error>,
{
    let step = step.into();
    move |error| Failed {
        step,
        source: error.into(),
    }
}

impl Base {
    /// Builds it in a child process, which then ends: the namespace lives on behind its descriptor.
    pub(crate) fn build() -> Result<Base, Failed> {
        let (ours, theirs) = UnixStream::pair().map_err(failed("socket pair"))?;
        let new_mounts = u64::from(libc::CLONE_NEWNS.unsigned_abs());
        let Some(pid) = sys::fork_into(new_mounts, None).map_err(failed("new mount namespace"))?
        else {
            let code = match build_in_child(&theirs) {
                Ok(()) => 0,
                Err(error) => {
                    let words = format!("{}: {}", error.step, error.source);
                    // The parent sees the end of the stream if even this fails.
                    let _ = io::Write::write_all(&mut &theirs, words.as_bytes());
                    1
                }
            };
            sys::leave(code);
        };
        drop(theirs);
        let base = receive_base(&ours);
        // It ends by itself right after it has written.
        let _ = waitpid(Pid::from_raw(pid), None);
        base
    }
}

fn build_in_child(parent: &UnixStream) -> Result<(), Failed> {
    // Opened before /proc is out of sight.
    let namespace = fs::File::open("/proc/self/ns/mnt").map_err(failed("own mount namespace"))?;
    assemble(Builder::Root)?;
    let root = sys::open_tree(libc::AT_FDCWD, c".", Depth::Alone)
        .map_err(failed("a writable copy of the base"))?;
    finish()?;
    let fds = [namespace.as_raw_fd(), root.as_raw_fd()];
    sendmsg::<()>(
        parent.as_raw_fd(),
        &[IoSlice::new(b"R")],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::empty(),
        None,
    )
    .map_err(failed("hand the base over"))?;
    Ok(())
}

fn receive_base(stream: &UnixStream) -> Result<Base, Failed> {
    let mut word = [0_u8; 512];
    let mut space = nix::cmsg_space!([i32; 2]);
    let mut parts = [IoSliceMut::new(&mut word)];
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .map_err(failed("receive the base"))?;
    let length = message.bytes;
    let mut fds = Vec::new();
    for part in message.cmsgs().map_err(failed("receive the base"))? {
        if let ControlMessageOwned::ScmRights(received) = part {
            // SAFETY: the kernel just made these descriptors for us.
            fds.extend(
                received
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    match <[OwnedFd; 2]>::try_from(fds) {
        Ok([namespace, writable_root]) => Ok(Base {
            namespace,
            writable_root,
        }),
        Err(_) => Err(Failed {
            step: format!("base root: {}", String::from_utf8_lossy(&word[..length])),
            source: io::Error::from_raw_os_error(libc::EIO),
        }),
    }
}

/// Puts the base together in the current folder of this process, which is then its root.
///
/// The mount namespace must be this process's own.
pub(crate) fn assemble(builder: Builder) -> Result<(), Failed> {
    // Modes are given exactly.
    nix::sys::stat::umask(Mode::empty());
    sys::mount_flags(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE)
        .map_err(failed("leave the host's mount propagation"))?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    sys::mount_new(c"tmpfs", WORKSHOP, flags, c"mode=0755,size=4m")
        .map_err(failed("tmpfs for the base"))?;
    nix::unistd::chdir(WORKSHOP).map_err(failed("enter the base"))?;
    for folder in SYSTEM_FOLDERS {
        bind_system(folder)?;
    }
    for (folder, mode) in [
        ("proc", 0o555),
        ("sys", 0o555),
        ("dev", 0o755),
        ("tmp", 0o1777),
        ("run", 0o755),
    ] {
        make_folder(Path::new(folder), mode)?;
    }
    make_folder(Path::new("run/bobbin"), 0o755)?;
    let depth = match builder {
        Builder::Root => Depth::Alone,
        Builder::UserNamespace => Depth::WithSubmounts,
    };
    let read_only = sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV;
    bind(
        Path::new("/sys"),
        Path::new("sys"),
        depth,
        read_only | sys::MOUNT_ATTR_NOEXEC,
    )?;
    make_devices(builder)
}

/// Makes the base read-only and the only thing in this mount namespace.
pub(crate) fn finish() -> Result<(), Failed> {
    let flags =
        libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV;
    sys::mount_flags(c"none", c".", flags).map_err(failed("make the base read-only"))?;
    sys::pivot_here().map_err(failed("make the base the root"))
}

fn bind_system(folder: &str) -> Result<(), Failed> {
    let host = Path::new("/").join(folder);
    let Ok(kind) = fs::symlink_metadata(&host) else {
        return Ok(());
    };
    if kind.is_symlink() {
        let to = fs::read_link(&host).map_err(failed(format!("read {}", host.display())))?;
        return std::os::unix::fs::symlink(to, folder)
            .map_err(failed(format!("link {}", host.display())));
    }
    make_folder(Path::new(folder), 0o755)?;
    let flags = sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV;
    bind(&host, Path::new(folder), Depth::WithSubmounts, flags)
}

fn bind(from: &Path, to: &Path, depth: Depth, flags: u64) -> Result<(), Failed> {
    let step = || format!("bind {}", from.display());
    let from = c_path(from);
    let tree = sys::open_tree(libc::AT_FDCWD, &from, depth).map_err(failed(step()))?;
    sys::restrict(tree.as_fd(), flags).map_err(failed(step()))?;
    sys::attach(tree.as_fd(), &c_path(to)).map_err(failed(step()))
}

fn make_folder(path: &Path, mode: u32) -> Result<(), Failed> {
    nix::unistd::mkdir(path, Mode::from_bits_truncate(mode))
        .map_err(failed(format!("make {}", path.display())))
}

fn make_devices(builder: Builder) -> Result<(), Failed> {
    if builder == Builder::Root {
        let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
        sys::mount_new(c"tmpfs", c"dev", flags, c"mode=0755,size=64k")
            .map_err(failed("tmpfs for /dev"))?;
    }
    for (name, major, minor) in DEVICES {
        let path = Path::new("dev").join(name);
        match builder {
            Builder::Root => {
                let mode = Mode::from_bits_truncate(0o666);
                mknod(&path, SFlag::S_IFCHR, mode, makedev(major, minor))
                    .map_err(failed(format!("make /{}", path.display())))?;
            }
            Builder::UserNamespace => {
                fs::write(&path, b"").map_err(failed(format!("make /{}", path.display())))?;
                bind(&Path::new("/dev").join(name), &path, Depth::Alone, 0)?;
            }
        }
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        std::os::unix::fs::symlink(to, Path::new("dev").join(name))
            .map_err(failed(format!("link /dev/{name}")))?;
    }
    make_folder(Path::new("dev/pts"), 0o755)?;
    make_folder(Path::new("dev/shm"), 0o1777)?;
    if builder == Builder::Root {
        // Devices stay usable on a read-only mount; nothing can be added or exchanged.
        let flags =
            libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NOEXEC;
        sys::mount_flags(c"none", c"dev", flags).map_err(failed("make /dev read-only"))?;
    }
    Ok(())
}

/// The file behind a linked `/etc/resolv.conf`, which lies outside the system folders.
pub(crate) fn resolv_target() -> Option<PathBuf> {
    let link = Path::new("/etc/resolv.conf");
    if !fs::symlink_metadata(link).ok()?.is_symlink() {
        return None;
    }
    let target = fs::canonicalize(link).ok()?;
    let top = target.components().nth(1)?;
    let in_system = SYSTEM_FOLDERS
        .iter()
        .any(|folder| top.as_os_str() == *folder);
    (!in_system).then_some(target)
}

/// A path of our own making, which holds no NUL.
fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default()
}
