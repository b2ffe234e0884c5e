//! thalweg-derive
