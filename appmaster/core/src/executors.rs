//! Executors: from the grant to their end.
//!
//! Granted, its process is started on the node; Up, it has registered and takes tasks; Detached, its
//! stream broke and it may come back; Leaving, it was told to go. It is forgotten when its
//! container has completed. A slot is taken by every attempt that the executor has been sent and
//! has not reported ended, killed ones included, so slots are never oversubscribed.

use std::collections::BTreeMap;

use bobbin_types::{ContainerId, ExitStatus, Millis, NodeId};

use crate::effect::Effect;
use crate::event::{Completed, TaskKey};
use crate::master::ApplicationMaster;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutorPhase {
    /// Granted and being started; its registration ends this.
    Granted,
    /// Registered; takes tasks.
    Up,
    /// Its stream broke; it registers again or is lost.
    Detached,
    /// Told to go; its completion ends this.
    Leaving,
}

/// An attempt on an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) attempt: u32,
    pub(crate) slots: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Executor {
    pub(crate) node: NodeId,
    pub(crate) phase: ExecutorPhase,
    pub(crate) slots: u32,
    /// Attempts that take slots.
    pub(crate) running: BTreeMap<TaskKey, Running>,
    /// Whether it was ever given a task.
    pub(crate) used: bool,
    /// When its phase has lasted too long.
    pub(crate) deadline: Millis,
    /// Up without a task, and when that has lasted too long (`allocation.rs`).
    pub(crate) idle_until: Option<Millis>,
}

/// An executor for people and drivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorView {
    pub container: ContainerId,
    pub node: NodeId,
    pub phase: ExecutorPhase,
    pub slots: u32,
    pub running: u32,
}

impl Executor {
    pub(crate) fn granted(node: NodeId, deadline: Millis) -> Executor {
        Executor {
            node,
            phase: ExecutorPhase::Granted,
            slots: 0,
            running: BTreeMap::new(),
            used: false,
            deadline,
            idle_until: None,
        }
    }

    pub(crate) fn taken(&self) -> u32 {
        let slots = self.running.values().map(|running| running.slots);
        slots.fold(0, u32::saturating_add)
    }

    /// The attempt of a task that takes slots here.
    pub(crate) fn attempt_of(&self, task: TaskKey) -> Option<u32> {
        self.running.get(&task).map(|running| running.attempt)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.phase == ExecutorPhase::Up && self.taken() < self.slots
    }
}

impl ApplicationMaster {
    pub(crate) fn insert_executor(&mut self, container: ContainerId, executor: Executor) {
        self.deadlines.insert((executor.deadline, container));
        self.executors.insert(container, executor);
    }

