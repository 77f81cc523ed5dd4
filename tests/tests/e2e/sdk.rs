//! The examples for drivers, as their headers say they are run: Rust and Python.

use std::path::{Path, PathBuf};
use std::process::Command;

use bobbin_tests::{RunExt, bobbin, program, root, skipped};

/// A folder with a built example as a driver finds it beside its data.
fn with_example(name: &str) -> tempfile::TempDir {
    let built = program("bobbin").parent().unwrap().join("examples");
    let folder = tempfile::Builder::new()
        .prefix("bobbin-test-")
        .tempdir()
        .unwrap();
    // `cargo build --examples` makes it.
    std::fs::copy(built.join(name), folder.path().join(name)).unwrap();
    folder
}

fn local(folder: &Path, argv: &[&str]) -> Command {
    let mut submit = bobbin();
    submit
        .args(["submit", "--master", "local[2]", "--"])
        .args(argv)
        .current_dir(folder);
    submit
}

fn is_about_pi(words: &str) {
    let digits = words.trim().rsplit(' ').next().unwrap();
    let pi: f64 = digits.parse().unwrap();
    assert!((pi - std::f64::consts::PI).abs() < 0.05, "{words}");
}

#[test]
fn pi_in_rust() {
    let folder = with_example("pi");
    let run = local(folder.path(), &["./pi", "8", "20000"])
        .run()
        .expect_code(0);
    is_about_pi(&run.stdout);
}

/// Its tasks hand out Arrow record batches, which the driver puts together.
#[test]
#[expect(clippy::disallowed_methods, reason = "gzip unpacks the flights")]
fn flights_in_rust() {
    let folder = with_example("flights");
    let flights = root().join("examples/flights/flights-2013.csv.gz");
    let unpacked = Command::new("gzip")
        .arg("-dc")
        .arg(flights)
        .output()
        .unwrap();
    std::fs::write(folder.path().join("flights.csv"), unpacked.stdout).unwrap();
    let run = local(folder.path(), &["./flights", "flights.csv"])
        .run()
        .expect_code(0);
    let united = run.stdout.lines().find(|l| l.starts_with("UA"));
    let words: Vec<_> = united.unwrap_or_default().split_whitespace().collect();
    assert_eq!(words, ["UA", "57782", "3.56"], "{run:?}");
    assert_eq!(run.stdout.lines().count(), 17, "{run:?}");
}

/// A Python with stock grpcio from PyPI, made by `tests/grpc-install`.
fn python(test: &str) -> Option<PathBuf> {
    let python = root().join("target/grpc-python/bin/python");
    if python.exists() && root().join("target/grpc-python/installed").exists() {
        return Some(python);
    }
    skipped(
        test,
        "there is no target/grpc-python: run tests/grpc-install",
    );
    None
}

#[test]
fn pi_in_python() {
    let Some(python) = python("pi_in_python") else {
        return;
    };
    let script = root().join("examples/python-driver/pi.py");
    let argv = [
        python.to_str().unwrap(),
        script.to_str().unwrap(),
        "8",
        "20000",
    ];
    let run = local(root(), &argv).run().expect_code(0);
    is_about_pi(&run.stdout);
}

/// The same over Arrow IPC streams, written by pyarrow in the tasks.
#[test]
fn pi_in_python_with_arrow() {
    let Some(python) = python("pi_in_python_with_arrow") else {
        return;
    };
    let script = root().join("examples/python-driver/pi.py");
    let argv = [
        python.to_str().unwrap(),
        script.to_str().unwrap(),
        "--arrow",
        "8",
        "20000",
    ];
    let run = local(root(), &argv).run().expect_code(0);
    is_about_pi(&run.stdout);
    assert!(run.stderr.contains("8 rows from 8 tasks"), "{run:?}");
}
