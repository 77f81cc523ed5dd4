//! Grants: each becomes an executor, is parked on an excluded node, or is given back.

use bobbin_types::Millis;

use crate::effect::Effect;
use crate::event::Grant;
use crate::executors::Executor;
use crate::master::ApplicationMaster;

impl ApplicationMaster {
    pub(crate) fn on_granted(
        &mut self,
        now: Millis,
        grants: Vec<Grant>,
        effects: &mut Vec<Effect>,
    ) {
        let mut surplus = Vec::new();
        for grant in grants {
            let known = self.executors.contains_key(&grant.container)
                || self.parked.contains(&grant.container);
            if known {
                continue;
            }
            self.asked = self.asked.saturating_sub(1);
            if self.held() >= self.wanted() {
                surplus.push(grant.container);
            } else if self.is_excluded(now, &grant.node) {
                // Held unstarted, so that the node looks full and the next grant is elsewhere.
                self.parked.insert(grant.container);
            } else {
                let deadline = now.after(self.config.executor_start_ms);
                effects.push(Effect::StartExecutor {
                    container: grant.container,
                    node: grant.node.clone(),
                });
                self.insert_executor(grant.container, Executor::granted(grant.node, deadline));
            }
        }
        if !surplus.is_empty() {
            effects.push(Effect::Release(surplus));
        }
        self.pause_useless_offers(now);
        self.update_asks(effects);
    }

    /// Only excluded nodes are offered: gives everything back and asks again after a pause.
    fn pause_useless_offers(&mut self, now: Millis) {
        let most = usize::try_from(self.wanted().saturating_mul(2).max(4)).unwrap_or(usize::MAX);
        if self.parked.len() > most {
            self.offers_paused_until = Some(now.after(self.config.offer_pause_ms));
        }
    }
}
