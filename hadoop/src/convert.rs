//! YARN's records to Bobbin's types and back.
//!
//! Reading may refuse and names the field; writing is total. `Resource` needs the names of the
//! cluster's further kinds, so it has functions of its own.

use bobbin_types::{
    ApplicationId, AttemptId, AttemptState, ContainerId, FinalStatus, MAX_COUNTABLE_KINDS, NodeId,
    NodeState, Resource, YarnApplicationState,
};

use crate::proto::yarn;

/// A field that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    pub field: &'static str,
    pub problem: String,
}

fn refused(field: &'static str, problem: impl Into<String>) -> FieldError {
    FieldError {
        field,
        problem: problem.into(),
    }
}

/// A field that must be there.
///
/// # Errors
/// It is not.
pub fn required<'a, T>(field: &'static str, value: Option<&'a T>) -> Result<&'a T, FieldError> {
    value.ok_or_else(|| refused(field, "is missing"))
}

fn positive(field: &'static str, value: i32) -> Result<u32, FieldError> {
    match u32::try_from(value) {
        Ok(number) if number > 0 => Ok(number),
        Ok(_) | Err(_) => Err(refused(field, format!("{value} is no number of one"))),
    }
}

impl TryFrom<&yarn::ApplicationId> for ApplicationId {
    type Error = FieldError;
    fn try_from(wire: &yarn::ApplicationId) -> Result<Self, FieldError> {
        let stamp = wire.cluster_timestamp();
        Ok(Self {
            cluster_timestamp: u64::try_from(stamp).map_err(|_| {
                refused(
                    "application_id.cluster_timestamp",
                    format!("{stamp} is no time"),
                )
            })?,
            sequence: positive("application_id.id", wire.id())?,
        })
    }
}

impl From<ApplicationId> for yarn::ApplicationId {
    /// Numbers beyond Java's become its largest: no cluster gets there.
    fn from(id: ApplicationId) -> Self {
        Self {
            id: Some(i32::try_from(id.sequence).unwrap_or(i32::MAX)),
            cluster_timestamp: Some(i64::try_from(id.cluster_timestamp).unwrap_or(i64::MAX)),
        }
    }
}

impl TryFrom<&yarn::ApplicationAttemptId> for AttemptId {
    type Error = FieldError;
    fn try_from(wire: &yarn::ApplicationAttemptId) -> Result<Self, FieldError> {
        Ok(Self {
            application: required("application_id", wire.application_id.as_ref())?.try_into()?,
            attempt: positive("attempt_id", wire.attempt_id())?,
        })
    }
}

impl From<AttemptId> for yarn::ApplicationAttemptId {
    fn from(id: AttemptId) -> Self {
        Self {
            application_id: Some(id.application.into()),
            attempt_id: Some(i32::try_from(id.attempt).unwrap_or(i32::MAX)),
        }
    }
}

/// Bits of the number in `ContainerIdProto.id`; the epoch is above them.
///
/// Source: `ContainerId.CONTAINER_ID_BITMASK`.
const CONTAINER_NUMBER_BITS: u32 = 40;

impl TryFrom<&yarn::ContainerId> for ContainerId {
    type Error = FieldError;
    fn try_from(wire: &yarn::ContainerId) -> Result<Self, FieldError> {
        let attempt = required("container_id.app_attempt_id", wire.app_attempt_id.as_ref())?;
        let id = wire.id();
        let parts = || {
            let number = id & ((1 << CONTAINER_NUMBER_BITS) - 1);
            Some(Self {
                attempt: attempt.try_into().ok()?,
                epoch: u32::try_from(id >> CONTAINER_NUMBER_BITS).ok()?,
                number: u32::try_from(number).ok()?,
            })
        };
        parts().ok_or_else(|| refused("container_id.id", format!("{id} is no container")))
    }
}

