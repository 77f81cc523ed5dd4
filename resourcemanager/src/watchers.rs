//! Who wants to know when an application changes. Changes are coalesced: a slow watcher sees the last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bobbin_types::ApplicationId;
use tokio::sync::watch;

/// Shared by the driver, which wakes, and the doors, which wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watchers {
    senders: Arc<Mutex<HashMap<ApplicationId, watch::Sender<()>>>>,
}

impl Watchers {
    /// Changes from now on. Subscribe first, then read: so no change falls between.
    pub(crate) fn subscribe(&self, application: ApplicationId) -> watch::Receiver<()> {
        // A panic ends the process, so the lock is never left poisoned.
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders
            .entry(application)
            .or_insert_with(|| watch::Sender::new(()))
            .subscribe()
    }

    pub(crate) fn wake(&self, application: ApplicationId) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = senders.get(&application)
            && sender.send(()).is_err()
        {
            // Nobody is left.
            senders.remove(&application);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn woken_once_for_many_changes_and_forgotten_without_watchers() {
        let watchers = Watchers::default();
        let id = ApplicationId {
            cluster_timestamp: 1,
            sequence: 1,
        };
        let mut watcher = watchers.subscribe(id);
        watchers.wake(id);
        watchers.wake(id);
        assert!(watcher.has_changed().unwrap());
        watcher.mark_unchanged();
        assert!(!watcher.has_changed().unwrap());
        drop(watcher);
        watchers.wake(id);
        assert!(watchers.senders.lock().unwrap().is_empty());
    }
}
