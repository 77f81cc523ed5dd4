//! What reports and lists tell of applications, and whom.

use bobbin_types::{Resource, WallMillis};

use super::world::{World, application, attempt, container, node_id, user};
use crate::view::ApplicationFilter;
use crate::{Config, Effect, Event, Fetching, Groups, NodeHeartbeat, Principal, ResourceSeconds};

fn ran(script: &str) -> World {
    let mut world = World::new(Config::default());
    world.run(script);
    world
}

const TWO_NODES: &str = "node a 4096 4
    node b 4096 4
    submit yarn
    started 1.1#1
    attach-yarn 1.1
";

#[test]
fn what_was_used_over_time_is_known_and_kept() {
    let mut world = ran("node a 8192 8
         submit
         started 1.1#1
         attach 1.1
         live 10000
         ask 1.1 1 2048 2
         live 10000");
    let used = |world: &World| world.rm.application(application(1)).unwrap().used_seconds;
    let seconds = |memory_mib, vcores| ResourceSeconds { memory_mib, vcores };
    assert_eq!(used(&world), seconds(20 * 1024 + 10 * 2048, 20 + 20));
    world.run("finish 1.1 0\n exited 1.1#1 0");
    world.run("live 10000");
    let total = seconds(20 * 1024 + 10 * 2048, 40);
    assert_eq!(used(&world), total);
    world.restart();
    assert_eq!(used(&world), total);
    world.journal = world.rm.snapshot();
    world.restart();
    assert_eq!(used(&world), total);
}

/// Says that a node fetches files: container, bytes and total of each.
fn fetch(world: &mut World, node: &str, files: &[(&str, u64, u64)]) -> bool {
    let fetching = files.iter().map(|(id, bytes, bytes_total)| Fetching {
        container: container(id),
        name: "da\nta".to_owned(),
        bytes: *bytes,
        bytes_total: *bytes_total,
    });
    let heartbeat = NodeHeartbeat {
        memory_used_mib: 1,
        cpu_permille: 1,
        problems: Vec::new(),
        fetching: fetching.collect(),
    };
    let effects = world.handle(Event::NodeHeartbeat {
        node: node_id(node),
        session: world.node_sessions[node],
        heartbeat,
    });
    let changed = |effect: &Effect| matches!(effect, Effect::ApplicationChanged(_));
    effects.iter().any(changed)
}

#[test]
fn what_containers_wait_for_is_told_until_they_run() {
    let mut world = ran("node a 4096 9\n node b 1 1\n submit");
    let words = |world: &World| world.rm.application(application(1)).unwrap().waiting;
    let of = |world: &World, id| world.rm.container(container(id)).unwrap().diagnostics;
    assert!(!fetch(&mut world, "a", &[]), "nobody is woken for nothing");
    assert!(fetch(
        &mut world,
        "a",
        &[("1.1#1", 3 << 20, 5 << 30), ("1.1#1", 0, 0)]
    ));
    let told = "fetching 'data', 3 MiB of 5 GiB and 1 more files";
    assert_eq!(of(&world, "1.1#1"), told);
    assert!(words(&world).ends_with(&format!("has not registered yet, {told}")));
    assert!(fetch(&mut world, "a", &[]), "what is over is told too");
    assert_eq!(of(&world, "1.1#1"), "");
    // Another node's containers are not its business.
    assert!(!fetch(&mut world, "b", &[("1.1#1", 1, 2)]));
    assert!(!fetch(&mut world, "a", &[("1.1#9", 1, 2)]));
    fetch(&mut world, "a", &[("1.1#1", 1, 2)]);
    world.run("started 1.1#1\n attach 1.1\n ask 1.1 4 64 1");
    assert_eq!(
        (of(&world, "1.1#1").as_str(), words(&world).as_str()),
        ("", "")
    );
    let all = ["1.1#2", "1.1#3", "1.1#4", "1.1#5"].map(|id| (id, 7, 0));
    fetch(&mut world, "a", &all);
    let told = words(&world);
    assert!(
        told.contains("000002 on a:1 is fetching 'data', 7 bytes; "),
        "{told}"
    );
    assert!(
        told.ends_with("more containers are fetching files"),
        "{told}"
    );
    world.run("node-lost a");
    assert_eq!(words(&world), "", "nobody knows now");
}

#[test]
fn reports_tell_what_yarn_tells() {
    let mut world = ran(&format!(
        "{TWO_NODES}
         live 5000
         ask 1.1 1 1024 1
         started 1.1#2
         exited 1.1#2 3 it crashed"
    ));
    let report = world.rm.application(application(1)).unwrap();
    assert_eq!((report.host.as_str(), report.rpc_port), ("m", 99));
    assert_eq!(report.tracking_url, "http://m:4040");
    assert_eq!(report.current_attempt, Some(attempt(1, 1)));
    let master = report.master.unwrap();
    assert_eq!(
        (master.node.host(), master.node_http_address.as_str()),
        ("a", "a:3")
    );
    let executor = world.rm.container(container("1.1#2")).unwrap();
    assert_eq!(executor.created, Some(WallMillis(5000)));
    assert_eq!(executor.finished, Some(WallMillis(5000)));
    assert_eq!(
        (executor.priority, executor.node_http_address.as_str()),
        (1, "b:3")
    );
    let rows = world.rm.attempt_containers(attempt(1, 1), 0, None).rows;
    assert_eq!(rows.len(), 2);
    assert!(
        world
            .rm
            .attempt_containers(attempt(1, 2), 0, None)
            .rows
            .is_empty()
    );
    let metrics = world.rm.metrics();
    assert_eq!((metrics.nodes.running, metrics.statistics.running), (2, 1));
    assert_eq!(metrics.statistics.available, Resource::new(7168, 7));
    let view = world.rm.master_view(attempt(1, 1), 0).unwrap();
    assert_eq!((view.nodes_running, view.changed_nodes.len()), (2, 2));
    world.run("ill b broken");
    let view = world
        .rm
        .master_view(attempt(1, 1), view.node_changes)
        .unwrap();
    assert_eq!((view.nodes_running, view.changed_nodes.len()), (1, 1));
    assert_eq!(world.rm.master_view(attempt(1, 2), 0), None);
}

#[test]
fn access_lists_decide_who_sees_and_who_changes() {
    let mut world = World::new(Config::default());
    let mut submission = super::world::submission();
    submission.view_acl = "bob".to_owned();
    submission.modify_acl = " staff".to_owned();
    world.submit(submission);
    let staff = Principal::User {
        name: "carl".parse().unwrap(),
        administrator: false,
        groups: Groups(["staff".to_owned()].into()),
    };
    let sees = |world: &World, who: &Principal| {
        let filter = ApplicationFilter::default();
        world.rm.applications(who, &filter, 0, None).rows.len()
    };
    assert_eq!(sees(&world, &user("bob")), 1);
    assert_eq!((sees(&world, &user("eve")), sees(&world, &staff)), (0, 0));
    let request = world.request();
    let effects = world.handle(crate::Event::Kill {
        request,
        principal: staff,
        application: application(1),
        wait: false,
        reason: String::new(),
    });
    assert!(effects.iter().any(|effect| matches!(
        effect,
        crate::Effect::Reply {
            result: Ok(crate::Reply::Killed { .. }),
            ..
        }
    )));
    // What is remembered of an ended one says still who may see it.
    assert_eq!(
        (sees(&world, &user("bob")), sees(&world, &user("eve"))),
        (1, 0)
    );
}

#[test]
fn a_label_that_no_node_has_is_refused() {
    let mut world = World::new(Config::default());
    let mut submission = super::world::submission();
    submission.node_label = "gpu".to_owned();
    world.submit(submission);
    assert_eq!(
        world.transcript.trim(),
        "refused: no node has the label 'gpu'"
    );
}

#[test]
fn lists_are_filtered_as_yarn_filters_them() {
    let mut world = World::new(Config::default());
    for (name, kind, tag) in [("one", "SPARK", "Red"), ("two", "YARN", "blue")] {
        let mut submission = super::world::submission();
        submission.name = name.to_owned();
        submission.application_type = kind.to_owned();
        submission.tags = vec![tag.to_owned()];
        world.submit(submission);
        world.run("pass 1000");
    }
    let named = |change: &dyn Fn(&mut ApplicationFilter)| -> Vec<String> {
        let mut filter = ApplicationFilter::default();
        change(&mut filter);
        let page = world.rm.applications(&user("ann"), &filter, 0, None);
        page.rows.into_iter().map(|row| row.name).collect()
    };
    let one = |text: &str| std::iter::once(text.to_owned()).collect();
    let range = Some((WallMillis(1), WallMillis(1000)));
    assert_eq!(named(&|_| {}), ["two", "one"]);
    assert_eq!(named(&|filter| filter.types = one("spark")), ["one"]);
    assert_eq!(named(&|filter| filter.tags = one("RED")), ["one"]);
    assert_eq!(named(&|filter| filter.queues = one("none")), [""; 0]);
    assert_eq!(
        named(&|filter| filter.name = Some("two".to_owned())),
        ["two"]
    );
    assert_eq!(named(&|filter| filter.submitted = range), ["two"]);
    assert_eq!(named(&|filter| filter.finished = range), [""; 0]);
}
