//! Waiting for a state, with its last form in the message when it never comes.

use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Calls `probe` until it answers `Ok`, at most `seconds`; panics with its last words otherwise.
pub fn wait_for<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    // A channel nobody sends on: its time-out paces the probes.
    let (_keep, pace) = mpsc::channel::<()>();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) => assert!(
                Instant::now() < end,
                "{what}: not within {seconds} s; last: {last}"
            ),
        }
        let _ = pace.recv_timeout(Duration::from_millis(20));
    }
}

/// Says loudly that a test, or a part of it, is skipped and why.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED: {test}: {why}");
}

/// Says loudly that a test is skipped because it needs root, and whether it is.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
#[must_use]
pub fn skip_without_root(test: &str) -> bool {
    let skip = !nix::unistd::geteuid().is_root();
    if skip {
        eprintln!("SKIPPED: {test} needs root");
    }
    skip
}
