//! Where an instance's batches are computed: on a thread of its own that owns the plan, so that the
//! task goes on meanwhile; or, for simulation, in the wake-ups of the task itself, one batch in
//! each. Either way a batch that is done uses the task's waker.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use thalweg_engine::operator::Waker;
use thalweg_engine::record::Batch;
use thalweg_engine::{Context, Error, Result};

use super::References;
use super::compute::{Compute, Computed};
use super::gather::Cut;
use super::provenance::Expected;

/// A batch that was computed.
pub(super) struct Done {
    /// Its rows as they came, in one piece.
    pub batch: Batch,
    pub cut: Cut,
    pub computed: Computed,
    pub device_bytes: usize,
}

pub(super) enum Job {
    Compute(Cut),
    Expect(Arc<Expected>),
    SetReferences(Arc<References>),
}

/// Computes batches in order.
pub(super) enum Worker {
    Thread { shared: Arc<Shared>, thread: Option<JoinHandle<()>> },
    Inline { computing: Computing, jobs: VecDeque<Job>, waker: Waker },
}

pub(super) struct Shared {
    jobs: Mutex<Jobs>,
    came: Condvar,
    done: Mutex<VecDeque<Result<Done>>>,
    waker: Waker,
}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<Job>,
    stopped: bool,
}

/// The plan and the rows of the batches that are under way on it.
pub(super) struct Computing {
    compute: Box<dyn Compute>,
    under_way: VecDeque<(Cut, Batch)>,
    in_flight_max: usize,
}

impl Worker {
    /// A thread of its own, called `name`.
    ///
    /// # Errors
    /// An external error when there are no more threads.
    pub(super) fn thread(
        name: &str,
        compute: Box<dyn Compute>,
        in_flight_max: usize,
        waker: Waker,
    ) -> Result<Worker> {
        let shared =
            Arc::new(Shared { jobs: Mutex::default(), came: Condvar::new(), done: Mutex::default(), waker });
        let (its, name) = (shared.clone(), name.to_string());
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let mut computing = Computing::new(compute, in_flight_max);
                let ended = catch_unwind(AssertUnwindSafe(|| its.run(&mut computing)));
                if ended.is_err() {
                    its.finish(Err(Error::internal("the transform's thread panicked")));
                }
            })
            .map_err(|error| Error::external("cannot start a transform's thread").caused_by(error))?;
        Ok(Worker::Thread { shared, thread: Some(thread) })
    }

    /// In the wake-ups of the task.
    pub(super) fn inline(compute: Box<dyn Compute>, waker: Waker) -> Worker {
        Worker::Inline { computing: Computing::new(compute, 1), jobs: VecDeque::new(), waker }
    }

    /// Has a batch computed.
    pub(super) fn compute(&mut self, cut: Cut) {
        self.push(Job::Compute(cut));
    }

    /// Says which references will be set.
    pub(super) fn expect(&mut self, expected: Arc<Expected>) {
        self.push(Job::Expect(expected));
    }

    /// Replaces the references behind the batches that were given so far.
    pub(super) fn set_references(&mut self, references: Arc<References>) {
        self.push(Job::SetReferences(references));
    }

    fn push(&mut self, job: Job) {
        match self {
            Worker::Thread { shared, .. } => {
                shared.jobs.lock().queue.push_back(job);
                shared.came.notify_one();
            }
            Worker::Inline { jobs, waker, .. } => {
                jobs.push_back(job);
                waker.wake();
            }
        }
    }

    /// The task was woken: inline, that is when a batch is computed.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn woken(&mut self) -> Result<Option<Done>> {
        let Worker::Inline { computing, jobs, waker } = self else { return self.done() };
        let done = match jobs.pop_front() {
            Some(job) => {
                computing.begin(job)?;
                computing.finish()?
            }
            None => None,
        };
        if !jobs.is_empty() {
            waker.wake();
        }
        Ok(done)
    }

    /// The next batch that is done, if there is one.
    ///
    /// # Errors
    /// When the device failed.
    pub(super) fn done(&mut self) -> Result<Option<Done>> {
        match self {
            Worker::Thread { shared, .. } => shared.done.lock().pop_front().transpose(),
            Worker::Inline { .. } => Ok(None),
        }
    }
}

