//! Who watches which secret, and what each was last told. The deciding part, `Board`, is pure: no I/O, no waiting, and
//! the clock is an argument; [`Hub`] puts it behind a lock and wakes whom it concerns.
//!
//! A watched name is the secret that would be resolved. What the resolver sees of it comes in as a [`Sight`]; a watcher
//! is told where that differs from what it was told last. Nothing is queued: a watcher that is slow finds the latest
//! state of each name, so what it costs does not grow with what happens meanwhile.

use std::collections::hash_map::Entry as Place;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, futures::Notified};

use crate::cache::back_off;
use crate::clock::Tick;

/// How long past its ttl a value may wait for the call that was made for it before its watchers are told `stale`.
const STALE_GRACE: Duration = Duration::from_secs(1);

/// A watcher hears something this often, be it only a comment.
pub const BEAT: Duration = Duration::from_secs(15);

/// Watchers are reminded in as many groups, one a second, so that they do not all write at the same moment.
const BEAT_GROUPS: u64 = BEAT.as_secs();

/// A secret as it would be resolved, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The place of its back-end.
    pub place: usize,
    /// The back-end's id for it.
    pub id: Option<String>,
    /// The back-end's version.
    pub version: String,
    /// The agent's counter.
    pub revision: u64,
    /// When the back-end last confirmed it, and for how long that counts.
    pub confirmed: Tick,
    /// Its ttl.
    pub ttl: Duration,
    /// The last call for it failed.
    pub failing: bool,
}

impl Mark {
    fn is_same(&self, other: &Self) -> bool {
        // A value that was evicted and fetched again has another revision, and one that was only touched another version.
        self.revision == other.revision
            || (self.place, &self.id, &self.version) == (other.place, &other.id, &other.version)
    }
}

/// What can be said of a name now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Nothing definite: the last that was known stays.
    Unknown,
    /// The back-ends say that it is not there, or that it is not for us.
    Absent,
    /// It is there.
    Present(Mark),
}

/// A sight, and when it is worth a call to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// What is seen.
    pub sight: Sight,
    /// When a call is due; `None` where change detection tells without.
    pub due: Option<Tick>,
    /// How long what is known counts where nothing is held.
    pub ttl: Duration,
    /// The places that definitely have none, where that leaves open whether a later one has it.
    pub lacking: Vec<usize>,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It appeared, or is another version.
    Change {
        /// The secret's name.
        name: Arc<str>,
        /// The back-end's version.
        version: String,
        /// The agent's counter.
        revision: u64,
    },
    /// It is gone.
    Delete {
        /// The secret's name.
        name: Arc<str>,
        /// The last version that was told of.
        version: String,
        /// Its revision.
        revision: u64,
    },
    /// Its ttl is over and the back-end has not confirmed it.
    Stale {
        /// The secret's name.
        name: Arc<str>,
        /// The back-end's version.
        version: String,
        /// The agent's counter.
        revision: u64,
    },
    /// It is confirmed again.
    Fresh {
        /// The secret's name.
        name: Arc<str>,
        /// The back-end's version.
        version: String,
        /// The agent's counter.
        revision: u64,
    },
}

/// One watched name.
struct Watched {
    /// The last mark there was, present or not.
    mark: Option<Mark>,
    present: bool,
    stale: bool,
    /// Counts the changes that watchers are to know of.
    serial: u64,
    /// Each watcher with the place of the name among its own.
    watchers: HashMap<u64, u32>,
    /// When the last definite answer came.
    known: Option<Tick>,
    look_at: Option<Tick>,
    touched: bool,
    /// Something says that what is known is no longer so.
    suspect: bool,
    asking: bool,
    failures: u32,
    retry_at: Option<Tick>,
}

/// What one watcher was last told of one name.
struct Told {
    name: Arc<str>,
    serial: u64,
    present: bool,
    stale: bool,
    queued: bool,
}

struct Watcher {
    uid: u32,
    told: Box<[Told]>,
    /// Places in `told` that may differ from what is known now; each at most once.
    news: VecDeque<u32>,
    beat: bool,
    /// Hears nothing before its hello.
    greeted: bool,
    post: Arc<Post>,
}

