//! One log file as a page, or a piece of it: what Spark's executor page links to.
//!
//! The page is made while it is sent, a block at a time: a log may be larger than memory.
//! Source: `ContainerLogsPage` of YARN's node manager.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bobbin_service::http::answer::plain_headers;
use bobbin_types::ContainerId;
use bytes::Bytes;
use std::collections::HashMap;

use super::caller::Caller;
use super::html::{POLICY, TAIL, escape, head, in_link};
use super::problem::Problem;
use super::{Web, container_id};

const BLOCK_BYTES: u64 = 64 << 10;
/// What is shown when nothing is said.
const START: i64 = -4096;

/// Bytes of a file that are still to be sent.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) file: Arc<File>,
    pub(super) at: u64,
    pub(super) end: u64,
}

impl Piece {
    /// The next block; empty at the end, and when the file was cut meanwhile.
    pub(super) async fn next(&mut self) -> io::Result<Vec<u8>> {
        let size = self.end.saturating_sub(self.at).min(BLOCK_BYTES);
        let (file, at) = (self.file.clone(), self.at);
        let read = move || -> io::Result<Vec<u8>> {
            let mut block = vec![0; usize::try_from(size).unwrap_or_default()];
            let length = file.read_at(&mut block, at)?;
            block.truncate(length);
            Ok(block)
        };
        let block = tokio::task::spawn_blocking(read)
            .await
            .map_err(io::Error::other)??;
        self.at = self
            .at
            .saturating_add(u64::try_from(block.len()).unwrap_or(0));
        Ok(block)
    }
}

impl Web {
    /// An open log with its length.
    pub(super) async fn open_log(
        &self,
        caller: &Caller,
        id: ContainerId,
        name: String,
    ) -> Result<(Arc<File>, std::fs::Metadata), Problem> {
        self.authorize_logs(caller, id).await?;
        let logs = self.node.logs.clone();
        let opening = move || logs.open_plain(&id, &name);
        let (file, metadata) = tokio::task::spawn_blocking(opening)
            .await
            .map_err(|_| Problem::Stopping)??;
        Ok((Arc::new(file), metadata))
    }
}

/// From where to where: negative numbers count from the end.
fn range(length: u64, start: i64, end: Option<i64>) -> Result<(u64, u64), Problem> {
    let place = |wanted: i64| {
        if wanted < 0 {
            length.saturating_sub(wanted.unsigned_abs())
        } else {
            wanted.unsigned_abs()
        }
    };
    let from = place(start);
    let to = end.map_or(length, place).min(length);
    if from > to {
        return Err(Problem::BadRequest(format!(
            "Invalid start and end values. Start: [{from}], end[{to}]"
        )));
    }
    Ok((from, to))
}

fn number(query: &HashMap<String, String>, name: &str) -> Result<Option<i64>, Problem> {
    query
        .get(name)
        .filter(|text| !text.is_empty())
        .map(|text| {
            text.parse()
                .map_err(|_| Problem::BadRequest(format!("{name} must be a number of bytes")))
        })
        .transpose()
}

/// Text out of blocks of bytes that may end in the middle of a character.
#[derive(Debug, Default)]
struct Decoder {
    rest: Vec<u8>,
}

impl Decoder {
    /// The text of a block; what is no UTF-8 is shown as U+FFFD.
    fn text(&mut self, block: &[u8], last: bool) -> String {
        self.rest.extend_from_slice(block);
        let bytes = std::mem::take(&mut self.rest);
        let mut text = String::with_capacity(bytes.len());
        let mut left = bytes.as_slice();
        loop {
            match std::str::from_utf8(left) {
                Ok(all) => {
                    text.push_str(all);
                    return text;
                }
                Err(e) => {
                    let (good, bad) = left.split_at(e.valid_up_to());
                    text.push_str(std::str::from_utf8(good).unwrap_or_default());
                    match e.error_len() {
                        Some(length) => {
                            text.push('\u{fffd}');
                            left = bad.get(length..).unwrap_or_default();
                        }
                        // Its end is in the next block.
                        None if !last => {
                            self.rest = bad.to_vec();
                            return text;
                        }
                        None => {
                            text.push('\u{fffd}');
                            return text;
                        }
                    }
                }
            }
        }
    }
}

