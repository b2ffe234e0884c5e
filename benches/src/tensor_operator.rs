//! `tensor_operator_overhead`: what the operator costs. A job of generator, transform and blackhole
//! against the same batches given to the backend alone; one thread computes on either side. The model
//! is a small encoder (one layer of 64), for a large one would hide whatever the operator costs.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use thalweg_connectors::blackhole::BlackHole;
use thalweg_connectors::generator::{Generate, Generator};
use thalweg_connectors::sink::StreamSink;
use thalweg_engine::graph::Environment;
use thalweg_engine::operator::{Operator, OperatorContext, OperatorFactory, Step};
use thalweg_engine::record::{Batch, EdgeSchema};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Error, Result};
use thalweg_operators::tensor::{Backend, Transform};
use thalweg_tensor::bert::SentenceEncoder;
use thalweg_tensor::random_encoder::RandomEncoder;
use thalweg_tensor::{CpuBackend, Element, Graph, GraphBuilder, Limits, Tensor, TensorBatch};

use crate::job::{JobOptions, steady};
use crate::results::Row;
use crate::sample::{Role, Sample};
use crate::settings::Settings;
use crate::tensor_case::failed;
use crate::usage::Meter;

/// Rows of a batch on the device, and tokens of each.
const ROWS: usize = 256;
const TOKENS: usize = 32;
/// Ids that the small vocabulary has.
const VOCABULARY: i32 = 40;

fn encoder() -> Result<SentenceEncoder> {
    let directory =
        tempfile::tempdir().map_err(|error| Error::external("cannot make a directory").caused_by(error))?;
    let shape = RandomEncoder { layers: 1, hidden: 64, intermediate: 256, ..RandomEncoder::default() };
    shape.write(directory.path()).map_err(failed)?;
    SentenceEncoder::open(directory.path(), Element::F32).map_err(failed)
}

fn graph(encoder: &SentenceEncoder) -> Result<Graph> {
    let mut builder = GraphBuilder::new();
    let tokens = builder.tokens("tokens", encoder.length_max()).map_err(failed)?;
    let embedding = encoder.append(&mut builder, tokens).map_err(failed)?;
    builder.output("embedding", embedding).map_err(failed)?;
    builder.build().map_err(failed)
}

fn ids(rows: usize) -> Vec<i32> {
    (0..rows * TOKENS).map(|index| (index * 7 % VOCABULARY as usize) as i32).collect()
}

/// Gives each row of a generator its tokens, of memory that is there.
#[derive(Clone)]
struct WithTokens {
    rows: RecordBatch,
}

impl WithTokens {
    fn new() -> Result<WithTokens> {
        const MOST: usize = 16_384;
        let item = Arc::new(Field::new("item", DataType::Int32, false));
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(TOKENS, MOST));
        let list: ArrayRef =
            Arc::new(ListArray::try_new(item.clone(), offsets, Arc::new(Int32Array::from(ids(MOST))), None)?);
        let schema: SchemaRef =
            Arc::new(Schema::new(vec![Field::new("tokens", DataType::List(item), false)]));
        Ok(WithTokens { rows: RecordBatch::try_new(schema, vec![list])? })
    }
}

impl OperatorFactory for WithTokens {
    fn name(&self) -> String {
        "with tokens".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }

    fn outputs(&self, _inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(vec![EdgeSchema::new(self.rows.schema())])
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

impl Operator for WithTokens {
    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        cx.emit(Batch::new(self.rows.slice(0, batch.row_count().min(self.rows.num_rows()))));
        Ok(Step::Done)
    }
}

/// Runs one side.
///
/// # Errors
/// What fails it.
pub fn one(role: Role, settings: &Settings) -> Result<Sample> {
    let encoder = encoder()?;
    let graph = graph(&encoder)?;
    match role {
        Role::Subject => {
            let environment = Environment::new();
            // Rows are counted where they leave the transform: more than that may be gathered.
            let source = environment.source(Generator::new([("id", Generate::Sequence { start: 0 })]));
            let transform = Transform::new(Arc::new(graph), Arc::new(encoder.weights().clone()))
                .backend(Arc::new(CpuBackend::new()))
                .batch(ROWS);
            let embedded = source.uid("source").apply(WithTokens::new()?).uid("with-tokens").apply(transform);
            embedded.uid(crate::job::EVENTS).sink(BlackHole::new());
            steady(&environment, &JobOptions::default(), 10_000, settings.window)
        }
        Role::Baseline => {
            let limits = Limits::default();
            let mut plan =
                CpuBackend::new().compile(&graph, encoder.weights(), &[], &limits).map_err(failed)?;
            let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(TOKENS, ROWS));
            let tensor = Tensor::ragged(Element::I32, [], offsets, Buffer::from_vec(ids(ROWS)));
            let batch = TensorBatch { rows: ROWS, tensors: vec![tensor.map_err(failed)?] };
            let mut run = || -> Result<()> {
                plan.submit(batch.clone()).map_err(failed)?;
                plan.finish().map_err(failed).map(drop)
            };
            for _ in 0..20 {
                run()?;
            }
            let meter = Meter::start(0);
            let mut rows = 0;
            while meter.elapsed() < settings.window {
                run()?;
                rows += ROWS as u64;
            }
            Ok(meter.stop(rows))
        }
    }
}

/// The report's row.
pub fn rows(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    vec![Row {
        name: name.to_string(),
        value: subject.get("rows_per_second"),
        unit: "rows/s",
        baseline: "the backend alone",
        baseline_value: baseline.get("rows_per_second"),
        aim: "ratio >= 0.95",
    }]
}
