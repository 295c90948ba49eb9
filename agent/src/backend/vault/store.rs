//! Layout `store`: ZenML's central secrets store, `zenml/<id>` in one mount or two.
//!
//! By id it holds the values of a store whose names are in SQL (ZenML since 0.55). By name it is what ZenML 0.35 to 0.53
//! left: the names stand inside the secrets, so they are all read to find one. What was found is remembered, names and
//! ids alone: a later look-up lists the folder, reads what is new there, and then the one secret. Everything is read
//! again when a name is not found, when a secret is no longer what it was called, and every few minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::super::names_elsewhere::NamesElsewhere;
use super::super::{BackendError, Description, Kept, Scope, ScopeLabel, Scopes, Secret};
use super::kv::{Kv, Look};
use super::{Limits, check_sizes, unusable};
use crate::clock::Tick;
use crate::layout::vault::{DecodeError, Label, STORE_FOLDER, Stored, StoredScope};

/// How long the names of secrets that were not asked for are believed.
const MEMORY: Duration = Duration::from_secs(300);

/// The store.
pub(super) struct Store {
    /// The configured mount, and behind it the one that ZenML up to 0.80 writes to, if that is another.
    pub(super) mounts: Vec<Kv>,
    pub(super) limits: Limits,
    index: tokio::sync::Mutex<Index>,
    /// The second mount's refusal has been logged.
    said: AtomicBool,
    names_elsewhere: NamesElsewhere,
}

/// Which secrets there are.
#[derive(Default)]
struct Index {
    /// When the last look at the folders began.
    looked: Option<Tick>,
    /// When the last reading of everything began.
    read: Option<Tick>,
    entries: BTreeMap<Place, Entry>,
}

/// A mount, by its number, and the id under which something lies there.
type Place = (usize, String);

enum Entry {
    /// A secret with a name.
    Named(Known),
    /// A secret of a later ZenML, whose name is elsewhere, or nothing of ZenML's.
    Nameless,
    /// Refused to us.
    Denied,
}

#[derive(Clone)]
struct Known {
    label: Label,
    version: String,
    keys: Vec<String>,
}

fn scope_of(scope: StoredScope) -> (Scope, ScopeLabel) {
    match scope {
        StoredScope::Workspace => (Scope::Public, ScopeLabel::Workspace),
        StoredScope::User => (Scope::Private, ScopeLabel::User),
    }
}

fn description(id: &str, known: &Known, keys: Option<Vec<String>>) -> Description {
    let (scope, label) = scope_of(known.label.scope);
    Description {
        name: known.label.name.clone(),
        scope,
        scope_label: Some(label),
        id: Some(id.to_owned()),
        version: known.version.clone(),
        keys,
    }
}

/// What a look-up by name comes to.
enum Pick {
    One(Place),
    None,
    /// Several secrets of one scope have the name.
    Several(Vec<String>),
}

impl Index {
    /// Returns the named secrets; of one id in both mounts the first counts, as in a look-up by id.
    fn named(&self) -> impl Iterator<Item = (&Place, &Known)> {
        let mut seen = BTreeSet::new();
        self.entries.iter().filter_map(move |(place, entry)| match entry {
            Entry::Named(known) if seen.insert(place.1.as_str()) => Some((place, known)),
            _ => None,
        })
    }

    fn pick(&self, name: &str, scopes: Scopes) -> Pick {
        for scope in scopes.order() {
            let found: Vec<&Place> = self
                .named()
                .filter(|(_, known)| known.label.name == name && scope_of(known.label.scope).0 == *scope)
                .map(|(place, _)| place)
                .collect();
            match found.as_slice() {
                [] => {}
                [one] => return Pick::One((*one).clone()),
                several => return Pick::Several(several.iter().map(|(_, id)| id.clone()).collect()),
            }
        }
        Pick::None
    }

    fn has_denied(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry, Entry::Denied))
    }
}

impl Store {
    pub(super) fn new(mounts: Vec<Kv>, limits: Limits) -> Self {
        Self {
            mounts,
            limits,
            index: tokio::sync::Mutex::default(),
            said: AtomicBool::new(false),
            names_elsewhere: NamesElsewhere::default(),
        }
    }

