//! Whose socket the other end of a loopback TCP connection is, in the kernel's words.
//!
//! The kernel is asked over netlink for the one socket with the connection's exact four addresses.
//! What does not answer the question in full proves nothing: there is no fallback to anything that
//! a peer could have said itself.
//!
//! Containers share the host's network, and their programs run as their users: so the uid alone does
//! not tell a person from what runs in one of his containers. [`SocketOwner::uid_outside_containers`]
//! does.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvfrom, send, socket,
};

use crate::socket_home::{Home, Host, Socket};

/// Source: `SOCK_DIAG_BY_FAMILY`, linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Source: `NLM_F_REQUEST`, linux/netlink.h. Without the dump flag one exact socket is meant.
const REQUEST: u16 = 1;
/// Source: `TCP_ESTABLISHED`, net/tcp_states.h.
const ESTABLISHED: u8 = 1;
const HEADER_BYTES: usize = 16;
/// `struct inet_diag_req_v2`: family, protocol, extensions, pad, states, then the socket's id.
const REQUEST_BYTES: usize = 56;
/// `struct inet_diag_msg`.
const ANSWER_BYTES: usize = 72;
/// Source: `INET_DIAG_CGROUP_ID`, linux/inet_diag.h; since Linux 5.8.
const CGROUP_ID: u16 = 21;
/// Length and type of a `struct nlattr`.
const ATTRIBUTE_HEADER_BYTES: usize = 4;
const SEQUENCE: u32 = 1;

/// Why the kernel proves nobody.
#[derive(Debug, thiserror::Error)]
pub enum SocketOwnerError {
    #[error("{peer} is not on this host's loopback address")]
    NotLoopback { peer: SocketAddr },
    #[error("the connection from {peer} is gone or half closed")]
    Gone { peer: SocketAddr },
    #[error("the owner of the connection from {peer} has no uid that this process can see")]
    OtherNamespace { peer: SocketAddr },
    #[error(
        "the connection from {peer} comes from inside a container, where a socket proves nobody"
    )]
    InContainer { peer: SocketAddr },
    #[error(
        "user {uid} has containers on this host, and whether the connection from {peer} is one's \
         cannot be told here"
    )]
    Unclear { uid: u32, peer: SocketAddr },
    #[error("the processes of user {uid} cannot be seen in /proc")]
    Unseen { uid: u32 },
    #[error("the processes of this host cannot be listed")]
    Processes(#[source] io::Error),
    #[error("the kernel cannot be asked who owns a socket")]
    Netlink(#[source] io::Error),
    #[error("the kernel's answer about a socket is not understood")]
    Malformed,
}

/// A connection as one of its ends sees it; mapped addresses are IPv4 ones here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
}

/// What the kernel says of one socket.
#[derive(Clone, Copy, Debug)]
struct Answer {
    tuple: Tuple,
    state: u8,
    uid: u32,
    inode: u32,
    /// Of the unified hierarchy, where the socket was made; kernels before 5.8 do not say.
    cgroup: Option<u64>,
}

/// The other end of a loopback connection.
#[derive(Clone, Copy, Debug)]
pub struct SocketOwner {
    uid: u32,
    inode: u32,
    cgroup: Option<u64>,
    tuple: Tuple,
}

impl SocketOwner {
    /// Whose socket it is. A container's has its user's uid: this proves a share of the
    /// connections, not a person.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The uid, if the socket is held outside of all containers. Looks at every process of the
    /// host: blocking, some milliseconds.
    ///
    /// # Errors
    /// It is a container's, that cannot be told, or the connection is gone.
    pub fn uid_outside_containers(&self) -> Result<u32, SocketOwnerError> {
        let peer = SocketAddr::from(self.tuple.from);
        let socket = Socket {
            uid: self.uid,
            inode: self.inode,
            cgroup: self.cgroup,
        };
        let home = Host::this().home(&socket);
        // Still the same socket: so somebody held it all the while, and had to be seen.
        match ask(self.tuple)? {
            Some(now) if now.tuple == self.tuple && now.inode == self.inode => {}
            Some(_) | None => return Err(SocketOwnerError::Gone { peer }),
        }
        match home.map_err(SocketOwnerError::Processes)? {
            Home::Host => Ok(self.uid),
            Home::Container => Err(SocketOwnerError::InContainer { peer }),
            Home::Unclear => Err(SocketOwnerError::Unclear {
                uid: self.uid,
                peer,
            }),
            Home::Unseen => Err(SocketOwnerError::Unseen { uid: self.uid }),
        }
    }
}

