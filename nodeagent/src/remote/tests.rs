use super::*;
use std::time::Duration;

use transport::Waits;

/// Nothing is waited for long.
pub(crate) fn remote(allowed: &[&str]) -> Remote {
    let allowed = allowed.iter().map(|host| AllowedHost::parse(host).unwrap());
    let gate = Gate::new(allowed.collect(), Vec::new(), "192.0.2.7:1".to_owned());
    let transport = Transport::new(PathBuf::new(), Waits::default());
    Remote::new(gate, transport, PathBuf::new(), patience())
}

fn patience() -> Patience {
    Patience {
        tries: 4,
        time: Duration::from_secs(20),
        pause: Duration::ZERO,
        progress_bytes: 1000,
    }
}
