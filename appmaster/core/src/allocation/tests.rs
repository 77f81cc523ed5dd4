//! The ramp and the way down, in simulated time.

use bobbin_types::{ApplicationId, AttemptId, ContainerId, ExitStatus, Millis, Resource};
use proptest::prelude::*;

use crate::{
    Allocation, ApplicationMaster, Config, DynamicAllocation, Effect, Event, Grant, StageId,
    TaskKey, TaskRef,
};

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

/// A master with a resource manager that grants all it is asked for at once, and executors that
/// come up at once and run what they are given until they are told to end it.
struct Load {
    now: Millis,
    master: ApplicationMaster,
    granted: u32,
    up: Vec<ContainerId>,
    running: Vec<(ContainerId, TaskRef)>,
    submitted: u64,
}

impl Load {
    fn new(dynamic: DynamicAllocation, slots: u32) -> Load {
        let mut config = Config::new(0, Resource::new(64, slots));
        config.allocation = Allocation::Dynamic(dynamic);
        config.executor_silence_ms = u64::MAX / 2;
        let master = ApplicationMaster::new(config);
        let first = master.registration().0.count;
        let mut load = Load {
            now: Millis(0),
            master,
            granted: 0,
            up: Vec::new(),
            running: Vec::new(),
            submitted: 0,
        };
        load.grant(first);
        load.on(Event::StageOpened { stage: STAGE });
        load
    }

    fn grant(&mut self, count: u32) {
        let slots = self.master.config.executor_resource.vcores;
        for _ in 0..count {
            self.granted += 1;
            let container = container(self.granted);
            self.on(Event::Granted(vec![Grant {
                container,
                node: "n:1".parse().unwrap(),
                resource: Resource::new(64, slots),
            }]));
            self.on(Event::ExecutorRegistered { container, slots });
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other effects change nothing here"
    )]
    fn on(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.master.handle(self.now, event, &mut effects);
        self.master.check_invariants().unwrap();
        let (mut asked, mut gone) = (0, Vec::new());
        for effect in effects {
            match effect {
                Effect::SendAsk(ask) => asked = ask.count,
                Effect::ExecutorUp { container, .. } => self.up.push(container),
                Effect::ExecutorDown { container, .. } => self.up.retain(|c| *c != container),
                Effect::StopExecutor { container, .. } => gone.push(crate::Completed {
                    container,
                    exit_status: ExitStatus::ABORTED,
                    diagnostics: String::new(),
                }),
                Effect::LaunchTask { container, task } => self.running.push((container, task)),
                _ => {}
            }
        }
        if !gone.is_empty() {
            self.on(Event::ContainersCompleted(gone));
        }
        if asked > 0 {
            self.grant(asked);
        }
    }

    fn submit(&mut self, tasks: u64) {
        for _ in 0..tasks {
            self.submitted += 1;
            let task = TaskKey(self.submitted);
            self.on(Event::TaskSubmitted {
                stage: STAGE,
                task,
                slots: 1,
            });
        }
    }

    fn finish(&mut self, tasks: usize) {
        for _ in 0..tasks {
            let (container, task) = self.running.remove(0);
            self.on(Event::TaskEnded {
                container,
                task,
                exit_status: ExitStatus(0),
                problem: String::new(),
            });
        }
    }

    /// Lets the time come, tick by tick.
    fn until(&mut self, moment: u64) {
        let mut ticks = 0;
        while let Some(deadline) = self.master.next_deadline()
            && deadline <= Millis(moment)
        {
            self.now = self.now.max(deadline);
            self.on(Event::Tick);
            ticks += 1;
            assert!(ticks < 10_000, "it ticks without end at {:?}", self.now);
        }
        self.now = Millis(moment);
    }
}

fn settings() -> DynamicAllocation {
    DynamicAllocation {
        max: 100,
        ..DynamicAllocation::default()
    }
}

#[test]
fn doubles_while_tasks_wait_and_stops_at_what_they_can_use() {
    let mut load = Load::new(settings(), 1);
    assert_eq!(load.up.len(), 0);
    load.submit(20);
    let mut seen = Vec::new();
    for second in 1..=7 {
        load.until(second * 1000 - 1);
        seen.push(load.up.len());
    }
    load.until(10_000);
    seen.push(load.up.len());
    // 1, then 2, 4, 8 more, and the 5 that are left of 16.
    assert_eq!(seen, [0, 1, 3, 7, 15, 20, 20, 20]);
    assert_eq!(load.running.len(), 20);
}

