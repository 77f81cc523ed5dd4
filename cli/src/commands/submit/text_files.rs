//! `--env-file` and `--properties-file`: what flags say, one a line.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, io_words};
use crate::parse;

/// Bytes of one file; what is longer is no list that somebody wrote.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a secret. Source: the agents' limit.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// The variables of all files; of one name the last counts.
pub(super) fn environment(files: &[PathBuf]) -> Result<BTreeMap<String, String>, Failure> {
    let mut found = BTreeMap::new();
    for path in files {
        for (number, line) in lines("--env-file", path)? {
            // Nothing after the '=' is cut off or unquoted: it is the value.
            let (name, value) = parse::environment(&line)
                .map_err(|words| wrong("--env-file", path, number, &words))?;
            found.insert(name, value);
        }
    }
    Ok(found)
}

/// The settings of a file, in its order.
///
/// Source: `spark-defaults.conf`: a key ends at a blank, `=` or `:`.
pub(super) fn properties(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut found = Vec::new();
    for (number, line) in lines("--properties-file", path)? {
        let line = line.trim();
        let refused = |words: &str| wrong("--properties-file", path, number, words);
        if line.ends_with('\\') {
            return Err(refused("a line that goes on is not read: write it as one"));
        }
        let end = line.find(|c: char| c == '=' || c == ':' || c.is_whitespace());
        let (key, rest) = line.split_at(end.unwrap_or(line.len()));
        let rest = rest.trim_start();
        let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim();
        let setting = parse::setting(&format!("{key}={value}")).map_err(|e| refused(&e))?;
        found.push(setting);
    }
    Ok(found)
}

/// The text of `--object-store`, whole. Its entries are the agents' to judge; what is no TOML at all is
/// seen here.
pub(super) fn object_store(path: &Path) -> Result<Vec<u8>, Failure> {
    let flag = "--object-store";
    let shown = parse::shown(&path.display().to_string());
    let bad = |words: &str| Failure::usage(format!("{flag}: '{shown}' {words}"));
    let unreadable = |e: &std::io::Error| bad(&format!("cannot be read: {}", io_words(e)));
    let file = std::fs::File::open(path).map_err(|e| unreadable(&e))?;
    let mut text = String::new();
    file.take(SECRET_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|e| unreadable(&e))?;
    if u64::try_from(text.len()).is_ok_and(|len| len > SECRET_BYTES_MAX) {
        return Err(bad(&format!("has more than {SECRET_BYTES_MAX} bytes")));
    }
    let form = "[[store]] tables as in docs/reference/sources.md";
    // The parser's own words would show a line of it.
    let table: toml::Table = toml::from_str(&text).map_err(|e| {
        let before = e.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.lines().count().max(1));
        bad(&format!("is no TOML, line {line}")).try_this(form)
    })?;
    if !table.get("store").is_some_and(toml::Value::is_array) {
        return Err(bad("has no [[store]]").try_this(form));
    }
    Ok(text.into_bytes())
}

fn wrong(flag: &str, path: &Path, number: usize, words: &str) -> Failure {
    let shown = parse::shown(&path.display().to_string());
    Failure::usage(format!("{flag}: {shown}, line {number}: {words}"))
}

/// Lines that say something, with their numbers from 1. A pipe is fine.
fn lines(flag: &str, path: &Path) -> Result<Vec<(usize, String)>, Failure> {
    let shown = parse::shown(&path.display().to_string());
    let unreadable = |words: &str| {
        Failure::usage(format!("{flag}: '{shown}' cannot be read: {words}"))
            .try_this("look at its path and permissions")
    };
    let file = std::fs::File::open(path).map_err(|e| unreadable(&io_words(&e)))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| unreadable(&io_words(&e)))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(unreadable("it has more than 1 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text"))?;
    let says_something = |line: &str| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with('#')
    };
    let numbered = text.lines().enumerate().map(|(n, line)| (n + 1, line));
    Ok(numbered
        .filter(|(_, line)| says_something(line))
        .map(|(n, line)| (n, line.trim_start().to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_travel_whole_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stores.toml");
        let good = "[[store]]\nurl = 's3://b'\nsecret_access_key = 'HUSH'\n";
        std::fs::write(&path, good).unwrap();
        assert_eq!(object_store(&path).unwrap(), good.as_bytes());
        for (text, words) in [
            ("[[store]]\nurl = HUSH", "no TOML, line"),
            ("store = 'HUSH'", "[[store]]"),
            (&" ".repeat(70_000), "more than"),
        ] {
            std::fs::write(&path, text).unwrap();
            let failure = object_store(&path).unwrap_err();
            assert!(failure.message.contains(words), "{failure}");
            assert!(!failure.message.contains("HUSH"), "{failure}");
        }
        assert!(object_store(&folder.path().join("none")).is_err());
    }

    fn written(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn variables_one_a_line() {
        let (_folder, path) = written(b"# comment\n\nA=1\n  B=x y # z \nPATH\r\nA=2\n");
        let found = environment(&[path]).unwrap();
        assert_eq!(found["A"], "2");
        assert_eq!(found["B"], "x y # z ");
        assert_eq!(found["PATH"], std::env::var("PATH").unwrap());
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn settings_as_in_sparks_files() {
        let (_folder, path) = written(
            b"# comment\ntask.max-failures 2\na.b = c = d\n\tx:y\nlong   and words \nempty=\n",
        );
        let found = properties(&path).unwrap();
        let pairs: Vec<_> = found
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let expected = [
            ("task.max-failures", "2"),
            ("a.b", "c = d"),
            ("x", "y"),
            ("long", "and words"),
            ("empty", ""),
        ];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let (_folder, path) = written(b"A=1\n=2\n");
        let failure = environment(&[path]).unwrap_err();
        assert!(failure.message.contains("file, line 2: "), "{failure}");
        let (_folder, path) = written(b"BOBBIN_ATTEMPT=1");
        let failure = environment(&[path]).unwrap_err();
        assert!(
            failure.message.contains("set by Bobbin itself"),
            "{failure}"
        );
        let (_folder, path) = written(b"a b \\\nc d");
        let failure = properties(&path).unwrap_err();
        assert!(
            failure.message.contains("line 1: a line that goes on"),
            "{failure}"
        );
        let (_folder, path) = written(b"\xff\xfe");
        let failure = properties(&path).unwrap_err();
        assert!(failure.message.contains("not UTF-8"), "{failure}");
        let (_folder, path) = written(&vec![b'a'; (1 << 20) + 1]);
        let failure = properties(&path).unwrap_err();
        assert!(failure.message.contains("more than 1 MiB"), "{failure}");
        let failure = properties(Path::new("/nonexistent")).unwrap_err();
        assert!(failure.message.contains("/nonexistent"), "{failure}");
    }
}
