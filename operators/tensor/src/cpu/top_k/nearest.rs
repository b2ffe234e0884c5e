//! The best candidates of each query so far, and the score from which on another gets in.

/// Per query a heap whose root is the worst that is kept.
#[derive(Default)]
pub(super) struct Nearest {
    /// `[query][kept]`.
    entries: Vec<(f32, u32)>,
    counts: Vec<u32>,
    /// A score of at least this gets in: -inf while there is room. Infinite and so never reached
    /// in the lanes behind the last query.
    pub(super) thresholds: Vec<f32>,
    kept: usize,
}

impl Nearest {
    /// Empty, for `queries`, padded to whole panels, and `kept` candidates each.
    pub(super) fn reset(&mut self, queries: usize, panel: usize, kept: usize) {
        self.kept = kept;
        self.entries.resize(queries * kept, (0.0, 0));
        self.counts.clear();
        self.counts.resize(queries, 0);
        self.thresholds.clear();
        self.thresholds.resize(queries, f32::NEG_INFINITY);
        self.thresholds.resize(queries.next_multiple_of(panel), f32::INFINITY);
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.entries[..]) + size_of_val(&self.thresholds[..]) + size_of_val(&self.counts[..])
    }

    /// Bytes of one query.
    pub(super) fn bytes_for(kept: usize) -> usize {
        kept * size_of::<(f32, u32)>() + 2 * size_of::<f32>()
    }

    /// The rows that were kept for a query, in no order.
    pub(super) fn of(&self, query: usize) -> impl Iterator<Item = u32> {
        let entries = &self.entries[query * self.kept..][..self.counts[query] as usize];
        entries.iter().map(|(_, row)| *row)
    }

    /// The greatest score that a row may have which was offered and not kept, where `offered` were;
    /// none where all were kept.
    pub(super) fn left_out(&self, query: usize, offered: usize) -> Option<f32> {
        let is_full = self.counts[query] as usize == self.kept && offered > self.kept;
        is_full.then(|| self.entries[query * self.kept].0)
    }

    /// Offers a row; the greater score wins, and of equal ones the lower row.
    pub(super) fn offer(&mut self, query: usize, score: f32, row: u32) {
        let Some(count) = self.counts.get_mut(query) else { return };
        let heap = &mut self.entries[query * self.kept..][..self.kept];
        if (*count as usize) < self.kept {
            let place = *count as usize;
            heap[place] = (score, row);
            *count += 1;
            rise(heap, place);
        } else if is_worse(heap[0], (score, row)) {
            heap[0] = (score, row);
            sink(heap);
        }
        if *count as usize == self.kept {
            self.thresholds[query] = heap[0].0.next_up();
        }
    }
}

fn is_worse(a: (f32, u32), b: (f32, u32)) -> bool {
    a.0 < b.0 || (a.0 == b.0 && a.1 > b.1)
}

fn rise(heap: &mut [(f32, u32)], mut place: usize) {
    while place > 0 {
        let parent = (place - 1) / 2;
        if !is_worse(heap[place], heap[parent]) {
            break;
        }
        heap.swap(place, parent);
        place = parent;
    }
}

fn sink(heap: &mut [(f32, u32)]) {
    let mut place = 0;
    loop {
        let mut child = 2 * place + 1;
        if child >= heap.len() {
            break;
        }
        if child + 1 < heap.len() && is_worse(heap[child + 1], heap[child]) {
            child += 1;
        }
        if !is_worse(heap[child], heap[place]) {
            break;
        }
        heap.swap(place, child);
        place = child;
    }
}
