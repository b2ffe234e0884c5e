//! The gateway: the router as a gRPC service with one call (P1). Many clients share one producer for each cluster
//! (P8), since all requests go through one router.
//!
//! Nothing is read of a request but its length before there is room for it (`admission`): until
//! then it waits in its client, held back by HTTP/2's flow control, and after a while it is refused.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use thalweg_engine::metrics::{MetricGroup, Registry};
use thalweg_engine::{Error, Result};
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::admission::{Admission, AdmissionLimits};
use super::config::{CALL_WINDOW_BYTES, GatewayConfig};
use super::config_document::parse_gateway_config;
use super::router::Router;
use super::service::admitted_service;

/// Calls of a connection that are looked at; more wait in their client.
const CALLS_PER_CONNECTION: u32 = 8;
/// How long a call may take; who sends slower than that holds room for nothing.
const CALL_BOUND: Duration = Duration::from_secs(60);
/// How long connections may take to end.
const STOP_BOUND: Duration = Duration::from_secs(10);

/// A gateway that listens and does not serve yet.
pub struct PrismGateway {
    router: Router,
    admission: Admission,
    incoming: TcpIncoming,
    address: SocketAddr,
}

impl PrismGateway {
    /// Listens. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// A user error when the address is refused or the topology is bad.
    pub async fn bind(config: GatewayConfig, metrics: &MetricGroup) -> Result<PrismGateway> {
        let refused = |error: std::io::Error| {
            Error::user(format!("cannot listen on {}", config.listen)).caused_by(error)
        };
        let listener = tokio::net::TcpListener::bind(&config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let router = Router::new(config.router.clone(), metrics)?;
        let limits = AdmissionLimits {
            bytes: config.router.limits.in_flight_bytes,
            calls: config.calls,
            wait: config.router.room_wait,
        };
        let admission = Admission::new(limits, metrics);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Ok(PrismGateway { router, admission, incoming, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` ends, then finishes what is under way.
    ///
    /// # Errors
    /// An external error of the listener.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let PrismGateway { router, admission, incoming, .. } = self;
        let service = admitted_service(router.clone(), admission);
        let (told, stopping) = oneshot::channel();
        let signal = async move {
            stop.await;
            let _ = told.send(());
        };
        let serving = Server::builder()
            .timeout(CALL_BOUND)
            .max_concurrent_streams(CALLS_PER_CONNECTION)
            .initial_stream_window_size(CALL_WINDOW_BYTES)
            // What waits of some calls never keeps another one from being read.
            .initial_connection_window_size((CALLS_PER_CONNECTION + 1) * CALL_WINDOW_BYTES)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, signal);
        let bounded = async {
            // A client that keeps its connection open does not keep the gateway.
            if stopping.await.is_ok() {
                tokio::time::sleep(STOP_BOUND).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let served = tokio::select! {
            served = serving => served,
            () = bounded => Ok(()),
        };
        let closed = tokio::task::spawn_blocking(move || router.close()).await;
        served.map_err(|error| Error::external("the gateway failed").caused_by(error))?;
        closed.map_err(|error| Error::internal("the router did not close").caused_by(error))
    }

    /// Serves on threads of its own until the handle is stopped or dropped.
    ///
    /// # Errors
    /// As [`PrismGateway::bind`].
    pub fn start(config: GatewayConfig, metrics: &MetricGroup) -> Result<RunningGateway> {
        let runtime = runtime()?;
        let gateway = runtime.block_on(PrismGateway::bind(config, metrics))?;
        let (address, router) = (gateway.address(), gateway.router.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("prism-gateway".into()).spawn(move || {
            runtime.block_on(gateway.serve(async move {
                let _ = stopped.await;
            }))
        });
        let thread = thread.map_err(|error| Error::external("no thread for the gateway").caused_by(error))?;
        Ok(RunningGateway { address, router, stop: Some(stop), thread: Some(thread) })
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("prism-gateway")
        .enable_all()
        .build()
        .map_err(|error| Error::external("no runtime for the gateway").caused_by(error))
}

/// A gateway that serves on threads of its own. Dropped, it stops.
pub struct RunningGateway {
    address: SocketAddr,
    router: Router,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl RunningGateway {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients connect to: `http://address:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The router behind it.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Finishes what is under way and ends.
    ///
    /// # Errors
    /// What the gateway failed with.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(served)) => served,
            Some(Err(_)) => Err(Error::internal("the gateway's thread panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "the gateway ended badly");
        }
    }
}

/// `thalweg prism --config path`: serves until SIGINT or SIGTERM, then finishes what is under way.
///
/// # Errors
/// A user error with every mistake in the configuration, or what the gateway failed with.
pub fn run_gateway(path: &Path, registry: &Registry) -> Result<()> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::user(format!("cannot read {}", path.display())).caused_by(error))?;
    let config = parse_gateway_config(&text, path)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let gateway = PrismGateway::bind(config, &registry.group(vec![])).await?;
        tracing::info!(address = %gateway.address(), "Prism listens");
        gateway.serve(signalled()?).await
    })
}

fn signalled() -> Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let caught =
        |kind| signal(kind).map_err(|error| Error::external("cannot catch signals").caused_by(error));
    let (mut interrupt, mut terminate) = (caught(SignalKind::interrupt())?, caught(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
