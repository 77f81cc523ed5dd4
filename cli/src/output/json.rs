//! What JSON and YAML show: own structs, so that field names stay when the wire changes.

use std::collections::HashMap;

use bobbin_proto::v1;
use serde::Serialize;

/// An application. `attempts` is left out of lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Application {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) queue: String,
    /// YarnApplicationState.
    pub(crate) state: String,
    /// FinalApplicationStatus.
    pub(crate) final_status: String,
    /// The driver's, or YARN's negative one; null while there is none.
    pub(crate) exit_status: Option<i32>,
    pub(crate) diagnostics: String,
    /// Unix milliseconds; 0: not yet.
    pub(crate) submitted_ms: u64,
    pub(crate) started_ms: u64,
    pub(crate) finished_ms: u64,
    pub(crate) deploy_mode: &'static str,
    pub(crate) application_type: String,
    pub(crate) tags: Vec<String>,
    pub(crate) priority: i32,
    /// Granted now, the driver's container included.
    pub(crate) containers: u32,
    pub(crate) memory_mib: u64,
    pub(crate) vcores: u32,
    /// The part of the driver's container that is Bobbin's own.
    pub(crate) overhead_memory_mib: u64,
    /// Why it waits; empty when it does not.
    pub(crate) waiting: String,
    /// Its user interface, after its end its history; empty: none.
    pub(crate) tracking_url: String,
    /// Of all its containers since its submission.
    pub(crate) memory_mib_seconds: u64,
    pub(crate) vcore_seconds: u64,
    /// When it is ended if it still runs, Unix milliseconds; 0: never.
    pub(crate) expires_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempts: Option<Vec<Attempt>>,
}

/// One start of the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Attempt {
    pub(crate) attempt: u32,
    pub(crate) state: String,
    pub(crate) exit_status: Option<i32>,
    /// null while it has no container, and in client mode.
    pub(crate) node: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) diagnostics: String,
    pub(crate) started_ms: u64,
    pub(crate) finished_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) node: String,
    pub(crate) state: String,
    pub(crate) memory_mib: u64,
    pub(crate) vcores: u32,
    pub(crate) exit_status: Option<i32>,
    pub(crate) diagnostics: String,
    /// Of one that runs, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<ContainerUsage>,
}

/// What a running container uses, as its node measured it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ContainerUsage {
    pub(crate) memory_bytes: u64,
    /// Of one core, since the look before, or since its start.
    pub(crate) cpu_permille: u64,
    /// Processor time since its start.
    pub(crate) cpu_ms: u64,
    pub(crate) processes: u64,
    /// By its node's clock, Unix milliseconds.
    pub(crate) measured_ms: u64,
    pub(crate) running_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) memory_mib: u64,
    /// Granted, as `vcores_used`.
    pub(crate) memory_used_mib: u64,
    pub(crate) vcores: u32,
    pub(crate) vcores_used: u32,
    pub(crate) containers: u32,
    /// Measured on the whole machine, whoever uses it.
    pub(crate) machine_memory_used_mib: u64,
    pub(crate) machine_cpu_permille: u32,
    pub(crate) reserved_memory_mib: u64,
    pub(crate) profile: String,
    /// What its profile lacks, or why it takes no work.
    pub(crate) problems: Vec<String>,
    pub(crate) address: String,
    pub(crate) version: String,
    pub(crate) last_seen_ms: u64,
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn sizes(resource: Option<&v1::Resource>) -> (u64, u32) {
    resource.map_or((0, 0), |r| (r.memory_mib, r.vcores))
}

impl Application {
    /// With its attempts.
    pub(crate) fn whole(mut report: v1::ApplicationReport) -> Application {
        let attempts = std::mem::take(&mut report.attempts);
        Application {
            attempts: Some(attempts.into_iter().map(Attempt::from).collect()),
            ..Application::in_list(report)
        }
    }

    /// Without its attempts.
    pub(crate) fn in_list(report: v1::ApplicationReport) -> Application {
        let (memory_mib, vcores) = sizes(report.used.as_ref());
        Application {
            id: report.id,
            name: report.name,
            user: report.user,
            queue: report.queue,
            state: report.state,
            final_status: report.final_status,
            exit_status: report.exit_status,
            diagnostics: report.diagnostics,
            submitted_ms: report.submitted_ms,
            started_ms: report.started_ms,
            finished_ms: report.finished_ms,
            deploy_mode: if report.unmanaged {
                "client"
            } else {
                "cluster"
            },
            application_type: report.application_type,
            tags: report.tags,
            priority: report.priority,
            containers: report.containers,
            memory_mib,
            vcores,
            overhead_memory_mib: sizes(report.overhead.as_ref()).0,
            waiting: report.waiting,
            tracking_url: report.tracking_url,
            memory_mib_seconds: report.memory_mib_seconds,
            vcore_seconds: report.vcore_seconds,
            expires_ms: report.expires_ms,
            attempts: None,
        }
    }
}

