//! The keys that tokens in Hadoop's layout are signed with: made from a secret and the calendar, so
//! that they roll without a record and a restarted daemon has the same ones.

use bobbin_hadoop::tokens::{MasterKey, MasterKeys};
use bobbin_types::WallMillis;

use crate::token::SecretKey;

/// A key signs for so long, milliseconds.
/// Source: `yarn.resourcemanager.am-rm-tokens.master-key-rolling-interval-secs` (24 h).
pub const KEY_ROLL_MS: u64 = 24 * 3600 * 1000;
/// Keys that verify, the signing one included: what a token signed with an older one proved is over.
const KEYS_KEPT: i32 = 64;

/// The key that signs at this time.
#[must_use]
pub fn key_generation(now: WallMillis) -> i32 {
    i32::try_from(now.0 / KEY_ROLL_MS).unwrap_or(i32::MAX)
}

/// The keys of this time below a secret: the resource manager's own for AMRM and delegation tokens, a
/// node's ([`SecretKey::for_node`]) for NM and container tokens.
#[must_use]
pub fn hadoop_keys(secret: &SecretKey, now: WallMillis) -> MasterKeys {
    let current = key_generation(now);
    let key = |id: i32| MasterKey {
        id,
        secret: secret.for_hadoop(id),
    };
    // The next one verifies already: another host's clock may be a little ahead.
    let mut keys = MasterKeys::new(key(current.saturating_add(1)));
    for id in current.saturating_sub(KEYS_KEPT - 1).max(0)..=current {
        keys.roll(key(id));
    }
    keys
}

/// The key of this time alone: enough to sign with.
#[must_use]
pub fn signing_keys(secret: &SecretKey, now: WallMillis) -> MasterKeys {
    let id = key_generation(now);
    MasterKeys::new(MasterKey {
        id,
        secret: secret.for_hadoop(id),
    })
}

#[cfg(test)]
mod tests {
    use bobbin_hadoop::proto::yarn::NmTokenIdentifier;

    use super::*;

    #[test]
    fn keys_roll_with_the_calendar_and_survive_a_restart() {
        let secret = SecretKey::from_bytes(&[3; 32]).unwrap();
        let at = |day: u64| hadoop_keys(&secret, WallMillis(day * KEY_ROLL_MS + 5));
        let now = WallMillis(20_000 * KEY_ROLL_MS);
        let token = signing_keys(&secret, now).issue(NmTokenIdentifier::default(), "");
        let same = at(20_000).issue(NmTokenIdentifier::default(), "");
        assert_eq!(same, token);
        for day in [20_000, 20_001, 20_063] {
            assert!(at(day).verify::<NmTokenIdentifier>(&token).is_ok(), "{day}");
        }
        assert!(at(20_064).verify::<NmTokenIdentifier>(&token).is_err());
        assert!(at(19_999).verify::<NmTokenIdentifier>(&token).is_ok());
        assert!(at(19_998).verify::<NmTokenIdentifier>(&token).is_err());
        let other = SecretKey::from_bytes(&[4; 32]).unwrap();
        let others = hadoop_keys(&other, WallMillis(20_000 * KEY_ROLL_MS));
        assert!(others.verify::<NmTokenIdentifier>(&token).is_err());
    }

    #[test]
    fn the_first_days_have_fewer_keys() {
        let secret = SecretKey::from_bytes(&[3; 32]).unwrap();
        let keys = hadoop_keys(&secret, WallMillis(0));
        assert_eq!(keys.current().id, 0);
    }
}
