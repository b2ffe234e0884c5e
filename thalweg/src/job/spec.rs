//! What a job file says, read and checked key by key, before anything is built of it.

use arrow::datatypes::{DataType, TimeUnit};
use thalweg_connectors::generator::Generate;
use thalweg_connectors::kafka::{MetadataColumn, OnOffsetGone, OnTombstone, OnTopicRecreated, Start};
use thalweg_engine::cluster::RestartStrategy;
use thalweg_engine::time::MaxAhead;

use crate::config::{FilePath, Guarded, Place, Placed, Secret, Text};

use super::transform_spec::{EmbedSpec, NearDuplicatesSpec, NearestSpec, TensorSpec};

/// A job file.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// The file, for messages.
    pub file: String,
    /// The job's settings.
    pub settings: SettingsSpec,
    /// The sources, steps and sinks by name, in the order of the file.
    pub sources: Vec<Named<SourceSpec>>,
    /// The steps.
    pub steps: Vec<Named<StepSpec>>,
    /// The sinks.
    pub sinks: Vec<Named<SinkSpec>>,
    /// The names of those that could not be read; they are reported, and what depends on them is
    /// not looked at.
    pub unreadable: Vec<String>,
}

/// Something with the name that the user gave it; the name is its uid.
#[derive(Clone, Debug)]
pub struct Named<T> {
    /// The name.
    pub name: String,
    /// Where the name stands.
    pub place: Place,
    /// `uid_was`: names that it had before; its state may be found under one of them.
    pub uid_was: Vec<Placed<Text>>,
    /// A parallelism of its own.
    pub parallelism: Option<u32>,
    /// What it is.
    pub spec: T,
}

/// The job's settings.
#[derive(Clone, Debug)]
pub struct SettingsSpec {
    /// `job`: the name.
    pub name: String,
    /// `parallelism`: instances of each operator that has no number of its own.
    pub parallelism: u32,
    /// `max_parallelism`: the number of key groups, fixed for the job's life.
    pub max_parallelism: u32,
    /// `memory`: the whole process's budget, in bytes.
    pub memory_bytes: u64,
    /// Where that stands.
    pub memory_place: Place,
    /// `checkpoint`.
    pub checkpoint: CheckpointSpec,
    /// `restart`.
    pub restart: RestartStrategy,
    /// `state_dir`: where RocksDB keeps its files; a temporary directory when not given.
    pub state_dir: Option<FilePath>,
}

/// `checkpoint`.
#[derive(Clone, Debug)]
pub struct CheckpointSpec {
    /// `interval`: between two checkpoints, in microseconds.
    pub interval: i64,
    /// `store`: a URL.
    pub store: Placed<StoreUrl>,
    /// `retain`: how many complete checkpoints are kept.
    pub retain: u32,
    /// `on_damaged`.
    pub on_damaged: OnDamaged,
    /// `failures_tolerated`: failed checkpoints in a row that the job outlives; `None`: any number.
    pub failures_tolerated: Option<u32>,
}

/// A checkpoint store's URL, shown without user, password and query: a SAS stands there.
pub type StoreUrl = Guarded<Secret>;

/// A store of the program itself.
pub fn store_url(url: &str) -> StoreUrl {
    Text::from(url).map(|url| Secret::new(url.as_str()), |url| shown_url(url.reveal()))
}

/// A store's URL as people may see it.
pub(super) fn shown_url(url: &str) -> String {
    let bare = url.split('?').next().unwrap_or_default();
    let Some((scheme, rest)) = bare.split_once("://") else { return bare.to_string() };
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
    // In `abfss://container@account` the part before the `@` is no secret.
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => host,
        _ => authority,
    };
    let path = path.map_or_else(String::new, |path| format!("/{path}"));
    format!("{scheme}://{authority}{path}")
}

/// What a restore does when the newest checkpoint is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamaged {
    /// Stops with the name of the damaged file.
    Fail,
    /// Tries the next older checkpoint.
    Older,
}

/// A column of a schema.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnSpec {
    /// Its name.
    pub name: String,
    /// Its type, one of the engine's.
    pub data_type: DataType,
    /// Whether it may be null.
    pub nullable: bool,
}

/// `format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatSpec {
    /// One JSON object a record or line.
    Json {
        /// The unit of times that are written as whole numbers.
        epoch_unit: Option<TimeUnit>,
    },
    /// Separated values.
    Csv {
        /// The unit of times that are written as whole numbers.
        epoch_unit: Option<TimeUnit>,
        /// Between two values.
        delimiter: u8,
        /// Whether the first line of a file names the columns.
        header: bool,
        /// A text that stands for null, beside no text at all.
        null: Option<Text>,
    },
    /// The bytes as they are, in one column.
    Raw,
    /// Parquet files.
    Parquet,
}

