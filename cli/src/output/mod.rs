//! What goes to the terminal. Standard output carries results only, standard error everything else.
//!
//! The only module that prints. A closed standard output (`| head`) is no error: the rest is dropped.

mod bar;
mod json;
mod stream;
mod table;

pub(crate) use bar::{Bar, Counter};
pub(crate) use json::{Application, Attempt, Container, Node};
pub(crate) use stream::{err as err_stream, out as out_stream};
pub(crate) use table::{exit_text, ran, span};

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::args::Format;
use crate::doctor::Finding;
use crate::failure::{Failure, Kind};
use crate::text::{escaped, printable};

/// Writes bytes to standard output and flushes them.
///
/// # Errors
/// It cannot be written, for another reason than that nobody reads it any more.
pub(crate) fn stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Kind::Failed,
            format!(
                "standard output cannot be written: {}",
                crate::failure::io_words(&e)
            ),
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints an error on standard error.
pub(crate) fn error(failure: &Failure) {
    // Nobody can be told that standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{}", printable(&failure.to_string()));
}

/// Prints a text on standard error as it is.
pub(crate) fn plain_error(text: &str) {
    let _ = write!(io::stderr().lock(), "{text}");
}

/// Prints a note on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "bobbin: {}", printable(text));
}

/// Whether standard error shows things that move.
pub(crate) fn shows_progress(quiet: bool) -> bool {
    !quiet && io::stderr().is_terminal() && !is_dumb()
}

pub(crate) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Whether standard output takes colors. Source: no-color.org.
pub(crate) fn takes_color() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    io::stdout().is_terminal() && !no_color && !is_dumb()
}

/// A value as text of its format: JSON and YAML end with a line end as well.
fn serialized<T: Serialize>(value: &T, format: Format) -> Result<String, Failure> {
    let unprintable =
        |e: &dyn std::fmt::Display| Failure::new(Kind::Failed, format!("cannot be printed: {e}"));
    match format {
        Format::Json | Format::Table => serde_json::to_string_pretty(value)
            .map(|text| escaped(&text) + "\n")
            .map_err(|e| unprintable(&e)),
        Format::Yaml => serde_yaml_ng::to_string(value).map_err(|e| unprintable(&e)),
    }
}

/// Prints `value` as JSON or YAML, or `table` of it.
fn print<T: Serialize>(
    value: &T,
    format: Format,
    table: impl FnOnce(bool) -> String,
) -> Result<(), Failure> {
    match format {
        Format::Table => stdout(table(takes_color()).as_bytes()),
        Format::Json | Format::Yaml => stdout(serialized(value, format)?.as_bytes()),
    }
}

pub(crate) fn applications(list: &[Application], format: Format) -> Result<(), Failure> {
    let now_ms = bobbin_service::wall_now().0;
    print(&list, format, |color| {
        table::applications(list, now_ms, color)
    })
}

pub(crate) fn application(one: &Application, format: Format) -> Result<(), Failure> {
    let now_ms = bobbin_service::wall_now().0;
    print(one, format, |color| table::application(one, now_ms, color))
}

/// Of several applications all there is to know: below each other, with a line between.
pub(crate) fn whole_applications(list: &[Application], format: Format) -> Result<(), Failure> {
    let now_ms = bobbin_service::wall_now().0;
    print(&list, format, |color| {
        let each = list
            .iter()
            .map(|one| table::application(one, now_ms, color));
        each.collect::<Vec<_>>().join("\n")
    })
}

/// What belongs to one of several applications.
#[derive(Debug, Serialize)]
struct AttemptsOf<'a> {
    application: &'a str,
    attempts: &'a [Attempt],
}

#[derive(Debug, Serialize)]
struct ContainersOf<'a> {
    application: &'a str,
    containers: &'a [Container],
}

