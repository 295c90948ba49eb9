//! AWS Secrets Manager, in each layout that ZenML has written there, and secrets that it never wrote.
//!
//! `session` finds credentials and makes AWS's own client, at the first call; `transport` is the HTTP that it speaks;
//! `calls` makes the four calls; `error` sorts refusals by their code. The form of names, tags and values is
//! [`crate::layout::aws`]. `signer` finds credentials for back-ends of other types that only sign with them.
//!
//! In the layouts `manager` and `plain` a name is a place, so that one call reads a secret and twenty fit into one call. In
//! the layout `store` names are tags, so that a list comes first: that is how ZenML itself looked them up.

mod calls;
mod error;
mod session;
#[cfg(any(feature = "vault", feature = "zenml-sql"))]
pub(super) mod signer;
#[cfg(test)]
mod tests;
mod transport;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_secretsmanager::types::FilterNameStringType;
use futures_util::future::{join_all, try_join, try_join_all};
use keyside_config::settings::{AwsSettings, BackendSettings, Layout};
use keyside_protocol::value::SecretValues;

use self::calls::{BATCH, Calls, Read, Seen, filter};
use self::error::{Action, Class, Failure};
use self::session::Session;
use self::transport::Transport;
use super::{
    Backend, BackendError, Capabilities, Description, Kept, Opened, Scope, ScopeLabel, Scopes, Secret, ValueStore,
};
use crate::clock::Tick;
use crate::layout::aws::{NAME_TAG, Tagged, decode, is_holdable, is_kept, name_at, place_of, place_of_id, prefix};

/// The largest reply where values are small: twenty secrets of AWS's 64 KiB, each byte escaped, and much room.
const LEAST_MOST_BODY: usize = 16 * 1024 * 1024;

/// Values in one filter of a list.
const FILTER_VALUES: usize = 10;

/// As many secrets are described one by one; more are looked for in a list.
const FEW: usize = 3;

/// Pages of a list that are read for [`FILTER_VALUES`] names: they may begin many other names, too.
const PAGES_FOR_NAMES: usize = 3;

/// Secrets of the central store that are read together: their names take a list, which is the same for all of them.
const READ_TOGETHER: usize = 200;

/// For how long BatchGetSecretValue is left alone once it was refused.
const BATCH_PAUSE: Duration = Duration::from_secs(300);

/// Places of secrets that are remembered.
const MOST_KNOWN: usize = 10_000;

/// One region of one account.
struct Aws {
    calls: Calls,
    layout: Layout,
    max_value: u64,
    transport: Transport,
    /// When BatchGetSecretValue was refused.
    batch_refused: Mutex<Option<Tick>>,
    /// The ARNs of secrets that a list once had, by name: lists lag, so what is missing in one is asked for by itself.
    known: Mutex<HashMap<String, BTreeSet<String>>>,
}

/// Opens the back-end that `settings` and `aws` describe. Looks for no credentials and makes no call yet.
///
/// Errors: `Identity` when the settings cannot work.
pub fn open(settings: &BackendSettings, aws: &AwsSettings, max_value: u64) -> Result<Opened, BackendError> {
    let wrong = |what: &str, hint: String| BackendError::Identity {
        what: format!("back-end `{}`: {what}", settings.name),
        hint: Some(hint),
    };
    if settings.writable {
        let hint = format!("remove `writable` from [backend.{}], and write with AWS's own tools", settings.name);
        return Err(wrong("secrets of AWS are only read in this version", hint));
    }
    if prefix(&aws.layout).is_some_and(|prefix| !is_holdable(&prefix)) {
        let hint = "names in AWS have letters, digits and /_+=.@-".to_owned();
        return Err(wrong("its `prefix`, `namespace` or `component` can begin no name in AWS", hint));
    }
    let most = usize::try_from(max_value).unwrap_or(usize::MAX).saturating_mul(8).max(LEAST_MOST_BODY);
    let transport = Transport::new(settings, most)?;
    let session = Session::new(&settings.name, aws, transport.clone());
    let backend = Arc::new(Aws {
        calls: Calls { backend: settings.name.clone(), session },
        layout: aws.layout.clone(),
        max_value,
        transport,
        batch_refused: Mutex::default(),
        known: Mutex::default(),
    });
    let values = (aws.layout == Layout::Store).then(|| Arc::clone(&backend) as Arc<dyn ValueStore>);
    Ok(Opened { reader: backend, writer: None, values })
}

