//! The daemon as a process, and peers of it that speak the wire.

pub(crate) mod hadoop;
pub(crate) mod java;
mod logs;
mod master;
pub(crate) mod stage;

pub(crate) use logs::{FakeLogs, Relayed};
pub(crate) use master::Master;

use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bobbin_proto::v1;
use bobbin_proto::v1::application_master_client::ApplicationMasterClient;
use bobbin_proto::v1::client_client::ClientClient;
use bobbin_proto::v1::node_client::NodeClient;
use bobbin_proto::v1::node_command::Command as NodeBody;
use bobbin_proto::v1::node_message::Message as NodeUp;
use bobbin_proto::v1::staging_client::StagingClient;
use bobbin_service::{DaemonInfo, RpcChannel, SecretKey, Target, connect, read_daemon_info};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// No test waits longer for one thing.
const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const SETTINGS: &str = "root_runs_as = 'nobody'\n";

pub(crate) type RmClient = ClientClient<RpcChannel>;

/// Waits for what must come.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within {PATIENCE:?}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test starts the daemon that it tests"
)]
fn command(conf: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bobbin-resourcemanager"));
    command
        .arg("--conf")
        .arg(conf)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn failed(mut command: Command) -> (i32, String) {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// `--check` of a settings file: exit code and words.
pub(crate) fn check(settings: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("rm.toml");
    std::fs::write(&conf, settings).unwrap();
    let mut command = command(&conf);
    command.arg("--check");
    failed(command)
}

/// A running resource manager; ended when dropped.
pub(crate) struct Daemon {
    folder: TempDir,
    child: Child,
    info: DaemonInfo,
}

impl Daemon {
    pub(crate) fn start() -> Daemon {
        Daemon::start_with("")
    }

    /// `applications` are further lines of that table.
    pub(crate) fn start_with(applications: &str) -> Daemon {
        Daemon::start_in(folder(), applications)
    }

    pub(crate) fn start_in(folder: TempDir, applications: &str) -> Daemon {
        let root = folder.path().display();
        let settings = format!(
            "{SETTINGS}[folders]\nlib = '{root}/lib'\nrun = '{root}/run'\nlog = '{root}/log'\n\
             [grpc]\nlisten = '127.0.0.1:0'\n[http]\nlisten = '127.0.0.1:0'\n[yarn]\nclient_listen = '127.0.0.1:0'\nscheduler_listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n[applications]\n{applications}"
        );
        std::fs::write(folder.path().join("rm.toml"), settings).unwrap();
        let (child, info) = launch(folder.path());
        Daemon {
            folder,
            child,
            info,
        }
    }

    /// kill -9, then the same again.
    pub(crate) fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.info) = launch(self.folder.path());
    }

    /// An orderly stop, which must work.
    pub(crate) fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        let left = std::fs::read_dir(self.folder.path().join("run"))
            .unwrap()
            .count();
        assert_eq!(left, 0, "run files are removed");
    }

    pub(crate) fn start_another(&self) -> (i32, String) {
        failed(command(&self.folder.path().join("rm.toml")))
    }

    /// host:port of WebHDFS.
    pub(crate) fn http(&self) -> String {
        self.info.http.clone()
    }

    /// host:port of a door of Hadoop's clients: `client`, `scheduler`, `admin`.
    pub(crate) fn yarn(&self, door: &str) -> String {
        self.info.yarn[door].clone()
    }

    /// The next start listens for masters where this one does.
    pub(crate) fn keep_scheduler_port(&self) {
        let conf = self.folder.path().join("rm.toml");
        let settings = std::fs::read_to_string(&conf).unwrap();
        let found = "scheduler_listen = '127.0.0.1:0'";
        assert!(settings.contains(found));
        let kept = format!("scheduler_listen = '{}'", self.yarn("scheduler"));
        std::fs::write(conf, settings.replace(found, &kept)).unwrap();
    }

    /// What the daemon's memory has been at most. Source: proc(5), `VmHWM`.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }

    pub(crate) fn lib(&self) -> PathBuf {
        self.folder.path().join("lib")
    }

    pub(crate) fn secret(&self) -> SecretKey {
        bobbin_service::load_or_create_secret(&self.lib().join("secret")).unwrap()
    }

    /// Whom this test's submissions belong to.
    pub(crate) fn user(&self) -> &'static str {
        if nix::unistd::geteuid().is_root() {
            "nobody"
        } else {
            Box::leak(
                nix::unistd::User::from_uid(nix::unistd::geteuid())
                    .unwrap()
                    .unwrap()
                    .name
                    .into_boxed_str(),
            )
        }
    }

    pub(crate) async fn client(&self) -> RmClient {
        let target = Target::Unix(self.info.socket.clone());
        ClientClient::new(connect(&target, None).await.unwrap())
    }

    /// A client on TCP with a token of `user`.
    pub(crate) async fn user_client(&self, user: &str) -> RmClient {
        let subject = Some(v1::create_token_request::Subject::User(user.to_owned()));
        let request = v1::CreateTokenRequest {
            subject,
            valid_ms: 60_000,
            ..Default::default()
        };
        let token = self
            .client()
            .await
            .create_token(request)
            .await
            .unwrap()
            .into_inner()
            .token;
        ClientClient::new(self.tcp(Some(&token)).await)
    }

    pub(crate) async fn tcp(&self, token: Option<&str>) -> RpcChannel {
        connect(&Target::Tcp(self.info.grpc.clone()), token)
            .await
            .unwrap()
    }

    pub(crate) async fn send_raw(&self, bytes: &[u8]) {
        let mut stream = tokio::net::TcpStream::connect(&self.info.grpc)
            .await
            .unwrap();
        // The daemon may close before everything was taken, or after.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = soon("the end of the connection", stream.read_to_end(&mut answer)).await;
    }

    pub(crate) async fn upload(
        &self,
        application: &str,
        name: &str,
        content: &[u8],
    ) -> Result<v1::UploadResponse, Status> {
        use v1::upload_request::Part;
        let header = v1::UploadHeader {
            application_id: application.to_owned(),
            name: name.to_owned(),
            mode: 0o644,
            mtime_ms: 1,
            size: u64::try_from(content.len()).unwrap(),
        };
        let mut parts = vec![v1::UploadRequest {
            part: Some(Part::Header(header)),
        }];
        parts.extend(
            content
                .chunks(bobbin_types::CHUNK_BYTES)
                .map(|c| v1::UploadRequest {
                    part: Some(Part::Data(c.to_vec())),
                }),
        );
        let channel = connect(&Target::Unix(self.info.socket.clone()), None)
            .await
            .unwrap();
        let parts = tokio_stream::iter(parts);
        Ok(StagingClient::new(channel)
            .upload(parts)
            .await?
            .into_inner())
    }

    pub(crate) async fn fetch(&self, token: &str, source: &str) -> Result<Vec<u8>, Status> {
        let request = v1::FetchRequest {
            source: source.to_owned(),
            offset: 0,
        };
        let mut client = StagingClient::new(self.tcp(Some(token)).await);
        let mut chunks = client.fetch(request).await?.into_inner();
        let mut content = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            content.extend(chunk.data);
        }
        Ok(content)
    }

    /// Calls every method of every service; those that answer with a stream by its first message.
    pub(crate) async fn every_method(
        &self,
        token: Option<&str>,
    ) -> Vec<(&'static str, Result<(), Status>)> {
        let channel = self.tcp(token).await;
        let mut client = ClientClient::new(channel.clone());
        let mut staging = StagingClient::new(channel.clone());
        let id = "application_1_0001".to_owned();
        macro_rules! unary {
            ($client:ident . $method:ident ( $request:expr )) => {
                (
                    stringify!($method),
                    $client.$method($request).await.map(drop),
                )
            };
        }
        let kill = v1::KillApplicationRequest {
            application_id: id.clone(),
            ..Default::default()
        };
        let of_id = v1::GetApplicationRequest {
            application_id: id.clone(),
        };
        let node = Some(v1::create_token_request::Subject::Node("h2".to_owned()));
        let source = format!("bobbin:/user/nobody/.bobbinStaging/{id}/x");
        let containers = v1::ListContainersRequest {
            usage: true,
            application_id: id.clone(),
            ..Default::default()
        };
        let logs = v1::ReadLogsRequest {
            application_id: id.clone(),
            ..Default::default()
        };
        let files = v1::ListLogFilesRequest {
            application_id: id.clone(),
            ..Default::default()
        };
        vec![
            unary!(client.get_cluster(v1::GetClusterRequest {})),
            unary!(client.new_application(v1::NewApplicationRequest {})),
            unary!(client.submit_application(submission("x"))),
            unary!(client.get_application(of_id.clone())),
            unary!(client.list_applications(v1::ListApplicationsRequest::default())),
            unary!(client.list_containers(containers)),
            unary!(client.kill_application(kill)),
            unary!(client.move_application(v1::MoveApplicationRequest {
                application_id: id.clone(),
                queue: "default".to_owned(),
            })),
            unary!(client.set_priority(v1::SetPriorityRequest {
                application_id: id.clone(),
                priority: 1,
            })),
            unary!(client.set_timeout(v1::SetTimeoutRequest {
                application_id: id.clone(),
                timeout_ms: 1,
            })),
            unary!(client.watch_application(of_id)),
            unary!(client.read_logs(logs)),
            unary!(client.list_log_files(files)),
            unary!(client.list_nodes(v1::ListNodesRequest {})),
            unary!(client.create_token(v1::CreateTokenRequest {
                subject: node,
                valid_ms: 0,
                ..Default::default()
            })),
            unary!(client.create_token(v1::CreateTokenRequest::default())),
            ("hold_lease", {
                let lease = v1::HoldLeaseRequest { application_id: id };
                first(client.hold_lease(tokio_stream::iter([lease])).await).await
            }),
            unary!(staging.upload(tokio_stream::iter(Vec::<v1::UploadRequest>::new()))),
            unary!(staging.fetch(v1::FetchRequest { source, offset: 0 })),
            ("Node.Attach", {
                let mut client = NodeClient::new(channel.clone());
                first(
                    client
                        .attach(tokio_stream::iter(Vec::<v1::NodeMessage>::new()))
                        .await,
                )
                .await
            }),
            ("ApplicationMaster.Attach", {
                let mut client = ApplicationMasterClient::new(channel);
                first(
                    client
                        .attach(tokio_stream::iter(Vec::<v1::AmMessage>::new()))
                        .await,
                )
                .await
            }),
        ]
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Gone already after a stop.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A small file system of its own in a folder; gone when dropped.
pub(crate) struct SmallDisk(pub(crate) PathBuf);

impl SmallDisk {
    /// `None` without the right to mount.
    pub(crate) fn mount(root: &Path, size: &str) -> Option<SmallDisk> {
        use nix::mount::{MsFlags, mount};
        let options = format!("size={size}");
        let mounted = mount(
            Some("tmpfs"),
            root,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(&*options),
        );
        mounted.ok().map(|()| SmallDisk(root.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
        // The daemon's folder could not remove itself while it was mounted.
        let _ = std::fs::remove_dir(&self.0);
    }
}

pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("bobbin-test-")
        .tempdir()
        .unwrap()
}

async fn first<T>(answer: Result<tonic::Response<Streaming<T>>, Status>) -> Result<(), Status> {
    answer?.into_inner().message().await.map(drop)
}

/// Starts the daemon and waits for what systemd is told.
fn launch(folder: &Path) -> (Child, DaemonInfo) {
    // Of this start alone: the last one's end may still be on its way.
    static STARTS: AtomicU32 = AtomicU32::new(0);
    let start = STARTS.fetch_add(1, Ordering::Relaxed);
    let notify = folder.join(format!("notify-{start}"));
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = command(&folder.join("rm.toml"))
        .env("NOTIFY_SOCKET", &notify)
        .env("BOBBIN_LOG", "warn")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = child.stderr.take().unwrap();
    // Shown by the harness when the test fails.
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = log.read_to_end(&mut text);
        // Whoever still waits for the start need not.
        let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"ended", notify));
        let _ = std::io::stderr().write_all(&text);
    });
    let mut message = [0; 64];
    let length = socket
        .recv(&mut message)
        .expect("the daemon says that it is ready");
    assert!(message[..length].starts_with(b"READY=1"));
    let info = read_daemon_info(&folder.join("run"), "resourcemanager")
        .unwrap()
        .unwrap();
    assert!(info.is_alive());
    (child, info)
}

