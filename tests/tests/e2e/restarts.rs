//! kill -9 of the daemons under running applications.

use bobbin_tests::{Cluster, skip_without_root};

#[test]
fn daemons_die_and_nothing_is_lost() {
    if skip_without_root("daemons_die_and_nothing_is_lost") {
        return;
    }
    let cluster = Cluster::up(2);
    let script = "i=0; while [ ! -e $BOBBIN_SHARED_DIR/stop ]; do i=$((i+1)); echo $i; sleep 0.02; done; echo $$ >> $BOBBIN_SHARED_DIR/runs; exit 9";
    let waiting = cluster.spawn(&[
        "submit",
        "--deploy-mode",
        "cluster",
        "--max-attempts",
        "1",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let id = bobbin_tests::wait_for("the application to run", 60, || {
        let list = cluster
            .run(&["app", "list", "-o", "json"])
            .expect_code(0)
            .json();
        let id = list[0]["id"].as_str().unwrap_or_default().to_owned();
        if list[0]["state"] == "RUNNING" {
            Ok(id)
        } else {
            Err(list.to_string())
        }
    });
    cluster.wait_log(&id, "20\n");
    let acknowledged: Vec<String> = (0..50)
        .map(|n| {
            cluster.submit_detached(
                &["--driver-memory", "32m"],
                &format!("echo {n} >> $BOBBIN_SHARED_DIR/ledger"),
            )
        })
        .collect();
    cluster.kill_daemons("");
    cluster.up_again(2);
    for other in &acknowledged {
        let status = cluster.wait_state(other, "FINISHED");
        assert_eq!(status["final_status"], "SUCCEEDED", "{status}");
    }
    let ledger = std::fs::read_to_string(cluster.dir().join("shared/ledger")).unwrap();
    let mut ran: Vec<u32> = ledger.lines().map(|l| l.parse().unwrap()).collect();
    ran.sort_unstable();
    assert_eq!(ran, (0..50).collect::<Vec<_>>(), "each ran once");

    let status = cluster.status(&id);
    assert_eq!(status["state"], "RUNNING", "{status}");
    std::fs::write(cluster.dir().join("shared/stop"), "").unwrap();
    let status = cluster.wait_state(&id, "FAILED");
    assert_eq!(status["exit_status"], 9, "{status}");
    assert_eq!(status["attempts"].as_array().unwrap().len(), 1, "{status}");
    let log = cluster
        .run(&["app", "logs", &id, "--driver", "--file", "stdout"])
        .expect_code(0)
        .stdout;
    let lines: Vec<u32> = log.lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(
        lines,
        (1..=u32::try_from(lines.len()).unwrap()).collect::<Vec<_>>(),
        "a gap"
    );
    let runs = std::fs::read_to_string(cluster.dir().join("shared/runs")).unwrap();
    assert_eq!(runs.lines().count(), 1, "the driver ran once");
    // The submit that waited all the while shows the same bytes and the driver's status.
    let run = bobbin_tests::Run::from(waiting.wait_with_output().unwrap()).expect_code(9);
    assert_eq!(run.stdout, log);
}

#[test]
fn a_container_that_ends_while_its_agent_is_dead_keeps_its_status() {
    if skip_without_root("a_container_that_ends_while_its_agent_is_dead_keeps_its_status") {
        return;
    }
    let cluster = Cluster::up(1);
    let script = "echo up; until [ -e $BOBBIN_SHARED_DIR/stop ]; do sleep 0.02; done; touch $BOBBIN_SHARED_DIR/over; exit 5";
    let id = cluster.submit_detached(&["--max-attempts", "1"], script);
    cluster.wait_log(&id, "up");
    cluster.kill_daemons("node");
    std::fs::write(cluster.dir().join("shared/stop"), "").unwrap();
    bobbin_tests::wait_for("the driver's end", 30, || {
        if cluster.dir().join("shared/over").exists() {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    });
    cluster.up_again(1);
    let status = cluster.wait_state(&id, "FAILED");
    assert_eq!(status["exit_status"], 5, "{status}");
}

#[test]
fn the_resource_manager_knows_everything_after_its_death() {
    if skip_without_root("the_resource_manager_knows_everything_after_its_death") {
        return;
    }
    let cluster = Cluster::up(1);
    let _ = cluster.submit(&["--name", "good"], "exit 0").expect_code(0);
    let _ = cluster
        .submit(&["--name", "bad", "--max-attempts", "2"], "exit 4")
        .expect_code(4);
    let before = cluster
        .run(&["app", "list", "-o", "json"])
        .expect_code(0)
        .json();
    let last = cluster.status("@last");
    cluster.kill_daemons("resourcemanager");
    cluster.up_again(1);
    assert_eq!(
        cluster
            .run(&["app", "list", "-o", "json"])
            .expect_code(0)
            .json(),
        before
    );
    assert_eq!(cluster.status("@last"), last);
}
