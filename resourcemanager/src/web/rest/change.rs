//! What changes an application: state, queue, priority, timeout; signals to its containers.
//!
//! Source: `RMWebServices`, "Cluster Writeable APIs" of the documentation.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bobbin_rm_core::{ContainerSignal, Operation};
use bobbin_types::{ApplicationId, WallMillis};

use super::answer::answer;
use super::document::{Document, Element};
use super::problem::Problem;
use super::query::one_of;
use super::{Call, application, container_id, input};
use crate::yarn::client::submit::queue;
use crate::yarn::iso_time;

/// What the reason for a kill says if the caller gives none.
const KILLED: &str = "killed by the REST request of its user or an administrator";
const SIGNALS: [(&str, ContainerSignal); 3] = [
    ("OUTPUT_THREAD_DUMP", ContainerSignal::ThreadDump),
    ("GRACEFUL_SHUTDOWN", ContainerSignal::Graceful),
    ("FORCEFUL_SHUTDOWN", ContainerSignal::Forceful),
];

impl Call {
    async fn body(&self, body: Body, root: &'static str) -> Result<input::Input, Problem> {
        input::read(&self.parts.headers, body, root).await
    }

    /// Only a kill: 202 until everything of it has ended, 200 then.
    pub(super) async fn set_state(self, text: &str, body: Body) -> Result<Response, Problem> {
        let id = self.may_do(text, Operation::KillApplication).await?;
        let input = self.body(body, "appstate").await?;
        let wanted = input.text_of("state").unwrap_or_default().trim();
        let before = self.report(id).await?.state.as_yarn();
        if wanted != before.as_str() {
            if wanted != "KILLED" {
                let words = "Only 'KILLED' is allowed as a target state.".to_owned();
                return Err(Problem::BadRequest(words));
            }
            let reason = input.text_of("diagnostics").unwrap_or(KILLED).to_owned();
            self.kill(id, reason).await?;
        }
        let state = self.report(id).await?.state.as_yarn();
        let element = Element::new().with("state", state.as_str());
        let document = Document::bare("appstate", element);
        if state.is_ended() || wanted == before.as_str() {
            return Ok(answer(StatusCode::OK, &document, self.format));
        }
        let mut response = answer(StatusCode::ACCEPTED, &document, self.format);
        self.locate(&mut response, id);
        Ok(response)
    }

    async fn kill(&self, application: ApplicationId, reason: String) -> Result<(), Problem> {
        let driver = &self.web.driver;
        let number = driver.request_id();
        driver
            .kill(number, &self.principal, application, false, reason)
            .await?;
        Ok(())
    }

    /// Says where the application is found.
    pub(super) fn locate(&self, response: &mut Response, id: ApplicationId) {
        let url = format!("{}/ws/v1/cluster/apps/{id}", self.base());
        if let Ok(value) = HeaderValue::try_from(url) {
            response.headers_mut().insert(header::LOCATION, value);
        }
    }

    pub(super) async fn set_queue(self, text: &str, body: Body) -> Result<Response, Problem> {
        let application = self.may_do(text, Operation::MoveApplication).await?;
        let input = self.body(body, "appqueue").await?;
        let wanted = queue(input.text_of("queue").unwrap_or_default().trim()).to_owned();
        let moved = self
            .web
            .driver
            .move_to_queue(&self.principal, application, wanted);
        let queue = moved.await?;
        let document = Document::bare("appqueue", Element::new().with("queue", queue));
        Ok(answer(StatusCode::OK, &document, self.format))
    }

    pub(super) async fn set_priority(self, text: &str, body: Body) -> Result<Response, Problem> {
        let application = self.may_do(text, Operation::SetPriority).await?;
        let input = self.body(body, "applicationpriority").await?;
        let priority = input
            .parse("priority", "a whole number")?
            .ok_or_else(|| Problem::BadRequest("priority is missing".to_owned()))?;
        let set = self
            .web
            .driver
            .set_priority(&self.principal, application, priority);
        let priority = set.await?;
        let element = Element::new().with("priority", priority);
        let document = Document::bare("applicationpriority", element);
        Ok(answer(StatusCode::OK, &document, self.format))
    }

    pub(super) async fn set_timeout(self, text: &str, body: Body) -> Result<Response, Problem> {
        let application = self.may_do(text, Operation::SetTimeout).await?;
        let input = self.body(body, "timeout").await?;
        one_of(
            "timeout type",
            input.text_of("type").unwrap_or_default().trim(),
            &["LIFETIME"],
            |word| word,
        )?;
        let expires = expiry(input.text_of("expiryTime").unwrap_or_default().trim())?;
        self.web
            .driver
            .set_timeout(&self.principal, application, Some(expires))
            .await?;
        let timeout = self.report(application).await?.timeout;
        let element = application::timeout(timeout.as_ref());
        let document = Document::new("timeout", element);
        Ok(answer(StatusCode::OK, &document, self.format))
    }

    /// Source: `RMWebServices.signalToContainer`.
    pub(super) async fn signal(self, container: &str, command: &str) -> Result<Response, Problem> {
        let container = container_id(container)?;
        let application = container.application().to_string();
        self.may_do(&application, Operation::SignalContainer)
            .await?;
        let signal = one_of("command", command, &SIGNALS, |(name, _)| name)?.1;
        self.web
            .driver
            .signal(&self.principal, container, signal)
            .await?;
        let document = Document::bare("response", Element::new());
        Ok(answer(StatusCode::OK, &document, self.format))
    }
}

fn expiry(text: &str) -> Result<WallMillis, Problem> {
    iso_time::parse(text).map_err(|e| Problem::BadRequest(format!("expiryTime: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentations_expiry_times() {
        assert_eq!(
            expiry("2016-12-05T22:51:00.104+0530").unwrap(),
            WallMillis(1_480_958_460_104)
        );
        assert!(expiry("tomorrow").is_err() && expiry("").is_err());
    }
}
