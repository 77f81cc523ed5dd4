//! One connection of a client, without I/O: bytes in, events out.
//!
//! The owner appends what it reads to [`Connection::space`], takes events with [`Connection::poll`]
//! until there is none, answers those that ask something, and sends what [`Event::Send`] and
//! [`Connection::answer`] give, in that order. A connection begins with its header; then comes the
//! proof (none, or SASL), the connection context, and calls, any number at a time, answered in any
//! order. If the proof chose a quality of protection, what comes after it is inside protected messages,
//! whose borders need not be those of frames. After [`Event::Closing`] nothing follows.
//!
//! Source: `org.apache.hadoop.ipc.Server.Connection`.

use bytes::{Bytes, BytesMut};

use crate::digest::{Challenge, DigestError, Response};
use crate::exceptions::{ExceptionClass, RpcException};
use crate::frame::{
    AuthProtocol, FrameBuffer, FrameTooLong, HEADER_BYTES, HeaderError, parse_header,
};
use crate::protection::Protection;
use crate::proto::common::rpc_response_header::RpcErrorCode;
use crate::proto::common::{IpcConnectionContext, RpcSasl};
use crate::rpc::{self, CALL_AUTHORIZATION_FAILED, CALL_INVALID, CALL_SASL};
use crate::rpc::{Call, CallKey, Request, RequestError};
use crate::sasl::{self, Choice, SaslError};
use crate::wrap::{WrapError, Wrapper};

/// Longest frame before the client has proven who it is, bytes.
const HANDSHAKE_FRAME_BYTES_MAX: u32 = 64 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// Longest name in a connection context, bytes.
const NAME_BYTES_MAX: usize = 1024;

/// What a client says about itself after its proof.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// The Java interface it wants to speak.
    pub protocol: String,
    /// The user it states; proves nothing. Absent after a token.
    pub effective_user: Option<String>,
    /// Who acts for that user (`--proxy-user`); proves nothing either.
    pub real_user: Option<String>,
}

/// How a client proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Not at all: the owner judges by the address it comes from.
    Simple,
    /// By a token with this identifier, whose password it knows.
    Token { identifier: Bytes },
}

/// What the owner has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Send these bytes.
    Send(Bytes),
    /// May this peer come without a token? Answer with [`Connection::answer_simple`].
    SimpleAsked,
    /// A token was shown: answer with its password through [`Connection::answer_token`].
    TokenShown { identifier: Bytes },
    /// The proof is done: answer with [`Connection::answer_introduced`].
    Introduced {
        proof: Proof,
        introduction: Introduction,
    },
    /// Answer with [`Connection::answer`], whenever it is ready.
    Call(Call),
    /// Close, after what was sent has left.
    Closing(CloseReason),
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    #[error(transparent)]
    Header(HeaderError),
    #[error(transparent)]
    Frame(FrameTooLong),
    #[error("{0}")]
    Request(RequestError),
    #[error(transparent)]
    Sasl(SaslError),
    #[error(transparent)]
    Digest(DigestError),
    #[error(transparent)]
    Wrap(WrapError),
    #[error("refused: {0}")]
    Refused(RpcException),
    #[error("a {0} is out of place")]
    OutOfPlace(&'static str),
}

/// Where a connection stands.
#[derive(Debug)]
enum State {
    /// The connection header is not whole.
    Header,
    /// The owner says whether the peer may come without a token.
    SimpleAsked(AuthProtocol),
    /// SASL: the client begins.
    Negotiate {
        simple: bool,
    },
    /// SASL: the client chooses from the offer.
    Initiate {
        simple: bool,
        challenge: Challenge,
    },
    /// SASL: the client answers a challenge that was sent alone.
    Response {
        challenge: Challenge,
    },
    /// The owner looks a token up.
    TokenShown {
        challenge: Challenge,
        response: Response,
    },
    /// The connection context comes next.
    Context {
        proof: Proof,
    },
    /// The owner judges the context.
    Introduced,
    Open,
    Closed,
}

