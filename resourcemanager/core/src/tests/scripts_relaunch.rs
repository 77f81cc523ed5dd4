//! Masters that end through no fault of their own: where and when the next one starts.

use expect_test::expect;

use super::world::{World, application, check, ran};
use crate::limits::RELAUNCH_PAUSES_MS;

#[test]
fn the_next_attempt_avoids_the_node() {
    check(
        "node a 4096 4
         node b 2048 4
         --
         submit
         exited 1.1#1 -100 its disks are full
         exited 1.2#1 -100 its disks are full
         pass 100",
        &expect![[r#"
            submit
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                1.1: NEW -> SCHEDULED
                reply submitted 1
                1.1: SCHEDULED -> ALLOCATED
                persist started 1.1
                a <- start 1.1#1
                1.1: ALLOCATED -> LAUNCHED
            exited 1.1#1 -100 its disks are full
                1.1: LAUNCHED -> FAILED
                persist attempt 1.1 FAILED -100
                a <- revoke 1.1
                1.2: NEW -> SCHEDULED
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                b <- start 1.2#1
                1.2: ALLOCATED -> LAUNCHED
            exited 1.2#1 -100 its disks are full
                1.2: LAUNCHED -> FAILED
                persist attempt 1.2 FAILED -100
                b <- revoke 1.2
                1.3: NEW -> SCHEDULED
                b <- acknowledge 1.2#1
            pass 100
                1.3: SCHEDULED -> ALLOCATED
                persist started 1.3
                a <- start 1.3#1
                1.3: ALLOCATED -> LAUNCHED
        "#]],
    );
}

/// Better there than nowhere; but with pauses that grow.
#[test]
fn the_only_node_is_tried_again_after_pauses() {
    let mut world = ran("node a 4096 4\nsubmit");
    let mut waited_ms = Vec::new();
    for number in 1..=11 {
        let id = super::world::container(&format!("1.{number}#1"));
        let began = world.now;
        world.exited("a", id, -100, "no cgroups");
        let next = super::world::container(&format!("1.{}#1", number + 1));
        while world.rm.container(next).is_none() {
            assert!(world.now.since(began) < 31_000, "{number}");
            world.run("live 5000");
        }
        waited_ms.push(world.now.since(began));
    }
    // Looked at every 5 s.
    let rounded = RELAUNCH_PAUSES_MS
        .iter()
        .map(|ms| ms.div_ceil(5_000) * 5_000);
    let mut expected: Vec<u64> = rounded.collect();
    expected.extend([30_000, 30_000]);
    assert_eq!(waited_ms, expected);
}

#[test]
fn a_pause_is_explained() {
    let mut world = ran("node a 4096 4
         submit
         exited 1.1#1 -100 no cgroups
         exited 1.2#1 -100 no cgroups");
    let words = |world: &World| world.rm.application(application(1)).unwrap().waiting;
    expect!["application application_1000_0001 waits: a pause of 100 ms before its next attempt, because its last 2 ended soon after their start through no fault of their own, the last one on a:1: its master's container ended with exit status -100: no cgroups"].assert_eq(&words(&world));
    world.run("pass 100");
    expect!["application application_1000_0001 waits: its master (container_e01_1000_0001_03_000001 on a:1) has not registered yet"].assert_eq(&words(&world));
}

/// A master that ran for long, or failed by itself, is followed at once.
#[test]
fn sound_masters_are_followed_at_once() {
    check(
        "node a 4096 4
         --
         submit attempts=3
         exited 1.1#1 -100
         started 1.2#1
         exited 1.2#1 7
         started 1.3#1
         exited 1.3#1 -100
         started 1.4#1
         attach 1.4
         live 30000
         beat 1.4
         live 30000
         exited 1.4#1 -100",
        &expect![[r#"
            submit attempts=3
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                1.1: NEW -> SCHEDULED
                reply submitted 1
                1.1: SCHEDULED -> ALLOCATED
                persist started 1.1
                a <- start 1.1#1
                1.1: ALLOCATED -> LAUNCHED
            exited 1.1#1 -100
                1.1: LAUNCHED -> FAILED
                persist attempt 1.1 FAILED -100
                a <- revoke 1.1
                1.2: NEW -> SCHEDULED
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                a <- start 1.2#1
                1.2: ALLOCATED -> LAUNCHED
            started 1.2#1
            exited 1.2#1 7
                1.2: LAUNCHED -> FAILED
                persist attempt 1.2 FAILED 7 counted
                a <- revoke 1.2
                1.3: NEW -> SCHEDULED
                a <- acknowledge 1.2#1
                1.3: SCHEDULED -> ALLOCATED
                persist started 1.3
                a <- start 1.3#1
                1.3: ALLOCATED -> LAUNCHED
            started 1.3#1
            exited 1.3#1 -100
                1.3: LAUNCHED -> FAILED
                persist attempt 1.3 FAILED -100
                a <- revoke 1.3
                1.4: NEW -> SCHEDULED
                a <- acknowledge 1.3#1
                1.4: SCHEDULED -> ALLOCATED
                persist started 1.4
                a <- start 1.4#1
                1.4: ALLOCATED -> LAUNCHED
            started 1.4#1
            attach 1.4
                persist registered 1.4
                1.4: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.4 <- registered
            live 30000
            beat 1.4
            live 30000
            exited 1.4#1 -100
                1.4: RUNNING -> FAILED
                persist attempt 1.4 FAILED -100
                1.4 <- shutdown 'its master's container ended with exit status -100'
                close
                a <- revoke 1.4
                1: RUNNING -> ACCEPTED
                1.5: NEW -> SCHEDULED
                a <- acknowledge 1.4#1
                1.5: SCHEDULED -> ALLOCATED
                persist started 1.5
                a <- start 1.5#1
                1.5: ALLOCATED -> LAUNCHED
        "#]],
    );
}

#[test]
fn a_kill_ends_a_pause_and_a_restart_begins_it_again() {
    check(
        "node a 4096 4
         --
         submit
         exited 1.1#1 -100
         exited 1.2#1 -100
         restart
         node a 4096 4
         pass 99
         pass 1
         exited e2.1.3#1 -100
         kill 1 wait",
        &expect![[r#"
            submit
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                1.1: NEW -> SCHEDULED
                reply submitted 1
                1.1: SCHEDULED -> ALLOCATED
                persist started 1.1
                a <- start 1.1#1
                1.1: ALLOCATED -> LAUNCHED
            exited 1.1#1 -100
                1.1: LAUNCHED -> FAILED
                persist attempt 1.1 FAILED -100
                a <- revoke 1.1
                1.2: NEW -> SCHEDULED
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                a <- start 1.2#1
                1.2: ALLOCATED -> LAUNCHED
            exited 1.2#1 -100
                1.2: LAUNCHED -> FAILED
                persist attempt 1.2 FAILED -100
                a <- revoke 1.2
                1.3: NEW -> SCHEDULED
                a <- acknowledge 1.2#1
            restart
                persist epoch 2
                1.3: NEW -> SCHEDULED
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            pass 99
            pass 1
                1.3: SCHEDULED -> ALLOCATED
                persist started 1.3
                a <- start e2.1.3#1
                1.3: ALLOCATED -> LAUNCHED
            exited e2.1.3#1 -100
                1.3: LAUNCHED -> FAILED
                persist attempt 1.3 FAILED -100
                a <- revoke 1.3
                1.4: NEW -> SCHEDULED
                a <- acknowledge e2.1.3#1
            kill 1 wait
                persist kill 1
                1: ACCEPTED -> KILLING
                1.4: SCHEDULED -> KILLED
                persist attempt 1.4 KILLED -106
                1: KILLING -> KILLED
                persist application 1 KILLED KILLED -106 'killed by user ann'
                a <- ended 1
                delete staging 1
                reply killed
        "#]],
    );
}
