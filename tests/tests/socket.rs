//! The agent's socket: who may connect, what is refused, and what is left behind.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use keyside_tests::eventually::eventually;
use keyside_tests::{Client, Home, programs};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::{Value, json};

fn lock_of(socket: &Path) -> std::path::PathBuf {
    socket.with_extension("sock.lock")
}

#[test]
fn the_mode_of_the_socket_is_exact_under_any_umask() {
    let home = Home::new();
    let store = home.planted();
    for (umask, configured, mode) in
        [(0o000, "", 0o600), (0o077, "", 0o600), (0o000, "0660", 0o660), (0o077, "0660", 0o660), (0o177, "0666", 0o666)]
    {
        let agent_table = if configured.is_empty() { String::new() } else { format!("[agent]\nsocket_mode = \"{configured}\"\n") };
        let agent = home.agent().config(&(agent_table + &store.backend(""))).umask(umask).start();
        let found = std::fs::symlink_metadata(agent.socket()).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.mode() & 0o7777, mode, "{configured} under {umask:03o}");
        assert!(agent.stop().success());
    }
}

#[test]
fn the_default_socket_lies_in_a_directory_for_its_owner_alone() {
    let home = Home::new();
    let store = home.planted();
    let socket = home.runtime().join("keyside/agent.sock");
    let agent = home.agent().config(&store.backend("")).umask(0).unnamed_socket(&socket).start();
    assert_eq!(std::fs::metadata(socket.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(std::fs::symlink_metadata(&socket).unwrap().mode() & 0o7777, 0o600);
    // A client finds it there without being told.
    home.keyside(["health"]).end().expect_code(0);
    drop(agent);
}

#[test]
fn a_second_agent_on_the_same_path_is_refused_and_the_first_serves_on() {
    let home = Home::new();
    let store = home.planted();
    let first = home.agent_with(&store.backend(""));
    let identity = |path: &Path| std::fs::symlink_metadata(path).map(|found| (found.ino(), found.dev())).unwrap();
    let before = identity(first.socket());
    let second = home.agent().config(&store.backend("")).socket(first.socket()).end();
    second.expect_complaint(69, &[first.socket().to_str().unwrap()]);
    assert_eq!(identity(first.socket()), before);
    first.client().value("canary", "value").expect(200);

    // Even one whose lock somebody removed is not taken over while it answers.
    std::fs::remove_file(lock_of(first.socket())).unwrap();
    let third = home.agent().config(&store.backend("")).socket(first.socket()).end();
    third.expect_complaint(69, &[first.socket().to_str().unwrap()]);
    assert_eq!(identity(first.socket()), before);
    first.client().value("canary", "value").expect(200);
}

#[test]
fn sigkill_leaves_a_stale_socket_that_the_next_agent_replaces() {
    let home = Home::new();
    let store = home.planted();
    let first = home.agent_with(&store.backend(""));
    let socket = first.socket().to_owned();
    first.kill();
    assert!(socket.exists(), "nobody was there to remove it");
    let second = home.agent().config(&store.backend("")).socket(&socket).start();
    second.client().value("canary", "value").expect(200);
    assert!(second.stop().success());
    assert!(!socket.exists() && !lock_of(&socket).exists());
}

#[test]
fn sigterm_and_sigint_remove_the_socket_and_its_lock_and_end_with_0() {
    let home = Home::new();
    let store = home.planted();
    for signal in [Signal::TERM, Signal::INT] {
        let agent = home.agent_with(&store.backend(""));
        let socket = agent.socket().to_owned();
        agent.client().value("canary", "value").expect(200);
        agent.signal(signal);
        assert_eq!(agent.end().code(), Some(0));
        assert!(!socket.exists() && !lock_of(&socket).exists());
    }
}

#[test]
fn a_request_in_flight_is_finished_before_the_agent_ends() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let mut client = agent.client();
    let body = json!({ "references": ["canary.value"] }).to_string();
    let (first, rest) = body.split_at(10);
    client.send(format!("POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{first}", body.len()));
    // Its head has been read once the same agent answers somebody who came later.
    agent.client().get("/v1/health").expect(200);
    agent.signal(Signal::TERM);
    eventually("the agent begins to stop", || agent.log().contains("stopping").then_some(()));
    client.send(rest);
    assert_eq!(client.reply().unwrap().expect(200).json()["ok"], true);
    assert!(client.is_closed());
    assert_eq!(agent.end().code(), Some(0));
}

#[test]
fn a_socket_that_is_not_ours_any_more_is_not_removed() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&store.backend(""));
    let socket = agent.socket().to_owned();
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "somebody else's").unwrap();
    assert!(agent.stop().success());
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "somebody else's");
}

