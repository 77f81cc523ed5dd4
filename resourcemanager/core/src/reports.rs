//! Answers to questions: fills the structs of [`crate::view`] from the state.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use bobbin_types::{
    ApplicationId, AttemptId, AttemptState, ContainerId, FinalStatus, NodeId, NodeState, Resource,
    UserName, WallMillis,
};

use crate::application::Application;
use crate::attempt::Attempt;
use crate::authority::{ApplicationRights, Object, Operation, Principal, may};
use crate::event::Ask;
use crate::limits::{PAGE_DEFAULT, PAGE_MAX};
use crate::manager::ResourceManager;
use crate::node::Node;
use crate::view::{
    ApplicationFilter, ApplicationReport, AttemptReport, ClusterReport, ContainerReport,
    MasterPlace, NodeReport, Page, TimeoutReport,
};
use crate::{Config, Refusal};

impl ResourceManager {
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the journal is read and doors may be open.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    #[must_use]
    pub fn cluster(&self) -> ClusterReport {
        ClusterReport {
            epoch: self.epoch,
            cluster_timestamp: self.cluster_timestamp,
            largest_container: self.largest_container(),
            nodes_running: self.index.len(),
            total: self.cluster_total,
            used: self.cluster_used,
            applications: self.applications.len(),
            applications_live: self.live_applications.len(),
            illegal_transitions: self.illegal_transitions,
        }
    }

    /// Reads a whole id, a unique end of one, or `@last` (the caller's newest).
    ///
    /// # Errors
    /// Unknown, or ambiguous.
    pub fn resolve(&self, principal: &Principal, text: &str) -> Result<ApplicationId, Refusal> {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
        if text == "@last" {
            return self.newest_of(principal);
        }
        if let Ok(id) = text.parse::<ApplicationId>() {
            let known = self.applications.contains_key(&id);
            return if known {
                Ok(id)
            } else {
                Err(Refusal::UnknownApplication(shown))
            };
        }
        // A suffix ends inside the number or further left; only what may be seen is matched.
        let mut matching = self.applications.iter().filter(|(id, application)| {
            !text.is_empty()
                && id.to_string().ends_with(text)
                && self.may_view(principal, application)
        });
        match (matching.next(), matching.next()) {
            (Some((id, _)), None) => Ok(*id),
            (None, _) => Err(Refusal::UnknownApplication(shown)),
            (Some((first, _)), Some((second, _))) => Err(Refusal::AmbiguousApplication {
                text: shown,
                first: *first,
                second: *second,
            }),
        }
    }

    fn newest_of(&self, principal: &Principal) -> Result<ApplicationId, Refusal> {
        let mine = |application: &Application| match principal {
            Principal::User { name, .. } => application.spec.user == *name,
            Principal::Attempt(attempt) => application.id() == attempt.application,
            Principal::Container(container) | Principal::Tenant(container) => {
                application.id() == container.application()
            }
            Principal::Node(_) => false,
        };
        self.applications
            .values()
            .rev()
            .find(|application| mine(application))
            .map(Application::id)
            .ok_or_else(|| Refusal::NoApplicationYet(principal.to_string()))
    }

    fn may_view(&self, principal: &Principal, application: &Application) -> bool {
        let object = Object::Application {
            id: application.id(),
            owner: &application.spec.user,
            acls: application.acls(),
        };
        may(principal, Operation::ViewApplication, &object).is_ok()
    }

    /// The owner, for the authority function; `None` when the application is unknown.
    #[must_use]
    pub fn owner(&self, application: ApplicationId) -> Option<&UserName> {
        self.applications
            .get(&application)
            .map(|application| &application.spec.user)
    }

    /// Owner and access lists, for the authority function; `None` when the application is unknown.
    #[must_use]
    pub fn rights(&self, application: ApplicationId) -> Option<ApplicationRights> {
        let application = self.applications.get(&application)?;
        let submission = &application.spec.submission;
        Some(ApplicationRights {
            id: application.id(),
            owner: application.spec.user.clone(),
            view_acl: submission.view_acl.clone(),
            modify_acl: submission.modify_acl.clone(),
        })
    }

