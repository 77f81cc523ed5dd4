//! Texts that people choose: what is allowed in them.

use std::fmt;
use std::str::FromStr;

/// The secret of a container in which its agent finds the application's own credentials for object
/// stores and web servers: what its local resources are fetched with.
pub const OBJECT_STORE_SECRET: &str = "object-store.toml";

/// A user of the host the cluster runs on, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

/// A text that cannot be used, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct NameError {
    /// What the text was meant to be, for example `application name`.
    pub what: &'static str,
    pub problem: String,
}

impl UserName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserName {
    type Err = NameError;
    /// Takes the portable names of useradd(8): letters, digits, `_ . - @`, `$` at the end; it becomes
    /// a folder's name, so it never is `.` or `..` and never holds a slash.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = |c: char| c.is_ascii_alphanumeric() || "_.-@$".contains(c);
        if text.is_empty()
            || text.len() > 64
            || text.starts_with(['-', '.'])
            || !text.chars().all(good)
        {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
            return Err(NameError {
                what: "user name",
                problem: format!("'{shown}' is not one"),
            });
        }
        Ok(UserName(text.to_owned()))
    }
}

/// Checks a text that will be shown to people: no control characters, not empty, at most `bytes_max`.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_text(what: &'static str, text: &str, bytes_max: usize) -> Result<(), NameError> {
    let problem = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > bytes_max {
        format!("has {} bytes, at most {bytes_max} are allowed", text.len())
    } else if let Some(c) = text.chars().find(|c| c.is_control()) {
        format!("has a control character (U+{:04X})", u32::from(c))
    } else {
        return Ok(());
    };
    Err(NameError { what, problem })
}

/// Checks the name of an environment variable: not empty, no `=`, no NUL.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_environment_name(name: &str) -> Result<(), NameError> {
    let what = "environment variable";
    if name.is_empty() {
        return Err(NameError {
            what,
            problem: "has an empty name".to_owned(),
        });
    }
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    if name.contains('=') {
        return Err(NameError {
            what,
            problem: format!("'{shown}' has '=' in its name"),
        });
    }
    if name.chars().any(char::is_control) {
        return Err(NameError {
            what,
            problem: format!("'{shown}' has NUL or a control character in its name"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names() {
        for good in ["alice", "root_runs-as.1", "svc$", "a@b"] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-x", "a/b", "a b", "a\0", "é"] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn environment_names() {
        assert!(check_environment_name("PATH").is_ok());
        for bad in ["", "A=B", "A\0B"] {
            assert!(check_environment_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn texts() {
        assert!(check_text("name", "wörd count", 255).is_ok());
        assert!(check_text("name", "", 255).is_err());
        assert!(check_text("name", "a\nb", 255).is_err());
        assert!(check_text("name", "aaaa", 3).is_err());
    }
}