impl From<ContainerId> for yarn::ContainerId {
    fn from(id: ContainerId) -> Self {
        // 23 bits of epoch keep the sum positive, as in YARN.
        let epoch = i64::from(id.epoch) & 0x7f_ffff;
        Self {
            // Java's clients derive it from the attempt; YARN leaves it out too.
            app_id: None,
            app_attempt_id: Some(id.attempt.into()),
            id: Some((epoch << CONTAINER_NUMBER_BITS) | i64::from(id.number)),
        }
    }
}

impl TryFrom<&yarn::NodeId> for NodeId {
    type Error = FieldError;
    fn try_from(wire: &yarn::NodeId) -> Result<Self, FieldError> {
        format!("{}:{}", wire.host(), wire.port())
            .parse()
            .map_err(|e: bobbin_types::IdError| refused("node_id", e.to_string()))
    }
}

impl From<&NodeId> for yarn::NodeId {
    fn from(id: &NodeId) -> Self {
        let port = id
            .as_str()
            .rsplit_once(':')
            .and_then(|(_, p)| p.parse().ok());
        Self {
            host: Some(id.host().to_owned()),
            port,
        }
    }
}

const MEMORY: &str = "memory-mb";
const VCORES: &str = "vcores";

/// Reads a resource; `kinds` are the names of the cluster's further kinds, in their order.
///
/// Entries of the map count more than the two fields, as in `ResourcePBImpl`.
///
/// # Errors
/// Negative amounts, units that are not known, kinds the cluster lacks.
pub fn read_resource(wire: &yarn::Resource, kinds: &[String]) -> Result<Resource, FieldError> {
    let amount = |field, value: i64| {
        u64::try_from(value).map_err(|_| refused(field, format!("{value} is below zero")))
    };
    let mut resource = Resource::new(
        amount("resource.memory", wire.memory())?,
        u32::try_from(wire.virtual_cores()).map_err(|_| {
            refused(
                "resource.virtual_cores",
                format!("{} is below zero", wire.virtual_cores()),
            )
        })?,
    );
    for entry in &wire.resource_value_map {
        let value = amount("resource.resource_value_map", entry.value())?;
        let shown: String = entry
            .key
            .chars()
            .filter(|c| !c.is_control())
            .take(80)
            .collect();
        match entry.key.as_str() {
            MEMORY => resource.memory_mib = memory_mib(value, entry.units())?,
            VCORES => {
                resource.vcores = u32::try_from(value)
                    .map_err(|_| refused("resource.vcores", format!("{value} is too many")))?;
            }
            name => match kinds
                .iter()
                .take(MAX_COUNTABLE_KINDS)
                .position(|k| k == name)
            {
                Some(index) => resource.countable[index] = value,
                None if value == 0 => {}
                None => {
                    return Err(refused(
                        "resource.resource_value_map",
                        format!("this cluster has no resource '{shown}'"),
                    ));
                }
            },
        }
    }
    Ok(resource)
}

/// Units of `UnitsConversionUtil` that a memory may have; rounded up.
fn memory_mib(value: u64, units: &str) -> Result<u64, FieldError> {
    let too_large = || refused("resource.memory-mb", format!("{value} {units} is too much"));
    let factor = match units {
        "" | "Mi" => return Ok(value),
        "Ki" => return Ok(value.div_ceil(1024)),
        "Gi" => 1024,
        "Ti" => 1024 * 1024,
        "M" => {
            let bytes = value.checked_mul(1_000_000).ok_or_else(too_large)?;
            return Ok(bytes.div_ceil(1024 * 1024));
        }
        "G" => {
            let bytes = value.checked_mul(1_000_000_000).ok_or_else(too_large)?;
            return Ok(bytes.div_ceil(1024 * 1024));
        }
        _ => return Err(refused("resource.memory-mb", "its unit is not known")),
    };
    value.checked_mul(factor).ok_or_else(too_large)
}

