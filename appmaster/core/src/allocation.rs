//! Dynamic allocation: how many executors are wanted follows the load.
//!
//! Source: Spark's `ExecutorAllocationManager` and `ExecutorMonitor`: while tasks wait, the target
//! grows by 1, 2, 4, 8... executors a round up to what the tasks can use; when fewer can be used,
//! it falls at once; an executor that had nothing to do for the idle time goes, unless the minimum
//! or the target needs it.

use std::collections::BTreeSet;

use bobbin_types::{ContainerId, Millis};

use crate::config::{Allocation, DynamicAllocation};
use crate::effect::Effect;
use crate::executors::ExecutorPhase;
use crate::master::ApplicationMaster;

/// Where the ramp stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ramp {
    /// Executors wanted now.
    pub(crate) target: u32,
    /// What the next round adds; 0 before the first one.
    step: u32,
    /// When tasks have waited long enough for the next round; `None` while none waits.
    next_round: Option<Millis>,
    /// No task came yet: the initial number stands.
    initial: bool,
    /// Executors without a task, by when they go.
    idle: BTreeSet<(Millis, ContainerId)>,
    /// Executors whose tasks or phase changed in this event.
    pub(crate) touched: BTreeSet<ContainerId>,
}

impl Ramp {
    pub(crate) fn of(allocation: &Allocation) -> Ramp {
        let target = match allocation {
            Allocation::Static { executors } => *executors,
            Allocation::Dynamic(dynamic) => dynamic.initial(),
        };
        Ramp {
            target,
            initial: true,
            ..Ramp::default()
        }
    }
}

impl DynamicAllocation {
    /// What is wanted before the first task.
    pub(crate) fn initial(&self) -> u32 {
        self.initial.max(self.min).min(self.max)
    }

    /// Executors of so many slots each that tasks with this need of slots can use.
    fn needed(&self, load: u64, slots: u32) -> u32 {
        let scaled = u128::from(load) * u128::from(self.ratio_permille);
        let executors = scaled.div_ceil(1000 * u128::from(slots.max(1)));
        u32::try_from(executors).unwrap_or(u32::MAX)
    }
}

impl ApplicationMaster {
    pub(crate) fn dynamic(&self) -> Option<DynamicAllocation> {
        match self.config.allocation {
            Allocation::Static { .. } => None,
            Allocation::Dynamic(_) if self.shut_down || self.failed.is_some() => None,
            Allocation::Dynamic(dynamic) => Some(dynamic),
        }
    }

    /// Brings the target to the load after an event. Does nothing for a fixed number.
    pub(crate) fn follow_load(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let touched = std::mem::take(&mut self.ramp.touched);
        let Some(dynamic) = self.dynamic() else {
            return;
        };
        for container in touched {
            self.index_idle(now, &dynamic, container);
        }
        self.move_target(now, &dynamic);
        self.dismiss_idle(now, &dynamic, effects);
        self.update_asks(effects);
    }

    fn index_idle(&mut self, now: Millis, dynamic: &DynamicAllocation, container: ContainerId) {
        let was = self.executors.get(&container).and_then(|e| e.idle_until);
        let is_idle = self
            .executors
            .get(&container)
            .is_some_and(|e| e.phase == ExecutorPhase::Up && e.running.is_empty());
        match (was, is_idle) {
            (Some(_), true) | (None, false) => {}
            (Some(until), false) => {
                self.ramp.idle.remove(&(until, container));
                self.set_idle(container, None);
            }
            (None, true) => {
                let until = now.after(dynamic.executor_idle_timeout_ms);
                self.ramp.idle.insert((until, container));
                self.set_idle(container, Some(until));
            }
        }
    }

    fn set_idle(&mut self, container: ContainerId, until: Option<Millis>) {
        if let Some(executor) = self.executors.get_mut(&container) {
            executor.idle_until = until;
        }
    }

