//! What is served when the back-end changes, breaks, or comes back.
#![allow(clippy::unwrap_used, reason = "a test")]

use keyside_tests::eventually::eventually;
use keyside_tests::{Agent, Home, Store};
use serde_json::json;

/// An agent that asks its back-end again at once, and never by itself.
fn agent<'h>(home: &'h Home, store: &Store<'_>, cache: &str) -> Agent<'h> {
    home.agent_with(&format!("[cache]\npoll = \"off\"\nnegative_ttl = \"0\"\n{cache}\n{}", store.backend("")))
}

fn break_it(store: &Store<'_>) -> Vec<u8> {
    let whole = std::fs::read(store.file()).unwrap();
    std::fs::write(store.file(), "broken, and longer than the hundred bytes of a header ".repeat(3)).unwrap();
    whole
}

#[test]
fn a_value_says_how_old_it_is_and_what_it_is() {
    let home = Home::new();
    let store = home.planted();
    let agent = agent(&home, &store, "ttl = \"5m\"");
    let mut client = agent.client();
    let first = client.value("canary", "value").expect(200);
    let second = client.value("canary", "value").expect(200);
    for reply in [&first, &second] {
        assert_eq!(reply.header("keyside-stale"), Some("false"));
        assert!(reply.header("age").unwrap().parse::<u64>().unwrap() < 60);
        assert_eq!(reply.header("etag"), first.header("etag"));
        assert_eq!(reply.header("keyside-version"), first.header("keyside-version"));
    }
    let secret = client.secret("canary").expect(200).json();
    assert_eq!(secret["version"], first.header("keyside-version").unwrap());
    assert_eq!((secret["stale"].clone(), secret["backend"].clone()), (json!(false), json!("store")));
}

#[test]
fn a_broken_back_end_leaves_known_values_stale_and_marked_until_it_is_whole() {
    let home = Home::new();
    let store = home.planted();
    let agent = agent(&home, &store, "ttl = \"50ms\"\nmax_stale = \"1h\"");
    let mut client = agent.client();
    let tag = client.value("canary", "value").expect(200).header("etag").unwrap().to_owned();
    let whole = break_it(&store);
    let stale = || {
        let mut client = agent.client();
        eventually("the value is stale", || {
            let reply = client.value("canary", "value").expect(200);
            (reply.header("keyside-stale") == Some("true")).then_some(reply)
        })
        .0
    };
    assert_eq!(stale().body, home.canary().as_bytes());
    assert_eq!(stale().header("etag"), Some(&*tag));
    assert_eq!(client.secret("canary").expect(200).json()["stale"], true);
    // A stale value is a value: the step starts. What was never known is not there.
    home.wrapper(["--wait", "0", "-e", "A={{canary.value}}", "--", "true"]).with(&agent).end().expect_code(0);
    client.value("simple", "password").expect_problem(503, "backend_unavailable");
    let mixed = home.wrapper(["--wait", "0", "-e", "A={{canary.value}}", "-e", "B={{simple.password}}", "--", "true"]);
    mixed.with(&agent).end().expect_complaint(125, &["simple"]);

    std::fs::write(store.file(), whole).unwrap();
    eventually("the value is fresh again", || {
        let reply = client.value("canary", "value").expect(200);
        (reply.header("keyside-stale") == Some("false")).then_some(())
    });
    client.value("simple", "password").expect(200);
}

#[test]
fn an_expired_value_is_not_served_while_the_back_end_is_broken() {
    let home = Home::new();
    let store = home.planted();
    let agent = agent(&home, &store, "ttl = \"10ms\"\nmax_stale = \"300ms\"");
    let mut client = agent.client();
    client.value("canary", "value").expect(200);
    break_it(&store);
    eventually("the value expires", || (client.value("canary", "value").status != 200).then_some(()));
    client.value("canary", "value").expect_problem(503, "backend_unavailable");
}

#[test]
fn a_deleted_secret_is_gone_for_good_even_when_the_back_end_breaks_afterwards() {
    let home = Home::new();
    let store = home.planted();
    let agent = agent(&home, &store, "ttl = \"10ms\"\nmax_stale = \"1h\"");
    let mut client = agent.client();
    client.value("canary", "value").expect(200);
    store.remove("canary");
    eventually("the secret is gone", || (client.secret("canary").status == 404).then_some(()));
    break_it(&store);
    for _ in 0..5 {
        let reply = client.secret("canary");
        assert!([404, 503].contains(&reply.status), "served after it was deleted: {}", reply.head);
    }
}

#[test]
fn one_resolve_is_one_set_while_a_secret_is_replaced_again_and_again() {
    let home = Home::new();
    let store = home.planted();
    store.plant("pair", &json!({ "a": "0", "b": "0" }));
    let agent = agent(&home, &store, "ttl = \"0\"");
    let writer = store.replacing("pair");
    let mut client = agent.client();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 20 {
        let request =
            json!({ "references": { "a": "{{pair.a}}", "b": "{{pair.b}}" }, "templates": { "t": "{{pair.a}}" } });
        let reply = client.post("/v1/resolve", &request).expect(200).json();
        assert_eq!(reply["values"]["a"], reply["values"]["b"], "half of one and half of another");
        assert_eq!(reply["values"]["a"], reply["values"]["t"]);
        seen.insert(reply["values"]["a"].as_str().unwrap().to_owned());
    }
    drop(writer);
}
