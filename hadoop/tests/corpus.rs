//! Replays what the fuzzers of `fuzz/` have found worth keeping.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a target that panics, or a corpus that cannot be read, fails its test"
)]

use std::path::Path;

#[path = "../../fuzz/targets.rs"]
mod targets;

/// The inputs in a packed file; see `fuzz/corpus.py`.
fn inputs(packed: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut rest = packed;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
        let (input, after) = after.split_at(length);
        found.push(input);
        rest = after;
    }
    assert!(rest.is_empty());
    found
}

#[test]
fn the_corpus_of_every_fuzzer() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in targets::ALL {
        let file = corpus.join(name);
        let packed = std::fs::read(&file).unwrap();
        let inputs = inputs(&packed);
        assert!(inputs.len() > 50, "{name}: {} inputs", inputs.len());
        for (number, input) in inputs.into_iter().enumerate() {
            if std::panic::catch_unwind(|| target(input)).is_err() {
                panic!("{}: input {number} fails: {input:?}", file.display());
            }
        }
    }
}

/// The empty input, and each byte alone: what a script begins with.
#[test]
fn the_shortest_inputs() {
    for (_, target) in targets::ALL {
        target(&[]);
        for byte in 0..=255 {
            target(&[byte]);
        }
    }
}
