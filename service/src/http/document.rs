//! The documents that YARN's REST answers: one tree, written as JSON or as XML.
//!
//! The JSON has the shape that Hadoop 3.3 gives it (Jersey's "natural" notation over JAXB): a list
//! is an array even with one element and is left out when it is empty, an element without content
//! is `{}`, a Java map repeats the key `entry`, and an `xsi:type` is the first member `type`.

use std::fmt::Write as _;

/// What an answer is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Xml,
}

impl Format {
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json;charset=utf-8",
            Format::Xml => "application/xml;charset=utf-8",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    /// Java's `int` and `long`.
    Number(i64),
    Float(f32),
    Flag(bool),
    Element(Element),
    List(Vec<Value>),
    /// A Java map. Its values are strings in JSON, whatever they are in Java.
    Map(Vec<(String, String)>),
}

/// Fields in the order in which YARN writes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Element {
    /// `xsi:type`.
    kind: Option<&'static str>,
    fields: Vec<(&'static str, Value)>,
}

impl Element {
    #[must_use]
    pub fn new() -> Element {
        Element::default()
    }

    #[must_use]
    pub fn of_kind(kind: &'static str) -> Element {
        Element {
            kind: Some(kind),
            fields: Vec::new(),
        }
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Element {
        self.fields.push((name, value.into()));
        self
    }

    /// A null field is not written.
    #[must_use]
    pub fn maybe(self, name: &'static str, value: Option<impl Into<Value>>) -> Element {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Without the fields that `unwanted` names.
    #[must_use]
    pub fn without(mut self, unwanted: &[&str]) -> Element {
        self.fields.retain(|(name, _)| !unwanted.contains(name));
        self
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Value {
        Value::Number(number.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Number(number.into())
    }
}

/// Java has no larger ones.
impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f32> for Value {
    fn from(number: f32) -> Value {
        Value::Float(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Flag(flag)
    }
}

impl From<Element> for Value {
    fn from(element: Element) -> Value {
        Value::Element(element)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Value {
        Value::List(values.into_iter().map(Into::into).collect())
    }
}

const XML_HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>"#;

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    root: &'static str,
    /// JSON has the root's name as its only member, too.
    wrapped: bool,
    element: Element,
}

impl Document {
    #[must_use]
    pub fn new(root: &'static str, element: Element) -> Document {
        Document {
            root,
            wrapped: true,
            element,
        }
    }

    /// Those that YARN writes without the root's name in JSON.
    #[must_use]
    pub fn bare(root: &'static str, element: Element) -> Document {
        Document {
            wrapped: false,
            ..Document::new(root, element)
        }
    }

    #[must_use]
    pub fn write(&self, format: Format) -> String {
        let mut text = String::new();
        match format {
            Format::Json if self.wrapped => {
                text.push('{');
                push_json_text(&mut text, self.root);
                text.push(':');
                push_json_element(&mut text, &self.element);
                text.push('}');
            }
            Format::Json => push_json_element(&mut text, &self.element),
            Format::Xml => {
                text.push_str(XML_HEAD);
                push_xml_element(&mut text, self.root, &self.element);
            }
        }
        text
    }
}

/// A document that is one long list, in pieces: nobody holds all of it at once.
#[derive(Clone, Copy, Debug)]
pub struct ListWriter {
    format: Format,
    root: &'static str,
    row: &'static str,
    rows: usize,
}

impl ListWriter {
    #[must_use]
    pub fn new(format: Format, root: &'static str, row: &'static str) -> ListWriter {
        ListWriter {
            format,
            root,
            row,
            rows: 0,
        }
    }

    pub fn push(&mut self, text: &mut String, row: &Element) {
        match self.format {
            Format::Json => {
                if self.rows == 0 {
                    // A String takes every write.
                    let _ = write!(text, r#"{{"{}":{{"{}":["#, self.root, self.row);
                } else {
                    text.push(',');
                }
                push_json_element(text, row);
            }
            Format::Xml => {
                if self.rows == 0 {
                    let _ = write!(text, "{XML_HEAD}<{}>", self.root);
                }
                push_xml_element(text, self.row, row);
            }
        }
        self.rows += 1;
    }

    pub fn finish(self, text: &mut String) {
        if self.rows == 0 {
            text.push_str(&Document::new(self.root, Element::new()).write(self.format));
            return;
        }
        match self.format {
            Format::Json => text.push_str("]}}"),
            Format::Xml => {
                let _ = write!(text, "</{}>", self.root);
            }
        }
    }
}

fn push_json_text(text: &mut String, value: &str) {
    text.push_str(&serde_json::Value::from(value).to_string());
}

fn push_json_element(text: &mut String, element: &Element) {
    text.push('{');
    let mut first = true;
    let mut next = |text: &mut String, name: &str| {
        if !std::mem::take(&mut first) {
            text.push(',');
        }
        push_json_text(text, name);
        text.push(':');
    };
    if let Some(kind) = element.kind {
        next(text, "type");
        push_json_text(text, kind);
    }
    for (name, value) in &element.fields {
        if !matches!(value, Value::List(values) if values.is_empty()) {
            next(text, name);
            push_json_value(text, value);
        }
    }
    text.push('}');
}

fn push_json_value(text: &mut String, value: &Value) {
    match value {
        Value::Text(value) => push_json_text(text, value),
        Value::Number(_) | Value::Float(_) | Value::Flag(_) => push_plain(text, value),
        Value::Element(element) => push_json_element(text, element),
        Value::List(values) => {
            text.push('[');
            for (place, value) in values.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                push_json_value(text, value);
            }
            text.push(']');
        }
        Value::Map(entries) => {
            text.push('{');
            for (place, (key, value)) in entries.iter().enumerate() {
                text.push_str(if place > 0 {
                    r#","entry":{"key":"#
                } else {
                    r#""entry":{"key":"#
                });
                push_json_text(text, key);
                text.push_str(r#","value":"#);
                push_json_text(text, value);
                text.push('}');
            }
            text.push('}');
        }
    }
}

/// Written alike in both formats.
fn push_plain(text: &mut String, value: &Value) {
    match value {
        Value::Number(number) => {
            let _ = write!(text, "{number}");
        }
        // Neither JSON nor readers of YARN's numbers know NaN and infinity.
        Value::Float(number) if number.is_finite() => {
            let _ = write!(text, "{number:?}");
        }
        Value::Float(_) => text.push_str("0.0"),
        Value::Flag(flag) => {
            let _ = write!(text, "{flag}");
        }
        Value::Text(_) | Value::Element(_) | Value::List(_) | Value::Map(_) => {}
    }
}

fn push_xml_element(text: &mut String, name: &str, element: &Element) {
    text.push('<');
    text.push_str(name);
    if let Some(kind) = element.kind {
        text.push_str(r#" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type=""#);
        push_xml_text(text, kind);
        text.push('"');
    }
    if element.fields.is_empty() {
        text.push_str("/>");
        return;
    }
    text.push('>');
    for (name, value) in &element.fields {
        push_xml_value(text, name, value);
    }
    let _ = write!(text, "</{name}>");
}

fn push_xml_value(text: &mut String, name: &str, value: &Value) {
    match value {
        Value::Element(element) => push_xml_element(text, name, element),
        Value::List(values) => values.iter().for_each(|v| push_xml_value(text, name, v)),
        Value::Text(_) | Value::Number(_) | Value::Float(_) | Value::Flag(_) | Value::Map(_) => {
            let _ = write!(text, "<{name}>");
            match value {
                Value::Text(value) => push_xml_text(text, value),
                Value::Map(entries) => {
                    for (key, value) in entries {
                        text.push_str("<entry><key>");
                        push_xml_text(text, key);
                        text.push_str("</key><value>");
                        push_xml_text(text, value);
                        text.push_str("</value></entry>");
                    }
                }
                Value::Number(_) | Value::Float(_) | Value::Flag(_) => push_plain(text, value),
                Value::Element(_) | Value::List(_) => {}
            }
            let _ = write!(text, "</{name}>");
        }
    }
}

/// Escaped for text and for attributes. Characters that XML 1.0 cannot hold are replaced.
pub fn push_xml_text(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            '\r' => text.push_str("&#13;"),
            '\t' | '\n' => text.push(c),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => text.push('\u{fffd}'),
            _ => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Element {
        Element::of_kind("leaf")
            .with("text", "a<b>&\"\u{1}")
            .with("number", 7_u64)
            .with("float", 100.0_f32)
            .with("flag", false)
            .maybe("null", None::<i32>)
            .with("empty", Element::new())
            .with("none", Vec::<String>::new())
            .with("one", vec!["x"])
            .with(
                "map",
                Value::Map(vec![
                    ("m".to_owned(), "1".to_owned()),
                    ("v".to_owned(), "2".to_owned()),
                ]),
            )
    }

    #[test]
    fn json_as_jersey_writes_it() {
        let text = Document::new("root", sample()).write(Format::Json);
        assert_eq!(
            text,
            concat!(
                r#"{"root":{"type":"leaf","text":"a<b>&\"\u0001","number":7,"float":100.0,"#,
                r#""flag":false,"empty":{},"one":["x"],"#,
                r#""map":{"entry":{"key":"m","value":"1"},"entry":{"key":"v","value":"2"}}}}"#
            )
        );
        assert_eq!(
            Document::bare("root", Element::new().with("a", 1)).write(Format::Json),
            r#"{"a":1}"#
        );
    }

    #[test]
    fn xml_as_jaxb_writes_it() {
        let text = Document::new("root", sample()).write(Format::Xml);
        assert_eq!(
            text,
            concat!(
                r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>"#,
                r#"<root xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="leaf">"#,
                "<text>a&lt;b&gt;&amp;&quot;\u{fffd}</text><number>7</number><float>100.0</float>",
                "<flag>false</flag><empty/><one>x</one>",
                "<map><entry><key>m</key><value>1</value></entry>",
                "<entry><key>v</key><value>2</value></entry></map></root>"
            )
        );
    }

    #[test]
    fn a_list_in_pieces_is_the_list() {
        for format in [Format::Json, Format::Xml] {
            for rows in 0..3 {
                let elements = vec![Element::new().with("id", "x"); rows];
                let mut whole = Element::new();
                if rows > 0 {
                    whole = whole.with("app", elements.clone());
                }
                let mut text = String::new();
                let mut writer = ListWriter::new(format, "apps", "app");
                for element in &elements {
                    writer.push(&mut text, element);
                }
                writer.finish(&mut text);
                assert_eq!(text, Document::new("apps", whole).write(format));
            }
        }
    }

    #[test]
    fn a_number_that_java_has_not_is_the_largest() {
        assert_eq!(Value::from(u64::MAX), Value::Number(i64::MAX));
        let text = Document::bare("r", Element::new().with("f", f32::NAN)).write(Format::Json);
        assert_eq!(text, r#"{"f":0.0}"#);
    }
}
