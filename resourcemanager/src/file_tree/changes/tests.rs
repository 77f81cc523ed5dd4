//! The tree as people use it: what stays theirs and what others may do.

use std::io::Read;

use super::*;
use crate::file_tree::{Creation, FileTree};

fn person(name: &str) -> Person {
    Person {
        name: name.to_owned(),
        groups: vec![name.to_owned(), "staff".to_owned()],
        administrator: false,
    }
}

fn administrator() -> Person {
    Person {
        administrator: true,
        ..person("nobody")
    }
}

fn at(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

fn tree() -> (tempfile::TempDir, Files) {
    let folder = tempfile::tempdir().unwrap();
    FileTree::open(folder.path(), 1 << 20).unwrap();
    let files = Files::open(folder.path(), "bobbin".to_owned(), 1 << 20).unwrap();
    (folder, files)
}

const NEW: Creation = Creation {
    overwrite: false,
    create_parent: true,
    mode: 0o644,
};

fn put(files: &Files, who: &Person, path: &str, text: &str) -> Result<(), FilesError> {
    let mut writer = files.create(who, &at(path), NEW)?;
    writer.write(text.as_bytes())?;
    writer.finish()
}

fn get(files: &Files, who: &Person, path: &str) -> Result<String, FilesError> {
    let (mut file, _) = files.read(who, &at(path), 0)?;
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    Ok(text)
}

#[test]
fn a_file_from_its_making_to_its_end() {
    let (_folder, files) = tree();
    let ann = person("ann");
    put(&files, &ann, "/user/ann/a/b", "one").unwrap();
    let again = put(&files, &ann, "/user/ann/a/b", "two");
    assert!(matches!(again, Err(FilesError::Exists(_))));
    let over = Creation {
        overwrite: true,
        ..NEW
    };
    let mut writer = files.create(&ann, &at("/user/ann/a/b"), over).unwrap();
    writer.write(b"2").unwrap();
    // Seen while it grows; nobody else writes meanwhile.
    assert_eq!(get(&files, &ann, "/user/ann/a/b").unwrap(), "2");
    let other = files.append(&ann, &at("/user/ann/a/b"));
    assert!(matches!(other, Err(FilesError::BeingWritten(_))));
    drop(writer);
    let mut more = files.append(&ann, &at("/user/ann/a/b")).unwrap();
    more.write(b"+3").unwrap();
    more.finish().unwrap();
    assert_eq!(get(&files, &ann, "/user/ann/a/b").unwrap(), "2+3");
    let entry = files.status(&ann, &at("/user/ann/a/b")).unwrap();
    assert_eq!(
        (
            entry.owner.as_str(),
            entry.group.as_str(),
            entry.mode,
            entry.length
        ),
        ("ann", "ann", 0o644, 3)
    );
    let summary = files.summary(&ann, &at("/user/ann")).unwrap();
    assert_eq!((summary.folders, summary.files, summary.bytes), (2, 1, 3));
    let times = TimesChange {
        modified_ms: Some(1_234_567),
        accessed_ms: None,
    };
    files.set_times(&ann, &at("/user/ann/a/b"), times).unwrap();
    let entry = files.status(&ann, &at("/user/ann/a/b")).unwrap();
    assert_eq!(entry.modified_ms, 1_234_567);
    let kept = files.delete(&ann, &at("/user/ann/a"), false);
    assert!(matches!(kept, Err(FilesError::NotEmpty(_))));
    assert!(files.delete(&ann, &at("/user/ann/a"), true).unwrap());
    assert!(!files.delete(&ann, &at("/user/ann/a"), true).unwrap());
}

#[test]
fn homes_are_private_and_tmp_is_sticky() {
    let (_folder, files) = tree();
    let (ann, bob) = (person("ann"), person("bob"));
    put(&files, &ann, "/user/ann/x", "secret").unwrap();
    put(&files, &ann, "/tmp/x", "open").unwrap();
    let denied = |r: Result<String, FilesError>| matches!(r, Err(FilesError::Denied(_)));
    assert!(denied(get(&files, &bob, "/user/ann/x")));
    assert_eq!(get(&files, &bob, "/tmp/x").unwrap(), "open");
    assert_eq!(
        get(&files, &administrator(), "/user/ann/x").unwrap(),
        "secret"
    );
    for (what, result) in [
        (
            "create in another's home",
            put(&files, &bob, "/user/ann/y", ""),
        ),
        (
            "make a home for another",
            put(&files, &bob, "/user/carol/y", ""),
        ),
        ("create in the root", put(&files, &bob, "/y", "")),
        (
            "delete in tmp",
            files.delete(&bob, &at("/tmp/x"), true).map(drop),
        ),
        (
            "rename in tmp",
            files.rename(&bob, &at("/tmp/x"), &at("/tmp/y")).map(drop),
        ),
        ("append", files.append(&bob, &at("/tmp/x")).map(drop)),
        ("chmod", files.set_mode(&bob, &at("/tmp/x"), 0o777)),
        (
            "chown",
            files.set_owner(&ann, &at("/tmp/x"), Some("bob"), None),
        ),
        (
            "a group not one's own",
            files.set_owner(&ann, &at("/tmp/x"), None, Some("wheel")),
        ),
        (
            "list",
            files.list_after(&bob, &at("/user/ann"), "").map(drop),
        ),
        ("sum", files.summary(&bob, &at("/user")).map(drop)),
        (
            "remove tmp",
            files.delete(&administrator(), &at("/tmp"), true).map(drop),
        ),
    ] {
        assert!(
            matches!(result, Err(FilesError::Denied(_))),
            "{what}: {result:?}"
        );
    }
    files
        .set_owner(&ann, &at("/tmp/x"), None, Some("staff"))
        .unwrap();
    files.set_mode(&ann, &at("/tmp/x"), 0o660).unwrap();
    files.append(&bob, &at("/tmp/x")).unwrap();
    let owner = Some("bob");
    files
        .set_owner(&administrator(), &at("/tmp/x"), owner, None)
        .unwrap();
    assert_eq!(files.status(&ann, &at("/tmp/x")).unwrap().owner, "bob");
}

#[test]
fn what_is_below_another_persons_folder_is_not_removed() {
    let (_folder, files) = tree();
    let (ann, bob) = (person("ann"), person("bob"));
    files.make_folders(&ann, &at("/tmp/ours"), 0o777).unwrap();
    files
        .make_folders(&bob, &at("/tmp/ours/bobs"), 0o755)
        .unwrap();
    put(&files, &bob, "/tmp/ours/bobs/x", "").unwrap();
    let denied = files.delete(&ann, &at("/tmp/ours"), true);
    assert!(matches!(denied, Err(FilesError::Denied(_))), "{denied:?}");
    assert!(files.delete(&bob, &at("/tmp/ours/bobs"), true).unwrap());
    assert!(files.delete(&ann, &at("/tmp/ours"), true).unwrap());
}

#[test]
fn renames_as_hdfs_does_them() {
    let (_folder, files) = tree();
    let ann = person("ann");
    let home = |name: &str| at(&format!("/user/ann/{name}"));
    put(&files, &ann, "/user/ann/a", "a").unwrap();
    files.make_folders(&ann, &home("d/e"), 0o755).unwrap();
    let rename = |from: &str, to: &str| files.rename(&ann, &home(from), &home(to)).unwrap();
    assert!(!rename("none", "x"));
    assert!(!rename("a", "no/parent"));
    assert!(!rename("d", "d/e/f"));
    assert!(rename("a", "d"), "into the folder");
    assert_eq!(get(&files, &ann, "/user/ann/d/a").unwrap(), "a");
    put(&files, &ann, "/user/ann/b", "b").unwrap();
    assert!(!rename("b", "d/a"), "never over a file");
    let exactly =
        |to: &str, overwrite| files.rename_exactly(&ann, &home("b"), &home(to), overwrite);
    assert!(matches!(exactly("d/a", false), Err(FilesError::Exists(_))));
    assert!(matches!(exactly("d", true), Err(FilesError::IsAFolder(_))));
    assert!(matches!(
        exactly("no/p", true),
        Err(FilesError::NotFound(_))
    ));
    exactly("d/a", true).unwrap();
    assert_eq!(get(&files, &ann, "/user/ann/d/a").unwrap(), "b");
    let home_itself = files.rename(&administrator(), &at("/user/ann"), &at("/tmp/ann"));
    assert!(matches!(home_itself, Err(FilesError::Denied(_))));
}

#[test]
fn shipped_files_are_read_and_not_changed() {
    let (folder, files) = tree();
    let path = "/user/ann/.bobbinStaging/application_1_0001/x";
    let on_disk = folder.path().join(&path[1..]);
    std::fs::create_dir_all(on_disk.parent().unwrap()).unwrap();
    std::fs::write(&on_disk, "shipped").unwrap();
    std::fs::write(on_disk.with_file_name(".upload-y"), "half").unwrap();
    let ann = person("ann");
    assert_eq!(get(&files, &ann, path).unwrap(), "shipped");
    let names = files.list_after(&ann, &at("/user/ann/.bobbinStaging/application_1_0001"), "");
    assert_eq!(names.unwrap().entries.len(), 1);
    assert!(get(&files, &person("bob"), path).is_err());
    for result in [
        files.delete(&ann, &at(path), true).map(drop),
        files
            .delete(&ann, &at("/user/ann/.bobbinStaging"), true)
            .map(drop),
        files.rename(&ann, &at(path), &at("/tmp/x")).map(drop),
        files.append(&ann, &at(path)).map(drop),
        files.set_mode(&ann, &at(path), 0o777),
        put(&files, &ann, "/user/ann/.bobbinStaging/y", ""),
    ] {
        assert!(matches!(result, Err(FilesError::Denied(_))), "{result:?}");
    }
}

#[test]
fn a_files_size_has_its_limit_and_batches_end() {
    let (_folder, files) = tree();
    let ann = person("ann");
    let mut writer = files.create(&ann, &at("/tmp/big"), NEW).unwrap();
    writer.write(&vec![0; 1 << 20]).unwrap();
    assert!(matches!(
        writer.write(b"x"),
        Err(FilesError::TooLarge { .. })
    ));
    files.make_folders(&ann, &at("/tmp/many"), 0o755).unwrap();
    for n in 0..1_001 {
        std::fs::write(files.root.join(format!("tmp/many/{n:05}")), "").unwrap();
    }
    let first = files.list_after(&ann, &at("/tmp/many"), "").unwrap();
    assert_eq!((first.entries.len(), first.remaining), (1_000, 1));
    let last = &first.entries.last().unwrap().name;
    let rest = files.list_after(&ann, &at("/tmp/many"), last).unwrap();
    assert_eq!((rest.entries.len(), rest.remaining), (1, 0));
}

#[test]
fn a_folder_on_its_way_out_is_nobodys_and_goes_at_the_next_start() {
    let (folder, files) = tree();
    let ann = person("ann");
    put(&files, &ann, "/user/ann/a/b/c", "x").unwrap();
    put(&files, &ann, "/user/ann/a/d", "y").unwrap();
    assert!(files.delete(&ann, &at("/user/ann/a"), true).unwrap());
    let names = |at: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(at).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(folder.path()), ["tmp", "user"]);
    // As a kill in the middle leaves it.
    let half = folder.path().join(".upload-trash-7/b");
    std::fs::create_dir_all(&half).unwrap();
    std::fs::write(half.join("c"), "x").unwrap();
    assert!(TreePath::parse("/.upload-trash-7/b/c").is_err());
    let listed = files
        .list_after(&administrator(), &at("/"), "")
        .unwrap()
        .entries;
    assert_eq!(listed.len(), 2, "{listed:?}");
    Files::open(folder.path(), "bobbin".to_owned(), 1 << 20).unwrap();
    assert_eq!(names(folder.path()), ["tmp", "user"]);
}

#[test]
fn a_sum_over_a_tree_lets_others_change_it() {
    let (_folder, files) = tree();
    let ann = person("ann");
    for n in 0..200 {
        put(&files, &ann, &format!("/user/ann/d{n}/f"), "12345").unwrap();
    }
    let sum = files.summary(&ann, &at("/user/ann")).unwrap();
    assert_eq!((sum.folders, sum.files, sum.bytes), (201, 200, 1000));
    std::thread::scope(|scope| {
        let summing = scope.spawn(|| files.summary(&ann, &at("/user/ann")));
        for n in 0..200 {
            assert!(
                files
                    .delete(&ann, &at(&format!("/user/ann/d{n}")), true)
                    .unwrap()
            );
        }
        let sum = summing.join().unwrap().unwrap();
        assert!(sum.files <= 200 && sum.bytes == sum.files * 5, "{sum:?}");
    });
}
