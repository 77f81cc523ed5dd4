//! A resource manager as small as the wire allows, and an agent under it as a real process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bobbin_proto::v1;
use bobbin_proto::v1::container_manager_client::ContainerManagerClient;
use bobbin_proto::v1::logs_client::LogsClient;
use bobbin_proto::v1::node_command::Command as Order;
use bobbin_proto::v1::node_message::Message;
use bobbin_proto::v1::node_server::{Node, NodeServer};
use bobbin_proto::v1::staging_server::{Staging, StagingServer};
use bobbin_service::{
    Claims, DaemonInfo, Listener, RpcChannel, SecretKey, ServeLimits, Target, TokenKind, bearer,
    connect, read_daemon_info,
};
use bobbin_types::{Resource, WallMillis};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

pub type Uploads = Arc<Mutex<HashMap<String, Vec<u8>>>>;

type OrderSender = mpsc::UnboundedSender<Result<v1::NodeCommand, Status>>;

#[derive(Clone)]
struct Server {
    key: SecretKey,
    messages: mpsc::UnboundedSender<Message>,
    orders: Arc<Mutex<Option<OrderSender>>>,
    uploads: Uploads,
}

type Commands = Pin<Box<dyn Stream<Item = Result<v1::NodeCommand, Status>> + Send>>;
type Parts = Pin<Box<dyn Stream<Item = Result<v1::FetchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Node for Server {
    type AttachStream = Commands;

    async fn attach(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Commands>, Status> {
        assert_eq!(bearer(request.metadata()).unwrap(), "the-node-token");
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut stream = request.into_inner();
        let server = self.clone();
        // Kept in `orders` only, so that vanishing ends the stream.
        let mut sender = Some(sender);
        tokio::spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                let message = message.message.unwrap();
                if let Message::Register(register) = &message {
                    let node_key = server.key.for_node(&register.node_id).as_bytes().to_vec();
                    let registered = Order::Registered(v1::NodeRegistered {
                        node_key,
                        heartbeat_interval_ms: 100,
                        expiry_ms: 10_000,
                        epoch: 1,
                        ..v1::NodeRegistered::default()
                    });
                    let sender = sender.take().expect("one registration a stream");
                    let _ = sender.send(Ok(v1::NodeCommand {
                        command: Some(registered),
                    }));
                    *server.orders.lock().unwrap() = Some(sender);
                }
                let _ = server.messages.send(message);
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            receiver,
        ))))
    }
}

#[tonic::async_trait]
impl Staging for Server {
    type FetchStream = Parts;

