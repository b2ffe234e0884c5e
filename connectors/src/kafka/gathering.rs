//! From the messages of a fetch to one batch: payloads go to the decoder, which decodes them all
//! at once; which split and offset each row came from is kept run-length beside them until then,
//! so that a bad record can be named.

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use thalweg_engine::record::Batch;
use thalweg_engine::source::SplitRun;
use thalweg_engine::{Context, Error, Result};

use super::client::Message;
use super::cluster_reader::Split;
use super::metadata_columns::MetadataBuilders;
use super::tombstones::Tombstones;
use crate::format::{BadRecord, DeadLetter, DeadLetters, Decoder, OnDecodeError};

/// Consecutive offsets of one split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    split: usize,
    first: i64,
    rows: usize,
}

/// What a fetch became.
#[derive(Default)]
pub(crate) struct Gathered {
    /// The rows and which split each run of them is of.
    pub rows: Option<(Batch, Vec<SplitRun>)>,
    /// Records that could not be decoded, for the side output.
    pub dead_letters: Option<Batch>,
    /// The records that could not be decoded.
    pub bad: Vec<BadRecord>,
    /// How many records without a value were left out.
    pub tombstones: u64,
}

/// Takes messages of one cluster in, gives a batch out.
pub(crate) struct Gathering {
    decoder: Box<dyn Decoder>,
    metadata: Option<MetadataBuilders>,
    schema: SchemaRef,
    on_decode_error: OnDecodeError,
    runs: Vec<Run>,
    letters: DeadLetters,
    tombstones: Tombstones,
    dropped: u64,
}

impl Gathering {
    /// `schema`: the decoder's columns, then those of `metadata`, then what `tombstones` mark rows with.
    pub fn new(
        decoder: Box<dyn Decoder>,
        metadata: Option<MetadataBuilders>,
        schema: SchemaRef,
        on_decode_error: OnDecodeError,
        tombstones: Tombstones,
    ) -> Self {
        let letters = DeadLetters::new();
        let runs = Vec::new();
        Gathering { decoder, metadata, schema, on_decode_error, runs, letters, tombstones, dropped: 0 }
    }

    /// Takes a record of `splits[index]`.
    #[inline]
    pub fn push(&mut self, message: &Message<'_>, index: usize, split: &Split) {
        match message.value {
            Some(value) => self.decoder.push(value),
            None if self.tombstones.are_dropped() => {
                self.dropped += 1;
                return;
            }
            None => {
                self.tombstones.push(self.decoder.pending(), message.key);
                self.decoder.push_null();
            }
        }
        self.note(index, message.offset);
        if let Some(metadata) = &mut self.metadata {
            metadata.push(message, &split.partition);
        }
    }

    #[inline]
    fn note(&mut self, split: usize, offset: i64) {
        match self.runs.last_mut() {
            Some(run) if run.split == split && run.first + run.rows as i64 == offset => run.rows += 1,
            _ => self.runs.push(Run { split, first: offset, rows: 1 }),
        }
    }

    /// Decodes what was taken in.
    ///
    /// # Errors
    /// A user error that names cluster, topic, partition and offset of the first record that
    /// cannot be decoded, when the job is to fail then.
    pub fn finish(&mut self, splits: &[Split]) -> Result<Gathered> {
        let tombstones = std::mem::take(&mut self.dropped);
        if self.runs.is_empty() {
            return Ok(Gathered { tombstones, ..Gathered::default() });
        }
        let runs = std::mem::take(&mut self.runs);
        let decoded = self.decoder.flush()?;
        let (decoded, marks) = self.tombstones.complete(decoded)?;
        let metadata = self.metadata.as_mut().map(MetadataBuilders::finish);
        self.report(&decoded.bad, &runs, splits)?;
        let dead_letters = self.letters.finish()?.map(Batch::new);
        let total: usize = runs.iter().map(|run| run.rows).sum();
        let good = decoded.records.num_rows();
        if good + decoded.bad.len() != total {
            let (lost, bad) = (total, decoded.bad.len());
            return Err(Error::internal(format!(
                "{lost} records were decoded to {good} rows and {bad} bad ones"
            )));
        }
        let records = self.widen(decoded.records, metadata, marks, &decoded.bad, total)?;
        let split_runs = split_runs(&runs, &decoded.bad, splits);
        let rows = (good > 0).then(|| (Batch::new(records), split_runs));
        Ok(Gathered { rows, dead_letters, bad: decoded.bad, tombstones })
    }

    fn report(&mut self, bad: &[BadRecord], runs: &[Run], splits: &[Split]) -> Result<()> {
        for record in bad {
            let Some((split, offset)) = place(runs, record.index) else {
                return Err(Error::internal(format!("bad record {} was never read", record.index)));
            };
            let partition = &splits[split].partition;
            match self.on_decode_error {
                OnDecodeError::Fail => {
                    return Err(Error::user(format!("the record cannot be decoded: {}", record.reason)))
                        .context(|| format!("{} offset {offset}", partition.id()));
                }
                OnDecodeError::Drop => {
                    tracing::debug!(split = %partition.id(), offset, reason = %record.reason, "record dropped");
                }
                OnDecodeError::DeadLetter => self.letters.push(DeadLetter {
                    cluster: &partition.cluster,
                    topic: &partition.topic,
                    partition: partition.number,
                    offset,
                    reason: &record.reason,
                    payload: &record.payload,
                }),
            }
        }
        Ok(())
    }

