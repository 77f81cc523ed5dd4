//! The agent's settings: `conf/nodeagent.toml` documents each key.

use std::path::{Path, PathBuf};

use bobbin_hadoop::protection::Protection;
use bobbin_service::{SettingsError, load};
use bobbin_types::Resource;
use serde::{Deserialize, Serialize};

use crate::remote::gate::{AllowedHost, Gate};
use crate::webhdfs::split_authority;

/// Prefix of the environment's variables: `BOBBIN_NA__LOGS__MAX_BYTES`.
const ENVIRONMENT_PREFIX: &str = "BOBBIN_NA";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) folders: Folders,
    pub(crate) grpc: Grpc,
    pub(crate) yarn: Yarn,
    pub(crate) http: Http,
    pub(crate) resourcemanager: ResourceManager,
    pub(crate) resources: Resources,
    pub(crate) sandbox: Sandbox,
    pub(crate) logs: Logs,
    pub(crate) localizer: Localizer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Folders {
    pub(crate) local: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) lib: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Grpc {
    pub(crate) listen: String,
    pub(crate) advertise: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Yarn {
    pub(crate) listen: String,
    pub(crate) java_home: PathBuf,
    pub(crate) rpc_protection: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) listen: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ResourceManager {
    pub(crate) address: String,
    pub(crate) token_file: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Resources {
    pub(crate) memory_mib: u64,
    pub(crate) vcores: u32,
    pub(crate) reserved_memory_mib: u64,
    pub(crate) vcores_per_core: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sandbox {
    pub(crate) profile: String,
    pub(crate) cgroup_root: PathBuf,
    pub(crate) shared_dirs: Vec<PathBuf>,
    pub(crate) readable_dirs: Vec<PathBuf>,
    pub(crate) min_uid: u32,
    pub(crate) kill_grace_ms: u32,
    pub(crate) cpu: String,
    pub(crate) pids_max: u32,
    pub(crate) open_files_max: u64,
    pub(crate) tmp_mib: u64,
    pub(crate) work_dir_bytes_max: u64,
    pub(crate) work_dir_inodes_max: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Logs {
    pub(crate) retain_ms: u64,
    pub(crate) max_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Localizer {
    pub(crate) cache_bytes: u64,
    pub(crate) file_bytes_max: u64,
    pub(crate) archive_bytes_max: u64,
    pub(crate) archive_entries_max: u64,
    pub(crate) archive_ratio_max: u64,
    pub(crate) webhdfs_hosts: Vec<String>,
    pub(crate) cache_age_ms: u64,
    pub(crate) url_hosts: Vec<String>,
    pub(crate) url_networks_refused: Vec<String>,
    pub(crate) credentials_file: PathBuf,
    pub(crate) ca_file: PathBuf,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: "nodeagent".to_owned(),
            host: String::new(),
            folders: Folders::default(),
            grpc: Grpc::default(),
            yarn: Yarn::default(),
            http: Http::default(),
            resourcemanager: ResourceManager::default(),
            resources: Resources::default(),
            sandbox: Sandbox::default(),
            logs: Logs::default(),
            localizer: Localizer::default(),
        }
    }
}

impl Default for Folders {
    fn default() -> Folders {
        Folders {
            local: PathBuf::from("/var/lib/bobbin/nodeagent/local"),
            log: PathBuf::from("/var/log/bobbin/containers"),
            run: PathBuf::from("/run/bobbin"),
            lib: PathBuf::from("/var/lib/bobbin/nodeagent"),
        }
    }
}

impl Default for Grpc {
    fn default() -> Grpc {
        Grpc {
            listen: "127.0.0.1:8043".to_owned(),
            advertise: String::new(),
        }
    }
}

impl Default for Yarn {
    fn default() -> Yarn {
        Yarn {
            listen: "127.0.0.1:8041".to_owned(),
            java_home: PathBuf::new(),
            rpc_protection: ["authentication", "integrity", "privacy"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

impl Default for Http {
    fn default() -> Http {
        Http {
            listen: "127.0.0.1:8042".to_owned(),
        }
    }
}

impl Default for ResourceManager {
    fn default() -> ResourceManager {
        ResourceManager {
            address: "127.0.0.1:8034".to_owned(),
            token_file: PathBuf::from("/etc/bobbin/node.token"),
        }
    }
}

impl Default for Resources {
    fn default() -> Resources {
        Resources {
            memory_mib: 0,
            vcores: 0,
            reserved_memory_mib: 1024,
            vcores_per_core: 1,
        }
    }
}

impl Default for Sandbox {
    fn default() -> Sandbox {
        Sandbox {
            profile: "full".to_owned(),
            cgroup_root: PathBuf::new(),
            shared_dirs: Vec::new(),
            readable_dirs: Vec::new(),
            min_uid: 1,
            kill_grace_ms: 250,
            cpu: "share".to_owned(),
            pids_max: 4096,
            open_files_max: 65_536,
            tmp_mib: 1024,
            work_dir_bytes_max: 0,
            work_dir_inodes_max: 0,
        }
    }
}

impl Default for Logs {
    fn default() -> Logs {
        Logs {
            retain_ms: 7 * 24 * 3_600_000,
            max_bytes: 1 << 30,
        }
    }
}

impl Default for Localizer {
    fn default() -> Localizer {
        Localizer {
            cache_bytes: 10 << 30,
            file_bytes_max: 20 << 30,
            archive_bytes_max: 20 << 30,
            archive_entries_max: 200_000,
            archive_ratio_max: 100,
            webhdfs_hosts: Vec::new(),
            cache_age_ms: 30 * 24 * 3_600_000,
            url_hosts: Vec::new(),
            url_networks_refused: Vec::new(),
            credentials_file: PathBuf::new(),
            ca_file: PathBuf::new(),
        }
    }
}

/// A setting whose value cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("{}: {key}: {problem}", file.display())]
    Value {
        file: PathBuf,
        key: &'static str,
        problem: String,
    },
}

impl Config {
    /// Reads the file, then the environment.
    ///
    /// # Errors
    /// The first key that cannot be used, with the file.
    pub(crate) fn load(file: &Path) -> Result<Config, ConfigError> {
        let config: Config = load(file, ENVIRONMENT_PREFIX, &[])?;
        config
            .check()
            .map_err(|(key, problem)| ConfigError::Value {
                file: file.to_owned(),
                key,
                problem,
            })?;
        Ok(config)
    }

    /// What is offered to application masters: `yarn.rpc_protection`.
    ///
    /// # Errors
    /// It names none or an unknown one; never of settings that were loaded.
    pub(crate) fn protection(&self) -> Result<Protection, (&'static str, String)> {
        Protection::from_names(&self.yarn.rpc_protection)
            .map_err(|e| ("yarn.rpc_protection", e.to_string()))
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        self.protection()?;
        let name_is_good = !self.name.is_empty()
            && self
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !name_is_good {
            return Err((
                "name",
                format!("'{}' is not made of letters, digits, - and _", self.name),
            ));
        }
        let folders = [
            ("folders.local", &self.folders.local),
            ("folders.log", &self.folders.log),
            ("folders.run", &self.folders.run),
            ("folders.lib", &self.folders.lib),
        ];
        let shared = self
            .sandbox
            .shared_dirs
            .iter()
            .map(|dir| ("sandbox.shared_dirs", dir));
        let readable = self
            .sandbox
            .readable_dirs
            .iter()
            .map(|dir| ("sandbox.readable_dirs", dir));
        for (key, path) in folders.into_iter().chain(shared).chain(readable) {
            if !path.is_absolute() {
                return Err((key, format!("'{}' is not an absolute path", path.display())));
            }
        }
        if !["full", "rootless"].contains(&self.sandbox.profile.as_str()) {
            return Err((
                "sandbox.profile",
                format!("'{}' is neither full nor rootless", self.sandbox.profile),
            ));
        }
        if !["share", "hard-cap"].contains(&self.sandbox.cpu.as_str()) {
            return Err((
                "sandbox.cpu",
                format!("'{}' is neither share nor hard-cap", self.sandbox.cpu),
            ));
        }
        if self.sandbox.min_uid == 0 {
            return Err((
                "sandbox.min_uid",
                "0 would let containers run as root".to_owned(),
            ));
        }
        self.check_numbers()?;
        self.check_urls()?;
        match (self.localizer.webhdfs_hosts.iter()).find(|host| split_authority(host).is_none()) {
            Some(host) => Err((
                "localizer.webhdfs_hosts",
                format!("'{host}' is not host:port"),
            )),
            None => Ok(()),
        }
    }

    /// What `localizer` says of http(s):, s3:, abfs: and gs: sources.
    fn check_urls(&self) -> Result<(), (&'static str, String)> {
        let localizer = &self.localizer;
        for (key, path) in [
            ("localizer.credentials_file", &localizer.credentials_file),
            ("localizer.ca_file", &localizer.ca_file),
        ] {
            if !path.as_os_str().is_empty() && !path.is_absolute() {
                return Err((key, format!("'{}' is not an absolute path", path.display())));
            }
        }
        self.gate().map(drop)
    }

    /// Which addresses URLs may lead to.
    ///
    /// # Errors
    /// An entry that is no host or network; never of settings that were loaded.
    pub(crate) fn gate(&self) -> Result<Gate, (&'static str, String)> {
        let allowed = (self.localizer.url_hosts.iter()).map(|text| {
            AllowedHost::parse(text).ok_or_else(|| {
                let words = format!("'{text}' is neither HOST nor HOST:PORT");
                ("localizer.url_hosts", words)
            })
        });
        let refused = (self.localizer.url_networks_refused.iter()).map(|text| {
            text.parse().map_err(|_| {
                let words = format!("'{text}' is no network: ADDRESS/BITS");
                ("localizer.url_networks_refused", words)
            })
        });
        Ok(Gate::new(
            allowed.collect::<Result<_, _>>()?,
            refused.collect::<Result<_, _>>()?,
            self.resourcemanager.address.clone(),
        ))
    }

    fn check_numbers(&self) -> Result<(), (&'static str, String)> {
        let positive = [
            (
                "resources.vcores_per_core",
                u64::from(self.resources.vcores_per_core),
            ),
            ("sandbox.pids_max", u64::from(self.sandbox.pids_max)),
            ("sandbox.open_files_max", self.sandbox.open_files_max),
            ("logs.max_bytes", self.logs.max_bytes),
            (
                "localizer.archive_ratio_max",
                self.localizer.archive_ratio_max,
            ),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err((key, "must be at least 1".to_owned())),
            None => Ok(()),
        }
    }

    /// Whether containers run as the agent's own user in a user namespace.
    pub(crate) fn is_rootless(&self) -> bool {
        self.sandbox.profile == "rootless"
    }

    /// What the node offers in all and what it keeps back, given what the machine has.
    pub(crate) fn offered(
        &self,
        machine_memory_mib: u64,
        machine_cores: u32,
    ) -> (Resource, Resource) {
        let vcores = match self.resources.vcores {
            0 => machine_cores
                .max(1)
                .saturating_mul(self.resources.vcores_per_core),
            set => set,
        };
        let (memory_mib, reserved_mib) = match self.resources.memory_mib {
            0 => (machine_memory_mib, self.resources.reserved_memory_mib),
            // A set size is what containers get: the reserve only corrects what was measured.
            set => (set, 0),
        };
        (
            Resource::new(memory_mib, vcores),
            Resource::new(reserved_mib.min(memory_mib), 0),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documented() -> (PathBuf, String) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/nodeagent.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    }

    #[test]
    fn the_documented_file_has_every_key_with_its_default() {
        let (path, text) = documented();
        bobbin_service::check_keys::<Config>(&text, &path).unwrap();
        let read: Config = bobbin_service::load_from(Some(&path), "BOBBIN_NA", &[], &[]).unwrap();
        assert_eq!(
            read,
            Config::default(),
            "the file differs from the defaults"
        );
        let mut table = String::new();
        let all = serde_json::to_value(Config::default()).unwrap();
        for (key, value) in all.as_object().unwrap() {
            match value.as_object() {
                Some(inner) => {
                    for name in inner.keys() {
                        assert!(
                            has_comment(&text, key, name),
                            "{key}.{name} is not documented"
                        );
                    }
                }
                None => assert!(has_comment(&text, &table, key), "{key} is not documented"),
            }
        }
        table.clear();
    }

    /// The key stands in its table, with a comment above that names default and YARN namesake.
    fn has_comment(text: &str, table: &str, key: &str) -> bool {
        let section = if table.is_empty() {
            text.split("\n[").next().unwrap_or(text)
        } else {
            let Some((_, rest)) = text.split_once(&format!("\n[{table}]")) else {
                return false;
            };
            rest.split("\n[").next().unwrap_or(rest)
        };
        let lines: Vec<_> = section.lines().collect();
        let Some(at) = lines
            .iter()
            .position(|l| l.starts_with(&format!("{key} = ")))
        else {
            return false;
        };
        let comment: Vec<_> = lines[..at]
            .iter()
            .rev()
            .take_while(|l| l.starts_with('#'))
            .copied()
            .collect();
        let comment = comment.join(" ");
        comment.contains("Default") && (comment.contains("yarn.") || comment.contains("YARN"))
    }

    #[test]
    fn bad_values_are_refused_with_file_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodeagent.toml");
        for (text, key) in [
            ("name = 'a/b'", "name"),
            ("[folders]\nlog = 'relative'", "folders.log"),
            ("[sandbox]\nprofile = 'none'", "sandbox.profile"),
            ("[sandbox]\nmin_uid = 0", "sandbox.min_uid"),
            ("[sandbox]\ncpu = 'some'", "sandbox.cpu"),
            ("[logs]\nmax_bytes = 0", "logs.max_bytes"),
            ("[sandbox]\nprofil = 'full'", "sandbox.profil"),
            (
                "[localizer]\nwebhdfs_hosts = ['nn']",
                "localizer.webhdfs_hosts",
            ),
            ("[localizer]\nurl_hosts = ['h/x']", "localizer.url_hosts"),
            (
                "[localizer]\nurl_networks_refused = ['10.0.0.0/40']",
                "localizer.url_networks_refused",
            ),
            (
                "[localizer]\ncredentials_file = 'stores.toml'",
                "localizer.credentials_file",
            ),
            ("[localizer]\nca_file = 'ca.pem'", "localizer.ca_file"),
            ("[logs]\nretain_ms = -1", "retain_ms"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Config::load(&path).unwrap_err().to_string();
            assert!(
                error.contains(key) && error.contains("nodeagent.toml"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn the_machine_is_offered_less_the_reserve() {
        let mut config = Config::default();
        let (total, reserved) = config.offered(8192, 4);
        assert_eq!(
            (total, reserved),
            (Resource::new(8192, 4), Resource::new(1024, 0))
        );
        config.resources = Resources {
            memory_mib: 500,
            vcores: 8,
            ..Resources::default()
        };
        assert_eq!(
            config.offered(8192, 4),
            (Resource::new(500, 8), Resource::new(0, 0))
        );
    }
}
