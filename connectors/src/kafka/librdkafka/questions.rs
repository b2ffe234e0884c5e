//! Questions to a cluster that wait for the answer, over any client of librdkafka.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys as sys;
use thalweg_engine::{Error, Result};

use super::text;
use crate::kafka::client::{PartitionMetadata, Place, TopicId, TopicMetadata};

/// An object of librdkafka's that is destroyed with its owner.
struct Owned<T> {
    pointer: *mut T,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.pointer.is_null() {
            // SAFETY: whoever made the owner gave it a live object of its own and what ends it.
            unsafe { (self.destroy)(self.pointer) };
        }
    }
}

fn milliseconds(time: Duration) -> c_int {
    c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX)
}

/// A topic as the cluster has it now; without its id where brokers cannot be asked for that, as
/// those of librdkafka's mock cluster.
///
/// # Errors
/// An external error when no broker answers within `timeout` to either of two questions.
pub(super) fn topic<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<TopicMetadata> {
    match describe_topic(client, topic, timeout) {
        Ok(present @ TopicMetadata::Present { .. }) => Ok(present),
        other => listed(client, topic, timeout).map_or(other, Ok),
    }
}

/// A topic with its partitions as every version of the protocol lists them.
fn listed<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Option<TopicMetadata> {
    let metadata = client.fetch_metadata(Some(topic), timeout).ok()?;
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none())?;
    let partition = |partition: &rdkafka::metadata::MetadataPartition| PartitionMetadata {
        number: partition.id(),
        leader: Some(partition.leader()).filter(|leader| *leader >= 0),
    };
    let partitions: Vec<_> = found.partitions().iter().map(partition).collect();
    (!partitions.is_empty()).then_some(TopicMetadata::Present { id: None, partitions })
}

/// A topic with its id (KIP-516).
fn describe_topic<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<TopicMetadata> {
    let unreached = |reason: &str| Error::external(format!("no metadata: {reason}"));
    let name = CString::new(topic).map_err(|_| Error::user(format!("{topic:?} cannot be a topic")))?;
    let mut names = [name.as_ptr()];
    let mut refused: [c_char; 128] = [0; 128];
    // SAFETY: the client is live for the whole call; what is made here is owned here, in an order
    // that destroys the event before its queue; the names outlive the call that copies them.
    unsafe {
        let rk = client.native_ptr();
        let queue = Owned { pointer: sys::rd_kafka_queue_new(rk), destroy: sys::rd_kafka_queue_destroy };
        let describe = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Owned {
            pointer: sys::rd_kafka_AdminOptions_new(rk, describe),
            destroy: sys::rd_kafka_AdminOptions_destroy,
        };
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options.pointer,
            milliseconds(timeout),
            refused.as_mut_ptr(),
            refused.len(),
        );
        let topics = Owned {
            pointer: sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
            destroy: sys::rd_kafka_TopicCollection_destroy,
        };
        sys::rd_kafka_DescribeTopics(rk, topics.pointer, options.pointer, queue.pointer);
        let event = Owned {
            pointer: sys::rd_kafka_queue_poll(queue.pointer, milliseconds(timeout)),
            destroy: sys::rd_kafka_event_destroy,
        };
        if event.pointer.is_null() {
            return Err(unreached("no broker answers in time"));
        }
        if sys::rd_kafka_event_error(event.pointer) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(unreached(&text(sys::rd_kafka_event_error_string(event.pointer))));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.pointer);
        if result.is_null() {
            return Err(Error::internal("librdkafka answers with another event"));
        }
        let mut count = 0;
        let found = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count == 0 {
            return Ok(TopicMetadata::Absent("it is not listed".to_string()));
        }
        Ok(described(*found))
    }
}

/// # Safety
/// `topic` is live.
unsafe fn described(topic: *const sys::rd_kafka_TopicDescription_t) -> TopicMetadata {
    // SAFETY: what hangs on the description lives as long as it does, and is only read.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if sys::rd_kafka_error_code(error) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return TopicMetadata::Absent(text(sys::rd_kafka_error_string(error)));
        }
        let uuid = sys::rd_kafka_TopicDescription_topic_id(topic);
        let id = (!uuid.is_null()).then(|| {
            let high = sys::rd_kafka_Uuid_most_significant_bits(uuid).to_be_bytes();
            let low = sys::rd_kafka_Uuid_least_significant_bits(uuid).to_be_bytes();
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&high);
            bytes[8..].copy_from_slice(&low);
            TopicId(bytes)
        });
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let partition = |index| {
            let partition = *partitions.add(index);
            let leader = sys::rd_kafka_TopicPartitionInfo_leader(partition);
            PartitionMetadata {
                number: sys::rd_kafka_TopicPartitionInfo_partition(partition),
                leader: (!leader.is_null())
                    .then(|| sys::rd_kafka_Node_id(leader))
                    .filter(|leader| *leader >= 0),
            }
        };
        TopicMetadata::Present {
            id: id.filter(|id| id.0 != [0; 16]),
            partitions: (0..count).map(partition).collect(),
        }
    }
}

/// The offsets of a place in each of these partitions.
///
/// # Errors
/// An external error when no broker answers within `timeout`.
pub(super) fn offsets<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partitions: &[i32],
    place: Place,
    timeout: Duration,
) -> Result<BTreeMap<i32, i64>> {
    // The protocol's own marks for "oldest" and "next" are what these two are on the wire.
    let asked = match place {
        Place::Oldest => Offset::Beginning,
        Place::End => Offset::End,
        Place::Timestamp(milliseconds) => Offset::Offset(milliseconds),
    };
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, *partition, asked)
            .map_err(|error| Error::internal("cannot ask for offsets").caused_by(error))?;
    }
    // SAFETY: client and list are live for the call, which writes the answers into the list.
    let code =
        unsafe { sys::rd_kafka_offsets_for_times(client.native_ptr(), list.ptr(), milliseconds(timeout)) };
    if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        let code = rdkafka::error::RDKafkaErrorCode::from(code);
        return Err(Error::external(format!("no offsets of topic {topic}: {code}")));
    }
    let offset = |at| match at {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    let answered = list.elements();
    let good = answered.iter().filter(|element| element.error().is_ok());
    Ok(good.filter_map(|element| Some((element.partition(), offset(element.offset())?))).collect())
}
