//! A sink that counts rows and bytes and forgets them: for benchmarks.

use std::sync::Arc;

use thalweg_engine::Result;
use thalweg_engine::metrics::Counter;
use thalweg_engine::operator::{OpenContext, Operator, OperatorContext, OperatorFactory, Step, single_input};
use thalweg_engine::record::{Batch, EdgeSchema, Mode};
use thalweg_engine::state::StateIdentity;

use crate::sink::{Sink, SinkParts};

/// Forgets rows of any mode. Clones share their counts.
#[derive(Clone, Debug, Default)]
pub struct BlackHole {
    rows: Counter,
    bytes: Counter,
}

impl BlackHole {
    /// One that has seen nothing.
    pub fn new() -> BlackHole {
        BlackHole::default()
    }

    /// Rows so far, over all instances and attempts.
    pub fn rows(&self) -> u64 {
        self.rows.get()
    }

    /// Bytes of the rows so far, as a copy of them would have.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

impl Sink for BlackHole {
    fn into_parts(self) -> SinkParts {
        SinkParts { factory: Arc::new(self), committer: None }
    }
}

impl OperatorFactory for BlackHole {
    fn name(&self) -> String {
        "blackhole".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Hole { shared: self.clone(), own: BlackHole::default() }))
    }

    fn takes(&self, _input: usize, _mode: &Mode) -> bool {
        true
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        single_input(inputs)?;
        Ok(Vec::new())
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

struct Hole {
    shared: BlackHole,
    own: BlackHole,
}

impl Operator for Hole {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        self.own = BlackHole {
            rows: cx.metrics.counter("blackhole_rows_total", "Rows that a blackhole sink has taken."),
            bytes: cx.metrics.counter("blackhole_bytes_total", "Bytes that a blackhole sink has taken."),
        };
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        let bytes = batch.rows_bytes() as u64;
        for counts in [&self.shared, &self.own] {
            counts.rows.add(batch.row_count() as u64);
            counts.bytes.add(bytes);
        }
        Ok(Step::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sink::suite_rows;
    use thalweg_engine::time::Watermark;

    #[test]
    fn all_instances_count_together() {
        let hole = BlackHole::new();
        let batch = Batch::new(suite_rows(0..10).unwrap());
        for _ in 0..2 {
            let (mut outputs, mut wake_at) = (Vec::new(), None);
            let mut cx = OperatorContext::new(&mut outputs, &mut wake_at, Watermark::MIN, 0);
            let mut instance = hole.create().unwrap();
            assert_eq!(instance.process(0, batch.clone(), &mut cx).unwrap(), Step::Done);
        }
        assert_eq!((hole.rows(), hole.bytes()), (20, 2 * batch.rows_bytes() as u64));
    }
}
