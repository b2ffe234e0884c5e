//! The running tumbling window. One state per (key, window start) in the columnar table; word 0 of
//! a state says whether the window has fired.
//!
//! Due windows are worked off in order of time, in steps of bounded output: first those in memory,
//! then those of the same time that only the store holds. Between two steps a barrier may come: what
//! has fired is then deleted or marked in the state, what has not is still due after a restore.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use thalweg_engine::checkpoint::{CheckpointId, SnapshotPart};
use thalweg_engine::metrics::{Counter, Gauge};
use thalweg_engine::operator::{OpenContext, Operator, OperatorContext, OperatorSnapshot, OutputIndex, Step};
use thalweg_engine::record::{Batch, time_values};
use thalweg_engine::state::columnar::{ColumnarSpec, ColumnarState, TimerCursor, Touched, WordKind};
use thalweg_engine::time::{Micros, TIME_RANGE, Watermark};
use thalweg_engine::{Error, Result};

use super::due::DueIndex;
use super::saved_watermark::{SavedWatermark, restored_watermark};
use super::tumbling::{Tumbling, WindowSize};
use crate::aggregate::AggregateSet;
use crate::keyed_aggregate::{key_columns, key_hashes, memory_bytes, not_open};

/// Rows that one step emits.
pub(super) const STEP_ROWS_MAX: usize = 8192;
/// About how many bytes of keys and states one step emits.
const STEP_BYTES_MAX: usize = 1024 * 1024;
/// Windows that one look into the store's timers brings into memory.
const STORED_MAX: usize = 1024;
/// The side output of late rows.
const LATE: OutputIndex = OutputIndex(1);
/// The union state that carries the watermark over a restore.
const WATERMARK_STATE: &str = "window-watermark";

/// Word 0 of a state.
const FIRED: u64 = 1;

/// The windows of one time, on their way out.
struct Firing {
    time: Micros,
    slots: Vec<u32>,
    next: usize,
    /// Where the scan of the store stands, once memory's are done; `None` before.
    stored: Option<TimerCursor>,
}

pub(super) struct TumblingOperator {
    config: Tumbling,
    window: WindowSize,
    set: AggregateSet,
    output: SchemaRef,
    time_column: usize,
    key_types: Vec<DataType>,
    state: Option<ColumnarState>,
    due: DueIndex,
    firing: Option<Firing>,
    watermark: Watermark,
    /// How far time had come before the end of data: the watermark, or the last window that fired.
    reached: Micros,
    touched: Touched,
    starts: Vec<Micros>,
    late_rows: Counter,
    null_time_rows: Counter,
    out_of_range_rows: Counter,
    fired_windows: Counter,
    windows_in_memory: Gauge,
}

impl TumblingOperator {
    pub(super) fn new(
        config: Tumbling,
        window: WindowSize,
        set: AggregateSet,
        output: SchemaRef,
        time_column: usize,
        key_types: Vec<DataType>,
    ) -> Self {
        TumblingOperator {
            config,
            window,
            set,
            output,
            time_column,
            key_types,
            state: None,
            due: DueIndex::default(),
            firing: None,
            watermark: Watermark::MIN,
            reached: Micros::MIN,
            touched: Touched::default(),
            starts: Vec::new(),
            late_rows: Counter::default(),
            null_time_rows: Counter::default(),
            out_of_range_rows: Counter::default(),
            fired_windows: Counter::default(),
            windows_in_memory: Gauge::default(),
        }
    }

    fn times(&self) -> Times {
        Times { window: self.window, lateness: self.config.lateness }
    }

    /// Fills `starts` with each row's window. Rows that are late or have no time are not kept: the
    /// answer then says which are.
    fn assign(&mut self, times: &TimestampMicrosecondArray) -> Option<BooleanArray> {
        self.starts.clear();
        let windows = self.times();
        let mut keep: Option<Vec<bool>> = None;
        let (mut late, mut null, mut out_of_range) = (0, 0, 0);
        // Rows of one window come together more often than not.
        let (mut first, mut last) = (1, 0);
        for row in 0..times.len() {
            let time = times.value(row);
            let start = if times.is_null(row) {
                None
            } else if (first..=last).contains(&time) {
                Some(first)
            } else {
                self.window.start_of(time).filter(|_| TIME_RANGE.contains(&time))
            };
            let is_kept = start.is_some_and(|start| windows.drop(start) > self.watermark.0);
            if let (Some(start), true) = (start, is_kept) {
                (first, last) = (start, start + (self.window.size() - 1));
                self.starts.push(start);
            } else if start.is_some() {
                late += 1;
            } else if times.is_null(row) {
                null += 1;
            } else {
                out_of_range += 1;
            }
            if !is_kept || keep.is_some() {
                keep.get_or_insert_with(|| vec![true; row]).push(is_kept);
            }
        }
        self.late_rows.add(late);
        self.null_time_rows.add(null);
        self.out_of_range_rows.add(out_of_range);
        keep.map(BooleanArray::from)
    }

