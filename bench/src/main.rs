//! `bobbin-bench`: every figure beside its floor, in one run, as a ratio.
#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

mod am_restart;
mod cluster;
mod fifo;
mod kill;
mod launch;
mod map;
mod master;
mod runtimes;
mod spark;
mod stats;
mod storm;
mod submit_e2e;
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
    /// `bobbin submit` to the driver's first line against a bare client and a bare sandbox.
    SubmitE2e(submit_e2e::SubmitArguments),
    /// Thousands of short containers through the native protocol against two bare sandbox loops.
    Storm(storm::StormArguments),
    /// Thousands of short tasks with `bobbin map` against HyperQueue.
    Map(map::MapArguments),
    /// The kill of an application with many containers against a bare kill and removal.
    Kill(kill::KillArguments),
    /// The crash of an application master to its successor against a plain submission.
    AmRestart(am_restart::AmRestartArguments),
    /// Whole spark-submit processes on Bobbin, on Spark's own cluster manager and in one process.
    Spark(spark::SparkArguments),
    /// The floor's client; started by submit-e2e.
    #[command(hide = true)]
    OneShot(submit_e2e::OneShotArguments),
    /// Measures one launch per line of its input; started by the other benchmarks.
    #[command(hide = true)]
    Worker(worker::WorkerArguments),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Launch(arguments) => launch::run(&arguments),
        Command::SubmitE2e(arguments) => submit_e2e::run(&arguments),
        Command::Storm(arguments) => storm::run(&arguments),
        Command::Map(arguments) => map::run(&arguments),
        Command::Kill(arguments) => kill::run(&arguments),
        Command::AmRestart(arguments) => am_restart::run(&arguments),
        Command::Spark(arguments) => spark::run(&arguments),
        Command::OneShot(arguments) => submit_e2e::one_shot(&arguments),
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

/// A word to whoever waits, beside the result.
fn progress(words: &str) {
    use std::io::Write as _;
    // Nobody listening is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{words}");
}
