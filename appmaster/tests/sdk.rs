//! The library for drivers in Rust, against a real master and a real executor in local mode.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a test ends with the words of what failed, and starts what it tests"
)]

mod common;

use std::collections::BTreeMap;

use bobbin_appmaster::sdk::{Driver, SdkError, Task, TaskEvent};
use bobbin_appmaster::{AppSettings, LocalMode, run_local};
use common::ShellDriver;

/// Runs `work` beside a driver that waits, with two slots.
async fn with_driver(work: impl AsyncFnOnce(Driver)) {
    let shell = ShellDriver::new();
    let local = LocalMode {
        slots: Some(2),
        argv: shell.argv(),
        environment: BTreeMap::new(),
        settings: AppSettings::from_map(&BTreeMap::from([(
            "task.max-failures".to_owned(),
            "2".to_owned(),
        )]))
        .unwrap(),
    };
    let running = tokio::spawn(run_local(local));
    let socket = shell.socket().await;
    work(Driver::connect_to(&socket).await.unwrap()).await;
    shell.end(0).await;
    assert_eq!(running.await.unwrap().unwrap().exit_status.0, 0);
}

fn shell(script: &str) -> Task {
    Task::new(["sh", "-c", script])
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_in_order_with_what_tasks_were_given() {
    with_driver(async |driver: Driver| {
        let info = driver.info().await.unwrap();
        assert_eq!((info.attempt, info.executors_max), (1, 1));
        let task = |n: u64| {
            shell("read line; echo $line-$X; echo err >&2; exit $X")
                .with_stdin(format!("in{n}\n"))
                .with_variable("X", (n % 2).to_string())
        };
        // More than the master takes ahead of unread results would block a driver that does not read.
        let results = driver.run((0..100).map(task)).await.unwrap();
        assert_eq!(results.len(), 100);
        for (n, result) in (0..).zip(&results) {
            assert_eq!(result.id, n);
            assert_eq!(
                String::from_utf8_lossy(&result.stdout),
                format!("in{n}-{}\n", n % 2)
            );
            assert_eq!(result.stderr, b"err\n");
            assert_eq!(result.is_success(), n % 2 == 0, "{result:?}");
            assert_eq!(
                u64::from(result.attempts),
                1 + n % 2,
                "a failure is tried again"
            );
        }
        assert_eq!(driver.run([]).await.unwrap(), []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_cancelled_and_refusals_have_words() {
    with_driver(async |driver: Driver| {
        let (mut submitter, mut results) = driver.open_stage().await.unwrap();
        let endless = submitter.submit(Task::new(["sleep", "1000"])).await.unwrap();
        loop {
            match results.next_event().await.unwrap().unwrap() {
                TaskEvent::Running { id, attempt, .. } => {
                    assert_eq!((id, attempt), (endless, 1));
                    submitter.cancel(id).await;
                }
                TaskEvent::Ended(result) => {
                    assert_eq!(result.problem, "it was cancelled");
                    break;
                }
                event @ TaskEvent::Retried { .. } => panic!("{event:?}"),
            }
        }
        drop(submitter);
        assert!(results.next_event().await.is_none());

        let refused = driver.run([Task::new([""])]).await;
        assert!(
            matches!(&refused, Err(SdkError::Lost { words }) if words.contains("the program's name is empty")),
            "{refused:?}"
        );
        let mut executors = driver.watch_executors().await.unwrap();
        let first = executors.next_change().await.unwrap().unwrap();
        assert!(first.is_up && first.slots == 2, "{first:?}");
    })
    .await;
}
