//! Between wire messages and the core's events and views. Nothing is decided here: a value that
//! cannot be read is refused with its field's name, everything else goes to the core as it is.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use bobbin_proto::{FieldError, field, v1};
use bobbin_rm_core::view::{
    ApplicationReport, AttemptReport, ClusterReport, ContainerReport, NodeReport,
};
use bobbin_rm_core::{
    Ask, AskKey, CompletedContainer, ContainerExit, ContainerSignal, Fetching, Finish,
    LaunchContext, LaunchContract, LocalResource, MasterRegistration, NodeHeartbeat,
    NodeRegistration, ReportedContainer, ReportedStatus, ResourceKind, Secret, Submission,
    Visibility, limits,
};
use bobbin_types::{ContainerId, ContainerState, ExitStatus, FinalStatus, Resource};

fn refuse(name: &'static str, problem: impl Into<String>) -> FieldError {
    FieldError {
        field: name,
        problem: problem.into(),
    }
}

fn resource(name: &'static str, wire: Option<&v1::Resource>) -> Result<Resource, FieldError> {
    Resource::try_from(wire.ok_or_else(|| refuse(name, "is missing"))?)
}

fn optional<T: FromStr>(name: &'static str, text: &str) -> Result<Option<T>, FieldError>
where
    T::Err: std::fmt::Display,
{
    if text.is_empty() {
        Ok(None)
    } else {
        field(name, text).map(Some)
    }
}

fn texts<T: FromStr>(name: &'static str, list: &[String]) -> Result<Vec<T>, FieldError>
where
    T::Err: std::fmt::Display,
{
    list.iter().map(|text| field(name, text)).collect()
}

/// A share of 1 as thousandths; what is no number is 0.
fn permille(progress: f32) -> u16 {
    let clamped = if progress.is_finite() {
        progress.clamp(0.0, 1.0)
    } else {
        0.0
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1000 after the clamp"
    )]
    let whole = (clamped * 1000.0).round() as u16;
    whole
}

pub(crate) fn submission_from_wire(
    wire: v1::SubmitApplicationRequest,
) -> Result<Submission, FieldError> {
    Ok(Submission {
        application: optional("application_id", &wire.application_id)?,
        resource: match (&wire.resource, wire.unmanaged) {
            // The submitter's own process takes nothing of the cluster.
            (None, true) => Resource::default(),
            (given, _) => resource("resource", given.as_ref())?,
        },
        overhead: match &wire.overhead {
            None => Resource::default(),
            Some(overhead) => Resource::try_from(overhead)?,
        },
        launch: wire
            .launch
            .map_or_else(|| Ok(LaunchContext::default()), launch_from_wire)?,
        name: wire.name,
        queue: wire.queue,
        priority: wire.priority,
        unmanaged: wire.unmanaged,
        max_attempts: wire.max_attempts,
        tags: wire.tags,
        timeout_ms: wire.timeout_ms,
        tie_to_client: wire.tie_to_client,
        application_type: wire.application_type,
        settings: wire.settings.into_iter().collect(),
        node_label: String::new(),
        keep_containers: false,
        failures_validity_ms: None,
        view_acl: String::new(),
        modify_acl: String::new(),
    })
}

fn launch_from_wire(wire: v1::LaunchContext) -> Result<LaunchContext, FieldError> {
    let contract = match wire.contract() {
        v1::LaunchContract::Bobbin => LaunchContract::Bobbin,
        v1::LaunchContract::Yarn => LaunchContract::Yarn,
    };
    let secrets = wire
        .secrets
        .into_iter()
        .map(|(name, bytes)| (name, Secret(bytes)));
    Ok(LaunchContext {
        argv: wire.argv,
        environment: wire.environment.into_iter().collect(),
        local_resources: wire
            .local_resources
            .into_iter()
            .map(local_resource_from_wire)
            .collect::<Result<_, _>>()?,
        secrets: secrets.collect(),
        contract,
        service_data: wire.service_data.into_iter().collect(),
    })
}

fn local_resource_from_wire(wire: v1::LocalResource) -> Result<LocalResource, FieldError> {
    let kind = match wire.r#type() {
        v1::ResourceType::File => ResourceKind::File,
        v1::ResourceType::Archive => ResourceKind::Archive,
    };
    let visibility = match wire.visibility() {
        v1::Visibility::Application => Visibility::Application,
        v1::Visibility::Private => Visibility::Private,
        v1::Visibility::Public => Visibility::Public,
    };
    let digest = match wire.sha256.len() {
        0 => None,
        n => Some(
            <[u8; 32]>::try_from(wire.sha256.as_slice())
                .map_err(|_| refuse("local_resources.sha256", format!("has {n} bytes, not 32")))?,
        ),
    };
    Ok(LocalResource {
        name: wire.name,
        source: wire.source,
        size_bytes: wire.size,
        mtime_ms: wire.mtime_ms,
        digest,
        kind,
        visibility,
        executable: wire.executable,
    })
}

