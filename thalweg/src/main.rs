//! The binary `thalweg`.

use std::process::ExitCode;

/// RocksDB allocates through it too: one allocator, one place to look for memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is freed goes back to the system within a second, not ten: the memory limit is about what
/// is resident. Read by jemalloc when it starts.
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8; 60] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    thalweg::cli::main()
}
