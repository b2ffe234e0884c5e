//! What a program that builds a job needs: `use thalweg::prelude::*;`.

pub use crate::run::{Job, RunningJob};
pub use datafusion_expr::{Expr, col, lit};
pub use thalweg_connectors::collect::Collected;
pub use thalweg_connectors::file::{FileSink, FileSource};
pub use thalweg_connectors::format::{Csv, Json, OnDecodeError, Raw};
pub use thalweg_connectors::generator::{Generate, Generator, KeyDistribution};
pub use thalweg_connectors::kafka::{KafkaSource, OnOutage, Until};
pub use thalweg_connectors::print::PrintSink;
pub use thalweg_connectors::prism::{PrismSink, PrismTarget};
pub use thalweg_connectors::sink::StreamSink;
pub use thalweg_connectors::vec::VecSource;
pub use thalweg_engine::cluster::{JobSummary, Outcome, RestartStrategy};
pub use thalweg_engine::graph::{Environment, Graph, KeyedStream, Stream};
pub use thalweg_engine::record::{Record, Timestamp};
pub use thalweg_engine::state::{ListState, MapState, StateSize, ValueState};
pub use thalweg_engine::time::{DAY, HOUR, MILLI, MINUTE, Micros, SECOND, Watermark, WatermarkStrategy};
pub use thalweg_engine::{Context, Error, Result};
pub use thalweg_operators::StreamExt;
pub use thalweg_operators::aggregate::{AggregateSpec, count, first, last, max, mean, min, sum};
pub use thalweg_operators::expression::ColumnExpression;
pub use thalweg_operators::near_duplicates::NearDuplicates;
pub use thalweg_operators::process::{
    BroadcastContext, KeyedBroadcastProcess, KeyedCoProcess, KeyedProcess, KeyedProcessExt, ProcessContext,
    ProcessOpen, TimeDomain, Timer,
};
#[cfg(feature = "tensor")]
pub use thalweg_operators::tensor::{Batching, OnBadRow, SentenceEncoder, TensorExt, Transform};
pub use thalweg_operators::typed::{Out, SideOutput, SideOutputs, TypedExt, TypedKeyedStream, TypedStream};
pub use thalweg_operators::window::{TumblingWindow, WindowExt};
