//! The job: texts to embeddings, near-duplicates among those of a key, and the nearest of a reference
//! that is watched. And what it must say, computed directly.

use std::path::Path;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int64Type, TimestampMicrosecondType};
use thalweg::engine::cluster::SeededOrder;
use thalweg::operators::tensor::thalweg_tensor::random_encoder::RandomEncoder;
use thalweg::operators::tensor::{
    Artifact, DeviceChoice, Element, ReferenceMatrix, ReferenceSource, embed_texts, op::Metric,
};
use thalweg::prelude::*;

use crate::tap::Tap;

pub const ROWS: usize = 180;
/// Rows are dealt to so many splits in turn.
const SPLITS: i64 = 3;
const WORDS: [&str; 12] =
    ["river", "bed", "water", "flow", "stream", "fast", "cat", "dog", "red", "blue", "old", "new"];
/// Distinct texts: the fewer, the more near-duplicates.
const TEXTS: usize = 9;
const NEIGHBOURS: usize = 2;
/// The ids of version `v` of the reference begin at `v * VERSION`.
pub const VERSION: i64 = 1_000;

/// What somebody said. The keys of a split are its own, so the rows of a key have an order.
#[derive(Clone, Debug, Record)]
pub struct Said {
    pub id: i64,
    pub key: i64,
    #[record(time)]
    pub at: Timestamp,
    pub text: String,
}

/// What came out of a row; floats as bits, so that equal is equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    pub id: i64,
    pub key: i64,
    pub embedding: Vec<u32>,
    pub duplicate_of: Option<i64>,
    pub neighbours: Vec<i64>,
}

impl Answer {
    /// Of which version of the reference its neighbours are; `None` when of several.
    pub fn version(&self) -> Option<i64> {
        version_of(&self.neighbours)
    }
}

fn version_of(neighbours: &[i64]) -> Option<i64> {
    let version = neighbours.first()? / VERSION;
    neighbours.iter().all(|id| id / VERSION == version).then_some(version)
}

/// What every run reads and must find.
pub struct World {
    pub said: Vec<Said>,
    encoder: SentenceEncoder,
    embeddings: Vec<Vec<f32>>,
    /// The two versions of the reference.
    pub references: [ReferenceMatrix; 2],
}

impl World {
    pub fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        RandomEncoder { layers: 1, ..RandomEncoder::default() }.write(directory.path()).unwrap();
        let encoder = SentenceEncoder::open(directory.path(), Element::F32).unwrap();
        let mut order = SeededOrder::new(77);
        let mut text = |words_max: usize| {
            let words = (0..1 + order.below(words_max)).map(|_| WORDS[order.below(WORDS.len())]);
            words.collect::<Vec<_>>().join(" ")
        };
        let texts: Vec<String> = (0..TEXTS).map(|_| text(25)).collect();
        let others: Vec<String> = (0..20).map(|_| text(10)).collect();
        let said: Vec<Said> = (0..ROWS as i64)
            .map(|id| Said {
                id,
                key: id % SPLITS + SPLITS * (id / SPLITS % 2),
                at: Timestamp(1 + id * 100),
                text: texts[order.below(TEXTS)].clone(),
            })
            .collect();
        let embed = |texts: Vec<&str>| embed_texts("references", &encoder, &texts).unwrap();
        let embedded = embed(said.iter().map(|said| said.text.as_str()).collect());
        let embeddings = embedded.vectors().chunks(encoder.width()).map(<[f32]>::to_vec).collect();
        let others = embed(others.iter().map(String::as_str).collect());
        let half = others.vectors().len() / 2;
        let reference = |version: i64, vectors: &[f32]| {
            let ids = (0..10).map(|id| version * VERSION + id).collect::<Vec<i64>>();
            ReferenceMatrix::new("references", encoder.width(), vectors.to_vec().into(), ids.into()).unwrap()
        };
        let references = [reference(1, &others.vectors()[..half]), reference(2, &others.vectors()[half..])];
        World { said, encoder, embeddings, references }
    }

    pub fn embedding(&self, id: i64) -> Vec<u32> {
        self.embeddings[id as usize].iter().map(|value| value.to_bits()).collect()
    }

    /// The nearest of a version, by a plain loop.
    pub fn neighbours(&self, id: i64, version: i64) -> Vec<i64> {
        let (query, matrix) = (&self.embeddings[id as usize], &self.references[version as usize - 1]);
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let score = |vector: &[f32]| dot(query, vector) / dot(vector, vector).sqrt();
        let mut scored: Vec<(f64, i64)> =
            matrix.vectors().chunks(matrix.width()).map(score).zip(matrix.ids().iter().copied()).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored[..NEIGHBOURS].iter().map(|(_, id)| *id).collect()
    }
}

