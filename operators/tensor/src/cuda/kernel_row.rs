//! A fused group as a kernel: each vector is loaded once, goes through the group's ops in registers,
//! and is stored once.
//!
//! The group's text is single assignment: a register is written by the op that makes it and never
//! again, so that a store may be added behind the last op at any time.

use std::fmt::Write;

use super::kernel::{Kernel, Library, c_type};
use super::program::{Argument, Blocks, Count, KernelId, Launch};
use crate::Element;
use crate::op::Activation;

/// Threads of a block.
pub(crate) const THREADS: u32 = 256;
/// Elements that a warp holds at most; what reduces more takes a block.
const WARP_ELEMENTS_MAX: usize = 1_024;
/// Elements that a thread reads or writes at once, at most.
const VECTOR_MAX: usize = 8;

/// The vectors that a group works on: `count * outer` of `n` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// Tensors: rows, or tokens.
    pub count: Count,
    /// Vectors of a tensor.
    pub outer: usize,
    /// Elements of a vector.
    pub n: usize,
}

/// A value in registers: per thread its share of a vector, or one number per vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register {
    index: usize,
    /// Of the vector's elements, as they would be stored.
    pub element: Element,
    /// One number per vector.
    pub is_scalar: bool,
}

/// A kernel under construction.
#[derive(Clone, Debug)]
pub(crate) struct RowKernel {
    /// What it works on.
    pub space: Space,
    body: String,
    registers: usize,
    parameters: Vec<(String, Argument)>,
    whole_vectors: bool,
    granule: usize,
    has_store: bool,
    ops: Vec<&'static str>,
}

impl RowKernel {
    pub(crate) fn new(space: Space) -> RowKernel {
        RowKernel {
            space,
            body: String::new(),
            registers: 0,
            parameters: Vec::new(),
            whole_vectors: false,
            granule: space.n,
            has_store: false,
            ops: Vec::new(),
        }
    }

    /// Notes an op for the kernel's name.
    pub(crate) fn notes(&mut self, op: &'static str) {
        self.ops.push(op);
    }

    /// Whether anything comes out of it.
    pub(crate) fn has_store(&self) -> bool {
        self.has_store
    }

    fn input(&mut self, element: Element, argument: Argument) -> String {
        self.parameter(format!("const {}* __restrict__", c_type(element)), argument)
    }

    fn parameter(&mut self, ty: String, argument: Argument) -> String {
        let known = self.parameters.iter().position(|known| known.1 == argument && known.0 == ty);
        let index = known.unwrap_or_else(|| {
            self.parameters.push((ty, argument));
            self.parameters.len() - 1
        });
        format!("p{index}")
    }

