//! Where reading starts and where it ends, per cluster (F11). Pure: facts about a partition in,
//! offsets out.

use std::collections::BTreeMap;

use super::fact::PartitionFact;

/// Where reading starts in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that is there.
    #[default]
    Earliest,
    /// Behind the newest record that was there when the cluster was first seen.
    Latest,
    /// At the first record whose timestamp is at or after this one; milliseconds since 1970.
    Timestamp(i64),
    /// At these offsets by partition; a partition that is not named starts at its oldest record.
    Offsets(BTreeMap<i32, i64>),
}

/// What to do when the offset to read next is gone from the broker (deleted by retention).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOffsetGone {
    /// Fail the job, and name the partition and the offset.
    #[default]
    Fail,
    /// Go on with the oldest record that is there.
    Earliest,
    /// Go on behind the newest record.
    Latest,
}

/// What to do when a topic was deleted and made anew while its records were being read: it has
/// another id then (KIP-516), and offsets of the old one say nothing about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTopicRecreated {
    /// Fail the job, and name the topic with both ids.
    #[default]
    Fail,
    /// Start over with the oldest record of the new one; what was not read of the old one is lost.
    ///
    /// A running job stops reading it when a look at the cluster shows the new id. Records of the new
    /// topic that were read before that, at offsets which the old one had reached, come once more.
    /// A bounded reading has its ends in the old topic, so it fails in any case.
    Restart,
}

/// Where a bounded reading ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// Before the offset that was the next one of each partition when its cluster was first seen.
    /// A restored job keeps these ends.
    Latest,
    /// Before these offsets, by cluster and partition; what is not named ends as with `Latest`.
    Offsets(BTreeMap<String, BTreeMap<i32, i64>>),
}

/// Where reading starts: for all clusters, and apart for some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Starts {
    pub default: Start,
    pub clusters: BTreeMap<String, Start>,
}

impl Starts {
    /// Where a cluster's partitions start.
    pub fn of(&self, cluster: &str) -> &Start {
        self.clusters.get(cluster).unwrap_or(&self.default)
    }
}

/// The offset at which a partition that was never read starts. `late`: it appeared after its
/// topic was first seen whole; it then starts at its oldest record, or records written before it
/// was noticed would be lost.
pub(crate) fn start_offset(start: &Start, fact: &PartitionFact, late: bool) -> i64 {
    match start {
        Start::Offsets(offsets) => offsets.get(&fact.partition).copied().unwrap_or(fact.low),
        _ if late => fact.low,
        Start::Earliest => fact.low,
        Start::Latest => fact.high,
        Start::Timestamp(_) => fact.at_timestamp.unwrap_or(fact.high),
    }
}

/// The offset before which a bounded reading of a partition ends.
pub(crate) fn end_offset(until: &Until, cluster: &str, fact: &PartitionFact) -> i64 {
    match until {
        Until::Latest => fact.high,
        Until::Offsets(ends) => {
            ends.get(cluster).and_then(|ends| ends.get(&fact.partition)).copied().unwrap_or(fact.high)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f11_each_cluster_starts_where_it_is_told() {
        let fact =
            PartitionFact { topic: "t".into(), partition: 2, low: 10, high: 90, at_timestamp: Some(40) };
        let starts = Starts {
            default: Start::Earliest,
            clusters: BTreeMap::from([
                ("b".to_string(), Start::Latest),
                ("c".to_string(), Start::Timestamp(7)),
                ("d".to_string(), Start::Offsets(BTreeMap::from([(2, 33)]))),
                ("e".to_string(), Start::Offsets(BTreeMap::new())),
            ]),
        };
        let at = |cluster| start_offset(starts.of(cluster), &fact, false);
        assert_eq!((at("a"), at("b"), at("c"), at("d"), at("e")), (10, 90, 40, 33, 10));
        assert_eq!(start_offset(starts.of("b"), &fact, true), 10, "a partition that appeared later");
        let nothing_newer = PartitionFact { at_timestamp: None, ..fact };
        assert_eq!(start_offset(starts.of("c"), &nothing_newer, false), 90);
    }
}
