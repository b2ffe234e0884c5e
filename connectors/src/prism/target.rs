//! Whom a sink gives its records to: a gateway over the network, or a router in this process.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use thalweg_engine::metrics::MetricGroup;
use thalweg_engine::{Error, Result};
use thalweg_proto::prism::prism_client::PrismClient;
use thalweg_proto::prism::{ProduceBatchRequest, Record, RecordResult};
use tokio::runtime::Runtime;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::config::RouterConfig;
use super::router::Router;

/// How long a connection may take to be made.
const CONNECT_BOUND: Duration = Duration::from_secs(5);
/// How long a call may take: the gateway answers long before, or it is gone.
const CALL_BOUND: Duration = Duration::from_secs(60);
/// How often an idle connection is looked after.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Threads of the runtime that all sinks of the process share.
const RUNTIME_THREADS: usize = 2;

/// Where a sink's records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrismTarget {
    /// A gateway, such as `http://127.0.0.1:7070`.
    Gateway(String),
    /// A router in this process; sinks of the same configuration share one.
    Embedded(RouterConfig),
}

/// The runtime of all Prism sinks in this process.
///
/// # Errors
/// An external error when there are no threads to be had.
pub(super) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(RUNTIME_THREADS).thread_name("prism-sink").enable_all().build()
    });
    let failed = |error: &std::io::Error| Error::external(format!("no runtime for Prism's sinks: {error}"));
    runtime.as_ref().map_err(failed)
}

impl PrismTarget {
    /// Connects, in the background.
    ///
    /// # Errors
    /// A user error for an address or a topology that cannot be used.
    pub(super) fn connect(&self, metrics: &MetricGroup) -> Result<Publisher> {
        match self {
            PrismTarget::Embedded(config) => Ok(Publisher::Embedded(Router::shared(config, metrics)?)),
            PrismTarget::Gateway(address) => {
                let endpoint = Endpoint::from_shared(address.clone()).map_err(|error| {
                    Error::user(format!("{address:?} is no address of a gateway")).caused_by(error)
                })?;
                let endpoint = endpoint
                    .connect_timeout(CONNECT_BOUND)
                    .timeout(CALL_BOUND)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(KEEP_ALIVE);
                let _in_runtime = runtime()?.enter();
                Ok(Publisher::Gateway(PrismClient::new(endpoint.connect_lazy())))
            }
        }
    }
}

/// Why nothing is known of a whole batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PublishError {
    /// The target is away: try again.
    Away(String),
    /// The target will never take it.
    Refused(String),
}

/// A connected target.
#[derive(Clone)]
pub(super) enum Publisher {
    Gateway(PrismClient<Channel>),
    Embedded(Router),
}

impl Publisher {
    /// Publishes records; one result each, in their order.
    pub(super) async fn publish(
        &self,
        topic: &str,
        records: Arc<[Record]>,
    ) -> Result<Vec<RecordResult>, PublishError> {
        let count = records.len();
        let results = match self {
            Publisher::Embedded(router) => router.produce(topic, records).await,
            Publisher::Gateway(client) => {
                let request = ProduceBatchRequest { topic: topic.to_owned(), records: records.to_vec() };
                let answer = client.clone().produce_batch(request).await;
                answer.map_err(|status| refused(&status))?.into_inner().results
            }
        };
        match results.len() == count {
            true => Ok(results),
            false => {
                let what = format!("the gateway gave {} results for {count} records", results.len());
                Err(PublishError::Refused(what))
            }
        }
    }
}

fn refused(status: &tonic::Status) -> PublishError {
    let message = format!("Prism: {}: {}", status.code(), status.message());
    match status.code() {
        Code::InvalidArgument
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => PublishError::Refused(message),
        _ => PublishError::Away(message),
    }
}
