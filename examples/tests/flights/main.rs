//! The flights job where it may break: simulated from seeds, and killed on real Kafka.

mod killed;
mod simulated;
