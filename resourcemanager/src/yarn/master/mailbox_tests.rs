use std::collections::BTreeSet;

use bobbin_rm_core::ContainerUpdate;
use bobbin_types::ExitStatus;
use proptest::prelude::*;

use super::super::asks::ANY;
use super::*;

fn attempt() -> AttemptId {
    "appattempt_1_0001_000001".parse().unwrap()
}

fn container(number: u32) -> ContainerId {
    ContainerId {
        attempt: attempt(),
        epoch: 1,
        number,
    }
}

fn grant(number: u32, host: &str) -> Grant {
    Grant {
        container: container(number),
        node: format!("{host}:1").parse().unwrap(),
        node_grpc_address: String::new(),
        node_http_address: String::new(),
        user: "alice".parse().unwrap(),
        resource: Resource::new(64, 1),
        priority: 0,
        request_id: 0,
        version: 0,
    }
}

fn completed(number: u32) -> CompletedContainer {
    CompletedContainer {
        container: container(number),
        node: None,
        resource: Resource::new(64, 1),
        exit_status: ExitStatus(0),
        diagnostics: String::new(),
    }
}

fn told(inherited: Vec<Grant>) -> MasterMessage {
    MasterMessage::Registered(MasterRegistered {
        attempt: attempt(),
        user: "alice".parse().unwrap(),
        largest_container: Resource::new(1_000, 4),
        heartbeat_interval_ms: 1_000,
        nodes_running: 1,
        queue: "default".to_owned(),
        view_acl: String::new(),
        modify_acl: String::new(),
        containers_from_previous_attempts: inherited,
        node_changes: 5,
    })
}

fn registered() -> Mailbox {
    let mut mailbox = Mailbox::new(attempt());
    mailbox.registering().unwrap();
    mailbox.receive(told(Vec::new()));
    mailbox.register(GENERATION).unwrap();
    mailbox
}

const GENERATION: i32 = 20_000;

fn seen() -> Seen {
    Seen {
        token_generation: GENERATION,
        generation: GENERATION,
        node_changes: 5,
    }
}

/// One call and its answer, which is stored under its own number.
fn call(mailbox: &mut Mailbox, response_id: i32) -> Answer {
    assert_eq!(mailbox.allocating(response_id), Ok(Turn::Next));
    let answer = mailbox.answer(seen()).unwrap();
    mailbox.answered(Bytes::from(format!("answer {}", answer.response_id)));
    answer
}

fn class(refused: CallRefused) -> ExceptionClass {
    RpcException::from(refused).class
}

fn stated(count: u32, size: Resource) -> StatedAsk {
    StatedAsk {
        priority: 0,
        request_id: 0,
        capability: size,
        place: ANY.to_owned(),
        count,
        relax_locality: true,
        node_label: String::new(),
    }
}

#[test]
fn nobody_allocates_before_he_has_registered() {
    let mut mailbox = Mailbox::new(attempt());
    let refused = mailbox.allocating(0).unwrap_err();
    assert!(
        refused.to_string().contains("AM should re-register"),
        "{refused}"
    );
    assert_eq!(
        class(refused),
        ExceptionClass::ApplicationMasterNotRegistered
    );
}

#[test]
fn answers_are_numbered_and_the_last_one_is_given_again() {
    let mut mailbox = registered();
    assert_eq!(call(&mut mailbox, 0).response_id, 1);
    let lost = Turn::Again(Bytes::from_static(b"answer 1"));
    assert_eq!(mailbox.allocating(0), Ok(lost));
    assert_eq!(call(&mut mailbox, 1).response_id, 2);
    for bad in [0, 3, -1, i32::MAX] {
        let refused = mailbox.allocating(bad).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "Invalid responseId in AllocateRequest from application attempt: {}, expect \
                 responseId to be 2, but get {bad}",
                attempt()
            )
        );
        assert_eq!(
            class(refused),
            ExceptionClass::InvalidApplicationMasterRequest
        );
    }
}

#[test]
fn numbers_start_again_behind_the_largest() {
    let mut mailbox = registered();
    mailbox.response_id = i32::MAX;
    assert_eq!(call(&mut mailbox, i32::MAX).response_id, 0);
    assert!(matches!(mailbox.allocating(i32::MAX), Ok(Turn::Again(_))));
    assert_eq!(call(&mut mailbox, 0).response_id, 1);
}

