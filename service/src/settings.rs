//! Settings: a TOML file, then the environment, then flags; nothing unknown is taken.
//!
//! The known keys are those of the settings type's default value, so code and check cannot differ.
//! Every field must therefore be present in the default (no `Option`, no free maps).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use config::builder::DefaultState;
use config::{Config, ConfigBuilder, FileFormat};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Settings that cannot be used. Every variant names the file or variable.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read the settings file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} can be written by everybody: chmod o-w it", path.display())]
    WorldWritable { path: PathBuf },
    #[error("{} belongs to uid {owner}, neither root nor this process's user", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("{}: {problem}", path.display())]
    Syntax { path: PathBuf, problem: String },
    #[error("{origin}: unknown setting '{key}'{}", nearest_words(nearest.as_ref()))]
    UnknownKey {
        origin: String,
        key: String,
        nearest: Option<String>,
    },
    #[error("{origin}: {problem}")]
    Value { origin: String, problem: String },
}

fn nearest_words(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean '{key}'?"))
}

/// Loads settings of this process: `file` (which must exist), then the environment's variables
/// `<prefix>__A__B`, then `flags` as (key, value).
///
/// # Errors
/// The first thing that cannot be used, named.
pub fn load<T>(file: &Path, prefix: &str, flags: &[(String, String)]) -> Result<T, SettingsError>
where
    T: Default + Serialize + DeserializeOwned,
{
    let environment: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    load_from(Some(file), prefix, &environment, flags)
}

/// As [`load`], with the environment as an argument; without a file the defaults are the base.
///
/// # Errors
/// As [`load`].
pub fn load_from<T>(
    file: Option<&Path>,
    prefix: &str,
    environment: &[(String, String)],
    flags: &[(String, String)],
) -> Result<T, SettingsError>
where
    T: Default + Serialize + DeserializeOwned,
{
    let known = defaults::<T>()?;
    let mut builder = Config::builder().add_source(config::File::from_str(
        &toml::to_string(&known).map_err(|e| internal(e.to_string()))?,
        FileFormat::Toml,
    ));
    let mut origin = "the built-in defaults".to_owned();
    if let Some(path) = file {
        let text = read_checked(path)?;
        check_keys::<T>(&text, path)?;
        builder = builder.add_source(config::File::from_str(&text, FileFormat::Toml));
        origin = path.display().to_string();
    }
    for (name, text) in environment {
        let Some(rest) = name.strip_prefix(prefix).and_then(|r| r.strip_prefix("__")) else {
            continue;
        };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        builder = set(
            builder,
            &known,
            &key,
            text,
            &format!("environment variable {name}"),
        )?;
    }
    for (key, text) in flags {
        builder = set(builder, &known, key, text, "the command line")?;
    }
    let value_error = |e: config::ConfigError| SettingsError::Value {
        origin: origin.clone(),
        problem: e.to_string(),
    };
    builder
        .build()
        .map_err(value_error)?
        .try_deserialize()
        .map_err(value_error)
}

/// Checks that a settings text has only keys of `T`.
///
/// # Errors
/// It is no TOML, or has an unknown key.
pub fn check_keys<T: Default + Serialize>(text: &str, path: &Path) -> Result<(), SettingsError> {
    let table: Table = text
        .parse()
        .map_err(|e: toml::de::Error| SettingsError::Syntax {
            path: path.to_owned(),
            problem: e.to_string(),
        })?;
    let known = defaults::<T>()?;
    let mut given = Vec::new();
    flatten(&table, "", &mut given);
    for key in given {
        // An empty table of a known name says nothing, and that is fine.
        let given_table = lookup(&table, &key).is_some_and(Value::is_table);
        if lookup(&known, &key).is_none_or(|value| value.is_table() && !given_table) {
            let nearest = nearest(&known, &key);
            return Err(SettingsError::UnknownKey {
                origin: path.display().to_string(),
                key,
                nearest,
            });
        }
    }
    Ok(())
}

fn internal(problem: String) -> SettingsError {
    SettingsError::Value {
        origin: "the built-in defaults".to_owned(),
        problem,
    }
}

fn defaults<T: Default + Serialize>() -> Result<Table, SettingsError> {
    Table::try_from(T::default()).map_err(|e| internal(e.to_string()))
}

fn read_checked(path: &Path) -> Result<String, SettingsError> {
    let read = |source| SettingsError::Read {
        path: path.to_owned(),
        source,
    };
    let metadata = std::fs::metadata(path).map_err(read)?;
    if metadata.mode() & 0o002 != 0 {
        return Err(SettingsError::WorldWritable {
            path: path.to_owned(),
        });
    }
    let owner = metadata.uid();
    if owner != 0 && owner != crate::identity::own_uid() {
        return Err(SettingsError::Owner {
            path: path.to_owned(),
            owner,
        });
    }
    std::fs::read_to_string(path).map_err(read)
}

