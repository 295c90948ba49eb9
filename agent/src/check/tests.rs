use std::sync::Arc;

use keyside_config::settings::{GrantSettings, SecretPattern};

use super::*;
use crate::access::{Access, Peer};
use crate::backend::fake::FakeBackend;
use crate::resolver::tests::resolver;

fn peer() -> Peer {
    Peer { uid: 7, gid: 7, pid: None, groups: Vec::new(), program: Default::default(), embedded: false }
}

async fn run(resolver: &Arc<Resolver>, references: &[&str], level: ValidationLevel) -> CheckReply {
    let references: Vec<String> = references.iter().map(|text| (*text).to_owned()).collect();
    run_as_agent(resolver, &references, level).await
}

/// Checks as the agent's own uid, which may read everything; for the tests of back-ends too.
pub(crate) async fn run_as_agent(
    resolver: &Arc<Resolver>,
    references: &[String],
    level: ValidationLevel,
) -> CheckReply {
    let access = Access::new(7, Vec::new(), vec![("agent".to_owned(), None)]);
    let viewer = access.viewer(&peer(), "agent").expect("own uid");
    check(resolver, &viewer, references, level, false).await
}

fn statuses(reply: &CheckReply) -> Vec<CheckStatus> {
    reply.results.iter().map(|result| result.status).collect()
}

#[tokio::test]
async fn none_calls_no_back_end_and_passes_everything_well_formed() {
    let store = Arc::new(FakeBackend::new());
    let reply = run(&resolver(&[("store", &store)]), &["{{a.b}}", "nonsense"], ValidationLevel::None).await;
    assert_eq!(statuses(&reply), [CheckStatus::Skipped, CheckStatus::Invalid]);
    assert_eq!((store.calls(), reply.backend_calls), (0, 0));
}

#[tokio::test]
async fn what_no_secret_or_key_can_be_called_is_invalid_without_a_call() {
    let store = Arc::new(FakeBackend::new());
    let resolver = resolver(&[("store", &store)]);
    let long = format!("{{{{{}.b}}}}", "ü".repeat(256));
    let references = ["{{a\0.b}}", "{{a\u{1b}.b}}", "{{a.b\0}}", &long, "a\0.b"];
    for level in [ValidationLevel::None, ValidationLevel::SecretExists, ValidationLevel::SecretAndKeyExists] {
        let reply = run(&resolver, &references, level).await;
        assert_eq!((reply.ok, reply.backend_calls), (false, 0));
        for result in &reply.results {
            let hint = result.hint.as_deref().unwrap_or_default();
            assert_eq!((result.status, &result.backend), (CheckStatus::Invalid, &None), "{}", result.reference);
            assert!(hint.starts_with("not a "), "{hint}");
        }
    }
    assert_eq!(store.calls(), 0);
    let longest = format!("{{{{{}.b}}}}", "ü".repeat(255));
    let reply = run(&resolver, &[&longest, "{{a.b\u{1b}}}"], ValidationLevel::SecretAndKeyExists).await;
    assert_eq!(statuses(&reply), [CheckStatus::SecretMissing, CheckStatus::SecretMissing]);
}

#[tokio::test]
async fn a_refusal_for_one_secret_says_nothing_of_the_others() {
    let store = Arc::new(FakeBackend::new().with("a", &[("k", "v")]).with("b", &[("k", "v")]));
    store.fail_name("b", FakeBackend::denied());
    let references = ["{{a.k}}", "{{b.k}}", "{{c.k}}"];
    for level in [ValidationLevel::SecretExists, ValidationLevel::SecretAndKeyExists] {
        let reply = run(&resolver(&[("store", &store)]), &references, level).await;
        let expected = [CheckStatus::Ok, CheckStatus::NotPermitted, CheckStatus::SecretMissing];
        assert_eq!(statuses(&reply), expected, "{level:?}");
    }
}

#[tokio::test]
async fn secret_exists_reads_no_value() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", "v")]));
    let reply =
        run(&resolver(&[("store", &store)]), &["{{db.k}}", "{{db.none}}", "{{no.k}}"], ValidationLevel::SecretExists)
            .await;
    assert_eq!(statuses(&reply), [CheckStatus::Ok, CheckStatus::Ok, CheckStatus::SecretMissing]);
    assert_eq!((store.value_reads(), store.describes()), (0, 1));
}

