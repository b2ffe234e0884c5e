//! How RocksDB is set up for state: many small values, written in batches and read by key; the
//! write-ahead log off, for the checkpoint is the log; memory shared by all instances of the
//! process and bounded.

use std::path::PathBuf;

use libc::c_int;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DataBlockIndexType, LogLevel,
    LruCacheOptions, Options, ReadOptions, WriteBufferManager, WriteOptions,
};

use super::key_group::KeyGroupRange;

/// Bits per key of the filters of files and of memtables: about one look-up in a hundred in vain.
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const MEMTABLE_BLOOM_RATIO: f64 = 0.05;
/// A point read copies and decompresses a whole block, so blocks are small; and so are the parts of
/// indexes and filters, which are read one part at a time. A filter of a whole file would be larger
/// than a shard of a small cache, never stay in it, and be read again by each look-up.
const BLOCK_BYTES: usize = 4 * 1024;
const METADATA_BLOCK_BYTES: usize = 8 * 1024;
/// Keys of an index that are stored as what differs from the one before: the upper part of an index
/// stays in memory, and long keys with a long beginning in common would fill it.
const INDEX_RESTART_INTERVAL: i32 = 16;
/// The block cache has at most 64 shards, of no fewer bytes than this.
const CACHE_SHARD_BYTES_MIN: usize = 8 << 20;
const CACHE_SHARD_BITS_MAX: u32 = 6;
/// Small enough that a checkpoint uploads little that has not changed.
const FILE_BYTES: u64 = 32 << 20;
const LEVEL_BASE_BYTES: u64 = 128 << 20;
/// Most bytes of one instance's memtable before it is written out.
const MEMTABLE_BYTES_MAX: usize = 64 << 20;
const MEMTABLE_BYTES_MIN: usize = 1 << 20;
const ARENA_BYTES_MAX: usize = 1 << 20;
const ARENA_BYTES_MIN: usize = 64 << 10;
/// What RocksDB reads ahead of each file that it compacts, and gathers before it writes; outside any
/// cache, so it is kept small.
const COMPACTION_READ_BYTES: usize = 256 << 10;
const FILE_WRITE_BYTES: u64 = 256 << 10;
/// Level-0 files after which RocksDB slows writers down, and stops them. High: the cache in front
/// bounds what a task writes, and a stopped task cannot answer barriers.
const LEVEL_ZERO_SLOWDOWN: i32 = 40;
const LEVEL_ZERO_STOP: i32 = 80;

/// Where RocksDB lives and what all instances of the process share.
#[derive(Clone, Debug)]
pub struct RocksConfig {
    /// The local directory; everything below it belongs to this process alone.
    pub directory: PathBuf,
    /// Bytes of the block cache; indexes and filters count.
    pub block_cache_bytes: usize,
    /// Bytes of all memtables.
    pub write_buffer_bytes: usize,
    /// What each instance keeps in memory in front of its store; see
    /// [`StateBackend::instance_bytes`](super::StateBackend::instance_bytes).
    pub instance_bytes: Option<usize>,
    /// Threads that flush and compact.
    pub background_jobs: i32,
    /// Files that are uploaded, or downloaded, at the same time by one instance. One, and nothing
    /// happens on a thread of its own.
    pub transfers: usize,
    /// Whether RocksDB compacts by itself. Not in simulations: what a checkpoint uploads would
    /// depend on the machine's mood.
    pub auto_compaction: bool,
    /// See [`StateBackend::waits_for_flush`](super::StateBackend::waits_for_flush).
    pub waits_for_flush: bool,
}

impl RocksConfig {
    /// 64 MiB of block cache and 64 MiB of write buffers, operators' own defaults in front, two
    /// background threads, four transfers.
    pub fn new(directory: impl Into<PathBuf>) -> RocksConfig {
        RocksConfig {
            directory: directory.into(),
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 64 << 20,
            instance_bytes: None,
            background_jobs: 2,
            transfers: 4,
            auto_compaction: true,
            waits_for_flush: true,
        }
    }

