use bobbin_hadoop::proto::common::Token;
use bobbin_hadoop::tokens::WEBHDFS_KIND;

use super::*;

fn text(key: &str, value: &str) -> yarn::StringStringMap {
    yarn::StringStringMap {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    }
}

fn url(scheme: &str, host: &str, port: i32, file: &str) -> yarn::Url {
    yarn::Url {
        scheme: Some(scheme.to_owned()),
        host: Some(host.to_owned()),
        port: Some(port),
        file: Some(file.to_owned()),
        user_info: None,
    }
}

fn resource(name: &str, url: yarn::Url) -> yarn::StringLocalResourceMap {
    let mut value = yarn::LocalResource {
        resource: Some(url),
        size: Some(7),
        timestamp: Some(1_700_000_000_123),
        ..yarn::LocalResource::default()
    };
    value.set_type(yarn::LocalResourceType::Archive);
    value.set_visibility(yarn::LocalResourceVisibility::Private);
    yarn::StringLocalResourceMap {
        key: Some(name.to_owned()),
        value: Some(value),
    }
}

fn token(kind: &str) -> Token {
    Token {
        identifier: Bytes::from_static(b"i"),
        password: Bytes::from_static(b"p"),
        kind: kind.to_owned(),
        service: kind.to_lowercase(),
    }
}

fn stream() -> Bytes {
    let mut credentials = Credentials::default();
    for kind in [
        "RM_DELEGATION_TOKEN",
        "YARN_AM_RM_TOKEN",
        "NMToken",
        WEBHDFS_KIND,
    ] {
        credentials.add(token(kind));
    }
    credentials.write(Version::Writable)
}

/// What Spark 3.5 sends in cluster mode, in short.
fn context() -> yarn::ApplicationSubmissionContext {
    let acl = |kind: yarn::ApplicationAccessType| yarn::ApplicationAclMap {
        access_type: Some(kind.into()),
        acl: Some("root,ann ".to_owned()),
    };
    yarn::ApplicationSubmissionContext {
        application_id: Some(yarn::ApplicationId {
            id: Some(7),
            cluster_timestamp: Some(1_700_000_000_000),
        }),
        application_name: Some("Spark Pi".to_owned()),
        queue: Some("default".to_owned()),
        am_container_spec: Some(yarn::ContainerLaunchContext {
            local_resources: vec![
                resource(
                    "__spark_libs__",
                    url("webhdfs", "rm", 8088, "/user/a b/x.zip"),
                ),
                resource("__app__.jar", url("file", "", -1, "/tmp/app.jar")),
            ],
            tokens: Some(stream()),
            environment: vec![text("CLASSPATH", "{{PWD}}<CPS>{{PWD}}/*")],
            command: vec![
                "{{JAVA_HOME}}/bin/java".to_owned(),
                "-server 1><LOG_DIR>/o".to_owned(),
            ],
            application_ac_ls: vec![
                acl(yarn::ApplicationAccessType::AppaccessViewApp),
                acl(yarn::ApplicationAccessType::AppaccessModifyApp),
            ],
            ..yarn::ContainerLaunchContext::default()
        }),
        unmanaged_am: Some(false),
        resource: Some(yarn::Resource {
            memory: Some(1408),
            virtual_cores: Some(1),
            resource_value_map: Vec::new(),
        }),
        application_type: Some("SPARK".to_owned()),
        application_tags: vec!["b".to_owned(), "a".to_owned(), "b".to_owned()],
        ..yarn::ApplicationSubmissionContext::default()
    }
}

fn refusal(change: impl FnOnce(&mut yarn::ApplicationSubmissionContext)) -> RpcException {
    let mut context = context();
    change(&mut context);
    let exception = submission(context, 2).unwrap_err();
    assert_eq!(
        exception.class.reaction(),
        bobbin_hadoop::exceptions::Reaction::AtOnce
    );
    exception
}

