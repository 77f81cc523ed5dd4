//! Tests over the whole core: scripts with their transcripts, random lives, printed tables.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks at the effects it is about"
)]

mod limits;
mod random;
mod reports;
mod scripts;
mod scripts_changes;
mod scripts_doors;
mod scripts_grants;
mod scripts_recovery;
mod scripts_relaunch;
mod scripts_yarn;
mod show;
mod states;
pub(crate) mod world;
