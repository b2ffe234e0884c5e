//! Counting rows per key, the smallest stateful job: [`KeyedAggregate`] with `count(*)`.

use crate::aggregate::AggregateSpec;
use crate::keyed_aggregate::KeyedAggregate;

/// A running count of rows per key, in a column of this name.
pub fn keyed_count(key: &[usize], column: &str) -> KeyedAggregate {
    KeyedAggregate::new(key, [AggregateSpec::count().alias(column)])
}
