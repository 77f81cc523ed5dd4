//! What is taken from a browser without a token, and how one application's page is kept apart.
//!
//! `/proxy/<application id>/` shows what an application sends: a page whose scripts run in the
//! user's browser. Under the resource manager's own host name they could ask it for everything that
//! the user may do. So a browser is sent to a host name of the application's own,
//! `application-<start>-<number>.localhost`, which every browser takes to the loopback address: to
//! the browser that is another site, and under that name nothing is served but that proxy.

use axum::http::header::{HOST, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use bobbin_service::http::caller::browser_problem;
use bobbin_types::ApplicationId;

/// Why a request without a token is not taken, in words.
pub(super) fn problem(parts: &Parts) -> Option<&'static str> {
    let own = proxied(parts.uri.path()).map(|(id, _)| host_of(id));
    let names: Vec<&str> = own.iter().map(String::as_str).collect();
    browser_problem(&parts.method, &parts.headers, &names)
}

/// The application of a path below `/proxy/`, and what is behind its id, byte for byte.
pub(super) fn proxied(path: &str) -> Option<(ApplicationId, &str)> {
    let rest = path.strip_prefix("/proxy/")?;
    // What the filter in front of an application's page sends those to who come without the proxy.
    let rest = rest.strip_prefix("redirect/").unwrap_or(rest);
    let (id, behind) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Some((id.parse().ok()?, behind))
}

/// The application's own host name.
pub(super) fn host_of(id: ApplicationId) -> String {
    format!(
        "application-{}-{:04}.localhost",
        id.cluster_timestamp, id.sequence
    )
}

/// Whether a name in a request is an application's own.
pub(super) fn is_applications(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or_default();
    name.to_ascii_lowercase().ends_with(".localhost")
}

/// Whether a browser sent this, as far as it says so. Nothing is granted for it.
pub(super) fn is_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes);
    headers.contains_key("sec-fetch-site")
        || agent.is_some_and(|agent| agent.starts_with(b"Mozilla/"))
}

/// Whether the user came here from a page of another site.
pub(super) fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    site.is_some_and(|site| site != b"none" && site != b"same-origin")
}

/// The port behind the host's name in the request, with its colon; empty if there is none.
pub(super) fn port_of(headers: &HeaderMap) -> &str {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default();
    match host.rfind(':') {
        Some(colon) if host[colon + 1..].bytes().all(|b| b.is_ascii_digit()) => &host[colon..],
        Some(_) | None => "",
    }
}

/// Whether the request is to the application's own host name.
pub(super) fn is_to(id: ApplicationId, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default();
    let name = host.strip_suffix(port_of(headers)).unwrap_or(host);
    name.eq_ignore_ascii_case(&host_of(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn parts(path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const OWN: (&str, &str) = ("host", "application-7-0001.localhost:8088");

    #[test]
    fn paths_below_the_proxy() {
        let id = "application_7_0001".parse().unwrap();
        assert_eq!(
            proxied("/proxy/application_7_0001/a%2Fb//"),
            Some((id, "/a%2Fb//"))
        );
        assert_eq!(
            proxied("/proxy/redirect/application_7_0001/x"),
            Some((id, "/x"))
        );
        assert_eq!(proxied("/proxy/application_7_0001"), Some((id, "")));
        for path in [
            "/proxy/",
            "/proxy/x/",
            "/ws/v1/cluster",
            "/proxyapplication_7_0001/",
        ] {
            assert_eq!(proxied(path), None, "{path}");
        }
        assert_eq!(host_of(id), "application-7-0001.localhost");
        assert!(is_applications("Application-7-0001.localhost:1"));
        assert!(!is_applications("localhost:1") && !is_applications("[::1]:1"));
    }

    #[test]
    fn an_applications_name_is_good_for_its_proxy_only() {
        for (path, is_taken) in [
            ("/proxy/application_7_0001/jobs/", true),
            ("/proxy/redirect/application_7_0001/jobs/", true),
            ("/proxy/application_7_0002/jobs/", false),
            ("/ws/v1/cluster/apps", false),
            ("/webhdfs/v1/?op=LISTSTATUS", false),
            ("/", false),
        ] {
            assert_eq!(problem(&parts(path, &[OWN])).is_none(), is_taken, "{path}");
        }
        // Its scripts cannot ask the resource manager under that one's own name, either.
        let cross = [("host", "localhost:8088"), ("sec-fetch-site", "cross-site")];
        assert!(problem(&parts("/ws/v1/cluster/apps", &cross)).is_some());
    }

    #[test]
    fn browsers_and_where_they_come_from() {
        let of = |headers: &[(&str, &str)]| parts("/", headers).headers;
        assert!(is_browser(&of(&[("user-agent", "Mozilla/5.0 (X11)")])));
        assert!(is_browser(&of(&[("sec-fetch-site", "none")])));
        assert!(!is_browser(&of(&[("user-agent", "curl/8.0")])));
        assert!(comes_from_elsewhere(&of(&[(
            "sec-fetch-site",
            "same-site"
        )])));
        assert!(!comes_from_elsewhere(&of(&[(
            "sec-fetch-site",
            "same-origin"
        )])));
        assert_eq!(port_of(&of(&[OWN])), ":8088");
        assert_eq!(port_of(&of(&[("host", "[::1]")])), "");
        let id = "application_7_0001".parse().unwrap();
        assert!(is_to(id, &of(&[OWN])));
        assert!(!is_to(
            id,
            &of(&[("host", "application-7-00011.localhost")])
        ));
    }
}
