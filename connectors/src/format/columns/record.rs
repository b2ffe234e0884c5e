//! The columns of a record, found by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Fields, SchemaRef};
use thalweg_engine::Result;

use super::{Column, Read};

/// The order in which fields come is remembered for this many of them.
const LAYOUT_FIELDS_MAX: usize = 256;
/// So many fields may be left out of a record before the remembered order is given up for one.
const LAYOUT_SKIP_MAX: usize = 3;

/// The columns of a record or of a nested one, and the order in which its fields last came: the
/// records of a stream mostly have theirs in one order, so that a name is found by one comparison.
#[derive(Debug)]
pub(crate) struct Record {
    fields: Fields,
    columns: Vec<Column>,
    by_name: BTreeMap<Box<str>, usize>,
    /// Names as they came last, and their columns; `None`: a field that no column wants.
    layout: Vec<(Box<str>, Option<usize>)>,
    rows: usize,
}

impl Record {
    pub(crate) fn new(fields: &Fields) -> Result<Record> {
        let columns = fields.iter().map(Column::new).collect::<Result<Vec<_>>>()?;
        let by_name = fields.iter().enumerate().map(|(index, field)| (field.name().as_str().into(), index));
        let by_name = by_name.collect();
        Ok(Record { fields: fields.clone(), columns, by_name, layout: Vec::new(), rows: 0 })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns_mut(&mut self) -> &mut [Column] {
        &mut self.columns
    }

    /// The column of the field `name`. `place` is where in the remembered order to look first;
    /// it is moved to where the next field is expected.
    #[inline]
    pub(crate) fn column_of(&mut self, place: &mut usize, name: &str) -> Option<usize> {
        let expected = self.layout.get(*place..).unwrap_or_default();
        for (ahead, (known, column)) in expected.iter().take(LAYOUT_SKIP_MAX).enumerate() {
            if &**known == name {
                *place += ahead + 1;
                return *column;
            }
        }
        self.learn(place, name)
    }

    fn learn(&mut self, place: &mut usize, name: &str) -> Option<usize> {
        let column = self.by_name.get(name).copied();
        let entry = (name.into(), column);
        if *place < self.layout.len() {
            self.layout[*place] = entry;
        } else if self.layout.len() < LAYOUT_FIELDS_MAX {
            self.layout.push(entry);
        }
        *place += 1;
        column
    }

    /// Ends a row: columns without a value get a null, or are missing.
    pub(crate) fn end_row(&mut self) -> Read<()> {
        for column in &mut self.columns {
            if column.len() == self.rows {
                let missing = column.push_null("is missing and must not be null");
                missing.map_err(|fault| fault.in_column(column.field().name()))?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    pub(crate) fn push_masked(&mut self) {
        self.columns.iter_mut().for_each(Column::push_masked);
        self.rows += 1;
    }

    /// A row of nulls, and of anything in columns that take none.
    pub(crate) fn push_blank(&mut self) {
        self.columns.iter_mut().for_each(Column::push_blank);
        self.rows += 1;
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.rows = rows;
    }

    pub(crate) fn finish_struct(&mut self, rows: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let columns = self.finish_columns()?;
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), columns, nulls, rows)?))
    }

    pub(crate) fn finish_batch(&mut self, schema: &SchemaRef) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let columns = self.finish_columns()?;
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }

    fn finish_columns(&mut self) -> Result<Vec<ArrayRef>> {
        self.rows = 0;
        self.columns.iter_mut().map(Column::finish).collect()
    }
}
