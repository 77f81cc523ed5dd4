//! Flags of `submit` and `map`.
#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "these comments are the help texts"
)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::parse;

/// Where the driver runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeployMode {
    /// Here, with this terminal; its executors run on the cluster
    #[default]
    Client,
    /// In a container on a node; relaunched when it fails
    Cluster,
}

/// What runs the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Master {
    /// The cluster whose resource manager is reached as every command reaches it.
    Cluster,
    /// This host without any daemon, with so many task slots.
    Local { slots: u32 },
}

/// What Ctrl+C does to a waiting cluster-mode submit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnInterrupt {
    /// Kill the application
    #[default]
    Kill,
    /// Leave it running and return
    Detach,
}

impl std::str::FromStr for Master {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "'{}' is no master: write bobbin, local, local[N] or local[*]",
                parse::shown(text)
            )
        };
        match text {
            // Who comes from Spark may type what he always typed.
            "bobbin" | "yarn" => return Ok(Master::Cluster),
            "local" => return Ok(Master::Local { slots: 1 }),
            _ => {}
        }
        let slots = text
            .strip_prefix("local[")
            .and_then(|t| t.strip_suffix(']'))
            .ok_or_else(refused)?;
        if slots == "*" {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            return Ok(Master::Local {
                slots: u32::try_from(cores).unwrap_or(u32::MAX),
            });
        }
        match slots.parse() {
            Ok(slots @ 1..=4096) => Ok(Master::Local { slots }),
            Ok(_) | Err(_) => Err(refused()),
        }
    }
}

/// Runs a program as the driver of a new application
#[derive(Debug, Args)]
#[command(
    about = "Runs a program as the driver of a new application, and ends with its exit status",
    long_about = "Runs a program as the driver of a new application, and ends with its exit status.\n\n\
        The driver's output comes out here: in cluster mode it is followed line by line while the \
        application runs. PROGRAM is the node's own when it is a bare name or an absolute path; a \
        relative path with a slash (./driver) is shipped, and so are --files and --archives. The \
        environment here does not travel, except what --env names.",
    after_help = "Examples:\n  \
        bobbin submit --deploy-mode cluster -- sh -c 'echo $BOBBIN_APPLICATION_ID; exit 7'\n  \
        bobbin submit --deploy-mode cluster --num-executors 2 -- sh -c 'seq 20 | bobbin map -- expr {} * {}'\n  \
        bobbin submit --deploy-mode cluster --files data.csv --driver-memory 2g -- ./driver data.csv\n  \
        bobbin submit --deploy-mode cluster --files https://host/data.csv#in.csv -- ./driver in.csv\n  \
        bobbin submit --master local[4] -- ./driver\n  \
        bobbin submit --deploy-mode cluster --detach -- sleep 60\n\n\
        Exit codes: the driver's; 128+n when signal n ended it; 137 killed or above its memory; 125 \
        Bobbin failed or refused; 126 not executable; 127 not found; 2 wrong usage."
)]
pub(crate) struct SubmitArgs {
    /// The program and its arguments
    #[arg(
        trailing_var_arg = true,
        required = true,
        value_name = "PROGRAM [ARGS]"
    )]
    pub(crate) program: Vec<String>,

    /// bobbin, or local[N] and local[*]: driver and executors on this host without any daemon
    #[arg(long, value_name = "MASTER", default_value = "bobbin")]
    pub(crate) master: Master,

    /// Where the driver runs
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    pub(crate) deploy_mode: DeployMode,

    /// The application's name; the program's when not given
    #[arg(long, value_parser = parse::name)]
    pub(crate) name: Option<String>,

    /// The queue it waits in
    #[arg(long, value_parser = parse::queue, default_value = "default")]
    pub(crate) queue: String,

    /// Memory of the driver's container: 512m, 2g; Bobbin's own 64 MiB are added
    #[arg(long, value_name = "SIZE", value_parser = parse::memory_mib, default_value = "512m")]
    pub(crate) driver_memory: u64,

    /// Cores of the driver's container
    #[arg(long, value_name = "N", value_parser = parse::cores, default_value = "1")]
    pub(crate) driver_cores: u32,

    /// Executors to hold all the time
    #[arg(long, value_name = "N", value_parser = parse::executors, default_value = "0")]
    pub(crate) num_executors: u32,

    /// Memory of each executor's container
    #[arg(long, value_name = "SIZE", value_parser = parse::memory_mib, default_value = "1g")]
    pub(crate) executor_memory: u64,

    /// Cores, and so task slots, of each executor
    #[arg(long, value_name = "N", value_parser = parse::cores, default_value = "1")]
    pub(crate) executor_cores: u32,

    /// Files to have beside the driver, separated by commas; FILE#NAME gives another name. The nodes
    /// fetch http(s):, s3:, abfs: and gs: URLs themselves; URL#sha256=HEX says what must come
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    pub(crate) files: Vec<String>,

    /// Archives to have unpacked beside the driver, in a folder of the archive's name; FILE#NAME gives
    /// another; zip, jar, tar, tgz, tar.zst
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    pub(crate) archives: Vec<String>,

    /// File with the credentials that URLs of --files and --archives are fetched with; its form is in
    /// docs/reference/sources.md
    #[arg(long, value_name = "FILE")]
    pub(crate) object_store: Option<PathBuf>,

    /// A setting of the application, such as task.max-failures=2; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::setting)]
    pub(crate) conf: Vec<(String, String)>,

    /// A variable of the driver's environment: K=V, or K for the value it has here; may be repeated
    #[arg(long, value_name = "K=V", value_parser = parse::environment)]
    pub(crate) env: Vec<(String, String)>,

    /// A file with one K=V or K a line, as --env takes them, and # before comments; --env counts more
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,

    /// A file with one setting a line, KEY=VALUE or KEY VALUE, and # before comments; --conf counts
    /// more
    #[arg(long, value_name = "FILE")]
    pub(crate) properties_file: Option<PathBuf>,

    /// Words to find it by, separated by commas
    #[arg(long, value_name = "TAGS", value_delimiter = ',', value_parser = parse::tag)]
    pub(crate) tags: Vec<String>,

    /// How often the driver is started before the application has failed (cluster mode)
    #[arg(long, value_name = "N", value_parser = parse::attempts, default_value = "2")]
    pub(crate) max_attempts: u32,

    /// Kill it when it has not ended after so long: 90s, 10m, 2h
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    pub(crate) timeout: Option<Duration>,

    /// Print the application's id and return at once (cluster mode)
    #[arg(long, conflicts_with = "tie_to_client")]
    pub(crate) detach: bool,

    /// Kill the application when this command dies, however it dies (cluster mode)
    #[arg(long)]
    pub(crate) tie_to_client: bool,

    /// What Ctrl+C does while waiting (cluster mode)
    #[arg(long, value_enum, value_name = "ACTION", default_value_t)]
    pub(crate) on_interrupt: OnInterrupt,
}

