//! A whole cluster in one thread: the three cores, virtual time, seeded faults, and the truth.
//!
//! The cores are the product's own. Around them stand models of what the daemons do: journals that
//! lose what was not synced, outboxes, streams that delay, repeat and break, supervisors, drivers,
//! executors and people. A ledger of what really ran is kept apart from what anybody believes, and
//! the promises are checked against it after every event. After the faults everything must come to
//! its end.
//!
//! Deliberately absent: wire formats, tokens' signatures, files, real processes; those are tested
//! where they are.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each model picks out what concerns it; the cores themselves have no wildcards"
)]

mod check;
mod client;
mod faults;
mod link;
mod master;
mod node;
mod rm;
mod rng;
mod world;
mod yarn;

pub use world::{Sabotage, Summary, Violation};

/// Runs the world of one seed.
///
/// # Errors
/// The first promise that was broken, with the steps before it.
pub fn run(seed: u64, sabotage: Sabotage) -> Result<Summary, Box<Violation>> {
    world::World::new(seed, sabotage, false)
        .run()
        .map_err(Box::new)
}

/// As [`run`], with the whole trace in the violation's words.
///
/// # Errors
/// As [`run`].
pub fn run_traced(seed: u64) -> Result<Summary, Box<Violation>> {
    world::World::new(seed, Sabotage::None, true)
        .run()
        .map_err(Box::new)
}
