//! GET /metrics: the text that Prometheus reads.
//!
//! Source: the Prometheus text exposition format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bobbin_na_core::ContainerPhase;
use bobbin_service::http::answer::plain_headers;

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

impl Web {
    async fn metrics_text(&self) -> Result<String, Problem> {
        let asked = self.ask(|core| {
            let mut phases: BTreeMap<ContainerPhase, u64> = BTreeMap::new();
            for view in core.containers() {
                *phases.entry(view.phase).or_default() += 1;
            }
            let accounting = core.accounting();
            let resources = (accounting.capacity(), accounting.used());
            (resources, core.usage(), phases, core.problems().len())
        });
        let ((capacity, granted), usage, phases, problems) = asked.await?;
        let (entries, bytes) = self.node.localizer.cached();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut text = String::new();
        for (name, help, value) in [
            (
                "memory_offered_mib",
                "Memory for containers, MiB.",
                capacity.memory_mib,
            ),
            (
                "memory_granted_mib",
                "Memory of containers, MiB.",
                granted.memory_mib,
            ),
            (
                "vcores_offered",
                "Virtual cores for containers.",
                capacity.vcores.into(),
            ),
            (
                "vcores_granted",
                "Virtual cores of containers.",
                granted.vcores.into(),
            ),
            (
                "machine_memory_used_mib",
                "Memory that the machine uses, MiB.",
                usage.memory_used_mib,
            ),
            (
                "machine_cpu_used_permille",
                "How busy all processors together are; 1000 is all of them.",
                usage.cpu_permille.into(),
            ),
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
                "problems",
                "Reasons for which the node takes no work.",
                count(problems),
            ),
            (
                "start_time_milliseconds",
                "When the agent began, Unix milliseconds.",
                self.started.0,
            ),
        ] {
            gauge(&mut text, name, help, value);
        }
        text.push_str(
            "# HELP bobbin_node_containers Containers by phase.\n# TYPE bobbin_node_containers gauge\n",
        );
        for (phase, name) in PHASES {
            let value = phases.get(&phase).copied().unwrap_or(0);
            let _ = writeln!(text, "bobbin_node_containers{{phase=\"{name}\"}} {value}");
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