/// One connection of a client.
#[derive(Debug)]
pub struct Connection {
    state: State,
    received: FrameBuffer,
    /// Events not yet taken, oldest first; at most three.
    events: std::collections::VecDeque<Event>,
    frame_bytes_max: u32,
    protection: Protection,
    /// Once the proof has chosen to protect what follows.
    wrapper: Option<Box<Wrapper>>,
    /// What came out of protected messages.
    unwrapped: FrameBuffer,
}

impl Connection {
    /// `frame_bytes_max`: longest frame of an open connection. `protection`: what is offered to
    /// clients with a token.
    #[must_use]
    pub fn new(frame_bytes_max: u32, protection: Protection) -> Self {
        Self {
            state: State::Header,
            received: FrameBuffer::default(),
            events: std::collections::VecDeque::new(),
            frame_bytes_max,
            protection,
            wrapper: None,
            unwrapped: FrameBuffer::default(),
        }
    }

    /// Where to append what was read; has room for at least some kilobytes.
    pub fn space(&mut self) -> &mut BytesMut {
        let missing = usize::try_from(self.received.missing()).unwrap_or(READ_BYTES);
        let bytes = self.received.bytes_mut();
        // Not the whole missing part: room grows with what arrives.
        bytes.reserve(missing.clamp(1024, READ_BYTES));
        bytes
    }

    /// True once the client may call.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// True while a frame is half received.
    #[must_use]
    pub fn is_in_frame(&self) -> bool {
        !self.received.is_empty() || !self.unwrapped.is_empty()
    }

    /// Bytes still missing of the frame under way.
    #[must_use]
    pub fn missing(&self) -> u32 {
        match self.state {
            // The header has no length before it, and after the end nothing is waited for.
            State::Header | State::Closed => 0,
            State::SimpleAsked(_)
            | State::Negotiate { .. }
            | State::Initiate { .. }
            | State::Response { .. }
            | State::TokenShown { .. }
            | State::Context { .. }
            | State::Introduced
            | State::Open => self.received.missing().max(self.unwrapped.missing()),
        }
    }

