//! What is remembered of one key: recent embeddings that were no near-duplicates, quantised to a
//! byte an element. Pure.

use serde::{Deserialize, Serialize};
use thalweg_engine::state::StateSize;
use thalweg_engine::time::Micros;

/// How an output row calls an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, StateSize)]
#[state(crate = "thalweg_engine")]
pub(super) enum RowId {
    Number(i64),
    Text(String),
}

/// A remembered embedding.
#[derive(Clone, Debug, Serialize, Deserialize, StateSize)]
#[state(crate = "thalweg_engine")]
struct Remembered {
    id: RowId,
    /// When it, or a near-duplicate of it, was last seen.
    last_seen: Micros,
    /// One over the length of `vector`: cosines need no scale.
    inverse_norm: f32,
    vector: Vec<i8>,
}

/// The recent embeddings of a key.
#[derive(Clone, Debug, Default, Serialize, Deserialize, StateSize)]
#[state(crate = "thalweg_engine")]
pub(super) struct Recent {
    remembered: Vec<Remembered>,
    /// When a timer will fire for the key.
    pub timer: Option<Micros>,
}

/// What is a near-duplicate, and how much is remembered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rule {
    pub threshold: f32,
    pub keep: usize,
    pub within: Option<Micros>,
}

/// What became of a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// The row that it is a near-duplicate of.
    pub duplicate_of: Option<RowId>,
    /// The cosine to the nearest that is remembered.
    pub similarity: Option<f32>,
}

impl Recent {
    /// Compares a row with what is remembered and was seen not too long before it. One that is no
    /// near-duplicate is remembered in its turn, so near-duplicates name the first of their kind; of
    /// equally near ones the one that came first. The least recently seen makes room. A vector
    /// without a direction (zeros, NaN) is like nothing.
    ///
    /// What is too old for this row is not forgotten: an earlier row may be behind it. That is for
    /// the watermark to say.
    pub(super) fn see(&mut self, id: RowId, vector: &[f32], at: Micros, rule: Rule) -> Verdict {
        let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        if !norm.is_finite() || norm == 0.0 {
            return Verdict::default();
        }
        let mut nearest: Option<(usize, f32)> = None;
        let is_comparable = |one: &Remembered| {
            one.vector.len() == vector.len()
                && rule.within.is_none_or(|within| at.saturating_sub(one.last_seen) <= within)
        };
        for (index, one) in self.remembered.iter().enumerate().filter(|(_, one)| is_comparable(one)) {
            let cosine = dot(vector, &one.vector) * one.inverse_norm / norm;
            if nearest.is_none_or(|(_, best)| cosine > best) {
                nearest = Some((index, cosine));
            }
        }
        let similarity = nearest.map(|(_, cosine)| cosine.clamp(-1.0, 1.0));
        if let Some((index, cosine)) = nearest
            && cosine >= rule.threshold
        {
            let one = &mut self.remembered[index];
            one.last_seen = one.last_seen.max(at);
            return Verdict { duplicate_of: Some(one.id.clone()), similarity };
        }
        self.remember(id, vector, at, rule.keep);
        Verdict { duplicate_of: None, similarity }
    }

    fn remember(&mut self, id: RowId, vector: &[f32], at: Micros, keep: usize) {
        while self.remembered.len() >= keep.max(1) {
            let oldest = self.remembered.iter().enumerate().min_by_key(|(_, one)| one.last_seen);
            let Some((oldest, _)) = oldest else { break };
            self.remembered.remove(oldest);
        }
        let most = vector.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let vector: Vec<i8> =
            vector.iter().map(|value| (value / most * 127.0).round_ties_even() as i8).collect();
        let norm = vector.iter().map(|&value| f32::from(value) * f32::from(value)).sum::<f32>().sqrt();
        self.remembered.push(Remembered { id, last_seen: at, inverse_norm: 1.0 / norm, vector });
    }

    /// Forgets what was not seen for long.
    pub(super) fn forget(&mut self, now: Micros, rule: Rule) {
        if let Some(within) = rule.within {
            self.remembered.retain(|one| now.saturating_sub(one.last_seen) <= within);
        }
    }

    /// When there will be something to forget.
    pub(super) fn forgets_at(&self, rule: Rule) -> Option<Micros> {
        let within = rule.within?;
        self.remembered
            .iter()
            .map(|one| one.last_seen.saturating_add(within))
            .min()
            .map(|at| at.saturating_add(1))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.remembered.is_empty()
    }
}

