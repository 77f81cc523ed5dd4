//! What unmodified Sparks and the doors of a Bobbin cluster said to each other, recorded on the wire.
//!
//! The files in `tests/wire` were recorded by `record.py` and written by `annotate.py`, beside them.
//! A comment says what the line below it is; a line is connection, port's name, direction, bytes of
//! one frame. Every frame is decoded by the codec and encoded again: what is not understood in
//! whole, or changes on the way, fails.
#![expect(
    clippy::unwrap_used,
    reason = "what cannot be read fails the test as it should"
)]

use std::collections::{BTreeMap, BTreeSet};

use bobbin_hadoop::frame::{FrameBuffer, frame, parse_header};
use bobbin_hadoop::proto::common::{
    IpcConnectionContext, RequestHeader, RpcRequestHeader, RpcResponseHeader, RpcSasl,
};
use bobbin_hadoop::proto::yarn;
use bobbin_hadoop::protocol::Protocol;
use bobbin_hadoop::rpc::{CALL_CONNECTION_CONTEXT, CALL_PING, CALL_SASL, Request, parse_request};
use bobbin_hadoop::wire::{put_delimited, take_message};
use bytes::{Bytes, BytesMut};
use prost::Message;

const FRAME_BYTES_MAX: u32 = 1 << 24;

fn hex(text: &str) -> Bytes {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// Takes a message off the front and puts it onto the copy, as our codec writes it.
fn copy<M: Message + Default>(from: &mut Bytes, to: &mut BytesMut) -> M {
    let message: M = take_message(from).unwrap();
    put_delimited(to, &message);
    message
}

fn copy_only<M: Message + Default>(from: &mut Bytes, to: &mut BytesMut) {
    let _: M = copy(from, to);
}

/// The request and the response of every method in the recordings.
type Copy = fn(&mut Bytes, &mut BytesMut);

fn messages(method: &str) -> (Copy, Copy) {
    macro_rules! pair {
        ($request:ident, $response:ident) => {
            (
                copy_only::<yarn::$request> as Copy,
                copy_only::<yarn::$response> as Copy,
            )
        };
    }
    match method {
        "getNewApplication" => pair!(GetNewApplicationRequest, GetNewApplicationResponse),
        "submitApplication" => pair!(SubmitApplicationRequest, SubmitApplicationResponse),
        "getApplicationReport" => pair!(GetApplicationReportRequest, GetApplicationReportResponse),
        "registerApplicationMaster" => {
            pair!(
                RegisterApplicationMasterRequest,
                RegisterApplicationMasterResponse
            )
        }
        "allocate" => pair!(AllocateRequest, AllocateResponse),
        "finishApplicationMaster" => {
            pair!(
                FinishApplicationMasterRequest,
                FinishApplicationMasterResponse
            )
        }
        "startContainers" => pair!(StartContainersRequest, StartContainersResponse),
        "stopContainers" => pair!(StopContainersRequest, StopContainersResponse),
        other => unreachable!("no messages for {other}: add it here"),
    }
}

/// One recorded conversation: what was asked on which connection under which call.
#[derive(Debug, Default)]
struct Recording {
    methods: BTreeMap<(u32, i32), String>,
    greeted: BTreeSet<u32>,
    requests: BTreeMap<String, u32>,
    answers: BTreeMap<String, u32>,
}

impl Recording {
    fn of(text: &str) -> Recording {
        let mut recording = Recording::default();
        for line in text
            .lines()
            .filter(|l| !l.starts_with('#') && !l.is_empty())
        {
            let words: Vec<&str> = line.split(' ').collect();
            let [connection, _port, way, bytes] = words[..] else {
                unreachable!("not a line of a recording: {line}")
            };
            let connection = connection.parse().unwrap();
            let bytes = hex(bytes);
            let copied = match way {
                "C>S" if recording.greeted.insert(connection) => {
                    assert!(parse_header(&bytes).unwrap().is_some(), "{line}");
                    bytes.clone()
                }
                "C>S" => frame(&recording.request(connection, unframed(&bytes))),
                "S>C" => frame(&recording.answer(connection, unframed(&bytes))),
                other => unreachable!("no direction: {other}"),
            };
            assert_eq!(copied, bytes, "changed by reading and writing: {line}");
        }
        recording
    }

    fn request(&mut self, connection: u32, mut from: Bytes) -> Bytes {
        let whole = parse_request(from.clone()).unwrap();
        let mut to = BytesMut::new();
        let header: RpcRequestHeader = copy(&mut from, &mut to);
        match header.call_id {
            CALL_CONNECTION_CONTEXT => copy_only::<IpcConnectionContext>(&mut from, &mut to),
            CALL_SASL => copy_only::<RpcSasl>(&mut from, &mut to),
            CALL_PING => {}
            id => {
                let Request::Call(call) = whole else {
                    unreachable!("{whole:?}")
                };
                assert!(Protocol::from_name(&call.protocol).is_some(), "{call:?}");
                copy_only::<RequestHeader>(&mut from, &mut to);
                messages(&call.method).0(&mut from, &mut to);
                *self.requests.entry(call.method.clone()).or_default() += 1;
                self.methods.insert((connection, id), call.method);
            }
        }
        assert!(from.is_empty(), "more than one request in a frame");
        to.freeze()
    }

    fn answer(&mut self, connection: u32, mut from: Bytes) -> Bytes {
        let mut to = BytesMut::new();
        let header: RpcResponseHeader = copy(&mut from, &mut to);
        let id = header.call_id.cast_signed();
        if id == CALL_SASL {
            copy_only::<RpcSasl>(&mut from, &mut to);
        } else if header.exception_class_name.is_none() {
            let method = &self.methods[&(connection, id)];
            messages(method).1(&mut from, &mut to);
            *self.answers.entry(method.clone()).or_default() += 1;
        }
        assert!(from.is_empty(), "more than one answer in a frame");
        to.freeze()
    }
}

fn unframed(bytes: &Bytes) -> Bytes {
    let mut buffer = FrameBuffer::default();
    buffer.bytes_mut().extend_from_slice(bytes);
    let whole = buffer.next_frame(FRAME_BYTES_MAX).unwrap().unwrap();
    assert!(buffer.is_empty(), "more than a frame");
    whole
}

#[test]
fn what_unmodified_sparks_say_is_read_and_written_byte_for_byte() {
    let mut files = 0;
    for entry in std::fs::read_dir(bobbin_tests::root().join("tests/wire")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "txt") {
            continue;
        }
        files += 1;
        let recording = Recording::of(&std::fs::read_to_string(&path).unwrap());
        let needed = [
            "getNewApplication",
            "submitApplication",
            "getApplicationReport",
            "registerApplicationMaster",
            "allocate",
            "startContainers",
            "finishApplicationMaster",
        ];
        for method in needed {
            assert!(
                recording.requests.contains_key(method) && recording.answers.contains_key(method),
                "{method} is not in {}",
                path.display()
            );
        }
    }
    assert!(files >= 2, "recordings of both Sparks");
}
