//! The nearest vectors of a reference matrix.
//!
//! Queries are packed like weights and stay in the second cache; the reference streams past them,
//! row by row as it lies, each worker its share. A tile of scores is compared with the queries'
//! thresholds while it is in registers, and hardly ever has one that gets in; no score is stored.
//! That finds somewhat more candidates than are asked for, in `f32`; these are scored again in
//! `f64` by definition.
//!
//! Whether the right ones are among them is not left to luck: each query has a bound on what rounding
//! can have done (`bound`), and where it does not rule out that a better one was left out, the query
//! is asked again with many more candidates, and then by definition. So what comes out is as exact
//! as `f32` can be and does not depend on how the reference was shared out, nor on the instructions;
//! how many candidates there are is a matter of speed alone.
//!
//! Many equal scores are no reason to be slow: copies of a vector are scanned once (`crate::reference_terms`), and
//! products of small integers are not rounded at all, which the bound knows. What stays slow is what
//! `f32` cannot tell apart: L2 between vectors whose distances from each other are some thousand
//! times less than their norms, or in several such clusters; and, by cosine, more than some hundred
//! other vectors that all score the same. So do queries that are not finite or of an extreme size;
//! the few such vectors of a reference are scored by definition beside the scan.

mod bound;
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
use crate::reference_terms::{is_regular, norm};
use bound::{Bound, sums_exactly};
use exact::{Scored, Scorer, nearest_of_all};
use nearest::Nearest;
use scan::{Scan, scan};

/// Bytes of packed queries that a second cache keeps beside what streams past.
const QUERY_BYTES: usize = 1 << 20;

/// Rows of the reference that a worker takes at least.
const SHARE_ROWS: usize = 512;

/// So many times the candidates are looked for when the first do not suffice.
const AGAIN: usize = 16;

/// What top-k works in.
#[derive(Default)]
pub(super) struct TopKScratch {
    packed: Aligned,
    scanned: Vec<f32>,
    shares: Vec<Share>,
}

/// What one worker found in its share of the reference.
#[derive(Default)]
struct Share {
    nearest: Nearest,
    rows: usize,
}

/// What all queries of a call have in common.
#[derive(Clone, Copy)]
struct Search<'a> {
    isa: Isa,
    pool: &'a Pool,
    reference: &'a Reference,
    metric: Metric,
    k: usize,
}