#[test]
fn what_spark_submits() {
    let submission = submission(context(), 2).unwrap();
    assert_eq!(
        submission.application.unwrap().to_string(),
        "application_1700000000000_0007"
    );
    assert_eq!(submission.resource, Resource::new(1408, 1));
    assert_eq!(submission.max_attempts, 0);
    assert_eq!(submission.tags, ["b", "a"]);
    assert_eq!(submission.view_acl, "root,ann ");
    assert_eq!(submission.failures_validity_ms, None);
    let launch = submission.launch;
    assert_eq!(launch.contract, LaunchContract::Yarn);
    assert_eq!(launch.argv[1], "-server 1><LOG_DIR>/o");
    assert_eq!(launch.environment["CLASSPATH"], "{{PWD}}<CPS>{{PWD}}/*");
    let sources: Vec<_> = launch
        .local_resources
        .iter()
        .map(|r| r.source.as_str())
        .collect();
    assert_eq!(
        sources,
        ["webhdfs://rm:8088/user/a b/x.zip", "file:/tmp/app.jar"]
    );
    let libs = &launch.local_resources[0];
    assert_eq!((libs.mtime_ms, libs.size_bytes), (1_700_000_000_123, 7));
    assert_eq!(
        (libs.kind, libs.visibility),
        (ResourceKind::Archive, Visibility::Private)
    );
}

#[test]
fn the_right_to_submit_is_not_passed_on_unless_asked_for() {
    let kinds = |context| {
        let launch = submission(context, 2).unwrap().launch;
        let stream = launch.secrets[TOKENS_SECRET].0.clone();
        let credentials = Credentials::read(stream.into()).unwrap();
        let kinds = credentials.tokens.into_iter().map(|(_, token)| token.kind);
        kinds.collect::<Vec<_>>()
    };
    assert_eq!(kinds(context()), [WEBHDFS_KIND]);
    let mut asking = context();
    let spec = asking.am_container_spec.as_mut().unwrap();
    spec.environment.push(text(KEEP_TOKEN, "true"));
    assert_eq!(kinds(asking), ["RM_DELEGATION_TOKEN", WEBHDFS_KIND]);
}

#[test]
fn no_tokens_are_none() {
    let mut context = context();
    context.am_container_spec.as_mut().unwrap().tokens = None;
    let launch = submission(context, 2).unwrap().launch;
    assert_eq!(launch.secrets[TOKENS_SECRET].0, b"HDTS\0\0\0");
}

#[test]
fn an_unmanaged_master_is_launched_by_nobody() {
    let mut context = context();
    context.unmanaged_am = Some(true);
    context.resource = None;
    let submission = submission(context, 2).unwrap();
    assert!(submission.unmanaged);
    assert_eq!(submission.resource, Resource::default());
    assert_eq!(submission.launch.contract, LaunchContract::Yarn);
    assert!(submission.launch.argv.is_empty() && submission.launch.secrets.is_empty());
    assert_eq!(submission.view_acl, "root,ann ");
}

#[test]
fn a_labeled_master_is_asked_for_by_requests() {
    let mut context = context();
    context.resource = None;
    let capability = yarn::Resource {
        memory: Some(512),
        virtual_cores: None,
        resource_value_map: Vec::new(),
    };
    context.am_container_resource_request = vec![yarn::ResourceRequest {
        resource_name: Some("*".to_owned()),
        capability: Some(capability),
        num_containers: Some(1),
        node_label_expression: Some("spot".to_owned()),
        ..yarn::ResourceRequest::default()
    }];
    let submission = submission(context, 2).unwrap();
    assert_eq!(submission.node_label, "spot");
    assert_eq!(submission.resource, Resource::new(512, 1));
}

#[test]
fn numbers_are_bounded_as_in_yarn() {
    let of = |max_app_attempts, validity, timeout: Option<i64>| {
        let mut context = context();
        context.max_app_attempts = Some(max_app_attempts);
        context.attempt_failures_validity_interval = Some(validity);
        context.application_timeouts = timeout
            .map(|timeout| yarn::ApplicationTimeoutMap {
                application_timeout_type: Some(1),
                timeout: Some(timeout),
            })
            .into_iter()
            .collect();
        let s = submission(context, 2).unwrap();
        (s.max_attempts, s.failures_validity_ms, s.timeout_ms)
    };
    assert_eq!(of(9, -1, None), (2, None, 0));
    assert_eq!(of(1, 60_000, Some(5)), (1, Some(60_000), 5_000));
    assert_eq!(of(-3, 0, Some(i64::MAX)).0, 0);
}

