use std::collections::BTreeMap;

use keyside_protocol::value::{SecretValue, SecretValues};
use proptest::prelude::*;

use super::*;
use crate::backend::ScopeLabel;

const TTL: Duration = Duration::from_secs(60);
const MAX_STALE: Duration = Duration::from_secs(600);
const NEGATIVE_TTL: Duration = Duration::from_secs(10);

fn policy() -> Policy {
    Policy { ttl: TTL, max_stale: MAX_STALE, negative_ttl: NEGATIVE_TTL, deny_on_identity_failure: false }
}

fn cache() -> Cache<u32> {
    Cache::new(vec![policy()], Bounds { max_bytes: 1 << 20, max_entries: 1000 })
}

fn at(seconds: u64) -> Tick {
    Tick::at(Duration::from_secs(1_000_000 + seconds))
}

fn key(name: &str) -> Key<'_> {
    Key { backend: 0, scopes: Scopes::PrivateFirst, name }
}

#[test]
fn a_new_version_with_the_same_values_is_no_change() {
    let mut cache = cache();
    fill(&mut cache, "a", at(0), "v1");
    let before = cache.peek(key("a"), at(0)).map(|hit| hit.cached.revision());
    let touched = Secret { description: description("a", "v2"), ..secret("a", "v1") };
    let (served, outcome) = answer(&mut cache, "a", at(60), Want::Usual, Ok(touched));
    assert_eq!(outcome, Outcome::Confirmed);
    assert_eq!(served.ok().map(|hit| hit.cached.revision()), before);
    assert!(cache.compare(0, &[description("a", "v2")], at(60)).is_empty(), "the new version is known");
}

#[test]
fn a_small_secret_costs_little_beside_its_bytes() {
    // Beside these there is one byte of the table for each slot, and what the allocator adds to each `Arc`.
    assert_eq!(size_of::<Slot>(), 16);
    // With its two counts; 40 bytes are the most that a block of 48 takes.
    assert_eq!(2 * size_of::<usize>() + size_of::<Cached>(), 40);
    let arena = Arena::new();
    let id = "0123abcd-ef01-2345-6789-abcdef012345";
    let description =
        Description { id: Some(id.to_owned()), version: format!("{id}:hoenohfnuw"), ..description("secret-12345", "") };
    let values = [("password".to_owned(), SecretValue::copy_of(&[b'x'; 200]))].into_iter().collect();
    let held = Held::new(&arena, Secret { description, values });
    let exact: usize = 7 + 12 + 11 + 16 + 8 + 200;
    assert_eq!(held.block_size(), exact.next_multiple_of(4), "rounded up as the arena does");
}

fn secret(name: &str, version: &str) -> Secret {
    let values: SecretValues = [("k".to_owned(), SecretValue::copy_of(version.as_bytes()))].into_iter().collect();
    Secret { description: description(name, version), values }
}

fn description(name: &str, version: &str) -> Description {
    Description {
        name: name.to_owned(),
        scope: Scope::Public,
        scope_label: Some(ScopeLabel::Public),
        id: Some(format!("id-{name}")),
        version: version.to_owned(),
        keys: None,
    }
}

fn transient() -> BackendError {
    BackendError::Transient { what: "down".to_owned(), hint: None }
}

fn identity() -> BackendError {
    BackendError::Identity { what: "wrong key".to_owned(), hint: None }
}

fn denied() -> BackendError {
    BackendError::Denied { what: "no".to_owned(), hint: None }
}

/// Leads the call that must be led now and completes it one way or the other.
fn answer(
    cache: &mut Cache<u32>,
    name: &str,
    now: Tick,
    want: Want,
    result: Result<Secret, BackendError>,
) -> (Result<Hit, BackendError>, Outcome) {
    let lead = match cache.look_up(key(name), now, want, || 1) {
        LookUp::Lead(lead) | LookUp::Stale { lead: Some(lead), .. } => lead,
        other => panic!("no call to lead: {}", describe(&other)),
    };
    cache.complete(key(name), lead.id, lead.began, now, 1.0, result)
}

