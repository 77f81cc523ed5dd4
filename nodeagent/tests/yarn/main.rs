//! YARN's container contract and ContainerManagementProtocol over the real program: what a container
//! finds, what a master can do, and what everybody else cannot.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    dead_code,
    unreachable_pub,
    reason = "test code outside test functions; shared support"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../resourcemanager/tests/support/hadoop.rs"]
mod hadoop;
mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use bobbin_hadoop::convert::write_resource;
use bobbin_hadoop::credentials::{Credentials, Version};
use bobbin_hadoop::proto::yarn;
use bobbin_proto::v1;
use bobbin_proto::v1::node_command::Command as Order;
use bobbin_types::{AttemptId, NodeId, Resource};
use bytes::Bytes;
use common::{acknowledge, container, container_token, eventually, pair, program, skip};
use hadoop::Ipc;
use support::*;

/// A master's own container, as the resource manager starts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_masters_container_finds_what_yarn_promises() {
    if skip("YARN's contract") {
        return;
    }
    let (mut rm, agent) = pair().await;
    rm.uploads
        .lock()
        .unwrap()
        .insert("bobbin:/user/nobody/app.jar".into(), b"a jar".to_vec());
    let name = container(1);
    let mut launch = program(&[
        "printenv > {{PWD}}/environment; cat app.jar; ls -l container_tokens launch_container.sh;",
        "echo $APPLIED '{{PWD}}' <CPS>; test -w $LOCAL_DIRS && touch $LOCAL_DIRS/kept; rm app.jar;",
        "cp environment $LOG_DIRS/environment; echo wrong >&2",
        "1><LOG_DIR>/stdout",
    ]);
    // One brace group, so that all of it goes to one file.
    launch.argv = vec![
        format!("{{ {}; }}", launch.argv[..3].join(" ")),
        launch.argv[3].clone(),
    ];
    launch.contract = v1::LaunchContract::Yarn.into();
    launch
        .environment
        .insert("APPLIED".into(), "[{{CONTAINER_ID}}]".into());
    launch
        .environment
        .insert("CONTAINER_ID".into(), "forged".into());
    launch.secrets.insert(
        "container_tokens".into(),
        credentials().write(Version::Writable).to_vec(),
    );
    launch.local_resources.push(v1::LocalResource {
        name: "app.jar".into(),
        source: "bobbin:/user/nobody/app.jar".into(),
        size: 5,
        ..v1::LocalResource::default()
    });
    rm.order(common::start(container_token(&rm, &agent, &name), launch));
    let ended = rm.expect_exit(&name).await;
    assert_eq!(ended.exit_status, Some(0), "{ended:?}");
    let out = agent.log(&name, "stdout");
    let work = appcache(&agent).join(&name);
    assert!(out.starts_with("a jar"), "{out}");
    assert!(out.contains("-rw------- 1 nobody"), "{out}");
    assert!(
        out.contains(&format!("[{name}] {} :", work.display())),
        "{out}"
    );
    assert_eq!(agent.log(&name, "prelaunch.err"), "wrong\n");
    let environment = agent.log(&name, "environment");
    let node: NodeId = agent.info.node_id.parse().unwrap();
    for line in [
        format!("CONTAINER_ID={name}"),
        format!("NM_HOST={}", node.host()),
        format!("NM_PORT={}", agent.info.node_id.rsplit_once(':').unwrap().1),
        format!(
            "NM_HTTP_PORT={}",
            agent.info.http.rsplit_once(':').unwrap().1
        ),
        format!("LOCAL_DIRS={}", appcache(&agent).display()),
        format!("PWD={}", work.display()),
        format!(
            "HADOOP_TOKEN_FILE_LOCATION={}/container_tokens",
            work.display()
        ),
        format!("TMPDIR={}/tmp", work.display()),
        "USER=nobody".to_owned(),
        "MALLOC_ARENA_MAX=4".to_owned(),
    ] {
        assert!(
            environment.lines().any(|l| l == line),
            "{line}: {environment}"
        );
    }
    assert!(environment.lines().any(|l| l.starts_with("JVM_PID=")));
    // What executors share stays until the application ends; nothing else of the container does.
    assert!(appcache(&agent).join("local/kept").exists());
    assert_eq!(
        std::fs::metadata(appcache(&agent).join("local"))
            .unwrap()
            .mode()
            & 0o777,
        0o700
    );
    eventually("clean-up", || {
        agent.leftovers().iter().all(|p| p.ends_with(&name))
    })
    .await;
    rm.order(acknowledge(&name));
    rm.order(Order::ApplicationEnded(v1::ApplicationEnded {
        application_id: id(&name).application().to_string(),
    }));
    eventually("the application's folders", || !appcache(&agent).exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_starts_watches_signals_and_stops() {
    if skip("ContainerManagementProtocol") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let (first, second) = (container(2), container(3));
    let mut ipc = master(&rm, &agent, id(&first).attempt).await;
    let text = "trap \"echo quit\" QUIT; trap \"echo term; exit 9\" TERM; \
                cat container_tokens > $LOG_DIRS/tokens; echo up; while :; do sleep 0.05; done";
    let mut launch = script(text);
    let mut padded = credentials().write(Version::Writable).to_vec();
    padded.extend_from_slice(&[0; 11]);
    launch.tokens = Some(padded.into());
    let token = keys(&rm, &agent).issue(grant(&agent, &first, 128), "");
    start(&mut ipc, launch.clone(), token.clone())
        .await
        .unwrap();
    rm.expect_started(&first).await;
    eventually("the program", || log_exists(&agent, &first, "up")).await;
    let running = status(&mut ipc, &first).await.unwrap();
    assert_eq!(running.state(), yarn::ContainerState::CRunning);
    assert_eq!(running.exit_status(), -1000);

    // An executor has its secrets, and no token by which it could be more than it is.
    let tokens = std::fs::read(
        agent
            .dir
            .path()
            .join("log")
            .join(id(&first).application().to_string())
            .join(&first)
            .join("tokens"),
    )
    .unwrap();
    let held = Credentials::read(tokens.into()).unwrap();
    let kinds: Vec<_> = held.tokens.iter().map(|(_, t)| t.kind.as_str()).collect();
    assert_eq!(kinds, ["WEBHDFS delegation"]);
    assert_eq!(held.secrets, credentials().secrets);

    signal(
        &mut ipc,
        &first,
        yarn::SignalContainerCommand::OutputThreadDump,
    )
    .await
    .unwrap();
    eventually("QUIT", || log_exists(&agent, &first, "quit")).await;
    signal(
        &mut ipc,
        &first,
        yarn::SignalContainerCommand::GracefulShutdown,
    )
    .await
    .unwrap();
    let ended = rm.expect_exit(&first).await;
    // The shell's, as in YARN; what it ran had its grace time.
    assert_eq!(ended.exit_status, Some(143));
    assert!(log_exists(&agent, &first, "term"));
    let told = status(&mut ipc, &first).await.unwrap();
    assert_eq!(
        (told.state(), told.exit_status()),
        (yarn::ContainerState::CComplete, 143)
    );
    let again = start(&mut ipc, launch.clone(), token.clone())
        .await
        .unwrap_err();
    assert!(again.message.contains("already is running"), "{again:?}");
    rm.order(acknowledge(&first));
    eventually("the acknowledgment", || agent.leftovers().is_empty()).await;
    let again = start(&mut ipc, launch.clone(), token).await.unwrap_err();
    assert!(again.message.contains("was used already"), "{again:?}");
    let gone = status(&mut ipc, &first).await.unwrap_err();
    assert!(gone.message.contains("recently stopped"), "{gone:?}");

    let token = keys(&rm, &agent).issue(grant(&agent, &second, 128), "");
    start(
        &mut ipc,
        script("trap \"\" TERM; echo up; while :; do sleep 0.05; done"),
        token,
    )
    .await
    .unwrap();
    eventually("the program", || log_exists(&agent, &second, "up")).await;
    stop(&mut ipc, &second).await.unwrap();
    let ended = rm.expect_exit(&second).await;
    assert_eq!(ended.exit_status, Some(-105));
    assert!(agent.processes_of(&second).is_empty());
}

/// The folder of one container is closed to its siblings: the master's credentials lie in it.
#[tokio::test(flavor = "multi_thread")]
async fn siblings_share_a_folder_and_see_nothing_else_of_each_other() {
    if skip("the shared folder") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let (first, second) = (container(2), container(3));
    let mut ipc = master(&rm, &agent, id(&first).attempt).await;
    let launch = |name: &str, text: &str| {
        let token = keys(&rm, &agent).issue(grant(&agent, name, 128), "");
        (script(text), token)
    };
    let (context, token) = launch(
        &first,
        "touch $LOCAL_DIRS/ready; while [ ! -e $LOCAL_DIRS/go ]; do sleep 0.02; done",
    );
    start(&mut ipc, context, token).await.unwrap();
    eventually("the first", || {
        appcache(&agent).join("local/ready").exists()
    })
    .await;
    let look =
        format!("ls $LOCAL_DIRS; cat $LOCAL_DIRS/{first}/container_tokens; touch $LOCAL_DIRS/go");
    let (context, token) = launch(&second, &look);
    start(&mut ipc, context, token).await.unwrap();
    assert_eq!(
        rm.expect_exit_in_any_order(&second).await.exit_status,
        Some(0)
    );
    assert_eq!(
        rm.expect_exit_in_any_order(&first).await.exit_status,
        Some(0)
    );
    assert_eq!(
        agent.log(&second, "stdout"),
        format!("{first}\n{second}\nready\n")
    );
    let error = agent.log(&second, "stderr");
    assert!(error.contains("container_tokens: No such file"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_the_right_token_does_anything() {
    if skip("refusals") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let name = container(2);
    let attempt = id(&name).attempt;
    let address = agent.info.yarn["containers"].clone();

    let mut nobody = Ipc::with_name(&address, PROTOCOL, "nobody").await;
    let refused = nobody
        .call_bytes(
            "getContainerStatuses",
            &yarn::GetContainerStatusesRequest::default(),
        )
        .await
        .unwrap_err();
    assert_eq!(refused.name(), "AccessControlException");
    assert!(
        refused
            .message
            .contains("SIMPLE authentication is not enabled"),
        "{refused:?}"
    );

    let good = nm_token(&rm, &agent, attempt);
    let elsewhere = keys_of(&rm, "node2:1").issue(nm_identifier(attempt, "node2:1"), "");
    let foreign = keys_of(&rm, "node2:1").issue(nm_identifier(attempt, &agent.info.node_id), "");
    let mut guessed = good.clone();
    guessed.password = Bytes::from_static(b"guess");
    for (token, class) in [
        (elsewhere, "InvalidToken"),
        (foreign, "SaslException"),
        (guessed, "SaslException"),
    ] {
        let refused = Ipc::with_token(&address, PROTOCOL, &token)
            .await
            .err()
            .unwrap();
        assert_eq!(refused.name(), class, "{refused:?}");
    }

    let mut ipc = Ipc::with_token(&address, PROTOCOL, &good).await.unwrap();
    let own = keys(&rm, &agent);
    let issue = |change: fn(&mut yarn::ContainerTokenIdentifier)| {
        let mut identifier = grant(&agent, &name, 128);
        change(&mut identifier);
        own.issue(identifier, "")
    };
    let fine = issue(|_| ());
    let mut altered = fine.clone();
    let mut bytes = altered.identifier.to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    altered.identifier = bytes.into();
    let mut kind = good.clone();
    kind.kind = "ContainerToken".into();
    for (token, words) in [
        (altered, ""),
        (kind, ""),
        (
            keys_of(&rm, "node2:1").issue(grant(&agent, &name, 128), ""),
            "signature is wrong",
        ),
        (
            issue(|t| t.nm_host_addr = Some("node2:1".into())),
            "is for node node2:1",
        ),
        (issue(|t| t.expiry_time_stamp = Some(5)), "expired"),
        (
            issue(|t| {
                t.container_id = Some(id("container_e01_1700000000000_0001_02_000002").into())
            }),
            "not of the attempt",
        ),
        (
            issue(|t| {
                t.container_id = Some(id("container_e01_1700000000000_0002_01_000002").into())
            }),
            "not of the attempt",
        ),
        (
            issue(|t| t.resource = Some(write_resource(&Resource::new(1 << 30, 1), &[]))),
            "it needs",
        ),
    ] {
        let refused = start(&mut ipc, script("echo never"), token)
            .await
            .unwrap_err();
        assert!(refused.message.contains(words), "{words}: {refused:?}");
        assert!(
            ["YarnException", "InvalidToken"].contains(&refused.name()),
            "{refused:?}"
        );
    }
    // The last one was a good grant that does not fit here: it is used up, and both sides know.
    assert_eq!(rm.expect_exit(&name).await.exit_status, Some(-100));

    for (method, words) in [
        ("reInitializeContainer", "does not offer"),
        ("restartContainer", "does not offer"),
        ("rollbackLastReInitialization", "does not offer"),
        ("commitLastReInitialization", "does not offer"),
        ("allocate", "does not offer"),
    ] {
        let refused = ipc
            .call_bytes(method, &yarn::StopContainerRequest::default())
            .await
            .unwrap_err();
        assert_eq!(refused.name(), "YarnException", "{refused:?}");
        assert!(refused.message.contains(words), "{refused:?}");
    }
    let mut lost = Ipc::with_token(
        &address,
        "org.apache.hadoop.yarn.api.ApplicationClientProtocolPB",
        &good,
    )
    .await
    .unwrap();
    let refused = lost
        .call_bytes("getNewApplication", &yarn::StopContainerRequest::default())
        .await
        .unwrap_err();
    assert!(
        refused.message.contains("ContainerManagementProtocol"),
        "{refused:?}"
    );
    assert_eq!(
        agent
            .leftovers()
            .iter()
            .filter(|p| !p.ends_with(&name))
            .count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_that_cannot_be_used_are_refused_at_once() {
    if skip("launch contexts") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let mut ipc = master(&rm, &agent, id(&container(1)).attempt).await;
    let own = keys(&rm, &agent);
    let mut shuffle = script("echo never");
    shuffle.service_data.push(yarn::StringBytesMap {
        key: Some("spark_shuffle".into()),
        value: None,
    });
    let mut pattern = script("echo never");
    pattern.local_resources.push(yarn::StringLocalResourceMap {
        key: Some("x".into()),
        value: Some(yarn::LocalResource {
            resource: Some(yarn::Url::default()),
            r#type: Some(yarn::LocalResourceType::Pattern.into()),
            ..yarn::LocalResource::default()
        }),
    });
    let mut climbing = script("echo never");
    climbing.local_resources.push(yarn::StringLocalResourceMap {
        key: Some("../x".into()),
        value: Some(yarn::LocalResource {
            resource: Some(yarn::Url::default()),
            r#type: Some(yarn::LocalResourceType::File.into()),
            ..yarn::LocalResource::default()
        }),
    });
    let mut garbage = script("echo never");
    garbage.tokens = Some(Bytes::from_static(b"HDTX"));
    let mut variable = script("echo never");
    variable.environment.push(yarn::StringStringMap {
        key: Some("A;id".into()),
        value: None,
    });
    for (number, launch, class, words) in [
        (
            2,
            shuffle,
            "InvalidAuxServiceException",
            "The auxService:spark_shuffle does not exist",
        ),
        (3, pattern, "YarnException", "PATTERN"),
        (4, climbing, "YarnException", "'../x' cannot be the name"),
        (5, garbage, "YarnException", "HDTS"),
        (6, variable, "YarnException", "cannot be exported"),
        (7, context(&[]), "YarnException", "empty"),
    ] {
        let name = container(number);
        let token = own.issue(grant(&agent, &name, 64), "");
        let refused = start(&mut ipc, launch, token).await.unwrap_err();
        assert_eq!(refused.name(), class, "{refused:?}");
        assert!(refused.message.contains(words), "{refused:?}");
    }
    // The resource manager is told of those that are used up by it.
    let ended = rm.expect_exit_in_any_order(&container(4)).await;
    assert_eq!(ended.exit_status, Some(-1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_attempt_has_no_rights_and_the_next_one_has_what_it_left() {
    if skip("attempts") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let (left, late) = (container(2), container(3));
    let first = id(&left).attempt;
    let second = AttemptId {
        attempt: first.attempt + 1,
        ..first
    };
    let mut old = master(&rm, &agent, first).await;
    let mut new = master(&rm, &agent, second).await;
    let own = keys(&rm, &agent);
    let waiting = script("echo up; while :; do sleep 0.05; done");
    start(
        &mut old,
        waiting.clone(),
        own.issue(grant(&agent, &left, 64), ""),
    )
    .await
    .unwrap();
    rm.expect_started(&left).await;
    let refused = status(&mut new, &left).await.unwrap_err();
    assert!(refused.message.contains("is not of"), "{refused:?}");
    rm.order(Order::RevokeAttempt(v1::RevokeAttempt {
        attempt_id: first.to_string(),
        keep_containers: true,
    }));
    eventually_refused(&mut old, &left).await;
    let refused = start(&mut old, waiting, own.issue(grant(&agent, &late, 64), ""))
        .await
        .unwrap_err();
    assert!(refused.message.contains("has ended"), "{refused:?}");
    let found = status(&mut new, &left).await.unwrap();
    assert_eq!(found.state(), yarn::ContainerState::CRunning);
    rm.order(Order::SignalContainer(v1::SignalContainer {
        container_id: left.clone(),
        signal: v1::ContainerSignal::Forceful.into(),
    }));
    assert_eq!(rm.expect_exit(&left).await.exit_status, Some(137));
}

/// Asks until the order that revokes has arrived.
async fn eventually_refused(ipc: &mut Ipc, container: &str) {
    let asking = async {
        loop {
            if let Err(refused) = status(ipc, container).await {
                return refused;
            }
        }
    };
    let refused = soon("the revocation", asking).await;
    assert_eq!(refused.name(), "InvalidToken", "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_gets_another_size_and_more_files() {
    if skip("resizing") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let name = container(2);
    let mut ipc = master(&rm, &agent, id(&name).attempt).await;
    let own = keys(&rm, &agent);
    let text = "while [ ! -e go ]; do sleep 0.02; done; cat more; \
                exec /usr/bin/python3 -c \"x=bytearray(100<<20); print(len(x))\"";
    start(
        &mut ipc,
        script(text),
        own.issue(grant(&agent, &name, 32), ""),
    )
    .await
    .unwrap();
    rm.expect_started(&name).await;
    let update = |version: i32, memory_mib: u64| {
        let mut identifier = grant(&agent, &name, memory_mib);
        identifier.version = Some(version);
        yarn::ContainerUpdateRequest {
            update_container_token: vec![own.issue(identifier, "")],
        }
    };
    for (version, memory_mib, words) in
        [(0, 256, "has version 0 already"), (1, 1 << 20, "it needs")]
    {
        let answer: yarn::ContainerUpdateResponse = ipc
            .call("updateContainer", &update(version, memory_mib))
            .await
            .unwrap();
        let refused = one(answer.succeeded_requests.len(), &answer.failed_requests).unwrap_err();
        assert!(refused.message.contains(words), "{refused:?}");
    }
    let answer: yarn::ContainerUpdateResponse =
        ipc.call("updateContainer", &update(1, 256)).await.unwrap();
    one(answer.succeeded_requests.len(), &answer.failed_requests).unwrap();
    assert_eq!(
        status(&mut ipc, &name)
            .await
            .unwrap()
            .capability
            .unwrap()
            .memory(),
        256
    );

    let dir = agent.dir.path().canonicalize().unwrap();
    std::fs::write(dir.join("more"), "more text\n").unwrap();
    std::fs::set_permissions(dir.join("more"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let modified = std::fs::metadata(dir.join("more"))
        .unwrap()
        .modified()
        .unwrap();
    let mtime = modified
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let file = |key: &str, path: &str| yarn::StringLocalResourceMap {
        key: Some(key.into()),
        value: Some(yarn::LocalResource {
            resource: Some(yarn::Url {
                scheme: Some("file".into()),
                file: Some(dir.join(path).display().to_string()),
                ..yarn::Url::default()
            }),
            timestamp: Some(i64::try_from(mtime).unwrap()),
            r#type: Some(yarn::LocalResourceType::File.into()),
            visibility: Some(yarn::LocalResourceVisibility::Application.into()),
            ..yarn::LocalResource::default()
        }),
    };
    let localize =
        |resources: Vec<yarn::StringLocalResourceMap>| yarn::ResourceLocalizationRequest {
            container_id: Some(id(&name).into()),
            local_resources: resources,
        };
    let both = localize(vec![file("more", "more"), file("none", "none")]);
    ipc.call_bytes("localize", &both).await.unwrap();
    let refused = ipc
        .call_bytes("localize", &localize(vec![file("tmp", "more")]))
        .await
        .unwrap_err();
    assert!(
        refused.message.contains("'tmp' cannot be the name"),
        "{refused:?}"
    );
    let request = yarn::GetLocalizationStatusesRequest {
        container_id: vec![id(&name).into()],
    };
    let asking = async {
        loop {
            let answer: yarn::GetLocalizationStatusesResponse =
                ipc.call("getLocalizationStatuses", &request).await.unwrap();
            let all = answer.cntn_localization_statuses[0]
                .localization_statuses
                .clone();
            if all
                .iter()
                .all(|s| s.localization_state() != yarn::LocalizationState::LPending)
            {
                return all;
            }
        }
    };
    let all = soon("the files", asking).await;
    assert_eq!(all.len(), 2);
    assert_eq!(
        all[0].localization_state(),
        yarn::LocalizationState::LCompleted,
        "{all:?}"
    );
    assert_eq!(
        all[1].localization_state(),
        yarn::LocalizationState::LFailed
    );
    assert!(all[1].diagnostics().contains("none"), "{all:?}");
    std::fs::write(appcache(&agent).join(&name).join("go"), "").unwrap();
    let ended = rm.expect_exit(&name).await;
    assert_eq!(ended.exit_status, Some(0), "{ended:?}");
    assert_eq!(
        agent.log(&name, "stdout"),
        format!("more text\n{}\n", 100 << 20)
    );
}

/// A restarted agent knows what runs and whose it is.
#[tokio::test(flavor = "multi_thread")]
async fn containers_and_their_masters_outlive_the_agent() {
    if skip("a restart") {
        return;
    }
    let (mut rm, mut agent) = pair().await;
    let name = container(2);
    let attempt = id(&name).attempt;
    let mut ipc = master(&rm, &agent, attempt).await;
    let token = keys(&rm, &agent).issue(grant(&agent, &name, 64), "");
    let text = "touch $LOCAL_DIRS/kept; trap \"echo saved\" TERM; echo up; \
                while :; do sleep 0.05; done";
    start(&mut ipc, script(text), token.clone()).await.unwrap();
    rm.expect_started(&name).await;
    eventually("the program", || log_exists(&agent, &name, "up")).await;
    agent.kill_9();
    agent.restart();
    let found = rm.expect_registration().await.containers;
    assert_eq!(found.len(), 1, "{found:?}");
    let mut ipc = master(&rm, &agent, attempt).await;
    let again = start(&mut ipc, script("echo twice"), token)
        .await
        .unwrap_err();
    assert!(again.message.contains("already is running"), "{again:?}");
    let running = status(&mut ipc, &name).await.unwrap();
    assert_eq!(running.state(), yarn::ContainerState::CRunning);
    assert!(appcache(&agent).join("local/kept").exists());
    stop(&mut ipc, &name).await.unwrap();
    assert_eq!(rm.expect_exit(&name).await.exit_status, Some(-105));
    assert!(log_exists(&agent, &name, "saved"));
    assert!(agent.processes_of(&name).is_empty());
}
