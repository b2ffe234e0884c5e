//! Columns about a record beside its value: key, timestamp, where it was, a header. Made only
//! when they are asked for. Named `kafka_...`: names with `__` are the engine's own.

use std::ffi::CString;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewBuilder, Int32Builder, Int64Builder, StringViewBuilder, TimestampMicrosecondBuilder,
    UInt64Builder,
};
use arrow::datatypes::{DataType, Field};
use thalweg_engine::record::time_type;
use thalweg_engine::{Error, Result};

use super::client::Message;
use super::split::Partition;
use crate::record_id::{RECORD_ID_HEADER, RecordId};

/// A column about a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataColumn {
    /// `kafka_key`: binary, null when the record has none.
    Key,
    /// `kafka_timestamp`: the record's own or the broker's time, null when there is none.
    Timestamp,
    /// `kafka_cluster`: the cluster's name in the topology.
    Cluster,
    /// `kafka_topic`: the physical topic.
    Topic,
    /// `kafka_partition`: 32 bits.
    Partition,
    /// `kafka_offset`: 64 bits.
    Offset,
    /// A header's last value as binary, null when the record has none of this name. The column is
    /// `kafka_header_` and the name, with `_` for what is no letter or digit.
    Header(String),
    /// The record's id, which tells copies of it apart from other records (F13): three columns,
    /// `kafka_producer` (text), `kafka_epoch` and `kafka_sequence` (64 bits, unsigned). All are
    /// null when the record has no id, or one that cannot be read.
    RecordId,
}

impl MetadataColumn {
    /// The fields that it appends.
    pub fn fields(&self) -> Vec<Field> {
        let one = |name: &str, data_type, nullable| vec![Field::new(name, data_type, nullable)];
        match self {
            MetadataColumn::Key => one("kafka_key", DataType::BinaryView, true),
            MetadataColumn::Timestamp => one("kafka_timestamp", time_type(), true),
            MetadataColumn::Cluster => one("kafka_cluster", DataType::Utf8View, false),
            MetadataColumn::Topic => one("kafka_topic", DataType::Utf8View, false),
            MetadataColumn::Partition => one("kafka_partition", DataType::Int32, false),
            MetadataColumn::Offset => one("kafka_offset", DataType::Int64, false),
            MetadataColumn::Header(header) => {
                let plain = header.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
                one(&format!("kafka_header_{}", plain.collect::<String>()), DataType::BinaryView, true)
            }
            MetadataColumn::RecordId => vec![
                Field::new("kafka_producer", DataType::Utf8View, true),
                Field::new("kafka_epoch", DataType::UInt64, true),
                Field::new("kafka_sequence", DataType::UInt64, true),
            ],
        }
    }
}

// One for each metadata column and batch: their size does not matter.
#[expect(clippy::large_enum_variant)]
enum Builder {
    Key(BinaryViewBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Cluster(StringViewBuilder),
    Topic(StringViewBuilder),
    Partition(Int32Builder),
    Offset(Int64Builder),
    Header(CString, BinaryViewBuilder),
    RecordId { header: CString, producer: StringViewBuilder, epoch: UInt64Builder, sequence: UInt64Builder },
}

fn header_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error::user(format!("{name:?} cannot be the name of a header")))
}

/// Gathers the asked-for columns of a fetch.
pub(crate) struct MetadataBuilders(Vec<Builder>);

impl MetadataBuilders {
    /// Builders for `columns`, in their order.
    ///
    /// # Errors
    /// A user error for a header's name that no record can have.
    pub fn new(columns: &[MetadataColumn]) -> Result<Self> {
        let builder = |column: &MetadataColumn| {
            Ok(match column {
                MetadataColumn::Key => Builder::Key(BinaryViewBuilder::new()),
                MetadataColumn::Timestamp => {
                    Builder::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(time_type()))
                }
                MetadataColumn::Cluster => Builder::Cluster(StringViewBuilder::new()),
                MetadataColumn::Topic => Builder::Topic(StringViewBuilder::new()),
                MetadataColumn::Partition => Builder::Partition(Int32Builder::new()),
                MetadataColumn::Offset => Builder::Offset(Int64Builder::new()),
                MetadataColumn::Header(name) => Builder::Header(header_name(name)?, BinaryViewBuilder::new()),
                MetadataColumn::RecordId => Builder::RecordId {
                    header: header_name(RECORD_ID_HEADER)?,
                    producer: StringViewBuilder::new(),
                    epoch: UInt64Builder::new(),
                    sequence: UInt64Builder::new(),
                },
            })
        };
        Ok(MetadataBuilders(columns.iter().map(builder).collect::<Result<_>>()?))
    }

    /// Adds a record's row.
    #[inline]
    pub fn push(&mut self, message: &Message<'_>, partition: &Partition) {
        for builder in &mut self.0 {
            match builder {
                Builder::Key(keys) => keys.append_option(message.key),
                Builder::Timestamp(times) => {
                    times
                        .append_option(message.details.timestamp_ms().map(|time| time.saturating_mul(1_000)));
                }
                Builder::Cluster(clusters) => clusters.append_value(&partition.cluster),
                Builder::Topic(topics) => topics.append_value(&partition.topic),
                Builder::Partition(partitions) => partitions.append_value(partition.number),
                Builder::Offset(offsets) => offsets.append_value(message.offset),
                Builder::Header(name, values) => values.append_option(message.details.header(name)),
                Builder::RecordId { header, producer, epoch, sequence } => {
                    let id = message.details.header(header).and_then(|header| RecordId::decode(header).ok());
                    producer.append_option(id.map(|id| id.producer));
                    epoch.append_option(id.map(|id| id.epoch));
                    sequence.append_option(id.map(|id| id.sequence));
                }
            }
        }
    }

    /// The columns gathered since the last call.
    pub fn finish(&mut self) -> Vec<ArrayRef> {
        let finish = |builder: &mut Builder| -> Vec<ArrayRef> {
            match builder {
                Builder::Key(builder) | Builder::Header(_, builder) => vec![Arc::new(builder.finish())],
                Builder::Timestamp(builder) => vec![Arc::new(builder.finish())],
                Builder::Cluster(builder) | Builder::Topic(builder) => vec![Arc::new(builder.finish())],
                Builder::Partition(builder) => vec![Arc::new(builder.finish())],
                Builder::Offset(builder) => vec![Arc::new(builder.finish())],
                Builder::RecordId { producer, epoch, sequence, .. } => {
                    vec![Arc::new(producer.finish()), Arc::new(epoch.finish()), Arc::new(sequence.finish())]
                }
            }
        };
        self.0.iter_mut().flat_map(finish).collect()
    }
}
