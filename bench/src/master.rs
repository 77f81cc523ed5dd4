//! An application master as thin as the protocol allows: unmanaged, over the raw streams.
//!
//! It asks once for all containers, starts each grant at its node the moment it comes, and notes
//! what the nodes say of it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bobbin_proto::v1;
use bobbin_proto::v1::application_master_client::ApplicationMasterClient;
use bobbin_proto::v1::client_client::ClientClient;
use bobbin_proto::v1::container_manager_client::ContainerManagerClient;
use bobbin_service::Target;
use bobbin_types::{ContainerState, MESSAGE_BYTES_MAX};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use crate::cluster::Cluster;

/// Without a word from anybody for so long, what is missing counts as lost.
const SILENCE: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How one container ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// The number it was started with.
    pub(crate) number: u32,
    pub(crate) exit_status: i32,
}

/// What became of one wave of containers.
#[derive(Debug)]
pub(crate) struct Wave {
    /// From the ask to the last word that was waited for.
    pub(crate) time: Duration,
    /// By container, those that have ended.
    pub(crate) ended: BTreeMap<String, End>,
    pub(crate) running: usize,
}

/// An attempt that is registered.
pub(crate) struct Master {
    pub(crate) application_id: String,
    to_rm: mpsc::UnboundedSender<v1::AmMessage>,
    from_rm: Streaming<v1::RmMessage>,
    /// By the nodes' addresses.
    nodes: HashMap<String, mpsc::UnboundedSender<v1::ManageRequest>>,
    said: mpsc::UnboundedReceiver<v1::ContainerStatus>,
    saying: mpsc::UnboundedSender<v1::ContainerStatus>,
    wave: i64,
}

/// What a wave is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    AllRun,
    AllEnded,
}

/// A wave of equal containers.
pub(crate) struct Wanted<'a> {
    pub(crate) count: u32,
    pub(crate) memory_mib: u64,
    pub(crate) until: Until,
    /// The program of the container with this number.
    pub(crate) argv: &'a dyn Fn(u32) -> Vec<String>,
}

impl Master {
    /// Submits an unmanaged application and registers its master.
    ///
    /// # Errors
    /// The resource manager refuses.
    pub(crate) async fn register(cluster: &Cluster, name: &str) -> anyhow::Result<Master> {
        let request = v1::SubmitApplicationRequest {
            name: name.to_owned(),
            queue: "default".to_owned(),
            unmanaged: true,
            application_type: "BENCH".to_owned(),
            ..v1::SubmitApplicationRequest::default()
        };
        let submitted = ClientClient::new(cluster.connect(None).await?)
            .submit_application(request)
            .await?
            .into_inner();
        let channel = cluster.connect(Some(&submitted.attempt_token)).await?;
        let (to_rm, outward) = mpsc::unbounded_channel();
        let register = v1::RegisterMaster {
            host: "localhost".to_owned(),
            ..v1::RegisterMaster::default()
        };
        to_rm.send(message(v1::am_message::Message::Register(register)))?;
        let from_rm = ApplicationMasterClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .attach(UnboundedReceiverStream::new(outward))
            .await?
            .into_inner();
        let (saying, said) = mpsc::unbounded_channel();
        Ok(Master {
            application_id: submitted.application_id,
            to_rm,
            from_rm,
            nodes: HashMap::new(),
            said,
            saying,
            wave: 0,
        })
    }

    /// Asks for containers, starts them, and waits for all of them, or until nobody says anything.
    ///
    /// # Errors
    /// A stream ends, or an ask is refused.
    pub(crate) async fn run(&mut self, wanted: &Wanted<'_>) -> anyhow::Result<Wave> {
        self.wave += 1;
        let ask = v1::Ask {
            place: "*".to_owned(),
            capability: Some(v1::Resource {
                memory_mib: wanted.memory_mib,
                vcores: 1,
                countable: Vec::new(),
            }),
            request_id: self.wave,
            count: wanted.count,
            relax_locality: true,
            ..v1::Ask::default()
        };
        let mut numbers = HashMap::new();
        let mut wave = Wave {
            time: Duration::ZERO,
            ended: BTreeMap::new(),
            running: 0,
        };
        let start = Instant::now();
        let asks = v1::Asks { asks: vec![ask] };
        self.tell(v1::am_message::Message::Asks(asks))?;
        let count = usize::try_from(wanted.count)?;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let mut silent_since = tokio::time::Instant::now();
        let done = |wave: &Wave| match wanted.until {
            Until::AllRun => wave.running >= count,
            Until::AllEnded => wave.ended.len() >= count,
        };
        while !done(&wave) {
            tokio::select! {
                status = self.said.recv() => {
                    let status = status.context("the streams to the nodes have ended")?;
                    take(&mut wave, &numbers, &status)?;
                    silent_since = tokio::time::Instant::now();
                }
                said = self.from_rm.message() => {
                    let said = said?.context("the resource manager closed the stream")?;
                    self.on_rm(said, wanted, &mut numbers).await?;
                }
                _ = heartbeat.tick() => {
                    let beat = v1::AmHeartbeat { progress: 0.0 };
                    self.tell(v1::am_message::Message::Heartbeat(beat))?;
                }
                () = tokio::time::sleep_until(silent_since + SILENCE) => break,
            }
        }
        wave.time = start.elapsed();
        Ok(wave)
    }