impl From<v1::AttemptReport> for Attempt {
    fn from(report: v1::AttemptReport) -> Attempt {
        Attempt {
            attempt: report.attempt,
            state: report.state,
            exit_status: report.exit_status,
            node: some(report.node_id),
            container: some(report.container_id),
            diagnostics: report.diagnostics,
            started_ms: report.started_ms,
            finished_ms: report.finished_ms,
        }
    }
}

impl From<v1::ContainerStatus> for Container {
    fn from(status: v1::ContainerStatus) -> Container {
        let (memory_mib, vcores) = sizes(status.resource.as_ref());
        Container {
            id: status.container_id,
            node: status.node_id,
            state: status.state,
            memory_mib,
            vcores,
            exit_status: status.exit_status,
            diagnostics: status.diagnostics,
            usage: None,
        }
    }
}

impl From<v1::ContainerUsage> for ContainerUsage {
    fn from(usage: v1::ContainerUsage) -> ContainerUsage {
        let cpu_ms = usage.cpu_usec / 1000;
        ContainerUsage {
            memory_bytes: usage.memory_bytes,
            cpu_permille: cpu_ms.saturating_mul(1000) / usage.running_ms.max(1),
            cpu_ms,
            processes: usage.processes,
            measured_ms: usage.measured_ms,
            running_ms: usage.running_ms,
        }
    }
}

impl Container {
    /// Each with what was measured of it.
    pub(crate) fn measured(
        list: Vec<v1::ContainerStatus>,
        usages: Vec<v1::ContainerUsage>,
    ) -> Vec<Container> {
        let usages = usages.into_iter();
        let mut usages: HashMap<String, ContainerUsage> = usages
            .map(|usage| (usage.container_id.clone(), usage.into()))
            .collect();
        let of = |status| {
            let container = Container::from(status);
            Container {
                usage: usages.remove(&container.id),
                ..container
            }
        };
        list.into_iter().map(of).collect()
    }
}

