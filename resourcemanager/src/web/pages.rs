//! The pages for people: the cluster at a glance, one application, and what the proxy says itself.
//!
//! No scripts and nothing from elsewhere; every text that comes from outside is escaped.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bobbin_rm_core::view::{
    ApplicationFilter, ApplicationReport, ClusterMetrics, ContainerReport, NodeReport, Page,
};
use bobbin_rm_core::{Object, Operation, Principal};
use bobbin_service::http::caller::unknown_caller;
use bobbin_types::{ApplicationId, ContainerId, Resource, WallMillis};

use super::door::Web;
use super::rest::{diagnostics, is_tracked, logs_url, plain_headers, push_xml_text};
use crate::driver::Failure;
use crate::grpc::identify::decide;
use crate::yarn::iso_time;

/// Applications on one page.
const PAGE: usize = 100;
/// Nodes that are shown.
const NODES_MAX: usize = 1_000;
const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:80em;\
     padding:0 1em;color:#222}h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}\
     table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2em .8em .2em 0;\
     border-bottom:1px solid #ddd;vertical-align:top}th{font-weight:600}\
     pre{white-space:pre-wrap;background:#f6f6f6;padding:.6em}a{color:#06c}";
/// Nothing but this page's own style is loaded, and nobody may put it into a frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; \
     base-uri 'none'; form-action 'none'";

/// A page that is being written.
struct Html(String);

impl Html {
    fn new(title: &str) -> Html {
        let mut html = Html(String::from(
            "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>",
        ));
        html.text(title);
        html.raw("</title><style>")
            .raw(STYLE)
            .raw("</style></head><body><h1>");
        html.text(title).raw("</h1>");
        html
    }

    fn raw(&mut self, markup: &str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    fn text(&mut self, text: &str) -> &mut Html {
        push_xml_text(&mut self.0, text);
        self
    }

    fn link(&mut self, place: &str, words: &str) -> &mut Html {
        self.raw("<a href=\"")
            .text(place)
            .raw("\">")
            .text(words)
            .raw("</a>")
    }

    fn cell(&mut self, text: &str) -> &mut Html {
        self.raw("<td>").text(text).raw("</td>")
    }

    fn line(&mut self, name: &str, text: &str) -> &mut Html {
        self.raw("<tr><th>")
            .text(name)
            .raw("</th>")
            .cell(text)
            .raw("</tr>")
    }

    fn respond(mut self, status: StatusCode) -> Response {
        self.raw("</body></html>");
        let headers = plain_headers("text/html;charset=utf-8");
        let mut response = (status, headers, self.0).into_response();
        response.headers_mut().insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        );
        response.headers_mut().insert(
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        );
        response
    }
}

/// Answers `/`, `/cluster` and what is below it.
pub(super) async fn handle(State(web): State<Arc<Web>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let principal = match web.principal(&parts, None).await {
        Ok(principal) => principal,
        Err(unproven) => return unknown_caller(&unproven),
    };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return (StatusCode::METHOD_NOT_ALLOWED, "Only GET.\n").into_response();
    }
    let path = parts.uri.path().trim_end_matches('/');
    let base = web.own_base(&parts);
    let answered = match path.strip_prefix("/cluster/app/") {
        Some(id) => application(&web, &principal, id, &base).await,
        None if matches!(path, "" | "/cluster" | "/cluster/apps" | "/cluster/nodes") => {
            index(&web, &principal, &parts).await
        }
        None => Ok(problem(
            StatusCode::NOT_FOUND,
            "there is no such page",
            None,
            &base,
        )),
    };
    answered.unwrap_or_else(|failure| {
        problem(
            StatusCode::SERVICE_UNAVAILABLE,
            &failure.to_string(),
            None,
            &base,
        )
    })
}

/// Why something is not shown.
pub(super) fn problem(
    status: StatusCode,
    words: &str,
    id: Option<ApplicationId>,
    base: &str,
) -> Response {
    let mut html = Html::new("This cannot be shown");
    html.raw("<p>").text(words).raw(".</p><p>");
    if let Some(id) = id {
        html.link(&format!("{base}/cluster/app/{id}"), "The application")
            .raw(" · ");
    }
    html.link(&format!("{base}/"), "The cluster").raw("</p>");
    html.respond(status)
}