/// Attempts of applications; of a single one, the list alone.
pub(crate) fn attempts(
    found: &[(String, Vec<Attempt>)],
    single: bool,
    format: Format,
) -> Result<(), Failure> {
    match found {
        [(_, list)] if single => print(&list, format, |color| table::attempts(list, color)),
        _ if single => Ok(()),
        several => {
            let list: Vec<_> = several
                .iter()
                .map(|(application, attempts)| AttemptsOf {
                    application,
                    attempts,
                })
                .collect();
            print(&list, format, |color| {
                headed(several, |list| table::attempts(list, color))
            })
        }
    }
}

/// Containers of applications; of a single one, the list alone.
pub(crate) fn containers_of(
    found: &[(String, Vec<Container>)],
    single: bool,
    format: Format,
) -> Result<(), Failure> {
    match found {
        [(_, list)] if single => containers(list, format),
        _ if single => Ok(()),
        several => {
            let list: Vec<_> = several
                .iter()
                .map(|(application, containers)| ContainersOf {
                    application,
                    containers,
                })
                .collect();
            print(&list, format, |color| {
                headed(several, |list| table::containers(list, color))
            })
        }
    }
}

/// Each one's table below its id.
fn headed<T>(several: &[(String, Vec<T>)], table: impl Fn(&[T]) -> String) -> String {
    let each = several
        .iter()
        .map(|(id, list)| format!("{}\n{}", printable(id), table(list)));
    each.collect::<Vec<_>>().join("\n")
}

pub(crate) fn containers(list: &[Container], format: Format) -> Result<(), Failure> {
    print(&list, format, |color| table::containers(list, color))
}

pub(crate) fn nodes(list: &[Node], format: Format) -> Result<(), Failure> {
    print(&list, format, |color| table::nodes(list, color))
}

pub(crate) fn node(one: &Node, format: Format) -> Result<(), Failure> {
    let now_ms = bobbin_service::wall_now().0;
    print(one, format, |_| table::node(one, now_ms))
}

/// A value as JSON or YAML.
pub(crate) fn value<T: Serialize>(value: &T, format: Format) -> Result<(), Failure> {
    stdout(serialized(value, format)?.as_bytes())
}

/// A value as one line of JSON.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|e| Failure::new(Kind::Failed, format!("cannot be printed: {e}")))?;
    stdout((escaped(&text) + "\n").as_bytes())
}

/// What `app status` says, without color.
pub(crate) fn application_text(one: &Application, now_ms: u64) -> String {
    table::application(one, now_ms, false)
}

/// What `node status` says.
pub(crate) fn node_text(one: &Node, now_ms: u64) -> String {
    table::node(one, now_ms)
}

/// All there is to know of a container.
pub(crate) fn container_text(one: &Container) -> String {
    table::container(one)
}

pub(crate) fn findings(list: &[Finding], format: Format) -> Result<(), Failure> {
    print(&list, format, |color| crate::doctor::text(list, color))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_have_the_same_fields() {
        let application = json::tests::application();
        let json: serde_json::Value =
            serde_json::from_str(&serialized(&application, Format::Json).unwrap()).unwrap();
        let yaml: serde_json::Value =
            serde_yaml_ng::from_str(&serialized(&application, Format::Yaml).unwrap()).unwrap();
        assert_eq!(json, yaml);
    }

    #[test]
    fn no_format_drives_the_terminal() {
        let mut application = json::tests::application();
        application.name = "a\u{1b}[2J\u{9b}2J\u{7f}\r\u{85}\u{8}b".to_owned();
        application.tags = vec!["\u{1b}]0;owned\u{7}".to_owned()];
        for format in [Format::Json, Format::Yaml] {
            let text = serialized(&application, format).unwrap();
            assert!(
                !text.chars().any(|c| c.is_control() && c != '\n'),
                "{text:?}"
            );
            let back: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
            assert_eq!(back["name"], application.name.as_str(), "{format:?}");
        }
        let list = [application];
        for color in [false, true] {
            let text =
                table::applications(&list, 0, color) + &table::application(&list[0], 0, color);
            assert!(
                !text.contains("\u{1b}[2J") && !text.contains("\u{1b}]"),
                "{text:?}"
            );
            assert!(
                !text.contains(['\u{9b}', '\r', '\u{7f}', '\u{85}']),
                "{text:?}"
            );
        }
    }
}
