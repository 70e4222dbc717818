//! How does the core keep a few dozen entries in the order of their keys? In one sorted `Vec`.
//!
//! `VecMap` has the methods of `BTreeMap` that the core uses, and the same order of iteration.
//! Finding a key is a binary search. Inserting and removing move everything behind the entry, so
//! this is for maps that hold at most a few hundred entries, or whose keys mostly arrive in rising
//! order (tickets), or whose user passes over all entries anyway. Before it, the agent had 108
//! functions of `BTreeMap` (45 KiB of code), and most of these maps held fewer than 100 entries.

use alloc::vec::Vec;

/// A map sorted by its keys. Invariant: the keys of `entries` rise strictly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VecMap<K, V> {
    entries: Vec<(K, V)>,
}

impl<K: Ord, V> VecMap<K, V> {
    pub const fn new() -> VecMap<K, V> {
        VecMap {
            entries: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where the key is, or where it would have to be inserted.
    fn search(&self, key: &K) -> Result<usize, usize> {
        self.entries.binary_search_by(|(other, _)| other.cmp(key))
    }

    pub fn contains_key(&self, key: &K) -> bool {
        self.search(key).is_ok()
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        let at = self.search(key).ok()?;
        Some(&self.entries[at].1)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.search(key).ok()?;
        Some(&mut self.entries[at].1)
    }

    /// The value that the key had before, if it had one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.search(&key) {
            Ok(at) => Some(core::mem::replace(&mut self.entries[at].1, value)),
            Err(at) => {
                self.entries.insert(at, (key, value));
                None
            }
        }
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.search(key).ok()?;
        Some(self.entries.remove(at).1)
    }

    /// Removes the entries for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.entries.retain_mut(|(key, value)| keep(key, value));
    }

    /// All entries, lowest key first; so are `keys` and `values`.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.entries.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, value)| value)
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