/// The application's page is not there yet; it is asked for again by itself.
pub(super) fn waiting(report: &ApplicationReport, base: &str) -> Response {
    let mut html = Html::new("The application's page is not there yet");
    let why = diagnostics(report);
    let why = if why.is_empty() {
        "its master has not registered yet".to_owned()
    } else {
        why
    };
    html.raw("<p>")
        .text(&format!(
            "{} is {}: {why}.",
            report.id,
            report.state.as_yarn()
        ))
        .raw("</p><p>This page looks again every 5 seconds. ")
        .link(
            &format!("{base}/cluster/app/{}", report.id),
            "The application",
        )
        .raw("</p>");
    let mut response = html.respond(StatusCode::OK);
    response
        .headers_mut()
        .insert(header::REFRESH, HeaderValue::from_static("5"));
    response
}

/// Another site led here with more than an address: the user says whether that was meant.
pub(super) fn ask_first(place: &str) -> Response {
    let mut html = Html::new("A page of another site led here");
    html.raw("<p>Following its link may do something in the application: ")
        .link(place, place)
        .raw("</p>");
    html.respond(StatusCode::OK)
}

fn size(resource: &Resource) -> String {
    format!("{} MiB, {} vcores", resource.memory_mib, resource.vcores)
}

fn moment(wall: Option<WallMillis>) -> String {
    wall.map_or_else(String::new, |wall| {
        // Seconds are enough for people.
        let text = iso_time::format(wall);
        text.split('.').next().unwrap_or(&text).replace('T', " ") + " UTC"
    })
}

async fn index(web: &Web, principal: &Principal, parts: &Parts) -> Result<Response, Failure> {
    if let Err(denied) = decide(principal, Operation::ViewCluster, &Object::Cluster) {
        let base = web.own_base(parts);
        return Ok(problem(
            StatusCode::FORBIDDEN,
            &denied.to_string(),
            None,
            &base,
        ));
    }
    let query = parts.uri.query().unwrap_or_default();
    let after: Option<ApplicationId> = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("after="))
        .and_then(|id| id.parse().ok());
    let asker = principal.clone();
    let asked = web.driver.read(move |core| {
        let filter = ApplicationFilter::default();
        let page = core.applications(&asker, &filter, PAGE, after);
        (core.cluster().cluster_timestamp, core.metrics(), page)
    });
    let (started, metrics, page) = asked.await?;
    let may_list = decide(principal, Operation::ViewNodes, &Object::Cluster).is_ok();
    let nodes = if may_list {
        web.driver.read(|core| core.nodes()).await?
    } else {
        Vec::new()
    };
    let mut html = Html::new("Bobbin");
    cluster(&mut html, started, &metrics);
    node_table(&mut html, &nodes);
    application_table(&mut html, &page);
    Ok(html.respond(StatusCode::OK))
}

fn cluster(html: &mut Html, started: u64, metrics: &ClusterMetrics) {
    let counts = &metrics.statistics;
    let used = size(&counts.allocated);
    html.raw("<table>")
        .line("Version", env!("CARGO_PKG_VERSION"))
        .line("Since", &moment(Some(WallMillis(started))))
        .line("In use", &format!("{used} of {}", size(&metrics.total)))
        .line(
            "Applications",
            &format!(
                "{} running, {} waiting, {} finished, {} failed, {} killed",
                counts.running, counts.pending, counts.completed, counts.failed, counts.killed
            ),
        )
        .raw("</table>");
}

fn node_table(html: &mut Html, nodes: &[NodeReport]) {
    html.raw("<h2>Nodes</h2><table><tr><th>Node</th><th>State</th><th>In use</th><th>Of</th>");
    html.raw("<th>Containers</th><th>Remarks</th></tr>");
    for node in nodes.iter().take(NODES_MAX) {
        html.raw("<tr><td>");
        if node.http_address.is_empty() {
            html.text(node.id.as_str());
        } else {
            html.link(&format!("http://{}/", node.http_address), node.id.as_str());
        }
        html.raw("</td>")
            .cell(node.state.as_str())
            .cell(&size(&node.used))
            .cell(&size(&node.total))
            .cell(&node.containers.to_string())
            .cell(&node.problems.join("; "))
            .raw("</tr>");
    }
    html.raw("</table>");
    if nodes.len() > NODES_MAX {
        html.text(&format!("... and {} more", nodes.len() - NODES_MAX));
    }
}

