//! Which connections there are, and which has to go when there are too many.
//!
//! A client that is not served because strangers hold all connections would wait for them; a Hadoop
//! client whose idle connection is closed makes a new one at its next call and sees nothing. So the
//! longest idle one leaves for a new one, and those that have not proven who they are leave first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Limits;

/// Where a connection stands, as far as that says who has to go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Nothing is proven.
    Unproven = 0,
    /// Proven, and nothing is under way.
    Idle = 1,
    /// Something is under way.
    Busy = 2,
    /// Was told to go.
    Leaving = 3,
}

impl Phase {
    fn from_u8(value: u8) -> Phase {
        match value {
            0 => Phase::Unproven,
            1 => Phase::Idle,
            2 => Phase::Busy,
            _ => Phase::Leaving,
        }
    }
}

/// No connection can leave for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) limit: usize,
}

/// All connections of a server.
#[derive(Debug)]
pub(super) struct Seats {
    table: Arc<Mutex<Table>>,
    start: Instant,
    total_max: usize,
    per_peer_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    peers: HashMap<IpAddr, HashMap<u64, Arc<Shared>>>,
    total: usize,
}

/// What a connection and the table share.
#[derive(Debug)]
struct Shared {
    id: u64,
    phase: AtomicU8,
    /// When its phase began, milliseconds after the server's start.
    since_ms: AtomicU64,
    /// The limit for whose sake it has to go.
    limit: AtomicUsize,
    told: Notify,
}

/// One connection's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    peer: IpAddr,
    start: Instant,
    shared: Arc<Shared>,
    table: Arc<Mutex<Table>>,
}

impl Seats {
    pub(super) fn new(limits: &Limits) -> Seats {
        Seats {
            table: Arc::default(),
            start: Instant::now(),
            total_max: limits.connections_max,
            per_peer_max: limits.connections_per_peer_max,
        }
    }

    /// A place for one more connection; another may be told to go for it.
    ///
    /// # Errors
    /// All are in use.
    pub(super) fn take(&self, address: IpAddr) -> Result<Seat, Full> {
        let peer = network(address);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = table.peers.get(&peer).map_or(0, HashMap::len);
        let limit = if of_peer >= self.per_peer_max {
            let victim = table.peers.get(&peer).and_then(|s| most_idle(s.values()));
            self.displace(victim, of_peer, self.per_peer_max)?;
            self.per_peer_max
        } else {
            self.total_max
        };
        if table.total >= self.total_max && limit == self.total_max {
            let victim = most_idle(table.peers.values().flat_map(HashMap::values));
            self.displace(victim, table.total, self.total_max)?;
        }
        let id = table.next;
        table.next += 1;
        table.total += 1;
        let shared = Arc::new(Shared {
            id,
            phase: AtomicU8::new(Phase::Unproven as u8),
            since_ms: AtomicU64::new(milliseconds(self.start)),
            limit: AtomicUsize::new(limit),
            told: Notify::new(),
        });
        table
            .peers
            .entry(peer)
            .or_default()
            .insert(id, shared.clone());
        Ok(Seat {
            peer,
            start: self.start,
            shared,
            table: self.table.clone(),
        })
    }

    fn displace(
        &self,
        victim: Option<&Arc<Shared>>,
        taken: usize,
        limit: usize,
    ) -> Result<(), Full> {
        // Those that were told and have not left yet may be an eighth more, then new ones wait.
        let victim = victim.filter(|_| taken < limit + limit.div_ceil(8));
        let Some(victim) = victim else {
            return Err(Full { limit });
        };
        victim.phase.store(Phase::Leaving as u8, Ordering::Relaxed);
        victim.limit.store(limit, Ordering::Relaxed);
        victim.told.notify_one();
        Ok(())
    }
}