    /// Executors that count towards what is wanted.
    pub(crate) fn held(&self) -> u32 {
        let held = self.executors.len() - self.leaving;
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    pub(crate) fn up_executors(&self) -> u32 {
        u32::try_from(self.up).unwrap_or(u32::MAX)
    }

    /// Changes phase and deadline, and keeps the counters and indexes true.
    fn set_phase(&mut self, container: ContainerId, phase: ExecutorPhase, deadline: Millis) {
        let Some(executor) = self.executors.get_mut(&container) else {
            return;
        };
        match executor.phase {
            ExecutorPhase::Up => self.up -= 1,
            ExecutorPhase::Leaving => self.leaving -= 1,
            ExecutorPhase::Granted | ExecutorPhase::Detached => {}
        }
        match phase {
            ExecutorPhase::Up => self.up += 1,
            ExecutorPhase::Leaving => self.leaving += 1,
            ExecutorPhase::Granted | ExecutorPhase::Detached => {}
        }
        self.deadlines.remove(&(executor.deadline, container));
        executor.phase = phase;
        executor.deadline = deadline;
        self.deadlines.insert((deadline, container));
        self.index_room(container);
    }

    /// Puts the executor where the scheduler looks for the least loaded one, or takes it out.
    pub(crate) fn index_room(&mut self, container: ContainerId) {
        self.ramp.touched.insert(container);
        if let Some(load) = self.room_of.remove(&container) {
            self.room.remove(&(load, container));
        }
        if let Some(executor) = self.executors.get(&container)
            && executor.has_room()
        {
            let load = executor.taken();
            self.room_of.insert(container, load);
            self.room.insert((load, container));
        }
    }

    pub(crate) fn on_executor_registered(
        &mut self,
        now: Millis,
        container: ContainerId,
        slots: u32,
        effects: &mut Vec<Effect>,
    ) {
        let Some(executor) = self.executors.get_mut(&container) else {
            let reason = "this application master does not know the container".to_owned();
            effects.push(Effect::DismissExecutor { container, reason });
            return;
        };
        match executor.phase {
            ExecutorPhase::Leaving => {
                let reason = "the executor is not wanted any more".to_owned();
                effects.push(Effect::DismissExecutor { container, reason });
            }
            // Up as well: the broken stream is seen later here than over there.
            ExecutorPhase::Granted | ExecutorPhase::Detached | ExecutorPhase::Up => {
                let new = executor.phase == ExecutorPhase::Granted;
                executor.slots = slots.max(1);
                let (slots, node) = (executor.slots, executor.node.clone());
                self.lose_tasks_of(now, container, "its connection broke", effects);
                let silence = now.after(self.config.executor_silence_ms);
                self.set_phase(container, ExecutorPhase::Up, silence);
                if new {
                    self.failures.node_works(&node);
                    effects.push(Effect::ExecutorUp {
                        container,
                        node,
                        slots,
                    });
                }
                self.schedule(now, effects);
            }
        }
    }

    pub(crate) fn on_executor_heard(&mut self, now: Millis, container: ContainerId) {
        let silence = now.after(self.config.executor_silence_ms);
        if let Some(executor) = self.executors.get_mut(&container)
            && executor.phase == ExecutorPhase::Up
        {
            self.deadlines.remove(&(executor.deadline, container));
            executor.deadline = silence;
            self.deadlines.insert((silence, container));
        }
    }

    pub(crate) fn on_executor_detached(&mut self, now: Millis, container: ContainerId) {
        let is_up = self
            .executors
            .get(&container)
            .is_some_and(|e| e.phase == ExecutorPhase::Up);
        if is_up {
            let deadline = now.after(self.config.executor_detached_ms);
            self.set_phase(container, ExecutorPhase::Detached, deadline);
        }
    }

    pub(crate) fn on_completed(
        &mut self,
        now: Millis,
        ended: Completed,
        effects: &mut Vec<Effect>,
    ) {
        self.parked.remove(&ended.container);
        let Some(executor) = self.executors.get(&ended.container) else {
            return;
        };
        let reason = if ended.diagnostics.is_empty() {
            format!("its container ended with exit status {}", ended.exit_status)
        } else {
            ended.diagnostics
        };
        let own_fault = ended.exit_status.counts_as_failure();
        let failed = executor.phase != ExecutorPhase::Leaving && !executor.used && own_fault;
        let node = executor.node.clone();
        self.forget_executor(now, ended.container, &reason, effects);
        if failed {
            self.count_start_failure(now, &node, &reason, effects);
        }
        self.after_loss(now, effects);
    }

    /// Ends phases that have lasted too long.
    pub(crate) fn expire_executors(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        while let Some((deadline, container)) = self.deadlines.first().copied()
            && deadline <= now
        {
            let Some(executor) = self.executors.get(&container) else {
                self.deadlines.remove(&(deadline, container));
                continue;
            };
            let (phase, node) = (executor.phase, executor.node.clone());
            let reason = match phase {
                ExecutorPhase::Granted => format!(
                    "the executor {container} on {node} did not register within {} ms",
                    self.config.executor_start_ms
                ),
                ExecutorPhase::Up => format!(
                    "nothing was heard of the executor {container} on {node} for {} ms",
                    self.config.executor_silence_ms
                ),
                ExecutorPhase::Detached => {
                    format!("the executor {container} on {node} did not come back")
                }
                ExecutorPhase::Leaving => "the executor was told to go".to_owned(),
            };
            self.give_back(container, &node, &reason, effects);
            self.forget_executor(now, container, &reason, effects);
            if phase == ExecutorPhase::Granted {
                self.count_start_failure(now, &node, &reason, effects);
            }
            self.after_loss(now, effects);
        }
    }

    /// Dismisses executors above the number that is wanted: those that are not up yet first, then
    /// the least loaded. With dynamic allocation they go when they are idle (`allocation.rs`).
    pub(crate) fn dismiss_surplus(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if self.dynamic().is_some() {
            return;
        }
        let surplus = self.held().saturating_sub(self.wanted());
        if surplus == 0 {
            return;
        }
        let mut candidates: Vec<_> = self
            .executors
            .iter()
            .filter(|(_, e)| e.phase != ExecutorPhase::Leaving)
            .map(|(id, e)| (e.phase != ExecutorPhase::Granted, e.taken(), *id))
            .collect();
        candidates.sort_unstable();
        let most = usize::try_from(surplus).unwrap_or(usize::MAX);
        for (_, _, container) in candidates.into_iter().take(most) {
            self.dismiss(
                now,
                container,
                "the executor is not wanted any more",
                effects,
            );
        }
    }

    /// Sends an executor away; its tasks run elsewhere.
    pub(crate) fn dismiss(
        &mut self,
        now: Millis,
        container: ContainerId,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(executor) = self.executors.get(&container) else {
            return;
        };
        let (node, was_granted) = (
            executor.node.clone(),
            executor.phase == ExecutorPhase::Granted,
        );
        self.give_back(container, &node, reason, effects);
        let deadline = now.after(self.config.executor_start_ms);
        self.set_phase(container, ExecutorPhase::Leaving, deadline);
        self.requeue_tasks_of(container, effects);
        if !was_granted {
            let reason = reason.to_owned();
            effects.push(Effect::ExecutorDown {
                container,
                node,
                reason,
            });
        }
    }

    fn give_back(
        &self,
        container: ContainerId,
        node: &NodeId,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::DismissExecutor {
            container,
            reason: reason.to_owned(),
        });
        effects.push(Effect::StopExecutor {
            container,
            node: node.clone(),
        });
        effects.push(Effect::Release(vec![container]));
    }

    fn forget_executor(
        &mut self,
        now: Millis,
        container: ContainerId,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        self.lose_tasks_of(now, container, reason, effects);
        let Some(executor) = self.executors.remove(&container) else {
            return;
        };
        self.deadlines.remove(&(executor.deadline, container));
        self.forget_idle(container, executor.idle_until);
        match executor.phase {
            ExecutorPhase::Up => self.up -= 1,
            ExecutorPhase::Leaving => self.leaving -= 1,
            ExecutorPhase::Granted | ExecutorPhase::Detached => {}
        }
        self.index_room(container);
        if matches!(executor.phase, ExecutorPhase::Up | ExecutorPhase::Detached) {
            effects.push(Effect::ExecutorDown {
                container,
                node: executor.node,
                reason: reason.to_owned(),
            });
        }
    }

    fn after_loss(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.dismiss_surplus(now, effects);
        self.update_asks(effects);
        self.fail_hopeless_tasks(effects);
        self.schedule(now, effects);
    }
}

/// Of a task that never ran or was lost.
pub(crate) const NEVER_RAN: ExitStatus = ExitStatus::ABORTED;
