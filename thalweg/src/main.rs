//! The binary `thalweg`.

use std::process::ExitCode;

/// RocksDB allocates through it too: one allocator, one place to look for memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    thalweg::cli::main()
}