/// What to do with a record that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDecodeErrorSpec {
    /// The job fails.
    Fail,
    /// It is dropped and counted.
    Drop,
    /// It goes to the side output `<source>.dead_letters`.
    DeadLetter,
}

/// `event_time`.
#[derive(Clone, Debug)]
pub struct EventTimeSpec {
    /// The column; computed when there is an expression.
    pub column: Placed<Text>,
    /// SQL that computes the column.
    pub expression: Option<Placed<Text>>,
    /// How watermarks are made.
    pub watermarks: WatermarksSpec,
    /// After this long of being asked without having rows a split holds nobody back, in microseconds.
    pub idle_after: Option<i64>,
    /// The guard against rows from the future.
    pub max_ahead: Option<MaxAhead>,
    /// Where it stands.
    pub place: Place,
}

/// How watermarks are made.
#[derive(Clone, Debug)]
pub enum WatermarksSpec {
    /// How much later than a later row a row may come, in microseconds.
    OutOfOrder(i64),
    /// SQL that gives, in some rows, the time up to which no row follows.
    Punctuated(Placed<Text>),
}

/// A source.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// Its columns; empty when the source knows them itself.
    pub schema: Vec<ColumnSpec>,
    /// Its event time.
    pub event_time: Option<EventTimeSpec>,
    /// `on_decode_error`.
    pub on_decode_error: OnDecodeErrorSpec,
    /// Which kind.
    pub kind: SourceKind,
}

/// Which kind of source.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// One logical topic on many clusters.
    Kafka(KafkaSourceSpec),
    /// Files.
    File(FileSourceSpec),
    /// Made-up rows.
    Generator(GeneratorSpec),
}

/// `kind: kafka` as a source.
#[derive(Clone, Debug)]
pub struct KafkaSourceSpec {
    /// The logical topic.
    pub topic: Text,
    /// The topology file.
    pub topology: Placed<FilePath>,
    /// How records are decoded.
    pub format: FormatSpec,
    /// Where reading begins.
    pub start: Start,
    /// Where reading begins on clusters that differ.
    pub start_by_cluster: Vec<(String, Start)>,
    /// Whether reading ends at what is there when the job starts.
    pub until_latest: bool,
    /// Whether the watermark waits for a cluster that is away.
    pub holds_on_outage: bool,
    /// How often each cluster is looked at, in microseconds.
    pub discovery_interval: Option<i64>,
    /// What to do when the offset to read next is gone.
    pub on_offset_gone: OnOffsetGone,
    /// What to do when a topic was deleted and made anew.
    pub on_topic_recreated: OnTopicRecreated,
    /// Columns about the records, behind the schema's.
    pub metadata: Vec<MetadataColumn>,
    /// The columns of the key by which rows replace each other; empty: every row is new.
    pub upsert_by: Vec<Placed<Text>>,
    /// What becomes of a record without a value; `None`: what suits the source.
    pub on_tombstone: Option<OnTombstone>,
    /// Bytes that librdkafka may hold for one task.
    pub queue_bytes: Option<u64>,
}

/// `kind: file` as a source.
#[derive(Clone, Debug)]
pub struct FileSourceSpec {
    /// A file, a directory or a pattern.
    pub path: Placed<FilePath>,
    /// How it is decoded.
    pub format: FormatSpec,
}

/// `kind: generator`.
#[derive(Clone, Debug)]
pub struct GeneratorSpec {
    /// How many rows; `None`: without end.
    pub rows: Option<u64>,
    /// How many a second; `None`: as many as possible.
    pub rows_per_second: Option<u64>,
    /// How many at a time, at most; `None`: whole batches.
    pub batch_rows: Option<u64>,
    /// The seed of what is random in it.
    pub seed: u64,
    /// The columns and how each is made.
    pub columns: Vec<(String, Generate)>,
}

/// Where a step or sink gets its rows: a source or step, or a side output of one
/// (`flights.dead_letters`, `hourly.late`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// The source or step.
    pub from: Text,
    /// Its side output.
    pub output: Option<Text>,
    /// Where it stands.
    pub place: Place,
}

/// A step.
#[derive(Clone, Debug)]
pub struct StepSpec {
    /// Where its rows come from; one, or several for a union.
    pub inputs: Vec<InputSpec>,
    /// What it does.
    pub kind: StepKind,
}

/// A column that is computed: its name and the SQL for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComputedSpec {
    /// The column's name.
    pub name: Text,
    /// The SQL.
    pub sql: Placed<Text>,
}

