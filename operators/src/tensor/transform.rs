//! A transform as a user writes it: a graph with its weights, and how rows are gathered for it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use thalweg_engine::operator::{Operator, OperatorFactory, single_input};
use thalweg_engine::record::{EdgeSchema, Mode, RESERVED_PREFIX};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Error, Result};
use thalweg_tensor::column::output_schema;
use thalweg_tensor::graph::Source;
use thalweg_tensor::{Backend, DeviceChoice, Graph, Limits, Tokenizer, Weights};

use super::inputs::Inputs;
use super::pipeline::{Pipeline, Setup};
use super::plan_compute::PlanCompute;
use super::provenance::{Provenance, short};
use super::rejected::dead_letter_schema;
use super::{Batching, Fingerprint, OnBadRow, ReferenceSource, ReferenceWatch, tensor_error};
use crate::bound_input::BoundInput;

/// Scratch memory of an instance on the CPU, in bytes, when nothing else is said.
const MEMORY_BYTES_DEFAULT: usize = 128 << 20;

/// Sends rows through a graph: reads the columns that its inputs name, appends those that it makes.
/// The other columns stay as they are.
#[derive(Clone)]
pub struct Transform {
    name: String,
    graph: Arc<Graph>,
    weights: Arc<Weights>,
    tokenizers: BTreeMap<String, Tokenizer>,
    device: Device,
    references: Vec<(String, ReferenceSource)>,
    /// Which column an input reads, where it is not the one of its name.
    columns: Vec<(String, String)>,
    /// What an output's column is called, where it is not as the output.
    renamed: Vec<(String, String)>,
    batching: Batching,
    limits: Limits,
    on_bad_row: OnBadRow,
    allow_changed_weights: bool,
    inline: bool,
    /// What is the same for all instances, made once.
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    input: BoundInput,
    fingerprint: OnceLock<Fingerprint>,
    watch: OnceLock<Arc<ReferenceWatch>>,
}

/// What computes.
#[derive(Clone)]
enum Device {
    Choice(DeviceChoice),
    Given(Arc<dyn Backend>),
}

impl Transform {
    /// A transform on the device that there is, in batches of 256 rows or 5 ms.
    pub fn new(graph: impl Into<Arc<Graph>>, weights: impl Into<Arc<Weights>>) -> Transform {
        Transform {
            name: "tensor".to_string(),
            graph: graph.into(),
            weights: weights.into(),
            tokenizers: BTreeMap::new(),
            device: Device::Choice(DeviceChoice::Auto),
            references: Vec::new(),
            columns: Vec::new(),
            renamed: Vec::new(),
            batching: Batching::default(),
            limits: Limits { memory_bytes_max: MEMORY_BYTES_DEFAULT, ..Limits::default() },
            on_bad_row: OnBadRow::default(),
            allow_changed_weights: false,
            inline: false,
            shared: Arc::default(),
        }
    }

    /// What it is called in `explain`, logs and metrics.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Reads an input of the graph from the column of another name.
    #[must_use]
    pub fn input(mut self, input: impl Into<String>, column: impl Into<String>) -> Self {
        self.columns.push((input.into(), column.into()));
        self
    }

    /// Calls the column of an output otherwise than the output.
    #[must_use]
    pub fn output(mut self, output: impl Into<String>, column: impl Into<String>) -> Self {
        self.renamed.push((output.into(), column.into()));
        self
    }

    /// Gives a tokenizer that an input of text names.
    #[must_use]
    pub fn tokenizer(mut self, name: impl Into<String>, tokenizer: Tokenizer) -> Self {
        self.tokenizers.insert(name.into(), tokenizer);
        self
    }

    /// Gives a reference matrix of the graph: as it is, or a file that is watched.
    #[must_use]
    pub fn reference(mut self, name: impl Into<String>, source: impl Into<ReferenceSource>) -> Self {
        self.references.push((name.into(), source.into()));
        self
    }

    /// Where it computes: `auto` (a GPU where there is one, else the CPU, said loudly) by default.
    #[must_use]
    pub fn device(mut self, choice: DeviceChoice) -> Self {
        self.device = Device::Choice(choice);
        self
    }

