//! What is held, by name. A hundred thousand small secrets are the measure: the name stands in the secret's own block and
//! nowhere else, and what few entries have lies apart.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::{Cached, ENTRY_OVERHEAD};
use crate::clock::Tick;

/// One held secret.
pub(super) struct Slot {
    pub(super) cached: Arc<Cached>,
    times: Times,
}

impl Slot {
    pub(super) fn new(cached: Arc<Cached>, confirmed: Tick, used: u32, wanted: bool) -> Self {
        Self { cached, times: Times::new(confirmed, used, wanted) }
    }

    /// Returns when the back-end last confirmed it, to the millisecond, rounded down.
    pub(super) fn confirmed(&self) -> Tick {
        self.times.confirmed()
    }

    /// Notes that the back-end has confirmed it at `tick`, unless it has done so later.
    pub(super) fn confirm(&mut self, tick: Tick) {
        self.times = Times::new(self.confirmed().max(tick), self.used(), self.is_wanted());
    }

    /// Orders entries by their last use.
    pub(super) fn used(&self) -> u32 {
        self.times.used()
    }

    /// Tells whether it was read since it was last asked for by itself.
    pub(super) fn is_wanted(&self) -> bool {
        self.times.is_wanted()
    }

    /// Notes a use; `wanted` where that is a read.
    pub(super) fn touch(&mut self, used: u32, wanted: bool) {
        self.times = self.times.used_at(used, self.is_wanted() || wanted);
    }

    /// Notes that it is asked for by itself.
    pub(super) fn rest(&mut self) {
        self.times = self.times.used_at(self.used(), false);
    }

    /// Returns its exact name.
    pub(super) fn name(&self) -> &str {
        self.cached.secret.name()
    }

    /// Returns what it is charged for.
    pub(super) fn charge(&self) -> usize {
        self.cached.secret.byte_size() + self.name().len() + ENTRY_OVERHEAD
    }
}

/// The largest count of uses that an entry can note; [`Slots::age`] makes room for more.
pub(super) const MOST_USES: u32 = (1 << USED_BITS) - 1;

const USED_BITS: u32 = 23;

/// When an entry was last confirmed and last used, and whether it was read since: 40 bits of milliseconds since boot, which
/// are 34 years, 23 of a count, and a flag.
#[derive(Clone, Copy)]
struct Times(u64);

impl Times {
    fn new(confirmed: Tick, used: u32, wanted: bool) -> Self {
        let most = u64::MAX >> (USED_BITS + 1);
        let milliseconds =
            u64::try_from(confirmed.since(Tick::at(Duration::ZERO)).as_millis()).unwrap_or(most).min(most);
        Self(milliseconds << (USED_BITS + 1)).used_at(used, wanted)
    }

    /// The same confirmation with another use: every read comes by here, so no time is converted.
    fn used_at(self, used: u32, wanted: bool) -> Self {
        let confirmed = self.0 >> (USED_BITS + 1) << (USED_BITS + 1);
        Self(confirmed | u64::from(used.min(MOST_USES)) << 1 | u64::from(wanted))
    }

    fn confirmed(self) -> Tick {
        Tick::at(Duration::from_millis(self.0 >> (USED_BITS + 1)))
    }

    fn used(self) -> u32 {
        (self.0 >> 1) as u32 & MOST_USES
    }

    fn is_wanted(self) -> bool {
        self.0 & 1 == 1
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

    /// Halves every entry's count of uses. Who was used long ago stays long ago; only the order of close ones is lost.
    pub(super) fn age(&mut self) {
        for slot in self.table.iter_mut() {
            slot.times = slot.times.used_at(slot.used() / 2, slot.is_wanted());
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_to_the_millisecond_and_never_reach_into_one_another() {
        let check = |confirmed: Duration, used: u32, wanted: bool, expected: Duration, expected_used: u32| {
            let times = Times::new(Tick::at(confirmed), used, wanted);
            assert_eq!(
                (times.confirmed(), times.used(), times.is_wanted()),
                (Tick::at(expected), expected_used, wanted),
                "{confirmed:?} {used}"
            );
        };
        let year = Duration::from_secs(366 * 86_400);
        for wanted in [false, true] {
            check(Duration::ZERO, 0, wanted, Duration::ZERO, 0);
            check(Duration::from_micros(1999), 1, wanted, Duration::from_millis(1), 1);
            check(30 * year, MOST_USES, wanted, 30 * year, MOST_USES);
            check(100 * year, u32::MAX, wanted, Duration::from_millis((1 << 40) - 1), MOST_USES);
        }
    }
}