fn fill(cache: &mut Cache<u32>, name: &str, now: Tick, version: &str) {
    let (served, _) = answer(cache, name, now, Want::Usual, Ok(secret(name, version)));
    assert!(served.is_ok());
}

fn describe<F>(look_up: &LookUp<F>) -> &'static str {
    match look_up {
        LookUp::Fresh(_) => "fresh",
        LookUp::Stale { lead: Some(_), .. } => "stale, lead",
        LookUp::Stale { lead: None, .. } => "stale",
        LookUp::Absent(_) => "absent",
        LookUp::Join(_) => "join",
        LookUp::Lead(_) => "lead",
    }
}

fn looks(cache: &mut Cache<u32>, name: &str, now: Tick, want: Want) -> &'static str {
    describe(&cache.look_up(key(name), now, want, || 2))
}

#[test]
fn a_value_is_fresh_then_stale_then_expired() {
    let mut cache = cache();
    assert_eq!(looks(&mut cache, "a", at(0), Want::Usual), "lead");
    assert_eq!(looks(&mut cache, "a", at(0), Want::Usual), "join");
    cache.forget(0, "a");
    fill(&mut cache, "a", at(0), "v1");
    assert_eq!(looks(&mut cache, "a", at(59), Want::Usual), "fresh");
    assert_eq!(looks(&mut cache, "a", at(60), Want::Usual), "stale, lead");
    assert_eq!(looks(&mut cache, "a", at(60), Want::Usual), "stale", "one refresh in flight");
    assert_eq!(looks(&mut cache, "a", at(599), Want::Usual), "stale");
    assert_eq!(looks(&mut cache, "a", at(600), Want::Usual), "join", "expired: readers wait");
}

#[test]
fn age_counts_from_when_the_call_began() {
    let mut cache = cache();
    let LookUp::Lead(lead) = cache.look_up(key("a"), at(0), Want::Usual, || 1) else { panic!("cold") };
    let (served, _) = cache.complete(key("a"), lead.id, lead.began, at(5), 1.0, Ok(secret("a", "v1")));
    assert_eq!(served.ok().map(|hit| hit.age), Some(Duration::from_secs(5)));
    assert_eq!(looks(&mut cache, "a", at(60), Want::Usual), "stale, lead");
}

#[test]
fn max_stale_caps_a_longer_ttl() {
    let policy = Policy { ttl: MAX_STALE * 2, ..policy() };
    let mut cache: Cache<u32> = Cache::new(vec![policy], Bounds { max_bytes: 1 << 20, max_entries: 10 });
    fill(&mut cache, "a", at(0), "v1");
    assert_eq!(looks(&mut cache, "a", at(600), Want::Usual), "lead");
}

#[test]
fn a_final_no_evicts_at_once_and_is_remembered_for_a_while() {
    for error in [BackendError::NotFound, denied()] {
        let mut cache = cache();
        fill(&mut cache, "a", at(0), "v1");
        let (served, outcome) = answer(&mut cache, "a", at(60), Want::Usual, Err(error.clone()));
        assert_eq!((served.err(), outcome), (Some(error), Outcome::Removed));
        assert!(cache.is_empty());
        assert_eq!(looks(&mut cache, "a", at(69), Want::Usual), "absent");
        assert_eq!(looks(&mut cache, "a", at(70), Want::Usual), "lead");
    }
}

#[test]
fn a_failure_to_answer_keeps_the_value_and_backs_off() {
    for error in [transient(), identity(), BackendError::Unusable { what: "too large".to_owned(), hint: None }] {
        let mut cache = cache();
        fill(&mut cache, "a", at(0), "v1");
        let (served, outcome) = answer(&mut cache, "a", at(60), Want::Usual, Err(error.clone()));
        assert!(served.is_ok_and(|hit| hit.stale));
        assert_eq!(outcome, Outcome::Unchanged);
        assert_eq!(looks(&mut cache, "a", at(60), Want::Usual), "stale", "not at once again");
        assert_eq!(looks(&mut cache, "a", at(61), Want::Usual), "stale, lead");
    }
}