/// The owner of the other end of `stream`, an accepted TCP connection with both ends on the
/// loopback address. Does not block: the kernel answers while it is asked.
///
/// Source: sock_diag(7), `inet_diag`.
///
/// # Errors
/// The connection is not a loopback one, is not established any more, or the kernel does not say.
pub fn socket_owner(
    stream: &impl AsFd,
    local: SocketAddr,
    peer: SocketAddr,
) -> Result<SocketOwner, SocketOwnerError> {
    let tuple = Tuple {
        from: (peer.ip().to_canonical(), peer.port()),
        to: (local.ip().to_canonical(), local.port()),
    };
    if !tuple.from.0.is_loopback() || !tuple.to.0.is_loopback() {
        return Err(SocketOwnerError::NotLoopback { peer });
    }
    let gone = || SocketOwnerError::Gone { peer };
    let theirs = ask(tuple)?.ok_or_else(gone)?;
    // An orphan has no inode, and its uid then reads as root's: closing early must not help.
    if theirs.tuple != tuple || theirs.state != ESTABLISHED || theirs.inode == 0 {
        return Err(gone());
    }
    // While this end is established nobody else can have had these four addresses: so the socket
    // above is this connection's, not that of a later one with a reused port.
    let ours = ask(tuple.reversed())?.ok_or_else(gone)?;
    let own_inode = nix::sys::stat::fstat(stream.as_fd())
        .map_err(|e| SocketOwnerError::Netlink(e.into()))?
        .st_ino;
    if ours.tuple != tuple.reversed()
        || ours.state != ESTABLISHED
        || u64::from(ours.inode) != own_inode & u64::from(u32::MAX)
    {
        return Err(gone());
    }
    if theirs.uid == overflow_uid() && !sees_every_uid() {
        return Err(SocketOwnerError::OtherNamespace { peer });
    }
    Ok(SocketOwner {
        uid: theirs.uid,
        inode: theirs.inode,
        cgroup: theirs.cgroup,
        tuple,
    })
}

/// What uids without a name in this user namespace are shown as.
fn overflow_uid() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    text.trim().parse().unwrap_or(65_534)
}

/// Whether this is the initial user namespace (or one with all its uids).
fn sees_every_uid() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = map.split_ascii_whitespace().collect();
    fields == ["0", "0", "4294967295"]
}

impl Tuple {
    fn reversed(self) -> Tuple {
        Tuple {
            from: self.to,
            to: self.from,
        }
    }
}

/// Asks for the socket at `tuple.from` that is connected to `tuple.to`; `None` when there is none.
fn ask(tuple: Tuple) -> Result<Option<Answer>, SocketOwnerError> {
    let failed = |e: Errno| SocketOwnerError::Netlink(e.into());
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkSockDiag,
    )
    .map_err(failed)?;
    send(
        netlink.as_raw_fd(),
        &question(tuple),
        MsgFlags::MSG_DONTWAIT,
    )
    .map_err(failed)?;
    let mut buffer = [0_u8; 1024];
    let (length, sender) =
        recvfrom::<NetlinkAddr>(netlink.as_raw_fd(), &mut buffer).map_err(failed)?;
    if sender.is_none_or(|s| s.pid() != 0) {
        return Err(SocketOwnerError::Malformed);
    }
    read(buffer.get(..length).unwrap_or_default())
}

