//! The jobs of `tensor/` in Rust: one core, over a file of notices, and over packages from Kafka.

use std::path::{Path, PathBuf};
use std::time::Duration;

use thalweg::connectors::format::JsonEncoder;
use thalweg::operators::tensor::op::Metric;
use thalweg::operators::tensor::{DeviceChoice, Element, ReferenceSource};
use thalweg::prelude::*;

use super::{INPUT, OUTPUT};

/// What is looked for, and how.
pub struct Search {
    /// Texts are compared with those of the same value in this column.
    pub key: &'static str,
    /// From which cosine on a text is a near-duplicate.
    pub threshold: f32,
    /// How many texts of a key are remembered, for a day at most.
    pub keep: usize,
    /// The vectors of the topics.
    pub topics: ReferenceSource,
    /// How many of them are named.
    pub k: usize,
    /// How texts are gathered.
    pub batching: Batching,
    /// Where they are computed.
    pub device: DeviceChoice,
    /// Bytes that each instance of a transform may work in.
    pub memory_bytes: usize,
}

/// What the core finds.
pub struct Found {
    /// The rows with `embedding`, `duplicate_of`, `similarity`, `neighbours` and `scores`.
    pub placed: Stream,
    /// Rows without a text, and why they were left out.
    pub without_text: Stream,
}

/// Embeds the column `text`, names what came within a day with nearly the same meaning and the
/// same key, by its `id`, and names the nearest topics.
///
/// # Errors
/// When the model cannot be made into a transform.
pub fn similar_job(source: Stream, encoder: &SentenceEncoder, search: Search) -> Result<Found> {
    let texts = source.watermarks("at", WatermarkStrategy::bounded_out_of_order(MINUTE));
    let embed = Transform::embed("text", encoder)?.batching(search.batching);
    let embed = embed.device(search.device).memory_bytes(search.memory_bytes);
    let embed = embed.on_bad_row(OnBadRow::DeadLetter);
    let embedded = texts.transform(embed).uid("embedded");

    let near = NearDuplicates::new("id", "embedding").threshold(search.threshold);
    let near = near.keep(search.keep).within(DAY);
    let compared = near.on(&embedded.key_by(&[search.key])).uid("compared");

    let nearest = Transform::nearest("embedding", Element::F32, encoder.width(), search.k, Metric::Cosine)?;
    let nearest = nearest.reference("references", search.topics);
    let nearest = nearest.device(search.device).memory_bytes(search.memory_bytes);
    let placed = compared.transform(nearest).uid("placed");
    Ok(Found { placed, without_text: embedded.side_output(1) })
}

/// What a service said.
#[derive(Clone, Debug, Record)]
pub struct Notice {
    /// Its number.
    pub id: i64,
    /// Which service.
    pub service: String,
    /// When.
    #[record(time)]
    pub at: Timestamp,
    /// What.
    pub text: String,
}

/// Notices of a file, such as the shipped one, `data/notices.jsonl`.
pub fn notices(path: &Path) -> FileSource {
    FileSource::lines(path, Json::of::<Notice>())
}

/// Which notices say nearly what the same service said within a day, and what they are about: the
/// job of `tensor/notices.yaml`.
///
/// # Errors
/// As [`similar_job`].
pub fn notices_job(
    source: Stream,
    encoder: &SentenceEncoder,
    topics: ReferenceSource,
    threshold: f32,
) -> Result<Stream> {
    let batching = Batching {
        rows_max: 32,
        delay_max: Duration::from_millis(5),
        buckets: vec![8, 16, 32],
        ..Batching::default()
    };
    let device = DeviceChoice::Cpu;
    let search = Search {
        key: "service",
        threshold,
        keep: 16,
        topics,
        k: 1,
        batching,
        device,
        memory_bytes: 32 << 20,
    };
    let found = similar_job(source, encoder, search)?;
    Ok(found.placed.select(["id", "service", "at", "text", "duplicate_of", "neighbours"]).uid("shown"))
}

/// A package, as it lies in Kafka.
#[derive(Clone, Debug, Record)]
pub struct Package {
    /// Name and version.
    pub id: String,
    /// What kind.
    pub category: String,
    /// What it says of itself.
    pub text: Option<String>,
    /// When it was seen.
    #[record(time)]
    pub at: Timestamp,
}

/// What [`packages_job`] reads and writes.
pub struct Places {
    /// Where the Kafka clusters are: a topology file.
    pub topology: PathBuf,
    /// The gateway of Prism: a URL.
    pub prism: String,
    /// The file of the topics' vectors, looked at every ten seconds.
    pub topics: PathBuf,
    /// Where packages without a text go: a directory.
    pub without_text: PathBuf,
    /// What computes.
    pub device: DeviceChoice,
}

/// Which packages say nearly the same of themselves, and what each is about, from all clusters of
/// the topology to Prism: the job of `tensor/packages.yaml`.
///
/// # Errors
/// As [`similar_job`].
pub fn packages_job(env: &Environment, places: &Places, encoder: &SentenceEncoder) -> Result<()> {
    let source = KafkaSource::federated(INPUT, &places.topology).format(Json::of::<Package>());
    let source = env.source(source.until(Until::Latest).on_outage(OnOutage::Hold)).uid("packages");

    let batching = Batching {
        rows_max: 64,
        delay_max: Duration::from_millis(20),
        buckets: vec![16, 32, 64],
        ..Batching::default()
    };
    let topics = ReferenceSource::watched(places.topics.display().to_string(), 10 * SECOND);
    let device = places.device;
    let search = Search {
        key: "category",
        threshold: 0.85,
        keep: 256,
        topics,
        k: 2,
        batching,
        device,
        memory_bytes: 128 << 20,
    };
    let Found { placed, without_text } = similar_job(source, encoder, search)?;

    let columns = ["id", "category", "text", "duplicate_of", "similarity", "neighbours", "scores"];
    let gateway = PrismTarget::Gateway(places.prism.clone());
    let prism = PrismSink::new(OUTPUT, gateway, || Ok(Box::new(JsonEncoder::new()))).key(["id"]);
    placed.select(columns).uid("shown").sink(prism).uid("similar");
    without_text.sink(FileSink::json(&places.without_text)).uid("without_text");
    Ok(())
}
