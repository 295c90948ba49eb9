//! Google Cloud's Secret Manager, read only.
//!
//! `login` finds credentials, `api` makes the calls, `error` says what a refusal means; here names become ids and back.
//! How secrets lie there is [`crate::layout::gcp`].

mod api;
mod crc32c;
mod error;
mod login;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::{try_join, try_join_all};
use google_cloud_secretmanager_v1::model;
use keyside_config::settings::{BackendSettings, GcpSettings, Layout, ManagerScope};
use keyside_protocol::value::{SecretValue, SecretValues};

use self::api::{Api, Payload, id_of};
use super::names_elsewhere::NamesElsewhere;
use super::{
    Backend, BackendError, Capabilities, Description, Kept, Opened, Scope, Scopes, Secret, ValueStore, fingerprint,
};
use crate::layout::gcp::{self, Named, Scoped};

/// Names up to this many are asked for one by one; for more, one list is cheaper.
const FEW: usize = 4;

/// One project.
struct Gcp {
    api: Api,
    place: Place,
    max_value: u64,
    /// Whether it was said already that ZenML keeps names elsewhere.
    names_elsewhere: NamesElsewhere,
}

/// A layout with what its settings mean here.
enum Place {
    Store,
    Unscoped,
    Scoped(Scoped),
    Plain { prefix: String },
}

/// Opens the back-end that `settings` and `project` describe. Makes no call yet, and does not log in.
///
/// Errors: `Identity`, when a setting cannot work here; so for `writable`: Keyside writes nothing in clouds.
pub fn open(settings: &BackendSettings, project: &GcpSettings, max_value: u64) -> Result<Opened, BackendError> {
    let api = Api::new(settings, project)?;
    if settings.writable {
        return Err(api
            .words
            .identity("a back-end of type \"gcp\" is only read", "leave `writable` out, and write with ZenML"));
    }
    let place = match &project.layout {
        Layout::Store => Place::Store,
        Layout::Plain { prefix } if prefix.is_empty() || gcp::is_id(prefix) => Place::Plain { prefix: prefix.clone() },
        Layout::Plain { .. } => {
            return Err(api
                .words
                .identity("no id begins with this `prefix`", "letters, digits, `_` and `-` can stand there"));
        }
        Layout::Manager(scope) => match Scoped::new(scope) {
            Ok(Some(scoped)) => Place::Scoped(scoped),
            Ok(None) => Place::Unscoped,
            Err(hint) => {
                let key = if matches!(scope, ManagerScope::Component(_)) { "component" } else { "namespace" };
                return Err(api.words.identity(&format!("no secrets manager has this `{key}`"), hint));
            }
        },
    };
    let gcp = Arc::new(Gcp { api, place, max_value, names_elsewhere: NamesElsewhere::default() });
    let values = matches!(gcp.place, Place::Store).then(|| Arc::clone(&gcp) as Arc<dyn ValueStore>);
    Ok(Opened { reader: gcp, writer: None, values })
}

/// One of Google's secrets: its id, and the key that it holds the value of where it does not hold a whole secret.
type Part = (String, Option<String>);

/// A secret as a list shows it.
struct Found {
    description: Description,
    /// At least one; several only where each holds one key, or where it is not known which of them is meant.
    parts: Vec<Part>,
    named: Option<Named>,
}

impl Gcp {
    /// Reads payloads and makes one secret of them.
    async fn read(&self, found: Found) -> Result<Secret, BackendError> {
        let payloads = try_join_all(found.parts.iter().map(|part| self.access(part))).await?;
        let mut parts: Vec<_> = found.parts.into_iter().zip(payloads).collect();
        parts.sort_unstable_by(|((left, _), _), ((right, _), _)| left.cmp(right));
        let version = version_of(parts.iter().map(|((id, _), payload)| (id.as_str(), payload)));
        let values = match parts.as_slice() {
            [((id, None), payload)] => self.decode(id, payload)?,
            _ => parts.into_iter().map(|((_, key), payload)| (key.unwrap_or_default(), payload.data)).collect(),
        };
        self.check_sizes(&found.description.name, &values)?;
        Ok(Secret { description: Description { version, keys: None, ..found.description }, values })
    }