#[test]
fn an_expired_value_is_not_served_after_the_stale_window() {
    let mut cache = cache();
    fill(&mut cache, "a", at(0), "v1");
    let (served, _) = answer(&mut cache, "a", at(600), Want::Usual, Err(transient()));
    assert_eq!(served.err(), Some(transient()));
    assert!(cache.is_empty(), "and it is wiped");
}

#[test]
fn a_failure_of_our_own_login_may_be_told_to_deny() {
    let policy = Policy { deny_on_identity_failure: true, ..policy() };
    let mut cache: Cache<u32> = Cache::new(vec![policy], Bounds { max_bytes: 1 << 20, max_entries: 10 });
    fill(&mut cache, "a", at(0), "v1");
    let (served, outcome) = answer(&mut cache, "a", at(60), Want::Usual, Err(identity()));
    assert_eq!((served.err(), outcome), (Some(identity()), Outcome::Removed));
    assert_eq!(looks(&mut cache, "a", at(60), Want::Usual), "lead", "no absence is remembered for it");
}

#[test]
fn the_same_version_is_a_confirmation_and_another_one_a_new_revision() {
    let mut cache = cache();
    fill(&mut cache, "a", at(0), "v1");
    let (first, outcome) = answer(&mut cache, "a", at(60), Want::Usual, Ok(secret("a", "v1")));
    assert_eq!(outcome, Outcome::Confirmed);
    assert_eq!(looks(&mut cache, "a", at(119), Want::Usual), "fresh");
    let (second, outcome) = answer(&mut cache, "a", at(120), Want::Usual, Ok(secret("a", "v2")));
    assert_eq!(outcome, Outcome::Changed);
    let revision = |hit: Result<Hit, BackendError>| hit.map(|hit| hit.cached.revision()).unwrap_or_default();
    assert!(revision(second) > revision(first));
}

#[test]
fn a_secret_that_was_deleted_and_made_again_does_not_go_back_in_revision() {
    let mut cache = cache();
    fill(&mut cache, "a", at(0), "v1");
    let before = cache.peek(key("a"), at(0)).map(|hit| hit.cached.revision());
    let _ = answer(&mut cache, "a", at(60), Want::Usual, Err(BackendError::NotFound));
    let (again, _) = answer(&mut cache, "a", at(71), Want::Usual, Ok(secret("a", "v1")));
    assert!(again.ok().map(|hit| hit.cached.revision()) > before);
}

#[test]
fn a_call_that_a_write_overtook_answers_its_readers_and_stores_nothing() {
    let mut cache = cache();
    let LookUp::Lead(lead) = cache.look_up(key("a"), at(0), Want::Usual, || 1) else { panic!("cold") };
    cache.forget(0, "a");
    assert_eq!(looks(&mut cache, "a", at(0), Want::Usual), "lead", "later readers do not join it");
    let (served, _) = cache.complete(key("a"), lead.id, lead.began, at(1), 1.0, Ok(secret("a", "old")));
    assert!(served.is_ok());
    assert!(cache.is_empty());
    assert_eq!(looks(&mut cache, "a", at(1), Want::Usual), "join", "the later call is still under way");
}

#[test]
fn a_check_asks_again_about_what_is_stale_or_absent_but_not_about_what_is_fresh() {
    let mut cache = cache();
    fill(&mut cache, "a", at(0), "v1");
    let _ = answer(&mut cache, "b", at(0), Want::Usual, Err(BackendError::NotFound));
    assert_eq!(looks(&mut cache, "a", at(1), Want::Confirmed), "fresh");
    assert_eq!(looks(&mut cache, "b", at(1), Want::Confirmed), "lead");
    assert_eq!(looks(&mut cache, "a", at(60), Want::Confirmed), "lead");
    assert_eq!(looks(&mut cache, "a", at(60), Want::Reread), "join");
}

