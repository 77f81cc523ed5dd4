//! Tables for people: no borders, headings in capitals, states in color where color is wanted.

use std::fmt::Write;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

use super::json::{Application, Attempt, Container, ContainerUsage, Node};
use crate::text::{one_line, printable};

/// What stands for a value that is not there.
const NONE: &str = "-";
/// Columns of the terminal for a text that others chose.
const FREE_COLUMNS_MAX: usize = 40;

fn new_table(headings: &[&str], color: bool) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let bold = |heading: &&str| {
        let cell = Cell::new(heading);
        if color {
            cell.add_attribute(Attribute::Bold)
        } else {
            cell
        }
    };
    table.set_header(headings.iter().map(bold).collect::<Vec<_>>());
    table
}

/// The table's lines without the spaces at their ends that columns leave.
fn lines(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn state_cell(state: &str, color: bool) -> Cell {
    let cell = free_cell(state);
    if !color {
        return cell;
    }
    match state {
        "RUNNING" | "SUCCEEDED" => cell.fg(Color::Green),
        "FAILED" | "LOST" | "UNHEALTHY" | "EXPIRED" => cell.fg(Color::Red),
        "KILLED" | "DECOMMISSIONING" => cell.fg(Color::Yellow),
        _ => cell,
    }
}

pub(crate) fn exit_text(exit_status: Option<i32>) -> String {
    exit_status.map_or_else(|| NONE.to_owned(), |status| status.to_string())
}

/// A text that others chose, in its column.
fn free_cell(text: &str) -> Cell {
    Cell::new(one_line(text, FREE_COLUMNS_MAX))
}

/// An id: whole, whatever its length.
fn id_cell(text: &str) -> Cell {
    Cell::new(one_line(text, usize::MAX))
}

/// A span of time in its two largest units: `3m12s`.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1000;
    match (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, 0) => format!("{ms}ms"),
        (0, 0, 0, s) if s < 10 => format!("{s}.{}s", ms / 100 % 10),
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s:02}s"),
        (0, h, m, _) => format!("{h}h{m:02}m"),
        (d, h, _, _) => format!("{d}d{h:02}h"),
    }
}

/// How long ago a moment was; a moment of 0 never was.
fn ago(moment_ms: u64, now_ms: u64) -> String {
    if moment_ms == 0 {
        NONE.to_owned()
    } else {
        span(now_ms.saturating_sub(moment_ms))
    }
}

/// How long it ran, up to now if it still does.
pub(crate) fn ran(started_ms: u64, finished_ms: u64, now_ms: u64) -> String {
    let end = if finished_ms == 0 {
        now_ms
    } else {
        finished_ms
    };
    if started_ms == 0 {
        NONE.to_owned()
    } else {
        span(end.saturating_sub(started_ms))
    }
}

pub(crate) fn applications(list: &[Application], now_ms: u64, color: bool) -> String {
    let headings = [
        "ID",
        "NAME",
        "USER",
        "QUEUE",
        "STATE",
        "FINAL",
        "EXIT",
        "CONTAINERS",
        "SUBMITTED",
        "RAN",
    ];
    let mut table = new_table(&headings, color);
    for a in list {
        table.add_row([
            id_cell(&a.id),
            free_cell(&a.name),
            free_cell(&a.user),
            free_cell(&a.queue),
            state_cell(&a.state, color),
            state_cell(&a.final_status, color),
            Cell::new(exit_text(a.exit_status)),
            Cell::new(a.containers),
            Cell::new(ago(a.submitted_ms, now_ms) + " ago"),
            Cell::new(ran(a.started_ms, a.finished_ms, now_ms)),
        ]);
    }
    lines(table)
}

fn containers_text(count: u32) -> String {
    if count == 1 {
        "1 container".to_owned()
    } else {
        format!("{count} containers")
    }
}

/// `name: value` lines with the values below each other.
fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let value = printable(value)
            .trim_end()
            .replace('\n', &format!("\n{:width$}", ""));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:width$}{value}", format!("{name}:"));
    }
    text
}

