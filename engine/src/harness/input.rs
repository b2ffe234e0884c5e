//! What a harness feeds an operator's input with.

use arrow::array::UInt32Array;

use crate::record::{Batch, EdgeSchema, Record};
use crate::state::KeyGroup;
use crate::state::key_encoding::hash_keys;
use crate::{Error, Result};

#[derive(Clone, Debug, PartialEq)]
enum Routing {
    InTurn,
    ByKey(Vec<usize>),
    ToAll,
}

/// One input of the operator: its edge, and how rows find their instance.
#[derive(Clone, Debug)]
pub struct HarnessInput {
    pub(super) edge: EdgeSchema,
    routing: Routing,
}

impl HarnessInput {
    /// An input of this edge; batches go to the instances in turn. Watermarks are pushed by hand.
    pub fn new(edge: EdgeSchema) -> Self {
        HarnessInput { edge: edge.with_watermarks(), routing: Routing::InTurn }
    }

    /// An input on which records of this type flow.
    ///
    /// # Errors
    /// A user error when the record's time column is not a timestamp.
    pub fn of<T: Record>() -> Result<Self> {
        Ok(Self::new(T::edge_schema()?))
    }

    /// Rows go by their key: batches carry the key's hashes.
    ///
    /// # Errors
    /// A user error when a column is missing.
    pub fn keyed(mut self, columns: &[&str]) -> Result<Self> {
        let indices = columns.iter().map(|column| {
            let index = self.edge.schema.index_of(column);
            index.map_err(|_| Error::user(format!("there is no column {column:?} to key by")))
        });
        self.routing = Routing::ByKey(indices.collect::<Result<_>>()?);
        Ok(self)
    }

    /// Every instance gets every row.
    #[must_use]
    pub fn broadcast(mut self) -> Self {
        self.routing = Routing::ToAll;
        self
    }

    /// What the input's batches look like.
    pub fn edge(&self) -> &EdgeSchema {
        &self.edge
    }

    /// The key's columns, by index; empty for an input that is not keyed.
    pub fn key(&self) -> &[usize] {
        match &self.routing {
            Routing::ByKey(key) => key,
            _ => &[],
        }
    }

    /// The shares of `batch` with the instances that get them. `turn` counts batches.
    pub(super) fn route(
        &self,
        batch: Batch,
        parallelism: u32,
        max_parallelism: u32,
        turn: usize,
    ) -> Result<Vec<(usize, Batch)>> {
        let instances = parallelism as usize;
        match &self.routing {
            Routing::InTurn => Ok(vec![(turn % instances, batch)]),
            Routing::ToAll => Ok((0..instances).map(|instance| (instance, batch.clone())).collect()),
            Routing::ByKey(key) => {
                let columns: Vec<_> = key.iter().map(|&i| batch.records().column(i).clone()).collect();
                let hashes = hash_keys(&columns, batch.row_count())?;
                let mut rows = vec![Vec::new(); instances];
                for (row, &hash) in (0u32..).zip(hashes.values()) {
                    let group = KeyGroup::of_hash(hash, max_parallelism);
                    rows[group.subtask(parallelism, max_parallelism) as usize].push(row);
                }
                let batch = batch.with_key_hashes(hashes);
                let shares = rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
                shares.map(|(to, rows)| Ok((to, batch.take(&UInt32Array::from(rows))?))).collect()
            }
        }
    }
}
