//! From a name to a value: precedence over back-ends and scopes, through the cache, with one call in flight for each
//! secret, a deadline and a breaker for each back-end, and one consistent set for each resolve.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use keyside_config::settings::{BackendSettings, OnIdentityFailure, Poll, ScopeOrder, Settings};
use tokio::sync::watch;

use crate::backend::{self, BackendError, Description, Scopes, Secret};
use crate::cache::{Agreement, Bounds, Cache, Counters, Hit, Key, Lead, LookUp, Policy, Recall, Want};
use crate::clock::Tick;
use crate::watch::Hub;

use self::gather::{Due, Landing};
use self::source::Reads;
pub use self::source::{Figures, Source, SourceOptions};

/// How often a resolve reads again because a value was replaced under it.
const MOST_GENERATION_TRIES: usize = 5;

/// Secrets whose listing takes a few megabytes: from there on giving memory back is worth its few milliseconds.
const LARGE_LISTING: usize = 10_000;
/// How many secrets of a refresh of everything are asked for at the same time; each back-end has its own limit besides.
const MOST_REFRESHES_AT_ONCE: usize = 32;

/// What a back-end listed. A large one takes tens of megabytes, which go back to the kernel with it.
pub struct Listing(Vec<Description>);

impl Deref for Listing {
    type Target = [Description];

    fn deref(&self) -> &[Description] {
        &self.0
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        if self.0.len() >= LARGE_LISTING {
            self.0 = Vec::new();
            crate::sys::give_back_freed_memory();
        }
    }
}

/// What readers of one call wait on.
type Flight = watch::Receiver<Option<Landing>>;

/// Narrows a look-up to one back-end or one scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only this back-end.
    pub backend: Option<usize>,
    /// Only these scopes; the configured order by default.
    pub scopes: Option<Scopes>,
}

/// A secret that was found.
#[derive(Clone)]
pub struct Found {
    /// Index of the back-end that has it.
    pub backend: usize,
    /// The scopes it was looked up in.
    pub scopes: Scopes,
    /// The value and its freshness.
    pub hit: Hit,
    /// Whether a call was made for it, by us or somebody we waited for.
    pub called: bool,
    /// How many calls that were; one that was made for several secrets counts for one of them.
    pub calls: u64,
}

/// A secret that was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// The back-ends that were asked, in order; the last one gave the error.
    pub asked: Vec<usize>,
    /// Why; `NotFound` means that all of them definitely have none.
    pub error: BackendError,
    /// How many calls were made, as in [`Found`].
    pub calls: u64,
}

/// One consistent set of secrets.
pub struct Generation<'a> {
    /// Opaque; equal strings mean the same state of the cache.
    pub id: String,
    /// Each name with what was found.
    pub secrets: HashMap<&'a str, Found>,
}

/// What a resolve found when it did not find everything.
pub struct Incomplete<'a> {
    /// Each name that was found.
    pub secrets: HashMap<&'a str, Found>,
    /// Each name that was not.
    pub misses: HashMap<&'a str, Miss>,
}

/// All back-ends, in one order, behind one cache. A reload makes another one over the same `Memory`.
pub struct Resolver {
    sources: Vec<Arc<Source>>,
    /// The place of each source in the cache.
    places: Vec<usize>,
    memory: Arc<Memory>,
    scopes: Scopes,
    poll: Poll,
}

/// What outlives a reload: the values, their revisions, and the id of this run.
struct Memory {
    cache: Mutex<Cache<Flight>>,
    instance: String,
    watches: Arc<Hub>,
    /// Once ready, ready until shutdown.
    ready: AtomicBool,
}

/// A resolver for changed settings that is not in force yet: nothing has changed for the readers of the one before.
pub struct Heir {
    resolver: Resolver,
    policies: Vec<Policy>,
    bounds: Bounds,
    /// The places of back-ends that are not among the new ones.
    gone: Vec<usize>,
}

