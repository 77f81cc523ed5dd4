//! A thousand clusters, and faults of our own that must be found.

use bobbin_sim::{Sabotage, run};

/// Seeds that once failed; each is run for ever.
const ONCE_FAILED: [u64; 0] = [];

#[test]
fn a_thousand_seeds() {
    let mut failed = Vec::new();
    for seed in (1..=1000).chain(ONCE_FAILED) {
        if let Err(violation) = run(seed, Sabotage::None) {
            failed.push(violation.to_string());
        }
    }
    assert!(
        failed.is_empty(),
        "{} seeds failed; the first:\n{}",
        failed.len(),
        failed[0]
    );
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 77] {
        assert_eq!(
            run(seed, Sabotage::None).unwrap(),
            run(seed, Sabotage::None).unwrap()
        );
    }
}

/// A broken product must be caught within a thousand seeds: a test of the test.
fn is_caught(sabotage: Sabotage) -> bool {
    (1..=1000).any(|seed| run(seed, sabotage).is_err())
}

#[test]
fn answers_before_the_sync_are_caught() {
    assert!(is_caught(Sabotage::ReplyBeforeSync));
}

#[test]
fn a_repeated_epoch_is_caught() {
    assert!(is_caught(Sabotage::SameEpoch));
}

#[test]
fn an_agent_that_forgets_is_caught() {
    assert!(is_caught(Sabotage::ForgetAdmitted));
}

#[test]
fn stops_that_are_never_sent_are_caught() {
    assert!(is_caught(Sabotage::NoStops));
}
