//! YARN's REST below `/ws/v1/cluster`: what tools around Hadoop read and do.
//!
//! Every request is proven, also one that only reads. What it asks for is asked of the core, which
//! answers every door alike; only the form is YARN's, JSON or XML.
//! Source: `RMWebServices` and the "ResourceManager REST APIs" of Apache Hadoop 3.3.

mod answer;
mod application;
mod change;
mod cluster;
mod document;
mod input;
mod list;
mod parts;
mod problem;
mod query;
mod read;
mod resources;
#[cfg(test)]
pub(super) mod samples;
mod submit;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{Method, Request, header};
use axum::response::{IntoResponse, Response};
use bobbin_rm_core::view::ApplicationReport;
use bobbin_rm_core::{Object, Operation, Principal};
use bobbin_service::http::caller::unknown_caller;
use bobbin_service::wall_now;
use bobbin_types::{ApplicationId, AttemptId, ContainerId};
use percent_encoding::percent_decode_str;

pub(super) use answer::plain_headers;
pub(super) use application::{Frame, diagnostics, is_tracked, logs_url};
pub(super) use document::push_xml_text;

use super::browser;
use super::door::Web;
use crate::grpc::identify::decide;
use crate::yarn::report::authority;
use answer::accepted;
use document::Format;
use problem::Problem;
use query::Query;

/// All that some page takes.
const METHODS: &str = "GET, HEAD, OPTIONS, POST, PUT";
const PREFIX: &str = "/ws/v1/cluster";
/// Parts of a path, at most.
const SEGMENTS_MAX: usize = 8;

const ACTIVITIES: &str = "scheduler activities are not recorded by Bobbin: 'bobbin app why ID' says \
     why an application waits, and so do the diagnostics of apps/ID";
const RESERVATIONS: &str = "reservations are not offered by Bobbin: submit without one";
const TOKENS: &str = "delegation tokens are not handed out, renewed or canceled over HTTP: run 'bobbin \
     token create --hadoop FILE' on the resource manager's host, or ask getDelegationToken there";
const LABELS: &str = "node labels cannot be changed here";
const SCHEDULER_CHANGES: &str =
    "queues and the scheduler are changed in the resource manager's settings, not here";

/// One proven request.
struct Call {
    web: Arc<Web>,
    parts: Parts,
    principal: Principal,
    format: Format,
    query: Query,
}

/// Answers every request below `/ws/v1/cluster`.
pub(super) async fn handle(State(web): State<Arc<Web>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let format = accepted(&parts.headers);
    let shown = format.unwrap_or(Format::Json);
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let delegation = query.as_ref().ok().and_then(|q| q.get("delegation"));
    let principal = match web.principal(&parts, delegation).await {
        Ok(principal) => principal,
        Err(unproven) => return unknown_caller(&unproven),
    };
    // How Hadoop's own client asks who it is before it asks for anything else.
    // Source: `KerberosAuthenticator.authenticate`.
    if parts.method == Method::OPTIONS {
        return ([(header::ALLOW, METHODS)], ()).into_response();
    }
    let answered = match (query, format) {
        (Err(problem), _) => Err(problem),
        (Ok(_), None) => Err(Problem::NotAcceptable),
        (Ok(query), Some(format)) => {
            let call = Call {
                web,
                parts,
                principal,
                format,
                query,
            };
            call.run(body).await
        }
    };
    answered.unwrap_or_else(|problem| problem.into_response(shown))
}

