//! The door of clients: ids, submissions with all their limits, kills, leases.

use std::collections::BTreeSet;
use std::sync::Arc;

use bobbin_types::{
    APPLICATION_NAME_BYTES_MAX, ARGUMENT_BYTES_MAX, ARGUMENTS_BYTES_MAX, ARGUMENTS_MAX,
    ATTEMPTS_MAX, ApplicationId, ApplicationState, ENVIRONMENT_BYTES_MAX, ENVIRONMENT_MAX,
    LOCAL_RESOURCES_MAX, Millis, NameError, Resource, SETTINGS_MAX, TAG_BYTES_MAX, TAGS_MAX,
    UserName, check_environment_name, check_text,
};

use crate::application::{Application, ApplicationInput};
use crate::authority::{Denied, Object, Operation, Principal, may};
use crate::event::{RequestId, SessionId, Submission};
use crate::launch::{LaunchContext, LaunchContract, LocalResource};
use crate::limits::{
    ISSUED_IDS_MAX, KILL_WAITERS_MAX, SECRETS_BYTES_MAX, SECRETS_MAX, SEQUENCE_BLOCK,
    SERVICE_DATA_BYTES_MAX, SERVICE_DATA_MAX, SETTINGS_BYTES_MAX, TEXT_BYTES_MAX, WORD_BYTES_MAX,
};
use crate::manager::ResourceManager;
use crate::master::{full, too_many};
use crate::record::{Record, SubmittedApplication};
use crate::{Effect, Refusal, Reply};

/// A request to end an application.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    pub(crate) principal: Principal,
    pub(crate) application: ApplicationId,
    pub(crate) wait: bool,
    pub(crate) reason: String,
}

impl ResourceManager {
    pub(crate) fn on_new_application(
        &mut self,
        request: RequestId,
        principal: &Principal,
        effects: &mut Vec<Effect>,
    ) {
        let result = self.new_application(principal, effects);
        effects.push(Effect::Reply { request, result });
    }

    fn new_application(
        &mut self,
        principal: &Principal,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        self.check_ready()?;
        may(principal, Operation::NewApplication, &Object::Cluster)?;
        let user = submitter(principal, Operation::NewApplication)?.clone();
        let application = self.next_id(effects)?;
        self.ids.issued.insert(application, user.clone());
        if self.ids.issued.len() > ISSUED_IDS_MAX {
            self.ids.issued.pop_first();
        }
        let largest_container = self.largest_container();
        Ok(Reply::NewApplication {
            application,
            largest_container,
            user,
        })
    }

    /// A fresh id, reserved in the journal so that it is never handed out again.
    fn next_id(&mut self, effects: &mut Vec<Effect>) -> Result<ApplicationId, Refusal> {
        let last = self.ids.last.checked_add(1).ok_or(Refusal::IdsExhausted)?;
        self.ids.last = last;
        if last > self.ids.reserved {
            self.ids.reserved = last.saturating_add(SEQUENCE_BLOCK - 1);
            effects.push(Effect::Persist(Record::SequenceReserved {
                sequence: self.ids.reserved,
                floor: self.ids.floor,
            }));
        }
        Ok(ApplicationId {
            cluster_timestamp: self.cluster_timestamp,
            sequence: last,
        })
    }

    pub(crate) fn on_submit(
        &mut self,
        now: Millis,
        request: RequestId,
        principal: &Principal,
        submission: Submission,
        effects: &mut Vec<Effect>,
    ) {
        let result = self.submit(now, principal, submission, effects);
        effects.push(Effect::Reply { request, result });
    }

    fn submit(
        &mut self,
        now: Millis,
        principal: &Principal,
        submission: Submission,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        self.check_ready()?;
        may(principal, Operation::SubmitApplication, &Object::Cluster)?;
        let user = submitter(principal, Operation::SubmitApplication)?.clone();
        if let Some(known) = submission
            .application
            .and_then(|id| self.applications.get(&id))
        {
            // Said again because the answer was lost: the first one counts.
            if known.spec.user == user {
                return Ok(submitted(known));
            }
            return Err(Refusal::IdOfAnother(known.id()));
        }
        if let Some(id) = submission.application {
            self.check_issued(id, &user)?;
        }
        let submission = self.checked_submission(submission)?;
        self.live_applications.check_room(&user, &submission)?;
        let id = match submission.application {
            Some(id) => id,
            None => self.next_id_by_record()?,
        };
        self.ids.issued.remove(&id);
        let spec = Arc::new(SubmittedApplication {
            application: id,
            user,
            submission: Submission {
                application: Some(id),
                ..submission
            },
            submitted: self.wall,
        });
        effects.push(Effect::Persist(Record::ApplicationSubmitted(Arc::clone(
            &spec,
        ))));
        self.insert_application(spec);
        self.step_application(id, ApplicationInput::Submitted, effects);
        self.step_application(id, ApplicationInput::Queued, effects);
        self.watch_application(now, id);
        self.start_attempt(now, id, effects);
        let application = self.applications.get(&id).expect("it was just inserted");
        Ok(submitted(application))
    }

