//! Serves the metrics as Prometheus text over HTTP, on a thread of its own.

use std::net::{SocketAddr, TcpListener};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use thalweg_engine::metrics::Registry;

use super::resident::ResidentGauges;

/// A server that runs until it is dropped.
pub struct MetricsServer {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl MetricsServer {
    /// Binds `address` and serves `registry` at `/metrics`.
    ///
    /// # Errors
    /// A sentence when the address cannot be bound.
    pub fn start(address: SocketAddr, registry: Registry) -> Result<MetricsServer, String> {
        let failed = |error: std::io::Error| format!("cannot serve metrics at {address}: {error}");
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let resident = std::sync::Arc::new(ResidentGauges::new(&registry));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serve = move || {
            runtime.block_on(async move {
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "metrics are not served"),
                };
                let text = move || {
                    resident.read();
                    let text = registry.prometheus_text();
                    async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
                };
                let router =
                    Router::new().route("/metrics", get(text)).route("/healthz", get(|| async { "ok\n" }));
                // A scraper that keeps its connection open does not keep the process.
                tokio::select! {
                    served = axum::serve(listener, router) => {
                        if let Err(error) = served {
                            tracing::error!(%error, "metrics are no longer served");
                        }
                    }
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("metrics".to_string()).spawn(serve).map_err(failed)?;
        Ok(MetricsServer { address: bound, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn metrics_are_served_as_prometheus_text() {
        let registry = Registry::default();
        registry.group(vec![("job", "j".into())]).counter("rows_in_total", "Rows read.").add(7);
        let server = MetricsServer::start(([127, 0, 0, 1], 0).into(), registry).unwrap();
        let mut connection = std::net::TcpStream::connect(server.address()).unwrap();
        write!(connection, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("thalweg_rows_in_total{job=\"j\"} 7"), "{answer}");
        let resident = answer.lines().find_map(|line| line.strip_prefix("thalweg_resident_bytes_max{} "));
        assert!(resident.is_some_and(|bytes| bytes.parse::<u64>().unwrap() > 1 << 20), "{answer}");
    }
}
