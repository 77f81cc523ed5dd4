//! `bobbin-executor`: task slots in one container. It takes no arguments: the application master
//! starts it with an environment.

use std::process::ExitCode;

use bobbin_appmaster::{ExecutorOptions, run_executor};

fn main() -> ExitCode {
    bobbin_service::init_logging("warn,bobbin_appmaster=info");
    bobbin_service::raise_file_limit();
    match run() {
        Ok(code) => code,
        Err(e) => {
            tracing::error!("{e:#}");
            ExitCode::from(125)
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let options = ExecutorOptions::from_environment()?;
    // One thread: tasks are processes, and what is left to do here is to move their bytes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = bobbin_service::on_signals()?;
        Ok(run_executor(options, stop).await)
    })
}