fn application_table(html: &mut Html, page: &Page<ApplicationReport, ApplicationId>) {
    html.raw("<h2>Applications</h2><table><tr><th>Application</th><th>Name</th><th>User</th>");
    html.raw("<th>Type</th><th>State</th><th>Result</th><th>Submitted</th><th>Page</th></tr>");
    for report in &page.rows {
        let id = report.id.to_string();
        html.raw("<tr><td>")
            .link(&format!("/cluster/app/{id}"), &id)
            .raw("</td>")
            .cell(&report.name)
            .cell(report.user.as_str())
            .cell(&report.application_type)
            .cell(report.state.as_yarn().as_str())
            .cell(report.final_status.as_str())
            .cell(&moment(Some(report.submitted)))
            .raw("<td>");
        page_link(html, report);
        html.raw("</td></tr>");
    }
    html.raw("</table>");
    if let Some(next) = page.next {
        html.raw("<p>")
            .link(&format!("/?after={next}"), "Older ones")
            .raw("</p>");
    }
}

fn page_link(html: &mut Html, report: &ApplicationReport) {
    if is_tracked(report) && !report.tracking_url.is_empty() {
        let words = if report.finished.is_some() {
            "history"
        } else {
            "open"
        };
        html.link(&format!("/proxy/{}/", report.id), words);
    }
}

async fn application(
    web: &Web,
    principal: &Principal,
    text: &str,
    base: &str,
) -> Result<Response, Failure> {
    let missing = || {
        let words = "no such application is known here";
        problem(StatusCode::NOT_FOUND, words, None, base)
    };
    let Ok(id) = text.parse::<ApplicationId>() else {
        return Ok(missing());
    };
    let asked = web.driver.read(move |core| {
        let containers = core.containers(id, PAGE, None);
        Some((core.rights(id)?, core.application(id)?, containers))
    });
    let Some((rights, report, containers)) = asked.await? else {
        return Ok(missing());
    };
    if let Err(denied) = decide(principal, Operation::ViewApplication, &rights.object()) {
        return Ok(problem(
            StatusCode::FORBIDDEN,
            &denied.to_string(),
            None,
            base,
        ));
    }
    let mut html = application_page(&report);
    container_table(&mut html, &containers, report.user.as_str());
    Ok(html.respond(StatusCode::OK))
}

fn application_page(report: &ApplicationReport) -> Html {
    let mut html = Html::new(&report.id.to_string());
    html.raw("<p>").link("/", "The cluster").raw(" · ");
    page_link(&mut html, report);
    html.raw("</p><table>")
        .line("Name", &report.name)
        .line("User", report.user.as_str())
        .line("Queue", &report.queue)
        .line("Type", &report.application_type)
        .line("State", report.state.as_yarn().as_str())
        .line("Result", report.final_status.as_str())
        .line("Submitted", &moment(Some(report.submitted)))
        .line("Started", &moment(report.launched))
        .line("Ended", &moment(report.finished))
        .line("Containers", &report.containers.to_string())
        .line("In use", &size(&report.used))
        .line(
            "Used so far",
            &format!(
                "{} MiB-seconds, {} vcore-seconds",
                report.used_seconds.memory_mib, report.used_seconds.vcores
            ),
        )
        .raw("</table>");
    let words = diagnostics(report);
    if !words.is_empty() {
        html.raw("<h2>Diagnostics</h2><pre>")
            .text(&words)
            .raw("</pre>");
    }
    html.raw("<h2>Attempts</h2><table><tr><th>Attempt</th><th>State</th><th>Started</th>");
    html.raw("<th>Node</th><th>Logs</th><th>Diagnostics</th></tr>");
    for attempt in &report.attempts {
        let container = attempt.container.map(|id| id.to_string());
        let logs = container.map(|container| {
            logs_url(&attempt.node_http_address, &container, report.user.as_str())
        });
        let node = attempt.node.as_ref().map_or("", |node| node.as_str());
        // A String takes every write.
        let _ = write!(html.0, "<tr><td>{}</td>", attempt.attempt.attempt);
        html.cell(attempt.state.as_str())
            .cell(&moment(attempt.started))
            .cell(node)
            .raw("<td>");
        if let Some(logs) = logs.filter(|logs| !logs.is_empty()) {
            html.link(&logs, "logs");
        }
        html.raw("</td>").cell(&attempt.diagnostics).raw("</tr>");
    }
    html.raw("</table>");
    html
}

