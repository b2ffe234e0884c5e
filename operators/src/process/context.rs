//! What a process function may reach for.

use arrow::array::Array;
use arrow::datatypes::DataType;
use thalweg_engine::metrics::MetricGroup;
use thalweg_engine::operator::SubtaskInfo;
use thalweg_engine::record::{ColumnType, Record, Timestamp};
use thalweg_engine::state::key_encoding::decode_key;
use thalweg_engine::state::{KeyedState, ListState, MapKey, MapState, StateValue, ValueState};
use thalweg_engine::time::{Micros, Watermark};
use thalweg_engine::{Error, Result};

use crate::typed::{Out, SideOutput};

/// Which time a timer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimeDomain {
    /// It fires when the watermark has reached it.
    Event,
    /// It fires when the machine's clock has reached it.
    Processing,
}

/// A timer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// When it was meant to fire.
    pub time: Timestamp,
    /// Which time it goes by.
    pub domain: TimeDomain,
    /// What distinguishes it from other timers of its key at the same time: empty, unless it was
    /// registered by `cx.state().register_event_timer(at, namespace)`.
    pub namespace: Vec<u8>,
}

/// What a process function may reach for when it opens: it registers its states here.
pub struct ProcessOpen<'a> {
    pub(super) state: &'a mut KeyedState,
    pub(super) info: &'a SubtaskInfo,
    pub(super) metrics: &'a MetricGroup,
}

impl ProcessOpen<'_> {
    /// Registers a state that holds one value for each key.
    ///
    /// # Errors
    /// When the name is taken, or was used with another kind or type in the restored checkpoint.
    pub fn value<T>(&mut self, name: &str) -> Result<ValueState<T>>
    where
        T: StateValue,
    {
        self.state.value(name)
    }

    /// Registers a state that holds a list for each key.
    ///
    /// # Errors
    /// As [`ProcessOpen::value`].
    pub fn list<T>(&mut self, name: &str) -> Result<ListState<T>>
    where
        T: StateValue,
    {
        self.state.list(name)
    }

    /// Registers a state that holds an ordered map for each key.
    ///
    /// # Errors
    /// As [`ProcessOpen::value`].
    pub fn map<K, V>(&mut self, name: &str) -> Result<MapState<K, V>>
    where
        K: MapKey,
        V: StateValue,
    {
        self.state.map(name)
    }

    /// Who this instance is.
    pub fn info(&self) -> &SubtaskInfo {
        self.info
    }

    /// Counters and gauges of this instance.
    pub fn metrics(&self) -> &MetricGroup {
        self.metrics
    }
}

/// What a process function may do with a row or a timer of the current key.
pub struct ProcessContext<'a, U: Record> {
    pub(super) state: &'a mut KeyedState,
    pub(super) out: &'a mut Out<U>,
    pub(super) key_types: &'a [DataType],
    pub(super) time: Option<Micros>,
    pub(super) watermark: Watermark,
    /// Whether any watermark ever comes.
    pub(super) has_watermarks: bool,
    pub(super) now: Micros,
}

impl<U: Record> ProcessContext<'_, U> {
    /// Emits a record.
    pub fn emit(&mut self, record: U) {
        self.out.emit(record);
    }

    /// Emits a row that lies elsewhere, without making a record of it first.
    pub fn emit_row(&mut self, row: U::Row<'_>) {
        self.out.emit_row(row);
    }

    /// Emits a record on a side output. It must be among those that the function declares:
    /// otherwise the step fails with a user error.
    pub fn emit_to<S: Record>(&mut self, side: SideOutput<S>, record: S) {
        self.out.emit_to(side, record);
    }

    /// Emits a row that lies elsewhere on a side output, as [`ProcessContext::emit_to`] does.
    pub fn emit_row_to<S: Record>(&mut self, side: SideOutput<S>, row: S::Row<'_>) {
        self.out.emit_row_to(side, row);
    }

    /// The states of the current key: `self.last.get(cx.state())`.
    pub fn state(&mut self) -> &mut KeyedState {
        self.state
    }

    /// One part of the current key: `cx.key::<String>(0)?` is the first key column's value. Rows
    /// have their key in a column; this is for timers. It decodes the key.
    ///
    /// # Errors
    /// A user error when the key has no such part, or the part is of another type.
    pub fn key<K: ColumnType>(&self, part: usize) -> Result<K> {
        let columns = decode_key(self.state.current_key(), self.key_types)?;
        let Some(column) = columns.get(part) else {
            return Err(Error::user(format!("the key has {} parts, there is no part {part}", columns.len())));
        };
        let typed = column.as_any().downcast_ref::<K::Array>().filter(|_| K::NULLABLE || column.is_valid(0));
        let typed = typed.ok_or_else(|| {
            let wanted = std::any::type_name::<K>();
            Error::user(format!("part {part} of the key is a {}, not a {wanted}", column.data_type()))
        })?;
        Ok(K::own(K::read(typed, 0)))
    }

    /// The event time of the row (when the edge names a time column and it is not null), or the
    /// time of the timer.
    pub fn time(&self) -> Option<Timestamp> {
        self.time.map(Timestamp)
    }

    /// The watermark: no row at or before it is still to come, but for late ones.
    pub fn watermark(&self) -> Timestamp {
        Timestamp(self.watermark.0)
    }

    /// Whether the row came too late: its event time is at or before the watermark.
    pub fn is_late(&self) -> bool {
        self.time.is_some_and(|time| time <= self.watermark.0)
    }

    /// The processing time.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.now)
    }

    /// Asks for `on_timer` for the current key once the watermark has reached `at`. The same time
    /// asked for twice fires once. A time that the watermark has passed already fires when the
    /// watermark next rises; one asked for in `on_timer` fires in the same go.
    ///
    /// # Errors
    /// A user error when the stream has no watermarks, for the timer would not fire before the end
    /// of data; an external error of the store.
    pub fn register_event_timer(&mut self, at: Timestamp) -> Result<()> {
        if !self.has_watermarks {
            return Err(Error::user(
                "an event-time timer was asked for, and the stream has no watermarks: say how they are made",
            ));
        }
        self.state.register_event_timer(at.0, b"")
    }

    /// Takes an event-time timer of the current key back; none there is no error.
    ///
    /// # Errors
    /// An external error of the store.
    pub fn delete_event_timer(&mut self, at: Timestamp) -> Result<()> {
        self.state.delete_event_timer(at.0, b"")
    }

    /// Asks for `on_timer` for the current key once the clock has reached `at`.
    ///
    /// # Errors
    /// An external error of the store.
    pub fn register_processing_timer(&mut self, at: Timestamp) -> Result<()> {
        self.state.register_processing_timer(at.0, b"")
    }

    /// Takes a processing-time timer of the current key back; none there is no error.
    ///
    /// # Errors
    /// An external error of the store.
    pub fn delete_processing_timer(&mut self, at: Timestamp) -> Result<()> {
        self.state.delete_processing_timer(at.0, b"")
    }
}
