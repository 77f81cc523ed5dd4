//! Draws the state. Only rows that are on the screen are formatted, so that a frame costs the same with
//! ten applications as with many thousands.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use crate::text::{columns, one_line, wrapped};

use super::columns::{Placed, Row, Tone, cell, fit, memory};
use super::keys::HELP;
use super::state::{Link, Overlay, Top, View};
use super::table::Table;

/// Lines above the rows: the cluster, the views, the headings.
const LINES_ABOVE: u16 = 3;
/// Lines below them: what to press.
const LINES_BELOW: u16 = 1;

/// How things look; without color only bold and reversed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) color: bool,
}

impl Look {
    fn tone(self, tone: Tone) -> Style {
        let color = match tone {
            Tone::Plain => return Style::new(),
            Tone::Good => Color::Green,
            Tone::Warning => Color::Yellow,
            Tone::Bad => Color::Red,
        };
        if self.color {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    fn bad(self) -> Style {
        self.tone(Tone::Bad).add_modifier(Modifier::BOLD)
    }
}

/// One line of the screen from its left, cut at its right end; what is left of it keeps its style.
fn line(buffer: &mut Buffer, area: Rect, row: u16, text: &str, style: Style) {
    if row >= area.height {
        return;
    }
    let text = one_line(text, usize::from(area.width));
    buffer.set_string(area.x, area.y + row, text, style);
}

/// As [`line()`], the whole width in one style.
fn bar(buffer: &mut Buffer, area: Rect, row: u16, text: &str, style: Style) {
    line(
        buffer,
        area,
        row,
        &cell(text, usize::from(area.width), false),
        style,
    );
}

/// Draws one frame; how many rows of the table were formatted for it.
pub(super) fn draw(top: &mut Top, look: Look, frame: &mut Frame<'_>) -> usize {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    let height = area.height.saturating_sub(LINES_ABOVE + LINES_BELOW);
    top.page = usize::from(height);
    head(top, look, buffer, area);
    let body = Rect {
        y: area.y + LINES_ABOVE.min(area.height),
        height,
        ..area
    };
    let body_and_headings = Rect {
        y: area.y + (LINES_ABOVE - 1).min(area.height),
        height: area.height.saturating_sub(LINES_ABOVE - 1 + LINES_BELOW),
        ..area
    };
    let now_ms = top.now_ms;
    let mut rows = 0;
    match &mut top.overlay {
        Overlay::Help => {
            let lines = HELP
                .iter()
                .map(|(keys, words)| format!("  {keys:16}{words}"));
            text_page(buffer, body_and_headings, &lines.collect::<Vec<_>>());
        }
        Overlay::Details {
            text, top: first, ..
        } => {
            let lines = wrapped(text, usize::from(area.width));
            let last = lines
                .len()
                .saturating_sub(usize::from(body_and_headings.height));
            *first = (*first).min(last);
            text_page(
                buffer,
                body_and_headings,
                lines.get(*first..).unwrap_or_default(),
            );
        }
        Overlay::Log(log) => {
            let lines = log.screen(usize::from(body_and_headings.height));
            text_page(buffer, body_and_headings, &lines);
        }
        Overlay::None | Overlay::Filter { .. } | Overlay::Kill { .. } => {
            rows = match top.view {
                View::Applications => table(&mut top.applications, look, buffer, body, now_ms),
                View::Nodes => table(&mut top.nodes, look, buffer, body, now_ms),
                View::Containers => table(&mut top.containers, look, buffer, body, now_ms),
            }
        }
    }
    foot(top, look, buffer, area);
    rows
}

/// The two lines on top: the cluster, and what is shown of it.
fn head(top: &Top, look: Look, buffer: &mut Buffer, area: Rect) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let state = match &top.link {
        Link::Connecting => "connecting",
        Link::Fine if top.paused => "PAUSED",
        Link::Fine => "",
        Link::Lost(_) => "RECONNECTING",
    };
    let summary = &top.summary;
    let cluster = format!(
        "bobbin top  nodes {}  applications {}  memory {} of {}  vcores {} of {}",
        summary.nodes,
        summary.applications,
        memory(summary.memory_used_mib),
        memory(summary.memory_mib),
        summary.vcores_used,
        summary.vcores,
    );
    let reserved = if state.is_empty() {
        0
    } else {
        columns(state) + 2
    };
    let room = usize::from(area.width).saturating_sub(reserved);
    line(buffer, area, 0, &cell(&cluster, room, false), bold);
    let at = u16::try_from(room + 2).unwrap_or(u16::MAX);
    if at < area.width && area.height > 0 {
        let style = if matches!(top.link, Link::Lost(_)) {
            look.bad()
        } else {
            bold
        };
        buffer.set_string(area.x + at, area.y, one_line(state, columns(state)), style);
    }
    line(buffer, area, 1, &views(top), Style::new());
}

fn views(top: &Top) -> String {
    let name = |view: View, text: String| {
        if top.view == view {
            format!("[{text}]")
        } else {
            format!(" {text} ")
        }
    };
    let ended = if top.ended {
        "1 Applications, ended too"
    } else {
        "1 Applications"
    };
    let of = top
        .of
        .as_deref()
        .map_or("", |id| id.rsplit('_').next().unwrap_or(id));
    let (shown, all) = match top.view {
        View::Applications => top.applications.counts(),
        View::Nodes => top.nodes.counts(),
        View::Containers => top.containers.counts(),
    };
    let filter = match top.filter() {
        "" => String::new(),
        filter => format!("  /{filter}"),
    };
    let more = if top.more && top.view == View::Applications {
        "+"
    } else {
        ""
    };
    format!(
        "{}{}{}  {shown} of {all}{more}{filter}",
        name(View::Applications, ended.to_owned()),
        name(View::Nodes, "2 Nodes".to_owned()),
        name(
            View::Containers,
            format!("3 Containers {of}").trim_end().to_owned()
        ),
    )
}

/// The headings in the line above `body`, and those rows that fit into it; how many.
fn table<R: Row>(
    table: &mut Table<R>,
    look: Look,
    buffer: &mut Buffer,
    body: Rect,
    now_ms: u64,
) -> usize {
    let all = R::all_columns();
    let placed = fit(all, table.sorted, usize::from(body.width));
    let heading_row = Rect {
        y: body.y.saturating_sub(1),
        height: 1,
        ..body
    };
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    let headings = placed.iter().map(|at| {
        let column = &all[at.index];
        let mark = match (at.index == table.sorted, table.descending) {
            (false, _) => "",
            (true, true) => "v",
            (true, false) => "^",
        };
        (
            *at,
            format!("{}{mark}", column.title),
            column.number,
            Style::new(),
        )
    });
    if buffer.area.contains((heading_row.x, heading_row.y).into()) && body.y > 0 {
        bar(buffer, heading_row, 0, "", reversed);
        cells(buffer, heading_row, headings, reversed);
    }
    let window = table.window(usize::from(body.height));
    if window.is_empty() {
        let words = match (table.is_known, table.counts()) {
            (false, _) => "",
            (true, (_, 0)) => "there is nothing here",
            (true, _) => "nothing matches the filter: Esc clears it",
        };
        line(buffer, body, 0, words, Style::new());
        return 0;
    }
    let rows = window.len();
    for (row, position) in (0_u16..).zip(window) {
        let Some(data) = table.row_at(position) else {
            break;
        };
        let area = Rect {
            y: body.y + row,
            height: 1,
            ..body
        };
        let base = if position == table.position() {
            bar(buffer, area, 0, "", reversed);
            reversed
        } else {
            Style::new()
        };
        let texts = placed.iter().map(|at| {
            let column = &all[at.index];
            let text = (column.text)(data, now_ms, at.long);
            (*at, text, column.number, look.tone((column.tone)(data)))
        });
        cells(buffer, area, texts, base);
    }
    rows
}

fn cells(
    buffer: &mut Buffer,
    area: Rect,
    cells: impl Iterator<Item = (Placed, String, bool, Style)>,
    base: Style,
) {
    for (at, text, number, style) in cells {
        let Ok(left) = u16::try_from(at.left) else {
            break;
        };
        if left >= area.width || at.width == 0 {
            continue;
        }
        let text = cell(&text, at.width, number);
        buffer.set_string(area.x + left, area.y, text, base.patch(style));
    }
}

fn text_page(buffer: &mut Buffer, area: Rect, lines: &[String]) {
    for (row, text) in (0..area.height).zip(lines) {
        line(buffer, area, row, text, Style::new());
    }
}

/// The last line: a question, news, or what may be pressed.
fn foot(top: &Top, look: Look, buffer: &mut Buffer, area: Rect) {
    let Some(row) = area.height.checked_sub(1) else {
        return;
    };
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    let (text, style) = match (&top.overlay, &top.notice, &top.link) {
        (Overlay::Kill { id, words }, _, _) => {
            // The question stays on the screen however long the name is.
            let width = usize::from(area.width);
            let question = format!("kill {id}? y/n");
            let room = width.saturating_sub(columns(&question) + 3);
            let words = if room > 4 { format!(" ({})", one_line(words, room)) } else { String::new() };
            (question + &words, look.bad().add_modifier(Modifier::REVERSED))
        }
        (Overlay::Filter { .. }, _, _) => (format!("/{}_", top.filter()), reversed),
        (_, Some(notice), _) => {
            let style = if notice.bad { look.bad() } else { Style::new() };
            (notice.text.clone(), style)
        }
        (_, None, Link::Lost(reason)) => (format!("reconnecting: {reason}"), look.bad()),
        (Overlay::Log(log), None, _) => {
            let source = &log.source;
            let whose = source.container.as_ref().unwrap_or(&source.application);
            let paused = if log.back > 0 { "  End follows" } else { "" };
            let words = format!("{} of {whose}  {}{paused}  o other  Esc back", source.file, log.status);
            (words, reversed)
        }
        (Overlay::Details { .. } | Overlay::Help, None, _) => ("Esc back  l log  K kill  q".to_owned(), reversed),
        (Overlay::None, None, _) if top.view == View::Containers && !top.silent.is_empty() => {
            (format!("not asked: {}", top.silent.join("; ")), look.bad())
        }
        (Overlay::None, None, _) if top.view == View::Containers && top.of.is_none() => {
            ("choose an application with 1 and c to see its containers".to_owned(), look.bad())
        }
        (Overlay::None, None, _) => (
            "q quit  ? help  Enter details  c containers  l log  K kill  / filter  s sort  r reverse  a ended  p pause"
                .to_owned(),
            reversed,
        ),
    };
    bar(buffer, area, row, &text, style);
}
