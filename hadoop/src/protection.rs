//! How the frames of a connection are protected after a token has proven who calls.
//!
//! Source: `hadoop.rpc.protection`, `SaslRpcServer.QualityOfProtection`, RFC 2831 2.1.1.

use std::fmt;
use std::str::FromStr;

/// What protects the frames that follow the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quality {
    /// `auth`: nothing; only the proof itself is safe from listeners.
    Authentication,
    /// `auth-int`: a code per message, so that nobody can alter, drop or repeat one unseen.
    Integrity,
    /// `auth-conf`: the code, and encryption with 3DES, the strongest that Java's DIGEST-MD5 has.
    Privacy,
}

impl Quality {
    /// Strongest first.
    pub const ALL: [Quality; 3] = [
        Quality::Privacy,
        Quality::Integrity,
        Quality::Authentication,
    ];

    /// As `hadoop.rpc.protection` says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Quality::Authentication => "authentication",
            Quality::Integrity => "integrity",
            Quality::Privacy => "privacy",
        }
    }

    /// As DIGEST-MD5 says it.
    #[must_use]
    pub fn qop(self) -> &'static str {
        match self {
            Quality::Authentication => "auth",
            Quality::Integrity => "auth-int",
            Quality::Privacy => "auth-conf",
        }
    }

    /// The quality of DIGEST-MD5's name.
    #[must_use]
    pub fn from_qop(qop: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quality| quality.qop() == qop)
    }
}

/// The qualities that a server offers: at least one. A client takes the first of its own list that
/// is offered, so a server that offers privacy alone forces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    authentication: bool,
    integrity: bool,
    privacy: bool,
}

/// A text that names no qualities of protection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtectionError {
    #[error("'{0}' is no protection: authentication, integrity and privacy are")]
    Unknown(String),
    #[error("no protection is named: authentication, integrity, privacy, or several of them")]
    Empty,
}

impl Default for Protection {
    /// All of them: the client decides.
    fn default() -> Self {
        Self {
            authentication: true,
            integrity: true,
            privacy: true,
        }
    }
}

impl From<Quality> for Protection {
    fn from(only: Quality) -> Self {
        Self {
            authentication: only == Quality::Authentication,
            integrity: only == Quality::Integrity,
            privacy: only == Quality::Privacy,
        }
    }
}

impl Protection {
    /// From names in any order, as settings have them.
    ///
    /// # Errors
    /// An unknown name, or none.
    pub fn from_names<T: AsRef<str>>(
        names: impl IntoIterator<Item = T>,
    ) -> Result<Self, ProtectionError> {
        let mut found = Self {
            authentication: false,
            integrity: false,
            privacy: false,
        };
        for name in names {
            let name = name.as_ref().trim();
            let known = Quality::ALL
                .into_iter()
                .find(|quality| quality.name().eq_ignore_ascii_case(name));
            match known {
                Some(Quality::Authentication) => found.authentication = true,
                Some(Quality::Integrity) => found.integrity = true,
                Some(Quality::Privacy) => found.privacy = true,
                None => {
                    let shown = name.chars().filter(|c| !c.is_control()).take(80).collect();
                    return Err(ProtectionError::Unknown(shown));
                }
            }
        }
        if found.offered().next().is_none() {
            return Err(ProtectionError::Empty);
        }
        Ok(found)
    }

    #[must_use]
    pub fn offers(&self, quality: Quality) -> bool {
        match quality {
            Quality::Authentication => self.authentication,
            Quality::Integrity => self.integrity,
            Quality::Privacy => self.privacy,
        }
    }

    /// Strongest first.
    pub fn offered(&self) -> impl Iterator<Item = Quality> + '_ {
        Quality::ALL.into_iter().filter(|q| self.offers(*q))
    }

    /// Hadoop's names, weakest first and separated by commas: what a client of this server writes
    /// into `hadoop.rpc.protection` to take the weakest that is offered.
    #[must_use]
    pub fn names(&self) -> String {
        let mut names: Vec<_> = self.offered().map(Quality::name).collect();
        names.reverse();
        names.join(",")
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names())
    }
}

impl FromStr for Protection {
    type Err = ProtectionError;

    /// A comma list, as `hadoop.rpc.protection` has it.
    fn from_str(text: &str) -> Result<Self, ProtectionError> {
        Self::from_names(text.split(',').map(str::trim).filter(|n| !n.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_back() {
        assert_eq!(
            Protection::default().names(),
            "authentication,integrity,privacy"
        );
        for text in [
            "privacy",
            "integrity,privacy",
            "authentication,integrity,privacy",
        ] {
            assert_eq!(text.parse::<Protection>().unwrap().to_string(), text);
        }
        assert_eq!(
            "Privacy , authentication"
                .parse::<Protection>()
                .unwrap()
                .names(),
            "authentication,privacy"
        );
        for quality in Quality::ALL {
            let only = Protection::from(quality);
            assert_eq!(only.offered().collect::<Vec<_>>(), [quality]);
            assert_eq!(Quality::from_qop(quality.qop()), Some(quality));
        }
    }

    #[test]
    fn refusals_name_the_word() {
        let error = "privacy,auth-conf".parse::<Protection>().unwrap_err();
        assert_eq!(error, ProtectionError::Unknown("auth-conf".to_owned()));
        assert_eq!("".parse::<Protection>(), Err(ProtectionError::Empty));
        assert_eq!(Quality::from_qop("rc4"), None);
    }
}
