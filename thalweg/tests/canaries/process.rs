//! The same for a job that runs: what the process logs at any level, prints, serves and writes.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything.
const BOUND: Duration = Duration::from_secs(60);

/// Texts that are used while a job runs: names and addresses of the world, expressions, secrets.
const JOB: &str = "
job: running
checkpoint: {interval: 200ms, store: 'file:${STORE}'}
state_dir: ${STATE}
sources:
  made: {kind: generator, rows_per_second: 500, columns: {id: sequence}}
  records: {kind: kafka, topic: '${TOPIC}', topology: '${TOPOLOGY}', format: raw}
steps:
  some: {kind: filter, input: made, where: \"id >= 0 and '${LITERAL}' <> 'x'\"}
sinks:
  out: {kind: file, input: some, path: '${OUT}', format: json}
  gone: {kind: blackhole, input: records}
  gateway: {kind: prism, input: some, topic: '${TOPIC}', endpoint: '${ENDPOINT}', format: json, staging: '${STAGING}'}
  broker:
    kind: kafka
    input: some
    topic: ${TOPIC}
    bootstrap_servers: ${BROKERS}
    format: json
    settings: {security.protocol: sasl_plaintext, sasl.mechanism: PLAIN, sasl.username: '${USERNAME}', sasl.password: '${PASSWORD}', client.id: '${CLIENT}', statistics.interval.ms: 100, debug: all}
";

/// The topology, whose secrets come out of the environment and a file.
const TOPOLOGY: &str = "
version: 1
clusters:
  east:
    bootstrap: 127.0.0.1:1
    settings:
      security.protocol: sasl_plaintext
      sasl.mechanism: PLAIN
      sasl.username: { env: TOPOLOGY_USERNAME }
      sasl.password: { file: secret-file }
      client.id: hush-canary-client
      statistics.interval.ms: '100'
      debug: all
topics:
  hush-canary-topic: [east]
";

const VARIABLES: [(&str, &str); 13] = [
    ("STORE", "hush-canary-store"),
    ("STATE", "hush-canary-state"),
    ("TOPIC", "hush-canary-topic"),
    ("TOPOLOGY", "hush-canary-topology.yaml"),
    ("LITERAL", "Hush-Canary literal"),
    ("OUT", "hush-canary-out"),
    ("ENDPOINT", "http://hush-canary-gateway.invalid:1"),
    ("STAGING", "hush-canary-staging"),
    ("BROKERS", "hush-canary-one.invalid:1,hush-canary-two.invalid:1"),
    ("USERNAME", "hush-secret-username"),
    ("PASSWORD", "hush-secret-password"),
    ("CLIENT", "hush-secret-client"),
    ("TOPOLOGY_USERNAME", "hush-secret-of-topology"),
];

fn thalweg(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    command.args(arguments).current_dir(directory).env_remove("THALWEG_LOG");
    command
}

/// Everything below a directory: its files' contents, with whose they are.
fn written(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(written(&path));
        } else if let Ok(content) = std::fs::read(&path) {
            found.push((path.display().to_string(), content));
        }
    }
    found
}

fn contains(content: &[u8], text: &str) -> bool {
    content.to_ascii_lowercase().windows(text.len()).any(|window| window == text.as_bytes())
}

/// The metrics as they are served; empty while they are not.
fn metrics(address: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut connection) = std::net::TcpStream::connect(address) {
        let _ = write!(connection, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let _ = connection.read_to_string(&mut answer);
    }
    answer
}

fn end(mut child: Child) -> Output {
    for _ in 0..2 {
        // SAFETY: the child is ours and has not been waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
        std::thread::sleep(Duration::from_millis(200));
        if child.try_wait().unwrap().is_some() {
            break;
        }
    }
    child.wait_with_output().unwrap()
}

