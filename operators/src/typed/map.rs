//! One record in, one record out.

use std::marker::PhantomData;

use thalweg_engine::Result;
use thalweg_engine::operator::{Operator, OperatorFactory, single_input};
use thalweg_engine::record::{EdgeSchema, Record, check_schema};
use thalweg_engine::state::StateIdentity;

use super::flat_map::FlatMapper;
use super::{Out, SideOutputs};

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
        let function = self.function.clone();
        let emit = move |row: T::Row<'_>, out: &mut Out<U>| out.emit(function(row));
        Ok(Box::new(FlatMapper::<T, U, _>::new(emit, &SideOutputs::none())))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        check_schema::<T>(&single_input(inputs)?.schema)?;
        Ok(vec![U::edge_schema()?])
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}
