//! Tokens in Hadoop's form: the methods that ask for them, and the file that holds them.

use std::net::{IpAddr, SocketAddr};

use bobbin_hadoop::credentials::{Credentials, Version};
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::proto::{common, yarn};
use bobbin_hadoop::tokens::from_url_text;
use bobbin_rm_core::{Object, Operation};
use bobbin_types::{UserName, WallMillis};
use bytes::Bytes;

use super::ClientService;
use crate::grpc::identify::decide;
use crate::minter::Minter;
use crate::web::delegation;
use crate::yarn::Addresses;
use crate::yarn::caller::{Client, token_for};
use crate::yarn::exceptions::denied;

/// Bytes of a renewer's name.
const RENEWER_BYTES_MAX: usize = 255;
/// Addresses of this host that a token file names.
const ADDRESSES_MAX: usize = 32;

impl ClientService {
    /// Source: `ClientRMService.getDelegationToken`, which also refuses those who come with a token.
    pub(super) async fn get_delegation_token(
        &self,
        client: &Client,
        request: common::GetDelegationTokenRequest,
    ) -> Result<common::GetDelegationTokenResponse, RpcException> {
        let user = client
            .user()
            .filter(|_| client.token.is_none())
            .ok_or_else(|| {
                let words = "a token cannot make another one; ask on the resource manager's host";
                RpcException::new(ExceptionClass::AccessControl, words)
            })?;
        let object = Object::User(user);
        decide(&client.principal, Operation::CreateUserToken, &object).map_err(denied)?;
        let mut renewer = request.renewer;
        renewer.truncate(renewer.floor_char_boundary(RENEWER_BYTES_MAX));
        let minter = &self.doors.minter;
        let (_, expires) = minter.user(user, 0);
        let token = token_for(user, "", &renewer, expires);
        let service = service(self.doors.addresses.client);
        Ok(common::GetDelegationTokenResponse {
            token: Some(minter.hadoop_keys().issue(token, service)),
        })
    }

    /// When the token ends; renewing does not put that off, as it is good until then anyway.
    pub(super) async fn renew_delegation_token(
        &self,
        client: &Client,
        request: common::RenewDelegationTokenRequest,
    ) -> Result<common::RenewDelegationTokenResponse, RpcException> {
        let token = self.of_callers(client, &request.token)?;
        Ok(common::RenewDelegationTokenResponse {
            new_expiry_time: expiry(&token).0,
        })
    }

    /// Ends a token before its time, at every connection and for good.
    pub(super) async fn cancel_delegation_token(
        &self,
        client: &Client,
        request: common::CancelDelegationTokenRequest,
    ) -> Result<common::CancelDelegationTokenResponse, RpcException> {
        let token = self.of_callers(client, &request.token)?;
        let revoked = self.doors.doorkeeper.revoked().clone();
        let identifier = request.token.identifier.clone();
        let canceling =
            tokio::task::spawn_blocking(move || revoked.cancel(&identifier, expiry(&token)));
        let failed = |words: String| RpcException::new(ExceptionClass::Yarn, words);
        canceling
            .await
            .map_err(|e| failed(e.to_string()))?
            .map_err(|e| failed(format!("{:#}", anyhow::Error::new(e))))?;
        Ok(common::CancelDelegationTokenResponse {})
    }

    /// What a token says, if it is good, and the caller's own or one that he may renew.
    fn of_callers(
        &self,
        client: &Client,
        token: &common::Token,
    ) -> Result<yarn::YarnDelegationTokenIdentifier, RpcException> {
        let invalid = |words: String| RpcException::new(ExceptionClass::InvalidToken, words);
        let keys = self.doors.minter.hadoop_keys();
        let read: yarn::YarnDelegationTokenIdentifier =
            keys.verify(token).map_err(|e| invalid(e.to_string()))?;
        if self.doors.doorkeeper.revoked().contains(&token.identifier) {
            return Err(invalid("the token was canceled".to_owned()));
        }
        let owner: UserName = read
            .owner()
            .parse()
            .map_err(|e: bobbin_types::NameError| invalid(e.to_string()))?;
        let caller = client.user().map(UserName::as_str);
        if caller != Some(read.renewer()) {
            let object = Object::User(&owner);
            decide(&client.principal, Operation::CreateUserToken, &object).map_err(denied)?;
        }
        Ok(read)
    }
}

fn expiry(token: &yarn::YarnDelegationTokenIdentifier) -> WallMillis {
    WallMillis(u64::try_from(token.max_date()).unwrap_or_default())
}

