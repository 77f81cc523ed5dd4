//! `bobbin-bench`: every figure beside its floor, in one run, as a ratio.
#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

mod am_restart;
mod bare_rpc;
mod cluster;
mod fifo;
mod kill;
mod launch;
mod logs;
mod map;
mod master;
mod memory;
mod resident;
mod runtimes;
mod slurm;
mod spark;
mod stats;
mod storm;
mod submission;
mod submit_e2e;
mod submit_rate;
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
    /// Durable submissions by many clients against bare calls and a bare journal.
    SubmitRate(submit_rate::SubmitRateArguments),
    /// A container's lines in `bobbin app logs -f` against a bare stream.
    Logs(logs::LogsArguments),
    /// What the daemons hold, idle and with many containers.
    Memory(memory::MemoryArguments),
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
    /// The floor's server; started by the other benchmarks.
    #[command(hide = true)]
    BareServer(bare_rpc::BareServerArguments),
    /// The writer in the container of logs.
    #[command(hide = true)]
    WriteLines(logs::WriteLinesArguments),
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
        Command::SubmitRate(arguments) => submit_rate::run(&arguments),
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Memory(arguments) => memory::run(&arguments),
        Command::BareServer(arguments) => bare_rpc::serve(&arguments),
        Command::WriteLines(arguments) => logs::write_lines(&arguments),
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