    /// The next thing to do; `None`: more bytes, or the answer to the last question, are needed.
    pub fn poll(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let progressed = match &self.state {
                State::Header => self.take_header(),
                State::Negotiate { .. }
                | State::Initiate { .. }
                | State::Response { .. }
                | State::Context { .. }
                | State::Open => self.take_frame(),
                State::SimpleAsked(_)
                | State::TokenShown { .. }
                | State::Introduced
                | State::Closed => false,
            };
            if !progressed {
                return None;
            }
        }
    }

    /// Answers [`Event::SimpleAsked`]: an exception says what to do instead, and is seen only by
    /// clients that have no token at all.
    ///
    /// # Panics
    /// If nothing was asked.
    pub fn answer_simple(&mut self, answer: Result<(), RpcException>) {
        let State::SimpleAsked(auth) = self.state else {
            unreachable!("answer_simple answers SimpleAsked");
        };
        match (auth, answer) {
            (AuthProtocol::None, Ok(())) => {
                self.state = State::Context {
                    proof: Proof::Simple,
                };
            }
            (AuthProtocol::None, Err(exception)) => {
                // Never a closed connection alone: clients retry that in silence for 15 minutes.
                self.refuse(CALL_AUTHORIZATION_FAILED, exception);
            }
            (AuthProtocol::Sasl, answer) => {
                self.state = State::Negotiate {
                    simple: answer.is_ok(),
                };
            }
        }
    }

    /// Answers [`Event::TokenShown`] with the token's password, or with why the token is not good.
    ///
    /// # Panics
    /// If nothing was asked.
    pub fn answer_token(&mut self, password: Result<&[u8], RpcException>) {
        let State::TokenShown {
            challenge,
            response,
        } = &self.state
        else {
            unreachable!("answer_token answers TokenShown");
        };
        let password = match password {
            Ok(password) => password,
            Err(exception) => return self.refuse(CALL_SASL, exception),
        };
        match response.verify(challenge, password) {
            Ok(verified) => {
                let identifier = response.identifier().clone();
                // Itself it is not protected.
                self.send(rpc::sasl(&sasl::success(verified.rspauth.clone())));
                self.wrapper = Wrapper::of_server(&verified).map(Box::new);
                self.state = State::Context {
                    proof: Proof::Token { identifier },
                };
            }
            Err(error) => self.refuse_digest(error),
        }
    }

    /// Answers [`Event::Introduced`].
    ///
    /// # Panics
    /// If nothing was asked.
    pub fn answer_introduced(&mut self, answer: Result<(), RpcException>) {
        assert!(
            matches!(self.state, State::Introduced),
            "answer_introduced answers Introduced"
        );
        match answer {
            Ok(()) => self.state = State::Open,
            Err(exception) => self.refuse(CALL_AUTHORIZATION_FAILED, exception),
        }
    }

    /// The bytes that answer a call. They are sent in the order in which they are made.
    #[must_use]
    pub fn answer(&mut self, key: &CallKey, result: &Result<Bytes, RpcException>) -> Bytes {
        let frame = match result {
            Ok(message) => rpc::success(key, message),
            Err(exception) => rpc::error(key, exception),
        };
        self.protect(frame)
    }

    /// The frame as it leaves.
    fn protect(&mut self, frame: Bytes) -> Bytes {
        match &mut self.wrapper {
            None => frame,
            Some(wrapper) => rpc::sasl(&sasl::wrap(wrapper.seal(&frame))),
        }
    }

    fn send(&mut self, frame: Bytes) {
        let bytes = self.protect(frame);
        self.events.push_back(Event::Send(bytes));
    }

    fn close(&mut self, reason: CloseReason) {
        self.state = State::Closed;
        self.received = FrameBuffer::default();
        self.unwrapped = FrameBuffer::default();
        self.events.push_back(Event::Closing(reason));
    }

    /// A FATAL answer that reaches the user's terminal, then the end.
    fn refuse(&mut self, call_id: i32, exception: RpcException) {
        self.send(rpc::fatal(
            &CallKey::special(call_id),
            RpcErrorCode::FatalUnauthorized,
            &exception,
        ));
        self.close(CloseReason::Refused(exception));
    }

    fn refuse_digest(&mut self, error: DigestError) {
        let exception = RpcException::new(ExceptionClass::Sasl, error.to_string());
        self.fatal(CALL_SASL, RpcErrorCode::FatalUnauthorized, &exception);
        self.close(CloseReason::Digest(error));
    }

    fn fatal(&mut self, call_id: i32, code: RpcErrorCode, exception: &RpcException) {
        self.send(rpc::fatal(&CallKey::special(call_id), code, exception));
    }

    fn out_of_place(&mut self, what: &'static str) {
        let reason = CloseReason::OutOfPlace(what);
        let exception = RpcException::new(ExceptionClass::RpcServer, reason.to_string());
        self.fatal(
            CALL_INVALID,
            RpcErrorCode::FatalInvalidRpcHeader,
            &exception,
        );
        self.close(reason);
    }

    /// True if there was a whole header or one that cannot become good.
    fn take_header(&mut self) -> bool {
        match parse_header(self.received.peek()) {
            Ok(None) => return false,
            Ok(Some(auth)) => {
                self.received.advance(HEADER_BYTES);
                self.state = State::SimpleAsked(auth);
                self.events.push_back(Event::SimpleAsked);
            }
            Err(error) => {
                match error {
                    HeaderError::Http => self.send(Bytes::from_static(HTTP_HINT.as_bytes())),
                    HeaderError::Version(version) => {
                        if let Some(bytes) = rpc::version_mismatch(version) {
                            self.send(bytes);
                        }
                    }
                    HeaderError::Auth(_) => {
                        let exception =
                            RpcException::new(ExceptionClass::AccessControl, error.to_string());
                        self.fatal(CALL_INVALID, RpcErrorCode::FatalUnauthorized, &exception);
                    }
                    HeaderError::Magic => {}
                }
                self.close(CloseReason::Header(error));
            }
        }
        true
    }

    /// Longest frame at this point.
    fn frame_limit(&self) -> u32 {
        match self.state {
            // With the context comes the first call, in the same protected message.
            State::Open
            | State::Context {
                proof: Proof::Token { .. },
            } => self.frame_bytes_max,
            State::Header
            | State::SimpleAsked(_)
            | State::Negotiate { .. }
            | State::Initiate { .. }
            | State::Response { .. }
            | State::TokenShown { .. }
            | State::Context {
                proof: Proof::Simple,
            }
            | State::Introduced
            | State::Closed => HANDSHAKE_FRAME_BYTES_MAX.min(self.frame_bytes_max),
        }
    }

    /// True if there was a whole frame or one that cannot become good.
    fn take_frame(&mut self) -> bool {
        let limit = self.frame_limit();
        let frame = if self.wrapper.is_none() {
            self.received.next_frame(limit)
        } else {
            match self.unwrapped.next_frame(limit) {
                Ok(None) => return self.take_protected(limit),
                found => found,
            }
        };
        match frame {
            Ok(None) => return false,
            Ok(Some(frame)) => match rpc::parse_request(frame) {
                Ok(request) => self.take_request(request),
                Err(error) => self.refuse_request(error),
            },
            Err(error) => self.refuse_frame(error),
        }
        true
    }

    /// As [`Connection::take_frame`], of a message that protects frames.
    fn take_protected(&mut self, limit: u32) -> bool {
        let limit = limit.saturating_add(HANDSHAKE_FRAME_BYTES_MAX);
        let frame = match self.received.next_frame(limit) {
            Ok(None) => return false,
            Ok(Some(frame)) => frame,
            Err(error) => {
                self.refuse_frame(error);
                return true;
            }
        };
        let message = match rpc::parse_request(frame) {
            Ok(Request::Sasl(message)) => message,
            Ok(Request::Call(_) | Request::Context(_) | Request::Ping) => {
                self.out_of_place("frame without protection");
                return true;
            }
            Err(error) => {
                self.refuse_request(error);
                return true;
            }
        };
        match sasl::read_wrap(message) {
            Ok(token) => self.unwrap_token(&token),
            Err(error) => self.refuse_sasl(error),
        }
        true
    }

    fn unwrap_token(&mut self, token: &Bytes) {
        let wrapper = self
            .wrapper
            .as_mut()
            .expect("only a connection with a wrapper takes protected messages");
        match wrapper.open(token) {
            Ok(message) => self.unwrapped.bytes_mut().extend_from_slice(&message),
            Err(error) => {
                let exception = RpcException::new(ExceptionClass::Sasl, error.to_string());
                self.fatal(CALL_SASL, RpcErrorCode::FatalUnauthorized, &exception);
                self.close(CloseReason::Wrap(error));
            }
        }
    }

    fn refuse_frame(&mut self, error: FrameTooLong) {
        // With the YARN class: a client would retry an RpcServerException.
        let exception = RpcException::new(ExceptionClass::Yarn, error.to_string());
        let code = RpcErrorCode::FatalInvalidRpcHeader;
        self.fatal(CALL_INVALID, code, &exception);
        self.close(CloseReason::Frame(error));
    }

    fn refuse_request(&mut self, error: RequestError) {
        let exception = RpcException::new(ExceptionClass::RpcServer, error.to_string());
        self.fatal(CALL_INVALID, error.code(), &exception);
        self.close(CloseReason::Request(error));
    }

    fn take_request(&mut self, request: Request) {
        // Taken out and put back by the arms that stay.
        let state = std::mem::replace(&mut self.state, State::Closed);
        match (state, request) {
            (state, Request::Ping) => self.state = state,
            (State::Open, Request::Call(call)) => {
                self.state = State::Open;
                self.events.push_back(Event::Call(call));
            }
            (State::Context { proof }, Request::Context(context)) => {
                self.take_context(proof, context);
            }
            (State::Negotiate { simple }, Request::Sasl(message)) => {
                self.take_negotiate(simple, &message);
            }
            (State::Initiate { simple, challenge }, Request::Sasl(message)) => {
                self.take_initiate(simple, challenge, message);
            }
            (State::Response { challenge }, Request::Sasl(message)) => {
                match sasl::read_response(message) {
                    Ok(response) => self.take_response(challenge, &response),
                    Err(error) => self.refuse_sasl(error),
                }
            }
            (_, Request::Call(_)) => self.out_of_place("call"),
            (_, Request::Context(_)) => self.out_of_place("connection context"),
            (_, Request::Sasl(_)) => self.out_of_place("SASL message"),
        }
    }

    fn take_context(&mut self, proof: Proof, context: IpcConnectionContext) {
        let user = context.user_info.unwrap_or_default();
        let introduction = Introduction {
            protocol: context.protocol.unwrap_or_default(),
            effective_user: user.effective_user,
            real_user: user.real_user,
        };
        let names = [
            Some(&introduction.protocol),
            introduction.effective_user.as_ref(),
            introduction.real_user.as_ref(),
        ];
        if names
            .into_iter()
            .flatten()
            .any(|n| n.len() > NAME_BYTES_MAX)
        {
            return self.out_of_place("name of more than 1024 bytes");
        }
        self.state = State::Introduced;
        self.events.push_back(Event::Introduced {
            proof,
            introduction,
        });
    }

    fn take_negotiate(&mut self, simple: bool, message: &RpcSasl) {
        if let Err(error) = sasl::read_negotiate(message) {
            return self.refuse_sasl(error);
        }
        match Challenge::new(self.protection) {
            Ok(challenge) => {
                self.send(rpc::sasl(&sasl::offer(&challenge, simple)));
                self.state = State::Initiate { simple, challenge };
            }
            Err(error) => self.refuse_digest(error),
        }
    }

    fn take_initiate(&mut self, simple: bool, challenge: Challenge, message: RpcSasl) {
        match sasl::read_initiate(message, simple) {
            Ok(Choice::Simple) => {
                self.state = State::Context {
                    proof: Proof::Simple,
                };
            }
            Ok(Choice::Token(response)) if response.is_empty() => {
                self.send(rpc::sasl(&sasl::challenge(&challenge)));
                self.state = State::Response { challenge };
            }
            Ok(Choice::Token(response)) => self.take_response(challenge, &response),
            Err(error) => self.refuse_sasl(error),
        }
    }

    fn take_response(&mut self, challenge: Challenge, response: &[u8]) {
        match Response::parse(response) {
            Ok(response) => {
                let identifier = response.identifier().clone();
                self.state = State::TokenShown {
                    challenge,
                    response,
                };
                self.events.push_back(Event::TokenShown { identifier });
            }
            Err(error) => self.refuse_digest(error),
        }
    }

    fn refuse_sasl(&mut self, error: SaslError) {
        let exception = RpcException::new(ExceptionClass::Sasl, error.to_string());
        self.fatal(CALL_SASL, RpcErrorCode::FatalUnauthorized, &exception);
        self.close(CloseReason::Sasl(error));
    }
}

/// What a browser is told.
const HTTP_HINT: &str = "HTTP/1.1 404 Not Found\r\n\
    Content-Type: text/plain\r\n\
    Connection: close\r\n\r\n\
    This port speaks Hadoop IPC, not HTTP. The web interface of the resource manager is on its own \
    port (8088 unless configured otherwise), that of a node agent on 8042.\r\n";

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
