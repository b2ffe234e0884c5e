//! One record in, one record out.

use std::marker::PhantomData;

use thalweg_engine::Result;
use thalweg_engine::operator::{Operator, OperatorContext, OperatorFactory, Step, single_input};
use thalweg_engine::record::{Batch, EdgeSchema, Record, RecordBuilder, RecordReader, check_schema};

/// Makes a `U` of every `T`, by a closure.
pub struct MapRows<T, U, F> {
    function: F,
    types: PhantomData<fn(T) -> U>,
}

impl<T, U, F> MapRows<T, U, F>
where
    T: Record,
    U: Record,
    F: for<'a> Fn(T::Row<'a>) -> U + Clone + Send + Sync + 'static,
{
    /// Maps by `function`.
    pub fn new(function: F) -> Self {
        MapRows { function, types: PhantomData }
    }
}

impl<T, U, F> OperatorFactory for MapRows<T, U, F>
where
    T: Record,
    U: Record,
    F: for<'a> Fn(T::Row<'a>) -> U + Clone + Send + Sync + 'static,
{
    fn name(&self) -> String {
        "map".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Mapper::<T, U, F> {
            function: self.function.clone(),
            rows: RecordBuilder::default(),
            input: PhantomData,
        }))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        check_schema::<T>(&single_input(inputs)?.schema)?;
        Ok(vec![U::edge_schema()?])
    }
}

struct Mapper<T, U: Record, F> {
    function: F,
    rows: RecordBuilder<U>,
    input: PhantomData<fn(T)>,
}

impl<T, U, F> Operator for Mapper<T, U, F>
where
    T: Record,
    U: Record,
    F: for<'a> Fn(T::Row<'a>) -> U + Send,
{
    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        for row in RecordReader::<T>::new(batch.records())?.rows() {
            self.rows.push(&(self.function)(row));
        }
        cx.emit(Batch::new(self.rows.finish()?));
        Ok(Step::Done)
    }
}
