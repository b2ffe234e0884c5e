//! Zipf-distributed ranks in constant time, by Walker's alias method (Vose's construction).

use super::KeyDistribution;
use super::column::{below, random, unit};

/// A table of at most this many keys: 12 bytes each.
const CARDINALITY_MAX: u64 = 1 << 24;

/// An alias table: cell i gives i with probability `keep[i]`, else `other[i]`.
pub(super) struct Zipf {
    keep: Vec<f64>,
    other: Vec<u32>,
}

impl Zipf {
    /// What is wrong with a distribution.
    pub(super) fn check(cardinality: u64, distribution: KeyDistribution) -> Option<&'static str> {
        match distribution {
            KeyDistribution::Uniform => None,
            KeyDistribution::Zipf { exponent } if !(exponent.is_finite() && exponent >= 0.0) => {
                Some("the exponent of a Zipf distribution must be a number of at least 0")
            }
            KeyDistribution::Zipf { .. } if cardinality > CARDINALITY_MAX => {
                Some("a Zipf distribution has at most 16,777,216 keys")
            }
            KeyDistribution::Zipf { .. } => None,
        }
    }

    pub(super) fn new(cardinality: u64, exponent: f64) -> Zipf {
        let cardinality = cardinality.clamp(1, CARDINALITY_MAX);
        let weights: Vec<f64> = (1..=cardinality).map(|rank| (rank as f64).powf(-exponent)).collect();
        let mean = weights.iter().sum::<f64>() / weights.len() as f64;
        let mut keep: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
        let mut other: Vec<u32> = (0..cardinality as u32).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            (0..cardinality as u32).partition(|rank| keep[*rank as usize] < 1.0);
        while let (Some(poor), Some(rich)) = (small.pop(), large.pop()) {
            other[poor as usize] = rich;
            keep[rich as usize] -= 1.0 - keep[poor as usize];
            if keep[rich as usize] < 1.0 { small.push(rich) } else { large.push(rich) }
        }
        // What is left is 1 but for rounding.
        for rank in small.into_iter().chain(large) {
            keep[rank as usize] = 1.0;
        }
        Zipf { keep, other }
    }

    #[inline]
    pub(super) fn pick(&self, bits: u64) -> u64 {
        let cell = below(bits, self.keep.len() as u64);
        // Fresh bits: those that chose the cell say nothing about it any more.
        let chance = unit(random(bits, 0));
        if chance < self.keep[cell as usize] { cell } else { u64::from(self.other[cell as usize]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_as_often_as_zipf_says() {
        let zipf = Zipf::new(1_000, 1.0);
        let harmonic: f64 = (1..=1_000).map(|rank| 1.0 / f64::from(rank)).sum();
        let draws = 1_000_000;
        let mut counts = vec![0_u32; 1_000];
        for row in 0..draws {
            counts[zipf.pick(random(42, row)) as usize] += 1;
        }
        for rank in [0, 1, 2, 9, 99] {
            let expected = draws as f64 / harmonic / (rank + 1) as f64;
            let error = (f64::from(counts[rank]) - expected).abs();
            assert!(error < 5.0 * expected.sqrt(), "rank {rank}: {} against {expected}", counts[rank]);
        }
    }
}
