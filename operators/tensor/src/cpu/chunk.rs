//! Where a batch is cut: into parts that fit the plan's limits, and parts into chunks of rows that
//! a worker takes through a stage.
//!
//! Cuts depend on the batch and the limits alone and not on who is free, so the same batch makes
//! the same bits.

use std::ops::Range;

use arrow::buffer::OffsetBuffer;

use super::program::{BufferInfo, Chunked, Role};
use crate::Limits;

/// What a chunk's tensors should take: what stays in a second cache.
const CHUNK_BYTES: usize = 3 << 19;

/// Tensors of a chunk for which reading all weights is worth it, and of one where the batch is
/// small and should be shared out all the same.
const PRODUCT_TENSORS: usize = 96;
const PRODUCT_TENSORS_MIN: usize = 32;

/// Bytes of a chunk without weights in a small batch.
const SMALL_CHUNK_BYTES: usize = 64 << 10;

/// The row offsets of a batch in each domain.
pub(super) struct Domains<'a> {
    /// None for the first, which is rows.
    pub(super) offsets: Vec<Option<&'a OffsetBuffer<i32>>>,
}

impl Domains<'_> {
    /// The first tensor of a row.
    pub(super) fn start(&self, domain: usize, row: usize) -> usize {
        self.offsets[domain].map_or(row, |offsets| offsets[row] as usize)
    }

    /// Tensors of some rows.
    pub(super) fn tensors(&self, domain: usize, rows: &Range<usize>) -> usize {
        self.start(domain, rows.end) - self.start(domain, rows.start)
    }

    fn tokens(&self, rows: &Range<usize>) -> usize {
        (1..self.offsets.len()).map(|domain| self.tensors(domain, rows)).sum()
    }

    fn sum(&self, rows: &Range<usize>, bytes: impl Fn(usize) -> usize) -> usize {
        (0..self.offsets.len()).map(|domain| self.tensors(domain, rows) * bytes(domain)).sum()
    }
}

/// Bytes that may lie between stages: workers need some too.
pub(super) fn between_max(limits: &Limits) -> usize {
    limits.memory_bytes_max / 2
}

/// Bytes of the buffers between stages for some rows.
fn between_bytes(buffers: &[BufferInfo], domains: &Domains<'_>, rows: &Range<usize>) -> usize {
    let between = buffers.iter().filter(|buffer| buffer.role == Role::Between);
    between.map(|buffer| domains.tensors(buffer.domain, rows) * buffer.bytes).sum()
}

/// Bytes of a worker's arena for a chunk, each slot from a cache line's beginning on.
pub(super) fn arena_bytes(stage: &Chunked, domains: &Domains<'_>, rows: &Range<usize>) -> usize {
    let slots = stage.slots.iter();
    slots.map(|slot| (domains.tensors(slot.domain, rows) * slot.bytes).next_multiple_of(64)).sum()
}

/// A row that fits nowhere: what it needs, and what there is.
pub(super) struct TooLarge {
    pub(super) reason: String,
}

/// The next part of the batch from row `start` on.
pub(super) fn next_part(
    buffers: &[BufferInfo],
    domains: &Domains<'_>,
    limits: &Limits,
    (start, rows): (usize, usize),
) -> Result<Range<usize>, TooLarge> {
    let bytes_max = between_max(limits);
    let fits = |rows: &Range<usize>| {
        rows.len() <= limits.rows_max.max(1)
            && domains.tokens(rows) <= limits.tokens_max
            && between_bytes(buffers, domains, rows) <= bytes_max
    };
    // What a part takes rises with its rows, so its end can be searched for.
    let (mut low, mut high) = (start, rows.min(start.saturating_add(limits.rows_max.max(1))));
    while low < high {
        let end = low + (high - low).div_ceil(2);
        match fits(&(start..end)) {
            true => low = end,
            false => high = end - 1,
        }
    }
    if low > start {
        return Ok(start..low);
    }
    let row = start..start + 1;
    let tokens = domains.tokens(&row);
    let reason = match tokens > limits.tokens_max {
        true => format!("a row has {tokens} tokens, a batch may have {}", limits.tokens_max),
        false => {
            let bytes = between_bytes(buffers, domains, &row);
            format!("a row needs {bytes} bytes between stages, there may be {bytes_max}")
        }
    };
    Err(TooLarge { reason })
}

/// Cuts `rows` for a stage, no chunk's arena beyond `bytes_max` unless it is of one row. Gives the
/// bytes of the largest arena.
pub(super) fn cut(
    stage: &Chunked,
    domains: &Domains<'_>,
    rows: Range<usize>,
    bytes_max: usize,
    chunks: &mut Vec<Range<usize>>,
) -> usize {
    chunks.clear();
    let cost = |domain: usize| stage.costs.get(domain).map_or(0, |cost| cost.slots + cost.buffers);
    let total = domains.sum(&rows, cost);
    let tensor = (0..domains.offsets.len()).map(cost).max().unwrap_or(0);
    let (full, least) = match stage.has_products {
        true => (CHUNK_BYTES.max(PRODUCT_TENSORS * tensor), PRODUCT_TENSORS_MIN * tensor),
        false => (CHUNK_BYTES, SMALL_CHUNK_BYTES),
    };
    let wanted = full.min(least.max(total / 8)).max(1);
    // An even number, so that two or four workers end together.
    let count = match total.div_ceil(wanted) {
        0 | 1 => 1,
        count @ 2..=8 => count.next_multiple_of(2),
        count => count.next_multiple_of(4),
    };
    let mut arena_max = 0;
    let mut start = rows.start;
    for row in rows.clone() {
        let done = domains.sum(&(rows.start..row + 1), cost);
        let next = start..row + 2;
        let is_last = row + 1 == rows.end;
        let is_full = done * count >= total * (chunks.len() + 1);
        if is_last || is_full || arena_bytes(stage, domains, &next) > bytes_max {
            let chunk = start..row + 1;
            arena_max = arena_max.max(arena_bytes(stage, domains, &chunk));
            chunks.push(chunk);
            start = row + 1;
        }
    }
    arena_max
}
