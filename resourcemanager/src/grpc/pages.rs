//! Lists in messages that every client takes.

use bobbin_proto::v1::ApplicationReport;
use bobbin_types::MESSAGE_BYTES_MAX;
use prost::Message;

/// Bytes of a list in one message: a quarter of the limit is left for the rest of it.
const LIST_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 4 * 3;

/// How many of the first rows fit into one message; at least one, so that a list always goes on.
pub(super) fn fitting<T: Message>(rows: &[T]) -> usize {
    let mut bytes = 0;
    let fits = |row: &&T| {
        // Tag and length of the row itself take at most eight bytes more.
        bytes += row.encoded_len() + 8;
        bytes <= LIST_BYTES_MAX
    };
    rows.iter().take_while(fits).count().max(rows.len().min(1))
}

/// The rows, in lists that each fit into one message.
pub(super) fn in_pieces<T: Message>(rows: impl Iterator<Item = T>) -> Vec<Vec<T>> {
    let mut rest: Vec<T> = rows.collect();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let later = rest.split_off(fitting(&rest));
        pieces.push(std::mem::replace(&mut rest, later));
    }
    pieces
}

/// A report that fits into one message: of very many attempts the oldest ones' diagnostics go.
pub(super) fn bounded(mut report: ApplicationReport) -> ApplicationReport {
    let mut excess = report.encoded_len().saturating_sub(LIST_BYTES_MAX);
    for attempt in &mut report.attempts {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(attempt.diagnostics.len());
        attempt.diagnostics.clear();
    }
    report
}

#[cfg(test)]
mod tests {
    use bobbin_proto::v1::{AttemptReport, ContainerStatus};

    use super::*;

    fn row(bytes: usize) -> ContainerStatus {
        ContainerStatus {
            diagnostics: "x".repeat(bytes),
            ..Default::default()
        }
    }

    #[test]
    fn pieces_keep_order_and_fit() {
        assert!(in_pieces(std::iter::empty::<ContainerStatus>()).is_empty());
        let rows: Vec<_> = (0..300).map(|i| row(60_000 + i)).collect();
        let pieces = in_pieces(rows.iter().cloned());
        assert!(pieces.len() > 5, "{}", pieces.len());
        for piece in &pieces {
            let list = bobbin_proto::v1::Completed {
                containers: piece.clone(),
            };
            assert!(list.encoded_len() < MESSAGE_BYTES_MAX);
        }
        assert_eq!(pieces.concat(), rows);
    }

    #[test]
    fn one_row_always_goes() {
        assert_eq!(fitting(&[row(LIST_BYTES_MAX * 2), row(1)]), 1);
    }

    #[test]
    fn of_many_attempts_the_newest_keep_their_words() {
        let attempt = |n| AttemptReport {
            attempt: n,
            diagnostics: "x".repeat(64 << 10),
            ..Default::default()
        };
        let report = ApplicationReport {
            attempts: (1..=100).map(attempt).collect(),
            ..Default::default()
        };
        let bounded = bounded(report);
        assert!(bounded.encoded_len() < MESSAGE_BYTES_MAX);
        assert_eq!(bounded.attempts.len(), 100);
        assert!(bounded.attempts[0].diagnostics.is_empty());
        assert!(!bounded.attempts[99].diagnostics.is_empty());
    }
}
