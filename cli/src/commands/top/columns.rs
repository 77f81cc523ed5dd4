//! What each table shows: its columns, how wide they are, how they sort, and which go first where the
//! terminal is narrow.

use std::cmp::Ordering;

use crate::output::{Application, Container, Node, exit_text, ran, span};
use crate::text::{columns, one_line};

/// Between two columns.
pub(super) const GAP: usize = 2;
/// The least that the column which takes the rest is given.
const REST_MIN: usize = 12;

/// What of a row's look means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
}

/// How wide a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Fixed(usize),
    /// Short where there is little room, long where there is enough for all.
    Either(usize, usize),
    /// What the others leave.
    Rest,
}

/// One column of a table over rows of `R`.
#[derive(Debug)]
pub(super) struct Column<R> {
    pub(super) title: &'static str,
    pub(super) width: Width,
    /// Numbers stand below each other at their right end, and sort from the largest first.
    pub(super) number: bool,
    /// The highest goes first where there is no room; 0 stays.
    pub(super) rank: u8,
    /// Text for `long` or short columns at this moment (Unix milliseconds).
    pub(super) text: fn(&R, now_ms: u64, long: bool) -> String,
    pub(super) order: fn(&R, &R, now_ms: u64) -> Ordering,
    pub(super) tone: fn(&R) -> Tone,
}

/// What is listed in a table.
pub(super) trait Row: std::fmt::Debug + Sized + 'static {
    fn id(&self) -> &str;
    /// Whether what a person typed (in lower case) is found in it.
    fn matches(&self, lower: &str) -> bool;
    fn all_columns() -> &'static [Column<Self>];
    /// By what it is sorted at first, and whether from the largest.
    fn first_sort() -> (usize, bool);
}

fn has(text: &str, lower: &str) -> bool {
    text.to_lowercase().contains(lower)
}

impl Row for Application {
    fn id(&self) -> &str {
        &self.id
    }

    fn matches(&self, lower: &str) -> bool {
        [&self.id, &self.name, &self.user, &self.queue, &self.state]
            .into_iter()
            .chain(&self.tags)
            .chain([&self.application_type])
            .any(|text| has(text, lower))
    }

    fn all_columns() -> &'static [Column<Application>] {
        &APPLICATIONS
    }

    fn first_sort() -> (usize, bool) {
        (APPLICATIONS.len() - 2, true)
    }
}

impl Row for Node {
    fn id(&self) -> &str {
        &self.id
    }

    fn matches(&self, lower: &str) -> bool {
        has(&self.id, lower) || has(&self.state, lower) || has(&self.problems.join(" "), lower)
    }

    fn all_columns() -> &'static [Column<Node>] {
        &NODES
    }

    fn first_sort() -> (usize, bool) {
        (0, false)
    }
}

impl Row for Container {
    fn id(&self) -> &str {
        &self.id
    }

    fn matches(&self, lower: &str) -> bool {
        has(&self.id, lower) || has(&self.node, lower) || has(&self.state, lower)
    }

    fn all_columns() -> &'static [Column<Container>] {
        &CONTAINERS
    }

    fn first_sort() -> (usize, bool) {
        (0, false)
    }
}

fn plain<R>(_: &R) -> Tone {
    Tone::Plain
}

fn state_tone(state: &str) -> Tone {
    match state {
        "RUNNING" | "SUCCEEDED" => Tone::Good,
        "FAILED" | "LOST" | "UNHEALTHY" | "EXPIRED" => Tone::Bad,
        "KILLED" | "DECOMMISSIONING" => Tone::Warning,
        _ => Tone::Plain,
    }
}

/// The number behind the cluster's time stamp, which all ids of a cluster share.
fn short_application(id: &str) -> &str {
    id.rsplit('_').next().unwrap_or(id)
}

/// Attempt and number: what differs within an application.
fn short_container(id: &str) -> &str {
    let mut ends = id.rmatch_indices('_').map(|(at, _)| at + 1);
    let _number = ends.next();
    ends.next().and_then(|at| id.get(at..)).unwrap_or(id)
}

