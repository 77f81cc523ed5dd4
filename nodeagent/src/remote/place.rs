//! Where a file from outside the cluster is: `http:`, `https:`, `s3:`, `abfs:` and `gs:` sources.

use url::Url;

use crate::fetch::FetchError;

/// Longest source, bytes. Source: RFC 9110 wants 8000 octets of servers.
const SOURCE_BYTES_MAX: usize = 8_000;
/// Longest key of an object, bytes. Source: S3's and GCS's 1024, Azure's 1024 characters.
const KEY_BYTES_MAX: usize = 4_096;
/// What follows an account's name in Hadoop's `abfs:` URLs.
const AZURE_HOSTS: [&str; 2] = [".dfs.core.windows.net", ".blob.core.windows.net"];

/// Whose protocol a store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    S3,
    Azure,
    Gcs,
}

/// An object of a store. Keys are as people write them: nothing in them is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectPlace {
    pub(crate) kind: StoreKind,
    /// An Azure container is a bucket too.
    pub(crate) bucket: String,
    /// Of Azure's; empty for the others.
    pub(crate) account: String,
    pub(crate) key: String,
}

/// A source that is neither on the node nor in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RemotePlace {
    Web(Url),
    Object(ObjectPlace),
}

fn bad(words: impl Into<String>) -> FetchError {
    FetchError::Place(words.into())
}

impl RemotePlace {
    /// Reads a source; `None` when its scheme is not one of these.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Option<RemotePlace>, FetchError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Ok(None);
        };
        let scheme = scheme.to_ascii_lowercase();
        let read = || {
            if text.len() > SOURCE_BYTES_MAX {
                return Err(bad(format!("it has more than {SOURCE_BYTES_MAX} bytes")));
            }
            if text.chars().any(char::is_control) {
                return Err(bad("it has a control character"));
            }
            match scheme.as_str() {
                "http" | "https" => web(text).map(RemotePlace::Web),
                "s3" | "s3a" => simple(StoreKind::S3, &scheme, rest).map(RemotePlace::Object),
                "gs" => simple(StoreKind::Gcs, &scheme, rest).map(RemotePlace::Object),
                _ => azure(&scheme, rest).map(RemotePlace::Object),
            }
        };
        match scheme.as_str() {
            "http" | "https" | "s3" | "s3a" | "gs" | "abfs" | "abfss" => read().map(Some),
            _ => Ok(None),
        }
    }

    /// What its name says of its kind: the last part of its path.
    pub(crate) fn file_name(&self) -> &str {
        let path = match self {
            RemotePlace::Web(url) => url.path(),
            RemotePlace::Object(object) => &object.key,
        };
        path.rsplit('/').next().unwrap_or("")
    }
}

/// The URL of a web server's file.
pub(crate) fn web(text: &str) -> Result<Url, FetchError> {
    let url = Url::parse(text).map_err(|e| bad(format!("it is no URL: {e}")))?;
    check_web(&url)?;
    Ok(url)
}

/// Whether a URL may be asked for, wherever it comes from: a user or a redirect.
///
/// # Errors
/// It is not of http(s), names no host, or has a password in it.
pub(crate) fn check_web(url: &Url) -> Result<(), FetchError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(format!(
            "it leads to a {}: URL, which is neither http: nor https:",
            url.scheme()
        )));
    }
    if url.host().is_none() {
        return Err(bad("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad(
            "it has a user name or password in it, which lists and logs would show: put them into \
             the secret of `bobbin submit --object-store`",
        ));
    }
    Ok(())
}

/// `//bucket/key`.
fn simple(kind: StoreKind, scheme: &str, rest: &str) -> Result<ObjectPlace, FetchError> {
    let form = || bad(format!("it is not {scheme}://BUCKET/KEY"));
    let (bucket, key) = rest
        .strip_prefix("//")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(form)?;
    if !is_name(bucket) {
        return Err(form());
    }
    Ok(ObjectPlace {
        kind,
        bucket: bucket.to_owned(),
        account: String::new(),
        key: checked_key(key)?,
    })
}

/// `//container@account.dfs.core.windows.net/key`. Source: Hadoop's ABFS.
fn azure(scheme: &str, rest: &str) -> Result<ObjectPlace, FetchError> {
    let form = || {
        bad(format!(
            "it is not {scheme}://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH"
        ))
    };
    let (authority, key) = rest
        .strip_prefix("//")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(form)?;
    let (container, host) = authority.split_once('@').ok_or_else(form)?;
    let account = AZURE_HOSTS
        .iter()
        .find_map(|end| host.strip_suffix(end))
        .unwrap_or(host);
    // A host of another domain would be a server of anybody's.
    if !is_name(container) || !is_name(account) || account.contains('.') {
        return Err(form());
    }
    Ok(ObjectPlace {
        kind: StoreKind::Azure,
        bucket: container.to_owned(),
        account: account.to_owned(),
        key: checked_key(key)?,
    })
}

/// Of a bucket, container or account: it becomes a part of a host's name or of a path.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && !name.contains("..")
        && (name.bytes()).all(|b| b.is_ascii_alphanumeric() || b"-._$".contains(&b))
}

