//! Streams: how a program builds a graph. Mistakes are gathered and reported together by
//! [`Environment::build`], so that a chain of calls reads without a `?` on every line.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use parking_lot::Mutex;

use super::derived_uid::{by_place, name_nodes};
use super::{Edge, Expression, Graph, Node, NodeId, NodeKind, Partitioner, Uid};
use crate::event_time::AssignWatermarks;
use crate::operator::{OperatorFactory, OutputIndex, check_mode};
use crate::record::{EdgeSchema, Mode};
use crate::sink::Committer;
use crate::source::Source;
use crate::state::StateIdentity;
use crate::state::key_by::KeyBy;
use crate::time::WatermarkStrategy;
use crate::{Error, Result};

#[derive(Default)]
struct Building {
    graph: Graph,
    /// Whether the uid was given by the user, per node.
    given: Vec<bool>,
    errors: Vec<String>,
}

/// Where a job is built. Clones share one graph.
#[derive(Clone, Default)]
pub struct Environment(Arc<Mutex<Building>>);

impl Environment {
    /// An empty job.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source.
    pub fn source(&self, source: impl Source + 'static) -> Stream {
        self.source_dyn(Arc::new(source))
    }

    /// Adds a source that is shared already.
    pub fn source_dyn(&self, source: Arc<dyn Source>) -> Stream {
        let name = source.name();
        let outputs = source.output().and_then(|main| Ok((main, source.side_outputs()?)));
        let (schema, sides, error) = match outputs {
            Ok((main, sides)) => (Some(main), sides, None),
            Err(error) => (None, Vec::new(), Some(error)),
        };
        let identity = Some(source.identity());
        let kind = NodeKind::Source { source, event_time: None, watermarks: None };
        let outputs = schema.iter().cloned().chain(sides).collect();
        let node = self.add_node(&name, kind, identity, outputs, 0);
        if let Some(error) = error {
            self.report(node, &error);
        }
        Stream { env: self.clone(), node, output: OutputIndex::MAIN, schema }
    }

    /// Records a mistake, to be reported by [`Environment::build`].
    pub fn mistake(&self, error: &Error) {
        self.0.lock().errors.push(error.to_string());
    }

    /// The graph, with uids resolved.
    ///
    /// # Errors
    /// A user error with every mistake that was made, a line each.
    pub fn build(&self) -> Result<Graph> {
        let building = self.0.lock();
        let mut errors = building.errors.clone();
        let mut graph = building.graph.clone();
        errors.extend(name_nodes(&mut graph, &building.given));
        if graph.nodes.is_empty() {
            errors.push("the job has no source".to_string());
        }
        if errors.is_empty() { Ok(graph) } else { Err(Error::user(errors.join("\n"))) }
    }

    fn report(&self, node: NodeId, error: &Error) {
        let mut building = self.0.lock();
        let name = building.graph.nodes[node.0].uid.to_string();
        building.errors.push(format!("{name}: {error}"));
    }

    /// Adds a node, with the uid of its place until it gets a name or is given one by
    /// [`Environment::build`].
    fn add_node(
        &self,
        name: &str,
        kind: NodeKind,
        identity: Option<StateIdentity>,
        outputs: Vec<EdgeSchema>,
        inputs: usize,
    ) -> NodeId {
        let mut building = self.0.lock();
        let before = building.graph.nodes.iter().filter(|node| node.name == name).count();
        let uid = match by_place(name, before) {
            Ok(uid) => uid,
            Err(error) => {
                building.errors.push(error.to_string());
                return NodeId(0);
            }
        };
        let id = NodeId(building.graph.nodes.len());
        building.graph.nodes.push(Node {
            uid_by_place: Some(uid.clone()),
            uid,
            uids_before: Vec::new(),
            name: name.to_string(),
            identity,
            kind,
            parallelism: None,
            outputs,
            inputs,
        });
        building.given.push(false);
        id
    }

