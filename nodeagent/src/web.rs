//! The agent's HTTP door: YARN's `/ws/v1/node`, the pages of containers' logs, metrics.
//!
//! Reading only. Every request is proven first; a user sees what is his own, an administrator all.
//! Deliberately absent: a question to the resource manager about who owns what (a container's user
//! is known here), and any file but plain ones in a container's own log folder.

mod caller;
mod html;
mod log_page;
mod log_text;
mod metrics;
mod moment;
mod problem;
mod rest;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bobbin_service::http::caller::unknown_caller;
use bobbin_service::wall_now;
use bobbin_types::{ContainerId, WallMillis};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::driver::Input;
use crate::logs::LogError;
use crate::node::Node;
use caller::{Caller, Known};
use problem::Problem;

/// What every request needs.
struct Web {
    node: Arc<Node>,
    driver: mpsc::Sender<Input>,
    started: WallMillis,
    /// Users' tokens that the resource manager has vouched for lately.
    known: Known,
}

fn router(web: Arc<Web>) -> Router {
    Router::new()
        .route("/", get(async || Redirect::temporary("/node")))
        .route("/node", get(html::node))
        .route("/node/", get(html::node))
        .route("/node/containerlogs/{container}/{user}", get(html::files))
        .route("/node/containerlogs/{container}/{user}/", get(html::files))
        .route(
            "/node/containerlogs/{container}/{user}/{file}",
            get(log_page::page),
        )
        .route(
            "/node/containerlogs/{container}/{user}/{file}/",
            get(log_page::page),
        )
        .route("/ws/v1/node", get(rest::info))
        .route("/ws/v1/node/", get(rest::info))
        .route("/ws/v1/node/info", get(rest::info))
        .route("/ws/v1/node/apps", get(rest::applications))
        .route("/ws/v1/node/apps/{id}", get(rest::application))
        .route("/ws/v1/node/containers", get(rest::containers))
        .route("/ws/v1/node/containers/{id}", get(rest::container))
        .route("/ws/v1/node/containers/{id}/logs", get(rest::logs))
        .route(
            "/ws/v1/node/containers/{id}/logs/{file}",
            get(log_text::text),
        )
        .route("/ws/v1/node/containerlogs/{id}/{file}", get(log_text::text))
        .route(
            "/ws/v1/node/auxiliaryservices",
            get(rest::auxiliary_services),
        )
        .route("/metrics", get(metrics::metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "There is no such page.\n"))
        .layer(from_fn_with_state(web.clone(), proven))
        .with_state(web)
}

/// Nobody unproven learns even which pages there are.
async fn proven(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match web.prove(&parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(unproven) => {
            tracing::info!(target: "audit", result = %unproven, "refused");
            unknown_caller(&unproven).into_response()
        }
    }
}

/// Serves until `stop` is cancelled.
pub(crate) async fn serve(
    listener: TcpListener,
    node: Arc<Node>,
    driver: mpsc::Sender<Input>,
    stop: CancellationToken,
) {
    let web = Web {
        node,
        driver,
        started: wall_now(),
        known: Known::default(),
    };
    bobbin_service::http::serve(listener, router(Arc::new(web)), stop).await;
}

impl Web {
    /// Checks that the caller may read a container's logs.
    async fn authorize_logs(&self, caller: &Caller, id: ContainerId) -> Result<(), Problem> {
        let logs = self.node.logs.clone();
        let owner = tokio::task::spawn_blocking(move || logs.owner(&id))
            .await
            .map_err(|_| Problem::Stopping)?
            .map_err(|source| {
                Problem::Log(LogError::Io {
                    container: id,
                    file: "the log folder".to_owned(),
                    source,
                })
            })?;
        if caller.may_read_logs(&id, owner) {
            return Ok(());
        }
        tracing::warn!(target: "audit", operation = "read-log", object = %id, %caller, result = "denied");
        // Who may not read it does not learn either whether it is here.
        Err(Problem::NotAllowed(format!(
            "{caller} may not read logs of {id}: only its user and administrators may"
        )))
    }
}

/// Reads a container's id out of a path.
fn container_id(text: &str) -> Result<ContainerId, Problem> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
        Problem::BadRequest(format!("invalid container id, {shown}"))
    })
}

#[cfg(test)]
mod tests;