#[tokio::test]
async fn the_full_level_reads_each_secret_once_and_answers_every_reference() {
    let store = Arc::new(FakeBackend::new().with("db", &[("user", "u"), ("password", "p")]));
    let mut references = vec!["{{db.pasword}}", "{{bd.user}}"];
    references.resize(1000, "{{db.user}}");
    let reply = run(&resolver(&[("store", &store)]), &references, ValidationLevel::SecretAndKeyExists).await;
    assert!(!reply.ok);
    assert_eq!(reply.results.len(), 1000);
    assert_eq!(reply.results[0].status, CheckStatus::KeyMissing);
    assert_eq!(reply.results[0].hint.as_deref(), Some("did you mean `password`?"));
    assert_eq!(reply.results[1].status, CheckStatus::SecretMissing);
    assert_eq!(reply.results[1].hint.as_deref(), Some("did you mean `db`?"));
    assert_eq!(reply.results[1].backend.as_deref(), Some("store"));
    assert!(reply.results[2..].iter().all(|result| result.status == CheckStatus::Ok));
    assert_eq!(store.fetches_of("db"), 1);
}

#[tokio::test]
async fn where_keys_are_known_without_values_no_value_is_read() {
    let store = Arc::new(FakeBackend::new().keys_without_values(true).with("db", &[("k", "v")]));
    let reply =
        run(&resolver(&[("store", &store)]), &["{{db.k}}", "{{db.x}}"], ValidationLevel::SecretAndKeyExists).await;
    assert_eq!(statuses(&reply), [CheckStatus::Ok, CheckStatus::KeyMissing]);
    assert_eq!(store.value_reads(), 0);
}

#[tokio::test]
async fn where_one_secret_does_not_tell_its_keys_its_values_are_read_once() {
    let store = Arc::new(FakeBackend::new().keys_without_values(true).with("db", &[("k", "v")]));
    store.hide_keys("db");
    let resolver = resolver(&[("store", &store)]);
    let references = ["{{db.k}}", "{{db.x}}", "{{no.x}}"];
    let reply = run(&resolver, &references, ValidationLevel::SecretAndKeyExists).await;
    assert_eq!(statuses(&reply), [CheckStatus::Ok, CheckStatus::KeyMissing, CheckStatus::SecretMissing]);
    assert_eq!((store.value_reads(), store.describes()), (1, 1));
}

#[tokio::test]
async fn one_refused_secret_says_nothing_about_the_others() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", "v")]).with("vault", &[("k", "v")]));
    store.fail_name("vault", FakeBackend::denied());
    let references = ["{{db.k}}", "{{vault.k}}", "{{no.k}}"];
    let reply = run(&resolver(&[("store", &store)]), &references, ValidationLevel::SecretExists).await;
    assert_eq!(statuses(&reply), [CheckStatus::Ok, CheckStatus::NotPermitted, CheckStatus::SecretMissing]);
    assert_eq!(store.value_reads(), 0);
}

#[tokio::test]
async fn names_are_exact_a_part_of_one_is_no_match() {
    let store = Arc::new(FakeBackend::new().with("prefix_long", &[("k", "v")]));
    for level in [ValidationLevel::SecretExists, ValidationLevel::SecretAndKeyExists] {
        let reply = run(&resolver(&[("store", &store)]), &["{{prefix.k}}"], level).await;
        assert_eq!(statuses(&reply), [CheckStatus::SecretMissing]);
    }
}

#[tokio::test]
async fn fresh_entries_answer_without_a_call_and_absences_are_asked_again() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", "v")]));
    let resolver = resolver(&[("store", &store)]);
    let level = ValidationLevel::SecretAndKeyExists;
    run(&resolver, &["{{db.k}}", "{{new.k}}"], level).await;
    store.put("new", crate::backend::Scope::Public, &[("k", "v")]);
    let before = store.fetches();
    let reply = run(&resolver, &["{{db.k}}", "{{new.k}}"], level).await;
    assert!(reply.ok, "the absence is not believed");
    assert_eq!((store.fetches() - before, reply.backend_calls), (1, 1));
    let again = run(&resolver, &["{{db.k}}", "{{new.k}}"], level).await;
    assert_eq!(again.backend_calls, 0);
}

