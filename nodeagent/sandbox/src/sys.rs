//! The system calls that no crate wraps the way a launch needs them, each as thin as it can be.
//!
//! Everything here returns the kernel's error untouched; what was being done is said by the caller.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::sys::signal::SigSet;

/// Source: linux/mount.h.
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = 0o2_000_000;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const AT_EMPTY_PATH: libc::c_uint = 0x1000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x01;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x02;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x04;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 0x08;
/// Source: linux/openat2.h.
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;

/// Whether a tree is copied with the mounts below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    Alone,
    WithSubmounts,
}

fn check(result: libc::c_long) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel just returned this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Source: clone(2), `struct clone_args`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks into new namespaces, and into a v2 control group if one is given. Returns `None` in the
/// child.
///
/// The caller must be single-threaded, so that no lock is held by a thread the child does not have.
pub(crate) fn fork_into(namespaces: u64, group: Option<BorrowedFd<'_>>) -> io::Result<Option<i32>> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let sigchld = u64::from(libc::SIGCHLD.unsigned_abs());
    let number = group.and_then(|group| u64::try_from(group.as_raw_fd()).ok());
    let into = if number.is_some() {
        CLONE_INTO_CGROUP
    } else {
        0
    };
    let args = CloneArgs {
        flags: namespaces | into,
        exit_signal: sigchld,
        cgroup: number.unwrap_or(0),
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM this is a fork: the child goes on with a copy of this memory and
    // stack. The structure is valid for the size given. The process has one thread.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    let pid = check(result)?;
    Ok((pid != 0).then_some(pid))
}

/// A detached copy of the mount tree at `path` below `dir` (or `dir` itself for an empty path).
pub(crate) fn open_tree(dir: RawFd, path: &CStr, depth: Depth) -> io::Result<OwnedFd> {
    let mut flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    if path.is_empty() {
        flags |= AT_EMPTY_PATH;
    }
    if depth == Depth::WithSubmounts {
        flags |= AT_RECURSIVE;
    }
    // SAFETY: the path is NUL-terminated and outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })
}

/// Attaches a detached tree at a path.
pub(crate) fn attach(tree: BorrowedFd<'_>, to: &CStr) -> io::Result<()> {
    // SAFETY: both paths are NUL-terminated and outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Attaches a detached tree at the place an O_PATH descriptor stands for.
pub(crate) fn attach_at(tree: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both paths are NUL-terminated and outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            to.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Source: mount_setattr(2), `struct mount_attr`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Adds flags to a tree, submounts included, and takes it out of every propagation.
pub(crate) fn restrict(tree: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: flags,
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    // SAFETY: the structure is valid for the size given and the path is NUL-terminated.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            AT_EMPTY_PATH | AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// mount(2) of a new file system.
pub(crate) fn mount_new(
    kind: &CStr,
    to: &CStr,
    flags: libc::c_ulong,
    options: &CStr,
) -> io::Result<()> {
    // SAFETY: every string is NUL-terminated and outlives the call.
    check(
        unsafe {
            libc::mount(
                kind.as_ptr(),
                to.as_ptr(),
                kind.as_ptr(),
                flags,
                options.as_ptr().cast(),
            )
        }
        .into(),
    )
    .map(drop)
}

/// mount(2) that changes or binds what is there.
pub(crate) fn mount_flags(from: &CStr, to: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: every string is NUL-terminated and outlives the call; the others may be null.
    check(
        unsafe {
            libc::mount(
                from.as_ptr(),
                to.as_ptr(),
                std::ptr::null(),
                flags,
                std::ptr::null(),
            )
        }
        .into(),
    )
    .map(drop)
}

/// Makes the current folder the root and lets the former root go.
pub(crate) fn pivot_here() -> io::Result<()> {
    // SAFETY: the paths are NUL-terminated. Source: pivot_root(2), the case of two dots.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    // SAFETY: as above.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into())?;
    // SAFETY: as above.
    check(unsafe { libc::chdir(c"/".as_ptr()) }.into()).map(drop)
}

/// Source: openat2(2), `struct open_how`.
#[repr(C)]
#[derive(Default)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens without following any symbolic link anywhere in the path.
pub(crate) fn open_strict(dir: RawFd, path: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    // The call is strict about flags that mean nothing together.
    let extra = if flags & libc::O_PATH == 0 {
        libc::O_NOCTTY
    } else {
        0
    };
    let how = OpenHow {
        flags: u64::from((flags | libc::O_CLOEXEC | extra).unsigned_abs()),
        mode: u64::from(mode),
        resolve: RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    // SAFETY: the structure is valid for the size given and the path is NUL-terminated.
    owned(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir,
            path.as_ptr(),
            &raw const how,
            size_of::<OpenHow>(),
        )
    })
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the callers own nothing above; the numbers are only numbers.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Closes the descriptors from `first` to `last`; nothing if the range is empty.
pub(crate) fn close_between(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Enters the mount namespace behind the descriptor.
pub(crate) fn enter_mount_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: setns takes two integers.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) }.into()).map(drop)
}

/// Changes of this process that mostly take one number.
pub(crate) fn prctl(option: i32, argument: u64) -> io::Result<()> {
    // SAFETY: none of the options this crate uses takes a pointer through this function.
    check(unsafe { libc::prctl(option, argument, 0_u64, 0_u64, 0_u64) }.into()).map(drop)
}

/// The name that ps shows; at most 15 bytes are kept.
pub(crate) fn set_name(name: &CStr) {
    // SAFETY: the name is NUL-terminated. It cannot fail with a valid pointer.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Sets the soft and hard limit of a resource.
pub(crate) fn set_limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: the structure is valid and only read.
    check(unsafe { libc::setrlimit(resource, &raw const limit) }.into()).map(drop)
}

/// The same, but no more than the hard limit this process may not lift.
pub(crate) fn set_limit_within(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    match set_limit(resource, value) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let mut limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: the structure is valid to be written.
            check(unsafe { libc::getrlimit(resource, &raw mut limit) }.into())?;
            set_limit(resource, limit.rlim_max.min(value))
        }
        result => result,
    }
}

