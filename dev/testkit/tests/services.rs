//! The test kit against the real thing: a broker that is killed and keeps its data, a network that goes away and
//! returns, blobs through a signature, a child that is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use thalweg_testkit::{
    Azurite, ChildProcess, FaultProxy, KafkaCluster, NewRecord, ProxyMode, Result, eventually, http_get,
    http_request,
};

const BOUND: Duration = Duration::from_secs(30);

#[test]
fn kafka_gives_back_what_was_written() -> Result<()> {
    let kafka = KafkaCluster::shared("a")?;
    kafka.create_topic("round-trip", 2)?;
    kafka.produce(
        "round-trip",
        [
            NewRecord::from(("k", "first")).partition(1).timestamp_ms(1_357_034_400_000).header("id", "7"),
            NewRecord::from("second").partition(1),
            NewRecord::tombstone("k").partition(0),
        ],
    )?;

    let records = kafka.consume("round-trip")?;
    let seen: Vec<_> =
        records.iter().map(|record| (record.partition, record.offset, record.text())).collect();
    assert_eq!(seen, [(0, 0, String::new()), (1, 0, "first".into()), (1, 1, "second".into())]);
    assert_eq!(records[0].payload, None);
    assert_eq!(records[1].key.as_deref(), Some(&b"k"[..]));
    assert_eq!(records[1].timestamp_ms, Some(1_357_034_400_000));
    assert_eq!(records[1].header("id"), Some(&b"7"[..]));
    assert_eq!(kafka.end_offsets("round-trip")?, [1, 2]);
    assert_eq!(kafka.consume_at_least("round-trip", 3, BOUND)?, records);
    Ok(())
}

#[test]
fn kafka_shared_by_name_is_one_and_topics_are_not_made_by_asking() -> Result<()> {
    let kafka = KafkaCluster::shared("a")?;
    assert_eq!(kafka.bootstrap(), KafkaCluster::shared("a")?.bootstrap());
    assert!(kafka.consume("nobody-made-this").is_err());
    kafka.create_topic("short-lived", 1)?;
    kafka.delete_topic("short-lived")
}

#[test]
fn kafka_killed_and_started_again_keeps_its_data_and_its_address() -> Result<()> {
    let kafka = KafkaCluster::start("killed")?;
    kafka.create_topic("kept", 4)?;
    kafka.produce("kept", (0..1_000).map(|n| (format!("k{n}"), format!("v{n}"))))?;
    let before = kafka.consume("kept")?;
    assert_eq!(before.len(), 1_000);

    kafka.kill()?;
    assert!(TcpStream::connect(kafka.bootstrap()).is_err());
    kafka.restart()?;
    assert_eq!(kafka.consume("kept")?, before);

    kafka.stop()?;
    assert!(TcpStream::connect(kafka.bootstrap()).is_err());
    kafka.restart()?;
    kafka.produce("kept", ["one more"])?;
    assert_eq!(kafka.consume("kept")?.len(), 1_001);
    Ok(())
}

#[test]
fn kafka_behind_a_proxy_goes_silent_and_comes_back() -> Result<()> {
    let kafka = KafkaCluster::start_behind_proxy("proxied")?;
    kafka.create_topic("t", 1)?;
    kafka.produce("t", ["a"])?;
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", "g")
        .create()
        .expect("a consumer");
    let asks = |bound| client.fetch_watermarks("t", 0, bound).map(|(_, high)| high);
    assert_eq!(asks(BOUND).expect("an answer through the proxy"), 1);

    kafka.proxy()?.set(ProxyMode::BlackHole)?;
    assert!(asks(Duration::from_secs(2)).is_err());
    kafka.produce("t", ["b"])?;

    kafka.proxy()?.set(ProxyMode::Pass)?;
    let high = eventually(BOUND, "an answer after the outage", || asks(Duration::from_secs(2)).ok())?;
    assert_eq!(high, 2);
    Ok(())
}

