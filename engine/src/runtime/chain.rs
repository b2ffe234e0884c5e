//! A chain: operators fused into one task, called one after the other without a queue between.
//!
//! The chain is a tree of operators below a head (a source, or the operator behind the input
//! gate). What is left to do is a stack: the newest comes first, so a batch runs down to the
//! chain's ends before the operator that emitted it goes on, and a watermark is forwarded only
//! when the operator is done with it. Between two steps the task may look at its outputs, so the
//! rows in memory are bounded by one step's.

use std::sync::Arc;

use super::{Doing, EdgeWriter, TaskProbe};
use crate::graph::Uid;
use crate::metrics::Counter;
use crate::operator::{Operator, OperatorContext, OutputIndex, Step};
use crate::record::Batch;
use crate::time::{Micros, Watermark};
use crate::{Context, Result};

/// Where an output's batches go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To an operator of the same chain, as its only input.
    Operator(usize),
    /// To an edge of the task.
    Edge(usize),
}

/// An operator in its place.
pub struct ChainLink {
    /// Its stable name.
    pub uid: Uid,
    /// What it is, for errors.
    pub name: String,
    /// The instance.
    pub operator: Box<dyn Operator>,
    /// Whether it has said what its state is; without that it may add nothing to a checkpoint.
    pub keeps_state: bool,
    /// Where its outputs go: by output index.
    pub targets: Vec<Vec<Target>>,
    /// Counts the rows that it takes.
    pub rows_in: Counter,
    /// Counts the rows that it emits.
    pub rows_out: Counter,
    /// Counts the rows that it emits on side outputs that nobody reads.
    pub rows_unread: Counter,
}

enum Work {
    Process {
        link: usize,
        input: usize,
        batch: Batch,
    },
    Watermark {
        link: usize,
        watermark: Watermark,
    },
    ForwardWatermark {
        link: usize,
    },
    /// Forwards what the operator held back of a watermark, as far as it lets it pass.
    ReleaseWatermark {
        link: usize,
    },
    Flush {
        link: usize,
    },
    ForwardFlush {
        link: usize,
    },
    EndOfData {
        link: usize,
        input: usize,
    },
    ForwardEndOfData {
        link: usize,
    },
    Wake {
        link: usize,
    },
    Resume {
        link: usize,
        cause: Cause,
    },
}

/// What an operator is resumed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Watermark,
    Other,
}

/// The operators of one task.
pub struct Chain {
    links: Vec<ChainLink>,
    /// Where a source's outputs go; empty when the head is `links[0]`.
    head: Vec<Vec<Target>>,
    /// Counts the rows that a source emits on side outputs that nobody reads.
    head_unread: Counter,
    work: Vec<Work>,
    emitted: Vec<(OutputIndex, Batch)>,
    wake_at: Vec<Option<Micros>>,
    /// The watermark that each operator was given, and the one that was passed on behind it.
    watermarks: Vec<Watermark>,
    passed_on: Vec<Watermark>,
    /// Which operators are firing for a watermark: it is passed on when they are done.
    firing: Vec<bool>,
    /// Whether an operator waits for work elsewhere; the newest piece of work is its resumption.
    parked: bool,
    /// Whether a waker was used while one waited: the others have not heard of it.
    missed_wake: bool,
    /// How much work lay there when a flush began: it is over when no more is left.
    flushing_above: Option<usize>,
    /// Inputs of `links[0]` that have not ended.
    open_inputs: usize,
    /// Which operators have forwarded the end of data: they are woken no more.
    ended: Vec<bool>,
    /// Where it is said which operator is called.
    probe: Arc<TaskProbe>,
    /// Which operators are idle by themselves, and whether that has changed since it was looked at.
    idle: Vec<bool>,
    idle_changed: bool,
}

impl Chain {
    /// A chain. With a source as head, `head` says where its outputs go; otherwise it is empty and
    /// `links[0]` takes `inputs` inputs.
    pub fn new(links: Vec<ChainLink>, head: Vec<Vec<Target>>, inputs: usize) -> Chain {
        let count = links.len();
        Chain {
            links,
            head,
            head_unread: Counter::default(),
            work: Vec::new(),
            emitted: Vec::new(),
            wake_at: vec![None; count],
            watermarks: vec![Watermark::MIN; count],
            passed_on: vec![Watermark::MIN; count],
            firing: vec![false; count],
            parked: false,
            missed_wake: false,
            flushing_above: None,
            open_inputs: inputs,
            ended: vec![false; count],
            probe: Arc::default(),
            idle: vec![false; count],
            idle_changed: false,
        }
    }

