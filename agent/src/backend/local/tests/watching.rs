//! Changes are noticed as they happen, each once, and nothing else is.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tokio::time::timeout;

use super::*;

/// Far longer than a change takes, and than the looks in between.
const DEADLINE: Duration = Duration::from_secs(20);

/// Long enough for what should not come.
const A_WHILE: Duration = Duration::from_millis(150);

async fn noticed(changes: &mut Receiver<u64>) {
    timeout(DEADLINE, changes.changed()).await.expect("the change was not noticed").expect("still watched");
}

async fn unnoticed(changes: &mut Receiver<u64>) {
    assert!(timeout(A_WHILE, changes.changed()).await.is_err(), "something was noticed");
}

#[tokio::test]
async fn every_way_of_changing_a_file_is_noticed() {
    let place = Place::of(REAL);
    let backend = place.reader();
    let mut changes = backend.changes().expect("a watch");
    unnoticed(&mut changes).await;
    fs::write(&place.path, "{}\n").expect("truncated and written");
    noticed(&mut changes).await;
    let new = place.directory().join("new");
    fs::write(&new, REAL).expect("room");
    unnoticed(&mut changes).await;
    fs::rename(&new, &place.path).expect("replaced");
    noticed(&mut changes).await;
    fs::remove_file(&place.path).expect("deleted");
    noticed(&mut changes).await;
    fs::write(&place.path, REAL).expect("made again");
    noticed(&mut changes).await;
    fs::rename(place.directory(), place.folder().join("away")).expect("the directory vanishes");
    noticed(&mut changes).await;
    fs::create_dir(place.directory()).expect("the directory again");
    fs::write(&place.path, "{}\n").expect("room");
    noticed(&mut changes).await;
    fs::write(&place.path, REAL).expect("in the new directory");
    noticed(&mut changes).await;
}

#[tokio::test]
async fn a_link_on_the_way_that_is_turned_round_is_noticed() {
    // As Kubernetes updates a volume.
    let place = Place::nowhere();
    let directory = place.directory();
    for (version, text) in [("1", "{}\n"), ("2", REAL)] {
        fs::create_dir(directory.join(version)).expect("a directory");
        fs::write(directory.join(version).join("secrets.yaml"), text).expect("room");
    }
    symlink("1", directory.join("data")).expect("a link");
    symlink("data/secrets.yaml", &place.path).expect("a link");
    let backend = place.reader();
    let mut changes = backend.changes().expect("a watch");
    unnoticed(&mut changes).await;
    symlink("2", directory.join("new")).expect("a link");
    fs::rename(directory.join("new"), directory.join("data")).expect("turned round");
    noticed(&mut changes).await;
    fs::write(directory.join("2/secrets.yaml"), "{}\n").expect("where the link leads");
    noticed(&mut changes).await;
}

#[tokio::test]
async fn others_in_the_directory_and_readers_of_the_file_are_not_noticed() {
    let place = Place::of(REAL);
    let backend = place.reader();
    let mut changes = backend.changes().expect("a watch");
    for number in 0..500 {
        fs::write(place.directory().join(format!("{}.tmp", number % 7)), "x").expect("room");
        fs::read(&place.path).expect("a file");
    }
    unnoticed(&mut changes).await;
    fs::write(&place.path, "{}\n").expect("room");
    noticed(&mut changes).await;
}

#[tokio::test]
async fn all_who_ask_hear_of_changes_until_the_back_end_is_closed() {
    let place = Place::of(REAL);
    let backend = place.reader();
    let (mut one, mut two) = (backend.changes().expect("a watch"), backend.changes().expect("a watch"));
    fs::write(&place.path, "{}\n").expect("room");
    noticed(&mut one).await;
    noticed(&mut two).await;
    // What wakes the watch, more than it can take.
    (0..50).for_each(|number| fs::write(place.directory().join(number.to_string()), "").expect("room"));
    backend.close().await;
    drop(two);
    timeout(DEADLINE, async { while one.changed().await.is_ok() {} }).await.expect("the watch ends");
}
