//! The ops of a builder: each checks the types that it is given before it becomes a node.

use super::GraphBuilder;
use crate::graph::Source;
use crate::op::{Activation, Metric, Op, Pooling, ReferenceId, ValueId, WeightId};
use crate::{Element, Error, Result, TensorType};

/// The greatest `k` of [`GraphBuilder::top_k`]: what a block of a device selects in its own memory.
pub const TOP_K_MAX: usize = 1_024;

impl GraphBuilder {
    /// See [`Op::Gather`].
    ///
    /// # Errors
    /// When `ids` are not `i32` from an input or from `bucketise`, when `table` is not a matrix, or
    /// when `bucketise` has more buckets than it has rows.
    pub fn gather(&mut self, ids: ValueId, table: WeightId, element: Element) -> Result<ValueId> {
        let op = Op::Gather { table, element };
        let name = self.take_name(&op);
        let ty = self.typed(ids).clone();
        let shape = self.weight_dims(table).to_vec();
        let [rows, width] = shape[..] else {
            return Err(Error::graph(name, format!("its table has shape {shape:?}, not [rows, width]")));
        };
        if ty.element != Element::I32 {
            return Err(Error::graph(name, format!("ids of type {ty} into a table of shape {shape:?}")));
        }
        require_float(&name, &TensorType::fixed(element, []))?;
        if let Some(input) = self.inputs.iter_mut().find(|input| input.value == ids) {
            input.id_bound = Some(input.id_bound.map_or(rows, |bound| bound.min(rows)));
        } else {
            match self.maker(ids) {
                Some(Op::Bucketise { boundaries }) if boundaries.len() < rows => {}
                Some(Op::Bucketise { boundaries }) => {
                    return Err(Error::graph(
                        name,
                        format!("{} buckets into a table of shape {shape:?}", boundaries.len() + 1),
                    ));
                }
                _ => return Err(Error::graph(name, "ids must be an input or come from bucketise")),
            }
        }
        let mut out = ty.with_element(element);
        out.dims.push(width);
        Ok(self.push(name, op, [ids], [out])[0])
    }

    /// See [`Op::Positions`].
    ///
    /// # Errors
    /// When `tokens` is not an input of tokens or text, or `table` is not a matrix.
    pub fn positions(&mut self, tokens: ValueId, table: WeightId, element: Element) -> Result<ValueId> {
        let op = Op::Positions { table, element };
        let name = self.take_name(&op);
        let ty = self.require_tokens(&name, tokens)?;
        let shape = self.weight_dims(table).to_vec();
        let [rows, width] = shape[..] else {
            return Err(Error::graph(name, format!("its table has shape {shape:?}, not [length, width]")));
        };
        require_float(&name, &TensorType::fixed(element, []))?;
        if let Some(input) = self.inputs.iter_mut().find(|input| input.value == tokens) {
            input.length_max = Some(input.length_max.map_or(rows, |length| length.min(rows)));
            if let Source::Text { length_max, .. } = &mut input.source {
                *length_max = (*length_max).min(rows);
            }
        }
        let mut out = ty.with_element(element);
        out.dims.push(width);
        Ok(self.push(name, op, [tokens], [out])[0])
    }

    /// See [`Op::MatMul`].
    ///
    /// # Errors
    /// When the inner dimensions differ, or the bias is not as long as the weight has rows.
    pub fn matmul(
        &mut self,
        input: ValueId,
        weight: WeightId,
        bias: Option<WeightId>,
        activation: Option<Activation>,
    ) -> Result<ValueId> {
        let op = Op::MatMul { weight, bias, activation };
        let name = self.take_name(&op);
        let ty = self.require_vectors(&name, input)?;
        let shape = self.weight_dims(weight).to_vec();
        let [rows, columns] = shape[..] else {
            return Err(Error::graph(
                name,
                format!("input {ty} by a weight of shape {shape:?}, not [out, in]"),
            ));
        };
        if ty.last() != columns {
            return Err(Error::graph(
                name,
                format!(
                    "input {ty} by a weight of shape {shape:?} ([out, in]): {} is not {columns}",
                    ty.last()
                ),
            ));
        }
        if let Some(bias) = bias {
            self.require_vector(&name, "bias", bias, rows)?;
        }
        Ok(self.push(name, op, [input], [ty.with_last(rows)])[0])
    }

