//! Topology files for tests, and names that no two tests share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use thalweg_connectors::format::Format;
use thalweg_connectors::kafka::{KafkaSource, SimulatedKafka};
use thalweg_testkit::KafkaCluster;

use crate::text_format::Text;

/// A topic's name of its own.
pub fn topic(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A topology file that tests rewrite.
pub struct TopologyOnDisk {
    _dir: tempfile::TempDir,
    path: PathBuf,
    topic: String,
    version: u64,
}

impl TopologyOnDisk {
    /// A topology in which `clusters` (name, bootstrap) hold `topic`.
    pub fn new(topic: &str, clusters: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("topology.yaml");
        let mut topology = TopologyOnDisk { _dir: dir, path, topic: topic.into(), version: 0 };
        topology.rewrite(clusters);
        topology
    }

    /// Writes the next version.
    pub fn rewrite(&mut self, clusters: &[(&str, &str)]) {
        self.version += 1;
        let mut text = format!("version: {}\nclusters:\n", self.version);
        for (name, bootstrap) in clusters {
            text += &format!(
                "  {name}: {{ bootstrap: '{bootstrap}', settings: {{ broker.address.family: v4 }} }}\n"
            );
        }
        let names: Vec<_> = clusters.iter().map(|(name, _)| *name).collect();
        text += &format!("topics:\n  {}: [{}]\n", self.topic, names.join(", "));
        std::fs::write(&self.path, text).unwrap();
    }

    /// A source of the topic, with a quick discovery.
    pub fn source(&self) -> KafkaSource {
        self.source_of(Text)
    }

    /// The same with a format of one's own, which has a column `value` or `payload`.
    pub fn source_of(&self, format: impl Format + 'static) -> KafkaSource {
        KafkaSource::federated(&self.topic, &self.path)
            .format(format)
            .discovery(Duration::from_millis(300), Duration::from_millis(1500))
    }

    /// A source of the topic on clusters in memory.
    pub fn simulated(&self, format: impl Format + 'static, kafka: &SimulatedKafka) -> KafkaSource {
        KafkaSource::federated(&self.topic, &self.path).format(format).simulated(kafka)
    }
}

/// A topology over clusters as their clients reach them.
pub fn topology(topic: &str, clusters: &[(&str, &KafkaCluster)]) -> TopologyOnDisk {
    let clusters: Vec<_> = clusters.iter().map(|(name, cluster)| (*name, cluster.bootstrap())).collect();
    TopologyOnDisk::new(topic, &clusters)
}

/// `prefix-from` to `prefix-(to - 1)`.
pub fn numbered(prefix: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("{prefix}-{number}")).collect()
}