/// `name: function(argument)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateSpec {
    /// The column's name.
    pub name: String,
    /// The function and its argument, as they stand there.
    pub text: Placed<Text>,
    /// The function, in lower case.
    pub function: Text,
    /// Its argument as SQL; `None` for `count()`.
    pub argument: Option<Text>,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum StepKind {
    /// Keeps rows.
    Filter {
        /// The condition.
        condition: Placed<Text>,
    },
    /// Makes rows of exactly these columns.
    Project {
        /// The columns.
        columns: Vec<ComputedSpec>,
    },
    /// Adds or replaces columns.
    WithColumns {
        /// The columns.
        columns: Vec<ComputedSpec>,
    },
    /// Makes one stream of several.
    Union,
    /// Makes watermarks, of a column that is there or is computed.
    Watermarks(EventTimeSpec),
    /// Aggregates in event-time windows.
    Window {
        /// The key's columns.
        key_by: Vec<Placed<Text>>,
        /// The tumbling window's size, in microseconds.
        size: i64,
        /// Shifts the windows from the epoch, in microseconds.
        offset: i64,
        /// How long a window waits for late rows, in microseconds.
        allowed_lateness: i64,
        /// The aggregates.
        aggregates: Vec<AggregateSpec>,
    },
    /// Aggregates per key, without an end.
    Aggregate {
        /// The key's columns.
        key_by: Vec<Placed<Text>>,
        /// The aggregates.
        aggregates: Vec<AggregateSpec>,
    },
    /// Drops copies that cross-cluster retries have made.
    Deduplicate {
        /// The binary column that holds the records' ids, as Prism writes them.
        id: Placed<Text>,
    },
    /// Makes vectors of text.
    Embed(Box<EmbedSpec>),
    /// Finds rows that are nearly what another row of the key was.
    NearDuplicates(NearDuplicatesSpec),
    /// Sends rows through a graph of tensor ops.
    Tensor(Box<TensorSpec>),
    /// Finds the nearest of a reference matrix.
    Nearest(Box<NearestSpec>),
}

/// A sink.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    /// Where its rows come from.
    pub inputs: Vec<InputSpec>,
    /// Which kind.
    pub kind: SinkKind,
}

/// Which kind of sink.
#[derive(Clone, Debug)]
pub enum SinkKind {
    /// JSON lines on standard output.
    Print {
        /// What stands before each line.
        prefix: Option<Text>,
    },
    /// Counts and forgets.
    Blackhole,
    /// Files.
    File {
        /// The directory.
        path: Placed<FilePath>,
        /// How rows are encoded.
        format: FormatSpec,
    },
    /// A topic on one cluster of a topology.
    Kafka(KafkaSinkSpec),
    /// A logical topic through Prism.
    Prism(PrismSinkSpec),
}

/// `kind: kafka` as a sink.
#[derive(Clone, Debug)]
pub struct KafkaSinkSpec {
    /// The topic.
    pub topic: Text,
    /// The brokers.
    pub bootstrap_servers: Text,
    /// How rows are encoded.
    pub format: FormatSpec,
    /// The columns that make the records' key; empty: records have none.
    pub key: Vec<Placed<Text>>,
    /// What else goes to librdkafka.
    pub settings: Vec<(String, Secret)>,
}

/// `kind: prism`.
#[derive(Clone, Debug)]
pub struct PrismSinkSpec {
    /// The logical topic.
    pub topic: Text,
    /// Whom it writes through.
    pub target: PrismTargetSpec,
    /// How rows are encoded.
    pub format: FormatSpec,
    /// The columns that make the records' key; empty: records have none.
    pub key: Vec<Placed<Text>>,
    /// The column of the records' time.
    pub timestamp: Option<Placed<Text>>,
    /// Whether each record is published once, or at least once.
    pub exactly_once: bool,
    /// Where records wait for their checkpoint.
    pub staging: Option<FilePath>,
}

/// Whom a Prism sink writes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrismTargetSpec {
    /// A gateway at this address.
    Gateway(Text),
    /// A router in this process, over the clusters of this topology file.
    Embedded(FilePath),
}

#[cfg(test)]
mod tests {
    use super::shown_url;

    #[test]
    fn a_store_is_shown_without_what_may_be_secret() {
        for (url, shown) in [
            ("file:///var/x", "file:///var/x"),
            ("memory:", "memory:"),
            ("az://container/prefix?sv=1&sig=abc", "az://container/prefix"),
            ("s3://key:secret@bucket/p", "s3://bucket/p"),
            (
                "abfss://container@account.dfs.core.windows.net/p",
                "abfss://container@account.dfs.core.windows.net/p",
            ),
        ] {
            assert_eq!(shown_url(url), shown);
        }
    }
}