    async fn upload(
        &self,
        _: Request<Streaming<v1::UploadRequest>>,
    ) -> Result<Response<v1::UploadResponse>, Status> {
        Err(Status::unimplemented("agents do not upload"))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Parts>, Status> {
        // Any node's key would do for the real one; here it is enough that it is a container's.
        let token = bearer(request.metadata()).unwrap().to_owned();
        assert!(token.starts_with("bobbin1."), "{token}");
        let source = request.into_inner().source;
        let bytes = self.uploads.lock().unwrap().get(&source).cloned();
        let bytes = bytes.ok_or_else(|| Status::not_found(format!("{source} is not there")))?;
        let parts: Vec<_> = bytes
            .chunks(100_000)
            .map(|part| {
                Ok(v1::FetchResponse {
                    data: part.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }
}

/// The resource manager's end.
pub struct Rm {
    pub key: SecretKey,
    pub uploads: Uploads,
    server: Server,
    messages: mpsc::UnboundedReceiver<Message>,
    exits: HashMap<String, v1::ContainerStatus>,
    address: String,
    stop: CancellationToken,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Rm {
    pub async fn start() -> Rm {
        let key = SecretKey::from_bytes(&[9; 32]).unwrap();
        let (sender, messages) = mpsc::unbounded_channel();
        let server = Server {
            key: key.clone(),
            messages: sender,
            orders: Arc::default(),
            uploads: Arc::default(),
        };
        let mut rm = Rm {
            key,
            uploads: server.uploads.clone(),
            server,
            messages,
            exits: HashMap::new(),
            address: "127.0.0.1:0".into(),
            stop: CancellationToken::new(),
            serving: None,
        };
        rm.serve().await;
        rm
    }

    /// Serves (again) at the same address.
    pub async fn serve(&mut self) {
        let listener = Listener::tcp(&self.address).await.unwrap();
        self.address = listener.local_addr().unwrap().to_string();
        let routes = Routes::new(NodeServer::new(self.server.clone()))
            .add_service(StagingServer::new(self.server.clone()));
        self.stop = CancellationToken::new();
        let limits = ServeLimits {
            stop_grace: Duration::ZERO,
            ..ServeLimits::default()
        };
        let stop = self.stop.clone();
        self.serving = Some(tokio::spawn(async move {
            bobbin_service::serve(routes, vec![listener], limits, stop)
                .await
                .unwrap();
        }));
    }

    /// Goes away without a word.
    pub async fn vanish(&mut self) {
        self.server.orders.lock().unwrap().take();
        self.stop.cancel();
        // The address is free when the listener is gone.
        self.serving.take().unwrap().await.unwrap();
    }

    pub fn order(&self, order: Order) {
        let orders = self.server.orders.lock().unwrap();
        let sender = orders.as_ref().expect("an agent is registered");
        sender
            .send(Ok(v1::NodeCommand {
                command: Some(order),
            }))
            .unwrap();
    }

    /// The next message that `wanted` takes; others are dropped.
    pub async fn expect<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Message) -> Option<T>,
    ) -> T {
        let mut seen = Vec::new();
        let waiting = async {
            loop {
                let message = self.messages.recv().await.expect("the server lives");
                if let Some(found) = wanted(&message) {
                    return found;
                }
                if !matches!(message, Message::Heartbeat(_)) {
                    seen.push(message);
                }
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("no {what}; seen: {seen:#?}"),
        }
    }

    pub async fn expect_registration(&mut self) -> v1::RegisterNode {
        self.expect("registration", |m| match m {
            Message::Register(register) => Some(register.clone()),
            _ => None,
        })
        .await
    }

    pub async fn expect_started(&mut self, id: &str) {
        self.expect("start", |m| match m {
            Message::ContainerStarted(started) if started.container_id == id => Some(()),
            Message::ContainerExited(e) if e.status.as_ref().unwrap().container_id == id => {
                panic!("it ended: {e:?}")
            }
            _ => None,
        })
        .await;
    }

    /// As [`Rm::expect_exit`] for several ids whose ends come in any order.
    pub async fn expect_exit_in_any_order(&mut self, id: &str) -> v1::ContainerStatus {
        if let Some(status) = self.exits.remove(id) {
            return status;
        }
        let mut others = HashMap::new();
        let status = self
            .expect("end", |m| match m {
                Message::ContainerExited(exited) => {
                    let status = exited.status.clone().unwrap();
                    if status.container_id == id {
                        return Some(status);
                    }
                    others.insert(status.container_id.clone(), status);
                    None
                }
                _ => None,
            })
            .await;
        self.exits.extend(others);
        status
    }

    pub async fn expect_exit(&mut self, id: &str) -> v1::ContainerStatus {
        self.expect("end", |m| match m {
            Message::ContainerExited(exited) => {
                exited.status.clone().filter(|s| s.container_id == id)
            }
            _ => None,
        })
        .await
    }
}

/// An agent's process with its folders.
pub struct Agent {
    pub dir: tempfile::TempDir,
    child: Child,
    pub info: DaemonInfo,
}

#[expect(clippy::disallowed_methods, reason = "the program under test")]
fn command(conf: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bobbin-nodeagent"));
    command.arg("--conf").arg(conf).stdin(Stdio::null());
    command
}

/// The launcher stands beside the agent's binary; a run of this package's tests alone builds it.
#[expect(clippy::disallowed_methods, reason = "cargo")]
fn launcher_is_there() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let beside = Path::new(env!("CARGO_BIN_EXE_bobbin-nodeagent"))
            .parent()
            .unwrap();
        if !beside.join("bobbin-container-init").exists() {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Command::new(cargo)
                .args([
                    "build",
                    "-p",
                    "bobbin-sandbox",
                    "--bin",
                    "bobbin-container-init",
                ])
                .status()
                .unwrap();
            assert!(built.success());
        }
    });
}

impl Agent {
    pub fn start(rm: &Rm) -> Agent {
        launcher_is_there();
        let dir = tempfile::Builder::new()
            .prefix("bobbin-test-")
            .tempdir()
            .unwrap();
        std::fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(dir.path().join("token"), "the-node-token\n").unwrap();
        std::fs::create_dir(dir.path().join("shared")).unwrap();
        std::fs::set_permissions(
            dir.path().join("shared"),
            std::os::unix::fs::PermissionsExt::from_mode(0o1777),
        )
        .unwrap();
        let conf = format!(
            "name = 'node1'\nhost = 'node1'\n[folders]\nlocal = '{}'\nlog = '{}'\nrun = '{}'\n\
             lib = '{}'\n[grpc]\nlisten = '127.0.0.1:0'\n[yarn]\nlisten = '127.0.0.1:0'\n\
             [http]\nlisten = '127.0.0.1:0'\n[resourcemanager]\naddress = '{}'\n\
             token_file = '{}'\n[resources]\nmemory_mib = 2048\nvcores = 8\n[sandbox]\n\
             shared_dirs = ['{}']\n",
            at("local"),
            at("log"),
            at("run"),
            at("lib"),
            rm.address,
            at("token"),
            at("shared"),
        );
        std::fs::write(dir.path().join("conf.toml"), conf).unwrap();
        let child = command(&dir.path().join("conf.toml")).spawn().unwrap();
        Agent {
            dir,
            child,
            info: DaemonInfo::default(),
        }
    }

    /// Takes what the agent wrote of itself; call it after its registration.
    pub fn read_info(&mut self) {
        self.info = read_daemon_info(&self.dir.path().join("run"), "node1")
            .unwrap()
            .unwrap();
        assert!(self.info.is_alive());
        // Later starts must be the same node.
        let conf = self.dir.path().join("conf.toml");
        let text = std::fs::read_to_string(&conf).unwrap();
        let text = text.replace(
            "[grpc]\nlisten = '127.0.0.1:0'",
            &format!("[grpc]\nlisten = '{}'", self.info.grpc),
        );
        let text = text.replace(
            "[yarn]\nlisten = '127.0.0.1:0'",
            &format!("[yarn]\nlisten = '{}'", self.info.yarn["containers"]),
        );
        std::fs::write(conf, text).unwrap();
    }

    pub fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = command(&self.dir.path().join("conf.toml")).spawn().unwrap();
    }

    /// TERM, and its exit status.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }

    /// Runs the program again beside this one and returns its stderr and code.
    pub fn run_again(&self, flag: Option<&str>) -> (String, Option<i32>) {
        let mut again = command(&self.dir.path().join("conf.toml"));
        let output = again.args(flag).stderr(Stdio::piped()).output().unwrap();
        (
            String::from_utf8(output.stderr).unwrap(),
            output.status.code(),
        )
    }

    pub fn shared(&self, name: &str) -> PathBuf {
        self.dir.path().join("shared").join(name)
    }

    pub fn log(&self, id: &str, file: &str) -> String {
        let application = id
            .parse::<bobbin_types::ContainerId>()
            .unwrap()
            .application();
        let path = self
            .dir
            .path()
            .join("log")
            .join(application.to_string())
            .join(id)
            .join(file);
        std::fs::read_to_string(path).unwrap()
    }

    /// Host processes that carry this container's log folder in their environment.
    pub fn processes_of(&self, id: &str) -> Vec<String> {
        let log = self.dir.path().canonicalize().unwrap().join("log");
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let ours = environment.split(|b| *b == 0).any(|variable| {
                let variable = String::from_utf8_lossy(variable);
                variable.starts_with(&format!("BOBBIN_LOG_DIR={}/", log.display()))
                    && variable.ends_with(id)
            });
            if ours {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        found
    }

    /// Files and folders of containers, apart from logs.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![
            self.dir.path().join("local/usercache"),
            self.dir.path().join("local/nmPrivate"),
            self.dir.path().join("local/trash"),
        ];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path
                    .file_name()
                    .unwrap()
                    .to_string_lossy()
                    .starts_with("container_")
                {
                    found.push(path.clone());
                }
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        found
    }