    /// To whom an id was handed out that is not submitted yet: for uploads before a submission.
    #[must_use]
    pub fn issued_to(&self, application: ApplicationId) -> Option<&UserName> {
        self.ids.issued.get(&application)
    }

    /// With its attempts and, while it waits, the reason.
    #[must_use]
    pub fn application(&self, id: ApplicationId) -> Option<ApplicationReport> {
        let application = self.applications.get(&id)?;
        let mut report = self.application_report(application);
        let attempts = application.attempts.iter();
        report.attempts = attempts.map(|a| self.report_of_attempt(a)).collect();
        report.waiting = self.explain(application);
        Some(report)
    }

    /// Newest first, without attempts and reasons; only what `principal` may view.
    /// A page size of 0 is the default one.
    #[must_use]
    pub fn applications(
        &self,
        principal: &Principal,
        filter: &ApplicationFilter,
        page_size: usize,
        after: Option<ApplicationId>,
    ) -> Page<ApplicationReport, ApplicationId> {
        let below = after.map_or(Bound::Unbounded, Bound::Excluded);
        let matching = self
            .applications
            .range((Bound::Unbounded, below))
            .rev()
            .map(|(_, application)| application)
            .filter(|application| {
                is_wanted(filter, application) && self.may_view(principal, application)
            });
        page(
            matching,
            page_size,
            |application| application.id(),
            |application| self.application_report(application),
        )
    }

    fn application_report(&self, application: &Application) -> ApplicationReport {
        let submission = &application.spec.submission;
        let end = application.end.as_ref();
        // Said by its master already, while its container still runs.
        let finish = application
            .current()
            .and_then(|attempt| attempt.finish.as_ref());
        let said_final = finish.map(|finish| finish.final_status);
        let current = application.current();
        let (wanted, wanted_containers) = self.wanted(application);
        ApplicationReport {
            id: application.id(),
            name: submission.name.clone(),
            user: application.spec.user.clone(),
            queue: application.queue.clone(),
            state: application.state,
            final_status: end
                .map(|end| end.final_status)
                .or(said_final)
                .unwrap_or(FinalStatus::Undefined),
            exit_status: end
                .and_then(|end| end.exit_status)
                .or_else(|| finish.and_then(|finish| finish.exit_status)),
            diagnostics: end.map_or_else(String::new, |end| end.diagnostics.to_string()),
            submitted: application.spec.submitted,
            started: application.current().and_then(|attempt| attempt.started),
            finished: end.map(|end| end.wall),
            attempts: Vec::new(),
            application_type: submission.application_type.clone(),
            tags: submission.tags.clone(),
            priority: application.turn.priority.0,
            used: application.used,
            containers: application.live.len(),
            overhead: submission.overhead,
            waiting: String::new(),
            unmanaged: submission.unmanaged,
            progress_permille: application.progress_permille,
            tracking_url: current.map_or_else(String::new, Attempt::shown_url),
            host: current.map_or_else(String::new, |attempt| attempt.host.clone()),
            rpc_port: current.map_or(-1, |attempt| attempt.rpc_port),
            current_attempt: current.map(|attempt| attempt.id),
            current_attempt_state: current.map(|attempt| attempt.state),
            master: current.and_then(|attempt| self.master_place(attempt)),
            launched: application.attempts.iter().find_map(|a| a.started),
            used_seconds: application.used_seconds(self.now),
            wanted,
            wanted_containers,
            asks: asks(application),
            timeout: application.lifetime.map(|lifetime| TimeoutReport {
                expires: lifetime.expires,
                remaining_ms: lifetime.remaining_ms(self.wall),
            }),
            node_label: submission.node_label.clone(),
            view_acl: submission.view_acl.clone(),
            modify_acl: submission.modify_acl.clone(),
            keep_containers: submission.keep_containers,
            max_attempts: submission.max_attempts,
            contract: submission.launch.contract,
        }
    }

