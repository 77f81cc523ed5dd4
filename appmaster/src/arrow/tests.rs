//! Streams of Arrow's own writer, and the same streams damaged in every way.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder, StringDictionaryBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, BooleanArray, Float64Array, Int64Array, NullArray, RecordBatch, StringArray,
    StringViewArray, StructArray,
};
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType, Field, Schema};
use proptest::prelude::*;

use super::*;
use crate::sdk::TaskResult;

fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn numbers(values: &[i64]) -> RecordBatch {
    let values = Int64Array::from(values.to_vec());
    RecordBatch::try_from_iter([("n", Arc::new(values) as ArrayRef)]).unwrap()
}

/// One column of every shape: nulls, text, views, lists, structs, dictionaries.
fn shapes(rows: i32) -> RecordBatch {
    let count = usize::try_from(rows).unwrap();
    let mut lists = ListBuilder::new(StringBuilder::new());
    let mut words = StringDictionaryBuilder::<Int32Type>::new();
    for row in 0..rows {
        lists.append_value([Some("a"), None, Some("a longer piece of text")]);
        words.append_value(format!("word {}", row % 3));
    }
    let floats = Float64Array::from_iter((0..rows).map(|n| (n % 2 == 0).then_some(f64::from(n))));
    let flags = BooleanArray::from_iter((0..rows).map(|n| Some(n % 3 == 0)));
    let names = StringArray::from_iter_values((0..rows).map(|n| n.to_string()));
    let views = StringViewArray::from_iter_values((0..rows).map(|n| format!("{n:020}")));
    let parts = StructArray::from(vec![
        (
            Arc::new(Field::new("x", DataType::Float64, true)),
            Arc::new(floats.clone()) as ArrayRef,
        ),
        (
            Arc::new(Field::new("y", DataType::Boolean, false)),
            Arc::new(flags.clone()) as ArrayRef,
        ),
    ]);
    RecordBatch::try_from_iter([
        ("floats", Arc::new(floats) as ArrayRef),
        ("flags", Arc::new(flags)),
        ("names", Arc::new(names)),
        ("views", Arc::new(views)),
        ("parts", Arc::new(parts)),
        ("lists", Arc::new(lists.finish())),
        ("words", Arc::new(words.finish())),
        ("nulls", Arc::new(NullArray::new(count))),
    ])
    .unwrap()
}

fn defect(bytes: &[u8]) -> ArrowDefect {
    read_stream(bytes).unwrap_err()
}

#[test]
fn whole_streams_are_read_whatever_the_pieces() {
    let batches = [shapes(7), shapes(1), shapes(100)];
    let bytes = stream(&batches[..1]);
    let (_, read, _) = read_stream(&bytes).unwrap();
    assert_eq!(read, batches[..1]);
    let bytes = stream(&[numbers(&[1, 2]), numbers(&[]), numbers(&[3])]);
    let (schema, read, summary) = read_stream(&bytes).unwrap();
    assert_eq!((summary.rows, summary.batches, read.len()), (3, 3, 3));
    assert_eq!(schema.field(0).name(), "n");
    assert_eq!(summary.schema_fingerprint.len(), 64);
    for piece in [1, 3, 8, 64] {
        let mut checker = StreamChecker::new();
        let mut rows = 0;
        for bytes in bytes.chunks(piece) {
            checker.push(bytes, &mut |b| rows += b.num_rows()).unwrap();
        }
        assert_eq!((checker.finish().unwrap(), rows), (summary.clone(), 3));
    }
    // No batch at all is a table without rows.
    let mut writer = StreamWriter::try_new(Vec::new(), &numbers(&[]).schema()).unwrap();
    writer.finish().unwrap();
    let (_, read, none) = read_stream(&writer.into_inner().unwrap()).unwrap();
    assert!(read.is_empty());
    assert_eq!(none.schema_fingerprint, summary.schema_fingerprint);
}

