//! The gateway's configuration as YAML: text in, [`GatewayConfig`] out, or every mistake with its
//! line. Pure.
//!
//! ```yaml
//! listen: 127.0.0.1:7070
//! topology: topology.yaml            # relative to this file
//! weights: { east: 2, west: 1 }      # 1 unless named; 0 is a standby
//! limits: { request_bytes: 4194304, record_bytes: 900000, records: 20000, in_flight_bytes: 67108864 }
//! attempt_timeout_ms: 3000
//! room_wait_ms: 1000
//! memory_bytes: 268435456            # of the process; in_flight_bytes is then its share of it
//! ```

use std::path::Path;
use std::time::Duration;

use saphyr::{LoadableYamlNode, MarkedYamlOwned, ScalarOwned, YamlDataOwned};
use thalweg_engine::{Error, Result};

use super::config::{GatewayConfig, RouterConfig};

/// The shortest time a cluster gets for a record.
const ATTEMPT_MS_MIN: u64 = 100;

type Node = MarkedYamlOwned;

/// Reads a gateway's configuration. `origin` (the file's path) stands in front of every mistake;
/// the topology's path is relative to its directory.
///
/// # Errors
/// A user error with every mistake, a line each, as `origin:line: what`.
pub fn parse_gateway_config(text: &str, origin: &Path) -> Result<GatewayConfig> {
    let shown = origin.display().to_string();
    let mut documents =
        MarkedYamlOwned::load_from_str(text).map_err(|error| Error::user(format!("{shown}: {error}")))?;
    let Some(root) = (documents.len() == 1).then(|| documents.remove(0)) else {
        return Err(Error::user(format!("{shown}: expected one document, found {}", documents.len())));
    };
    let mut reading = Reading { origin: shown, mistakes: Vec::new() };
    let mut config = reading.gateway(&root);
    if !reading.mistakes.is_empty() {
        return Err(Error::user(reading.mistakes.join("\n")));
    }
    if let Some(directory) = origin.parent() {
        config.router.topology = directory.join(&config.router.topology);
    }
    Ok(config)
}

struct Reading {
    origin: String,
    mistakes: Vec<String>,
}

impl Reading {
    fn mistake(&mut self, node: &Node, what: impl std::fmt::Display) {
        self.mistakes.push(format!("{}:{}: {what}", self.origin, node.span.start.line()));
    }

    fn gateway(&mut self, root: &Node) -> GatewayConfig {
        let mut config = GatewayConfig::new("", "");
        let mut memory = None;
        for (name, key, value) in self.mapping(root, "the configuration") {
            match name.as_str() {
                "listen" => config.listen = self.text(value, "listen"),
                "topology" => config.router.topology = self.text(value, "topology").into(),
                "weights" => {
                    for (cluster, _, weight) in self.mapping(value, "weights") {
                        let weight = self.number(weight, &format!("the weight of {cluster}"), 0, 1_000);
                        config.router.weights.insert(cluster, u32::try_from(weight).unwrap_or(1));
                    }
                }
                "limits" => self.limits(value, &mut config.router),
                "memory_bytes" => memory = Some((value, self.number(value, &name, 1, 1 << 40))),
                "attempt_timeout_ms" => {
                    config.router.attempt_timeout =
                        Duration::from_millis(self.number(value, &name, ATTEMPT_MS_MIN, 300_000));
                }
                "room_wait_ms" => {
                    config.router.room_wait = Duration::from_millis(self.number(value, &name, 0, 60_000));
                }
                _ => self.mistake(
                    key,
                    format_args!(
                        "unknown key {name:?}; known: listen, topology, weights, limits, attempt_timeout_ms, \
                         room_wait_ms, memory_bytes"
                    ),
                ),
            }
        }
        if let Some((node, bytes)) = memory {
            match config.clone().with_memory(usize::try_from(bytes).unwrap_or(usize::MAX)) {
                Ok(divided) => config = divided,
                Err(error) => self.mistake(node, error),
            }
        }
        if config.listen.is_empty() {
            self.mistake(root, "listen is missing, such as 127.0.0.1:7070");
        }
        if config.router.topology.as_os_str().is_empty() {
            self.mistake(root, "topology is missing: the path of the topology file");
        }
        config
    }

