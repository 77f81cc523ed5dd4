//! YARN's own command line classes and client library against the real binary.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside test functions: an error there ends the test"
)]

#[expect(
    clippy::panic,
    dead_code,
    unused_imports,
    reason = "test code outside test functions: an error there ends the test; shared support"
)]
mod support;

use std::path::Path;

use bobbin_proto::v1;
use support::java::{Commands, jars};
use support::{Agent, Daemon, wait_for_state};

const NODE: &str = "h1:8041";

fn commands(jars: &Path, daemon: &Daemon, token_file: Option<&[u8]>) -> Commands {
    let site = [
        ("yarn.resourcemanager.address", daemon.yarn("client")),
        ("yarn.resourcemanager.admin.address", daemon.yarn("admin")),
        ("yarn.resourcemanager.webapp.address", daemon.http()),
    ];
    Commands::start("YarnCommands", jars, &site, token_file)
}

/// One application's life, seen and changed by the command line's classes.
async fn a_life(test: &str, variable: &str) {
    let Some(jars) = jars(test, variable) else {
        return;
    };
    let daemon = Daemon::start();
    let mut grpc = daemon.client().await;
    let mut agent = Agent::attach(&daemon, &mut grpc, NODE).await;
    let mut yarn = commands(&jars, &daemon, None);
    let id = yarn
        .good("call:submit first", &["application_"])
        .trim()
        .to_owned();
    let (container, launch) = agent.started().await;
    assert_eq!(launch.argv, ["sleep 60"]);
    assert_eq!(launch.environment["KEY"], "{{PWD}}");
    assert_eq!(launch.local_resources[0].source, "file:/etc/hosts");
    let attempt = format!("{}_000001", id.replace("application", "appattempt"));
    let user = daemon.user();
    yarn.good(
        "ApplicationCLI application -list",
        &[&id, "first TEST", user, "ACCEPTED"],
    );
    yarn.good(
        "ApplicationCLI application -list -appTypes test -appTags TWO -appStates ALL",
        &["number of applications", &id],
    );
    let none = yarn.good(
        "ApplicationCLI application -list -appTypes OTHER",
        &["tags: []):0"],
    );
    assert!(!none.contains(&id), "{none}");
    let tracking =
        format!("Application-Type : TEST User : {user} Queue : default Application Priority : 3");
    yarn.good(
        &format!("ApplicationCLI application -status {id}"),
        &[
            &tracking,
            "State : ACCEPTED",
            "AM Host : N/A",
            "ExpiryTime : UNLIMITED",
        ],
    );
    yarn.good(
        &format!("ApplicationCLI applicationattempt -list {id}"),
        &["application attempts :1", &attempt, "LAUNCHED", &container],
    );
    yarn.good(
        &format!("ApplicationCLI applicationattempt -status {attempt}"),
        &["State : LAUNCHED", &format!("AMContainer : {container}")],
    );
    yarn.good(
        &format!("ApplicationCLI container -list {attempt}"),
        &["containers :1", &container, "RUNNING", NODE],
    );
    yarn.good(
        &format!("ApplicationCLI container -status {container}"),
        &["State : RUNNING", &format!("Host : {NODE}")],
    );
    changes(&mut yarn, &id);
    yarn.good(
        &format!("ApplicationCLI container -signal {container} OUTPUT_THREAD_DUMP"),
        &["Signalling container"],
    );
    agent
        .signaled(&container, v1::ContainerSignal::ThreadDump)
        .await;
    cluster(&mut yarn, &id);

    // The kill is asked for again and again until nothing runs.
    let ending = tokio::spawn(async move {
        agent.stopped(&container).await;
        agent.exited(&container, 143).await;
        agent
    });
    yarn.good(
        &format!("ApplicationCLI application -kill {id}"),
        &["Killing application"],
    );
    ending.await.unwrap();
    wait_for_state(&mut grpc, &id, "KILLED").await;
    yarn.good(
        &format!("ApplicationCLI application -status {id}"),
        &["State : KILLED", "Final-State : KILLED", "killed by user"],
    );
    yarn.good(
        &format!("ApplicationCLI application -kill {id}"),
        &["has already finished"],
    );
    daemon.stop();
}

