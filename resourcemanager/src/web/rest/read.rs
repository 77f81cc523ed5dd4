//! What only reads, but for the list of applications.

use axum::http::StatusCode;
use axum::response::Response;
use bobbin_rm_core::view::TimeoutReport;
use bobbin_rm_core::{Operation, may};
use bobbin_service::wall_now;
use bobbin_types::{NodeId, NodeState};

use super::answer::answer;
use super::document::{Document, Element, ListWriter};
use super::problem::Problem;
use super::query::{one_of, shown};
use super::{Call, application, attempt_id, cluster, container_id, parts};

/// Containers read at once: a page is one question to the driver.
const CONTAINERS_PAGE: usize = 1_000;

impl Call {
    fn ok(&self, document: &Document) -> Response {
        answer(StatusCode::OK, document, self.format)
    }

    pub(super) async fn info(self) -> Result<Response, Problem> {
        self.may(Operation::ViewCluster)?;
        let report = self.web.driver.read(|core| core.cluster()).await?;
        let element = cluster::info(&report, self.web.started_ms);
        Ok(self.ok(&Document::new("clusterInfo", element)))
    }

    pub(super) async fn metrics(self) -> Result<Response, Problem> {
        self.may(Operation::ViewCluster)?;
        let metrics = self.web.driver.read(|core| core.metrics()).await?;
        let element = cluster::metrics(&metrics);
        Ok(self.ok(&Document::new("clusterMetrics", element)))
    }

    pub(super) async fn scheduler(self) -> Result<Response, Problem> {
        self.may(Operation::ViewCluster)?;
        let asked = self.web.driver.read(|core| {
            let largest = core.cluster().largest_container;
            (core.queues(), core.metrics(), largest)
        });
        let (queues, metrics, largest) = asked.await?;
        let element = cluster::scheduler(&queues, &metrics, &largest);
        Ok(self.ok(&Document::new("scheduler", element)))
    }

    /// Source: `ClusterUserInfo`.
    pub(super) fn user_info(self) -> Result<Response, Problem> {
        self.may(Operation::ViewCluster)?;
        let login = bobbin_service::account_of_uid(bobbin_service::own_uid())
            .map_or_else(|_| String::new(), |account| account.name);
        let asked = match &self.principal {
            bobbin_rm_core::Principal::User { name, .. } => name.to_string(),
            other @ (bobbin_rm_core::Principal::Attempt(_)
            | bobbin_rm_core::Principal::Node(_)
            | bobbin_rm_core::Principal::Container(_)
            | bobbin_rm_core::Principal::Tenant(_)) => other.to_string(),
        };
        let element = Element::new()
            .with("rmLoginUser", login)
            .with("requestedUser", asked);
        Ok(self.ok(&Document::new("clusterUserInfo", element)))
    }

    pub(super) async fn nodes(self) -> Result<Response, Problem> {
        self.may(Operation::ViewNodes)?;
        // `state` and `healthy` are of the first releases, and still in the documentation.
        let mut states = self
            .query
            .known("states", NodeState::ALL, NodeState::as_str)?;
        states.extend(
            self.query
                .known("state", NodeState::ALL, NodeState::as_str)?,
        );
        let healthy = match self.query.get("healthy") {
            None => None,
            Some(text) => Some(one_of("healthy", text, &[true, false], |flag| {
                if flag { "true" } else { "false" }
            })?),
        };
        let nodes = self.web.driver.read(|core| core.nodes()).await?;
        let mut writer = ListWriter::new(self.format, "nodes", "node");
        let mut text = String::new();
        for node in &nodes {
            let wanted = (states.is_empty() || states.contains(&node.state))
                && healthy.is_none_or(|flag| flag == (node.state == NodeState::Running));
            if wanted {
                writer.push(&mut text, &parts::node(node));
            }
        }
        writer.finish(&mut text);
        Ok(self.text(text))
    }

    pub(super) async fn node(self, id: &str) -> Result<Response, Problem> {
        self.may(Operation::ViewNodes)?;
        let missing = || Problem::NotFound(format!("nodeId, {}, is not found", shown(id)));
        let node: NodeId = id.parse().map_err(|e: bobbin_types::IdError| {
            Problem::BadRequest(format!("Invalid NodeId: {e}"))
        })?;
        let report = self.web.driver.read(move |core| core.node(&node)).await?;
        let element = parts::node(&report.ok_or_else(missing)?);
        Ok(self.ok(&Document::new("node", element)))
    }