/// How rows are gathered on the way, as the seed has it.
#[derive(Clone, Debug)]
pub struct Gathering {
    pub embed: Batching,
    pub nearest: Batching,
    pub source_rows: usize,
    /// How often the reference is looked at.
    pub every: Micros,
    /// Whether batches are computed on threads of their own, which no seed decides over.
    pub is_threaded: bool,
}

impl Gathering {
    pub fn drawn(order: &mut SeededOrder, ordered: bool) -> Gathering {
        let mut batching = |rows: usize| Batching {
            rows_max: 1 + order.below(rows),
            bytes_max: if order.below(3) == 0 { 600 } else { 1 << 20 },
            delay_max: Duration::from_micros(order.below(3_000) as u64),
            ..Batching::default()
        };
        let (embed, nearest) = (batching(12), batching(8));
        let buckets = if !ordered || order.below(2) == 0 { vec![6, 16] } else { Vec::new() };
        Gathering {
            embed: Batching { buckets, ordered, ..embed },
            nearest,
            source_rows: 1 + order.below(6),
            every: 500 + order.below(12_000) as Micros,
            is_threaded: false,
        }
    }
}

/// Where the reference is and its copies are.
pub struct Files<'a> {
    pub reference: &'a Path,
    pub cache: &'a Path,
}

pub fn graph(
    world: &World,
    gathering: &Gathering,
    files: &Files<'_>,
    [read, embedded, placed]: [Tap; 3],
    out: &Collected,
) -> Graph {
    let env = Environment::new();
    let source = VecSource::of(&world.said).unwrap().dealt_to(SPLITS as usize).unwrap();
    let said = env
        .source(source.batch_rows(gathering.source_rows))
        .uid("said")
        .watermarks("at", WatermarkStrategy::bounded_out_of_order(0));
    let embed = Transform::embed("text", &world.encoder).unwrap().batching(gathering.embed.clone());
    let on_cpu = |transform: Transform| match gathering.is_threaded {
        true => transform.device(DeviceChoice::Cpu),
        false => transform.device(DeviceChoice::Cpu).inline(),
    };
    let embed = on_cpu(embed);
    let texts = said.apply(read).uid("read").transform(embed).uid("embed").apply(embedded).uid("embedded");
    let near = NearDuplicates::new("id", "embedding").threshold(0.9998).keep(4).within(4_000);
    let compared = near.on(&texts.key_by(&["key"])).uid("near");
    let file = Artifact::new(files.reference.display().to_string()).cached_in(files.cache);
    let watched = ReferenceSource::Watched { file, every: Some(gathering.every) };
    let width = world.encoder.width();
    let nearest = Transform::nearest("embedding", Element::F32, width, NEIGHBOURS, Metric::Cosine).unwrap();
    let nearest = nearest.reference("references", watched).batching(gathering.nearest.clone());
    let all = compared.transform(on_cpu(nearest)).uid("nearest").apply(placed).uid("placed");
    all.sink(out.exactly_once_sink()).uid("out");
    env.build().unwrap()
}

fn numbers(batch: &RecordBatch, name: &str) -> Vec<i64> {
    batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

pub fn times(batch: &RecordBatch) -> Vec<i64> {
    batch.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>().values().to_vec()
}

/// The ids of rows and of which version their neighbours are.
pub fn versions(batch: &RecordBatch) -> Vec<(i64, Option<i64>)> {
    let lists = batch.column_by_name("neighbours").unwrap().as_fixed_size_list();
    let neighbours = lists.values().as_primitive::<Int64Type>().values();
    numbers(batch, "id").into_iter().zip(neighbours.chunks(NEIGHBOURS).map(version_of)).collect()
}

/// What was delivered, in its order.
pub fn answers(out: &Collected) -> Vec<Answer> {
    let of_batch = |batch: RecordBatch| {
        let embeddings = batch.column_by_name("embedding").unwrap().as_fixed_size_list().clone();
        let width = embeddings.value_length() as usize;
        let embeddings = embeddings.values().as_primitive::<Float32Type>().clone();
        let neighbours = batch.column_by_name("neighbours").unwrap().as_fixed_size_list().clone();
        let neighbours = neighbours.values().as_primitive::<Int64Type>().clone();
        let of = batch.column_by_name("duplicate_of").unwrap().as_primitive::<Int64Type>().clone();
        let (ids, keys) = (numbers(&batch, "id"), numbers(&batch, "key"));
        (0..batch.num_rows())
            .map(|row| Answer {
                id: ids[row],
                key: keys[row],
                embedding: embeddings.values()[row * width..][..width].iter().map(|v| v.to_bits()).collect(),
                duplicate_of: of.iter().nth(row).flatten(),
                neighbours: neighbours.values()[row * NEIGHBOURS..][..NEIGHBOURS].to_vec(),
            })
            .collect::<Vec<_>>()
    };
    out.batches().into_iter().flat_map(of_batch).collect()
}
