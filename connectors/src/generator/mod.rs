//! The generator: rows that are a pure function of a seed and their number, as many and as fast as
//! asked for. It feeds benchmarks, demos and tests.
//!
//! Rows are numbered over the whole source. Blocks of [`BLOCK_ROWS`] rows go to the splits in
//! turn, so the rows do not depend on how many splits there are, and time advances in all splits
//! alike. The position in a checkpoint is a row count: a replay is identical.
//!
//! The cost a row: about one multiplication-based hash for each random column, in plain loops over
//! one column at a time; one allocation a column and batch.

mod column;
mod reader;
mod zipf;

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::source::{Enumerator, ReaderOpenContext, Source, SourceReader, SplitId, SplitState};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Context, Error, Result};

pub use column::{Generate, KeyDistribution};
use reader::{GeneratorReader, SplitPosition};

use crate::deal::FixedSplits;
use crate::position;

/// Rows of a batch, unless they are long, and of a block that goes to one split.
pub const BLOCK_ROWS: u64 = 8_192;

/// A source of generated rows.
///
/// ```
/// use thalweg_connectors::generator::{Generate, Generator, KeyDistribution};
///
/// let key = Generate::Key { cardinality: 100_000, distribution: KeyDistribution::Uniform };
/// let source = Generator::new([("id", Generate::Sequence { start: 0 }), ("key", key)]).count(1_000_000).seed(7);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Generator {
    columns: Vec<(String, Generate)>,
    count: Option<u64>,
    rows_per_second: Option<u64>,
    splits: Option<u32>,
    batch_rows: u64,
    seed: u64,
}

impl Generator {
    /// An endless source with these columns, as fast as it goes, seed 0.
    pub fn new(columns: impl IntoIterator<Item = (impl Into<String>, Generate)>) -> Generator {
        let columns = columns.into_iter().map(|(name, generate)| (name.into(), generate)).collect();
        Generator {
            columns,
            count: None,
            rows_per_second: None,
            splits: None,
            batch_rows: BLOCK_ROWS,
            seed: 0,
        }
    }

    /// Ends after this many rows, over all splits.
    #[must_use]
    pub fn count(mut self, rows: u64) -> Generator {
        self.count = Some(rows);
        self
    }

    /// At most this many rows a second, over all splits.
    #[must_use]
    pub fn rows_per_second(mut self, rows: u64) -> Generator {
        self.rows_per_second = Some(rows.max(1));
        self
    }

    /// How many splits there are; by default as many as readers at the first start. The rows do
    /// not depend on it.
    #[must_use]
    pub fn splits(mut self, splits: u32) -> Generator {
        self.splits = Some(splits.max(1));
        self
    }

    /// Emits at most this many rows at a time: small batches let barriers in between.
    #[must_use]
    pub fn batch_rows(mut self, rows: u64) -> Generator {
        self.batch_rows = rows.clamp(1, BLOCK_ROWS);
        self
    }

    /// What the random columns are derived from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Generator {
        self.seed = seed;
        self
    }

    fn schema(&self) -> SchemaRef {
        let fields =
            self.columns.iter().map(|(name, generate)| Field::new(name, generate.data_type(), false));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

impl Source for Generator {
    fn name(&self) -> String {
        "generator".to_string()
    }

    fn output(&self) -> Result<EdgeSchema> {
        if self.columns.is_empty() {
            return Err(Error::user("the generator has no columns"));
        }
        for (name, generate) in &self.columns {
            generate.check().context(|| format!("generator column {name:?}"))?;
        }
        Ok(EdgeSchema::new(self.schema()))
    }

    fn identity(&self) -> StateIdentity {
        StateIdentity::of("generator").with("seed", self.seed.to_string())
    }

    fn enumerator(&self, restored: Option<&[u8]>) -> Result<Box<dyn Enumerator>> {
        let splits = self.splits;
        let initial = move |parallelism: u32| {
            let of = splits.unwrap_or(parallelism).max(1);
            (0..of).map(|index| SplitPosition { index, of, next: 0 }.state()).collect()
        };
        let count = self.count;
        let is_at_end = move |state: &SplitState| {
            let position: Result<SplitPosition> = position::decode(&state.position, "the position");
            position.is_ok_and(|at| count.is_some_and(|count| at.next_row() >= count))
        };
        Ok(Box::new(FixedSplits::configured(restored, |_| 1, initial, is_at_end)?))
    }

    fn reader(&self, _cx: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(GeneratorReader::new(self, self.schema())))
    }

    fn describe(&self) -> String {
        // Neither count, rate nor batches change what a row holds: they may change at a restore.
        format!("generator {:?} seed {}", self.columns, self.seed)
    }
}

