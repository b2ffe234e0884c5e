//! Near-duplicates among recent rows of a key, by the cosine of their embeddings.
//!
//! Keyed state holds, for each key, at most `keep` embeddings of a byte an element. A row whose
//! embedding is near one of them is its duplicate; one that is near none is remembered. All rows
//! pass on, with two columns more: `duplicate_of` and `similarity`. A row without an id or an
//! embedding, or whose embedding has no direction (zeros, NaN, a null element), is near nothing.
//!
//! Cost: for each row one state access and `keep` dot products, some 20 ns each for 384 elements.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float32Builder, Int64Array, RecordBatch, StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema, SchemaRef};
use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::graph::{KeyedStream, Stream};
use thalweg_engine::metrics::Counter;
use thalweg_engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OperatorSnapshot, Step, single_input,
};
use thalweg_engine::record::{Batch, EdgeSchema};
use thalweg_engine::state::{KeyedState, KeyedStateSpec, StateIdentity, ValueState};
use thalweg_engine::time::{Micros, Watermark};
use thalweg_engine::{Context, Error, Result};

use crate::bound_input::{BoundInput, key_in};
use crate::process::keys::{KeyCursor, KeyedInput};

mod recent;
#[cfg(test)]
mod tests;

use recent::{Recent, RowId, Rule, Verdict};

/// The column that names the earlier row.
pub const DUPLICATE_OF: &str = "duplicate_of";
/// The column of the cosine to the nearest remembered row.
pub const SIMILARITY: &str = "similarity";

/// Rows that are looked at in one step.
const STEP_ROWS_MAX: usize = 256;
/// Keys whose time has come in one step.
const STEP_TIMERS_MAX: usize = 1_024;

/// Finds rows that are nearly what another row of the same key was not long before.
///
/// ```
/// use thalweg_engine::graph::Stream;
/// use thalweg_engine::time::HOUR;
/// use thalweg_operators::near_duplicates::NearDuplicates;
///
/// fn marked(embedded: &Stream) -> Stream {
///     let near = NearDuplicates::new("id", "embedding").threshold(0.92).keep(64).within(24 * HOUR);
///     near.on(&embedded.key_by(&["topic"]))
/// }
/// ```
#[derive(Clone, Debug)]
pub struct NearDuplicates {
    id: String,
    embedding: String,
    threshold: f32,
    keep: usize,
    within: Option<Micros>,
    key: Vec<usize>,
    input: Arc<BoundInput>,
}

impl NearDuplicates {
    /// `id` names rows (a column of text or `int64`), `embedding` is a column of vectors (`f32` or
    /// `f16`). A cosine of 0.9 or more makes near-duplicates of the last 64 of a key, for ever.
    pub fn new(id: impl Into<String>, embedding: impl Into<String>) -> NearDuplicates {
        NearDuplicates {
            id: id.into(),
            embedding: embedding.into(),
            threshold: 0.9,
            keep: 64,
            within: None,
            key: Vec::new(),
            input: Arc::default(),
        }
    }

    /// The least cosine of near-duplicates, above -1 and at most 1.
    #[must_use]
    pub fn threshold(mut self, threshold: f32) -> Self {
        self.threshold = threshold;
        self
    }

    /// How many embeddings are remembered of each key; the least recently seen makes room.
    #[must_use]
    pub fn keep(mut self, keep: usize) -> Self {
        self.keep = keep;
        self
    }

    /// For how long an embedding is remembered after it was last seen, in microseconds of event
    /// time. A key of which nothing is remembered takes no space.
    #[must_use]
    pub fn within(mut self, within: Micros) -> Self {
        self.within = Some(within);
        self
    }

    /// The key's columns, by index, as [`KeyedStream::key`] gives them.
    #[must_use]
    pub fn keyed_by(mut self, key: &[usize]) -> Self {
        self.key = key.to_vec();
        self
    }

    /// Looks at the rows of a keyed stream.
    pub fn on(self, stream: &KeyedStream) -> Stream {
        stream.apply(self.keyed_by(stream.key()))
    }

    fn rule(&self) -> Rule {
        Rule { threshold: self.threshold, keep: self.keep, within: self.within }
    }