/// `576 MiB`, `11.2 GiB`, `1.5 TiB`: at most 9 columns.
pub(super) fn memory(mib: u64) -> String {
    let tenths = |unit: u64| {
        let tenths = mib.saturating_mul(10) / unit;
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match mib {
        0..10_240 => format!("{mib} MiB"),
        10_240..10_485_760 => tenths(1 << 10) + " GiB",
        _ => tenths(1 << 20) + " TiB",
    }
}

fn percent(permille: u64) -> String {
    format!("{}.{}%", permille / 10, permille % 10)
}

/// What is used of what was granted, in tenths of a percent.
fn memory_permille(container: &Container) -> Option<u64> {
    let used = container.usage.as_ref()?.memory_bytes;
    let granted = container
        .memory_mib
        .checked_mul(1 << 20)
        .filter(|g| *g > 0)?;
    Some(used.saturating_mul(1000) / granted)
}

fn cpu(container: &Container) -> Option<u64> {
    container.usage.as_ref().map(|usage| usage.cpu_permille)
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// When it started to run, for sorting: who does not yet, comes last.
fn running_ms(a: &Application, now_ms: u64) -> u64 {
    let end = if a.finished_ms == 0 {
        now_ms
    } else {
        a.finished_ms
    };
    if a.started_ms == 0 {
        0
    } else {
        end.saturating_sub(a.started_ms)
    }
}

macro_rules! column {
    ($title:literal, $width:expr, $number:literal, $rank:literal, $text:expr, $order:expr, $tone:expr) => {
        Column {
            title: $title,
            width: $width,
            number: $number,
            rank: $rank,
            text: $text,
            order: $order,
            tone: $tone,
        }
    };
}

use Width::{Either, Fixed, Rest};

static APPLICATIONS: [Column<Application>; 14] = [
    column!(
        "ID",
        Either(6, 31),
        false,
        0,
        |a, _, long| if long {
            a.id.clone()
        } else {
            short_application(&a.id).to_owned()
        },
        |a, b, _| a
            .submitted_ms
            .cmp(&b.submitted_ms)
            .then_with(|| a.id.cmp(&b.id)),
        plain
    ),
    column!(
        "NAME",
        Rest,
        false,
        0,
        |a, _, _| a.name.clone(),
        |a, b, _| a.name.cmp(&b.name),
        plain
    ),
    column!(
        "USER",
        Fixed(10),
        false,
        4,
        |a, _, _| a.user.clone(),
        |a, b, _| a.user.cmp(&b.user),
        plain
    ),
    column!(
        "QUEUE",
        Fixed(10),
        false,
        7,
        |a, _, _| a.queue.clone(),
        |a, b, _| a.queue.cmp(&b.queue),
        plain
    ),
    column!(
        "TYPE",
        Fixed(8),
        false,
        9,
        |a, _, _| a.application_type.clone(),
        |a, b, _| a.application_type.cmp(&b.application_type),
        plain
    ),
    column!(
        "STATE",
        Fixed(9),
        false,
        1,
        |a, _, _| a.state.clone(),
        |a, b, _| a.state.cmp(&b.state),
        |a| state_tone(&a.state)
    ),
    column!(
        "FINAL",
        Fixed(9),
        false,
        8,
        |a, _, _| a.final_status.clone(),
        |a, b, _| a.final_status.cmp(&b.final_status),
        |a| state_tone(&a.final_status)
    ),
    column!(
        "EXIT",
        Fixed(4),
        true,
        6,
        |a, _, _| exit_text(a.exit_status),
        |a, b, _| a.exit_status.cmp(&b.exit_status),
        plain
    ),
    column!(
        "CONT",
        Fixed(5),
        true,
        2,
        |a, _, _| a.containers.to_string(),
        |a, b, _| a.containers.cmp(&b.containers),
        plain
    ),
    column!(
        "MEMORY",
        Fixed(9),
        true,
        2,
        |a, _, _| memory(a.memory_mib),
        |a, b, _| a.memory_mib.cmp(&b.memory_mib),
        plain
    ),
    column!(
        "VCORES",
        Fixed(6),
        true,
        3,
        |a, _, _| a.vcores.to_string(),
        |a, b, _| a.vcores.cmp(&b.vcores),
        plain
    ),
    column!(
        "PRIO",
        Fixed(4),
        true,
        9,
        |a, _, _| a.priority.to_string(),
        |a, b, _| a.priority.cmp(&b.priority),
        plain
    ),
    column!(
        "AGE",
        Fixed(6),
        true,
        5,
        |a, now_ms, _| span(now_ms.saturating_sub(a.submitted_ms)),
        // The age of the youngest is the smallest; "largest first" shows the newest first.
        |a, b, _| a
            .submitted_ms
            .cmp(&b.submitted_ms)
            .then_with(|| a.id.cmp(&b.id)),
        plain
    ),
    column!(
        "RAN",
        Fixed(6),
        true,
        3,
        |a, now_ms, _| ran(a.started_ms, a.finished_ms, now_ms),
        |a, b, now_ms| running_ms(a, now_ms).cmp(&running_ms(b, now_ms)),
        plain
    ),
];

static NODES: [Column<Node>; 10] = [
    column!(
        "ID",
        Rest,
        false,
        0,
        |n, _, _| n.id.clone(),
        |a, b, _| a.id.cmp(&b.id),
        plain
    ),
    column!(
        "STATE",
        Fixed(9),
        false,
        1,
        |n, _, _| n.state.clone(),
        |a, b, _| a.state.cmp(&b.state),
        |n| state_tone(&n.state)
    ),
    column!(
        "CONT",
        Fixed(5),
        true,
        3,
        |n, _, _| n.containers.to_string(),
        |a, b, _| a.containers.cmp(&b.containers),
        plain
    ),
    column!(
        "GRANTED",
        Fixed(9),
        true,
        2,
        |n, _, _| memory(n.memory_used_mib),
        |a, b, _| a.memory_used_mib.cmp(&b.memory_used_mib),
        plain
    ),
    column!(
        "OF",
        Fixed(9),
        true,
        4,
        |n, _, _| memory(n.memory_mib),
        |a, b, _| a.memory_mib.cmp(&b.memory_mib),
        plain
    ),
    column!(
        "VCORES",
        Fixed(9),
        true,
        5,
        |n, _, _| format!("{}/{}", n.vcores_used, n.vcores),
        |a, b, _| a.vcores_used.cmp(&b.vcores_used),
        plain
    ),
    column!(
        "IN USE",
        Fixed(9),
        true,
        3,
        |n, _, _| memory(n.machine_memory_used_mib),
        |a, b, _| a.machine_memory_used_mib.cmp(&b.machine_memory_used_mib),
        plain
    ),
    column!(
        "CPU",
        Fixed(6),
        true,
        2,
        |n, _, _| percent(n.machine_cpu_permille.into()),
        |a, b, _| a.machine_cpu_permille.cmp(&b.machine_cpu_permille),
        |n| if n.machine_cpu_permille > 900 {
            Tone::Warning
        } else {
            Tone::Plain
        }
    ),
    column!(
        "SEEN",
        Fixed(6),
        true,
        6,
        |n, now_ms, _| span(now_ms.saturating_sub(n.last_seen_ms)),
        |a, b, _| a.last_seen_ms.cmp(&b.last_seen_ms),
        plain
    ),
    column!(
        "PROBLEMS",
        Fixed(30),
        false,
        8,
        |n, _, _| n.problems.join("; "),
        |a, b, _| a.problems.len().cmp(&b.problems.len()),
        |_| Tone::Warning
    ),
];

static CONTAINERS: [Column<Container>; 10] = [
    column!(
        "ID",
        Either(10, 43),
        false,
        0,
        |c, _, long| if long {
            c.id.clone()
        } else {
            short_container(&c.id).to_owned()
        },
        |a, b, _| a.id.cmp(&b.id),
        plain
    ),
    column!(
        "NODE",
        Rest,
        false,
        0,
        |c, _, _| c.node.clone(),
        |a, b, _| a.node.cmp(&b.node),
        plain
    ),
    column!(
        "STATE",
        Fixed(9),
        false,
        1,
        |c, _, _| c.state.clone(),
        |a, b, _| a.state.cmp(&b.state),
        |c| state_tone(&c.state)
    ),
    column!(
        "MEMORY",
        Fixed(9),
        true,
        1,
        |c, _, _| or_none(c.usage.as_ref().map(|u| memory(u.memory_bytes >> 20))),
        |a, b, _| memory_of(a).cmp(&memory_of(b)),
        plain
    ),
    column!(
        "OF",
        Fixed(9),
        true,
        3,
        |c, _, _| memory(c.memory_mib),
        |a, b, _| a.memory_mib.cmp(&b.memory_mib),
        plain
    ),
    column!(
        "MEM%",
        Fixed(6),
        true,
        4,
        |c, _, _| or_none(memory_permille(c).map(percent)),
        |a, b, _| memory_permille(a).cmp(&memory_permille(b)),
        |c| match memory_permille(c) {
            Some(900..) => Tone::Warning,
            Some(_) | None => Tone::Plain,
        }
    ),
    column!(
        "CPU",
        Fixed(7),
        true,
        1,
        |c, _, _| or_none(cpu(c).map(percent)),
        |a, b, _| cpu(a).cmp(&cpu(b)),
        plain
    ),
    column!(
        "TIME",
        Fixed(6),
        true,
        5,
        |c, _, _| or_none(c.usage.as_ref().map(|u| span(u.cpu_ms))),
        |a, b, _| time_of(a).cmp(&time_of(b)),
        plain
    ),
    column!(
        "PROCS",
        Fixed(5),
        true,
        6,
        |c, _, _| or_none(c.usage.as_ref().map(|u| u.processes.to_string())),
        |a, b, _| processes_of(a).cmp(&processes_of(b)),
        plain
    ),
    column!(
        "EXIT",
        Fixed(4),
        true,
        2,
        |c, _, _| exit_text(c.exit_status),
        |a, b, _| a.exit_status.cmp(&b.exit_status),
        plain
    ),
];

fn memory_of(container: &Container) -> Option<u64> {
    container.usage.as_ref().map(|usage| usage.memory_bytes)
}

fn time_of(container: &Container) -> Option<u64> {
    container.usage.as_ref().map(|usage| usage.cpu_ms)
}

fn processes_of(container: &Container) -> Option<u64> {
    container.usage.as_ref().map(|usage| usage.processes)
}

/// A column that is shown: its number among all, where it begins, and how wide it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) index: usize,
    pub(super) left: usize,
    pub(super) width: usize,
    pub(super) long: bool,
}

/// Which columns fit into `room`, and where. The one that is sorted by stays as long as those that always
/// do.
pub(super) fn fit<R>(all: &[Column<R>], sorted: usize, room: usize) -> Vec<Placed> {
    let rank = |index: usize| if index == sorted { 0 } else { all[index].rank };
    let mut kept: Vec<usize> = (0..all.len()).collect();
    let needed = |kept: &[usize], long: bool| -> usize {
        let gaps = GAP * kept.len().saturating_sub(1);
        kept.iter()
            .map(|index| width(all[*index].width, long))
            .sum::<usize>()
            + gaps
    };
    while needed(&kept, false) > room {
        let Some(last) = kept
            .iter()
            .copied()
            .filter(|index| rank(*index) > 0)
            .max_by_key(|index| (rank(*index), *index))
        else {
            break;
        };
        kept.retain(|index| *index != last);
    }
    let long = needed(&kept, true) + REST_MIN <= room;
    let spare = room.saturating_sub(needed(&kept, long));
    let mut left = 0;
    let mut placed = Vec::with_capacity(kept.len());
    for index in kept {
        let column = all[index].width;
        let more = if column == Rest { spare } else { 0 };
        let width = (width(column, long) + more).min(room.saturating_sub(left));
        placed.push(Placed {
            index,
            left,
            width,
            long,
        });
        left += width + GAP;
    }
    placed
}

fn width(width: Width, long: bool) -> usize {
    match width {
        Fixed(width) => width,
        Either(_, width) if long => width,
        Either(width, _) => width,
        Rest => REST_MIN,
    }
}

/// A cell's text, cut and filled to its width.
pub(super) fn cell(text: &str, width: usize, number: bool) -> String {
    let text = one_line(text, width);
    let space = " ".repeat(width.saturating_sub(columns(&text)));
    if number { space + &text } else { text + &space }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_any_width() {
        for room in 0..400 {
            for sorted in 0..APPLICATIONS.len() {
                let placed = fit(&APPLICATIONS, sorted, room);
                let end = placed.iter().map(|p| p.left + p.width).max().unwrap_or(0);
                assert!(
                    placed
                        .iter()
                        .all(|p| p.width == 0 || p.left + p.width <= room),
                    "{room} {placed:?}"
                );
                assert!(room < 40 || end == room, "{room}: {end}");
                assert!(
                    room < 60 || placed.iter().any(|p| p.index == sorted),
                    "{room} {sorted}"
                );
            }
        }
        let titles = |room: usize| -> Vec<&str> {
            fit(&APPLICATIONS, 0, room)
                .iter()
                .map(|p| APPLICATIONS[p.index].title)
                .collect()
        };
        assert_eq!(
            titles(80),
            [
                "ID", "NAME", "USER", "STATE", "CONT", "MEMORY", "VCORES", "RAN"
            ]
        );
        assert_eq!(titles(31), ["ID", "NAME", "STATE"]);
        assert_eq!(titles(300).len(), APPLICATIONS.len());
    }

    #[test]
    fn short_ids() {
        assert_eq!(short_application("application_1700000000000_0007"), "0007");
        assert_eq!(
            short_container("container_e01_1700000000000_0007_01_000002"),
            "01_000002"
        );
        assert_eq!(short_container("odd"), "odd");
    }

    #[test]
    fn sizes() {
        for (mib, text) in [
            (0, "0 MiB"),
            (9_999, "9999 MiB"),
            (11_468, "11.1 GiB"),
            (20_000_000, "19.0 TiB"),
        ] {
            assert_eq!(memory(mib), text);
        }
        assert!(memory(u64::MAX).ends_with("TiB"));
    }

    #[test]
    fn cells_are_as_wide_as_their_column() {
        for text in [
            "",
            "abc",
            "日本語日本語",
            "e\u{301}",
            "\u{1b}[31mred",
            "a\nb",
        ] {
            for width in 0..12 {
                assert_eq!(columns(&cell(text, width, true)), width, "{text:?}");
                assert_eq!(columns(&cell(text, width, false)), width, "{text:?}");
            }
        }
    }
}
