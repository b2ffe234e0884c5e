//! Side outputs with a name and a record.

use std::any::Any;
use std::marker::PhantomData;

use arrow::array::RecordBatch;
use thalweg_engine::record::{EdgeSchema, Record, RecordBuilder};
use thalweg_engine::{Error, Result};

/// The name of a side output, with the record that flows on it. Make it a constant, declare it
/// with the operator, and take its stream with [`super::TypedStream::side_output`].
///
/// ```
/// # use thalweg_engine::record::Record;
/// # use thalweg_operators::typed::SideOutput;
/// # #[derive(Record)]
/// # #[record(crate = "thalweg_engine")]
/// # struct Flight { carrier: String }
/// const LATE: SideOutput<Flight> = SideOutput::new("late");
/// ```
pub struct SideOutput<S> {
    name: &'static str,
    record: PhantomData<fn() -> S>,
}

impl<S> Clone for SideOutput<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for SideOutput<S> {}

impl<S: Record> SideOutput<S> {
    /// A side output of this name; unique within its operator.
    pub const fn new(name: &'static str) -> Self {
        SideOutput { name, record: PhantomData }
    }

    /// The name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// The side outputs that an operator declares, in order: the first has output index 1.
#[derive(Clone, Default)]
pub struct SideOutputs {
    declared: Vec<Declared>,
}

#[derive(Clone, Copy)]
struct Declared {
    name: &'static str,
    edge: fn() -> Result<EdgeSchema>,
    builder: fn() -> Box<dyn SideRows>,
}

impl SideOutputs {
    /// No side output.
    pub fn none() -> Self {
        Self::default()
    }

    /// One side output.
    pub fn one<S: Record>(side: SideOutput<S>) -> Self {
        Self::none().and(side)
    }

    /// One more side output.
    #[must_use]
    pub fn and<S: Record>(mut self, side: SideOutput<S>) -> Self {
        let builder: fn() -> Box<dyn SideRows> = || Box::new(RecordBuilder::<S>::default());
        self.declared.push(Declared { name: side.name, edge: S::edge_schema, builder });
        self
    }

    /// The output index of the side output of this name.
    pub fn index_of(&self, name: &str) -> Option<u16> {
        let position = self.declared.iter().position(|declared| declared.name == name)?;
        u16::try_from(position + 1).ok()
    }

    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.declared.iter().map(|declared| declared.name).collect()
    }

    /// The edges of an operator's outputs: `main`, then the side outputs.
    pub(crate) fn edges_after(&self, main: EdgeSchema) -> Result<Vec<EdgeSchema>> {
        let mut edges = vec![main];
        for (index, declared) in self.declared.iter().enumerate() {
            if self.declared[..index].iter().any(|earlier| earlier.name == declared.name) {
                return Err(Error::user(format!("side output {:?} is declared twice", declared.name)));
            }
            edges.push((declared.edge)()?);
        }
        Ok(edges)
    }

    pub(crate) fn builders(&self) -> Vec<(&'static str, Box<dyn SideRows>)> {
        self.declared.iter().map(|declared| (declared.name, (declared.builder)())).collect()
    }
}

/// The builder of a side output whose record is not known here.
pub(crate) trait SideRows: Send {
    fn as_any(&mut self) -> &mut dyn Any;
    fn finish(&mut self) -> Result<Option<RecordBatch>>;
}

impl<S: Record> SideRows for RecordBuilder<S> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn finish(&mut self) -> Result<Option<RecordBatch>> {
        if self.row_count() == 0 { Ok(None) } else { RecordBuilder::finish(self).map(Some) }
    }
}
