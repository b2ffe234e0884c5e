//! The topology as a document, YAML or JSON (which is YAML): text in, [`Topology`] out, or every
//! mistake with its line. Pure. Secrets never appear in a mistake.
//!
//! ```yaml
//! version: 3
//! clusters:
//!   east: { bootstrap: "localhost:9092" }
//!   west:
//!     bootstrap: "localhost:9093"
//!     settings:
//!       security.protocol: sasl_ssl
//!       sasl.password: { env: WEST_PASSWORD }    # or { file: /run/secrets/west }
//! topics:
//!   flights: [east, west]                        # the same name in both
//!   usage: { east: usage, west: usage-v2 }       # a physical name for each
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use saphyr::{LoadableYamlNode, MarkedYamlOwned, ScalarOwned, YamlDataOwned};
use thalweg_engine::{Error, Result};

use super::topology::{Cluster, LogicalTopic, Setting, Topology};

/// Longest name of a cluster, in bytes: it is part of split names, labels and paths.
const CLUSTER_NAME_BYTES_MAX: usize = 64;

type Node = MarkedYamlOwned;

/// Reads a topology from its text. `origin` (a file's name) stands in front of every mistake.
///
/// # Errors
/// A user error with every mistake, a line each, as `origin:line: what`.
pub fn parse_topology(text: &str, origin: &str) -> Result<Topology> {
    let mut documents =
        MarkedYamlOwned::load_from_str(text).map_err(|error| Error::user(format!("{origin}: {error}")))?;
    let Some(root) = (documents.len() == 1).then(|| documents.remove(0)) else {
        return Err(Error::user(format!("{origin}: expected one document, found {}", documents.len())));
    };
    let mut reading = Reading { origin, mistakes: Vec::new(), holdings: Vec::new() };
    let topology = reading.topology(&root);
    if reading.mistakes.is_empty() { Ok(topology) } else { Err(Error::user(reading.mistakes.join("\n"))) }
}

struct Reading<'a> {
    origin: &'a str,
    mistakes: Vec<String>,
    /// Which cluster is said to hold which topic, and in which line.
    holdings: Vec<(String, String, usize)>,
}

