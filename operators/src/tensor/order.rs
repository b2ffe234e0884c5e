//! Which rows are under way, what may leave, and how far the watermark may pass. Pure.

use std::collections::{BTreeMap, VecDeque};

use arrow::array::UInt32Array;
use thalweg_engine::Result;
use thalweg_engine::record::Batch;
use thalweg_engine::time::Watermark;

use super::gather::Places;

/// A row from the first on that has not left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    UnderWay,
    /// It left, or nothing came of it.
    Gone,
    /// Row `row` of a batch that is done and waits for rows before it.
    Waits {
        batch: u64,
        row: u32,
    },
}

/// Keeps rows and watermarks in order.
pub(super) struct Order {
    ordered: bool,
    /// The place of the next row to come.
    next: u64,
    /// All rows before this place have left.
    left: u64,
    /// Rows from `left` on, where places come out of order; empty where they never do.
    slots: VecDeque<Slot>,
    has_slots: bool,
    /// Batches that wait for rows before theirs, and how many of their rows have not left.
    waiting: BTreeMap<u64, (Batch, usize)>,
    waiting_rows: usize,
    batches: u64,
    /// Watermarks, each behind the rows before a place.
    watermarks: VecDeque<(u64, Watermark)>,
    passed: Watermark,
}

impl Order {
    /// `has_buckets`: whether rows are done in another order than they come in.
    pub(super) fn new(ordered: bool, has_buckets: bool) -> Order {
        Order {
            ordered,
            next: 0,
            left: 0,
            slots: VecDeque::new(),
            has_slots: has_buckets,
            waiting: BTreeMap::new(),
            waiting_rows: 0,
            batches: 0,
            watermarks: VecDeque::new(),
            passed: Watermark::MIN,
        }
    }

    /// Rows came; says the place of the first.
    pub(super) fn arrive(&mut self, rows: usize) -> u64 {
        let first = self.next;
        self.next += rows as u64;
        if self.has_slots {
            self.slots.extend(std::iter::repeat_n(Slot::UnderWay, rows));
        }
        first
    }

    /// A watermark came behind the rows so far.
    pub(super) fn watermark(&mut self, watermark: Watermark) {
        match self.watermarks.back_mut() {
            Some((place, last)) if *place == self.next => *last = watermark,
            _ => self.watermarks.push_back((self.next, watermark)),
        }
        self.pass_watermarks();
    }

    /// How far the watermark may pass; `None`: as far as it came.
    pub(super) fn watermark_bound(&self) -> Option<Watermark> {
        (!self.watermarks.is_empty()).then_some(self.passed)
    }

    /// Whether all rows have left.
    pub(super) fn is_empty(&self) -> bool {
        self.left == self.next
    }

    /// The place of the first row that has not left.
    pub(super) fn first(&self) -> u64 {
        self.left
    }

    /// Rows that are done and wait for rows before them.
    pub(super) fn waiting_rows(&self) -> usize {
        self.waiting_rows
    }

    /// The rows at these places are done. `kept` says which of them are in `batch`, in its order;
    /// `None`: all. Answers with what may leave now.
    ///
    /// # Errors
    /// An error of Arrow's.
    pub(super) fn finish(
        &mut self,
        places: &Places,
        rows: usize,
        kept: Option<&[u32]>,
        batch: Batch,
    ) -> Result<Option<Batch>> {
        if !self.has_slots {
            self.left += rows as u64;
            self.pass_watermarks();
            return Ok(Some(batch));
        }
        let number = self.batches;
        self.batches += 1;
        let mut set = |row: usize, slot: Slot| {
            let place = match places {
                Places::From(first) => first + row as u64,
                Places::Each(places) => places[row],
            };
            self.slots[(place - self.left) as usize] = slot;
        };
        (0..rows).for_each(|row| set(row, Slot::Gone));
        if !self.ordered {
            self.advance()?;
            return Ok(Some(batch));
        }
        match kept {
            Some(kept) => kept
                .iter()
                .enumerate()
                .for_each(|(row, &of)| set(of as usize, Slot::Waits { batch: number, row: row as u32 })),
            None => (0..rows).for_each(|row| set(row, Slot::Waits { batch: number, row: row as u32 })),
        }
        let kept_rows = batch.row_count();
        if kept_rows > 0 {
            self.waiting_rows += kept_rows;
            self.waiting.insert(number, (batch, kept_rows));
        }
        self.advance()
    }

    /// Lets the rows go that wait for none.
    fn advance(&mut self) -> Result<Option<Batch>> {
        // Where each waiting batch begins in those that are taken from, joined.
        let mut begins: BTreeMap<u64, u32> = BTreeMap::new();
        let mut joined: Vec<Batch> = Vec::new();
        let mut joined_rows = 0;
        let mut indices = Vec::new();
        while let Some(&slot) = self.slots.front() {
            match slot {
                Slot::UnderWay => break,
                Slot::Gone => {}
                Slot::Waits { batch, row } => {
                    if let Some((waiting, rows)) = self.waiting.get_mut(&batch) {
                        *rows -= 1;
                        self.waiting_rows -= 1;
                        let begin = *begins.entry(batch).or_insert_with(|| {
                            joined.push(waiting.clone());
                            let begin = joined_rows;
                            joined_rows += waiting.row_count() as u32;
                            begin
                        });
                        indices.push(begin + row);
                    }
                }
            }
            self.slots.pop_front();
            self.left += 1;
        }
        self.pass_watermarks();
        for batch in begins.keys() {
            if self.waiting.get(batch).is_some_and(|(_, rows)| *rows == 0) {
                self.waiting.remove(batch);
            }
        }
        let Some(first) = joined.first() else { return Ok(None) };
        let all = Batch::concat(&first.schema(), &joined)?;
        Ok(Some(all.take(&UInt32Array::from(indices))?))
    }

    fn pass_watermarks(&mut self) {
        while let Some(&(place, watermark)) = self.watermarks.front()
            && place <= self.left
        {
            self.passed = watermark;
            self.watermarks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    fn batch(numbers: &[i64]) -> Batch {
        let numbers: ArrayRef = std::sync::Arc::new(Int64Array::from(numbers.to_vec()));
        Batch::new(RecordBatch::try_from_iter([("n", numbers)]).unwrap())
    }

    #[test]
    fn a_batch_of_which_nothing_was_kept_is_not_held() {
        let mut order = Order::new(true, true);
        order.arrive(4);
        let none = order.finish(&Places::Each(vec![1, 3]), 2, Some(&[]), batch(&[])).unwrap();
        assert!(none.is_none() && order.waiting.is_empty(), "{:?}", order.waiting.keys());
        let left = order.finish(&Places::Each(vec![0, 2]), 2, None, batch(&[0, 2])).unwrap();
        assert_eq!(left.unwrap().row_count(), 2);
        assert!(order.is_empty() && order.waiting.is_empty() && order.waiting_rows() == 0);
    }
}
