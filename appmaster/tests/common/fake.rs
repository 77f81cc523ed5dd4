//! A resource manager and a node agent of this process, with real executors.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use super::{ShellDriver, wait_for};
use bobbin_appmaster::{AppSettings, ClientMode, DriverEnd, ShippedFiles, run_client_mode};
use bobbin_proto::v1;
use bobbin_proto::v1::application_master_server::{ApplicationMaster, ApplicationMasterServer};
use bobbin_proto::v1::container_manager_server::{ContainerManager, ContainerManagerServer};
use bobbin_service::{Listener, ServeLimits, Target, bearer, serve};
use bobbin_types::AttemptId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

pub(crate) const TOKEN: &str = "the-attempts-token";
const NODE_TOKEN: &str = "the-nodes-token";

type RmSender = mpsc::UnboundedSender<Result<v1::RmMessage, Status>>;
type NodeSender = mpsc::UnboundedSender<Result<v1::ManageEvent, Status>>;

/// What both fakes know.
#[derive(Default)]
pub(crate) struct State {
    /// The whole cluster's node address.
    address: String,
    /// Every message of the master, by stream.
    said: Vec<(usize, v1::am_message::Message)>,
    streams: usize,
    pub(crate) rm: Option<RmSender>,
    pub(crate) node: Option<NodeSender>,
    /// Containers still wanted.
    pub(crate) asked: u32,
    pub(crate) granted: u32,
    /// Grants stop at so many.
    pub(crate) room: u32,
    /// Executors that run, by container.
    pub(crate) pids: BTreeMap<String, i32>,
    pub(crate) refuse: Option<String>,
    pub(crate) acknowledge: bool,
    pub(crate) starts: u32,
    /// Unique on this host: the cluster's port.
    cluster: u16,
    /// Every executor ends at once with 1.
    pub(crate) broken_executors: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

impl Fake {
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    fn on_message(&self, stream: usize, message: v1::am_message::Message) {
        self.with(|state| {
            let asks = match &message {
                v1::am_message::Message::Register(register) => {
                    state.tell(v1::rm_message::Message::Registered(v1::MasterRegistered {
                        nodes_running: 2,
                        heartbeat_interval_ms: 200,
                        ..Default::default()
                    }));
                    register.asks.clone()
                }
                v1::am_message::Message::Asks(asks) => asks.asks.clone(),
                v1::am_message::Message::Finish(_) => {
                    if state.acknowledge {
                        let done = v1::FinishAcknowledged {};
                        state.tell(v1::rm_message::Message::FinishAcknowledged(done));
                    }
                    Vec::new()
                }
                v1::am_message::Message::Release(_) | v1::am_message::Message::Heartbeat(_) => {
                    Vec::new()
                }
            };
            state.said.push((stream, message));
            for ask in asks {
                state.asked = ask.count;
                if let (Some(reason), true) = (state.refuse.clone(), ask.count > 0) {
                    let refused = v1::AskRefused {
                        reason,
                        ..Default::default()
                    };
                    state.tell(v1::rm_message::Message::AskRefused(refused));
                }
            }
            state.grant();
        });
    }

    fn start(&self, start: v1::StartRequest) {
        let launch = start.launch.unwrap();
        let container_id = start
            .container_token
            .strip_prefix("token-")
            .unwrap()
            .to_owned();
        assert_eq!(launch.argv, ["bobbin-executor"]);
        let broken = self.with(|state| {
            state.starts += 1;
            if state.broken_executors {
                state.report(&container_id, "COMPLETED", Some(1));
            }
            state.broken_executors
        });
        if broken {
            return;
        }
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), &launch.secrets["executor-secret"]).unwrap();
        let mut executor = std::process::Command::new(env!("CARGO_BIN_EXE_bobbin-executor"));
        let mut child = executor
            .envs(&launch.environment)
            .env("BOBBIN_CONTAINER_ID", &container_id)
            .env("BOBBIN_EXECUTOR_SECRET_FILE", secret.path())
            .env("BOBBIN_EXECUTOR_DETACHED_MS", "1000")
            .env("BOBBIN_LOG", "error")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.with(|state| {
            state.pids.insert(container_id.clone(), pid);
            state.report(&container_id, "RUNNING", None);
        });
        let fake = self.clone();
        std::thread::spawn(move || {
            let status = child.wait().unwrap();
            drop(secret);
            end_container(&container_id);
            fake.with(|state| {
                state.pids.remove(&container_id);
                state.report(
                    &container_id,
                    "COMPLETED",
                    Some(status.code().unwrap_or(137)),
                );
            });
        });
    }
}

