//! What a program builds with typed streams: nodes, edges, schemas; and every mistake at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use thalweg_engine::graph::{Environment, NodeKind, Partitioner};
use thalweg_engine::operator::OutputIndex;
use thalweg_engine::record::{EdgeSchema, Record, Timestamp};
use thalweg_engine::source::{Enumerator, ReaderOpenContext, Source, SourceReader};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::time::WatermarkStrategy;
use thalweg_engine::{Error, Result};
use thalweg_operators::process::{KeyedProcess, KeyedProcessExt, ProcessContext};
use thalweg_operators::typed::{Out, SideOutput, SideOutputs, TypedExt, TypedStream};

#[derive(Clone, Debug, PartialEq, Record)]
#[record(crate = "thalweg_engine")]
struct Reading {
    sensor: String,
    value: f64,
    #[record(time)]
    at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Record)]
#[record(crate = "thalweg_engine")]
struct Alarm {
    sensor: String,
}

const COLD: SideOutput<Alarm> = SideOutput::new("cold");

/// A source that is only ever part of a graph.
struct Readings;

impl Source for Readings {
    fn name(&self) -> String {
        "readings".into()
    }

    fn output(&self) -> Result<EdgeSchema> {
        Ok(EdgeSchema::new(Reading::schema()))
    }

    fn identity(&self) -> StateIdentity {
        StateIdentity::of("readings")
    }

    fn enumerator(&self, _restored: Option<&[u8]>) -> Result<Box<dyn Enumerator>> {
        Err(Error::internal("never run"))
    }

    fn reader(&self, _cx: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>> {
        Err(Error::internal("never run"))
    }
}

#[derive(Clone)]
struct Hot;

impl KeyedProcess for Hot {
    type In = Reading;
    type Out = Alarm;

    fn process(&mut self, row: ReadingRow<'_>, cx: &mut ProcessContext<'_, Alarm>) -> Result<()> {
        let alarm = AlarmRow { sensor: row.sensor };
        if row.value > 90.0 {
            cx.emit_row(alarm)
        } else {
            cx.emit_row_to(COLD, alarm)
        }
        Ok(())
    }

    fn side_outputs(&self) -> SideOutputs {
        SideOutputs::one(COLD)
    }
}

#[test]
fn a_typed_program_builds_the_graph_that_it_reads_like() {
    let env = Environment::new();
    let strategy = WatermarkStrategy::bounded_out_of_order(0);
    let readings = env.source(Readings).typed::<Reading>().watermarks(strategy).uid("readings");
    let warm = readings.filter(|row| row.value > 20.0).uid("warm");
    let doubled = warm.map(|row| Reading { sensor: row.sensor.into(), value: row.value * 2.0, at: row.at });
    let twice = doubled.flat_map(|row, out: &mut Out<Reading>| {
        out.emit_row(row);
        out.emit_row(row);
    });
    let alarms = twice.union(&[&warm]).key_by(["sensor"]).process(Hot).uid("hot").parallelism(3);
    let _ = alarms.side_output(COLD).filter(|row| !row.sensor.is_empty()).uid("cold");

    let graph = env.build().unwrap();
    let find = |uid: &str| graph.nodes.iter().position(|node| node.uid.as_str() == uid).unwrap();
    let names: Vec<_> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["readings", "filter", "map", "flat map", "union", "key by", "process", "filter"]);
    let hot = &graph.nodes[find("hot")];
    assert_eq!(hot.parallelism, Some(3));
    assert_eq!(hot.outputs.len(), 2);
    let NodeKind::Source { watermarks, .. } = &graph.nodes[0].kind else { panic!("a source") };
    assert!(watermarks.is_some());
    assert_eq!(graph.nodes[find("warm")].outputs[0].time, Some(2), "the event time stays");
    assert_eq!(graph.nodes[3].outputs[0].time, Some(2), "the record names its event time");
    let into_hot = graph.edges.iter().find(|edge| edge.to.0 == find("hot")).unwrap();
    assert_eq!(into_hot.partitioner, Partitioner::Hash);
    let into_cold = graph.edges.iter().find(|edge| edge.to.0 == find("cold")).unwrap();
    assert_eq!((into_cold.from.0, into_cold.output), (find("hot"), OutputIndex(1)));
}

#[test]
fn every_mistake_is_told_when_the_job_is_built() {
    #[derive(Record)]
    #[record(crate = "thalweg_engine")]
    struct Wrong {
        sensor: i64,
        missing: bool,
    }
    let env = Environment::new();
    let source = env.source(Readings);
    source.typed::<Wrong>();
    let keyed = source.key_by(&["sensor"]);
    keyed.process(Hot).side_output(SideOutput::<Alarm>::new("warm"));
    let _ = source.typed::<Alarm>().watermarks(WatermarkStrategy::bounded_out_of_order(0));
    let message = env.build().err().unwrap().to_string();
    let lines: Vec<_> = message.lines().collect();
    assert_eq!(lines.len(), 3, "{message}");
    assert!(
        lines[0].contains("column \"sensor\" should be Int64, but is Utf8View")
            && lines[0].contains("there is no column \"missing\" among sensor, value, at"),
        "{message}"
    );
    assert!(lines[1].contains("no side output \"warm\" among those declared: cold"), "{message}");
    assert!(lines[2].contains("no field marked #[record(time)]"), "{message}");
}

#[test]
fn a_key_that_cannot_be_one_is_refused() {
    let env = Environment::new();
    env.source(Readings).key_by(&["value"]).process(Hot);
    let message = env.build().err().unwrap().to_string();
    assert!(message.contains("Float64 cannot be a key"), "{message}");
}

#[derive(Clone)]
struct Smooth;

impl KeyedProcess for Smooth {
    type In = Reading;
    type Out = Reading;

    fn process(&mut self, row: ReadingRow<'_>, cx: &mut ProcessContext<'_, Reading>) -> Result<()> {
        cx.emit_row(row);
        Ok(())
    }
}

/// A record that names its event time makes no watermarks: whoever waits for them is refused.
#[test]
fn an_event_time_without_watermarks_is_told_from_one_with_them_behind_every_typed_operator() {
    let behind = |readings: TypedStream<Reading>| {
        let copy = |row: ReadingRow<'_>| Reading { sensor: row.sensor.into(), value: row.value, at: row.at };
        [
            readings.map(copy),
            readings.flat_map(|row, out: &mut Out<Reading>| out.emit_row(row)),
            readings.key_by(["sensor"]).process(Smooth),
        ]
    };
    let env = Environment::new();
    let strategy = || WatermarkStrategy::bounded_out_of_order(0);
    for timeless in behind(env.source(Readings).typed::<Reading>()) {
        let error = timeless.stream().edge_schema().unwrap().event_time().unwrap_err().to_string();
        assert!(error.contains("event-time column \"at\" but no watermarks"), "{error}");
        let timed = timeless.clone().watermarks(strategy());
        assert_eq!(timed.stream().edge_schema().unwrap().event_time().unwrap(), 2);
        let united = timed.union(&[&timeless]);
        assert!(united.stream().edge_schema().unwrap().event_time().is_err(), "one of them has none");
    }
    let of_source = Environment::new();
    for timed in behind(of_source.source(Readings).typed::<Reading>().watermarks(strategy())) {
        assert_eq!(timed.stream().edge_schema().unwrap().event_time().unwrap(), 2);
    }
    let graph = env.build().unwrap();
    let made = graph.nodes.iter().filter(|node| node.name == "watermarks").count();
    assert_eq!(made, 3, "behind an operator they are made by one of their own");
}
