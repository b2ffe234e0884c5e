//! The federated source's reader: one [`ClusterReader`] for each cluster that it holds splits of,
//! served in turn.
//!
//! The rules: a poll never waits; a cluster that is away costs its own records only (F3); what an
//! outage means for the watermark is said with activities and, for a cluster whose splits nobody
//! knows yet, with a hold (F8). Positions of all splits, also of clusters that are away, are in
//! every checkpoint (F4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thalweg_engine::Result;
use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::metrics::MetricGroup;
use thalweg_engine::operator::Waker;
use thalweg_engine::source::{
    ReaderContext, ReaderEffect, ReaderStatus, SourceReader, SplitActivity, SplitId, SplitState,
};
use thalweg_engine::time::{MILLI, Micros, SECOND};

use super::bounds::OnOffsetGone;
use super::client::{KafkaClient, TopicId};
use super::cluster_metrics::ClusterMetrics;
use super::cluster_reader::{ClusterReader, Split};
use super::fact::{Status, decode};
use super::gathering::Gathering;
use super::settings::ConsumerNeeds;
use super::split::{Partition, Position};
use super::topology::Topology;
use super::topology_file::TopologyFile;

/// Most rows of one batch.
const ROWS_MAX: usize = 8_192;
/// A reader without records looks again after this time, should a wake-up be lost.
const REPOLL: Micros = 100 * MILLI;
/// Connections and gauges are looked after this often.
const UPKEEP: Micros = SECOND;

/// The bytes for librdkafka are divided by so many clusters at least.
const SHARES_MIN: usize = 2;
/// So many brokers has a cluster that was not looked at yet.
const BROKERS: usize = 4;

/// What happens to the watermark when a cluster is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOutage {
    /// It goes on without the cluster, whose records may be late when it returns.
    #[default]
    Advance,
    /// It waits, also for a listed cluster that was never read. With a watermark strategy that
    /// makes splits idle by time, that time must be longer than an outage takes to be noticed:
    /// until then it looks like silence. A lost connection is noticed at once; a network that
    /// swallows everything by the client's `socket.timeout.ms` (10 s unless the topology says
    /// otherwise) or by the discovery, whichever comes first.
    Hold,
}

/// What a reader is made with.
pub(crate) struct ReaderConfig {
    pub client: Arc<dyn KafkaClient>,
    pub file: TopologyFile,
    pub refresh: Duration,
    pub logical_topic: String,
    pub queue_bytes: usize,
    pub on_outage: OnOutage,
    pub on_offset_gone: OnOffsetGone,
    pub bounded: bool,
    /// Rows that one reader reads in a second at most.
    pub rows_per_second: Option<u32>,
}

impl ReaderConfig {
    /// A limited reader takes a tenth of a second's rows at once.
    fn rows_max(&self) -> usize {
        self.rows_per_second.map_or(ROWS_MAX, |limit| (limit as usize / 10).clamp(1, ROWS_MAX))
    }
}

pub(crate) struct FederatedReader {
    config: ReaderConfig,
    waker: Waker,
    group: MetricGroup,
    clusters: BTreeMap<String, ClusterReader>,
    gathering: Gathering,
    topology: Option<Arc<Topology>>,
    /// Into how many parts the bytes for librdkafka are divided.
    shares: usize,
    status: Option<Status>,
    /// The last hold that the engine was told.
    holds: Option<bool>,
    no_more: bool,
    /// The cluster that was served last.
    served: String,
    upkeep_at: Micros,
    /// A limited reader reads no earlier.
    read_at: Micros,
}

impl FederatedReader {
    /// A reader without splits.
    pub fn new(config: ReaderConfig, gathering: Gathering, waker: &Waker, group: &MetricGroup) -> Self {
        FederatedReader {
            config,
            waker: waker.clone(),
            group: group.clone(),
            clusters: BTreeMap::new(),
            gathering,
            topology: None,
            shares: SHARES_MIN,
            status: None,
            holds: None,
            no_more: false,
            served: String::new(),
            upkeep_at: Micros::MIN,
            read_at: Micros::MIN,
        }
    }

    fn cluster(&mut self, name: &str) -> &mut ClusterReader {
        let (group, status, on_offset_gone) = (&self.group, &self.status, self.config.on_offset_gone);
        self.clusters.entry(name.to_string()).or_insert_with(|| {
            let mut cluster = ClusterReader::new(name, on_offset_gone, ClusterMetrics::new(group, name));
            cluster.begin(status.as_ref().is_some_and(|status| status.away.iter().any(|away| away == name)));
            cluster
        })
    }

