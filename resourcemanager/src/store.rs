//! The indexed view in sled: which application a person means by a suffix of its id or by `@last`.
//!
//! The journal is the truth. The index is written behind it and can always be made again from it:
//! sled 0.34 acknowledges before it is durable and panics on some damage, so it never holds the only
//! copy of anything, and everything that touches it runs in one thread named `store`, whose panics
//! are caught (see `docs/decisions/0001-panics-unwind.md`).
//! When it is damaged it is moved aside, said, and rebuilt from the records replayed at start.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bobbin_rm_core::Record;
use bobbin_types::{ApplicationId, UserName};
use tokio::sync::oneshot;

/// Raised when the keys or values change their meaning; another number is rebuilt.
const FORMAT: u64 = 1;
const KEY_FORMAT: &[u8] = b"m/format";
const KEY_APPLIED: &[u8] = b"m/applied";

/// Changes of the index are gathered for so long, and so many of them.
const GATHER_TIME: Duration = Duration::from_millis(50);
const GATHER_MAX: usize = 4_096;

/// The index cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the index in {} is damaged; restart the resource manager and it is rebuilt", .0.display())]
    Damaged(PathBuf),
    #[error("cannot open or move the index in {}: {reason}", .path.display())]
    Unusable { path: PathBuf, reason: String },
}

/// What a text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    One(ApplicationId),
    Nothing,
    /// Two of those that match.
    Several(ApplicationId, ApplicationId),
}

/// A question about ids.
#[derive(Clone, Debug)]
pub(crate) enum Query {
    /// The end of an application id's text.
    Suffix(String),
    /// The newest application of this user.
    Last(UserName),
}

#[derive(Debug)]
enum Message {
    Apply(u64, Vec<IndexChange>),
    Resolve(Query, oneshot::Sender<Result<Resolved, StoreError>>),
    Flush(mpsc::Sender<()>),
}

/// What a record means for the index.
#[derive(Clone, Debug)]
enum IndexChange {
    Add(ApplicationId, UserName),
    Remove(ApplicationId),
}

/// Handle of the index's thread; clones share it. The thread ends when the last is gone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    sender: mpsc::Sender<Message>,
}

/// An index that was opened.
#[derive(Debug)]
pub(crate) struct OpenedStore {
    pub(crate) store: Store,
    /// Records up to this sequence are in it.
    pub(crate) applied: u64,
    /// What was found damaged, in words for the log.
    pub(crate) notes: Vec<String>,
}

impl Store {
    /// Opens or makes the index in `folder`; blocking. A damaged one is moved aside.
    ///
    /// # Errors
    /// The folder cannot be made, or a damaged index cannot be moved.
    pub(crate) fn open(folder: &Path) -> Result<OpenedStore, StoreError> {
        let (sender, messages) = mpsc::channel();
        let (opened_sender, opened) = mpsc::channel();
        let path = folder.to_owned();
        let unusable = |reason: String| StoreError::Unusable {
            path: folder.to_owned(),
            reason,
        };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let mut notes = Vec::new();
                match open_or_replace(&path, &mut notes) {
                    Ok((db, applied)) => {
                        if opened_sender.send(Ok((applied, notes))).is_ok() {
                            serve(&path, &db, &messages);
                        }
                    }
                    // The opener waits for this answer.
                    Err(e) => drop(opened_sender.send(Err(e))),
                }
            })
            .map_err(|e| unusable(e.to_string()))?;
        let (applied, notes) = opened
            .recv()
            .map_err(|_| unusable("its thread ended".to_owned()))??;
        Ok(OpenedStore {
            store: Store { sender },
            applied,
            notes,
        })
    }

    /// Brings the index up to `sequence`, the last of `records`' sequences; returns at once.
    /// A later [`Store::resolve`] sees it.
    pub(crate) fn apply(&self, sequence: u64, records: &[Record]) {
        let changes: Vec<IndexChange> = records.iter().filter_map(change_of).collect();
        if !changes.is_empty() {
            // When the thread is gone, `resolve` says so.
            let _ = self.sender.send(Message::Apply(sequence, changes));
        }
    }

    /// Finds the application that `query` means.
    ///
    /// # Errors
    /// The index was found damaged.
    pub(crate) async fn resolve(&self, query: Query) -> Result<Resolved, StoreError> {
        let gone = || StoreError::Damaged(PathBuf::from("lib"));
        let (sender, answer) = oneshot::channel();
        self.sender
            .send(Message::Resolve(query, sender))
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Waits until everything applied so far is in sled's file; for orderly stops and tests.
    pub(crate) fn flush(&self) {
        let (sender, done) = mpsc::channel();
        if self.sender.send(Message::Flush(sender)).is_ok() {
            let _ = done.recv();
        }
    }
}

