//! Random lives: whatever happens, every task becomes final once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{Allocation, DynamicAllocation, Speculation};

/// A random life: the resource manager, executors and the driver as they may behave.
#[derive(Clone, Debug)]
enum Step {
    Grant(u32),
    Complete(usize, i32),
    Register(usize, u32),
    Detach(usize),
    TaskEnd(usize, i32),
    Submit(u64),
    Cancel(usize),
    CancelStage(u64),
    Close(u64),
    Break(u64),
    Throttle(u64, bool),
    Want(u32),
    Refuse,
    Wait(u64),
    ShutDown,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..5_u32).prop_map(Step::Grant),
        4 => (any::<usize>(), prop_oneof![Just(0), Just(1), Just(-100), Just(137)])
            .prop_map(|(i, s)| Step::Complete(i, s)),
        8 => (any::<usize>(), 1..4_u32).prop_map(|(i, s)| Step::Register(i, s)),
        3 => any::<usize>().prop_map(Step::Detach),
        20 => (any::<usize>(), prop_oneof![3 => Just(0), 1 => Just(1)])
            .prop_map(|(i, s)| Step::TaskEnd(i, s)),
        20 => (0..3_u64).prop_map(Step::Submit),
        3 => any::<usize>().prop_map(Step::Cancel),
        1 => (0..3_u64).prop_map(Step::CancelStage),
        1 => (0..3_u64).prop_map(Step::Close),
        1 => (0..3_u64).prop_map(Step::Break),
        2 => (0..3_u64, any::<bool>()).prop_map(|(s, t)| Step::Throttle(s, t)),
        1 => (0..5_u32).prop_map(Step::Want),
        1 => Just(Step::Refuse),
        4 => (0..40_000_u64).prop_map(Step::Wait),
        1 => Just(Step::ShutDown),
    ]
}

/// The world around the master, seen from outside.
struct World {
    script: Script,
    next_container: u32,
    next_task: u64,
    containers: Vec<u32>,
    /// What every executor believes to run.
    running: BTreeMap<ContainerId, Vec<TaskRef>>,
    open: BTreeMap<TaskKey, StageId>,
    finals: BTreeSet<TaskKey>,
    ended_stages: BTreeSet<StageId>,
}

impl World {
    fn apply(&mut self, step: &Step) {
        let pick = |list: &Vec<u32>, i: usize| list.get(i % list.len().max(1)).copied();
        let event = match step {
            Step::Grant(on) => {
                let number = self.next_container;
                self.next_container += 1;
                self.containers.push(number);
                Event::Granted(vec![grant(number, *on)])
            }
            Step::Complete(i, status) => {
                let Some(number) = pick(&self.containers, *i) else {
                    return;
                };
                self.containers.retain(|n| *n != number);
                self.running.remove(&container(number));
                Event::ContainersCompleted(vec![Completed {
                    container: container(number),
                    exit_status: ExitStatus(*status),
                    diagnostics: String::new(),
                }])
            }
            Step::Register(i, slots) => {
                let Some(number) = pick(&self.containers, *i) else {
                    return;
                };
                self.running.remove(&container(number));
                Event::ExecutorRegistered {
                    container: container(number),
                    slots: *slots,
                }
            }
            Step::Detach(i) => {
                let Some(number) = pick(&self.containers, *i) else {
                    return;
                };
                self.running.remove(&container(number));
                Event::ExecutorDetached {
                    container: container(number),
                }
            }
            Step::TaskEnd(i, status) => {
                let all: Vec<_> = self
                    .running
                    .iter()
                    .flat_map(|(c, tasks)| tasks.iter().map(|t| (*c, *t)))
                    .collect();
                let Some((on, task)) = all.get(*i % all.len().max(1)).copied() else {
                    return;
                };
                if let Some(tasks) = self.running.get_mut(&on) {
                    tasks.retain(|t| *t != task);
                }
                Event::TaskEnded {
                    container: on,
                    task,
                    exit_status: ExitStatus(*status),
                    problem: String::new(),
                }
            }
            Step::Submit(stage) => {
                let stage = StageId(*stage);
                if self.ended_stages.contains(&stage) || self.script.master.shut_down {
                    return;
                }
                let task = TaskKey(self.next_task);
                self.next_task += 1;
                self.handle(Event::StageOpened { stage });
                let closed = self
                    .script
                    .master
                    .stages
                    .get(&stage)
                    .is_none_or(|s| s.closed);
                if closed {
                    return;
                }
                self.open.insert(task, stage);
                Event::TaskSubmitted {
                    stage,
                    task,
                    slots: 1,
                }
            }
            Step::Cancel(i) => {
                let all: Vec<_> = self.open.iter().map(|(t, s)| (*t, *s)).collect();
                let Some((task, stage)) = all.get(*i % all.len().max(1)).copied() else {
                    return;
                };
                Event::TaskCancelled { stage, task }
            }
            Step::CancelStage(stage) => Event::StageCancelled {
                stage: StageId(*stage),
            },
            Step::Close(stage) => Event::StageClosed {
                stage: StageId(*stage),
            },
            Step::Break(stage) => Event::StageBroken {
                stage: StageId(*stage),
            },
            Step::Throttle(stage, throttled) => Event::StageThrottled {
                stage: StageId(*stage),
                throttled: *throttled,
            },
            Step::Want(count) => Event::ExecutorsWanted { count: *count },
            Step::Refuse => Event::AskRefused {
                reason: "no".into(),
            },
            Step::Wait(ms) => {
                let until = self.script.now.after(*ms);
                while let Some(due) = self.script.master.next_deadline().filter(|d| *d <= until) {
                    self.script.now = self.script.now.max(due);
                    self.handle(Event::Tick);
                    assert!(
                        self.script.master.next_deadline().is_none_or(|d| d > due),
                        "a tick that changes nothing would be repeated for ever"
                    );
                }
                self.script.now = until;
                return;
            }
            Step::ShutDown => Event::ShutDown,
        };
        self.handle(event);
    }

