//! What is written, and what is left as it was.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use rustix::fs::{FlockOperation, flock};

use super::super::super::{BackendError, Scope, Update, WriteError};
use super::*;

fn set(pairs: &[(&str, Option<&str>)]) -> Update {
    let value = |value: &str| SecretValue::copy_of(value.as_bytes());
    Update {
        values: pairs.iter().map(|(key, text)| ((*key).to_owned(), text.map(value))).collect(),
        ..Update::default()
    }
}

#[tokio::test]
async fn a_secret_is_created_changed_renamed_and_deleted_and_the_others_stay_byte_for_byte() {
    let place = Place::of(REAL);
    let (reader, writer) = (place.reader(), place.writer());
    let created = writer.create("new", Scope::Public, values(&[("b", "2"), ("a", "")])).await.expect("created");
    assert_eq!(created.keys, Some(vec!["a".to_owned(), "b".to_owned()]));
    let lines = "new:\n  a: ''\n  b: Mg==\n  zenml_schema_name: arbitrary\n";
    let at = REAL.find("numeric_like:").expect("there");
    assert_eq!(place.text(), format!("{}{lines}{}", &REAL[..at], &REAL[at..]));

    let changed = writer.update("new", None, set(&[("c", Some("3")), ("a", None)])).await.expect("changed");
    assert_ne!(changed.version, created.version);
    assert_eq!(pairs(&*reader, "new").await, [("b".to_owned(), "2".to_owned()), ("c".to_owned(), "3".to_owned())]);

    let renamed = Update { rename: Some("zz".into()), ..Update::default() };
    assert_eq!(writer.update("new", None, renamed).await.expect("renamed").name, "zz");
    assert_eq!(error(&*reader, "new").await, BackendError::NotFound);
    assert_eq!(pairs(&*reader, "zz").await.len(), 2);

    writer.delete("zz", Some(Scope::Public), None).await.expect("deleted");
    assert_eq!(place.text(), REAL);
    assert_eq!(place.listing(), ["secrets.yaml"]);
}

#[tokio::test]
async fn the_schema_of_a_secret_stays() {
    let place = Place::of(REAL);
    place.writer().update("aws1", None, set(&[("aws_session_token", Some("t"))])).await.expect("changed");
    assert!(place.text().contains("  aws_session_token: dA==\n  zenml_schema_name: aws\n"));
}

#[tokio::test]
async fn the_first_secret_makes_a_file_for_its_owner_alone_and_the_last_leaves_what_zenml_leaves() {
    let place = Place::nowhere();
    let writer = place.writer();
    writer.create("db", Scope::Public, values(&[("k", "v")])).await.expect("created");
    assert_eq!(place.text(), "db:\n  k: dg==\n  zenml_schema_name: arbitrary\n");
    assert_eq!(fs::metadata(&place.path).expect("a file").mode() & 0o7777, 0o600);
    writer.delete("db", None, None).await.expect("deleted");
    assert_eq!(place.text(), "{}\n");
}

#[tokio::test]
async fn mode_owner_and_a_symbolic_link_stay_as_they_are() {
    let place = Place::nowhere();
    let target = place.folder().join("elsewhere.yaml");
    fs::write(&target, REAL).expect("room");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).expect("ours");
    let other =
        rustix::process::geteuid().is_root() && std::os::unix::fs::chown(&target, Some(1234), Some(4321)).is_ok();
    settle(&target);
    symlink(&target, &place.path).expect("a link");
    place.writer().create("new", Scope::Public, values(&[("k", "v")])).await.expect("created");
    assert!(fs::symlink_metadata(&place.path).expect("there").is_symlink());
    let metadata = fs::metadata(&target).expect("a file");
    assert_eq!(metadata.mode() & 0o7777, 0o640);
    if other {
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 4321));
    } else {
        eprintln!("skipped: only root may give the file to another user");
    }
    assert!(fs::read_to_string(&target).expect("text").contains("new:\n"));
    assert_eq!(k(&*place.reader(), "new").await, "v");
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_and_changes_nothing() {
    let place = Place::of(REAL);
    let writer = open(&place.path, 8).writer.expect("writable");
    let invalid = |result: Result<_, WriteError>, words: &str| match result {
        Err(WriteError::Invalid { what, .. }) => assert!(what.contains(words), "{what}"),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("written"),
    };
    for key in ["name", "zenml_schema_name"] {
        invalid(writer.create("x", Scope::Public, values(&[(key, "v")])).await, "uses the key");
        invalid(writer.update("simple", None, set(&[(key, Some("v"))])).await, "uses the key");
    }
    invalid(writer.create("", Scope::Public, values(&[])).await, "empty name");
    invalid(writer.create("x", Scope::Public, values(&[("", "v")])).await, "a key that is");
    invalid(writer.create("x", Scope::Public, values(&[("k", "123456789")])).await, "larger than 8 bytes");
    invalid(writer.create("x", Scope::Private, values(&[])).await, "no private secrets");
    invalid(
        writer.update("simple", None, Update { scope: Some(Scope::Private), ..Update::default() }).await,
        "private",
    );
    let bytes = [("k".to_owned(), SecretValue::new(vec![0xff]))].into_iter().collect();
    invalid(writer.create("x", Scope::Public, bytes).await, "not text");

    let rename = || Update { rename: Some("UPPER".into()), ..Update::default() };
    assert!(matches!(writer.create("simple", Scope::Public, values(&[])).await, Err(WriteError::Exists(_))));
    assert!(matches!(writer.update("simple", None, rename()).await, Err(WriteError::Exists(_))));
    assert_eq!(
        writer.update("simple", None, set(&[("no", None)])).await.err(),
        Some(WriteError::KeyNotFound("no".into()))
    );
    let missing = Some(WriteError::Backend(BackendError::NotFound));
    assert_eq!(writer.update("no", None, rename()).await.err(), missing);
    assert_eq!(writer.delete("no", None, None).await.err(), missing);
    assert_eq!(writer.delete("simple", Some(Scope::Private), None).await.err(), missing);
    assert_eq!(writer.delete("simple", None, Some("0")).await.err(), Some(WriteError::VersionMismatch));
    let stale = Update { if_version: Some("0".into()), ..set(&[("k", Some("v"))]) };
    assert_eq!(writer.update("simple", None, stale).await.err(), Some(WriteError::VersionMismatch));
    assert_eq!(place.text(), REAL);
    assert_eq!(place.listing(), ["secrets.yaml"]);
}

