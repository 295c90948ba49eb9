//! The contract suite: what every back-end promises, shown on a real one through a [`Subject`].
//!
//! A back-end's own tests write a `Subject` (how to put, alter, remove and break things there), call [`run`], and
//! compare what it returns with the cases they know the back-end cannot show.

use std::any::Any;
use std::time::Duration;

use async_trait::async_trait;
use keyside_protocol::value::SecretValues;
use tokio::time::timeout;

use super::{Backend, BackendError, Description, Scope, Scopes, Secret};

/// Returns the class of an error in a word.
pub fn class(error: &BackendError) -> &'static str {
    match error {
        BackendError::NotFound => "not found",
        BackendError::Denied { .. } => "denied",
        BackendError::Transient { .. } => "transient",
        BackendError::Identity { .. } => "identity",
        BackendError::Unlisted { .. } => "unlisted",
        BackendError::Unusable { .. } => "unusable",
    }
}

/// One promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// A secret is found with exactly its pairs; an empty value and an empty secret too.
    Found,
    /// An absent secret is `NotFound`, and so is a name that only looks like another.
    Absent,
    /// A refusal for one secret is `Denied` and leaves the others alone.
    Denied,
    /// A back-end that is down answers with a transient error, to every kind of call, and recovers by itself.
    Unavailable,
    /// A call that hangs ends when it is dropped, and disturbs no later one.
    Slow,
    /// A value over the limit is `Unusable`; one of exactly the limit is served.
    TooLarge,
    /// Bytes that are not UTF-8 come back as they are.
    Bytes,
    /// Any text comes back as it is: control characters, line ends, every plane of Unicode, in keys too.
    Unicode,
    /// A change shows in values and version at the next call; without one the version stays.
    Changed,
    /// Each order of scopes takes the secret from the first scope that has it.
    Scopes,
    /// A list names every secret once for each scope, and reads no value.
    List,
    /// A description reads no value, answers in the order asked, and agrees with a fetch.
    Describe,
}

impl Case {
    const ALL: [Self; 12] = [
        Self::Found,
        Self::Absent,
        Self::Denied,
        Self::Unavailable,
        Self::Slow,
        Self::TooLarge,
        Self::Bytes,
        Self::Unicode,
        Self::Changed,
        Self::Scopes,
        Self::List,
        Self::Describe,
    ];
}

/// A back-end under test, empty at first, and the levers behind it.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The back-end.
    fn backend(&self) -> &dyn Backend;

    /// The largest single value it accepts, in bytes; at least 500.
    fn max_value(&self) -> usize;

    /// Why it cannot show `case`; `None` when it can.
    fn cannot(&self, case: Case) -> Option<&'static str>;

    /// Makes or replaces a secret.
    async fn put(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]);

    /// Removes a secret.
    async fn remove(&self, name: &str, scope: Scope);

    /// From now on this one secret is refused to us.
    async fn deny(&self, name: &str);

    /// From now on nothing answers.
    async fn break_down(&self);

    /// Ends [`break_down`](Self::break_down).
    async fn mend(&self);

    /// Calls hang as long as the returned guard lives.
    async fn stall(&self) -> Box<dyn Any + Send>;

    /// From now on whoever reads the values of any secret fails; the secrets stay.
    async fn spoil_values(&self);
}

/// Runs every case the subject can show, and returns the others with their reasons. Panics when a promise is broken.
pub async fn run(subject: &dyn Subject) -> Vec<(Case, &'static str)> {
    let mut skipped = Vec::new();
    for case in Case::ALL {
        if let Some(reason) = subject.cannot(case) {
            skipped.push((case, reason));
            continue;
        }
        match case {
            Case::Found => found(subject).await,
            Case::Absent => absent(subject).await,
            Case::Denied => denied(subject).await,
            Case::Unavailable => unavailable(subject).await,
            Case::Slow => slow(subject).await,
            Case::TooLarge => too_large(subject).await,
            Case::Bytes => bytes(subject).await,
            Case::Unicode => unicode(subject).await,
            Case::Changed => changed(subject).await,
            Case::Scopes => scopes(subject).await,
            Case::List => list(subject).await,
            Case::Describe => describe(subject).await,
        }
    }
    skipped
}