fn question(tuple: Tuple) -> Vec<u8> {
    let (family, protocol) = match tuple.from.0 {
        IpAddr::V4(_) => (nix::libc::AF_INET, nix::libc::IPPROTO_TCP),
        IpAddr::V6(_) => (nix::libc::AF_INET6, nix::libc::IPPROTO_TCP),
    };
    let length = HEADER_BYTES + REQUEST_BYTES;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or_default().to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    bytes.extend(SEQUENCE.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.push(u8::try_from(family).unwrap_or_default());
    bytes.push(u8::try_from(protocol).unwrap_or_default());
    bytes.extend([0, 0]);
    bytes.extend((1_u32 << ESTABLISHED).to_ne_bytes());
    bytes.extend(tuple.from.1.to_be_bytes());
    bytes.extend(tuple.to.1.to_be_bytes());
    for address in [tuple.from.0, tuple.to.0] {
        match address {
            IpAddr::V4(v4) => {
                bytes.extend(v4.octets());
                bytes.extend([0; 12]);
            }
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    // Any interface, no cookie.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([0xFF; 8]);
    bytes
}

fn read(bytes: &[u8]) -> Result<Option<Answer>, SocketOwnerError> {
    let malformed = SocketOwnerError::Malformed;
    let field16 = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let field32 = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (Some(kind), Some(sequence)) = (field16(4), field32(8)) else {
        return Err(malformed);
    };
    if sequence != SEQUENCE {
        return Err(malformed);
    }
    if i32::from(kind) == nix::libc::NLMSG_ERROR {
        let number = field32(HEADER_BYTES).map(u32::cast_signed).unwrap_or(0);
        let errno = Errno::from_raw(number.saturating_neg());
        if errno == Errno::ENOENT {
            return Ok(None);
        }
        return Err(SocketOwnerError::Netlink(errno.into()));
    }
    if kind != SOCK_DIAG_BY_FAMILY || bytes.len() < HEADER_BYTES + ANSWER_BYTES {
        return Err(malformed);
    }
    answer(&bytes[HEADER_BYTES..])
        .map(Some)
        .ok_or(SocketOwnerError::Malformed)
}

/// Reads a `struct inet_diag_msg`.
fn answer(body: &[u8]) -> Option<Answer> {
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let number = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let family = i32::from(*body.first()?);
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = body.get(at..at + 16)?.try_into().ok()?;
        if family == nix::libc::AF_INET {
            let [a, b, c, d, ..] = octets;
            Some(IpAddr::from([a, b, c, d]))
        } else if family == nix::libc::AF_INET6 {
            Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
        } else {
            None
        }
    };
    Some(Answer {
        state: *body.get(1)?,
        tuple: Tuple {
            from: (address(8)?, port(4)?),
            to: (address(24)?, port(6)?),
        },
        uid: number(64)?,
        inode: number(68)?,
        cgroup: cgroup_of(body.get(ANSWER_BYTES..).unwrap_or_default()),
    })
}

/// The group among the attributes behind an answer.
fn cgroup_of(mut attributes: &[u8]) -> Option<u64> {
    loop {
        let (header, _) = attributes.split_first_chunk::<ATTRIBUTE_HEADER_BYTES>()?;
        let [a, b, c, d] = *header;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        if u16::from_ne_bytes([c, d]) == CGROUP_ID {
            return Some(u64::from_ne_bytes(value.try_into().ok()?));
        }
        // Each begins at a multiple of four.
        attributes = attributes.get(length.next_multiple_of(ATTRIBUTE_HEADER_BYTES)..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    fn accepted(bind: &str, connect: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(bind).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(format!("{connect}:{port}")).unwrap();
        (listener.accept().unwrap().0, client)
    }

    fn owner(server: &TcpStream) -> Result<SocketOwner, SocketOwnerError> {
        socket_owner(
            server,
            server.local_addr().unwrap(),
            server.peer_addr().unwrap(),
        )
    }

    fn uid(server: &TcpStream) -> Result<u32, SocketOwnerError> {
        owner(server)?.uid_outside_containers()
    }

    #[test]
    fn own_sockets_are_ones_own() {
        let own = crate::own_uid();
        // Addresses as seen: plain IPv4, IPv6, and IPv4 that reached an IPv6 listener.
        for (bind, connect) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "[::1]"),
            ("[::]:0", "127.0.0.1"),
            ("127.0.0.1:0", "[::ffff:127.0.0.1]"),
        ] {
            let (server, _client) = accepted(bind, connect);
            assert_eq!(uid(&server).unwrap(), own, "{bind} {connect}");
        }
    }

    #[test]
    fn a_closed_or_half_closed_end_proves_nobody() {
        let (server, client) = accepted("127.0.0.1:0", "127.0.0.1");
        client.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(owner(&server), Err(SocketOwnerError::Gone { .. })));
        let (server, client) = accepted("127.0.0.1:0", "127.0.0.1");
        let (local, peer) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        drop(client);
        let gone = socket_owner(&server, local, peer);
        assert!(matches!(gone, Err(SocketOwnerError::Gone { .. })));
    }

    #[test]
    fn another_connection_of_the_same_addresses_is_not_taken_for_this_one() {
        let (server, _client) = accepted("127.0.0.1:0", "127.0.0.1");
        let (other, _other_client) = accepted("127.0.0.1:0", "127.0.0.1");
        let wrong = socket_owner(
            &other,
            server.local_addr().unwrap(),
            server.peer_addr().unwrap(),
        );
        assert!(matches!(wrong, Err(SocketOwnerError::Gone { .. })));
        let far = "192.0.2.1:5".parse().unwrap();
        let far = socket_owner(&server, server.local_addr().unwrap(), far);
        assert!(matches!(far, Err(SocketOwnerError::NotLoopback { .. })));
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test that needs a process of another user"
    )]
    #[test]
    fn another_user_is_that_user() {
        if crate::own_uid() != 0 {
            println!("SKIPPED: needs root");
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // The redirection connects; `cat` waits until this end closes.
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3");
        let mut child = std::process::Command::new("setpriv")
            .args(["--reuid=12345", "--regid=12345", "--clear-groups", "bash"])
            .args(["-c", &script])
            .stdin(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(uid(&server).unwrap(), 12345);
        drop(server);
        child.wait().unwrap();
    }

    #[test]
    fn who_is_gone_when_it_is_asked_again_proves_nobody() {
        let (server, client) = accepted("127.0.0.1:0", "127.0.0.1");
        let owner = owner(&server).unwrap();
        assert_eq!(owner.uid(), crate::own_uid());
        drop(client);
        let gone = owner.uid_outside_containers();
        assert!(
            matches!(gone, Err(SocketOwnerError::Gone { .. })),
            "{gone:?}"
        );
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test that needs a process in another pid namespace"
    )]
    #[test]
    fn a_process_in_a_pid_namespace_of_its_own_proves_nobody() {
        let unshared = |words: &[&str]| {
            let mut command = std::process::Command::new("unshare");
            command
                .args(["--fork", "--pid", "--kill-child"])
                .args(words);
            command.stdin(std::process::Stdio::null());
            command
        };
        if !unshared(&["true"]).status().is_ok_and(|s| s.success()) {
            println!("SKIPPED: a_process_in_a_pid_namespace_of_its_own_proves_nobody: needs root");
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3");
        let mut child = unshared(&["bash", "-c", &script]).spawn().unwrap();
        let (server, _) = listener.accept().unwrap();
        let refused = uid(&server);
        assert!(
            matches!(refused, Err(SocketOwnerError::InContainer { .. })),
            "{refused:?}"
        );
        // Beside it the same user is still himself, by a socket of the host.
        let (own, _client) = accepted("127.0.0.1:0", "127.0.0.1");
        assert_eq!(uid(&own).unwrap(), crate::own_uid());
        drop(server);
        child.wait().unwrap();
    }

    #[test]
    fn a_sockets_group_is_found_among_the_attributes() {
        let group = 0x0102_0304_0506_0708_u64;
        let mut bytes = Vec::new();
        // One byte of another kind, padded, then the group.
        for (kind, value) in [(8_u16, vec![3]), (CGROUP_ID, group.to_ne_bytes().to_vec())] {
            let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + value.len()).unwrap();
            bytes.extend(length.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        assert_eq!(cgroup_of(&bytes), Some(group));
        for length in 0..bytes.len() {
            assert_eq!(cgroup_of(&bytes[..length]), None, "{length}");
        }
        // A length of zero leads nowhere, and not round and round.
        assert_eq!(cgroup_of(&[0; 64]), None);
    }

    #[test]
    fn answers_of_any_bytes_do_not_panic() {
        use proptest::prelude::*;
        proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..200))| {
            drop(read(&bytes));
            let _ = answer(&bytes);
            let _ = cgroup_of(&bytes);
        });
    }
}
