//! What a master asks for, read from the wire and checked before the core hears of it.

use bobbin_hadoop::convert::{FieldError, read_resource, required, write_resource};
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::proto::yarn;
use bobbin_rm_core::limits::{
    BLACKLIST_MAX, CONTAINERS_PER_MESSAGE_MAX, TEXT_BYTES_MAX, UPDATES_PER_MESSAGE_MAX,
    WORD_BYTES_MAX,
};
use bobbin_rm_core::{ContainerUpdate, Finish, MasterRegistration, UpdateKind};
use bobbin_types::{
    ASKS_PER_APPLICATION_MAX, AttemptId, CONTAINERS_PER_ASK_MAX, ContainerId, FinalStatus, Resource,
};

use super::asks::{ANY, DEFAULT_RACK, StatedAsk};

/// Bytes of a farewell's diagnostics; the rest is cut.
/// Source: `yarn.app.attempt.diagnostics.limit.kc`, 64.
const DIAGNOSTICS_BYTES_MAX: usize = 64 << 10;

/// A container that does not get another size.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UpdateError {
    pub(crate) request: yarn::UpdateContainerRequest,
    /// The container's; `None`: it is not known.
    pub(crate) version: Option<u32>,
    pub(crate) reason: String,
}

/// A heartbeat with what the master wants.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Allocation {
    pub(crate) asks: Vec<StatedAsk>,
    pub(crate) releases: Vec<ContainerId>,
    pub(crate) blacklist_additions: Vec<String>,
    pub(crate) blacklist_removals: Vec<String>,
    pub(crate) updates: Vec<ContainerUpdate>,
    /// Updates that are not offered.
    pub(crate) refused_updates: Vec<UpdateError>,
    pub(crate) progress_permille: u16,
    pub(crate) tracking_url: Option<String>,
}

impl Allocation {
    /// Reads the request of the master of `attempt`.
    ///
    /// # Errors
    /// `InvalidResourceRequestException` for an ask, `InvalidContainerReleaseException` and
    /// `InvalidResourceBlacklistRequestException` for a release and a blacklist that cannot be,
    /// `YarnException` for scheduling requests, `IllegalArgumentException` for the rest.
    /// Source: `DefaultAMSProcessor.allocate`, `RMServerUtils`.
    pub(crate) fn read(
        request: &yarn::AllocateRequest,
        attempt: AttemptId,
    ) -> Result<Allocation, RpcException> {
        if !request.scheduling_requests.is_empty() {
            return Err(no_constraints("scheduling requests"));
        }
        let number = request.ask.len();
        if number > ASKS_PER_APPLICATION_MAX {
            let words = format!(
                "{number} asks in one request: at most {ASKS_PER_APPLICATION_MAX} are taken"
            );
            return Err(invalid_ask(words));
        }
        let blacklist = request.blacklist_request.as_ref();
        let names = |names: Option<&Vec<String>>| names.cloned().unwrap_or_default();
        let (updates, refused_updates) = updates(&request.update_requests)?;
        let tracking_url = request.tracking_url.clone();
        if let Some(url) = &tracking_url {
            check_url(url)?;
        }
        Ok(Allocation {
            asks: request.ask.iter().map(ask).collect::<Result<_, _>>()?,
            releases: releases(&request.release, attempt)?,
            blacklist_additions: blacklisted(names(blacklist.map(|b| &b.blacklist_additions)))?,
            blacklist_removals: blacklisted(names(blacklist.map(|b| &b.blacklist_removals)))?,
            updates,
            refused_updates,
            progress_permille: permille(request.progress()),
            tracking_url: tracking_url.filter(|url| !url.is_empty()),
        })
    }
}

