//! Values that people type: sizes, durations, names, pairs. Each refusal says what was expected.

use std::time::Duration;

use bobbin_types::{
    APPLICATION_NAME_BYTES_MAX, Resource, TAG_BYTES_MAX, check_environment_name, check_text,
};

/// Queue names are short words. Source: CapacityScheduler's queue names.
const QUEUE_BYTES_MAX: usize = 255;
/// The shortest time between two looks.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Memory in MiB as Spark writes it: `512m`, `2g`.
pub(crate) fn memory_mib(text: &str) -> Result<u64, String> {
    let negative = text.trim_start().strip_prefix('-');
    if negative.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
        return Err(format!("memory cannot be negative: '{}'", shown(text)));
    }
    Resource::parse_memory_mib(text).map_err(|e| e.to_string())
}

/// A number of cores, from 1.
pub(crate) fn cores(text: &str) -> Result<u32, String> {
    positive(text, "cores")
}

/// A number of attempts, from 1.
pub(crate) fn attempts(text: &str) -> Result<u32, String> {
    let count = positive(text, "attempts")?;
    let max = bobbin_types::ATTEMPTS_MAX;
    if count > max {
        return Err(format!("at most {max} attempts are allowed"));
    }
    Ok(count)
}

/// A number of nodes, from 1 to 64: they share one machine.
pub(crate) fn nodes(text: &str) -> Result<u32, String> {
    let count = positive(text, "nodes")?;
    if count > 64 {
        return Err("at most 64 nodes can share one host".to_owned());
    }
    Ok(count)
}

fn positive(text: &str, what: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(0) | Err(_) => Err(format!(
            "{what} must be a whole number from 1, not '{}'",
            shown(text)
        )),
        Ok(count) => Ok(count),
    }
}

/// A number of executors, from 0.
pub(crate) fn executors(text: &str) -> Result<u32, String> {
    let max = bobbin_types::CONTAINERS_PER_ASK_MAX;
    match text.parse::<u32>() {
        Ok(count) if count <= max => Ok(count),
        Ok(_) | Err(_) => Err(format!(
            "executors must be a whole number from 0 to {max}, not '{}'",
            shown(text)
        )),
    }
}

/// An application's name: to be shown, so without control characters.
pub(crate) fn name(text: &str) -> Result<String, String> {
    check_text("name", text, APPLICATION_NAME_BYTES_MAX).map_err(|e| e.to_string())?;
    Ok(text.to_owned())
}

pub(crate) fn queue(text: &str) -> Result<String, String> {
    check_text("queue", text, QUEUE_BYTES_MAX).map_err(|e| e.to_string())?;
    Ok(text.to_owned())
}

pub(crate) fn tag(text: &str) -> Result<String, String> {
    check_text("tag", text, TAG_BYTES_MAX).map_err(|e| e.to_string())?;
    Ok(text.to_owned())
}

/// `500ms`, `90s`, `10m`, `2h`, `7d`; without a unit seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let refused = || {
        format!(
            "'{}' is not a duration: write a whole number with ms, s, m, h or d (90s, 10m, 7d)",
            shown(text)
        )
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let ms_per_unit: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refused()),
    };
    if number == 0 {
        return Err(format!("'{}' is no time at all", shown(text)));
    }
    let ms = number.checked_mul(ms_per_unit).filter(|ms| *ms < 1 << 53);
    ms.map(Duration::from_millis)
        .ok_or_else(|| format!("'{}' is too long", shown(text)))
}

/// Between two looks at the cluster: every look is work for the resource manager.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < INTERVAL_MIN {
        return Err(format!("'{}' is too often: at least 100ms", shown(text)));
    }
    Ok(interval)
}

/// How often something is printed, from 1.
pub(crate) fn rounds(text: &str) -> Result<u32, String> {
    positive(text, "rounds")
}

/// Milliseconds of a duration, as the wire wants them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Variables that Bobbin sets itself: a submitter's value would lie to the driver or be lost.
const OWN_VARIABLES: [&str; 9] = [
    "BOBBIN_APPLICATION_ID",
    "BOBBIN_ATTEMPT",
    "BOBBIN_CONF_JSON",
    "BOBBIN_CONTAINER_ID",
    "BOBBIN_DRIVER_SOCKET",
    "BOBBIN_NODE_HOST",
    "BOBBIN_NODE_ID",
    "BOBBIN_RM_ADDRESS",
    "BOBBIN_TASK_INPUT",
];

