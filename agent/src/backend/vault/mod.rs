//! HashiCorp Vault and OpenBao: the key-value engine, over HTTP.
//!
//! `api` sends requests with the token of `login`, whose life `token` counts; `aws_login` makes one kind of login;
//! `error` tells the server's troubles apart; `kv` asks one mount; `named` and `store` are the layouts. How secrets lie
//! there is [`crate::layout::vault`].

mod api;
mod aws_login;
mod error;
mod kv;
mod login;
mod named;
mod store;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use async_trait::async_trait;
use keyside_config::settings::{BackendSettings, Layout, VaultSettings};
use keyside_protocol::value::SecretValues;

use self::api::Api;
use self::kv::Kv;
use self::named::Named;
use self::store::Store;
use super::{Backend, BackendError, Capabilities, Description, Kept, Opened, Scope, Scopes, Secret, ValueStore};
use crate::layout::vault as layout;

/// One server.
struct Vault {
    api: Arc<Api>,
    secrets: Secrets,
}

enum Secrets {
    Named(Named),
    Store(Store),
}

/// What calls are bound to.
#[derive(Clone, Copy)]
struct Limits {
    max_value: u64,
    parallelism: usize,
}

/// Opens the back-end that `settings` and `vault` describe. Makes no call yet.
pub fn open(settings: &BackendSettings, vault: &VaultSettings, max_value: u64) -> Result<Opened, BackendError> {
    let api = Arc::new(Api::new(settings, vault, max_value)?);
    let limits = Limits { max_value, parallelism: settings.parallelism.max(1) };
    let kv = |mount: &str| Kv::new(Arc::clone(&api), mount, vault.kv);
    if settings.writable {
        return Err(api.words.identity(
            "it cannot be written: this version only reads Vault",
            &format!("remove `writable` from [backend.{}], and write with ZenML or `vault kv put`", settings.name),
        ));
    }
    let secrets = match &vault.layout {
        Layout::Store => {
            let also = (vault.mount != layout::STORE_MOUNT_TO_0_80).then(|| kv(layout::STORE_MOUNT_TO_0_80));
            Secrets::Store(Store::new([kv(&vault.mount)].into_iter().chain(also).collect(), limits))
        }
        other => {
            let folder = layout::folder(other).ok_or_else(|| {
                let hint = format!("look at `prefix`, `scope_namespace` or `component` in [backend.{}]", settings.name);
                api.words.identity("its folder is no path of Vault's", &hint)
            })?;
            Secrets::Named(Named { kv: kv(&vault.mount), layout: other.clone(), folder, limits })
        }
    };
    let vault = Arc::new(Vault { api, secrets });
    let is_store = matches!(vault.secrets, Secrets::Store(_));
    let values = is_store.then(|| Arc::clone(&vault) as Arc<dyn ValueStore>);
    Ok(Opened { reader: vault, writer: None, values })
}

/// What is there and cannot be served.
fn unusable(backend: &str, name: &str, what: &str) -> BackendError {
    BackendError::Unusable {
        what: format!("secret `{name}` in back-end `{backend}` cannot be read: {what}"),
        hint: Some("ZenML writes texts alone: write it again, or read it with layout = \"plain\"".to_owned()),
    }
}

/// Refuses a secret with a value over the limit.
fn check_sizes(backend: &str, name: &str, values: &SecretValues, max_value: u64) -> Result<(), BackendError> {
    let is_over = |length: usize| u64::try_from(length).is_ok_and(|length| length > max_value);
    match values.iter().find(|(_, value)| is_over(value.len())) {
        None => Ok(()),
        Some((key, value)) => Err(BackendError::Unusable {
            what: format!(
                "secret `{name}` in back-end `{backend}`: the value of key `{key}` is {} bytes, {max_value} are allowed",
                value.len()
            ),
            hint: Some("raise `[limits] value`".to_owned()),
        }),
    }
}

#[async_trait]
impl Backend for Vault {
    fn cannot_hold(&self, name: &str) -> Option<&'static str> {
        let Secrets::Named(Named { layout, .. }) = &self.secrets else { return None };
        layout::pieces_of(layout, name).is_none().then_some(match layout {
            Layout::Manager(_) => "ZenML's secrets manager takes letters, digits and `_+=.@-` alone",
            _ => "it is no path: between two `/` there is something, and neither `.` nor `..`",
        })
    }

    fn capabilities(&self) -> Capabilities {
        let keys_without_values = match &self.secrets {
            Secrets::Named(named) => named.kv.is_versioned(),
            // The names stand inside the secrets, and the keys beside them.
            Secrets::Store(_) => true,
        };
        Capabilities { keys_without_values, cheap_list: false }
    }

    async fn fetch(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        match &self.secrets {
            Secrets::Store(store) => store.fetch(name, scopes).await,
            // No scopes, so everything lies in the public one.
            Secrets::Named(named) if scopes.order().contains(&Scope::Public) => named.fetch(name).await,
            Secrets::Named(_) => Err(BackendError::NotFound),
        }
    }

    async fn describe(&self, names: &[&str], scopes: Scopes) -> Result<Vec<Option<Description>>, BackendError> {
        match &self.secrets {
            Secrets::Store(store) => store.describe(names, scopes).await,
            Secrets::Named(named) if scopes.order().contains(&Scope::Public) => named.describe(names).await,
            Secrets::Named(_) => Ok(vec![None; names.len()]),
        }
    }

    async fn list(&self) -> Result<Vec<Description>, BackendError> {
        match &self.secrets {
            Secrets::Store(store) => store.list().await,
            Secrets::Named(named) => named.list().await,
        }
    }

    async fn close(&self) {
        self.api.close();
    }
}

#[async_trait]
impl ValueStore for Vault {
    async fn values_of(&self, id: &str, deployment: &str) -> Result<Kept, BackendError> {
        match &self.secrets {
            Secrets::Store(store) => store.values_of(id, deployment).await,
            Secrets::Named(_) => Err(BackendError::NotFound),
        }
    }

    async fn close(&self) {
        self.api.close();
    }
}
