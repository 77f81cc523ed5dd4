//! GET /metrics: the text that Prometheus reads.
//!
//! Source: the Prometheus text exposition format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bobbin_na_core::{ContainerPhase, NodeAgent, NodeUsage};
use bobbin_service::http::answer::plain_headers;
use bobbin_types::Resource;

use super::Web;
use super::problem::Problem;

const PHASES: [(ContainerPhase, &str); 8] = [
    (ContainerPhase::New, "new"),
    (ContainerPhase::Localizing, "localizing"),
    (ContainerPhase::Launching, "launching"),
    (ContainerPhase::Running, "running"),
    (ContainerPhase::Stopping, "stopping"),
    (ContainerPhase::CleaningUp, "cleaning_up"),
    (ContainerPhase::Exited, "exited"),
    (ContainerPhase::Done, "done"),
];

fn gauge(text: &mut String, name: &str, help: &str, value: u64) {
    let _ = writeln!(
        text,
        "# HELP bobbin_node_{name} {help}\n# TYPE bobbin_node_{name} gauge\nbobbin_node_{name} {value}"
    );
}

/// What the core knows at one moment.
struct Seen {
    capacity: Resource,
    granted: Resource,
    usage: NodeUsage,
    phases: BTreeMap<ContainerPhase, u64>,
    problems: u64,
}

impl Seen {
    fn of(core: &NodeAgent) -> Seen {
        let mut phases: BTreeMap<ContainerPhase, u64> = BTreeMap::new();
        for view in core.containers() {
            *phases.entry(view.phase).or_default() += 1;
        }
        Seen {
            capacity: core.accounting().capacity(),
            granted: core.accounting().used(),
            usage: core.usage(),
            phases,
            problems: count(core.problems().len()),
        }
    }

    fn write(&self, text: &mut String) {
        for (name, help, value) in [
            (
                "memory_offered_mib",
                "Memory for containers, MiB.",
                self.capacity.memory_mib,
            ),
            (
                "memory_granted_mib",
                "Memory of containers, MiB.",
                self.granted.memory_mib,
            ),
            (
                "vcores_offered",
                "Virtual cores for containers.",
                self.capacity.vcores.into(),
            ),
            (
                "vcores_granted",
                "Virtual cores of containers.",
                self.granted.vcores.into(),
            ),
            (
                "machine_memory_used_mib",
                "Memory that the machine uses, MiB.",
                self.usage.memory_used_mib,
            ),
            (
                "machine_cpu_used_permille",
                "How busy all processors together are; 1000 is all of them.",
                self.usage.cpu_permille.into(),
            ),
            (
                "problems",
                "Reasons for which the node takes no work.",
                self.problems,
            ),
        ] {
            gauge(text, name, help, value);
        }
        text.push_str("# HELP bobbin_node_containers Containers by phase.\n");
        text.push_str("# TYPE bobbin_node_containers gauge\n");
        for (phase, name) in PHASES {
            let value = self.phases.get(&phase).copied().unwrap_or(0);
            let _ = writeln!(text, "bobbin_node_containers{{phase=\"{name}\"}} {value}");
        }
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Web {
    async fn metrics_text(&self) -> Result<String, Problem> {
        let seen = self.ask(Seen::of).await?;
        let mut text = String::new();
        seen.write(&mut text);
        let (entries, bytes) = self.node.localizer.cached();
        for (name, help, value) in [
            (
                "cache_entries",
                "Localized files and archives.",
                count(entries),
            ),
            (
                "cache_bytes",
                "Bytes of localized files and archives.",
                bytes,
            ),
            (
                "start_time_milliseconds",
                "When the agent began, Unix milliseconds.",
                self.started.0,
            ),
        ] {
            gauge(&mut text, name, help, value);
        }
        let _ = writeln!(
            text,
            "# HELP bobbin_node_info Which node and version this is.\n# TYPE bobbin_node_info gauge\n\
             bobbin_node_info{{node=\"{}\",version=\"{}\"}} 1",
            self.node.node_id,
            env!("CARGO_PKG_VERSION")
        );
        Ok(text)
    }
}

pub(super) async fn metrics(State(web): State<Arc<Web>>) -> Response {
    match web.metrics_text().await {
        Ok(text) => (
            plain_headers("text/plain;version=0.0.4;charset=utf-8"),
            text,
        )
            .into_response(),
        Err(problem) => problem.text(),
    }
}
