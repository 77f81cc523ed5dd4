//! The end of a log as it is written: a bounded number of lines of bounded length.

use std::collections::VecDeque;

/// Lines that are kept; older ones are dropped.
const LINES_MAX: usize = 2_000;
/// Bytes of a line; the rest of it is dropped.
const LINE_BYTES_MAX: usize = 4_096;

/// Whose log it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogSource {
    pub(super) application: String,
    /// Without one the driver's.
    pub(super) container: Option<String>,
    pub(super) file: &'static str,
}

#[derive(Debug)]
pub(super) struct LogView {
    pub(super) source: LogSource,
    lines: VecDeque<String>,
    /// The line whose end has not come yet.
    open: Vec<u8>,
    /// Lines above the last one that the screen ends with; 0 follows the end.
    pub(super) back: usize,
    /// What hinders the following, or that the log has ended.
    pub(super) status: String,
}

impl LogView {
    pub(super) fn new(application: String, container: Option<String>) -> LogView {
        let file = "stdout";
        LogView {
            source: LogSource {
                application,
                container,
                file,
            },
            lines: VecDeque::new(),
            open: Vec::new(),
            back: 0,
            status: String::new(),
        }
    }

    /// The other of stdout and stderr.
    pub(super) fn turn(&mut self) {
        let LogSource {
            application,
            container,
            file,
        } = self.source.clone();
        let other = if file == "stdout" { "stderr" } else { "stdout" };
        *self = LogView::new(application, container);
        self.source.file = other;
    }

    pub(super) fn on_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line();
            } else if self.open.len() < LINE_BYTES_MAX {
                self.open.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.open);
        let line = without_sequences(line.trim_end_matches('\r'));
        self.open.clear();
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        // Who reads further up goes on reading the same lines.
        if self.back > 0 {
            self.back = (self.back + 1).min(self.lines.len());
        }
    }

    /// The lines that a screen of `height` rows shows.
    pub(super) fn screen(&self, height: usize) -> Vec<String> {
        let open = (!self.open.is_empty() && self.back == 0)
            .then(|| without_sequences(&String::from_utf8_lossy(&self.open)));
        let whole = height.saturating_sub(usize::from(open.is_some()));
        let end = self
            .lines
            .len()
            .saturating_sub(self.back)
            .max(whole.min(self.lines.len()));
        let shown = self.lines.range(end.saturating_sub(whole)..end).cloned();
        shown.chain(open).collect()
    }

    /// Moves up (negative) or down.
    pub(super) fn scroll(&mut self, rows: isize) {
        self.back = self
            .back
            .saturating_add_signed(rows.saturating_neg())
            .min(self.lines.len());
    }
}

/// A line without what would color it or move the cursor on a terminal.
///
/// Source: ECMA-48, control sequences: ESC [, parameters, one final byte.
fn without_sequences(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        text.push_str(before);
        let end = after.find(|c: char| ('\u{40}'..='\u{7e}').contains(&c));
        rest = end.and_then(|at| after.get(at + 1..)).unwrap_or("");
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> LogView {
        LogView::new("application_1_0001".to_owned(), None)
    }

    #[test]
    fn bytes_become_lines() {
        let mut log = view();
        log.on_bytes(b"one\ntw");
        assert_eq!(log.screen(9), ["one", "tw"]);
        log.on_bytes(b"o\r\n\x1b[31mred\x1b[0m \xff\n");
        assert_eq!(log.screen(9), ["one", "two", "red \u{fffd}"]);
        assert_eq!(log.screen(2), ["two", "red \u{fffd}"]);
        assert_eq!(log.screen(0), [""; 0]);
    }

    #[test]
    fn scrolled_up_it_stays_where_it_is() {
        let mut log = view();
        for n in 0..10 {
            log.on_bytes(format!("{n}\n").as_bytes());
        }
        log.scroll(-3);
        assert_eq!(log.screen(2), ["5", "6"]);
        log.on_bytes(b"10\n11");
        assert_eq!(log.screen(2), ["5", "6"]);
        log.scroll(-1000);
        assert_eq!(log.screen(2), ["0", "1"]);
        log.scroll(1000);
        assert_eq!(log.screen(2), ["10", "11"]);
    }

    #[test]
    fn it_takes_only_so_much() {
        let mut log = view();
        log.on_bytes(&vec![b'x'; 1 << 20]);
        assert_eq!(log.screen(1)[0].len(), LINE_BYTES_MAX);
        for n in 0..LINES_MAX * 2 {
            log.on_bytes(format!("\n{n}").as_bytes());
        }
        assert_eq!(log.lines.len(), LINES_MAX);
        assert_eq!(log.screen(1), [(LINES_MAX * 2 - 1).to_string()]);
    }

    #[test]
    fn the_other_file() {
        let mut log = view();
        log.on_bytes(b"x\n");
        log.turn();
        assert_eq!((log.source.file, log.screen(5).len()), ("stderr", 0));
        log.turn();
        assert_eq!(log.source.file, "stdout");
    }
}
