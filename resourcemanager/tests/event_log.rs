//! Spark's event log over WebHDFS: written by an unmodified Spark for as long as it runs, read
//! while it grows and afterwards by its own HistoryServer.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "test code outside test functions; a test starts the programs that it tests against"
)]

#[expect(dead_code, unused_imports, reason = "shared support")]
mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{Daemon, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A JVM takes its time on a busy machine.
const JVM_PATIENCE: Duration = Duration::from_secs(120);

/// The folder of an unmodified Spark's jars.
fn jars(variable: &str) -> Option<PathBuf> {
    let jars = std::env::var_os(variable).map(PathBuf::from);
    if !jars.as_deref().is_some_and(Path::is_dir) {
        println!("SKIPPED: needs Java and a Spark's jars; set {variable} to their folder");
        return None;
    }
    jars
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon("an answer", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// The files below the log folder, and their bytes together.
async fn logs(daemon: &Daemon, folder: &str) -> (Vec<String>, u64) {
    let (mut names, mut bytes) = (Vec::new(), 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let path = format!("/webhdfs/v1{folder}?op=LISTSTATUS");
        let (status, body) = get(&daemon.http(), &path).await;
        assert_eq!(status, 200, "{body}");
        let (from, to) = (body.find('{').unwrap(), body.rfind('}').unwrap());
        let value: serde_json::Value = serde_json::from_str(&body[from..=to]).unwrap();
        for entry in value["FileStatuses"]["FileStatus"].as_array().unwrap() {
            let name = entry["pathSuffix"].as_str().unwrap();
            if entry["type"] == "DIRECTORY" {
                folders.push(format!("{folder}/{name}"));
            } else {
                names.push(name.to_owned());
                bytes += entry["length"].as_u64().unwrap();
            }
        }
    }
    (names, bytes)
}

async fn put(daemon: &Daemon, path: &str) {
    let address = daemon.http();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "PUT /webhdfs/v1{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
}

/// Asks until the answer is what is waited for.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    // The programs that are waited for need the processors more than the questions do.
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let asking = async {
        loop {
            pace.tick().await;
            if let Some(found) = ask().await {
                return found;
            }
        }
    };
    match tokio::time::timeout(JVM_PATIENCE, asking).await {
        Ok(found) => found,
        Err(_) => panic!("{what} did not come within {JVM_PATIENCE:?}"),
    }
}

/// Waits in the middle of its work until a file is there.
const APPLICATION: &str = "
import os, sys, time
from pyspark.sql import SparkSession
spark = SparkSession.builder.appName('logged').getOrCreate()
print(spark.range(1000).selectExpr('sum(id)').collect()[0][0])
open(sys.argv[1] + '/half', 'w').close()
while not os.path.exists(sys.argv[1] + '/go'):
    time.sleep(0.02)
print(spark.range(10).count())
spark.stop()
";

fn spark(daemon: &Daemon, jars: &Path, folder: &Path, log: &str) -> Running {
    let home = jars.parent().unwrap();
    let program = folder.join("application.py");
    std::fs::write(&program, APPLICATION).unwrap();
    let conf = |key: &str, value: &str| format!("{key}={value}");
    let child = Command::new(home.join("bin/spark-submit"))
        .env("SPARK_HOME", home)
        .env("PYSPARK_PYTHON", "python3")
        .env("PYTHONPATH", home.parent().unwrap())
        .args(["--master", "local[1]"])
        .args(["--conf", "spark.eventLog.enabled=true"])
        .args(["--conf", "spark.ui.enabled=false"])
        .args(["--conf", "spark.eventLog.logBlockUpdates.enabled=true"])
        .args([
            "--conf",
            &conf(
                "spark.eventLog.dir",
                &format!("webhdfs://{}{log}", daemon.http()),
            ),
        ])
        .arg(&program)
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("stderr")).unwrap())
        .spawn()
        .unwrap();
    Running(child)
}

