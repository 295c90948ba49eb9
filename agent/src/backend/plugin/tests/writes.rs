//! Writes, through the plug-in in Python and through one in shell that cannot change a secret.

use std::fs;

use keyside_protocol::value::{SecretValue, SecretValues};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::super::{Backend as _, BackendError, Scope, Update, WriteBackend, WriteError};
use super::super::Plugin;
use super::{fetch, has_python, peer, plugin_of, shell};

fn values(pairs: &[(&str, &[u8])]) -> SecretValues {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretValue::copy_of(value))).collect()
}

fn set(pairs: &[(&str, Option<&str>)]) -> Update {
    let value = |value: Option<&str>| value.map(|text| SecretValue::copy_of(text.as_bytes()));
    Update { values: pairs.iter().map(|(key, text)| ((*key).to_owned(), value(*text))).collect(), ..Update::default() }
}

async fn shown(plugin: &Plugin, name: &str) -> Vec<(String, Vec<u8>)> {
    let secret = fetch(plugin, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    secret.values.iter().map(|(key, value)| (key.to_owned(), value.expose().to_vec())).collect()
}

fn python() -> Option<(TempDir, Plugin)> {
    if !has_python() {
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store.json");
    fs::write(&store, r#"{"secrets":[]}"#).expect("room");
    let command = vec!["/usr/bin/env".into(), "python3".into(), peer("plugin.py"), store.display().to_string()];
    Some((folder, plugin_of(command, 1000)))
}

#[tokio::test]
async fn a_secret_is_made_changed_renamed_and_removed() {
    let Some((_folder, plugin)) = python() else { return };
    let made = plugin.create("db", Scope::Public, values(&[("user", b"a"), ("raw", &[0xff])])).await.expect("made");
    assert_eq!((made.name.as_str(), made.scope, made.version.as_str()), ("db", Scope::Public, "1"));
    assert_eq!(made.keys, Some(vec!["raw".to_owned(), "user".to_owned()]));
    assert_eq!(shown(&plugin, "db").await, [("raw".to_owned(), vec![0xff]), ("user".to_owned(), b"a".to_vec())]);

    let again = plugin.create("db", Scope::Public, values(&[])).await;
    assert_eq!(again, Err(WriteError::Exists("a secret `db` is there already".into())));

    let changed = plugin.update("db", None, set(&[("user", Some("b")), ("raw", None)])).await.expect("changed");
    assert_eq!(changed.version, "2");
    assert_eq!(shown(&plugin, "db").await, [("user".to_owned(), b"b".to_vec())]);
    let missing = plugin.update("db", None, set(&[("nope", None)])).await;
    assert_eq!(missing, Err(WriteError::KeyNotFound("nope".into())));

    let stale = Update { if_version: Some("1".into()), ..set(&[("user", Some("c"))]) };
    assert_eq!(plugin.update("db", None, stale).await, Err(WriteError::VersionMismatch));
    assert_eq!(plugin.delete("db", None, Some("1")).await, Err(WriteError::VersionMismatch));

    let moved = Update { rename: Some("warehouse".into()), scope: Some(Scope::Private), ..Update::default() };
    let moved = plugin.update("db", None, Update { if_version: Some("2".into()), ..moved }).await.expect("moved");
    assert_eq!((moved.name.as_str(), moved.scope), ("warehouse", Scope::Private));
    assert!(matches!(fetch(&plugin, "db").await.map(|_| ()), Err(BackendError::NotFound)));

    plugin.create("warehouse", Scope::Public, values(&[])).await.expect("another scope");
    let ambiguous = plugin.delete("warehouse", None, None).await;
    assert!(matches!(ambiguous, Err(WriteError::Ambiguous { .. })), "{ambiguous:?}");
    plugin.delete("warehouse", Some(Scope::Private), Some("3")).await.expect("removed");
    plugin.delete("warehouse", None, None).await.expect("removed");
    assert_eq!(plugin.delete("warehouse", None, None).await, Err(BackendError::NotFound.into()));
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused_before_anything_is_asked() {
    let Some((_folder, plugin)) = python() else { return };
    let large = plugin.create("db", Scope::Public, values(&[("k", &[b'x'; 1001])])).await;
    let Err(WriteError::Invalid { what, hint: Some(_) }) = large else { panic!("{large:?}") };
    assert_eq!(what, "the value of key `k` is larger than 1000 bytes");
    plugin.create("db", Scope::Public, values(&[("k", &[b'x'; 1000])])).await.expect("made");
}

#[tokio::test]
async fn a_plug_in_without_versions_and_keys_is_read_for_them() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("secrets"), "").expect("room");
    let command = vec!["/bin/sh".into(), peer("plugin.sh"), folder.path().display().to_string()];
    let plugin = plugin_of(command, 1000);
    let pairs: &[(&str, &[u8])] = &[("a \"b\"\t", b"}}\n\\"), ("raw", &[0xff])];
    plugin.create("odd \"name\\", Scope::Private, values(pairs)).await.expect("made");
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
    assert_eq!(shown(&plugin, "odd \"name\\").await, pairs);
    let cannot = plugin.update("odd \"name\\", None, set(&[("k", Some("v"))])).await;
    let Err(WriteError::Backend(BackendError::Denied { what, hint: Some(_) })) = cannot else { panic!("{cannot:?}") };
    assert!(what.ends_with("it cannot `update`: it does not declare that method"), "{what}");
    plugin.delete("odd \"name\\", None, Some("1")).await.expect("removed");
    assert!(matches!(fetch(&plugin, "odd \"name\\").await.map(|_| ()), Err(BackendError::NotFound)));
    plugin.close().await;
}

#[tokio::test]
async fn without_a_version_of_its_own_the_values_are_compared() {
    let plugin = shell(
        r#"answer '"result":{"methods":["delete"]}'
        while next; do case $line in
            *'"delete"'*) reply '"result":null'; next;;
            *describe*) reply '"result":{}';;
            *) reply '"result":{"values":{"k":"v"}}';;
        esac; done"#,
    );
    let version = fetch(&plugin, "db").await.expect("found").description.version;
    assert_eq!(plugin.delete("db", None, Some("another")).await, Err(WriteError::VersionMismatch));
    plugin.delete("db", None, Some(&version)).await.expect("removed");
}

#[tokio::test]
async fn what_a_plug_in_says_to_a_write_is_passed_on() {
    for (error, expected) in [
        (json!({"class": "invalid", "message": "too odd"}), "plug-in of back-end `own`: too odd"),
        (json!({"class": "invalid", "reason": "exists"}), "a secret `db` is there already"),
        (json!({"class": "denied", "message": "no"}), "plug-in of back-end `own`: writing secret `db` is refused: no"),
        (json!({"class": "transient", "message": "later"}), "plug-in of back-end `own`: later"),
    ] {
        let error: Value = error;
        let plugin = shell(&format!(
            r#"answer '"result":{{"writable":true}}'
            while next; do case $line in
                *describe*) reply '"error":{{"class":"not_found"}}';;
                *) reply '"error":{error}';;
            esac; done"#
        ));
        let outcome = plugin.create("db", Scope::Public, values(&[])).await;
        assert_eq!(outcome.map_err(|error| error.to_string()), Err(expected.to_owned()), "{error}");
    }
}
