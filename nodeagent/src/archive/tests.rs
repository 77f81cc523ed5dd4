//! Good archives of every kind, and a corpus of bad ones.

use super::*;
use std::os::unix::fs::PermissionsExt;

const LIMITS: ArchiveLimits = ArchiveLimits {
    bytes_max: 1 << 30,
    entries_max: 1000,
    ratio_max: 100,
};

struct Outcome {
    dir: tempfile::TempDir,
    result: Result<u64, ArchiveError>,
}

impl Outcome {
    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn error(&self) -> String {
        self.result.as_ref().unwrap_err().to_string()
    }
}

fn run(bytes: &[u8], name: &str, limits: ArchiveLimits) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    std::fs::create_dir(dir.path().join("root")).unwrap();
    std::fs::write(dir.path().join("outside"), "untouched").unwrap();
    let root = Folder::open(&dir.path().join("root")).unwrap();
    let kind = ArchiveKind::of(name).unwrap();
    let result = unpack(File::open(&path).unwrap(), kind, name, &root, limits);
    assert_eq!(
        std::fs::read(dir.path().join("outside")).unwrap(),
        b"untouched"
    );
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    let mut expected = vec![OsString::from(name), "outside".into(), "root".into()];
    expected.sort();
    assert_eq!(names, expected, "something was written beside the root");
    Outcome { dir, result }
}