impl From<v1::NodeReport> for Node {
    fn from(report: v1::NodeReport) -> Node {
        let (memory_mib, vcores) = sizes(report.total.as_ref());
        let (memory_used_mib, vcores_used) = sizes(report.used.as_ref());
        Node {
            id: report.id,
            state: report.state,
            memory_mib,
            memory_used_mib,
            vcores,
            vcores_used,
            containers: report.containers,
            machine_memory_used_mib: report.machine_memory_used_mib,
            machine_cpu_permille: report.machine_cpu_permille,
            reserved_memory_mib: sizes(report.reserved.as_ref()).0,
            profile: report.profile,
            problems: report.problems,
            address: report.grpc_address,
            version: report.version,
            last_seen_ms: report.last_seen_ms,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use expect_test::expect;

    use super::*;

    fn resource(memory_mib: u64, vcores: u32) -> Option<v1::Resource> {
        Some(v1::Resource {
            memory_mib,
            vcores,
            countable: vec![],
        })
    }

    pub(crate) fn report() -> v1::ApplicationReport {
        v1::ApplicationReport {
            id: "application_1700000000000_0007".into(),
            name: "flights".into(),
            user: "nobody".into(),
            queue: "default".into(),
            state: "FAILED".into(),
            final_status: "FAILED".into(),
            exit_status: Some(-104),
            diagnostics: "128.0 MB of 128 MB physical memory used".into(),
            submitted_ms: 1_700_000_001_000,
            started_ms: 1_700_000_001_100,
            finished_ms: 1_700_000_063_000,
            attempts: vec![v1::AttemptReport {
                attempt: 1,
                state: "FAILED".into(),
                exit_status: Some(-104),
                node_id: "127.0.0.1:21000".into(),
                container_id: "container_e01_1700000000000_0007_01_000001".into(),
                diagnostics: "above its memory".into(),
                started_ms: 1_700_000_001_100,
                finished_ms: 1_700_000_063_000,
            }],
            application_type: "BOBBIN".into(),
            tags: vec!["nightly".into()],
            priority: 0,
            used: resource(128, 1),
            containers: 1,
            overhead: resource(64, 0),
            waiting: String::new(),
            unmanaged: false,
            progress: 0.0,
            tracking_url: "http://127.0.0.1:4040".into(),
            memory_mib_seconds: 7_936,
            vcore_seconds: 62,
            expires_ms: 1_700_000_900_000,
        }
    }

    pub(crate) fn application() -> Application {
        Application::whole(report())
    }

    pub(crate) fn container() -> Container {
        Container::from(v1::ContainerStatus {
            container_id: "container_e01_1700000000000_0007_01_000001".into(),
            state: "COMPLETED".into(),
            exit_status: Some(0),
            diagnostics: String::new(),
            resource: resource(576, 1),
            node_id: "127.0.0.1:21000".into(),
        })
    }

    pub(crate) fn node() -> Node {
        Node::from(v1::NodeReport {
            id: "127.0.0.1:21000".into(),
            state: "RUNNING".into(),
            total: resource(11_000, 8),
            used: resource(576, 1),
            containers: 1,
            grpc_address: "127.0.0.1:21000".into(),
            profile: "full".into(),
            problems: vec![],
            last_seen_ms: 1_700_000_000_500,
            version: "0.1.0".into(),
            reserved: resource(0, 0),
            machine_memory_used_mib: 3_400,
            machine_cpu_permille: 123,
        })
    }

    fn text<T: Serialize>(value: &T) -> String {
        serde_json::to_string_pretty(value).unwrap()
    }

    #[test]
    fn app_status() {
        expect![[r#"
            {
              "id": "application_1700000000000_0007",
              "name": "flights",
              "user": "nobody",
              "queue": "default",
              "state": "FAILED",
              "final_status": "FAILED",
              "exit_status": -104,
              "diagnostics": "128.0 MB of 128 MB physical memory used",
              "submitted_ms": 1700000001000,
              "started_ms": 1700000001100,
              "finished_ms": 1700000063000,
              "deploy_mode": "cluster",
              "application_type": "BOBBIN",
              "tags": [
                "nightly"
              ],
              "priority": 0,
              "containers": 1,
              "memory_mib": 128,
              "vcores": 1,
              "overhead_memory_mib": 64,
              "waiting": "",
              "tracking_url": "http://127.0.0.1:4040",
              "memory_mib_seconds": 7936,
              "vcore_seconds": 62,
              "expires_ms": 1700000900000,
              "attempts": [
                {
                  "attempt": 1,
                  "state": "FAILED",
                  "exit_status": -104,
                  "node": "127.0.0.1:21000",
                  "container": "container_e01_1700000000000_0007_01_000001",
                  "diagnostics": "above its memory",
                  "started_ms": 1700000001100,
                  "finished_ms": 1700000063000
                }
              ]
            }"#]]
        .assert_eq(&text(&application()));
    }

    #[test]
    fn app_list_has_no_attempts() {
        let mut report = report();
        report.exit_status = None;
        let listed = text(&Application::in_list(report));
        assert!(!listed.contains("attempts"), "{listed}");
        assert!(listed.contains("\"exit_status\": null"), "{listed}");
    }

    #[test]
    fn app_attempts_without_a_container() {
        let attempt = Attempt::from(v1::AttemptReport {
            attempt: 2,
            ..v1::AttemptReport::default()
        });
        expect![[r#"
            {
              "attempt": 2,
              "state": "",
              "exit_status": null,
              "node": null,
              "container": null,
              "diagnostics": "",
              "started_ms": 0,
              "finished_ms": 0
            }"#]]
        .assert_eq(&text(&attempt));
    }

    #[test]
    fn app_containers() {
        expect![[r#"
            [
              {
                "id": "container_e01_1700000000000_0007_01_000001",
                "node": "127.0.0.1:21000",
                "state": "COMPLETED",
                "memory_mib": 576,
                "vcores": 1,
                "exit_status": 0,
                "diagnostics": ""
              }
            ]"#]]
        .assert_eq(&text(&vec![container()]));
    }

    #[test]
    fn node_list() {
        expect![[r#"
            [
              {
                "id": "127.0.0.1:21000",
                "state": "RUNNING",
                "memory_mib": 11000,
                "memory_used_mib": 576,
                "vcores": 8,
                "vcores_used": 1,
                "containers": 1,
                "machine_memory_used_mib": 3400,
                "machine_cpu_permille": 123,
                "reserved_memory_mib": 0,
                "profile": "full",
                "problems": [],
                "address": "127.0.0.1:21000",
                "version": "0.1.0",
                "last_seen_ms": 1700000000500
              }
            ]"#]]
        .assert_eq(&text(&vec![node()]));
    }
}