impl SplitPosition {
    fn state(self) -> Result<SplitState> {
        let id = SplitId(format!("{:05}-of-{:05}", self.index, self.of).into());
        Ok(SplitState { id, position: position::encode(&self)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::source::{SourceSuite, rows_of};
    use arrow::array::cast::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType, UInt64Type};

    fn every_kind() -> Generator {
        let zipf = KeyDistribution::Zipf { exponent: 1.1 };
        Generator::new([
            ("id", Generate::Sequence { start: 10 }),
            ("bits", Generate::Random),
            ("n", Generate::Integer { min: -3, max: 3 }),
            ("f", Generate::Float { min: -1.0, max: 1.0 }),
            ("key", Generate::Key { cardinality: 100, distribution: zipf }),
            (
                "user",
                Generate::TextKey {
                    prefix: "user-".into(),
                    cardinality: 1_000_000,
                    distribution: KeyDistribution::Uniform,
                },
            ),
            ("text", Generate::Text { min_bytes: 0, max_bytes: 30 }),
            ("carrier", Generate::OneOf(vec!["UA".into(), "DL".into()])),
            ("ts", Generate::Time { start: 1_000_000, step: 1_000, jitter: 5_000 }),
        ])
        .seed(42)
    }

    #[test]
    fn rows_do_not_depend_on_the_number_of_splits_or_readers() {
        let whole = rows_of(&every_kind().count(50_000).splits(1), 1).unwrap();
        assert_eq!(whole.len(), 50_000);
        for (splits, readers) in [(3, 1), (3, 2), (7, 3), (2, 5)] {
            let rows = rows_of(&every_kind().count(50_000).splits(splits), readers).unwrap();
            assert!(rows == whole, "{splits} splits, {readers} readers");
        }
        let other = rows_of(&every_kind().seed(43).count(50_000), 1).unwrap();
        assert!(other != whole);
    }

    #[test]
    fn values_are_where_they_were_asked_to_be() {
        let reader = GeneratorReader::new(&every_kind(), every_kind().schema());
        let batch = reader.make(8_192, 8_192).unwrap();
        assert_eq!(batch.column(0).as_primitive::<UInt64Type>().value(0), 8_202);
        let integers = batch.column(2).as_primitive::<Int64Type>();
        assert_eq!((integers.values().iter().min(), integers.values().iter().max()), (Some(&-3), Some(&3)));
        let floats = batch.column(3).as_primitive::<Float64Type>();
        assert!(floats.values().iter().all(|v| (-1.0..1.0).contains(v)));
        assert!(batch.column(4).as_primitive::<UInt64Type>().values().iter().all(|v| *v < 100));
        assert!(batch.column(5).as_string_view().iter().flatten().all(|v| v.starts_with("user-")));
        let lengths: Vec<_> = batch.column(6).as_string_view().iter().flatten().map(str::len).collect();
        assert_eq!((lengths.iter().min(), lengths.iter().max()), (Some(&0), Some(&30)));
        let times = batch.column(8).as_primitive::<TimestampMicrosecondType>().values();
        let mut highest = times[0];
        for (row, time) in times.iter().enumerate() {
            let due = 1_000_000 + (8_192 + row as i64) * 1_000;
            assert!(*time <= due && *time >= due - 5_000);
            assert!(*time >= highest - 5_000);
            highest = highest.max(*time);
        }
    }

    #[test]
    fn a_generator_is_a_source() {
        SourceSuite::new(every_kind().count(40_001).splits(3)).check().unwrap();
        SourceSuite::new(every_kind().count(0)).check().unwrap();
        let long = Generator::new([("text", Generate::Text { min_bytes: 3_000, max_bytes: 4_096 })]);
        SourceSuite::new(long.count(1_200)).check().unwrap();
        SourceSuite::new(every_kind().count(30_000).rows_per_second(1_000_000)).check().unwrap();
    }

    #[test]
    fn a_column_that_cannot_be_made_is_named() {
        let source =
            Generator::new([("k", Generate::Key { cardinality: 0, distribution: KeyDistribution::Uniform })]);
        let error = source.output().unwrap_err().to_string();
        assert_eq!(error, "generator column \"k\": cardinality must be at least 1");
    }

    #[test]
    fn whole_ranges_of_integers_are_reached() {
        let source =
            Generator::new([("n", Generate::Integer { min: i64::MIN, max: i64::MAX })]).count(10_000);
        let batch = GeneratorReader::new(&source, source.schema()).make(0, 10_000).unwrap();
        let values = batch.column(0).as_primitive::<Int64Type>().values();
        assert!(values.iter().any(|v| *v < i64::MIN / 2) && values.iter().any(|v| *v > i64::MAX / 2));
    }

    /// Not a benchmark: a floor that only a lost vectorisation would fall under. Debug builds are
    /// slow; `benches/` measures.
    #[test]
    fn two_u64_columns_are_made_in_bulk() {
        let key = Generate::Key { cardinality: 100_000, distribution: KeyDistribution::Uniform };
        let source = Generator::new([("id", Generate::Sequence { start: 0 }), ("key", key)]);
        let reader = GeneratorReader::new(&source, source.schema());
        let started = std::time::Instant::now();
        let mut made = 0;
        for block in 0..2_000 {
            made += reader.make(block * BLOCK_ROWS, BLOCK_ROWS as usize).unwrap().num_rows();
        }
        let per_second = made as f64 / started.elapsed().as_secs_f64();
        println!("generator: {:.1} M rows/s", per_second / 1e6);
        assert!(per_second > 100_000.0);
    }
}
