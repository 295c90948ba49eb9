//! Beside the real ZenML, on a store that it made itself.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use keyside_tests::eventually::eventually;
use keyside_tests::remark::remark;
use keyside_tests::zenml::Zenml;
use keyside_tests::{Client, Home};
use serde_json::{Value, json};

/// The interval of the first agent; a change is promised within it and one second.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// One scenario, for starting ZenML costs more than all of it.
#[test]
fn what_real_zenml_writes_is_served_in_time_and_what_keyside_writes_it_reads() {
    let home = Home::new();
    let Some(mut zenml) = Zenml::start(&home) else { return };
    zenml.create("canary", &json!({ "value": home.canary() }));
    zenml.create_private("mine", &json!({ "value": home.canary(), "kind": "private" }));

    changes_are_served_in_time(&home, &mut zenml);
    zenml_is_not_disturbed(&home, &mut zenml);
    writes_are_read_by_zenml(&home, &mut zenml);
}

fn changes_are_served_in_time(home: &Home, zenml: &mut Zenml) {
    let agent = home
        .agent()
        .env("ZENML_CONFIG_PATH", zenml.directory())
        .env("KEYSIDE_CACHE__POLL_INTERVAL", "1s")
        // Only the poll can be what notices a change.
        .env("KEYSIDE_CACHE__NEGATIVE_TTL", "1h")
        .start();
    let mut client = agent.client();
    assert_eq!(client.value("canary", "value").expect(200).body, home.canary().as_bytes());
    assert_eq!(client.value("mine", "kind").expect(200).body, b"private");

    let timed = |what: &str, client: &mut Client<'_>, wanted: &dyn Fn(&mut Client<'_>) -> bool| {
        let (_, took) = eventually(what, || wanted(client).then_some(()));
        let promised = POLL_INTERVAL + Duration::from_secs(1);
        remark(format_args!("{what}: after {took:?} (promised: within {promised:?})"));
        // The promise is for a machine that is not busy with a build; what a busy one does is told apart by far.
        assert!(took < Duration::from_secs(10), "{what} took {took:?}");
    };
    client.secret("new").expect_problem(404, "secret_not_found");
    zenml.create("new", &json!({ "a": "1" }));
    timed("what ZenML created is served", &mut client, &|client| client.value("new", "a").body == b"1");
    let revision = client.secret("new").json()["revision"].as_u64().unwrap();
    zenml.update("new", &json!({ "a": "2", "b": "3" }), &[]);
    timed("what ZenML changed is served", &mut client, &|client| client.value("new", "a").body == b"2");
    let secret = client.secret("new").expect(200).json();
    assert_eq!(secret["values"], json!({ "a": "2", "b": "3" }), "a secret is served whole");
    assert!(secret["revision"].as_u64().unwrap() > revision);
    zenml.update("new", &json!({}), &["b"]);
    timed("a key that ZenML removed is gone", &mut client, &|client| client.value("new", "b").status == 404);
    zenml.delete("new");
    timed("what ZenML deleted is gone", &mut client, &|client| client.secret("new").status == 404);
    client.secret("new").expect_problem(404, "secret_not_found");
    drop(client);
    assert!(agent.stop().success());
}

