//! `bobbin version`.

use crate::exit_codes::DONE;
use crate::failure::Outcome;
use crate::output;

pub(crate) fn run() -> Outcome {
    output::stdout(concat!("bobbin ", env!("CARGO_PKG_VERSION"), "\n").as_bytes())?;
    Ok(DONE)
}
