//! WebHDFS: the REST operations that Hadoop's own client uses, over the file tree.
//!
//! Source: the WebHDFS REST API of Apache Hadoop 3.3, `NamenodeWebHdfsMethods`. Data goes in two
//! steps as there: the first answers 307 with the place to send to, which is this door again.

mod answer;
mod change;
mod data;
mod operation;
mod problem;
mod request;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use bobbin_rm_core::{Object, Principal};
use bobbin_types::UserName;
use tokio::task::spawn_blocking;

use super::caller::{Tenant, person};
use super::door::Web;
use crate::file_tree::{Files, FilesError, Person, TreePath};
use crate::grpc::identify::decide;
use operation::Operation;
use problem::Problem;
use request::Query;

/// One proven and authorized request.
struct Call {
    web: Arc<Web>,
    parts: axum::http::request::Parts,
    query: Query,
    operation: Operation,
    path: TreePath,
    person: Arc<Person>,
    /// Proven by the socket, not by a token.
    by_socket: bool,
}

/// Answers every request below `/webhdfs/v1`.
pub(super) async fn handle(State(web): State<Arc<Web>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    match begin(web, parts).await {
        Ok(call) => {
            let named = (call.person.clone(), call.operation, call.path.to_string());
            let answer = call.run(body).await;
            if let Err(Problem::Files(FilesError::Denied(words))) = &answer {
                let (person, operation, path) = named;
                tracing::info!(target: "audit", principal = person.name, ?operation, path,
                    result = "denied", "{words}");
            }
            answer.unwrap_or_else(IntoResponse::into_response)
        }
        Err(problem) => problem.into_response(),
    }
}

/// Proves the caller before anything else is said.
async fn begin(web: Arc<Web>, parts: axum::http::request::Parts) -> Result<Call, Problem> {
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let delegation = query.as_ref().ok().and_then(|q| q.get("delegation"));
    let principal = web
        .principal(&parts, delegation)
        .await
        .map_err(Problem::Unproven)?;
    let by_socket = delegation.is_none()
        && !parts
            .headers
            .contains_key(axum::http::header::AUTHORIZATION);
    let query = query?;
    let operation = Operation::parse(&parts.method, query.get("op").unwrap_or_default())?;
    let path = request::path(parts.uri.path())?;
    let shown = path.to_string();
    decide(&principal, operation.authority(), &Object::File(&shown))
        .map_err(Problem::NotAllowed)?;
    let (name, administrator) = match principal {
        Principal::User { .. } => acting(&web, &principal, query.get("doas"))?,
        // As its application's user; what it may do the authority function has seen to.
        Principal::Container(container) | Principal::Tenant(container) => {
            let given = query.get("delegation");
            match web.tenant(container, &parts, given).await {
                Tenant::User(name) => (name, false),
                Tenant::Gone => return Err(Problem::NoContainer(container)),
                Tenant::NotBack => return Err(Problem::NotBack),
            }
        }
        Principal::Attempt(_) | Principal::Node(_) => {
            return Err(Problem::Argument("only users have files".to_owned()));
        }
    };
    let person = blocking(move || Ok(person(name.as_str(), administrator))).await?;
    Ok(Call {
        web,
        parts,
        query,
        operation,
        path,
        person: Arc::new(person),
        by_socket,
    })
}

/// As whom a user acts: as himself, or for another one (`doas`, what `--proxy-user` becomes) if he
/// may have that one's token.
fn acting(
    web: &Web,
    caller: &Principal,
    wanted: Option<&str>,
) -> Result<(UserName, bool), Problem> {
    let Principal::User {
        name,
        administrator,
        ..
    } = caller
    else {
        return Err(Problem::Argument("only users have files".to_owned()));
    };
    let Some(wanted) = wanted else {
        return Ok((name.clone(), *administrator));
    };
    let refused = |words: String| Problem::NoProxy(words);
    let named: UserName = wanted
        .parse()
        .map_err(|e: bobbin_types::NameError| refused(e.to_string()))?;
    let user = web.doorkeeper.submitter_called(named);
    if user == *name {
        return Ok((user, *administrator));
    }
    let own = bobbin_rm_core::Operation::CreateUserToken;
    decide(caller, own, &Object::User(&user)).map_err(|_| {
        refused(format!(
            "user {name} may not act for {user}: get a token of that user instead"
        ))
    })?;
    Ok((user, false))
}

/// Runs file work off the runtime's own threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, Problem> {
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(Problem::Files),
        Err(_) => Err(Problem::CutOff("the resource manager stops".to_owned())),
    }
}

impl Call {
    /// Does file work as the caller.
    async fn files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files, &Person, &TreePath) -> Result<T, FilesError> + Send + 'static,
    ) -> Result<T, Problem> {
        let (files, person, path) = (
            self.web.files.clone(),
            self.person.clone(),
            self.path.clone(),
        );
        blocking(move || work(&files, &person, &path)).await
    }

    async fn run(self, body: Body) -> Result<Response, Problem> {
        match self.operation {
            Operation::Create => self.create(body).await,
            Operation::Append => self.append(body).await,
            Operation::Open => self.open().await,
            Operation::GetFileStatus => self.file_status().await,
            Operation::ListStatus => self.list().await,
            Operation::ListStatusBatch => self.list_batch().await,
            Operation::GetContentSummary => self.content_summary().await,
            Operation::GetQuotaUsage => self.quota_usage().await,
            Operation::GetFileChecksum => self.checksum().await,
            Operation::GetHomeDirectory => Ok(self.home()),
            Operation::GetTrashRoot => Ok(self.trash_root()),
            Operation::GetServerDefaults => Ok(answer::server_defaults()),
            Operation::GetBlockLocations => self.located_blocks().await,
            Operation::GetFileBlockLocations => self.block_locations().await,
            Operation::CheckAccess => self.check_access().await,
            Operation::GetDelegationToken => self.make_token(),
            Operation::RenewDelegationToken => self.renew_token(),
            Operation::CancelDelegationToken => self.cancel_token().await,
            Operation::MkDirs => self.make_folders().await,
            Operation::Rename => self.rename().await,
            Operation::Delete => self.delete().await,
            Operation::SetPermission => self.set_permission().await,
            Operation::SetOwner => self.set_owner().await,
            Operation::SetTimes => self.set_times().await,
            Operation::SetReplication => self.set_replication().await,
        }
    }
}
