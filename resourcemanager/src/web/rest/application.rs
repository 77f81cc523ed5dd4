//! One application as YARN's REST shows it. Source: `AppInfo` of Hadoop 3.3, field by field.

use std::collections::BTreeMap;

use bobbin_rm_core::Ask;
use bobbin_rm_core::view::{ApplicationReport, MasterPlace, TimeoutReport};
use bobbin_types::{Resource, WallMillis, YarnApplicationState};

use super::document::{Element, Value};
use super::problem::Problem;
use super::query::{Query, shown};
use super::resources::{percent, resource};
use crate::yarn::iso_time;

/// Lines that a caller can do without, by the words of `deSelects`.
/// Source: `DeSelectFields.DeSelectType`.
const DESELECTABLE: [(&str, &str); 5] = [
    ("resourceRequests", "resourceRequests"),
    ("appTimeouts", "timeouts"),
    ("appNodeLabelExpression", "appNodeLabelExpression"),
    ("amNodeLabelExpression", "amNodeLabelExpression"),
    ("resourceInfo", "resourceInfo"),
];

/// What all applications of an answer have in common.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// `http://host:port` of this door, as the caller reaches it.
    pub(crate) base: String,
    pub(crate) now: WallMillis,
    pub(crate) total: Resource,
    /// Fields that are left out.
    pub(crate) unwanted: Vec<&'static str>,
}

/// The fields that `deSelects` names.
///
/// # Errors
/// An unknown word.
pub(super) fn unwanted(query: &Query) -> Result<Vec<&'static str>, Problem> {
    let words = query.words("deSelects")?;
    words
        .into_iter()
        .map(|word| {
            let known = DESELECTABLE
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(word));
            known.map(|(_, field)| *field).ok_or_else(|| {
                let all: Vec<&str> = DESELECTABLE.iter().map(|(name, _)| *name).collect();
                Problem::BadRequest(format!(
                    "Invalid deSelects string {} specified. It should be one of {}",
                    shown(word),
                    all.join(", ")
                ))
            })
        })
        .collect()
}

/// Whether there is something behind `/proxy/<id>/`.
pub(crate) fn is_tracked(report: &ApplicationReport) -> bool {
    match report.state.as_yarn() {
        YarnApplicationState::New
        | YarnApplicationState::NewSaving
        | YarnApplicationState::Submitted
        | YarnApplicationState::Accepted => false,
        YarnApplicationState::Running
        | YarnApplicationState::Finished
        | YarnApplicationState::Failed
        | YarnApplicationState::Killed => true,
    }
}

/// The URL under which everybody who may see it follows the application.
pub(crate) fn tracking_url(report: &ApplicationReport, base: &str) -> String {
    if report.tracking_url.is_empty() {
        format!("{base}/cluster/app/{}", report.id)
    } else {
        format!("{base}/proxy/{}/", report.id)
    }
}

/// Where a container's logs are shown; empty if its node has no such door.
pub(crate) fn logs_url(node_http_address: &str, container: &str, user: &str) -> String {
    if node_http_address.is_empty() {
        String::new()
    } else {
        format!("http://{node_http_address}/node/containerlogs/{container}/{user}")
    }
}

/// With `may_view` everything, else what YARN shows to everybody: neither where nor how much.
pub(super) fn application(report: &ApplicationReport, may_view: bool, frame: &Frame) -> Element {
    let public = head(report, may_view, frame);
    let element = if may_view {
        detail(public, report, frame)
    } else {
        hidden(public)
    };
    element.without(&frame.unwanted)
}

