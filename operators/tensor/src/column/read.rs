//! A batch of columns as tensors, with the rows that cannot be.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};

use super::check_column;
use super::packed::{Ends, Packed};
use crate::graph::{Input, Source};
use crate::text::{TextEncoder, Tokenizer};
use crate::{Error, Graph, Result, Tensor, TensorBatch, TensorType};

/// Reads a graph's inputs from batches of one schema.
pub struct ColumnReader {
    inputs: Vec<Column>,
}

struct Column {
    index: usize,
    input: Input,
    ty: TensorType,
    text: Option<TextEncoder>,
}

/// What a batch's columns became.
#[derive(Debug)]
pub struct Columns {
    /// The graph's inputs, of the rows that are good, in their order.
    pub batch: TensorBatch,
    /// The others, by row.
    pub rejected: Vec<Rejected>,
}

/// A row that a graph cannot take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the batch.
    pub row: usize,
    /// The first input that is at fault.
    pub input: Arc<str>,
    /// What is wrong with it.
    pub reason: String,
}

/// What a column is before it is known which rows are good.
enum Taken {
    Packed(Packed),
    Text(ArrayRef),
}

impl ColumnReader {
    /// Checks the schema, and makes tokenizers ready; `threads` may tokenise at once, the caller's
    /// among them.
    ///
    /// # Errors
    /// As [`check_schema`](super::check_schema), and when a tokenizer is not among those given.
    pub fn new(
        graph: &Graph,
        schema: &Schema,
        tokenizers: &BTreeMap<String, Tokenizer>,
        threads: usize,
    ) -> Result<ColumnReader> {
        let column = |input: &Input| {
            let text = match &input.source {
                Source::Text { tokenizer, length_max } => {
                    let Some(found) = tokenizers.get(&**tokenizer) else {
                        let known: Vec<&str> = tokenizers.keys().map(String::as_str).collect();
                        let reason =
                            format!("there is no tokenizer `{tokenizer}` among {}", known.join(", "));
                        return Err(Error::input(&*input.name, reason));
                    };
                    check_ids(input, found)?;
                    Some(found.encoder(*length_max, threads)?)
                }
                _ => None,
            };
            let index = check_column(graph, input, schema)?;
            Ok(Column { index, input: input.clone(), ty: graph.value(input.value).clone(), text })
        };
        Ok(ColumnReader { inputs: graph.inputs().iter().map(column).collect::<Result<_>>()? })
    }

    /// Reads a batch of that schema. Rows that are null, of a wrong shape, with ids out of range or
    /// too long are left out.
    ///
    /// # Errors
    /// When the batch is of another schema, or a text cannot be tokenised.
    pub fn read(&self, batch: &RecordBatch) -> Result<Columns> {
        let taken = self.inputs.iter().map(|column| column.take(batch)).collect::<Result<Vec<Taken>>>()?;
        let rejected = self.reject(&taken, batch.num_rows());
        let kept: Option<Vec<usize>> = (!rejected.is_empty()).then(|| {
            let mut next = rejected.iter().map(|rejected| rejected.row).peekable();
            (0..batch.num_rows()).filter(|row| next.next_if_eq(row).is_none()).collect()
        });
        let rows = kept.as_ref().map_or(batch.num_rows(), Vec::len);
        let tensors = self
            .inputs
            .iter()
            .zip(taken)
            .map(|(column, taken)| column.tensor(&taken, kept.as_deref(), rows))
            .collect::<Result<Vec<Tensor>>>()?;
        Ok(Columns { batch: TensorBatch { rows, tensors }, rejected })
    }

    /// Every bad row once, in order.
    fn reject(&self, taken: &[Taken], rows: usize) -> Vec<Rejected> {
        let mut rejected: BTreeMap<usize, Rejected> = BTreeMap::new();
        for (column, taken) in self.inputs.iter().zip(taken) {
            if !column.needs_check(taken) {
                continue;
            }
            for row in 0..rows {
                if let Some(reason) = column.reason_against(taken, row) {
                    let input = column.input.name.clone();
                    rejected.entry(row).or_insert(Rejected { row, input, reason });
                }
            }
        }
        rejected.into_values().collect()
    }
}

