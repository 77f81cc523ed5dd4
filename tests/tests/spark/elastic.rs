//! Dynamic allocation without a shuffle service: executors follow the load.

use bobbin_tests::wait_for;

use crate::spark::{JOB_SECONDS, Spark, SparkCluster, job, needed};

/// Containers of the application that hold room now, the master's included.
fn living(on: &SparkCluster, id: &str) -> u64 {
    on.cluster.status(id)["containers"].as_u64().unwrap()
}

fn wait_living(on: &SparkCluster, id: &str, what: &str, wanted: impl Fn(u64) -> bool) {
    wait_for(what, JOB_SECONDS, || {
        let now = living(on, id);
        if wanted(now) {
            Ok(())
        } else {
            Err(format!("{now} containers: {:#?}", on.containers(id)))
        }
    });
}

#[test]
fn executors_follow_the_load_up_and_down() {
    let Some(spark) = needed("executors_follow_the_load_up_and_down", Spark::three()) else {
        return;
    };
    let on = SparkCluster::up(spark);
    let go_on = on.cluster.dir().join("go-on");
    let mut words = Vec::new();
    for setting in [
        "spark.dynamicAllocation.enabled=true",
        "spark.dynamicAllocation.shuffleTracking.enabled=true",
        "spark.dynamicAllocation.shuffleTracking.timeout=3s",
        "spark.dynamicAllocation.minExecutors=1",
        "spark.dynamicAllocation.maxExecutors=3",
        "spark.dynamicAllocation.executorIdleTimeout=2s",
    ] {
        words.extend(["--conf", setting]);
    }
    let (script, file) = (job("elastic.py"), go_on.display().to_string());
    words.extend([script.as_str(), file.as_str()]);
    let mut started = on.start("client", &words);
    let id = on.wait_running(&started);
    wait_living(&on, &id, "a master and three executors", |n| n == 4);
    wait_living(&on, &id, "a master and the minimum of executors", |n| {
        n == 2
    });
    let released = on
        .containers(&id)
        .iter()
        .filter(|c| {
            c["state"] == "RELEASED" || c["exit_status"] == -100 || c["exit_status"] == -105
        })
        .count();
    assert_eq!(released, 2, "{:#?}", on.containers(&id));
    assert!(started.output().contains("first 3"), "{}", started.output());
    std::fs::write(&go_on, "").unwrap();
    wait_living(&on, &id, "executors again", |n| n >= 3);
    assert_eq!(started.wait(), 0, "{}", started.errors());
    assert!(
        started.output().contains("second 3"),
        "{}",
        started.output()
    );
}