/// The first ones; all of them are in `bobbin app containers` and in the REST interface.
fn container_table(html: &mut Html, page: &Page<ContainerReport, ContainerId>, user: &str) {
    html.raw("<h2>Containers</h2><table><tr><th>Container</th><th>State</th><th>Size</th>");
    html.raw("<th>Node</th><th>Exit status</th><th>Logs</th><th>Diagnostics</th></tr>");
    for report in &page.rows {
        let id = report.container.to_string();
        let exit_status = report.exit_status.map(|status| status.0.to_string());
        html.raw("<tr>")
            .cell(&id)
            .cell(report.state.as_str())
            .cell(&size(&report.resource))
            .cell(report.node.as_str())
            .cell(exit_status.as_deref().unwrap_or_default())
            .raw("<td>");
        let logs = logs_url(&report.node_http_address, &id, user);
        if !logs.is_empty() {
            html.link(&logs, "logs");
        }
        html.raw("</td>").cell(&report.diagnostics).raw("</tr>");
    }
    html.raw("</table>");
    if page.next.is_some() {
        html.text("... and more");
    }
}

#[cfg(test)]
mod tests {
    use super::super::rest::samples;
    use super::*;

    async fn shown(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        String::from_utf8(bytes.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn everything_from_outside_is_escaped() {
        let evil = "<script>alert('&\")</script>";
        let mut report = samples::running("http://h:1/\"><script>");
        report.name = evil.to_owned();
        report.diagnostics = evil.to_owned();
        report.attempts = vec![samples::attempt()];
        report.attempts[0].diagnostics = evil.to_owned();
        report.attempts[0].node_http_address = "\"><script>".to_owned();
        let mut node = samples::node();
        node.http_address = "\"><script>".to_owned();
        node.problems = vec![evil.to_owned()];
        let mut html = application_page(&report);
        node_table(&mut html, &[node]);
        let page = Page {
            rows: vec![report.clone()],
            next: Some(report.id),
        };
        application_table(&mut html, &page);
        let mut container = samples::container();
        container.diagnostics = evil.to_owned();
        container.node_http_address = "\"><script>".to_owned();
        let containers = Page {
            rows: vec![container],
            next: None,
        };
        container_table(&mut html, &containers, "user1");
        for response in [
            html.respond(StatusCode::OK),
            waiting(&report, "http://rm"),
            problem(StatusCode::NOT_FOUND, evil, Some(report.id), "http://rm"),
            ask_first("/proxy/x?\"><script>"),
        ] {
            let policy = response.headers()[header::CONTENT_SECURITY_POLICY].clone();
            assert!(policy.to_str().unwrap().contains("default-src 'none'"));
            let text = shown(response).await;
            assert!(!text.contains("<script>"), "{text}");
        }
    }

    #[tokio::test]
    async fn one_that_waits_says_why() {
        let response = waiting(&samples::waiting(), "http://rm");
        assert_eq!(response.headers()[header::REFRESH], "5");
        let text = shown(response).await;
        assert!(text.contains("no node has room for &lt;1 GiB"), "{text}");
    }

    #[test]
    fn moments_are_for_people() {
        assert_eq!(
            moment(Some(WallMillis(1_480_958_460_104))),
            "2016-12-05 17:21:00 UTC"
        );
        assert_eq!(moment(None), "");
    }
}
