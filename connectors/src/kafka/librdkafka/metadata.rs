//! The client that asks a cluster about topics.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use thalweg_engine::Result;

use super::questions;
use crate::kafka::client::{MetadataClient, Place, TopicMetadata};
use crate::kafka::client_settings::{ClientSettings, RedactedLog};

/// Asks one cluster.
pub(crate) struct ClusterMetadata(BaseConsumer<RedactedLog>);

impl ClusterMetadata {
    /// Connects with the first question.
    ///
    /// # Errors
    /// A user error that names the setting which librdkafka refuses.
    pub fn new(settings: &ClientSettings) -> Result<Self> {
        let log = RedactedLog { redaction: settings.redaction() };
        settings.create(log).map(ClusterMetadata)
    }
}

impl MetadataClient for ClusterMetadata {
    fn topic(&mut self, topic: &str, timeout: Duration) -> Result<TopicMetadata> {
        // Serves logs and errors, which would pile up otherwise.
        while self.0.poll(Duration::ZERO).is_some() {}
        questions::topic(self.0.client(), topic, timeout)
    }

    fn offsets(
        &mut self,
        topic: &str,
        partitions: &[i32],
        place: Place,
        timeout: Duration,
    ) -> Result<BTreeMap<i32, i64>> {
        questions::offsets(self.0.client(), topic, partitions, place, timeout)
    }
}
