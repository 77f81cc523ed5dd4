//! Parameters of a request, decoded and checked.

use std::collections::BTreeSet;

use bobbin_types::WallMillis;
use percent_encoding::percent_decode_str;

use super::problem::Problem;

const PARAMETERS_MAX: usize = 64;
/// Words of one list.
const WORDS_MAX: usize = 1_000;

/// The parameters in their order; a name may come again.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// Too many, or not UTF-8.
    pub(super) fn parse(raw: &str) -> Result<Query, Problem> {
        let mut parameters = Vec::new();
        for pair in raw.split('&').filter(|p| !p.is_empty()) {
            if parameters.len() == PARAMETERS_MAX {
                let words = format!("more than {PARAMETERS_MAX} parameters");
                return Err(Problem::BadRequest(words));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.push((decode(name)?, decode(value)?));
        }
        Ok(Query(parameters))
    }

    /// The first one of that name that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(own, value)| own == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// The words of all parameters of that name, which are separated by commas.
    ///
    /// # Errors
    /// Too many.
    pub(super) fn words(&self, name: &'static str) -> Result<BTreeSet<&str>, Problem> {
        let named = self.0.iter().filter(|(own, _)| own == name);
        let words: BTreeSet<&str> = named
            .flat_map(|(_, value)| value.split(','))
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .collect();
        if words.len() > WORDS_MAX {
            return Err(Problem::BadRequest(format!(
                "{name}: more than {WORDS_MAX} words"
            )));
        }
        Ok(words)
    }

    /// # Errors
    /// It is there and is no number from 0.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, Problem> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Problem::BadRequest(format!("{name}: '{}' is not a number from 0", shown(text)))
                })
            })
            .transpose()
    }

    /// The range that a begin and an end in milliseconds name; `None` if neither is there.
    ///
    /// # Errors
    /// One is no number from 0, or the end comes first.
    pub(super) fn range(
        &self,
        begin: &'static str,
        end: &'static str,
    ) -> Result<Option<(WallMillis, WallMillis)>, Problem> {
        let (from, to) = (self.number(begin)?, self.number(end)?);
        if from.is_none() && to.is_none() {
            return Ok(None);
        }
        let (from, to) = (from.unwrap_or(0), to.unwrap_or(u64::MAX));
        if from > to {
            let words = format!("{end} must be greater than {begin}");
            return Err(Problem::BadRequest(words));
        }
        Ok(Some((WallMillis(from), WallMillis(to))))
    }

    /// The words of a list, each read without regard to upper and lower case.
    ///
    /// # Errors
    /// One is none of `all`, which the words name.
    pub(super) fn known<T: Copy>(
        &self,
        name: &'static str,
        all: &[T],
        word: impl Fn(T) -> &'static str,
    ) -> Result<Vec<T>, Problem> {
        self.words(name)?
            .into_iter()
            .map(|text| one_of(name, text, all, &word))
            .collect()
    }
}

/// # Errors
/// `text` is none of `all`.
pub(super) fn one_of<T: Copy>(
    name: &str,
    text: &str,
    all: &[T],
    word: impl Fn(T) -> &'static str,
) -> Result<T, Problem> {
    let found = all
        .iter()
        .copied()
        .find(|one| word(*one).eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        let all: Vec<&str> = all.iter().map(|one| word(*one)).collect();
        Problem::BadRequest(format!(
            "Invalid {name} {} specified. It should be one of {}",
            shown(text),
            all.join(", ")
        ))
    })
}

/// What of a caller's text may be said back.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// # Errors
/// Not UTF-8.
pub(super) fn decode(text: &str) -> Result<String, Problem> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Problem::BadRequest("a parameter is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_checked() {
        let query = Query::parse("a=%2Fb+c&w=x,,y&w=z&n=7&m=-1&s=Running,failed&b=9&e=3").unwrap();
        assert_eq!(query.get("a"), Some("/b c"));
        let words: Vec<&str> = query.words("w").unwrap().into_iter().collect();
        assert_eq!(words, ["x", "y", "z"]);
        assert_eq!(query.number("n").unwrap(), Some(7));
        assert!(query.number("m").is_err());
        assert!(query.range("b", "e").is_err());
        let to = query.range("none", "e").unwrap();
        assert_eq!(to, Some((WallMillis(0), WallMillis(3))));
        assert_eq!(query.range("none", "neither").unwrap(), None);
        let states = |all: &[&'static str]| query.known("s", all, |s| s);
        assert_eq!(states(&["FAILED", "RUNNING"]).unwrap().len(), 2);
        assert!(states(&["RUNNING"]).is_err());
        assert!(Query::parse("a=%FF").is_err());
        assert!(Query::parse(&"a&".repeat(100)).is_err());
    }
}
