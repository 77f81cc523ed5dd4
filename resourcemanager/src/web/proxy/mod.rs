//! `/proxy/<application id>/...`: an application's own page, shown to those who may view it.
//!
//! While it runs, GET, HEAD and POST are forwarded to the address that its master registered, from
//! this door's own address, which Hadoop's filter in front of Spark's page checks. Before that a page
//! says why it waits; afterwards its history is shown where its master said, if it said so.
//! Source: `WebAppProxyServlet`, `AmIpFilter`.
//! Deliberately absent: https to the page, WebSocket, cookies (in either direction, but for the one
//! that names the user).

mod forward;
mod headers;
mod seats;
mod target;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bobbin_rm_core::view::ApplicationReport;
use bobbin_rm_core::{Denied, Operation, Principal};
use bobbin_service::http::caller::unknown_caller;
use bobbin_types::{ApplicationId, ApplicationState, YarnApplicationState};
use tokio::task::spawn_blocking;

use super::browser;
use super::door::Web;
use super::pages;
use super::rest::is_tracked;
use crate::driver::Failure;
use crate::grpc::identify::decide;
use forward::ForwardError;
pub(in crate::web) use seats::Seat;
pub(crate) use seats::Seats;
use target::{Target, TargetError};

/// Why the application's page is not shown.
#[derive(Debug, thiserror::Error)]
enum Unshown {
    #[error("this is no application's page; the link is /proxy/<application id>/")]
    NoApplication,
    #[error("no application {0} is known here")]
    Unknown(ApplicationId),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error("only GET, HEAD and POST are forwarded to an application's page")]
    Method,
    #[error("{0} has ended, and its master left no address of its history")]
    Ended(ApplicationId),
    #[error(
        "the request has come through this proxy already: the application's page leads back here"
    )]
    Circle,
    #[error(
        "the application's page does not take this resource manager for its proxy and sends its \
         visitors back here; its yarn.resourcemanager.webapp.address must be this door's address"
    )]
    Filtered,
    #[error("too many requests to pages of applications are being forwarded; try again")]
    Busy,
    #[error("a page of another application may not be part of this one")]
    NotANavigation,
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
}

impl Unshown {
    fn status(&self) -> StatusCode {
        match self {
            Unshown::NoApplication | Unshown::Unknown(_) | Unshown::Ended(_) => {
                StatusCode::NOT_FOUND
            }
            Unshown::Denied(_) | Unshown::NotANavigation => StatusCode::FORBIDDEN,
            Unshown::Failed(_) | Unshown::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Unshown::Method => StatusCode::METHOD_NOT_ALLOWED,
            Unshown::Circle | Unshown::Filtered => StatusCode::LOOP_DETECTED,
            Unshown::Target(_) => StatusCode::BAD_GATEWAY,
            Unshown::Forward(ForwardError::Slow(..)) => StatusCode::GATEWAY_TIMEOUT,
            Unshown::Forward(ForwardError::Unreachable(..) | ForwardError::Broken(..)) => {
                StatusCode::BAD_GATEWAY
            }
        }
    }
}

/// Answers every request below `/proxy`.
pub(super) async fn handle(State(web): State<Arc<Web>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let delegation = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("delegation="));
    let principal = match web.principal(&parts, delegation).await {
        Ok(principal) => principal,
        Err(unproven) => return unknown_caller(&unproven),
    };
    let shown = show(&web, &parts, body, &principal, delegation.is_some()).await;
    shown.unwrap_or_else(|unshown| {
        let id = browser::proxied(parts.uri.path()).map(|(id, _)| id);
        pages::problem(
            unshown.status(),
            &unshown.to_string(),
            id,
            &web.own_base(&parts),
        )
    })
}