/// `K=V`, or `K` for the value it has here.
pub(crate) fn environment(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    check_environment_name(name).map_err(|e| e.to_string())?;
    if OWN_VARIABLES.contains(&name) {
        return Err(format!(
            "environment variable '{name}' is set by Bobbin itself"
        ));
    }
    let value = match value {
        Some(value) => value,
        None => std::env::var(name).map_err(|_| {
            format!("environment variable '{name}' has no value here: write {name}=VALUE")
        })?,
    };
    Ok((name.to_owned(), value))
}

/// `key=value` of `--conf`.
pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(format!("'{}' has no '=': write key=value", shown(text)));
    };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if key.is_empty() || !key.chars().all(good) {
        return Err(format!("'{}' is not a setting's name", shown(key)));
    }
    if value.chars().any(char::is_control) {
        return Err(format!(
            "setting '{key}' has a control character in its value"
        ));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A host's name or address, without a port.
pub(crate) fn host(text: &str) -> Result<String, String> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-._:[]%".contains(c);
    let is_address = text.parse::<std::net::Ipv6Addr>().is_ok() || text.starts_with('[');
    if text.is_empty() || !text.chars().all(is_good) {
        return Err("a host's name or address is expected".to_owned());
    }
    if text.contains(':') && !is_address {
        return Err("a host without a port is expected: the ports are known".to_owned());
    }
    Ok(text.to_owned())
}

/// An application's or container's id, a unique suffix of one, or `@last`.
pub(crate) fn id(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text == "@last" || (!text.is_empty() && text.len() <= 255 && text.chars().all(good)) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "'{}' is no id: write it whole, a unique end of it, or @last",
        shown(text)
    ))
}

/// A log file's name: one path component.
pub(crate) fn file_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text == "." || text == ".." || text.contains('/') || text.len() > 255 {
        return Err(format!(
            "'{}' is not the name of a log file: no folders",
            shown(text)
        ));
    }
    check_text("file name", text, 255).map_err(|e| e.to_string())?;
    Ok(text.to_owned())
}

/// A text someone typed, safe and short enough for a message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in [
            "rm",
            "rm.example",
            "192.0.2.1",
            "2001:db8::1",
            "[2001:db8::1]",
        ] {
            assert_eq!(host(good), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "rm:8032", "a<b"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(memory_mib("2g"), Ok(2048));
        for (text, words) in [
            ("1gb2", "1gb2"),
            ("0", "memory"),
            ("-5m", "negative"),
            ("", "size"),
        ] {
            let problem = memory_mib(text).unwrap_err();
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }

    #[test]
    fn counts() {
        assert_eq!(cores("4"), Ok(4));
        assert_eq!(executors("0"), Ok(0));
        for text in ["0", "-1", "x", "", "99999999999"] {
            assert!(cores(text).unwrap_err().contains("cores"), "{text}");
        }
        assert!(executors("1000001").is_err());
        assert!(attempts("101").is_err());
        assert!(nodes("65").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in [
            "",
            "m",
            "-1s",
            "1.5h",
            "0s",
            "1w",
            "99999999999999999999s",
            "9007199254740993d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn intervals() {
        assert_eq!(interval("100ms"), Ok(Duration::from_millis(100)));
        for text in ["99ms", "0", "", "1.5", "-1s"] {
            assert!(interval(text).is_err(), "{text}");
        }
        assert!(rounds("0").is_err() && rounds("7") == Ok(7));
    }

    #[test]
    fn variables() {
        assert_eq!(environment("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(environment("A="), Ok(("A".into(), String::new())));
        for text in [
            "=x",
            "",
            "BOBBIN_ATTEMPT=3",
            "SURELY_NOT_SET_ANYWHERE",
            "A\u{1}=b",
        ] {
            assert!(
                environment(text)
                    .unwrap_err()
                    .contains("environment variable"),
                "{text}"
            );
        }
    }

    #[test]
    fn settings() {
        assert_eq!(
            setting("task.max-failures=2"),
            Ok(("task.max-failures".into(), "2".into()))
        );
        for text in ["", "a", "=b", "a b=c", "a=\u{7}"] {
            assert!(setting(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_and_ids() {
        assert!(name("a\u{7}b").unwrap_err().contains("control"));
        assert!(name(&"x".repeat(2000)).is_err());
        for good in [
            "application_1_0001",
            "0001",
            "@last",
            "container_e01_1_0001_01_000001",
        ] {
            assert!(id(good).is_ok(), "{good}");
        }
        for bad in ["", "@first", "a b", "../x", "a\n", "%"] {
            assert!(id(bad).is_err(), "{bad}");
        }
        for bad in ["", ".", "..", "a/b", "/etc/shadow", "a\n"] {
            assert!(file_name(bad).is_err(), "{bad}");
        }
    }
}
