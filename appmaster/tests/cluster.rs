//! The binary `bobbin-appmaster` as an agent starts it, against a resource manager of this process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a test ends with the words of what failed, and starts what it tests"
)]

mod common;

use std::process::{Command, Stdio};

use common::fake::{Cluster, TOKEN};
use common::{ShellDriver, is_alive, map, numbers, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

struct Started {
    child: std::process::Child,
    _token: tempfile::NamedTempFile,
}

fn start(cluster: &Cluster, argv: &[String], settings: &str) -> Started {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), TOKEN).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_bobbin-appmaster"))
        .arg("--")
        .args(argv)
        .env("BOBBIN_APPLICATION_ID", "application_1_0001")
        .env("BOBBIN_ATTEMPT", "2")
        .env("BOBBIN_CONTAINER_ID", "container_1_0001_02_000001")
        .env("BOBBIN_NODE_HOST", "127.0.0.1")
        .env("BOBBIN_RM_ADDRESS", cluster.target.to_string())
        .env("BOBBIN_CONF_JSON", settings)
        .env("BOBBIN_ATTEMPT_TOKEN_FILE", token.path())
        .env("MARK", "m3")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Started {
        child,
        _token: token,
    }
}

impl Started {
    /// Exit code and stderr.
    async fn end(self) -> (Option<i32>, String) {
        let output = tokio::task::spawn_blocking(move || self.child.wait_with_output().unwrap());
        let output = output.await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stderr)
    }
}

fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_with_executors_in_its_container() {
    let cluster = Cluster::start(100).await;
    let driver = ShellDriver::new();
    let settings = r#"{"num-executors":"2","executor-cores":"2","executor-memory-mib":"64"}"#;
    let started = start(&cluster, &driver.argv(), settings);
    let socket = driver.socket().await;
    assert_eq!(driver.ids().trim(), "application_1_0001 2 m3");
    let (summary, sink) = map(&socket, &["sh", "-c", "echo {} $MARK"], numbers(10)).await;
    assert_eq!(summary.unwrap().failed, 0);
    assert!(sink.out().starts_with("1 m3\n2 m3\n"), "{}", sink.out());
    driver.end(0).await;
    let (code, stderr) = started.end().await;
    assert_eq!(code, Some(0), "{stderr}");
    let finishes = cluster.finishes();
    assert_eq!(finishes.len(), 1);
    assert_eq!(
        (finishes[0].final_status.as_str(), finishes[0].exit_status),
        ("SUCCEEDED", Some(0))
    );
    wait_for("the end of the executors", || {
        cluster.fake.with(|s| s.pids.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_driver_ends_its_attempt_without_a_finish() {
    let cluster = Cluster::start(0).await;
    for (script, code) in [
        ("exit 7", 7),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let (ended, stderr) = start(&cluster, &shell(script), "{}").end().await;
        assert_eq!(ended, Some(code), "{stderr}");
    }
    assert!(cluster.finishes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_final() {
    let cluster = Cluster::start(0).await;
    let missing = ["no-such-program-here".to_owned()];
    let (code, stderr) = start(&cluster, &missing, "{}").end().await;
    assert_eq!(code, Some(127));
    assert!(stderr.contains("no-such-program-here"), "{stderr}");
    let finish = cluster.finishes().remove(0);
    assert_eq!(
        (finish.final_status.as_str(), finish.exit_status),
        ("FAILED", Some(127))
    );
    assert!(
        finish.diagnostics.contains("no-such-program-here"),
        "{}",
        finish.diagnostics
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_go_to_the_driver() {
    let cluster = Cluster::start(0).await;
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let script = format!(
        "trap 'exit 9' TERM; echo >{}; while :; do sleep 0.05; done",
        ready.display()
    );
    let started = start(&cluster, &shell(&script), "{}");
    wait_for("the driver", || ready.exists().then_some(())).await;
    kill(
        Pid::from_raw(i32::try_from(started.child.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(started.end().await.0, Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_waits_for_a_resource_manager_that_is_away() {
    let cluster = Cluster::start(0).await;
    // Nobody acknowledges on the first stream.
    cluster.fake.with(|s| s.acknowledge = false);
    let started = start(&cluster, &shell("exit 0"), "{}");
    wait_for("the first finish", || {
        (cluster.finishes().len() == 1).then_some(())
    })
    .await;
    cluster.fake.with(|s| {
        s.acknowledge = true;
        s.rm = None;
    });
    assert_eq!(started.end().await.0, Some(0));
    assert_eq!(cluster.finishes().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn executors_that_cannot_start_fail_the_application_with_words() {
    let cluster = Cluster::start(100).await;
    cluster.fake.with(|s| s.broken_executors = true);
    let driver = ShellDriver::new();
    let started = start(&cluster, &driver.argv(), r#"{"num-executors":"1"}"#);
    let socket = driver.socket().await;
    let (summary, _) = map(&socket, &["true"], numbers(1)).await;
    let problem = summary.unwrap().failed_tasks.remove(0).problem;
    assert!(problem.contains("executor"), "{problem}");
    driver.end(4).await;
    let (code, stderr) = started.end().await;
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains(&problem), "{stderr}");
    let finish = cluster.finishes().remove(0);
    assert_eq!(
        (finish.final_status.as_str(), finish.exit_status),
        ("FAILED", Some(4))
    );
    assert_eq!(finish.diagnostics, problem);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_and_usage_are_refused_with_words() {
    let cluster = Cluster::start(0).await;
    let settings = r#"{"num-executor":"1"}"#;
    let (code, stderr) = start(&cluster, &shell("sleep 60"), settings).end().await;
    assert_eq!(code, Some(125));
    assert!(stderr.contains("num-executors"), "{stderr}");
    let output = Command::new(env!("CARGO_BIN_EXE_bobbin-appmaster"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = Command::new(env!("CARGO_BIN_EXE_bobbin-executor"))
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
}

/// Not a test by itself: the process that the next test kills. Without the variable it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn role_of_a_submitting_process() {
    let Ok(folder) = std::env::var("BOBBIN_TEST_ROLE_FOLDER") else {
        return;
    };
    let script = format!(
        "echo $$ >>{folder}/pids; setsid sleep 302 & echo $! >>{folder}/pids; \
         printf %s \"$BOBBIN_DRIVER_SOCKET\" >{folder}/socket; sleep 301"
    );
    let mode = bobbin_appmaster::LocalMode {
        slots: Some(1),
        argv: shell(&script),
        environment: Default::default(),
        settings: bobbin_appmaster::AppSettings::from_map(&Default::default()).unwrap(),
    };
    bobbin_appmaster::run_local(mode).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_submitter_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut submitter = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "role_of_a_submitting_process"])
        .env("BOBBIN_TEST_ROLE_FOLDER", folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let file = folder.path().join("socket");
    let socket = wait_for("the driver", || {
        std::fs::read_to_string(&file)
            .ok()
            .filter(|s| !s.is_empty())
    })
    .await;
    let pids_file = folder.path().join("pids");
    let script = format!(
        "echo $$ >>{0}; setsid sleep 303 & echo $! >>{0}; exec sleep 304",
        pids_file.display()
    );
    let command = ["sh", "-c", script.as_str()];
    let mapping = map(socket.as_ref(), &command, numbers(1));
    let started = wait_for("all processes", || {
        let text = std::fs::read_to_string(&pids_file).ok()?;
        let pids: Vec<i32> = text.lines().filter_map(|l| l.parse().ok()).collect();
        (pids.len() == 4).then_some(pids)
    });
    let pids = tokio::select! {
        ended = mapping => panic!("the map ended: {:?}", ended.0),
        pids = started => pids,
    };
    submitter.kill().unwrap();
    submitter.wait().unwrap();
    for pid in pids {
        wait_for("the end of a process of the application", || {
            (!is_alive(pid)).then_some(())
        })
        .await;
    }
    let socket = std::path::Path::new(&socket);
    wait_for("the removal of its folder", || {
        (!socket.exists()).then_some(())
    })
    .await;
}
