//! Where secrets lie in each layout, and how they are put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use keyside_config::settings::{Layout, ManagerScope};
use keyside_protocol::value::SecretValues;
use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, Instant};

use super::super::{BackendError, Description, Scope, Scopes, Secret};
use super::vault::{Entry, Read, Vault};
use super::{Azure, Listing};
use crate::layout::azure::{self as layout, StoreSecret};

/// A secret of the store that a list of this age has is read at once: the tags that come with its value confirm it. What
/// hides it meanwhile, a private one of the same name, is noticed so much later.
const LIST_LIFETIME: Duration = Duration::from_secs(5);

/// More names than these are described by one list of the vault, fewer by a call each: a page has 25 secrets.
const MOST_CALLS: usize = 25;

/// The value of a secret that has one secret of Key Vault, in each layout that knows where that lies.
enum Place<'a> {
    Plain,
    Scoped(&'a ManagerScope),
}

impl Azure {
    pub(super) async fn read_secret(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        let vault = self.vault()?;
        match self.layout() {
            Layout::Store => self.read_of_store(&vault, name, scopes).await,
            Layout::Manager(ManagerScope::None) if has_public(scopes) => self.read_group(&vault, name).await,
            Layout::Manager(scope) if has_public(scopes) => self.read_one(&vault, Place::Scoped(scope), name).await,
            Layout::Plain { .. } if has_public(scopes) => self.read_one(&vault, Place::Plain, name).await,
            Layout::Manager(_) | Layout::Plain { .. } => Err(BackendError::NotFound),
        }
    }