    /// Errors: as [`super::super::ValueStore::values_of`].
    pub(super) async fn values_of(&self, id: &str, deployment: &str) -> Result<Kept, BackendError> {
        let mut refused = None;
        for number in 0..self.mounts.len() {
            let body = match self.look(number, id).await? {
                // ZenML up to 0.80 keeps nothing in the mount that it was told of: its token needs no right to read there.
                Look::Denied(error) | Look::Unsupported(error) if number + 1 < self.mounts.len() => {
                    refused = Some(error);
                    continue;
                }
                look => look.found()?,
            };
            let Some(body) = body else { continue };
            let kv = &self.mounts[number];
            let (values, version) = kv.parse_data(&body, |object| {
                let stored = Stored::parse(object)?;
                if stored.belongs_to(deployment, id) { stored.pairs() } else { Err(DecodeError::Foreign) }
            })?;
            match values {
                Ok(values) => {
                    check_sizes(&kv.api.words.backend, id, &values, self.limits.max_value)?;
                    return Ok(Kept { values, version });
                }
                // Another deployment's, or nothing of ZenML's: to this one it is not there.
                Err(DecodeError::Foreign) => {}
                Err(error) => return Err(unusable(&kv.api.words.backend, id, &error.to_string())),
            }
        }
        Err(refused.unwrap_or(BackendError::NotFound))
    }

    /// Errors: as [`super::super::Backend::fetch`].
    pub(super) async fn fetch(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        let asked = Tick::now();
        // The second time everything has been read since the question.
        for everything in [false, true] {
            let pick = self.pick(name, scopes, asked, everything).await?;
            let place = match pick {
                Pick::One(place) => place,
                Pick::None => continue,
                Pick::Several(ids) => return Err(self.ambiguous(name, &ids)),
            };
            match self.read(name, &place).await? {
                Some(secret) if scopes.order().contains(&secret.description.scope) => return Ok(secret),
                _ => {}
            }
        }
        Err(BackendError::NotFound)
    }

    /// Finds out where a name lies. `None` only after everything has been read since `asked`.
    async fn pick(&self, name: &str, scopes: Scopes, asked: Tick, everything: bool) -> Result<Pick, BackendError> {
        let mut index = self.index.lock().await;
        self.refresh(&mut index, asked, everything).await?;
        let pick = index.pick(name, scopes);
        if !matches!(pick, Pick::None) || index.read >= Some(asked) {
            return self.settle(&index, pick);
        }
        self.refresh(&mut index, asked, true).await?;
        let pick = index.pick(name, scopes);
        self.settle(&index, pick)
    }

    /// An absence is none while something is refused that might be it.
    fn settle(&self, index: &Index, pick: Pick) -> Result<Pick, BackendError> {
        if matches!(pick, Pick::None) && index.has_denied() {
            return Err(BackendError::Denied {
                what: format!(
                    "back-end `{}`: its token may not read every secret in `{STORE_FOLDER}/` (403), and none that it may has this name",
                    self.mounts[0].api.words.backend
                ),
                hint: Some(format!("a policy must let it read all of `{STORE_FOLDER}/*`: the names stand inside")),
            });
        }
        Ok(pick)
    }

    /// Reads one secret whole; `None` when it is no longer what it was called.
    async fn read(&self, name: &str, place: &Place) -> Result<Option<Secret>, BackendError> {
        let (number, id) = place;
        let kv = &self.mounts[*number];
        let Some(body) = self.look(*number, id).await?.found()? else { return Ok(None) };
        let (parsed, version) = kv.parse_data(&body, |object| {
            let stored = Stored::parse(object)?;
            let label = stored.label(id).filter(|label| label.name == name).ok_or(DecodeError::Foreign)?;
            Ok((label, stored.pairs()?))
        })?;
        let (label, values) = match parsed {
            Ok(parsed) => parsed,
            Err(DecodeError::Foreign) => return Ok(None),
            Err(error) => return Err(unusable(&kv.api.words.backend, name, &error.to_string())),
        };
        check_sizes(&kv.api.words.backend, name, &values, self.limits.max_value)?;
        let known = Known { label, version, keys: Vec::new() };
        Ok(Some(Secret { description: description(id, &known, None), values }))
    }

