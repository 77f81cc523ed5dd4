//! Limits on what an agent holds. Beyond each, a start is refused in words.

/// Containers an agent knows at once: live ones and ends that are not acknowledged.
pub const CONTAINERS_MAX: usize = 20_000;
/// Streams of application masters at once.
pub const MASTERS_MAX: usize = 10_000;
/// Ids of ended containers remembered so that their tokens cannot be used again.
/// They are dropped when the token has expired or the application has ended.
pub const USED_TOKENS_MAX: usize = 500_000;
/// Revoked attempts of applications that have not ended.
pub const REVOKED_ATTEMPTS_MAX: usize = 100_000;
/// Ended applications remembered for the retention of their logs; beyond it the oldest go first.
pub const ENDED_APPLICATIONS_MAX: usize = 100_000;
/// An end that is not acknowledged is reported again after this long on a living stream.
pub const REPORT_AGAIN_MS: u64 = 10_000;
/// How long the id of a container that was stopped before it was ever started is remembered:
/// longer than any container token lives.
pub const STOPPED_UNSEEN_MS: u64 = 24 * 3_600_000;
/// Longest time between two looks at the retention of logs and at expired tokens.
pub const HOUSEKEEPING_MS: u64 = 600_000;
