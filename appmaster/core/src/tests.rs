//! Scripts.

use bobbin_types::{ApplicationId, AttemptId, ContainerId, ExitStatus, Millis, NodeId, Resource};

use crate::{
    ApplicationMaster, Completed, Config, Effect, Event, ExecutorPhase, Grant, StageId, TaskKey,
    TaskRef,
};

mod random;
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
fn a_cancelled_stage_tells_of_each_task_once_and_takes_more() {
    let mut s = Script::new(1);
    s.up(2, 1, 1);
    s.submit([0, 1, 2]);
    let cancel = Event::StageCancelled { stage: STAGE };
    let effects = s.on(cancel.clone());
    assert_eq!(finals(&effects).len(), 3);
    assert!(effects.contains(&Effect::KillTask {
        container: container(2),
        task: attempt(0, 1)
    }));
    assert!(!effects.contains(&Effect::StageEnded { stage: STAGE }));
    assert!(s.on(cancel.clone()).is_empty(), "nothing is left to cancel");
    s.submit([3]);
    let effects = s.ended(2, attempt(0, 1), 143);
    assert_eq!(launches(&effects), [(3, 1, 2)], "the slot is free again");
    s.on(Event::StageClosed { stage: STAGE });
    let effects = s.on(cancel);
    assert_eq!(finals(&effects).len(), 1);
    assert!(effects.contains(&Effect::StageEnded { stage: STAGE }));
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
