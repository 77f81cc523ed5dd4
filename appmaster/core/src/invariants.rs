//! What is true after every event; checked by the tests and the simulator.

use crate::executors::ExecutorPhase;
use crate::master::ApplicationMaster;
use crate::tasks::TaskPlace;

/// An invariant that does not hold, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvariantError(String);

fn ensure(holds: bool, words: impl FnOnce() -> String) -> Result<(), InvariantError> {
    if holds {
        Ok(())
    } else {
        Err(InvariantError(words()))
    }
}

impl ApplicationMaster {
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check_invariants(&self) -> Result<(), InvariantError> {
        self.check_executors()?;
        self.check_asks()?;
        self.check_tasks()
    }

    fn check_executors(&self) -> Result<(), InvariantError> {
        let count = |phase| self.executors.values().filter(|e| e.phase == phase).count();
        ensure(self.up == count(ExecutorPhase::Up), || {
            "the count of executors that are up is wrong".to_owned()
        })?;
        ensure(self.leaving == count(ExecutorPhase::Leaving), || {
            "the count of leaving executors is wrong".to_owned()
        })?;
        ensure(self.deadlines.len() == self.executors.len(), || {
            "an executor has no deadline, or a deadline no executor".to_owned()
        })?;
        for (id, executor) in &self.executors {
            ensure(executor.taken() <= executor.slots, || {
                format!("{id} runs {} of {} slots", executor.taken(), executor.slots)
            })?;
            let indexed = self
                .room_of
                .get(id)
                .is_some_and(|load| self.room.contains(&(*load, *id)));
            ensure(indexed == executor.has_room(), || {
                format!("{id} is indexed wrongly")
            })?;
            let at = (executor.deadline, *id);
            ensure(self.deadlines.contains(&at), || {
                format!("{id} has a wrong deadline")
            })?;
        }
        ensure(self.room.len() == self.room_of.len(), || {
            "the index of room holds strangers".to_owned()
        })
    }

    fn check_asks(&self) -> Result<(), InvariantError> {
        ensure(self.asked == self.missing(), || {
            format!(
                "{} asked, {} held, {} wanted",
                self.asked,
                self.held(),
                self.wanted()
            )
        })
    }

    fn check_tasks(&self) -> Result<(), InvariantError> {
        let launched = |t: &&crate::tasks::Task| matches!(t.place, TaskPlace::Launched(_));
        let count = self.tasks.values().filter(launched).count();
        let slots: u64 = self.tasks.values().map(|t| u64::from(t.slots)).sum();
        ensure(slots == self.slots_needed, || {
            format!("tasks need {slots} slots, not {}", self.slots_needed)
        })?;
        ensure(u64::try_from(count) == Ok(self.launched), || {
            format!("{} tasks counted as launched of {count}", self.launched)
        })?;
        for (key, task) in &self.tasks {
            let stage = self
                .stages
                .get(&task.stage)
                .ok_or_else(|| InvariantError(format!("task {key:?} has no stage")))?;
            match task.place {
                TaskPlace::Waiting => {
                    let queued = stage.pending.iter().chain(&stage.retries);
                    let times = queued.filter(|k| *k == key).count();
                    ensure(times == 1, || {
                        format!("task {key:?} is queued {times} times")
                    })?;
                }
                TaskPlace::Launched(container) => {
                    let attempt = self
                        .executors
                        .get(&container)
                        .and_then(|e| e.attempt_of(*key));
                    ensure(attempt == Some(task.attempt), || {
                        format!("task {key:?} takes no slot of {container}")
                    })?;
                }
            }
            let waits = task.place == TaskPlace::Waiting;
            let alone = waits || stage.slow.contains(key);
            ensure(!(alone && task.copy.is_some()), || {
                format!("task {key:?} has a copy beside nothing, or waits for another one")
            })?;
            ensure(!(waits && stage.slow.contains(key)), || {
                format!("task {key:?} waits twice")
            })?;
            if let Some((container, attempt)) = task.copy {
                let executor = self.executors.get(&container);
                let taken = executor.and_then(|e| e.attempt_of(*key));
                let elsewhere = task.place != TaskPlace::Launched(container);
                ensure(taken == Some(attempt) && elsewhere, || {
                    format!("the copy of {key:?} takes no slot of its own on {container}")
                })?;
            }
        }
        for (id, stage) in &self.stages {
            let open = self.tasks.values().filter(|t| t.stage == *id).count();
            ensure(u64::try_from(open) == Ok(stage.open), || {
                format!("stage {id:?} counts {} tasks of {open}", stage.open)
            })?;
            ensure(!(stage.closed && stage.open == 0), || {
                format!("stage {id:?} has ended but is known")
            })?;
        }
        Ok(())
    }
}
