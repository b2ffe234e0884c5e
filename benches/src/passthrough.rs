//! `engine_passthrough`: what the engine costs when it does nothing. Generator, a projection and a
//! blackhole in one task, against a loop that makes the same batches, evaluates the same
//! expression and counts the same rows.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::kernels::numeric::{add_wrapping, mul_wrapping};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use thalweg_connectors::blackhole::BlackHole;
use thalweg_connectors::generator::{Generate, Generator};
use thalweg_connectors::sink::StreamSink;
use thalweg_engine::Result;
use thalweg_engine::graph::Environment;
use thalweg_engine::operator::{Operator, OperatorContext, OperatorFactory, Step, single_input};
use thalweg_engine::record::{Batch, EdgeSchema};
use thalweg_engine::state::StateIdentity;

use crate::catalogue::per_core_second;
use crate::job::{EVENTS, JobOptions, steady};
use crate::pump::pump;
use crate::results::Row;
use crate::sample::{Role, Sample};
use crate::settings::Settings;
use crate::usage::Meter;

fn source() -> Generator {
    Generator::new([("id", Generate::Sequence { start: 0 }), ("value", Generate::Random)])
}

/// `id, value * 31 + id as mixed`: two columns in, two out, one of them computed.
#[derive(Clone)]
struct Projection {
    schema: SchemaRef,
}

impl Projection {
    fn new() -> Projection {
        let fields = ["id", "mixed"].map(|name| Field::new(name, DataType::UInt64, false));
        Projection { schema: Arc::new(Schema::new(fields.to_vec())) }
    }

    fn evaluate(&self, records: &RecordBatch) -> Result<RecordBatch> {
        let id = records.column(0);
        let product = mul_wrapping(records.column(1), &UInt64Array::new_scalar(31))?;
        let mixed: ArrayRef = add_wrapping(&product.as_primitive::<UInt64Type>(), id)?;
        Ok(RecordBatch::try_new(self.schema.clone(), vec![id.clone(), mixed])?)
    }
}

impl OperatorFactory for Projection {
    fn name(&self) -> String {
        "project".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        single_input(inputs)?;
        Ok(vec![EdgeSchema::new(self.schema.clone())])
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

impl Operator for Projection {
    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        cx.emit(Batch::new(self.evaluate(batch.records())?));
        Ok(Step::Done)
    }
}

/// Runs one side.
///
/// # Errors
/// What fails it.
pub fn one(role: Role, settings: &Settings) -> Result<Sample> {
    match role {
        Role::Subject => {
            let environment = Environment::new();
            environment.source(source()).uid(EVENTS).apply(Projection::new()).sink(BlackHole::new());
            steady(&environment, &JobOptions::default(), 0, settings.window)
        }
        Role::Baseline => {
            let (projection, mut rows, meter) = (Projection::new(), 0, Meter::start(0));
            pump(&source(), |batch| {
                let made = black_box(projection.evaluate(batch.records())?);
                rows += made.num_rows() as u64;
                Ok(meter.elapsed() < settings.window)
            })?;
            Ok(meter.stop(rows))
        }
    }
}

/// The report's rows.
pub fn rows(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    vec![per_core_second(name, subject, baseline, "bare loop, same batches", "ratio >= 0.95")]
}
