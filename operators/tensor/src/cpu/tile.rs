//! The inner loop of every matrix product: a tile of the product, held in registers.
//!
//! A tile is a few rows of the left matrix, read element by element, by up to three vectors of
//! columns of the right one. Each element of the product is summed in the order of the depth,
//! whatever the tile's size and place, so equal inputs make equal bits wherever they stand.

use super::lanes::Lanes;

/// Vectors of columns in a tile.
pub(super) const TILE_VECTORS: usize = 3;

/// What is done with a tile once it is summed.
pub(super) trait Finish<S: Lanes> {
    fn finish<const ROWS: usize, const VECTORS: usize>(&mut self, s: S, tile: [[S::V; VECTORS]; ROWS]);
}

/// A tile's operands. The left rows are `left_stride` apart; the right matrix has `depth` rows,
/// `right_stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub(super) depth: usize,
    pub(super) left: *const f32,
    pub(super) left_stride: usize,
    pub(super) right: *const f32,
    pub(super) right_stride: usize,
    /// What will be read after this tile: brought nearer while it is summed, an element's cache
    /// line per step of the depth, so that memory is never waited for in one piece.
    pub(super) coming: Coming,
}

/// Memory that will be read soon: `step` elements further on with each step of the depth.
#[derive(Clone, Copy)]
pub(super) struct Coming {
    from: *const f32,
    step: usize,
}

impl Coming {
    /// Nothing that is known of.
    pub(super) const NOTHING: Coming = Coming { from: std::ptr::null(), step: 0 };

    /// The `part`-th of `parts` parts of what is coming, over a tile of this depth.
    pub(super) fn part(coming: &[f32], (part, parts): (usize, usize), depth: usize) -> Coming {
        let from = coming.as_ptr().wrapping_add(coming.len() * part / parts);
        Coming { from, step: coming.len().div_ceil(parts * depth).min(CACHE_LINE) }
    }
}

/// Elements of a cache line.
const CACHE_LINE: usize = 16;

/// Sums a tile of 1 to [`Lanes::TILE_ROWS`] rows and 1 to [`TILE_VECTORS`] vectors.
///
/// # Safety
/// `depth` elements must be readable in each of the left rows, and `vectors` whole vectors in each
/// of the right rows.
#[inline(always)]
pub(super) unsafe fn tile<S: Lanes, F: Finish<S>>(
    s: S,
    (rows, vectors): (usize, usize),
    operands: Operands,
    finish: &mut F,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        match vectors {
            1 => tile_of_rows::<S, F, 1>(s, rows, operands, finish),
            2 => tile_of_rows::<S, F, 2>(s, rows, operands, finish),
            _ => tile_of_rows::<S, F, 3>(s, rows, operands, finish),
        }
    }
}

#[inline(always)]
unsafe fn tile_of_rows<S: Lanes, F: Finish<S>, const VECTORS: usize>(
    s: S,
    rows: usize,
    operands: Operands,
    finish: &mut F,
) {
    // The sizes that an instruction set does not use are not compiled for it.
    // SAFETY: as promised by the caller.
    unsafe {
        match rows {
            8 if S::TILE_ROWS >= 8 => finish.finish(s, sums::<S, 8, VECTORS>(s, operands)),
            7 if S::TILE_ROWS >= 8 => finish.finish(s, sums::<S, 7, VECTORS>(s, operands)),
            6 if S::TILE_ROWS >= 8 => finish.finish(s, sums::<S, 6, VECTORS>(s, operands)),
            5 if S::TILE_ROWS >= 8 => finish.finish(s, sums::<S, 5, VECTORS>(s, operands)),
            4 => finish.finish(s, sums::<S, 4, VECTORS>(s, operands)),
            3 => finish.finish(s, sums::<S, 3, VECTORS>(s, operands)),
            2 => finish.finish(s, sums::<S, 2, VECTORS>(s, operands)),
            _ => finish.finish(s, sums::<S, 1, VECTORS>(s, operands)),
        }
    }
}

#[inline(always)]
unsafe fn sums<S: Lanes, const ROWS: usize, const VECTORS: usize>(
    s: S,
    operands: Operands,
) -> [[S::V; VECTORS]; ROWS] {
    let Operands { depth, left, left_stride, mut right, right_stride, coming } = operands;
    let mut ahead = coming.from;
    let mut tile = [[s.splat(0.0); VECTORS]; ROWS];
    for k in 0..depth {
        // SAFETY: as promised by the caller: within the rows of both.
        unsafe {
            let mut columns = [s.splat(0.0); VECTORS];
            for (vector, column) in columns.iter_mut().enumerate() {
                *column = s.load_from(right.add(vector * S::N));
            }
            for (row, sums) in tile.iter_mut().enumerate() {
                let element = s.splat(*left.add(row * left_stride + k));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = s.mul_add(element, column, *sum);
                }
            }
            right = right.wrapping_add(right_stride);
            s.prefetch(ahead);
            ahead = ahead.wrapping_add(coming.step);
        }
    }
    tile
}

/// Writes a tile to rows `stride` apart; only the first `columns` of them.
pub(super) struct Write {
    pub(super) to: *mut f32,
    pub(super) stride: usize,
    pub(super) columns: usize,
}

impl<S: Lanes> Finish<S> for Write {
    #[inline(always)]
    fn finish<const ROWS: usize, const VECTORS: usize>(&mut self, s: S, tile: [[S::V; VECTORS]; ROWS]) {
        for (row, vectors) in tile.into_iter().enumerate() {
            for (vector, value) in vectors.into_iter().enumerate() {
                let column = vector * S::N;
                // SAFETY: who makes a `Write` promises `columns` elements in each of the tile's rows.
                unsafe {
                    let to = self.to.add(row * self.stride + column);
                    match column + S::N <= self.columns {
                        true => s.store_to(to, value),
                        false => s.store_part_to(to, value, self.columns - column),
                    }
                }
            }
        }
    }
}