#[test]
fn other_bytes_are_named() {
    let whole = stream(&[numbers(&[1, 2, 3])]);
    for (bytes, words) in [
        (&b""[..], "it has 0 bytes"),
        (b"abc", "it has 3 bytes"),
        (b"carrier,flights\n", "it begins with \"carrier,\""),
        (&[0xff; 4], "it has 4 bytes"),
        (&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], "it has no schema"),
    ] {
        let said = defect(bytes);
        assert!(matches!(said, ArrowDefect::NotArrow(_)), "{said:?}");
        assert!(said.to_string().contains(words), "{said}");
    }
    let batch = numbers(&[1]);
    let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    file.write(&batch).unwrap();
    file.finish().unwrap();
    let said = defect(&file.into_inner().unwrap()).to_string();
    assert!(said.contains("write the stream format"), "{said}");
    let mut more = whole.clone();
    more.push(0);
    assert_eq!(defect(&more), ArrowDefect::Trailing);
    for length in 8..whole.len() {
        let cut = defect(&whole[..length]);
        assert!(matches!(cut, ArrowDefect::Truncated(_)), "{length}: {cut}");
    }
    let cut = defect(&whole[..whole.len() - 8]).to_string();
    assert!(cut.contains("close the stream's writer"), "{cut}");
}

#[test]
fn claimed_lengths_allocate_nothing() {
    let huge = |length: u32| [&CONTINUATION[..], &length.to_le_bytes()].concat();
    for length in [u32::MAX, 1 << 31, (1 << 20) + 1] {
        let said = defect(&huge(length));
        assert!(matches!(said, ArrowDefect::TooLarge(_)), "{said}");
    }
    // Within the limit it waits for bytes; what it holds is what came.
    let mut checker = StreamChecker::new();
    checker.push(&huge(1 << 20), &mut drop).unwrap();
    checker.push(&[1], &mut drop).unwrap();
    assert!(checker.pending.capacity() < 1 << 10);
    // A body length beyond the limit, written over the right one.
    let whole = stream(&[numbers(&[1, 2, 3])]);
    let body = (64_i64 << 20) + 8;
    let mut refused = 0;
    for at in (0..whole.len() - 8).step_by(8) {
        let mut bytes = whole.clone();
        bytes[at..at + 8].copy_from_slice(&body.to_le_bytes());
        refused += u32::from(matches!(read_stream(&bytes), Err(ArrowDefect::TooLarge(_))));
    }
    assert!(refused > 0, "no place held the body's length");
}