    /// Has `probe` know which operator is called.
    pub fn show_on(&mut self, probe: Arc<TaskProbe>) {
        probe.name_operators(self.links.iter().map(|link| format!("{} ({})", link.uid, link.name)).collect());
        self.probe = probe;
    }

    /// Says what counts the rows that a source emits on side outputs that nobody reads.
    #[must_use]
    pub fn counting_unread(mut self, rows: Counter) -> Chain {
        self.head_unread = rows;
        self
    }

    /// The operators.
    pub fn links_mut(&mut self) -> &mut [ChainLink] {
        &mut self.links
    }

    /// Whether everything given to the chain is dealt with.
    pub fn is_done(&self) -> bool {
        self.work.is_empty()
    }

    /// Whether nothing can be done before an operator's waker is used.
    pub fn is_parked(&self) -> bool {
        self.parked
    }

    /// A waker was used: goes on where an operator waited.
    pub fn unpark(&mut self) {
        self.missed_wake |= std::mem::replace(&mut self.parked, false);
    }

    /// Whether a waker was used while an operator waited, since the last look.
    pub fn take_missed_wake(&mut self) -> bool {
        std::mem::take(&mut self.missed_wake)
    }

    /// Has the operators emit what they gathered, each before those behind it.
    pub fn push_flush(&mut self) {
        self.flushing_above = Some(self.work.len());
        if self.head.is_empty() {
            self.work.push(Work::Flush { link: 0 });
        } else {
            for targets in self.head.clone() {
                self.forward_flush(&targets);
            }
        }
    }

    /// Whether the flush that was begun is over.
    pub fn is_flushed(&self) -> bool {
        self.flushing_above.is_none_or(|floor| self.work.len() <= floor)
    }

    /// Whether an operator became idle or active by itself since the last look.
    pub fn take_idle_change(&mut self) -> bool {
        std::mem::take(&mut self.idle_changed)
    }

    /// Which of `count` edges lie behind an operator that is idle by itself.
    pub fn idle_edges(&self, count: usize) -> Vec<bool> {
        let mut edges = vec![false; count];
        let mut to_see: Vec<(Target, bool)> = match self.head.is_empty() {
            true => vec![(Target::Operator(0), false)],
            false => self.head.iter().flatten().map(|&target| (target, false)).collect(),
        };
        while let Some((target, is_idle)) = to_see.pop() {
            match target {
                Target::Edge(edge) => edges[edge] = is_idle,
                Target::Operator(link) => {
                    let is_idle = is_idle || self.idle[link];
                    to_see.extend(self.links[link].targets.iter().flatten().map(|&target| (target, is_idle)));
                }
            }
        }
        edges
    }

    /// Whether an operator has no room for more rows.
    pub fn is_full(&self) -> bool {
        self.links.iter().any(|link| link.operator.is_full())
    }

    /// Whether operators are firing for a watermark and nothing else is left: a barrier may be
    /// taken now, ahead of the rest and of the watermark, if they all say so.
    pub fn is_interruptible(&self) -> bool {
        let mut is_firing = false;
        self.work.iter().all(|work| match work {
            Work::Watermark { .. } | Work::ForwardWatermark { .. } => true,
            Work::Resume { link, cause: Cause::Watermark } => {
                is_firing = true;
                self.links[*link].operator.is_interruptible()
            }
            _ => false,
        }) && is_firing
    }

    /// Gives a batch to the head operator.
    pub fn push_batch(&mut self, input: usize, batch: Batch) {
        self.work.push(Work::Process { link: 0, input, batch });
    }

    /// Gives a source's batch to whom it may concern.
    ///
    /// # Errors
    /// An internal error from the edges.
    pub fn push_source_batch(
        &mut self,
        output: OutputIndex,
        batch: Batch,
        edges: &mut [EdgeWriter],
    ) -> Result<()> {
        let targets = self.head.get(usize::from(output.0)).cloned().unwrap_or_default();
        if targets.is_empty() && output != OutputIndex::MAIN {
            self.head_unread.add(batch.row_count() as u64);
        }
        self.dispatch(&targets, batch, edges)
    }

