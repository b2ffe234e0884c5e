//! Expressions, filters and projections over batches of the engine's types.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion_expr::{col, lit};
use thalweg_engine::graph::Expression;
use thalweg_engine::operator::{OperatorContext, OperatorFactory};
use thalweg_engine::record::{Batch, EdgeSchema, Mode, OP_COLUMN, time_type};
use thalweg_engine::time::Watermark;
use thalweg_operators::expression::ColumnExpression;
use thalweg_operators::filter::Filter;
use thalweg_operators::project::Project;
use thalweg_operators::union_schema;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("carrier", DataType::Utf8View, true),
        Field::new("dep_delay", DataType::Int64, true),
        Field::new("at", time_type(), false),
        Field::new("userId", DataType::Int64, false),
    ]))
}

/// `2013-01-01T00:00:00Z` in microseconds.
const NEW_YEAR: i64 = 1_356_998_400_000_000;

fn records() -> RecordBatch {
    let carriers: ArrayRef = Arc::new(StringViewArray::from(vec![
        Some("UA"),
        Some("a carrier with a name that is not inlined"),
        None,
        Some("UA"),
    ]));
    let delays: ArrayRef = Arc::new(Int64Array::from(vec![Some(61), Some(5), Some(100), None]));
    let times =
        TimestampMicrosecondArray::from_iter_values((0..4).map(|hour| NEW_YEAR + hour * 3_600_000_000));
    let times: ArrayRef = Arc::new(times.with_data_type(time_type()));
    let users: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
    RecordBatch::try_new(schema(), vec![carriers, delays, times, users]).unwrap()
}

fn run(factory: &dyn OperatorFactory, batch: Batch) -> Option<Batch> {
    factory.outputs(&[EdgeSchema::new(batch.schema())]).unwrap();
    let mut operator = factory.create().unwrap();
    let mut outputs = Vec::new();
    let mut wake_at = None;
    let mut cx = OperatorContext::new(&mut outputs, &mut wake_at, Watermark::MIN, 0);
    let _ = operator.process(0, batch, &mut cx).unwrap();
    assert!(outputs.len() <= 1);
    outputs.pop().map(|(_, batch)| batch)
}

fn mistake(sql: &str) -> String {
    ColumnExpression::from(sql).plan(&schema()).err().map(|error| error.to_string()).unwrap_or_default()
}

fn users(batch: &Batch) -> Vec<i64> {
    let index = batch.schema().index_of("userId").unwrap();
    batch.records().column(index).as_primitive::<Int64Type>().values().to_vec()
}

#[test]
fn sql_and_rust_say_the_same_over_string_views_and_times() {
    let same = [
        (
            "dep_delay > 60 and carrier = 'UA'",
            col("dep_delay").gt(lit(60)).and(col("carrier").eq(lit("UA"))),
            vec![1],
        ),
        ("carrier is null", col("carrier").is_null(), vec![3]),
        ("at >= '2013-01-01T02:00:00Z'", col("at").gt_eq(lit("2013-01-01T02:00:00Z")), vec![3, 4]),
        ("userId in (2, 4)", col("userId").in_list(vec![lit(2), lit(4)], false), vec![2, 4]),
        ("not (dep_delay > 60)", datafusion_expr::Expr::Not(Box::new(col("dep_delay").gt(lit(60)))), vec![2]),
    ];
    for (sql, expr, expected) in same {
        for condition in [ColumnExpression::from(sql), ColumnExpression::from(expr)] {
            let kept = run(&Filter::new(condition), Batch::new(records())).unwrap();
            assert_eq!(users(&kept), expected, "{sql}");
        }
    }
}

#[test]
fn a_filter_passes_the_batch_as_it_is_when_all_rows_stay_and_nothing_when_none_does() {
    let batch = Batch::new(records()).with_key_hashes(UInt64Array::from(vec![7, 8, 9, 10]));
    let all = run(&Filter::new("userId > 0"), batch.clone()).unwrap();
    for (kept, given) in all.records().columns().iter().zip(batch.records().columns()) {
        assert!(Arc::ptr_eq(kept, given));
    }
    assert!(run(&Filter::new("userId > 100"), batch.clone()).is_none());
    assert!(run(&Filter::new("1 = 2"), batch.clone()).is_none());
    let constant = run(&Filter::new("1 = 1"), batch.clone()).unwrap();
    assert!(Arc::ptr_eq(constant.records().column(0), batch.records().column(0)));
    let some = run(&Filter::new("userId % 2 = 0"), batch).unwrap();
    assert_eq!(some.key_hashes().unwrap().values(), &[8, 10]);
    assert_eq!(users(&some), [2, 4]);
}