#[test]
fn a_node_is_told_once_an_attempt_and_again_after_a_registration_or_with_a_new_key() {
    let mut mailbox = registered();
    mailbox.receive(MasterMessage::Granted(vec![grant(2, "a"), grant(3, "a")]));
    assert_eq!(call(&mut mailbox, 0).nodes, [grant(2, "a").node]);
    mailbox.receive(MasterMessage::Granted(vec![grant(4, "a"), grant(5, "b")]));
    assert_eq!(call(&mut mailbox, 1).nodes, [grant(5, "b").node]);
    mailbox.receive(MasterMessage::Granted(vec![grant(6, "a")]));
    assert_eq!(mailbox.allocating(2), Ok(Turn::Next));
    let rolled = Seen {
        generation: GENERATION + 1,
        ..seen()
    };
    let answer = mailbox.answer(rolled).unwrap();
    assert_eq!(answer.nodes, [grant(6, "a").node]);
    assert!(answer.rolls_token);

    mailbox.session_ended();
    mailbox.registering().unwrap();
    mailbox.receive(told(vec![grant(9, "c")]));
    let (_, nodes) = mailbox.register(GENERATION + 1).unwrap();
    assert_eq!(nodes, [grant(9, "c").node]);
    mailbox.receive(MasterMessage::Granted(vec![grant(7, "a"), grant(8, "c")]));
    assert_eq!(mailbox.allocating(0), Ok(Turn::Next));
    assert_eq!(mailbox.answer(rolled).unwrap().nodes, [grant(7, "a").node]);
}

#[test]
fn a_token_signed_with_an_older_key_is_replaced_once() {
    let mut mailbox = registered();
    let old = Seen {
        token_generation: GENERATION - 1,
        ..seen()
    };
    assert_eq!(mailbox.allocating(0), Ok(Turn::Next));
    assert!(mailbox.answer(old).unwrap().rolls_token);
    assert_eq!(mailbox.allocating(1), Ok(Turn::Next));
    assert!(!mailbox.answer(old).unwrap().rolls_token);
    // One from a clock that is ahead is good for longer.
    let mut mailbox = registered();
    let ahead = Seen {
        token_generation: GENERATION + 1,
        ..seen()
    };
    assert_eq!(mailbox.allocating(0), Ok(Turn::Next));
    assert!(!mailbox.answer(ahead).unwrap().rolls_token);
}

#[test]
fn a_lost_session_is_registered_again_with_what_nobody_has_read() {
    let mut mailbox = registered();
    mailbox.receive(MasterMessage::Completed(vec![completed(2), completed(3)]));
    assert_eq!(call(&mut mailbox, 0).completed.len(), 2);
    mailbox.receive(MasterMessage::Completed(vec![completed(4)]));
    mailbox.receive(MasterMessage::Granted(vec![grant(5, "a")]));
    mailbox.session_ended();
    let refused = mailbox.allocating(1).unwrap_err();
    assert_eq!(
        class(refused),
        ExceptionClass::ApplicationMasterNotRegistered
    );
    mailbox.registering().unwrap();
    mailbox.receive(told(Vec::new()));
    mailbox.register(GENERATION).unwrap();
    let answer = call(&mut mailbox, 0);
    let numbers: Vec<u32> = answer
        .completed
        .iter()
        .map(|c| c.container.number)
        .collect();
    assert_eq!(numbers, [2, 3, 4]);
    assert_eq!(answer.granted, [grant(5, "a")]);
    assert!(mailbox.take_acknowledged().is_empty());
    // The core says again what nobody acknowledged to it.
    mailbox.receive(MasterMessage::Completed(vec![completed(3)]));
    assert!(call(&mut mailbox, 1).completed.is_empty());
    let read = [container(2), container(3), container(4)];
    assert_eq!(mailbox.take_acknowledged(), read);
}

#[test]
fn a_registration_is_repeated_only_until_the_first_answer() {
    let mut mailbox = registered();
    mailbox.registering().unwrap();
    mailbox.receive(told(Vec::new()));
    mailbox.register(GENERATION).unwrap();
    call(&mut mailbox, 0);
    let refused = mailbox.registering().unwrap_err();
    assert_eq!(
        class(refused),
        ExceptionClass::InvalidApplicationMasterRequest
    );
}

