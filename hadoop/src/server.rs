//! A small server: accepts connections, keeps them within limits, and hands calls to a service.
//!
//! One task per connection and one per call; calls are answered when they are ready, in any order.
//! What decides anything is in [`crate::connection`]; here are sockets, clocks and limits.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::connection::{CloseReason, Introduction, Proof};
use crate::exceptions::RpcException;
use crate::protection::Protection;

mod handler;
mod seats;
mod sparing;

use seats::Seats;
pub use sparing::Sparing;

/// The two ends of a connection, as the kernel says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub remote: SocketAddr,
    pub local: SocketAddr,
}

/// A good token: what proves it and whom it stands for.
#[derive(Clone)]
pub struct TokenProof<P> {
    pub password: Vec<u8>,
    pub principal: P,
}

impl<P: fmt::Debug> fmt::Debug for TokenProof<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenProof")
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

/// Says who a client is. The principal is the owner's own type.
pub trait Authenticator: Send + Sync + 'static {
    type Principal: Clone + fmt::Debug + Send + Sync + 'static;

    /// Who a peer is that offers no token; an exception with the remedy if that will not do.
    fn simple(
        &self,
        peer: &Peer,
    ) -> impl Future<Output = Result<Self::Principal, RpcException>> + Send;

    /// As [`Authenticator::simple`], with the socket itself: the kernel knows who owns its other end.
    fn simple_on(
        &self,
        peer: &Peer,
        socket: &TcpStream,
    ) -> impl Future<Output = Result<Self::Principal, RpcException>> + Send {
        let _ = socket;
        self.simple(peer)
    }

    /// The password of a token and whom it stands for, or why it is not good.
    fn token(
        &self,
        peer: &Peer,
        identifier: &Bytes,
    ) -> impl Future<Output = Result<TokenProof<Self::Principal>, RpcException>> + Send;

    /// Judges what the client says of itself: the protocol, and the stated user, which proves
    /// nothing. Unless told otherwise, what it says is ignored.
    fn introduced(
        &self,
        principal: Self::Principal,
        introduction: &Introduction,
    ) -> impl Future<Output = Result<Self::Principal, RpcException>> + Send {
        let _ = introduction;
        std::future::ready(Ok(principal))
    }
}

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller<P> {
    pub principal: P,
    pub peer: Peer,
    pub proof: Proof,
    pub introduction: Introduction,
}

/// Answers calls.
pub trait Service<P>: Send + Sync + 'static {
    /// `request` and the answer are messages without their length. Dropped when the connection
    /// ends before the answer: what must not stop half-way is not done in this future.
    fn call(
        &self,
        caller: &Caller<P>,
        protocol: &str,
        method: &str,
        request: Bytes,
    ) -> impl Future<Output = Result<Bytes, RpcException>> + Send;

    /// Told of every call when it is over: for the audit log. Must not block.
    fn audit(&self, caller: &Caller<P>, call: &AuditedCall<'_>, outcome: Outcome<'_>) {
        let _ = (caller, call, outcome);
    }
}

/// What was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditedCall<'a> {
    pub protocol: &'a str,
    pub method: &'a str,
    /// What the client calls itself: printable and short, and proves nothing.
    pub caller_context: Option<&'a str>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    Answered,
    Refused(&'a RpcException),
    /// The connection ended before the answer.
    Abandoned,
}

/// What a server allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections. For one more the one that has been idle for the longest has to go, those that
    /// have proven nothing first; if none is idle, the new one is closed at once.
    pub connections_max: usize,
    /// The same of one address (of IPv6: one network of 64 bits), so that no host can take all.
    pub connections_per_peer_max: usize,
    /// From the first byte to the connection context.
    pub handshake: Duration,
    /// Without a frame and without a call under way.
    pub idle: Duration,
    /// For the rest of a frame that has begun, and for an answer that the peer does not read.
    pub stall: Duration,
    /// Longest frame, bytes.
    pub frame_bytes_max: u32,
    /// Calls under way on one connection; more are not read until one is answered.
    pub connection_calls_max: usize,
    /// Calls under way on all connections; more wait for their turn.
    pub calls_max: usize,
    /// Bytes of frames longer than 16 KiB, received and not yet answered, of all connections.
    pub large_bytes_max: u32,
    /// Bytes of answers that no peer has read yet, of all connections; above it those that are far
    /// behind are cut.
    pub unread_bytes_max: usize,
    /// What is offered to clients with a token. YARN: `hadoop.rpc.protection`.
    pub protection: Protection,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_peer_max: 2048,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            stall: Duration::from_secs(30),
            frame_bytes_max: 8 * 1024 * 1024,
            connection_calls_max: 64,
            calls_max: 1024,
            large_bytes_max: 128 * 1024 * 1024,
            unread_bytes_max: 256 * 1024 * 1024,
            protection: Protection::default(),
        }
    }
}

