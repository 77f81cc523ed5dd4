//! Which addresses the agent connects to for a URL that a user named.
//!
//! The agent is root and stands where its node stands; a URL must not lead it to what its user
//! could not reach: services that trust whoever is on the same host, a cloud's metadata service
//! that is closed to everybody but root, the cluster's own doors. What counts is the address that is
//! connected to, so a name that changes its mind gains nothing. Private networks are open: clusters
//! have their stores there, and containers reach them too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use url::{Host, Url};

use crate::fetch::FetchError;

/// Metadata services that are not on link-local addresses. Source: the documentation of Alibaba Cloud,
/// Oracle Cloud, Azure (WireServer), AWS and Google Cloud over IPv6.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];
/// Addresses of a name that are looked at.
const ADDRESSES_MAX: usize = 32;

/// `host` or `host:port`, as a setting names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AllowedHost {
    host: String,
    port: Option<u16>,
}

impl AllowedHost {
    /// Reads a setting's entry; `None` when it is neither.
    pub(crate) fn parse(text: &str) -> Option<AllowedHost> {
        // A bare IPv6 address needs its brackets, or its end would be a port.
        let url = Url::parse(&format!("ftp://{text}/")).ok()?;
        let plain = url.username().is_empty() && url.password().is_none() && url.path() == "/";
        let host = url
            .host_str()
            .filter(|_| plain && !text.contains(['/', '?', '#']))?;
        let has_port = text
            .rsplit_once(':')
            .is_some_and(|(_, end)| !end.contains(']'));
        Some(AllowedHost {
            host: host.to_ascii_lowercase(),
            // The scheme's default port is dropped by the parser.
            port: has_port.then(|| url.port().unwrap_or(21)),
        })
    }

    fn names(&self, url: &Url) -> bool {
        url.host_str().is_some_and(|h| same_name(h, &self.host))
            && self
                .port
                .is_none_or(|port| url.port_or_known_default() == Some(port))
    }
}

fn same_name(a: &str, b: &str) -> bool {
    a.trim_end_matches('.')
        .eq_ignore_ascii_case(b.trim_end_matches('.'))
}

/// The rules, from the settings.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Setting localizer.url_hosts: wherever their names lead.
    allowed: Vec<AllowedHost>,
    /// Setting localizer.url_networks_refused.
    refused: Vec<IpNet>,
    /// Setting resourcemanager.address: its host is one of the cluster's own doors.
    manager: String,
}

/// Why an address is not connected to, whatever the settings' networks say.
fn never(ip: IpAddr) -> Option<&'static str> {
    let ip = plain(ip);
    if METADATA.contains(&ip) {
        return Some("a cloud's metadata service");
    }
    match ip {
        IpAddr::V4(v4) => never_v4(v4),
        IpAddr::V6(v6) => {
            let s = v6.segments();
            if v6.is_unspecified() {
                Some("the unspecified address")
            } else if v6.is_loopback() {
                Some("the loopback address")
            } else if v6.is_multicast() {
                Some("a multicast address")
            } else if s[0] & 0xffc0 == 0xfe80 {
                Some("a link-local address")
            } else {
                None
            }
        }
    }
}

fn never_v4(v4: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = v4.octets();
    if a == 0 {
        Some("on the unspecified network")
    } else if v4.is_loopback() {
        Some("on the loopback network")
    } else if v4.is_link_local() {
        Some("a link-local address")
    } else if v4.is_multicast() {
        Some("a multicast address")
    } else if a >= 240 || (a, b, c) == (192, 0, 0) {
        Some("a reserved address")
    } else {
        None
    }
}

/// An IPv4 address that an IPv6 one stands for is what counts: mapped, compatible, NAT64 and 6to4.
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let s = v6.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        // Not :: and ::1, which are addresses of their own.
        [0, 0, 0, 0, 0, 0, high, low] if high > 0 || low > 1 => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        _ => ip,
    }
}

