//! `submitApplication`: an ApplicationSubmissionContext becomes the core's submission.
//!
//! The launch context goes on as the client wrote it, under YARN's contract: what depends on the node
//! (variables, expansion, the script) is the agent's. What cannot work is refused here or by the
//! core, before anything is on record.
//! Source: `ClientRMService.submitApplication`, `RMAppManager`, `RMServerUtils`.

use std::collections::{BTreeMap, BTreeSet};

use bobbin_hadoop::convert::{read_resource, required};
use bobbin_hadoop::credentials::{Credentials, Version};
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::proto::yarn;
use bobbin_hadoop::tokens::Identifier as _;
use bobbin_rm_core::{
    LaunchContext, LaunchContract, LocalResource, ResourceKind, Secret, Submission, Visibility,
};
use bobbin_types::Resource;
use bytes::Bytes;

use crate::yarn::exceptions::malformed;
use crate::yarn::report::KINDS;

/// Where the agent finds the Credentials stream. Source: `ContainerLaunch.FINAL_CONTAINER_TOKENS_FILE`.
pub(crate) const TOKENS_SECRET: &str = "container_tokens";
/// In the master's environment, `true`: its token to submit and kill as its user is passed on to it
/// and, by Spark, to every executor.
pub(crate) const KEEP_TOKEN: &str = "BOBBIN_KEEP_RM_TOKEN";
/// Source: `NameNode`'s default HTTP port, which a `webhdfs:` address without a port means.
const WEBHDFS_PORT: i32 = 9870;
/// Bytes of a name; a longer one is cut, as nobody is served by a refusal.
const NAME_BYTES_MAX: usize = bobbin_types::APPLICATION_NAME_BYTES_MAX;

fn refused(words: impl Into<String>) -> RpcException {
    RpcException::new(ExceptionClass::Yarn, words)
}

fn invalid_resource(words: impl Into<String>) -> RpcException {
    let words: String = words.into();
    let words = format!("Invalid resource request! {words}");
    RpcException::new(ExceptionClass::InvalidResourceRequest, words)
}

/// A text of the client's in a message: short and printable.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// The submission; `attempts_max` is the cluster's, which no application exceeds.
pub(crate) fn submission(
    context: yarn::ApplicationSubmissionContext,
    attempts_max: u32,
) -> Result<Submission, RpcException> {
    let id = context.application_id.as_ref().ok_or_else(|| {
        let words = "ApplicationId is not provided in ApplicationSubmissionContext; get one by \
                     getNewApplication";
        RpcException::new(ExceptionClass::ApplicationIdNotProvided, words)
    })?;
    if context.reservation_id.is_some() {
        return Err(RpcException::not_offered(
            "reservations",
            "submit without a reservation id",
        ));
    }
    let unmanaged = context.unmanaged_am();
    let ask = master_ask(&context)?;
    let spec = context.am_container_spec.as_ref();
    let (view_acl, modify_acl) = acls(spec);
    Ok(Submission {
        application: Some(id.try_into().map_err(malformed)?),
        name: name(context.application_name()),
        queue: queue(context.queue()).to_owned(),
        priority: context
            .priority
            .as_ref()
            .map_or(0, yarn::Priority::priority),
        unmanaged,
        // An unmanaged master is its submitter's process: nothing is launched, nothing is taken.
        resource: if unmanaged {
            Resource::default()
        } else {
            ask.resource()?
        },
        overhead: Resource::default(),
        max_attempts: max_attempts(context.max_app_attempts(), attempts_max),
        tags: tags(&context.application_tags),
        timeout_ms: timeout_ms(&context.application_timeouts)?,
        tie_to_client: false,
        application_type: context.application_type().to_owned(),
        settings: BTreeMap::new(),
        node_label: ask.node_label,
        keep_containers: context.keep_containers_across_application_attempts(),
        failures_validity_ms: u64::try_from(context.attempt_failures_validity_interval())
            .ok()
            .filter(|ms| *ms > 0),
        view_acl,
        modify_acl,
        launch: match context.am_container_spec {
            Some(spec) if !unmanaged => launch(spec)?,
            Some(_) | None => LaunchContext {
                contract: LaunchContract::Yarn,
                ..LaunchContext::default()
            },
        },
    })
}

