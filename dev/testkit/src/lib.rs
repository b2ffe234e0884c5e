//! Test services.
