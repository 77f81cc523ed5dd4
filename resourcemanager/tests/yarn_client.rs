//! The doors of clients (8032) and administrators (8033) of the real binary, called as Hadoop's
//! client library does.

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

use bobbin_hadoop::credentials::Credentials;
use bobbin_hadoop::exceptions::{ExceptionClass, Reaction};
use bobbin_hadoop::proto::common::Token;
use bobbin_hadoop::proto::{common, yarn};
use bobbin_hadoop::protocol::{AdminMethod, ClientMethod};
use bobbin_proto::v1;
use bobbin_service::{hadoop_keys, wall_now};
use support::hadoop::{Ipc, Thrown};
use support::{Agent, Daemon, wait_for_state};

const CLIENT: &str = "org.apache.hadoop.yarn.api.ApplicationClientProtocolPB";
const ADMIN: &str = "org.apache.hadoop.yarn.server.api.ResourceManagerAdministrationProtocolPB";
const MASTER: &str = "org.apache.hadoop.yarn.api.ApplicationMasterProtocolPB";
const NODE: &str = "h1:8041";

/// As whoever runs the tests; the stated name is ignored.
async fn by_socket(daemon: &Daemon) -> Ipc {
    Ipc::with_name(&daemon.yarn("client"), CLIENT, "mallory").await
}

async fn by_token(daemon: &Daemon, token: &Token) -> Ipc {
    Ipc::with_token(&daemon.yarn("client"), CLIENT, token)
        .await
        .unwrap()
}

/// The file of `bobbin token create --hadoop`.
async fn token_file(daemon: &Daemon, user: &str) -> Credentials {
    let request = v1::CreateTokenRequest {
        subject: Some(v1::create_token_request::Subject::User(user.to_owned())),
        valid_ms: 60_000,
        hadoop: true,
    };
    let answer = daemon.client().await.create_token(request).await.unwrap();
    Credentials::read(answer.into_inner().hadoop_credentials.into()).unwrap()
}

async fn token_of(daemon: &Daemon, user: &str) -> Token {
    let credentials = token_file(daemon, user).await;
    credentials.of_kind("RM_DELEGATION_TOKEN").unwrap().clone()
}

fn context(id: yarn::ApplicationId, memory: i64) -> yarn::ApplicationSubmissionContext {
    yarn::ApplicationSubmissionContext {
        application_id: Some(id),
        application_name: Some("one".to_owned()),
        queue: Some("root.default".to_owned()),
        am_container_spec: Some(yarn::ContainerLaunchContext {
            command: vec!["sleep 60 1><LOG_DIR>/stdout".to_owned()],
            ..yarn::ContainerLaunchContext::default()
        }),
        resource: Some(yarn::Resource {
            memory: Some(memory),
            virtual_cores: Some(1),
            resource_value_map: Vec::new(),
        }),
        application_type: Some("SPARK".to_owned()),
        ..yarn::ApplicationSubmissionContext::default()
    }
}

async fn new_id(ipc: &mut Ipc) -> yarn::ApplicationId {
    let request = yarn::GetNewApplicationRequest {};
    let answer: Result<yarn::GetNewApplicationResponse, _> =
        ipc.call("getNewApplication", &request).await;
    answer.unwrap().application_id.unwrap()
}

async fn submit(
    ipc: &mut Ipc,
    context: yarn::ApplicationSubmissionContext,
) -> Result<yarn::SubmitApplicationResponse, Thrown> {
    let request = yarn::SubmitApplicationRequest {
        application_submission_context: Some(context),
    };
    ipc.call("submitApplication", &request).await
}

async fn report(ipc: &mut Ipc, id: yarn::ApplicationId) -> Result<yarn::ApplicationReport, Thrown> {
    let request = yarn::GetApplicationReportRequest {
        application_id: Some(id),
    };
    let answer: yarn::GetApplicationReportResponse =
        ipc.call("getApplicationReport", &request).await?;
    Ok(answer.application_report.unwrap())
}

async fn list(ipc: &mut Ipc) -> Result<Vec<yarn::ApplicationReport>, Thrown> {
    let request = yarn::GetApplicationsRequest::default();
    let answer: yarn::GetApplicationsResponse = ipc.call("getApplications", &request).await?;
    Ok(answer.applications)
}

