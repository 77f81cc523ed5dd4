//! Who gets what room, in which order, and how it comes back, as scripts.

use expect_test::expect;

use super::world::{World, application, ask, attempt, check, ran, submission};
use crate::{Config, Event};

#[test]
fn a_released_container_holds_its_room_until_its_node_says_so() {
    check(
        "node a 2048 4
         submit
         started 1.1#1
         attach 1.1
         --
         ask 1.1 1 1024 1
         release 1.1 1.1#2
         ask 1.1 1 1024 1
         exited 1.1#2 -105",
        &expect![[r#"
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
         --
         submit attempts=1
         live 595000
         live 5000
         exited 1.1#1 -100",
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
         --
         ask 1.1 3 512 1
         started 1.1#2
         master-lost 1.1
         exited 1.1#2 9
         ask 1.1 1 512 1
         attach 1.1 1.1#2 1.1#3 5.1#9",
        &expect![[r#"
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
         --
         attach 1.1
         attach 1.2
         attach 2.1",
        &expect![[r#"
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
         --
         ill a disk-full
         submit
         ill a",
        &expect![[r#"
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
         --
         submit memory=3000
         submit memory=4000
         submit memory=1000
         exited 1.1#1 7
         kill 1 now
         exited 1.2#1 -106",
        &expect![[r#"
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
                persist known a
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
         --
         ask-on 1.1 b relaxed 1 512
         ask-on 1.1 c relaxed 1 512
         ask-on 1.1 b strict 1 4096
         ask-on 1.1 c strict 1 512
         node c 1024 1
         ask-on 1.1 /far strict 1 512
         exited 1.1#1 0",
        &expect![[r#"
            ask-on 1.1 b relaxed 1 512
                1.1 <- granted 1.1#1@b
            ask-on 1.1 c relaxed 1 512
                1.1 <- granted 1.1#2@a
            ask-on 1.1 b strict 1 4096
            ask-on 1.1 c strict 1 512
            node c 1024 1
                persist known c
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
         --
         ask 1.1 6 512 1",
        &expect![[r#"
            ask 1.1 6 512 1
                1.1 <- granted 1.1#1@a 1.1#2@b 1.1#3@c 1.1#4@a 1.1#5@b 1.1#6@a
        "#]],
    );
}

#[test]
fn masters_may_take_half_of_the_cluster() {
    let mut world = ran("node a 4096 8\nsubmit\nsubmit\nsubmit");
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
            persist known b
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