/// Writes a resource with the entries that Hadoop's own servers write.
#[must_use]
pub fn write_resource(resource: &Resource, kinds: &[String]) -> yarn::Resource {
    let amount = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let entry = |key: &str, value: i64, units: &str| yarn::ResourceInformation {
        key: key.to_owned(),
        value: Some(value),
        units: Some(units.to_owned()),
        r#type: Some(yarn::ResourceTypes::Countable.into()),
        ..yarn::ResourceInformation::default()
    };
    let memory = amount(resource.memory_mib);
    let vcores = i32::try_from(resource.vcores).unwrap_or(i32::MAX);
    let mut map = vec![
        entry(MEMORY, memory, "Mi"),
        entry(VCORES, i64::from(vcores), ""),
    ];
    for (name, value) in kinds.iter().zip(resource.countable) {
        map.push(entry(name, amount(value), ""));
    }
    yarn::Resource {
        memory: Some(memory),
        virtual_cores: Some(vcores),
        resource_value_map: map,
    }
}

impl From<YarnApplicationState> for yarn::YarnApplicationState {
    fn from(state: YarnApplicationState) -> Self {
        match state {
            YarnApplicationState::New => Self::New,
            YarnApplicationState::NewSaving => Self::NewSaving,
            YarnApplicationState::Submitted => Self::Submitted,
            YarnApplicationState::Accepted => Self::Accepted,
            YarnApplicationState::Running => Self::Running,
            YarnApplicationState::Finished => Self::Finished,
            YarnApplicationState::Failed => Self::Failed,
            YarnApplicationState::Killed => Self::Killed,
        }
    }
}

impl From<yarn::YarnApplicationState> for YarnApplicationState {
    fn from(state: yarn::YarnApplicationState) -> Self {
        match state {
            yarn::YarnApplicationState::New => Self::New,
            yarn::YarnApplicationState::NewSaving => Self::NewSaving,
            yarn::YarnApplicationState::Submitted => Self::Submitted,
            yarn::YarnApplicationState::Accepted => Self::Accepted,
            yarn::YarnApplicationState::Running => Self::Running,
            yarn::YarnApplicationState::Finished => Self::Finished,
            yarn::YarnApplicationState::Failed => Self::Failed,
            yarn::YarnApplicationState::Killed => Self::Killed,
        }
    }
}

impl From<AttemptState> for yarn::YarnApplicationAttemptState {
    fn from(state: AttemptState) -> Self {
        match state {
            AttemptState::New => Self::AppAttemptNew,
            AttemptState::Scheduled => Self::AppAttemptScheduled,
            AttemptState::Allocated => Self::AppAttemptAllocated,
            AttemptState::Launched => Self::AppAttemptLaunched,
            AttemptState::Running => Self::AppAttemptRunning,
            AttemptState::Finishing => Self::AppAttemptFinishing,
            AttemptState::Finished => Self::AppAttemptFinished,
            AttemptState::Failed => Self::AppAttemptFailed,
            AttemptState::Killed => Self::AppAttemptKilled,
        }
    }
}

impl From<FinalStatus> for yarn::FinalApplicationStatus {
    fn from(status: FinalStatus) -> Self {
        match status {
            FinalStatus::Undefined => Self::AppUndefined,
            FinalStatus::Succeeded => Self::AppSucceeded,
            FinalStatus::Failed => Self::AppFailed,
            FinalStatus::Killed => Self::AppKilled,
        }
    }
}

impl From<yarn::FinalApplicationStatus> for FinalStatus {
    fn from(status: yarn::FinalApplicationStatus) -> Self {
        match status {
            yarn::FinalApplicationStatus::AppUndefined => Self::Undefined,
            // ENDED is said by masters whose children ended in different ways.
            yarn::FinalApplicationStatus::AppSucceeded | yarn::FinalApplicationStatus::AppEnded => {
                Self::Succeeded
            }
            yarn::FinalApplicationStatus::AppFailed => Self::Failed,
            yarn::FinalApplicationStatus::AppKilled => Self::Killed,
        }
    }
}

