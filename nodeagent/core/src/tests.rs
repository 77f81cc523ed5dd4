//! Life-cycle scripts, the printed transition table, and random event lists.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bobbin_types::{
    ApplicationId, AttemptId, ContainerId, ExitStatus, Millis, Resource, UserName, WallMillis,
};
use expect_test::{Expect, expect};
use proptest::prelude::*;

use crate::*;

const WALL: WallMillis = WallMillis(1_000_000);

fn config() -> NodeConfig {
    NodeConfig {
        node: "node1:8043".parse().unwrap(),
        total: Resource::new(1100, 4),
        reserved: Resource::new(100, 0),
        log_retain_ms: 1_000,
    }
}

fn attempt(application: u32, attempt: u32) -> AttemptId {
    let application = ApplicationId {
        cluster_timestamp: 7,
        sequence: application,
    };
    AttemptId {
        application,
        attempt,
    }
}

fn container(application: u32, number: u32) -> ContainerId {
    ContainerId {
        attempt: attempt(application, 1),
        epoch: 1,
        number,
    }
}

fn claims(container: ContainerId, memory_mib: u64) -> ContainerClaims {
    ContainerClaims {
        container,
        user: "alice".parse::<UserName>().unwrap(),
        resource: Resource::new(memory_mib, 1),
        expires: WallMillis(WALL.0 + 600_000),
    }
}

fn revoke(attempt: AttemptId) -> Event {
    Event::RevokeAttempt {
        attempt,
        keep_containers: false,
    }
}

fn exit(status: i32) -> Exit {
    Exit {
        exit_status: ExitStatus(status),
        diagnostics: format!("ended with {status}"),
    }
}

/// One core with a short notation for what happens to it and what it wants done.
struct Script {
    core: NodeAgent,
    now: Millis,
    printed: String,
    records: Vec<Record>,
}

impl Script {
    fn new() -> Script {
        Script {
            core: NodeAgent::new(config()),
            now: Millis(0),
            printed: String::new(),
            records: Vec::new(),
        }
    }

    fn attached() -> Script {
        let mut script = Script::new();
        script.silently(Event::RmAttached);
        script.silently(Event::RmRegistered {
            heartbeat_interval_ms: 1_000,
            wall: WALL,
        });
        script
    }

    fn silently(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.handle(self.now, event, &mut effects);
        self.core.check_invariants().unwrap();
        for effect in &effects {
            if let Effect::Persist(record) = effect {
                self.records.push(record.clone());
            }
        }
        effects
    }

    fn feed(&mut self, name: &str, event: Event) -> &mut Self {
        let effects = self.silently(event);
        writeln!(self.printed, "{name}").unwrap();
        for effect in effects {
            writeln!(self.printed, "  {}", words(&effect)).unwrap();
        }
        self
    }

    fn start(&mut self, id: ContainerId, memory_mib: u64) -> &mut Self {
        self.feed(
            "start",
            Event::Start {
                starter: Starter::ResourceManager,
                claims: claims(id, memory_mib),
                problem: None,
                wall: WALL,
            },
        )
    }

    fn stop(&mut self, id: ContainerId) -> &mut Self {
        self.feed(
            "stop",
            Event::Stop {
                container: id,
                exit: exit(-106),
                wall: WALL,
            },
        )
    }

    fn run(&mut self, id: ContainerId) -> &mut Self {
        self.feed("localized", Event::Localized(id))
            .feed("launched", Event::Launched(id))
    }

    fn end(&mut self, id: ContainerId, status: i32) -> &mut Self {
        self.feed(
            "exited",
            Event::Exited {
                container: id,
                exit: exit(status),
            },
        )
        .feed("cleaned up", Event::CleanedUp(id))
    }

    fn restart(&self) -> Script {
        let mut next = Script::new();
        for record in &self.records {
            assert!(next.silently(Event::Recovered(record.clone())).is_empty());
        }
        next.records = self.records.clone();
        next
    }

    fn check(&self, expected: &Expect) {
        expected.assert_eq(&self.printed);
    }
}

