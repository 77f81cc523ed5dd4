//! Tokens that were canceled before their end: refused at every door from then on.
//!
//! Tokens are good by their signature alone, so the list names what is not, and only until the
//! token would have ended anyway. One line a token: its digest, and its end in Unix milliseconds.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bobbin_service::{atomic_write, wall_now};
use bobbin_types::WallMillis;
use sha2::{Digest, Sha256};

/// Canceled tokens that have not ended. Everybody can cancel only what he was given.
const TOKENS_MAX: usize = 100_000;

/// Why a token cannot be canceled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    #[error("{TOKENS_MAX} canceled tokens have not ended yet: no more are remembered")]
    TooMany,
    #[error("the list of canceled tokens cannot be written")]
    Write(#[source] io::Error),
    #[error(transparent)]
    File(#[from] bobbin_service::FileError),
}

/// The list. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Revoked {
    /// `None`: kept in memory only.
    file: Option<PathBuf>,
    ends: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// What stands for a token: nobody can make the token from it.
fn digest(token: &[u8]) -> String {
    let digest = Sha256::digest(token);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

impl Revoked {
    /// Reads the list and forgets whom time has taken care of. Blocks.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn open(file: &Path) -> Result<Revoked, RevokeError> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(RevokeError::Write(e)),
        };
        let now = wall_now().0;
        // A line that a crash cut short was never acknowledged.
        let ends: BTreeMap<String, u64> = text
            .lines()
            .filter_map(|line| {
                let (digest, end) = line.split_once(' ')?;
                let end = end.parse().ok().filter(|end| *end > now)?;
                (digest.len() == 64).then(|| (digest.to_owned(), end))
            })
            .collect();
        let kept: String = ends
            .iter()
            .map(|(digest, end)| format!("{digest} {end}\n"))
            .collect();
        atomic_write(file, kept.as_bytes(), 0o600)?;
        Ok(Revoked {
            file: Some(file.to_owned()),
            ends: Arc::new(Mutex::new(ends)),
        })
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        // Every change is one statement, so a panic elsewhere leaves the list consistent.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn contains(&self, token: &[u8]) -> bool {
        let ends = self.ends();
        // Almost always nobody has canceled anything.
        !ends.is_empty() && ends.contains_key(&digest(token))
    }

    /// Cancels a token for good; durable when it returns. Blocks.
    ///
    /// # Errors
    /// The list is full, or the disk refuses: the token then stays good.
    pub(crate) fn cancel(&self, token: &[u8], expires: WallMillis) -> Result<(), RevokeError> {
        let now = wall_now();
        if expires <= now {
            return Ok(());
        }
        let mut ends = self.ends();
        if ends.len() >= TOKENS_MAX {
            ends.retain(|_, end| *end > now.0);
        }
        if ends.len() >= TOKENS_MAX {
            return Err(RevokeError::TooMany);
        }
        let digest = digest(token);
        if let Some(file) = &self.file {
            let append = || -> io::Result<()> {
                let mut file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .open(file)?;
                // A line of its own even behind one that was cut short.
                file.write_all(format!("\n{digest} {}\n", expires.0).as_bytes())?;
                file.sync_all()
            };
            append().map_err(RevokeError::Write)?;
        }
        ends.insert(digest, expires.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canceled_token_stays_so_until_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("revoked");
        let list = Revoked::open(&file).unwrap();
        let later = WallMillis(wall_now().0 + 60_000);
        list.cancel(b"one", later).unwrap();
        list.cancel(b"ended", WallMillis(1)).unwrap();
        assert!(list.contains(b"one") && !list.contains(b"two"));
        // What is cut short, made up or over is not read; the rest is.
        let mut text = std::fs::read_to_string(&file).unwrap();
        text.push_str(&format!("{} 5\nnonsense\nab", "0".repeat(64)));
        std::fs::write(&file, &text).unwrap();
        Revoked::default().cancel(b"x", later).unwrap();
        let again = Revoked::open(&file).unwrap();
        assert!(again.contains(b"one"));
        assert_eq!(again.ends().len(), 1);
        again.cancel(b"two", later).unwrap();
        assert!(Revoked::open(&file).unwrap().contains(b"two"));
        let shown = std::fs::read_to_string(&file).unwrap();
        assert!(!shown.contains("one") && !shown.contains("two"));
    }

    #[test]
    fn a_disk_that_refuses_cancels_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("revoked");
        let list = Revoked::open(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        let later = WallMillis(wall_now().0 + 60_000);
        assert!(list.cancel(b"one", later).is_err());
        assert!(!list.contains(b"one"));
    }
}
