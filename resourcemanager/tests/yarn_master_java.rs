//! The scheduler's door of the real binary, called by Hadoop's own `AMRMClient`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code outside test functions: an error there ends the test"
)]

#[expect(
    dead_code,
    unused_imports,
    reason = "test code outside test functions: shared support"
)]
mod support;

use bobbin_proto::v1;
use support::Agent;
use support::java::{Commands, contains, jars};
use support::stage::Stage;

/// The words behind `what` in an answer.
fn words<'a>(answer: &'a str, what: &str) -> Vec<&'a str> {
    let line = answer.lines().find_map(|line| line.strip_prefix(what));
    line.unwrap_or_else(|| panic!("no '{what}' in {answer}"))
        .split_whitespace()
        .collect()
}

/// The ids of the containers in an answer.
fn granted(answer: &str) -> Vec<String> {
    let ids = words(answer, "granted").into_iter();
    ids.map(|word| word.split('@').next().unwrap().to_owned())
        .collect()
}

/// Heartbeats until the line `what` has a word.
fn until(master: &mut Commands, what: &str) -> String {
    for _ in 0..2_000 {
        let answer = master.good("allocate", &[]);
        if !words(&answer, what).is_empty() {
            return answer;
        }
    }
    panic!("nothing {what} in 2000 heartbeats");
}

async fn a_life(test: &str, variable: &str) {
    let Some(jars) = jars(test, variable) else {
        return;
    };
    let mut stage = Stage::new().await;
    let site = [
        (
            "yarn.resourcemanager.scheduler.address",
            stage.daemon.yarn("scheduler"),
        ),
        (
            "yarn.resourcemanager.connect.retry-interval.ms",
            "100".to_owned(),
        ),
    ];
    let tokens = stage.launch.secrets["container_tokens"].clone();
    let mut master = Commands::start("YarnMaster", &jars, &site, Some(&tokens));
    let registered = ["queue=default largest=4096 key=32 kinds=[MEMORY, CPU] lists=2"];
    master.good("register", &registered);

    // At once, with the node's token; a second answer holds nothing new.
    master.good("ask 2 256", &[]);
    let answer = master.good("allocate", &["nodes=1 room=3456", "preempt=true"]);
    let ids = granted(&answer);
    assert_eq!(ids.len(), 2, "{answer}");
    let grant = format!("{}@h1:8041/ContainerToken/token:true", ids[0]);
    contains("allocate", &answer, &[&grant]);
    assert!(granted(&master.good("allocate", &[])).is_empty());

    // Another size, when it runs.
    stage.agent.runs(&ids[1], 256).await;
    master.good(&format!("resize {} 300", ids[1]), &[]);
    let mut answer = master.good("allocate", &[]);
    while words(&answer, "updated").is_empty() {
        assert!(!words(&answer, "refused").is_empty(), "{answer}");
        master.good(&format!("resize {} 300", ids[1]), &[]);
        answer = master.good("allocate", &[]);
    }
    contains("allocate", &answer, &["updated INCREASE_RESOURCE:300:1"]);

    what_it_may_not(&mut master);

    // A node comes; hosts that are avoided, and hosts that alone will do.
    let _second = Agent::attach(&stage.daemon, &mut stage.client, "h2:8041").await;
    let answer = until(&mut master, "changed");
    contains("allocate", &answer, &["h2:8041:RUNNING:NODE_USABLE"]);
    master.good("avoid h1", &[]);
    master.good("ask 2 128", &[]);
    let answer = master.good("allocate", &["nodes=2"]);
    assert_eq!(answer.matches("@h2:8041").count(), 2, "{answer}");
    master.good("accept h1", &[]);
    master.good("ask 1 64 h1", &[]);
    let answer = master.good("allocate", &[]);
    assert_eq!(answer.matches("@h1:8041").count(), 1, "{answer}");

    // The resource manager dies: the client registers by itself, and what is wanted is wanted still.
    stage.daemon.keep_scheduler_port();
    stage.daemon.kill_and_start();
    let running = [stage.master.as_str(), &ids[0], &ids[1]];
    stage.agent.attach_again(&stage.daemon, &running).await;
    master.good("ask 1 512", &[]);
    let answer = until(&mut master, "granted");
    assert_eq!(granted(&answer).len(), 1, "{answer}");
    master.good(&format!("release {}", ids[0]), &[]);
    master.good("allocate", &[]);
    stage.agent.stopped(&ids[0]).await;
    stage.agent.exited(&ids[0], -100).await;
    let ended = format!("{}:-100:COMPLETE", ids[0]);
    let answer = until(&mut master, "ended");
    contains("allocate", &answer, &[&ended]);

    master.good("finish", &["finished"]);
    let request = v1::GetApplicationRequest {
        application_id: stage.application.clone(),
    };
    let report = stage
        .client
        .get_application(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (report.state.as_str(), report.final_status.as_str()),
        ("FINISHED", "SUCCEEDED")
    );
}

fn what_it_may_not(master: &mut Commands) {
    master.good("ask 1 1000000", &[]);
    master.bad(
        "allocate",
        &["InvalidResourceRequestException", "more than any node has"],
    );
    master.good("forget", &[]);
    master.good("allocate", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_of_hadoop_3_3() {
    a_life("a_master_of_hadoop_3_3", "BOBBIN_SPARK_JARS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_of_hadoop_3_4() {
    a_life("a_master_of_hadoop_3_4", "BOBBIN_SPARK4_JARS").await;
}
