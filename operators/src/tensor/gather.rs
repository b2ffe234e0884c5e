//! Gathers rows to batches, by rows, bytes, deadline and length. Pure: time comes in, cuts go out.

use std::sync::Arc;

use arrow::array::{Array, AsArray, UInt32Array};
use arrow::datatypes::DataType;
use thalweg_engine::record::Batch;
use thalweg_engine::time::Micros;
use thalweg_engine::{Error, Result};

use super::Batching;

/// Rows that are done together.
#[derive(Debug)]
pub(super) struct Cut {
    /// The rows, in pieces of one schema.
    pub parts: Vec<Batch>,
    /// Which rows these are.
    pub places: Places,
    /// When the first of them came.
    pub since: Micros,
    pub rows: usize,
}

/// The places of a cut's rows in the order in which rows came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// From this one on, without a gap.
    From(u64),
    /// Each by itself, rising.
    Each(Vec<u64>),
}

/// What is gathered for one bucket.
#[derive(Debug, Default)]
struct Bucket {
    parts: Vec<Batch>,
    places: Vec<u64>,
    first: u64,
    since: Micros,
    rows: usize,
    bytes: usize,
}

/// Gathers rows.
pub(super) struct Gather {
    batching: Arc<Batching>,
    buckets: Vec<Bucket>,
}

impl Gather {
    pub(super) fn new(batching: Arc<Batching>) -> Gather {
        let count = if batching.buckets.is_empty() { 1 } else { batching.buckets.len() + 1 };
        Gather { buckets: (0..count).map(|_| Bucket::default()).collect(), batching }
    }

    /// Takes rows, the first of which has the place `first`; `lengths` are theirs in tokens, where
    /// there are buckets. Cuts that are full are added to `cuts`.
    ///
    /// # Errors
    /// An error of Arrow's.
    pub(super) fn push(
        &mut self,
        batch: &Batch,
        first: u64,
        lengths: Option<&[usize]>,
        now: Micros,
        cuts: &mut Vec<Cut>,
    ) -> Result<()> {
        let Some(lengths) = lengths.filter(|_| self.buckets.len() > 1) else {
            return self.push_to(0, batch, first, &[], now, cuts);
        };
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.buckets.len()];
        for (row, &length) in lengths.iter().enumerate() {
            rows[self.batching.buckets.partition_point(|&bound| bound < length)].push(row as u32);
        }
        for (bucket, rows) in rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let places: Vec<u64> = rows.iter().map(|&row| first + u64::from(row)).collect();
            let taken = batch.take(&UInt32Array::from(rows))?;
            self.push_to(bucket, &taken, places[0], &places, now, cuts)?;
        }
        Ok(())
    }

    /// Rows wait here: they are not to keep the batch alive that they came in.
    fn push_to(
        &mut self,
        index: usize,
        batch: &Batch,
        first: u64,
        places: &[u64],
        now: Micros,
        cuts: &mut Vec<Cut>,
    ) -> Result<()> {
        let Batching { rows_max, bytes_max, .. } = *self.batching;
        let row_bytes = (batch.rows_bytes() / batch.row_count().max(1)).max(1);
        let mut at = 0;
        while at < batch.row_count() {
            let bucket = &mut self.buckets[index];
            let by_bytes = bytes_max.saturating_sub(bucket.bytes) / row_bytes;
            // A batch has one row, however large it is.
            let room = by_bytes.max(usize::from(bucket.rows == 0)).min(rows_max - bucket.rows);
            let count = room.min(batch.row_count() - at);
            if count > 0 {
                if bucket.rows == 0 {
                    bucket.since = now;
                    bucket.first = first + at as u64;
                }
                bucket.parts.push(batch.slice(at, count).compacted()?);
                bucket.places.extend(places.get(at..at + count).unwrap_or_default());
                bucket.rows += count;
                bucket.bytes += count * row_bytes;
                at += count;
            }
            if bucket.rows == rows_max || bucket.bytes + row_bytes > bytes_max || count == 0 {
                cuts.extend(bucket.cut());
            }
        }
        Ok(())
    }

    /// Cuts what has waited long enough.
    pub(super) fn due(&mut self, now: Micros, cuts: &mut Vec<Cut>) {
        let delay = self.batching.delay_micros();
        for bucket in &mut self.buckets {
            // The clock was set back: nobody waits longer than from now on.
            bucket.since = bucket.since.min(now);
        }
        let due = self.buckets.iter_mut().filter(|bucket| bucket.rows > 0 && bucket.since + delay <= now);
        let first = cuts.len();
        cuts.extend(due.filter_map(Bucket::cut));
        cuts[first..].sort_by_key(|cut| cut.since);
    }

    /// When something will have waited long enough.
    pub(super) fn deadline(&self) -> Option<Micros> {
        let since = self.buckets.iter().filter(|bucket| bucket.rows > 0).map(|bucket| bucket.since).min();
        since.map(|since| since + self.batching.delay_micros())
    }

    /// Cuts the bucket whose first row is at `place`, if there is one.
    pub(super) fn cut_at(&mut self, place: u64, cuts: &mut Vec<Cut>) {
        cuts.extend(self.buckets.iter_mut().filter(|bucket| bucket.begins_at(place)).filter_map(Bucket::cut));
    }

    /// Cuts everything.
    pub(super) fn flush(&mut self, cuts: &mut Vec<Cut>) {
        cuts.extend(self.buckets.iter_mut().filter_map(Bucket::cut));
    }
}

impl Bucket {
    fn begins_at(&self, place: u64) -> bool {
        self.rows > 0 && self.places.first().copied().unwrap_or(self.first) == place
    }

    fn cut(&mut self) -> Option<Cut> {
        let Bucket { parts, places, first, since, rows, .. } = std::mem::take(self);
        let places = if places.is_empty() { Places::From(first) } else { Places::Each(places) };
        (rows > 0).then_some(Cut { parts, places, since, rows })
    }
}

/// Bytes of text that make a token, roughly, in English and a WordPiece vocabulary.
const BYTES_PER_TOKEN: usize = 4;
/// What a tokenizer puts around a text.
const SPECIAL_TOKENS: usize = 2;

/// The rows' lengths in tokens: of lists exactly, of text by its bytes. Null has none.
///
/// # Errors
/// An internal error for a column of neither.
pub(super) fn row_lengths(column: &dyn Array) -> Result<Vec<usize>> {
    let of_text = |bytes: usize| bytes.div_ceil(BYTES_PER_TOKEN) + SPECIAL_TOKENS;
    let rows = 0..column.len();
    Ok(match column.data_type() {
        DataType::Utf8View => {
            column.as_string_view().iter().map(|text| of_text(text.map_or(0, str::len))).collect()
        }
        DataType::Utf8 => {
            rows.map(|row| of_text(column.as_string::<i32>().value_length(row) as usize)).collect()
        }
        DataType::List(_) => rows.map(|row| column.as_list::<i32>().value_length(row) as usize).collect(),
        DataType::LargeList(_) => {
            rows.map(|row| column.as_list::<i64>().value_length(row) as usize).collect()
        }
        other => return Err(Error::internal(format!("rows of {other} have no lengths to make buckets of"))),
    })
}
