//! What a task is doing right now, for whoever waits for it and cannot ask it: it may be stuck in
//! somebody's function.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use crate::time::{Micros, SECOND};

/// What a task can be at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It has not been polled.
    Nothing,
    /// It opens its operators and restores their state.
    Opening,
    /// It has nothing to do, or no room for what it has.
    Waiting,
    /// The engine's own work.
    Moving,
    /// It polls the source's reader.
    Reading,
    /// The operators freeze what they know, for a checkpoint.
    Freezing,
    /// It is in the n-th operator of its chain.
    Operator(usize),
}

/// The codes of operators begin here.
const FIRST_OPERATOR: usize = 6;

/// Where a task writes what it is doing, and others read it. Writing costs a store or two.
#[derive(Debug, Default)]
pub struct TaskProbe {
    doing: AtomicUsize,
    since: AtomicI64,
    operators: OnceLock<Vec<String>>,
}

impl TaskProbe {
    /// Names the operators of the chain, in their order; the first names stay.
    pub fn name_operators(&self, names: Vec<String>) {
        let _ = self.operators.set(names);
    }

    /// The task does this since `now`.
    pub fn set(&self, doing: Doing, now: Micros) {
        self.enter(doing);
        self.since.store(now, Ordering::Relaxed);
    }

    /// The task does this now; not long after what it did before.
    pub fn enter(&self, doing: Doing) {
        let code = match doing {
            Doing::Nothing => 0,
            Doing::Opening => 1,
            Doing::Waiting => 2,
            Doing::Moving => 3,
            Doing::Reading => 4,
            Doing::Freezing => 5,
            Doing::Operator(index) => FIRST_OPERATOR + index,
        };
        self.doing.store(code, Ordering::Relaxed);
    }

    /// What it does, and for how long it has, in words.
    pub fn describe(&self, now: Micros) -> String {
        let seconds = (now - self.since.load(Ordering::Relaxed)) / SECOND;
        let what = match self.doing.load(Ordering::Relaxed) {
            0 => return "not begun".into(),
            1 => "opening what it restores".into(),
            2 => "waiting for rows, room or a command".into(),
            3 => "between its operators".into(),
            4 => "in the source's reader".into(),
            5 => "freezing its state for a checkpoint".into(),
            code => {
                let name = self.operators.get().and_then(|names| names.get(code - FIRST_OPERATOR));
                format!("in operator {}", name.map_or("?", String::as_str))
            }
        };
        format!("{what} for {seconds} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_task_is_at_is_told_with_its_operator_and_for_how_long() {
        let probe = TaskProbe::default();
        assert_eq!(probe.describe(0), "not begun");
        probe.set(Doing::Opening, 0);
        probe.name_operators(vec!["count (keyed count)".into(), "out (print)".into()]);
        assert_eq!(probe.describe(3 * SECOND), "opening what it restores for 3 s");
        probe.set(Doing::Operator(1), 5 * SECOND);
        assert_eq!(probe.describe(17 * SECOND), "in operator out (print) for 12 s");
        probe.set(Doing::Waiting, 20 * SECOND);
        assert_eq!(probe.describe(20 * SECOND), "waiting for rows, room or a command for 0 s");
    }
}