    /// See [`Op::Add`].
    ///
    /// # Errors
    /// When the types differ.
    pub fn add(&mut self, left: ValueId, right: ValueId) -> Result<ValueId> {
        let name = self.take_name(&Op::Add);
        let ty = self.typed(left).clone();
        require_float(&name, &ty)?;
        let other = self.typed(right);
        if ty != *other {
            return Err(Error::graph(name, format!("{ty} and {other} differ")));
        }
        Ok(self.push(name, Op::Add, [left, right], [ty])[0])
    }

    /// See [`Op::AddBias`].
    ///
    /// # Errors
    /// When the vector is not as long as the innermost dimension.
    pub fn add_bias(&mut self, input: ValueId, bias: WeightId) -> Result<ValueId> {
        let op = Op::AddBias { bias };
        let name = self.take_name(&op);
        let ty = self.require_vectors(&name, input)?;
        self.require_vector(&name, "bias", bias, ty.last())?;
        Ok(self.push(name, op, [input], [ty])[0])
    }

    /// See [`Op::Activate`].
    ///
    /// # Errors
    /// When the input is not of floats.
    pub fn activate(&mut self, input: ValueId, activation: Activation) -> Result<ValueId> {
        let op = Op::Activate(activation);
        let name = self.take_name(&op);
        let ty = self.typed(input).clone();
        require_float(&name, &ty)?;
        Ok(self.push(name, op, [input], [ty])[0])
    }

    /// See [`Op::LayerNorm`].
    ///
    /// # Errors
    /// When gamma or beta are not as long as the innermost dimension.
    pub fn layer_norm(
        &mut self,
        input: ValueId,
        gamma: WeightId,
        beta: WeightId,
        epsilon: f32,
    ) -> Result<ValueId> {
        let op = Op::LayerNorm { gamma, beta, epsilon };
        let name = self.take_name(&op);
        let ty = self.require_vectors(&name, input)?;
        self.require_vector(&name, "gamma", gamma, ty.last())?;
        self.require_vector(&name, "beta", beta, ty.last())?;
        require_epsilon(&name, epsilon)?;
        Ok(self.push(name, op, [input], [ty])[0])
    }

    /// See [`Op::Softmax`].
    ///
    /// # Errors
    /// When the input has no fixed dimension.
    pub fn softmax(&mut self, input: ValueId) -> Result<ValueId> {
        let name = self.take_name(&Op::Softmax);
        let ty = self.require_vectors(&name, input)?;
        Ok(self.push(name, Op::Softmax, [input], [ty])[0])
    }

    /// See [`Op::Attention`].
    ///
    /// # Errors
    /// When the three differ, have no tokens, or `heads` does not divide their width.
    pub fn attention(
        &mut self,
        [query, key, value]: [ValueId; 3],
        heads: usize,
        causal: bool,
    ) -> Result<ValueId> {
        let op = Op::Attention { heads, causal };
        let name = self.take_name(&op);
        let ty = self.require_vectors(&name, query)?;
        for other in [key, value] {
            let other = self.typed(other);
            if *other != ty {
                return Err(Error::graph(name, format!("query {ty} and key or value {other} differ")));
            }
        }
        if ty.axis.is_none() || ty.dims.len() != 1 {
            return Err(Error::graph(name, format!("{ty} is not [tokens, heads * d]")));
        }
        if heads == 0 || !ty.last().is_multiple_of(heads) {
            return Err(Error::graph(name, format!("{heads} heads do not divide {ty}")));
        }
        Ok(self.push(name, op, [query, key, value], [ty])[0])
    }

    /// See [`Op::Pool`].
    ///
    /// # Errors
    /// When the input has no tokens.
    pub fn pool(&mut self, input: ValueId, pooling: Pooling) -> Result<ValueId> {
        let op = Op::Pool(pooling);
        let name = self.take_name(&op);
        let mut ty = self.typed(input).clone();
        require_float(&name, &ty)?;
        if ty.axis.take().is_none() {
            return Err(Error::graph(name, format!("{ty} has no tokens to pool over")));
        }
        Ok(self.push(name, op, [input], [ty])[0])
    }

    /// See [`Op::L2Normalise`]; epsilon is 1e-12.
    ///
    /// # Errors
    /// When the input has no fixed dimension.
    pub fn l2_normalise(&mut self, input: ValueId) -> Result<ValueId> {
        let op = Op::L2Normalise { epsilon: 1e-12 };
        let name = self.take_name(&op);
        let ty = self.require_vectors(&name, input)?;
        Ok(self.push(name, op, [input], [ty])[0])
    }