/// Where a watcher waits.
#[derive(Default)]
struct Post {
    waker: AtomicWaker,
    ready: AtomicBool,
}

impl Post {
    fn ring(&self) {
        self.ready.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// Everything that is watched.
#[derive(Default)]
struct Board {
    names: HashMap<Arc<str>, Watched>,
    watchers: HashMap<u64, Watcher>,
    of_uid: HashMap<u32, usize>,
    next: u64,
    touched: Vec<Arc<str>>,
    /// Each name that has a `look_at`, by it.
    looks: BTreeSet<(Tick, Arc<str>)>,
    beats: u64,
}

impl Board {
    fn enter(&mut self, uid: u32, limit: usize, names: &[String], post: Arc<Post>) -> Option<u64> {
        let count = self.of_uid.entry(uid).or_default();
        if *count >= limit {
            if *count == 0 {
                self.of_uid.remove(&uid);
            }
            return None;
        }
        *count += 1;
        let id = self.next;
        self.next += 1;
        let mut told = Vec::with_capacity(names.len());
        for (at, name) in (0..).zip(names) {
            let name = match self.names.get_key_value(name.as_str()) {
                Some((name, _)) => Arc::clone(name),
                None => Arc::from(name.as_str()),
            };
            self.names.entry(Arc::clone(&name)).or_insert_with(Watched::new).watchers.insert(id, at);
            told.push(Told { name, serial: 0, present: false, stale: false, queued: false });
        }
        let told = told.into_boxed_slice();
        let watcher = Watcher { uid, told, news: VecDeque::new(), beat: false, greeted: false, post };
        self.watchers.insert(id, watcher);
        Some(id)
    }

    fn leave(&mut self, id: u64) {
        let Some(watcher) = self.watchers.remove(&id) else { return };
        for told in &watcher.told {
            if let Place::Occupied(mut watched) = self.names.entry(Arc::clone(&told.name)) {
                watched.get_mut().watchers.remove(&id);
                if watched.get().watchers.is_empty()
                    && let Some(at) = watched.remove().look_at
                {
                    self.looks.remove(&(at, Arc::clone(&told.name)));
                }
            }
        }
        if let Place::Occupied(mut count) = self.of_uid.entry(watcher.uid) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        // What thousands of watchers needed is given back when they have left.
        if self.watchers.len() < self.watchers.capacity() / 8 {
            self.watchers.shrink_to_fit();
            self.names.shrink_to_fit();
            self.touched.shrink_to_fit();
        }
    }

    /// Notes that `name` is to be looked at; tells whether it is watched.
    fn touch(&mut self, name: &str, suspect: bool) -> bool {
        let Some((name, _)) = self.names.get_key_value(name) else { return false };
        let name = Arc::clone(name);
        let Some(watched) = self.names.get_mut(&name) else { return false };
        watched.suspect |= suspect;
        if !watched.touched {
            watched.touched = true;
            self.touched.push(name);
        }
        true
    }

    /// Has every name looked at whose last call failed, as if it were the first time; tells whether there is one.
    fn recovered(&mut self) -> bool {
        let mut any = false;
        for (name, watched) in self.names.iter_mut().filter(|(_, watched)| watched.retry_at.is_some()) {
            watched.retry_at = None;
            watched.failures = 0;
            if !std::mem::replace(&mut watched.touched, true) {
                self.touched.push(Arc::clone(name));
            }
            any = true;
        }
        any
    }

    /// Returns the names to look at now.
    fn take_due(&mut self, now: Tick) -> Vec<Arc<str>> {
        let mut due = std::mem::take(&mut self.touched);
        for name in &due {
            if let Some(watched) = self.names.get_mut(name) {
                watched.touched = false;
            }
        }
        while self.next_look().is_some_and(|at| at <= now) {
            let Some((_, name)) = self.looks.pop_first() else { break };
            if let Some(watched) = self.names.get_mut(&name) {
                watched.look_at = None;
            }
            due.push(name);
        }
        due
    }

    fn next_look(&self) -> Option<Tick> {
        self.looks.first().map(|(at, _)| *at)
    }

    /// Takes in what is seen of `name`; tells whether a call is to be made for it now.
    fn settle(&mut self, name: &str, outlook: Outlook, now: Tick) -> bool {
        let Some((name, _)) = self.names.get_key_value(name) else { return false };
        let name = Arc::clone(name);
        let Some(watched) = self.names.get_mut(&name) else { return false };
        let mut look_at = None;
        let due = match outlook.sight {
            Sight::Unknown => {
                let due = match watched.known {
                    Some(known) if !watched.suspect && !watched.is_told_of(&outlook.lacking) => {
                        known.after(outlook.ttl)
                    }
                    _ => now,
                };
                Some(due.max(watched.retry_at.unwrap_or(due)))
            }
            Sight::Absent => {
                watched.definite(now);
                if watched.present {
                    watched.present = false;
                    watched.stale = false;
                    watched.serial += 1;
                }
                outlook.due
            }
            // What was seen first may be told last by a call that was overtaken.
            Sight::Present(mark) if watched.mark.as_ref().is_some_and(|known| mark.revision < known.revision) => {
                outlook.due
            }
            Sight::Present(mark) => {
                watched.definite(now);
                let changed = !watched.present || !watched.mark.as_ref().is_some_and(|known| known.is_same(&mark));
                if changed {
                    watched.present = true;
                    watched.stale = false;
                    watched.serial += 1;
                }
                let stale_at = mark.confirmed.after(mark.ttl);
                watched.stale = if now < stale_at {
                    look_at = Some(stale_at);
                    false
                } else if mark.failing || now >= stale_at.after(STALE_GRACE) {
                    true
                } else {
                    look_at = Some(stale_at.after(STALE_GRACE));
                    watched.stale
                };
                watched.mark = Some(mark);
                outlook.due
            }
        };
        let ask = due.is_some_and(|due| due <= now) && !watched.asking;
        let later = due.filter(|due| *due > now);
        let look_at = [look_at, later].into_iter().flatten().min();
        if watched.look_at != look_at {
            if let Some(before) = std::mem::replace(&mut watched.look_at, look_at) {
                self.looks.remove(&(before, Arc::clone(&name)));
            }
            self.looks.extend(look_at.map(|at| (at, Arc::clone(&name))));
        }
        self.announce(&name);
        ask
    }

    /// Notes that a call for `name` begins; no other is to be made until it has ended.
    fn asking(&mut self, name: &str) {
        if let Some(watched) = self.names.get_mut(name) {
            watched.asking = true;
        }
    }

    /// Notes that the call for `name` has ended; tells whether the name is watched still.
    fn asked(&mut self, name: &str, answered: bool, now: Tick, spread: f64) -> bool {
        let Some(watched) = self.names.get_mut(name) else { return false };
        watched.asking = false;
        if answered {
            watched.definite(now);
        } else {
            watched.failures = watched.failures.saturating_add(1);
            watched.retry_at = Some(now.after(back_off(watched.failures, spread)));
        }
        true
    }

    /// Puts `name` among the news of every watcher that was told something else.
    fn announce(&mut self, name: &str) {
        let Some(watched) = self.names.get(name) else { return };
        for (id, at) in &watched.watchers {
            let Some(watcher) = self.watchers.get_mut(id) else { continue };
            let told = &mut watcher.told[*at as usize];
            let differs = told.serial != watched.serial || told.stale != watched.stale;
            if differs && !told.queued && watcher.greeted {
                told.queued = true;
                watcher.news.push_back(*at);
                watcher.post.ring();
            }
        }
    }

    /// Returns each name that is there with its revision, and counts them as told.
    fn hello(&mut self, id: u64) -> Vec<(Arc<str>, u64)> {
        let Some(watcher) = self.watchers.get_mut(&id) else { return Vec::new() };
        let mut there = Vec::new();
        watcher.greeted = true;
        for (at, told) in (0..).zip(&mut watcher.told) {
            let Some(watched) = self.names.get(&told.name) else { continue };
            told.serial = watched.serial;
            told.present = watched.present;
            if let (true, Some(mark)) = (watched.present, &watched.mark) {
                there.push((Arc::clone(&told.name), mark.revision));
            }
            // A hello has no word for it.
            if watched.stale {
                told.queued = true;
                watcher.news.push_back(at);
                watcher.post.ring();
            }
        }
        there
    }

    /// Returns the next thing to tell a watcher.
    fn next_event(&mut self, id: u64) -> Option<Event> {
        let watcher = self.watchers.get_mut(&id)?;
        while let Some(at) = watcher.news.pop_front() {
            let told = &mut watcher.told[at as usize];
            told.queued = false;
            let Some(watched) = self.names.get(&told.name) else { continue };
            let Some(mark) = &watched.mark else { continue };
            let (name, version, revision) = (Arc::clone(&told.name), mark.version.clone(), mark.revision);
            let changed = told.serial != watched.serial;
            told.serial = watched.serial;
            if changed {
                let was_there = std::mem::replace(&mut told.present, watched.present);
                told.stale = false;
                match (was_there, watched.present) {
                    (_, true) => {
                        if watched.stale {
                            told.queued = true;
                            watcher.news.push_back(at);
                        }
                        return Some(Event::Change { name, version, revision });
                    }
                    (true, false) => return Some(Event::Delete { name, version, revision }),
                    (false, false) => continue,
                }
            }
            if told.stale != watched.stale {
                told.stale = watched.stale;
                return Some(match watched.stale {
                    true => Event::Stale { name, version, revision },
                    false => Event::Fresh { name, version, revision },
                });
            }
        }
        None
    }

    /// Reminds the next group of watchers.
    fn beat(&mut self) {
        self.beats += 1;
        let group = self.beats % BEAT_GROUPS;
        for (_, watcher) in self.watchers.iter_mut().filter(|(id, _)| *id % BEAT_GROUPS == group) {
            watcher.beat = true;
            watcher.post.ring();
        }
    }
}

impl Watched {
    fn new() -> Self {
        Self {
            mark: None,
            present: false,
            stale: false,
            serial: 0,
            watchers: HashMap::new(),
            known: None,
            look_at: None,
            touched: false,
            suspect: false,
            asking: false,
            failures: 0,
            retry_at: None,
        }
    }

    /// Tells whether what is told is a secret of one of `places`. When these have it no longer, it is not to be told on
    /// until its ttl is over, although memory does not know what is there instead.
    fn is_told_of(&self, places: &[usize]) -> bool {
        self.present && self.mark.as_ref().is_some_and(|mark| places.contains(&mark.place))
    }

    fn definite(&mut self, now: Tick) {
        self.known = Some(now);
        self.suspect = false;
        self.failures = 0;
        self.retry_at = None;
    }
}

/// The watchers of one agent.
#[derive(Default)]
pub struct Hub {
    board: Mutex<Board>,
    touched: Notify,
    entered: Notify,
    count: AtomicUsize,
    /// Counts the reloads: what was asked for before one is not told after it.
    reloads: AtomicUsize,
}

impl Hub {
    fn board(&self) -> MutexGuard<'_, Board> {
        // Every change to the board is complete before anything in it can panic.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to watch `names`, each once, unless `uid` has `limit` watchers already.
    pub fn enter(self: &Arc<Self>, uid: u32, limit: usize, names: &[String]) -> Option<Subscription> {
        let post = Arc::new(Post::default());
        let id = self.board().enter(uid, limit, names, Arc::clone(&post))?;
        self.count.fetch_add(1, Ordering::Relaxed);
        self.entered.notify_waiters();
        Some(Subscription { hub: Arc::clone(self), id, post })
    }

    /// Returns how many watchers there are.
    pub fn watchers(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until there is a watcher.
    pub async fn first(&self) {
        let mut entered = std::pin::pin!(self.entered.notified());
        loop {
            entered.as_mut().enable();
            if self.watchers() > 0 {
                return;
            }
            entered.as_mut().await;
            entered.set(self.entered.notified());
        }
    }

    /// Has `name` looked at again, when it is watched. `suspect`: what is known of it may be wrong, so that nothing held
    /// is a reason to ask.
    pub fn touch(&self, name: &str, suspect: bool) {
        if self.watchers() > 0 && self.board().touch(name, suspect) {
            self.touched.notify_one();
        }
    }

    /// Returns a number that is another after a reload.
    pub fn reloads(&self) -> usize {
        self.reloads.load(Ordering::Relaxed)
    }

    /// After a reload: has every watched name looked at, and every watcher look whether it may go on.
    pub fn reloaded(&self) {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        let mut board = self.board();
        let names: Vec<_> = board.names.keys().cloned().collect();
        for name in names {
            board.touch(&name, true);
        }
        board.watchers.values().for_each(|watcher| watcher.post.ring());
        drop(board);
        self.touched.notify_one();
    }

    /// After a back-end answers again: has what could not be told be asked for without waiting out its back-off.
    pub fn recovered(&self) {
        if self.watchers() > 0 && self.board().recovered() {
            self.touched.notify_one();
        }
    }

    /// Returns each watched name with the mark it has, if it is there.
    pub fn names(&self) -> Vec<(Arc<str>, Option<Mark>)> {
        if self.watchers() == 0 {
            return Vec::new();
        }
        let board = self.board();
        let mark = |watched: &Watched| watched.mark.clone().filter(|_| watched.present);
        board.names.iter().map(|(name, watched)| (Arc::clone(name), mark(watched))).collect()
    }

    /// Returns the names to look at now.
    pub fn take_due(&self, now: Tick) -> Vec<Arc<str>> {
        self.board().take_due(now)
    }

    /// Returns when the next name is to be looked at by time alone.
    pub fn next_look(&self) -> Option<Tick> {
        self.board().next_look()
    }

    /// Waits for something to look at; made before [`take_due`](Self::take_due), it misses nothing.
    pub fn touched(&self) -> Notified<'_> {
        self.touched.notified()
    }

    /// Notes that a call for `name` begins, as [`settle`](Self::settle) said it should.
    pub fn asking(&self, name: &str) {
        self.board().asking(name);
    }

    /// Takes in what is seen of `name`; tells whether a call is to be made for it now.
    pub fn settle(&self, name: &str, outlook: Outlook, now: Tick) -> bool {
        self.board().settle(name, outlook, now)
    }

    /// Notes that a call whose beginning was noted has ended, with or without an answer.
    pub fn asked(&self, name: &str, answered: bool, now: Tick, spread: f64) {
        if self.board().asked(name, answered, now, spread) {
            self.touch(name, false);
        }
    }

    /// Reminds the next group of watchers; to be called once a second.
    pub fn beat(&self) {
        if self.watchers() > 0 {
            self.board().beat();
        }
    }
}

/// One watcher; it leaves when this is dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    id: u64,
    post: Arc<Post>,
}

impl Subscription {
    /// Returns each name that is there with its revision; from now on there is news.
    pub fn hello(&self) -> Vec<(Arc<str>, u64)> {
        self.hub.board().hello(self.id)
    }

    /// Has `waker` woken when there is something to tell.
    pub fn register(&self, waker: &Waker) {
        self.post.waker.register(waker);
    }

    /// Tells whether something may have happened since this was last asked.
    pub fn is_rung(&self) -> bool {
        self.post.ready.swap(false, Ordering::AcqRel)
    }

    /// Returns the next thing to tell.
    pub fn next_event(&self) -> Option<Event> {
        self.hub.board().next_event(self.id)
    }

    /// Tells whether it is time for a comment; once each time.
    pub fn takes_beat(&self) -> bool {
        let mut board = self.hub.board();
        board.watchers.get_mut(&self.id).is_some_and(|watcher| std::mem::take(&mut watcher.beat))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.board().leave(self.id);
        self.hub.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