    /// The record of the submission itself reserves the id.
    fn next_id_by_record(&mut self) -> Result<ApplicationId, Refusal> {
        let last = self.ids.last.checked_add(1).ok_or(Refusal::IdsExhausted)?;
        self.ids.last = last;
        self.ids.reserved = self.ids.reserved.max(last);
        Ok(ApplicationId {
            cluster_timestamp: self.cluster_timestamp,
            sequence: last,
        })
    }

    pub(crate) fn insert_application(&mut self, spec: Arc<SubmittedApplication>) {
        let id = spec.application;
        self.submissions += 1;
        self.live_applications.insert(&spec);
        self.ids.last = self.ids.last.max(id.sequence);
        self.ids.reserved = self.ids.reserved.max(id.sequence);
        self.applications
            .insert(id, Application::new(spec, self.submissions));
    }

    pub(crate) fn check_ready(&self) -> Result<(), Refusal> {
        if self.ready {
            Ok(())
        } else {
            Err(Refusal::Recovering)
        }
    }

    fn check_issued(&self, id: ApplicationId, user: &UserName) -> Result<(), Refusal> {
        if id.cluster_timestamp != self.cluster_timestamp
            || id.sequence == 0
            || id.sequence > self.ids.last
        {
            return Err(Refusal::IdNotIssued(id));
        }
        match self.ids.issued.get(&id) {
            Some(owner) if owner != user => Err(Refusal::IdOfAnother(id)),
            Some(_) => Ok(()),
            // Forgotten ones are never run again.
            None if id.sequence <= self.ids.floor => Err(Refusal::IdForgotten(id)),
            // Handed out before a restart, or among very many.
            None => Ok(()),
        }
    }

    /// Checks everything a client can send and fills in the defaults.
    fn checked_submission(&self, mut submission: Submission) -> Result<Submission, Refusal> {
        check_text(
            "application name",
            &submission.name,
            APPLICATION_NAME_BYTES_MAX,
        )?;
        if submission.queue.is_empty() {
            submission.queue = self.config.queues.first().cloned().unwrap_or_default();
        }
        self.check_queue_name(&submission.queue)?;
        // As in YARN: no interval is none.
        submission.failures_validity_ms = submission.failures_validity_ms.filter(|ms| *ms > 0);
        check_label(&submission.node_label)?;
        for acl in [&submission.view_acl, &submission.modify_acl] {
            check_acl(acl)?;
        }
        if submission.application_type.is_empty() {
            "BOBBIN".clone_into(&mut submission.application_type);
        }
        check_text(
            "application type",
            &submission.application_type,
            WORD_BYTES_MAX,
        )?;
        too_many("tags", submission.tags.len(), TAGS_MAX)?;
        for tag in &submission.tags {
            check_text("tag", tag, TAG_BYTES_MAX)?;
        }
        check_settings(&submission)?;
        if submission.max_attempts > ATTEMPTS_MAX {
            return Err(Refusal::TooMany {
                what: "attempts",
                number: u64::from(submission.max_attempts),
                max: u64::from(ATTEMPTS_MAX),
            });
        }
        let cluster_max = self.config.max_attempts.max(1);
        if submission.max_attempts == 0 {
            submission.max_attempts = cluster_max;
        }
        if submission.launch.contract == LaunchContract::Yarn {
            // Its master counts by the cluster's maximum, which its own settings name.
            submission.max_attempts = submission.max_attempts.min(cluster_max);
        }
        if submission.unmanaged {
            // Its process is not ours: it cannot be started again.
            submission.max_attempts = 1;
            if !submission.launch.argv.is_empty() {
                return Err(Refusal::UnmanagedWithProgram);
            }
        } else {
            check_launch(&submission.launch)?;
            self.check_size(&submission.resource)?;
        }
        Ok(submission)
    }