fn change_of(record: &Record) -> Option<IndexChange> {
    match record {
        Record::ApplicationSubmitted(submitted) => Some(IndexChange::Add(
            submitted.application,
            submitted.user.clone(),
        )),
        Record::ApplicationRemoved { application } => Some(IndexChange::Remove(*application)),
        Record::Epoch { .. }
        | Record::SequenceReserved { .. }
        | Record::NodeKnown { .. }
        | Record::NodeForgotten { .. }
        | Record::KillRequested { .. }
        | Record::AttemptStarted { .. }
        | Record::AttemptRegistered { .. }
        | Record::AttemptFailing { .. }
        | Record::AttemptFinishing { .. }
        | Record::AttemptFinished { .. }
        | Record::ApplicationFinished { .. }
        | Record::ApplicationUpdated { .. } => None,
    }
}

/// Opens sled and reads how far it is, with panics as errors.
fn open_checked(path: &Path) -> Result<(sled::Db, u64), String> {
    let open = || -> Result<(sled::Db, u64), String> {
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(16 << 20)
            .flush_every_ms(Some(1_000))
            .open()
            .map_err(|e| e.to_string())?;
        if db.is_empty() {
            db.insert(KEY_FORMAT, &FORMAT.to_be_bytes())
                .map_err(|e| e.to_string())?;
            return Ok((db, 0));
        }
        let number = |key: &[u8]| -> Result<Option<u64>, String> {
            let Some(bytes) = db.get(key).map_err(|e| e.to_string())? else {
                return Ok(None);
            };
            let bytes = <[u8; 8]>::try_from(bytes.as_ref()).map_err(|_| "a number's length")?;
            Ok(Some(u64::from_be_bytes(bytes)))
        };
        if number(KEY_FORMAT)? != Some(FORMAT) {
            return Err("it has another format".to_owned());
        }
        let applied = number(KEY_APPLIED)?.unwrap_or(0);
        // Reads every page once: damage shows here and not at a question.
        for entry in db.iter() {
            check(&entry.map_err(|e| e.to_string())?.1)?;
        }
        Ok((db, applied))
    };
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err("sled panicked".to_owned()))
}

fn open_or_replace(path: &Path, notes: &mut Vec<String>) -> Result<(sled::Db, u64), StoreError> {
    let unusable = |reason: String| StoreError::Unusable {
        path: path.to_owned(),
        reason,
    };
    let why = match std::fs::read_to_string(rebuild_mark(path)) {
        Ok(why) => why,
        Err(_) => match open_checked(path) {
            Ok(opened) => return Ok(opened),
            Err(why) => why,
        },
    };
    let aside = path.with_extension("damaged");
    match std::fs::remove_dir_all(&aside) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => {
            return Err(unusable(format!(
                "{why}; {} is in the way: {e}",
                aside.display()
            )));
        }
    }
    std::fs::rename(path, &aside).map_err(|e| unusable(format!("{why}; {e}")))?;
    // Removed last: a crash before it only rebuilds once more.
    let _ = std::fs::remove_file(rebuild_mark(path));
    notes.push(format!(
        "the index in {} was damaged ({why}); it is moved to {} and rebuilt from the journal",
        path.display(),
        aside.display()
    ));
    open_checked(path).map_err(unusable)
}

/// Left by a running index that found itself damaged.
fn rebuild_mark(path: &Path) -> PathBuf {
    path.with_extension("rebuild")
}

/// Messages in their order, with changes gathered: sled's threads would otherwise be woken between a
/// submission and the start of its master, which is when nobody has time for them. A question, an
/// orderly stop, time or number ends the gathering. What a crash takes away is replayed at the next
/// start.
struct Gathered<'a> {
    messages: &'a mpsc::Receiver<Message>,
    next: Option<Message>,
}

impl Iterator for Gathered<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let first = match self.next.take() {
            Some(message) => message,
            None => self.messages.recv().ok()?,
        };
        let Message::Apply(mut sequence, mut changes) = first else {
            return Some(first);
        };
        let end = Instant::now() + GATHER_TIME;
        while changes.len() < GATHER_MAX {
            let left = end.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(Message::Apply(newer, more)) => {
                    sequence = newer;
                    changes.extend(more);
                }
                Ok(other) => {
                    self.next = Some(other);
                    break;
                }
                // Without a sender the next call says so.
                Err(_) => break,
            }
        }
        Some(Message::Apply(sequence, changes))
    }
}

