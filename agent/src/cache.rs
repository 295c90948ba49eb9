//! Freshness, staleness, absence, and one call in flight for each secret. Pure: no I/O, no waiting, and the clock is an
//! argument; [`crate::resolver`] makes the calls that a [`LookUp`] asks for and brings back what came of them.
//!
//! A value is *fresh* until its ttl, then *stale* until `max_stale`, then *expired*. Ages count from the last time the
//! back-end confirmed the value: a fetch, or a change-detection listing that shows the same version.
//! What each error does to a cached value is decided in [`Cache::complete`] and nowhere else.

mod slots;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::arena::Arena;
use crate::backend::{BackendError, Description, Scope, Scopes, Secret};
use crate::clock::Tick;
use crate::held::Held;

use slots::{MOST_USES, Slot, Slots, Trouble};

/// Within this time a reader's own `no-cache` costs at most one call a secret.
pub const FORCED_REVALIDATION_INTERVAL: Duration = Duration::from_secs(10);

/// The first wait after a failed refresh; doubles with each further failure.
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);

/// The longest wait after a failed refresh.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// Absences are remembered apart from values, and never more than this many: unknown names cannot push values out.
const MOST_ABSENCES: usize = 10_000;

/// Nothing is asked for by itself more often than this, however short its ttl.
pub(crate) const LEAST_SPAN: Duration = Duration::from_millis(500);

/// What an entry is charged for beside its bytes: the structures around it.
const ENTRY_OVERHEAD: usize = 512;

/// How long things are served; one for each back-end.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How long a value is fresh.
    pub ttl: Duration,
    /// Age after which nothing is served; caps `ttl` too.
    pub max_stale: Duration,
    /// How long an absence is remembered.
    pub negative_ttl: Duration,
    /// Whether a failure of our own login evicts.
    pub deny_on_identity_failure: bool,
}

/// What an age means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freshness {
    Fresh,
    Stale,
    Expired,
}

impl Policy {
    fn freshness(&self, age: Duration) -> Freshness {
        match () {
            () if age >= self.max_stale => Freshness::Expired,
            () if age >= self.ttl => Freshness::Stale,
            () => Freshness::Fresh,
        }
    }
}

/// How much may be held.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of keys and values together, with a fixed charge for each entry.
    pub max_bytes: usize,
    /// Entries.
    pub max_entries: usize,
}

/// What a cache entry is for: one look-up of one name in one back-end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// Index of the back-end in precedence order.
    pub backend: usize,
    /// The scopes that were asked for: an entry never answers for others.
    pub scopes: Scopes,
    /// The secret's exact name.
    pub name: &'a str,
}

/// A secret in the cache, shared with the readers that are being answered from it.
pub struct Cached {
    /// The secret, in memory of its own.
    pub secret: Held,
    revision: AtomicU64,
}

impl Cached {
    fn new(secret: Held, revision: u64) -> Self {
        Self { secret, revision: AtomicU64::new(revision) }
    }

    /// Counts changes over the whole cache, so it never goes back for any secret within one instance. It is raised when
    /// this value comes to be resolved in the place of a newer one.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }
}

/// A value to serve.
#[derive(Clone)]
pub struct Hit {
    /// The secret.
    pub cached: Arc<Cached>,
    /// Time since the back-end last confirmed it.
    pub age: Duration,
    /// Past its ttl.
    pub stale: bool,
}

/// How a reader wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// By the rules of freshness.
    Usual,
    /// Fresh, or asked again: for checks, which must not pass on a stale value or fail on a remembered absence.
    Confirmed,
    /// Asked again even when fresh, but not twice in [`FORCED_REVALIDATION_INTERVAL`]: the reader said `no-cache`.
    Forced,
    /// Asked again, always: before a conditional write, and when change detection saw a difference.
    Reread,
}

