//! A file of a web server: asked for whole or from a byte on, redirects followed within bounds.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, HeaderValue, IF_RANGE, LOCATION, RANGE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use url::Url;

use super::gate::Gate;
use super::place::check_web;
use super::said::{Said, http_date};
use super::transfer::Opened;
use super::transport::{ServerBody, Transport, refusal};
use crate::fetch::FetchError;

const REDIRECTS_MAX: usize = 5;

/// Where it is and what proves the asker there.
#[derive(Clone, Debug)]
pub(crate) struct WebFile {
    pub(crate) url: Url,
    /// For this URL's host alone, wherever it redirects to.
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) transport: Arc<Transport>,
}

impl WebFile {
    /// What the server says of it.
    ///
    /// # Errors
    /// It cannot be had, in words.
    pub(crate) async fn look(&self) -> Result<Said, FetchError> {
        let response = self.ask(Method::HEAD, &HeaderMap::new()).await?;
        if response.status() == StatusCode::OK {
            return Ok(Said::of(response.headers()));
        }
        // Signed URLs are for one method, and some servers know no other.
        Ok(self.open(0, None).await?.said)
    }

    /// Its bytes from `from` on, if the server can do that and it is still what `known` says; else
    /// from its beginning.
    ///
    /// # Errors
    /// It cannot be had, in words; `Changed` when there is no such byte any more.
    pub(crate) async fn open(&self, from: u64, known: Option<&Said>) -> Result<Opened, FetchError> {
        let mut headers = HeaderMap::new();
        if from > 0
            && let Some(condition) = known.and_then(condition)
        {
            let range = HeaderValue::try_from(format!("bytes={from}-"))
                .map_err(|e| FetchError::Place(e.to_string()))?;
            headers.insert(RANGE, range);
            headers.insert(IF_RANGE, condition);
        }
        let response = self.ask(Method::GET, &headers).await?;
        let is_partial = response.status() == StatusCode::PARTIAL_CONTENT;
        if is_partial && headers.contains_key(RANGE) {
            return partial(response, from);
        }
        match response.status() {
            StatusCode::OK => Ok(Opened {
                said: Said::of(response.headers()),
                start: 0,
                body: pieces(response),
            }),
            StatusCode::RANGE_NOT_SATISFIABLE => Err(FetchError::Changed),
            _ => Err(refusal(response).await.into()),
        }
    }

    /// One request, and those that redirects lead to; each is judged as the first was.
    async fn ask(
        &self,
        method: Method,
        headers: &HeaderMap,
    ) -> Result<Response<ServerBody>, FetchError> {
        let mut url = self.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::new(Full::new(Bytes::new()));
            let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
            *request.uri_mut() = (target.parse())
                .map_err(|e| FetchError::Place(format!("it cannot be asked for: {e}")))?;
            *request.method_mut() = method.clone();
            *request.headers_mut() = headers.clone();
            // The file itself, not what is made of it on the way: its digest is that of its bytes.
            let identity = HeaderValue::from_static("identity");
            request.headers_mut().insert(ACCEPT_ENCODING, identity);
            if let Some(authorization) = &self.authorization
                && url.origin() == self.url.origin()
            {
                request
                    .headers_mut()
                    .insert(AUTHORIZATION, authorization.clone());
            }
            let response = self.transport.send(&self.gate, &url, request).await?;
            match redirect(&url, &response)? {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(FetchError::Place(format!(
            "its server redirects more than {REDIRECTS_MAX} times"
        )))
    }
}

/// Where an answer sends; `None` when it is the answer itself.
fn redirect(url: &Url, response: &Response<ServerBody>) -> Result<Option<Url>, FetchError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let refused = |why: &str| {
        let host = url.host_str().unwrap_or("");
        FetchError::Place(format!("{host} redirects, but {why}"))
    };
    let location = response.headers().get(LOCATION);
    let location = location
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| refused("not where to"))?;
    let next = url
        .join(location)
        .map_err(|e| refused(&format!("not to a URL: {e}")))?;
    check_web(&next).map_err(|e| refused(&e.to_string()))?;
    if url.scheme() == "https" && next.scheme() != "https" {
        return Err(refused(
            "from https: to http:, where anybody could change it",
        ));
    }
    Ok(Some(next))
}

/// What the rest must still belong to.
fn condition(known: &Said) -> Option<HeaderValue> {
    let text = match (known.strong_etag(), known.modified_ms) {
        (Some(etag), _) => Some(etag.to_owned()),
        (None, Some(ms)) if known.etag.is_none() => http_date(ms),
        (None, _) => None,
    };
    HeaderValue::try_from(text?).ok()
}

fn pieces(response: Response<ServerBody>) -> super::transfer::Pieces {
    use futures::StreamExt;
    response
        .into_body()
        .into_data_stream()
        .map(|piece| piece.map_err(FetchError::from))
        .boxed()
}

/// The rest of a file, if that is what came.
fn partial(response: Response<ServerBody>, from: u64) -> Result<Opened, FetchError> {
    let range = response.headers().get(CONTENT_RANGE);
    let range = range.and_then(|value| value.to_str().ok()).unwrap_or("");
    let Some((start, total)) = content_range(range).filter(|(start, _)| *start == from) else {
        return Err(FetchError::Place(format!(
            "its server was asked for the bytes from {from} on and sends others"
        )));
    };
    let said = Said {
        size: total,
        ..Said::of(response.headers())
    };
    Ok(Opened {
        said,
        start,
        body: pieces(response),
    })
}

/// `bytes START-END/TOTAL`. Source: RFC 9110, 14.4.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        number => Some(number.parse::<u64>().ok()?),
    };
    // A part that ends early would look like the end of the file.
    let is_rest = total.is_none_or(|total| end.checked_add(1) == Some(total));
    (start <= end && is_rest).then_some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_the_rest_of_a_file_or_nothing() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in [
            "",
            "bytes",
            "bytes 5-8/10",
            "bytes 5-10/10",
            "bytes 9-5/10",
            "bytes -5/10",
            "bytes 5-18446744073709551615/1",
            "items 5-9/10",
            "bytes 5-9/x",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_range_is_survived(text in "(bytes )?\\PC{0,30}") {
            let _ = content_range(&text);
        }
    }
}