/// What the end of a pid namespace does.
fn end_container(container_id: &str) {
    let mark = format!("BOBBIN_CONTAINER_ID={container_id}");
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let is_task = environment
            .split(|b| *b == 0)
            .any(|v| v.starts_with(b"BOBBIN_TASK_REF="));
        if is_task && environment.split(|b| *b == 0).any(|v| v == mark.as_bytes()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl State {
    pub(crate) fn tell(&self, message: v1::rm_message::Message) {
        if let Some(rm) = &self.rm {
            let _ = rm.send(Ok(v1::RmMessage {
                message: Some(message),
            }));
        }
    }

    fn report(&self, container_id: &str, state: &str, exit_status: Option<i32>) {
        if let Some(node) = &self.node {
            let status = v1::ContainerStatus {
                container_id: container_id.to_owned(),
                state: state.to_owned(),
                exit_status,
                ..Default::default()
            };
            let _ = node.send(Ok(v1::ManageEvent {
                status: Some(status),
            }));
        }
    }

    fn grant(&mut self) {
        while self.asked > 0 && self.granted < self.room {
            self.asked -= 1;
            self.granted += 1;
            let container_id =
                format!("container_{}_0001_01_{:06}", self.cluster, self.granted + 1);
            let grant = v1::Grant {
                container_token: format!("token-{container_id}"),
                container_id,
                node_id: format!("node{}:1", self.granted % 2),
                node_grpc_address: self.address.clone(),
                resource: Some(v1::Resource {
                    memory_mib: 64,
                    vcores: 2,
                    countable: Vec::new(),
                }),
                node_token: NODE_TOKEN.to_owned(),
                ..Default::default()
            };
            self.tell(v1::rm_message::Message::Grants(v1::Grants {
                grants: vec![grant],
            }));
        }
    }
}

#[tonic::async_trait]
impl ApplicationMaster for Fake {
    type AttachStream = UnboundedReceiverStream<Result<v1::RmMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AmMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        if bearer(request.metadata()) != Ok(TOKEN) {
            return Err(Status::unauthenticated("wrong token"));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let stream = self.with(|state| {
            state.rm = Some(sender);
            state.streams += 1;
            state.streams
        });
        let fake = self.clone();
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                fake.on_message(stream, message.message.unwrap());
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl ContainerManager for Fake {
    type ManageStream = UnboundedReceiverStream<Result<v1::ManageEvent, Status>>;

    async fn manage(
        &self,
        request: Request<Streaming<v1::ManageRequest>>,
    ) -> Result<Response<Self::ManageStream>, Status> {
        if bearer(request.metadata()) != Ok(NODE_TOKEN) {
            return Err(Status::unauthenticated("wrong token"));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        self.with(|state| state.node = Some(sender));
        let fake = self.clone();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                match request.request.unwrap() {
                    v1::manage_request::Request::Start(start) => fake.start(start),
                    v1::manage_request::Request::Stop(stop) => {
                        let pid = fake.with(|state| state.pids.get(&stop.container_id).copied());
                        if let Some(pid) = pid {
                            // It may have ended by itself.
                            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                        }
                    }
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver)))
    }
}

/// A cluster of two nodes (one address) with room for `room` containers in all its life.
pub(crate) struct Cluster {
    pub(crate) fake: Fake,
    pub(crate) target: Target,
    stop: CancellationToken,
}

impl Cluster {
    pub(crate) async fn start(room: u32) -> Cluster {
        let fake = Fake::default();
        let listener = Listener::tcp("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        fake.with(|state| {
            state.address = address.clone();
            state.cluster = listener.local_addr().unwrap().port();
            state.room = room;
            state.acknowledge = true;
        });
        let stop = CancellationToken::new();
        let routes = Routes::new(ApplicationMasterServer::new(fake.clone()))
            .add_service(ContainerManagerServer::new(fake.clone()));
        tokio::spawn(serve(
            routes,
            vec![listener],
            ServeLimits::default(),
            stop.clone(),
        ));
        Cluster {
            fake,
            target: Target::Tcp(address),
            stop,
        }
    }

    pub(crate) fn mode(&self, argv: Vec<String>, executors: u32) -> ClientMode {
        let settings = HashMap::from([
            ("num-executors".to_owned(), executors.to_string()),
            ("executor-cores".to_owned(), "2".to_owned()),
            ("executor-memory-mib".to_owned(), "64".to_owned()),
        ]);
        let attempt: AttemptId = "appattempt_1_0001_000001".parse().unwrap();
        ClientMode {
            resource_manager: self.target.clone(),
            attempt,
            attempt_token: TOKEN.to_owned(),
            argv,
            environment: BTreeMap::from([("MARK".to_owned(), "m2".to_owned())]),
            settings: AppSettings::from_map(&settings.into_iter().collect()).unwrap(),
            files: ShippedFiles::default(),
        }
    }

    /// Runs `work` beside a driver that waits, then ends the driver with `status`.
    pub(crate) async fn run<T>(
        &self,
        executors: u32,
        status: i32,
        work: impl AsyncFnOnce(&std::path::Path, &ShellDriver) -> T,
    ) -> (DriverEnd, T) {
        let driver = ShellDriver::new();
        let running = tokio::spawn(run_client_mode(self.mode(driver.argv(), executors)));
        let socket = driver.socket().await;
        let done = work(&socket, &driver).await;
        driver.end(status).await;
        let end = running.await.unwrap().unwrap();
        wait_for("the end of the executors", || {
            self.fake.with(|state| state.pids.is_empty()).then_some(())
        })
        .await;
        (end, done)
    }

    pub(crate) fn finishes(&self) -> Vec<v1::Finish> {
        let finish = |message: &v1::am_message::Message| match message {
            v1::am_message::Message::Finish(finish) => Some(finish.clone()),
            v1::am_message::Message::Register(_)
            | v1::am_message::Message::Asks(_)
            | v1::am_message::Message::Release(_)
            | v1::am_message::Message::Heartbeat(_) => None,
        };
        self.fake
            .with(|state| state.said.iter().filter_map(|(_, m)| finish(m)).collect())
    }

    pub(crate) fn registers(&self) -> Vec<v1::RegisterMaster> {
        let register = |message: &v1::am_message::Message| match message {
            v1::am_message::Message::Register(register) => Some(register.clone()),
            v1::am_message::Message::Finish(_)
            | v1::am_message::Message::Asks(_)
            | v1::am_message::Message::Release(_)
            | v1::am_message::Message::Heartbeat(_) => None,
        };
        self.fake
            .with(|state| state.said.iter().filter_map(|(_, m)| register(m)).collect())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
