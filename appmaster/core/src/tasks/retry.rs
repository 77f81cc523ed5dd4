//! Attempts that ended or were lost: the task is final or tried again.
//!
//! Failures and losses are counted apart: a failure is the task's own, a loss is its executor's. A
//! task that takes its executors down with it is stopped by the bound on losses.

use bobbin_types::{ContainerId, ExitStatus, Millis};

use super::{Outcome, TaskPlace};
use crate::effect::Effect;
use crate::event::TaskRef;
use crate::executors::NEVER_RAN;
use crate::master::ApplicationMaster;

impl ApplicationMaster {
    pub(crate) fn on_task_ended(
        &mut self,
        now: Millis,
        container: ContainerId,
        (task, exit_status, problem): (TaskRef, ExitStatus, String),
        effects: &mut Vec<Effect>,
    ) {
        if let Some(executor) = self.executors.get_mut(&container)
            && executor.attempt_of(task.task) == Some(task.attempt)
        {
            executor.running.remove(&task.task);
            self.index_room(container);
        }
        if self.current(container, task).is_none() {
            // An attempt that was given up: cancelled, or taken for lost.
            effects.push(Effect::DiscardOutput { task });
        } else if exit_status.is_success() && problem.is_empty() {
            let outcome = Outcome {
                exit_status,
                problem,
                output_of: Some(task),
            };
            self.note_time(now, task);
            self.kill_other_attempt(task, effects);
            self.finish(task.task, outcome, effects);
        } else {
            self.fail_attempt(now, container, (task, exit_status, problem), effects);
        }
        self.schedule(now, effects);
    }

    fn fail_attempt(
        &mut self,
        now: Millis,
        container: ContainerId,
        (attempt, exit_status, problem): (TaskRef, ExitStatus, String),
        effects: &mut Vec<Effect>,
    ) {
        let key = attempt.task;
        let Some(task) = self.tasks.get_mut(&key) else {
            return;
        };
        task.failures = task.failures.saturating_add(1);
        if task.failures >= self.config.task_failures_max {
            let outcome = Outcome {
                exit_status,
                problem,
                output_of: Some(attempt),
            };
            self.kill_other_attempt(attempt, effects);
            self.finish(key, outcome, effects);
            return;
        }
        if !task.failed_on.contains(&container) {
            task.failed_on.push(container);
        }
        let stage = task.stage;
        effects.push(Effect::DiscardOutput { task: attempt });
        effects.push(Effect::TaskRetried {
            stage,
            task: attempt,
            exit_status,
            problem,
        });
        if self.go_on_with_other_attempt(attempt) {
            return;
        }
        let Some(task) = self.tasks.get_mut(&key) else {
            return;
        };
        task.place = TaskPlace::Waiting;
        self.launched -= 1;
        task.anywhere_at = now.after(self.config.retry_elsewhere_ms);
        self.retry_at.insert((task.anywhere_at, key));
        if let Some(stage) = self.stages.get_mut(&stage) {
            stage.retries.push_back(key);
        }
    }

    /// Every attempt on the executor is lost, through no fault of its task.
    pub(crate) fn lose_tasks_of(
        &mut self,
        _now: Millis,
        container: ContainerId,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        for attempt in self.take_attempts(container) {
            let Some(task) = self.tasks.get_mut(&attempt.task) else {
                continue;
            };
            task.losses = task.losses.saturating_add(1);
            let problem = format!("lost with its executor {container}: {reason}");
            if task.losses >= self.config.task_losses_max {
                let losses = task.losses;
                let outcome =
                    Outcome::without_run(format!("{problem} (lost {losses} times in all)"));
                effects.push(Effect::DiscardOutput { task: attempt });
                self.kill_other_attempt(attempt, effects);
                self.finish(attempt.task, outcome, effects);
                continue;
            }
            let stage = task.stage;
            self.put_back(attempt, effects);
            effects.push(Effect::TaskRetried {
                stage,
                task: attempt,
                exit_status: NEVER_RAN,
                problem,
            });
        }
    }

    /// The executor is dismissed at our own wish: its tasks run elsewhere, nothing is counted.
    pub(crate) fn requeue_tasks_of(&mut self, container: ContainerId, effects: &mut Vec<Effect>) {
        for attempt in self.take_attempts(container) {
            self.put_back(attempt, effects);
        }
    }

    /// Empties the executor's slots and returns the attempts that are current.
    fn take_attempts(&mut self, container: ContainerId) -> Vec<TaskRef> {
        let Some(executor) = self.executors.get_mut(&container) else {
            return Vec::new();
        };
        let running = std::mem::take(&mut executor.running);
        self.index_room(container);
        running
            .into_iter()
            .map(|(task, running)| TaskRef {
                task,
                attempt: running.attempt,
            })
            .filter(|attempt| self.current(container, *attempt).is_some())
            .collect()
    }

    fn put_back(&mut self, attempt: TaskRef, effects: &mut Vec<Effect>) {
        if self.go_on_with_other_attempt(attempt) {
            effects.push(Effect::DiscardOutput { task: attempt });
            return;
        }
        let Some(task) = self.tasks.get_mut(&attempt.task) else {
            return;
        };
        task.place = TaskPlace::Waiting;
        self.launched -= 1;
        if let Some(stage) = self.stages.get_mut(&task.stage) {
            stage.retries.push_back(attempt.task);
        }
        effects.push(Effect::DiscardOutput { task: attempt });
    }
}
