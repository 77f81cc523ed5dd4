//! Deploy modes, exit statuses, executors and attempts.

use bobbin_tests::{Cluster, RunExt, bobbin, skip_without_root, wait_for};

#[test]
fn a_driver_prints_its_line_and_its_status_is_submits() {
    if skip_without_root("a_driver_prints_its_line_and_its_status_is_submits") {
        return;
    }
    let cluster = Cluster::up(2);
    let script = "echo id=$BOBBIN_APPLICATION_ID; exit 7";
    for mode in ["cluster", "client"] {
        let flags = [
            "submit",
            "--deploy-mode",
            mode,
            "--max-attempts",
            "1",
            "--",
            "sh",
            "-c",
            script,
        ];
        let run = cluster.run(&flags).expect_code(7);
        let id = run
            .stdout
            .trim()
            .strip_prefix("id=")
            .expect("the driver's line")
            .to_owned();
        let status = cluster.status(&id);
        // A client-mode driver says its own end, as any unmanaged master in YARN.
        let state = if mode == "cluster" {
            "FAILED"
        } else {
            "FINISHED"
        };
        assert_eq!(status["state"], state, "{status}");
        assert_eq!(status["final_status"], "FAILED", "{status}");
        assert_eq!(status["exit_status"], 7, "{status}");
        for field in [
            "name",
            "user",
            "queue",
            "diagnostics",
            "submitted_ms",
            "started_ms",
            "finished_ms",
        ] {
            assert!(!status[field].is_null(), "{field} in {status}");
        }
    }
    let list = cluster
        .run(&["app", "list", "-o", "json"])
        .expect_code(0)
        .json();
    assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
    assert!(list[0].get("attempts").is_none(), "{list}");
}

#[test]
fn local_mode_needs_no_daemon() {
    let run = bobbin()
        .args(["submit", "--master", "local[2]", "--", "sh", "-c"])
        .arg("echo id=$BOBBIN_APPLICATION_ID; exit 7")
        .run()
        .expect_code(7);
    assert!(run.stdout.starts_with("id=application_"), "{run:?}");
    let run = bobbin()
        .args(["submit", "--master", "local[2]", "--", "sh", "-c"])
        .arg("seq 1 20 | bobbin map -- sh -c 'echo $(( {} * {} ))'")
        .env("PATH", path_with_bobbin())
        .run()
        .expect_code(0);
    assert_eq!(run.stdout, squares(20), "{run:?}");
}

fn path_with_bobbin() -> String {
    let folder = bobbin_tests::program("bobbin")
        .parent()
        .unwrap()
        .display()
        .to_string();
    format!("{folder}:{}", std::env::var("PATH").unwrap())
}

fn squares(to: u32) -> String {
    (1..=to).map(|n| format!("{}\n", n * n)).collect()
}

#[test]
fn tasks_run_on_executors_of_both_nodes() {
    if skip_without_root("tasks_run_on_executors_of_both_nodes") {
        return;
    }
    let cluster = Cluster::up(2);
    let flags = ["--num-executors", "2", "--executor-memory", "64m"];
    let run = cluster
        .submit(
            &flags,
            r#"seq 1 20 | bobbin map -- sh -c "echo \$(( {} * {} ))""#,
        )
        .expect_code(0);
    assert_eq!(run.stdout, squares(20), "{run:?}");

    // Each task waits until the other has started, so both executors are up and used.
    let script = r#"mkdir -p $BOBBIN_SHARED_DIR/meet; seq 1 2 | bobbin map -- sh -c '
        touch $BOBBIN_SHARED_DIR/meet/{}
        until [ -e $BOBBIN_SHARED_DIR/meet/1 ] && [ -e $BOBBIN_SHARED_DIR/meet/2 ]; do :; done
        touch /etc/mine 2>/dev/null && etc=writable || etc=protected
        echo $BOBBIN_CONTAINER_ID $BOBBIN_NODE_ID $(id -u) $(readlink /proc/self/ns/pid) $etc'"#;
    let run = cluster.submit(&flags, script).expect_code(0);
    let lines: Vec<Vec<&str>> = run.stdout.lines().map(|l| l.split(' ').collect()).collect();
    assert_eq!(lines.len(), 2, "{run:?}");
    let host = std::fs::read_link("/proc/self/ns/pid")
        .unwrap()
        .display()
        .to_string();
    for line in &lines {
        assert_ne!(line[2], "0", "a task ran as root: {run:?}");
        assert_ne!(
            line[3], host,
            "a task shares the host's pid namespace: {run:?}"
        );
        assert_eq!(line[4], "protected", "{run:?}");
    }
    for field in [0, 1, 3] {
        assert_ne!(
            lines[0][field], lines[1][field],
            "executors share field {field}: {run:?}"
        );
    }
}

