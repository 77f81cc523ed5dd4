//! Whom an HTTP request comes from, as the authority function knows him.

use axum::http::request::Parts;
use bobbin_rm_core::Principal;
use bobbin_service::http::caller::{Origin, Unproven, bearer, socket_uid};
use bobbin_service::{TokenError, account_of_name, claimed_node};
use bobbin_types::{ContainerId, ContainerState, NodeId, UserName};

use super::browser;
use super::delegation;
use super::door::Web;
use crate::file_tree::Person;

const REMEDY: &str = "make a token with 'bobbin token create' on the resource manager's host and \
     send it as 'Authorization: Bearer <token>' or 'delegation=<token>'";

impl Web {
    /// Who sent this.
    ///
    /// # Errors
    /// Nobody is proven; the words say what would prove somebody.
    pub(super) async fn principal(
        &self,
        parts: &Parts,
        delegation: Option<&str>,
    ) -> Result<Principal, Unproven> {
        let proven = self.prove(parts, delegation).await;
        if let Err(unproven) = &proven {
            let origin = parts.extensions.get::<Origin>();
            tracing::info!(target: "audit", ?origin, result = %unproven, "refused");
        }
        proven
    }

    async fn prove(&self, parts: &Parts, delegation: Option<&str>) -> Result<Principal, Unproven> {
        if let Some(token) = bearer(&parts.headers)? {
            return self.doorkeeper.by_token(token).map_err(Unproven::Token);
        }
        if let Some(text) = delegation {
            let token = delegation::decode(text).ok_or(Unproven::Token(TokenError::Malformed))?;
            return self.doorkeeper.by_token(&token).map_err(Unproven::Token);
        }
        let uid = socket_uid(parts, REMEDY).await?;
        if let Some(problem) = browser::problem(parts) {
            return Err(Unproven::Nothing(format!("{problem}; {REMEDY}")));
        }
        self.doorkeeper.by_uid(uid).map_err(Unproven::Nothing)
    }

    /// The user of a container that lives on the node whose key signed the request's token: a
    /// node's key is good for nobody's files but its own containers'.
    pub(super) async fn tenant(
        &self,
        container: ContainerId,
        parts: &Parts,
        delegation: Option<&str>,
    ) -> Tenant {
        let token = match bearer(&parts.headers) {
            Ok(Some(token)) => Some(token.to_owned()),
            Ok(None) | Err(_) => delegation.and_then(delegation::decode),
        };
        let Some(node) = token
            .and_then(|token| claimed_node(&token))
            .and_then(|node| node.parse::<NodeId>().ok())
        else {
            return Tenant::Gone;
        };
        let asked = self.driver.read(move |core| {
            let Some(report) = core.container(container) else {
                // After a restart nobody knows what runs there until its agent is back.
                let is_back = core.node(&node).is_some_and(|n| n.connected);
                return if is_back {
                    Tenant::Gone
                } else {
                    Tenant::NotBack
                };
            };
            let lives = report.state != ContainerState::Completed && report.node == node;
            core.owner(container.application())
                .filter(|_| lives)
                .map_or(Tenant::Gone, |user| Tenant::User(user.clone()))
        });
        asked.await.unwrap_or(Tenant::NotBack)
    }
}

/// For whom a container reads files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tenant {
    User(UserName),
    /// It does not live on that node.
    Gone,
    /// Its node has not told yet what lives there.
    NotBack,
}

/// A user with the groups that the host gives him. Asks the name service: blocking.
pub(super) fn person(name: &str, administrator: bool) -> Person {
    let mut groups = Vec::new();
    // Who has no account here, only a token, is in the group of his own name.
    if let Ok(account) = account_of_name(name) {
        groups = account.group_names;
    }
    if groups.is_empty() {
        groups.push(name.to_owned());
    }
    Person {
        name: name.to_owned(),
        groups,
        administrator,
    }
}
