//! The whole journal over real files: restarts, torn tails, damage, full disks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

const SMALL: Options = Options {
    segment_bytes: 4096,
};

type Records = Vec<Vec<u8>>;
type Files = Vec<(PathBuf, Vec<u8>)>;

fn open(folder: &Path) -> Result<(Journal, Records, Vec<String>), JournalError> {
    let mut records = Vec::new();
    let mut last = None;
    let opened = Journal::open(folder, SMALL, &mut |sequence, bytes| {
        if let Some(last) = last {
            assert_eq!(sequence, last + 1, "sequences have no gap");
        }
        last = Some(sequence);
        records.push(bytes.to_vec());
    })?;
    Ok((opened.journal, records, opened.notes))
}

fn record(n: usize) -> Vec<u8> {
    format!("record {n} {}", "x".repeat(n % 300)).into_bytes()
}

/// Ends the writer as a crash would: without the mark of an orderly end.
fn crash(journal: Journal, folder: &Path) {
    drop(journal);
    wait_unlocked(folder);
}

fn wait_unlocked(folder: &Path) {
    let file = std::fs::File::open(folder.join("lock")).unwrap();
    // Blocks until the writer's thread has let go.
    drop(nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap());
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.to_str().unwrap().ends_with(".log"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn everything_completed_is_there_again_over_many_segments() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, records, _) = open(folder.path()).unwrap();
    assert!(records.is_empty());
    for n in 0..100 {
        let sequence = journal
            .append(vec![record(2 * n), record(2 * n + 1)])
            .wait()
            .unwrap();
        assert_eq!(sequence, u64::try_from(2 * n + 2).unwrap());
    }
    crash(journal, folder.path());
    assert!(segments(folder.path()).len() > 3, "rotation happened");
    let (journal, records, notes) = open(folder.path()).unwrap();
    assert_eq!(records, (0..200).map(record).collect::<Vec<_>>());
    assert_eq!(notes, Vec::<String>::new());
    // And it goes on where it was.
    assert_eq!(journal.append(vec![record(200)]).wait().unwrap(), 201);
    journal.close().wait().unwrap();
    wait_unlocked(folder.path());
    assert_eq!(open(folder.path()).unwrap().1.len(), 201);
}

#[test]
fn many_appenders_share_syncs_and_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let syncs = Arc::new(AtomicUsize::new(0));
    let counted = syncs.clone();
    let sync = Box::new(move |file: &std::fs::File| {
        counted.fetch_add(1, Ordering::Relaxed);
        file.sync_data()
    });
    let journal = Journal::open_with(folder.path(), SMALL, &mut |_, _| {}, sync)
        .unwrap()
        .journal;
    let completions: Vec<_> = (0..500).map(|n| journal.append(vec![record(n)])).collect();
    for (n, completion) in completions.into_iter().enumerate() {
        assert_eq!(completion.wait().unwrap(), u64::try_from(n + 1).unwrap());
    }
    assert!(syncs.load(Ordering::Relaxed) < 400, "batches were gathered");
    crash(journal, folder.path());
    assert_eq!(
        open(folder.path()).unwrap().1,
        (0..500).map(record).collect::<Vec<_>>()
    );
}

#[test]
fn a_second_user_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    assert!(matches!(
        open(folder.path()),
        Err(JournalError::InUse { .. })
    ));
    drop(first);
}

#[test]
fn a_snapshot_replaces_what_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _, _) = open(folder.path()).unwrap();
    for n in 0..100 {
        journal.append(vec![record(n)]).wait().unwrap();
    }
    let old = segments(folder.path());
    let (since, _) = journal.bytes();
    assert!(since > 0);
    journal.compact(vec![b"state".to_vec()]).wait().unwrap();
    assert!(old.iter().all(|p| !p.exists()), "older segments are gone");
    journal.append(vec![b"after".to_vec()]).wait().unwrap();
    crash(journal, folder.path());
    let (journal, records, _) = open(folder.path()).unwrap();
    assert_eq!(records, vec![b"state".to_vec(), b"after".to_vec()]);
    // Twice in a row, and right after an open, works as well.
    journal.compact(vec![b"a".to_vec()]).wait().unwrap();
    journal.compact(vec![b"b".to_vec()]).wait().unwrap();
    crash(journal, folder.path());
    assert_eq!(open(folder.path()).unwrap().1, vec![b"b".to_vec()]);
}