    /// Gives the head operator, or those behind the source, a watermark.
    pub fn push_watermark(&mut self, watermark: Watermark, edges: &mut [EdgeWriter]) {
        if self.head.is_empty() {
            self.work.push(Work::Watermark { link: 0, watermark });
        } else {
            for targets in self.head.clone() {
                self.forward_watermark(&targets, watermark, edges);
            }
        }
    }

    /// Tells the head operator, or those behind the source, that an input has no more rows.
    ///
    /// # Errors
    /// An internal error from the edges.
    pub fn push_end_of_data(&mut self, input: usize, edges: &mut [EdgeWriter]) -> Result<()> {
        if self.head.is_empty() {
            self.open_inputs -= 1;
            self.work.push(Work::EndOfData { link: 0, input });
            return Ok(());
        }
        for targets in self.head.clone() {
            self.forward_end_of_data(&targets, edges)?;
        }
        Ok(())
    }

    /// Whether the head operator has forwarded the end of its data.
    pub fn has_ended(&self) -> bool {
        self.work.is_empty() && self.ended.first().is_none_or(|&ended| ended)
    }

    /// Wakes the operators whose time has come. Returns whether there were any.
    pub fn push_due(&mut self, now: Micros) -> bool {
        let mut any = false;
        for link in (0..self.links.len()).rev() {
            if !self.ended[link] && self.wake_at[link].is_some_and(|at| at <= now) {
                self.wake_at[link] = None;
                self.work.push(Work::Wake { link });
                any = true;
            }
        }
        any
    }

    /// Wakes all operators: the task's waker was used.
    pub fn push_wake(&mut self) {
        for link in (0..self.links.len()).rev().filter(|&link| !self.ended[link]) {
            self.work.push(Work::Wake { link });
        }
    }

    /// The earliest processing time that an operator asked to be woken at.
    pub fn wake_at(&self) -> Option<Micros> {
        self.wake_at.iter().zip(&self.ended).filter(|&(_, &ended)| !ended).filter_map(|(at, _)| *at).min()
    }

