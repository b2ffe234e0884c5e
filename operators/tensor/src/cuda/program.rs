//! What a device does for a graph: steps over buffers, with sizes that depend on the batch.
//!
//! The rule it lives by: whoever runs a program needs no idea of what an op means. He
//! 1. uploads [`Program::constants`] and [`Program::references`] (and runs each reference's `prepare`),
//! 2. counts a batch ([`Program::counts`]) and lays its buffers out in one arena ([`Program::layout`]),
//! 3. copies tensors and offsets to [`Program::inputs`], runs [`Program::steps`] in order, and copies
//!    [`Program::outputs`] back.
//!
//! Buffers, constants and references begin at a multiple of [`ALIGNMENT`] bytes; kernels read 16
//! bytes at once. A launch of no blocks and a product of no rows are left out. Nothing reads memory
//! that no step or copy has written.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::kernel::Kernel;
use super::scan::{Scan, ScanPart};
use crate::Element;
use crate::op::{ReferenceId, WeightId};

/// What every buffer's first byte is aligned to.
pub const ALIGNMENT: usize = 256;

/// A buffer of a batch, by its place in [`Program::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub usize);

/// A constant, by its place in [`Program::constants`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConstantId(pub usize);

/// A reference matrix in one element, by its place in [`Program::references`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReferenceSlot(pub usize);

/// A kernel, by its place in [`Program::kernels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelId(pub usize);

/// Rows that vary in length, by their place in [`Program::axes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AxisId(pub usize);

/// A graph, lowered.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Inputs whose rows vary in length.
    pub axes: Vec<Axis>,
    /// Where the graph's inputs go, in the graph's order.
    pub inputs: Vec<Port>,
    /// Where the graph's outputs come from, in the graph's order.
    pub outputs: Vec<Port>,
    /// What lives while a batch is computed: inputs, outputs, and what is between them.
    pub buffers: Vec<BufferSpec>,
    /// What is uploaded once.
    pub constants: Vec<Constant>,
    /// Reference matrices, as the steps want them.
    pub references: Vec<ReferenceSpec>,
    /// The kernels that the steps and references launch, each once.
    pub kernels: Vec<Kernel>,
    /// What to do, in order.
    pub steps: Vec<Step>,
}

/// The lengths of the rows of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// The input's name.
    pub name: Arc<str>,
    /// The input's place in [`Program::inputs`].
    pub input: usize,
    /// Gets the `rows + 1` offsets, `i32`.
    pub offsets: BufferId,
}

/// An input or output: one packed tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The column's name.
    pub name: Arc<str>,
    /// Holds the packed tensors; `buffers[buffer]` says how many bytes.
    pub buffer: BufferId,
    /// What they are made of.
    pub element: Element,
    /// Whose lengths the rows have, where they vary.
    pub axis: Option<AxisId>,
    /// The fixed dimensions.
    pub dims: Vec<usize>,
}

/// A buffer's size, and the steps that use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferSpec {
    /// How many bytes.
    pub size: Size,
    /// The first and the last step that touch it, by their place in [`Program::steps`]. An input's
    /// begins at 0, an output's ends at `steps.len()`, when it is copied back.
    pub live: RangeInclusive<usize>,
}

/// A number that depends on the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// 1.
    One,
    /// Rows of the batch.
    Rows,
    /// Tokens of all rows.
    Tokens(AxisId),
    /// Tokens of the longest row.
    Longest(AxisId),
    /// Vectors of a reference matrix.
    ReferenceRows(ReferenceSlot),
    /// [`Scan::lists`] for this batch: sorted lists of candidates, over all rows.
    ScanLists,
    /// [`Scan::splits`] for this batch: lists per row.
    ScanSplits,
    /// [`ScanPart::query_first`].
    QueryFirst,
    /// [`ScanPart::query_count`].
    QueryCount,
    /// [`ScanPart::tile_first`].
    TileFirst,
    /// [`ScanPart::tile_count`].
    TileCount,
}

/// Bytes: `count * each + plus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// Counts things.
    pub count: Count,
    /// Bytes of one of them.
    pub each: usize,
    /// Bytes beyond them.
    pub plus: usize,
}