async fn show(
    web: &Arc<Web>,
    parts: &Parts,
    body: Body,
    principal: &Principal,
    has_token: bool,
) -> Result<Response, Unshown> {
    let (id, rest) = browser::proxied(parts.uri.path()).ok_or(Unshown::NoApplication)?;
    let asked = web
        .driver
        .read(move |core| Some((core.rights(id)?, core.application(id)?)));
    let (rights, report) = asked.await?.ok_or(Unshown::Unknown(id))?;
    decide(principal, Operation::ViewApplication, &rights.object())?;
    if !matches!(parts.method, Method::GET | Method::HEAD | Method::POST) {
        return Err(Unshown::Method);
    }
    let has_token = has_token || parts.headers.contains_key(header::AUTHORIZATION);
    if !has_token && let Some(response) = apart(id, parts)? {
        return Ok(response);
    }
    if rest.is_empty() {
        let there = with_query(&format!("/proxy/{id}/"), parts.uri.query());
        return Ok(redirect(&there));
    }
    if report.state.is_ended() {
        return history(&report, rest, parts.uri.query());
    }
    if !is_tracked(&report) || report.state == ApplicationState::Finishing {
        return Ok(pages::waiting(&report, &web.own_base(parts)));
    }
    if report.tracking_url.is_empty() {
        let page = format!("{}/cluster/app/{id}", web.own_base(parts));
        return Ok(redirect(&page));
    }
    if headers::is_own(&parts.headers) {
        return Err(Unshown::Circle);
    }
    forward(web, parts, body, principal, &report, rest).await
}

/// Sends a browser to the application's own host name (see `browser.rs`), and stops at a link of
/// another site that carries more than an address: following it may do something.
fn apart(id: ApplicationId, parts: &Parts) -> Result<Option<Response>, Unshown> {
    let headers = &parts.headers;
    if !browser::is_browser(headers) {
        return Ok(None);
    }
    let path = parts.uri.path();
    let here = with_query(path, parts.uri.query());
    if !browser::is_to(id, headers) {
        if parts.method == Method::POST {
            return Err(Unshown::NotANavigation);
        }
        let (name, port) = (browser::host_of(id), browser::port_of(headers));
        return Ok(Some(redirect(&format!("http://{name}{port}{here}"))));
    }
    if browser::comes_from_elsewhere(headers) && parts.uri.query().is_some() {
        return Ok(Some(pages::ask_first(&here)));
    }
    Ok(None)
}

