//! Application settings (`--conf`): kebab-case keys, whole numbers, unknown keys refused.

use std::collections::BTreeMap;

use bobbin_am_core::{Allocation, Config, DynamicAllocation, Speculation};
use bobbin_types::Resource;

/// Memory of an executor without `--executor-memory`, MiB. Source: `spark.executor.memory`.
const EXECUTOR_MEMORY_MIB: u64 = 1024;
/// Output that one attempt of a task may have, bytes; beyond it the attempt fails with words.
pub(crate) const TASK_OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// Bounds that keep a typing error from becoming a flood.
const EXECUTORS_MAX: u64 = 100_000;
const SLOTS_MAX: u64 = 1_024;

/// Every key, for the check of unknown ones and for help texts.
const KEYS: [&str; 19] = [
    "num-executors",
    "executor-memory-mib",
    "executor-cores",
    "task.max-failures",
    "task.output-bytes-max",
    "executor.max-failures",
    "dynamic-allocation.enabled",
    "dynamic-allocation.min-executors",
    "dynamic-allocation.max-executors",
    "dynamic-allocation.initial-executors",
    "dynamic-allocation.executor-idle-timeout",
    "dynamic-allocation.schedule-backlog-timeout",
    "dynamic-allocation.sustained-schedule-backlog-timeout",
    "dynamic-allocation.executor-allocation-ratio",
    "task.speculation",
    "task.speculation.interval",
    "task.speculation.multiplier",
    "task.speculation.quantile",
    "task.speculation.min-task-runtime",
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
    /// `dynamic-allocation.*`, when `dynamic-allocation.enabled` is true: then `num-executors` is the
    /// number to begin with. Source: Spark's `spark.dynamicAllocation.*`, with its defaults.
    pub dynamic_allocation: Option<DynamicAllocation>,
    /// `task.speculation.*`, when `task.speculation` is true: a task that is much slower than the
    /// others of its stage is run a second time elsewhere. Tasks must bear that.
    /// Source: Spark's `spark.speculation.*`, with the defaults of Spark 4.
    pub speculation: Option<Speculation>,
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
    #[error("setting {key}: '{value}' is not {wanted}")]
    Form {
        key: &'static str,
        value: String,
        wanted: &'static str,
    },
    #[error("setting {key}: {value} is {problem}")]
    Bounds {
        key: &'static str,
        value: u32,
        problem: String,
    },
    #[error("setting {key} has no effect without {without}=true")]
    NotEnabled { key: String, without: &'static str },
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
        let executors = small("num-executors", 0, EXECUTORS_MAX, 0)?;
        Ok(AppSettings {
            executors,
            dynamic_allocation: dynamic_allocation(map, executors)?,
            speculation: speculation(map)?,
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
        config.speculation = self.speculation;
        if let Some(dynamic) = self.dynamic_allocation {
            config.allocation = Allocation::Dynamic(dynamic);
        }
        config
    }
}

/// The settings of dynamic allocation, if it is enabled.
fn dynamic_allocation(
    map: &BTreeMap<String, String>,
    executors: u32,
) -> Result<Option<DynamicAllocation>, AppSettingsError> {
    const PREFIX: &str = "dynamic-allocation.";
    const MIN: &str = "dynamic-allocation.min-executors";
    const INITIAL: &str = "dynamic-allocation.initial-executors";
    if !flag(map, "dynamic-allocation.enabled")? {
        let other = |key: &&String| key.starts_with(PREFIX) && *key != "dynamic-allocation.enabled";
        return match map.keys().find(other) {
            Some(key) => Err(AppSettingsError::NotEnabled {
                key: key.clone(),
                without: "dynamic-allocation.enabled",
            }),
            None => Ok(None),
        };
    }
    let default = DynamicAllocation::default();
    let count = |key, otherwise: u32| {
        let number = number(map, key, 0, EXECUTORS_MAX)?;
        Ok(number.map_or(otherwise, |n| u32::try_from(n).unwrap_or(u32::MAX)))
    };
    let min = count(MIN, default.min)?;
    let max = count("dynamic-allocation.max-executors", default.max)?;
    let initial = count(INITIAL, min)?;
    for (key, value) in [(MIN, min), (INITIAL, initial), ("num-executors", executors)] {
        if value > max {
            let problem = format!("more than dynamic-allocation.max-executors ({max})");
            return Err(AppSettingsError::Bounds {
                key,
                value,
                problem,
            });
        }
    }
    let backlog = duration_ms(map, "dynamic-allocation.schedule-backlog-timeout")?
        .unwrap_or(default.schedule_backlog_timeout_ms);
    Ok(Some(DynamicAllocation {
        min,
        max,
        initial: initial.max(executors),
        executor_idle_timeout_ms: duration_ms(map, "dynamic-allocation.executor-idle-timeout")?
            .unwrap_or(default.executor_idle_timeout_ms),
        schedule_backlog_timeout_ms: backlog,
        // As in Spark the other timeout is its default.
        sustained_backlog_timeout_ms: duration_ms(
            map,
            "dynamic-allocation.sustained-schedule-backlog-timeout",
        )?
        .unwrap_or(backlog),
        ratio_permille: permille(map, "dynamic-allocation.executor-allocation-ratio", 1)?
            .unwrap_or(default.ratio_permille),
    }))
}

/// The settings of speculation, if it is on.
fn speculation(map: &BTreeMap<String, String>) -> Result<Option<Speculation>, AppSettingsError> {
    if !flag(map, "task.speculation")? {
        return match map.keys().find(|key| key.starts_with("task.speculation.")) {
            Some(key) => Err(AppSettingsError::NotEnabled {
                key: key.clone(),
                without: "task.speculation",
            }),
            None => Ok(None),
        };
    }
    let default = Speculation::default();
    Ok(Some(Speculation {
        interval_ms: duration_ms(map, "task.speculation.interval")?.unwrap_or(default.interval_ms),
        multiplier_permille: permille(map, "task.speculation.multiplier", 1_000)?
            .map_or(default.multiplier_permille, u64::from),
        quantile_permille: permille(map, "task.speculation.quantile", 1)?
            .map_or(default.quantile_permille, u64::from),
        min_runtime_ms: duration_ms(map, "task.speculation.min-task-runtime")?
            .unwrap_or(default.min_runtime_ms),
    }))
}

fn form(key: &'static str, value: &str, wanted: &'static str) -> AppSettingsError {
    AppSettingsError::Form {
        key,
        value: value.chars().filter(|c| !c.is_control()).take(40).collect(),
        wanted,
    }
}

fn flag(map: &BTreeMap<String, String>, key: &'static str) -> Result<bool, AppSettingsError> {
    match map.get(key).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(form(key, other, "true or false")),
    }
}

/// A time with its unit, in milliseconds; seconds without one, as in Spark.
/// Source: `JavaUtils.timeStringAs` of Spark.
fn duration_ms(
    map: &BTreeMap<String, String>,
    key: &'static str,
) -> Result<Option<u64>, AppSettingsError> {
    let Some(text) = map.get(key) else {
        return Ok(None);
    };
    let wrong = || form(key, text, "a time above zero such as 500ms, 60s or 2min");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(factor) {
        None | Some(0) => Err(wrong()),
        ms @ Some(_) => Ok(ms),
    }
}

/// A decimal number in thousandths, what is finer rounded up: a share from `least` to 1, or, when
/// `least` is 1 already, a factor up to a million.
fn permille(
    map: &BTreeMap<String, String>,
    key: &'static str,
    least: u32,
) -> Result<Option<u32>, AppSettingsError> {
    let Some(text) = map.get(key) else {
        return Ok(None);
    };
    let (most, wanted) = if least < 1_000 {
        (1.0, "a number above 0 and at most 1")
    } else {
        (1e6, "a number from 1 to 1000000")
    };
    let number = text.parse::<f64>().ok().filter(|n| *n > 0.0 && *n <= most);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a thousand millions"
    )]
    let permille = number.map(|n| (n * 1000.0).ceil() as u32);
    match permille.filter(|n| *n >= least) {
        None => Err(form(key, text, wanted)),
        good @ Some(_) => Ok(good),
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
    fn dynamic_allocation_in_sparks_words() {
        let on = ("dynamic-allocation.enabled", "true");
        let plain = parse(&[on, ("num-executors", "3")]).unwrap();
        let dynamic = plain.dynamic_allocation.unwrap();
        assert_eq!((dynamic.min, dynamic.initial), (0, 3));
        assert_eq!(dynamic.executor_idle_timeout_ms, 60_000);
        let all = parse(&[
            on,
            ("dynamic-allocation.min-executors", "1"),
            ("dynamic-allocation.max-executors", "8"),
            ("dynamic-allocation.executor-idle-timeout", "2min"),
            ("dynamic-allocation.schedule-backlog-timeout", "500ms"),
            ("dynamic-allocation.executor-allocation-ratio", "0.25"),
        ])
        .unwrap();
        let dynamic = all.dynamic_allocation.unwrap();
        assert_eq!((dynamic.min, dynamic.max, dynamic.initial), (1, 8, 1));
        assert_eq!(dynamic.executor_idle_timeout_ms, 120_000);
        assert_eq!(dynamic.sustained_backlog_timeout_ms, 500);
        assert_eq!(dynamic.ratio_permille, 250);
        assert_eq!(parse(&[]).unwrap().dynamic_allocation, None);
        for (key, value) in [
            ("dynamic-allocation.min-executors", "9"),
            ("dynamic-allocation.initial-executors", "9"),
            ("num-executors", "9"),
            ("dynamic-allocation.executor-idle-timeout", "0s"),
            ("dynamic-allocation.executor-idle-timeout", "1 s"),
            (
                "dynamic-allocation.schedule-backlog-timeout",
                "99999999999999999h",
            ),
            ("dynamic-allocation.executor-allocation-ratio", "0"),
            ("dynamic-allocation.executor-allocation-ratio", "NaN"),
            ("dynamic-allocation.executor-allocation-ratio", "1.1"),
        ] {
            let max = ("dynamic-allocation.max-executors", "8");
            let error = parse(&[on, max, (key, value)]).unwrap_err();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
        let error = parse(&[("dynamic-allocation.min-executors", "1")]).unwrap_err();
        assert!(error.contains("dynamic-allocation.enabled=true"), "{error}");
        let on = ("task.speculation", "true");
        let speculation = parse(&[on, ("task.speculation.multiplier", "1.5")]).unwrap();
        assert_eq!(speculation.speculation.unwrap().multiplier_permille, 1_500);
        assert!(parse(&[on, ("task.speculation.multiplier", "0.5")]).is_err());
        assert!(parse(&[on, ("task.speculation.quantile", "1.5")]).is_err());
        assert!(parse(&[("task.speculation.quantile", "0.5")]).is_err());
        let error = parse(&[("dynamic-allocation.enabled", "yes")]).unwrap_err();
        assert!(error.contains("true or false"), "{error}");
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
