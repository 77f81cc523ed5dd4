//! `/ws/v1/node`: the shapes of YARN's NodeManager REST.
//!
//! Source: the NodeManager REST documentation of Apache Hadoop 3.3, its data objects for order.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bobbin_na_core::{ContainerPhase, ContainerView, NodeAgent};
use bobbin_proto::v1;
use bobbin_service::http::answer::{accepted, answer};
use bobbin_service::http::document::{Document, Element, Format};
use bobbin_service::wall_now;
use bobbin_types::{ApplicationId, ContainerId, ExitStatus};

use super::caller::Caller;
use super::problem::Problem;
use super::{Web, container_id, moment};
use crate::question::ask;

/// Whose messages clients of Bobbin's Hadoop doors understand.
const HADOOP: &str = "3.3";

type Shared = State<Arc<Web>>;

/// Answers with a document, or with the problem in the same format.
fn respond(headers: &HeaderMap, made: Result<Document, Problem>) -> Response {
    let Some(format) = accepted(headers) else {
        return Problem::NotAcceptable.document(Format::Json);
    };
    match made {
        Ok(document) => answer(StatusCode::OK, &document, format),
        Err(problem) => problem.document(format),
    }
}

/// A container with what its log folder holds.
pub(super) struct Shown {
    pub(super) view: ContainerView,
    pub(super) files: Vec<v1::LogInfo>,
}

impl Web {
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&NodeAgent) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        ask(&self.driver, question).await.ok_or(Problem::Stopping)
    }

    /// The containers that the caller sees.
    pub(super) async fn views(&self, caller: &Caller) -> Result<Vec<ContainerView>, Problem> {
        let mut views: Vec<ContainerView> = self.ask(|core| core.containers().collect()).await?;
        views.retain(|view| caller.sees(&view.container, view.user.as_str()));
        Ok(views)
    }

    pub(super) async fn files_of(&self, views: Vec<ContainerView>) -> Result<Vec<Shown>, Problem> {
        let logs = self.node.logs.clone();
        let listing = move || -> Vec<Shown> {
            views
                .into_iter()
                .map(|view| {
                    let id = view.container;
                    // One whose folder cannot be read is shown without files.
                    let files = logs.list(&id.application(), Some(&id)).unwrap_or_default();
                    Shown { view, files }
                })
                .collect()
        };
        tokio::task::spawn_blocking(listing)
            .await
            .map_err(|_| Problem::Stopping)
    }

    fn container_element(&self, shown: &Shown) -> Element {
        let view = &shown.view;
        let exit = view.exit.as_ref();
        let link = format!(
            "http://{}/node/containerlogs/{}/{}",
            self.node.http_address, view.container, view.user
        );
        let names: Vec<String> = shown.files.iter().map(|f| f.file.clone()).collect();
        Element::new()
            .with("id", view.container.to_string())
            .with("state", state(view))
            .with("exitCode", exit.map_or(-1000, |e| e.exit_status.0))
            .with(
                "diagnostics",
                exit.map_or_else(String::new, |e| e.diagnostics.clone()),
            )
            .with("user", view.user.to_string())
            .with("totalMemoryNeededMB", view.resource.memory_mib)
            .with("totalVCoresNeeded", view.resource.vcores)
            .with("executionType", "GUARANTEED")
            .with("containerLogsLink", link)
            .with("nodeId", self.node.node_id.to_string())
            .with("containerLogFiles", names)
    }
}

/// Source: `ContainerState` of YARN's node manager.
pub(super) fn state(view: &ContainerView) -> &'static str {
    match view.phase {
        ContainerPhase::New => "NEW",
        ContainerPhase::Localizing => "LOCALIZING",
        ContainerPhase::Launching => "SCHEDULED",
        ContainerPhase::Running if view.stopping => "KILLING",
        ContainerPhase::Running => "RUNNING",
        ContainerPhase::Stopping => "KILLING",
        ContainerPhase::CleaningUp => "CONTAINER_RESOURCES_CLEANINGUP",
        ContainerPhase::Exited => match view.exit.as_ref().map(|e| e.exit_status) {
            Some(ExitStatus(0)) => "EXITED_WITH_SUCCESS",
            Some(_) | None => "EXITED_WITH_FAILURE",
        },
        ContainerPhase::Done => "DONE",
    }
}

