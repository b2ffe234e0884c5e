//! From a cluster of the topology to the settings of a client of librdkafka.
//!
//! Any setting of librdkafka passes through, by cluster (F14). Three layers: what suits us, what the
//! topology says (it wins), and what the source's semantics need (it wins over all). Secrets are
//! resolved here and go nowhere else.

use thalweg_engine::{Context, Result};

use super::client_settings::ClientSettings;
use super::topology::Cluster;

/// Smallest queue of a client, in bytes: less would starve it.
const QUEUE_BYTES_MIN: usize = 1 << 20;
/// What librdkafka holds for each fetched message beside its bytes (304 in 2.12, as allocators round).
const FETCHED_BYTES: usize = 320;
/// How many bytes of memory a byte of a fetch may become: decompressed fivefold, in messages so small
/// that each has three times its own bytes beside it.
const EXPANSION: usize = 16;
/// Smallest answer to a fetch that is asked for. A larger record batch comes all the same.
const FETCH_BYTES_MIN: usize = 64 << 10;
const FETCH_BYTES_MAX: usize = 50 << 20;

/// What the client holds of a record beside key and value, in bytes: its own structure, the headers'
/// and the allocator's rounding.
const MESSAGE_BYTES: usize = 512;

/// What a reader's consumer needs beside its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerNeeds {
    /// Bytes of memory that librdkafka may hold for the reader.
    pub queue_bytes: usize,
    /// How many brokers it fetches from at a time.
    pub brokers: usize,
    /// Whether the reader must hear that a partition is read to its end.
    pub end_of_partition: bool,
}

/// How a consumer's memory is divided: a quarter for messages that wait in the queue, a quarter for
/// those that the reader has taken while the queue fills again, half for what brokers are asked for
/// when the queue is just not full: one fetch in flight for each, as it is when it is decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Division {
    queued_bytes: usize,
    queued_messages: usize,
    fetch_bytes: usize,
}

impl ConsumerNeeds {
    /// Whether a consumer that was made for `made` may hold more than these allow.
    pub fn are_exceeded_by(&self, made: &ConsumerNeeds) -> bool {
        made.queue_bytes > self.queue_bytes || made.brokers < self.brokers
    }

    fn division(&self) -> Division {
        let bytes = self.queue_bytes.max(QUEUE_BYTES_MIN);
        let in_flight = bytes / 2 / self.brokers.max(1) / EXPANSION;
        Division {
            queued_bytes: bytes / 8,
            queued_messages: bytes / 8 / FETCHED_BYTES,
            fetch_bytes: in_flight.clamp(FETCH_BYTES_MIN, FETCH_BYTES_MAX),
        }
    }
}

/// The settings of a reader's consumer.
///
/// # Errors
/// A user error when a secret cannot be resolved.
pub(crate) fn consumer_config(cluster: &Cluster, needs: ConsumerNeeds) -> Result<ClientSettings> {
    let mut config = ClientSettings::new();
    let Division { queued_bytes, queued_messages, fetch_bytes } = needs.division();
    config
        .set("isolation.level", "read_committed")
        .set("queued.max.messages.kbytes", (queued_bytes / 1024).to_string())
        .set("queued.min.messages", queued_messages.to_string())
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
    if !config.has("group.id") {
        config.set("group.id", "thalweg");
    }
    Ok(config)
}

/// The settings of the client that only asks for metadata and offsets.
///
/// # Errors
/// A user error when a secret cannot be resolved.
pub(crate) fn probe_config(cluster: &Cluster) -> Result<ClientSettings> {
    let mut config = ClientSettings::new();
    config.set("isolation.level", "read_committed");
    reconnect_soon(&mut config);
    pass_through(&mut config, cluster)?;
    config.set("enable.auto.commit", "false").set("allow.auto.create.topics", "false");
    config.remove("group.id");
    Ok(config)
}