#[test]
fn f14_a_running_job_logs_prints_serves_and_writes_no_canary() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    std::fs::write(file("job.yaml"), JOB).unwrap();
    std::fs::write(file("hush-canary-topology.yaml"), TOPOLOGY).unwrap();
    std::fs::write(file("secret-file"), "hush-secret-in-file\n").unwrap();
    let address = {
        // A port that is free now.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let log = std::fs::File::create(file("log")).unwrap();
    let arguments = ["--log", "trace", "run", "job.yaml", "--metrics-addr", &address];
    let child = thalweg(directory.path(), &arguments)
        .envs(VARIABLES)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    // Until everybody has tried to reach whom it cannot.
    let started = Instant::now();
    let mut served = String::new();
    while !(served.contains("uid=\"broker\"") && started.elapsed() > Duration::from_secs(3)) {
        assert!(started.elapsed() < BOUND, "the job does not run: {served}");
        std::thread::sleep(Duration::from_millis(100));
        served = metrics(&address);
    }
    let printed = String::from_utf8_lossy(&end(child).stdout).to_lowercase();
    let log = std::fs::read_to_string(file("log")).unwrap().to_lowercase();
    assert!(log.lines().count() > 50 && log.contains("${brokers}"), "little is logged:\n{log}");
    for (what, text) in [("log", &log), ("output", &printed), ("metrics", &served.to_lowercase())] {
        let line = text.lines().find(|line| line.contains("hush"));
        assert_eq!(line, None, "a canary is in the {what}");
    }
    // Names are written where they name something; secrets nowhere.
    for (path, content) in written(directory.path()) {
        let is_given = path.ends_with("secret-file");
        assert!(is_given || !contains(&content, "hush-secret"), "a secret is in {path}");
    }
}

/// A topology whose cluster has a setting that no client takes.
const TOPOLOGY_WITH: &str = "
version: 1
clusters:
  east: { bootstrap: '127.0.0.1:1', settings: { SETTING } }
topics:
  events: [east]
";

/// Runs until the process has said `awaited`, or ends.
fn said_by(command: &mut Command, awaited: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("said");
    let said = std::fs::File::create(&path).unwrap();
    let mut child = command.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
    let started = Instant::now();
    loop {
        let has_ended = child.try_wait().unwrap().is_some();
        let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
        if has_ended {
            return text;
        }
        if text.contains(awaited) || started.elapsed() > BOUND {
            end(child);
            return std::fs::read_to_string(&path).unwrap().to_lowercase();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn f14_a_client_that_refuses_its_settings_does_not_repeat_them() {
    let made = "made: {kind: generator, rows: 10, columns: {id: sequence}}";
    let sink = |sink: &str| {
        format!("job: j\nsources:\n  {made}\nsinks:\n  out: {{{sink}, input: made, format: json}}\n")
    };
    let broker =
        "kind: kafka, topic: events, bootstrap_servers: '127.0.0.1:1', settings: {sasl.pasword: '${HUSH}'}";
    let source = "job: j\nsources:\n  read: {kind: kafka, topic: events, topology: topology.yaml, format: raw}\n\
                  sinks:\n  out: {kind: blackhole, input: read}\n";
    let gateway = "listen: 127.0.0.1:0\ntopology: topology.yaml\n";
    let misspelt = "sasl.pasword: { env: HUSH }";
    let wrong = "security.protocol: sasl_plaintext, sasl.mechanism: hush-canary";
    let router = sink("kind: prism, topic: events, topology: topology.yaml");
    let (run, prism) = (["run", "world.yaml"].as_slice(), ["prism", "--config", "world.yaml"].as_slice());
    let worlds = [
        ("sink", run, sink(broker).as_str(), ""),
        ("router", run, &router, misspelt),
        ("router", run, &router, wrong),
        ("source", run, source, misspelt),
        ("source", run, source, wrong),
        ("gateway", prism, gateway, misspelt),
        ("gateway", prism, gateway, wrong),
    ]
    .map(|(name, arguments, world, setting)| (name, arguments, world.to_string(), setting));
    for (name, arguments, world, setting) in worlds {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("world.yaml"), &world).unwrap();
        let topology = TOPOLOGY_WITH.replace("SETTING", setting);
        std::fs::write(directory.path().join("topology.yaml"), topology).unwrap();
        let mut command = thalweg(directory.path(), &[&["--log", "trace"], arguments].concat());
        let said = said_by(command.env("HUSH", "hush-canary"), "librdkafka refuses the setting");
        assert!(said.contains("librdkafka refuses the setting"), "{name} does not refuse {setting}: {said}");
        assert!(said.contains("sasl"), "{name} does not say which setting: {said}");
        assert!(!said.contains("hush"), "{name}: {said}");
    }
}
