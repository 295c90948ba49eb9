//! The resolver on back-ends in memory; [`policy`], [`options`] and [`resolver`] serve the tests above it too.

use std::collections::BTreeSet;

use super::*;
use crate::backend::fake::FakeBackend;
use crate::backend::{Opened, Scope};
use crate::refresh;
use crate::timer::Timer;

pub(crate) fn policy() -> Policy {
    Policy {
        ttl: Duration::from_secs(300),
        max_stale: Duration::from_secs(3600),
        negative_ttl: Duration::from_secs(10),
        deny_on_identity_failure: false,
    }
}

pub(crate) fn options(name: &str) -> SourceOptions {
    SourceOptions {
        name: name.to_owned(),
        kind: "fake",
        required: true,
        denied_means_absent: false,
        found_in_zenml: false,
        timeout: Duration::from_secs(8),
        parallelism: 8,
    }
}

pub(crate) fn resolver(backends: &[(&str, &Arc<FakeBackend>)]) -> Arc<Resolver> {
    resolver_of(backends.iter().map(|(name, fake)| (options(name), Arc::clone(fake))).collect())
}

fn resolver_of(backends: Vec<(SourceOptions, Arc<FakeBackend>)>) -> Arc<Resolver> {
    let policies = backends.iter().map(|_| policy()).collect();
    let sources = backends
        .into_iter()
        .map(|(options, fake)| Source::new(options, Opened { reader: fake, writer: None, values: None }))
        .collect();
    let bounds = Bounds { max_bytes: 1 << 20, max_entries: 1000 };
    Arc::new(Resolver::new(sources, policies, bounds, Scopes::PrivateFirst))
}

async fn value(resolver: &Arc<Resolver>, name: &str, key: &str) -> Result<String, BackendError> {
    let found = resolver.secret(name, Selection::default(), Want::Usual).await.map_err(|miss| miss.error)?;
    let value = found.hit.cached.secret.get(key).expect("the key is there");
    Ok(String::from_utf8_lossy(value.expose()).into_owned())
}

#[tokio::test]
async fn the_first_back_end_that_has_the_secret_wins_and_a_key_missing_there_is_no_fallback() {
    let store = Arc::new(FakeBackend::new().with("db", &[("user", "from store")]));
    let legacy = Arc::new(FakeBackend::new().with("db", &[("user", "old"), ("pw", "old")]).with("only", &[("k", "v")]));
    let resolver = resolver(&[("store", &store), ("legacy", &legacy)]);
    assert_eq!(value(&resolver, "db", "user").await, Ok("from store".to_owned()));
    let found = resolver.secret("db", Selection::default(), Want::Usual).await.expect("found");
    assert!(found.hit.cached.secret.get("pw").is_none());
    assert_eq!(value(&resolver, "only", "k").await, Ok("v".to_owned()));
    assert_eq!(legacy.fetches_of("db"), 0);
}

#[tokio::test]
async fn only_a_definite_absence_goes_on_to_the_next_back_end() {
    for error in [FakeBackend::transient(), FakeBackend::denied(), FakeBackend::identity()] {
        let store = Arc::new(FakeBackend::new());
        let legacy = Arc::new(FakeBackend::new().with("db", &[("k", "v")]));
        store.fail_name("db", error.clone());
        let resolver = resolver(&[("store", &store), ("legacy", &legacy)]);
        let miss = resolver.secret("db", Selection::default(), Want::Usual).await.err().expect("not found");
        assert_eq!((miss.asked, miss.error), (vec![0], error));
        assert_eq!(legacy.fetches(), 0);
    }
}

#[tokio::test]
async fn a_refusal_means_absence_only_where_the_operator_says_so() {
    let store = Arc::new(FakeBackend::new());
    let legacy = Arc::new(FakeBackend::new().with("db", &[("k", "v")]));
    store.fail_name("db", FakeBackend::denied());
    let lenient = SourceOptions { denied_means_absent: true, ..options("store") };
    let resolver = resolver_of(vec![(lenient, store), (options("legacy"), legacy)]);
    assert_eq!(value(&resolver, "db", "k").await, Ok("v".to_owned()));
}

#[tokio::test]
async fn the_private_secret_hides_the_public_one_unless_the_caller_names_a_scope() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", "public")]).with_private("db", &[("k", "private")]));
    let resolver = resolver(&[("store", &store)]);
    assert_eq!(value(&resolver, "db", "k").await, Ok("private".to_owned()));
    let public = Selection { scopes: Some(Scopes::PublicOnly), ..Selection::default() };
    let found = resolver.secret("db", public, Want::Usual).await.expect("found");
    assert_eq!(found.hit.cached.secret.scope(), Scope::Public);
}

