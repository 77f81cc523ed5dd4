//! Calls and answers: what is inside a frame.

use bytes::{Bytes, BytesMut};

use crate::exceptions::RpcException;
use crate::frame::{IPC_VERSION, frame};
use crate::proto::common::rpc_request_header::Operation;
use crate::proto::common::rpc_response_header::{RpcErrorCode, RpcStatus};
use crate::proto::common::{
    IpcConnectionContext, RequestHeader, RpcKind, RpcRequestHeader, RpcResponseHeader, RpcSasl,
};
use crate::wire::{WireError, put_delimited, take_delimited, take_message};

/// Call ids with a meaning of their own. Source: `RpcConstants`, `Server.AuthProtocol`.
pub const CALL_AUTHORIZATION_FAILED: i32 = -1;
pub const CALL_INVALID: i32 = -2;
pub const CALL_CONNECTION_CONTEXT: i32 = -3;
pub const CALL_PING: i32 = -4;
pub const CALL_SASL: i32 = -33;

/// Bytes of a client's id; empty in frames that belong to no call.
const CLIENT_ID_BYTES: usize = 16;

/// What an answer repeats of its request, so that the client finds the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallKey {
    pub id: i32,
    /// 16 bytes, the same on all connections of one client object.
    pub client_id: Bytes,
    /// 0 on the first try of a call, -1 on frames that are no calls.
    pub retry_count: i32,
}

impl CallKey {
    /// For answers to what is no call.
    #[must_use]
    pub fn special(id: i32) -> Self {
        Self {
            id,
            client_id: Bytes::new(),
            retry_count: -1,
        }
    }
}

/// One call, its message not yet decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub key: CallKey,
    /// `declaringClassProtocolName`, see [`crate::protocol::Protocol`].
    pub protocol: String,
    pub method: String,
    /// The bytes of the request message, without their length.
    pub request: Bytes,
    /// What the client calls itself, for the audit log; `CLI` from the `yarn` command line. Without
    /// control characters and at most 128 characters long; proves nothing.
    pub caller_context: Option<String>,
}

/// A request frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Context(IpcConnectionContext),
    Sasl(RpcSasl),
    Ping,
    Call(Call),
}

/// A request frame that cannot be understood; the connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the header of a request cannot be read")]
    Header(#[source] WireError),
    #[error("a request names kind {0:?} where only protocol buffers (2) are spoken")]
    Kind(Option<i32>),
    #[error("a request names operation {0:?} where only whole packets (0) are taken")]
    Operation(Option<i32>),
    #[error("a client id of {0} bytes")]
    ClientId(usize),
    #[error("call {0} does not exist")]
    CallId(i32),
    #[error("a request cannot be read")]
    Body(#[source] WireError),
}

impl RequestError {
    /// The code of the FATAL answer.
    #[must_use]
    pub fn code(&self) -> RpcErrorCode {
        match self {
            RequestError::Header(_)
            | RequestError::Kind(_)
            | RequestError::Operation(_)
            | RequestError::ClientId(_)
            | RequestError::CallId(_) => RpcErrorCode::FatalInvalidRpcHeader,
            RequestError::Body(_) => RpcErrorCode::FatalDeserializingRequest,
        }
    }
}

/// Reads one request frame (without its length).
///
/// # Errors
/// The frame is not what a client of version 9 sends.
pub fn parse_request(mut frame: Bytes) -> Result<Request, RequestError> {
    let header: RpcRequestHeader = take_message(&mut frame).map_err(RequestError::Header)?;
    if header.rpc_kind != Some(i32::from(RpcKind::RpcProtocolBuffer)) {
        return Err(RequestError::Kind(header.rpc_kind));
    }
    if header.rpc_op != Some(i32::from(Operation::RpcFinalPacket)) {
        return Err(RequestError::Operation(header.rpc_op));
    }
    match header.call_id {
        CALL_PING => Ok(Request::Ping),
        CALL_CONNECTION_CONTEXT => take_message(&mut frame)
            .map(Request::Context)
            .map_err(RequestError::Body),
        CALL_SASL => take_message(&mut frame)
            .map(Request::Sasl)
            .map_err(RequestError::Body),
        id if id >= 0 => parse_call(header, frame).map(Request::Call),
        id => Err(RequestError::CallId(id)),
    }
}

fn parse_call(header: RpcRequestHeader, mut body: Bytes) -> Result<Call, RequestError> {
    if header.client_id.len() != CLIENT_ID_BYTES {
        return Err(RequestError::ClientId(header.client_id.len()));
    }
    let request: RequestHeader = take_message(&mut body).map_err(RequestError::Body)?;
    Ok(Call {
        key: CallKey {
            id: header.call_id,
            retry_count: header.retry_count(),
            client_id: header.client_id,
        },
        protocol: request.declaring_class_protocol_name,
        method: request.method_name,
        request: take_delimited(&mut body).map_err(RequestError::Body)?,
        caller_context: header.caller_context.map(|c| printable(&c.context)),
    })
}

/// Characters of a caller's context. Source: `hadoop.caller.context.max.size`.
const CONTEXT_CHARS_MAX: usize = 128;

fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(CONTEXT_CHARS_MAX)
        .collect()
}

