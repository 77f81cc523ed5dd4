//! The shells on a pseudo terminal: typed lines, answers, a clean end.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use bobbin_tests::wait_for;

use crate::spark::{JOB_SECONDS, Spark, SparkCluster, needed, wait_gone};

/// A shell behind a pseudo terminal of `script(1)`; ended when dropped.
#[derive(Debug)]
struct Terminal {
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn open(on: &SparkCluster, program: &str, settings: &[&str]) -> Terminal {
        let path = on.spark.home.join("bin").join(program);
        let words = settings.join(" ");
        let line = format!("{} --master yarn {words}", path.display());
        let mut child = on
            .command(&["script", "-qefc", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env("TERM", "dumb")
            // The shell's own modules are where pip put them.
            .env("PYSPARK_DRIVER_PYTHON", on.spark.python())
            .spawn()
            .unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut output, copy) = (child.stdout.take().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                copy.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Terminal { child, shown }
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Waits until the terminal shows `text` at least `times` times.
    #[track_caller]
    fn expect(&self, text: &str, times: usize) {
        wait_for(&format!("'{text}' on the terminal"), JOB_SECONDS, || {
            let shown = self.shown();
            if shown.matches(text).count() >= times {
                Ok(())
            } else {
                Err(shown)
            }
        });
    }

    fn types(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
        input.flush().unwrap();
    }

    #[track_caller]
    fn ends(&mut self) -> i32 {
        wait_for("the shell to end", JOB_SECONDS, || {
            match self.child.try_wait().unwrap() {
                Some(status) => Ok(status.code().unwrap_or(-1)),
                None => Err(self.shown()),
            }
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The only running application.
fn application(on: &SparkCluster) -> String {
    let list = on
        .cluster
        .run(&["app", "list", "-o", "json"])
        .expect_code(0)
        .json();
    let id = list[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(list[0]["state"], "RUNNING", "{list}");
    id
}

#[test]
fn both_shells_answer_on_a_terminal() {
    let Some(spark) = needed("both_shells_answer_on_a_terminal", Spark::three()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    let settings: Vec<String> = on
        .settings()
        .iter()
        .map(|s| format!("--conf {s}"))
        .collect();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();

    let mut python = Terminal::open(&on, "pyspark", &settings);
    python.expect(">>> ", 1);
    python.types("print('total', sc.parallelize(range(101)).sum())");
    python.expect("total 5050", 1);
    let id = application(&on);
    python.types("exit()");
    assert_eq!(python.ends(), 0, "{}", python.shown());
    wait_gone(&id);
    assert_eq!(
        on.cluster.wait_state(&id, "FINISHED")["final_status"],
        "SUCCEEDED"
    );

    let metastore = on.cluster.dir().join("metastore");
    std::fs::create_dir(&metastore).unwrap();
    let derby = format!(
        "--conf spark.driver.extraJavaOptions=-Dderby.system.home={} --conf spark.sql.warehouse.dir=file://{}",
        metastore.display(),
        metastore.display()
    );
    let mut sql = Terminal::open(&on, "spark-sql", &[&settings[..], &[&derby]].concat());
    sql.expect("spark-sql", 1);
    sql.types("SELECT concat('total ', sum(id)) FROM range(101);");
    sql.expect("total 5050", 1);
    let id = application(&on);
    sql.types("quit;");
    assert_eq!(sql.ends(), 0, "{}", sql.shown());
    assert_eq!(
        on.cluster.wait_state(&id, "FINISHED")["final_status"],
        "SUCCEEDED"
    );
}
