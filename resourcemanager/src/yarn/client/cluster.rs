//! The cluster as a whole: metrics, nodes, queues, labels, resource types.

use bobbin_hadoop::exceptions::RpcException;
use bobbin_hadoop::proto::yarn;
use bobbin_rm_core::view::{QueueReport, QueueStatistics};
use bobbin_rm_core::{Object, Operation, Principal, may};
use bobbin_types::NodeState;

use super::ClientService;
use super::submit::queue;
use crate::grpc::identify::decide;
use crate::yarn::caller::Client;
use crate::yarn::exceptions::denied;
use crate::yarn::report::{self, int, long, share};

/// The queue above all others. Source: `CapacitySchedulerConfiguration.ROOT`.
const ROOT: &str = "root";

fn view_cluster(client: &Client) -> Result<(), RpcException> {
    decide(&client.principal, Operation::ViewCluster, &Object::Cluster).map_err(denied)
}

fn view_nodes(client: &Client) -> Result<(), RpcException> {
    decide(&client.principal, Operation::ViewNodes, &Object::Cluster).map_err(denied)
}

impl ClientService {
    pub(super) async fn get_cluster_metrics(
        &self,
        client: &Client,
        _: yarn::GetClusterMetricsRequest,
    ) -> Result<yarn::GetClusterMetricsResponse, RpcException> {
        view_cluster(client)?;
        let nodes = self.read(|core| core.metrics().nodes).await?;
        let all = [
            nodes.running,
            nodes.unhealthy,
            nodes.lost,
            nodes.decommissioning,
            nodes.decommissioned,
            nodes.rebooted,
            nodes.shutdown,
        ];
        Ok(yarn::GetClusterMetricsResponse {
            cluster_metrics: Some(yarn::YarnClusterMetrics {
                num_node_managers: Some(int(all.iter().sum())),
                num_decommissioned_nms: Some(int(nodes.decommissioned)),
                num_active_nms: Some(int(nodes.running)),
                num_lost_nms: Some(int(nodes.lost)),
                num_unhealthy_nms: Some(int(nodes.unhealthy)),
                num_rebooted_nms: Some(int(nodes.rebooted)),
            }),
        })
    }

    pub(super) async fn get_cluster_nodes(
        &self,
        client: &Client,
        request: yarn::GetClusterNodesRequest,
    ) -> Result<yarn::GetClusterNodesResponse, RpcException> {
        view_nodes(client)?;
        let wanted: Vec<yarn::NodeState> = request.node_states().collect();
        let is_wanted = |state: NodeState| wanted.is_empty() || wanted.contains(&state.into());
        let nodes = self.read(|core| core.nodes()).await?;
        let shown = nodes.iter().filter(|node| is_wanted(node.state));
        Ok(yarn::GetClusterNodesResponse {
            node_reports: shown.map(report::node).collect(),
        })
    }

    /// A queue that there is not is an answer without one: the stock command line says so in words.
    pub(super) async fn get_queue_info(
        &self,
        client: &Client,
        request: yarn::GetQueueInfoRequest,
    ) -> Result<yarn::GetQueueInfoResponse, RpcException> {
        view_cluster(client)?;
        let named = request.queue_name().to_owned();
        let (queues, whole) = self.read(|core| (core.queues(), core.metrics())).await?;
        if named != ROOT {
            let found = queues.iter().find(|q| q.name == queue(&named));
            let info = match found {
                None => None,
                Some(found) => Some(self.queue(client, found, &request).await?),
            };
            return Ok(yarn::GetQueueInfoResponse { queue_info: info });
        }
        let share = whole.statistics.allocated.dominant_share(&whole.total) / 1000;
        let root = QueueReport {
            name: ROOT.to_owned(),
            capacity_permille: 1000,
            maximum_permille: 1000,
            used_permille: u32::try_from(share).unwrap_or(1000).min(1000),
            statistics: whole.statistics,
        };
        let mut info = self.queue(client, &root, &request).await?;
        if request.include_child_queues() || request.recursive() {
            for child in &queues {
                info.child_queues
                    .push(self.queue(client, child, &request).await?);
            }
        }
        Ok(yarn::GetQueueInfoResponse {
            queue_info: Some(info),
        })
    }

    async fn queue(
        &self,
        client: &Client,
        report: &QueueReport,
        request: &yarn::GetQueueInfoRequest,
    ) -> Result<yarn::QueueInfo, RpcException> {
        let mut info = queue_info(report);
        if request.include_applications() && report.name != ROOT {
            let wanted = yarn::GetApplicationsRequest {
                queues: vec![report.name.clone()],
                ..yarn::GetApplicationsRequest::default()
            };
            info.applications = self.get_applications(client, wanted).await?.applications;
        }
        Ok(info)
    }

    /// What the caller may do with each queue: everybody submits to all of them.
    pub(super) async fn get_queue_acls(
        &self,
        client: &Client,
        _: yarn::GetQueueUserAclsInfoRequest,
    ) -> Result<yarn::GetQueueUserAclsInfoResponse, RpcException> {
        view_cluster(client)?;
        let names = self.read(|core| core.config().queues.clone()).await?;
        let acls = queue_acls(&client.principal);
        let of = |name: String| yarn::QueueUserAclInfo {
            queue_name: Some(name),
            user_acls: acls.clone(),
        };
        Ok(yarn::GetQueueUserAclsInfoResponse {
            queue_user_acls: std::iter::once(ROOT.to_owned())
                .chain(names)
                .map(of)
                .collect(),
        })
    }

