//! The result of a task that is to be an Arrow IPC stream, read beside its way to the master.
//!
//! On a thread of its own, a blocking one: the executor's only other thread moves bytes. A check that
//! is slower than its task holds it back at its pipe.

use bobbin_proto::v1;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

use crate::arrow::{ArrowDefect, ArrowSummary, StreamChecker};

/// Pieces of output between the task's pipe and its check.
const PIECES: usize = 4;

type Checked = Result<ArrowSummary, ArrowDefect>;

/// Reads what is sent, until the sender is dropped or something is wrong.
pub(super) fn start_check() -> (mpsc::Sender<Vec<u8>>, JoinHandle<Checked>) {
    let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(PIECES);
    let check = tokio::task::spawn_blocking(move || {
        let mut checker = StreamChecker::new();
        while let Some(piece) = pieces.blocking_recv() {
            checker.push(&piece, &mut drop)?;
        }
        checker.finish()
    });
    (sender, check)
}

/// What the master is told, and why the task has failed, if it has.
pub(super) fn outcome(checked: Result<Checked, JoinError>) -> (v1::ArrowResult, String) {
    let defect = match checked {
        Ok(Ok(summary)) => {
            let result = v1::ArrowResult {
                rows: summary.rows,
                batches: summary.batches,
                schema_fingerprint: summary.schema_fingerprint,
                defect: v1::ArrowDefect::None.into(),
            };
            return (result, String::new());
        }
        Ok(Err(defect)) => defect,
        // The last net: whatever it is, it is this task's and nobody else's.
        Err(e) => ArrowDefect::Damaged {
            message: 0,
            words: format!("it cannot be read: {e}"),
        },
    };
    let result = v1::ArrowResult {
        defect: wire_defect(&defect).into(),
        ..v1::ArrowResult::default()
    };
    (result, defect.to_string())
}

fn wire_defect(defect: &ArrowDefect) -> v1::ArrowDefect {
    match defect {
        ArrowDefect::NotArrow(_) => v1::ArrowDefect::NotArrow,
        ArrowDefect::Truncated(_) => v1::ArrowDefect::Truncated,
        ArrowDefect::Trailing => v1::ArrowDefect::Trailing,
        ArrowDefect::TooLarge(_) => v1::ArrowDefect::TooLarge,
        ArrowDefect::Unsupported(_) => v1::ArrowDefect::Unsupported,
        ArrowDefect::Damaged { .. } => v1::ArrowDefect::Damaged,
    }
}
