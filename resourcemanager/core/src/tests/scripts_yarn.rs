//! What YARN's masters do that Bobbin's own do not: scripts with their transcripts.

use expect_test::expect;

use super::world::{World, attempt, check, ran};

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
         --
         started 2.1#1
         attach 2.1
         blacklist 1.1 +a
         ask 1.1 1 1024 1
         ask 2.1 1 1024 1
         exited 2.1#2 0
         blacklist 1.1 -a",
        &expect![[r#"
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
fn a_master_that_keeps_moving_does_not_fill_the_journal() {
    let mut world = ran(TWO_NODES);
    let recorded = |world: &World| world.journal.len();
    let before = recorded(&world);
    for number in 0..200 {
        let attempt = attempt(1, 1);
        let session = world.master_sessions[&attempt];
        world.handle(crate::Event::MasterHeartbeat {
            attempt,
            session,
            progress_permille: 1,
            tracking_url: Some(format!("http://m:{number}")),
        });
    }
    assert_eq!(recorded(&world) - before, 99);
    let report = world.rm.attempt_report(attempt(1, 1)).unwrap();
    assert_eq!(report.tracking_url, "http://m:199");
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
fn kept_containers_are_handed_on() {
    check(
        "node a 4096 4
         node b 4096 4
         submit keep attempts=3
         started 1.1#1
         attach 1.1
         --
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
         --
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
         --
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
         --
         submit yarn attempts=1
         started 1.1#1
         live 300000
         attach-yarn 1.1
         live 55000
         beat 1.1
         live 55000
         live 10000",
        &expect![[r#"
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
         --
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
         --
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
         exited 1.1#2 0
         restart
         node a 4096 4 1.1#1 1.1#3
         attach 1.1 1.1#3
         resized 1.1#3 2048
         update 1.1 less 1.1#3 7 1536
         resized 1.1#3 1536
         update 1.1 less 1.1#3 7 1024",
        &expect![[r#"
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
            restart
                persist epoch 2
            node a 4096 4 1.1#1 1.1#3
                a: NEW -> RUNNING
                a <- registered
            attach 1.1 1.1#3
                1.1 <- registered
            resized 1.1#3 2048
            update 1.1 less 1.1#3 7 1536
                a <- resize 1.1#3 v8 to 1536 MiB, 1 vcore
                1.1 <- updated Decrease 1.1#3 v8 1536 MiB, 1 vcore
            resized 1.1#3 1536
            update 1.1 less 1.1#3 7 1024
                1.1 <- refused: container_e01_1000_0001_01_000003 is at version 8, not 7
        "#]],
    );
}

#[test]
fn a_wish_is_not_too_large_while_its_node_is_awaited() {
    check(
        "node a 4096 4
         node b 8192 4
         submit yarn
         started 1.1#1
         attach-yarn 1.1
         --
         restart
         node a 4096 4 1.1#1
         attach-yarn 1.1
         ask 1.1 1 6000 1
         node b 8192 4
         ask 1.1 1 9000 1",
        &expect![[r#"
            restart
                persist epoch 2
            node a 4096 4 1.1#1
                a: NEW -> RUNNING
                a <- registered
            attach-yarn 1.1
                1.1 <- registered
            ask 1.1 1 6000 1
            node b 8192 4
                b: NEW -> RUNNING
                b <- registered
                1.1 <- granted e2.1.1#1@b
            ask 1.1 1 9000 1
                1.1 <- refused: 9000 MiB, 1 vcore is more than any node has; the largest nodes have 8192 MiB, 4 vcores (kind by kind, 2 nodes)
        "#]],
    );
}