    fn limits(&mut self, node: &Node, router: &mut RouterConfig) {
        for (name, key, value) in self.mapping(node, "limits") {
            let limits = &mut router.limits;
            let limit = match name.as_str() {
                "request_bytes" => &mut limits.request_bytes,
                "record_bytes" => &mut limits.record_bytes,
                "records" => &mut limits.records,
                "in_flight_bytes" => &mut limits.in_flight_bytes,
                _ => {
                    let known = "request_bytes, record_bytes, records, in_flight_bytes";
                    self.mistake(key, format_args!("unknown limit {name:?}; known: {known}"));
                    continue;
                }
            };
            let number = self.number(value, &name, 1, 1 << 40);
            *limit = usize::try_from(number).unwrap_or(usize::MAX);
        }
        let limits = &router.limits;
        if limits.record_bytes > limits.request_bytes || limits.request_bytes > limits.in_flight_bytes {
            self.mistake(node, "record_bytes <= request_bytes <= in_flight_bytes does not hold");
        }
    }

    fn mapping<'n>(&mut self, node: &'n Node, what: &str) -> Vec<(String, &'n Node, &'n Node)> {
        let YamlDataOwned::Mapping(entries) = &node.data else {
            self.mistake(node, format_args!("{what} must be a mapping"));
            return Vec::new();
        };
        entries.iter().map(|(key, value)| (self.text(key, "a key"), key, value)).collect()
    }

    fn number(&mut self, node: &Node, what: &str, min: u64, max: u64) -> u64 {
        match &node.data {
            YamlDataOwned::Value(ScalarOwned::Integer(number)) => {
                let number = u64::try_from(*number).ok().filter(|number| (min..=max).contains(number));
                number.unwrap_or_else(|| {
                    self.mistake(node, format_args!("{what} must lie between {min} and {max}"));
                    min
                })
            }
            _ => {
                self.mistake(node, format_args!("{what} must be a whole number"));
                min
            }
        }
    }

    fn text(&mut self, node: &Node, what: &str) -> String {
        match &node.data {
            YamlDataOwned::Value(ScalarOwned::String(text)) => text.clone(),
            YamlDataOwned::Value(ScalarOwned::Integer(number)) => number.to_string(),
            _ => {
                self.mistake(node, format_args!("{what} must be a text"));
                String::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_configuration_is_read_relative_to_its_file() {
        let text = "listen: 127.0.0.1:0\ntopology: t.yaml\nweights: { east: 2, west: 0 }\n\
                    limits: { records: 5 }\nattempt_timeout_ms: 1500\n";
        let config = parse_gateway_config(text, Path::new("/etc/prism/prism.yaml")).unwrap();
        assert_eq!(config.router.topology, PathBuf::from("/etc/prism/t.yaml"));
        assert_eq!(config.router.weights["east"], 2);
        assert_eq!(config.router.limits.records, 5);
        assert_eq!(config.router.attempt_timeout, Duration::from_millis(1500));
    }

    #[test]
    fn memory_says_what_may_be_in_flight() {
        let read = |memory: u64| {
            let text = format!("listen: a:1\ntopology: t\nmemory_bytes: {memory}\n");
            parse_gateway_config(&text, Path::new("p.yaml"))
        };
        let config = read(256 << 20).unwrap();
        assert!((450..550).contains(&config.calls), "{}", config.calls);
        let in_flight = config.router.limits.in_flight_bytes;
        assert!((32 << 20..64 << 20).contains(&in_flight), "{in_flight}");
        let error = read(64 << 20).unwrap_err().to_string();
        let needed = error.strip_prefix("p.yaml:3: 67108864 bytes of memory are too few: ").unwrap();
        let needed: u64 = needed.rsplit(' ').next().unwrap().parse().unwrap();
        read(needed + 1_000).unwrap();
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_line() {
        let text = "listne: x\nweights: { a: many }\nlimits: { record_bytes: 10, request_bytes: 5, pigs: 1 }\n\
                    attempt_timeout_ms: 1\n";
        let error = parse_gateway_config(text, Path::new("p.yaml")).unwrap_err().to_string();
        let lines: Vec<_> = error.lines().collect();
        let expected = [
            "p.yaml:1: unknown key \"listne\"",
            "p.yaml:2: the weight of a must be a whole number",
            "p.yaml:3: unknown limit \"pigs\"",
            "p.yaml:3: record_bytes <= request_bytes",
            "p.yaml:4: attempt_timeout_ms must lie between 100 and",
            "p.yaml:1: listen is missing",
            "p.yaml:1: topology is missing",
        ];
        assert_eq!(lines.len(), expected.len(), "{error}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line}");
        }
    }
}