/// In lanes, so that it becomes vector code: a plain sum must keep its order.
fn dot(left: &[f32], right: &[i8]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0f32; LANES];
    let (left_lanes, right_lanes) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let rest = left_lanes.remainder().iter().zip(right_lanes.remainder());
    let rest: f32 = rest.map(|(l, &r)| l * f32::from(r)).sum();
    for (l, r) in left_lanes.zip(right_lanes) {
        for lane in 0..LANES {
            sums[lane] += l[lane] * f32::from(r[lane]);
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { threshold: 0.9, keep: 2, within: Some(10) };

    fn id(number: i64) -> RowId {
        RowId::Number(number)
    }

    #[test]
    fn near_duplicates_name_the_first_of_their_kind() {
        let mut recent = Recent::default();
        let first = recent.see(id(1), &[1.0, 0.0, 0.0], 0, RULE);
        assert_eq!(first, Verdict::default());
        let second = recent.see(id(2), &[0.95, 0.1, 0.0], 1, RULE);
        assert_eq!(second.duplicate_of, Some(id(1)));
        assert!((second.similarity.unwrap() - 0.9945).abs() < 1e-3);
        // Near the second and not the first: a kind of its own, for only the first is remembered.
        let third = recent.see(id(3), &[0.8, 0.6, 0.0], 2, RULE);
        assert_eq!(third.duplicate_of, None);
        assert!((third.similarity.unwrap() - 0.8).abs() < 1e-2);
    }

    #[test]
    fn the_least_recently_seen_makes_room_and_time_makes_it_too() {
        let mut recent = Recent::default();
        recent.see(id(1), &[1.0, 0.0, 0.0], 0, RULE);
        recent.see(id(2), &[0.0, 1.0, 0.0], 1, RULE);
        recent.see(id(3), &[1.0, 0.0, 0.0], 2, RULE);
        recent.see(id(4), &[0.0, 0.0, 1.0], 3, RULE);
        assert_eq!(recent.see(id(5), &[0.0, 1.0, 0.0], 4, RULE).duplicate_of, None, "2 made room for 4");
        assert_eq!(recent.forgets_at(RULE), Some(14));
        assert_eq!(recent.see(id(6), &[0.0, 0.0, 1.0], 13, RULE).duplicate_of, Some(id(4)));
        assert_eq!(recent.see(id(7), &[0.0, 0.0, 1.0], 24, RULE).duplicate_of, None);
    }

    #[test]
    fn a_row_far_ahead_of_its_time_forgets_nothing() {
        let mut recent = Recent::default();
        recent.see(id(1), &[1.0, 0.0, 0.0], 0, RULE);
        recent.see(id(2), &[0.0, 1.0, 0.0], 1_000, RULE);
        assert_eq!(recent.see(id(3), &[1.0, 0.0, 0.0], 5, RULE).duplicate_of, Some(id(1)));
        recent.forget(16, RULE);
        assert_eq!(recent.see(id(4), &[1.0, 0.0, 0.0], 16, RULE).duplicate_of, None);
    }

    #[test]
    fn of_equally_near_ones_the_first_counts() {
        let rule = Rule { threshold: 0.7, ..RULE };
        let mut recent = Recent::default();
        recent.see(id(1), &[1.0, 0.0, 0.0], 0, rule);
        recent.see(id(2), &[0.0, 1.0, 0.0], 1, rule);
        assert_eq!(recent.see(id(3), &[1.0, 1.0, 0.0], 2, rule).duplicate_of, Some(id(1)));
    }

    #[test]
    fn what_has_no_direction_is_like_nothing_and_is_not_remembered() {
        let mut recent = Recent::default();
        for vector in [[0.0, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 0.0]] {
            assert_eq!(recent.see(id(1), &vector, 0, RULE), Verdict::default());
        }
        assert!(recent.is_empty());
    }

    #[test]
    fn quantised_cosines_are_near_the_exact_ones() {
        let wave = |phase: f32| (0..384).map(|i| (i as f32 * 0.37 + phase).sin()).collect::<Vec<f32>>();
        let mut recent = Recent::default();
        recent.see(id(0), &wave(0.0), 0, RULE);
        for phase in [0.1f32, 0.4, 1.0, 2.0] {
            let (a, b) = (wave(0.0), wave(phase));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let exact = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
            let seen = recent.clone().see(id(1), &b, 0, RULE).similarity.unwrap();
            assert!((seen - exact).abs() < 0.01, "{seen} for {exact}");
        }
    }
}
