//! The transition tables as documents: printed from the code, stale ones fail.

use std::fmt::{Display, Write as _};
use std::path::Path;

use bobbin_types::{ApplicationState, AttemptState, ContainerState, NodeState};
use expect_test::expect_file;

use crate::application::{self, ApplicationInput};
use crate::attempt::{self, AttemptInput};
use crate::container::{self, ContainerInput};
use crate::node::{self, NodeInput};

/// A row a state, a column an input; an empty cell is an illegal transition.
fn table<S: Copy + Display + PartialEq, I: Copy>(
    title: &str,
    states: &[S],
    inputs: &[I],
    name: impl Fn(I) -> &'static str,
    next: impl Fn(S, I) -> Option<S>,
) -> String {
    let mut text = format!(
        "# States of {title} in the resource manager\n\n\
         Printed from the code by `cargo test -p bobbin-rm-core`; `UPDATE_EXPECT=1` brings it up to date.\n\
         A row is a state, a column an input, a cell the next state; an empty cell is answered, counted and logged as an illegal transition.\n\n"
    );
    let used: Vec<S> = states
        .iter()
        .copied()
        .filter(|state| {
            inputs.iter().any(|input| next(*state, *input).is_some())
                || states.iter().any(|from| {
                    inputs
                        .iter()
                        .any(|input| next(*from, *input) == Some(*state))
                })
        })
        .collect();
    text += "| state |";
    for input in inputs {
        write!(text, " {} |", name(*input)).unwrap();
    }
    text += "\n|---|";
    text += &"---|".repeat(inputs.len());
    text += "\n";
    for state in &used {
        write!(text, "| {state} |").unwrap();
        for input in inputs {
            match next(*state, *input) {
                Some(to) => write!(text, " {to} |").unwrap(),
                None => text += "  |",
            }
        }
        text += "\n";
    }
    let unused: Vec<String> = states
        .iter()
        .filter(|state| !used.contains(state))
        .map(ToString::to_string)
        .collect();
    if !unused.is_empty() {
        writeln!(text, "\nNever entered: {}.", unused.join(", ")).unwrap();
    }
    text
}

fn check(name: &str, text: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/states");
    expect_file![folder.join(name)].assert_eq(text);
}

#[test]
fn application_table() {
    let text = table(
        "an application",
        ApplicationState::ALL,
        ApplicationInput::ALL,
        ApplicationInput::as_str,
        application::next_state,
    );
    check("resourcemanager-application.md", &text);
}

#[test]
fn attempt_table() {
    let text = table(
        "an attempt",
        AttemptState::ALL,
        AttemptInput::ALL,
        AttemptInput::as_str,
        attempt::next_state,
    );
    check("resourcemanager-attempt.md", &text);
}

#[test]
fn container_table() {
    let text = table(
        "a container",
        ContainerState::ALL,
        ContainerInput::ALL,
        ContainerInput::as_str,
        container::next_state,
    );
    check("resourcemanager-container.md", &text);
}

#[test]
fn node_table() {
    let text = table(
        "a node",
        NodeState::ALL,
        NodeInput::ALL,
        NodeInput::as_str,
        node::next_state,
    );
    check("resourcemanager-node.md", &text);
}
