//! Attempts, containers and nodes as YARN's REST shows them.
//!
//! Source: `AppAttemptInfo` (both classes of that name), `ContainerInfo`, `NodeInfo` of Hadoop 3.3.

use bobbin_rm_core::view::{ApplicationReport, AttemptReport, ContainerReport, NodeReport};
use bobbin_types::{ContainerState, NodeState, Resource, WallMillis};

use super::application::{logs_url, tracking_url};
use super::document::{Element, Value};
use super::resources::resource;

/// A row of `appattempts`.
pub(super) fn attempt_row(report: &AttemptReport, user: &str) -> Element {
    let container = text(report.container.as_ref());
    Element::new()
        .with("id", report.attempt.attempt)
        .with("startTime", report.started.map_or(0, |w| w.0))
        .with("finishedTime", report.finished.map_or(0, |w| w.0))
        .with("containerId", container.as_str())
        .with("nodeHttpAddress", report.node_http_address.as_str())
        .with("nodeId", text(report.node.as_ref()))
        .with(
            "logsLink",
            if container.is_empty() {
                String::new()
            } else {
                logs_url(&report.node_http_address, &container, user)
            },
        )
        .with("blacklistedNodes", report.blacklist.join(", "))
        .with("nodesBlacklistedBySystem", "")
        .with("appAttemptId", report.attempt.to_string())
        .with("exportPorts", "null")
}

/// `appattempts/{attempt}`.
pub(super) fn attempt(
    report: &AttemptReport,
    application: &ApplicationReport,
    base: &str,
) -> Element {
    Element::new()
        .with("appAttemptId", report.attempt.to_string())
        .with("host", known(&report.host))
        .with(
            "rpcPort",
            if report.host.is_empty() {
                -1
            } else {
                report.rpc_port
            },
        )
        .with("trackingUrl", tracking_url(application, base))
        .with("originalTrackingUrl", known(&report.tracking_url))
        .with("diagnosticsInfo", report.diagnostics.as_str())
        .with("appAttemptState", report.state.as_str())
        .maybe("amContainerId", report.container.map(|id| id.to_string()))
        .with("startedTime", report.started.map_or(0, |w| w.0))
        .with("finishedTime", report.finished.map_or(0, |w| w.0))
}