#[test]
fn a_readers_no_cache_costs_at_most_one_call_in_ten_seconds() {
    let mut cache = cache();
    fill(&mut cache, "a", at(0), "v1");
    let (served, _) = answer(&mut cache, "a", at(1), Want::Forced, Ok(secret("a", "v2")));
    assert!(served.is_ok());
    // The new version is a new slot: the limit must not be forgotten with the old one.
    assert_eq!(looks(&mut cache, "a", at(2), Want::Forced), "fresh");
    assert_eq!(looks(&mut cache, "a", at(12), Want::Forced), "lead");
}

#[test]
fn unknown_names_never_push_values_out_and_are_bounded() {
    let mut cache: Cache<u32> = Cache::new(vec![policy()], Bounds { max_bytes: 4096, max_entries: 4 });
    fill(&mut cache, "a", at(0), "v1");
    for number in 0..(MOST_ABSENCES + 10) {
        let _ = answer(&mut cache, &format!("missing-{number}"), at(0), Want::Usual, Err(BackendError::NotFound));
    }
    assert_eq!(looks(&mut cache, "a", at(1), Want::Usual), "fresh");
    assert!(cache.absences <= MOST_ABSENCES);
}

#[test]
fn the_least_recently_used_go_first_when_the_bytes_are_used_up() {
    let one = ENTRY_OVERHEAD + 6;
    let mut cache: Cache<u32> = Cache::new(vec![policy()], Bounds { max_bytes: one * 10, max_entries: 1000 });
    for number in 0..10 {
        fill(&mut cache, &format!("s{number}"), at(0), "v1");
    }
    assert_eq!(looks(&mut cache, "s0", at(1), Want::Usual), "fresh");
    fill(&mut cache, "s10", at(1), "v1");
    assert!(cache.bytes() <= one * 10);
    assert!(cache.peek(key("s0"), at(1)).is_some(), "read last");
    assert!(cache.peek(key("s10"), at(1)).is_some(), "just fetched");
    assert!(cache.peek(key("s1"), at(1)).is_none(), "least recently used");
}

#[test]
fn the_order_of_use_survives_the_largest_count_of_uses() {
    let one = ENTRY_OVERHEAD + 6;
    let mut cache: Cache<u32> = Cache::new(vec![policy()], Bounds { max_bytes: one * 10, max_entries: 1000 });
    for number in 0..10 {
        fill(&mut cache, &format!("s{number}"), at(0), "v1");
    }
    // The count is used up while all but one are read.
    cache.uses = MOST_USES - 4;
    for number in (0..10).filter(|number| *number != 5) {
        assert_eq!(looks(&mut cache, &format!("s{number}"), at(1), Want::Usual), "fresh");
    }
    assert!(cache.uses < MOST_USES);
    fill(&mut cache, "s10", at(1), "v1");
    assert!(cache.peek(key("s5"), at(1)).is_none(), "least recently used");
    assert!(cache.peek(key("s9"), at(1)).is_some(), "read after the count began anew");
    assert!(cache.peek(key("s10"), at(1)).is_some(), "just fetched");
}

#[test]
fn a_secret_larger_than_the_whole_budget_is_served_and_not_held() {
    let mut cache: Cache<u32> = Cache::new(vec![policy()], Bounds { max_bytes: 100, max_entries: 10 });
    let (served, _) = answer(&mut cache, "a", at(0), Want::Usual, Ok(secret("a", "v1")));
    assert!(served.is_ok());
    assert_eq!((cache.len(), cache.bytes()), (0, 0));
}

