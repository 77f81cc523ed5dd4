//! Limits of containers, and neighbors that misbehave.

use bobbin_tests::{Cluster, skip_without_root};

#[test]
fn above_its_memory_a_driver_ends_with_104_and_the_words() {
    if skip_without_root("above_its_memory_a_driver_ends_with_104_and_the_words") {
        return;
    }
    let cluster = Cluster::up(1);
    let args = [
        "submit",
        "--deploy-mode",
        "cluster",
        "--driver-memory",
        "64m",
        "--max-attempts",
        "1",
        "--",
        "/usr/bin/python3",
        "-c",
        "x=bytearray(300<<20)",
    ];
    let run = cluster.run(&args).expect_code(137);
    let status = cluster.status("@last");
    assert_eq!(status["state"], "FAILED", "{status}");
    assert_eq!(status["exit_status"], -104, "{status}");
    let words = status["diagnostics"].as_str().unwrap();
    assert!(words.contains("physical memory used"), "{words}");
    assert!(
        words.contains("python3"),
        "its processes are named: {words}"
    );
    assert!(run.stderr.contains("physical memory used"), "{run:?}");
    // The cluster is well afterwards.
    let run = cluster.submit(&[], "echo well").expect_code(0);
    assert_eq!(run.stdout, "well\n");
}

#[test]
fn bombs_leave_the_daemons_and_the_neighbors_well() {
    if skip_without_root("bombs_leave_the_daemons_and_the_neighbors_well") {
        return;
    }
    let cluster = Cluster::up(1);
    let before = cluster.daemons();
    let small = ["--driver-memory", "64m", "--max-attempts", "1"];
    let neighbor = cluster.submit_detached(
        &small,
        "echo up; until [ -e $BOBBIN_SHARED_DIR/stop ]; do sleep 0.1; done",
    );
    cluster.wait_log(&neighbor, "up");
    let fork = cluster.submit_detached(&small, "echo forking; b() { b | b & b; }; b; sleep 1000");
    let hungry = cluster.submit_detached(
        &small,
        "echo hungry; exec /usr/bin/python3 -c 'x=[]\nwhile True: x.append(bytearray(1<<20))'",
    );
    let busy = cluster.submit_detached(&small, "echo busy; while :; do :; done");
    for (id, word) in [(&fork, "forking"), (&busy, "busy")] {
        cluster.wait_log(id, word);
    }
    let status = cluster.wait_state(&hungry, "FAILED");
    assert_eq!(status["exit_status"], -104, "{status}");
    // Beside all of them a new application still runs to its end.
    let run = cluster.submit(&small, "echo beside").expect_code(0);
    assert_eq!(run.stdout, "beside\n");
    let _ = cluster.run(&["app", "kill", &fork, &busy]).expect_code(0);
    assert_eq!(cluster.status(&neighbor)["state"], "RUNNING");
    std::fs::write(cluster.dir().join("shared/stop"), "").unwrap();
    let status = cluster.wait_state(&neighbor, "FINISHED");
    assert_eq!(status["final_status"], "SUCCEEDED", "{status}");
    assert_eq!(cluster.daemons(), before, "a daemon was started anew");
}
