//! The journal's records on disk and back: a versioned form of its own, so that neither the core nor
//! the wire is bound to what old journals hold.

use std::str::FromStr;
use std::sync::Arc;

use bobbin_rm_core::{
    LaunchContext, LaunchContract, Lifetime, LocalResource, Record, ResourceKind, ResourceSeconds,
    Secret, Submission, SubmittedApplication, Visibility,
};
use bobbin_types::{ExitStatus, MAX_COUNTABLE_KINDS, Resource, WallMillis};
use prost::Message;

#[allow(
    unreachable_pub,
    missing_debug_implementations,
    clippy::all,
    clippy::restriction,
    reason = "generated code"
)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/bobbin.records.v1.rs"));
}

use wire::record::Record as Kind;

/// A record that this version cannot read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("not a record of this version")]
    Encoding(#[source] prost::DecodeError),
    #[error("a record of a kind that this version does not know")]
    UnknownKind,
    #[error("{field} of a record: {problem}")]
    Field {
        field: &'static str,
        problem: String,
    },
}

fn field<T>(name: &'static str, text: &str) -> Result<T, RecordError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| RecordError::Field {
        field: name,
        problem: e.to_string(),
    })
}

fn missing(name: &'static str) -> RecordError {
    RecordError::Field {
        field: name,
        problem: "is missing".to_owned(),
    }
}

/// The bytes of one record.
#[must_use]
pub(crate) fn encode(record: &Record) -> Vec<u8> {
    wire::Record {
        record: Some(to_wire(record)),
    }
    .encode_to_vec()
}

/// Reads one record.
///
/// # Errors
/// Bytes that are no record, a kind or a value that this version does not know.
pub(crate) fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    let record = wire::Record::decode(bytes).map_err(RecordError::Encoding)?;
    from_wire(record.record.ok_or(RecordError::UnknownKind)?)
}

fn to_wire(record: &Record) -> Kind {
    match record {
        Record::Epoch {
            epoch,
            cluster_timestamp,
        } => Kind::Epoch(wire::Epoch {
            epoch: *epoch,
            cluster_timestamp: *cluster_timestamp,
        }),
        Record::SequenceReserved { sequence, floor } => {
            Kind::SequenceReserved(wire::SequenceReserved {
                sequence: *sequence,
                floor: *floor,
            })
        }
        Record::NodeKnown { node } => Kind::NodeKnown(wire::NodeKnown {
            node: node.to_string(),
        }),
        Record::NodeForgotten { node } => Kind::NodeForgotten(wire::NodeForgotten {
            node: node.to_string(),
        }),
        Record::ApplicationSubmitted(_)
        | Record::KillRequested { .. }
        | Record::ApplicationFinished { .. }
        | Record::ApplicationUpdated { .. }
        | Record::ApplicationRemoved { .. } => application_to_wire(record),
        Record::AttemptStarted { .. }
        | Record::AttemptRegistered { .. }
        | Record::AttemptFailing { .. }
        | Record::AttemptFinishing { .. }
        | Record::AttemptFinished { .. } => attempt_to_wire(record),
    }
}

/// The records of an application's life; the caller hands no others.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the caller lists the records"
)]
fn application_to_wire(record: &Record) -> Kind {
    match record {
        Record::ApplicationSubmitted(submitted) => {
            Kind::ApplicationSubmitted(submitted_to_wire(submitted))
        }
        Record::KillRequested {
            application,
            reason,
            wall,
        } => Kind::KillRequested(wire::KillRequested {
            application: application.to_string(),
            reason: reason.clone(),
            wall_ms: wall.0,
        }),
        Record::ApplicationFinished {
            application,
            state,
            final_status,
            exit_status,
            diagnostics,
            used,
            wall,
        } => Kind::ApplicationFinished(wire::ApplicationFinished {
            application: application.to_string(),
            state: state.to_string(),
            final_status: final_status.to_string(),
            exit_status: exit_status.map(|e| e.0),
            diagnostics: diagnostics.to_string(),
            used: Some(used_to_wire(used)),
            wall_ms: wall.0,
        }),
        Record::ApplicationUpdated {
            application,
            queue,
            priority,
            lifetime,
        } => Kind::ApplicationUpdated(wire::ApplicationUpdated {
            application: application.to_string(),
            queue: queue.clone(),
            priority: *priority,
            expires_ms: lifetime.map_or(0, |l| l.expires.0),
            span_ms: lifetime.map_or(0, |l| l.span_ms),
        }),
        Record::ApplicationRemoved { application } => {
            let application = application.to_string();
            Kind::ApplicationRemoved(wire::ApplicationRemoved { application })
        }
        _ => to_wire(record),
    }
}