    /// Says that the application has succeeded, and waits for the answer.
    ///
    /// # Errors
    /// The stream ends before it.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        let finish = v1::Finish {
            final_status: "SUCCEEDED".to_owned(),
            ..v1::Finish::default()
        };
        self.tell(v1::am_message::Message::Finish(finish))?;
        let answer = async {
            while let Some(said) = self.from_rm.message().await? {
                if let Some(v1::rm_message::Message::FinishAcknowledged(_)) = said.message {
                    return Ok(());
                }
            }
            bail!("the resource manager closed the stream")
        };
        tokio::time::timeout(SILENCE, answer).await?
    }

    fn tell(&self, what: v1::am_message::Message) -> anyhow::Result<()> {
        self.to_rm
            .send(message(what))
            .context("the resource manager closed the stream")
    }

    async fn on_rm(
        &mut self,
        said: v1::RmMessage,
        wanted: &Wanted<'_>,
        numbers: &mut HashMap<String, u32>,
    ) -> anyhow::Result<()> {
        match said.message {
            Some(v1::rm_message::Message::Grants(grants)) => {
                for grant in grants.grants {
                    let number = u32::try_from(numbers.len())? + 1;
                    ensure!(number <= wanted.count, "more is granted than was asked for");
                    numbers.insert(grant.container_id.clone(), number);
                    self.start(grant, (wanted.argv)(number)).await?;
                }
            }
            Some(v1::rm_message::Message::Completed(completed)) => {
                // The nodes say it, too; what never ran is said here alone.
                for status in completed.containers {
                    self.saying.send(status)?;
                }
            }
            Some(v1::rm_message::Message::AskRefused(refused)) => bail!("{}", refused.reason),
            Some(v1::rm_message::Message::Shutdown(shutdown)) => bail!("{}", shutdown.reason),
            Some(
                v1::rm_message::Message::Registered(_)
                | v1::rm_message::Message::FinishAcknowledged(_),
            )
            | None => {}
        }
        Ok(())
    }

    async fn start(&mut self, grant: v1::Grant, argv: Vec<String>) -> anyhow::Result<()> {
        if !self.nodes.contains_key(&grant.node_grpc_address) {
            let requests = self.attach(&grant).await?;
            self.nodes.insert(grant.node_grpc_address.clone(), requests);
        }
        let launch = v1::LaunchContext {
            argv,
            ..v1::LaunchContext::default()
        };
        let start = v1::StartRequest {
            container_token: grant.container_token,
            launch: Some(launch),
        };
        let request = v1::ManageRequest {
            request: Some(v1::manage_request::Request::Start(start)),
        };
        self.nodes
            .get(&grant.node_grpc_address)
            .context("a node is attached")?
            .send(request)
            .context("a node closed the stream")
    }

    async fn attach(
        &self,
        grant: &v1::Grant,
    ) -> anyhow::Result<mpsc::UnboundedSender<v1::ManageRequest>> {
        let target = Target::Tcp(grant.node_grpc_address.clone());
        let channel = bobbin_service::connect(&target, Some(&grant.node_token)).await?;
        let (requests, outward) = mpsc::unbounded_channel();
        let mut events = ContainerManagerClient::new(channel)
            .manage(UnboundedReceiverStream::new(outward))
            .await?
            .into_inner();
        let saying = self.saying.clone();
        tokio::spawn(async move {
            while let Ok(Some(event)) = events.message().await {
                if let Some(status) = event.status
                    && saying.send(status).is_err()
                {
                    return;
                }
            }
        });
        Ok(requests)
    }
}

fn message(message: v1::am_message::Message) -> v1::AmMessage {
    v1::AmMessage {
        message: Some(message),
    }
}

fn take(
    wave: &mut Wave,
    numbers: &HashMap<String, u32>,
    status: &v1::ContainerStatus,
) -> anyhow::Result<()> {
    // Of an earlier wave: its last words came twice.
    let Some(number) = numbers.get(&status.container_id) else {
        return Ok(());
    };
    let state: ContainerState = status.state.parse().map_err(anyhow::Error::msg)?;
    if state == ContainerState::Running {
        wave.running += 1;
    } else if state.is_ended() {
        let exit_status = status.exit_status.context("an end without a status")?;
        let end = End {
            number: *number,
            exit_status,
        };
        wave.ended.insert(status.container_id.clone(), end);
    }
    Ok(())
}
