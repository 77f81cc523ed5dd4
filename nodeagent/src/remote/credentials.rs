//! Who may fetch from which store, and with what: the node's file and the application's own secret,
//! both of the same form.
//!
//! ```toml
//! [[store]]
//! url = "s3://bucket"            # or s3://*, abfs://container@account, gs://bucket, https://host:port
//! users = ["anna"]               # of the node's file only; "*" is everybody
//! endpoint = "https://minio:9000"
//! access_key_id = "..."
//! secret_access_key = "..."
//! ```

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine as _;
use serde::Deserialize;
use url::Url;

use super::place::{ObjectPlace, RemotePlace, is_name, web};
use crate::fetch::FetchError;

/// Largest file of credentials, bytes.
const BYTES_MAX: u64 = 64 << 10;

/// One `[[store]]`.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreEntry {
    url: String,
    users: Vec<String>,
    /// Of the store, when it is not its provider's own.
    pub(crate) endpoint: String,
    pub(crate) region: String,
    /// The bucket is in the endpoint's host, not in the path.
    pub(crate) virtual_hosted: bool,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: String,
    pub(crate) account_key: String,
    pub(crate) sas_token: String,
    pub(crate) bearer_token: String,
    /// The JSON text of a key of Google's.
    pub(crate) service_account: String,
    username: String,
    password: String,
}

impl std::fmt::Debug for StoreEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreEntry")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default)]
    store: Vec<StoreEntry>,
}

/// The entries of one file, checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stores(Vec<StoreEntry>);

/// What was found for a source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) entry: StoreEntry,
    /// It is the node's own, so its endpoint is one of the node's settings.
    pub(crate) is_nodes: bool,
    /// Whatever it opens, everybody could have: nothing is signed, or the node's file says so.
    pub(crate) for_everybody: bool,
}

impl StoreEntry {
    pub(crate) fn is_unsigned(&self) -> bool {
        let all = [
            &self.secret_access_key,
            &self.account_key,
            &self.sas_token,
            &self.bearer_token,
            &self.service_account,
            &self.password,
        ];
        all.iter().all(|text| text.is_empty())
    }

    /// What a web server is shown; `None` for nothing.
    pub(crate) fn authorization(&self) -> Option<String> {
        if !self.bearer_token.is_empty() {
            return Some(format!("Bearer {}", self.bearer_token));
        }
        (!self.password.is_empty()).then(|| {
            let pair = format!("{}:{}", self.username, self.password);
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            format!("Basic {encoded}")
        })
    }

    /// Which kinds of credentials go with which URL.
    fn problem(&self) -> Option<String> {
        let Some((scheme, rest)) = self.url.split_once("://") else {
            return Some(format!("url = '{}' is not SCHEME://NAME", self.url));
        };
        let s3 = !self.access_key_id.is_empty() || !self.secret_access_key.is_empty();
        let azure = !self.account_key.is_empty() || !self.sas_token.is_empty();
        let gcs = !self.service_account.is_empty();
        let password = !self.password.is_empty() || !self.username.is_empty();
        let bearer = !self.bearer_token.is_empty();
        let is_bucket = |name: &str| name == "*" || is_name(name);
        let (is_name, foreign) = match scheme {
            "s3" => (is_bucket(rest), azure || gcs || password || bearer),
            "gs" => (is_bucket(rest), s3 || azure || password),
            "abfs" => {
                let (container, account) = rest.split_once('@').unwrap_or((rest, ""));
                let good = is_bucket(container) && is_bucket(account) && account != "*";
                (good, s3 || gcs || password)
            }
            "http" | "https" => (web(&self.url).is_ok(), s3 || azure || gcs),
            _ => (false, false),
        };
        if !is_name {
            return Some(format!(
                "url = '{}' is none of s3://BUCKET, gs://BUCKET, abfs://CONTAINER@ACCOUNT, \
                 https://HOST (a bucket may be *)",
                self.url
            ));
        }
        if foreign {
            return Some(format!(
                "'{}' has credentials of another kind of store",
                self.url
            ));
        }
        if self.access_key_id.is_empty() != self.secret_access_key.is_empty() {
            return Some(format!(
                "'{}' needs access_key_id and secret_access_key, or neither",
                self.url
            ));
        }
        if !self.endpoint.is_empty()
            && let Err(e) = web(&self.endpoint)
        {
            return Some(format!("the endpoint of '{}': {e}", self.url));
        }
        None
    }

