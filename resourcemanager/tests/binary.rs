//! The real binary in a temporary folder, over its real sockets.

#[expect(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "test code outside test functions: an error there ends the test; shared support"
)]
mod support;

use bobbin_proto::v1;
use bobbin_service::{Claims, TokenKind};
use bobbin_types::WallMillis;
use support::{
    Agent, Daemon, FakeLogs, Master, Relayed, SETTINGS, started, submission, wait_for_state,
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn submissions_survive_a_kill() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client().await;
    let submitted = client
        .submit_application(submission("first"))
        .await
        .unwrap()
        .into_inner();
    let id = submitted.application_id;
    let report = client
        .get_application(named(&id))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(report.state, "ACCEPTED");
    assert!(
        report.waiting.contains("node"),
        "says why it waits: '{}'",
        report.waiting
    );
    let second = client
        .submit_application(submission("second"))
        .await
        .unwrap()
        .into_inner();
    // By its end, and by "@last".
    let suffix = &second.application_id[second.application_id.len() - 4..];
    for text in [suffix, "@last"] {
        let report = client
            .get_application(named(text))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(report.id, second.application_id, "{text}");
    }
    let kill = v1::KillApplicationRequest {
        application_id: second.application_id.clone(),
        wait: true,
        reason: "test".to_owned(),
    };
    assert!(
        !client
            .kill_application(kill.clone())
            .await
            .unwrap()
            .into_inner()
            .already_ended
    );
    assert!(
        client
            .kill_application(kill.clone())
            .await
            .unwrap()
            .into_inner()
            .already_ended
    );

    daemon.kill_and_start();
    let mut client = daemon.client().await;
    let list = client
        .list_applications(v1::ListApplicationsRequest::default())
        .await
        .unwrap();
    let rows: Vec<_> = list
        .into_inner()
        .applications
        .into_iter()
        .map(|a| (a.id, a.name, a.state, a.final_status))
        .collect();
    let row = |id: &str, name: &str, state: &str, status: &str| {
        (
            id.to_owned(),
            name.to_owned(),
            state.to_owned(),
            status.to_owned(),
        )
    };
    assert_eq!(
        rows,
        vec![
            row(&second.application_id, "second", "KILLED", "KILLED"),
            row(&id, "first", "ACCEPTED", "UNDEFINED"),
        ]
    );
    assert!(
        client
            .kill_application(kill)
            .await
            .unwrap()
            .into_inner()
            .already_ended
    );
    let third = client
        .submit_application(submission("third"))
        .await
        .unwrap()
        .into_inner();
    assert!(
        third.application_id > second.application_id,
        "ids never repeat"
    );
    let cluster = client
        .get_cluster(v1::GetClusterRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((cluster.epoch, cluster.applications), (2, 3));
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_and_a_master_over_the_wire() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let mut agent = Agent::attach(&daemon, &mut client, "h1:1").await;
    let id = client
        .submit_application(submission("app"))
        .await
        .unwrap()
        .into_inner()
        .application_id;

    // The first attempt fails, the second one's master registers, asks, and finishes.
    let (container, _) = agent.started().await;
    agent.exited(&container, 7).await;
    agent.acknowledged(&container).await;
    let (container, launch) = agent.started().await;
    assert_eq!(launch.argv, ["/bin/true"]);
    let token = String::from_utf8(launch.secrets["attempt-token"].clone()).unwrap();
    let mut master = Master::attach(&daemon, &token).await;
    let grants = master.ask(1).await;
    assert_eq!(grants.len(), 1);
    assert_eq!(grants[0].node_id, "h1:1");
    let claims = daemon
        .secret()
        .for_node("h1:1")
        .verify(
            &grants[0].container_token,
            &[TokenKind::Container],
            bobbin_service::wall_now(),
        )
        .unwrap();
    assert_eq!(
        (claims.user.as_str(), claims.container.as_str()),
        (daemon.user(), grants[0].container_id.as_str())
    );
    wait_for_state(&mut client, &id, "RUNNING").await;
    master.finish().await;
    agent.exited(&container, 0).await;
    agent.stopped(&grants[0].container_id).await;
    agent.exited(&grants[0].container_id, -107).await;
    let report = wait_for_state(&mut client, &id, "FINISHED").await;
    assert_eq!(
        (report.final_status.as_str(), report.exit_status),
        ("SUCCEEDED", Some(0))
    );
    let attempts: Vec<_> = report
        .attempts
        .iter()
        .map(|a| (a.attempt, a.exit_status))
        .collect();
    assert_eq!(attempts, [(1, Some(7)), (2, Some(0))]);
    let nodes = client
        .list_nodes(v1::ListNodesRequest {})
        .await
        .unwrap()
        .into_inner()
        .nodes;
    assert_eq!(
        (nodes[0].id.as_str(), nodes[0].state.as_str()),
        ("h1:1", "RUNNING")
    );
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_master_comes_back_after_a_kill() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client().await;
    let mut agent = Agent::attach(&daemon, &mut client, "h1:1").await;
    let id = client
        .submit_application(submission("app"))
        .await
        .unwrap()
        .into_inner()
        .application_id;
    let (container, launch) = agent.started().await;
    let token = String::from_utf8(launch.secrets["attempt-token"].clone()).unwrap();
    let master = Master::attach(&daemon, &token).await;
    drop(master);

    daemon.kill_and_start();
    let mut client = daemon.client().await;
    agent.attach_again(&daemon, &[&container]).await;
    let mut master = Master::attach(&daemon, &token).await;
    wait_for_state(&mut client, &id, "RUNNING").await;
    master.finish().await;
    agent.exited(&container, 0).await;
    let report = wait_for_state(&mut client, &id, "FINISHED").await;
    assert_eq!(report.attempts.len(), 1, "it was not started again");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_refused_by_every_method() {
    let daemon = Daemon::start();
    let secret = daemon.secret();
    let later = WallMillis(bobbin_service::wall_now().0 + 60_000);
    let mut expired = Claims::new(TokenKind::User, WallMillis(1));
    expired.user = "nobody".to_owned();
    let mut relay = Claims::new(TokenKind::Relay, later);
    relay.node = "h1:1".to_owned();
    let foreign = bobbin_service::SecretKey::from_bytes(&[1; 32]).unwrap();
    let valid_elsewhere = Claims {
        expires_ms: later.0,
        ..expired.clone()
    };
    let bad = [
        None,
        Some("rubbish".to_owned()),
        Some(secret.mint(&expired)),
        Some(foreign.mint(&valid_elsewhere)),
        Some(secret.for_node("h1:1").mint(&relay)),
    ];
    for token in &bad {
        for (method, status) in daemon.every_method(token.as_deref()).await {
            let code = status.expect_err(method).code();
            assert_eq!(code, Code::Unauthenticated, "{method} with {token:?}");
        }
    }
    // A proof of something else is no proof for this.
    let mut node = Claims::new(TokenKind::Node, later);
    node.node = "h1".to_owned();
    for (method, status) in daemon.every_method(Some(&secret.mint(&node))).await {
        if method == "Node.Attach" {
            continue;
        }
        let code = status.expect_err(method).code();
        assert!(
            matches!(code, Code::PermissionDenied | Code::NotFound),
            "{method}: {code}"
        );
    }
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_and_kills_only_his_own() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let id = client
        .submit_application(submission("mine"))
        .await
        .unwrap()
        .into_inner()
        .application_id;
    let mut stranger = daemon.user_client("daemon").await;
    let listed = stranger
        .list_applications(v1::ListApplicationsRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.into_inner().applications.len(), 0);
    let kill = v1::KillApplicationRequest {
        application_id: id.clone(),
        ..Default::default()
    };
    let status = stranger.kill_application(kill).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("owner"), "{}", status.message());
    let of_another = v1::CreateTokenRequest {
        subject: Some(v1::create_token_request::Subject::User("nobody".to_owned())),
        valid_ms: 0,
        ..Default::default()
    };
    assert_eq!(
        stranger.create_token(of_another).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_submissions_are_refused_with_the_field() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let _agent = Agent::attach(&daemon, &mut client, "h1:1").await;
    let refused = async |change: &dyn Fn(&mut v1::SubmitApplicationRequest)| {
        let mut wire = submission("bad");
        change(&mut wire);
        daemon
            .client()
            .await
            .submit_application(wire)
            .await
            .unwrap_err()
    };
    let status = refused(&|w| w.resource.as_mut().unwrap().memory_mib = 1 << 20).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().contains("4096 MiB"),
        "names the largest: {}",
        status.message()
    );
    let status = refused(&|w| w.name = "a\u{1}b".to_owned()).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    let environment = |w: &mut v1::SubmitApplicationRequest| {
        let launch = w.launch.as_mut().unwrap();
        launch.environment.insert("A=B".to_owned(), String::new());
    };
    assert_eq!(refused(&environment).await.code(), Code::InvalidArgument);
    let status = refused(&|w| w.queue = "nowhere".to_owned()).await;
    assert!(status.message().contains("nowhere") && status.message().contains("default"));
    let status = client
        .get_application(named("application_1_0099"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_fetched_with_the_containers_token_and_go_with_the_application() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let mut agent = Agent::attach(&daemon, &mut client, "h1:1").await;
    let new = client
        .new_application(v1::NewApplicationRequest {})
        .await
        .unwrap()
        .into_inner();
    let content = vec![42_u8; 600_000];
    let uploaded = daemon
        .upload(&new.application_id, "data", &content)
        .await
        .unwrap();
    assert_eq!(uploaded.source, format!("{}/data", new.staging_dir));
    assert!(
        daemon
            .upload(&new.application_id, "../x", b"1")
            .await
            .is_err()
    );
    let mut wire = submission("app");
    wire.application_id = new.application_id.clone();
    client.submit_application(wire).await.unwrap();
    let start = agent.start_command().await;
    let fetched = daemon
        .fetch(&start.container_token, &uploaded.source)
        .await
        .unwrap();
    assert!(fetched == content);
    let file = daemon
        .lib()
        .join("files")
        .join(uploaded.source.trim_start_matches("bobbin:/"));
    assert!(file.exists());
    let container = started(&start);
    agent.exited(&container, 1).await;
    let second = agent.start_command().await;
    agent.exited(&started(&second), 1).await;
    let report = wait_for_state(&mut client, &new.application_id, "FAILED").await;
    assert_eq!(report.exit_status, Some(1));
    support::gone(&file).await;
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_kills_what_is_tied_to_it() {
    let daemon = Daemon::start_with("client_lease_ms = 200\n");
    let mut client = daemon.client().await;
    let mut wire = submission("tied");
    wire.tie_to_client = true;
    let id = client
        .submit_application(wire)
        .await
        .unwrap()
        .into_inner()
        .application_id;
    let (renewals, stream) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let mut lease = client.hold_lease(stream).await.unwrap().into_inner();
    renewals
        .send(v1::HoldLeaseRequest {
            application_id: id.clone(),
        })
        .await
        .unwrap();
    assert_eq!(lease.message().await.unwrap().unwrap().lease_ms, 200);
    drop((renewals, lease));
    let report = wait_for_state(&mut client, &id, "KILLED").await;
    assert!(!report.diagnostics.is_empty());
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn client_mode_gets_its_attempt_and_token() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let wire = v1::SubmitApplicationRequest {
        name: "client".to_owned(),
        unmanaged: true,
        ..Default::default()
    };
    let submitted = client.submit_application(wire).await.unwrap().into_inner();
    let mut master = Master::attach(&daemon, &submitted.attempt_token).await;
    wait_for_state(&mut client, &submitted.application_id, "RUNNING").await;
    master.finish().await;
    let report = wait_for_state(&mut client, &submitted.application_id, "FINISHED").await;
    assert_eq!(report.exit_status, Some(0));
    let logs = v1::ReadLogsRequest {
        application_id: submitted.application_id,
        ..Default::default()
    };
    let mut chunks = client.read_logs(logs).await.unwrap().into_inner();
    let status = chunks.message().await.unwrap_err();
    assert!(
        status.message().contains("client mode"),
        "{}",
        status.message()
    );
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_relayed_and_followed_over_a_break() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let logs = FakeLogs::start(daemon.secret().for_node("h1:1")).await;
    let id = client
        .submit_application(submission("app"))
        .await
        .unwrap()
        .into_inner()
        .application_id;
    let read = |follow| v1::ReadLogsRequest {
        application_id: id.clone(),
        follow,
        ..Default::default()
    };
    // Nothing to read yet, and it says why; a follower waits.
    let mut early = client.read_logs(read(false)).await.unwrap().into_inner();
    let status = early.message().await.unwrap_err();
    assert_eq!(
        status.code(),
        Code::FailedPrecondition,
        "{}",
        status.message()
    );
    let mut following = Relayed::new(client.read_logs(read(true)).await.unwrap().into_inner());
    let mut agent = Agent::attach_at(&daemon, &mut client, "h1:1", &logs.address).await;
    let (container, _) = agent.started().await;
    logs.write(b"one\n");
    following.until("one\n").await;
    logs.cut();
    logs.write(b"two\n");
    following.until("one\ntwo\n").await;
    let files = v1::ListLogFilesRequest {
        application_id: id.clone(),
        container_id: container.clone(),
    };
    let files = client
        .list_log_files(files)
        .await
        .unwrap()
        .into_inner()
        .files;
    assert_eq!((files[0].file.as_str(), files[0].size), ("stdout", 8));
    logs.end();
    following.ended().await;
    let mut whole = Relayed::new(client.read_logs(read(false)).await.unwrap().into_inner());
    whole.until("one\ntwo\n").await;
    let mut none = client
        .read_logs(v1::ReadLogsRequest {
            file: "nothing".to_owned(),
            ..read(true)
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(none.message().await.unwrap_err().code(), Code::NotFound);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_on_an_agent_that_does_not_answer_name_the_node() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let mut agent = Agent::attach(&daemon, &mut client, "h1:1").await;
    let id = client
        .submit_application(submission("app"))
        .await
        .unwrap()
        .into_inner()
        .application_id;
    agent.started().await;
    let read = v1::ReadLogsRequest {
        application_id: id,
        ..Default::default()
    };
    let mut chunks = client.read_logs(read).await.unwrap().into_inner();
    let status = chunks.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("node h1:1"),
        "{}",
        status.message()
    );
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_acknowledges_nothing_and_answers_questions() {
    let folder = support::folder();
    let root = folder.path().to_owned();
    let Some(_disk) = support::SmallDisk::mount(&root, "32m") else {
        println!("SKIPPED: needs root (a full disk is made by a small tmpfs)");
        return;
    };
    let daemon = Daemon::start_in(folder, "");
    let mut client = daemon.client().await;
    let ballast = root.join("ballast");
    let mut acknowledged = Vec::new();
    let status = loop {
        // Whatever is free beside the journal's first segment is taken away.
        if acknowledged.len() == 2 {
            let _ = std::fs::write(&ballast, vec![1; 32 << 20]);
        }
        assert!(acknowledged.len() < 100, "the disk is never full");
        let mut wire = submission("large");
        let launch = wire.launch.as_mut().unwrap();
        launch
            .environment
            .insert("LARGE".to_owned(), "x".repeat(400 << 10));
        match client.submit_application(wire).await {
            Ok(submitted) => acknowledged.push(submitted.into_inner().application_id),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{}", status.message());
    assert!(
        status.message().contains("No space left"),
        "{}",
        status.message()
    );
    let report = client
        .get_application(named(&acknowledged[0]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(report.state, "ACCEPTED");
    // Refused, at once, while nothing can be written; taken on again when it can.
    std::fs::remove_file(&ballast).unwrap();
    let again = support::soon("a durable submission", async {
        loop {
            if let Ok(submitted) = client.submit_application(submission("small")).await {
                return submitted.into_inner().application_id;
            }
        }
    });
    acknowledged.push(again.await);
    let mut daemon = daemon;
    daemon.kill_and_start();
    let mut client = daemon.client().await;
    for id in &acknowledged {
        let report = client
            .get_application(named(id))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(report.state, "ACCEPTED", "{id}");
    }
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_cost_only_their_connection() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    for length in [1, 24, 100, 100_000] {
        let bytes: Vec<u8> = (0..length)
            .map(|i| u8::try_from(i * 7 % 256).unwrap())
            .collect();
        daemon.send_raw(&bytes).await;
    }
    assert!(client.get_cluster(v1::GetClusterRequest {}).await.is_ok());
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_served_is_refused_at_start() {
    let daemon = Daemon::start();
    let (code, words) = daemon.start_another();
    assert_eq!(code, 1);
    assert!(words.contains("in use by process"), "{words}");
    let (code, words) = support::check("[nodes]\nexpiry = 5\n");
    assert_eq!(code, 2);
    assert!(
        words.contains("nodes.expiry") && words.contains("nodes.expiry_ms"),
        "{words}"
    );
    let (code, words) = support::check("root_runs_as = 'root'\n");
    assert_eq!(code, 2);
    assert!(words.contains("root_runs_as"), "{words}");
    assert_eq!(support::check(SETTINGS).0, 0);
    daemon.stop();
}

fn named(id: &str) -> v1::GetApplicationRequest {
    v1::GetApplicationRequest {
        application_id: id.to_owned(),
    }
}
