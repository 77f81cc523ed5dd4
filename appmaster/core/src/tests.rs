//! Scripts and random lives.

use std::collections::{BTreeMap, BTreeSet};

use bobbin_types::{ApplicationId, AttemptId, ContainerId, ExitStatus, Millis, NodeId, Resource};
use proptest::prelude::*;

use crate::{
    Allocation, ApplicationMaster, Completed, Config, DynamicAllocation, Effect, Event,
    ExecutorPhase, Grant, Speculation, StageId, TaskKey, TaskRef,
};

mod slots;
mod speculation;

const STAGE: StageId = StageId(1);

fn container(number: u32) -> ContainerId {
    let application = ApplicationId {
        cluster_timestamp: 1,
        sequence: 1,
    };
    ContainerId {
        attempt: AttemptId {
            application,
            attempt: 1,
        },
        epoch: 0,
        number,
    }
}

fn node(number: u32) -> NodeId {
    format!("node{number}:1").parse().unwrap()
}

fn grant(number: u32, on: u32) -> Grant {
    Grant {
        container: container(number),
        node: node(on),
        resource: Resource::new(64, 1),
    }
}

/// A master with a clock, checked after every event.
struct Script {
    now: Millis,
    master: ApplicationMaster,
}

impl Script {
    fn new(executors: u32) -> Script {
        Script {
            now: Millis(0),
            master: ApplicationMaster::new(Config::new(executors, Resource::new(64, 1))),
        }
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.master.handle(self.now, event, &mut effects);
        self.master.check_invariants().unwrap();
        effects
    }

    /// Grants, starts and registers an executor.
    fn up(&mut self, number: u32, on: u32, slots: u32) -> Vec<Effect> {
        self.on(Event::Granted(vec![grant(number, on)]));
        self.on(Event::ExecutorRegistered {
            container: container(number),
            slots,
        })
    }

    fn ended(&mut self, number: u32, task: TaskRef, exit_status: i32) -> Vec<Effect> {
        self.on(Event::TaskEnded {
            container: container(number),
            task,
            exit_status: ExitStatus(exit_status),
            problem: String::new(),
        })
    }

    fn completed(&mut self, number: u32, exit_status: i32) -> Vec<Effect> {
        self.on(Event::ContainersCompleted(vec![Completed {
            container: container(number),
            exit_status: ExitStatus(exit_status),
            diagnostics: String::new(),
        }]))
    }

    fn submit(&mut self, tasks: impl IntoIterator<Item = u64>) -> Vec<Effect> {
        let mut effects = self.on(Event::StageOpened { stage: STAGE });
        for task in tasks {
            effects.extend(self.on(Event::TaskSubmitted {
                stage: STAGE,
                task: TaskKey(task),
                slots: 1,
            }));
        }
        effects
    }

    fn tick_at_deadline(&mut self) -> Vec<Effect> {
        self.now = self.master.next_deadline().unwrap();
        self.on(Event::Tick)
    }
}

fn attempt(task: u64, attempt: u32) -> TaskRef {
    TaskRef {
        task: TaskKey(task),
        attempt,
    }
}

/// Launches among the effects: task, attempt, container number.
fn launches(effects: &[Effect]) -> Vec<(u64, u32, u32)> {
    effects
        .iter()
        .filter_map(|e| {
            if let Effect::LaunchTask { container, task } = e {
                Some((task.task.0, task.attempt, container.number))
            } else {
                None
            }
        })
        .collect()
}

fn finals(effects: &[Effect]) -> Vec<(u64, i32, u32, String)> {
    effects
        .iter()
        .filter_map(|e| {
            if let Effect::TaskFinal {
                task,
                exit_status,
                attempts,
                problem,
                ..
            } = e
            {
                Some((task.0, exit_status.0, *attempts, problem.clone()))
            } else {
                None
            }
        })
        .collect()
}

