//! The command tree: flags, help texts and examples. Values are checked where they are parsed.

mod application;
mod host;
mod submit;
mod top;

pub(crate) use application::{
    AppCommand, AppContainersArgs, AppIdsArgs, AppKillArgs, AppListArgs, AppLogsArgs, AppMoveArgs,
    AppPriorityArgs, AppStatusArgs, AppTimeoutArgs, AppWaitArgs, NodeCommand, NodeListArgs,
    NodeStatusArgs, WhichArgs,
};
pub(crate) use host::{
    ClientConfigArgs, CompletionsArgs, DoctorArgs, DownArgs, Role, TokenCommand, TokenCreateArgs,
    UpArgs,
};
pub(crate) use submit::{DeployMode, MapArgs, Master, OnInterrupt, SubmitArgs};
pub(crate) use top::TopArgs;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Bobbin runs programs on the machines of a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "bobbin",
    version,
    about = "Runs programs on the machines of a cluster, in containers",
    after_help = "Examples:\n  \
        bobbin up --nodes 2 --dir /tmp/cluster --detach && . /tmp/cluster/env\n  \
        bobbin submit --deploy-mode cluster -- sh -c 'echo hello from $BOBBIN_NODE_ID'\n  \
        bobbin app list\n  \
        bobbin down --dir /tmp/cluster",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Where the resource manager is: its socket's path, or host:port
    ///
    /// Without it: BOBBIN_RM_SOCKET, BOBBIN_RM_ADDRESS, then client.toml in BOBBIN_CONF_DIR (default
    /// /etc/bobbin), then /run/bobbin/resourcemanager.sock.
    #[arg(long, global = true, value_name = "ADDRESS", display_order = 900)]
    pub(crate) rm: Option<String>,

    /// No progress and no notes on standard error; errors stay
    #[arg(short, long, global = true, display_order = 901)]
    pub(crate) quiet: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(UpArgs),
    Down(DownArgs),
    Submit(Box<SubmitArgs>),
    Map(MapArgs),
    App(AppArgs),
    Node(NodeArgs),
    Top(TopArgs),
    Token(TokenArgs),
    ClientConfig(ClientConfigArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
    /// Prints the version
    #[command(after_help = "Example:\n  bobbin version")]
    Version,
    /// Starts a daemon in a session of its own; `up` uses it.
    #[command(hide = true)]
    DaemonExec(DaemonExecArgs),
}

/// Lists, follows and ends applications
#[derive(Debug, Args)]
#[command(
    about = "Lists, follows and ends applications",
    after_help = "An application's id may be written whole, as a unique end of it (0007), or as @last, \
        your newest.\n\nExample:\n  bobbin app status @last",
    disable_help_subcommand = true
)]
pub(crate) struct AppArgs {
    #[command(subcommand)]
    pub(crate) command: AppCommand,
}

/// Lists the machines of the cluster
#[derive(Debug, Args)]
#[command(
    about = "Lists the machines of the cluster",
    after_help = "Example:\n  bobbin node list",
    disable_help_subcommand = true
)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

/// Makes tokens: proofs of identity off this host
#[derive(Debug, Args)]
#[command(
    about = "Makes tokens: proofs of identity for other hosts",
    after_help = "Example:\n  bobbin token create --node worker7 --out worker7.token",
    disable_help_subcommand = true
)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Args)]
pub(crate) struct DaemonExecArgs {
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    pub(crate) argv: Vec<std::ffi::OsString>,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// JSON with stable field names
    Json,
    /// The same fields as YAML
    Yaml,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FormatArgs {
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: Format,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    /// Every command a person can see has words and an example.
    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path}: no words");
            let after = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(after.contains("Example"), "{path}: no example");
            for child in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                check(child, &format!("{path} {}", child.get_name()));
            }
        }
        check(&Cli::command(), "bobbin");
    }

    /// The examples are commands that parse.
    #[test]
    fn examples_parse() {
        fn collect(command: &clap::Command, found: &mut Vec<String>) {
            let after = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            found.extend(
                after
                    .lines()
                    .map(str::trim)
                    .filter(|l| l.starts_with("bobbin "))
                    .map(str::to_owned),
            );
            command.get_subcommands().for_each(|c| collect(c, found));
        }
        let mut examples = Vec::new();
        collect(&Cli::command(), &mut examples);
        assert!(examples.len() > 20, "{}", examples.len());
        for example in examples {
            let first = example.split(" && ").next().unwrap();
            let first = first.split(" > ").next().unwrap();
            let parsed = Cli::try_parse_from(shell_words(first));
            assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
        }
    }

    /// Enough of a shell's splitting for the examples.
    fn shell_words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quote = None;
        for c in line.chars() {
            match (quote, c) {
                (None, '\'' | '"') => quote = Some(c),
                (Some(q), c) if q == c => quote = None,
                (None, ' ') => words.push(String::new()),
                (Some(_) | None, c) => words.last_mut().unwrap().push(c),
            }
        }
        words
    }

    #[test]
    fn submit_takes_everything_behind_the_program() {
        for line in [
            [
                "bobbin",
                "submit",
                "--num-executors",
                "2",
                "--",
                "sh",
                "-c",
                "exit 7",
            ],
            [
                "bobbin",
                "submit",
                "--num-executors",
                "2",
                "sh",
                "-c",
                "exit 7",
                "--name",
            ],
        ] {
            let Command::Submit(args) = Cli::try_parse_from(line).unwrap().command else {
                unreachable!("submit was typed")
            };
            assert_eq!(args.num_executors, 2);
            assert_eq!(args.program[..2], ["sh", "-c"]);
            assert_eq!(
                args.program.len(),
                line.len() - if line[4] == "--" { 5 } else { 4 }
            );
        }
    }
}
