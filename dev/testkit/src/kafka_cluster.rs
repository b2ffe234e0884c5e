//! A real Apache Kafka cluster of one broker, and the few things that a test does to one: start, break, write, look.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, Headers, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use crate::{
    Error, FaultProxy, NewRecord, Record, Result,
    error::Doing,
    eventually,
    service::{Service, pair},
    shared::Shared,
};

/// How long one request of the testkit's own clients may take.
const REQUEST_BOUND: Duration = Duration::from_secs(30);
/// How long a look at a whole topic may wait for its next record.
const SILENCE_BOUND: Duration = Duration::from_secs(30);

/// A cluster of one broker with its own ports and data. Dropped, it is killed and its data is deleted.
#[derive(Debug)]
pub struct KafkaCluster {
    bootstrap: String,
    direct: String,
    service: Service,
    proxy: Option<FaultProxy>,
}

impl KafkaCluster {
    /// Starts a cluster. The name is for people; two clusters of one name are two clusters.
    ///
    /// # Errors
    /// When Kafka cannot be fetched or does not start.
    pub fn start(name: &str) -> Result<Self> {
        Self::launch(name, None)
    }

    /// Starts a cluster that tells its clients the address of a [`FaultProxy`] in front of it.
    ///
    /// # Errors
    /// As [`KafkaCluster::start`].
    pub fn start_behind_proxy(name: &str) -> Result<Self> {
        Self::launch(name, Some(FaultProxy::start()?))
    }

    fn launch(name: &str, proxy: Option<FaultProxy>) -> Result<Self> {
        let service = Service::new("kafka", name);
        let advertise =
            proxy.iter().flat_map(|proxy| ["--advertise".to_owned(), proxy.address().port().to_string()]);
        let pairs = service.start(&advertise.collect::<Vec<_>>())?;
        if let Some(proxy) = &proxy {
            proxy.forward_to(
                pair(&pairs, "listen")?.parse::<SocketAddr>().doing(|| "reading Kafka's address".into())?,
            )?;
        }
        Ok(KafkaCluster {
            bootstrap: pair(&pairs, "bootstrap")?,
            direct: pair(&pairs, "direct")?,
            service,
            proxy,
        })
    }