fn report_words(report: &ContainerReport) -> String {
    let status = report
        .exit_status
        .map_or(String::new(), |s| format!(" {s}"));
    let text = &report.diagnostics;
    format!(
        "#{} {}{status} {text}",
        report.container.number, report.state
    )
    .trim_end()
    .to_owned()
}

fn words(effect: &Effect) -> String {
    match effect {
        Effect::Persist(Record::Admitted { claims, .. }) => {
            format!("persist admitted #{}", claims.container.number)
        }
        Effect::Persist(Record::StopRequested { container, exit }) => {
            format!("persist stop #{} {}", container.number, exit.exit_status)
        }
        Effect::Persist(Record::Exited { container, exit }) => {
            format!("persist exited #{} {}", container.number, exit.exit_status)
        }
        Effect::Persist(Record::Done { container, .. }) => {
            format!("persist done #{}", container.number)
        }
        Effect::Persist(record) => format!("persist {record:?}"),
        Effect::Localize(work) => format!("localize #{}", work.container.number),
        Effect::Launch(id) => format!("launch #{}", id.number),
        Effect::Terminate(id) => format!("terminate #{}", id.number),
        Effect::Signal { container, signal } => format!("{signal:?} to #{}", container.number),
        Effect::Resize {
            container,
            resource,
        } => format!("resize #{} to {resource}", container.number),
        Effect::AnswerCall { call, result } => match result {
            Ok(report) => format!("answer {}: {}", call.0, report_words(report)),
            Err(error) => format!("answer {}: {error}", call.0),
        },
        Effect::CleanUp(id) => format!("clean up #{}", id.number),
        Effect::Forget(id) => format!("forget #{}", id.number),
        Effect::ReportStartedToRm(report) => format!("to rm: started {}", report_words(report)),
        Effect::ReportExitToRm(report) => format!("to rm: {}", report_words(report)),
        Effect::ReportToMaster { stream, report } => {
            format!("to master {}: {}", stream.0, report_words(report))
        }
        Effect::CloseMaster { stream, reason } => format!("close master {}: {reason}", stream.0),
        Effect::RegisterWithRm(registration) => {
            let all: Vec<_> = registration.containers.iter().map(report_words).collect();
            format!(
                "register [{}], {} applications",
                all.join(", "),
                registration.applications.len()
            )
        }
        Effect::HeartbeatToRm(_) => "heartbeat".to_owned(),
        Effect::CleanUpApplication(id) => format!("clean up {id}"),
        Effect::DeleteLogs(id) => format!("delete logs of {id}"),
    }
}

