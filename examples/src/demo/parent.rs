//! The parent: starts everything, breaks what it started, and judges.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use thalweg::connectors::prism::{GatewayConfig, PrismGateway};
use thalweg::engine::metrics::Registry;
use thalweg::prelude::*;
use thalweg_testkit::Azurite;

use super::clusters::Clusters;
use super::progress::{Progress, parse};
use super::verify::{Verdict, verify};
use super::{CLUSTERS, FLIGHTS, OUTPUTS};
use crate::data::{Flight, load, shipped_file};
use crate::expected::{CarrierHour, Expected, expected};

/// How long `west` is away.
const OUTAGE: Duration = Duration::from_secs(4);
/// How long the whole job may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Rows that each of the two tasks reads in a second, so that there is something to see.
const ROWS_PER_SECOND: u32 = 1_000;
/// The same on real brokers, which take some ten seconds to come back.
const ROWS_PER_SECOND_REAL: u32 = 500;

/// What is done to the job while it runs.
#[derive(Clone, Debug)]
pub struct Script {
    /// Real brokers and Azurite, or everything embedded.
    pub real: bool,
    /// Rows that each of the two tasks reads in a second.
    pub rows_per_second: u32,
    /// Whether cluster `west` goes away for some seconds, once a fifth of the rows is read.
    pub outage: bool,
    /// When the job's process is killed: so long after it was started.
    pub kills: Vec<KillAt>,
}

/// When the job's process gets its SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillAt {
    /// So long after it was started.
    After(Duration),
    /// When it has read half of all rows, no outage is on, and a checkpoint is there.
    Halfway,
}

/// What came of a script.
#[derive(Clone, Debug)]
pub struct Report {
    /// Input rows.
    pub rows: usize,
    /// What had to be found.
    pub expected: Expected,
    /// What was.
    pub verdict: Verdict,
    /// How often the process was started again.
    pub restarts: u32,
    /// How often a cluster went away and came back.
    pub outages: u32,
}

impl Report {
    /// Whether every result arrived, exactly once and right.
    pub fn is_clean(&self) -> bool {
        let whole =
            self.verdict.records_in == self.rows && self.verdict.results_out == self.expected.results();
        whole && self.verdict.lost == 0 && self.verdict.duplicated == 0 && self.verdict.wrong == 0
    }
}

/// Runs the demo. Returns whether every result arrived exactly once.
///
/// # Errors
/// When a part of it cannot be started or ends before its time.
pub fn run_parent(real: bool) -> Result<bool> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Error::external("no path of this program").caused_by(error))?;
    let kills = vec![KillAt::Halfway];
    let rows_per_second = if real { ROWS_PER_SECOND_REAL } else { ROWS_PER_SECOND };
    let script = Script { real, rows_per_second, outage: true, kills };
    let report = run_script(&program, &script)?;
    show(&report.expected);
    print_report(&report);
    Ok(report.is_clean() && report.restarts == 1 && report.outages == 1)
}

/// Runs the job, with `program job ..` as its process, through a script.
///
/// # Errors
/// When a part of it cannot be started or ends before its time.
pub fn run_script(program: &Path, script: &Script) -> Result<Report> {
    let flights = load(&shipped_file())?;
    let expected = expected(&flights)?;
    println!("{} flights; a plain loop finds {} results in them", flights.len(), expected.results());
    let directory =
        tempfile::tempdir().map_err(|error| Error::external("no temporary directory").caused_by(error))?;
    let clusters = if script.real { Clusters::real()? } else { Clusters::embedded()? };
    for cluster in CLUSTERS {
        let own = flights.iter().filter(|flight| flight.cluster() == cluster).map(Flight::json);
        let payloads = own.collect::<Result<Vec<_>>>()?;
        let count = clusters.produce(cluster, payloads.into_iter())?;
        println!("cluster {cluster} at {} holds {count} flights", clusters.bootstrap(cluster));
    }
    let topology = directory.path().join("topology.yaml");
    let written = std::fs::write(&topology, topology_text(&clusters));
    written.map_err(|error| Error::external("cannot write the topology").caused_by(error))?;
    let metrics = Registry::default();
    let gateway =
        PrismGateway::start(GatewayConfig::new("127.0.0.1:0", &topology), &metrics.group(Vec::new()))?;
    println!("prism at {}", gateway.endpoint());
    let azurite = if script.real { Some(Store::azurite()?) } else { None };
    let store = azurite.as_ref().map_or_else(
        || format!("file://{}", directory.path().join("checkpoints").display()),
        |store| store.url.clone(),
    );
    println!("checkpoints in {}", if script.real { "Azurite, az://demo" } else { "a local directory" });

    let mut command = Command::new(program);
    command.arg("job").arg(&topology).arg(gateway.endpoint()).arg(&store).arg(directory.path().join("state"));
    command.arg(script.rows_per_second.to_string());
    if let Some(store) = &azurite {
        command.envs(store.environment.iter().cloned());
    }
    let (restarts, outages) =
        std::thread::scope(|scope| drive(scope, &mut command, &clusters, script, flights.len()))?;
    let verdict = verify(&clusters, &expected)?;
    gateway.stop()?;
    Ok(Report { rows: flights.len(), expected, verdict, restarts, outages })
}