    /// For a simulation: nothing on threads that a seed could not replay.
    #[must_use]
    pub fn simulated(mut self) -> RocksConfig {
        self.transfers = 1;
        self.auto_compaction = false;
        self.waits_for_flush = false;
        self
    }
}

/// What all instances of a process share.
pub(super) struct Shared {
    pub(super) config: RocksConfig,
    cache: Cache,
    pub(super) write_buffers: WriteBufferManager,
}

impl Shared {
    pub(super) fn new(config: RocksConfig) -> Shared {
        let mut cache = LruCacheOptions::default();
        cache.set_capacity(config.block_cache_bytes);
        cache.set_num_shard_bits(shard_bits(config.block_cache_bytes) as c_int);
        let cache = Cache::new_lru_cache_opts(&cache);
        // Not stalling: a writer that waits for another instance's flush could wait for itself.
        let write_buffers = WriteBufferManager::new_write_buffer_manager(config.write_buffer_bytes, false);
        Shared { config, cache, write_buffers }
    }

    fn memtable_bytes(&self) -> usize {
        (self.config.write_buffer_bytes / 4).clamp(MEMTABLE_BYTES_MIN, MEMTABLE_BYTES_MAX)
    }

    /// Options of an instance and, the same for both, of its column families.
    pub(super) fn options(&self) -> Options {
        let memtable_bytes = self.memtable_bytes();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_write_buffer_manager(&self.write_buffers);
        options.set_write_buffer_size(memtable_bytes);
        options.set_arena_block_size((memtable_bytes / 16).clamp(ARENA_BYTES_MIN, ARENA_BYTES_MAX));
        options.set_max_write_buffer_number(4);
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
        options.set_max_background_jobs(self.config.background_jobs.max(1));
        options.set_disable_auto_compactions(!self.config.auto_compaction);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_target_file_size_base(FILE_BYTES);
        options.set_max_bytes_for_level_base(LEVEL_BASE_BYTES);
        options.set_level_zero_slowdown_writes_trigger(LEVEL_ZERO_SLOWDOWN);
        options.set_level_zero_stop_writes_trigger(LEVEL_ZERO_STOP);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_bytes_per_sync(1 << 20);
        options.set_compaction_readahead_size(COMPACTION_READ_BYTES);
        options.set_writable_file_max_buffer_size(FILE_WRITE_BYTES);
        options.set_block_based_table_factory(&self.table_options());
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(1);
        options.set_stats_dump_period_sec(0);
        options.set_skip_stats_update_on_db_open(true);
        options
    }

    fn table_options(&self) -> BlockBasedOptions {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_block_size(BLOCK_BYTES);
        table.set_metadata_block_size(METADATA_BLOCK_BYTES);
        table.set_index_block_restart_interval(INDEX_RESTART_INTERVAL);
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_pin_top_level_index_and_filter(true);
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        table.set_format_version(6);
        table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        table.set_whole_key_filtering(true);
        table.set_optimize_filters_for_memory(true);
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table
    }
}

/// The logarithm of the number of shards of a cache of so many bytes.
fn shard_bits(cache_bytes: usize) -> u32 {
    (cache_bytes / CACHE_SHARD_BYTES_MIN).checked_ilog2().unwrap_or(0).min(CACHE_SHARD_BITS_MAX)
}

/// Writes without a write-ahead log.
pub(super) fn write_options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

/// Reads between two keys.
pub(super) fn range_options(from: &[u8], to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    options
}

/// The keys of a range of key groups, in either family.
pub(super) fn key_group_bounds(range: KeyGroupRange) -> ([u8; 2], [u8; 2]) {
    // A key group has 15 bits, so the end fits.
    ((range.first as u16).to_be_bytes(), (range.end as u16).to_be_bytes())
}