/// The content of a token file: what unmodified clients prove their user with, at the client door
/// and at WebHDFS.
///
/// `token` is Bobbin's own of the same user and life; `real_user` asked for it.
pub(crate) fn credentials(
    minter: &Minter,
    addresses: &Addresses,
    user: &UserName,
    real_user: &str,
    (token, expires): (&str, WallMillis),
) -> Bytes {
    let mut credentials = Credentials::default();
    let delegation = token_for(user, real_user, "", expires);
    let service = service(addresses.client);
    credentials.add(minter.hadoop_keys().issue(delegation, service));
    // Bobbin's own tokens always have the form that WebHDFS clients send; each takes the one whose
    // service is the address that it connects to.
    let webhdfs = delegation::encode(token).and_then(|text| from_url_text(&text).ok());
    for ip in reachable_at(addresses.http.ip()) {
        let Some(mut token) = webhdfs.clone() else {
            break;
        };
        token.service = format!("{}:{}", java_text(ip), addresses.http.port());
        credentials.add(token);
    }
    credentials.write(Version::Writable)
}

/// Every name and address of a door, comma separated: a client takes a token whose service contains
/// the text that it computes itself.
///
/// Source: `SecurityUtil.buildTokenService`, `RMDelegationTokenSelector`.
fn service(address: SocketAddr) -> String {
    let mut hosts: Vec<String> = reachable_at(address.ip()).map(java_text).collect();
    if address.ip().is_unspecified() || address.ip().is_loopback() {
        hosts.push("localhost".to_owned());
    }
    hosts.push(own_name());
    let port = address.port();
    let texts: Vec<String> = hosts.iter().map(|host| format!("{host}:{port}")).collect();
    texts.join(",")
}

/// The addresses that clients can use for a door that is bound to `ip`: itself, or all of the host's.
fn reachable_at(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let mut all = vec![ip];
    if ip.is_unspecified() {
        all = vec![IpAddr::from([127, 0, 0, 1])];
        for own in own_addresses() {
            let usable = own.is_ipv4() || ip.is_ipv6();
            if usable && !all.contains(&own) {
                all.push(own);
            }
        }
    }
    all.truncate(ADDRESSES_MAX);
    all.into_iter()
}

/// Of all interfaces; nobody reaches another host by a link-local one without more words.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let of = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    };
    let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    interfaces
        .filter_map(of)
        .filter(|ip| !link_local(ip))
        .collect()
}

/// As Java writes it: of IPv6 all eight numbers, without brackets.
///
/// Source: `java.net.InetAddress.getHostAddress`.
fn java_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().map(|part| format!("{part:x}")).join(":"),
    }
}

fn own_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use bobbin_hadoop::tokens::WEBHDFS_KIND;
    use bobbin_service::SecretKey;

    use super::*;
    use crate::config::Tokens;

    #[test]
    fn a_token_file_holds_one_token_for_each_door() {
        let secret = SecretKey::from_bytes(&[5; 32]).unwrap();
        let minter = Minter::new(secret, Tokens::default());
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let addresses = Addresses {
            client: at(8032),
            scheduler: at(8030),
            admin: at(8033),
            http: at(8088),
        };
        let user: UserName = "carol".parse().unwrap();
        let (own, expires) = minter.user(&user, 60_000);
        let file = credentials(&minter, &addresses, &user, "root", (&own, expires));
        let credentials = Credentials::read(file).unwrap();
        assert_eq!(credentials.tokens.len(), 2);
        let rm = credentials.of_kind("RM_DELEGATION_TOKEN").unwrap();
        for part in ["127.0.0.1:8032", "localhost:8032"] {
            assert!(rm.service.split(',').any(|s| s == part), "{}", rm.service);
        }
        let read: yarn::YarnDelegationTokenIdentifier = minter.hadoop_keys().verify(rm).unwrap();
        assert_eq!((read.owner(), read.real_user()), ("carol", "root"));
        assert_eq!(read.max_date().unsigned_abs(), expires.0);
        let webhdfs = credentials.of_kind(WEBHDFS_KIND).unwrap();
        assert_eq!(webhdfs.service, "127.0.0.1:8088");
        let text = bobbin_hadoop::tokens::to_url_text(webhdfs);
        assert_eq!(delegation::decode(&text), Some(own));
    }

    #[test]
    fn an_address_that_stands_for_all_has_all_names() {
        let all = service("0.0.0.0:1".parse().unwrap());
        assert!(all.starts_with("127.0.0.1:1,"), "{all}");
        assert!(
            all.contains("localhost:1") && !all.contains("0.0.0.0"),
            "{all}"
        );
        for own in own_addresses().into_iter().filter(IpAddr::is_ipv4) {
            assert!(all.contains(&format!("{own}:1")), "{own}: {all}");
        }
        let one = service("192.0.2.7:1".parse().unwrap());
        assert!(
            one.starts_with("192.0.2.7:1,") && !one.contains("localhost"),
            "{one}"
        );
    }

    #[test]
    fn addresses_as_java_writes_them() {
        assert_eq!(java_text("192.0.2.7".parse().unwrap()), "192.0.2.7");
        assert_eq!(
            java_text("2001:db8::1".parse().unwrap()),
            "2001:db8:0:0:0:0:0:1"
        );
    }
}