impl Heir {
    /// Puts it in force: what was cached of the back-ends that stay goes on to be served, by the new rules; the rest is
    /// wiped.
    pub fn enter(self) -> Arc<Resolver> {
        {
            let mut cache = self.resolver.cache();
            for (place, policy) in self.resolver.places.iter().zip(&self.policies) {
                cache.set_policy(*place, *policy);
            }
            cache.set_bounds(self.bounds);
            self.gone.iter().for_each(|place| cache.retire(*place));
        }
        Arc::new(self.resolver)
    }
}

impl Resolver {
    /// Opens every back-end of `settings`. Must be called on the runtime; makes no call yet.
    ///
    /// Errors: what [`backend::open`] refuses, with the back-end's name.
    pub fn open(settings: &Settings) -> Result<Self, (String, BackendError)> {
        let mut sources = Vec::with_capacity(settings.backends.len());
        for configured in &settings.backends {
            sources.push(open_source(configured, settings)?);
        }
        let policies = settings.backends.iter().map(|configured| policy(configured, settings)).collect();
        let mut resolver = Self::new(sources, policies, bounds(settings), scopes(settings));
        resolver.poll = settings.cache.poll;
        Ok(resolver)
    }

    /// Opens what `new` has that `old`, which this resolver was made from, has not.
    ///
    /// A back-end whose settings are the same stays open; one that is still the same place keeps what is cached of it.
    /// Errors: what [`backend::open`] refuses, with the back-end's name; nothing has changed then.
    pub fn heir(&self, old: &Settings, new: &Settings) -> Result<Heir, (String, BackendError)> {
        let mut sources = Vec::with_capacity(new.backends.len());
        let mut kept = Vec::with_capacity(new.backends.len());
        for configured in &new.backends {
            let before = old.backends.iter().position(|other| other.name == configured.name);
            let is_same =
                before.is_some_and(|at| old.backends[at] == *configured && old.limits.value == new.limits.value);
            sources.push(match before {
                Some(at) if is_same => Arc::clone(&self.sources[at]),
                _ => Arc::new(open_source(configured, new)?),
            });
            kept.push(before.filter(|at| old.backends[*at].kind == configured.kind).map(|at| self.places[at]));
        }
        let policies: Vec<_> = new.backends.iter().map(|configured| policy(configured, new)).collect();
        let mut cache = self.cache();
        let places: Vec<usize> = kept
            .into_iter()
            .zip(&policies)
            .map(|(place, policy)| place.unwrap_or_else(|| cache.add_backend(*policy)))
            .collect();
        drop(cache);
        let gone = self.places.iter().copied().filter(|place| !places.contains(place)).collect();
        let resolver =
            Self { sources, places, memory: Arc::clone(&self.memory), scopes: scopes(new), poll: new.cache.poll };
        Ok(Heir { resolver, policies, bounds: bounds(new), gone })
    }

    /// Puts sources, in precedence order and with a policy each, behind one cache.
    pub fn new(sources: Vec<Source>, policies: Vec<Policy>, bounds: Bounds, scopes: Scopes) -> Self {
        Self {
            places: (0..sources.len()).collect(),
            sources: sources.into_iter().map(Arc::new).collect(),
            memory: Arc::new(Memory {
                cache: Mutex::new(Cache::new(policies, bounds)),
                instance: random_id(),
                watches: Arc::default(),
                ready: AtomicBool::new(false),
            }),
            scopes,
            poll: Poll::Auto,
        }
    }

    /// Returns the id of this run of the agent; a new one at every start.
    pub fn instance(&self) -> &str {
        &self.memory.instance
    }

    /// Returns who watches what.
    pub fn watches(&self) -> &Arc<Hub> {
        &self.memory.watches
    }