/// Blocks along one dimension of a grid: `ceil(count * times / over)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// Counts things.
    pub count: Count,
    /// Pieces of one of them.
    pub times: usize,
    /// Pieces that a block does.
    pub over: usize,
}

/// What is uploaded once: weights as the steps want them, or bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// Weights one behind the other (of matrices: more rows), in their stored order, each element
    /// converted to `element` (to `f16`: nearest even).
    Weights {
        /// Which.
        weights: Vec<WeightId>,
        /// `f32` or `f16`.
        element: Element,
    },
    /// Bytes as they are, in little-endian order.
    Bytes(Vec<u8>),
}

/// A reference matrix as the steps want it: vectors, norms and ids.
///
/// Uploading one is: `rows * width` elements, converted to `element`, row after row; `rows` ids of
/// `i64`; room for `rows` norms of `f32`; then `prepare`, which computes the norms. All of it anew
/// for every new matrix. With 0 rows the three may be null.
///
/// Where it is centred, its [`centre`](super::centre) is taken from every vector before that is
/// converted, and is uploaded too: `width` elements of `f32`, whatever the rows are.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceSpec {
    /// The graph's reference matrix.
    pub reference: ReferenceId,
    /// Elements of a vector.
    pub width: usize,
    /// `f32` or `f16`.
    pub element: Element,
    /// For a search by distance.
    pub is_centred: bool,
    /// Fills the norms. Its counts and arguments are of this reference alone.
    pub prepare: Launch,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A product by cuBLASLt.
    Gemm(Gemm),
    /// A kernel.
    Launch(Launch),
    /// A search through a reference matrix, part by part.
    Scan(Scan),
}

/// `out[m, n] = epilogue(input[m, k] * weight[n, k]^T + bias[n])`, all row-major and dense.
///
/// In cuBLASLt's column-major words: `D (n x m, ld n) = op_T(weight: k x n, ld k) * input (k x m, ld
/// k)`, with a bias along D's rows. `f32` accumulates and computes in plain `f32` (no TF32); `f16`
/// accumulates in `f32`. The bias has `out`'s element.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    /// `[m, k]`.
    pub input: BufferId,
    /// `[n, k]`.
    pub weight: ConstantId,
    /// `[n]`, in `element`.
    pub bias: Option<ConstantId>,
    /// `[m, n]`, in `element`.
    pub out: BufferId,
    /// Rows are `m = count * m_each`.
    pub m: Count,
    /// See `m`.
    pub m_each: usize,
    /// Columns.
    pub n: usize,
    /// The inner dimension.
    pub k: usize,
    /// Of `input`, `weight`, `bias` and `out`: `f32` or `f16`.
    pub element: Element,
    /// Applied to the sum before it is stored.
    pub epilogue: Epilogue,
}

/// What the product's last step does beyond the bias.
///
/// ReLU is not among them: cuBLASLt does not promise to keep NaN. Exact GELU is not either: the
/// library's own is the approximation by tanh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// GELU by tanh: `CUBLASLT_EPILOGUE_GELU(_BIAS)`. For `f16` alone.
    GeluTanh,
}

/// A kernel over a grid of blocks, with no shared memory but its own static one.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Which.
    pub kernel: KernelId,
    /// Blocks along x, y and z.
    pub grid: [Blocks; 3],
    /// Threads of a block, along x.
    pub block: u32,
    /// In the kernel's order; pointers, or `i64`.
    pub arguments: Vec<Argument>,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Argument {
    /// A pointer to a buffer.
    Buffer(BufferId),
    /// A pointer to a constant.
    Constant(ConstantId),
    /// A pointer to a reference's vectors.
    ReferenceVectors(ReferenceSlot),
    /// A pointer to a reference's norms, `f32` (what `prepare` keeps of a vector's length).
    ReferenceNorms(ReferenceSlot),
    /// A pointer to a reference's ids, `i64`.
    ReferenceIds(ReferenceSlot),
    /// A pointer to the centre of a reference that is centred, `f32`.
    ReferenceCentre(ReferenceSlot),
    /// A number, as `i64`.
    Count(Count),
}

