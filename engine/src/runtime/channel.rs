//! One task's output to one task's input: a queue bounded in rows and bytes, that its owner can
//! look into.
//!
//! The rule: sending never blocks. A full channel gives the element back, and wakes the sender
//! when there is room again. Only batches count against the bounds and only batches are refused:
//! control elements are few (watermarks in a row become one) and must not wait for rows.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Element;
use crate::operator::Waker;
use crate::record::Batch;

/// What a channel may hold. A single batch beyond the bounds is taken when the queue is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelBounds {
    /// Rows.
    pub rows_max: usize,
    /// Bytes that the batches keep alive.
    pub bytes_max: usize,
}

impl Default for ChannelBounds {
    fn default() -> Self {
        ChannelBounds { rows_max: 4 * TARGET_ROWS, bytes_max: 8 << 20 }
    }
}

/// How many rows a batch should have.
pub const TARGET_ROWS: usize = 8_192;
/// How many bytes a batch should have at most, with [`TARGET_ROWS`] rows or fewer: what a task has in
/// its hands at a time is a few of them.
pub const TARGET_BYTES: usize = 2 << 20;

#[derive(Default)]
struct Queue {
    elements: VecDeque<Element>,
    rows: usize,
    bytes: usize,
    sender_waits: bool,
    sender: Option<Waker>,
    receiver: Option<Waker>,
    #[cfg(debug_assertions)]
    grammar: super::grammar::Grammar,
    /// The changelog that it is part of, and which of its channels it is.
    #[cfg(debug_assertions)]
    changelog: Option<(Arc<super::Changelog>, usize)>,
}

/// A bounded queue between two tasks.
pub struct Channel {
    bounds: ChannelBounds,
    queue: Mutex<Queue>,
}

impl Channel {
    /// An empty channel.
    pub fn new(bounds: ChannelBounds) -> Arc<Channel> {
        Arc::new(Channel { bounds, queue: Mutex::new(Queue::default()) })
    }

    /// Has what is sent checked as channel `index` of a changelog.
    #[cfg(debug_assertions)]
    pub fn set_changelog(&self, changelog: Arc<super::Changelog>, index: usize) {
        self.queue.lock().changelog = Some((changelog, index));
    }

    /// Says whom to wake when there is room.
    pub fn set_sender(&self, waker: Waker) {
        self.queue.lock().sender = Some(waker);
    }

    /// Says whom to wake when there is something.
    pub fn set_receiver(&self, waker: Waker) {
        self.queue.lock().receiver = Some(waker);
    }

