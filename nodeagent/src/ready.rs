//! Waiting for descriptors that are not sockets.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime, to wait until it is readable.
///
/// # Errors
/// The runtime cannot watch it (no memory, no descriptors).
#[expect(
    deprecated,
    reason = "its successor is unsafe for types that change their descriptor, which OwnedFd does not"
)]
pub(crate) fn when_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}