pub(crate) fn submission(name: &str) -> v1::SubmitApplicationRequest {
    v1::SubmitApplicationRequest {
        name: name.to_owned(),
        launch: Some(v1::LaunchContext {
            argv: vec!["/bin/true".to_owned()],
            ..Default::default()
        }),
        resource: Some(v1::Resource {
            memory_mib: 128,
            vcores: 1,
            countable: vec![],
        }),
        ..Default::default()
    }
}

/// Follows the application until it is in `state`.
pub(crate) async fn wait_for_state(
    client: &mut RmClient,
    id: &str,
    state: &str,
) -> v1::ApplicationReport {
    let request = v1::GetApplicationRequest {
        application_id: id.to_owned(),
    };
    let mut reports = client
        .watch_application(request)
        .await
        .unwrap()
        .into_inner();
    let mut seen = Vec::new();
    // The last report of a stream is of the end, when nothing of it runs.
    soon(&format!("{id} {state}"), async {
        let mut wanted = None;
        while let Some(report) = reports.message().await.unwrap() {
            seen.push(report.state.clone());
            if report.state == state {
                let ended = matches!(state, "FINISHED" | "FAILED" | "KILLED");
                wanted = Some(report);
                if !ended {
                    break;
                }
            }
        }
        wanted.unwrap_or_else(|| panic!("never {state}, but {seen:?}"))
    })
    .await
}

