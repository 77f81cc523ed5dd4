//! The agent's durable records: the one place that writes and reads them.
//!
//! A record is a version byte and a protobuf message of its own (not of the wire), so that a later
//! agent reads what an earlier one wrote.

use bobbin_na_core::{ContainerClaims, Exit, Origin, Record};
use bobbin_types::{ExitStatus, MAX_COUNTABLE_KINDS, Resource, WallMillis};
use prost::Message;

const VERSION: u8 = 1;

#[derive(Clone, PartialEq, Eq, Message)]
struct Stored {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Admitted(Admitted),
    #[prost(message, tag = "2")]
    StopRequested(Ended),
    #[prost(message, tag = "3")]
    Exited(Ended),
    #[prost(message, tag = "4")]
    Done(Moment),
    #[prost(string, tag = "5")]
    AttemptRevoked(String),
    #[prost(message, tag = "6")]
    ApplicationEnded(Moment),
    #[prost(string, tag = "7")]
    LogsDeleted(String),
    /// Revoked, and its containers go on.
    #[prost(string, tag = "8")]
    AttemptLeft(String),
    #[prost(message, tag = "9")]
    Resized(Resized),
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Resized {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(uint64, tag = "2")]
    memory_mib: u64,
    #[prost(uint32, tag = "3")]
    vcores: u32,
    #[prost(uint64, repeated, tag = "4")]
    countable: Vec<u64>,
    #[prost(uint32, tag = "5")]
    version: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Admitted {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, tag = "2")]
    user: String,
    #[prost(uint64, tag = "3")]
    memory_mib: u64,
    #[prost(uint32, tag = "4")]
    vcores: u32,
    #[prost(uint64, repeated, tag = "5")]
    countable: Vec<u64>,
    #[prost(uint64, tag = "6")]
    expires_ms: u64,
    #[prost(bool, tag = "7")]
    by_master: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Ended {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(int32, tag = "2")]
    exit_status: i32,
    #[prost(string, tag = "3")]
    diagnostics: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Moment {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint64, tag = "2")]
    wall_ms: u64,
}

/// Bytes that are no record of this agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("version {0} of the record is not known: it was written by a later agent")]
    Version(u8),
    #[error("the record is empty")]
    Empty,
    #[error("the record is malformed")]
    Malformed(#[source] prost::DecodeError),
    #[error("the record has a field that cannot be read: {0}")]
    Field(String),
}

pub(crate) fn encode(record: &Record) -> Vec<u8> {
    let ended = |container: &bobbin_types::ContainerId, exit: &Exit| Ended {
        container: container.to_string(),
        exit_status: exit.exit_status.0,
        diagnostics: exit.diagnostics.clone(),
    };
    let kind = match record {
        Record::Admitted { claims, origin } => Kind::Admitted(Admitted {
            container: claims.container.to_string(),
            user: claims.user.to_string(),
            memory_mib: claims.resource.memory_mib,
            vcores: claims.resource.vcores,
            countable: claims.resource.countable.to_vec(),
            expires_ms: claims.expires.0,
            by_master: *origin == Origin::Master,
        }),
        Record::StopRequested { container, exit } => Kind::StopRequested(ended(container, exit)),
        Record::Exited { container, exit } => Kind::Exited(ended(container, exit)),
        Record::Done { container, expires } => Kind::Done(Moment {
            id: container.to_string(),
            wall_ms: expires.0,
        }),
        Record::AttemptRevoked {
            attempt,
            keep_containers,
        } => {
            let id = attempt.to_string();
            if *keep_containers {
                Kind::AttemptLeft(id)
            } else {
                Kind::AttemptRevoked(id)
            }
        }
        Record::Resized {
            container,
            resource,
            version,
        } => Kind::Resized(Resized {
            container: container.to_string(),
            memory_mib: resource.memory_mib,
            vcores: resource.vcores,
            countable: resource.countable.to_vec(),
            version: *version,
        }),
        Record::ApplicationEnded { application, ended } => Kind::ApplicationEnded(Moment {
            id: application.to_string(),
            wall_ms: ended.0,
        }),
        Record::LogsDeleted(application) => Kind::LogsDeleted(application.to_string()),
    };
    let mut bytes = vec![VERSION];
    bytes.extend(Stored { kind: Some(kind) }.encode_to_vec());
    bytes
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    let (version, rest) = bytes.split_first().ok_or(RecordError::Empty)?;
    if *version != VERSION {
        return Err(RecordError::Version(*version));
    }
    let kind = Stored::decode(rest).map_err(RecordError::Malformed)?.kind;
    Ok(match kind.ok_or(RecordError::Empty)? {
        Kind::Admitted(a) => {
            let resource = resource(a.memory_mib, a.vcores, &a.countable)?;
            let claims = ContainerClaims {
                container: parse(&a.container)?,
                user: parse(&a.user)?,
                resource,
                expires: WallMillis(a.expires_ms),
            };
            let origin = if a.by_master {
                Origin::Master
            } else {
                Origin::ResourceManager
            };
            Record::Admitted { claims, origin }
        }
        Kind::StopRequested(e) => Record::StopRequested {
            container: parse(&e.container)?,
            exit: exit(e),
        },
        Kind::Exited(e) => Record::Exited {
            container: parse(&e.container)?,
            exit: exit(e),
        },
        Kind::Done(m) => Record::Done {
            container: parse(&m.id)?,
            expires: WallMillis(m.wall_ms),
        },
        Kind::AttemptRevoked(id) => Record::AttemptRevoked {
            attempt: parse(&id)?,
            keep_containers: false,
        },
        Kind::AttemptLeft(id) => Record::AttemptRevoked {
            attempt: parse(&id)?,
            keep_containers: true,
        },
        Kind::Resized(r) => Record::Resized {
            container: parse(&r.container)?,
            resource: resource(r.memory_mib, r.vcores, &r.countable)?,
            version: r.version,
        },
        Kind::ApplicationEnded(m) => Record::ApplicationEnded {
            application: parse(&m.id)?,
            ended: WallMillis(m.wall_ms),
        },
        Kind::LogsDeleted(id) => Record::LogsDeleted(parse(&id)?),
    })
}

