//! Limits on what the resource manager holds; beyond each the answer is a typed refusal.
//!
//! Limits on the content of a submission are in `bobbin_types`, shared with the command line.

/// Applications that have not ended. Source: `yarn.scheduler.capacity.maximum-applications`.
pub const APPLICATIONS_LIVE_MAX: u64 = 20_000;
/// Those of one user, so that others have room.
pub const APPLICATIONS_LIVE_PER_USER_MAX: u64 = 15_000;
/// Bytes of the submissions of applications that have not ended: of all, and of one user's. They are
/// in memory and in the journal until the application ends.
pub const SUBMISSION_BYTES_LIVE_MAX: u64 = 1 << 30;
pub const SUBMISSION_BYTES_LIVE_PER_USER_MAX: u64 = 256 << 20;
/// Ids handed out by `NewApplication` whose owner is remembered; beyond it the oldest are forgotten
/// (they can still be used).
pub const ISSUED_IDS_MAX: usize = 10_000;
/// Nodes, lost ones included.
pub const NODES_MAX: usize = 20_000;
/// MiB, or units of a countable kind, of one node; vcores of one node. With these the sums over all
/// nodes and containers fit their integers.
pub const NODE_UNITS_MAX: u64 = 1 << 40;
pub const NODE_VCORES_MAX: u32 = 1 << 16;
/// Containers one node may list at its registration.
pub const CONTAINERS_PER_NODE_MAX: usize = 20_000;
/// Files on their way that one node may tell of.
pub const FETCHING_PER_NODE_MAX: usize = 1_000;
/// Applications whose folders one node may list at its registration.
pub const APPLICATIONS_PER_NODE_MAX: usize = 200_000;
/// Kill requests of one application that wait for its end.
pub const KILL_WAITERS_MAX: usize = 1_000;
/// Ended containers remembered for `ListContainers`, all applications together; the oldest go first.
pub const ENDED_CONTAINERS_MAX: usize = 100_000;
/// Attempts of one application, those included that do not count as failures (node losses).
pub const ATTEMPTS_TOTAL_MAX: u32 = 1_000;
/// What an attempt waits for its turn, in milliseconds, after one, two, three... attempts in a row
/// that ended soon and are not counted; the last number stands for all further ones.
pub const RELAUNCH_PAUSES_MS: [u64; 9] = [0, 100, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000];
/// An attempt that lived for so many milliseconds was launched well.
pub const RELAUNCH_SOUND_MS: u64 = 60_000;
/// Of how many of these attempts the nodes are avoided.
pub const NODES_AVOIDED_MAX: usize = 16;
/// Containers one application holds at once.
pub const CONTAINERS_PER_APPLICATION_MAX: usize = 100_000;
/// Containers one release or one registration of a master may name.
pub const CONTAINERS_PER_MESSAGE_MAX: usize = 100_000;
/// Bytes of a queue's name, a place, a node label, an application type.
pub const WORD_BYTES_MAX: usize = 255;
/// Bytes of a tracking URL, a reason for a kill.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// Bytes of all application settings together.
pub const SETTINGS_BYTES_MAX: usize = 256 << 10;
/// Secrets of a launch context, and bytes of all of them.
pub const SECRETS_MAX: usize = 100;
pub const SECRETS_BYTES_MAX: usize = 256 << 10;
/// How often it goes on record where an attempt's master is; further changes are lost by a restart.
pub const REGISTRATIONS_RECORDED_MAX: u32 = 100;
/// Hosts on which one attempt wants no containers.
pub const BLACKLIST_MAX: usize = 1_000;
/// Containers one message of a master may want to have another size.
pub const UPDATES_PER_MESSAGE_MAX: usize = 10_000;
/// Auxiliary services a launch context has data for, and bytes of all of it.
pub const SERVICE_DATA_MAX: usize = 100;
pub const SERVICE_DATA_BYTES_MAX: usize = 256 << 10;
/// A YARN master that has not registered so many milliseconds after its start has failed: Spark's
/// registers only when the program has made its context.
/// Source: `yarn.am.liveness-monitor.expiry-interval-ms`, 10 minutes.
pub const YARN_REGISTRATION_MS_MAX: u64 = 600_000;
/// Applications on one page of a list.
pub const PAGE_DEFAULT: usize = 1_000;
pub const PAGE_MAX: usize = 10_000;
/// Ids reserved in the journal at once, so that `NewApplication` costs no record each time.
pub const SEQUENCE_BLOCK: u32 = 10;
