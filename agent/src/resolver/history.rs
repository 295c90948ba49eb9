//! A history: what many readers were served while a back-end changed, failed, lost secrets and came back, and what must
//! hold of all of it.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::tests::options;
use super::*;
use crate::backend::fake::FakeBackend;
use crate::backend::{Opened, Scope};
use crate::refresh;
use crate::timer::Timer;

const TTL: Duration = Duration::from_millis(600);
const MAX_STALE: Duration = Duration::from_millis(1500);
const POLL: Duration = Duration::from_millis(300);
const NAMES: [&str; 3] = ["a", "b", "c"];
const CLIENTS: usize = 8;
/// How long after an authoritative denial the last reader may still have been served.
const DELTA: Duration = Duration::from_secs(1);

/// What one reader was served once.
struct Served {
    at: Instant,
    client: usize,
    name: &'static str,
    outcome: Result<(String, u64, Duration), BackendError>,
}

struct Scene {
    store: Arc<FakeBackend>,
    history: Mutex<Vec<Served>>,
    begun: AtomicU64,
    over: AtomicBool,
}

/// Reads one name after the other until the scene is over.
async fn read(scene: Arc<Scene>, resolver: Arc<Resolver>, client: usize) {
    for name in NAMES.into_iter().cycle().skip(client) {
        if scene.over.load(Ordering::Relaxed) {
            return;
        }
        scene.begun.fetch_add(1, Ordering::Relaxed);
        let found = resolver.secret(name, Selection::default(), Want::Usual).await;
        let outcome = found.map_err(|miss| miss.error).map(|found| {
            let cached = &found.hit.cached;
            (cached.secret.version().into_owned(), cached.revision(), found.hit.age)
        });
        lock(&scene.history).push(Served { at: Instant::now(), client, name, outcome });
        // The load, not a wait for anything.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

impl Scene {
    /// Lets the readers go on for `span`.
    async fn goes_on(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    /// Returns the versions of `name` that were served after `since`.
    fn served_after(&self, name: &str, since: Instant) -> Vec<String> {
        let history = lock(&self.history);
        let served = history.iter().filter(|served| served.name == name && served.at > since);
        served.filter_map(|served| Some(served.outcome.as_ref().ok()?.0.clone())).collect()
    }
}

async fn play(polls: bool) {
    let store = Arc::new(FakeBackend::new().cheap_list(polls));
    NAMES.iter().for_each(|name| store.put(name, Scope::Public, &[("k", "0")]));
    let policy = Policy { ttl: TTL, max_stale: MAX_STALE, negative_ttl: POLL, deny_on_identity_failure: false };
    let source = Source::new(options("store"), Opened { reader: Arc::clone(&store) as _, writer: None, values: None });
    let bounds = Bounds { max_bytes: 1 << 20, max_entries: 1000 };
    let resolver = Arc::new(Resolver::new(vec![source], vec![policy], bounds, Scopes::PrivateFirst));
    let timer = Arc::new(Timer::start().expect("a thread"));
    let began = Instant::now();
    let polling = tokio::spawn(refresh::run(Arc::clone(&resolver), timer, POLL, 0.0));
    let scene = Arc::new(Scene {
        store: Arc::clone(&store),
        history: Mutex::default(),
        begun: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    let readers: Vec<_> =
        (0..CLIENTS).map(|client| tokio::spawn(read(Arc::clone(&scene), Arc::clone(&resolver), client))).collect();

    let mut changes = 0;
    for round in 0..4 {
        scene.store.put("a", Scope::Public, &[("k", &round.to_string())]);
        changes += 1;
        scene.goes_on(Duration::from_millis(150)).await;
        scene.store.fail_next(2, FakeBackend::transient());
        scene.goes_on(Duration::from_millis(150)).await;
    }
    // Gone, and soon after it the back-end is down: nobody is served what was denied.
    let before = scene.served_after("b", began);
    store.remove("b", Scope::Public);
    let removed = Instant::now();
    scene.goes_on(TTL + DELTA).await;
    store.fail_always(FakeBackend::transient());
    // An outage that outlasts what may be served.
    scene.goes_on(MAX_STALE).await;
    store.recover();
    store.fail_name("c", FakeBackend::denied());
    let denied = Instant::now();
    scene.goes_on(TTL + DELTA).await;
    assert!(scene.served_after("b", removed + TTL + DELTA).is_empty(), "I5: served after it was deleted");
    let late = scene.served_after("c", denied + TTL + DELTA);
    assert!(late.is_empty(), "I5: served after it was denied: {late:?}");
    store.recover();
    store.put("b", Scope::Public, &[("k", "again")]);
    let back = Instant::now();
    // The back-end may still be given a pause after its outage.
    let again = loop {
        scene.goes_on(POLL).await;
        let again = scene.served_after("b", back);
        assert!(back.elapsed() < Duration::from_secs(30), "what is made again is served again");
        if !again.is_empty() {
            break again;
        }
    };
    assert!(again.iter().all(|version| !before.contains(version)));

    scene.over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.expect("no panic");
    }
    polling.abort();
    let spent = began.elapsed();
    let history = lock(&scene.history);
    assert_eq!(history.len() as u64, scene.begun.load(Ordering::Relaxed), "I6: every read has one answer");
    let mut last: BTreeMap<(usize, &str), u64> = BTreeMap::new();
    for served in history.iter() {
        let Ok((version, revision, age)) = &served.outcome else { continue };
        assert!(*age <= MAX_STALE, "I3: {} of {} is {age:?} old", version, served.name);
        let before = last.insert((served.client, served.name), *revision).unwrap_or_default();
        assert!(before <= *revision, "I2: {} goes back from {before} to {revision}", served.name);
    }
    let most = |span: Duration| spent.as_millis().div_ceil(span.as_millis()) as usize;
    // What handed values out: at most one a ttl and name, and one for each change that was found otherwise.
    let reads = most(TTL) * NAMES.len() + changes + NAMES.len();
    assert!(store.value_reads() <= reads, "I4: {} value reads in {spent:?}, at most {reads}", store.value_reads());
    let lists = if polls { most(POLL) + 1 } else { 1 };
    assert!(store.lists() <= lists, "I4: {} lists in {spent:?}, at most {lists}", store.lists());
    assert!(history.iter().any(|served| served.outcome.is_err()) && history.len() > 500, "the scene was played");
}

#[tokio::test]
async fn what_readers_are_served_under_faults_keeps_every_promise_with_change_detection() {
    play(true).await;
}

#[tokio::test]
async fn what_readers_are_served_under_faults_keeps_every_promise_without_change_detection() {
    play(false).await;
}