    /// The cluster of that name that this process's tests share, without a proxy; the first to ask starts it. It ends
    /// with the process. Tests that break a cluster take one of their own.
    ///
    /// # Errors
    /// As [`KafkaCluster::start`].
    pub fn shared(name: &str) -> Result<&'static Self> {
        static SHARED: Shared<KafkaCluster> = Shared::new();
        SHARED.get(name, || KafkaCluster::start(name))
    }

    /// What clients connect to: the proxy if there is one.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A way to the broker past the proxy, for a test's own look at it.
    #[must_use]
    pub fn direct(&self) -> &str {
        &self.direct
    }

    /// The proxy in front.
    ///
    /// # Errors
    /// When the cluster was started without one.
    pub fn proxy(&self) -> Result<&FaultProxy> {
        self.proxy
            .as_ref()
            .ok_or_else(|| Error::new("asking a Kafka cluster for its proxy", "it was started without one"))
    }

    /// Kills the broker with SIGKILL. Its data stays.
    ///
    /// # Errors
    /// When the script fails.
    pub fn kill(&self) -> Result<()> {
        self.service.run("kill", &[]).map(drop)
    }

    /// Ends the broker in order. Its data stays.
    ///
    /// # Errors
    /// When the script fails.
    pub fn stop(&self) -> Result<()> {
        self.service.run("stop", &[]).map(drop)
    }

    /// Starts the broker again, with its data and at its address, after [`KafkaCluster::kill`] or
    /// [`KafkaCluster::stop`]; without effect if it runs. Returns when it serves requests.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&self) -> Result<()> {
        self.service.start(&[]).map(drop)
    }

    /// Makes a topic and waits until each partition can be written.
    ///
    /// # Errors
    /// When the topic is there already, or the broker refuses.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(topic, partitions, &[])
    }

    /// [`KafkaCluster::create_topic`] with settings of the topic, such as `("cleanup.policy", "compact")`.
    ///
    /// # Errors
    /// As [`KafkaCluster::create_topic`].
    pub fn create_topic_with(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let what = || format!("making the topic {topic}");
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let admin: AdminClient<DefaultClientContext> = self.client().create().doing(what)?;
        let options = options();
        // On a starved machine the controller may think for a moment that no broker is alive.
        let starved = RDKafkaErrorCode::InvalidReplicationFactor;
        let started = Instant::now();
        loop {
            let made = block_on(admin.create_topics([&new], &options)).doing(what)?;
            match made.into_iter().find_map(std::result::Result::err) {
                None => break,
                Some((_, code)) if code == starved && started.elapsed() < REQUEST_BOUND => {
                    std::thread::sleep(Duration::from_millis(200));
                }
                Some((_, code)) => return Err(Error::new(what(), code)),
            }
        }
        wait_for_leaders(&admin, topic, partitions)
    }

    /// Gives a topic more partitions, `total` in all, and waits until each can be written.
    ///
    /// # Errors
    /// When there is no such topic, or the broker refuses.
    pub fn add_partitions(&self, topic: &str, total: i32) -> Result<()> {
        let what = || format!("adding partitions to the topic {topic}");
        let admin: AdminClient<DefaultClientContext> = self.client().create().doing(what)?;
        let count = usize::try_from(total).doing(what)?;
        for added in
            block_on(admin.create_partitions(&[NewPartitions::new(topic, count)], &options())).doing(what)?
        {
            added.map_err(|(_, code)| Error::new(what(), code))?;
        }
        wait_for_leaders(&admin, topic, total)
    }

    /// Deletes the records of a partition before an offset, as retention does.
    ///
    /// # Errors
    /// When there is no such partition or offset, or the broker refuses.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let what = || format!("deleting records of {topic}/{partition} before {before}");
        let admin: AdminClient<DefaultClientContext> = self.client().create().doing(what)?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before)).doing(what)?;
        let deleted = block_on(admin.delete_records(&offsets, &options())).doing(what)?;
        for partition in deleted.elements() {
            partition.error().doing(what)?;
        }
        Ok(())
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// When there is no such topic, or the broker refuses.
    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        let what = || format!("deleting the topic {topic}");
        let admin: AdminClient<DefaultClientContext> = self.client().create().doing(what)?;
        let options = options();
        for deleted in block_on(admin.delete_topics(&[topic], &options)).doing(what)? {
            deleted.map_err(|(_, code)| Error::new(what(), code))?;
        }
        Ok(())
    }

    /// Writes records, in order within a partition, and waits until the broker has acknowledged all of them.
    ///
    /// # Errors
    /// When a record was not acknowledged.
    pub fn produce<R: Into<NewRecord>>(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = R>,
    ) -> Result<()> {
        let what = || format!("writing to the topic {topic}");
        let producer: BaseProducer<Acknowledgements> = self
            .client()
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("message.timeout.ms", REQUEST_BOUND.as_millis().to_string())
            .create_with_context(Acknowledgements::default())
            .doing(what)?;
        for record in records {
            let record = record.into();
            let mut sent = producer.send(outgoing(topic, &record));
            while let Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) = sent {
                producer.poll(Duration::from_millis(100));
                sent = producer.send(again);
            }
            sent.map_err(|(error, _)| Error::new(what(), error))?;
        }
        producer.flush(2 * REQUEST_BOUND).doing(what)?;
        producer.context().first_refusal().map_or(Ok(()), |error| Err(Error::new(what(), error)))
    }

    /// Everything that stands in a topic now, partition by partition, in the order of the offsets.
    ///
    /// # Errors
    /// When there is no such topic, or the broker does not answer.
    pub fn consume(&self, topic: &str) -> Result<Vec<Record>> {
        let what = || format!("reading the topic {topic}");
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "thalweg-testkit")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()
            .doing(what)?;
        let mut open: BTreeSet<i32> = self.partitions(&consumer, topic)?.into_iter().collect();
        let mut assignment = TopicPartitionList::new();
        for partition in &open {
            assignment.add_partition_offset(topic, *partition, Offset::Beginning).doing(what)?;
        }
        consumer.assign(&assignment).doing(what)?;
        let mut read: BTreeMap<i32, Vec<Record>> = BTreeMap::new();
        let mut heard = Instant::now();
        while !open.is_empty() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    read.entry(message.partition()).or_default().push(incoming(&message));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(error)) if heard.elapsed() > SILENCE_BOUND => {
                    return Err(Error::new(what(), error));
                }
                // librdkafka goes on after any other error; only silence decides.
                Some(Err(_)) => {}
                None if heard.elapsed() > SILENCE_BOUND => {
                    return Err(Error::new(
                        what(),
                        format!("no record for {SILENCE_BOUND:?}, at {open:?} not at the end"),
                    ));
                }
                None => {}
            }
        }
        Ok(read.into_values().flatten().collect())
    }

    /// Waits until a topic holds at least `count` records, for at most `bound`, and gives all that stand there then.
    ///
    /// # Errors
    /// When the time is up, or as [`KafkaCluster::consume`].
    pub fn consume_at_least(&self, topic: &str, count: usize, bound: Duration) -> Result<Vec<Record>> {
        eventually(bound, &format!("{count} records in the topic {topic}"), || {
            let records = self.consume(topic);
            let enough = records.as_ref().map_or(true, |records| records.len() >= count);
            enough.then_some(records)
        })?
    }

    /// The offset after the last record of each partition, in the partitions' order.
    ///
    /// # Errors
    /// When there is no such topic, or the broker does not answer.
    pub fn end_offsets(&self, topic: &str) -> Result<Vec<i64>> {
        let what = || format!("reading the offsets of the topic {topic}");
        let consumer: BaseConsumer = self.client().create().doing(what)?;
        let partitions = self.partitions(&consumer, topic)?;
        let ends = partitions
            .into_iter()
            .map(|partition| consumer.fetch_watermarks(topic, partition, REQUEST_BOUND));
        ends.map(|watermarks| watermarks.map(|(_, high)| high))
            .collect::<std::result::Result<_, _>>()
            .doing(what)
    }

    fn partitions(&self, consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
        let what = || format!("looking for the topic {topic}");
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST_BOUND).doing(what)?;
        let partitions: BTreeSet<i32> = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions())
            .map(|partition| partition.id())
            .collect();
        if partitions.is_empty() {
            return Err(Error::new(what(), format!("it is not on {}", self.direct)));
        }
        Ok(partitions.into_iter().collect())
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.direct).set("broker.address.family", "v4");
        config
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_BOUND)).operation_timeout(Some(REQUEST_BOUND))
}

