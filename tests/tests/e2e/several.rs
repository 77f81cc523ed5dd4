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
