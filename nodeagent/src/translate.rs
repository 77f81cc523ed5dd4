//! The core's words to the wire's.

use bobbin_na_core::{ContainerClaims, ContainerReport, Heartbeat, Registration};
use bobbin_proto::v1;
use bobbin_proto::v1::node_message::Message;
use bobbin_service::Claims;
use bobbin_types::WallMillis;

use crate::localizer::Fetching;
use crate::node::Node;

fn message(message: Message) -> v1::NodeMessage {
    v1::NodeMessage {
        message: Some(message),
    }
}

pub(crate) fn status(node: &Node, report: ContainerReport) -> v1::ContainerStatus {
    v1::ContainerStatus {
        container_id: report.container.to_string(),
        state: report.state.to_string(),
        exit_status: report.exit_status.map(|s| s.0),
        diagnostics: report.diagnostics,
        resource: Some(report.resource.into()),
        node_id: node.node_id.to_string(),
    }
}

pub(crate) fn registration(node: &Node, registration: Registration) -> v1::NodeMessage {
    let (total, reserved) = node.offered;
    message(Message::Register(v1::RegisterNode {
        node_id: node.node_id.to_string(),
        grpc_address: node.grpc_address.clone(),
        total: Some(total.into()),
        reserved: Some(reserved.into()),
        profile: node.config.sandbox.profile.clone(),
        problems: registration.problems,
        lacks: node.lacks.clone(),
        containers: registration
            .containers
            .into_iter()
            .map(|c| status(node, c))
            .collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        applications: registration
            .applications
            .iter()
            .map(ToString::to_string)
            .collect(),
        http_address: node.http_address.clone(),
    }))
}

pub(crate) fn heartbeat(heartbeat: Heartbeat, fetching: Vec<Fetching>) -> v1::NodeMessage {
    let fetching = fetching.into_iter().map(|file| v1::Fetching {
        container_id: file.container,
        name: file.name,
        bytes: file.bytes,
        bytes_total: file.bytes_total,
    });
    message(Message::Heartbeat(v1::NodeHeartbeat {
        memory_used_mib: heartbeat.usage.memory_used_mib,
        cpu_permille: heartbeat.usage.cpu_permille,
        problems: heartbeat.problems,
        fetching: fetching.collect(),
    }))
}

pub(crate) fn started(report: &ContainerReport) -> v1::NodeMessage {
    message(Message::ContainerStarted(v1::ContainerStarted {
        container_id: report.container.to_string(),
        resource: Some(report.resource.into()),
    }))
}

pub(crate) fn exited(node: &Node, report: ContainerReport) -> v1::NodeMessage {
    let status = Some(status(node, report));
    message(Message::ContainerExited(v1::ContainerExited { status }))
}

/// A token that is signed well but does not say what a container token must.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimsError {
    #[error("the container token's container: {0}")]
    Container(#[from] bobbin_types::IdError),
    #[error("the container token's user: {0}")]
    User(#[from] bobbin_types::NameError),
    #[error("the container token has no resource")]
    Resource,
}

pub(crate) fn claims(claims: &Claims) -> Result<ContainerClaims, ClaimsError> {
    Ok(ContainerClaims {
        container: claims.container.parse()?,
        user: claims.user.parse()?,
        resource: claims.granted().ok_or(ClaimsError::Resource)?,
        expires: WallMillis(claims.expires_ms),
    })
}