/// What is not known is `N/A` in YARN.
fn known(text: &str) -> &str {
    if text.is_empty() { "N/A" } else { text }
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

pub(super) fn container(report: &ContainerReport, user: &str, now: WallMillis) -> Element {
    let state = match report.state {
        ContainerState::New
        | ContainerState::Reserved
        | ContainerState::Allocated
        | ContainerState::Acquired => "NEW",
        ContainerState::Running => "RUNNING",
        ContainerState::Completed
        | ContainerState::Expired
        | ContainerState::Released
        | ContainerState::Killed => "COMPLETE",
    };
    let id = report.container.to_string();
    let started = report.created.map_or(0, |w| w.0);
    let end = report.finished.unwrap_or(now).0;
    let elapsed = if started == 0 {
        0
    } else {
        end.saturating_sub(started)
    };
    let map = Value::Map(vec![
        (
            "memory-mb".to_owned(),
            report.resource.memory_mib.to_string(),
        ),
        ("vcores".to_owned(), report.resource.vcores.to_string()),
    ]);
    let address = report.node_http_address.as_str();
    Element::new()
        .with("containerId", id.as_str())
        .with("allocatedMB", report.resource.memory_mib)
        .with("allocatedVCores", report.resource.vcores)
        .with("assignedNodeId", report.node.to_string())
        .with("priority", report.priority)
        .with("startedTime", started)
        .with("finishedTime", report.finished.map_or(0, |w| w.0))
        .with("elapsedTime", elapsed)
        .with("diagnosticsInfo", report.diagnostics.as_str())
        .with("logUrl", logs_url(address, &id, user))
        .with("containerExitStatus", report.exit_status.map_or(0, |e| e.0))
        .with("containerState", state)
        .maybe(
            "nodeHttpAddress",
            (!address.is_empty()).then(|| format!("http://{address}")),
        )
        .with("nodeId", report.node.to_string())
        .with("allocatedResources", map)
}

pub(super) fn node(report: &NodeReport) -> Element {
    let free = report.total.checked_sub(&report.used).unwrap_or_default();
    // YARN names no address of a node that is not there.
    let there = match report.state {
        NodeState::Lost | NodeState::Rebooted | NodeState::Decommissioned | NodeState::Shutdown => {
            false
        }
        NodeState::New | NodeState::Running | NodeState::Unhealthy | NodeState::Decommissioning => {
            true
        }
    };
    let address = if there {
        report.http_address.as_str()
    } else {
        ""
    };
    Element::new()
        .with("rack", report.rack.as_str())
        .with("state", report.state.as_str())
        .with("id", report.id.to_string())
        .with("nodeHostName", report.id.host())
        .with("nodeHTTPAddress", address)
        .with("lastHealthUpdate", report.last_seen.0)
        .with("version", report.version.as_str())
        .with("healthReport", report.problems.join("; "))
        .with("numContainers", report.containers)
        .with("usedMemoryMB", report.used.memory_mib)
        .with("availMemoryMB", free.memory_mib)
        .with("usedVirtualCores", report.used.vcores)
        .with("availableVirtualCores", free.vcores)
        .with("numRunningOpportContainers", 0)
        .with("usedMemoryOpportGB", 0)
        .with("usedVirtualCoresOpport", 0)
        .with("numQueuedContainers", 0)
        .with("resourceUtilization", utilization(report))
        .with("usedResource", resource(&report.used))
        .with("availableResource", resource(&free))
        .with("totalResource", resource(&report.total))
}

/// Source: `ResourceUtilizationInfo`. What the machine uses is measured; of the containers together
/// only what they were given is known here.
fn utilization(report: &NodeReport) -> Element {
    let cpu = u16::try_from(report.cpu_permille).map_or_else(|_| f32::from(u16::MAX), f32::from)
        / 1_000.0;
    let Resource { memory_mib, .. } = report.used;
    Element::new()
        .with("nodePhysicalMemoryMB", report.memory_used_mib)
        .with("nodeVirtualMemoryMB", report.memory_used_mib)
        .with("nodeCPUUsage", cpu)
        .with("aggregatedContainersPhysicalMemoryMB", memory_mib)
        .with("aggregatedContainersVirtualMemoryMB", memory_mib)
        .with("containersCPUUsage", 0.0_f32)
}

#[cfg(test)]
mod tests {
    use super::super::document::{Document, Format};
    use super::super::samples;
    use super::*;

    fn json(root: &'static str, element: Element) -> serde_json::Value {
        let text = Document::new(root, element).write(Format::Json);
        serde_json::from_str::<serde_json::Value>(&text).unwrap()[root].take()
    }

    #[test]
    fn the_documentations_example_of_an_attempt() {
        let shown = json("appAttempt", attempt_row(&samples::attempt(), "user1"));
        let expected = serde_json::json!({
            "nodeId": "host.domain.com:8041",
            "nodeHttpAddress": "host.domain.com:8042",
            "startTime": 1_326_381_444_693_u64,
            "finishedTime": 0,
            "id": 1,
            "logsLink": "http://host.domain.com:8042/node/containerlogs/container_1326815542473_0001_01_000001/user1",
            "containerId": "container_1326815542473_0001_01_000001",
            "blacklistedNodes": "",
            "nodesBlacklistedBySystem": "",
            "appAttemptId": "appattempt_1326815542473_0001_000001",
            "exportPorts": "null",
        });
        assert_eq!(shown, expected);
        let whole = json(
            "appAttempt",
            attempt(&samples::attempt(), &samples::ended(), "http://rm:1"),
        );
        assert_eq!(whole["appAttemptState"], "RUNNING");
        assert_eq!(whole["host"], "N/A");
        assert_eq!(whole["rpcPort"], -1);
    }

    #[test]
    fn the_documentations_example_of_a_node() {
        let shown = json("node", node(&samples::node()));
        for (name, value) in [
            ("rack", serde_json::json!("/default-rack")),
            ("state", "RUNNING".into()),
            ("id", "h2:1235".into()),
            ("nodeHostName", "h2".into()),
            ("nodeHTTPAddress", "h2:2".into()),
            ("lastHealthUpdate", 1_324_056_895_432_u64.into()),
            ("healthReport", "".into()),
            ("numContainers", 0.into()),
            ("usedMemoryMB", 0.into()),
            ("availMemoryMB", 8_192.into()),
            ("usedVirtualCores", 0.into()),
            ("availableVirtualCores", 8.into()),
        ] {
            assert_eq!(shown[name], value, "{name}");
        }
        let mut lost = samples::node();
        lost.state = NodeState::Lost;
        assert_eq!(json("node", node(&lost))["nodeHTTPAddress"], "");
    }

    #[test]
    fn a_container_says_where_and_how_it_ended() {
        let shown = json(
            "container",
            container(&samples::container(), "user1", WallMillis(2_000)),
        );
        assert_eq!(shown["containerState"], "COMPLETE");
        assert_eq!(shown["containerExitStatus"], -104);
        assert_eq!(shown["elapsedTime"], 500);
        assert_eq!(shown["nodeHttpAddress"], "http://host.domain.com:8042");
        let mut unknown = samples::container();
        unknown.created = None;
        unknown.node_http_address = String::new();
        let shown = json("container", container(&unknown, "user1", WallMillis(2_000)));
        assert_eq!(
            (&shown["elapsedTime"], &shown["logUrl"]),
            (&0.into(), &"".into())
        );
    }
}
