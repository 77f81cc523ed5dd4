//! Flags of `app` and `node`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::FormatArgs;
use crate::parse;

#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    List(AppListArgs),
    Status(AppStatusArgs),
    Attempts(AppIdsArgs),
    Containers(AppContainersArgs),
    Kill(AppKillArgs),
    Logs(AppLogsArgs),
    Wait(AppWaitArgs),
    Move(AppMoveArgs),
    Priority(AppPriorityArgs),
    Timeout(AppTimeoutArgs),
}

/// Lists all known applications, newest first
#[derive(Debug, Args)]
#[command(
    about = "Lists all known applications, newest first",
    after_help = "Examples:\n  \
        bobbin app list --state RUNNING -o json\n  \
        bobbin app list --queue night --tag etl,hourly --limit 20"
)]
pub(crate) struct AppListArgs {
    /// Only those in one of these states (NEW, ACCEPTED, RUNNING, FINISHED, FAILED, KILLED, ...)
    #[arg(long, value_name = "STATES", value_delimiter = ',', value_parser = state)]
    pub(crate) state: Vec<String>,
    /// Only those that ended so: SUCCEEDED, FAILED, KILLED; UNDEFINED has not ended
    #[arg(long = "final", value_name = "STATUS", value_parser = final_status)]
    pub(crate) final_status: Option<String>,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// Which applications: all conditions together
#[derive(Debug, Default, Args)]
pub(crate) struct WhichArgs {
    /// Only this user's
    #[arg(
        long,
        value_name = "USER",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) user: String,
    /// Only in one of these queues
    #[arg(long, value_name = "QUEUES", value_delimiter = ',', value_parser = parse::queue)]
    pub(crate) queue: Vec<String>,
    /// Only with one of these tags
    #[arg(long, value_name = "TAGS", value_delimiter = ',', value_parser = parse::tag)]
    pub(crate) tag: Vec<String>,
    /// Only of one of these types (BOBBIN, SPARK, ...)
    #[arg(long = "type", value_name = "TYPES", value_delimiter = ',', value_parser = parse::queue)]
    pub(crate) application_type: Vec<String>,
    /// Only with exactly this name
    #[arg(long, value_name = "NAME", value_parser = parse::name)]
    pub(crate) name: Option<String>,
}

fn final_status(text: &str) -> Result<String, String> {
    let status: bobbin_types::FinalStatus = text.to_ascii_uppercase().parse()?;
    Ok(status.as_str().to_owned())
}

fn state(text: &str) -> Result<String, String> {
    let state: bobbin_types::YarnApplicationState = text.to_ascii_uppercase().parse()?;
    Ok(state.as_str().to_owned())
}

/// Shows one application: state, attempts, why it waits or how it ended
#[derive(Debug, Args)]
#[command(
    about = "Shows one application: state, attempts, why it waits or how it ended",
    after_help = "Of several, JSON and YAML are a list.\n\nExample:\n  bobbin app status @last -o json"
)]
pub(crate) struct AppStatusArgs {
    /// The applications
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// Lists an application's attempts: each start of its driver
#[derive(Debug, Args)]
#[command(
    about = "Lists an application's attempts: each start of its driver",
    after_help = "Of several, JSON and YAML are a list with each one's id.\n\n\
        Example:\n  bobbin app attempts @last"
)]
pub(crate) struct AppIdsArgs {
    /// The applications
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// Lists an application's containers
#[derive(Debug, Args)]
#[command(
    about = "Lists an application's containers, ended ones included",
    after_help = "Of several, JSON and YAML are a list with each one's id.\n\n\
        Example:\n  bobbin app containers 0007 --usage"
)]
pub(crate) struct AppContainersArgs {
    /// The applications
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    pub(crate) ids: Vec<String>,
    /// Ask the nodes what running ones use: memory, processor, processes
    #[arg(long)]
    pub(crate) usage: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// Kills applications; returns when every process of them is gone
#[derive(Debug, Args)]
#[command(
    about = "Kills applications; returns when every process of them is gone",
    after_help = "Killing what has ended is fine. With conditions instead of ids all of them hold \
        together, and what has not ended is killed.\n\nExamples:\n  \
        bobbin app kill 0007 0008\n  \
        bobbin app kill --tag hourly --queue night"
)]
pub(crate) struct AppKillArgs {
    /// The applications
    #[arg(
        value_name = "ID",
        required_unless_present_any = ["user", "queue", "tag", "application_type", "name"],
        conflicts_with_all = ["user", "queue", "tag", "application_type", "name"],
        value_parser = parse::id
    )]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    /// Return as soon as the kill is recorded
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Words that its diagnostics then hold
    #[arg(
        long,
        value_name = "WORDS",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
}