    fn operator(
        &self,
        factory: Arc<dyn OperatorFactory>,
        committer: Option<Arc<dyn Committer>>,
        inputs: &[(&[&Stream], Option<Partitioner>)],
    ) -> Stream {
        let known: Option<Vec<EdgeSchema>> = inputs.iter().map(|(streams, _)| united(streams)).collect();
        // Watermarks go on as far as rows do.
        let watermarks = known.iter().flatten().any(|input| input.watermarks);
        let with = |output: EdgeSchema| EdgeSchema { watermarks: output.watermarks || watermarks, ..output };
        let agreed = known.map(|known| -> Result<_> {
            let outputs: Vec<_> = factory.outputs(&known)?.into_iter().map(with).collect();
            let identity = factory.identity(&known);
            if identity.is_none() && (factory.is_keyed() || committer.is_some()) {
                return Err(Error::internal("it has state, and does not say what its state is"));
            }
            Ok((outputs, identity))
        });
        let (outputs, identity, error) = match agreed {
            Some(Ok((outputs, identity))) => (outputs, identity, None),
            Some(Err(error)) => (Vec::new(), None, Some(error)),
            None => (Vec::new(), None, None),
        };
        let schema = outputs.first().cloned();
        let keyed = factory.is_keyed();
        let name = factory.name();
        let streams = inputs.iter().enumerate().flat_map(|(input, (streams, _))| {
            streams.iter().filter_map(move |stream| Some((input, &stream.schema.as_ref()?.mode)))
        });
        let refused: Vec<Error> =
            streams.filter_map(|(input, mode)| check_mode(factory.as_ref(), input, mode).err()).collect();
        let kind = NodeKind::Operator { factory, committer };
        let node = self.add_node(&name, kind, identity, outputs, inputs.len());
        for error in refused.iter().chain(&error) {
            self.report(node, error);
        }
        for (input, (streams, partitioner)) in inputs.iter().enumerate() {
            for stream in *streams {
                if streams[0].schema.as_ref().map(|s| &s.schema) != stream.schema.as_ref().map(|s| &s.schema)
                {
                    let error = Error::user("the united streams have different schemas");
                    self.report(node, &error);
                }
                let partitioner =
                    partitioner.unwrap_or(if keyed { Partitioner::Hash } else { Partitioner::Forward });
                let edge = Edge { from: stream.node, output: stream.output, to: node, input, partitioner };
                self.0.lock().graph.edges.push(edge);
            }
        }
        Stream { env: self.clone(), node, output: OutputIndex::MAIN, schema }
    }
}

/// What streams that feed one input promise together.
fn united(streams: &[&Stream]) -> Option<EdgeSchema> {
    let first = streams.first()?.schema.clone()?;
    let watermarks = streams.iter().all(|stream| stream.schema.as_ref().is_none_or(|s| s.watermarks));
    Some(EdgeSchema { watermarks, ..first })
}

/// One output of a node. Clones name the same output; using it twice sends its rows to both.
#[derive(Clone)]
pub struct Stream {
    env: Environment,
    node: NodeId,
    output: OutputIndex,
    /// `None` after a mistake upstream, which was reported there.
    schema: Option<EdgeSchema>,
}

impl AsRef<Stream> for Stream {
    fn as_ref(&self) -> &Stream {
        self
    }
}

impl Stream {
    /// What the stream's batches look like; `None` after a mistake upstream.
    pub fn edge_schema(&self) -> Option<&EdgeSchema> {
        self.schema.as_ref()
    }

    /// Whether this is what a source gives, with nothing between.
    pub fn is_source(&self) -> bool {
        let kind = &self.env.0.lock().graph.nodes[self.node.0].kind;
        matches!(kind, NodeKind::Source { .. }) && self.output == OutputIndex::MAIN
    }

    /// The job that this stream belongs to.
    pub fn environment(&self) -> &Environment {
        &self.env
    }

    /// Sends the stream through an operator.
    pub fn apply(&self, factory: impl OperatorFactory + 'static) -> Stream {
        self.apply_dyn(Arc::new(factory), None)
    }

    /// Sends the stream through an operator that is shared already, repartitioned first when
    /// `partitioner` is given.
    pub fn apply_dyn(&self, factory: Arc<dyn OperatorFactory>, partitioner: Option<Partitioner>) -> Stream {
        self.env.operator(factory, None, &[(&[self], partitioner)])
    }

