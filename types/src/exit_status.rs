//! Exit statuses of containers and applications, with YARN's negative numbers.

use std::fmt;

/// How a container or a driver ended: a process's own code 0 to 255 (128+n for signal n), or one of
/// YARN's negative numbers when the cluster ended it.
///
/// Source: `org.apache.hadoop.yarn.api.records.ContainerExitStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExitStatus(pub i32);

impl ExitStatus {
    pub const SUCCESS: ExitStatus = ExitStatus(0);
    /// The cluster gave it up: node lost, never started, released by its application master.
    pub const ABORTED: ExitStatus = ExitStatus(-100);
    /// The node's disks failed.
    pub const DISKS_FAILED: ExitStatus = ExitStatus(-101);
    /// Preempted for another queue or application.
    pub const PREEMPTED: ExitStatus = ExitStatus(-102);
    /// Above its virtual memory.
    pub const KILLED_EXCEEDED_VMEM: ExitStatus = ExitStatus(-103);
    /// Above its physical memory.
    pub const KILLED_EXCEEDED_PMEM: ExitStatus = ExitStatus(-104);
    /// Ended at the request of its application master.
    pub const KILLED_BY_APPMASTER: ExitStatus = ExitStatus(-105);
    /// Ended at the request of the resource manager (a user's kill, a lost lease).
    pub const KILLED_BY_RESOURCEMANAGER: ExitStatus = ExitStatus(-106);
    /// Ended because its application had ended.
    pub const KILLED_AFTER_APP_COMPLETION: ExitStatus = ExitStatus(-107);
    /// Its log files were above their limit.
    pub const KILLED_FOR_EXCESS_LOGS: ExitStatus = ExitStatus(-109);

    /// The status of a process ended by `signal`, as a shell tells it.
    #[must_use]
    pub fn from_signal(signal: i32) -> ExitStatus {
        ExitStatus(128_i32.saturating_add(signal))
    }

    #[must_use]
    pub fn is_success(self) -> bool {
        self.0 == 0
    }

    /// Whether an attempt that ended so counts against the maximum number of attempts.
    ///
    /// Source: `RMAppAttemptImpl.shouldCountTowardsMaxAttemptRetry`.
    #[must_use]
    pub fn counts_as_failure(self) -> bool {
        !matches!(
            self,
            Self::PREEMPTED | Self::ABORTED | Self::DISKS_FAILED | Self::KILLED_BY_RESOURCEMANAGER
        )
    }

    /// The exit code `bobbin submit` ends with for a driver that ended so: its own code, 137 for
    /// what the cluster killed.
    #[must_use]
    pub fn process_code(self) -> u8 {
        if self.0 < 0 {
            137
        } else {
            u8::try_from(self.0).unwrap_or(255)
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_for_shells() {
        assert_eq!(ExitStatus(7).process_code(), 7);
        assert_eq!(ExitStatus::from_signal(15).process_code(), 143);
        assert_eq!(ExitStatus::KILLED_EXCEEDED_PMEM.process_code(), 137);
        assert_eq!(ExitStatus(999).process_code(), 255);
    }

    #[test]
    fn node_loss_and_preemption_cost_no_attempt() {
        assert!(!ExitStatus::ABORTED.counts_as_failure());
        assert!(!ExitStatus::PREEMPTED.counts_as_failure());
        assert!(ExitStatus::KILLED_EXCEEDED_PMEM.counts_as_failure());
        assert!(ExitStatus(1).counts_as_failure());
    }
}
