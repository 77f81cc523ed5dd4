//! What this host has and lacks for Bobbin, in words, each with its cure.
//!
//! Nothing is changed and nothing is started but `java -version` and a line of Python.

mod cluster;
mod daemons;
mod kernel;
mod spark;

use serde::Serialize;

pub(crate) use cluster::check as check_cluster;
pub(crate) use daemons::{Settings, check as check_daemons};
pub(crate) use kernel::check as check_kernel;
pub(crate) use spark::{check as check_spark, check_configuration};

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    /// Works, with less.
    Note,
    /// Does not work.
    Bad,
}

impl Verdict {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) verdict: Verdict,
    /// What needs it.
    pub(crate) part: &'static str,
    /// What was looked at.
    pub(crate) subject: String,
    pub(crate) words: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cure: Option<String>,
}

/// Findings of one part.
#[derive(Debug)]
pub(crate) struct Findings {
    part: &'static str,
    pub(crate) list: Vec<Finding>,
}

impl Findings {
    pub(crate) fn of(part: &'static str) -> Findings {
        Findings {
            part,
            list: Vec::new(),
        }
    }

    fn add(&mut self, verdict: Verdict, subject: &str, words: String, cure: Option<String>) {
        self.list.push(Finding {
            verdict,
            part: self.part,
            subject: subject.to_owned(),
            words,
            cure,
        });
    }

    pub(crate) fn ok(&mut self, subject: &str, words: impl Into<String>) {
        self.add(Verdict::Ok, subject, words.into(), None);
    }

    pub(crate) fn note(
        &mut self,
        subject: &str,
        words: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.add(Verdict::Note, subject, words.into(), Some(cure.into()));
    }

    pub(crate) fn bad(&mut self, subject: &str, words: impl Into<String>, cure: impl Into<String>) {
        self.add(Verdict::Bad, subject, words.into(), Some(cure.into()));
    }
}

/// The findings for a person: what is bad stands out, and each has its cure below it.
pub(crate) fn text(findings: &[Finding], color: bool) -> String {
    let width = |of: fn(&Finding) -> usize| findings.iter().map(of).max().unwrap_or(0);
    let (parts, subjects) = (
        width(|f| f.part.len()),
        width(|f| f.subject.chars().count()),
    );
    let mut out = String::new();
    for finding in findings {
        let (on, off) = match (color, finding.verdict) {
            (false, _) => ("", ""),
            (true, Verdict::Ok) => ("\u{1b}[32m", "\u{1b}[0m"),
            (true, Verdict::Note) => ("\u{1b}[33m", "\u{1b}[0m"),
            (true, Verdict::Bad) => ("\u{1b}[31m", "\u{1b}[0m"),
        };
        let line = format!(
            "{on}{:<4}{off}  {:<parts$}  {:<subjects$}  {}",
            finding.verdict.as_str(),
            finding.part,
            finding.subject,
            finding.words
        );
        out.push_str(line.trim_end());
        out.push('\n');
        if let Some(cure) = &finding.cure {
            out.push_str(&format!("      {:<parts$}  try: {cure}\n", ""));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_cures() {
        let mut node = Findings::of("node agent");
        node.ok("seccomp", "filters are there");
        let mut spark = Findings::of("spark");
        spark.bad("Java", "there is none", "install a Java 17 runtime");
        let list = [node.list, spark.list].concat();
        assert_eq!(
            text(&list, false),
            "ok    node agent  seccomp  filters are there\n\
             bad   spark       Java     there is none\n                  \
             try: install a Java 17 runtime\n"
        );
    }
}