/// A secret of the central store, with what its tags say.
struct Entry {
    tagged: Tagged,
    seen: Seen,
}

impl Entry {
    fn of(seen: Seen) -> Option<Self> {
        Some(Self { tagged: Tagged::read(seen.tags())?, seen })
    }

    fn describe(&self, version: &str) -> Description {
        let label = match self.tagged.scope {
            Scope::Private => ScopeLabel::User,
            Scope::Public => ScopeLabel::Workspace,
        };
        Description {
            name: self.tagged.name.clone(),
            scope: self.tagged.scope,
            scope_label: Some(label),
            id: Some(self.tagged.id.clone()),
            version: version.to_owned(),
            keys: None,
        }
    }
}

/// Describes a secret whose name is its place.
fn describe_placed(name: &str, arn: &str, version: &str) -> Description {
    Description {
        name: name.to_owned(),
        scope: Scope::Public,
        scope_label: None,
        id: Some(arn.to_owned()),
        version: version.to_owned(),
        keys: None,
    }
}

impl Aws {
    fn decode(&self, name: &str, read: Read) -> Result<(String, String, SecretValues), BackendError> {
        let unusable = |what: String, hint: &str| BackendError::Unusable {
            what: format!("secret `{name}` in back-end `{}` cannot be served: {what}", self.calls.backend),
            hint: Some(hint.to_owned()),
        };
        let values = decode(&self.layout, read.payload).map_err(|error| {
            unusable(error.to_string(), "is it ZenML's? layout \"plain\" takes any text, any JSON object and any bytes")
        })?;
        let too_large =
            values.iter().find(|(_, value)| u64::try_from(value.len()).unwrap_or(u64::MAX) > self.max_value);
        if let Some((key, _)) = too_large {
            let what = format!("the value of key `{key}` is larger than {} bytes", self.max_value);
            return Err(unusable(what, "raise `[limits] value`"));
        }
        Ok((read.arn, read.version, values))
    }

    /// Reads values in as few calls as there are; each is an ARN or a place, and a name for messages.
    async fn read_all(&self, wanted: &[(&str, &str)]) -> Vec<Result<Read, BackendError>> {
        let batches = join_all(wanted.chunks(BATCH).map(|batch| self.read_batch(batch))).await;
        batches.into_iter().flatten().collect()
    }

