//! Writing as ZenML's own client does. The server merges values by itself; a version is compared just before.

use keyside_protocol::json::SecretBuffer;
use keyside_protocol::name::{check_key, check_name};
use keyside_protocol::value::{SecretValue, SecretValues};
use reqwest::{Method, StatusCode};

use super::super::http::{Reply, encoded};
use super::super::{BackendError, Description, Scope, Scopes, Update, WriteError};
use super::ZenmlServer;
use super::client::Request;
use super::error::{Doing, is_own_404};
use super::list::{choose, description, version};
use super::read::{IN_DOUBT, Look};
use super::session::{Server, Session};
use crate::layout::zenml_rest::{Change, Item, Ownership, Place, Values, write};

impl ZenmlServer {
    pub(super) async fn create_secret(
        &self,
        name: &str,
        scope: Scope,
        values: SecretValues,
    ) -> Result<Description, WriteError> {
        valid_name(name)?;
        for (key, value) in values.iter() {
            valid_key(key)?;
            self.check_size(key, value)?;
        }
        let session = self.client.session().await?;
        let workspace = session.server.workspace.as_ref();
        let change = Change {
            name: Some(name),
            place: Some(place(&session.server, scope)),
            ownership: workspace.map(|workspace| Ownership { user: &workspace.user, workspace: &workspace.id }),
        };
        let body = body(&change, values.iter().map(|(key, value)| (key, Some(value))))?;
        let target = match workspace {
            Some(workspace) => format!("/workspaces/{}/secrets", encoded(&workspace.id)),
            None => "/secrets".to_owned(),
        };
        let reply = self.client.ask(&session, &Request::json(Method::POST, target, body)).await?;
        self.written(name, scope, &reply)
    }

    pub(super) async fn update_secret(
        &self,
        name: &str,
        scope: Option<Scope>,
        update: Update,
    ) -> Result<Description, WriteError> {
        if let Some(name) = &update.rename {
            valid_name(name)?;
        }
        let mut removed = Vec::new();
        for (key, value) in &update.values {
            match value {
                Some(value) => {
                    valid_key(key)?;
                    self.check_size(key, value)?;
                }
                None => removed.push(key.as_str()),
            }
        }
        let session = self.client.session().await?;
        let item = self.find(&session, name, scope, update.if_version.as_deref()).await?;
        if let Some(key) = self.first_absent(&session, &item, &removed).await? {
            return Err(WriteError::KeyNotFound(key));
        }
        let change = Change {
            // Always said, as ZenML's client does.
            name: Some(update.rename.as_deref().unwrap_or(name)),
            // Only its owner may say it, even when nothing changes.
            place: update.scope.map(|scope| place(&session.server, scope)).filter(|place| *place != item.place),
            ownership: None,
        };
        let body = body(&change, update.values.iter().map(|(key, value)| (key.as_str(), value.as_ref())))?;
        let target = format!("/secrets/{}?patch_values=True", item.id);
        let reply = self.client.ask(&session, &Request::json(Method::PUT, target, body)).await?;
        let scope = update.scope.unwrap_or_else(|| description(&item).scope);
        self.written(update.rename.as_deref().unwrap_or(name), scope, &reply)
    }

