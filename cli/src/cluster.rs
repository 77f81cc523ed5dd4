//! The connection to the resource manager.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use bobbin_proto::v1;
use bobbin_proto::v1::client_client::ClientClient;
use bobbin_proto::v1::staging_client::StagingClient;
use bobbin_service::{RpcChannel, Target};
use bobbin_types::ApplicationId;

use crate::failure::{Failure, Kind, without_number};
use crate::text::printable;

/// The longest an answer may take that waits for nothing but the disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of one answer: a page of reports, each with its diagnostics.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Applications and containers asked for at once.
const PAGE_SIZE: u32 = 500;

/// Containers that are measured for one list.
const MEASURED_MAX: usize = 20_000;

/// The resource manager's client service; cheap to copy, reconnects by itself.
pub(crate) type Client = ClientClient<RpcChannel>;

/// One connection, and where it leads.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) target: Target,
    channel: RpcChannel,
}

/// Where the resource manager is, and the token to show: `--rm`, then the environment, then
/// `client.toml`, then the installed socket.
///
/// # Errors
/// Settings or a token file that cannot be used.
pub(crate) fn target(rm: Option<&str>) -> Result<(Target, Option<String>), Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let socket = variable("BOBBIN_RM_SOCKET");
    // The common case of a cluster on this host needs no settings at all.
    if let (None, Some(socket), None) = (rm, socket, variable("BOBBIN_TOKEN_FILE")) {
        return Ok((Target::Unix(socket.into()), None));
    }
    let unusable = |e: bobbin_service::ClientSettingsError| {
        Failure::usage(sentence(&e))
            .try_this("correct client.toml, or say --rm SOCKET or --rm HOST:PORT")
    };
    let settings = bobbin_service::load_client().map_err(unusable)?;
    let (target, token) = bobbin_service::client_target(&settings).map_err(unusable)?;
    Ok((rm.map_or(target, parse_target), token))
}

/// What holds a slash is a socket's path, everything else host:port.
fn parse_target(text: &str) -> Target {
    if text.contains('/') {
        Target::Unix(text.into())
    } else {
        Target::Tcp(text.to_owned())
    }
}

/// An error with its reasons, as one sentence.
pub(crate) fn sentence(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(source) = inner {
        let words = source.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        inner = source.source();
    }
    without_number(&printable(&text))
}

impl Cluster {
    /// Connects now, so that a resource manager that is not there is said before anything else.
    ///
    /// # Errors
    /// Nobody answers there.
    pub(crate) async fn connect(rm: Option<&str>) -> Result<Cluster, Failure> {
        let (target, token) = target(rm)?;
        Cluster::connect_to(target, token).await
    }

    /// As [`Cluster::connect`], to a known place.
    pub(crate) async fn connect_to(
        target: Target,
        token: Option<String>,
    ) -> Result<Cluster, Failure> {
        let channel = bobbin_service::connect(&target, token.as_deref())
            .await
            .map_err(|e| {
                Failure::new(
                    Kind::Unreachable,
                    format!("no resource manager was found: {}", sentence(&e)),
                )
                .try_this(
                    "`bobbin up --detach` starts a cluster here, `. DIR/env` points to one; \
                 --rm SOCKET or --rm HOST:PORT names another",
                )
            })?;
        Ok(Cluster { target, channel })
    }