    fn handle(&mut self, event: Event) {
        let effects = self.script.on(event);
        for effect in &effects {
            match effect {
                Effect::LaunchTask { container, task } => {
                    self.running.entry(*container).or_default().push(*task);
                }
                Effect::TaskFinal { task, stage, .. } => {
                    assert!(self.finals.insert(*task), "{task:?} is final twice");
                    assert_eq!(self.open.remove(task), Some(*stage));
                    assert!(!self.ended_stages.contains(stage));
                }
                Effect::StageEnded { stage } => {
                    assert!(self.ended_stages.insert(*stage), "{stage:?} ended twice");
                    self.open.retain(|_, s| s != stage);
                }
                Effect::Release(containers) => {
                    for released in containers {
                        self.running.remove(released);
                        self.containers.retain(|n| container(*n) != *released);
                    }
                }
                Effect::SendAsk(_)
                | Effect::StartExecutor { .. }
                | Effect::StopExecutor { .. }
                | Effect::DismissExecutor { .. }
                | Effect::KillTask { .. }
                | Effect::DiscardOutput { .. }
                | Effect::TaskRunning { .. }
                | Effect::TaskRetried { .. }
                | Effect::ExecutorUp { .. }
                | Effect::ExecutorDown { .. }
                | Effect::Fail { .. } => {}
            }
        }
        for executor in self.script.master.executors() {
            let believed = self.running.get(&executor.container).map_or(0, Vec::len);
            if executor.phase == ExecutorPhase::Up {
                assert!(u32::try_from(believed).unwrap() <= executor.slots);
            }
        }
        let known: BTreeSet<_> = self.script.master.tasks.keys().copied().collect();
        let open: BTreeSet<_> = self.open.keys().copied().collect();
        assert_eq!(known, open, "every open task is known, and no other");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn random_lives(
        wanted in 0..5_u32,
        speculates: bool,
        follows_load: bool,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World {
            script: Script::new(wanted),
            next_container: 2,
            next_task: 0,
            containers: Vec::new(),
            running: BTreeMap::new(),
            open: BTreeMap::new(),
            finals: BTreeSet::new(),
            ended_stages: BTreeSet::new(),
        };
        let config = &mut world.script.master.config;
        config.speculation = speculates.then(|| Speculation {
            quantile_permille: 300,
            multiplier_permille: 1_000,
            ..Speculation::default()
        });
        if follows_load {
            config.allocation = Allocation::Dynamic(DynamicAllocation {
                max: wanted + 1,
                executor_idle_timeout_ms: 5_000,
                ..DynamicAllocation::default()
            });
        }
        world.script.master.ramp.target = wanted;
        for step in &steps {
            world.apply(step);
        }
        // Two copies agree.
        let mut copy = world.script.master.clone();
        let (mut one, mut two) = (Vec::new(), Vec::new());
        world.script.master.handle(world.script.now, Event::Tick, &mut one);
        copy.handle(world.script.now, Event::Tick, &mut two);
        prop_assert_eq!(one, two);
    }

    /// Whatever happened, once the world behaves every task becomes final.
    #[test]
    fn after_chaos_every_task_becomes_final(steps in prop::collection::vec(step(), 1..100)) {
        let mut world = World {
            script: Script::new(2),
            next_container: 2,
            next_task: 0,
            containers: Vec::new(),
            running: BTreeMap::new(),
            open: BTreeMap::new(),
            finals: BTreeSet::new(),
            ended_stages: BTreeSet::new(),
        };
        for step in &steps {
            world.apply(step);
        }
        for stage in 0..3 {
            world.apply(&Step::Throttle(stage, false));
        }
        for round in 0..2_000_u32 {
            if world.open.is_empty() {
                break;
            }
            world.apply(&Step::Wait(10_000));
            if world.script.master.registration().0.count > 0 {
                world.apply(&Step::Grant(round % 7 + 10));
            }
            for index in 0..world.containers.len() {
                world.apply(&Step::Register(index, 2));
                for _ in 0..4 {
                    world.apply(&Step::TaskEnd(0, 0));
                }
            }
        }
        prop_assert!(world.open.is_empty(), "{:?}", world.open);
    }
}
