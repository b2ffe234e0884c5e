//! Finding again what is due and no longer in memory: the store's timer family holds an entry per
//! stored (key, namespace) and timer offset, and the table remembers at which times there may be
//! such entries. Due keys that are still in memory are their operator's own business.
//!
//! At a restore the times are read from the store by skipping from one to the next in each key
//! group: two seeks per distinct time and key group, whatever the number of keys.

use super::key::StoreKeys;
use super::look_up::{NO_SLOT, Touched};
use super::state::ColumnarState;
use crate::state::{Family, KvOp};
use crate::time::Micros;
use crate::{Error, Result};

/// How many timers are set anew in one write.
const SET_AT_ONCE: usize = 4096;
const UNREADABLE: &str = "a timer's key does not decode";

/// What no timer of a key group reaches.
fn end_of_group(group: u32) -> Vec<u8> {
    match u16::try_from(group + 1) {
        Ok(next) => next.to_be_bytes().to_vec(),
        Err(_) => vec![0xFF; 16],
    }
}

/// Where a scan of the timers of one time stands.
#[derive(Clone, Debug)]
pub struct TimerCursor {
    time: Micros,
    group: u32,
    after: Option<Vec<u8>>,
}

impl ColumnarState {
    /// The earliest time at which the store may hold timers that are not in memory.
    pub fn first_stored_time(&self) -> Option<Micros> {
        self.stored_times.first().copied()
    }

    /// Begins to scan the timers of `time`, and forgets that there are any. Evictions from now on
    /// do not remember times up to it.
    pub fn begin_timers(&mut self, time: Micros) -> TimerCursor {
        self.stored_times = self.stored_times.split_off(&time);
        self.stored_times.remove(&time);
        self.times_done = self.times_done.max(time);
        TimerCursor { time, group: self.key_groups.first, after: None }
    }

    /// Says that everything due up to `time` is dealt with or in memory.
    pub fn timers_done(&mut self, time: Micros) {
        self.times_done = self.times_done.max(time);
    }

    /// Looks the next keys with a timer at the cursor's time up, at most `limit`; they are in
    /// `touched.changed`, deleted ones left out. Answers whether there may be more.
    ///
    /// # Errors
    /// An external error of the store.
    pub fn next_timers(
        &mut self,
        cursor: &mut TimerCursor,
        limit: usize,
        touched: &mut Touched,
    ) -> Result<bool> {
        // Before the scan: making room writes deletes, and what they delete must not be found first.
        self.settle();
        self.make_room(limit, 0)?;
        let mut found: Vec<Vec<u8>> = Vec::new();
        while cursor.group < self.key_groups.end && found.len() < limit {
            let start =
                cursor.after.take().unwrap_or_else(|| StoreKeys::timer_start(cursor.group, cursor.time));
            let end = StoreKeys::timer_start(cursor.group, cursor.time.saturating_add(1));
            self.store.scan(Family::Timers, &start..&end, &mut |key, _| {
                found.push(key.to_vec());
                Ok(found.len() < limit)
            })?;
            if found.len() < limit {
                cursor.group += 1;
            } else if let Some(last) = found.last() {
                cursor.after = Some([last.as_slice(), &[0]].concat());
            }
        }
        let damaged = || Error::internal(UNREADABLE);
        let parts: Vec<_> =
            found.iter().map(|key| StoreKeys::split_timer(key)).collect::<Option<_>>().ok_or_else(damaged)?;
        let keys: Vec<&[u8]> = parts.iter().map(|(_, key, _)| *key).collect();
        let namespaces: Vec<i64> = parts.iter().map(|(_, _, namespace)| *namespace).collect();
        self.look_up_stored(&keys, &namespaces, touched)?;
        touched.slots.retain(|&slot| slot != NO_SLOT);
        if !touched.created.is_empty() {
            return Err(Error::internal("the store has a timer of a key that it does not have"));
        }
        Ok(cursor.group < self.key_groups.end)
    }

    /// Remembers that the store holds keys of this namespace that memory does not.
    pub(super) fn remember_stored(&mut self, namespace: i64) {
        for offset in &self.writer.timer_offsets {
            let time = namespace.saturating_add(*offset);
            if time > self.times_done {
                self.stored_times.insert(time);
            }
        }
    }

    /// Sets the timers of a restored store that was written with other offsets behind the first.
    /// Each stored key has one at the first, and from that come its others.
    ///
    /// # Errors
    /// An external error of the store.
    pub(super) fn set_timers_anew(&mut self) -> Result<()> {
        let Some((&first, others)) = self.writer.timer_offsets.split_first() else { return Ok(()) };
        let store_keys = self.writer.store_keys;
        for group in self.key_groups.first..self.key_groups.end {
            let end = end_of_group(group);
            let mut start = StoreKeys::timer_start(group, Micros::MIN);
            loop {
                let mut found: Vec<Vec<u8>> = Vec::new();
                // What is set on the way lies ahead, and is found to be right.
                self.store.scan(Family::Timers, &start..&end, &mut |key, _| {
                    found.push(key.to_vec());
                    Ok(found.len() < SET_AT_ONCE)
                })?;
                let Some(last) = found.last() else { break };
                start = [last.as_slice(), &[0]].concat();
                let mut ops = Vec::new();
                for timer in found {
                    let (time, key, namespace) =
                        StoreKeys::split_timer(&timer).ok_or_else(|| Error::internal(UNREADABLE))?;
                    if time == namespace.saturating_add(first) {
                        for &offset in others {
                            let mut other = Vec::with_capacity(timer.len());
                            store_keys.timer(namespace.saturating_add(offset), key, namespace, &mut other);
                            ops.push(KvOp::Put(Family::Timers, other, Vec::new()));
                        }
                    } else if !others.iter().any(|&offset| time == namespace.saturating_add(offset)) {
                        ops.push(KvOp::Delete(Family::Timers, timer));
                    }
                }
                self.store.write(&mut ops.into_iter())?;
            }
        }
        Ok(())
    }

    /// Reads from a restored store at which times there are timers.
    pub(super) fn read_stored_times(&mut self) -> Result<()> {
        if self.writer.timer_offsets.is_empty() {
            return Ok(());
        }
        for group in self.key_groups.first..self.key_groups.end {
            let end = end_of_group(group);
            let mut start = StoreKeys::timer_start(group, Micros::MIN);
            loop {
                let mut time = None;
                self.store.scan(Family::Timers, &start..&end, &mut |key, _| {
                    time = StoreKeys::split_timer(key).map(|(time, _, _)| time);
                    Ok(false)
                })?;
                let Some(time) = time else { break };
                self.stored_times.insert(time);
                let Some(next) = time.checked_add(1) else { break };
                start = StoreKeys::timer_start(group, next);
            }
        }
        Ok(())
    }
}
