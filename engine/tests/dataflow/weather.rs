//! A store's bad days, drawn from a seed: single calls that fail before or after they took effect,
//! and spells in which the log cannot be reached, so that nobody knows whether an entry stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thalweg_engine::checkpoint::fault::{Call, Fault, FaultPlan, Meaning, Operation};
use thalweg_engine::cluster::SeededOrder;

/// What happened over all runs: a test is worth what these are.
#[derive(Clone, Default)]
pub struct Seen {
    pub faults: Arc<AtomicU64>,
    pub spells: Arc<AtomicU64>,
    pub deletes: Arc<AtomicU64>,
}

/// So many in a thousand calls fail; a spell begins at one in fifty of the log's puts.
pub fn bad_days(seed: u64, per_thousand: usize, seen: Seen) -> FaultPlan {
    let mut order = SeededOrder::new(seed);
    let mut spell = 0;
    Box::new(move |call: &Call<'_>| {
        if call.operation == Operation::Delete {
            seen.deletes.fetch_add(1, Ordering::Relaxed);
        }
        if per_thousand == 0 {
            return Fault::None;
        }
        let is_log = call.meaning == Meaning::Log;
        if spell == 0 && is_log && call.operation == Operation::PutIfAbsent && order.below(50) == 0 {
            seen.spells.fetch_add(1, Ordering::Relaxed);
            spell = 1 + order.below(30);
        }
        let lost = if is_log && spell > 0 {
            spell -= 1;
            true
        } else {
            order.below(1_000) < per_thousand
        };
        if !lost {
            return Fault::None;
        }
        seen.faults.fetch_add(1, Ordering::Relaxed);
        if order.below(2) == 0 { Fault::FailBefore } else { Fault::FailAfter }
    })
}
