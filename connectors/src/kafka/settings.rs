//! From a cluster of the topology to the settings of a client of librdkafka.
//!
//! Three layers: what suits us, what the topology says (it wins), and what the source's semantics
//! need (it wins over all). Secrets are resolved here and go nowhere else.

use rdkafka::ClientConfig;
use thalweg_engine::{Context, Result};

use super::topology::Cluster;

/// Smallest queue of a consumer, in bytes: less would starve the fetcher.
const QUEUE_BYTES_MIN: usize = 1 << 20;

/// What a reader's consumer needs beside its cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConsumerNeeds {
    /// Bytes that librdkafka may hold for the reader.
    pub queue_bytes: usize,
    /// Whether the reader must hear that a partition is read to its end.
    pub end_of_partition: bool,
}

/// The settings of a reader's consumer.
///
/// # Errors
/// A user error when a secret cannot be resolved.
pub(crate) fn consumer_config(cluster: &Cluster, needs: ConsumerNeeds) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    let queue_bytes = needs.queue_bytes.max(QUEUE_BYTES_MIN);
    // Half for what is queued, half for a fetch that arrives when the queue is just not full.
    let fetch_bytes = (queue_bytes / 2).clamp(QUEUE_BYTES_MIN / 2, 50 << 20);
    config
        .set("isolation.level", "read_committed")
        .set("queued.max.messages.kbytes", (queue_bytes / 2 / 1024).to_string())
        .set("queued.min.messages", "100000")
        .set("message.max.bytes", fetch_bytes.min(1_000_000).to_string())
        .set("fetch.max.bytes", fetch_bytes.to_string())
        .set("fetch.message.max.bytes", fetch_bytes.min(1 << 20).to_string())
        // A full queue is a matter of milliseconds here, not of the default second.
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "100")
        // Fetches answer within a tenth of a second: a silence of this length is an outage.
        .set("socket.timeout.ms", "10000");
    reconnect_soon(&mut config);
    pass_through(&mut config, cluster)?;
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        .set("enable.partition.eof", if needs.end_of_partition { "true" } else { "false" })
        // What happens then is the reader's to do, and to count.
        .set("auto.offset.reset", "error");
    // `assign` asks for a group's name; nobody ever joins it or commits to it.
    if config.get("group.id").is_none() {
        config.set("group.id", "thalweg");
    }
    Ok(config)
}

/// The settings of the client that only asks for metadata and offsets.
///
/// # Errors
/// A user error when a secret cannot be resolved.
pub(crate) fn probe_config(cluster: &Cluster) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("isolation.level", "read_committed");
    reconnect_soon(&mut config);
    pass_through(&mut config, cluster)?;
    config.set("enable.auto.commit", "false").set("allow.auto.create.topics", "false");
    config.remove("group.id");
    Ok(config)
}

/// The settings of a producer that loses and doubles nothing within its own life.
///
/// # Errors
/// A user error when a secret cannot be resolved.
pub(crate) fn producer_config(cluster: &Cluster, queue_bytes: usize) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config
        .set("linger.ms", "5")
        .set("queue.buffering.max.kbytes", (queue_bytes.max(QUEUE_BYTES_MIN) / 1024).to_string())
        .set("queue.buffering.max.messages", "1000000");
    reconnect_soon(&mut config);
    pass_through(&mut config, cluster)?;
    config.set("enable.idempotence", "true").set("acks", "all");
    Ok(config)
}

/// An outage should end for us soon after it ends for the cluster.
fn reconnect_soon(config: &mut ClientConfig) {
    config
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.connection.setup.timeout.ms", "5000")
        .set("socket.keepalive.enable", "true")
        .set("log.connection.close", "false");
}

fn pass_through(config: &mut ClientConfig, cluster: &Cluster) -> Result<()> {
    config.set("bootstrap.servers", &cluster.bootstrap);
    for (name, setting) in &cluster.settings {
        let value = setting.resolve().context(|| format!("setting {name}"))?;
        config.set(name, value.reveal());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::topology::Setting;

    #[test]
    fn the_topology_wins_over_defaults_and_semantics_win_over_the_topology() {
        let cluster = Cluster::at("h:1")
            .with("fetch.wait.max.ms", Setting::Plain("7".into()))
            .with("enable.auto.commit", Setting::Plain("true".into()))
            .with("client.rack", Setting::Plain("eu-1".into()));
        let needs = ConsumerNeeds { queue_bytes: 8 << 20, end_of_partition: true };
        let config = consumer_config(&cluster, needs).unwrap();
        let expected = [
            ("bootstrap.servers", "h:1"),
            ("fetch.wait.max.ms", "7"),
            ("client.rack", "eu-1"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("queued.max.messages.kbytes", "4096"),
        ];
        for (name, value) in expected {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
    }
}
