//! `--files` and `--archives` that are fetched by the nodes: `http(s):`, `s3:`, `abfs:` and `gs:` URLs.
//!
//! `URL#NAME&sha256=HEX&visibility=public`: what stands behind `#` never goes to a server, and the digest
//! is written as pip does (`#sha256=HEX`).

use bobbin_proto::v1;
use url::Url;

use crate::failure::Failure;
use crate::parse;

/// Schemes that nodes fetch from, with the form of each.
const SCHEMES: [(&str, &str); 7] = [
    ("http", "http://HOST/PATH"),
    ("https", "https://HOST/PATH"),
    ("s3", "s3://BUCKET/KEY"),
    ("s3a", "s3a://BUCKET/KEY"),
    ("gs", "gs://BUCKET/KEY"),
    ("abfs", "abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH"),
    (
        "abfss",
        "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH",
    ),
];

/// What is said of a URL behind its `#`.
#[derive(Debug, Default)]
struct Said {
    name: Option<String>,
    sha256: Vec<u8>,
    visibility: Option<v1::Visibility>,
}

/// Whether nodes fetch this themselves.
pub(super) fn is_url(text: &str) -> bool {
    form(text).is_some()
}

fn form(text: &str) -> Option<&'static str> {
    let (scheme, _) = text.split_once(':')?;
    let known = SCHEMES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(scheme));
    known.map(|(_, form)| *form)
}

/// Reads one; the name is that of the URL's path unless another is given.
///
/// # Errors
/// What is wrong with it, named by the flag.
pub(super) fn resource(
    flag: &str,
    text: &str,
    kind: v1::ResourceType,
) -> Result<v1::LocalResource, Failure> {
    let (source, behind) = match text.rsplit_once('#') {
        Some((source, behind)) => (source, behind),
        None => (text, ""),
    };
    let bad = |words: &str| {
        let shown = parse::shown(&without_secrets(source));
        Failure::usage(format!("{flag}: '{shown}' {words}"))
    };
    let form = form(source).unwrap_or("");
    let path = path_of(source).map_err(|words| bad(&words).try_this(form))?;
    let said = said(behind).map_err(|words| {
        bad(&words).try_this("URL#NAME, URL#sha256=HEX, URL#NAME&sha256=HEX&visibility=public")
    })?;
    let named = path.rsplit('/').next().unwrap_or("");
    let name = match said.name {
        Some(name) => name,
        None => parse::file_name(named).map_err(|_| {
            bad("does not end with a file's name").try_this("give it one: URL#NAME")
        })?,
    };
    let is_known = |name: &str| super::plan::is_archive_name(name);
    if kind == v1::ResourceType::Archive && !is_known(named) && !is_known(&name) {
        return Err(super::plan::no_archive(flag, named));
    }
    Ok(v1::LocalResource {
        name,
        source: source.to_owned(),
        size: 0,
        mtime_ms: 0,
        sha256: said.sha256,
        r#type: kind.into(),
        // The user's applications share it; others only when that was said.
        visibility: said.visibility.unwrap_or(v1::Visibility::Private).into(),
        // Servers know no modes, and YARN gives every file the right to be executed.
        executable: true,
    })
}

/// For words: neither the query of a web URL, which may be a signature, nor a password in it.
fn without_secrets(source: &str) -> String {
    if !is_web(source) {
        return source.to_owned();
    }
    let source = source.split('?').next().unwrap_or(source);
    match source.split_once("//") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}//{host}{path}")
        }
        None => source.to_owned(),
    }
}

fn is_web(source: &str) -> bool {
    let start = source.get(..4);
    start.is_some_and(|start| start.eq_ignore_ascii_case("http"))
}

/// The path, decoded where URLs are encoded.
fn path_of(source: &str) -> Result<String, String> {
    if source.chars().any(char::is_control) {
        return Err("has a control character".to_owned());
    }
    if !is_web(source) {
        let rest = source.split_once("://").map_or("", |(_, rest)| rest);
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || key.is_empty() {
            return Err("names no object".to_owned());
        }
        return Ok(key.to_owned());
    }
    let url = Url::parse(source).map_err(|e| format!("is no URL: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "has a user name or password in it, which lists and logs would show: put them into a \
             file for --object-store"
                .to_owned(),
        );
    }
    let decoded = percent_encoding::percent_decode_str(url.path()).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| "has a path that is not UTF-8".to_owned())
}

