//! A cluster on this host, as `up` and `down` see it: a folder, its settings, its daemons.

mod daemons;
mod env_file;
mod heal;
mod layout;
mod leftovers;
mod machine;
mod ports;
mod settings;

pub(crate) use daemons::{Daemon, Programs, Started};
pub(crate) use env_file::{quote, write as write_env};
pub(crate) use heal::heal as heal_settings;
pub(crate) use layout::{Layout, node_name};
pub(crate) use leftovers::processes;
pub(crate) use settings::{HOST, host_of, write as write_settings};

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use crate::failure::{Failure, Kind, Outcome, io_words};

/// Becomes a daemon: a session of its own, nothing inherited but the three standard files.
///
/// Runs in the process that `up` started, because leaving a session is only possible there.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the launch code of `bobbin up`"
)]
pub(crate) fn daemon_exec(argv: &[OsString]) -> Outcome {
    // Fails only for the leader of a group: whoever ran this by hand has his own group already.
    let _ = nix::unistd::setsid();
    close_inherited();
    let Some((program, args)) = argv.split_first() else {
        return Err(Failure::usage("no program was given"));
    };
    let error = std::process::Command::new(program).args(args).exec();
    Err(Failure::new(
        Kind::NotExecutable,
        format!(
            "{} cannot be executed: {}",
            program.display(),
            io_words(&error)
        ),
    ))
}

/// Closes what the starter left open beside the three standard files: a pipe held by a daemon would keep
/// its reader waiting for ever.
fn close_inherited() {
    let fds: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in fds {
        // The listing's own descriptor is closed already, which is the only error there is.
        let _ = nix::unistd::close(fd);
    }
}
