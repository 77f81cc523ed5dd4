//! Client mode against a resource manager and a node agent of this process, with real executors.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bobbin_appmaster::map_client::MapError;
use bobbin_appmaster::{AppSettings, ClientMode, DriverEnd, run_client_mode};
use bobbin_proto::v1;
use bobbin_proto::v1::application_master_server::{ApplicationMaster, ApplicationMasterServer};
use bobbin_proto::v1::container_manager_server::{ContainerManager, ContainerManagerServer};
use bobbin_service::{Listener, ServeLimits, Target, bearer, serve};
use bobbin_types::AttemptId;
use common::{ShellDriver, map, numbers, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

const TOKEN: &str = "the-attempts-token";
const NODE_TOKEN: &str = "the-nodes-token";

type RmSender = mpsc::UnboundedSender<Result<v1::RmMessage, Status>>;
type NodeSender = mpsc::UnboundedSender<Result<v1::ManageEvent, Status>>;

/// What both fakes know.
#[derive(Default)]
struct State {
    /// The whole cluster's node address.
    address: String,
    /// Every message of the master, by stream.
    said: Vec<(usize, v1::am_message::Message)>,
    streams: usize,
    rm: Option<RmSender>,
    node: Option<NodeSender>,
    /// Containers still wanted.
    asked: u32,
    granted: u32,
    /// Grants stop at so many.
    room: u32,
    /// Executors that run, by container.
    pids: BTreeMap<String, i32>,
    refuse: Option<String>,
    acknowledge: bool,
    starts: u32,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
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
        self.with(|state| state.starts += 1);
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

impl State {
    fn tell(&self, message: v1::rm_message::Message) {
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
            let container_id = format!("container_1_0001_01_{:06}", self.granted + 1);
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
                            kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
                        }
                    }
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver)))
    }
}

/// A cluster of two nodes (one address) with room for `room` containers in all its life.
struct Cluster {
    fake: Fake,
    target: Target,
    stop: CancellationToken,
}

