//! ResourceManagerAdministrationProtocol: what `yarn rmadmin` asks, on port 8033.
//!
//! For administrators only, whom the kernel proves: a token never administers. What there is to
//! answer is answered; what Bobbin sets in another way is refused with that way, so that no script
//! believes that something was changed.
//! Source: `AdminService` of Hadoop.

use bobbin_hadoop::exceptions::RpcException;
use bobbin_hadoop::proto::yarn;
use bobbin_hadoop::protocol::{AdminMethod, Protocol};
use bobbin_hadoop::server::{AuditedCall, Caller, Outcome, Service};
use bobbin_hadoop::wire;
use bobbin_rm_core::{Object, Operation};
use bobbin_service::account_of_name;
use bobbin_types::NodeState;
use bytes::Bytes;
use prost::Message;

use super::YarnDoors;
use super::caller::Client;
use super::client::{check_canceled, check_protocol};
use super::exceptions::{denied, failed};
use crate::grpc::identify::decide;

const SETTINGS: &str =
    "change the settings of the resource manager and restart it: what runs goes on";
const NODE_SETTINGS: &str = "change the settings of the node's agent and restart it: its containers \
     run on, and it registers with what it then has";
const NO_LABELS: &str = "its nodes have no labels or attributes yet";

/// The service; clones share everything.
#[derive(Clone)]
pub(crate) struct AdminService {
    doors: YarnDoors,
}

impl AdminService {
    pub(crate) fn new(doors: YarnDoors) -> AdminService {
        AdminService { doors }
    }

    async fn dispatch(&self, method: AdminMethod, request: Bytes) -> Result<Bytes, RpcException> {
        use AdminMethod as M;
        match method {
            // The host is asked for a user's groups every time: nothing is kept that could be old.
            M::RefreshUserToGroupsMappings => {
                encoded(&yarn::RefreshUserToGroupsMappingsResponse {})
            }
            M::GetGroupsForUser => {
                let wanted: yarn::GetGroupsForUserRequest = decoded(method, request)?;
                encoded(&groups_of(wanted.user).await)
            }
            M::CheckForDecommissioningNodes => encoded(&self.decommissioning().await?),
            M::RefreshQueues | M::RefreshClusterMaxPriority => {
                Err(RpcException::not_offered(method.name(), SETTINGS))
            }
            M::RefreshNodes => Err(RpcException::not_offered(
                method.name(),
                "it reads no lists of hosts: a node is whoever has a node's token ('bobbin token \
                 create --node'), and leaves when its agent is stopped",
            )),
            M::RefreshSuperUserGroupsConfiguration
            | M::RefreshAdminAcls
            | M::RefreshServiceAcls => Err(RpcException::not_offered(
                method.name(),
                "root and the resource manager's own account administer; there is no list to \
                     read again",
            )),
            M::UpdateNodeResource | M::RefreshNodesResources => {
                Err(RpcException::not_offered(method.name(), NODE_SETTINGS))
            }
            M::AddToClusterNodeLabels
            | M::RemoveFromClusterNodeLabels
            | M::ReplaceLabelsOnNodes
            | M::MapAttributesToNodes => Err(RpcException::not_offered(method.name(), NO_LABELS)),
        }
    }

    async fn decommissioning(
        &self,
    ) -> Result<yarn::CheckForDecommissioningNodesResponse, RpcException> {
        let nodes = self.doors.driver.read(|core| core.nodes()).await;
        let nodes = nodes.map_err(|e| failed(&e))?;
        let leaving = nodes
            .iter()
            .filter(|node| node.state == NodeState::Decommissioning);
        Ok(yarn::CheckForDecommissioningNodesResponse {
            decommissioning_nodes: leaving.map(|node| (&node.id).into()).collect(),
        })
    }
}

fn decoded<Q: Message + Default>(method: AdminMethod, request: Bytes) -> Result<Q, RpcException> {
    wire::decode(request).map_err(|e| RpcException::malformed(method.name(), &e))
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "it ends the arms of a match whose others refuse"
)]
fn encoded(answer: &impl Message) -> Result<Bytes, RpcException> {
    Ok(answer.encode_to_vec().into())
}

/// None of a user whom the host does not know, as in Hadoop. The name service may be slow.
async fn groups_of(user: String) -> yarn::GetGroupsForUserResponse {
    let asked = tokio::task::spawn_blocking(move || account_of_name(&user));
    let groups = match asked.await {
        Ok(Ok(account)) => account.group_names,
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    yarn::GetGroupsForUserResponse { groups }
}

impl Service<Client> for AdminService {
    async fn call(
        &self,
        caller: &Caller<Client>,
        protocol: &str,
        method: &str,
        request: Bytes,
    ) -> Result<Bytes, RpcException> {
        check_protocol(Protocol::ResourceManagerAdministration, protocol)?;
        check_canceled(&self.doors, caller)?;
        let known = AdminMethod::from_name(method).ok_or_else(|| {
            let words = "ResourceManagerAdministrationProtocol has no such method";
            RpcException::not_offered(method, words)
        })?;
        let client = &caller.principal;
        decide(&client.principal, Operation::Administer, &Object::Cluster).map_err(denied)?;
        self.dispatch(known, request).await
    }

    fn audit(&self, caller: &Caller<Client>, call: &AuditedCall<'_>, outcome: Outcome<'_>) {
        super::caller::audit(caller, call, outcome, true);
    }
}
