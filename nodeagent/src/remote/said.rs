//! What a server says of a file, and what follows from it.

use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, ETAG, LAST_MODIFIED};

/// Longest entity tag that is believed, bytes.
const ETAG_BYTES_MAX: usize = 1_000;

/// What tells one content of a source from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Bytes of the whole file.
    pub(crate) size: Option<u64>,
    /// As it was written, quotes included. Source: RFC 9110, 8.8.3.
    pub(crate) etag: Option<String>,
    /// Unix milliseconds.
    pub(crate) modified_ms: Option<u64>,
}

impl Said {
    /// Of an answer with the whole file; a size that is no number is none.
    pub(crate) fn of(headers: &HeaderMap) -> Said {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Said {
            size: text(CONTENT_LENGTH).and_then(|text| text.parse().ok()),
            etag: text(ETAG)
                .filter(|etag| etag.len() <= ETAG_BYTES_MAX)
                .map(str::to_owned),
            modified_ms: text(LAST_MODIFIED)
                .and_then(|text| httpdate::parse_http_date(text).ok())
                .and_then(unix_ms),
        }
    }

    /// What a cached copy is known by; `None` when nobody can say whether it is still what is meant.
    pub(crate) fn validator(&self) -> Option<String> {
        let size = self
            .size
            .map_or_else(String::new, |size| format!(" {size}"));
        match (&self.etag, self.modified_ms) {
            (Some(etag), _) => Some(format!("etag {etag}{size}")),
            (None, Some(ms)) => Some(format!("modified {ms}{size}")),
            (None, None) => None,
        }
    }

    /// Whether a later answer is about the same content, as far as both say.
    pub(crate) fn agrees_with(&self, later: &Said) -> bool {
        fn agree<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        agree(&self.size, &later.size)
            && agree(&self.etag, &later.etag)
            && (self.etag.is_some() || agree(&self.modified_ms, &later.modified_ms))
    }

    /// What a request for the rest may be bound to: a weak tag does not promise the same bytes.
    /// Source: RFC 9110, 13.1.5.
    pub(crate) fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with("W/"))
    }

    /// Whether the rest may be asked for after a broken connection.
    pub(crate) fn is_resumable(&self) -> bool {
        self.strong_etag().is_some() || (self.etag.is_none() && self.modified_ms.is_some())
    }
}

fn unix_ms(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// The time as `Last-Modified` and `If-Range` have it.
pub(crate) fn http_date(ms: u64) -> Option<String> {
    let time = UNIX_EPOCH.checked_add(std::time::Duration::from_millis(ms))?;
    // Beyond it the format has no years. Source: `httpdate::HttpDate`.
    (ms < 253_402_300_800_000).then(|| httpdate::fmt_http_date(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(http::HeaderName, &str)]) -> Said {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(name.clone(), value.parse().unwrap());
        }
        Said::of(&headers)
    }

    #[test]
    fn what_a_copy_is_known_by() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let all = said(&[
            (CONTENT_LENGTH, "7"),
            (ETAG, "\"x\""),
            (LAST_MODIFIED, date),
        ]);
        assert_eq!(all.validator().unwrap(), "etag \"x\" 7");
        assert_eq!(all.modified_ms, Some(784_111_777_000));
        assert_eq!(http_date(784_111_777_000).unwrap(), date);
        assert!(all.is_resumable());
        let dated = said(&[(LAST_MODIFIED, date)]);
        assert_eq!(dated.validator().unwrap(), "modified 784111777000");
        assert!(dated.is_resumable());
        let weak = said(&[(ETAG, "W/\"x\""), (LAST_MODIFIED, date)]);
        assert!(weak.validator().is_some() && !weak.is_resumable());
        for nothing in [
            said(&[]),
            said(&[(CONTENT_LENGTH, "7")]),
            said(&[(CONTENT_LENGTH, "-7"), (LAST_MODIFIED, "yesterday")]),
            said(&[(ETAG, &"x".repeat(2000))]),
        ] {
            assert_eq!(nothing.validator(), None);
            assert!(!nothing.is_resumable());
        }
        assert_eq!(http_date(u64::MAX), None);
    }

    #[test]
    fn another_content_is_noticed() {
        let first = said(&[(CONTENT_LENGTH, "7"), (ETAG, "\"x\"")]);
        assert!(first.agrees_with(&first));
        assert!(
            first.agrees_with(&Said::default()),
            "a chunked answer says no size"
        );
        assert!(!first.agrees_with(&said(&[(ETAG, "\"y\"")])));
        assert!(!first.agrees_with(&said(&[(CONTENT_LENGTH, "8")])));
    }

    proptest::proptest! {
        #[test]
        fn any_date_is_survived(ms in proptest::prelude::any::<u64>()) {
            let _ = http_date(ms);
        }
    }
}
