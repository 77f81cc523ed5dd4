//! A cluster with a YARN application whose master has just been started.

use bobbin_hadoop::credentials::{Credentials, Version};
use bobbin_hadoop::proto::common::Token;
use bobbin_proto::v1;
use bytes::Bytes;

use super::{Agent, Daemon, RmClient, submission};

pub(crate) const NODE: &str = "h1:8041";

/// A cluster of one node, and an application whose YARN master has been started.
pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) client: RmClient,
    pub(crate) agent: Agent,
    pub(crate) application: String,
    pub(crate) master: String,
    pub(crate) launch: v1::LaunchContext,
}

impl Stage {
    pub(crate) async fn new() -> Stage {
        let daemon = Daemon::start();
        let mut client = daemon.client().await;
        let mut agent = Agent::attach(&daemon, &mut client, NODE).await;
        let mut request = submission("spark");
        let mut given = Credentials::default();
        given.add(Token {
            kind: "RM_DELEGATION_TOKEN".to_owned(),
            ..Token::default()
        });
        let launch = request.launch.as_mut().unwrap();
        launch.contract = v1::LaunchContract::Yarn.into();
        launch.secrets.insert(
            "container_tokens".to_owned(),
            given.write(Version::Writable).to_vec(),
        );
        let submitted = client.submit_application(request).await.unwrap();
        let (master, launch) = agent.started().await;
        Stage {
            application: submitted.into_inner().application_id,
            daemon,
            client,
            agent,
            master,
            launch,
        }
    }

    /// The AMRM token of the newest start.
    pub(crate) fn token(&self) -> Token {
        let stream = self.launch.secrets["container_tokens"].clone();
        let credentials = Credentials::read(Bytes::from(stream)).unwrap();
        assert_eq!(credentials.tokens.len(), 1, "{credentials:?}");
        credentials.of_kind("YARN_AM_RM_TOKEN").unwrap().clone()
    }
}
