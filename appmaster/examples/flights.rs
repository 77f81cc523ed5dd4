//! The mean arrival delay of every carrier, from a file of flights with a header line: the driver cuts
//! the file into parts and sends them to its tasks, which send sums back as Arrow record batches.
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
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt64Type};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow_ipc::writer::StreamWriter;
use bobbin_appmaster::sdk::{Driver, Task, concat_results};

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
    let tasks = parts(body).map(|part| {
        Task::new(["./flights", "--task", &carrier, &delay])
            .with_stdin(part)
            .with_arrow_result()
    });
    let results = driver.run(tasks).await?;
    for result in results.iter().filter(|r| !r.is_success()) {
        eprint!("{}", String::from_utf8_lossy(&result.stderr));
    }
    println!("carrier flights mean-delay");
    for (carrier, (flights, minutes)) in sum_up(&concat_results(&results)?) {
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
    // The record batch goes to stdout; words would go to stderr.
    let batch = RecordBatch::try_from_iter([
        (
            "carrier",
            Arc::new(StringArray::from_iter_values(sums.keys())) as ArrayRef,
        ),
        (
            "flights",
            Arc::new(UInt64Array::from_iter_values(sums.values().map(|s| s.0))),
        ),
        (
            "minutes",
            Arc::new(Int64Array::from_iter_values(sums.values().map(|s| s.1))),
        ),
    ])?;
    let mut writer = StreamWriter::try_new(std::io::stdout().lock(), &batch.schema())?;
    writer.write(&batch)?;
    writer.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// The sums of all parts together, from the rows of all tasks.
fn sum_up(rows: &RecordBatch) -> Sums {
    let carriers = rows.column(0).as_string::<i32>();
    let flights = rows.column(1).as_primitive::<UInt64Type>();
    let minutes = rows.column(2).as_primitive::<Int64Type>();
    let mut all = Sums::new();
    for row in 0..rows.num_rows() {
        let sum = all.entry(carriers.value(row).to_owned()).or_default();
        sum.0 += flights.value(row);
        sum.1 += minutes.value(row);
    }
    all
}
