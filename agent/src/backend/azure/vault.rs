//! One vault, by the official library: a value, the versions of one secret, the tags of all. Nothing is retried and
//! nothing is decided here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use azure_core::http::pager::{PagerContinuation, PagerOptions};
use azure_core::http::{ClientOptions, RetryOptions, Transport, Url};
use azure_security_keyvault_secrets::models::{
    ListSecretPropertiesResult, SecretAttributes, SecretClientListSecretPropertiesOptions,
    SecretClientListSecretPropertiesVersionsOptions, SecretProperties,
};
use azure_security_keyvault_secrets::{ResourceExt as _, SecretClient, SecretClientOptions};
use futures_util::TryStreamExt as _;
use keyside_config::settings::{AzureSettings, BackendSettings};
use keyside_protocol::value::SecretValue;
use tokio::sync::Semaphore;

use super::super::{BackendError, http};
use super::error::{Asked, Place};
use super::login::Login;
use super::source::{Identities, metadata_service};
use super::transport::{VaultTransport, lock, secure};
use crate::layout::azure::Tags;

/// What Key Vault gives at most at once.
const PAGE: i32 = 25;

/// No vault has more pages than this; a server that always has one more is not followed for ever.
const MOST_PAGES: usize = 8000;

/// A machine's own metadata service answers at once, or there is none.
const METADATA_PATIENCE: Duration = Duration::from_secs(1);

/// A vault.
pub(super) struct Vault {
    pub(super) place: Arc<Place>,
    /// As it is configured.
    origin: Url,
    client: SecretClient,
    /// Which version of a secret was the current one when it was last read: a list does not say.
    versions: Mutex<HashMap<String, Seen>>,
}

struct Seen {
    changed: Changed,
    version: String,
}

/// When a version was made and last changed, in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Changed {
    created: i64,
    updated: i64,
}

/// One secret with its value.
pub(super) struct Read {
    pub(super) value: SecretValue,
    pub(super) tags: Tags,
    /// The name as it was once written: Key Vault takes a name in upper and lower case for the same.
    pub(super) name: String,
    pub(super) version: String,
}

/// One secret without its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) tags: Tags,
    pub(super) version: String,
    pub(super) enabled: bool,
}

