//! Task results that are Arrow IPC streams: read within bounds, whoever wrote them.
//!
//! A task whose `result_format` says so writes one stream to its stdout: a schema, record batches
//! and dictionaries, the end marker. Its executor reads the stream while it passes it on, and the
//! driver's library reads it again. The framing, the lengths and the schema are checked here, before
//! the library that makes arrays of them sees a message: nothing is allocated because a message
//! says so, only for bytes that came.
//!
//! Source: the format's specification, "Encapsulated message format" and "IPC streaming format",
//! <https://arrow.apache.org/docs/format/Columnar.html>.

mod checks;
mod concat;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_ipc::{Message, MessageHeader};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use sha2::{Digest, Sha256};

pub use concat::{ConcatError, concat_results};

/// Of one message's metadata, bytes: a schema or the lengths of one batch.
pub const METADATA_BYTES_MAX: usize = 1 << 20;
/// Of one message's body, bytes: one batch or dictionary.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Messages of one stream: batches, dictionaries and the schema.
pub const MESSAGES_MAX: u64 = 16_384;
/// Dictionaries of one stream that add to an earlier one, each of which copies it.
pub const DELTAS_MAX: u64 = 256;
/// Fields of a schema, nested ones included.
pub const FIELDS_MAX: usize = 4_096;
/// Fields within fields.
pub const DEPTH_MAX: usize = 16;
/// Rows of one stream. Columns without bytes can claim any number.
pub const ROWS_MAX: u64 = 1 << 31;

/// What begins every message since format version 0.15.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Continuation and the length of the metadata.
const PREFIX_BYTES: usize = 8;
/// What begins Arrow's *file* format.
const FILE_MAGIC: &[u8] = b"ARROW1";

/// Why bytes are not a result that is an Arrow IPC stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArrowDefect {
    #[error("its result is not an Arrow IPC stream: {0}")]
    NotArrow(String),
    #[error("its result is an Arrow IPC stream that is cut short: {0}")]
    Truncated(String),
    #[error("its result is an Arrow IPC stream with something after its end marker")]
    Trailing,
    #[error("its result is an Arrow IPC stream beyond a limit: {0}")]
    TooLarge(String),
    #[error("its result is an Arrow IPC stream that is not taken: {0}")]
    Unsupported(String),
    #[error("its result is an Arrow IPC stream whose message {message} is damaged: {words}")]
    Damaged { message: u64, words: String },
}

/// What a whole stream holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArrowSummary {
    pub rows: u64,
    pub batches: u64,
    /// SHA-256 over names, types and nullability of all fields, in hexadecimal digits; the same for
    /// equal schemas whatever their metadata, within one version of Bobbin.
    pub schema_fingerprint: String,
}

/// Reads one stream as its bytes come.
#[derive(Debug, Default)]
pub struct StreamChecker {
    state: State,
    /// What came of the prefix, metadata or body that is awaited.
    pending: Vec<u8>,
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
    messages: u64,
    deltas: u64,
    summary: ArrowSummary,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Prefix,
    Metadata {
        bytes: usize,
    },
    Body {
        metadata: Vec<u8>,
        bytes: usize,
    },
    Ended,
}

impl State {
    /// How many bytes are awaited before anything can be said.
    fn awaited(&self) -> usize {
        match self {
            State::Prefix => PREFIX_BYTES,
            State::Metadata { bytes } | State::Body { bytes, .. } => *bytes,
            State::Ended => 0,
        }
    }
}

impl StreamChecker {
    #[must_use]
    pub fn new() -> StreamChecker {
        StreamChecker::default()
    }