#[tokio::test]
async fn no_cache_asks_again_about_what_is_fresh() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", "v")]));
    let resolver = resolver(&[("store", &store)]);
    run(&resolver, &["{{db.k}}"], ValidationLevel::SecretAndKeyExists).await;
    store.remove("db", crate::backend::Scope::Public);
    let access = Access::new(7, Vec::new(), vec![("agent".to_owned(), None)]);
    let viewer = access.viewer(&peer(), "agent").expect("own uid");
    let references = ["{{db.k}}".to_owned()];
    let reply = check(&resolver, &viewer, &references, ValidationLevel::SecretAndKeyExists, true).await;
    assert_eq!(statuses(&reply), [CheckStatus::SecretMissing]);
}

#[tokio::test]
async fn a_back_end_that_fails_is_told_apart_from_one_that_has_nothing() {
    for (error, expected) in [
        (FakeBackend::transient(), CheckStatus::Unavailable),
        (FakeBackend::identity(), CheckStatus::Unavailable),
        (FakeBackend::denied(), CheckStatus::NotPermitted),
    ] {
        for level in [ValidationLevel::SecretExists, ValidationLevel::SecretAndKeyExists] {
            let store = Arc::new(FakeBackend::new());
            store.fail_always(error.clone());
            let reply = run(&resolver(&[("store", &store)]), &["{{db.k}}"], level).await;
            assert_eq!(statuses(&reply), [expected]);
            assert_eq!(reply.results[0].backend.as_deref(), Some("store"));
        }
    }
}

#[tokio::test]
async fn the_second_back_end_is_asked_only_for_what_the_first_definitely_lacks() {
    let store = Arc::new(FakeBackend::new().with("a", &[("k", "v")]));
    let legacy = Arc::new(FakeBackend::new().with("a", &[("x", "v")]).with("b", &[("k", "v")]));
    let resolver = resolver(&[("store", &store), ("legacy", &legacy)]);
    let reply = run(&resolver, &["{{a.x}}", "{{b.k}}"], ValidationLevel::SecretAndKeyExists).await;
    assert_eq!(statuses(&reply), [CheckStatus::KeyMissing, CheckStatus::Ok]);
    assert_eq!((legacy.fetches_of("a"), legacy.fetches_of("b")), (0, 1));
}

#[tokio::test]
async fn what_is_outside_the_grant_is_missing_without_a_call_a_hint_or_a_back_ends_name() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", "v"), ("other", "v")]).with("hidden", &[("k", "v")]));
    let resolver = resolver(&[("store", &store)]);
    let grant = GrantSettings {
        name: "a".to_owned(),
        uids: vec![7],
        gids: Vec::new(),
        exes: Vec::new(),
        cgroups: Vec::new(),
        read: vec![SecretPattern { secret: "db".to_owned(), keys: Some(vec!["k".to_owned()]) }],
        write: Vec::new(),
        admin: false,
    };
    let access = Access::new(1, vec![grant], vec![("agent".to_owned(), None)]);
    let viewer = access.viewer(&peer(), "agent").expect("granted");
    for level in [ValidationLevel::SecretExists, ValidationLevel::SecretAndKeyExists] {
        let references = ["{{hidden.k}}", "{{absent.k}}", "{{db.other}}", "{{db.none}}"].map(str::to_owned);
        let reply = check(&resolver, &viewer, &references, level, false).await;
        let [secret, key] = [CheckStatus::SecretMissing, CheckStatus::KeyMissing];
        assert_eq!(statuses(&reply), [secret, secret, key, key]);
        assert!(reply.results.iter().all(|result| result.backend.is_none() && result.hint.is_none()));
    }
    assert_eq!(store.calls(), 0);
}

#[tokio::test]
async fn a_key_that_a_description_does_not_tell_is_looked_for_in_the_values() {
    let store = FakeBackend::new().keys_without_values(true);
    let store = Arc::new(store.with("open", &[("k", "v")]).with("shut", &[("k", "v")]));
    store.hide_keys("shut");
    let references = ["{{open.k}}", "{{shut.k}}", "{{shut.none}}"];
    let reply = run(&resolver(&[("store", &store)]), &references, ValidationLevel::SecretAndKeyExists).await;
    assert_eq!(statuses(&reply), [CheckStatus::Ok, CheckStatus::Ok, CheckStatus::KeyMissing]);
    assert_eq!(store.value_reads(), 1);
    let reply = run(&resolver(&[("store", &store)]), &references, ValidationLevel::SecretExists).await;
    assert!(reply.ok);
    assert_eq!(store.value_reads(), 1, "existence needs no value");
}
