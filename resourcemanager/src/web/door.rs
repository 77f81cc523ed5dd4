//! The listener and its limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bobbin_service::socket_owner;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::caller::{Origin, unknown_caller};
use super::webhdfs;
use crate::file_tree::Files;
use crate::grpc::identify::Doorkeeper;
use crate::minter::Minter;

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

/// What every request needs.
#[derive(Clone, Debug)]
pub(crate) struct Web {
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) minter: Minter,
    pub(crate) files: Files,
    /// As bound.
    pub(crate) address: SocketAddr,
}

/// Binds `host:port`; port 0 takes a free one.
///
/// # Errors
/// The address is malformed, taken, or not this host's.
pub(crate) async fn bind(listen: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen} (http.listen)"))?;
    let address = listener
        .local_addr()
        .with_context(|| format!("cannot tell the port of {listen}"))?;
    Ok((listener, address))
}

fn router(web: Web) -> Router {
    Router::new()
        .route("/webhdfs/v1", any(webhdfs::handle))
        .route("/webhdfs/v1/", any(webhdfs::handle))
        .route("/webhdfs/v1/{*path}", any(webhdfs::handle))
        .fallback(nothing_here)
        .with_state(Arc::new(web))
}

/// Nobody unproven learns which pages there are.
async fn nothing_here(
    axum::extract::State(web): axum::extract::State<Arc<Web>>,
    request: Request<Body>,
) -> Response {
    let (parts, _) = request.into_parts();
    match web.principal(&parts, None) {
        Ok(_) => (StatusCode::NOT_FOUND, "There is no such page.\n").into_response(),
        Err(unproven) => unknown_caller(&unproven),
    }
}

/// Serves until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, web: Web, stop: CancellationToken) {
    let router = router(web);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
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
            tracing::warn!(%peer, "too many HTTP connections: one is closed");
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, peer, router, stop).await;
            drop(permit);
        });
    }
    connections.close();
    // What still runs is cut off by the end of the process.
    drop(tokio::time::timeout(STOP_GRACE, connections.wait()).await);
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    // Small answers must not wait for the peer's acknowledgement.
    drop(stream.set_nodelay(true));
    // Asked once, at the start: later the peer may have closed its end, which then proves nothing.
    let origin = match stream.local_addr() {
        Ok(local) => Origin::of(local, peer, socket_owner(&stream, local, peer)),
        Err(_) => return,
    };
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(origin.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
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
