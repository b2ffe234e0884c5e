//! P1: one call with results per record. P2: Prism is killed before the acknowledgement. P8: few
//! connections. Limits, with clear errors.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use thalweg_connectors::prism::{Delivery, GatewayConfig, PrismGateway, PrismTarget, run_gateway};
use thalweg_connectors::record_id::{RECORD_ID_HEADER, RecordId as Id};
use thalweg_engine::metrics::Registry;
use thalweg_proto::prism::prism_client::PrismClient;
use thalweg_proto::prism::record_result::Outcome;
use thalweg_proto::prism::{ErrorCode, Header, ProduceBatchRequest, Record, RecordId, RecordResult};
use thalweg_testkit::{ChildProcess, KafkaCluster, ProxyMode, eventually};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::bench::{Bench, sink, values};
use crate::world::{BOUND, assert_each_once, world};

/// Set for the child process that is a gateway: its configuration's path.
const GATEWAY_CONFIG: &str = "THALWEG_TEST_PRISM_CONFIG";

fn record(key: &str, value: &str, sequence: u64) -> Record {
    Record {
        key: (!key.is_empty()).then(|| Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: vec![Header { key: "h".into(), value: Some(Bytes::from_static(b"x")) }],
        timestamp_ms: Some(1_357_034_400_000),
        id: Some(RecordId { producer: "client".into(), epoch: 3, sequence }),
    }
}

async fn produce(
    client: &mut PrismClient<Channel>,
    topic: &str,
    records: Vec<Record>,
) -> Result<Vec<RecordResult>, tonic::Status> {
    let request = ProduceBatchRequest { topic: topic.into(), records };
    Ok(client.produce_batch(request).await?.into_inner().results)
}

fn code(result: &RecordResult) -> (ErrorCode, bool) {
    match &result.outcome {
        Some(Outcome::Error(error)) => (error.code(), error.retryable),
        other => panic!("no error: {other:?}"),
    }
}

#[test]
fn p1_every_record_gets_its_own_result_and_the_client_names_no_broker() {
    let world = world();
    let topic = world.topic("p1", 3);
    let gateway = topic.gateway(&Registry::default());
    let runtime = Runtime::new().unwrap();
    let results = runtime.block_on(async {
        let mut client = PrismClient::connect(gateway.endpoint()).await.unwrap();
        let mut records: Vec<_> =
            (0..100).map(|n| record(&format!("k{}", n % 7), &format!("r{n}"), n)).collect();
        records[50].value = Some(Bytes::from(vec![b'x'; 1_000_000]));
        records[51].value = None;
        let results = produce(&mut client, &topic.name, records).await.unwrap();
        let unknown = produce(&mut client, "no-such-topic", vec![record("", "x", 0)]).await.unwrap();
        assert_eq!(code(&unknown[0]), (ErrorCode::UnknownTopic, false));
        results
    });
    assert_eq!(results.len(), 100);
    assert_eq!(code(&results[50]), (ErrorCode::RecordTooLarge, false), "the others are not its business");
    let stored = world.consume(&topic);
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), 99);
    for (n, result) in results.iter().enumerate().filter(|(n, _)| *n != 50) {
        let Some(Outcome::Ok(ok)) = &result.outcome else { panic!("{result:?}") };
        let found = stored[ok.cluster.as_str()]
            .iter()
            .find(|record| record.partition == ok.partition && record.offset == ok.offset)
            .expect("the record stands where the result says");
        assert_eq!(found.payload.is_none(), n == 51, "a tombstone stays one");
        assert!(n == 51 || found.text() == format!("r{n}"));
        assert_eq!(found.key.as_deref(), Some(format!("k{}", n % 7).as_bytes()));
        assert_eq!((found.timestamp_ms, found.header("h")), (Some(1_357_034_400_000), Some(&b"x"[..])));
        let id = Id { producer: "client", epoch: 3, sequence: n as u64 };
        assert_eq!(Id::decode(found.header(RECORD_ID_HEADER).unwrap()).unwrap(), id);
    }
    gateway.stop().unwrap();
}

