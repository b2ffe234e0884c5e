//! One consumer of librdkafka, `assign`ed partitions by us and read in bulk.
//!
//! Why not the crate's `BaseConsumer`: it takes one event a message;
//! `rd_kafka_consume_batch_queue` takes what was fetched in one call, at about two thirds of the
//! cost. The rules: a message lives in [`NativeMessages`] and is destroyed with them; callbacks only
//! set flags and wake the task; nothing here blocks on the network.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka::types::{RDKafka, RDKafkaMessage, RDKafkaQueue, RDKafkaRespErr, RDKafkaType};
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys as sys;
use thalweg_engine::operator::Waker;
use thalweg_engine::{Error, Redaction, Result};

use super::locating::Locating;
use super::message::NativeMessages;
use super::text;
use crate::kafka::client::{ConsumerClient, Fetched, Located};
use crate::kafka::client_settings::ClientSettings;

/// How long a client waits for an answer before it calls its cluster lost.
const ANSWER_BOUND: Duration = Duration::from_secs(2);
/// How often it asks while there is none.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How often it asks without an alarm: a network that swallows everything raises none for long.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What the client's callbacks leave behind.
#[derive(Debug)]
pub(crate) struct ClientEvents {
    cluster: String,
    /// Hides the settings in what the client says.
    redaction: Redaction,
    transport_errors: AtomicU64,
    /// How often a connection was lost, or a request not answered.
    alarms: AtomicU64,
    /// How many of these alarms are over: a broker has answered since.
    calmed: AtomicU64,
    /// Whether no broker answers.
    lost: AtomicBool,
    /// Whether a thread asks for an answer.
    asking: AtomicBool,
    /// The consumer is gone: threads that ask end.
    retired: AtomicBool,
    /// Partitions that are being looked for.
    locating: Locating,
}

impl ClientContext for ClientEvents {
    /// They name the client, and nobody reads them here.
    fn stats_raw(&self, _: &[u8]) {}
}

impl ClientEvents {
    /// `code` is a number, not the enum: the broker may know errors that this client does not.
    fn transport_error(&self, code: c_int, reason: &str) {
        // What may be one broker of many, or a network that swallows everything: to be asked.
        const ALARMS: [RDKafkaRespErr; 3] = [
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT,
        ];
        const LOUD: [RDKafkaRespErr; 5] = [
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__AUTHENTICATION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__SSL,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        ];
        let reason = self.redaction.apply(reason);
        self.transport_errors.fetch_add(1, Ordering::Relaxed);
        if ALARMS.iter().any(|alarm| *alarm as c_int == code) {
            self.alarms.fetch_add(1, Ordering::AcqRel);
        }
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN as c_int {
            self.lost.store(true, Ordering::Release);
        }
        if LOUD.iter().any(|loud| *loud as c_int == code) {
            tracing::warn!(cluster = %self.cluster, code, %reason, "Kafka cluster in trouble");
        } else {
            tracing::debug!(cluster = %self.cluster, code, %reason, "Kafka client");
        }
    }
}

/// A consumer that reads what it is assigned. Dropping it may take a while (it closes
/// connections): see [`ConsumerClient::retire`].
pub(crate) struct ClusterConsumer {
    queue: *mut RDKafkaQueue,
    /// What the queue's callback is given; lives until the callback is off.
    waker: Box<Waker>,
    client: Arc<Client<ClientEvents>>,
    /// Room for the messages of one fetch. Between fetches these are dead values that nobody reads.
    slots: Vec<*mut RDKafkaMessage>,
    /// When it was last asked whether somebody answers.
    asked: Instant,
    /// How many messages of those that lay there when the turn began are left.
    turn_left: usize,
}

// SAFETY: librdkafka's handles may be used from any thread; the raw queue pointer is used by one
// owner at a time, behind `&mut self` or in `drop`; the slots' messages live within `fetch`'s loan.
unsafe impl Send for ClusterConsumer {}

