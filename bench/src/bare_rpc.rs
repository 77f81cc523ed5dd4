//! The floor of everything that goes over gRPC: a server of its own process that only answers.
//!
//! One call takes what a submission takes and answers what it answers; one stream sends back what comes.
//! Messages, encoding, settings of the connection and the runtime are those of the daemons.

use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, ensure};
use bobbin_proto::v1;
use bobbin_service::{Listener, RpcChannel, ServeLimits, Target};
use tokio_util::sync::CancellationToken;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{NamedService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::cluster::command;

const SUBMIT: &str = "/bench.Bare/Submit";
const ECHO: &str = "/bench.Bare/Echo";

#[derive(Debug, clap::Args)]
pub(crate) struct BareServerArguments {
    /// Where it is to be reached.
    socket: PathBuf,
}

/// Answers until its standard input ends.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn serve(arguments: &BareServerArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let stop = CancellationToken::new();
    let ended = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        ended.cancel();
    });
    runtime.block_on(async {
        let listener = Listener::unix(&arguments.socket, 0o600)?;
        println!("ready");
        let routes = tonic::service::Routes::new(Bare);
        bobbin_service::serve(routes, vec![listener], ServeLimits::default(), stop).await?;
        Ok(())
    })
}

#[derive(Clone, Debug)]
struct Bare;

impl NamedService for Bare {
    const NAME: &'static str = "bench.Bare";
}

impl Service<http::Request<tonic::body::Body>> for Bare {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            Ok(if request.uri().path() == SUBMIT {
                let codec = ProstCodec::<
                    v1::SubmitApplicationResponse,
                    v1::SubmitApplicationRequest,
                >::default();
                tonic::server::Grpc::new(codec).unary(Submit, request).await
            } else {
                let codec = ProstCodec::<v1::LogChunk, v1::LogChunk>::default();
                tonic::server::Grpc::new(codec)
                    .streaming(Echo, request)
                    .await
            })
        })
    }
}

struct Submit;

impl UnaryService<v1::SubmitApplicationRequest> for Submit {
    type Response = v1::SubmitApplicationResponse;
    type Future = BoxFuture<Response<Self::Response>, Status>;

    fn call(&mut self, _: Request<v1::SubmitApplicationRequest>) -> Self::Future {
        // As long as the true one.
        let answer = v1::SubmitApplicationResponse {
            application_id: "application_1700000000000_0001".to_owned(),
            ..v1::SubmitApplicationResponse::default()
        };
        Box::pin(std::future::ready(Ok(Response::new(answer))))
    }
}

struct Echo;

impl StreamingService<v1::LogChunk> for Echo {
    type Response = v1::LogChunk;
    type ResponseStream = Streaming<v1::LogChunk>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<v1::LogChunk>>) -> Self::Future {
        Box::pin(std::future::ready(Ok(Response::new(request.into_inner()))))
    }
}

/// The process; it ends when dropped.
#[derive(Debug)]
pub(crate) struct BareServer {
    child: Child,
    socket: PathBuf,
}

impl BareServer {
    /// Starts it with its socket in `dir`.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn start(dir: &Path) -> anyhow::Result<BareServer> {
        let socket = dir.join("bare-rpc.sock");
        let mut child = command(&std::env::current_exe()?)
            .arg("bare-server")
            .arg(&socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the bare server")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let server = BareServer { child, socket };
        ensure!(
            line.trim() == "ready",
            "the bare server did not start: {line}"
        );
        Ok(server)
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for BareServer {
    fn drop(&mut self) {
        // The end of its input is the word to stop.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// One client of it.
#[derive(Clone, Debug)]
pub(crate) struct BareClient {
    grpc: tonic::client::Grpc<RpcChannel>,
}

impl BareClient {
    /// # Errors
    /// Nobody answers.
    pub(crate) async fn connect(socket: &Path) -> anyhow::Result<BareClient> {
        let channel = bobbin_service::connect(&Target::Unix(socket.to_owned()), None).await?;
        Ok(BareClient {
            grpc: tonic::client::Grpc::new(channel),
        })
    }

    /// One call.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn submit(
        &mut self,
        request: v1::SubmitApplicationRequest,
    ) -> anyhow::Result<v1::SubmitApplicationResponse> {
        self.grpc.ready().await?;
        let path = http::uri::PathAndQuery::from_static(SUBMIT);
        let codec = ProstCodec::default();
        Ok(self
            .grpc
            .unary(Request::new(request), path, codec)
            .await?
            .into_inner())
    }

    /// A stream that comes back.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn echo(
        &mut self,
        outward: impl tokio_stream::Stream<Item = v1::LogChunk> + Send + 'static,
    ) -> anyhow::Result<Streaming<v1::LogChunk>> {
        self.grpc.ready().await?;
        let path = http::uri::PathAndQuery::from_static(ECHO);
        let codec = ProstCodec::default();
        Ok(self
            .grpc
            .streaming(Request::new(outward), path, codec)
            .await?
            .into_inner())
    }
}