    async fn access(&self, (id, key): &Part) -> Result<Payload, BackendError> {
        match self.api.access(id).await {
            // The others say that the secret is there.
            Err(BackendError::NotFound) if key.is_some() => {
                Err(self.api.words.unusable(id, "it has no value, or has none any more", "write the secret again"))
            }
            result => result,
        }
    }

    fn decode(&self, id: &str, payload: &Payload) -> Result<SecretValues, BackendError> {
        // expose: read into other wiped values.
        let bytes = payload.data.expose();
        let values = match self.place {
            Place::Store => gcp::stored(bytes),
            Place::Scoped(_) | Place::Unscoped => gcp::managed(bytes),
            Place::Plain { .. } => Ok(gcp::anything(bytes)),
        };
        values.map_err(|error| {
            let what = format!("its payload is {error}");
            self.api.words.unusable(id, &what, "write it again, with ZenML, or correct `layout`")
        })
    }

    fn check_sizes(&self, name: &str, values: &SecretValues) -> Result<(), BackendError> {
        let is_too_large = |value: &SecretValue| u64::try_from(value.len()).is_ok_and(|size| size > self.max_value);
        match values.iter().find(|(_, value)| is_too_large(value)) {
            Some((key, _)) => {
                let what = format!("the value of key `{key}` has more than {} bytes", self.max_value);
                Err(self.api.words.unusable(name, &what, "raise `[limits] value`"))
            }
            None => Ok(()),
        }
    }

    /// Groups what a list shows into secrets; what does not belong here is left out.
    fn group(&self, listed: &[model::Secret]) -> Vec<Found> {
        let mut groups: BTreeMap<&str, Found> = BTreeMap::new();
        let mut found = Vec::new();
        for secret in listed {
            let Some(id) = id_of(secret) else { continue };
            let whole = |name: &str| Found {
                description: describe(name, secret),
                parts: vec![(id.to_owned(), None)],
                named: None,
            };
            match &self.place {
                Place::Plain { prefix } => found.extend(gcp::plain_name(prefix, id).map(whole)),
                Place::Scoped(scoped) => found.extend(scoped.name_of(id, &secret.labels).map(whole)),
                Place::Store => found.extend(gcp::named(&secret.labels).map(|named| {
                    let Found { mut description, parts, .. } = whole(&named.name);
                    description.scope = named.scope;
                    description.scope_label = Some(named.scope_label);
                    description.id = Some(named.id.clone());
                    Found { description, parts, named: Some(named) }
                })),
                Place::Unscoped => {
                    let Some((name, key)) = gcp::group_and_key(id, &secret.labels) else { continue };
                    let group = groups.entry(name).or_insert_with(|| Found { parts: Vec::new(), ..whole(name) });
                    group.parts.push((id.to_owned(), Some(key.to_owned())));
                    group.description.keys.get_or_insert_default().push(key.to_owned());
                }
            }
        }
        for mut group in groups.into_values() {
            group.description.keys.get_or_insert_default().sort_unstable();
            found.push(group);
        }
        one_of_each(found)
    }

    /// Fails where it is not known which of several is meant.
    fn unambiguous(&self, found: Found) -> Result<Found, BackendError> {
        if found.named.is_none() || found.parts.len() == 1 {
            return Ok(found);
        }
        Err(self.api.words.unusable(
            &found.description.name,
            "several workspaces or deployments of ZenML have one of this name in this project",
            "rename all but one, or read by way of ZenML's server or its tables",
        ))
    }

    /// Returns the filter for everything here.
    fn filter(&self) -> String {
        match &self.place {
            // Nameless ones too, to be able to say so; there is no cheaper question that tells.
            Place::Store => "labels.zenml:*".to_owned(),
            Place::Unscoped => gcp::group_filter(None).unwrap_or_default(),
            Place::Scoped(scoped) => scoped.filter(),
            Place::Plain { prefix } => gcp::plain_filter(prefix),
        }
    }

