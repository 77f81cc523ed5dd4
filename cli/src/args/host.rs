//! Flags of `up`, `down`, `token`, `client-config`, `doctor` and `completions`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::FormatArgs;
use crate::parse;

/// Starts a whole cluster on this host
#[derive(Debug, Args)]
#[command(
    about = "Starts a whole cluster on this host, on loopback only",
    long_about = "Starts a whole cluster on this host, on loopback only.\n\n\
        Everything is kept below DIR, also DIR/env, which a shell reads to use the cluster. The host's \
        memory is divided among the nodes; each offers max(8, 4 x cores) vcores. The first `up` picks \
        free ports and keeps them in DIR/conf. On a living cluster `up` says so; when daemons are dead \
        it starts them again, and they recover.",
    after_help = "Examples:\n  \
        bobbin up --nodes 2 --dir /tmp/cluster --detach && . /tmp/cluster/env\n  \
        bobbin up"
)]
pub(crate) struct UpArgs {
    /// How many nodes; a cluster that is there keeps its number
    #[arg(long, value_name = "N", value_parser = parse::nodes)]
    pub(crate) nodes: Option<u32>,
    /// The cluster's folder [default: $BOBBIN_DIR, else bobbin in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Return when the cluster is ready; otherwise stay, and end it at Ctrl+C
    #[arg(long)]
    pub(crate) detach: bool,
}

/// Ends a cluster that `up` started
#[derive(Debug, Args)]
#[command(
    about = "Ends a cluster that `up` started, its containers too, without a trace",
    long_about = "Ends a cluster that `up` started, its containers too, without a trace.\n\n\
        Running applications are killed. DIR stays, with settings, history and logs: another `up` \
        starts the same cluster again.",
    after_help = "Example:\n  bobbin down --dir /tmp/cluster"
)]
pub(crate) struct DownArgs {
    /// The cluster's folder [default: $BOBBIN_DIR, else bobbin in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    Create(TokenCreateArgs),
}

/// Makes a token
#[derive(Debug, Args)]
#[command(
    about = "Makes a token: your own, a user's or a node's",
    after_help = "Examples:\n  \
        bobbin token create --valid 12h --out ~/.bobbin-token\n  \
        bobbin token create --hadoop ~/.hadoop-token\n  \
        bobbin token create --node worker7 --out worker7.token"
)]
pub(crate) struct TokenCreateArgs {
    /// For this user; administrators only, when it is another than yourself
    #[arg(long, value_name = "USER", conflicts_with = "node")]
    pub(crate) user: Option<String>,
    /// For the node agent of this host; administrators only
    #[arg(long, value_name = "HOST")]
    pub(crate) node: Option<String>,
    /// How long it is good for
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, default_value = "7d")]
    pub(crate) valid: Duration,
    /// Write it to this file, readable by you only, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write it to this file as Hadoop's clients (spark-submit, yarn) read it: it proves its user
    /// where HADOOP_TOKEN_FILE_LOCATION names it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["node", "out"])]
    pub(crate) hadoop: Option<PathBuf>,
}

/// Writes the configuration of Hadoop's clients
#[derive(Debug, Args)]
#[command(
    about = "Writes core-site.xml and yarn-site.xml for Hadoop's clients: spark-submit, yarn",
    long_about = "Writes core-site.xml and yarn-site.xml for Hadoop's clients: spark-submit, yarn.\n\n\
        What is in them comes from the resource manager, which must run. `export HADOOP_CONF_DIR=DIR` \
        is all that an unmodified Spark needs then. Off the resource manager's host a token is needed \
        too (`bobbin token create`).",
    after_help = "Examples:\n  \
        bobbin client-config --out /etc/bobbin/hadoop\n  \
        bobbin client-config --out conf --host rm.example --token-file '${user.home}/.bobbin-token'"
)]
pub(crate) struct ClientConfigArgs {
    /// The folder to write into; files of others in it are left alone
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What clients call the resource manager's host [default: the address it listens on; where that is
    /// every address, its name here]
    #[arg(long, value_name = "HOST", value_parser = parse::host)]
    pub(crate) host: Option<String>,
    /// A token file that every client reads, so that no variable is needed; Hadoop's variables and
    /// lists are kept as they are
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<String>,
}

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// The resource manager
    Rm,
    /// A node agent
    Node,
    /// Spark and other clients of YARN
    Spark,
}

/// Checks this host
#[derive(Debug, Args)]
#[command(
    about = "Checks what this host has and lacks, and whether the cluster can be reached",
    long_about = "Checks what this host has and lacks, and whether the cluster can be reached.\n\n\
        For the resource manager and node agents: kernel, control groups, programs, ports, run files, \
        disk. For Spark: Java, Spark's jars, HADOOP_CONF_DIR, tokens. Each finding is `ok`, a `note` \
        (works, with less) or `bad` (does not work), with what to try. Ends with 1 if anything is bad.",
    after_help = "Examples:\n  bobbin doctor\n  bobbin doctor --for node -o json"
)]
pub(crate) struct DoctorArgs {
    /// Only what this needs; may be repeated
    #[arg(long = "for", value_enum, value_name = "ROLE")]
    pub(crate) roles: Vec<Role>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// Prints completions for a shell
#[derive(Debug, Args)]
#[command(
    about = "Prints completions for a shell",
    after_help = "Example:\n  bobbin completions bash > /etc/bash_completion.d/bobbin"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}