    fn master_place(&self, attempt: &Attempt) -> Option<MasterPlace> {
        let (container, node) = attempt.place.clone()?;
        Some(MasterPlace {
            container,
            node_http_address: self.addresses_of(&node).1,
            node,
        })
    }

    /// Asked for and not granted, its master's container included.
    pub(crate) fn wanted(&self, application: &Application) -> (Resource, u64) {
        let mut sum = Resource::default();
        let mut count = 0_u64;
        let waits = application
            .live_attempt()
            .is_some_and(|attempt| attempt.state == AttemptState::Scheduled);
        if waits {
            sum = application.spec.submission.resource;
            count = 1;
        }
        for (key, wanted) in &application.asks {
            sum = saturating_sum(&sum, &key.capability, wanted.count);
            count = count.saturating_add(u64::from(wanted.count));
        }
        (sum, count)
    }

    #[must_use]
    pub fn attempt_report(&self, attempt: AttemptId) -> Option<AttemptReport> {
        self.attempt(attempt).map(|a| self.report_of_attempt(a))
    }

    fn report_of_attempt(&self, attempt: &Attempt) -> AttemptReport {
        let place = self.master_place(attempt);
        AttemptReport {
            attempt: attempt.id,
            state: attempt.state,
            exit_status: attempt.exit_status,
            node: place.as_ref().map(|place| place.node.clone()),
            container: place.as_ref().map(|place| place.container),
            diagnostics: attempt.diagnostics.to_string(),
            started: attempt.started,
            finished: attempt.finished,
            host: attempt.host.clone(),
            rpc_port: attempt.rpc_port,
            tracking_url: attempt.shown_url(),
            node_http_address: place.map_or_else(String::new, |place| place.node_http_address),
            blacklist: attempt.blacklist.iter().cloned().collect(),
        }
    }

    /// Of one application, live ones and remembered ended ones, in the order of their ids.
    #[must_use]
    pub fn containers(
        &self,
        application: ApplicationId,
        page_size: usize,
        after: Option<ContainerId>,
    ) -> Page<ContainerReport, ContainerId> {
        self.some_containers(application, |_| true, page_size, after)
    }

    /// Those of one attempt.
    #[must_use]
    pub fn attempt_containers(
        &self,
        attempt: AttemptId,
        page_size: usize,
        after: Option<ContainerId>,
    ) -> Page<ContainerReport, ContainerId> {
        let of_it = |id: &ContainerId| id.attempt == attempt;
        self.some_containers(attempt.application, of_it, page_size, after)
    }

    fn some_containers(
        &self,
        application: ApplicationId,
        keep: impl Fn(&ContainerId) -> bool,
        page_size: usize,
        after: Option<ContainerId>,
    ) -> Page<ContainerReport, ContainerId> {
        let Some(application) = self.applications.get(&application) else {
            return Page {
                rows: Vec::new(),
                next: None,
            };
        };
        let mut ids: Vec<ContainerId> = application
            .live
            .iter()
            .chain(application.ended_containers.keys())
            .chain(
                application
                    .attempts
                    .iter()
                    .filter_map(|a| a.place.as_ref())
                    .map(|(id, _)| id),
            )
            .filter(|id| keep(id) && after.is_none_or(|after| **id > after))
            .copied()
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let known = ids.into_iter().filter_map(|id| self.container(id));
        page(known, page_size, |report| report.container, |report| report)
    }

