//! A request under way: its records, and what is known of each. A record's delivery is a value
//! that is with exactly one cluster at a time; lost (dropped), it counts as failed, so that a
//! request always ends.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rdkafka::error::RDKafkaErrorCode;
use thalweg_proto::prism::{ErrorCode, Record, RecordResult};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::outcome::{self, Fault};
use super::route::{Spread, key_hash};
use super::router::Inner;

/// A request under way.
pub(super) struct Request {
    pub(super) router: Weak<Inner>,
    pub(super) topic: String,
    pub(super) records: Arc<[Record]>,
    /// Counts requests: where records without a key go.
    pub(super) turn: u64,
    replies: Mutex<Replies>,
}

struct Replies {
    results: Vec<RecordResult>,
    open: usize,
    reply: Option<oneshot::Sender<Vec<RecordResult>>>,
    /// Room for the records, given back with the reply.
    room: Option<OwnedSemaphorePermit>,
}

impl Request {
    /// A request of which nothing is known yet, and where its results will be.
    pub(super) fn new(
        router: Weak<Inner>,
        topic: String,
        records: Arc<[Record]>,
        turn: u64,
        room: Option<OwnedSemaphorePermit>,
    ) -> (Arc<Request>, oneshot::Receiver<Vec<RecordResult>>) {
        let (reply, results) = oneshot::channel();
        let open = records.len();
        let none = vec![RecordResult { outcome: None }; open];
        let replies = Replies { results: none, open, reply: Some(reply), room };
        (Arc::new(Request { router, topic, records, turn, replies: Mutex::new(replies) }), results)
    }

    fn done(&self, index: usize, result: RecordResult) {
        let mut replies = self.replies.lock();
        if replies.results[index].outcome.is_none() {
            replies.results[index] = result;
            replies.open -= 1;
        }
        if replies.open == 0 {
            let results = std::mem::take(&mut replies.results);
            replies.room = None;
            if let Some(reply) = replies.reply.take() {
                // Nobody waits any more: the records are delivered all the same.
                let _ = reply.send(results);
            }
        }
    }
}

/// One record on its way.
pub(super) struct Delivery {
    pub(super) request: Arc<Request>,
    pub(super) index: usize,
    /// The clusters where it failed, with the error of the last.
    pub(super) tried: Vec<Arc<str>>,
    settled: bool,
}

impl Delivery {
    /// The delivery of one record, not tried anywhere.
    pub(super) fn new(request: Arc<Request>, index: usize) -> Box<Delivery> {
        Box::new(Delivery { request, index, tried: Vec::new(), settled: false })
    }

    /// What decides between clusters.
    pub(super) fn spread(&self) -> Spread {
        match &self.request.records[self.index].key {
            Some(key) => Spread::Key(key_hash(key)),
            None => Spread::Turn(self.request.turn),
        }
    }

    /// The record's result is known.
    // Its callers hold a box, which goes through librdkafka as a pointer.
    #[expect(clippy::boxed_local)]
    pub(super) fn done(mut self: Box<Self>, result: RecordResult) {
        self.settled = true;
        self.request.done(self.index, result);
    }

    /// A cluster failed to deliver it: it goes to another one, if one will do.
    pub(super) fn failed_at(mut self: Box<Self>, cluster: &Arc<str>, code: RDKafkaErrorCode) {
        if outcome::fault(code) == Fault::Record {
            let large = matches!(
                code,
                RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge
            );
            let kind = if large { ErrorCode::RecordTooLarge } else { ErrorCode::RecordRefused };
            let message = format!("cluster {cluster} refuses the record: {code}");
            return self.done(outcome::failed(kind, false, message));
        }
        self.tried.push(cluster.clone());
        match self.request.router.upgrade() {
            Some(router) => router.send_on(self, Some(code)),
            None => self.done(closing()),
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.settled {
            self.request.done(self.index, closing());
        }
    }
}

pub(super) fn closing() -> RecordResult {
    outcome::failed(ErrorCode::Closing, true, "Prism is going away; the record may have been written")
}
