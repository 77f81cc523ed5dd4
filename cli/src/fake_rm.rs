//! A resource manager for tests: it plays reports and logs from a script and breaks connections.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bobbin_proto::v1;
use bobbin_proto::v1::client_server::{Client, ClientServer};
use bobbin_proto::v1::read_logs_request::Source;
use futures::Stream;
use tonic::{Request, Response, Status};

/// The only application.
pub(crate) const ID: &str = "application_1700000000000_0001";

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// An application's state, and state and exit status of each of its attempts.
type Scene<'a> = (&'a str, &'a [(&'a str, Option<i32>)]);

/// What it will say.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeRm {
    reports: Vec<v1::ApplicationReport>,
    logs: BTreeMap<(u32, String), Vec<u8>>,
    /// Bytes of a log after which its stream breaks; 0: never.
    break_every: usize,
    /// Reports that have been told: logs of an attempt are there from the first that has it.
    told: Arc<AtomicUsize>,
}

/// A served one; gone when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    _folder: tempfile::TempDir,
    address: String,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) fn address(&self) -> Option<&str> {
        Some(&self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeRm {
    /// Reports in order: the application's state, and (state, exit status) of each attempt.
    pub(crate) fn new(script: &[Scene<'_>]) -> FakeRm {
        let report = |(state, attempts): &Scene<'_>| v1::ApplicationReport {
            id: ID.to_owned(),
            state: (*state).to_owned(),
            exit_status: attempts.last().and_then(|(_, exit_status)| *exit_status),
            attempts: (1..)
                .zip(*attempts)
                .map(|(attempt, (state, exit_status))| v1::AttemptReport {
                    attempt,
                    state: (*state).to_owned(),
                    exit_status: *exit_status,
                    ..v1::AttemptReport::default()
                })
                .collect(),
            ..v1::ApplicationReport::default()
        };
        FakeRm {
            reports: script.iter().map(report).collect(),
            ..FakeRm::default()
        }
    }

    pub(crate) fn log(mut self, attempt: u32, file: &str, text: &str) -> FakeRm {
        self.logs
            .insert((attempt, file.to_owned()), text.as_bytes().to_vec());
        self
    }

    pub(crate) fn breaking_every(mut self, bytes: usize) -> FakeRm {
        self.break_every = bytes;
        self
    }

    pub(crate) fn serve(self) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let address = folder.path().join("rm.sock").display().to_string();
        let listener = tokio::net::UnixListener::bind(&address).unwrap();
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let serve = tonic::transport::Server::builder()
            .add_service(ClientServer::new(self))
            .serve_with_incoming(incoming);
        let task = tokio::spawn(async move { serve.await.unwrap() });
        Server {
            _folder: folder,
            address,
            task,
        }
    }
}

fn unscripted<T>() -> Answer<T> {
    Err(Status::unimplemented("not in the script"))
}

#[tonic::async_trait]
impl Client for FakeRm {
    type WatchApplicationStream = Replies<v1::ApplicationReport>;
    type HoldLeaseStream = Replies<v1::HoldLeaseResponse>;
    type ReadLogsStream = Replies<v1::LogChunk>;

    /// Each report comes after a turn of everybody else, so that every state is seen.
    async fn watch_application(
        &self,
        _: Request<v1::GetApplicationRequest>,
    ) -> Answer<Self::WatchApplicationStream> {
        let told = self.told.clone();
        let reports = self.reports.clone().into_iter();
        let stream = futures::stream::unfold(reports, move |mut reports| {
            let told = told.clone();
            async move {
                let report = reports.next()?;
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                told.fetch_add(1, Ordering::SeqCst);
                Some((Ok(report), reports))
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn read_logs(
        &self,
        request: Request<v1::ReadLogsRequest>,
    ) -> Answer<Self::ReadLogsStream> {
        let request = request.into_inner();
        let Some(Source::DriverAttempt(attempt)) = request.source else {
            return unscripted();
        };
        let told = self.told.load(Ordering::SeqCst).min(self.reports.len());
        let started = self.reports[..told]
            .iter()
            .any(|r| r.attempts.iter().any(|a| a.attempt == attempt));
        let log = self.logs.get(&(attempt, request.file)).filter(|_| started);
        let Some(log) = log else {
            return Err(Status::not_found("no such log"));
        };
        let offset = usize::try_from(request.offset).unwrap();
        let rest = &log[offset..];
        let breaks = self.break_every > 0 && rest.len() > self.break_every;
        let sent = if breaks {
            &rest[..self.break_every]
        } else {
            rest
        };
        let mut chunks = vec![Ok(v1::LogChunk {
            data: sent.to_vec(),
            offset: request.offset,
            end: !breaks,
        })];
        if breaks {
            chunks.push(Err(Status::unavailable("the node is away")));
        }
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }

    async fn get_cluster(
        &self,
        _: Request<v1::GetClusterRequest>,
    ) -> Answer<v1::GetClusterResponse> {
        unscripted()
    }
    async fn new_application(
        &self,
        _: Request<v1::NewApplicationRequest>,
    ) -> Answer<v1::NewApplicationResponse> {
        unscripted()
    }
    async fn submit_application(
        &self,
        _: Request<v1::SubmitApplicationRequest>,
    ) -> Answer<v1::SubmitApplicationResponse> {
        unscripted()
    }
    async fn get_application(
        &self,
        _: Request<v1::GetApplicationRequest>,
    ) -> Answer<v1::ApplicationReport> {
        unscripted()
    }
    async fn list_applications(
        &self,
        _: Request<v1::ListApplicationsRequest>,
    ) -> Answer<v1::ListApplicationsResponse> {
        unscripted()
    }
    async fn list_containers(
        &self,
        _: Request<v1::ListContainersRequest>,
    ) -> Answer<v1::ListContainersResponse> {
        unscripted()
    }
    async fn kill_application(
        &self,
        _: Request<v1::KillApplicationRequest>,
    ) -> Answer<v1::KillApplicationResponse> {
        unscripted()
    }
    async fn move_application(
        &self,
        _: Request<v1::MoveApplicationRequest>,
    ) -> Answer<v1::MoveApplicationResponse> {
        unscripted()
    }
    async fn set_priority(
        &self,
        _: Request<v1::SetPriorityRequest>,
    ) -> Answer<v1::SetPriorityResponse> {
        unscripted()
    }
    async fn set_timeout(
        &self,
        _: Request<v1::SetTimeoutRequest>,
    ) -> Answer<v1::SetTimeoutResponse> {
        unscripted()
    }
    async fn hold_lease(
        &self,
        _: Request<tonic::Streaming<v1::HoldLeaseRequest>>,
    ) -> Answer<Self::HoldLeaseStream> {
        unscripted()
    }
    async fn list_log_files(
        &self,
        _: Request<v1::ListLogFilesRequest>,
    ) -> Answer<v1::ListLogFilesResponse> {
        unscripted()
    }
    async fn list_nodes(&self, _: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        unscripted()
    }
    async fn create_token(
        &self,
        _: Request<v1::CreateTokenRequest>,
    ) -> Answer<v1::CreateTokenResponse> {
        unscripted()
    }
}
