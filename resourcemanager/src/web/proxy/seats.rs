//! How many requests take long at a time: nobody's pages that hang keep others from theirs, and
//! nobody's readers that stop fill this daemon's memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bobbin_types::UserName;

/// All of a kind at a time, and those of one user: forwarded to pages of his applications, lists
/// that he reads, or files that he writes.
const ALL_MAX: usize = 512;
const USER_MAX: usize = 128;

#[derive(Clone, Debug, Default)]
pub(crate) struct Seats(Arc<Mutex<BTreeMap<UserName, usize>>>);

/// One such request, until dropped.
#[derive(Debug)]
pub(in crate::web) struct Seat {
    seats: Seats,
    owner: UserName,
}

impl Seats {
    /// `None`: there are too many of `owner`, or at all.
    pub(in crate::web) fn take(&self, owner: &UserName) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(owner).copied().unwrap_or_default();
        if own >= USER_MAX || taken.values().sum::<usize>() >= ALL_MAX {
            return None;
        }
        taken.insert(owner.clone(), own + 1);
        drop(taken);
        Some(Seat {
            seats: self.clone(),
            owner: owner.clone(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.owner) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_users_hanging_pages_leave_room_for_others() {
        let seats = Seats::default();
        let user = |n: usize| format!("u{n}").parse::<UserName>().unwrap();
        let mut held: Vec<Seat> = (0..USER_MAX).map_while(|_| seats.take(&user(0))).collect();
        assert_eq!(held.len(), USER_MAX);
        assert!(seats.take(&user(0)).is_none());
        for n in 1..ALL_MAX / USER_MAX {
            held.extend((0..USER_MAX).map_while(|_| seats.take(&user(n))));
        }
        assert_eq!(held.len(), ALL_MAX);
        assert!(seats.take(&user(9)).is_none());
        drop(held);
        assert!(seats.take(&user(0)).is_some());
        assert!(seats.0.lock().unwrap().is_empty());
    }
}