async fn kill(ipc: &mut Ipc, id: yarn::ApplicationId) -> Result<bool, Thrown> {
    let request = yarn::KillApplicationRequest {
        application_id: Some(id),
        diagnostics: Some("by a\ntest".to_owned()),
    };
    let answer: yarn::KillApplicationResponse = ipc.call("forceKillApplication", &request).await?;
    Ok(answer.is_kill_completed())
}

fn text(id: yarn::ApplicationId) -> String {
    format!("application_{}_{:04}", id.cluster_timestamp(), id.id())
}

/// What the stock client does on this.
fn reaction(thrown: &Thrown) -> Reaction {
    let class = ExceptionClass::ALL
        .iter()
        .find(|c| c.name() == thrown.class);
    class.unwrap().reaction()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_answers_at_once() {
    let daemon = Daemon::start();
    let nothing = yarn::GetNewApplicationRequest {};
    let mut client = by_socket(&daemon).await;
    let mut admin = Ipc::with_name(&daemon.yarn("admin"), ADMIN, "root").await;
    let mut answered = 0;
    for method in ClientMethod::ALL {
        match client.call_bytes(method.name(), &nothing).await {
            Ok(_) => answered += 1,
            Err(thrown) => assert_eq!(reaction(&thrown), Reaction::AtOnce, "{thrown:?}"),
        }
    }
    assert_eq!(answered, 14, "with an empty request");
    for method in AdminMethod::ALL {
        if let Err(thrown) = admin.call_bytes(method.name(), &nothing).await {
            assert_eq!(reaction(&thrown), Reaction::AtOnce, "{thrown:?}");
            assert!(!thrown.message.is_empty());
        }
    }
    let unknown = client.call_bytes("allocate", &nothing).await.unwrap_err();
    assert_eq!(unknown.name(), "YarnException");
    assert!(
        unknown.message.contains("Bobbin does not offer allocate"),
        "{unknown:?}"
    );
    let mut lost = Ipc::with_name(&daemon.yarn("client"), MASTER, "x").await;
    let lost = lost.call_bytes("allocate", &nothing).await.unwrap_err();
    assert_eq!(lost.name(), "YarnException");
    assert!(lost.message.contains("This port speaks"), "{lost:?}");
    daemon.stop();
}

#[test]
fn the_reference_names_every_method() {
    let page = include_str!("../../docs/reference/yarn-client-protocols.md");
    let client = ClientMethod::ALL.iter().map(|m| m.name());
    for name in client.chain(AdminMethod::ALL.iter().map(|m| m.name())) {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_application_through_both_doors() {
    let daemon = Daemon::start();
    let mut grpc = daemon.client().await;
    let mut agent = Agent::attach(&daemon, &mut grpc, NODE).await;
    let mut ipc = by_socket(&daemon).await;
    let id = new_id(&mut ipc).await;
    submit(&mut ipc, context(id, 128)).await.unwrap();
    // The answer was lost, and the client says it again.
    submit(&mut ipc, context(id, 128)).await.unwrap();
    let (container, launch) = agent.started().await;
    assert_eq!(launch.contract(), v1::LaunchContract::Yarn);
    assert_eq!(launch.argv, ["sleep 60 1><LOG_DIR>/stdout"]);

    let seen = report(&mut ipc, id).await.unwrap();
    assert_eq!(seen.user(), daemon.user());
    assert_eq!(
        (seen.queue(), seen.application_type()),
        ("default", "SPARK")
    );
    assert_eq!(
        seen.yarn_application_state(),
        yarn::YarnApplicationState::Accepted
    );
    assert_eq!((seen.host(), seen.rpc_port()), ("N/A", -1));
    let proxy = format!("http://{}/proxy/{}/", daemon.http(), text(id));
    assert_eq!(seen.tracking_url(), proxy);
    assert_eq!(seen.am_rm_token, None);
    let listed = list(&mut ipc).await.unwrap();
    assert_eq!(listed.len(), 1);
    let request = v1::GetApplicationRequest {
        application_id: text(id),
    };
    let by_grpc = grpc.get_application(request).await.unwrap().into_inner();
    assert_eq!(
        (by_grpc.name.as_str(), by_grpc.state.as_str()),
        ("one", "ACCEPTED")
    );

    let attempts: yarn::GetApplicationAttemptsResponse = ipc
        .call(
            "getApplicationAttempts",
            &yarn::GetApplicationAttemptsRequest {
                application_id: Some(id),
            },
        )
        .await
        .unwrap();
    let attempt = attempts.application_attempts[0].clone();
    assert_eq!(
        attempt.yarn_application_attempt_state(),
        yarn::YarnApplicationAttemptState::AppAttemptLaunched
    );
    let containers: yarn::GetContainersResponse = ipc
        .call(
            "getContainers",
            &yarn::GetContainersRequest {
                application_attempt_id: attempt.application_attempt_id,
            },
        )
        .await
        .unwrap();
    assert_eq!(
        containers.containers[0].container_state(),
        yarn::ContainerState::CRunning
    );

    assert!(
        !kill(&mut ipc, id).await.unwrap(),
        "its container still runs"
    );
    agent.stopped(&container).await;
    assert!(!kill(&mut ipc, id).await.unwrap());
    agent.exited(&container, 137).await;
    let ended = wait_for_state(&mut grpc, &text(id), "KILLED").await;
    assert!(
        ended.diagnostics.contains("by a test"),
        "{}",
        ended.diagnostics
    );
    assert!(kill(&mut ipc, id).await.unwrap());
    let last = report(&mut ipc, id).await.unwrap();
    assert_eq!(
        last.final_application_status(),
        yarn::FinalApplicationStatus::AppKilled
    );
    assert!(last.finish_time() > 0);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_before_it_is_on_record() {
    let daemon = Daemon::start();
    let mut grpc = daemon.client().await;
    let _agent = Agent::attach(&daemon, &mut grpc, NODE).await;
    let mut ipc = by_socket(&daemon).await;
    let id = new_id(&mut ipc).await;
    let refused = submit(&mut ipc, context(id, 1 << 30)).await.unwrap_err();
    assert_eq!(refused.name(), "InvalidResourceRequestException");
    assert!(
        refused.message.contains("largest nodes have"),
        "{refused:?}"
    );
    let refused = submit(&mut ipc, context(id, -1)).await.unwrap_err();
    assert_eq!(refused.name(), "InvalidResourceRequestException");
    let mut other = context(id, 128);
    other.queue = Some("night".to_owned());
    let refused = submit(&mut ipc, other).await.unwrap_err();
    assert_eq!(refused.name(), "YarnException");
    assert!(refused.message.contains("no queue 'night'"), "{refused:?}");
    let mut other = context(id, 128);
    other.am_container_spec.as_mut().unwrap().command.clear();
    assert_eq!(
        submit(&mut ipc, other).await.unwrap_err().name(),
        "YarnException"
    );
    let mut other = context(id, 128);
    other.application_id = None;
    let refused = submit(&mut ipc, other).await.unwrap_err();
    assert_eq!(refused.name(), "ApplicationIdNotProvidedException");
    let unknown = report(&mut ipc, id).await.unwrap_err();
    assert_eq!(unknown.name(), "ApplicationNotFoundException");
    assert_eq!(
        unknown.message,
        format!(
            "Application with id '{}' doesn't exist in RM. Please check that the job submission \
             was successful.",
            text(id)
        )
    );
    assert!(list(&mut ipc).await.unwrap().is_empty());
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_its_owner_and_no_more() {
    let daemon = Daemon::start();
    let credentials = token_file(&daemon, "carol").await;
    assert_eq!(credentials.tokens.len(), 2, "{credentials:?}");
    let token = token_of(&daemon, "carol").await;
    let mut carol = by_token(&daemon, &token).await;
    let hers = new_id(&mut carol).await;
    submit(&mut carol, context(hers, 128)).await.unwrap();
    assert_eq!(report(&mut carol, hers).await.unwrap().user(), "carol");

    let mut other = by_token(&daemon, &token_of(&daemon, "dave").await).await;
    assert_eq!(
        report(&mut other, hers).await.unwrap_err().name(),
        "AccessControlException"
    );
    assert_eq!(
        kill(&mut other, hers).await.unwrap_err().name(),
        "AccessControlException"
    );
    assert!(list(&mut other).await.unwrap().is_empty());
    let stolen = submit(&mut other, context(hers, 128)).await.unwrap_err();
    assert_eq!(stolen.name(), "AccessControlException");
    let move_it = yarn::MoveApplicationAcrossQueuesRequest {
        application_id: hers,
        target_queue: "default".to_owned(),
    };
    let moved = other
        .call_bytes("moveApplicationAcrossQueues", &move_it)
        .await;
    assert_eq!(moved.unwrap_err().name(), "AccessControlException");

    // A token makes no token, and never administers.
    let more = common::GetDelegationTokenRequest {
        renewer: "carol".to_owned(),
    };
    let more = carol.call_bytes("getDelegationToken", &more).await;
    assert_eq!(more.unwrap_err().name(), "AccessControlException");
    let renew = common::RenewDelegationTokenRequest {
        token: token.clone(),
    };
    let renewed: common::RenewDelegationTokenResponse =
        carol.call("renewDelegationToken", &renew).await.unwrap();
    assert!(renewed.new_expiry_time > wall_now().0);
    let foreign = other.call_bytes("renewDelegationToken", &renew).await;
    assert_eq!(foreign.unwrap_err().name(), "AccessControlException");
    let cancel = common::CancelDelegationTokenRequest {
        token: token.clone(),
    };
    let foreign = other.call_bytes("cancelDelegationToken", &cancel).await;
    assert_eq!(foreign.unwrap_err().name(), "AccessControlException");
    let mut admin = Ipc::with_token(&daemon.yarn("admin"), ADMIN, &token)
        .await
        .unwrap();
    let nothing = yarn::CheckForDecommissioningNodesRequest {};
    let refused = admin
        .call_bytes("checkForDecommissioningNodes", &nothing)
        .await;
    assert_eq!(refused.unwrap_err().name(), "AccessControlException");

    let mut forged = token;
    forged.password = vec![0; 20].into();
    let refused = Ipc::with_token(&daemon.yarn("client"), CLIENT, &forged).await;
    assert_eq!(refused.err().unwrap().name(), "SaslException");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_token_is_over_at_once_and_after_a_restart() {
    let mut daemon = Daemon::start();
    let token = token_of(&daemon, "carol").await;
    let mut carol = by_token(&daemon, &token).await;
    let another = token_of(&daemon, "dave").await;
    let cancel = common::CancelDelegationTokenRequest {
        token: token.clone(),
    };
    carol
        .call_bytes("cancelDelegationToken", &cancel)
        .await
        .unwrap();
    let refused = list(&mut carol).await.unwrap_err();
    assert_eq!(refused.name(), "InvalidToken");
    daemon.kill_and_start();
    let refused = Ipc::with_token(&daemon.yarn("client"), CLIENT, &token).await;
    let refused = refused.err().unwrap();
    assert_eq!(refused.name(), "InvalidToken");
    assert!(refused.message.contains("was canceled"), "{refused:?}");
    let mut still = by_token(&daemon, &another).await;
    assert!(list(&mut still).await.unwrap().is_empty());
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_stays_good_for_what_was_submitted_with_it() {
    let daemon = Daemon::start();
    let mut carol = by_token(&daemon, &token_of(&daemon, "carol").await).await;
    let id = new_id(&mut carol).await;
    submit(&mut carol, context(id, 128)).await.unwrap();
    let seen = report(&mut carol, id).await.unwrap();
    assert!(!seen.diagnostics().is_empty(), "why it waits");
    let submitted = seen.start_time();
    let signed = |owner: &str, issued: i64, expired: i64| {
        let token = yarn::YarnDelegationTokenIdentifier {
            owner: Some(owner.to_owned()),
            issue_date: Some(issued),
            max_date: Some(expired),
            ..yarn::YarnDelegationTokenIdentifier::default()
        };
        hadoop_keys(&daemon.secret(), wall_now()).issue(token, "")
    };
    let during = signed("carol", submitted - 1000, submitted + 1);
    let mut expired = by_token(&daemon, &during).await;
    assert_eq!(report(&mut expired, id).await.unwrap().name(), "one");
    for refused in [
        list(&mut expired).await.unwrap_err(),
        submit(&mut expired, context(id, 128)).await.unwrap_err(),
    ] {
        assert_eq!(refused.name(), "InvalidToken");
        assert!(
            refused.message.contains("bobbin token create --hadoop"),
            "{refused:?}"
        );
    }
    let before = signed("carol", submitted - 1000, submitted - 500);
    let anothers = signed("dave", submitted - 1000, submitted + 1);
    for token in [before, anothers] {
        let mut ipc = by_token(&daemon, &token).await;
        assert_eq!(
            report(&mut ipc, id).await.unwrap_err().name(),
            "InvalidToken"
        );
        assert_eq!(kill(&mut ipc, id).await.unwrap_err().name(), "InvalidToken");
    }
    assert!(kill(&mut expired, id).await.unwrap(), "nothing of it runs");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmanaged_master_finds_its_token_and_nobody_else_does() {
    let daemon = Daemon::start();
    let mut carol = by_token(&daemon, &token_of(&daemon, "carol").await).await;
    let id = new_id(&mut carol).await;
    let mut unmanaged = context(id, 128);
    unmanaged.unmanaged_am = Some(true);
    submit(&mut carol, unmanaged).await.unwrap();
    let seen = report(&mut carol, id).await.unwrap();
    assert_eq!(
        seen.yarn_application_state(),
        yarn::YarnApplicationState::Accepted
    );
    assert!(seen.unmanaged_application() && seen.current_application_attempt_id.is_some());
    let token = seen.am_rm_token.unwrap();
    if nix::unistd::geteuid().is_root() {
        let mut administrator = by_socket(&daemon).await;
        assert_eq!(
            report(&mut administrator, id).await.unwrap().am_rm_token,
            None
        );
    }
    let mut master = Ipc::with_token(&daemon.yarn("scheduler"), MASTER, &token)
        .await
        .unwrap();
    let register = yarn::RegisterApplicationMasterRequest {
        host: Some("here".to_owned()),
        rpc_port: Some(77),
        tracking_url: Some("http://here:4040".to_owned()),
        placement_constraints: Vec::new(),
    };
    master
        .call_bytes("registerApplicationMaster", &register)
        .await
        .unwrap();
    let seen = report(&mut carol, id).await.unwrap();
    assert_eq!(
        seen.yarn_application_state(),
        yarn::YarnApplicationState::Running
    );
    assert_eq!(seen.am_rm_token, None);
    assert_eq!((seen.host(), seen.rpc_port()), ("here", 77));
    assert_eq!(seen.original_tracking_url(), "http://here:4040");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grpc_changes_is_seen_here() {
    let daemon = Daemon::start();
    let mut grpc = daemon.client().await;
    let mut ipc = by_socket(&daemon).await;
    let id = new_id(&mut ipc).await;
    submit(&mut ipc, context(id, 128)).await.unwrap();
    let request = v1::SetPriorityRequest {
        application_id: text(id),
        priority: 9,
    };
    let set = grpc.set_priority(request).await.unwrap().into_inner();
    assert_eq!(set.priority, 9);
    let seen = report(&mut ipc, id).await.unwrap();
    assert_eq!(seen.priority.unwrap().priority(), 9);
    let to = |queue: &str| v1::MoveApplicationRequest {
        application_id: text(id),
        queue: queue.to_owned(),
    };
    let moved = grpc.move_application(to("default")).await.unwrap();
    assert_eq!(moved.into_inner().queue, "default");
    let refused = grpc.move_application(to("night")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("no queue 'night'"), "{refused}");
    let mut other = daemon.user_client("dave").await;
    let denied = other.move_application(to("default")).await.unwrap_err();
    assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    let node = v1::CreateTokenRequest {
        subject: Some(v1::create_token_request::Subject::Node("h2".to_owned())),
        valid_ms: 0,
        hadoop: true,
    };
    let refused = grpc.create_token(node).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_are_answered_or_told_the_way() {
    let daemon = Daemon::start();
    let mut admin = Ipc::with_name(&daemon.yarn("admin"), ADMIN, "whoever").await;
    let asked = yarn::GetGroupsForUserRequest {
        user: "root".to_owned(),
    };
    let groups: yarn::GetGroupsForUserResponse =
        admin.call("getGroupsForUser", &asked).await.unwrap();
    assert_eq!(groups.groups, ["root"]);
    let nothing = yarn::RefreshNodesRequest::default();
    let refused = admin
        .call_bytes("refreshNodes", &nothing)
        .await
        .unwrap_err();
    assert_eq!(refused.name(), "YarnException");
    assert!(
        refused.message.contains("bobbin token create --node"),
        "{refused:?}"
    );
    daemon.stop();
}