    /// An executor is forgotten: so is its idleness.
    pub(crate) fn forget_idle(&mut self, container: ContainerId, until: Option<Millis>) {
        if let Some(until) = until {
            self.ramp.idle.remove(&(until, container));
        }
    }

    /// Slow tasks that wait for a second attempt.
    fn waiting_copies(&self) -> u64 {
        let copies: usize = self.stages.values().map(|s| s.slow.len()).sum();
        u64::try_from(copies).unwrap_or(u64::MAX)
    }

    /// Slots of the tasks that run or wait, copies that wait counted as one each.
    fn load(&self) -> u64 {
        self.slots_needed.saturating_add(self.waiting_copies())
    }

    fn move_target(&mut self, now: Millis, dynamic: &DynamicAllocation) {
        let copies = self.waiting_copies();
        let waits =
            self.launched < u64::try_from(self.tasks.len()).unwrap_or(u64::MAX) || copies > 0;
        if !self.tasks.is_empty() {
            self.ramp.initial = false;
        }
        let needed = dynamic.needed(self.load(), self.config.executor_resource.vcores);
        let bounded = needed.clamp(dynamic.min, dynamic.max);
        if !waits {
            self.ramp.next_round = None;
            self.ramp.step = 0;
        }
        if self.ramp.initial {
            return;
        }
        if bounded < self.ramp.target {
            self.ramp.target = bounded;
            self.ramp.step = 0;
        } else if waits {
            self.grow(now, dynamic, bounded);
        }
    }

    fn grow(&mut self, now: Millis, dynamic: &DynamicAllocation, bounded: u32) {
        let due = *self
            .ramp
            .next_round
            .get_or_insert_with(|| now.after(dynamic.schedule_backlog_timeout_ms));
        if now < due {
            return;
        }
        let step = self.ramp.step.max(1);
        let before = self.ramp.target;
        let base = before.max(self.held());
        self.ramp.target = base.saturating_add(step).min(bounded);
        // Doubled only when the whole step was of use.
        let whole = self.ramp.target.saturating_sub(before) >= step;
        self.ramp.step = if whole { step.saturating_mul(2) } else { 1 };
        let sustained = dynamic.sustained_backlog_timeout_ms;
        self.ramp.next_round = Some(now.after(sustained));
    }

    /// Executors that may go now: above both the minimum and the target.
    fn spare_executors(&self, dynamic: &DynamicAllocation) -> u32 {
        self.held()
            .saturating_sub(dynamic.min.max(self.ramp.target))
    }

    fn dismiss_idle(
        &mut self,
        now: Millis,
        dynamic: &DynamicAllocation,
        effects: &mut Vec<Effect>,
    ) {
        while let Some((until, container)) = self.ramp.idle.first().copied()
            && until <= now
        {
            // The initial number stands until an idle time is over, as in Spark.
            if self.ramp.initial {
                self.ramp.initial = false;
                self.move_target(now, dynamic);
            }
            if self.spare_executors(dynamic) == 0 {
                break;
            }
            self.ramp.idle.remove(&(until, container));
            self.set_idle(container, None);
            let reason = format!("it had no task for {} ms", dynamic.executor_idle_timeout_ms);
            self.dismiss(now, container, &reason, effects);
        }
    }

    /// When [`ApplicationMaster::follow_load`] has something to do without an event.
    pub(crate) fn load_deadline(&self) -> Option<Millis> {
        let dynamic = self.dynamic()?;
        let most = dynamic
            .needed(self.load(), self.config.executor_resource.vcores)
            .clamp(dynamic.min, dynamic.max);
        let round = self.ramp.next_round.filter(|_| self.ramp.target < most);
        let may_go = self.ramp.initial || self.spare_executors(&dynamic) > 0;
        let idle = self.ramp.idle.first().filter(|_| may_go);
        [round, idle.map(|(until, _)| *until)]
            .into_iter()
            .flatten()
            .min()
    }
}

#[cfg(test)]
mod tests;