    /// Adds rows to their windows; the first one's start is the `begin`th of `starts`.
    fn update(&mut self, rows: &Batch, begin: usize, cx: &mut OperatorContext<'_>) -> Result<()> {
        let state = self.state.as_mut().ok_or_else(not_open)?;
        let keys = key_columns(rows.records(), &self.config.key);
        let starts = &self.starts[begin..begin + rows.row_count()];
        state.look_up(&keys, key_hashes(rows)?, starts, rows.rows_bytes(), &mut self.touched)?;
        self.set.update(state, rows.records(), &self.touched.slots)?;
        self.windows_in_memory.set(state.len() as i64);
        let again = self.register()?;
        self.emit(&again, cx)
    }

    /// Registers windows that begin, and answers those of the batch that fired before
    /// and so fire again.
    fn register(&mut self) -> Result<Vec<u32>> {
        let state = self.state.as_mut().ok_or_else(not_open)?;
        let times = Times { window: self.window, lateness: self.config.lateness };
        // A window that begins after its time was up counts as fired: it fires now, as again.
        for &slot in &self.touched.created {
            if times.fire(state.namespace(slot)) <= self.watermark.0 {
                state.rows().get_mut(slot)[0] = FIRED;
            }
        }
        let due_time = |state: &mut ColumnarState, slot: u32| {
            let start = state.namespace(slot);
            let fired = state.rows().get(slot)[0] == FIRED;
            if fired { times.drop(start) } else { times.fire(start) }
        };
        self.due.extend(self.touched.created.iter().map(|&slot| (due_time(state, slot), slot)));
        let live = state.len();
        self.due.compact(live, |time, slot| state.is_live(slot) && times.is_due(state, slot, time));
        if self.config.lateness == 0 {
            return Ok(Vec::new());
        }
        let rows = state.rows();
        let changed = self.touched.changed.iter().copied();
        Ok(changed.filter(|&slot| rows.get(slot)[0] == FIRED).collect())
    }

    /// Emits the windows of slots.
    fn emit(&mut self, slots: &[u32], cx: &mut OperatorContext<'_>) -> Result<()> {
        let state = self.state.as_mut().ok_or_else(not_open)?;
        for slots in slots.chunks(STEP_ROWS_MAX) {
            let mut columns = state.keys(slots)?;
            let starts: Vec<Micros> = slots.iter().map(|&slot| state.namespace(slot)).collect();
            let size = self.window.size();
            let last = starts.iter().max().map_or(Micros::MIN, |start| start + (size - 1));
            self.reached = self.reached.max(last);
            columns.push(time_column(starts.iter().copied()));
            columns.push(time_column(starts.iter().map(|start| start + size)));
            columns.push(time_column(starts.iter().map(|start| start + (size - 1))));
            columns.extend(self.set.emit(state, slots)?);
            cx.emit(Batch::new(RecordBatch::try_new(self.output.clone(), columns)?));
            self.fired_windows.add(slots.len() as u64);
        }
        Ok(())
    }

    /// The next time at which something is due, up to the watermark.
    fn next_firing(&mut self) -> Result<Option<Firing>> {
        let state = self.state.as_ref().ok_or_else(not_open)?;
        let times = [self.due.first_time(), state.first_stored_time()];
        let Some(time) = times.into_iter().flatten().min().filter(|time| *time <= self.watermark.0) else {
            return Ok(None);
        };
        Ok(Some(Firing { time, slots: self.due.take(time), next: 0, stored: None }))
    }

