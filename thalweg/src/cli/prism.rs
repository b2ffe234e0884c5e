//! `thalweg prism`: runs the gateway.

use std::net::SocketAddr;
use std::path::Path;

use super::Exit;

/// Runs the gateway until a signal comes.
pub(super) fn prism(config: &Path, metrics_addr: Option<SocketAddr>) -> Exit {
    let _ = metrics_addr;
    eprintln!("error: {}: the gateway is not in this build", config.display());
    Exit::Mistaken
}
