//! How does the agent keep its small maps in the order of their keys? Each in one sorted `Vec`.
//!
//! `VecMap` has the methods of `BTreeMap` that the agent uses, and the same order of iteration.
//! Finding a key is a binary search. A removed entry leaves a gap, and the gaps are closed when
//! they are the larger part, so removing costs little at any length. Inserting moves the entries
//! behind the new one, so this is for maps of at most a few hundred entries, or whose keys arrive
//! in rising order (tickets), or whose user passes over all entries anyway. Before it, the agent
//! had 108 functions of `BTreeMap` (45 KiB of code), and most of these maps held fewer than 100
//! entries.

use alloc::vec::Vec;

/// Gaps that are never worth closing.
const GAPS_MIN: usize = 8;

/// A map sorted by its keys. Invariant: the keys of `entries` rise strictly, and `count` of them
/// have a value; the others are gaps.
#[derive(Clone, Debug)]
pub struct VecMap<K, V> {
    entries: Vec<(K, Option<V>)>,
    count: usize,
}

impl<K: Ord, V> VecMap<K, V> {
    pub const fn new() -> VecMap<K, V> {
        VecMap {
            entries: Vec::new(),
            count: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where the key is, or where it would have to be inserted.
    fn search(&self, key: &K) -> Result<usize, usize> {
        self.entries.binary_search_by(|(other, _)| other.cmp(key))
    }

    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        let at = self.search(key).ok()?;
        self.entries[at].1.as_ref()
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.search(key).ok()?;
        self.entries[at].1.as_mut()
    }

    /// The value that the key had before, if it had one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = match self.search(&key) {
            Ok(at) => self.entries[at].1.replace(value),
            Err(at) => {
                self.entries.insert(at, (key, Some(value)));
                None
            }
        };
        self.count += usize::from(before.is_none());
        before
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.search(key).ok()?;
        let value = self.entries[at].1.take()?;
        self.count -= 1;
        if self.entries.len() > 2 * self.count + GAPS_MIN {
            self.entries.retain(|(_, value)| value.is_some());
        }
        Some(value)
    }

    /// Removes the entries for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let keep = |(key, value): &mut (K, Option<V>)| {
            value.as_mut().is_some_and(|value| keep(key, value))
        };
        self.entries.retain_mut(keep);
        self.count = self.entries.len();
    }

    /// All entries, lowest key first; so are `keys` and `values`.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.entries
            .iter()
            .filter_map(|(key, value)| Some((key, value.as_ref()?)))
    }

    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&K, &mut V)> {
        let entries = self.entries.iter_mut();
        entries.filter_map(|(key, value)| Some((&*key, value.as_mut()?)))
    }

    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut V> {
        self.iter_mut().map(|(_, value)| value)
    }
}

impl<K: Ord, V> Default for VecMap<K, V> {
    fn default() -> VecMap<K, V> {
        VecMap::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::collections::BTreeMap;

    /// Random operations on both; every answer and everything that can be listed must be equal.
    #[test]
    fn agrees_with_a_btree_map() {
        for seed in 0..200 {
            let rng = &mut Rng::new(seed);
            let keys = 1 + rng.below(30);
            let (mut map, mut twin) = (VecMap::new(), BTreeMap::new());
            for value in 0..200u32 {
                let key = rng.below(keys);
                let context = format!("seed {seed}, operation {value}");
                match rng.below(16) {
                    0..6 => {
                        assert_eq!(map.insert(key, value), twin.insert(key, value), "{context}")
                    }
                    6..10 => assert_eq!(map.remove(&key), twin.remove(&key), "{context}"),
                    10 => {
                        map.retain(|key, value| (*key + *value) % 3 != 0);
                        twin.retain(|key, value| (*key + *value) % 3 != 0);
                    }
                    11 => {
                        map.values_mut().for_each(|value| *value += 1);
                        twin.values_mut().for_each(|value| *value += 1);
                    }
                    12 => {
                        map.iter_mut().for_each(|(key, value)| *value ^= key);
                        twin.iter_mut().for_each(|(key, value)| *value ^= key);
                    }
                    _ => {
                        assert_eq!(map.get(&key), twin.get(&key), "{context}");
                        assert_eq!(map.get_mut(&key), twin.get_mut(&key), "{context}");
                    }
                }
                assert_eq!(map.contains_key(&key), twin.contains_key(&key), "{context}");
                assert_eq!((map.len(), map.is_empty()), (twin.len(), twin.is_empty()));
                assert!(map.iter().eq(twin.iter()), "{context}");
                assert!(map.keys().rev().eq(twin.keys().rev()), "{context}");
                assert!(map.values().eq(twin.values()), "{context}");
            }
        }
    }
}
