//! A Spark of the target folder, and a cluster that is ready for it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bobbin_tests::{Cluster, Run, RunExt, root, skip_without_root, wait_for};
use serde_json::Value;

/// Folder of the cluster's file tree where the tests put their data.
pub(crate) const DATA: &str = "/tmp/spark-tests";
/// Longest a whole job may take on a busy machine, seconds.
pub(crate) const JOB_SECONDS: u64 = 300;

/// The node's Python, seen by containers under the same path.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// An unmodified Spark as `pip install pyspark` made it.
#[derive(Clone, Debug)]
pub(crate) struct Spark {
    pub(crate) home: PathBuf,
}

impl Spark {
    /// Spark 3.5.4 with Hadoop's client 3.3.
    pub(crate) fn three() -> Option<Spark> {
        Spark::of_jars("BOBBIN_SPARK_JARS", "spark-3.5.4")
    }

    /// Spark 4 with Hadoop's client 3.4.
    pub(crate) fn four() -> Option<Spark> {
        Spark::of_jars("BOBBIN_SPARK4_JARS", "spark-4")
    }

    /// The Spark whose jars a variable names, or that of the target folder.
    fn of_jars(variable: &str, folder: &str) -> Option<Spark> {
        let home = match std::env::var_os(variable) {
            Some(jars) => PathBuf::from(jars).parent()?.to_owned(),
            None => python_packages(&root().join("target").join(folder))?.join("pyspark"),
        };
        home.join("bin/spark-submit")
            .exists()
            .then_some(Spark { home })
    }

    /// A file of Spark's own examples in Python.
    pub(crate) fn example(&self, name: &str) -> String {
        let path = self.home.join("examples/src/main/python").join(name);
        assert!(path.exists(), "{}", path.display());
        path.display().to_string()
    }

    /// The Python of the virtual environment that Spark is installed in.
    pub(crate) fn python(&self) -> PathBuf {
        let venv = self.home.ancestors().nth(4).unwrap();
        venv.join("bin/python3")
    }

    /// A file of the data that comes with Spark's examples.
    pub(crate) fn data(&self, name: &str) -> String {
        let path = self.home.join("data").join(name);
        assert!(path.exists(), "{}", path.display());
        path.display().to_string()
    }
}

/// `FOLDER/lib/python3.x/site-packages`.
fn python_packages(venv: &Path) -> Option<PathBuf> {
    std::fs::read_dir(venv.join("lib"))
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("site-packages"))
        .find(|path| path.exists())
}

/// A file of the target folder that `tests/spark-install` makes.
pub(crate) fn installed(name: &str) -> String {
    let path = root().join("target").join(name);
    assert!(
        path.exists(),
        "{} is missing: run tests/spark-install",
        path.display()
    );
    path.display().to_string()
}

/// A job of this folder.
pub(crate) fn job(name: &str) -> String {
    root()
        .join("tests/tests/spark/jobs")
        .join(name)
        .display()
        .to_string()
}

/// The Sparks of a test, or nothing when it must be skipped, which is said loudly.
pub(crate) fn needed(test: &str, spark: Option<Spark>) -> Option<Spark> {
    if skip_without_root(test) {
        return None;
    }
    if spark.is_none() {
        #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
        {
            eprintln!("SKIPPED: {test} needs Spark: run tests/spark-install");
        }
    }
    spark
}

/// A cluster of two nodes and a Spark that submits to it.
#[derive(Debug)]
pub(crate) struct SparkCluster {
    pub(crate) cluster: Cluster,
    pub(crate) spark: Spark,
    /// Settings of every submission.
    settings: Vec<String>,
}

impl SparkCluster {
    /// A cluster with nothing prepared: what a user finds after `bobbin up`.
    pub(crate) fn bare(spark: Spark) -> SparkCluster {
        SparkCluster {
            cluster: Cluster::up(2),
            spark,
            settings: Vec::new(),
        }
    }

    /// A cluster whose file tree holds Spark's jars for all to read, so that nodes fetch them once.
    pub(crate) fn up(spark: Spark) -> SparkCluster {
        let mut made = SparkCluster::bare(spark);
        let archive = made.jars_in_one_file();
        made.hadoop_fs(&["-mkdir", "-p", DATA]).must(0);
        made.put(&archive.display().to_string(), "jars.zip");
        std::fs::remove_file(archive).unwrap();
        made.hadoop_fs(&["-chmod", "755", DATA]).must(0);
        made.settings = vec![
            format!("spark.yarn.archive={}{DATA}/jars.zip", made.file_system()),
            // Small ones, since a test's executors have little to do and the machine may be small.
            "spark.executor.memory=512m".to_owned(),
            "spark.driver.memory=640m".to_owned(),
        ];
        made
    }