/// The launch context of a master's container as its agent gets it; `secrets` are those of this
/// attempt, beside the submitter's own.
pub(crate) fn launch_to_wire(
    launch: &LaunchContext,
    secrets: BTreeMap<String, Vec<u8>>,
) -> v1::LaunchContext {
    let mut all: BTreeMap<String, Vec<u8>> = launch
        .secrets
        .iter()
        .map(|(name, secret)| (name.clone(), secret.0.clone()))
        .collect();
    all.extend(secrets);
    v1::LaunchContext {
        argv: launch.argv.clone(),
        environment: launch.environment.clone().into_iter().collect(),
        local_resources: launch
            .local_resources
            .iter()
            .map(local_resource_to_wire)
            .collect(),
        secrets: all.into_iter().collect(),
        contract: match launch.contract {
            LaunchContract::Bobbin => v1::LaunchContract::Bobbin,
            LaunchContract::Yarn => v1::LaunchContract::Yarn,
        }
        .into(),
        service_data: launch.service_data.clone().into_iter().collect(),
    }
}

fn local_resource_to_wire(resource: &LocalResource) -> v1::LocalResource {
    let kind = match resource.kind {
        ResourceKind::File => v1::ResourceType::File,
        ResourceKind::Archive => v1::ResourceType::Archive,
    };
    let visibility = match resource.visibility {
        Visibility::Application => v1::Visibility::Application,
        Visibility::Private => v1::Visibility::Private,
        Visibility::Public => v1::Visibility::Public,
    };
    v1::LocalResource {
        name: resource.name.clone(),
        source: resource.source.clone(),
        size: resource.size_bytes,
        mtime_ms: resource.mtime_ms,
        sha256: resource.digest.map(|d| d.to_vec()).unwrap_or_default(),
        r#type: kind.into(),
        visibility: visibility.into(),
        executable: resource.executable,
    }
}

pub(crate) fn node_registration_from_wire(
    wire: v1::RegisterNode,
) -> Result<NodeRegistration, FieldError> {
    Ok(NodeRegistration {
        node: field("node_id", &wire.node_id)?,
        total: resource("total", wire.total.as_ref())?,
        reserved: match &wire.reserved {
            None => Resource::default(),
            Some(reserved) => Resource::try_from(reserved)?,
        },
        containers: wire
            .containers
            .into_iter()
            .map(reported_from_wire)
            .collect::<Result<_, _>>()?,
        applications: texts("applications", &wire.applications)?,
        grpc_address: wire.grpc_address,
        http_address: wire.http_address,
        profile: wire.profile,
        problems: wire.problems,
        lacks: wire.lacks,
        version: wire.version,
    })
}

fn reported_from_wire(wire: v1::ContainerStatus) -> Result<ReportedContainer, FieldError> {
    let state: ContainerState = field("containers.state", &wire.state)?;
    let status = match (wire.exit_status, state) {
        (Some(exit_status), _) => ReportedStatus::Ended {
            exit_status: ExitStatus(exit_status),
            diagnostics: wire.diagnostics,
        },
        (None, ContainerState::Running) => ReportedStatus::Running,
        (
            None,
            ContainerState::New
            | ContainerState::Reserved
            | ContainerState::Allocated
            | ContainerState::Acquired,
        ) => ReportedStatus::Starting,
        (
            None,
            ContainerState::Completed
            | ContainerState::Expired
            | ContainerState::Released
            | ContainerState::Killed,
        ) => {
            return Err(refuse(
                "containers.exit_status",
                "is missing of one that has ended",
            ));
        }
    };
    Ok(ReportedContainer {
        container: field("containers.container_id", &wire.container_id)?,
        resource: resource("containers.resource", wire.resource.as_ref())?,
        status,
    })
}

pub(crate) fn heartbeat_from_wire(wire: v1::NodeHeartbeat) -> NodeHeartbeat {
    // Shown only: what cannot be read is left out.
    let fetching = wire.fetching.into_iter().filter_map(|file| {
        Some(Fetching {
            container: file.container_id.parse().ok()?,
            name: file.name,
            bytes: file.bytes,
            bytes_total: file.bytes_total,
        })
    });
    NodeHeartbeat {
        memory_used_mib: wire.memory_used_mib,
        cpu_permille: wire.cpu_permille,
        problems: wire.problems,
        fetching: fetching.take(limits::FETCHING_PER_NODE_MAX).collect(),
    }
}

