//! What each source, step and sink is, in a line for people. Never shows a secret.

use thalweg_connectors::generator::{Generate, KeyDistribution};
use thalweg_connectors::kafka::OnTombstone;

use crate::config::{Placed, Text, show_duration};

use super::spec::{
    AggregateSpec, ComputedSpec, FormatSpec, JobSpec, KafkaSourceSpec, PrismTargetSpec, SinkKind, SourceKind,
    StepKind,
};

/// What the source, step or sink of this name is; `None` for an operator that the job file does
/// not name.
pub(super) fn describe(job: &JobSpec, name: &str) -> Option<String> {
    if let Some(source) = job.sources.iter().find(|source| source.name == name) {
        return Some(source_text(&source.spec.kind));
    }
    if let Some(step) = job.steps.iter().find(|step| step.name == name) {
        return Some(step_text(&step.spec.kind));
    }
    if let Some(sink) = job.sinks.iter().find(|sink| sink.name == name) {
        return Some(sink_text(&sink.spec.kind));
    }
    let step = job.steps.iter().find(|step| Some(step.name.as_str()) == name.strip_suffix(".key"))?;
    match &step.spec.kind {
        StepKind::Window { key_by, .. } | StepKind::Aggregate { key_by, .. } => Some(key_text(key_by)),
        StepKind::NearDuplicates(near) => Some(key_text(&near.key_by)),
        StepKind::Deduplicate { .. } => Some("key by producer".to_string()),
        _ => None,
    }
}

fn key_text(key_by: &[Placed<Text>]) -> String {
    format!("key by {}", names(key_by))
}

fn names(columns: &[Placed<Text>]) -> String {
    columns.iter().map(|column| column.value.to_string()).collect::<Vec<_>>().join(", ")
}

fn source_text(kind: &SourceKind) -> String {
    match kind {
        SourceKind::Kafka(kafka) => kafka_text(kafka),
        SourceKind::File(file) => {
            format!("file {}, {}", file.path.value, format_text(&file.format))
        }
        SourceKind::Generator(generator) => {
            let rows = generator.rows.map_or_else(|| "endless".to_string(), |rows| format!("{rows} rows"));
            let rate =
                generator.rows_per_second.map_or_else(String::new, |rate| format!(", {rate} a second"));
            let columns = generator.columns.iter();
            let columns: Vec<_> =
                columns.map(|(name, generate)| format!("{name} {}", generate_text(generate))).collect();
            format!("generator, {rows}{rate}, seed {}: {}", generator.seed, columns.join(", "))
        }
    }
}

fn kafka_text(kafka: &KafkaSourceSpec) -> String {
    let until = if kafka.until_latest { " until latest" } else { "" };
    let outage = if kafka.holds_on_outage { "hold" } else { "advance" };
    let clusters: String =
        kafka.start_by_cluster.iter().map(|(cluster, start)| format!(", {cluster} from {start:?}")).collect();
    let upsert = match kafka.upsert_by.as_slice() {
        [] => String::new(),
        key => format!(", upsert by {}", names(key)),
    };
    let tombstones = match kafka.on_tombstone {
        None => "",
        Some(OnTombstone::Delete) => ", tombstones delete",
        Some(OnTombstone::Row) => ", tombstones are rows",
        Some(OnTombstone::Drop) => ", tombstones are dropped",
    };
    format!(
        "kafka topic {}, {}, topology {}, from {:?}{until}{clusters}, on outage {outage}{upsert}{tombstones}",
        kafka.topic,
        format_text(&kafka.format),
        kafka.topology.value,
        kafka.start,
    )
}

fn generate_text(generate: &Generate) -> String {
    let keys = |cardinality: &u64, distribution: &KeyDistribution| match distribution {
        KeyDistribution::Uniform => format!("{cardinality} keys"),
        KeyDistribution::Zipf { exponent } => format!("{cardinality} keys, zipf {exponent}"),
    };
    match generate {
        Generate::Sequence { start } => format!("sequence from {start}"),
        Generate::Random => "random".to_string(),
        Generate::Integer { min, max } => format!("integer {min} to {max}"),
        Generate::Float { min, max } => format!("float {min} to {max}"),
        Generate::Key { cardinality, distribution } => keys(cardinality, distribution),
        Generate::TextKey { prefix, cardinality, distribution } => {
            format!("{prefix:?} and {}", keys(cardinality, distribution))
        }
        Generate::Text { min_bytes, max_bytes } => format!("text of {min_bytes} to {max_bytes} bytes"),
        Generate::OneOf(values) => format!("one of {}", values.join(" ")),
        Generate::Time { step, .. } => format!("time by {}", show_duration(*step)),
    }
}

