//! The core's reports as YARN's records.
//!
//! Everything a stock client prints is filled: what is not known is what YARN itself says then
//! (`N/A`, -1), for a missing field is a null that some clients do not expect.
//! Source: `RMAppImpl.createAndGetApplicationReport`, `RMAppAttemptImpl`, `RMContainerImpl`.

use std::net::SocketAddr;

use bobbin_hadoop::convert::write_resource;
use bobbin_hadoop::proto::yarn;
use bobbin_rm_core::view::{
    ApplicationReport, AttemptReport, ContainerReport, NodeReport, TimeoutReport,
};
use bobbin_types::{ContainerState, Resource, WallMillis};

use super::iso_time;

/// What YARN says where there is nothing to say.
const NOTHING: &str = "N/A";
/// Source: `ApplicationTimeout`, its expiry when there is none.
const UNLIMITED: &str = "UNLIMITED";
/// Names of the cluster's further kinds of resources: it has none yet.
pub(crate) const KINDS: &[String] = &[];

/// Unix milliseconds or sizes as Java has them; what does not fit is its largest.
pub(crate) fn long(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count as Java has it.
pub(crate) fn int(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// Thousandths as a share of one.
pub(crate) fn share(permille: u32) -> f32 {
    let whole = u16::try_from(permille).unwrap_or(u16::MAX);
    f32::from(whole) / 1000.0
}

pub(crate) fn resource(resource: &Resource) -> yarn::Resource {
    write_resource(resource, KINDS)
}

fn moment(wall: Option<WallMillis>) -> i64 {
    wall.map_or(0, |wall| long(wall.0))
}

fn or_nothing(text: &str) -> String {
    if text.is_empty() {
        NOTHING.to_owned()
    } else {
        text.to_owned()
    }
}

/// Where people see what the reports name.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    /// host:port of the resource manager's web door.
    authority: String,
}

impl Links {
    /// `http` is the web door's address; one that stands for all of the host's becomes its name.
    pub(crate) fn of(http: SocketAddr) -> Links {
        Links {
            authority: authority(http),
        }
    }

    fn proxy(&self, application: bobbin_types::ApplicationId) -> String {
        format!("http://{}/proxy/{application}/", self.authority)
    }
}

/// An address that a client can connect to: of one that stands for all, the host's name.
pub(crate) fn authority(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned());
    format!("{name}:{}", address.port())
}

/// Host and port of a master, which are nothing before it registers and after it has ended.
fn place(host: &str, rpc_port: i32, ended: bool) -> (String, i32) {
    if host.is_empty() || ended {
        return (NOTHING.to_owned(), -1);
    }
    // Bobbin's own masters say host and port in one.
    if let Some((name, port)) = host.rsplit_once(':')
        && let Ok(port) = port.parse::<u16>()
    {
        return (name.to_owned(), i32::from(port));
    }
    (host.to_owned(), if rpc_port > 0 { rpc_port } else { -1 })
}

/// `total` is the cluster's, of which the application's share is told.
pub(crate) fn application(
    report: &ApplicationReport,
    links: &Links,
    total: &Resource,
) -> yarn::ApplicationReport {
    let ended = report.state.is_ended();
    let (host, rpc_port) = place(&report.host, report.rpc_port, ended);
    let diagnostics = if report.diagnostics.is_empty() {
        report.waiting.clone()
    } else {
        report.diagnostics.clone()
    };
    let priority = yarn::Priority {
        priority: Some(report.priority),
    };
    yarn::ApplicationReport {
        application_id: Some(report.id.into()),
        user: Some(report.user.to_string()),
        queue: Some(report.queue.clone()),
        name: Some(report.name.clone()),
        host: Some(host),
        rpc_port: Some(rpc_port),
        client_to_am_token: None,
        yarn_application_state: Some(
            yarn::YarnApplicationState::from(report.state.as_yarn()).into(),
        ),
        tracking_url: Some(links.proxy(report.id)),
        diagnostics: Some(diagnostics),
        start_time: Some(long(report.submitted.0)),
        finish_time: Some(moment(report.finished)),
        final_application_status: Some(
            yarn::FinalApplicationStatus::from(report.final_status).into(),
        ),
        app_resource_usage: Some(usage(report, total)),
        original_tracking_url: Some(or_nothing(&report.tracking_url)),
        current_application_attempt_id: report.current_attempt.map(Into::into),
        progress: Some(if ended {
            1.0
        } else {
            share(u32::from(report.progress_permille))
        }),
        application_type: Some(report.application_type.clone()),
        am_rm_token: None,
        application_tags: report.tags.clone(),
        log_aggregation_status: Some(yarn::LogAggregationStatus::LogDisabled.into()),
        unmanaged_application: Some(report.unmanaged),
        priority: Some(priority),
        app_node_label_expression: Some(label(&report.node_label)),
        am_node_label_expression: Some(label(&report.node_label)),
        app_timeouts: vec![timeout(report.timeout)],
        launch_time: Some(moment(report.launched)),
        submit_time: Some(long(report.submitted.0)),
    }
}