#[test]
fn deep_wide_compressed_and_union_streams_are_refused() {
    let nested = |depth: usize| {
        let inner = (0..depth).fold(DataType::Int32, |inner, _| {
            DataType::List(Arc::new(Field::new("f", inner, true)))
        });
        let schema = Schema::new(vec![Field::new("f", inner, true)]);
        let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    };
    read_stream(&nested(DEPTH_MAX - 1)).unwrap();
    let said = defect(&nested(DEPTH_MAX)).to_string();
    assert!(said.contains("fields within fields 17 deep"), "{said}");
    // Deeper than the metadata's own limit.
    let said = defect(&nested(500));
    assert!(matches!(said, ArrowDefect::Damaged { .. }), "{said}");

    let wide = |fields: usize| {
        let fields = (0..fields).map(|n| Field::new(n.to_string(), DataType::Int8, true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    };
    read_stream(&wide(FIELDS_MAX)).unwrap();
    let said = defect(&wide(FIELDS_MAX + 1)).to_string();
    assert!(said.contains("4097 fields"), "{said}");

    let union = arrow_schema::UnionFields::try_new([0], [Field::new("i", DataType::Int8, true)]);
    let union = DataType::Union(union.unwrap(), arrow_schema::UnionMode::Sparse);
    let schema = Schema::new(vec![Field::new("u", union, true)]);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    writer.finish().unwrap();
    let said = defect(&writer.into_inner().unwrap()).to_string();
    assert!(said.contains("the field 'u' is a union"), "{said}");
}

#[test]
fn results_become_one_table_or_the_odd_one_is_named() {
    let result = |id: u64, stdout: Vec<u8>| TaskResult {
        id,
        stdout,
        ..TaskResult::default()
    };
    let one = result(0, stream(&[numbers(&[1, 2]), numbers(&[3])]));
    let two = result(1, stream(&[numbers(&[4])]));
    let all = concat_results(&[one.clone(), two.clone()]).unwrap();
    assert_eq!(all, numbers(&[1, 2, 3, 4]));
    assert_eq!(
        concat_results(std::slice::from_ref(&two)).unwrap(),
        numbers(&[4])
    );
    assert!(matches!(concat_results(&[]), Err(ConcatError::Nothing)));

    let other = result(2, stream(&[shapes(1)]));
    let said = concat_results(&[one.clone(), two.clone(), other]).unwrap_err();
    let said = said.to_string();
    assert!(said.contains("of task 2 (floats"), "{said}");
    assert!(
        said.contains("are not those of task 0 (n Int64 not null)"),
        "{said}"
    );
    let text = result(3, b"1 2 3 4 5\n".to_vec());
    let said = concat_results(&[one.clone(), text])
        .unwrap_err()
        .to_string();
    assert!(
        said.starts_with("task 3: its result is not an Arrow IPC stream"),
        "{said}"
    );
    let mut failed = two;
    failed.exit_status = 4;
    let said = concat_results(&[one, failed]).unwrap_err().to_string();
    assert!(
        said.starts_with("task 1 failed with exit status 4"),
        "{said}"
    );

    // Dictionaries of two tasks differ; their words do not get mixed up.
    let (few, many) = (shapes(2), shapes(4));
    let results = [result(0, stream(&[few])), result(1, stream(&[many]))];
    let all = concat_results(&results).unwrap();
    let words = all.column_by_name("words").unwrap();
    let words = arrow_array::cast::as_dictionary_array::<Int32Type>(words.as_ref());
    let words = words.downcast_dict::<StringArray>().unwrap();
    let words: Vec<_> = words.into_iter().flatten().collect();
    assert_eq!(
        words,
        ["word 0", "word 1", "word 0", "word 1", "word 2", "word 0"]
    );
}

#[test]
fn an_old_framing_is_refused_with_words() {
    let old = IpcWriteOptions::try_new(8, true, arrow_ipc::MetadataVersion::V4).unwrap();
    let batch = numbers(&[1]);
    let schema = batch.schema();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, old).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let said = defect(&writer.into_inner().unwrap());
    assert!(matches!(said, ArrowDefect::NotArrow(_)), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    /// Bytes changed anywhere, runs of them removed or repeated: an answer, and arrays that can be
    /// walked when it is a good one. No panic gets out.
    #[test]
    fn damaged_streams_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of((any::<prop::sample::Index>(), 0..64_usize)),
        words in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            Just(u64::MAX), Just(1 << 63), Just(i64::MAX.unsigned_abs()), Just(0), 0..64_u64
        ]), 0..3),
        rows in 0..20_i32,
    ) {
        let mut bytes = stream(&[shapes(rows)]);
        for (at, word) in &words {
            let at = at.index(bytes.len() / 8) * 8;
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Some((at, length)) = cut {
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + length);
            bytes.drain(at..end);
        }
        if let Ok((schema, batches, summary)) = read_stream(&bytes) {
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            prop_assert_eq!(u64::try_from(rows).unwrap(), summary.rows);
            prop_assert!(batches.iter().all(|b| b.columns().len() == schema.fields().len()));
            for column in batches.iter().flat_map(RecordBatch::columns) {
                column.to_data().validate_full().unwrap();
            }
        }
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let framed = [&CONTINUATION[..], &[64, 0, 0, 0], &bytes].concat();
        prop_assert!(read_stream(&bytes).is_err());
        prop_assert!(read_stream(&framed).is_err());
    }
}