/// The records of an attempt's life; of others the caller takes care.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the caller lists the records"
)]
fn attempt_to_wire(record: &Record) -> Kind {
    match record {
        Record::AttemptStarted {
            attempt,
            place,
            wall,
        } => {
            let (container, node) = match place {
                Some((container, node)) => (container.to_string(), node.to_string()),
                None => (String::new(), String::new()),
            };
            let attempt = attempt.to_string();
            Kind::AttemptStarted(wire::AttemptStarted {
                attempt,
                container,
                node,
                wall_ms: wall.0,
            })
        }
        Record::AttemptRegistered {
            attempt,
            host,
            rpc_port,
            tracking_url,
            wall,
        } => Kind::AttemptRegistered(wire::AttemptRegistered {
            attempt: attempt.to_string(),
            host: host.clone(),
            tracking_url: tracking_url.clone(),
            rpc_port: Some(*rpc_port),
            wall_ms: wall.0,
        }),
        Record::AttemptFailing { attempt, reason } => Kind::AttemptFailing(wire::AttemptFailing {
            attempt: attempt.to_string(),
            reason: reason.to_string(),
        }),
        Record::AttemptFinishing {
            attempt,
            final_status,
            exit_status,
            diagnostics,
            tracking_url,
        } => Kind::AttemptFinishing(wire::AttemptFinishing {
            attempt: attempt.to_string(),
            final_status: final_status.to_string(),
            exit_status: exit_status.map(|e| e.0),
            diagnostics: diagnostics.to_string(),
            tracking_url: tracking_url.clone(),
        }),
        Record::AttemptFinished {
            attempt,
            state,
            exit_status,
            diagnostics,
            counted,
            used,
            wall,
        } => Kind::AttemptFinished(wire::AttemptFinished {
            attempt: attempt.to_string(),
            state: state.to_string(),
            exit_status: exit_status.map(|e| e.0),
            diagnostics: diagnostics.to_string(),
            counted: *counted,
            used: Some(used_to_wire(used)),
            wall_ms: wall.0,
        }),
        _ => to_wire(record),
    }
}

fn from_wire(kind: Kind) -> Result<Record, RecordError> {
    Ok(match kind {
        Kind::Epoch(r) => Record::Epoch {
            epoch: r.epoch,
            cluster_timestamp: r.cluster_timestamp,
        },
        Kind::SequenceReserved(r) => Record::SequenceReserved {
            sequence: r.sequence,
            floor: r.floor,
        },
        Kind::NodeKnown(r) => Record::NodeKnown {
            node: field("node", &r.node)?,
        },
        Kind::NodeForgotten(r) => Record::NodeForgotten {
            node: field("node", &r.node)?,
        },
        Kind::ApplicationSubmitted(r) => {
            Record::ApplicationSubmitted(Arc::new(submitted_from_wire(r)?))
        }
        Kind::KillRequested(r) => Record::KillRequested {
            application: field("application", &r.application)?,
            reason: r.reason,
            wall: WallMillis(r.wall_ms),
        },
        Kind::AttemptStarted(_)
        | Kind::AttemptRegistered(_)
        | Kind::AttemptFailing(_)
        | Kind::AttemptFinishing(_)
        | Kind::AttemptFinished(_) => return attempt_from_wire(kind),
        Kind::ApplicationFinished(r) => Record::ApplicationFinished {
            application: field("application", &r.application)?,
            state: field("state", &r.state)?,
            final_status: field("final_status", &r.final_status)?,
            exit_status: r.exit_status.map(ExitStatus),
            diagnostics: r.diagnostics.into(),
            used: used_from_wire(r.used),
            wall: WallMillis(r.wall_ms),
        },
        Kind::ApplicationUpdated(r) => Record::ApplicationUpdated {
            application: field("application", &r.application)?,
            queue: r.queue,
            priority: r.priority,
            lifetime: (r.expires_ms > 0).then_some(Lifetime {
                expires: WallMillis(r.expires_ms),
                span_ms: r.span_ms,
            }),
        },
        Kind::ApplicationRemoved(r) => Record::ApplicationRemoved {
            application: field("application", &r.application)?,
        },
    })
}

