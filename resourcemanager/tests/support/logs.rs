//! An agent's log service with one growing log, behind connections that can be cut.

use std::sync::Arc;

use bobbin_proto::v1;
use bobbin_proto::v1::logs_server::{Logs, LogsServer};
use bobbin_service::{SecretKey, TokenKind, bearer, wall_now};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// The log's bytes so far, and whether its container has ended.
type Content = watch::Receiver<(Vec<u8>, bool)>;

/// The log, to be written by the test.
pub(crate) struct FakeLogs {
    pub(crate) address: String,
    content: watch::Sender<(Vec<u8>, bool)>,
    cut: Arc<watch::Sender<u32>>,
}

#[derive(Clone)]
struct Service {
    key: SecretKey,
    content: Content,
}

impl FakeLogs {
    /// Serves behind a proxy; `key` is the node's.
    pub(crate) async fn start(key: SecretKey) -> FakeLogs {
        let (content, receiver) = watch::channel((Vec::new(), false));
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = inner.local_addr().unwrap();
        let service = Service {
            key,
            content: receiver,
        };
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(LogsServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(inner)),
        );
        let outer = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = outer.local_addr().unwrap().to_string();
        let cut = Arc::new(watch::Sender::new(0));
        let mut cuts = cut.subscribe();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((mut near, _)) = outer.accept() => {
                        let mut far = TcpStream::connect(target).await.unwrap();
                        connections.spawn(async move {
                            drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                        });
                    }
                    changed = cuts.changed() => {
                        connections.abort_all();
                        if changed.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        FakeLogs {
            address,
            content,
            cut,
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) {
        self.content
            .send_modify(|(content, _)| content.extend_from_slice(bytes));
    }

    pub(crate) fn end(&self) {
        self.content.send_modify(|(_, ended)| *ended = true);
    }

    /// Breaks every connection, as an agent's kill does.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

impl Service {
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let token =
            bearer(request.metadata()).map_err(|e| Status::unauthenticated(e.to_string()))?;
        let claims = self.key.verify(token, &[TokenKind::Relay], wall_now());
        claims
            .map(drop)
            .map_err(|e| Status::unauthenticated(e.to_string()))
    }
}

#[tonic::async_trait]
impl Logs for Service {
    type ReadLogStream = ReceiverStream<Result<v1::LogChunk, Status>>;

    async fn read_log(
        &self,
        request: Request<v1::ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        self.check(&request)?;
        let wanted = request.into_inner();
        if wanted.file != "stdout" {
            return Err(Status::not_found(format!("no log '{}'", wanted.file)));
        }
        let mut content = self.content.clone();
        let (chunks, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut offset = usize::try_from(wanted.offset).unwrap();
            loop {
                let (bytes, ended) = content.borrow_and_update().clone();
                let end = ended || !wanted.follow;
                let data = bytes[offset..].to_vec();
                let chunk = v1::LogChunk {
                    offset: u64::try_from(offset).unwrap(),
                    end,
                    data,
                };
                offset = bytes.len();
                if chunks.send(Ok(chunk)).await.is_err() || end || content.changed().await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list_logs(
        &self,
        request: Request<v1::ListLogsRequest>,
    ) -> Result<Response<v1::ListLogsResponse>, Status> {
        self.check(&request)?;
        let info = v1::LogInfo {
            container_id: request.into_inner().container_id,
            file: "stdout".to_owned(),
            size: u64::try_from(self.content.borrow().0.len()).unwrap(),
            mtime_ms: 1,
        };
        Ok(Response::new(v1::ListLogsResponse { logs: vec![info] }))
    }
}

/// What a client of the relay has got.
pub(crate) struct Relayed {
    stream: Streaming<v1::LogChunk>,
    got: Vec<u8>,
}

impl Relayed {
    pub(crate) fn new(stream: Streaming<v1::LogChunk>) -> Relayed {
        Relayed {
            stream,
            got: Vec::new(),
        }
    }

    /// Reads until everything got so far is `text`.
    pub(crate) async fn until(&mut self, text: &str) {
        super::soon(text, async {
            while self.got != text.as_bytes() {
                let chunk = self
                    .stream
                    .message()
                    .await
                    .unwrap()
                    .expect("the stream goes on");
                self.got.extend(chunk.data);
                assert!(
                    text.as_bytes().starts_with(&self.got),
                    "{:?}",
                    String::from_utf8_lossy(&self.got)
                );
            }
        })
        .await;
    }

    /// Reads to the end.
    pub(crate) async fn ended(mut self) {
        super::soon("the log's end", async {
            while let Some(chunk) = self.stream.message().await.unwrap() {
                assert!(chunk.data.is_empty());
            }
        })
        .await;
    }
}