#[test]
fn names_are_made_fit_to_be_shown() {
    assert_eq!(name("a\nb\u{7}"), "a b ");
    assert_eq!(name(""), "N/A");
    assert_eq!(name(&"é".repeat(1000)).len(), 1024);
    assert_eq!(queue("root.default"), "default");
}

#[test]
fn what_cannot_work_is_refused_at_once() {
    type Context = yarn::ApplicationSubmissionContext;
    fn spec(context: &mut Context) -> &mut yarn::ContainerLaunchContext {
        context.am_container_spec.as_mut().unwrap()
    }
    let first = |c: &mut Context, change: fn(&mut yarn::LocalResource)| {
        change(spec(c).local_resources[0].value.as_mut().unwrap());
    };
    let cases: Vec<(ExceptionClass, &str, RpcException)> = vec![
        (
            ExceptionClass::ApplicationIdNotProvided,
            "getNewApplication",
            refusal(|c| c.application_id = None),
        ),
        (
            ExceptionClass::IllegalArgument,
            "application_id.id",
            refusal(|c| c.application_id = Some(yarn::ApplicationId::default())),
        ),
        (
            ExceptionClass::InvalidResourceRequest,
            "no resource",
            refusal(|c| c.resource = None),
        ),
        (
            ExceptionClass::InvalidResourceRequest,
            "below zero",
            refusal(|c| c.resource.as_mut().unwrap().memory = Some(-5)),
        ),
        (
            ExceptionClass::Yarn,
            "LIFETIME",
            refusal(|c| {
                c.application_timeouts = vec![yarn::ApplicationTimeoutMap::default()];
            }),
        ),
        (
            ExceptionClass::Yarn,
            "reservation",
            refusal(|c| c.reservation_id = Some(yarn::ReservationId::default())),
        ),
        (
            ExceptionClass::Yarn,
            "HDTS",
            refusal(|c| spec(c).tokens = Some(Bytes::from_static(b"nonsense"))),
        ),
        (
            ExceptionClass::Yarn,
            "use ARCHIVE",
            refusal(|c| first(c, |r| r.set_type(yarn::LocalResourceType::Pattern))),
        ),
        (
            ExceptionClass::Yarn,
            "webhdfs: and file: only",
            refusal(|c| first(c, |r| r.resource = Some(url("hdfs", "nn", 8020, "/x")))),
        ),
        (
            ExceptionClass::Yarn,
            "absolute path",
            refusal(|c| first(c, |r| r.resource = Some(url("file", "", -1, "x")))),
        ),
        (
            ExceptionClass::Yarn,
            "timestamp is -1",
            refusal(|c| first(c, |r| r.timestamp = Some(-1))),
        ),
        (
            ExceptionClass::IllegalArgument,
            "local_resources.resource",
            refusal(|c| first(c, |r| r.resource = None)),
        ),
        (
            ExceptionClass::Yarn,
            "number of attempts",
            refusal(|c| {
                let mut retry = yarn::ContainerRetryContext::default();
                retry.set_retry_policy(yarn::ContainerRetryPolicy::RetryOnAllErrors);
                spec(c).container_retry_context = Some(retry);
            }),
        ),
    ];
    for (class, words, exception) in cases {
        assert_eq!(exception.class, class, "{exception}");
        assert!(exception.message.contains(words), "{exception}");
    }
}

#[test]
fn a_port_that_is_not_given_is_webhdfs_own() {
    let given = |port| source("x", &url("webhdfs", "rm", port, "/x")).unwrap();
    assert_eq!(given(-1), "webhdfs://rm:9870/x");
    assert_eq!(given(1), "webhdfs://rm:1/x");
}
