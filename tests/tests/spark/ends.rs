//! Drivers, executors and applications that are killed.

use bobbin_tests::{Run, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::spark::{
    JOB_SECONDS, Spark, SparkCluster, java_processes, job, needed, processes_of, wait_gone,
};

const DRIVER: &str = "org.apache.spark.deploy.yarn.ApplicationMaster";
const EXECUTOR: &str = "org.apache.spark.executor.YarnCoarseGrainedExecutorBackend";
/// Sum of 0 to 29.
const RESULT: &str = "sum 435";

fn kill_9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// The one virtual machine of `class`, once it is there.
fn machine(on: &SparkCluster, id: &str, class: &str, at_least: usize) -> i32 {
    wait_for(&format!("{at_least} of {class}"), JOB_SECONDS, || {
        let found = on.machines(id, class);
        if found.len() >= at_least {
            Ok(found[0])
        } else {
            Err(format!("{found:?}\n{}", on.logs(id)))
        }
    })
}

#[test]
fn a_killed_cluster_mode_driver_is_relaunched_and_the_job_ends() {
    let test = "a_killed_cluster_mode_driver_is_relaunched_and_the_job_ends";
    let Some(spark) = needed(test, Spark::three()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    let mut started = on.start(
        "cluster",
        &["--num-executors", "2", &job("slow.py"), "30", "0.3"],
    );
    let id = on.wait_running(&started);
    on.cluster.wait_log(&id, "started");
    let _executor = machine(&on, &id, EXECUTOR, 1);
    let first = on.machines(&id, EXECUTOR);
    kill_9(machine(&on, &id, DRIVER, 1));
    assert_eq!(started.wait(), 0, "{}", started.errors());
    let output = on.driver_output(&id);
    assert!(
        output.contains("attempt 2") && output.contains(RESULT),
        "{output}"
    );
    let status = on.cluster.status(&id);
    assert_eq!(status["final_status"], "SUCCEEDED", "{status}");
    assert_eq!(status["attempts"].as_array().unwrap().len(), 2, "{status}");
    // Nothing of attempt 1 worked for attempt 2.
    let old: Vec<_> = on
        .containers(&id)
        .into_iter()
        .filter(|c| c["id"].as_str().unwrap().contains("_01_0"))
        .collect();
    assert!(old.iter().all(|c| c["exit_status"] != 0), "{old:?}");
    assert!(!first.is_empty());
    wait_gone(&id);
}

#[test]
fn a_killed_executor_is_replaced_and_the_result_is_the_same() {
    let test = "a_killed_executor_is_replaced_and_the_result_is_the_same";
    let Some(spark) = needed(test, Spark::three()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    let mut started = on.start(
        "cluster",
        &["--num-executors", "2", &job("slow.py"), "30", "0.4"],
    );
    let id = on.wait_running(&started);
    on.cluster.wait_log(&id, "started");
    kill_9(machine(&on, &id, EXECUTOR, 2));
    assert_eq!(started.wait(), 0, "{}", started.errors());
    assert!(
        on.driver_output(&id).contains(RESULT),
        "{}",
        on.driver_output(&id)
    );
    let containers = on.containers(&id);
    assert_eq!(
        containers.len(),
        4,
        "master, two executors and one for the lost: {containers:?}"
    );
    assert!(
        containers.iter().any(|c| c["exit_status"] == 137),
        "{containers:?}"
    );
    assert_eq!(
        on.cluster.status(&id)["attempts"].as_array().unwrap().len(),
        1
    );
}

#[test]
fn a_killed_client_mode_driver_leaves_nothing_running() {
    let test = "a_killed_client_mode_driver_leaves_nothing_running";
    let Some(spark) = needed(test, Spark::three()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    let mut started = on.start(
        "client",
        &["--num-executors", "2", &job("slow.py"), "4000", "0.5"],
    );
    let id = on.wait_running(&started);
    let _both = machine(&on, &id, EXECUTOR, 2);
    // The submitting script has become the virtual machine.
    let driver = started.child.id();
    let mark = on.cluster.dir().display().to_string();
    let machines = java_processes(|a| a.iter().any(|a| a == "org.apache.spark.deploy.SparkSubmit"));
    let mut killed = 0;
    for pid in machines {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(&mark) {
            kill_9(pid);
            killed += 1;
        }
    }
    assert_eq!(killed, 1, "the driver is {driver}");
    assert_eq!(started.wait(), 137);
    wait_gone(&id);
    let status = on.cluster.status(&id);
    assert_ne!(status["state"], "RUNNING", "{status}");
}

#[test]
fn a_killed_application_ends_its_submission_with_1() {
    let test = "a_killed_application_ends_its_submission_with_1";
    let Some(spark) = needed(test, Spark::three()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    let mut started = on.start("cluster", &[&job("slow.py"), "4000", "0.5"]);
    let id = on.wait_running(&started);
    on.cluster.wait_log(&id, "started");
    let killed: Run = on.cluster.run(&["app", "kill", &id]).expect_code(0);
    assert_eq!(processes_of(&id), Vec::<String>::new(), "{killed:?}");
    assert_eq!(started.wait(), 1);
    assert!(
        started.errors().contains("is killed") || started.errors().contains("KILLED"),
        "{}",
        started.errors()
    );
    assert_eq!(on.cluster.status(&id)["state"], "KILLED");
}