/// What to do for a reader. `F` is whatever the caller hands to readers that wait for one call.
pub enum LookUp<F> {
    /// Serve it.
    Fresh(Hit),
    /// Serve it; when `lead` is there, also start the one refresh behind it.
    Stale {
        /// What to serve now.
        hit: Hit,
        /// The refresh to start.
        lead: Option<Lead<F>>,
    },
    /// The back-end said so less than `negative_ttl` ago: `NotFound` or `Denied`.
    Absent(BackendError),
    /// Wait for the call that is under way.
    Join(F),
    /// Make the call, then [`Cache::complete`] it and let the others know.
    Lead(Lead<F>),
}

/// What memory alone can tell.
pub enum Recall {
    /// A fresh value.
    Fresh(Hit),
    /// The back-end said less than `negative_ttl` ago that it has none.
    Absent,
    /// Anything else: [`Cache::look_up`] decides.
    Unknown,
}

/// What is known of one entry.
pub enum Glance {
    /// A value.
    Held {
        /// The value.
        cached: Arc<Cached>,
        /// When the back-end last confirmed it.
        confirmed: Tick,
        /// Too old to be served.
        expired: bool,
        /// The last call for it failed.
        failing: bool,
        /// No call before this.
        retry_at: Option<Tick>,
    },
    /// The back-end's final word, however long ago: `NotFound` or `Denied`.
    Absent {
        /// The word.
        error: BackendError,
        /// When it was said.
        since: Tick,
    },
    /// Nothing.
    Nothing,
}

/// A call that this reader must start.
pub struct Lead<F> {
    /// Names the call in [`Cache::complete`].
    pub id: u64,
    /// When it began.
    pub began: Tick,
    /// What joining readers wait on.
    pub flight: F,
}

/// What a finished call changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A value that was not there, or another version of it.
    Changed,
    /// The same version again.
    Confirmed,
    /// The value is gone: the back-end's final word.
    Removed,
    /// Nothing was cached and nothing is now, or a failure left things as they were.
    Unchanged,
}

/// Whether values read one after another are one consistent set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// Each is still held: none was replaced since it was read.
    Held,
    /// At least one is no longer held (evicted, deleted, too large to hold), none is known to be replaced.
    Gone,
    /// At least one was replaced by another version.
    Replaced,
}

/// How often readers were answered, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Fresh from memory.
    pub hits: u64,
    /// Stale from memory.
    pub stale_hits: u64,
    /// Led or joined a call, or met a remembered absence.
    pub misses: u64,
    /// Misses that joined a call under way.
    pub joins: u64,
    /// Secrets that were pushed out to make room.
    pub evictions: u64,
}

struct Absence {
    error: BackendError,
    since: Tick,
    until: Tick,
    forced: Option<Tick>,
}

struct Flight<F> {
    id: u64,
    handle: F,
}

/// The entries of one back-end for one choice of scopes.
struct Table<F> {
    slots: Slots,
    absences: HashMap<Box<str>, Absence>,
    flights: HashMap<Box<str>, Flight<F>>,
}

impl<F> Default for Table<F> {
    fn default() -> Self {
        Self { slots: Slots::default(), absences: HashMap::new(), flights: HashMap::new() }
    }
}

/// The cache of all back-ends.
pub struct Cache<F> {
    policies: Vec<Policy>,
    bounds: Bounds,
    /// Where the values lie.
    arena: Arc<Arena>,
    tables: Vec<[Table<F>; 4]>,
    /// Places whose back-end is gone: nothing is kept there any more.
    retired: HashSet<usize>,
    bytes: usize,
    entries: usize,
    absences: usize,
    revision: u64,
    next_flight: u64,
    uses: u32,
    counters: Counters,
}

fn table_index(scopes: Scopes) -> usize {
    match scopes {
        Scopes::PrivateFirst => 0,
        Scopes::PublicFirst => 1,
        Scopes::PrivateOnly => 2,
        Scopes::PublicOnly => 3,
    }
}

const ALL_SCOPES: [Scopes; 4] = [Scopes::PrivateFirst, Scopes::PublicFirst, Scopes::PrivateOnly, Scopes::PublicOnly];