/// The numbers of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows.
    pub rows: usize,
    /// Per axis: tokens of all rows, and of the longest.
    pub axes: Vec<AxisCounts>,
    /// Per [`ReferenceSlot`]: vectors.
    pub reference_rows: Vec<usize>,
    /// The part of a search that is being done; its default elsewhere.
    pub part: ScanPart,
}

/// The numbers of an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AxisCounts {
    /// Tokens of all rows.
    pub tokens: usize,
    /// Tokens of the longest row.
    pub longest: usize,
}

impl Counts {
    /// What a count is; 0 for an axis or a reference that is not there.
    pub fn get(&self, count: Count) -> usize {
        let axis = |id: AxisId| self.axes.get(id.0).copied().unwrap_or_default();
        match count {
            Count::One => 1,
            Count::Rows => self.rows,
            Count::Tokens(id) => axis(id).tokens,
            Count::Longest(id) => axis(id).longest,
            Count::ReferenceRows(slot) => self.reference_rows.get(slot.0).copied().unwrap_or_default(),
            Count::ScanLists => Scan::lists(self.rows),
            Count::ScanSplits => Scan::splits(self.rows),
            Count::QueryFirst => self.part.query_first,
            Count::QueryCount => self.part.query_count,
            Count::TileFirst => self.part.tile_first,
            Count::TileCount => self.part.tile_count,
        }
    }
}

impl AxisCounts {
    /// The numbers of rows that begin at these offsets.
    pub fn of(offsets: &[i32]) -> AxisCounts {
        let lengths = offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize);
        AxisCounts {
            tokens: offsets.last().map_or(0, |last| *last as usize),
            longest: lengths.max().unwrap_or(0),
        }
    }
}

impl Size {
    /// `count` things of `each` bytes.
    pub const fn of(count: Count, each: usize) -> Size {
        Size { count, each, plus: 0 }
    }

    /// Bytes for a batch.
    pub fn bytes(&self, counts: &Counts) -> usize {
        counts.get(self.count).saturating_mul(self.each).saturating_add(self.plus)
    }
}

impl Blocks {
    /// One block.
    pub const ONE: Blocks = Blocks { count: Count::One, times: 1, over: 1 };

    /// Blocks for a batch; at most `i32::MAX` along x and 65,535 along y and z where the limits of a
    /// plan hold.
    pub fn blocks(&self, counts: &Counts) -> usize {
        counts.get(self.count).saturating_mul(self.times).div_ceil(self.over)
    }
}

impl Program {
    /// The axis of that name.
    pub fn axis(&self, name: &str) -> Option<AxisId> {
        self.axes.iter().position(|axis| &*axis.name == name).map(AxisId)
    }

    /// The numbers of a batch: its rows, the offsets of every axis (in [`Program::axes`]' order), and
    /// the vectors of every [`ReferenceSpec`] as they are now.
    pub fn counts(&self, rows: usize, offsets: &[&[i32]], reference_rows: &[usize]) -> Counts {
        Counts {
            rows,
            axes: offsets.iter().map(|offsets| AxisCounts::of(offsets)).collect(),
            reference_rows: reference_rows.to_vec(),
            part: ScanPart::default(),
        }
    }
}

impl Step {
    /// The buffers that it reads or writes.
    pub fn buffers(&self) -> Vec<BufferId> {
        match self {
            Step::Gemm(gemm) => vec![gemm.input, gemm.out],
            Step::Launch(launch) => launch.buffers().collect(),
            Step::Scan(scan) => {
                let launches = scan.select.buffers().chain(scan.finish.buffers());
                [scan.queries, scan.scores].into_iter().chain(launches).collect()
            }
        }
    }
}

impl Argument {
    /// The reference matrix that it points into.
    pub fn reference(&self) -> Option<ReferenceSlot> {
        match self {
            Argument::ReferenceVectors(slot)
            | Argument::ReferenceNorms(slot)
            | Argument::ReferenceIds(slot)
            | Argument::ReferenceCentre(slot) => Some(*slot),
            Argument::Buffer(_) | Argument::Constant(_) | Argument::Count(_) => None,
        }
    }
}

impl Launch {
    fn buffers(&self) -> impl Iterator<Item = BufferId> + '_ {
        self.arguments.iter().filter_map(|argument| match argument {
            Argument::Buffer(buffer) => Some(*buffer),
            _ => None,
        })
    }
}
