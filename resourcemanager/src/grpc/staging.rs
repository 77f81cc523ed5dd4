//! `bobbin.v1.Staging`: what a submission ships goes into the file tree, agents fetch it from there.

use std::io::{Read, Seek, SeekFrom};

use bobbin_proto::v1;
use bobbin_proto::v1::staging_server::Staging;
use bobbin_proto::v1::upload_request::Part;
use bobbin_rm_core::{Acls, Object, Operation, Principal};
use bobbin_types::{ApplicationId, CHUNK_BYTES};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::identify::{Doorkeeper, authorize};
use super::status::{file_tree, malformed};
use crate::file_tree::{Announcement, FileTree, Source, Upload};

/// Chunks read ahead of a slow agent.
const FETCH_AHEAD: usize = 4;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct StagingService {
    doorkeeper: Doorkeeper,
    tree: FileTree,
}

impl StagingService {
    pub(crate) fn new(doorkeeper: Doorkeeper, tree: FileTree) -> StagingService {
        StagingService { doorkeeper, tree }
    }

    async fn begin(
        &self,
        principal: &Principal,
        header: v1::UploadHeader,
    ) -> Result<Upload, Status> {
        let application: ApplicationId =
            bobbin_proto::field("application_id", &header.application_id).map_err(malformed)?;
        // The folder is the caller's own, whoever else may have been given the id.
        let Principal::User { name: user, .. } = principal.clone() else {
            return Err(Status::permission_denied("only users upload files"));
        };
        let announcement = Announcement {
            name: header.name,
            mode: header.mode,
            mtime_ms: header.mtime_ms,
            size: header.size,
        };
        let tree = self.tree.clone();
        blocking(move || {
            tree.begin(&user, &application, announcement)
                .map_err(file_tree)
        })
        .await
    }
}

/// Runs file work off the runtime's own threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    spawn_blocking(work)
        .await
        .map_err(|_| Status::internal("file work was cut off"))?
}

#[tonic::async_trait]
impl Staging for StagingService {
    async fn upload(
        &self,
        request: Request<Streaming<v1::UploadRequest>>,
    ) -> Result<Response<v1::UploadResponse>, Status> {
        let principal = self.doorkeeper.principal(&request)?;
        let owner = match &principal {
            Principal::User { name, .. } => Object::User(name),
            Principal::Attempt(_)
            | Principal::Node(_)
            | Principal::Container(_)
            | Principal::Tenant(_) => Object::Cluster,
        };
        authorize(&principal, Operation::Upload, &owner)?;
        let mut parts = request.into_inner();
        let first = parts.message().await?.and_then(|m| m.part);
        let Some(Part::Header(header)) = first else {
            return Err(Status::invalid_argument(
                "the first message of an upload is its header",
            ));
        };
        let mut upload = self.begin(&principal, header).await?;
        while let Some(message) = parts.message().await? {
            let Some(Part::Data(data)) = message.part else {
                return Err(Status::invalid_argument(
                    "an upload has one header, then data",
                ));
            };
            if data.len() > CHUNK_BYTES {
                let words = format!("a chunk has {} bytes, at most {CHUNK_BYTES}", data.len());
                return Err(Status::invalid_argument(words));
            }
            upload = blocking(move || {
                upload.write(&data).map_err(file_tree)?;
                Ok(upload)
            })
            .await?;
        }
        let uploaded = blocking(move || upload.finish().map_err(file_tree)).await?;
        Ok(Response::new(v1::UploadResponse {
            source: uploaded.source,
            size: uploaded.size,
            sha256: uploaded.sha256.to_vec(),
            mtime_ms: uploaded.mtime_ms,
        }))
    }

    type FetchStream = ReceiverStream<Result<v1::FetchResponse, Status>>;

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let principal = self.doorkeeper.principal(&request)?;
        let v1::FetchRequest { source, offset } = request.into_inner();
        let source = Source::parse(&source).map_err(file_tree)?;
        let object = Object::Application {
            id: source.application,
            owner: &source.user,
            acls: Acls::default(),
        };
        authorize(&principal, Operation::FetchStaged, &object)?;
        let tree = self.tree.clone();
        let mut file = blocking(move || {
            let (mut file, _) = tree.read(&source).map_err(file_tree)?;
            file.seek(SeekFrom::Start(offset))
                .map_err(|e| Status::unavailable(e.to_string()))?;
            Ok(file)
        })
        .await?;
        let (sender, chunks) = mpsc::channel(FETCH_AHEAD);
        // Ends with the file or when the agent goes away.
        spawn_blocking(move || {
            loop {
                let mut data = vec![0; CHUNK_BYTES];
                let chunk = match file.read(&mut data) {
                    Ok(0) => return,
                    Ok(n) => {
                        data.truncate(n);
                        Ok(v1::FetchResponse { data })
                    }
                    Err(e) => Err(Status::unavailable(format!("the file cannot be read: {e}"))),
                };
                let failed = chunk.is_err();
                if sender.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks)))
    }
}
