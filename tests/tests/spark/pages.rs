//! Spark's own pages in a browser, and its history: through the resource manager's HTTP door.

use std::process::Stdio;

use bobbin_tests::{RunExt, wait_for};

use crate::spark::{DATA, JOB_SECONDS, Must, Spark, SparkCluster, command, http_get, job, needed};

/// What a headless Chromium shows of a page, once its scripts have run.
#[track_caller]
fn page(on: &SparkCluster, url: &str) -> String {
    let profile = tempfile::tempdir_in(on.cluster.dir()).unwrap();
    let run = command("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--virtual-time-budget=20000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .run();
    assert_eq!(run.code, 0, "{url}: {}", run.stderr);
    run.stdout
}

/// The links of a page that hold `part`.
fn links(page: &str, part: &str) -> Vec<String> {
    page.split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|link| link.contains(part))
        .map(|link| link.replace("&amp;", "&"))
        .collect()
}

#[test]
fn the_pages_of_a_running_application_open_through_the_proxy() {
    let test = "the_pages_of_a_running_application_open_through_the_proxy";
    let Some(spark) = needed(test, Spark::three()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    let go_on = on.cluster.dir().join("go-on");
    let mut started = on.start("client", &[&job("pages.py"), &go_on.display().to_string()]);
    let id = on.wait_running(&started);
    wait_for("the jobs to be done", JOB_SECONDS, || {
        if started.output().contains("ready") {
            Ok(())
        } else {
            Err(started.errors())
        }
    });
    assert!(
        started.output().contains("count 1000"),
        "{}",
        started.output()
    );
    for base in ["proxy", "proxy/redirect"] {
        let base = format!("{}/{base}/{id}", on.web());
        let jobs = page(&on, &format!("{base}/jobs/"));
        assert!(
            jobs.contains("Completed Jobs") && jobs.contains("pages"),
            "{base}: {jobs}"
        );
        if base.ends_with(&format!("redirect/{id}")) {
            continue;
        }
        let stages = page(&on, &format!("{base}/stages/"));
        assert!(stages.contains("Completed Stages"), "{stages}");
        let sql = page(&on, &format!("{base}/SQL/"));
        assert!(
            sql.contains("Completed Queries") && sql.contains("range"),
            "{sql}"
        );
        // This one is filled by scripts from Spark's REST interface, below the same path.
        let executors = page(&on, &format!("{base}/executors/"));
        let logs = links(&executors, "/node/containerlogs/");
        assert!(!logs.is_empty(), "no log links: {executors}");
        for link in logs {
            let shown = page(&on, &link);
            assert!(
                !shown.contains("ERR_") && shown.len() > 60,
                "{link}: {shown}"
            );
        }
        let (status, body) = http_get(&format!("{base}/api/v1/applications"));
        assert!(status == 200 && body.contains(&id), "{status} {body}");
    }
    std::fs::write(&go_on, "").unwrap();
    assert_eq!(started.wait(), 0, "{}", started.errors());
}

#[test]
fn an_event_log_in_the_file_tree_is_shown_by_sparks_history_server() {
    let test = "an_event_log_in_the_file_tree_is_shown_by_sparks_history_server";
    let Some(spark) = needed(test, Spark::three()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    let events = format!("{DATA}/events");
    on.hadoop_fs(&["-mkdir", &events]).must(0);
    on.hadoop_fs(&["-chmod", "1777", &events]).must(0);
    // Spark takes a path without a file system for a local one.
    let there = format!("{}{events}", on.file_system());
    let folder = format!("spark.eventLog.dir={there}");
    let pi = on.spark.example("pi.py");
    let words = [
        "--conf",
        "spark.eventLog.enabled=true",
        "--conf",
        &folder,
        &pi,
        "2",
    ];
    let ended = on.run("cluster", &words, 0);
    let port = free_port();
    let options = [
        format!("-Dspark.history.fs.logDirectory={there}"),
        format!("-Dspark.history.ui.port={port}"),
        "-Dspark.history.fs.update.interval=1s".to_owned(),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let log = on.cluster.dir().join("history.log");
    let mut server = on
        .java(
            "org.apache.spark.deploy.history.HistoryServer",
            &options,
            &[],
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for("the history server to show it", JOB_SECONDS, || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
                return Err(said);
            }
            let (status, body) = http_get(&format!("{url}/api/v1/applications"));
            if status == 200 && body.contains(&ended.id) && body.contains("\"completed\" : true") {
                Ok(())
            } else {
                Err(format!("{status} {body}\n{said}"))
            }
        });
        let (status, body) = http_get(&format!("{url}/api/v1/applications/{}/1/jobs", ended.id));
        assert!(
            status == 200 && body.contains("SUCCEEDED"),
            "{status} {body}"
        );
    }));
    let _ = server.kill();
    let _ = server.wait();
    if let Err(panic) = found {
        std::panic::resume_unwind(panic);
    }
}

/// A port that was free a moment ago: the history server cannot tell the one it chose.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