    /// Tells whether change detection runs for a back-end: by default where one query covers all of its secrets.
    pub fn is_polled(&self, backend: usize) -> bool {
        match self.poll {
            Poll::Auto => self.sources[backend].capabilities.cheap_list,
            Poll::On => true,
            Poll::Off => false,
        }
    }

    /// Returns the back-ends in precedence order.
    pub fn sources(&self) -> &[Arc<Source>] {
        &self.sources
    }

    /// Returns the index of the back-end called `name`.
    pub fn source_index(&self, name: &str) -> Option<usize> {
        self.sources.iter().position(|source| source.name == name)
    }

    /// Returns the configured order of scopes.
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// Finds the secret of exactly `name`. The first back-end that definitely has it wins; only a definite absence goes
    /// on to the next.
    pub async fn secret(self: &Arc<Self>, name: &str, selection: Selection, want: Want) -> Result<Found, Miss> {
        let scopes = selection.scopes.unwrap_or(self.scopes);
        let mut asked = Vec::new();
        let mut calls = 0;
        for (backend, source) in self.sources.iter().enumerate() {
            if selection.backend.is_some_and(|only| only != backend) {
                continue;
            }
            asked.push(backend);
            let (result, made) = self.read(backend, scopes, name, want).await;
            calls += made.unwrap_or_default();
            match result {
                Ok(hit) => return Ok(Found { backend, scopes, hit, called: made.is_some(), calls }),
                Err(BackendError::NotFound) => {}
                Err(BackendError::Denied { .. }) if source.denied_means_absent => {}
                Err(error) => return Err(Miss { asked, error, calls }),
            }
        }
        Err(Miss { asked, error: BackendError::NotFound, calls })
    }

    /// Returns the secret of exactly `name` when memory alone can tell: a fresh value in the first back-end that is not
    /// known to lack it. `None` says nothing; then ask [`secret`](Self::secret).
    pub fn recall(&self, name: &str) -> Option<Hit> {
        self.recall_in(&mut self.cache(), name, Tick::now()).map(|(_, hit)| hit)
    }

    /// The same where the cache is held already, with the back-end.
    fn recall_in(&self, cache: &mut Cache<Flight>, name: &str, now: Tick) -> Option<(usize, Hit)> {
        for backend in 0..self.sources.len() {
            match cache.recall(self.key(backend, self.scopes, name), now) {
                Recall::Fresh(hit) => return Some((backend, hit)),
                Recall::Absent => {}
                Recall::Unknown => return None,
            }
        }
        None
    }

