//! Running aggregates per key: after each batch one row for each key that it changed, which
//! replaces the key's earlier row (upsert by key).
//!
//! Costs per row: a look-up (two prefetched cache lines), a few nanoseconds per aggregate, and its
//! share of one output row. Nothing is allocated per row.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};
use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::metrics::Gauge;
use thalweg_engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OperatorSnapshot, Step, single_input,
};
use thalweg_engine::record::{Batch, EdgeSchema, Mode};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::state::columnar::{ColumnarSpec, ColumnarState, Touched};
use thalweg_engine::{Error, Result};

use crate::aggregate::{AggregateSet, AggregateSpec};
use crate::bound_input::{BoundInput, key_in};

/// Bytes of keys and states that an instance keeps in memory when neither the operator nor the
/// process's budget says.
const MEMORY_BYTES_DEFAULT: usize = 256 * 1024 * 1024;

/// Running aggregates per key. The input is keyed and append; the output has the key's columns and
/// the aggregates, in upsert mode by the key.
#[derive(Clone, Debug)]
pub struct KeyedAggregate {
    key: Vec<usize>,
    aggregates: Vec<AggregateSpec>,
    memory_bytes: Option<usize>,
    input: Arc<BoundInput>,
}

impl KeyedAggregate {
    /// Aggregates per key; `key` are the key's columns, as [`thalweg_engine::graph::KeyedStream::key`]
    /// gives them.
    pub fn new(key: &[usize], aggregates: impl IntoIterator<Item = AggregateSpec>) -> Self {
        KeyedAggregate {
            key: key.to_vec(),
            aggregates: aggregates.into_iter().collect(),
            memory_bytes: None,
            input: Arc::default(),
        }
    }

    /// Bounds the bytes of keys and states that an instance keeps in memory; the others are in its
    /// store. By default the instance's share of the process's budget.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = Some(bytes);
        self
    }

    fn output(&self, input: &EdgeSchema, set: &AggregateSet) -> Result<SchemaRef> {
        let mut fields: Vec<_> = self.key.iter().map(|&column| input.schema.field(column).clone()).collect();
        for field in set.fields() {
            if fields.iter().any(|other| other.name() == field.name()) {
                let name = field.name();
                return Err(Error::user(format!(
                    "two output columns are called {name:?}; give one an alias"
                )));
            }
            fields.push(field);
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

impl OperatorFactory for KeyedAggregate {
    fn name(&self) -> String {
        "aggregate".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        let input = self.input.get()?;
        let set = AggregateSet::bind(&self.aggregates, input, 0)?;
        Ok(Box::new(KeyedAggregateOperator {
            output: self.output(input, &set)?,
            key_types: self
                .key
                .iter()
                .map(|&column| input.schema.field(column).data_type().clone())
                .collect(),
            config: self.clone(),
            set,
            state: None,
            touched: Touched::default(),
            keys_in_memory: Gauge::default(),
        }))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let input = single_input(inputs)?;
        key_in(input, &self.key)?;
        let set = AggregateSet::bind(&self.aggregates, input, 0)?;
        let output = self.output(input, &set)?;
        self.input.bind(input)?;
        let key = output.fields().iter().take(self.key.len()).map(|field| field.name().clone()).collect();
        Ok(vec![EdgeSchema::new(output).with_mode(Mode::Upsert(key))])
    }

    fn identity(&self, inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        let input = inputs.first()?;
        let identity = StateIdentity::of("aggregate").keyed_by(&input.schema, &self.key);
        AggregateSet::identify(&self.aggregates, input, identity)
    }

    fn is_keyed(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("aggregate by {:?}: {:?}", self.key, self.aggregates)
    }
}

struct KeyedAggregateOperator {
    config: KeyedAggregate,
    key_types: Vec<arrow::datatypes::DataType>,
    set: AggregateSet,
    output: SchemaRef,
    state: Option<ColumnarState>,
    touched: Touched,
    keys_in_memory: Gauge,
}

/// The columns of a batch that are its key.
pub(crate) fn key_columns(records: &RecordBatch, key: &[usize]) -> Vec<ArrayRef> {
    key.iter().map(|&column| records.column(column).clone()).collect()
}

/// The key hashes of a batch on a keyed edge.
///
/// # Errors
/// An internal error when there are none.
pub(crate) fn key_hashes(batch: &Batch) -> Result<&[u64]> {
    let hashes =
        batch.key_hashes().ok_or_else(|| Error::internal("a keyed operator got rows without keys"))?;
    Ok(hashes.values())
}

/// What an instance may keep in memory: what the operator says, or its share of the process's
/// budget.
pub(crate) fn memory_bytes(own: Option<usize>, cx: &OpenContext<'_>) -> usize {
    own.or_else(|| cx.backend.instance_bytes()).unwrap_or(MEMORY_BYTES_DEFAULT)
}

impl KeyedAggregateOperator {
    /// Adds rows to their keys' states, and emits the states that changed.
    fn update(&mut self, batch: &Batch, cx: &mut OperatorContext<'_>) -> Result<()> {
        let state = self.state.as_mut().ok_or_else(not_open)?;
        let records = batch.records();
        let keys = key_columns(records, &self.config.key);
        state.look_up(&keys, key_hashes(batch)?, &[], batch.rows_bytes(), &mut self.touched)?;
        self.set.update(state, records, &self.touched.slots)?;

        let changed = &self.touched.changed;
        // Every row of another key: the key's columns go on as they are.
        let mut columns = if changed.len() == records.num_rows() {
            keys
        } else {
            let rows = UInt32Array::from(self.touched.first_rows.clone());
            keys.iter().map(|key| Ok(take(key, &rows, None)?)).collect::<Result<_>>()?
        };
        columns.extend(self.set.emit(state, changed)?);
        let options = RecordBatchOptions::new().with_row_count(Some(changed.len()));
        let records = RecordBatch::try_new_with_options(self.output.clone(), columns, &options)?;
        cx.emit(Batch::new(records));
        self.keys_in_memory.set(state.len() as i64);
        Ok(())
    }
}

impl Operator for KeyedAggregateOperator {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let spec = ColumnarSpec {
            key: self.key_types.clone(),
            namespaced: false,
            words: self.set.words().to_vec(),
            timer_offsets: Vec::new(),
            describe: self.set.describe(),
            describe_timers: String::new(),
            bytes_max: memory_bytes(self.config.memory_bytes, cx),
        };
        self.keys_in_memory = cx.metrics.gauge("state_keys_in_memory", "Keys whose state is in memory.");
        self.state = Some(ColumnarState::open(cx, &spec)?);
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let (rows, bytes, mut begin) = (batch.row_count(), batch.rows_bytes(), 0);
        while begin < rows {
            let state = self.state.as_ref().ok_or_else(not_open)?;
            let count = state.rows_at_once(rows - begin, bytes / rows * (rows - begin));
            let part = if count == rows { batch.clone() } else { batch.slice(begin, count) };
            self.update(&part, cx)?;
            begin += count;
        }
        Ok(Step::Done)
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        self.state.as_mut().ok_or_else(not_open)?.snapshot()
    }
}

pub(crate) fn not_open() -> Error {
    Error::internal("the operator was not opened")
}

#[cfg(test)]
#[path = "keyed_aggregate_tests.rs"]
mod tests;
