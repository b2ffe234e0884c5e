//! The reference streaming past packed queries.

use std::ops::Range;

use super::nearest::Nearest;
use super::reference::Reference;
use crate::cpu::isa::kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::tile::{Coming, Finish, Operands, TILE_VECTORS, tile};
use crate::op::Metric;
use crate::reference_terms::Terms;

/// Rows of a reference, and packed queries.
pub(super) struct Scan<'a> {
    pub(super) reference: &'a Reference,
    pub(super) metric: Metric,
    pub(super) rows: Range<usize>,
    /// `[panel][width][panel columns]`.
    pub(super) queries: &'a [f32],
}

kernel! {
    /// Offers each row to each query that it may be near to.
    pub(super) fn scan = scan_rows(scan: &Scan<'_>, nearest: &mut Nearest)
}

#[inline(always)]
fn scan_rows<S: Lanes>(s: S, scan: &Scan<'_>, nearest: &mut Nearest) {
    let width = scan.reference.matrix().width();
    let panel_columns = TILE_VECTORS * S::N;
    let panels = nearest.thresholds.len() / panel_columns;
    let Terms { factors, addends, .. } = scan.reference.terms(scan.metric);
    assert!(scan.queries.len() >= panels * panel_columns * width);
    for row in scan.rows.clone().step_by(S::TILE_ROWS) {
        let rows = S::TILE_ROWS.min(scan.rows.end - row);
        let left = &scan.reference.matrix().vectors()[row * width..(row + rows) * width];
        let next = (row + rows) * width..scan.rows.end.min(row + 2 * rows) * width;
        let coming = &scan.reference.matrix().vectors()[next.start.min(next.end)..next.end];
        for panel in 0..panels {
            let operands = Operands {
                depth: width,
                left: left.as_ptr(),
                left_stride: width,
                right: scan.queries[panel * panel_columns * width..].as_ptr(),
                right_stride: panel_columns,
                // The rows that come next are far away in memory.
                coming: Coming::part(coming, (panel, panels), width),
            };
            let mut offer = Offer {
                factors: &factors[row..row + rows],
                addends: &addends[row..row + rows],
                row: row as u32,
                query: panel * panel_columns,
                nearest,
            };
            // SAFETY: `left` has these rows, and there are so many whole panels (asserted).
            unsafe { tile(s, (rows, TILE_VECTORS), operands, &mut offer) };
        }
    }
}

struct Offer<'a> {
    factors: &'a [f32],
    addends: &'a [f32],
    /// The tile's first row and first query.
    row: u32,
    query: usize,
    nearest: &'a mut Nearest,
}

impl<S: Lanes> Finish<S> for Offer<'_> {
    #[inline(always)]
    fn finish<const ROWS: usize, const VECTORS: usize>(&mut self, s: S, tile: [[S::V; VECTORS]; ROWS]) {
        for (row, vectors) in tile.into_iter().enumerate() {
            let (factor, addend) = (s.splat(self.factors[row]), s.splat(self.addends[row]));
            for (vector, product) in vectors.into_iter().enumerate() {
                let query = self.query + vector * S::N;
                let scores = s.mul_add(product, factor, addend);
                let gets_in = s.at_least(scores, s.load(&self.nearest.thresholds[query..]));
                if gets_in != 0 {
                    let mut lanes = [0.0; 16];
                    s.store(&mut lanes, scores);
                    offer(self.nearest, query, gets_in, &lanes, self.row + row as u32);
                }
            }
        }
    }
}

#[cold]
#[inline(never)]
fn offer(nearest: &mut Nearest, query: usize, mut gets_in: u32, scores: &[f32; 16], row: u32) {
    while gets_in != 0 {
        let lane = gets_in.trailing_zeros() as usize;
        nearest.offer(query + lane, scores[lane], row);
        gets_in &= gets_in - 1;
    }
}