    fn jars_in_one_file(&self) -> PathBuf {
        let archive = self.cluster.dir().join("jars.zip");
        let script = "import os, sys, zipfile\n\
            with zipfile.ZipFile(sys.argv[2], 'w', zipfile.ZIP_STORED) as out:\n\
            \x20   for jar in sorted(os.listdir(sys.argv[1])): out.write(os.path.join(sys.argv[1], jar), jar)\n";
        command(PYTHON)
            .args(["-c", script])
            .arg(self.spark.home.join("jars"))
            .arg(&archive)
            .run()
            .must(0);
        archive
    }

    /// A command in the cluster's environment, with this Spark's variables.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = self.cluster.sh("exec \"$@\"");
        command
            .args(words)
            .env("SPARK_HOME", &self.spark.home)
            .env("PYSPARK_PYTHON", PYTHON)
            .env("SPARK_CONF_DIR", self.cluster.dir().join("spark-conf"));
        command
    }

    /// One of Spark's programs: spark-submit, pyspark, spark-sql, spark-class.
    pub(crate) fn program(&self, name: &str, words: &[&str]) -> Command {
        let path = self.spark.home.join("bin").join(name).display().to_string();
        let mut all = vec![path.as_str()];
        all.extend(words);
        self.command(&all)
    }

    /// `spark-submit --master yarn --deploy-mode MODE WORDS...`.
    pub(crate) fn submit(&self, mode: &str, words: &[&str]) -> Command {
        let mut all = vec!["--master", "yarn", "--deploy-mode", mode];
        for setting in &self.settings {
            all.extend(["--conf", setting]);
        }
        all.extend(words);
        self.program("spark-submit", &all)
    }

    /// Submits, waits for the end, expects `code`; what the driver printed, and the application's id.
    #[track_caller]
    pub(crate) fn run(&self, mode: &str, words: &[&str], code: i32) -> Ended {
        self.run_command(mode, words, self.submit(mode, words), code)
    }

    /// The same without a Python in the environment: the words name it.
    #[track_caller]
    pub(crate) fn run_without_python(&self, mode: &str, words: &[&str], code: i32) -> Ended {
        let mut command = self.submit(mode, words);
        command.env_remove("PYSPARK_PYTHON");
        self.run_command(mode, words, command, code)
    }

    #[track_caller]
    fn run_command(&self, mode: &str, words: &[&str], mut command: Command, code: i32) -> Ended {
        let run = command.run();
        let id = application_id(&run.stderr);
        assert_eq!(
            run.code,
            code,
            "{mode} {words:?}\nstdout:\n{}\nstderr:\n{}\nlogs:\n{}\n{}",
            run.stdout,
            tail(&run.stderr),
            id.as_deref().map_or_else(String::new, |id| self.logs(id)),
            self.cluster.daemon_logs()
        );
        let id = id.unwrap_or_else(|| unreachable!("no application in:\n{}", run.stderr));
        let output = if mode == "cluster" {
            self.driver_output(&id)
        } else {
            run.stdout
        };
        Ended { id, output }
    }

    /// Starts a submission in the background with its output in files of the cluster's folder.
    #[track_caller]
    pub(crate) fn start(&self, mode: &str, words: &[&str]) -> Started {
        let out = self.cluster.dir().join("submit.out");
        let child = self
            .submit(mode, words)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&out).unwrap())
            .stderr(std::fs::File::create(out.with_extension("err")).unwrap())
            .spawn()
            .unwrap();
        Started { child, out }
    }

    /// What the driver of a cluster-mode application printed on stdout, from the last attempt.
    #[track_caller]
    pub(crate) fn driver_output(&self, id: &str) -> String {
        self.cluster
            .run(&["app", "logs", id, "--driver", "--file", "stdout"])
            .expect_code(0)
            .stdout
    }

    /// The ends of all logs of an application, for messages.
    pub(crate) fn logs(&self, id: &str) -> String {
        let run = self.cluster.run(&["app", "logs", id, "--tail", "40"]);
        format!("{}{}", run.stdout, run.stderr)
    }

    /// Puts a file of this host into the data folder, readable by all.
    pub(crate) fn put(&self, file: &str, name: &str) {
        let target = format!("{DATA}/{name}");
        self.hadoop_fs(&["-put", "-f", file, &target]).must(0);
    }

    /// `hadoop fs ARGS...` with the classes of this Spark's jars.
    pub(crate) fn hadoop_fs(&self, words: &[&str]) -> Run {
        self.java("org.apache.hadoop.fs.FsShell", &[], words).run()
    }

    /// A class of Spark's jars with the cluster's Hadoop configuration.
    pub(crate) fn java(&self, class: &str, options: &[&str], words: &[&str]) -> Command {
        let jars = self.spark.home.join("jars").display().to_string();
        let mut command = self
            .cluster
            .sh("classes=$1; shift; exec java -cp \"$HADOOP_CONF_DIR:$classes/*\" \"$@\"");
        command.arg(jars).args(options).arg(class).args(words);
        command
    }

    /// Containers of an application as `bobbin app containers` lists them.
    #[track_caller]
    pub(crate) fn containers(&self, id: &str) -> Vec<Value> {
        let list = self
            .cluster
            .run(&["app", "containers", id, "-o", "json"])
            .expect_code(0)
            .json();
        list.as_array().unwrap().clone()
    }

    /// The process ids of the virtual machines of an application's containers that run `class`.
    pub(crate) fn machines(&self, id: &str, class: &str) -> Vec<i32> {
        java_processes(|arguments| {
            arguments.iter().any(|a| a == class) && arguments.iter().any(|a| a.contains(id))
        })
    }

    /// The application's id once it has that state, with whatever was submitted last.
    pub(crate) fn wait_running(&self, started: &Started) -> String {
        let id = wait_for("an application to be submitted", JOB_SECONDS, || {
            application_id(&started.errors()).ok_or_else(|| started.errors())
        });
        wait_for(&format!("{id} to run"), JOB_SECONDS, || {
            let status = self.cluster.status(&id);
            if status["state"] == "RUNNING" {
                Ok(())
            } else {
                Err(format!("{status}\n{}", tail(&started.errors())))
            }
        });
        id
    }

    /// `http://host:port` of the resource manager, as Hadoop's clients know it.
    pub(crate) fn web(&self) -> String {
        let address = self.property("yarn-site.xml", "yarn.resourcemanager.webapp.address");
        format!("http://{address}")
    }

    /// The cluster's own file system, `webhdfs://host:port`: Spark takes paths without one for local.
    pub(crate) fn file_system(&self) -> String {
        self.property("core-site.xml", "fs.defaultFS")
    }

    #[track_caller]
    fn property(&self, file: &str, name: &str) -> String {
        let text = self
            .cluster
            .sh("cat \"$HADOOP_CONF_DIR/$1\"")
            .arg(file)
            .run()
            .expect_code(0)
            .stdout;
        property(&text, name).unwrap_or_else(|| unreachable!("no {name} in {file}: {text}"))
    }

    /// Settings of every submission, as `key=value`.
    pub(crate) fn settings(&self) -> &[String] {
        &self.settings
    }
}

