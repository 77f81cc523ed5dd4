//! What a Java client sends, built by hand: the tests' other side.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use md5::{Digest as _, Md5};

use crate::frame::frame;
use crate::proto::common::rpc_sasl::{SaslAuth, SaslState};
use crate::proto::common::{
    IpcConnectionContext, RequestHeader, RpcCallerContext, RpcRequestHeader, RpcResponseHeader,
    RpcSasl, UserInformation,
};
use crate::wire::{put_delimited, take_message};

pub(crate) const HEADER_NONE: &[u8] = b"hrpc\x09\x00\x00";
pub(crate) const HEADER_SASL: &[u8] = b"hrpc\x09\x00\xdf";
pub(crate) const CLIENT_ID: &[u8; 16] = b"0123456789abcdef";
const PROTOCOL: &str = "org.apache.hadoop.yarn.api.ApplicationClientProtocolPB";

fn header(call_id: i32, client_id: &'static [u8]) -> RpcRequestHeader {
    RpcRequestHeader {
        rpc_kind: Some(2),
        rpc_op: Some(0),
        call_id,
        client_id: Bytes::from_static(client_id),
        retry_count: Some(if call_id < 0 { -1 } else { 0 }),
        ..RpcRequestHeader::default()
    }
}

fn request(header: &RpcRequestHeader, parts: &[&dyn Fn(&mut BytesMut)]) -> Bytes {
    let mut body = BytesMut::new();
    put_delimited(&mut body, header);
    for part in parts {
        part(&mut body);
    }
    frame(&body)
}

pub(crate) fn context(user: Option<&str>) -> Bytes {
    let message = IpcConnectionContext {
        user_info: Some(UserInformation {
            effective_user: user.map(str::to_owned),
            real_user: None,
        }),
        protocol: Some(PROTOCOL.to_owned()),
    };
    request(&header(-3, CLIENT_ID), &[&|b| put_delimited(b, &message)])
}

pub(crate) fn call(id: i32, method: &str, message: &[u8]) -> Bytes {
    call_of(id, method, message, None)
}

/// A call of a client that calls itself something.
pub(crate) fn call_of(id: i32, method: &str, message: &[u8], context: Option<&str>) -> Bytes {
    let context = context.map(|context| RpcCallerContext {
        context: context.to_owned(),
        ..RpcCallerContext::default()
    });
    let head = RequestHeader {
        method_name: method.to_owned(),
        declaring_class_protocol_name: PROTOCOL.to_owned(),
        client_protocol_version: 1,
    };
    let header = RpcRequestHeader {
        caller_context: context,
        ..header(id, CLIENT_ID)
    };
    request(
        &header,
        &[&|b| put_delimited(b, &head), &|b| {
            prost::encode_length_delimiter(message.len(), b).unwrap();
            b.extend_from_slice(message);
        }],
    )
}

pub(crate) fn ping() -> Bytes {
    request(&header(-4, b""), &[])
}

pub(crate) fn sasl(message: &RpcSasl) -> Bytes {
    request(&header(-33, b""), &[&|b| put_delimited(b, message)])
}

pub(crate) fn negotiate() -> Bytes {
    sasl(&RpcSasl {
        state: SaslState::Negotiate.into(),
        ..RpcSasl::default()
    })
}

pub(crate) fn initiate(auth: &SaslAuth, token: Option<String>) -> Bytes {
    sasl(&RpcSasl {
        state: SaslState::Initiate.into(),
        token: token.map(Bytes::from),
        auths: vec![SaslAuth {
            challenge: None,
            ..auth.clone()
        }],
        ..RpcSasl::default()
    })
}

pub(crate) fn response(token: String) -> Bytes {
    sasl(&RpcSasl {
        state: SaslState::Response.into(),
        token: Some(token.into()),
        ..RpcSasl::default()
    })
}

/// An answer: its header and what follows it.
pub(crate) fn answer(mut frame: Bytes) -> (RpcResponseHeader, Bytes) {
    let length = frame.split_to(4);
    assert_eq!(
        u32::from_be_bytes(length.as_ref().try_into().unwrap()),
        u32::try_from(frame.len()).unwrap()
    );
    let header = take_message(&mut frame).unwrap();
    (header, frame)
}

pub(crate) fn sasl_answer(frame: Bytes) -> RpcSasl {
    let (header, mut rest) = answer(frame);
    assert_eq!(header.call_id, 0xffff_ffdf);
    let message = take_message(&mut rest).unwrap();
    assert!(rest.is_empty());
    message
}

fn md5_hex(text: &[u8]) -> String {
    Md5::digest(text)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// A client that wants no protection of its frames.
pub(crate) fn digest(challenge: &[u8], identifier: &[u8], password: &[u8]) -> (String, String) {
    digest_with(challenge, identifier, password, "auth")
}

/// The response of RFC 2831 and the `rspauth` that the server must answer; written independently of
/// the server's own.
pub(crate) fn digest_with(
    challenge: &[u8],
    identifier: &[u8],
    password: &[u8],
    qop: &str,
) -> (String, String) {
    let challenge = std::str::from_utf8(challenge).unwrap();
    let nonce = challenge
        .split("nonce=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap();
    let user = BASE64.encode(identifier);
    let password = BASE64.encode(password);
    let mut a1 = Md5::digest(format!("{user}:default:{password}").as_bytes()).to_vec();
    a1.extend_from_slice(format!(":{nonce}:c0ffee").as_bytes());
    let body = if qop == "auth" {
        String::new()
    } else {
        format!(":{}", "0".repeat(32))
    };
    let cipher = if qop == "auth-conf" {
        ",cipher=\"3des\""
    } else {
        ""
    };
    let keyed = |a2: &str| {
        let text = format!(
            "{}:{nonce}:00000001:c0ffee:{qop}:{}",
            md5_hex(&a1),
            md5_hex(a2.as_bytes())
        );
        md5_hex(text.as_bytes())
    };
    let response = format!(
        "charset=utf-8,username=\"{user}\",realm=\"default\",nonce=\"{nonce}\",nc=00000001,\
         cnonce=\"c0ffee\",digest-uri=\"/default\",maxbuf=65536,response={},qop={qop}{cipher}",
        keyed(&format!("AUTHENTICATE:/default{body}"))
    );
    (
        response,
        format!("rspauth={}", keyed(&format!(":/default{body}"))),
    )
}