fn changes(yarn: &mut Commands, id: &str) {
    yarn.good(
        &format!("ApplicationCLI application -appId {id} -updatePriority 7"),
        &["with priority '7'"],
    );
    yarn.good(
        &format!("ApplicationCLI application -appId {id} -updateLifetime 600"),
        &["Successfully updated LIFETIME", "+0000"],
    );
    yarn.good(
        &format!("ApplicationCLI application -movetoqueue {id} -queue default"),
        &["Successfully completed move"],
    );
    yarn.bad(
        &format!("ApplicationCLI application -appId {id} -changeQueue night"),
        &["YarnException: no queue 'night'; there is default"],
    );
    yarn.good(
        &format!("ApplicationCLI application -status {id}"),
        &["Application Priority : 7", "RemainingTime : 5"],
    );
    let unknown = "application_5_0001";
    yarn.bad(
        &format!("ApplicationCLI application -status {unknown}"),
        &["doesn't exist in RM"],
    );
    yarn.bad(
        &format!("ApplicationCLI application -kill {unknown}"),
        &["doesn't exist in RM"],
    );
    yarn.bad(
        "call:submit large huge",
        &["InvalidResourceRequestException", "largest nodes have"],
    );
}

/// What is not about one application.
fn cluster(yarn: &mut Commands, id: &str) {
    yarn.good("NodeCLI -list -all", &["Total Nodes:1", NODE, "RUNNING"]);
    yarn.good(
        &format!("NodeCLI -status {NODE}"),
        &[
            "Node-State : RUNNING",
            "Memory-Used : 256MB",
            "Memory-Capacity : 4096MB",
        ],
    );
    yarn.good(
        "QueueCLI -status default",
        &["State : RUNNING", "Capacity : 100.00%"],
    );
    yarn.good("QueueCLI -status root", &["State : RUNNING"]);
    yarn.bad(
        "QueueCLI -status night",
        &["Cannot get queue from RM by queueName = night"],
    );
    yarn.good("ClusterCLI -lnl", &["Node Labels:"]);
    yarn.good(
        "call:top",
        &[
            "nodes 1/1",
            "pending 1 allocated 256 MB 1 vcores 1 containers, available 3840",
            "queue default RUNNING 1.0",
            &format!("app {id} 256 MB 1 of 256"),
        ],
    );
    yarn.good(
        "call:cluster",
        &[
            "SUBMIT_APPLICATIONS",
            "types {memory-mb=Mi, vcores=}",
            "labels []{}{}",
            "nodes 1 0",
        ],
    );
    yarn.good("call:token", &["RM_DELEGATION_TOKEN for 127.0.0.1:"]);
    yarn.bad(
        "call:reserve",
        &["YarnException: Bobbin does not offer getNewReservation"],
    );
    yarn.bad(
        "call:profiles",
        &["YarnException: Bobbin does not offer getResourceProfiles"],
    );
    if nix::unistd::geteuid().is_root() {
        yarn.good("RMAdminCLI -getGroups root", &["root : root"]);
        yarn.good("RMAdminCLI -refreshUserToGroupsMappings", &[]);
        yarn.bad(
            "RMAdminCLI -refreshQueues",
            &["Bobbin does not offer refreshQueues"],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn yarns_own_commands() {
    a_life("yarns_own_commands", "BOBBIN_SPARK_JARS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn yarns_own_commands_of_hadoop_3_4() {
    a_life("yarns_own_commands_of_hadoop_3_4", "BOBBIN_SPARK4_JARS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_proves_its_user() {
    let Some(jars) = jars("a_token_file_proves_its_user", "BOBBIN_SPARK_JARS") else {
        return;
    };
    let daemon = Daemon::start();
    let mut grpc = daemon.client().await;
    let _agent = Agent::attach(&daemon, &mut grpc, NODE).await;
    let request = v1::CreateTokenRequest {
        subject: Some(v1::create_token_request::Subject::User("carol".to_owned())),
        valid_ms: 60_000,
        hadoop: true,
    };
    let file = grpc
        .create_token(request)
        .await
        .unwrap()
        .into_inner()
        .hadoop_credentials;
    let mut carol = commands(&jars, &daemon, Some(&file));
    let id = carol
        .good("call:submit hers", &["application_"])
        .trim()
        .to_owned();
    carol.good("ApplicationCLI application -list", &[&id, "carol"]);
    carol.bad(
        "call:token",
        &["AccessControlException: a token cannot make another one"],
    );
    let unmanaged = carol.good("call:submit driver unmanaged", &["YARN_AM_RM_TOKEN"]);
    let unmanaged = unmanaged.lines().next().unwrap().to_owned();
    carol.good(
        &format!("ApplicationCLI application -status {unmanaged}"),
        &["State : ACCEPTED", "Unmanaged Application : true"],
    );
    daemon.stop();
}
