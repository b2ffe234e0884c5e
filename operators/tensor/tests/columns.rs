//! Arrow columns to tensors and back.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float16Array, Float32Array, Int32Array, LargeListArray,
    LargeStringArray, ListArray, RecordBatch, StringArray, StringViewArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type, Schema};
use half::f16;
use thalweg_tensor::column::{ColumnReader, Columns, Rejected, check_schema, output_schema, write_columns};
use thalweg_tensor::op::Activation;
use thalweg_tensor::random_encoder::RandomEncoder;
use thalweg_tensor::{Element, Graph, GraphBuilder, Tensor, TensorBatch, Tokenizer};

fn item(data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", data_type, true))
}

fn vectors(width: i32, numbers: Vec<f32>, nulls: Option<Vec<bool>>) -> ArrayRef {
    let values = Arc::new(Float32Array::from(numbers));
    let nulls = nulls.map(NullBuffer::from);
    Arc::new(FixedSizeListArray::try_new(item(DataType::Float32), width, values, nulls).unwrap())
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn read(graph: &Graph, batch: &RecordBatch) -> Columns {
    ColumnReader::new(graph, &batch.schema(), &BTreeMap::new(), 1).unwrap().read(batch).unwrap()
}

/// A graph that reads `x: f32[3]`, scalar ids below 5 and tokens below 9, at most 4 of them.
fn three_inputs() -> Graph {
    let mut builder = GraphBuilder::new();
    let x = builder.tensor("x", Element::F32, [3]).unwrap();
    let id = builder.tensor("id", Element::I32, []).unwrap();
    let tokens = builder.tokens("tokens", 4).unwrap();
    let (few, many) = (builder.weight("few", [5, 2]).unwrap(), builder.weight("many", [9, 2]).unwrap());
    let x = builder.activate(x, Activation::Relu).unwrap();
    let id = builder.gather(id, few, Element::F32).unwrap();
    let tokens = builder.gather(tokens, many, Element::F32).unwrap();
    for (name, value) in [("x", x), ("id", id), ("tokens", tokens)] {
        builder.output(name, value).unwrap();
    }
    builder.build().unwrap()
}

fn lists(rows: Vec<Option<Vec<Option<i32>>>>) -> ListArray {
    ListArray::from_iter_primitive::<Int32Type, _, _>(rows)
}

fn good_rows() -> RecordBatch {
    batch(vec![
        ("tokens", Arc::new(lists(vec![Some(vec![Some(1), Some(8)]), Some(vec![]), Some(vec![Some(0)])]))),
        ("x", vectors(3, (0..9).map(|x| x as f32).collect(), None)),
        ("id", Arc::new(Int32Array::from(vec![4, 0, 2]))),
    ])
}

#[test]
fn good_columns_are_taken_where_they_lie() {
    let batch = good_rows();
    let Columns { batch: made, rejected } = read(&three_inputs(), &batch);
    assert_eq!((made.rows, rejected), (3, vec![]));
    let x = batch.column(1).as_fixed_size_list().values().as_primitive::<Float32Type>().values().as_ptr();
    assert_eq!(made.tensors[0].data().as_ptr(), x.cast(), "copied");
    let ids = batch.column(2).as_primitive::<Int32Type>().values().as_ptr();
    assert_eq!(made.tensors[1].data().as_ptr(), ids.cast(), "copied");
    let tokens = batch.column(0).as_list::<i32>();
    let (values, offsets) = (tokens.values().as_primitive::<Int32Type>().values(), tokens.offsets());
    assert_eq!(made.tensors[2].data().as_ptr(), values.as_ptr().cast(), "copied");
    assert_eq!(made.tensors[2].offsets().unwrap().as_ptr(), offsets.as_ptr(), "copied");
}

#[test]
fn a_part_of_a_batch_is_taken_where_it_lies() {
    let batch = good_rows();
    for (start, length) in [(1, 2), (2, 1), (0, 2), (1, 0), (3, 0)] {
        let part = batch.slice(start, length);
        let made = read(&three_inputs(), &part).batch;
        assert_eq!(made.rows, length);
        let x: Vec<f32> = (start * 3..(start + length) * 3).map(|x| x as f32).collect();
        assert_eq!(made.tensors[0].values::<f32>().unwrap(), x);
        let id = &[4, 0, 2][start..start + length];
        assert_eq!(made.tensors[1].values::<i32>().unwrap(), id);
        let ends = [0, 2, 2, 3].map(|end: i32| end);
        let tokens = &[1, 8, 0][ends[start] as usize..ends[start + length] as usize];
        assert_eq!(made.tensors[2].values::<i32>().unwrap(), tokens);
        let offsets: Vec<i32> = (start..=start + length).map(|row| ends[row] - ends[start]).collect();
        assert_eq!(&made.tensors[2].offsets().unwrap()[..], offsets);
        if length > 0 {
            let whole = batch.column(1).as_fixed_size_list().values().as_primitive::<Float32Type>();
            let expected = whole.values()[start * 3..].as_ptr();
            assert_eq!(made.tensors[0].data().as_ptr(), expected.cast(), "copied");
        }
    }
}

fn rejected(row: usize, input: &str, reason: &str) -> Rejected {
    Rejected { row, input: input.into(), reason: reason.to_owned() }
}

#[test]
fn rows_that_no_graph_can_take_are_left_out_with_their_reasons() {
    let x: Vec<f32> = (0..27).map(|x| x as f32).collect();
    let tokens = lists(vec![
        Some(vec![Some(1)]),
        Some(vec![Some(1), Some(2)]),
        None,
        Some(vec![Some(9)]),
        Some(vec![Some(-1)]),
        Some(vec![Some(1); 5]),
        Some(vec![Some(1), None]),
        Some(vec![Some(3), Some(4), Some(5)]),
        Some(vec![Some(6)]),
    ]);
    let whole = batch(vec![
        ("x", vectors(3, x, Some((0..9).map(|row| row != 1).collect()))),
        (
            "id",
            Arc::new(Int32Array::from(vec![
                Some(5),
                Some(1),
                Some(1),
                Some(1),
                Some(1),
                Some(1),
                Some(1),
                Some(2),
                None,
            ])),
        ),
        ("tokens", Arc::new(tokens)),
    ]);
    let all = [
        rejected(0, "id", "has id 5, not within 0 to 4"),
        rejected(1, "x", "is null"),
        rejected(2, "tokens", "is null"),
        rejected(3, "tokens", "has id 9, not within 0 to 8"),
        rejected(4, "tokens", "has id -1, not within 0 to 8"),
        rejected(5, "tokens", "has 5 tokens, more than 4"),
        rejected(6, "tokens", "has a null element"),
        rejected(8, "id", "is null"),
    ];
    let Columns { batch: made, rejected } = read(&three_inputs(), &whole);
    assert_eq!(rejected, all);
    assert_eq!(made.rows, 1);
    assert_eq!(made.tensors[0].values::<f32>().unwrap(), [21.0, 22.0, 23.0]);
    assert_eq!(made.tensors[1].values::<i32>().unwrap(), [2]);
    assert_eq!(made.tensors[2].values::<i32>().unwrap(), [3, 4, 5]);
    // Of a part, too: places are the part's.
    let Columns { batch: made, rejected: some } = read(&three_inputs(), &whole.slice(6, 3));
    let moved: Vec<Rejected> =
        all[6..].iter().map(|rejected| Rejected { row: rejected.row - 6, ..rejected.clone() }).collect();
    assert_eq!((made.rows, some), (1, moved));
    assert_eq!(&made.tensors[2].offsets().unwrap()[..], [0, 3]);
}

#[test]
fn lists_of_varying_length_are_tensors_where_they_have_the_right_one() {
    let mut builder = GraphBuilder::new();
    let x = builder.tensor("x", Element::F32, [2]).unwrap();
    builder.output("x", x).unwrap();
    let graph = builder.build().unwrap();
    let rows =
        vec![Some(vec![Some(1.0), Some(2.0)]), Some(vec![Some(3.0)]), Some(vec![Some(4.0), Some(5.0)])];
    for column in [
        Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows.clone())) as ArrayRef,
        Arc::new(LargeListArray::from_iter_primitive::<Float32Type, _, _>(rows)),
    ] {
        let Columns { batch: made, rejected: bad } = read(&graph, &batch(vec![("x", column)]));
        assert_eq!(bad, [rejected(1, "x", "has 1 elements, wanted 2 for f32[2]")]);
        assert_eq!(made.tensors[0].values::<f32>().unwrap(), [1.0, 2.0, 4.0, 5.0]);
    }
}