#[test]
fn segments_older_than_a_snapshot_are_ignored_after_a_crash_between() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _, _) = open(folder.path()).unwrap();
    for n in 0..50 {
        journal.append(vec![record(n)]).wait().unwrap();
    }
    let old: Vec<_> = segments(folder.path())
        .iter()
        .map(|p| (p.clone(), std::fs::read(p).unwrap()))
        .collect();
    journal.compact(vec![b"state".to_vec()]).wait().unwrap();
    crash(journal, folder.path());
    for (path, bytes) in &old {
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(open(folder.path()).unwrap().1, vec![b"state".to_vec()]);
    assert!(old.iter().all(|(path, _)| !path.exists()));
}

#[test]
fn a_torn_tail_is_cut_and_said_and_damage_before_it_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _, _) = open(folder.path()).unwrap();
    for n in 0..5 {
        journal.append(vec![record(n)]).wait().unwrap();
    }
    crash(journal, folder.path());
    let path = segments(folder.path()).remove(0);
    let mut torn = std::fs::read(&path).unwrap();
    let end = torn.iter().rposition(|b| *b != 0).unwrap();
    torn[end] ^= 0xFF;
    std::fs::write(&path, &torn).unwrap();
    let (journal, records, notes) = open(folder.path()).unwrap();
    assert_eq!(records.len(), 4);
    assert_eq!(notes.len(), 1, "{notes:?}");
    journal.append(vec![b"new fifth".to_vec()]).wait().unwrap();
    crash(journal, folder.path());
    let (journal, records, notes) = open(folder.path()).unwrap();
    assert_eq!((records.len(), notes.len()), (5, 0));
    crash(journal, folder.path());

    let path = segments(folder.path()).remove(0);
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[segment::HEADER_BYTES + frame::HEADER_BYTES + 5] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let error = open(folder.path()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, JournalError::Damaged { .. }), "{text}");
    assert!(
        text.contains("segment-") && text.contains(&format!("byte {}", segment::HEADER_BYTES)),
        "{text}"
    );
}

#[test]
fn after_an_orderly_end_even_the_last_frame_must_be_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _, _) = open(folder.path()).unwrap();
    journal.append(vec![b"only".to_vec()]).wait().unwrap();
    journal.close().wait().unwrap();
    wait_unlocked(folder.path());
    let path = segments(folder.path()).remove(0);
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[segment::HEADER_BYTES + frame::HEADER_BYTES + 5] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    assert!(matches!(
        open(folder.path()),
        Err(JournalError::Damaged { .. })
    ));
}

#[test]
fn a_missing_segment_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _, _) = open(folder.path()).unwrap();
    for n in 0..100 {
        journal.append(vec![record(n)]).wait().unwrap();
    }
    crash(journal, folder.path());
    std::fs::remove_file(&segments(folder.path())[1]).unwrap();
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
}

#[test]
fn a_failed_sync_completes_nothing_until_it_works_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(true));
    let fails = failing.clone();
    let sync = Box::new(move |file: &std::fs::File| {
        if fails.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        file.sync_data()
    });
    let journal = Journal::open_with(folder.path(), SMALL, &mut |_, _| {}, sync)
        .unwrap()
        .journal;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (first, second) = (
        journal.append(vec![b"one".to_vec()]),
        journal.append(vec![b"two".to_vec()]),
    );
    let mut health = journal.health();
    let problem = runtime.block_on(async {
        let seen = health.wait_for(|h| h.problem().is_some()).await.unwrap();
        seen.problem().unwrap().to_string()
    });
    assert!(problem.contains("segment-"), "{problem}");
    failing.store(false, Ordering::SeqCst);
    assert_eq!((first.wait().unwrap(), second.wait().unwrap()), (1, 2));
    runtime.block_on(async {
        health.wait_for(|h| h.problem().is_none()).await.unwrap();
    });
    crash(journal, folder.path());
    assert_eq!(
        open(folder.path()).unwrap().1,
        vec![b"one".to_vec(), b"two".to_vec()]
    );
}

