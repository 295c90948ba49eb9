//! The files of the real library, against what was put into them.

use std::collections::BTreeMap;

use super::*;
use crate::backend::Scope;

pub(super) const KEY: &str = "fixture-encryption-key-Ünïcode";

type Content = BTreeMap<String, BTreeMap<String, String>>;

fn cases(part: &str) -> Content {
    let text = fs::read_to_string(fixtures_folder().join("cases.json")).expect("the cases");
    let mut all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    serde_json::from_value(all[part].take()).expect("names, keys, values")
}

async fn check_content(name: &str, key: Option<&'static str>, public: &Content, private: &Content) {
    let store = Store::fixture(name);
    let backend = store.open(&Options { key, ..Options::default() }).reader;
    for (content, scopes, scope) in
        [(public, Scopes::PublicOnly, Scope::Public), (private, Scopes::PrivateOnly, Scope::Private)]
    {
        for (secret, expected) in content {
            let found = pairs(&*backend, secret, scopes).await;
            assert!(found.iter().map(|(k, v)| (k, v)).eq(expected.iter()), "{name}: {secret}");
        }
        let listed = backend.list().await.expect("list");
        let mut names: Vec<_> = listed.iter().filter(|one| one.scope == scope).map(|one| one.name.clone()).collect();
        names.sort_unstable();
        assert!(names.iter().eq(content.keys()), "{name}: {names:?}");
    }
}

#[tokio::test]
async fn every_real_data_base_gives_exactly_its_content() {
    let (public, private) = (cases("public"), cases("private"));
    let mut newer = public.clone();
    newer.extend(cases("only_0.98.0"));
    check_content("zenml-0.43.1-plain", None, &public, &private).await;
    check_content("zenml-0.43.1-enc", Some(KEY), &public, &private).await;
    check_content("zenml-0.43.1-with-local-secrets-manager", None, &Content::new(), &Content::new()).await;
    check_content("zenml-0.98.0-plain", None, &newer, &private).await;
    check_content("zenml-0.98.0-enc", Some(KEY), &newer, &private).await;
}

#[tokio::test]
async fn scopes_and_ids_are_called_as_zenml_calls_them() {
    let check = async |name: &str, private: &str, public: &str| {
        let store = Store::fixture(name);
        let backend = store.reader();
        for (scopes, label) in [(Scopes::PrivateFirst, private), (Scopes::PublicFirst, public)] {
            let description = backend.describe(&["both_scopes"], scopes).await.expect("describe").remove(0);
            let description = description.expect("it is there");
            assert_eq!(description.scope_label.map(ScopeLabel::as_str), Some(label), "{name}");
            let id = description.id.expect("an id");
            let parts: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
            assert!(description.version.starts_with(&id), "{}", description.version);
        }
    };
    check("zenml-0.43.1-plain", "user", "workspace").await;
    check("zenml-0.98.0-plain", "private", "public").await;
}

#[tokio::test]
async fn a_wrong_or_missing_key_names_the_setting_and_no_value() {
    for name in ["zenml-0.43.1", "zenml-0.98.0"] {
        let encrypted = Store::fixture(&format!("{name}-enc"));
        let without = error(&*encrypted.reader(), "simple").await;
        check_error(&without, "identity", "`simple` is encrypted", "`encryption_key_env` or `encryption_key_file`");
        let wrong = encrypted.open(&Options { key: Some("wrong"), ..Options::default() }).reader;
        check_error(&error(&*wrong, "simple").await, "identity", "does not fit", "variable `KEY`");

        let plain = Store::fixture(&format!("{name}-plain"));
        let needless = plain.open(&Options { key: Some("any"), ..Options::default() }).reader;
        check_error(&error(&*needless, "simple").await, "identity", "stored in plain", "remove `encryption_key_env`");
        // An empty key is none, as in ZenML.
        let empty = plain.open(&Options { key: Some(""), ..Options::default() }).reader;
        assert_eq!(pairs(&*empty, "simple", Scopes::PublicOnly).await.len(), 2);
    }
}

#[tokio::test]
async fn existence_needs_no_key() {
    let store = Store::fixture("zenml-0.98.0-enc");
    let backend = store.reader();
    let described = backend.describe(&["simple", "no such"], Scopes::PrivateFirst).await.expect("describe");
    assert!(described[0].is_some() && described[1].is_none());
    assert_eq!(backend.list().await.expect("list").len(), 21);
}

#[tokio::test]
async fn names_are_exact() {
    for name in ["zenml-0.43.1-plain", "zenml-0.98.0-plain"] {
        let store = Store::fixture(name);
        let backend = store.reader();
        assert_eq!(pairs(&*backend, "UPPER", Scopes::PublicOnly).await[0].1, "upper");
        assert_eq!(pairs(&*backend, "upper", Scopes::PublicOnly).await[0].1, "lower");
        for wrong in ["Upper", "prefi", "prefix%", " simple", "With Spaces ", ""] {
            assert_eq!(error(&*backend, wrong).await, BackendError::NotFound, "{wrong}");
        }
    }
}

#[tokio::test]
async fn a_secret_is_not_found_by_its_id() {
    let store = Store::fixture("zenml-0.98.0-plain");
    let id = store.ask("SELECT id FROM secret WHERE name = 'simple'").await;
    assert_eq!(error(&*store.reader(), &id).await, BackendError::NotFound);
    assert_eq!(error(&*store.reader(), &super::super::read::dashed(&id)).await, BackendError::NotFound);
}
