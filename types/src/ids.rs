//! Ids in YARN's text forms, one type each.

use std::fmt;
use std::str::FromStr;

/// `application_<cluster timestamp ms>_<sequence, at least four digits>`.
///
/// Source: `org.apache.hadoop.yarn.api.records.ApplicationId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApplicationId {
    /// Start of the cluster (first start of its resource manager), Unix milliseconds.
    pub cluster_timestamp: u64,
    /// From 1.
    pub sequence: u32,
}

/// `appattempt_<cluster timestamp>_<application>_<attempt, at least six digits>`; attempts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    pub application: ApplicationId,
    pub attempt: u32,
}

/// `container_e<epoch>_<cluster timestamp>_<application>_<attempt>_<number, at least six digits>`.
///
/// The epoch grows with every start of the resource manager, so ids never repeat.
/// It is left out of the text when it is 0. Source: `ContainerId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId {
    pub attempt: AttemptId,
    pub epoch: u32,
    /// From 1 in each attempt; number 1 of an attempt need not be its master's.
    pub number: u32,
}

/// `host:port`, as the node agent told it: the name under which a node is listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(String);

/// A text that is no id, with what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {expected}")]
pub struct IdError {
    pub text: String,
    pub expected: &'static str,
}

/// Longest text accepted for an id, bytes.
const ID_BYTES_MAX: usize = 255;

fn error(text: &str, expected: &'static str) -> IdError {
    IdError {
        text: text.chars().filter(|c| !c.is_control()).take(80).collect(),
        expected,
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    // Only digits: `FromStr` would also take a sign.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

impl fmt::Display for ApplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "application_{}_{:04}",
            self.cluster_timestamp, self.sequence
        )
    }
}

impl FromStr for ApplicationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let parse = || {
            let (stamp, sequence) = text.strip_prefix("application_")?.split_once('_')?;
            Some(ApplicationId {
                cluster_timestamp: number(stamp)?,
                sequence: number(sequence)?,
            })
        };
        parse().ok_or_else(|| error(text, "an application id (application_<start ms>_<number>)"))
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ApplicationId {
            cluster_timestamp,
            sequence,
        } = self.application;
        write!(
            f,
            "appattempt_{cluster_timestamp}_{sequence:04}_{:06}",
            self.attempt
        )
    }
}

impl FromStr for AttemptId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let parse = || {
            let mut parts = text.strip_prefix("appattempt_")?.split('_');
            let application = ApplicationId {
                cluster_timestamp: number(parts.next()?)?,
                sequence: number(parts.next()?)?,
            };
            let attempt = number(parts.next()?)?;
            parts.next().is_none().then_some(AttemptId {
                application,
                attempt,
            })
        };
        parse().ok_or_else(|| {
            error(
                text,
                "an attempt id (appattempt_<start ms>_<number>_<attempt>)",
            )
        })
    }
}

impl ContainerId {
    #[must_use]
    pub fn application(&self) -> ApplicationId {
        self.attempt.application
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AttemptId {
            application:
                ApplicationId {
                    cluster_timestamp,
                    sequence,
                },
            attempt,
        } = self.attempt;
        f.write_str("container_")?;
        if self.epoch > 0 {
            write!(f, "e{:02}_", self.epoch)?;
        }
        write!(
            f,
            "{cluster_timestamp}_{sequence:04}_{attempt:02}_{:06}",
            self.number
        )
    }
}

impl FromStr for ContainerId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let parse = || {
            let mut parts = text.strip_prefix("container_")?.split('_').peekable();
            let epoch = match parts.peek()?.strip_prefix('e') {
                Some(epoch) => {
                    parts.next();
                    number(epoch)?
                }
                None => 0,
            };
            let application = ApplicationId {
                cluster_timestamp: number(parts.next()?)?,
                sequence: number(parts.next()?)?,
            };
            let attempt = AttemptId {
                application,
                attempt: number(parts.next()?)?,
            };
            let number = number(parts.next()?)?;
            parts.next().is_none().then_some(ContainerId {
                attempt,
                epoch,
                number,
            })
        };
        parse().ok_or_else(|| {
            error(
                text,
                "a container id (container_e<epoch>_<start ms>_<number>_<attempt>_<number>)",
            )
        })
    }
}

impl NodeId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the port.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0
            .rsplit_once(':')
            .map_or(self.0.as_str(), |(host, _)| host)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let good = |(host, port): (&str, &str)| {
            !host.is_empty()
                && text.len() <= ID_BYTES_MAX
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b))
                && number::<u16>(port).is_some()
        };
        if text.rsplit_once(':').is_some_and(good) {
            Ok(NodeId(text.to_owned()))
        } else {
            Err(error(text, "a node id (host:port)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn application(sequence: u32) -> ApplicationId {
        ApplicationId {
            cluster_timestamp: 1_700_000_000_000,
            sequence,
        }
    }

    #[test]
    fn yarn_forms() {
        let attempt = AttemptId {
            application: application(7),
            attempt: 2,
        };
        let plain = ContainerId {
            attempt,
            epoch: 0,
            number: 3,
        };
        let epoch = ContainerId { epoch: 17, ..plain };
        assert_eq!(application(7).to_string(), "application_1700000000000_0007");
        assert_eq!(attempt.to_string(), "appattempt_1700000000000_0007_000002");
        assert_eq!(plain.to_string(), "container_1700000000000_0007_02_000003");
        assert_eq!(
            epoch.to_string(),
            "container_e17_1700000000000_0007_02_000003"
        );
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "application_",
            "application_1",
            "application_1_",
            "application_+1_2",
            "application_1_2_3",
            "application_1_99999999999",
            "job_1_2",
            "application_1_2\n",
        ] {
            assert!(text.parse::<ApplicationId>().is_err(), "{text:?}");
        }
        for text in [
            "",
            "host",
            ":1",
            "host:",
            "host:70000",
            "ho st:1",
            "a/b:1",
            "host:1\n",
        ] {
            assert!(text.parse::<NodeId>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(cluster_timestamp: u64, sequence: u32, attempt: u32, epoch: u32, number: u32) {
            let application = ApplicationId { cluster_timestamp, sequence };
            let attempt = AttemptId { application, attempt };
            let container = ContainerId { attempt, epoch, number };
            prop_assert_eq!(application.to_string().parse(), Ok(application));
            prop_assert_eq!(attempt.to_string().parse(), Ok(attempt));
            prop_assert_eq!(container.to_string().parse(), Ok(container));
        }

        #[test]
        fn any_text_is_safe(text in ".{0,60}") {
            let _ = text.parse::<ApplicationId>();
            let _ = text.parse::<AttemptId>();
            let _ = text.parse::<ContainerId>();
            let _ = text.parse::<NodeId>();
        }
    }
}
