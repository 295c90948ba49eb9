//! A program of the operator's own: a long-lived child that answers requests on its standard streams, one JSON object a
//! line. docs/plugin-protocol.md specifies what is said.
//!
//! `request` and `reply` are the two sides of a line, pure; `lines` cuts them out of the pipe, within bounds;
//! `conversation` matches them by id; `child` is the process, its log (`stderr`) and its end; `keeper` has it running
//! while it is wanted; `write` changes secrets; `conformance` is what `keyside plugin test` looks at.
//!
//! The agent has no sandbox of its own yet. Once it has one, what starts a plug-in must be forked before it closes.

mod child;
pub mod conformance;
mod conversation;
mod keeper;
mod lines;
mod reply;
mod request;
mod stderr;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use keyside_config::settings::{BackendSettings, PluginSettings};
use keyside_protocol::name::check_name;
use keyside_protocol::value::SecretValues;
use tokio::sync::Semaphore;

use self::child::Launch;
use self::keeper::{Greeting, Keeper, Session, Unusable, in_words};
use self::reply::{Class, Described, Malformed, Outcome, PluginError, Unfit};
use self::request::{Method, Params};
use super::{
    Backend, BackendError, Capabilities, Description, Opened, Scope, Scopes, Secret, WriteBackend, fingerprint,
};

/// Longest line that is read, unless values may be so large that one of them needs more: enough for a list of a hundred
/// thousand secrets.
const LONGEST_LINE: u64 = 16 << 20;

/// A byte of a value may take six on the line (`\u0000`); the rest of a line is small beside it.
const ROOM_FOR_A_BYTE: u64 = 8;

/// One plug-in.
struct Plugin {
    backend: String,
    keeper: Arc<Keeper>,
    places: Semaphore,
    parallelism: usize,
    /// How long one answer may take: a little less than the time around the whole call, so that it is said which answer
    /// was missing.
    patience: Duration,
    max_value: u64,
}

/// Returns the longest line that is read where single values may have `max_value` bytes.
pub fn longest_line(max_value: u64) -> usize {
    let longest = LONGEST_LINE.max(max_value.saturating_mul(ROOM_FOR_A_BYTE));
    usize::try_from(longest).unwrap_or(usize::MAX)
}

/// Opens the back-end that `settings` and `plugin` describe. Starts nothing yet.
pub fn open(settings: &BackendSettings, plugin: &PluginSettings, max_value: u64) -> Result<Opened, BackendError> {
    let plugin = Arc::new(Plugin::new(settings, plugin, max_value));
    let writer = settings.writable.then(|| Arc::clone(&plugin) as Arc<dyn WriteBackend>);
    Ok(Opened { reader: plugin, writer, values: None })
}

impl Plugin {
    fn new(settings: &BackendSettings, plugin: &PluginSettings, max_value: u64) -> Self {
        let patience = settings.timeout.mul_f64(0.9);
        let parallelism = settings.parallelism.max(1);
        let launch = Launch {
            backend: settings.name.clone(),
            command: plugin.command.clone(),
            env: plugin.env.clone(),
            longest_line: longest_line(max_value),
            patience,
            queue: parallelism,
        };
        let greeting = Greeting {
            max_value,
            parallelism,
            ca_file: settings.network.ca_file.as_ref().map(|path| path.to_string_lossy().into_owned()),
            proxy: settings.network.proxy.clone(),
            no_proxy: settings.network.no_proxy.clone(),
        };
        Self {
            backend: settings.name.clone(),
            keeper: Keeper::new(launch, greeting),
            places: Semaphore::new(parallelism),
            parallelism,
            patience,
            max_value,
        }
    }

    async fn session(&self) -> Result<Arc<Session>, BackendError> {
        self.keeper.session().await.map_err(|why| match why {
            Unusable::Transient(what) => BackendError::Transient {
                what: self.says(&what),
                hint: Some("it is started again by itself; its own log lines are in the agent's log".into()),
            },
            Unusable::Misconfigured(what) => BackendError::Identity {
                what: self.says(&what),
                hint: Some(format!("look at `command` and `env` in [backend.{}]", self.backend)),
            },
            Unusable::Closed => closed(),
        })
    }

