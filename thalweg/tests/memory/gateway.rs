//! H8 for the gateway: many clients with large requests, and a cluster that answers nobody.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use thalweg_proto::prism::prism_client::PrismClient;
use thalweg_proto::prism::{ProduceBatchRequest, Record};
use tonic::Code;
use tonic::transport::Channel;

use super::{DEBUG_TEXT_BYTES, SLACK_PERCENT, resident_max};

/// The gateway's memory.
const LIMIT_BYTES: u64 = 256 << 20;
const CLIENTS: usize = 500;
/// Calls of each client at once.
const CALLS: usize = 1;
/// How often a client tries again, and how long it waits before.
const TRIES: usize = 300;
const BACKOFF: Duration = Duration::from_millis(100);

/// A request of two MiB.
fn request() -> ProduceBatchRequest {
    let record = Record { value: Some(vec![b'x'; 4096].into()), ..Record::default() };
    ProduceBatchRequest { topic: "t".into(), records: vec![record; 512] }
}

/// Calls until the request is dealt with. Answers how often it was refused.
async fn call(mut client: PrismClient<Channel>) -> usize {
    for refused in 0..TRIES {
        match client.produce_batch(request()).await {
            Ok(_) => return refused,
            Err(status) if status.code() == Code::ResourceExhausted => {}
            Err(status) => panic!("{status}"),
        }
        tokio::time::sleep(BACKOFF).await;
    }
    panic!("a client never had its turn");
}

#[test]
fn h8_a_gateway_under_many_clients_refuses_what_it_has_no_room_for() {
    let directory = tempfile::tempdir().unwrap();
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let topology = format!(
        "version: 1\nclusters: {{ a: {{ bootstrap: '{}' }} }}\ntopics: {{ t: [a] }}\n",
        silent.local_addr().unwrap()
    );
    std::fs::write(directory.path().join("topology.yaml"), topology).unwrap();
    let config = format!("listen: 127.0.0.1:0\ntopology: topology.yaml\nmemory_bytes: {LIMIT_BYTES}\n");
    std::fs::write(directory.path().join("prism.yaml"), config).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["prism", "--config", "prism.yaml"])
        .current_dir(directory.path())
        .env("THALWEG_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let address = log.by_ref().find_map(|line| {
        let address = line.split("address=").nth(1)?;
        Some(address.split_whitespace().next()?.to_string())
    });
    let endpoint = format!("http://{}", address.expect("the gateway ended before it listened"));
    let rest = std::thread::spawn(move || log.for_each(drop));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut refused = 0;
    runtime.block_on(async {
        let mut calls = Vec::new();
        for _ in 0..CLIENTS {
            let client = PrismClient::connect(endpoint.clone()).await.unwrap();
            calls.extend((0..CALLS).map(|_| tokio::spawn(call(client.clone()))));
        }
        for call in calls {
            refused += call.await.unwrap();
        }
    });
    let most = resident_max(child.id()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    rest.join().unwrap();
    println!("{refused} calls refused, {} MiB", most >> 20);
    assert!(refused > 0, "there was room for all: nothing was shown");
    let bound = LIMIT_BYTES * (100 + SLACK_PERCENT) / 100 + DEBUG_TEXT_BYTES;
    assert!(most <= bound, "{} MiB resident with {} MiB given", most >> 20, LIMIT_BYTES >> 20);
}
