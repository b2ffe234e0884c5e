//! What a seed decides.

/// A small deterministic generator (SplitMix64; Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct SeededOrder(u64);

impl SeededOrder {
    /// A generator that a seed decides.
    pub fn new(seed: u64) -> Self {
        SeededOrder(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end.max(1) as u64) as usize
    }

    /// Whether something happens that does in so many of a thousand cases.
    pub fn happens(&mut self, per_thousand: usize) -> bool {
        self.below(1_000) < per_thousand
    }

    /// A generator of its own, decided by this one: what is drawn from it moves nothing here.
    pub fn fork(&mut self) -> SeededOrder {
        SeededOrder(self.next_u64())
    }
}