    /// Brings connections in line with topology and splits, and gauges up to date.
    fn look_after(&mut self, now: Micros) {
        self.upkeep_at = now.saturating_add(UPKEEP);
        if let Some(topology) = self.config.file.current(self.config.refresh) {
            self.topology = Some(topology);
        }
        let holders = match &self.topology {
            Some(topology) => topology.holders(&self.config.logical_topic),
            None => BTreeMap::new(),
        };
        for name in holders.keys() {
            self.cluster(name);
        }
        // In steps, so that few that join make the others' consumers anew.
        self.shares = self.shares.max(holders.len().next_power_of_two());
        for (name, cluster) in &mut self.clusters {
            let mut told = self.status.iter().flat_map(|status| &status.brokers);
            let brokers = told.find(|(cluster, _)| cluster == name).map(|(_, brokers)| *brokers);
            let needs = ConsumerNeeds {
                queue_bytes: self.config.queue_bytes / self.shares,
                brokers: brokers.filter(|brokers| *brokers > 0).unwrap_or(BROKERS).next_power_of_two(),
                end_of_partition: self.config.bounded,
            };
            // The word on a cluster follows its splits at once: nothing is connected before.
            let topology = self.topology.as_ref().filter(|_| brokers.is_some());
            let address = topology.and_then(|topology| topology.clusters.get(name));
            cluster.follow(self.config.client.as_ref(), address, needs, &self.waker);
            cluster.measure();
            cluster.metrics.splits.set(i64::try_from(cluster.splits.len()).unwrap_or(i64::MAX));
            let known = self.status.as_ref();
            let listed = known.is_some_and(|status| status.listed.iter().any(|(cluster, _)| cluster == name));
            cluster.metrics.up.set(i64::from(listed && !cluster.is_away()));
        }
    }

    /// Takes over what the enumerator said of the world.
    fn apply_status(&mut self) {
        let Some(status) = &self.status else {
            return;
        };
        for (name, cluster) in &mut self.clusters {
            cluster.tell_away(status.away.contains(name));
            for split in &mut cluster.splits {
                let holding = |(cluster, topic): &(String, String)| {
                    *cluster == split.partition.cluster && *topic == split.partition.topic
                };
                split.listed = status.listed.iter().any(holding);
                let of = |(cluster, topic, _): &&(String, String, TopicId)| {
                    *cluster == split.partition.cluster && *topic == split.partition.topic
                };
                split.compare(status.topic_ids.iter().find(of).map(|(_, _, id)| *id));
            }
        }
    }

    /// Tells the engine how each split takes part in the watermark, where that changed.
    fn tell_activity(&mut self, cx: &mut ReaderContext<'_>) {
        for cluster in self.clusters.values_mut() {
            let away = cluster.is_away();
            for split in &mut cluster.splits {
                let activity = match (split.listed, away, self.config.on_outage) {
                    // What is read to its end has nothing to wait for.
                    _ if split.position.is_at_end() => continue,
                    (false, _, _) | (true, true, OnOutage::Advance) => SplitActivity::Idle,
                    (true, true, OnOutage::Hold) => SplitActivity::Held,
                    (true, false, _) if split.is_displaced() => SplitActivity::Held,
                    (true, false, _) => SplitActivity::Active,
                };
                if split.activity != activity {
                    split.activity = activity;
                    cx.effect(ReaderEffect::Activity(split.id.clone(), activity));
                }
            }
        }
        // A cluster that was not looked at yet is waited for in any case: that is over within the
        // discovery's timeout, and a job whose clusters are all up must not begin with late rows.
        let holds = self.status.as_ref().is_none_or(|status| match self.config.on_outage {
            OnOutage::Hold => !status.undiscovered.is_empty() || !status.unlooked.is_empty(),
            OnOutage::Advance => !status.unlooked.is_empty(),
        });
        if self.holds != Some(holds) {
            self.holds = Some(holds);
            cx.effect(ReaderEffect::Hold(holds));
        }
    }