    // No node has a label or an attribute yet: the answers are true, and empty as in a YARN whose
    // nodes have none.

    pub(super) async fn get_node_to_labels(
        &self,
        client: &Client,
        _: yarn::GetNodesToLabelsRequest,
    ) -> Result<yarn::GetNodesToLabelsResponse, RpcException> {
        view_nodes(client)?;
        Ok(yarn::GetNodesToLabelsResponse::default())
    }

    pub(super) async fn get_labels_to_nodes(
        &self,
        client: &Client,
        _: yarn::GetLabelsToNodesRequest,
    ) -> Result<yarn::GetLabelsToNodesResponse, RpcException> {
        view_nodes(client)?;
        Ok(yarn::GetLabelsToNodesResponse::default())
    }

    pub(super) async fn get_labels(
        &self,
        client: &Client,
        _: yarn::GetClusterNodeLabelsRequest,
    ) -> Result<yarn::GetClusterNodeLabelsResponse, RpcException> {
        view_nodes(client)?;
        Ok(yarn::GetClusterNodeLabelsResponse::default())
    }

    pub(super) async fn get_attributes(
        &self,
        client: &Client,
        _: yarn::GetClusterNodeAttributesRequest,
    ) -> Result<yarn::GetClusterNodeAttributesResponse, RpcException> {
        view_nodes(client)?;
        Ok(yarn::GetClusterNodeAttributesResponse::default())
    }

    pub(super) async fn get_attributes_to_nodes(
        &self,
        client: &Client,
        _: yarn::GetAttributesToNodesRequest,
    ) -> Result<yarn::GetAttributesToNodesResponse, RpcException> {
        view_nodes(client)?;
        Ok(yarn::GetAttributesToNodesResponse::default())
    }

    pub(super) async fn get_nodes_to_attributes(
        &self,
        client: &Client,
        _: yarn::GetNodesToAttributesRequest,
    ) -> Result<yarn::GetNodesToAttributesResponse, RpcException> {
        view_nodes(client)?;
        Ok(yarn::GetNodesToAttributesResponse::default())
    }

    pub(super) async fn get_resource_types(
        &self,
        client: &Client,
        _: yarn::GetAllResourceTypeInfoRequest,
    ) -> Result<yarn::GetAllResourceTypeInfoResponse, RpcException> {
        view_cluster(client)?;
        let kind = |name: &str, units: &str| yarn::ResourceTypeInfo {
            name: name.to_owned(),
            units: Some(units.to_owned()),
            r#type: Some(yarn::ResourceTypes::Countable.into()),
        };
        let further = report::KINDS.iter().map(|name| kind(name, ""));
        Ok(yarn::GetAllResourceTypeInfoResponse {
            resource_type_info: [kind("memory-mb", "Mi"), kind("vcores", "")]
                .into_iter()
                .chain(further)
                .collect(),
        })
    }
}

fn queue_acls(principal: &Principal) -> Vec<i32> {
    let mut acls = vec![yarn::QueueAcl::QaclSubmitApplications.into()];
    if may(principal, Operation::Administer, &Object::Cluster).is_ok() {
        acls.push(yarn::QueueAcl::QaclAdministerQueue.into());
    }
    acls
}

fn queue_info(report: &QueueReport) -> yarn::QueueInfo {
    yarn::QueueInfo {
        queue_name: Some(report.name.clone()),
        capacity: Some(share(report.capacity_permille)),
        maximum_capacity: Some(share(report.maximum_permille)),
        current_capacity: Some(share(report.used_permille)),
        state: Some(yarn::QueueState::QRunning.into()),
        child_queues: Vec::new(),
        applications: Vec::new(),
        accessible_node_labels: vec!["*".to_owned()],
        default_node_label_expression: Some("<DEFAULT_PARTITION>".to_owned()),
        queue_statistics: Some(statistics(&report.statistics)),
        // Nothing is taken from one application for another.
        preemption_disabled: Some(true),
        queue_configurations_map: Vec::new(),
        intra_queue_preemption_disabled: Some(true),
    }
}

fn statistics(of: &QueueStatistics) -> yarn::QueueStatistics {
    let count = |number: usize| Some(i64::try_from(number).unwrap_or(i64::MAX));
    yarn::QueueStatistics {
        num_apps_submitted: count(of.submitted),
        num_apps_running: count(of.running),
        num_apps_pending: count(of.pending),
        num_apps_completed: count(of.completed),
        num_apps_killed: count(of.killed),
        num_apps_failed: count(of.failed),
        num_active_users: count(of.users),
        available_memory_mb: Some(long(of.available.memory_mib)),
        allocated_memory_mb: Some(long(of.allocated.memory_mib)),
        pending_memory_mb: Some(long(of.wanted.memory_mib)),
        reserved_memory_mb: Some(0),
        available_v_cores: Some(i64::from(of.available.vcores)),
        allocated_v_cores: Some(i64::from(of.allocated.vcores)),
        pending_v_cores: Some(i64::from(of.wanted.vcores)),
        reserved_v_cores: Some(0),
        allocated_containers: count(of.allocated_containers),
        pending_containers: Some(long(of.wanted_containers)),
        reserved_containers: Some(0),
    }
}
