//! Every limit on what a client, a node or a master can send, each with its refusal.

use std::collections::BTreeMap;

use bobbin_types::Resource;
use expect_test::expect;

use super::world::{World, application, ask, attempt, registration, submission, user};
use crate::launch::{LocalResource, ResourceKind, Secret, Visibility};
use crate::view::ApplicationFilter;
use crate::{
    Acls, Config, Effect, Event, Groups, MasterMessage, Object, Operation, Principal, Refusal,
    RefusalKind, Submission, may,
};

fn refusal(world: &mut World, submission: Submission) -> Option<Refusal> {
    let effects = world.submit(submission);
    effects.into_iter().find_map(|effect| match effect {
        Effect::Reply {
            result: Err(refusal),
            ..
        } => Some(refusal),
        _ => None,
    })
}

fn file(name: &str, source: &str) -> LocalResource {
    LocalResource {
        name: name.to_owned(),
        source: source.to_owned(),
        size_bytes: 1,
        mtime_ms: 0,
        digest: None,
        kind: ResourceKind::File,
        visibility: Visibility::Application,
        executable: false,
    }
}

/// Each change makes a good submission a bad one.
fn bad_submissions() -> Vec<fn(&mut Submission)> {
    vec![
        |s| s.name = String::new(),
        |s| s.name = "a\x1b[2J".to_owned(),
        |s| s.name = "x".repeat(1025),
        |s| s.queue = "none".to_owned(),
        |s| s.tags = vec!["t".to_owned(); 11],
        |s| s.tags = vec!["t".repeat(101)],
        |s| s.max_attempts = 101,
        |s| s.resource = Resource::new(0, 1),
        |s| s.resource = Resource::new(1, 0),
        |s| s.resource = Resource::new(5000, 1),
        |s| s.resource = Resource::new(1, 9),
        |s| s.launch.argv = Vec::new(),
        |s| s.launch.argv = vec![String::new()],
        |s| s.launch.argv = vec!["a\0".to_owned()],
        |s| s.launch.argv = vec!["a".repeat(1 << 17), "b".repeat((1 << 17) + 1)],
        |s| s.launch.argv = vec!["a".repeat(1 << 17); 9],
        |s| s.launch.argv = vec!["a".to_owned(); 10_001],
        |s| s.launch.environment = BTreeMap::from([("A=B".to_owned(), String::new())]),
        |s| s.launch.environment = BTreeMap::from([("A".to_owned(), "\0".to_owned())]),
        |s| s.launch.environment = BTreeMap::from([("A".to_owned(), "x".repeat(600_000))]),
        |s| s.launch.local_resources = vec![file("../x", "file:/x")],
        |s| s.launch.local_resources = vec![file("..", "file:/x")],
        |s| s.launch.local_resources = vec![file("x", "ftp://x")],
        |s| s.launch.local_resources = vec![file("x", "file:/x"), file("x", "file:/y")],
        |s| s.launch.secrets = BTreeMap::from([("a/b".to_owned(), Secret(vec![1]))]),
        |s| s.launch.secrets = BTreeMap::from([("a".to_owned(), Secret(vec![1; 300_000]))]),
        |s| s.settings = BTreeMap::from([("a".to_owned(), "x".repeat(300_000))]),
        |s| s.unmanaged = true,
        |s| s.application = Some(application(7)),
    ]
}

