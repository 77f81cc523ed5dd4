//! The least JSON that the start and exit files need: one flat object of strings and integers.
//!
//! The launcher stays free of serde because its size is what every launch pays for.

use std::fmt::Write as _;

/// A value of a flat object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
    Null,
}

/// Writes a flat object on one line.
pub(crate) fn write(fields: &[(&str, Value)]) -> String {
    let mut out = String::with_capacity(256);
    for (index, (name, value)) in fields.iter().enumerate() {
        out.push(if index == 0 { '{' } else { ',' });
        quote(&mut out, name);
        out.push(':');
        match value {
            Value::Text(text) => quote(&mut out, text),
            Value::Number(number) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "{number}");
            }
            Value::Null => out.push_str("null"),
        }
    }
    out.push_str("}\n");
    out
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Reads a flat object; `None` if it is anything else.
pub(crate) fn read(text: &str) -> Option<Vec<(String, Value)>> {
    let mut reader = Reader { rest: text.trim() };
    let mut fields = Vec::new();
    reader.take('{')?;
    if reader.peek() == Some('}') {
        reader.take('}')?;
        return reader.rest.is_empty().then_some(fields);
    }
    loop {
        let name = reader.string()?;
        reader.take(':')?;
        let value = reader.value()?;
        fields.push((name, value));
        match reader.next()? {
            ',' => {}
            '}' => return reader.rest.trim().is_empty().then_some(fields),
            _ => return None,
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn take(&mut self, wanted: char) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn value(&mut self) -> Option<Value> {
        match self.peek()? {
            '"' => self.string().map(Value::Text),
            'n' => {
                self.rest = self.rest.strip_prefix("null")?;
                Some(Value::Null)
            }
            _ => {
                let end = self
                    .rest
                    .find(|c: char| c != '-' && !c.is_ascii_digit())
                    .unwrap_or(self.rest.len());
                let (digits, rest) = self.rest.split_at(end);
                self.rest = rest;
                digits.parse().ok().map(Value::Number)
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        self.take('"')?;
        let mut out = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(out);
                }
                '\\' => match chars.next()?.1 {
                    'n' => out.push('\n'),
                    'r' => out.push('\r'),
                    't' => out.push('\t'),
                    'u' => {
                        let mut code = 0_u32;
                        for _ in 0..4 {
                            code = code * 16 + chars.next()?.1.to_digit(16)?;
                        }
                        out.push(char::from_u32(code)?);
                    }
                    c => out.push(c),
                },
                c => out.push(c),
            }
        }
        None
    }
}

/// The integer field `name`.
pub(crate) fn number(fields: &[(String, Value)], name: &str) -> Option<i64> {
    fields
        .iter()
        .find(|(field, _)| field == name)
        .and_then(|(_, value)| match value {
            Value::Number(number) => Some(*number),
            Value::Text(_) | Value::Null => None,
        })
}

/// The text field `name`.
pub(crate) fn text<'a>(fields: &'a [(String, Value)], name: &str) -> Option<&'a str> {
    fields
        .iter()
        .find(|(field, _)| field == name)
        .and_then(|(_, value)| match value {
            Value::Text(text) => Some(text.as_str()),
            Value::Number(_) | Value::Null => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_it_writes() {
        let text = write(&[
            ("a", Value::Number(-104)),
            ("b", Value::Text("x\"\\\n\u{1}é".into())),
        ]);
        assert_eq!(text, "{\"a\":-104,\"b\":\"x\\\"\\\\\\n\\u0001é\"}\n");
        let fields = read(&text).unwrap();
        assert_eq!(number(&fields, "a"), Some(-104));
        assert_eq!(super::text(&fields, "b"), Some("x\"\\\n\u{1}é"));
        assert_eq!(number(&fields, "b"), None);
    }

    #[test]
    fn torn_files_are_refused() {
        let text = write(&[("a", Value::Number(1)), ("b", Value::Text("xyz".into()))]);
        for cut in 0..text.trim_end().len() {
            assert_eq!(read(&text[..cut]), None, "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in ".*") {
            let _ = read(&text);
        }

        #[test]
        fn any_value_comes_back(value in ".*", number in any::<i64>()) {
            let written = write(&[
                ("v", Value::Text(value.clone())), ("n", Value::Number(number)), ("z", Value::Null),
            ]);
            let fields = read(&written).unwrap();
            prop_assert_eq!(super::text(&fields, "v"), Some(value.as_str()));
            prop_assert_eq!(super::number(&fields, "n"), Some(number));
        }
    }
}
