//! The messages and services that Thalweg's processes speak, generated from the `.proto` files
//! beside. This crate knows nobody.

/// Prism: `ProduceBatch`, its messages, its client and its server.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used)]
pub mod prism {
    tonic::include_proto!("thalweg.prism.v1");
}
