//! One connection: socket, clocks and limits around [`Connection`].

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::seats::{Phase, Seat};
use super::{
    AuditedCall, Authenticator, Caller, Ended, Observer, Outcome, PERMIT_BYTES, Peer, Service,
    Shared, tune,
};
use crate::connection::{CloseReason, Connection, Event, Introduction, Proof};
use crate::exceptions::{ExceptionClass, RpcException};
use crate::rpc::{Call, CallKey};

/// Frames longer than this take permits from the server's pool.
const LARGE_FRAME_BYTES: u32 = 16 * 1024;
/// Answers waiting to be read by the peer, bytes, above which no more calls are taken.
const OUT_BYTES_MAX: usize = 1024 * 1024;
/// A peer that leaves less unread is never cut for it.
const OUT_BYTES_FAIR: usize = 256 * 1024;
/// How long a refused client may take to read why: closing at once could reset the connection
/// before it has.
const LINGER: Duration = Duration::from_secs(1);
/// A deadline that never comes.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a call's task gives back; the permit of its frame goes with it.
struct Answer {
    key: CallKey,
    result: Result<Bytes, RpcException>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Tells the service how a call ended, also when its task is dropped with the connection.
struct Audit<P, S: Service<P>> {
    service: Arc<S>,
    caller: Arc<Caller<P>>,
    protocol: String,
    method: String,
    caller_context: Option<String>,
    is_told: bool,
}

impl<P, S: Service<P>> Audit<P, S> {
    fn tell(&mut self, outcome: Outcome<'_>) {
        self.is_told = true;
        let call = AuditedCall {
            protocol: &self.protocol,
            method: &self.method,
            caller_context: self.caller_context.as_deref(),
        };
        self.service.audit(&self.caller, &call, outcome);
    }
}

impl<P, S: Service<P>> Drop for Audit<P, S> {
    fn drop(&mut self) {
        if !self.is_told {
            self.tell(Outcome::Abandoned);
        }
    }
}

struct Handler<A: Authenticator, S, O> {
    shared: Arc<Shared<A, S, O>>,
    stream: TcpStream,
    peer: Peer,
    seat: Seat,
    connection: Connection,
    /// Who the peer is without a token, if it may be.
    simple: Option<A::Principal>,
    /// Who the token stands for.
    token: Option<A::Principal>,
    caller: Option<Arc<Caller<A::Principal>>>,
    calls: JoinSet<Answer>,
    /// A call whose turn has not come: the server has as many under way as it may.
    waiting: Option<Call>,
    out: VecDeque<Bytes>,
    out_bytes: usize,
    /// Of the large frame under way.
    permit: Option<OwnedSemaphorePermit>,
    handshake_end: Instant,
    /// When bytes last went either way.
    last: Instant,
    /// When the first byte of the frame under way came.
    frame_since: Option<Instant>,
}

/// Serves one connection to its end.
pub(super) async fn run<A, S, O>(
    shared: Arc<Shared<A, S, O>>,
    stream: TcpStream,
    remote: SocketAddr,
    seat: Seat,
) where
    A: Authenticator,
    S: Service<A::Principal>,
    O: Observer,
{
    tune(&stream);
    let ended = match stream.local_addr() {
        Ok(local) => {
            let peer = Peer { remote, local };
            Handler::new(shared.clone(), stream, peer, seat)
                .drive()
                .await
        }
        Err(error) => Ended::Cut(error.kind()),
    };
    shared.observer.ended(remote, &ended);
}

impl<A, S, O> Handler<A, S, O>
where
    A: Authenticator,
    S: Service<A::Principal>,
    O: Observer,
{
    fn new(shared: Arc<Shared<A, S, O>>, stream: TcpStream, peer: Peer, seat: Seat) -> Self {
        let now = Instant::now();
        Self {
            connection: Connection::new(shared.limits.frame_bytes_max, shared.limits.protection),
            handshake_end: now + shared.limits.handshake,
            shared,
            stream,
            peer,
            seat,
            simple: None,
            token: None,
            caller: None,
            calls: JoinSet::new(),
            waiting: None,
            out: VecDeque::new(),
            out_bytes: 0,
            permit: None,
            last: now,
            frame_since: None,
        }
    }

    async fn drive(mut self) -> Ended {
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(ended) => return ended,
            }
        }
    }

    /// Handles what was received, then waits for the next thing to happen.
    async fn step(&mut self) -> Result<(), Ended> {
        while self.may_take() {
            let Some(event) = self.connection.poll() else {
                break;
            };
            self.frame_since = None;
            self.handle(event).await?;
        }
        self.flush()?;
        self.take_permit().await?;
        if self.connection.is_in_frame() && self.may_take() {
            self.frame_since.get_or_insert_with(Instant::now);
        } else {
            // Nothing is under way, or it is us who do not read.
            self.frame_since = None;
        }
        let interest = match (self.may_take(), self.out.is_empty()) {
            (true, true) => Some(Interest::READABLE),
            (true, false) => Some(Interest::READABLE | Interest::WRITABLE),
            (false, false) => Some(Interest::WRITABLE),
            (false, true) => None,
        };
        let (deadline, late) = self.deadline();
        let phase = self.phase();
        self.seat.set(phase);
        let turn = self.shared.calls.clone();
        tokio::select! {
            Some(answer) = self.calls.join_next(), if !self.calls.is_empty() => {
                // A task that panicked has no answer, and the client would wait for ever.
                let answer = answer.map_err(|_| Ended::Cut(io::ErrorKind::Other))?;
                let bytes = self.connection.answer(&answer.key, &answer.result);
                drop(answer.permit);
                self.push(bytes)?;
            }
            permit = turn.acquire_owned(), if self.waiting.is_some() => {
                // The server closes it never, and ends with its connections.
                if let (Some(call), Ok(permit)) = (self.waiting.take(), permit) {
                    self.start(call, permit);
                }
            }
            limit = self.seat.told_to_go() => {
                // What has begun meanwhile is not cut off.
                if phase != Phase::Busy {
                    return Err(Ended::Displaced(limit));
                }
            }
            ready = self.stream.ready(interest.unwrap_or(Interest::READABLE)), if interest.is_some() => {
                let ready = ready.map_err(|e| Ended::Cut(e.kind()))?;
                if ready.is_readable() && self.may_take() {
                    self.read()?;
                }
            }
            () = sleep_until(deadline) => return Err(late),
        }
        Ok(())
    }

    /// More is taken from the peer only while there is room for what comes of it.
    fn may_take(&self) -> bool {
        self.waiting.is_none()
            && self.calls.len() < self.shared.limits.connection_calls_max
            && self.out_bytes < OUT_BYTES_MAX
    }

    fn phase(&self) -> Phase {
        if self.caller.is_none() {
            Phase::Unproven
        } else if self.calls.is_empty()
            && self.waiting.is_none()
            && self.out.is_empty()
            && !self.connection.is_in_frame()
        {
            Phase::Idle
        } else {
            Phase::Busy
        }
    }

    async fn handle(&mut self, event: Event) -> Result<(), Ended> {
        match event {
            Event::Send(bytes) => self.push(bytes)?,
            Event::Call(call) => match self.shared.calls.clone().try_acquire_owned() {
                Ok(permit) => self.start(call, permit),
                Err(_) => self.waiting = Some(call),
            },
            Event::Closing(reason) => return Err(self.close(reason).await),
            Event::SimpleAsked | Event::TokenShown { .. } | Event::Introduced { .. } => {
                let end = self.handshake_end;
                timeout_at(end, self.authenticate(event))
                    .await
                    .map_err(|_| Ended::Handshake(self.shared.limits.handshake))?;
            }
        }
        Ok(())
    }

    async fn authenticate(&mut self, event: Event) {
        let authenticator = &self.shared.authenticator;
        match event {
            Event::SimpleAsked => {
                let answer = authenticator.simple_on(&self.peer, &self.stream).await;
                let answer = answer.map(|principal| self.simple = Some(principal));
                self.connection.answer_simple(answer);
            }
            Event::TokenShown { identifier } => {
                match authenticator.token(&self.peer, &identifier).await {
                    Ok(proof) => {
                        self.token = Some(proof.principal);
                        self.connection.answer_token(Ok(&proof.password));
                    }
                    Err(exception) => self.connection.answer_token(Err(exception)),
                }
            }
            Event::Introduced {
                proof,
                introduction,
            } => {
                let answer = self.introduce(proof, introduction).await;
                self.connection.answer_introduced(answer);
            }
            Event::Send(_) | Event::Call(_) | Event::Closing(_) => {
                unreachable!("handle passes on the questions only")
            }
        }
    }

    async fn introduce(
        &mut self,
        proof: Proof,
        introduction: Introduction,
    ) -> Result<(), RpcException> {
        let principal = match &proof {
            Proof::Simple => self.simple.take(),
            Proof::Token { .. } => self.token.take(),
        };
        // The machine introduces only what was answered well before.
        let principal = principal.ok_or_else(|| {
            RpcException::new(ExceptionClass::AccessControl, "nothing proves who you are")
        })?;
        let principal = self
            .shared
            .authenticator
            .introduced(principal, &introduction)
            .await?;
        self.caller = Some(Arc::new(Caller {
            principal,
            peer: self.peer,
            proof,
            introduction,
        }));
        Ok(())
    }

    /// `turn` is the call's among all of the server.
    fn start(&mut self, call: Call, turn: OwnedSemaphorePermit) {
        let caller = self
            .caller
            .clone()
            .expect("calls come only after the introduction");
        let service = self.shared.service.clone();
        let permit = self.permit.take();
        let Call {
            key,
            protocol,
            method,
            request,
            caller_context,
        } = call;
        let mut audit = Audit {
            service: service.clone(),
            caller: caller.clone(),
            protocol,
            method,
            caller_context,
            is_told: false,
        };
        self.calls.spawn(async move {
            let _turn = turn;
            let result = service
                .call(&caller, &audit.protocol, &audit.method, request)
                .await;
            audit.tell(match &result {
                Ok(_) => Outcome::Answered,
                Err(exception) => Outcome::Refused(exception),
            });
            Answer {
                key,
                result,
                permit,
            }
        });
    }

    fn push(&mut self, bytes: Bytes) -> Result<(), Ended> {
        let length = bytes.len();
        let all = self.shared.unread.fetch_add(length, Ordering::Relaxed) + length;
        self.out_bytes += length;
        self.out.push_back(bytes);
        if self.out.len() == 1 {
            // The peer's time to read begins.
            self.last = Instant::now();
        }
        if all > self.shared.limits.unread_bytes_max && self.out_bytes > OUT_BYTES_FAIR {
            return Err(Ended::Unread(self.out_bytes));
        }
        Ok(())
    }

    /// Takes bytes off what waits to be read.
    fn forget(&mut self, bytes: usize) {
        self.out_bytes -= bytes;
        self.shared.unread.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn flush(&mut self) -> Result<(), Ended> {
        while let Some(front) = self.out.front_mut() {
            match self.stream.try_write(front) {
                Ok(written) => {
                    front.advance(written);
                    if front.is_empty() {
                        self.out.pop_front();
                    }
                    self.forget(written);
                    self.last = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Ended::Cut(error.kind())),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Ended> {
        match self.stream.try_read_buf(self.connection.space()) {
            Ok(0) => return Err(Ended::ByPeer),
            Ok(_) => self.last = Instant::now(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Ended::Cut(error.kind())),
        }
        Ok(())
    }

    /// Reserves memory for a large frame before it is read.
    async fn take_permit(&mut self) -> Result<(), Ended> {
        let missing = self.connection.missing();
        if missing <= LARGE_FRAME_BYTES || self.permit.is_some() {
            return Ok(());
        }
        let stall = self.shared.limits.stall;
        // A single frame may take all there is.
        let most = self.shared.limits.large_bytes_max / PERMIT_BYTES;
        let permits = missing.div_ceil(PERMIT_BYTES).min(most);
        let wait = self.shared.large.clone().acquire_many_owned(permits);
        match timeout(stall, wait).await {
            Ok(Ok(permit)) => {
                self.permit = Some(permit);
                self.frame_since = Some(Instant::now());
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(Ended::Stalled(stall)),
        }
    }

    fn deadline(&self) -> (Instant, Ended) {
        let limits = &self.shared.limits;
        if !self.connection.is_open() {
            return (self.handshake_end, Ended::Handshake(limits.handshake));
        }
        if !self.out.is_empty() {
            return (self.last + limits.stall, Ended::Stalled(limits.stall));
        }
        match self.frame_since {
            Some(since) => (since + limits.stall, Ended::Stalled(limits.stall)),
            None if !self.calls.is_empty() || self.waiting.is_some() => {
                (Instant::now() + NEVER, Ended::Idle(limits.idle))
            }
            None => (self.last + limits.idle, Ended::Idle(limits.idle)),
        }
    }

    /// Sends what is left and waits until the peer has read it.
    async fn close(&mut self, reason: CloseReason) -> Ended {
        let stream = &mut self.stream;
        let out = std::mem::take(&mut self.out);
        let linger = async {
            for bytes in out {
                stream.write_all(&bytes).await?;
            }
            stream.shutdown().await?;
            let mut scrap = [0; 1024];
            loop {
                stream.readable().await?;
                match stream.try_read(&mut scrap) {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        };
        // Whether the peer read it or not, it is over.
        let _: Result<io::Result<()>, _> = timeout(LINGER, linger).await;
        Ended::Protocol(reason)
    }
}

impl<A: Authenticator, S, O> Drop for Handler<A, S, O> {
    fn drop(&mut self) {
        self.shared
            .unread
            .fetch_sub(self.out_bytes, Ordering::Relaxed);
    }
}
