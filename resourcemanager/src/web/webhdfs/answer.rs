//! Questions, and their answers in WebHDFS's JSON.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Call;
use super::problem::Problem;
use crate::file_tree::{Access, Entry, Page, home_of};

/// Told to clients that split their work by blocks. Source: `dfs.blocksize`.
const BLOCK_BYTES: u64 = 128 << 20;

pub(super) fn json_answer(value: &Value) -> Response {
    (
        StatusCode::OK,
        [(header::CONTENT_TYPE, "application/json")],
        value.to_string(),
    )
        .into_response()
}

/// Source: the FileStatus JSON schema of the WebHDFS documentation.
fn status(entry: &Entry) -> Value {
    json!({
        "accessTime": entry.accessed_ms,
        "blockSize": if entry.is_folder { 0 } else { BLOCK_BYTES },
        "childrenNum": entry.children,
        "fileId": entry.id,
        "group": entry.group,
        "length": entry.length,
        "modificationTime": entry.modified_ms,
        "owner": entry.owner,
        "pathSuffix": entry.name,
        "permission": format!("{:o}", entry.mode),
        "replication": u8::from(!entry.is_folder),
        "storagePolicy": 0,
        "type": if entry.is_folder { "DIRECTORY" } else { "FILE" },
    })
}

fn statuses(entries: &[Entry]) -> Value {
    json!({"FileStatuses": {"FileStatus": entries.iter().map(status).collect::<Vec<_>>()}})
}

/// A listing on its way.
struct Listing {
    call: Call,
    /// What comes next; `None` when all is said.
    page: Option<Page>,
    opened: bool,
    rows: bool,
}

impl Listing {
    async fn next(mut self) -> Option<(std::io::Result<Bytes>, Listing)> {
        let page = self.page.take()?;
        let mut text = String::new();
        if !std::mem::replace(&mut self.opened, true) {
            text.push_str("{\"FileStatuses\":{\"FileStatus\":[");
        }
        for entry in &page.entries {
            if std::mem::replace(&mut self.rows, true) {
                text.push(',');
            }
            text.push_str(&status(entry).to_string());
        }
        if page.remaining == 0 {
            text.push_str("]}}");
            return Some((Ok(Bytes::from(text)), self));
        }
        let more = self
            .call
            .files(move |f, who, path| f.list_after(who, path, &page.last));
        match more.await {
            Ok(more) => {
                self.page = Some(more);
                Some((Ok(Bytes::from(text)), self))
            }
            // It may not be read any more, or has gone: the client sees that the list is cut.
            Err(_) => Some((Err(std::io::ErrorKind::Interrupted.into()), self)),
        }
    }
}

impl Call {
    pub(super) async fn file_status(self) -> Result<Response, Problem> {
        let entry = self.files(|f, who, path| f.status(who, path)).await?;
        Ok(json_answer(&json!({"FileStatus": status(&entry)})))
    }

    /// LISTSTATUS, a page at a time, read only as fast as it is taken: a folder may have any number
    /// of entries, and any number of clients may ask.
    pub(super) async fn list(self) -> Result<Response, Problem> {
        let first = self.files(|f, who, path| f.list_after(who, path, ""));
        let first = first.await?;
        if first.remaining == 0 {
            return Ok(json_answer(&statuses(&first.entries)));
        }
        let listing = Listing {
            call: self,
            page: Some(first),
            opened: false,
            rows: false,
        };
        let body = Body::from_stream(futures::stream::unfold(listing, Listing::next));
        let kind = [(header::CONTENT_TYPE, "application/json")];
        Ok((StatusCode::OK, kind, body).into_response())
    }

    pub(super) async fn list_batch(self) -> Result<Response, Problem> {
        let after = self.query.get("startafter").unwrap_or_default().to_owned();
        let listed = self.files(move |f, who, path| f.list_after(who, path, &after));
        let page = listed.await?;
        Ok(json_answer(&json!({"DirectoryListing": {
            "partialListing": statuses(&page.entries),
            "remainingEntries": page.remaining,
        }})))
    }

