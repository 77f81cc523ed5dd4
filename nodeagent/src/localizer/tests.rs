use super::*;
use std::os::unix::fs::PermissionsExt;

use crate::launch::chain;
use crate::webhdfs::tests::{Scripted, data, status_of};
use bobbin_service::{Target, account_of_name, account_of_uid, connect_lazy, own_uid};

struct Bench {
    dir: tempfile::TempDir,
    localizer: Arc<Localizer>,
}

fn account() -> Arc<Account> {
    Arc::new(match own_uid() {
        0 => account_of_name("nobody").unwrap(),
        uid => account_of_uid(uid).unwrap(),
    })
}

fn asker(container: &str) -> Asker {
    Asker {
        account: account(),
        application: "application_7_0001".into(),
        container: container.into(),
        container_token: "secret".into(),
        credentials: Bytes::new(),
        stores: Bytes::new(),
    }
}

fn open(dir: &Path) -> Arc<Localizer> {
    open_with(dir, 1 << 30)
}

fn open_with(dir: &Path, cache_bytes: u64) -> Arc<Localizer> {
    let folders = Arc::new(Folders::open(&dir.join("local"), &dir.join("log")).unwrap());
    let limits = LocalizerLimits {
        cache_bytes,
        cache_age_ms: 0,
        file_bytes_max: 1 << 30,
        archive: ArchiveLimits {
            bytes_max: 1 << 30,
            entries_max: 1000,
            ratio_max: 100,
        },
    };
    let nobody_there = connect_lazy(&Target::Tcp("127.0.0.1:1".into()), None).unwrap();
    let trees = Trees::new("127.0.0.1:1", Vec::new());
    let remote = crate::remote::tests::remote(&["127.0.0.1", "localhost"]);
    Localizer::open(folders, limits, nobody_there, trees, remote).unwrap()
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let localizer = open(dir.path());
        Bench { dir, localizer }
    }

    fn file(&self, name: &str, text: &str) -> v1::LocalResource {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let mtime = std::fs::metadata(&path).unwrap().modified().unwrap();
        let mtime = mtime.duration_since(std::time::UNIX_EPOCH).unwrap();
        v1::LocalResource {
            name: name.into(),
            source: format!("file:{}", path.display()),
            size: text.len() as u64,
            mtime_ms: u64::try_from(mtime.as_millis()).unwrap(),
            ..v1::LocalResource::default()
        }
    }

    async fn get(&self, resource: &v1::LocalResource) -> Result<Hold, Arc<LocalizeError>> {
        self.localizer.localize(resource, &asker("c1")).await
    }
}

fn with(mut resource: v1::LocalResource, visibility: v1::Visibility) -> v1::LocalResource {
    resource.set_visibility(visibility);
    resource
}

#[tokio::test]
async fn each_visibility_has_its_place_and_mode() {
    let bench = Bench::new();
    let user = account().name.clone();
    for (visibility, place, mode) in [
        (v1::Visibility::Public, "filecache/".to_owned(), 0o444),
        (
            v1::Visibility::Private,
            format!("usercache/{user}/filecache/"),
            0o400,
        ),
        (
            v1::Visibility::Application,
            format!("usercache/{user}/appcache/application_7_0001/filecache/"),
            0o400,
        ),
    ] {
        let resource = with(bench.file("data", "text"), visibility);
        let hold = bench.get(&resource).await.unwrap();
        assert!(hold.entry.folder.starts_with(&place), "{:?}", hold.entry);
        assert_eq!(std::fs::read_to_string(hold.path()).unwrap(), "text");
        let metadata = std::fs::metadata(hold.path()).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, mode);
        let again = bench.get(&resource).await.unwrap();
        assert_eq!(again.entry, hold.entry, "shared");
    }
}

#[tokio::test]
async fn concurrent_requests_share_one_copy() {
    let bench = Bench::new();
    let resource = bench.file("data", &"x".repeat(1 << 20));
    let all = futures::future::join_all((0..50).map(|_| bench.get(&resource))).await;
    let first = all[0].as_ref().unwrap().entry.clone();
    assert!(all.iter().all(|hold| hold.as_ref().unwrap().entry == first));
    assert!(bench.localizer.state().flights.is_empty());
}