#[test]
fn what_is_over_ends_the_master_and_stays_over() {
    let mut mailbox = registered();
    let reason = "attempt 2 follows".to_owned();
    mailbox.receive(MasterMessage::Shutdown { reason });
    mailbox.session_ended();
    for refused in [
        mailbox.allocating(0).unwrap_err(),
        mailbox.registering().unwrap_err(),
        mailbox.check_registered().unwrap_err(),
    ] {
        assert!(refused.to_string().ends_with("attempt 2 follows"));
        assert_eq!(class(refused), ExceptionClass::ApplicationAttemptNotFound);
    }
    assert!(mailbox.is_idle());
}

#[test]
fn a_session_that_ends_behind_the_farewell_is_the_end() {
    let mut mailbox = registered();
    mailbox.receive(MasterMessage::FinishAcknowledged);
    assert!(mailbox.is_finished() && !mailbox.is_idle());
    mailbox.session_ended();
    assert!(mailbox.is_idle());
}

#[test]
fn a_refused_ask_refuses_the_call_and_nothing_is_lost() {
    let mut mailbox = registered();
    assert_eq!(mailbox.allocating(0), Ok(Turn::Next));
    mailbox.receive(MasterMessage::Granted(vec![grant(2, "a")]));
    let reason = Refusal::UnknownLabel("gpu".to_owned());
    mailbox.receive(MasterMessage::AskRefused {
        priority: 0,
        request_id: 0,
        reason,
    });
    let refused = mailbox.answer(seen()).unwrap_err();
    assert_eq!(class(refused), ExceptionClass::InvalidLabelResourceRequest);
    let answer = call(&mut mailbox, 0);
    assert_eq!(
        (answer.response_id, answer.granted),
        (1, vec![grant(2, "a")])
    );
}

#[test]
fn a_wish_that_fitted_once_waits_for_its_node() {
    let mut mailbox = registered();
    let too_large = |size: Resource| MasterMessage::AskRefused {
        priority: 0,
        request_id: 0,
        reason: Refusal::LargerThanLargestNode {
            asked: Box::new(size),
            largest: Box::new(Resource::new(10, 1)),
            nodes: 1,
        },
    };
    let size = Resource::new(500, 1);
    assert_eq!(mailbox.allocating(0), Ok(Turn::Next));
    let first = mailbox.state(&[stated(3, size)]).unwrap();
    mailbox.receive(too_large(size));
    assert!(mailbox.answer(seen()).is_ok());
    assert_eq!(mailbox.allocating(1), Ok(Turn::Next));
    assert_eq!(mailbox.state(&[]).unwrap(), first);
    assert!(mailbox.answer(seen()).is_ok());

    let size = Resource::new(5_000, 1);
    assert_eq!(mailbox.allocating(2), Ok(Turn::Next));
    mailbox.state(&[stated(3, size)]).unwrap();
    mailbox.receive(too_large(size));
    let refused = mailbox.answer(seen()).unwrap_err();
    assert!(refused.to_string().contains("more than any node has"));
    assert_eq!(class(refused), ExceptionClass::InvalidResourceRequest);
}

#[test]
fn updates_are_answered_with_what_came_of_them() {
    let mut mailbox = registered();
    let update = ContainerUpdate {
        container: container(2),
        version: 1,
        kind: bobbin_rm_core::UpdateKind::Increase,
        resource: Resource::new(128, 1),
    };
    mailbox.receive(MasterMessage::UpdateRefused {
        update,
        version: Some(4),
        reason: Refusal::ContainerVersion {
            container: container(2),
            given: 1,
            current: 4,
        },
    });
    mailbox.receive(MasterMessage::Updated(vec![UpdatedContainer {
        kind: bobbin_rm_core::UpdateKind::Decrease,
        container: grant(3, "a"),
    }]));
    let answer = call(&mut mailbox, 0);
    assert_eq!(answer.updated.len(), 1);
    assert_eq!(answer.update_errors[0].request, update_to_wire(&update));
    assert_eq!(answer.update_errors[0].version, Some(4));
    assert!(answer.update_errors[0].reason.contains("version 4"));
    assert!(call(&mut mailbox, 1).update_errors.is_empty());
}