/// GET /ws/v1/node and /ws/v1/node/info.
pub(super) async fn info(State(web): Shared, headers: HeaderMap) -> Response {
    let asked = web.ask(|core| (core.accounting().capacity(), core.problems().join("; ")));
    let made = asked.await.map(|(capacity, problems)| {
        let version = env!("CARGO_PKG_VERSION");
        let build = format!("{version} of Bobbin");
        let element = Element::new()
            .with("healthReport", problems.as_str())
            // Virtual memory is not limited; YARN's number for it without a ratio of its own.
            .with("totalVmemAllocatedContainersMB", capacity.memory_mib)
            .with("totalPmemAllocatedContainersMB", capacity.memory_mib)
            .with("totalVCoresAllocatedContainers", capacity.vcores)
            .with("vmemCheckEnabled", false)
            .with("pmemCheckEnabled", true)
            .with("lastNodeUpdateTime", wall_now().0)
            .with("nodeHealthy", problems.is_empty())
            .with("nodeManagerVersion", version)
            .with("nodeManagerBuildVersion", build.as_str())
            .with("nodeManagerVersionBuiltOn", "")
            .with("hadoopVersion", HADOOP)
            .with("hadoopBuildVersion", build.as_str())
            .with("hadoopVersionBuiltOn", "")
            .with("id", web.node.node_id.to_string())
            .with("nodeHostName", web.node.node_id.host())
            .with("nmStartupTime", web.started.0);
        Document::new("nodeInfo", element)
    });
    respond(&headers, made)
}

/// What the node has of one application.
struct Application {
    user: String,
    /// Source: `ApplicationState` of YARN's node manager.
    state: &'static str,
    containers: Vec<ContainerId>,
}

impl Web {
    async fn applications(
        &self,
        caller: &Caller,
    ) -> Result<BTreeMap<ApplicationId, Application>, Problem> {
        let views = self.views(caller).await?;
        let ids: Vec<ApplicationId> = views.iter().map(|v| v.container.application()).collect();
        let ended = move |core: &NodeAgent| -> Vec<bool> {
            ids.iter().map(|id| core.has_ended(id)).collect()
        };
        let ended = self.ask(ended).await?;
        let mut all: BTreeMap<ApplicationId, Application> = BTreeMap::new();
        for (view, ended) in views.iter().zip(ended) {
            let of = all
                .entry(view.container.application())
                .or_insert_with(|| Application {
                    user: view.user.to_string(),
                    state: if ended { "FINISHED" } else { "RUNNING" },
                    containers: Vec::new(),
                });
            if view.phase < ContainerPhase::Exited {
                of.containers.push(view.container);
                if ended {
                    of.state = "FINISHING_CONTAINERS_WAIT";
                }
            }
        }
        Ok(all)
    }
}

impl Application {
    fn element(&self, id: &ApplicationId) -> Element {
        let containers: Vec<String> = self.containers.iter().map(ToString::to_string).collect();
        Element::new()
            .with("id", id.to_string())
            .with("state", self.state)
            .with("user", self.user.as_str())
            .with("containerids", containers)
    }
}

/// GET /ws/v1/node/apps, with `state` and `user`.
pub(super) async fn applications(
    State(web): Shared,
    Extension(caller): Extension<Caller>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let made = async {
        let user = query.get("user");
        if user.is_some_and(String::is_empty) {
            let words = "Error: You must specify a non-empty string for the user";
            return Err(Problem::BadRequest(words.to_owned()));
        }
        let wanted = query.get("state").filter(|state| !state.is_empty());
        let known = [
            "NEW",
            "INITING",
            "RUNNING",
            "FINISHING_CONTAINERS_WAIT",
            "APPLICATION_RESOURCES_CLEANINGUP",
            "FINISHED",
        ];
        if wanted.is_some_and(|state| !known.contains(&state.as_str())) {
            let words = format!("the state of an application is one of {}", known.join(", "));
            return Err(Problem::BadRequest(words));
        }
        let all = web.applications(&caller).await?;
        let rows: Vec<Element> = all
            .iter()
            .filter(|(_, app)| user.is_none_or(|user| *user == app.user))
            .filter(|(_, app)| wanted.is_none_or(|state| state == app.state))
            .map(|(id, app)| app.element(id))
            .collect();
        Ok(Document::new("apps", Element::new().with("app", rows)))
    };
    respond(&headers, made.await)
}