#[tokio::test]
async fn a_thousand_cold_readers_make_one_call() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", "v")]));
    let resolver = resolver(&[("store", &store)]);
    let hold = store.hold();
    let readers: Vec<_> = (0..1000)
        .map(|_| {
            let resolver = Arc::clone(&resolver);
            tokio::spawn(async move { value(&resolver, "db", "k").await })
        })
        .collect();
    store.calls_reach(1).await;
    hold.release();
    for reader in readers {
        assert_eq!(reader.await.expect("no panic"), Ok("v".to_owned()));
    }
    assert_eq!(store.fetches(), 1);
}

#[tokio::test]
async fn a_reader_that_leaves_does_not_cancel_the_call_for_the_others() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", "v")]));
    let resolver = resolver(&[("store", &store)]);
    let hold = store.hold();
    let first = tokio::spawn({
        let resolver = Arc::clone(&resolver);
        async move { value(&resolver, "db", "k").await }
    });
    store.calls_reach(1).await;
    first.abort();
    let second = tokio::spawn({
        let resolver = Arc::clone(&resolver);
        async move { value(&resolver, "db", "k").await }
    });
    tokio::task::yield_now().await;
    hold.release();
    assert_eq!(second.await.expect("no panic"), Ok("v".to_owned()));
    assert_eq!(store.fetches(), 1);
}

#[tokio::test]
async fn a_failing_call_is_shared_by_its_readers() {
    let store = Arc::new(FakeBackend::new());
    store.fail_always(FakeBackend::transient());
    let resolver = resolver(&[("store", &store)]);
    let hold = store.hold();
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let resolver = Arc::clone(&resolver);
            tokio::spawn(async move { value(&resolver, "db", "k").await })
        })
        .collect();
    store.calls_reach(1).await;
    hold.release();
    for reader in readers {
        assert!(reader.await.expect("no panic").is_err_and(|error| error.is_transient()));
    }
    assert_eq!(store.fetches(), 1);
}

