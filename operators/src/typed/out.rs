//! Where typed functions put what they make: builders for the main output and the side outputs,
//! emptied once a step.

use thalweg_engine::operator::{OperatorContext, OutputIndex};
use thalweg_engine::record::{Batch, Record, RecordBuilder};
use thalweg_engine::runtime::TARGET_BYTES;
use thalweg_engine::{Error, Result};

use super::side_output::SideRows;
use super::{SideOutput, SideOutputs};

/// After this many gathered rows a step ends, so that memory is bounded.
const STEP_ROWS_MAX: usize = 8192;
/// As for rows: after about this many gathered bytes.
const STEP_BYTES_MAX: usize = TARGET_BYTES;

/// Gathers the records that a function emits.
pub struct Out<U: Record> {
    main: RecordBuilder<U>,
    sides: Vec<(&'static str, Box<dyn SideRows>)>,
    rows: usize,
    bytes: usize,
    mistake: Option<Error>,
}

impl<U: Record> Out<U> {
    pub(crate) fn new(sides: &SideOutputs) -> Self {
        Out { main: RecordBuilder::default(), sides: sides.builders(), rows: 0, bytes: 0, mistake: None }
    }

    /// Emits a record.
    pub fn emit(&mut self, record: U) {
        self.emit_row(record.as_row());
    }

    /// Emits a row that lies elsewhere, without making a record of it first.
    pub fn emit_row(&mut self, row: U::Row<'_>) {
        self.main.push_row(row);
        self.count(U::row_bytes(row));
    }

    /// Emits a record on a side output. It must be among those that the operator declares:
    /// otherwise the step fails with a user error.
    pub fn emit_to<S: Record>(&mut self, side: SideOutput<S>, record: S) {
        self.emit_row_to(side, record.as_row());
    }

    /// Emits a row that lies elsewhere on a side output, as [`Out::emit_to`] does.
    pub fn emit_row_to<S: Record>(&mut self, side: SideOutput<S>, row: S::Row<'_>) {
        let rows = self.sides.iter_mut().find(|(name, _)| *name == side.name()).map(|(_, rows)| rows);
        match rows.and_then(|rows| rows.as_any().downcast_mut::<RecordBuilder<S>>()) {
            Some(rows) => {
                rows.push_row(row);
                self.count(S::row_bytes(row));
            }
            None => {
                let message = format!(
                    "side output {:?} of {} is not declared by this operator",
                    side.name(),
                    std::any::type_name::<S>()
                );
                self.mistake.get_or_insert(Error::user(message));
            }
        }
    }

    fn count(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
    }

    /// Whether the step should end.
    pub(crate) fn is_full(&self) -> bool {
        self.rows >= STEP_ROWS_MAX || self.bytes >= STEP_BYTES_MAX || self.mistake.is_some()
    }

    /// Emits what was gathered.
    pub(crate) fn flush(&mut self, cx: &mut OperatorContext<'_>) -> Result<()> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        if self.rows == 0 {
            return Ok(());
        }
        (self.rows, self.bytes) = (0, 0);
        if self.main.row_count() > 0 {
            cx.emit(Batch::new(self.main.finish()?));
        }
        for (index, (_, rows)) in (1..).zip(&mut self.sides) {
            if let Some(records) = rows.finish()? {
                cx.emit_to(OutputIndex(index), Batch::new(records));
            }
        }
        Ok(())
    }
}