/// Prints what an application wrote
#[derive(Debug, Args)]
#[command(
    about = "Prints what an application wrote: the same bytes while it runs and after it ended",
    long_about = "Prints what an application wrote: the same bytes while it runs and after it ended.\n\n\
        Without --file the driver's stdout comes first and then its stderr; with -f both as they are \
        written. Of a relaunched driver it is the newest attempt, unless --attempt says another. Of several \
        applications one comes after the other, each named on stderr.",
    after_help = "Examples:\n  \
        bobbin app logs @last\n  \
        bobbin app logs 0007 -f --driver --file stderr\n  \
        bobbin app logs 0007 --container container_e01_1700000000000_0007_01_000002 --tail 20"
)]
pub(crate) struct AppLogsArgs {
    /// The applications
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    pub(crate) ids: Vec<String>,
    /// Go on printing until it has ended; Ctrl+C ends the following only. Of one application
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The driver's log (the default)
    #[arg(long, conflicts_with = "container")]
    pub(crate) driver: bool,
    /// A container's log: its id, or a unique end of it
    #[arg(long, value_name = "ID", value_parser = parse::id)]
    pub(crate) container: Option<String>,
    /// The driver's log of this attempt, from 1
    #[arg(long, value_name = "N", conflicts_with = "container", value_parser = parse::attempts)]
    pub(crate) attempt: Option<u32>,
    /// Only this file: stdout, stderr, or another name in the log folder
    #[arg(long, value_name = "NAME", value_parser = parse::file_name)]
    pub(crate) file: Option<String>,
    /// Only what was written in the last so long (10m, 2h), as far as the node knows
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    pub(crate) since: Option<Duration>,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<u64>,
}

/// Waits until applications have ended
#[derive(Debug, Args)]
#[command(
    about = "Waits until applications have ended, all of them",
    after_help = "Exit codes: 0 all succeeded, 1 one failed or was killed, 6 timed out.\n\n\
        Example:\n  bobbin app wait @last --timeout 10m"
)]
pub(crate) struct AppWaitArgs {
    /// The applications
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    pub(crate) ids: Vec<String>,
    /// Give up after so long, counted once for all: 90s, 10m
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    pub(crate) timeout: Option<Duration>,
}

/// Moves applications to another queue
#[derive(Debug, Args)]
#[command(
    about = "Moves applications to another queue",
    after_help = "What they have they keep.\n\nExample:\n  bobbin app move 0007 0008 night"
)]
pub(crate) struct AppMoveArgs {
    /// The applications
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    pub(crate) ids: Vec<String>,
    /// The queue
    #[arg(value_name = "QUEUE")]
    pub(crate) queue: String,
}

/// Sets how urgent applications are
#[derive(Debug, Args)]
#[command(
    about = "Sets how urgent applications are: a higher number is served first",
    after_help = "Example:\n  bobbin app priority 0007 0008 10"
)]
pub(crate) struct AppPriorityArgs {
    /// The applications
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    pub(crate) ids: Vec<String>,
    /// The priority; 0 unless it was submitted with another
    #[arg(value_name = "N", allow_negative_numbers = true)]
    pub(crate) priority: i32,
}

/// Sets when applications are ended if they still run
#[derive(Debug, Args)]
#[command(
    about = "Sets when applications are ended if they still run",
    after_help = "Counted from now, whatever was said before.\n\nExamples:\n  \
        bobbin app timeout 0007 0008 2h\n  \
        bobbin app timeout @last never"
)]
pub(crate) struct AppTimeoutArgs {
    /// The applications
    #[arg(value_name = "ID", required = true, value_parser = parse::id)]
    pub(crate) ids: Vec<String>,
    /// From now: 90s, 10m, 2h; or never
    #[arg(value_name = "DURATION", value_parser = after)]
    pub(crate) after: After,
}

/// A span of time from now, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct After(pub(crate) Option<Duration>);

fn after(text: &str) -> Result<After, String> {
    if text == "never" {
        return Ok(After(None));
    }
    parse::duration(text)
        .map(|span| After(Some(span)))
        .map_err(|problem| format!("{problem}, or never"))
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    List(NodeListArgs),
    Status(NodeStatusArgs),
}

/// Lists all nodes
#[derive(Debug, Args)]
#[command(
    about = "Lists all nodes",
    after_help = "Example:\n  bobbin node list -o json"
)]
pub(crate) struct NodeListArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// Shows one node: what it has, what it lacks
#[derive(Debug, Args)]
#[command(
    about = "Shows one node: what it has, and what it lacks",
    after_help = "Example:\n  bobbin node status worker7:8043"
)]
pub(crate) struct NodeStatusArgs {
    /// The node's id (host:port), or a unique part at its beginning or end
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}
