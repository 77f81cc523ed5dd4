//! The mean arrival delay of every carrier, from a file of flights with a header line: the driver cuts
//! the file into parts and sends them to its tasks, which send sums back.
//!
//! ```text
//! cargo build --release -p bobbin-appmaster --example flights
//! zcat examples/flights/flights-2013.csv.gz >target/release/examples/flights.csv
//! cd target/release/examples
//! bobbin submit --num-executors 2 --files flights -- ./flights flights.csv
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program with output"
)]

use std::collections::BTreeMap;
use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bobbin_appmaster::sdk::{Driver, Task};

/// Of a part, bytes; parts end at a line's end.
const PART_BYTES: usize = 1 << 20;

/// Flights that arrived and the sum of their delays in minutes, by carrier.
type Sums = BTreeMap<String, (u64, i64)>;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--task", carrier, delay] => task(carrier.parse()?, delay.parse()?),
        [file] => drive(file),
        _ => bail!("flights FILE.csv"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn drive(file: &str) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let (header, body) = text.split_once('\n').context("the file is empty")?;
    let column = |name: &str| {
        let at = header.split(',').position(|c| c.trim() == name);
        at.map(|at| at.to_string())
            .with_context(|| format!("no column '{name}' in {file}"))
    };
    let (carrier, delay) = (column("carrier")?, column("arr_delay")?);
    let driver = Driver::connect().await?;
    let (mut submitter, mut results) = driver.open_stage().await?;
    let submitting = async {
        for part in parts(body) {
            let task = Task::new(["./flights", "--task", &carrier, &delay]).with_stdin(part);
            if submitter.submit(task).await.is_none() {
                break;
            }
        }
        drop(submitter);
    };
    let collecting = async {
        let mut all = Sums::new();
        while let Some(result) = results.next_result().await {
            let result = result?;
            if !result.is_success() {
                bail!(
                    "task {} failed with {}: {}{}",
                    result.id,
                    result.exit_status,
                    result.problem,
                    String::from_utf8_lossy(&result.stderr)
                );
            }
            add(&mut all, &String::from_utf8(result.stdout)?)?;
        }
        Ok(all)
    };
    let ((), all) = tokio::join!(submitting, collecting);
    println!("carrier flights mean-delay");
    for (carrier, (flights, minutes)) in all? {
        #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
        let mean = minutes as f64 / flights as f64;
        println!("{carrier:7} {flights:7} {mean:10.2}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Pieces of whole lines.
fn parts(body: &str) -> impl Iterator<Item = &str> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let bytes = rest.as_bytes();
        let from = bytes.len().min(PART_BYTES);
        let end = bytes[from..].iter().position(|b| *b == b'\n');
        let (part, after) = rest.split_at(end.map_or(bytes.len(), |at| from + at + 1));
        rest = after;
        Some(part)
    })
}

/// Sums up the part on stdin; flights without an arrival are passed over.
fn task(carrier: usize, delay: usize) -> anyhow::Result<ExitCode> {
    let mut part = String::new();
    std::io::stdin().read_to_string(&mut part)?;
    let mut sums = Sums::new();
    for line in part.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let (Some(carrier), Some(delay)) = (fields.get(carrier), fields.get(delay)) else {
            bail!("too few fields: {line}");
        };
        if let Ok(minutes) = delay.parse::<f64>() {
            let sum = sums.entry((*carrier).to_owned()).or_default();
            sum.0 += 1;
            #[expect(clippy::cast_possible_truncation, reason = "whole minutes")]
            let minutes = minutes as i64;
            sum.1 += minutes;
        }
    }
    for (carrier, (flights, minutes)) in sums {
        println!("{carrier} {flights} {minutes}");
    }
    Ok(ExitCode::SUCCESS)
}

fn add(all: &mut Sums, text: &str) -> anyhow::Result<()> {
    for line in text.lines() {
        let [carrier, flights, minutes] = line.split(' ').collect::<Vec<_>>()[..] else {
            bail!("a task said: {line}");
        };
        let sum = all.entry(carrier.to_owned()).or_default();
        sum.0 += flights.parse::<u64>()?;
        sum.1 += minutes.parse::<i64>()?;
    }
    Ok(())
}