#[test]
fn azurite_takes_and_gives_a_blob_through_the_signature() -> Result<()> {
    let azurite = Azurite::shared()?;
    azurite.create_container("round-trip")?;
    azurite.create_container("round-trip")?;
    let blob = azurite.account_sas_url("round-trip/dir/blob")?;
    let headers = [("x-ms-blob-type", "BlockBlob"), ("x-ms-version", "2023-11-03")];
    assert_eq!(http_request("PUT", &blob, &headers, b"a blob's bytes")?.status, 201);
    let only_if_absent = [headers[0], headers[1], ("If-None-Match", "*")];
    assert_eq!(http_request("PUT", &blob, &only_if_absent, b"other bytes")?.status, 409);

    let answer = http_get(&blob)?;
    assert_eq!((answer.status, answer.text().as_str()), (200, "a blob's bytes"));
    let forged = blob.replace("sig=", "sig=A");
    assert_eq!(http_get(&forged)?.status, 403);
    assert_eq!(http_get(blob.split('?').next().unwrap_or_default())?.status, 403);
    Ok(())
}

/// A server that sends back what it hears, for as long as the process lives.
fn echo_server() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream?;
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
        std::io::Result::Ok(())
    });
    Ok(address)
}

fn says(stream: &mut TcpStream, bound: Duration) -> std::io::Result<Duration> {
    let start = Instant::now();
    stream.set_read_timeout(Some(bound))?;
    stream.write_all(b"hello")?;
    stream.read_exact(&mut [0; 5])?;
    Ok(start.elapsed())
}

#[test]
fn proxy_passes_delays_holds_back_refuses_and_cuts() -> Result<()> {
    let proxy = FaultProxy::start()?;
    proxy.forward_to(echo_server().expect("an echo server"))?;
    let connect = || TcpStream::connect(proxy.address());
    let mut stream = connect().expect("a connection");
    says(&mut stream, BOUND).expect("an echo");

    proxy.set(ProxyMode::Delay(Duration::from_millis(100)))?;
    let took = says(&mut stream, BOUND).expect("a late echo");
    assert!(took >= Duration::from_millis(200), "{took:?}");

    proxy.set(ProxyMode::BlackHole)?;
    assert!(says(&mut stream, Duration::from_millis(200)).is_err());
    let mut opened_in_the_dark = connect().expect("an accepted connection");
    assert!(says(&mut opened_in_the_dark, Duration::from_millis(200)).is_err());
    proxy.set(ProxyMode::Pass)?;
    for stream in [&mut stream, &mut opened_in_the_dark] {
        stream.set_read_timeout(Some(BOUND)).expect("a time-out");
        stream.read_exact(&mut [0; 5]).expect("what was said in the dark");
        says(stream, BOUND).expect("an echo");
    }

    proxy.cut()?;
    assert!(says(&mut stream, BOUND).is_err());
    let mut stream = connect().expect("a new connection");
    says(&mut stream, BOUND).expect("an echo");

    proxy.set(ProxyMode::Refuse)?;
    assert!(says(&mut stream, BOUND).is_err());
    assert_eq!(connect().expect_err("a refusal").kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.set(ProxyMode::Pass)?;
    says(&mut connect().expect("a connection"), BOUND).expect("an echo");
    Ok(())
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn child_is_heard_waited_for_and_killed() -> Result<()> {
    let mut child = ChildProcess::spawn(shell("echo out; echo err >&2; exit 3"))?;
    assert_eq!(child.wait(BOUND)?.code(), Some(3));
    assert_eq!((child.stdout().as_str(), child.stderr().as_str()), ("out\n", "err\n"));
    assert!(child.terminate().is_err());

    let mut child = ChildProcess::spawn(shell("echo ready; exec sleep 60"))?;
    child.wait_for_output("ready", BOUND)?;
    let error = child.wait(Duration::from_millis(50)).expect_err("it sleeps").to_string();
    assert!(error.contains("ready"), "{error}");
    assert_eq!(child.kill9()?.code(), None);

    let mut child =
        ChildProcess::spawn(shell("trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done"))?;
    child.wait_for_output("ready", BOUND)?;
    child.terminate()?;
    assert_eq!(child.wait(BOUND)?.code(), Some(4));
    assert!(child.wait_for_output("never said", BOUND).is_err());
    Ok(())
}