/// GET /ws/v1/node/apps/{id}.
pub(super) async fn application(
    State(web): Shared,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let made = async {
        let shown: String = id.chars().filter(|c| !c.is_control()).take(80).collect();
        let wanted: ApplicationId = id
            .parse()
            .map_err(|_| Problem::BadRequest(format!("Invalid ApplicationId: {shown}")))?;
        let all = web.applications(&caller).await?;
        match all.get(&wanted) {
            Some(app) => Ok(Document::new("app", app.element(&wanted))),
            None => Err(Problem::NotFound(format!("app with id {shown} not found"))),
        }
    };
    respond(&headers, made.await)
}

/// GET /ws/v1/node/containers.
pub(super) async fn containers(
    State(web): Shared,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let made = async {
        let views = web.views(&caller).await?;
        let shown = web.files_of(views).await?;
        let rows: Vec<Element> = shown.iter().map(|s| web.container_element(s)).collect();
        Ok(Document::new(
            "containers",
            Element::new().with("container", rows),
        ))
    };
    respond(&headers, made.await)
}

/// GET /ws/v1/node/containers/{id}.
pub(super) async fn container(
    State(web): Shared,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let made = async {
        let wanted = container_id(&id)?;
        let view = web.ask(move |core| core.container(&wanted)).await?;
        // What is somebody else's is as if it were not here.
        let view = view
            .filter(|view| caller.sees(&wanted, view.user.as_str()))
            .ok_or_else(|| Problem::NotFound(format!("container with id, {wanted}, not found")))?;
        let shown = web.files_of(vec![view]).await?;
        let element = shown.first().map(|s| web.container_element(s));
        let element = element.ok_or(Problem::Stopping)?;
        Ok(Document::new("container", element))
    };
    respond(&headers, made.await)
}

/// GET /ws/v1/node/containers/{id}/logs, of ended containers too as long as their logs are kept.
///
/// Source: `NMContainerLogsInfo`, as `LogsCLI` reads it: numbers are texts there.
pub(super) async fn logs(
    State(web): Shared,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let made = async {
        let wanted = container_id(&id)?;
        let files = web.list_files(&caller, wanted).await?;
        let rows: Vec<Element> = files
            .iter()
            .map(|file| {
                Element::new()
                    .with("fileName", file.file.as_str())
                    .with("fileSize", file.size.to_string())
                    .with("lastModifiedTime", moment::written(file.mtime_ms))
            })
            .collect();
        let element = Element::new()
            .with("containerLogInfo", rows)
            .with("logAggregationType", "LOCAL")
            .with("containerId", wanted.to_string())
            .with("nodeId", web.node.node_id.to_string());
        Ok(Document::new("containerLogsInfo", element))
    };
    respond(&headers, made.await)
}

impl Web {
    /// The log files of a container that the caller may read, by their names.
    pub(super) async fn list_files(
        &self,
        caller: &Caller,
        id: ContainerId,
    ) -> Result<Vec<v1::LogInfo>, Problem> {
        self.authorize_logs(caller, id).await?;
        let logs = self.node.logs.clone();
        let listing = move || logs.list(&id.application(), Some(&id)).unwrap_or_default();
        let mut files = tokio::task::spawn_blocking(listing)
            .await
            .map_err(|_| Problem::Stopping)?;
        if files.is_empty() {
            let words = format!("No logs available for container {id}");
            return Err(Problem::NotFound(words));
        }
        files.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(files)
    }
}

/// GET /ws/v1/node/auxiliaryservices: there are none, in YARN's words for a node without a list.
pub(super) async fn auxiliary_services(headers: HeaderMap) -> Response {
    let words = "Auxiliary services manifest is not enabled";
    respond(&headers, Err(Problem::BadRequest(words.to_owned())))
}
