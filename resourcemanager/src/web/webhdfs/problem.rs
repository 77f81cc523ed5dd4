//! The only place where errors become the exception classes that Hadoop's client acts on.
//!
//! Source: `ExceptionHandler` of Hadoop's WebHDFS for statuses, `JsonUtilClient` for the form.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bobbin_rm_core::Denied;
use bobbin_service::TokenError;
use bobbin_service::http::caller::{Unproven, unknown_caller};
use bobbin_types::ContainerId;
use hyper::ext::ReasonPhrase;
use serde_json::json;

use crate::file_tree::FilesError;

/// Why a request is not done.
#[derive(Debug)]
pub(super) enum Problem {
    Unproven(Unproven),
    NotAllowed(Denied),
    /// A token given as an argument, not as a proof.
    Token(TokenError),
    NoProxy(String),
    /// A container's token, and no such container on its node.
    NoContainer(ContainerId),
    /// A container's token, and its node has not come back since the restart.
    NotBack,
    /// Too many of the user's files are being written.
    Busy,
    Argument(String),
    NotOffered(String),
    Files(FilesError),
    /// The other end, or this daemon, went away.
    CutOff(String),
}

const IO: &str = "java.io.IOException";
const ACCESS: &str = "org.apache.hadoop.security.AccessControlException";
const ARGUMENT: &str = "java.lang.IllegalArgumentException";
const INVALID_TOKEN: &str = "org.apache.hadoop.security.token.SecretManager$InvalidToken";

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        match self {
            // The client asks for a new token, or tells its user, by the class of the exception.
            Problem::Unproven(Unproven::Token(e)) | Problem::Token(e) => {
                let words = e.to_string();
                let mut response = remote(StatusCode::UNAUTHORIZED, INVALID_TOKEN, &words);
                // Of a 401 Hadoop's client shows its user the reason phrase only.
                if let Ok(reason) = ReasonPhrase::try_from(words.into_bytes()) {
                    response.extensions_mut().insert(reason);
                }
                response
            }
            Problem::Unproven(unproven @ Unproven::Nothing(_)) => unknown_caller(&unproven),
            Problem::NotAllowed(denied) => {
                remote(StatusCode::FORBIDDEN, ACCESS, &denied.to_string())
            }
            Problem::NoProxy(words) => remote(
                StatusCode::FORBIDDEN,
                "org.apache.hadoop.security.authorize.AuthorizationException",
                &words,
            ),
            Problem::NoContainer(container) => remote(
                StatusCode::FORBIDDEN,
                ACCESS,
                &format!("{container} does not live on the node whose token this is"),
            ),
            Problem::NotBack => remote(
                StatusCode::SERVICE_UNAVAILABLE,
                "org.apache.hadoop.ipc.RetriableException",
                "the container's node is not connected yet: ask again",
            ),
            Problem::Busy => remote(
                StatusCode::SERVICE_UNAVAILABLE,
                "org.apache.hadoop.ipc.RetriableException",
                "too many files are being written at a time: close some, or try again later",
            ),
            Problem::Argument(words) => remote(StatusCode::BAD_REQUEST, ARGUMENT, &words),
            Problem::NotOffered(words) => remote(
                StatusCode::BAD_REQUEST,
                "java.lang.UnsupportedOperationException",
                &words,
            ),
            Problem::CutOff(words) => remote(StatusCode::FORBIDDEN, IO, &words),
            Problem::Files(error) => files(error),
        }
    }
}

fn files(error: FilesError) -> Response {
    let (status, class) = match &error {
        FilesError::InvalidPath(_) => (
            StatusCode::BAD_REQUEST,
            "org.apache.hadoop.HadoopIllegalArgumentException",
        ),
        FilesError::Illegal(_) => (StatusCode::FORBIDDEN, IO),
        FilesError::NotFound(_) | FilesError::IsAFolder(_) => {
            (StatusCode::NOT_FOUND, "java.io.FileNotFoundException")
        }
        FilesError::NotAFolder(_) => (
            StatusCode::FORBIDDEN,
            "org.apache.hadoop.fs.ParentNotDirectoryException",
        ),
        FilesError::Exists(_) => (
            StatusCode::FORBIDDEN,
            "org.apache.hadoop.fs.FileAlreadyExistsException",
        ),
        FilesError::NotEmpty(_) => (
            StatusCode::FORBIDDEN,
            "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException",
        ),
        FilesError::Denied(_) => (StatusCode::FORBIDDEN, ACCESS),
        FilesError::BeingWritten(_) => (
            StatusCode::FORBIDDEN,
            "org.apache.hadoop.hdfs.protocol.AlreadyBeingCreatedException",
        ),
        FilesError::TooLarge { .. } => (
            StatusCode::FORBIDDEN,
            "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException",
        ),
        FilesError::DiskFull | FilesError::Io { .. } => {
            // What only the operator can mend is logged here, once; its paths are his alone.
            let chain = anyhow::Error::new(error);
            tracing::error!(error = format!("{chain:#}"), "the file tree failed");
            return remote(
                StatusCode::FORBIDDEN,
                IO,
                "the disk of the resource manager failed or is full; its log says more",
            );
        }
    };
    remote(status, class, &error.to_string())
}

fn remote(status: StatusCode, class: &str, message: &str) -> Response {
    let name = class.rsplit('.').next().unwrap_or(class);
    let body = json!({
        "RemoteException": {"exception": name, "javaClassName": class, "message": message}
    });
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        body.to_string(),
    )
        .into_response()
}
