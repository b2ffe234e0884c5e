//! Results of records, and what a client's error means for a record. Pure.

use rdkafka::error::RDKafkaErrorCode;
use thalweg_proto::prism::{Acknowledged, ErrorCode, Failed, Record, RecordResult, record_result::Outcome};

/// What a record costs beside its key, value and headers: the client's and our own bookkeeping.
const RECORD_OVERHEAD_BYTES: usize = 256;

/// The result of a record that a cluster holds.
pub(super) fn acknowledged(cluster: &str, partition: i32, offset: i64) -> RecordResult {
    let ok = Acknowledged { cluster: cluster.to_owned(), partition, offset };
    RecordResult { outcome: Some(Outcome::Ok(ok)) }
}

/// The result of a record that failed.
pub(super) fn failed(code: ErrorCode, retryable: bool, message: impl Into<String>) -> RecordResult {
    let error = Failed { code: code.into(), message: message.into(), retryable };
    RecordResult { outcome: Some(Outcome::Error(error)) }
}

/// Bytes of a record's key, value and headers.
pub(super) fn record_bytes(record: &Record) -> usize {
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let headers = record.headers.iter().map(|header| header.key.len() + length(&header.value));
    let id = record.id.as_ref().map_or(0, |id| id.producer.len() + 40);
    length(&record.key) + length(&record.value) + headers.sum::<usize>() + id
}

/// What a record takes of the room for records in flight.
pub(super) fn held_bytes(record: &Record) -> usize {
    record_bytes(record) + RECORD_OVERHEAD_BYTES
}

/// Whose fault a failed delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The cluster's: another one may do.
    Cluster,
    /// The topic's in that cluster: another one may do, and the cluster is well.
    Topic,
    /// The record's: none will do.
    Record,
}

/// Whose fault an error of the client is.
pub(super) fn fault(code: RDKafkaErrorCode) -> Fault {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidTimestamp
        | Code::InvalidRecord => Fault::Record,
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed
        | Code::PolicyViolation => Fault::Topic,
        _ => Fault::Cluster,
    }
}
