//! The nearest vectors of a reference matrix.
//!
//! Queries are packed like weights and stay in the second cache; the reference streams past them,
//! row by row as it lies, each worker its share. A tile of scores is compared with the queries'
//! thresholds while it is in registers, and hardly ever has one that gets in; no score is stored.
//! That finds somewhat more candidates than are asked for, in `f32`; these are scored again in
//! `f64` by definition, so what comes out is as exact as `f32` can be and does not depend on
//! how the reference was shared out.
//!
//! What `f32` cannot score safely goes by definition alone: queries and vectors that are not
//! finite or of an extreme size.

mod exact;
mod nearest;
mod reference;
mod scan;

pub(super) use reference::Reference;

use super::aligned::Aligned;
use super::isa::Isa;
use super::matrix::{pack_panel, panel_columns};
use super::workers::{Pool, each_of};
use crate::op::Metric;
use exact::{Scored, Scorer};
use nearest::Nearest;
use scan::{Scan, scan};

/// Bytes of packed queries that a second cache keeps beside what streams past.
const QUERY_BYTES: usize = 1 << 20;

/// Rows of the reference that a worker takes at least.
const SHARE_ROWS: usize = 512;

/// What top-k works in.
#[derive(Default)]
pub(super) struct TopKScratch {
    packed: Aligned,
    queries: Vec<Query>,
    shares: Vec<Share>,
}

/// One query of a block.
#[derive(Clone, Copy, Default)]
struct Query {
    norm: f64,
    is_regular: bool,
}

/// What one worker found in its share of the reference.
#[derive(Default)]
struct Share {
    nearest: Nearest,
}

/// Queries and where their answers go.
pub(super) struct Ask<'a> {
    pub(super) queries: &'a [f32],
    pub(super) metric: Metric,
    pub(super) k: usize,
    pub(super) ids: &'a mut [i64],
    pub(super) scores: &'a mut [f32],
}

impl TopKScratch {
    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let shares: usize = self.shares.iter().map(|share| share.nearest.bytes()).sum();
        self.packed.bytes() + shares
    }

    /// Answers all queries. `bytes_max` bounds the scratch, but for a block of the least size.
    pub(super) fn run(
        &mut self,
        isa: Isa,
        pool: &Pool,
        reference: &Reference,
        ask: Ask<'_>,
        bytes_max: usize,
    ) {
        let width = reference.matrix().width();
        let panel = panel_columns(isa);
        let kept = kept(ask.k, reference.matrix().rows());
        let shares = pool.threads().min(reference.matrix().rows().div_ceil(SHARE_ROWS)).max(1);
        self.shares.resize_with(shares.max(pool.threads()), Share::default);
        let query_bytes = size_of::<f32>() * width + shares * Nearest::bytes_for(kept);
        let fits = (bytes_max / query_bytes).min(QUERY_BYTES / (size_of::<f32>() * width));
        let block = (fits / panel).clamp(1, 512 / panel) * panel;
        let answers = ask.ids.chunks_mut(block * ask.k).zip(ask.scores.chunks_mut(block * ask.k));
        for (queries, (ids, scores)) in ask.queries.chunks(block * width).zip(answers) {
            let ask = Ask { queries, ids, scores, ..ask };
            self.run_block(isa, pool, reference, ask, (shares, kept));
        }
    }

    fn run_block(
        &mut self,
        isa: Isa,
        pool: &Pool,
        reference: &Reference,
        ask: Ask<'_>,
        (shares, kept): (usize, usize),
    ) {
        let width = reference.matrix().width();
        self.pack(isa, ask.queries, width, ask.metric);
        let (count, rows) = (self.queries.len(), reference.matrix().rows());
        let packed = self.packed.as_slice();
        let share_rows = rows.div_ceil(shares);
        each_of(pool, &mut self.shares[..shares], |index, share| {
            share.nearest.reset(count, panel_columns(isa), kept);
            let rows = (index * share_rows).min(rows)..((index + 1) * share_rows).min(rows);
            let job = Scan { reference, metric: ask.metric, rows, queries: packed };
            scan(isa, &job, &mut share.nearest);
        });
        let Ask { queries, metric, k, ids, scores } = ask;
        let found: Vec<&Nearest> = self.shares[..shares].iter().map(|share| &share.nearest).collect();
        let infos = &self.queries;
        let mut answers: Vec<_> = ids.chunks_mut(k).zip(scores.chunks_mut(k)).enumerate().collect();
        let each = answers.len().div_ceil(pool.threads()).max(1);
        let mut parts: Vec<_> = answers.chunks_mut(each).collect();
        each_of(pool, &mut parts, |_, part| {
            let mut candidates = Vec::new();
            for (index, (ids, scores)) in part.iter_mut() {
                let query = &queries[*index * width..][..width];
                let scorer = Scorer { reference, metric, query, norm: infos[*index].norm };
                candidates.clear();
                match infos[*index].is_regular {
                    true => {
                        let rows = found.iter().flat_map(|nearest| nearest.of(*index));
                        scorer.candidates(rows, k, &mut candidates);
                    }
                    false => scorer.all(k, &mut candidates),
                }
                answer(reference, &candidates, ids, scores);
            }
        });
    }

    /// Packs a block of queries, those of cosine as unit vectors.
    fn pack(&mut self, isa: Isa, queries: &[f32], width: usize, metric: Metric) {
        let panel_columns = panel_columns(isa);
        let count = queries.len() / width;
        self.packed.reserve(count.next_multiple_of(panel_columns) * width);
        self.queries.clear();
        let packed = self.packed.as_mut_slice();
        packed.fill(0.0);
        for (index, query) in queries.chunks_exact(width).enumerate() {
            let norm = exact::norm(query);
            let is_regular = reference::is_regular(norm, metric);
            self.queries.push(Query { norm, is_regular });
            // The others are not looked for here; their lanes hold zeros.
            if is_regular {
                let panel = &mut packed[index / panel_columns * panel_columns * width..];
                pack_panel(query, width, panel_columns, &mut panel[index % panel_columns..]);
                if metric == Metric::Cosine {
                    let inverse = 1.0 / norm;
                    for k in 0..width {
                        let element = &mut panel[k * panel_columns + index % panel_columns];
                        *element = (f64::from(*element) * inverse) as f32;
                    }
                }
            }
        }
    }
}

/// Candidates that are kept per query for `k` that are asked for: some more, as scores that lie
/// close may stand in another order in `f32`.
fn kept(k: usize, rows: usize) -> usize {
    (k + k / 8 + 16).min(rows).max(1)
}

/// The candidates, in order, and nothing where there are none left.
fn answer(reference: &Reference, candidates: &[Scored], ids: &mut [i64], scores: &mut [f32]) {
    ids.fill(-1);
    scores.fill(f32::NAN);
    for ((id, score), candidate) in ids.iter_mut().zip(scores).zip(candidates) {
        *id = reference.matrix().ids()[candidate.row as usize];
        *score = candidate.score;
    }
}

#[cfg(test)]
mod tests;