pub(crate) fn exit_from_wire(wire: v1::ContainerExited) -> Result<ContainerExit, FieldError> {
    let status = wire.status.ok_or_else(|| refuse("status", "is missing"))?;
    let exit_status = status
        .exit_status
        .ok_or_else(|| refuse("status.exit_status", "is missing"))?;
    Ok(ContainerExit {
        container: field("status.container_id", &status.container_id)?,
        exit_status: ExitStatus(exit_status),
        diagnostics: status.diagnostics,
    })
}

pub(crate) fn master_registration_from_wire(
    wire: v1::RegisterMaster,
) -> Result<MasterRegistration, FieldError> {
    Ok(MasterRegistration {
        asks: asks_from_wire(wire.asks)?,
        containers: Some(texts("containers", &wire.containers)?),
        host: wire.host,
        rpc_port: -1,
        tracking_url: wire.tracking_url,
    })
}

pub(crate) fn asks_from_wire(wire: Vec<v1::Ask>) -> Result<Vec<Ask>, FieldError> {
    wire.into_iter()
        .map(|ask| {
            Ok(Ask {
                key: Arc::new(AskKey {
                    priority: ask.priority,
                    request_id: ask.request_id,
                    capability: resource("asks.capability", ask.capability.as_ref())?,
                    place: if ask.place.is_empty() {
                        "*".to_owned()
                    } else {
                        ask.place
                    },
                    node_label: ask.node_label,
                }),
                count: ask.count,
                relax_locality: ask.relax_locality,
            })
        })
        .collect()
}

pub(crate) fn release_from_wire(wire: &v1::Release) -> Result<Vec<ContainerId>, FieldError> {
    texts("container_ids", &wire.container_ids)
}

pub(crate) fn finish_from_wire(wire: v1::Finish) -> Result<Finish, FieldError> {
    Ok(Finish {
        final_status: optional("final_status", &wire.final_status)?
            .unwrap_or(FinalStatus::Undefined),
        exit_status: wire.exit_status.map(ExitStatus),
        diagnostics: wire.diagnostics,
        tracking_url: String::new(),
    })
}

pub(crate) fn signal_to_wire(signal: ContainerSignal) -> v1::ContainerSignal {
    match signal {
        ContainerSignal::ThreadDump => v1::ContainerSignal::ThreadDump,
        ContainerSignal::Graceful => v1::ContainerSignal::Graceful,
        ContainerSignal::Forceful => v1::ContainerSignal::Forceful,
    }
}

pub(crate) fn progress_from_wire(wire: &v1::AmHeartbeat) -> u16 {
    permille(wire.progress)
}