#[test]
fn a_listing_confirms_what_is_unchanged_and_names_what_to_read_again() {
    let mut cache = cache();
    for name in ["same", "changed", "gone"] {
        fill(&mut cache, name, at(0), "v1");
    }
    let _ = answer(&mut cache, "new", at(50), Want::Usual, Err(BackendError::NotFound));
    let listing = [description("same", "v1"), description("changed", "v2"), description("new", "v1")];
    let mut again = cache.compare(0, &listing, at(55));
    again.sort_by(|left, right| left.1.cmp(&right.1));
    assert_eq!(again, [(Scopes::PrivateFirst, "changed".to_owned()), (Scopes::PrivateFirst, "gone".to_owned())]);
    assert_eq!(looks(&mut cache, "same", at(114), Want::Usual), "fresh", "confirmed at 55");
    assert_eq!(looks(&mut cache, "gone", at(59), Want::Usual), "fresh", "a list alone never evicts");
    assert_eq!(looks(&mut cache, "new", at(55), Want::Usual), "lead", "the absence was contradicted");
}

#[test]
fn a_private_secret_that_appears_over_a_public_one_is_noticed() {
    let mut cache = cache();
    fill(&mut cache, "a", at(0), "v1");
    let private = Description { scope: Scope::Private, id: Some("other".to_owned()), ..description("a", "v9") };
    let again = cache.compare(0, &[description("a", "v1"), private], at(1));
    assert_eq!(again.len(), 1);
}

#[test]
fn an_entry_answers_only_for_the_scopes_it_was_read_in() {
    let mut cache = cache();
    fill(&mut cache, "a", at(0), "v1");
    let private_only = Key { scopes: Scopes::PrivateOnly, ..key("a") };
    assert_eq!(describe(&cache.look_up(private_only, at(0), Want::Usual, || 1)), "lead");
}

#[test]
fn one_version_of_a_secret_has_one_revision_whatever_scopes_it_was_asked_for_in() {
    let mut cache = cache();
    fill(&mut cache, "a", at(0), "v1");
    let first = cache.peek(key("a"), at(0)).map(|hit| hit.cached.revision());
    let public = Key { scopes: Scopes::PublicOnly, ..key("a") };
    let fetch = |cache: &mut Cache<u32>, key: Key<'_>, now: Tick, version: &str| {
        let LookUp::Lead(lead) = cache.look_up(key, now, Want::Reread, || 1) else { panic!("to be asked") };
        let (served, _) = cache.complete(key, lead.id, lead.began, now, 1.0, Ok(secret("a", version)));
        served.ok().map(|hit| hit.cached.revision())
    };
    assert_eq!(fetch(&mut cache, public, at(1), "v1"), first);
    let second = fetch(&mut cache, public, at(2), "v2");
    assert!(second > first);
    // The entry that still held the older version is gone: it is asked for again and finds the newer one.
    assert!(cache.peek(key("a"), at(2)).is_none());
    assert_eq!(fetch(&mut cache, key("a"), at(3), "v2"), second);
}

#[test]
fn values_read_one_after_another_agree_only_if_none_was_replaced() {
    let mut cache = cache();
    fill(&mut cache, "a", at(0), "v1");
    let revision = cache.peek(key("a"), at(0)).map(|hit| hit.cached.revision()).unwrap_or_default();
    let agreement = |cache: &Cache<u32>| cache.agreement([(key("a"), revision)].into_iter());
    assert_eq!(agreement(&cache), Agreement::Held);
    let _ = answer(&mut cache, "a", at(60), Want::Usual, Ok(secret("a", "v2")));
    assert_eq!(agreement(&cache), Agreement::Replaced);
    cache.forget(0, "a");
    assert_eq!(agreement(&cache), Agreement::Gone);
}