#[test]
fn memory_that_is_aligned_for_the_element_alone_is_taken_as_it_is() {
    let mut builder = GraphBuilder::new();
    let x = builder.tensor("x", Element::F16, [3]).unwrap();
    builder.output("x", x).unwrap();
    let graph = builder.build().unwrap();
    let numbers: Vec<f16> = (0..10).map(|x| f16::from_f32(x as f32)).collect();
    let odd = ScalarBuffer::<f16>::new(Buffer::from_vec(numbers), 1, 9);
    let values = Arc::new(Float16Array::new(odd.clone(), None));
    let column = FixedSizeListArray::try_new(item(DataType::Float16), 3, values, None).unwrap();
    let made = read(&graph, &batch(vec![("x", Arc::new(column))])).batch;
    assert_eq!(made.tensors[0].data().as_ptr(), odd.as_ptr().cast());
    assert_eq!(made.tensors[0].values::<f16>().unwrap()[8], f16::from_f32(9.0));
}

#[test]
fn large_lists_of_tokens_get_offsets_of_their_own() {
    let rows = vec![Some(vec![Some(1), Some(2)]), Some(vec![Some(3)])];
    let tokens = Arc::new(LargeListArray::from_iter_primitive::<Int32Type, _, _>(rows));
    let mut builder = GraphBuilder::new();
    let input = builder.tokens("tokens", 4).unwrap();
    let hash = builder.min_hash(input, 4, 1).unwrap();
    builder.output("hash", hash).unwrap();
    let whole = batch(vec![("tokens", tokens)]);
    let made = read(&builder.build().unwrap(), &whole.slice(1, 1)).batch;
    assert_eq!(made.tensors[0].values::<i32>().unwrap(), [3]);
    assert_eq!(&made.tensors[0].offsets().unwrap()[..], [0, 1]);
}

