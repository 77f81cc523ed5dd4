//! What YARN's clients leave to the node in commands and environments: `{{NAME}}`, `<CPS>`, `<LOG_DIR>`.
//!
//! The result stands between double quotes in the launch script, where the shell still expands `$NAME`.
//! A quote or a backtick that its author has not escaped is escaped here: the quotes always hold.
//!
//! Source: `ContainerLaunch.expandEnvironment`, `ApplicationConstants`. YARN replaces `{{` and `}}`
//! wherever they stand; here only around a name, so that nested braces (of JSON, say) stay whole.

use std::collections::BTreeSet;

/// What `<ADD_OPENS>` becomes. Java 8 has no such options and is told to pass over them.
/// Source: `ContainerLaunch.ADDITIONAL_JDK17_PLUS_OPTIONS`.
const ADD_OPENS: &str = "-XX:+IgnoreUnrecognizedVMOptions \
    --add-opens=java.base/java.lang=ALL-UNNAMED \
    --add-exports=java.base/sun.net.dns=ALL-UNNAMED \
    --add-exports=java.base/sun.net.util=ALL-UNNAMED";

/// Whether a shell can export it.
pub(crate) fn is_shell_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The name that `text` starts with, if any.
fn leading_name(text: &str) -> &str {
    let length = text
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
        .count();
    let name = &text[..length];
    if is_shell_name(name) { name } else { "" }
}

/// The name in `{{NAME}}` if `text` starts with that.
fn braced_name(text: &str) -> Option<&str> {
    let name = leading_name(text.strip_prefix("{{")?);
    let is_closed = text[2 + name.len()..].starts_with("}}");
    (!name.is_empty() && is_closed).then_some(name)
}

/// A text that means itself between double quotes.
pub(crate) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '"' | '$' | '`') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// An author's text for a place between double quotes.
pub(crate) fn expand(text: &str, log_dir: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    // Whether the next character is escaped by its author.
    let mut escaped = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (taken, replaced) = if let Some(name) = braced_name(rest) {
            (name.len() + 4, format!("${{{name}}}"))
        } else if rest.starts_with("<CPS>") {
            (5, ":".to_owned())
        } else if rest.starts_with("<LOG_DIR>") {
            (9, literal(log_dir))
        } else if rest.starts_with("<ADD_OPENS>") {
            (11, ADD_OPENS.to_owned())
        } else {
            let needs_escape = matches!(c, '"' | '`') && !escaped;
            let replaced = if needs_escape {
                format!("\\{c}")
            } else {
                c.to_string()
            };
            (c.len_utf8(), replaced)
        };
        escaped = c == '\\' && !escaped;
        out.push_str(&replaced);
        rest = &rest[taken..];
    }
    if escaped {
        // It would escape the closing quote.
        out.push('\\');
    }
    out
}

/// The names that a value refers to: `$NAME`, `${NAME...`, `{{NAME}}`.
pub(crate) fn references(value: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (at, _) in value.match_indices('$') {
        let rest = &value[at + 1..];
        names.insert(leading_name(rest.strip_prefix('{').unwrap_or(rest)));
    }
    for (at, _) in value.match_indices("{{") {
        names.extend(braced_name(&value[at..]));
    }
    names.remove("");
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(expand(text, "/log dir/$x"), expected, "{text}");
    }

    #[test]
    fn what_yarn_expands() {
        check("{{JAVA_HOME}}/bin/java", "${JAVA_HOME}/bin/java");
        check("{{PWD}}<CPS>{{PWD}}x", "${PWD}:${PWD}x");
        check("1><LOG_DIR>/stdout", "1>/log dir/\\$x/stdout");
        check("$PWD/tmp ${HOME} $(id)", "$PWD/tmp ${HOME} $(id)");
        check(r#"{"a":{"b":{}}}"#, r#"{\"a\":{\"b\":{}}}"#);
        check("{{not a name}} {{}} {{1}}", "{{not a name}} {{}} {{1}}");
        check("{{{PWD}}}", "{${PWD}}");
        assert!(expand("<ADD_OPENS>", "/l").contains("--add-opens=java.base/java.lang"));
    }

    #[test]
    fn quotes_hold_and_escapes_of_the_author_stay() {
        check(r#"say "hi""#, r#"say \"hi\""#);
        check(r#"'\"'"#, r#"'\"'"#);
        check(r#"a\\"b"#, r#"a\\\"b"#);
        check("`id`", "\\`id\\`");
        check(r"\`", r"\`");
        check(r"end\", r"end\\");
        check(r"end\\", r"end\\");
        check(
            "-XX:OnOutOfMemoryError='kill %p'",
            "-XX:OnOutOfMemoryError='kill %p'",
        );
    }

    #[test]
    fn names_and_references() {
        for good in ["A", "_", "PATH_2"] {
            assert!(is_shell_name(good), "{good}");
        }
        for bad in ["", "2A", "A.B", "A B", "A;id", "A\n", "é", "A[0]"] {
            assert!(!is_shell_name(bad), "{bad}");
        }
        let found = references("$A:${B:-x}:{{C}}$$ $1 \\$D {{no no}}");
        assert_eq!(found, BTreeSet::from(["A", "B", "C", "D"]));
    }

    proptest! {
        /// No text leaves its quotes: every quote in it has an odd number of backslashes before it, and
        /// it ends with an even one.
        #[test]
        fn no_text_leaves_its_quotes(text in "[a{}<>CPS\\\\\"`$ é]{0,40}") {
            let out = expand(&text, "/logs");
            let mut escaped = false;
            for c in out.chars() {
                prop_assert!(c != '"' || escaped, "{out}");
                escaped = c == '\\' && !escaped;
            }
            prop_assert!(!escaped, "{out}");
        }

        #[test]
        fn a_literal_has_nothing_to_expand(text in "\\PC{0,40}") {
            let out = literal(&text);
            let mut escaped = false;
            for c in out.chars() {
                prop_assert!(escaped || !matches!(c, '"' | '$' | '`'), "{out}");
                escaped = c == '\\' && !escaped;
            }
            prop_assert!(!escaped);
        }
    }
}
