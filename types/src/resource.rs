//! Resources: what a node has, what a container is granted.

use std::fmt;

/// Countable kinds a cluster may name beside memory and vcores.
pub const MAX_COUNTABLE_KINDS: usize = 6;

/// Memory in MiB, vcores, and up to six further countable kinds named by the cluster.
///
/// Source: `org.apache.hadoop.yarn.api.records.Resource`; sizes are integers, all sums are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    pub memory_mib: u64,
    pub vcores: u32,
    /// Units of the cluster's further kinds, by their index in its settings.
    pub countable: [u64; MAX_COUNTABLE_KINDS],
}

/// A size no cluster has, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    #[error(
        "'{0}' is not a size: write a whole number with k, m, g or t (512m, 2g), MiB without a letter"
    )]
    NotASize(String),
    #[error("memory must be at least 1 MiB, not '{0}'")]
    TooSmall(String),
    #[error("'{0}' is larger than any memory")]
    TooLarge(String),
}

impl Resource {
    #[must_use]
    pub const fn new(memory_mib: u64, vcores: u32) -> Resource {
        Resource {
            memory_mib,
            vcores,
            countable: [0; MAX_COUNTABLE_KINDS],
        }
    }

    #[must_use]
    pub fn checked_add(&self, other: &Resource) -> Option<Resource> {
        let mut sum = Resource::new(
            self.memory_mib.checked_add(other.memory_mib)?,
            self.vcores.checked_add(other.vcores)?,
        );
        for (i, unit) in sum.countable.iter_mut().enumerate() {
            *unit = self.countable[i].checked_add(other.countable[i])?;
        }
        Some(sum)
    }

    /// The difference, or `None` when any part of `other` is larger.
    #[must_use]
    pub fn checked_sub(&self, other: &Resource) -> Option<Resource> {
        let mut rest = Resource::new(
            self.memory_mib.checked_sub(other.memory_mib)?,
            self.vcores.checked_sub(other.vcores)?,
        );
        for (i, unit) in rest.countable.iter_mut().enumerate() {
            *unit = self.countable[i].checked_sub(other.countable[i])?;
        }
        Some(rest)
    }

    /// Whether all of this fits into `room`.
    #[must_use]
    pub fn fits_in(&self, room: &Resource) -> bool {
        room.checked_sub(self).is_some()
    }

    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Resource::default()
    }

    /// The largest share that `self` takes of `total` over all kinds, in millionths, rounded up.
    /// A kind that `total` lacks counts only when it is used.
    ///
    /// Source: Ghodsi et al., Dominant Resource Fairness, NSDI 2011; YARN's DominantResourceCalculator.
    #[must_use]
    pub fn dominant_share(&self, total: &Resource) -> u64 {
        let share = |used: u64, of: u64| match (used, of) {
            (0, _) => 0,
            (_, 0) => u64::MAX,
            (used, of) => {
                let millionths = (u128::from(used) * 1_000_000).div_ceil(u128::from(of));
                u64::try_from(millionths).unwrap_or(u64::MAX)
            }
        };
        let mut dominant = share(self.memory_mib, total.memory_mib);
        dominant = dominant.max(share(u64::from(self.vcores), u64::from(total.vcores)));
        for (used, of) in self.countable.iter().zip(total.countable) {
            dominant = dominant.max(share(*used, of));
        }
        dominant
    }

    /// Reads a memory size as Spark writes it (`512m`, `2g`, `1024`): MiB, rounded up.
    ///
    /// Source: Spark's `JavaUtils.byteStringAsMb`.
    ///
    /// # Errors
    /// The text when it is not a size, is zero, or is larger than 2^53 bytes.
    pub fn parse_memory_mib(text: &str) -> Result<u64, ResourceError> {
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = lower.split_at(digits);
        let not_a_size =
            || ResourceError::NotASize(text.chars().filter(|c| !c.is_control()).take(40).collect());
        if number.is_empty() {
            return Err(not_a_size());
        }
        let number: u128 = number
            .parse()
            .map_err(|_| ResourceError::TooLarge(number.chars().take(40).collect()))?;
        let bytes_per_unit: u128 = match unit {
            "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "" | "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return Err(not_a_size()),
        };
        let too_large = || ResourceError::TooLarge(text.chars().take(40).collect());
        let bytes = number
            .checked_mul(bytes_per_unit)
            .filter(|b| *b < 1 << 53)
            .ok_or_else(too_large)?;
        if bytes == 0 {
            return Err(ResourceError::TooSmall(text.to_owned()));
        }
        u64::try_from(bytes.div_ceil(1 << 20)).map_err(|_| too_large())
    }
}

impl fmt::Display for Resource {
    /// `1024 MiB, 2 vcores`, further kinds by their index.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.vcores == 1 { "" } else { "s" };
        write!(f, "{} MiB, {} vcore{plural}", self.memory_mib, self.vcores)?;
        for (i, unit) in self
            .countable
            .iter()
            .enumerate()
            .filter(|(_, unit)| **unit > 0)
        {
            write!(f, ", {unit} of kind {i}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_as_spark_writes_them() {
        for (text, mib) in [
            ("512m", 512),
            ("2g", 2048),
            ("1024", 1024),
            ("1k", 1),
            ("1T", 1 << 20),
            ("3GB", 3072),
        ] {
            assert_eq!(Resource::parse_memory_mib(text), Ok(mib), "{text}");
        }
        for text in [
            "",
            "g",
            "1gb2",
            "-1g",
            "1.5g",
            "0",
            "0g",
            "99999999999t",
            "1 g x",
        ] {
            assert!(Resource::parse_memory_mib(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dominant_share_is_the_largest() {
        let total = Resource::new(1000, 10);
        assert_eq!(Resource::new(100, 5).dominant_share(&total), 500_000);
        assert_eq!(Resource::new(900, 5).dominant_share(&total), 900_000);
        assert_eq!(Resource::default().dominant_share(&total), 0);
    }

    proptest! {
        #[test]
        fn sums_undo(a in 0..u64::MAX / 2, b in 0..u64::MAX / 2, c: u16, d: u16) {
            let (x, y) = (Resource::new(a, c.into()), Resource::new(b, d.into()));
            let sum = x.checked_add(&y).unwrap();
            prop_assert_eq!(sum.checked_sub(&y), Some(x));
            prop_assert!(x.fits_in(&sum));
        }
    }
}
