//! Changes secrets through a plug-in that says it can. What it need not know of, such as two secrets of one name, is
//! looked at first.

use async_trait::async_trait;
use keyside_protocol::value::SecretValues;

use super::super::{BackendError, Description, Scope, Scopes, Update, WriteBackend, WriteError};
use super::Plugin;
use super::reply::{Class, Outcome, PluginError, Reason};
use super::request::{Method, Params, scope_word};

fn only(scope: Scope) -> Scopes {
    match scope {
        Scope::Private => Scopes::PrivateOnly,
        Scope::Public => Scopes::PublicOnly,
    }
}

impl Plugin {
    /// Tells whether it can do this at all.
    async fn must_have(&self, method: Method) -> Result<(), WriteError> {
        if self.session().await?.declared.has(method.as_str()) {
            return Ok(());
        }
        Err(WriteError::Backend(BackendError::Denied {
            what: self.says(&format!("it cannot `{}`: it does not declare that method", method.as_str())),
            hint: Some("a plug-in that can names the method in its answer to `initialize`".into()),
        }))
    }

    /// Finds the one secret that is meant.
    async fn locate(&self, name: &str, scope: Option<Scope>) -> Result<Description, WriteError> {
        if let Some(scope) = scope {
            return Ok(self.describe_one(name, only(scope)).await?.ok_or(BackendError::NotFound)?);
        }
        let public = self.describe_one(name, Scopes::PublicOnly).await?;
        let private = self.describe_one(name, Scopes::PrivateOnly).await?;
        match (public, private) {
            (Some(_), Some(_)) => Err(WriteError::Ambiguous {
                what: format!("secret `{name}` is private and public in back-end `{}`", self.backend),
            }),
            (Some(one), None) | (None, Some(one)) => Ok(one),
            (None, None) => Err(BackendError::NotFound.into()),
        }
    }

    /// Compares the version a caller saw with the one that is there. A plug-in without versions is read for it.
    async fn check_version(&self, found: &Description, wanted: Option<&str>) -> Result<(), WriteError> {
        let Some(wanted) = wanted else { return Ok(()) };
        let is_same = match found.version.as_str() {
            "" => self.fetch_one(&found.name, only(found.scope)).await?.description.version == wanted,
            version => version == wanted,
        };
        if is_same { Ok(()) } else { Err(WriteError::VersionMismatch) }
    }

    /// Describes a secret as it is after a write: by what the plug-in said, else by asking.
    async fn written(&self, name: &str, scope: Scope, outcome: Outcome) -> Result<Description, WriteError> {
        let said = outcome.description().ok();
        if let Some(said) = said.filter(|said| said.version.is_some())
            && let Ok(Some(description)) = self.description(Method::Update, Some((name, only(scope))), said)
        {
            return Ok(description);
        }
        Ok(self.fetch_one(name, only(scope)).await?.description)
    }

    fn write_error(&self, name: &str, removed: Option<&str>, error: &PluginError) -> WriteError {
        let said = if error.message.is_empty() { "it does not say why" } else { error.message.as_str() };
        match (error.class, error.reason, removed) {
            (Class::Invalid, Some(Reason::Exists), _) => WriteError::Exists(exists(name)),
            (Class::Invalid, Some(Reason::VersionMismatch), _) => WriteError::VersionMismatch,
            (Class::Invalid, Some(Reason::KeyNotFound), Some(key)) => WriteError::KeyNotFound(key.to_owned()),
            (Class::Invalid, ..) => WriteError::Invalid {
                what: self.says(said),
                hint: Some("docs of the plug-in may say which names and values it can hold".into()),
            },
            (Class::Denied, ..) => WriteError::Backend(BackendError::Denied {
                what: self.says(&format!("writing secret `{name}` is refused: {said}")),
                hint: Some("give the plug-in's account the right to write it".into()),
            }),
            _ => WriteError::Backend(self.error_of_secret(name, error)),
        }
    }

    fn check_size(&self, key: &str, length: usize) -> Result<(), WriteError> {
        if length as u64 > self.max_value {
            return Err(WriteError::Invalid {
                what: format!("the value of key `{key}` is larger than {} bytes", self.max_value),
                hint: Some("raise `[limits] value`".into()),
            });
        }
        Ok(())
    }
}

fn exists(name: &str) -> String {
    format!("a secret `{name}` is there already")
}

#[async_trait]
impl WriteBackend for Plugin {
    async fn create(&self, name: &str, scope: Scope, values: SecretValues) -> Result<Description, WriteError> {
        let method = Method::Create;
        self.must_have(method).await?;
        values.iter().try_for_each(|(key, value)| self.check_size(key, value.len()))?;
        if self.describe_one(name, only(scope)).await?.is_some() {
            return Err(WriteError::Exists(exists(name)));
        }
        let params = Params::new().text("name", name).text("scope", scope_word(scope)).values(&values);
        match self.ask(method, params).await? {
            Ok(outcome) => self.written(name, scope, outcome).await,
            Err(error) => Err(self.write_error(name, None, &error)),
        }
    }

    async fn update(&self, name: &str, scope: Option<Scope>, update: Update) -> Result<Description, WriteError> {
        let method = Method::Update;
        self.must_have(method).await?;
        for (key, value) in &update.values {
            self.check_size(key, value.as_ref().map_or(0, keyside_protocol::value::SecretValue::len))?;
        }
        let found = self.locate(name, scope).await?;
        self.check_version(&found, update.if_version.as_deref()).await?;
        let removed = || update.values.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key.as_str());
        if let Some(keys) = &found.keys
            && let Some(missing) = removed().find(|key| !keys.iter().any(|known| known == key))
        {
            return Err(WriteError::KeyNotFound(missing.to_owned()));
        }
        let (new_name, new_scope) = (update.rename.as_deref().unwrap_or(name), update.scope.unwrap_or(found.scope));
        if (new_name, new_scope) != (name, found.scope) && self.describe_one(new_name, only(new_scope)).await?.is_some()
        {
            return Err(WriteError::Exists(exists(new_name)));
        }
        let params = Params::new()
            .text("name", name)
            .text("scope", scope_word(found.scope))
            .optional("new_name", Some(new_name).filter(|new| *new != name))
            .optional("new_scope", Some(new_scope).filter(|new| *new != found.scope).map(scope_word))
            .optional("if_version", update.if_version.as_deref().filter(|_| !found.version.is_empty()))
            .changes(&update.values);
        match self.ask(method, params).await? {
            Ok(outcome) => self.written(new_name, new_scope, outcome).await,
            Err(error) => {
                let taken = if error.reason == Some(Reason::Exists) { new_name } else { name };
                Err(self.write_error(taken, removed().next(), &error))
            }
        }
    }

    async fn delete(
        &self,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<Description, WriteError> {
        let method = Method::Delete;
        self.must_have(method).await?;
        let found = self.locate(name, scope).await?;
        self.check_version(&found, if_version).await?;
        let params = Params::new()
            .text("name", name)
            .text("scope", scope_word(found.scope))
            .optional("if_version", if_version.filter(|_| !found.version.is_empty()));
        match self.ask(method, params).await? {
            Ok(_) => Ok(found),
            Err(error) => Err(self.write_error(name, None, &error)),
        }
    }
}
