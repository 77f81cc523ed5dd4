//! The routes of the door, and what every request needs.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bobbin_service::http::caller::unknown_caller;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::proxy::Seats;
use super::{metrics, pages, proxy, rest, webhdfs};
use crate::driver::DriverHandle;
use crate::file_tree::Files;
use crate::grpc::identify::Doorkeeper;
use crate::minter::Minter;

/// What every request needs.
#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) driver: DriverHandle,
    pub(crate) minter: Minter,
    pub(crate) files: Files,
    /// As bound.
    pub(crate) address: SocketAddr,
    /// When this process began, Unix milliseconds.
    pub(crate) started_ms: u64,
    /// host:port of every door of this daemon: the proxy asks none of them.
    pub(crate) doors: Vec<String>,
    /// Of requests that are being forwarded.
    pub(crate) seats: Seats,
    /// Of lists that are being read.
    pub(crate) lists: Seats,
    /// Of files that are being written.
    pub(crate) writes: Seats,
}

impl Web {
    /// `http://host:port` of this door, as the caller reaches it; from an application's own host
    /// name, too, it leads to the door's.
    pub(super) fn own_base(&self, parts: &Parts) -> String {
        rest::base(self, parts)
    }
}

fn router(web: Web) -> Router {
    Router::new()
        .route("/", any(pages::handle))
        .route("/cluster", any(pages::handle))
        .route("/cluster/{*path}", any(pages::handle))
        .route("/metrics", any(metrics::handle))
        .route("/proxy/{*path}", any(proxy::handle))
        .route("/ws/v1/cluster", any(rest::handle))
        .route("/ws/v1/cluster/", any(rest::handle))
        .route("/ws/v1/cluster/{*path}", any(rest::handle))
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
    match web.principal(&parts, None).await {
        Ok(_) => (StatusCode::NOT_FOUND, "There is no such page.\n").into_response(),
        Err(unproven) => unknown_caller(&unproven),
    }
}

/// Serves until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, web: Web, stop: CancellationToken) {
    bobbin_service::http::serve(listener, router(web), stop).await;
}
