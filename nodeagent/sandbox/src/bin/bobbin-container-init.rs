//! The container launcher's program, only for the node agent: `--serve` wants a control socket as
//! descriptor 3, `--hold` does nothing until its stdin ends.
//!
//! It has no other way to speak than its exit code: 0 served to the end, 1 could not, 2 usage.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(argument), None) if argument == "--serve" => match bobbin_sandbox::serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        (Some(argument), None) if argument == "--hold" => match bobbin_sandbox::hold() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        _ => ExitCode::from(2),
    }
}