pub(crate) fn application(a: &Application, now_ms: u64, color: bool) -> String {
    let mut text = fields(&[
        ("id", a.id.clone()),
        ("name", a.name.clone()),
        ("user", a.user.clone()),
        ("queue", a.queue.clone()),
        ("type", a.application_type.clone()),
        ("deploy mode", a.deploy_mode.to_owned()),
        ("tags", a.tags.join(", ")),
        ("state", a.state.clone()),
        ("final status", a.final_status.clone()),
        ("exit status", exit_text(a.exit_status)),
        ("submitted", ago(a.submitted_ms, now_ms) + " ago"),
        ("ran", ran(a.started_ms, a.finished_ms, now_ms)),
        (
            "holds",
            format!(
                "{}, {} MiB, {} vcores",
                containers_text(a.containers),
                a.memory_mib,
                a.vcores
            ),
        ),
        ("overhead", overhead(a.overhead_memory_mib)),
        (
            "used in all",
            format!(
                "{} MiB-seconds, {} vcore-seconds",
                a.memory_mib_seconds, a.vcore_seconds
            ),
        ),
        ("ends", ends(a, now_ms)),
        ("tracking URL", a.tracking_url.clone()),
        ("waiting", a.waiting.clone()),
        ("diagnostics", a.diagnostics.clone()),
    ]);
    if let Some(list) = a.attempts.as_deref().filter(|list| !list.is_empty()) {
        text.push('\n');
        text.push_str(&attempts(list, color));
    }
    text
}

/// Nothing for masters that are none of Bobbin's.
fn overhead(memory_mib: u64) -> String {
    if memory_mib == 0 {
        return String::new();
    }
    format!("{memory_mib} MiB of the driver's container are Bobbin's own")
}

/// When its time is over, while it runs.
fn ends(a: &Application, now_ms: u64) -> String {
    if a.expires_ms == 0 || a.finished_ms > 0 {
        return String::new();
    }
    let seconds = a.expires_ms.saturating_sub(now_ms).div_ceil(1000);
    format!("in {seconds} s, if it still runs then")
}

pub(crate) fn attempts(list: &[Attempt], color: bool) -> String {
    let mut table = new_table(
        &["ATTEMPT", "STATE", "EXIT", "NODE", "CONTAINER", "WHY"],
        color,
    );
    for a in list {
        table.add_row([
            Cell::new(a.attempt),
            state_cell(&a.state, color),
            Cell::new(exit_text(a.exit_status)),
            id_cell(a.node.as_deref().unwrap_or(NONE)),
            id_cell(a.container.as_deref().unwrap_or(NONE)),
            free_cell(a.diagnostics.lines().next().unwrap_or("")),
        ]);
    }
    lines(table)
}

fn percent(permille: u64) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}

pub(crate) fn containers(list: &[Container], color: bool) -> String {
    // Measured ones have two columns more.
    let measured = list.iter().any(|c| c.usage.is_some());
    let mut headings = vec!["ID", "NODE", "STATE", "MEMORY", "VCORES", "EXIT"];
    if measured {
        headings.extend(["USED", "CPU"]);
    }
    let mut table = new_table(&headings, color);
    for c in list {
        let mut row = vec![
            id_cell(&c.id),
            id_cell(&c.node),
            state_cell(&c.state, color),
            Cell::new(format!("{} MiB", c.memory_mib)),
            Cell::new(c.vcores),
            Cell::new(exit_text(c.exit_status)),
        ];
        match &c.usage {
            Some(usage) => row.extend([
                Cell::new(format!("{} MiB", usage.memory_bytes >> 20)),
                Cell::new(percent(usage.cpu_permille)),
            ]),
            None if measured => row.extend([Cell::new(NONE), Cell::new(NONE)]),
            None => {}
        }
        table.add_row(row);
    }
    lines(table)
}

pub(crate) fn container(c: &Container) -> String {
    let use_of =
        |words: fn(&ContainerUsage) -> String| c.usage.as_ref().map_or_else(String::new, words);
    fields(&[
        ("id", c.id.clone()),
        ("node", c.node.clone()),
        ("state", c.state.clone()),
        (
            "granted",
            format!("{} MiB, {} vcores", c.memory_mib, c.vcores),
        ),
        (
            "memory",
            use_of(|u| format!("{} MiB in use", u.memory_bytes >> 20)),
        ),
        (
            "processor",
            use_of(|u| {
                format!(
                    "{} of a core, {} in all",
                    percent(u.cpu_permille),
                    span(u.cpu_ms)
                )
            }),
        ),
        ("processes", use_of(|u| u.processes.to_string())),
        ("runs for", use_of(|u| span(u.running_ms))),
        ("exit status", exit_text(c.exit_status)),
        ("diagnostics", c.diagnostics.clone()),
    ])
}

pub(crate) fn nodes(list: &[Node], color: bool) -> String {
    let headings = [
        "ID",
        "STATE",
        "MEMORY",
        "USED",
        "VCORES",
        "USED",
        "CONTAINERS",
        "PROBLEMS",
    ];
    let mut table = new_table(&headings, color);
    for n in list {
        table.add_row([
            id_cell(&n.id),
            state_cell(&n.state, color),
            Cell::new(format!("{} MiB", n.memory_mib)),
            Cell::new(format!("{} MiB", n.memory_used_mib)),
            Cell::new(n.vcores),
            Cell::new(n.vcores_used),
            Cell::new(n.containers),
            free_cell(&n.problems.join("; ")),
        ]);
    }
    lines(table)
}