impl<F: Clone> Cache<F> {
    /// An empty cache for as many back-ends as there are policies.
    pub fn new(policies: Vec<Policy>, bounds: Bounds) -> Self {
        let tables = policies.iter().map(|_| Default::default()).collect();
        Self {
            policies,
            bounds,
            arena: Arena::new(),
            tables,
            retired: HashSet::new(),
            bytes: 0,
            entries: 0,
            absences: 0,
            revision: 0,
            next_flight: 0,
            uses: 0,
            counters: Counters::default(),
        }
    }

    /// Makes a place for one more back-end and returns its index.
    pub fn add_backend(&mut self, policy: Policy) -> usize {
        self.policies.push(policy);
        self.tables.push(Default::default());
        self.tables.len() - 1
    }

    /// Changes how long things of one back-end are served; what is held is judged by it from now on.
    pub fn set_policy(&mut self, backend: usize, policy: Policy) {
        self.policies[backend] = policy;
    }

    /// Changes how much may be held, and evicts what is too much.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        if self.bytes > bounds.max_bytes || self.entries > bounds.max_entries {
            self.make_room(0);
        }
    }

    /// Wipes what is held of a back-end that is gone, for good: a call that is still under way stores nothing.
    pub fn retire(&mut self, backend: usize) {
        self.retired.insert(backend);
        for scopes in ALL_SCOPES {
            let table = std::mem::take(&mut self.tables[backend][table_index(scopes)]);
            self.entries -= table.slots.len();
            self.bytes -= table.slots.iter().map(Slot::charge).sum::<usize>();
            self.absences -= table.absences.len();
            table.slots.iter().for_each(|slot| self.raise(slot.name(), slot.cached.revision()));
        }
    }

    /// Decides how a reader of `key` is answered at `now`. `flight` makes the handle when a call must be led.
    pub fn look_up(&mut self, key: Key<'_>, now: Tick, want: Want, flight: impl FnOnce() -> F) -> LookUp<F> {
        let policy = self.policies[key.backend];
        let uses = self.next_use();
        let table = &mut self.tables[key.backend][table_index(key.scopes)];
        if let Some(slot) = table.slots.get_mut(key.name) {
            let age = now.since(slot.confirmed());
            let freshness = policy.freshness(age);
            let fresh = freshness == Freshness::Fresh;
            slot.touch(uses, want != Want::Reread);
            let hit = Hit { cached: Arc::clone(&slot.cached), age, stale: !fresh };
            let ask = match want {
                Want::Usual | Want::Confirmed => !fresh,
                Want::Forced => !fresh || is_due(table.slots.trouble(key.name).forced, now),
                Want::Reread => true,
            };
            if !ask {
                self.counters.hits += 1;
                return LookUp::Fresh(hit);
            }
            if want == Want::Usual && freshness == Freshness::Stale {
                self.counters.stale_hits += 1;
                let due = table.slots.trouble(key.name).retry_at.is_none_or(|at| now >= at);
                if !due || table.flights.contains_key(key.name) {
                    return LookUp::Stale { hit, lead: None };
                }
                return LookUp::Stale { hit, lead: Some(self.lead(key, now, flight())) };
            }
            if want == Want::Forced {
                let trouble = Trouble { forced: Some(now), ..table.slots.trouble(key.name) };
                table.slots.set_trouble(key.name, trouble);
            }
        } else if let Some(absence) = table.absences.get_mut(key.name) {
            let remembered = now < absence.until;
            let ask = match want {
                Want::Usual => !remembered,
                Want::Confirmed | Want::Reread => true,
                Want::Forced => !remembered || is_due(absence.forced, now),
            };
            if !ask {
                self.counters.misses += 1;
                return LookUp::Absent(absence.error.clone());
            }
            absence.forced = (want == Want::Forced).then_some(now).or(absence.forced);
        }
        self.counters.misses += 1;
        match self.tables[key.backend][table_index(key.scopes)].flights.get(key.name) {
            Some(flight) => {
                self.counters.joins += 1;
                LookUp::Join(flight.handle.clone())
            }
            None => LookUp::Lead(self.lead(key, now, flight())),
        }
    }

    /// Answers a reader from memory when that needs no call and no back-off: a fresh value, or an absence that is
    /// remembered. Only the former counts as a read.
    pub fn recall(&mut self, key: Key<'_>, now: Tick) -> Recall {
        let policy = self.policies[key.backend];
        let uses = self.next_use();
        let table = &mut self.tables[key.backend][table_index(key.scopes)];
        if let Some(slot) = table.slots.get_mut(key.name) {
            let age = now.since(slot.confirmed());
            if policy.freshness(age) != Freshness::Fresh {
                return Recall::Unknown;
            }
            slot.touch(uses, true);
            self.counters.hits += 1;
            return Recall::Fresh(Hit { cached: Arc::clone(&slot.cached), age, stale: false });
        }
        match table.absences.get(key.name) {
            Some(absence) if absence.error == BackendError::NotFound && now < absence.until => Recall::Absent,
            _ => Recall::Unknown,
        }
    }

    fn lead(&mut self, key: Key<'_>, now: Tick, handle: F) -> Lead<F> {
        self.next_flight += 1;
        let id = self.next_flight;
        self.tables[key.backend][table_index(key.scopes)]
            .flights
            .insert(key.name.into(), Flight { id, handle: handle.clone() });
        Lead { id, began: now, flight: handle }
    }

    /// Takes in what came of call `id`, which began at `began`, and returns the value its readers are served.
    ///
    /// A call that was overtaken by [`forget`](Self::forget) still answers its readers but stores nothing.
    /// `spread`, 0 to 1, is the random share of a back-off.
    pub fn complete(
        &mut self,
        key: Key<'_>,
        id: u64,
        began: Tick,
        now: Tick,
        spread: f64,
        result: Result<Secret, BackendError>,
    ) -> (Result<Hit, BackendError>, Outcome) {
        let table = &mut self.tables[key.backend][table_index(key.scopes)];
        let current = table.flights.get(key.name).is_some_and(|flight| flight.id == id);
        if current {
            table.flights.remove(key.name);
        }
        match result {
            Ok(secret) if !current => {
                self.revision += 1;
                let cached = Arc::new(Cached::new(Held::new(&self.arena, secret), self.revision));
                (Ok(Hit { cached, age: now.since(began), stale: false }), Outcome::Unchanged)
            }
            Ok(secret) => self.store(key, began, now, secret),
            Err(error) if !current => (Err(error), Outcome::Unchanged),
            Err(error) if error.is_authoritative() => {
                let removed = self.remove_slot(key);
                self.remember_absence(key, now, error.clone());
                (Err(error), if removed { Outcome::Removed } else { Outcome::Unchanged })
            }
            Err(error) => {
                let policy = self.policies[key.backend];
                // A wrong login says nothing about the secret; whether it may still be served is the operator's choice.
                if policy.deny_on_identity_failure && matches!(error, BackendError::Identity { .. }) {
                    let removed = self.remove_slot(key);
                    return (Err(error), if removed { Outcome::Removed } else { Outcome::Unchanged });
                }
                self.forget_absence(key);
                let table = &mut self.tables[key.backend][table_index(key.scopes)];
                let Some(slot) = table.slots.get(key.name) else { return (Err(error), Outcome::Unchanged) };
                let age = now.since(slot.confirmed());
                let freshness = policy.freshness(age);
                if freshness == Freshness::Expired {
                    self.remove_slot(key);
                    return (Err(error), Outcome::Unchanged);
                }
                let hit = Hit { cached: Arc::clone(&slot.cached), age, stale: freshness == Freshness::Stale };
                let mut trouble = table.slots.trouble(key.name);
                trouble.failures = trouble.failures.saturating_add(1);
                trouble.retry_at = Some(now.after(back_off(trouble.failures, spread)));
                table.slots.set_trouble(key.name, trouble);
                (Ok(hit), Outcome::Unchanged)
            }
        }
    }

    fn store(&mut self, key: Key<'_>, began: Tick, now: Tick, secret: Secret) -> (Result<Hit, BackendError>, Outcome) {
        self.forget_absence(key);
        let age = now.since(began);
        let mut wanted = true;
        let table = &mut self.tables[key.backend][table_index(key.scopes)];
        table.slots.recovered(key.name);
        let forced = table.slots.trouble(key.name);
        if let Some(slot) = table.slots.get_mut(key.name) {
            wanted = slot.is_wanted();
            let known = &slot.cached.secret;
            if known.is(&secret.description) {
                slot.confirm(began);
                return (Ok(Hit { cached: Arc::clone(&slot.cached), age, stale: false }), Outcome::Confirmed);
            }
            if known.has_id(secret.description.id.as_deref()) && known.has_values(&secret.values) {
                // Touched, not changed: the new version is kept, and to readers it is the same revision.
                let secret = Held::new(&self.arena, secret);
                slot.cached = Arc::new(Cached::new(secret, slot.cached.revision()));
                slot.confirm(began);
                return (Ok(Hit { cached: Arc::clone(&slot.cached), age, stale: false }), Outcome::Confirmed);
            }
        }
        self.remove_slot(key);
        // The same secret may be held for another order of scopes: one version of it has one revision.
        let held = self.held_elsewhere(key, &secret.description);
        let cached = match held {
            Some(cached) => cached,
            None => {
                self.revision += 1;
                Arc::new(Cached::new(Held::new(&self.arena, secret), self.revision))
            }
        };
        let uses = self.next_use();
        let slot = Slot::new(Arc::clone(&cached), began, uses, wanted);
        let charge = slot.charge();
        // What can never fit is served to those who wait for it and not kept. Nor could another name's secret be found.
        let kept = charge <= self.bounds.max_bytes && self.bounds.max_entries > 0 && slot.name() == key.name;
        if kept && !self.retired.contains(&key.backend) {
            self.make_room(charge);
            let slots = &mut self.tables[key.backend][table_index(key.scopes)].slots;
            slots.insert(slot);
            slots.set_trouble(key.name, forced);
            self.bytes += charge;
            self.entries += 1;
        }
        (Ok(Hit { cached, age, stale: false }), Outcome::Changed)
    }

    /// Returns the same version of the same secret from the entries for other orders of scopes. An older version found
    /// there is forgotten: served later, it would turn the revision back.
    fn held_elsewhere(&mut self, key: Key<'_>, description: &Description) -> Option<Arc<Cached>> {
        let mut same = None;
        for scopes in ALL_SCOPES {
            let other = Key { scopes, ..key };
            let Some(slot) = self.tables[key.backend][table_index(scopes)].slots.get(key.name) else { continue };
            let known = &slot.cached.secret;
            if !known.has_id(description.id.as_deref()) || known.scope() != description.scope {
                continue;
            }
            if known.has_version(&description.version) {
                same = Some(Arc::clone(&slot.cached));
            } else {
                self.remove_slot(other);
            }
        }
        same
    }

    /// Evicts the least recently used until `charge` more bytes fit, and then some: a sort for each tenth of the budget
    /// is cheaper than an ordered index that every read must maintain.
    fn make_room(&mut self, charge: usize) {
        if self.bytes + charge <= self.bounds.max_bytes && self.entries < self.bounds.max_entries {
            return;
        }
        let mut by_use: Vec<(u32, usize, Scopes, Arc<Cached>)> = Vec::with_capacity(self.entries);
        for (backend, tables) in self.tables.iter().enumerate() {
            for scopes in ALL_SCOPES {
                let slots = &tables[table_index(scopes)].slots;
                by_use.extend(slots.iter().map(|slot| (slot.used(), backend, scopes, Arc::clone(&slot.cached))));
            }
        }
        by_use.sort_unstable_by_key(|(used, ..)| *used);
        let low_bytes = self.bounds.max_bytes - self.bounds.max_bytes / 10;
        let low_entries = self.bounds.max_entries - self.bounds.max_entries / 10;
        for (_, backend, scopes, cached) in &by_use {
            let fits = self.bytes + charge <= self.bounds.max_bytes && self.entries < self.bounds.max_entries;
            if fits && self.bytes + charge <= low_bytes.max(charge) && self.entries < low_entries.max(1) {
                break;
            }
            self.remove_slot(Key { backend: *backend, scopes: *scopes, name: cached.secret.name() });
            self.counters.evictions += 1;
        }
    }

    /// Counts one more use.
    fn next_use(&mut self) -> u32 {
        if self.uses == MOST_USES {
            self.tables.iter_mut().flatten().for_each(|table| table.slots.age());
            self.uses /= 2;
        }
        self.uses += 1;
        self.uses
    }

    fn remove_slot(&mut self, key: Key<'_>) -> bool {
        match self.tables[key.backend][table_index(key.scopes)].slots.remove(key.name) {
            Some(slot) => {
                self.bytes -= slot.charge();
                self.entries -= 1;
                self.raise(key.name, slot.cached.revision());
                true
            }
            None => false,
        }
    }

    /// Raises what else is held under `name` above `revision`, which readers may have seen: without the entry that had it
    /// an older one may come to be resolved, from another back-end or for another order of scopes.
    fn raise(&mut self, name: &str, revision: u64) {
        for table in self.tables.iter().flatten() {
            let Some(slot) = table.slots.get(name) else { continue };
            if slot.cached.revision() < revision {
                self.revision += 1;
                slot.cached.revision.store(self.revision, Ordering::Relaxed);
            }
        }
    }

    fn remember_absence(&mut self, key: Key<'_>, now: Tick, error: BackendError) {
        if self.absences >= MOST_ABSENCES {
            self.drop_absences_until(now);
        }
        if self.absences >= MOST_ABSENCES {
            // All still count: forgetting them costs calls, never a wrong answer.
            for table in self.tables.iter_mut().flatten() {
                table.absences.clear();
            }
            self.absences = 0;
        }
        if self.retired.contains(&key.backend) {
            return;
        }
        let until = now.after(self.policies[key.backend].negative_ttl);
        let table = &mut self.tables[key.backend][table_index(key.scopes)];
        let forced = table.absences.get(key.name).and_then(|absence| absence.forced);
        if table.absences.insert(key.name.into(), Absence { error, since: now, until, forced }).is_none() {
            self.absences += 1;
        }
    }

    fn drop_absences_until(&mut self, now: Tick) {
        let mut kept = 0;
        for table in self.tables.iter_mut().flatten() {
            table.absences.retain(|_, absence| now < absence.until);
            kept += table.absences.len();
        }
        self.absences = kept;
    }

    fn forget_absence(&mut self, key: Key<'_>) {
        if self.tables[key.backend][table_index(key.scopes)].absences.remove(key.name).is_some() {
            self.absences -= 1;
        }
    }

    /// Forgets everything about `name` in `backend`, calls in flight included: what they bring back is older than the
    /// write that made us forget. Tells whether a value was held.
    pub fn forget(&mut self, backend: usize, name: &str) -> bool {
        let mut held = false;
        for scopes in ALL_SCOPES {
            let key = Key { backend, scopes, name };
            held |= self.remove_slot(key);
            self.forget_absence(key);
            self.tables[backend][table_index(scopes)].flights.remove(name);
        }
        held
    }

    /// Forgets every absence of `backend`; they cost a call each when they are asked for again.
    pub fn forget_absences(&mut self, backend: usize) {
        for table in &mut self.tables[backend] {
            self.absences -= table.absences.len();
            table.absences.clear();
        }
    }

    /// Forgets call `id`, which will never complete.
    pub fn abandon(&mut self, key: Key<'_>, id: u64) {
        let flights = &mut self.tables[key.backend][table_index(key.scopes)].flights;
        if flights.get(key.name).is_some_and(|flight| flight.id == id) {
            flights.remove(key.name);
        }
    }

    /// Takes in a complete listing of `backend` that was asked for at `asked`: confirms what it shows unchanged, forgets
    /// absences that it contradicts, and returns the entries to fetch again.
    ///
    /// An entry that the listing lacks is fetched again too and never evicted by it: lists lag.
    pub fn compare(&mut self, backend: usize, listing: &[Description], asked: Tick) -> Vec<(Scopes, String)> {
        let mut versions: HashMap<&str, [Option<&Description>; 2]> = HashMap::with_capacity(listing.len());
        for description in listing {
            let place = match description.scope {
                Scope::Private => 0,
                Scope::Public => 1,
            };
            // Where a name stands twice in one scope the back-end's fetch decides; either version only costs a fetch.
            versions.entry(&description.name).or_default()[place].get_or_insert(description);
        }
        let resolved = |scopes: Scopes, name: &str| {
            let listed = versions.get(name)?;
            scopes.order().iter().find_map(|scope| listed[usize::from(*scope == Scope::Public)])
        };
        let mut again = Vec::new();
        let mut contradicted = 0;
        for scopes in ALL_SCOPES {
            let table = &mut self.tables[backend][table_index(scopes)];
            let mut recovered = Vec::new();
            for (slot, trouble) in table.slots.iter_mut() {
                match resolved(scopes, slot.name()) {
                    Some(listed) if slot.cached.secret.is(listed) => {
                        slot.confirm(asked);
                        if trouble != Trouble::default() {
                            recovered.push(listed.name.as_str());
                        }
                    }
                    _ => again.push((scopes, slot.name().to_owned())),
                }
            }
            recovered.iter().for_each(|name| table.slots.recovered(name));
            let before = table.absences.len();
            table.absences.retain(|name, _| resolved(scopes, name).is_none());
            contradicted += before - table.absences.len();
        }
        self.absences -= contradicted;
        again
    }

    /// Tells whether the values that were read, each by its key and revision, are still the ones held.
    pub fn agreement<'k>(&self, read: impl Iterator<Item = (Key<'k>, u64)>) -> Agreement {
        let mut agreement = Agreement::Held;
        for (key, revision) in read {
            match self.tables[key.backend][table_index(key.scopes)].slots.get(key.name) {
                Some(slot) if slot.cached.revision() == revision => {}
                Some(_) => return Agreement::Replaced,
                None => agreement = Agreement::Gone,
            }
        }
        agreement
    }

    /// Returns what would be served for `key` without counting it as a read.
    pub fn peek(&self, key: Key<'_>, now: Tick) -> Option<Hit> {
        let policy = self.policies[key.backend];
        let slot = self.tables[key.backend][table_index(key.scopes)].slots.get(key.name)?;
        let age = now.since(slot.confirmed());
        let freshness = policy.freshness(age);
        let stale = freshness == Freshness::Stale;
        (freshness != Freshness::Expired).then(|| Hit { cached: Arc::clone(&slot.cached), age, stale })
    }

    /// Returns what is known of `key`, without counting that as a read.
    pub fn glance(&self, key: Key<'_>, now: Tick) -> Glance {
        let policy = self.policies[key.backend];
        let table = &self.tables[key.backend][table_index(key.scopes)];
        if let Some(slot) = table.slots.get(key.name) {
            let trouble = table.slots.trouble(key.name);
            return Glance::Held {
                cached: Arc::clone(&slot.cached),
                confirmed: slot.confirmed(),
                expired: policy.freshness(now.since(slot.confirmed())) == Freshness::Expired,
                failing: trouble.failures > 0,
                retry_at: trouble.retry_at,
            };
        }
        match table.absences.get(key.name) {
            Some(absence) => Glance::Absent { error: absence.error.clone(), since: absence.since },
            None => Glance::Nothing,
        }
    }

    /// Returns how long a value of `backend` is fresh.
    pub fn ttl(&self, backend: usize) -> Duration {
        self.policies[backend].ttl.min(self.policies[backend].max_stale)
    }

    /// Returns what is past its ttl and was read since it was last asked for by itself, at most `most` of it, and when to
    /// look again. What is returned counts as asked for.
    ///
    /// So that a secret in use is asked for as soon as its ttl is over, and a deleted one is not served once more; what
    /// nobody reads costs one call and then rests. Nothing is returned where a ttl of zero has every read ask.
    pub fn overdue(&mut self, backend: usize, now: Tick, most: usize) -> (Vec<(Scopes, String)>, Tick) {
        let ttl = self.ttl(backend);
        let span = ttl.max(LEAST_SPAN);
        let mut next = now.after(span);
        let mut due = Vec::new();
        if ttl.is_zero() {
            return (due, next);
        }
        for scopes in ALL_SCOPES {
            let table = &mut self.tables[backend][table_index(scopes)];
            for (slot, trouble) in table.slots.iter_mut() {
                let at = slot.confirmed().after(span).max(trouble.retry_at.unwrap_or(slot.confirmed()));
                // One that nobody has read yet may be read before it is due.
                if at > now || (slot.is_wanted() && due.len() >= most) {
                    next = next.min(at.max(now));
                } else if slot.is_wanted() && !table.flights.contains_key(slot.name()) {
                    slot.rest();
                    due.push((scopes, slot.name().to_owned()));
                }
            }
        }
        (due, next)
    }

    /// Forgets the absences that a listing contradicts where it tells no more than names.
    pub fn contradict(&mut self, backend: usize, listing: &[Description]) {
        for scopes in ALL_SCOPES {
            let table = &mut self.tables[backend][table_index(scopes)];
            if table.absences.is_empty() {
                continue;
            }
            let before = table.absences.len();
            for listed in listing.iter().filter(|listed| scopes.order().contains(&listed.scope)) {
                table.absences.remove(listed.name.as_str());
            }
            self.absences -= before - table.absences.len();
        }
    }

    /// Tells whether something is held for `key` that the last call for it did not confirm.
    pub fn is_failing(&self, key: Key<'_>) -> bool {
        let slots = &self.tables[key.backend][table_index(key.scopes)].slots;
        slots.get(key.name).is_some() && slots.trouble(key.name).failures > 0
    }

    /// Returns the count of all changes so far: two equal readings mean that nothing changed in between.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Iterates over the names held for `backend`, order not promised.
    pub fn names(&self, backend: usize) -> impl Iterator<Item = &str> {
        self.tables[backend].iter().flat_map(|table| table.slots.iter().map(Slot::name))
    }

    /// Iterates over what is held for `backend`, by the scopes it was asked for and its name; order not promised.
    pub fn held(&self, backend: usize) -> impl Iterator<Item = (Scopes, &str)> {
        ALL_SCOPES.into_iter().flat_map(move |scopes| {
            self.tables[backend][table_index(scopes)].slots.iter().map(move |slot| (scopes, slot.name()))
        })
    }

    /// Returns how readers were answered so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns the number of secrets held.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Returns the number of absences remembered.
    pub fn absences(&self) -> usize {
        self.absences
    }

    /// Returns the age of what was confirmed longest ago; looks at every entry.
    pub fn oldest(&self, now: Tick) -> Option<Duration> {
        let slots = self.tables.iter().flatten().flat_map(|table| table.slots.iter());
        slots.map(|slot| now.since(slot.confirmed())).max()
    }

    /// Tells whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Returns the bytes charged for what is held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops, and so wipes, every value that no reader is being answered from, and every absence. Calls under way still
    /// answer those who wait for them and store nothing.
    pub fn clear(&mut self) {
        for table in self.tables.iter_mut().flatten() {
            *table = Table::default();
        }
        self.bytes = 0;
        self.entries = 0;
        self.absences = 0;
    }
}

fn is_due(forced: Option<Tick>, now: Tick) -> bool {
    forced.is_none_or(|at| now.since(at) >= FORCED_REVALIDATION_INTERVAL)
}

/// Exponential, with full jitter: anything from nothing to the doubled wait.
pub(crate) fn back_off(failures: u32, spread: f64) -> Duration {
    let doubled = FIRST_BACK_OFF.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_BACK_OFF);
    doubled.mul_f64(spread.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