fn response_header(key: &CallKey, status: RpcStatus) -> RpcResponseHeader {
    RpcResponseHeader {
        // -33 goes out as 0xffffffdf.
        call_id: key.id.cast_unsigned(),
        status: status.into(),
        server_ipc_version_num: Some(u32::from(IPC_VERSION)),
        client_id: Some(key.client_id.clone()),
        retry_count: Some(key.retry_count),
        ..RpcResponseHeader::default()
    }
}

/// The frame, with its length, that answers a call with the bytes of a message.
#[must_use]
pub fn success(key: &CallKey, message: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(message.len() + 64);
    put_delimited(&mut body, &response_header(key, RpcStatus::Success));
    prost::encode_length_delimiter(message.len(), &mut body).expect("a BytesMut grows as needed");
    body.extend_from_slice(message);
    frame(&body)
}

/// The frame that answers a call with an exception; the connection goes on.
#[must_use]
pub fn error(key: &CallKey, exception: &RpcException) -> Bytes {
    failure(
        key,
        RpcStatus::Error,
        RpcErrorCode::ErrorApplication,
        exception.class.name(),
        &exception.message,
    )
}

/// The frame after which the connection is closed.
#[must_use]
pub fn fatal(key: &CallKey, code: RpcErrorCode, exception: &RpcException) -> Bytes {
    failure(
        key,
        RpcStatus::Fatal,
        code,
        exception.class.name(),
        &exception.message,
    )
}

/// What a client of another version is told, in a form that it can read; `None`: in no form.
///
/// Source: `Server.Connection.setupBadVersionResponse`.
#[must_use]
pub fn version_mismatch(version: u8) -> Option<Bytes> {
    const CLASS: &str = "org.apache.hadoop.ipc.RPC$VersionMismatch";
    let message = format!(
        "Server IPC version {IPC_VERSION} cannot communicate with client version {version}"
    );
    match version {
        0..3 => None,
        3..9 => {
            // Older clients: call id -1, status FATAL, two texts with 32-bit lengths.
            let mut old = Vec::new();
            old.extend_from_slice(&(-1_i32).to_be_bytes());
            old.extend_from_slice(&(-1_i32).to_be_bytes());
            for text in [CLASS, &message] {
                let length = u32::try_from(text.len()).expect("two short texts");
                old.extend_from_slice(&length.to_be_bytes());
                old.extend_from_slice(text.as_bytes());
            }
            Some(Bytes::from(old))
        }
        9.. => Some(failure(
            &CallKey::special(CALL_INVALID),
            RpcStatus::Fatal,
            RpcErrorCode::FatalVersionMismatch,
            CLASS,
            &message,
        )),
    }
}

fn failure(
    key: &CallKey,
    status: RpcStatus,
    code: RpcErrorCode,
    class: &str,
    message: &str,
) -> Bytes {
    let mut body = BytesMut::new();
    let header = RpcResponseHeader {
        exception_class_name: Some(class.to_owned()),
        error_msg: Some(message.to_owned()),
        error_detail: Some(code.into()),
        ..response_header(key, status)
    };
    put_delimited(&mut body, &header);
    frame(&body)
}

/// A frame of the SASL exchange.
#[must_use]
pub fn sasl(message: &RpcSasl) -> Bytes {
    let mut body = BytesMut::new();
    let key = CallKey::special(CALL_SASL);
    put_delimited(&mut body, &response_header(&key, RpcStatus::Success));
    put_delimited(&mut body, message);
    frame(&body)
}
