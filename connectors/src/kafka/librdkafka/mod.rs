//! librdkafka behind the cut of [`super::client`]. `unsafe` lives here alone.

mod consumer;
mod locating;
mod message;
mod metadata;
mod questions;
mod watch;

use std::ffi::{CStr, c_char};
use std::time::Duration;

use thalweg_engine::Result;
use thalweg_engine::operator::Waker;

use super::client::{ConsumerClient, KafkaClient, MetadataClient, Watch};
use super::settings::{ConsumerNeeds, consumer_config, probe_config};
use super::topology::Cluster;

/// Real clusters.
pub(crate) struct Librdkafka;

impl KafkaClient for Librdkafka {
    fn metadata(&self, cluster: &Cluster) -> Result<Box<dyn MetadataClient>> {
        Ok(Box::new(metadata::ClusterMetadata::new(&probe_config(cluster)?)?))
    }

    fn consumer(
        &self,
        name: &str,
        cluster: &Cluster,
        needs: ConsumerNeeds,
        waker: &Waker,
    ) -> Result<Box<dyn ConsumerClient>> {
        Ok(Box::new(consumer::ClusterConsumer::new(name, &consumer_config(cluster, needs)?, waker)?))
    }

    fn watch(&self, name: &str, interval: Duration, look: Box<dyn FnMut() + Send>) -> Result<Box<dyn Watch>> {
        Ok(Box::new(watch::WatchThread::start(name, interval, look)?))
    }
}

/// # Safety
/// `start` is null or a live C string.
unsafe fn text(start: *const c_char) -> String {
    if start.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}