pub(crate) fn completed_to_wire(completed: &CompletedContainer) -> v1::ContainerStatus {
    v1::ContainerStatus {
        container_id: completed.container.to_string(),
        state: ContainerState::Completed.to_string(),
        exit_status: Some(completed.exit_status.0),
        diagnostics: completed.diagnostics.clone(),
        resource: Some(completed.resource.into()),
        node_id: completed
            .node
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

pub(crate) fn container_to_wire(report: &ContainerReport) -> v1::ContainerStatus {
    v1::ContainerStatus {
        container_id: report.container.to_string(),
        state: report.state.to_string(),
        exit_status: report.exit_status.map(|e| e.0),
        diagnostics: report.diagnostics.clone(),
        resource: Some(report.resource.into()),
        node_id: report.node.to_string(),
    }
}

pub(crate) fn application_to_wire(report: ApplicationReport) -> v1::ApplicationReport {
    v1::ApplicationReport {
        id: report.id.to_string(),
        name: report.name,
        user: report.user.to_string(),
        queue: report.queue,
        state: report.state.as_yarn().to_string(),
        final_status: report.final_status.to_string(),
        exit_status: report.exit_status.map(|e| e.0),
        diagnostics: report.diagnostics,
        submitted_ms: report.submitted.0,
        started_ms: report.started.map(|w| w.0).unwrap_or_default(),
        finished_ms: report.finished.map(|w| w.0).unwrap_or_default(),
        attempts: report.attempts.into_iter().map(attempt_to_wire).collect(),
        application_type: report.application_type,
        tags: report.tags,
        priority: report.priority,
        used: Some(report.used.into()),
        containers: u32::try_from(report.containers).unwrap_or(u32::MAX),
        overhead: Some(report.overhead.into()),
        waiting: report.waiting,
        unmanaged: report.unmanaged,
        progress: f32::from(report.progress_permille) / 1000.0,
        tracking_url: report.tracking_url,
        memory_mib_seconds: report.used_seconds.memory_mib,
        vcore_seconds: report.used_seconds.vcores,
        expires_ms: report.timeout.map(|t| t.expires.0).unwrap_or_default(),
    }
}

fn attempt_to_wire(report: AttemptReport) -> v1::AttemptReport {
    v1::AttemptReport {
        attempt: report.attempt.attempt,
        state: report.state.to_string(),
        exit_status: report.exit_status.map(|e| e.0),
        node_id: report.node.map(|n| n.to_string()).unwrap_or_default(),
        container_id: report.container.map(|c| c.to_string()).unwrap_or_default(),
        diagnostics: report.diagnostics,
        started_ms: report.started.map(|w| w.0).unwrap_or_default(),
        finished_ms: report.finished.map(|w| w.0).unwrap_or_default(),
    }
}

pub(crate) fn node_to_wire(report: NodeReport) -> v1::NodeReport {
    let mut problems = report.problems;
    problems.extend(report.lacks.into_iter().map(|lack| format!("lacks {lack}")));
    v1::NodeReport {
        id: report.id.to_string(),
        state: report.state.to_string(),
        total: Some(report.total.into()),
        used: Some(report.used.into()),
        containers: u32::try_from(report.containers).unwrap_or(u32::MAX),
        grpc_address: report.grpc_address,
        profile: report.profile,
        problems,
        last_seen_ms: report.last_seen.0,
        version: report.version,
        reserved: Some(report.reserved.into()),
        machine_memory_used_mib: report.memory_used_mib,
        machine_cpu_permille: report.cpu_permille,
    }
}

/// The cluster, without who the caller is.
pub(crate) fn cluster_to_wire(report: &ClusterReport) -> v1::GetClusterResponse {
    v1::GetClusterResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: report.cluster_timestamp,
        epoch: report.epoch,
        largest_container: Some(report.largest_container.into()),
        nodes_running: u32::try_from(report.nodes_running).unwrap_or(u32::MAX),
        user: String::new(),
        administrator: false,
        total: Some(report.total.into()),
        used: Some(report.used.into()),
        applications: report.applications as u64,
        hadoop: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit() -> v1::SubmitApplicationRequest {
        v1::SubmitApplicationRequest {
            name: "n".to_owned(),
            resource: Some(v1::Resource {
                memory_mib: 10,
                vcores: 1,
                countable: vec![],
            }),
            launch: Some(v1::LaunchContext {
                argv: vec!["true".to_owned()],
                local_resources: vec![v1::LocalResource {
                    name: "a".to_owned(),
                    sha256: vec![7; 32],
                    r#type: v1::ResourceType::Archive.into(),
                    visibility: v1::Visibility::Private.into(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_submission_and_its_launch() {
        let submission = submission_from_wire(submit()).unwrap();
        assert_eq!(submission.resource, Resource::new(10, 1));
        let sent = submit().launch.unwrap();
        let secrets = BTreeMap::from([("attempt-token".to_owned(), vec![1])]);
        let back = launch_to_wire(&submission.launch, secrets);
        assert_eq!(back.local_resources, sent.local_resources);
        assert_eq!(back.argv, sent.argv);
        assert_eq!(back.secrets["attempt-token"], vec![1]);
    }

    #[test]
    fn fields_that_cannot_be_read_are_named() {
        let named = |change: &dyn Fn(&mut v1::SubmitApplicationRequest)| {
            let mut wire = submit();
            change(&mut wire);
            submission_from_wire(wire).unwrap_err().field
        };
        assert_eq!(
            named(&|w| w.application_id = "job_1".to_owned()),
            "application_id"
        );
        assert_eq!(named(&|w| w.resource = None), "resource");
        assert_eq!(
            named(&|w| w.launch.as_mut().unwrap().local_resources[0].sha256 = vec![1]),
            "local_resources.sha256"
        );
        let exit = v1::ContainerExited { status: None };
        assert_eq!(exit_from_wire(exit).unwrap_err().field, "status");
        let ended = v1::ContainerStatus {
            container_id: "container_e01_1_0001_01_000001".to_owned(),
            state: "COMPLETED".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            reported_from_wire(ended).unwrap_err().field,
            "containers.exit_status"
        );
    }

    #[test]
    fn progress_is_a_share() {
        for (given, thousandths) in [
            (0.5, 500),
            (2.0, 1000),
            (-1.0, 0),
            (f32::NAN, 0),
            (f32::INFINITY, 0),
        ] {
            assert_eq!(permille(given), thousandths, "{given}");
        }
    }
}