/// YARN's name of no label.
fn label(label: &str) -> String {
    if label.is_empty() {
        "<DEFAULT_PARTITION>".to_owned()
    } else {
        label.to_owned()
    }
}

fn usage(report: &ApplicationReport, total: &Resource) -> yarn::ApplicationResourceUsageReport {
    let percentage = match total.memory_mib {
        0 => 0.0,
        all => {
            let permille = report.used.memory_mib.saturating_mul(1000) / all;
            share(u32::try_from(permille).unwrap_or(u32::MAX)) * 100.0
        }
    };
    let (memory, vcores) = (report.used_seconds.memory_mib, report.used_seconds.vcores);
    let entry = |key: &str, value: u64| yarn::StringLongMap {
        key: key.to_owned(),
        value: long(value),
    };
    let needed = report.used.checked_add(&report.wanted);
    yarn::ApplicationResourceUsageReport {
        num_used_containers: Some(int(report.containers)),
        num_reserved_containers: Some(0),
        used_resources: Some(resource(&report.used)),
        reserved_resources: Some(resource(&Resource::default())),
        needed_resources: Some(resource(&needed.unwrap_or(report.used))),
        memory_seconds: Some(long(memory)),
        vcore_seconds: Some(long(vcores)),
        queue_usage_percentage: Some(percentage),
        cluster_usage_percentage: Some(percentage),
        preempted_memory_seconds: Some(0),
        preempted_vcore_seconds: Some(0),
        application_resource_usage_map: vec![entry("memory-mb", memory), entry("vcores", vcores)],
        application_preempted_resource_usage_map: vec![entry("memory-mb", 0), entry("vcores", 0)],
    }
}

/// The one kind of timeout there is.
pub(crate) fn timeout(timeout: Option<TimeoutReport>) -> yarn::AppTimeoutsMap {
    let lifetime = yarn::ApplicationTimeoutType::AppTimeoutLifetime;
    let (expire_time, remaining) = match timeout {
        None => (UNLIMITED.to_owned(), -1),
        Some(timeout) => (
            iso_time::format(timeout.expires),
            long(timeout.remaining_ms / 1000),
        ),
    };
    yarn::AppTimeoutsMap {
        application_timeout_type: Some(lifetime.into()),
        application_timeout: Some(yarn::ApplicationTimeout {
            application_timeout_type: lifetime.into(),
            expire_time: Some(expire_time),
            remaining_time: Some(remaining),
        }),
    }
}

pub(crate) fn attempt(report: &AttemptReport, links: &Links) -> yarn::ApplicationAttemptReport {
    let (host, rpc_port) = place(&report.host, report.rpc_port, false);
    yarn::ApplicationAttemptReport {
        application_attempt_id: Some(report.attempt.into()),
        host: Some(host),
        rpc_port: Some(rpc_port),
        tracking_url: Some(links.proxy(report.attempt.application)),
        diagnostics: Some(report.diagnostics.clone()),
        yarn_application_attempt_state: Some(
            yarn::YarnApplicationAttemptState::from(report.state).into(),
        ),
        am_container_id: report.container.map(Into::into),
        original_tracking_url: Some(or_nothing(&report.tracking_url)),
        start_time: Some(moment(report.started)),
        finish_time: Some(moment(report.finished)),
    }
}

