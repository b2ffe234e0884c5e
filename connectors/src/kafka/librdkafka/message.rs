//! Messages as librdkafka holds them.

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;

use rdkafka::types::{RDKafkaMessage, RDKafkaRespErr};
use rdkafka_sys as sys;

use super::consumer::ClusterConsumer;
use super::text;
use crate::kafka::client::{Fetched, Message, MessageDetails, MessageKind};

/// Messages of one fetch; destroyed with it.
pub(crate) struct NativeMessages<'a> {
    messages: &'a mut [*mut RDKafkaMessage],
    ends_a_turn: bool,
    _consumer: PhantomData<&'a ClusterConsumer>,
}

impl<'a> NativeMessages<'a> {
    /// # Safety
    /// Each pointer is a live message of the consumer's that the value owns from here on.
    pub unsafe fn new(messages: &'a mut [*mut RDKafkaMessage], ends_a_turn: bool) -> Self {
        NativeMessages { messages, ends_a_turn, _consumer: PhantomData }
    }
}

impl Fetched for NativeMessages<'_> {
    fn len(&self) -> usize {
        self.messages.len()
    }

    fn ends_a_turn(&self) -> bool {
        self.ends_a_turn
    }

    #[inline]
    fn message(&self, index: usize) -> Message<'_> {
        // SAFETY: each of these pointers is a live message that this value owns.
        let message = unsafe { &*self.messages[index] };
        let kind = match message.err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => MessageKind::Record,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => MessageKind::EndOfPartition,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET => MessageKind::OffsetGone,
            _ => MessageKind::Trouble,
        };
        // SAFETY: pointers and lengths describe memory that lives as long as the message.
        let (value, key) =
            unsafe { (bytes(message.payload, message.len), bytes(message.key, message.key_len)) };
        Message {
            kind,
            topic_key: message.rkt as usize,
            partition: message.partition,
            offset: message.offset,
            value,
            key,
            details: message,
        }
    }
}

impl Drop for NativeMessages<'_> {
    fn drop(&mut self) {
        for message in self.messages.iter() {
            // SAFETY: this value owns the message, and no `Message` outlives it.
            unsafe { sys::rd_kafka_message_destroy(*message) };
        }
    }
}

impl MessageDetails for RDKafkaMessage {
    fn topic(&self) -> String {
        if self.rkt.is_null() {
            return String::new();
        }
        // SAFETY: the topic handle is live as long as the message.
        unsafe { text(sys::rd_kafka_topic_name(self.rkt)) }
    }

    fn reason(&self) -> String {
        // SAFETY: the message is live; the text belongs to it or to the library.
        unsafe { text(sys::rd_kafka_message_errstr(self)) }
    }

    fn timestamp_ms(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is live.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(self, &mut kind) };
        (timestamp >= 0).then_some(timestamp)
    }

    fn header(&self, name: &CStr) -> Option<&[u8]> {
        let mut headers = std::ptr::null_mut();
        let (mut value, mut length) = (std::ptr::null(), 0);
        // SAFETY: the message is live; headers and the value live as long as it does.
        unsafe {
            if sys::rd_kafka_message_headers(self, &mut headers) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                return None;
            }
            let code = sys::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut length);
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            bytes(value, length)
        }
    }
}

/// # Safety
/// `start` is null, or `length` bytes from it live for `'a`.
#[inline]
unsafe fn bytes<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}