    /// Asks, at most so many at the same time.
    ///
    /// The outer error says that there is no answer; the inner one is the plug-in's own.
    async fn ask(&self, method: Method, params: Params) -> Result<Result<Outcome, PluginError>, BackendError> {
        let _place = self.places.acquire().await.map_err(|_| closed())?;
        let session = self.session().await?;
        let answer = session.running.conversation.ask(method.as_str(), params, self.patience).await;
        answer.map_err(|unanswered| match unanswered {
            // Another one may come, and say less: nothing can be told of one secret among several.
            conversation::Unanswered::TooLong if method == Method::Fetch => BackendError::Unusable {
                what: self.says(&in_words(method.as_str(), &unanswered)),
                hint: Some("raise `[limits] value`, or make the secret smaller".into()),
            },
            unanswered => self.transient(&in_words(method.as_str(), &unanswered)),
        })
    }

    fn says(&self, what: &str) -> String {
        format!("plug-in of back-end `{}`: {what}", self.backend)
    }

    fn transient(&self, what: &str) -> BackendError {
        BackendError::Transient {
            what: self.says(what),
            hint: Some("its own log lines are in the agent's log; `keyside plugin test` examines it".into()),
        }
    }

    fn malformed(&self, method: Method) -> BackendError {
        self.transient(&format!("its answer to `{}` is not what the protocol promises", method.as_str()))
    }

    /// What the plug-in's error says about a secret.
    fn error_of_secret(&self, name: &str, error: &PluginError) -> BackendError {
        let said = if error.message.is_empty() { "it does not say why" } else { error.message.as_str() };
        match error.class {
            Class::NotFound => BackendError::NotFound,
            Class::Denied => BackendError::Denied {
                what: self.says(&format!("secret `{name}` is refused: {said}")),
                hint: Some("give the plug-in's account the right to read it".into()),
            },
            Class::Invalid => BackendError::Unusable {
                what: self.says(&format!("secret `{name}` cannot be served: {said}")),
                hint: Some("what is stored under that name must be corrected where it is stored".into()),
            },
            Class::Transient => self.transient(said),
        }
    }

    /// Puts together what is known; `None` where the secret lies in a scope that was not asked for.
    fn description(
        &self,
        method: Method,
        asked: Option<(&str, Scopes)>,
        described: Described,
    ) -> Result<Option<Description>, BackendError> {
        let name = match (asked, described.name) {
            (Some((asked, _)), Some(name)) if name != asked => return Err(self.malformed(method)),
            (Some((asked, _)), _) => asked.to_owned(),
            (None, Some(name)) => name,
            (None, None) => return Err(self.malformed(method)),
        };
        if let Some((_, scopes)) = asked {
            let wanted = scopes.order();
            match described.scope {
                Some((scope, _)) if !wanted.contains(&scope) => return Err(self.malformed(method)),
                // A plug-in without scopes: all that it has is public.
                None if !wanted.contains(&Scope::Public) => return Ok(None),
                _ => {}
            }
        }
        Ok(Some(Description {
            name,
            scope: described.scope.map_or(Scope::Public, |(scope, _)| scope),
            scope_label: described.scope.map(|(_, label)| label),
            id: described.id,
            version: described.version.unwrap_or_default(),
            keys: described.keys,
        }))
    }