#[test]
fn whatever_else_stands_at_the_path_is_left_untouched() {
    let home = Home::new();
    let store = home.planted();
    let target = home.write("target", "precious");
    let at = |name: &str| home.join(name);
    std::fs::write(at("file"), "precious").unwrap();
    std::fs::create_dir(at("directory")).unwrap();
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    std::os::unix::fs::symlink(&target, at("link")).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
    for name in ["file", "directory", "fifo", "link", "dangling"] {
        let path = at(name);
        let before = std::fs::symlink_metadata(&path).unwrap();
        let ended = home.agent().config(&store.backend("")).socket(&path).end();
        ended.expect_complaint(78, &[path.to_str().unwrap()]);
        let after = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((before.ino(), before.mode(), before.mtime_nsec()), (after.ino(), after.mode(), after.mtime_nsec()));
    }
    assert_eq!(std::fs::read_to_string(target).unwrap(), "precious");
    assert!(!at("nowhere").exists());
}

#[test]
fn a_directory_in_which_everybody_may_write_is_refused() {
    let home = Home::new();
    let store = home.planted();
    let directory = home.join("open");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let ended = home.agent().config(&store.backend("")).socket(directory.join("a.sock")).end();
    ended.expect_complaint(78, &[directory.to_str().unwrap(), "everyone"]);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

/// What no client of ours sends: its name, the head, the statuses that may answer it.
fn strange_heads() -> Vec<(&'static str, String, &'static [u16])> {
    let with = |header: &str| format!("GET /v1/health HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n");
    vec![
        ("chunked", with("Transfer-Encoding: chunked"), &[411]),
        ("chunked with a length", with("Transfer-Encoding: chunked\r\nContent-Length: 5"), &[400, 411]),
        ("another coding", with("Transfer-Encoding: gzip"), &[400]),
        ("two codings", with("Transfer-Encoding: gzip, chunked"), &[400]),
        ("chunked twice", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), &[400, 411]),
        ("unequal lengths", with("Content-Length: 0\r\nContent-Length: 1"), &[400]),
        ("a list of lengths", with("Content-Length: 0, 1"), &[400]),
        ("a signed length", with("Content-Length: +1"), &[400]),
        ("a folded header", with("X-Folded: a\r\n b"), &[400]),
        ("a blank before the colon", with("X-Blank : a"), &[400]),
        ("a header without a name", with(": a"), &[400]),
        ("a NUL in a header", with("X-Nul: a\0b"), &[400]),
        ("a foreign Host", "GET /v1/health HTTP/1.1\r\nHost: example.com\r\n\r\n".into(), &[400]),
        ("a Host with a port", "GET /v1/health HTTP/1.1\r\nHost: localhost:80\r\n\r\n".into(), &[400]),
        ("no Host", "GET /v1/health HTTP/1.1\r\n\r\n".into(), &[400]),
        ("two Hosts", with("Host: keyside"), &[400]),
        ("an absolute target", "GET http://localhost/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("an authority", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("a browser's Origin", with("Origin: http://localhost"), &[400]),
        ("an Origin of null", with("Origin: null"), &[400]),
        ("a browser's Sec-Fetch-Site", with("Sec-Fetch-Site: cross-site"), &[400]),
        ("a browser's Sec-Fetch-Mode", with("sec-fetch-mode: no-cors"), &[400]),
        ("a proxy's X-Forwarded-For", with("X-Forwarded-For: 10.0.0.1"), &[400]),
        ("a proxy's X-Forwarded-Host", with("X-Forwarded-Host: localhost"), &[400]),
        ("a proxy's Forwarded", with("Forwarded: for=10.0.0.1"), &[400]),
        ("a proxy's Via", with("Via: 1.1 proxy"), &[400]),
        ("a head that is too large", with(&format!("X-Large: {}", "x".repeat(64 * 1024))), &[431]),
        ("too many headers", with(&"X-Many: x\r\n".repeat(1000)[..10_998]), &[431]),
        (
            "a target that is too long",
            format!("GET /v1/secrets/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(70_000)),
            &[414, 431],
        ),
        ("no HTTP at all", "hello\r\n\r\n".into(), &[400]),
        // Its preface is made to fail: hyper answers it with the end of the connection alone.
        ("another protocol", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), &[]),
        ("a TLS hello", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".repeat(10) + "\r\n\r\n", &[400]),
        (
            "a body that is too large",
            format!("POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", (1 << 20) + 1),
            &[413],
        ),
        ("a body on GET", with("Content-Length: 4") + "abcd", &[400]),
    ]
}

#[test]
fn what_no_client_of_ours_sends_is_refused_and_nothing_behind_it_is_executed() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend("writable = true\nuser = \"default\""));
    let smuggled = json!({ "name": "smuggled", "values": { "a": "b" } }).to_string();
    for (what, head, statuses) in strange_heads() {
        let mut client = agent.client();
        client.send(head);
        let follow_up = format!(
            "POST /v1/secrets HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        );
        client.send(follow_up);
        let reply = client.reply();
        let status = reply.as_ref().map(|reply| reply.status);
        let expected = status.map_or(statuses.is_empty(), |status| statuses.contains(&status));
        assert!(expected, "{what}: {status:?}, not one of {statuses:?}");
        assert!(client.is_closed(), "{what}: the connection is still open");
    }
    agent.client().secret("smuggled").expect_problem(404, "secret_not_found");
    agent.client().value("canary", "value").expect(200);
}

#[test]
fn both_promised_hosts_are_served_and_so_is_the_next_request_on_the_connection() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let mut client = agent.client();
    for host in ["localhost", "keyside", "LocalHost"] {
        client.send(format!("GET /v1/health HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let reply = client.reply().unwrap().expect(200);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("keyside-protocol"), Some("1"));
    }
    // Two at once.
    let request = "GET /v1/secrets/canary/user HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.send(request.repeat(2));
    for _ in 0..2 {
        assert_eq!(client.reply().unwrap().expect(200).body, b"admin");
    }
}

#[test]
fn a_client_that_stops_half_way_is_cut_off_and_others_are_served_meanwhile() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let half_a_body = "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    let starts = [("nothing", ""), ("half a head", "GET /v1/health HTTP/1.1\r\nHos"), ("half a body", half_a_body)];
    let socket = agent.socket();
    std::thread::scope(|scope| {
        let slow = starts.map(|(what, bytes)| {
            scope.spawn(move || {
                let mut client = Client::connect(socket);
                let began = Instant::now();
                client.send(bytes);
                // At most a refusal, then the end; one that never comes fails in the client.
                if let Some(reply) = client.reply() {
                    assert_eq!(reply.status, 400, "{what}");
                    assert!(client.is_closed(), "{what}");
                }
                (what, began.elapsed())
            })
        });
        let dripping = scope.spawn(move || {
            let mut client = Client::connect(socket);
            client.send("GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX-Long: ");
            // A byte now and then buys no time.
            eventually("a dripping client is cut off", || {
                client.send("x");
                client.closes_within(Duration::from_millis(200)).then_some(())
            })
        });
        let mut client = agent.client();
        while !dripping.is_finished() || slow.iter().any(|slow| !slow.is_finished()) {
            client.value("canary", "value").expect(200);
            std::thread::sleep(Duration::from_millis(20));
        }
        for slow in slow {
            let (what, took) = slow.join().unwrap();
            println!("{what}: cut off after {took:?} (promised: 5 s)");
            assert!(took.as_secs() < 20, "{what}: {took:?}");
        }
    });
}

#[test]
fn names_are_decoded_once_and_what_can_be_no_name_is_refused() {
    let home = Home::new();
    let store = home.planted();
    store.plant("a/b", &json!({ "k/1": "slash" }));
    store.plant("a%2Fb", &json!({ "k": "percent" }));
    let agent = home.agent_with(&store.backend(""));
    let mut client = agent.client();
    assert_eq!(client.get("/v1/secrets/a%2Fb/k%2f1").expect(200).body, b"slash");
    assert_eq!(client.get("/v1/secrets/a%252Fb/k").expect(200).body, b"percent");
    let long = "x".repeat(256);
    for name in ["%00", "a%00", "a%0Ab", "%1b", ".", "..", "%2e%2e", "%zz", "%f", "%ff", "", &long] {
        let reply = client.get(&format!("/v1/secrets/{name}"));
        reply.expect_problem(400, "invalid_request");
    }
    client.get(&format!("/v1/secrets/{}", "x".repeat(255))).expect_problem(404, "secret_not_found");
    client.get("/v1/secrets/a/b/c").expect_problem(404, "not_found");
    client.get("/v1/nothing").expect_problem(404, "not_found");
    let refused = client.request("PUT", "/v1/secrets/canary", &[], None).expect_problem(405, "method_not_allowed");
    assert!(refused.header("allow").unwrap().contains("GET"));
}

#[test]
fn unknown_query_parameters_are_refused_and_unknown_fields_are_not() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let mut client = agent.client();
    for target in [
        "/v1/health?x=1",
        "/v1/ready?x",
        "/v1/status?format=json",
        "/v1/secrets?limit=5",
        "/v1/secrets/canary?key=value",
        "/v1/secrets/canary/value?x=1",
        "/v1/secrets?size=0",
        "/v1/secrets?size=1001",
        "/v1/secrets?size=ten",
        "/v1/secrets?size=1&size=2",
        "/v1/secrets/canary?scope=mine",
        "/v1/secrets/canary?backend=nowhere",
    ] {
        client.get(target).expect_problem(400, "invalid_request");
    }
    client.post("/v1/check?x=1", &json!({ "references": [] })).expect_problem(400, "invalid_request");
    let check = client.post("/v1/check", &json!({ "references": ["canary.value"], "later": true })).expect(200);
    assert_eq!(check.json()["ok"], true);
    for body in ["", "{", "[]", "{\"references\": 5}", "\u{1}"] {
        client.send(format!("POST /v1/check HTTP/1.1\r\nHost: keyside\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        client.reply().unwrap().expect_problem(400, "invalid_request");
    }
}

#[test]
fn a_malformed_body_is_refused_without_quoting_it() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend("writable = true"));
    let mut client = agent.client();
    let canary = json!(home.canary()).to_string();
    for body in [
        format!("{{\"name\": \"x\", \"values\": {{\"a\": {canary} oops"),
        format!("{{\"name\": \"x\", \"values\": {canary}}}"),
        format!("{{\"name\": \"x\", \"values\": {{\"a\": [{canary}]}}}}"),
        format!("{{\"name\": \"x\", \"private\": {canary}, \"values\": {{}}}}"),
        format!("{{\"name\": \"x\", \"values\": {{\"a\": {{\"base64\": {canary}}}}}}}"),
        canary.clone(),
    ] {
        let length = body.len();
        client.send(format!("POST /v1/secrets HTTP/1.1\r\nHost: keyside\r\nContent-Length: {length}\r\n\r\n{body}"));
        // The home's end searches the reply and the log.
        client.reply().unwrap().expect_problem(400, "invalid_request");
    }
}

