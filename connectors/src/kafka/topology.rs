//! The topology: which clusters there are, how they are reached, and which of them hold a logical
//! topic. Versioned; what a new version changes is decided by pure functions.
//!
//! This module does no I/O but for resolving a secret where a client is configured. It knows the
//! engine's error and nothing of Kafka's client.

use std::collections::BTreeMap;
use std::path::PathBuf;

use thalweg_engine::{Error, Result, Secret};

/// Which clusters hold which logical topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Rises with every change; an older or repeated version changes nothing (W5).
    pub version: u64,
    /// The clusters by name.
    pub clusters: BTreeMap<String, Cluster>,
    /// The logical topics by name.
    pub topics: BTreeMap<String, LogicalTopic>,
}

/// How a cluster is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `host:port`, several with commas between.
    pub bootstrap: String,
    /// Settings of librdkafka, passed through.
    pub settings: BTreeMap<String, Setting>,
}

/// The clusters that hold a logical topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogicalTopic {
    /// The topic's physical name in each cluster that holds it.
    pub clusters: BTreeMap<String, String>,
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Written in the file. Which of a client's settings are secret nobody knows, least of all when
    /// one's name is misspelt: all are.
    Given(Secret),
    /// In an environment variable.
    Env(String),
    /// In a file, without its last line break.
    File(PathBuf),
}

impl Setting {
    /// A value that the program or the file says.
    pub fn given(value: impl Into<String>) -> Setting {
        Setting::Given(Secret::new(value))
    }

    /// The value, read anew from where it is kept.
    ///
    /// # Errors
    /// A user error that names the variable or the file, never the value.
    pub fn resolve(&self) -> Result<Secret> {
        match self {
            Setting::Given(secret) => Ok(secret.clone()),
            Setting::Env(name) => std::env::var(name)
                .map(Secret::new)
                .map_err(|_| Error::user(format!("environment variable {name} is not set or not UTF-8"))),
            Setting::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Secret::new(text.trim_end_matches(['\n', '\r']))),
                Err(error) => {
                    Err(Error::user(format!("cannot read the secret in {}", path.display())).caused_by(error))
                }
            },
        }
    }
}

impl Cluster {
    /// A cluster without settings.
    pub fn at(bootstrap: impl Into<String>) -> Self {
        Cluster { bootstrap: bootstrap.into(), settings: BTreeMap::new() }
    }

    /// Adds a setting of librdkafka.
    #[must_use]
    pub fn with(mut self, name: &str, setting: Setting) -> Self {
        self.settings.insert(name.to_string(), setting);
        self
    }
}

impl Topology {
    /// The clusters that hold a logical topic, each with the topic's physical name there. Empty
    /// when the topology does not know the topic.
    pub fn holders(&self, topic: &str) -> BTreeMap<String, String> {
        self.topics.get(topic).map(|topic| topic.clusters.clone()).unwrap_or_default()
    }
}

/// What to do with a topology that was just read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it.
    Apply,
    /// The same version with the same content.
    Repeated,
    /// The same version with another content: a mistake worth a warning; nothing changes.
    Conflicting,
    /// An older version; nothing changes.
    Older,
}

/// Decides whether `candidate` replaces `current` (W5).
pub fn decide(current: Option<&Topology>, candidate: &Topology) -> Verdict {
    match current {
        None => Verdict::Apply,
        Some(current) if candidate.version > current.version => Verdict::Apply,
        Some(current) if candidate.version < current.version => Verdict::Older,
        Some(current) if candidate == current => Verdict::Repeated,
        Some(_) => Verdict::Conflicting,
    }
}

/// What changes for one logical topic between two topologies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyDiff {
    /// Clusters that hold the topic now and did not before.
    pub added: Vec<String>,
    /// Clusters that held the topic and do not any more.
    pub removed: Vec<String>,
    /// Clusters that are reached in another way (bootstrap or settings); their offsets stay.
    pub reconnected: Vec<String>,
    /// Clusters where the topic has another physical name.
    pub renamed: Vec<String>,
}

/// What changes for `topic` when `new` replaces `old`.
pub fn diff(old: &Topology, new: &Topology, topic: &str) -> TopologyDiff {
    let (before, after) = (old.holders(topic), new.holders(topic));
    let mut diff = TopologyDiff::default();
    for (cluster, physical) in &after {
        match before.get(cluster) {
            None => diff.added.push(cluster.clone()),
            Some(earlier) => {
                if earlier != physical {
                    diff.renamed.push(cluster.clone());
                }
                if old.clusters.get(cluster) != new.clusters.get(cluster) {
                    diff.reconnected.push(cluster.clone());
                }
            }
        }
    }
    diff.removed = before.into_keys().filter(|cluster| !after.contains_key(cluster)).collect();
    diff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(version: u64, clusters: &[(&str, &str)]) -> Topology {
        let holders = clusters.iter().map(|(name, _)| (name.to_string(), "flights".to_string())).collect();
        Topology {
            version,
            clusters: clusters.iter().map(|(name, at)| (name.to_string(), Cluster::at(*at))).collect(),
            topics: BTreeMap::from([("flights".to_string(), LogicalTopic { clusters: holders })]),
        }
    }

    #[test]
    fn w5_an_older_or_repeated_version_changes_nothing() {
        let current = topology(5, &[("a", "h:1")]);
        assert_eq!(decide(None, &current), Verdict::Apply);
        assert_eq!(decide(Some(&current), &topology(6, &[])), Verdict::Apply);
        assert_eq!(decide(Some(&current), &current.clone()), Verdict::Repeated);
        assert_eq!(decide(Some(&current), &topology(5, &[("a", "h:2")])), Verdict::Conflicting);
        assert_eq!(decide(Some(&current), &topology(4, &[("a", "h:1")])), Verdict::Older);
    }

    #[test]
    fn a_diff_tells_added_removed_and_reconnected_clusters_apart() {
        let old = topology(1, &[("a", "h:1"), ("b", "h:2"), ("c", "h:3")]);
        let new = topology(2, &[("b", "h:2"), ("c", "h:9"), ("d", "h:4")]);
        let expected = TopologyDiff {
            added: vec!["d".into()],
            removed: vec!["a".into()],
            reconnected: vec!["c".into()],
            renamed: vec![],
        };
        assert_eq!(diff(&old, &new, "flights"), expected);
        assert_eq!(diff(&old, &new, "other"), TopologyDiff::default());
    }

    #[test]
    fn f14_secrets_are_read_from_where_they_are_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        let cluster = Cluster::at("h:1")
            .with("sasl.password", Setting::File(path.clone()))
            .with("ssl.key.password", Setting::given("swordfish"));
        assert_eq!(cluster.settings["sasl.password"].resolve().unwrap().reveal(), "hunter2");
        let printed = format!("{cluster:?} {:?}", cluster.settings["sasl.password"].resolve().unwrap());
        assert!(!printed.contains("hunter2") && !printed.contains("swordfish"), "{printed}");
        let missing = Setting::Env("THALWEG_NO_SUCH_VARIABLE".into()).resolve().unwrap_err();
        assert!(missing.to_string().contains("THALWEG_NO_SUCH_VARIABLE"));
    }
}
