//! Ctrl+C and SIGTERM while something is waited for.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Kind};

/// From its making on, these signals no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// # Errors
    /// The system refuses.
    pub(crate) fn listen() -> Result<Interrupts, Failure> {
        let one = |kind| {
            signal(kind)
                .map_err(|e| Failure::new(Kind::Failed, format!("signals cannot be taken: {e}")))
        };
        Ok(Interrupts {
            interrupt: one(SignalKind::interrupt())?,
            terminate: one(SignalKind::terminate())?,
        })
    }

    /// The next one. Safe to drop and call again.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
