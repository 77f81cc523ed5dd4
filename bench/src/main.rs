//! `bobbin-bench`: every figure beside its floor, in one run, as a ratio.
#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

mod launch;
mod runtimes;
mod stats;
mod worker;

use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Benchmarks of Bobbin, with their floors in the same run"
)]
enum Command {
    /// One sandboxed launch against the bare sandbox, and against container runtimes.
    Launch(launch::LaunchArguments),
    /// Measures one launch per line of its input; started by the other benchmarks.
    #[command(hide = true)]
    Worker(worker::WorkerArguments),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Launch(arguments) => launch::run(&arguments),
        Command::Worker(arguments) => worker::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bobbin-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
