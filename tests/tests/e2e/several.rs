//! Many applications with one command, and submissions whose words come from files.

use bobbin_tests::{Cluster, skip_without_root};

/// Ids of a list, newest first.
fn listed(cluster: &Cluster, conditions: &[&str]) -> Vec<String> {
    let run = cluster.run(&[&["app", "list", "-o", "json"][..], conditions].concat());
    let list = run.expect_code(0).json();
    let ids = list.as_array().unwrap().iter();
    ids.map(|a| a["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn conditions_choose_what_is_listed_and_killed() {
    if skip_without_root("conditions_choose_what_is_listed_and_killed") {
        return;
    }
    let cluster = Cluster::up(1);
    let small = ["--driver-memory", "32m"];
    let with = |tags: &str, name: &str| {
        let flags = [&small[..], &["--tags", tags, "--name", name]].concat();
        cluster.submit_detached(&flags, "sleep 1000")
    };
    let one = with("hourly,etl", "one");
    let two = with("Hourly", "two");
    let three = with("daily", "three");
    assert_eq!(listed(&cluster, &["--tag", "hourly"]), [two.as_str(), &one]);
    assert_eq!(
        listed(&cluster, &["--tag", "etl,daily"]),
        [three.as_str(), &one]
    );
    assert_eq!(
        listed(&cluster, &["--tag", "hourly", "--name", "one"]),
        [one.as_str()]
    );
    assert_eq!(
        listed(&cluster, &["--type", "bobbin", "--limit", "1"]),
        [three.as_str()]
    );
    for nothing in [
        ["--type", "SPARK"],
        ["--queue", "night"],
        ["--user", "daemon"],
        ["--state", "FINISHED"],
        ["--name", "on"],
    ] {
        assert_eq!(listed(&cluster, &nothing), [""; 0], "{nothing:?}");
    }

    let none = cluster
        .run(&["app", "kill", "--tag", "weekly"])
        .expect_code(0);
    assert!(
        none.stderr.contains("nothing that has not ended"),
        "{none:?}"
    );
    let killed = cluster.run(&["app", "kill", "--tag", "HOURLY", "--queue", "default"]);
    let killed = killed.expect_code(0);
    for id in [&one, &two] {
        assert!(
            killed.stderr.contains(&format!("{id} is killed")),
            "{killed:?}"
        );
        assert_eq!(cluster.status(id)["state"], "KILLED");
    }
    assert_eq!(
        listed(&cluster, &["--state", "RUNNING,ACCEPTED"]),
        [three.as_str()]
    );
    let mixed = cluster.run(&["app", "kill", &three, "--tag", "daily"]);
    let _ = mixed.expect_code(2);
    let _ = cluster.run(&["app", "kill"]).expect_code(2);

    let both = cluster
        .run(&["app", "status", &one, &two, "-o", "json"])
        .expect_code(0)
        .json();
    assert_eq!(both[1]["id"], two.as_str(), "{both}");
    let _ = cluster
        .run(&["app", "kill", "--user", "nobody"])
        .expect_code(0);
    let fine = cluster.submit_detached(&small, "true");
    let _ = cluster.run(&["app", "wait", &fine, &three]).expect_code(1);
    let _ = cluster.run(&["app", "wait", &fine, &fine]).expect_code(0);
    let waiting = cluster.submit_detached(&small, "sleep 1000");
    let late = cluster.run(&["app", "wait", &fine, &waiting, "--timeout", "500ms"]);
    let _ = late.expect_code(6);
    cluster.down();
}

#[test]
fn words_of_a_submission_come_from_files() {
    if skip_without_root("words_of_a_submission_come_from_files") {
        return;
    }
    let cluster = Cluster::up(1);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let env = at("env", "# of the job\nCOLOR=blue\nSIZE=a b\n");
    let settings = at("job.properties", "task.max-failures 9\n");
    let data = format!("{}#input", at("data.txt", "content\n"));
    let flags = [
        "--env-file",
        &env,
        "--env",
        "COLOR=red",
        "--properties-file",
        &settings,
        "--files",
        &data,
        "--timeout",
        "1h",
    ];
    let run = cluster.submit(&flags, "echo \"$COLOR,$SIZE\"; cat input");
    assert_eq!(run.expect_code(0).stdout, "red,a b\ncontent\n");
    let wrong = at("wrong", "COLOR=blue\n=x\n");
    let run = cluster
        .submit(&["--env-file", &wrong], "true")
        .expect_code(2);
    assert!(run.stderr.contains("wrong, line 2"), "{run:?}");
    cluster.down();
}

#[test]
fn several_ids_at_once() {
    if skip_without_root("several_ids_at_once") {
        return;
    }
    let cluster = Cluster::up(1);
    let small = ["--driver-memory", "32m", "--tags", "pair"];
    let one = cluster.submit_detached(&small, "echo of one; sleep 1000");
    let two = cluster.submit_detached(&small, "echo of two; sleep 1000");
    for (id, text) in [(&one, "of one"), (&two, "of two")] {
        cluster.wait_log(id, text);
    }
    let both = |command: &str, more: &[&str]| {
        cluster.run(&[&["app", command, &one, &two][..], more].concat())
    };
    // What is wrong of one does not keep the others from it.
    let mixed = cluster.run(&["app", "priority", &one, "99999999", &two, "7"]);
    let mixed = mixed.expect_code(3);
    assert!(
        mixed.stderr.contains("99999999") && mixed.stderr.contains("app list"),
        "{mixed:?}"
    );
    for id in [&one, &two] {
        assert!(
            mixed.stderr.contains(&format!("{id} has priority 7")),
            "{mixed:?}"
        );
    }
    let status = both("status", &["-o", "json"]).expect_code(0).json();
    assert_eq!(
        (&status[0]["priority"], &status[1]["priority"]),
        (&7.into(), &7.into())
    );

    let moved = both("move", &["default"]).expect_code(0);
    assert_eq!(
        moved.stderr.matches("is in queue default").count(),
        2,
        "{moved:?}"
    );
    let refused = both("move", &["no such queue \u{1b}[2J"]);
    assert!(
        refused.code != 0 && !refused.stderr.contains('\u{1b}'),
        "{refused:?}"
    );

    let attempts = both("attempts", &["-o", "json"]).expect_code(0).json();
    assert_eq!(attempts[1]["application"], two.as_str(), "{attempts}");
    assert_eq!(attempts[1]["attempts"][0]["attempt"], 1, "{attempts}");
    let containers = both("containers", &["--usage", "-o", "json"])
        .expect_code(0)
        .json();
    let usage = &containers[0]["containers"][0]["usage"];
    assert!(usage["memory_bytes"].as_u64().unwrap() > 0, "{containers}");
    let table = both("containers", &[]).expect_code(0);
    assert!(table.stdout.contains(&format!("{one}\nID ")), "{table:?}");

    let logs = both("logs", &["--file", "stdout"]).expect_code(0);
    assert_eq!(logs.stdout, "of one\nof two\n");
    assert!(
        logs.stderr.contains(&format!("the log of {two}:")),
        "{logs:?}"
    );
    let _ = both("logs", &["-f"]).expect_code(2);
    let _ = both("logs", &["--container", "x"]).expect_code(2);

    // A timeout that was not there, taken back, and one that comes.
    let _ = both("timeout", &["1h"]).expect_code(0);
    assert!(cluster.status(&one)["expires_ms"].as_u64().unwrap() > 0);
    let _ = both("timeout", &["never"]).expect_code(0);
    assert_eq!(cluster.status(&one)["expires_ms"], 0);
    for wrong in ["0s", "-1s", "soon", "", "99999999999999999999d"] {
        let _ = both("timeout", &["--", wrong]).expect_code(2);
    }
    let _ = cluster.run(&["app", "timeout", &one]).expect_code(2);
    let _ = cluster
        .run(&["app", "timeout", &one, "100ms"])
        .expect_code(0);
    let ended = cluster.wait_state(&one, "KILLED");
    assert!(
        ended["diagnostics"].as_str().unwrap().contains("lifetime")
            || ended["diagnostics"].as_str().unwrap().contains("timeout"),
        "{ended}"
    );
    let over = cluster.run(&["app", "timeout", &one, "1h"]);
    assert_eq!(over.code, 5, "{over:?}");

    assert_eq!(listed(&cluster, &["--final", "killed"]), [one.as_str()]);
    assert_eq!(
        listed(&cluster, &["--final", "UNDEFINED", "--tag", "pair"]),
        [two.as_str()]
    );
    let _ = cluster
        .run(&["app", "list", "--final", "WELL"])
        .expect_code(2);
    let _ = cluster
        .run(&["app", "kill", "--tag", "pair"])
        .expect_code(0);
    cluster.down();
}

#[test]
fn bad_tags_and_conditions() {
    if skip_without_root("bad_tags_and_conditions") {
        return;
    }
    let cluster = Cluster::up(1);
    let eleven = (0..11).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let long = "x".repeat(101);
    for tags in [eleven.as_str(), &long, "a\u{1b}[2Jb", "a\nb"] {
        let refused = cluster.submit(&["--tags", tags, "--detach"], "true");
        assert!(refused.code != 0, "{tags:?}: {refused:?}");
        assert!(refused.stderr.contains("tag"), "{tags:?}: {refused:?}");
        assert!(!refused.stderr.contains('\u{1b}'), "{refused:?}");
    }
    assert_eq!(listed(&cluster, &[]), [""; 0]);
    for wrong in [
        &["app", "list", "--state", "WALKING"][..],
        &["app", "list", "--tag", "a\u{7}"],
        &["app", "list", "--limit", "-1"],
        &["app", "kill", "--tag", ""],
        &["app", "kill", "--queue", "night\u{1b}"],
        &["app", "status"],
        &["app", "status", "../x"],
        &["app", "wait", "@first"],
        &["submit", "--timeout", "0", "--", "true"],
    ] {
        let refused = cluster.run(wrong).expect_code(2);
        assert!(
            !refused.stderr.contains(['\u{1b}', '\u{7}']),
            "{wrong:?}: {refused:?}"
        );
    }
    cluster.down();
}