    pub(crate) fn client(&self) -> Client {
        ClientClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn staging(&self) -> StagingClient<RpcChannel> {
        StagingClient::new(self.channel.clone())
    }

    /// Where this leads, for messages.
    pub(crate) fn place(&self) -> String {
        self.target.to_string()
    }

    pub(crate) fn failure(&self, status: &tonic::Status) -> Failure {
        Failure::from_status(status, &self.place())
    }

    /// The answer to a call that waits for nothing but the resource manager itself.
    ///
    /// # Errors
    /// Its refusal, or that it does not answer.
    pub(crate) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status)),
            Err(_) => Err(Failure::new(
                Kind::Unreachable,
                format!(
                    "the resource manager at {} has not answered for {} s",
                    self.place(),
                    ANSWER_TIMEOUT.as_secs()
                ),
            )),
        }
    }

    /// The report on an application; `id` may be whole, a unique suffix, or `@last`.
    ///
    /// # Errors
    /// There is none, or it may not be seen.
    pub(crate) async fn application(&self, id: &str) -> Result<v1::ApplicationReport, Failure> {
        let mut client = self.client();
        let request = v1::GetApplicationRequest {
            application_id: id.to_owned(),
        };
        self.answer(client.get_application(request))
            .await
            .map_err(|failure| about(failure, id))
    }

    /// The whole id of what `id` means.
    ///
    /// # Errors
    /// There is no such application.
    pub(crate) async fn whole_id(&self, id: &str) -> Result<String, Failure> {
        // A whole one needs no question: every call checks it again.
        match id.parse::<ApplicationId>() {
            Ok(whole) => Ok(whole.to_string()),
            Err(_) => Ok(self.application(id).await?.id),
        }
    }

    /// Every application that matches, newest first, at most `limit`.
    pub(crate) async fn applications(
        &self,
        mut wanted: v1::ListApplicationsRequest,
        limit: usize,
    ) -> Result<Vec<v1::ApplicationReport>, Failure> {
        let mut all = Vec::new();
        wanted.page_size = u32::try_from(limit)
            .unwrap_or(PAGE_SIZE)
            .clamp(1, PAGE_SIZE);
        loop {
            let mut client = self.client();
            let page = self
                .answer(client.list_applications(wanted.clone()))
                .await?;
            all.extend(page.applications);
            if page.next_page_token.is_empty() || all.len() >= limit {
                all.truncate(limit);
                return Ok(all);
            }
            wanted.page_token = page.next_page_token;
        }
    }

    /// Every container of an application that is known, ended ones included.
    pub(crate) async fn containers(&self, id: &str) -> Result<Vec<v1::ContainerStatus>, Failure> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListContainersRequest {
                application_id: id.to_owned(),
                page_size: PAGE_SIZE,
                page_token,
                usage: false,
            };
            let mut client = self.client();
            let page = self
                .answer(client.list_containers(request))
                .await
                .map_err(|failure| about(failure, id))?;
            all.extend(page.containers);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = page.next_page_token;
        }
    }

    /// As [`Cluster::containers`], with what those use that run; at most `MEASURED_MAX`.
    pub(crate) async fn measured_containers(
        &self,
        id: &str,
    ) -> Result<v1::ListContainersResponse, Failure> {
        let mut all = v1::ListContainersResponse::default();
        loop {
            let request = v1::ListContainersRequest {
                application_id: id.to_owned(),
                page_size: PAGE_SIZE,
                page_token: std::mem::take(&mut all.next_page_token),
                usage: true,
            };
            let mut client = self.client();
            let page = self
                .answer(client.list_containers(request))
                .await
                .map_err(|failure| about(failure, id))?;
            all.containers.extend(page.containers);
            all.usages.extend(page.usages);
            all.silent_nodes.extend(page.silent_nodes);
            all.silent_nodes.sort();
            all.silent_nodes.dedup();
            if page.next_page_token.is_empty() || all.containers.len() >= MEASURED_MAX {
                return Ok(all);
            }
            all.next_page_token = page.next_page_token;
        }
    }

    pub(crate) async fn nodes(&self) -> Result<Vec<v1::NodeReport>, Failure> {
        let mut client = self.client();
        Ok(self
            .answer(client.list_nodes(v1::ListNodesRequest {}))
            .await?
            .nodes)
    }
}

/// Names the thing and says how to find the right one, when the answer does not.
pub(crate) fn about(mut failure: Failure, id: impl Display) -> Failure {
    let id = id.to_string();
    if !failure.message.contains(&id) {
        failure = failure.context(&id);
    }
    if failure.kind == Kind::NotFound && failure.cure.is_none() {
        return failure.try_this("`bobbin app list` shows what there is");
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_slashes() {
        assert_eq!(
            parse_target("/run/x.sock"),
            Target::Unix("/run/x.sock".into())
        );
        assert_eq!(parse_target("./x.sock"), Target::Unix("./x.sock".into()));
        assert_eq!(parse_target("host:8034"), Target::Tcp("host:8034".into()));
    }

    #[test]
    fn the_id_is_named_once() {
        let failure = about(
            Failure::new(Kind::NotFound, "no such application"),
            "application_1_0001",
        );
        assert_eq!(failure.message, "application_1_0001: no such application");
        assert!(failure.cure.is_some());
        let again = about(failure.clone(), "application_1_0001");
        assert_eq!(again, failure);
    }

    #[tokio::test]
    async fn nobody_there() {
        let failure = Cluster::connect(Some("/nonexistent/rm.sock"))
            .await
            .unwrap_err();
        assert_eq!(failure.kind, Kind::Unreachable);
        assert!(
            failure.message.contains("/nonexistent/rm.sock"),
            "{failure}"
        );
    }
}
