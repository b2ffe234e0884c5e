//! Checkpoints of earlier versions open (H5): `tests/stores` holds a store that the last version
//! before identities wrote, which derived uids from places. The job that wrote it goes on from there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use thalweg::operators::keyed_aggregate::KeyedAggregate;
use thalweg::prelude::*;

/// Rows that the whole job reads. The store was written by this very job, kept to 2,000 rows a second
/// and stopped after three seconds.
const ROWS: u64 = 20_000;

#[derive(Clone, Debug, PartialEq, Record)]
struct Event {
    id: u64,
    user: u64,
    #[record(time)]
    at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Seen {
    user: u64,
    rows: i64,
}

/// Counts the rows of each user.
#[derive(Clone, Default)]
struct Count {
    rows: ValueState<i64>,
}

impl KeyedProcess for Count {
    type In = Event;
    type Out = Seen;

    fn open(&mut self, cx: &mut ProcessOpen<'_>) -> Result<()> {
        self.rows = cx.value("rows")?;
        Ok(())
    }

    fn process(&mut self, row: EventRow<'_>, cx: &mut ProcessContext<'_, Seen>) -> Result<()> {
        let rows = self.rows.get(cx.state())?.copied().unwrap_or(0) + 1;
        self.rows.set(cx.state(), rows)?;
        cx.emit(Seen { user: row.user, rows });
        Ok(())
    }
}

/// What a run delivered.
#[derive(Default)]
struct Found {
    totals: Collected,
    windows: Collected,
    seen: Collected,
}

/// Nobody but the sinks has a name.
fn job() -> (Environment, Found) {
    let source = Generator::new([
        ("id", Generate::Sequence { start: 0 }),
        ("user", Generate::Key { cardinality: 5, distribution: KeyDistribution::Uniform }),
        ("at", Generate::Time { start: 0, step: MILLI, jitter: 0 }),
    ])
    .splits(2)
    .batch_rows(100)
    .count(ROWS);
    let (env, found) = (Environment::new(), Found::default());
    let events = env
        .source(source)
        .watermarks("at", WatermarkStrategy::bounded_out_of_order(0))
        .filter("id >= 0")
        .filter("user < 100");
    let by_user = events.key_by(&["user"]);
    let totals = by_user.apply(KeyedAggregate::new(by_user.key(), [count().alias("rows"), sum("id")]));
    let windows =
        events.key_by(&["user"]).window(TumblingWindow::seconds(3)).aggregate([count().alias("rows")]);
    let seen = events.typed::<Event>().key_by(["user"]).process(Count::default());
    totals.sink(found.totals.exactly_once_sink()).uid("totals");
    windows.sink(found.windows.exactly_once_sink()).uid("windows");
    seen.sink(found.seen.exactly_once_sink()).uid("seen");
    (env, found)
}

fn run(store: &Path) -> (JobSummary, Found) {
    let (env, found) = job();
    let url = format!("file://{}", store.display());
    let summary = Job::new("unnamed").memory(512 << 20).checkpoints(&url).run(&env).unwrap();
    assert_eq!(summary.outcome, Outcome::Completed);
    (summary, found)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The last row of each user: the one with the most rows.
fn last(lines: Vec<String>) -> BTreeMap<u64, String> {
    let mut last: BTreeMap<u64, (i64, String)> = BTreeMap::new();
    for line in lines {
        let row: serde_json::Value = serde_json::from_str(&line).unwrap();
        let (user, rows) = (row["user"].as_u64().unwrap(), row["rows"].as_i64().unwrap());
        if last.get(&user).is_none_or(|(most, _)| *most < rows) {
            last.insert(user, (rows, line));
        }
    }
    last.into_iter().map(|(user, (_, line))| (user, line)).collect()
}

#[test]
fn h5_a_store_with_uids_of_places_opens_and_its_job_goes_on_with_state_and_offsets() {
    let (empty, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores/derived-uids"), store.path());
    let (_, straight) = run(empty.path());
    let (summary, went_on) = run(store.path());
    assert!(summary.started_from.is_some_and(|from| !from.is_finished));
    for (found, all) in [(&went_on.totals, &straight.totals), (&went_on.seen, &straight.seen)] {
        let (found, all) = (found.sorted_lines().unwrap(), all.sorted_lines().unwrap());
        assert!(found.len() < all.len(), "what was read is not read again");
        assert_eq!(last(found), last(all), "a user's state was lost");
    }
    // No window had fired (one split had not been read): all have the rows that were read before, too.
    assert_eq!(went_on.windows.sorted_lines().unwrap(), straight.windows.sorted_lines().unwrap());
}