#[test]
fn refused_submissions_name_the_limit() {
    let mut world = World::new(Config::default());
    world.run("node a 4096 4");
    let mut words = String::new();
    for change in bad_submissions() {
        let mut bad = submission();
        change(&mut bad);
        let refusal = refusal(&mut world, bad).expect("a bad submission is refused");
        let text: String = refusal.to_string().chars().take(150).collect();
        words += &format!("{:?}: {text}\n", refusal.kind());
    }
    assert!(world.rm.applications.is_empty());
    assert!(refusal(&mut world, submission()).is_none());
    expect![[r#"
        Invalid: application name is empty
        Invalid: application name has a control character (U+001B)
        Invalid: application name has 1025 bytes, at most 1024 are allowed
        Invalid: no queue 'none'; there is default
        Invalid: tags: 11 given, at most 10 are allowed
        Invalid: tag has 101 bytes, at most 100 are allowed
        Invalid: attempts: 101 given, at most 100 are allowed
        Invalid: memory in MiB is 0, at least 1 is needed
        Invalid: vcores is 0, at least 1 is needed
        Invalid: 5000 MiB, 1 vcore is more than any node has; the largest nodes have 4096 MiB, 4 vcores (kind by kind, 1 nodes)
        Invalid: 1 MiB, 9 vcores is more than any node has; the largest nodes have 4096 MiB, 4 vcores (kind by kind, 1 nodes)
        Invalid: a managed application needs a program to start
        Invalid: a managed application needs a program to start
        Invalid: argument has a NUL character
        Invalid: bytes of one argument: 131073 given, at most 131072 are allowed
        Invalid: bytes of all arguments: 1179648 given, at most 1048576 are allowed
        Invalid: arguments: 10001 given, at most 10000 are allowed
        Invalid: environment variable 'A=B' has '=' in its name
        Invalid: value of an environment variable has a NUL character
        Invalid: bytes of the environment: 600001 given, at most 524288 are allowed
        Invalid: name of a file '../x' is not one component of a path
        Invalid: name of a file '..' is not one component of a path
        Invalid: source of a file 'ftp://x' starts with none of bobbin:/ file:/ http:// https:// s3:// s3a:// gs:// abfs:// abfss://
        Invalid: name of a file 'x' is given twice
        Invalid: name of a secret 'a/b' is not one component of a path
        Invalid: bytes of all secrets: 300000 given, at most 262144 are allowed
        Invalid: bytes of all settings: 300001 given, at most 262144 are allowed
        Invalid: an unmanaged application is its submitter's own process: it has no program to start
        Invalid: application_1000_0007 was not handed out by this cluster; get an id first or submit without one
    "#]].assert_eq(&words);
}

#[test]
fn a_secret_is_never_shown() {
    let mut secret = submission();
    secret.launch.secrets = BTreeMap::from([("k".to_owned(), Secret(b"hunter2".to_vec()))]);
    let text = format!("{secret:?}");
    assert!(
        text.contains("Secret(7 bytes)") && !text.contains("104"),
        "{text}"
    );
}

#[test]
fn refused_asks_name_the_limit() {
    let mut world = World::new(Config::default());
    world.run("node a 4096 4\nsubmit unmanaged\nattach 1.1");
    let session = world.master_sessions[&attempt(1, 1)];
    let mut asks = vec![ask(1, 0, 1, 0), ask(1, 5000, 1, 0), ask(1_000_001, 1, 1, 0)];
    let mut label = ask(1, 1, 1, 0);
    let key = crate::AskKey {
        node_label: "gpu".to_owned(),
        ..(*label.key).clone()
    };
    label.key = std::sync::Arc::new(key);
    asks.push(label);
    // More different ones than an application may have, none of which fits beside the others.
    asks.extend((0..1002).map(|id| ask(1, 4096, 4, id)));
    let effects = world.handle(Event::MasterAsks {
        attempt: attempt(1, 1),
        session,
        asks,
    });
    let mut words = String::new();
    for effect in &effects {
        if let Effect::ToMaster {
            message: MasterMessage::AskRefused { reason, .. },
            ..
        } = effect
        {
            words += &format!("{reason}\n");
        }
    }
    expect![[r#"
        memory in MiB is 0, at least 1 is needed
        5000 MiB, 1 vcore is more than any node has; the largest nodes have 4096 MiB, 4 vcores (kind by kind, 1 nodes)
        containers of an ask: 1000001 given, at most 1000000 are allowed
        no node has the label 'gpu'
        different asks of an application would be 1001, at most 1000 are held at once
        different asks of an application would be 1001, at most 1000 are held at once
    "#]].assert_eq(&words);
}

#[test]
fn refused_nodes() {
    let mut world = World::new(Config::default());
    world.run("submit");
    for total in [
        Resource::new(0, 1),
        Resource::new(1, 0),
        Resource::new(u64::MAX, 1),
        Resource::new(1, u32::MAX),
    ] {
        world.register(registration("a", total));
    }
    assert!(world.rm.nodes().is_empty());
    expect![[r#"
        submit
            persist submitted 1
            1: NEW -> SUBMITTED
            1: SUBMITTED -> ACCEPTED
            1.1: NEW -> SCHEDULED
            reply submitted 1
            a <- refused: node a:1 offers 0 MiB, 1 vcore: at least 1 MiB and 1 vcore are needed
            close
            a <- refused: node a:1 offers 1 MiB, 0 vcores: at least 1 MiB and 1 vcore are needed
            close
            a <- refused: node a:1 offers 18446744073709551615 MiB, 1 vcore: at most 2^40 MiB and 65536 vcores are believed
            close
            a <- refused: node a:1 offers 1 MiB, 4294967295 vcores: at most 2^40 MiB and 65536 vcores are believed
            close
    "#]].assert_eq(&world.transcript);
}

#[test]
fn authority() {
    let ann: bobbin_types::UserName = "ann".parse().unwrap();
    let id = application(1);
    let objects = [
        Object::Cluster,
        Object::Application {
            id,
            owner: &ann,
            acls: Acls::default(),
        },
        Object::User(&ann),
        Object::Attempt(attempt(1, 1)),
        Object::Host("h"),
        Object::File("/x"),
    ];
    let admin = Principal::User {
        name: "root".parse().unwrap(),
        administrator: true,
        groups: Groups::default(),
    };
    let principals = [
        ("owner", user("ann")),
        ("other", user("bob")),
        ("administrator", admin),
        ("attempt", Principal::Attempt(attempt(1, 1))),
        ("node", Principal::Node("h".to_owned())),
        (
            "container",
            Principal::Container(super::world::container("1.1#1")),
        ),
        (
            "tenant",
            Principal::Tenant(super::world::container("1.1#1")),
        ),
    ];
    let mut table = String::new();
    for operation in Operation::ALL {
        for (name, principal) in &principals {
            let allowed: Vec<String> = objects
                .iter()
                .filter(|object| may(principal, *operation, object).is_ok())
                .map(|object| {
                    let text = object.to_string();
                    text.split(['_', ' ']).next().unwrap_or_default().to_owned()
                })
                .collect();
            if !allowed.is_empty() {
                table += &format!("{operation:?} {name}: {}\n", allowed.join(" "));
            }
        }
    }
    expect![[r#"
        ViewCluster owner: the application user appattempt host file
        ViewCluster other: the application user appattempt host file
        ViewCluster administrator: the application user appattempt host file
        ViewCluster attempt: the application user appattempt host file
        ViewNodes owner: the application user appattempt host file
        ViewNodes other: the application user appattempt host file
        ViewNodes administrator: the application user appattempt host file
        NewApplication owner: the application user appattempt host file
        NewApplication other: the application user appattempt host file
        NewApplication administrator: the application user appattempt host file
        SubmitApplication owner: the application user appattempt host file
        SubmitApplication other: the application user appattempt host file
        SubmitApplication administrator: the application user appattempt host file
        ViewApplication owner: application user
        ViewApplication administrator: the application user appattempt host file
        ViewApplication attempt: application appattempt
        KillApplication owner: application user
        KillApplication administrator: the application user appattempt host file
        SetPriority owner: application user
        SetPriority administrator: the application user appattempt host file
        MoveApplication owner: application user
        MoveApplication administrator: the application user appattempt host file
        SetTimeout owner: application user
        SetTimeout administrator: the application user appattempt host file
        FailAttempt owner: application user
        FailAttempt administrator: the application user appattempt host file
        SignalContainer owner: application user
        SignalContainer administrator: the application user appattempt host file
        Administer administrator: the application user appattempt host file
        HoldLease owner: application user
        HoldLease administrator: the application user appattempt host file
        ReadLogs owner: application user
        ReadLogs administrator: the application user appattempt host file
        CreateUserToken owner: application user
        CreateUserToken administrator: the application user appattempt host file
        CreateNodeToken administrator: the application user appattempt host file
        Upload owner: application user
        Upload administrator: the application user appattempt host file
        FetchStaged owner: application user
        FetchStaged administrator: the application user appattempt host file
        FetchStaged attempt: application appattempt
        FetchStaged container: application
        ReadFiles owner: file
        ReadFiles other: file
        ReadFiles administrator: file
        ReadFiles container: file
        ReadFiles tenant: file
        ChangeFiles owner: file
        ChangeFiles other: file
        ChangeFiles administrator: file
        ChangeFiles tenant: file
        AttachNode node: host
        AttachMaster attempt: appattempt
    "#]]
    .assert_eq(&table);
}

#[test]
fn lists_are_paged_newest_first_and_show_only_what_may_be_seen() {
    let mut world = World::new(Config::default());
    for _ in 0..5 {
        world.submit(submission());
    }
    let filter = ApplicationFilter::default();
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = world.rm.applications(&user("ann"), &filter, 2, after);
        seen.push(
            page.rows
                .iter()
                .map(|row| row.id.sequence)
                .collect::<Vec<_>>(),
        );
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, [vec![5, 4], vec![3, 2], vec![1]]);
    assert!(
        world
            .rm
            .applications(&user("bob"), &filter, 0, None)
            .rows
            .is_empty()
    );
}

#[test]
fn names_of_applications() {
    let mut world = World::new(Config::default());
    for _ in 0..12 {
        world.submit(submission());
    }
    let resolve = |principal: &Principal, text: &str| {
        world
            .rm
            .resolve(principal, text)
            .map(|id| id.sequence)
            .map_err(|refusal| refusal.kind())
    };
    let ann = user("ann");
    assert_eq!(resolve(&ann, "application_1000_0007"), Ok(7));
    assert_eq!(resolve(&ann, "7"), Ok(7));
    assert_eq!(resolve(&ann, "_0011"), Ok(11));
    assert_eq!(resolve(&ann, "1"), Err(RefusalKind::Invalid));
    assert_eq!(resolve(&ann, "@last"), Ok(12));
    assert_eq!(resolve(&ann, ""), Err(RefusalKind::NotFound));
    assert_eq!(resolve(&ann, "x\x1b"), Err(RefusalKind::NotFound));
    assert_eq!(
        resolve(&ann, "application_1000_0099"),
        Err(RefusalKind::NotFound)
    );
    assert_eq!(resolve(&user("bob"), "7"), Err(RefusalKind::NotFound));
    assert_eq!(resolve(&user("bob"), "@last"), Err(RefusalKind::NotFound));
}

#[test]
fn nothing_is_taken_before_the_journal_is_read() {
    let mut rm = crate::ResourceManager::new(Config::default(), 1, 1);
    let mut effects = Vec::new();
    rm.handle(
        bobbin_types::Millis(0),
        Event::Submit {
            request: crate::RequestId(1),
            principal: user("ann"),
            submission: Box::new(submission()),
        },
        &mut effects,
    );
    assert!(matches!(
        effects.as_slice(),
        [Effect::Reply {
            result: Err(Refusal::Recovering),
            ..
        }]
    ));
}
