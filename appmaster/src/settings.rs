//! Application settings (`--conf`): kebab-case keys, whole numbers, unknown keys refused.

use std::collections::BTreeMap;

use bobbin_am_core::Config;
use bobbin_types::Resource;

/// Memory of an executor without `--executor-memory`, MiB. Source: `spark.executor.memory`.
const EXECUTOR_MEMORY_MIB: u64 = 1024;
/// Output that one attempt of a task may have, bytes; beyond it the attempt fails with words.
pub(crate) const TASK_OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// Bounds that keep a typing error from becoming a flood.
const EXECUTORS_MAX: u64 = 100_000;
const SLOTS_MAX: u64 = 1_024;

/// Every key, for the check of unknown ones and for help texts.
const KEYS: [&str; 6] = [
    "num-executors",
    "executor-memory-mib",
    "executor-cores",
    "task.max-failures",
    "task.output-bytes-max",
    "executor.max-failures",
];

/// What an application asks of its master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSettings {
    /// `num-executors`, default 0.
    pub executors: u32,
    /// `executor-memory-mib` and `executor-cores` (vcores and task slots), default 1024 and 1.
    pub executor_resource: Resource,
    /// `task.max-failures`, default 4. Source: `spark.task.maxFailures`.
    pub task_failures_max: u32,
    /// `task.output-bytes-max`, default 64 MiB: stdout and stderr of one attempt together.
    pub task_output_bytes_max: u64,
    /// `executor.max-failures`, default max(2 x executors, 3).
    ///
    /// Source: `spark.executor.maxNumFailures`.
    pub executor_failures_max: Option<u32>,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppSettingsError {
    #[error("unknown setting '{key}'; the nearest is '{nearest}'")]
    Unknown { key: String, nearest: &'static str },
    #[error("setting {key}: '{value}' is not a whole number from {least} to {most}")]
    Value {
        key: &'static str,
        value: String,
        least: u64,
        most: u64,
    },
    #[error("BOBBIN_CONF_JSON is not an object of texts")]
    Json,
}

impl AppSettings {
    /// # Errors
    /// The first unknown key or bad value, named.
    pub fn from_map(map: &BTreeMap<String, String>) -> Result<AppSettings, AppSettingsError> {
        for key in map.keys() {
            if !KEYS.contains(&key.as_str()) {
                return Err(AppSettingsError::Unknown {
                    key: key.chars().filter(|c| !c.is_control()).take(80).collect(),
                    nearest: nearest(key),
                });
            }
        }
        let small = |key, least, most, default: u64| {
            let number = number(map, key, least, most)?.unwrap_or(default);
            Ok(u32::try_from(number).unwrap_or(u32::MAX))
        };
        let cores = small("executor-cores", 1, SLOTS_MAX, 1)?;
        let memory_mib = number(map, "executor-memory-mib", 1, 1 << 33)?;
        let failures = number(map, "executor.max-failures", 1, 1_000_000)?;
        Ok(AppSettings {
            executors: small("num-executors", 0, EXECUTORS_MAX, 0)?,
            executor_resource: Resource::new(memory_mib.unwrap_or(EXECUTOR_MEMORY_MIB), cores),
            task_failures_max: small("task.max-failures", 1, 1_000, 4)?,
            task_output_bytes_max: number(map, "task.output-bytes-max", 1, 1 << 40)?
                .unwrap_or(TASK_OUTPUT_BYTES_MAX),
            executor_failures_max: failures.and_then(|n| u32::try_from(n).ok()),
        })
    }

    /// Reads `BOBBIN_CONF_JSON`'s text.
    ///
    /// # Errors
    /// It is no JSON object of texts, or as [`AppSettings::from_map`].
    pub fn from_json(text: &str) -> Result<AppSettings, AppSettingsError> {
        let map = serde_json::from_str(text).map_err(|_| AppSettingsError::Json)?;
        AppSettings::from_map(&map)
    }

    pub(crate) fn core_config(&self) -> Config {
        let mut config = Config::new(self.executors, self.executor_resource);
        config.allow_task_failures(self.task_failures_max);
        config.executor_failures_max = self.executor_failures_max;
        config
    }
}

fn number(
    map: &BTreeMap<String, String>,
    key: &'static str,
    least: u64,
    most: u64,
) -> Result<Option<u64>, AppSettingsError> {
    let Some(value) = map.get(key) else {
        return Ok(None);
    };
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let number = digits.then(|| value.parse().ok()).flatten();
    match number {
        Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
        Some(_) | None => Err(AppSettingsError::Value {
            key,
            value: value.chars().filter(|c| !c.is_control()).take(40).collect(),
            least,
            most,
        }),
    }
}

/// The known key that shares most with `key`: longest common beginning and end together.
fn nearest(key: &str) -> &'static str {
    let common = |known: &str| {
        let front = known.bytes().zip(key.bytes()).take_while(|(a, b)| a == b);
        let back = known
            .bytes()
            .rev()
            .zip(key.bytes().rev())
            .take_while(|(a, b)| a == b);
        front.count() + back.count()
    };
    KEYS.iter()
        .copied()
        .max_by_key(|known| common(known))
        .unwrap_or(KEYS[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<AppSettings, String> {
        let map = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        AppSettings::from_map(&map).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_and_values() {
        let default = parse(&[]).unwrap();
        assert_eq!(default.executors, 0);
        assert_eq!(default.executor_resource, Resource::new(1024, 1));
        assert_eq!(default.task_failures_max, 4);
        let some = parse(&[
            ("num-executors", "3"),
            ("executor-cores", "2"),
            ("executor-memory-mib", "64"),
            ("task.max-failures", "1"),
        ])
        .unwrap();
        assert_eq!(some.executors, 3);
        assert_eq!(some.executor_resource, Resource::new(64, 2));
        assert_eq!(some.core_config().task_failures_max, 1);
    }

    #[test]
    fn refusals_name_the_key() {
        let error = parse(&[("task.max-failure", "1")]).unwrap_err();
        assert!(
            error.contains("'task.max-failure'") && error.contains("'task.max-failures'"),
            "{error}"
        );
        for (key, value) in [
            ("num-executors", "-1"),
            ("num-executors", "x"),
            ("num-executors", ""),
            ("executor-cores", "0"),
            ("executor-memory-mib", "99999999999999999999999"),
            ("task.max-failures", "+4"),
        ] {
            let error = parse(&[(key, value)]).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
        assert_eq!(AppSettings::from_json("[]"), Err(AppSettingsError::Json));
        assert!(AppSettings::from_json(r#"{"num-executors":"2"}"#).is_ok());
    }
}
