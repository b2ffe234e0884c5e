//! The order of batches: first in, first out, with a bound on those that run.
//!
//! A batch runs, then it is done, then it is taken. Which batch a call means is decided here; what
//! running and waiting are is the caller's.

use std::collections::VecDeque;

/// Batches in the order of their submission: first those that are done, then those that run.
pub(super) struct Pipeline<Running, Done> {
    running_max: usize,
    done: VecDeque<Done>,
    running: VecDeque<Stage<Running, Done>>,
}

/// Behind a batch that runs, one may be done already: it failed before it began.
enum Stage<Running, Done> {
    Running(Running),
    Done(Done),
}

impl<Running, Done> Pipeline<Running, Done> {
    /// At most `running_max` batches run at once; at least one.
    pub(super) fn new(running_max: usize) -> Self {
        Pipeline { running_max: running_max.max(1), done: VecDeque::new(), running: VecDeque::new() }
    }

    /// Whether another batch may begin only when the oldest is done.
    pub(super) fn is_full(&self) -> bool {
        self.under_way().count() >= self.running_max
    }

    /// A batch began.
    pub(super) fn began(&mut self, batch: Running) {
        self.running.push_back(Stage::Running(batch));
    }

    /// A batch is done without having run; its turn stays where it is.
    pub(super) fn done_at_once(&mut self, batch: Done) {
        self.running.push_back(Stage::Done(batch));
        self.settle();
    }

    /// Whether the next to be taken still runs, and which it is; nothing where it is done, or where
    /// there is none.
    pub(super) fn awaited(&self) -> Option<&Running> {
        match (self.done.is_empty(), self.running.front()) {
            (true, Some(Stage::Running(batch))) => Some(batch),
            _ => None,
        }
    }

    /// All that run, the oldest first.
    pub(super) fn under_way(&self) -> impl Iterator<Item = &Running> {
        self.running.iter().filter_map(|stage| match stage {
            Stage::Running(batch) => Some(batch),
            Stage::Done(_) => None,
        })
    }

    /// Ends the oldest that runs: `wait` makes it done. Does nothing where none runs.
    pub(super) fn end_oldest(&mut self, wait: impl FnOnce(Running) -> Done) {
        // What is done never stands in front of what runs, see `settle`.
        if let Some(Stage::Running(batch)) = self.running.pop_front() {
            self.done.push_back(wait(batch));
            self.settle();
        }
    }

    /// Takes the oldest, if it is done.
    pub(super) fn take(&mut self) -> Option<Done> {
        self.done.pop_front()
    }

    /// Moves what is done in front of all that runs.
    fn settle(&mut self) {
        while matches!(self.running.front(), Some(Stage::Done(_))) {
            if let Some(Stage::Done(batch)) = self.running.pop_front() {
                self.done.push_back(batch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_out_in_the_order_they_went_in() {
        let mut pipeline = Pipeline::<u32, String>::new(2);
        assert!(pipeline.take().is_none() && pipeline.awaited().is_none());
        pipeline.began(1);
        assert!(!pipeline.is_full());
        pipeline.began(2);
        assert!(pipeline.is_full());
        assert_eq!(pipeline.awaited(), Some(&1));
        pipeline.end_oldest(|batch| format!("done {batch}"));
        assert!(!pipeline.is_full());
        // The oldest is done: nothing has to be awaited, though another runs.
        assert_eq!(pipeline.awaited(), None);
        pipeline.began(3);
        assert_eq!(pipeline.take().as_deref(), Some("done 1"));
        assert_eq!(pipeline.take(), None);
        assert_eq!(pipeline.awaited(), Some(&2));
        pipeline.end_oldest(|batch| format!("done {batch}"));
        pipeline.end_oldest(|batch| format!("done {batch}"));
        assert_eq!(pipeline.take().as_deref(), Some("done 2"));
        assert_eq!(pipeline.take().as_deref(), Some("done 3"));
        pipeline.end_oldest(|_| unreachable!());
        assert_eq!(pipeline.take(), None);
    }

    #[test]
    fn one_that_failed_at_once_waits_for_its_turn_and_takes_no_place() {
        let mut pipeline = Pipeline::<u32, &str>::new(1);
        pipeline.began(1);
        pipeline.done_at_once("failed");
        assert!(pipeline.is_full());
        assert_eq!(pipeline.awaited(), Some(&1));
        assert_eq!(pipeline.take(), None);
        pipeline.end_oldest(|_| "done");
        assert!(!pipeline.is_full());
        assert_eq!(pipeline.take(), Some("done"));
        assert_eq!(pipeline.take(), Some("failed"));
        pipeline.done_at_once("failed again");
        assert_eq!(pipeline.take(), Some("failed again"));
    }
}
