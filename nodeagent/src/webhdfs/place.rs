//! Where a `webhdfs:` source is.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::fetch::FetchError;

/// Source: `HdfsClientConfigKeys.DFS_NAMENODE_HTTP_PORT_DEFAULT`, what `webhdfs://host/` means.
const PORT: u16 = 9870;
/// Longest path, bytes. Source: `dfs.namenode.fs-limits`: HDFS takes 8000 characters.
const PATH_BYTES_MAX: usize = 8_000;

/// A source's parts. The path is as people write it: nothing in it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// As it was written; an IPv6 address has its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

/// Where to ask, and with which proof.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// host:port to connect to.
    pub(crate) address: String,
    /// What every request's query ends with.
    pub(crate) query: String,
    pub(crate) bearer: Option<Arc<str>>,
}

/// `host:port`, the host with its brackets.
pub(crate) fn split_authority(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'));
    let good = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 255
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }
    };
    Some((host, port.parse().ok()?)).filter(|_| good)
}

impl Place {
    /// Reads what stands behind `webhdfs:`.
    ///
    /// # Errors
    /// It has no host, a bad one, or no absolute path.
    pub(crate) fn parse(text: &str) -> Result<Place, FetchError> {
        let rest = text.strip_prefix("//").ok_or(FetchError::Source)?;
        let at = rest.find('/').ok_or(FetchError::Source)?;
        let (authority, path) = rest.split_at(at);
        let with_port;
        let authority = if authority.ends_with(']') || !authority.contains(':') {
            with_port = format!("{authority}:{PORT}");
            with_port.as_str()
        } else {
            authority
        };
        let (host, port) = split_authority(authority).ok_or(FetchError::Source)?;
        let steps = path.split('/').any(|part| part == "." || part == "..");
        if path.len() > PATH_BYTES_MAX || steps || path.chars().any(char::is_control) {
            return Err(FetchError::Source);
        }
        Ok(Place {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }

    /// What the host's name stands for; nothing when it has no address.
    pub(super) async fn addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.host, self.port).await
    }
}

pub(super) async fn addresses(host: &str, port: u16) -> Vec<SocketAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match tokio::net::lookup_host((bare, port)).await {
        Ok(found) => found
            .map(|a| SocketAddr::new(a.ip().to_canonical(), a.port()))
            .collect(),
        Err(_) => Vec::new(),
    }
}

/// Whether `host` is one of `known` by its name, or has an address of one.
pub(super) async fn same_host(host: &str, known: &[&str], port: u16) -> bool {
    if known.iter().any(|k| k.eq_ignore_ascii_case(host)) {
        return true;
    }
    let wanted = addresses(host, port).await;
    for name in known {
        let of_name = addresses(name, port).await;
        if of_name.iter().any(|a| wanted.contains(a)) {
            return true;
        }
    }
    false
}

/// Whether a host is this one by all its addresses.
pub(super) async fn is_loopback(host: &str) -> bool {
    let all = addresses(host, 1).await;
    !all.is_empty() && all.iter().all(|a| a.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_or_refused() {
        let read = |text: &str| {
            Place::parse(text)
                .map(|p| (p.host, p.port, p.path))
                .map_err(|e| e.to_string())
        };
        let place = |host: &str, port, path: &str| Ok((host.to_owned(), port, path.to_owned()));
        assert_eq!(read("//h:8088/a b%2F?x"), place("h", 8088, "/a b%2F?x"));
        assert_eq!(read("//[::1]:80/x"), place("[::1]", 80, "/x"));
        assert_eq!(read("//name.example/x"), place("name.example", PORT, "/x"));
        assert_eq!(read("//[::1]/x"), place("[::1]", PORT, "/x"));
        for bad in [
            "",
            "/x",
            "///x",
            "//h",
            "//h:/x",
            "//h:70000/x",
            "//u@h:1/x",
            "//h h:1/x",
            "//[::1/x",
            "//::1/x",
            "//h:1/a/../b",
            "//h:1/./b",
            "//h:1/a\nb",
            "//h:1/a\0",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_host_has_several_names() {
        assert!(same_host("Node1", &["node1"], 1).await);
        assert!(same_host("localhost", &["127.0.0.1"], 1).await);
        assert!(is_loopback("localhost").await && is_loopback("[::1]").await);
        assert!(!is_loopback("192.0.2.1").await);
        assert!(!same_host("127.0.0.2", &["127.0.0.1"], 1).await);
        assert!(!same_host("no-such-host.invalid", &["127.0.0.1"], 1).await);
    }
}
