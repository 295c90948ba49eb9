//! ZenML's own server, asked over REST: 0.80 and later, and 0.43 with its workspaces.
//!
//! `session` logs in, once for a whole wave of refusals, and learns what the server is; `client` sends one request with
//! everything that holds for all of them; `error` turns replies into classes; `list` reads pages of names; `read` and
//! `write` are the calls. The shapes of the replies are [`crate::layout::zenml_rest`].

mod client;
mod error;
mod list;
mod read;
mod session;
mod stack;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use keyside_config::settings::{BackendSettings, ZenmlServerSettings};
use keyside_protocol::value::SecretValues;

use self::client::Client;
use self::list::Listings;
use super::own_writes::OwnWrites;
use super::{
    Backend, BackendError, Capabilities, Description, Opened, Scope, Scopes, Secret, Stack, Update, WriteBackend,
    WriteError,
};

/// One server of ZenML.
struct ZenmlServer {
    client: Client,
    max_value: u64,
    listings: Listings,
    own_writes: OwnWrites,
}

/// Opens the back-end that `settings` and `server` describe. Makes no call yet.
pub fn open(settings: &BackendSettings, server: &ZenmlServerSettings, max_value: u64) -> Result<Opened, BackendError> {
    let server = Arc::new(ZenmlServer {
        client: Client::new(settings, server, max_value)?,
        max_value,
        listings: Listings::new(settings.ttl),
        own_writes: OwnWrites::default(),
    });
    let writer = settings.writable.then(|| Arc::clone(&server) as Arc<dyn WriteBackend>);
    Ok(Opened { reader: server, writer, values: None })
}

#[async_trait]
impl Backend for ZenmlServer {
    fn capabilities(&self) -> Capabilities {
        // A list has no keys, and one request has every secret.
        Capabilities { keys_without_values: false, cheap_list: true }
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

    fn knows_stacks(&self) -> bool {
        true
    }

    async fn stack(&self, name: &str) -> Result<Stack, BackendError> {
        self.read_stack(name).await
    }

    async fn close(&self) {
        self.client.close();
    }
}

#[async_trait]
impl WriteBackend for ZenmlServer {
    async fn create(&self, name: &str, scope: Scope, values: SecretValues) -> Result<Description, WriteError> {
        self.create_secret(name, scope, values).await
    }

    async fn update(&self, name: &str, scope: Option<Scope>, update: Update) -> Result<Description, WriteError> {
        self.update_secret(name, scope, update).await
    }

    async fn delete(
        &self,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<Description, WriteError> {
        self.delete_secret(name, scope, if_version).await
    }
}
