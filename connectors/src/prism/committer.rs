//! Publishes what an exactly-once sink has prepared: reads each segment from the store, gives its
//! records their ids, and publishes until every one is acknowledged. Done twice, it publishes the
//! same records with the same ids again, and readers drop the copies.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use thalweg_engine::checkpoint::{CheckpointStorage, fetch};
use thalweg_engine::metrics::MetricGroup;
use thalweg_engine::operator::Waker;
use thalweg_engine::sink::{Committable, Committer};
use thalweg_engine::{Context, Error, Result};
use thalweg_proto::prism::Record;

use super::outbox::Outbox;
use super::segment::{SegmentReader, SegmentReference};
use super::sink::PrismSink;
use crate::position;

/// Records that are read from a segment at once.
const READ_RECORDS: usize = 1024;
/// How often a commit that waits for another one looks whether it is cancelled.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Commits for all instances of one sink.
pub(super) struct PrismCommitter {
    sink: PrismSink,
    /// One commit at a time: epochs are published in their order.
    outboxes: Mutex<Outboxes>,
}

#[derive(Default)]
struct Outboxes {
    by_topic: BTreeMap<String, Outbox>,
    /// Counts commits.
    ticket: u64,
}

impl PrismCommitter {
    /// A committer that publishes where the sink does.
    pub(super) fn new(sink: PrismSink) -> Self {
        PrismCommitter { sink, outboxes: Mutex::default() }
    }

    fn publish(
        &self,
        outboxes: &mut Outboxes,
        reference: &SegmentReference,
        storage: &dyn CheckpointStorage,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        let scratch = tempfile::tempdir()
            .map_err(|error| Error::external("no directory for a segment").caused_by(error))?;
        let local = scratch.path().join("segment");
        fetch(storage, &reference.file, &local)?;
        let ticket = outboxes.ticket;
        let outbox = self.outbox(outboxes, &reference.topic)?;
        let mut reader = SegmentReader::open(&local, reference)?;
        let mut records: VecDeque<Record> = VecDeque::new();
        loop {
            while records.len() < READ_RECORDS {
                match reader.next_record()? {
                    Some(record) => records.push_back(record),
                    None => break,
                }
            }
            if records.is_empty() {
                return Ok(());
            }
            while !outbox.push(ticket, &mut records)? {
                check(cancelled)?;
                outbox.wait_for_room();
            }
        }
    }

    fn outbox<'a>(&self, outboxes: &'a mut Outboxes, topic: &str) -> Result<&'a Outbox> {
        match outboxes.by_topic.entry(topic.to_owned()) {
            Entry::Occupied(outbox) => Ok(outbox.into_mut()),
            Entry::Vacant(place) => {
                let metrics = MetricGroup::default();
                let publisher = self.sink.target().connect(&metrics)?;
                let bytes = self.sink.in_flight();
                Ok(place.insert(Outbox::new(publisher, topic, bytes, Waker::new(|| ()), &metrics)?))
            }
        }
    }

    fn commit_all(
        &self,
        outboxes: &mut Outboxes,
        committables: &[Committable],
        storage: &dyn CheckpointStorage,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        outboxes.ticket += 1;
        for committable in committables {
            check(cancelled)?;
            let reference: SegmentReference = position::decode(&committable.payload, "the committable")?;
            self.publish(outboxes, &reference, storage, cancelled)
                .context(|| format!("publishing the segment {}", reference.file.path))?;
        }
        for outbox in outboxes.by_topic.values() {
            outbox.awaiter().wait(outboxes.ticket, cancelled)?;
        }
        Ok(())
    }
}

fn check(cancelled: &dyn Fn() -> bool) -> Result<()> {
    match cancelled() {
        true => Err(Error::external("the commit was cancelled")),
        false => Ok(()),
    }
}

impl Committer for PrismCommitter {
    fn commit(
        &self,
        committables: &[Committable],
        storage: &dyn CheckpointStorage,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut outboxes = loop {
            check(cancelled)?;
            if let Some(outboxes) = self.outboxes.try_lock_for(LOOK_AGAIN) {
                break outboxes;
            }
        };
        let committed = self.commit_all(&mut outboxes, committables, storage, cancelled);
        if committed.is_err() {
            // A failed outbox stays failed, and a cancelled one still has records under way.
            outboxes.by_topic.clear();
        }
        committed
    }
}
