//! Responses: whole documents, and what the caller accepts.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::document::{Document, Format};

/// As YARN's: nothing is kept by caches, guessed by readers, or shown inside other sites' pages.
#[must_use]
pub fn plain_headers(content_type: &'static str) -> [(HeaderName, HeaderValue); 4] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::X_FRAME_OPTIONS,
            HeaderValue::from_static("SAMEORIGIN"),
        ),
    ]
}

#[must_use]
pub fn answer(status: StatusCode, document: &Document, format: Format) -> Response {
    let text = document.write(format);
    (status, plain_headers(format.content_type()), text).into_response()
}

/// JSON, unless the caller likes XML better. `None`: he takes neither.
///
/// Source: RFC 9110, 12.5.1; a tie goes to JSON, as in YARN.
#[must_use]
pub fn accepted(headers: &HeaderMap) -> Option<Format> {
    let mut json = None;
    let mut xml = None;
    let mut any = false;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts
                .find_map(|part| part.strip_prefix("q="))
                .and_then(|q| q.parse::<f32>().ok())
                .unwrap_or(1.0);
            any |= !kind.is_empty();
            // A more exact range decides over a wider one.
            let rank = match kind.as_str() {
                "*/*" => 0,
                "application/*" | "text/*" => 1,
                _ => 2,
            };
            let better = |known: Option<(u8, f32)>| match known {
                Some((old, _)) if old >= rank => known,
                Some(_) | None => Some((rank, quality)),
            };
            match kind.as_str() {
                "*/*" | "application/*" => {
                    json = better(json);
                    xml = better(xml);
                }
                "application/json" => json = better(json),
                "application/xml" | "text/xml" | "text/*" => xml = better(xml),
                _ => {}
            }
        }
    }
    if !any {
        return Some(Format::Json);
    }
    let quality = |range: Option<(u8, f32)>| range.map_or(0.0, |(_, quality)| quality);
    let (json, xml) = (quality(json), quality(xml));
    if json <= 0.0 && xml <= 0.0 {
        None
    } else if xml > json {
        Some(Format::Xml)
    } else {
        Some(Format::Json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_chooses() {
        let of = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            accepted(&headers)
        };
        assert_eq!(accepted(&HeaderMap::new()), Some(Format::Json));
        for (accept, format) in [
            ("*/*", Some(Format::Json)),
            ("application/json", Some(Format::Json)),
            ("application/xml", Some(Format::Xml)),
            ("application/xml, application/json", Some(Format::Json)),
            ("application/json;q=0.5, application/xml", Some(Format::Xml)),
            // A browser; YARN shows it XML, too.
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Some(Format::Xml),
            ),
            ("application/json;q=0, */*", Some(Format::Xml)),
            ("text/html", None),
        ] {
            assert_eq!(of(accept), format, "{accept}");
        }
    }
}