/// Who goes first: the unproven, then the idle, the longest in that state first.
fn most_idle<'a>(seats: impl Iterator<Item = &'a Arc<Shared>>) -> Option<&'a Arc<Shared>> {
    seats
        .filter_map(|seat| {
            let phase = Phase::from_u8(seat.phase.load(Ordering::Relaxed));
            match phase {
                Phase::Unproven | Phase::Idle => {
                    let since_ms = seat.since_ms.load(Ordering::Relaxed);
                    Some(((phase as u8, since_ms, seat.id), seat))
                }
                Phase::Busy | Phase::Leaving => None,
            }
        })
        .min_by_key(|(order, _)| *order)
        .map(|(_, seat)| seat)
}

/// What counts as one peer: an address, of IPv6 the network that one host may have whole.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let bits = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(bits.into())
        }
    }
}

fn milliseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Seat {
    /// Says where the connection stands; one that was told to go and has something to do stays.
    pub(super) fn set(&self, phase: Phase) {
        let old = Phase::from_u8(self.shared.phase.swap(phase as u8, Ordering::Relaxed));
        if old != phase {
            let now = milliseconds(self.start);
            self.shared.since_ms.store(now, Ordering::Relaxed);
        }
    }

    /// Ready when the connection has to go; for the sake of which limit.
    pub(super) async fn told_to_go(&self) -> usize {
        self.shared.told.notified().await;
        self.shared.limit.load(Ordering::Relaxed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.total -= 1;
        if let Some(seats) = table.peers.get_mut(&self.peer) {
            seats.remove(&self.shared.id);
            if seats.is_empty() {
                table.peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn seats(total: usize, per_peer: usize) -> Seats {
        Seats::new(&Limits {
            connections_max: total,
            connections_per_peer_max: per_peer,
            ..Limits::default()
        })
    }

    fn host(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    async fn is_told(seat: &Seat) -> bool {
        tokio::select! {
            biased;
            _ = seat.told_to_go() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_unproven_go_first_then_the_longest_idle() {
        let seats = seats(3, 3);
        let mut held = Vec::new();
        for (number, phase) in [(1, Phase::Idle), (2, Phase::Unproven), (3, Phase::Idle)] {
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
            let seat = seats.take(host(number)).unwrap();
            seat.set(phase);
            held.push(seat);
        }
        held.push(seats.take(host(4)).unwrap());
        held[3].set(Phase::Busy);
        assert!(is_told(&held[1]).await && !is_told(&held[0]).await);
        drop(held.remove(1));
        held.push(seats.take(host(5)).unwrap());
        held[3].set(Phase::Busy);
        assert!(is_told(&held[0]).await && !is_told(&held[1]).await);
        drop(held.remove(0));
        held[0].set(Phase::Busy);
        assert_eq!(seats.take(host(6)).unwrap_err(), Full { limit: 3 });
    }

    #[tokio::test]
    async fn one_host_displaces_its_own_only() {
        let seats = seats(10, 2);
        let other = seats.take(host(1)).unwrap();
        let first = seats.take(host(2)).unwrap();
        let second = seats.take(host(2)).unwrap();
        let _third = seats.take(host(2)).unwrap();
        assert!(is_told(&first).await);
        assert!(!is_told(&other).await && !is_told(&second).await);
        // Those that were told and stay do not let more and more in.
        assert_eq!(seats.take(host(2)).unwrap_err(), Full { limit: 2 });
        assert!(seats.take(host(3)).is_ok());
    }

    #[test]
    fn one_network_is_one_peer() {
        let v6 = |text: &str| network(text.parse().unwrap());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff:1"));
        assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
        assert_eq!(v6("::ffff:192.0.2.1"), host(1));
    }

    #[tokio::test]
    async fn places_are_given_back() {
        let seats = seats(1, 1);
        for _ in 0..5 {
            let seat = seats.take(host(1)).unwrap();
            seat.set(Phase::Busy);
            assert!(seats.take(host(2)).is_err());
        }
        assert!(seats.table.lock().unwrap().peers.is_empty());
    }
}