#[tokio::test]
async fn a_webhdfs_file_is_fetched_once_for_all_who_ask() {
    let bench = Bench::new();
    let server = Scripted::start().await;
    bench.localizer.trees.set_own(&server.address);
    let file = status_of(4, 9, "600");
    server.script(&[file.clone(), data("text"), file.clone()]);
    let mut resource = v1::LocalResource {
        name: "link".into(),
        source: format!("webhdfs://{}/user/x/f", server.address),
        size: 4,
        mtime_ms: 9,
        ..v1::LocalResource::default()
    };
    resource.set_visibility(v1::Visibility::Private);
    let all = futures::future::join_all((0..20).map(|_| bench.get(&resource))).await;
    let hold = all[0].as_ref().unwrap();
    assert!(all.iter().all(|h| h.as_ref().unwrap().entry == hold.entry));
    assert_eq!(std::fs::read_to_string(hold.path()).unwrap(), "text");
    let mode = std::fs::metadata(hold.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o500, "as YARN gives it");
    assert_eq!(server.seen().0.len(), 3, "one fetch, then none");
    // Another time is another file; one that was changed again is nobody's.
    resource.mtime_ms = 10;
    server.script(&[file]);
    let words = chain(&bench.get(&resource).await.unwrap_err());
    assert!(
        words.contains("changed on src filesystem - expected 10, was 9"),
        "{words}"
    );
}

#[tokio::test]
async fn without_time_and_digest_nothing_is_shared() {
    let bench = Bench::new();
    let mut resource = bench.file("data", "one");
    resource.mtime_ms = 0;
    resource.size = 0;
    let one = bench
        .localizer
        .localize(&resource, &asker("c1"))
        .await
        .unwrap();
    std::fs::write(bench.dir.path().join("data"), "other").unwrap();
    let two = bench
        .localizer
        .localize(&resource, &asker("c2"))
        .await
        .unwrap();
    assert_eq!(std::fs::read_to_string(one.path()).unwrap(), "one");
    assert_eq!(std::fs::read_to_string(two.path()).unwrap(), "other");
}

#[tokio::test]
async fn failures_name_the_resource_and_leave_nothing() {
    let bench = Bench::new();
    let mut changed = bench.file("data", "text");
    changed.size = 9;
    let mut missing = bench.file("data", "text");
    missing.source = "file:/no/such/file".into();
    let mut staged = bench.file("data", "text");
    staged.source = "bobbin:/user/x/f".into();
    let mut archive = bench.file("evil.tar", "not a tar at all");
    archive.set_type(v1::ResourceType::Archive);
    for (resource, words) in [
        (changed, "it has 4 bytes, 9 were expected"),
        (missing, "cannot open it as the user"),
        (staged, "the resource manager does not give it"),
        (archive, "archive 'evil.tar'"),
    ] {
        let error = chain(&bench.get(&resource).await.unwrap_err());
        assert!(
            error.contains(words) && error.contains(&resource.source),
            "{error}"
        );
    }
    let cache = bench.dir.path().join(format!(
        "local/usercache/{}/appcache/application_7_0001/filecache",
        account().name
    ));
    assert_eq!(std::fs::read_dir(cache).unwrap().count(), 0);
}

#[tokio::test]
async fn an_archive_becomes_a_folder_of_the_user_s() {
    let bench = Bench::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o755);
    builder
        .append_data(&mut header, "bin/run", &b"ok"[..])
        .unwrap();
    let bytes = builder.into_inner().unwrap();
    let mut resource = bench.file("a.tar", "");
    std::fs::write(bench.dir.path().join("a.tar"), &bytes).unwrap();
    resource.size = bytes.len() as u64;
    resource.mtime_ms = 0;
    resource.sha256 = <sha2::Sha256 as sha2::Digest>::digest(&bytes).to_vec();
    resource.set_type(v1::ResourceType::Archive);
    let hold = bench.get(&resource).await.unwrap();
    let run = hold.path().join("bin/run");
    let metadata = std::fs::metadata(&run).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o755);
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&metadata),
        account().uid
    );
    assert!(!hold.path().parent().unwrap().join("download").exists());
}

