//! Streams whose rows are read as a record.

use std::marker::PhantomData;

use thalweg_engine::Error;
use thalweg_engine::graph::{KeyedStream, Stream};
use thalweg_engine::record::{Record, check_schema};
use thalweg_engine::time::WatermarkStrategy;

use super::{FilterRows, FlatMapRows, MapRows, Out, SideOutput, SideOutputs};
use crate::process::{
    KeyedBroadcastProcess, KeyedCoProcess, KeyedProcess, process, process_broadcast, process_two,
};

/// Reads a stream's rows as records.
///
/// ```
/// use thalweg_engine::graph::Stream;
/// use thalweg_engine::record::Record;
/// use thalweg_operators::typed::{Out, TypedExt, TypedStream};
///
/// #[derive(Record)]
/// #[record(crate = "thalweg_engine")]
/// struct Line {
///     text: String,
/// }
///
/// #[derive(Record)]
/// #[record(crate = "thalweg_engine")]
/// struct Word {
///     word: String,
///     length: u64,
/// }
///
/// fn long_words(lines: &Stream) -> TypedStream<Word> {
///     let words = lines.typed::<Line>().flat_map(|line, out: &mut Out<Word>| {
///         for word in line.text.split(' ') {
///             out.emit_row(WordRow { word, length: word.len() as u64 });
///         }
///     });
///     words.filter(|word| word.length > 8).uid("long-words")
/// }
/// ```
pub trait TypedExt {
    /// The stream as one of `T`. That every field of `T` has its column, of its type, is checked
    /// here and reported when the job is built.
    fn typed<T: Record>(&self) -> TypedStream<T>;
}

impl TypedExt for Stream {
    fn typed<T: Record>(&self) -> TypedStream<T> {
        if let Some(edge) = self.edge_schema()
            && let Err(error) = check_schema::<T>(&edge.schema)
        {
            let record = std::any::type_name::<T>();
            self.environment().mistake(&error.context(format!("a stream cannot be read as {record}")));
        }
        TypedStream::of(self.clone(), SideOutputs::none())
    }
}

/// A stream whose rows are read as `T`.
pub struct TypedStream<T> {
    stream: Stream,
    /// The side outputs of the operator that made the stream.
    sides: SideOutputs,
    record: PhantomData<fn() -> T>,
}

impl<T> Clone for TypedStream<T> {
    fn clone(&self) -> Self {
        TypedStream { stream: self.stream.clone(), sides: self.sides.clone(), record: PhantomData }
    }
}

impl<T> AsRef<Stream> for TypedStream<T> {
    fn as_ref(&self) -> &Stream {
        &self.stream
    }
}

impl<T> From<TypedStream<T>> for Stream {
    fn from(typed: TypedStream<T>) -> Stream {
        typed.stream
    }
}

impl<T: Record> TypedStream<T> {
    pub(crate) fn of(stream: Stream, sides: SideOutputs) -> Self {
        TypedStream { stream, sides, record: PhantomData }
    }

