//! The benchmarks: subject and baseline in turn, in one run.

fn main() {}