    /// Does one step. The error says which operator failed.
    ///
    /// # Errors
    /// The operator's.
    pub fn step(&mut self, now: Micros, edges: &mut [EdgeWriter]) -> Result<()> {
        let Some(work) = self.work.pop() else { return Ok(()) };
        match work {
            Work::ForwardWatermark { link } => {
                self.firing[link] = false;
                self.release_watermark(link, edges);
                Ok(())
            }
            Work::ReleaseWatermark { link } => {
                self.release_watermark(link, edges);
                Ok(())
            }
            Work::Flush { link } => {
                self.work.push(Work::ForwardFlush { link });
                match self.ended[link] {
                    true => Ok(()),
                    false => self.call(link, Cause::Other, now, edges, |operator, cx| operator.flush(cx)),
                }
            }
            Work::ForwardFlush { link } => {
                for targets in self.links[link].targets.clone() {
                    self.forward_flush(&targets);
                }
                Ok(())
            }
            Work::ForwardEndOfData { link } => {
                self.ended[link] = true;
                for targets in self.links[link].targets.clone() {
                    self.forward_end_of_data(&targets, edges)?;
                }
                Ok(())
            }
            Work::Process { link, input, batch } => {
                self.links[link].rows_in.add(batch.row_count() as u64);
                self.call(link, Cause::Other, now, edges, |operator, cx| operator.process(input, batch, cx))
            }
            Work::Watermark { link, watermark } => {
                self.watermarks[link] = watermark;
                self.firing[link] = true;
                self.work.push(Work::ForwardWatermark { link });
                let fire = |operator: &mut dyn Operator, cx: &mut OperatorContext<'_>| {
                    operator.watermark(watermark, cx)
                };
                self.call(link, Cause::Watermark, now, edges, fire)
            }
            Work::EndOfData { link, input } => {
                if link > 0 || self.open_inputs == 0 {
                    self.work.push(Work::ForwardEndOfData { link });
                }
                self.call(link, Cause::Other, now, edges, |operator, cx| operator.end_of_data(input, cx))
            }
            Work::Wake { link } => {
                self.call(link, Cause::Other, now, edges, |operator, cx| operator.wake(cx))
            }
            Work::Resume { link, cause } => {
                self.call(link, cause, now, edges, |operator, cx| operator.resume(cx))
            }
        }
    }

    fn call(
        &mut self,
        index: usize,
        cause: Cause,
        now: Micros,
        edges: &mut [EdgeWriter],
        event: impl FnOnce(&mut dyn Operator, &mut OperatorContext<'_>) -> Result<Step>,
    ) -> Result<()> {
        self.probe.enter(Doing::Operator(index));
        let mut emitted = std::mem::take(&mut self.emitted);
        let link = &mut self.links[index];
        let mut cx =
            OperatorContext::new(&mut emitted, &mut self.wake_at[index], self.watermarks[index], now);
        let step = event(link.operator.as_mut(), &mut cx)
            .context(|| format!("operator {} ({})", link.uid, link.name))?;
        if step != Step::Done {
            self.parked |= step == Step::Wait;
            self.work.push(Work::Resume { link: index, cause });
        }
        let is_idle = link.operator.is_idle();
        self.idle_changed |= std::mem::replace(&mut self.idle[index], is_idle) != is_idle;
        if !self.firing[index] && self.passed_on[index] < self.passable(index) {
            self.work.push(Work::ReleaseWatermark { link: index });
        }
        let first = self.work.len();
        for (output, batch) in emitted.drain(..) {
            self.links[index].rows_out.add(batch.row_count() as u64);
            match self.links[index].targets.get(usize::from(output.0)).map(Vec::as_slice) {
                None | Some([]) if output == OutputIndex::MAIN => {}
                None | Some([]) => self.links[index].rows_unread.add(batch.row_count() as u64),
                Some(&[only]) => self.dispatch_one(only, batch, edges)?,
                Some(several) => {
                    let several = several.to_vec();
                    self.dispatch(&several, batch, edges)?;
                }
            }
        }
        // The first emitted must be the first popped.
        self.work[first..].reverse();
        self.emitted = emitted;
        Ok(())
    }

    fn dispatch(&mut self, targets: &[Target], batch: Batch, edges: &mut [EdgeWriter]) -> Result<()> {
        for &target in targets {
            self.dispatch_one(target, batch.clone(), edges)?;
        }
        Ok(())
    }

    fn dispatch_one(&mut self, target: Target, batch: Batch, edges: &mut [EdgeWriter]) -> Result<()> {
        match target {
            Target::Operator(link) => {
                self.work.push(Work::Process { link, input: 0, batch });
                Ok(())
            }
            Target::Edge(edge) => edges[edge].write(batch),
        }
    }

    /// Up to where an operator lets watermarks pass, or makes them.
    fn passable(&self, link: usize) -> Watermark {
        let (given, operator) = (self.watermarks[link], &self.links[link].operator);
        let bounded = || operator.watermark_bound().map_or(given, |bound| bound.min(given));
        operator.made_watermark().unwrap_or_else(bounded)
    }

    /// Passes on of the operator's watermark what it lets pass.
    fn release_watermark(&mut self, link: usize, edges: &mut [EdgeWriter]) {
        let watermark = self.passable(link);
        if self.passed_on[link] < watermark {
            self.passed_on[link] = watermark;
            for targets in self.links[link].targets.clone() {
                self.forward_watermark(&targets, watermark, edges);
            }
        }
    }

    fn forward_flush(&mut self, targets: &[Target]) {
        for &target in targets {
            if let Target::Operator(link) = target {
                self.work.push(Work::Flush { link });
            }
        }
    }

    fn forward_watermark(&mut self, targets: &[Target], watermark: Watermark, edges: &mut [EdgeWriter]) {
        for &target in targets {
            match target {
                Target::Operator(link) => self.work.push(Work::Watermark { link, watermark }),
                Target::Edge(edge) => edges[edge].watermark(watermark),
            }
        }
    }

    fn forward_end_of_data(&mut self, targets: &[Target], edges: &mut [EdgeWriter]) -> Result<()> {
        for &target in targets {
            match target {
                Target::Operator(link) => self.work.push(Work::EndOfData { link, input: 0 }),
                Target::Edge(edge) => edges[edge].control(&super::Element::EndOfData)?,
            }
        }
        Ok(())
    }
}
