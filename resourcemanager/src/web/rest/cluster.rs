//! The cluster and its queues as YARN's REST shows them.
//!
//! Source: `ClusterInfo`, `ClusterMetricsInfo`, `CapacitySchedulerInfo` of Hadoop 3.3.

use bobbin_rm_core::view::{ClusterMetrics, ClusterReport, QueueReport};
use bobbin_types::Resource;

use super::document::{Element, Value};
use super::resources::{percent, permille_to_percent, resource, small};

/// The release of Hadoop whose protocols are spoken: clients choose by it what they ask for.
const HADOOP: &str = "3.3.4";

pub(super) fn info(report: &ClusterReport, started_ms: u64) -> Element {
    let version = env!("CARGO_PKG_VERSION");
    let build = format!("Bobbin {version}");
    Element::new()
        .with("id", report.cluster_timestamp)
        .with("startedOn", started_ms)
        .with("state", "STARTED")
        .with("haState", "ACTIVE")
        .with("rmStateStoreName", "Bobbin's journal")
        .with("resourceManagerVersion", version)
        .with("resourceManagerBuildVersion", build.as_str())
        .with("resourceManagerVersionBuiltOn", "")
        .with("hadoopVersion", HADOOP)
        .with("hadoopBuildVersion", build.as_str())
        .with("hadoopVersionBuiltOn", "")
        .with(
            "haZooKeeperConnectionState",
            "ResourceManager HA is not enabled.",
        )
}

pub(super) fn metrics(metrics: &ClusterMetrics) -> Element {
    let counts = &metrics.statistics;
    let nodes = &metrics.nodes;
    let all_nodes = nodes.running
        + nodes.unhealthy
        + nodes.lost
        + nodes.decommissioning
        + nodes.decommissioned
        + nodes.rebooted
        + nodes.shutdown;
    let memory = Resource::new(counts.allocated.memory_mib, 0);
    let vcores = Resource::new(0, counts.allocated.vcores);
    // Whole percents, as YARN's.
    let whole = |used: &Resource| used.dominant_share(&metrics.total).min(1_000_000) / 10_000;
    Element::new()
        .with("appsSubmitted", counts.submitted)
        .with("appsCompleted", counts.completed)
        .with("appsPending", counts.pending)
        .with("appsRunning", counts.running)
        .with("appsFailed", counts.failed)
        .with("appsKilled", counts.killed)
        .with("reservedMB", 0)
        .with("availableMB", counts.available.memory_mib)
        .with("allocatedMB", counts.allocated.memory_mib)
        .with("pendingMB", counts.wanted.memory_mib)
        .with("reservedVirtualCores", 0)
        .with("availableVirtualCores", counts.available.vcores)
        .with("allocatedVirtualCores", counts.allocated.vcores)
        .with("pendingVirtualCores", counts.wanted.vcores)
        .with("containersAllocated", counts.allocated_containers)
        .with("containersReserved", 0)
        .with("containersPending", counts.wanted_containers)
        .with("totalMB", metrics.total.memory_mib)
        .with("totalVirtualCores", metrics.total.vcores)
        .with("utilizedMBPercent", whole(&memory))
        .with("utilizedVirtualCoresPercent", whole(&vcores))
        .with("totalNodes", all_nodes)
        .with("lostNodes", nodes.lost)
        .with("unhealthyNodes", nodes.unhealthy)
        .with("decommissioningNodes", nodes.decommissioning)
        .with("decommissionedNodes", nodes.decommissioned)
        .with("rebootedNodes", nodes.rebooted)
        .with("activeNodes", nodes.running)
        .with("shutdownNodes", nodes.shutdown)
        .with(
            "totalUsedResourcesAcrossPartition",
            resource(&counts.allocated),
        )
        .with(
            "totalClusterResourcesAcrossPartition",
            resource(&metrics.total),
        )
        .with(
            "totalReservedResourcesAcrossPartition",
            resource(&Resource::default()),
        )
        .with(
            "totalAllocatedContainersAcrossPartition",
            counts.allocated_containers,
        )
        .with("crossPartitionMetricsAvailable", true)
}