    /// Appends the metadata columns, without the rows of bad records, and the marks of deletes.
    fn widen(
        &self,
        records: RecordBatch,
        metadata: Option<Vec<ArrayRef>>,
        marks: Option<ArrayRef>,
        bad: &[BadRecord],
        total: usize,
    ) -> Result<RecordBatch> {
        if metadata.is_none() && records.schema_ref() == &self.schema {
            return Ok(records);
        }
        let metadata = metadata.unwrap_or_default();
        let mut columns = records.columns().to_vec();
        if bad.is_empty() {
            columns.extend(metadata);
        } else {
            let mut bad = bad.iter().map(|record| record.index).peekable();
            let is_good = |row: &usize| bad.next_if_eq(row).is_none();
            let good: Vec<u32> = (0..total).filter(is_good).map(|row| row as u32).collect();
            let good = UInt32Array::from(good);
            for column in metadata {
                columns.push(arrow::compute::take(&column, &good, None)?);
            }
        }
        columns.extend(marks);
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

/// The split and offset of the `index`-th record.
fn place(runs: &[Run], index: usize) -> Option<(usize, i64)> {
    let mut before = 0;
    for run in runs {
        if index < before + run.rows {
            return Some((run.split, run.first + (index - before) as i64));
        }
        before += run.rows;
    }
    None
}

/// The runs of good rows by split, neighbours of one split joined.
fn split_runs(runs: &[Run], bad: &[BadRecord], splits: &[Split]) -> Vec<SplitRun> {
    let mut joined: Vec<(usize, usize)> = Vec::with_capacity(runs.len());
    let mut bad = bad.iter().map(|record| record.index).peekable();
    let mut end = 0;
    for run in runs {
        end += run.rows;
        let mut rows = run.rows;
        while bad.next_if(|index| *index < end).is_some() {
            rows -= 1;
        }
        match joined.last_mut() {
            Some((split, total)) if *split == run.split => *total += rows,
            _ => joined.push((run.split, rows)),
        }
    }
    let named = joined.into_iter().filter(|(_, rows)| *rows > 0);
    named.map(|(split, rows)| SplitRun { split: splits[split].id.clone(), rows }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Decoded;
    use crate::kafka::split::{Partition, Position};
    use crate::kafka::tombstones::Upsert;
    use arrow::array::{ArrayRef, Int64Array};
    use std::sync::Arc;

    fn split(cluster: &str) -> Split {
        let partition = Partition { cluster: cluster.into(), topic: "t".into(), number: 1 };
        Split::new(partition, Position { next: 0, end: None, assignment: 1, topic_id: None })
    }

    fn bad(index: usize) -> BadRecord {
        BadRecord { index, reason: "no".into(), payload: vec![1], time: None }
    }

    #[test]
    fn a_place_is_found_across_gaps_and_splits() {
        let runs = [
            Run { split: 0, first: 5, rows: 2 },
            Run { split: 0, first: 9, rows: 1 },
            Run { split: 1, first: 0, rows: 3 },
        ];
        let places: Vec<_> = (0..7).map(|index| place(&runs, index)).collect();
        let expected = [(0, 5), (0, 6), (0, 9), (1, 0), (1, 1), (1, 2)];
        assert_eq!(places[..6], expected.map(Some));
        assert_eq!(places[6], None);
        let splits = [split("a"), split("b")];
        let runs = split_runs(&runs, &[bad(1), bad(3), bad(4), bad(5)], &splits);
        assert_eq!(runs, [SplitRun { split: splits[0].id.clone(), rows: 2 }]);
    }

    /// Counts what it is pushed; index 2 is bad.
    struct Fixed(usize);

    impl Decoder for Fixed {
        fn push(&mut self, _: &[u8]) {
            self.0 += 1;
        }

        fn push_null(&mut self) {
            self.0 += 1;
        }

        fn pending(&self) -> usize {
            self.0
        }

        fn flush(&mut self) -> Result<Decoded> {
            let good = (0..std::mem::take(&mut self.0) as i64).filter(|row| *row != 2);
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(good));
            Ok(Decoded { records: RecordBatch::try_from_iter([("n", column)]).unwrap(), bad: vec![bad(2)] })
        }
    }

    fn gathering(on_decode_error: OnDecodeError) -> Gathering {
        let schema = Fixed(0).flush().unwrap().records.schema();
        let tombstones = Upsert::default().gatherer(&schema);
        let mut gathering = Gathering::new(Box::new(Fixed(0)), None, schema, on_decode_error, tombstones);
        for (split, offset) in [(0, 7), (0, 8), (1, 4), (1, 5)] {
            gathering.note(split, offset);
            gathering.decoder.push(b"");
        }
        gathering
    }

    #[test]
    fn a_bad_record_fails_is_dropped_or_becomes_a_dead_letter_with_its_place() {
        let splits = [split("a"), split("b")];
        let error = gathering(OnDecodeError::Fail).finish(&splits).err().unwrap().to_string();
        assert_eq!(error, "b/t/1 offset 4: the record cannot be decoded: no");
        let dropped = gathering(OnDecodeError::Drop).finish(&splits).unwrap();
        let (batch, runs) = dropped.rows.unwrap();
        assert_eq!((batch.row_count(), dropped.bad.len(), dropped.dead_letters.is_none()), (3, 1, true));
        let rows: Vec<_> = runs.iter().map(|run| (run.split.to_string(), run.rows)).collect();
        assert_eq!(rows, [("a/t/1".to_string(), 2), ("b/t/1".to_string(), 1)]);
        let letters = gathering(OnDecodeError::DeadLetter).finish(&splits).unwrap().dead_letters.unwrap();
        let offsets = letters.records().column_by_name("offset").unwrap();
        assert_eq!(offsets.as_any().downcast_ref::<Int64Array>().unwrap().values(), &[4]);
    }
}