    /// Lists what a filter lets through. Where names are labels, nothing can be found without it.
    async fn listed(&self, filter: &str) -> Result<Vec<model::Secret>, BackendError> {
        let listed = self.api.list(filter).await;
        if matches!(self.place, Place::Store | Place::Unscoped) {
            return listed.map_err(BackendError::of_lists_alone);
        }
        listed
    }

    async fn list_all(&self) -> Result<Vec<model::Secret>, BackendError> {
        let listed = self.listed(&self.filter()).await?;
        if matches!(self.place, Place::Store) {
            let nameless = listed.iter().filter(|secret| gcp::is_nameless(&secret.labels)).count();
            self.names_elsewhere.tell(&self.api.words.backend, nameless);
        }
        Ok(listed)
    }

    /// Looks for a name that labels tell, in the first wanted scope that has it.
    async fn find(&self, name: &str, scopes: Scopes) -> Result<Option<Found>, BackendError> {
        let filter = match self.place {
            Place::Store => gcp::store_filter(Some(name)),
            _ => gcp::group_filter(Some(name)),
        };
        // A name that no label can be is nobody's.
        let Some(filter) = filter else { return Ok(None) };
        let mut found = self.group(&self.listed(&filter).await?);
        found.retain(|found| found.description.name == name);
        let place = |scope: &Scope| found.iter().position(|found| found.description.scope == *scope);
        let place = scopes.order().iter().find_map(place);
        Ok(place.map(|place| found.swap_remove(place)))
    }