fn topology_text(clusters: &Clusters) -> String {
    let mut text = "version: 1\nclusters:\n".to_string();
    for cluster in CLUSTERS {
        let bootstrap = clusters.bootstrap(cluster);
        // Little is fetched ahead, so that an outage is felt at once.
        let settings = "reconnect.backoff.ms: \"50\", reconnect.backoff.max.ms: \"500\", \
                        queued.min.messages: \"200\", queued.max.messages.kbytes: \"64\"";
        text.push_str(&format!(
            "  {cluster}: {{ bootstrap: \"{bootstrap}\", settings: {{ {settings} }} }}\n"
        ));
    }
    text.push_str("topics:\n");
    for topic in std::iter::once(FLIGHTS).chain(OUTPUTS) {
        text.push_str(&format!("  {topic}: [{}]\n", CLUSTERS.join(", ")));
    }
    text
}

/// A real Azure Blob API, and what the child must know of it.
struct Store {
    _azurite: Azurite,
    url: String,
    environment: Vec<(&'static str, String)>,
}

impl Store {
    fn azurite() -> Result<Store> {
        let failed = |error| Error::external(format!("Azurite: {error}"));
        let azurite = Azurite::start().map_err(failed)?;
        azurite.create_container("demo").map_err(failed)?;
        let environment = vec![
            ("AZURE_STORAGE_ACCOUNT", thalweg_testkit::AZURITE_ACCOUNT.to_string()),
            ("AZURE_STORAGE_ENDPOINT", azurite.endpoint().to_string()),
            ("AZURE_STORAGE_SAS_TOKEN", azurite.account_sas().map_err(failed)?.to_string()),
        ];
        Ok(Store { _azurite: azurite, url: "az://demo/checkpoints".to_string(), environment })
    }
}

/// The child and its progress.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

fn spawn(command: &mut Command) -> Result<Running> {
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child =
        child.map_err(|error| Error::external("the job's process did not start").caused_by(error))?;
    let (sender, lines) = channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    Ok(Running { child, lines })
}

/// How far the outage of a run has come.
enum Outage<'scope> {
    Due,
    Away(Instant),
    Returning(ScopedJoinHandle<'scope, Result<()>>),
    Over,
}

impl<'scope> Outage<'scope> {
    /// Takes the next step when it is time. A real broker takes its time to return, and the job is
    /// looked at meanwhile.
    fn advance<'env>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        clusters: &'env Clusters,
        may_begin: bool,
    ) -> Result<Outage<'scope>> {
        Ok(match self {
            Outage::Due if may_begin => {
                println!("--- cluster west goes away");
                clusters.take_away("west")?;
                Outage::Away(Instant::now())
            }
            Outage::Away(since) if since.elapsed() > OUTAGE => {
                Outage::Returning(scope.spawn(|| clusters.bring_back("west")))
            }
            Outage::Returning(returning) if returning.is_finished() => {
                returning.join().map_err(|_| Error::internal("bringing a cluster back panicked"))??;
                println!("--- cluster west is back");
                Outage::Over
            }
            waiting => waiting,
        })
    }

    fn is_over(&self) -> bool {
        matches!(self, Outage::Over)
    }
}

