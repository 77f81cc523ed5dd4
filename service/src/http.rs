//! An HTTP door of a daemon: its listener and limits, and who stands before it.
//!
//! One task a connection, HTTP/1.1 only, because that is what Hadoop's clients and browsers speak.
//! Nothing that a request says about its sender is believed: see [`caller`].

pub mod answer;
pub mod caller;
pub mod document;
mod pace;
mod seats;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::socket_owner::socket_owner;
use caller::Origin;
use pace::{Pace, PacedBody, Taken};
pub use pace::{Patience, SlowBody};
use seats::{Holder, Seats};

/// Connections at a time; further ones are closed at once.
const CONNECTIONS_MAX: usize = 4_096;
/// Request line and headers together, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
/// For a whole head, and between two requests.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// After the stop began, requests that still run get this long.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// Pause after a failed accept (no free descriptors): trying again at once would only burn cpu.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds `host:port`; port 0 takes a free one.
///
/// # Errors
/// The address is malformed, taken, or not this host's.
pub async fn bind(listen: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen} (http.listen)"))?;
    let address = listener
        .local_addr()
        .with_context(|| format!("cannot tell the port of {listen}"))?;
    Ok((listener, address))
}

/// Serves until `stop` is cancelled. Every request carries its connection's [`Origin`] as an
/// extension, and the [`Patience`] of its body.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    serve_at(Pace::default(), listener, router, stop).await;
}

async fn serve_at(pace: Pace, listener: TcpListener, router: Router, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let seats = Arc::new(Seats::default());
    let connections = TaskTracker::new();
    // Said once for a time in which there is no room.
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("accept failed: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            if !std::mem::replace(&mut full, true) {
                tracing::warn!(%peer, "{CONNECTIONS_MAX} HTTP connections: further ones are closed");
            }
            continue;
        };
        full = false;
        let (router, seats, stop) = (router.clone(), seats.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, peer, (router, seats, pace), stop).await;
            drop(permit);
        });
    }
    connections.close();
    // What still runs is cut off by the end of the process.
    drop(tokio::time::timeout(STOP_GRACE, connections.wait()).await);
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    (router, seats, pace): (Router, Arc<Seats>, Pace),
    stop: CancellationToken,
) {
    // Small answers must not wait for the peer's acknowledgement.
    drop(stream.set_nodelay(true));
    // Asked once, at the start: later the peer may have closed its end, which then proves nothing.
    let origin = match stream.local_addr() {
        Ok(local) => Origin::of(local, peer, socket_owner(&stream, local, peer)),
        Err(_) => return,
    };
    let Some(_seat) = seats.take(Holder::of(&origin, peer.ip().to_canonical())) else {
        tracing::debug!(%peer, "a caller with too many HTTP connections: one is closed");
        return;
    };
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        let patience = Patience::default();
        request.extensions_mut().insert(origin.clone());
        request.extensions_mut().insert(patience.clone());
        let paced = request.map(|body| Body::new(PacedBody::new(body, pace, patience)));
        router.clone().oneshot(paced)
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let mut serving =
        std::pin::pin!(http.serve_connection(TokioIo::new(Taken::new(stream, &pace)), service));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(%peer, "an HTTP connection ended early: {e}");
    }
}