    /// Describes one secret whose name tells its id.
    async fn describe_one(&self, name: &str) -> Result<Option<Description>, BackendError> {
        let Some(id) = self.id_of(name) else { return Ok(None) };
        match self.api.get(&id).await {
            Ok(secret) => Ok(self.is_own(&id, name, &secret).then(|| describe(name, &secret))),
            Err(BackendError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the id of the secret with a name, where the name tells it.
    fn id_of(&self, name: &str) -> Option<String> {
        match &self.place {
            Place::Plain { prefix } => gcp::plain_id(prefix, name),
            Place::Scoped(scoped) => scoped.id_of(name),
            Place::Store | Place::Unscoped => None,
        }
    }

    fn is_own(&self, id: &str, name: &str, secret: &model::Secret) -> bool {
        match &self.place {
            Place::Scoped(scoped) => scoped.name_of(id, &secret.labels) == Some(name),
            _ => true,
        }
    }

    async fn describe_each(&self, names: &[&str]) -> Result<Vec<Option<Description>>, BackendError> {
        try_join_all(names.iter().map(|name| self.describe_one(name))).await
    }

    async fn describe_all(&self, names: &[&str], scopes: Scopes) -> Result<Vec<Option<Description>>, BackendError> {
        let found = self.list().await?;
        let mut by_name: HashMap<(&str, Scope), &Description> = HashMap::with_capacity(found.len());
        by_name.extend(found.iter().map(|one| ((one.name.as_str(), one.scope), one)));
        let pick =
            |name: &&str| scopes.order().iter().find_map(|scope| by_name.get(&(*name, *scope)).copied().cloned());
        Ok(names.iter().map(pick).collect())
    }
}

/// Keeps one secret of each name and scope: the one made first, as ZenML does. Those of other workspaces and deployments
/// are no less meant; they stay as parts of it.
fn one_of_each(mut found: Vec<Found>) -> Vec<Found> {
    fn home(found: &Found) -> Option<&[Option<String>; 2]> {
        found.named.as_ref().map(|named| &named.home)
    }
    found.sort_by_cached_key(|found| {
        let created = found.named.as_ref().map(|named| named.created.clone());
        let is_public = found.description.scope == Scope::Public;
        (found.description.name.clone(), is_public, created, found.parts[0].0.clone())
    });
    let mut kept: Vec<Found> = Vec::with_capacity(found.len());
    for one in found {
        let last = kept.last_mut().filter(|last| {
            last.description.name == one.description.name && last.description.scope == one.description.scope
        });
        match last {
            Some(last) if home(last) != home(&one) => last.parts.extend(one.parts),
            Some(_) => {}
            None => kept.push(one),
        }
    }
    kept
}

/// Returns what a secret itself says; its version is not that of a fetch, which the place tells only with the payload.
fn describe(name: &str, secret: &model::Secret) -> Description {
    Description {
        name: name.to_owned(),
        scope: Scope::Public,
        scope_label: None,
        id: None,
        version: secret.etag.trim_matches('"').to_owned(),
        keys: None,
    }
}

/// Returns a text that changes whenever a payload does: the numbers of Google's versions begin anew when a secret is made
/// again under the same id.
fn version_of<'a>(parts: impl Iterator<Item = (&'a str, &'a Payload)>) -> String {
    fingerprint::of(|take| {
        for (id, payload) in parts {
            for piece in [id, &payload.number] {
                take(piece.as_bytes());
                take(b"\0");
            }
            take(&payload.data.len().to_le_bytes());
            // expose: into a keyed hash.
            take(payload.data.expose());
        }
    })
}

#[async_trait]
impl Backend for Gcp {
    fn capabilities(&self) -> Capabilities {
        Capabilities { keys_without_values: matches!(self.place, Place::Unscoped), cheap_list: false }
    }

    fn cannot_hold(&self, name: &str) -> Option<&'static str> {
        match &self.place {
            Place::Plain { .. } => self
                .id_of(name)
                .is_none()
                .then_some("Google takes letters, digits, `-` and `_` alone, 255 characters at most"),
            Place::Scoped(_) | Place::Store | Place::Unscoped => gcp::group_filter(Some(name)).is_none().then_some(
                "ZenML keeps it in a label, and Google's take lower case letters, digits, `-` and `_` alone, 63 at most",
            ),
        }
    }

    async fn fetch(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        if matches!(self.place, Place::Store | Place::Unscoped) {
            let found = self.find(name, scopes).await?.ok_or(BackendError::NotFound)?;
            return self.read(self.unambiguous(found)?).await;
        }
        let id = self.id_of(name).filter(|_| scopes.order().contains(&Scope::Public)).ok_or(BackendError::NotFound)?;
        if let Place::Plain { .. } = self.place {
            let description = describe(name, &model::Secret::default());
            return self.read(Found { description, parts: vec![(id, None)], named: None }).await;
        }
        // Ids of two name spaces can be the same; the labels cannot, and nothing is read before they are known.
        let description = self.describe_one(name).await?.ok_or(BackendError::NotFound)?;
        self.read(Found { description, parts: vec![(id, None)], named: None }).await
    }

    async fn describe(&self, names: &[&str], scopes: Scopes) -> Result<Vec<Option<Description>>, BackendError> {
        match (&self.place, names) {
            (_, []) => Ok(Vec::new()),
            (Place::Store | Place::Unscoped, [name]) => {
                Ok(vec![self.find(name, scopes).await?.map(|found| found.description)])
            }
            (Place::Store | Place::Unscoped, _) => self.describe_all(names, scopes).await,
            _ if !scopes.order().contains(&Scope::Public) => Ok(vec![None; names.len()]),
            _ if names.len() <= FEW => self.describe_each(names).await,
            _ => match self.describe_all(names, scopes).await {
                // Who may look at single secrets need not be allowed to list.
                Err(BackendError::Identity { .. } | BackendError::Unlisted { .. }) => self.describe_each(names).await,
                result => result,
            },
        }
    }

    async fn list(&self) -> Result<Vec<Description>, BackendError> {
        let listed = self.list_all().await?;
        Ok(self.group(&listed).into_iter().map(|found| found.description).collect())
    }

    async fn close(&self) {
        self.api.close();
    }
}

#[async_trait]
impl ValueStore for Gcp {
    async fn values_of(&self, id: &str, deployment: &str) -> Result<Kept, BackendError> {
        let id_there = gcp::stored_id(id).ok_or(BackendError::NotFound)?;
        let (secret, payload) = try_join(self.api.get(&id_there), self.api.access(&id_there)).await?;
        if !gcp::belongs_to(&secret.labels, deployment, id) {
            return Err(BackendError::NotFound);
        }
        let values = self.decode(&id_there, &payload)?;
        self.check_sizes(&id_there, &values)?;
        Ok(Kept { values, version: version_of([(id_there.as_str(), &payload)].into_iter()) })
    }

    async fn close(&self) {
        self.api.close();
    }
}