fn resource(memory_mib: u64, vcores: u32, countable: &[u64]) -> Result<Resource, RecordError> {
    if countable.len() > MAX_COUNTABLE_KINDS {
        return Err(RecordError::Field("countable".to_owned()));
    }
    let mut resource = Resource::new(memory_mib, vcores);
    resource.countable[..countable.len()].copy_from_slice(countable);
    Ok(resource)
}

fn exit(ended: Ended) -> Exit {
    Exit {
        exit_status: ExitStatus(ended.exit_status),
        diagnostics: ended.diagnostics,
    }
}

fn parse<T>(text: &str) -> Result<T, RecordError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|e: T::Err| RecordError::Field(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> Vec<Record> {
        let container: bobbin_types::ContainerId =
            "container_e02_7_0001_01_000003".parse().unwrap();
        let exit = Exit {
            exit_status: ExitStatus(-104),
            diagnostics: "über".into(),
        };
        let mut resource = Resource::new(128, 2);
        resource.countable[3] = 9;
        let claims = ContainerClaims {
            container,
            user: "alice".parse().unwrap(),
            resource,
            expires: WallMillis(99),
        };
        vec![
            Record::Admitted {
                claims: claims.clone(),
                origin: Origin::Master,
            },
            Record::Admitted {
                claims,
                origin: Origin::ResourceManager,
            },
            Record::StopRequested {
                container,
                exit: exit.clone(),
            },
            Record::Exited { container, exit },
            Record::Done {
                container,
                expires: WallMillis(5),
            },
            Record::AttemptRevoked {
                attempt: container.attempt,
                keep_containers: false,
            },
            Record::AttemptRevoked {
                attempt: container.attempt,
                keep_containers: true,
            },
            Record::Resized {
                container,
                resource,
                version: 3,
            },
            Record::ApplicationEnded {
                application: container.application(),
                ended: WallMillis(8),
            },
            Record::LogsDeleted(container.application()),
        ]
    }

    #[test]
    fn records_come_back() {
        for record in all() {
            assert_eq!(decode(&encode(&record)).unwrap(), record);
        }
    }

    #[test]
    fn version_1_is_read() {
        // Written by the first agent; it must be readable for ever.
        let bytes = b"\x01\x22\x22\n\x1econtainer_e02_7_0001_01_000003\x10\x05";
        assert_eq!(decode(bytes).unwrap(), all()[4]);
        assert!(matches!(decode(b"\x02"), Err(RecordError::Version(2))));
        assert!(matches!(decode(b""), Err(RecordError::Empty)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = decode(&bytes);
        }
    }
}