#[tokio::test]
async fn the_version_that_was_read_is_the_one_a_write_compares_with() {
    let place = Place::of(REAL);
    let described = place.reader().describe(&["simple"], Scopes::PrivateFirst).await.expect("described");
    let version = described.into_iter().flatten().next().expect("there").version;
    let update = Update { if_version: Some(version), ..set(&[("password", Some("new"))]) };
    let description = place.writer().update("simple", None, update).await.expect("changed");
    place.writer().delete("simple", None, Some(&description.version)).await.expect("deleted");
}

#[tokio::test]
async fn a_file_in_doubt_is_never_overwritten() {
    for text in ["", "db:\n  k: dg", "[a]\n", "a: &x {k: dg==}\nb: *x\n"] {
        let place = Place::of(text);
        let result = place.writer().create("new", Scope::Public, values(&[("k", "v")])).await;
        assert!(result.is_err(), "{text}");
        assert_eq!(place.text(), text);
        assert_eq!(place.listing(), ["secrets.yaml"]);
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_not_changed_but_can_be_deleted() {
    let place = Place::of("bad:\n  k: '*'\ngood:\n  k: dg==\n");
    let result = place.writer().update("bad", None, set(&[("l", Some("v"))])).await;
    assert!(matches!(result, Err(WriteError::Backend(BackendError::Unusable { .. }))));
    place.writer().update("good", None, set(&[("l", Some("v"))])).await.expect("changed");
    assert!(place.text().starts_with("bad:\n  k: '*'\ngood:\n  k: dg==\n  l: dg==\n"));
    place.writer().delete("bad", None, None).await.expect("deleted");
    assert!(place.text().starts_with("good:\n"));
}

#[tokio::test]
async fn of_many_writers_none_loses_what_another_wrote() {
    let place = Place::of("{}\n");
    let mut settings = settings(&place.path);
    settings.timeout = Duration::from_secs(60);
    let writers =
        (0..4).map(|_| super::super::super::open(&settings, MIB).expect("settings").writer.expect("writable"));
    let tasks: Vec<_> = writers
        .enumerate()
        .map(|(writer, backend)| {
            tokio::spawn(async move {
                for number in 0..10 {
                    let name = format!("secret-{writer}-{number}");
                    backend.create(&name, Scope::Public, values(&[("k", &name)])).await.expect("created");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let backend = place.reader();
    assert_eq!(backend.list().await.expect("a list").len(), 40);
    assert_eq!(k(&*backend, "secret-3-9").await, "secret-3-9");
    assert_eq!(place.listing(), ["secrets.yaml"]);
}

#[tokio::test]
async fn a_lock_that_another_holds_is_waited_for_and_then_named() {
    let place = Place::of(REAL);
    let directory = fs::File::open(place.directory()).expect("a directory");
    flock(&directory, FlockOperation::LockExclusive).expect("a lock");
    let result = place.writer().delete("simple", None, None).await;
    let Err(WriteError::Backend(error)) = result else { panic!("written") };
    check_error(&error, "transient", "holds a lock");
    assert_eq!(place.text(), REAL);
}

#[tokio::test]
async fn what_a_killed_writer_left_is_taken_away() {
    let place = Place::of(REAL);
    fs::write(place.directory().join(".secrets.yaml.keyside-new"), "half of it").expect("room");
    place.writer().delete("simple", None, None).await.expect("deleted");
    assert_eq!(place.listing(), ["secrets.yaml"]);
}

#[tokio::test]
async fn a_directory_that_may_not_be_written_is_named() {
    let place = Place::of(REAL);
    fs::set_permissions(place.directory(), fs::Permissions::from_mode(0o500)).expect("ours");
    let result = place.writer().delete("simple", None, None).await;
    fs::set_permissions(place.directory(), fs::Permissions::from_mode(0o700)).expect("ours");
    match result {
        Err(WriteError::Backend(error)) => {
            check_error(&error, "identity", "may not be written");
            assert_eq!(place.text(), REAL);
        }
        Ok(_) => eprintln!("skipped: this user may write everything"),
        Err(error) => panic!("{error:?}"),
    }
}