fn serve(path: &Path, db: &sled::Db, messages: &mpsc::Receiver<Message>) {
    let gathered = Gathered {
        messages,
        next: None,
    };
    for message in gathered {
        let step = AssertUnwindSafe(|| match message {
            Message::Apply(sequence, changes) => apply(db, sequence, &changes),
            Message::Resolve(query, sender) => {
                let answer = resolve(db, &query);
                let damaged = answer.is_err();
                // An asker that has gone needs no answer.
                let _ = sender.send(answer.map_err(|_| StoreError::Damaged(path.to_owned())));
                if damaged {
                    Err("a value's sum is wrong".to_owned())
                } else {
                    Ok(())
                }
            }
            Message::Flush(done) => {
                let flushed = db.flush().map(|_| ()).map_err(|e| e.to_string());
                let _ = done.send(());
                flushed
            }
        });
        let why = match catch_unwind(step) {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => why,
            Err(_) => "sled panicked".to_owned(),
        };
        // Nothing is lost: the journal has it. Questions are refused until the next start.
        tracing::error!(index = %path.display(), why, "the index is damaged; it is rebuilt at the next start");
        // If even the mark cannot be written, the next start reads every page and finds it itself.
        let _ = std::fs::write(rebuild_mark(path), why);
        return;
    }
}

fn apply(db: &sled::Db, sequence: u64, changes: &[IndexChange]) -> Result<(), String> {
    let mut batch = sled::Batch::default();
    for change in changes {
        match change {
            IndexChange::Add(id, user) => {
                batch.insert(suffix_key(&id.to_string()), value(id, user));
                batch.insert(user_key(user, id), value(id, user));
            }
            IndexChange::Remove(id) => {
                let key = suffix_key(&id.to_string());
                if let Some(bytes) = db.get(&key).map_err(|e| e.to_string())? {
                    let (_, user) = parse(&bytes)?;
                    batch.remove(user_key(&user, id));
                }
                batch.remove(key);
            }
        }
    }
    batch.insert(KEY_APPLIED, &sequence.to_be_bytes());
    db.apply_batch(batch).map_err(|e| e.to_string())
}

fn resolve(db: &sled::Db, query: &Query) -> Result<Resolved, String> {
    let ids = |range: &mut dyn Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>| {
        range
            .take(2)
            .map(|entry| parse(&entry.map_err(|e| e.to_string())?.1).map(|(id, _)| id))
            .collect::<Result<Vec<_>, String>>()
    };
    let found = match query {
        Query::Suffix(text) => ids(&mut db.scan_prefix(suffix_key(text)))?,
        Query::Last(user) => {
            let mut newest = db.scan_prefix(user_prefix(user)).rev();
            ids(&mut newest.by_ref().take(1))?
        }
    };
    Ok(match found.as_slice() {
        [] => Resolved::Nothing,
        [one] => Resolved::One(*one),
        [one, two, ..] => Resolved::Several(*one, *two),
    })
}

/// Ids by their text read backwards: a suffix is a prefix here.
fn suffix_key(text: &str) -> Vec<u8> {
    let mut key = b"s/".to_vec();
    key.extend(text.bytes().rev());
    key
}

fn user_prefix(user: &UserName) -> Vec<u8> {
    let mut key = b"u/".to_vec();
    key.extend(user.as_str().as_bytes());
    key.push(0);
    key
}

fn user_key(user: &UserName, id: &ApplicationId) -> Vec<u8> {
    let mut key = user_prefix(user);
    key.extend(id.cluster_timestamp.to_be_bytes());
    key.extend(id.sequence.to_be_bytes());
    key
}

/// A value with its checksum in front.
fn value(id: &ApplicationId, user: &UserName) -> Vec<u8> {
    let text = format!("{id} {user}");
    let mut bytes = sum(text.as_bytes()).to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// FNV-1a: against damage, not against people.
fn sum(bytes: &[u8]) -> [u8; 8] {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step).to_be_bytes()
}

/// Metadata values are bare numbers of 8 bytes; all others carry a checksum.
fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() == 8 {
        Ok(())
    } else {
        parse(bytes).map(|_| ())
    }
}

fn parse(bytes: &[u8]) -> Result<(ApplicationId, UserName), String> {
    let wrong = || "a value's sum is wrong".to_owned();
    let (stored, text) = bytes.split_at_checked(8).ok_or_else(wrong)?;
    if stored != sum(text) {
        return Err(wrong());
    }
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (id, user) = text.split_once(' ').ok_or_else(wrong)?;
    Ok((
        id.parse().map_err(|_| wrong())?,
        user.parse().map_err(|_| wrong())?,
    ))
}