    /// The stream of batches below, for expressions and sinks.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Makes a `U` of every row.
    pub fn map<U, F>(&self, function: F) -> TypedStream<U>
    where
        U: Record,
        F: for<'a> Fn(T::Row<'a>) -> U + Clone + Send + Sync + 'static,
    {
        TypedStream::of(self.stream.apply(MapRows::<T, U, F>::new(function)), SideOutputs::none())
    }

    /// Keeps the rows for which `predicate` answers `true`, with all their columns.
    #[must_use]
    pub fn filter<F>(&self, predicate: F) -> TypedStream<T>
    where
        F: for<'a> Fn(T::Row<'a>) -> bool + Clone + Send + Sync + 'static,
    {
        TypedStream::of(self.stream.apply(FilterRows::<T, F>::new(predicate)), SideOutputs::none())
    }

    /// Makes any number of `U` of every row: those that `function` emits.
    pub fn flat_map<U, F>(&self, function: F) -> TypedStream<U>
    where
        U: Record,
        F: for<'a> Fn(T::Row<'a>, &mut Out<U>) + Clone + Send + Sync + 'static,
    {
        self.flat_map_with(SideOutputs::none(), function)
    }

    /// As [`TypedStream::flat_map`], with side outputs that `function` may emit to.
    pub fn flat_map_with<U, F>(&self, sides: SideOutputs, function: F) -> TypedStream<U>
    where
        U: Record,
        F: for<'a> Fn(T::Row<'a>, &mut Out<U>) + Clone + Send + Sync + 'static,
    {
        let operator = FlatMapRows::<T, U, F>::new(sides.clone(), function);
        TypedStream::of(self.stream.apply(operator), sides)
    }

    /// This stream and others as one. They must have the same columns by name and type, those that
    /// the record does not know among them; without the feature `sql` in the same order, too.
    #[must_use]
    pub fn union(&self, others: &[&TypedStream<T>]) -> TypedStream<T> {
        let others: Vec<_> = others.iter().map(|other| &other.stream).collect();
        #[cfg(feature = "sql")]
        let united = crate::StreamExt::union(&self.stream, &others);
        #[cfg(not(feature = "sql"))]
        let united = self.stream.union_apply(&others, std::sync::Arc::new(crate::union::Union));
        TypedStream::of(united, SideOutputs::none())
    }

    /// Keys the stream by columns, by name: `key_by(["user"])`.
    pub fn key_by<'n>(&self, columns: impl AsRef<[&'n str]>) -> TypedKeyedStream<T> {
        TypedKeyedStream { keyed: self.stream.key_by(columns.as_ref()), record: PhantomData }
    }

    /// What the operator that made this stream emitted to `side`.
    pub fn side_output<S: Record>(&self, side: SideOutput<S>) -> TypedStream<S> {
        let Some(index) = self.sides.index_of(side.name()) else {
            let declared = self.sides.names().join(", ");
            let message =
                format!("there is no side output {:?} among those declared: {declared}", side.name());
            self.stream.environment().mistake(&Error::user(message));
            return TypedStream::of(self.stream.clone(), SideOutputs::none());
        };
        self.stream.side_output(index).typed()
    }

    /// Says how watermarks are made of the record's event time, at a source or behind an operator.
    #[must_use]
    pub fn watermarks(self, strategy: WatermarkStrategy) -> TypedStream<T> {
        let Some(column) = T::TIME else {
            let record = std::any::type_name::<T>();
            let error = Error::user(format!("{record} has no field marked #[record(time)]"));
            self.stream.environment().mistake(&error);
            return self;
        };
        TypedStream::of(self.stream.watermarks(column, strategy), SideOutputs::none())
    }

    /// Gives the operator that made this stream its uid.
    #[must_use]
    pub fn uid(self, uid: &str) -> TypedStream<T> {
        TypedStream { stream: self.stream.uid(uid), ..self }
    }

    /// Says which uid that operator had in an earlier version of the job.
    #[must_use]
    pub fn uid_was(self, uid: &str) -> TypedStream<T> {
        TypedStream { stream: self.stream.uid_was(uid), ..self }
    }

    /// Gives the operator that made this stream a parallelism of its own.
    #[must_use]
    pub fn parallelism(self, parallelism: u32) -> TypedStream<T> {
        TypedStream { stream: self.stream.parallelism(parallelism), ..self }
    }
}

/// A keyed stream whose rows are read as `T`.
pub struct TypedKeyedStream<T> {
    keyed: KeyedStream,
    record: PhantomData<fn() -> T>,
}

impl<T> Clone for TypedKeyedStream<T> {
    fn clone(&self) -> Self {
        TypedKeyedStream { keyed: self.keyed.clone(), record: PhantomData }
    }
}

impl<T> AsRef<KeyedStream> for TypedKeyedStream<T> {
    fn as_ref(&self) -> &KeyedStream {
        &self.keyed
    }
}

impl<T: Record> TypedKeyedStream<T> {
    /// The keyed stream of batches below, for windows and other built-in operators.
    pub fn keyed(&self) -> &KeyedStream {
        &self.keyed
    }

    /// Runs a process function over each key's rows.
    pub fn process<P: KeyedProcess<In = T>>(&self, function: P) -> TypedStream<P::Out> {
        process(&self.keyed, function)
    }

    /// Runs a process function over the rows of two streams that have the same key.
    pub fn process_with<P>(&self, right: &TypedKeyedStream<P::Right>, function: P) -> TypedStream<P::Out>
    where
        P: KeyedCoProcess<Left = T>,
    {
        process_two(&self.keyed, &right.keyed, function)
    }

    /// Runs a process function over each key's rows, with what a stream sends to all instances.
    pub fn process_broadcast<P>(
        &self,
        broadcast: &TypedStream<P::Broadcast>,
        function: P,
    ) -> TypedStream<P::Out>
    where
        P: KeyedBroadcastProcess<In = T>,
    {
        process_broadcast(&self.keyed, broadcast.stream(), function)
    }
}