    /// Sends this stream (input 0) and `other` (input 1) through an operator.
    pub fn connect(
        &self,
        other: &Stream,
        factory: Arc<dyn OperatorFactory>,
        partitioners: [Option<Partitioner>; 2],
    ) -> Stream {
        let [this, that] = partitioners;
        self.env.operator(factory, None, &[(&[self], this), (&[other], that)])
    }

    /// Unites streams of one schema and sends them through an operator.
    pub fn union_apply(&self, others: &[&Stream], factory: Arc<dyn OperatorFactory>) -> Stream {
        let mut streams = vec![self];
        streams.extend_from_slice(others);
        self.env.operator(factory, None, &[(&streams, None)])
    }

    /// Ends the stream in a sink; with a committer, a two-phase one.
    pub fn sink_dyn(
        &self,
        factory: Arc<dyn OperatorFactory>,
        committer: Option<Arc<dyn Committer>>,
    ) -> Stream {
        self.env.operator(factory, committer, &[(&[self], None)])
    }

    /// The side output `index` (1 and up) of the node that made this stream.
    pub fn side_output(&self, index: u16) -> Stream {
        let schema = self.env.0.lock().graph.nodes[self.node.0].outputs.get(usize::from(index)).cloned();
        if schema.is_none() && self.schema.is_some() {
            self.env.report(self.node, &Error::user(format!("there is no side output {index}")));
        }
        Stream { env: self.env.clone(), node: self.node, output: OutputIndex(index), schema }
    }

    /// Names the event-time column and how watermarks are made: at a source for each split, behind an
    /// operator for each of its instances, whatever watermarks come from upstream. The closer to the
    /// source, the better: see [`AssignWatermarks`].
    #[must_use]
    pub fn watermarks(self, column: &str, strategy: WatermarkStrategy) -> Stream {
        let Some(schema) = self.schema.clone() else {
            return self;
        };
        match schema.with_time(column) {
            Ok(schema) => self.with_event_time(schema, None, strategy),
            Err(error) => self.mistaken(&error),
        }
    }

    /// Appends an event-time column that `expression` computes, and says how watermarks are made, as
    /// [`Stream::watermarks`] does.
    #[must_use]
    pub fn event_time(
        self,
        column: &str,
        expression: Arc<dyn Expression>,
        strategy: WatermarkStrategy,
    ) -> Stream {
        let Some(schema) = self.schema.clone() else {
            return self;
        };
        let widened = expression.data_type(&schema.schema).and_then(|data_type| {
            let mut fields: Vec<_> = schema.schema.fields().iter().cloned().collect();
            fields.push(Arc::new(Field::new(column, data_type, true)));
            EdgeSchema { schema: Arc::new(Schema::new(fields)), ..schema }.with_time(column)
        });
        match widened {
            Ok(schema) => self.with_event_time(schema, Some((column.to_string(), expression)), strategy),
            Err(error) => self.mistaken(&error),
        }
    }

    /// Rows that lay too far ahead, where the stream's watermarks are made with a guard that puts them
    /// aside: [`OnAhead::DeadLetter`](crate::time::OnAhead::DeadLetter).
    pub fn ahead(&self) -> Stream {
        let (outputs, puts_aside) = {
            let building = self.env.0.lock();
            let node = &building.graph.nodes[self.node.0];
            let puts_aside = match &node.kind {
                NodeKind::Source { watermarks, .. } => {
                    watermarks.as_ref().is_some_and(WatermarkStrategy::puts_ahead_aside)
                }
                NodeKind::Operator { .. } => node.name == AssignWatermarks::NAME && node.outputs.len() > 1,
            };
            (node.outputs.len(), puts_aside)
        };
        if !puts_aside && self.schema.is_some() {
            let error = Error::user("rows that lie too far ahead are not put aside here");
            self.env.report(self.node, &error);
        }
        self.side_output(u16::try_from(outputs - 1).unwrap_or(u16::MAX))
    }

    /// The stream after a mistake.
    fn mistaken(mut self, error: &Error) -> Stream {
        self.env.report(self.node, error);
        self.schema = None;
        self
    }

