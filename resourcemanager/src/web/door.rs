//! The routes of the door, and what every request needs.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bobbin_service::http::caller::unknown_caller;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::webhdfs;
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
    bobbin_service::http::serve(listener, router(web), stop).await;
}