impl Vault {
    /// Makes a vault's client. Makes no call.
    ///
    /// Errors: `Identity`, where the proxy's address or the file of certificate authorities cannot be used.
    pub(super) fn new(
        settings: &BackendSettings,
        azure: &AzureSettings,
        place: &Arc<Place>,
        permits: &Arc<Semaphore>,
    ) -> Result<Self, BackendError> {
        let wrong = |key: &str| {
            place.identity(&format!("`{key}` is no address"), format!("look at [backend.{}]", settings.name))
        };
        let origin = Url::parse(&azure.vault_url).map_err(|_| wrong("vault_url"))?;
        let authority = azure.authority.as_deref().map(Url::parse).transpose().map_err(|_| wrong("authority"))?;
        let client = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| place.identity(&http::describe(&error), "look at `proxy` and `ca_file`"))
        };
        let outside = client(http::builder(settings)?)?;
        let inside = http::builder(settings)?.no_proxy().connect_timeout(METADATA_PATIENCE.min(settings.timeout));
        let identities = Identities {
            backend: settings.name.clone(),
            outside: outside.clone(),
            inside: client(inside)?,
            metadata: metadata_service(),
            authority,
        };
        let login = Arc::new(Login::new(Arc::clone(place), super::copy_of(&azure.login), identities));
        let endpoint = secure(&origin).ok_or_else(|| wrong("vault_url"))?;
        let options = SecretClientOptions {
            // A vault on this machine is called `localhost`, whatever the challenge names; nobody can stand in between.
            verify_challenge_resource: Some(!is_loopback(&origin)),
            client_options: ClientOptions {
                transport: Some(Transport::new(Arc::new(VaultTransport {
                    client: outside,
                    origin: origin.clone(),
                    permits: Arc::clone(permits),
                    pause: Arc::default(),
                    login: Arc::clone(&login),
                    place: Arc::clone(place),
                }))),
                retry: RetryOptions::none(),
                ..ClientOptions::default()
            },
            ..SecretClientOptions::default()
        };
        let client = SecretClient::new(endpoint.as_str(), login, Some(options)).map_err(|_| wrong("vault_url"))?;
        Ok(Self { place: Arc::clone(place), origin, client, versions: Mutex::default() })
    }

    /// Reads the current version of a secret.
    pub(super) async fn read(&self, name: &str) -> Result<Read, BackendError> {
        let meaning = |error: azure_core::Error| self.place.meaning(&error, Asked::Value(name));
        let secret = self.client.get_secret(name, None).await.map_err(meaning)?.into_model().map_err(meaning)?;
        let id = secret.resource_id().map_err(|_| self.place.malformed())?;
        let (Some(value), Some(version)) = (secret.value, id.version) else { return Err(self.place.malformed()) };
        let value = SecretValue::new(value.into_bytes());
        let seen = Seen { changed: changed(secret.attributes.as_ref()), version: version.clone() };
        lock(&self.versions).insert(id.name.to_ascii_lowercase(), seen);
        Ok(Read { value, tags: secret.tags.unwrap_or_default(), name: id.name, version })
    }

    /// Describes a secret by its versions; `None` when there is none.
    ///
    /// One page is enough: that there are versions says that the secret is there, and when it has more than one page of
    /// them, which is the newest is only known if none was made since it was last read.
    pub(super) async fn describe(&self, name: &str) -> Result<Option<Entry>, BackendError> {
        let meaning = |error: azure_core::Error| self.place.meaning(&error, Asked::Versions(name));
        let options = SecretClientListSecretPropertiesVersionsOptions { maxresults: Some(PAGE), ..Default::default() };
        let mut pages = self.client.list_secret_properties_versions(name, Some(options)).map_err(meaning)?.into_pages();
        let page = match pages.try_next().await {
            Ok(Some(page)) => page.into_model().map_err(meaning)?,
            Ok(None) => return Ok(None),
            Err(error) => match meaning(error) {
                BackendError::NotFound => return Ok(None),
                error => return Err(error),
            },
        };
        let newest = page.value.into_iter().max_by_key(|one| changed(one.attributes.as_ref()));
        newest.map(|newest| self.entry(newest)).transpose()
    }

    /// Describes every secret of the vault.
    pub(super) async fn list(&self) -> Result<Vec<Entry>, BackendError> {
        let meaning = |error: azure_core::Error| self.place.meaning(&error, Asked::All);
        let mut entries = Vec::new();
        let mut next: Option<Url> = None;
        for _ in 0..MOST_PAGES {
            let mut options = SecretClientListSecretPropertiesOptions { maxresults: Some(PAGE), ..Default::default() };
            options.method_options =
                PagerOptions { continuation: next.clone().map(PagerContinuation::Link), ..PagerOptions::default() };
            let mut pages = self.client.list_secret_properties(Some(options)).map_err(meaning)?.into_pages();
            let Some(page) = pages.try_next().await.map_err(meaning)? else { return Ok(entries) };
            let page: ListSecretPropertiesResult = page.into_model().map_err(meaning)?;
            for one in page.value {
                entries.push(self.entry(one)?);
            }
            let Some(link) = page.next_link.filter(|link| !link.is_empty()) else { return Ok(entries) };
            let link = self.own_link(&link).filter(|link| next.as_ref() != Some(link));
            next = Some(link.ok_or_else(|| self.place.malformed())?);
        }
        Err(self.place.malformed())
    }

    /// Returns the link to the next page as one to our own vault: of the server's only the query counts.
    fn own_link(&self, link: &str) -> Option<Url> {
        let theirs = self.origin.join(link).ok()?;
        let mut ours = secure(&self.origin)?;
        ours.set_path("/secrets");
        ours.set_query(theirs.query());
        Some(ours)
    }

    fn entry(&self, one: SecretProperties) -> Result<Entry, BackendError> {
        let id = one.resource_id().map_err(|_| self.place.malformed())?;
        let changed = changed(one.attributes.as_ref());
        let version = id.version.unwrap_or_else(|| {
            let seen = lock(&self.versions);
            let known = seen.get(&id.name.to_ascii_lowercase()).filter(|seen| seen.changed == changed);
            // Unlike any version of Key Vault's own: who compares finds a change, and reads.
            known.map_or_else(|| format!("at {} {}", changed.created, changed.updated), |seen| seen.version.clone())
        });
        let enabled = one.attributes.and_then(|attributes| attributes.enabled).unwrap_or(true);
        Ok(Entry { name: id.name, tags: one.tags.unwrap_or_default(), version, enabled })
    }
}

fn changed(attributes: Option<&SecretAttributes>) -> Changed {
    let seconds = |time: Option<azure_core::time::OffsetDateTime>| {
        time.map_or(0, azure_core::time::OffsetDateTime::unix_timestamp)
    };
    let (created, updated) = attributes.map_or((None, None), |attributes| (attributes.created, attributes.updated));
    Changed { created: seconds(created), updated: seconds(updated) }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
