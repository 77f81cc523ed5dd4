//! How many connections one caller may hold: a share of all, so that nobody keeps the others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::caller::Origin;

/// Connections of one uid of this host, or of one address elsewhere.
const OF_ONE_MAX: usize = 1_024;

/// Who holds a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    Uid(u32),
    Address(IpAddr),
}

impl Holder {
    pub(super) fn of(origin: &Origin, address: IpAddr) -> Holder {
        match origin {
            Origin::Loopback(Ok(peer)) => Holder::Uid(peer.uid()),
            Origin::Loopback(Err(_)) | Origin::Elsewhere => Holder::Address(address),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<HashMap<Holder, usize>>);

/// A place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    holder: Holder,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, HashMap<Holder, usize>> {
        // Every change is one statement, so a panic elsewhere leaves the map consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: he has his share.
    pub(super) fn take(self: &Arc<Self>, holder: Holder) -> Option<Seat> {
        let mut taken = self.taken();
        let count = taken.entry(holder).or_default();
        if *count >= OF_ONE_MAX {
            return None;
        }
        *count += 1;
        Some(Seat {
            seats: self.clone(),
            holder,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if let Some(count) = taken.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_share_and_gives_it_back() {
        let seats = Arc::new(Seats::default());
        let mut held: Vec<Seat> = (0..OF_ONE_MAX)
            .map(|_| seats.take(Holder::Uid(7)).unwrap())
            .collect();
        assert!(seats.take(Holder::Uid(7)).is_none());
        assert!(seats.take(Holder::Uid(8)).is_some());
        held.pop();
        held.push(seats.take(Holder::Uid(7)).unwrap());
        drop(held);
        assert!(seats.taken().is_empty());
    }

    #[test]
    fn who_is_not_proven_is_his_address() {
        let address = "127.0.0.1".parse().unwrap();
        let of = |origin| Holder::of(&origin, address);
        assert_eq!(of(Origin::Elsewhere), Holder::Address(address));
        assert_eq!(
            of(Origin::Loopback(Err("gone".into()))),
            Holder::Address(address)
        );
    }
}
