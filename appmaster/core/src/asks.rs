//! Asks: how many containers are still wanted, said in absolute numbers.
//!
//! Containers asked for and containers held together are what is wanted. The resource manager
//! counts its own copy of the ask down as it grants; a grant that crosses a new ask makes it grant
//! one too many, never one too few, and the surplus is released (`grants.rs`).

use bobbin_types::Millis;

use crate::config::Allocation;
use crate::effect::{Ask, Effect};
use crate::master::ApplicationMaster;

impl ApplicationMaster {
    /// Executors wanted now.
    pub(crate) fn wanted(&self) -> u32 {
        if self.shut_down || self.failed.is_some() {
            return 0;
        }
        match self.config.allocation {
            Allocation::Static { executors } => executors,
            Allocation::Dynamic(_) => self.ramp.target,
        }
    }

    /// The most executors that may ever be wanted.
    pub(crate) fn wanted_at_most(&self) -> u32 {
        match self.dynamic() {
            Some(dynamic) => dynamic.max,
            None => self.wanted(),
        }
    }

    /// Containers that should be on the wire now. Nothing is asked while a refusal stands or while
    /// the resource manager only offers what cannot be used.
    pub(crate) fn missing(&self) -> u32 {
        if self.refusal.is_some() || self.offers_paused_until.is_some() {
            return 0;
        }
        self.wanted().saturating_sub(self.held())
    }

    /// Brings the ask on the wire to what is missing.
    pub(crate) fn update_asks(&mut self, effects: &mut Vec<Effect>) {
        let missing = self.missing();
        if missing == 0 && !self.parked.is_empty() {
            let parked = std::mem::take(&mut self.parked);
            effects.push(Effect::Release(parked.into_iter().collect()));
        }
        if missing != self.asked {
            self.asked = missing;
            effects.push(Effect::SendAsk(self.ask()));
        }
    }

    pub(crate) fn ask(&self) -> Ask {
        Ask {
            priority: self.config.priority,
            capability: self.config.executor_resource,
            count: self.asked,
        }
    }

    pub(crate) fn on_ask_refused(
        &mut self,
        now: Millis,
        reason: String,
        effects: &mut Vec<Effect>,
    ) {
        // The refused ask is not on the wire any more; a new number of executors tries again.
        self.asked = 0;
        self.refusal = Some(reason);
        self.fail_hopeless_tasks(effects);
        self.schedule(now, effects);
    }

    pub(crate) fn on_executors_wanted(
        &mut self,
        now: Millis,
        count: u32,
        effects: &mut Vec<Effect>,
    ) {
        self.config.allocation = Allocation::Static { executors: count };
        self.refusal = None;
        self.dismiss_surplus(now, effects);
        self.update_asks(effects);
        self.fail_hopeless_tasks(effects);
        self.schedule(now, effects);
    }
}