#[tokio::test]
async fn a_restarted_agent_keeps_whole_copies_and_sweeps_halves() {
    let bench = Bench::new();
    let resource = with(bench.file("data", "text"), v1::Visibility::Private);
    let hold = bench.get(&resource).await.unwrap();
    let folder = hold.entry.folder.clone();
    let half = bench.dir.path().join("local/filecache/77.part");
    std::fs::create_dir(&half).unwrap();
    let later = open(bench.dir.path());
    assert!(!half.exists());
    let again = later.hold_again(std::slice::from_ref(&folder));
    assert_eq!(again.len(), 1);
    assert_eq!(
        later.state().cache.evict(
            Bounds {
                bytes_max: 0,
                age_max_ms: 0
            },
            u64::MAX
        ),
        vec![],
        "an adopted container holds it"
    );
    drop(again);
    let found = later.localize(&resource, &asker("c2")).await.unwrap();
    assert_eq!(found.entry.folder, folder);
    let next = later
        .localize(&with(resource, v1::Visibility::Public), &asker("c2"))
        .await;
    assert_ne!(
        next.unwrap().entry.folder.file_name(),
        folder.file_name(),
        "numbers are unique"
    );
}

mod urls {
    use super::*;
    use crate::remote::tests::{Liar, say, whole};

    fn url(liar: &Liar) -> v1::LocalResource {
        with(
            v1::LocalResource {
                name: "data".into(),
                source: liar.url(),
                ..v1::LocalResource::default()
            },
            v1::Visibility::Private,
        )
    }

    fn other_application(container: &str) -> Asker {
        Asker {
            application: "application_7_0002".into(),
            ..asker(container)
        }
    }

    fn text_of(hold: &Hold) -> String {
        std::fs::read_to_string(hold.path()).unwrap()
    }

