//! What is left of a value in the agent's memory: while it is cached one copy at most, afterwards none.
#![allow(clippy::unwrap_used, reason = "a test")]

use keyside_tests::eventually::eventually;
use keyside_tests::process_memory::{places_of, status};
use keyside_tests::remark::remark;
use keyside_tests::{Agent, Client, Home, Store};
use serde_json::{Value, json};

/// A value far beyond what a socket and one buffer hold.
const LARGE: usize = 200 * 1024;

/// A store with the planted value alone, inside a text, and at the end of a large one.
fn store(home: &Home) -> Store<'_> {
    let store = home.planted();
    store.plant("large", &json!({ "value": format!("{}{}", "-".repeat(LARGE), home.canary()), "other": "1" }));
    store
}

fn request(client: &mut Client<'_>, target: &str, header: (&str, &str)) -> keyside_tests::Reply {
    client.request("GET", target, &[header], None)
}

/// Asks for the value on every route and in every form, and for things that are refused on the way.
fn ask_everything(client: &mut Client<'_>, canary: &str) {
    let value = client.value("canary", "value").expect(200);
    assert_eq!(value.body, canary.as_bytes());
    let etag = value.header("etag").unwrap().to_owned();
    request(client, "/v1/secrets/canary/value", ("If-None-Match", &etag)).expect(304);
    request(client, "/v1/secrets/canary", ("If-None-Match", &etag)).expect(304);
    assert_eq!(client.secret("canary").expect(200).json()["values"]["value"], canary);
    assert_eq!(client.value("large", "value").expect(200).body.len(), LARGE + canary.len());
    client.secret("large").expect(200);
    client.get("/v1/secrets").expect(200);
    client.value("canary", "valeu").expect(404);
    client.secret("canarie").expect(404);
    client.get("/v1/secrets/canary/value?backend=none").expect(400);
    let resolve = |client: &mut Client<'_>, body: Value| client.post("/v1/resolve", &body);
    let templates = json!({
        "plain": "a{{canary.value}}b", "base64": "{{canary.value | base64}}", "url": "x={{canary.value|url}}",
        "json": "\"{{large.value | json}}\"", "twice": "{{canary.value | base64 | base64d}}",
    });
    let whole =
        json!({ "templates": templates, "references": { "r": "{{canary.value}}" }, "secrets": ["canary", "large"] });
    assert_eq!(resolve(client, whole).expect(200).json()["values"]["r"], canary);
    resolve(client, json!({ "templates": { "a": "{{canary.value}}{{canary.nothing}}" } })).expect(422);
    resolve(client, json!({ "templates": { "a": "{{canary.value" } })).expect(422);
    resolve(client, json!(["canary"])).expect(400);
    client.post("/v1/check", &json!({ "references": ["{{canary.value}}", "{{large.x}}"] })).expect(200);
    client.get("/v1/status").expect(200);
}