fn head(report: &ApplicationReport, may_view: bool, frame: &Frame) -> Element {
    let tracked = is_tracked(report);
    let tracking_ui = match (tracked, report.finished) {
        (false, _) => "UNASSIGNED",
        (true, None) => "ApplicationMaster",
        (true, Some(_)) => "History",
    };
    // What has ended is done, whatever its master said last.
    let progress = match report.finished {
        Some(_) => 100.0,
        None => f32::from(report.progress_permille) / 10.0,
    };
    let diagnostics = if may_view {
        diagnostics(report)
    } else {
        String::new()
    };
    Element::new()
        .with("id", report.id.to_string())
        .with("user", report.user.to_string())
        .with("name", report.name.as_str())
        .with("queue", report.queue.as_str())
        .with("state", report.state.as_yarn().as_str())
        .with("finalStatus", report.final_status.as_str())
        .with("progress", progress)
        .with("trackingUI", tracking_ui)
        .maybe(
            "trackingUrl",
            (tracked && may_view).then(|| tracking_url(report, &frame.base)),
        )
        .with("diagnostics", diagnostics)
        .with("clusterId", report.id.cluster_timestamp)
        .with("applicationType", report.application_type.as_str())
        .with("applicationTags", report.tags.join(","))
        .with("priority", report.priority)
}

/// Of one that waits, why it does.
pub(crate) fn diagnostics(report: &ApplicationReport) -> String {
    match (report.diagnostics.is_empty(), report.waiting.is_empty()) {
        (true, _) => report.waiting.clone(),
        (false, true) => report.diagnostics.clone(),
        (false, false) => format!("{}; {}", report.diagnostics, report.waiting),
    }
}

fn detail(element: Element, report: &ApplicationReport, frame: &Frame) -> Element {
    let ended = report.finished.is_some();
    let end = report.finished.unwrap_or(frame.now);
    let master = report.master.as_ref();
    let logs = |place: &MasterPlace| {
        let container = place.container.to_string();
        logs_url(&place.node_http_address, &container, report.user.as_str())
    };
    let rpc = (!report.host.is_empty()).then(|| format!("{}:{}", report.host, report.rpc_port));
    let element = element
        .with("startedTime", report.submitted.0)
        .with("launchTime", report.launched.map_or(0, |w| w.0))
        .with("finishedTime", report.finished.map_or(0, |w| w.0))
        .with("elapsedTime", end.0.saturating_sub(report.submitted.0))
        .maybe("amContainerLogs", master.map(logs))
        .maybe(
            "amHostHttpAddress",
            master.map(|place| place.node_http_address.clone()),
        )
        .maybe("amRPCAddress", rpc)
        .maybe("masterNodeId", master.map(|place| place.node.to_string()));
    let element = usage(element, report, ended, &frame.total);
    let label = report.node_label.as_str();
    preempted(element)
        .with("logAggregationStatus", "DISABLED")
        .with("unmanagedApplication", report.unmanaged)
        .with("appNodeLabelExpression", label)
        .with("amNodeLabelExpression", label)
        .with("timeouts", timeouts(report.timeout.as_ref()))
        .maybe("resourceRequests", resource_requests(&report.asks))
}

/// Source: `ResourceRequestInfo`. YARN leaves the field out of an application that asks for nothing.
fn resource_requests(asks: &[Ask]) -> Option<Value> {
    let rows: Vec<Element> = asks.iter().map(resource_request).collect();
    (!rows.is_empty()).then(|| Value::from(rows))
}

fn resource_request(ask: &Ask) -> Element {
    let execution = Element::new()
        .with("executionType", "GUARANTEED")
        .with("enforceExecutionType", false);
    Element::new()
        .with("priority", ask.key.priority)
        .with("resourceName", ask.key.place.as_str())
        .with("capability", resource(&ask.key.capability))
        .with("numContainers", ask.count)
        .with("relaxLocality", ask.relax_locality)
        .with("nodeLabelExpression", ask.key.node_label.as_str())
        .with("executionTypeRequest", execution)
        .with("allocationRequestId", ask.key.request_id)
        .with("enforceExecutionType", false)
}