/// One query, and where its answer goes.
struct Query<'a> {
    vector: &'a [f32],
    norm: f64,
    bound: Bound,
    ids: &'a mut [i64],
    scores: &'a mut [f32],
    is_answered: bool,
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
        self.packed.bytes() + size_of_val(&self.scanned[..]) + shares
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
        let Ask { queries, metric, k, ids, scores } = ask;
        let search = Search { isa, pool, reference, metric, k };
        let (width, rows) = (reference.matrix().width(), reference.matrix().rows());
        let shares = pool.threads().min(rows.div_ceil(SHARE_ROWS)).max(1);
        self.shares.resize_with(shares.max(pool.threads()), Share::default);
        // Queries that are looked up together, when so many candidates are kept.
        let panel = panel_columns(isa);
        let block = |kept: usize| {
            let query_bytes = size_of::<f32>() * width + shares * Nearest::bytes_for(kept);
            let fits = (bytes_max / query_bytes).min(QUERY_BYTES / (size_of::<f32>() * width));
            (fits / panel).min(512 / panel) * panel
        };
        let kept = kept(k, rows);
        let (first, more) = (block(kept).max(panel), (AGAIN * kept).min(rows));
        let answers = ids.chunks_mut(first * k).zip(scores.chunks_mut(first * k));
        for (vectors, (ids, scores)) in queries.chunks(first * width).zip(answers) {
            let answers = ids.chunks_mut(k).zip(scores.chunks_mut(k));
            let queries = vectors.chunks_exact(width).zip(answers).map(|(vector, (ids, scores))| {
                let (norm, bound) = (norm(vector), Bound::Exact);
                Query { vector, norm, bound, ids, scores, is_answered: false }
            });
            let (mut open, mut odd): (Vec<_>, Vec<_>) =
                queries.partition(|query| is_regular(query.norm, metric));
            self.look(search, &mut open, (shares, kept));
            open.retain(|query| !query.is_answered);
            if more > kept && block(more) > 0 {
                open.chunks_mut(block(more)).for_each(|part| self.look(search, part, (shares, more)));
                open.retain(|query| !query.is_answered);
            }
            odd.append(&mut open);
            by_definition(search, &mut odd);
        }
    }

    /// Looks up a block of queries, and answers those whose candidates are sure to be the right ones.
    fn look(&mut self, search: Search<'_>, queries: &mut [Query<'_>], (shares, kept): (usize, usize)) {
        if queries.is_empty() {
            return;
        }
        let Search { isa, pool, reference, metric, k } = search;
        self.pack(search, queries);
        let (count, rows) = (queries.len(), reference.matrix().rows());
        let packed = self.packed.as_slice();
        let share_rows = rows.div_ceil(shares);
        each_of(pool, &mut self.shares[..shares], |index, share| {
            share.nearest.reset(count, panel_columns(isa), kept);
            let rows = (index * share_rows).min(rows)..((index + 1) * share_rows).min(rows);
            share.rows = rows.len();
            let job = Scan { reference, metric, rows, queries: packed };
            scan(isa, &job, &mut share.nearest);
        });
        let found = &self.shares[..shares];
        let each = count.div_ceil(pool.threads());
        let mut parts: Vec<_> = queries.chunks_mut(each).collect();
        each_of(pool, &mut parts, |part, queries| {
            let mut candidates = Vec::new();
            for (index, query) in (part * each..).zip(queries.iter_mut()) {
                let scorer = Scorer { reference, metric, query: query.vector, norm: query.norm };
                candidates.clear();
                let rows = found.iter().flat_map(|share| share.nearest.of(index));
                scorer.candidates(rows, k, &mut candidates);
                let mut left_out = found.iter().filter_map(|share| share.nearest.left_out(index, share.rows));
                let last = candidates.get(k - 1).map_or(f32::NAN, |last| last.score);
                if left_out.all(|score| query.bound.rules_out(score, last)) {
                    query.answer(reference, &candidates);
                }
            }
        });
    }

    /// Packs a block of queries as they are scanned: those of cosine as unit vectors, unless
    /// they would be rounded for nothing, those of L2 from the reference's centre.
    fn pack(&mut self, search: Search<'_>, queries: &mut [Query<'_>]) {
        let Search { isa, reference, metric, .. } = search;
        let (width, panel_columns) = (reference.matrix().width(), panel_columns(isa));
        let terms = reference.terms(metric);
        self.packed.reserve(queries.len().next_multiple_of(panel_columns) * width);
        let packed = self.packed.as_mut_slice();
        packed.fill(0.0);
        for (index, query) in queries.iter_mut().enumerate() {
            let elements = query.vector.iter().map(|x| f64::from(*x));
            self.scanned.clear();
            match metric {
                Metric::Dot => self.scanned.extend(query.vector),
                Metric::Cosine => {
                    let is_exact = sums_exactly(query.vector, query.norm, &terms.extent);
                    let inverse = if is_exact { 1.0 } else { 1.0 / query.norm };
                    self.scanned.extend(elements.map(|x| (x * inverse) as f32));
                }
                Metric::L2 => {
                    let from_centre = elements.zip(&terms.centre).map(|(x, c)| x - f64::from(*c));
                    self.scanned.extend(from_centre.map(|x| x as f32));
                }
            }
            query.bound = Bound::new(metric, terms, &self.scanned, query.vector);
            let panel = &mut packed[index / panel_columns * panel_columns * width..];
            pack_panel(&self.scanned, width, panel_columns, &mut panel[index % panel_columns..]);
        }
    }
}

/// Answers queries by a look at all vectors.
fn by_definition(search: Search<'_>, queries: &mut [Query<'_>]) {
    #[cfg(test)]
    tests::BY_DEFINITION.set(tests::BY_DEFINITION.get() + queries.len());
    let Search { isa, pool, reference, metric, k } = search;
    let each = queries.len().div_ceil(pool.threads()).max(1);
    let mut parts: Vec<_> = queries.chunks_mut(each).collect();
    each_of(pool, &mut parts, |_, queries| {
        let mut nearest = Vec::new();
        for query in queries.iter_mut() {
            let scorer = Scorer { reference, metric, query: query.vector, norm: query.norm };
            nearest.clear();
            nearest_of_all(isa, &scorer, k, &mut nearest);
            query.answer(reference, &nearest);
        }
    });
}

impl Query<'_> {
    /// The nearest, in order, and nothing where there are none left.
    fn answer(&mut self, reference: &Reference, nearest: &[Scored]) {
        self.ids.fill(-1);
        self.scores.fill(f32::NAN);
        for ((id, score), nearest) in self.ids.iter_mut().zip(self.scores.iter_mut()).zip(nearest) {
            *id = reference.matrix().ids()[nearest.row as usize];
            *score = nearest.score;
        }
        self.is_answered = true;
    }
}

/// Candidates that are kept per query for `k` that are asked for: some more, as scores that lie
/// close may stand in another order in `f32`.
fn kept(k: usize, rows: usize) -> usize {
    (k + k / 8 + 16).min(rows).max(1)
}

#[cfg(test)]
mod tests;