/// A submission that was waited for.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) id: String,
    /// The driver's standard output.
    pub(crate) output: String,
}

/// A submission in the background; ended when dropped.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) child: Child,
    out: PathBuf,
}

impl Started {
    /// What it wrote on stderr so far.
    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(self.out.with_extension("err")).unwrap_or_default()
    }

    /// What it wrote on stdout so far.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Waits for its end; its exit status, 128+n for a signal.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = wait_for("spark-submit to end", JOB_SECONDS, || {
            match self.child.try_wait().unwrap() {
                Some(status) => Ok(status),
                None => Err(tail(&self.errors())),
            }
        });
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Expectations on a finished command whose output does not matter.
pub(crate) trait Must {
    fn must(self, code: i32);
}

impl Must for Run {
    #[track_caller]
    fn must(self, code: i32) {
        let _ = self.expect_code(code);
    }
}

/// The application that Spark's client says it has submitted.
pub(crate) fn application_id(errors: &str) -> Option<String> {
    let line = errors
        .lines()
        .find(|line| line.contains("Submitted application application_"))?;
    line.split_whitespace().last().map(str::to_owned)
}

/// A property's value in one of Hadoop's configuration files.
fn property(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<name>{name}</name>"))?;
    let (_, value) = rest.split_once("<value>")?;
    Some(value.split_once("</value>")?.0.to_owned())
}

/// The last lines of a log.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// A program outside the cluster's environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the harness runs the programs under test"
)]
pub(crate) fn command(program: &str) -> Command {
    Command::new(program)
}

/// Virtual machines on this host whose arguments satisfy `wanted`.
pub(crate) fn java_processes(wanted: impl Fn(&[String]) -> bool) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let bytes = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments: Vec<String> = bytes
            .split(|b| *b == 0)
            .map(|a| String::from_utf8_lossy(a).into_owned())
            .collect();
        let java = arguments
            .first()
            .is_some_and(|a| a == "java" || a.ends_with("/java"));
        if java && wanted(&arguments) {
            found.push(pid);
        }
    }
    found
}

/// Processes of the host, without zombies, whose environment names an application.
pub(crate) fn processes_of(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(id) {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let shown = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(format!("{}: {shown}", entry.file_name().display()));
        }
    }
    found
}

/// Waits until nothing of an application runs any more: in client mode its master ends a moment after
/// the driver.
#[track_caller]
pub(crate) fn wait_gone(id: &str) {
    wait_for(&format!("everything of {id} to be gone"), 60, || {
        let left = processes_of(id);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:#?}"))
        }
    });
}

/// A plain GET; status and body. `url` is `http://host:port/path`.
pub(crate) fn http_get(url: &str) -> (u16, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(
        stream,
        "GET /{path} HTTP/1.0\r\nHost: {host}\r\nAccept: */*\r\n\r\n"
    )
    .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text
        .split_whitespace()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| unreachable!("no HTTP from {url}: {text:?}"));
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}