fn usage(element: Element, report: &ApplicationReport, ended: bool, total: &Resource) -> Element {
    // YARN's word for "nothing to say" is -1.
    let live = |value: u64| {
        if ended {
            Value::Number(-1)
        } else {
            Value::from(value)
        }
    };
    let share = if ended {
        0.0
    } else {
        percent(&report.used, total)
    };
    let seconds = BTreeMap::from([
        ("memory-mb", report.used_seconds.memory_mib),
        ("vcores", report.used_seconds.vcores),
    ]);
    element
        .with("allocatedMB", live(report.used.memory_mib))
        .with("allocatedVCores", live(report.used.vcores.into()))
        .with("reservedMB", live(0))
        .with("reservedVCores", live(0))
        .with("runningContainers", live(report.containers as u64))
        .with("memorySeconds", report.used_seconds.memory_mib)
        .with("vcoreSeconds", report.used_seconds.vcores)
        .with("queueUsagePercentage", share)
        .with("clusterUsagePercentage", share)
        .with("resourceSecondsMap", map(&seconds))
}

/// Nothing is preempted here.
fn preempted(element: Element) -> Element {
    element
        .with("preemptedResourceMB", 0)
        .with("preemptedResourceVCores", 0)
        .with("numNonAMContainerPreempted", 0)
        .with("numAMContainerPreempted", 0)
        .with("preemptedMemorySeconds", 0)
        .with("preemptedVcoreSeconds", 0)
        .with("preemptedResourceSecondsMap", Value::Map(Vec::new()))
}

fn map(entries: &BTreeMap<&str, u64>) -> Value {
    let entries = entries.iter();
    Value::Map(
        entries
            .map(|(key, value)| ((*key).to_owned(), value.to_string()))
            .collect(),
    )
}

/// As YARN shows an application to those who may not view it: numbers are 0, texts are left out.
fn hidden(element: Element) -> Element {
    let zeros = [
        "startedTime",
        "launchTime",
        "finishedTime",
        "elapsedTime",
        "allocatedMB",
        "allocatedVCores",
        "reservedMB",
        "reservedVCores",
        "runningContainers",
        "memorySeconds",
        "vcoreSeconds",
    ];
    let element = zeros
        .into_iter()
        .fold(element, |element, name| element.with(name, 0));
    let element = element
        .with("queueUsagePercentage", 0.0_f32)
        .with("clusterUsagePercentage", 0.0_f32);
    preempted(element).with("unmanagedApplication", false)
}

/// Of one that has no timeout as well: YARN says `UNLIMITED` then.
pub(super) fn timeout(report: Option<&TimeoutReport>) -> Element {
    let (expiry, remaining) = match report {
        Some(timeout) => (
            iso_time::format(timeout.expires),
            Value::from(timeout.remaining_ms / 1_000),
        ),
        None => ("UNLIMITED".to_owned(), Value::Number(-1)),
    };
    Element::new()
        .with("type", "LIFETIME")
        .with("expiryTime", expiry)
        .with("remainingTimeInSeconds", remaining)
}

pub(super) fn timeouts(report: Option<&TimeoutReport>) -> Element {
    Element::new().with("timeout", vec![timeout(report)])
}

#[cfg(test)]
mod tests {
    use super::super::document::{Document, Format};
    use super::super::samples;
    use super::*;

    fn frame() -> Frame {
        Frame {
            base: "http://rm:8088".to_owned(),
            now: WallMillis(1_326_815_600_000),
            total: Resource::new(4_096, 8),
            unwanted: Vec::new(),
        }
    }

    fn json(report: &ApplicationReport, may_view: bool) -> serde_json::Value {
        let text =
            Document::new("app", application(report, may_view, &frame())).write(Format::Json);
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["app"].take()
    }

