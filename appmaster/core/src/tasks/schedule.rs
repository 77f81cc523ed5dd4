//! Which waiting task goes to which free slot: the oldest stage first, retries before new tasks,
//! the least loaded executor first.

use bobbin_types::{ContainerId, Millis};

use super::TaskPlace;
use crate::effect::Effect;
use crate::event::{TaskKey, TaskRef};
use crate::executors::{ExecutorPhase, Running};
use crate::master::ApplicationMaster;

/// Retries looked at for one slot: beyond them, waiting is cheaper than looking.
const RETRIES_LOOKED_AT: usize = 64;

/// Where a task for a slot was found.
enum Picked {
    /// At this index among the retries.
    Retry(usize),
    /// The first new one.
    New,
    /// A slow one, for a second attempt beside the first.
    Copy(TaskKey),
}

impl ApplicationMaster {
    /// Fills free slots as long as a waiting task may go to one.
    pub(crate) fn schedule(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        while let Some((container, key)) = self.next_placement(now) {
            self.launch(now, container, key, effects);
        }
    }

    /// When a task that waits for another executor stops waiting for it.
    pub(crate) fn retry_deadline(&self) -> Option<Millis> {
        self.retry_at.first().map(|(at, _)| *at)
    }

    pub(crate) fn forget_passed_retries(&mut self, now: Millis) {
        while let Some((at, _)) = self.retry_at.first()
            && *at <= now
        {
            self.retry_at.pop_first();
        }
    }

    fn next_placement(&mut self, now: Millis) -> Option<(ContainerId, TaskKey)> {
        if self.room.is_empty() {
            return None;
        }
        self.drop_final_tasks_from_queues();
        let waits = |s: &super::Stage| {
            let nothing = s.pending.is_empty() && s.retries.is_empty() && s.slow.is_empty();
            !s.throttled && !nothing
        };
        if !self.stages.values().any(waits) {
            return None;
        }
        let candidates = self.room.iter().map(|(_, container)| *container);
        let found = candidates
            .map(|container| (container, self.pick(now, container)))
            .find_map(|(container, picked)| picked.map(|p| (container, p)));
        let (container, (stage, picked)) = found?;
        let stage = self.stages.get_mut(&stage)?;
        let key = match picked {
            Picked::Retry(index) => stage.retries.remove(index),
            Picked::New => stage.pending.pop_front(),
            Picked::Copy(key) => stage.slow.take(&key),
        }?;
        Some((container, key))
    }

    /// The task for a slot of this executor, with its stage.
    fn pick(&self, now: Millis, container: ContainerId) -> Option<(crate::event::StageId, Picked)> {
        let executor = self.executors.get(&container)?;
        let room = executor.slots.saturating_sub(executor.taken());
        let fits = |key: &TaskKey| self.tasks.get(key).is_some_and(|t| t.slots <= room);
        for (id, stage) in self.stages.iter().filter(|(_, s)| !s.throttled) {
            let retries = stage.retries.iter().take(RETRIES_LOOKED_AT);
            for (index, key) in retries.enumerate() {
                if fits(key) && self.may_run_on(now, *key, container) {
                    return Some((*id, Picked::Retry(index)));
                }
            }
            if let Some(key) = stage.pending.front() {
                // Room that is too small for it is kept: smaller tasks of later stages would take
                // it away for ever.
                return fits(key).then_some((*id, Picked::New));
            }
            let mut slow = stage.slow.iter().take(RETRIES_LOOKED_AT);
            if let Some(key) = slow.find(|key| fits(key) && self.may_copy_to(**key, container)) {
                return Some((*id, Picked::Copy(*key)));
            }
        }
        None
    }

    /// A task avoids executors it has failed on, as long as there is another one and for a while.
    fn may_run_on(&self, now: Millis, key: TaskKey, container: ContainerId) -> bool {
        let Some(task) = self.tasks.get(&key) else {
            return false;
        };
        if task.place != TaskPlace::Waiting {
            return false;
        }
        if now >= task.anywhere_at || !task.failed_on.contains(&container) {
            return true;
        }
        let is_up = |id: &&ContainerId| {
            self.executors
                .get(*id)
                .is_some_and(|e| e.phase == ExecutorPhase::Up)
        };
        self.up <= task.failed_on.iter().filter(is_up).count()
    }

    /// Cancelled tasks leave their keys behind; the fronts are cleaned before anybody looks.
    fn drop_final_tasks_from_queues(&mut self) {
        for stage in self.stages.values_mut() {
            let gone = |key: &TaskKey| !self.tasks.contains_key(key);
            while stage.pending.front().is_some_and(gone) {
                stage.pending.pop_front();
            }
            while stage.retries.front().is_some_and(gone) {
                stage.retries.pop_front();
            }
        }
    }

    fn launch(
        &mut self,
        now: Millis,
        container: ContainerId,
        key: TaskKey,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(task), Some(executor)) =
            (self.tasks.get_mut(&key), self.executors.get_mut(&container))
        else {
            return;
        };
        assert!(executor.has_room(), "only executors with room are indexed");
        self.retry_at.remove(&(task.anywhere_at, key));
        task.attempts = task.attempts.saturating_add(1);
        let attempt = task.attempts;
        if task.place == TaskPlace::Waiting {
            task.attempt = attempt;
            task.place = TaskPlace::Launched(container);
            task.launched_at = now;
            self.launched += 1;
        } else {
            task.copy = Some((container, attempt));
        }
        executor.used = true;
        let slots = task.slots;
        executor.running.insert(key, Running { attempt, slots });
        let task = TaskRef { task: key, attempt };
        self.index_room(container);
        effects.push(Effect::LaunchTask { container, task });
    }
}