/// Spark's own HistoryServer on that folder, and where its pages are.
fn history_server(daemon: &Daemon, jars: &Path, log: &str) -> (Running, String) {
    let mut child = Command::new("java")
        .arg(format!(
            "-Dspark.history.fs.logDirectory=webhdfs://{}{log}",
            daemon.http()
        ))
        .args([
            "-Dspark.history.ui.port=0",
            "-Dspark.history.fs.update.interval=1s",
        ])
        .arg("-cp")
        .arg(format!("{}/*", jars.display()))
        .arg("org.apache.spark.deploy.history.HistoryServer")
        .env("SPARK_LOCAL_IP", "127.0.0.1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let running = Running(child);
    let mut seen = String::new();
    let port = loop {
        let Some(Ok(line)) = lines.next() else {
            panic!("the HistoryServer ended: {seen}");
        };
        if let Some((_, rest)) = line.split_once("'HistoryServerUI' on port ") {
            break rest.trim_end_matches('.').to_owned();
        }
        seen.push_str(&line);
        seen.push('\n');
    };
    // What it still says must be taken for it to go on.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    (running, format!("127.0.0.1:{port}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn spark_3s_own_history_server_reads_what_it_writes() {
    // One file an application.
    written_and_read("BOBBIN_SPARK_JARS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spark_4s_own_history_server_reads_what_it_writes() {
    // A folder an application, with a file that says how far it is.
    written_and_read("BOBBIN_SPARK4_JARS").await;
}

/// Two JVMs at a time are enough for a small machine.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn written_and_read(variable: &str) {
    let Some(jars) = jars(variable) else { return };
    let _turn = TURN.lock().await;
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let log = format!("/user/{}/spark-events", daemon.user());
    put(&daemon, &format!("{log}?op=MKDIRS&permission=1777")).await;
    let mut application = spark(&daemon, &jars, folder.path(), &log);
    let (_history, pages) = history_server(&daemon, &jars, &log);
    let half = folder.path().join("half");
    let words = || std::fs::read_to_string(folder.path().join("stderr")).unwrap();
    until("the first job", async || {
        let ended = application.0.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}: {}", words());
        half.exists().then_some(())
    })
    .await;
    // While it runs: one file that ends in .inprogress, with the first job in it.
    let early = until("a log in progress", async || {
        let (names, bytes) = logs(&daemon, &log).await;
        let open = names.iter().any(|n| n.ends_with(".inprogress"));
        (open && bytes > 0).then_some(bytes)
    })
    .await;
    let of = async |query: &str| {
        let (status, body) = get(&pages, &format!("/api/v1/applications{query}")).await;
        if status != 200 {
            return None;
        }
        // The server writes pieces; the array is one of them.
        let (from, to) = (body.find('[')?, body.rfind(']')?);
        serde_json::from_str::<serde_json::Value>(&body[from..=to]).ok()
    };
    let unfinished = until("the unfinished application", async || {
        let all = of("?status=running").await?;
        all.get(0).cloned()
    })
    .await;
    assert_eq!(unfinished["name"], "logged");
    assert_eq!(unfinished["attempts"][0]["completed"], false);

    std::fs::write(folder.path().join("go"), "").unwrap();
    let ended = application.0.wait().unwrap();
    assert!(ended.success(), "{ended}: {}", words());
    let (names, bytes) = logs(&daemon, &log).await;
    assert!(
        names.iter().all(|n| !n.ends_with(".inprogress")),
        "{names:?}"
    );
    assert!(bytes > early, "{bytes} after {early}");
    let finished = until("the finished application", async || {
        let all = of("?status=completed").await?;
        all.get(0).cloned()
    })
    .await;
    assert_eq!(finished["id"], unfinished["id"]);
    let id = finished["id"].as_str().unwrap();
    let jobs = until("its jobs", async || {
        let jobs = of(&format!("/{id}/jobs")).await?;
        jobs.as_array().filter(|jobs| !jobs.is_empty()).cloned()
    })
    .await;
    assert!(jobs.len() >= 2, "{jobs:?}");
    assert!(jobs.iter().all(|job| job["status"] == "SUCCEEDED"));
    daemon.stop();
}