#[test]
fn columns_that_are_passed_on_are_shared_and_computed_ones_are_in_the_engines_types() {
    let batch = Batch::new(records()).with_key_hashes(UInt64Array::from(vec![7, 8, 9, 10]));
    let project = Project::new([
        ("who", "carrier"),
        ("shout", "lower(carrier) || '!'"),
        ("hour", "date_trunc('hour', at)"),
        ("from_ms", "to_timestamp_millis(userId * 1000)"),
        ("always", "'x'"),
        ("nothing", "cast(null as bigint)"),
        ("text", "cast(userId as varchar)"),
    ]);
    let made = run(&project, batch.clone()).unwrap();
    assert!(Arc::ptr_eq(made.records().column(0), batch.records().column(0)));
    assert_eq!(made.key_hashes().unwrap().values(), &[7, 8, 9, 10]);
    let types: Vec<_> = made.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    let view = DataType::Utf8View;
    assert_eq!(
        types,
        [view.clone(), view.clone(), time_type(), time_type(), view.clone(), DataType::Int64, view]
    );
    assert_eq!(made.records().column(1).as_string_view().value(0), "ua!");
    assert!(made.records().column(1).is_null(2));
    assert_eq!(
        made.records().column(3).as_primitive::<TimestampMicrosecondType>().values(),
        &[1_000_000, 2_000_000, 3_000_000, 4_000_000]
    );
    assert_eq!(made.records().column(4).as_string_view().value(3), "x");
    assert_eq!(made.records().column(5).null_count(), 4);
}

#[test]
fn a_projection_that_changes_nothing_passes_the_batch_as_it_is() {
    let batch = Batch::new(records());
    let names: Vec<_> = schema().fields().iter().map(|field| field.name().clone()).collect();
    let project = Project::new(names.iter().map(|name| (name.clone(), format!("\"{name}\""))));
    let made = run(&project, batch.clone()).unwrap();
    assert!(Arc::ptr_eq(&made.schema(), &batch.schema()));
}

#[test]
fn event_time_follows_its_column_under_any_name() {
    let edge = EdgeSchema::new(schema()).with_time("at").unwrap();
    let outputs = |project: Project| project.outputs(std::slice::from_ref(&edge)).unwrap().remove(0);
    assert_eq!(outputs(Project::new([("x", "carrier"), ("when_it_was", "at")])).time, Some(1));
    assert_eq!(outputs(Project::new([("x", "carrier")])).time, None);
    assert_eq!(outputs(Project::with_columns([("x", "dep_delay + 1")])).time, Some(2));
    // A column that replaces the time is another one.
    assert_eq!(outputs(Project::with_columns([("at", "date_trunc('day', at)")])).time, None);
}

#[test]
fn with_column_adds_at_the_end_and_replaces_in_place() {
    let made =
        run(&Project::with_columns([("dep_delay", "dep_delay * 2"), ("b", "userId")]), Batch::new(records()));
    let made = made.unwrap();
    let names: Vec<_> = made.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["carrier", "dep_delay", "at", "userId", "b"]);
    assert_eq!(made.records().column(1).as_primitive::<Int64Type>().value(0), 122);
}

#[test]
fn modes_are_kept_or_refused() {
    let upsert = EdgeSchema::new(schema()).with_mode(Mode::Upsert(vec!["carrier".into()]));
    let renamed = Project::new([("who", "carrier"), ("n", "userId")]).outputs(std::slice::from_ref(&upsert));
    assert_eq!(renamed.unwrap()[0].mode, Mode::Upsert(vec!["who".into()]));
    let lost = Project::new([("n", "userId")]).outputs(std::slice::from_ref(&upsert)).unwrap_err();
    assert!(lost.to_string().contains("must pass \"carrier\" on"), "{lost}");
    let filtered = Filter::new("dep_delay > 1").outputs(std::slice::from_ref(&upsert)).unwrap_err();
    assert!(filtered.to_string().contains("key columns only (carrier)"), "{filtered}");
    Filter::new("carrier = 'UA'").outputs(&[upsert]).unwrap();

    let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(OP_COLUMN, DataType::Int8, false)));
    let retract = EdgeSchema::new(Arc::new(Schema::new(fields))).with_mode(Mode::Retract);
    let made = Project::new([("n", "userId")]).outputs(&[retract]).unwrap().remove(0);
    assert_eq!(made.schema.field(1).name(), OP_COLUMN);
    assert_eq!(made.mode, Mode::Retract);
}

