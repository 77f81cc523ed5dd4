//! The only place where errors become a gRPC status.

use bobbin_proto::FieldError;
use bobbin_rm_core::{Refusal, RefusalKind};
use tonic::{Code, Status};

use crate::driver::Failure;
use crate::file_tree::FileTreeError;

/// The core's refusal.
pub(crate) fn refused(refusal: &Refusal) -> Status {
    let code = match refusal.kind() {
        RefusalKind::NotFound => Code::NotFound,
        RefusalKind::Denied => Code::PermissionDenied,
        RefusalKind::Invalid => Code::InvalidArgument,
        RefusalKind::Exhausted => Code::ResourceExhausted,
        RefusalKind::Conflict => Code::FailedPrecondition,
        RefusalKind::Unavailable => Code::Unavailable,
    };
    Status::new(code, refusal.to_string())
}

/// A request that has no reply.
pub(crate) fn failed(failure: &Failure) -> Status {
    match failure {
        Failure::Refused(refusal) => refused(refusal),
        Failure::NotDurable(_) | Failure::Stopping => Status::unavailable(failure.to_string()),
        Failure::Unexpected => Status::internal(failure.to_string()),
    }
}

/// A field that cannot be read.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is used as a function in map_err"
)]
pub(crate) fn malformed(error: FieldError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The file tree's refusal; what only the operator can mend is logged here, once.
pub(crate) fn file_tree(error: FileTreeError) -> Status {
    let code = match &error {
        FileTreeError::Name(_)
        | FileTreeError::NotOneComponent(_)
        | FileTreeError::NotASource(_)
        | FileTreeError::TooLong { .. }
        | FileTreeError::TooShort { .. } => Code::InvalidArgument,
        FileTreeError::TooLarge { .. } | FileTreeError::TooMany { .. } => Code::ResourceExhausted,
        FileTreeError::NotFound(_) => Code::NotFound,
        FileTreeError::DiskFull(_) | FileTreeError::Io { .. } => {
            let chain = anyhow::Error::new(error);
            tracing::error!(error = format!("{chain:#}"), "the file tree failed");
            return Status::unavailable(format!("{chain:#}"));
        }
    };
    Status::new(code, error.to_string())
}
