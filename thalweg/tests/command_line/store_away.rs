//! H6: a checkpoint store that goes away, and comes back, behind a proxy in front of Azurite.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use thalweg_testkit::{Azurite, FaultProxy, ProxyMode};

use crate::running::{Running, rows_of, start};

/// No restart: whatever failed a task would end the job.
const JOB: &str = "
job: away
checkpoint: {interval: 200ms, store: az://away/CASE}
restart: {strategy: none}
sources:
  numbers: {kind: generator, rows_per_second: 2000, columns: {id: sequence}}
sinks:
  files: {kind: file, input: numbers, path: out, format: json}
";
/// A hundred intervals between checkpoints. Failures are not waited for: while a publication is in
/// doubt no other checkpoint begins.
const AWAY_US: i64 = 20_000_000;
const BOUND: Duration = Duration::from_secs(120);

/// Azurite behind a proxy, with a container.
fn store() -> (FaultProxy, String) {
    let azurite = Azurite::shared().unwrap();
    azurite.create_container("away").unwrap();
    let authority = azurite.endpoint().trim_start_matches("http://").split('/').next().unwrap();
    let proxy = FaultProxy::start().unwrap();
    proxy.forward_to(authority.parse::<SocketAddr>().unwrap()).unwrap();
    let endpoint = azurite.endpoint().replace(authority, &proxy.address().to_string());
    (proxy, endpoint)
}

fn started(directory: &Path, case: &str, endpoint: &str) -> Running {
    let sas = Azurite::shared().unwrap().account_sas().unwrap();
    let variables = [("AZURE_STORAGE_ENDPOINT", endpoint), ("AZURE_STORAGE_SAS_TOKEN", sas.as_str())];
    start(directory, &JOB.replace("CASE", case), &variables)
}

#[test]
fn h6_a_store_that_is_away_for_a_while_stops_checkpoints_and_not_the_job() {
    let (proxy, endpoint) = store();
    let directory = tempfile::tempdir().unwrap();
    let mut running = started(directory.path(), "for_a_while", &endpoint);
    running.wait_for("checkpoints_completed_total", 2);

    proxy.set(ProxyMode::Refuse).unwrap();
    let gone = Instant::now();
    running.wait_for("last_checkpoint_age_us", AWAY_US);
    assert!(gone.elapsed().as_micros() as i64 >= AWAY_US / 2, "gone for {:?}", gone.elapsed());
    let rows = running.metric("rows_in_total");
    running.wait_for("rows_in_total", rows + 1);
    assert!(running.runs());

    proxy.set(ProxyMode::Pass).unwrap();
    let completed = running.metric("checkpoints_completed_total");
    running.wait_for("checkpoints_completed_total", completed + 2);
    running.signal(libc::SIGTERM);
    let (exit, log) = running.end();
    assert_eq!(exit, Some(143), "{log}");
    let said = log.matches("a checkpoint failed; the job goes on").count() as u64;
    assert!(said <= 1 + gone.elapsed().as_secs() / 60, "said {said} times\n{log}");
    assert!(!log.contains("Failed response"), "the client says every attempt\n{log}");
    let mut ids: Vec<_> =
        rows_of(&directory.path().join("out")).iter().map(|row| row["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert!(ids.iter().enumerate().all(|(at, id)| at as u64 == *id), "gaps or copies in {} ids", ids.len());
}

#[test]
fn h6_a_store_that_is_away_at_the_start_is_waited_for() {
    let (proxy, endpoint) = store();
    proxy.set(ProxyMode::Refuse).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut running = started(directory.path(), "at_the_start", &endpoint);
    running.wait_for_log("waiting for the checkpoint store");
    assert!(running.runs(), "it gave up");
    proxy.set(ProxyMode::Pass).unwrap();
    running.wait_for("checkpoints_completed_total", 1);
    running.signal(libc::SIGTERM);
    let (exit, log) = running.end();
    assert_eq!(exit, Some(143), "{log}");
}

#[test]
fn a_container_that_is_not_there_ends_the_job_at_once() {
    let (_proxy, endpoint) = store();
    let directory = tempfile::tempdir().unwrap();
    let sas = Azurite::shared().unwrap().account_sas().unwrap();
    let variables =
        [("AZURE_STORAGE_ENDPOINT", endpoint.as_str()), ("AZURE_STORAGE_SAS_TOKEN", sas.as_str())];
    let begun = Instant::now();
    let running = start(directory.path(), &JOB.replace("az://away", "az://never-made"), &variables);
    let (exit, log) = running.end();
    assert_eq!(exit, Some(1), "{log}");
    assert!(log.contains("ContainerNotFound") && begun.elapsed() < BOUND / 4, "{:?}\n{log}", begun.elapsed());
}
