//! New ids and submissions: the document of `POST apps` becomes the message that `submitApplication`
//! of the Hadoop door takes, and from there on both are one.
//!
//! Source: `ApplicationSubmissionContextInfo`, `RMWebAppUtil.createAppSubmissionContext`.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bobbin_hadoop::credentials::{Credentials, Secret, Version};
use bobbin_hadoop::proto::yarn;
use bobbin_hadoop::tokens::from_url_text;
use bobbin_rm_core::{Operation, Submission};
use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::answer::answer;
use super::document::{Document, Element};
use super::input::{self, Input};
use super::problem::Problem;
use super::query::{one_of, shown};
use super::resources::resource;
use super::{Call, application_id};
use crate::yarn::client::submit::submission;

const ROOT: &str = "application-submission-context";
/// Java's decoder takes both alphabets, and no padding as well.
const PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING);

impl Call {
    pub(super) async fn new_application(self) -> Result<Response, Problem> {
        self.may(Operation::NewApplication)?;
        let new = self.web.driver.new_application(&self.principal).await?;
        let largest = resource(&new.largest_container);
        let element = Element::new()
            .with("application-id", new.application.to_string())
            .with("maximum-resource-capability", largest);
        let document = Document::bare("NewApplication", element);
        Ok(answer(StatusCode::OK, &document, self.format))
    }

    pub(super) async fn submit(self, body: Body) -> Result<Response, Problem> {
        self.may(Operation::SubmitApplication)?;
        let input = input::read(&self.parts.headers, body, ROOT).await?;
        let attempts_max = self
            .web
            .driver
            .read(|core| core.config().max_attempts)
            .await?;
        let submission = read(&input, attempts_max)?;
        let submitted = self.web.driver.submit(&self.principal, submission);
        let (application, _) = submitted.await?;
        let mut response = StatusCode::ACCEPTED.into_response();
        self.locate(&mut response, application);
        Ok(response)
    }
}

/// The submission that the document describes.
fn read(input: &Input, attempts_max: u32) -> Result<Submission, Problem> {
    let context = context(input)?;
    submission(context, attempts_max).map_err(|e| Problem::BadRequest(e.to_string()))
}

fn context(input: &Input) -> Result<yarn::ApplicationSubmissionContext, Problem> {
    let id = input.text_of("application-id").unwrap_or_default();
    if id.is_empty() {
        let words =
            "application-id is missing: get one by POST /ws/v1/cluster/apps/new-application";
        return Err(Problem::BadRequest(words.to_owned()));
    }
    let number = "a whole number";
    let flag = "true or false";
    let capability = match input.child("resource") {
        None => None,
        Some(resource) => Some(yarn::Resource {
            memory: resource.parse("memory", number)?,
            virtual_cores: resource.parse("vCores", number)?,
            ..yarn::Resource::default()
        }),
    };
    let priority = input.parse("priority", number)?;
    let tags = input.child("application-tags");
    let text = |name: &str| input.text_of(name).map(str::to_owned);
    Ok(yarn::ApplicationSubmissionContext {
        application_id: Some(application_id(id)?.into()),
        application_name: text("application-name"),
        queue: text("queue"),
        priority: priority.map(|priority| yarn::Priority {
            priority: Some(priority),
        }),
        am_container_spec: match input.child("am-container-spec") {
            None => None,
            Some(spec) => Some(launch(spec)?),
        },
        unmanaged_am: input.parse("unmanaged-AM", flag)?,
        max_app_attempts: input.parse("max-app-attempts", number)?,
        resource: capability,
        application_type: text("application-type"),
        keep_containers_across_application_attempts: input
            .parse("keep-containers-across-application-attempts", flag)?,
        application_tags: tags.map_or_else(Vec::new, |tags| {
            tags.all("tag").map(|tag| tag.text().to_owned()).collect()
        }),
        attempt_failures_validity_interval: input
            .parse("attempt-failures-validity-interval", number)?,
        node_label_expression: text("app-node-label-expression"),
        application_timeouts: timeouts(input)?,
        // Not read: log-aggregation-context (nodes keep their logs), reservation-id (as YARN
        // without a reservation system), am-black-listing-requests (masters avoid failing nodes).
        ..yarn::ApplicationSubmissionContext::default()
    })
}

/// Source: `ApplicationSubmissionContextInfo.applicationTimeouts`, seconds.
fn timeouts(input: &Input) -> Result<Vec<yarn::ApplicationTimeoutMap>, Problem> {
    let entries = input.entries("application-timeouts")?;
    let lifetime = yarn::ApplicationTimeoutType::AppTimeoutLifetime;
    entries
        .into_iter()
        .map(|(kind, seconds)| {
            one_of("timeout type", kind, &["LIFETIME"], |word| word)?;
            let timeout = seconds.text().trim().parse().map_err(|_| {
                let words = format!("'{}' is no number of seconds", shown(seconds.text()));
                Problem::BadRequest(words)
            })?;
            Ok(yarn::ApplicationTimeoutMap {
                application_timeout_type: Some(lifetime.into()),
                timeout: Some(timeout),
            })
        })
        .collect()
}