fn said(behind: &str) -> Result<Said, String> {
    let mut said = Said::default();
    for part in behind.split('&').filter(|part| !part.is_empty()) {
        let is_again = match part.split_once('=') {
            Some(("sha256", text)) => {
                let digest = hex(text).ok_or("has a sha256 that is not 64 hexadecimal digits")?;
                !std::mem::replace(&mut said.sha256, digest).is_empty()
            }
            Some(("visibility", text)) => {
                let visibility = match text {
                    "public" => v1::Visibility::Public,
                    "private" => v1::Visibility::Private,
                    "application" => v1::Visibility::Application,
                    _ => {
                        return Err(
                            "has a visibility that is none of public, private, application"
                                .to_owned(),
                        );
                    }
                };
                said.visibility.replace(visibility).is_some()
            }
            Some(("name", text)) => said.name.replace(file_name(text)?).is_some(),
            Some((key, _)) => {
                return Err(format!("says '{}', which is not known", parse::shown(key)));
            }
            None => said.name.replace(file_name(part)?).is_some(),
        };
        if is_again {
            return Err("says the same twice behind its '#'".to_owned());
        }
    }
    Ok(said)
}

fn file_name(text: &str) -> Result<String, String> {
    parse::file_name(text).map_err(|e| format!("cannot be called so: {e}"))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..64).step_by(2).map(|at| text.get(at..at + 2));
    pairs
        .map(|pair| u8::from_str_radix(pair?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<v1::LocalResource, Failure> {
        resource("--files", text, v1::ResourceType::File)
    }

    #[test]
    fn urls_with_names_and_digests() {
        let digest = "0123456789abcdefABCDEF".repeat(3)[..64].to_owned();
        for (text, name, source) in [
            (
                "https://h/a/b%20c.csv?sig=x/y",
                "b c.csv",
                "https://h/a/b%20c.csv?sig=x/y",
            ),
            ("http://h/a#data", "data", "http://h/a"),
            ("s3://b/k/part-0.csv", "part-0.csv", "s3://b/k/part-0.csv"),
            ("S3A://b/k#x", "x", "S3A://b/k"),
            ("gs://b/k#name=x", "x", "gs://b/k"),
            (
                "abfs://c@a.dfs.core.windows.net/p/f",
                "f",
                "abfs://c@a.dfs.core.windows.net/p/f",
            ),
        ] {
            assert!(is_url(text), "{text}");
            let read = file(text).unwrap();
            assert_eq!((read.name.as_str(), read.source.as_str()), (name, source));
            assert_eq!(read.visibility(), v1::Visibility::Private);
            assert!(read.sha256.is_empty() && read.executable);
        }
        let all = file(&format!("http://h/a#n&sha256={digest}&visibility=public")).unwrap();
        assert_eq!((all.name.as_str(), all.sha256.len()), ("n", 32));
        assert_eq!((all.sha256[0], all.sha256[10]), (0x01, 0xef));
        assert_eq!(all.visibility(), v1::Visibility::Public);
        assert_eq!(
            file(&format!("http://h/a#sha256={digest}")).unwrap().name,
            "a"
        );
        for other in ["a:b", "file:/x", "./http", "/s3:/x", "hdfs://n/x", "x"] {
            assert!(!is_url(other), "{other}");
        }
    }

    #[test]
    fn bad_urls_are_refused_before_anything_is_sent() {
        for (text, words) in [
            ("http://u:secret@h/x", "user name or password"),
            ("http://", "no URL"),
            ("https://h/", "file's name"),
            ("s3://b", "no object"),
            ("s3:/b/k", "no object"),
            ("http://h/x#a/b", "a/b"),
            ("http://h/x#sha256=12", "64 hexadecimal"),
            ("http://h/x#md5=12", "'md5'"),
            ("http://h/x#a&b", "twice"),
            ("http://h/x#visibility=all", "visibility"),
            ("http://h/x\ny", "control"),
        ] {
            let failure = file(text).unwrap_err();
            assert!(failure.message.contains(words), "{text}: {failure}");
            assert!(!failure.message.contains("secret"), "{failure}");
        }
        let archive = |text| resource("--archives", text, v1::ResourceType::Archive);
        assert!(
            archive("http://h/x.bin")
                .unwrap_err()
                .message
                .contains("archive")
        );
        assert_eq!(archive("http://h/x.tgz?a#lib").unwrap().name, "lib");
        assert_eq!(
            archive("http://h/download?id=7#x.zip").unwrap().name,
            "x.zip"
        );
    }
}