    /// A container that lives, is remembered, or was a master's.
    #[must_use]
    pub fn container(&self, id: ContainerId) -> Option<ContainerReport> {
        if let Some(container) = self.containers.get(&id) {
            let node = self.nodes.get(&container.node)?;
            let stop = container.stop.as_ref();
            return Some(ContainerReport {
                container: id,
                node: node.id.clone(),
                node_grpc_address: node.grpc_address.clone(),
                node_http_address: node.http_address.clone(),
                state: container.state,
                resource: container.resource,
                exit_status: None,
                diagnostics: stop.map_or_else(
                    || self.fetching_of(&id).unwrap_or_default(),
                    |stop| stop.diagnostics.to_string(),
                ),
                is_master: container.is_master,
                priority: container.priority,
                created: Some(container.created),
                finished: None,
                version: container.version,
            });
        }
        let application = self.applications.get(&id.application())?;
        if let Some(ended) = application.ended_containers.get(&id) {
            let node = ended.node.clone()?;
            let (node_grpc_address, node_http_address) = self.addresses_of(&node);
            return Some(ContainerReport {
                container: id,
                node_grpc_address,
                node_http_address,
                node,
                state: ended.state,
                resource: ended.resource,
                exit_status: Some(ended.exit_status),
                diagnostics: ended.diagnostics.to_string(),
                is_master: ended.is_master,
                priority: ended.priority,
                created: ended.created,
                finished: Some(ended.finished),
                version: ended.version,
            });
        }
        // A master's that ended before a restart: its attempt remembers where.
        let attempt = application.attempts.iter().find(|attempt| {
            attempt
                .place
                .as_ref()
                .is_some_and(|(container, _)| *container == id)
        })?;
        let (_, node) = attempt.place.clone()?;
        let (node_grpc_address, node_http_address) = self.addresses_of(&node);
        Some(ContainerReport {
            container: id,
            node_grpc_address,
            node_http_address,
            node,
            state: bobbin_types::ContainerState::Completed,
            resource: application.spec.submission.resource,
            exit_status: attempt.exit_status,
            diagnostics: attempt.diagnostics.to_string(),
            is_master: true,
            priority: 0,
            created: attempt.started,
            finished: attempt.finished,
            version: 0,
        })
    }

    /// Of its gRPC and HTTP doors; empty if not known.
    fn addresses_of(&self, node: &NodeId) -> (String, String) {
        let key = self.node_keys.get(node);
        key.and_then(|key| self.nodes.get(key))
            .map(|node| (node.grpc_address.clone(), node.http_address.clone()))
            .unwrap_or_default()
    }

    /// The master's container of an attempt; of the newest one that has a container when `attempt`
    /// is 0.
    #[must_use]
    pub fn master_container(
        &self,
        application: ApplicationId,
        attempt: u32,
    ) -> Option<ContainerReport> {
        let application = self.applications.get(&application)?;
        let wanted = application
            .attempts
            .iter()
            .rev()
            .find(|a| a.place.is_some() && (attempt == 0 || a.id.attempt == attempt))?;
        let (container, _) = wanted.place.as_ref()?;
        self.container(*container)
    }

    /// The nodes that had containers of the application, as far as known.
    #[must_use]
    pub fn application_nodes(&self, application: ApplicationId) -> Vec<NodeReport> {
        let Some(application) = self.applications.get(&application) else {
            return Vec::new();
        };
        let nodes = application
            .nodes
            .iter()
            .filter_map(|key| self.nodes.get(key));
        nodes.map(node_report).collect()
    }

    /// All that have registered since the start, lost ones included, by name.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeReport> {
        let nodes = self
            .node_keys
            .values()
            .filter_map(|key| self.nodes.get(key));
        nodes
            .filter(|node| node.state != NodeState::New)
            .map(node_report)
            .collect()
    }

    /// Addresses of nodes' own services that have this port.
    #[must_use]
    pub fn node_doors(&self, port: u16) -> Vec<String> {
        let end = format!(":{port}");
        let nodes = self.nodes.values();
        let doors =
            nodes.flat_map(|node| [node.id.as_str(), &node.grpc_address, &node.http_address]);
        doors
            .filter(|door| door.ends_with(&end))
            .map(str::to_owned)
            .collect()
    }

    #[must_use]
    pub fn node(&self, node: &NodeId) -> Option<NodeReport> {
        self.nodes.get(self.node_keys.get(node)?).map(node_report)
    }

    /// Whether this attempt's token is still good: it is its application's live attempt.
    #[must_use]
    pub fn attempt_is_live(&self, attempt: AttemptId) -> bool {
        self.applications
            .get(&attempt.application)
            .and_then(Application::live_attempt)
            .is_some_and(|live| live.id == attempt)
    }
}