impl Call {
    async fn run(self, body: Body) -> Result<Response, Problem> {
        let segments = segments(self.parts.uri.path())?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["apps", rest @ ..] => self.apps(rest, body).await,
            ["nodes", rest @ ..] => match rest {
                [] => self.get()?.nodes().await,
                [node] => self.get()?.node(node).await,
                [_, "resource"] => Err(Problem::NotOffered(SCHEDULER_CHANGES)),
                _ => Err(nowhere()),
            },
            [] | ["info"] => self.get()?.info().await,
            ["metrics"] => self.get()?.metrics().await,
            ["scheduler"] => self.get()?.scheduler().await,
            [
                "scheduler",
                "activities" | "app-activities" | "bulk-activities" | "logs",
                ..,
            ] => Err(Problem::NotOffered(ACTIVITIES)),
            ["scheduler-conf", ..] => Err(Problem::NotOffered(SCHEDULER_CHANGES)),
            ["appstatistics"] => self.get()?.statistics().await,
            ["userinfo"] => self.get()?.user_info(),
            ["containers", container, "signal", command] => match self.parts.method {
                Method::POST => self.signal(container, command).await,
                _ => Err(Problem::Method("POST")),
            },
            ["delegation-token", ..] => Err(Problem::NotOffered(TOKENS)),
            ["reservation", ..] => Err(Problem::NotOffered(RESERVATIONS)),
            [
                "get-node-labels"
                | "get-node-to-labels"
                | "label-mappings"
                | "replace-node-to-labels"
                | "add-node-labels"
                | "remove-node-labels",
                ..,
            ] => Err(Problem::NotOffered(LABELS)),
            _ => Err(nowhere()),
        }
    }

    async fn apps(self, rest: &[&str], body: Body) -> Result<Response, Problem> {
        let is_put = self.parts.method == Method::PUT;
        match rest {
            [] if self.parts.method == Method::POST => self.submit(body).await,
            [] => self.reads("GET, POST")?.list().await,
            ["new-application"] if self.parts.method == Method::POST => {
                self.new_application().await
            }
            ["new-application"] => Err(Problem::Method("POST")),
            [app] => self.get()?.application(app).await,
            [app, "state"] if is_put => self.set_state(app, body).await,
            [app, "state"] => self.reads("GET, PUT")?.state(app).await,
            [app, "queue"] if is_put => self.set_queue(app, body).await,
            [app, "queue"] => self.reads("GET, PUT")?.queue(app).await,
            [app, "priority"] if is_put => self.set_priority(app, body).await,
            [app, "priority"] => self.reads("GET, PUT")?.priority(app).await,
            [app, "timeout"] if is_put => self.set_timeout(app, body).await,
            [_, "timeout"] => Err(Problem::Method("PUT")),
            [app, "timeouts"] => self.get()?.timeouts(app).await,
            [app, "timeouts", kind] => self.get()?.timeout(app, kind).await,
            [app, "appattempts"] => self.get()?.attempts(app).await,
            [app, "appattempts", attempt] => self.get()?.attempt(app, attempt).await,
            [app, "appattempts", attempt, "containers"] => {
                self.get()?.containers(app, attempt).await
            }
            [app, "appattempts", attempt, "containers", container] => {
                self.get()?.container(app, attempt, container).await
            }
            _ => Err(nowhere()),
        }
    }

    fn get(self) -> Result<Call, Problem> {
        self.reads("GET")
    }

    /// # Errors
    /// It is another method than GET and HEAD; `allowed` are the page's.
    fn reads(self, allowed: &'static str) -> Result<Call, Problem> {
        match self.parts.method {
            Method::GET | Method::HEAD => Ok(self),
            _ => Err(Problem::Method(allowed)),
        }
    }

    /// `http://host:port` of this door, as the caller reaches it.
    fn base(&self) -> String {
        base(&self.web, &self.parts)
    }

    fn may(&self, operation: Operation) -> Result<(), Problem> {
        Ok(decide(&self.principal, operation, &Object::Cluster)?)
    }

    /// Whether the caller may do `operation` to the application; the id is read and known.
    async fn may_do(
        &self,
        application: &str,
        operation: Operation,
    ) -> Result<ApplicationId, Problem> {
        let id = application_id(application)?;
        let rights = self.web.driver.read(move |core| core.rights(id)).await?;
        let rights = rights.ok_or_else(|| unknown_application(application))?;
        decide(&self.principal, operation, &rights.object())?;
        Ok(id)
    }

    async fn report(&self, id: ApplicationId) -> Result<ApplicationReport, Problem> {
        let report = self
            .web
            .driver
            .read(move |core| core.application(id))
            .await?;
        report.ok_or_else(|| Problem::NotFound(format!("app with id: {id} not found")))
    }

    async fn frame(&self) -> Result<Frame, Problem> {
        Ok(Frame {
            base: self.base(),
            now: wall_now(),
            total: self.web.driver.read(|core| core.cluster().total).await?,
            unwanted: application::unwanted(&self.query)?,
        })
    }
}

