//! `conf/client.toml`: where the command line finds the resource manager, and its token.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::connect::Target;
use crate::files::FileError;
use crate::settings::{SettingsError, load_from};

/// Where `bobbin` looks when nothing else is said.
const CONF_DIR: &str = "/etc/bobbin";

/// The keys of `client.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientSettings {
    pub resourcemanager: ResourceManagerSettings,
    /// File with a user token; empty: none, the unix socket proves who calls.
    pub token_file: PathBuf,
}

/// Where the resource manager is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceManagerSettings {
    /// Its unix socket; used unless an address is set.
    pub socket: PathBuf,
    /// host:port of its gRPC; empty: the unix socket.
    pub address: String,
}

impl Default for ResourceManagerSettings {
    fn default() -> ResourceManagerSettings {
        ResourceManagerSettings {
            socket: PathBuf::from("/run/bobbin/resourcemanager.sock"),
            address: String::new(),
        }
    }
}

/// Settings or token of a client that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientSettingsError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("the token cannot be read")]
    Token(#[source] FileError),
}

/// The client's settings: `$BOBBIN_CONF_DIR/client.toml` (default `/etc/bobbin`, may be missing),
/// then `BOBBIN_CLIENT__…`, then `BOBBIN_RM_SOCKET`, `BOBBIN_RM_ADDRESS`, `BOBBIN_TOKEN_FILE`.
///
/// The last three are what `bobbin up` writes into `DIR/env`. A socket from the environment wins
/// over an address from the file, because the newer word counts.
///
/// # Errors
/// A file or variable that cannot be used, named.
pub fn load_client() -> Result<ClientSettings, ClientSettingsError> {
    let environment: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    load_client_from(&environment)
}

fn load_client_from(
    environment: &[(String, String)],
) -> Result<ClientSettings, ClientSettingsError> {
    let variable = |name: &str| {
        environment
            .iter()
            .find(|(n, v)| n == name && !v.is_empty())
            .map(|(_, v)| v.clone())
    };
    let folder = variable("BOBBIN_CONF_DIR").map_or_else(|| PathBuf::from(CONF_DIR), PathBuf::from);
    let file = folder.join("client.toml");
    let file = file.exists().then_some(file.as_path());
    let mut settings: ClientSettings = load_from(file, "BOBBIN_CLIENT", environment, &[])?;
    match (variable("BOBBIN_RM_SOCKET"), variable("BOBBIN_RM_ADDRESS")) {
        (Some(socket), address) => {
            settings.resourcemanager.socket = socket.into();
            settings.resourcemanager.address = String::new();
            // With both, the socket is nearer; the address is for processes that lack it.
            drop(address);
        }
        (None, Some(address)) => settings.resourcemanager.address = address,
        (None, None) => {}
    }
    if let Some(token) = variable("BOBBIN_TOKEN_FILE") {
        settings.token_file = token.into();
    }
    Ok(settings)
}

/// Where to connect, and the token to send (read from its file) if one is set.
///
/// # Errors
/// The token's file cannot be read.
pub fn client_target(
    settings: &ClientSettings,
) -> Result<(Target, Option<String>), ClientSettingsError> {
    let target = if settings.resourcemanager.address.is_empty() {
        Target::Unix(settings.resourcemanager.socket.clone())
    } else {
        Target::Tcp(settings.resourcemanager.address.clone())
    };
    if settings.token_file.as_os_str().is_empty() {
        return Ok((target, None));
    }
    let token = read_token(&settings.token_file)?;
    Ok((target, Some(token)))
}

fn read_token(path: &Path) -> Result<String, ClientSettingsError> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|e| ClientSettingsError::Token(FileError::new("read", path)(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(a: &str, b: &str) -> (String, String) {
        (a.to_owned(), b.to_owned())
    }

    #[test]
    fn the_newer_word_counts() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("client.toml"),
            "[resourcemanager]\naddress = 'far:1'\n",
        )
        .unwrap();
        let conf = pair("BOBBIN_CONF_DIR", folder.path().to_str().unwrap());
        let settings = load_client_from(std::slice::from_ref(&conf)).unwrap();
        assert_eq!(
            client_target(&settings).unwrap(),
            (Target::Tcp("far:1".into()), None)
        );
        let settings = load_client_from(&[conf, pair("BOBBIN_RM_SOCKET", "/x.sock")]).unwrap();
        assert_eq!(
            client_target(&settings).unwrap(),
            (Target::Unix("/x.sock".into()), None)
        );
    }

    #[test]
    fn a_token_is_read_and_a_missing_one_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "abc\n").unwrap();
        let mut settings = ClientSettings {
            token_file: path,
            ..ClientSettings::default()
        };
        assert_eq!(client_target(&settings).unwrap().1.as_deref(), Some("abc"));
        settings.token_file = "/nonexistent/token".into();
        assert!(client_target(&settings).is_err());
    }

    #[test]
    fn the_documented_file_is_the_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/client.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let documented: ClientSettings = toml::from_str(&text).unwrap();
        assert_eq!(documented, ClientSettings::default());
        crate::settings::check_keys::<ClientSettings>(&text, &path).unwrap();
        let all = toml::to_string(&ClientSettings::default()).unwrap();
        for key in all
            .lines()
            .filter_map(|l| l.split_once(" = "))
            .map(|(key, _)| key)
        {
            assert!(
                text.contains(&format!("\n{key} = ")),
                "{key} is not documented"
            );
        }
    }
}