#[test]
fn a_writable_back_end_is_written_to_as_promised() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend("writable = true\nuser = \"default\""));
    let mut client = agent.client();
    let values = json!({ "a": home.canary(), "b": "2" });
    let created = client.post("/v1/secrets", &json!({ "name": "new", "values": values })).expect(201);
    assert_eq!((created.json()["name"].clone(), created.json()["keys"].clone()), (json!("new"), json!(["a", "b"])));
    client.post("/v1/secrets", &json!({ "name": "new", "values": {} })).expect_problem(409, "conflict");
    assert_eq!(client.secret("new").expect(200).json()["values"], values);

    // The tag that a reader saw guards a change.
    let seen = client.secret("new").expect(200);
    let tag = seen.header("etag").unwrap().to_owned();
    assert_eq!(tag, format!("\"{}-{}\"", seen.json()["instance"].as_str().unwrap(), seen.json()["revision"]));
    let unchanged = client.request("GET", "/v1/secrets/new", &[("If-None-Match", &tag)], None).expect(304);
    assert_eq!(unchanged.header("etag"), Some(&*tag));
    client.request("GET", "/v1/secrets/new/a", &[("If-None-Match", &tag)], None).expect(304);
    let change = json!({ "values": { "b": null, "c": "3" } });
    client.request("PATCH", "/v1/secrets/new", &[("If-Match", &tag)], Some(&change)).expect(200);
    assert_eq!(client.secret("new").expect(200).json()["values"], json!({ "a": home.canary(), "c": "3" }));
    for method in ["PATCH", "DELETE"] {
        let body = (method == "PATCH").then(|| json!({ "values": { "b": "4" } }));
        let stale = client.request(method, "/v1/secrets/new", &[("If-Match", &tag)], body.as_ref());
        stale.expect_problem(412, "precondition_failed");
    }
    let newer = client.request("GET", "/v1/secrets/new", &[("If-None-Match", &tag)], None).expect(200);
    assert!(newer.json()["revision"].as_u64() > seen.json()["revision"].as_u64());

    // A name in both scopes needs a word more.
    client.post("/v1/secrets", &json!({ "name": "new", "private": true, "values": { "p": "1" } })).expect(201);
    let ambiguous = client.request("DELETE", "/v1/secrets/new", &[], None).expect_problem(409, "conflict");
    let said = ambiguous.json().to_string();
    assert!(said.contains("private") && said.contains("public"), "the choices are listed: {said}");
    client.request("DELETE", "/v1/secrets/new?scope=private", &[], None).expect(200);
    client.request("PATCH", "/v1/secrets/new", &[], Some(&json!({ "name": "renamed" }))).expect(200);
    client.secret("new").expect_problem(404, "secret_not_found");
    assert_eq!(client.value("renamed", "c").expect(200).body, b"3");
    let missing = json!({ "values": { "nowhere": null } });
    client.request("PATCH", "/v1/secrets/renamed", &[], Some(&missing)).expect_problem(404, "key_not_found");
    client.request("DELETE", "/v1/secrets/renamed", &[], None).expect(200);
    client.request("DELETE", "/v1/secrets/renamed", &[], None).expect_problem(404, "secret_not_found");
    // ZenML's limit, and the agent's.
    let large = json!({ "name": "large", "values": { "a": "x".repeat(70_000) } });
    let refused = client.post("/v1/secrets", &large);
    assert!([400, 413].contains(&refused.status), "{}", refused.head);
    client.secret("large").expect_problem(404, "secret_not_found");
}

