//! thalweg-engine