/// 302, as YARN's proxy.
fn redirect(place: &str) -> Response {
    let mut response = StatusCode::FOUND.into_response();
    if let Ok(value) = HeaderValue::try_from(place) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

fn with_query(path: &str, query: Option<&str>) -> String {
    match headers::query(query) {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// Where the master said that its history is. One that went without a word said nothing: its last
/// address is that of a page which is gone.
fn history(
    report: &ApplicationReport,
    rest: &str,
    query: Option<&str>,
) -> Result<Response, Unshown> {
    let said = report.state.as_yarn() == YarnApplicationState::Finished;
    let url = report.tracking_url.as_str();
    let whole = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let is_web = whole.starts_with("http://") || whole.starts_with("https://");
    if !said || url.is_empty() || !is_web || whole.parse::<Uri>().is_err() {
        return Err(Unshown::Ended(report.id));
    }
    let place = match rest.trim_start_matches('/') {
        "" => whole,
        below => format!("{}/{below}", whole.trim_end_matches('/')),
    };
    Ok(redirect(&with_query(&place, query)))
}

async fn forward(
    web: &Arc<Web>,
    parts: &Parts,
    body: Body,
    principal: &Principal,
    report: &ApplicationReport,
    rest: &str,
) -> Result<Response, Unshown> {
    let seat = web.seats.take(&report.user).ok_or(Unshown::Busy)?;
    let target = Target::read(&report.tracking_url)?;
    let address = checked(web, &target, report).await?;
    let user = match principal {
        Principal::User { name, .. } => name.to_string(),
        Principal::Attempt(_)
        | Principal::Node(_)
        | Principal::Container(_)
        | Principal::Tenant(_) => report.user.to_string(),
    };
    let path = with_query(&format!("{}{rest}", target.path), parts.uri.query());
    let uri = path.parse::<Uri>().map_err(|_| Unshown::NoApplication)?;
    let stream = forward::connect(web.address.ip(), address).await?;
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers::request(&parts.headers, &target, &user);
    let answer = forward::ask(stream, address, request, seat).await?;
    let base = format!("/proxy/{}", report.id);
    if headers::leads_back(answer.headers(), &base) {
        return Err(Unshown::Filtered);
    }
    let (mut head, body) = answer.into_parts();
    head.headers = headers::answer(&head.headers, &target, &base);
    let mut response = body.into_response();
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    Ok(response)
}

/// The address at which the application's page is asked for, if that page can be its own.
async fn checked(
    web: &Arc<Web>,
    target: &Target,
    report: &ApplicationReport,
) -> Result<SocketAddr, Unshown> {
    let addresses = target.addresses().await?;
    // Of a name with several addresses each must be good: the next one could be another.
    for address in &addresses {
        target::check_address(*address)?;
    }
    // As the door itself listens, so that the source address fits.
    let of_this_kind = |a: &&SocketAddr| a.is_ipv4() == web.address.is_ipv4();
    let address = addresses
        .iter()
        .find(of_this_kind)
        .or_else(|| addresses.first());
    let address = *address
        .ok_or_else(|| TargetError::NoAddress(target.host.clone(), "none is known".to_owned()))?;
    let doors = doors(web, address.port()).await?;
    let doorkeeper = web.doorkeeper.clone();
    let user = report.user.clone();
    let checked = spawn_blocking(move || {
        let is_door = doors.iter().any(|door| leads_to(address, door));
        if is_door {
            return Err(TargetError::Forbidden(address));
        }
        if !target::is_local(address.ip()) {
            return Ok(address);
        }
        let uid = target::listener_owner(address).ok_or(TargetError::Nothing(address))?;
        match doorkeeper.by_uid(uid) {
            Ok(Principal::User { name, .. }) if name == user => Ok(address),
            Ok(_) | Err(_) => Err(TargetError::NotIts(address)),
        }
    });
    let checked = checked.await.map_err(|_| Failure::Stopping)?;
    Ok(checked?)
}

/// Those of the cluster's own doors that have this port, as they are named to their clients.
async fn doors(web: &Arc<Web>, port: u16) -> Result<Vec<String>, Failure> {
    let of_nodes = web.driver.read(move |core| core.node_doors(port)).await?;
    Ok(web.doors.iter().cloned().chain(of_nodes).collect())
}

/// Whether a connection to the address ends at the door. Only doors with its port are looked up.
fn leads_to(address: SocketAddr, door: &str) -> bool {
    let port = door
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    if port != Some(address.port()) {
        return false;
    }
    let ip = address.ip().to_canonical();
    let found = std::net::ToSocketAddrs::to_socket_addrs(door);
    // A name that nobody knows could be any host's.
    found.map_or(true, |mut found| {
        found.any(|found| {
            let own = found.ip().to_canonical();
            // All addresses of this host are one host, and one that stands for all is its own.
            let is_here = own.is_unspecified() || target::is_local(own);
            own == ip || (is_here && target::is_local(ip))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_of_the_cluster_are_known() {
        let address = |text: &str| text.parse().unwrap();
        assert!(leads_to(address("127.0.0.1:8042"), "127.0.0.1:8042"));
        assert!(leads_to(address("127.0.0.2:8042"), "127.0.0.1:8042"));
        assert!(leads_to(address("127.0.0.1:8042"), "0.0.0.0:8042"));
        assert!(leads_to(address("[::1]:8042"), "127.0.0.1:8042"));
        assert!(leads_to(address("192.0.2.7:8042"), "192.0.2.7:8042"));
        assert!(!leads_to(address("192.0.2.8:8042"), "192.0.2.7:8042"));
        assert!(!leads_to(address("192.0.2.8:8042"), "0.0.0.0:8042"));
        assert!(!leads_to(address("127.0.0.1:4040"), "127.0.0.1:8042"));
        assert!(!leads_to(address("127.0.0.1:4040"), ""));
    }

    #[test]
    fn queries_go_on_without_proofs() {
        assert_eq!(with_query("/a", Some("x=%2F")), "/a?x=%2F");
        assert_eq!(with_query("/a", Some("delegation=s")), "/a");
        assert_eq!(with_query("/a", None), "/a");
    }
}
