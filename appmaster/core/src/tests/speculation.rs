//! Copies of stragglers.

use super::*;

/// Two executors of two slots; ten tasks, of which all but the last end after 1 s.
fn straggler() -> Script {
    let mut s = Script::new(2);
    s.master.config.speculation = Some(crate::Speculation::default());
    s.up(1, 1, 5);
    s.up(2, 2, 5);
    s.submit(1..=10);
    s.now = Millis(1_000);
    for task in 1..=9 {
        let on = u32::try_from(task).unwrap() % 2;
        s.ended(if on == 1 { 1 } else { 2 }, attempt(task, 1), 0);
    }
    s
}

fn tick_until(s: &mut Script, moment: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    while s
        .master
        .next_deadline()
        .is_some_and(|at| at <= Millis(moment))
    {
        s.now = s.now.max(s.master.next_deadline().unwrap());
        effects.extend(s.on(Event::Tick));
    }
    s.now = Millis(moment);
    effects
}

#[test]
fn a_straggler_gets_a_copy_elsewhere_and_the_first_to_end_counts() {
    let mut s = straggler();
    assert_eq!(
        launches(&tick_until(&mut s, 3_000)),
        [],
        "three times the median"
    );
    let effects = tick_until(&mut s, 3_200);
    assert_eq!(launches(&effects), [(10, 2, 1)], "the first runs on 2");
    assert_eq!(
        launches(&tick_until(&mut s, 9_000)),
        [],
        "one copy at a time"
    );
    let effects = s.ended(1, attempt(10, 2), 0);
    assert_eq!(finals(&effects), [(10, 0, 2, String::new())]);
    let first = attempt(10, 1);
    let killed = Effect::KillTask {
        container: container(2),
        task: first,
    };
    assert!(effects.contains(&killed), "{effects:?}");
    assert!(effects.contains(&Effect::DiscardOutput { task: first }));
    let of_copy = |e: &Effect| matches!(e, Effect::TaskFinal { output_of: Some(of), .. } if *of == attempt(10, 2));
    assert!(effects.iter().any(of_copy), "{effects:?}");
    // Its end changes nothing any more.
    assert_eq!(finals(&s.ended(2, first, 137)), []);
}

#[test]
fn a_straggler_whose_copy_fails_goes_on_and_the_other_way_round() {
    let mut s = straggler();
    tick_until(&mut s, 3_200);
    let effects = s.ended(1, attempt(10, 2), 1);
    assert_eq!((launches(&effects), finals(&effects)), (vec![], vec![]));
    assert_eq!(
        finals(&s.ended(2, attempt(10, 1), 0)),
        [(10, 0, 2, String::new())]
    );

    let mut s = straggler();
    tick_until(&mut s, 3_200);
    // The executor of the first attempt is lost: the copy is the task now, and may get a copy again.
    let effects = s.completed(2, -100);
    assert_eq!((launches(&effects), finals(&effects)), (vec![], vec![]));
    assert_eq!(
        finals(&s.ended(1, attempt(10, 2), 0)),
        [(10, 0, 2, String::new())]
    );
}

#[test]
fn nothing_is_slow_while_too_few_have_ended_or_tasks_wait() {
    let mut s = Script::new(2);
    s.master.config.speculation = Some(crate::Speculation::default());
    s.up(1, 1, 2);
    s.up(2, 2, 2);
    s.submit(1..=10);
    s.now = Millis(10);
    s.ended(1, attempt(1, 1), 0);
    assert_eq!(s.master.speculation_deadline(), None);
    let mut s = straggler();
    s.on(Event::StageClosed { stage: STAGE });
    s.ended(2, attempt(10, 1), 0);
    assert_eq!(s.master.speculation_deadline(), None, "nothing is left");
}