    /// Errors: as [`super::super::Backend::describe`].
    pub(super) async fn describe(
        &self,
        names: &[&str],
        scopes: Scopes,
    ) -> Result<Vec<Option<Description>>, BackendError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let asked = Tick::now();
        let mut index = self.index.lock().await;
        self.refresh(&mut index, asked, true).await?;
        let describe = |name: &&str| match self.settle(&index, index.pick(name, scopes))? {
            Pick::One(place) => Ok(index
                .named()
                .find(|(other, _)| **other == place)
                .map(|((_, id), known)| description(id, known, Some(known.keys.clone())))),
            Pick::None => Ok(None),
            Pick::Several(ids) => Err(self.ambiguous(name, &ids)),
        };
        names.iter().map(describe).collect()
    }

    /// Errors: as [`super::super::Backend::list`].
    pub(super) async fn list(&self) -> Result<Vec<Description>, BackendError> {
        let mut index = self.index.lock().await;
        self.refresh(&mut index, Tick::now(), true).await?;
        let mut seen = BTreeSet::new();
        let secrets = index
            .named()
            .filter(|(_, known)| seen.insert((known.label.name.clone(), known.label.scope == StoredScope::User)));
        Ok(secrets.map(|((_, id), known)| description(id, known, Some(known.keys.clone()))).collect())
    }

    /// Looks at the folders again, unless somebody has since `asked`, and reads what is new there, or everything.
    async fn refresh(&self, index: &mut Index, asked: Tick, everything: bool) -> Result<(), BackendError> {
        let now = Tick::now();
        let old = index.read.is_none_or(|read| now.since(read) > MEMORY);
        let everything = (everything || old) && index.read < Some(asked);
        if !everything && index.looked >= Some(asked) {
            return Ok(());
        }
        let folder = [STORE_FOLDER.to_owned()];
        let mut places: BTreeSet<Place> = BTreeSet::new();
        for (number, kv) in self.mounts.iter().enumerate() {
            let ids = match kv.list(&folder, &[]).await {
                Ok(Ok(ids)) => ids,
                Ok(Err(look)) if number > 0 => self.not_there(kv, look),
                Ok(Err(Look::Denied(_))) => return Err(kv.may_not_list(&folder, &[]).of_lists_alone()),
                Ok(Err(look)) => look.found().map(|_| Vec::new())?,
                Err(error) => return Err(error),
            };
            places.extend(ids.into_iter().filter(|id| !id.contains('/')).map(|id| (number, id)));
        }
        index.entries.retain(|place, _| places.contains(place));
        let unread = places.into_iter().filter(|place| everything || !index.entries.contains_key(place));
        let calls: Vec<_> = unread.map(|place| self.learn(place)).collect();
        let read: Vec<_> = stream::iter(calls).buffer_unordered(self.limits.parallelism).collect().await;
        // What was learnt counts, though something else failed.
        let mut failure = None;
        for (place, entry) in read {
            match entry {
                Ok(Some(entry)) => drop(index.entries.insert(place, entry)),
                Ok(None) => drop(index.entries.remove(&place)),
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let nameless = index.entries.values().filter(|entry| matches!(entry, Entry::Nameless)).count();
        self.names_elsewhere.tell(&self.mounts[0].api.words.backend, nameless);
        index.looked = Some(now);
        if everything {
            index.read = Some(now);
        }
        Ok(())
    }

    /// Reads what a secret says of itself. Its values are passed over where they lie, and wiped with the reply.
    async fn learn(&self, place: Place) -> (Place, Result<Option<Entry>, BackendError>) {
        let entry = self.entry(&place).await;
        (place, entry)
    }

    async fn entry(&self, (number, id): &Place) -> Result<Option<Entry>, BackendError> {
        let body = match self.look(*number, id).await? {
            Look::Found(body) => body,
            Look::Absent => return Ok(None),
            Look::Denied(_) => return Ok(Some(Entry::Denied)),
            look => return look.found().map(|_| None),
        };
        let (label, version) = self.mounts[*number].parse_data(&body, |object| {
            let stored = Stored::parse(object).ok()?;
            Some((stored.label(id)?, stored.keys()))
        })?;
        Ok(Some(match label {
            Some((label, keys)) => Entry::Named(Known { label, version, keys }),
            None => Entry::Nameless,
        }))
    }

    /// Reads what lies under an id, in one mount. What the second one refuses is not there: most tokens have no right to it,
    /// and most servers no such mount.
    async fn look(&self, number: usize, id: &str) -> Result<Look, BackendError> {
        let kv = &self.mounts[number];
        match kv.look("data", &[STORE_FOLDER.to_owned()], &[id]).await {
            Ok(look @ (Look::Denied(_) | Look::Unsupported(_))) if number > 0 => {
                self.not_there(kv, look);
                Ok(Look::Absent)
            }
            answer => answer,
        }
    }

    fn not_there(&self, kv: &Kv, look: Look) -> Vec<String> {
        if let Look::Denied(error) | Look::Unsupported(error) = look
            && !self.said.swap(true, Ordering::Relaxed)
        {
            let backend = &kv.api.words.backend;
            tracing::info!(backend, %error, "the mount that ZenML up to 0.80 wrote to is left out");
        }
        Vec::new()
    }

    fn ambiguous(&self, name: &str, ids: &[String]) -> BackendError {
        BackendError::Unusable {
            what: format!(
                "secret `{name}` in back-end `{}` is there {} times, in several workspaces, of several users or of several deployments: {}",
                self.mounts[0].api.words.backend,
                ids.len(),
                ids.join(", ")
            ),
            hint: Some("ask the ZenML server instead, which knows who asks: type = \"zenml-server\"".to_owned()),
        }
    }
}