    async fn describe_one(&self, name: &str, scopes: Scopes) -> Result<Option<Description>, BackendError> {
        let method = Method::Describe;
        match self.ask(method, Params::new().text("name", name).scopes(scopes)).await? {
            Ok(outcome) => {
                let described = outcome.description().map_err(|Malformed| self.malformed(method))?;
                self.description(method, Some((name, scopes)), described)
            }
            Err(error) => match self.error_of_secret(name, &error) {
                BackendError::NotFound => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Describes many by one list, where the plug-in says that this is cheap.
    async fn describe_by_list<'n>(
        &self,
        names: &BTreeSet<&'n str>,
        scopes: Scopes,
    ) -> Result<BTreeMap<&'n str, Option<Description>>, BackendError> {
        let mut listed: HashMap<(String, Scope), Description> = HashMap::new();
        for description in self.list().await? {
            listed.insert((description.name.clone(), description.scope), description);
        }
        let find = |name: &str| scopes.order().iter().find_map(|scope| listed.get(&(name.to_owned(), *scope)).cloned());
        Ok(names.iter().map(|name| (*name, find(name))).collect())
    }

    async fn fetch_one(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        let method = Method::Fetch;
        let outcome = self
            .ask(method, Params::new().text("name", name).scopes(scopes))
            .await?
            .map_err(|error| self.error_of_secret(name, &error))?;
        let (described, values) = outcome.secret(self.max_value).map_err(|unfit| match unfit {
            Unfit::Malformed(Malformed) => self.malformed(method),
            Unfit::NotText(_) | Unfit::TooLarge(_) => BackendError::Unusable {
                what: self.says(&format!("secret `{name}` cannot be served: {unfit}")),
                hint: Some(match unfit {
                    Unfit::TooLarge(_) => "raise `[limits] value`".into(),
                    _ => "the plug-in must answer with strings, or {\"base64\": \"...\"} for bytes".into(),
                }),
            },
        })?;
        let description = self.description(method, Some((name, scopes)), described)?.ok_or(BackendError::NotFound)?;
        let version = match description.version.as_str() {
            "" => version_of(&values),
            _ => description.version,
        };
        Ok(Secret { description: Description { version, keys: None, ..description }, values })
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // After a reload nobody calls `close`.
        self.keeper.abandon();
    }
}

fn closed() -> BackendError {
    BackendError::Transient { what: "the back-end is closed: the agent is stopping".into(), hint: None }
}

/// Makes a version for a plug-in that has none.
fn version_of(values: &SecretValues) -> String {
    fingerprint::of(|take| {
        for (key, value) in values.iter() {
            // expose: into a keyed hash that tells nothing about it.
            for part in [key.as_bytes(), value.expose()] {
                take(&(part.len() as u64).to_le_bytes());
                take(part);
            }
        }
    })
}

#[async_trait]
impl Backend for Plugin {
    fn capabilities(&self) -> Capabilities {
        // A plug-in that tells no keys is asked for the values then. What a list costs it only it knows, once it runs.
        Capabilities { keys_without_values: true, cheap_list: false }
    }

    async fn fetch(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        self.fetch_one(name, scopes).await
    }

    async fn describe(&self, names: &[&str], scopes: Scopes) -> Result<Vec<Option<Description>>, BackendError> {
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        if unique.is_empty() {
            return Ok(Vec::new());
        }
        let known = if unique.len() > 1 && self.session().await?.declared.cheap_list {
            self.describe_by_list(&unique, scopes).await?
        } else {
            let described = unique.iter().map(|name| async { Ok((*name, self.describe_one(name, scopes).await?)) });
            let described = stream::iter(described.collect::<Vec<_>>());
            described.buffer_unordered(self.parallelism).try_collect::<BTreeMap<_, _>>().await?
        };
        Ok(names.iter().map(|name| known[name].clone()).collect())
    }

    async fn list(&self) -> Result<Vec<Description>, BackendError> {
        let method = Method::List;
        let outcome = self.ask(method, Params::new()).await?.map_err(|error| match error.class {
            Class::Denied => BackendError::Identity {
                what: self.says(&format!("it may not list secrets: {}", error.message)),
                hint: Some("give the plug-in's account the right to list".into()),
            },
            _ => self.transient(&format!("it cannot list secrets: {}", error.message)),
        })?;
        let listed = outcome.list().map_err(|Malformed| self.malformed(method))?;
        let mut seen = std::collections::HashSet::new();
        let mut descriptions = Vec::with_capacity(listed.len());
        for described in listed {
            let Some(description) = self.description(method, None, described)? else { continue };
            // What no name can be cannot be asked for either.
            if check_name(&description.name).is_ok() && seen.insert((description.name.clone(), description.scope)) {
                descriptions.push(description);
            }
        }
        Ok(descriptions)
    }

    async fn close(&self) {
        self.places.close();
        self.keeper.close().await;
    }
}
