//! One log file for programs: its bytes between YARN's lines about it.
//!
//! Source: `NMWebServices.getLogs`, `LogToolUtils.outputContainerLogThroughZeroCopy`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bobbin_na_core::ContainerPhase;
use bobbin_service::http::answer::plain_headers;
use bobbin_types::ContainerId;
use bytes::Bytes;

use super::caller::Caller;
use super::log_page::Piece;
use super::problem::Problem;
use super::{Web, container_id, moment};
use crate::logs::mtime_ms;

/// What is sent: words, bytes, words.
struct Sending {
    head: Option<String>,
    piece: Piece,
    tail: Option<String>,
}

impl Sending {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Sending)> {
        if let Some(head) = self.head.take() {
            return Some((Ok(Bytes::from(head)), self));
        }
        self.tail.as_ref()?;
        match self.piece.next().await {
            Ok(block) if !block.is_empty() => Some((Ok(Bytes::from(block)), self)),
            Ok(_) => {
                let tail = self.tail.take().unwrap_or_default();
                Some((Ok(Bytes::from(tail)), self))
            }
            Err(e) => {
                self.tail = None;
                Some((Err(e), self))
            }
        }
    }
}

/// `size`: so many bytes from the beginning, or, negative, from the end.
fn piece_of(length: u64, size: Option<&str>) -> Result<(u64, u64), Problem> {
    let size = match size.filter(|text| !text.is_empty()) {
        None => return Ok((0, length)),
        Some(text) => text
            .parse::<i64>()
            .map_err(|_| Problem::BadRequest("size must be a number of bytes".to_owned()))?,
    };
    let wanted = size.unsigned_abs().min(length);
    Ok(if size < 0 {
        (length - wanted, length)
    } else {
        (0, wanted)
    })
}

fn content_type(format: Option<&str>) -> Result<&'static str, Problem> {
    match format.unwrap_or_default() {
        "" | "text" => Ok("text/plain;charset=utf-8"),
        "octet-stream" => Ok("application/octet-stream"),
        _ => Err(Problem::BadRequest(
            "The valid values for the parameter : format are [text, octet-stream]".to_owned(),
        )),
    }
}

impl Web {
    async fn words(
        &self,
        id: ContainerId,
        name: &str,
        (length, written): (u64, u64),
    ) -> Result<(String, String), Problem> {
        let on = format!("Container: {id} on {}", self.node.node_id);
        let head = format!(
            "{on}\nLogAggregationType: LOCAL\n{}\nLogType:{name}\nLogLastModifiedTime:{}\n\
             LogLength:{length}\nLogContents:\n",
            "=".repeat(on.len()),
            moment::written(written)
        );
        let view = self.ask(move |core| core.container(&id)).await?;
        let runs = view.is_some_and(|view| view.phase == ContainerPhase::Running);
        let end = format!("End of LogType:{name}");
        let more = if runs {
            format!(
                "This log file belongs to a running container ({id}) and so may not be complete."
            )
        } else {
            String::new()
        };
        let tail = format!("{end}.{more}\n{}\n\n", "*".repeat(end.len() + 50));
        Ok((head, tail))
    }
}

/// GET /ws/v1/node/containerlogs/{container}/{file}, with `format` and `size`.
pub(super) async fn text(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    Path((container, name)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let made = async {
        let id = container_id(&container)?;
        let (file, metadata) = web.open_log(&caller, id, name.clone()).await?;
        let kind = content_type(query.get("format").map(String::as_str))?;
        let (at, end) = piece_of(metadata.len(), query.get("size").map(String::as_str))?;
        let about = (metadata.len(), mtime_ms(&metadata));
        let (head, tail) = web.words(id, &name, about).await?;
        let sending = Sending {
            head: Some(head),
            piece: Piece { file, at, end },
            tail: Some(tail),
        };
        Ok::<_, Problem>((kind, sending))
    };
    match made.await {
        Ok((kind, sending)) => {
            let body = Body::from_stream(futures::stream::unfold(sending, Sending::next));
            (plain_headers(kind), body).into_response()
        }
        Err(problem) => problem.text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_formats() {
        for (size, expected) in [
            (None, (0, 100)),
            (Some(""), (0, 100)),
            (Some("10"), (0, 10)),
            (Some("-10"), (90, 100)),
            (Some("1000"), (0, 100)),
            (Some("-1000"), (0, 100)),
            (Some("-9223372036854775808"), (0, 100)),
        ] {
            assert_eq!(piece_of(100, size).unwrap(), expected, "{size:?}");
        }
        assert!(piece_of(100, Some("x")).is_err());
        assert!(content_type(Some("html")).is_err());
        assert_eq!(content_type(None).unwrap(), "text/plain;charset=utf-8");
    }
}
