//! Restarts of the resource manager as scripts.

use expect_test::expect;

use super::world::{World, application, check, ran};
use crate::Config;

#[test]
fn a_running_application_goes_on() {
    check(
        "node a 4096 4
         submit
         started 1.1#1
         attach 1.1
         ask 1.1 1 1024 1
         started 1.1#2
         --
         restart
         attach 1.1 1.1#2
         node a 4096 4 1.1#1 1.1#2
         ask 1.1 1 512 1
         exited 1.1#2 0
         finish 1.1 0
         exited 1.1#1 0",
        &expect![[r#"
            restart
                persist epoch 2
            attach 1.1 1.1#2
                1.1 <- registered
            node a 4096 4 1.1#1 1.1#2
                a: NEW -> RUNNING
                a <- registered
            ask 1.1 1 512 1
                1.1 <- granted e2.1.1#1@a
            exited 1.1#2 0
                1.1 <- completed 1.1#2=0
                a <- acknowledge 1.1#2
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
                a <- stop e2.1.1#1 -107 'its attempt is over'
                1: FINISHING -> FINISHED
                persist application 1 FINISHED SUCCEEDED 0 ''
                a <- ended 1
                a <- acknowledge 1.1#1
        "#]],
    );
}

#[test]
fn a_submission_that_was_not_launched_starts() {
    check(
        "submit\n--\nrestart\nnode a 4096 4",
        &expect![[r#"
            restart
                persist epoch 2
                1.1: NEW -> SCHEDULED
            node a 4096 4
                persist known a
                a: NEW -> RUNNING
                a <- registered
                1.1: SCHEDULED -> ALLOCATED
                persist started 1.1
                a <- start e2.1.1#1
                1.1: ALLOCATED -> LAUNCHED
        "#]],
    );
}

#[test]
fn a_launch_that_never_arrived_is_sent_again() {
    check(
        "node a 4096 4\nsubmit\n--\nrestart\nnode a 4096 4",
        &expect![[r#"
            restart
                persist epoch 2
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
                a <- start 1.1#1
        "#]],
    );
}

#[test]
fn a_master_whose_node_stays_away_costs_no_attempt() {
    check(
        "node a 4096 4
         submit attempts=1
         started 1.1#1
         attach 1.1
         --
         restart
         node b 4096 4
         pass 30000",
        &expect![[r#"
            restart
                persist epoch 2
            node b 4096 4
                persist known b
                b: NEW -> RUNNING
                b <- registered
            pass 30000
                a: NEW -> LOST
                1.1: RUNNING -> FAILED
                persist attempt 1.1 FAILED -100
                1: RUNNING -> ACCEPTED
                1.2: NEW -> SCHEDULED
                persist forgotten a
                b: RUNNING -> LOST
                close
                persist forgotten b
        "#]],
    );
}

#[test]
fn an_end_that_nobody_saw_is_seen() {
    check(
        "node a 4096 4
         submit attempts=1
         started 1.1#1
         attach 1.1
         ask 1.1 1 512 1
         --
         restart
         node a 4096 4 1.1#1=7 1.1#2",
        &expect![[r#"
            restart
                persist epoch 2
            node a 4096 4 1.1#1=7 1.1#2
                a: NEW -> RUNNING
                a <- registered
                1.1: RUNNING -> FAILED
                persist attempt 1.1 FAILED 7 counted
                a <- revoke 1.1
                1: RUNNING -> FAILED
                persist application 1 FAILED FAILED 7 'attempt 1 failed (1 of 1): its master's container ended with exit status 7'
                a <- ended 1
                delete staging 1
                a <- acknowledge 1.1#1
                a <- stop 1.1#2 -107 'its attempt is over, or the cluster gave its node up'
                a <- ended 1
                a <- ended 1
        "#]],
    );
}

#[test]
fn what_no_node_reports_is_completed_for_its_master() {
    check(
        "node a 4096 4
         submit unmanaged
         attach 1.1
         ask 1.1 2 512 1
         --
         restart
         attach 1.1 1.1#1 1.1#2
         node a 4096 4 1.1#2=5
         ill a
         pass 15000
         beat 1.1
         ill a
         pass 15000",
        &expect![[r#"
            restart
                persist epoch 2
            attach 1.1 1.1#1 1.1#2
                1.1 <- registered
            node a 4096 4 1.1#2=5
                a: NEW -> RUNNING
                a <- registered
                1.1 <- completed 1.1#2=5
                a <- acknowledge 1.1#2
            ill a
            pass 15000
            beat 1.1
            ill a
            pass 15000
                1.1 <- completed 1.1#1=-100
        "#]],
    );
}

#[test]
fn a_start_of_a_former_grant_is_taken_over() {
    check(
        "node a 4096 4
         submit unmanaged
         attach 1.1
         ask 1.1 1 512 1
         --
         restart
         node a 4096 4
         attach 1.1 1.1#1
         started 1.1#1",
        &expect![[r#"
            restart
                persist epoch 2
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            attach 1.1 1.1#1
                1.1 <- registered
            started 1.1#1
        "#]],
    );
}

#[test]
fn failures_are_counted_across_restarts() {
    check(
        "node a 4096 4
         submit attempts=2
         started 1.1#1
         exited 1.1#1 7
         --
         restart
         node a 4096 4 1.2#1
         exited 1.2#1 8",
        &expect![[r#"
            restart
                persist epoch 2
            node a 4096 4 1.2#1
                a: NEW -> RUNNING
                a <- registered
                a <- revoke 1.1
            exited 1.2#1 8
                1.2: LAUNCHED -> FAILED
                persist attempt 1.2 FAILED 8 counted
                a <- revoke 1.2
                1: ACCEPTED -> FAILED
                persist application 1 FAILED FAILED 8 'attempt 2 failed (2 of 2): its master's container ended with exit status 8'
                a <- ended 1
                delete staging 1
                a <- acknowledge 1.2#1
        "#]],
    );
}

#[test]
fn a_kill_is_carried_on() {
    check(
        "node a 4096 4
         submit
         started 1.1#1
         kill 1 now
         --
         restart
         node a 4096 4 1.1#1
         exited 1.1#1 -106
         live 30000",
        &expect![[r#"
            restart
                persist epoch 2
            node a 4096 4 1.1#1
                a: NEW -> RUNNING
                a <- registered
                a <- stop 1.1#1 -106 'killed by user ann'
            exited 1.1#1 -106
                1.1: LAUNCHED -> KILLED
                persist attempt 1.1 KILLED -106
                a <- revoke 1.1
                1: KILLING -> KILLED
                persist application 1 KILLED KILLED -106 'killed by user ann'
                a <- ended 1
                delete staging 1
                a <- acknowledge 1.1#1
            live 30000
        "#]],
    );
}

/// A kill ends when the last node on record is back, not when the time for nodes is over.
#[test]
fn a_kill_ends_when_all_nodes_are_back() {
    check(
        "node a 4096 4
         node b 4096 4
         submit
         started 1.1#1
         attach 1.1
         kill 1 now
         exited 1.1#1 -106
         submit unmanaged
         attach 2.1
         --
         restart
         node a 4096 4
         kill 2 wait
         node b 4096 4 2.1#1
         exited 2.1#1 -106",
        &expect![[r#"
            restart
                persist epoch 2
                delete staging 1
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            kill 2 wait
                persist kill 2
                2: RUNNING -> KILLING
                2.1: RUNNING -> KILLED
                persist attempt 2.1 KILLED -106
            node b 4096 4 2.1#1
                b: NEW -> RUNNING
                b <- registered
                b <- stop 2.1#1 -107 'its attempt is over, or the cluster gave its node up'
                b <- revoke 2.1
            exited 2.1#1 -106
                2: KILLING -> KILLED
                persist application 2 KILLED KILLED -106 'killed by user ann'
                a <- ended 2
                b <- ended 2
                delete staging 2
                reply killed
                b <- acknowledge 2.1#1
        "#]],
    );
}

/// What a node that was given up still runs is ended before a kill is said to be done.
#[test]
fn a_kill_waits_for_what_a_given_up_node_still_runs() {
    let mut world = ran("node a 4096 4
         submit
         started 1.1#1
         attach 1.1
         ask 1.1 1 1024 1
         started 1.1#2
         pass 30000
         node b 4096 4
         started 1.2#1");
    world.transcript.clear();
    world.run(
        "kill 1 wait
         node a 4096 4 1.1#1 1.1#2
         exited 1.2#1 -106
         exited 1.1#1 -107
         exited 1.1#2 -107",
    );
    expect![[r#"
        kill 1 wait
            persist kill 1
            1: ACCEPTED -> KILLING
            b <- stop 1.2#1 -106 'killed by user ann'
        node a 4096 4 1.1#1 1.1#2
            persist known a
            a: LOST -> RUNNING
            a <- registered
            a <- stop 1.1#1 -107 'node a:1 was not heard of for 30000 ms and is given up'
            a <- stop 1.1#2 -100 'its attempt is over'
            a <- revoke 1.1
            a <- revoke 1.1
        exited 1.2#1 -106
            1.2: LAUNCHED -> KILLED
            persist attempt 1.2 KILLED -106
            b <- revoke 1.2
            b <- acknowledge 1.2#1
        exited 1.1#1 -107
            a <- acknowledge 1.1#1
        exited 1.1#2 -107
            1: KILLING -> KILLED
            persist application 1 KILLED KILLED -106 'killed by user ann'
            a <- ended 1
            b <- ended 1
            delete staging 1
            reply killed
            a <- acknowledge 1.1#2
    "#]]
    .assert_eq(&world.transcript);
}

/// One that stays away delays a kill until it is given up; then it is not on record any more, and
/// the next start does not wait for it.
#[test]
fn a_node_that_was_given_up_is_not_waited_for() {
    check(
        "node a 4096 4
         node b 4096 4
         submit unmanaged
         attach 1.1
         --
         restart
         attach 1.1
         kill 1 wait
         node a 4096 4
         live 30000
         submit unmanaged
         attach 2.1
         restart
         attach 2.1
         node a 4096 4
         kill 2 wait",
        &expect![[r#"
            restart
                persist epoch 2
            attach 1.1
                1.1 <- registered
            kill 1 wait
                persist kill 1
                1: RUNNING -> KILLING
                1.1 <- shutdown 'killed by user ann'
                close
                1.1: RUNNING -> KILLED
                persist attempt 1.1 KILLED -106
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            live 30000
                persist forgotten b
                1: KILLING -> KILLED
                persist application 1 KILLED KILLED -106 'killed by user ann'
                delete staging 1
                reply killed
            submit unmanaged
                persist submitted 2
                2: NEW -> SUBMITTED
                2: SUBMITTED -> ACCEPTED
                persist started 2.1
                2.1: NEW -> LAUNCHED
                reply submitted 2 2.1
            attach 2.1
                persist registered 2.1
                2.1: LAUNCHED -> RUNNING
                2: ACCEPTED -> RUNNING
                2.1 <- registered
            restart
                persist epoch 3
                delete staging 1
            attach 2.1
                2.1 <- registered
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            kill 2 wait
                persist kill 2
                2: RUNNING -> KILLING
                2.1 <- shutdown 'killed by user ann'
                close
                2.1: RUNNING -> KILLED
                persist attempt 2.1 KILLED -106
                2: KILLING -> KILLED
                persist application 2 KILLED KILLED -106 'killed by user ann'
                a <- ended 2
                delete staging 2
                reply killed
        "#]],
    );
}

/// What no node lists is still taken over when it is started, although all nodes are back: a
/// restart ends no container.
#[test]
fn nodes_that_are_back_still_start_former_grants() {
    check(
        "node a 4096 4
         submit unmanaged
         attach 1.1
         ask 1.1 1 512 1
         --
         restart
         node a 4096 4
         attach 1.1 1.1#1
         live 25000
         beat 1.1
         started 1.1#1
         kill 1 now",
        &expect![[r#"
            restart
                persist epoch 2
            node a 4096 4
                a: NEW -> RUNNING
                a <- registered
            attach 1.1 1.1#1
                1.1 <- registered
            live 25000
            beat 1.1
            started 1.1#1
            kill 1 now
                persist kill 1
                1: RUNNING -> KILLING
                1.1 <- shutdown 'killed by user ann'
                close
                1.1: RUNNING -> KILLED
                persist attempt 1.1 KILLED -106
                1: KILLING -> KILLED
                persist application 1 KILLED KILLED -106 'killed by user ann'
                a <- ended 1
                delete staging 1
                reply killed
        "#]],
    );
}

#[test]
fn a_farewell_is_remembered() {
    check(
        "node a 4096 4
         submit
         started 1.1#1
         attach 1.1
         finish 1.1 3
         --
         restart
         attach 1.1
         finish 1.1 4
         node a 4096 4 1.1#1=3",
        &expect![[r#"
            restart
                persist epoch 2
            attach 1.1
                1.1 <- registered
            finish 1.1 4
                1.1 <- finish acknowledged
            node a 4096 4 1.1#1=3
                a: NEW -> RUNNING
                a <- registered
                1.1: FINISHING -> FINISHED
                persist attempt 1.1 FINISHED 3
                1.1 <- shutdown 'it is over'
                close
                a <- revoke 1.1
                1: FINISHING -> FINISHED
                persist application 1 FINISHED SUCCEEDED 3 ''
                a <- ended 1
                delete staging 1
                a <- acknowledge 1.1#1
                a <- ended 1
        "#]],
    );
}

#[test]
fn a_client_has_its_lease_again() {
    check(
        "submit unmanaged\nattach 1.1\n--\nrestart\npass 9999\npass 1",
        &expect![[r#"
            restart
                persist epoch 2
            pass 9999
            pass 1
                1.1: RUNNING -> FAILED
                persist attempt 1.1 FAILED -100 counted
                1: RUNNING -> FAILED
                persist application 1 FAILED FAILED -100 'its client went away and was not back within 10000 ms'
                delete staging 1
        "#]],
    );
}

/// The journal may be cut between any two records.
#[test]
fn every_prefix_of_a_journal_leads_on() {
    let script = "node a 4096 4
         submit attempts=2
         started 1.1#1
         attach 1.1
         exited 1.1#1 7
         started 1.2#1
         attach 1.2
         finish 1.2 0
         exited 1.2#1 0
         submit unmanaged
         attach 2.1
         finish 2.1 0
         submit
         kill 3 now
         submit attempts=1
         exited 4.1#1 9
         submit
         kill 5 now
         exited 5.1#1 -106";
    let mut whole = World::new(Config::default());
    whole.run(script);
    for length in 0..=whole.journal.len() {
        let mut world = World::new(Config::default());
        world.journal = whole.journal[..length].to_vec();
        world.quiet = true;
        world.restart();
        // Nobody comes: every node and client on record is given up, what waits has no node.
        world.pass(200_000);
        for sequence in 1..=5 {
            let Some(report) = world.rm.application(application(sequence)) else {
                continue;
            };
            let waits = report
                .attempts
                .last()
                .is_some_and(|attempt| attempt.node.is_none());
            assert!(report.state.is_ended() || waits, "{length}: {report:?}");
        }
        // Compacted, it is the same.
        let mut compacted = World::new(Config::default());
        compacted.journal = world.rm.snapshot();
        compacted.quiet = true;
        compacted.restart();
        for sequence in 1..=5 {
            let (mut old, mut new) = (
                world.rm.application(application(sequence)),
                compacted.rm.application(application(sequence)),
            );
            for report in [&mut old, &mut new].into_iter().flatten() {
                // An attempt that waits is counted when it is launched.
                report.attempts.retain(|attempt| attempt.node.is_some());
            }
            assert_eq!(old, new, "{length}");
        }
    }
}