    async fn read_batch(&self, wanted: &[(&str, &str)]) -> Vec<Result<Read, BackendError>> {
        let one_by_one = || join_all(wanted.iter().map(|(id, name)| self.calls.read(id, name)));
        if wanted.len() == 1 || self.is_batch_refused() {
            return one_by_one().await;
        }
        match self.calls.read_batch(wanted).await {
            Ok(answers) => {
                let settled = answers.into_iter().zip(wanted).map(|(answer, (id, name))| async move {
                    match answer {
                        Some(answer) => answer,
                        None => self.calls.read(id, name).await,
                    }
                });
                join_all(settled).await
            }
            Err(failure) if matches!(failure.class(), Some(Class::Denied | Class::Unknown)) => {
                let why = self.calls.say(&failure, Action::BatchGet, None);
                tracing::warn!(backend = self.calls.backend, %why, "secrets are read one by one");
                *self.batch_refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tick::now());
                one_by_one().await
            }
            // A word about one of them, as moto has it where one has no value: it says nothing about the others.
            Err(failure) if matches!(failure.class(), Some(Class::NotFound | Class::WrongState | Class::Unusable)) => {
                one_by_one().await
            }
            Err(failure) => {
                wanted.iter().map(|(_, name)| Err(self.calls.say(&failure, Action::BatchGet, Some(name)))).collect()
            }
        }
    }

    fn is_batch_refused(&self) -> bool {
        let refused = *self.batch_refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.is_some_and(|at| Tick::now().since(at) < BATCH_PAUSE)
    }

    // --- names that are places: `manager` and `plain`

    async fn fetch_placed(&self, names: &[&str]) -> Vec<Result<Secret, BackendError>> {
        let places: Vec<Option<String>> = names.iter().map(|name| place_of(&self.layout, name)).collect();
        let placed =
            |(place, name): (&'_ Option<String>, &&str)| place.clone().map(|place| (place, (*name).to_owned()));
        let wanted: Vec<(String, String)> = places.iter().zip(names).filter_map(placed).collect();
        let wanted: Vec<(&str, &str)> = wanted.iter().map(|(place, name)| (place.as_str(), name.as_str())).collect();
        let mut read = self.read_all(&wanted).await.into_iter();
        let secrets = places.iter().zip(names).map(|(place, name)| {
            let read = place.as_ref().and_then(|_| read.next()).unwrap_or(Err(BackendError::NotFound))?;
            let (arn, version, values) = self.decode(name, read)?;
            Ok(Secret { description: describe_placed(name, &arn, &version), values })
        });
        secrets.collect()
    }

    async fn see_placed(&self, names: &BTreeSet<&str>) -> Result<BTreeMap<String, Seen>, BackendError> {
        let places: Vec<String> = names.iter().filter_map(|name| place_of(&self.layout, name)).collect();
        let seen = if places.len() <= FEW {
            let described = join_all(places.iter().map(|place| self.calls.describe(place))).await;
            let is_denied = |described: &Result<_, Failure>| {
                described.as_ref().is_err_and(|failure| failure.class() == Some(Class::Denied))
            };
            if described.iter().any(is_denied) {
                // Who may list need not be allowed to look at one.
                self.look_for(&places).await?
            } else {
                let mut seen = Vec::new();
                for (place, described) in places.iter().zip(described) {
                    let name = name_at(&self.layout, place);
                    seen.extend(described.map_err(|failure| self.calls.say(&failure, Action::Describe, name))?);
                }
                seen
            }
        } else {
            let chunks = places.chunks(FILTER_VALUES).map(|places| self.look_for(places));
            try_join_all(chunks).await?.into_iter().flatten().collect()
        };
        let named = |seen: Seen| Some((name_at(&self.layout, &seen.place)?.to_owned(), seen));
        Ok(seen.into_iter().filter_map(named).collect())
    }

    /// Looks for a few places in a list, and asks for those that it lacks one by one: a list may lag.
    async fn look_for(&self, places: &[String]) -> Result<Vec<Seen>, BackendError> {
        let mut missing: BTreeSet<&str> = places.iter().map(String::as_str).collect();
        let mut found = Vec::new();
        let mut pages = 0;
        let filters = [filter(FilterNameStringType::Name, places.iter().cloned())];
        let listed = self.calls.list(&filters, |page| {
            pages += 1;
            found.extend(page.into_iter().filter(|seen| missing.remove(seen.place.as_str())));
            missing.is_empty() || pages >= PAGES_FOR_NAMES
        });
        let is_whole = match listed.await {
            Ok(is_whole) => is_whole,
            // Without the right to list, each is asked for.
            Err(failure) if matches!(failure.class(), Some(Class::Denied)) => false,
            Err(failure) => return Err(self.calls.say(&failure, Action::List, None)),
        };
        let described = missing.iter().map(|place| async move { (*place, self.calls.describe(place).await) });
        for (place, described) in join_all(described).await {
            match described {
                Ok(seen) => found.extend(seen),
                // The whole list has no such name, and AWS refuses what is not there like what is.
                Err(failure) if is_whole && failure.class() == Some(Class::Denied) => {}
                Err(failure) => {
                    return Err(self.calls.say(&failure, Action::Describe, name_at(&self.layout, place)));
                }
            }
        }
        Ok(found)
    }

    async fn list_placed(&self) -> Result<Vec<Description>, BackendError> {
        let begins = prefix(&self.layout).filter(|prefix| !prefix.is_empty());
        let filters: Vec<_> = begins.into_iter().map(|begins| filter(FilterNameStringType::Name, [begins])).collect();
        let mut all = Vec::new();
        let listed = self.calls.list(&filters, |page| {
            all.extend(page.iter().filter_map(|seen| {
                Some(describe_placed(name_at(&self.layout, &seen.place)?, &seen.arn, &seen.version))
            }));
            false
        });
        listed.await.map_err(|failure| self.calls.say(&failure, Action::List, None))?;
        Ok(all)
    }

    // --- names that are tags: `store`

    /// Finds the secrets of these names, of all scopes.
    async fn look_up(&self, names: &BTreeSet<&str>) -> Result<BTreeMap<String, Vec<Entry>>, BackendError> {
        let held: BTreeSet<&str> = names.iter().copied().filter(|name| !name.is_empty() && is_holdable(name)).collect();
        let mut found: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        if held.is_empty() {
            return Ok(found);
        }
        let mut filters = vec![filter(FilterNameStringType::TagKey, [NAME_TAG.to_owned()])];
        if held.len() <= FILTER_VALUES {
            filters.push(filter(FilterNameStringType::TagValue, held.iter().map(|name| (*name).to_owned())));
        }
        // AWS compares beginnings, and keys and values each by themselves: what it lets through is looked at again.
        let listed = self.calls.list(&filters, |page| {
            let entries = page.into_iter().filter_map(Entry::of);
            for entry in entries.filter(|entry| held.contains(entry.tagged.name.as_str())) {
                found.entry(entry.tagged.name.clone()).or_default().push(entry);
            }
            false
        });
        listed.await.map_err(|failure| self.calls.say(&failure, Action::List, None).of_lists_alone())?;
        for (name, arns) in self.known_but_missing(&held, &found) {
            let seen = try_join_all(arns.iter().map(|arn| self.calls.describe(arn))).await;
            let seen = seen.map_err(|failure| self.calls.say(&failure, Action::Describe, Some(&name)))?;
            let entries = seen.into_iter().flatten().filter_map(Entry::of);
            let entries: Vec<Entry> = entries.filter(|entry| entry.tagged.name == name).collect();
            if !entries.is_empty() {
                found.insert(name, entries);
            }
        }
        self.remember(&held, &found);
        Ok(found)
    }

    fn known_but_missing(
        &self,
        names: &BTreeSet<&str>,
        found: &BTreeMap<String, Vec<Entry>>,
    ) -> Vec<(String, BTreeSet<String>)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = names.iter().filter(|name| !found.contains_key(**name));
        missing.filter_map(|name| Some(((*name).to_owned(), known.get(*name)?.clone()))).collect()
    }

    fn remember(&self, names: &BTreeSet<&str>, found: &BTreeMap<String, Vec<Entry>>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            match found.get(*name) {
                None => drop(known.remove(*name)),
                Some(entries) if known.len() < MOST_KNOWN || known.contains_key(*name) => {
                    known.insert((*name).to_owned(), entries.iter().map(|entry| entry.seen.arn.clone()).collect());
                }
                Some(_) => {}
            }
        }
    }

    /// Chooses the secret that `name` means among those of this name.
    fn choose<'e>(
        &self,
        found: &'e BTreeMap<String, Vec<Entry>>,
        name: &str,
        scopes: Scopes,
    ) -> Result<Option<&'e Entry>, BackendError> {
        let entries = found.get(name).map_or(&[][..], Vec::as_slice);
        let chosen = Tagged::choose(entries, scopes, |entry| &entry.tagged, |entry| entry.seen.created);
        chosen.map_err(|error| BackendError::Unusable {
            what: format!("secret `{name}` in back-end `{}` cannot be chosen: {error}", self.calls.backend),
            hint: Some("use the ZenML server, or its data base, as the back-end: they know the workspace".to_owned()),
        })
    }

    async fn fetch_tagged(&self, names: &[&str], scopes: Scopes) -> Vec<Result<Secret, BackendError>> {
        let found = match self.look_up(&names.iter().copied().collect()).await {
            Ok(found) => found,
            Err(error) => return names.iter().map(|_| Err(error.clone())).collect(),
        };
        let chosen: Vec<_> = names.iter().map(|name| self.choose(&found, name, scopes)).collect();
        let wanted: Vec<(&str, &str)> = chosen
            .iter()
            .filter_map(|chosen| chosen.as_ref().ok()?.as_ref())
            .map(|entry| (entry.seen.arn.as_str(), entry.tagged.name.as_str()))
            .collect();
        let mut read = self.read_all(&wanted).await.into_iter();
        let secrets = names.iter().zip(&chosen).map(|(name, chosen)| {
            let entry = chosen.as_ref().map_err(Clone::clone)?.ok_or(BackendError::NotFound)?;
            let read = read.next().unwrap_or(Err(BackendError::NotFound))?;
            let (_, version, values) = self.decode(name, read)?;
            Ok(Secret { description: entry.describe(&version), values })
        });
        secrets.collect()
    }

    async fn list_tagged(&self) -> Result<Vec<Description>, BackendError> {
        let filters = [filter(FilterNameStringType::TagKey, [NAME_TAG.to_owned()])];
        let mut all: BTreeMap<(String, bool), Entry> = BTreeMap::new();
        let listed = self.calls.list(&filters, |page| {
            for entry in page.into_iter().filter_map(Entry::of) {
                let key = (entry.tagged.name.clone(), entry.tagged.scope == Scope::Public);
                // Of several the one that a look-up chooses; where none can be chosen, the name is shown all the same.
                let is_older = all.get(&key).is_none_or(|other| entry.seen.created < other.seen.created);
                if is_older {
                    all.insert(key, entry);
                }
            }
            false
        });
        listed.await.map_err(|failure| self.calls.say(&failure, Action::List, None).of_lists_alone())?;
        Ok(all.into_values().map(|entry| entry.describe(&entry.seen.version)).collect())
    }

    /// Where names are places there are no scopes: everything lies in the public one.
    fn has(&self, scopes: Scopes) -> bool {
        self.layout == Layout::Store || scopes.order().contains(&Scope::Public)
    }
}