#[test]
fn executors_come_with_the_load_and_go_when_idle() {
    if skip_without_root("executors_come_with_the_load_and_go_when_idle") {
        return;
    }
    let cluster = Cluster::up(2);
    let mut flags = vec!["--executor-memory", "96m", "--max-attempts", "1"];
    for setting in [
        "dynamic-allocation.enabled=true",
        "dynamic-allocation.max-executors=3",
        "dynamic-allocation.schedule-backlog-timeout=50ms",
        "dynamic-allocation.executor-idle-timeout=500ms",
    ] {
        flags.extend(["--conf", setting]);
    }
    // No task ends before three run at once; then the driver waits until their executors are gone.
    let script = r#"cd $BOBBIN_SHARED_DIR; mkdir -p load; seq 1 3 | bobbin map -- sh -c '
        cd $BOBBIN_SHARED_DIR; touch load/{}
        until [ $(ls load | wc -l) = 3 ]; do :; done; echo {}'
        echo mapped; until [ -e go ]; do :; done"#;
    let id = cluster.submit_detached(&flags, script);
    cluster.wait_log(&id, "1\n2\n3\nmapped\n");
    wait_for("all executors to go", 30, || {
        let containers = cluster
            .run(&["app", "containers", &id, "-o", "json"])
            .json();
        let live = |c: &&serde_json::Value| c["exit_status"].is_null();
        let rows = containers.as_array().map_or(&[][..], Vec::as_slice);
        match rows.iter().filter(live).count() {
            1 => Ok(()),
            _ => Err(containers.to_string()),
        }
    });
    std::fs::write(cluster.dir().join("shared/go"), "").unwrap();
    let _ = cluster.wait_state(&id, "FINISHED");
}

#[test]
fn a_failed_driver_is_relaunched() {
    if skip_without_root("a_failed_driver_is_relaunched") {
        return;
    }
    let cluster = Cluster::up(1);
    let run = cluster
        .submit(
            &["--max-attempts", "2"],
            "echo attempt $BOBBIN_ATTEMPT; test $BOBBIN_ATTEMPT -ge 2",
        )
        .expect_code(0);
    assert_eq!(run.stdout, "attempt 1\nattempt 2\n", "{run:?}");
    assert!(
        run.stderr.contains("attempt 1"),
        "a line on stderr says so: {run:?}"
    );
    let status = cluster.status("@last");
    let attempts = status["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{status}");
    assert_eq!(attempts[0]["state"], "FAILED", "{status}");
    assert_eq!(attempts[0]["exit_status"], 1, "{status}");
    assert_eq!(attempts[1]["state"], "FINISHED", "{status}");
    assert_eq!(status["final_status"], "SUCCEEDED", "{status}");
    let run = cluster.run(&["app", "attempts", "@last"]).expect_code(0);
    assert!(
        run.stdout.contains("FAILED") && run.stdout.contains("FINISHED"),
        "{run:?}"
    );
}

#[test]
fn a_lost_executor_is_replaced_and_its_tasks_run_elsewhere() {
    if skip_without_root("a_lost_executor_is_replaced_and_its_tasks_run_elsewhere") {
        return;
    }
    let cluster = Cluster::up(2);
    // The first run of task 3 ends its own executor: its parent is the executor.
    let script = r#"seq 1 8 | bobbin map -- sh -c '
        if [ {} = 3 ] && mkdir $BOBBIN_SHARED_DIR/once 2>/dev/null; then kill -9 $PPID; fi; echo {}'"#;
    let run = cluster
        .submit(
            &["--num-executors", "2", "--executor-memory", "64m"],
            script,
        )
        .expect_code(0);
    assert_eq!(run.stdout, "1\n2\n3\n4\n5\n6\n7\n8\n", "{run:?}");
}

#[test]
fn a_task_that_always_fails_fails_the_map() {
    if skip_without_root("a_task_that_always_fails_fails_the_map") {
        return;
    }
    let cluster = Cluster::up(1);
    let script =
        "seq 1 3 | bobbin map -- sh -c 'echo {}; test {} != 2'; echo map ended with $?; exit 3";
    let run = cluster
        .submit(
            &[
                "--num-executors",
                "1",
                "--max-attempts",
                "1",
                "--executor-memory",
                "64m",
            ],
            script,
        )
        .expect_code(3);
    assert!(!run.stdout.contains("ended with 0"), "{run:?}");
    let run = cluster.submit(&["--max-attempts", "1"], "echo 1 | bobbin map -- echo {}");
    assert_ne!(run.code, 0, "{run:?}");
    assert!(
        run.stderr.contains("--num-executors"),
        "the cure is named: {run:?}"
    );
}

#[test]
fn shipped_files_and_archives_are_beside_the_driver() {
    if skip_without_root("shipped_files_and_archives_are_beside_the_driver") {
        return;
    }
    let cluster = Cluster::up(1);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data.txt"), "shipped\n").unwrap();
    std::fs::write(
        folder.path().join("driver"),
        "#!/bin/sh\ncat data.txt lib.tgz/inner\n",
    )
    .unwrap();
    std::fs::write(folder.path().join("inner"), "unpacked\n").unwrap();
    let script = "chmod +x driver && tar -czf lib.tgz inner && exec \"$BOBBIN\" submit \
                  --deploy-mode cluster --files data.txt --archives lib.tgz -- ./driver";
    let run = cluster
        .sh(script)
        .current_dir(folder.path())
        .env("BOBBIN", bobbin_tests::program("bobbin"))
        .run()
        .expect_code(0);
    assert_eq!(run.stdout, "shipped\nunpacked\n", "{run:?}");

    // Executors have the same files, in both modes.
    for mode in ["cluster", "client"] {
        let script = format!(
            "exec \"$BOBBIN\" submit --deploy-mode {mode} --num-executors 1 --executor-memory 64m \
             --files data.txt --archives lib.tgz -- sh -c 'echo 1 | bobbin map -- cat data.txt lib.tgz/inner'"
        );
        let run = cluster
            .sh(&script)
            .current_dir(folder.path())
            .env("BOBBIN", bobbin_tests::program("bobbin"))
            .run()
            .expect_code(0);
        assert_eq!(run.stdout, "shipped\nunpacked\n", "{mode}: {run:?}");
    }
}
