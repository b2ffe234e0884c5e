//! Where work runs that may block: snapshots, uploads, commits, the coordinator's I/O.
//!
//! The rule: work waits for threads with work of its own kind alone. What writes to the local disk
//! never stands behind what waits for the network, and what the coordinator does never behind what a
//! task's checkpoint does. Whoever holds the pools last may be a piece of work of theirs: nobody
//! waits for threads to end.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::panic_message;

/// A piece of work that may block. Runs once, or is dropped when the executor goes away.
pub type Job = Box<dyn FnOnce() + Send>;

/// Told what the panic said when a piece of work panics: somebody waits for its outcome. User code
/// runs in it (a sink's uploads and commits), and its panic fails the task, not the process.
pub type OnPanic = Box<dyn FnOnce(String) + Send>;

/// What a piece of work waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The local disk: what a barrier froze is written.
    Disk,
    /// Stores and brokers, for a task's checkpoint.
    Network,
    /// Stores and the world, for the coordinator: claims, publications, commits, discoveries.
    Coordinator,
}

/// Runs work beside the tasks.
pub trait Background: Send + Sync {
    /// Runs `job` at some time, behind no other than what is in the same pool. `name` says what it
    /// is, for logs and for the simulator's faults. An executor for tests may let a panic through
    /// instead of telling `on_panic`.
    fn spawn(&self, pool: Pool, name: &str, job: Job, on_panic: OnPanic);
}

/// Disks do not get faster by more.
const DISK_THREADS_MAX: usize = 4;
/// Each task has one snapshot on its way, or a few when some were aborted.
const NETWORK_THREADS_MAX: usize = 128;
/// A source's look, a publication, a commit; none of them more than once at a time.
const COORDINATOR_THREADS_MAX: usize = 64;
/// A thread without work ends after so long.
const IDLE: Duration = Duration::from_secs(10);

/// Runs work on threads, which are made as they are needed.
pub struct ThreadedBackground {
    disk: Threads,
    network: Threads,
    coordinator: Threads,
}

impl ThreadedBackground {
    /// Pools without threads yet.
    pub fn new() -> Self {
        ThreadedBackground {
            disk: Threads::new("thalweg-disk", DISK_THREADS_MAX),
            network: Threads::new("thalweg-network", NETWORK_THREADS_MAX),
            coordinator: Threads::new("thalweg-coordinator-io", COORDINATOR_THREADS_MAX),
        }
    }
}

impl Default for ThreadedBackground {
    fn default() -> Self {
        ThreadedBackground::new()
    }
}

impl Background for ThreadedBackground {
    fn spawn(&self, pool: Pool, name: &str, job: Job, on_panic: OnPanic) {
        let threads = match pool {
            Pool::Disk => &self.disk,
            Pool::Network => &self.network,
            Pool::Coordinator => &self.coordinator,
        };
        threads.run(Work { name: name.to_string(), job, on_panic });
    }
}

struct Work {
    name: String,
    job: Job,
    on_panic: OnPanic,
}

impl Work {
    fn run(self) {
        let Work { name, job, on_panic } = self;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
            on_panic(format!("{name} panicked: {}", panic_message(panic.as_ref())));
        }
    }
}

/// The threads of one pool, and what waits for them.
struct Threads {
    name: &'static str,
    most: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    idle: usize,
    threads: usize,
    closed: bool,
}

impl Threads {
    fn new(name: &'static str, most: usize) -> Threads {
        Threads { name, most, shared: Arc::default() }
    }

    fn run(&self, work: Work) {
        let mut queue = self.shared.queue.lock();
        queue.waiting.push_back(work);
        if queue.idle >= queue.waiting.len() || queue.threads == self.most {
            self.shared.more.notify_one();
            return;
        }
        queue.threads += 1;
        drop(queue);
        let shared = self.shared.clone();
        let started = std::thread::Builder::new().name(self.name.into()).spawn(move || shared.work());
        if let Err(error) = started {
            let mut queue = self.shared.queue.lock();
            queue.threads -= 1;
            // With a thread left it is done later; without one nobody would come to it.
            let stranded =
                if queue.threads == 0 { std::mem::take(&mut queue.waiting) } else { VecDeque::new() };
            drop(queue);
            for work in stranded {
                (work.on_panic)(format!("{}: cannot start a thread: {error}", work.name));
            }
        }
    }
}