    pub(super) async fn checksum(self) -> Result<Response, Problem> {
        let checksum = self.files(|f, who, path| f.checksum(who, path)).await?;
        let hex: String = checksum.bytes.iter().map(|b| format!("{b:02x}")).collect();
        Ok(json_answer(&json!({"FileChecksum": {
            "algorithm": checksum.algorithm, "bytes": hex, "length": checksum.bytes.len(),
        }})))
    }

    pub(super) fn home(&self) -> Response {
        json_answer(&json!({"Path": home_of(&self.person.name)}))
    }

    pub(super) fn trash_root(&self) -> Response {
        json_answer(&json!({"Path": format!("{}/.Trash", home_of(&self.person.name))}))
    }

    pub(super) async fn check_access(self) -> Result<Response, Problem> {
        let wanted = self.query.get("fsaction").unwrap_or("---");
        let access = Access::parse(wanted)
            .ok_or_else(|| Problem::Argument("fsaction is three letters of rwx or -".to_owned()))?;
        let checked = self.files(move |f, who, path| f.check_access(who, path, access));
        checked.await?;
        Ok(StatusCode::OK.into_response())
    }

    pub(super) async fn quota_usage(self) -> Result<Response, Problem> {
        let sum = self.files(|f, who, path| f.summary(who, path)).await?;
        Ok(json_answer(&json!({"QuotaUsage": {
            "fileAndDirectoryCount": sum.files + sum.folders, "quota": -1,
            "spaceConsumed": sum.bytes, "spaceQuota": -1, "typeQuota": {},
        }})))
    }

    pub(super) async fn content_summary(self) -> Result<Response, Problem> {
        let sum = self.files(|f, who, path| f.summary(who, path)).await?;
        Ok(json_answer(&json!({"ContentSummary": {
            "directoryCount": sum.folders, "fileCount": sum.files, "length": sum.bytes,
            "quota": -1, "spaceConsumed": sum.bytes, "spaceQuota": -1, "typeQuota": {},
            "ecPolicy": "", "snapshotDirectoryCount": 0, "snapshotFileCount": 0,
            "snapshotLength": 0, "snapshotSpaceConsumed": 0,
        }})))
    }

    /// The length of the file, for somebody who may read it.
    async fn readable_length(&self) -> Result<u64, Problem> {
        let read = self.files(|f, who, path| f.read(who, path, 0).map(|(_, length)| length));
        read.await
    }

    /// Every block is on this host; a client splits its input by them.
    pub(super) async fn block_locations(self) -> Result<Response, Problem> {
        let length = self.readable_length().await?;
        let from = self.query.number("offset")?.unwrap_or(0);
        let to = from.saturating_add(self.query.number("length")?.unwrap_or(u64::MAX));
        let host = self.web.address.ip().to_string();
        let name = self.web.address.to_string();
        let blocks: Vec<Value> = (0..length.div_ceil(BLOCK_BYTES))
            .map(|n| n * BLOCK_BYTES)
            .filter(|start| *start < to && start + BLOCK_BYTES > from)
            .map(|start| {
                json!({
                    "cachedHosts": [], "corrupt": false, "hosts": [host], "names": [name],
                    "length": BLOCK_BYTES.min(length - start), "offset": start,
                    "storageTypes": ["DISK"], "topologyPaths": [format!("/default-rack/{name}")],
                })
            })
            .collect();
        Ok(json_answer(
            &json!({"BlockLocations": {"BlockLocation": blocks}}),
        ))
    }

    /// The older question; told without blocks a client takes the file as it comes.
    pub(super) async fn located_blocks(self) -> Result<Response, Problem> {
        let length = self.readable_length().await?;
        Ok(json_answer(&json!({"LocatedBlocks": {
            "fileLength": length, "isLastBlockComplete": true, "isUnderConstruction": false,
            "lastLocatedBlock": null, "locatedBlocks": [],
        }})))
    }
}

/// Source: `FsServerDefaults`.
pub(super) fn server_defaults() -> Response {
    json_answer(&json!({"FsServerDefaults": {
        "replication": 1, "encryptDataTransfer": false, "defaultStoragePolicyId": 7,
        "writePacketSize": 65_536, "fileBufferSize": 4_096, "checksumType": 1,
        "trashInterval": 0, "keyProviderUri": "", "blockSize": BLOCK_BYTES, "bytesPerChecksum": 512,
    }}))
}