#[test]
fn a_request_over_the_limits_says_which_limit() {
    let world = world();
    let topic = world.topic("limits", 1);
    let mut config = GatewayConfig { router: topic.router(), ..GatewayConfig::new("127.0.0.1:0", "") };
    config.router.limits.records = 10;
    config.router.limits.request_bytes = 1 << 20;
    let gateway = PrismGateway::start(config, &Registry::default().group(vec![])).unwrap();
    Runtime::new().unwrap().block_on(async {
        let mut client = PrismClient::connect(gateway.endpoint()).await.unwrap();
        let many = (0..11).map(|n| record("", "x", n)).collect();
        let error = produce(&mut client, &topic.name, many).await.unwrap_err();
        assert!(error.message().contains("11 records; the limit is 10"), "{error}");
        let mut large = record("", "x", 0);
        large.value = Some(Bytes::from(vec![b'x'; 2 << 20]));
        let error = produce(&mut client, &topic.name, vec![large]).await.unwrap_err();
        assert!(error.message().contains("limit"), "{error}");
        let error = produce(&mut client, "", vec![record("", "x", 0)]).await.unwrap_err();
        assert!(error.message().contains("names no topic"), "{error}");
    });
}

/// Not a test of its own: the gateway that `p2` kills runs here, in a process of its own.
#[test]
fn gateway_process() {
    if let Some(path) = std::env::var_os(GATEWAY_CONFIG) {
        run_gateway(path.as_ref(), &Registry::default()).unwrap();
    }
}

fn start_gateway(config: &std::path::Path, address: SocketAddr) -> ChildProcess {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "gateway::gateway_process", "--nocapture"]).env(GATEWAY_CONFIG, config);
    let child = ChildProcess::spawn(command).unwrap();
    eventually(BOUND, "the gateway to listen", || std::net::TcpStream::connect(address).ok().map(drop))
        .unwrap();
    child
}

#[test]
fn p2_prism_is_killed_before_it_acknowledges_and_nothing_is_lost() {
    let world = world();
    let topic = world.topic("p2", 2);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let config = topic.topology.with_file_name("prism.yaml");
    std::fs::write(&config, format!("listen: '{address}'\ntopology: topology.yaml\n")).unwrap();
    let mut gateway = start_gateway(&config, address);

    let target = PrismTarget::Gateway(format!("http://{address}"));
    let mut bench = Bench::new(&sink(&topic, target).delivery(Delivery::AtLeastOnce));
    bench.write(0..1000).unwrap();
    bench.barrier().unwrap().finish().unwrap();
    // The brokers get the records and their answers do not come back.
    for cluster in [&world.east, &world.west] {
        cluster.proxy().unwrap().set(ProxyMode::Delay(Duration::from_millis(400))).unwrap();
    }
    bench.write(1000..2000).unwrap();
    let pending = bench.barrier().unwrap();
    eventually(BOUND, "a record in a broker", || (world.distinct(&topic).0.len() > 1000).then_some(()))
        .unwrap();
    gateway.kill9().unwrap();
    for cluster in [&world.east, &world.west] {
        cluster.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    }
    let _gateway = start_gateway(&config, address);
    pending.finish().unwrap();
    let (records, _) = world.distinct(&topic);
    assert_each_once(&records, values(0..2000));
}

/// Connections of this process to a broker, as Linux counts them.
fn connections_to(cluster: &KafkaCluster) -> usize {
    let port: u16 = cluster.bootstrap().rsplit(':').next().unwrap().parse().unwrap();
    let remote = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let established = |line: &&str| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next().is_some_and(|remote_address| remote_address.ends_with(&remote))
            && columns.next() == Some("01")
    };
    table.lines().filter(established).count()
}

#[test]
fn p8_broker_connections_do_not_grow_with_clients() {
    let world = world();
    let topic = world.topic("p8", 2);
    let gateway = topic.gateway(&Registry::default());
    let runtime = Runtime::new().unwrap();
    let round = |clients: usize| {
        runtime.block_on(async {
            let mut open = Vec::new();
            for n in 0..clients {
                let mut client = PrismClient::connect(gateway.endpoint()).await.unwrap();
                let records = (0..4).map(|m| record("", &format!("{n}-{m}"), m)).collect();
                let results = produce(&mut client, &topic.name, records).await.unwrap();
                assert!(results.iter().all(|result| matches!(result.outcome, Some(Outcome::Ok(_)))));
                open.push(client);
            }
            let count = connections_to(&world.east) + connections_to(&world.west);
            drop(open);
            count
        })
    };
    let few = round(2);
    let many = round(200);
    assert!(few >= 2, "the count sees nothing");
    assert!(many <= few.max(6), "{few} connections for 2 clients, {many} for 200");
}
