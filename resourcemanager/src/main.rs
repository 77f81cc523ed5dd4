//! The resource manager daemon.
//!
//! Tasks: one driver (owns the core, see `driver.rs`), the gRPC servers' connections and streams
//! (translate only), one task a log relay. Threads beside the runtime's: "journal" (owns the log),
//! "store" (owns the index). At start the journal is replayed before a door opens.
//!
//! Deliberately absent: any decision about applications, containers and nodes; those are the core's.

mod config;
mod driver;
mod file_tree;
mod grpc;
mod minter;
mod outbox;
mod records;
mod requests;
mod revoked;
mod start;
mod store;
mod watchers;
mod web;
mod yarn;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use config::{Config, Settings};

/// Bobbin's resource manager: knows every application and grants containers on nodes.
#[derive(Debug, Parser)]
#[command(
    name = "bobbin-resourcemanager",
    version,
    after_help = "Example: bobbin-resourcemanager --conf /etc/bobbin/resourcemanager.toml"
)]
struct Arguments {
    /// The settings file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/bobbin/resourcemanager.toml"
    )]
    conf: PathBuf,
    /// Check the settings and exit.
    #[arg(long)]
    check: bool,
    /// Override one setting, as a.b=value. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    settings: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("'{text}' is not KEY=VALUE"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    bobbin_service::init_logging("info");
    let config = match settings(&arguments) {
        Ok(config) => config,
        Err(e) => {
            tracing::error!("{e:#}");
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        tracing::info!("{} is well", arguments.conf.display());
        return ExitCode::SUCCESS;
    }
    match start::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn settings(arguments: &Arguments) -> anyhow::Result<Config> {
    let settings: Settings =
        bobbin_service::load(&arguments.conf, "BOBBIN_RM", &arguments.settings)?;
    let config = settings.check();
    config.map_err(|e| anyhow::anyhow!("{}: {e}", arguments.conf.display()))
}