#[async_trait]
impl Backend for Aws {
    fn capabilities(&self) -> Capabilities {
        // A list costs a call for each hundred secrets and lags.
        Capabilities { keys_without_values: false, cheap_list: false }
    }

    fn cannot_hold(&self, name: &str) -> Option<&'static str> {
        // The central store has the name in a tag, which is no part of the place.
        (self.layout != Layout::Store && !is_holdable(name)).then_some("AWS takes letters, digits and `/_+=.@-` alone")
    }

    async fn fetch(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        let one = self.fetch_many(&[name], scopes).await?;
        one.into_iter().next().unwrap_or(Err(BackendError::NotFound))
    }

    fn most_at_once(&self) -> usize {
        if self.layout == Layout::Store { READ_TOGETHER } else { BATCH }
    }

    async fn fetch_many(
        &self,
        names: &[&str],
        scopes: Scopes,
    ) -> Result<Vec<Result<Secret, BackendError>>, BackendError> {
        let answers = if self.layout == Layout::Store {
            self.fetch_tagged(names, scopes).await
        } else if self.has(scopes) {
            self.fetch_placed(names).await
        } else {
            names.iter().map(|_| Err(BackendError::NotFound)).collect()
        };
        // What failed for all of them says nothing of any one.
        let is_general =
            |error: &BackendError| matches!(error, BackendError::Transient { .. } | BackendError::Identity { .. });
        match answers.iter().find_map(|answer| answer.as_ref().err()) {
            Some(error) if is_general(error) && answers.iter().all(|answer| answer.as_ref().is_err_and(is_general)) => {
                Err(error.clone())
            }
            _ => Ok(answers),
        }
    }

    async fn describe(&self, names: &[&str], scopes: Scopes) -> Result<Vec<Option<Description>>, BackendError> {
        let wanted: BTreeSet<&str> = names.iter().copied().collect();
        if self.layout == Layout::Store {
            let found = self.look_up(&wanted).await?;
            let described = |name: &&str| {
                let chosen = self.choose(&found, name, scopes)?;
                Ok(chosen.map(|entry| entry.describe(&entry.seen.version)))
            };
            return names.iter().map(described).collect();
        }
        if !self.has(scopes) {
            return Ok(vec![None; names.len()]);
        }
        let seen = self.see_placed(&wanted).await?;
        let described = |name: &&str| seen.get(*name).map(|seen| describe_placed(name, &seen.arn, &seen.version));
        Ok(names.iter().map(described).collect())
    }

    async fn list(&self) -> Result<Vec<Description>, BackendError> {
        if self.layout == Layout::Store { self.list_tagged().await } else { self.list_placed().await }
    }

    async fn close(&self) {
        self.transport.close();
    }
}

#[async_trait]
impl ValueStore for Aws {
    async fn values_of(&self, id: &str, deployment: &str) -> Result<Kept, BackendError> {
        let place = place_of_id(id);
        if !is_holdable(&place) {
            return Err(BackendError::NotFound);
        }
        let seen = async {
            let seen = self.calls.describe(&place).await;
            let seen = seen.map_err(|failure| self.calls.say(&failure, Action::Describe, Some(&place)))?;
            // Another deployment's, or somebody else's.
            seen.filter(|seen| is_kept(seen.tags(), deployment, id)).ok_or(BackendError::NotFound)
        };
        let (_, read) = try_join(seen, self.calls.read(&place, &place)).await?;
        let (_, version, values) = self.decode(&place, read)?;
        Ok(Kept { values, version })
    }

    async fn close(&self) {
        self.transport.close();
    }
}