/// Waits until a file is gone, woken by changes of its folder.
pub(crate) async fn gone(path: &Path) {
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    let path = path.to_owned();
    let wait = tokio::task::spawn_blocking(move || {
        let inotify = Inotify::init(InitFlags::empty()).unwrap();
        let flags =
            AddWatchFlags::IN_DELETE | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE;
        while path.exists() {
            // Its folder may go first.
            if inotify.add_watch(path.parent().unwrap(), flags).is_ok() && path.exists() {
                inotify.read_events().unwrap();
            }
        }
    });
    soon("the file's removal", wait).await.unwrap();
}

/// A node agent that runs nothing.
pub(crate) struct Agent {
    node_id: String,
    token: String,
    messages: mpsc::Sender<v1::NodeMessage>,
    commands: Streaming<v1::NodeCommand>,
}

impl Agent {
    pub(crate) async fn attach(daemon: &Daemon, client: &mut RmClient, node_id: &str) -> Agent {
        Agent::attach_at(daemon, client, node_id, "127.0.0.1:1").await
    }

    /// With an address where its own services are reached.
    pub(crate) async fn attach_at(
        daemon: &Daemon,
        client: &mut RmClient,
        node_id: &str,
        address: &str,
    ) -> Agent {
        let host = node_id.split(':').next().unwrap().to_owned();
        let subject = Some(v1::create_token_request::Subject::Node(host));
        let request = v1::CreateTokenRequest {
            subject,
            valid_ms: 0,
            ..Default::default()
        };
        let token = client
            .create_token(request)
            .await
            .unwrap()
            .into_inner()
            .token;
        let (messages, commands) = attach(daemon, (node_id, address), &token, &[]).await;
        let node_id = node_id.to_owned();
        Agent {
            node_id,
            token,
            messages,
            commands,
        }
    }