/// A page on its way.
struct Sending {
    head: Option<String>,
    piece: Piece,
    decoder: Decoder,
    done: bool,
}

impl Sending {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Sending)> {
        if let Some(head) = self.head.take() {
            return Some((Ok(Bytes::from(head)), self));
        }
        if self.done {
            return None;
        }
        let block = match self.piece.next().await {
            Ok(block) => block,
            Err(e) => {
                self.done = true;
                return Some((Err(e), self));
            }
        };
        self.done = block.is_empty();
        let mut text = String::new();
        escape(&self.decoder.text(&block, self.done), &mut text);
        if self.done {
            text.push_str("</pre>");
            text.push_str(TAIL);
        }
        Some((Ok(Bytes::from(text)), self))
    }
}

/// GET /node/containerlogs/{container}/{user}/{file}, with `start` and `end` in bytes.
pub(super) async fn page(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    Path((container, user, name)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let made = async {
        let id = container_id(&container)?;
        let (file, metadata) = web.open_log(&caller, id, name.clone()).await?;
        let start = number(&query, "start")?.unwrap_or(START);
        let (at, end) = range(metadata.len(), start, number(&query, "end")?)?;
        let mut text = head(&format!("{name} of {id}"));
        if end - at < metadata.len() {
            let _ = write!(
                text,
                "<p>Showing {} bytes of {}. Click <a href=\"/node/containerlogs/{id}/{}/{}?start=0\">\
                 here</a> for full log</p>",
                end - at,
                metadata.len(),
                in_link(&user),
                in_link(&name)
            );
        }
        // The parser takes one line end after the tag away: it is not the log's.
        text.push_str("<pre>\n");
        Ok::<_, Problem>(Sending {
            head: Some(text),
            piece: Piece { file, at, end },
            decoder: Decoder::default(),
            done: false,
        })
    };
    match made.await {
        Ok(sending) => {
            let body = Body::from_stream(futures::stream::unfold(sending, Sending::next));
            let mut response = (plain_headers("text/html;charset=utf-8"), body).into_response();
            response.headers_mut().insert(
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(POLICY),
            );
            response
        }
        Err(problem) => problem.text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_from_either_end() {
        for (start, end, expected) in [
            (-4096, None, (0, 100)),
            (-10, None, (90, 100)),
            (0, None, (0, 100)),
            (10, Some(20), (10, 20)),
            (10, Some(-20), (10, 80)),
            (0, Some(i64::MAX), (0, 100)),
            (100, None, (100, 100)),
            (i64::MIN, Some(i64::MIN), (0, 0)),
        ] {
            assert_eq!(range(100, start, end).unwrap(), expected, "{start} {end:?}");
        }
        assert!(range(100, 101, None).is_err());
        assert!(range(100, 50, Some(40)).is_err());
    }

    #[test]
    fn characters_may_be_cut_by_blocks() {
        let all = "aä€𝄞\u{fffd}".as_bytes();
        for at in 0..=all.len() {
            let mut decoder = Decoder::default();
            let (one, two) = all.split_at(at);
            let text =
                decoder.text(one, false) + &decoder.text(two, false) + &decoder.text(b"", true);
            assert_eq!(text.as_bytes(), all, "{at}");
        }
        let mut decoder = Decoder::default();
        assert_eq!(decoder.text(b"a\xffb\xe2\x82", false), "a\u{fffd}b");
        assert_eq!(decoder.text(b"x", false), "\u{fffd}x");
        assert_eq!(decoder.text(b"\xe2", false), "");
        assert_eq!(decoder.text(b"", true), "\u{fffd}");
    }
}
