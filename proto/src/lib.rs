//! thalweg-proto
