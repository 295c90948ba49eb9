//! Files that are missing, of the wrong kind, broken, or left behind by a program that died.

use std::os::unix::fs::PermissionsExt;

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::*;
use crate::backend::{Scope, WriteError};

/// Runs `test` in a thread of its own where permissions count, also for root.
fn without_privileges(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).expect("dropping is always allowed");
        // Threads made by this one, SQLite's workers too, have as little.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
    });
    thread.join().expect("no panic");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
}

async fn check_file(store: &Store, class: &str, words: &str, hint: &str) {
    let backend = store.reader();
    let fetched = error(&*backend, "simple").await;
    check_error(&fetched, class, words, hint);
    assert!(fetched.to_string().contains("zenml.db") && fetched.to_string().contains("`store`"), "{fetched}");
    assert_eq!(backend.list().await.expect_err("broken"), fetched);
    assert_eq!(backend.describe(&["simple"], Scopes::PublicOnly).await.expect_err("broken"), fetched);
}

#[tokio::test]
async fn what_is_no_data_base_is_named_with_a_hint() {
    let missing = Store::nowhere();
    check_file(&missing, "transient", "does not exist", "check `url` of back-end `store`").await;

    let directory = Store::nowhere();
    fs::create_dir(&directory.path).expect("a directory");
    check_file(&directory, "identity", "is a directory", "check `url`").await;

    let special = Store::nowhere();
    rustix::fs::mknodat(rustix::fs::CWD, &special.path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a FIFO");
    check_file(&special, "identity", "not a regular file", "check `url`").await;

    let empty = Store::nowhere();
    fs::write(&empty.path, "").expect("a file");
    check_file(&empty, "transient", "is empty", "check `url`").await;

    let text = Store::nowhere();
    fs::write(&text.path, "[backend.store]\n".repeat(100)).expect("a file");
    check_file(&text, "transient", "is not an SQLite data base", "check `url`").await;

    let other = Store::nowhere();
    let options = SqliteConnectOptions::new().filename(&other.path).create_if_missing(true);
    let mut connection = options.connect().await.expect("a new file");
    execute(&mut connection, "CREATE TABLE something (id)").await;
    check_file(&other, "identity", "holds no table `secret`", "0.35").await;
    execute(&mut connection, "CREATE TABLE secret (id, name, \"values\")").await;
    check_file(&other, "identity", "not ZenML's", "0.35").await;
}

#[tokio::test]
async fn a_damaged_data_base_is_transient() {
    let store = Store::fixture("zenml-0.98.0-plain");
    let mut bytes = fs::read(&store.path).expect("the copy");
    let length = bytes.len();
    // The header stays: it is a data base, but its pages are gone.
    bytes[100..length].fill(0xa5);
    fs::write(&store.path, &bytes).expect("write");
    check_file(&store, "transient", "is damaged", "copy").await;
    // Half copied.
    let store = Store::fixture("zenml-0.98.0-plain");
    fs::OpenOptions::new().write(true).open(&store.path).expect("open").set_len(5000).expect("cut");
    check_file(&store, "transient", "is damaged", "copy").await;
}

#[test]
fn an_unreadable_file_or_folder_is_an_error_of_rights() {
    let store = Store::fixture("zenml-0.98.0-plain");
    set_mode(&store.path, 0o000);
    without_privileges(async move || {
        check_file(&store, "identity", "may not be read", "read permission").await;
        set_mode(&store.path, 0o600);
        assert!(store.reader().list().await.is_ok(), "readable again");
        set_mode(store.folder(), 0o000);
        let backend = store.reader();
        check_error(&error(&*backend, "simple").await, "identity", "may not be read", "search permission");
        set_mode(store.folder(), 0o700);
        assert!(backend.list().await.is_ok(), "readable again");
    });
}

#[test]
fn a_file_that_may_not_be_written_still_reads() {
    let store = Store::fixture("zenml-0.98.0-plain");
    set_mode(&store.path, 0o400);
    set_mode(store.folder(), 0o500);
    without_privileges(async move || {
        assert_eq!(store.reader().list().await.expect("list").len(), 21);
        let error = store.writer().create("new", Scope::Public, values(&[])).await.expect_err("read-only");
        let WriteError::Backend(error) = error else { panic!("{error}") };
        check_error(&error, "identity", "writ", "write permission");
        set_mode(store.folder(), 0o700);
    });
}

/// Copies the file and what lies beside it while `connection` is in the middle of something: what a program leaves
/// behind that is killed there.
fn killed_copy(store: &Store, suffixes: &[&str]) -> Store {
    let copy = Store::nowhere();
    for suffix in suffixes {
        let name = format!("zenml.db{suffix}");
        fs::copy(store.folder().join(&name), copy.folder().join(&name)).expect("what is left behind");
    }
    copy
}

#[tokio::test]
async fn a_hot_journal_is_transient_until_somebody_recovers_it() {
    let store = Store::fixture("zenml-0.98.0-plain");
    let mut zenml = store.other_program().await;
    // A cache of ten pages spills the transaction's pages into the file before it commits.
    execute(&mut zenml, "PRAGMA cache_size = 10; BEGIN; UPDATE secret SET name = name || 'x', \"values\" = 'e30='")
        .await;
    execute(&mut zenml, "CREATE TABLE filler AS SELECT a.* FROM secret a, secret b, secret c").await;
    let killed = killed_copy(&store, &["", "-journal"]);
    drop(zenml);
    check_file(&killed, "transient", "hot journal", "zenml secret list").await;
    // Recovered by the next program that may write: the half-done change is undone.
    assert_eq!(killed.ask("SELECT count(*) FROM secret WHERE name LIKE '%x'").await, "2");
    assert_eq!(pairs(&*killed.reader(), "simple", Scopes::PublicOnly).await.len(), 2);
}

#[tokio::test]
async fn a_write_ahead_log_is_read_beside_its_writer() {
    let store = Store::fixture("zenml-0.98.0-plain");
    let mut zenml = store.other_program().await;
    execute(&mut zenml, "PRAGMA journal_mode = WAL; UPDATE secret SET name = 'renamed' WHERE name = 'simple'").await;
    let backend = store.reader();
    assert_eq!(pairs(&*backend, "renamed", Scopes::PublicOnly).await.len(), 2);
    assert_eq!(error(&*backend, "simple").await, BackendError::NotFound);
    // No connection of ours is left that would keep the writer from going back.
    execute(&mut zenml, "PRAGMA journal_mode = DELETE").await;
    assert_eq!(store.ask("PRAGMA journal_mode").await, "delete");
}

#[test]
fn a_write_ahead_log_that_cannot_be_opened_is_transient() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let killed = runtime.block_on(async {
        let store = Store::fixture("zenml-0.98.0-plain");
        let mut zenml = store.other_program().await;
        execute(&mut zenml, "PRAGMA journal_mode = WAL; UPDATE secret SET name = 'renamed' WHERE name = 'simple'")
            .await;
        killed_copy(&store, &["", "-wal"])
    });
    set_mode(killed.folder(), 0o500);
    without_privileges(async move || {
        check_file(&killed, "transient", "write-ahead log that cannot be opened", "write permission").await;
        // With the right to make the log's index, all that was committed is there.
        set_mode(killed.folder(), 0o700);
        assert_eq!(pairs(&*killed.reader(), "renamed", Scopes::PublicOnly).await.len(), 2);
    });
}

