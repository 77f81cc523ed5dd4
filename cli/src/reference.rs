//! Keeps `docs/reference/cli.md` equal to the command tree and the table of exit codes.
//!
//! `BOBBIN_BLESS=1 cargo test -p bobbin reference` writes it anew.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::args::Cli;
use crate::exit_codes::{OF_OTHERS, OF_SUBMIT};

fn reference() -> String {
    let mut text = String::from(
        "# Commands, flags and exit codes\n\n\
         Generated from the program (`BOBBIN_BLESS=1 cargo test -p bobbin reference`); a test fails when \
         it is stale.\nStandard output carries results only; progress, notes and errors go to standard \
         error. An error is one sentence and one line with what to try.\n\n",
    );
    exit_codes(&mut text);
    let mut root = Cli::command();
    root.build();
    text.push_str("## Flags of every command\n\n");
    root.get_arguments()
        .filter(|a| a.is_global_set())
        .for_each(|a| flag(&mut text, a));
    text.push('\n');
    for command in visible(&root) {
        page(&mut text, command, "bobbin");
    }
    text.trim_end().to_owned() + "\n"
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|c| !c.is_hide_set())
}

fn exit_codes(text: &mut String) {
    text.push_str("## Exit codes\n\n| `bobbin submit` | |\n|---|---|\n");
    for (code, meaning) in OF_SUBMIT {
        let _ = writeln!(text, "| {code} | {meaning} |");
    }
    text.push_str("\n| every other command | |\n|---|---|\n");
    for (code, meaning) in OF_OTHERS {
        let _ = writeln!(text, "| {code} | {meaning} |");
    }
    text.push('\n');
}

fn page(text: &mut String, command: &Command, parent: &str) {
    let path = format!("{parent} {}", command.get_name());
    let children: Vec<_> = visible(command).collect();
    let level = if parent == "bobbin" { "##" } else { "###" };
    let _ = writeln!(text, "{level} {path}\n");
    let about = command.get_long_about().or_else(|| command.get_about());
    let _ = writeln!(
        text,
        "{}\n",
        about.map(ToString::to_string).unwrap_or_default()
    );
    if children.is_empty() {
        let usage = command.clone().render_usage().to_string();
        let usage = usage
            .trim_start_matches("Usage: ")
            .split_whitespace()
            .collect::<Vec<_>>();
        let _ = writeln!(text, "```\n{}\n```\n", usage.join(" "));
    }
    let mut arguments: Vec<_> = command
        .get_arguments()
        .filter(|a| !a.is_hide_set() && !a.is_global_set() && a.get_id() != "help")
        .collect();
    arguments.sort_by_key(|a| !a.is_positional());
    arguments.iter().for_each(|a| flag(text, a));
    if !arguments.is_empty() {
        text.push('\n');
    }
    if let Some(after) = command.get_after_help() {
        let _ = writeln!(text, "```text\n{}\n```\n", after.to_string().trim_end());
    }
    for child in children {
        page(text, child, &path);
    }
}

fn flag(text: &mut String, argument: &Arg) {
    let values: Vec<_> = argument
        .get_value_names()
        .into_iter()
        .flatten()
        .map(|name| format!("<{name}>"))
        .collect();
    let mut name = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, Some(long)) => format!("--{long}"),
        (None, None) => String::new(),
    };
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    if takes_value {
        name = format!("{name} {}", values.join(" ")).trim().to_owned();
    }
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let help = help
        .map(ToString::to_string)
        .unwrap_or_default()
        .replace("\n\n", ". ")
        .replace('\n', " ");
    let mut line = format!("- `{name}`: {help}");
    let default: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|v| v.to_string_lossy().into_owned())
        .collect();
    if takes_value && !default.is_empty() && !argument.is_hide_default_value_set() {
        let _ = write!(line, " (default `{}`)", default.join(","));
    }
    let possible: Vec<_> = argument
        .get_possible_values()
        .iter()
        .map(|v| format!("`{}`", v.get_name()))
        .collect();
    if takes_value && !possible.is_empty() {
        let _ = write!(line, " [{}]", possible.join(", "));
    }
    let _ = writeln!(text, "{line}");
}

#[test]
fn the_reference_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/cli.md");
    let fresh = reference();
    if std::env::var_os("BOBBIN_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &fresh).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == fresh,
        "docs/reference/cli.md is stale: BOBBIN_BLESS=1 cargo test -p bobbin reference"
    );
}

#[test]
fn every_flag_has_words() {
    fn check(command: &Command) {
        for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
            assert!(
                argument.get_help().is_some(),
                "{}: {}",
                command.get_name(),
                argument.get_id()
            );
        }
        visible(command).for_each(check);
    }
    check(&Cli::command());
}