impl From<NodeState> for yarn::NodeState {
    fn from(state: NodeState) -> Self {
        match state {
            NodeState::New => Self::NsNew,
            NodeState::Running => Self::NsRunning,
            NodeState::Unhealthy => Self::NsUnhealthy,
            NodeState::Decommissioning => Self::NsDecommissioning,
            NodeState::Decommissioned => Self::NsDecommissioned,
            NodeState::Lost => Self::NsLost,
            NodeState::Rebooted => Self::NsRebooted,
            NodeState::Shutdown => Self::NsShutdown,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire(memory: i64, entries: &[(&str, i64, &str)]) -> yarn::Resource {
        yarn::Resource {
            memory: Some(memory),
            virtual_cores: Some(1),
            resource_value_map: entries
                .iter()
                .map(|(key, value, units)| yarn::ResourceInformation {
                    key: (*key).to_owned(),
                    value: Some(*value),
                    units: Some((*units).to_owned()),
                    ..yarn::ResourceInformation::default()
                })
                .collect(),
        }
    }

    #[test]
    fn resources() {
        let kinds = ["gpu".to_owned()];
        let read = |wire: &yarn::Resource| read_resource(wire, &kinds);
        assert_eq!(read(&wire(7, &[])), Ok(Resource::new(7, 1)));
        let mapped = wire(
            7,
            &[("memory-mb", 2, "Gi"), ("vcores", 3, ""), ("gpu", 4, "")],
        );
        let mut expected = Resource::new(2048, 3);
        expected.countable[0] = 4;
        assert_eq!(read(&mapped), Ok(expected));
        assert_eq!(read(&write_resource(&expected, &kinds)), Ok(expected));
        assert!(read(&wire(-1, &[])).is_err());
        assert!(read(&wire(1, &[("gpu", -1, "")])).is_err());
        assert!(read(&wire(1, &[("fpga", 1, "")])).is_err());
        assert_eq!(read(&wire(1, &[("fpga", 0, "")])), Ok(Resource::new(1, 1)));
        assert!(read(&wire(1, &[("memory-mb", i64::MAX, "Ti")])).is_err());
        assert!(read(&wire(1, &[("memory-mb", 1, "pounds")])).is_err());
    }

    #[test]
    fn bad_ids_name_their_field() {
        let bad = ApplicationId::try_from(&yarn::ApplicationId::default());
        assert_eq!(bad.unwrap_err().field, "application_id.id");
        let bad = AttemptId::try_from(&yarn::ApplicationAttemptId::default());
        assert_eq!(bad.unwrap_err().to_string(), "application_id: is missing");
        let bad = ContainerId::try_from(&yarn::ContainerId::default());
        assert_eq!(bad.unwrap_err().field, "container_id.app_attempt_id");
        let bad = NodeId::try_from(&yarn::NodeId {
            host: Some("h".to_owned()),
            port: Some(70_000),
        });
        assert_eq!(bad.unwrap_err().field, "node_id");
    }

    proptest! {
        #[test]
        fn ids_there_and_back(
            cluster_timestamp in 0..=u64::try_from(i64::MAX).unwrap(),
            sequence in 1..=i32::MAX.cast_unsigned(),
            attempt in 1..=i32::MAX.cast_unsigned(),
            epoch in 0_u32..1 << 23,
            number: u32,
            port: u16,
        ) {
            let application = ApplicationId { cluster_timestamp, sequence };
            let attempt = AttemptId { application, attempt };
            let container = ContainerId { attempt, epoch, number };
            prop_assert_eq!((&yarn::ApplicationId::from(application)).try_into(), Ok(application));
            prop_assert_eq!((&yarn::ContainerId::from(container)).try_into(), Ok(container));
            let node: NodeId = format!("host-1:{port}").parse().unwrap();
            prop_assert_eq!((&yarn::NodeId::from(&node)).try_into(), Ok(node));
        }

        #[test]
        fn any_container_is_safe(id: i64, attempt_id: i32, number: i32, stamp: i64) {
            let application_id = yarn::ApplicationId { id: Some(number), cluster_timestamp: Some(stamp) };
            let attempt = yarn::ApplicationAttemptId {
                application_id: Some(application_id),
                attempt_id: Some(attempt_id),
            };
            let wire = yarn::ContainerId { app_id: None, app_attempt_id: Some(attempt), id: Some(id) };
            let _ = ContainerId::try_from(&wire);
        }
    }
}
