//! Computes each row's key hash once and sends it along with the batch.

use crate::Result;
use crate::operator::{Operator, OperatorContext, OperatorFactory, Step, single_input};
use crate::record::{Batch, EdgeSchema, Mode};
use crate::state::StateIdentity;
use crate::state::key_encoding::hash_keys;

/// Attaches the hash of the key columns to every batch.
#[derive(Clone)]
pub struct KeyBy {
    columns: Vec<usize>,
}

impl KeyBy {
    /// Keys by these columns.
    pub fn new(columns: Vec<usize>) -> Self {
        KeyBy { columns }
    }
}

impl OperatorFactory for KeyBy {
    fn name(&self) -> String {
        "key by".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }

    fn takes(&self, _input: usize, _mode: &Mode) -> bool {
        true
    }

    fn hashed_by(&self) -> Option<&[usize]> {
        Some(&self.columns)
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(vec![single_input(inputs)?.clone()])
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }

    fn describe(&self) -> String {
        format!("key by {:?}", self.columns)
    }
}

impl Operator for KeyBy {
    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let columns: Vec<_> =
            self.columns.iter().map(|&column| batch.records().column(column).clone()).collect();
        let hashes = hash_keys(&columns, batch.row_count())?;
        cx.emit(batch.with_key_hashes(hashes));
        Ok(Step::Done)
    }
}
