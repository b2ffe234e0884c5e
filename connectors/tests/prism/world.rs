//! Two clusters behind proxies, which the tests of this binary share one after the other, and a
//! topology file over them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use thalweg_connectors::deduplicate::{Deduplicator, Verdict};
use thalweg_connectors::prism::{GatewayConfig, PrismGateway, RouterConfig, RunningGateway};
use thalweg_connectors::record_id::{RECORD_ID_HEADER, RecordId};
use thalweg_engine::metrics::Registry;
use thalweg_testkit::{KafkaCluster, ProxyMode, Record};

/// Longest wait for anything.
pub const BOUND: Duration = Duration::from_secs(90);

/// The clusters, whole when a test gets them.
pub struct World {
    pub east: KafkaCluster,
    pub west: KafkaCluster,
}

/// The clusters, for one test at a time. A test that failed may have left them broken: they are
/// mended first.
pub fn world() -> MutexGuard<'static, World> {
    static WORLD: OnceLock<Mutex<World>> = OnceLock::new();
    let world = WORLD.get_or_init(|| {
        let west = std::thread::spawn(|| KafkaCluster::start_behind_proxy("prism-west").unwrap());
        let east = KafkaCluster::start_behind_proxy("prism-east").unwrap();
        Mutex::new(World { east, west: west.join().unwrap() })
    });
    let world = world.lock().unwrap_or_else(PoisonError::into_inner);
    for cluster in [&world.east, &world.west] {
        cluster.proxy().unwrap().set(ProxyMode::Pass).unwrap();
        cluster.restart().unwrap();
    }
    world
}

/// A logical topic in both clusters, and a topology file that says so.
pub struct Topic {
    _dir: tempfile::TempDir,
    pub name: String,
    pub topology: PathBuf,
}

impl World {
    /// A topic of its own, of `partitions` in each cluster.
    pub fn topic(&self, name: &str, partitions: i32) -> Topic {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::tempdir().unwrap();
        let topology = dir.path().join("topology.yaml");
        let mut text = "version: 1\nclusters:\n".to_string();
        for (cluster, at) in [("east", &self.east), ("west", &self.west)] {
            at.create_topic(&name, partitions).unwrap();
            let bootstrap = at.bootstrap();
            text += &format!(
                "  {cluster}: {{ bootstrap: '{bootstrap}', settings: {{ broker.address.family: v4 }} }}\n"
            );
        }
        text += &format!("topics:\n  {name}: [east, west]\n");
        std::fs::write(&topology, text).unwrap();
        Topic { _dir: dir, name, topology }
    }

    /// What stands in a topic, by cluster.
    pub fn consume(&self, topic: &Topic) -> BTreeMap<&'static str, Vec<Record>> {
        let read = |cluster: &KafkaCluster| cluster.consume(&topic.name).unwrap();
        BTreeMap::from([("east", read(&self.east)), ("west", read(&self.west))])
    }

    /// The records of both clusters without the copies, and how many copies there were.
    pub fn distinct(&self, topic: &Topic) -> (Vec<Record>, u64) {
        let mut seen = Deduplicator::new();
        let mut records: Vec<Record> = self.consume(topic).into_values().flatten().collect();
        records.retain(|record| {
            let header = record.header(RECORD_ID_HEADER).expect("every record has an id");
            seen.see(&RecordId::decode(header).unwrap()) == Verdict::First
        });
        (records, seen.copies())
    }
}

impl Topic {
    /// A router with short patience.
    pub fn router(&self) -> RouterConfig {
        let mut config = RouterConfig::new(&self.topology);
        config.attempt_timeout = Duration::from_millis(1500);
        config.room_wait = Duration::from_millis(200);
        config.breaker.open_for = Duration::from_millis(200);
        config.breaker.open_for_max = Duration::from_secs(1);
        config
    }

    /// A gateway on a free port.
    pub fn gateway(&self, registry: &Registry) -> RunningGateway {
        let config = GatewayConfig { router: self.router(), ..GatewayConfig::new("127.0.0.1:0", "") };
        PrismGateway::start(config, &registry.group(vec![])).unwrap()
    }
}

/// The texts of records, sorted.
pub fn texts(records: &[Record]) -> Vec<String> {
    let mut texts: Vec<_> = records.iter().map(Record::text).collect();
    texts.sort();
    texts
}

/// Whether `records` hold each of `expected` once, and nothing else.
pub fn assert_each_once(records: &[Record], expected: impl IntoIterator<Item = String>) {
    let expected: BTreeSet<String> = expected.into_iter().collect();
    let found = texts(records);
    let distinct: BTreeSet<String> = found.iter().cloned().collect();
    let missing: Vec<_> = expected.difference(&distinct).take(5).collect();
    let strange: Vec<_> = distinct.difference(&expected).take(5).collect();
    assert!(missing.is_empty() && strange.is_empty(), "missing {missing:?}, strange {strange:?}");
    assert_eq!(found.len(), expected.len(), "some came more than once");
}
