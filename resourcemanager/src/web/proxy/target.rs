//! Where an application's page is, and whether it is asked there.
//!
//! The address is the application's word, and this daemon would ask in its own name: so nothing is
//! asked but what belongs to the application. On this host the kernel says whose a listening socket
//! is; doors of the cluster, which take this daemon's word for more than a user's, are never asked.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use axum::http::Uri;
use axum::http::uri::Authority;

/// Why the page is not asked for; in words for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TargetError {
    #[error("the application gave '{0}' as the address of its page, which is no http URL")]
    NotAUrl(String),
    #[error(
        "the application's page is at {0}: https is not forwarded; give it plain http (Spark: spark.ssl.ui.enabled=false)"
    )]
    Encrypted(String),
    #[error("the application gave {0} as the address of its page, where no application's page is")]
    Forbidden(SocketAddr),
    #[error("the application gave {0} as the address of its page, which is not its own")]
    NotIts(SocketAddr),
    #[error("nothing listens at {0}, where the application's page should be")]
    Nothing(SocketAddr),
    #[error("the name {0} of the application's page has no address: {1}")]
    NoAddress(String, String),
}

/// The page's own address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) authority: Authority,
    pub(super) host: String,
    pub(super) port: u16,
    /// Without a slash at its end.
    pub(super) path: String,
}

impl Target {
    /// Reads what a master registered: an http URL, or `host:port` with a path.
    pub(super) fn read(url: &str) -> Result<Target, TargetError> {
        let shown = || url.chars().filter(|c| !c.is_control()).take(200).collect();
        let wrong = || TargetError::NotAUrl(shown());
        let whole = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let uri: Uri = whole.parse().map_err(|_| wrong())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(TargetError::Encrypted(shown())),
            Some(_) | None => return Err(wrong()),
        }
        let authority = uri.authority().ok_or_else(wrong)?;
        // A user's name in it would make another host look like this one.
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong());
        }
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Target {
            host: bare.to_owned(),
            port: authority.port_u16().unwrap_or(80),
            path: uri.path().trim_end_matches('/').to_owned(),
            authority: authority.clone(),
        })
    }

    /// The addresses of the page's host.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, TargetError> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let failed = |why: String| TargetError::NoAddress(self.host.clone(), why);
        let found: Vec<SocketAddr> = found.map_err(|e| failed(e.to_string()))?.collect();
        if found.is_empty() {
            return Err(failed("none is known".to_owned()));
        }
        Ok(found)
    }
}

/// Addresses at which no application's page can be: what they answer is not the application's.
pub(super) fn check_address(address: SocketAddr) -> Result<(), TargetError> {
    let ip = address.ip().to_canonical();
    let strange = ip.is_unspecified()
        || ip.is_multicast()
        || match ip {
            // Metadata services of clouds are link-local.
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
    if strange || address.port() == 0 {
        return Err(TargetError::Forbidden(address));
    }
    Ok(())
}

/// Whether the address is one of this host's.
pub(super) fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Who owns the socket that listens at the address on this host. Reads files: blocking.
///
/// Source: proc(5), `/proc/net/tcp`.
pub(super) fn listener_owner(address: SocketAddr) -> Option<u32> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let tables = [read("/proc/net/tcp"), read("/proc/net/tcp6")];
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let owners: Vec<u32> = lines.filter_map(|line| owner_in(line, address)).collect();
    // Several sockets may share a port; they count if they are one user's.
    let first = owners.first().copied()?;
    owners.iter().all(|uid| *uid == first).then_some(first)
}

/// The owner, if the line is of a socket that listens where `address` leads.
fn owner_in(line: &str, address: SocketAddr) -> Option<u32> {
    /// Source: `TCP_LISTEN`, net/tcp_states.h.
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (ip, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != LISTEN || u16::from_str_radix(port, 16).ok()? != address.port() {
        return None;
    }
    let bound = address_in(ip)?;
    let wanted = address.ip().to_canonical();
    if bound != wanted && !bound.is_unspecified() {
        return None;
    }
    fields.nth(3)?.parse().ok()
}

/// Words of 32 bits in the machine's own order.
fn address_in(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for start in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(start..start + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_masters_register() {
        let target = Target::read("http://host.domain.com:4040/").unwrap();
        assert_eq!(
            (target.host.as_str(), target.port),
            ("host.domain.com", 4040)
        );
        assert_eq!(target.path, "");
        let target = Target::read("host:19888/jobhistory/job/").unwrap();
        assert_eq!(
            (target.port, target.path.as_str()),
            (19_888, "/jobhistory/job")
        );
        assert_eq!(Target::read("http://[::1]:1").unwrap().host, "::1");
        assert_eq!(Target::read("http://h").unwrap().port, 80);
        assert!(matches!(
            Target::read("https://h:4440"),
            Err(TargetError::Encrypted(_))
        ));
        for url in [
            "",
            "N/A",
            "ftp://h:1",
            "http://",
            "http://a@h:1",
            "file:///etc/passwd",
            "http://h:1\n",
        ] {
            assert!(
                matches!(Target::read(url), Err(TargetError::NotAUrl(_))) || url == "N/A",
                "{url:?}"
            );
        }
    }

    #[test]
    fn strange_addresses_are_never_asked() {
        for text in [
            "0.0.0.0:80",
            "0.1.2.3:80",
            "169.254.169.254:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[::]:80",
            "[fe80::1]:80",
            "[ff02::1]:80",
            "[::ffff:169.254.169.254]:80",
            "127.0.0.1:0",
        ] {
            assert!(check_address(text.parse().unwrap()).is_err(), "{text}");
        }
        for text in ["127.0.0.1:4040", "10.1.2.3:80", "[2001:db8::1]:80"] {
            assert!(check_address(text.parse().unwrap()).is_ok(), "{text}");
        }
    }

    #[test]
    fn the_kernel_says_whose_a_listener_is() {
        let own = nix::unistd::geteuid().as_raw();
        for bound in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(bound) else {
                println!("SKIPPED: this host cannot listen on {bound}");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            assert_eq!(listener_owner(address), Some(own), "{bound}");
            drop(listener);
            assert_eq!(listener_owner(address), None, "{bound}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(
            listener_owner(SocketAddr::from(([127, 0, 0, 9], port))),
            None
        );
    }

    #[test]
    fn own_addresses() {
        assert!(is_local("127.8.8.8".parse().unwrap()));
        assert!(!is_local("192.0.2.1".parse().unwrap()));
    }
}
