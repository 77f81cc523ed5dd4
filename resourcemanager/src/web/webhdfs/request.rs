//! Paths and parameters of a request, decoded and checked.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::problem::Problem;
use crate::file_tree::TreePath;

const PREFIX: &str = "/webhdfs/v1";
const PARAMETERS_MAX: usize = 64;

/// The parameters by lower-case name; of a repeated one the first counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

/// The path behind the prefix.
pub(super) fn path(raw: &str) -> Result<TreePath, Problem> {
    let rest = raw.strip_prefix(PREFIX).unwrap_or_default();
    let text = percent_decode_str(rest)
        .decode_utf8()
        .map_err(|_| Problem::Argument("the path is not UTF-8".to_owned()))?;
    let text = if text.is_empty() { "/" } else { &text };
    TreePath::parse(text).map_err(Problem::Files)
}

impl Query {
    pub(super) fn parse(raw: &str) -> Result<Query, Problem> {
        let mut parameters = BTreeMap::new();
        for (count, pair) in raw.split('&').filter(|p| !p.is_empty()).enumerate() {
            if count == PARAMETERS_MAX {
                let words = format!("more than {PARAMETERS_MAX} parameters");
                return Err(Problem::Argument(words));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| {
                let spaced = text.replace('+', " ");
                percent_decode_str(&spaced)
                    .decode_utf8()
                    .map(std::borrow::Cow::into_owned)
                    .map_err(|_| Problem::Argument("a parameter is not UTF-8".to_owned()))
            };
            let name = decode(name)?.to_ascii_lowercase();
            parameters.entry(name).or_insert(decode(value)?);
        }
        Ok(Query(parameters))
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?;
        (!value.is_empty() && value != "null").then_some(value)
    }

    fn invalid(name: &str, expected: &str) -> Problem {
        Problem::Argument(format!(
            "Invalid value for webhdfs parameter \"{name}\": {expected} is expected"
        ))
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Problem> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(Query::invalid(name, "true or false")),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.get(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| Query::invalid(name, "a number from 0"))
            })
            .transpose()
    }

    /// Unix milliseconds; -1 and nothing leave a time as it is.
    pub(super) fn time(&self, name: &str) -> Result<Option<u64>, Problem> {
        if self.get(name) == Some("-1") {
            return Ok(None);
        }
        let time = self.number(name)?;
        // Year 10,000: more does not fit every file system.
        if time.is_some_and(|ms| ms > 253_402_300_799_999) {
            return Err(Query::invalid(name, "milliseconds before the year 10000"));
        }
        Ok(time)
    }

    /// Octal permission bits.
    pub(super) fn mode(&self, name: &str) -> Result<Option<u32>, Problem> {
        self.get(name)
            .map(|text| match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o1777 && !text.starts_with('+') => Ok(mode),
                Ok(_) | Err(_) => Err(Query::invalid(name, "an octal number up to 1777")),
            })
            .transpose()
    }

    /// The path in `name`.
    pub(super) fn path(&self, name: &str) -> Result<TreePath, Problem> {
        let text = self
            .get(name)
            .ok_or_else(|| Query::invalid(name, "an absolute path"))?;
        TreePath::parse(text).map_err(Problem::Files)
    }

    /// The name of an account or group.
    pub(super) fn account(&self, name: &str) -> Result<Option<String>, Problem> {
        match self.get(name) {
            Some(text) if text.parse::<bobbin_types::UserName>().is_err() => {
                Err(Query::invalid(name, "the name of an account"))
            }
            other => Ok(other.map(str::to_owned)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_checked() {
        let query = Query::parse("op=X&Permission=1777&a=%2Fb+c&a=2&t=-1&e=&n=x&m=999").unwrap();
        assert_eq!(query.get("a"), Some("/b c"));
        assert_eq!(query.get("e"), None);
        assert_eq!(query.mode("permission").unwrap(), Some(0o1777));
        assert_eq!(query.time("t").unwrap(), None);
        assert!(query.number("n").is_err() && query.mode("m").is_err());
        assert!(query.flag("n", true).is_err() && query.flag("none", true).unwrap());
        assert!(Query::parse("a=%FF").is_err());
        assert!(Query::parse(&"a&".repeat(100)).is_err());
    }

    #[test]
    fn paths_are_decoded_once_and_checked_after() {
        let shown = |raw| path(raw).map(|p| p.to_string()).ok();
        assert_eq!(shown("/webhdfs/v1").as_deref(), Some("/"));
        assert_eq!(shown("/webhdfs/v1/a%20b%252e").as_deref(), Some("/a b%2e"));
        for raw in [
            "/webhdfs/v1/%2e%2e/x",
            "/webhdfs/v1/a%2F..%2Fb",
            "/webhdfs/v1/a%00",
            "/webhdfs/v1/%0a",
            "/webhdfs/v1/%ff",
            "/webhdfs/v1x",
        ] {
            assert_eq!(shown(raw), None, "{raw}");
        }
    }
}
