//! What is held, by name. A hundred thousand small secrets are the measure: the name stands in the secret's own block and
//! nowhere else, and what few entries have lies apart.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::{Cached, ENTRY_OVERHEAD};
use crate::clock::Tick;

/// One held secret.
pub(super) struct Slot {
    pub(super) cached: Arc<Cached>,
    pub(super) confirmed: Tick,
    pub(super) used: Used,
}

impl Slot {
    /// Returns its exact name.
    pub(super) fn name(&self) -> &str {
        self.cached.secret.name()
    }

    /// Returns what it is charged for.
    pub(super) fn charge(&self) -> usize {
        self.cached.secret.byte_size() + self.name().len() + ENTRY_OVERHEAD
    }
}

/// When an entry was last used, and whether it was read since it was last asked for by itself: a count and, in the lowest
/// bit, a flag.
#[derive(Clone, Copy)]
pub(super) struct Used(u64);

impl Used {
    pub(super) fn new(count: u64, wanted: bool) -> Self {
        Self(count << 1 | u64::from(wanted))
    }

    /// Orders entries by their last use.
    pub(super) fn count(self) -> u64 {
        self.0 >> 1
    }

    pub(super) fn wanted(self) -> bool {
        self.0 & 1 == 1
    }

    pub(super) fn rest(&mut self) {
        self.0 &= !1;
    }
}

/// What is known of an entry beside its value; most have nothing of it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    /// When a reader last said `no-cache`.
    pub(super) forced: Option<Tick>,
    /// Failed calls since the last that went well.
    pub(super) failures: u32,
    /// No call by itself before this.
    pub(super) retry_at: Option<Tick>,
}

/// Held secrets by name.
#[derive(Default)]
pub(super) struct Slots {
    table: HashTable<Slot>,
    hasher: RandomState,
    troubles: HashMap<Box<str>, Trouble>,
}

impl Slots {
    pub(super) fn get(&self, name: &str) -> Option<&Slot> {
        self.table.find(self.hasher.hash_one(name), |slot| slot.cached.secret.has_name(name))
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Slot> {
        self.table.find_mut(self.hasher.hash_one(name), |slot| slot.cached.secret.has_name(name))
    }

    /// Puts in `slot` in the place of what has its name.
    pub(super) fn insert(&mut self, slot: Slot) {
        let Self { table, hasher, .. } = self;
        let hash = hasher.hash_one(slot.name());
        match table.entry(
            hash,
            |other| other.cached.secret.has_name(slot.name()),
            |other| hasher.hash_one(other.name()),
        ) {
            Entry::Occupied(mut place) => *place.get_mut() = slot,
            Entry::Vacant(place) => {
                place.insert(slot);
            }
        }
    }

    /// Takes out what has `name`, its trouble too.
    pub(super) fn remove(&mut self, name: &str) -> Option<Slot> {
        self.set_trouble(name, Trouble::default());
        let found = self.table.find_entry(self.hasher.hash_one(name), |slot| slot.cached.secret.has_name(name));
        found.ok().map(|place| place.remove().0)
    }

    pub(super) fn trouble(&self, name: &str) -> Trouble {
        self.troubles.get(name).copied().unwrap_or_default()
    }

    pub(super) fn set_trouble(&mut self, name: &str, trouble: Trouble) {
        if trouble != Trouble::default() {
            self.troubles.insert(name.into(), trouble);
        } else if self.troubles.remove(name).is_some() && self.troubles.is_empty() {
            // What an outage needed is given back when it is over.
            self.troubles = HashMap::new();
        }
    }

    /// Notes a call for `name` that went well.
    pub(super) fn recovered(&mut self, name: &str) {
        self.set_trouble(name, Trouble { forced: self.trouble(name).forced, ..Trouble::default() });
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.table.iter()
    }

    /// Iterates over the entries to be changed, each with its trouble.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&mut Slot, Trouble)> {
        let troubles = &self.troubles;
        self.table.iter_mut().map(|slot| {
            let trouble = troubles.get(slot.name()).copied().unwrap_or_default();
            (slot, trouble)
        })
    }
}
