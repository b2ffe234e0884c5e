//! Job files: read and checked, wired, built into the engine's graph, explained, run.
//!
//! A job file passes through three hands, each of which gathers all mistakes it sees: `read`
//! turns the tree into a specification, `wiring` looks at who feeds whom, `build` makes sources,
//! operators and sinks and lets expressions meet schemas. Only what passes all is run.
//! Nothing here touches the world beyond reading files that the job names.

mod build;
mod build_aggregation;
mod build_event_time;
mod build_format;
mod build_sink;
mod build_source;
mod build_step;
mod build_tensor;
mod build_transform;
mod data_type;
mod describe;
mod explain;
mod load;
mod memory;
mod outlook;
mod read;
mod read_event_time;
mod read_format;
mod read_generator;
mod read_restart;
mod read_sink;
mod read_source;
mod read_step;
mod read_tensor;
mod read_transform;
pub mod spec;
mod start;
pub mod transform_spec;
mod wiring;

pub use data_type::parse_type;
pub use explain::explain;
pub use load::{LoadedJob, load, load_text, load_with};
pub use outlook::outlook;
pub use start::start;
