//! The only place where errors become YARN's `RemoteException` and an HTTP status.
//!
//! Source: `GenericExceptionHandler` of Hadoop for statuses and the form; messages of the
//! exceptions that wrap another one begin with `java.lang.Exception: ` there, and so they do here.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bobbin_rm_core::{Denied, Refusal, RefusalKind};

use super::answer::plain_headers;
use super::document::{Document, Element, Format};
use crate::driver::Failure;

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    NotFound(String),
    #[error(transparent)]
    NotAllowed(#[from] Denied),
    /// What Bobbin does not have, in words.
    #[error("{0}")]
    NotOffered(&'static str),
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error("too many lists are being read; try again")]
    Busy,
    #[error("this page takes only {0}")]
    Method(&'static str),
    #[error("Content-Type must be application/json or application/xml")]
    UnsupportedMediaType,
    #[error("only application/json and application/xml are written")]
    NotAcceptable,
}

const WEBAPP: &str = "org.apache.hadoop.yarn.webapp.";

impl Problem {
    fn class(&self) -> (StatusCode, String) {
        let webapp = |status, name: &str| (status, format!("{WEBAPP}{name}"));
        match self {
            Problem::BadRequest(_) => webapp(StatusCode::BAD_REQUEST, "BadRequestException"),
            Problem::NotFound(_) => webapp(StatusCode::NOT_FOUND, "NotFoundException"),
            Problem::NotAllowed(_) => webapp(StatusCode::FORBIDDEN, "ForbiddenException"),
            Problem::NotOffered(_) => (
                StatusCode::BAD_REQUEST,
                "java.lang.UnsupportedOperationException".to_owned(),
            ),
            Problem::Failed(Failure::Refused(refusal)) => refused(refusal),
            Problem::Failed(Failure::NotDurable(_) | Failure::Stopping | Failure::Unexpected) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "org.apache.hadoop.yarn.exceptions.YarnRuntimeException".to_owned(),
            ),
            Problem::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "org.apache.hadoop.yarn.exceptions.YarnException".to_owned(),
            ),
            Problem::Method(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "javax.ws.rs.NotAllowedException".to_owned(),
            ),
            Problem::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "javax.ws.rs.NotSupportedException".to_owned(),
            ),
            Problem::NotAcceptable => (
                StatusCode::NOT_ACCEPTABLE,
                "javax.ws.rs.NotAcceptableException".to_owned(),
            ),
        }
    }

    pub(super) fn into_response(self, format: Format) -> Response {
        let (status, class) = self.class();
        let name = class.rsplit('.').next().unwrap_or(&class).to_owned();
        // What only the operator can mend is logged here, once.
        if status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::warn!("a REST request is not done: {self}");
        }
        let message = if class.starts_with(WEBAPP) {
            format!("java.lang.Exception: {self}")
        } else {
            self.to_string()
        };
        let element = Element::new()
            .with("exception", name)
            .with("message", message)
            .with("javaClassName", class);
        let text = Document::new("RemoteException", element).write(format);
        let mut response = (status, plain_headers(format.content_type()), text).into_response();
        if let Problem::Method(allowed) = self {
            let pair: (HeaderName, HeaderValue) =
                (header::ALLOW, HeaderValue::from_static(allowed));
            response.headers_mut().insert(pair.0, pair.1);
        }
        response
    }
}

fn refused(refusal: &Refusal) -> (StatusCode, String) {
    let (status, class) = match refusal.kind() {
        RefusalKind::NotFound => (StatusCode::NOT_FOUND, "webapp.NotFoundException"),
        RefusalKind::Denied => (StatusCode::FORBIDDEN, "webapp.ForbiddenException"),
        RefusalKind::Invalid | RefusalKind::Conflict => {
            (StatusCode::BAD_REQUEST, "webapp.BadRequestException")
        }
        RefusalKind::Exhausted => (StatusCode::SERVICE_UNAVAILABLE, "exceptions.YarnException"),
        RefusalKind::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "exceptions.YarnRuntimeException",
        ),
    };
    (status, format!("org.apache.hadoop.yarn.{class}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(problem: Problem, format: Format) -> (u16, String) {
        let response = problem.into_response(format);
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 10_000)
            .await
            .unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_documentations_example_of_a_bad_request() {
        let words = "Only 'KILLED' is allowed as a target state.";
        let xml = concat!(
            r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><RemoteException>"#,
            "<exception>BadRequestException</exception>",
            "<message>java.lang.Exception: Only &#39;KILLED&#39; is allowed as a target state.</message>",
            "<javaClassName>org.apache.hadoop.yarn.webapp.BadRequestException</javaClassName>",
            "</RemoteException>"
        );
        assert_eq!(
            shown(Problem::BadRequest(words.to_owned()), Format::Xml).await,
            (400, xml.to_owned())
        );
        let json = concat!(
            r#"{"RemoteException":{"exception":"NotFoundException","#,
            r#""message":"java.lang.Exception: gone","#,
            r#""javaClassName":"org.apache.hadoop.yarn.webapp.NotFoundException"}}"#
        );
        assert_eq!(
            shown(Problem::NotFound("gone".to_owned()), Format::Json).await,
            (404, json.to_owned())
        );
    }

    #[tokio::test]
    async fn each_refusal_has_its_status() {
        for (problem, status) in [
            (Problem::NotOffered("no"), 400),
            (Problem::Failed(Failure::Stopping), 503),
            (
                Problem::Failed(Failure::Refused(Refusal::UnknownApplication("x".into()))),
                404,
            ),
            (Problem::Failed(Failure::Refused(Refusal::Recovering)), 503),
            (Problem::Failed(Failure::Refused(Refusal::NoProgram)), 400),
            (Problem::Busy, 503),
            (Problem::Method("GET"), 405),
            (Problem::UnsupportedMediaType, 415),
            (Problem::NotAcceptable, 406),
        ] {
            assert_eq!(shown(problem, Format::Json).await.0, status);
        }
    }
}
