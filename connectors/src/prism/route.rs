//! Where a record goes: a pure decision over facts.
//!
//! Keyed records go by weighted rendezvous hashing: each key prefers the clusters in an order of
//! its own, and takes the first that is well. So a key stays where it is while its cluster is
//! well, only a lost cluster's keys move, and they come back with it (P7). Records without a key
//! go round in the proportion of the weights. A cluster of weight 0 is a standby.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::breaker::Health;

/// What is known of a cluster that holds the topic.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its share; 0: only when no other will do.
    pub weight: u32,
    /// What may be sent to it.
    pub health: Health,
    /// Whether this record was tried there.
    pub tried: bool,
}

/// What decides between clusters that would all do.
#[derive(Clone, Copy, Debug)]
pub enum Spread {
    /// The hash of the record's key.
    Key(u64),
    /// Counts what has no key.
    Turn(u64),
}

/// The hash of a key, for [`Spread::Key`]. It need not be the same for ever: it decides where new
/// records go, not where old ones are.
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, 0)
}

/// The index of the cluster that the record goes to; `None` when none will do.
pub fn decide(candidates: &[Candidate<'_>], spread: Spread) -> Option<usize> {
    let usable = || candidates.iter().enumerate().filter(|(_, c)| !c.tried && c.health != Health::Open);
    let weighted = usable().any(|(_, candidate)| candidate.weight > 0);
    // When only standbys are left they share alike.
    let weight = |candidate: &Candidate<'_>| if weighted { candidate.weight } else { 1 };
    match spread {
        Spread::Key(hash) => usable()
            .filter(|(_, candidate)| weight(candidate) > 0)
            .map(|(index, candidate)| (index, score(hash, candidate.name, weight(candidate))))
            .max_by(|(_, one), (_, other)| one.total_cmp(other))
            .map(|(index, _)| index),
        Spread::Turn(turn) => {
            let total: u64 = usable().map(|(_, candidate)| u64::from(weight(candidate))).sum();
            let mut left = turn.checked_rem(total)?;
            for (index, candidate) in usable() {
                match left.checked_sub(u64::from(weight(candidate))) {
                    Some(rest) => left = rest,
                    None => return Some(index),
                }
            }
            None
        }
    }
}

/// Weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): `-weight / ln(u)`, with `u`
/// uniform in (0, 1) by key and cluster.
fn score(key_hash: u64, cluster: &str, weight: u32) -> f64 {
    let hash = xxh3_64_with_seed(cluster.as_bytes(), key_hash);
    let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(weight) / uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cluster(name: &str, weight: u32, health: Health) -> Candidate<'_> {
        Candidate { name, weight, health, tried: false }
    }

    fn keyed(candidates: &[Candidate<'_>], key: u64) -> Option<usize> {
        decide(candidates, Spread::Key(key_hash(&key.to_le_bytes())))
    }

    #[test]
    fn p7_a_key_stays_while_its_cluster_is_well_and_only_a_lost_clusters_keys_move() {
        let well = [
            cluster("a", 1, Health::Closed),
            cluster("b", 1, Health::Closed),
            cluster("c", 1, Health::Closed),
        ];
        let mut ill = well;
        ill[1].health = Health::Open;
        for key in 0..1000 {
            let before = keyed(&well, key).unwrap();
            let during = keyed(&ill, key).unwrap();
            assert_eq!(before == during, before != 1, "key {key}");
        }
    }

    #[test]
    fn weights_are_shares_and_standbys_wait() {
        let clusters = [
            cluster("a", 3, Health::Closed),
            cluster("b", 1, Health::Closed),
            cluster("c", 0, Health::Closed),
        ];
        let mut by_turn = [0; 3];
        let mut by_key = [0; 3];
        for number in 0..4000 {
            by_turn[decide(&clusters, Spread::Turn(number)).unwrap()] += 1;
            by_key[keyed(&clusters, number).unwrap()] += 1;
        }
        assert_eq!(by_turn, [3000, 1000, 0]);
        assert!((2850..3150).contains(&by_key[0]) && by_key[2] == 0, "{by_key:?}");
        let lost = [cluster("a", 3, Health::Open), cluster("b", 1, Health::Open), clusters[2]];
        assert_eq!(decide(&lost, Spread::Turn(7)), Some(2));
        assert_eq!(keyed(&lost, 7), Some(2));
    }

    #[test]
    fn a_cluster_that_was_tried_or_is_open_is_passed_over() {
        let mut clusters = [cluster("a", 1, Health::Closed), cluster("b", 1, Health::Open)];
        assert_eq!(decide(&clusters, Spread::Turn(0)), Some(0));
        clusters[0].tried = true;
        assert_eq!(decide(&clusters, Spread::Turn(0)), None);
        assert_eq!(keyed(&clusters, 1), None);
        clusters[1].health = Health::HalfOpen;
        assert_eq!(decide(&clusters, Spread::Turn(0)), Some(1));
        assert_eq!(decide(&[], Spread::Turn(0)), None);
    }

    proptest! {
        #[test]
        fn what_is_chosen_will_do(
            facts in proptest::collection::vec((0u32..4, 0u8..3, any::<bool>()), 0..6), spread: u64, keyed: bool,
        ) {
            let names: Vec<String> = (0..facts.len()).map(|n| format!("c{n}")).collect();
            let health = [Health::Closed, Health::HalfOpen, Health::Open];
            let candidates: Vec<_> = facts.iter().zip(&names).map(|(&(weight, state, tried), name)| {
                Candidate { name, weight, health: health[usize::from(state)], tried }
            }).collect();
            let chosen = decide(&candidates, if keyed { Spread::Key(spread) } else { Spread::Turn(spread) });
            let usable = |c: &Candidate<'_>| !c.tried && c.health != Health::Open;
            match chosen {
                Some(index) => {
                    prop_assert!(usable(&candidates[index]));
                    let others = candidates.iter().any(|c| usable(c) && c.weight > 0);
                    prop_assert!(candidates[index].weight > 0 || !others);
                }
                None => prop_assert!(!candidates.iter().any(usable)),
            }
        }
    }
}
