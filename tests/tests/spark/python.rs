//! A Python environment that travels with the job: numpy, pandas and pyarrow by `--archives`.

use crate::spark::{DATA, Spark, SparkCluster, installed, job, needed};

const INSIDE: &str = "./environment/bin/python";

/// Settings that make driver and executors use the Python of the archive.
fn settings(on: &SparkCluster, mode: &str) -> Vec<String> {
    let mut words = vec![
        "--archives".to_owned(),
        // Already in the cluster's file tree and readable by all: fetched once by each node.
        format!("{}{DATA}/python.tar.gz#environment", on.file_system()),
    ];
    let here = installed("spark-python/bin/python");
    let settings: &[(&str, &str)] = match mode {
        "cluster" => &[("spark.yarn.appMasterEnv.PYSPARK_PYTHON", INSIDE)],
        _ => &[
            ("spark.pyspark.driver.python", &here),
            ("spark.pyspark.python", INSIDE),
        ],
    };
    for (key, value) in settings {
        words.extend(["--conf".to_owned(), format!("{key}={value}")]);
    }
    words
}

fn run(on: &SparkCluster, mode: &str, program: &[&str]) -> String {
    let settings = settings(on, mode);
    let mut words: Vec<&str> = settings.iter().map(String::as_str).collect();
    words.extend(program);
    // The archive's Python is named by settings only.
    on.run_without_python(mode, &words, 0).output
}

fn pandas_in(on: &SparkCluster, mode: &str) {
    let output = run(on, mode, &["--num-executors", "2", &job("vectors.py")]);
    let python = output
        .lines()
        .find(|l| l.starts_with("python "))
        .unwrap_or_default();
    assert!(
        python.contains("/environment numpy 1.26.4 pyarrow 17.0.0")
            && python.contains("/appcache/"),
        "{output}"
    );
    assert!(output.contains("squares 338350"), "{output}");
    assert!(
        output.contains("means [(0, 48.0), (1, 49.0), (2, 50.0), (3, 51.0)]"),
        "{output}"
    );
}

#[test]
fn spark_3_takes_a_python_environment_along() {
    let Some(spark) = needed("spark_3_takes_a_python_environment_along", Spark::three()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    on.put(&installed("spark-python.tar.gz"), "python.tar.gz");
    on.put(&on.spark.data("mllib/kmeans_data.txt"), "kmeans.txt");
    for mode in ["client", "cluster"] {
        pandas_in(&on, mode);
        let points = format!("{DATA}/kmeans.txt");
        let output = run(
            &on,
            mode,
            &[&on.spark.example("kmeans.py"), &points, "2", "0.1"],
        );
        let centers = output
            .lines()
            .find(|l| l.starts_with("Final centers"))
            .unwrap_or_default();
        // The two groups of the file lie around 0.1 and 9.1.
        assert!(
            centers.contains("0.1") && centers.contains("9.1"),
            "{output}"
        );
    }
}

#[test]
fn spark_4_takes_a_python_environment_along() {
    let Some(spark) = needed("spark_4_takes_a_python_environment_along", Spark::four()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    on.put(&installed("spark-python.tar.gz"), "python.tar.gz");
    pandas_in(&on, "cluster");
}