/// Why a connection ended, for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("the peer closed it")]
    ByPeer,
    #[error("it was cut: {0}")]
    Cut(std::io::ErrorKind),
    #[error(transparent)]
    Protocol(CloseReason),
    #[error("no proof of identity within {0:?}")]
    Handshake(Duration),
    #[error("idle for {0:?}")]
    Idle(Duration),
    #[error("stalled for {0:?}")]
    Stalled(Duration),
    #[error("{0} connections are open already, and all are in use")]
    TooMany(usize),
    #[error("the longest idle one had to go: {0} connections are open")]
    Displaced(usize),
    #[error("it reads no answers: {0} bytes wait for it")]
    Unread(usize),
    #[error("the server stops")]
    Stopping,
}

impl Ended {
    /// Whether connections end so day in, day out: every call of a command line does.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        match self {
            Ended::ByPeer | Ended::Idle(_) | Ended::Stopping => true,
            Ended::Cut(_)
            | Ended::Protocol(_)
            | Ended::Handshake(_)
            | Ended::Stalled(_)
            | Ended::TooMany(_)
            | Ended::Displaced(_)
            | Ended::Unread(_) => false,
        }
    }
}

/// Hears of every connection that ended.
pub trait Observer: Send + Sync + 'static {
    fn ended(&self, peer: SocketAddr, reason: &Ended);
}

impl<F: Fn(SocketAddr, &Ended) + Send + Sync + 'static> Observer for F {
    fn ended(&self, peer: SocketAddr, reason: &Ended) {
        self(peer, reason);
    }
}

/// What the connections of a server share.
#[derive(Debug)]
struct Shared<A, S, O> {
    authenticator: A,
    service: Arc<S>,
    observer: O,
    limits: Limits,
    /// Permits of one KiB for large frames.
    large: Arc<Semaphore>,
    /// One permit a call.
    calls: Arc<Semaphore>,
    /// Bytes of answers that wait to be read, of all connections.
    unread: AtomicUsize,
}

/// Permits cover this many bytes each.
const PERMIT_BYTES: u32 = 1024;

/// Serves one port until `shutdown` is ready; then connections are cut, as clients expect of a
/// server that restarts: they connect again.
///
/// `A` may be shared between ports by being an `Arc`'s holder.
pub async fn serve<A, S, O>(
    listener: TcpListener,
    authenticator: A,
    service: Arc<S>,
    observer: O,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) where
    A: Authenticator,
    S: Service<A::Principal>,
    O: Observer,
{
    let permits = usize::try_from(limits.large_bytes_max / PERMIT_BYTES)
        .unwrap_or(Semaphore::MAX_PERMITS)
        .min(Semaphore::MAX_PERMITS);
    let shared = Arc::new(Shared {
        authenticator,
        service,
        observer,
        limits,
        large: Arc::new(Semaphore::new(permits)),
        calls: Arc::new(Semaphore::new(limits.calls_max.min(Semaphore::MAX_PERMITS))),
        unread: AtomicUsize::new(0),
    });
    let seats = Seats::new(&limits);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => match seats.take(remote.ip()) {
                    Ok(seat) => {
                        connections.spawn(handler::run(shared.clone(), stream, remote, seat));
                    }
                    Err(full) => shared.observer.ended(remote, &Ended::TooMany(full.limit)),
                },
                // Out of descriptors, most likely: some connection has to end first.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    connections.shutdown().await;
}

/// Sets what every connection wants; failures matter to nobody.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