    /// Queues are the configuration's, all below the root as YARN names it.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn check_queue_name(&self, queue: &str) -> Result<(), Refusal> {
        if self.config.queues.iter().any(|known| known == queue) {
            return Ok(());
        }
        let shown = queue.chars().filter(|c| !c.is_control()).take(64);
        let (queue, known) = (shown.collect(), self.config.queues.join(", "));
        Err(Refusal::UnknownQueue { queue, known })
    }

    /// Whether a container of this size can ever be granted. Without any node nobody knows.
    pub(crate) fn check_size(&self, size: &Resource) -> Result<(), Refusal> {
        for (what, number) in [
            ("memory in MiB", size.memory_mib),
            ("vcores", u64::from(size.vcores)),
        ] {
            if number == 0 {
                return Err(Refusal::TooLittle {
                    what,
                    number,
                    min: 1,
                });
            }
        }
        if self.largest.len() > 0 && self.largest.first_fitting(size, None).is_none() {
            return Err(Refusal::LargerThanLargestNode {
                asked: Box::new(*size),
                largest: Box::new(self.largest_container()),
                nodes: self.largest.len(),
            });
        }
        Ok(())
    }

    pub(crate) fn on_kill(
        &mut self,
        now: Millis,
        request: RequestId,
        kill: &Kill,
        effects: &mut Vec<Effect>,
    ) {
        match self.kill(now, request, kill, effects) {
            Ok(None) => {}
            Ok(Some(reply)) => effects.push(Effect::Reply {
                request,
                result: Ok(reply),
            }),
            Err(refusal) => effects.push(Effect::Reply {
                request,
                result: Err(refusal),
            }),
        }
    }

    /// The reply, unless it comes later.
    fn kill(
        &mut self,
        now: Millis,
        request: RequestId,
        kill: &Kill,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<Reply>, Refusal> {
        self.check_ready()?;
        let id = kill.application;
        let application = self.application_of(&kill.principal, Operation::KillApplication, id)?;
        if !kill.reason.is_empty() {
            check_text("reason", &kill.reason, TEXT_BYTES_MAX)?;
        }
        let already_ended =
            application.state.is_ended() || application.state == ApplicationState::Finishing;
        if kill.wait {
            let number = application.kill_waiters.len() + 1;
            if number > KILL_WAITERS_MAX {
                let what = "waiting kill requests of an application";
                return Err(full(what, number, KILL_WAITERS_MAX));
            }
        }
        let all_gone = application.state.is_ended() && application.is_gone();
        let mut reason = format!("killed by {}", kill.principal);
        if !kill.reason.is_empty() {
            reason = format!("{reason}: {}", kill.reason);
        }
        if kill.wait && !all_gone {
            if let Some(application) = self.applications.get_mut(&id) {
                application.kill_waiters.push((request, already_ended));
            }
            self.kill_application(now, id, &reason, effects);
            return Ok(None);
        }
        self.kill_application(now, id, &reason, effects);
        Ok(Some(Reply::Killed {
            application: id,
            already_ended,
        }))
    }

    /// The application, if it is known and the principal may do this to it. Whoever may not view
    /// it learns only that it is another's.
    pub(crate) fn application_of(
        &self,
        principal: &Principal,
        operation: Operation,
        id: ApplicationId,
    ) -> Result<&Application, Refusal> {
        let application = self
            .applications
            .get(&id)
            .ok_or_else(|| Refusal::UnknownApplication(id.to_string()))?;
        may(
            principal,
            operation,
            &Object::Application {
                id,
                owner: &application.spec.user,
                acls: application.acls(),
            },
        )?;
        Ok(application)
    }

    pub(crate) fn on_lease_held(
        &mut self,
        request: RequestId,
        principal: &Principal,
        id: ApplicationId,
        session: SessionId,
        effects: &mut Vec<Effect>,
    ) {
        let lease_ms = self.config.client_lease_ms;
        let result = self
            .check_ready()
            .and_then(|()| {
                self.application_of(principal, Operation::HoldLease, id)
                    .map(|_| ())
            })
            .map(|()| Reply::LeaseHeld { lease_ms });
        if result.is_ok() {
            self.lease_held(id, session);
        }
        effects.push(Effect::Reply { request, result });
    }
}

fn submitted(application: &Application) -> Reply {
    let attempt = application
        .current()
        .filter(|_| application.spec.submission.unmanaged)
        .map(|attempt| attempt.id);
    Reply::Submitted {
        application: application.id(),
        attempt,
    }
}

/// Only people submit.
fn submitter(principal: &Principal, operation: Operation) -> Result<&UserName, Refusal> {
    match principal {
        Principal::User { name, .. } => Ok(name),
        Principal::Attempt(_)
        | Principal::Node(_)
        | Principal::Container(_)
        | Principal::Tenant(_) => Err(Refusal::Denied(Denied {
            principal: principal.clone(),
            operation,
            object: Object::Cluster.to_string(),
            rule: "only users",
        })),
    }
}

/// No node has a label yet.
fn check_label(label: &str) -> Result<(), Refusal> {
    if label.is_empty() {
        return Ok(());
    }
    check_text("node label", label, WORD_BYTES_MAX)?;
    Err(Refusal::UnknownLabel(label.to_owned()))
}

