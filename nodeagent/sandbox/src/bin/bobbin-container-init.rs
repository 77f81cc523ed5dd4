//! The container launcher's program: see the crate's documentation.
use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::FAILURE
}
