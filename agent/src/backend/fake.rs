//! A back-end in memory for tests: scripted faults, a gate that holds calls back, and counters.
//!
//! ```ignore
//! let fake = FakeBackend::new().with("db", &[("password", "x")]);
//! let hold = fake.hold();              // calls now hang ...
//! fake.calls_reach(1).await;           // ... and have arrived when this returns
//! hold.release();
//! fake.fail_next(1, FakeBackend::transient());
//! fake.fail_name("db", FakeBackend::denied());
//! assert_eq!(fake.value_reads(), 1);
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use keyside_protocol::value::{SecretValue, SecretValues};
use tokio::sync::watch;

use super::{
    Backend, BackendError, Capabilities, Description, Scope, ScopeLabel, Scopes, Secret, Stack, Update, WriteBackend,
    WriteError,
};
use crate::request_id::{self, RequestId};

/// A back-end in memory. Every method of the test takes `&self`: put it into an `Arc` and keep a clone.
pub struct FakeBackend {
    state: Mutex<State>,
    held: watch::Sender<usize>,
    calls: watch::Sender<usize>,
    changes: Option<watch::Sender<u64>>,
    stack: Option<Stack>,
    most_at_once: usize,
}

struct State {
    secrets: HashMap<(String, Scope), Entry>,
    next_version: u64,
    capabilities: Capabilities,
    max_value: Option<usize>,
    fail_next: VecDeque<BackendError>,
    fail_always: Option<BackendError>,
    fail_names: HashMap<String, BackendError>,
    keys_hidden: std::collections::BTreeSet<String>,
    values_spoilt: bool,
    fetches: usize,
    describes: usize,
    lists: usize,
    batches: usize,
    value_reads: usize,
    fetches_of: HashMap<String, usize>,
    fetched_for: Vec<Option<RequestId>>,
    closed: bool,
}

struct Entry {
    id: String,
    version: u64,
    values: SecretValues,
}

/// Calls hang as long as this lives.
pub struct Hold {
    held: watch::Sender<usize>,
}

impl Hold {
    /// Lets the calls go on; the same as dropping it.
    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.send_modify(|held| *held -= 1);
    }
}