    /// The stream's schema, once it came.
    #[must_use]
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// Takes the next bytes; batches that they complete go to `take`.
    ///
    /// # Errors
    /// What is wrong with the stream. Nothing more can be read from it.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        take: &mut impl FnMut(RecordBatch),
    ) -> Result<(), ArrowDefect> {
        while !bytes.is_empty() {
            if matches!(self.state, State::Ended) {
                return Err(ArrowDefect::Trailing);
            }
            let lacking = self.state.awaited() - self.pending.len();
            let (now, rest) = bytes.split_at(lacking.min(bytes.len()));
            // It grows with what comes, not to the length that a message claims.
            self.pending.extend_from_slice(now);
            bytes = rest;
            while self.pending.len() == self.state.awaited() {
                self.step(take)?;
                if matches!(self.state, State::Ended) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// No more will come.
    ///
    /// # Errors
    /// `Truncated` without the end marker, `NotArrow` without any byte.
    pub fn finish(self) -> Result<ArrowSummary, ArrowDefect> {
        match self.state {
            State::Ended => Ok(self.summary),
            State::Prefix if self.messages == 0 => Err(ArrowDefect::NotArrow(format!(
                "it has {} bytes; a stream goes to the task's stdout",
                self.pending.len()
            ))),
            State::Prefix if self.pending.is_empty() => Err(ArrowDefect::Truncated(
                "the end marker is missing; close the stream's writer".to_owned(),
            )),
            State::Prefix | State::Metadata { .. } | State::Body { .. } => {
                Err(ArrowDefect::Truncated(format!(
                    "message {} has {} of {} bytes",
                    self.messages + 1,
                    self.pending.len(),
                    self.state.awaited()
                )))
            }
        }
    }

    /// What was awaited is there.
    fn step(&mut self, take: &mut impl FnMut(RecordBatch)) -> Result<(), ArrowDefect> {
        let pending = std::mem::take(&mut self.pending);
        self.state = match std::mem::take(&mut self.state) {
            State::Prefix => self.on_prefix(&pending)?,
            State::Metadata { .. } => {
                let bytes = self.body_bytes(&pending)?;
                State::Body {
                    metadata: pending,
                    bytes,
                }
            }
            State::Body { metadata, .. } => {
                self.on_message(&metadata, pending, take)?;
                State::Prefix
            }
            State::Ended => State::Ended,
        };
        Ok(())
    }

    fn on_prefix(&self, prefix: &[u8]) -> Result<State, ArrowDefect> {
        let (magic, length) = prefix.split_at(CONTINUATION.len());
        if magic != CONTINUATION {
            return Err(self.not_a_message(prefix));
        }
        let length: [u8; 4] = length
            .try_into()
            .expect("a prefix is four bytes and four more");
        let length = u32::from_le_bytes(length);
        if length == 0 {
            if self.schema.is_none() {
                return Err(ArrowDefect::NotArrow("it has no schema".to_owned()));
            }
            return Ok(State::Ended);
        }
        if self.messages >= MESSAGES_MAX {
            return Err(ArrowDefect::TooLarge(format!(
                "more than {MESSAGES_MAX} messages; write fewer, larger batches"
            )));
        }
        match usize::try_from(length) {
            Ok(bytes) if bytes <= METADATA_BYTES_MAX => Ok(State::Metadata { bytes }),
            Ok(_) | Err(_) => Err(ArrowDefect::TooLarge(format!(
                "message {} says it has {length} bytes of metadata, at most {METADATA_BYTES_MAX} \
                 are taken",
                self.messages + 1
            ))),
        }
    }

    fn not_a_message(&self, prefix: &[u8]) -> ArrowDefect {
        let shown: String = String::from_utf8_lossy(prefix).escape_debug().collect();
        if self.messages > 0 {
            let words = format!("it begins with \"{shown}\"");
            return self.damaged(self.messages + 1, words);
        }
        ArrowDefect::NotArrow(if prefix.starts_with(FILE_MAGIC) {
            "it is Arrow's file format; write the stream format".to_owned()
        } else {
            format!("it begins with \"{shown}\"; text belongs on stderr")
        })
    }

    fn damaged(&self, message: u64, words: impl ToString) -> ArrowDefect {
        ArrowDefect::Damaged {
            message,
            words: words.to_string(),
        }
    }

    fn body_bytes(&self, metadata: &[u8]) -> Result<usize, ArrowDefect> {
        let number = self.messages + 1;
        let message = checks::message(metadata).map_err(|words| self.damaged(number, words))?;
        let length = message.bodyLength();
        let Ok(bytes) = usize::try_from(length) else {
            let words = format!("it says its body has {length} bytes");
            return Err(self.damaged(number, words));
        };
        if bytes > BODY_BYTES_MAX {
            return Err(ArrowDefect::TooLarge(format!(
                "message {number} says its body has {length} bytes, at most {BODY_BYTES_MAX} are \
                 taken; write smaller batches"
            )));
        }
        Ok(bytes)
    }

    fn on_message(
        &mut self,
        metadata: &[u8],
        body: Vec<u8>,
        take: &mut impl FnMut(RecordBatch),
    ) -> Result<(), ArrowDefect> {
        self.messages += 1;
        let number = self.messages;
        let message = checks::message(metadata).map_err(|words| self.damaged(number, words))?;
        let body = Buffer::from(body);
        let Some(schema) = self.schema.clone() else {
            return self.on_schema(&message);
        };
        let read = |words: ArrowError| ArrowDefect::Damaged {
            message: number,
            words: words.to_string(),
        };
        if let Some(batch) = message.header_as_record_batch() {
            checks::batch(&batch, body.len()).map_err(|defect| defect.of(number))?;
            let version = message.version();
            let known = &self.dictionaries;
            let batch = guarded(|| read_record_batch(&body, batch, schema, known, None, &version));
            return self.on_batch(batch.map_err(read)?, take);
        }
        if let Some(dictionary) = message.header_as_dictionary_batch() {
            let values = dictionary.data();
            let values =
                values.ok_or_else(|| self.damaged(number, "a dictionary has no values"))?;
            checks::batch(&values, body.len()).map_err(|defect| defect.of(number))?;
            self.deltas += u64::from(dictionary.isDelta());
            if self.deltas > DELTAS_MAX {
                return Err(ArrowDefect::TooLarge(format!(
                    "more than {DELTAS_MAX} dictionaries that add to an earlier one"
                )));
            }
            let version = message.version();
            let known = &mut self.dictionaries;
            let taken = guarded(|| read_dictionary(&body, dictionary, &schema, known, &version));
            return taken.map_err(read);
        }
        let words = match message.header_type() {
            MessageHeader::Schema => "it is a second schema".to_owned(),
            other => format!("it is a {other:?}, and no record batch"),
        };
        Err(self.damaged(number, words))
    }

    fn on_schema(&mut self, message: &Message<'_>) -> Result<(), ArrowDefect> {
        let Some(schema) = message.header_as_schema() else {
            let words = format!("its first message is a {:?}", message.header_type());
            return Err(ArrowDefect::NotArrow(words));
        };
        let schema = checks::schema(schema).map_err(|defect| defect.of(self.messages))?;
        self.summary.schema_fingerprint = fingerprint(&schema);
        self.schema = Some(Arc::new(schema));
        Ok(())
    }

    fn on_batch(
        &mut self,
        batch: RecordBatch,
        take: &mut impl FnMut(RecordBatch),
    ) -> Result<(), ArrowDefect> {
        let rows = u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
        self.summary.rows = self.summary.rows.saturating_add(rows);
        if self.summary.rows > ROWS_MAX {
            let words = format!("more than {ROWS_MAX} rows");
            return Err(ArrowDefect::TooLarge(words));
        }
        self.summary.batches += 1;
        take(batch);
        Ok(())
    }
}

/// The library still asserts some of what it reads, such as that a buffer of offsets holds whole
/// numbers: a stream that it gives up on is damaged, and nothing of it is used again.
fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let words = "its buffers do not fit its types".to_owned();
        Err(ArrowError::IpcError(words))
    })
}

/// Reads a whole stream: its schema and its batches, and what they are in all.
///
/// # Errors
/// What is wrong with the bytes.
pub fn read_stream(
    bytes: &[u8],
) -> Result<(SchemaRef, Vec<RecordBatch>, ArrowSummary), ArrowDefect> {
    let mut checker = StreamChecker::new();
    let mut batches = Vec::new();
    checker.push(bytes, &mut |batch| batches.push(batch))?;
    let schema = checker.schema().cloned();
    let summary = checker.finish()?;
    let schema = schema.expect("a stream that ended well began with its schema");
    Ok((schema, batches, summary))
}

/// See [`ArrowSummary::schema_fingerprint`].
fn fingerprint(schema: &Schema) -> String {
    let mut hash = Sha256::new();
    for field in schema.fields() {
        checks::each_field(field, &mut |depth, field| {
            let text = format!(
                "{depth}\0{}\0{:?}\0{}\n",
                field.name(),
                field.data_type(),
                field.is_nullable()
            );
            hash.update(text.as_bytes());
        });
    }
    hash.finalize()
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
