//! Lives of applications as scripts; the transcript is every effect.

use expect_test::{Expect, expect};

use super::world::{World, application, ask, attempt, submission, user};
use crate::{Config, Event, Principal, Record};

fn check(script: &str, expected: &Expect) {
    let mut world = World::new(Config::default());
    world.run(script);
    expected.assert_eq(&world.transcript);
}

#[test]
fn cluster_mode_from_submission_to_end() {
    check(
        "node a 4096 4
         submit
         started 1.1#1
         attach 1.1
         finish 1.1 0
         exited 1.1#1 0",
        &expect![[r#"
            node a 4096 4
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
            started 1.1#1
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            finish 1.1 0
                1.1: RUNNING -> FINISHING
                persist finishing 1.1
                1: RUNNING -> FINISHING
                1.1 <- finish acknowledged
            exited 1.1#1 0
                1.1: FINISHING -> FINISHED
                persist attempt 1.1 FINISHED 0
                1.1 <- shutdown 'it is over'
                close
                a <- revoke 1.1
                1: FINISHING -> FINISHED
                persist application 1 FINISHED SUCCEEDED 0 ''
                a <- ended 1
                delete staging 1
                a <- acknowledge 1.1#1
        "#]],
    );
}

#[test]
fn executors_are_granted_at_once_and_end_with_their_master() {
    check(
        "node a 4096 4
         node b 4096 4
         submit
         started 1.1#1
         attach 1.1
         ask 1.1 2 1024 1
         started 1.1#2
         exited 1.1#2 3 it crashed
         finish 1.1 0
         exited 1.1#1 0
         exited 1.1#3 -107",
        &expect![[r#"
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            node b 4096 4
                b: NEW -> RUNNING
                b <- registered
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
            started 1.1#1
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            ask 1.1 2 1024 1
                1.1 <- granted 1.1#2@b 1.1#3@a
            started 1.1#2
            exited 1.1#2 3 it crashed
                1.1 <- completed 1.1#2=3
                b <- acknowledge 1.1#2
            finish 1.1 0
                1.1: RUNNING -> FINISHING
                persist finishing 1.1
                1: RUNNING -> FINISHING
                1.1 <- finish acknowledged
            exited 1.1#1 0
                1.1: FINISHING -> FINISHED
                persist attempt 1.1 FINISHED 0
                1.1 <- shutdown 'it is over'
                close
                a <- revoke 1.1
                b <- revoke 1.1
                a <- stop 1.1#3 -107 'its attempt is over'
                1: FINISHING -> FINISHED
                persist application 1 FINISHED SUCCEEDED 0 ''
                a <- ended 1
                b <- ended 1
                a <- acknowledge 1.1#1
            exited 1.1#3 -107
                delete staging 1
                a <- acknowledge 1.1#3
        "#]],
    );
}

#[test]
fn a_failed_driver_is_started_again_until_its_attempts_are_used_up() {
    check(
        "node a 4096 4
         submit attempts=2
         started 1.1#1
         attach 1.1
         ask 1.1 1 512 1
         exited 1.1#1 7
         exited 1.1#2 -100
         started 1.2#1
         attach 1.2
         exited 1.2#1 -104 128.0 MB of 128 MB physical memory used",
        &expect![[r#"
            node a 4096 4
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
            ask 1.1 1 512 1
                1.1 <- granted 1.1#2@a
            exited 1.1#1 7
                1.1: RUNNING -> FAILED
                persist attempt 1.1 FAILED 7 counted
                1.1 <- shutdown 'its master's container ended with exit status 7'
                close
                a <- revoke 1.1
                a <- stop 1.1#2 -100 'its attempt is over'
                1: RUNNING -> ACCEPTED
                1.2: NEW -> SCHEDULED
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                a <- start 1.2#1
                1.2: ALLOCATED -> LAUNCHED
            exited 1.1#2 -100
                a <- acknowledge 1.1#2
            started 1.2#1
            attach 1.2
                persist registered 1.2
                1.2: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.2 <- registered
            exited 1.2#1 -104 128.0 MB of 128 MB physical memory used
                1.2: RUNNING -> FAILED
                persist attempt 1.2 FAILED -104 counted
                1.2 <- shutdown 'its master's container ended with exit status -104: 128.0 MB of 128 MB physical memory used'
                close
                a <- revoke 1.2
                1: RUNNING -> FAILED
                persist application 1 FAILED FAILED -104 'attempt 2 failed (2 of 2): its master's container ended with exit status -104: 128.0 MB of 128 MB physical memory used'
                a <- ended 1
                delete staging 1
                a <- acknowledge 1.2#1
        "#]],
    );
}

#[test]
fn a_lost_node_costs_no_attempt() {
    check(
        "node a 4096 4
         submit attempts=1
         started 1.1#1
         attach 1.1
         node b 4096 4
         node-lost a
         pass 31000
         node a 4096 4 1.1#1
         exited 1.1#1 -107",
        &expect![[r#"
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            submit attempts=1
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
            node b 4096 4
                b: NEW -> RUNNING
                b <- registered
            node-lost a
            pass 31000
                a: RUNNING -> LOST
                1.1: RUNNING -> FAILED
                persist attempt 1.1 FAILED -100
                1.1 <- shutdown 'its master's container ended with exit status -100: node a:1 was not heard of for 30000 ms and is given up'
                close
                1: RUNNING -> ACCEPTED
                1.2: NEW -> SCHEDULED
                b: RUNNING -> LOST
                close
            node a 4096 4 1.1#1
                a: LOST -> RUNNING
                a <- registered
                a <- stop 1.1#1 -107 'node a:1 was not heard of for 30000 ms and is given up'
                a <- revoke 1.1
            exited 1.1#1 -107
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                a <- start 1.2#1
                1.2: ALLOCATED -> LAUNCHED
        "#]],
    );
}

#[test]
fn a_former_master_that_comes_back_is_ended_before_the_next_one_starts() {
    check(
        "node a 4096 4
         submit
         started 1.1#1
         node-lost a
         pass 30000
         node b 1000 4
         node a 4096 4 1.1#1
         node c 4096 4
         exited 1.1#1 -107",
        &expect![[r#"
            node a 4096 4
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
            started 1.1#1
            node-lost a
            pass 30000
                a: RUNNING -> LOST
                1.1: LAUNCHED -> FAILED
                persist attempt 1.1 FAILED -100
                1.2: NEW -> SCHEDULED
            node b 1000 4
                b: NEW -> RUNNING
                b <- registered
            node a 4096 4 1.1#1
                a: LOST -> RUNNING
                a <- registered
                a <- stop 1.1#1 -107 'node a:1 was not heard of for 30000 ms and is given up'
                a <- revoke 1.1
            node c 4096 4
                c: NEW -> RUNNING
                c <- registered
            exited 1.1#1 -107
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                a <- start 1.2#1
                1.2: ALLOCATED -> LAUNCHED
        "#]],
    );
}

#[test]
fn a_former_master_on_a_node_that_goes_again_holds_nobody() {
    check(
        "node a 4096 4
         submit
         started 1.1#1
         node-lost a
         pass 30000
         node a 4096 4 1.1#1
         node-lost a
         pass 29000
         node c 4096 4
         pass 1000",
        &expect![[r#"
            node a 4096 4
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
            started 1.1#1
            node-lost a
            pass 30000
                a: RUNNING -> LOST
                1.1: LAUNCHED -> FAILED
                persist attempt 1.1 FAILED -100
                1.2: NEW -> SCHEDULED
            node a 4096 4 1.1#1
                a: LOST -> RUNNING
                a <- registered
                a <- stop 1.1#1 -107 'node a:1 was not heard of for 30000 ms and is given up'
                a <- revoke 1.1
            node-lost a
            pass 29000
            node c 4096 4
                c: NEW -> RUNNING
                c <- registered
            pass 1000
                a: RUNNING -> LOST
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                c <- start 1.2#1
                1.2: ALLOCATED -> LAUNCHED
        "#]],
    );
}

#[test]
fn kill_waits_until_every_container_is_gone() {
    check(
        "node a 4096 4
         submit
         started 1.1#1
         attach 1.1
         ask 1.1 1 512 1
         started 1.1#2
         kill 1 wait
         kill 1 now
         exited 1.1#2 -106
         exited 1.1#1 -106
         kill 1 wait",
        &expect![[r#"
            node a 4096 4
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
            started 1.1#1
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            ask 1.1 1 512 1
                1.1 <- granted 1.1#2@a
            started 1.1#2
            kill 1 wait
                persist kill 1
                1: RUNNING -> KILLING
                a <- stop 1.1#1 -106 'killed by user ann'
                a <- stop 1.1#2 -106 'killed by user ann'
                1.1 <- shutdown 'killed by user ann'
                close
            kill 1 now
                reply killed
            exited 1.1#2 -106
                a <- acknowledge 1.1#2
            exited 1.1#1 -106
                1.1: RUNNING -> KILLED
                persist attempt 1.1 KILLED -106
                a <- revoke 1.1
                1: KILLING -> KILLED
                persist application 1 KILLED KILLED -106 'killed by user ann'
                a <- ended 1
                delete staging 1
                reply killed
                a <- acknowledge 1.1#1
            kill 1 wait
                reply killed (had ended)
        "#]],
    );
}

#[test]
fn kill_of_a_waiting_application_ends_it_at_once() {
    check(
        "submit\nkill 1 wait",
        &expect![[r#"
        submit
            persist submitted 1
            1: NEW -> SUBMITTED
            1: SUBMITTED -> ACCEPTED
            1.1: NEW -> SCHEDULED
            reply submitted 1
        kill 1 wait
            persist kill 1
            1: ACCEPTED -> KILLING
            1.1: SCHEDULED -> KILLED
            persist attempt 1.1 KILLED -106
            1: KILLING -> KILLED
            persist application 1 KILLED KILLED -106 'killed by user ann'
            delete staging 1
            reply killed
    "#]],
    );
}

#[test]
fn client_mode_ends_with_its_client() {
    check(
        "node a 4096 4
         submit unmanaged
         attach 1.1
         ask 1.1 1 512 1
         started 1.1#1
         master-lost 1.1
         pass 9999
         pass 1
         exited 1.1#1 -100",
        &expect![[r#"
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            submit unmanaged
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                persist started 1.1
                1.1: NEW -> LAUNCHED
                reply submitted 1 1.1
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            ask 1.1 1 512 1
                1.1 <- granted 1.1#1@a
            started 1.1#1
            master-lost 1.1
            pass 9999
            pass 1
                1.1: RUNNING -> FAILED
                persist attempt 1.1 FAILED -100 counted
                a <- revoke 1.1
                a <- stop 1.1#1 -100 'its attempt is over'
                1: RUNNING -> FAILED
                persist application 1 FAILED FAILED -100 'its client went away and was not back within 10000 ms'
                a <- ended 1
            exited 1.1#1 -100
                delete staging 1
                a <- acknowledge 1.1#1
        "#]],
    );
}

#[test]
fn client_mode_says_farewell() {
    check(
        "node a 4096 4
         submit unmanaged
         attach 1.1
         finish 1.1 7",
        &expect![[r#"
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            submit unmanaged
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                persist started 1.1
                1.1: NEW -> LAUNCHED
                reply submitted 1 1.1
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            finish 1.1 7
                1.1: RUNNING -> FINISHING
                persist finishing 1.1
                1: RUNNING -> FINISHING
                1.1 <- finish acknowledged
                1.1: FINISHING -> FINISHED
                persist attempt 1.1 FINISHED 7
                1: FINISHING -> FINISHED
                persist application 1 FINISHED SUCCEEDED 7 ''
                delete staging 1
                close
        "#]],
    );
}

#[test]
fn tied_to_a_client_that_goes_away() {
    check(
        "node a 4096 4
         submit tied
         lease 1
         started 1.1#1
         live 20000
         lease-lost 1
         live 10000
         exited 1.1#1 -106",
        &expect![[r#"
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            submit tied
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                1.1: NEW -> SCHEDULED
                reply submitted 1
                1.1: SCHEDULED -> ALLOCATED
                persist started 1.1
                a <- start 1.1#1
                1.1: ALLOCATED -> LAUNCHED
            lease 1
                reply lease held
            started 1.1#1
            live 20000
            lease-lost 1
            live 10000
                persist kill 1
                1: ACCEPTED -> KILLING
                a <- stop 1.1#1 -106 'its submitter went away and was not back within 10000 ms'
            exited 1.1#1 -106
                1.1: LAUNCHED -> KILLED
                persist attempt 1.1 KILLED -106
                a <- revoke 1.1
                1: KILLING -> KILLED
                persist application 1 KILLED KILLED -106 'its submitter went away and was not back within 10000 ms'
                a <- ended 1
                delete staging 1
                a <- acknowledge 1.1#1
        "#]],
    );
}

#[test]
fn a_timeout_kills() {
    check(
        "submit timeout=5000\npass 4999\npass 1",
        &expect![[r#"
        submit timeout=5000
            persist submitted 1
            1: NEW -> SUBMITTED
            1: SUBMITTED -> ACCEPTED
            1.1: NEW -> SCHEDULED
            reply submitted 1
        pass 4999
        pass 1
            persist kill 1
            1: ACCEPTED -> KILLING
            1.1: SCHEDULED -> KILLED
            persist attempt 1.1 KILLED -106
            1: KILLING -> KILLED
            persist application 1 KILLED KILLED -106 'its time is over (--timeout)'
            delete staging 1
    "#]],
    );
}

#[test]
fn a_silent_master_has_failed() {
    check(
        "node a 4096 4
         submit attempts=1
         started 1.1#1
         live 55000
         live 5000
         exited 1.1#1 -106",
        &expect![[r#"
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            submit attempts=1
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
            live 55000
            live 5000
                a <- stop 1.1#1 -106 'its master said nothing for 60000 ms'
            exited 1.1#1 -106
                1.1: LAUNCHED -> FAILED
                persist attempt 1.1 FAILED -106 counted
                a <- revoke 1.1
                1: ACCEPTED -> FAILED
                persist application 1 FAILED FAILED -106 'attempt 1 failed (1 of 1): its master said nothing for 60000 ms'
                a <- ended 1
                delete staging 1
                a <- acknowledge 1.1#1
        "#]],
    );
}

#[test]
fn a_released_container_holds_its_room_until_its_node_says_so() {
    check(
        "node a 2048 4
         submit
         started 1.1#1
         attach 1.1
         ask 1.1 1 1024 1
         release 1.1 1.1#2
         ask 1.1 1 1024 1
         exited 1.1#2 -105",
        &expect![[r#"
            node a 2048 4
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
            started 1.1#1
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            ask 1.1 1 1024 1
                1.1 <- granted 1.1#2@a
            release 1.1 1.1#2
                a <- stop 1.1#2 -105 'released by its application master'
            ask 1.1 1 1024 1
            exited 1.1#2 -105
                1.1 <- completed 1.1#2=-105
                a <- acknowledge 1.1#2
                1.1 <- granted 1.1#3@a
        "#]],
    );
}

#[test]
fn a_grant_that_is_never_started_is_taken_back() {
    check(
        "node a 4096 4
         submit attempts=1
         live 595000
         live 5000
         exited 1.1#1 -100",
        &expect![[r#"
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            submit attempts=1
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                1.1: NEW -> SCHEDULED
                reply submitted 1
                1.1: SCHEDULED -> ALLOCATED
                persist started 1.1
                a <- start 1.1#1
                1.1: ALLOCATED -> LAUNCHED
            live 595000
            live 5000
                a <- stop 1.1#1 -100 'it was not started for 600000 ms after it was granted'
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
        "#]],
    );
}

#[test]
fn a_master_that_comes_back_says_what_it_holds() {
    check(
        "node a 8192 8
         submit
         started 1.1#1
         attach 1.1
         ask 1.1 3 512 1
         started 1.1#2
         master-lost 1.1
         exited 1.1#2 9
         ask 1.1 1 512 1
         attach 1.1 1.1#2 1.1#3 5.1#9",
        &expect![[r#"
            node a 8192 8
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
            started 1.1#1
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            ask 1.1 3 512 1
                1.1 <- granted 1.1#2@a 1.1#3@a 1.1#4@a
            started 1.1#2
            master-lost 1.1
            exited 1.1#2 9
                a <- acknowledge 1.1#2
            ask 1.1 1 512 1
            attach 1.1 1.1#2 1.1#3 5.1#9
                1.1 <- registered
                a <- stop 1.1#4 -100 'its application master does not hold it'
                1.1 <- completed 1.1#2=9 5.1#9=-100
        "#]],
    );
}

#[test]
fn another_stream_of_a_master_takes_over() {
    check(
        "node a 8192 8
         submit
         started 1.1#1
         attach 1.1
         attach 1.1
         attach 1.2
         attach 2.1",
        &expect![[r#"
            node a 8192 8
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
            started 1.1#1
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            attach 1.1
                close
                1.1 <- registered
            attach 1.2
                1.2 <- shutdown 'appattempt_1000_0001_000002 is over: attempt 1 follows'
                close
            attach 2.1
                2.1 <- shutdown 'no application 'application_1000_0002' is known here; list them with 'bobbin app list''
                close
        "#]],
    );
}

#[test]
fn an_ill_node_gets_no_work() {
    check(
        "node a 4096 4
         ill a disk-full
         submit
         ill a",
        &expect![[r#"
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            ill a disk-full
                a: RUNNING -> UNHEALTHY
            submit
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                1.1: NEW -> SCHEDULED
                reply submitted 1
            ill a
                a: UNHEALTHY -> RUNNING
                1.1: SCHEDULED -> ALLOCATED
                persist started 1.1
                a <- start 1.1#1
                1.1: ALLOCATED -> LAUNCHED
        "#]],
    );
}

#[test]
fn what_fits_nowhere_blocks_nobody() {
    check(
        "node a 4096 8
         submit memory=3000
         submit memory=4000
         submit memory=1000
         exited 1.1#1 7
         kill 1 now
         exited 1.2#1 -106",
        &expect![[r#"
            node a 4096 8
                a: NEW -> RUNNING
                a <- registered
            submit memory=3000
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                1.1: NEW -> SCHEDULED
                reply submitted 1
                1.1: SCHEDULED -> ALLOCATED
                persist started 1.1
                a <- start 1.1#1
                1.1: ALLOCATED -> LAUNCHED
            submit memory=4000
                persist submitted 2
                2: NEW -> SUBMITTED
                2: SUBMITTED -> ACCEPTED
                2.1: NEW -> SCHEDULED
                reply submitted 2
            submit memory=1000
                persist submitted 3
                3: NEW -> SUBMITTED
                3: SUBMITTED -> ACCEPTED
                3.1: NEW -> SCHEDULED
                reply submitted 3
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
            kill 1 now
                persist kill 1
                1: ACCEPTED -> KILLING
                a <- stop 1.2#1 -106 'killed by user ann'
                reply killed
            exited 1.2#1 -106
                1.2: LAUNCHED -> KILLED
                persist attempt 1.2 KILLED -106
                a <- revoke 1.2
                1: KILLING -> KILLED
                persist application 1 KILLED KILLED -106 'killed by user ann'
                a <- ended 1
                delete staging 1
                a <- acknowledge 1.2#1
                2.1: SCHEDULED -> ALLOCATED
                persist started 2.1
                a <- start 2.1#1
                2.1: ALLOCATED -> LAUNCHED
        "#]],
    );
}

#[test]
fn urgent_applications_come_first() {
    check(
        "submit
         submit priority=5
         node a 1024 1",
        &expect![[r#"
            submit
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                1.1: NEW -> SCHEDULED
                reply submitted 1
            submit priority=5
                persist submitted 2
                2: NEW -> SUBMITTED
                2: SUBMITTED -> ACCEPTED
                2.1: NEW -> SCHEDULED
                reply submitted 2
            node a 1024 1
                a: NEW -> RUNNING
                a <- registered
                2.1: SCHEDULED -> ALLOCATED
                persist started 2.1
                a <- start 2.1#1
                2.1: ALLOCATED -> LAUNCHED
        "#]],
    );
}

#[test]
fn asks_bound_to_a_host() {
    check(
        "node a 4096 4
         node b 4096 4
         submit unmanaged
         attach 1.1
         ask-on 1.1 b relaxed 1 512
         ask-on 1.1 c relaxed 1 512
         ask-on 1.1 b strict 1 4096
         ask-on 1.1 c strict 1 512
         node c 1024 1
         ask-on 1.1 /far strict 1 512
         exited 1.1#1 0",
        &expect![[r#"
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            node b 4096 4
                b: NEW -> RUNNING
                b <- registered
            submit unmanaged
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                persist started 1.1
                1.1: NEW -> LAUNCHED
                reply submitted 1 1.1
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            ask-on 1.1 b relaxed 1 512
                1.1 <- granted 1.1#1@b
            ask-on 1.1 c relaxed 1 512
                1.1 <- granted 1.1#2@a
            ask-on 1.1 b strict 1 4096
            ask-on 1.1 c strict 1 512
            node c 1024 1
                c: NEW -> RUNNING
                c <- registered
                1.1 <- granted 1.1#3@c
            ask-on 1.1 /far strict 1 512
                1.1 <- refused: no rack '/far'; all nodes are in /default-rack
            exited 1.1#1 0
                1.1 <- completed 1.1#1=0
                b <- acknowledge 1.1#1
                1.1 <- granted 1.1#4@b
        "#]],
    );
}

#[test]
fn spreading_takes_the_least_used_node() {
    check(
        "node a 4096 4
         node b 4096 4
         node c 2048 2
         submit unmanaged
         attach 1.1
         ask 1.1 6 512 1",
        &expect![[r#"
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            node b 4096 4
                b: NEW -> RUNNING
                b <- registered
            node c 2048 2
                c: NEW -> RUNNING
                c <- registered
            submit unmanaged
                persist submitted 1
                1: NEW -> SUBMITTED
                1: SUBMITTED -> ACCEPTED
                persist started 1.1
                1.1: NEW -> LAUNCHED
                reply submitted 1 1.1
            attach 1.1
                persist registered 1.1
                1.1: LAUNCHED -> RUNNING
                1: ACCEPTED -> RUNNING
                1.1 <- registered
            ask 1.1 6 512 1
                1.1 <- granted 1.1#1@a 1.1#2@b 1.1#3@c 1.1#4@a 1.1#5@b 1.1#6@a
        "#]],
    );
}

#[test]
fn a_token_of_another_attempt_is_refused() {
    let mut world = World::new(Config::default());
    world.run("node a 4096 4\nsubmit unmanaged");
    let session = world.session();
    world.handle(Event::MasterAttached {
        session,
        principal: Principal::Attempt(attempt(2, 1)),
        attempt: attempt(1, 1),
        registration: Box::default(),
    });
    let session = world.session();
    world.handle(Event::NodeRegistered {
        session,
        principal: Principal::Node("b".to_owned()),
        registration: Box::new(super::world::registration(
            "a",
            bobbin_types::Resource::new(1, 1),
        )),
    });
    let (request, principal) = (world.request(), user("bob"));
    let (application, reason) = (application(1), String::new());
    world.handle(Event::Kill {
        request,
        principal,
        application,
        wait: true,
        reason,
    });
    expect![[r#"
        node a 4096 4
            a: NEW -> RUNNING
            a <- registered
        submit unmanaged
            persist submitted 1
            1: NEW -> SUBMITTED
            1: SUBMITTED -> ACCEPTED
            persist started 1.1
            1.1: NEW -> LAUNCHED
            reply submitted 1 1.1
            1.1 <- shutdown 'appattempt_1000_0002_000001 may not register the master of appattempt_1000_0001_000001: an attempt's token is for that attempt's own master only'
            close
            a <- refused: node agent of b may not register node a:1: a node's token is for the agent of that host only
            close
            refused: user bob may not kill application_1000_0001 of user ann: only its owner and administrators
    "#]].assert_eq(&world.transcript);
}

#[test]
fn ids_are_handed_out_once() {
    let mut world = World::new(Config::default());
    for name in ["ann", "bob"] {
        let (request, principal) = (world.request(), user(name));
        world.handle(Event::NewApplication { request, principal });
    }
    // Of another, unknown, of her own; said again; with none.
    world.run("submit id=2\nsubmit id=99\nsubmit id=1\nsubmit id=1\nsubmit\nrestart");
    let (request, principal) = (world.request(), user("bob"));
    world.handle(Event::NewApplication { request, principal });
    world.run("submit");
    expect![[r#"
            persist reserved 10
            reply id 1
            reply id 2
        submit id=2
            refused: application_1000_0002 was handed out to another user
        submit id=99
            refused: application_1000_0099 was not handed out by this cluster; get an id first or submit without one
        submit id=1
            persist submitted 1
            1: NEW -> SUBMITTED
            1: SUBMITTED -> ACCEPTED
            1.1: NEW -> SCHEDULED
            reply submitted 1
        submit id=1
            reply submitted 1
        submit
            persist submitted 3
            3: NEW -> SUBMITTED
            3: SUBMITTED -> ACCEPTED
            3.1: NEW -> SCHEDULED
            reply submitted 3
        restart
            persist epoch 2
            1.1: NEW -> SCHEDULED
            3.1: NEW -> SCHEDULED
            persist reserved 20
            reply id 11
        submit
            persist submitted 12
            12: NEW -> SUBMITTED
            12: SUBMITTED -> ACCEPTED
            12.1: NEW -> SCHEDULED
            reply submitted 12
    "#]].assert_eq(&world.transcript);
}

#[test]
fn the_oldest_ended_applications_are_forgotten() {
    let config = Config {
        applications_retained: 2,
        ..Config::default()
    };
    let mut world = World::new(config);
    for sequence in 1..=4 {
        world.run(&format!("submit\nkill {sequence} now"));
    }
    let removed = |record: &&Record| matches!(record, Record::ApplicationRemoved { .. });
    assert_eq!(world.journal.iter().filter(removed).count(), 2);
    assert!(world.rm.application(application(2)).is_none());
    assert!(world.rm.application(application(3)).is_some());
    // It was submitted before: it never runs again.
    world.transcript.clear();
    world.run("submit id=2\nrestart\nsubmit id=1");
    expect![[r#"
        submit id=2
            refused: application_1000_0002 has ended and was forgotten
        restart
            persist epoch 2
            delete staging 3
            delete staging 4
        submit id=1
            refused: application_1000_0001 has ended and was forgotten
    "#]]
    .assert_eq(&world.transcript);
}

#[test]
fn masters_may_take_half_of_the_cluster() {
    let mut world = World::new(Config::default());
    world.run("node a 4096 8\nsubmit\nsubmit\nsubmit");
    let report = world.rm.application(application(3)).unwrap();
    expect!["application application_1000_0003 waits: its master needs 1024 MiB, 1 vcore; masters have 2048 MiB, 2 vcores of the 2048 MiB, 4 vcores they may have together"].assert_eq(&report.waiting);
    world.transcript.clear();
    world.run("exited 1.1#1 -104\nnode b 4096 8");
    expect![[r#"
        exited 1.1#1 -104
            1.1: LAUNCHED -> FAILED
            persist attempt 1.1 FAILED -104 counted
            a <- revoke 1.1
            1.2: NEW -> SCHEDULED
            a <- acknowledge 1.1#1
            1.2: SCHEDULED -> ALLOCATED
            persist started 1.2
            a <- start 1.2#1
            1.2: ALLOCATED -> LAUNCHED
        node b 4096 8
            b: NEW -> RUNNING
            b <- registered
            3.1: SCHEDULED -> ALLOCATED
            persist started 3.1
            b <- start 3.1#1
            3.1: ALLOCATED -> LAUNCHED
    "#]]
    .assert_eq(&world.transcript);
}

#[test]
fn reasons_for_waiting() {
    let mut world = World::new(Config {
        max_am_share_permille: 1000,
        ..Config::default()
    });
    let mut reasons = String::new();
    let mut note = |world: &World, sequence| {
        reasons += &world.rm.application(application(sequence)).unwrap().waiting;
        reasons += "\n";
    };
    world.submit(submission());
    note(&world, 1);
    world.run("node a 1500 4");
    note(&world, 1);
    world.run("attach 1.1");
    note(&world, 1);
    world.run("ask 1.1 3 1000 1\nsubmit\nsubmit");
    note(&world, 1);
    note(&world, 3);
    let session = world.master_sessions[&attempt(1, 1)];
    let mut bound = ask(1, 100, 1, 3);
    bound.key = std::sync::Arc::new(crate::AskKey {
        place: "z".to_owned(),
        ..(*bound.key).clone()
    });
    bound.relax_locality = false;
    world.handle(Event::MasterAsks {
        attempt: attempt(1, 1),
        session,
        asks: vec![bound],
    });
    note(&world, 1);
    world.run("started 1.1#1\nkill 1 now");
    note(&world, 1);
    expect![[r#"
        application application_1000_0001 waits: its master needs 1024 MiB, 1 vcore; no node takes work now
        application application_1000_0001 waits: its master (container_e01_1000_0001_01_000001 on a:1) has not registered yet

        application application_1000_0001 waits: 3 containers of 1000 MiB, 1 vcore at priority 1: the most that is free now is 476 MiB, 3 vcores (1 node)
        application application_1000_0003 waits: its master needs 1024 MiB, 1 vcore; masters have 1024 MiB, 1 vcore of the 1500 MiB, 4 vcores they may have together; 1 applications wait before it
        application application_1000_0001 waits: 3 containers of 1000 MiB, 1 vcore at priority 1: the most that is free now is 476 MiB, 3 vcores (1 node); 1 containers of 100 MiB, 1 vcore at priority 1: no room on host z, and only that one will do
        application application_1000_0001 waits: 1 of its containers are still being ended
    "#]].assert_eq(&reasons);
}
