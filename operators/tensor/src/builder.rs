//! Builds a graph op by op, and checks each op's types as it is added.

use std::sync::Arc;

mod ops;

pub use ops::TOP_K_MAX;

use crate::graph::{Graph, Input, Node, Reference, Source, Weight};
use crate::op::{Op, ReferenceId, ValueId, WeightId};
use crate::{Element, Error, Result, TensorType};

/// Builds a [`Graph`].
///
/// Ops that compute take `f32` and `f16`; `f16` in makes `f16` out. An error names the op and the
/// shapes that do not fit.
///
/// ```
/// use thalweg_tensor::{Element, GraphBuilder};
/// use thalweg_tensor::op::{Activation, Pooling};
///
/// let mut graph = GraphBuilder::new();
/// let tokens = graph.tokens("tokens", 512)?;
/// let table = graph.weight("embeddings", [30_522, 384])?;
/// let dense = graph.weight("dense.weight", [128, 384])?;
/// let embedded = graph.gather(tokens, table, Element::F32)?;
/// let pooled = graph.pool(embedded, Pooling::Mean)?;
/// let projected = graph.matmul(pooled, dense, None, Some(Activation::Gelu))?;
/// let normal = graph.l2_normalise(projected)?;
/// graph.output("embedding", normal)?;
/// let graph = graph.build()?;
/// assert_eq!(graph.value(graph.outputs()[0].1).to_string(), "f32[128]");
/// # Ok::<(), thalweg_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct GraphBuilder {
    inputs: Vec<Input>,
    weights: Vec<Weight>,
    references: Vec<Reference>,
    values: Vec<TensorType>,
    nodes: Vec<Node>,
    outputs: Vec<(Arc<str>, ValueId)>,
    next_name: Option<String>,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new() -> GraphBuilder {
        GraphBuilder::default()
    }

    /// Names the next op, for errors; unnamed ones are called by op and place, `matmul_3`.
    pub fn name(&mut self, name: impl Into<String>) -> &mut GraphBuilder {
        self.next_name = Some(name.into());
        self
    }

    /// A column of tensors of a fixed shape: `f32`, `f16`, `i8` or (for ids) `i32`.
    ///
    /// # Errors
    /// When the name is taken, or a dimension is 0.
    pub fn tensor(&mut self, name: &str, element: Element, dims: impl Into<Vec<usize>>) -> Result<ValueId> {
        let ty = TensorType::fixed(element, dims);
        if ty.width() == 0 {
            return Err(Error::graph(name, format!("input of type {ty} has a dimension of 0")));
        }
        self.input(name, Source::Tensor, ty, None)
    }

    /// A column of lists of token ids, each of at most `length_max`.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn tokens(&mut self, name: &str, length_max: usize) -> Result<ValueId> {
        self.input(name, Source::Tokens, TensorType::ragged(Element::I32, name, []), Some(length_max))
    }

    /// A column of text, tokenised by the tokenizer of that name, each row cut to `length_max`
    /// tokens, special ones included.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn text(&mut self, name: &str, tokenizer: &str, length_max: usize) -> Result<ValueId> {
        let source = Source::Text { tokenizer: tokenizer.into(), length_max };
        self.input(name, source, TensorType::ragged(Element::I32, name, []), Some(length_max))
    }

    fn input(
        &mut self,
        name: &str,
        source: Source,
        ty: TensorType,
        length_max: Option<usize>,
    ) -> Result<ValueId> {
        if self.inputs.iter().any(|input| &*input.name == name) {
            return Err(Error::graph(name, "there is an input of that name already"));
        }
        let value = self.value(ty);
        self.inputs.push(Input { name: name.into(), source, value, id_bound: None, length_max });
        Ok(value)
    }

    /// A tensor of the weights. Asked for twice, it is the same.
    ///
    /// # Errors
    /// When it was asked for with another shape, or a dimension is 0.
    pub fn weight(&mut self, name: &str, dims: impl Into<Vec<usize>>) -> Result<WeightId> {
        let dims = dims.into();
        if dims.contains(&0) {
            return Err(Error::graph(name, format!("weight of shape {dims:?} has a dimension of 0")));
        }
        if let Some(index) = self.weights.iter().position(|weight| weight.name == name) {
            let known = &self.weights[index].dims;
            return match *known == dims {
                true => Ok(WeightId(index as u32)),
                false => {
                    Err(Error::graph(name, format!("weight of shape {known:?} is also used as {dims:?}")))
                }
            };
        }
        self.weights.push(Weight { name: name.into(), dims });
        Ok(WeightId(self.weights.len() as u32 - 1))
    }

    /// A reference matrix of vectors of `width`. Asked for twice, it is the same.
    ///
    /// # Errors
    /// When it was asked for with another width.
    pub fn reference(&mut self, name: &str, width: usize) -> Result<ReferenceId> {
        if let Some(index) = self.references.iter().position(|reference| reference.name == name) {
            let known = self.references[index].width;
            return match known == width {
                true => Ok(ReferenceId(index as u32)),
                false => Err(Error::graph(
                    name,
                    format!("reference matrix of width {known} is also used with width {width}"),
                )),
            };
        }
        self.references.push(Reference { name: name.into(), width });
        Ok(ReferenceId(self.references.len() as u32 - 1))
    }

    /// Makes a value a column of the result.
    ///
    /// # Errors
    /// When there is an output of that name already.
    pub fn output(&mut self, name: &str, value: ValueId) -> Result<()> {
        if self.outputs.iter().any(|(known, _)| &**known == name) {
            return Err(Error::graph(name, "there is an output of that name already"));
        }
        self.outputs.push((name.into(), value));
        Ok(())
    }

    /// The graph.
    ///
    /// # Errors
    /// When it has no input or no output.
    pub fn build(self) -> Result<Graph> {
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return Err(Error::graph("graph", "needs at least one input and one output"));
        }
        Ok(Graph {
            inputs: self.inputs,
            weights: self.weights,
            references: self.references,
            values: self.values,
            nodes: self.nodes,
            outputs: self.outputs,
        })
    }

    /// The type of a value made so far.
    pub fn typed(&self, value: ValueId) -> &TensorType {
        &self.values[value.0 as usize]
    }

    fn weight_dims(&self, weight: WeightId) -> &[usize] {
        &self.weights[weight.0 as usize].dims
    }

    fn maker(&self, value: ValueId) -> Option<&Op> {
        self.nodes.iter().find(|node| node.outputs.contains(&value)).map(|node| &node.op)
    }

    fn value(&mut self, ty: TensorType) -> ValueId {
        self.values.push(ty);
        ValueId(self.values.len() as u32 - 1)
    }

    fn take_name(&mut self, op: &Op) -> String {
        self.next_name.take().unwrap_or_else(|| format!("{}_{}", op.name(), self.nodes.len()))
    }

    fn push(
        &mut self,
        name: String,
        op: Op,
        inputs: impl Into<Vec<ValueId>>,
        outputs: impl IntoIterator<Item = TensorType>,
    ) -> Vec<ValueId> {
        let outputs: Vec<ValueId> = outputs.into_iter().map(|ty| self.value(ty)).collect();
        self.nodes.push(Node { name, op, inputs: inputs.into(), outputs: outputs.clone() });
        outputs
    }
}
