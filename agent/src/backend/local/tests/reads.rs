//! What is read, and what a file that is not there, not whole or not a file means.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, SystemTime};

use super::super::super::{BackendError, Scopes};
use super::super::file::MAX_FILE_BYTES;
use super::*;

#[tokio::test]
async fn the_real_file_is_served() {
    let place = Place::of(REAL);
    let backend = place.reader();
    assert_eq!(backend.list().await.expect("a list").len(), 18);
    assert_eq!(k(&*backend, "both_scopes").await, "public-or-workspace");
    assert_eq!(pairs(&*backend, "empty_secret").await, []);
    assert_eq!(pairs(&*backend, "long_value").await[0].1, "x".repeat(20_000));
    for scopes in [Scopes::PrivateFirst, Scopes::PublicFirst, Scopes::PublicOnly] {
        assert!(backend.fetch("simple", scopes).await.is_ok());
    }
    assert_eq!(backend.fetch("simple", Scopes::PrivateOnly).await.err(), Some(BackendError::NotFound));
    let described = backend.describe(&["simple"], Scopes::PrivateFirst).await.expect("described");
    let simple = described[0].as_ref().expect("there");
    assert_eq!(simple.keys, Some(vec!["password".to_owned(), "username".to_owned()]));
    assert_eq!((simple.scope_label, &simple.id), (None, &None));
    assert_eq!(place.text(), REAL, "reading changed the file");
}

#[tokio::test]
async fn a_version_tells_nothing_and_is_the_same_for_everybody_who_reads_the_same() {
    let place = Place::of("a:\n  k: dg==\nb:\n  k: dg==\nc:\n  k: dw==\n");
    let version = async |name: &str| {
        let described = place.reader().describe(&[name], Scopes::PrivateFirst).await.expect("described");
        described[0].as_ref().expect("there").version.clone()
    };
    let (a, b, c) = (version("a").await, version("b").await, version("c").await);
    assert_eq!(a, version("a").await, "another reader");
    assert_eq!(a, b, "the same content");
    assert_ne!(a, c);
    assert_eq!(a.len(), 32);
    place.write("# moved, and in another style\nb: {k: \"dg==\"}\na:\n    k:   'dg=='\n");
    assert_eq!(version("a").await, a);
    place.write("a:\n  k: dg==\n  l: ''\n");
    assert_ne!(version("a").await, a);
}