/// What happens to one of a few secrets in one step of the model test.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Read(usize, Want),
    /// The back-end's answer to the oldest call in flight for a name.
    Land(usize, Answer),
    Forget(usize),
    List,
    Write(usize),
    Delete(usize),
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Truth,
    Transient,
    Identity,
    Denied,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..4_usize;
    let want = prop_oneof![
        4 => Just(Want::Usual),
        1 => Just(Want::Confirmed),
        1 => Just(Want::Forced),
        1 => Just(Want::Reread)
    ];
    let answer = prop_oneof![
        5 => Just(Answer::Truth),
        2 => Just(Answer::Transient),
        1 => Just(Answer::Identity),
        1 => Just(Answer::Denied)
    ];
    let step = prop_oneof![
        3 => prop_oneof![0..5_u64, 10..70_u64, 500..700_u64].prop_map(Step::Wait),
        6 => (name.clone(), want).prop_map(|(name, want)| Step::Read(name, want)),
        6 => (name.clone(), answer).prop_map(|(name, answer)| Step::Land(name, answer)),
        1 => name.clone().prop_map(Step::Forget),
        1 => Just(Step::List),
        2 => name.clone().prop_map(Step::Write),
        1 => name.prop_map(Step::Delete),
    ];
    proptest::collection::vec(step, 1..120)
}