#[test]
fn an_answer_has_an_end_and_the_rest_comes_with_the_next() {
    let mut mailbox = registered();
    let many = (1..=u32::try_from(PER_ANSWER_MAX).unwrap() + 3).map(completed);
    mailbox.receive(MasterMessage::Completed(many.collect()));
    assert_eq!(call(&mut mailbox, 0).completed.len(), PER_ANSWER_MAX);
    assert_eq!(call(&mut mailbox, 1).completed.len(), 3);
}

/// What can happen between a master and its mailbox.
#[derive(Clone, Debug)]
enum Step {
    Grant(u8),
    Complete,
    /// A call; whether its answer arrives.
    Call(bool),
    SessionLost,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_u8..4).prop_map(Step::Grant),
        3 => Just(Step::Complete),
        6 => any::<bool>().prop_map(Step::Call),
        1 => Just(Step::SessionLost),
    ];
    prop::collection::vec(step, 0..80)
}

/// A master as Hadoop's client library is one.
#[derive(Default)]
struct Client {
    response_id: i32,
    granted: Vec<ContainerId>,
    completed: BTreeSet<ContainerId>,
    nodes: BTreeSet<NodeId>,
}

impl Client {
    fn read(&mut self, answer: &Answer) {
        self.response_id = answer.response_id;
        self.nodes.extend(answer.nodes.iter().cloned());
        for grant in &answer.granted {
            assert!(
                self.nodes.contains(&grant.node),
                "a container without a token"
            );
            self.granted.push(grant.container);
        }
        self.completed
            .extend(answer.completed.iter().map(|c| c.container));
    }
}

/// The whole exchange of one call, replayed or not; answers are looked up by their bytes.
fn exchange(mailbox: &mut Mailbox, client: &mut Client, sent: &mut Vec<Answer>, arrives: bool) {
    let turn = match mailbox.allocating(client.response_id) {
        Ok(turn) => turn,
        Err(CallRefused::NotRegistered(_)) => {
            mailbox.registering().unwrap();
            mailbox.receive(told(Vec::new()));
            mailbox.register(GENERATION).unwrap();
            client.response_id = 0;
            client.nodes.clear();
            return;
        }
        Err(other) => panic!("{other}"),
    };
    let index = match turn {
        Turn::Again(bytes) => usize::from(bytes[0]),
        Turn::Next => {
            sent.push(mailbox.answer(seen()).unwrap());
            let index = sent.len() - 1;
            mailbox.answered(Bytes::copy_from_slice(&[u8::try_from(index).unwrap()]));
            index
        }
    };
    if arrives {
        client.read(&sent[index]);
    }
}

proptest! {
    /// However answers are lost: no container is granted twice, none ends unheard, and there is a
    /// token for each node. A lost session may cost what was granted in a lost answer, no more.
    #[test]
    fn nothing_is_lost_and_nothing_comes_twice(steps in steps()) {
        let mut mailbox = registered();
        let mut client = Client::default();
        let (mut granted, mut ended) = (Vec::new(), BTreeSet::new());
        let mut sent = Vec::new();
        let mut sessions_lost = 0;
        for step in steps {
            match step {
                Step::Grant(host) => {
                    let number = u32::try_from(granted.len()).unwrap() + 1;
                    let grant = grant(number, &format!("h{host}"));
                    granted.push(grant.container);
                    mailbox.receive(MasterMessage::Granted(vec![grant]));
                }
                Step::Complete => {
                    let number = u32::try_from(ended.len()).unwrap() + 1_000;
                    ended.insert(container(number));
                    mailbox.receive(MasterMessage::Completed(vec![completed(number)]));
                }
                Step::Call(arrives) => exchange(&mut mailbox, &mut client, &mut sent, arrives),
                Step::SessionLost => {
                    sessions_lost += 1;
                    mailbox.session_ended();
                }
            }
        }
        for _ in 0..3 {
            exchange(&mut mailbox, &mut client, &mut sent, true);
        }
        let unique: BTreeSet<_> = client.granted.iter().copied().collect();
        prop_assert_eq!(unique.len(), client.granted.len(), "granted twice");
        if sessions_lost == 0 {
            prop_assert_eq!(&client.granted, &granted);
        }
        let acknowledged: BTreeSet<_> = mailbox.take_acknowledged().into_iter().collect();
        prop_assert_eq!(&acknowledged, &ended);
        prop_assert_eq!(client.completed, ended);
    }
}
