//! `bobbin`: everything a person types.
//!
//! One command, one file in `commands/`. A command runs on a current-thread runtime with one connection
//! to the resource manager; nothing here decides what the cluster does, and no state is kept outside the
//! folder that `up` writes. Standard output carries results, standard error everything else.

mod args;
mod cluster;
mod commands;
mod doctor;
mod exit_codes;
mod failure;
#[cfg(test)]
mod fake_rm;
mod hadoop_conf;
mod host;
mod output;
mod parse;
#[cfg(test)]
mod reference;
mod text;

use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args::{AppCommand, Cli, Command, NodeCommand, TokenCommand};
use crate::failure::{Failure, Kind, Outcome};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(unparsed(&error)),
    };
    let is_submit = matches!(cli.command, Command::Submit(_));
    let code = run(cli).unwrap_or_else(|failure| {
        output::error(&failure);
        if is_submit {
            exit_codes::of_failed_submit(&failure)
        } else {
            exit_codes::of_failure(&failure)
        }
    });
    ExitCode::from(code)
}

/// Help goes to standard output; everything else is one sentence and what to try.
fn unparsed(error: &clap::Error) -> u8 {
    let kind = error.kind();
    if matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match output::stdout(error.render().to_string().as_bytes()) {
            Ok(()) => exit_codes::DONE,
            Err(failure) => exit_codes::of_failure(&failure),
        };
    }
    if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        output::plain_error(&error.render().to_string());
    } else {
        output::error(&usage_failure(error));
    }
    exit_codes::USAGE
}

/// clap's first paragraph as our sentence; its suggestion, else the help, as the cure.
fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or(&text);
    let sentence = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = text::printable(sentence.strip_prefix("error: ").unwrap_or(&sentence));
    let suggestion = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand]
        .into_iter()
        .find_map(|kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            Some(ContextValue::Strings(list)) => list.first().cloned(),
            _ => None,
        });
    let cure = match (suggestion, error.get(ContextKind::Usage)) {
        (Some(suggestion), _) => suggestion,
        (None, Some(ContextValue::StyledStr(usage))) => {
            let usage = usage.to_string();
            let words: Vec<&str> = usage
                .split_whitespace()
                .skip_while(|w| *w != "bobbin")
                .take_while(|w| w.starts_with(|c: char| c.is_ascii_lowercase()))
                .collect();
            format!("`{} --help`", words.join(" "))
        }
        (None, _) => format!("`{} --help`", typed_command()),
    };
    Failure::usage(sentence).try_this(cure)
}

/// `bobbin` and the command that was typed, as far as there is one of that name.
fn typed_command() -> String {
    use clap::CommandFactory;
    let mut command = Cli::command();
    let mut path = "bobbin".to_owned();
    for word in std::env::args().skip(1).filter(|w| !w.starts_with('-')) {
        let Some(child) = command
            .find_subcommand(&word)
            .filter(|c| !c.is_hide_set())
            .cloned()
        else {
            break;
        };
        path = format!("{path} {}", child.get_name());
        command = child;
    }
    path
}

fn run(cli: Cli) -> Outcome {
    match cli.command {
        // What needs no runtime.
        Command::Completions(args) => commands::completions::run(&args),
        Command::Version => commands::version::run(),
        Command::DaemonExec(args) => host::daemon_exec(&args.argv),
        command @ (Command::Up(_)
        | Command::Down(_)
        | Command::Submit(_)
        | Command::Map(_)
        | Command::App(_)
        | Command::Node(_)
        | Command::Top(_)
        | Command::Token(_)
        | Command::ClientConfig(_)
        | Command::Doctor(_)) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| {
                    Failure::new(Kind::Failed, format!("the runtime cannot start: {e}"))
                })?;
            let outcome = runtime.block_on(run_async(command, cli.rm.as_deref(), cli.quiet));
            // A write to a terminal that is stopped must not hold up the end.
            runtime.shutdown_background();
            outcome
        }
    }
}

async fn run_async(command: Command, rm: Option<&str>, quiet: bool) -> Outcome {
    match command {
        Command::Up(args) => Box::pin(commands::up::run(&args, quiet)).await,
        Command::Down(args) => Box::pin(commands::down::run(&args, quiet)).await,
        Command::Submit(args) => Box::pin(commands::submit::run(*args, rm, quiet)).await,
        Command::Map(args) => Box::pin(commands::map::run(args, quiet)).await,
        Command::App(args) => match args.command {
            AppCommand::List(args) => commands::app::list(&args, rm).await,
            AppCommand::Status(args) => commands::app::status(&args, rm).await,
            AppCommand::Attempts(args) => commands::app::attempts(&args, rm).await,
            AppCommand::Containers(args) => commands::app::containers(&args, rm).await,
            AppCommand::Kill(args) => commands::kill::run(&args, rm, quiet).await,
            AppCommand::Logs(args) => Box::pin(commands::logs::run(&args, rm, quiet)).await,
            AppCommand::Wait(args) => commands::wait::run(&args, rm, quiet).await,
            AppCommand::Move(args) => commands::app::change_queue(&args, rm, quiet).await,
            AppCommand::Priority(args) => commands::app::priority(&args, rm, quiet).await,
            AppCommand::Timeout(args) => commands::app::timeout(&args, rm, quiet).await,
        },
        Command::Node(args) => match args.command {
            NodeCommand::List(args) => commands::node::list(args, rm).await,
            NodeCommand::Status(args) => commands::node::status(&args, rm).await,
        },
        Command::Top(args) => Box::pin(commands::top::run(&args, rm)).await,
        Command::Token(args) => match args.command {
            TokenCommand::Create(args) => commands::token::create(&args, rm, quiet).await,
        },
        Command::Doctor(args) => commands::doctor::run(&args, rm).await,
        Command::ClientConfig(args) => commands::client_config::run(&args, rm, quiet).await,
        // Handled before there was a runtime.
        Command::Completions(_) | Command::Version | Command::DaemonExec(_) => Ok(exit_codes::DONE),
    }
}