    async fn channel(&self, token: Option<&str>) -> RpcChannel {
        connect(&Target::Tcp(self.info.grpc.clone()), token)
            .await
            .unwrap()
    }

    pub async fn logs(&self, token: Option<&str>) -> LogsClient<RpcChannel> {
        LogsClient::new(self.channel(token).await)
    }

    pub async fn manage(&self, token: Option<&str>) -> Result<Master, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let mut client = ContainerManagerClient::new(self.channel(token).await);
        let events = client
            .manage(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok(Master { requests, events })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Killed already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let (stderr, code) = self.run_again(Some("--end-containers"));
        if !std::thread::panicking() {
            assert_eq!(code, Some(0), "{stderr}");
        }
    }
}

/// A master's stream to the agent.
pub struct Master {
    pub requests: mpsc::Sender<v1::ManageRequest>,
    events: Streaming<v1::ManageEvent>,
}

impl Master {
    pub async fn start(&self, container_token: String, launch: v1::LaunchContext) {
        let start = v1::StartRequest {
            container_token,
            launch: Some(launch),
        };
        let request = v1::manage_request::Request::Start(start);
        self.requests
            .send(v1::ManageRequest {
                request: Some(request),
            })
            .await
            .unwrap();
    }

    pub async fn stop(&self, id: &str) {
        let stop = v1::StopRequest {
            container_id: id.to_owned(),
        };
        let request = v1::manage_request::Request::Stop(stop);
        self.requests
            .send(v1::ManageRequest {
                request: Some(request),
            })
            .await
            .unwrap();
    }

