//! The body of a request, JSON or XML, read into one kind of tree.
//!
//! In JSON a list with one element may be written without its brackets, as Hadoop's clients do; in
//! XML an element is simply repeated. Both become children of the same name.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, header};
use quick_xml::events::Event;

use super::problem::Problem;

/// Bytes of a body. A submission's environment and files fit.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Objects within objects.
const DEPTH_MAX: usize = 16;
/// Texts and objects of one body.
const NODES_MAX: usize = 100_000;

/// One value of the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Input {
    text: String,
    children: Vec<(String, Input)>,
}

impl Input {
    /// The first child of that name; one that is empty in every way is not there.
    pub(super) fn child<'a>(&'a self, name: &'a str) -> Option<&'a Input> {
        self.all(name)
            .find(|child| !child.text.is_empty() || !child.children.is_empty())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Input> {
        self.children
            .iter()
            .filter(move |(own, _)| own == name)
            .map(|(_, child)| child)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The text of the child of that name.
    pub(super) fn text_of<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.child(name).map(Input::text)
    }

    /// The number, flag... in the child of that name.
    ///
    /// # Errors
    /// It is there and is none.
    pub(super) fn parse<T: std::str::FromStr>(
        &self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, Problem> {
        self.text_of(name)
            .map(|text| {
                text.trim().parse().map_err(|_| {
                    let shown: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
                    Problem::BadRequest(format!("{name}: '{shown}' is not {expected}"))
                })
            })
            .transpose()
    }

    /// The entries of a Java map: key and value.
    ///
    /// # Errors
    /// One without a key.
    pub(super) fn entries(&self, name: &'static str) -> Result<Vec<(&str, &Input)>, Problem> {
        const EMPTY: &Input = &Input {
            text: String::new(),
            children: Vec::new(),
        };
        let Some(map) = self.child(name) else {
            return Ok(Vec::new());
        };
        map.all("entry")
            .map(|entry| match entry.text_of("key") {
                Some(key) => Ok((key, entry.all("value").next().unwrap_or(EMPTY))),
                None => Err(Problem::BadRequest(format!("{name}: an entry has no key"))),
            })
            .collect()
    }
}

/// Reads a whole body as its content type says; `root` is the XML root's name, which JSON may have
/// as its only member.
///
/// # Errors
/// Too large, cut off, of another type, malformed.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    root: &'static str,
) -> Result<Input, Problem> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let is_json = match essence {
        "application/json" => true,
        "application/xml" | "text/xml" => false,
        _ => return Err(Problem::UnsupportedMediaType),
    };
    let bytes = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        Problem::BadRequest(format!(
            "the body was cut off, or has more than {BODY_BYTES_MAX} bytes"
        ))
    })?;
    let input = if is_json {
        json(&bytes)?
    } else {
        xml(&bytes, root)?
    };
    // `{"app": {...}}` and `{...}` are both sent.
    Ok(match input.children.as_slice() {
        [(name, only)] if is_json && name == root => only.clone(),
        _ => input,
    })
}

fn malformed(words: impl std::fmt::Display) -> Problem {
    Problem::BadRequest(format!("the body cannot be read: {words}"))
}

fn json(bytes: &[u8]) -> Result<Input, Problem> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(malformed)?;
    let mut input = Input::default();
    let mut left = NODES_MAX;
    match value {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                push_json(&mut input, name, value, 1, &mut left)?;
            }
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_)
        | serde_json::Value::Array(_) => return Err(malformed("it is not an object")),
    }
    Ok(input)
}

fn push_json(
    parent: &mut Input,
    name: String,
    value: serde_json::Value,
    depth: usize,
    left: &mut usize,
) -> Result<(), Problem> {
    take_one(left)?;
    let mut input = Input::default();
    match value {
        serde_json::Value::Null => return Ok(()),
        serde_json::Value::Bool(flag) => input.text = flag.to_string(),
        serde_json::Value::Number(number) => input.text = number.to_string(),
        serde_json::Value::String(text) => input.text = text,
        serde_json::Value::Array(values) => {
            if depth == DEPTH_MAX {
                return Err(malformed("it is nested too deeply"));
            }
            for value in values {
                push_json(parent, name.clone(), value, depth + 1, left)?;
            }
            return Ok(());
        }
        serde_json::Value::Object(members) => {
            if depth == DEPTH_MAX {
                return Err(malformed("it is nested too deeply"));
            }
            for (name, value) in members {
                push_json(&mut input, name, value, depth + 1, left)?;
            }
        }
    }
    parent.children.push((name, input));
    Ok(())
}

fn take_one(left: &mut usize) -> Result<(), Problem> {
    *left = left
        .checked_sub(1)
        .ok_or_else(|| malformed(format!("it has more than {NODES_MAX} values")))?;
    Ok(())
}

