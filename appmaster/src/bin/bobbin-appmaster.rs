//! `bobbin-appmaster -- PROGRAM [ARGS...]`: the native application master in its container.
//!
//! `bobbin-appmaster --guard PARENT FOLDER -- PROGRAM [ARGS...]` is the parent of a driver outside
//! containers; `bobbin submit` starts it.

use std::path::PathBuf;
use std::process::ExitCode;

use bobbin_appmaster::{ClusterMode, run_cluster_mode, run_guard};

/// Bobbin failed, not the driver.
const BOBBIN_FAILED: u8 = 125;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    arguments.next();
    let arguments: Vec<_> = arguments.collect();
    match arguments.as_slice() {
        [guard, parent, folder, dashes, argv @ ..]
            if guard == "--guard" && dashes == "--" && !argv.is_empty() =>
        {
            match parent.parse() {
                Ok(parent) => run_guard(parent, &PathBuf::from(folder), argv),
                Err(_) => usage(),
            }
        }
        [dashes, argv @ ..] if dashes == "--" && !argv.is_empty() => run_driver(argv),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    bobbin_service::init_logging("info");
    tracing::error!("usage: bobbin-appmaster -- PROGRAM [ARGS...]");
    ExitCode::from(USAGE)
}

fn run_driver(argv: &[String]) -> ExitCode {
    // The container's stderr is the driver's: only what somebody must read goes there.
    bobbin_service::init_logging("error");
    match drive(argv) {
        Ok(code) => code,
        Err(e) => {
            tracing::error!("{e:#}");
            ExitCode::from(BOBBIN_FAILED)
        }
    }
}

fn drive(argv: &[String]) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mode = {
        let _inside = runtime.enter();
        ClusterMode::start(argv)?
    };
    let status = runtime.block_on(run_cluster_mode(mode))?;
    Ok(ExitCode::from(status.process_code()))
}
