//! Every exit code of `bobbin`, and which failure ends with which. The only place that knows numbers.

use bobbin_types::{ExitStatus, FinalStatus, YarnApplicationState};

use crate::failure::{Failure, Kind};

/// Done; for `submit`: the driver ended with 0.
pub(crate) const DONE: u8 = 0;
pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const NOT_FOUND: u8 = 3;
pub(crate) const UNREACHABLE: u8 = 4;
pub(crate) const REFUSED: u8 = 5;
pub(crate) const TIMED_OUT: u8 = 6;
/// Bobbin itself failed or refused, so the driver has no exit status. Source: env(1), docker-run(1).
pub(crate) const BOBBIN_FAILED: u8 = 125;
pub(crate) const NOT_EXECUTABLE: u8 = 126;
pub(crate) const PROGRAM_NOT_FOUND: u8 = 127;
/// Left at Ctrl+C while the application goes on.
pub(crate) const INTERRUPTED: u8 = 130;
/// Ended by the cluster: killed, or above its memory.
pub(crate) const KILLED: u8 = 137;

/// What `submit` ends with, for the reference.
#[cfg(test)]
pub(crate) const OF_SUBMIT: &[(&str, &str)] = &[
    ("0 to 255", "the driver's own, when it ended by itself"),
    ("128+n", "signal n ended the driver"),
    (
        "137",
        "the application was killed, or ended above its memory (-104)",
    ),
    (
        "130",
        "left at Ctrl+C while the application goes on (`--on-interrupt detach`, or a second Ctrl+C)",
    ),
    (
        "125",
        "Bobbin failed or refused: no resource manager, more than a node has, not allowed",
    ),
    ("126", "the program cannot be executed"),
    ("127", "the program was not found"),
    ("2", "the command line is wrong; nothing was submitted"),
];

/// What every other command ends with, for the reference.
#[cfg(test)]
pub(crate) const OF_OTHERS: &[(u8, &str)] = &[
    (DONE, "done"),
    (
        FAILED,
        "failed; for `map`: a task finally failed; for `app wait`: the application failed or was killed",
    ),
    (USAGE, "the command line is wrong"),
    (
        NOT_FOUND,
        "there is no such application, container, node, log or folder",
    ),
    (UNREACHABLE, "the resource manager cannot be reached"),
    (
        REFUSED,
        "refused: not allowed, or not possible in this state",
    ),
    (TIMED_OUT, "timed out"),
];

/// The code a failed command ends with.
/// What a shell says of a program that a signal ended.
pub(crate) fn of_signal(signal: u8) -> u8 {
    128_u8.saturating_add(signal)
}

pub(crate) fn of_failure(failure: &Failure) -> u8 {
    match failure.kind {
        Kind::Failed => FAILED,
        Kind::Usage => USAGE,
        Kind::NotFound => NOT_FOUND,
        Kind::Unreachable => UNREACHABLE,
        Kind::Refused => REFUSED,
        Kind::TimedOut => TIMED_OUT,
        Kind::NotExecutable => NOT_EXECUTABLE,
        Kind::ProgramNotFound => PROGRAM_NOT_FOUND,
    }
}

/// The code a failed `submit` ends with: 1, 3, 4, 5 and 6 would be taken for the driver's.
pub(crate) fn of_failed_submit(failure: &Failure) -> u8 {
    match failure.kind {
        Kind::Usage => USAGE,
        Kind::NotExecutable => NOT_EXECUTABLE,
        Kind::ProgramNotFound => PROGRAM_NOT_FOUND,
        Kind::Failed | Kind::NotFound | Kind::Unreachable | Kind::Refused | Kind::TimedOut => {
            BOBBIN_FAILED
        }
    }
}

/// The code `submit` ends with for an application that ended so.
pub(crate) fn of_application(state: Option<YarnApplicationState>, exit_status: Option<i32>) -> u8 {
    if state == Some(YarnApplicationState::Killed) {
        return KILLED;
    }
    match exit_status.map(ExitStatus) {
        Some(status @ (ExitStatus::KILLED_EXCEEDED_PMEM | ExitStatus::KILLED_EXCEEDED_VMEM)) => {
            status.process_code()
        }
        // The cluster's other numbers: the driver was not let to its end, by no fault of its own.
        Some(ExitStatus(code)) if code < 0 => BOBBIN_FAILED,
        Some(status) => status.process_code(),
        None if state == Some(YarnApplicationState::Finished) => DONE,
        None => BOBBIN_FAILED,
    }
}

/// The code `submit` ends with for a driver that ran on this host.
pub(crate) fn of_driver(exit_status: ExitStatus, failed: bool) -> u8 {
    let state = if failed {
        YarnApplicationState::Failed
    } else {
        YarnApplicationState::Finished
    };
    match of_application(Some(state), Some(exit_status.0)) {
        // It ended well, but the cluster had ended its application.
        DONE if failed => BOBBIN_FAILED,
        code => code,
    }
}

/// The code `app wait` ends with.
pub(crate) fn of_wait(final_status: &str) -> u8 {
    if final_status == FinalStatus::Succeeded.as_str() {
        DONE
    } else {
        FAILED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_applications() {
        use YarnApplicationState::{Failed, Finished, Killed};
        for (state, exit_status, code) in [
            (Finished, Some(0), 0),
            (Finished, None, 0),
            (Finished, Some(7), 7),
            (Failed, Some(7), 7),
            (Failed, Some(139), 139),
            (Failed, Some(-104), 137),
            (Failed, Some(-100), 125),
            (Failed, Some(127), 127),
            (Failed, None, 125),
            (Killed, None, 137),
            (Killed, Some(0), 137),
        ] {
            assert_eq!(
                of_application(Some(state), exit_status),
                code,
                "{state} {exit_status:?}"
            );
        }
    }

    #[test]
    fn a_failed_submit_is_never_taken_for_the_driver() {
        for (kind, submit, other) in [
            (Kind::Failed, 125, 1),
            (Kind::Usage, 2, 2),
            (Kind::NotFound, 125, 3),
            (Kind::Unreachable, 125, 4),
            (Kind::Refused, 125, 5),
            (Kind::TimedOut, 125, 6),
            (Kind::NotExecutable, 126, 126),
            (Kind::ProgramNotFound, 127, 127),
        ] {
            let failure = Failure::new(kind, "no");
            assert_eq!(of_failed_submit(&failure), submit, "{kind:?}");
            assert_eq!(of_failure(&failure), other, "{kind:?}");
        }
    }

    #[test]
    fn of_drivers_here() {
        assert_eq!(of_driver(ExitStatus(7), false), 7);
        assert_eq!(of_driver(ExitStatus(7), true), 7);
        assert_eq!(of_driver(ExitStatus(0), false), 0);
        assert_eq!(of_driver(ExitStatus(0), true), 125);
        assert_eq!(of_driver(ExitStatus::from_signal(15), false), 143);
    }

    #[test]
    fn of_waits() {
        assert_eq!(of_wait("SUCCEEDED"), 0);
        assert_eq!(of_wait("KILLED"), 1);
        assert_eq!(of_wait("UNDEFINED"), 1);
    }
}