fn asks(effects: &[Effect]) -> Vec<u32> {
    effects
        .iter()
        .filter_map(|e| {
            if let Effect::SendAsk(ask) = e {
                Some(ask.count)
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn asks_and_held_are_what_is_wanted() {
    let mut s = Script::new(3);
    assert_eq!(s.master.registration().0.count, 3);
    let effects = s.on(Event::Granted(vec![grant(2, 1), grant(3, 2)]));
    assert!(
        asks(&effects).is_empty(),
        "the ask counts down by itself: {effects:?}"
    );
    assert_eq!(s.master.registration().0.count, 1);
    // A lost executor is asked for again.
    let effects = s.completed(2, -100);
    assert_eq!(asks(&effects), [2]);
    // One granted twice is one; one too many is given back.
    let effects = s.on(Event::Granted(vec![
        grant(3, 2),
        grant(4, 1),
        grant(5, 1),
        grant(6, 1),
    ]));
    assert!(
        effects.contains(&Effect::Release(vec![container(6)])),
        "{effects:?}"
    );
    assert_eq!(s.master.registration().0.count, 0);
    // Fewer wanted: those that are not up go first.
    s.on(Event::ExecutorRegistered {
        container: container(3),
        slots: 1,
    });
    let effects = s.on(Event::ExecutorsWanted { count: 1 });
    for gone in [4, 5] {
        assert!(
            effects.contains(&Effect::Release(vec![container(gone)])),
            "{effects:?}"
        );
    }
    assert_eq!(s.master.counts().executors_up, 1);
}

#[test]
fn least_loaded_first_and_slots_are_never_exceeded() {
    let mut s = Script::new(2);
    s.up(2, 1, 2);
    s.up(3, 2, 2);
    let effects = s.submit(0..6);
    assert_eq!(
        launches(&effects),
        [(0, 1, 2), (1, 1, 3), (2, 1, 2), (3, 1, 3)]
    );
    let effects = s.ended(3, attempt(1, 1), 0);
    assert_eq!(finals(&effects), [(1, 0, 1, String::new())]);
    assert_eq!(launches(&effects), [(4, 1, 3)]);
}

#[test]
fn a_failed_task_goes_elsewhere_up_to_its_maximum() {
    let mut s = Script::new(2);
    s.up(2, 1, 1);
    s.up(3, 2, 1);
    s.submit([0]);
    let effects = s.ended(2, attempt(0, 1), 1);
    assert_eq!(launches(&effects), [(0, 2, 3)], "on the other one");
    // It has failed on both now: anywhere.
    let effects = s.ended(3, attempt(0, 2), 1);
    assert_eq!(launches(&effects).len(), 1);
    let on = launches(&effects)[0].2;
    let effects = s.ended(on, attempt(0, 3), 1);
    let on = launches(&effects)[0].2;
    let effects = s.ended(on, attempt(0, 4), 5);
    assert_eq!(finals(&effects), [(0, 5, 4, String::new())]);
    let effects = s.on(Event::StageClosed { stage: STAGE });
    assert_eq!(effects, [Effect::StageEnded { stage: STAGE }]);
}

#[test]
fn a_retry_waits_for_another_executor_but_not_for_ever() {
    let mut s = Script::new(2);
    s.up(2, 1, 1);
    s.up(3, 2, 1);
    s.submit([0, 1]);
    // The other one is busy: nothing starts now.
    let effects = s.ended(2, attempt(0, 1), 1);
    assert!(launches(&effects).is_empty());
    let effects = s.tick_at_deadline();
    assert_eq!(launches(&effects), [(0, 2, 2)]);
    assert!(s.master.next_deadline().unwrap() > s.now);
}

#[test]
fn tasks_of_a_lost_executor_are_not_failures() {
    let mut s = Script::new(1);
    s.submit([0]);
    let mut effects = Vec::new();
    for number in 2..18 {
        let launched = s.up(number, number, 1);
        assert_eq!(launches(&launched).len(), 1);
        effects = s.completed(number, 137);
        let lost = effects
            .iter()
            .any(|e| matches!(e, Effect::TaskRetried { .. }));
        assert_eq!(lost, number < 17);
    }
    let finals = finals(&effects);
    assert_eq!((finals[0].0, finals[0].1, finals[0].2), (0, -100, 16));
    assert!(finals[0].3.contains("16 times"), "{finals:?}");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Fail { .. })));
}

#[test]
fn stale_attempts_are_ignored() {
    let mut s = Script::new(2);
    s.up(2, 1, 1);
    s.submit([0]);
    s.on(Event::ExecutorDetached {
        container: container(2),
    });
    // It comes back within its time; what it ran is lost and runs again.
    let effects = s.on(Event::ExecutorRegistered {
        container: container(2),
        slots: 1,
    });
    assert_eq!(launches(&effects), [(0, 2, 2)]);
    let effects = s.ended(2, attempt(0, 1), 0);
    assert!(finals(&effects).is_empty());
    let effects = s.ended(2, attempt(0, 2), 0);
    assert_eq!(finals(&effects).len(), 1);
    let effects = s.ended(2, attempt(0, 2), 0);
    assert!(finals(&effects).is_empty(), "exactly once");
}

#[test]
fn silent_and_detached_executors_are_replaced() {
    for detach in [false, true] {
        let mut s = Script::new(1);
        s.up(2, 1, 1);
        if detach {
            s.on(Event::ExecutorDetached {
                container: container(2),
            });
        }
        let effects = s.tick_at_deadline();
        assert_eq!(asks(&effects), [1]);
        assert!(
            effects.contains(&Effect::Release(vec![container(2)])),
            "{effects:?}"
        );
        assert!(
            effects
                .iter()
                .any(|e| matches!(e, Effect::ExecutorDown { .. }))
        );
        let strange = s.on(Event::ExecutorRegistered {
            container: container(2),
            slots: 1,
        });
        assert!(matches!(strange[0], Effect::DismissExecutor { .. }));
    }
}

#[test]
fn cancelled_tasks_keep_their_slot_until_they_have_ended() {
    let mut s = Script::new(1);
    s.up(2, 1, 1);
    s.submit([0, 1, 2]);
    let effects = s.on(Event::TaskCancelled {
        stage: STAGE,
        task: TaskKey(0),
    });
    assert!(launches(&effects).is_empty());
    assert_eq!(finals(&effects).len(), 1);
    assert!(effects.contains(&Effect::KillTask {
        container: container(2),
        task: attempt(0, 1)
    }));
    let effects = s.ended(2, attempt(0, 1), 143);
    assert_eq!(launches(&effects), [(1, 1, 2)]);
    // The stream breaks: nothing is said, the running one is killed, the waiting one forgotten.
    let effects = s.on(Event::StageBroken { stage: STAGE });
    assert!(finals(&effects).is_empty());
    assert!(effects.contains(&Effect::StageEnded { stage: STAGE }));
    let effects = s.ended(2, attempt(1, 1), 143);
    assert!(launches(&effects).is_empty());
}

#[test]
fn a_node_that_fails_is_excluded_and_parked() {
    let mut s = Script::new(1);
    s.on(Event::MasterRegistered { nodes_running: 2 });
    for number in [2, 3] {
        s.on(Event::Granted(vec![grant(number, 1)]));
        s.completed(number, 1);
    }
    let effects = s.on(Event::Granted(vec![grant(4, 1)]));
    assert_eq!(
        asks(&effects),
        [1],
        "parked and asked for elsewhere: {effects:?}"
    );
    assert!(
        !effects
            .iter()
            .any(|e| matches!(e, Effect::StartExecutor { .. }))
    );
    let effects = s.on(Event::Granted(vec![grant(5, 2)]));
    assert!(
        effects.contains(&Effect::Release(vec![container(4)])),
        "{effects:?}"
    );
    assert!(
        effects
            .iter()
            .any(|e| matches!(e, Effect::StartExecutor { .. }))
    );
    // Only excluded nodes are offered: a pause instead of a storm.
    s.completed(5, -100);
    for number in 6..=10 {
        s.on(Event::Granted(vec![grant(number, 1)]));
    }
    assert_eq!(s.master.registration().0.count, 0);
    assert!(s.master.registration().1.is_empty());
    let effects = s.tick_at_deadline();
    assert_eq!(asks(&effects), [1]);
}

#[test]
fn without_hope_the_application_fails_with_words() {
    let mut s = Script::new(1);
    s.on(Event::MasterRegistered { nodes_running: 1 });
    s.submit([0]);
    s.on(Event::Granted(vec![grant(2, 1)]));
    s.completed(2, 1);
    s.on(Event::Granted(vec![grant(3, 1)]));
    let effects = s.completed(3, 1);
    let words = finals(&effects)[0].3.clone();
    assert!(
        words.contains("node1:1") && words.contains("exit status 1"),
        "{words}"
    );
    assert!(
        effects.contains(&Effect::Fail { diagnostics: words }),
        "{effects:?}"
    );
    // Said once; later tasks have the same end.
    let effects = s.on(Event::TaskSubmitted {
        stage: STAGE,
        task: TaskKey(9),
        slots: 1,
    });
    assert_eq!(finals(&effects).len(), 1);
}

#[test]
fn too_many_failures_at_start_end_the_application() {
    let mut s = Script::new(1);
    s.on(Event::MasterRegistered { nodes_running: 100 });
    let mut effects = Vec::new();
    for number in 2..=5 {
        s.on(Event::Granted(vec![grant(number, number)]));
        effects = s.completed(number, 1);
    }
    let failed = effects
        .iter()
        .any(|e| matches!(e, Effect::Fail { diagnostics } if diagnostics.contains("4 executors")));
    assert!(failed, "{effects:?}");
    // Ends that are nobody's fault are not counted.
    let mut s = Script::new(1);
    for number in 2..=50 {
        s.on(Event::Granted(vec![grant(number, number)]));
        let effects = s.completed(number, -100);
        assert!(!effects.iter().any(|e| matches!(e, Effect::Fail { .. })));
    }
}

#[test]
fn refusals_and_no_executors_reach_the_tasks() {
    let mut s = Script::new(1);
    s.submit([0]);
    let effects = s.on(Event::AskRefused {
        reason: "the largest node has 5 MiB".into(),
    });
    assert!(finals(&effects)[0].3.contains("the largest node has 5 MiB"));
    // Another number is another try.
    let effects = s.on(Event::ExecutorsWanted { count: 2 });
    assert_eq!(asks(&effects), [2]);

    let mut s = Script::new(0);
    let effects = s.submit([0]);
    assert!(finals(&effects)[0].3.contains("--num-executors"));
}

#[test]
fn a_throttled_stage_starts_nothing() {
    let mut s = Script::new(1);
    s.up(2, 1, 1);
    s.on(Event::StageOpened { stage: STAGE });
    s.on(Event::StageThrottled {
        stage: STAGE,
        throttled: true,
    });
    assert!(launches(&s.submit([0])).is_empty());
    let effects = s.on(Event::StageThrottled {
        stage: STAGE,
        throttled: false,
    });
    assert_eq!(launches(&effects), [(0, 1, 2)]);
}

#[test]
fn the_oldest_stage_goes_first() {
    let mut s = Script::new(1);
    for (stage, task) in [(2, 20), (1, 10)] {
        let stage = StageId(stage);
        s.on(Event::StageOpened { stage });
        s.on(Event::TaskSubmitted {
            stage,
            task: TaskKey(task),
            slots: 1,
        });
    }
    assert_eq!(launches(&s.up(2, 1, 1)), [(10, 1, 2)]);
}

#[test]
fn a_shut_down_master_gives_everything_back() {
    let mut s = Script::new(2);
    s.up(2, 1, 1);
    s.submit([0, 1]);
    let effects = s.on(Event::ShutDown);
    assert!(effects.contains(&Effect::StageEnded { stage: STAGE }));
    assert!(effects.contains(&Effect::Release(vec![container(2)])));
    assert_eq!(asks(&effects), [0]);
    assert!(s.completed(2, 0).is_empty());
}

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
