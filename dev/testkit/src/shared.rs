//! Services that the tests of one binary share, each started by whoever asks first.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use crate::Result;

type Slot<T> = Arc<Mutex<Option<&'static T>>>;

/// Values by name that live as long as the process.
pub(crate) struct Shared<T: 'static>(LazyLock<Mutex<HashMap<String, Slot<T>>>>);

impl<T> Shared<T> {
    pub(crate) const fn new() -> Self {
        Shared(LazyLock::new(Mutex::default))
    }

    /// The value of that name; `start` makes it if it is not there. Different names are made at the same time.
    pub(crate) fn get(&self, name: &str, start: impl FnOnce() -> Result<T>) -> Result<&'static T> {
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(name.to_owned()).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = *slot {
            return Ok(value);
        }
        let value: &'static T = Box::leak(Box::new(start()?));
        *slot = Some(value);
        Ok(value)
    }
}
