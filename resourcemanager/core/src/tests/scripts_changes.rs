//! What people change of applications that run, and what counts as a failure: scripts with their
//! transcripts.

use bobbin_types::WallMillis;
use expect_test::expect;

use super::world::{World, application, check, ran};
use crate::Config;

#[test]
fn a_new_priority_is_a_new_place_in_the_queue() {
    check(
        "node a 2048 4
         --
         submit memory=2048
         submit memory=1024
         submit memory=1024
         priority 3 5
         priority 3 5
         restart
         node a 2048 4 1.1#1
         exited 1.1#1 -107",
        &expect![[r#"
            submit memory=2048
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                1.1: NEW -> SCHEDULED
                reply submitted 1
                1.1: SCHEDULED -> ALLOCATED
                persist started 1.1
                a <- start 1.1#1
                1.1: ALLOCATED -> LAUNCHED
            submit memory=1024
                persist submitted 2
                2: NEW -> SUBMITTED
                2: SUBMITTED -> ACCEPTED
                2.1: NEW -> SCHEDULED
                reply submitted 2
            submit memory=1024
                persist submitted 3
                3: NEW -> SUBMITTED
                3: SUBMITTED -> ACCEPTED
                3.1: NEW -> SCHEDULED
                reply submitted 3
            priority 3 5
                persist updated 3 default 5 never
                reply priority 5
            priority 3 5
                reply priority 5
            restart
                persist epoch 2
                2.1: NEW -> SCHEDULED
                3.1: NEW -> SCHEDULED
            node a 2048 4 1.1#1
                a: NEW -> RUNNING
                a <- registered
            exited 1.1#1 -107
                1.1: LAUNCHED -> FAILED
                persist attempt 1.1 FAILED -107 counted
                a <- revoke 1.1
                1.2: NEW -> SCHEDULED
                a <- acknowledge 1.1#1
                3.1: SCHEDULED -> ALLOCATED
                persist started 3.1
                a <- start e2.3.1#1
                3.1: ALLOCATED -> LAUNCHED
        "#]],
    );
}

#[test]
fn queues_are_the_configurations() {
    let mut world = World::new(Config {
        queues: vec!["default".to_owned(), "research".to_owned()],
        ..Config::default()
    });
    world.run(
        "submit
         move 1 research
         move 1 research
         move 1 nowhere
         move 7 research",
    );
    expect![[r#"
        submit
            persist submitted 1
            1: NEW -> SUBMITTED
            1: SUBMITTED -> ACCEPTED
            1.1: NEW -> SCHEDULED
            reply submitted 1
        move 1 research
            persist updated 1 research 0 never
            reply moved to research
        move 1 research
            reply moved to research
        move 1 nowhere
            refused: no queue 'nowhere'; there is default, research
        move 7 research
            refused: no application 'application_1000_0007' is known here; list them with 'bobbin app list'
    "#]].assert_eq(&world.transcript);
    let queues = |world: &World| {
        let all = world.rm.queues().into_iter();
        all.map(|q| (q.name, q.capacity_permille, q.statistics.pending))
            .collect::<Vec<_>>()
    };
    let expected = vec![("default".to_owned(), 0, 0), ("research".to_owned(), 0, 1)];
    assert_eq!(queues(&world), expected);
    world.restart();
    assert_eq!(queues(&world), expected);
    world.journal = world.rm.snapshot();
    world.restart();
    assert_eq!(queues(&world), expected);
    let report = world.rm.application(application(1)).unwrap();
    assert_eq!(report.queue, "research");
}

#[test]
fn a_lifetime_can_be_set_moved_and_taken_away() {
    let mut world = ran("submit timeout=5000
         ends-at 1 20000
         ends-at 1 0
         pass 19999");
    let timeout = |world: &World| world.rm.application(application(1)).unwrap().timeout;
    assert_eq!(timeout(&world).map(|t| t.remaining_ms), Some(1));
    assert_eq!(timeout(&world).map(|t| t.expires), Some(WallMillis(20_000)));
    world.restart();
    assert_eq!(timeout(&world).map(|t| t.remaining_ms), Some(1));
    world.run(
        "ends-at 1 never
         pass 100000
         ends-at 1 120000
         pass 1",
    );
    expect![[r#"
        submit timeout=5000
            persist submitted 1
            1: NEW -> SUBMITTED
            1: SUBMITTED -> ACCEPTED
            1.1: NEW -> SCHEDULED
            reply submitted 1
        ends-at 1 20000
            persist updated 1 default 0 20000
            reply ends at 20000
        ends-at 1 0
            refused: the end of application_1000_0001 would be 0 (Unix milliseconds): it is 0 now, and only a later time can be set
        pass 19999
            persist epoch 2
            1.1: NEW -> SCHEDULED
        ends-at 1 never
            persist updated 1 default 0 never
            reply ends never
        pass 100000
        ends-at 1 120000
            persist updated 1 default 0 120000
            reply ends at 120000
        pass 1
            persist kill 1
            1: ACCEPTED -> KILLING
            1.1: SCHEDULED -> KILLED
            persist attempt 1.1 KILLED -106
            1: KILLING -> KILLED
            persist application 1 KILLED KILLED -106 'its time is over (--timeout)'
            delete staging 1
    "#]].assert_eq(&world.transcript);
}

#[test]
fn a_lifetime_ends_an_application() {
    check(
        "submit
         ends-at 1 100
         pass 100
         ends-at 1 200",
        &expect![[r#"
            submit
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                1.1: NEW -> SCHEDULED
                reply submitted 1
            ends-at 1 100
                persist updated 1 default 0 100
                reply ends at 100
            pass 100
                persist kill 1
                1: ACCEPTED -> KILLING
                1.1: SCHEDULED -> KILLED
                persist attempt 1.1 KILLED -106
                1: KILLING -> KILLED
                persist application 1 KILLED KILLED -106 'its time is over (--timeout)'
                delete staging 1
            ends-at 1 200
                refused: application_1000_0001 has ended
        "#]],
    );
}

#[test]
fn an_attempt_is_failed_by_its_owner() {
    check(
        "node a 4096 4
         submit attempts=2
         started 1.1#1
         attach 1.1
         --
         fail 1.1
         fail 1.1
         restart
         node a 4096 4 1.1#1
         exited 1.1#1 -106
         fail 1.1
         fail 1.2
         exited e2.1.2#1 -106
         fail 1.3
         submit memory=4096
         submit memory=4096
         fail 3.1
         fail 3.2
         submit unmanaged
         fail 4.1",
        &expect![[r#"
            fail 1.1
                persist failing 1.1
                a <- stop 1.1#1 -106 'failed by user ann'
                reply failing 1.1
            fail 1.1
                reply failing 1.1
            restart
                persist epoch 2
            node a 4096 4 1.1#1
                a: NEW -> RUNNING
                a <- registered
                a <- stop 1.1#1 -106 'failed by user ann'
            exited 1.1#1 -106
                1.1: RUNNING -> FAILED
                persist attempt 1.1 FAILED -106 counted
                a <- revoke 1.1
                1: RUNNING -> ACCEPTED
                1.2: NEW -> SCHEDULED
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                a <- start e2.1.2#1
                1.2: ALLOCATED -> LAUNCHED
            fail 1.1
                refused: appattempt_1000_0001_000001 is over: it has ended
            fail 1.2
                persist failing 1.2
                a <- stop e2.1.2#1 -106 'failed by user ann'
                reply failing 1.2
            exited e2.1.2#1 -106
                1.2: LAUNCHED -> FAILED
                persist attempt 1.2 FAILED -106 counted
                a <- revoke 1.2
                1: ACCEPTED -> FAILED
                persist application 1 FAILED FAILED -106 'attempt 2 failed (2 of 2): failed by user ann'
                a <- ended 1
                delete staging 1
                a <- acknowledge e2.1.2#1
            fail 1.3
                refused: application_1000_0001 has ended
            submit memory=4096
                persist submitted 2
                2: NEW -> SUBMITTED
                2: SUBMITTED -> ACCEPTED
                2.1: NEW -> SCHEDULED
                reply submitted 2
                2.1: SCHEDULED -> ALLOCATED
                persist started 2.1
                a <- start e2.2.1#1
                2.1: ALLOCATED -> LAUNCHED
            submit memory=4096
                persist submitted 3
                3: NEW -> SUBMITTED
                3: SUBMITTED -> ACCEPTED
                3.1: NEW -> SCHEDULED
                reply submitted 3
            fail 3.1
                refused: appattempt_1000_0003_000001 has no master yet that could be failed; kill its application instead
            fail 3.2
                refused: no attempt appattempt_1000_0003_000002 is known here; list them with 'bobbin app attempts'
            submit unmanaged
                persist submitted 4
                4: NEW -> SUBMITTED
                4: SUBMITTED -> ACCEPTED
                persist started 4.1
                4.1: NEW -> LAUNCHED
                reply submitted 4 4.1
            fail 4.1
                4.1: LAUNCHED -> FAILED
                persist attempt 4.1 FAILED -106 counted
                4: ACCEPTED -> FAILED
                persist application 4 FAILED FAILED -106 'failed by user ann'
                delete staging 4
                reply failing 4.1
        "#]],
    );
}

#[test]
fn a_container_is_signaled_where_it_runs() {
    check(
        "node a 4096 4
         --
         submit
         signal 1.1#1
         started 1.1#1
         signal 1.1#1
         signal 1.1#9
         node-lost a
         signal 1.1#1
         node a 4096 4 1.1#1
         exited 1.1#1 7
         signal 1.1#1",
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
            signal 1.1#1
                refused: container_e01_1000_0001_01_000001 does not run: it has ended, ends, or was not started yet
            started 1.1#1
            signal 1.1#1
                a <- signal 1.1#1 Graceful
                reply signaled 1.1#1
            signal 1.1#9
                refused: no container container_e01_1000_0001_01_000009 is known here; list them with 'bobbin app containers'
            node-lost a
            signal 1.1#1
                refused: node a:1 of container_e01_1000_0001_01_000001 is away; try again when it is back
            node a 4096 4 1.1#1
                a <- registered
            exited 1.1#1 7
                1.1: LAUNCHED -> FAILED
                persist attempt 1.1 FAILED 7 counted
                a <- revoke 1.1
                1.2: NEW -> SCHEDULED
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                a <- start 1.2#1
                1.2: ALLOCATED -> LAUNCHED
            signal 1.1#1
                refused: container_e01_1000_0001_01_000001 does not run: it has ended, ends, or was not started yet
        "#]],
    );
}

#[test]
fn failures_that_are_long_over_do_not_count() {
    check(
        "node a 4096 4
         --
         submit attempts=2 validity=10000
         started 1.1#1
         exited 1.1#1 1
         started 1.2#1
         live 10000
         exited 1.2#1 1
         started 1.3#1
         exited 1.3#1 1",
        &expect![[r#"
            submit attempts=2 validity=10000
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                1.1: NEW -> SCHEDULED
                reply submitted 1
                1.1: SCHEDULED -> ALLOCATED
                persist started 1.1
                a <- start 1.1#1
                1.1: ALLOCATED -> LAUNCHED
            started 1.1#1
            exited 1.1#1 1
                1.1: LAUNCHED -> FAILED
                persist attempt 1.1 FAILED 1 counted
                a <- revoke 1.1
                1.2: NEW -> SCHEDULED
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                a <- start 1.2#1
                1.2: ALLOCATED -> LAUNCHED
            started 1.2#1
            live 10000
            exited 1.2#1 1
                1.2: LAUNCHED -> FAILED
                persist attempt 1.2 FAILED 1 counted
                a <- revoke 1.2
                1.3: NEW -> SCHEDULED
                a <- acknowledge 1.2#1
                1.3: SCHEDULED -> ALLOCATED
                persist started 1.3
                a <- start 1.3#1
                1.3: ALLOCATED -> LAUNCHED
            started 1.3#1
            exited 1.3#1 1
                1.3: LAUNCHED -> FAILED
                persist attempt 1.3 FAILED 1 counted
                a <- revoke 1.3
                1: ACCEPTED -> FAILED
                persist application 1 FAILED FAILED 1 'attempt 3 failed (2 of 2): its master's container ended with exit status 1'
                a <- ended 1
                delete staging 1
                a <- acknowledge 1.3#1
        "#]],
    );
}

#[test]
fn what_the_cluster_did_does_not_count() {
    let mut script = "node a 4096 4\n submit attempts=1\n".to_owned();
    for (number, status) in [-100, -101, -102, -106].iter().enumerate() {
        let number = number + 1;
        script += &format!("started 1.{number}#1\nexited 1.{number}#1 {status}\nlive 5000\n");
    }
    script += "started 1.5#1\nexited 1.5#1 -104";
    let world = ran(&script);
    let ends: Vec<&str> = world
        .transcript
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("persist a"))
        .collect();
    expect![[r#"
        persist attempt 1.1 FAILED -100
        persist attempt 1.2 FAILED -101
        persist attempt 1.3 FAILED -102
        persist attempt 1.4 FAILED -106
        persist attempt 1.5 FAILED -104 counted
        persist application 1 FAILED FAILED -104 'attempt 5 failed (1 of 1): its master's container ended with exit status -104'"#]].assert_eq(&ends.join("\n"));
}
