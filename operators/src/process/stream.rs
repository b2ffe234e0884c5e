//! Process functions on streams.

use std::sync::Arc;

use thalweg_engine::graph::{KeyedStream, Stream};

use super::broadcast::{KeyedBroadcastProcess, WithBroadcast};
use super::co::{KeyedCoProcess, TwoInputs};
use super::driver::ProcessOperator;
use super::keyed::{KeyedProcess, OneInput};
use super::keys::KeyedInput;
use crate::typed::TypedStream;

/// Runs process functions over keyed streams of batches.
pub trait KeyedProcessExt {
    /// Runs a process function over each key's rows.
    fn process<P: KeyedProcess>(&self, function: P) -> TypedStream<P::Out>;

    /// Runs a process function over the rows of this stream (left) and another that have the same
    /// key.
    fn process_with<P: KeyedCoProcess>(&self, right: &KeyedStream, function: P) -> TypedStream<P::Out>;

    /// Runs a process function over each key's rows, with what `broadcast` sends to all instances.
    fn process_broadcast<P: KeyedBroadcastProcess>(
        &self,
        broadcast: &Stream,
        function: P,
    ) -> TypedStream<P::Out>;
}

impl KeyedProcessExt for KeyedStream {
    fn process<P: KeyedProcess>(&self, function: P) -> TypedStream<P::Out> {
        process(self, function)
    }

    fn process_with<P: KeyedCoProcess>(&self, right: &KeyedStream, function: P) -> TypedStream<P::Out> {
        process_two(self, right, function)
    }

    fn process_broadcast<P: KeyedBroadcastProcess>(
        &self,
        broadcast: &Stream,
        function: P,
    ) -> TypedStream<P::Out> {
        process_broadcast(self, broadcast, function)
    }
}

/// Runs a process function over each key's rows.
pub fn process<P: KeyedProcess>(keyed: &KeyedStream, function: P) -> TypedStream<P::Out> {
    let sides = function.side_outputs();
    let operator = ProcessOperator::new(OneInput(function), keyed_input(keyed).into_iter().collect());
    TypedStream::of(keyed.apply(operator), sides)
}

/// Runs a process function over the rows of two streams that have the same key.
pub fn process_two<P: KeyedCoProcess>(
    left: &KeyedStream,
    right: &KeyedStream,
    function: P,
) -> TypedStream<P::Out> {
    let sides = function.side_outputs();
    let inputs = [left, right].into_iter().filter_map(keyed_input).collect();
    let operator = ProcessOperator::new(TwoInputs(function), inputs);
    TypedStream::of(left.connect_keyed(right, Arc::new(operator)), sides)
}

/// Runs a process function over each key's rows, with what a stream sends to all instances.
pub fn process_broadcast<P: KeyedBroadcastProcess>(
    keyed: &KeyedStream,
    broadcast: &Stream,
    function: P,
) -> TypedStream<P::Out> {
    let sides = function.side_outputs();
    let inputs = keyed_input(keyed).into_iter().collect();
    let operator = ProcessOperator::new(WithBroadcast::new(function), inputs);
    TypedStream::of(keyed.connect_broadcast(broadcast, Arc::new(operator)), sides)
}

/// `None` after a mistake upstream, which was reported there and keeps the job from being built.
fn keyed_input(keyed: &KeyedStream) -> Option<KeyedInput> {
    let edge = keyed.stream().edge_schema()?;
    Some(KeyedInput::new(edge, keyed.key()))
}