#[tokio::test]
async fn a_replaced_file_is_read_anew() {
    let store = Store::fixture("zenml-0.98.0-plain");
    let backend = store.reader();
    assert_eq!(pairs(&*backend, "simple", Scopes::PublicOnly).await.len(), 2);
    let other = Store::fixture("zenml-0.98.0-plain");
    other.sql("UPDATE secret SET name = 'replaced' WHERE name = 'simple'").await;
    fs::rename(&other.path, &store.path).expect("replace");
    assert_eq!(error(&*backend, "simple").await, BackendError::NotFound);
    assert_eq!(pairs(&*backend, "replaced", Scopes::PublicOnly).await.len(), 2);
    fs::remove_file(&store.path).expect("remove");
    check_error(&error(&*backend, "replaced").await, "transient", "does not exist", "`url`");
    fs::create_dir(&store.path).expect("a directory");
    check_error(&error(&*backend, "replaced").await, "identity", "is a directory", "`url`");
}

#[tokio::test]
async fn a_path_with_characters_that_mean_something_in_a_url_is_just_a_path() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["a?mode=memory", "a#b", "a%20b", "a b", "ü", "file:x"] {
        let path = folder.path().join(name);
        fs::copy(fixtures_folder().join("db/zenml-0.98.0-plain.db"), &path).expect("the fixture");
        let opened = open_path(&path, &Options::default());
        assert_eq!(opened.reader.list().await.expect(name).len(), 21);
    }
}

#[tokio::test]
async fn a_closed_back_end_answers_no_more() {
    let store = Store::fixture("zenml-0.98.0-plain");
    let backend = store.reader();
    backend.list().await.expect("list");
    backend.close().await;
    assert!(error(&*backend, "simple").await.is_transient());
}
