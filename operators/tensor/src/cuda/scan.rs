//! Top-k against a reference matrix without the full score matrix: tile by tile.
//!
//! The rule it lives by: a tile of the matrix is read once and stays in the L2 cache while all
//! queries pass over it; its scores are written to a buffer that fits there too, and are read back by
//! the selection at once. Each query keeps [`Scan::splits`] sorted lists of its best, so that a few
//! queries keep a whole device busy; `finish` merges them.

use super::program::{BufferId, Launch, ReferenceSlot};
use crate::Element;

/// Scores of a part, at most: 16 MiB of `f32`, a third of the L2 cache of an H100.
pub const SCORES_MAX: usize = 4 << 20;
/// Buffers of so many scores: a part is selected from while the next one is computed. Both fit into
/// the L2 cache.
pub const SCORES_BUFFERS: usize = 2;
/// Queries of a part, at most.
pub const QUERIES_MAX: usize = 512;
/// Vectors of a tile, at least (but for the last).
pub const TILE_MIN: usize = SCORES_MAX / QUERIES_MAX;
/// Tiles begin and end at multiples of this, so that whatever the width, products read aligned.
const TILE_STEP: usize = 256;
/// Blocks that keep a device busy: two for each of the 132 processors of an H100.
const BLOCKS_WANTED: usize = 264;
/// Lists per query, at most.
const SPLITS_MAX: usize = 64;

/// A search: for every [`ScanPart`] of [`Scan::parts`], a product and a selection; then `finish`.
///
/// The product of a part is `scores[query_count, tile_count] = queries[query_first.., width] *
/// vectors[tile_first.., width]^T` (row-major, dense, in the words of
/// [`Gemm`](super::program::Gemm)): `element` in, `f32` accumulated and out, no bias, no epilogue.
/// Where the matrix has no vectors there are no parts, and `finish` is all there is.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// The matrix.
    pub reference: ReferenceSlot,
    /// `[rows, width]` in `element`.
    pub queries: BufferId,
    /// `[query_count, tile_count]` of `f32`; [`SCORES_BUFFERS`] of [`SCORES_MAX`], of which a part may
    /// use any.
    pub scores: BufferId,
    /// Elements of a vector.
    pub width: usize,
    /// Of queries and vectors.
    pub element: Element,
    /// Launched after each part's product, with [`Counts::part`](super::program::Counts::part) set.
    pub select: Launch,
    /// Launched once after all parts.
    pub finish: Launch,
}

/// A block of queries against a tile of the matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanPart {
    /// The first query.
    pub query_first: usize,
    /// Queries.
    pub query_count: usize,
    /// The first vector.
    pub tile_first: usize,
    /// Vectors.
    pub tile_count: usize,
}

impl Scan {
    /// Lists that each query keeps in a batch of so many.
    pub fn splits(rows: usize) -> usize {
        BLOCKS_WANTED.div_ceil(rows.max(1)).min(SPLITS_MAX)
    }

    /// Lists of all queries.
    pub fn lists(rows: usize) -> usize {
        rows.saturating_mul(Scan::splits(rows))
    }

    /// The parts in their order: tiles outside, queries inside.
    pub fn parts(rows: usize, reference_rows: usize) -> impl Iterator<Item = ScanPart> {
        let tile = (SCORES_MAX / rows.clamp(1, QUERIES_MAX)).max(TILE_MIN) / TILE_STEP * TILE_STEP;
        let tiles = if rows == 0 { 0 } else { reference_rows };
        (0..tiles).step_by(tile).flat_map(move |tile_first| {
            (0..rows).step_by(QUERIES_MAX).map(move |query_first| ScanPart {
                query_first,
                query_count: QUERIES_MAX.min(rows - query_first),
                tile_first,
                tile_count: tile.min(reference_rows - tile_first),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_score_once_within_the_bound() {
        for (rows, vectors) in
            [(1, 1), (1, 5_000_000), (3, 3_000_000), (513, 20_000), (100_000, 9_000), (0, 5), (5, 0)]
        {
            let mut covered = 0;
            for part in Scan::parts(rows, vectors) {
                assert!(part.query_count * part.tile_count <= SCORES_MAX, "{part:?}");
                assert!(part.query_first + part.query_count <= rows, "{part:?}");
                assert!(part.tile_first + part.tile_count <= vectors, "{part:?}");
                assert!(part.tile_first % TILE_STEP == 0, "{part:?}");
                covered += part.query_count * part.tile_count;
            }
            assert_eq!(covered, rows * vectors);
        }
    }
}
