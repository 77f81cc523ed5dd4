//! Spark between hosts: nothing is proven by loopback, everything by tokens.

use std::process::Command;

use bobbin_tests::{RunExt, program};
use serde_json::Value;

use crate::spark::{Spark, needed};

#[test]
#[expect(clippy::disallowed_methods, reason = "the script under test")]
fn spark_runs_between_four_hosts_by_tokens_alone() {
    let name = "spark_runs_between_four_hosts_by_tokens_alone";
    let Some(spark) = needed(name, Spark::three()) else {
        return;
    };
    let folder = tempfile::Builder::new()
        .prefix("bobbin-test-")
        .tempdir()
        .unwrap();
    let programs = program("bobbin");
    let run = Command::new("tests/tests/spark/hosts.sh")
        .current_dir(bobbin_tests::root())
        .arg(programs.parent().unwrap())
        .arg(&spark.home)
        .arg(folder.path())
        .arg(std::process::id().to_string())
        .run()
        .expect_code(0);
    let expected = "== without a token\nexit 1\nbobbin token create --hadoop FILE\nweb 401\n\
         == cluster\nexit 0\n== client\nexit 0\nPi is roughly 3\nlogs\n";
    let (words, applications) = run.stdout.split_at(run.stdout.find('[').unwrap_or(0));
    assert_eq!(words, expected, "{run:?}");
    let applications: Value = serde_json::from_str(applications).unwrap();
    let applications = applications.as_array().unwrap();
    assert_eq!(applications.len(), 2, "{run:?}");
    for application in applications {
        assert_eq!(application["final_status"], "SUCCEEDED", "{run:?}");
    }
}