    fn check(&self, input: &EdgeSchema) -> Result<()> {
        let column = |name: &str| {
            let field = input.schema.field_with_name(name);
            field.map(Field::data_type).map_err(|_| Error::user(format!("there is no column {name:?}")))
        };
        let id = column(&self.id)?;
        if !matches!(id, DataType::Int64 | DataType::Utf8View) {
            return Err(Error::user(format!(
                "column {:?} names rows and is {id}, not text or int64",
                self.id
            )));
        }
        let embedding = column(&self.embedding)?;
        let is_vector = match embedding {
            DataType::FixedSizeList(item, _) => {
                matches!(item.data_type(), DataType::Float32 | DataType::Float16)
            }
            _ => false,
        };
        if !is_vector {
            return Err(Error::user(format!(
                "column {:?} is {embedding}, not vectors of f32 or f16 (a fixed-size list)",
                self.embedding
            )));
        }
        if !(self.threshold > -1.0 && self.threshold <= 1.0) {
            return Err(Error::user(format!("a threshold of {} is no cosine", self.threshold)));
        }
        if self.keep == 0 {
            return Err(Error::user("at least one embedding must be kept"));
        }
        if self.within.is_some_and(|within| within <= 0) {
            return Err(Error::user("embeddings must be remembered for longer than nothing"));
        }
        if self.within.is_some() {
            input.event_time().context(|| "near-duplicates within a time".to_string())?;
        }
        for name in [DUPLICATE_OF, SIMILARITY] {
            if input.schema.index_of(name).is_ok() {
                return Err(Error::user(format!("there is a column {name:?} already")));
            }
        }
        Ok(())
    }
}

impl OperatorFactory for NearDuplicates {
    fn name(&self) -> String {
        "near duplicates".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        let input = self.input.get()?;
        Ok(Box::new(Finder {
            schema: output(&input.schema, &self.id),
            cursor: KeyCursor::new(KeyedInput::new(input, &self.key)),
            config: self.clone(),
            open: None,
            pending: Pending::Nothing,
        }))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let input = single_input(inputs)?;
        self.check(input)?;
        key_in(input, &self.key)?;
        self.input.bind(input)?;
        Ok(vec![EdgeSchema { schema: output(&input.schema, &self.id), ..input.clone() }])
    }

    fn identity(&self, inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        let input = &inputs.first()?.schema;
        let column = |name: &str| input.index_of(name).into_iter().collect::<Vec<_>>();
        let identity = StateIdentity::of("near duplicates").keyed_by(input, &self.key);
        let identity = identity.with_columns("id", input, &column(&self.id));
        Some(identity.with_columns("embedding", input, &column(&self.embedding)))
    }

    fn is_keyed(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        let NearDuplicates { id, embedding, threshold, keep, within, key, .. } = self;
        format!(
            "near duplicates of {embedding} by {key:?}, id {id}, threshold {threshold}, keep {keep}, within {within:?}"
        )
    }
}

fn output(input: &Schema, id: &str) -> SchemaRef {
    let id_type = input.field_with_name(id).map_or(DataType::Int64, |field| field.data_type().clone());
    let own = [Field::new(DUPLICATE_OF, id_type, true), Field::new(SIMILARITY, DataType::Float32, true)];
    let fields: Vec<_> = input.fields().iter().cloned().chain(own.map(Arc::new)).collect();
    Arc::new(Schema::new(fields))
}

enum Pending {
    Nothing,
    Rows(Batch, usize),
    Timers,
}

struct Finder {
    config: NearDuplicates,
    schema: SchemaRef,
    cursor: KeyCursor,
    open: Option<Open>,
    pending: Pending,
}

struct Open {
    state: KeyedState,
    recent: ValueState<Recent>,
    duplicates: Counter,
}

fn not_open() -> Error {
    Error::internal("near duplicates: not opened")
}

impl Finder {
    fn open_mut(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(not_open)
    }

    fn step(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => Ok(Step::Done),
            Pending::Timers => {
                let rule = self.config.rule();
                let more = self.open_mut()?.forget(cx.watermark(), rule)?;
                if more {
                    self.pending = Pending::Timers;
                }
                Ok(if more { Step::More } else { Step::Done })
            }
            Pending::Rows(batch, from) => {
                let rows = STEP_ROWS_MAX.min(batch.row_count() - from);
                let slice = batch.slice(from, rows);
                let verdicts = self.judge(&slice)?;
                cx.emit(widened(&self.schema, &slice, &verdicts)?);
                if from + rows == batch.row_count() {
                    return Ok(Step::Done);
                }
                self.pending = Pending::Rows(batch, from + rows);
                Ok(Step::More)
            }
        }
    }

    /// What becomes of each row.
    fn judge(&mut self, batch: &Batch) -> Result<Vec<Verdict>> {
        let Finder { config, cursor, open, .. } = self;
        let open = open.as_mut().ok_or_else(not_open)?;
        let rule = config.rule();
        let records = batch.records();
        let column = |name: &str| {
            records.column_by_name(name).ok_or_else(|| Error::internal(format!("no column {name:?}")))
        };
        let ids = column(&config.id)?;
        let vectors = as_f32(column(&config.embedding)?)?;
        let (values, width) =
            (vectors.values().as_primitive::<Float32Type>().values(), vectors.value_length() as usize);
        let elements = vectors.values().nulls();
        let keys = cursor.columns(batch);
        let rows = cursor.begin(batch, &keys)?;
        let mut verdicts = Vec::with_capacity(records.num_rows());
        for row in 0..records.num_rows() {
            let is_whole = |row: usize| {
                vectors.is_valid(row)
                    && elements.is_none_or(|e| e.slice(row * width, width).null_count() == 0)
            };
            if !is_whole(row) || ids.is_null(row) {
                verdicts.push(Verdict::default());
                continue;
            }
            cursor.select(&rows, row, &mut open.state);
            let at = rows.time(row).unwrap_or(0);
            let vector = &values[row * width..(row + 1) * width];
            let (verdict, timer) = open.recent.modify(&mut open.state, |recent| {
                let recent = recent.get_or_insert_default();
                let verdict = recent.see(id_at(ids, row), vector, at, rule);
                // One timer a key: at its time it is set anew for what is left.
                let timer = if recent.timer.is_none() { recent.forgets_at(rule) } else { None };
                recent.timer = recent.timer.or(timer);
                (verdict, timer)
            })?;
            if let Some(at) = timer {
                open.state.register_event_timer(at, &[])?;
            }
            open.duplicates.add(u64::from(verdict.duplicate_of.is_some()));
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }
}

