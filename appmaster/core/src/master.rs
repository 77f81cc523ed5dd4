//! The struct, the dispatch of events, and the deadline.

use std::collections::{BTreeMap, BTreeSet};

use bobbin_types::{ContainerId, Millis};

use crate::allocation::Ramp;
use crate::config::{Allocation, Config};
use crate::effect::{Ask, Effect};
use crate::event::{Event, StageId, TaskKey};
use crate::exclusion::Failures;
use crate::executors::{Executor, ExecutorView};
use crate::tasks::{Stage, Task};

/// One application attempt's master.
#[derive(Clone, Debug)]
pub struct ApplicationMaster {
    pub(crate) config: Config,
    pub(crate) nodes_running: u32,

    /// Count of the ask on the wire.
    pub(crate) asked: u32,
    /// Granted on excluded nodes, held unstarted.
    pub(crate) parked: BTreeSet<ContainerId>,
    pub(crate) offers_paused_until: Option<Millis>,
    /// Why the resource manager will never grant an executor.
    pub(crate) refusal: Option<String>,
    pub(crate) ramp: Ramp,

    pub(crate) executors: BTreeMap<ContainerId, Executor>,
    /// How many of them are up, and how many are leaving.
    pub(crate) up: usize,
    pub(crate) leaving: usize,
    pub(crate) deadlines: BTreeSet<(Millis, ContainerId)>,
    /// Executors with a free slot, least loaded first, and under which load each stands there.
    pub(crate) room: BTreeSet<(u32, ContainerId)>,
    pub(crate) room_of: BTreeMap<ContainerId, u32>,
    pub(crate) failures: Failures,

    pub(crate) stages: BTreeMap<StageId, Stage>,
    pub(crate) tasks: BTreeMap<TaskKey, Task>,
    /// How many of them are launched.
    pub(crate) launched: u64,
    /// Slots that all of them need together.
    pub(crate) slots_needed: u64,
    /// Tasks that wait for an executor they have not failed on, by when they stop doing so.
    pub(crate) retry_at: BTreeSet<(Millis, TaskKey)>,
    pub(crate) looked_for_slow_at: Option<Millis>,

    /// No executor can be had, with the words.
    pub(crate) failed: Option<String>,
    pub(crate) shut_down: bool,
}

/// Numbers for `GetInfo` and progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub executors_wanted: u32,
    /// What may come to be wanted; more than `executors_wanted` only with dynamic allocation.
    pub executors_max: u32,
    pub executors_up: u32,
    pub slots: u32,
    pub tasks: u64,
}

impl ApplicationMaster {
    /// Asks for nothing until the first event; give it `MasterRegistered` or any other.
    #[must_use]
    pub fn new(config: Config) -> ApplicationMaster {
        let mut master = ApplicationMaster {
            ramp: Ramp::of(&config.allocation),
            config,
            nodes_running: u32::MAX,
            asked: 0,
            parked: BTreeSet::new(),
            offers_paused_until: None,
            refusal: None,
            executors: BTreeMap::new(),
            up: 0,
            leaving: 0,
            deadlines: BTreeSet::new(),
            room: BTreeSet::new(),
            room_of: BTreeMap::new(),
            failures: Failures::default(),
            stages: BTreeMap::new(),
            tasks: BTreeMap::new(),
            launched: 0,
            slots_needed: 0,
            retry_at: BTreeSet::new(),
            looked_for_slow_at: None,
            failed: None,
            shut_down: false,
        };
        // The first registration carries the asks.
        master.asked = master.missing();
        master
    }