    /// Reads `names`, each once, as one consistent set: none of them was replaced in the cache between the first and the
    /// last read. Errors: every name that was not found, all at once, beside what was.
    pub async fn generation<'a>(self: &Arc<Self>, names: &[&'a str]) -> Result<Generation<'a>, Incomplete<'a>> {
        for attempt in 1.. {
            let mut secrets = HashMap::with_capacity(names.len());
            let mut unknown = Vec::new();
            {
                let mut cache = self.cache();
                let now = Tick::now();
                for name in names {
                    match self.recall_in(&mut cache, name, now) {
                        Some((backend, hit)) => {
                            secrets.insert(*name, Found { backend, scopes: self.scopes, hit, called: false, calls: 0 });
                        }
                        None => unknown.push(*name),
                    }
                }
                // Read in one moment, they are one set.
                if unknown.is_empty() {
                    return Ok(Generation { id: self.generation_id(&cache), secrets });
                }
            }
            let reads = unknown.iter().map(|name| self.secret(name, Selection::default(), Want::Usual));
            let mut misses = HashMap::new();
            for (name, result) in unknown.iter().zip(join_all(reads).await) {
                match result {
                    Ok(found) => {
                        secrets.insert(*name, found);
                    }
                    Err(miss) => {
                        misses.insert(*name, miss);
                    }
                }
            }
            if !misses.is_empty() {
                return Err(Incomplete { secrets, misses });
            }
            let cache = self.cache();
            let agreement = cache.agreement(
                secrets
                    .iter()
                    .map(|(name, found)| (self.key(found.backend, found.scopes, name), found.hit.cached.revision())),
            );
            let settled = match agreement {
                Agreement::Held => true,
                // Not held may be too large to hold; reading again would not change that.
                Agreement::Gone => attempt > 1,
                Agreement::Replaced => false,
            };
            if settled {
                return Ok(Generation { id: self.generation_id(&cache), secrets });
            }
            drop(cache);
            if attempt >= MOST_GENERATION_TRIES {
                let what = "the secrets change faster than they can be read together".to_owned();
                let error = BackendError::Transient { what, hint: None };
                let miss = |name: &&'a str| (*name, Miss { asked: Vec::new(), error: error.clone(), calls: 0 });
                return Err(Incomplete { secrets: HashMap::new(), misses: names.iter().map(miss).collect() });
            }
        }
        unreachable!("the loop returns by its last attempt")
    }

    fn generation_id(&self, cache: &Cache<Flight>) -> String {
        format!("{}-{}", self.memory.instance, cache.revision())
    }

    /// Reads one entry; also tells how many calls were made for it, `None` where memory answered. A reader that goes away
    /// does not cancel the call that others wait for.
    async fn read(
        self: &Arc<Self>,
        backend: usize,
        scopes: Scopes,
        name: &str,
        want: Want,
    ) -> (Result<Hit, BackendError>, Option<u64>) {
        let key = self.key(backend, scopes, name);
        let mut sender = None;
        let look_up = self.cache().look_up(key, Tick::now(), want, || {
            let (send, receive) = watch::channel(None);
            sender = Some(send);
            receive
        });
        let lead_on = |lead: Lead<Flight>, sender: Option<watch::Sender<Option<Landing>>>| {
            if let Some(sender) = sender {
                let Key { backend: place, scopes, name } = key;
                let due = Due { place, scopes, name: name.to_owned(), id: lead.id, began: lead.began, sender };
                self.launch(backend, due);
            }
            lead.flight
        };
        let flight = match look_up {
            LookUp::Fresh(hit) => return (Ok(hit), None),
            LookUp::Absent(error) => return (Err(error), None),
            LookUp::Stale { hit, lead } => {
                if let Some(lead) = lead {
                    lead_on(lead, sender);
                }
                return (Ok(hit), None);
            }
            LookUp::Join(flight) => flight,
            LookUp::Lead(lead) => lead_on(lead, sender),
        };
        let landing = landed(flight).await;
        (landing.result, Some(landing.calls))
    }

    /// Describes `names` in one back-end without reading values; counts as one call for each 500 names.
    pub async fn describe(
        &self,
        backend: usize,
        names: &[&str],
        scopes: Scopes,
    ) -> Result<Vec<Option<Description>>, BackendError> {
        let source = &self.sources[backend];
        source.call(Reads::Names, source.reader.describe(names, scopes)).await
    }

    /// Lists one back-end, and takes the listing as change detection where it is one.
    pub async fn list(self: &Arc<Self>, backend: usize) -> Result<Listing, BackendError> {
        let source = &self.sources[backend];
        let asked = Tick::now();
        let listing = Listing(source.call(Reads::Names, source.reader.list()).await?);
        let names: String = listing.iter().flat_map(|description| [description.name.as_str(), "\0"]).collect();
        *lock(&source.listed) = Some(names.into());
        if source.capabilities.cheap_list {
            let again = self.cache().compare(self.places[backend], &listing, asked);
            for (scopes, name) in again {
                self.reread(backend, scopes, name);
            }
        } else {
            // Its versions need not be those of a fetch, and it may lack what can be fetched: asking again for all that
            // differs would be a call a secret, again and again.
            self.cache().contradict(self.places[backend], &listing);
        }
        self.tell_watchers(backend, &listing);
        Ok(listing)
    }

    fn reread(self: &Arc<Self>, backend: usize, scopes: Scopes, name: String) {
        let resolver = Arc::clone(self);
        tokio::spawn(async move {
            let (result, _) = resolver.read(backend, scopes, &name, Want::Reread).await;
            if let Err(error) = result {
                tracing::debug!(secret = name, backend = resolver.sources[backend].name, %error, "changed and gone");
            }
        });
    }

    /// Returns what helps where none of the back-ends `asked` has `name`: a name of the last listings that is close and that
    /// `allowed` lets through, or why there can be no such secret.
    pub fn hint_for_absence(&self, name: &str, asked: &[usize], allowed: impl Fn(&str) -> bool) -> Option<String> {
        if let Some(near) = self.near_miss(name, allowed) {
            return Some(format!("did you mean `{near}`?"));
        }
        let sources = asked.iter().map(|backend| &self.sources[*backend]);
        let reasons = sources.map(|source| Some((&source.name, source.cannot_hold(name)?)));
        let reasons = reasons.collect::<Option<Vec<_>>>().filter(|reasons| !reasons.is_empty())?;
        let reasons: Vec<_> = reasons.iter().map(|(source, why)| format!("`{source}`: {why}")).collect();
        Some(format!("no secret can be called so there ({})", reasons.join("; ")))
    }

    fn near_miss(&self, name: &str, allowed: impl Fn(&str) -> bool) -> Option<String> {
        let listings: Vec<_> = self.sources.iter().filter_map(|source| lock(&source.listed).clone()).collect();
        let names = listings.iter().flat_map(|listing| listing.split_terminator('\0'));
        crate::near_miss::nearest(name, names.filter(|candidate| allowed(candidate))).map(str::to_owned)
    }

    /// Takes the first listing of each back-end where one is cheap and none was taken yet, so that near-miss hints have
    /// names to choose from. Returns the calls made: none, ever after.
    pub async fn list_for_hints(self: &Arc<Self>) -> u64 {
        let mut calls = 0;
        for (backend, source) in self.sources.iter().enumerate() {
            if source.capabilities.cheap_list && lock(&source.listed).is_none() {
                calls += 1;
                if let Err(error) = self.list(backend).await {
                    tracing::debug!(backend = source.name, %error, "no names for hints");
                }
            }
        }
        calls
    }

    /// Returns what would be served now without asking anybody; not counted as a read.
    pub fn peek(&self, backend: usize, scopes: Scopes, name: &str) -> Option<Hit> {
        self.cache().peek(self.key(backend, scopes, name), Tick::now())
    }

    /// Forgets everything about `name` in `backend`, after a write.
    pub fn forget(&self, backend: usize, name: &str) {
        self.cache().forget(self.places[backend], name);
        self.memory.watches.touch(name, true);
    }

    /// Asks again for `name`, whatever is known of it: in the order of precedence, as far as a reader would have to ask.
    ///
    /// Errors: why it was not found; what was known stays as the error's class says.
    pub async fn refresh(self: &Arc<Self>, name: &str) -> Result<(), BackendError> {
        for (backend, source) in self.sources.iter().enumerate() {
            match self.ask_again(backend, self.scopes, name).await {
                Err(BackendError::NotFound) => {}
                Err(BackendError::Denied { .. }) if source.denied_means_absent => {}
                result => return result,
            }
        }
        Err(BackendError::NotFound)
    }

    /// Makes a call for one entry, or waits for one under way. Errors: the call failed, whatever is still served.
    async fn ask_again(self: &Arc<Self>, backend: usize, scopes: Scopes, name: &str) -> Result<(), BackendError> {
        let key = self.key(backend, scopes, name);
        let (result, _) = self.read(backend, scopes, name, Want::Reread).await;
        result?;
        if self.cache().is_failing(key) {
            let what = format!("back-end `{}` did not confirm secret `{name}`", self.sources[backend].name);
            return Err(BackendError::Transient { what, hint: None });
        }
        Ok(())
    }

    /// Lists every back-end that is polled, forgets the absences of the others, and asks again for everything that is held. Returns how
    /// many entries were asked for, and what failed: names, or (`Err`) whole back-ends.
    pub async fn refresh_all(self: &Arc<Self>) -> (usize, Vec<(Result<String, usize>, BackendError)>) {
        let mut failed = Vec::new();
        let polled: Vec<usize> = (0..self.sources.len()).filter(|backend| self.is_polled(*backend)).collect();
        let listings = join_all(polled.iter().map(|backend| self.list(*backend))).await;
        for (backend, listing) in polled.into_iter().zip(listings) {
            failed.extend(listing.err().map(|error| (Err(backend), error)));
        }
        let held: Vec<(usize, Scopes, String)> = {
            let mut cache = self.cache();
            // A listing has contradicted what it could, and one that failed is no reason to forget.
            let unlisted = (0..self.sources.len()).filter(|backend| !self.is_polled(*backend));
            unlisted.for_each(|backend| cache.forget_absences(self.places[backend]));
            let of = |(backend, place): (usize, &usize)| {
                cache.held(*place).map(|(scopes, name)| (backend, scopes, name.to_owned())).collect::<Vec<_>>()
            };
            self.places.iter().enumerate().flat_map(of).collect()
        };
        let asked = held.len();
        let again = held.into_iter().map(|(backend, scopes, name)| async move {
            let result = self.ask_again(backend, scopes, &name).await;
            (name, result)
        });
        let answers: Vec<_> = stream::iter(again).buffer_unordered(MOST_REFRESHES_AT_ONCE).collect().await;
        // What is gone by now was refreshed too.
        let errors = answers.into_iter().filter_map(|(name, result)| Some((name, result.err()?)));
        failed.extend(errors.filter(|(_, error)| !error.is_authoritative()).map(|(name, error)| (Ok(name), error)));
        (asked, failed)
    }

    /// Forgets everything about `name` in every back-end, calls under way included. Tells whether a value was held.
    pub fn purge(&self, name: &str) -> bool {
        let mut cache = self.cache();
        // Counted, so that every back-end forgets.
        self.places.iter().filter(|place| cache.forget(**place, name)).count() > 0
    }

    /// Forgets everything, calls under way included. Returns how many values were held.
    pub fn purge_all(&self) -> usize {
        let mut cache = self.cache();
        let held = cache.len();
        cache.clear();
        held
    }

    /// Returns the counters, the number of entries and their bytes.
    pub fn cache_state(&self) -> (Counters, usize, usize) {
        let cache = self.cache();
        (cache.counters(), cache.len(), cache.bytes())
    }

    /// Returns the number of absences remembered, and the age of what was confirmed longest ago.
    pub fn cache_depth(&self) -> (usize, Option<Duration>) {
        let cache = self.cache();
        (cache.absences(), cache.oldest(Tick::now()))
    }

    /// Returns the cached names, sorted, each once.
    pub fn cached_names(&self) -> Vec<String> {
        let cache = self.cache();
        let mut names: Vec<String> =
            self.places.iter().flat_map(|place| cache.names(*place)).map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns the calls made to back-ends so far.
    pub fn backend_calls(&self) -> u64 {
        self.sources.iter().map(|source| source.calls.load(Ordering::Relaxed)).sum()
    }

    /// Tells whether every required back-end has answered once; once true, true for this run.
    pub fn is_ready(&self) -> bool {
        let ready = &self.memory.ready;
        if !ready.load(Ordering::Relaxed) && self.sources.iter().all(|source| !source.required || source.has_answered())
        {
            ready.store(true, Ordering::Relaxed);
        }
        ready.load(Ordering::Relaxed)
    }

    /// Wipes the cache and closes the back-ends.
    pub async fn close(&self) {
        self.cache().clear();
        for source in &self.sources {
            source.permits.close();
            source.reader.close().await;
        }
    }

    fn key<'k>(&self, backend: usize, scopes: Scopes, name: &'k str) -> Key<'k> {
        Key { backend: self.places[backend], scopes, name }
    }

    fn cache(&self) -> MutexGuard<'_, Cache<Flight>> {
        lock(&self.memory.cache)
    }
}