#[test]
fn text_of_every_type_is_tokenised_and_null_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    RandomEncoder::default().write(directory.path()).unwrap();
    let tokenizer = Tokenizer::from_file(directory.path().join("tokenizer.json")).unwrap();
    let tokenizers = BTreeMap::from([("small".to_owned(), tokenizer)]);
    let mut builder = GraphBuilder::new();
    let text = builder.text("text", "small", 6).unwrap();
    let hash = builder.min_hash(text, 4, 1).unwrap();
    builder.output("hash", hash).unwrap();
    let graph = builder.build().unwrap();
    let rows = vec![Some("the river bed"), None, Some(""), Some("the cat and the dog and the bird")];
    let columns: [ArrayRef; 3] = [
        Arc::new(StringArray::from(rows.clone())),
        Arc::new(LargeStringArray::from(rows.clone())),
        Arc::new(StringViewArray::from(rows)),
    ];
    for column in columns {
        for threads in [1, 2] {
            let batch = batch(vec![("text", column.clone())]);
            let reader = ColumnReader::new(&graph, &batch.schema(), &tokenizers, threads).unwrap();
            let Columns { batch: made, rejected: bad } = reader.read(&batch).unwrap();
            assert_eq!(bad, [rejected(1, "text", "is null")]);
            assert_eq!(&made.tensors[0].offsets().unwrap()[..], [0, 5, 7, 13]);
            let good = reader.read(&batch.slice(2, 2)).unwrap();
            assert_eq!((good.batch.rows, good.rejected), (2, vec![]));
        }
    }
    let schema = Schema::new(vec![Field::new("text", DataType::Utf8, true)]);
    let error = ColumnReader::new(&graph, &schema, &BTreeMap::new(), 1).err().unwrap().to_string();
    assert_eq!(error, "input `text`: there is no tokenizer `small` among ");
}

fn schema_error(graph: &Graph, fields: Vec<Field>) -> String {
    check_schema(graph, &Schema::new(fields)).unwrap_err().to_string()
}

#[test]
fn wrong_columns_are_named_with_their_type_and_the_wanted_one() {
    let graph = three_inputs();
    let vector = |size| DataType::FixedSizeList(item(DataType::Float32), size);
    assert_eq!(
        schema_error(&graph, vec![Field::new("y", vector(3), true), Field::new("id", DataType::Int32, true)]),
        "input `x`: there is no such column among y, id; wanted FixedSizeList(3 x Float32) or List(Float32) for f32[3]"
    );
    let shown = |field: Field| schema_error(&graph, vec![field]);
    assert!(
        shown(Field::new("x", vector(4), true))
            .ends_with("wanted FixedSizeList(3 x Float32) or List(Float32) for f32[3]")
    );
    let text = shown(Field::new("x", DataType::Utf8, true));
    assert_eq!(
        text,
        "input `x`: its column is of type Utf8, wanted FixedSizeList(3 x Float32) or List(Float32) for f32[3]"
    );
    let x = Field::new("x", vector(3), true);
    let id = schema_error(&graph, vec![x.clone(), Field::new("id", DataType::Int64, true)]);
    assert_eq!(id, "input `id`: its column is of type Int64, wanted Int32 for i32[]");
    let fields = vec![x, Field::new("id", DataType::Int32, true), Field::new("tokens", DataType::Utf8, true)];
    let tokens = "input `tokens`: its column is of type Utf8, wanted List(Int32) or LargeList(Int32)";
    assert_eq!(schema_error(&graph, fields), tokens);
}