fn launch(spec: &Input) -> Result<yarn::ContainerLaunchContext, Problem> {
    let pair = |(key, value): (&str, &Input)| yarn::StringStringMap {
        key: Some(key.to_owned()),
        value: Some(value.text().to_owned()),
    };
    let environment = spec.entries("environment")?;
    let commands = spec.child("commands");
    let resources = spec.entries("local-resources")?;
    let services = spec.entries("service-data")?;
    let acls = spec.entries("application-acls")?;
    Ok(yarn::ContainerLaunchContext {
        environment: environment.into_iter().map(pair).collect(),
        command: commands.map_or_else(Vec::new, |commands| {
            let all = commands.all("command");
            all.map(|command| command.text().to_owned()).collect()
        }),
        local_resources: resources
            .into_iter()
            .map(|(key, value)| {
                Ok(yarn::StringLocalResourceMap {
                    key: Some(key.to_owned()),
                    value: Some(local_resource(key, value)?),
                })
            })
            .collect::<Result<_, Problem>>()?,
        service_data: services
            .into_iter()
            .map(|(key, value)| {
                Ok(yarn::StringBytesMap {
                    key: Some(key.to_owned()),
                    value: Some(bytes("service-data", value.text())?),
                })
            })
            .collect::<Result<_, Problem>>()?,
        application_ac_ls: acls
            .into_iter()
            .map(|(key, value)| acl(key, value.text()))
            .collect::<Result<_, Problem>>()?,
        tokens: match spec.child("credentials") {
            None => None,
            Some(given) => Some(credentials(given)?.write(Version::Writable)),
        },
        ..yarn::ContainerLaunchContext::default()
    })
}

fn acl(access: &str, list: &str) -> Result<yarn::ApplicationAclMap, Problem> {
    let known = [
        ("VIEW_APP", yarn::ApplicationAccessType::AppaccessViewApp),
        (
            "MODIFY_APP",
            yarn::ApplicationAccessType::AppaccessModifyApp,
        ),
    ];
    let (_, access_type) = one_of("application-acls", access, &known, |(name, _)| name)?;
    // The documentation's own list has blanks behind its commas, where groups would begin.
    let list = list.replace(", ", ",");
    Ok(yarn::ApplicationAclMap {
        access_type: Some(access_type.into()),
        acl: Some(list),
    })
}

fn credentials(given: &Input) -> Result<Credentials, Problem> {
    let mut credentials = Credentials::default();
    for (alias, token) in given.entries("tokens")? {
        // The text holds a password: it is not said back.
        let token = from_url_text(token.text()).map_err(|e| {
            Problem::BadRequest(format!("credentials: token '{}': {e}", shown(alias)))
        })?;
        credentials.tokens.push((alias.to_owned(), token));
    }
    for (alias, secret) in given.entries("secrets")? {
        credentials.secrets.push(Secret {
            alias: alias.to_owned(),
            value: bytes("credentials: secrets", secret.text())?,
        });
    }
    Ok(credentials)
}

fn bytes(what: &str, text: &str) -> Result<Bytes, Problem> {
    let text = text.trim();
    let decoded = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text));
    decoded
        .map(Bytes::from)
        .map_err(|_| Problem::BadRequest(format!("{what}: a value is not base64")))
}

fn local_resource(name: &str, value: &Input) -> Result<yarn::LocalResource, Problem> {
    let kinds = [
        ("ARCHIVE", yarn::LocalResourceType::Archive),
        ("FILE", yarn::LocalResourceType::File),
        ("PATTERN", yarn::LocalResourceType::Pattern),
    ];
    let visibilities = [
        ("PUBLIC", yarn::LocalResourceVisibility::Public),
        ("PRIVATE", yarn::LocalResourceVisibility::Private),
        ("APPLICATION", yarn::LocalResourceVisibility::Application),
    ];
    let text = |name: &'static str, default: &'static str| {
        value.text_of(name).unwrap_or(default).trim().to_owned()
    };
    let (_, kind) = one_of("type", &text("type", "FILE"), &kinds, |(name, _)| name)?;
    let given = text("visibility", "APPLICATION");
    let (_, visibility) = one_of("visibility", &given, &visibilities, |(name, _)| name)?;
    Ok(yarn::LocalResource {
        resource: Some(url(name, &text("resource", ""))?),
        size: value.parse("size", "a whole number")?,
        timestamp: value.parse("timestamp", "a whole number")?,
        r#type: Some(kind.into()),
        visibility: Some(visibility.into()),
        ..yarn::LocalResource::default()
    })
}

/// A URI as YARN keeps it: the path is decoded. Source: `URL.fromURI`.
fn url(name: &str, text: &str) -> Result<yarn::Url, Problem> {
    let wrong = || {
        Problem::BadRequest(format!(
            "local-resources: '{}' of '{}' is no URI such as webhdfs://host:port/path",
            shown(text),
            shown(name)
        ))
    };
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest)) if !scheme.contains('/') => (scheme, rest),
        Some(_) | None => ("", text),
    };
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse::<u16>().map_err(|_| wrong())?.into())
        }
        Some(_) | None => (authority, -1),
    };
    let path = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| wrong())?;
    if !path.starts_with('/') || path.contains('\0') {
        return Err(wrong());
    }
    Ok(yarn::Url {
        scheme: Some(scheme.to_ascii_lowercase()),
        host: Some(host.to_owned()),
        port: Some(port),
        file: Some(path.into_owned()),
        ..yarn::Url::default()
    })
}

#[cfg(test)]
#[path = "submit_tests.rs"]
mod tests;
