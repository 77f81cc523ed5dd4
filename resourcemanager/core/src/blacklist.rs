//! Hosts on which an attempt wants no containers: none of its asks is served there.
//!
//! Source: `AppPlacementAllocator` and `ResourceBlacklistRequest`.

use std::sync::Arc;

use bobbin_types::{AttemptId, Millis};

use crate::attempt::Attempt;
use crate::event::SessionId;
use crate::limits::{BLACKLIST_MAX, WORD_BYTES_MAX};
use crate::manager::ResourceManager;
use crate::master::{full, too_many};
use crate::queue::WaitingDemand;
use crate::scheduler::DemandKey;
use crate::{Effect, MasterMessage, Refusal};

impl ResourceManager {
    pub(crate) fn on_master_blacklist(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        session: SessionId,
        (additions, removals): (Vec<String>, Vec<String>),
        effects: &mut Vec<Effect>,
    ) {
        if !self.master_says(now, attempt, session) {
            return;
        }
        if let Err(reason) = self.change_blacklist(attempt, additions, &removals) {
            let message = MasterMessage::BlacklistRefused { reason };
            self.tell_master(attempt, message, effects);
        }
    }

    fn change_blacklist(
        &mut self,
        attempt: AttemptId,
        additions: Vec<String>,
        removals: &[String],
    ) -> Result<(), Refusal> {
        let named = additions.len() + removals.len();
        too_many("hosts of a blacklist's change", named, 2 * BLACKLIST_MAX)?;
        for host in additions.iter().chain(removals) {
            bobbin_types::check_text("host of a blacklist", host, WORD_BYTES_MAX)?;
        }
        let Some(current) = self.current_attempt_mut(attempt) else {
            return Ok(());
        };
        let mut hosts = (*current.blacklist).clone();
        hosts.extend(additions);
        for host in removals {
            hosts.remove(host);
        }
        if hosts.len() > BLACKLIST_MAX {
            return Err(full("hosts of a blacklist", hosts.len(), BLACKLIST_MAX));
        }
        if hosts != *current.blacklist {
            current.blacklist = Arc::new(hosts);
            self.bar_hosts(attempt);
        }
        Ok(())
    }

    /// Its asks that wait stand where its blacklist says from now on, and are looked for anew: a
    /// host that is no longer barred may have room.
    fn bar_hosts(&mut self, attempt: AttemptId) {
        let Some(application) = self.applications.get(&attempt.application) else {
            return;
        };
        let barred = application.current().and_then(Attempt::barred);
        let keys = application.asks.keys();
        let demands: Vec<DemandKey> = keys.map(|key| application.ask_demand(key)).collect();
        // All are out before the first is in: those of one application share their hosts.
        let waiting: Vec<(DemandKey, WaitingDemand)> = demands
            .into_iter()
            .filter_map(|key| {
                let demand = self.queue.waiting(&key)?.clone();
                self.queue.remove(&key);
                Some((key, demand))
            })
            .collect();
        for (key, demand) in waiting {
            let barred = barred.clone();
            self.queue
                .insert(key.clone(), WaitingDemand { barred, ..demand });
            self.pending.demands.insert(key);
        }
    }
}