impl Gate {
    pub(crate) fn new(allowed: Vec<AllowedHost>, refused: Vec<IpNet>, manager: String) -> Gate {
        Gate {
            allowed,
            refused,
            manager,
        }
    }

    /// With one more host, which the node's own settings name in another place.
    pub(crate) fn and(&self, host: AllowedHost) -> Gate {
        let mut allowed = self.allowed.clone();
        allowed.push(host);
        Gate::new(allowed, self.refused.clone(), self.manager.clone())
    }

    /// The addresses of a URL's host that may be connected to. A resolver may be asked.
    ///
    /// # Errors
    /// `Away`: it has none. `Place`: all of them are refused.
    pub(crate) async fn addresses(&self, url: &Url) -> Result<Vec<SocketAddr>, FetchError> {
        let port = url.port_or_known_default().unwrap_or(0);
        let host = url
            .host()
            .ok_or_else(|| FetchError::Place("it names no host".to_owned()))?;
        let found: Vec<SocketAddr> = match host {
            Host::Ipv4(ip) => vec![(ip, port).into()],
            Host::Ipv6(ip) => vec![(ip, port).into()],
            Host::Domain(name) => {
                let away = |e| FetchError::Away(format!("the host {name} is not found: {e}"));
                let found = tokio::net::lookup_host((name, port)).await.map_err(away)?;
                found.take(ADDRESSES_MAX).collect()
            }
        };
        if self.allowed.iter().any(|allowed| allowed.names(url)) {
            return Ok(found);
        }
        let doors = self.doors().await;
        let mut first = None;
        let mut good = Vec::with_capacity(found.len());
        for address in found {
            match self.refusal(address.ip(), &doors) {
                None => good.push(address),
                Some(why) => first = first.or_else(|| Some((address.ip(), why))),
            }
        }
        match first {
            Some((ip, why)) if good.is_empty() => {
                let host = url.host_str().unwrap_or("");
                Err(FetchError::Place(format!(
                    "{host} is {why} ({ip}): URLs lead there only when the node's setting \
                     localizer.url_hosts names '{host}:{port}'"
                )))
            }
            Some(_) | None => Ok(good),
        }
    }

