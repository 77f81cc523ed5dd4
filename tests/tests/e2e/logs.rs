//! Logs while the application runs and after it ended.

use std::io::Read;

use bobbin_tests::{Cluster, skip_without_root, wait_for};

#[test]
fn the_same_bytes_live_and_after() {
    if skip_without_root("the_same_bytes_live_and_after") {
        return;
    }
    let cluster = Cluster::up(1);
    let script = "seq 1 5000; echo warning >&2; until [ -e $BOBBIN_SHARED_DIR/go ]; do sleep 0.05; done; seq 5001 10000";
    let id = cluster.submit_detached(&[], script);
    cluster.wait_log(&id, "5000\n");
    let follow = cluster.spawn(&["app", "logs", &id, "-f", "--driver", "--file", "stdout"]);
    std::fs::write(cluster.dir().join("shared/go"), "").unwrap();
    let live = bobbin_tests::Run::from(follow.wait_with_output().unwrap()).expect_code(0);
    let _ = cluster.wait_state(&id, "FINISHED");
    let after = cluster
        .run(&["app", "logs", &id, "--driver", "--file", "stdout"])
        .expect_code(0);
    let whole: String = (1..=10000).map(|n| format!("{n}\n")).collect();
    assert_eq!(live.stdout, whole);
    assert_eq!(after.stdout, whole);
    let errors = cluster
        .run(&["app", "logs", &id, "--driver", "--file", "stderr"])
        .expect_code(0);
    assert_eq!(errors.stdout, "warning\n");
    let tail = cluster
        .run(&[
            "app", "logs", &id, "--driver", "--file", "stdout", "--tail", "2",
        ])
        .expect_code(0);
    assert_eq!(tail.stdout, "9999\n10000\n");
}

#[test]
fn following_goes_on_with_the_next_attempt() {
    if skip_without_root("following_goes_on_with_the_next_attempt") {
        return;
    }
    let cluster = Cluster::up(1);
    let script = "echo attempt $BOBBIN_ATTEMPT; until [ -e $BOBBIN_SHARED_DIR/go ]; do sleep 0.02; done; test $BOBBIN_ATTEMPT -ge 3";
    let id = cluster.submit_detached(&["--max-attempts", "3"], script);
    cluster.wait_log(&id, "attempt 1");
    let mut follow = cluster.spawn(&["app", "logs", &id, "-f", "--driver"]);
    // It follows the first attempt before that may end.
    let mut first = [0; 10];
    let out = follow.stdout.as_mut().expect("its output is read here");
    out.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"attempt 1\n");
    std::fs::write(cluster.dir().join("shared/go"), "").unwrap();
    let run = bobbin_tests::Run::from(follow.wait_with_output().unwrap()).expect_code(0);
    assert_eq!(run.stdout, "attempt 2\nattempt 3\n", "{run:?}");
}

#[test]
fn a_log_swapped_for_a_link_shows_nothing_of_the_host() {
    if skip_without_root("a_log_swapped_for_a_link_shows_nothing_of_the_host") {
        return;
    }
    let cluster = Cluster::up(1);
    let secret = cluster.dir().join("secret");
    std::fs::write(&secret, "the host's own secret").unwrap();
    // The container may write in its own log folder; the reader is the agent.
    let script = format!(
        "d=$(dirname $(readlink -f /proc/self/fd/1) 2>/dev/null); for n in $BOBBIN_LOG_DIR $d; do \
         rm -f $n/stdout $n/mine; ln -s {0} $n/stdout; ln -s {0} $n/mine; done; echo done",
        secret.display()
    );
    let id = cluster.submit_detached(&[], &script);
    wait_for("the end", 60, || {
        let status = cluster.status(&id);
        if status["finished_ms"].as_u64().unwrap_or(0) > 0 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    for file in ["stdout", "mine", "../../secret", "/etc/shadow"] {
        let run = cluster.run(&["app", "logs", &id, "--driver", "--file", file]);
        assert!(
            !run.stdout.contains("secret") && !run.stdout.contains("root:"),
            "{file}: {run:?}"
        );
    }
}