/// The capacity scheduler's form: a root, and flat queues that all share the whole cluster.
pub(super) fn scheduler(
    queues: &[QueueReport],
    metrics: &ClusterMetrics,
    largest: &Resource,
) -> Element {
    let used = percent(&metrics.statistics.allocated, &metrics.total);
    let leaves: Vec<Element> = queues
        .iter()
        .map(|queue| leaf(queue, &metrics.total, largest))
        .collect();
    let info = Element::of_kind("capacityScheduler")
        .with("capacity", 100.0_f32)
        .with("usedCapacity", used)
        .with("maxCapacity", 100.0_f32)
        .with("queueName", "root")
        .with("queues", Element::new().with("queue", leaves))
        .with("capacities", capacities(100.0, used, 100.0))
        .with("maximumAllocation", resource(largest))
        .with("queueAcls", everybody())
        .with("queuePriority", 0)
        .with("orderingPolicyInfo", "utilization");
    Element::new().with("schedulerInfo", info)
}

fn leaf(queue: &QueueReport, total: &Resource, largest: &Resource) -> Element {
    let counts = &queue.statistics;
    let capacity = permille_to_percent(queue.capacity_permille.into());
    let maximum = permille_to_percent(queue.maximum_permille.into());
    let used = permille_to_percent(queue.used_permille.into());
    let live = counts.pending + counts.running;
    Element::of_kind("capacitySchedulerLeafQueueInfo")
        .with("capacity", capacity)
        .with("usedCapacity", used)
        .with("maxCapacity", maximum)
        .with("absoluteCapacity", capacity)
        .with("absoluteMaxCapacity", maximum)
        .with("absoluteUsedCapacity", used)
        .with("numApplications", live)
        .with("usedResources", shown(&counts.allocated))
        .with("queueName", queue.name.as_str())
        .with("isAbsoluteResource", false)
        .with("state", "RUNNING")
        .with("resourcesUsed", resource(&counts.allocated))
        .with("hideReservationQueues", false)
        .with("nodeLabels", vec!["*"])
        .with("allocatedContainers", counts.allocated_containers)
        .with("reservedContainers", 0)
        .with("pendingContainers", counts.wanted_containers)
        .with("capacities", capacities(capacity, used, maximum))
        .with("resources", resources(queue))
        .with("minEffectiveCapacity", resource(&Resource::default()))
        .with("maxEffectiveCapacity", resource(total))
        .with("maximumAllocation", resource(largest))
        .with("queueAcls", everybody())
        .with("queuePriority", 0)
        .with("orderingPolicyInfo", "fifo")
        .with("autoCreateChildQueueEnabled", false)
        .with("numActiveApplications", counts.running)
        .with("numPendingApplications", counts.pending)
        .with("numContainers", counts.allocated_containers)
        .with(
            "maxApplications",
            bobbin_rm_core::limits::APPLICATIONS_LIVE_MAX,
        )
        .with(
            "maxApplicationsPerUser",
            bobbin_rm_core::limits::APPLICATIONS_LIVE_PER_USER_MAX,
        )
        .with("userLimit", 100)
        // Who else is there is nobody's business: the answer is the same for all callers.
        .with("users", Element::new())
        .with("userLimitFactor", 1.0_f32)
        .with("configuredMaxAMResourceLimit", 1.0_f32)
        .with("AMResourceLimit", resource(total))
        .with("usedAMResource", resource(&Resource::default()))
        .with("userAMResourceLimit", resource(total))
        .with("preemptionDisabled", true)
        .with("intraQueuePreemptionDisabled", true)
        .with("defaultPriority", 0)
        .with("isAutoCreatedLeafQueue", false)
        .with("maxApplicationLifetime", -1)
        .with("defaultApplicationLifetime", -1)
}

fn shown(resource: &Resource) -> String {
    format!(
        "<memory:{}, vCores:{}>",
        resource.memory_mib, resource.vcores
    )
}

/// There is one partition: all nodes.
fn capacities(capacity: f32, used: f32, maximum: f32) -> Element {
    let partition = Element::new()
        .with("partitionName", "")
        .with("capacity", capacity)
        .with("usedCapacity", used)
        .with("maxCapacity", maximum)
        .with("absoluteCapacity", capacity)
        .with("absoluteUsedCapacity", used)
        .with("absoluteMaxCapacity", maximum)
        .with("maxAMLimitPercentage", 100.0_f32);
    Element::new().with("queueCapacitiesByPartition", vec![partition])
}