impl ClusterConsumer {
    /// Makes the client; connects in the background. `waker` is used when records arrive.
    ///
    /// # Errors
    /// A user error that names the setting which librdkafka refuses.
    pub fn new(cluster: &str, settings: &ClientSettings, waker: &Waker) -> Result<Self> {
        let refused = |error| settings.refused(&error);
        let config = settings.config();
        let native = config.create_native_config().map_err(refused)?;
        // SAFETY: `native` is a valid configuration; the callbacks have the signatures that
        // librdkafka asks for and use only the opaque pointer, which `Client` sets to its context.
        unsafe {
            sys::rd_kafka_conf_set_error_cb(native.ptr(), Some(on_error));
            sys::rd_kafka_conf_set_log_cb(native.ptr(), Some(on_log));
        }
        let events = ClientEvents {
            cluster: cluster.to_string(),
            redaction: settings.redaction(),
            transport_errors: AtomicU64::new(0),
            alarms: AtomicU64::new(0),
            calmed: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            asking: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            locating: Locating::default(),
        };
        let client = Client::new(config, native, RDKafkaType::RD_KAFKA_CONSUMER, events).map_err(refused)?;
        let waker = Box::new(waker.clone());
        // SAFETY: the client is a live consumer with a group's name, so it has a consumer queue;
        // the waker's address is stable and outlives the callback (see `drop`).
        let queue = unsafe {
            sys::rd_kafka_poll_set_consumer(client.native_ptr());
            sys::rd_kafka_queue_get_consumer(client.native_ptr())
        };
        if queue.is_null() {
            return Err(Error::internal(format!("the consumer of cluster {cluster} has no queue")));
        }
        let opaque = std::ptr::from_ref::<Waker>(&waker).cast_mut().cast::<c_void>();
        // SAFETY: as above.
        unsafe { sys::rd_kafka_queue_cb_event_enable(queue, Some(on_nonempty), opaque) };
        Ok(ClusterConsumer {
            queue,
            waker,
            client: Arc::new(client),
            slots: Vec::new(),
            asked: Instant::now(),
            turn_left: 0,
        })
    }
}

impl ConsumerClient for ClusterConsumer {
    fn assign(&mut self, partitions: &[(&str, i32, i64)]) -> Result<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for &(topic, partition, offset) in partitions {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(|error| {
                Error::internal(format!("cannot assign {topic}/{partition} at {offset}")).caused_by(error)
            })?;
        }
        // SAFETY: both pointers are live for the call; the error object is destroyed in `check`.
        check("assign", unsafe { sys::rd_kafka_incremental_assign(self.client.native_ptr(), list.ptr()) })
    }

    fn unassign(&mut self, partitions: &[(&str, i32)]) -> Result<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for &(topic, partition) in partitions {
            list.add_partition(topic, partition);
        }
        // SAFETY: as in `assign`.
        check("unassign", unsafe { sys::rd_kafka_incremental_unassign(self.client.native_ptr(), list.ptr()) })
    }

    fn fetch(&mut self, messages_max: usize) -> Box<dyn Fetched + '_> {
        self.slots.resize(messages_max, std::ptr::null_mut());
        // SAFETY: there is room for `slots.len()` pointers; librdkafka fills the first `count` of them
        // with messages that we own from here on.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue, 0, self.slots.as_mut_ptr(), self.slots.len())
        };
        let count = usize::try_from(count).unwrap_or(0);
        self.turn_left = self.turn_left.saturating_sub(count);
        let ends_a_turn = self.turn_left == 0 || count < self.slots.len();
        if ends_a_turn {
            // SAFETY: the queue is live as long as the consumer; only its length is read.
            self.turn_left = unsafe { sys::rd_kafka_queue_length(self.queue) };
        }
        // SAFETY: as above; they are this consumer's.
        Box::new(unsafe { NativeMessages::new(&mut self.slots[..count], ends_a_turn) })
    }

    fn locate(&mut self, partitions: &[(&str, i32)]) {
        if !self.client.context().locating.want(partitions) {
            return;
        }
        let (client, waker) = (self.client.clone(), self.waker.as_ref().clone());
        let asking = move || {
            let events = client.context();
            events.locating.ask(&client, &waker, &events.retired);
        };
        if let Err(error) = std::thread::Builder::new().name("kafka-locate".into()).spawn(asking) {
            tracing::warn!(%error, "no thread to find out what became of Kafka partitions");
            self.client.context().locating.not_asking();
        }
    }

    fn located(&mut self) -> Vec<Located> {
        // What no thread was there for.
        self.locate(&[]);
        self.client.context().locating.take()
    }

    fn high_watermark(&self, topic: &str, partition: i32) -> Option<i64> {
        let topic = CString::new(topic).ok()?;
        let (mut low, mut high) = (-1_i64, -1_i64);
        // SAFETY: all pointers are live for the call, which only reads what is cached.
        let code = unsafe {
            let client = self.client.native_ptr();
            sys::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition, &mut low, &mut high)
        };
        (code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
    }

    /// After an alarm, and now and then without one, a thread of its own asks until a broker
    /// answers; the waker is used when that changes something.
    fn is_down(&mut self) -> bool {
        let events = self.client.context();
        let alarmed = events.alarms.load(Ordering::Acquire) != events.calmed.load(Ordering::Acquire);
        let due = alarmed || self.asked.elapsed() >= ASK_EVERY;
        if due && !events.asking.swap(true, Ordering::AcqRel) {
            self.asked = Instant::now();
            let (client, waker) = (self.client.clone(), self.waker.as_ref().clone());
            let asking = move || ask_until_answered(&client, &waker);
            if let Err(error) = std::thread::Builder::new().name("kafka-ask".into()).spawn(asking) {
                tracing::warn!(%error, "no thread to ask whether a Kafka cluster is there");
                events.asking.store(false, Ordering::Release);
            }
        }
        events.lost.load(Ordering::Acquire)
    }

    fn take_transport_errors(&mut self) -> u64 {
        self.client.context().transport_errors.swap(0, Ordering::Relaxed)
    }

    /// Ends the consumer on a thread of its own.
    fn retire(self: Box<Self>) {
        let spawned = std::thread::Builder::new().name("kafka-retire".into()).spawn(move || drop(self));
        if let Err(error) = spawned {
            tracing::warn!(%error, "a Kafka consumer is closed in the foreground");
        }
    }
}

