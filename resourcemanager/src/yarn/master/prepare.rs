//! What a YARN master's launch context is given before its node gets it: its own token, and what only
//! the resource manager knows.
//!
//! Source: `AMLauncher.setupTokens`, `AMLauncher.createAMContainerLaunchContext`.

use std::collections::BTreeMap;

use bobbin_hadoop::credentials::{Credentials, Version};
use bobbin_hadoop::proto::yarn::{AmrmTokenIdentifier, YarnDelegationTokenIdentifier};
use bobbin_hadoop::tokens::Identifier;
use bobbin_rm_core::{LaunchContext, SubmittedApplication};
use bobbin_types::AttemptId;
use bytes::Bytes;

use crate::minter::Minter;
use crate::yarn::client::submit::KEEP_TOKEN;

/// The secret that holds a launch context's Credentials stream.
pub(crate) const CREDENTIALS: &str = "container_tokens";

/// The secrets of the container of `attempt`'s master: the submitter's tokens, without those that
/// speak for him at the resource manager (unless [`KEEP_TOKEN`] asks for them), and the attempt's own. `scheduler` is the door that the
/// master calls.
pub(crate) fn secrets(
    minter: &Minter,
    attempt: AttemptId,
    launch: &LaunchContext,
    scheduler: &str,
) -> BTreeMap<String, Vec<u8>> {
    let given = launch.secrets.get(CREDENTIALS);
    let given = given.map(|secret| Bytes::copy_from_slice(&secret.0));
    // The submission was refused if they cannot be read.
    let mut credentials = Credentials::read(given.unwrap_or_default()).unwrap_or_else(|error| {
        tracing::warn!(%attempt, "its tokens cannot be read and are left out: {error}");
        Credentials::default()
    });
    if launch.environment.get(KEEP_TOKEN).map(String::as_str) != Some("true") {
        // Whatever runs in the application could submit and kill as its user.
        credentials.remove_kind(YarnDelegationTokenIdentifier::KIND);
    }
    // Of the submitter's own application, when one application submits another.
    credentials.remove_kind(AmrmTokenIdentifier::KIND);
    let mut token = minter.amrm_token(attempt);
    scheduler.clone_into(&mut token.service);
    credentials.add(token);
    let stream = credentials.write(Version::Writable).to_vec();
    BTreeMap::from([(CREDENTIALS.to_owned(), stream)])
}

/// The launch context with the variables that every YARN master finds.
pub(crate) fn with_environment(application: &SubmittedApplication) -> LaunchContext {
    let submission = &application.submission;
    let mut launch = submission.launch.clone();
    let mut set = |name: &str, value: String| launch.environment.insert(name.to_owned(), value);
    set(
        "APPLICATION_WEB_PROXY_BASE",
        format!("/proxy/{}", application.application),
    );
    set("MAX_APP_ATTEMPTS", submission.max_attempts.to_string());
    set("APP_SUBMIT_TIME_ENV", application.submitted.0.to_string());
    launch
}

#[cfg(test)]
mod tests {
    use bobbin_hadoop::proto::common::Token;
    use bobbin_rm_core::Secret;
    use bobbin_service::SecretKey;

    use super::*;
    use crate::config::Tokens;

    fn minter() -> Minter {
        Minter::new(SecretKey::from_bytes(&[5; 32]).unwrap(), Tokens::default())
    }

    fn token(kind: &str) -> Token {
        Token {
            identifier: Bytes::from_static(b"who"),
            password: Bytes::from_static(b"secret"),
            kind: kind.to_owned(),
            service: format!("of {kind}"),
        }
    }

    fn prepared(stream: Option<Vec<u8>>) -> Credentials {
        let secrets_of = stream.map(|stream| (CREDENTIALS.to_owned(), Secret(stream)));
        of(&LaunchContext {
            secrets: secrets_of.into_iter().collect(),
            ..LaunchContext::default()
        })
    }

    fn of(launch: &LaunchContext) -> Credentials {
        let attempt = "appattempt_1_0003_000002".parse().unwrap();
        let mut secrets = secrets(&minter(), attempt, launch, "127.0.0.1:8030");
        let stream = secrets.remove(CREDENTIALS).unwrap();
        assert!(secrets.is_empty());
        Credentials::read(stream.into()).unwrap()
    }

    #[test]
    fn a_master_gets_its_token_and_keeps_what_is_not_the_submitters_at_the_resource_manager() {
        let mut given = Credentials::default();
        for kind in [
            "RM_DELEGATION_TOKEN",
            "YARN_AM_RM_TOKEN",
            "WEBHDFS delegation",
        ] {
            given.add(token(kind));
        }
        given.secrets.push(bobbin_hadoop::credentials::Secret {
            alias: "sparkCookie".to_owned(),
            value: Bytes::from_static(b"cookie"),
        });
        for version in [Version::Writable, Version::Protobuf] {
            let found = prepared(Some(given.write(version).to_vec()));
            let kinds: Vec<&str> = found.tokens.iter().map(|(_, t)| t.kind.as_str()).collect();
            assert_eq!(kinds, ["WEBHDFS delegation", "YARN_AM_RM_TOKEN"]);
            assert_eq!(found.secrets, given.secrets);
            let own = found.of_kind("YARN_AM_RM_TOKEN").unwrap();
            assert_eq!(own.service, "127.0.0.1:8030");
            let said: AmrmTokenIdentifier = minter().hadoop_keys().verify(own).unwrap();
            let attempt = said.app_attempt_id.unwrap();
            assert_eq!(attempt.attempt_id(), 2);
        }
    }

    #[test]
    fn without_credentials_there_is_the_masters_own_token() {
        for stream in [None, Some(Vec::new()), Some(b"HDTS\0\0\0".to_vec())] {
            assert_eq!(prepared(stream).tokens.len(), 1);
        }
    }

    #[test]
    fn an_application_that_submits_others_keeps_the_token() {
        let mut given = Credentials::default();
        given.add(token("RM_DELEGATION_TOKEN"));
        let stream = given.write(Version::Writable).to_vec();
        let mut launch = LaunchContext::default();
        launch
            .secrets
            .insert(CREDENTIALS.to_owned(), Secret(stream));
        launch
            .environment
            .insert(KEEP_TOKEN.to_owned(), "true".to_owned());
        assert!(of(&launch).of_kind("RM_DELEGATION_TOKEN").is_some());
    }

    #[test]
    fn what_cannot_be_read_does_not_keep_a_master_from_its_token() {
        assert_eq!(prepared(Some(b"no credentials".to_vec())).tokens.len(), 1);
    }
}
