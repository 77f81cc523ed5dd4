//! Flags of `top`.

use std::time::Duration;

use clap::Args;

use super::Format;
use crate::parse;

/// Shows the cluster as it changes
#[derive(Debug, Args)]
#[command(
    about = "Shows applications, nodes and containers as they change",
    long_about = "Shows applications, nodes and containers as they change, with what they have and use.\n\n\
        ? shows the keys. With --once, -n or -o it prints for programs instead: nodes and applications, \
        or the containers of ID; as JSON a line each time when there are several.",
    after_help = "Examples:\n  \
        bobbin top\n  \
        bobbin top @last --interval 500ms\n  \
        bobbin top --once -o json"
)]
pub(crate) struct TopArgs {
    /// Show this application's containers first
    #[arg(value_name = "ID", value_parser = parse::id)]
    pub(crate) id: Option<String>,
    /// Between two looks: 500ms, 2s, 1m; at least 100ms
    #[arg(long, short = 'd', value_name = "DURATION", default_value = "1s", value_parser = parse::interval)]
    pub(crate) interval: Duration,
    /// Print once and end
    #[arg(long, conflicts_with = "rounds")]
    pub(crate) once: bool,
    /// Print so many times and end
    #[arg(short = 'n', long = "rounds", value_name = "N", value_parser = parse::rounds)]
    pub(crate) rounds: Option<u32>,
    /// Print in this format and end, once without -n
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// Ended applications too
    #[arg(long)]
    pub(crate) all: bool,
}
