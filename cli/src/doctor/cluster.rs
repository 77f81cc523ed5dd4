//! Whether there is a cluster, who the caller is to it, and whether its doors can be reached from here.

use std::time::Duration;

use bobbin_proto::v1;
use bobbin_types::NodeState;

use super::Findings;
use crate::cluster::Cluster;

/// How long a door may take.
const CONNECT: Duration = Duration::from_secs(3);

/// Looks at the cluster; also what it says of itself, if it answers.
pub(crate) async fn check(rm: Option<&str>) -> (Findings, Option<v1::GetClusterResponse>) {
    let mut found = Findings::of("cluster");
    let (cluster, answer) = match ask(rm).await {
        Ok(answered) => answered,
        Err(failure) => {
            found.bad(
                "resource manager",
                failure.message,
                failure.cure.unwrap_or_default(),
            );
            return (found, None);
        }
    };
    found.ok(
        "resource manager",
        format!("{} answers, version {}", cluster.place(), answer.version),
    );
    let own = env!("CARGO_PKG_VERSION");
    if answer.version != own {
        found.note(
            "version",
            format!("this program is {own}"),
            "programs of one version",
        );
    }
    let role = if answer.administrator {
        ", an administrator"
    } else {
        ""
    };
    found.ok("you", format!("{}{role}", answer.user));
    doors(&mut found, answer.hadoop.as_ref()).await;
    nodes(&mut found, &cluster).await;
    (found, Some(answer))
}

async fn ask(
    rm: Option<&str>,
) -> Result<(Cluster, v1::GetClusterResponse), crate::failure::Failure> {
    let cluster = Cluster::connect(rm).await?;
    let mut client = cluster.client();
    let answer = cluster
        .answer(client.get_cluster(v1::GetClusterRequest {}))
        .await?;
    Ok((cluster, answer))
}

/// What Hadoop's clients connect to.
async fn doors(found: &mut Findings, doors: Option<&v1::HadoopDoors>) {
    let Some(doors) = doors else {
        found.bad(
            "doors for Hadoop",
            "the resource manager has none",
            "one of this program's version",
        );
        return;
    };
    for (subject, address) in [
        ("submitting (YARN)", &doors.client),
        ("masters (YARN)", &doors.scheduler),
        ("administration (YARN)", &doors.admin),
        ("HTTP", &doors.http),
    ] {
        let reached = address
            .replacen("0.0.0.0:", "127.0.0.1:", 1)
            .replacen("[::]:", "[::1]:", 1);
        let connect = tokio::net::TcpStream::connect(&reached);
        match tokio::time::timeout(CONNECT, connect).await {
            Ok(Ok(_)) => found.ok(subject, format!("{address} answers")),
            Ok(Err(e)) => found.bad(
                subject,
                format!("{address}: {}", crate::failure::io_words(&e)),
                "the resource manager's log; a firewall between; yarn.*_listen for another address",
            ),
            Err(_) => found.bad(
                subject,
                format!("{address} does not answer for {} s", CONNECT.as_secs()),
                "a firewall between?",
            ),
        }
    }
}

async fn nodes(found: &mut Findings, cluster: &Cluster) {
    let list = match cluster.nodes().await {
        Ok(list) => list,
        Err(failure) => {
            found.bad("nodes", failure.message, failure.cure.unwrap_or_default());
            return;
        }
    };
    let running = list
        .iter()
        .filter(|n| n.state == NodeState::Running.as_str())
        .count();
    if running == 0 {
        found.bad(
            "nodes",
            format!("none of {} runs", list.len()),
            "`bobbin up`, or start a node agent",
        );
    } else {
        found.ok("nodes", format!("{running} of {} run", list.len()));
    }
    for node in list.iter().filter(|n| !n.problems.is_empty()) {
        found.note(
            &node.id,
            node.problems.join("; "),
            format!("`bobbin node status {}`", node.id),
        );
    }
}
