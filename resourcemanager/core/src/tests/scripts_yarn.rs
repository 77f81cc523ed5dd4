//! What YARN's masters and clients do that Bobbin's own do not: scripts with their transcripts.

use bobbin_types::{Resource, WallMillis};
use expect_test::{Expect, expect};

use super::world::{World, application, attempt, container, user};
use crate::view::ApplicationFilter;
use crate::{Config, Groups, Principal, ResourceSeconds};

fn ran(script: &str) -> World {
    let mut world = World::new(Config::default());
    world.run(script);
    world
}

fn check(script: &str, expected: &Expect) {
    expected.assert_eq(&ran(script).transcript);
}

const TWO_NODES: &str = "node a 4096 4
    node b 4096 4
    submit yarn
    started 1.1#1
    attach-yarn 1.1
";

#[test]
fn a_blacklisted_host_gets_no_container() {
    check(
        &format!(
            "{TWO_NODES}
             blacklist 1.1 +a +nowhere
             ask 1.1 4 1024 1
             ask-on 1.1 a relaxed 1 1024
             ask-on 1.1 a only 1 512
             node a 8192 4 1.1#1
             blacklist 1.1 -a
             node c 4096 4"
        ),
        &expect![[r#"
            node a 4096 4
                persist known a
                a: NEW -> RUNNING
                a <- registered
            node b 4096 4
                persist known b
                b: NEW -> RUNNING
                b <- registered
            submit yarn
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
            attach-yarn 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            blacklist 1.1 +a +nowhere
            ask 1.1 4 1024 1
                1.1 <- granted 1.1#2@b 1.1#3@b 1.1#4@b 1.1#5@b
            ask-on 1.1 a relaxed 1 1024
            ask-on 1.1 a only 1 512
            node a 8192 4 1.1#1
                close
                a <- registered
            blacklist 1.1 -a
                1.1 <- granted 1.1#6@a 1.1#7@a
            node c 4096 4
                persist known c
                c: NEW -> RUNNING
                c <- registered
        "#]],
    );
}

#[test]
fn a_blacklist_is_its_own_applications() {
    check(
        "node a 2048 8
         submit memory=512
         submit memory=512
         started 1.1#1
         attach 1.1
         started 2.1#1
         attach 2.1
         blacklist 1.1 +a
         ask 1.1 1 1024 1
         ask 2.1 1 1024 1
         exited 2.1#2 0
         blacklist 1.1 -a",
        &expect![[r#"
            node a 2048 8
                persist known a
                a: NEW -> RUNNING
                a <- registered
            submit memory=512
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                1.1: NEW -> SCHEDULED
                reply submitted 1
                1.1: SCHEDULED -> ALLOCATED
                persist started 1.1
                a <- start 1.1#1
                1.1: ALLOCATED -> LAUNCHED
            submit memory=512
                persist submitted 2
                2: NEW -> SUBMITTED
                2: SUBMITTED -> ACCEPTED
                2.1: NEW -> SCHEDULED
                reply submitted 2
                2.1: SCHEDULED -> ALLOCATED
                persist started 2.1
                a <- start 2.1#1
                2.1: ALLOCATED -> LAUNCHED
            started 1.1#1
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            started 2.1#1
            attach 2.1
                persist registered 2.1
                2.1: LAUNCHED -> RUNNING
                2: ACCEPTED -> RUNNING
                2.1 <- registered
            blacklist 1.1 +a
            ask 1.1 1 1024 1
            ask 2.1 1 1024 1
                2.1 <- granted 2.1#2@a
            exited 2.1#2 0
                2.1 <- completed 2.1#2=0
                a <- acknowledge 2.1#2
            blacklist 1.1 -a
                1.1 <- granted 1.1#2@a
        "#]],
    );
}

#[test]
fn a_blacklist_has_a_limit() {
    let mut world = ran(TWO_NODES);
    world.transcript.clear();
    let hosts: Vec<String> = (0..1_001).map(|n| format!("+h{n}")).collect();
    world.run(&format!("blacklist 1.1 {}", hosts.join(" ")));
    world.run("blacklist 1.1 +a");
    let report = world.rm.attempt_report(attempt(1, 1)).unwrap();
    assert_eq!(report.blacklist, ["a"]);
    let last = world
        .transcript
        .lines()
        .find(|line| line.contains("refused"));
    assert_eq!(
        last.map(str::trim),
        Some("1.1 <- refused: hosts of a blacklist would be 1001, at most 1000 are held at once")
    );
}

#[test]
fn a_new_priority_is_a_new_place_in_the_queue() {
    check(
        "node a 2048 4
         submit memory=2048
         submit memory=1024
         submit memory=1024
         priority 3 5
         priority 3 5
         restart
         node a 2048 4 1.1#1
         exited 1.1#1 -107",
        &expect![[r#"
            node a 2048 4
                persist known a
                a: NEW -> RUNNING
                a <- registered
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
    let mut world = World::new(Config::default());
    world.run(
        "submit timeout=5000
         ends-at 1 20000
         ends-at 1 0
         pass 19999",
    );
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
            node a 4096 4
                persist known a
                a: NEW -> RUNNING
                a <- registered
            submit attempts=2
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
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
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
            node a 4096 4
                persist known a
                a: NEW -> RUNNING
                a <- registered
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
         submit attempts=2 validity=10000
         started 1.1#1
         exited 1.1#1 1
         started 1.2#1
         live 10000
         exited 1.2#1 1
         started 1.3#1
         exited 1.3#1 1",
        &expect![[r#"
            node a 4096 4
                persist known a
                a: NEW -> RUNNING
                a <- registered
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

#[test]
fn kept_containers_are_handed_on() {
    check(
        "node a 4096 4
         node b 4096 4
         submit keep attempts=3
         started 1.1#1
         attach 1.1
         ask 1.1 3 512 1
         started 1.1#2
         started 1.1#3
         exited 1.1#1 7
         exited 1.1#3 9
         started 1.2#1
         attach-yarn 1.2
         exited 1.1#4 -100
         exited 1.2#1 7
         started 1.3#1
         attach-yarn 1.3
         release 1.3 1.1#2
         finish 1.3 0
         exited 1.3#1 0",
        &expect![[r#"
            node a 4096 4
                persist known a
                a: NEW -> RUNNING
                a <- registered
            node b 4096 4
                persist known b
                b: NEW -> RUNNING
                b <- registered
            submit keep attempts=3
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
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            ask 1.1 3 512 1
                1.1 <- granted 1.1#2@b 1.1#3@a 1.1#4@b
            started 1.1#2
            started 1.1#3
            exited 1.1#1 7
                1.1: RUNNING -> FAILED
                persist attempt 1.1 FAILED 7 counted
                1.1 <- shutdown 'its master's container ended with exit status 7'
                close
                a <- revoke 1.1 (keep)
                b <- revoke 1.1 (keep)
                b <- stop 1.1#4 -100 'its attempt is over'
                1: RUNNING -> ACCEPTED
                1.2: NEW -> SCHEDULED
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                a <- start 1.2#1
                1.2: ALLOCATED -> LAUNCHED
            exited 1.1#3 9
                a <- acknowledge 1.1#3
            started 1.2#1
            attach-yarn 1.2
                persist registered 1.2
                1.2: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.2 <- registered 1.1#2@b
                1.2 <- completed 1.1#3=9
            exited 1.1#4 -100
                1.2 <- completed 1.1#4=-100
                b <- acknowledge 1.1#4
            exited 1.2#1 7
                1.2: RUNNING -> FAILED
                persist attempt 1.2 FAILED 7 counted
                1.2 <- shutdown 'its master's container ended with exit status 7'
                close
                a <- revoke 1.2 (keep)
                b <- revoke 1.2 (keep)
                1: RUNNING -> ACCEPTED
                1.3: NEW -> SCHEDULED
                a <- acknowledge 1.2#1
                1.3: SCHEDULED -> ALLOCATED
                persist started 1.3
                a <- start 1.3#1
                1.3: ALLOCATED -> LAUNCHED
            started 1.3#1
            attach-yarn 1.3
                persist registered 1.3
                1.3: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.3 <- registered 1.1#2@b
            release 1.3 1.1#2
                b <- stop 1.1#2 -105 'released by its application master'
            finish 1.3 0
                1.3: RUNNING -> FINISHING
                persist finishing 1.3
                1: RUNNING -> FINISHING
                1.3 <- finish acknowledged
            exited 1.3#1 0
                1.3: FINISHING -> FINISHED
                persist attempt 1.3 FINISHED 0
                1.3 <- shutdown 'it is over'
                close
                a <- revoke 1.3
                b <- revoke 1.3
                1: FINISHING -> FINISHED
                persist application 1 FINISHED SUCCEEDED 0 ''
                a <- ended 1
                b <- ended 1
                a <- acknowledge 1.3#1
        "#]],
    );
}

#[test]
fn kept_containers_survive_a_restart_and_are_handed_on_when_they_turn_up() {
    check(
        "node a 4096 4
         node b 4096 4
         submit keep yarn
         started 1.1#1
         attach-yarn 1.1
         ask 1.1 2 512 1
         started 1.1#2
         started 1.1#3
         exited 1.1#1 7
         started 1.2#1
         restart
         node a 4096 4 1.1#3 1.2#1
         attach-yarn 1.2
         node b 4096 4 1.1#2",
        &expect![[r#"
            node a 4096 4
                persist known a
                a: NEW -> RUNNING
                a <- registered
            node b 4096 4
                persist known b
                b: NEW -> RUNNING
                b <- registered
            submit keep yarn
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
            attach-yarn 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            ask 1.1 2 512 1
                1.1 <- granted 1.1#2@b 1.1#3@a
            started 1.1#2
            started 1.1#3
            exited 1.1#1 7
                1.1: RUNNING -> FAILED
                persist attempt 1.1 FAILED 7 counted
                1.1 <- shutdown 'its master's container ended with exit status 7'
                close
                a <- revoke 1.1 (keep)
                b <- revoke 1.1 (keep)
                1: RUNNING -> ACCEPTED
                1.2: NEW -> SCHEDULED
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                a <- start 1.2#1
                1.2: ALLOCATED -> LAUNCHED
            started 1.2#1
            restart
                persist epoch 2
            node a 4096 4 1.1#3 1.2#1
                a: NEW -> RUNNING
                a <- registered
                a <- revoke 1.1 (keep)
                a <- revoke 1.1 (keep)
            attach-yarn 1.2
                persist registered 1.2
                1.2: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.2 <- registered 1.1#3@a
            node b 4096 4 1.1#2
                b: NEW -> RUNNING
                b <- registered
                1.2 <- inherited 1.1#2
                b <- revoke 1.1 (keep)
        "#]],
    );
}

#[test]
fn a_master_that_does_not_list_holds_what_is_on_record() {
    check(
        "node a 4096 4
         node b 4096 4
         submit yarn
         started 1.1#1
         attach-yarn 1.1
         ask 1.1 3 512 1
         started 1.1#2
         started 1.1#3
         master-lost 1.1
         exited 1.1#2 3
         attach-yarn 1.1
         restart
         node a 4096 4 1.1#1 1.1#3
         node b 4096 4 1.1#4=5
         attach-yarn 1.1
         acknowledge 1.1 1.1#4 1.1#2
         exited 1.1#4 5
         release 1.1 1.1#3
         exited 1.1#3 143
         exited 1.1#3 143
         exited 1.1#1 0",
        &expect![[r#"
            node a 4096 4
                persist known a
                a: NEW -> RUNNING
                a <- registered
            node b 4096 4
                persist known b
                b: NEW -> RUNNING
                b <- registered
            submit yarn
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
            attach-yarn 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            ask 1.1 3 512 1
                1.1 <- granted 1.1#2@b 1.1#3@a 1.1#4@b
            started 1.1#2
            started 1.1#3
            master-lost 1.1
            exited 1.1#2 3
            attach-yarn 1.1
                1.1 <- registered
                1.1 <- completed 1.1#2=3
            restart
                persist epoch 2
            node a 4096 4 1.1#1 1.1#3
                a: NEW -> RUNNING
                a <- registered
            node b 4096 4 1.1#4=5
                b: NEW -> RUNNING
                b <- registered
            attach-yarn 1.1
                1.1 <- registered
                1.1 <- completed 1.1#4=5
            acknowledge 1.1 1.1#4 1.1#2
                b <- acknowledge 1.1#4
            exited 1.1#4 5
                b <- acknowledge 1.1#4
            release 1.1 1.1#3
                a <- stop 1.1#3 -100 'Container released by application'
            exited 1.1#3 143
                1.1 <- completed 1.1#3=143
            exited 1.1#3 143
            exited 1.1#1 0
                1.1: RUNNING -> FAILED
                persist attempt 1.1 FAILED 0 counted
                a <- acknowledge 1.1#3
                1.1 <- shutdown 'its master ended without having unregistered'
                close
                a <- revoke 1.1
                1: RUNNING -> ACCEPTED
                1.2: NEW -> SCHEDULED
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                a <- start e2.1.2#1
                1.2: ALLOCATED -> LAUNCHED
        "#]],
    );
}

#[test]
fn heartbeats_alone_say_that_a_yarn_master_lives() {
    check(
        "node a 4096 4
         submit yarn attempts=1
         started 1.1#1
         live 300000
         attach-yarn 1.1
         live 55000
         beat 1.1
         live 55000
         live 10000",
        &expect![[r#"
            node a 4096 4
                persist known a
                a: NEW -> RUNNING
                a <- registered
            submit yarn attempts=1
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
            live 300000
            attach-yarn 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            live 55000
            beat 1.1
            live 55000
            live 10000
                a <- stop 1.1#1 -106 'its master said nothing for 60000 ms'
        "#]],
    );
}

#[test]
fn a_yarn_client_that_is_the_master_is_given_the_masters_time() {
    check(
        "node a 4096 4
         submit unmanaged yarn
         live 50000
         attach-yarn 1.1
         live 50000
         restart
         node a 4096 4
         live 50000
         attach-yarn 1.1
         live 60000",
        &expect![[r#"
            node a 4096 4
                persist known a
                a: NEW -> RUNNING
                a <- registered
            submit unmanaged yarn
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                persist started 1.1
                1.1: NEW -> LAUNCHED
                reply submitted 1 1.1
            live 50000
            attach-yarn 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            live 50000
            restart
                persist epoch 2
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            live 50000
            attach-yarn 1.1
                1.1 <- registered
            live 60000
                1.1: RUNNING -> FAILED
                persist attempt 1.1 FAILED -100 counted
                1.1 <- shutdown 'its master said nothing for 60000 ms'
                close
                1: RUNNING -> FAILED
                persist application 1 FAILED FAILED -100 'its master said nothing for 60000 ms'
                delete staging 1
        "#]],
    );
}

#[test]
fn containers_grow_and_shrink() {
    check(
        "node a 4096 4
         submit memory=512
         started 1.1#1
         attach 1.1
         ask 1.1 1 1024 1
         update 1.1 more 1.1#2 0 2048
         started 1.1#2
         update 1.1 more 1.1#2 0 4096
         update 1.1 more 1.1#2 0 512
         update 1.1 more 1.1#2 0 2048
         update 1.1 more 1.1#2 0 3072
         update 1.1 less 1.1#2 1 256
         ask 1.1 1 3200 1
         node-lost a
         node a 4096 4 1.1#1 1.1#2
         attach 1.1 1.1#2
         ask 1.1 1 3200 1
         resized 1.1#2 256
         update 1.1 less 1.1#1 0 256
         update 1.1 less 1.1#9 0 256
         exited 1.1#2 0",
        &expect![[r#"
            node a 4096 4
                persist known a
                a: NEW -> RUNNING
                a <- registered
            submit memory=512
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
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            ask 1.1 1 1024 1
                1.1 <- granted 1.1#2@a
            update 1.1 more 1.1#2 0 2048
                1.1 <- refused: container_e01_1000_0001_01_000002 does not run: it has ended, ends, or was not started yet
            started 1.1#2
            update 1.1 more 1.1#2 0 4096
                1.1 <- refused: container_e01_1000_0001_01_000002 cannot have 4096 MiB, 1 vcore: its node a:1 has 2560 MiB, 2 vcores left
            update 1.1 more 1.1#2 0 512
                1.1 <- refused: container_e01_1000_0001_01_000002 has 1024 MiB, 1 vcore: 512 MiB, 1 vcore is no increase of it
            update 1.1 more 1.1#2 0 2048
                1.1 <- updated Increase 1.1#2 v1 2048 MiB, 1 vcore
            update 1.1 more 1.1#2 0 3072
                1.1 <- refused: container_e01_1000_0001_01_000002 is at version 1, not 0
            update 1.1 less 1.1#2 1 256
                a <- resize 1.1#2 v2 to 256 MiB, 1 vcore
                1.1 <- updated Decrease 1.1#2 v2 256 MiB, 1 vcore
            ask 1.1 1 3200 1
            node-lost a
            node a 4096 4 1.1#1 1.1#2
                a <- registered
                a <- resize 1.1#2 v2 to 256 MiB, 1 vcore
            attach 1.1 1.1#2
                close
                1.1 <- registered
            ask 1.1 1 3200 1
            resized 1.1#2 256
                1.1 <- granted 1.1#3@a
            update 1.1 less 1.1#1 0 256
                1.1 <- refused: container_e01_1000_0001_01_000001 does not run: it has ended, ends, or was not started yet
            update 1.1 less 1.1#9 0 256
                1.1 <- refused: no container container_e01_1000_0001_01_000009 is known here; list them with 'bobbin app containers'
            exited 1.1#2 0
                1.1 <- completed 1.1#2=0
                a <- acknowledge 1.1#2
        "#]],
    );
}

#[test]
fn what_was_used_over_time_is_known_and_kept() {
    let mut world = ran("node a 8192 8
         submit
         started 1.1#1
         attach 1.1
         live 10000
         ask 1.1 1 2048 2
         live 10000");
    let used = |world: &World| world.rm.application(application(1)).unwrap().used_seconds;
    let seconds = |memory_mib, vcores| ResourceSeconds { memory_mib, vcores };
    assert_eq!(used(&world), seconds(20 * 1024 + 10 * 2048, 20 + 20));
    world.run("finish 1.1 0\n exited 1.1#1 0");
    world.run("live 10000");
    let total = seconds(20 * 1024 + 10 * 2048, 40);
    assert_eq!(used(&world), total);
    world.restart();
    assert_eq!(used(&world), total);
    world.journal = world.rm.snapshot();
    world.restart();
    assert_eq!(used(&world), total);
}

#[test]
fn reports_tell_what_yarn_tells() {
    let mut world = ran(&format!(
        "{TWO_NODES}
         live 5000
         ask 1.1 1 1024 1
         started 1.1#2
         exited 1.1#2 3 it crashed"
    ));
    let report = world.rm.application(application(1)).unwrap();
    assert_eq!((report.host.as_str(), report.rpc_port), ("m", 99));
    assert_eq!(report.tracking_url, "http://m:4040");
    assert_eq!(report.current_attempt, Some(attempt(1, 1)));
    let master = report.master.unwrap();
    assert_eq!(
        (master.node.host(), master.node_http_address.as_str()),
        ("a", "a:3")
    );
    let executor = world.rm.container(container("1.1#2")).unwrap();
    assert_eq!(executor.created, Some(WallMillis(5000)));
    assert_eq!(executor.finished, Some(WallMillis(5000)));
    assert_eq!(
        (executor.priority, executor.node_http_address.as_str()),
        (1, "b:3")
    );
    let rows = world.rm.attempt_containers(attempt(1, 1), 0, None).rows;
    assert_eq!(rows.len(), 2);
    assert!(
        world
            .rm
            .attempt_containers(attempt(1, 2), 0, None)
            .rows
            .is_empty()
    );
    let metrics = world.rm.metrics();
    assert_eq!((metrics.nodes.running, metrics.statistics.running), (2, 1));
    assert_eq!(metrics.statistics.available, Resource::new(7168, 7));
    let view = world.rm.master_view(attempt(1, 1), 0).unwrap();
    assert_eq!((view.nodes_running, view.changed_nodes.len()), (2, 2));
    world.run("ill b broken");
    let view = world
        .rm
        .master_view(attempt(1, 1), view.node_changes)
        .unwrap();
    assert_eq!((view.nodes_running, view.changed_nodes.len()), (1, 1));
    assert_eq!(world.rm.master_view(attempt(1, 2), 0), None);
}

#[test]
fn access_lists_decide_who_sees_and_who_changes() {
    let mut world = World::new(Config::default());
    let mut submission = super::world::submission();
    submission.view_acl = "bob".to_owned();
    submission.modify_acl = " staff".to_owned();
    world.submit(submission);
    let staff = Principal::User {
        name: "carl".parse().unwrap(),
        administrator: false,
        groups: Groups(["staff".to_owned()].into()),
    };
    let sees = |world: &World, who: &Principal| {
        let filter = ApplicationFilter::default();
        world.rm.applications(who, &filter, 0, None).rows.len()
    };
    assert_eq!(sees(&world, &user("bob")), 1);
    assert_eq!((sees(&world, &user("eve")), sees(&world, &staff)), (0, 0));
    let request = world.request();
    let effects = world.handle(crate::Event::Kill {
        request,
        principal: staff,
        application: application(1),
        wait: false,
        reason: String::new(),
    });
    assert!(effects.iter().any(|effect| matches!(
        effect,
        crate::Effect::Reply {
            result: Ok(crate::Reply::Killed { .. }),
            ..
        }
    )));
    // What is remembered of an ended one says still who may see it.
    assert_eq!(
        (sees(&world, &user("bob")), sees(&world, &user("eve"))),
        (1, 0)
    );
}

#[test]
fn a_label_that_no_node_has_is_refused() {
    let mut world = World::new(Config::default());
    let mut submission = super::world::submission();
    submission.node_label = "gpu".to_owned();
    world.submit(submission);
    expect![[r#"
            refused: no node has the label 'gpu'
    "#]]
    .assert_eq(&world.transcript);
}

#[test]
fn lists_are_filtered_as_yarn_filters_them() {
    let mut world = World::new(Config::default());
    for (name, kind, tag) in [("one", "SPARK", "Red"), ("two", "YARN", "blue")] {
        let mut submission = super::world::submission();
        submission.name = name.to_owned();
        submission.application_type = kind.to_owned();
        submission.tags = vec![tag.to_owned()];
        world.submit(submission);
        world.run("pass 1000");
    }
    let named = |change: &dyn Fn(&mut ApplicationFilter)| -> Vec<String> {
        let mut filter = ApplicationFilter::default();
        change(&mut filter);
        let page = world.rm.applications(&user("ann"), &filter, 0, None);
        page.rows.into_iter().map(|row| row.name).collect()
    };
    let one = |text: &str| std::iter::once(text.to_owned()).collect();
    let range = Some((WallMillis(1), WallMillis(1000)));
    assert_eq!(named(&|_| {}), ["two", "one"]);
    assert_eq!(named(&|filter| filter.types = one("spark")), ["one"]);
    assert_eq!(named(&|filter| filter.tags = one("RED")), ["one"]);
    assert_eq!(named(&|filter| filter.queues = one("none")), [""; 0]);
    assert_eq!(
        named(&|filter| filter.name = Some("two".to_owned())),
        ["two"]
    );
    assert_eq!(named(&|filter| filter.submitted = range), ["two"]);
    assert_eq!(named(&|filter| filter.finished = range), [""; 0]);
}