#[test]
fn mistakes_name_the_expression_and_what_was_meant() {
    for (sql, said) in [
        (
            "dep_dleay > 60",
            "expression `dep_dleay > 60`: there is no column \"dep_dleay\" (did you mean \"dep_delay\"?); the columns are carrier, dep_delay, at, userId",
        ),
        ("nonsense_all_over > 60", "there is no column \"nonsense_all_over\"; the columns are"),
        ("dep_delay >", "expression `dep_delay >`: "),
        ("", "the expression is empty"),
        ("dep_delay > 60 dep_delay", "expression `dep_delay > 60 dep_delay`: "),
        ("sum(dep_delay) > 3", "sum() is an aggregate"),
        ("now() > at", "now() gives another result when the job is replayed"),
        ("random() > 0.5", "random() gives another result"),
        ("lowr(carrier)", "lowr"),
        ("userId in (select 1)", "subquery"),
        ("dep_delay + carrier > 'x' + 3", "expression `dep_delay + carrier > 'x' + 3`: "),
    ] {
        let message = mistake(sql);
        assert!(message.contains(said), "{sql}\n  said  {message}\n  not   {said}");
        assert!(!message.contains('\n'), "{message}");
    }
    let rust = ColumnExpression::from(col("dep_dleay").gt(lit(1))).plan(&schema()).err().unwrap().to_string();
    assert!(rust.contains("did you mean \"dep_delay\"?"), "{rust}");
    let condition =
        Filter::new("dep_delay + 1").outputs(&[EdgeSchema::new(schema())]).unwrap_err().to_string();
    assert!(condition.contains("`dep_delay + 1` is Int64, a condition must be true or false"), "{condition}");
}

#[test]
fn names_are_taken_as_written_and_rust_finds_them_whatever_their_case() {
    assert_eq!(mistake("userId > 1"), "");
    assert_eq!(mistake("\"userId\" > 1"), "");
    assert!(mistake("userid > 1").contains("did you mean \"userId\"?"));
    // DataFusion's `col` folds case.
    ColumnExpression::from(col("userId").gt(lit(1))).plan(&schema()).unwrap();
}

#[test]
fn what_fails_for_a_row_says_so_with_the_expression() {
    let expression = ColumnExpression::from("userId / (userId - 1)");
    let error = expression.evaluate(&records()).unwrap_err().to_string();
    assert!(
        error.contains("expression `userId / (userId - 1)` failed: ") && error.contains("ivide by zero"),
        "{error}"
    );
}

#[test]
fn projections_refuse_names_that_cannot_be() {
    let outputs = |project: Project| project.outputs(&[EdgeSchema::new(schema())]).unwrap_err().to_string();
    assert!(outputs(Project::new([("__op", "userId")])).contains("are the engine's"));
    assert!(outputs(Project::new([("a", "userId"), ("a", "at")])).contains("made twice"));
    assert!(outputs(Project::new(Vec::<(String, String)>::new())).contains("at least one column"));
    let unnamed = Project::select(["carrier", "dep_delay + 1"]).unwrap_err().to_string();
    assert!(unnamed.contains("needs a name"), "{unnamed}");
    let named = Project::select(["carrier", "dep_delay + 1 as more", "\"userId\""]).unwrap();
    let made = named.outputs(&[EdgeSchema::new(schema())]).unwrap().remove(0);
    let names: Vec<_> = made.schema.fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["carrier", "more", "userId"]);
}

#[test]
fn a_union_takes_the_first_streams_order_and_says_what_does_not_fit() {
    let edge = |fields: Vec<Field>| EdgeSchema::new(Arc::new(Schema::new(fields)));
    let first =
        edge(vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Utf8View, true)]);
    let second =
        edge(vec![Field::new("b", DataType::Utf8View, false), Field::new("a", DataType::Int64, true)]);
    let target = union_schema(&[&first, &second]).unwrap();
    assert_eq!(target.field(0).name(), "a");
    assert!(target.field(0).is_nullable() && target.field(1).is_nullable());
    let aligned = Project::to_schema(target.clone()).outputs(&[second]).unwrap().remove(0);
    assert_eq!(aligned.schema, target);
    let other =
        edge(vec![Field::new("a", DataType::Float64, true), Field::new("c", DataType::Utf8View, true)]);
    let error = union_schema(&[&first, &other]).unwrap_err().to_string();
    assert_eq!(
        error,
        "stream 2: column \"a\" is Float64, in the first stream it is Int64; stream 2: column \"b\" is missing \
         (it has \"c\"); stream 2: column \"c\" is not in the first stream"
    );
}