/// `http://host:port` of the door, as the caller reaches it. A stated name is said back only where
/// the door has no address of its own; an application's own name leads to the door's.
pub(super) fn base(web: &Web, parts: &Parts) -> String {
    let host = parts.headers.get(header::HOST);
    let named = host.and_then(|host| host.to_str().ok()).filter(|host| {
        web.address.ip().is_unspecified()
            && host.len() < 256
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
    });
    match named {
        Some(host) if browser::is_applications(host) => {
            format!("http://localhost{}", browser::port_of(&parts.headers))
        }
        Some(host) => format!("http://{host}"),
        None => format!("http://{}", authority(web.address)),
    }
}

fn segments(path: &str) -> Result<Vec<String>, Problem> {
    let rest = path.strip_prefix(PREFIX).unwrap_or_default();
    let segments: Vec<&str> = rest.split('/').filter(|s| !s.is_empty()).collect();
    if segments.len() > SEGMENTS_MAX {
        return Err(nowhere());
    }
    let decoded = segments.into_iter().map(|segment| {
        let text = percent_decode_str(segment).decode_utf8();
        text.map(std::borrow::Cow::into_owned)
            .map_err(|_| nowhere())
    });
    decoded.collect()
}

fn nowhere() -> Problem {
    Problem::NotFound("there is no such page".to_owned())
}

fn unknown_application(text: &str) -> Problem {
    Problem::NotFound(format!("app with id: {} not found", query::shown(text)))
}

fn application_id(text: &str) -> Result<ApplicationId, Problem> {
    text.parse().map_err(|e: bobbin_types::IdError| {
        Problem::BadRequest(format!("Invalid ApplicationId: {e}"))
    })
}

fn attempt_id(application: ApplicationId, text: &str) -> Result<AttemptId, Problem> {
    let id: AttemptId = text.parse().map_err(|e: bobbin_types::IdError| {
        Problem::BadRequest(format!("Invalid ApplicationAttemptId: {e}"))
    })?;
    if id.application == application {
        Ok(id)
    } else {
        Err(Problem::NotFound(format!(
            "{id} is not one of {application}"
        )))
    }
}

fn container_id(text: &str) -> Result<ContainerId, Problem> {
    text.parse().map_err(|e: bobbin_types::IdError| {
        Problem::BadRequest(format!("Invalid ContainerId: {e}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_and_decoded() {
        let of = |path| segments(path).ok();
        assert_eq!(of("/ws/v1/cluster"), Some(vec![]));
        assert_eq!(of("/ws/v1/cluster/"), Some(vec![]));
        assert_eq!(
            of("/ws/v1/cluster/nodes/h2%3A1235/"),
            Some(vec!["nodes".to_owned(), "h2:1235".to_owned()])
        );
        assert_eq!(of("/ws/v1/cluster/%FF"), None);
        assert_eq!(of(&format!("/ws/v1/cluster{}", "/a".repeat(20))), None);
    }

    #[test]
    fn an_attempt_belongs_to_its_application() {
        let id = samples::ID;
        assert!(attempt_id(id, "appattempt_1326815542473_0001_000001").is_ok());
        assert!(attempt_id(id, "appattempt_1326815542473_0002_000001").is_err());
        assert!(attempt_id(id, "x").is_err() && application_id("x").is_err());
        assert!(container_id("container_x").is_err());
    }
}
