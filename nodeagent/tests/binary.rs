//! The real agent under a small resource manager: life, restart, identity, logs, files.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "test code outside test functions"
)]

mod common;

use bobbin_proto::v1;
use bobbin_proto::v1::node_command::Command as Order;
use bobbin_service::TokenKind;
use common::*;
use tonic::Code;

fn stop(id: &str) -> Order {
    Order::StopContainer(v1::StopContainer {
        container_id: id.to_owned(),
        exit_status: -106,
        diagnostics: "killed by a user".to_owned(),
    })
}

fn read_request(id: &str, file: &str, follow: bool) -> v1::ReadLogRequest {
    v1::ReadLogRequest {
        container_id: id.to_owned(),
        file: file.to_owned(),
        follow,
        ..v1::ReadLogRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_is_told_and_forgotten() {
    if skip("a_container_runs_is_told_and_forgotten") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let id = container(1);
    let mut launch = shell(
        "echo $BOBBIN_CONTAINER_ID $BOBBIN_ATTEMPT $(id -un) $MINE $(pwd); \
         cat /run/bobbin/secrets/word; echo complaint >&2; exit 7",
    );
    launch.environment.insert("MINE".into(), "value".into());
    launch.secrets.insert("word".into(), b"secret\n".to_vec());
    let token = container_token(&rm, &agent, &id);
    rm.order(start(token.clone(), launch));
    rm.expect_started(&id).await;
    let exit = rm.expect_exit(&id).await;
    assert_eq!(
        (exit.state.as_str(), exit.exit_status),
        ("COMPLETED", Some(7)),
        "{exit:?}"
    );
    assert!(
        exit.diagnostics.contains("exit status 7") && exit.diagnostics.contains("\ncomplaint"),
        "{}",
        exit.diagnostics
    );
    let work = agent.dir.path().canonicalize().unwrap().join(format!(
        "local/usercache/nobody/appcache/application_1700000000000_0001/{id}"
    ));
    assert_eq!(
        agent.log(&id, "stdout"),
        format!("{id} 1 nobody value {}\nsecret\n", work.display())
    );
    assert!(!work.exists());
    assert_eq!(agent.processes_of(&id), Vec::<String>::new());
    // Told again to who comes back, until it is acknowledged.
    rm.vanish().await;
    rm.serve().await;
    let register = rm.expect_registration().await;
    assert_eq!(register.containers.len(), 1);
    assert_eq!(register.containers[0].exit_status, Some(7));
    rm.order(acknowledge(&id));
    // The used token starts nothing.
    rm.order(start(token, shell("echo twice")));
    let refused = rm.expect_exit(&id).await;
    assert!(
        refused.diagnostics.contains("was used already"),
        "{refused:?}"
    );
    assert!(!agent.log(&id, "stdout").contains("twice"));
    // Orders are handled in turn, so the acknowledged one is gone by now.
    rm.order(start(
        container_token(&rm, &agent, &container(2)),
        program(&["true"]),
    ));
    assert_eq!(rm.expect_exit(&container(2)).await.exit_status, Some(0));
    rm.order(acknowledge(&container(2)));
    rm.order(start(
        container_token(&rm, &agent, &container(3)),
        program(&["true"]),
    ));
    rm.expect_exit(&container(3)).await;
    assert!(
        agent
            .leftovers()
            .iter()
            .all(|p| !p.to_string_lossy().contains(&id))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_under_its_containers_loses_none() {
    if skip("an_agent_killed_under_its_containers_loses_none") {
        return;
    }
    let (mut rm, mut agent) = pair().await;
    let (stays, ends) = (container(1), container(2));
    for (id, file, code) in [(&stays, "later", 5), (&ends, "now", 6)] {
        let script = format!(
            "echo begun; until [ -e $BOBBIN_SHARED_DIR/{file} ]; do sleep 0.02; done; \
             echo done; touch $BOBBIN_SHARED_DIR/{file}.done; exit {code}"
        );
        rm.order(start(container_token(&rm, &agent, id), shell(&script)));
        rm.expect_started(id).await;
    }
    agent.kill_9();
    std::fs::write(agent.shared("now"), "").unwrap();
    // It ends while nobody looks.
    eventually("its end", || agent.processes_of(&ends).is_empty()).await;
    agent.restart();
    let mut register = rm.expect_registration().await;
    register
        .containers
        .sort_by(|a, b| a.container_id.cmp(&b.container_id));
    let ids: Vec<_> = register
        .containers
        .iter()
        .map(|c| c.container_id.clone())
        .collect();
    assert_eq!(ids, [stays.clone(), ends.clone()]);
    assert_eq!(register.containers[0].state, "RUNNING");
    assert_eq!(
        register.containers[0].resource.as_ref().unwrap().memory_mib,
        128
    );
    if register.containers[1].exit_status.is_none() {
        // Still being cleaned up when the agent registered.
        assert_eq!(rm.expect_exit(&ends).await.exit_status, Some(6));
    } else {
        assert_eq!(register.containers[1].exit_status, Some(6));
    }
    // The restarted agent watches the adopted one like its own.
    std::fs::write(agent.shared("later"), "").unwrap();
    assert_eq!(rm.expect_exit(&stays).await.exit_status, Some(5));
    assert_eq!(agent.log(&stays, "stdout"), "begun\ndone\n");
    // Its token is still used up, and a stop reaches adopted containers.
    let again = container(3);
    rm.order(start(
        container_token(&rm, &agent, &again),
        program(&["sleep", "1000"]),
    ));
    rm.expect_started(&again).await;
    agent.kill_9();
    agent.restart();
    rm.expect_registration().await;
    rm.order(start(
        container_token(&rm, &agent, &again),
        program(&["sleep", "1000"]),
    ));
    rm.expect_started(&again).await;
    assert_eq!(agent.processes_of(&again).len(), 1, "it runs once");
    rm.order(stop(&again));
    assert_eq!(rm.expect_exit(&again).await.exit_status, Some(-106));
    assert_eq!(agent.processes_of(&again), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_everything() {
    if skip("a_stop_ends_everything") {
        return;
    }
    let (mut rm, mut agent) = pair().await;
    let id = container(1);
    let script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & \
                  echo up; while :; do sleep 1; done";
    rm.order(start(container_token(&rm, &agent, &id), shell(script)));
    rm.expect_started(&id).await;
    rm.order(stop(&id));
    let exit = rm.expect_exit(&id).await;
    assert_eq!(
        (exit.exit_status, exit.diagnostics.as_str()),
        (Some(-106), "killed by a user")
    );
    assert_eq!(agent.processes_of(&id), Vec::<String>::new());
    // A stop overtakes its start.
    rm.order(stop(&container(2)));
    assert_eq!(rm.expect_exit(&container(2)).await.exit_status, Some(-106));
    rm.order(start(
        container_token(&rm, &agent, &container(2)),
        program(&["true"]),
    ));
    assert!(
        rm.expect_exit(&container(2))
            .await
            .diagnostics
            .contains("used already")
    );
    // The end of the application ends the rest and takes the caches along.
    let last = container(3);
    rm.order(start(
        container_token(&rm, &agent, &last),
        program(&["sleep", "1000"]),
    ));
    rm.expect_started(&last).await;
    let application_id = "application_1700000000000_0001".to_owned();
    rm.order(Order::ApplicationEnded(v1::ApplicationEnded {
        application_id,
    }));
    assert_eq!(rm.expect_exit(&last).await.exit_status, Some(-107));
    let appcache = agent.dir.path().join("local/usercache/nobody/appcache");
    eventually("the application's caches are gone", || {
        std::fs::read_dir(&appcache).unwrap().count() == 0
    })
    .await;
    assert_eq!(agent.stop().code(), Some(0));
    assert!(!agent.dir.path().join("run/node1.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_starts_of_one_id_run_once() {
    if skip("two_starts_of_one_id_run_once") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let id = container(1);
    let token = container_token(&rm, &agent, &id);
    let launch = shell("echo ran >> $BOBBIN_SHARED_DIR/runs");
    for _ in 0..5 {
        rm.order(start(token.clone(), launch.clone()));
    }
    assert_eq!(rm.expect_exit(&id).await.exit_status, Some(0));
    rm.order(start(token, launch));
    rm.expect_exit(&id).await;
    assert_eq!(
        std::fs::read_to_string(agent.shared("runs")).unwrap(),
        "ran\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_and_users_that_cannot_run_are_told_in_words() {
    if skip("programs_and_users_that_cannot_run_are_told_in_words") {
        return;
    }
    let (mut rm, agent) = pair().await;
    std::fs::write(agent.shared("plain"), "not a program").unwrap();
    let plain = agent
        .shared("plain")
        .canonicalize()
        .unwrap()
        .display()
        .to_string();
    let cases: [(&str, &str, &[&str], i32, &str); 6] = [
        (
            "nobody",
            "bare",
            &["no-such-program"],
            127,
            "'no-such-program' was not found in PATH of node node1:",
        ),
        (
            "nobody",
            "path",
            &["/no/such"],
            127,
            "'/no/such' was not found on node node1:",
        ),
        (
            "nobody",
            "plain",
            &[&plain],
            126,
            "cannot be executed on node node1:",
        ),
        (
            "root",
            "root",
            &["true"],
            -1000,
            "containers never run as root",
        ),
        (
            "no-such-user",
            "stranger",
            &["true"],
            -1000,
            "user 'no-such-user' has no account",
        ),
        ("nobody", "empty", &[], -1000, "the program's name is empty"),
    ];
    for (number, (user, what, argv, status, words)) in (1..).zip(cases) {
        let id = container(number);
        let token = container_token_of(&rm, &agent, &id, user, 64);
        rm.order(start(token, program(argv)));
        let exit = rm.expect_exit(&id).await;
        assert_eq!(exit.exit_status, Some(status), "{what}: {exit:?}");
        assert!(
            exit.diagnostics.contains(words),
            "{what}: {}",
            exit.diagnostics
        );
    }
    let large = container(20);
    rm.order(start(
        container_token_of(&rm, &agent, &large, "nobody", 4096),
        program(&["true"]),
    ));
    let exit = rm.expect_exit(&large).await;
    assert_eq!(exit.exit_status, Some(-100));
    assert!(
        exit.diagnostics.contains("needs 4096 MiB, 1 vcore"),
        "{}",
        exit.diagnostics
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn above_its_memory_a_container_ends_with_the_words() {
    if skip("above_its_memory_a_container_ends_with_the_words") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let id = container(1);
    let token = container_token_of(&rm, &agent, &id, "nobody", 32);
    rm.order(start(
        token,
        shell("x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo $x | wc -c"),
    ));
    let exit = rm.expect_exit(&id).await;
    assert_eq!(exit.exit_status, Some(-104), "{exit:?}");
    assert!(
        exit.diagnostics.contains("of 32 MB physical memory used"),
        "{}",
        exit.diagnostics
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_starts_hears_and_stops_over_its_stream() {
    if skip("a_master_starts_hears_and_stops_over_its_stream") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let am = |attempt: &str| {
        let attempt = attempt.to_owned();
        token(&rm, &agent, TokenKind::AmNode, |claims| {
            claims.attempt = attempt
        })
    };
    let (mine, foreign) = (
        am("appattempt_1700000000000_0001_000001"),
        am("appattempt_1700000000000_0002_000001"),
    );
    let mut master = agent.manage(Some(&mine)).await.unwrap();
    let (one, two) = (container(1), container(2));
    master
        .start(
            container_token(&rm, &agent, &one),
            program(&["sleep", "1000"]),
        )
        .await;
    let running = master.next().await.unwrap();
    assert_eq!(
        (running.container_id.as_str(), running.state.as_str()),
        (one.as_str(), "RUNNING")
    );
    rm.expect_started(&one).await;
    master
        .start(container_token(&rm, &agent, &two), program(&["no-such"]))
        .await;
    let failed = master.next().await.unwrap();
    assert_eq!(
        (failed.container_id.as_str(), failed.exit_status),
        (two.as_str(), Some(127))
    );
    // Another attempt's master can neither start nor stop them.
    let mut other = agent.manage(Some(&foreign)).await.unwrap();
    other.stop(&one).await;
    assert!(
        other
            .next()
            .await
            .unwrap()
            .diagnostics
            .contains("is not of the attempt")
    );
    other
        .start(
            container_token(&rm, &agent, &container(3)),
            program(&["true"]),
        )
        .await;
    assert!(
        other
            .next()
            .await
            .unwrap()
            .diagnostics
            .contains("is not of the attempt")
    );
    // A second stream of the attempt takes over and is told of all.
    let mut second = agent.manage(Some(&mine)).await.unwrap();
    let mut told = [second.next().await.unwrap(), second.next().await.unwrap()];
    told.sort_by(|a, b| a.container_id.cmp(&b.container_id));
    assert_eq!(
        (told[0].state.as_str(), told[1].exit_status),
        ("RUNNING", Some(127))
    );
    assert_eq!(
        master.next().await.unwrap_err().code(),
        Code::PermissionDenied
    );
    second.stop(&one).await;
    assert_eq!(second.next().await.unwrap().exit_status, Some(-105));
    assert_eq!(rm.expect_exit(&one).await.exit_status, Some(-105));
    // A revoked attempt is shut out.
    let attempt_id = "appattempt_1700000000000_0001_000001".to_owned();
    rm.order(Order::RevokeAttempt(v1::RevokeAttempt {
        attempt_id,
        keep_containers: false,
    }));
    // Ends may be told again before the stream is closed.
    let closed = loop {
        if let Err(status) = second.next().await {
            break status;
        }
    };
    assert_eq!(closed.code(), Code::PermissionDenied);
    let mut late = agent.manage(Some(&mine)).await.unwrap();
    assert_eq!(
        late.next().await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_refused_at_every_method() {
    if skip("bad_tokens_are_refused_at_every_method") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let id = container(1);
    rm.order(start(container_token(&rm, &agent, &id), shell("echo mine")));
    rm.expect_exit(&id).await;
    let relay = token(&rm, &agent, TokenKind::Relay, |_| {});
    let other_node = token(&rm, &agent, TokenKind::Relay, |c| c.node = "node2:1".into());
    let old = token(&rm, &agent, TokenKind::Relay, |c| c.expires_ms = 5);
    let master_key = {
        let mut claims =
            bobbin_service::Claims::new(TokenKind::Relay, bobbin_types::WallMillis(u64::MAX));
        claims.node.clone_from(&agent.info.node_id);
        rm.key.mint(&claims)
    };
    let own = container_token(&rm, &agent, &id);
    let foreign = container_token(&rm, &agent, &container(2));
    let user = token(&rm, &agent, TokenKind::User, |_| {});
    for (what, token, code) in [
        ("none", None, Some(Code::Unauthenticated)),
        ("garbage", Some("bobbin1.x.y"), Some(Code::Unauthenticated)),
        (
            "another node's",
            Some(other_node.as_str()),
            Some(Code::Unauthenticated),
        ),
        ("expired", Some(&old), Some(Code::Unauthenticated)),
        (
            "of another key",
            Some(&master_key),
            Some(Code::Unauthenticated),
        ),
        ("a user's", Some(&user), Some(Code::Unauthenticated)),
        (
            "another container's",
            Some(&foreign),
            Some(Code::PermissionDenied),
        ),
        ("the container's", Some(&own), None),
        ("the relay's", Some(&relay), None),
    ] {
        let mut logs = agent.logs(token).await;
        let read = logs.read_log(read_request(&id, "stdout", false)).await;
        assert_eq!(read.err().map(|e| e.code()), code, "read_log, {what}");
        let list = v1::ListLogsRequest {
            application_id: String::new(),
            container_id: id.clone(),
        };
        let listed = logs.list_logs(list).await;
        assert_eq!(listed.err().map(|e| e.code()), code, "list_logs, {what}");
        let managed = agent.manage(token).await.err().map(|e| e.code());
        assert_eq!(managed, Some(Code::Unauthenticated), "manage, {what}");
    }
    // A forged container token on a good stream ends the stream and starts nothing.
    let am = token(&rm, &agent, TokenKind::AmNode, |claims| {
        claims.attempt = "appattempt_1700000000000_0001_000001".into();
    });
    let mut master = agent.manage(Some(&am)).await.unwrap();
    let mut claims =
        bobbin_service::Claims::new(TokenKind::Container, bobbin_types::WallMillis(u64::MAX));
    claims.container = container(9);
    claims.user = "nobody".into();
    claims.node.clone_from(&agent.info.node_id);
    let forged = bobbin_service::SecretKey::from_bytes(&[1; 32])
        .unwrap()
        .mint(&claims);
    master
        .start(forged, shell("touch $BOBBIN_SHARED_DIR/forged"))
        .await;
    assert_eq!(
        master.next().await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert!(!agent.shared("forged").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_shows_each_line_at_once() {
    if skip("a_followed_log_shows_each_line_at_once") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let id = container(1);
    let script = "for n in 1 2 3; do echo line $n; \
                  until [ -e $BOBBIN_SHARED_DIR/$n ]; do sleep 0.01; done; done; echo end";
    let relay = token(&rm, &agent, TokenKind::Relay, |_| {});
    rm.order(start(container_token(&rm, &agent, &id), shell(script)));
    rm.expect_started(&id).await;
    let mut logs = agent.logs(Some(&relay)).await;
    let mut chunks = logs
        .read_log(read_request(&id, "stdout", true))
        .await
        .unwrap()
        .into_inner();
    let mut seen = String::new();
    for n in 1..=3 {
        while !seen.contains(&format!("line {n}\n")) {
            let chunk = chunks.message().await.unwrap().unwrap();
            assert!(!chunk.end);
            seen.push_str(std::str::from_utf8(&chunk.data).unwrap());
        }
        std::fs::write(agent.shared(&n.to_string()), "").unwrap();
    }
    let mut ended = false;
    while let Some(chunk) = chunks.message().await.unwrap() {
        seen.push_str(std::str::from_utf8(&chunk.data).unwrap());
        ended = chunk.end;
    }
    assert!(ended);
    assert_eq!(seen, "line 1\nline 2\nline 3\nend\n");
    // The same bytes after the end, the last lines, and the list.
    let mut request = read_request(&id, "stdout", false);
    request.tail_lines = Some(2);
    let mut chunks = logs.read_log(request).await.unwrap().into_inner();
    assert_eq!(
        chunks.message().await.unwrap().unwrap().data,
        b"line 3\nend\n"
    );
    let list = v1::ListLogsRequest {
        application_id: "application_1700000000000_0001".into(),
        container_id: String::new(),
    };
    let listed = logs.list_logs(list).await.unwrap().into_inner().logs;
    let names: Vec<_> = listed.iter().map(|l| (l.file.as_str(), l.size)).collect();
    assert_eq!(names, [("stderr", 0), ("stdout", 25)]);
    let mut missing = logs
        .read_log(read_request(&id, "none", false))
        .await
        .unwrap()
        .into_inner();
    let status = missing.message().await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

fn tar_of(entries: &[(&str, &str, u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text, mode) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(text.len() as u64);
        header.set_mode(*mode);
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn uploaded(rm: &Rm, name: &str, file: &str, bytes: Vec<u8>) -> v1::LocalResource {
    let source = format!("bobbin:/user/nobody/.bobbinStaging/application/{file}");
    let sha256 = <sha2::Sha256 as sha2::Digest>::digest(&bytes).to_vec();
    let size = bytes.len() as u64;
    rm.uploads.lock().unwrap().insert(source.clone(), bytes);
    v1::LocalResource {
        name: name.into(),
        source,
        size,
        sha256,
        ..v1::LocalResource::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_archives_are_there_for_the_program() {
    if skip("files_and_archives_are_there_for_the_program") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let mut script = uploaded(
        &rm,
        "driver.sh",
        "driver.sh",
        b"#!/bin/sh\ncat big | wc -c; cat bundle/in/text; cat here; echo x > big || echo closed\n"
            .to_vec(),
    );
    script.executable = true;
    let big = uploaded(&rm, "big", "big", vec![b'x'; 300_000]);
    let mut bundle = uploaded(
        &rm,
        "bundle",
        "b.tar",
        tar_of(&[("in/text", "from the archive\n", 0o644)]),
    );
    bundle.set_type(v1::ResourceType::Archive);
    bundle.set_visibility(v1::Visibility::Private);
    let local = agent.shared("local file");
    std::fs::write(&local, "of the node\n").unwrap();
    let here = v1::LocalResource {
        name: "here".into(),
        source: format!("file:{}", local.display()),
        ..v1::LocalResource::default()
    };
    for id in [container(1), container(2)] {
        let launch = v1::LaunchContext {
            argv: vec!["./driver.sh".into()],
            local_resources: vec![script.clone(), big.clone(), bundle.clone(), here.clone()],
            ..v1::LaunchContext::default()
        };
        rm.order(start(container_token(&rm, &agent, &id), launch));
        assert_eq!(rm.expect_exit(&id).await.exit_status, Some(0));
        assert_eq!(
            agent.log(&id, "stdout"),
            "300000\nfrom the archive\nof the node\nclosed\n"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_that_cannot_be_had_fail_with_their_name() {
    if skip("resources_that_cannot_be_had_fail_with_their_name") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let archive = |file: &str, bytes| {
        let mut resource = uploaded(&rm, "bundle", file, bytes);
        resource.set_type(v1::ResourceType::Archive);
        resource
    };
    let mut cut = uploaded(&rm, "cut", "cut", b"some bytes".to_vec());
    cut.sha256[0] ^= 1;
    let mut gone = uploaded(&rm, "gone", "gone", b"x".to_vec());
    gone.source.push_str("-not");
    let shadow = v1::LocalResource {
        name: "shadow".into(),
        source: "file:/etc/shadow".into(),
        ..v1::LocalResource::default()
    };
    let cases = [
        (
            archive("evil.tar", tar_of(&[("../../x", "x", 0o644)])),
            "entry '../../x' has '..'",
        ),
        (
            archive("abs.tar", tar_of(&[("/etc/x", "x", 0o644)])),
            "'/etc/x' has an absolute name",
        ),
        (
            archive("odd.rar", b"x".to_vec()),
            "is not an archive by its name",
        ),
        (cut, "its SHA-256 is"),
        (gone, "is not there"),
        (shadow, "cannot open it as the user"),
    ];
    for (number, (resource, words)) in (1..).zip(cases) {
        let id = container(number);
        let mut launch = program(&["true"]);
        launch.local_resources.push(resource.clone());
        rm.order(start(container_token(&rm, &agent, &id), launch));
        let exit = rm.expect_exit(&id).await;
        assert_eq!(exit.exit_status, Some(-1000), "{exit:?}");
        let text = &exit.diagnostics;
        assert!(
            text.contains(words) && text.contains(&resource.source),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_a_folder_and_the_end_leaves_nothing() {
    if skip("one_agent_a_folder_and_the_end_leaves_nothing") {
        return;
    }
    let (mut rm, mut agent) = pair().await;
    let (stderr, code) = agent.run_again(None);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("is in use by process"), "{stderr}");
    let (stderr, code) = agent.run_again(Some("--check"));
    assert_eq!(code, Some(0), "{stderr}");
    let id = container(1);
    rm.order(start(
        container_token(&rm, &agent, &id),
        program(&["sleep", "1000"]),
    ));
    rm.expect_started(&id).await;
    // An orderly stop leaves it running, the flag ends it.
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(agent.processes_of(&id).len(), 1);
    let (stderr, code) = agent.run_again(Some("--end-containers"));
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(agent.processes_of(&id), Vec::<String>::new());
    assert!(
        !agent
            .leftovers()
            .iter()
            .any(|p| p.to_string_lossy().contains("appcache"))
    );
    // Started again, it still tells how that one ended.
    agent.restart();
    let register = rm.expect_registration().await;
    assert_eq!(register.containers.len(), 1);
    assert_eq!(register.containers[0].container_id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_at_any_moment_runs_nothing_twice() {
    if skip("an_agent_killed_at_any_moment_runs_nothing_twice") {
        return;
    }
    const PER_ROUND: u32 = 6;
    let (mut rm, mut agent) = pair().await;
    for round in 0..10 {
        let ids: Vec<_> = (1..=PER_ROUND)
            .map(|n| container(100 * round + n))
            .collect();
        let starts: Vec<_> = ids
            .iter()
            .map(|id| {
                let script = format!("echo {id} >> $BOBBIN_SHARED_DIR/runs; exit 4");
                start(container_token(&rm, &agent, id), shell(&script))
            })
            .collect();
        for order in &starts {
            rm.order(order.clone());
        }
        // Each round a little later: between the order and the end of the last.
        for _ in 0..round * 400 {
            tokio::task::yield_now().await;
        }
        agent.kill_9();
        agent.restart();
        rm.expect_registration().await;
        // What was on no record runs now; what was is only told.
        for order in &starts {
            rm.order(order.clone());
        }
        for id in &ids {
            let status = rm.expect_exit_in_any_order(id).await;
            assert!(
                [Some(4), Some(-100)].contains(&status.exit_status),
                "{status:?}"
            );
            rm.order(acknowledge(id));
        }
    }
    let runs = std::fs::read_to_string(agent.shared("runs")).unwrap_or_default();
    let mut lines: Vec<_> = runs.lines().collect();
    let all = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), all, "something ran twice");
    assert!(all > 0, "nothing ran at all");
}
