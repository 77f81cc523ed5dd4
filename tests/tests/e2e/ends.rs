//! Ends: kill, leases of clients, and what must not stay behind.

use std::process::Stdio;

use bobbin_tests::{Cluster, RunExt, skip_without_root, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Processes of the host whose environment holds `mark`.
fn processes_with(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(mark) {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    found
}

#[test]
fn kill_ends_children_in_sessions_of_their_own() {
    if skip_without_root("kill_ends_children_in_sessions_of_their_own") {
        return;
    }
    let cluster = Cluster::up(1);
    let script = "for i in 1 2 3; do setsid sh -c 'trap \"\" TERM; while :; do sleep 1000; done' & done; echo up; wait";
    let id = cluster.submit_detached(&[], script);
    cluster.wait_log(&id, "up");
    assert!(processes_with(&id).len() >= 4, "{:?}", processes_with(&id));
    let _ = cluster.run(&["app", "kill", &id]).expect_code(0);
    assert_eq!(
        processes_with(&id),
        Vec::<String>::new(),
        "left when kill returned"
    );
    let status = cluster.status(&id);
    assert_eq!(status["state"], "KILLED", "{status}");
    assert_eq!(status["final_status"], "KILLED", "{status}");
    let _ = cluster.run(&["app", "kill", &id]).expect_code(0);
    // Waiting for it says how it ended.
    assert_ne!(cluster.run(&["app", "wait", &id]).code, 0);
}

#[test]
fn a_waiting_submit_of_a_killed_application_ends_with_137() {
    if skip_without_root("a_waiting_submit_of_a_killed_application_ends_with_137") {
        return;
    }
    let cluster = Cluster::up(1);
    let submit = cluster.spawn(&[
        "submit",
        "--deploy-mode",
        "cluster",
        "--",
        "sh",
        "-c",
        "echo up; sleep 1000",
    ]);
    let id = running_application(&cluster);
    cluster.wait_log(&id, "up");
    let _ = cluster.run(&["app", "kill", &id]).expect_code(0);
    let run = bobbin_tests::Run::from(submit.wait_with_output().unwrap()).expect_code(137);
    assert_eq!(run.stdout, "up\n", "{run:?}");
}

/// The id of the only application, once it runs.
fn running_application(cluster: &Cluster) -> String {
    wait_for("an application to run", 60, || {
        let list = cluster
            .run(&["app", "list", "-o", "json"])
            .expect_code(0)
            .json();
        if list[0]["state"] == "RUNNING" {
            Ok(list[0]["id"].as_str().unwrap().to_owned())
        } else {
            Err(list.to_string())
        }
    })
}

#[test]
fn interrupted_submit_kills_its_application() {
    if skip_without_root("interrupted_submit_kills_its_application") {
        return;
    }
    let cluster = Cluster::up(1);
    let submit = cluster.spawn(&["submit", "--deploy-mode", "cluster", "--", "sleep", "1000"]);
    let id = running_application(&cluster);
    kill(
        Pid::from_raw(submit.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let run = bobbin_tests::Run::from(submit.wait_with_output().unwrap());
    assert_ne!(run.code, 0, "{run:?}");
    let status = cluster.wait_state(&id, "KILLED");
    assert_eq!(status["final_status"], "KILLED", "{status}");
}

#[test]
fn a_reader_that_leaves_ends_the_following_and_the_submit() {
    if skip_without_root("a_reader_that_leaves_ends_the_following_and_the_submit") {
        return;
    }
    let cluster = Cluster::up(1);
    let endless = "sh -c 'while :; do echo y; sleep 0.01; done'";
    let run = cluster
        .sh(&format!(
            "bobbin submit --deploy-mode cluster -- {endless} | head -3"
        ))
        .run()
        .expect_code(0);
    assert_eq!(run.stdout, "y\ny\ny\n", "{run:?}");
    let _ = cluster.wait_state(cluster.status("@last")["id"].as_str().unwrap(), "KILLED");

    let id = cluster.submit_detached(&[], "while :; do echo y; sleep 0.01; done");
    let run = cluster
        .sh(&format!("bobbin app logs -f {id} | head -3"))
        .run()
        .expect_code(0);
    assert_eq!(run.stdout, "y\ny\ny\n", "{run:?}");
    assert_eq!(
        cluster.status(&id)["state"],
        "RUNNING",
        "only the following has ended"
    );
    let _ = cluster.run(&["app", "kill", &id]).expect_code(0);
}

#[test]
fn a_killed_client_leaves_nothing_within_the_lease() {
    if skip_without_root("a_killed_client_leaves_nothing_within_the_lease") {
        return;
    }
    let cluster = Cluster::up(1);
    let modes: [&[&str]; 2] = [
        &[
            "--deploy-mode",
            "client",
            "--num-executors",
            "1",
            "--executor-memory",
            "64m",
        ],
        &["--deploy-mode", "cluster", "--tie-to-client"],
    ];
    for flags in modes {
        // The script's own sleep must not keep the harness's pipes open.
        let mut submit = cluster
            .bobbin(&["submit"])
            .args(flags)
            .args([
                "--",
                "sh",
                "-c",
                "echo 1 | bobbin map -- echo {} ; exec sleep 1000",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let id = running_application(&cluster);
        kill(
            Pid::from_raw(submit.id().try_into().unwrap()),
            Signal::SIGKILL,
        )
        .unwrap();
        submit.wait().unwrap();
        wait_for(&format!("{flags:?}: {id} to be gone"), 25, || {
            let left = processes_with(&id);
            let state = cluster.status(&id)["state"].as_str().unwrap().to_owned();
            if left.is_empty() && ["FAILED", "KILLED"].contains(&state.as_str()) {
                Ok(())
            } else {
                Err(format!("{state} {left:?}"))
            }
        });
    }
}

#[test]
fn down_is_idempotent_and_up_on_a_living_cluster_says_so() {
    if skip_without_root("down_is_idempotent_and_up_on_a_living_cluster_says_so") {
        return;
    }
    let cluster = Cluster::up(1);
    let before = cluster.daemons();
    cluster.up_again(1);
    assert_eq!(cluster.daemons(), before);
    let _ = cluster.submit_detached(&["--num-executors", "1"], "setsid sleep 1000 & sleep 1000");
    cluster.down();
    let _ = bobbin_tests::bobbin()
        .args(["down", "--dir"])
        .arg(cluster.dir())
        .run()
        .expect_code(0);
    // And up again: the same cluster with its history.
    cluster.up_again(1);
    let list = cluster
        .run(&["app", "list", "-o", "json"])
        .expect_code(0)
        .json();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
}
