//! Checkpoints of earlier versions open (H5): stores that those versions wrote lie in
//! `tests/stores`, and the jobs that wrote them go on from there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use thalweg::operators::keyed_aggregate::KeyedAggregate;
use thalweg::prelude::*;

/// Rows that the whole job reads; the store was written somewhere before them.
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

/// Nobody but the sinks has a name. `rows_per_second`: so slow that it can be stopped in the middle.
fn job(rows_per_second: Option<u64>) -> (Environment, Found) {
    let mut source = Generator::new([
        ("id", Generate::Sequence { start: 0 }),
        ("user", Generate::Key { cardinality: 5, distribution: KeyDistribution::Uniform }),
        ("at", Generate::Time { start: 0, step: MILLI, jitter: 0 }),
    ])
    .splits(2)
    .batch_rows(100)
    .count(ROWS);
    if let Some(rows) = rows_per_second {
        source = source.rows_per_second(rows);
    }
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

fn run(store: &Path) -> Found {
    let (env, found) = job(None);
    let url = format!("file://{}", store.display());
    Job::new("unnamed").memory(512 << 20).checkpoints(&url).run(&env).unwrap();
    found
}

#[test]
fn make() {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores/derived-uids");
    let (env, found) = job(Some(2_000));
    let graph = env.build().unwrap();
    for node in &graph.nodes {
        eprintln!("{} {}", node.uid, node.name);
    }
    let url = format!("file://{}", store.display());
    let running = Job::new("unnamed").memory(512 << 20).checkpoints(&url).start(&env).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    running.stop();
    eprintln!("{:?}", running.wait().unwrap());
    eprintln!("{:?}", found.totals.sorted_lines().unwrap().last());
}
