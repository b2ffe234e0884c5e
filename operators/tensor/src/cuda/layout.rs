//! Where each buffer of a batch lies in one arena.
//!
//! Two buffers share bytes only where no step uses both: the last step that touches the one comes
//! before the first that touches the other. A few dozen buffers, laid out anew for every batch.

use super::program::{ALIGNMENT, BufferId, Counts, Program};

/// Offsets into an arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    offsets: Vec<usize>,
    /// Bytes that the arena must have.
    pub bytes: usize,
}

impl Layout {
    /// Where a buffer begins, in bytes.
    pub fn offset(&self, buffer: BufferId) -> usize {
        self.offsets[buffer.0]
    }
}

impl Program {
    /// Lays the buffers of a batch out: the largest first, each at the lowest place that is free
    /// while it lives.
    pub fn layout(&self, counts: &Counts) -> Layout {
        let sizes: Vec<usize> = self
            .buffers
            .iter()
            .map(|buffer| buffer.size.bytes(counts).max(1).next_multiple_of(ALIGNMENT))
            .collect();
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        order.sort_by_key(|&index| (std::cmp::Reverse(sizes[index]), index));
        let mut layout = Layout { offsets: vec![0; sizes.len()], bytes: 0 };
        let mut placed: Vec<usize> = Vec::with_capacity(sizes.len());
        for index in order {
            let live = &self.buffers[index].live;
            let mut taken: Vec<(usize, usize)> = placed
                .iter()
                .filter(|&&other| {
                    let other = &self.buffers[other].live;
                    other.start() <= live.end() && live.start() <= other.end()
                })
                .map(|&other| (layout.offsets[other], layout.offsets[other] + sizes[other]))
                .collect();
            taken.sort_unstable();
            let mut offset = 0;
            for (begin, end) in taken {
                if begin >= offset + sizes[index] {
                    break;
                }
                offset = offset.max(end);
            }
            layout.offsets[index] = offset;
            layout.bytes = layout.bytes.max(offset + sizes[index]);
            placed.push(index);
        }
        layout
    }
}
