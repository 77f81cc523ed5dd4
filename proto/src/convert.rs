//! Conversions between wire messages and domain types.

use std::str::FromStr;

use bobbin_types::{MAX_COUNTABLE_KINDS, Resource};

use crate::v1;

/// A field of a message that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    pub field: &'static str,
    pub problem: String,
}

/// Parses a text field into a domain type, naming the field when it is refused.
///
/// # Errors
/// The parser's own words behind the field's name.
pub fn field<T>(field: &'static str, text: &str) -> Result<T, FieldError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| FieldError {
        field,
        problem: e.to_string(),
    })
}

impl TryFrom<&v1::Resource> for Resource {
    type Error = FieldError;
    fn try_from(wire: &v1::Resource) -> Result<Self, FieldError> {
        if wire.countable.len() > MAX_COUNTABLE_KINDS {
            return Err(FieldError {
                field: "resource.countable",
                problem: format!(
                    "has {} kinds, at most {MAX_COUNTABLE_KINDS}",
                    wire.countable.len()
                ),
            });
        }
        let mut resource = Resource::new(wire.memory_mib, wire.vcores);
        resource.countable[..wire.countable.len()].copy_from_slice(&wire.countable);
        Ok(resource)
    }
}

impl From<Resource> for v1::Resource {
    fn from(resource: Resource) -> Self {
        let kinds = resource
            .countable
            .iter()
            .rposition(|u| *u > 0)
            .map_or(0, |i| i + 1);
        v1::Resource {
            memory_mib: resource.memory_mib,
            vcores: resource.vcores,
            countable: resource.countable[..kinds].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn resource_round_trip(memory_mib: u64, vcores: u32, countable: [u64; MAX_COUNTABLE_KINDS]) {
            let resource = Resource { memory_mib, vcores, countable };
            prop_assert_eq!(Resource::try_from(&v1::Resource::from(resource)), Ok(resource));
        }
    }

    #[test]
    fn too_many_kinds() {
        let wire = v1::Resource {
            memory_mib: 1,
            vcores: 1,
            countable: vec![1; 7],
        };
        assert!(Resource::try_from(&wire).is_err());
    }
}
