//! Stages and tasks: first in, first out by stage; each task final exactly once.
//!
//! A task waits in its stage's queue, or is launched as one attempt on one executor. An attempt
//! that fails or is lost puts it back (`retry.rs`); being final removes it. Events of attempts that
//! are not the current one only free their slot.

mod retry;
mod schedule;
mod speculation;

use std::collections::{BTreeSet, VecDeque};

use bobbin_types::{ContainerId, ExitStatus, Millis};

use crate::effect::Effect;
use crate::event::{StageId, TaskKey, TaskRef};
use crate::executors::NEVER_RAN;
use crate::master::ApplicationMaster;

/// One `RunTasks` stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stage {
    /// New tasks in the order of their submission. May hold tasks that are final by now.
    pub(crate) pending: VecDeque<TaskKey>,
    /// Tasks tried before; they go first.
    pub(crate) retries: VecDeque<TaskKey>,
    /// Slow tasks that wait for a second executor; they go last.
    pub(crate) slow: BTreeSet<TaskKey>,
    /// How long its tasks ran that ended well.
    pub(crate) times: speculation::Times,
    /// Tasks that are not final.
    pub(crate) open: u64,
    pub(crate) closed: bool,
    pub(crate) throttled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskPlace {
    Waiting,
    Launched(ContainerId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) stage: StageId,
    /// Of one executor, for each attempt.
    pub(crate) slots: u32,
    pub(crate) place: TaskPlace,
    /// The current or last attempt, 0 before the first. With a copy running: that of `place`.
    pub(crate) attempt: u32,
    /// A second attempt that runs beside it: where, and which.
    pub(crate) copy: Option<(ContainerId, u32)>,
    /// Attempts begun.
    pub(crate) attempts: u32,
    /// When the current attempt was launched.
    pub(crate) launched_at: Millis,
    pub(crate) failures: u32,
    pub(crate) losses: u32,
    pub(crate) failed_on: Vec<ContainerId>,
    /// From then on it also goes to an executor it has failed on.
    pub(crate) anywhere_at: Millis,
}

fn kill(container: ContainerId, task: TaskRef, effects: &mut Vec<Effect>) {
    effects.push(Effect::KillTask { container, task });
    effects.push(Effect::DiscardOutput { task });
}

/// How a task ended for good.
pub(crate) struct Outcome {
    pub(crate) exit_status: ExitStatus,
    pub(crate) problem: String,
    /// The attempt whose output belongs to it.
    pub(crate) output_of: Option<TaskRef>,
}

impl Outcome {
    fn without_run(problem: String) -> Outcome {
        Outcome {
            exit_status: NEVER_RAN,
            problem,
            output_of: None,
        }
    }
}

impl ApplicationMaster {
    pub(crate) fn on_stage_opened(&mut self, stage: StageId) {
        if !self.shut_down {
            self.stages.entry(stage).or_default();
        }
    }

    pub(crate) fn on_task_submitted(
        &mut self,
        now: Millis,
        stage: StageId,
        (key, slots): (TaskKey, u32),
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.stages.get_mut(&stage) else {
            return;
        };
        if entry.closed || self.tasks.contains_key(&key) {
            return;
        }
        entry.open += 1;
        entry.pending.push_back(key);
        self.tasks.insert(
            key,
            Task {
                stage,
                slots,
                place: TaskPlace::Waiting,
                attempt: 0,
                copy: None,
                attempts: 0,
                launched_at: Millis(0),
                failures: 0,
                losses: 0,
                failed_on: Vec::new(),
                anywhere_at: Millis(0),
            },
        );
        self.slots_needed = self.slots_needed.saturating_add(slots.into());
        let most = self.config.executor_resource.vcores.max(1);
        if slots > most {
            let words = format!(
                "it needs {slots} slots of an executor, which has {most}: submit with \
                 --executor-cores {slots} or more"
            );
            self.finish(key, Outcome::without_run(words), effects);
        }
        self.fail_hopeless_tasks(effects);
        self.schedule(now, effects);
    }

    pub(crate) fn on_task_cancelled(
        &mut self,
        stage: StageId,
        key: TaskKey,
        effects: &mut Vec<Effect>,
    ) {
        if self.tasks.get(&key).is_some_and(|t| t.stage == stage) {
            self.kill_attempts(key, effects);
            let outcome = Outcome::without_run("it was cancelled".to_owned());
            self.finish(key, outcome, effects);
        }
    }

    /// Each of its tasks ends as a cancelled one does; the stage stays open until it is closed.
    pub(crate) fn on_stage_cancelled(&mut self, stage: StageId, effects: &mut Vec<Effect>) {
        for key in self.tasks_of(stage) {
            self.on_task_cancelled(stage, key, effects);
        }
    }

