//! A second stream beside a slot's own: a search selects from one part's scores there, while the
//! product of the next part runs.
//!
//! Two buffers of scores take turns. A product waits until the selection before the last is done with
//! its buffer; a selection waits for its product.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream};

use super::context::Device;
use super::failure::Failure;

/// The second stream, and the events between the two.
pub(super) struct SearchStream {
    stream: Arc<CudaStream>,
    multiplied: [CudaEvent; 2],
    selected: [CudaEvent; 2],
}

impl SearchStream {
    pub(super) fn new(device: &Device) -> Result<SearchStream, Failure> {
        let event = || device.context().new_event(None);
        Ok(SearchStream {
            stream: device.context().new_stream()?,
            multiplied: [event()?, event()?],
            selected: [event()?, event()?],
        })
    }

    /// Where selections run.
    pub(super) fn stream(&self) -> &CudaStream {
        &self.stream
    }

    /// Before the product of part number `part` of a search on `main`: its buffer is free.
    pub(super) fn before_product(&self, part: usize, main: &CudaStream) -> Result<(), Failure> {
        if part >= self.selected.len() {
            main.wait(&self.selected[part % 2])?;
        }
        Ok(())
    }

    /// Behind it: its selection may begin.
    pub(super) fn after_product(&self, part: usize, main: &CudaStream) -> Result<(), Failure> {
        self.multiplied[part % 2].record(main)?;
        Ok(self.stream.wait(&self.multiplied[part % 2])?)
    }

    /// Behind the selection of a part.
    pub(super) fn after_selection(&self, part: usize) -> Result<(), Failure> {
        Ok(self.selected[part % 2].record(&self.stream)?)
    }

    /// Behind all `parts` of a search: what comes on `main` sees every selection. They run in their
    /// order, so that the last one is all that has to be waited for.
    pub(super) fn join(&self, parts: usize, main: &CudaStream) -> Result<(), Failure> {
        match parts.checked_sub(1) {
            Some(last) => Ok(main.wait(&self.selected[last % 2])?),
            None => Ok(()),
        }
    }
}
