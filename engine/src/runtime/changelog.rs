//! What a changelog owes as it flows: all versions of an upsert's row come to an input through one
//! channel, so that they are in their order and nobody else's; a retract's rows say whether they are
//! inserted or taken back. Checked on every channel in debug and test builds, beside the plan, which
//! cannot see what operators do; a breach is a bug of the engine or of an operator's promise.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int8Type;
use parking_lot::Mutex;

use crate::record::{Batch, Mode, OP_COLUMN};
use crate::state::key_encoding::hash_keys;

/// So many rows are remembered at most; later ones are not looked at.
const ROWS_MAX: usize = 1 << 20;

/// What has come to the tasks of one input.
pub struct Changelog {
    mode: Mode,
    /// The channel of each row of an upsert stream, by the hash of its key.
    channels: Mutex<BTreeMap<u64, usize>>,
}

impl Changelog {
    /// A changelog of which nothing has come.
    pub fn new(mode: Mode) -> Arc<Changelog> {
        Arc::new(Changelog { mode, channels: Mutex::default() })
    }

    /// Takes in what comes through a channel.
    ///
    /// # Errors
    /// What rule it breaks.
    pub fn accept(&self, channel: usize, batch: &Batch) -> Result<(), String> {
        match &self.mode {
            Mode::Append => Ok(()),
            Mode::Retract => check_ops(batch),
            Mode::Upsert(key) => self.check_channels(channel, key, batch),
        }
    }

    fn check_channels(&self, channel: usize, key: &[String], batch: &Batch) -> Result<(), String> {
        let column = |name: &String| {
            batch.records().column_by_name(name).cloned().ok_or_else(|| format!("an upsert without {name:?}"))
        };
        let columns = key.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        // Not all types can be hashed; such a key is nobody's to check.
        let Ok(hashes) = hash_keys(&columns, batch.row_count()) else { return Ok(()) };
        let mut channels = self.channels.lock();
        for (row, &hash) in hashes.values().iter().enumerate() {
            let known = match channels.get(&hash) {
                Some(&known) => known,
                None if channels.len() < ROWS_MAX => *channels.entry(hash).or_insert(channel),
                None => channel,
            };
            if known != channel {
                let key: Vec<_> =
                    columns.iter().map(|column| format!("{:?}", column.slice(row, 1))).collect();
                let key = key.join(", ");
                return Err(format!("versions of one row came through two channels: {} {key}", self.mode));
            }
        }
        Ok(())
    }
}

fn check_ops(batch: &Batch) -> Result<(), String> {
    let column = batch.records().column_by_name(OP_COLUMN);
    let ops = column.and_then(|column| column.as_primitive_opt::<Int8Type>());
    let ops = ops.ok_or_else(|| format!("a retract stream without a column {OP_COLUMN} of Int8"))?;
    match ops.null_count() == 0 && ops.values().iter().all(|op| matches!(op, -1 | 1)) {
        true => Ok(()),
        false => Err(format!("{OP_COLUMN} is neither 1 nor -1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int8Array, Int64Array, RecordBatch};

    fn batch(columns: &[(&str, ArrayRef)]) -> Batch {
        Batch::new(RecordBatch::try_from_iter(columns.to_vec()).unwrap())
    }

    fn rows(keys: &[i64], values: &[i64]) -> Batch {
        let column = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        batch(&[("key", column(keys)), ("value", column(values))])
    }

    #[test]
    fn versions_of_a_row_come_through_one_channel() {
        let changelog = Changelog::new(Mode::Upsert(vec!["key".into()]));
        changelog.accept(0, &rows(&[1, 2, 1], &[1, 1, 2])).unwrap();
        changelog.accept(1, &rows(&[3], &[1])).unwrap();
        changelog.accept(0, &rows(&[2], &[3])).unwrap();
        let breach = changelog.accept(1, &rows(&[4, 2], &[1, 4])).unwrap_err();
        assert!(breach.contains("two channels: upsert by key"), "{breach}");
        assert!(Changelog::new(Mode::Upsert(vec!["k".into()])).accept(0, &rows(&[1], &[1])).is_err());
        Changelog::new(Mode::Append).accept(0, &rows(&[1], &[1])).unwrap();
    }

    #[test]
    fn rows_that_are_taken_back_say_so() {
        let changelog = Changelog::new(Mode::Retract);
        let ops = |ops: Vec<Option<i8>>| batch(&[(OP_COLUMN, Arc::new(Int8Array::from(ops)))]);
        changelog.accept(0, &ops(vec![Some(1), Some(-1)])).unwrap();
        assert!(changelog.accept(0, &ops(vec![Some(1), Some(0)])).is_err());
        assert!(changelog.accept(0, &ops(vec![Some(1), None])).is_err());
        assert!(changelog.accept(0, &rows(&[1], &[1])).is_err());
    }
}