    pub async fn next(&mut self) -> Result<v1::ContainerStatus, Status> {
        let event = tokio::time::timeout(PATIENCE, self.events.next())
            .await
            .expect("an event");
        event
            .expect("the stream is open")
            .map(|e| e.status.unwrap())
    }
}

pub fn container(number: u32) -> String {
    format!("container_e01_1700000000000_0001_01_{number:06}")
}

/// A token of the node's key.
pub fn token(rm: &Rm, agent: &Agent, kind: TokenKind, change: impl FnOnce(&mut Claims)) -> String {
    let mut claims = Claims::new(kind, WallMillis(bobbin_service::wall_now().0 + 600_000));
    claims.node = agent.info.node_id.clone();
    change(&mut claims);
    rm.key.for_node(&agent.info.node_id).mint(&claims)
}

pub fn container_token(rm: &Rm, agent: &Agent, id: &str) -> String {
    container_token_of(rm, agent, id, "nobody", 128)
}

pub fn container_token_of(rm: &Rm, agent: &Agent, id: &str, user: &str, memory_mib: u64) -> String {
    token(rm, agent, TokenKind::Container, |claims| {
        claims.container = id.to_owned();
        claims.user = user.to_owned();
        claims.resource = Some(Resource::new(memory_mib, 1).into());
    })
}

pub fn shell(script: &str) -> v1::LaunchContext {
    program(&["sh", "-c", script])
}

pub fn program(argv: &[&str]) -> v1::LaunchContext {
    v1::LaunchContext {
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        ..v1::LaunchContext::default()
    }
}

pub fn start(container_token: String, launch: v1::LaunchContext) -> Order {
    Order::StartContainer(v1::StartContainer {
        container_token,
        launch: Some(launch),
    })
}

pub fn acknowledge(id: &str) -> Order {
    Order::AcknowledgeExit(v1::AcknowledgeExit {
        container_id: id.to_owned(),
    })
}

/// Waits for what nobody reports.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("not in time: {what}");
    }
}

/// Says loudly that a test needs root.
pub fn skip(test: &str) -> bool {
    let skip = bobbin_service::own_uid() != 0;
    if skip {
        eprintln!("SKIPPED: {test} needs root");
    }
    skip
}

/// A registered agent.
pub async fn pair() -> (Rm, Agent) {
    let mut rm = Rm::start().await;
    let mut agent = Agent::start(&rm);
    let register = rm.expect_registration().await;
    assert_eq!(register.problems, Vec::<String>::new());
    agent.read_info();
    assert_eq!(agent.info.node_id, register.node_id);
    // The first heartbeat comes when the agent has the node's key.
    rm.expect("heartbeat", |m| {
        matches!(m, Message::Heartbeat(_)).then_some(())
    })
    .await;
    (rm, agent)
}