/// Traffic of all kinds: connections that stay open, that close, that are cut in the middle, and a slow reader.
fn traffic<'h>(home: &'h Home, agent: &Agent<'h>) -> Vec<Client<'h>> {
    let mut open: Vec<_> = (0..3).map(|_| agent.client()).collect();
    open.iter_mut().for_each(|client| ask_everything(client, home.canary()));
    let mut closed = agent.client();
    ask_everything(&mut closed, home.canary());
    drop(closed);
    let mut cut = agent.client();
    cut.send("GET /v1/secrets/large/value HTTP/1.1\r\nHost: localhost\r\n\r\n");
    drop(cut);
    let mut slow = agent.client();
    // More than a socket holds: the agent waits with the rest.
    for _ in 0..4 {
        slow.send("GET /v1/secrets/large/value HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    ask_everything(&mut open[0], home.canary());
    for _ in 0..4 {
        assert_eq!(slow.reply().unwrap().expect(200).body.len(), LARGE + home.canary().len());
    }
    open.push(slow);
    open
}

#[test]
fn after_a_purge_no_copy_of_a_value_is_left_in_the_agent() {
    let home = Home::new();
    let store = store(&home);
    // Without the right to lock memory values lie in ordinary pages, which root can search.
    let agent = home.agent().config(&store.backend("")).after("ulimit -l 0").start();
    let mut clients = traffic(&home, &agent);
    let Ok(places) = places_of(home.planted_value(), agent.pid()) else {
        return remark("not shown here: only root may search the agent's memory");
    };
    assert!(!places.is_empty(), "the search finds what is cached");
    clients[0].post("/v1/purge", &json!({})).expect(200);
    // Idle connections stay open: they hold nothing either.
    eventually("the agent's memory is empty of it", || {
        let places = places_of(home.planted_value(), agent.pid()).unwrap();
        places.is_empty().then_some(()).ok_or(places).inspect_err(|places| remark(format!("{places:?}"))).ok()
    });
    drop(clients);
}

#[test]
fn a_value_that_was_written_through_the_agent_is_gone_with_the_connection_and_the_secret() {
    let home = Home::new();
    let store = store(&home);
    let agent = home.agent().config(&store.backend("writable = true")).after("ulimit -l 0").start();
    let mut client = agent.client();
    let values = json!({ "a": home.canary(), "b": format!("{}{}", "-".repeat(30_000), home.canary()) });
    client.post("/v1/secrets", &json!({ "name": "written", "values": values })).expect(201);
    client.request("PATCH", "/v1/secrets/written", &[], Some(&json!({ "values": { "a": home.canary() } }))).expect(200);
    client.post("/v1/secrets", &json!({ "name": "written", "values": values })).expect(409);
    client.post("/v1/secrets", &json!({ "name": "odd", "values": { "a": [home.canary()] } })).expect(400);
    assert_eq!(client.value("written", "a").expect(200).body, home.canary().as_bytes());
    let Ok(places) = places_of(home.planted_value(), agent.pid()) else {
        return remark("not shown here: only root may search the agent's memory");
    };
    assert!(!places.is_empty(), "the search finds what is cached");
    client.request("DELETE", "/v1/secrets/written", &[], None).expect(200);
    drop(client);
    eventually("the agent's memory is empty of it", || {
        places_of(home.planted_value(), agent.pid()).unwrap().is_empty().then_some(())
    });
}

#[test]
fn where_the_kernel_has_secret_memory_root_finds_no_copy_even_while_a_value_is_served() {
    let home = Home::new();
    let agent = home.agent_with(&store(&home).backend(""));
    let clients = traffic(&home, &agent);
    let Ok(maps) = std::fs::read_to_string(format!("/proc/{}/maps", agent.pid())) else {
        return remark("not shown here: only root may look at the agent's memory");
    };
    if !maps.contains("secretmem") {
        return remark("not shown here: this kernel has no memfd_secret, or no memory may be locked");
    }
    eventually("one copy is left, where nobody can read it", || {
        places_of(home.planted_value(), agent.pid()).unwrap().is_empty().then_some(())
    });
    drop(clients);
}

#[test]
fn cached_values_are_locked_in_memory_up_to_the_hard_limit() {
    let home = Home::new();
    // The soft limit is raised.
    let agent = home.agent().config(&home.planted().backend("")).after("ulimit -S -l 0").start();
    assert_eq!(status(agent.pid(), "VmLck"), Some(0), "nothing is cached yet");
    agent.client().value("canary", "value").expect(200);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let hard = limits.lines().find(|line| line.starts_with("Max locked memory")).unwrap();
    let hard = hard.split_whitespace().nth(4).unwrap();
    if hard.parse().is_ok_and(|bytes: u64| bytes < 256 * 1024) {
        return remark(format!("not shown here: only {hard} bytes may be locked"));
    }
    assert!(status(agent.pid(), "VmLck").unwrap() > 0);
    assert!(!agent.log().contains("can be locked in memory"), "{}", agent.log());
}

#[test]
fn values_that_cannot_be_locked_are_served_and_said_once() {
    let home = Home::new();
    let store = store(&home);
    let agent = home.agent().config(&store.backend("")).after("ulimit -l 0").start();
    let mut client = agent.client();
    ask_everything(&mut client, home.canary());
    assert_eq!(status(agent.pid(), "VmLck"), Some(0));
    assert_eq!(agent.log().matches("can be locked in memory").count(), 1, "{}", agent.log());
    assert!(agent.log().contains("LimitMEMLOCK"), "it says what to try: {}", agent.log());
}