impl Open {
    /// Forgets what has not been seen for long, of some keys; `true` when there may be more.
    fn forget(&mut self, watermark: Watermark, rule: Rule) -> Result<bool> {
        for _ in 0..STEP_TIMERS_MAX {
            if self.state.next_due_event_timer(watermark)?.is_none() {
                return Ok(false);
            }
            let next = self.recent.modify(&mut self.state, |recent| {
                let held = recent.as_mut()?;
                held.forget(watermark.0, rule);
                held.timer = held.forgets_at(rule);
                let next = held.timer;
                if held.is_empty() {
                    *recent = None;
                }
                next
            })?;
            if let Some(at) = next {
                self.state.register_event_timer(at, &[])?;
            }
        }
        Ok(true)
    }
}

/// The rows with what became of them.
fn widened(schema: &SchemaRef, batch: &Batch, verdicts: &[Verdict]) -> Result<Batch> {
    let is_text = *schema.field_with_name(DUPLICATE_OF)?.data_type() == DataType::Utf8View;
    let named = verdicts.iter().map(|verdict| verdict.duplicate_of.as_ref());
    let duplicate_of: ArrayRef = if is_text {
        let text = |id: &RowId| match id {
            RowId::Text(text) => text.clone(),
            RowId::Number(number) => number.to_string(),
        };
        Arc::new(StringViewArray::from_iter(named.map(|id| id.map(text))))
    } else {
        let number = |id: &RowId| match id {
            RowId::Number(number) => Some(*number),
            RowId::Text(_) => None,
        };
        Arc::new(Int64Array::from_iter(named.map(|id| id.and_then(number))))
    };
    let mut similarity = Float32Builder::with_capacity(verdicts.len());
    verdicts.iter().for_each(|verdict| similarity.append_option(verdict.similarity));
    let own: [ArrayRef; 2] = [duplicate_of, Arc::new(similarity.finish())];
    let columns = batch.records().columns().iter().cloned().chain(own).collect();
    Ok(Batch::new(RecordBatch::try_new(schema.clone(), columns)?))
}

fn id_at(ids: &ArrayRef, row: usize) -> RowId {
    match ids.data_type() {
        DataType::Int64 => RowId::Number(ids.as_primitive::<Int64Type>().value(row)),
        _ => RowId::Text(ids.as_string_view().value(row).to_string()),
    }
}

/// The vectors as `f32`; a slice keeps to its rows.
fn as_f32(column: &ArrayRef) -> Result<FixedSizeListArray> {
    let DataType::FixedSizeList(item, width) = column.data_type() else {
        return Err(Error::internal("an embedding is no fixed-size list"));
    };
    if *item.data_type() == DataType::Float32 {
        return Ok(column.as_fixed_size_list().clone());
    }
    let wanted =
        DataType::FixedSizeList(Arc::new(item.as_ref().clone().with_data_type(DataType::Float32)), *width);
    Ok(cast(column, &wanted)?.as_fixed_size_list().clone())
}

impl Operator for Finder {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let mut state = cx.keyed_state(KeyedStateSpec::of_backend(cx.backend.as_ref()))?;
        let recent = state.value("recent")?;
        let duplicates = cx.metrics.counter("near_duplicates_total", "Rows that were near an earlier one.");
        self.open = Some(Open { state, recent, duplicates });
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        if batch.row_count() == 0 {
            return Ok(Step::Done);
        }
        self.pending = Pending::Rows(batch, 0);
        self.step(cx)
    }

    fn watermark(&mut self, _watermark: Watermark, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.pending = Pending::Timers;
        self.step(cx)
    }

    fn is_interruptible(&self) -> bool {
        true
    }

    fn resume(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.step(cx)
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        self.open_mut()?.state.snapshot(checkpoint)
    }

    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.open_mut()?.state.checkpoint_completed(checkpoint)
    }

    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.open_mut()?.state.checkpoint_aborted(checkpoint)
    }
}