    /// After the resource manager's restart, with the containers that still run.
    pub(crate) async fn attach_again(&mut self, daemon: &Daemon, containers: &[&str]) {
        (self.messages, self.commands) = attach(
            daemon,
            (&self.node_id, "127.0.0.1:1"),
            &self.token,
            containers,
        )
        .await;
    }

    async fn command(&mut self) -> NodeBody {
        soon("a command", next_command(&mut self.commands)).await
    }

    /// The next command to start a container.
    pub(crate) async fn start_command(&mut self) -> v1::StartContainer {
        loop {
            if let NodeBody::StartContainer(start) = self.command().await {
                return start;
            }
        }
    }

    /// Takes the next start, and says that it runs.
    pub(crate) async fn started(&mut self) -> (String, v1::LaunchContext) {
        let start = self.start_command().await;
        let container = started(&start);
        let up = v1::ContainerStarted {
            container_id: container.clone(),
            resource: Some(v1::Resource {
                memory_mib: 128,
                vcores: 1,
                countable: vec![],
            }),
        };
        self.send(NodeUp::ContainerStarted(up)).await;
        (container, start.launch.unwrap())
    }

    /// The container, which a master started, runs.
    pub(crate) async fn runs(&mut self, container: &str, memory_mib: u64) {
        let up = v1::ContainerStarted {
            container_id: container.to_owned(),
            resource: Some(v1::Resource {
                memory_mib,
                vcores: 1,
                countable: vec![],
            }),
        };
        self.send(NodeUp::ContainerStarted(up)).await;
    }

