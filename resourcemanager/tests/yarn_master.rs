//! The scheduler's door (8030) of the real binary, called as Hadoop's client library does.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside test functions: an error there ends the test"
)]

#[expect(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    unused_imports,
    reason = "test code outside test functions: an error there ends the test; shared support"
)]
mod support;

use bobbin_hadoop::proto::common::Token;
use bobbin_hadoop::proto::yarn;
use bobbin_service::{hadoop_keys, wall_now};
use support::hadoop::{Ipc, Thrown};
use support::stage::{NODE, Stage};
use support::{Agent, Daemon, wait_for_state};

const PROTOCOL: &str = "org.apache.hadoop.yarn.api.ApplicationMasterProtocolPB";

async fn connect(stage: &Stage) -> Result<Ipc, Thrown> {
    let address = stage.daemon.yarn("scheduler");
    Ipc::with_token(&address, PROTOCOL, &stage.token()).await
}

async fn registered(stage: &Stage) -> Ipc {
    let mut ipc = connect(stage).await.unwrap();
    register(&mut ipc).await.unwrap();
    ipc
}

async fn register(ipc: &mut Ipc) -> Result<yarn::RegisterApplicationMasterResponse, Thrown> {
    let request = yarn::RegisterApplicationMasterRequest {
        host: Some("127.0.0.1".to_owned()),
        rpc_port: Some(-1),
        tracking_url: Some("http://127.0.0.1:4040".to_owned()),
        placement_constraints: Vec::new(),
    };
    ipc.call("registerApplicationMaster", &request).await
}

fn heartbeat(response_id: i32) -> yarn::AllocateRequest {
    yarn::AllocateRequest {
        response_id: Some(response_id),
        progress: Some(0.5),
        ..yarn::AllocateRequest::default()
    }
}

fn asking(response_id: i32, containers: i32, memory: i64) -> yarn::AllocateRequest {
    let ask = yarn::ResourceRequest {
        priority: Some(yarn::Priority { priority: Some(7) }),
        resource_name: Some("*".to_owned()),
        capability: Some(yarn::Resource {
            memory: Some(memory),
            virtual_cores: Some(1),
            resource_value_map: Vec::new(),
        }),
        num_containers: Some(containers),
        relax_locality: Some(true),
        allocation_request_id: Some(0),
        ..yarn::ResourceRequest::default()
    };
    yarn::AllocateRequest {
        ask: vec![ask],
        ..heartbeat(response_id)
    }
}

async fn allocate(
    ipc: &mut Ipc,
    request: &yarn::AllocateRequest,
) -> Result<yarn::AllocateResponse, Thrown> {
    ipc.call("allocate", request).await
}

/// Calls until an end of a container is in the answer: the agent's word goes another way.
async fn until_completed(ipc: &mut Ipc, response_id: &mut i32) -> yarn::ContainerStatus {
    let calls = async {
        loop {
            let answer = allocate(ipc, &heartbeat(*response_id)).await.unwrap();
            *response_id = answer.response_id();
            if let [ended] = answer.completed_container_statuses.as_slice() {
                return ended.clone();
            }
        }
    };
    support::soon("the end of a container", calls).await
}

async fn farewell(ipc: &mut Ipc) -> Result<bool, Thrown> {
    let request = yarn::FinishApplicationMasterRequest {
        diagnostics: Some("done".to_owned()),
        tracking_url: Some("http://history/1".to_owned()),
        final_application_status: Some(yarn::FinalApplicationStatus::AppSucceeded.into()),
    };
    let answer: yarn::FinishApplicationMasterResponse =
        ipc.call("finishApplicationMaster", &request).await?;
    Ok(answer.is_unregistered())
}