    /// How well it fits: an exact name before `*`.
    fn fits(&self, place: &RemotePlace) -> Option<u8> {
        match place {
            RemotePlace::Web(url) => {
                let own = Url::parse(&self.url).ok()?;
                let is_web = matches!(own.scheme(), "http" | "https");
                (is_web && own.origin() == url.origin()).then_some(0)
            }
            RemotePlace::Object(object) if self.url == object.store() => Some(0),
            RemotePlace::Object(object) => (self.url == wildcard(object)).then_some(1),
        }
    }
}

fn wildcard(object: &ObjectPlace) -> String {
    let any = ObjectPlace {
        bucket: "*".to_owned(),
        ..object.clone()
    };
    any.store()
}

impl Stores {
    /// Reads a file's text; `of_node` demands to know for whom each entry is.
    ///
    /// # Errors
    /// What is wrong with it; a secret is never in the words.
    pub(crate) fn parse(text: &str, of_node: bool) -> Result<Stores, String> {
        let wire: Wire = toml::from_str(text).map_err(|e| {
            // Its own words show the line, which may be the secret's.
            let line = e.span().map_or(0, |span| {
                text.get(..span.start)
                    .map_or(0, |before| before.lines().count().max(1))
            });
            format!("line {line}: {}", e.message())
        })?;
        for entry in &wire.store {
            if let Some(problem) = entry.problem() {
                return Err(problem);
            }
            if of_node && entry.users.is_empty() {
                return Err(format!(
                    "'{}' does not say for which users it is: users = [\"NAME\"], or [\"*\"] for all",
                    entry.url
                ));
            }
            if !of_node && !entry.users.is_empty() {
                return Err(format!(
                    "'{}' names users: an application's credentials are its own user's",
                    entry.url
                ));
            }
        }
        Ok(Stores(wire.store))
    }

    /// Reads the node's file, which must be the agent's or root's and closed to everybody else. Blocks.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Stores, String> {
        let at = |words: String| format!("{}: {words}", path.display());
        let file = File::open(path).map_err(|e| at(e.to_string()))?;
        let metadata = file.metadata().map_err(|e| at(e.to_string()))?;
        let own = [0, bobbin_service::own_uid()].contains(&metadata.uid());
        if !metadata.is_file() || !own || metadata.mode() & 0o077 != 0 {
            return Err(at(
                "it must be a file of the agent's user that nobody else can read: chmod 600"
                    .to_owned(),
            ));
        }
        let mut text = String::new();
        file.take(BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(|e| at(e.to_string()))?;
        if u64::try_from(text.len()).is_ok_and(|len| len > BYTES_MAX) {
            return Err(at(format!("it has more than {BYTES_MAX} bytes")));
        }
        Stores::parse(&text, true).map_err(at)
    }

