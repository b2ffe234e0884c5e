//! How a sink is put at the end of a stream.

use std::sync::Arc;

use thalweg_engine::graph::Stream;
use thalweg_engine::operator::OperatorFactory;
use thalweg_engine::sink::Committer;

/// What a sink is made of: an operator, and for a two-phase sink what commits for it.
pub struct SinkParts {
    /// Makes the instances.
    pub factory: Arc<dyn OperatorFactory>,
    /// Commits what they prepare.
    pub committer: Option<Arc<dyn Committer>>,
}

/// A sink, configured.
pub trait Sink {
    /// Its parts.
    fn into_parts(self) -> SinkParts;
}

/// Ends streams in sinks: those of batches, and typed ones.
pub trait StreamSink {
    /// Ends the stream in `sink`; the answer is for its uid and parallelism.
    fn sink(&self, sink: impl Sink) -> Stream;
}

impl<S: AsRef<Stream>> StreamSink for S {
    fn sink(&self, sink: impl Sink) -> Stream {
        let parts = sink.into_parts();
        self.as_ref().sink_dyn(parts.factory, parts.committer)
    }
}
