//! A changed job on the store of the old one (H7): what is kept, new, gone, changed; what is refused
//! before anything runs, and what goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use thalweg::engine::Blame;
use thalweg::engine::checkpoint::{CheckpointStorage, Fate, MemoryStorage};
use thalweg::operators::keyed_aggregate::KeyedAggregate;
use thalweg::prelude::*;

/// A job in as many ways as it may change. Sinks are at least once: they keep nothing.
#[derive(Clone, Copy)]
struct Shape {
    source: &'static str,
    source_was: Option<&'static str>,
    seed: u64,
    rows: u64,
    key: &'static str,
    size: Micros,
    offset: Micros,
    with_sum: bool,
    totals: Option<&'static str>,
    totals_were: Option<&'static str>,
    filters: usize,
    seen: bool,
    parallelism: u32,
    max_parallelism: u32,
}

const ROWS: u64 = 4_000;

const FIRST: Shape = Shape {
    source: "events",
    source_was: None,
    seed: 7,
    rows: ROWS,
    key: "user",
    size: SECOND,
    offset: 0,
    with_sum: false,
    totals: Some("totals"),
    totals_were: None,
    filters: 0,
    seen: false,
    parallelism: 1,
    max_parallelism: 128,
};

/// Runs the job to its end over the store, and answers with what its totals were.
fn run(
    shape: Shape,
    store: &Arc<MemoryStorage>,
    change: impl FnOnce(Job) -> Job,
) -> Result<(JobSummary, Vec<String>)> {
    let (env, totals) = build(shape);
    let summary = change(job(shape, store)).run(&env)?;
    Ok((summary, totals.sorted_lines()?))
}

fn job(shape: Shape, store: &Arc<MemoryStorage>) -> Job {
    Job::new("changed")
        .parallelism(shape.parallelism)
        .memory(512 << 20)
        .checkpoint_storage(store.clone())
        .configure(|config| config.max_parallelism = shape.max_parallelism)
}

fn build(shape: Shape) -> (Environment, Collected) {
    let uniform = |cardinality| Generate::Key { cardinality, distribution: KeyDistribution::Uniform };
    let source = Generator::new([
        ("id", Generate::Sequence { start: 0 }),
        ("user", uniform(5)),
        ("team", uniform(3)),
        ("at", Generate::Time { start: 0, step: MILLI, jitter: 0 }),
    ]);
    let source = source.splits(2).seed(shape.seed).count(shape.rows);
    let env = Environment::new();
    let mut events = env.source(source).watermarks("at", WatermarkStrategy::bounded_out_of_order(0));
    events = events.uid(shape.source);
    if let Some(was) = shape.source_was {
        events = events.uid_was(was);
    }
    for _ in 0..shape.filters {
        events = events.filter("id >= 0");
    }
    let mut aggregates = vec![count().alias("rows")];
    if shape.with_sum {
        aggregates.push(sum("id").alias("ids"));
    }
    let window = TumblingWindow::of(shape.size).offset(shape.offset);
    let windows = events.key_by(&[shape.key]).window(window).aggregate(aggregates);
    windows.uid("windows").sink(Collected::new().sink());
    if shape.seen {
        let by_team = events.key_by(&["team"]);
        by_team
            .apply(KeyedAggregate::new(by_team.key(), [max("id")]))
            .uid("seen")
            .sink(Collected::new().sink());
    }
    let collected = Collected::new();
    if let Some(uid) = shape.totals {
        let by_user = events.key_by(&["user"]);
        let mut totals = by_user.apply(KeyedAggregate::new(by_user.key(), [count().alias("rows")])).uid(uid);
        if let Some(was) = shape.totals_were {
            totals = totals.uid_was(was);
        }
        totals.sink(collected.sink());
    }
    (env, collected)
}

/// The store after the first job has run to its end.
fn after_first() -> Arc<MemoryStorage> {
    let store = Arc::new(MemoryStorage::default());
    run(FIRST, &store, |job| job).unwrap();
    store
}

/// What is in the store: a job that claims it, or writes to it, changes that.
fn names(store: &MemoryStorage) -> Vec<String> {
    store.list("changed/").unwrap().into_iter().map(|object| object.path).collect()
}