    pub(super) async fn delete_secret(
        &self,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<Description, WriteError> {
        let session = self.client.session().await?;
        let item = self.find(&session, name, scope, if_version).await?;
        let reply = self.client.ask(&session, &Request::delete(format!("/secrets/{}", item.id))).await?;
        // expose: `null`, or whatever somebody in between has said in ZenML's place.
        match reply.body.expose() {
            _ if !reply.status.is_success() => Err(self.write_refusal(name, None, &reply)),
            b"null" | b"" => Ok(description(&item)),
            _ => Err(self.client.place.malformed().into()),
        }
    }

    /// The one secret that a write means.
    async fn find(
        &self,
        session: &Session,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<Item, WriteError> {
        let items = self.named(session, name).await?;
        let scopes = match scope {
            Some(Scope::Private) => Scopes::PrivateOnly,
            Some(Scope::Public) => Scopes::PublicOnly,
            None => Scopes::PrivateFirst,
        };
        let item = choose(&items, name, scopes).ok_or(BackendError::NotFound)?;
        if scope.is_none() && items.iter().any(|other| other.place != item.place) {
            let words =
                if session.server.workspace.is_some() { "user and a workspace" } else { "private and a public" };
            return Err(WriteError::Ambiguous {
                what: format!("there is a {words} secret `{name}` in back-end `{}`", self.client.place.backend),
            });
        }
        // What a reader saw while the change was young is the same change.
        if if_version.is_some_and(|wanted| wanted.trim_end_matches(IN_DOUBT) != version(item)) {
            return Err(WriteError::VersionMismatch);
        }
        Ok(item.clone())
    }

    /// Returns the first key that is to be removed and is not there. The server would take no notice.
    async fn first_absent(
        &self,
        session: &Session,
        item: &Item,
        removed: &[&str],
    ) -> Result<Option<String>, WriteError> {
        if removed.is_empty() {
            return Ok(None);
        }
        match self.look(session, &item.id).await? {
            Look::There(_, Values::Readable(values), _) => {
                Ok(removed.iter().find(|key| values.get(key).is_none()).map(|key| (*key).to_owned()))
            }
            Look::There(_, Values::NotPermitted, _) => Err(self.client.place.values_withheld(&item.name).into()),
            Look::Nothing => Err(BackendError::NotFound.into()),
        }
    }

    /// Reads the answer to a write.
    fn written(&self, name: &str, scope: Scope, reply: &Reply) -> Result<Description, WriteError> {
        if !reply.status.is_success() {
            return Err(self.write_refusal(name, Some(scope), reply));
        }
        let (item, values) = self.read_reply(reply)?;
        self.own_writes.remember(version(&item));
        let keys = match &values {
            Values::Readable(values) => Some(values.keys().map(str::to_owned).collect()),
            Values::NotPermitted => None,
        };
        Ok(Description { keys, ..description(&item) })
    }

    fn write_refusal(&self, name: &str, scope: Option<Scope>, reply: &Reply) -> WriteError {
        let place = &self.client.place;
        match reply.status {
            StatusCode::CONFLICT => {
                let scope = match scope {
                    Some(Scope::Private) => "private",
                    _ => "public",
                };
                WriteError::Exists(format!("a {scope} secret `{name}` is there already"))
            }
            StatusCode::NOT_FOUND if is_own_404(reply) => BackendError::NotFound.into(),
            StatusCode::FORBIDDEN => BackendError::Denied {
                what: place.text(&format!("the server does not let us write secret `{name}` (403)")),
                hint: Some(
                    "writing needs the right in ZenML's role; only its owner changes whether a secret is private"
                        .to_owned(),
                ),
            }
            .into(),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => WriteError::Invalid {
                what: place
                    .text(&format!("the server cannot hold secret `{name}` as it is ({})", reply.status.as_u16())),
                hint: Some(
                    "ZenML allows 64 KiB for all keys and values together, and text only; its secrets store may allow \
                     less"
                        .to_owned(),
                ),
            },
            _ => place.refusal(Doing::OneSecret, reply).into(),
        }
    }

    fn check_size(&self, key: &str, value: &SecretValue) -> Result<(), WriteError> {
        if value.len() as u64 <= self.max_value {
            return Ok(());
        }
        Err(WriteError::Invalid {
            what: format!("the value of key `{key}` is larger than {} bytes", self.max_value),
            hint: Some("raise `[limits] value`".to_owned()),
        })
    }
}

fn body<'a>(
    change: &Change<'_>,
    values: impl IntoIterator<Item = (&'a str, Option<&'a SecretValue>)>,
) -> Result<SecretBuffer, WriteError> {
    write(change, values).map_err(|key| WriteError::Invalid {
        what: format!("the value of key `{key}` is not UTF-8 text"),
        hint: Some("encode it, as base64 for example".to_owned()),
    })
}

fn place(server: &Server, scope: Scope) -> Place {
    match (&server.workspace, scope) {
        (Some(_), Scope::Private) => Place::User,
        (Some(_), Scope::Public) => Place::Workspace,
        (None, Scope::Private) => Place::Private,
        (None, Scope::Public) => Place::Public,
    }
}

fn valid_name(name: &str) -> Result<(), WriteError> {
    check_name(name).map_err(|error| WriteError::Invalid { what: error.to_string(), hint: None })
}

fn valid_key(key: &str) -> Result<(), WriteError> {
    check_key(key).map_err(|error| WriteError::Invalid { what: format!("a key that is {error}"), hint: None })
}
