//! The only place where errors become Hadoop exceptions.
//!
//! No class here is one that a stock client retries (it would look hung for 15 minutes), but for the
//! one case in which trying again is right: this process is ending, and the next one has the state.

use bobbin_hadoop::convert::FieldError;
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_rm_core::{Denied, Refusal};

use crate::driver::Failure;

/// The core's refusal, as the class on which a YARN client acts.
pub(crate) fn refused(refusal: &Refusal) -> RpcException {
    RpcException::new(class_of(refusal), words(refusal))
}

fn class_of(refusal: &Refusal) -> ExceptionClass {
    match refusal {
        Refusal::Denied(_) | Refusal::IdOfAnother(_) => ExceptionClass::AccessControl,
        Refusal::UnknownApplication(_) | Refusal::NoApplicationYet(_) => {
            ExceptionClass::ApplicationNotFound
        }
        Refusal::UnknownAttempt(_) => ExceptionClass::ApplicationAttemptNotFound,
        Refusal::UnknownContainer(_) => ExceptionClass::ContainerNotFound,
        Refusal::TooLittle { .. }
        | Refusal::LargerThanLargestNode { .. }
        | Refusal::UnknownRack(_)
        | Refusal::NotAChange { .. } => ExceptionClass::InvalidResourceRequest,
        Refusal::UnknownLabel(_) => ExceptionClass::InvalidLabelResourceRequest,
        Refusal::AmbiguousApplication { .. }
        | Refusal::IdNotIssued(_)
        | Refusal::IdForgotten(_)
        | Refusal::ApplicationEnded(_)
        | Refusal::IdsExhausted
        | Refusal::Name(_)
        | Refusal::TooMany { .. }
        | Refusal::Full { .. }
        | Refusal::UnknownQueue { .. }
        | Refusal::NoProgram
        | Refusal::UnmanagedWithProgram
        | Refusal::AttemptOver { .. }
        | Refusal::AttemptNotStarted(_)
        | Refusal::ContainerNotRunning(_)
        | Refusal::NodeAway { .. }
        | Refusal::TimeoutInPast { .. }
        | Refusal::ContainerVersion { .. }
        | Refusal::NoRoomToGrow { .. }
        | Refusal::NodeWithoutResources { .. }
        | Refusal::NodeTooLarge { .. }
        | Refusal::Recovering => ExceptionClass::Yarn,
    }
}

/// The refusal's words; where Hadoop's clients and their users know others, those.
fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::UnknownApplication(id) => unknown_application(id),
        Refusal::UnknownAttempt(id) => {
            format!("ApplicationAttempt with id '{id}' doesn't exist in RM.")
        }
        Refusal::UnknownContainer(id) => format!("Container with id '{id}' doesn't exist in RM."),
        Refusal::TooLittle { .. } | Refusal::LargerThanLargestNode { .. } => {
            format!("Invalid resource request! {refusal}")
        }
        Refusal::Denied(_)
        | Refusal::NoApplicationYet(_)
        | Refusal::IdOfAnother(_)
        | Refusal::UnknownRack(_)
        | Refusal::NotAChange { .. }
        | Refusal::UnknownLabel(_)
        | Refusal::AmbiguousApplication { .. }
        | Refusal::IdNotIssued(_)
        | Refusal::IdForgotten(_)
        | Refusal::ApplicationEnded(_)
        | Refusal::IdsExhausted
        | Refusal::Name(_)
        | Refusal::TooMany { .. }
        | Refusal::Full { .. }
        | Refusal::UnknownQueue { .. }
        | Refusal::NoProgram
        | Refusal::UnmanagedWithProgram
        | Refusal::AttemptOver { .. }
        | Refusal::AttemptNotStarted(_)
        | Refusal::ContainerNotRunning(_)
        | Refusal::NodeAway { .. }
        | Refusal::TimeoutInPast { .. }
        | Refusal::ContainerVersion { .. }
        | Refusal::NoRoomToGrow { .. }
        | Refusal::NodeWithoutResources { .. }
        | Refusal::NodeTooLarge { .. }
        | Refusal::Recovering => refusal.to_string(),
    }
}

/// Source: `ClientRMService.getApplicationReport`; the command line looks for "doesn't exist".
fn unknown_application(id: &str) -> String {
    format!(
        "Application with id '{id}' doesn't exist in RM. Please check that the job submission was \
         successful."
    )
}

/// A request that has no reply.
pub(crate) fn failed(failure: &Failure) -> RpcException {
    match failure {
        Failure::Refused(refusal) => refused(refusal),
        Failure::NotDurable(_) => RpcException::new(ExceptionClass::Yarn, failure.to_string()),
        Failure::Unexpected => RpcException::new(ExceptionClass::YarnRuntime, failure.to_string()),
        // The one class that is tried again: this process ends, and the next one answers.
        Failure::Stopping => RpcException::new(ExceptionClass::Standby, failure.to_string()),
    }
}

/// The authority's no.
pub(crate) fn denied(denied: Denied) -> RpcException {
    refused(&Refusal::Denied(denied))
}

/// A field that cannot be read.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is used as a function in map_err"
)]
pub(crate) fn malformed(error: FieldError) -> RpcException {
    RpcException::new(ExceptionClass::IllegalArgument, error.to_string())
}

#[cfg(test)]
mod tests {
    use bobbin_hadoop::exceptions::Reaction;

    use super::*;

    #[test]
    fn an_unknown_application_in_hadoops_words() {
        let exception = refused(&Refusal::UnknownApplication(
            "application_5_0001".to_owned(),
        ));
        assert_eq!(exception.class, ExceptionClass::ApplicationNotFound);
        assert_eq!(
            exception.message,
            "Application with id 'application_5_0001' doesn't exist in RM. Please check that the \
             job submission was successful."
        );
    }

    #[test]
    fn only_an_ending_process_is_asked_again() {
        let full = Failure::Refused(Refusal::IdsExhausted);
        let unsafe_now = Failure::NotDurable("disk full".to_owned());
        for failure in [full, unsafe_now] {
            assert_eq!(failed(&failure).class.reaction(), Reaction::AtOnce);
        }
        let class = failed(&Failure::Stopping).class;
        assert_eq!(class.reaction(), Reaction::Retried);
    }
}