#[test]
fn a_short_backlog_asks_for_nothing() {
    let dynamic = DynamicAllocation {
        min: 1,
        ..settings()
    };
    let mut load = Load::new(dynamic, 1);
    assert_eq!(load.up.len(), 1);
    load.submit(2);
    load.until(900);
    load.finish(1);
    load.until(1_900);
    assert_eq!(load.up.len(), 1, "the second task runs: nothing waits");
    load.submit(1);
    load.until(2_800);
    assert_eq!(load.up.len(), 1);
    load.until(2_900);
    assert_eq!(load.up.len(), 2, "the backlog lasted a second");
}

#[test]
fn idle_executors_go_and_the_minimum_stays() {
    let dynamic = DynamicAllocation {
        min: 2,
        ..settings()
    };
    let mut load = Load::new(dynamic, 2);
    load.submit(16);
    load.until(10_000);
    assert_eq!(load.up.len(), 8);
    load.finish(15);
    // One task runs: one executor is busy, one more is the minimum.
    load.until(69_999);
    assert_eq!(load.up.len(), 8);
    load.until(70_000);
    assert_eq!(load.up.len(), 2);
    let busy = load.running[0].0;
    assert!(
        load.up.contains(&busy),
        "a busy executor is never sent away"
    );
    load.finish(1);
    load.until(1_000_000);
    assert_eq!(load.up.len(), 2);
    assert_eq!(load.master.counts().executors_wanted, 2);
}

#[test]
fn the_initial_number_stands_until_an_idle_time_is_over() {
    let dynamic = DynamicAllocation {
        initial: 5,
        ..settings()
    };
    let mut load = Load::new(dynamic, 1);
    assert_eq!(load.up.len(), 5);
    load.until(59_999);
    assert_eq!(load.up.len(), 5);
    load.until(60_000);
    assert_eq!(load.up.len(), 0);
    assert_eq!(load.master.next_deadline(), None, "nothing to wait for");
    load.submit(1);
    load.until(61_000);
    assert_eq!(load.up.len(), 1);
}

#[test]
fn the_ratio_asks_for_fewer() {
    let dynamic = DynamicAllocation {
        ratio_permille: 250,
        ..settings()
    };
    let mut load = Load::new(dynamic, 2);
    load.submit(41);
    load.until(30_000);
    assert_eq!(load.up.len(), 6, "ceil(41 / 2 / 4)");
}

#[test]
fn the_maximum_and_a_fixed_number() {
    let dynamic = DynamicAllocation {
        max: 3,
        ..settings()
    };
    let mut load = Load::new(dynamic, 1);
    load.submit(50);
    load.until(30_000);
    assert_eq!(load.up.len(), 3);
    // The driver says a number: it stands, without regard to the load.
    load.on(Event::ExecutorsWanted { count: 1 });
    assert_eq!(load.up.len(), 1);
    load.until(200_000);
    assert_eq!(load.up.len(), 1);
    load.on(Event::ShutDown);
    assert_eq!(load.up.len(), 0);
}

#[test]
fn a_lost_executor_is_replaced_while_its_work_is_there() {
    let mut load = Load::new(settings(), 1);
    load.submit(4);
    load.until(10_000);
    assert_eq!(load.up.len(), 4);
    let (lost, _) = load.running[0];
    load.running.retain(|(container, _)| *container != lost);
    load.on(Event::ContainersCompleted(vec![crate::Completed {
        container: lost,
        exit_status: ExitStatus(-100),
        diagnostics: String::new(),
    }]));
    assert_eq!(load.up.len(), 4);
    assert_eq!(load.running.len(), 4);
}

proptest! {
    #[test]
    fn stays_within_its_bounds_and_never_spins(
        steps in proptest::collection::vec((0_u8..3, 1_u64..30), 1..60),
        min in 0_u32..4, more in 0_u32..6, initial in 0_u32..12, slots in 1_u32..4,
    ) {
        let dynamic = DynamicAllocation { min, max: min + more, initial, ..settings() };
        let mut load = Load::new(dynamic, slots);
        for (kind, amount) in steps {
            match kind {
                0 => load.submit(amount),
                1 => load.finish(load.running.len().min(usize::try_from(amount).unwrap())),
                _ => load.until(load.now.0 + amount * 3_000),
            }
            let up = u32::try_from(load.up.len()).unwrap();
            prop_assert!((min..=min + more).contains(&up), "{up} executors are up");
            let slots_taken = load.running.len();
            prop_assert!(slots_taken <= load.up.len() * usize::try_from(slots).unwrap());
        }
        // In the end everything goes but the minimum.
        while load.master.counts().tasks > 0 && min + more > 0 {
            load.finish(load.running.len());
            load.until(load.now.0 + 5_000);
        }
        load.until(load.now.0 + 200_000);
        prop_assert_eq!(u32::try_from(load.up.len()).unwrap(), min);
    }
}