impl Cluster {
    async fn start(room: u32) -> Cluster {
        let fake = Fake::default();
        let listener = Listener::tcp("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        fake.with(|state| {
            state.address = address.clone();
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

    fn mode(&self, argv: Vec<String>, executors: u32) -> ClientMode {
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
        }
    }

    /// Runs `work` beside a driver that waits, then ends the driver with `status`.
    async fn run<T>(
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

    fn finishes(&self) -> Vec<v1::Finish> {
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

    fn registers(&self) -> Vec<v1::RegisterMaster> {
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

#[tokio::test(flavor = "multi_thread")]
async fn executors_are_asked_for_started_and_used() {
    let cluster = Cluster::start(100).await;
    let (end, sink) = cluster
        .run(2, 7, async |socket, driver| {
            let (summary, sink) = map(
                socket,
                &[
                    "sh",
                    "-c",
                    "echo $(( {} * {} )) $MARK; sleep 0.05; echo $BOBBIN_CONTAINER_ID >&2",
                ],
                numbers(20),
            )
            .await;
            assert_eq!(summary.unwrap().failed, 0);
            assert!(
                driver.ids().starts_with("application_1_0001 1 m2"),
                "{}",
                driver.ids()
            );
            sink
        })
        .await;
    let squares: String = (1..=20).map(|n| format!("{} m2\n", n * n)).collect();
    assert_eq!(sink.out(), squares);
    let stderr = String::from_utf8(sink.stderr.clone()).unwrap();
    let containers: std::collections::BTreeSet<_> = stderr.lines().collect();
    assert_eq!(containers.len(), 2, "both executors work: {stderr}");
    assert_eq!(end.exit_status.0, 7);
    assert!(end.acknowledged);
    let finishes = cluster.finishes();
    assert_eq!(finishes.len(), 1);
    assert_eq!(
        (finishes[0].final_status.as_str(), finishes[0].exit_status),
        ("FAILED", Some(7))
    );
    assert_eq!(cluster.fake.with(|s| (s.granted, s.starts)), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_ends_at_once_is_finished_once() {
    let cluster = Cluster::start(0).await;
    let end = run_client_mode(cluster.mode(vec!["true".to_owned()], 0))
        .await
        .unwrap();
    assert_eq!(
        (end.exit_status.0, end.acknowledged, end.failed),
        (0, true, false)
    );
    let finishes = cluster.finishes();
    assert_eq!(finishes.len(), 1);
    assert_eq!(finishes[0].final_status, "SUCCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_executor_is_replaced_and_its_tasks_run_again() {
    let cluster = Cluster::start(100).await;
    let fake = cluster.fake.clone();
    let (_, (summary, sink)) = cluster
        .run(2, 0, async |socket, driver| {
            let go = driver.folder.path().join("go");
            let script = format!(
                "if test -e {}; then echo {{}}; else exec sleep 300; fi",
                go.display()
            );
            let command = ["sh", "-c", script.as_str()];
            let killing = async {
                wait_for("two executors", || {
                    (fake.with(|s| s.pids.len()) == 2).then_some(())
                })
                .await;
                // All four slots are taken once nothing more can start.
                let pids: Vec<i32> = fake.with(|s| s.pids.values().copied().collect());
                for pid in &pids {
                    let children = format!("/proc/{pid}/task/{pid}/children");
                    wait_for("two tasks of each", || {
                        let text = std::fs::read_to_string(&children).ok()?;
                        (text.split_whitespace().count() == 2).then_some(())
                    })
                    .await;
                }
                std::fs::write(&go, "").unwrap();
                for pid in pids {
                    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
                }
            };
            tokio::join!(map(socket, &command, numbers(8)), killing).0
        })
        .await;
    assert_eq!(summary.unwrap().failed, 0);
    assert_eq!(sink.out(), "1\n2\n3\n4\n5\n6\n7\n8\n");
    assert_eq!(sink.last.retried, 4);
    assert_eq!(cluster.fake.with(|s| s.starts), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_stream_is_opened_again_with_everything_held() {
    let cluster = Cluster::start(100).await;
    let fake = cluster.fake.clone();
    let (end, ()) = cluster
        .run(2, 0, async |socket, _| {
            map(socket, &["true"], numbers(2)).await.0.unwrap();
            wait_for("two executors", || {
                (fake.with(|s| s.pids.len()) == 2).then_some(())
            })
            .await;
            let mut pids: Vec<i32> = fake.with(|s| s.pids.values().copied().collect());
            fake.with(|state| {
                state.rm = None;
                state.node = None;
            });
            wait_for("the second stream", || {
                (cluster.registers().len() == 2).then_some(())
            })
            .await;
            let (summary, sink) = map(socket, &["echo", "{}"], numbers(4)).await;
            assert_eq!(
                (summary.unwrap().failed, sink.out().as_str()),
                (0, "1\n2\n3\n4\n")
            );
            let mut now: Vec<i32> = fake.with(|s| s.pids.values().copied().collect());
            pids.sort_unstable();
            now.sort_unstable();
            assert_eq!(pids, now, "no executor was disturbed");
        })
        .await;
    assert!(end.acknowledged);
    let registers = cluster.registers();
    assert_eq!(registers[0].asks[0].count, 2);
    assert!(registers[0].containers.is_empty());
    assert_eq!(registers[1].asks[0].count, 0);
    assert_eq!(registers[1].containers.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unacknowledged_finish_is_said_again_on_the_next_stream() {
    let cluster = Cluster::start(0).await;
    cluster.fake.with(|state| state.acknowledge = false);
    let running = tokio::spawn(run_client_mode(cluster.mode(vec!["true".to_owned()], 0)));
    wait_for("the first finish", || {
        (cluster.finishes().len() == 1).then_some(())
    })
    .await;
    cluster.fake.with(|state| {
        state.acknowledge = true;
        state.rm = None;
    });
    let end = running.await.unwrap().unwrap();
    assert!(end.acknowledged);
    assert_eq!(cluster.finishes().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_reach_the_map_with_their_words() {
    let cluster = Cluster::start(0).await;
    let words = "3 GiB is more than the largest node has (2 GiB)";
    cluster
        .fake
        .with(|state| state.refuse = Some(words.to_owned()));
    let (_, ()) = cluster
        .run(1, 0, async |socket, _| {
            let (summary, _) = map(socket, &["true"], numbers(2)).await;
            let summary = summary.unwrap();
            assert_eq!(summary.failed, 2);
            assert!(
                summary.failed_tasks[0].problem.contains(words),
                "{summary:?}"
            );
        })
        .await;
    let (_, ()) = cluster
        .run(0, 0, async |socket, _| {
            let (error, _) = map(socket, &["true"], numbers(2)).await;
            let error = error.unwrap_err();
            assert!(matches!(error, MapError::NoExecutors), "{error}");
            assert!(error.to_string().contains("--num-executors"));
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resource_managers_end_is_the_drivers_end() {
    let cluster = Cluster::start(0).await;
    let driver = ShellDriver::new();
    let running = tokio::spawn(run_client_mode(cluster.mode(driver.argv(), 0)));
    driver.socket().await;
    wait_for("the registration", || {
        (!cluster.registers().is_empty()).then_some(())
    })
    .await;
    let reason = "killed by alice".to_owned();
    cluster.fake.with(|state| {
        state.tell(v1::rm_message::Message::Shutdown(v1::MasterShutdown {
            reason,
        }));
    });
    let end = running.await.unwrap().unwrap();
    assert_eq!(end.exit_status.0, 143);
    assert!(end.failed);
    assert_eq!(end.diagnostics, "killed by alice");
    assert!(cluster.finishes().is_empty(), "the attempt is over already");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_ends_the_driver_with_words() {
    let cluster = Cluster::start(0).await;
    let driver = ShellDriver::new();
    let mut mode = cluster.mode(driver.argv(), 0);
    mode.attempt_token = "of another".to_owned();
    let end = run_client_mode(mode).await.unwrap();
    assert!(end.failed);
    assert!(
        end.diagnostics.contains("wrong token"),
        "{}",
        end.diagnostics
    );
}
