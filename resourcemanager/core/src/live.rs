//! The applications that have not ended, and what each user holds of them: their submissions stay in
//! memory and in the journal until they end.

use std::collections::BTreeMap;

use bobbin_types::{ApplicationId, UserName};

use crate::event::Submission;
use crate::limits::{
    APPLICATIONS_LIVE_MAX, APPLICATIONS_LIVE_PER_USER_MAX, SUBMISSION_BYTES_LIVE_MAX,
    SUBMISSION_BYTES_LIVE_PER_USER_MAX,
};
use crate::record::SubmittedApplication;
use crate::refusal::Refusal;

/// Applications and the bytes of their submissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    applications: u64,
    bytes: u64,
}

/// In the order of their ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveApplications {
    all: BTreeMap<ApplicationId, (UserName, u64)>,
    of_users: BTreeMap<UserName, Held>,
    bytes: u64,
}

impl LiveApplications {
    pub(crate) fn contains(&self, id: &ApplicationId) -> bool {
        self.all.contains_key(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ApplicationId> {
        self.all.keys()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn insert(&mut self, spec: &SubmittedApplication) {
        self.remove(&spec.application);
        let bytes = bytes_of(&spec.submission);
        let held = self.of_users.entry(spec.user.clone()).or_default();
        held.applications += 1;
        held.bytes += bytes;
        self.bytes += bytes;
        self.all
            .insert(spec.application, (spec.user.clone(), bytes));
    }

    pub(crate) fn remove(&mut self, id: &ApplicationId) {
        let Some((user, bytes)) = self.all.remove(id) else {
            return;
        };
        self.bytes -= bytes;
        if let Some(held) = self.of_users.get_mut(&user) {
            held.applications -= 1;
            held.bytes -= bytes;
            if held.applications == 0 {
                self.of_users.remove(&user);
            }
        }
    }

    /// Whether there is room for one more of `user`. Nobody's share is all of it: whoever submits
    /// without end keeps only himself out.
    ///
    /// # Errors
    /// `Full`: it may succeed when others have ended.
    pub(crate) fn check_room(
        &self,
        user: &UserName,
        submission: &Submission,
    ) -> Result<(), Refusal> {
        let bytes = bytes_of(submission);
        let held = self.of_users.get(user).copied().unwrap_or_default();
        let all = u64::try_from(self.all.len()).unwrap_or(u64::MAX);
        for (what, number, max) in [
            (
                "applications that have not ended",
                all + 1,
                APPLICATIONS_LIVE_MAX,
            ),
            (
                "your applications that have not ended",
                held.applications + 1,
                APPLICATIONS_LIVE_PER_USER_MAX,
            ),
            (
                "bytes of the submissions of all applications that have not ended",
                self.bytes + bytes,
                SUBMISSION_BYTES_LIVE_MAX,
            ),
            (
                "bytes of the submissions of your applications that have not ended",
                held.bytes + bytes,
                SUBMISSION_BYTES_LIVE_PER_USER_MAX,
            ),
        ] {
            if number > max {
                return Err(Refusal::Full { what, number, max });
            }
        }
        Ok(())
    }

    /// The sums again, from the beginning: an invariant.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut of_users: BTreeMap<UserName, Held> = BTreeMap::new();
        for (user, bytes) in self.all.values() {
            let held = of_users.entry(user.clone()).or_default();
            held.applications += 1;
            held.bytes += bytes;
        }
        let bytes: u64 = of_users.values().map(|held| held.bytes).sum();
        if of_users == self.of_users && bytes == self.bytes {
            Ok(())
        } else {
            Err(format!(
                "users hold {of_users:?}, {:?} is accounted",
                self.of_users
            ))
        }
    }
}

/// What a submission takes: its texts, and a little for each of its parts.
fn bytes_of(submission: &Submission) -> u64 {
    /// Of a text's own place.
    const PART_BYTES: u64 = 32;
    let launch = &submission.launch;
    let pairs = launch.environment.iter().chain(&submission.settings);
    let resources = launch.local_resources.iter();
    let texts = (launch.argv.iter().chain(&submission.tags).map(String::len))
        .chain(pairs.map(|(name, value)| name.len() + value.len()))
        .chain(resources.map(|file| file.name.len() + file.source.len()))
        .chain(
            launch
                .secrets
                .iter()
                .map(|(name, s)| name.len() + s.0.len()),
        )
        .chain(
            launch
                .service_data
                .iter()
                .map(|(name, d)| name.len() + d.len()),
        )
        .chain([
            submission.name.len(),
            submission.view_acl.len(),
            submission.modify_acl.len(),
        ]);
    texts.fold(0, |sum: u64, length| {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        sum.saturating_add(length).saturating_add(PART_BYTES)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::world;

    fn spec(number: u32, user: &str, bytes: usize) -> SubmittedApplication {
        let mut submission = world::submission();
        submission.launch.argv = vec!["x".repeat(bytes)];
        SubmittedApplication {
            application: world::application(number),
            user: user.parse().unwrap(),
            submission,
            submitted: bobbin_types::WallMillis(0),
        }
    }

    fn room(live: &LiveApplications, user: &str, bytes: usize) -> Option<String> {
        let wanted = spec(0, user, bytes);
        let checked = live.check_room(&wanted.user, &wanted.submission);
        checked.err().map(|refusal| refusal.to_string())
    }

    #[test]
    fn who_submits_without_end_keeps_only_himself_out() {
        let mut live = LiveApplications::default();
        let most = u32::try_from(APPLICATIONS_LIVE_PER_USER_MAX).unwrap();
        for number in 1..=most {
            assert_eq!(room(&live, "ann", 1), None);
            live.insert(&spec(number, "ann", 1));
        }
        let words = room(&live, "ann", 1).unwrap();
        assert!(words.starts_with("your applications"), "{words}");
        assert_eq!(room(&live, "bob", 1), None);
        live.check().unwrap();
        live.remove(&world::application(7));
        assert_eq!(room(&live, "ann", 1), None);
    }

    #[test]
    fn large_submissions_have_a_share_and_give_it_back() {
        let mut live = LiveApplications::default();
        let size = 1 << 20;
        let mut last = 0;
        while room(&live, "ann", size).is_none() {
            last += 1;
            live.insert(&spec(last, "ann", size));
        }
        assert!((250..256).contains(&last), "{last}");
        let words = room(&live, "ann", size).unwrap();
        assert!(
            words.contains("bytes of the submissions of your"),
            "{words}"
        );
        // Small ones and others' have room.
        assert_eq!(
            (room(&live, "ann", 10), room(&live, "bob", size)),
            (None, None)
        );
        // Said twice: counted once.
        live.insert(&spec(1, "ann", size));
        live.check().unwrap();
        for number in 1..=last {
            live.remove(&world::application(number));
        }
        live.check().unwrap();
        assert_eq!((live.len(), live.bytes, live.of_users.len()), (0, 0, 0));
    }
}
