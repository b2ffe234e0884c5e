//! What a type must be able to do to be kept in a state: be encoded, be cloned when a barrier has
//! frozen it, and say how much memory it holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Says how many bytes of memory a value holds, so that the cache in front of the store can be
/// bounded in bytes. Roughly is enough: allocator overhead is not counted.
///
/// For a struct without heap data `impl StateSize for MyState {}` is exact.
pub trait StateSize {
    /// Bytes of the value itself and of what it owns on the heap.
    fn state_size(&self) -> usize {
        std::mem::size_of_val(self)
    }
}

/// A type that can be the value of a state. Implemented for every type that can.
///
/// `Sync`, because a frozen value is written by a helper thread while the task may still read it.
pub trait StateValue: Serialize + DeserializeOwned + Clone + Send + Sync + StateSize + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + StateSize + 'static> StateValue for T {}

macro_rules! plain {
    ($($name:ty),*) => { $(impl StateSize for $name {})* };
}
plain!(bool, char, (), f32, f64, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

impl StateSize for String {
    fn state_size(&self) -> usize {
        size_of::<Self>() + self.capacity()
    }
}

impl<T: StateSize> StateSize for Option<T> {
    fn state_size(&self) -> usize {
        let inner = self.as_ref().map_or(0, |value| value.state_size().saturating_sub(size_of::<T>()));
        size_of::<Self>() + inner
    }
}

impl<T: StateSize> StateSize for Box<T> {
    fn state_size(&self) -> usize {
        size_of::<Self>() + self.as_ref().state_size()
    }
}

impl<T: StateSize, const N: usize> StateSize for [T; N] {
    fn state_size(&self) -> usize {
        self.iter().map(StateSize::state_size).sum()
    }
}

impl<T: StateSize> StateSize for Vec<T> {
    fn state_size(&self) -> usize {
        let spare = (self.capacity() - self.len()) * size_of::<T>();
        size_of::<Self>() + spare + self.iter().map(StateSize::state_size).sum::<usize>()
    }
}

impl<T: StateSize> StateSize for VecDeque<T> {
    fn state_size(&self) -> usize {
        size_of::<Self>() + self.iter().map(StateSize::state_size).sum::<usize>()
    }
}

/// What a node of an ordered map costs per entry, beside the entry.
const TREE_ENTRY_BYTES: usize = 8;

impl<T: StateSize> StateSize for BTreeSet<T> {
    fn state_size(&self) -> usize {
        size_of::<Self>() + self.iter().map(|item| item.state_size() + TREE_ENTRY_BYTES).sum::<usize>()
    }
}

impl<K: StateSize, V: StateSize> StateSize for BTreeMap<K, V> {
    fn state_size(&self) -> usize {
        let entry = |(key, value): (&K, &V)| key.state_size() + value.state_size() + TREE_ENTRY_BYTES;
        size_of::<Self>() + self.iter().map(entry).sum::<usize>()
    }
}

macro_rules! tuples {
    ($($($name:ident)+;)*) => { $(
        impl<$($name: StateSize),+> StateSize for ($($name,)+) {
            #[allow(non_snake_case)]
            fn state_size(&self) -> usize {
                let ($($name,)+) = self;
                0 $(+ $name.state_size())+
            }
        }
    )* };
}
tuples! { A; A B; A B C; A B C D; A B C D E; A B C D E F; }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_data_is_counted_once() {
        assert_eq!(7u64.state_size(), 8);
        assert_eq!(String::from("abc").state_size(), 24 + 3);
        assert_eq!(Some(String::from("abc")).state_size(), 24 + 3);
        assert_eq!(vec![1u16, 2].state_size(), 24 + 4);
        assert_eq!((1u64, String::new()).state_size(), 32);
    }
}