fn open_source(configured: &BackendSettings, settings: &Settings) -> Result<Source, (String, BackendError)> {
    let opened = backend::open_of(settings, configured).map_err(|error| (configured.name.clone(), error))?;
    let options = SourceOptions {
        name: configured.name.clone(),
        kind: configured.kind.type_name(),
        required: configured.required,
        denied_means_absent: configured.denied_means_absent,
        found_in_zenml: settings.found_in_zenml,
        timeout: configured.timeout,
        parallelism: configured.parallelism,
    };
    Ok(Source::new(options, opened))
}

fn policy(configured: &BackendSettings, settings: &Settings) -> Policy {
    let cache = &settings.cache;
    Policy {
        ttl: configured.ttl.unwrap_or(cache.ttl),
        max_stale: cache.max_stale,
        negative_ttl: cache.negative_ttl,
        deny_on_identity_failure: cache.on_identity_failure == OnIdentityFailure::Deny,
    }
}

fn bounds(settings: &Settings) -> Bounds {
    Bounds {
        max_bytes: usize::try_from(settings.cache.max_bytes).unwrap_or(usize::MAX),
        max_entries: settings.limits.entries,
    }
}

fn scopes(settings: &Settings) -> Scopes {
    match settings.agent.scope_order {
        ScopeOrder::PrivateFirst => Scopes::PrivateFirst,
        ScopeOrder::PublicFirst => Scopes::PublicFirst,
    }
}

