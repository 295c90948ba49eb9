//! What the resolver sees of a secret without a call, and when one is due: for those who watch it, and for what is asked
//! for again as soon as its ttl is over.

use std::borrow::Cow;
use std::collections::BTreeMap;

use tokio::sync::Semaphore;

use super::*;
use crate::cache::{Glance, LEAST_SPAN};
use crate::watch::{Mark, Outlook, Sight};

/// Entries that are asked for again at the same time; each back-end has its own limit besides.
const MOST_RENEWALS_AT_ONCE: usize = 32;

/// The least between two looks at what is overdue: each goes through all that is held.
const RENEWAL_REST: Duration = Duration::from_millis(200);

impl Resolver {
    /// Says what would be resolved for `name` now, as far as memory tells, and when a call is due.
    pub fn outlook(&self, name: &str, now: Tick) -> Outlook {
        let cache = self.cache();
        let mut due: Option<Tick> = None;
        let mut ttl = Duration::MAX;
        let mut lacking = Vec::new();
        let mut call_at = |at: Tick| due = Some(due.map_or(at, |due: Tick| due.min(at)));
        for (backend, source) in self.sources.iter().enumerate() {
            ttl = ttl.min(cache.ttl(self.places[backend]).max(LEAST_SPAN));
            match cache.glance(self.key(backend, self.scopes, name), now) {
                Glance::Held { cached, confirmed, expired, failing, retry_at } => {
                    let at = confirmed.after(cache.ttl(self.places[backend]).max(LEAST_SPAN));
                    call_at(at.max(retry_at.unwrap_or(at)));
                    let sight = if expired {
                        Sight::Unknown
                    } else {
                        Sight::Present(Mark {
                            place: self.places[backend],
                            id: cached.secret.id().map(Cow::into_owned),
                            version: cached.secret.version().into_owned(),
                            revision: cached.revision(),
                            confirmed,
                            ttl: cache.ttl(self.places[backend]),
                            failing,
                        })
                    };
                    return Outlook { sight, due, ttl, lacking };
                }
                Glance::Absent { error, since } => {
                    // Where it is polled, the listing tells when it appears.
                    if !self.detects_changes(backend) {
                        call_at(since.after(ttl));
                    }
                    let goes_on = error == BackendError::NotFound || source.denied_means_absent;
                    if !goes_on {
                        return Outlook { sight: Sight::Absent, due, ttl, lacking };
                    }
                    lacking.push(self.places[backend]);
                }
                Glance::Nothing => return Outlook { sight: Sight::Unknown, due, ttl, lacking },
            }
        }
        Outlook { sight: Sight::Absent, due, ttl: ttl.min(Duration::from_secs(3600)), lacking }
    }

    /// Tells whether listings show every change of a back-end.
    fn detects_changes(&self, backend: usize) -> bool {
        self.is_polled(backend) && self.sources[backend].capabilities.cheap_list
    }

    /// Asks for what [`outlook`](Self::outlook) says is due, in the order of precedence. Returns what is seen then.
    ///
    /// Errors: no definite answer.
    pub async fn look_again(self: &Arc<Self>, name: &str) -> Result<Sight, BackendError> {
        for (backend, source) in self.sources.iter().enumerate() {
            let key = self.key(backend, self.scopes, name);
            let (glance, ttl) = {
                let cache = self.cache();
                (cache.glance(key, Tick::now()), cache.ttl(key.backend).max(LEAST_SPAN))
            };
            let result = match glance {
                Glance::Absent { error, since } if self.detects_changes(backend) || Tick::now().since(since) < ttl => {
                    Err(error)
                }
                _ => self.read(backend, self.scopes, name, Want::Confirmed).await.0,
            };
            match result {
                Ok(hit) => {
                    return Ok(Sight::Present(Mark {
                        place: key.backend,
                        id: hit.cached.secret.id().map(Cow::into_owned),
                        version: hit.cached.secret.version().into_owned(),
                        revision: hit.cached.revision(),
                        confirmed: Tick::now(),
                        ttl,
                        failing: hit.stale,
                    }));
                }
                Err(BackendError::NotFound) => {}
                Err(BackendError::Denied { .. }) if source.denied_means_absent => {}
                Err(BackendError::Denied { .. }) => return Ok(Sight::Absent),
                Err(error) => return Err(error),
            }
        }
        Ok(Sight::Absent)
    }