/// Whether the index must be given this record at start.
#[must_use]
pub(crate) fn is_new(applied: u64, sequence: u64) -> bool {
    sequence > applied
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bobbin_rm_core::{LaunchContext, Submission, SubmittedApplication};
    use bobbin_types::{Resource, WallMillis};

    use super::*;

    #[test]
    fn changes_are_gathered_up_to_the_next_question() {
        let (sender, messages) = mpsc::channel();
        let add = |sequence: u32| {
            let user = "alice".parse().unwrap();
            Message::Apply(sequence.into(), vec![IndexChange::Add(id(sequence), user)])
        };
        let (answer, _question) = oneshot::channel();
        let resolve = Message::Resolve(Query::Suffix("1".to_owned()), answer);
        for message in [add(1), add(2), resolve, add(3)] {
            sender.send(message).unwrap();
        }
        drop(sender);
        let gathered = Gathered {
            messages: &messages,
            next: None,
        };
        let seen: Vec<String> = gathered
            .map(|message| match message {
                Message::Apply(sequence, changes) => format!("{sequence}: {}", changes.len()),
                Message::Resolve(..) => "question".to_owned(),
                Message::Flush(_) => "flush".to_owned(),
            })
            .collect();
        assert_eq!(seen, ["2: 2", "question", "3: 1"]);
    }

    fn id(sequence: u32) -> ApplicationId {
        ApplicationId {
            cluster_timestamp: 1_700_000_000_000,
            sequence,
        }
    }

    fn submitted(sequence: u32, user: &str) -> Record {
        Record::ApplicationSubmitted(Arc::new(SubmittedApplication {
            application: id(sequence),
            user: user.parse().unwrap(),
            submission: Submission {
                application: None,
                name: "n".to_owned(),
                queue: "default".to_owned(),
                priority: 0,
                unmanaged: false,
                launch: LaunchContext::default(),
                resource: Resource::new(1, 1),
                overhead: Resource::default(),
                max_attempts: 1,
                tags: Vec::new(),
                timeout_ms: 0,
                tie_to_client: false,
                application_type: String::new(),
                settings: std::collections::BTreeMap::new(),
                node_label: String::new(),
                keep_containers: false,
                failures_validity_ms: None,
                view_acl: String::new(),
                modify_acl: String::new(),
            },
            submitted: WallMillis(1),
        }))
    }

    fn resolve_now(store: &Store, query: Query) -> Resolved {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(store.resolve(query)).unwrap()
    }

    fn suffix(text: &str) -> Query {
        Query::Suffix(text.to_owned())
    }

    #[test]
    fn suffixes_and_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Store::open(&folder.path().join("index")).unwrap();
        let store = opened.store;
        assert_eq!(opened.applied, 0);
        store.apply(
            3,
            &[
                submitted(7, "alice"),
                submitted(17, "bob"),
                submitted(18, "alice"),
            ],
        );
        assert_eq!(resolve_now(&store, suffix("0007")), Resolved::One(id(7)));
        assert_eq!(resolve_now(&store, suffix("_0018")), Resolved::One(id(18)));
        assert!(matches!(
            resolve_now(&store, suffix("7")),
            Resolved::Several(..)
        ));
        assert_eq!(resolve_now(&store, suffix("99")), Resolved::Nothing);
        let last = |user: &str| resolve_now(&store, Query::Last(user.parse().unwrap()));
        assert_eq!(last("alice"), Resolved::One(id(18)));
        assert_eq!(last("bob"), Resolved::One(id(17)));
        assert_eq!(last("carol"), Resolved::Nothing);
        store.apply(
            4,
            &[Record::ApplicationRemoved {
                application: id(18),
            }],
        );
        assert_eq!(last("alice"), Resolved::One(id(7)));
    }

    #[test]
    fn it_is_there_after_a_stop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let store = Store::open(&path).unwrap().store;
        store.apply(9, &[submitted(1, "alice")]);
        store.flush();
        drop(store);
        // sled keeps its lock until the thread has ended.
        let opened = loop {
            if let Ok((db, applied)) = open_checked(&path) {
                drop(db);
                break applied;
            }
            std::thread::yield_now();
        };
        assert_eq!(opened, 9);
    }

    #[test]
    fn garbage_is_moved_aside_and_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let store = Store::open(&path).unwrap().store;
        store.apply(5, &[submitted(1, "alice")]);
        store.flush();
        drop(store);
        while open_checked(&path).is_err() {
            std::thread::yield_now();
        }
        let file = path.join("db");
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes
            .iter_mut()
            .skip(8)
            .take(middle)
            .for_each(|b| *b ^= 0x5a);
        std::fs::write(&file, bytes).unwrap();
        let opened = Store::open(&path).unwrap();
        // Either sled itself drops what is torn, or the whole index is replaced: never a wrong answer.
        assert!(
            opened.applied == 0 || opened.notes.is_empty(),
            "{:?}",
            opened.notes
        );
        opened.store.apply(5, &[submitted(1, "alice")]);
        assert_eq!(
            resolve_now(&opened.store, suffix("0001")),
            Resolved::One(id(1))
        );
    }
}