/// People's text, made fit to be shown.
fn name(given: &str) -> String {
    let mut name: String = given
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    if name.trim().is_empty() {
        "N/A".clone_into(&mut name);
    }
    name
}

/// A queue by its name, also when it is written as a path: all queues are below the root.
pub(crate) fn queue(name: &str) -> &str {
    name.strip_prefix("root.").unwrap_or(name)
}

/// Source: `RMAppImpl`: what is asked for, but never more than the cluster's maximum.
fn max_attempts(asked: i32, attempts_max: u32) -> u32 {
    // 0 is the core's word for the cluster's own number.
    u32::try_from(asked).map_or(0, |asked| asked.min(attempts_max))
}

fn tags(given: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut tags = given.to_vec();
    tags.retain(|tag| seen.insert(tag.clone()));
    tags
}

/// Lifetimes are seconds on the wire.
fn timeout_ms(timeouts: &[yarn::ApplicationTimeoutMap]) -> Result<u64, RpcException> {
    let Some(given) = timeouts.last() else {
        return Ok(0);
    };
    match u64::try_from(given.timeout()) {
        Ok(seconds) if seconds > 0 => Ok(seconds.saturating_mul(1000)),
        Ok(_) | Err(_) => Err(refused(format!(
            "Invalid application timeout, value={} for type=LIFETIME: give seconds above zero",
            given.timeout()
        ))),
    }
}

fn acls(spec: Option<&yarn::ContainerLaunchContext>) -> (String, String) {
    let of = |wanted: yarn::ApplicationAccessType| {
        let entries = spec.map_or(&[][..], |spec| &spec.application_ac_ls);
        let entry = entries.iter().rfind(|e| e.access_type() == wanted);
        entry.map_or_else(String::new, |entry| entry.acl().to_owned())
    };
    (
        of(yarn::ApplicationAccessType::AppaccessViewApp),
        of(yarn::ApplicationAccessType::AppaccessModifyApp),
    )
}

/// What the master's container shall be.
struct MasterAsk {
    capability: Option<yarn::Resource>,
    node_label: String,
}

/// Either the plain resource or, where labels are asked for, requests: the one for anywhere counts.
fn master_ask(context: &yarn::ApplicationSubmissionContext) -> Result<MasterAsk, RpcException> {
    let requests = &context.am_container_resource_request;
    if requests.is_empty() {
        return Ok(MasterAsk {
            capability: context.resource.clone(),
            node_label: context.node_label_expression().trim().to_owned(),
        });
    }
    let anywhere = requests.iter().find(|r| r.resource_name() == "*");
    let Some(ask) = anywhere.or_else(|| requests.first()) else {
        return Err(invalid_resource("no resource request for the master"));
    };
    // YARN has one master; a count is not looked at, but a wrong one is somebody's mistake.
    if ask.num_containers() > 1 {
        return Err(invalid_resource(format!(
            "the master is one container, not {}",
            ask.num_containers()
        )));
    }
    let label = ask.node_label_expression().trim();
    let label = if label.is_empty() {
        context.node_label_expression().trim()
    } else {
        label
    };
    Ok(MasterAsk {
        capability: ask.capability.clone(),
        node_label: label.to_owned(),
    })
}

impl MasterAsk {
    fn resource(&self) -> Result<Resource, RpcException> {
        let capability = self.capability.as_ref().ok_or_else(|| {
            invalid_resource("no resource is requested for the master: set the context's resource")
        })?;
        let mut resource =
            read_resource(capability, KINDS).map_err(|e| invalid_resource(e.to_string()))?;
        // As YARN, which rounds up to its minimum.
        resource.vcores = resource.vcores.max(1);
        Ok(resource)
    }
}

