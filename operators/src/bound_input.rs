//! The schema of an operator's input, learnt when the job is built and needed when instances are
//! made.

use std::sync::OnceLock;

use thalweg_engine::record::EdgeSchema;
use thalweg_engine::{Error, Result};

/// The schema of the one input of a factory's node.
#[derive(Debug, Default)]
pub(crate) struct BoundInput(OnceLock<EdgeSchema>);

impl BoundInput {
    /// Binds the factory to its input.
    ///
    /// # Errors
    /// A user error when the factory is bound to another input already.
    pub(crate) fn bind(&self, input: &EdgeSchema) -> Result<()> {
        if self.0.get_or_init(|| input.clone()) == input {
            return Ok(());
        }
        Err(Error::user("one operator is applied to two streams of different schemas; make two"))
    }

    /// The input.
    ///
    /// # Errors
    /// An internal error before the job was built.
    pub(crate) fn get(&self) -> Result<&EdgeSchema> {
        self.0.get().ok_or_else(|| Error::internal("an instance is made before its job was built"))
    }
}

/// Refuses key columns that the input does not have.
///
/// # Errors
/// An internal error: keys come from the stream that the operator is applied to.
pub(crate) fn key_in(input: &EdgeSchema, key: &[usize]) -> Result<()> {
    match key.iter().find(|&&column| column >= input.schema.fields().len()) {
        None => Ok(()),
        Some(column) => Err(Error::internal(format!("key column {column} is not in the input"))),
    }
}
