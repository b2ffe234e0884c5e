//! The job of `tensor/notices.yaml` in Rust.

use std::path::Path;
use std::time::Duration;

use thalweg::operators::tensor::{DeviceChoice, Element, ReferenceMatrix, op::Metric};
use thalweg::prelude::*;

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

/// Marks what is nearly what the same service said within a day, from a cosine of `threshold` on, and
/// names the nearest topic.
///
/// # Errors
/// When the model cannot be made into a transform.
pub fn similar_job(
    source: Stream,
    encoder: &SentenceEncoder,
    topics: ReferenceMatrix,
    threshold: f32,
) -> Result<Stream> {
    let notices = source.watermarks("at", WatermarkStrategy::bounded_out_of_order(MINUTE));
    let batching = Batching {
        rows_max: 32,
        delay_max: Duration::from_millis(5),
        buckets: vec![8, 16, 32],
        ..Batching::default()
    };
    let embed = Transform::embed("text", encoder)?.batching(batching);
    let embed = embed.device(DeviceChoice::Cpu).memory_bytes(32 << 20);
    let embedded = notices.transform(embed).uid("embedded");

    let near = NearDuplicates::new("id", "embedding").threshold(threshold).keep(16).within(DAY);
    let compared = near.on(&embedded.key_by(&["service"])).uid("compared");

    let nearest = Transform::nearest("embedding", Element::F32, encoder.width(), 1, Metric::Cosine)?;
    let nearest = nearest.reference("references", topics).device(DeviceChoice::Cpu).memory_bytes(16 << 20);
    let placed = compared.transform(nearest).uid("placed");
    Ok(placed.select(["id", "service", "at", "text", "duplicate_of", "neighbours"]).uid("shown"))
}
