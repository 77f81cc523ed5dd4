use bobbin_hadoop::credentials::Secret;
use bobbin_hadoop::proto::common::Token;
use bobbin_service::{Claims, SecretKey, TokenKind};

use super::*;

fn launch() -> v1::LaunchContext {
    v1::LaunchContext {
        argv: vec!["{{JAVA_HOME}}/bin/java".into(), "1><LOG_DIR>/stdout".into()],
        contract: v1::LaunchContract::Yarn.into(),
        ..v1::LaunchContext::default()
    }
}

fn with_credentials(credentials: &Credentials) -> v1::LaunchContext {
    let mut launch = launch();
    let mut stream = credentials.write(Version::Writable).to_vec();
    // As Spark pads it.
    stream.extend_from_slice(&[0; 5]);
    launch.secrets.insert(CREDENTIALS.into(), stream);
    launch
}

#[test]
fn what_cannot_be_launched_is_refused_in_words() {
    assert_eq!(problem(&launch()), None);
    let with = |change: &dyn Fn(&mut v1::LaunchContext)| {
        let mut bad = launch();
        change(&mut bad);
        problem(&bad).unwrap_or_default()
    };
    for (text, words) in [
        (
            with(&|l| drop(l.service_data.insert("spark_shuffle".into(), vec![]))),
            "The auxService:spark_shuffle does not exist",
        ),
        (
            with(&|l| drop(l.environment.insert("A;id".into(), String::new()))),
            "'A;id' cannot be exported",
        ),
        (
            with(&|l| l.argv.push("x".repeat(ARGUMENT_BYTES_MAX))),
            "the command has",
        ),
        (
            with(&|l| drop(l.secrets.insert(CREDENTIALS.into(), b"HDTX\0\0\0".to_vec()))),
            "do not start with 'HDTS'",
        ),
        (
            with(&|l| drop(l.secrets.insert(CREDENTIALS.into(), vec![0; 1 << 21]))),
            "at most 1048576",
        ),
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn an_executor_gets_neither_its_masters_nor_its_users_token() {
    let mut given = Credentials::default();
    for kind in [
        "YARN_AM_RM_TOKEN",
        "RM_DELEGATION_TOKEN",
        "WEBHDFS delegation",
    ] {
        given.add(Token {
            kind: kind.into(),
            service: kind.into(),
            ..Token::default()
        });
    }
    given.secrets.push(Secret {
        alias: "sparkCookie".into(),
        value: Bytes::from(vec![7; 64]),
    });
    let launch = with_credentials(&given);
    assert_eq!(problem(&launch), None);
    let no_files = FilesRight::default();
    let of = |launch: &v1::LaunchContext, origin| credentials(launch, origin, &no_files);
    let masters = Credentials::read(of(&launch, Origin::ResourceManager)).unwrap();
    assert_eq!(masters, given);
    let executors = Credentials::read(of(&launch, Origin::Master)).unwrap();
    let kinds: Vec<_> = executors
        .tokens
        .iter()
        .map(|(_, t)| t.kind.as_str())
        .collect();
    assert_eq!(kinds, ["WEBHDFS delegation"]);
    assert_eq!(executors.secrets, given.secrets);
    let none = of(&super::tests::launch(), Origin::Master);
    assert_eq!(none, Bytes::from_static(b"HDTS\0\0\0"));
}

/// A token of Bobbin's in Hadoop's form.
fn own_token(kind: TokenKind, node: &str, service: &str) -> Token {
    let mut claims = Claims::new(kind, bobbin_types::WallMillis(u64::MAX));
    claims.node = node.to_owned();
    let key = SecretKey::from_bytes(&[3; 32]).unwrap();
    to_hadoop_form(&key.mint(&claims), service).unwrap()
}

#[test]
fn a_container_has_a_token_of_its_own_for_files_and_neither_its_users_nor_its_masters() {
    let foreign = Token {
        kind: "WEBHDFS delegation".into(),
        service: "10.0.0.9:9870".into(),
        identifier: Bytes::from_static(b"hadoops"),
        ..Token::default()
    };
    let users = own_token(TokenKind::User, "", "10.0.0.1:8088");
    let masters = own_token(TokenKind::Files, "node9:1", "127.0.0.1:8088");
    let given = Credentials {
        tokens: [&foreign, &users, &masters]
            .map(|token| (token.service.clone(), token.clone()))
            .to_vec(),
        secrets: Vec::new(),
    };
    let mut launch = with_credentials(&given);
    let own = own_token(TokenKind::Files, "node1:1", "");
    let right = FilesRight {
        token: bobbin_service::from_hadoop_form(&own),
        services: vec!["127.0.0.1:8088".into(), "rm:8088".into()],
    };
    let found = |launch: &v1::LaunchContext, right: &FilesRight| -> Vec<(String, Bytes)> {
        let stream = credentials(launch, Origin::Master, right);
        let tokens = Credentials::read(stream).unwrap().tokens;
        tokens
            .into_iter()
            .map(|(_, token)| (token.service, token.identifier))
            .collect()
    };
    let own = |service: &str| (service.to_owned(), own.identifier.clone());
    let kept = |token: &Token| (token.service.clone(), token.identifier.clone());
    assert_eq!(
        found(&launch, &right),
        [
            kept(&foreign),
            own("10.0.0.1:8088"),
            own("127.0.0.1:8088"),
            own("rm:8088")
        ]
    );
    // Without a key there is none, and the others' are not left in its place.
    assert_eq!(found(&launch, &FilesRight::default()), [kept(&foreign)]);
    launch.environment.insert(KEEP_TOKEN.into(), "true".into());
    assert_eq!(
        found(&launch, &right),
        [
            kept(&foreign),
            kept(&users),
            own("127.0.0.1:8088"),
            own("rm:8088")
        ]
    );
}

#[test]
fn the_nodes_variables_win_and_its_defaults_do_not() {
    let mut launch = launch();
    for (name, value) in [
        ("CONTAINER_ID", "mine"),
        ("JVM_PID", "1"),
        ("JAVA_HOME", "/opt/my java"),
        ("MALLOC_ARENA_MAX", "1"),
        ("SPARK_USER", "alice"),
    ] {
        launch.environment.insert(name.into(), value.into());
    }
    let account = Account {
        name: "alice".into(),
        uid: 1000,
        gid: 1000,
        groups: vec![],
        ..bobbin_service::account_of_uid(0).unwrap()
    };
    let paths = ContainerPaths {
        application: "/local/usercache/alice/appcache/application_7_0001".into(),
        shared: "/local/usercache/alice/appcache/application_7_0001/local".into(),
        work: "/local/usercache/alice/appcache/application_7_0001/c".into(),
        private: "/p".into(),
        run: "/p/run".into(),
        log: "/log/application_7_0001/c".into(),
    };
    let node = NodeEnvironment::new(std::path::Path::new("/jdk"), |_| None);
    let place = Place {
        container: "container_e01_7_0001_01_000002".parse().unwrap(),
        account: &account,
        paths: &paths,
        node_id: &"node1:8041".parse().unwrap(),
        http_address: "127.0.0.1:8042",
        node: &node,
    };
    let expected = r#"#!/bin/bash
# container_e01_7_0001_01_000002 as its node starts it.
set -e
export CONTAINER_ID="container_e01_7_0001_01_000002"
export NM_HOST="node1"
export NM_PORT="8041"
export NM_HTTP_PORT="8042"
export LOCAL_DIRS="/local/usercache/alice/appcache/application_7_0001"
export LOG_DIRS="/log/application_7_0001/c"
export USER="alice"
export LOGNAME="alice"
export HOME="/local/usercache/alice/appcache/application_7_0001/c"
export PWD="/local/usercache/alice/appcache/application_7_0001/c"
export HADOOP_TOKEN_FILE_LOCATION="/local/usercache/alice/appcache/application_7_0001/c/container_tokens"
export JVM_PID="$$"
export JAVA_HOME="/opt/my java"
export MALLOC_ARENA_MAX="1"
export SPARK_USER="alice"
exec /bin/bash -c "${JAVA_HOME}/bin/java 1>/log/application_7_0001/c/stdout"
"#;
    assert_eq!(launch_script(&launch, &place), expected);
    launch.environment.remove("JAVA_HOME");
    let near = "127.0.0.2:8041".parse().unwrap();
    let place = Place {
        node_id: &near,
        ..place
    };
    let script = launch_script(&launch, &place);
    assert!(script.contains("export JAVA_HOME=\"/jdk\"\n"));
    // Of a node that only its host reaches, Spark listens nowhere else.
    assert!(script.contains("export SPARK_LOCAL_IP=\"127.0.0.2\"\n"));
    launch
        .environment
        .insert("SPARK_LOCAL_IP".into(), "127.0.0.9".into());
    let script = launch_script(&launch, &place);
    assert!(script.contains("export SPARK_LOCAL_IP=\"127.0.0.9\"\n"));
    assert!(!script.contains("127.0.0.2\"\nexport SPARK"));
}