/// Each is refused, names the operator, says what it was and is, and leaves the store as it was.
#[test]
fn h7_gone_and_changed_state_is_refused_by_name_before_anything_runs() {
    let cases: [(&str, Shape, &[&str]); 9] = [
        (
            "a renamed operator",
            Shape { totals: Some("per-user"), ..FIRST },
            &[
                "gone: totals",
                "if per-user, which is new, is the same, say `uid_was: totals`",
                "--allow-dropped-state totals",
            ],
        ),
        (
            "a removed operator",
            Shape { totals: None, ..FIRST },
            &["gone: totals is in the checkpoint (aggregate; key user uint64; aggregates count(*)"],
        ),
        (
            "a renamed source",
            Shape { source: "clicks", ..FIRST },
            &["gone: events is in the checkpoint (generator; seed 7: the positions of a source)"],
        ),
        (
            "another source",
            Shape { seed: 8, ..FIRST },
            &["changed: events", "seed was 7, is 8", "--start-empty events"],
        ),
        (
            "another key of the same type",
            Shape { key: "team", ..FIRST },
            &[
                "changed: windows does not fit its state: key was user uint64, is team uint64",
                "in the checkpoint: tumbling window; key user uint64; size 1s; offset 0s; aggregates count(*)",
                "in the job: tumbling window; key team uint64; size 1s",
                "--start-empty windows",
            ],
        ),
        (
            "another offset",
            Shape { offset: 250 * MILLI, ..FIRST },
            &["changed: windows", "offset was 0s, is 250ms"],
        ),
        ("another size", Shape { size: 2 * SECOND, ..FIRST }, &["changed: windows", "size was 1s, is 2s"]),
        (
            "another aggregate",
            Shape { with_sum: true, ..FIRST },
            &["changed: windows", "aggregates was count(*), is count(*), sum(id) of uint64"],
        ),
        (
            "other key groups",
            Shape { max_parallelism: 64, ..FIRST },
            &["max_parallelism is 64, and the checkpoint was made with 128"],
        ),
    ];
    let store = after_first();
    let before = names(&store);
    for (what, shape, said) in cases {
        let error = run(shape, &store, |job| job).err().unwrap_or_else(|| panic!("{what}: it ran"));
        assert_eq!(error.blame(), Blame::User, "{what}");
        for part in said {
            assert!(error.to_string().contains(part), "{what}: {part}: {error}");
        }
        assert_eq!(names(&store), before, "{what}: a job that is refused claims nothing");
    }
}

#[test]
fn h7_what_is_refused_runs_when_it_is_allowed_by_its_name() {
    let drop = |uid: &'static str| move |job: Job| job.allow_dropped_state(uid);
    let store = after_first();
    run(Shape { totals: Some("per-user"), ..FIRST }, &store, drop("totals")).unwrap();
    let store = after_first();
    let error = run(Shape { totals: None, ..FIRST }, &store, drop("windows")).unwrap_err();
    assert!(error.to_string().contains("gone: totals"), "another name allows nothing: {error}");
    run(Shape { totals: None, ..FIRST }, &store, drop("totals")).unwrap();
    let store = after_first();
    let rekeyed = Shape { key: "team", ..FIRST };
    run(rekeyed, &store, |job| job.start_empty("windows")).unwrap();
    // What was allowed once is state that fits now, with and without the words.
    run(rekeyed, &store, |job| job.start_empty("windows")).unwrap();
    run(rekeyed, &store, |job| job).unwrap();
}

#[test]
fn h7_what_may_change_freely_does() {
    let store = after_first();
    let free =
        [Shape { filters: 2, ..FIRST }, Shape { parallelism: 3, ..FIRST }, Shape { seen: true, ..FIRST }];
    for shape in free {
        run(shape, &store, |job| job).unwrap();
    }
    let table = job(FIRST, &store).outlook(&build(FIRST).0).unwrap().unwrap();
    let fates: Vec<_> = table.rows.iter().map(|row| (row.uid.as_str(), row.fate.clone())).collect();
    let kept = |uid: &str| Fate::Kept { from: thalweg::engine::graph::Uid::new(uid).unwrap() };
    let gone = Fate::Gone { allowed: false };
    let expected = [
        ("events", kept("events")),
        ("seen", gone),
        ("totals", kept("totals")),
        ("windows", kept("windows")),
    ];
    assert_eq!(fates, expected);
    assert!(table.is_finished);
}

#[test]
fn h7_a_job_without_a_checkpoint_has_nothing_to_take_over() {
    let store = Arc::new(MemoryStorage::default());
    assert_eq!(job(FIRST, &store).outlook(&build(FIRST).0).unwrap(), None);
    assert_eq!(names(&store), Vec::<String>::new());
}

/// The last total of each user.
fn last(lines: &[String]) -> std::collections::BTreeMap<u64, i64> {
    let mut totals = std::collections::BTreeMap::new();
    for line in lines {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let (user, rows) = (row["user"].as_u64().unwrap(), row["rows"].as_i64().unwrap());
        let total = totals.entry(user).or_insert(0);
        *total = rows.max(*total);
    }
    totals
}

#[test]
fn h7_a_renamed_job_goes_on_with_its_state_and_its_offsets_and_reads_what_it_is_given_more() {
    let more = Shape { rows: 2 * ROWS, ..FIRST };
    let (_, straight) = run(more, &Arc::new(MemoryStorage::default()), |job| job).unwrap();
    let store = after_first();
    let renamed = Shape {
        source: "clicks",
        source_was: Some("events"),
        totals: Some("per-user"),
        totals_were: Some("totals"),
        filters: 2,
        ..more
    };
    let (summary, went_on) = run(renamed, &store, |job| job).unwrap();
    assert!(summary.started_from.unwrap().is_finished);
    assert_eq!(last(&went_on), last(&straight));
    let mut least = last(&went_on);
    for line in &went_on {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let rows = row["rows"].as_i64().unwrap();
        least.entry(row["user"].as_u64().unwrap()).and_modify(|least| *least = rows.min(*least));
    }
    assert!(least.values().sum::<i64>() > ROWS as i64, "it read only what it had not read: {least:?}");
}