/// `user` is the application's, below whose name its logs are shown.
pub(crate) fn container(report: &ContainerReport, user: &str) -> yarn::ContainerReport {
    let (http, logs) = if report.node_http_address.is_empty() {
        (NOTHING.to_owned(), NOTHING.to_owned())
    } else {
        let http = format!("http://{}", report.node_http_address);
        let logs = format!("{http}/node/containerlogs/{}/{user}", report.container);
        (http, logs)
    };
    yarn::ContainerReport {
        container_id: Some(report.container.into()),
        resource: Some(resource(&report.resource)),
        node_id: Some((&report.node).into()),
        priority: Some(yarn::Priority {
            priority: Some(report.priority),
        }),
        creation_time: Some(moment(report.created)),
        finish_time: Some(moment(report.finished)),
        diagnostics_info: Some(report.diagnostics.clone()),
        log_url: Some(logs),
        container_exit_status: Some(report.exit_status.map_or(0, |status| status.0)),
        container_state: Some(container_state(report.state).into()),
        node_http_address: Some(http),
        execution_type: Some(yarn::ExecutionType::Guaranteed.into()),
        exposed_ports: None,
    }
}

/// Source: `RMContainerImpl.getContainerState`.
fn container_state(state: ContainerState) -> yarn::ContainerState {
    match state {
        ContainerState::New
        | ContainerState::Reserved
        | ContainerState::Allocated
        | ContainerState::Acquired => yarn::ContainerState::CNew,
        ContainerState::Running => yarn::ContainerState::CRunning,
        ContainerState::Completed
        | ContainerState::Expired
        | ContainerState::Released
        | ContainerState::Killed => yarn::ContainerState::CComplete,
    }
}

/// What is said to be the largest container. While no node has registered nobody knows, and Spark
/// would refuse to submit anything against a maximum of zero.
pub(crate) fn maximum(largest: Resource) -> Resource {
    if largest == Resource::default() {
        Resource::new(i32::MAX.cast_unsigned().into(), i32::MAX.cast_unsigned())
    } else {
        largest
    }
}

pub(crate) fn node(report: &NodeReport) -> yarn::NodeReport {
    let memory_mib = i32::try_from(report.memory_used_mib).unwrap_or(i32::MAX);
    let measured = yarn::ResourceUtilization {
        pmem: Some(memory_mib),
        vmem: Some(memory_mib),
        cpu: Some(share(report.cpu_permille)),
        custom_resources: Vec::new(),
    };
    yarn::NodeReport {
        node_id: Some((&report.id).into()),
        http_address: Some(or_nothing(&report.http_address)),
        rack_name: Some(report.rack.clone()),
        used: Some(resource(&report.used)),
        capability: Some(resource(&report.total)),
        num_containers: Some(int(report.containers)),
        node_state: Some(yarn::NodeState::from(report.state).into()),
        health_report: Some(report.problems.join("; ")),
        last_health_report_time: Some(long(report.last_seen.0)),
        node_labels: Vec::new(),
        containers_utilization: None,
        node_utilization: Some(measured),
        decommissioning_timeout: None,
        node_update_type: None,
        node_attributes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stands_for_all_becomes_the_hosts_name() {
        let all = authority("0.0.0.0:8088".parse().unwrap());
        assert!(
            all.ends_with(":8088") && !all.starts_with("0.0.0.0"),
            "{all}"
        );
        assert_eq!(authority("127.0.0.1:1".parse().unwrap()), "127.0.0.1:1");
        assert_eq!(authority("[::1]:1".parse().unwrap()), "[::1]:1");
    }

    #[test]
    fn timeouts_as_yarn_says_them() {
        let none = timeout(None).application_timeout.unwrap();
        assert_eq!(none.expire_time(), "UNLIMITED");
        assert_eq!(none.remaining_time(), -1);
        let some = timeout(Some(TimeoutReport {
            expires: WallMillis(1_700_000_000_123),
            remaining_ms: 4_999,
        }));
        let some = some.application_timeout.unwrap();
        assert_eq!(some.expire_time(), "2023-11-14T22:13:20.123+0000");
        assert_eq!(some.remaining_time(), 4);
    }

    #[test]
    fn a_master_is_nowhere_before_it_registers() {
        assert_eq!(place("", 0, false), ("N/A".to_owned(), -1));
        assert_eq!(place("h", 7, false), ("h".to_owned(), 7));
        assert_eq!(place("h", 0, false), ("h".to_owned(), -1));
        assert_eq!(place("h", 7, true), ("N/A".to_owned(), -1));
        assert_eq!(place("h:9", 0, false), ("h".to_owned(), 9));
    }
}