fn resources(queue: &QueueReport) -> Element {
    let none = Resource::default();
    let partition = Element::new()
        .with("partitionName", "")
        .with("used", small(&queue.statistics.allocated))
        .with("reserved", small(&none))
        .with("pending", small(&queue.statistics.wanted));
    Element::new().with("resourceUsagesByPartition", vec![partition])
}

/// Every user may submit to every queue; administrators administer.
fn everybody() -> Element {
    let acl = |access: &str, list: &str| {
        Element::new()
            .with("accessType", access)
            .with("accessControlList", list)
    };
    Element::new().with(
        "queueAcl",
        Value::from(vec![
            acl("ADMINISTER_QUEUE", " "),
            acl("SUBMIT_APP", "*"),
            acl("APPLICATION_MAX_PRIORITY", "*"),
        ]),
    )
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
    fn every_field_of_the_documentations_example_of_metrics() {
        let shown = json("clusterMetrics", metrics(&samples::metrics()));
        for (name, value) in [
            ("appsSubmitted", 5),
            ("appsCompleted", 2),
            ("appsPending", 1),
            ("appsRunning", 2),
            ("appsFailed", 0),
            ("appsKilled", 0),
            ("reservedMB", 0),
            ("availableMB", 16_384),
            ("allocatedMB", 1_024),
            ("reservedVirtualCores", 0),
            ("availableVirtualCores", 7),
            ("allocatedVirtualCores", 1),
            ("containersAllocated", 1),
            ("containersReserved", 0),
            ("containersPending", 3),
            ("totalMB", 17_408),
            ("totalVirtualCores", 8),
            ("totalNodes", 2),
            ("lostNodes", 1),
            ("unhealthyNodes", 0),
            ("decommissionedNodes", 0),
            ("rebootedNodes", 0),
            ("activeNodes", 1),
            ("utilizedMBPercent", 5),
            ("utilizedVirtualCoresPercent", 12),
        ] {
            assert_eq!(shown[name], value, "{name}");
        }
    }

    #[test]
    fn flat_queues_below_a_root() {
        let metrics = samples::metrics();
        let largest = Resource::new(8_192, 4);
        let element = scheduler(&[samples::queue()], &metrics, &largest);
        let xml = Document::new("scheduler", element.clone()).write(Format::Xml);
        assert!(xml.contains(r#"xsi:type="capacityScheduler">"#), "{xml}");
        assert!(
            xml.contains(r#"xsi:type="capacitySchedulerLeafQueueInfo">"#),
            "{xml}"
        );
        let shown = json("scheduler", element);
        let info = &shown["schedulerInfo"];
        assert_eq!(info["type"], "capacityScheduler");
        assert_eq!(info["queueName"], "root");
        let leaf = &info["queues"]["queue"][0];
        assert_eq!(leaf["type"], "capacitySchedulerLeafQueueInfo");
        for (name, value) in [
            ("queueName", serde_json::json!("default")),
            ("state", "RUNNING".into()),
            ("capacity", 100.0.into()),
            ("absoluteUsedCapacity", 12.5.into()),
            ("numApplications", 3.into()),
            ("numActiveApplications", 2.into()),
            ("numPendingApplications", 1.into()),
            ("numContainers", 1.into()),
            ("usedResources", "<memory:1024, vCores:1>".into()),
            ("userLimit", 100.into()),
            ("userLimitFactor", 1.0.into()),
            ("users", serde_json::json!({})),
        ] {
            assert_eq!(leaf[name], value, "{name}");
        }
        assert_eq!(leaf["resourcesUsed"]["memory"], 1_024);
    }

    #[test]
    fn info_says_when_the_cluster_started() {
        let report = samples::cluster();
        let shown = json("clusterInfo", info(&report, 77));
        assert_eq!(shown["id"], report.cluster_timestamp);
        assert_eq!(shown["startedOn"], 77);
        assert_eq!(shown["state"], "STARTED");
    }
}