#[test]
fn a_container_lives_and_is_forgotten_after_the_acknowledgment() {
    let mut script = Script::attached();
    let id = container(1, 1);
    script
        .start(id, 500)
        .run(id)
        .end(id, 7)
        .feed("ack", Event::ExitAcknowledged(id));
    script.start(id, 500);
    script.check(&expect![[r#"
        start
          localize #1
          persist admitted #1
        localized
          launch #1
        launched
          to rm: started #1 RUNNING
        exited
          persist exited #1 7
          clean up #1
        cleaned up
          to rm: #1 COMPLETED 7 ended with 7
        ack
          persist done #1
          forget #1
        start
          to rm: #1 COMPLETED -100 the token of container_e01_7_0001_01_000001 was used already: a container runs once
    "#]]);
    assert_eq!(script.core.accounting().used(), Resource::default());
    assert_eq!(script.core.illegal_transitions(), 0);
}

#[test]
fn a_second_start_runs_nothing() {
    let mut script = Script::attached();
    let id = container(1, 1);
    script
        .start(id, 500)
        .start(id, 500)
        .run(id)
        .start(id, 500)
        .end(id, 0)
        .start(id, 500);
    script.check(&expect![[r#"
        start
          localize #1
          persist admitted #1
        start
        localized
          launch #1
        launched
          to rm: started #1 RUNNING
        start
          to rm: started #1 RUNNING
        exited
          persist exited #1 0
          clean up #1
        cleaned up
          to rm: #1 COMPLETED 0 ended with 0
        start
          to rm: #1 COMPLETED 0 ended with 0
    "#]]);
}

#[test]
fn the_cluster_s_reason_wins_except_over_memory() {
    let mut script = Script::attached();
    let (a, b) = (container(1, 1), container(1, 2));
    script.start(a, 100).run(a).stop(a).stop(a).end(a, 143);
    script.start(b, 100).run(b).stop(b).end(b, -104);
    script.check(&expect![[r#"
        start
          localize #1
          persist admitted #1
        localized
          launch #1
        launched
          to rm: started #1 RUNNING
        stop
          persist stop #1 -106
          terminate #1
        stop
          terminate #1
        exited
          persist exited #1 -106
          clean up #1
        cleaned up
          to rm: #1 COMPLETED -106 ended with -106
        start
          localize #2
          persist admitted #2
        localized
          launch #2
        launched
          to rm: started #2 RUNNING
        stop
          persist stop #2 -106
          terminate #2
        exited
          persist exited #2 -104
          clean up #2
        cleaned up
          to rm: #2 COMPLETED -104 ended with -104
    "#]]);
}

#[test]
fn a_stop_reaches_every_phase() {
    let mut script = Script::attached();
    let (a, b, c) = (container(1, 1), container(1, 2), container(1, 3));
    script
        .start(a, 1)
        .stop(a)
        .feed("localized", Event::Localized(a));
    script
        .start(b, 1)
        .feed("localized", Event::Localized(b))
        .stop(b);
    script.feed("launched", Event::Launched(b)).end(b, 137);
    script.stop(c).start(c, 1);
    script.check(&expect![[r#"
        start
          localize #1
          persist admitted #1
        stop
          persist stop #1 -106
          terminate #1
        localized
          persist exited #1 -106
          clean up #1
        start
          localize #2
          persist admitted #2
        localized
          launch #2
        stop
          persist stop #2 -106
          terminate #2
        launched
          terminate #2
        exited
          persist exited #2 -106
          clean up #2
        cleaned up
          to rm: #2 COMPLETED -106 ended with -106
        stop
          persist done #3
          to rm: #3 COMPLETED -106 ended with -106
        start
          to rm: #3 COMPLETED -100 the token of container_e01_7_0001_01_000003 was used already: a container runs once
    "#]]);
}

#[test]
fn refusals_have_words() {
    let mut script = Script::attached();
    script
        .start(container(1, 1), 900)
        .start(container(1, 2), 900);
    let start = |id, problem, wall| Event::Start {
        starter: Starter::ResourceManager,
        claims: claims(id, 1),
        problem,
        wall,
    };
    script.feed(
        "expired",
        start(container(1, 3), None, WallMillis(WALL.0 + 600_001)),
    );
    script.feed(
        "bad launch",
        start(container(1, 4), Some("argv is empty".into()), WALL),
    );
    script.feed("revoke", revoke(attempt(2, 1)));
    script.feed("revoked", start(container(2, 1), None, WALL));
    let application = attempt(3, 1).application;
    script.feed(
        "end",
        Event::ApplicationEnded {
            application,
            wall: WALL,
        },
    );
    script.feed("ended", start(container(3, 1), None, WALL));
    script.silently(Event::Problems(vec!["no cgroups".into()]));
    script.feed("ill", start(container(1, 5), None, WALL));
    script.check(&expect![[r#"
        start
          localize #1
          persist admitted #1
        start
          to rm: #2 COMPLETED -100 node node1:8043 cannot start container_e01_7_0001_01_000002: it needs 900 MiB, 1 vcore, but of the node's 1000 MiB, 4 vcores only 100 MiB, 3 vcores are free
        expired
          to rm: #3 COMPLETED -100 the token of container_e01_7_0001_01_000003 expired 1 ms ago; the grant was not used in time
        bad launch
          to rm: #4 COMPLETED -1000 argv is empty
        revoke
          persist AttemptRevoked { attempt: AttemptId { application: ApplicationId { cluster_timestamp: 7, sequence: 2 }, attempt: 1 }, keep_containers: false }
        revoked
          to rm: #1 COMPLETED -100 appattempt_7_0002_000001 has ended: its tokens are dead on node node1:8043
        end
          persist ApplicationEnded { application: ApplicationId { cluster_timestamp: 7, sequence: 3 }, ended: WallMillis(1000000) }
        ended
          to rm: #1 COMPLETED -100 application_7_0003 has ended: container_e01_7_0003_01_000001 is not started
        ill
          to rm: #5 COMPLETED -100 node node1:8043 takes no work: no cgroups
    "#]]);
}

#[test]
fn a_master_starts_stops_and_hears_of_its_own_only() {
    let mut script = Script::attached();
    let (one, two) = (StreamId(1), StreamId(2));
    let start = |stream, id| Event::Start {
        starter: Starter::Master(stream),
        claims: claims(id, 10),
        problem: None,
        wall: WALL,
    };
    let a = container(1, 2);
    script.start(container(1, 1), 10).run(container(1, 1));
    script.feed(
        "attach 1",
        Event::MasterAttached {
            stream: one,
            attempt: attempt(1, 1),
        },
    );
    script.feed("start", start(one, a)).run(a);
    script.feed("foreign start", start(one, container(2, 1)));
    let stop = |stream, id| Event::StopByMaster {
        stream,
        container: id,
        wall: WALL,
    };
    script.feed("foreign stop", stop(one, container(2, 1)));
    script.feed(
        "attach 2",
        Event::MasterAttached {
            stream: two,
            attempt: attempt(1, 1),
        },
    );
    script.feed("old stream", stop(one, a));
    script.feed("stop", stop(two, a)).end(a, 143);
    script.feed("revoke", revoke(attempt(1, 1)));
    script.check(&expect![[r#"
        start
          localize #1
          persist admitted #1
        localized
          launch #1
        launched
          to rm: started #1 RUNNING
        attach 1
        start
          localize #2
          persist admitted #2
        localized
          launch #2
        launched
          to rm: started #2 RUNNING
          to master 1: #2 RUNNING
        foreign start
          to master 1: #1 COMPLETED -100 container_e01_7_0002_01_000001 is not of the attempt whose master asks to start it
        foreign stop
          to master 1: #1 COMPLETED -100 container_e01_7_0002_01_000001 is not of the attempt whose master asks to end it
        attach 2
          close master 1: appattempt_7_0001_000001 opened another stream to this node
          to master 2: #2 RUNNING
        old stream
          to master 1: #2 COMPLETED -100 container_e01_7_0001_01_000002 is not of the attempt whose master asks to end it
        stop
          persist stop #2 -105
          terminate #2
        exited
          persist exited #2 -105
          clean up #2
        cleaned up
          to master 2: #2 COMPLETED -105 ended by its application master
          to rm: #2 COMPLETED -105 ended by its application master
        revoke
          persist AttemptRevoked { attempt: AttemptId { application: ApplicationId { cluster_timestamp: 7, sequence: 1 }, attempt: 1 }, keep_containers: false }
          persist stop #1 -106
          terminate #1
          to master 2: #2 COMPLETED -105 ended by its application master
          to rm: #2 COMPLETED -105 ended by its application master
          close master 2: appattempt_7_0001_000001 has ended: its tokens are dead on this node
    "#]]);
}

#[test]
fn a_restarted_agent_finds_its_containers() {
    let mut before = Script::attached();
    let ids: Vec<_> = (1..=4).map(|n| container(1, n)).collect();
    for id in &ids {
        before.start(*id, 100).run(*id);
    }
    before.stop(ids[3]);
    let mut script = before.restart();
    assert_eq!(script.core.accounting().used(), Resource::new(400, 4));
    let found = |id, found| Event::Found {
        container: id,
        found,
    };
    script.feed("running", found(ids[0], Found::Running));
    script.feed("ended", found(ids[1], Found::Ended(exit(3))));
    script.feed("gone", found(ids[2], Found::Gone));
    script.feed("running, to be ended", found(ids[3], Found::Running));
    script.feed("cleaned up", Event::CleanedUp(ids[1]));
    script.feed("attached", Event::RmAttached);
    script.check(&expect![[r#"
        running
        ended
          persist exited #2 3
          clean up #2
        gone
          persist exited #3 -100
          clean up #3
        running, to be ended
          persist stop #4 -106
          terminate #4
        cleaned up
        attached
          register [#1 RUNNING, #2 COMPLETED 3 ended with 3, #3 RUNNING, #4 RUNNING], 1 applications
    "#]]);
}

#[test]
fn an_ended_application_leaves_logs_then_nothing() {
    let mut script = Script::attached();
    let id = container(1, 1);
    let application = id.application();
    script.start(id, 100).run(id);
    script.feed(
        "ended",
        Event::ApplicationEnded {
            application,
            wall: WALL,
        },
    );
    script.end(id, 143);
    script.feed("ack", Event::ExitAcknowledged(id));
    script.feed("early", Event::Tick { wall: WALL });
    script.now = Millis(1_000);
    script.feed(
        "retention",
        Event::Tick {
            wall: WallMillis(WALL.0 + 1_000),
        },
    );
    script.feed("deleted", Event::LogsDeleted(application));
    script.check(&expect![[r#"
        start
          localize #1
          persist admitted #1
        localized
          launch #1
        launched
          to rm: started #1 RUNNING
        ended
          persist ApplicationEnded { application: ApplicationId { cluster_timestamp: 7, sequence: 1 }, ended: WallMillis(1000000) }
          persist stop #1 -107
          terminate #1
        exited
          persist exited #1 -107
          clean up #1
        cleaned up
          to rm: #1 COMPLETED -107 application_7_0001 has ended
          clean up application_7_0001
        ack
          persist done #1
          forget #1
        early
        retention
          heartbeat
          delete logs of application_7_0001
        deleted
          persist LogsDeleted(ApplicationId { cluster_timestamp: 7, sequence: 1 })
    "#]]);
    let after = script.restart();
    assert_eq!(after.core.snapshot(), vec![]);
}

#[test]
fn ends_are_told_again_until_acknowledged() {
    let mut script = Script::attached();
    let id = container(1, 1);
    script.start(id, 100).run(id).end(id, 0);
    script.printed.clear();
    script.now = Millis(limits::REPORT_AGAIN_MS);
    script.feed("tick", Event::Tick { wall: WALL });
    script.silently(Event::RmLost);
    script.now = Millis(3 * limits::REPORT_AGAIN_MS);
    script.feed("away", Event::Tick { wall: WALL });
    script.feed("back", Event::RmAttached);
    script.check(&expect![[r#"
        tick
          heartbeat
          to rm: #1 COMPLETED 0 ended with 0
        away
        back
          register [#1 COMPLETED 0 ended with 0], 1 applications
    "#]]);
}

#[test]
fn the_printed_table_is_fresh() {
    let mut text = String::from(
        "# A container in the node agent\n\n\
         Printed from `nodeagent/core/src/container.rs` by a test of that crate; do not edit.\n\
         `=` stays, `.` cannot happen: it is counted and ignored.\n\n| phase |",
    );
    for event in ContainerEvent::ALL {
        write!(text, " {event:?} |").unwrap();
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(ContainerEvent::ALL.len()));
    for phase in ContainerPhase::ALL {
        write!(text, "\n| {phase:?} |").unwrap();
        for event in ContainerEvent::ALL {
            let next = match next_phase(phase, event) {
                Next::Go(next) => format!("{next:?}"),
                Next::Stay => "=".to_owned(),
                Next::Illegal => ".".to_owned(),
            };
            write!(text, " {next} |").unwrap();
        }
    }
    text.push('\n');
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/states/nodeagent-container.md"
    );
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap_or_default(),
        text,
        "stale: run the test with UPDATE_EXPECT=1"
    );
}

mod calls;
mod random;
