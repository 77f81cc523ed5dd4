//! `bobbin-nodeagent`: runs the containers of one node.
//!
//! Tasks: one driver that owns the core (`driver.rs`), one supervisor a container (`supervisor.rs`), one
//! stream to the resource manager (`rm_link.rs`), the gRPC door (`grpc.rs`), one sampler. Everything that
//! happens reaches the driver through its inbox; the driver answers through each task's own channel.
//!
//! Deliberately absent: any decision (they are the core's), polling (apart from the sampler, once a
//! second), and unsafe code. Containers outlive this process; `--end-containers` ends them.

mod account;
mod archive;
mod cache;
mod config;
mod disk_guard;
mod driver;
mod end;
mod fetch;
mod folder;
mod folders;
mod grpc;
mod launch;
mod live;
mod localizer;
mod logs;
mod node;
mod question;
mod readable;
mod ready;
mod records;
mod remote;
mod rm_link;
mod spare_folders;
mod start;
mod store;
mod supervisor;
mod systemd;
mod translate;
mod usage;
mod web;
mod webhdfs;
mod yarn;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::config::Config;

/// The node agent of a Bobbin cluster.
///
/// Runs containers that the resource manager granted, and keeps running them when it is restarted.
/// SIGTERM stops the agent only.
#[derive(Debug, Parser)]
#[command(name = "bobbin-nodeagent", version)]
#[command(after_help = "Example: bobbin-nodeagent --conf /etc/bobbin/nodeagent.toml")]
struct Arguments {
    /// Settings, TOML; every key is explained in the installed file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/bobbin/nodeagent.toml"
    )]
    conf: PathBuf,
    /// End every container that this agent's folders know, remove their groups, and exit.
    #[arg(long)]
    end_containers: bool,
    /// Check the settings and exit.
    #[arg(long, conflicts_with = "end_containers")]
    check: bool,
}

/// As for a wrong command line, and as the resource manager says it.
const BAD_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    bobbin_service::init_logging("info");
    let config = match Config::load(&arguments.conf) {
        Ok(config) => config,
        Err(e) => {
            tracing::error!("{:#}", anyhow::Error::from(e));
            return ExitCode::from(BAD_SETTINGS);
        }
    };
    match run(&arguments, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, config: Config) -> anyhow::Result<()> {
    if arguments.check {
        tracing::info!("{}: the settings are good", arguments.conf.display());
        return Ok(());
    }
    if arguments.end_containers {
        return end::end_containers(&config);
    }
    bobbin_service::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(Box::pin(start::serve(config)));
    // Blocking work that hangs (a dead disk) must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    result
}
