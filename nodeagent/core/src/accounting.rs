//! What the node has and what its containers hold.

use bobbin_types::Resource;

/// The node's capacity and the sum of what live containers were granted.
///
/// An admission never takes `used` above `capacity`. Only containers found at start may: settings can
/// have shrunk under them, and a running container is not ended for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounting {
    capacity: Resource,
    used: Resource,
}

impl Accounting {
    /// `reserved` larger than `total` leaves nothing of that kind.
    #[must_use]
    pub fn new(total: &Resource, reserved: &Resource) -> Accounting {
        let mut capacity = Resource::new(
            total.memory_mib.saturating_sub(reserved.memory_mib),
            total.vcores.saturating_sub(reserved.vcores),
        );
        for (i, unit) in capacity.countable.iter_mut().enumerate() {
            *unit = total.countable[i].saturating_sub(reserved.countable[i]);
        }
        Accounting {
            capacity,
            used: Resource::default(),
        }
    }

    #[must_use]
    pub fn capacity(&self) -> Resource {
        self.capacity
    }

    #[must_use]
    pub fn used(&self) -> Resource {
        self.used
    }

    /// What is free; nothing of a kind that found containers oversubscribe.
    #[must_use]
    pub fn free(&self) -> Resource {
        Accounting::new(&self.capacity, &self.used).capacity
    }

    /// Takes room for a new container; says in words why there is none.
    pub(crate) fn admit(&mut self, resource: &Resource) -> Result<(), String> {
        if resource.is_zero() {
            return Err("it asks for no memory and no vcores".to_owned());
        }
        let sum = self
            .used
            .checked_add(resource)
            .filter(|sum| sum.fits_in(&self.capacity));
        match sum {
            Some(sum) => {
                self.used = sum;
                Ok(())
            }
            None => Err(format!(
                "it needs {resource}, but of the node's {} only {} are free",
                self.capacity,
                self.free()
            )),
        }
    }

    /// Takes the difference between two sizes of one container, or gives it back.
    pub(crate) fn exchange(&mut self, former: &Resource, wanted: &Resource) -> Result<(), String> {
        let before = self.used;
        self.release(former);
        let admitted = self.admit(wanted);
        if admitted.is_err() {
            self.used = before;
        }
        admitted
    }

    /// Counts a container that already runs, room or not.
    pub(crate) fn count_found(&mut self, resource: &Resource) {
        self.used = self.used.checked_add(resource).unwrap_or(Resource {
            memory_mib: u64::MAX,
            vcores: u32::MAX,
            countable: [u64::MAX; bobbin_types::MAX_COUNTABLE_KINDS],
        });
    }

    pub(crate) fn release(&mut self, resource: &Resource) {
        self.used = self
            .used
            .checked_sub(resource)
            .expect("what is released was counted when it was admitted or found");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_total_less_reserved() {
        let mut accounting = Accounting::new(&Resource::new(1000, 8), &Resource::new(200, 0));
        assert_eq!(accounting.capacity(), Resource::new(800, 8));
        assert_eq!(accounting.admit(&Resource::new(800, 1)), Ok(()));
        assert_eq!(
            accounting.admit(&Resource::new(1, 1)),
            Err("it needs 1 MiB, 1 vcore, but of the node's 800 MiB, 8 vcores only 0 MiB, 7 vcores are free".into())
        );
        accounting.release(&Resource::new(800, 1));
        assert_eq!(accounting.used(), Resource::default());
    }

    #[test]
    fn nothing_and_everything_are_refused() {
        let mut accounting = Accounting::new(&Resource::new(10, 1), &Resource::new(20, 0));
        assert!(accounting.admit(&Resource::default()).is_err());
        assert!(
            accounting
                .admit(&Resource::new(u64::MAX, u32::MAX))
                .is_err()
        );
        assert_eq!(accounting.free(), Resource::new(0, 1));
    }

    #[test]
    fn found_containers_count_beyond_the_capacity() {
        let mut accounting = Accounting::new(&Resource::new(10, 1), &Resource::default());
        accounting.count_found(&Resource::new(30, 1));
        assert_eq!(accounting.free(), Resource::default());
        assert!(accounting.admit(&Resource::new(1, 0)).is_err());
    }
}