impl Drop for Worker {
    /// Waits for the thread: what it holds of the device is free when the next attempt opens.
    fn drop(&mut self) {
        if let Worker::Thread { shared, thread } = self {
            shared.jobs.lock().stopped = true;
            shared.came.notify_one();
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

enum Next {
    Begin(Job),
    Finish,
    Stop,
}

impl Shared {
    fn run(&self, computing: &mut Computing) {
        loop {
            let done = match self.next(computing) {
                Next::Begin(job) => computing.begin(job).map(|()| None),
                Next::Finish => computing.finish(),
                Next::Stop => return,
            };
            match done {
                Ok(None) => {}
                Ok(Some(done)) => self.finish(Ok(done)),
                Err(error) => {
                    self.finish(Err(error));
                    return;
                }
            }
        }
    }

    /// Keeps as many under way as there may be, and waits for the oldest when there is nothing to
    /// begin.
    fn next(&self, computing: &Computing) -> Next {
        let mut jobs = self.jobs.lock();
        loop {
            if jobs.stopped {
                return Next::Stop;
            }
            if computing.has_room()
                && let Some(job) = jobs.queue.pop_front()
            {
                return Next::Begin(job);
            }
            if !computing.under_way.is_empty() {
                return Next::Finish;
            }
            self.came.wait(&mut jobs);
        }
    }

    fn finish(&self, done: Result<Done>) {
        self.done.lock().push_back(done);
        self.waker.wake();
    }
}

impl Computing {
    fn new(compute: Box<dyn Compute>, in_flight_max: usize) -> Computing {
        Computing { compute, under_way: VecDeque::new(), in_flight_max }
    }

    fn has_room(&self) -> bool {
        self.under_way.len() < self.in_flight_max
    }

    fn begin(&mut self, job: Job) -> Result<()> {
        match job {
            Job::Expect(expected) => {
                expected.tell(self.compute.expect_references(expected.references()));
                Ok(())
            }
            Job::SetReferences(references) => self
                .compute
                .set_references(&references)
                .context(|| "reload of a reference matrix".to_string()),
            Job::Compute(mut cut) => {
                let parts = std::mem::take(&mut cut.parts);
                let schema = parts.first().map(Batch::schema);
                let schema = schema.ok_or_else(|| Error::internal("a batch without rows"))?;
                let batch = Batch::concat(&schema, &parts)?;
                self.compute.submit(batch.records())?;
                self.under_way.push_back((cut, batch));
                Ok(())
            }
        }
    }

    fn finish(&mut self) -> Result<Option<Done>> {
        let Some(computed) = self.compute.finish()? else { return Ok(None) };
        let (cut, batch) = self
            .under_way
            .pop_front()
            .ok_or_else(|| Error::internal("a batch came back that nobody sent"))?;
        Ok(Some(Done { batch, cut, computed, device_bytes: self.compute.device_bytes() }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::super::gather::Places;
    use super::*;

    /// A device that is busy until it is told to go on.
    struct Busy {
        finished: Arc<AtomicUsize>,
        goes_on: Arc<AtomicBool>,
        under_way: usize,
    }

    impl Compute for Busy {
        fn submit(&mut self, _: &RecordBatch) -> Result<()> {
            self.under_way += 1;
            Ok(())
        }
        fn finish(&mut self) -> Result<Option<Computed>> {
            if self.under_way == 0 {
                return Ok(None);
            }
            self.under_way -= 1;
            self.finished.fetch_add(1, Ordering::SeqCst);
            while !self.goes_on.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(Some(Computed::default()))
        }
        fn expect_references(&mut self, _: &References) -> Result<()> {
            Ok(())
        }
        fn set_references(&mut self, _: &Arc<References>) -> Result<()> {
            Ok(())
        }
        fn device_bytes(&self) -> usize {
            0
        }
    }

    fn cut() -> Cut {
        let rows: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let parts = vec![Batch::new(RecordBatch::try_from_iter([("n", rows)]).unwrap())];
        Cut { parts, places: Places::From(0), since: 0, rows: 1 }
    }

    #[test]
    fn a_worker_that_goes_waits_for_the_batch_that_the_device_is_at_and_for_no_other() {
        let (finished, goes_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let busy = Busy { finished: finished.clone(), goes_on: goes_on.clone(), under_way: 0 };
        let mut worker = Worker::thread("busy", Box::new(busy), 2, Waker::new(|| {})).unwrap();
        for _ in 0..5 {
            worker.compute(cut());
        }
        let started = Instant::now();
        while finished.load(Ordering::SeqCst) == 0 {
            assert!(started.elapsed() < Duration::from_secs(10), "nothing is computed");
            std::thread::sleep(Duration::from_millis(1));
        }
        let Worker::Thread { shared, .. } = &worker else { panic!("a thread was asked for") };
        let jobs = shared.clone();
        let dropping = std::thread::spawn(move || drop(worker));
        while !jobs.jobs.lock().stopped {
            assert!(started.elapsed() < Duration::from_secs(10), "it was not told to stop");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!dropping.is_finished(), "what the device holds is not free yet");
        goes_on.store(true, Ordering::SeqCst);
        dropping.join().unwrap();
        assert_eq!(finished.load(Ordering::SeqCst), 1);
    }
}
