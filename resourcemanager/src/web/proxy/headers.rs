//! Headers of forwarded requests and answers.
//!
//! Source: `WebAppProxyServlet.PASS_THROUGH_HEADERS` for requests; RFC 9110, 7.6.1 for answers.

use axum::http::header::{
    ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, ACCEPT_RANGES, ALT_SVC, CONNECTION,
    CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LOCATION, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, REFRESH, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT, VIA,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::target::Target;

/// What is passed on of a request. Neither cookies nor proofs of who asks: they are for this
/// daemon, and for other programs on this host.
const PASSED_ON: [HeaderName; 15] = [
    ACCEPT,
    ACCEPT_CHARSET,
    ACCEPT_ENCODING,
    ACCEPT_LANGUAGE,
    ACCEPT_RANGES,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    ORIGIN,
    RANGE,
    USER_AGENT,
    HeaderName::from_static("access-control-request-method"),
    HeaderName::from_static("access-control-request-headers"),
];
/// What concerns one connection only, and what an application shall not say in this daemon's name:
/// cookies would be sent to every other program on this host.
const NOT_PASSED_BACK: [HeaderName; 14] = [
    ALT_SVC,
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    REFRESH,
    SET_COOKIE,
    STRICT_TRANSPORT_SECURITY,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
/// Says that a request came through here, so that it is not forwarded in circles.
const MARK: &str = "bobbin-resourcemanager";
/// Source: `WebAppProxyServlet.PROXY_USER_COOKIE_NAME`.
const USER_COOKIE: &str = "proxy-user";

/// Whether this daemon itself has sent the request.
pub(super) fn is_own(headers: &HeaderMap) -> bool {
    let via = headers.get_all(VIA).iter();
    via.into_iter()
        .any(|via| via.as_bytes().ends_with(MARK.as_bytes()))
}

/// What the application's page is sent.
pub(super) fn request(given: &HeaderMap, target: &Target, user: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in PASSED_ON {
        for value in given.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    let user = utf8_percent_encode(user, NON_ALPHANUMERIC);
    for (name, text) in [
        (HOST, target.authority.to_string()),
        (COOKIE, format!("{USER_COOKIE}={user}")),
        (VIA, format!("1.1 {MARK}")),
    ] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
    headers
}

/// What the caller is sent. `base` is `/proxy/<application id>`.
pub(super) fn answer(given: &HeaderMap, target: &Target, base: &str) -> HeaderMap {
    let mut headers = given.clone();
    for value in given.get_all(CONNECTION) {
        for name in value.to_str().unwrap_or_default().split(',') {
            headers.remove(name.trim());
        }
    }
    for name in NOT_PASSED_BACK {
        headers.remove(name);
    }
    let location = given.get(LOCATION).and_then(|value| value.to_str().ok());
    if let Some(location) = location
        && let Ok(value) = HeaderValue::try_from(moved(location, target, base))
    {
        headers.insert(LOCATION, value);
    }
    headers
}

/// A place that the page sends its reader to, as the reader reaches it.
fn moved(location: &str, target: &Target, base: &str) -> String {
    let path = match location.split_once("://") {
        Some((_, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            if authority != target.authority.as_str() {
                return location.to_owned();
            }
            if path.is_empty() { "/" } else { path }
        }
        // Two slashes name another host.
        None if location.starts_with('/') && !location.starts_with("//") => location,
        None => return location.to_owned(),
    };
    // Who knows that he is behind the proxy writes its path himself.
    let is_below = path
        .strip_prefix(base)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
    if is_below {
        return path.to_owned();
    }
    let own = path.strip_prefix(&target.path).unwrap_or(path);
    format!("{base}{own}")
}

/// Whether an answer sends the caller to where he already is: the filter in front of the page does
/// not take this daemon for the proxy.
pub(super) fn leads_back(headers: &HeaderMap, base: &str) -> bool {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let path = location.map(|location| match location.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/').unwrap_or(rest.len())..],
        None => location,
    });
    let id = base.trim_start_matches("/proxy/");
    path.is_some_and(|path| {
        path.strip_prefix("/proxy/redirect/")
            .is_some_and(|rest| rest.starts_with(id))
    })
}

/// The query without the proof of who asks, else byte for byte.
pub(super) fn query(raw: Option<&str>) -> Option<String> {
    let kept: Vec<&str> = raw?
        .split('&')
        .filter(|pair| *pair != "delegation" && !pair.starts_with("delegation="))
        .collect();
    let kept = kept.join("&");
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "/proxy/application_7_0001";

    fn target() -> Target {
        Target::read("http://host:4040").unwrap()
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn proofs_and_cookies_stay_here() {
        let given = headers(&[
            ("authorization", "Bearer secret"),
            ("cookie", "session=secret"),
            ("x-hadoop-delegation-token", "secret"),
            ("connection", "keep-alive"),
            ("accept", "text/html"),
            ("host", "localhost:8088"),
        ]);
        let sent = request(&given, &target(), "al ice");
        assert!(!format!("{sent:?}").contains("secret"));
        assert_eq!(sent["cookie"], "proxy-user=al%20ice");
        assert_eq!(sent["host"], "host:4040");
        assert_eq!(sent["accept"], "text/html");
        assert!(is_own(&sent) && !is_own(&given));
        assert_eq!(
            query(Some("a=%2F&delegation=secret&b")).as_deref(),
            Some("a=%2F&b")
        );
        assert_eq!(query(Some("delegation=secret")), None);
        assert_eq!(query(None), None);
    }

    #[test]
    fn what_concerns_one_connection_is_not_passed_back() {
        let given = headers(&[
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a=b; Domain=localhost"),
            ("strict-transport-security", "max-age=1"),
            ("content-type", "text/html"),
            ("x-frame-options", "SAMEORIGIN"),
        ]);
        let sent = answer(&given, &target(), BASE);
        assert_eq!(sent.len(), 2, "{sent:?}");
        assert_eq!(sent["content-type"], "text/html");
    }

    #[test]
    fn places_are_seen_from_outside() {
        for (location, expected) in [
            ("http://host:4040/jobs/", "/proxy/application_7_0001/jobs/"),
            ("http://host:4040", "/proxy/application_7_0001/"),
            ("/jobs/?id=1", "/proxy/application_7_0001/jobs/?id=1"),
            (
                "http://host:4040/proxy/application_7_0001/jobs/",
                "/proxy/application_7_0001/jobs/",
            ),
            ("/proxy/application_7_0001", "/proxy/application_7_0001"),
            ("jobs/", "jobs/"),
            ("//other/x", "//other/x"),
            ("http://other:4040/x", "http://other:4040/x"),
            ("http://host:4041/x", "http://host:4041/x"),
            // Another application's is not its own.
            (
                "/proxy/application_7_00012/",
                "/proxy/application_7_0001/proxy/application_7_00012/",
            ),
        ] {
            assert_eq!(moved(location, &target(), BASE), expected, "{location}");
        }
        let below = Target::read("http://host:4040/ui").unwrap();
        assert_eq!(moved("/ui/a", &below, BASE), "/proxy/application_7_0001/a");
    }

    #[test]
    fn circles_are_seen() {
        let to = |location: &'static str| leads_back(&headers(&[("location", location)]), BASE);
        assert!(to(
            "http://127.0.0.1:8088/proxy/redirect/application_7_0001/jobs/"
        ));
        assert!(to("/proxy/redirect/application_7_0001"));
        assert!(!to("/proxy/application_7_0001/jobs/"));
        assert!(!leads_back(&HeaderMap::new(), BASE));
    }
}
