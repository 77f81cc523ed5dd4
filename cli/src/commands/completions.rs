//! `bobbin completions SHELL`.

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::exit_codes::DONE;
use crate::failure::Outcome;
use crate::output;

pub(crate) fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bobbin", &mut script);
    output::stdout(&script)?;
    Ok(DONE)
}
