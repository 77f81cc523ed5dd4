//! Texts of others on a terminal: names, tags, diagnostics. Whoever chose them may have meant to drive
//! it, or to make one line look like another.

use unicode_width::UnicodeWidthChar;

/// Stands for what is not shown.
pub(crate) const HIDDEN: char = '\u{FFFD}';

/// Marks that may sit on one letter. More would be drawn over the lines around it.
const MARKS_MAX: u32 = 2;

/// Line breaks and tabs stay; whatever else drives the terminal or turns the reading around does not.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if is_driving(c) => HIDDEN,
            c => c,
        })
        .collect()
}

/// One line of at most `columns` columns of the terminal; what is cut off leaves a mark.
pub(crate) fn one_line(text: &str, columns: usize) -> String {
    let mut line = String::new();
    let (mut used, mut marks) = (0_usize, 0_u32);
    // Where the mark would go if more came, and how far it reached there.
    let (mut cut, mut cut_used) = (0, 0);
    for c in text.chars() {
        let c = match c {
            '\n' | '\t' => ' ',
            c if is_driving(c) => HIDDEN,
            c => c,
        };
        let width = c.width().unwrap_or(1);
        if width == 0 {
            // A mark without a letter would be drawn on what stands before the text.
            marks += 1;
            if marks <= MARKS_MAX && !line.is_empty() {
                line.push(c);
            }
            continue;
        }
        marks = 0;
        if used < columns {
            (cut, cut_used) = (line.len(), used);
        }
        if used + width > columns {
            line.truncate(cut);
            if cut_used < columns {
                line.push('…');
            }
            return line;
        }
        line.push(c);
        used += width;
    }
    line
}

/// Columns that a text takes which [`one_line`] made.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// A text's lines, broken at `columns` columns.
pub(crate) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let (mut piece, mut used) = (String::new(), 0);
        for c in line.chars() {
            let width = c.width().unwrap_or(1);
            if used + width > columns && !piece.is_empty() {
                lines.push(std::mem::take(&mut piece));
                used = 0;
            }
            piece.push(c);
            used += width;
        }
        lines.push(piece);
    }
    lines
}

/// Serialized JSON or YAML as a terminal may see it: what drives one is written as JSON and YAML both
/// escape it inside a string, where alone it can be.
pub(crate) fn escaped(serialized: &str) -> String {
    if !serialized.chars().any(|c| c != '\n' && is_driving(c)) {
        return serialized.to_owned();
    }
    let mut text = String::with_capacity(serialized.len() + 16);
    for c in serialized.chars() {
        if c == '\n' || !is_driving(c) {
            text.push(c);
            continue;
        }
        let mut units = [0_u16; 2];
        for unit in c.encode_utf16(&mut units) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    }
    text
}

/// Control characters, and those of Unicode's that are not seen but move or turn what is.
///
/// Source: Unicode's general categories Cc, Cf, Zl and Zp.
fn is_driving(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{600}'..='\u{605}' | '\u{61C}' | '\u{6DD}' | '\u{70F}'
            | '\u{890}' | '\u{891}' | '\u{8E2}' | '\u{180E}' | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
            | '\u{FFF9}'..='\u{FFFB}' | '\u{110BD}' | '\u{110CD}' | '\u{13430}'..='\u{1343F}'
            | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0001}'
            | '\u{E0020}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a\u{FFFD}[31mb\nc");
        for driving in [
            "\u{9b}2J", "\u{7f}", "\r", "\u{202e}", "\u{200b}", "\u{2028}", "\u{85}",
        ] {
            assert!(printable(driving).starts_with(HIDDEN), "{driving:?}");
            assert!(one_line(driving, 9).starts_with(HIDDEN), "{driving:?}");
        }
        assert_eq!(
            printable("żółw 日本 e\u{301} 🦀\tx"),
            "żółw 日本 e\u{301} 🦀\tx"
        );
    }

    #[test]
    fn lines_are_as_wide_as_they_look() {
        for (text, columns, line) in [
            ("flights", 7, "flights"),
            ("flights", 6, "fligh…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("日本", 1, "…"),
            ("a\nb\tc", 9, "a b c"),
            ("abc", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(one_line(text, columns), line, "{text} {columns}");
            assert!(
                super::columns(&one_line(text, columns)) <= columns,
                "{text}"
            );
        }
    }

    #[test]
    fn long_lines_are_broken() {
        assert_eq!(wrapped("abcde\n\nxy", 2), ["ab", "cd", "e", "", "xy"]);
        assert_eq!(wrapped("日本", 3), ["日", "本"]);
        assert_eq!(wrapped("ab", 0), ["a", "b"]);
    }

    #[test]
    fn marks_do_not_pile_up() {
        let tower = format!("a{}b", "\u{301}".repeat(500));
        assert_eq!(one_line(&tower, 10), "a\u{301}\u{301}b");
        assert_eq!(one_line("\u{301}a", 10), "a");
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({"name": "a\u{9b}2J\u{7f}\u{202e}\u{e0041}\u{1b}c\n"});
        let text = escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.chars().any(|c| c != '\n' && is_driving(c)), "{text}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
