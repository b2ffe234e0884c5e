//! Columns about a record beside its value: key, timestamp, where it was, a header. Made only
//! when they are asked for. Named `kafka_...`: names with `__` are the engine's own.

use std::ffi::CString;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewBuilder, Int32Builder, Int64Builder, StringViewBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field};
use thalweg_engine::record::time_type;
use thalweg_engine::{Error, Result};

use super::consumer::Message;
use super::split::Partition;

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
}

impl MetadataColumn {
    /// The column's name.
    pub fn name(&self) -> String {
        match self {
            MetadataColumn::Key => "kafka_key".into(),
            MetadataColumn::Timestamp => "kafka_timestamp".into(),
            MetadataColumn::Cluster => "kafka_cluster".into(),
            MetadataColumn::Topic => "kafka_topic".into(),
            MetadataColumn::Partition => "kafka_partition".into(),
            MetadataColumn::Offset => "kafka_offset".into(),
            MetadataColumn::Header(header) => {
                let plain = header.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
                format!("kafka_header_{}", plain.collect::<String>())
            }
        }
    }

    /// The column's field.
    pub fn field(&self) -> Field {
        let (data_type, nullable) = match self {
            MetadataColumn::Key | MetadataColumn::Header(_) => (DataType::BinaryView, true),
            MetadataColumn::Timestamp => (time_type(), true),
            MetadataColumn::Cluster | MetadataColumn::Topic => (DataType::Utf8View, false),
            MetadataColumn::Partition => (DataType::Int32, false),
            MetadataColumn::Offset => (DataType::Int64, false),
        };
        Field::new(self.name(), data_type, nullable)
    }
}

enum Builder {
    Key(BinaryViewBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Cluster(StringViewBuilder),
    Topic(StringViewBuilder),
    Partition(Int32Builder),
    Offset(Int64Builder),
    Header(CString, BinaryViewBuilder),
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
                MetadataColumn::Header(name) => {
                    let name = CString::new(name.as_str())
                        .map_err(|_| Error::user(format!("{name:?} cannot be the name of a header")))?;
                    Builder::Header(name, BinaryViewBuilder::new())
                }
            })
        };
        Ok(MetadataBuilders(columns.iter().map(builder).collect::<Result<_>>()?))
    }

    /// Adds a record's row.
    #[inline]
    pub fn push(&mut self, message: Message<'_>, partition: &Partition) {
        for builder in &mut self.0 {
            match builder {
                Builder::Key(keys) => keys.append_option(message.key()),
                Builder::Timestamp(times) => {
                    times.append_option(message.timestamp_ms().map(|time| time.saturating_mul(1_000)));
                }
                Builder::Cluster(clusters) => clusters.append_value(&partition.cluster),
                Builder::Topic(topics) => topics.append_value(&partition.topic),
                Builder::Partition(partitions) => partitions.append_value(partition.number),
                Builder::Offset(offsets) => offsets.append_value(message.offset()),
                Builder::Header(name, values) => values.append_option(message.header(name)),
            }
        }
    }

    /// The columns gathered since the last call.
    pub fn finish(&mut self) -> Vec<ArrayRef> {
        let finish = |builder: &mut Builder| -> ArrayRef {
            match builder {
                Builder::Key(builder) | Builder::Header(_, builder) => Arc::new(builder.finish()),
                Builder::Timestamp(builder) => Arc::new(builder.finish()),
                Builder::Cluster(builder) | Builder::Topic(builder) => Arc::new(builder.finish()),
                Builder::Partition(builder) => Arc::new(builder.finish()),
                Builder::Offset(builder) => Arc::new(builder.finish()),
            }
        };
        self.0.iter_mut().map(finish).collect()
    }
}
