//! The federated source's eye on the world: the topology file and, through one [`Probe`] a
//! cluster, the clusters, so a changed topology is followed in place (W1). A look gathers what the
//! probes have seen and never waits for one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thalweg_engine::Result;
use thalweg_engine::source::Discovery;
use thalweg_engine::time::{MILLI, Micros};

use super::bounds::Starts;
use super::client::KafkaClient;
use super::fact::{ENCODING_VERSION, Facts, encode};
use super::probe::{Pace, Probe, Target};
use super::topology::Topology;
use super::topology_file::TopologyFile;

/// What the probes have seen is gathered this often: it costs a look at a file and a lock each.
const GATHER: Duration = Duration::from_millis(200);

/// Probes what the topology lists for one logical topic.
pub(crate) struct FederatedDiscovery {
    client: Arc<dyn KafkaClient>,
    topic: String,
    file: TopologyFile,
    starts: Starts,
    pace: Pace,
    probes: BTreeMap<String, Probe>,
    in_effect: Option<Arc<Topology>>,
}

impl FederatedDiscovery {
    /// Looks at nothing yet.
    pub fn new(
        client: Arc<dyn KafkaClient>,
        topic: &str,
        file: TopologyFile,
        starts: Starts,
        pace: Pace,
    ) -> Self {
        FederatedDiscovery {
            client,
            topic: topic.to_string(),
            file,
            starts,
            pace,
            probes: BTreeMap::new(),
            in_effect: None,
        }
    }

    /// Starts, keeps and ends probes, so that there is one for each listed cluster.
    fn follow(&mut self, topology: &Topology) -> Result<()> {
        let wanted = targets(topology, &self.topic, &self.starts);
        if wanted.is_empty() {
            tracing::warn!(topic = %self.topic, "the topology knows no cluster that holds the topic");
        }
        self.probes.retain(|name, probe| wanted.get(name) == Some(&probe.target));
        for (name, target) in wanted {
            if !self.probes.contains_key(&name) {
                self.probes.insert(name, Probe::start(&self.client, target, self.pace)?);
            }
        }
        Ok(())
    }
}

/// One target for each cluster that holds the topic.
fn targets(topology: &Topology, topic: &str, starts: &Starts) -> BTreeMap<String, Target> {
    let mut targets = BTreeMap::new();
    for (name, physical) in topology.holders(topic) {
        if let Some(cluster) = topology.clusters.get(&name) {
            let target = Target {
                name: name.clone(),
                cluster: cluster.clone(),
                topics: vec![physical],
                start: starts.of(&name).clone(),
            };
            targets.insert(name, target);
        }
    }
    targets
}

impl Discovery for FederatedDiscovery {
    fn look(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(topology) = self.file.current(GATHER / 2) else {
            return Ok(None);
        };
        if self.in_effect.as_ref() != Some(&topology) {
            self.follow(&topology)?;
            self.in_effect = Some(topology.clone());
        }
        let holdings = self.probes.values_mut().flat_map(Probe::seen).collect();
        encode(&Facts { version: ENCODING_VERSION, topology: topology.version, holdings }).map(Some)
    }

    fn interval(&self) -> Micros {
        let interval = self.pace.interval.min(GATHER);
        i64::try_from(interval.as_micros()).unwrap_or(200 * MILLI)
    }
}
