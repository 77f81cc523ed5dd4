//! Hears of connections that ended badly, and tells of a flood of them only some.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Ended, Observer};

/// Lines in a second: enough to see what happens, too few to fill a disk.
const TOLD_PER_SECOND_MAX: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// An [`Observer`] that passes on what is worth a line in the log: not the ordinary end of a
/// connection, and at most ten lines a second.
pub struct Sparing<F> {
    tell: F,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    told: u32,
    /// Since the last line.
    untold: u64,
}

impl<F> fmt::Debug for Sparing<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sparing")
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

impl<F: Fn(SocketAddr, &Ended, u64) + Send + Sync + 'static> Sparing<F> {
    /// `tell` is given the peer, why its connection ended, and how many ends were kept quiet since the
    /// last one that was told.
    pub fn new(tell: F) -> Self {
        Self {
            tell,
            window: Mutex::new(Window {
                since: Instant::now(),
                told: 0,
                untold: 0,
            }),
        }
    }
}

impl<F: Fn(SocketAddr, &Ended, u64) + Send + Sync + 'static> Observer for Sparing<F> {
    fn ended(&self, peer: SocketAddr, reason: &Ended) {
        if reason.is_ordinary() {
            return;
        }
        let untold = {
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            if window.since.elapsed() >= SECOND {
                window.since = Instant::now();
                window.told = 0;
            }
            if window.told >= TOLD_PER_SECOND_MAX {
                window.untold += 1;
                return;
            }
            window.told += 1;
            std::mem::take(&mut window.untold)
        };
        (self.tell)(peer, reason, untold);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_told_in_few_lines() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let told = lines.clone();
        let sparing = Sparing::new(move |_, reason: &Ended, untold| {
            told.lock().unwrap().push((reason.to_string(), untold));
        });
        let peer: SocketAddr = "192.0.2.1:1".parse().unwrap();
        for _ in 0..1000 {
            sparing.ended(peer, &Ended::ByPeer);
            sparing.ended(peer, &Ended::TooMany(3));
        }
        assert_eq!(lines.lock().unwrap().len(), 10);
        tokio::time::advance(SECOND).await;
        sparing.ended(peer, &Ended::Idle(SECOND));
        sparing.ended(peer, &Ended::TooMany(3));
        sparing.ended(peer, &Ended::TooMany(3));
        let untold: Vec<_> = lines.lock().unwrap().iter().map(|(_, n)| *n).collect();
        assert_eq!(untold[9..], [0, 990, 0]);
    }
}
