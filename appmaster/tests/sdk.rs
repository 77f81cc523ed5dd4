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
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_ipc::writer::StreamWriter;
use bobbin_appmaster::sdk::{Driver, SdkError, Task, TaskEvent, concat_results};
use bobbin_appmaster::{AppSettings, LocalMode, run_local};
use bobbin_proto::v1;
use bobbin_proto::v1::driver_client::DriverClient;
use bobbin_service::{Target, connect};
use common::ShellDriver;

/// Runs `work` beside a driver that waits, with two slots.
async fn with_driver(work: impl AsyncFnOnce(Driver)) {
    with_socket(async |socket: &Path| work(Driver::connect_to(socket).await.unwrap()).await).await;
}

async fn with_socket(work: impl AsyncFnOnce(&Path)) {
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
    work(&socket).await;
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

fn stream(values: &[i64]) -> Vec<u8> {
    let values = Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("n", values)]).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

/// What is on its stdin goes to its stdout, if it was told what that must be.
fn copies(bytes: Vec<u8>) -> Task {
    shell("test $BOBBIN_TASK_RESULT_FORMAT = arrow-ipc-stream && echo words >&2 && exec cat")
        .with_stdin(bytes)
        .with_arrow_result()
}

#[tokio::test(flavor = "multi_thread")]
async fn arrow_results_become_one_table() {
    with_driver(async |driver: Driver| {
        let tasks = (0..20).map(|n| copies(stream(&[n, n + 1])));
        let results = driver.run(tasks).await.unwrap();
        for result in &results {
            assert!(result.is_success(), "{result:?}");
            let arrow = result.arrow.as_ref().unwrap();
            assert_eq!((arrow.rows, arrow.batches), (2, 1));
            assert_eq!(arrow.schema_fingerprint.len(), 64);
            assert_eq!(result.stderr, b"words\n");
            assert_eq!(result.record_batches().unwrap().len(), 1);
        }
        let all = concat_results(&results).unwrap();
        let expected: Vec<i64> = (0..20).flat_map(|n| [n, n + 1]).collect();
        let expected = Arc::new(Int64Array::from(expected)) as ArrayRef;
        assert_eq!(all.column(0), &expected);
        // Bytes that nobody said are Arrow are not looked at.
        let plain = driver.run([shell("echo text")]).await.unwrap();
        assert!(plain[0].is_success() && plain[0].arrow.is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_are_not_arrow_fail_their_task_in_words() {
    with_driver(async |driver: Driver| {
        let whole = stream(&[1, 2, 3]);
        let cut = whole[..whole.len() - 8].to_vec();
        let more = [&whole[..], b"more"].concat();
        let huge = [&[0xff; 4][..], &u32::MAX.to_le_bytes(), b"x"].concat();
        use v1::ArrowDefect::{NotArrow, TooLarge, Trailing, Truncated};
        let bad = [
            (b"1,2,3,4,5\n".to_vec(), NotArrow, "it begins with"),
            (cut, Truncated, "the end marker is missing"),
            (more, Trailing, "after its end marker"),
            (huge, TooLarge, "4294967295 bytes of metadata"),
        ];
        let tasks = bad.iter().map(|(bytes, ..)| copies(bytes.clone()));
        let results = driver.run(tasks).await.unwrap();
        for (result, (bytes, defect, words)) in results.iter().zip(&bad) {
            assert!(!result.is_success());
            assert_eq!(result.exit_status, 0, "{result:?}");
            assert_eq!(result.attempts, 2, "it is a failure like any other");
            assert_eq!(result.arrow_defect, Some(*defect), "{result:?}");
            assert!(result.problem.contains(words), "{}", result.problem);
            assert_eq!(
                &result.stdout, bytes,
                "what it wrote is there to be looked at"
            );
            assert!(result.record_batches().is_err());
        }
        // A program that fails is not asked for a table.
        let failed = driver
            .run([shell("echo no; exit 3").with_arrow_result()])
            .await
            .unwrap();
        assert_eq!((failed[0].exit_status, failed[0].problem.as_str()), (3, ""));
        assert!(failed[0].arrow_defect.is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_stage_tells_of_each_task_and_takes_more() {
    with_driver(async |driver: Driver| {
        let (mut submitter, mut results) = driver.open_stage().await.unwrap();
        for _ in 0..50 {
            submitter
                .submit(Task::new(["sleep", "1000"]))
                .await
                .unwrap();
        }
        let first = results.next_event().await.unwrap().unwrap();
        assert!(matches!(first, TaskEvent::Running { .. }), "{first:?}");
        submitter.cancel_all().await;
        for _ in 0..50 {
            let result = results.next_result().await.unwrap().unwrap();
            assert_eq!(result.problem, "it was cancelled");
        }
        submitter.submit(shell("echo after")).await.unwrap();
        drop(submitter);
        let result = results.next_result().await.unwrap().unwrap();
        assert_eq!((result.id, &result.stdout[..]), (50, &b"after\n"[..]));
        assert!(results.next_event().await.is_none());
    })
    .await;
}

fn wire(request: v1::task_request::Request) -> v1::TaskRequest {
    v1::TaskRequest {
        request: Some(request),
    }
}

fn wire_task(task_id: u64, argv: &[&str]) -> v1::TaskRequest {
    wire(v1::task_request::Request::Task(v1::NewTask {
        task_id,
        argv: argv.iter().map(|w| (*w).to_owned()).collect(),
        ..v1::NewTask::default()
    }))
}

/// Task ids that a driver of our own would not send.
#[tokio::test(flavor = "multi_thread")]
async fn doubled_and_unknown_task_ids() {
    with_socket(async |socket: &Path| {
        let channel = connect(&Target::Unix(socket.to_owned()), None)
            .await
            .unwrap();
        let mut client = DriverClient::new(channel);
        let cancel = |task_id| {
            let cancel = v1::CancelTask { task_id };
            wire(v1::task_request::Request::Cancel(cancel))
        };
        // Cancelled before it is known, twice, and when it is final: no error.
        let requests = [
            cancel(7),
            wire_task(7, &["sleep", "1000"]),
            cancel(7),
            cancel(7),
            cancel(u64::MAX),
            wire_task(u64::MAX, &["true"]),
        ];
        let stage = client.run_tasks(futures::stream::iter(requests)).await;
        let mut stage = stage.unwrap().into_inner();
        let mut ended = BTreeMap::new();
        while let Some(event) = stage.message().await.unwrap() {
            if let Some(v1::task_event::Event::Ended(end)) = event.event {
                let twice = ended.insert(event.task_id, end.problem);
                assert_eq!(twice, None, "a task is final once");
            }
        }
        assert_eq!(ended[&7], "it was cancelled");
        assert_eq!(ended[&u64::MAX], "");

        let mut formats = wire_task(1, &["true"]);
        if let Some(v1::task_request::Request::Task(task)) = &mut formats.request {
            task.result_format = 77;
        }
        for (requests, words) in [
            (
                vec![wire_task(3, &["sleep", "1000"]), wire_task(3, &["true"])],
                "task 3 is in this stream already",
            ),
            (vec![formats], "77 is no result format"),
        ] {
            let stage = client.run_tasks(futures::stream::iter(requests)).await;
            let mut stage = stage.unwrap().into_inner();
            let refused = loop {
                match stage.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it was not refused"),
                    Err(status) => break status,
                }
            };
            assert!(refused.message().contains(words), "{refused}");
        }
    })
    .await;
}

/// Of this process, bytes: the master runs in it.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// What nobody reads is on disk, not in the master's memory, and it is all there when it is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_does_not_read_its_results_costs_no_memory() {
    const TASKS: u64 = 48;
    const BYTES: usize = 8 << 20;
    let folder = tempfile::tempdir().unwrap();
    let ended = folder.path().join("ended");
    nix::unistd::mkfifo(&ended, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Open for both, so that no task waits for a reader.
    let mut ends = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&ended)
        .unwrap();
    with_driver(async |driver: Driver| {
        let before = resident();
        let (mut submitter, mut results) = driver.open_stage().await.unwrap();
        let script = format!("head -c {BYTES} /dev/zero; echo >{}", ended.display());
        let submitting = tokio::spawn(async move {
            for _ in 0..TASKS {
                submitter.submit(shell(&script)).await.unwrap();
            }
        });
        // 192 MiB have been written, below what stops the stage.
        let many = tokio::task::spawn_blocking(move || {
            ends.read_exact(&mut [0; 24]).unwrap();
            ends
        });
        let _open = many.await.unwrap();
        let grown = resident().saturating_sub(before);
        assert!(grown < 128 << 20, "{} MiB more", grown >> 20);

        let mut read = 0;
        while let Some(result) = results.next_result().await {
            let result = result.unwrap();
            assert!(result.is_success() && result.stdout.len() == BYTES);
            read += 1;
        }
        assert_eq!(read, TASKS);
        submitting.await.unwrap();
    })
    .await;
}
