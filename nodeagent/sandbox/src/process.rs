//! Watching and signalling processes that may not be children.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Start time of `pid` since boot in clock ticks, `None` if there is no such process.
///
/// Source: field 22 of proc_pid_stat(5).
#[must_use]
pub fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    start_ticks_of(&stat)
}

/// The start time in the bytes of a `stat` file.
pub(crate) fn start_ticks_of(stat: &[u8]) -> Option<u64> {
    // The name may hold spaces and parentheses; what follows its last parenthesis does not.
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// A pidfd of any process.
///
/// # Errors
/// ESRCH when there is no such process.
pub fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel just returned this descriptor and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `signal` to the process behind the pidfd.
///
/// # Errors
/// ESRCH when it has ended.
pub fn send_signal(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    // SAFETY: the null pointer is the documented way to send no extra information.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Whether the process behind the pidfd has ended (it may still wait for its parent).
#[must_use]
pub fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_survive_a_name_with_parentheses() {
        let stat = b"42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 7777 20";
        assert_eq!(start_ticks_of(stat), Some(7777));
        assert_eq!(start_ticks_of(b"no"), None);
        assert_eq!(start_ticks_of(b"1 (x) S 1 2"), None);
    }
}