/// The records of an attempt's life; the caller hands no others.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the caller lists the records"
)]
fn attempt_from_wire(kind: Kind) -> Result<Record, RecordError> {
    Ok(match kind {
        Kind::AttemptStarted(r) => Record::AttemptStarted {
            attempt: field("attempt", &r.attempt)?,
            place: if r.container.is_empty() && r.node.is_empty() {
                None
            } else {
                Some((field("container", &r.container)?, field("node", &r.node)?))
            },
            wall: WallMillis(r.wall_ms),
        },
        Kind::AttemptRegistered(r) => Record::AttemptRegistered {
            attempt: field("attempt", &r.attempt)?,
            host: r.host,
            rpc_port: r.rpc_port.unwrap_or(-1),
            tracking_url: r.tracking_url,
            wall: WallMillis(r.wall_ms),
        },
        Kind::AttemptFailing(r) => Record::AttemptFailing {
            attempt: field("attempt", &r.attempt)?,
            reason: r.reason.into(),
        },
        Kind::AttemptFinishing(r) => Record::AttemptFinishing {
            attempt: field("attempt", &r.attempt)?,
            final_status: field("final_status", &r.final_status)?,
            exit_status: r.exit_status.map(ExitStatus),
            diagnostics: r.diagnostics.into(),
            tracking_url: r.tracking_url,
        },
        Kind::AttemptFinished(r) => Record::AttemptFinished {
            attempt: field("attempt", &r.attempt)?,
            state: field("state", &r.state)?,
            exit_status: r.exit_status.map(ExitStatus),
            diagnostics: r.diagnostics.into(),
            counted: r.counted,
            used: used_from_wire(r.used),
            wall: WallMillis(r.wall_ms),
        },
        _ => return from_wire(kind),
    })
}

fn used_to_wire(used: &ResourceSeconds) -> wire::ResourceSeconds {
    wire::ResourceSeconds {
        memory_mib: used.memory_mib,
        vcores: used.vcores,
    }
}

/// None in records of before it was kept.
fn used_from_wire(wire: Option<wire::ResourceSeconds>) -> ResourceSeconds {
    wire.map_or_else(ResourceSeconds::default, |used| ResourceSeconds {
        memory_mib: used.memory_mib,
        vcores: used.vcores,
    })
}

fn resource_to_wire(resource: &Resource) -> wire::Resource {
    wire::Resource {
        memory_mib: resource.memory_mib,
        vcores: resource.vcores,
        countable: resource.countable.to_vec(),
    }
}

fn resource_from_wire(
    name: &'static str,
    wire: Option<wire::Resource>,
) -> Result<Resource, RecordError> {
    let wire = wire.ok_or_else(|| missing(name))?;
    if wire.countable.len() > MAX_COUNTABLE_KINDS {
        return Err(RecordError::Field {
            field: name,
            problem: "has too many kinds".to_owned(),
        });
    }
    let mut resource = Resource::new(wire.memory_mib, wire.vcores);
    resource.countable[..wire.countable.len()].copy_from_slice(&wire.countable);
    Ok(resource)
}