    /// Sends, or gives the element back when it is a batch and the channel is full.
    pub fn try_send(&self, element: Element) -> Option<Element> {
        let waker = {
            let mut queue = self.queue.lock();
            match &element {
                Element::Batch(batch) => {
                    let full = queue.rows + batch.row_count() > self.bounds.rows_max
                        || queue.bytes + batch.bytes() > self.bounds.bytes_max;
                    if full && queue.rows > 0 {
                        queue.sender_waits = true;
                        return Some(element);
                    }
                    queue.rows += batch.row_count();
                    queue.bytes += batch.bytes();
                    #[cfg(debug_assertions)]
                    if let Some((changelog, index)) = &queue.changelog
                        && let Err(breach) = changelog.accept(*index, batch)
                    {
                        debug_assert!(false, "channel: {breach}");
                    }
                }
                Element::Watermark(later) => {
                    let later = *later;
                    if let Some(Element::Watermark(last)) = queue.elements.back_mut() {
                        *last = later;
                        #[cfg(debug_assertions)]
                        if let Err(breach) = queue.grammar.accept(&Element::Watermark(later)) {
                            debug_assert!(false, "channel: {breach}");
                        }
                        return None;
                    }
                }
                _ => {}
            }
            #[cfg(debug_assertions)]
            if let Err(breach) = queue.grammar.accept(&element) {
                debug_assert!(false, "channel: {breach}");
            }
            let was_empty = queue.elements.is_empty();
            queue.elements.push_back(element);
            if was_empty { queue.receiver.clone() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        None
    }

    /// Takes the next element.
    pub fn try_receive(&self) -> Option<Element> {
        let (element, waker) = {
            let mut queue = self.queue.lock();
            let element = queue.elements.pop_front()?;
            if let Element::Batch(batch) = &element {
                queue.release(batch);
            }
            (element, queue.sender_to_wake())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(element)
    }

    /// Takes the next element, unless it is a batch.
    pub fn try_receive_control(&self) -> Option<Element> {
        let mut queue = self.queue.lock();
        if matches!(queue.elements.front(), Some(Element::Batch(_))) {
            return None;
        }
        queue.elements.pop_front()
    }

    /// Takes the batches at the front, as many as fit into `rows_max` rows and [`TARGET_BYTES`]
    /// beside the first. Empty when the front is not a batch.
    pub fn take_batches(&self, rows_max: usize, into: &mut Vec<Batch>) {
        let waker = {
            let mut queue = self.queue.lock();
            let (mut rows, mut bytes) = (0, 0);
            while let Some(Element::Batch(batch)) = queue.elements.front() {
                rows += batch.row_count();
                bytes += batch.bytes();
                if (rows > rows_max || bytes > TARGET_BYTES) && !into.is_empty() {
                    break;
                }
                if let Some(Element::Batch(batch)) = queue.elements.pop_front() {
                    queue.release(&batch);
                    into.push(batch);
                }
            }
            queue.sender_to_wake()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What it may hold.
    pub fn bounds(&self) -> ChannelBounds {
        self.bounds
    }

    /// Whether anything is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().elements.is_empty()
    }

    /// Queued rows.
    pub fn rows(&self) -> usize {
        self.queue.lock().rows
    }
}

impl Queue {
    fn release(&mut self, batch: &Batch) {
        self.rows -= batch.row_count();
        self.bytes -= batch.bytes();
    }

    fn sender_to_wake(&mut self) -> Option<Waker> {
        if std::mem::take(&mut self.sender_waits) { self.sender.clone() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Watermark;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, UInt32Array};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn batch(rows: i64) -> Element {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        Element::Batch(Batch::new(RecordBatch::try_from_iter([("n", column)]).unwrap()))
    }

    #[test]
    fn a_full_channel_gives_the_batch_back_and_wakes_the_sender_once_there_is_room() {
        let channel = Channel::new(ChannelBounds { rows_max: 10, bytes_max: 1 << 20 });
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        channel.set_sender(Waker::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        assert!(channel.try_send(batch(8)).is_none());
        assert!(channel.try_send(batch(8)).is_some());
        assert!(channel.try_send(Element::Idle).is_none(), "control elements are never refused");
        assert_eq!(woken.load(Ordering::SeqCst), 0);
        assert!(channel.try_receive().is_some());
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        assert!(channel.try_send(batch(100)).is_none(), "one large batch is taken when no rows are queued");
    }

    #[test]
    fn h8_long_strings_fill_a_channel_by_what_they_keep_alive() {
        let channel = Channel::new(ChannelBounds { rows_max: 1 << 20, bytes_max: 8 << 20 });
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..256).map(|_| "x".repeat(4096))));
        let megabyte = Batch::new(RecordBatch::try_from_iter([("text", texts)]).unwrap());
        // A thin share of the rows keeps all of them alive.
        let share = megabyte.take(&UInt32Array::from(vec![7])).unwrap();
        for batch in [megabyte, share] {
            let sent = (0..64).take_while(|_| channel.try_send(Element::Batch(batch.clone())).is_none());
            assert!((4..8).contains(&sent.count()));
            let mut taken = Vec::new();
            channel.take_batches(TARGET_ROWS, &mut taken);
            assert_eq!(taken.len(), 1, "joined up to some bytes, not only to some rows");
            while channel.try_receive().is_some() {}
        }
    }

    #[test]
    fn watermarks_in_a_row_become_one() {
        let channel = Channel::new(ChannelBounds::default());
        for time in [1, 5] {
            assert!(channel.try_send(Element::Watermark(Watermark(time))).is_none());
        }
        assert!(matches!(channel.try_receive(), Some(Element::Watermark(Watermark(5)))));
        assert!(channel.is_empty());
    }
}
