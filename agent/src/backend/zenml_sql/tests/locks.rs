//! Beside a live writer: what we hold, and what we wait for.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use super::*;
use crate::backend::{Scope, WriteError};

#[tokio::test]
async fn no_lock_is_held_between_calls() {
    let store = Store::fixture("zenml-0.98.0-plain");
    let backend = store.reader();
    backend.list().await.expect("list");
    backend.describe(&["simple", "no such"], Scopes::PrivateFirst).await.expect("describe");
    backend.fetch("simple", Scopes::PrivateFirst).await.map(drop).expect("fetch");
    assert_eq!(error(&*backend, "no such").await, BackendError::NotFound);
    // Without any busy time-out: one lingering SHARED lock would fail it.
    let mut zenml = store.other_program().await;
    execute(&mut zenml, "BEGIN EXCLUSIVE; UPDATE secret SET name = 'renamed' WHERE name = 'simple'; COMMIT").await;
    assert_eq!(pairs(&*backend, "renamed", Scopes::PublicOnly).await.len(), 2);
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_no_lock() {
    let store = Store::fixture("zenml-0.98.0-plain");
    let backend = store.reader();
    for _ in 0..50 {
        let mut list = backend.list();
        // Polled into its first steps, then dropped wherever it stands.
        for _ in 0..3 {
            let pending = poll_fn(|context| Poll::Ready(list.as_mut().poll(context).is_pending())).await;
            assert!(pending, "a list takes many steps");
            tokio::task::yield_now().await;
        }
    }
    let mut zenml = store.other_program().await;
    // The dropped connections end on their own threads.
    let deadline = Instant::now() + Duration::from_secs(5);
    while sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut zenml).await.is_err() {
        assert!(Instant::now() < deadline, "a lock is still held");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_locked_file_is_transient_well_before_the_deadline() {
    let store = Store::fixture("zenml-0.98.0-plain");
    let options = Options { timeout: Duration::from_millis(400), ..Options::default() };
    let opened = store.open(&options);
    let mut zenml = store.other_program().await;
    execute(&mut zenml, "BEGIN EXCLUSIVE").await;
    let begun = Instant::now();
    let locked = error(&*opened.reader, "simple").await;
    check_error(&locked, "transient", "locked by another program", "migration");
    assert!(begun.elapsed() >= Duration::from_millis(100), "it waits a while for the lock");
    let written = opened.writer.expect("writable").create("new", Scope::Public, values(&[])).await;
    assert_eq!(written.expect_err("locked"), WriteError::Backend(locked));
    execute(&mut zenml, "ROLLBACK").await;
    assert_eq!(pairs(&*opened.reader, "simple", Scopes::PublicOnly).await.len(), 2);
}

#[tokio::test]
async fn a_lock_that_goes_away_is_waited_for() {
    let store = Store::fixture("zenml-0.98.0-plain");
    let backend = store.reader();
    let mut zenml = store.other_program().await;
    execute(&mut zenml, "BEGIN EXCLUSIVE").await;
    let fetch = tokio::spawn(async move { pairs(&*backend, "simple", Scopes::PublicOnly).await.len() });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    execute(&mut zenml, "ROLLBACK").await;
    assert_eq!(fetch.await.expect("no panic"), 2);
}

#[tokio::test]
async fn a_writer_is_not_kept_waiting_by_readers() {
    let store = Store::new().await;
    let owner = store.ask("SELECT id FROM user").await;
    store
        .sql(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
             INSERT INTO secret SELECT lower(hex(randomblob(16))), '2026-01-01', '2026-01-01', 'n' || i, 0, 0,
             CAST('e30=' AS BLOB), '{owner}' FROM n"
        ))
        .await;
    let backend = store.reader();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (backend, stop) = (Arc::clone(&backend), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut lists = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(backend.list().await.expect("list").len(), 20_000);
                    lists += 1;
                }
                lists
            })
        })
        .collect();
    // As ZenML: a busy time-out of five seconds.
    let options = SqliteConnectOptions::new().filename(&store.path).busy_timeout(Duration::from_secs(5));
    let mut zenml = options.connect().await.expect("a connection");
    let mut slowest = Duration::ZERO;
    for run in 0..30 {
        let begun = Instant::now();
        execute(&mut zenml, &format!("UPDATE secret SET updated = '2026-01-01 00:00:{run:02}' WHERE name = 'n1'"))
            .await;
        slowest = slowest.max(begun.elapsed());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.expect("no panic") > 0, "each read while the writer wrote");
    }
    // Far from the five seconds after which ZenML would fail, on a slow machine too.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
