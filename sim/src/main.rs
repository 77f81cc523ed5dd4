//! `bobbin-sim`: many seeds, or one again.
#![expect(
    clippy::print_stdout,
    reason = "this program's only purpose is its report"
)]

use std::process::ExitCode;

use bobbin_sim::{Sabotage, run, run_traced};
use clap::Parser;

/// Simulates whole clusters under faults and checks Bobbin's promises after every event.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example: bobbin-sim --seeds 10000\n         bobbin-sim --seed 42"
)]
struct Args {
    /// Runs this seed alone and prints its whole trace if it fails.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Runs so many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        return match run_traced(seed) {
            Ok(summary) => {
                println!("seed {seed}: {summary:?}");
                ExitCode::SUCCESS
            }
            Err(violation) => {
                println!("{violation}");
                ExitCode::FAILURE
            }
        };
    }
    let (mut failed, mut events, mut virtual_ms, mut crashes) = (0_u64, 0_u64, 0_u64, 0_u64);
    for seed in args.first..args.first.saturating_add(args.seeds) {
        match run(seed, Sabotage::None) {
            Ok(summary) => {
                events += summary.events;
                virtual_ms += summary.virtual_ms;
                crashes += summary.crashes;
            }
            Err(violation) => {
                failed += 1;
                println!("{violation}");
            }
        }
    }
    println!(
        "{} seeds, {failed} failed; {} virtual hours, {events} events, {crashes} crashes",
        args.seeds,
        virtual_ms / 3_600_000
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