    /// See [`Op::Quantise`]: values and scales.
    ///
    /// # Errors
    /// When the input has no fixed dimension.
    pub fn quantise(&mut self, input: ValueId) -> Result<(ValueId, ValueId)> {
        let name = self.take_name(&Op::Quantise);
        let ty = self.require_vectors(&name, input)?;
        let outputs = [ty.with_element(Element::I8), ty.without_last().with_element(Element::F32)];
        let made = self.push(name, Op::Quantise, [input], outputs);
        Ok((made[0], made[1]))
    }

    /// See [`Op::Dequantise`].
    ///
    /// # Errors
    /// When the scales are not those of such values.
    pub fn dequantise(&mut self, values: ValueId, scales: ValueId, to: Element) -> Result<ValueId> {
        let op = Op::Dequantise { to };
        let name = self.take_name(&op);
        let (values_type, scales_type) = (self.typed(values).clone(), self.typed(scales).clone());
        let wanted = values_type.without_last().with_element(Element::F32);
        if values_type.element != Element::I8 || values_type.dims.is_empty() || scales_type != wanted {
            return Err(Error::graph(name, format!("{values_type} with scales of type {scales_type}")));
        }
        let out = values_type.with_element(to);
        require_float(&name, &out)?;
        Ok(self.push(name, op, [values, scales], [out])[0])
    }

    /// See [`Op::Cast`].
    ///
    /// # Errors
    /// For `i64`.
    pub fn cast(&mut self, input: ValueId, to: Element) -> Result<ValueId> {
        let op = Op::Cast { to };
        let name = self.take_name(&op);
        let ty = self.typed(input).clone();
        if ty.element == Element::I64 || to == Element::I64 {
            return Err(Error::graph(name, format!("cannot cast {ty} to {to}")));
        }
        Ok(self.push(name, op, [input], [ty.with_element(to)])[0])
    }

    /// See [`Op::Concat`].
    ///
    /// # Errors
    /// When there is none, or they differ in more than the innermost dimension.
    pub fn concat(&mut self, inputs: &[ValueId]) -> Result<ValueId> {
        let name = self.take_name(&Op::Concat);
        let Some(first) = inputs.first() else {
            return Err(Error::graph(name, "needs at least one input"));
        };
        let first = self.require_dimension(&name, *first)?;
        let mut last = 0;
        for input in inputs {
            let ty = self.require_dimension(&name, *input)?;
            if ty.with_last(0) != first.with_last(0) {
                return Err(Error::graph(
                    name,
                    format!("{first} and {ty} differ in more than the last dimension"),
                ));
            }
            last += ty.last();
        }
        Ok(self.push(name, Op::Concat, inputs.to_vec(), [first.with_last(last)])[0])
    }

    /// See [`Op::Slice`].
    ///
    /// # Errors
    /// When the part is empty or reaches beyond the innermost dimension.
    pub fn slice(&mut self, input: ValueId, start: usize, length: usize) -> Result<ValueId> {
        let op = Op::Slice { start, length };
        let name = self.take_name(&op);
        let ty = self.require_dimension(&name, input)?;
        if length == 0 || start.checked_add(length).is_none_or(|end| end > ty.last()) {
            return Err(Error::graph(name, format!("{length} elements from {start} of {ty}")));
        }
        Ok(self.push(name, op, [input], [ty.with_last(length)])[0])
    }

    /// See [`Op::TopK`]: ids and scores.
    ///
    /// # Errors
    /// When the query is not one vector per row, or has another width than the matrix.
    pub fn top_k(
        &mut self,
        query: ValueId,
        reference: ReferenceId,
        metric: Metric,
        k: usize,
    ) -> Result<(ValueId, ValueId)> {
        let op = Op::TopK { reference, metric, k };
        let name = self.take_name(&op);
        let ty = self.require_vectors(&name, query)?;
        let width = self.references[reference.0 as usize].width;
        if ty.axis.is_some() || ty.dims.len() != 1 || ty.last() != width {
            return Err(Error::graph(
                name,
                format!("query {ty} against a reference matrix of [rows, {width}]"),
            ));
        }
        if k == 0 || k > TOP_K_MAX {
            return Err(Error::graph(name, format!("k is {k}, not 1 to {TOP_K_MAX}")));
        }
        let outputs = [TensorType::fixed(Element::I64, [k]), TensorType::fixed(Element::F32, [k])];
        let made = self.push(name, op, [query], outputs);
        Ok((made[0], made[1]))
    }