fn submitted_to_wire(submitted: &SubmittedApplication) -> wire::ApplicationSubmitted {
    let submission = &submitted.submission;
    wire::ApplicationSubmitted {
        application: submitted.application.to_string(),
        user: submitted.user.to_string(),
        submitted_ms: submitted.submitted.0,
        submission: Some(wire::Submission {
            name: submission.name.clone(),
            queue: submission.queue.clone(),
            priority: submission.priority,
            unmanaged: submission.unmanaged,
            launch: Some(launch_to_wire(&submission.launch)),
            resource: Some(resource_to_wire(&submission.resource)),
            overhead: Some(resource_to_wire(&submission.overhead)),
            max_attempts: submission.max_attempts,
            tags: submission.tags.clone(),
            timeout_ms: submission.timeout_ms,
            tie_to_client: submission.tie_to_client,
            application_type: submission.application_type.clone(),
            settings: submission.settings.clone(),
            application: submission
                .application
                .map_or_else(String::new, |a| a.to_string()),
            node_label: submission.node_label.clone(),
            keep_containers: submission.keep_containers,
            failures_validity_ms: submission.failures_validity_ms,
            view_acl: submission.view_acl.clone(),
            modify_acl: submission.modify_acl.clone(),
        }),
    }
}

fn submitted_from_wire(
    wire: wire::ApplicationSubmitted,
) -> Result<SubmittedApplication, RecordError> {
    let submission = wire.submission.ok_or_else(|| missing("submission"))?;
    Ok(SubmittedApplication {
        application: field("application", &wire.application)?,
        user: field("user", &wire.user)?,
        submitted: WallMillis(wire.submitted_ms),
        submission: Submission {
            application: if submission.application.is_empty() {
                None
            } else {
                Some(field("submission.application", &submission.application)?)
            },
            name: submission.name,
            queue: submission.queue,
            priority: submission.priority,
            unmanaged: submission.unmanaged,
            launch: launch_from_wire(submission.launch.ok_or_else(|| missing("launch"))?)?,
            resource: resource_from_wire("resource", submission.resource)?,
            overhead: resource_from_wire("overhead", submission.overhead)?,
            max_attempts: submission.max_attempts,
            tags: submission.tags,
            timeout_ms: submission.timeout_ms,
            tie_to_client: submission.tie_to_client,
            application_type: submission.application_type,
            settings: submission.settings,
            node_label: submission.node_label,
            keep_containers: submission.keep_containers,
            failures_validity_ms: submission.failures_validity_ms,
            view_acl: submission.view_acl,
            modify_acl: submission.modify_acl,
        },
    })
}

fn launch_to_wire(launch: &LaunchContext) -> wire::Launch {
    let resources = launch.local_resources.iter().map(|r| wire::LocalResource {
        name: r.name.clone(),
        source: r.source.clone(),
        size_bytes: r.size_bytes,
        mtime_ms: r.mtime_ms,
        digest: r.digest.map(|d| d.to_vec()).unwrap_or_default(),
        archive: match r.kind {
            ResourceKind::Archive => true,
            ResourceKind::File => false,
        },
        visibility: match r.visibility {
            Visibility::Application => 0,
            Visibility::Private => 1,
            Visibility::Public => 2,
        },
        executable: r.executable,
    });
    wire::Launch {
        argv: launch.argv.clone(),
        environment: launch.environment.clone(),
        local_resources: resources.collect(),
        secrets: launch
            .secrets
            .iter()
            .map(|(name, s)| (name.clone(), s.0.clone()))
            .collect(),
        contract: match launch.contract {
            LaunchContract::Bobbin => 0,
            LaunchContract::Yarn => 1,
        },
        service_data: launch.service_data.clone(),
    }
}