impl Default for FakeBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeBackend {
    /// An empty back-end: cheap list, no keys without values.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                secrets: HashMap::new(),
                next_version: 1,
                capabilities: Capabilities { keys_without_values: false, cheap_list: true },
                max_value: None,
                fail_next: VecDeque::new(),
                fail_always: None,
                fail_names: HashMap::new(),
                keys_hidden: Default::default(),
                values_spoilt: false,
                fetches: 0,
                describes: 0,
                lists: 0,
                batches: 0,
                value_reads: 0,
                fetches_of: HashMap::new(),
                fetched_for: Vec::new(),
                closed: false,
            }),
            held: watch::channel(0).0,
            calls: watch::channel(0).0,
            changes: None,
            stack: None,
            most_at_once: 1,
        }
    }

    /// Knows of stacks, of exactly this one.
    pub fn with_stack(mut self, stack: Stack) -> Self {
        self.stack = Some(stack);
        self
    }

    /// Tells of changes by itself: whenever [`tell`](Self::tell) says so.
    pub fn telling(mut self) -> Self {
        self.changes = Some(watch::channel(0).0);
        self
    }

    /// Tells of a change.
    pub fn tell(&self) {
        self.changes.as_ref().expect("it is `telling`").send_modify(|count| *count += 1);
    }

    /// Adds a public secret.
    pub fn with(self, name: &str, pairs: &[(&str, &str)]) -> Self {
        self.put(name, Scope::Public, pairs);
        self
    }

    /// Reads up to this many secrets in one call.
    pub fn reading_at_once(mut self, most: usize) -> Self {
        self.most_at_once = most;
        self
    }

    /// Calls for several secrets at once.
    pub fn batches(&self) -> usize {
        self.state().batches
    }

    fn read(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        let mut state = self.state();
        if let Some(error) = state.fail_names.get(name) {
            return Err(error.clone());
        }
        let (scope, entry) = state.find(name, scopes).ok_or(BackendError::NotFound)?;
        if state.values_spoilt {
            return Err(Self::unusable());
        }
        if let Some(max) = state.max_value
            && let Some((key, _)) = entry.values.iter().find(|(_, value)| value.len() > max)
        {
            return Err(BackendError::Unusable {
                what: format!("the value of key `{key}` of secret `{name}` is too large"),
                hint: Some("raise `[limits] value`".into()),
            });
        }
        let description = Description { keys: None, ..state.describe(name, scope, entry) };
        let values = copy(&entry.values);
        state.value_reads += 1;
        Ok(Secret { description, values })
    }

    /// Adds a private secret.
    pub fn with_private(self, name: &str, pairs: &[(&str, &str)]) -> Self {
        self.put(name, Scope::Private, pairs);
        self
    }

    /// Makes `describe` and `list` name keys (or not).
    pub fn keys_without_values(self, yes: bool) -> Self {
        self.state().capabilities.keys_without_values = yes;
        self
    }

    /// Says that `list` serves as change detection (or not).
    pub fn cheap_list(self, yes: bool) -> Self {
        self.state().capabilities.cheap_list = yes;
        self
    }

    /// Refuses single values of more than `bytes`.
    pub fn max_value(self, bytes: usize) -> Self {
        self.state().max_value = Some(bytes);
        self
    }

    /// Sets a secret to exactly `pairs`; its version changes, its id does not.
    pub fn put(&self, name: &str, scope: Scope, pairs: &[(&str, &str)]) {
        let pairs = pairs.iter().map(|(key, value)| (*key, value.as_bytes())).collect::<Vec<_>>();
        self.put_bytes(name, scope, &pairs);
    }

    /// Sets a secret to exactly `pairs` of any bytes.
    pub fn put_bytes(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) {
        let values = pairs.iter().map(|(key, bytes)| ((*key).to_owned(), SecretValue::copy_of(bytes))).collect();
        self.state().set(name, scope, values);
    }

    /// Removes a secret; tells whether it was there.
    pub fn remove(&self, name: &str, scope: Scope) -> bool {
        self.state().secrets.remove(&(name.to_owned(), scope)).is_some()
    }

    /// The next `calls` calls (of any kind) fail with `error`; adds to what is scripted already.
    pub fn fail_next(&self, calls: usize, error: BackendError) {
        self.state().fail_next.extend(std::iter::repeat_n(error, calls));
    }

    /// Every call fails until [`recover`](Self::recover).
    pub fn fail_always(&self, error: BackendError) {
        self.state().fail_always = Some(error);
    }

    /// `fetch` and `describe` of `name` fail until [`recover`](Self::recover); a list does not.
    pub fn fail_name(&self, name: &str, error: BackendError) {
        self.state().fail_names.insert(name.to_owned(), error);
    }

    /// `describe` of `name` tells no keys, whatever the capabilities say.
    pub fn hide_keys(&self, name: &str) {
        self.state().keys_hidden.insert(name.to_owned());
    }

    /// Whoever reads the values of any secret fails until [`recover`](Self::recover).
    pub fn spoil_values(&self) {
        self.state().values_spoilt = true;
    }

    /// Ends all scripted failures.
    pub fn recover(&self) {
        let mut state = self.state();
        state.values_spoilt = false;
        state.fail_next.clear();
        state.fail_always = None;
        state.fail_names.clear();
    }

    /// Makes calls hang from now until the returned guard is released or dropped. They count when they arrive.
    pub fn hold(&self) -> Hold {
        self.held.send_modify(|held| *held += 1);
        Hold { held: self.held.clone() }
    }

    /// Waits until at least `total` calls have arrived since the start, hanging ones included.
    pub async fn calls_reach(&self, total: usize) {
        self.calls.subscribe().wait_for(|calls| *calls >= total).await.expect("the sender lives in self");
    }

    /// How many calls of any kind have arrived.
    pub fn calls(&self) -> usize {
        *self.calls.borrow()
    }

    /// How many fetches have arrived.
    pub fn fetches(&self) -> usize {
        self.state().fetches
    }

    /// How many fetches of `name` have arrived.
    pub fn fetches_of(&self, name: &str) -> usize {
        self.state().fetches_of.get(name).copied().unwrap_or(0)
    }

    /// How many descriptions were asked for (calls, not names).
    pub fn describes(&self) -> usize {
        self.state().describes
    }

    /// How many lists were asked for.
    pub fn lists(&self) -> usize {
        self.state().lists
    }

    /// The requests that single fetches were part of, in their order.
    pub fn fetched_for(&self) -> Vec<Option<RequestId>> {
        self.state().fetched_for.clone()
    }

    /// How many times a secret's values were handed out.
    pub fn value_reads(&self) -> usize {
        self.state().value_reads
    }

    /// Whether `close` was called.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// A transient failure.
    pub fn transient() -> BackendError {
        BackendError::Transient { what: "the fake back-end is down".into(), hint: None }
    }

    /// An authoritative refusal.
    pub fn denied() -> BackendError {
        BackendError::Denied { what: "the fake back-end refuses".into(), hint: None }
    }

    /// A failure of our own login.
    pub fn identity() -> BackendError {
        BackendError::Identity {
            what: "the fake back-end does not know us".into(),
            hint: Some("check `fake_login`".into()),
        }
    }

    /// A secret that is there but cannot be served.
    pub fn unusable() -> BackendError {
        BackendError::Unusable { what: "the fake secret is broken".into(), hint: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }

    /// Counts the call, waits while held, and takes the next scripted failure.
    async fn arrive(&self, count: impl FnOnce(&mut State)) -> Result<(), BackendError> {
        count(&mut self.state());
        self.calls.send_modify(|calls| *calls += 1);
        self.held.subscribe().wait_for(|held| *held == 0).await.expect("the sender lives in self");
        let mut state = self.state();
        if let Some(error) = state.fail_next.pop_front() {
            return Err(error);
        }
        match &state.fail_always {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

impl State {
    fn set(&mut self, name: &str, scope: Scope, values: SecretValues) {
        let version = self.next_version;
        self.next_version += 1;
        let entry = self.secrets.entry((name.to_owned(), scope)).or_insert_with(|| Entry {
            id: format!("id-{version}"),
            version,
            values: SecretValues::new(),
        });
        entry.version = version;
        entry.values = values;
    }

    fn find(&self, name: &str, scopes: Scopes) -> Option<(Scope, &Entry)> {
        scopes.order().iter().find_map(|&scope| Some((scope, self.secrets.get(&(name.to_owned(), scope))?)))
    }

    fn describe(&self, name: &str, scope: Scope, entry: &Entry) -> Description {
        let keys = || entry.values.keys().map(str::to_owned).collect();
        Description {
            name: name.to_owned(),
            scope,
            scope_label: Some(match scope {
                Scope::Private => ScopeLabel::Private,
                Scope::Public => ScopeLabel::Public,
            }),
            id: Some(entry.id.clone()),
            version: format!("v{}", entry.version),
            keys: (self.capabilities.keys_without_values && !self.keys_hidden.contains(name)).then(keys),
        }
    }

    /// The scope of the one secret that a write without a scope can mean.
    fn only_scope(&self, name: &str, scope: Option<Scope>) -> Result<Scope, WriteError> {
        let has = |scope| self.secrets.contains_key(&(name.to_owned(), scope));
        match scope {
            Some(scope) if has(scope) => Ok(scope),
            None if has(Scope::Private) && has(Scope::Public) => {
                Err(WriteError::Ambiguous { what: format!("`{name}` is private and public") })
            }
            None if has(Scope::Private) => Ok(Scope::Private),
            None if has(Scope::Public) => Ok(Scope::Public),
            _ => Err(BackendError::NotFound.into()),
        }
    }

    fn check_version(&self, name: &str, scope: Scope, wanted: Option<&str>) -> Result<(), WriteError> {
        let version = self.secrets.get(&(name.to_owned(), scope)).map(|entry| format!("v{}", entry.version));
        match wanted {
            Some(wanted) if version.as_deref() != Some(wanted) => Err(WriteError::VersionMismatch),
            _ => Ok(()),
        }
    }

    fn described(&self, name: &str, scope: Scope) -> Description {
        let entry = self.secrets.get(&(name.to_owned(), scope)).expect("the caller has just found or set it");
        let keys = Some(entry.values.keys().map(str::to_owned).collect());
        Description { keys, ..self.describe(name, scope, entry) }
    }
}

fn copy(values: &SecretValues) -> SecretValues {
    // expose: copied into another value.
    values.iter().map(|(key, value)| (key.to_owned(), SecretValue::copy_of(value.expose()))).collect()
}

#[async_trait]
impl Backend for FakeBackend {
    fn capabilities(&self) -> Capabilities {
        self.state().capabilities
    }

    fn knows_stacks(&self) -> bool {
        self.stack.is_some()
    }

    async fn stack(&self, name: &str) -> Result<Stack, BackendError> {
        self.stack.clone().filter(|stack| stack.name == name).ok_or(BackendError::NotFound)
    }

    async fn fetch(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        self.arrive(|state| {
            state.fetches += 1;
            *state.fetches_of.entry(name.to_owned()).or_default() += 1;
            state.fetched_for.push(request_id::current());
        })
        .await?;
        self.read(name, scopes)
    }

    fn most_at_once(&self) -> usize {
        self.most_at_once
    }

    async fn fetch_many(
        &self,
        names: &[&str],
        scopes: Scopes,
    ) -> Result<Vec<Result<Secret, BackendError>>, BackendError> {
        self.arrive(|state| state.batches += 1).await?;
        Ok(names.iter().map(|name| self.read(name, scopes)).collect())
    }

    async fn describe(&self, names: &[&str], scopes: Scopes) -> Result<Vec<Option<Description>>, BackendError> {
        self.arrive(|state| state.describes += 1).await?;
        let state = self.state();
        if let Some(error) = names.iter().find_map(|name| state.fail_names.get(*name)) {
            return Err(error.clone());
        }
        let one = |name: &&str| state.find(name, scopes).map(|(scope, entry)| state.describe(name, scope, entry));
        Ok(names.iter().map(one).collect())
    }

    async fn list(&self) -> Result<Vec<Description>, BackendError> {
        self.arrive(|state| state.lists += 1).await?;
        let state = self.state();
        Ok(state.secrets.iter().map(|((name, scope), entry)| state.describe(name, *scope, entry)).collect())
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.changes.as_ref().map(watch::Sender::subscribe)
    }

    async fn close(&self) {
        self.state().closed = true;
    }
}

#[async_trait]
impl WriteBackend for FakeBackend {
    async fn create(&self, name: &str, scope: Scope, values: SecretValues) -> Result<Description, WriteError> {
        self.arrive(|_| ()).await?;
        let mut state = self.state();
        if state.secrets.contains_key(&(name.to_owned(), scope)) {
            return Err(WriteError::Exists(format!("secret `{name}` is there already")));
        }
        state.set(name, scope, values);
        Ok(state.described(name, scope))
    }

    async fn update(&self, name: &str, scope: Option<Scope>, update: Update) -> Result<Description, WriteError> {
        self.arrive(|_| ()).await?;
        let mut state = self.state();
        let scope = state.only_scope(name, scope)?;
        state.check_version(name, scope, update.if_version.as_deref())?;
        let target = (update.rename.unwrap_or_else(|| name.to_owned()), update.scope.unwrap_or(scope));
        let source = (name.to_owned(), scope);
        if target != source && state.secrets.contains_key(&target) {
            return Err(WriteError::Exists(format!("secret `{}` is there already", target.0)));
        }
        let mut values = copy(&state.secrets.get(&source).expect("only_scope found it").values);
        for (key, value) in update.values {
            match value {
                Some(value) => values.insert(key, value),
                None if values.remove(&key).is_none() => return Err(WriteError::KeyNotFound(key)),
                None => {}
            }
        }
        let entry = state.secrets.remove(&source).expect("only_scope found it");
        state.secrets.insert(target.clone(), entry);
        state.set(&target.0, target.1, values);
        Ok(state.described(&target.0, target.1))
    }

    async fn delete(
        &self,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<Description, WriteError> {
        self.arrive(|_| ()).await?;
        let mut state = self.state();
        let scope = state.only_scope(name, scope)?;
        state.check_version(name, scope, if_version)?;
        let description = state.described(name, scope);
        state.secrets.remove(&(name.to_owned(), scope));
        Ok(description)
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;

    use super::super::contract::{Case, Subject, run};
    use super::*;

    #[async_trait]
    impl Subject for FakeBackend {
        fn backend(&self) -> &dyn Backend {
            self
        }

        fn max_value(&self) -> usize {
            self.state().max_value.expect("set by the test")
        }

        fn cannot(&self, _: Case) -> Option<&'static str> {
            None
        }

        async fn put(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) {
            self.recover();
            self.put_bytes(name, scope, pairs);
        }

        async fn remove(&self, name: &str, scope: Scope) {
            assert!(FakeBackend::remove(self, name, scope), "{name} should be there");
        }

        async fn deny(&self, name: &str) {
            self.fail_name(name, Self::denied());
        }

        async fn break_down(&self) {
            self.fail_always(Self::transient());
        }

        async fn mend(&self) {
            self.recover();
        }

        async fn stall(&self) -> Box<dyn Any + Send> {
            Box::new(self.hold())
        }

        async fn spoil_values(&self) {
            FakeBackend::spoil_values(self);
        }
    }

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        assert_eq!(run(&FakeBackend::new().max_value(1000)).await, []);
        assert_eq!(run(&FakeBackend::new().max_value(1000).keys_without_values(true)).await, []);
    }

    #[tokio::test]
    async fn scripted_failures_come_once_each_and_in_order() {
        let fake = FakeBackend::new().with("a", &[("k", "v")]);
        fake.fail_next(1, FakeBackend::denied());
        fake.fail_next(1, FakeBackend::transient());
        let mut errors = Vec::new();
        for _ in 0..3 {
            errors.push(fake.fetch("a", Scopes::PrivateFirst).await.err());
        }
        assert_eq!(errors, [Some(FakeBackend::denied()), Some(FakeBackend::transient()), None]);
        assert_eq!((fake.fetches(), fake.fetches_of("a"), fake.value_reads(), fake.calls()), (3, 3, 1, 3));
    }

    #[tokio::test]
    async fn a_held_call_arrives_and_goes_on_when_released() {
        let fake = std::sync::Arc::new(FakeBackend::new().with("a", &[("k", "v")]));
        let hold = fake.hold();
        let call = tokio::spawn({
            let fake = std::sync::Arc::clone(&fake);
            async move { fake.fetch("a", Scopes::PrivateFirst).await.is_ok() }
        });
        fake.calls_reach(1).await;
        assert!(!call.is_finished());
        assert_eq!(fake.value_reads(), 0);
        hold.release();
        assert!(call.await.expect("no panic"));
    }
}
