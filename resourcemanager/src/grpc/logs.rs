//! Logs are the agents'; the resource manager relays them, so that a client needs one address and
//! one proof.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bobbin_proto::field;
use bobbin_proto::v1;
use bobbin_proto::v1::logs_client::LogsClient;
use bobbin_proto::v1::read_logs_request::Source;
use bobbin_rm_core::view::ContainerReport;
use bobbin_service::{Bearer, RpcChannel, Target, channel_lazy, status_words};
use bobbin_types::{ApplicationId, ContainerId, NodeId, NodeState, UserName};
use tokio::sync::mpsc;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::Doors;
use super::status::{failed, malformed};

/// Chunks read ahead of a slow client.
const CHUNKS_AHEAD: usize = 4;
/// Channels kept open to agents.
const CHANNELS_MAX: usize = 1_024;
/// Pauses before an agent that went away is asked again while a log is followed.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(1);
/// How long an agent may still have to say something about a container that is known to have ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

type Chunks = mpsc::Sender<Result<v1::LogChunk, Status>>;

/// Reads logs on behalf of clients that were authorized.
#[derive(Clone)]
pub(crate) struct LogRelay {
    doors: Doors,
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

/// Where a container's logs are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    container: ContainerId,
    pub(super) node: NodeId,
    address: String,
    pub(super) lost: bool,
    ended: bool,
}

/// How one try to read from the agent ended.
enum Tried {
    /// Everything was sent, or the client is gone.
    Done,
    /// The agent went away behind this offset.
    Broken(Status),
}

impl LogRelay {
    pub(crate) fn new(doors: Doors) -> LogRelay {
        LogRelay {
            doors,
            channels: Arc::default(),
        }
    }