/// Runs the child to its end through an outage and kills. Returns the restarts and the outages.
fn drive<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    command: &mut Command,
    clusters: &'env Clusters,
    script: &Script,
    rows: usize,
) -> Result<(u32, u32)> {
    let started = Instant::now();
    let mut running = spawn(command)?;
    let mut run_since = Instant::now();
    let mut restarts = 0;
    let mut outage = if script.outage { Outage::Due } else { Outage::Over };
    let mut kills = script.kills.iter();
    let mut kill = kills.next();
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let mut progress = Progress::default();
    loop {
        if started.elapsed() > PATIENCE {
            let _ = running.child.kill();
            return Err(Error::external(format!("the job is not over after {PATIENCE:?}")));
        }
        if let Ok(line) = running.lines.recv_timeout(Duration::from_millis(50)) {
            println!("{:5.1} s | {line}", started.elapsed().as_secs_f64());
            progress = parse(&line).unwrap_or(progress);
        }
        outage = outage.advance(scope, clusters, progress.rows_in > rows / 5)?;
        let status =
            running.child.try_wait().map_err(|error| Error::external("lost the job").caused_by(error))?;
        if let Some(status) = status {
            for line in running.lines.try_iter() {
                println!("{:5.1} s | {line}", started.elapsed().as_secs_f64());
            }
            if !status.success() {
                return Err(Error::external(format!("the job's process ended with {status}")));
            }
            return Ok((restarts, u32::from(script.outage && outage.is_over())));
        }
        let halfway = progress.rows_in > rows / 2 && progress.checkpoint > 0 && outage.is_over();
        let due = match kill {
            Some(KillAt::After(delay)) => run_since.elapsed() >= *delay,
            Some(KillAt::Halfway) => halfway,
            None => false,
        };
        if due {
            println!("--- kill -9 {}", running.child.id());
            let _ = running.child.kill();
            let _ = running.child.wait();
            restarts += 1;
            running = spawn(command)?;
            run_since = Instant::now();
            println!("--- started again from checkpoint {} or a later one", progress.checkpoint);
            progress = Progress::default();
            kill = kills.next();
        }
    }
}

fn show(expected: &Expected) {
    let mut carriers: std::collections::BTreeMap<&str, i64> = std::collections::BTreeMap::new();
    for ((carrier, _), hour) in &expected.hours {
        *carriers.entry(carrier).or_default() += hour.flights;
    }
    let mut busiest: Vec<_> = carriers.into_iter().collect();
    busiest.sort_by_key(|(_, flights)| -flights);
    println!("\nbusiest carriers   flights");
    for (carrier, flights) in busiest.iter().take(5) {
        println!("  {carrier:<17}{flights:>7}");
    }
    let mut worst: Vec<_> = expected.hours.iter().filter(|(_, hour)| hour.flights >= 5).collect();
    worst.sort_by(|a, b| b.1.mean_delay.total_cmp(&a.1.mean_delay));
    println!("worst hours        carrier  flights  mean delay  greatest");
    for ((carrier, start), hour) in worst.iter().take(5) {
        let hours = start / HOUR - 1_356_998_400 / 3_600;
        let when = format!("January {} {:02}h UTC", hours / 24 + 1, hours % 24);
        let CarrierHour { flights, mean_delay, max_delay } = hour;
        println!("  {when:<17} {carrier:<7} {flights:>8} {mean_delay:>7.0} min {max_delay:>5} min");
    }
    println!("alerts             {}\n", expected.alerts.len());
}

fn print_report(report: &Report) {
    let Report { verdict, restarts, outages, .. } = report;
    println!("copies dropped by id: {}", verdict.copies);
    println!("records in: {}", verdict.records_in);
    println!("results out: {}", verdict.results_out);
    println!("lost: {}", verdict.lost);
    println!("duplicated: {}", verdict.duplicated);
    println!("wrong: {}", verdict.wrong);
    println!("restarts: {restarts}");
    println!("outages survived: {outages}");
}