async fn found(subject: &dyn Subject) {
    let pairs: &[(&str, &[u8])] = &[("user", b"admin"), ("password", b"a b=c\n"), ("empty", b"")];
    subject.put("found", Scope::Public, pairs).await;
    let secret = fetch(subject, "found").await;
    assert_eq!(secret.description.name, "found");
    assert_eq!(secret.description.scope, Scope::Public);
    assert_eq!(secret.description.keys, None, "a fetched secret has its keys in its values");
    assert_pairs(&secret.values, pairs);

    subject.put("found-empty", Scope::Public, &[]).await;
    assert!(fetch(subject, "found-empty").await.values.is_empty(), "a secret without pairs is a secret");
}

async fn absent(subject: &dyn Subject) {
    subject.put("absent-not", Scope::Public, &[("k", b"v")]).await;
    let missing = ["absent", "absent-no", "absent-not ", "ABSENT-NOT", "absent_not", "absent-%", "*", "' OR 1=1 --"];
    for name in missing {
        assert_eq!(error(subject, name).await, BackendError::NotFound, "{name}");
    }
    let described = subject.backend().describe(&missing, Scopes::PrivateFirst).await.expect("describe");
    assert_eq!(described, vec![None; missing.len()]);

    subject.remove("absent-not", Scope::Public).await;
    assert_eq!(error(subject, "absent-not").await, BackendError::NotFound);
}

async fn denied(subject: &dyn Subject) {
    subject.put("denied", Scope::Public, &[("k", b"v")]).await;
    subject.put("denied-not", Scope::Public, &[("k", b"v")]).await;
    subject.deny("denied").await;
    let error = error(subject, "denied").await;
    assert!(matches!(error, BackendError::Denied { .. }), "{error:?}");
    assert_no_value(&error, "v");
    fetch(subject, "denied-not").await;
}

async fn unavailable(subject: &dyn Subject) {
    subject.put("unavailable", Scope::Public, &[("k", b"v")]).await;
    fetch(subject, "unavailable").await;
    subject.break_down().await;
    let backend = subject.backend();
    let fetched = error(subject, "unavailable").await;
    assert!(fetched.is_transient(), "{fetched:?}");
    let missing = error(subject, "unavailable-missing").await;
    assert!(missing.is_transient(), "an outage is no absence: {missing:?}");
    let described = backend.describe(&["unavailable"], Scopes::PrivateFirst).await.expect_err("down");
    assert!(described.is_transient(), "{described:?}");
    let listed = backend.list().await.expect_err("down");
    assert!(listed.is_transient(), "{listed:?}");
    subject.mend().await;
    fetch(subject, "unavailable").await;
}

async fn slow(subject: &dyn Subject) {
    // Long enough for a call to begin, short beside any back-end's own time-out.
    const PATIENCE: Duration = Duration::from_millis(50);
    subject.put("slow", Scope::Public, &[("k", b"v")]).await;
    let guard = subject.stall().await;
    let backend = subject.backend();
    assert!(timeout(PATIENCE, backend.fetch("slow", Scopes::PrivateFirst)).await.is_err(), "the call should hang");
    assert!(timeout(PATIENCE, backend.list()).await.is_err(), "the call should hang");
    drop(guard);
    fetch(subject, "slow").await;
    backend.list().await.expect("no longer stalled");
}

async fn too_large(subject: &dyn Subject) {
    let limit = subject.max_value();
    let (fits, exceeds) = (vec![b'x'; limit], vec![b'x'; limit + 1]);
    subject.put("large-fits", Scope::Public, &[("k", &fits)]).await;
    assert_pairs(&fetch(subject, "large-fits").await.values, &[("k", &fits)]);
    subject.put("large", Scope::Public, &[("small", b"v"), ("k", &exceeds)]).await;
    let error = error(subject, "large").await;
    assert!(matches!(error, BackendError::Unusable { .. }), "{error:?}");
    assert_no_value(&error, "xxxx");
}