/// No entities but XML's own five are known, and no document type is taken: nothing expands.
fn xml(bytes: &[u8], root: &str) -> Result<Input, Problem> {
    let text = std::str::from_utf8(bytes).map_err(malformed)?;
    let mut reader = quick_xml::Reader::from_str(text);
    let mut open: Vec<(String, Input)> = Vec::new();
    let mut left = NODES_MAX;
    loop {
        let event = reader.read_event().map_err(malformed)?;
        match event {
            Event::Start(start) => {
                take_one(&mut left)?;
                if open.len() == DEPTH_MAX {
                    return Err(malformed("it is nested too deeply"));
                }
                open.push((start.local_name().as_ref().to_owned(), Input::default()));
            }
            Event::Empty(start) => {
                take_one(&mut left)?;
                let name = start.local_name().as_ref().to_owned();
                match open.last_mut() {
                    Some((_, parent)) => parent.children.push((name, Input::default())),
                    None => return finished(&name, Input::default(), root),
                }
            }
            Event::End(_) => {
                let (name, mut input) = open.pop().ok_or_else(|| malformed("an end too many"))?;
                // The blanks that indent children are not content.
                if !input.children.is_empty() {
                    input.text.clear();
                }
                match open.last_mut() {
                    Some((_, parent)) => parent.children.push((name, input)),
                    None => return finished(&name, input, root),
                }
            }
            Event::Text(text) => push_text(&mut open, &text.xml10_content()),
            Event::CData(text) => push_text(&mut open, &text.xml10_content()),
            Event::GeneralRef(reference) => {
                let resolved = match reference.resolve_char_ref().map_err(malformed)? {
                    Some(c) => c.to_string(),
                    None => {
                        let name: &str = &reference;
                        quick_xml::escape::resolve_predefined_entity(name)
                            .ok_or_else(|| malformed(format!("the entity &{name}; is not known")))?
                            .to_owned()
                    }
                };
                push_text(&mut open, &resolved);
            }
            Event::DocType(_) => return Err(malformed("a document type is not taken")),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Eof => return Err(malformed("it ends too early")),
        }
    }
}

fn push_text(open: &mut [(String, Input)], text: &str) {
    if let Some((_, input)) = open.last_mut() {
        input.text.push_str(text);
    }
}

fn finished(name: &str, input: Input, root: &str) -> Result<Input, Problem> {
    if name == root {
        Ok(input)
    } else {
        Err(malformed(format!("<{root}> is expected")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parsed(content_type: &'static str, text: &str) -> Result<Input, String> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static(content_type),
        );
        read(&headers, Body::from(text.to_owned()), "root")
            .await
            .map_err(|problem| problem.to_string())
    }

    #[tokio::test]
    async fn both_forms_are_one() {
        let json = r#"{"a":1,"list":{"x":["1","2"]},"map":{"entry":{"key":"k","value":"v <&"}},"n":null,"f":true}"#;
        let xml = "<?xml version=\"1.0\"?>\n<root>\n <a>1</a><list><x>1</x><x>2</x></list>\
                   <map><entry><key>k</key><value>v &lt;<![CDATA[&]]></value></entry></map><f>true</f>\n</root>";
        let from_json = parsed("application/json; charset=utf-8", json)
            .await
            .unwrap();
        let from_xml = parsed("application/xml", xml).await.unwrap();
        for input in [from_json, from_xml] {
            assert_eq!(input.parse::<u32>("a", "a number").unwrap(), Some(1));
            let list = input.child("list").unwrap();
            assert_eq!(
                list.all("x").map(Input::text).collect::<Vec<_>>(),
                ["1", "2"]
            );
            let entries = input.entries("map").unwrap();
            assert_eq!((entries[0].0, entries[0].1.text()), ("k", "v <&"));
            assert_eq!(input.parse::<bool>("f", "a flag").unwrap(), Some(true));
            assert!(input.parse::<u32>("f", "a number").is_err());
        }
        let wrapped = parsed("application/json", r#"{"root":{"a":"1"}}"#)
            .await
            .unwrap();
        assert_eq!(wrapped.text_of("a"), Some("1"));
    }

    #[tokio::test]
    async fn what_is_no_body_is_refused() {
        let deep = format!("{}{}", "<root>".repeat(40), "</root>".repeat(40));
        for (content_type, text) in [
            ("text/plain", "{}"),
            ("application/json", "[]"),
            ("application/json", "{"),
            ("application/json", ""),
            ("application/xml", "<root>"),
            ("application/xml", "<other/>"),
            ("application/xml", "<root>&evil;</root>"),
            (
                "application/xml",
                "<!DOCTYPE root [<!ENTITY e \"x\">]><root>&e;</root>",
            ),
            ("application/xml", deep.as_str()),
        ] {
            assert!(parsed(content_type, text).await.is_err(), "{text}");
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(40), "}".repeat(40));
        assert!(parsed("application/json", &deep).await.is_err());
        let many = format!("{{\"a\":[{}1]}}", "1,".repeat(NODES_MAX));
        assert!(parsed("application/json", &many).await.is_err());
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        use proptest::prelude::*;
        proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[<>/a&;!\\[\\]\"{}:,1 ]{0,60}")| {
            drop(json(&bytes));
            drop(xml(&bytes, "a"));
            drop(json(text.as_bytes()));
            drop(xml(text.as_bytes(), "a"));
        });
    }
}
