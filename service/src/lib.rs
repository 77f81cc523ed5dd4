//! What Bobbin's daemons and tools share: settings, run files, peer identity, tokens, shutdown,
//! logging, HTTP doors, and both ends of a gRPC connection.
//!
//! Nothing here decides who may do what: this crate proves who somebody is (a uid by the kernel, a
//! claim by its signature), the resource manager's authority function decides.
//! No global state apart from the log subscriber and the panic hook.

mod client_settings;
mod connect;
mod files;
mod hadoop_form;
mod hadoop_keys;
pub mod http;
mod identity;
mod logging;
mod run_files;
mod serve;
mod settings;
mod shutdown;
mod socket_home;
mod socket_owner;
mod token;

pub use client_settings::{
    ClientSettings, ClientSettingsError, ResourceManagerSettings, client_target, load_client,
};
pub use connect::{
    Bearer, ConnectError, RpcChannel, Target, channel_lazy, connect, connect_lazy, status_words,
};
pub use files::{
    FileError, FolderLock, LockError, atomic_write, create_folder, lock_folder, sync_folder,
};
pub use hadoop_form::{from_hadoop_form, to_hadoop_form};
pub use hadoop_keys::{KEY_ROLL_MS, hadoop_keys, key_generation, signing_keys};
pub use identity::{Account, AccountError, Peer, account_of_name, account_of_uid, own_uid, peer};
pub use logging::{init_logging, raise_file_limit};
pub use run_files::{DaemonInfo, RunFileError, RunFiles, process_start_ticks, read_daemon_info};
pub use serve::{Listener, ServeError, ServeLimits, serve};
pub use settings::{SettingsError, check_keys, load, load_from};
pub use shutdown::{notify_ready, notify_stopping, on_signals};
pub use socket_owner::{SocketOwner, SocketOwnerError, socket_owner};
pub use token::{
    Claims, MasterSecretError, SecretKey, TokenError, TokenKind, bearer, claimed_node,
    load_or_create_secret,
};

use bobbin_types::{Millis, WallMillis};

/// The wall clock: for people, tokens and records.
#[must_use]
pub fn wall_now() -> WallMillis {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    WallMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A monotonic clock that starts near zero; handed to the cores by the daemons' drivers.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    start: std::time::Instant,
}

impl MonotonicClock {
    #[must_use]
    pub fn start() -> MonotonicClock {
        MonotonicClock {
            start: std::time::Instant::now(),
        }
    }

    #[must_use]
    pub fn now(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When `moment` of this clock is, for timers.
    #[must_use]
    pub fn instant(&self, moment: Millis) -> std::time::Instant {
        // A deadline further than a year away is as good as one in a year.
        const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
        let ms = moment.0.min(self.now().0.saturating_add(YEAR_MS));
        self.start + std::time::Duration::from_millis(ms)
    }
}