    pub(super) async fn describe_secrets(
        &self,
        names: &[&str],
        scopes: Scopes,
    ) -> Result<Vec<Option<Description>>, BackendError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let vault = self.vault()?;
        match self.layout() {
            Layout::Store => {
                let entries = self.entries(&vault, Instant::now()).await?;
                let find = |name: &&str| {
                    let found = self.find_in_store(&entries, name, scopes)?;
                    Ok(found.map(|(secret, entry)| of_store(secret, entry.version.clone())))
                };
                names.iter().map(find).collect()
            }
            _ if !has_public(scopes) => Ok(vec![None; names.len()]),
            Layout::Manager(ManagerScope::None) => {
                let entries = self.entries(&vault, Instant::now()).await?;
                let groups = groups(&entries);
                Ok(names.iter().map(|name| groups.get(name).map(|keys| of_group(name, keys))).collect())
            }
            Layout::Manager(_) | Layout::Plain { .. } if names.len() > MOST_CALLS => {
                let entries = self.entries(&vault, Instant::now()).await?;
                let all: BTreeMap<_, _> =
                    entries.iter().filter_map(|entry| Some((self.name_of(entry)?, entry))).collect();
                Ok(names.iter().map(|name| all.get(name).map(|entry| of_one(name, entry.version.clone()))).collect())
            }
            Layout::Manager(_) | Layout::Plain { .. } => {
                let describe = |name: &&str| self.describe_one(&vault, (*name).to_owned());
                join_all(names.iter().map(describe)).await.into_iter().collect()
            }
        }
    }

    pub(super) async fn list_secrets(&self) -> Result<Vec<Description>, BackendError> {
        let vault = self.vault()?;
        let entries = self.entries(&vault, Instant::now()).await?;
        Ok(match self.layout() {
            Layout::Store => {
                let secret = |entry: &Entry| {
                    Some(of_store(layout::store_secret(&entry.name, &entry.tags)?, entry.version.clone()))
                };
                let nameless = entries.iter().filter(|entry| layout::is_nameless(&entry.tags)).count();
                self.names_elsewhere.tell(&self.place.backend, nameless);
                entries.iter().filter_map(secret).collect()
            }
            Layout::Manager(ManagerScope::None) => {
                groups(&entries).into_iter().map(|(name, keys)| of_group(name, &keys)).collect()
            }
            Layout::Manager(_) | Layout::Plain { .. } => {
                let one = |entry: &Entry| Some(of_one(self.name_of(entry)?, entry.version.clone()));
                entries.iter().filter_map(one).collect()
            }
        })
    }

    /// Reads the values that ZenML keeps by the secret's id.
    pub(super) async fn read_values(&self, id: &str, deployment: &str) -> Result<(SecretValues, String), BackendError> {
        let place = layout::store_place(id);
        if !layout::is_place(&place) {
            return Err(BackendError::NotFound);
        }
        let read = self.vault()?.read(&place).await?;
        if !layout::is_of_store(&read.tags, id, deployment) {
            return Err(BackendError::NotFound);
        }
        // expose: parsed into values that are wiped.
        let values = layout::store_values(read.value.expose()).map_err(|what| self.spoilt(id, what))?;
        Ok((self.bounded(id, values)?, read.version))
    }

    async fn read_of_store(&self, vault: &Vault, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        let asked = Instant::now();
        let oldest = asked.checked_sub(LIST_LIFETIME).unwrap_or(asked);
        for oldest in [oldest, asked] {
            let entries = self.entries(vault, oldest).await?;
            let Some((secret, entry)) = self.find_in_store(&entries, name, scopes)? else { continue };
            match vault.read(&entry.name).await {
                // The tags of what was read decide: a rename or a change of scope may be younger than the list.
                Ok(read) if layout::store_secret(&read.name, &read.tags).as_ref() == Some(&secret) => {
                    // expose: parsed into values that are wiped.
                    let values = layout::store_values(read.value.expose()).map_err(|what| self.spoilt(name, what))?;
                    let values = self.bounded(name, values)?;
                    return Ok(Secret { description: of_store(secret, read.version), values });
                }
                // Deleted or renamed since.
                Ok(_) | Err(BackendError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Err(BackendError::NotFound)
    }

    /// Returns the secret of this name from the first scope that has it.
    ///
    /// Errors: `Unusable`, when a scope has several: nothing here tells which deployment, workspace or user is meant.
    fn find_in_store<'e>(
        &self,
        entries: &'e [Entry],
        name: &str,
        scopes: Scopes,
    ) -> Result<Option<(StoreSecret, &'e Entry)>, BackendError> {
        let named: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some((layout::store_secret(&entry.name, &entry.tags)?, entry)))
            .filter(|(secret, _)| secret.name == name)
            .collect();
        for scope in scopes.order() {
            let mut found = named.iter().filter(|(secret, _)| secret.scope == *scope);
            if let Some((secret, entry)) = found.next() {
                let others = found.count();
                if others > 0 {
                    let what = format!("{} secrets in the vault are called `{name}`", others + 1);
                    let hint = "deployments, workspaces or users of ZenML share this vault: ask the ZenML server or its \
                                data base for names, with this back-end as its `values`";
                    return Err(self.place.unusable(&what, hint));
                }
                return Ok(Some((secret.clone(), entry)));
            }
        }
        Ok(None)
    }

    /// Puts together what a secrets manager without a scope keeps in one secret for each key.
    async fn read_group(&self, vault: &Vault, name: &str) -> Result<Secret, BackendError> {
        let entries = self.entries(vault, Instant::now()).await?;
        let keys = groups(&entries).remove(name).unwrap_or_default();
        let read = async |(key, entry): (&str, &Entry)| match vault.read(&entry.name).await {
            // The tags of what was read decide, as above.
            Ok(read) if layout::group_key(&read.tags) == Some((name, key)) => Ok(Some((key.to_owned(), read))),
            Ok(_) | Err(BackendError::NotFound) => Ok(None),
            Err(error) => Err(error),
        };
        let parts: Vec<(String, Read)> =
            try_join_all(keys.into_iter().map(read)).await?.into_iter().flatten().collect();
        if parts.is_empty() {
            return Err(BackendError::NotFound);
        }
        let versions = parts.iter().map(|(key, part)| (key.as_str(), part.name.as_str(), part.version.as_str()));
        let description = described(name, Scope::Public, None, None, group_version(versions));
        let values = parts.into_iter().map(|(key, part)| (key, part.value)).collect();
        Ok(Secret { description, values: self.bounded(name, values)? })
    }

    async fn read_one(&self, vault: &Vault, place: Place<'_>, name: &str) -> Result<Secret, BackendError> {
        let Some(there) = self.place_of(name) else { return Err(BackendError::NotFound) };
        let read = vault.read(&there).await?;
        let values = match place {
            // Key Vault's names have no case, ours have.
            Place::Plain if read.name != there => return Err(BackendError::NotFound),
            Place::Plain => layout::plain_values(read.value),
            Place::Scoped(scope) if layout::name_in_scope(scope, &read.tags) != Some(name) => {
                return Err(BackendError::NotFound);
            }
            // expose: parsed into values that are wiped.
            Place::Scoped(_) => layout::manager_values(read.value.expose()).map_err(|what| self.spoilt(name, what))?,
        };
        Ok(Secret { description: of_one(name, read.version), values: self.bounded(name, values)? })
    }

    async fn describe_one(&self, vault: &Vault, name: String) -> Result<Option<Description>, BackendError> {
        let Some(there) = self.place_of(&name) else { return Ok(None) };
        let entry = vault.describe(&there).await?;
        Ok(entry.filter(|entry| self.name_of(entry) == Some(name.as_str())).map(|entry| of_one(&name, entry.version)))
    }

    /// Returns where the secret of this name lies, in the layouts that tell; `None` where Key Vault can hold no such name.
    pub(super) fn place_of(&self, name: &str) -> Option<String> {
        match self.layout() {
            Layout::Plain { prefix } => Some(format!("{prefix}{name}")).filter(|place| layout::is_place(place)),
            Layout::Manager(scope) => layout::manager_place(scope, name),
            Layout::Store => None,
        }
    }

    /// Returns the name of the secret that lies there, in the layouts with one secret of Key Vault each.
    fn name_of<'e>(&self, entry: &'e Entry) -> Option<&'e str> {
        match self.layout() {
            Layout::Plain { prefix } => entry.name.strip_prefix(prefix.as_str()).filter(|name| !name.is_empty()),
            Layout::Manager(scope) => {
                let name = layout::name_in_scope(scope, &entry.tags)?;
                let place = layout::manager_place(scope, name)?;
                place.eq_ignore_ascii_case(&entry.name).then_some(name)
            }
            Layout::Store => None,
        }
    }

    /// Returns the tags of all secrets, from a list that began at `oldest` or later: whoever asks at the same time shares
    /// one, and its failure too.
    async fn entries(&self, vault: &Vault, oldest: Instant) -> Result<Arc<[Entry]>, BackendError> {
        let asked = Instant::now();
        let mut listing = self.listing.lock().await;
        if let Some(listing) = &*listing
            // Yesterday's failure is nobody's answer.
            && listing.began >= if listing.result.is_ok() { oldest } else { asked }
        {
            return listing.result.clone();
        }
        let began = Instant::now();
        // Where names are tags, nothing can be found without a list.
        let needs_list = matches!(self.layout(), Layout::Store | Layout::Manager(ManagerScope::None));
        let result = vault.list().await.map(Arc::from);
        let result = if needs_list { result.map_err(BackendError::of_lists_alone) } else { result };
        *listing = Some(Listing { began, result: result.clone() });
        result
    }

    fn bounded(&self, name: &str, values: SecretValues) -> Result<SecretValues, BackendError> {
        let most = usize::try_from(self.max_value).unwrap_or(usize::MAX);
        let too_large = values.iter().find(|(_, value)| value.len() > most);
        let Some((key, length)) = too_large.map(|(key, value)| (key.to_owned(), value.len())) else {
            return Ok(values);
        };
        let what =
            format!("the value `{key}` of the secret `{name}` has {length} bytes, more than the limit of {most}");
        Err(self.place.unusable(&what, "raise `[limits] value`, or keep smaller values"))
    }

    fn spoilt(&self, name: &str, what: &str) -> BackendError {
        let hint = "ZenML did not write this value: write it anew with ZenML, or read the vault with layout `plain`";
        self.place.unusable(&format!("the secret `{name}` cannot be read: {what}"), hint)
    }
}

