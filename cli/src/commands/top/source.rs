//! Looks at the cluster: what the state wants, over the same calls that the other commands use.

use std::time::Duration;

use bobbin_proto::v1;
use bobbin_types::YarnApplicationState;

use crate::cluster::Cluster;
use crate::failure::{Failure, Kind};
use crate::output::{Application, Container, Node};

use super::state::{List, Snapshot, Summary, View, Wanted};

/// Applications in the list. What is beyond is said to be there.
const APPLICATIONS_MAX: usize = 50_000;
/// How long one look may take: an answer that comes later is of long ago.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// One look.
///
/// # Errors
/// The resource manager cannot be asked, or refuses.
pub(super) async fn look(cluster: &Cluster, wanted: &Wanted) -> Result<Snapshot, Failure> {
    match tokio::time::timeout(PATIENCE, ask(cluster, wanted)).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(
            Kind::Unreachable,
            format!(
                "the resource manager at {} has not answered for {} s",
                cluster.place(),
                PATIENCE.as_secs()
            ),
        )),
    }
}

async fn ask(cluster: &Cluster, wanted: &Wanted) -> Result<Snapshot, Failure> {
    let mut client = cluster.client();
    let report = cluster
        .answer(client.get_cluster(v1::GetClusterRequest {}))
        .await?;
    let list = match wanted.view {
        View::Applications => applications(cluster, wanted.ended).await?,
        View::Nodes => List::Nodes(cluster.nodes().await?.into_iter().map(Node::from).collect()),
        View::Containers => match &wanted.of {
            Some(of) => containers(cluster, of).await?,
            None => List::Nothing,
        },
    };
    let details = match &wanted.details {
        Some(id) => Some(Box::new(Application::whole(cluster.application(id).await?))),
        None => None,
    };
    Ok(Snapshot {
        now_ms: bobbin_service::wall_now().0,
        summary: summary(&report),
        list,
        details,
    })
}

fn summary(report: &v1::GetClusterResponse) -> Summary {
    let of = |resource: &Option<v1::Resource>| {
        resource
            .as_ref()
            .map_or((0, 0), |r| (r.memory_mib, r.vcores))
    };
    let (memory_mib, vcores) = of(&report.total);
    let (memory_used_mib, vcores_used) = of(&report.used);
    Summary {
        nodes: report.nodes_running,
        applications: report.applications,
        memory_mib,
        memory_used_mib,
        vcores,
        vcores_used,
    }
}

async fn applications(cluster: &Cluster, ended: bool) -> Result<List, Failure> {
    let live = YarnApplicationState::ALL
        .iter()
        .filter(|state| !state.is_ended());
    let states = if ended {
        Vec::new()
    } else {
        live.map(|state| state.as_str().to_owned()).collect()
    };
    let wanted = v1::ListApplicationsRequest {
        states,
        ..v1::ListApplicationsRequest::default()
    };
    let found = cluster.applications(wanted, APPLICATIONS_MAX).await?;
    Ok(List::Applications {
        more: found.len() >= APPLICATIONS_MAX,
        rows: found.into_iter().map(Application::in_list).collect(),
    })
}

async fn containers(cluster: &Cluster, of: &str) -> Result<List, Failure> {
    let found = cluster.measured_containers(of).await?;
    Ok(List::Containers {
        of: of.to_owned(),
        rows: Container::measured(found.containers, found.usages),
        silent: found.silent_nodes,
    })
}
