//! What a submission ships, through the `Staging` service.

use std::io::Read;

use bobbin_proto::v1;
use bobbin_types::CHUNK_BYTES;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::cluster::Cluster;
use crate::commands::submit::plan::Upload;
use crate::failure::{Failure, Kind, io_words};
use crate::output::{Bar, Counter};

/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 4;

/// Ships every file, one after the other, and tells what the container will fetch.
///
/// # Errors
/// A file that cannot be read or changed meanwhile, or a refusal.
pub(crate) async fn all(
    cluster: &Cluster,
    application_id: &str,
    uploads: &[Upload],
    bar: &Bar,
) -> Result<Vec<v1::LocalResource>, Failure> {
    let mut resources = Vec::with_capacity(uploads.len());
    for upload in uploads {
        bar.say(format!("uploading {}", upload.name));
        resources.push(one(cluster, application_id, upload, bar).await?);
    }
    Ok(resources)
}

async fn one(
    cluster: &Cluster,
    application_id: &str,
    upload: &Upload,
    bar: &Bar,
) -> Result<v1::LocalResource, Failure> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let header = v1::UploadHeader {
        application_id: application_id.to_owned(),
        name: upload.name.clone(),
        mode: upload.mode,
        mtime_ms: upload.mtime_ms,
        size: upload.size,
    };
    let reader = {
        let (upload, counter) = (upload.clone(), bar.counter());
        tokio::task::spawn_blocking(move || read(&upload, header, &sender, &counter))
    };
    let mut staging = cluster.staging();
    let answer = staging.upload(ReceiverStream::new(receiver)).await;
    // The file's own problem says more than the answer to a stream that ended early.
    let digest = match reader.await {
        Ok(Ok(digest)) => digest,
        Ok(Err(failure)) => return Err(failure),
        Err(e) => return Err(Failure::new(Kind::Failed, format!("the upload broke: {e}"))),
    };
    let place = |failure: Failure| failure.context(format_args!("upload of '{}'", upload.name));
    let answer = answer.map_err(|s| place(cluster.failure(&s)))?.into_inner();
    // A refusal ends the stream before all was read, so only an accepted file's digest counts.
    if digest.as_deref() != Some(answer.sha256.as_slice()) {
        return Err(place(Failure::new(
            Kind::Failed,
            "what arrived is not what was sent",
        ))
        .try_this("submit again"));
    }
    Ok(v1::LocalResource {
        name: upload.name.clone(),
        source: answer.source,
        size: answer.size,
        mtime_ms: 0,
        sha256: answer.sha256,
        r#type: upload.kind.into(),
        visibility: v1::Visibility::Application.into(),
        executable: upload.mode & 0o111 != 0,
    })
}

/// Sends the header and the file's bytes; the digest of all of them, or `None` when the other side
/// stopped listening.
fn read(
    upload: &Upload,
    header: v1::UploadHeader,
    sender: &mpsc::Sender<v1::UploadRequest>,
    counter: &Counter,
) -> Result<Option<Vec<u8>>, Failure> {
    use v1::upload_request::Part;
    let path = &upload.path;
    let failed = |why: String| {
        Failure::new(
            Kind::Failed,
            format!("'{}' cannot be shipped: {why}", path.display()),
        )
    };
    let mut file = std::fs::File::open(path).map_err(|e| failed(io_words(&e)))?;
    if sender
        .blocking_send(v1::UploadRequest {
            part: Some(Part::Header(header)),
        })
        .is_err()
    {
        return Ok(None);
    }
    let mut digest = Sha256::new();
    let mut left = upload.size;
    let mut buffer = vec![0; CHUNK_BYTES];
    while left > 0 {
        let want = usize::try_from(left)
            .unwrap_or(CHUNK_BYTES)
            .min(CHUNK_BYTES);
        let n = file
            .read(&mut buffer[..want])
            .map_err(|e| failed(io_words(&e)))?;
        if n == 0 {
            return Err(failed("it became shorter while it was read".to_owned()));
        }
        digest.update(&buffer[..n]);
        let data = buffer[..n].to_vec();
        if sender
            .blocking_send(v1::UploadRequest {
                part: Some(Part::Data(data)),
            })
            .is_err()
        {
            return Ok(None);
        }
        let n = u64::try_from(n).unwrap_or(left);
        left -= n;
        counter.add(n);
    }
    Ok(Some(digest.finalize().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(folder: &std::path::Path, text: &str, size: u64) -> Upload {
        let path = folder.join("file");
        std::fs::write(&path, text).unwrap();
        Upload {
            path,
            name: "file".into(),
            size,
            mode: 0o644,
            mtime_ms: 0,
            kind: v1::ResourceType::File,
        }
    }

    fn read_all(upload: &Upload) -> (Result<Option<Vec<u8>>, Failure>, usize) {
        let (sender, mut receiver) = mpsc::channel(64);
        let bar = Bar::bytes(true, upload.size, String::new());
        let result = read(upload, v1::UploadHeader::default(), &sender, &bar.counter());
        drop(sender);
        let mut messages = 0;
        while receiver.try_recv().is_ok() {
            messages += 1;
        }
        (result, messages)
    }

    #[test]
    fn header_chunks_and_digest() {
        let folder = tempfile::tempdir().unwrap();
        let text = "x".repeat(CHUNK_BYTES + 1);
        let size = u64::try_from(text.len()).unwrap();
        let (digest, messages) = read_all(&upload(folder.path(), &text, size));
        assert_eq!(
            digest.unwrap().unwrap(),
            Sha256::digest(text.as_bytes()).to_vec()
        );
        assert_eq!(messages, 3);
    }

    #[test]
    fn a_file_that_shrinks_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (result, _) = read_all(&upload(folder.path(), "abc", 5));
        assert!(result.unwrap_err().message.contains("shorter"));
    }

    #[test]
    fn an_empty_file_is_its_header() {
        let folder = tempfile::tempdir().unwrap();
        let (digest, messages) = read_all(&upload(folder.path(), "", 0));
        assert!(digest.unwrap().is_some());
        assert_eq!(messages, 1);
    }
}