    pub(crate) async fn exited(&mut self, container: &str, exit_status: i32) {
        let status = v1::ContainerStatus {
            container_id: container.to_owned(),
            state: "COMPLETED".to_owned(),
            exit_status: Some(exit_status),
            ..Default::default()
        };
        self.send(NodeUp::ContainerExited(v1::ContainerExited {
            status: Some(status),
        }))
        .await;
    }

    pub(crate) async fn acknowledged(&mut self, container: &str) {
        loop {
            if let NodeBody::AcknowledgeExit(exit) = self.command().await {
                assert_eq!(exit.container_id, container);
                return;
            }
        }
    }

    pub(crate) async fn stopped(&mut self, container: &str) {
        loop {
            if let NodeBody::StopContainer(stop) = self.command().await {
                assert_eq!(stop.container_id, container);
                return;
            }
        }
    }

    pub(crate) async fn signaled(&mut self, container: &str, signal: v1::ContainerSignal) {
        loop {
            if let NodeBody::SignalContainer(told) = self.command().await {
                assert_eq!(told.container_id, container);
                assert_eq!(told.signal(), signal);
                return;
            }
        }
    }

    async fn send(&self, message: NodeUp) {
        self.messages
            .send(v1::NodeMessage {
                message: Some(message),
            })
            .await
            .unwrap();
    }
}

/// The id in a start command's token.
pub(crate) fn started(start: &v1::StartContainer) -> String {
    use base64::Engine as _;
    let claims = start.container_token.split('.').nth(1).unwrap();
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(claims)
        .unwrap();
    let claims: bobbin_service::Claims = serde_json::from_slice(&json).unwrap();
    claims.container
}

async fn next_command(commands: &mut Streaming<v1::NodeCommand>) -> NodeBody {
    commands
        .message()
        .await
        .unwrap()
        .expect("the stream goes on")
        .command
        .unwrap()
}

async fn attach(
    daemon: &Daemon,
    (node_id, address): (&str, &str),
    token: &str,
    containers: &[&str],
) -> (mpsc::Sender<v1::NodeMessage>, Streaming<v1::NodeCommand>) {
    let resource = |memory_mib, vcores| {
        Some(v1::Resource {
            memory_mib,
            vcores,
            countable: vec![],
        })
    };
    let running = |id: &&str| v1::ContainerStatus {
        container_id: (*id).to_owned(),
        state: "RUNNING".to_owned(),
        resource: resource(128, 1),
        ..Default::default()
    };
    let register = v1::RegisterNode {
        node_id: node_id.to_owned(),
        grpc_address: address.to_owned(),
        total: resource(4096, 8),
        profile: "full".to_owned(),
        containers: containers.iter().map(running).collect(),
        version: "0.1.0".to_owned(),
        ..Default::default()
    };
    let (messages, stream) = mpsc::channel(16);
    let message = Some(NodeUp::Register(register));
    messages.send(v1::NodeMessage { message }).await.unwrap();
    let mut client = NodeClient::new(daemon.tcp(Some(token)).await);
    let mut commands = client
        .attach(ReceiverStream::new(stream))
        .await
        .unwrap()
        .into_inner();
    let answer = soon("the registration", next_command(&mut commands)).await;
    let NodeBody::Registered(registered) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(registered.node_key.len(), 32);
    (messages, commands)
}
