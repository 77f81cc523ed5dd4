//! Client mode against a resource manager and a node agent of this process, with real executors.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a test ends with the words of what failed, and starts what it tests"
)]

mod common;

use bobbin_appmaster::map_client::MapError;
use bobbin_appmaster::run_client_mode;
use bobbin_proto::v1;
use common::fake::Cluster;
use common::{ShellDriver, map, numbers, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[tokio::test(flavor = "multi_thread")]
async fn executors_are_asked_for_started_and_used() {
    let cluster = Cluster::start(100).await;
    let (end, sink) = cluster
        .run(2, 7, async |socket, driver| {
            let (summary, sink) = map(
                socket,
                &[
                    "sh",
                    "-c",
                    "echo $(( {} * {} )) $MARK; sleep 0.05; echo $BOBBIN_CONTAINER_ID >&2",
                ],
                numbers(20),
            )
            .await;
            assert_eq!(summary.unwrap().failed, 0);
            assert!(
                driver.ids().starts_with("application_1_0001 1 m2"),
                "{}",
                driver.ids()
            );
            sink
        })
        .await;
    let squares: String = (1..=20).map(|n| format!("{} m2\n", n * n)).collect();
    assert_eq!(sink.out(), squares);
    let stderr = String::from_utf8(sink.stderr).unwrap();
    let containers: std::collections::BTreeSet<_> = stderr.lines().collect();
    assert_eq!(containers.len(), 2, "both executors work: {stderr}");
    assert_eq!(end.exit_status.0, 7);
    assert!(end.acknowledged);
    let finishes = cluster.finishes();
    assert_eq!(finishes.len(), 1);
    assert_eq!(
        (finishes[0].final_status.as_str(), finishes[0].exit_status),
        ("FAILED", Some(7))
    );
    assert_eq!(cluster.fake.with(|s| (s.granted, s.starts)), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_ends_at_once_is_finished_once() {
    let cluster = Cluster::start(0).await;
    let end = run_client_mode(cluster.mode(vec!["true".to_owned()], 0))
        .await
        .unwrap();
    assert_eq!(
        (end.exit_status.0, end.acknowledged, end.failed),
        (0, true, false)
    );
    let finishes = cluster.finishes();
    assert_eq!(finishes.len(), 1);
    assert_eq!(finishes[0].final_status, "SUCCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_executor_is_replaced_and_its_tasks_run_again() {
    let cluster = Cluster::start(100).await;
    let fake = cluster.fake.clone();
    let (_, (summary, sink)) = cluster
        .run(2, 0, async |socket, driver| {
            let go = driver.folder.path().join("go");
            let script = format!(
                "if test -e {}; then echo {{}}; else exec sleep 300; fi",
                go.display()
            );
            let command = ["sh", "-c", script.as_str()];
            let killing = async {
                wait_for("two executors", || {
                    (fake.with(|s| s.pids.len()) == 2).then_some(())
                })
                .await;
                // All four slots are taken once nothing more can start.
                let pids: Vec<i32> = fake.with(|s| s.pids.values().copied().collect());
                for pid in &pids {
                    let children = format!("/proc/{pid}/task/{pid}/children");
                    wait_for("two tasks of each", || {
                        let text = std::fs::read_to_string(&children).ok()?;
                        (text.split_whitespace().count() == 2).then_some(())
                    })
                    .await;
                }
                std::fs::write(&go, "").unwrap();
                for pid in pids {
                    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
                }
            };
            tokio::join!(map(socket, &command, numbers(8)), killing).0
        })
        .await;
    assert_eq!(summary.unwrap().failed, 0);
    assert_eq!(sink.out(), "1\n2\n3\n4\n5\n6\n7\n8\n");
    assert_eq!(sink.last.retried, 4);
    assert_eq!(cluster.fake.with(|s| s.starts), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_stream_is_opened_again_with_everything_held() {
    let cluster = Cluster::start(100).await;
    let fake = cluster.fake.clone();
    let (end, ()) = cluster
        .run(2, 0, async |socket, _| {
            map(socket, &["true"], numbers(2)).await.0.unwrap();
            wait_for("two executors", || {
                (fake.with(|s| s.pids.len()) == 2).then_some(())
            })
            .await;
            let mut pids: Vec<i32> = fake.with(|s| s.pids.values().copied().collect());
            fake.with(|state| {
                state.rm = None;
                state.node = None;
            });
            wait_for("the second stream", || {
                (cluster.registers().len() == 2).then_some(())
            })
            .await;
            let (summary, sink) = map(socket, &["echo", "{}"], numbers(4)).await;
            assert_eq!(
                (summary.unwrap().failed, sink.out().as_str()),
                (0, "1\n2\n3\n4\n")
            );
            let mut now: Vec<i32> = fake.with(|s| s.pids.values().copied().collect());
            pids.sort_unstable();
            now.sort_unstable();
            assert_eq!(pids, now, "no executor was disturbed");
        })
        .await;
    assert!(end.acknowledged);
    let registers = cluster.registers();
    assert_eq!(registers[0].asks[0].count, 2);
    assert!(registers[0].containers.is_empty());
    assert_eq!(registers[1].asks[0].count, 0);
    assert_eq!(registers[1].containers.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unacknowledged_finish_is_said_again_on_the_next_stream() {
    let cluster = Cluster::start(0).await;
    cluster.fake.with(|state| state.acknowledge = false);
    let running = tokio::spawn(run_client_mode(cluster.mode(vec!["true".to_owned()], 0)));
    wait_for("the first finish", || {
        (cluster.finishes().len() == 1).then_some(())
    })
    .await;
    cluster.fake.with(|state| {
        state.acknowledge = true;
        state.rm = None;
    });
    let end = running.await.unwrap().unwrap();
    assert!(end.acknowledged);
    assert_eq!(cluster.finishes().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_reach_the_map_with_their_words() {
    let cluster = Cluster::start(0).await;
    let words = "3 GiB is more than the largest node has (2 GiB)";
    cluster
        .fake
        .with(|state| state.refuse = Some(words.to_owned()));
    let (_, ()) = cluster
        .run(1, 0, async |socket, _| {
            let (summary, _) = map(socket, &["true"], numbers(2)).await;
            let summary = summary.unwrap();
            assert_eq!(summary.failed, 2);
            assert!(
                summary.failed_tasks[0].problem.contains(words),
                "{summary:?}"
            );
        })
        .await;
    let (_, ()) = cluster
        .run(0, 0, async |socket, _| {
            let (error, _) = map(socket, &["true"], numbers(2)).await;
            let error = error.unwrap_err();
            assert!(matches!(error, MapError::NoExecutors), "{error}");
            assert!(error.to_string().contains("--num-executors"));
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resource_managers_end_is_the_drivers_end() {
    let cluster = Cluster::start(0).await;
    let driver = ShellDriver::new();
    let running = tokio::spawn(run_client_mode(cluster.mode(driver.argv(), 0)));
    driver.socket().await;
    wait_for("the registration", || {
        (!cluster.registers().is_empty()).then_some(())
    })
    .await;
    let reason = "killed by alice".to_owned();
    cluster.fake.with(|state| {
        state.tell(v1::rm_message::Message::Shutdown(v1::MasterShutdown {
            reason,
        }));
    });
    let end = running.await.unwrap().unwrap();
    assert_eq!(end.exit_status.0, 143);
    assert!(end.failed);
    assert_eq!(end.diagnostics, "killed by alice");
    assert!(cluster.finishes().is_empty(), "the attempt is over already");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_ends_the_driver_with_words() {
    let cluster = Cluster::start(0).await;
    let driver = ShellDriver::new();
    let mut mode = cluster.mode(driver.argv(), 0);
    mode.attempt_token = "of another".to_owned();
    let end = run_client_mode(mode).await.unwrap();
    assert!(end.failed);
    assert!(
        end.diagnostics.contains("wrong token"),
        "{}",
        end.diagnostics
    );
}
