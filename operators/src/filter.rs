//! Keeps the rows for which a condition is true. Null counts as false, as in SQL.
//!
//! Cost: the condition, then nothing when all rows stay, nothing when none stays, and one copy of
//! the rows that stay otherwise.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, UInt64Array, cast::AsArray};
use arrow::compute::{FilterBuilder, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use datafusion_common::ScalarValue;
use datafusion_expr::ColumnarValue;
use thalweg_engine::operator::{Operator, OperatorContext, OperatorFactory, Step, single_input};
use thalweg_engine::record::{Batch, EdgeSchema, Mode};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Error, Result};

use crate::expression::{ColumnExpression, PlannedExpression};

/// Keeps the rows for which `condition` is true.
#[derive(Clone, Debug)]
pub struct Filter {
    condition: ColumnExpression,
}

impl Filter {
    /// A filter. The condition is looked at when the job is built.
    pub fn new(condition: impl Into<ColumnExpression>) -> Self {
        Filter { condition: condition.into() }
    }
}

impl OperatorFactory for Filter {
    fn name(&self) -> String {
        "filter".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(FilterOperator { condition: self.condition.clone(), planned: None }))
    }

    fn takes(&self, _input: usize, _mode: &Mode) -> bool {
        true
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let input = single_input(inputs)?;
        self.condition.plan_condition(&input.schema)?;
        if let Mode::Upsert(key) = &input.mode {
            // A row that no longer passes would have to take its predecessor back; only a
            // condition on the key decides the same for both.
            let fields = input.schema.fields().iter().filter(|field| key.contains(field.name())).cloned();
            let only_key = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
            self.condition.plan_condition(&only_key).map_err(|_| {
                Error::user(format!(
                    "filter `{}` on an upsert stream may look at the key columns only ({}): a row that no \
                     longer passes would leave its older version behind",
                    self.condition.text(),
                    key.join(", ")
                ))
            })?;
        }
        Ok(vec![input.clone()])
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }

    fn describe(&self) -> String {
        format!("filter {}", self.condition.text())
    }
}

struct FilterOperator {
    condition: ColumnExpression,
    planned: Option<(SchemaRef, PlannedExpression)>,
}

impl Operator for FilterOperator {
    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let schema = batch.schema();
        let condition = match &self.planned {
            Some((known, planned)) if Arc::ptr_eq(known, &schema) || known == &schema => planned,
            _ => &self.planned.insert((schema.clone(), self.condition.plan_condition(&schema)?)).1,
        };
        match condition.evaluate_columnar(batch.records())? {
            ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))) => cx.emit(batch),
            ColumnarValue::Scalar(_) => {}
            ColumnarValue::Array(mask) => {
                if let Some(kept) = keep(batch, mask.as_boolean())? {
                    cx.emit(kept);
                }
            }
        }
        Ok(Step::Done)
    }
}

/// The rows of `batch` where `mask` is true; `None` when there are none.
fn keep(batch: Batch, mask: &BooleanArray) -> Result<Option<Batch>> {
    let count = mask.true_count();
    if count == batch.row_count() {
        return Ok(Some(batch));
    }
    if count == 0 {
        return Ok(None);
    }
    let without_nulls;
    let mask = if mask.null_count() > 0 {
        without_nulls = prep_null_mask_filter(mask);
        &without_nulls
    } else {
        mask
    };
    let predicate = FilterBuilder::new(mask).optimize().build();
    let hashes = match batch.key_hashes() {
        Some(hashes) => Some(UInt64Array::from(predicate.filter(hashes)?.to_data())),
        None => None,
    };
    let kept = Batch::new(predicate.filter_record_batch(batch.records())?);
    Ok(Some(match hashes {
        Some(hashes) => kept.with_key_hashes(hashes),
        None => kept,
    }))
}
