//! Without a terminal to draw on: so many looks, each printed whole.

use std::time::Duration;

use serde::Serialize;

use crate::args::{Format, TopArgs};
use crate::cluster::Cluster;
use crate::exit_codes::DONE;
use crate::failure::Outcome;
use crate::output::{self, Application, Container, Node};

use super::source::look;
use super::state::{List, Summary, View, Wanted, add_rates};

/// What one look prints as JSON or YAML.
#[derive(Debug, Serialize)]
struct Shown {
    /// Unix milliseconds.
    now_ms: u64,
    cluster: ShownCluster,
    #[serde(skip_serializing_if = "Option::is_none")]
    applications: Option<Vec<Application>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<Node>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    containers: Option<Vec<Container>>,
    /// Nodes that could not be asked what their containers use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent_nodes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ShownCluster {
    nodes: u32,
    applications: u64,
    memory_mib: u64,
    memory_used_mib: u64,
    vcores: u32,
    vcores_used: u32,
}

impl From<Summary> for ShownCluster {
    fn from(summary: Summary) -> ShownCluster {
        ShownCluster {
            nodes: summary.nodes,
            applications: summary.applications,
            memory_mib: summary.memory_mib,
            memory_used_mib: summary.memory_used_mib,
            vcores: summary.vcores,
            vcores_used: summary.vcores_used,
        }
    }
}

/// Prints `rounds` looks, `interval` apart.
pub(super) async fn run(
    cluster: &Cluster,
    args: &TopArgs,
    of: Option<String>,
    interval: Duration,
    rounds: u32,
) -> Outcome {
    let format = args.output.unwrap_or_default();
    let mut pace = tokio::time::interval(interval);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before: Vec<Container> = Vec::new();
    for round in 0..rounds {
        pace.tick().await;
        let mut shown = whole(cluster, args.all, of.as_deref()).await?;
        if let Some(containers) = &mut shown.containers {
            add_rates(&before, containers);
            before.clone_from(containers);
        }
        print(&shown, format, rounds > 1, round)?;
    }
    Ok(DONE)
}

/// Everything: nodes, and applications or the containers of one.
async fn whole(
    cluster: &Cluster,
    ended: bool,
    of: Option<&str>,
) -> Result<Shown, crate::failure::Failure> {
    let wanted = |view: View| Wanted {
        view,
        of: of.map(ToOwned::to_owned),
        ended,
        details: None,
        paused: false,
    };
    let view = if of.is_some() {
        View::Containers
    } else {
        View::Applications
    };
    let first = look(cluster, &wanted(view)).await?;
    let nodes = look(cluster, &wanted(View::Nodes)).await?;
    let mut shown = Shown {
        now_ms: first.now_ms,
        cluster: first.summary.into(),
        applications: None,
        nodes: None,
        containers: None,
        silent_nodes: Vec::new(),
    };
    for list in [first.list, nodes.list] {
        match list {
            List::Applications { rows, .. } => shown.applications = Some(rows),
            List::Nodes(rows) => shown.nodes = Some(rows),
            List::Containers { rows, silent, .. } => {
                shown.containers = Some(rows);
                shown.silent_nodes = silent;
            }
            List::Nothing => {}
        }
    }
    Ok(shown)
}

/// Several rounds: JSON a line each, YAML a document each, tables with an empty line between.
fn print(
    shown: &Shown,
    format: Format,
    several: bool,
    round: u32,
) -> Result<(), crate::failure::Failure> {
    match format {
        Format::Table => {
            if round > 0 {
                output::stdout(b"\n")?;
            }
            table(shown)
        }
        Format::Json if several => output::json_line(shown),
        Format::Json => output::value(shown, Format::Json),
        Format::Yaml => {
            output::stdout(b"---\n")?;
            output::value(shown, Format::Yaml)
        }
    }
}

fn table(shown: &Shown) -> Result<(), crate::failure::Failure> {
    let ShownCluster {
        nodes,
        applications,
        memory_mib,
        memory_used_mib,
        vcores,
        vcores_used,
    } = &shown.cluster;
    let cluster = format!(
        "nodes {nodes}  applications {applications}  memory {memory_used_mib} of {memory_mib} MiB  \
         vcores {vcores_used} of {vcores}\n\n"
    );
    output::stdout(cluster.as_bytes())?;
    output::nodes(shown.nodes.as_deref().unwrap_or_default(), Format::Table)?;
    output::stdout(b"\n")?;
    if let Some(list) = &shown.applications {
        output::applications(list, Format::Table)?;
    }
    if let Some(list) = &shown.containers {
        output::containers(list, Format::Table)?;
    }
    for node in &shown.silent_nodes {
        output::note(&format!("what its containers use is not known of {node}"));
    }
    Ok(())
}