async fn bytes(subject: &dyn Subject) {
    let all: Vec<u8> = (0..=255).collect();
    let pairs: &[(&str, &[u8])] = &[("all", &all), ("invalid", &[0xc3, 0x28, 0xff])];
    subject.put("bytes", Scope::Public, pairs).await;
    assert_pairs(&fetch(subject, "bytes").await.values, pairs);
}

async fn unicode(subject: &dyn Subject) {
    let controls: String = (0..=0x20).chain([0x7f, 0x80, 0xa0]).filter_map(char::from_u32).collect();
    let planes = "naïve “q” \u{2028} ключ \u{200b}\u{feff} 🔐\u{10ffff}";
    let pairs: &[(&str, &[u8])] = &[
        ("controls", controls.as_bytes()),
        ("lines", b" \r\n a \n\n"),
        ("json", br#"{"a": "\u0041\"", "b": [null]}"#),
        ("template", b"{{other.key}} ${X} $(x) %s \\"),
        ("planes", planes.as_bytes()),
        ("ключ с пробелом.\t🔐", b"key"),
    ];
    subject.put("unicode", Scope::Public, pairs).await;
    assert_pairs(&fetch(subject, "unicode").await.values, pairs);
}

async fn changed(subject: &dyn Subject) {
    subject.put("changed", Scope::Public, &[("k", b"old")]).await;
    subject.put("changed-not", Scope::Public, &[("k", b"v")]).await;
    let (before, other) = (fetch(subject, "changed").await, fetch(subject, "changed-not").await);
    assert_eq!(fetch(subject, "changed").await.description, before.description, "nothing has changed");
    subject.put("changed", Scope::Public, &[("k", b"new")]).await;
    let after = fetch(subject, "changed").await;
    assert_pairs(&after.values, &[("k", b"new")]);
    assert_ne!(after.description.version, before.description.version);
    assert_eq!(after.description.id, before.description.id, "it is the same secret");
    assert_eq!(fetch(subject, "changed-not").await.description, other.description);
    if subject.backend().capabilities().cheap_list {
        let listed = listed(subject, "changed").await;
        assert_eq!(listed.iter().map(|one| &one.version).collect::<Vec<_>>(), [&after.description.version]);
    }
}

async fn scopes(subject: &dyn Subject) {
    subject.put("scopes-both", Scope::Public, &[("k", b"public")]).await;
    subject.put("scopes-both", Scope::Private, &[("k", b"private")]).await;
    subject.put("scopes-public", Scope::Public, &[("k", b"public")]).await;
    subject.put("scopes-private", Scope::Private, &[("k", b"private")]).await;
    let (private, public) = (Some("private"), Some("public"));
    for (scopes, both, only_public, only_private) in [
        (Scopes::PrivateFirst, private, public, private),
        (Scopes::PublicFirst, public, public, private),
        (Scopes::PrivateOnly, private, None, private),
        (Scopes::PublicOnly, public, public, None),
    ] {
        let expected = [("scopes-both", both), ("scopes-public", only_public), ("scopes-private", only_private)];
        let names = expected.map(|(name, _)| name);
        let described = subject.backend().describe(&names, scopes).await.expect("describe");
        for ((name, expected), described) in expected.into_iter().zip(described) {
            let scope = expected.map(|value| if value == "private" { Scope::Private } else { Scope::Public });
            assert_eq!(described.as_ref().map(|description| description.scope), scope, "{name} {scopes:?}");
            match (subject.backend().fetch(name, scopes).await, expected) {
                (Ok(secret), Some(value)) => {
                    assert_pairs(&secret.values, &[("k", value.as_bytes())]);
                    assert_eq!(Some(secret.description.scope), scope, "{name} {scopes:?}");
                }
                (Err(error), None) => assert_eq!(error, BackendError::NotFound, "{name} {scopes:?}"),
                (result, _) => panic!("{name} {scopes:?}: {:?}", result.map(|secret| secret.description)),
            }
        }
    }
}

async fn list(subject: &dyn Subject) {
    subject.put("list-a", Scope::Public, &[("k", b"v")]).await;
    subject.put("list-b", Scope::Public, &[]).await;
    let known = fetch(subject, "list-a").await.description;
    subject.spoil_values().await;
    let listed_a = listed(subject, "list-a").await;
    assert_eq!(listed_a.len(), 1, "one entry: {listed_a:?}");
    assert_eq!(comparable(subject, listed_a[0].clone()), comparable(subject, known), "list and fetch agree");
    assert_eq!(listed(subject, "list-b").await.len(), 1);
    assert_eq!(listed(subject, "list-c").await.len(), 0);
    assert_keys(subject, &listed_a[0], &["k"]);
    subject.remove("list-b", Scope::Public).await;
    assert_eq!(listed(subject, "list-b").await.len(), 0);
    // Whole again for the cases that follow.
    subject.put("list-a", Scope::Public, &[("k", b"v")]).await;
}

async fn describe(subject: &dyn Subject) {
    subject.mend().await;
    subject.put("describe-a", Scope::Public, &[("z", b"v"), ("k", b"v")]).await;
    subject.put("describe-b", Scope::Public, &[("k", b"v")]).await;
    let known = fetch(subject, "describe-a").await.description;
    subject.spoil_values().await;
    let names = ["describe-b", "describe-missing", "describe-a", "describe-b"];
    let described = subject.backend().describe(&names, Scopes::PrivateFirst).await.expect("describe");
    let shown: Vec<_> = described.iter().map(|one| one.as_ref().map(|one| one.name.as_str())).collect();
    assert_eq!(shown, [Some("describe-b"), None, Some("describe-a"), Some("describe-b")], "in the order asked");
    let described = described.into_iter().flatten().nth(1).expect("describe-a");
    assert_keys(subject, &described, &["k", "z"]);
    assert_eq!(comparable(subject, described), comparable(subject, known), "describe and fetch agree");
    assert_eq!(subject.backend().describe(&[], Scopes::PrivateFirst).await.expect("nothing asked"), []);
}

async fn fetch(subject: &dyn Subject, name: &str) -> Secret {
    match subject.backend().fetch(name, Scopes::PrivateFirst).await {
        Ok(secret) => secret,
        Err(error) => panic!("{name}: {error}, {:?}", error.hint()),
    }
}

async fn error(subject: &dyn Subject, name: &str) -> BackendError {
    match subject.backend().fetch(name, Scopes::PrivateFirst).await {
        Ok(_) => panic!("{name} was found"),
        Err(error) => error,
    }
}

async fn listed(subject: &dyn Subject, name: &str) -> Vec<Description> {
    let all = subject.backend().list().await.expect("list");
    all.into_iter().filter(|description| description.name == name).collect()
}

/// Without what need not be the same: keys, and versions where no listing tells them.
fn comparable(subject: &dyn Subject, description: Description) -> Description {
    let tells_versions = subject.backend().capabilities().cheap_list;
    let version = if tells_versions { description.version } else { String::new() };
    Description { keys: None, version, ..description }
}

fn assert_keys(subject: &dyn Subject, description: &Description, keys: &[&str]) {
    let promised = subject.backend().capabilities().keys_without_values;
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(description.keys, promised.then_some(keys));
}

fn assert_pairs(values: &SecretValues, pairs: &[(&str, &[u8])]) {
    let mut pairs = pairs.to_vec();
    pairs.sort_unstable();
    let found: Vec<_> = values.iter().map(|(key, value)| (key, value.expose())).collect();
    assert_eq!(found, pairs);
}

fn assert_no_value(error: &BackendError, value: &str) {
    let words: Vec<_> = error.to_string().split([' ', '`', ':']).map(str::to_owned).collect();
    assert!(words.iter().all(|word| word != value && (value.len() < 4 || !word.contains(value))), "{error}");
}