#[test]
fn a_full_disk_is_survived() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let folder = tempfile::tempdir().unwrap();
    if mount(
        Some("tmpfs"),
        folder.path(),
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=256k"),
    )
    .is_err()
    {
        println!("SKIPPED: needs root (a full disk is made by a small tmpfs)");
        return;
    }
    let inside = folder.path().join("journal");
    std::fs::create_dir(&inside).unwrap();
    let ballast = folder.path().join("ballast");
    std::fs::write(&ballast, vec![1; 200 << 10]).unwrap();
    let (journal, _, _) = open(&inside).unwrap();
    let mut health = journal.health();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let completions: Vec<_> = (0..100)
        .map(|n| journal.append(vec![vec![n; 1000]]))
        .collect();
    runtime.block_on(async {
        health.wait_for(|h| h.problem().is_some()).await.unwrap();
    });
    std::fs::remove_file(&ballast).unwrap();
    for completion in completions {
        completion.wait().unwrap();
    }
    crash(journal, &inside);
    assert_eq!(open(&inside).unwrap().1.len(), 100);
    wait_unlocked(&inside);
    umount2(folder.path(), MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn too_large_a_record_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _, _) = open(folder.path()).unwrap();
    let refused = journal.append(vec![vec![0; RECORD_BYTES_MAX + 1]]).wait();
    assert!(matches!(refused, Err(JournalError::RecordTooLarge { .. })));
    assert_eq!(journal.append(vec![b"fine".to_vec()]).wait().unwrap(), 1);
}

/// Made once: it takes many syncs.
static SAMPLE: std::sync::LazyLock<(Files, Records)> = std::sync::LazyLock::new(sample);

/// A journal of a few segments, as (file name, bytes), and its records.
fn sample() -> (Files, Records) {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _, _) = open(folder.path()).unwrap();
    let records: Vec<_> = (0..60).map(|n| record(5 * n)).collect();
    for pair in records.chunks(2) {
        journal.append(pair.to_vec()).wait().unwrap();
    }
    crash(journal, folder.path());
    let files = segments(folder.path())
        .into_iter()
        .map(|p| {
            (
                PathBuf::from(p.file_name().unwrap()),
                std::fs::read(&p).unwrap(),
            )
        })
        .collect();
    (files, records)
}

/// Opens the files after file `touched` was changed: an error, or a beginning of the true records,
/// never anything else; and only the last file may lose its tail.
fn never_wrong(files: &Files, touched: usize, records: &Records) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    match open(folder.path()) {
        Err(JournalError::Damaged { .. }) => {}
        Err(other) => return Err(TestCaseError::fail(other.to_string())),
        Ok((_, read, _)) => {
            prop_assert!(records.starts_with(&read), "only true records");
            let is_last = touched + 1 == files.len();
            prop_assert!(is_last || read.len() == records.len(), "lost in the middle");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_flipped_byte_makes_wrong_records(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let (mut files, records) = SAMPLE.clone();
        let file = file.index(files.len());
        let bytes = &mut files[file].1;
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        never_wrong(&files, file, &records)?;
    }

    #[test]
    fn no_truncation_makes_wrong_records(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let (mut files, records) = SAMPLE.clone();
        let file = file.index(files.len());
        let bytes = &mut files[file].1;
        let at = at.index(bytes.len());
        bytes.truncate(at);
        never_wrong(&files, file, &records)?;
    }
}