/// A tokenizer that makes ids beyond a table would have every such row refused; better said at once.
fn check_ids(input: &Input, tokenizer: &Tokenizer) -> Result<()> {
    match input.id_bound {
        Some(bound) if tokenizer.id_bound() > bound => Err(Error::input(
            &*input.name,
            format!(
                "its tokenizer makes ids up to {}, and its table has {bound} rows",
                tokenizer.id_bound() - 1
            ),
        )),
        _ => Ok(()),
    }
}

impl Column {
    fn take(&self, batch: &RecordBatch) -> Result<Taken> {
        let Some(column) = batch.columns().get(self.index) else {
            return Err(Error::input(&*self.input.name, "the batch has no such column"));
        };
        match self.text {
            Some(_) => Ok(Taken::Text(column.clone())),
            None => Ok(Taken::Packed(Packed::of(column, self.ty.element)?)),
        }
    }

    /// Whether rows must be looked at one by one.
    fn needs_check(&self, taken: &Taken) -> bool {
        match taken {
            Taken::Text(column) => column.null_count() > 0,
            Taken::Packed(packed) => {
                let is_fixed = matches!(packed.ends, Ends::Fixed(_));
                let is_null = packed.nulls.is_some() || packed.element_nulls.is_some();
                is_null || !is_fixed || self.input.id_bound.is_some()
            }
        }
    }

    fn reason_against(&self, taken: &Taken, row: usize) -> Option<String> {
        let packed = match taken {
            Taken::Text(column) => return column.is_null(row).then(|| "is null".to_owned()),
            Taken::Packed(packed) => packed,
        };
        if packed.is_null(row) {
            return Some("is null".to_owned());
        }
        let length = packed.range(row).len();
        match (self.ty.axis.is_some(), self.input.length_max) {
            (true, Some(length_max)) if length > length_max => {
                return Some(format!("has {length} tokens, more than {length_max}"));
            }
            (false, _) if length != self.ty.width() => {
                return Some(format!("has {length} elements, wanted {} for {}", self.ty.width(), self.ty));
            }
            _ => {}
        }
        if packed.has_null_element(row) {
            return Some("has a null element".to_owned());
        }
        let bound = self.input.id_bound?;
        let is_out = |id: &&i32| usize::try_from(**id).map_or(true, |id| id >= bound);
        packed.ids(row).iter().find(is_out).map(|id| format!("has id {id}, not within 0 to {}", bound - 1))
    }

    fn tensor(&self, taken: &Taken, kept: Option<&[usize]>, rows: usize) -> Result<Tensor> {
        let packed = match (taken, &self.text) {
            (Taken::Text(column), Some(text)) => return encode(text, column, kept),
            (Taken::Packed(packed), _) => packed,
            (Taken::Text(_), None) => {
                return Err(Error::input(&*self.input.name, "text without a tokenizer"));
            }
        };
        let data = match kept {
            Some(kept) => packed.some(kept),
            None => packed.all(rows),
        };
        match self.ty.axis {
            None => Tensor::fixed(self.ty.element, self.ty.dims.clone(), rows, data),
            Some(_) => {
                let offsets = packed.offsets(kept, rows)?;
                Tensor::ragged(self.ty.element, self.ty.dims.clone(), offsets, data)
            }
        }
    }
}

fn encode(text: &TextEncoder, column: &ArrayRef, kept: Option<&[usize]>) -> Result<Tensor> {
    let Some(kept) = kept else { return text.encode(column) };
    let texts: Vec<Option<&str>> = match column.data_type() {
        DataType::Utf8 => kept.iter().map(|&row| Some(column.as_string::<i32>().value(row))).collect(),
        DataType::LargeUtf8 => kept.iter().map(|&row| Some(column.as_string::<i64>().value(row))).collect(),
        DataType::Utf8View => kept.iter().map(|&row| Some(column.as_string_view().value(row))).collect(),
        other => return Err(Error::input("text", format!("is of type {other}, not of text"))),
    };
    text.encode_rows(&texts)
}
