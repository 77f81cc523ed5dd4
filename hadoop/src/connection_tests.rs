use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::protection::Quality;
use crate::proto::common::rpc_response_header::RpcStatus;
use crate::proto::common::rpc_sasl::{SaslAuth, SaslState};
use crate::test_client::{self, HEADER_NONE, HEADER_SASL};

const IDENTIFIER: &[u8] = b"who";
const PASSWORD: &[u8] = b"secret";

fn connection(bytes: &[u8]) -> Connection {
    let mut connection = Connection::new(1000, Protection::default());
    feed(&mut connection, bytes);
    connection
}

fn feed(connection: &mut Connection, bytes: &[u8]) {
    connection.space().extend_from_slice(bytes);
}

fn refusal() -> RpcException {
    RpcException::new(ExceptionClass::AccessControl, "get a token")
}

fn sent(connection: &mut Connection) -> Bytes {
    match connection.poll() {
        Some(Event::Send(bytes)) => bytes,
        other => panic!("expected something to send, not {other:?}"),
    }
}

fn closed(connection: &mut Connection) -> CloseReason {
    let reason = match connection.poll() {
        Some(Event::Closing(reason)) => reason,
        other => panic!("expected the end, not {other:?}"),
    };
    feed(connection, &[0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(connection.poll(), None, "nothing follows the end");
    assert_eq!(connection.missing(), 0);
    reason
}

/// Up to the offer.
fn negotiated(simple: Result<(), RpcException>) -> (Connection, Vec<SaslAuth>) {
    let mut connection = connection(HEADER_SASL);
    assert_eq!(connection.poll(), Some(Event::SimpleAsked));
    connection.answer_simple(simple);
    feed(&mut connection, &test_client::negotiate());
    let offer = test_client::sasl_answer(sent(&mut connection));
    assert_eq!(offer.state, i32::from(SaslState::Negotiate));
    (connection, offer.auths)
}

fn shown(connection: &mut Connection) {
    let identifier = Bytes::from_static(IDENTIFIER);
    assert_eq!(connection.poll(), Some(Event::TokenShown { identifier }));
}

fn introduced(connection: &mut Connection, user: Option<&str>) -> Proof {
    feed(connection, &test_client::context(user));
    let Some(Event::Introduced {
        proof,
        introduction,
    }) = connection.poll()
    else {
        panic!("no introduction");
    };
    assert_eq!(introduction.effective_user.as_deref(), user);
    connection.answer_introduced(Ok(()));
    assert!(connection.is_open());
    proof
}

fn next_call(connection: &mut Connection) -> Call {
    match connection.poll() {
        Some(Event::Call(call)) => call,
        other => panic!("expected a call, not {other:?}"),
    }
}

#[test]
fn a_token_proves_who_calls() {
    let (mut connection, auths) = negotiated(Err(refusal()));
    assert_eq!(auths.len(), 1, "SIMPLE is not offered");
    let challenge = auths[0].challenge.clone().unwrap();
    let (response, rspauth) = test_client::digest(&challenge, IDENTIFIER, PASSWORD);
    feed(
        &mut connection,
        &test_client::initiate(&auths[0], Some(response)),
    );
    shown(&mut connection);
    connection.answer_token(Ok(PASSWORD));
    let end = test_client::sasl_answer(sent(&mut connection));
    assert_eq!(end.state, i32::from(SaslState::Success));
    assert_eq!(end.token.unwrap(), rspauth);
    let identifier = Bytes::from_static(IDENTIFIER);
    assert_eq!(
        introduced(&mut connection, None),
        Proof::Token { identifier }
    );
}

#[test]
fn a_client_may_want_the_challenge_alone() {
    let (mut connection, auths) = negotiated(Err(refusal()));
    feed(
        &mut connection,
        &test_client::initiate(&auths[0], Some(String::new())),
    );
    let alone = test_client::sasl_answer(sent(&mut connection));
    assert_eq!(alone.state, i32::from(SaslState::Challenge));
    let (response, _) = test_client::digest(&alone.token.unwrap(), IDENTIFIER, PASSWORD);
    feed(&mut connection, &test_client::response(response));
    shown(&mut connection);
    connection.answer_token(Ok(PASSWORD));
    sent(&mut connection);
    introduced(&mut connection, None);
}

#[test]
fn a_wrong_password_is_told_and_ends_the_connection() {
    let (mut connection, auths) = negotiated(Err(refusal()));
    let challenge = auths[0].challenge.clone().unwrap();
    let (response, _) = test_client::digest(&challenge, IDENTIFIER, b"guess");
    feed(
        &mut connection,
        &test_client::initiate(&auths[0], Some(response)),
    );
    shown(&mut connection);
    connection.answer_token(Ok(PASSWORD));
    let (header, rest) = test_client::answer(sent(&mut connection));
    assert_eq!(header.status, i32::from(RpcStatus::Fatal));
    assert_eq!(header.call_id, 0xffff_ffdf);
    assert_eq!(
        header.exception_class_name(),
        "javax.security.sasl.SaslException"
    );
    assert_eq!(header.error_detail, Some(15));
    assert!(rest.is_empty());
    assert_eq!(
        closed(&mut connection),
        CloseReason::Digest(DigestError::Mismatch)
    );
}

#[test]
fn a_response_serves_once() {
    let (mut first, auths) = negotiated(Err(refusal()));
    let challenge = auths[0].challenge.clone().unwrap();
    let (response, _) = test_client::digest(&challenge, IDENTIFIER, PASSWORD);
    let recorded = test_client::initiate(&auths[0], Some(response));
    feed(&mut first, &recorded);
    shown(&mut first);
    let (mut second, _) = negotiated(Err(refusal()));
    feed(&mut second, &recorded);
    shown(&mut second);
    second.answer_token(Ok(PASSWORD));
    sent(&mut second);
    let reason = CloseReason::Digest(DigestError::Unexpected("nonce"));
    assert_eq!(closed(&mut second), reason);
}

#[test]
fn an_expired_token_is_told_with_its_text() {
    let (mut connection, auths) = negotiated(Err(refusal()));
    let challenge = auths[0].challenge.clone().unwrap();
    let (response, _) = test_client::digest(&challenge, IDENTIFIER, PASSWORD);
    feed(
        &mut connection,
        &test_client::initiate(&auths[0], Some(response)),
    );
    shown(&mut connection);
    let expired = RpcException::new(ExceptionClass::InvalidToken, "expired; renew it");
    connection.answer_token(Err(expired.clone()));
    let (header, _) = test_client::answer(sent(&mut connection));
    assert_eq!(header.error_msg(), "expired; renew it");
    assert_eq!(closed(&mut connection), CloseReason::Refused(expired));
}

#[test]
fn simple_where_it_is_allowed() {
    let mut plain = connection(HEADER_NONE);
    assert_eq!(plain.poll(), Some(Event::SimpleAsked));
    plain.answer_simple(Ok(()));
    assert_eq!(introduced(&mut plain, Some("alice")), Proof::Simple);

    let (mut chosen, auths) = negotiated(Ok(()));
    assert_eq!(auths[1].method, "SIMPLE");
    feed(&mut chosen, &test_client::initiate(&auths[1], None));
    assert_eq!(
        chosen.poll(),
        None,
        "an answer would kill the client's reader"
    );
    assert_eq!(introduced(&mut chosen, Some("alice")), Proof::Simple);
}

#[test]
fn simple_refused_says_so_before_the_first_frame() {
    let mut connection = connection(HEADER_NONE);
    assert_eq!(connection.poll(), Some(Event::SimpleAsked));
    connection.answer_simple(Err(refusal()));
    let (header, _) = test_client::answer(sent(&mut connection));
    assert_eq!(header.status, i32::from(RpcStatus::Fatal));
    assert_eq!(header.call_id, u32::MAX);
    assert_eq!(header.error_msg(), "get a token");
    assert_eq!(closed(&mut connection), CloseReason::Refused(refusal()));

    // Nor can a client choose what was not offered.
    let (mut connection, _) = negotiated(Err(refusal()));
    let simple = SaslAuth {
        method: "SIMPLE".to_owned(),
        ..SaslAuth::default()
    };
    feed(&mut connection, &test_client::initiate(&simple, None));
    sent(&mut connection);
    assert_eq!(
        closed(&mut connection),
        CloseReason::Sasl(SaslError::Method)
    );
}

fn open() -> Connection {
    let mut connection = connection(HEADER_NONE);
    connection.poll();
    connection.answer_simple(Ok(()));
    introduced(&mut connection, Some("alice"));
    connection
}

/// A connection whose proof chose a quality of protection, and the client's keys.
fn protected(quality: Quality) -> (Connection, Wrapper) {
    let (mut connection, auths) = negotiated(Err(refusal()));
    let challenge = auths[0].challenge.clone().unwrap();
    let (response, rspauth) =
        test_client::digest_with(&challenge, IDENTIFIER, PASSWORD, quality.qop());
    feed(
        &mut connection,
        &test_client::initiate(&auths[0], Some(response.clone())),
    );
    shown(&mut connection);
    connection.answer_token(Ok(PASSWORD));
    let end = test_client::sasl_answer(sent(&mut connection));
    assert_eq!(end.token.unwrap(), rspauth);
    let text = std::str::from_utf8(&challenge).unwrap();
    let nonce = text.split('"').nth(3).unwrap().to_owned();
    let known = Challenge::with_nonce(nonce, Protection::default());
    let response = Response::parse(response.as_bytes()).unwrap();
    let verified = response.verify(&known, PASSWORD).unwrap();
    (connection, Wrapper::of_client(&verified).unwrap())
}

fn wrapped(client: &mut Wrapper, message: &[u8]) -> Bytes {
    test_client::sasl(&sasl::wrap(client.seal(message)))
}

/// The frame inside a protected answer.
fn opened(client: &mut Wrapper, bytes: Bytes) -> Bytes {
    let message = test_client::sasl_answer(bytes);
    assert_eq!(message.state, i32::from(SaslState::Wrap));
    client.open(&message.token.unwrap()).unwrap()
}

#[test]
fn protected_calls_and_answers() {
    for quality in [Quality::Integrity, Quality::Privacy] {
        let (mut connection, mut client) = protected(quality);
        // As Java sends it: the context and the first call in one message, the rest cut anywhere.
        let mut stream = test_client::context(None).to_vec();
        stream.extend_from_slice(&test_client::call(0, "getNewApplication", b""));
        stream.extend_from_slice(&test_client::call(1, "getApplications", b"\x28\x01"));
        let (front, back) = stream.split_at(stream.len() - 7);
        feed(&mut connection, &wrapped(&mut client, front));
        assert!(matches!(connection.poll(), Some(Event::Introduced { .. })));
        connection.answer_introduced(Ok(()));
        assert_eq!(next_call(&mut connection).method, "getNewApplication");
        assert_eq!(connection.poll(), None);
        assert!(connection.is_in_frame());
        feed(&mut connection, &wrapped(&mut client, b""));
        feed(&mut connection, &wrapped(&mut client, back));
        let call = next_call(&mut connection);
        assert_eq!(call.request, b"\x28\x01".as_slice());
        assert!(!connection.is_in_frame());
        for _ in 0..2 {
            let answer = connection.answer(&call.key, &Ok(Bytes::from_static(b"\x0a\x00")));
            let (header, rest) = test_client::answer(opened(&mut client, answer));
            assert_eq!((header.call_id, header.status), (1, 0));
            assert_eq!(rest, b"\x02\x0a\x00".as_slice());
        }
        // The end is told inside the protection too.
        feed(
            &mut connection,
            &wrapped(&mut client, &test_client::negotiate()),
        );
        let (header, _) = test_client::answer(opened(&mut client, sent(&mut connection)));
        assert_eq!(header.status, i32::from(RpcStatus::Fatal));
        closed(&mut connection);
    }
}

#[test]
fn nothing_without_protection_after_it_was_chosen() {
    for frame in [
        test_client::context(None),
        test_client::ping(),
        test_client::call(0, "getNewApplication", b""),
    ] {
        let (mut connection, _) = protected(Quality::Integrity);
        feed(&mut connection, &frame);
        sent(&mut connection);
        let reason = CloseReason::OutOfPlace("frame without protection");
        assert_eq!(closed(&mut connection), reason);
    }
    let (mut connection, _) = protected(Quality::Integrity);
    feed(&mut connection, &test_client::negotiate());
    sent(&mut connection);
    assert!(matches!(closed(&mut connection), CloseReason::Sasl(_)));
}

#[test]
fn altered_messages_end_the_connection() {
    for quality in [Quality::Integrity, Quality::Privacy] {
        let (mut connection, mut client) = protected(quality);
        let mut message = wrapped(&mut client, &test_client::context(None)).to_vec();
        let at = message.len() - 20;
        message[at] ^= 1;
        feed(&mut connection, &message);
        sent(&mut connection);
        let reason = CloseReason::Wrap(WrapError::Altered);
        assert_eq!(closed(&mut connection), reason);
    }
}

#[test]
fn long_frames_are_refused_inside_protection_too() {
    let (mut connection, mut client) = protected(Quality::Privacy);
    feed(&mut connection, &wrapped(&mut client, &[0x80, 0, 0, 0]));
    sent(&mut connection);
    assert!(matches!(closed(&mut connection), CloseReason::Frame(_)));
    // And a message that could hold more than one frame and a context.
    let (mut connection, _) = protected(Quality::Privacy);
    feed(&mut connection, &[0, 2, 0, 0]);
    sent(&mut connection);
    assert!(matches!(closed(&mut connection), CloseReason::Frame(_)));
}

#[test]
fn calls_are_answered_in_any_order() {
    let mut connection = open();
    let mut bytes = test_client::call(7, "getNewApplication", b"").to_vec();
    bytes.extend_from_slice(&test_client::ping());
    bytes.extend_from_slice(&test_client::call(9, "getApplications", b"\x28\x01"));
    // Byte by byte: borders mean nothing.
    let mut calls = Vec::new();
    for byte in bytes {
        feed(&mut connection, &[byte]);
        while let Some(event) = connection.poll() {
            let Event::Call(call) = event else {
                panic!("{event:?}");
            };
            calls.push(call);
        }
    }
    let [first, second] = calls.as_slice() else {
        panic!("{calls:?}");
    };
    assert_eq!(second.method, "getApplications");
    assert_eq!(second.request, b"\x28\x01".as_slice());
    let answer = connection.answer(&second.key, &Ok(Bytes::from_static(b"\x0a\x00")));
    let (header, rest) = test_client::answer(answer);
    assert_eq!((header.call_id, header.status), (9, 0));
    assert_eq!(header.client_id(), test_client::CLIENT_ID);
    assert_eq!(rest, b"\x02\x0a\x00".as_slice());
    let answer = connection.answer(&first.key, &Err(RpcException::not_offered("x", "y")));
    let (header, rest) = test_client::answer(answer);
    assert_eq!(
        (header.call_id, header.status, header.error_detail),
        (7, 1, Some(1))
    );
    assert!(rest.is_empty());
    assert!(connection.is_open());
}

#[test]
fn calls_before_the_context_are_refused() {
    let mut connection = connection(HEADER_NONE);
    connection.poll();
    connection.answer_simple(Ok(()));
    feed(
        &mut connection,
        &test_client::call(0, "getNewApplication", b""),
    );
    sent(&mut connection);
    assert_eq!(closed(&mut connection), CloseReason::OutOfPlace("call"));
}

#[test]
fn frames_out_of_place_end_the_connection() {
    for (frame, what) in [
        (test_client::context(None), "connection context"),
        (test_client::negotiate(), "SASL message"),
    ] {
        let mut connection = open();
        feed(&mut connection, &frame);
        sent(&mut connection);
        assert_eq!(closed(&mut connection), CloseReason::OutOfPlace(what));
    }
}

#[test]
fn long_frames_are_refused_by_their_length() {
    let mut connection = open();
    feed(&mut connection, &[0x80, 0, 0, 0]);
    let (header, _) = test_client::answer(sent(&mut connection));
    assert_eq!(header.status, i32::from(RpcStatus::Fatal));
    let reason = CloseReason::Frame(FrameTooLong {
        length: 0x8000_0000,
        limit: 1000,
    });
    assert_eq!(closed(&mut connection), reason);
}

#[test]
fn before_the_proof_frames_are_small() {
    let mut connection = Connection::new(8 * 1024 * 1024, Protection::default());
    feed(&mut connection, HEADER_SASL);
    connection.poll();
    connection.answer_simple(Err(refusal()));
    feed(&mut connection, &[0, 1, 0, 1]);
    sent(&mut connection);
    assert!(matches!(closed(&mut connection), CloseReason::Frame(_)));
}

#[test]
fn strangers() {
    let mut browser = connection(b"GET / HTTP/1.1\r\n\r\n");
    assert!(sent(&mut browser).starts_with(b"HTTP/1.1 404 Not Found\r\n"));
    assert_eq!(closed(&mut browser), CloseReason::Header(HeaderError::Http));

    let mut newer = connection(b"hrpc\x0a\x00\x00");
    let (header, _) = test_client::answer(sent(&mut newer));
    assert_eq!(
        header.exception_class_name(),
        "org.apache.hadoop.ipc.RPC$VersionMismatch"
    );
    assert_eq!(header.error_detail, Some(14));
    closed(&mut newer);

    let mut older = connection(b"hrpc\x07\x00\x00");
    assert!(sent(&mut older).starts_with(&[0xff; 8]));
    closed(&mut older);

    let mut noise = connection(b"\x16\x03\x01\x02\x00");
    assert_eq!(closed(&mut noise), CloseReason::Header(HeaderError::Magic));
}

#[test]
fn malformed_headers_are_told() {
    for (body, expected) in [
        // A varint that does not end, a length beyond the frame, an empty frame.
        (&[0xff, 0xff][..], "cannot be read"),
        (&[0x50, 0x08][..], "cannot be read"),
        (&[][..], "cannot be read"),
        // Kind 1 (Writable).
        (
            &[8, 0x08, 1, 0x10, 0, 0x18, 0, 0x22, 0][..],
            "protocol buffers",
        ),
        // Operation 1 (continuation).
        (
            &[8, 0x08, 2, 0x10, 1, 0x18, 0, 0x22, 0][..],
            "whole packets",
        ),
        // Call -9.
        (&[8, 0x08, 2, 0x10, 0, 0x18, 17, 0x22, 0][..], "call -9"),
        // No client id.
        (&[8, 0x08, 2, 0x10, 0, 0x18, 0, 0x22, 0][..], "client id"),
    ] {
        let mut connection = open();
        feed(&mut connection, &crate::frame::frame(body));
        let (header, _) = test_client::answer(sent(&mut connection));
        assert_eq!(header.status, i32::from(RpcStatus::Fatal), "{body:?}");
        assert!(
            header.error_msg().contains(expected),
            "{}",
            header.error_msg()
        );
        assert!(matches!(closed(&mut connection), CloseReason::Request(_)));
    }
}

#[test]
fn a_call_without_a_message_is_malformed() {
    let mut connection = open();
    let good = test_client::call(1, "getNewApplication", b"");
    // Without the last byte, the message's length.
    feed(
        &mut connection,
        &crate::frame::frame(&good[4..good.len() - 1]),
    );
    sent(&mut connection);
    let reason = closed(&mut connection);
    assert_eq!(
        reason,
        CloseReason::Request(RequestError::Body(crate::wire::WireError::Truncated))
    );
    let mut connection = open();
    feed(&mut connection, &good);
    assert_eq!(next_call(&mut connection).request, Bytes::new());
}

/// Drives a connection to where it asks nothing more, answering every question well.
fn drive(connection: &mut Connection) -> usize {
    let mut events = 0;
    while let Some(event) = connection.poll() {
        events += 1;
        match event {
            Event::SimpleAsked => connection.answer_simple(Ok(())),
            Event::TokenShown { .. } => connection.answer_token(Ok(PASSWORD)),
            Event::Introduced { .. } => connection.answer_introduced(Ok(())),
            Event::Send(_) | Event::Call(_) | Event::Closing(_) => {}
        }
    }
    events
}

proptest! {
    #[test]
    fn any_bytes_are_safe(
        start in 0_usize..5,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        step in 1_usize..40,
    ) {
        let mut connection = match start {
            0 => connection(b""),
            1 => connection(HEADER_NONE),
            2 => connection(HEADER_SASL),
            3 => negotiated(Ok(())).0,
            _ => open(),
        };
        for part in bytes.chunks(step) {
            feed(&mut connection, part);
            drive(&mut connection);
        }
    }

    #[test]
    fn any_protected_bytes_are_safe(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..5),
        privacy: bool,
    ) {
        let quality = if privacy { Quality::Privacy } else { Quality::Integrity };
        let (mut connection, mut client) = protected(quality);
        for message in messages {
            feed(&mut connection, &wrapped(&mut client, &message));
            drive(&mut connection);
        }
    }

    #[test]
    fn any_frame_is_safe(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut connection = open();
        feed(&mut connection, &crate::frame::frame(&bytes));
        // A call, or a FATAL answer and the end: never silence that a client would wait on, but for
        // a ping.
        let events = drive(&mut connection);
        prop_assert!(events > 0 || connection.is_open());
    }

    #[test]
    fn any_change_of_a_good_stream_is_safe(at in 0_usize..400, byte: u8) {
        let mut stream = HEADER_NONE.to_vec();
        stream.extend_from_slice(&test_client::context(Some("alice")));
        stream.extend_from_slice(&test_client::call(1, "getApplications", b"\x28\x01"));
        let at = at % stream.len();
        stream[at] = byte;
        drive(&mut connection(&stream));
    }
}