fn checked_key(key: &str) -> Result<String, FetchError> {
    if key.is_empty() || key.ends_with('/') {
        return Err(bad("it names a bucket or folder, not an object"));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(bad(format!("its key has more than {KEY_BYTES_MAX} bytes")));
    }
    object_store::path::Path::parse(key)
        .map_err(|e| bad(format!("its key cannot be used: {e}")))?;
    Ok(key.to_owned())
}

impl ObjectPlace {
    /// How credentials name its bucket.
    pub(crate) fn store(&self) -> String {
        match self.kind {
            StoreKind::S3 => format!("s3://{}", self.bucket),
            StoreKind::Gcs => format!("gs://{}", self.bucket),
            StoreKind::Azure => format!("abfs://{}@{}", self.bucket, self.account),
        }
    }
}

/// A source for words that others may see: a query may be a signature.
pub(crate) fn shown_source(source: &str) -> String {
    let is_web = source
        .get(..5)
        .is_some_and(|start| start.to_ascii_lowercase().starts_with("http"));
    let without_query = match source.split_once('?') {
        Some((before, _)) if is_web => format!("{before}?..."),
        Some(_) | None => source.to_owned(),
    };
    let shown = match (is_web, without_query.split_once("//")) {
        (true, Some((scheme, rest))) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}//{host}{path}")
        }
        (true | false, _) => without_query,
    };
    (shown.chars().filter(|c| !c.is_control()).take(500)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> ObjectPlace {
        match RemotePlace::parse(text).unwrap().unwrap() {
            RemotePlace::Object(object) => object,
            RemotePlace::Web(url) => panic!("{url}"),
        }
    }

    #[test]
    fn sources_are_read() {
        let s3 = object("s3a://data-1/a b/x%20.csv?x#y");
        assert_eq!(
            (s3.kind, s3.bucket.as_str(), s3.key.as_str()),
            (StoreKind::S3, "data-1", "a b/x%20.csv?x#y")
        );
        assert_eq!(s3.store(), "s3://data-1");
        for text in [
            "abfss://c@acct.dfs.core.windows.net/p/f",
            "abfs://c@acct.blob.core.windows.net/p/f",
            "abfs://c@acct/p/f",
        ] {
            assert_eq!(object(text).store(), "abfs://c@acct");
            assert_eq!(object(text).key, "p/f");
        }
        assert_eq!(object("gs://b/k").kind, StoreKind::Gcs);
        let web = RemotePlace::parse("HTTPS://Host:8443/a/b.tgz?sig=1/2")
            .unwrap()
            .unwrap();
        assert_eq!(web.file_name(), "b.tgz");
        for other in [
            "file:/a",
            "bobbin:/a",
            "webhdfs://h/x",
            "hdfs://nn/x",
            "plain",
            "",
        ] {
            assert_eq!(RemotePlace::parse(other).unwrap(), None, "{other}");
        }
    }

    #[test]
    fn bad_sources_are_refused_in_words() {
        for (text, words) in [
            ("http://", "no URL"),
            ("http:///x", "x"),
            ("https://u:p@h/x", "password"),
            ("http://u@h/x", "user name"),
            ("s3://b", "BUCKET/KEY"),
            ("s3:/b/k", "BUCKET/KEY"),
            ("s3://b/", "not an object"),
            ("s3://b/k/", "not an object"),
            ("s3://../k", "BUCKET"),
            ("s3://b@evil/k", "BUCKET"),
            ("s3://b:80/k", "BUCKET"),
            ("s3://b/../k", "key"),
            ("s3://b/a//k", "key"),
            ("gs:///k", "BUCKET"),
            ("abfs://acct/k", "CONTAINER@"),
            ("abfs://c@evil.example/k", "CONTAINER@"),
            ("s3://b/k\n", "control"),
        ] {
            match RemotePlace::parse(text) {
                Err(e) => assert!(e.to_string().contains(words), "{text}: {e}"),
                // The parser of browsers takes a missing host for a path's first part.
                Ok(Some(RemotePlace::Web(url))) => assert_eq!(url.host_str(), Some(words)),
                Ok(other) => panic!("{text}: {other:?}"),
            }
        }
        let long = format!("s3://b/{}", "x".repeat(SOURCE_BYTES_MAX));
        assert!(RemotePlace::parse(&long).is_err());
    }

    #[test]
    fn neither_signatures_nor_passwords_are_shown() {
        for (source, shown) in [
            ("https://h/x?sig=secret", "https://h/x?..."),
            ("HTTP://u:secret@h/x", "HTTP://h/x"),
            ("http://u:secret@h", "http://h"),
            ("s3://b/a?b", "s3://b/a?b"),
            ("bobbin:/user/x", "bobbin:/user/x"),
        ] {
            assert_eq!(shown_source(source), shown);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_source_is_survived(text in "(s3|http|abfs|gs|x)?:?/?/?\\PC{0,40}") {
            let _ = RemotePlace::parse(&text);
            let _ = shown_source(&text);
        }
    }
}
