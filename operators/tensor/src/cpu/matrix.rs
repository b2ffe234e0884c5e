//! Products with a weight matrix that was packed once, when the graph was compiled.
//!
//! A matrix is packed into panels of as many columns as a tile has, each panel in the order in
//! which the tile reads it. Nothing is packed per batch: the left matrix is read where it lies.
//! Bias and activation are applied to a tile while it is in the first cache.
//!
//! Why not a crate's product: none takes weights packed beforehand, and for chunks of some hundred
//! rows packing costs a third of what the processor can do. On one core with AVX-512, products of
//! 144 x 384 x 1536 and 144 x 1536 x 384 are made 1.2 to 1.6 times as fast as by `faer` 0.24.4 or by
//! `matrixmultiply` 0.3.11, those of 2048 x 384 x 384 and 4096 x 768 x 768 1.0 to 1.2 times. The
//! first takes `gemm` 0.19 with AVX-512 1.5 times as long.

use super::aligned::Aligned;
use super::isa::{Isa, kernel};
use super::lanes::Lanes;
use super::rows::activate_rows;
use super::tile::{Coming, Finish, Operands, TILE_VECTORS, tile};
use crate::op::Activation;

/// A weight matrix with its bias.
pub(super) struct PackedMatrix {
    /// Elements of a vector that goes in.
    pub(super) depth: usize,
    /// Elements of a vector that comes out.
    pub(super) columns: usize,
    panel_columns: usize,
    /// `[panel][depth][panel_columns]`, zeros behind the last column.
    panels: Aligned,
    /// One per column, padded like the panels.
    bias: Aligned,
}

impl PackedMatrix {
    /// Packs `weight`, which is `[columns, depth]`.
    pub(super) fn new(isa: Isa, weight: &[f32], depth: usize, bias: Option<&[f32]>) -> PackedMatrix {
        let columns = weight.len() / depth;
        let panel_columns = panel_columns(isa);
        let padded = columns.next_multiple_of(panel_columns);
        let mut panels = Aligned::zeroed(padded * depth);
        for (panel, rows) in weight.chunks(panel_columns * depth).enumerate() {
            let packed = &mut panels.as_mut_slice()[panel * panel_columns * depth..];
            pack_panel(rows, depth, panel_columns, packed);
        }
        let mut padded_bias = Aligned::zeroed(padded);
        if let Some(bias) = bias {
            padded_bias.as_mut_slice()[..columns].copy_from_slice(bias);
        }
        PackedMatrix { depth, columns, panel_columns, panels, bias: padded_bias }
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.panels.bytes() + self.bias.bytes()
    }
}

/// Transposes up to `panel_columns` rows of `depth` elements into a panel.
pub(super) fn pack_panel(rows: &[f32], depth: usize, panel_columns: usize, panel: &mut [f32]) {
    for (column, row) in rows.chunks_exact(depth).enumerate() {
        for (k, element) in row.iter().enumerate() {
            panel[k * panel_columns + column] = *element;
        }
    }
}

#[inline(always)]
fn panel_columns_of<S: Lanes>(_: S) -> usize {
    TILE_VECTORS * S::N
}
kernel! {
    /// Columns of a panel.
    pub(super) fn panel_columns = panel_columns_of() -> usize
}

kernel! {
    /// `out = activation(left * matrix + bias)`, for as many rows as `out` has.
    pub(super) fn product = product_of(
        left: &[f32], matrix: &PackedMatrix, activation: Option<Activation>, out: &mut [f32]
    )
}