/// The settings of a producer that loses and doubles nothing within its own life, and holds about
/// `queue_bytes`, whether records are long or short.
///
/// # Errors
/// A user error when a secret cannot be resolved.
pub(crate) fn producer_config(cluster: &Cluster, queue_bytes: usize) -> Result<ClientSettings> {
    let mut config = ClientSettings::new();
    // Half for keys and values, which the client counts, half for what it holds beside them.
    let half = (queue_bytes / 2).max(QUEUE_BYTES_MIN);
    config
        .set("linger.ms", "5")
        .set("queue.buffering.max.kbytes", (half / 1024).to_string())
        .set("queue.buffering.max.messages", (half / MESSAGE_BYTES).to_string());
    reconnect_soon(&mut config);
    pass_through(&mut config, cluster)?;
    config.set("enable.idempotence", "true").set("acks", "all");
    Ok(config)
}

/// An outage should end for us soon after it ends for the cluster.
fn reconnect_soon(config: &mut ClientSettings) {
    config
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.connection.setup.timeout.ms", "5000")
        .set("socket.keepalive.enable", "true")
        .set("log.connection.close", "false");
}

fn pass_through(config: &mut ClientSettings, cluster: &Cluster) -> Result<()> {
    config.set("bootstrap.servers", cluster.bootstrap.as_str());
    for (name, setting) in &cluster.settings {
        let value = setting.resolve().context(|| format!("setting {name}"))?;
        config.give(name, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::topology::Setting;

    #[test]
    fn h8_short_records_fill_a_producer_by_what_they_cost() {
        let config = producer_config(&Cluster::at("h:1"), 32 << 20).unwrap();
        assert_eq!(config.config().get("queue.buffering.max.kbytes"), Some("16384"));
        assert_eq!(config.config().get("queue.buffering.max.messages"), Some("32768"));
        let least = producer_config(&Cluster::at("h:1"), 0).unwrap();
        assert_eq!(least.config().get("queue.buffering.max.kbytes"), Some("1024"), "a record of 1 MB fits");
    }

    #[test]
    fn h8_a_consumers_parts_stay_within_its_bytes_whatever_the_messages_are() {
        for mebibytes in [4, 32, 64, 1024] {
            for brokers in [1, 2, 4] {
                let needs = ConsumerNeeds { queue_bytes: mebibytes << 20, brokers, end_of_partition: false };
                let Division { queued_bytes, queued_messages, fetch_bytes } = needs.division();
                let queued = queued_bytes + queued_messages * FETCHED_BYTES;
                let held = 2 * queued + brokers * fetch_bytes * EXPANSION;
                assert!(
                    held <= needs.queue_bytes.max(brokers * 2 * FETCH_BYTES_MIN * EXPANSION),
                    "{needs:?}: {held}"
                );
            }
        }
    }

    #[test]
    fn a_consumer_is_made_anew_only_when_it_may_hold_too_much() {
        let made = ConsumerNeeds { queue_bytes: 32 << 20, brokers: 2, end_of_partition: false };
        let needs = |queue_bytes, brokers| ConsumerNeeds { queue_bytes, brokers, ..made };
        assert!(needs(16 << 20, 2).are_exceeded_by(&made), "a cluster has joined");
        assert!(needs(32 << 20, 4).are_exceeded_by(&made), "a broker has joined");
        assert!(!needs(64 << 20, 1).are_exceeded_by(&made));
    }

    #[test]
    fn the_topology_wins_over_defaults_and_semantics_win_over_the_topology() {
        let cluster = Cluster::at("h:1")
            .with("fetch.wait.max.ms", Setting::given("7"))
            .with("enable.auto.commit", Setting::given("true"))
            .with("client.rack", Setting::given("eu-1"));
        let needs = ConsumerNeeds { queue_bytes: 8 << 20, brokers: 1, end_of_partition: true };
        let config = consumer_config(&cluster, needs).unwrap();
        let expected = [
            ("bootstrap.servers", "h:1"),
            ("fetch.wait.max.ms", "7"),
            ("client.rack", "eu-1"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("queued.max.messages.kbytes", "1024"),
        ];
        for (name, value) in expected {
            assert_eq!(config.config().get(name), Some(value), "{name}");
        }
    }
}