fn set(
    builder: ConfigBuilder<DefaultState>,
    known: &Table,
    key: &str,
    text: &str,
    origin: &str,
) -> Result<ConfigBuilder<DefaultState>, SettingsError> {
    let bad = |problem: String| SettingsError::Value {
        origin: origin.to_owned(),
        problem,
    };
    let value: config::Value = match lookup(known, key) {
        None | Some(Value::Table(_)) => {
            return Err(SettingsError::UnknownKey {
                origin: origin.to_owned(),
                key: key.to_owned(),
                nearest: nearest(known, key),
            });
        }
        Some(Value::Array(_)) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .into(),
        Some(Value::Integer(_)) => text
            .parse::<i64>()
            .map_err(|_| bad(format!("{key}: '{text}' is not a whole number")))?
            .into(),
        Some(Value::Boolean(_)) => text
            .parse::<bool>()
            .map_err(|_| bad(format!("{key}: '{text}' is neither true nor false")))?
            .into(),
        Some(Value::Float(_)) => text
            .parse::<f64>()
            .map_err(|_| bad(format!("{key}: '{text}' is not a number")))?
            .into(),
        Some(Value::String(_) | Value::Datetime(_)) => text.into(),
    };
    builder
        .set_override(key, value)
        .map_err(|e| bad(e.to_string()))
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let mut value = table.get(parts.next()?)?;
    for part in parts {
        value = value.as_table()?.get(part)?;
    }
    Some(value)
}

fn flatten(table: &Table, prefix: &str, keys: &mut Vec<String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(inner, &key, keys),
            Value::Table(_)
            | Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_) => keys.push(key),
        }
    }
}

/// The known key with the fewest changed letters, if that is not most of it.
fn nearest(known: &Table, key: &str) -> Option<String> {
    let mut keys = Vec::new();
    flatten(known, "", &mut keys);
    let last = |k: &str| k.rsplit('.').next().unwrap_or(k).to_owned();
    keys.into_iter()
        .map(|candidate| {
            // A right name in a wrong table counts as near.
            let whole = distance(&candidate, key);
            let part = distance(&last(&candidate), &last(key)).saturating_add(2);
            (whole.min(part), candidate)
        })
        .min()
        .filter(|(distance, _)| *distance <= (key.len() / 2).max(2))
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::os::unix::fs::PermissionsExt;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Sample {
        name: String,
        dirs: Vec<String>,
        grpc: Grpc,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Grpc {
        listen: String,
        retain_ms: u64,
    }
    impl Default for Sample {
        fn default() -> Self {
            Sample {
                name: "n".into(),
                dirs: Vec::new(),
                grpc: Grpc::default(),
            }
        }
    }
    impl Default for Grpc {
        fn default() -> Self {
            Grpc {
                listen: "127.0.0.1:0".into(),
                retain_ms: 5,
            }
        }
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sample.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn pair(a: &str, b: &str) -> (String, String) {
        (a.to_owned(), b.to_owned())
    }

    #[test]
    fn file_then_environment_then_flags() {
        let (_folder, path) = file("name = 'file'\n[grpc]\nretain_ms = 7\nlisten = 'file:1'\n");
        let environment = [
            pair("BOBBIN_RM__GRPC__LISTEN", "env:1"),
            pair("BOBBIN_RM__DIRS", "/a, /b"),
            pair("OTHER", "x"),
        ];
        let loaded: Sample = load_from(
            Some(&path),
            "BOBBIN_RM",
            &environment,
            &[pair("name", "flag")],
        )
        .unwrap();
        assert_eq!(
            loaded,
            Sample {
                name: "flag".into(),
                dirs: vec!["/a".into(), "/b".into()],
                grpc: Grpc {
                    listen: "env:1".into(),
                    retain_ms: 7
                },
            }
        );
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest() {
        let (_folder, path) = file("[grpc]\nretainms = 7\n");
        let error = load_from::<Sample>(Some(&path), "X", &[], &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("sample.toml") && error.contains("'grpc.retainms'"),
            "{error}"
        );
        assert!(error.contains("did you mean 'grpc.retain_ms'"), "{error}");
        let error = load_from::<Sample>(None, "X", &[pair("X__GRPC__LISTN", "a")], &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("X__GRPC__LISTN") && error.contains("'grpc.listen'"),
            "{error}"
        );
        let (_folder, path) = file("[grpc]\n");
        assert!(load_from::<Sample>(Some(&path), "X", &[], &[]).is_ok());
        let (_folder, path) = file("grpc = 5\n");
        let error = load_from::<Sample>(Some(&path), "X", &[], &[]).unwrap_err();
        assert!(matches!(error, SettingsError::UnknownKey { .. }), "{error}");
        let error = load_from::<Sample>(None, "X", &[], &[pair("grpc", "a")]).unwrap_err();
        assert!(matches!(error, SettingsError::UnknownKey { .. }), "{error}");
    }

    #[test]
    fn wrong_values_and_files_are_named() {
        let (_folder, path) = file("[grpc]\nretain_ms = 'soon'\n");
        let error = load_from::<Sample>(Some(&path), "X", &[], &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("retain_ms"), "{error}");
        let error = load_from::<Sample>(None, "X", &[pair("X__GRPC__RETAIN_MS", "-")], &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("X__GRPC__RETAIN_MS") && error.contains("whole number"),
            "{error}"
        );
        let (_folder, path) = file("name = [");
        assert!(matches!(
            load_from::<Sample>(Some(&path), "X", &[], &[]),
            Err(SettingsError::Syntax { .. })
        ));
        let missing = Path::new("/nonexistent/x.toml");
        assert!(matches!(
            load_from::<Sample>(Some(missing), "X", &[], &[]),
            Err(SettingsError::Read { .. })
        ));
    }

    #[test]
    fn a_file_everybody_can_write_is_refused() {
        let (_folder, path) = file("");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = load_from::<Sample>(Some(&path), "X", &[], &[]).unwrap_err();
        assert!(
            matches!(error, SettingsError::WorldWritable { .. }),
            "{error}"
        );
    }

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