fn ask(request: &yarn::ResourceRequest) -> Result<StatedAsk, RpcException> {
    let count = u32::try_from(request.num_containers()).map_err(|_| {
        let words = format!(
            "Invalid resource request, requested number of containers is {}, less than 0",
            request.num_containers()
        );
        invalid_ask(words)
    })?;
    if count > CONTAINERS_PER_ASK_MAX {
        let words =
            format!("{count} containers in one ask: at most {CONTAINERS_PER_ASK_MAX} are taken");
        return Err(invalid_ask(words));
    }
    let no_opportunity = request.execution_type_request.as_ref().is_some_and(|kind| {
        kind.enforce_execution_type() && kind.execution_type() == yarn::ExecutionType::Opportunistic
    });
    if no_opportunity {
        let words = "OPPORTUNISTIC containers are not offered: ask for GUARANTEED ones".to_owned();
        return Err(invalid_ask(words));
    }
    let place = match request.resource_name() {
        "" => ANY,
        name => name,
    };
    bobbin_types::check_text("place of an ask", place, WORD_BYTES_MAX)
        .map_err(|e| invalid_ask(e.to_string()))?;
    let relax_locality = request.relax_locality();
    if place.starts_with('/') && place != DEFAULT_RACK && count > 0 && !relax_locality {
        // It would wait for ever; with another place allowed the rack does not matter.
        let words = format!("no rack '{place}': all nodes are in {DEFAULT_RACK}");
        return Err(invalid_ask(words));
    }
    Ok(StatedAsk {
        priority: request.priority.as_ref().map_or(0, |p| p.priority()),
        request_id: request.allocation_request_id(),
        capability: capability(request.capability.as_ref())?,
        place: place.to_owned(),
        count,
        relax_locality,
        node_label: label(request.node_label_expression())?,
    })
}

/// Nothing at all becomes the least there is, as YARN raises to its minimum.
fn capability(wire: Option<&yarn::Resource>) -> Result<Resource, RpcException> {
    let wire = required("ask.capability", wire).map_err(|e| invalid_field(&e))?;
    let mut resource = read_resource(wire, &[]).map_err(|e| {
        let words = format!(
            "Invalid resource request! Cannot allocate containers as requested resource is \
             less than 0 or cannot be read: {e}"
        );
        invalid_ask(words)
    })?;
    resource.memory_mib = resource.memory_mib.max(1);
    resource.vcores = resource.vcores.max(1);
    Ok(resource)
}

fn label(text: &str) -> Result<String, RpcException> {
    let label = text.trim();
    if !label.is_empty() {
        bobbin_types::check_text("node label", label, WORD_BYTES_MAX).map_err(|e| {
            RpcException::new(ExceptionClass::InvalidLabelResourceRequest, e.to_string())
        })?;
    }
    Ok(label.to_owned())
}

fn releases(
    wire: &[yarn::ContainerId],
    attempt: AttemptId,
) -> Result<Vec<ContainerId>, RpcException> {
    let invalid = |words| RpcException::new(ExceptionClass::InvalidContainerRelease, words);
    if wire.len() > CONTAINERS_PER_MESSAGE_MAX {
        return Err(invalid(format!(
            "{} containers released at once: at most {CONTAINERS_PER_MESSAGE_MAX} are",
            wire.len()
        )));
    }
    let mut containers = Vec::with_capacity(wire.len());
    for id in wire {
        let container = ContainerId::try_from(id).map_err(|e| invalid(e.to_string()))?;
        if container.application() != attempt.application {
            return Err(invalid(format!(
                "Cannot release container : {container} not belonging to this application \
                 attempt : {attempt}"
            )));
        }
        containers.push(container);
    }
    Ok(containers)
}

fn blacklisted(names: Vec<String>) -> Result<Vec<String>, RpcException> {
    let invalid = |words| RpcException::new(ExceptionClass::InvalidResourceBlacklistRequest, words);
    if names.len() > BLACKLIST_MAX {
        return Err(invalid(format!(
            "{} names in one blacklist request: at most {BLACKLIST_MAX} are taken",
            names.len()
        )));
    }
    for name in &names {
        if name == ANY {
            return Err(invalid("Cannot add * to the blacklist!".to_owned()));
        }
        bobbin_types::check_text("host of a blacklist", name, WORD_BYTES_MAX)
            .map_err(|e| invalid(e.to_string()))?;
    }
    Ok(names)
}