    /// Sorts out which of the candidates fire now, which are dropped, and which are neither: void
    /// slots, and windows that were dealt with already. Ends when `is_full` says so; answers how many
    /// it has looked at.
    fn sort_out(
        &mut self,
        time: Micros,
        candidates: &[u32],
        out: &mut StepOutput,
        is_full: impl Fn(&StepOutput) -> bool,
    ) -> Result<usize> {
        let times = self.times();
        let state = self.state.as_mut().ok_or_else(not_open)?;
        for (index, &slot) in candidates.iter().enumerate() {
            if is_full(out) {
                return Ok(index);
            }
            if !state.is_live(slot) {
                continue;
            }
            let start = state.namespace(slot);
            let mut rows = state.rows();
            let fired = rows.get(slot)[0] == FIRED;
            if !fired && times.fire(start) == time {
                // Marked at once: a slot that stands here twice fires once.
                rows.mark_changed(slot);
                rows.get_mut(slot)[0] = FIRED;
                out.fire.push(slot);
                out.bytes += state.key_bytes(slot);
            } else if fired && times.drop(start) == time && (times.lateness > 0 || !out.fire.contains(&slot))
            {
                // With no lateness only what fired when there was one, which is rare: others go as
                // they fire.
                out.drop.push(slot);
            }
        }
        Ok(candidates.len())
    }

    /// Emits and drops what a step has gathered. A window whose time to be dropped the watermark has
    /// passed too is dropped as soon as it has fired: no later row can be its own.
    fn finish(&mut self, out: &mut StepOutput, cx: &mut OperatorContext<'_>) -> Result<()> {
        self.emit(&out.fire, cx)?;
        let times = self.times();
        let state = self.state.as_mut().ok_or_else(not_open)?;
        out.finished = out.len();
        let fired = out.fire.drain(..).map(|slot| (times.drop(state.namespace(slot)), slot));
        let (over, kept): (Vec<_>, Vec<_>) = fired.partition(|(drop, _)| *drop <= self.watermark.0);
        out.drop.extend(over.into_iter().map(|(_, slot)| slot));
        self.due.extend(kept.into_iter());
        state.delete(&out.drop);
        out.drop.clear();
        Ok(())
    }

    /// Works off what is due, up to a step's rows.
    fn fire(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let mut out = StepOutput::default();
        loop {
            if out.is_full() {
                self.finish(&mut out, cx)?;
                return Ok(Step::More);
            }
            let mut firing = match self.firing.take() {
                Some(firing) => firing,
                None => match self.next_firing()? {
                    Some(firing) => firing,
                    None => break,
                },
            };
            if firing.next < firing.slots.len() {
                let candidates = &firing.slots[firing.next..];
                firing.next += self.sort_out(firing.time, candidates, &mut out, StepOutput::is_full)?;
                self.firing = Some(firing);
                continue;
            }
            if self.fire_stored(&mut firing, &mut out, cx)? {
                self.firing = Some(firing);
            }
        }
        self.finish(&mut out, cx)?;
        let state = self.state.as_mut().ok_or_else(not_open)?;
        state.timers_done(self.watermark.0);
        self.windows_in_memory.set(state.len() as i64);
        Ok(Step::Done)
    }

    /// Brings some windows of this time that only the store holds into memory. Answers whether
    /// there may be more.
    fn fire_stored(
        &mut self,
        firing: &mut Firing,
        out: &mut StepOutput,
        cx: &mut OperatorContext<'_>,
    ) -> Result<bool> {
        let state = self.state.as_mut().ok_or_else(not_open)?;
        if firing.stored.is_none() && state.first_stored_time().is_none_or(|first| first > firing.time) {
            return Ok(false);
        }
        // A look-up may evict: what was gathered has to go out first.
        self.finish(out, cx)?;
        let state = self.state.as_mut().ok_or_else(not_open)?;
        let cursor = firing.stored.get_or_insert_with(|| state.begin_timers(firing.time));
        let limit = state.rows_at_once(STORED_MAX.min(STEP_ROWS_MAX - out.len()), 0);
        let more = state.next_timers(cursor, limit, &mut self.touched)?;
        let found = std::mem::take(&mut self.touched.changed);
        // They are at most what a look-up may bring, and the cursor is past them.
        self.sort_out(firing.time, &found, out, |_| false)?;
        self.touched.changed = found;
        Ok(more)
    }
}

/// When a window fires and when it is dropped.
#[derive(Clone, Copy)]
struct Times {
    window: WindowSize,
    lateness: Micros,
}

impl Times {
    fn fire(self, start: Micros) -> Micros {
        start.saturating_add(self.window.size() - 1)
    }

    fn drop(self, start: Micros) -> Micros {
        self.fire(start).saturating_add(self.lateness)
    }