    fn with_event_time(
        mut self,
        schema: EdgeSchema,
        computed: Option<(String, Arc<dyn Expression>)>,
        strategy: WatermarkStrategy,
    ) -> Stream {
        let schema = schema.with_watermarks();
        let mut building = self.env.0.lock();
        let node = &mut building.graph.nodes[self.node.0];
        if let (NodeKind::Source { source, event_time, watermarks }, OutputIndex::MAIN) =
            (&mut node.kind, self.output)
        {
            if schema.mode != Mode::Append && strategy.max_ahead.is_some() {
                drop(building);
                return self.mistaken(&Error::user(
                    "a row that is left out for its time, or set back, would leave what it replaces or \
                     deletes: `max_ahead` is for streams of appended rows",
                ));
            }
            let sides = source.side_outputs().map_or(0, |sides| sides.len());
            node.outputs.truncate(1 + sides);
            node.outputs[0] = schema.clone();
            node.outputs.extend(strategy.puts_ahead_aside().then(|| schema.clone()));
            *event_time = computed;
            *watermarks = Some(strategy);
            drop(building);
            self.schema = Some(schema);
            return self;
        }
        drop(building);
        let computed = computed.map(|(_, expression)| expression);
        self.apply(AssignWatermarks::new(schema, computed, strategy))
    }

    /// Keys the stream by columns: computes each row's key hash once; it travels with the batch.
    pub fn key_by(&self, columns: &[&str]) -> KeyedStream {
        let mut key = Vec::new();
        if let Some(schema) = &self.schema {
            for column in columns {
                match schema.schema.index_of(column) {
                    Ok(index) => key.push(index),
                    Err(_) => self
                        .env
                        .report(self.node, &Error::user(format!("there is no column {column:?} to key by"))),
                }
            }
        }
        KeyedStream { stream: self.apply(KeyBy::new(key.clone())), key }
    }

    /// Gives the node that made this stream its uid.
    pub fn uid(self, uid: &str) -> Stream {
        match Uid::new(uid) {
            Ok(uid) => {
                let mut building = self.env.0.lock();
                building.graph.nodes[self.node.0].uid = uid;
                building.graph.nodes[self.node.0].uid_by_place = None;
                building.given[self.node.0] = true;
            }
            Err(error) => self.env.mistake(&error),
        }
        self
    }

    /// Says which uid the node that made this stream had in an earlier version of the job: its state
    /// is looked for under that too. A restore refuses state that the job has no operator for.
    pub fn uid_was(self, uid: &str) -> Stream {
        match Uid::new(uid) {
            Ok(uid) => self.env.0.lock().graph.nodes[self.node.0].uids_before.push(uid),
            Err(error) => self.env.mistake(&error),
        }
        self
    }

    /// Gives the node that made this stream a parallelism of its own.
    pub fn parallelism(self, parallelism: u32) -> Stream {
        self.env.0.lock().graph.nodes[self.node.0].parallelism = Some(parallelism.max(1));
        self
    }
}

/// A stream whose rows carry the hash of their key.
#[derive(Clone)]
pub struct KeyedStream {
    stream: Stream,
    key: Vec<usize>,
}

impl AsRef<KeyedStream> for KeyedStream {
    fn as_ref(&self) -> &KeyedStream {
        self
    }
}

impl KeyedStream {
    /// The key's columns, by index.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// The stream below.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Sends the stream through a keyed operator, partitioned by key.
    pub fn apply(&self, factory: impl OperatorFactory + 'static) -> Stream {
        self.stream.apply_dyn(Arc::new(factory), Some(Partitioner::Hash))
    }

    /// Sends this stream (input 0) and `other` (input 1) through a keyed operator, both
    /// partitioned by key.
    pub fn connect_keyed(&self, other: &KeyedStream, factory: Arc<dyn OperatorFactory>) -> Stream {
        self.stream.connect(&other.stream, factory, [Some(Partitioner::Hash); 2])
    }

    /// Sends this stream (input 0), partitioned by key, and every row of `broadcast` (input 1)
    /// to all instances of a keyed operator.
    pub fn connect_broadcast(&self, broadcast: &Stream, factory: Arc<dyn OperatorFactory>) -> Stream {
        self.stream.connect(broadcast, factory, [Some(Partitioner::Hash), Some(Partitioner::Broadcast)])
    }
}
