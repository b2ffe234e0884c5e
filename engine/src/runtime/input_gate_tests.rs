//! Alignment, as a property: at a barrier the gate has delivered of every channel exactly what came
//! before it, whatever the order in which channels are filled and the gate is read.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;

use super::*;
use crate::runtime::ChannelBounds;

fn checkpoint(number: usize) -> CheckpointId {
    CheckpointId { generation: 1, number: number as u64 }
}

fn barrier(number: usize) -> Barrier {
    Barrier { checkpoint: checkpoint(number), builds_on: None }
}

fn batch(channel: usize, rows: usize) -> Element {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![channel as i64; rows]));
    Element::Batch(Batch::new(RecordBatch::try_from_iter([("channel", column)]).unwrap()))
}

/// What one channel carries: the rows of each batch before the first barrier, between the first
/// and the second, and so on; it ends after the last.
type Script = Vec<Vec<usize>>;

fn scripts() -> impl Strategy<Value = Vec<Script>> {
    let batches = prop::collection::vec(1usize..4, 0..4);
    prop::collection::vec(prop::collection::vec(batches, 1..5), 1..5)
}

fn elements(channel: usize, script: &Script) -> Vec<Element> {
    let mut elements = Vec::new();
    for (index, batches) in script.iter().enumerate() {
        if index > 0 {
            elements.push(Element::Barrier(barrier(index)));
        }
        elements.extend(batches.iter().map(|&rows| batch(channel, rows)));
        elements.push(Element::Watermark(Watermark(index as i64)));
    }
    elements.extend([Element::Watermark(Watermark::MAX), Element::EndOfData, Element::End]);
    elements
}

/// A gate, what is still to be sent, and what was delivered of each channel.
struct Bench {
    gate: InputGate,
    channels: Vec<Arc<Channel>>,
    unsent: Vec<std::vec::IntoIter<Element>>,
    delivered: Vec<usize>,
    watermark: Watermark,
    barriers: Vec<CheckpointId>,
    ended: bool,
}

impl Bench {
    fn new(scripts: &[Script]) -> Bench {
        let channels: Vec<_> = scripts.iter().map(|_| Channel::new(ChannelBounds::default())).collect();
        let gate = InputGate::new(channels.iter().cloned().map(|c| (0, c)).collect(), &Waker::new(|| {}));
        Bench {
            gate,
            channels,
            unsent: scripts.iter().enumerate().map(|(at, script)| elements(at, script).into_iter()).collect(),
            delivered: vec![0; scripts.len()],
            watermark: Watermark::MIN,
            barriers: Vec::new(),
            ended: false,
        }
    }

    fn send(&mut self, channel: usize) -> bool {
        let element = self.unsent[channel].next();
        element.map(|element| assert!(self.channels[channel].try_send(element).is_none())).is_some()
    }

    /// Reads one event. Returns whether there was one.
    fn read(&mut self, scripts: &[Script]) -> bool {
        match self.gate.next_event().unwrap() {
            GateEvent::Batch(_, batch) => {
                let rows = batch.records().column(0).as_primitive::<Int64Type>();
                rows.values().iter().for_each(|&channel| self.delivered[channel as usize] += 1);
            }
            GateEvent::Watermark(watermark) => {
                assert!(watermark > self.watermark);
                self.watermark = watermark;
            }
            GateEvent::Barrier(Barrier { checkpoint: at, .. }) => {
                assert!(self.barriers.last() < Some(&at), "{at} after {:?}", self.barriers);
                self.barriers.push(at);
                for (channel, script) in scripts.iter().enumerate() {
                    let before: usize = script.iter().take(at.number as usize).flatten().sum();
                    assert_eq!(self.delivered[channel], before, "channel {channel} at barrier {at}");
                }
                let lowest = scripts.iter().filter(|script| script.len() >= at.number as usize);
                if lowest.count() == scripts.len() {
                    assert_eq!(self.watermark, Watermark(at.number as i64 - 1), "at barrier {at}");
                }
            }
            GateEvent::Idle(_) | GateEvent::EndOfData(_) => {}
            GateEvent::End => self.ended = true,
            GateEvent::Empty => return false,
        }
        !self.ended
    }
}

proptest! {
    #[test]
    fn a_barrier_divides_every_channel_where_it_stood_in_it(
        scripts in scripts(), moves in prop::collection::vec(0usize..8, 0..200)
    ) {
        let mut bench = Bench::new(&scripts);
        for at in moves {
            if at < scripts.len() {
                bench.send(at);
            } else if !bench.ended {
                bench.read(&scripts);
            }
        }
        for channel in 0..scripts.len() {
            while bench.send(channel) {}
        }
        while bench.read(&scripts) {}
        prop_assert!(bench.ended);
        let longest = scripts.iter().map(Vec::len).max().unwrap_or(0);
        let all: Vec<_> = (1..longest).map(checkpoint).collect();
        prop_assert_eq!(&bench.barriers, &all, "one past its end counts as aligned");
        for (channel, script) in scripts.iter().enumerate() {
            prop_assert_eq!(bench.delivered[channel], script.iter().flatten().sum::<usize>());
        }
    }

    /// An abort, told at any time, lets every row pass, and its barrier never comes afterwards.
    #[test]
    fn an_aborted_checkpoint_holds_nothing_up(
        scripts in scripts(), aborted in 1usize..4, moves in prop::collection::vec(0usize..8, 0..100)
    ) {
        let mut bench = Bench::new(&scripts);
        for at in moves {
            if at < scripts.len() {
                bench.send(at);
            } else if !bench.ended {
                bench.read(&scripts);
            }
        }
        bench.gate.abort(checkpoint(aborted));
        prop_assert!(!bench.gate.is_aligning() || bench.gate.aligning.unwrap().checkpoint > checkpoint(aborted));
        let before = bench.barriers.len();
        for channel in 0..scripts.len() {
            while bench.send(channel) {}
        }
        while bench.read(&scripts) {}
        prop_assert!(bench.ended);
        prop_assert!(bench.barriers[before..].iter().all(|&at| at > checkpoint(aborted)));
        for (channel, script) in scripts.iter().enumerate() {
            prop_assert_eq!(bench.delivered[channel], script.iter().flatten().sum::<usize>());
        }
    }
}