    /// Whether a window could be due at a time, fired or not.
    fn is_due(self, state: &ColumnarState, slot: u32, time: Micros) -> bool {
        let start = state.namespace(slot);
        self.fire(start) == time || self.drop(start) == time
    }
}

/// What a step has gathered.
#[derive(Default)]
struct StepOutput {
    fire: Vec<u32>,
    drop: Vec<u32>,
    /// What the step has emitted and dropped already.
    finished: usize,
    /// Bytes of the keys and states that fire.
    bytes: usize,
}

impl StepOutput {
    fn len(&self) -> usize {
        self.finished + self.fire.len() + self.drop.len()
    }

    fn is_full(&self) -> bool {
        self.len() >= STEP_ROWS_MAX || self.bytes >= STEP_BYTES_MAX
    }
}

fn time_column(times: impl Iterator<Item = Micros>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("+00:00"))
}

impl Operator for TumblingOperator {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let lateness = format!("lateness {}", self.config.lateness);
        let last = self.window.size() - 1;
        let mut timer_offsets = vec![last];
        if self.config.lateness > 0 {
            timer_offsets.push(last.saturating_add(self.config.lateness));
        }
        let mut words = vec![WordKind::Plain];
        words.extend_from_slice(self.set.words());
        let spec = ColumnarSpec {
            key: self.key_types.clone(),
            namespaced: true,
            words,
            timer_offsets,
            describe: format!(
                "tumbling windows of {} us, {lateness} us: {}",
                self.window.size(),
                self.set.describe()
            ),
            describe_timers: lateness,
            bytes_max: memory_bytes(self.config.memory_bytes, cx),
        };
        self.late_rows = cx.metrics.counter("window_late_rows_total", "Rows that came too late.");
        self.null_time_rows =
            cx.metrics.counter("window_null_time_rows_total", "Rows that have no event time.");
        self.out_of_range_rows = cx.metrics.counter(
            "window_time_out_of_range_rows_total",
            "Rows whose event time is not in the years 1 to 9999.",
        );
        self.fired_windows = cx.metrics.counter("window_fired_total", "Windows emitted, again ones too.");
        self.windows_in_memory = cx.metrics.gauge("state_keys_in_memory", "Keys whose state is in memory.");
        self.watermark = restored_watermark(cx.restored.items(WATERMARK_STATE))?;
        self.reached = self.watermark.0;
        self.state = Some(ColumnarState::open(cx, &spec)?);
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let times = time_values(batch.records(), self.time_column)?.clone();
        let kept = match self.assign(&times) {
            None => batch,
            Some(keep) => {
                let late = arrow::compute::not(&keep)?;
                let rows = filter_record_batch(batch.records(), &late)?;
                cx.emit_to(LATE, Batch::new(rows));
                let hashes = arrow::compute::filter(
                    batch.key_hashes().ok_or_else(|| Error::internal("rows without keys"))?,
                    &keep,
                )?;
                Batch::new(filter_record_batch(batch.records(), &keep)?)
                    .with_key_hashes(UInt64Array::from(hashes.to_data()))
            }
        };
        if kept.row_count() == 0 {
            return Ok(Step::Done);
        }
        let (rows, bytes, mut begin) = (kept.row_count(), kept.rows_bytes(), 0);
        while begin < rows {
            let state = self.state.as_ref().ok_or_else(not_open)?;
            let count = state.rows_at_once(rows - begin, bytes / rows * (rows - begin));
            let part = if count == rows { kept.clone() } else { kept.slice(begin, count) };
            self.update(&part, begin, cx)?;
            begin += count;
        }
        Ok(Step::Done)
    }

    fn watermark(&mut self, watermark: Watermark, cx: &mut OperatorContext<'_>) -> Result<Step> {
        // After a restore the sources' watermarks may begin below the one that was saved.
        self.watermark = self.watermark.max(watermark);
        if self.watermark != Watermark::MAX {
            self.reached = self.reached.max(self.watermark.0);
        }
        self.fire(cx)
    }

    /// A window is in the state until it has fired, and the saved watermark fires what is left.
    fn is_interruptible(&self) -> bool {
        true
    }

    fn resume(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.fire(cx)
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        let mut snapshot = self.state.as_mut().ok_or_else(not_open)?.snapshot()?;
        let items = vec![SavedWatermark { watermark: self.watermark.0, reached: self.reached }.to_bytes()];
        snapshot.parts.push(SnapshotPart::Union { name: WATERMARK_STATE.to_string(), items });
        Ok(snapshot)
    }
}
