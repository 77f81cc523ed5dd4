//! The one place where this door's errors become YARN's `RemoteException` and a status.
//!
//! Source: `GenericExceptionHandler` of Hadoop.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bobbin_service::http::answer::{answer, plain_headers};
use bobbin_service::http::document::{Document, Element, Format};

use crate::logs::LogError;

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    NotAllowed(String),
    #[error("only application/json and application/xml are written")]
    NotAcceptable,
    #[error(transparent)]
    Log(LogError),
    #[error("the node agent stops")]
    Stopping,
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Problem {
        match error {
            LogError::NotFound { .. } => Problem::NotFound(error.to_string()),
            LogError::Name(_) | LogError::NotPlain { .. } => Problem::BadRequest(error.to_string()),
            LogError::Io { .. } => Problem::Log(error),
        }
    }
}

impl Problem {
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Problem::BadRequest(_) => (StatusCode::BAD_REQUEST, "BadRequestException"),
            Problem::NotFound(_) => (StatusCode::NOT_FOUND, "NotFoundException"),
            Problem::NotAllowed(_) => (StatusCode::FORBIDDEN, "ForbiddenException"),
            Problem::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "BadRequestException"),
            Problem::Log(_) | Problem::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, "WebAppException")
            }
        }
    }

    /// As a REST client reads it.
    pub(super) fn document(&self, format: Format) -> Response {
        let (status, name) = self.status();
        let element = Element::new()
            .with("exception", name)
            .with("message", format!("java.lang.Exception: {self}"))
            .with(
                "javaClassName",
                format!("org.apache.hadoop.yarn.webapp.{name}"),
            );
        answer(status, &Document::new("RemoteException", element), format)
    }

    /// As a person reads it.
    pub(super) fn text(&self) -> Response {
        let (status, _) = self.status();
        let headers = plain_headers("text/plain;charset=utf-8");
        (status, headers, format!("{self}\n")).into_response()
    }
}