fn check_acl(acl: &str) -> Result<(), Refusal> {
    if acl.trim().is_empty() {
        return Ok(());
    }
    check_text("access list", acl, TEXT_BYTES_MAX)?;
    Ok(())
}

fn check_settings(submission: &Submission) -> Result<(), Refusal> {
    too_many("settings", submission.settings.len(), SETTINGS_MAX)?;
    let bytes = submission
        .settings
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    too_many("bytes of all settings", bytes, SETTINGS_BYTES_MAX)?;
    for key in submission.settings.keys() {
        check_text("name of a setting", key, WORD_BYTES_MAX)?;
    }
    Ok(())
}

fn check_launch(launch: &LaunchContext) -> Result<(), Refusal> {
    match launch.argv.first() {
        None => return Err(Refusal::NoProgram),
        Some(program) if program.is_empty() => return Err(Refusal::NoProgram),
        Some(_) => {}
    }
    too_many("arguments", launch.argv.len(), ARGUMENTS_MAX)?;
    too_many(
        "bytes of all arguments",
        launch.argv.iter().map(String::len).sum(),
        ARGUMENTS_BYTES_MAX,
    )?;
    for argument in &launch.argv {
        too_many("bytes of one argument", argument.len(), ARGUMENT_BYTES_MAX)?;
        no_nul("argument", argument)?;
    }
    too_many(
        "environment variables",
        launch.environment.len(),
        ENVIRONMENT_MAX,
    )?;
    let bytes = launch
        .environment
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    too_many("bytes of the environment", bytes, ENVIRONMENT_BYTES_MAX)?;
    for (name, value) in &launch.environment {
        check_environment_name(name)?;
        no_nul("value of an environment variable", value)?;
    }
    too_many("secrets", launch.secrets.len(), SECRETS_MAX)?;
    let bytes = launch.secrets.values().map(|secret| secret.0.len()).sum();
    too_many("bytes of all secrets", bytes, SECRETS_BYTES_MAX)?;
    for name in launch.secrets.keys() {
        check_component("name of a secret", name)?;
    }
    too_many("services", launch.service_data.len(), SERVICE_DATA_MAX)?;
    let bytes = launch.service_data.iter();
    let bytes = bytes.map(|(name, data)| name.len() + data.len()).sum();
    too_many("bytes of all service data", bytes, SERVICE_DATA_BYTES_MAX)?;
    for name in launch.service_data.keys() {
        check_text("name of a service", name, WORD_BYTES_MAX)?;
    }
    too_many(
        "files and archives",
        launch.local_resources.len(),
        LOCAL_RESOURCES_MAX,
    )?;
    let mut names = BTreeSet::new();
    for resource in &launch.local_resources {
        check_resource(launch.contract, resource)?;
        if !names.insert(&resource.name) {
            return Err(problem(
                "name of a file",
                format!("'{}' is given twice", resource.name),
            ));
        }
    }
    Ok(())
}

/// What sources start with; the agents judge the rest.
const SOURCES: [&str; 9] = [
    "bobbin:/", "file:/", "http://", "https://", "s3://", "s3a://", "gs://", "abfs://", "abfss://",
];

fn check_resource(contract: LaunchContract, resource: &LocalResource) -> Result<(), Refusal> {
    check_component("name of a file", &resource.name)?;
    check_text("source of a file", &resource.source, TEXT_BYTES_MAX)?;
    // WebHDFS has its proof among YARN's credentials.
    let webhdfs = match contract {
        LaunchContract::Bobbin => None,
        LaunchContract::Yarn => Some("webhdfs://"),
    };
    let start: String = (resource.source.chars().take(10))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let mut known = SOURCES.into_iter().chain(webhdfs);
    if !known.any(|scheme| start.starts_with(scheme)) {
        let known: Vec<_> = SOURCES.into_iter().chain(webhdfs).collect();
        let words = format!(
            "'{}' starts with none of {}",
            resource.source,
            known.join(" ")
        );
        return Err(problem("source of a file", words));
    }
    Ok(())
}

fn problem(what: &'static str, problem: String) -> Refusal {
    Refusal::Name(NameError { what, problem })
}

fn no_nul(what: &'static str, text: &str) -> Result<(), Refusal> {
    if text.contains('\0') {
        return Err(problem(what, "has a NUL character".to_owned()));
    }
    Ok(())
}

/// One component of a path: it becomes a file's name.
fn check_component(what: &'static str, name: &str) -> Result<(), Refusal> {
    check_text(what, name, WORD_BYTES_MAX)?;
    if name == "." || name == ".." || name.contains('/') {
        return Err(problem(
            what,
            format!("'{name}' is not one component of a path"),
        ));
    }
    Ok(())
}
