//! Free ports for a new cluster.

use std::net::{Ipv4Addr, TcpListener};

use crate::failure::{Failure, Kind};

/// Below the ports that the system gives to outgoing connections (32768 and up), so that none of them
/// is taken when the cluster starts again. Source: ip_local_port_range, Linux ip-sysctl.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// As many different ports that are free on all of these addresses.
///
/// # Errors
/// Nearly all are in use.
pub(crate) fn free(hosts: &[Ipv4Addr], count: usize) -> Result<Vec<u16>, Failure> {
    // Clusters that are made at the same time begin at different places.
    let seed = u64::from(std::process::id()) * 7919 + bobbin_service::wall_now().0;
    let span = u64::from(LAST - FIRST);
    let start = u16::try_from(seed % span).unwrap_or(0);
    let mut held = Vec::with_capacity(count);
    for step in 0..(LAST - FIRST) {
        if held.len() == count {
            break;
        }
        let port = FIRST + (start + step) % (LAST - FIRST);
        // Held until all are found, so that none is found twice.
        let mut hosts = hosts.to_vec();
        hosts.sort_unstable();
        hosts.dedup();
        let listeners: Result<Vec<_>, _> = hosts
            .into_iter()
            .map(|host| TcpListener::bind((host, port)))
            .collect();
        if let Ok(listeners) = listeners {
            held.push((port, listeners));
        }
    }
    if held.len() < count {
        return Err(Failure::new(
            Kind::Failed,
            format!(
                "only {} of {count} free ports were found on loopback",
                held.len()
            ),
        ));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_and_free() {
        let mut ports = free(&[Ipv4Addr::LOCALHOST], 20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
        for port in ports {
            assert!((FIRST..LAST).contains(&port));
        }
    }
}
