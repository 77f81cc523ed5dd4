//! How a command fails: one sentence, and one line with what to try.

use std::fmt;

use tonic::Code;

use crate::text::printable;

/// What went wrong, as far as exit codes tell failures apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Failed,
    Usage,
    NotFound,
    Unreachable,
    Refused,
    TimedOut,
    NotExecutable,
    ProgramNotFound,
}

/// A command's failure in words for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// One sentence without a full stop.
    pub(crate) message: String,
    /// What to try: one line, mostly a command.
    pub(crate) cure: Option<String>,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure {
            kind,
            message: message.into(),
            cure: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Usage, message)
    }

    /// A local file or folder that does not do what it should.
    pub(crate) fn file(what: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
        Failure::new(
            Kind::Failed,
            format!("{what} {}: {}", path.display(), io_words(error)),
        )
    }

    #[must_use]
    pub(crate) fn try_this(mut self, cure: impl Into<String>) -> Failure {
        self.cure = Some(cure.into());
        self
    }

    /// The same failure with what was being done in front.
    #[must_use]
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Failure {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// An answer of the resource manager that is an error; `place` is where it was asked.
    pub(crate) fn from_status(status: &tonic::Status, place: &str) -> Failure {
        if is_connection(status) && std::error::Error::source(status).is_some() {
            return Failure::new(
                Kind::Unreachable,
                format!(
                    "the resource manager at {place} went away ({})",
                    chain(status)
                ),
            )
            .try_this("`bobbin up` starts what is dead of a cluster on this host");
        }
        let kind = match status.code() {
            Code::NotFound => Kind::NotFound,
            Code::InvalidArgument | Code::OutOfRange => Kind::Usage,
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::AlreadyExists
            | Code::Unimplemented => Kind::Refused,
            Code::DeadlineExceeded => Kind::TimedOut,
            // Its own words: a node that it cannot reach, or that it stops.
            Code::Unavailable => Kind::Unreachable,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::Aborted
            | Code::Internal
            | Code::DataLoss => Kind::Failed,
        };
        let message = match status.message() {
            "" => format!(
                "the resource manager answered {:?} without words",
                status.code()
            ),
            words => printable(words),
        };
        let failure = Failure::new(kind, message);
        if status.code() == Code::Unauthenticated {
            return failure.try_this(
                "give a token: BOBBIN_TOKEN_FILE=FILE (made by `bobbin token create --out FILE`)",
            );
        }
        failure
    }
}

/// Whether the call failed because the other side is not there (any more), rather than by its answer.
pub(crate) fn is_connection(status: &tonic::Status) -> bool {
    let has_source = std::error::Error::source(status).is_some();
    match status.code() {
        Code::Unavailable => true,
        // A connection that breaks in the middle of a stream comes as one of these, with hyper's or
        // h2's error behind it; the resource manager's own answers have none.
        Code::Unknown | Code::Internal | Code::Cancelled => has_source,
        Code::Ok
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// The innermost reason of an error: the outer ones say only "transport error".
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    if let Some(io) = inner.downcast_ref::<std::io::Error>() {
        return io_words(io);
    }
    match inner.downcast_ref::<tonic::Status>() {
        Some(status) => printable(status.message()),
        None => printable(&inner.to_string()),
    }
}

/// The system's words for an error, without its number.
pub(crate) fn io_words(error: &std::io::Error) -> String {
    without_number(&error.to_string()).to_lowercase()
}

/// Words of the system without the error number that Rust puts behind them.
pub(crate) fn without_number(text: &str) -> String {
    match text.split_once(" (os error ") {
        Some((words, rest)) => {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{words}{}", rest.strip_prefix(')').unwrap_or(rest))
        }
        None => text.to_owned(),
    }
}

impl fmt::Display for Failure {
    /// `bobbin: SENTENCE`, then `try: CURE` on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bobbin: {}", self.message)?;
        match &self.cure {
            Some(cure) => write!(f, "\ntry: {cure}"),
            None => Ok(()),
        }
    }
}

/// What a command ends with: its exit code, or why it failed.
pub(crate) type Outcome = Result<u8, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sentence_and_one_line() {
        let failure = Failure::usage("'1gb2' is not a size").try_this("--driver-memory 1g");
        assert_eq!(
            failure.to_string(),
            "bobbin: '1gb2' is not a size\ntry: --driver-memory 1g"
        );
    }

    #[test]
    fn error_numbers_are_left_out() {
        assert_eq!(
            without_number("at x: Gone (os error 2), sorry"),
            "at x: Gone, sorry"
        );
        assert_eq!(without_number("plain"), "plain");
        assert_eq!(
            io_words(&std::io::Error::from_raw_os_error(2)),
            "no such file or directory"
        );
    }

    #[test]
    fn answers_are_told_apart() {
        for (code, kind) in [
            (Code::NotFound, Kind::NotFound),
            (Code::InvalidArgument, Kind::Usage),
            (Code::PermissionDenied, Kind::Refused),
            (Code::ResourceExhausted, Kind::Refused),
            (Code::Unavailable, Kind::Unreachable),
            (Code::Internal, Kind::Failed),
        ] {
            let failure = Failure::from_status(&tonic::Status::new(code, "words"), "/run/x");
            assert_eq!(failure.kind, kind, "{code:?}");
        }
    }
}
