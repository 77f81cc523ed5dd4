//! Calls of masters without a stream.

use super::*;

impl Script {
    fn call(&mut self, number: u64, of: AttemptId, request: CallRequest) -> &mut Self {
        self.feed(
            "call",
            Event::Call {
                call: CallId(number),
                attempt: of,
                request,
                wall: WALL,
            },
        )
    }

    fn start_by_call(&mut self, number: u64, of: AttemptId, id: ContainerId) -> &mut Self {
        self.feed(
            "start",
            Event::Start {
                starter: Starter::Call {
                    call: CallId(number),
                    attempt: of,
                },
                claims: claims(id, 400),
                problem: None,
                wall: WALL,
            },
        )
    }
}

#[test]
fn a_container_started_by_a_call() {
    let mut script = Script::attached();
    let (id, own) = (container(1, 2), attempt(1, 1));
    script
        .start_by_call(1, own, id)
        .run(id)
        .start_by_call(2, own, id)
        .call(3, own, CallRequest::Status(id))
        .call(
            4,
            own,
            CallRequest::Signal {
                container: id,
                signal: ContainerSignal::ThreadDump,
            },
        )
        .call(5, own, CallRequest::Stop(id))
        .end(id, 143)
        .call(6, own, CallRequest::Status(id))
        .feed("ack", Event::ExitAcknowledged(id))
        .call(7, own, CallRequest::Status(id))
        .start_by_call(8, own, id)
        .call(9, own, CallRequest::Stop(container(1, 9)));
    script.check(&expect![[r#"
        start
          localize #2
          persist admitted #2
          answer 1: #2 ACQUIRED
        localized
          launch #2
        launched
          to rm: started #2 RUNNING
        start
          answer 2: Container container_e01_7_0001_01_000002 already is running on this node!!
        call
          answer 3: #2 RUNNING
        call
          ThreadDump to #2
          answer 4: #2 RUNNING
        call
          persist stop #2 -105
          terminate #2
          answer 5: #2 RUNNING
        exited
          persist exited #2 -105
          clean up #2
        cleaned up
          to rm: #2 COMPLETED -105 Container killed by the ApplicationMaster.
        call
          answer 6: #2 COMPLETED -105 Container killed by the ApplicationMaster.
        ack
          persist done #2
          forget #2
        call
          answer 7: Container container_e01_7_0001_01_000002 was recently stopped on node manager.
        start
          answer 8: the token of container_e01_7_0001_01_000002 was used already: a container runs once
        call
          answer 9: Container container_e01_7_0001_01_000009 is not handled by this NodeManager
    "#]]);
}

#[test]
fn a_call_reaches_only_its_own_attempt() {
    let mut script = Script::attached();
    let id = container(1, 2);
    script
        .start_by_call(1, attempt(2, 1), id)
        .start_by_call(2, attempt(1, 2), id)
        .start_by_call(3, attempt(1, 1), id)
        .run(id)
        .start_by_call(4, attempt(2, 1), id);
    for (number, of) in [(5, attempt(2, 1)), (6, attempt(1, 2))] {
        script
            .call(number, of, CallRequest::Stop(id))
            .call(number, of, CallRequest::Status(id));
    }
    script
        .feed("revoke", revoke(attempt(1, 1)))
        .call(7, attempt(1, 1), CallRequest::Status(id))
        .start_by_call(8, attempt(1, 1), container(1, 3));
    script.check(&expect![[r#"
        start
          answer 1: container_e01_7_0001_01_000002 is not of the attempt whose master asks to start it
        start
          answer 2: container_e01_7_0001_01_000002 is not of the attempt whose master asks to start it
        start
          localize #2
          persist admitted #2
          answer 3: #2 ACQUIRED
        localized
          launch #2
        launched
          to rm: started #2 RUNNING
        start
          answer 4: container_e01_7_0001_01_000002 is not of appattempt_7_0002_000001, whose token the call shows
        call
          answer 5: container_e01_7_0001_01_000002 is not of appattempt_7_0002_000001, whose token the call shows
        call
          answer 5: container_e01_7_0001_01_000002 is not of appattempt_7_0002_000001, whose token the call shows
        call
          answer 6: container_e01_7_0001_01_000002 is not of appattempt_7_0001_000002, whose token the call shows
        call
          answer 6: container_e01_7_0001_01_000002 is not of appattempt_7_0001_000002, whose token the call shows
        revoke
          persist AttemptRevoked { attempt: AttemptId { application: ApplicationId { cluster_timestamp: 7, sequence: 1 }, attempt: 1 }, keep_containers: false }
          persist stop #2 -106
          terminate #2
        call
          answer 7: appattempt_7_0001_000001 has ended: its tokens are dead on this node
        start
          answer 8: appattempt_7_0001_000001 has ended: its tokens are dead on node node1:8043
    "#]]);
}

#[test]
fn what_an_attempt_leaves_behind_is_the_next_ones() {
    let mut script = Script::attached();
    let (id, first, second) = (container(1, 2), attempt(1, 1), attempt(1, 2));
    script.start(container(1, 1), 100).run(container(1, 1));
    script.start_by_call(1, first, id).run(id);
    let left = Event::RevokeAttempt {
        attempt: first,
        keep_containers: true,
    };
    script
        .call(2, second, CallRequest::Status(id))
        .feed("left", left.clone())
        .feed("left again", left)
        .call(3, first, CallRequest::Status(id))
        .call(4, second, CallRequest::Status(id))
        .start_by_call(5, first, container(1, 3));
    let mut after = script.restart();
    after
        .feed(
            "found",
            Event::Found {
                container: id,
                found: Found::Running,
            },
        )
        .call(6, second, CallRequest::Stop(id));
    script.printed.push_str(&after.printed);
    script.check(&expect![[r#"
        start
          localize #1
          persist admitted #1
        localized
          launch #1
        launched
          to rm: started #1 RUNNING
        start
          localize #2
          persist admitted #2
          answer 1: #2 ACQUIRED
        localized
          launch #2
        launched
          to rm: started #2 RUNNING
        call
          answer 2: container_e01_7_0001_01_000002 is not of appattempt_7_0001_000002, whose token the call shows
        left
          persist AttemptRevoked { attempt: AttemptId { application: ApplicationId { cluster_timestamp: 7, sequence: 1 }, attempt: 1 }, keep_containers: true }
          persist stop #1 -106
          terminate #1
        left again
          terminate #1
        call
          answer 3: appattempt_7_0001_000001 has ended: its tokens are dead on this node
        call
          answer 4: #2 RUNNING
        start
          answer 5: appattempt_7_0001_000001 has ended: its tokens are dead on node node1:8043
        found
        call
          persist stop #2 -105
          terminate #2
          answer 6: #2 RUNNING
    "#]]);
}

#[test]
fn a_container_changes_its_size_once_a_version() {
    let mut script = Script::attached();
    let (id, own) = (container(1, 2), attempt(1, 1));
    let update = |memory_mib, version| CallRequest::Update {
        claims: claims(id, memory_mib),
        version,
    };
    script
        .start_by_call(1, own, id)
        .call(2, own, update(500, 1))
        .run(id)
        .call(3, own, update(500, 1))
        .call(4, own, update(600, 1))
        .call(5, own, update(1_500, 2))
        .feed(
            "less",
            Event::Resize {
                container: id,
                resource: Resource::new(300, 1),
                version: 2,
            },
        )
        .feed(
            "less again",
            Event::Resize {
                container: id,
                resource: Resource::new(200, 1),
                version: 2,
            },
        );
    assert_eq!(script.core.accounting().used(), Resource::new(300, 1));
    let after = script.restart();
    assert_eq!(after.core.accounting().used(), Resource::new(300, 1));
    script.call(6, own, {
        let mut late = claims(id, 400);
        late.expires = WALL;
        CallRequest::Update {
            claims: late,
            version: 9,
        }
    });
    script.check(&expect![[r#"
        start
          localize #2
          persist admitted #2
          answer 1: #2 ACQUIRED
        call
          answer 2: Container container_e01_7_0001_01_000002 is not running: it is Localizing
        localized
          launch #2
        launched
          to rm: started #2 RUNNING
        call
          persist Resized { container: ContainerId { attempt: AttemptId { application: ApplicationId { cluster_timestamp: 7, sequence: 1 }, attempt: 1 }, epoch: 1, number: 2 }, resource: Resource { memory_mib: 500, vcores: 1, countable: [0, 0, 0, 0, 0, 0] }, version: 1 }
          resize #2 to 500 MiB, 1 vcore
          to rm: started #2 RUNNING
          answer 3: #2 RUNNING
        call
          answer 4: Container container_e01_7_0001_01_000002 has version 1 already; the token is for version 1
        call
          answer 5: it needs 1500 MiB, 1 vcore, but of the node's 1000 MiB, 4 vcores only 1000 MiB, 4 vcores are free
        less
          persist Resized { container: ContainerId { attempt: AttemptId { application: ApplicationId { cluster_timestamp: 7, sequence: 1 }, attempt: 1 }, epoch: 1, number: 2 }, resource: Resource { memory_mib: 300, vcores: 1, countable: [0, 0, 0, 0, 0, 0] }, version: 2 }
          resize #2 to 300 MiB, 1 vcore
          to rm: started #2 RUNNING
        less again
          to rm: started #2 RUNNING
        call
          answer 6: the token of container_e01_7_0001_01_000002 expired 0 ms ago
    "#]]);
}

#[test]
fn a_call_that_is_refused_for_good_is_told_to_both_sides() {
    let mut script = Script::attached();
    let (id, own) = (container(1, 2), attempt(1, 1));
    script.feed(
        "start",
        Event::Start {
            starter: Starter::Call {
                call: CallId(1),
                attempt: own,
            },
            claims: claims(id, 4_000),
            problem: None,
            wall: WALL,
        },
    );
    script.check(&expect![[r#"
        start
          answer 1: node node1:8043 cannot start container_e01_7_0001_01_000002: it needs 4000 MiB, 1 vcore, but of the node's 1000 MiB, 4 vcores only 1000 MiB, 4 vcores are free
          to rm: #2 COMPLETED -100 node node1:8043 cannot start container_e01_7_0001_01_000002: it needs 4000 MiB, 1 vcore, but of the node's 1000 MiB, 4 vcores only 1000 MiB, 4 vcores are free
    "#]]);
}