fn text(id: &yarn::ContainerId) -> String {
    bobbin_types::ContainerId::try_from(id).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_master() {
    let mut stage = Stage::new().await;
    let environment = &stage.launch.environment;
    let base = format!("/proxy/{}", stage.application);
    assert_eq!(environment["APPLICATION_WEB_PROXY_BASE"], base);
    assert_eq!(environment["MAX_APP_ATTEMPTS"], "2");
    assert!(environment["APP_SUBMIT_TIME_ENV"].parse::<u64>().unwrap() > 1_600_000_000_000);
    assert!(!stage.launch.secrets.contains_key("attempt-token"));

    let mut ipc = connect(&stage).await.unwrap();
    let early = allocate(&mut ipc, &heartbeat(0)).await.unwrap_err();
    assert_eq!(early.name(), "ApplicationMasterNotRegisteredException");
    let early = farewell(&mut ipc).await.unwrap_err();
    assert_eq!(early.name(), "ApplicationMasterNotRegisteredException");
    let answer = register(&mut ipc).await.unwrap();
    assert_eq!(answer.maximum_capability.unwrap().memory(), 4096);
    assert_eq!(answer.queue.unwrap(), "default");
    assert_eq!(answer.client_to_am_token_master_key.unwrap().len(), 32);
    assert_eq!(answer.scheduler_resource_types, [0, 1]);
    let report = wait_for_state(&mut stage.client, &stage.application, "RUNNING").await;
    assert_eq!(report.state, "RUNNING");

    // Granted in the same answer.
    let answer = allocate(&mut ipc, &asking(0, 2, 256)).await.unwrap();
    assert_eq!((answer.response_id(), answer.num_cluster_nodes()), (1, 1));
    assert_eq!(answer.allocated_containers.len(), 2);
    assert_eq!(answer.nm_tokens.len(), 1);
    assert!(answer.preempt.is_some() && answer.am_rm_token.is_none());
    assert_eq!(answer.limit.as_ref().unwrap().memory(), 4096 - 128 - 512);
    let keys = hadoop_keys(&stage.daemon.secret().for_node(NODE), wall_now());
    let at_node = answer.nm_tokens[0].token.clone().unwrap();
    let said: yarn::NmTokenIdentifier = keys.verify(&at_node).unwrap();
    assert_eq!(said.app_submitter(), stage.daemon.user());
    let container = &answer.allocated_containers[0];
    assert_eq!(container.priority.as_ref().unwrap().priority(), 7);
    assert_eq!(container.allocation_request_id(), 0);
    let token = container.container_token.clone().unwrap();
    let said: yarn::ContainerTokenIdentifier = keys.verify(&token).unwrap();
    assert_eq!(said.container_id, container.id);
    assert_eq!(said.nm_host_addr(), NODE);

    // The answer was lost: the same bytes again, and no further containers.
    let again = allocate(&mut ipc, &asking(0, 2, 256)).await.unwrap();
    assert_eq!(again, answer);
    let wrong = allocate(&mut ipc, &heartbeat(7)).await.unwrap_err();
    assert_eq!(wrong.name(), "InvalidApplicationMasterRequestException");

    // One is given back; its end is in the answers until the master has read it.
    let ids: Vec<yarn::ContainerId> = answer
        .allocated_containers
        .iter()
        .map(|c| c.id.unwrap())
        .collect();
    let release = yarn::AllocateRequest {
        release: vec![ids[0]],
        ..heartbeat(1)
    };
    let mut response_id = allocate(&mut ipc, &release).await.unwrap().response_id();
    stage.agent.stopped(&text(&ids[0])).await;
    stage.agent.exited(&text(&ids[0]), -100).await;
    let ended = until_completed(&mut ipc, &mut response_id).await;
    assert_eq!(ended.container_id.as_ref(), Some(&ids[0]));
    assert_eq!(
        (ended.exit_status(), ended.state()),
        (-100, yarn::ContainerState::CComplete)
    );
    let again = allocate(&mut ipc, &heartbeat(response_id - 1))
        .await
        .unwrap();
    assert_eq!(again.completed_container_statuses, [ended]);
    let read = allocate(&mut ipc, &heartbeat(response_id)).await.unwrap();
    assert!(read.completed_container_statuses.is_empty());
    stage.agent.acknowledged(&text(&ids[0])).await;

    assert!(farewell(&mut ipc).await.unwrap());
    assert!(farewell(&mut ipc).await.unwrap(), "its answer may be lost");
    stage.agent.exited(&stage.master, 0).await;
    stage.agent.exited(&text(&ids[1]), -107).await;
    let report = wait_for_state(&mut stage.client, &stage.application, "FINISHED").await;
    assert_eq!(report.final_status, "SUCCEEDED");
    let over = connect(&stage).await.err().unwrap();
    assert_eq!(
        over.class,
        "org.apache.hadoop.security.token.SecretManager$InvalidToken"
    );
    assert!(over.message.contains("is over"), "{over:?}");
    // Its pages are gone; its history is where it said.
    for (asked, leads_to) in [
        ("/", "http://history/1"),
        ("/jobs/?id=3", "http://history/1/jobs/?id=3"),
    ] {
        let path = format!("/proxy/{}{asked}", stage.application);
        let head = head_of(&stage.daemon, &path).await;
        assert!(head.starts_with("HTTP/1.1 302"), "{head}");
        let location = format!("location: {leads_to}\r\n");
        assert!(head.to_ascii_lowercase().contains(&location), "{head}");
    }
}

/// What the resource manager's HTTP door answers to a GET.
async fn head_of(daemon: &support::Daemon, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(daemon.http()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_lives_through_a_restart_of_the_resource_manager() {
    let mut stage = Stage::new().await;
    let mut ipc = registered(&stage).await;
    let answer = allocate(&mut ipc, &asking(0, 1, 128)).await.unwrap();
    let held = text(answer.allocated_containers[0].id.as_ref().unwrap());
    stage.daemon.kill_and_start();
    let running = [stage.master.as_str(), held.as_str()];
    stage.agent.attach_again(&stage.daemon, &running).await;

    // The token is as good as before.
    let mut ipc = connect(&stage).await.unwrap();
    let lost = allocate(&mut ipc, &heartbeat(1)).await.unwrap_err();
    assert_eq!(lost.name(), "ApplicationMasterNotRegisteredException");
    register(&mut ipc).await.unwrap();
    let answer = allocate(&mut ipc, &asking(0, 1, 128)).await.unwrap();
    assert_eq!(answer.response_id(), 1);
    assert_eq!(answer.allocated_containers.len(), 1);
    assert_eq!(answer.nm_tokens.len(), 1, "told again");
    let mut response_id = 1;
    stage.agent.exited(&held, 3).await;
    let ended = until_completed(&mut ipc, &mut response_id).await;
    assert_eq!(text(ended.container_id.as_ref().unwrap()), held);
    assert_eq!(ended.exit_status(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_no_master_has_read_is_told_after_a_restart() {
    let mut stage = Stage::new().await;
    let mut ipc = registered(&stage).await;
    let answer = allocate(&mut ipc, &asking(0, 1, 128)).await.unwrap();
    let held = text(answer.allocated_containers[0].id.as_ref().unwrap());
    let mut response_id = 1;
    stage.agent.exited(&held, 3).await;
    // In an answer, which nothing shows to have been read.
    until_completed(&mut ipc, &mut response_id).await;
    stage.daemon.kill_and_start();
    stage
        .agent
        .attach_again(&stage.daemon, &[stage.master.as_str()])
        .await;
    // Not acknowledged, so the agent says it again.
    stage.agent.exited(&held, 3).await;
    let mut ipc = registered(&stage).await;
    let mut response_id = 0;
    let ended = until_completed(&mut ipc, &mut response_id).await;
    assert_eq!(text(ended.container_id.as_ref().unwrap()), held);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_attempt_ends_the_last_one() {
    let mut stage = Stage::new().await;
    let mut ipc = registered(&stage).await;
    stage.agent.exited(&stage.master, 1).await;
    let old = stage.token();
    let (master, launch) = stage.agent.started().await;
    (stage.master, stage.launch) = (master, launch);
    // On a connection that is open still, and on a new one.
    for _ in 0..2 {
        let stale = allocate(&mut ipc, &heartbeat(0)).await.unwrap_err();
        assert_eq!(stale.name(), "ApplicationAttemptNotFoundException");
    }
    let stale = register(&mut ipc).await.unwrap_err();
    assert_eq!(stale.name(), "ApplicationAttemptNotFoundException");
    let address = stage.daemon.yarn("scheduler");
    let stale = Ipc::with_token(&address, PROTOCOL, &old)
        .await
        .err()
        .unwrap();
    assert_eq!(stale.name(), "InvalidToken");
    let mut ipc = registered(&stage).await;
    assert_eq!(
        allocate(&mut ipc, &heartbeat(0))
            .await
            .unwrap()
            .response_id(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_not_lost_with_its_connection() {
    let stage = Stage::new().await;
    let mut ipc = registered(&stage).await;
    ipc.send_call("allocate", &asking(0, 2, 128)).await;
    drop(ipc);
    // The client connects again and repeats its call: the ask was taken once, or is taken now.
    let mut ipc = connect(&stage).await.unwrap();
    let answer = allocate(&mut ipc, &asking(0, 2, 128)).await.unwrap();
    assert_eq!(
        (answer.response_id(), answer.allocated_containers.len()),
        (1, 2)
    );
    let next = allocate(&mut ipc, &heartbeat(1)).await.unwrap();
    assert_eq!(
        (next.response_id(), next.allocated_containers.len()),
        (2, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_the_master_lives_on() {
    let stage = Stage::new().await;
    let mut ipc = registered(&stage).await;
    let refused = allocate(&mut ipc, &asking(0, -1, 128)).await.unwrap_err();
    assert_eq!(refused.name(), "InvalidResourceRequestException");
    let refused = allocate(&mut ipc, &asking(0, 1, 1 << 30))
        .await
        .unwrap_err();
    assert_eq!(refused.name(), "InvalidResourceRequestException");
    assert!(
        refused.message.contains("more than any node has"),
        "{refused:?}"
    );
    let mut labelled = asking(0, 1, 128);
    labelled.ask[0].node_label_expression = Some("gpu".to_owned());
    let refused = allocate(&mut ipc, &labelled).await.unwrap_err();
    assert_eq!(refused.name(), "InvalidLabelResourceRequestException");
    let blacklist = yarn::AllocateRequest {
        blacklist_request: Some(yarn::ResourceBlacklistRequest {
            blacklist_additions: vec!["*".to_owned()],
            blacklist_removals: Vec::new(),
        }),
        ..heartbeat(0)
    };
    let refused = allocate(&mut ipc, &blacklist).await.unwrap_err();
    assert_eq!(refused.name(), "InvalidResourceBlacklistRequestException");
    let unknown: Result<yarn::AllocateResponse, Thrown> =
        ipc.call("allocateMore", &heartbeat(0)).await;
    assert_eq!(unknown.unwrap_err().name(), "YarnException");
    let answer = allocate(&mut ipc, &heartbeat(0)).await.unwrap();
    assert_eq!(answer.response_id(), 1);
    let twice = register(&mut ipc).await.unwrap_err();
    assert_eq!(twice.name(), "InvalidApplicationMasterRequestException");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_token_opens_the_door() {
    let stage = Stage::new().await;
    let address = stage.daemon.yarn("scheduler");
    let mut named = Ipc::with_name(&address, PROTOCOL, "root").await;
    let refused = register(&mut named).await.unwrap_err();
    assert_eq!(refused.name(), "AccessControlException");
    assert!(refused.message.contains("container_tokens"), "{refused:?}");
    let token = stage.token();
    let mut password = token.password.to_vec();
    password[0] ^= 1;
    let wrong = Token {
        password: password.into(),
        ..token.clone()
    };
    assert!(Ipc::with_token(&address, PROTOCOL, &wrong).await.is_err());
    // Another kind, made by the same keys.
    let keys = hadoop_keys(&stage.daemon.secret(), wall_now());
    let other = keys.issue(yarn::YarnDelegationTokenIdentifier::default(), "");
    assert!(Ipc::with_token(&address, PROTOCOL, &other).await.is_err());
    // An attempt that was never there.
    let nobody = keys.issue(
        yarn::AmrmTokenIdentifier {
            app_attempt_id: Some(
                "appattempt_1_0001_000009"
                    .parse::<bobbin_types::AttemptId>()
                    .unwrap()
                    .into(),
            ),
            key_id: None,
        },
        "",
    );
    let refused = Ipc::with_token(&address, PROTOCOL, &nobody)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.name(), "InvalidToken");
    assert!(connect(&stage).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_given_another_size() {
    let mut stage = Stage::new().await;
    let mut ipc = registered(&stage).await;
    let answer = allocate(&mut ipc, &asking(0, 1, 128)).await.unwrap();
    let container = answer.allocated_containers[0].clone();
    let id = container.id.unwrap();
    let update = |response_id, memory, kind: yarn::ContainerUpdateType| yarn::AllocateRequest {
        update_requests: vec![yarn::UpdateContainerRequest {
            container_version: 0,
            container_id: id,
            update_type: kind.into(),
            capability: Some(yarn::Resource {
                memory: Some(memory),
                virtual_cores: Some(1),
                resource_value_map: Vec::new(),
            }),
            execution_type: None,
        }],
        ..heartbeat(response_id)
    };
    let increase = yarn::ContainerUpdateType::IncreaseResource;
    let early = allocate(&mut ipc, &update(1, 512, increase)).await.unwrap();
    assert_eq!(early.update_errors.len(), 1, "it does not run yet");
    assert_eq!(
        early.update_errors[0]
            .update_request
            .as_ref()
            .unwrap()
            .container_id,
        id
    );
    assert!(!early.update_errors[0].reason().is_empty());
    stage.agent.runs(&text(&id), 128).await;
    let mut response_id = 2;
    let calls = async {
        loop {
            let answer = allocate(&mut ipc, &update(response_id, 512, increase))
                .await
                .unwrap();
            response_id = answer.response_id();
            if let [updated] = answer.updated_containers.as_slice() {
                return updated.clone();
            }
        }
    };
    let updated = support::soon("the container's new size", calls).await;
    assert_eq!(updated.update_type(), increase);
    assert_eq!(
        (updated.container.version(), &updated.container.id),
        (1, &container.id)
    );
    let keys = hadoop_keys(&stage.daemon.secret().for_node(NODE), wall_now());
    let token = updated.container.container_token.unwrap();
    let said: yarn::ContainerTokenIdentifier = keys.verify(&token).unwrap();
    assert_eq!(
        (said.resource.as_ref().unwrap().memory(), said.version()),
        (512, 1)
    );
    let promote = yarn::ContainerUpdateType::PromoteExecutionType;
    let answer = allocate(&mut ipc, &update(response_id, 512, promote))
        .await
        .unwrap();
    assert!(answer.update_errors[0].reason().contains("GUARANTEED"));
}

const CLIENT: &str = "org.apache.hadoop.yarn.api.ApplicationClientProtocolPB";

/// An application whose containers outlive a failed attempt, submitted through the client's door.
async fn keeping() -> Stage {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let mut agent = Agent::attach(&daemon, &mut client, NODE).await;
    let mut ipc = Ipc::with_name(&daemon.yarn("client"), CLIENT, "whoever").await;
    let issued: yarn::GetNewApplicationResponse = ipc
        .call("getNewApplication", &yarn::GetNewApplicationRequest {})
        .await
        .unwrap();
    let id = issued.application_id.unwrap();
    let context = yarn::ApplicationSubmissionContext {
        application_id: Some(id),
        am_container_spec: Some(yarn::ContainerLaunchContext {
            command: vec!["true".to_owned()],
            ..yarn::ContainerLaunchContext::default()
        }),
        resource: Some(yarn::Resource {
            memory: Some(128),
            virtual_cores: Some(1),
            resource_value_map: Vec::new(),
        }),
        keep_containers_across_application_attempts: Some(true),
        ..yarn::ApplicationSubmissionContext::default()
    };
    let request = yarn::SubmitApplicationRequest {
        application_submission_context: Some(context),
    };
    let _: yarn::SubmitApplicationResponse = ipc.call("submitApplication", &request).await.unwrap();
    let (master, launch) = agent.started().await;
    let application = bobbin_types::ApplicationId::try_from(&id).unwrap();
    Stage {
        application: application.to_string(),
        daemon,
        client,
        agent,
        master,
        launch,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_containers_are_the_next_attempts() {
    let mut stage = keeping().await;
    let mut ipc = registered(&stage).await;
    let answer = allocate(&mut ipc, &asking(0, 1, 128)).await.unwrap();
    let kept = answer.allocated_containers[0].id.unwrap();
    stage.agent.runs(&text(&kept), 128).await;
    stage.agent.exited(&stage.master, 1).await;
    (stage.master, stage.launch) = stage.agent.started().await;
    let mut ipc = connect(&stage).await.unwrap();
    let answer = register(&mut ipc).await.unwrap();
    let inherited: Vec<_> = answer
        .containers_from_previous_attempts
        .iter()
        .map(|c| c.id)
        .collect();
    assert_eq!(inherited, [Some(kept)]);
    // Its node's token, for the new attempt.
    let keys = hadoop_keys(&stage.daemon.secret().for_node(NODE), wall_now());
    let [at_node] = answer.nm_tokens_from_previous_attempts.as_slice() else {
        panic!("one node: {answer:?}");
    };
    let said: yarn::NmTokenIdentifier = keys.verify(at_node.token.as_ref().unwrap()).unwrap();
    assert_eq!(said.app_attempt_id.unwrap().attempt_id(), 2);
    let answer = allocate(&mut ipc, &asking(0, 1, 128)).await.unwrap();
    assert_eq!(answer.allocated_containers.len(), 1);
    assert!(answer.nm_tokens.is_empty(), "told at the registration");
    let release = yarn::AllocateRequest {
        release: vec![kept],
        ..heartbeat(1)
    };
    allocate(&mut ipc, &release).await.unwrap();
    stage.agent.stopped(&text(&kept)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_a_master_names_and_hosts_that_it_avoids() {
    let mut stage = Stage::new().await;
    let second = "h2:8041";
    let _agent = Agent::attach(&stage.daemon, &mut stage.client, second).await;
    let mut ipc = registered(&stage).await;
    // One container, on the second host and nowhere else: three levels of one wish.
    let mut strict = asking(0, 1, 128);
    for (place, relax) in [("h2", true), ("/default-rack", false)] {
        strict.ask.push(yarn::ResourceRequest {
            resource_name: Some(place.to_owned()),
            relax_locality: Some(relax),
            ..strict.ask[0].clone()
        });
    }
    strict.ask[0].relax_locality = Some(false);
    let answer = allocate(&mut ipc, &strict).await.unwrap();
    let hosts = |answer: &yarn::AllocateResponse| -> Vec<String> {
        let nodes = answer
            .allocated_containers
            .iter()
            .map(|c| c.node_id.clone());
        nodes.map(|node| node.unwrap().host().to_owned()).collect()
    };
    assert_eq!(hosts(&answer), ["h2"]);
    assert_eq!(answer.num_cluster_nodes(), 2);
    let avoid = yarn::AllocateRequest {
        blacklist_request: Some(yarn::ResourceBlacklistRequest {
            blacklist_additions: vec!["h2".to_owned()],
            blacklist_removals: Vec::new(),
        }),
        ..asking(1, 6, 512)
    };
    let answer = allocate(&mut ipc, &avoid).await.unwrap();
    assert_eq!(hosts(&answer), ["h1"; 6]);
    let allow = yarn::AllocateRequest {
        blacklist_request: Some(yarn::ResourceBlacklistRequest {
            blacklist_additions: Vec::new(),
            blacklist_removals: vec!["h2".to_owned()],
        }),
        ..asking(2, 7, 512)
    };
    let answer = allocate(&mut ipc, &allow).await.unwrap();
    let found = hosts(&answer);
    assert_eq!(found.len(), 7);
    assert!(found.iter().any(|host| host == "h2"), "{found:?}");
    let next = allocate(&mut ipc, &heartbeat(3)).await.unwrap();
    assert!(
        next.allocated_containers.is_empty(),
        "no more than was wanted"
    );
}
