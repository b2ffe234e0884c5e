//! One record in, any number out, with typed side outputs.

use std::marker::PhantomData;

use thalweg_engine::Result;
use thalweg_engine::operator::{Operator, OperatorContext, OperatorFactory, Step, single_input};
use thalweg_engine::record::{Batch, EdgeSchema, Record, RecordReader, check_schema};
use thalweg_engine::state::StateIdentity;

use super::{Out, SideOutputs};

/// Makes any number of `U` of every `T`, by a closure that emits them.
pub struct FlatMapRows<T, U, F> {
    function: F,
    sides: SideOutputs,
    types: PhantomData<fn(T) -> U>,
}

impl<T, U, F> FlatMapRows<T, U, F>
where
    T: Record,
    U: Record,
    F: for<'a> Fn(T::Row<'a>, &mut Out<U>) + Clone + Send + Sync + 'static,
{
    /// Emits by `function`, to the main output and to `sides`.
    pub fn new(sides: SideOutputs, function: F) -> Self {
        FlatMapRows { function, sides, types: PhantomData }
    }
}

impl<T, U, F> OperatorFactory for FlatMapRows<T, U, F>
where
    T: Record,
    U: Record,
    F: for<'a> Fn(T::Row<'a>, &mut Out<U>) + Clone + Send + Sync + 'static,
{
    fn name(&self) -> String {
        "flat map".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(FlatMapper::<T, U, F>::new(self.function.clone(), &self.sides)))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        check_schema::<T>(&single_input(inputs)?.schema)?;
        self.sides.edges_after(U::edge_schema()?)
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }

    fn describe(&self) -> String {
        format!("flat map {:?}", self.sides.names())
    }
}

/// Runs a closure over rows in bounded steps.
pub(super) struct FlatMapper<T, U: Record, F> {
    function: F,
    out: Out<U>,
    /// A batch of which rows from this index on are still to do.
    pending: Option<(Batch, usize)>,
    input: PhantomData<fn(T)>,
}

impl<T, U, F> FlatMapper<T, U, F>
where
    T: Record,
    U: Record,
    F: for<'a> Fn(T::Row<'a>, &mut Out<U>) + Send,
{
    pub(super) fn new(function: F, sides: &SideOutputs) -> Self {
        FlatMapper { function, out: Out::new(sides), pending: None, input: PhantomData }
    }

    fn step(&mut self, batch: Batch, from: usize, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let reader = RecordReader::<T>::new(batch.records())?;
        let mut next = from;
        while next < reader.row_count() && !self.out.is_full() {
            (self.function)(reader.row(next), &mut self.out);
            next += 1;
        }
        self.out.flush(cx)?;
        if next < reader.row_count() {
            self.pending = Some((batch, next));
            return Ok(Step::More);
        }
        Ok(Step::Done)
    }
}

impl<T, U, F> Operator for FlatMapper<T, U, F>
where
    T: Record,
    U: Record,
    F: for<'a> Fn(T::Row<'a>, &mut Out<U>) + Send,
{
    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.step(batch, 0, cx)
    }

    fn resume(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        match self.pending.take() {
            Some((batch, next)) => self.step(batch, next, cx),
            None => Ok(Step::Done),
        }
    }
}