fn asks(application: &Application) -> Vec<Ask> {
    let asks = application.asks.iter();
    asks.map(|(key, wanted)| Ask {
        key: Arc::clone(key),
        count: wanted.count,
        relax_locality: wanted.relax_locality,
    })
    .collect()
}

/// Whether a list that is filtered so shows the application.
fn is_wanted(filter: &ApplicationFilter, application: &Application) -> bool {
    let submission = &application.spec.submission;
    let any_case = |wanted: &BTreeSet<String>, has: &str| {
        wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(has))
    };
    let within = |range: Option<(WallMillis, WallMillis)>, moment: Option<WallMillis>| {
        range.is_none_or(|(first, last)| moment.is_some_and(|at| first <= at && at <= last))
    };
    let end = application.end.as_ref();
    let final_status = end.map_or(FinalStatus::Undefined, |end| end.final_status);
    (filter.states.is_empty() || filter.states.contains(&application.state.as_yarn()))
        && (filter.users.is_empty() || filter.users.contains(&application.spec.user))
        && (filter.queues.is_empty() || filter.queues.contains(&application.queue))
        && (filter.types.is_empty() || any_case(&filter.types, &submission.application_type))
        && (filter.tags.is_empty() || submission.tags.iter().any(|t| any_case(&filter.tags, t)))
        && filter
            .name
            .as_ref()
            .is_none_or(|name| *name == submission.name)
        && filter
            .final_status
            .is_none_or(|wanted| wanted == final_status)
        && within(filter.submitted, Some(application.spec.submitted))
        && within(filter.finished, end.map(|end| end.wall))
}

/// `count` times `size` more than `sum`; what is larger than any number is the largest one.
pub(crate) fn saturating_sum(sum: &Resource, size: &Resource, count: u32) -> Resource {
    let more = |sum: u64, size: u64| sum.saturating_add(size.saturating_mul(u64::from(count)));
    let vcores = more(u64::from(sum.vcores), u64::from(size.vcores));
    let mut total = Resource::new(
        more(sum.memory_mib, size.memory_mib),
        u32::try_from(vcores).unwrap_or(u32::MAX),
    );
    for (i, units) in total.countable.iter_mut().enumerate() {
        *units = more(sum.countable[i], size.countable[i]);
    }
    total
}

pub(crate) fn node_report(node: &Node) -> NodeReport {
    NodeReport {
        id: node.id.clone(),
        state: node.state,
        connected: node.session.is_some(),
        total: node.total,
        used: node.used,
        reserved: node.reserved,
        containers: node.containers.len(),
        grpc_address: node.grpc_address.clone(),
        http_address: node.http_address.clone(),
        rack: crate::queue::DEFAULT_RACK.to_owned(),
        profile: node.profile.clone(),
        problems: node.problems.clone(),
        lacks: node.lacks.clone(),
        last_seen: node.last_seen,
        version: node.version.clone(),
        memory_used_mib: node.memory_used_mib,
        cpu_permille: node.cpu_permille,
    }
}

fn page<S, T, K>(
    rows: impl Iterator<Item = S>,
    page_size: usize,
    key: impl Fn(&S) -> K,
    report: impl Fn(S) -> T,
) -> Page<T, K> {
    let size = if page_size == 0 {
        PAGE_DEFAULT
    } else {
        page_size.min(PAGE_MAX)
    };
    let mut rows = rows.peekable();
    let mut page = Page {
        rows: Vec::new(),
        next: None,
    };
    while let Some(row) = rows.next() {
        if page.rows.len() + 1 == size && rows.peek().is_some() {
            page.next = Some(key(&row));
        }
        page.rows.push(report(row));
        if page.rows.len() == size {
            break;
        }
    }
    page
}