#[tokio::test]
async fn no_file_in_a_directory_that_is_there_means_no_secrets() {
    let place = Place::nowhere();
    let backend = place.reader();
    settle(place.directory());
    assert_eq!(backend.list().await.expect("an answer"), []);
    assert_eq!(error(&*backend, "db").await, BackendError::NotFound);
    place.write("{}\n");
    assert_eq!(error(&*backend, "db").await, BackendError::NotFound);
    place.write(REAL);
    assert!(!pairs(&*backend, "simple").await.is_empty());
    fs::remove_file(&place.path).expect("ours");
    assert_eq!(error(&*backend, "simple").await, BackendError::NotFound, "deleted");
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_an_outage_and_no_absence() {
    let place = Place::of(REAL);
    let backend = place.reader();
    fs::rename(place.directory(), place.folder().join("away")).expect("ours");
    check_error(&error(&*backend, "simple").await, "transient", "there is no directory");
    check_error(&backend.list().await.expect_err("no answer"), "transient", "there is no directory");
    fs::write(place.directory(), "a file in its place").expect("ours");
    check_error(&error(&*backend, "simple").await, "identity", "is no path to a file");
}

#[tokio::test]
async fn a_file_that_vanished_with_its_file_system_is_an_outage_and_no_absence() {
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else { return eprintln!("skipped: no second file system") };
    let place = Place::of(REAL);
    if std::os::unix::fs::MetadataExt::dev(&fs::metadata(memory.path()).expect("there"))
        == std::os::unix::fs::MetadataExt::dev(&fs::metadata(place.directory()).expect("there"))
    {
        return eprintln!("skipped: no second file system");
    }
    let mount = place.folder().join("mount");
    symlink(place.directory(), &mount).expect("a link");
    let backend = open(&mount.join("secrets.yaml"), MIB).reader;
    assert!(!pairs(&*backend, "simple").await.is_empty());
    fs::remove_file(&mount).expect("ours");
    symlink(memory.path(), &mount).expect("a link");
    check_error(&error(&*backend, "simple").await, "transient", "together with the file system");
    fs::write(memory.path().join("secrets.yaml"), "db:\n  k: dg==\n").expect("room");
    assert_eq!(k(&*backend, "db").await, "v", "moved there");
}

#[tokio::test]
async fn directories_that_zenml_has_not_made_yet_are_an_absence_below_the_one_that_must_be_there() {
    let place = Place::nowhere();
    let local =
        LocalSettings { path: place.directory().join("0fe4c8d7/secrets.yaml"), base: place.directory().to_owned() };
    let settings = BackendSettings { kind: BackendKind::Local(local), ..settings(&place.path) };
    let backend = super::super::super::open(&settings, MIB).expect("settings").reader;
    assert_eq!(error(&*backend, "db").await, BackendError::NotFound);
    fs::remove_dir(place.directory()).expect("ours");
    check_error(&error(&*backend, "db").await, "transient", "there is no directory");
}

#[tokio::test]
async fn a_file_that_may_be_half_written_is_an_outage_and_no_absence() {
    let place = Place::of("");
    let backend = place.reader();
    check_error(&error(&*backend, "simple").await, "transient", "is empty");
    for half in [REAL.len() / 3, REAL.len() / 2, REAL.len() - 1] {
        place.write(&REAL[..half]);
        check_error(&error(&*backend, "simple").await, "transient", "secrets.yaml");
        check_error(&error(&*backend, "never-there").await, "transient", "secrets.yaml");
        backend.list().await.expect_err("no listing of half a file");
    }
    place.write(b"db:\n  k: \xff\xfe\n");
    check_error(&error(&*backend, "db").await, "transient", "not UTF-8");
    place.write("- a list\n");
    check_error(&error(&*backend, "db").await, "transient", "not a map of secrets");
    place.write(REAL);
    assert!(!pairs(&*backend, "simple").await.is_empty());
}

#[tokio::test]
async fn a_file_that_was_touched_a_moment_ago_is_read_when_it_has_settled() {
    let place = Place::nowhere();
    // Half of it, a moment ago: a reader that did not wait would find no `late`.
    fs::write(&place.path, "early:\n  k: dg==\n").expect("room");
    let backend = place.reader();
    let late = tokio::spawn(async move { k(&*backend, "late").await });
    tokio::task::yield_now().await;
    let mut file = fs::OpenOptions::new().append(true).open(&place.path).expect("a file");
    std::io::Write::write_all(&mut file, b"late:\n  k: bGF0ZQ==\n").expect("room");
    drop(file);
    assert_eq!(late.await.expect("an answer"), "late");
}

#[tokio::test]
async fn a_clock_ahead_of_ours_does_not_keep_a_file_from_being_read() {
    let place = Place::of("db:\n  k: dg==\n");
    let ahead = SystemTime::now() + Duration::from_secs(600);
    fs::File::open(&place.path).and_then(|file| file.set_modified(ahead)).expect("ours");
    assert_eq!(k(&*place.reader(), "db").await, "v");
}

#[tokio::test]
async fn what_is_no_file_is_a_wrong_setting_and_never_waited_for() {
    let place = Place::nowhere();
    let backend = place.reader();
    fs::create_dir(&place.path).expect("ours");
    check_error(&error(&*backend, "db").await, "identity", "is a directory");
    fs::remove_dir(&place.path).expect("ours");

    rustix::fs::mknodat(rustix::fs::CWD, &place.path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a FIFO");
    check_error(&error(&*backend, "db").await, "identity", "not a regular file");
    fs::remove_file(&place.path).expect("ours");

    symlink(&place.path, &place.path).expect("a link");
    check_error(&error(&*backend, "db").await, "identity", "circle");
    fs::remove_file(&place.path).expect("ours");

    symlink(place.folder().join("nothing"), &place.path).expect("a link");
    check_error(&error(&*backend, "db").await, "transient", "a symbolic link to nothing");
    fs::write(place.folder().join("nothing"), "db:\n  k: dg==\n").expect("room");
    assert_eq!(k(&*backend, "db").await, "v");
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_a_wrong_setting() {
    let place = Place::of(REAL);
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o000)).expect("ours");
    if fs::File::open(&place.path).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    check_error(&error(&*place.reader(), "simple").await, "identity", "may not be read");
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o600)).expect("ours");
}

#[tokio::test]
async fn a_file_beyond_the_limit_is_not_read() {
    let place = Place::nowhere();
    let file = fs::File::create(&place.path).expect("a file");
    file.set_len(MAX_FILE_BYTES + 1).expect("sparse");
    check_error(&error(&*place.reader(), "db").await, "transient", "larger than 16 MiB");
}

#[tokio::test]
async fn one_secret_that_cannot_be_served_leaves_the_others_alone_and_is_not_quoted() {
    let place = Place::of("bad:\n  k: Y2FuYXJ5IQ\nodd: Y2FuYXJ5\ngood:\n  k: dg==\nlong:\n  k: dmFsdWU=\n");
    let backend = open(&place.path, 4).reader;
    assert_eq!(k(&*backend, "good").await, "v");
    for (name, words) in [("bad", "not base64"), ("odd", "not a map"), ("long", "too large")] {
        let error = error(&*backend, name).await;
        check_error(&error, "unusable", words);
        assert!(!error.to_string().contains("Y2Fu") && !error.to_string().contains("canary"), "{error}");
    }
    assert_eq!(backend.list().await.expect("a list").len(), 4);
    let described = backend.describe(&["odd", "bad"], Scopes::PrivateFirst).await.expect("described");
    let keys: Vec<_> = described.into_iter().map(|one| one.expect("there").keys.expect("known")).collect();
    assert_eq!(keys, [Vec::new(), vec!["k".to_owned()]]);
}

#[tokio::test]
async fn a_closed_back_end_says_so() {
    let backend = Place::of(REAL).reader();
    backend.close().await;
    let error = error(&*backend, "simple").await;
    assert!(error.is_transient() && error.to_string().contains("closed"), "{error}");
}