/// Runs one task per input on the application's executors
#[derive(Debug, Args)]
#[command(
    about = "Inside a driver: runs one task per input on the executors",
    long_about = "Inside a driver: runs one task per input on the executors.\n\n\
        Every {} in every argument becomes the input, unquoted. The task finds its input also in \
        BOBBIN_TASK_INPUT. Output comes in the \
        order of the inputs. A task that fails is tried again elsewhere, up to task.max-failures times.",
    after_help = "Examples:\n  \
        bobbin map --inputs parts.txt -- ./sum-part {}\n  \
        bobbin map -0 -- wc -c {}\n\n\
        Exit codes: 0 every task succeeded, 1 a task finally failed, 5 there are no executors."
)]
pub(crate) struct MapArgs {
    /// The command of a task, with {} for its input
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD {}")]
    pub(crate) command: Vec<String>,

    /// File with one input a line; - is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) inputs: PathBuf,

    /// Inputs end with NUL instead of a line end
    #[arg(short = '0', long = "null")]
    pub(crate) null: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters() {
        assert_eq!("bobbin".parse(), Ok(Master::Cluster));
        assert_eq!("local".parse(), Ok(Master::Local { slots: 1 }));
        assert_eq!("local[3]".parse(), Ok(Master::Local { slots: 3 }));
        assert!(matches!(
            "local[*]".parse(),
            Ok(Master::Local { slots: 1.. })
        ));
        for bad in [
            "",
            "local[0]",
            "local[-1]",
            "local[",
            "local[2",
            "spark://x",
            "local[2]x",
        ] {
            assert!(bad.parse::<Master>().is_err(), "{bad}");
        }
    }
}