#[inline(always)]
fn product_of<S: Lanes>(
    s: S,
    left: &[f32],
    matrix: &PackedMatrix,
    activation: Option<Activation>,
    out: &mut [f32],
) {
    let PackedMatrix { depth, columns, panel_columns, .. } = *matrix;
    let rows = out.len() / columns;
    assert!(left.len() >= rows * depth && panel_columns == TILE_VECTORS * S::N);
    let panels = matrix.panels.as_slice().chunks_exact(panel_columns * depth);
    for (panel, first) in panels.zip((0..columns).step_by(panel_columns)) {
        let width = panel_columns.min(columns - first);
        let bias = &matrix.bias.as_slice()[first..first + panel_columns];
        let tiles = rows.div_ceil(S::TILE_ROWS);
        let coming = &matrix.panels.as_slice()[(first + panel_columns) * depth..];
        let coming = &coming[..coming.len().min(panel.len())];
        for row in (0..rows).step_by(S::TILE_ROWS) {
            let tile_rows = S::TILE_ROWS.min(rows - row);
            let operands = Operands {
                depth,
                left: left[row * depth..].as_ptr(),
                left_stride: depth,
                right: panel.as_ptr(),
                right_stride: panel_columns,
                coming: Coming::part(coming, (row / S::TILE_ROWS, tiles), depth),
            };
            let mut finish =
                WriteBiased { to: out[row * columns + first..].as_mut_ptr(), stride: columns, width, bias };
            // SAFETY: `left` and `out` have these rows (asserted), and panels are whole vectors.
            unsafe { tile(s, (tile_rows, width.div_ceil(S::N)), operands, &mut finish) };
            if let Some(activation) = activation {
                for row in row..row + tile_rows {
                    activate_rows(s, &mut out[row * columns + first..][..width], activation);
                }
            }
        }
    }
}

/// Writes a tile with its bias added.
struct WriteBiased<'a> {
    to: *mut f32,
    stride: usize,
    width: usize,
    bias: &'a [f32],
}

impl<S: Lanes> Finish<S> for WriteBiased<'_> {
    #[inline(always)]
    fn finish<const ROWS: usize, const VECTORS: usize>(&mut self, s: S, tile: [[S::V; VECTORS]; ROWS]) {
        for (row, vectors) in tile.into_iter().enumerate() {
            for (vector, value) in vectors.into_iter().enumerate() {
                let column = vector * S::N;
                let value = s.add(value, s.load(&self.bias[column..]));
                // SAFETY: `product_of` gives `width` elements in each of the tile's rows.
                unsafe {
                    let to = self.to.add(row * self.stride + column);
                    match column + S::N <= self.width {
                        true => s.store_to(to, value),
                        false => s.store_part_to(to, value, self.width - column),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    fn random(random: &mut StdRng, length: usize) -> Vec<f32> {
        (0..length).map(|_| random.random_range(-1.0..1.0)).collect()
    }

    #[test]
    fn a_product_is_the_sum_of_its_products_at_every_odd_size() {
        let mut rng = StdRng::seed_from_u64(1);
        for isa in Isa::all() {
            for (rows, depth, columns) in
                [(1, 1, 1), (3, 7, 5), (8, 16, 48), (9, 33, 49), (17, 100, 95), (5, 384, 130), (31, 5, 16)]
            {
                let left = random(&mut rng, rows * depth);
                let weight = random(&mut rng, columns * depth);
                let bias = random(&mut rng, columns);
                let matrix = PackedMatrix::new(isa, &weight, depth, Some(&bias));
                let mut out = vec![f32::NAN; rows * columns];
                product(isa, &left, &matrix, Some(Activation::Relu), &mut out);
                for row in 0..rows {
                    for column in 0..columns {
                        let exact: f64 = (0..depth)
                            .map(|k| f64::from(left[row * depth + k]) * f64::from(weight[column * depth + k]))
                            .sum::<f64>()
                            + f64::from(bias[column]);
                        let made = f64::from(out[row * columns + column]);
                        assert!(
                            (made - exact.max(0.0)).abs() < 1e-4,
                            "{isa} {rows}x{depth}x{columns} at {row},{column}: {made}, not {exact}"
                        );
                    }
                }
            }
        }
    }
}
