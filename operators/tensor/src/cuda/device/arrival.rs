//! Whether something that is made on another thread is there yet. Pure.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::failure::Failure;

/// What those that wait look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrival(Arc<State>);

#[derive(Debug, Default)]
struct State {
    told: Mutex<Option<Result<(), Failure>>>,
    came: Condvar,
}

/// Tells them, once; when it is dropped before, that nothing will come.
pub(super) struct Teller(Arrival);

impl Arrival {
    /// Nothing is there yet.
    pub(super) fn new() -> (Arrival, Teller) {
        let arrival = Arrival::default();
        (arrival.clone(), Teller(arrival))
    }

    /// Waits until it is there.
    ///
    /// # Errors
    /// Why it will never be.
    pub(super) fn wait(&self) -> Result<(), Failure> {
        let told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told =
            self.0.came.wait_while(told, |told| told.is_none()).unwrap_or_else(PoisonError::into_inner);
        told.clone().unwrap_or(Ok(()))
    }

    /// Whether it will never be there; does not wait.
    pub(super) fn has_failed(&self) -> bool {
        matches!(*self.0.told.lock().unwrap_or_else(PoisonError::into_inner), Some(Err(_)))
    }

    fn tell(&self, told: Result<(), Failure>) {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(told);
        self.0.came.notify_all();
    }
}

impl Teller {
    /// It is there, or never will be.
    pub(super) fn tell(self, told: Result<(), Failure>) {
        self.0.tell(told);
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.tell(Err(Failure::Refused("its thread ended before it was done".to_owned())));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn whoever_waits_before_or_behind_hears_the_same() {
        for told in [Ok(()), Err(Failure::Lost("gone".into()))] {
            let (arrival, teller) = Arrival::new();
            assert!(!arrival.has_failed());
            let waiting: Vec<_> = (0..3)
                .map(|_| {
                    let arrival = arrival.clone();
                    thread::spawn(move || arrival.wait())
                })
                .collect();
            teller.tell(told.clone());
            for waiting in waiting {
                assert_eq!(waiting.join().unwrap(), told);
            }
            assert_eq!(arrival.wait(), told);
            assert_eq!(arrival.has_failed(), told.is_err());
        }
    }

    #[test]
    fn a_thread_that_dies_leaves_nobody_waiting() {
        let (arrival, teller) = Arrival::new();
        let died = thread::spawn(move || {
            let _teller = teller;
            panic!("as a test wants it");
        });
        assert!(died.join().is_err());
        assert!(arrival.wait().is_err() && arrival.has_failed());
    }
}