    /// What the registration with the resource manager says: the ask and every container held.
    #[must_use]
    pub fn registration(&self) -> (Ask, Vec<ContainerId>) {
        let held = self.executors.keys().chain(&self.parked).copied().collect();
        (self.ask(), held)
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let slots = |e: &Executor| match e.phase {
            crate::ExecutorPhase::Up => u64::from(e.slots),
            crate::ExecutorPhase::Granted
            | crate::ExecutorPhase::Detached
            | crate::ExecutorPhase::Leaving => 0,
        };
        let slots: u64 = self.executors.values().map(slots).sum();
        // After a failure the number stays what was asked for: tasks are still taken, and their ends
        // say why there are no executors.
        let (executors_wanted, executors_max) = match self.config.allocation {
            _ if self.shut_down => (0, 0),
            Allocation::Static { executors } => (executors, executors),
            Allocation::Dynamic(dynamic) => (self.ramp.target, dynamic.max),
        };
        Counts {
            executors_wanted,
            executors_max,
            executors_up: self.up_executors(),
            slots: u32::try_from(slots).unwrap_or(u32::MAX),
            tasks: u64::try_from(self.tasks.len()).unwrap_or(u64::MAX),
        }
    }

    pub fn executors(&self) -> impl Iterator<Item = ExecutorView> + '_ {
        self.executors.iter().map(|(id, e)| ExecutorView {
            container: *id,
            node: e.node.clone(),
            phase: e.phase,
            slots: e.slots,
            running: e.taken(),
        })
    }

    /// When `Event::Tick` is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let executors = self.deadlines.first().map(|(at, _)| *at);
        [
            executors,
            self.offers_paused_until,
            self.retry_deadline(),
            self.load_deadline(),
            self.speculation_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes one event; what is to be done is appended to `effects`. Never fails: what cannot be is
    /// answered or ignored.
    pub fn handle(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        self.take(now, event, effects);
        self.follow_load(now, effects);
    }

    fn take(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => self.on_tick(now, effects),
            Event::MasterRegistered { nodes_running } => {
                self.nodes_running = nodes_running.max(1);
                self.update_asks(effects);
            }
            Event::Granted(grants) => self.on_granted(now, grants, effects),
            Event::ContainersCompleted(ended) => {
                for ended in ended {
                    self.on_completed(now, ended, effects);
                }
            }
            Event::AskRefused { reason } => self.on_ask_refused(now, reason, effects),
            // The registration is what counts; the node's word only helps people.
            Event::ContainerStarted { container: _ } => {}
            Event::ExecutorRegistered { container, slots } => {
                self.on_executor_registered(now, container, slots, effects);
            }
            Event::ExecutorDetached { container } => self.on_executor_detached(now, container),
            Event::ExecutorHeard { container } => self.on_executor_heard(now, container),
            Event::TaskStarted { container, task } => {
                self.on_task_started(container, task, effects);
            }
            Event::TaskEnded {
                container,
                task,
                exit_status,
                problem,
            } => self.on_task_ended(now, container, (task, exit_status, problem), effects),
            Event::StageOpened { stage } => self.on_stage_opened(stage),
            Event::TaskSubmitted { stage, task, slots } => {
                self.on_task_submitted(now, stage, (task, slots.max(1)), effects);
            }
            Event::TaskCancelled { stage, task } => self.on_task_cancelled(stage, task, effects),
            Event::StageCancelled { stage } => self.on_stage_cancelled(stage, effects),
            Event::StageClosed { stage } => self.on_stage_closed(stage, effects),
            Event::StageBroken { stage } => self.on_stage_broken(stage, effects),
            Event::StageThrottled { stage, throttled } => {
                self.on_stage_throttled(now, stage, throttled, effects);
            }
            Event::ExecutorsWanted { count } => self.on_executors_wanted(now, count, effects),
            Event::ShutDown => {
                self.shut_down = true;
                let stages: Vec<_> = self.stages.keys().copied().collect();
                for stage in stages {
                    self.on_stage_broken(stage, effects);
                }
                self.dismiss_surplus(now, effects);
                self.update_asks(effects);
            }
        }
    }

    fn on_tick(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.expire_executors(now, effects);
        self.forget_passed_retries(now);
        self.find_slow_tasks(now, effects);
        if self.offers_paused_until.is_some_and(|until| until <= now) {
            self.offers_paused_until = None;
            self.update_asks(effects);
        }
        self.schedule(now, effects);
    }
}
