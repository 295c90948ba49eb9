//! Who may see what, and the record of it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::MetadataExt as _;

use keyside_tests::remark::remark;
use keyside_tests::{Client, Home, programs};
use serde_json::{Value, json};

/// A configuration in which `uid` may read `canary.user` and everything that begins with `free_`.
fn with_grant(backend: &str, uid: u32) -> String {
    format!("{backend}[grant.team]\nuid = [{uid}]\nread = [\"free_*\", {{ secret = \"canary\", keys = [\"user\"] }}]\n")
}

/// What a peer with [`with_grant`] must and must not see.
fn sees_only_what_is_granted(client: &mut Client<'_>) {
    assert_eq!(client.value("canary", "user").expect(200).body, b"admin");
    assert_eq!(client.secret("canary").expect(200).json()["values"], json!({ "user": "admin" }));
    assert_eq!(client.value("free_one", "k").expect(200).body, b"v");
    let list = client.get("/v1/secrets").expect(200).json();
    let names: Vec<_> = list["secrets"].as_array().unwrap().iter().map(|secret| secret["name"].clone()).collect();
    assert_eq!(names, ["canary", "free_one"]);
    let status = client.get("/v1/status").expect(200).json().to_string();
    assert!(!status.contains("simple"), "{status}");

    // One fixed answer, there or not: secrets and keys, any method.
    let there = client.secret("simple");
    assert_eq!(there.status, 404);
    for (method, target) in [
        ("GET", "/v1/secrets/missing"),
        ("GET", "/v1/secrets/simple/password"),
        ("GET", "/v1/secrets/missing/password"),
        ("GET", "/v1/secrets/canary/value"),
        ("GET", "/v1/secrets/canary/missing"),
        ("GET", "/v1/secrets/simple?scope=public"),
        ("DELETE", "/v1/secrets/simple"),
        ("DELETE", "/v1/secrets/missing"),
    ] {
        assert_eq!(client.request(method, target, &[], None), there, "{method} {target}");
    }
    let check = json!({ "references": ["simple.password", "missing.key", "canary.value", "canary.missing"] });
    let results = client.post("/v1/check", &check).expect(200).json()["results"].clone();
    let statuses: Vec<_> = results.as_array().unwrap().iter().map(|result| result["status"].clone()).collect();
    assert_eq!(statuses, ["secret_missing", "secret_missing", "key_missing", "key_missing"]);
    for result in results.as_array().unwrap() {
        assert!(result["backend"].is_null() && result["hint"].is_null(), "{result}");
    }
    let resolve = |reference: &str| json!({ "references": { "a": reference } });
    let mut failure = |reference: &str| {
        let reply = client.post("/v1/resolve", &resolve(reference)).expect_problem(422, "unresolved").json();
        let mut failure = reply["failures"][0].clone();
        failure["reference"] = Value::Null;
        failure
    };
    assert_eq!(failure("{{simple.password}}"), failure("{{missing.password}}"));
    assert_eq!(failure("{{canary.value}}"), failure("{{canary.missing}}"));
    client.post("/v1/secrets", &json!({ "name": "free_two", "values": {} })).expect_problem(403, "peer_refused");
}

#[test]
fn a_grant_shows_its_keys_and_one_fixed_answer_for_all_else() {
    let home = Home::new();
    let store = home.planted();
    store.plant("free_one", &json!({ "k": "v" }));
    let uid = rustix::process::geteuid().as_raw();
    let agent = home.agent_with(&with_grant(&store.backend("writable = true"), uid));
    sees_only_what_is_granted(&mut agent.client());
}

#[test]
fn a_name_outside_the_grant_costs_no_call_and_answers_the_same_bytes_on_every_route() {
    let home = Home::new();
    let store = home.planted();
    store.plant("free_one", &json!({ "k": "v" }));
    let uid = rustix::process::geteuid().as_raw();
    // Nothing is cached, so that a look-up would be a call.
    let config = with_grant(&store.backend("writable = true"), uid) + "[cache]\npoll = \"off\"\n";
    let agent = home.agent_with(&config);
    let mut client = agent.client();
    let calls = |client: &mut Client<'_>| {
        let cache = client.get("/v1/status").expect(200).json()["cache"].clone();
        (cache["backend_calls"].clone(), cache["hits"].clone(), cache["misses"].clone())
    };
    let change = json!({ "values": { "k": "x" } });
    let of = |name: &str| {
        [
            ("GET", format!("/v1/secrets/{name}"), None),
            ("GET", format!("/v1/secrets/{name}/password"), None),
            ("GET", format!("/v1/secrets/{name}?backend=store"), None),
            ("PATCH", format!("/v1/secrets/{name}"), Some(&change)),
            ("DELETE", format!("/v1/secrets/{name}"), None),
            ("POST", "/v1/check".to_owned(), None),
            ("POST", "/v1/resolve".to_owned(), None),
        ]
    };
    let before = calls(&mut client);
    // By the path that a request takes, not by the clock: the same code decides, before any look-up.
    for (there, missing) in of("simple").into_iter().zip(of("absent")) {
        let mut ask = |(method, target, body): &(&str, String, Option<&Value>), name: &str| {
            let references = match target.as_str() {
                "/v1/check" => Some(json!({ "references": [format!("{name}.password")] })),
                "/v1/resolve" => {
                    Some(json!({ "references": { "a": format!("{{{{{name}.password}}}}") }, "secrets": [name] }))
                }
                _ => None,
            };
            let reply = client.request(method, target, &[("Cache-Control", "no-cache")], references.as_ref().or(*body));
            // The names themselves are as long as one another.
            let bytes = String::from_utf8(reply.body.clone()).unwrap().replace(name, "NAME");
            (reply.head, bytes)
        };
        assert_eq!(ask(&there, "simple"), ask(&missing, "absent"), "{there:?}");
    }
    assert_eq!(calls(&mut client), before, "nothing was looked up");
    // The keys beside a granted one are as fixed, though the secret itself is read for that one.
    let hidden = client.value("canary", "value");
    assert_eq!(client.value("canary", "absent"), hidden);
    assert_eq!(client.secret("absent"), hidden);
    assert_eq!(calls(&mut client), before);
}