/// Those that the core decides, and those that are not offered.
fn updates(
    wire: &[yarn::UpdateContainerRequest],
) -> Result<(Vec<ContainerUpdate>, Vec<UpdateError>), RpcException> {
    if wire.len() > UPDATES_PER_MESSAGE_MAX {
        let words = format!(
            "{} updates of containers at once: at most {UPDATES_PER_MESSAGE_MAX} are taken",
            wire.len()
        );
        return Err(RpcException::new(ExceptionClass::IllegalArgument, words));
    }
    let mut updates = Vec::new();
    let mut refused = Vec::new();
    for request in wire {
        let update = |kind| {
            Ok::<_, RpcException>(ContainerUpdate {
                container: ContainerId::try_from(&request.container_id)
                    .map_err(|e| invalid_field(&e))?,
                version: u32::try_from(request.container_version).unwrap_or_default(),
                kind,
                resource: capability(request.capability.as_ref())?,
            })
        };
        match yarn::ContainerUpdateType::try_from(request.update_type) {
            Ok(yarn::ContainerUpdateType::IncreaseResource) => {
                updates.push(update(UpdateKind::Increase)?);
            }
            Ok(yarn::ContainerUpdateType::DecreaseResource) => {
                updates.push(update(UpdateKind::Decrease)?);
            }
            Ok(
                yarn::ContainerUpdateType::PromoteExecutionType
                | yarn::ContainerUpdateType::DemoteExecutionType,
            )
            | Err(_) => refused.push(UpdateError {
                request: request.clone(),
                version: None,
                reason: "every container is GUARANTEED here: there is nothing to promote it to, \
                         and OPPORTUNISTIC ones are not offered"
                    .to_owned(),
            }),
        }
    }
    Ok((updates, refused))
}

/// An update as its master said it.
pub(crate) fn update_to_wire(update: &ContainerUpdate) -> yarn::UpdateContainerRequest {
    yarn::UpdateContainerRequest {
        container_version: i32::try_from(update.version).unwrap_or(i32::MAX),
        container_id: update.container.into(),
        update_type: update_kind(update.kind).into(),
        capability: Some(write_resource(&update.resource, &[])),
        execution_type: None,
    }
}

pub(crate) fn update_kind(kind: UpdateKind) -> yarn::ContainerUpdateType {
    match kind {
        UpdateKind::Increase => yarn::ContainerUpdateType::IncreaseResource,
        UpdateKind::Decrease => yarn::ContainerUpdateType::DecreaseResource,
    }
}

/// # Errors
/// A text is too long or has control characters; placement constraints are given.
pub(crate) fn registration(
    request: &yarn::RegisterApplicationMasterRequest,
) -> Result<MasterRegistration, RpcException> {
    if !request.placement_constraints.is_empty() {
        return Err(no_constraints("placement constraints"));
    }
    if !request.host().is_empty() {
        bobbin_types::check_text("host", request.host(), WORD_BYTES_MAX)
            .map_err(|e| illegal(e.to_string()))?;
    }
    check_url(request.tracking_url())?;
    Ok(MasterRegistration {
        host: request.host().to_owned(),
        rpc_port: request.rpc_port(),
        tracking_url: request.tracking_url().to_owned(),
        asks: Vec::new(),
        containers: None,
    })
}

/// # Errors
/// The tracking URL is too long or has control characters.
pub(crate) fn farewell(
    request: &yarn::FinishApplicationMasterRequest,
) -> Result<Finish, RpcException> {
    check_url(request.tracking_url())?;
    let mut diagnostics = request.diagnostics().to_owned();
    if diagnostics.len() > DIAGNOSTICS_BYTES_MAX {
        diagnostics.truncate(diagnostics.floor_char_boundary(DIAGNOSTICS_BYTES_MAX));
    }
    Ok(Finish {
        final_status: FinalStatus::from(request.final_application_status()),
        exit_status: None,
        diagnostics,
        tracking_url: request.tracking_url().to_owned(),
    })
}

fn check_url(url: &str) -> Result<(), RpcException> {
    if url.is_empty() {
        return Ok(());
    }
    bobbin_types::check_text("tracking URL", url, TEXT_BYTES_MAX)
        .map_err(|e| illegal(e.to_string()))
}

/// A share of 1 as thousandths; beyond either end it is the end, and what is no number is 0.
fn permille(progress: f32) -> u16 {
    let clamped = if progress.is_nan() {
        0.0
    } else {
        progress.clamp(0.0, 1.0)
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1000 after the clamp"
    )]
    let whole = (clamped * 1000.0).round() as u16;
    whole
}

fn no_constraints(what: &str) -> RpcException {
    let words = format!(
        "{what} are not offered: ask with ResourceRequests (AllocateRequest.ask), which may name \
         hosts"
    );
    RpcException::new(ExceptionClass::Yarn, words)
}

fn invalid_ask(words: String) -> RpcException {
    RpcException::new(ExceptionClass::InvalidResourceRequest, words)
}

fn invalid_field(error: &FieldError) -> RpcException {
    illegal(error.to_string())
}

fn illegal(words: String) -> RpcException {
    RpcException::new(ExceptionClass::IllegalArgument, words)
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
