//! What is checked of a message before arrays are made of it.

use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::{Endianness, Message, RecordBatch, root_as_message_with_opts};
use arrow_schema::{DataType, Field, Schema};
use flatbuffers::VerifierOptions;

use super::{ArrowDefect, DEPTH_MAX, FIELDS_MAX, METADATA_BYTES_MAX, ROWS_MAX};

/// Tables that a message may hold, counted each time that one is referred to: a field, its type,
/// its dictionary and pieces of metadata.
const TABLES_MAX: usize = FIELDS_MAX * 6;

/// A defect of a message that does not know its number.
#[derive(Debug)]
pub(super) enum Defect {
    Damaged(String),
    TooLarge(String),
    Unsupported(String),
}

impl Defect {
    pub(super) fn of(self, message: u64) -> ArrowDefect {
        match self {
            Defect::Damaged(words) => ArrowDefect::Damaged { message, words },
            Defect::TooLarge(words) => ArrowDefect::TooLarge(words),
            Defect::Unsupported(words) => ArrowDefect::Unsupported(words),
        }
    }
}

/// The metadata of a message, every offset of it within its bytes. Parts that are referred to twice
/// are counted twice, so that what is made of it stays as small.
pub(super) fn message(metadata: &[u8]) -> Result<Message<'_>, String> {
    let limits = VerifierOptions {
        max_depth: 64,
        max_tables: TABLES_MAX,
        max_apparent_size: 4 * METADATA_BYTES_MAX,
        ..VerifierOptions::default()
    };
    root_as_message_with_opts(&limits, metadata).map_err(|e| first_line(&e.to_string()))
}

/// Errors of the verifier are long traces.
fn first_line(words: &str) -> String {
    words.lines().next().unwrap_or_default().to_owned()
}

pub(super) fn schema(wire: arrow_ipc::Schema<'_>) -> Result<Schema, Defect> {
    if wire.endianness() != Endianness::Little {
        let words = "its numbers are big-endian".to_owned();
        return Err(Defect::Unsupported(words));
    }
    let schema = try_fb_to_schema(wire).map_err(|e| Defect::Damaged(e.to_string()))?;
    let (mut fields, mut deepest, mut problem) = (0_usize, 0_usize, None);
    for field in schema.fields() {
        each_field(field, &mut |depth, field| {
            fields += 1;
            deepest = deepest.max(depth);
            if problem.is_none() {
                problem = field_problem(field);
            }
        });
    }
    if fields > FIELDS_MAX {
        let words = format!("{fields} fields, at most {FIELDS_MAX} are taken");
        return Err(Defect::TooLarge(words));
    }
    if deepest > DEPTH_MAX {
        let words = format!("fields within fields {deepest} deep, at most {DEPTH_MAX} are taken");
        return Err(Defect::TooLarge(words));
    }
    problem.map_or(Ok(schema), Err)
}

fn field_problem(field: &Field) -> Option<Defect> {
    let name = field.name();
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "these types can be wrong in themselves, or are not taken; Arrow has some forty"
    )]
    match field.data_type() {
        DataType::Union(_, _) => Some(Defect::Unsupported(format!(
            "the field '{name}' is a union"
        ))),
        DataType::FixedSizeBinary(width) | DataType::FixedSizeList(_, width) if *width < 0 => {
            let words = format!("the field '{name}' has a width of {width}");
            Some(Defect::Damaged(words))
        }
        _ => None,
    }
}

/// Visits a field and the fields within it, with their depth, from 1.
pub(super) fn each_field(field: &Field, visit: &mut impl FnMut(usize, &Field)) {
    // What is still to be visited, so that depth costs no stack.
    let mut open = vec![(1, field)];
    while let Some((depth, field)) = open.pop() {
        visit(depth, field);
        children(field.data_type(), &mut |child| {
            open.push((depth + 1, child))
        });
    }
}

fn children<'a>(data_type: &'a DataType, visit: &mut impl FnMut(&'a Field)) {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the types that hold fields are named; Arrow has some thirty others"
    )]
    match data_type {
        DataType::List(child)
        | DataType::LargeList(child)
        | DataType::ListView(child)
        | DataType::LargeListView(child)
        | DataType::FixedSizeList(child, _)
        | DataType::Map(child, _) => visit(child),
        DataType::Struct(fields) => fields.iter().for_each(|child| visit(child)),
        DataType::Union(fields, _) => fields.iter().for_each(|(_, child)| visit(child)),
        DataType::RunEndEncoded(ends, values) => {
            visit(ends);
            visit(values);
        }
        DataType::Dictionary(_, values) => children(values, visit),
        _ => {}
    }
}

/// Lengths within bounds, buffers within the body and not more than it in all: whoever reads them
/// may copy each of them once.
pub(super) fn batch(batch: &RecordBatch<'_>, body: usize) -> Result<(), Defect> {
    let damaged = |words: &str| Err(Defect::Damaged(words.to_owned()));
    if batch.compression().is_some() {
        let words = "its bodies are compressed; write it without compression".to_owned();
        return Err(Defect::Unsupported(words));
    }
    let rows = |length: i64| u64::try_from(length).ok().filter(|n| *n <= ROWS_MAX);
    if rows(batch.length()).is_none() {
        return damaged("it says an impossible number of rows");
    }
    for node in batch.nodes().iter().flatten() {
        let length = rows(node.length());
        let nulls = rows(node.null_count());
        if length.is_none() || nulls.is_none() || nulls > length {
            return damaged("a column says an impossible number of values or nulls");
        }
    }
    let body = u64::try_from(body).unwrap_or(u64::MAX);
    let mut left = body;
    for buffer in batch.buffers().iter().flatten() {
        let (Ok(offset), Ok(length)) = (
            u64::try_from(buffer.offset()),
            u64::try_from(buffer.length()),
        ) else {
            return damaged("a buffer has a negative place or length");
        };
        if offset.checked_add(length).is_none_or(|end| end > body) {
            return damaged("a buffer is not within the body");
        }
        let Some(rest) = left.checked_sub(length) else {
            return damaged("its buffers overlap");
        };
        left = rest;
    }
    Ok(())
}