#[test]
fn with_grants_for_others_only_even_the_agents_own_uid_reads_nothing() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&with_grant(&store.backend(""), 54_321));
    let mut client = agent.client();
    client.get("/v1/status").expect(200);
    for target in ["/v1/secrets", "/v1/secrets/canary", "/v1/secrets/missing", "/v1/secrets/canary/value"] {
        client.get(target).expect_problem(403, "peer_refused");
    }
}

#[test]
fn a_peer_of_another_uid_is_refused_without_a_grant_and_served_its_keys_with_one() {
    if !programs::is_root() {
        remark("skipped: only root can connect as somebody else");
        return;
    }
    let home = Home::new();
    home.let_others_in();
    let store = home.planted();
    store.plant("free_one", &json!({ "k": "v" }));
    let open = "[agent]\nsocket_mode = \"0666\"\n";
    let stranger = 1234;

    let agent = home.agent_with(&format!("{open}{}", store.backend("")));
    let mut client = Client::connect_as(agent.socket(), stranger).recorded(&home);
    client.get("/v1/health").expect(200);
    client.get("/v1/ready").expect(200);
    for target in ["/v1/status", "/v1/secrets", "/v1/secrets/canary", "/v1/secrets/canary/value", "/v1/nothing"] {
        let refused = client.get(target).expect_problem(403, "peer_refused");
        assert!(refused.json()["detail"].as_str().unwrap().contains("1234"));
    }
    client.post("/v1/resolve", &json!({ "secrets": ["canary"] })).expect_problem(403, "peer_refused");
    agent.client().value("canary", "value").expect(200);
    drop(agent);

    let agent = home.agent_with(&format!("{open}{}", with_grant(&store.backend("writable = true"), stranger)));
    sees_only_what_is_granted(&mut Client::connect_as(agent.socket(), stranger).recorded(&home));
    // The same socket, another peer: root has no grant by itself.
    agent.client().value("canary", "user").expect_problem(403, "peer_refused");
    Client::connect_as(agent.socket(), 4321)
        .recorded(&home)
        .value("canary", "user")
        .expect_problem(403, "peer_refused");
}

#[test]
fn a_socket_that_is_not_open_to_others_cannot_be_connected_to_by_them() {
    if !programs::is_root() {
        remark("skipped: only root can connect as somebody else");
        return;
    }
    let home = Home::new();
    home.let_others_in();
    let agent = home.agent_with(&home.planted().backend(""));
    let socket = agent.socket().to_owned();
    let refused = std::thread::spawn(move || Client::connect_as(&socket, 1234).get("/v1/health").status).join();
    assert!(refused.is_err());
}

#[test]
fn every_decision_has_its_line_in_the_audit_log_and_no_line_holds_a_value() {
    let home = Home::new();
    let store = home.planted();
    let path = home.join("audit.jsonl");
    let agent =
        home.agent_with(&format!("{}[audit]\npath = \"{}\"\n", store.backend("writable = true"), path.display()));
    let mut client = agent.client();
    client.value("canary", "value").expect(200);
    client.value("canary", "value").expect(200);
    client.value("canary", "missing").expect(404);
    client.post("/v1/resolve", &json!({ "templates": { "a": "{{canary.value}}" } })).expect(200);
    client.post("/v1/secrets", &json!({ "name": "new", "values": { "k": home.canary() } })).expect(201);
    drop(client);
    assert!(agent.stop().success());
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let column = |name: &str| lines.iter().map(|line| line[name].as_str().unwrap_or_default()).collect::<Vec<_>>();
    assert_eq!(column("operation"), ["read", "read", "read", "resolve", "create"], "{text}");
    assert_eq!(column("verdict"), ["allow", "allow", "error", "allow", "allow"], "{text}");
    assert_eq!(column("cache")[..2], ["miss", "hit"], "{text}");
    assert!(lines.iter().all(|line| line["uid"] == rustix::process::geteuid().as_raw()));
    assert_eq!(lines[0]["secrets"], json!([{ "secret": "canary", "key": "value" }]));
}