fn zenml_is_not_disturbed(home: &Home, zenml: &mut Zenml) {
    let agent = home
        .agent()
        .env("ZENML_CONFIG_PATH", zenml.directory())
        .env("KEYSIDE_CACHE__POLL_INTERVAL", "100ms")
        // Reads reach the data base, not the memory alone.
        .env("KEYSIDE_CACHE__TTL", "0")
        .env("KEYSIDE_CACHE__NEGATIVE_TTL", "0")
        .start();
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let longest = std::thread::scope(|scope| {
        for _ in 0..3 {
            let (stop, reads, socket) = (&stop, &reads, agent.socket());
            scope.spawn(move || {
                let mut client = Client::connect(socket);
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let reply = client.secret(&format!("many_{}", number % 50));
                    // There or not, but never half, and never an error.
                    match reply.status {
                        200 => assert!(reply.json()["values"]["number"].is_string()),
                        404 => {}
                        other => panic!("{other}: {}", String::from_utf8_lossy(&reply.body)),
                    }
                    assert_eq!(client.value("canary", "value").status, 200);
                    number += 1;
                    reads.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        // `ZenML failed` here would be a lock that Keyside held too long.
        let longest = zenml.write_many(50, home.canary());
        stop.store(true, Ordering::Relaxed);
        longest
    });
    let reads = reads.into_inner();
    remark(format_args!(
        "ZenML wrote 125 times in our presence, the longest write took {longest} ms; {reads} reads meanwhile"
    ));
    assert!(reads > 100, "only {reads} reads: nobody was there to disturb anything");
    let mut client = agent.client();
    for number in 0..50 {
        let (name, number_text, there) = (format!("many_{number}"), number.to_string(), number % 2 == 1);
        eventually("the last writes are served", || {
            let reply = client.secret(&name);
            match there {
                true => (reply.status == 200 && reply.json()["values"]["number"] == number_text).then_some(()),
                false => (reply.status == 404).then_some(()),
            }
        });
    }
    drop(client);
    assert!(agent.stop().success());
}

fn writes_are_read_by_zenml(home: &Home, zenml: &mut Zenml) {
    let data_base = zenml.directory().join("local_stores/default_zen_store/zenml.db");
    let backend = format!("[backend.store]\ntype = \"zenml-sql\"\nurl = \"sqlite:///{}\"\n", data_base.display());
    let agent = home.agent_with(&format!("{backend}user = \"default\"\nwritable = true\n"));
    let mut client = agent.client();
    let values =
        json!({ "value": home.canary(), "unicode": "значение 🔐", "empty": "", "lines": "a\r\nb\n", "a.b c": "x" });

    client.post("/v1/secrets", &json!({ "name": "ours", "values": values })).expect(201);
    assert_eq!(zenml.get("ours", false), values, "ZenML reads what Keyside created");
    assert_eq!(zenml.get("ours", true), Value::Null);
    client.post("/v1/secrets", &json!({ "name": "hidden", "private": true, "values": { "a": "b" } })).expect(201);
    assert_eq!(zenml.get("hidden", true), json!({ "a": "b" }));
    assert_eq!(zenml.get("hidden", false), Value::Null);

    let change = json!({ "values": { "empty": "no more", "unicode": null, "new": "1" } });
    client.request("PATCH", "/v1/secrets/ours", &[], Some(&change)).expect(200);
    let expected = json!({ "value": home.canary(), "empty": "no more", "lines": "a\r\nb\n", "a.b c": "x", "new": "1" });
    assert_eq!(zenml.get("ours", false), expected, "ZenML reads what Keyside changed");
    zenml.update("ours", &json!({ "new": "2" }), &["lines"]);
    let changed = json!({ "value": home.canary(), "empty": "no more", "a.b c": "x", "new": "2" });
    assert_eq!(zenml.get("ours", false), changed, "ZenML changes what Keyside wrote");
    let rename = json!({ "name": "renamed" });
    client.request("PATCH", "/v1/secrets/ours", &[], Some(&rename)).expect(200);
    assert_eq!((zenml.get("ours", false), zenml.get("renamed", false)), (Value::Null, changed));

    // Names are unique to both in the same way.
    client.post("/v1/secrets", &json!({ "name": "canary", "values": { "a": "b" } })).expect_problem(409, "conflict");
    client.request("DELETE", "/v1/secrets/renamed", &[], None).expect(200);
    assert_eq!(zenml.get("renamed", false), Value::Null, "what Keyside deleted is gone for ZenML");
    zenml.create("renamed", &json!({ "again": "yes" }));
    assert_eq!(zenml.get("canary", false), json!({ "value": home.canary() }), "nothing else was touched");

    // From the command line, too.
    let created = home.keyside(["secret", "create", "typed", "--password=@-"]).with(&agent).stdin(home.canary()).end();
    created.expect_code(0);
    assert_eq!(zenml.get("typed", false), json!({ "password": home.canary() }));
}
