//! `/metrics` for Prometheus: the cluster in numbers, never one application.
//!
//! Source: the Prometheus text format, 0.0.4; names and units as the field has them.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use bobbin_rm_core::view::{ClusterMetrics, ClusterReport, NodeCounts, QueueReport};
use bobbin_rm_core::{Object, Operation};
use bobbin_service::http::caller::unknown_caller;
use bobbin_types::Resource;

use super::door::Web;
use super::rest::plain_headers;
use crate::grpc::identify::decide;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One family after another.
#[derive(Default)]
struct Families(String);

impl Families {
    fn family(&mut self, name: &str, help: &str, kind: &str) {
        // A String takes every write.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A label's value is escaped: queues are named by people.
    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.0.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let open = if place == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, help, "gauge");
        self.value(name, &[], value);
    }

    /// A gauge with one label.
    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.family(name, help, "gauge");
        for (text, value) in values {
            self.value(name, &[(label, text)], *value);
        }
    }
}

fn bytes(resource: &Resource) -> u64 {
    resource.memory_mib.saturating_mul(1 << 20)
}

pub(super) async fn handle(State(web): State<Arc<Web>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let principal = match web.principal(&parts, None).await {
        Ok(principal) => principal,
        Err(unproven) => return unknown_caller(&unproven),
    };
    if let Err(denied) = decide(&principal, Operation::ViewCluster, &Object::Cluster) {
        return (StatusCode::FORBIDDEN, format!("{denied}\n")).into_response();
    }
    let asked = web
        .driver
        .read(|core| (core.cluster(), core.metrics(), core.queues()));
    match asked.await {
        Ok((cluster, metrics, queues)) => {
            let text = text(&cluster, &metrics, &queues, web.started_ms);
            (StatusCode::OK, plain_headers(CONTENT_TYPE), text).into_response()
        }
        Err(failure) => (StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")).into_response(),
    }
}

fn text(
    cluster: &ClusterReport,
    metrics: &ClusterMetrics,
    queues: &[QueueReport],
    started_ms: u64,
) -> String {
    let counts = &metrics.statistics;
    let many = |count: usize| count as u64;
    let mut out = Families::default();
    out.family(
        "bobbin_rm_info",
        "The resource manager that answers.",
        "gauge",
    );
    let version = ("version", env!("CARGO_PKG_VERSION"));
    out.value("bobbin_rm_info", &[version], 1);
    out.gauge(
        "bobbin_rm_start_time_seconds",
        "When this process began, Unix time.",
        started_ms / 1_000,
    );
    out.gauges(
        "bobbin_rm_apps",
        "Known applications by state.",
        "state",
        &[
            ("pending", many(counts.pending)),
            ("running", many(counts.running)),
            ("finished", many(counts.completed)),
            ("failed", many(counts.failed)),
            ("killed", many(counts.killed)),
        ],
    );
    of_nodes(&mut out, &metrics.nodes);
    out.gauges(
        "bobbin_rm_containers",
        "Containers that are granted, and those that are asked for.",
        "state",
        &[
            ("allocated", many(counts.allocated_containers)),
            ("pending", counts.wanted_containers),
        ],
    );
    of_resources(&mut out, metrics);
    out.gauge(
        "bobbin_rm_active_users",
        "Users with applications that have not ended.",
        many(counts.users),
    );
    of_queues(&mut out, queues);
    out.family(
        "bobbin_rm_illegal_transitions_total",
        "Events that found no matching state.",
        "counter",
    );
    let illegal = cluster.illegal_transitions;
    out.value("bobbin_rm_illegal_transitions_total", &[], illegal);
    out.0
}

fn of_nodes(out: &mut Families, nodes: &NodeCounts) {
    let many = |count: usize| count as u64;
    out.gauges(
        "bobbin_rm_nodes",
        "Nodes that have registered since the start, by state.",
        "state",
        &[
            ("running", many(nodes.running)),
            ("unhealthy", many(nodes.unhealthy)),
            ("lost", many(nodes.lost)),
            ("decommissioning", many(nodes.decommissioning)),
            ("decommissioned", many(nodes.decommissioned)),
            ("rebooted", many(nodes.rebooted)),
            ("shutdown", many(nodes.shutdown)),
        ],
    );
}

fn of_resources(out: &mut Families, metrics: &ClusterMetrics) {
    let counts = &metrics.statistics;
    let memory = [
        ("total", bytes(&metrics.total)),
        ("allocated", bytes(&counts.allocated)),
        ("available", bytes(&counts.available)),
    ];
    out.gauges(
        "bobbin_rm_memory_bytes",
        "Memory of the nodes.",
        "kind",
        &memory,
    );
    let vcores = [
        ("total", metrics.total.vcores.into()),
        ("allocated", counts.allocated.vcores.into()),
        ("available", counts.available.vcores.into()),
    ];
    out.gauges("bobbin_rm_vcores", "Vcores of the nodes.", "kind", &vcores);
}

fn of_queues(out: &mut Families, queues: &[QueueReport]) {
    let pending: Vec<(&str, u64)> = queues
        .iter()
        .map(|queue| (queue.name.as_str(), bytes(&queue.statistics.wanted)))
        .collect();
    let help = "Memory that is asked for and not granted.";
    out.gauges("bobbin_rm_pending_bytes", help, "queue", &pending);
    let pending: Vec<(&str, u64)> = queues
        .iter()
        .map(|queue| (queue.name.as_str(), queue.statistics.wanted.vcores.into()))
        .collect();
    let help = "Vcores that are asked for and not granted.";
    out.gauges("bobbin_rm_pending_vcores", help, "queue", &pending);
}

#[cfg(test)]
mod tests {
    use super::super::rest::samples;
    use super::*;

    #[test]
    fn every_family_is_described_once_and_every_line_is_one() {
        let mut queue = samples::queue();
        queue.name = "a\"b\\".to_owned();
        let text = text(&samples::cluster(), &samples::metrics(), &[queue], 1_500);
        let mut described = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(described.insert(name.to_owned()), "{name} twice");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(described.contains(name), "{line}");
                let value = line.rsplit(' ').next().unwrap();
                assert!(value.parse::<u64>().is_ok(), "{line}");
            }
        }
        for line in [
            "bobbin_rm_apps{state=\"running\"} 2",
            "bobbin_rm_nodes{state=\"lost\"} 1",
            "bobbin_rm_containers{state=\"pending\"} 3",
            "bobbin_rm_memory_bytes{kind=\"total\"} 18253611008",
            "bobbin_rm_pending_vcores{queue=\"a\\\"b\\\\\"} 3",
            "bobbin_rm_start_time_seconds 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