fn wait_for_leaders(admin: &AdminClient<DefaultClientContext>, topic: &str, partitions: i32) -> Result<()> {
    eventually(REQUEST_BOUND, &format!("leaders for the topic {topic}"), || {
        let metadata = admin.inner().fetch_metadata(Some(topic), REQUEST_BOUND).ok()?;
        let led = metadata
            .topics()
            .first()?
            .partitions()
            .iter()
            .filter(|partition| partition.leader() >= 0)
            .count();
        (i32::try_from(led) == Ok(partitions)).then_some(())
    })
}

/// Remembers the first record that a broker did not take.
#[derive(Debug, Default)]
struct Acknowledgements(Mutex<Option<KafkaError>>);

impl Acknowledgements {
    fn first_refusal(&self) -> Option<KafkaError> {
        self.0.lock().ok()?.clone()
    }
}

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        if let (Err((error, _)), Ok(mut first)) = (delivered, self.0.lock()) {
            first.get_or_insert_with(|| error.clone());
        }
    }
}

fn outgoing<'a>(topic: &'a str, record: &'a NewRecord) -> BaseRecord<'a, [u8], [u8]> {
    let mut out = BaseRecord::to(topic);
    out.key = record.key.as_deref();
    out.payload = record.payload.as_deref();
    out.partition = record.partition;
    out.timestamp = record.timestamp_ms;
    if !record.headers.is_empty() {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        out.headers = Some(headers);
    }
    out
}

fn incoming(message: &impl Message) -> Record {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().map(<[u8]>::to_vec),
        headers: headers
            .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
            .collect(),
    }
}
