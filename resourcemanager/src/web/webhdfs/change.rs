//! Changes without data, and tokens.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bobbin_rm_core::{Object, Operation, Principal};
use bobbin_service::TokenError;
use bobbin_types::{NameError, UserName};
use serde_json::json;

use super::super::delegation;
use super::answer::json_answer;
use super::problem::Problem;
use super::{Call, decide};
use crate::file_tree::{Access, FilesError, TimesChange};

fn done(done: bool) -> Response {
    json_answer(&json!({"boolean": done}))
}

impl Call {
    pub(super) async fn make_folders(self) -> Result<Response, Problem> {
        let mode = self.query.mode("permission")?.unwrap_or(0o755);
        let made = self.files(move |f, who, path| f.make_folders(who, path, mode));
        made.await?;
        Ok(done(true))
    }

    pub(super) async fn rename(self) -> Result<Response, Problem> {
        let to = self.query.path("destination")?;
        let Some(options) = self.query.get("renameoptions") else {
            let renamed = self.files(move |f, who, path| f.rename(who, path, &to));
            return Ok(done(renamed.await?));
        };
        let overwrite = options
            .split(',')
            .any(|o| o.eq_ignore_ascii_case("OVERWRITE"));
        let renamed = self.files(move |f, who, path| f.rename_exactly(who, path, &to, overwrite));
        renamed.await?;
        Ok(done(true))
    }

    pub(super) async fn delete(self) -> Result<Response, Problem> {
        let recursive = self.query.flag("recursive", false)?;
        let deleted = self.files(move |f, who, path| f.delete(who, path, recursive));
        Ok(done(deleted.await?))
    }

    pub(super) async fn set_permission(self) -> Result<Response, Problem> {
        let mode = self.query.mode("permission")?.unwrap_or(0o755);
        let set = self.files(move |f, who, path| f.set_mode(who, path, mode));
        set.await?;
        Ok(StatusCode::OK.into_response())
    }

    pub(super) async fn set_owner(self) -> Result<Response, Problem> {
        let (owner, group) = (self.query.account("owner")?, self.query.account("group")?);
        if owner.is_none() && group.is_none() {
            return Err(Problem::Argument("owner or group is missing".to_owned()));
        }
        let set = self
            .files(move |f, who, path| f.set_owner(who, path, owner.as_deref(), group.as_deref()));
        set.await?;
        Ok(StatusCode::OK.into_response())
    }

    pub(super) async fn set_times(self) -> Result<Response, Problem> {
        let times = TimesChange {
            modified_ms: self.query.time("modificationtime")?,
            accessed_ms: self.query.time("accesstime")?,
        };
        let set = self.files(move |f, who, path| f.set_times(who, path, times));
        set.await?;
        Ok(StatusCode::OK.into_response())
    }

    /// There is one copy of everything, which is as many as can be had; folders have none.
    pub(super) async fn set_replication(self) -> Result<Response, Problem> {
        let entry = self.files(|f, who, path| {
            f.check_access(who, path, Access::WRITE)?;
            f.status(who, path)
        });
        Ok(done(!entry.await?.is_folder))
    }

    /// GETDELEGATIONTOKEN. Only a socket's owner gets one: a token does not make tokens.
    pub(super) fn make_token(&self) -> Result<Response, Problem> {
        if !self.by_socket {
            return Err(Problem::Files(FilesError::Denied(
                "a token is given to who is proven otherwise than by a token".to_owned(),
            )));
        }
        let name: UserName = self
            .person
            .name
            .parse()
            .map_err(|e: NameError| Problem::Argument(e.to_string()))?;
        let principal = Principal::User {
            name: name.clone(),
            administrator: self.person.administrator,
            groups: bobbin_rm_core::Groups::default(),
        };
        decide(&principal, Operation::CreateUserToken, &Object::User(&name))
            .map_err(Problem::NotAllowed)?;
        let (token, _) = self.web.minter.user(&name, 0);
        let text = delegation::encode(&token).unwrap_or(token);
        Ok(json_answer(&json!({"Token": {"urlString": text}})))
    }

    /// CANCELDELEGATIONTOKEN, by its owner or an administrator: from then on no door takes it.
    pub(super) async fn cancel_token(&self) -> Result<Response, Problem> {
        let text = self.query.get("token").unwrap_or_default();
        let token = delegation::decode(text).ok_or(Problem::Token(TokenError::Malformed))?;
        let expires = self.web.minter.user_expiry(&token);
        let expires = expires.map_err(Problem::Token)?;
        let owner = self.web.doorkeeper.by_token(&token);
        let Principal::User { name: owner, .. } = owner.map_err(Problem::Token)? else {
            return Err(Problem::Token(TokenError::WrongKind));
        };
        if owner.as_str() != self.person.name && !self.person.administrator {
            return Err(Problem::Files(FilesError::Denied(format!(
                "only {owner} and administrators cancel this token"
            ))));
        }
        let revoked = self.web.doorkeeper.revoked().clone();
        let canceling = move || revoked.cancel(token.as_bytes(), expires);
        match tokio::task::spawn_blocking(canceling).await {
            Ok(Ok(())) => Ok(StatusCode::OK.into_response()),
            Ok(Err(e)) => {
                let chain = anyhow::Error::new(e);
                tracing::error!(error = format!("{chain:#}"), "a token is not canceled");
                Err(Problem::Files(FilesError::Illegal(chain.to_string())))
            }
            Err(_) => Err(Problem::CutOff("the resource manager stops".to_owned())),
        }
    }

    /// RENEWDELEGATIONTOKEN says when the token ends: nothing makes it longer.
    pub(super) fn renew_token(&self) -> Result<Response, Problem> {
        let text = self.query.get("token").unwrap_or_default();
        let expires = delegation::decode(text)
            .ok_or(TokenError::Malformed)
            .and_then(|token| self.web.minter.user_expiry(&token))
            .map_err(Problem::Token)?;
        Ok(json_answer(&json!({"long": expires.0})))
    }
}
