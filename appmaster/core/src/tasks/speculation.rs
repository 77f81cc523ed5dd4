//! Copies of stragglers: a second attempt beside a slow one; the first to end well counts.
//!
//! Source: Spark's `TaskSetManager.checkSpeculatableTasks`. A copy never goes to the executor of the
//! first attempt, comes after everything else that waits, and there is one at a time.

use std::collections::BTreeMap;

use bobbin_types::{ContainerId, Millis};

use super::{Stage, TaskPlace, kill};
use crate::config::Speculation;
use crate::effect::Effect;
use crate::event::{TaskKey, TaskRef};
use crate::master::ApplicationMaster;

/// How long tasks ran, as a count for each time in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    of: BTreeMap<u64, u64>,
    count: u64,
}

impl Times {
    fn add(&mut self, time_ms: u64) {
        let count = self.of.entry(time_ms).or_default();
        *count = count.saturating_add(1);
        self.count = self.count.saturating_add(1);
    }

    /// The upper one of two in the middle; 0 of none.
    fn median_ms(&self) -> u64 {
        let mut left = self.count / 2;
        for (time, count) in &self.of {
            match left.checked_sub(*count) {
                Some(rest) => left = rest,
                None => return *time,
            }
        }
        0
    }
}

impl Stage {
    /// Beyond which a task is slow; `None` as long as too few have ended to tell.
    fn slow_after_ms(&self, speculation: &Speculation) -> Option<u64> {
        // While tasks wait for a slot a copy would only take it away.
        if self.open == 0 || self.throttled || !self.pending.is_empty() || !self.retries.is_empty()
        {
            return None;
        }
        let all = self.times.count.saturating_add(self.open);
        let needed = u128::from(all) * u128::from(speculation.quantile_permille);
        if self.times.count == 0 || u128::from(self.times.count) * 1000 < needed {
            return None;
        }
        let median = u128::from(self.times.median_ms());
        let slow = median * u128::from(speculation.multiplier_permille) / 1000;
        let slow = u64::try_from(slow).unwrap_or(u64::MAX);
        Some(slow.max(speculation.min_runtime_ms))
    }
}

impl ApplicationMaster {
    /// An attempt has ended well.
    pub(super) fn note_time(&mut self, now: Millis, attempt: TaskRef) {
        let Some(task) = self.tasks.get(&attempt.task) else {
            return;
        };
        // A copy's time is counted from the first attempt: that is how slow the task was.
        let time_ms = now.since(task.launched_at);
        if let Some(stage) = self.stages.get_mut(&task.stage)
            && self.config.speculation.is_some()
        {
            stage.times.add(time_ms);
        }
    }

    /// One attempt is final: the other one is of no use any more.
    pub(super) fn kill_other_attempt(&mut self, attempt: TaskRef, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get(&attempt.task) else {
            return;
        };
        let other = match (task.place, task.copy) {
            (TaskPlace::Launched(container), Some((_, copy))) if copy == attempt.attempt => {
                Some((container, task.attempt))
            }
            (_, Some(copy)) if task.attempt == attempt.attempt => Some(copy),
            (_, Some(_) | None) => None,
        };
        if let Some((container, number)) = other {
            let other = TaskRef {
                task: attempt.task,
                attempt: number,
            };
            kill(container, other, effects);
        }
    }

    /// An attempt failed or was lost: whether another one of the task still runs, which is its
    /// only one then.
    pub(super) fn go_on_with_other_attempt(&mut self, attempt: TaskRef) -> bool {
        let Some(task) = self.tasks.get_mut(&attempt.task) else {
            return false;
        };
        let Some((container, copy)) = task.copy.take() else {
            if let Some(stage) = self.stages.get_mut(&task.stage) {
                stage.slow.remove(&attempt.task);
            }
            return false;
        };
        if copy != attempt.attempt {
            task.place = TaskPlace::Launched(container);
            task.attempt = copy;
        }
        true
    }

    /// Whether a slow task may have its copy on this executor.
    pub(super) fn may_copy_to(&self, key: TaskKey, container: ContainerId) -> bool {
        self.tasks.get(&key).is_some_and(|task| {
            task.copy.is_none()
                && !task.failed_on.contains(&container)
                && match task.place {
                    TaskPlace::Launched(first) => first != container,
                    TaskPlace::Waiting => false,
                }
        })
    }

    /// Finds slow tasks.
    pub(crate) fn find_slow_tasks(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let Some(speculation) = self.config.speculation else {
            return;
        };
        if self
            .looked_for_slow_at
            .is_some_and(|at| now.since(at) < speculation.interval_ms)
        {
            return;
        }
        self.looked_for_slow_at = Some(now);
        let limits: BTreeMap<_, _> = self
            .stages
            .iter()
            .filter_map(|(id, stage)| Some((*id, stage.slow_after_ms(&speculation)?)))
            .collect();
        if limits.is_empty() {
            return;
        }
        for (key, task) in &self.tasks {
            let is_first_alone = task.copy.is_none() && task.place != TaskPlace::Waiting;
            let is_slow = limits
                .get(&task.stage)
                .is_some_and(|limit| now.since(task.launched_at) > *limit);
            if is_first_alone
                && is_slow
                && let Some(stage) = self.stages.get_mut(&task.stage)
            {
                stage.slow.insert(*key);
            }
        }
        self.schedule(now, effects);
    }

    /// When slow tasks are looked for again: while a stage is far enough for it.
    pub(crate) fn speculation_deadline(&self) -> Option<Millis> {
        let speculation = self.config.speculation?;
        let can_tell = |stage: &Stage| stage.slow_after_ms(&speculation).is_some();
        let due = self
            .looked_for_slow_at
            .map_or(Millis(0), |at| at.after(speculation.interval_ms));
        self.stages.values().any(can_tell).then_some(due)
    }
}