#[test]
fn a_back_end_that_is_not_writable_refuses_every_write_and_stays_as_it_is() {
    let home = Home::new();
    let store = home.planted();
    let before = std::fs::read(store.file()).unwrap();
    let agent = home.agent_with(&store.backend(""));
    let mut client = agent.client();
    let values = json!({ "a": home.canary() });
    client.post("/v1/secrets", &json!({ "name": "new", "values": values })).expect_problem(403, "read_only");
    let change = json!({ "values": values });
    client.request("PATCH", "/v1/secrets/canary", &[], Some(&change)).expect_problem(403, "read_only");
    client.request("DELETE", "/v1/secrets/canary", &[], None).expect_problem(403, "read_only");
    assert!(std::fs::read(store.file()).unwrap() == before);
}

#[test]
fn the_list_is_in_byte_order_and_its_pages_join_without_a_gap() {
    let home = Home::new();
    let store = home.planted();
    for number in 0..12 {
        store.plant(&format!("page{number}é"), &json!({ "k": home.canary() }));
    }
    let agent = home.agent_with(&store.backend("user = \"default\""));
    let mut client = agent.client();
    let names = |reply: &Value| -> Vec<String> {
        let secrets = reply["secrets"].as_array().unwrap();
        secrets.iter().map(|secret| secret["name"].as_str().unwrap().to_owned()).collect()
    };
    let all = client.get("/v1/secrets?size=1000").expect(200).json();
    let all_names = names(&all);
    let mut sorted = all_names.clone();
    sorted.sort_unstable_by(|left, right| left.as_bytes().cmp(right.as_bytes()));
    sorted.dedup();
    assert_eq!(all_names, sorted, "byte order, one entry a name");
    assert!(all_names.len() > 30 && all["next"].is_null() && all["unavailable"] == json!([]), "{all}");
    assert!(!all.to_string().contains(home.canary()));

    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let after_parameter = keyside_tests::canary::url_escaped(after.as_bytes());
        let page = client.get(&format!("/v1/secrets?size=7&after={after_parameter}")).expect(200).json();
        paged.extend(names(&page));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(paged, all_names);
    let found = names(&client.get("/v1/secrets?prefix=page1").expect(200).json());
    assert_eq!(found, ["page10é", "page11é", "page1é"]);
}

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
        println!("skipped: only root can connect as somebody else");
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
    Client::connect_as(agent.socket(), 4321).recorded(&home).value("canary", "user").expect_problem(403, "peer_refused");
}

#[test]
fn a_socket_that_is_not_open_to_others_cannot_be_connected_to_by_them() {
    if !programs::is_root() {
        println!("skipped: only root can connect as somebody else");
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
    let agent = home.agent_with(&format!("{}[audit]\npath = \"{}\"\n", store.backend("writable = true"), path.display()));
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
    assert_eq!(lines[0]["secrets"], json!(["canary.value"]));
}