/// One call under way; gives its place up if it ends without an answer, so that later readers do not wait for it.
struct Call<'a> {
    memory: &'a Memory,
    source: &'a Source,
    key: Key<'a>,
    id: u64,
}

impl Call<'_> {
    fn complete(&self, began: Tick, result: Result<Secret, BackendError>) -> Result<Hit, BackendError> {
        let (served, outcome) =
            lock(&self.memory.cache).complete(self.key, self.id, began, Tick::now(), random_share(), result);
        tracing::debug!(secret = self.key.name, backend = self.source.name, ?outcome, "back-end call ended");
        self.memory.watches.touch(self.key.name, false);
        served
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        lock(&self.memory.cache).abandon(self.key, self.id);
    }
}

async fn landed(mut flight: Flight) -> Landing {
    let landing = flight.wait_for(Option::is_some).await.ok().and_then(|landing| landing.clone());
    landing.unwrap_or_else(|| Landing { result: Err(lost()), calls: 1 })
}

fn lost() -> BackendError {
    BackendError::Transient { what: "the call to the back-end was cut off".to_owned(), hint: None }
}

/// A panic while a lock was held has not left half a change behind: every change under these locks is one assignment or
/// is complete before anything can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An id of 16 hexadecimal digits that no other run of the agent has.
pub fn random_id() -> String {
    let mut bytes = [0; 8];
    // Without entropy the clock still tells two runs apart, which is all an instance id is for.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = (Tick::now().since(Tick::at(Duration::ZERO)).as_nanos() as u64).to_be_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A share from 0 to 1 for jitter; half where there is no entropy.
pub fn random_share() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(all(
    test,
    feature = "zenml-server",
    feature = "zenml-sql",
    feature = "aws",
    feature = "gcp",
    feature = "azure",
    feature = "vault",
    feature = "local",
    feature = "plugin"
))]
mod crowd;
mod gather;
#[cfg(test)]
mod history;
mod outlook;
mod source;
#[cfg(test)]
pub(crate) mod tests;