#[tokio::test]
async fn an_absence_costs_one_call_until_it_is_forgotten() {
    let store = Arc::new(FakeBackend::new());
    let resolver = resolver(&[("store", &store)]);
    for _ in 0..10 {
        assert_eq!(value(&resolver, "none", "k").await, Err(BackendError::NotFound));
    }
    assert_eq!(store.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_back_end_that_hangs_costs_a_reader_its_time_out_and_another_back_end_nothing() {
    let slow = Arc::new(FakeBackend::new());
    let quick = Arc::new(FakeBackend::new().with("db", &[("k", "v")]));
    let resolver = resolver(&[("slow", &slow), ("quick", &quick)]);
    let _hold = slow.hold();
    let selection = Selection { backend: Some(1), scopes: None };
    assert!(resolver.secret("db", selection, Want::Usual).await.is_ok());
    let miss = resolver.secret("db", Selection::default(), Want::Usual).await.err().expect("hangs");
    assert!(miss.error.to_string().contains("`slow` did not answer within 8s"), "{}", miss.error);
}

#[tokio::test]
async fn after_five_failures_the_back_end_is_given_a_pause() {
    let store = Arc::new(FakeBackend::new());
    store.fail_always(FakeBackend::transient());
    let resolver = resolver(&[("store", &store)]);
    for number in 0..20 {
        assert!(value(&resolver, &format!("s{number}"), "k").await.is_err());
    }
    // The pause is drawn at random and may be short, so a trial call may have slipped in between.
    assert!(store.fetches() < 20, "{}", store.fetches());
}

#[tokio::test]
async fn a_back_end_that_tells_of_a_change_is_asked_whatever_pause_it_is_given() {
    const ROUNDS: usize = 40;
    let store = Arc::new(FakeBackend::new().telling().with("db", &[("k", "v")]));
    let resolver = resolver(&[("store", &store)]);
    let timer = Arc::new(Timer::start().expect("a thread"));
    let polling = tokio::spawn(refresh::run(Arc::clone(&resolver), timer, Duration::from_secs(3600), 0.0));
    store.calls_reach(1).await;
    store.fail_always(FakeBackend::transient());
    let told = async {
        for _ in 0..ROUNDS {
            // Readers in between make the pause no shorter.
            assert!(value(&resolver, "db", "k").await.is_err());
            let calls = store.calls();
            store.tell();
            store.calls_reach(calls + 1).await;
        }
        store.recover();
        store.tell();
        while value(&resolver, "db", "k").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    // Waiting for the pauses instead takes minutes.
    tokio::time::timeout(Duration::from_secs(45), told).await.expect("no pause is waited out");
    polling.abort();
}

#[tokio::test]
async fn a_listing_makes_a_changed_value_appear_without_waiting_for_its_ttl() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", "v1")]));
    let resolver = resolver(&[("store", &store)]);
    assert_eq!(value(&resolver, "db", "k").await, Ok("v1".to_owned()));
    store.put("db", Scope::Public, &[("k", "v2")]);
    assert_eq!(value(&resolver, "db", "k").await, Ok("v1".to_owned()), "nobody knows yet");
    resolver.list(0).await.expect("listed");
    store.calls_reach(3).await;
    assert_eq!(value(&resolver, "db", "k").await, Ok("v2".to_owned()));
}

#[tokio::test]
async fn a_deleted_secret_is_gone_after_the_next_listing() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", "v1")]));
    let resolver = resolver(&[("store", &store)]);
    assert_eq!(value(&resolver, "db", "k").await, Ok("v1".to_owned()));
    store.remove("db", Scope::Public);
    resolver.list(0).await.expect("listed");
    store.calls_reach(3).await;
    assert_eq!(value(&resolver, "db", "k").await, Err(BackendError::NotFound));
}

#[tokio::test]
async fn a_generation_is_read_again_when_a_secret_was_replaced_under_it() {
    let store = Arc::new(FakeBackend::new().with("a", &[("k", "a1")]).with("b", &[("k", "b1")]));
    let resolver = resolver(&[("store", &store)]);
    assert_eq!(value(&resolver, "a", "k").await, Ok("a1".to_owned()));
    // `b` is cold and hangs; meanwhile `a`, already read for this generation, is replaced.
    let hold = store.hold();
    let reading = tokio::spawn({
        let resolver = Arc::clone(&resolver);
        async move { resolver.generation(&["a", "b"]).await }
    });
    store.calls_reach(2).await;
    store.put("a", Scope::Public, &[("k", "a2")]);
    let replacing = tokio::spawn({
        let resolver = Arc::clone(&resolver);
        async move { resolver.secret("a", Selection::default(), Want::Reread).await.is_ok() }
    });
    store.calls_reach(3).await;
    hold.release();
    assert!(replacing.await.expect("no panic"));
    let generation = reading.await.expect("no panic").ok().expect("everything is there");
    let a = generation.secrets["a"].hit.cached.secret.get("k").expect("there");
    assert_eq!(a.expose(), b"a2");
}

#[tokio::test]
async fn a_resolve_names_everything_that_is_missing_at_once() {
    let store = Arc::new(FakeBackend::new().with("a", &[("k", "v")]));
    let resolver = resolver(&[("store", &store)]);
    let incomplete = resolver.generation(&["a", "x", "y"]).await.err().expect("two are missing");
    assert_eq!(incomplete.misses.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(["x", "y"]));
    assert!(incomplete.secrets.contains_key("a"));
}

#[tokio::test]
async fn ready_waits_for_every_required_back_end_and_for_no_other() {
    let store = Arc::new(FakeBackend::new());
    let extra = Arc::new(FakeBackend::new());
    extra.fail_always(FakeBackend::transient());
    let optional = SourceOptions { required: false, ..options("extra") };
    let resolver = resolver_of(vec![(options("store"), Arc::clone(&store)), (optional, extra)]);
    assert!(!resolver.is_ready());
    store.fail_next(1, FakeBackend::transient());
    assert!(resolver.list(0).await.is_err());
    assert!(!resolver.is_ready());
    assert!(resolver.list(0).await.is_ok());
    assert!(resolver.is_ready());
    store.fail_always(FakeBackend::transient());
    assert!(resolver.list(0).await.is_err());
    assert!(resolver.is_ready(), "once ready, ready");
}

#[tokio::test]
async fn a_wrong_key_shows_in_the_state_although_listings_work() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", "v")]));
    store.fail_name("db", FakeBackend::identity());
    let resolver = resolver(&[("store", &store)]);
    assert!(value(&resolver, "db", "k").await.is_err());
    resolver.list(0).await.expect("listed");
    assert_eq!(resolver.sources()[0].state().state, "misconfigured");
}

#[tokio::test]
async fn instance_ids_differ() {
    let ids: BTreeSet<_> = (0..10).map(|_| resolver(&[]).instance().to_owned()).collect();
    assert_eq!(ids.len(), 10);
}

#[tokio::test]
async fn a_hint_about_a_back_end_that_was_found_says_where_its_settings_are() {
    let store = Arc::new(FakeBackend::new());
    let wrong = |hint: &str| BackendError::Identity { what: "no login".into(), hint: Some(hint.into()) };
    let found = resolver_of(vec![(SourceOptions { found_in_zenml: true, ..options("store") }, Arc::clone(&store))]);
    let configured = resolver(&[("store", &store)]);
    for (hint, is_told) in
        [("set `ca_file` in [backend.store]", true), ("look at `token_env`", true), ("is it up?", false)]
    {
        store.fail_always(wrong(hint));
        let said = value(&found, "db", "user").await.expect_err("it fails");
        let said = said.hint().expect("a hint");
        assert!(said.starts_with(hint) && said.contains("ZENML_STORE_") == is_told, "{said}");
        assert_eq!(value(&configured, "db", "user").await, Err(wrong(hint)));
    }
}