/// The reference model: for each name, what the last confirmation was and when, kept in the plainest way.
#[derive(Default)]
struct Model {
    /// Name to (version, confirmed at); what may be served at all.
    held: BTreeMap<usize, (String, u64)>,
    /// Name to the end of a remembered absence.
    absent: BTreeMap<usize, u64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Against a model that keeps only "version and time of the last confirmation", over any history: what is served is
    /// what was last confirmed, never past max_stale, marked stale exactly from the ttl on, gone at once after a final
    /// no; there is one call in flight a name; revisions never go back; the books balance.
    #[test]
    fn any_history_serves_only_what_the_rules_allow(steps in steps()) {
        let mut cache = cache();
        let mut model = Model::default();
        let mut truth: BTreeMap<usize, u64> = BTreeMap::new();
        let mut flights: BTreeMap<usize, (u64, Tick, u64, Option<String>)> = BTreeMap::new();
        let mut overtaken: Vec<(usize, u64, Tick)> = Vec::new();
        let mut last_revision: BTreeMap<usize, u64> = BTreeMap::new();
        let (mut now, mut version) = (0_u64, 0_u64);
        let names = ["a", "b", "c", "d"];
        for step in steps {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Write(name) => {
                    version += 1;
                    truth.insert(name, version);
                }
                Step::Delete(name) => {
                    truth.remove(&name);
                }
                Step::Forget(name) => {
                    cache.forget(0, names[name]);
                    model.held.remove(&name);
                    model.absent.remove(&name);
                    if let Some((id, began, ..)) = flights.remove(&name) {
                        overtaken.push((name, id, began));
                    }
                }
                Step::List => {
                    let listing: Vec<_> =
                        truth.iter().map(|(name, version)| description(names[*name], &version.to_string())).collect();
                    let again = cache.compare(0, &listing, at(now));
                    for (name, (held, confirmed)) in &mut model.held {
                        let same = truth.get(name).is_some_and(|version| version.to_string() == *held);
                        if same {
                            *confirmed = now;
                        }
                        let named = again.iter().any(|(_, other)| other == names[*name]);
                        prop_assert_eq!(named, !same);
                    }
                    model.absent.retain(|name, _| !truth.contains_key(name));
                }
                Step::Read(name, want) => {
                    let look_up = cache.look_up(key(names[name]), at(now), want, || 0);
                    let held = model.held.get(&name).cloned();
                    match look_up {
                        LookUp::Fresh(hit) | LookUp::Stale { hit, lead: None } if flights.contains_key(&name) || !hit.stale || want == Want::Usual => {
                            check_hit(&hit, held, now)?;
                            track(&mut last_revision, name, &hit)?;
                        }
                        LookUp::Stale { hit, lead: Some(lead) } => {
                            check_hit(&hit, held, now)?;
                            prop_assert!(hit.stale && want == Want::Usual);
                            prop_assert!(!flights.contains_key(&name), "one call in flight");
                            let seen = truth.get(&name).map(u64::to_string);
                            flights.insert(name, (lead.id, lead.began, now, seen));
                        }
                        LookUp::Lead(lead) => {
                            prop_assert!(!flights.contains_key(&name), "one call in flight");
                            let fresh = held.is_some_and(|(_, confirmed)| now - confirmed < TTL.as_secs());
                            prop_assert!(!fresh || matches!(want, Want::Forced | Want::Reread));
                            let seen = truth.get(&name).map(u64::to_string);
                            flights.insert(name, (lead.id, lead.began, now, seen));
                        }
                        LookUp::Join(_) => prop_assert!(flights.contains_key(&name)),
                        LookUp::Absent(_) => {
                            prop_assert!(held.is_none());
                            prop_assert!(model.absent.get(&name).is_some_and(|until| now < *until));
                        }
                        _ => prop_assert!(false, "a stale value without a refresh, and nobody refreshing"),
                    }
                }
                Step::Land(name, answer) => {
                    // First the calls that a write overtook: they must not store anything.
                    if let Some(place) = overtaken.iter().position(|(other, ..)| *other == name) {
                        let (_, id, began) = overtaken.remove(place);
                        let before = cache.len();
                        let _ = cache.complete(key(names[name]), id, began, at(now), 1.0, Ok(secret(names[name], "old")));
                        prop_assert_eq!(cache.len(), before);
                        continue;
                    }
                    let Some((id, began, began_at, seen)) = flights.remove(&name) else { continue };
                    let result = match (answer, seen.clone()) {
                        (Answer::Truth, Some(version)) => Ok(secret(names[name], &version)),
                        (Answer::Truth, None) => Err(BackendError::NotFound),
                        (Answer::Transient, _) => Err(transient()),
                        (Answer::Identity, _) => Err(identity()),
                        (Answer::Denied, _) => Err(denied()),
                    };
                    let (served, _) = cache.complete(key(names[name]), id, began, at(now), 1.0, result);
                    match (answer, seen) {
                        (Answer::Truth, Some(version)) => {
                            let newer = match model.held.get(&name) {
                                Some((held, confirmed)) if *held == version => (*confirmed).max(began_at),
                                _ => began_at,
                            };
                            model.held.insert(name, (version, newer));
                            model.absent.remove(&name);
                            let hit = served.map_err(|_| TestCaseError::fail("not served"))?;
                            track(&mut last_revision, name, &hit)?;
                        }
                        (Answer::Truth, None) | (Answer::Denied, _) => {
                            model.held.remove(&name);
                            model.absent.insert(name, now + NEGATIVE_TTL.as_secs());
                            prop_assert!(served.is_err());
                        }
                        (Answer::Transient | Answer::Identity, _) => {
                            model.absent.remove(&name);
                            let usable = model.held.get(&name)
                                .is_some_and(|(_, confirmed)| now - confirmed < MAX_STALE.as_secs());
                            prop_assert_eq!(served.is_ok(), usable);
                            if !usable {
                                model.held.remove(&name);
                            }
                        }
                    }
                }
            }
            let held = cache.tables[0][0].slots.len();
            prop_assert_eq!(held, cache.len());
            let charged: usize = cache.tables[0][0].slots.iter().map(Slot::charge).sum();
            prop_assert_eq!(charged, cache.bytes());
            let absences: usize = cache.tables[0].iter().map(|table| table.absences.len()).sum();
            prop_assert_eq!(absences, cache.absences);
        }
    }
}

fn check_hit(hit: &Hit, held: Option<(String, u64)>, now: u64) -> Result<(), TestCaseError> {
    let Some((version, confirmed)) = held else { return Err(TestCaseError::fail("served what is not held")) };
    prop_assert_eq!(&*hit.cached.secret.version(), &version);
    prop_assert_eq!(hit.age.as_secs(), now - confirmed);
    prop_assert!(hit.age < MAX_STALE, "nothing is served past max_stale");
    prop_assert_eq!(hit.stale, hit.age >= TTL);
    Ok(())
}

fn track(last: &mut BTreeMap<usize, u64>, name: usize, hit: &Hit) -> Result<(), TestCaseError> {
    let revision = hit.cached.revision();
    let before = last.insert(name, revision).unwrap_or_default();
    prop_assert!(revision >= before, "revisions never go back");
    Ok(())
}
