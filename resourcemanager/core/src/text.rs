//! Texts that are kept or sent: bounded, whoever wrote them.

use std::sync::Arc;

use bobbin_types::DIAGNOSTICS_BYTES_MAX;

/// The text, cut with a mark at [`DIAGNOSTICS_BYTES_MAX`].
pub(crate) fn clip(text: &str) -> Arc<str> {
    const MARK: &str = " [cut]";
    if text.len() <= DIAGNOSTICS_BYTES_MAX {
        return Arc::from(text);
    }
    let mut end = DIAGNOSTICS_BYTES_MAX - MARK.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Arc::from(format!("{}{MARK}", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_at_a_character() {
        let long = "ä".repeat(DIAGNOSTICS_BYTES_MAX);
        let cut = clip(&long);
        assert!(cut.len() <= DIAGNOSTICS_BYTES_MAX && cut.ends_with(" [cut]"));
        assert_eq!(&*clip("short"), "short");
    }
}