    fn tasks_of(&self, stage: StageId) -> Vec<TaskKey> {
        let all = self.tasks.iter();
        all.filter(|(_, t)| t.stage == stage)
            .map(|(key, _)| *key)
            .collect()
    }

    pub(crate) fn on_stage_closed(&mut self, stage: StageId, effects: &mut Vec<Effect>) {
        if let Some(entry) = self.stages.get_mut(&stage) {
            entry.closed = true;
            self.end_stage_if_done(stage, effects);
        }
    }

    /// Nobody waits for the tasks: they end without a word.
    pub(crate) fn on_stage_broken(&mut self, stage: StageId, effects: &mut Vec<Effect>) {
        if self.stages.remove(&stage).is_none() {
            return;
        }
        for key in self.tasks_of(stage) {
            self.kill_attempts(key, effects);
            self.remove_task(key);
        }
        effects.push(Effect::StageEnded { stage });
    }

    pub(crate) fn on_stage_throttled(
        &mut self,
        now: Millis,
        stage: StageId,
        throttled: bool,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(entry) = self.stages.get_mut(&stage) {
            entry.throttled = throttled;
            self.schedule(now, effects);
        }
    }

    pub(crate) fn on_task_started(
        &mut self,
        container: ContainerId,
        task: TaskRef,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(stage), Some(executor)) = (
            self.current(container, task),
            self.executors.get(&container),
        ) else {
            return;
        };
        effects.push(Effect::TaskRunning {
            stage,
            task,
            container,
            node: executor.node.clone(),
        });
    }

    /// The stage of the task if `task` is an attempt of it that counts and runs on `container`.
    fn current(&self, container: ContainerId, task: TaskRef) -> Option<StageId> {
        let known = self.tasks.get(&task.task)?;
        let is_first =
            known.attempt == task.attempt && known.place == TaskPlace::Launched(container);
        let counts = is_first || known.copy == Some((container, task.attempt));
        counts.then_some(known.stage)
    }

    /// Tells the executors; a slot is free when its executor says that the attempt has ended.
    fn kill_attempts(&mut self, key: TaskKey, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get(&key) else {
            return;
        };
        let first = match task.place {
            TaskPlace::Launched(container) => Some((container, task.attempt)),
            TaskPlace::Waiting => None,
        };
        for (container, attempt) in first.into_iter().chain(task.copy) {
            kill(container, TaskRef { task: key, attempt }, effects);
        }
    }

    fn remove_task(&mut self, key: TaskKey) -> Option<Task> {
        let task = self.tasks.remove(&key)?;
        if matches!(task.place, TaskPlace::Launched(_)) {
            self.launched -= 1;
        }
        self.slots_needed -= u64::from(task.slots);
        self.retry_at.remove(&(task.anywhere_at, key));
        if let Some(stage) = self.stages.get_mut(&task.stage) {
            stage.slow.remove(&key);
        }
        Some(task)
    }

    /// The only way for a task to become final.
    fn finish(&mut self, key: TaskKey, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(task) = self.remove_task(key) else {
            return;
        };
        effects.push(Effect::TaskFinal {
            stage: task.stage,
            task: key,
            output_of: outcome.output_of,
            exit_status: outcome.exit_status,
            attempts: task.attempts,
            problem: outcome.problem,
        });
        if let Some(stage) = self.stages.get_mut(&task.stage) {
            stage.open -= 1;
        }
        self.end_stage_if_done(task.stage, effects);
    }

    fn end_stage_if_done(&mut self, stage: StageId, effects: &mut Vec<Effect>) {
        let done = self
            .stages
            .get(&stage)
            .is_some_and(|s| s.closed && s.open == 0);
        if done {
            self.stages.remove(&stage);
            effects.push(Effect::StageEnded { stage });
        }
    }

    /// Why no task can ever run, when there is no executor and none will come.
    fn hopeless(&self) -> Option<String> {
        if let Some(words) = &self.failed {
            return Some(words.clone());
        }
        if self.held() > 0 {
            return None;
        }
        if let Some(words) = &self.refusal {
            return Some(format!("no executor can be had: {words}"));
        }
        (self.wanted_at_most() == 0).then(|| {
            "the application has no executors: submit with --num-executors N or \
             --conf dynamic-allocation.enabled=true"
                .to_owned()
        })
    }

    pub(crate) fn fail_hopeless_tasks(&mut self, effects: &mut Vec<Effect>) {
        if self.tasks.is_empty() {
            return;
        }
        if let Some(words) = self.hopeless() {
            self.fail_all_tasks(&words, effects);
        }
    }

    pub(crate) fn fail_all_tasks(&mut self, words: &str, effects: &mut Vec<Effect>) {
        let keys: Vec<_> = self.tasks.keys().copied().collect();
        for key in keys {
            self.kill_attempts(key, effects);
            self.finish(key, Outcome::without_run(words.to_owned()), effects);
        }
    }
}
