//! One memory budget for the process, divided before anything runs.
//!
//! Pure: from what the job is to how many bytes each part may hold. What is needed is dealt
//! first; what is left goes to the parts that get faster with more, most of it to state.

use std::fmt;

use crate::{Error, Result};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The program, its threads' stacks, metadata of clients, small things. An optimised binary with all
/// features has about 43 MiB of its text resident and 12 MiB of data when a small job runs.
const BASE_BYTES: u64 = 56 * MIB;
/// Share of the budget that nobody is given: allocators round up, RocksDB's compactions have buffers
/// that no cache counts.
const RESERVE_PERCENT: u64 = 15;

const CHANNEL_BYTES_MIN: u64 = 256 * KIB;
const CHANNEL_BYTES_MAX: u64 = 8 * MIB;
const KAFKA_BYTES_MIN: u64 = 2 * MIB;
const KAFKA_BYTES_MAX: u64 = 64 * MIB;
const UPLOAD_BYTES_MIN: u64 = MIB;
const UPLOAD_BYTES_MAX: u64 = 8 * MIB;
const BLOCK_CACHE_BYTES_MIN: u64 = 4 * MIB;
const WRITE_BUFFER_BYTES_MIN: u64 = 4 * MIB;
const CACHE_BYTES_MIN: u64 = 2 * MIB;

/// What the process will run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryRequest {
    /// What the process may hold, in bytes.
    pub limit_bytes: u64,
    /// Instances of keyed operators (uid x subtask).
    pub keyed_instances: u64,
    /// Channels between tasks.
    pub channels: u64,
    /// Kafka clients, consumers and producers.
    pub kafka_clients: u64,
    /// Files that are uploaded at the same time.
    pub uploads: u64,
    /// What operators hold beside their state, all instances together: the weights and scratch of
    /// tensor transforms, the row groups of Parquet files.
    pub operator_bytes: u64,
}

/// How many bytes each part of the process may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The whole budget.
    pub limit_bytes: u64,
    /// The program itself.
    pub base_bytes: u64,
    /// Given to nobody.
    pub reserve_bytes: u64,
    /// RocksDB's block cache, shared by all instances.
    pub block_cache_bytes: u64,
    /// RocksDB's memtables, shared by all instances.
    pub write_buffer_bytes: u64,
    /// Decoded values in front of the store, for each keyed instance.
    pub cache_bytes_per_instance: u64,
    /// What is queued, for each channel.
    pub channel_bytes: u64,
    /// librdkafka's queues, for each client.
    pub kafka_bytes_per_client: u64,
    /// For each file being uploaded.
    pub upload_bytes: u64,
    request: MemoryRequest,
}

impl MemoryPlan {
    /// Divides the budget.
    ///
    /// # Errors
    /// A user error that says how much the job needs, and for what, when the budget is too small.
    pub fn divide(request: MemoryRequest) -> Result<MemoryPlan> {
        let instances = request.keyed_instances;
        let keyed = u64::from(instances > 0);
        let mut plan = MemoryPlan {
            limit_bytes: request.limit_bytes,
            base_bytes: BASE_BYTES,
            reserve_bytes: request.limit_bytes * RESERVE_PERCENT / 100,
            block_cache_bytes: keyed * BLOCK_CACHE_BYTES_MIN,
            write_buffer_bytes: instances * WRITE_BUFFER_BYTES_MIN,
            cache_bytes_per_instance: keyed * CACHE_BYTES_MIN,
            channel_bytes: CHANNEL_BYTES_MIN,
            kafka_bytes_per_client: KAFKA_BYTES_MIN,
            upload_bytes: UPLOAD_BYTES_MIN,
            request,
        };
        let needed = plan.total_bytes();
        if needed > request.limit_bytes {
            let whole = (needed - plan.reserve_bytes) * 100 / (100 - RESERVE_PERCENT) + MIB;
            return Err(Error::user(format!(
                "the memory limit of {} is too small: this job needs at least {}\n{plan}",
                mebibytes(request.limit_bytes),
                mebibytes(whole)
            )));
        }
        plan.deal_rest(request.limit_bytes - needed);
        Ok(plan)
    }

