//! Files from WebHDFS: from the resource manager's tree with the container's token, from other
//! hosts only where a setting names them.
//!
//! A file is taken only if its modification time is the announced one before and after its bytes
//! came, and a PUBLIC one only if everybody may read it, folders above included.
//! Source: `FSDownload` of Hadoop YARN.

mod http;
mod place;

use std::fs::File;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bobbin_hadoop::credentials::Credentials;
use bobbin_hadoop::vint::put_bytes;
use bytes::{Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::fetch::{Expected, FetchError, Sink};
use crate::remote::transfer::Counter;
use http::{Get, IDLE_TIME, get, small_body};
pub(crate) use place::{Place, Server, split_authority};
use place::{is_loopback, same_host};

/// Bytes that are gathered before they are written: each write is handed to another thread.
const WRITE_BYTES: usize = 1 << 20;
/// For how long a resource manager that does not answer is asked again: a restart is quicker.
const RETRY_TIME: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(250);
const REDIRECTS_MAX: usize = 3;
/// Source: `WebHdfsConstants.WEBHDFS_TOKEN_KIND`.
const TOKEN_KIND: &str = "WEBHDFS delegation";
/// What a path keeps as it is in a request.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The file trees that this node fetches from.
#[derive(Debug)]
pub(crate) struct Trees {
    /// host:port of the resource manager's tree, as the last registration said.
    own: RwLock<String>,
    /// The host by which the settings know the resource manager.
    manager_host: String,
    /// host:port of others. Source: setting localizer.webhdfs_hosts.
    others: Vec<String>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    pub(crate) user: String,
    pub(crate) container_token: Arc<str>,
    /// The application's Credentials stream; empty for none.
    pub(crate) credentials: Bytes,
}

/// What WebHDFS says of a file. Source: the FileStatus schema of its documentation.
#[derive(Debug, Deserialize)]
struct Status {
    length: u64,
    #[serde(rename = "modificationTime")]
    modified_ms: u64,
    permission: String,
    r#type: String,
}

#[derive(Debug, Deserialize)]
struct StatusAnswer {
    #[serde(rename = "FileStatus")]
    status: Status,
}

/// Source: the answer to GETHOMEDIRECTORY.
#[derive(Debug, Deserialize)]
struct Home {
    #[serde(rename = "Path")]
    path: String,
}

impl Trees {
    /// `manager` is the setting resourcemanager.address.
    pub(crate) fn new(manager: &str, others: Vec<String>) -> Trees {
        let manager_host = split_authority(manager).map_or(manager, |(host, _)| host);
        Trees {
            own: RwLock::default(),
            manager_host: manager_host.to_owned(),
            others,
        }
    }

    /// Takes what a registration says; an address that binds everything means the manager's host.
    pub(crate) fn set_own(&self, address: &str) {
        let address = match split_authority(address) {
            Some((host, port)) if host == "0.0.0.0" || host == "[::]" => {
                format!("{}:{port}", self.manager_host)
            }
            Some(_) | None => address.to_owned(),
        };
        // One assignment, so a panic elsewhere leaves it consistent.
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// Which server a place is on, and how the asker is proven there.
    ///
    /// # Errors
    /// It is none that this node fetches from.
    pub(crate) async fn server(&self, place: &Place, proof: &Proof) -> Result<Server, FetchError> {
        let own = self
            .own
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((own_host, port)) = split_authority(&own)
            && port == place.port
            && same_host(&place.host, &[own_host, &self.manager_host], port).await
        {
            // Its own loopback is not this host's: somebody else may listen there.
            if is_loopback(own_host).await && !is_loopback(&self.manager_host).await {
                return Err(FetchError::Place(format!(
                    "the resource manager's file tree is on its own host's loopback address ({own}), \
                     where this node cannot reach it: set http.listen there"
                )));
            }
            // To the address that the registration gave: a name in a request leads nowhere else.
            return Ok(Server {
                address: own,
                query: String::new(),
                bearer: Some(proof.container_token.clone()),
            });
        }
        let named = format!("{}:{}", place.host, place.port);
        if self.others.iter().any(|o| o.eq_ignore_ascii_case(&named)) {
            let query = match token_for(&proof.credentials, place).await? {
                Some(text) => format!("&delegation={text}"),
                None => format!("&user.name={}", utf8_percent_encode(&proof.user, PLAIN)),
            };
            return Ok(Server {
                address: named,
                query,
                bearer: None,
            });
        }
        let own = if own.is_empty() {
            "not known before this node has registered".to_owned()
        } else {
            own
        };
        Err(FetchError::Place(format!(
            "this node fetches webhdfs: files from its resource manager's tree ({own}) and from the \
             hosts in localizer.webhdfs_hosts only, not from {named}"
        )))
    }

    /// The addresses of the resource manager's tree, as Hadoop's clients compute them for looking up
    /// their tokens; none before the registration.
    ///
    /// Source: `SecurityUtil.buildTokenService`.
    pub(crate) async fn services(&self) -> Vec<String> {
        let own = self
            .own
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some((host, port)) = split_authority(&own) else {
            return Vec::new();
        };
        let mut services = vec![own.clone()];
        let mut found = place::addresses(host, port).await;
        // A resource manager of this very host may listen at all of its addresses.
        if found.iter().any(|address| address.ip().is_loopback())
            && let Some(name) = nix::unistd::gethostname()
                .ok()
                .and_then(|n| n.into_string().ok())
        {
            found.extend(place::addresses(&name, port).await);
        }
        for address in found {
            let service = format!("{}:{port}", java_text(address.ip()));
            if !services.contains(&service) {
                services.push(service);
            }
        }
        services
    }

    /// Whose token this is, in the resource manager's words.
    ///
    /// # Errors
    /// It does not take the token, or cannot be asked.
    pub(crate) async fn user_of_token(&self, token: &str) -> Result<String, FetchError> {
        let own = self
            .own
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if own.is_empty() {
            return Err(FetchError::Place(
                "this node has not registered yet".to_owned(),
            ));
        }
        let Get { status, body, .. } =
            get(&own, "/webhdfs/v1/?op=GETHOMEDIRECTORY", Some(token)).await?;
        let body = small_body(body).await?;
        if status != 200 {
            return Err(http::refusal(status, &body));
        }
        let home: Home = serde_json::from_slice(&body)
            .map_err(|e| FetchError::WebHdfs(format!("its answer is no home: {e}")))?;
        match home.path.strip_prefix("/user/") {
            Some(name) if !name.is_empty() => Ok(name.to_owned()),
            Some(_) | None => Err(FetchError::WebHdfs("its answer is no home".to_owned())),
        }
    }

    /// Fetches a file, once more from its beginning when the server went away.
    ///
    /// # Errors
    /// Why it cannot be had. May be dropped at any time.
    pub(crate) async fn fetch(
        &self,
        (source, place): (&str, &Place),
        proof: &Proof,
        public: bool,
        (expected, counter): (&Expected, &Counter),
        to: &File,
    ) -> Result<u64, FetchError> {
        let began = tokio::time::Instant::now();
        loop {
            let server = self.server(place, proof).await?;
            let asked = Fetch {
                server: &server,
                others: &self.others,
                source,
                path: &place.path,
                expected,
                counter,
            };
            match asked.run(public, to).await {
                Err(FetchError::Away(words)) if began.elapsed() < RETRY_TIME => {
                    tracing::info!(source, "asking again: {words}");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                other => return other,
            }
        }
    }
}

/// As Java writes it: of IPv6 all eight numbers, without brackets.
///
/// Source: `java.net.InetAddress.getHostAddress`.
fn java_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().map(|part| format!("{part:x}")).join(":"),
    }
}

/// The application's own token for another host's tree, as it goes into a query.
/// Source: `Token.encodeToUrlString`.
async fn token_for(credentials: &Bytes, place: &Place) -> Result<Option<String>, FetchError> {
    let all = Credentials::read(credentials.clone())
        .map_err(|e| FetchError::Place(format!("the application's credentials: {e}")))?;
    let mut services = vec![format!("{}:{}", place.host, place.port)];
    services.extend(place.addresses().await.iter().map(ToString::to_string));
    let token = all.tokens.iter().map(|(_, token)| token).find(|token| {
        token.kind == TOKEN_KIND
            && services
                .iter()
                .any(|s| s.eq_ignore_ascii_case(&token.service))
    });
    Ok(token.map(|token| {
        let mut bytes = Vec::new();
        let parts: [&[u8]; 4] = [
            &token.identifier,
            &token.password,
            token.kind.as_bytes(),
            token.service.as_bytes(),
        ];
        for part in parts {
            put_bytes(&mut bytes, part);
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }))
}

/// One try.
struct Fetch<'a> {
    server: &'a Server,
    others: &'a [String],
    source: &'a str,
    path: &'a str,
    expected: &'a Expected,
    counter: &'a Counter,
}

impl Fetch<'_> {
    async fn run(&self, public: bool, to: &File) -> Result<u64, FetchError> {
        self.check(&self.status(self.path).await?)?;
        if public {
            self.check_public().await?;
        }
        let bytes = self.bytes(to).await?;
        // Changed while it came.
        self.check(&self.status(self.path).await?)?;
        Ok(bytes)
    }

    fn url(&self, path: &str, operation: &str) -> String {
        format!(
            "/webhdfs/v1{}?op={operation}{}",
            utf8_percent_encode(path, PLAIN),
            self.server.query
        )
    }

    async fn status(&self, path: &str) -> Result<Status, FetchError> {
        let url = self.url(path, "GETFILESTATUS");
        let Get { status, body, .. } =
            get(&self.server.address, &url, self.server.bearer.as_deref()).await?;
        let body = small_body(body).await?;
        if status != 200 {
            return Err(http::refusal(status, &body));
        }
        let answer: StatusAnswer = serde_json::from_slice(&body)
            .map_err(|e| FetchError::WebHdfs(format!("its answer is no file status: {e}")))?;
        Ok(answer.status)
    }

    fn check(&self, status: &Status) -> Result<(), FetchError> {
        if status.r#type != "FILE" {
            return Err(FetchError::NotAFile);
        }
        if status.modified_ms != self.expected.mtime_ms {
            return Err(FetchError::Time {
                resource: self.source.to_owned(),
                expected: self.expected.mtime_ms,
                actual: status.modified_ms,
            });
        }
        self.expected.check_size(status.length)
    }

    /// Everybody may read the file and enter the folders above it.
    /// Source: `FSDownload.isPublic`.
    async fn check_public(&self) -> Result<(), FetchError> {
        let mut path = self.path;
        let mut needed = 0o4;
        loop {
            let status = self.status(path).await?;
            let mode = u32::from_str_radix(&status.permission, 8).unwrap_or(0);
            if mode & needed != needed {
                return Err(FetchError::NotPublicThere(path.to_owned()));
            }
            if path == "/" {
                return Ok(());
            }
            needed = 0o1;
            path = match path.rsplit_once('/') {
                Some((above, _)) if !above.is_empty() => above,
                Some(_) | None => "/",
            };
        }
    }

    /// OPEN, which may send elsewhere on the same host.
    async fn open(&self) -> Result<Get, FetchError> {
        let mut address = self.server.address.clone();
        let mut url = self.url(self.path, "OPEN");
        let mut bearer = self.server.bearer.as_deref();
        for _ in 0..=REDIRECTS_MAX {
            let answer = get(&address, &url, bearer).await?;
            let Some(location) = answer.location else {
                return match answer.status {
                    200 => Ok(answer),
                    status => Err(http::refusal(status, &small_body(answer.body).await?)),
                };
            };
            let refused = || {
                let shown: String = location
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(100)
                    .collect();
                FetchError::WebHdfs(format!("it sends to another host, to {shown}"))
            };
            let rest = location.strip_prefix("http://").ok_or_else(refused)?;
            let at = rest.find('/').ok_or_else(refused)?;
            let (to, path) = rest.split_at(at);
            let same = to.eq_ignore_ascii_case(&self.server.address);
            if !same && !self.others.iter().any(|o| o.eq_ignore_ascii_case(to)) {
                // The query may hold the token: of the place the host is enough.
                return Err(FetchError::WebHdfs(format!(
                    "it sends to another host, to {to}"
                )));
            }
            if !same {
                bearer = None;
            }
            (address, url) = (to.to_owned(), path.to_owned());
        }
        Err(FetchError::WebHdfs(format!(
            "it sends elsewhere more than {REDIRECTS_MAX} times"
        )))
    }

    async fn bytes(&self, to: &File) -> Result<u64, FetchError> {
        let mut answer = self.open().await?;
        let file = to.try_clone().map_err(FetchError::Copy)?;
        let mut sink = Sink::new(self.expected, file);
        let mut bytes = 0_u64;
        sink = sink.run(Sink::begin_again).await?;
        let mut gathered = BytesMut::new();
        loop {
            let frame = tokio::time::timeout(IDLE_TIME, answer.body.frame())
                .await
                .map_err(|_| {
                    FetchError::WebHdfs(format!("nothing came for {} s", IDLE_TIME.as_secs()))
                })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|e| FetchError::Away(format!("the data broke off: {e}")))?;
            if let Ok(data) = frame.into_data() {
                bytes = bytes.saturating_add(u64::try_from(data.len()).unwrap_or(0));
                self.counter.set_done(bytes);
                gathered.extend_from_slice(&data);
            }
            if gathered.len() >= WRITE_BYTES {
                let data = gathered.split().freeze();
                sink = sink.run(move |sink| sink.pass(&data)).await?;
            }
        }
        let data = gathered.freeze();
        sink = sink.run(move |sink| sink.pass(&data)).await?;
        sink.finish()
    }
}

#[cfg(test)]
pub(crate) mod tests;