impl Shared {
    /// Works until there is nothing to do for a while, or nobody holds the pool.
    fn work(&self) {
        let mut queue = self.queue.lock();
        loop {
            if let Some(work) = queue.waiting.pop_front() {
                drop(queue);
                work.run();
                queue = self.queue.lock();
                continue;
            }
            if queue.closed {
                break;
            }
            queue.idle += 1;
            let waited_long = self.more.wait_for(&mut queue, IDLE).timed_out();
            queue.idle -= 1;
            if waited_long && queue.waiting.is_empty() {
                break;
            }
        }
        queue.threads -= 1;
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.closed = true;
        let unrun = std::mem::take(&mut queue.waiting);
        drop(queue);
        self.shared.more.notify_all();
        // What is dropped with it may hold anything; no lock is held meanwhile.
        drop(unrun);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const BOUND: Duration = Duration::from_secs(60);

    fn nobody() -> OnPanic {
        Box::new(|_| ())
    }

    /// Keeps every thread of a pool until the answer is dropped.
    fn fill(background: &dyn Background, pool: Pool, jobs: usize) -> std::sync::mpsc::Sender<()> {
        let (hold, held) = channel::<()>();
        let held: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(held));
        for _ in 0..jobs {
            let held = held.clone();
            background.spawn(pool, "held", Box::new(move || held.lock().recv().unwrap_or(())), nobody());
        }
        hold
    }

    #[test]
    fn what_goes_to_the_disk_never_waits_for_the_network_nor_the_coordinator_for_either() {
        let background = ThreadedBackground::new();
        let network = fill(&background, Pool::Network, 2 * NETWORK_THREADS_MAX);
        let (done, all) = channel();
        for _ in 0..20 {
            let done = done.clone();
            background.spawn(Pool::Disk, "flush", Box::new(move || done.send("disk").unwrap()), nobody());
        }
        for _ in 0..20 {
            assert_eq!(all.recv_timeout(BOUND), Ok("disk"));
        }
        let disk = fill(&background, Pool::Disk, 2 * DISK_THREADS_MAX);
        background.spawn(
            Pool::Coordinator,
            "publish",
            Box::new(move || done.send("told").unwrap()),
            nobody(),
        );
        assert_eq!(all.recv_timeout(BOUND), Ok("told"));
        drop((network, disk));
    }

    #[test]
    fn work_that_outlives_its_job_may_be_the_last_to_hold_the_pools() {
        let background: Arc<dyn Background> = Arc::new(ThreadedBackground::new());
        let (go, gone) = channel::<()>();
        let (done, ended) = channel();
        let panicked = done.clone();
        let held = background.clone();
        let job = move || {
            gone.recv().unwrap_or(());
            drop(held);
            done.send("ended".to_string()).unwrap();
        };
        background.spawn(
            Pool::Network,
            "upload",
            Box::new(job),
            Box::new(move |why| drop(panicked.send(why))),
        );
        // The job is over, its upload is not.
        drop(background);
        drop(go);
        assert_eq!(ended.recv_timeout(BOUND).as_deref(), Ok("ended"));
    }

    #[test]
    fn what_nobody_has_begun_is_dropped_with_the_pools() {
        let background = ThreadedBackground::new();
        let hold = fill(&background, Pool::Disk, DISK_THREADS_MAX);
        let (witness, dropped) = channel::<()>();
        background.spawn(Pool::Disk, "never", Box::new(move || drop(witness)), nobody());
        drop(background);
        assert!(
            dropped
                .recv_timeout(BOUND)
                .is_err_and(|error| error != std::sync::mpsc::RecvTimeoutError::Timeout)
        );
        drop(hold);
    }

    #[test]
    fn a_panic_is_told_and_the_thread_goes_on() {
        let background = ThreadedBackground::new();
        for _ in 0..DISK_THREADS_MAX + 1 {
            let (told, why) = channel();
            let on_panic = Box::new(move |why: String| told.send(why).unwrap());
            background.spawn(Pool::Disk, "snapshot", Box::new(|| panic!("on purpose")), on_panic);
            assert_eq!(why.recv_timeout(BOUND).as_deref(), Ok("snapshot panicked: on purpose"));
        }
    }
}