    /// Brings the board of watches up to date for `name`; where a call is due, it is made behind this.
    pub fn look_for_watchers(self: &Arc<Self>, name: &str, permits: &Arc<Semaphore>) {
        let now = Tick::now();
        if !self.watches().settle(name, self.outlook(name, now), now) {
            return;
        }
        self.watches().asking(name);
        let (resolver, permits, name) = (Arc::clone(self), Arc::clone(permits), name.to_owned());
        let reloads = self.watches().reloads();
        tokio::spawn(async move {
            let _permit = permits.acquire().await;
            let answer = resolver.look_again(&name).await;
            if resolver.watches().reloads() == reloads {
                resolver.settle_answer(&name, &answer);
            }
            resolver.watches().asked(&name, answer.is_ok(), Tick::now(), random_share());
        });
    }

    /// Puts what a call brought on the board of watches, where memory does not hold it: it may be too large to be held.
    fn settle_answer(&self, name: &str, answer: &Result<Sight, BackendError>) {
        let now = Tick::now();
        let mut outlook = self.outlook(name, now);
        if let (Sight::Unknown, Ok(sight)) = (&outlook.sight, answer) {
            outlook.sight = sight.clone();
            outlook.due = Some(now.after(outlook.ttl));
        }
        self.watches().settle(name, outlook, now);
    }

    /// Reads `name` for a new watcher and brings the board up to date.
    pub async fn read_for_watcher(self: &Arc<Self>, name: &str) {
        let reloads = self.watches().reloads();
        let answer = self.look_again(name).await;
        if self.watches().reloads() == reloads {
            self.settle_answer(name, &answer);
        }
        // From here on it is looked after, also where there was no answer.
        self.watches().touch(name, false);
    }

    /// Has every watched name looked at that a listing may be news about.
    pub(super) fn tell_watchers(&self, backend: usize, listing: &[Description]) {
        let watched = self.watches().names();
        if watched.is_empty() {
            return;
        }
        let names: std::collections::HashSet<&str> = watched.iter().map(|(name, _)| &**name).collect();
        let mut listed: BTreeMap<&str, Vec<&Description>> = BTreeMap::new();
        for description in listing.iter().filter(|description| names.contains(&*description.name)) {
            listed.entry(&description.name).or_default().push(description);
        }
        for (name, mark) in &watched {
            let here = listed.get(&**name).map(Vec::as_slice).unwrap_or_default();
            let shown = self.scopes.order().iter().find_map(|scope| here.iter().find(|one| one.scope == *scope));
            let differs = match mark.as_ref().map(|mark| (self.places.iter().position(|at| *at == mark.place), mark)) {
                // A back-end that comes before this one has it.
                Some((Some(at), _)) if at < backend => false,
                Some((Some(at), mark)) if at == backend && self.detects_changes(backend) => {
                    shown.is_none_or(|shown| shown.version != mark.version || shown.id != mark.id)
                }
                Some((Some(at), _)) if at == backend => false,
                _ => shown.is_some(),
            };
            self.watches().touch(name, differs);
        }
    }

    /// Asks again for what of one back-end is past its ttl and in use, and returns when to do so next.
    pub async fn renew_overdue(self: &Arc<Self>, backend: usize) -> Tick {
        let now = Tick::now();
        let (due, next) = self.cache().overdue(self.places[backend], now, MOST_RENEWALS_AT_ONCE);
        // What becomes of each is told where its call ends.
        let again = due.iter().map(|(scopes, name)| self.read(backend, *scopes, name, Want::Reread));
        join_all(again).await;
        next.max(Tick::now().after(RENEWAL_REST))
    }
}
