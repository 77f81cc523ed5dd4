//! The settings of the resource manager: `conf/resourcemanager.toml`, where each key is explained.

use std::path::PathBuf;

use bobbin_hadoop::protection::Protection;
use bobbin_types::UserName;
use serde::{Deserialize, Serialize};

/// As written; [`Settings::check`] turns it into what the daemon uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    pub(crate) folders: Folders,
    pub(crate) grpc: Grpc,
    pub(crate) http: Http,
    pub(crate) yarn: Yarn,
    /// Empty: `<folders.run>/resourcemanager.sock`.
    pub(crate) socket: PathBuf,
    pub(crate) root_runs_as: String,
    pub(crate) nodes: Nodes,
    pub(crate) applications: Applications,
    pub(crate) scheduler: Scheduler,
    pub(crate) tokens: Tokens,
    pub(crate) files: Files,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Folders {
    pub(crate) lib: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) log: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Grpc {
    pub(crate) listen: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Http {
    pub(crate) listen: String,
}

/// The doors of Hadoop's clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Yarn {
    pub(crate) client_listen: String,
    pub(crate) scheduler_listen: String,
    pub(crate) admin_listen: String,
    pub(crate) rpc_protection: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Nodes {
    pub(crate) heartbeat_interval_ms: u64,
    pub(crate) expiry_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Applications {
    pub(crate) max_attempts: u32,
    pub(crate) retained: usize,
    pub(crate) am_expiry_ms: u64,
    pub(crate) client_lease_ms: u64,
    pub(crate) allocation_expiry_ms: u64,
    pub(crate) finish_grace_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Scheduler {
    pub(crate) max_am_share_permille: u32,
    pub(crate) queues: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Tokens {
    pub(crate) user_valid_ms: u64,
    pub(crate) user_valid_max_ms: u64,
    pub(crate) node_valid_ms: u64,
    pub(crate) attempt_valid_ms: u64,
    pub(crate) container_valid_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Files {
    pub(crate) upload_bytes_max: u64,
}

const DAY_MS: u64 = 24 * 3600 * 1000;

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            folders: Folders::default(),
            grpc: Grpc::default(),
            http: Http::default(),
            yarn: Yarn::default(),
            socket: PathBuf::new(),
            root_runs_as: "nobody".to_owned(),
            nodes: Nodes::default(),
            applications: Applications::default(),
            scheduler: Scheduler::default(),
            tokens: Tokens::default(),
            files: Files::default(),
        }
    }
}

impl Default for Folders {
    fn default() -> Folders {
        Folders {
            lib: "/var/lib/bobbin/resourcemanager".into(),
            run: "/run/bobbin".into(),
            log: "/var/log/bobbin".into(),
        }
    }
}

impl Default for Grpc {
    fn default() -> Grpc {
        Grpc {
            listen: "127.0.0.1:8034".to_owned(),
        }
    }
}

impl Default for Http {
    fn default() -> Http {
        Http {
            listen: "127.0.0.1:8088".to_owned(),
        }
    }
}

impl Default for Yarn {
    fn default() -> Yarn {
        Yarn {
            client_listen: "127.0.0.1:8032".to_owned(),
            scheduler_listen: "127.0.0.1:8030".to_owned(),
            admin_listen: "127.0.0.1:8033".to_owned(),
            rpc_protection: ["authentication", "integrity", "privacy"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

impl Default for Nodes {
    fn default() -> Nodes {
        Nodes {
            heartbeat_interval_ms: 1_000,
            expiry_ms: 30_000,
        }
    }
}

impl Default for Applications {
    fn default() -> Applications {
        Applications {
            max_attempts: 2,
            retained: 10_000,
            am_expiry_ms: 60_000,
            client_lease_ms: 10_000,
            allocation_expiry_ms: 600_000,
            finish_grace_ms: 60_000,
        }
    }
}

impl Default for Scheduler {
    fn default() -> Scheduler {
        Scheduler {
            max_am_share_permille: 500,
            queues: vec!["default".to_owned()],
        }
    }
}

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens {
            user_valid_ms: 7 * DAY_MS,
            user_valid_max_ms: 365 * DAY_MS,
            node_valid_ms: 10 * 365 * DAY_MS,
            attempt_valid_ms: 30 * DAY_MS,
            container_valid_ms: 30 * DAY_MS,
        }
    }
}

impl Default for Files {
    fn default() -> Files {
        Files {
            upload_bytes_max: 16 << 30,
        }
    }
}

/// A value that cannot be used, by its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} {problem}")]
pub(crate) struct ConfigError {
    key: &'static str,
    problem: String,
}

/// Settings that were checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) core: bobbin_rm_core::Config,
    pub(crate) folders: Folders,
    pub(crate) listen: String,
    pub(crate) http_listen: String,
    pub(crate) yarn: Yarn,
    /// Of `yarn.rpc_protection`.
    pub(crate) protection: Protection,
    pub(crate) socket: PathBuf,
    pub(crate) root_runs_as: UserName,
    pub(crate) tokens: Tokens,
    pub(crate) upload_bytes_max: u64,
}

impl Settings {
    /// Checks every value.
    ///
    /// # Errors
    /// The first value that cannot be used, by its key.
    pub(crate) fn check(self) -> Result<Config, ConfigError> {
        self.check_numbers()?;
        if self.scheduler.queues.is_empty() {
            return Err(refuse(
                "scheduler.queues",
                "is empty; name at least one queue",
            ));
        }
        if self.root_runs_as == "root" {
            return Err(refuse(
                "root_runs_as",
                "is root; containers never run as root",
            ));
        }
        let root_runs_as = self
            .root_runs_as
            .parse()
            .map_err(|e: bobbin_types::NameError| refuse("root_runs_as", &e.to_string()))?;
        let protection = Protection::from_names(&self.yarn.rpc_protection)
            .map_err(|e| refuse("yarn.rpc_protection", &format!("cannot be used: {e}")))?;
        let socket = if self.socket.as_os_str().is_empty() {
            self.folders.run.join("resourcemanager.sock")
        } else {
            self.socket
        };
        Ok(Config {
            core: bobbin_rm_core::Config {
                max_attempts: self.applications.max_attempts,
                applications_retained: self.applications.retained,
                am_expiry_ms: self.applications.am_expiry_ms,
                client_lease_ms: self.applications.client_lease_ms,
                node_expiry_ms: self.nodes.expiry_ms,
                heartbeat_interval_ms: self.nodes.heartbeat_interval_ms,
                allocation_expiry_ms: self.applications.allocation_expiry_ms,
                finish_grace_ms: self.applications.finish_grace_ms,
                max_am_share_permille: self.scheduler.max_am_share_permille,
                queues: self.scheduler.queues,
            },
            folders: self.folders,
            listen: self.grpc.listen,
            http_listen: self.http.listen,
            yarn: self.yarn,
            protection,
            socket,
            root_runs_as,
            tokens: self.tokens,
            upload_bytes_max: self.files.upload_bytes_max,
        })
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let Settings {
            nodes,
            applications,
            tokens,
            ..
        } = self;
        let positive = [
            ("nodes.heartbeat_interval_ms", nodes.heartbeat_interval_ms),
            ("applications.am_expiry_ms", applications.am_expiry_ms),
            ("applications.client_lease_ms", applications.client_lease_ms),
            (
                "applications.allocation_expiry_ms",
                applications.allocation_expiry_ms,
            ),
            ("applications.finish_grace_ms", applications.finish_grace_ms),
            (
                "applications.max_attempts",
                applications.max_attempts.into(),
            ),
            ("applications.retained", applications.retained as u64),
            ("tokens.user_valid_ms", tokens.user_valid_ms),
            ("tokens.node_valid_ms", tokens.node_valid_ms),
            ("tokens.attempt_valid_ms", tokens.attempt_valid_ms),
            ("tokens.container_valid_ms", tokens.container_valid_ms),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(refuse(key, "is 0; it must be at least 1"));
        }
        if nodes.expiry_ms < nodes.heartbeat_interval_ms.saturating_mul(3) {
            let problem = "is less than three heartbeats (nodes.heartbeat_interval_ms)";
            return Err(refuse("nodes.expiry_ms", problem));
        }
        if self.scheduler.max_am_share_permille > 1000 {
            return Err(refuse(
                "scheduler.max_am_share_permille",
                "is more than 1000 thousandths",
            ));
        }
        Ok(())
    }
}

fn refuse(key: &'static str, problem: &str) -> ConfigError {
    ConfigError {
        key,
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_file_in_conf_is_the_default_and_names_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/resourcemanager.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        bobbin_service::check_keys::<Settings>(&text, &path).unwrap();
        let loaded: Settings = bobbin_service::load_from(Some(&path), "NONE", &[], &[]).unwrap();
        assert_eq!(loaded, Settings::default());
        let table: toml::Table = text.parse().unwrap();
        let known = toml::Table::try_from(Settings::default()).unwrap();
        assert_eq!(
            table, known,
            "conf/resourcemanager.toml lacks a key or has another value"
        );
    }

    #[test]
    fn bad_values_are_refused_by_key() {
        let refused = |change: &dyn Fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().unwrap_err().key
        };
        assert_eq!(refused(&|s| s.nodes.expiry_ms = 100), "nodes.expiry_ms");
        assert_eq!(
            refused(&|s| s.applications.max_attempts = 0),
            "applications.max_attempts"
        );
        assert_eq!(
            refused(&|s| s.root_runs_as = "root".to_owned()),
            "root_runs_as"
        );
        assert_eq!(
            refused(&|s| s.root_runs_as = "a b".to_owned()),
            "root_runs_as"
        );
        assert_eq!(refused(&|s| s.scheduler.queues.clear()), "scheduler.queues");
        assert_eq!(
            refused(&|s| s.scheduler.max_am_share_permille = 1001),
            "scheduler.max_am_share_permille"
        );
        assert!(Settings::default().check().is_ok());
    }
}
