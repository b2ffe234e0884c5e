//! Which column each input of a graph reads.

use std::collections::BTreeMap;

use arrow::datatypes::Schema;
use thalweg_engine::{Error, Result};
use thalweg_tensor::column::ColumnReader;
use thalweg_tensor::{Graph, Tokenizer};

use super::tensor_error;

/// The columns of a graph's inputs, in its order.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    /// Where they are, and how they are called.
    columns: Vec<(usize, String)>,
    /// They under the inputs' names.
    schema: Schema,
}

impl Inputs {
    /// Finds the columns; `renamed` says which input reads a column of another name.
    ///
    /// # Errors
    /// A user error that names the column that is not there.
    pub(super) fn new(graph: &Graph, schema: &Schema, renamed: &[(String, String)]) -> Result<Inputs> {
        if let Some((input, _)) =
            renamed.iter().find(|(name, _)| !graph.inputs().iter().any(|input| *input.name == **name))
        {
            return Err(Error::user(format!("the graph has no input `{input}`")));
        }
        let columns = graph.inputs().iter().map(|input| {
            let renamed = renamed.iter().find(|(name, _)| *name == *input.name);
            let name = renamed.map_or(&*input.name, |(_, column)| column);
            let index = schema.index_of(name).map_err(|_| {
                let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                Error::user(format!("there is no column {name:?}; the columns are {}", known.join(", ")))
            })?;
            Ok((index, name.to_string()))
        });
        let columns: Vec<(usize, String)> = columns.collect::<Result<_>>()?;
        let fields = columns.iter().zip(graph.inputs());
        let fields = fields.map(|((index, _), input)| schema.field(*index).clone().with_name(&*input.name));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        Ok(Inputs { columns, schema })
    }

    /// Where the columns are.
    pub(super) fn indices(&self) -> Vec<usize> {
        self.columns.iter().map(|(index, _)| *index).collect()
    }

    /// How the column of an input is called.
    pub(super) fn column_of<'a>(&'a self, input: &'a str) -> &'a str {
        let place = self.schema.index_of(input).ok();
        place.and_then(|place| self.columns.get(place)).map_or(input, |(_, name)| name)
    }

    /// Makes a reader of them.
    ///
    /// # Errors
    /// A user error when a column is of another type than its input takes, or a tokenizer is missing.
    pub(super) fn reader(
        &self,
        graph: &Graph,
        tokenizers: &BTreeMap<String, Tokenizer>,
        threads: usize,
    ) -> Result<ColumnReader> {
        ColumnReader::new(graph, &self.schema, tokenizers, threads)
            .map_err(|error| tensor_error(error).permanent())
    }
}