    fn vector(&mut self, element: Element) -> Register {
        let ty = match element {
            Element::F32 | Element::F16 => "float",
            Element::I8 | Element::I32 => "int",
            Element::I64 => "i64",
        };
        let register = Register { index: self.registers, element, is_scalar: false };
        self.registers += 1;
        let _ = writeln!(self.body, "  {ty} {register}[R::PER];");
        register
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.body, "  {text}");
    }

    /// Vectors that lie `stride` elements apart, from `offset` on.
    pub(crate) fn load(
        &mut self,
        from: Argument,
        element: Element,
        stride: usize,
        offset: usize,
    ) -> Register {
        let pointer = self.input(element, from);
        self.granule = gcd(self.granule, gcd(stride, offset));
        let out = self.vector(element);
        self.line(&format!("load(row, {out}, {pointer}, row.vector, {stride}ll, {offset});"));
        out
    }

    /// One number per vector.
    pub(crate) fn load_scalar(&mut self, from: Argument) -> Register {
        let pointer = self.input(Element::F32, from);
        self.scalar(&format!("load_scalar(row, {pointer})"))
    }

    fn scalar(&mut self, text: &str) -> Register {
        let out = Register { index: self.registers, element: Element::F32, is_scalar: true };
        self.registers += 1;
        self.whole_vectors = true;
        self.line(&format!("float {out} = {text};"));
        out
    }

    /// Rows of a table, by ids that lie one per vector.
    pub(crate) fn gather(&mut self, table: Argument, ids: Argument, element: Element) -> Register {
        let (table, ids) = (self.input(element, table), self.input(Element::I32, ids));
        let out = self.vector(element);
        self.line(&format!("gather(row, {out}, {table}, {ids});"));
        out
    }

    /// Rows of a table, by a token's place in its row.
    pub(crate) fn positions(&mut self, table: Argument, offsets: Argument, element: Element) -> Register {
        let (table, offsets) = (self.input(element, table), self.input(Element::I32, offsets));
        let rows = self.parameter("i64".into(), Argument::Count(Count::Rows));
        let out = self.vector(element);
        self.line(&format!("positions(row, {out}, {table}, {offsets}, {rows});"));
        out
    }

    /// The tokens of a row as one vector: `pool_mean`, `pool_cls` or `pool_max`.
    pub(crate) fn pool(
        &mut self,
        function: &str,
        from: Argument,
        offsets: Argument,
        element: Element,
    ) -> Register {
        let (from, offsets) = (self.input(element, from), self.input(Element::I32, offsets));
        let out = self.vector(element);
        self.line(&format!("{function}(row, {out}, {from}, {offsets});"));
        out
    }

    /// Element by element: an expression of C++ in `j`.
    fn map(&mut self, element: Element, expression: &str) -> Register {
        let out = self.vector(element);
        self.line(&format!("EACH(j) {out}[j] = {expression};"));
        out
    }

    /// `a + b`.
    pub(crate) fn add(&mut self, a: Register, b: Register) -> Register {
        self.map(a.element, &format!("{a}[j] + {b}[j]"))
    }

    /// Adds the same vector everywhere.
    pub(crate) fn add_bias(&mut self, a: Register, bias: Argument) -> Register {
        let bias = self.shared_vector(bias);
        self.map(a.element, &format!("{a}[j] + {bias}[j]"))
    }

    /// `(a - mean) / deviation`.
    pub(crate) fn standardise(&mut self, a: Register, mean: Argument, deviation: Argument) -> Register {
        let (mean, deviation) = (self.shared_vector(mean), self.shared_vector(deviation));
        self.map(a.element, &format!("({a}[j] - {mean}[j]) / {deviation}[j]"))
    }

    /// `a - vector`.
    pub(crate) fn subtract(&mut self, a: Register, vector: Argument) -> Register {
        let vector = self.shared_vector(vector);
        self.map(a.element, &format!("{a}[j] - {vector}[j]"))
    }

    fn shared_vector(&mut self, vector: Argument) -> Register {
        let pointer = self.input(Element::F32, vector);
        let out = self.vector(Element::F32);
        self.line(&format!("load(row, {out}, {pointer}, 0, 0, 0);"));
        out
    }

    /// An activation.
    pub(crate) fn activate(&mut self, a: Register, activation: Activation) -> Register {
        self.map(a.element, &format!("{activation}({a}[j])"))
    }

    /// Which bucket; `boundaries` of `f32`.
    pub(crate) fn bucketise(&mut self, a: Register, boundaries: Argument, count: usize) -> Register {
        let boundaries = self.input(Element::F32, boundaries);
        self.map(Element::I32, &format!("bucket({boundaries}, {count}, {a}[j])"))
    }

    /// Another element.
    pub(crate) fn cast(&mut self, a: Register, to: Element) -> Register {
        let expression = match (a.element.is_float(), to) {
            (true, Element::F16) => format!("round_to_f16({a}[j])"),
            (false, Element::F16) => format!("round_to_f16((float){a}[j])"),
            (true, Element::I8) => format!("saturate_i8(float_to_int({a}[j]))"),
            (false, Element::I8) => format!("saturate_i8({a}[j])"),
            (true, Element::I32) => format!("float_to_int({a}[j])"),
            (false, Element::F32) => format!("(float){a}[j]"),
            _ => format!("{a}[j]"),
        };
        self.map(to, &expression)
    }

    fn reduction(&mut self, a: Register, call: &str) -> Register {
        self.whole_vectors = true;
        let out = self.map(a.element, &format!("{a}[j]"));
        self.line(&call.replace("OUT", &out.to_string()));
        out
    }

    /// Layer norm.
    pub(crate) fn layer_norm(
        &mut self,
        a: Register,
        gamma: Argument,
        beta: Argument,
        epsilon: f32,
    ) -> Register {
        let (gamma, beta) = (self.input(Element::F32, gamma), self.input(Element::F32, beta));
        self.reduction(a, &format!("layer_norm(row, OUT, {gamma}, {beta}, {});", literal(epsilon)))
    }

    /// Softmax.
    pub(crate) fn softmax(&mut self, a: Register) -> Register {
        self.reduction(a, "softmax(row, OUT);")
    }

    /// L2 normalise.
    pub(crate) fn l2_normalise(&mut self, a: Register, epsilon: f32) -> Register {
        self.reduction(a, &format!("l2_normalise(row, OUT, {});", literal(epsilon)))
    }

    /// The sums of the vectors' squares.
    pub(crate) fn squares(&mut self, a: Register) -> Register {
        self.scalar(&format!("squares(row, {a})"))
    }

    /// Values and scales.
    pub(crate) fn quantise(&mut self, a: Register) -> (Register, Register) {
        let values = self.vector(Element::I8);
        let scales = self.scalar(&format!("quantise(row, {a}, {values})"));
        (values, scales)
    }

    /// Values times scales.
    pub(crate) fn dequantise(&mut self, values: Register, scales: Register, to: Element) -> Register {
        self.map(to, &format!("(float){values}[j] * {scales}"))
    }

    /// Stores vectors `stride` elements apart, from `offset` on; a scalar one behind the other.
    pub(crate) fn store(&mut self, a: Register, to: Argument, stride: usize, offset: usize) {
        self.has_store = true;
        let pointer = self.parameter(format!("{}* __restrict__", c_type(a.element)), to);
        if a.is_scalar {
            return self.line(&format!("store_scalar(row, {a}, {pointer});"));
        }
        self.granule = gcd(self.granule, gcd(stride, offset));
        self.line(&format!("store(row, {a}, {pointer}, {stride}ll, {offset});"));
    }

    /// Elements that a thread reads at once, and threads of a vector: as many elements as alignment
    /// allows, unless fewer leave fewer threads idle at a vector's end.
    fn spread(&self) -> (usize, usize) {
        let n = self.space.n;
        let lanes = |vector: usize| match self.whole_vectors && n > WARP_ELEMENTS_MAX {
            true => THREADS as usize,
            false => n.div_ceil(vector).next_power_of_two().min(32),
        };
        let widest = gcd(self.granule, VECTOR_MAX);
        let narrower = (widest / 2).max(widest.min(4));
        let held = |vector: usize| n.next_multiple_of(vector * lanes(vector));
        let vector = if held(narrower) < held(widest) { narrower } else { widest };
        (vector, lanes(vector))
    }

    /// The kernel, and how it is launched once it has a place in a program.
    pub(crate) fn finish(mut self, place: impl FnOnce(Kernel) -> KernelId) -> Launch {
        let tensors = self.parameter("i64".into(), Argument::Count(self.space.count));
        let Space { n, outer, .. } = self.space;
        let (vector, lanes) = self.spread();
        let chunk = if self.whole_vectors { n } else { n.min(WARP_ELEMENTS_MAX) };
        let parameters: Vec<String> =
            (0..).zip(&self.parameters).map(|(i, (ty, _))| format!("{ty} p{i}")).collect();
        let body = format!(
            "  typedef Row<{n}, {vector}, {lanes}, {chunk}, {outer}> R;\n  R row({tensors});\n{}",
            self.body
        );
        self.ops.dedup();
        let what = match self.ops.len() {
            0 => "copy".to_string(),
            1..=4 => self.ops.join("_"),
            _ => format!("{}_to_{}", self.ops[..3].join("_"), self.ops[self.ops.len() - 1]),
        };
        let kernel = Kernel::entry(&what, Library::Row, THREADS, &parameters.join(", "), &body);
        let blocks = Blocks {
            count: self.space.count,
            times: outer * n.div_ceil(chunk),
            over: THREADS as usize / lanes,
        };
        Launch {
            kernel: place(kernel),
            grid: [blocks, Blocks::ONE, Blocks::ONE],
            block: THREADS,
            arguments: self.parameters.into_iter().map(|(_, argument)| argument).collect(),
        }
    }
}

impl std::fmt::Display for Register {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.is_scalar { "s" } else { "v" }, self.index)
    }
}

/// A float to the bit.
fn literal(value: f32) -> String {
    format!("bits_to_float({:#010x}u)", value.to_bits())
}

const fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