    /// Deals what is left: a quarter to what moves data, capped where more does not help, the
    /// rest to state.
    fn deal_rest(&mut self, rest: u64) {
        let MemoryRequest { keyed_instances, channels, kafka_clients, uploads, .. } = self.request;
        let moving = if keyed_instances > 0 { rest / 4 } else { rest };
        let mut left = rest;
        let mut grow = |bytes: &mut u64, count: u64, percent: u64, max: u64| {
            if let Some(share) = (moving * percent / 100).checked_div(count) {
                let grown = share.min(max.saturating_sub(*bytes));
                *bytes += grown;
                left -= grown * count;
            }
        };
        grow(&mut self.channel_bytes, channels, 40, CHANNEL_BYTES_MAX);
        grow(&mut self.kafka_bytes_per_client, kafka_clients, 40, KAFKA_BYTES_MAX);
        grow(&mut self.upload_bytes, uploads, 20, UPLOAD_BYTES_MAX);
        if let Some(share) = (left * 45 / 100).checked_div(keyed_instances) {
            self.cache_bytes_per_instance += share;
            self.block_cache_bytes += left * 30 / 100;
            self.write_buffer_bytes += left * 25 / 100;
        }
    }

    /// The sum of all parts; at most the limit.
    pub fn total_bytes(&self) -> u64 {
        self.rows().iter().map(|(_, bytes, count)| bytes * count).sum()
    }

    fn rows(&self) -> [(&'static str, u64, u64); 9] {
        let request = &self.request;
        [
            ("program", self.base_bytes, 1),
            ("reserve", self.reserve_bytes, 1),
            ("operators beside state", request.operator_bytes, 1),
            ("state: caches of values", self.cache_bytes_per_instance, request.keyed_instances),
            ("state: block cache", self.block_cache_bytes, 1),
            ("state: write buffers", self.write_buffer_bytes, 1),
            ("channels", self.channel_bytes, request.channels),
            ("kafka clients", self.kafka_bytes_per_client, request.kafka_clients),
            ("uploads", self.upload_bytes, request.uploads),
        ]
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB as f64)
}

impl fmt::Display for MemoryPlan {
    /// One line for each part, as `explain` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "memory: {}", mebibytes(self.limit_bytes))?;
        for (name, bytes, count) in self.rows().into_iter().filter(|(_, bytes, count)| bytes * count > 0) {
            let whole = mebibytes(bytes * count);
            match count {
                1 => writeln!(f, "  {name:<24} {whole:>12}")?,
                _ => writeln!(f, "  {name:<24} {whole:>12}  ({count} x {})", mebibytes(bytes))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_budget_that_is_too_small_says_what_is_needed_and_that_much_is_enough() {
        let request = MemoryRequest {
            limit_bytes: 20 * MIB,
            keyed_instances: 4,
            channels: 8,
            kafka_clients: 2,
            uploads: 2,
            operator_bytes: 30 * MIB,
        };
        let error = MemoryPlan::divide(request).unwrap_err().to_string();
        assert!(error.contains("20.0 MiB is too small"), "{error}");
        let needed = error.split("at least ").nth(1).unwrap().split(' ').next().unwrap();
        let needed: f64 = needed.parse().unwrap();
        let enough = MemoryRequest { limit_bytes: (needed * MIB as f64) as u64, ..request };
        MemoryPlan::divide(enough).unwrap();
    }

    #[test]
    fn the_plan_is_printed_part_by_part() {
        let plan = MemoryPlan::divide(MemoryRequest {
            limit_bytes: 256 * MIB,
            keyed_instances: 2,
            channels: 4,
            kafka_clients: 0,
            uploads: 2,
            operator_bytes: 100 * MIB,
        });
        let text = plan.unwrap().to_string();
        assert!(text.starts_with("memory: 256.0 MiB\n"), "{text}");
        assert!(text.contains("operators beside state      100.0 MiB"), "{text}");
        assert!(text.contains("state: block cache"), "{text}");
        assert!(!text.contains("kafka"), "{text}");
    }

    proptest! {
        #[test]
        fn the_parts_never_exceed_the_limit(
            limit in 0u64..(1 << 36), keyed_instances in 0u64..64, channels in 0u64..512,
            kafka_clients in 0u64..32, uploads in 0u64..8, operator_bytes in 0u64..(1 << 34),
        ) {
            let request = MemoryRequest {
                limit_bytes: limit, keyed_instances, channels, kafka_clients, uploads, operator_bytes,
            };
            if let Ok(plan) = MemoryPlan::divide(request) {
                prop_assert!(plan.total_bytes() <= limit);
                prop_assert!(keyed_instances == 0 || plan.cache_bytes_per_instance >= CACHE_BYTES_MIN);
            }
        }
    }
}