fn launch_from_wire(wire: wire::Launch) -> Result<LaunchContext, RecordError> {
    let resources = wire.local_resources.into_iter().map(|r| {
        let digest = match r.digest.len() {
            0 => None,
            _ => Some(
                r.digest
                    .as_slice()
                    .try_into()
                    .map_err(|_| RecordError::Field {
                        field: "digest",
                        problem: format!("has {} bytes, not 32", r.digest.len()),
                    })?,
            ),
        };
        Ok(LocalResource {
            name: r.name,
            source: r.source,
            size_bytes: r.size_bytes,
            mtime_ms: r.mtime_ms,
            digest,
            kind: if r.archive {
                ResourceKind::Archive
            } else {
                ResourceKind::File
            },
            visibility: match r.visibility {
                0 => Visibility::Application,
                1 => Visibility::Private,
                2 => Visibility::Public,
                other => {
                    let problem = format!("{other} is none that this version knows");
                    return Err(RecordError::Field {
                        field: "visibility",
                        problem,
                    });
                }
            },
            executable: r.executable,
        })
    });
    Ok(LaunchContext {
        argv: wire.argv,
        environment: wire.environment,
        local_resources: resources.collect::<Result<_, _>>()?,
        secrets: wire
            .secrets
            .into_iter()
            .map(|(name, s)| (name, Secret(s)))
            .collect(),
        contract: match wire.contract {
            0 => LaunchContract::Bobbin,
            1 => LaunchContract::Yarn,
            other => {
                return Err(RecordError::Field {
                    field: "contract",
                    problem: format!("{other} is none that this version knows"),
                });
            }
        },
        service_data: wire.service_data,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bobbin_types::{
        ApplicationId, ApplicationState, AttemptId, AttemptState, ContainerId, FinalStatus,
    };
    use proptest::prelude::*;

    use super::*;

    fn application() -> ApplicationId {
        ApplicationId {
            cluster_timestamp: 1_700_000_000_000,
            sequence: 42,
        }
    }

    fn submission() -> Submission {
        Submission {
            application: Some(application()),
            name: "flights".to_owned(),
            queue: "default".to_owned(),
            priority: -3,
            unmanaged: false,
            launch: LaunchContext {
                argv: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
                environment: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
                local_resources: vec![LocalResource {
                    name: "lib".to_owned(),
                    source: "bobbin:/user/alice/lib.tgz".to_owned(),
                    size_bytes: 7,
                    mtime_ms: 8,
                    digest: Some([9; 32]),
                    kind: ResourceKind::Archive,
                    visibility: Visibility::Public,
                    executable: true,
                }],
                secrets: BTreeMap::from([("key".to_owned(), Secret(vec![1, 2]))]),
                contract: LaunchContract::Yarn,
                service_data: BTreeMap::from([("spark_shuffle".to_owned(), vec![3])]),
            },
            resource: Resource::new(576, 1),
            overhead: Resource::new(64, 0),
            max_attempts: 2,
            tags: vec!["a".to_owned()],
            timeout_ms: 5,
            tie_to_client: true,
            application_type: "BOBBIN".to_owned(),
            settings: BTreeMap::from([("num-executors".to_owned(), "2".to_owned())]),
            node_label: "gpu".to_owned(),
            keep_containers: true,
            failures_validity_ms: Some(0),
            view_acl: "bob staff".to_owned(),
            modify_acl: "*".to_owned(),
        }
    }

    fn one_of_each() -> Vec<Record> {
        let attempt = AttemptId {
            application: application(),
            attempt: 2,
        };
        let container = ContainerId {
            attempt,
            epoch: 3,
            number: 1,
        };
        let node = "127.0.0.1:45001".parse().unwrap();
        let wall = WallMillis(11);
        let used = ResourceSeconds {
            memory_mib: 12,
            vcores: 13,
        };
        let (exit_status, diagnostics) = (Some(ExitStatus(-104)), Arc::from("words"));
        vec![
            Record::Epoch {
                epoch: 3,
                cluster_timestamp: 4,
            },
            Record::SequenceReserved {
                sequence: 100,
                floor: 7,
            },
            Record::ApplicationSubmitted(Arc::new(SubmittedApplication {
                application: application(),
                user: "alice".parse().unwrap(),
                submission: submission(),
                submitted: wall,
            })),
            Record::KillRequested {
                application: application(),
                reason: "r".to_owned(),
                wall,
            },
            Record::NodeKnown {
                node: "[::1]:8043".parse().unwrap(),
            },
            Record::NodeForgotten {
                node: "host.example:1".parse().unwrap(),
            },
            Record::AttemptStarted {
                attempt,
                place: Some((container, node)),
                wall,
            },
            Record::AttemptStarted {
                attempt,
                place: None,
                wall,
            },
            Record::AttemptRegistered {
                attempt,
                host: "h".to_owned(),
                rpc_port: 4040,
                tracking_url: String::new(),
                wall,
            },
            Record::AttemptFailing {
                attempt,
                reason: Arc::clone(&diagnostics),
            },
            Record::AttemptFinishing {
                attempt,
                final_status: FinalStatus::Succeeded,
                exit_status: None,
                diagnostics: Arc::clone(&diagnostics),
                tracking_url: "http://history".to_owned(),
            },
            Record::AttemptFinished {
                attempt,
                state: AttemptState::Failed,
                exit_status,
                diagnostics: Arc::clone(&diagnostics),
                counted: true,
                used,
                wall,
            },
            Record::ApplicationFinished {
                application: application(),
                state: ApplicationState::Failed,
                final_status: FinalStatus::Failed,
                exit_status,
                diagnostics,
                used,
                wall,
            },
            Record::ApplicationUpdated {
                application: application(),
                queue: "research".to_owned(),
                priority: -1,
                lifetime: Some(Lifetime {
                    expires: wall,
                    span_ms: 5,
                }),
            },
            Record::ApplicationUpdated {
                application: application(),
                queue: String::new(),
                priority: 0,
                lifetime: None,
            },
            Record::ApplicationRemoved {
                application: application(),
            },
        ]
    }

    #[test]
    fn every_kind_comes_back() {
        for record in one_of_each() {
            assert_eq!(decode(&encode(&record)).unwrap(), record);
        }
    }

    /// A journal of before the doors of YARN's protocols is read, and what it lacks is nothing.
    #[test]
    fn records_of_before_are_read() {
        let file = include_str!("../tests/records/before-yarn.hex");
        let lines = file.lines().filter(|line| !line.starts_with('#'));
        let records: Vec<Record> = lines
            .map(|line| {
                let bytes: Vec<u8> = (0..line.len() / 2)
                    .map(|i| u8::from_str_radix(&line[2 * i..2 * i + 2], 16).unwrap())
                    .collect();
                decode(&bytes).unwrap()
            })
            .collect();
        let [
            Record::ApplicationSubmitted(submitted),
            Record::AttemptRegistered {
                rpc_port: -1, host, ..
            },
            Record::AttemptFinishing { tracking_url, .. },
            Record::AttemptFinished {
                used,
                counted: true,
                exit_status,
                ..
            },
            Record::ApplicationFinished {
                used: used_at_end, ..
            },
        ] = records.as_slice()
        else {
            panic!("{records:?}");
        };
        let submission = &submitted.submission;
        assert_eq!(submission.launch.contract, LaunchContract::Bobbin);
        assert_eq!(submission.failures_validity_ms, None);
        assert!(!submission.keep_containers && submission.view_acl.is_empty());
        assert_eq!((host.as_str(), tracking_url.as_str()), ("h", ""));
        assert_eq!(*exit_status, Some(ExitStatus(-104)));
        assert_eq!([*used, *used_at_end], [ResourceSeconds::default(); 2]);
    }

    #[test]
    fn a_kind_of_the_future_is_refused() {
        // Field 99, length-delimited, empty.
        assert!(matches!(
            decode(&[0x9a, 0x06, 0x00]),
            Err(RecordError::UnknownKind)
        ));
        assert!(matches!(decode(&[]), Err(RecordError::UnknownKind)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }

        #[test]
        fn damage_never_panics(which in 0..16_usize, at: prop::sample::Index, bit in 0..8_u8) {
            let mut bytes = encode(&one_of_each()[which]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = decode(&bytes);
        }
    }
}