    fn best(
        &self,
        place: &RemotePlace,
        is_for: impl Fn(&StoreEntry) -> bool,
    ) -> Option<&StoreEntry> {
        let fitting = self.0.iter().filter(|entry| is_for(entry));
        fitting
            .filter_map(|entry| Some((entry.fits(place)?, entry)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
    }
}

/// The application's own entry, else the node's for this user, else nothing: unsigned.
///
/// # Errors
/// The node has some, but not for this user.
pub(crate) fn choose(
    place: &RemotePlace,
    user: &str,
    own: &Stores,
    nodes: &Stores,
) -> Result<Chosen, FetchError> {
    if let Some(entry) = own.best(place, |_| true) {
        return Ok(Chosen {
            entry: entry.clone(),
            is_nodes: false,
            for_everybody: entry.is_unsigned(),
        });
    }
    let is_for = |entry: &StoreEntry| entry.users.iter().any(|name| name == "*" || name == user);
    if let Some(entry) = nodes.best(place, is_for) {
        return Ok(Chosen {
            entry: entry.clone(),
            is_nodes: true,
            for_everybody: entry.users.iter().any(|name| name == "*"),
        });
    }
    if nodes.best(place, |_| true).is_some() {
        return Err(FetchError::Place(format!(
            "this node's credentials for it are not for user {user}: bring your own with `bobbin submit \
             --object-store`"
        )));
    }
    Ok(Chosen {
        for_everybody: true,
        ..Chosen::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn place(text: &str) -> RemotePlace {
        RemotePlace::parse(text).unwrap().unwrap()
    }

    fn own(text: &str) -> Stores {
        Stores::parse(text, false).unwrap()
    }

    const NODES: &str = r#"
        [[store]]
        url = "s3://*"
        users = ["*"]
        endpoint = "http://minio:9000"
        [[store]]
        url = "s3://secret"
        users = ["anna"]
        access_key_id = "id"
        secret_access_key = "hush"
        [[store]]
        url = "https://files.example"
        users = ["anna"]
        username = "u"
        password = "p"
    "#;

    #[test]
    fn an_exact_name_of_the_applications_own_comes_first() {
        let nodes = Stores::parse(NODES, true).unwrap();
        let none = Stores::default();
        let choose =
            |source: &str, user: &str, own: &Stores| choose(&place(source), user, own, &nodes);
        let annas = choose("s3://secret/k", "anna", &none).unwrap();
        assert_eq!(annas.entry.secret_access_key, "hush");
        assert!(annas.is_nodes && !annas.for_everybody);
        let bobs = choose("s3://secret/k", "bob", &none).unwrap();
        assert_eq!(bobs.entry.url, "s3://*");
        assert!(bobs.for_everybody && bobs.entry.is_unsigned());
        let mine = own("[[store]]\nurl = 's3://*'\naccess_key_id = 'a'\nsecret_access_key = 'b'");
        let mine = choose("s3://secret/k", "anna", &mine).unwrap();
        assert!(!mine.is_nodes && !mine.for_everybody);
        let web = choose("https://files.example/x", "anna", &none).unwrap();
        assert_eq!(web.entry.authorization().unwrap(), "Basic dTpw");
        let refused = choose("https://files.example/x", "bob", &none).unwrap_err();
        assert!(
            refused.to_string().contains("not for user bob"),
            "{refused}"
        );
        for other in [
            "https://files.example:444/x",
            "http://files.example/x",
            "gs://secret/k",
        ] {
            let nothing = choose(other, "anna", &none).unwrap();
            assert!(
                nothing.for_everybody && nothing.entry.is_unsigned(),
                "{other}"
            );
        }
    }

    #[test]
    fn bad_files_are_refused_without_showing_secrets() {
        for (text, words) in [
            (
                "[[store]]\nurl = 's3://b'\nsecret_acces_key = 'HUSH'",
                "secret_acces_key",
            ),
            (
                "[[store]]\nurl = 's3://b'\nsecret_access_key = HUSH",
                "line",
            ),
            (
                "[[store]]\nurl = 's3://b'\nsecret_access_key = 'HUSH'",
                "or neither",
            ),
            (
                "[[store]]\nurl = 's3://b'\nbearer_token = 'HUSH'",
                "another kind",
            ),
            (
                "[[store]]\nurl = 'https://h'\naccount_key = 'HUSH'",
                "another kind",
            ),
            ("[[store]]\nurl = 'ftp://h'", "none of"),
            ("[[store]]\nurl = 's3://a/b'", "none of"),
            ("[[store]]\nurl = 'abfs://c'", "none of"),
            ("[[store]]\nurl = 'abfs://c@*'", "none of"),
            ("[[store]]\nurl = 's3://b'\nendpoint = 'file:/x'", "file:"),
            ("[[store]]\nurl = 's3://b'\nusers = ['anna']", "names users"),
        ] {
            let refused = Stores::parse(text, false).unwrap_err();
            assert!(
                refused.contains(words) && !refused.contains("HUSH"),
                "{text}: {refused}"
            );
        }
        let refused = Stores::parse("[[store]]\nurl = 's3://b'", true).unwrap_err();
        assert!(refused.contains("which users"), "{refused}");
        let shown = format!("{:?}", Stores::parse(NODES, true).unwrap());
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn the_nodes_file_must_be_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stores.toml");
        std::fs::write(&path, NODES).unwrap();
        let with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Stores::read(&path)
        };
        assert!(with(0o600).is_ok());
        assert!(with(0o640).unwrap_err().contains("chmod 600"));
        assert!(Stores::read(dir.path()).is_err());
        assert!(
            Stores::read(Path::new("/no/such"))
                .unwrap_err()
                .contains("/no/such")
        );
        std::fs::write(&path, " ".repeat(70_000)).unwrap();
        assert!(with(0o600).unwrap_err().contains("more than"));
        if bobbin_service::own_uid() == 0 {
            std::fs::write(&path, NODES).unwrap();
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            assert!(with(0o600).is_err(), "somebody else could change it");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,80}") {
            let _ = Stores::parse(&text, false);
        }
    }
}