    /// Computes on a backend of the caller's.
    #[must_use]
    pub fn backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.device = Device::Given(backend);
        self
    }

    /// Rows of a batch, at most.
    #[must_use]
    pub fn batch(mut self, rows_max: usize) -> Self {
        self.batching.rows_max = rows_max;
        self
    }

    /// How long the first row of a batch waits for others.
    #[must_use]
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.batching.delay_max = delay;
        self
    }

    /// How rows are gathered, whole; see [`Batching`].
    #[must_use]
    pub fn batching(mut self, batching: Batching) -> Self {
        self.batching = batching;
        self
    }

    /// Threads that an instance may compute with on the CPU, its own among them; 1 by default.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.limits.threads = threads;
        self
    }

    /// Bytes of an instance's scratch on the CPU, or of everything that it holds on a GPU; 128 MiB by
    /// default.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.limits.memory_bytes_max = bytes;
        self
    }

    /// What happens to rows that the transform does not take.
    #[must_use]
    pub fn on_bad_row(mut self, on_bad_row: OnBadRow) -> Self {
        self.on_bad_row = on_bad_row;
        self
    }

    /// Goes on from a checkpoint that was made with another graph, other weights or another
    /// tokenizer. Otherwise such a restore is refused.
    #[must_use]
    pub fn allow_changed_weights(mut self, allow: bool) -> Self {
        self.allow_changed_weights = allow;
        self
    }

    /// Computes in the task's own thread, a batch in each of its wake-ups: what a simulated job
    /// needs to replay.
    #[must_use]
    pub fn inline(mut self) -> Self {
        self.inline = true;
        self
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Hashes of graph, weights and tokenizers, as a checkpoint remembers them. Reads the weights
    /// once.
    ///
    /// # Errors
    /// When a reference matrix cannot be read.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        if let Some(known) = self.shared.fingerprint.get() {
            return Ok(known.clone());
        }
        let mut tokenizers = blake3::Hasher::new();
        for (name, tokenizer) in &self.tokenizers {
            tokenizers.update(name.as_bytes()).update(&tokenizer.hash());
        }
        for version in self.watch()?.fixed() {
            tokenizers.update(version.name.as_bytes()).update(version.hash.as_bytes());
        }
        let made = Fingerprint {
            graph: blake3::hash(self.graph.describe().as_bytes()).to_hex().to_string(),
            weights: blake3::Hash::from_bytes(self.weights.hash()).to_hex().to_string(),
            tokenizers: tokenizers.finalize().to_hex().to_string(),
        };
        Ok(self.shared.fingerprint.get_or_init(|| made).clone())
    }

    /// Loads the reference matrices, if they are not loaded yet.
    ///
    /// # Errors
    /// A user error when one is missing or has another width, an external one when a file cannot be read.
    pub fn check_references(&self) -> Result<()> {
        self.watch().map(drop)
    }

    fn watch(&self) -> Result<Arc<ReferenceWatch>> {
        if let Some(watch) = self.shared.watch.get() {
            return Ok(watch.clone());
        }
        let watch = ReferenceWatch::open(&self.graph, &self.references)?;
        Ok(self.shared.watch.get_or_init(|| watch).clone())
    }

    fn weight_bytes(&self) -> usize {
        let weights = self.graph.weights().iter();
        weights.filter_map(|weight| self.weights.get(&weight.name)).map(|stored| stored.data.len()).sum()
    }

    /// What an instance holds on the host for itself: scratch, and batches that wait for the device.
    fn instance_bytes(&self) -> usize {
        let waiting = (self.batching.in_flight_max + 2) * self.batching.bytes_max.min(4 << 20);
        self.limits.memory_bytes_max + waiting
    }

    /// The column that buckets are made by: the first input of varying length.
    fn bucketed_by(&self, inputs: &Inputs) -> Option<usize> {
        if self.batching.buckets.is_empty() {
            return None;
        }
        let varies = |source: &Source| matches!(source, Source::Text { .. } | Source::Tokens);
        let first = self.graph.inputs().iter().position(|input| varies(&input.source))?;
        inputs.indices().get(first).copied()
    }

    fn output_fields(&self) -> Result<Vec<Field>> {
        let made = output_schema(&self.graph);
        let mut made: Vec<Field> = made.fields().iter().map(|field| field.as_ref().clone()).collect();
        for (output, column) in &self.renamed {
            let field = made.iter_mut().find(|field| field.name() == output);
            let field = field.ok_or_else(|| Error::user(format!("the graph has no output `{output}`")))?;
            *field = field.clone().with_name(column);
        }
        Ok(made)
    }

    /// What instance `subtask` computes on.
    fn open_device(&self, subtask: u32) -> Result<Arc<dyn Backend>> {
        match &self.device {
            Device::Given(backend) => Ok(backend.clone()),
            Device::Choice(choice) => {
                let opened = choice.open(subtask as usize).map_err(tensor_error)?;
                if let Some(warning) = opened.warning {
                    tracing::warn!(transform = self.name, subtask, "{warning}");
                }
                Ok(opened.backend)
            }
        }
    }

    fn schemas(&self, input: &EdgeSchema) -> Result<(SchemaRef, Option<SchemaRef>)> {
        let made = self.output_fields()?;
        for field in &made {
            if input.schema.index_of(field.name()).is_ok() {
                return Err(Error::user(format!("column {:?} is there already", field.name())));
            }
            if field.name().starts_with(RESERVED_PREFIX) {
                return Err(Error::user(format!(
                    "column {:?}: names that begin with {RESERVED_PREFIX} are the engine's",
                    field.name()
                )));
            }
        }
        let fields: Vec<Arc<Field>> =
            input.schema.fields().iter().cloned().chain(made.into_iter().map(Arc::new)).collect();
        let main = Arc::new(Schema::new_with_metadata(fields, input.schema.metadata().clone()));
        let dead_letters = match self.on_bad_row {
            OnBadRow::DeadLetter => Some(dead_letter_schema(&input.schema)?),
            OnBadRow::Fail | OnBadRow::Drop => None,
        };
        Ok((main, dead_letters))
    }
}