fn has_public(scopes: Scopes) -> bool {
    scopes.order().contains(&Scope::Public)
}

/// Returns the secrets of a secrets manager without a scope, each with its keys.
fn groups(entries: &[Entry]) -> BTreeMap<&str, BTreeMap<&str, &Entry>> {
    let mut groups: BTreeMap<&str, BTreeMap<&str, &Entry>> = BTreeMap::new();
    for entry in entries {
        if let Some((name, key)) = layout::group_key(&entry.tags) {
            groups.entry(name).or_default().insert(key, entry);
        }
    }
    groups
}

fn of_store(secret: StoreSecret, version: String) -> Description {
    let label = secret.scope_label();
    described(&secret.name, secret.scope, Some(label), Some(secret.id), version)
}

fn of_one(name: &str, version: String) -> Description {
    described(name, Scope::Public, None, None, version)
}

/// A key whose secret is disabled cannot be read: whether the keys are any good, only a read tells then.
fn of_group(name: &str, keys: &BTreeMap<&str, &Entry>) -> Description {
    let versions = keys.iter().map(|(key, entry)| (*key, entry.name.as_str(), entry.version.as_str()));
    let mut description = described(name, Scope::Public, None, None, group_version(versions));
    if keys.values().all(|entry| entry.enabled) {
        description.keys = Some(keys.keys().map(|key| (*key).to_owned()).collect());
    }
    description
}

fn described(
    name: &str,
    scope: Scope,
    scope_label: Option<super::super::ScopeLabel>,
    id: Option<String>,
    version: String,
) -> Description {
    Description { name: name.to_owned(), scope, scope_label, id, version, keys: None }
}

/// Returns a version of all keys together, given in byte order of the key. Each part ends with a byte that no name has.
fn group_version<'v>(parts: impl Iterator<Item = (&'v str, &'v str, &'v str)>) -> String {
    let mut hash = Sha256::new();
    for (key, place, version) in parts {
        for part in [key, place, version] {
            hash.update(part.as_bytes());
            hash.update([0xff]);
        }
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
