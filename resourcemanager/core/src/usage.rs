//! What an application has used over time: its containers' sizes times how long it had them.

use bobbin_types::{Millis, Resource};

/// Source: `ApplicationResourceUsageReport.memory_seconds` and `vcore_seconds`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceSeconds {
    /// MiB times seconds.
    pub memory_mib: u64,
    pub vcores: u64,
}

/// The integral of a use that changes now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    memory_mib_ms: u128,
    vcore_ms: u128,
    /// Up to when the sums go.
    upto: Millis,
}

impl Usage {
    /// What is on record, from `now` on.
    pub(crate) fn resumed(used: ResourceSeconds, now: Millis) -> Usage {
        Usage {
            memory_mib_ms: u128::from(used.memory_mib) * 1000,
            vcore_ms: u128::from(used.vcores) * 1000,
            upto: now,
        }
    }

    /// Adds the time up to `now`, in which `used` did not change.
    pub(crate) fn add(&mut self, used: &Resource, now: Millis) {
        let ms = u128::from(now.since(self.upto));
        self.upto = self.upto.max(now);
        self.memory_mib_ms = self
            .memory_mib_ms
            .saturating_add(u128::from(used.memory_mib).saturating_mul(ms));
        self.vcore_ms = self
            .vcore_ms
            .saturating_add(u128::from(used.vcores).saturating_mul(ms));
    }

    /// The sums up to `now` if `used` did not change since.
    pub(crate) fn seconds(mut self, used: &Resource, now: Millis) -> ResourceSeconds {
        self.add(used, now);
        let seconds = |ms: u128| u64::try_from(ms / 1000).unwrap_or(u64::MAX);
        ResourceSeconds {
            memory_mib: seconds(self.memory_mib_ms),
            vcores: seconds(self.vcore_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_seconds() {
        let mut usage = Usage::default();
        let (none, some) = (Resource::default(), Resource::new(1024, 2));
        usage.add(&none, Millis(10_000));
        usage.add(&some, Millis(11_500));
        let seconds = |memory_mib, vcores| ResourceSeconds { memory_mib, vcores };
        assert_eq!(usage.seconds(&none, Millis(50_000)), seconds(1536, 3));
        assert_eq!(usage.seconds(&some, Millis(12_000)), seconds(2048, 4));
        // A moment that has passed adds nothing.
        assert_eq!(usage.seconds(&some, Millis(5)), seconds(1536, 3));
        let resumed = Usage::resumed(seconds(7, 8), Millis(100));
        assert_eq!(resumed.seconds(&none, Millis(900)), seconds(7, 8));
    }
}
