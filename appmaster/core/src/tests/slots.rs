//! Tasks that take several slots of an executor.

use super::*;

fn submit(s: &mut Script, task: u64, slots: u32) -> Vec<Effect> {
    s.on(Event::TaskSubmitted {
        stage: STAGE,
        task: TaskKey(task),
        slots,
    })
}

fn with_slots(slots: u32) -> Script {
    let mut s = Script::new(1);
    s.master.config.executor_resource.vcores = slots;
    s.up(1, 1, slots);
    s.on(Event::StageOpened { stage: STAGE });
    s
}

#[test]
fn slots_are_never_oversubscribed_and_a_large_task_is_not_starved() {
    let mut s = with_slots(4);
    assert_eq!(launches(&submit(&mut s, 1, 3)), [(1, 1, 1)]);
    assert_eq!(launches(&submit(&mut s, 2, 2)), [], "one slot is left");
    // Smaller ones behind it wait, of a later stage too.
    assert_eq!(launches(&submit(&mut s, 3, 1)), []);
    s.on(Event::StageOpened { stage: StageId(2) });
    let later = Event::TaskSubmitted {
        stage: StageId(2),
        task: TaskKey(4),
        slots: 1,
    };
    assert_eq!(launches(&s.on(later)), []);
    assert_eq!(
        launches(&s.ended(1, attempt(1, 1), 0)),
        [(2, 1, 1), (3, 1, 1), (4, 1, 1)]
    );
    assert_eq!(s.master.executors().next().unwrap().running, 4);
}

#[test]
fn what_no_executor_can_hold_is_refused_with_the_cure() {
    let mut s = with_slots(2);
    let effects = submit(&mut s, 1, 3);
    let (_, status, _, problem) = &finals(&effects)[0];
    assert_eq!(*status, -100);
    assert!(
        problem.contains("3 slots") && problem.contains("--executor-cores 3"),
        "{problem}"
    );
}
