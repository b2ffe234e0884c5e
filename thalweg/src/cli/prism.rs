//! `thalweg prism`: runs the gateway.

use std::net::SocketAddr;
use std::path::Path;

use thalweg_connectors::prism::run_gateway;
use thalweg_engine::Blame;
use thalweg_engine::metrics::Registry;

use super::Exit;
use super::metrics_server::MetricsServer;

/// Runs the gateway until a signal comes; what is under way is finished first.
pub(super) fn prism(config: &Path, metrics_addr: Option<SocketAddr>) -> Exit {
    let registry = Registry::default();
    let server = metrics_addr.map(|address| MetricsServer::start(address, registry.clone())).transpose();
    let _server = match server {
        Ok(server) => server,
        Err(message) => {
            eprintln!("error: {message}");
            return Exit::Mistaken;
        }
    };
    match run_gateway(config, &registry) {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("error: {error}");
            if error.blame() == Blame::User { Exit::Mistaken } else { Exit::Failed }
        }
    }
}