    /// See [`Op::MinHash`].
    ///
    /// # Errors
    /// When the input is not tokens, or there are no hashes.
    pub fn min_hash(&mut self, tokens: ValueId, hashes: usize, seed: u64) -> Result<ValueId> {
        let out = TensorType::fixed(Element::I32, [hashes]);
        self.hash(Op::MinHash { hashes, seed }, tokens, out)
    }

    /// See [`Op::SimHash`].
    ///
    /// # Errors
    /// When the input is not tokens, or there are no words.
    pub fn sim_hash(&mut self, tokens: ValueId, words: usize, seed: u64) -> Result<ValueId> {
        let out = TensorType::fixed(Element::I64, [words]);
        self.hash(Op::SimHash { words, seed }, tokens, out)
    }

    /// See [`Op::FeatureHash`].
    ///
    /// # Errors
    /// When the input is not tokens, or there are no columns.
    pub fn feature_hash(&mut self, tokens: ValueId, width: usize, seed: u64) -> Result<ValueId> {
        let out = TensorType::fixed(Element::F32, [width]);
        self.hash(Op::FeatureHash { width, seed }, tokens, out)
    }

    fn hash(&mut self, op: Op, tokens: ValueId, out: TensorType) -> Result<ValueId> {
        let name = self.take_name(&op);
        self.require_tokens(&name, tokens)?;
        if out.width() == 0 || out.width() > u32::MAX as usize {
            return Err(Error::graph(name, format!("makes {out}")));
        }
        Ok(self.push(name, op, [tokens], [out])[0])
    }

    /// See [`Op::Bucketise`].
    ///
    /// # Errors
    /// When the boundaries do not rise.
    pub fn bucketise(&mut self, input: ValueId, boundaries: Vec<f32>) -> Result<ValueId> {
        let rises = boundaries.windows(2).all(|pair| pair[0] < pair[1]);
        let is_number = boundaries.iter().all(|boundary| !boundary.is_nan());
        let op = Op::Bucketise { boundaries };
        let name = self.take_name(&op);
        let ty = self.typed(input).clone();
        require_float(&name, &ty)?;
        if !rises || !is_number {
            return Err(Error::graph(name, "its boundaries do not rise"));
        }
        Ok(self.push(name, op, [input], [ty.with_element(Element::I32)])[0])
    }

    /// See [`Op::Standardise`].
    ///
    /// # Errors
    /// When mean or deviation are not as long as the innermost dimension.
    pub fn standardise(&mut self, input: ValueId, mean: WeightId, deviation: WeightId) -> Result<ValueId> {
        let op = Op::Standardise { mean, deviation };
        let name = self.take_name(&op);
        let ty = self.require_vectors(&name, input)?;
        self.require_vector(&name, "mean", mean, ty.last())?;
        self.require_vector(&name, "deviation", deviation, ty.last())?;
        Ok(self.push(name, op, [input], [ty])[0])
    }

    fn require_dimension(&self, name: &str, value: ValueId) -> Result<TensorType> {
        let ty = self.typed(value);
        match ty.dims.is_empty() {
            true => Err(Error::graph(name, format!("{ty} has no fixed dimension"))),
            false => Ok(ty.clone()),
        }
    }

    fn require_vectors(&self, name: &str, value: ValueId) -> Result<TensorType> {
        let ty = self.require_dimension(name, value)?;
        require_float(name, &ty)?;
        Ok(ty)
    }

    fn require_vector(&self, name: &str, what: &str, weight: WeightId, length: usize) -> Result<()> {
        let dims = self.weight_dims(weight);
        match *dims == [length] {
            true => Ok(()),
            false => Err(Error::graph(name, format!("{what} has shape {dims:?}, not [{length}]"))),
        }
    }

    fn require_tokens(&self, name: &str, value: ValueId) -> Result<TensorType> {
        let ty = self.typed(value);
        match ty.element == Element::I32 && ty.axis.is_some() && ty.dims.is_empty() {
            true => Ok(ty.clone()),
            false => Err(Error::graph(name, format!("{ty} is not a list of tokens"))),
        }
    }
}

fn require_float(name: &str, ty: &TensorType) -> Result<()> {
    match ty.element.is_float() {
        true => Ok(()),
        false => Err(Error::graph(name, format!("{ty} is not of f32 or f16"))),
    }
}

fn require_epsilon(name: &str, epsilon: f32) -> Result<()> {
    match epsilon >= 0.0 && epsilon.is_finite() {
        true => Ok(()),
        false => Err(Error::graph(name, format!("epsilon is {epsilon}"))),
    }
}