impl OperatorFactory for Transform {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        let input = self.shared.input.get()?;
        let (output, dead_letters) = self.schemas(input)?;
        let inputs = Inputs::new(&self.graph, &input.schema, &self.columns)?;
        let provenance =
            Provenance::new(self.fingerprint()?, self.allow_changed_weights, self.watch()?, self.inline);
        let transform = self.clone();
        let limits = Limits { in_flight_max: self.batching.in_flight_max, ..self.limits.clone() };
        Ok(Box::new(Pipeline::new(Setup {
            bucketed_by: self.bucketed_by(&inputs),
            batching: Arc::new(self.batching.clone()),
            on_bad_row: self.on_bad_row,
            output,
            dead_letters,
            inline: self.inline,
            provenance,
            compute: Box::new(move |subtask, provenance| {
                let backend = transform.open_device(subtask)?;
                let references = &provenance.references().matrices;
                let plan = backend.compile(&transform.graph, &transform.weights, references, &limits);
                let plan = plan.map_err(tensor_error)?;
                let reader =
                    inputs.reader(&transform.graph, &transform.tokenizers, transform.limits.threads)?;
                Ok(Box::new(PlanCompute::new(transform.graph.clone(), plan, inputs.clone(), reader)))
            }),
        })))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let input = single_input(inputs)?;
        if input.has_deletes() {
            return Err(Error::user("a row that deletes another one has no values to compute with"));
        }
        self.batching.check()?;
        self.weights.check(&self.graph).map_err(tensor_error)?;
        Inputs::new(&self.graph, &input.schema, &self.columns)?.reader(&self.graph, &self.tokenizers, 1)?;
        self.watch()?;
        let (main, dead_letters) = self.schemas(input)?;
        self.shared.input.bind(input)?;
        let main = EdgeSchema { schema: main, ..input.clone() };
        Ok(std::iter::once(main).chain(dead_letters.map(EdgeSchema::new)).collect())
    }

    /// A transform keeps no rows in its state, only what it was made of: that is compared when it is
    /// opened, where `allow_changed_weights` has a say.
    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        Some(StateIdentity::of("tensor transform"))
    }

    /// A row's columns do not depend on other rows. But the rows of a key must keep their order, and
    /// what is taken back must look as it did when it was inserted: not be compared with a reference
    /// that may have changed meanwhile.
    fn takes(&self, _input: usize, mode: &Mode) -> bool {
        let Batching { ordered, buckets, .. } = &self.batching;
        let keeps_order = *ordered || buckets.is_empty();
        let is_watched =
            |source: &ReferenceSource| matches!(source, ReferenceSource::Watched { every: Some(_), .. });
        let is_stable = !self.references.iter().any(|(_, source)| is_watched(source));
        match mode {
            Mode::Append => true,
            Mode::Upsert(_) => keeps_order && self.on_bad_row == OnBadRow::Fail,
            Mode::Retract => keeps_order && is_stable && self.on_bad_row == OnBadRow::Fail,
        }
    }

    /// Instances of a process share weights and references.
    fn memory_bytes(&self, parallelism: u32) -> u64 {
        // Without its references the job is not built.
        let references = self.watch().map_or(0, |watch| watch.bytes());
        (self.weight_bytes() + references) as u64 + self.instance_bytes() as u64 * u64::from(parallelism)
    }

    /// Device, sizes, hashes.
    fn details(&self) -> Result<Vec<(&'static str, String)>> {
        let Fingerprint { graph, weights, .. } = self.fingerprint()?;
        let device = match &self.device {
            Device::Choice(choice) => choice.to_string(),
            Device::Given(backend) => backend.device(),
        };
        let Batching { rows_max, bytes_max, delay_max, buckets, ordered, in_flight_max } = &self.batching;
        let mut batches = format!(
            "{rows_max} rows or {} KiB or {} ms, {in_flight_max} under way",
            bytes_max >> 10,
            delay_max.as_millis()
        );
        if !buckets.is_empty() {
            batches.push_str(&format!(", by length {buckets:?}"));
        }
        if !ordered {
            batches.push_str(", in any order");
        }
        let mut rows = vec![
            ("device", device),
            ("graph", format!("{} ops, {}", self.graph.nodes().len(), short(&graph))),
            (
                "weights",
                format!("{:.1} MiB, {}", self.weight_bytes() as f64 / f64::from(1 << 20), short(&weights)),
            ),
            ("batches", batches),
            ("memory", format!("{:.1} MiB an instance", self.instance_bytes() as f64 / f64::from(1 << 20))),
        ];
        let references = self.watch()?.latest();
        for (matrix, version) in references.matrices.iter().zip(&references.versions) {
            let text = format!("{} of {} vectors, {}", matrix.name(), matrix.rows(), short(&version.hash));
            rows.push(("reference", text));
        }
        Ok(rows)
    }

    fn describe(&self) -> String {
        let graph = blake3::hash(self.graph.describe().as_bytes()).to_hex();
        format!("{} {} {:?}", self.name, short(&graph), self.columns)
    }
}