fn shaped(metadata: &str) -> Field {
    let data_type = DataType::FixedSizeList(item(DataType::Float32), 6);
    Field::new("x", data_type, true).with_metadata(
        [("ARROW:extension:name", "arrow.fixed_shape_tensor"), ("ARROW:extension:metadata", metadata)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    )
}

#[test]
fn shapes_in_metadata_must_be_the_graphs() {
    let mut builder = GraphBuilder::new();
    let x = builder.tensor("x", Element::F32, [2, 3]).unwrap();
    builder.output("x", x).unwrap();
    let graph = builder.build().unwrap();
    let check = |metadata: &str| check_schema(&graph, &Schema::new(vec![shaped(metadata)]));
    check(r#"{"shape":[2,3]}"#).unwrap();
    check(r#"{"shape":[2,3],"dim_names":["a","b"],"permutation":[0,1]}"#).unwrap();
    check_schema(&graph, &Schema::new(vec![shaped("").with_metadata(Default::default())])).unwrap();
    assert!(check(r#"{"shape":[3,2]}"#).is_err());
    assert!(check(r#"{"shape":[6]}"#).is_err());
    assert!(check("nonsense").unwrap_err().to_string().contains("metadata `nonsense`"));
    let permuted = check(r#"{"shape":[2,3],"permutation":[1,0]}"#).unwrap_err().to_string();
    assert!(permuted.contains("permuted by [1, 0]"), "{permuted}");
}

/// Values of every form go out, and come back as inputs of the same types.
#[test]
fn outputs_are_columns_without_a_copy() {
    let mut builder = GraphBuilder::new();
    let scalar = builder.tensor("scalar", Element::F32, []).unwrap();
    let vector = builder.tensor("vector", Element::F16, [3]).unwrap();
    let matrix = builder.tensor("matrix", Element::I8, [2, 2]).unwrap();
    let tokens = builder.tokens("tokens", 9).unwrap();
    let table = builder.weight("table", [9, 2]).unwrap();
    let embedded = builder.gather(tokens, table, Element::F32).unwrap();
    let hash = builder.sim_hash(tokens, 2, 0).unwrap();
    let outputs = [scalar, vector, matrix, tokens, embedded, hash];
    let names = ["scalar", "vector", "matrix", "tokens", "embedded", "hash"];
    names.iter().zip(outputs).for_each(|(name, value)| builder.output(name, value).unwrap());
    let graph = builder.build().unwrap();

    let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, 2, 2]));
    let halves: Vec<f16> = (0..6).map(|x| f16::from_f32(x as f32)).collect();
    let tensors = vec![
        Tensor::fixed(Element::F32, [], 2, Buffer::from_vec(vec![1f32, 2.0])).unwrap(),
        Tensor::fixed(Element::F16, [3], 2, Buffer::from_vec(halves)).unwrap(),
        Tensor::fixed(Element::I8, [2, 2], 2, Buffer::from_vec((0..8i8).collect())).unwrap(),
        Tensor::ragged(Element::I32, [], offsets.clone(), Buffer::from_vec(vec![5i32, 6])).unwrap(),
        Tensor::ragged(Element::F32, [2], offsets, Buffer::from_vec(vec![1f32, 2.0, 3.0, 4.0])).unwrap(),
        Tensor::fixed(Element::I64, [2], 2, Buffer::from_vec(vec![1i64, 2, 3, 4])).unwrap(),
    ];
    let made = TensorBatch { rows: 2, tensors };
    let columns = write_columns(&graph, &made).unwrap();
    let batch = RecordBatch::try_new(Arc::new(output_schema(&graph)), columns).unwrap();
    let types: Vec<String> =
        batch.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types[0], "Float32");
    assert_eq!(batch.schema().field(2).metadata()["ARROW:extension:metadata"], r#"{"shape":[2,2]}"#);
    assert_eq!(batch.schema().field(2).metadata()["ARROW:extension:name"], "arrow.fixed_shape_tensor");
    let embedded = batch.column(4).as_list::<i32>().values().as_fixed_size_list().clone();
    assert_eq!(embedded.values().as_primitive::<Float32Type>().values(), &[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(embedded.values().to_data().buffers()[0].as_ptr(), made.tensors[4].data().as_ptr(), "copied");

    let back = read(&graph, &batch);
    assert_eq!(back.rejected, []);
    for (before, after) in made.tensors.iter().zip(&back.batch.tensors) {
        assert_eq!(before.data().as_ptr(), after.data().as_ptr(), "copied on the way back");
        assert_eq!((before.dims(), before.element()), (after.dims(), after.element()));
    }
    let short = TensorBatch { rows: 2, tensors: made.tensors[1..].to_vec() };
    assert!(write_columns(&graph, &short).is_err());
}