/// Asks until a broker answers, or until the consumer is gone.
fn ask_until_answered(client: &Arc<Client<ClientEvents>>, waker: &Waker) {
    let events = client.context();
    while !events.retired.load(Ordering::Acquire) {
        // An alarm after this look is another one.
        let alarms = events.alarms.load(Ordering::Acquire);
        if answers(client) {
            events.calmed.store(alarms, Ordering::Release);
            if events.lost.swap(false, Ordering::AcqRel) {
                waker.wake();
            }
            break;
        }
        if !events.lost.swap(true, Ordering::AcqRel) {
            tracing::warn!(cluster = %events.cluster, "no broker answers");
            waker.wake();
        }
        std::thread::sleep(ASK_AGAIN);
    }
    events.asking.store(false, Ordering::Release);
}

/// Whether a broker answers a question about the topics that the client knows.
fn answers(client: &Client<ClientEvents>) -> bool {
    let mut metadata = std::ptr::null();
    let bound_ms = c_int::try_from(ANSWER_BOUND.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the client is live for the call; what it hands out is ours, and destroyed here.
    unsafe {
        let code =
            sys::rd_kafka_metadata(client.native_ptr(), 0, std::ptr::null_mut(), &mut metadata, bound_ms);
        let answered = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        if answered {
            sys::rd_kafka_metadata_destroy(metadata);
        }
        answered
    }
}

impl Drop for ClusterConsumer {
    fn drop(&mut self) {
        self.client.context().retired.store(true, Ordering::Release);
        // SAFETY: the callback goes before the waker that it is given, the queue before its client.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue, None, std::ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

fn check(what: &str, error: *mut sys::rd_kafka_error_t) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a non-null error object is ours: read, then destroyed.
    let reason = unsafe {
        let reason = text(sys::rd_kafka_error_string(error));
        sys::rd_kafka_error_destroy(error);
        reason
    };
    Err(Error::external(format!("librdkafka refuses to {what}: {reason}")))
}

unsafe extern "C" fn on_nonempty(_client: *mut RDKafka, waker: *mut c_void) {
    // SAFETY: the pointer is the consumer's boxed waker, which outlives the callback.
    unsafe { &*waker.cast::<Waker>() }.wake();
}

unsafe extern "C" fn on_error(
    _client: *mut RDKafka,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: librdkafka hands over a C string and the opaque pointer that `Client::new` set: its
    // context, which lives as long as the client.
    let (reason, events) = unsafe { (text(reason), &*opaque.cast::<ClientEvents>()) };
    events.transport_error(code, &reason);
}

unsafe extern "C" fn on_log(client: *const RDKafka, level: c_int, fac: *const c_char, line: *const c_char) {
    // SAFETY: librdkafka hands over live C strings and its client, whose opaque pointer is null, or
    // what `Client::new` set: its context, which lives as long as the client.
    let (fac, line, name, events) = unsafe {
        let events = sys::rd_kafka_opaque(client).cast::<ClientEvents>().as_ref();
        (text(fac), text(line), text(sys::rd_kafka_name(client)), events)
    };
    let Some(events) = events else { return };
    // The name begins with a setting.
    let (line, name) = (events.redaction.apply(&line), events.redaction.apply(&name));
    match level {
        0..=4 => tracing::debug!(client = %name, fac, %line, "librdkafka warns"),
        _ => tracing::trace!(client = %name, fac, %line, "librdkafka"),
    }
}