/// Becomes another user for good: groups, then group, then user.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the list is valid for the count given.
    check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }.into())?;
    // SAFETY: integers only.
    check(unsafe { libc::setresgid(gid, gid, gid) }.into())?;
    // SAFETY: integers only.
    check(unsafe { libc::setresuid(uid, uid, uid) }.into()).map(drop)
}

/// Gives every signal its default meaning, also those that a parent had ignored, which would stay
/// ignored in every program.
pub(crate) fn default_signals() {
    const HIGHEST: i32 = 64;
    // The kernel's own structure: handler, flags, restorer, mask.
    let default = [0_u64; 4];
    for signal in 1..=HIGHEST {
        // The library's function refuses the two signals it uses itself.
        // SAFETY: the structure is valid and only read; the default action runs no code. KILL and
        // STOP are refused, which is fine.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8_usize,
            )
        };
    }
}

/// Ignores SIGPIPE again: a write to a process that has gone is an error, not an end.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: ignoring runs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Installs a seccomp filter for this thread and its children.
pub(crate) fn install_filter(filter: &[libc::sock_filter]) -> io::Result<()> {
    let length =
        u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = libc::sock_fprog {
        len: length,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel only reads the program, which is valid for its length.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    })
    .map(drop)
}

/// The version of Landlock that the kernel speaks; 0 without it.
pub(crate) fn landlock_version() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the kernel takes no attributes and answers with a number.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u64>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(answer).unwrap_or(0)
}

/// Shuts this process and its children off from abstract unix sockets of everybody else's.
///
/// They have no file, so no mount hides them, and containers share the host's network. Source:
/// landlock(7), `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET`, ABI 6 (Linux 6.12).
///
/// # Errors
/// Why it cannot be done; a kernel without it (or where it is switched off) is none.
pub(crate) fn scope_abstract_sockets() -> io::Result<()> {
    const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
    // `struct landlock_ruleset_attr`: files, ports, scopes.
    let attributes = [0_u64, 0, SCOPE_ABSTRACT_UNIX_SOCKET];
    // SAFETY: the kernel reads the attributes, which are as long as it is told.
    let rules = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            attributes.as_ptr(),
            size_of_val(&attributes),
            0_u32,
        )
    });
    let rules = match rules {
        // E2BIG and EINVAL: an older kernel, which knows no (such) scope.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::E2BIG | libc::EINVAL)
            ) =>
        {
            return Ok(());
        }
        rules => rules?,
    };
    // SAFETY: the kernel just made this descriptor for us.
    let rules = unsafe { OwnedFd::from_raw_fd(rules) };
    // SAFETY: it takes a descriptor and flags.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0_u32) })
        .map(drop)
}

/// Lets go of the session keyring of whoever started this process.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a null name asks for a new anonymous keyring.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    })
    .map(drop)
}

/// Leaves the process without running anything of the copied parent.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory.
    unsafe { libc::_exit(code) }
}
/// Waits for one of the signals, which are blocked; until a moment, if there is one. `None`: it has
/// passed, or the wait was interrupted.
pub(crate) fn wait_signal(wanted: &SigSet, until: Option<Instant>) -> Option<libc::c_int> {
    let left = until.map(|at| at.saturating_duration_since(Instant::now()));
    let timeout = left.map(|left| libc::timespec {
        tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the set and the time live through the call, and no information is asked for.
    let signal = unsafe { libc::sigtimedwait(wanted.as_ref(), std::ptr::null_mut(), timeout) };
    (signal > 0).then_some(signal)
}