    /// Whoever may not view it sees what YARN shows to everybody.
    pub(super) async fn application(self, text: &str) -> Result<Response, Problem> {
        self.may(Operation::ViewCluster)?;
        let id = super::application_id(text)?;
        let frame = self.frame().await?;
        let rights = self.web.driver.read(move |core| core.rights(id)).await?;
        let rights = rights.ok_or_else(|| super::unknown_application(text))?;
        let may_view = may(
            &self.principal,
            Operation::ViewApplication,
            &rights.object(),
        )
        .is_ok();
        let report = self.report(id).await?;
        let element = application::application(&report, may_view, &frame);
        Ok(self.ok(&Document::new("app", element)))
    }

    pub(super) async fn state(self, application: &str) -> Result<Response, Problem> {
        let id = self.may_do(application, Operation::ViewApplication).await?;
        let report = self.report(id).await?;
        let element = Element::new().with("state", report.state.as_yarn().as_str());
        Ok(self.ok(&Document::bare("appstate", element)))
    }

    pub(super) async fn queue(self, application: &str) -> Result<Response, Problem> {
        let id = self.may_do(application, Operation::ViewApplication).await?;
        let element = Element::new().with("queue", self.report(id).await?.queue);
        Ok(self.ok(&Document::bare("appqueue", element)))
    }

    pub(super) async fn priority(self, application: &str) -> Result<Response, Problem> {
        let id = self.may_do(application, Operation::ViewApplication).await?;
        let element = Element::new().with("priority", self.report(id).await?.priority);
        Ok(self.ok(&Document::bare("applicationpriority", element)))
    }

    async fn lifetime(&self, application: &str) -> Result<Option<TimeoutReport>, Problem> {
        let id = self.may_do(application, Operation::ViewApplication).await?;
        Ok(self.report(id).await?.timeout)
    }

    pub(super) async fn timeouts(self, application: &str) -> Result<Response, Problem> {
        let timeout = self.lifetime(application).await?;
        let element = application::timeouts(timeout.as_ref());
        Ok(self.ok(&Document::new("timeouts", element)))
    }

    pub(super) async fn timeout(self, application: &str, kind: &str) -> Result<Response, Problem> {
        one_of("timeout type", kind, &["LIFETIME"], |word| word)?;
        let timeout = self.lifetime(application).await?;
        let element = application::timeout(timeout.as_ref());
        Ok(self.ok(&Document::new("timeout", element)))
    }

    pub(super) async fn attempts(self, application: &str) -> Result<Response, Problem> {
        let id = self.may_do(application, Operation::ViewApplication).await?;
        let report = self.report(id).await?;
        let mut writer = ListWriter::new(self.format, "appAttempts", "appAttempt");
        let mut text = String::new();
        for attempt in &report.attempts {
            writer.push(
                &mut text,
                &parts::attempt_row(attempt, report.user.as_str()),
            );
        }
        writer.finish(&mut text);
        Ok(self.text(text))
    }

    pub(super) async fn attempt(
        self,
        application: &str,
        attempt: &str,
    ) -> Result<Response, Problem> {
        let id = self.may_do(application, Operation::ViewApplication).await?;
        let attempt = attempt_id(id, attempt)?;
        let report = self.report(id).await?;
        let found = report.attempts.iter().find(|a| a.attempt == attempt);
        let found = found.ok_or_else(|| Problem::NotFound(format!("{attempt} is not found")))?;
        let element = parts::attempt(found, &report, &self.base());
        Ok(self.ok(&Document::new("appAttempt", element)))
    }

    pub(super) async fn containers(
        self,
        application: &str,
        attempt: &str,
    ) -> Result<Response, Problem> {
        let id = self.may_do(application, Operation::ViewApplication).await?;
        let attempt = attempt_id(id, attempt)?;
        let user = self.report(id).await?.user;
        let mut writer = ListWriter::new(self.format, "containers", "container");
        let mut text = String::new();
        let mut after = None;
        loop {
            let asked = self
                .web
                .driver
                .read(move |core| core.attempt_containers(attempt, CONTAINERS_PAGE, after));
            let page = asked.await?;
            for report in &page.rows {
                let row = parts::container(report, user.as_str(), wall_now());
                writer.push(&mut text, &row);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        writer.finish(&mut text);
        Ok(self.text(text))
    }

    pub(super) async fn container(
        self,
        application: &str,
        attempt: &str,
        container: &str,
    ) -> Result<Response, Problem> {
        let id = self.may_do(application, Operation::ViewApplication).await?;
        let attempt = attempt_id(id, attempt)?;
        let container = container_id(container)?;
        let missing = || Problem::NotFound(format!("{container} is not found"));
        if container.attempt != attempt {
            return Err(missing());
        }
        let asked = self.web.driver.read(move |core| core.container(container));
        let report = asked.await?.ok_or_else(missing)?;
        let user = self.report(id).await?.user;
        let element = parts::container(&report, user.as_str(), wall_now());
        Ok(self.ok(&Document::new("container", element)))
    }
}