fn step_text(kind: &StepKind) -> String {
    match kind {
        StepKind::Filter { condition } => format!("filter {}", condition.value),
        StepKind::Project { columns } => format!("project {}", computed_text(columns)),
        StepKind::WithColumns { columns } => format!("with {}", computed_text(columns)),
        StepKind::Union => "union".to_string(),
        StepKind::Watermarks(time) => match &time.expression {
            Some(sql) => format!("watermarks by {} = {}", time.column.value, sql.value),
            None => format!("watermarks by {}", time.column.value),
        },
        StepKind::Window { size, offset, allowed_lateness, aggregates, .. } => {
            let shift =
                if *offset == 0 { String::new() } else { format!(" offset {}", show_duration(*offset)) };
            let late = match allowed_lateness {
                0 => String::new(),
                lateness => format!(", {} lateness allowed", show_duration(*lateness)),
            };
            let size = show_duration(*size);
            format!("tumbling window of {size}{shift}{late}: {}", aggregates_text(aggregates))
        }
        StepKind::Aggregate { aggregates, .. } => format!("aggregate {}", aggregates_text(aggregates)),
        StepKind::Embed(embed) => {
            format!("embed {} as {}, model {}", embed.column.value, embed.output.value, embed.model.value)
        }
        StepKind::Nearest(nearest) => {
            format!("{} nearest of {} to {}", nearest.k, nearest.references.value, nearest.embedding.value)
        }
        StepKind::Tensor(tensor) => {
            let names =
                |named: Vec<&String>| named.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let inputs = names(tensor.graph.inputs.0.iter().map(|(name, _)| name).collect());
            let outputs = names(tensor.graph.outputs.0.iter().map(|(name, _)| name).collect());
            format!("{outputs} of {inputs} by {} ops", tensor.graph.steps.len())
        }
        StepKind::NearDuplicates(near) => {
            let within =
                near.within.map_or_else(String::new, |within| format!(" within {}", show_duration(within)));
            format!(
                "near duplicates of {} by {} from a cosine of {} among the last {}{within}",
                near.id.value, near.embedding.value, near.threshold, near.keep
            )
        }
        StepKind::Deduplicate { id } => format!("drop copies by {}", id.value),
    }
}

fn computed_text(columns: &[ComputedSpec]) -> String {
    let texts = columns.iter().map(|column| {
        let (name, sql) = (column.name.as_str(), column.sql.value.as_str());
        let passes_on = sql == name || sql == format!("\"{name}\"");
        if passes_on { column.name.to_string() } else { format!("{} = {}", column.name, column.sql.value) }
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn aggregates_text(aggregates: &[AggregateSpec]) -> String {
    let texts = aggregates.iter().map(|aggregate| match aggregate.text.value.is_foreign() {
        true => format!("{} = {}", aggregate.name, aggregate.text.value),
        false => {
            let argument = aggregate.argument.as_ref().map_or("", Text::as_str);
            format!("{} = {}({argument})", aggregate.name, aggregate.function)
        }
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn sink_text(kind: &SinkKind) -> String {
    match kind {
        SinkKind::Print { .. } => "print".to_string(),
        SinkKind::Blackhole => "blackhole".to_string(),
        SinkKind::File { path, format } => {
            format!("files in {}, {}", path.value, format_text(format))
        }
        SinkKind::Kafka(kafka) => {
            format!(
                "kafka topic {} at {}, {}",
                kafka.topic,
                kafka.bootstrap_servers,
                format_text(&kafka.format)
            )
        }
        SinkKind::Prism(prism) => {
            let once = if prism.exactly_once { "exactly once" } else { "at least once" };
            let target = match &prism.target {
                PrismTargetSpec::Gateway(address) => format!("at {address}"),
                PrismTargetSpec::Embedded(topology) => format!("in process, topology {topology}"),
            };
            format!("prism topic {} {target}, {}, {once}", prism.topic, format_text(&prism.format))
        }
    }
}

fn format_text(format: &FormatSpec) -> &'static str {
    match format {
        FormatSpec::Json { .. } => "json",
        FormatSpec::Csv { .. } => "csv",
        FormatSpec::Raw => "raw",
        FormatSpec::Parquet => "parquet",
    }
}