    #[test]
    fn what_it_asks_for_is_shown_to_those_who_may_see_it() {
        let mut report = samples::ended();
        assert_eq!(
            json(&report, true)["resourceRequests"],
            serde_json::Value::Null
        );
        report.asks = vec![Ask {
            key: std::sync::Arc::new(bobbin_rm_core::AskKey {
                priority: 20,
                request_id: 7,
                place: "*".to_owned(),
                capability: Resource::new(1_024, 2),
                node_label: String::new(),
            }),
            count: 3,
            relax_locality: true,
        }];
        assert_eq!(
            json(&report, false)["resourceRequests"],
            serde_json::Value::Null
        );
        let request = json(&report, true)["resourceRequests"][0].take();
        for (name, value) in [
            ("priority", serde_json::json!(20)),
            ("resourceName", "*".into()),
            ("numContainers", 3.into()),
            ("relaxLocality", true.into()),
            ("nodeLabelExpression", "".into()),
            ("allocationRequestId", 7.into()),
        ] {
            assert_eq!(request[name], value, "{name}");
        }
        assert_eq!(request["capability"]["memory"], 1_024);
    }

    #[test]
    fn every_field_of_the_documentations_example() {
        let app = json(&samples::ended(), true);
        // Values of the example "word count" in the documentation of Hadoop.
        for (name, value) in [
            ("finishedTime", serde_json::json!(1_326_815_598_530_u64)),
            ("trackingUI", "History".into()),
            ("state", "FINISHED".into()),
            ("user", "user1".into()),
            ("id", "application_1326815542473_0001".into()),
            ("clusterId", 1_326_815_542_473_u64.into()),
            ("finalStatus", "SUCCEEDED".into()),
            ("progress", 100.0.into()),
            ("name", "word count".into()),
            ("startedTime", 1_326_815_573_334_u64.into()),
            ("elapsedTime", 25_196.into()),
            ("diagnostics", "".into()),
            ("trackingUrl", "http://rm:8088/proxy/application_1326815542473_0001/".into()),
            ("queue", "default".into()),
            ("allocatedMB", (-1).into()),
            ("runningContainers", (-1).into()),
            ("applicationType", "MAPREDUCE".into()),
            ("applicationTags", "".into()),
            ("memorySeconds", 151_730.into()),
            ("vcoreSeconds", 103.into()),
            ("unmanagedApplication", false.into()),
            ("priority", 0.into()),
            ("appNodeLabelExpression", "".into()),
            ("amNodeLabelExpression", "".into()),
            ("amHostHttpAddress", "host.domain.com:8042".into()),
            (
                "amContainerLogs",
                "http://host.domain.com:8042/node/containerlogs/container_1326815542473_0001_01_000001/user1".into(),
            ),
        ] {
            assert_eq!(app[name], value, "{name}");
        }
        assert_eq!(
            app["timeouts"],
            serde_json::json!({"timeout": [
                {"type": "LIFETIME", "expiryTime": "UNLIMITED", "remainingTimeInSeconds": -1}
            ]})
        );
    }

    #[test]
    fn what_may_not_be_viewed_says_little() {
        let mut report = samples::ended();
        report.diagnostics = "secret words".to_owned();
        let text = json(&report, false).to_string();
        for secret in [
            "secret",
            "host.domain.com",
            "proxy",
            "151730",
            "1326815573334",
        ] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert!(text.contains("user1") && text.contains("FINISHED"));
    }

    #[test]
    fn one_that_waits_says_why_and_is_not_tracked() {
        let app = json(&samples::waiting(), true);
        assert_eq!(app["trackingUI"], "UNASSIGNED");
        assert_eq!(app["trackingUrl"], serde_json::Value::Null);
        assert_eq!(app["diagnostics"], samples::waiting().waiting);
        assert_eq!(app["allocatedMB"], 0);
        assert_eq!(app["elapsedTime"], 26_666);
    }

    #[test]
    fn fields_can_be_left_out() {
        let query = Query::parse("deSelects=apptimeouts,resourceRequests").unwrap();
        let frame = Frame {
            unwanted: unwanted(&query).unwrap(),
            ..frame()
        };
        let text =
            Document::new("app", application(&samples::ended(), true, &frame)).write(Format::Json);
        assert!(!text.contains("timeouts") && text.contains("appNodeLabelExpression"));
        assert!(unwanted(&Query::parse("deSelects=everything").unwrap()).is_err());
    }
}
