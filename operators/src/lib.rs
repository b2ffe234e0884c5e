//! thalweg-operators
