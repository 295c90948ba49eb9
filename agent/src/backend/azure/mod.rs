//! Azure Key Vault, by Microsoft's own client: read as ZenML's store and its secrets managers wrote it, and as others
//! fill it.
//!
//! `source` gets tokens from an identity, `login` keeps them; `transport` carries what the library sends; `vault` asks;
//! `error` says what an error means; `read` finds secrets in the layouts of [`crate::layout::azure`].

mod error;
mod login;
mod read;
mod source;
#[cfg(test)]
mod tests;
mod transport;
mod vault;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use keyside_config::settings::{AzureLogin, AzureSettings, BackendSettings, Layout, ManagerScope};
use keyside_protocol::value::SecretValues;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::error::Place;
use self::transport::lock;
use self::vault::{Entry, Vault};
use super::names_elsewhere::NamesElsewhere;
use super::{Backend, BackendError, Capabilities, Description, Kept, Opened, Scopes, Secret, ValueStore};

/// One vault in one layout.
struct Azure {
    /// What is needed to make the client, which is made with the first call.
    settings: BackendSettings,
    place: Arc<Place>,
    permits: Arc<Semaphore>,
    vault: Mutex<Option<Arc<Vault>>>,
    listing: tokio::sync::Mutex<Option<Listing>>,
    names_elsewhere: NamesElsewhere,
    max_value: u64,
}

/// The tags of all secrets, or why they could not be had.
struct Listing {
    began: Instant,
    result: Result<Arc<[Entry]>, BackendError>,
}

/// Opens the back-end that `settings` and `azure` describe. Makes no call yet, and no client.
///
/// Errors: `Identity`, when it is to be written.
pub fn open(settings: &BackendSettings, azure: &AzureSettings, max_value: u64) -> Result<Opened, BackendError> {
    let place = Arc::new(Place { backend: settings.name.clone(), vault: azure.vault_url.clone() });
    if settings.writable {
        let hint = format!(
            "take `writable` out of [backend.{}]; write with ZenML, or `az keyvault secret set`",
            settings.name
        );
        return Err(place.identity("Key Vault can only be read in this version", hint));
    }
    let holds_values = azure.layout == Layout::Store;
    let azure = Arc::new(Azure {
        permits: Arc::new(Semaphore::new(settings.parallelism)),
        settings: copy_of_settings(settings, azure),
        place,
        vault: Mutex::default(),
        listing: tokio::sync::Mutex::default(),
        names_elsewhere: NamesElsewhere::default(),
        max_value,
    });
    let values = holds_values.then(|| Arc::clone(&azure) as Arc<dyn ValueStore>);
    Ok(Opened { reader: azure, writer: None, values })
}

impl Azure {
    fn azure(&self) -> &AzureSettings {
        match &self.settings.kind {
            keyside_config::settings::BackendKind::Azure(azure) => azure,
            _ => unreachable!("made by `open`, of Azure's settings"),
        }
    }

    fn layout(&self) -> &Layout {
        &self.azure().layout
    }

    /// Returns the vault, whose client is made with the first call: it costs a few milliseconds.
    fn vault(&self) -> Result<Arc<Vault>, BackendError> {
        let mut vault = lock(&self.vault);
        match &*vault {
            Some(vault) => Ok(Arc::clone(vault)),
            None => {
                let made = Arc::new(Vault::new(&self.settings, self.azure(), &self.place, &self.permits)?);
                Ok(Arc::clone(vault.insert(made)))
            }
        }
    }
}

#[async_trait]
impl Backend for Azure {
    fn capabilities(&self) -> Capabilities {
        // A secrets manager without a scope has each key in a secret of its own, with its name in a tag.
        let keys_without_values = matches!(self.layout(), Layout::Manager(ManagerScope::None));
        // A page has 25 secrets, and each is a call that Azure charges for.
        Capabilities { keys_without_values, cheap_list: false }
    }

    async fn fetch(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        self.read_secret(name, scopes).await
    }

    async fn describe(&self, names: &[&str], scopes: Scopes) -> Result<Vec<Option<Description>>, BackendError> {
        self.describe_secrets(names, scopes).await
    }

    async fn list(&self) -> Result<Vec<Description>, BackendError> {
        self.list_secrets().await
    }

    fn cannot_hold(&self, name: &str) -> Option<&'static str> {
        // The others have the name in a tag, which holds anything.
        let is_in_place = matches!(self.layout(), Layout::Plain { .. });
        (is_in_place && self.place_of(name).is_none())
            .then_some("Key Vault takes letters, digits and `-` alone, 127 characters at most")
    }

    async fn close(&self) {
        self.permits.close();
    }
}

#[async_trait]
impl ValueStore for Azure {
    async fn values_of(&self, id: &str, deployment: &str) -> Result<Kept, BackendError> {
        self.read_values(id, deployment).await.map(|(values, version): (SecretValues, String)| Kept { values, version })
    }

    async fn close(&self) {
        self.permits.close();
    }
}

/// The back-end outlives the settings that it was opened with.
fn copy_of_settings(settings: &BackendSettings, azure: &AzureSettings) -> BackendSettings {
    BackendSettings {
        name: settings.name.clone(),
        kind: keyside_config::settings::BackendKind::Azure(AzureSettings {
            vault_url: azure.vault_url.clone(),
            login: copy_of(&azure.login),
            authority: azure.authority.clone(),
            layout: azure.layout.clone(),
        }),
        required: settings.required,
        parallelism: settings.parallelism,
        timeout: settings.timeout,
        ttl: settings.ttl,
        writable: settings.writable,
        denied_means_absent: settings.denied_means_absent,
        network: settings.network.clone(),
    }
}

fn copy_of(login: &AzureLogin) -> AzureLogin {
    match login {
        AzureLogin::Default { client_id, tenant_id } => {
            AzureLogin::Default { client_id: client_id.clone(), tenant_id: tenant_id.clone() }
        }
        AzureLogin::ServicePrincipal { client_id, tenant_id, client_secret } => AzureLogin::ServicePrincipal {
            client_id: client_id.clone(),
            tenant_id: tenant_id.clone(),
            client_secret: client_secret.copy(),
        },
        AzureLogin::Token(token) => AzureLogin::Token(token.copy()),
    }
}
