//! A YARN master in process, with tokens of the node's key, and what it starts.

use std::path::PathBuf;

use bobbin_hadoop::convert::write_resource;
use bobbin_hadoop::credentials::{Credentials, Secret};
use bobbin_hadoop::proto::common::Token;
use bobbin_hadoop::proto::yarn;
use bobbin_hadoop::tokens::MasterKeys;
use bobbin_service::{hadoop_keys, wall_now};
use bobbin_types::{AttemptId, ContainerId, NodeId, Resource};
use bytes::Bytes;

use crate::common::*;
use crate::hadoop::{Ipc, Thrown};

pub(crate) const PROTOCOL: &str = "org.apache.hadoop.yarn.api.ContainerManagementProtocolPB";

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let patience = std::time::Duration::from_secs(20);
    match tokio::time::timeout(patience, future).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}

pub(crate) fn id(text: &str) -> ContainerId {
    text.parse().unwrap()
}

pub(crate) fn keys_of(rm: &Rm, node: &str) -> MasterKeys {
    hadoop_keys(&rm.key.for_node(node), wall_now())
}

pub(crate) fn keys(rm: &Rm, agent: &Agent) -> MasterKeys {
    keys_of(rm, &agent.info.node_id)
}

pub(crate) fn nm_identifier(attempt: AttemptId, node: &str) -> yarn::NmTokenIdentifier {
    yarn::NmTokenIdentifier {
        app_attempt_id: Some(attempt.into()),
        node_id: Some((&node.parse::<NodeId>().unwrap()).into()),
        app_submitter: Some("nobody".into()),
        key_id: None,
    }
}

pub(crate) fn nm_token(rm: &Rm, agent: &Agent, attempt: AttemptId) -> Token {
    keys(rm, agent).issue(nm_identifier(attempt, &agent.info.node_id), "any text")
}

pub(crate) fn grant(
    agent: &Agent,
    container: &str,
    memory_mib: u64,
) -> yarn::ContainerTokenIdentifier {
    yarn::ContainerTokenIdentifier {
        container_id: Some(id(container).into()),
        nm_host_addr: Some(agent.info.node_id.clone()),
        app_submitter: Some("nobody".into()),
        resource: Some(write_resource(&Resource::new(memory_mib, 1), &[])),
        expiry_time_stamp: Some(i64::try_from(wall_now().0).unwrap() + 600_000),
        ..yarn::ContainerTokenIdentifier::default()
    }
}

pub(crate) async fn master(rm: &Rm, agent: &Agent, attempt: AttemptId) -> Ipc {
    let token = nm_token(rm, agent, attempt);
    Ipc::with_token(&agent.info.yarn["containers"], PROTOCOL, &token)
        .await
        .unwrap()
}

pub(crate) fn context(command: &[&str]) -> yarn::ContainerLaunchContext {
    yarn::ContainerLaunchContext {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        ..yarn::ContainerLaunchContext::default()
    }
}

/// A shell's script with its output where YARN's clients want it.
pub(crate) fn script(text: &str) -> yarn::ContainerLaunchContext {
    let quoted = text.replace('$', "\\$").replace('"', "\\\"");
    context(&[
        "/bin/sh -c",
        &format!("'{quoted}'"),
        "1><LOG_DIR>/stdout",
        "2><LOG_DIR>/stderr",
    ])
}

pub(crate) fn request(
    context: yarn::ContainerLaunchContext,
    token: Token,
) -> yarn::StartContainersRequest {
    yarn::StartContainersRequest {
        start_container_request: vec![yarn::StartContainerRequest {
            container_launch_context: Some(context),
            container_token: Some(token),
        }],
    }
}

pub(crate) async fn start(
    ipc: &mut Ipc,
    context: yarn::ContainerLaunchContext,
    token: Token,
) -> Result<(), Thrown> {
    let answer: yarn::StartContainersResponse = ipc
        .call("startContainers", &request(context, token))
        .await?;
    one(answer.succeeded_requests.len(), &answer.failed_requests)
}

pub(crate) fn one(succeeded: usize, failed: &[yarn::ContainerExceptionMap]) -> Result<(), Thrown> {
    assert_eq!(succeeded + failed.len(), 1);
    match failed {
        [] => Ok(()),
        [failed, ..] => {
            let exception = failed.exception.as_ref().unwrap();
            Err(Thrown {
                class: exception.class_name().to_owned(),
                message: exception.message().to_owned(),
            })
        }
    }
}

pub(crate) async fn status(
    ipc: &mut Ipc,
    container: &str,
) -> Result<yarn::ContainerStatus, Thrown> {
    let request = yarn::GetContainerStatusesRequest {
        container_id: vec![id(container).into()],
    };
    let mut answer: yarn::GetContainerStatusesResponse =
        ipc.call("getContainerStatuses", &request).await?;
    one(answer.status.len(), &answer.failed_requests)?;
    Ok(answer.status.remove(0))
}

pub(crate) async fn stop(ipc: &mut Ipc, container: &str) -> Result<(), Thrown> {
    let request = yarn::StopContainersRequest {
        container_id: vec![id(container).into()],
    };
    let answer: yarn::StopContainersResponse = ipc.call("stopContainers", &request).await?;
    one(answer.succeeded_requests.len(), &answer.failed_requests)
}

pub(crate) async fn signal(
    ipc: &mut Ipc,
    container: &str,
    command: yarn::SignalContainerCommand,
) -> Result<(), Thrown> {
    let request = yarn::SignalContainerRequest {
        container_id: id(container).into(),
        command: command.into(),
    };
    ipc.call_bytes("signalToContainer", &request)
        .await
        .map(drop)
}

pub(crate) fn appcache(agent: &Agent) -> PathBuf {
    let application = id(&container(1)).application();
    let dir = agent.dir.path().canonicalize().unwrap();
    dir.join(format!("local/usercache/nobody/appcache/{application}"))
}

pub(crate) fn log_exists(agent: &Agent, container: &str, text: &str) -> bool {
    let application = id(container).application();
    let path = (agent.dir.path()).join(format!("log/{application}/{container}/stdout"));
    std::fs::read_to_string(path).is_ok_and(|log| log.contains(text))
}

pub(crate) fn credentials() -> Credentials {
    let mut all = Credentials::default();
    for kind in [
        "YARN_AM_RM_TOKEN",
        "RM_DELEGATION_TOKEN",
        "WEBHDFS delegation",
    ] {
        all.add(Token {
            kind: kind.into(),
            service: format!("{kind} service"),
            identifier: Bytes::from_static(b"who"),
            password: Bytes::from_static(b"secret"),
        });
    }
    all.secrets.push(Secret {
        alias: "sparkCookie".into(),
        value: Bytes::from(vec![5; 64]),
    });
    all
}