    fn refusal(&self, ip: IpAddr, doors: &[IpAddr]) -> Option<&'static str> {
        let ip = plain(ip);
        if let Some(why) = never(ip) {
            Some(why)
        } else if doors.contains(&ip) {
            Some("an address of this node or of the resource manager")
        } else if self.refused.iter().any(|net| net.contains(&ip)) {
            Some("in a network of the setting localizer.url_networks_refused")
        } else {
            None
        }
    }

    /// This host's own addresses, as they are now, and the resource manager's.
    async fn doors(&self) -> Vec<IpAddr> {
        let own = nix::ifaddrs::getifaddrs().map(|all| {
            all.filter_map(|interface| {
                let address = interface.address?;
                let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
            })
            .collect::<Vec<_>>()
        });
        let mut doors = own.unwrap_or_default();
        if let Ok(found) = tokio::net::lookup_host(&self.manager).await {
            doors.extend(found.map(|address| plain(address.ip())));
        }
        doors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(allowed: &[&str], refused: &[&str]) -> Gate {
        let allowed = allowed.iter().map(|a| AllowedHost::parse(a).unwrap());
        let refused = refused.iter().map(|r| r.parse().unwrap());
        Gate::new(allowed.collect(), refused.collect(), "192.0.2.7:1".into())
    }

    async fn words(gate: &Gate, url: &str) -> String {
        let url = Url::parse(url).unwrap();
        match gate.addresses(&url).await {
            Ok(addresses) => format!("{addresses:?}"),
            Err(e) => e.to_string(),
        }
    }

    #[tokio::test]
    async fn what_belongs_to_the_host_or_the_cloud_is_refused() {
        let gate = gate(&[], &["10.9.0.0/16"]);
        for (url, why) in [
            ("http://127.0.0.1/", "loopback"),
            ("http://127.9.9.9:8/", "loopback"),
            ("http://localhost:80/", "loopback"),
            ("http://LOCALHOST/", "loopback"),
            ("http://2130706433/", "loopback"),
            ("http://0x7f.1/", "loopback"),
            ("http://017700000001/", "loopback"),
            ("http://[::1]/", "loopback"),
            ("http://[::ffff:127.0.0.1]/", "loopback"),
            ("http://[::ffff:7f00:1]/", "loopback"),
            ("http://[::127.0.0.1]/", "loopback"),
            ("http://[64:ff9b::7f00:1]/", "loopback"),
            ("http://[2002:7f00:1::]/", "loopback"),
            ("http://0.0.0.0/", "unspecified"),
            ("http://0/", "unspecified"),
            ("http://[::]/", "unspecified"),
            ("http://169.254.169.254/latest/meta-data", "link-local"),
            ("http://[::ffff:169.254.169.254]/", "link-local"),
            ("http://[fe80::1]/", "link-local"),
            ("http://[febf::1]/", "link-local"),
            ("http://[fd00:ec2::254]/", "metadata"),
            ("http://100.100.100.200/", "metadata"),
            ("http://168.63.129.16/", "metadata"),
            ("http://224.0.0.1/", "multicast"),
            ("http://[ff02::1]/", "multicast"),
            ("http://255.255.255.255/", "reserved"),
            ("http://192.0.2.7:8088/", "resource manager"),
            ("http://10.9.1.1/", "url_networks_refused"),
            ("http://[::ffff:10.9.1.1]/", "url_networks_refused"),
        ] {
            let words = words(&gate, url).await;
            assert!(
                words.contains(why) && words.contains("url_hosts"),
                "{url}: {words}"
            );
        }
        for url in [
            "http://192.168.3.4/",
            "http://10.1.2.3:9000/",
            "https://[fd12::1]/",
        ] {
            assert!(words(&gate, url).await.starts_with('['), "{url}");
        }
    }

    #[tokio::test]
    async fn the_node_s_settings_allow_hosts() {
        let gate = gate(&["localhost:9000", "127.0.0.2", "[::1]:80"], &[]);
        for (url, allowed) in [
            ("http://localhost:9000/", true),
            ("http://LocalHost:9000/", true),
            ("http://localhost:9001/", false),
            ("http://127.0.0.1:9000/", false),
            ("http://127.0.0.2:5/", true),
            ("https://127.0.0.2/", true),
            ("http://[::1]/", true),
            ("https://[::1]/", false),
        ] {
            let words = words(&gate, url).await;
            assert_eq!(!words.contains("url_hosts"), allowed, "{url}: {words}");
        }
        let wider = gate.and(AllowedHost::parse("127.0.0.1:7").unwrap());
        assert!(words(&wider, "http://127.0.0.1:7/").await.starts_with('['));
    }

    #[test]
    fn entries_of_the_setting() {
        for good in [
            "h",
            "h:1",
            "10.0.0.1",
            "10.0.0.1:80",
            "[::1]",
            "[::1]:8",
            "a.b-c:21",
        ] {
            assert!(AllowedHost::parse(good).is_some(), "{good}");
        }
        assert_eq!(AllowedHost::parse("h:21").unwrap().port, Some(21));
        assert_eq!(AllowedHost::parse("[::1]").unwrap().port, None);
        for bad in [
            "", "::1", "h:x", "h:70000", "u@h", "h/x", "http://h", "h?", "a b",
        ] {
            assert_eq!(AllowedHost::parse(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        /// However an IPv4 address is dressed up, it is judged as what it is.
        #[test]
        fn dressed_addresses_are_judged_alike(bits in proptest::prelude::any::<u32>()) {
            let v4 = Ipv4Addr::from(bits);
            let [a, b, c, d] = bits.to_be_bytes();
            let [high, low] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
            let gate = gate(&[], &["10.0.0.0/8"]);
            let as_v4 = gate.refusal(v4.into(), &[]);
            for v6 in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                proptest::prop_assert_eq!(gate.refusal(v6.into(), &[]), as_v4);
            }
        }
    }
}
