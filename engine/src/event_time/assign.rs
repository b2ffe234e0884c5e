//! Makes watermarks behind an operator: of the rows that come, whatever watermarks come with them.

use std::sync::Arc;

use super::{RowTime, Timed};
use crate::Result;
use crate::graph::Expression;
use crate::metrics::MetricGroup;
use crate::operator::{OpenContext, Operator, OperatorContext, OperatorFactory, OutputIndex, Step};
use crate::record::{Batch, EdgeSchema, Mode};
use crate::state::StateIdentity;
use crate::time::{Micros, RowsReached, Silence, SplitWatermark, Watermark, WatermarkStrategy};

/// The side output of rows that lie too far ahead.
const AHEAD: OutputIndex = OutputIndex(1);

/// Makes each instance's watermark of the rows that it gets; those that come from upstream end here,
/// but for the last. As Flink's `assignTimestampsAndWatermarks` in the middle of a job: rows of
/// several sources come mixed, so the bound must allow for what they are apart.
pub struct AssignWatermarks {
    output: EdgeSchema,
    computed: Option<Arc<dyn Expression>>,
    strategy: WatermarkStrategy,
}

impl AssignWatermarks {
    /// The operator's name.
    pub const NAME: &str = "watermarks";

    /// `output` names the time column, which `computed` appends when it is not there yet.
    pub fn new(
        output: EdgeSchema,
        computed: Option<Arc<dyn Expression>>,
        strategy: WatermarkStrategy,
    ) -> Self {
        AssignWatermarks { output: output.with_watermarks(), computed, strategy }
    }
}

impl OperatorFactory for AssignWatermarks {
    fn name(&self) -> String {
        Self::NAME.to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Assigner {
            column: self.output.event_time()?,
            output: self.output.clone(),
            computed: self.computed.clone(),
            watermark: SplitWatermark::new(&self.strategy),
            reached: RowsReached::default(),
            strategy: self.strategy.clone(),
            time: None,
            silence: Silence::new(0),
            has_ended: false,
        }))
    }

    fn outputs(&self, _inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let mut outputs = vec![self.output.clone()];
        if self.strategy.puts_ahead_aside() {
            outputs.push(self.output.clone());
        }
        Ok(outputs)
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }

    fn takes(&self, _input: usize, mode: &Mode) -> bool {
        // A row that is left out, or set back, would leave what it takes back or replaces.
        *mode == Mode::Append || self.strategy.max_ahead.is_none()
    }

    fn details(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![("watermarks", self.strategy.to_string())])
    }

    fn describe(&self) -> String {
        let computed = self.computed.as_ref().map(|expression| expression.describe());
        format!("watermarks {:?} {computed:?} {:?}", self.output.time, self.strategy)
    }
}

struct Assigner {
    output: EdgeSchema,
    column: usize,
    computed: Option<Arc<dyn Expression>>,
    strategy: WatermarkStrategy,
    /// Made when the instance opens.
    time: Option<RowTime>,
    watermark: SplitWatermark,
    reached: RowsReached,
    silence: Silence,
    has_ended: bool,
}

impl Assigner {
    fn row_time(&self, metrics: &MetricGroup) -> RowTime {
        let schema = self.output.schema.clone();
        RowTime::new(schema, self.column, self.computed.clone(), self.strategy.max_ahead, metrics)
    }

    fn ask_again(&self, idle_after: Micros, cx: &mut OperatorContext<'_>) {
        if let Some(at) = self.silence.ask_at(cx.now(), idle_after) {
            cx.wake_at(at);
        }
    }
}

impl Operator for Assigner {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        self.time = Some(self.row_time(cx.metrics));
        self.silence = Silence::new(cx.now);
        if self.strategy.idle_after.is_some() {
            // A wake-up can be asked for only while an event is dealt with; this makes one.
            cx.waker.wake();
        }
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let Some(time) = &self.time else { return Ok(Step::Done) };
        let Timed { batch, times, ahead, .. } =
            time.take(batch, cx.now(), &mut |times, by| self.reached.limits(times, by))?;
        self.watermark.observe(batch.records(), &times, 0..batch.row_count())?;
        cx.emit(batch);
        if let Some(ahead) = ahead {
            cx.emit_to(AHEAD, ahead);
        }
        self.silence.end(cx.now());
        if let Some(idle_after) = self.strategy.idle_after {
            self.ask_again(idle_after, cx);
        }
        Ok(Step::Done)
    }

    fn watermark(&mut self, watermark: Watermark, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.has_ended |= watermark == Watermark::MAX;
        Ok(Step::Done)
    }

    fn made_watermark(&self) -> Option<Watermark> {
        Some(if self.has_ended { Watermark::MAX } else { self.watermark.current() })
    }

    fn is_idle(&self) -> bool {
        !self.has_ended && self.strategy.idle_after.is_some_and(|after| self.silence.is_idle(after))
    }

    fn wake(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        if let Some(idle_after) = self.strategy.idle_after {
            self.silence.asked(cx.now(), idle_after);
            self.ask_again(idle_after, cx);
        }
        Ok(Step::Done)
    }
}
