//! Lives of applications as scripts; the transcript is every effect.

use expect_test::expect;

use super::world::check;

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
                persist known a
                a: NEW -> RUNNING
                a <- registered
            node b 4096 4
                persist known b
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
         --
         node b 4096 4
         node-lost a
         pass 31000
         node a 4096 4 1.1#1
         exited 1.1#1 -107",
        &expect![[r#"
            node b 4096 4
                persist known b
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
                persist forgotten a
                b: RUNNING -> LOST
                close
                persist forgotten b
            node a 4096 4 1.1#1
                persist known a
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
         --
         submit
         started 1.1#1
         node-lost a
         pass 30000
         node b 1000 4
         node a 4096 4 1.1#1
         node c 4096 4
         exited 1.1#1 -107",
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
            started 1.1#1
            node-lost a
            pass 30000
                a: RUNNING -> LOST
                1.1: LAUNCHED -> FAILED
                persist attempt 1.1 FAILED -100
                1.2: NEW -> SCHEDULED
                persist forgotten a
            node b 1000 4
                persist known b
                b: NEW -> RUNNING
                b <- registered
            node a 4096 4 1.1#1
                persist known a
                a: LOST -> RUNNING
                a <- registered
                a <- stop 1.1#1 -107 'node a:1 was not heard of for 30000 ms and is given up'
                a <- revoke 1.1
            node c 4096 4
                persist known c
                c: NEW -> RUNNING
                c <- registered
            exited 1.1#1 -107
                a <- acknowledge 1.1#1
                1.2: SCHEDULED -> ALLOCATED
                persist started 1.2
                c <- start 1.2#1
                1.2: ALLOCATED -> LAUNCHED
        "#]],
    );
}

#[test]
fn a_former_master_on_a_node_that_goes_again_holds_nobody() {
    check(
        "node a 4096 4
         --
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
                persist forgotten a
            node a 4096 4 1.1#1
                persist known a
                a: LOST -> RUNNING
                a <- registered
                a <- stop 1.1#1 -107 'node a:1 was not heard of for 30000 ms and is given up'
                a <- revoke 1.1
            node-lost a
            pass 29000
            node c 4096 4
                persist known c
                c: NEW -> RUNNING
                c <- registered
            pass 1000
                a: RUNNING -> LOST
                persist forgotten a
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
         --
         ask 1.1 1 512 1
         started 1.1#2
         kill 1 wait
         kill 1 now
         exited 1.1#2 -106
         exited 1.1#1 -106
         kill 1 wait",
        &expect![[r#"
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
         --
         ask 1.1 1 512 1
         started 1.1#1
         master-lost 1.1
         pass 9999
         pass 1
         exited 1.1#1 -100",
        &expect![[r#"
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
         --
         finish 1.1 7",
        &expect![[r#"
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
         --
         submit tied
         lease 1
         started 1.1#1
         live 20000
         lease-lost 1
         live 10000
         exited 1.1#1 -106",
        &expect![[r#"
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
         --
         submit attempts=1
         started 1.1#1
         live 55000
         live 5000
         exited 1.1#1 -106",
        &expect![[r#"
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