/// A tar entry as an attacker writes it: the name goes into the header unchecked.
fn raw(name: &str, kind: tar::EntryType, link: &str, mode: u32, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(data.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    raw(name, tar::EntryType::Regular, "", 0o644, data)
}

fn symlink(name: &str, target: &str) -> Vec<u8> {
    raw(name, tar::EntryType::Symlink, target, 0o777, b"")
}

fn tar_of(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn good_tar() -> Vec<u8> {
    tar_of(&[
        raw("./", tar::EntryType::Directory, "", 0o755, b""),
        raw("bin/", tar::EntryType::Directory, "", 0o700, b""),
        raw(
            "bin/run",
            tar::EntryType::Regular,
            "",
            0o6755,
            b"#!/bin/sh\n",
        ),
        file("deep/er/text", b"text"),
        symlink("deep/link", "../bin/run"),
        symlink("deep/er/up", "../../bin"),
        raw(
            "deep/hard",
            tar::EntryType::Link,
            "deep/er/text",
            0o644,
            b"",
        ),
        file("deep/er/text2", b"first"),
        file("deep/er/text2", b"second"),
    ])
}

fn check_good(outcome: &Outcome) {
    outcome.result.as_ref().unwrap();
    let root = outcome.root();
    let mode = |p: &str| {
        std::fs::metadata(root.join(p))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(mode("bin/run"), 0o755, "setuid is dropped, x is kept");
    assert_eq!(mode("deep/er/text"), 0o644);
    assert_eq!(
        std::fs::read(root.join("deep/link")).unwrap(),
        b"#!/bin/sh\n"
    );
    assert_eq!(
        std::fs::read(root.join("deep/er/up/run")).unwrap(),
        b"#!/bin/sh\n"
    );
    assert_eq!(std::fs::read(root.join("deep/hard")).unwrap(), b"text");
    assert_eq!(
        std::fs::read(root.join("deep/er/text2")).unwrap(),
        b"second"
    );
}

#[test]
fn good_archives_of_every_tar_kind() {
    check_good(&run(&good_tar(), "a.tar", LIMITS));
    check_good(&run(&gzip(&good_tar()), "a.tar.gz", LIMITS));
    check_good(&run(&gzip(&good_tar()), "A.TGZ", LIMITS));
    check_good(&run(
        &zstd::encode_all(&good_tar()[..], 1).unwrap(),
        "a.tar.zst",
        LIMITS,
    ));
}

type ZipFill = fn(&mut zip::ZipWriter<std::io::Cursor<Vec<u8>>>);

fn zip_of(fill: ZipFill) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    fill(&mut writer);
    writer.finish().unwrap().into_inner()
}

fn options(mode: u32) -> zip::write::SimpleFileOptions {
    zip::write::SimpleFileOptions::default().unix_permissions(mode)
}

#[test]
fn good_zip_and_jar() {
    let bytes = zip_of(|zip| {
        zip.add_directory("d", options(0o755)).unwrap();
        zip.start_file("d/run", options(0o755)).unwrap();
        zip.write_all(b"#!/bin/sh\n").unwrap();
        zip.start_file("e/text", options(0o644)).unwrap();
        zip.write_all(&[b'x'; 100_000]).unwrap();
        zip.add_symlink("e/link", "../d/run", options(0o777))
            .unwrap();
    });
    for name in ["a.zip", "a.jar"] {
        let outcome = run(&bytes, name, LIMITS);
        outcome.result.as_ref().unwrap();
        let root = outcome.root();
        assert_eq!(std::fs::read(root.join("e/link")).unwrap(), b"#!/bin/sh\n");
        assert_eq!(std::fs::read(root.join("e/text")).unwrap().len(), 100_000);
        let mode = std::fs::metadata(root.join("d/run"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
    }
}

#[test]
fn every_way_out_of_a_tar_is_refused_by_name() {
    let device = |kind| raw("dev", kind, "", 0o666, b"");
    let cases: Vec<(&str, Vec<Vec<u8>>, &str)> = vec![
        (
            "up",
            vec![file("../outside", b"bad")],
            "'../outside' has '..' in its name",
        ),
        (
            "inner up",
            vec![file("a/../../outside", b"bad")],
            "has '..' in its name",
        ),
        (
            "absolute",
            vec![file("/tmp/bobbin-escaped", b"bad")],
            "has an absolute name",
        ),
        (
            "link then file",
            vec![symlink("l", "."), file("l/x", b"bad")],
            "'l/x' goes through a link",
        ),
        (
            "link out",
            vec![symlink("l", "..")],
            "is a link that leads out, to '..'",
        ),
        (
            "link absolute",
            vec![symlink("l", "/etc")],
            "leads out, to '/etc'",
        ),
        (
            "link to the system and back",
            vec![symlink("l", "/usr/../etc/passwd")],
            "leads out, to '/usr/../etc/passwd'",
        ),
        (
            "link beside the system",
            vec![symlink("l", "/usrlocal/x")],
            "leads out, to '/usrlocal/x'",
        ),
        (
            "link up late",
            vec![symlink("d/l", "x/../../..")],
            "leads out",
        ),
        (
            "two links out",
            vec![symlink("a", "."), symlink("b", "a/a/../..")],
            "'b' is a link that leads out",
        ),
        (
            "empty link",
            vec![symlink("l", "")],
            "is a link without a usable target",
        ),
        (
            "hard link out",
            vec![raw("h", tar::EntryType::Link, "../outside", 0o644, b"")],
            "is a hard link that leads out, to '../outside'",
        ),
        (
            "hard link absolute",
            vec![raw("h", tar::EntryType::Link, "/etc/passwd", 0o644, b"")],
            "leads out, to '/etc/passwd'",
        ),
        (
            "hard link through link",
            vec![
                symlink("l", "d"),
                file("d/x", b""),
                raw("h", tar::EntryType::Link, "l/x", 0o644, b""),
            ],
            "leads out",
        ),
        (
            "hard link to link",
            vec![
                symlink("l", "x"),
                raw("h", tar::EntryType::Link, "l", 0o644, b""),
            ],
            "is a hard link to what is not a file",
        ),
        (
            "character device",
            vec![device(tar::EntryType::Char)],
            "'dev' is a device",
        ),
        (
            "block device",
            vec![device(tar::EntryType::Block)],
            "'dev' is a device",
        ),
        (
            "fifo",
            vec![device(tar::EntryType::Fifo)],
            "'dev' is a fifo",
        ),
        (
            "through a file",
            vec![file("f", b""), file("f/x", b"")],
            "goes through a file",
        ),
        (
            "file over folder",
            vec![
                raw("d/", tar::EntryType::Directory, "", 0o755, b""),
                file("d", b"x"),
            ],
            "cannot be written",
        ),
    ];
    for (what, entries, words) in cases {
        for (name, bytes) in [
            ("bad.tar", tar_of(&entries)),
            ("bad.tgz", gzip(&tar_of(&entries))),
        ] {
            let outcome = run(&bytes, name, LIMITS);
            let error = outcome.error();
            assert!(
                error.contains(words) && error.contains(name),
                "{what}: {error}"
            );
        }
    }
    assert!(!Path::new("/tmp/bobbin-escaped").exists());
}

/// What `venv-pack` makes of a virtual environment, as Spark's manual ships one.
#[test]
fn a_packed_virtual_environment_keeps_its_python() {
    let entries = [
        symlink("bin/python3", "/usr/bin/python3"),
        symlink("bin/python", "python3"),
        symlink("lib64", "lib"),
    ];
    let outcome = run(&tar_of(&entries), "venv.tar.gz.tar", LIMITS);
    outcome.result.as_ref().unwrap();
    assert_eq!(
        std::fs::read_link(outcome.root().join("bin/python3")).unwrap(),
        Path::new("/usr/bin/python3")
    );
    // And it is no way to write there.
    let through = [symlink("l", "/usr/lib"), file("l/x", b"bad")];
    let error = run(&tar_of(&through), "bad.tar", LIMITS).error();
    assert!(error.contains("goes through a link"), "{error}");
}

#[test]
fn a_link_over_a_written_file_is_not_followed() {
    let entries = [file("x", b"one"), symlink("x", "y"), file("x", b"two")];
    let outcome = run(&tar_of(&entries), "a.tar", LIMITS);
    outcome.result.as_ref().unwrap();
    assert_eq!(std::fs::read(outcome.root().join("x")).unwrap(), b"two");
    assert!(!outcome.root().join("y").exists());
}

#[test]
fn every_way_out_of_a_zip_is_refused_by_name() {
    let cases: [(&str, ZipFill, &str); 5] = [
        (
            "up",
            |zip| zip.start_file("../outside", options(0o644)).unwrap(),
            "'..' in its name",
        ),
        (
            "absolute",
            |zip| zip.start_file("/tmp/x", options(0o644)).unwrap(),
            "absolute name",
        ),
        (
            "link",
            |zip| zip.add_symlink("l", "../outside", options(0o777)).unwrap(),
            "leads out",
        ),
        (
            "link then file",
            |zip| {
                zip.add_symlink("l", ".", options(0o777)).unwrap();
                zip.start_file("l/x", options(0o644)).unwrap();
            },
            "goes through a link",
        ),
        ("empty", |_| {}, ""),
    ];
    for (what, fill, words) in cases {
        let outcome = run(&zip_of(fill), "bad.zip", LIMITS);
        if words.is_empty() {
            outcome.result.unwrap();
            continue;
        }
        let error = outcome.error();
        assert!(
            error.contains(words) && error.contains("bad.zip"),
            "{what}: {error}"
        );
    }
}

#[test]
fn bombs_end_at_the_limit() {
    // 200 MiB of zeros in some 200 KiB: over the 64 MiB that are always allowed and over 100 : 1.
    // The same member again and again is one gzip file.
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(200 << 20);
    header.set_mode(0o644);
    header.set_cksum();
    let mut bomb = gzip(header.as_bytes());
    let zeros = gzip(&vec![0; 1 << 20]);
    for _ in 0..201 {
        bomb.extend_from_slice(&zeros);
    }
    let outcome = run(
        &bomb,
        "bomb.tar.gz",
        ArchiveLimits {
            ratio_max: 10,
            ..LIMITS
        },
    );
    let error = outcome.error();
    assert!(
        error.contains("'zeros' makes it larger than") && error.contains("bomb.tar.gz"),
        "{error}"
    );
    let written = std::fs::metadata(outcome.root().join("zeros"))
        .unwrap()
        .len();
    assert!(written <= 64 << 20, "{written} bytes were written");

    let bytes = zip_of(|zip| {
        zip.start_file("zeros", options(0o644).compression_level(Some(1)))
            .unwrap();
        zip.write_all(&vec![0; 65 << 20]).unwrap();
    });
    let error = run(&bytes, "bomb.zip", LIMITS).error();
    assert!(error.contains("'zeros' makes it larger than"), "{error}");
}

#[test]
fn too_many_entries_are_refused() {
    let entries: Vec<_> = (0..1001).map(|i| file(&format!("f{i}"), b"")).collect();
    let error = run(&tar_of(&entries), "many.tar", LIMITS).error();
    assert!(error.contains("has more than 1000 entries"), "{error}");
    let bytes = zip_of(|zip| {
        for i in 0..1001 {
            zip.start_file(format!("f{i}"), options(0o644)).unwrap();
        }
    });
    let outcome = run(&bytes, "many.zip", LIMITS);
    assert!(outcome.error().contains("has more than 1000 entries"));
    assert_eq!(
        std::fs::read_dir(outcome.root()).unwrap().count(),
        0,
        "refused before unpacking"
    );
}

#[test]
fn broken_archives_say_so() {
    let cut = &gzip(&good_tar())[..60];
    for (bytes, name) in [
        (cut, "cut.tgz"),
        (b"not a zip", "text.zip"),
        (b"x", "text.tar.zst"),
    ] {
        let error = run(bytes, name, LIMITS).error();
        assert!(
            error.contains("cannot be read") && error.contains(name),
            "{error}"
        );
    }
    assert!(
        ArchiveKind::of("a.rar")
            .unwrap_err()
            .to_string()
            .contains(".tar.gz")
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000), at in 0_usize..4608) {
        for name in ["a.zip", "a.tar", "a.tgz", "a.tzst"] {
            let _ = run(&bytes, name, LIMITS);
        }
        // A good archive with one byte changed.
        let mut tar = good_tar();
        let at = at % tar.len();
        tar[at] ^= 0x41;
        let _ = run(&tar, "a.tar", LIMITS);
    }
}