    /// Chunks of one log. Waits for the driver's container only when following.
    pub(crate) async fn read(
        &self,
        application: ApplicationId,
        owner: UserName,
        wanted: v1::ReadLogsRequest,
    ) -> Result<mpsc::Receiver<Result<v1::LogChunk, Status>>, Status> {
        let container = match &wanted.source {
            Some(Source::ContainerId(text)) => {
                let container: ContainerId = field("container_id", text).map_err(malformed)?;
                if container.application() != application {
                    return Err(Status::not_found(format!(
                        "{container} is not of {application}"
                    )));
                }
                Some(container)
            }
            Some(Source::DriverAttempt(_)) | None => None,
        };
        let (chunks, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let relay = self.clone();
        tokio::spawn(async move {
            let work = relay.relay(application, &owner, container, wanted, &chunks);
            let ended = tokio::select! {
                ended = work => ended,
                () = chunks.closed() => Ok(()),
            };
            if let Err(status) = ended {
                // The client may be gone.
                drop(chunks.send(Err(status)).await);
            }
        });
        Ok(receiver)
    }

    async fn relay(
        &self,
        application: ApplicationId,
        owner: &UserName,
        container: Option<ContainerId>,
        wanted: v1::ReadLogsRequest,
        chunks: &Chunks,
    ) -> Result<(), Status> {
        let mut place = self.place(application, container, &wanted).await?;
        let container = place.container;
        let mut request = v1::ReadLogRequest {
            container_id: container.to_string(),
            file: if wanted.file.is_empty() {
                "stdout".to_owned()
            } else {
                wanted.file
            },
            offset: wanted.offset,
            tail_lines: wanted.tail_lines,
            follow: wanted.follow,
            since_ms: wanted.since_ms,
        };
        let mut pause = RETRY_FIRST;
        loop {
            let before = request.offset;
            let broken = match self
                .try_read(&place, application, owner, &mut request, chunks)
                .await?
            {
                Tried::Done => return Ok(()),
                Tried::Broken(status) => status,
            };
            if request.offset > before {
                pause = RETRY_FIRST;
            }
            place = self.known_place(container).await?;
            if place.lost || !request.follow {
                return Err(unreachable(&place, &broken));
            }
            // The agent is being restarted: its containers go on, and so does the following.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    /// Reads until the end or until the agent goes away; `request.offset` is moved behind what the
    /// client was sent.
    async fn try_read(
        &self,
        place: &Place,
        application: ApplicationId,
        owner: &UserName,
        request: &mut v1::ReadLogRequest,
        chunks: &Chunks,
    ) -> Result<Tried, Status> {
        let mut client = LogsClient::new(self.channel(place, application, owner)?);
        let mut stream = match client.read_log(request.clone()).await {
            Ok(response) => response.into_inner(),
            Err(status) => return broken_or_refused(status),
        };
        let mut changes = self.doors.driver.watch(application);
        changes.mark_changed();
        let mut ended = false;
        loop {
            let silence = async {
                if ended {
                    tokio::time::sleep(LAST_WORDS).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                message = stream.message() => match message {
                    Ok(Some(chunk)) => {
                        let length = u64::try_from(chunk.data.len()).unwrap_or(u64::MAX);
                        request.offset = chunk.offset.saturating_add(length);
                        // Where to start was said with the first request; from here on by offset.
                        request.tail_lines = None;
                        request.since_ms = 0;
                        let last = chunk.end;
                        if chunks.send(Ok(chunk)).await.is_err() || last {
                            return Ok(Tried::Done);
                        }
                    }
                    Ok(None) if request.follow && !ended => {
                        return Ok(Tried::Broken(Status::unavailable("the agent ended the stream")));
                    }
                    Ok(None) => return Ok(Tried::Done),
                    Err(status) => return broken_or_refused(status),
                },
                // An agent that never had the container would let a follower wait for ever.
                Ok(()) = changes.changed(), if request.follow && !ended => {
                    ended = self.known_place(place.container).await?.ended;
                }
                () = silence => return Ok(Tried::Done),
            }
        }
    }

    /// Where the wanted container is; when following, waits until the driver has one.
    async fn place(
        &self,
        application: ApplicationId,
        container: Option<ContainerId>,
        wanted: &v1::ReadLogsRequest,
    ) -> Result<Place, Status> {
        if let Some(container) = container {
            return self.known_place(container).await;
        }
        let attempt = match &wanted.source {
            Some(Source::DriverAttempt(attempt)) => *attempt,
            Some(Source::ContainerId(_)) | None => 0,
        };
        let mut changes = self.doors.driver.watch(application);
        loop {
            changes.mark_unchanged();
            let master = self
                .doors
                .driver
                .read(move |core| core.master_container(application, attempt))
                .await
                .map_err(|e| failed(&e))?;
            if let Some(master) = master {
                return self.placed(master).await;
            }
            let report = super::client::report(&self.doors.driver, application).await?;
            if report.unmanaged {
                return Err(Status::failed_precondition(
                    "its driver runs at its submitter's, in client mode: the output is there",
                ));
            }
            if report.state.is_ended() {
                return Err(Status::not_found(if attempt == 0 {
                    format!("{application} ended before its driver was started; it has no logs")
                } else {
                    format!("{application} has no attempt {attempt}")
                }));
            }
            if !wanted.follow {
                let why = if report.waiting.is_empty() {
                    "it is about to start"
                } else {
                    &report.waiting
                };
                return Err(Status::failed_precondition(format!(
                    "the driver of {application} was not started yet: {why}"
                )));
            }
            changes
                .changed()
                .await
                .map_err(|_| Status::unavailable("the resource manager is stopping"))?;
        }
    }

    async fn known_place(&self, container: ContainerId) -> Result<Place, Status> {
        let report = self
            .doors
            .driver
            .read(move |core| core.container(container))
            .await
            .map_err(|e| failed(&e))?
            .ok_or_else(|| {
                Status::not_found(format!("{container} is not known here (any more)"))
            })?;
        self.placed(report).await
    }

    pub(super) async fn placed(&self, report: ContainerReport) -> Result<Place, Status> {
        let node = report.node.clone();
        let state = self
            .doors
            .driver
            .read(move |core| core.node(&node).map(|node| node.state))
            .await
            .map_err(|e| failed(&e))?;
        Ok(Place {
            container: report.container,
            ended: report.state.is_ended(),
            address: report.node_grpc_address,
            lost: state.is_none_or(is_gone) && state != Some(NodeState::New),
            node: report.node,
        })
    }

    pub(super) fn channel(
        &self,
        place: &Place,
        application: ApplicationId,
        owner: &UserName,
    ) -> Result<RpcChannel, Status> {
        if place.address.is_empty() {
            let status =
                Status::unavailable("it has not registered since the resource manager's start");
            return Err(unreachable(place, &status));
        }
        let channel = {
            // A panic ends the process, so the lock is never left poisoned.
            let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
            if channels.len() >= CHANNELS_MAX && !channels.contains_key(&place.address) {
                channels.clear();
            }
            match channels.get(&place.address) {
                Some(channel) => channel.clone(),
                None => {
                    let made = channel_lazy(&Target::Tcp(place.address.clone()))
                        .map_err(|e| unreachable(place, &Status::unavailable(e.to_string())))?;
                    channels.insert(place.address.clone(), made.clone());
                    made
                }
            }
        };
        let token = self.doors.minter.relay(application, &place.node, owner);
        let bearer = Bearer::new(Some(&token)).map_err(|e| Status::internal(e.to_string()))?;
        Ok(InterceptedService::new(channel, bearer))
    }

    /// The next one to ask there connects anew.
    pub(super) fn forget_channel(&self, place: &Place) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.remove(&place.address);
    }

    /// The log files of one container, or of all that agents still have. Agents that cannot be asked
    /// are named unless others answered.
    pub(crate) async fn list(
        &self,
        application: ApplicationId,
        owner: &UserName,
        container: Option<ContainerId>,
    ) -> Result<Vec<v1::LogFile>, Status> {
        let places = match container {
            Some(container) if container.application() != application => {
                return Err(Status::not_found(format!(
                    "{container} is not of {application}"
                )));
            }
            Some(container) => vec![self.known_place(container).await?],
            None => self.places(application).await?,
        };
        let mut files = Vec::new();
        let mut problem = None;
        for place in places {
            let mut listed = self.list_at(&place, application, owner, container).await;
            // The agent may have been restarted since it was last asked: its connection is broken,
            // and a new one is not.
            if let Err(status) = &listed
                && is_break(status)
            {
                self.forget_channel(&place);
                listed = self.list_at(&place, application, owner, container).await;
            }
            match listed {
                Ok(found) => files.extend(found),
                Err(status) => problem = Some(unreachable(&place, &status)),
            }
        }
        match problem {
            Some(status) if files.is_empty() => Err(status),
            Some(_) | None => Ok(files),
        }
    }

    /// One place a node; the container in it is the first one known there.
    async fn places(&self, application: ApplicationId) -> Result<Vec<Place>, Status> {
        let reports = self
            .doors
            .driver
            .read(move |core| {
                let page = core.containers(application, bobbin_rm_core::limits::PAGE_MAX, None);
                let masters = core.application(application).map(|report| report.attempts);
                let masters = masters
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|a| a.container);
                let masters: Vec<_> = masters.filter_map(|id| core.container(id)).collect();
                page.rows.into_iter().chain(masters).collect::<Vec<_>>()
            })
            .await
            .map_err(|e| failed(&e))?;
        let mut places: Vec<Place> = Vec::new();
        for report in reports {
            if !places.iter().any(|place| place.node == report.node) {
                places.push(self.placed(report).await?);
            }
        }
        Ok(places)
    }

    async fn list_at(
        &self,
        place: &Place,
        application: ApplicationId,
        owner: &UserName,
        container: Option<ContainerId>,
    ) -> Result<Vec<v1::LogFile>, Status> {
        let mut client = LogsClient::new(self.channel(place, application, owner)?);
        let request = v1::ListLogsRequest {
            application_id: application.to_string(),
            container_id: container.map(|c| c.to_string()).unwrap_or_default(),
        };
        let logs = client.list_logs(request).await?.into_inner().logs;
        let file = |info: v1::LogInfo| v1::LogFile {
            container_id: info.container_id,
            file: info.file,
            size: info.size,
        };
        Ok(logs.into_iter().map(file).collect())
    }
}

fn is_gone(state: NodeState) -> bool {
    match state {
        NodeState::Lost | NodeState::Decommissioned | NodeState::Shutdown => true,
        NodeState::New
        | NodeState::Running
        | NodeState::Unhealthy
        | NodeState::Decommissioning
        | NodeState::Rebooted => false,
    }
}

/// Whether it is the connection that failed, not the request.
pub(super) fn is_break(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled
    )
}

/// An agent that is away may come back; what it refuses it refuses.
fn broken_or_refused(status: Status) -> Result<Tried, Status> {
    if is_break(&status) {
        Ok(Tried::Broken(status))
    } else {
        Err(status)
    }
}

fn unreachable(place: &Place, status: &Status) -> Status {
    let Place {
        container, node, ..
    } = place;
    let what = if place.lost {
        "which is lost"
    } else {
        "which does not answer"
    };
    Status::unavailable(format!(
        "the logs of {container} are on node {node}, {what}: {}",
        status_words(status)
    ))
}
