//! Monte Carlo pi: the driver and its tasks are one program.
//!
//! ```text
//! cargo build --release -p bobbin-appmaster --example pi
//! cd target/release/examples
//! bobbin submit --deploy-mode cluster --num-executors 2 --files pi -- ./pi 40 1000000
//! ```
#![allow(clippy::print_stdout, reason = "a program with output")]

use std::process::ExitCode;

use anyhow::{Context, bail};
use bobbin_appmaster::sdk::{Driver, Task};

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--task", seed, throws] => {
            println!("{}", inside(seed.parse()?, throws.parse()?));
            Ok(ExitCode::SUCCESS)
        }
        [] => drive(10, 100_000),
        [tasks] => drive(tasks.parse().context("the number of tasks")?, 100_000),
        [tasks, throws] => drive(
            tasks.parse().context("the number of tasks")?,
            throws.parse().context("the throws of a task")?,
        ),
        _ => bail!("pi [TASKS [THROWS]]"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn drive(tasks: u64, throws: u64) -> anyhow::Result<ExitCode> {
    let driver = Driver::connect().await?;
    let throws_text = throws.to_string();
    // `--files pi` puts the program into every executor's folder.
    let work =
        (0..tasks).map(|seed| Task::new(["./pi", "--task", &seed.to_string(), &throws_text]));
    let mut hits = 0;
    for result in driver.run(work).await? {
        if !result.is_success() {
            bail!(
                "task {} failed with {}: {}{}",
                result.id,
                result.exit_status,
                result.problem,
                String::from_utf8_lossy(&result.stderr)
            );
        }
        let text = String::from_utf8(result.stdout)?;
        hits += text.trim().parse::<u64>().context("a task's output")?;
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let pi = 4.0 * hits as f64 / (tasks * throws) as f64;
    println!("Pi is roughly {pi:.5}");
    Ok(ExitCode::SUCCESS)
}

/// How many of so many random points of the unit square are within the quarter circle.
fn inside(seed: u64, throws: u64) -> u64 {
    // xorshift64*: good enough here, and the same everywhere. Source: Vigna, 2016.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        u32::try_from(state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).unwrap_or(0)
    };
    let mut hits = 0;
    for _ in 0..throws {
        let (x, y) = (f64::from(next()), f64::from(next()));
        let radius = f64::from(u32::MAX);
        hits += u64::from(x * x + y * y <= radius * radius);
    }
    hits
}
