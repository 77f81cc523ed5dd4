//! Results of many tasks as one table.

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::ArrowError;
use arrow_select::concat::concat_batches;

use super::{ArrowDefect, fingerprint, read_stream};
use crate::sdk::TaskResult;

/// Why results do not make one table.
#[derive(Debug, thiserror::Error)]
pub enum ConcatError {
    #[error("there are no results")]
    Nothing,
    #[error("task {task} failed with exit status {exit_status}: {problem}")]
    Failed {
        task: u64,
        exit_status: i32,
        problem: String,
    },
    #[error("task {task}: {defect}")]
    Defect { task: u64, defect: ArrowDefect },
    #[error("the columns of task {task} ({other}) are not those of task {first} ({columns})")]
    Schema {
        task: u64,
        first: u64,
        columns: String,
        other: String,
    },
    #[error("the batches cannot be put together")]
    Arrow(#[source] ArrowError),
}

/// Puts the record batches of all results together, in their order, as one.
///
/// # Errors
/// A task that failed, a result that is no Arrow IPC stream, and columns that differ in name, type
/// or nullability; metadata may differ.
pub fn concat_results(results: &[TaskResult]) -> Result<RecordBatch, ConcatError> {
    let mut all = Vec::new();
    let mut first = None;
    for result in results {
        if !result.is_success() {
            return Err(ConcatError::Failed {
                task: result.id,
                exit_status: result.exit_status,
                problem: result.problem.clone(),
            });
        }
        let (schema, batches, _) =
            read_stream(&result.stdout).map_err(|defect| ConcatError::Defect {
                task: result.id,
                defect,
            })?;
        let (task, known) = first.get_or_insert_with(|| (result.id, schema.clone()));
        if fingerprint(known) != fingerprint(&schema) {
            return Err(ConcatError::Schema {
                task: result.id,
                first: *task,
                columns: columns(known),
                other: columns(&schema),
            });
        }
        all.extend(batches);
    }
    let (_, schema) = first.ok_or(ConcatError::Nothing)?;
    // Under the first schema: metadata of later ones is passed over.
    let all: Result<Vec<_>, _> = all
        .iter()
        .map(|batch: &RecordBatch| {
            let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let columns = batch.columns().to_vec();
            RecordBatch::try_new_with_options(schema.clone(), columns, &rows)
        })
        .collect();
    concat_batches(&schema, &all.map_err(ConcatError::Arrow)?).map_err(ConcatError::Arrow)
}

fn columns(schema: &arrow_schema::Schema) -> String {
    let fields = schema.fields().iter();
    let fields: Vec<_> = fields
        .map(|f| {
            let null = if f.is_nullable() { "" } else { " not null" };
            format!("{} {}{null}", f.name(), f.data_type())
        })
        .collect();
    fields.join(", ")
}
