//! The entry points of attention, top-k and the hashes.

use super::kernel::{Kernel, Library, c_type};
use super::kernel_row::THREADS;
use crate::Element;
use crate::op::Metric;

/// Where the queries, keys or values of a token lie in a buffer, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadPlace {
    /// From token to token.
    pub stride: usize,
    /// The first head's.
    pub offset: usize,
}

/// What attention's kernel is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttentionShape {
    pub element: Element,
    pub heads: usize,
    /// Of a head.
    pub d: usize,
    pub causal: bool,
    /// Query, key and value.
    pub places: [HeadPlace; 3],
}

/// How attention is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttentionKind {
    /// On tensor cores: `f16`, heads of a multiple of 16 up to 128, aligned, not causal.
    Mma,
    /// Tiles in shared memory: heads up to [`TILED_MAX`].
    Tiled,
    /// A warp per token.
    Wide,
}

/// The widest head whose tiles fit into 48 KiB of shared memory.
const TILED_MAX: usize = 160;

impl AttentionShape {
    /// The fastest kind that can do it. A weight of 0 on the tensor cores would not keep a NaN from
    /// a token that must not see it, so that causal attention stays off them.
    pub(crate) fn kind(&self) -> AttentionKind {
        let aligned = self.places.iter().all(|place| place.stride % 8 == 0 && place.offset % 8 == 0);
        match self.d {
            16..=128
                if self.element == Element::F16 && self.d.is_multiple_of(16) && aligned && !self.causal =>
            {
                AttentionKind::Mma
            }
            ..=TILED_MAX => AttentionKind::Tiled,
            _ => AttentionKind::Wide,
        }
    }

    /// Parameters: query, key, value, out, offsets; of [`AttentionKind::Wide`] also rows and tokens.
    pub(crate) fn kernel(&self) -> Kernel {
        let ty = c_type(self.element);
        let places: Vec<String> =
            self.places.iter().map(|place| format!("Place<{}, {}>", place.stride, place.offset)).collect();
        let places = places.join(", ");
        let (d, heads, causal) = (self.d, self.heads, self.causal);
        let parameters = format!(
            "const {ty}* __restrict__ q, const {ty}* __restrict__ k, const {ty}* __restrict__ v, \
             {ty}* __restrict__ out, const int* __restrict__ offsets"
        );
        match self.kind() {
            AttentionKind::Mma => Kernel::entry(
                "attention_mma",
                Library::AttentionMma,
                self.block(),
                &parameters,
                &format!("  attention_mma<{d}, {places}>(q, k, v, out, offsets, {heads});\n"),
            ),
            AttentionKind::Tiled => Kernel::entry(
                "attention",
                Library::Attention,
                self.block(),
                &parameters,
                &format!("  attention<{ty}, {d}, {causal}, {places}>(q, k, v, out, offsets, {heads});\n"),
            ),
            AttentionKind::Wide => Kernel::entry(
                "attention_wide",
                Library::Attention,
                self.block(),
                &format!("{parameters}, i64 rows, i64 tokens"),
                &format!(
                    "  attention_wide<{ty}, {d}, {causal}, {places}>(q, k, v, out, offsets, {heads}, rows, tokens);\n"
                ),
            ),
        }
    }

    /// Threads of a block.
    pub(crate) fn block(&self) -> u32 {
        match self.kind() {
            AttentionKind::Mma => 64,
            AttentionKind::Tiled | AttentionKind::Wide => THREADS,
        }
    }
}

/// What the kernels of a search are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SearchShape {
    pub element: Element,
    pub metric: Metric,
    pub width: usize,
    pub k: usize,
}

impl SearchShape {
    /// Whether centres are taken from vectors and queries: a distance does not change by it. Not in
    /// `f16`, where the query is exact and would not be without its centre.
    pub(crate) fn is_centred(&self) -> bool {
        self.metric == Metric::L2 && self.element == Element::F32
    }

    fn template(&self) -> String {
        let metric = match self.metric {
            Metric::Dot => "DOT",
            Metric::Cosine => "COSINE",
            Metric::L2 => "L2",
        };
        format!("{metric}, {}, {}, {}", c_type(self.element), self.width, self.k)
    }

    /// Parameters: scores, queries, their squares, vectors, their squares, lists, then the first query,
    /// the tile's first vector, its vectors, and the lists per query.
    pub(crate) fn select(&self) -> Kernel {
        let ty = c_type(self.element);
        Kernel::entry(
            "select",
            Library::Select,
            THREADS,
            &format!(
                "const float* __restrict__ scores, const {ty}* __restrict__ queries, \
                 const float* __restrict__ squares, const {ty}* __restrict__ vectors, \
                 const float* __restrict__ others, u64* __restrict__ lists, i64 query_first, i64 tile_first, \
                 i64 tile_count, i64 splits"
            ),
            &format!(
                "  select<{}>(scores, queries, squares, vectors, others, lists, query_first, tile_first, tile_count, \
                 splits);\n",
                self.template()
            ),
        )
    }

    /// Parameters: lists, queries, vectors, ids, the ids and scores that it makes, the matrix's
    /// vectors, and the lists per query.
    pub(crate) fn finish(&self) -> Kernel {
        let ty = c_type(self.element);
        Kernel::entry(
            "finish",
            Library::Select,
            THREADS,
            &format!(
                "const u64* __restrict__ lists, const {ty}* __restrict__ queries, \
                 const {ty}* __restrict__ vectors, const i64* __restrict__ ids, i64* __restrict__ out_ids, \
                 float* __restrict__ out_scores, i64 reference_rows, i64 splits"
            ),
            &format!(
                "  finish<{}>(lists, queries, vectors, ids, out_ids, out_scores, reference_rows, splits);\n",
                self.template()
            ),
        )
    }
}

const HASH_PARAMETERS: &str = "const int* __restrict__ tokens, const int* __restrict__ offsets";

/// Parameters: tokens, offsets, a factor and an addend per hash, out, rows.
pub(crate) fn min_hash(hashes: usize) -> Kernel {
    Kernel::entry(
        "min_hash",
        Library::Hash,
        THREADS,
        &format!("{HASH_PARAMETERS}, const u32* __restrict__ parameters, int* __restrict__ out, i64 rows"),
        &format!("  min_hash<{hashes}>(tokens, offsets, parameters, out, rows);\n"),
    )
}

/// Parameters: tokens, offsets, a key per word, out, rows.
pub(crate) fn sim_hash(words: usize) -> Kernel {
    Kernel::entry(
        "sim_hash",
        Library::Hash,
        THREADS,
        &format!("{HASH_PARAMETERS}, const u64* __restrict__ keys, i64* __restrict__ out, i64 rows"),
        &format!("  sim_hash<{words}>(tokens, offsets, keys, out, rows);\n"),
    )
}

/// Parameters: tokens, offsets, out.
pub(crate) fn feature_hash(width: usize, key: u64) -> Kernel {
    Kernel::entry(
        "feature_hash",
        Library::Hash,
        THREADS,
        &format!("{HASH_PARAMETERS}, float* __restrict__ out"),
        &format!("  feature_hash<{width}>(tokens, offsets, {key:#018x}ull, out);\n"),
    )
}
