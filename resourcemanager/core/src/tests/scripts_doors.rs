//! Ids, tokens and what is remembered of the ended, as scripts.

use expect_test::expect;

use super::world::{World, application, attempt, ran, user};
use crate::{Config, Event, Principal, Record};

#[test]
fn a_token_of_another_attempt_is_refused() {
    let mut world = ran("node a 4096 4\nsubmit unmanaged");
    let session = world.session();
    world.handle(Event::MasterAttached {
        session,
        principal: Principal::Attempt(attempt(2, 1)),
        attempt: attempt(1, 1),
        registration: Box::default(),
    });
    let session = world.session();
    world.handle(Event::NodeRegistered {
        session,
        principal: Principal::Node("b".to_owned()),
        registration: Box::new(super::world::registration(
            "a",
            bobbin_types::Resource::new(1, 1),
        )),
    });
    let (request, principal) = (world.request(), user("bob"));
    let (application, reason) = (application(1), String::new());
    world.handle(Event::Kill {
        request,
        principal,
        application,
        wait: true,
        reason,
    });
    expect![[r#"
        node a 4096 4
            persist known a
            a: NEW -> RUNNING
            a <- registered
        submit unmanaged
            persist submitted 1
            1: NEW -> SUBMITTED
            1: SUBMITTED -> ACCEPTED
            persist started 1.1
            1.1: NEW -> LAUNCHED
            reply submitted 1 1.1
            1.1 <- shutdown 'appattempt_1000_0002_000001 may not register the master of appattempt_1000_0001_000001: an attempt's token is for that attempt's own master only'
            close
            a <- refused: node agent of b may not register node a:1: a node's token is for the agent of that host only
            close
            refused: user bob may not kill application_1000_0001 of user ann: only its owner and administrators
    "#]].assert_eq(&world.transcript);
}

#[test]
fn ids_are_handed_out_once() {
    let mut world = World::new(Config::default());
    for name in ["ann", "bob"] {
        let (request, principal) = (world.request(), user(name));
        world.handle(Event::NewApplication { request, principal });
    }
    // Of another, unknown, of her own; said again; with none.
    world.run("submit id=2\nsubmit id=99\nsubmit id=1\nsubmit id=1\nsubmit\nrestart");
    let (request, principal) = (world.request(), user("bob"));
    world.handle(Event::NewApplication { request, principal });
    world.run("submit");
    expect![[r#"
            persist reserved 10
            reply id 1
            reply id 2
        submit id=2
            refused: application_1000_0002 was handed out to another user
        submit id=99
            refused: application_1000_0099 was not handed out by this cluster; get an id first or submit without one
        submit id=1
            persist submitted 1
            1: NEW -> SUBMITTED
            1: SUBMITTED -> ACCEPTED
            1.1: NEW -> SCHEDULED
            reply submitted 1
        submit id=1
            reply submitted 1
        submit
            persist submitted 3
            3: NEW -> SUBMITTED
            3: SUBMITTED -> ACCEPTED
            3.1: NEW -> SCHEDULED
            reply submitted 3
        restart
            persist epoch 2
            1.1: NEW -> SCHEDULED
            3.1: NEW -> SCHEDULED
            persist reserved 20
            reply id 11
        submit
            persist submitted 12
            12: NEW -> SUBMITTED
            12: SUBMITTED -> ACCEPTED
            12.1: NEW -> SCHEDULED
            reply submitted 12
    "#]].assert_eq(&world.transcript);
}

#[test]
fn the_oldest_ended_applications_are_forgotten() {
    let config = Config {
        applications_retained: 2,
        ..Config::default()
    };
    let mut world = World::new(config);
    for sequence in 1..=4 {
        world.run(&format!("submit\nkill {sequence} now"));
    }
    let removed = |record: &&Record| matches!(record, Record::ApplicationRemoved { .. });
    assert_eq!(world.journal.iter().filter(removed).count(), 2);
    assert!(world.rm.application(application(2)).is_none());
    assert!(world.rm.application(application(3)).is_some());
    // It was submitted before: it never runs again.
    world.transcript.clear();
    world.run("submit id=2\nrestart\nsubmit id=1");
    expect![[r#"
        submit id=2
            refused: application_1000_0002 has ended and was forgotten
        restart
            persist epoch 2
            delete staging 3
            delete staging 4
        submit id=1
            refused: application_1000_0001 has ended and was forgotten
    "#]]
    .assert_eq(&world.transcript);
}
