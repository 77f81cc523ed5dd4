//! CREATE, APPEND and OPEN: bytes as they come, never a file in memory.

use std::fs::File;
use std::io::Read;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bobbin_service::http::Patience;
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;

use super::answer::json_answer;
use super::problem::Problem;
use super::{Call, blocking};
use crate::file_tree::{Creation, Writer};
use crate::web::proxy::Seat;

/// Bytes read at a time for a client.
const CHUNK_BYTES: usize = 256 << 10;

impl Call {
    /// Whether this is the second step: the place that the first one told.
    fn has_data(&self) -> Result<bool, Problem> {
        self.query.flag("data", false)
    }

    /// The first step's answer: where the data goes, which is here, with what else was asked.
    fn redirect(&self, more: &str) -> Result<Response, Problem> {
        let host = self
            .parts
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .map_or_else(|| self.web.address.to_string(), str::to_owned);
        let query: Vec<&str> = self
            .parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.to_ascii_lowercase().starts_with("noredirect="))
            .collect();
        let path = self.parts.uri.path();
        let location = format!("http://{host}{path}?{}&data=true{more}", query.join("&"));
        if self.query.flag("noredirect", false)? {
            return Ok(json_answer(&json!({"Location": location})));
        }
        let location = HeaderValue::try_from(location)
            .map_err(|_| Problem::Argument("the path cannot be repeated".to_owned()))?;
        let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
        response.headers_mut().insert(header::LOCATION, location);
        Ok(response)
    }

    pub(super) async fn create(self, body: Body) -> Result<Response, Problem> {
        let creation = Creation {
            overwrite: self.query.flag("overwrite", false)?,
            create_parent: self.query.flag("createparent", true)?,
            mode: self.query.mode("permission")?.unwrap_or(0o644),
        };
        if !self.has_data()? {
            // The file is there before the answer: a client begins the second step and does not wait for
            // it when it asks for something else of the file (Spark's event log sets its mode at once).
            let made = self.files(move |f, who, path| f.create(who, path, creation)?.finish());
            made.await?;
            return self.redirect("&made=true");
        }
        let is_made = self.query.flag("made", false)?;
        let _seat = self.long_write()?;
        let created = self.files(move |f, who, path| {
            if is_made {
                f.fill(who, path, creation)
            } else {
                f.create(who, path, creation)
            }
        });
        receive(created.await?, body).await?;
        Ok(StatusCode::CREATED.into_response())
    }

    pub(super) async fn append(self, body: Body) -> Result<Response, Problem> {
        if !self.has_data()? {
            let checked = self.files(|f, who, path| f.check_append(who, path));
            checked.await?;
            return self.redirect("");
        }
        let _seat = self.long_write()?;
        let opened = self.files(|f, who, path| f.append(who, path));
        receive(opened.await?, body).await?;
        Ok(StatusCode::OK.into_response())
    }

    /// One of its writer's files that grow as slowly as they like: Spark writes its event log in one
    /// request for as long as the application lives.
    fn long_write(&self) -> Result<Option<Seat>, Problem> {
        // A person's name is a user's here, or he was refused before.
        let Ok(writer) = self.person.name.parse() else {
            return Ok(None);
        };
        let seat = self.web.writes.take(&writer).ok_or(Problem::Busy)?;
        if let Some(patience) = self.parts.extensions.get::<Patience>() {
            patience.wait_for_ever();
        }
        Ok(Some(seat))
    }

    pub(super) async fn open(self) -> Result<Response, Problem> {
        let offset = self.query.number("offset")?.unwrap_or(0);
        let wanted = self.query.number("length")?.unwrap_or(u64::MAX);
        let opened = self.files(move |f, who, path| f.read(who, path, offset));
        let (file, left) = opened.await?;
        let length = left.min(wanted);
        let mut response = Body::from_stream(chunks(file, length)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        let kind = HeaderValue::from_static("application/octet-stream");
        headers.insert(header::CONTENT_TYPE, kind);
        // A browser shows nobody's file as a page of this door.
        let nosniff = HeaderValue::from_static("nosniff");
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
        Ok(response)
    }
}

/// Writes what comes until its end; what came before a break stays, as in HDFS.
async fn receive(mut writer: Writer, body: Body) -> Result<(), Problem> {
    let mut data = body.into_data_stream();
    while let Some(chunk) = data.next().await {
        let Ok(chunk) = chunk else {
            blocking(move || writer.finish()).await?;
            return Err(Problem::CutOff("the data broke off".to_owned()));
        };
        writer = blocking(move || {
            writer.write(&chunk)?;
            Ok(writer)
        })
        .await?;
    }
    blocking(move || writer.finish()).await
}

/// The next `left` bytes, a chunk at a time, read only as fast as they are taken.
fn chunks(file: File, left: u64) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    futures::stream::unfold(Some((file, left)), |state| async move {
        let (mut file, left) = state.filter(|(_, left)| *left > 0)?;
        let size = usize::try_from(left).map_or(CHUNK_BYTES, |l| l.min(CHUNK_BYTES));
        let read = blocking(move || {
            let mut buffer = vec![0; size];
            Ok(file.read(&mut buffer).map(|length| {
                buffer.truncate(length);
                (file, buffer)
            }))
        });
        match read.await {
            Ok(Ok((file, buffer))) if !buffer.is_empty() => {
                let left = left.saturating_sub(buffer.len() as u64);
                Some((Ok(Bytes::from(buffer)), Some((file, left))))
            }
            Ok(Ok(_)) => Some((Err(std::io::ErrorKind::UnexpectedEof.into()), None)),
            Ok(Err(e)) => Some((Err(e), None)),
            Err(_) => Some((Err(std::io::ErrorKind::Interrupted.into()), None)),
        }
    })
}