    /// Emits a batch of the next cluster that has records. False when none has.
    fn read(&mut self, cx: &mut ReaderContext<'_>) -> Result<bool> {
        let after = self
            .clusters
            .range::<String, _>((std::ops::Bound::Excluded(self.served.clone()), std::ops::Bound::Unbounded));
        let up_to = self.clusters.range::<String, _>(..=self.served.clone());
        let turn: Vec<String> = after.chain(up_to).map(|(name, _)| name.clone()).collect();
        let mut asked = Vec::new();
        for name in turn {
            if self.read_cluster(&name, &mut asked, cx)? {
                self.served = name;
                // A reader that waits says so of all its splits by that, and leaves nothing to do.
                if !asked.is_empty() {
                    cx.effect(ReaderEffect::Asked(asked));
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_cluster(
        &mut self,
        name: &str,
        asked: &mut Vec<SplitId>,
        cx: &mut ReaderContext<'_>,
    ) -> Result<bool> {
        let Some(cluster) = self.clusters.get_mut(name) else {
            return Ok(false);
        };
        let was_away = cluster.is_away();
        let fetch = cluster.fetch(self.config.rows_max(), &mut self.gathering)?;
        cluster.flowing = fetch.records > 0;
        let gathered = self.gathering.finish(&cluster.splits)?;
        cluster.metrics.bad_records.add(gathered.bad.len() as u64);
        cluster.metrics.bad_times.count(&gathered.bad);
        cluster.metrics.tombstones_dropped.add(gathered.tombstones);
        if was_away != cluster.is_away() || fetch.moved {
            self.tell_activity(cx);
        }
        if fetch.records > 0 {
            if let Some((batch, runs)) = gathered.rows {
                cx.emit_runs(batch, runs);
            }
            if let Some(letters) = gathered.dead_letters {
                cx.effect(ReaderEffect::Side(1, letters));
            }
        }
        if fetch.ended {
            self.tell_finished(name, cx);
        }
        if fetch.asked_all
            && let Some(cluster) = self.clusters.get(name)
        {
            asked.extend(cluster.asked().cloned());
        }
        Ok(fetch.messages > 0)
    }

    fn tell_finished(&mut self, name: &str, cx: &mut ReaderContext<'_>) {
        let Some(cluster) = self.clusters.get_mut(name) else {
            return;
        };
        for split in &mut cluster.splits {
            if split.position.is_at_end() && !split.end_told {
                split.end_told = true;
                cx.effect(ReaderEffect::SplitFinished(split.state()));
            }
        }
    }

    fn is_finished(&self) -> bool {
        let mut splits = self.clusters.values().flat_map(|cluster| &cluster.splits);
        self.no_more && splits.all(|split| split.position.is_at_end() || !split.listed)
    }
}

impl SourceReader for FederatedReader {
    fn add_splits(&mut self, splits: Vec<SplitState>, cx: &mut ReaderContext<'_>) -> Result<()> {
        let mut touched: Vec<String> = Vec::new();
        for given in splits {
            let split = Split::new(Partition::parse(&given.id)?, Position::decode(&given.position)?);
            let name = split.partition.cluster.clone();
            self.cluster(&name).add(split);
            touched.push(name);
        }
        self.look_after(cx.now());
        self.tell_activity(cx);
        for name in touched {
            self.tell_finished(&name, cx);
        }
        Ok(())
    }

    fn release_splits(&mut self, splits: &[SplitId], _cx: &mut ReaderContext<'_>) -> Result<Vec<SplitState>> {
        let mut given_back = Vec::with_capacity(splits.len());
        for id in splits {
            let partition = Partition::parse(id)?;
            let state = self.clusters.get_mut(&partition.cluster).and_then(|cluster| cluster.remove(id));
            given_back.extend(state);
        }
        self.upkeep_at = Micros::MIN;
        Ok(given_back)
    }

    fn no_more_splits(&mut self) {
        self.no_more = true;
    }

    fn message(&mut self, message: &[u8], cx: &mut ReaderContext<'_>) -> Result<()> {
        self.status = Some(decode(message, "the enumerator's word on Kafka clusters")?);
        self.apply_status();
        self.look_after(cx.now());
        self.tell_activity(cx);
        Ok(())
    }

    fn poll(&mut self, cx: &mut ReaderContext<'_>) -> Result<ReaderStatus> {
        if cx.now() >= self.upkeep_at {
            self.look_after(cx.now());
            self.tell_activity(cx);
        }
        if cx.now() < self.read_at {
            return Ok(ReaderStatus::Paused(self.read_at));
        }
        if self.read(cx)? {
            if let Some(limit) = self.config.rows_per_second {
                let rows = i64::try_from(self.config.rows_max()).unwrap_or(i64::MAX);
                self.read_at = cx.now().saturating_add(rows * SECOND / i64::from(limit.max(1)));
            }
            return Ok(ReaderStatus::Ready);
        }
        if self.is_finished() {
            return Ok(ReaderStatus::Finished);
        }
        Ok(ReaderStatus::Waiting(Some(cx.now().saturating_add(REPOLL))))
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<SplitState>> {
        let held = self.clusters.values().flat_map(|cluster| &cluster.splits);
        Ok(held.filter(|split| !split.end_told).map(Split::state).collect())
    }
}
