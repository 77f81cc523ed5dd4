//! Logs to stderr, a panic hook that ends the process, the file limit.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

/// Starts logging to stderr and makes a panic the end of the process.
///
/// `default_filter` is in tracing's words (`info`, `info,h2=warn`); `BOBBIN_LOG` overrides it.
/// A panic in a thread whose name begins with "store" does not end the process: sled panics on
/// damaged files, and the store's thread answers that by rebuilding.
pub fn init_logging(default_filter: &str) {
    let filter = EnvFilter::try_from_env("BOBBIN_LOG")
        .or_else(|_| EnvFilter::try_new(default_filter))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    // A second start (tests in one process) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_ansi(false)
        // It would tell of a line that cannot be written (a full disk) on the same stderr, and panic.
        .log_internal_errors(false)
        .try_init();
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(thread = name, "panic: {info}\n{backtrace}");
        if !name.starts_with("store") {
            // A daemon that lost one of its tasks is worse than one that is restarted: recovery is
            // tested, running without a driver is not.
            std::process::abort();
        }
    }));
}

/// Raises the soft limit of open files to the hard one: a daemon holds a socket a peer.
pub fn raise_file_limit() {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => {
            if let Err(e) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
                tracing::warn!(soft, hard, "cannot raise the limit of open files: {e}");
            }
        }
        Ok(_) => {}
        Err(e) => tracing::warn!("cannot read the limit of open files: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the test below does in a process of its own, under this variable.
    const IN_OWN_PROCESS: &str = "BOBBIN_TEST_LOGS_ONCE";

    #[test]
    fn logs_once() {
        if std::env::var_os(IN_OWN_PROCESS).is_none() {
            return;
        }
        init_logging("info");
        tracing::info!("a line");
        tracing::info!("another");
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "another stderr needs another process"
    )]
    fn a_full_disk_under_the_log_ends_nothing() {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "logging::tests::logs_once"])
            .env(IN_OWN_PROCESS, "1")
            .stdout(std::process::Stdio::null())
            .stderr(full)
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
    }
}