    #[tokio::test]
    async fn a_copy_is_shared_as_long_as_its_server_says_the_same() {
        let (bench, liar) = (Bench::new(), Liar::start().await);
        let tagged = |tag: &str, body: &str| whole(&format!("etag: \"{tag}\"\r\n"), body);
        liar.script(&[tagged("a", ""), tagged("a", "one"), tagged("a", "")]);
        // The answer to HEAD has the length of the file.
        let head = |tag: &str| {
            say(&format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\netag: \"{tag}\"\r\n\r\n"
            ))
        };
        liar.script(&[
            head("a"),
            tagged("a", "one"),
            head("a"),
            head("b"),
            tagged("b", "two"),
        ]);
        let one = bench.get(&url(&liar)).await.unwrap();
        let again = bench
            .localizer
            .localize(&url(&liar), &other_application("c2"))
            .await;
        assert_eq!(
            again.unwrap().entry,
            one.entry,
            "shared between applications"
        );
        let two = bench.get(&url(&liar)).await.unwrap();
        assert_eq!((text_of(&one), text_of(&two)), ("one".into(), "two".into()));
        let seen = liar.seen();
        let methods: Vec<_> = seen.iter().map(|head| &head[..4]).collect();
        assert_eq!(methods, ["HEAD", "GET ", "HEAD", "HEAD", "GET "]);
        let mode = std::fs::metadata(one.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o400);
        // What was found out and is not so any more is found out again.
        liar.script(&[head("c"), tagged("d", "new"), head("d"), tagged("d", "new")]);
        assert_eq!(text_of(&bench.get(&url(&liar)).await.unwrap()), "new");
    }

    #[tokio::test]
    async fn without_a_server_s_word_nothing_is_shared() {
        let (bench, liar) = (Bench::new(), Liar::start().await);
        let nothing = || say("HTTP/1.1 200 OK\r\n\r\n");
        liar.script(&[nothing(), whole("", "one"), nothing(), whole("", "two")]);
        let public = with(url(&liar), v1::Visibility::Public);
        let one = bench.get(&public).await.unwrap();
        let two = bench
            .localizer
            .localize(&public, &asker("c2"))
            .await
            .unwrap();
        assert_eq!((text_of(&one), text_of(&two)), ("one".into(), "two".into()));
        assert!(one.entry.folder.starts_with("usercache"), "{:?}", one.entry);
    }

    #[tokio::test]
    async fn a_digest_is_the_same_file_wherever_it_is_from() {
        let (bench, liar) = (Bench::new(), Liar::start().await);
        liar.script(&[whole("", "abcd")]);
        let mut resource = url(&liar);
        resource.sha256 = <sha2::Sha256 as sha2::Digest>::digest(b"abcd").to_vec();
        let one = bench.get(&resource).await.unwrap();
        resource.source = "https://elsewhere.invalid/data.bin?sig=x".into();
        let again = bench
            .localizer
            .localize(&resource, &other_application("c2"))
            .await;
        assert_eq!(again.unwrap().entry, one.entry);
        assert_eq!(liar.seen().len(), 1, "nobody was asked again");
        // As an archive it is something else, and here it is none.
        liar.script(&[whole("", "abcd")]);
        let mut archive = resource.clone();
        archive.source = format!("http://{}/x.tgz?sig=1/hush", liar.address);
        archive.set_type(v1::ResourceType::Archive);
        let words = chain(&bench.get(&archive).await.unwrap_err());
        assert!(
            words.contains("x.tgz") && !words.contains("hush"),
            "{words}"
        );
    }

    #[tokio::test]
    async fn what_needs_a_key_is_nobody_elses() {
        let (bench, liar) = (Bench::new(), Liar::start().await);
        let mut asks = asker("c1");
        asks.stores = format!(
            "[[store]]\nurl = 'http://{}'\nbearer_token = 'k'",
            liar.address
        )
        .into();
        let public = with(url(&liar), v1::Visibility::Public);
        let refused = bench.localizer.localize(&public, &asks).await.unwrap_err();
        assert!(chain(&refused).contains("cannot be PUBLIC"), "{refused}");
        assert!(liar.seen().is_empty());
        let answers = [whole("etag: \"a\"\r\n", "")];
        liar.script(&[&answers[..], &answers[..]].concat());
        let own = bench.localizer.localize(&url(&liar), &asks).await.unwrap();
        assert!(own.entry.folder.starts_with("usercache"), "{:?}", own.entry);
    }

    #[tokio::test]
    async fn how_far_a_file_is_can_be_seen_until_nobody_waits() {
        use crate::remote::tests::Part;
        let (bench, liar) = (Bench::new(), Liar::start().await);
        let mut half = say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n");
        half.push(Part::Hang);
        let head = say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n");
        liar.script(&[head, half]);
        let resource = url(&liar);
        let mut waiting = Box::pin(bench.get(&resource));
        let row = loop {
            tokio::select! {
                biased;
                outcome = &mut waiting => panic!("{outcome:?}"),
                () = tokio::task::yield_now() => {}
            }
            match bench.localizer.fetching().pop() {
                Some(row) if row.bytes_total > 0 => break row,
                Some(_) | None => {}
            }
        };
        assert_eq!((row.container.as_str(), row.name.as_str()), ("c1", "data"));
        assert_eq!((row.bytes, row.bytes_total), (0, 9));
        drop(waiting);
        assert_eq!(bench.localizer.fetching(), []);
    }

    #[tokio::test]
    async fn a_file_larger_than_the_cache_is_used_and_then_removed() {
        let bench = Bench::new();
        let small = open_with(bench.dir.path(), 3);
        let resource = with(bench.file("big", "0123456789"), v1::Visibility::Private);
        let hold = small.localize(&resource, &asker("c1")).await.unwrap();
        assert_eq!(text_of(&hold), "0123456789");
        let path = hold.path();
        drop(hold);
        small.clone().tidy().await;
        assert!(!path.exists());
        assert_eq!(small.cached(), (0, 0));
    }
}
