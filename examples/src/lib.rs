//! The flights job and what its demos need: the data, the job, and the results that a plain loop
//! finds without the engine.
//!
//! `demo` runs the job over two Kafka clusters through an outage and a `kill -9`; `flights` is the
//! job as a user would write it, over the shipped file. `demo_tensor` finds packages that say nearly the
//! same of themselves.

pub mod data;
pub mod demo;
pub mod expected;
pub mod job;
#[cfg(feature = "similar")]
pub mod similar;
