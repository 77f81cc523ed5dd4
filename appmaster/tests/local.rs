//! Local mode end to end: a real driver, a real `bobbin-executor`, the library of `bobbin map`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a test ends with the words of what failed, and starts what it tests"
)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use bobbin_appmaster::map_client::MapError;
use bobbin_appmaster::{AppSettings, DriverEnd, LocalMode, run_local};
use common::{ShellDriver, is_alive, map, numbers, wait_for};

fn settings(pairs: &[(&str, &str)]) -> AppSettings {
    let map = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    AppSettings::from_map(&map.collect()).unwrap()
}

fn mode(argv: Vec<String>, slots: u32) -> LocalMode {
    LocalMode {
        slots: Some(slots),
        argv,
        environment: BTreeMap::from([("MARK".to_owned(), "m1".to_owned())]),
        settings: settings(&[("task.max-failures", "3")]),
    }
}

/// Runs `work` beside a driver that waits, and ends the driver with 0.
async fn with_driver<T>(
    slots: u32,
    work: impl AsyncFnOnce(&Path, &ShellDriver) -> T,
) -> (DriverEnd, T) {
    let driver = ShellDriver::new();
    let local = mode(driver.argv(), slots);
    let running = tokio::spawn(run_local(local));
    let socket = driver.socket().await;
    let done = work(&socket, &driver).await;
    driver.end(0).await;
    let end = running.await.unwrap().unwrap();
    assert!(!socket.exists(), "the socket's folder is left behind");
    (end, done)
}

fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn squares_in_order_and_the_drivers_environment() {
    let (end, ids) = with_driver(4, async |socket, driver| {
        let (summary, sink) = map(socket, &["sh", "-c", "echo $(( {} * {} ))"], numbers(200)).await;
        let summary = summary.unwrap();
        assert_eq!((summary.tasks, summary.failed), (200, 0));
        let squares: String = (1..=200).map(|n| format!("{}\n", n * n)).collect();
        assert_eq!(sink.out(), squares);
        assert_eq!(
            (sink.last.done, sink.last.total, sink.last.running),
            (200, 200, 0)
        );
        driver.ids()
    })
    .await;
    assert_eq!(end.exit_status.0, 0);
    assert!(end.acknowledged && !end.failed);
    let words: Vec<_> = ids.split_whitespace().collect();
    assert!(
        words[0].starts_with("application_") && words[0].ends_with("_0001"),
        "{ids}"
    );
    assert_eq!(&words[1..], ["1", "m1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_statuses_are_the_drivers() {
    for (argv, status) in [
        (shell("exit 7"), 7),
        (shell("kill -TERM $$"), 143),
        (shell("kill -KILL $$"), 137),
        (vec!["/nonexistent/program".to_owned()], 127),
        (vec!["no-such-program-here".to_owned()], 127),
        (vec!["/etc/passwd".to_owned()], 126),
        (vec!["/etc".to_owned()], 126),
    ] {
        let end = run_local(mode(argv.clone(), 1)).await.unwrap();
        assert_eq!(end.exit_status.0, status, "{argv:?}");
        assert!(end.failed, "{argv:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_driver_leaves_behind_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let script = format!(
        "sleep 300 & echo $! >{0}; setsid sleep 300 & setsid sh -c 'echo $$ >>{0}; exec sleep 300' & \
         while [ $(wc -l <{0}) -lt 2 ]; do :; done; exit 3",
        file.display()
    );
    let end = run_local(mode(shell(&script), 1)).await.unwrap();
    assert_eq!(end.exit_status.0, 3);
    let pids = std::fs::read_to_string(&file).unwrap();
    let pids: Vec<i32> = pids.lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    for pid in pids {
        assert!(!is_alive(pid), "{pid} is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_task_is_tried_again_and_then_named() {
    let script =
        r#"echo "try $BOBBIN_TASK_ATTEMPT of $BOBBIN_TASK_INPUT" >&2; test {} != 2 && echo ok {}"#;
    let (_, (summary, sink)) = with_driver(2, async |socket, _| {
        map(socket, &["sh", "-c", script], numbers(3)).await
    })
    .await;
    let summary = summary.unwrap();
    assert_eq!((summary.tasks, summary.failed), (3, 1));
    let failed = &summary.failed_tasks[0];
    assert_eq!(
        (
            failed.number,
            failed.input.as_str(),
            failed.exit_status,
            failed.attempts
        ),
        (2, "2", 1, 3)
    );
    assert_eq!(sink.failed, summary.failed_tasks);
    assert_eq!(sink.out(), "ok 1\nok 3\n");
    // Only the output of the last attempt of the failed task, in input order.
    let stderr = String::from_utf8(sink.stderr).unwrap();
    assert_eq!(stderr, "try 1 of 1\ntry 3 of 2\ntry 1 of 3\n");
    assert_eq!(sink.last.retried, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_once_succeeds_the_second_time() {
    let (_, (summary, sink)) = with_driver(2, async |socket, driver| {
        let mark = driver.folder.path().join("mark");
        let script = format!(
            "if mkdir {}.{{}} 2>/dev/null; then exit 9; fi; echo {{}}",
            mark.display()
        );
        map(socket, &["sh", "-c", &script], numbers(20)).await
    })
    .await;
    assert_eq!(summary.unwrap().failed, 0);
    assert_eq!(sink.out(), numbers(20).join("\n") + "\n");
    assert_eq!(sink.last.retried, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_cannot_run_say_so() {
    let (_, summaries) = with_driver(1, async |socket, _| {
        let mut all = Vec::new();
        for program in ["/nonexistent/task", "/etc/passwd"] {
            all.push(map(socket, &[program], numbers(1)).await.0.unwrap());
        }
        all
    })
    .await;
    let failed: Vec<_> = summaries.iter().map(|s| &s.failed_tasks[0]).collect();
    assert_eq!(failed[0].exit_status, 127);
    assert!(
        failed[0].problem.contains("/nonexistent/task"),
        "{}",
        failed[0].problem
    );
    assert_eq!(failed[1].exit_status, 126);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_outputs_come_whole_and_too_large_ones_fail() {
    let (_, ()) = with_driver(3, async |socket, _| {
        let script = "head -c 6000000 /dev/zero | tr '\\0' {}";
        let (summary, sink) = map(socket, &["sh", "-c", script], numbers(9)).await;
        assert_eq!(summary.unwrap().failed, 0);
        assert_eq!(sink.stdout.len(), 54_000_000);
        for (at, number) in (b'1'..=b'9').enumerate() {
            let part = &sink.stdout[at * 6_000_000..(at + 1) * 6_000_000];
            assert!(part.iter().all(|b| *b == number));
        }
        // An endless one fails with words, and its executor goes on.
        let (summary, _) = map(socket, &["sh", "-c", "exec yes"], numbers(1)).await;
        let failed = summary.unwrap().failed_tasks.remove(0);
        assert!(
            failed.problem.contains("task.output-bytes-max"),
            "{}",
            failed.problem
        );
        let (summary, sink) = map(socket, &["echo", "{}"], numbers(1)).await;
        assert_eq!((summary.unwrap().failed, sink.out().as_str()), (0, "1\n"));
    })
    .await;
}

/// The executor of a local application is a child of this process with this argument.
fn executor_pids(socket: &Path) -> Vec<i32> {
    let folder = socket.parent().unwrap().display().to_string();
    let mark = format!("BOBBIN_EXECUTOR_SECRET_FILE={folder}/executor-secret");
    let is_mine = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "bobbin-executor"
            && is_alive(*pid)
            && environment.split(|b| *b == 0).any(|v| v == mark.as_bytes())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(is_mine).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_executor_is_replaced_and_its_tasks_run_again() {
    let (_, ()) = with_driver(2, async |socket, driver| {
        let folder = driver.folder.path().to_owned();
        let script = format!(
            "echo $$ >>{0}/pids; echo $BOBBIN_TASK_ATTEMPT >>{0}/starts; if test -e {0}/go; then echo {{}}; else exec sleep 300; fi",
            folder.display()
        );
        let command = ["sh", "-c", script.as_str()];
        let killing = async {
            let starts = folder.join("starts");
            wait_for("two tasks", || {
                let text = std::fs::read_to_string(&starts).ok()?;
                (text.lines().count() >= 2).then_some(())
            })
            .await;
            std::fs::write(folder.join("go"), "").unwrap();
            let pids = executor_pids(socket);
            assert_eq!(pids.len(), 1);
            let pid = nix::unistd::Pid::from_raw(pids[0]);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        };
        let ((summary, sink), ()) =
            tokio::join!(map(socket, &command, numbers(6)), killing);
        assert_eq!(summary.unwrap().failed, 0);
        assert_eq!(sink.out(), "1\n2\n3\n4\n5\n6\n");
        assert_eq!(sink.last.retried, 2);
        for pid in std::fs::read_to_string(folder.join("pids")).unwrap().lines() {
            assert!(!is_alive(pid.parse().unwrap()), "task {pid} outlived its executor");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_goes_away_takes_its_tasks_with_it() {
    let (_, ()) = with_driver(2, async |socket, driver| {
        let pids = driver.folder.path().join("pids");
        let script = format!(
            "echo $$ >>{0}; setsid sleep 301 & echo $! >>{0}; exec sleep 300",
            pids.display()
        );
        let inputs = numbers(2);
        let command = ["sh", "-c", script.as_str()];
        let mapping = map(socket, &command, inputs);
        let started = wait_for("the tasks' processes", || {
            let text = std::fs::read_to_string(&pids).ok()?;
            let pids: Vec<i32> = text.lines().filter_map(|l| l.parse().ok()).collect();
            (pids.len() == 4).then_some(pids)
        });
        let started = tokio::select! {
            (summary, _) = mapping => panic!("it ended: {summary:?}"),
            started = started => started,
        };
        // The map is dropped here: its stream breaks.
        for pid in started {
            wait_for("the end of a task's process", || {
                (!is_alive(pid)).then_some(())
            })
            .await;
        }
        let (summary, sink) = map(socket, &["echo", "{}"], numbers(2)).await;
        assert_eq!(
            (summary.unwrap().failed, sink.out().as_str()),
            (0, "1\n2\n")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_inputs_are_named() {
    let (_, ()) = with_driver(1, async |socket, _| {
        let (error, _) = map(socket, &["echo"], ["a".to_owned(), "b\0c".to_owned()]).await;
        assert!(
            matches!(error, Err(MapError::Input { number: 2, .. })),
            "{error:?}"
        );
        let (error, _) = map(socket, &[], numbers(1)).await;
        assert!(matches!(error, Err(MapError::NoCommand)), "{error:?}");
        let (none, sink) = map(socket, &["echo"], Vec::new()).await;
        assert_eq!((none.unwrap().tasks, sink.out().as_str()), (0, ""));
        // Inputs are no shell words: nothing in them is interpreted.
        let hostile = "a b; $(touch /tmp/x) '\" \\ {}".to_owned();
        let (_, sink) = map(socket, &["printf", "%s\\n", "{}"], [hostile.clone()]).await;
        assert_eq!(sink.out(), hostile + "\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_do_not_see_the_executors_secrets() {
    let (_, (summary, sink)) =
        with_driver(1, async |socket, _| map(socket, &["env"], numbers(1)).await).await;
    summary.unwrap();
    let environment = sink.out();
    for hidden in [
        "BOBBIN_AM_ADDRESS",
        "SECRET",
        "BOBBIN_EXECUTOR",
        "BOBBIN_DRIVER_SOCKET",
    ] {
        assert!(!environment.contains(hidden), "{environment}");
    }
    for seen in [
        "BOBBIN_TASK_INPUT=1",
        "BOBBIN_TASK_ATTEMPT=1",
        "BOBBIN_TASK_ID=0",
        "MARK=m1",
    ] {
        assert!(environment.contains(seen), "{seen}: {environment}");
    }
}