pub(crate) fn node(n: &Node, now_ms: u64) -> String {
    fields(&[
        ("id", n.id.clone()),
        ("state", n.state.clone()),
        (
            "memory",
            format!("{} of {} MiB used", n.memory_used_mib, n.memory_mib),
        ),
        ("reserved", format!("{} MiB", n.reserved_memory_mib)),
        ("vcores", format!("{} of {} used", n.vcores_used, n.vcores)),
        ("containers", n.containers.to_string()),
        (
            "machine",
            format!(
                "{} MiB in use, processors {}",
                n.machine_memory_used_mib,
                percent(n.machine_cpu_permille.into())
            ),
        ),
        ("profile", n.profile.clone()),
        ("address", n.address.clone()),
        ("version", n.version.clone()),
        ("seen", ago(n.last_seen_ms, now_ms) + " ago"),
        ("problems", n.problems.join("\n")),
    ])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::json::tests as examples;
    use super::*;

    const NOW_MS: u64 = 1_700_000_070_000;

    #[test]
    fn app_list() {
        expect![[r#"
            ID                              NAME     USER    QUEUE    STATE   FINAL   EXIT  CONTAINERS  SUBMITTED  RAN
            application_1700000000000_0007  flights  nobody  default  FAILED  FAILED  -104  1           1m09s ago  1m01s
        "#]].assert_eq(&applications(&[examples::application()], NOW_MS, false));
    }

    #[test]
    fn app_status() {
        expect![[r#"
            id:           application_1700000000000_0007
            name:         flights
            user:         nobody
            queue:        default
            type:         BOBBIN
            deploy mode:  cluster
            tags:         nightly
            state:        FAILED
            final status: FAILED
            exit status:  -104
            submitted:    1m09s ago
            ran:          1m01s
            holds:        1 container, 128 MiB, 1 vcores
            overhead:     64 MiB of the driver's container are Bobbin's own
            used in all:  7936 MiB-seconds, 62 vcore-seconds
            tracking URL: http://127.0.0.1:4040
            diagnostics:  128.0 MB of 128 MB physical memory used

            ATTEMPT  STATE   EXIT  NODE             CONTAINER                                   WHY
            1        FAILED  -104  127.0.0.1:21000  container_e01_1700000000000_0007_01_000001  above its memory
        "#]].assert_eq(&application(&examples::application(), NOW_MS, false));
    }

    #[test]
    fn app_containers() {
        expect![[r#"
            ID                                          NODE             STATE      MEMORY   VCORES  EXIT
            container_e01_1700000000000_0007_01_000001  127.0.0.1:21000  COMPLETED  576 MiB  1       0
        "#]].assert_eq(&containers(&[examples::container()], false));
    }

    #[test]
    fn node_list_and_status() {
        expect![[r#"
            ID               STATE    MEMORY     USED     VCORES  USED  CONTAINERS  PROBLEMS
            127.0.0.1:21000  RUNNING  11000 MiB  576 MiB  8       1     1
        "#]]
        .assert_eq(&nodes(&[examples::node()], false));
        expect![[r#"
            id:         127.0.0.1:21000
            state:      RUNNING
            memory:     576 of 11000 MiB used
            reserved:   0 MiB
            vcores:     1 of 8 used
            containers: 1
            machine:    3400 MiB in use, processors 12.3 %
            profile:    full
            address:    127.0.0.1:21000
            version:    0.1.0
            seen:       1m09s ago
        "#]]
        .assert_eq(&node(&examples::node(), NOW_MS));
    }

    #[test]
    fn an_empty_list_is_its_headings() {
        assert_eq!(
            containers(&[], false),
            "ID  NODE  STATE  MEMORY  VCORES  EXIT\n"
        );
    }

    #[test]
    fn color_only_when_asked() {
        assert!(!applications(&[examples::application()], NOW_MS, false).contains('\u{1b}'));
        assert!(applications(&[examples::application()], NOW_MS, true).contains('\u{1b}'));
    }

    #[test]
    fn spans() {
        for (ms, text) in [
            (7, "7ms"),
            (2_340, "2.3s"),
            (59_000, "59s"),
            (192_000, "3m12s"),
            (7_380_000, "2h03m"),
            (180_000_000, "2d02h"),
        ] {
            assert_eq!(span(ms), text);
        }
    }
}
