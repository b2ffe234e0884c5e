//! Reads a source's batches in a bare loop, without an engine: the baselines get the very same
//! batches, at the very same cost of making them.

use thalweg_engine::graph::Uid;
use thalweg_engine::metrics::MetricGroup;
use thalweg_engine::operator::{SubtaskInfo, Waker};
use thalweg_engine::record::Batch;
use thalweg_engine::source::{
    EnumeratorAction, EnumeratorEvent, ReaderContext, ReaderEffect, ReaderOpenContext, ReaderStatus, Source,
};
use thalweg_engine::{Error, Result};

/// Calls `each` with batch after batch until it answers `false` or there are no more.
///
/// # Errors
/// What the source or `each` fails with.
pub fn pump(source: &dyn Source, mut each: impl FnMut(Batch) -> Result<bool>) -> Result<()> {
    let info = SubtaskInfo {
        job: "bench".into(),
        uid: Uid::new("events")?,
        subtask: 0,
        parallelism: 1,
        max_parallelism: 128,
        generation: 1,
        attempt: 1,
        claim: "bench".into(),
    };
    let (waker, metrics) = (Waker::new(|| ()), MetricGroup::default());
    let mut reader = source.reader(&ReaderOpenContext { info: &info, waker: &waker, metrics: &metrics })?;
    let mut effects = Vec::new();
    let started = EnumeratorEvent::Started { parallelism: 1, splits: Vec::new() };
    for action in source.enumerator(None)?.handle(started)? {
        match action {
            EnumeratorAction::Assign { splits, .. } => {
                reader.add_splits(splits, &mut ReaderContext::new(&mut effects, 0))?;
            }
            EnumeratorAction::NoMoreSplits => reader.no_more_splits(),
            _ => return Err(Error::internal("a source that needs more than a loop")),
        }
    }
    loop {
        let status = reader.poll(&mut ReaderContext::new(&mut effects, 0))?;
        for effect in effects.drain(..) {
            if let ReaderEffect::Batch(batch, _) = effect
                && !each(batch)?
            {
                return Ok(());
            }
        }
        if status == ReaderStatus::Finished {
            return Ok(());
        }
    }
}