impl Reading<'_> {
    fn mistake(&mut self, node: &Node, what: impl std::fmt::Display) {
        self.mistake_in(node.span.start.line(), what);
    }

    fn mistake_in(&mut self, line: usize, what: impl std::fmt::Display) {
        self.mistakes.push(format!("{}:{line}: {what}", self.origin));
    }

    fn topology(&mut self, root: &Node) -> Topology {
        let mut topology = Topology { version: 0, clusters: BTreeMap::new(), topics: BTreeMap::new() };
        let entries = self.mapping(root, "the topology");
        // All three, or a file that was cut off would take clusters or topics away.
        for wanted in ["version", "clusters", "topics"] {
            if !entries.iter().any(|(name, _, _)| name == wanted) {
                self.mistake(root, format_args!("{wanted} is missing"));
            }
        }
        for (name, key, value) in entries {
            match name.as_str() {
                "version" => match &value.data {
                    YamlDataOwned::Value(ScalarOwned::Integer(version)) if *version >= 0 => {
                        topology.version = u64::try_from(*version).unwrap_or(0);
                    }
                    _ => self.mistake(value, "version must be a whole number that rises"),
                },
                "clusters" => topology.clusters = self.clusters(value),
                "topics" => topology.topics = self.topics(value),
                _ => {
                    self.mistake(key, format_args!("unknown key {name:?}; known: version, clusters, topics"))
                }
            }
        }
        self.check_holders(&topology);
        topology
    }

    fn check_holders(&mut self, topology: &Topology) {
        for (name, cluster, line) in std::mem::take(&mut self.holdings) {
            if !topology.clusters.contains_key(&cluster) {
                let what =
                    format!("topic {name:?} is said to be in cluster {cluster:?}, which is not listed");
                self.mistake_in(line, what);
            }
        }
    }

    fn clusters(&mut self, node: &Node) -> BTreeMap<String, Cluster> {
        let mut clusters = BTreeMap::new();
        for (name, key, value) in self.mapping(node, "clusters") {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.len() > CLUSTER_NAME_BYTES_MAX || !name.chars().all(allowed) {
                let what = format!(
                    "cluster name {name:?} must be 1 to {CLUSTER_NAME_BYTES_MAX} letters, digits, '-', '_' or '.'"
                );
                self.mistake(key, what);
            }
            let cluster = self.cluster(value, &name);
            clusters.insert(name, cluster);
        }
        clusters
    }

    fn cluster(&mut self, node: &Node, name: &str) -> Cluster {
        let mut cluster = Cluster::at("");
        for (entry, key, value) in self.mapping(node, &format!("cluster {name:?}")) {
            match entry.as_str() {
                "bootstrap" => cluster.bootstrap = self.text(value, "bootstrap").unwrap_or_default(),
                "settings" => {
                    for (setting, _, value) in self.mapping(value, "settings") {
                        if let Some(read) = self.setting(value, &setting) {
                            cluster.settings.insert(setting, read);
                        }
                    }
                }
                _ => self.mistake(key, format_args!("unknown key {entry:?}; known: bootstrap, settings")),
            }
        }
        if cluster.bootstrap.is_empty() {
            self.mistake(node, format_args!("cluster {name:?} has no bootstrap"));
        }
        cluster
    }

    fn setting(&mut self, node: &Node, name: &str) -> Option<Setting> {
        if let YamlDataOwned::Mapping(_) = node.data {
            let entries = self.mapping(node, name);
            let [(place, _, value)] = entries.as_slice() else {
                self.mistake(
                    node,
                    format_args!("{name} must be a value, {{ env: NAME }} or {{ file: PATH }}"),
                );
                return None;
            };
            let text = self.text(value, name)?;
            return match place.as_str() {
                "env" => Some(Setting::Env(text)),
                "file" => Some(Setting::File(PathBuf::from(text))),
                _ => {
                    self.mistake(node, format_args!("{name}: unknown key {place:?}; known: env, file"));
                    None
                }
            };
        }
        let text = self.text(node, name)?;
        Some(Setting::given(text))
    }

    fn topics(&mut self, node: &Node) -> BTreeMap<String, LogicalTopic> {
        let mut topics = BTreeMap::new();
        for (name, _, value) in self.mapping(node, "topics") {
            let mut topic = LogicalTopic::default();
            if let YamlDataOwned::Sequence(items) = &value.data {
                for item in items {
                    if let Some(cluster) = self.text(item, "a cluster's name") {
                        self.holdings.push((name.clone(), cluster.clone(), item.span.start.line()));
                        topic.clusters.insert(cluster, name.clone());
                    }
                }
            } else {
                for (cluster, key, physical) in self.mapping(value, &format!("topic {name:?}")) {
                    self.holdings.push((name.clone(), cluster.clone(), key.span.start.line()));
                    if let Some(physical) = self.text(physical, "the physical topic") {
                        topic.clusters.insert(cluster, physical);
                    }
                }
            }
            topics.insert(name, topic);
        }
        topics
    }

    fn mapping<'n>(&mut self, node: &'n Node, what: &str) -> Vec<(String, &'n Node, &'n Node)> {
        let YamlDataOwned::Mapping(entries) = &node.data else {
            self.mistake(node, format_args!("{what} must be a mapping"));
            return Vec::new();
        };
        let mut read = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if let Some(name) = self.text(key, "a key") {
                read.push((name, key, value));
            }
        }
        read
    }

    fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.data {
            YamlDataOwned::Value(ScalarOwned::String(text)) => Some(text.clone()),
            YamlDataOwned::Value(ScalarOwned::Integer(number)) => Some(number.to_string()),
            YamlDataOwned::Value(ScalarOwned::Boolean(flag)) => Some(flag.to_string()),
            YamlDataOwned::Value(ScalarOwned::FloatingPoint(number)) => Some(number.to_string()),
            _ => {
                self.mistake(node, format_args!("{what} must be a text, a number or a boolean"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
version: 3
clusters:
  east: { bootstrap: 'localhost:9092' }
  west:
    bootstrap: localhost:9093
    settings:
      security.protocol: sasl_ssl
      socket.timeout.ms: 7000
      sasl.username: app
      sasl.password: hunter2
      ssl.key.password: { env: KEY_PASSWORD }
topics:
  flights: [east, west]
  usage: { west: usage-v2 }
";

    #[test]
    fn f14_yaml_and_json_say_the_same_and_secrets_stay_dark() {
        let topology = parse_topology(GOOD, "t.yaml").unwrap();
        assert_eq!(topology.version, 3);
        let west = &topology.clusters["west"];
        assert_eq!(west.settings["socket.timeout.ms"], Setting::given("7000"));
        assert_eq!(west.settings["ssl.key.password"], Setting::Env("KEY_PASSWORD".into()));
        assert_eq!(west.settings["sasl.password"].resolve().unwrap().reveal(), "hunter2");
        assert!(!format!("{topology:?}").contains("hunter2"));
        assert_eq!(topology.holders("usage"), BTreeMap::from([("west".into(), "usage-v2".into())]));
        let json = r#"{"version": 3, "clusters": {
            "east": {"bootstrap": "localhost:9092"},
            "west": {"bootstrap": "localhost:9093", "settings": {
                "security.protocol": "sasl_ssl", "socket.timeout.ms": 7000, "sasl.username": "app",
                "sasl.password": "hunter2", "ssl.key.password": {"env": "KEY_PASSWORD"}}}},
            "topics": {"flights": ["east", "west"], "usage": {"west": "usage-v2"}}}"#;
        assert_eq!(parse_topology(json, "t.json").unwrap(), topology);
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_line() {
        let text = "
clusters:
  a/b: { bootstrap: h:1 }
  c: { bootstrp: h:1 }
  d: { bootstrap: h:1, settings: { sasl.password: { vault: x } } }
topics:
  flights: [nowhere]
color: red
";
        let message = parse_topology(text, "t.yaml").unwrap_err().to_string();
        for expected in [
            "t.yaml:3: cluster name \"a/b\"",
            "t.yaml:4: unknown key \"bootstrp\"",
            "cluster \"c\" has no bootstrap",
            "t.yaml:5: sasl.password: unknown key \"vault\"; known: env, file",
            "t.yaml:8: unknown key \"color\"",
            "t.yaml:2: version is missing",
            "t.yaml:7: topic \"flights\" is said to be in cluster \"nowhere\", which is not listed",
        ] {
            assert!(message.contains(expected), "{expected:?} is not in\n{message}");
        }
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for text in ["", "[", "a: 1\n---\nb: 2\n", "just text", "version: 1\n", "version: 1\nclusters: {}\n"]
        {
            let error = parse_topology(text, "t.yaml").unwrap_err().to_string();
            assert!(error.starts_with("t.yaml"), "{text:?}: {error}");
        }
        let error = parse_topology("version: 1\nclusters: {\n  a: [\n", "t.yaml").unwrap_err().to_string();
        assert!(error.starts_with("t.yaml:") && error.contains("line"), "{error}");
    }
}