fn launch(spec: yarn::ContainerLaunchContext) -> Result<LaunchContext, RpcException> {
    if spec
        .container_retry_context
        .is_some_and(|retry| retry.retry_policy() != yarn::ContainerRetryPolicy::NeverRetry)
    {
        return Err(RpcException::not_offered(
            "container_retry_context for a master",
            "set the number of attempts instead",
        ));
    }
    let environment: BTreeMap<String, String> = spec
        .environment
        .into_iter()
        .map(|pair| (pair.key.unwrap_or_default(), pair.value.unwrap_or_default()))
        .collect();
    let keep_token = environment.get(KEEP_TOKEN).map(String::as_str) == Some("true");
    let tokens = passed_on(spec.tokens.unwrap_or_default(), keep_token)?;
    Ok(LaunchContext {
        contract: LaunchContract::Yarn,
        argv: spec.command,
        environment,
        local_resources: spec
            .local_resources
            .into_iter()
            .map(local_resource)
            .collect::<Result<_, _>>()?,
        secrets: BTreeMap::from([(TOKENS_SECRET.to_owned(), Secret(tokens))]),
        service_data: spec
            .service_data
            .into_iter()
            .map(|pair| {
                let value = pair.value.unwrap_or_default();
                (pair.key.unwrap_or_default(), value.to_vec())
            })
            .collect(),
    })
}

/// The client's credentials without what the master must not have: another attempt's token, and,
/// unless it asks for it, the one that submits and kills as its user.
fn passed_on(stream: Bytes, keep_token: bool) -> Result<Vec<u8>, RpcException> {
    let mut credentials = Credentials::read(stream).map_err(|e| {
        let chain = anyhow::Error::new(e);
        refused(format!(
            "The tokens of the launch context cannot be used: {chain:#}"
        ))
    })?;
    credentials.remove_kind(yarn::AmrmTokenIdentifier::KIND);
    credentials.remove_kind(yarn::NmTokenIdentifier::KIND);
    if !keep_token {
        credentials.remove_kind(yarn::YarnDelegationTokenIdentifier::KIND);
    }
    Ok(credentials.write(Version::Writable).to_vec())
}

fn local_resource(entry: yarn::StringLocalResourceMap) -> Result<LocalResource, RpcException> {
    let name = entry.key.unwrap_or_default();
    let wire = required("local_resources.value", entry.value.as_ref()).map_err(malformed)?;
    let url = required("local_resources.resource", wire.resource.as_ref()).map_err(malformed)?;
    let kind = match wire.r#type() {
        yarn::LocalResourceType::Archive => ResourceKind::Archive,
        yarn::LocalResourceType::File => ResourceKind::File,
        yarn::LocalResourceType::Pattern => {
            return Err(refused(format!(
                "LocalResource '{}' has type PATTERN, which Bobbin does not offer: use ARCHIVE",
                shown(&name)
            )));
        }
    };
    let visibility = match wire.visibility {
        None => Visibility::Application,
        Some(_) => match wire.visibility() {
            yarn::LocalResourceVisibility::Public => Visibility::Public,
            yarn::LocalResourceVisibility::Private => Visibility::Private,
            yarn::LocalResourceVisibility::Application => Visibility::Application,
        },
    };
    let number = |field: &str, value: i64| {
        u64::try_from(value).map_err(|_| {
            refused(format!(
                "LocalResource '{}': its {field} is {value}, below zero",
                shown(&name)
            ))
        })
    };
    Ok(LocalResource {
        source: source(&name, url)?,
        size_bytes: number("size", wire.size())?,
        mtime_ms: number("timestamp", wire.timestamp())?,
        digest: None,
        kind,
        visibility,
        // YARN gives every localized file the right to be executed.
        executable: true,
        name,
    })
}

/// Where a resource comes from; the path is as the client has it, not encoded.
fn source(name: &str, url: &yarn::Url) -> Result<String, RpcException> {
    let file = url.file();
    if !file.starts_with('/') {
        return Err(refused(format!(
            "LocalResource '{}': '{}' is not an absolute path",
            shown(name),
            shown(file)
        )));
    }
    match url.scheme() {
        "" | "file" => Ok(format!("file:{file}")),
        "webhdfs" => {
            let port = match url.port() {
                port if port > 0 => port,
                _ => WEBHDFS_PORT,
            };
            Ok(format!("webhdfs://{}:{port}{file}", url.host()))
        }
        other => Err(refused(format!(
            "LocalResource '{}' is at {}: Bobbin's nodes fetch from webhdfs: and file: only; stage \
             there (fs.defaultFS, spark.yarn.stagingDir)",
            shown(name),
            shown(&format!("{other}://{}{file}", url.host()))
        ))),
    }
}

#[cfg(test)]
#[path = "submit_tests.rs"]
mod tests;
