//! What a master is answered, as the wire has it, with the tokens that go with it.

use bobbin_hadoop::convert::write_resource;
use bobbin_hadoop::proto::yarn;
use bobbin_rm_core::view::{MasterView, NodeReport};
use bobbin_rm_core::{CompletedContainer, Grant, MasterRegistered};
use bobbin_types::{AttemptId, NodeId, NodeState, UserName};
use bytes::Bytes;

use super::mailbox::Answer;
use super::requests::{UpdateError, update_kind};
use crate::minter::Minter;
use crate::yarn::mint::NodeMint;
use crate::yarn::report;

/// Writes answers to the master of one attempt.
pub(crate) struct Writer<'a> {
    pub(crate) minter: &'a Minter,
    pub(crate) attempt: AttemptId,
    /// See [`crate::yarn::YarnDoors::started_ms`].
    pub(crate) started_ms: u64,
}

impl Writer<'_> {
    /// `nodes`: those whose tokens go with the containers of earlier attempts.
    pub(crate) fn registered(
        &self,
        registered: &MasterRegistered,
        nodes: &[NodeId],
    ) -> yarn::RegisterApplicationMasterResponse {
        let mut mint = self.minter.for_nodes();
        let inherited = &registered.containers_from_previous_attempts;
        yarn::RegisterApplicationMasterResponse {
            maximum_capability: Some(report::resource(&report::maximum(
                registered.largest_container,
            ))),
            client_to_am_token_master_key: Some(Bytes::from(
                self.minter.client_to_am_key(self.attempt),
            )),
            application_ac_ls: access_lists(registered),
            containers_from_previous_attempts: self.containers(&mut mint, inherited),
            queue: Some(registered.queue.clone()),
            nm_tokens_from_previous_attempts: self.node_tokens(&mut mint, nodes, &registered.user),
            scheduler_resource_types: vec![
                yarn::SchedulerResourceTypes::Memory.into(),
                yarn::SchedulerResourceTypes::Cpu.into(),
            ],
            resource_profiles: None,
            resource_types: resource_types(),
        }
    }

    pub(crate) fn allocated(
        &self,
        answer: &Answer,
        view: &MasterView,
        user: &UserName,
    ) -> yarn::AllocateResponse {
        let mut mint = self.minter.for_nodes();
        let updated = answer
            .updated
            .iter()
            .map(|updated| yarn::UpdatedContainer {
                update_type: update_kind(updated.kind).into(),
                container: self.container(&mut mint, &updated.container),
            })
            .collect();
        yarn::AllocateResponse {
            // No master looks at it: one whose attempt is over is refused instead.
            a_m_command: None,
            response_id: Some(answer.response_id),
            allocated_containers: self.containers(&mut mint, &answer.granted),
            completed_container_statuses: answer.completed.iter().map(completed).collect(),
            limit: Some(write_resource(&view.available, &[])),
            updated_nodes: view.changed_nodes.iter().map(changed_node).collect(),
            num_cluster_nodes: Some(i32::try_from(view.nodes_running).unwrap_or(i32::MAX)),
            // Nothing is taken back with notice.
            preempt: Some(yarn::PreemptionMessage::default()),
            nm_tokens: self.node_tokens(&mut mint, &answer.nodes, user),
            am_rm_token: answer
                .rolls_token
                .then(|| self.minter.amrm_token(self.attempt)),
            application_priority: Some(yarn::Priority {
                priority: Some(view.priority),
            }),
            collector_info: None,
            update_errors: answer.update_errors.iter().map(update_error).collect(),
            updated_containers: updated,
            containers_from_previous_attempts: self.containers(&mut mint, &answer.inherited),
            rejected_scheduling_requests: Vec::new(),
        }
    }

    fn node_tokens(
        &self,
        mint: &mut NodeMint<'_>,
        nodes: &[NodeId],
        user: &UserName,
    ) -> Vec<yarn::NmToken> {
        nodes
            .iter()
            .map(|node| mint.node(self.attempt, node, user))
            .collect()
    }

    fn containers(&self, mint: &mut NodeMint<'_>, grants: &[Grant]) -> Vec<yarn::Container> {
        grants
            .iter()
            .map(|grant| self.container(mint, grant))
            .collect()
    }

    fn container(&self, mint: &mut NodeMint<'_>, grant: &Grant) -> yarn::Container {
        yarn::Container {
            id: Some(grant.container.into()),
            node_id: Some((&grant.node).into()),
            node_http_address: Some(grant.node_http_address.clone()),
            resource: Some(write_resource(&grant.resource, &[])),
            priority: Some(yarn::Priority {
                priority: Some(grant.priority),
            }),
            container_token: Some(mint.container(grant, self.started_ms)),
            execution_type: Some(yarn::ExecutionType::Guaranteed.into()),
            allocation_request_id: Some(grant.request_id),
            version: Some(i32::try_from(grant.version).unwrap_or(i32::MAX)),
            ..yarn::Container::default()
        }
    }
}

fn completed(completed: &CompletedContainer) -> yarn::ContainerStatus {
    yarn::ContainerStatus {
        container_id: Some(completed.container.into()),
        state: Some(yarn::ContainerState::CComplete.into()),
        diagnostics: Some(completed.diagnostics.clone()),
        exit_status: Some(completed.exit_status.0),
        capability: Some(write_resource(&completed.resource, &[])),
        execution_type: Some(yarn::ExecutionType::Guaranteed.into()),
        ..yarn::ContainerStatus::default()
    }
}

fn update_error(error: &UpdateError) -> yarn::UpdateContainerError {
    let version = error.version.map(|v| i32::try_from(v).unwrap_or(i32::MAX));
    yarn::UpdateContainerError {
        reason: Some(error.reason.clone()),
        update_request: Some(error.request.clone()),
        current_container_version: version,
    }
}

fn changed_node(node: &NodeReport) -> yarn::NodeReport {
    let update = match node.state {
        NodeState::New | NodeState::Running => yarn::NodeUpdateType::NodeUsable,
        NodeState::Decommissioning => yarn::NodeUpdateType::NodeDecommissioning,
        NodeState::Unhealthy
        | NodeState::Decommissioned
        | NodeState::Lost
        | NodeState::Rebooted
        | NodeState::Shutdown => yarn::NodeUpdateType::NodeUnusable,
    };
    yarn::NodeReport {
        node_update_type: Some(update.into()),
        ..report::node(node)
    }
}

fn access_lists(registered: &MasterRegistered) -> Vec<yarn::ApplicationAclMap> {
    let list = |kind: yarn::ApplicationAccessType, acl: &str| yarn::ApplicationAclMap {
        access_type: Some(kind.into()),
        acl: Some(acl.to_owned()),
    };
    vec![
        list(
            yarn::ApplicationAccessType::AppaccessViewApp,
            &registered.view_acl,
        ),
        list(
            yarn::ApplicationAccessType::AppaccessModifyApp,
            &registered.modify_acl,
        ),
    ]
}

fn resource_types() -> Vec<yarn::ResourceTypeInfo> {
    [("memory-mb", "Mi"), ("vcores", "")]
        .map(|(name, units)| yarn::ResourceTypeInfo {
            name: name.to_owned(),
            units: Some(units.to_owned()),
            r#type: Some(yarn::ResourceTypes::Countable.into()),
        })
        .into()
}
