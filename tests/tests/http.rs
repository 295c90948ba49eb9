//! Requests on the socket: what is served, and what is refused with nothing behind it executed.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use keyside_tests::eventually::eventually;
use keyside_tests::remark::remark;
use keyside_tests::{Client, Home};
use serde_json::{Value, json};

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
        ("another protocol", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), &[400]),
        ("a TLS hello", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".repeat(10) + "\r\n\r\n", &[400]),
        ("an older version", "GET /v1/health HTTP/1.0\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("a newer version", "GET /v1/health HTTP/1.2\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("no version", "GET /v1/health\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("no target", "GET HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("an asterisk", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("a target without a slash", "GET v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("a fragment", "GET /v1/health#x HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("a blank in the target", "GET /v1/he alth HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("a NUL in the target", "GET /v1/\0 HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("an escape in the target", "GET /v1/\u{1b} HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("a line that ends with LF alone", "GET /v1/health HTTP/1.1\nHost: localhost\r\n\r\n".into(), &[400]),
        ("a header that ends with LF alone", with("X-Line: a\nX-Other: b"), &[400]),
        ("lines that end with CR alone", "GET /v1/health HTTP/1.1\rHost: localhost\r\n\r\n".into(), &[400]),
        ("a head that ends with LF alone", "GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\n".into(), &[400]),
        ("a CR inside a header", with("X-Line: a\rb"), &[400]),
        ("a control character in a header", with("X-Bell: \u{7}"), &[400]),
        ("a folded first header", "GET /v1/health HTTP/1.1\r\n Host: localhost\r\n\r\n".into(), &[400]),
        ("equal lengths", with("Content-Length: 0\r\nContent-Length: 0"), &[400]),
        ("a negative length", with("Content-Length: -1"), &[400]),
        ("a length in two parts", with("Content-Length: 1 1"), &[400]),
        ("a length in hexadecimal", with("Content-Length: 0x10"), &[400]),
        ("an empty length", with("Content-Length:"), &[400]),
        ("a length beyond 64 bits", with("Content-Length: 18446744073709551616"), &[400]),
        ("a Host that ends with a dot", "GET /v1/health HTTP/1.1\r\nHost: localhost.\r\n\r\n".into(), &[400]),
        ("an empty Host", "GET /v1/health HTTP/1.1\r\nHost:\r\n\r\n".into(), &[400]),
        ("a change of protocol", with("Connection: Upgrade\r\nUpgrade: websocket"), &[400]),
        ("a change to HTTP/2", with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: "), &[400]),
        ("an expectation", with("Expect: a-miracle"), &[400]),
        ("a proxy's authorization", with("Proxy-Authorization: Basic eDp4"), &[400]),
        ("an authority without CONNECT", "GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("101 headers", with(&"X-Many: x\r\n".repeat(100)[..1098]), &[431]),
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
    let follow_up =
        format!("POST /v1/secrets HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len());
    for (what, head, statuses) in strange_heads() {
        // In one piece, so that it lies in the same buffer, and in many.
        for size in [usize::MAX, 7] {
            let mut client = agent.client();
            let bytes = format!("{head}{follow_up}");
            for piece in bytes.as_bytes().chunks(size.min(bytes.len())).take(3000) {
                client.send(piece);
            }
            let reply = client.reply();
            let status = reply.as_ref().map(|reply| reply.status);
            assert!(status.is_some_and(|status| statuses.contains(&status)), "{what}: {status:?} not in {statuses:?}");
            assert!(client.is_closed(), "{what}: the connection is still open");
        }
    }
    agent.client().secret("smuggled").expect_problem(404, "secret_not_found");
    agent.client().value("canary", "value").expect(200);
}

#[test]
fn refusals_that_are_replies_are_problems_and_heads_that_cannot_be_read_get_no_body() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    for (what, head, _) in strange_heads() {
        let mut client = agent.client();
        client.send(head);
        let reply = client.reply().unwrap();
        if reply.body.is_empty() {
            assert!([400, 414, 431].contains(&reply.status), "{what}: {}", reply.head);
        } else {
            assert!(reply.json()["code"].is_string(), "{what}");
            assert_eq!(reply.header("connection"), Some("close"), "{what}");
        }
    }
}

#[test]
fn a_target_is_decoded_once_and_what_else_it_holds_is_refused() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let mut client = agent.client();
    for (target, status, code) in [
        ("//v1/health", 404, "not_found"),
        ("/v1//health", 404, "not_found"),
        ("/v1/health/", 404, "not_found"),
        ("/v1/./health", 404, "not_found"),
        ("/v1/x/../health", 404, "not_found"),
        ("/v1/%68ealth", 404, "not_found"),
        ("/", 404, "not_found"),
        ("/v1/secrets/", 400, "invalid_request"),
        ("/v1/secrets//value", 400, "invalid_request"),
        ("/v1/secrets/canary/", 400, "invalid_request"),
        ("/v1/secrets/canary//value", 404, "not_found"),
        ("/v1/secrets/canary/value/", 404, "not_found"),
        ("/v1/secrets/canary/%00", 400, "invalid_request"),
        ("/v1/secrets/canary/%", 400, "invalid_request"),
        ("/v1/secrets/%c0%ae%c0%ae", 400, "invalid_request"),
        ("/v1/secrets/%ed%a0%80", 400, "invalid_request"),
        ("/v1/secrets/%2e", 400, "invalid_request"),
        ("/v1/secrets/..%2fcanary", 404, "secret_not_found"),
        ("/v1/secrets/%252e%252e", 404, "secret_not_found"),
        ("/v1/secrets/canary%2Fvalue", 404, "secret_not_found"),
        ("/v1/secrets?&=&", 400, "invalid_request"),
        ("/v1/secrets?prefix=%00%", 400, "invalid_request"),
        ("/v1/secrets?prefix", 200, ""),
        ("/v1/status?x", 400, "invalid_request"),
        ("/v1/status?", 200, ""),
    ] {
        let reply = client.get(target);
        assert_eq!(reply.status, status, "{target}: {}", reply.head);
        if status != 200 {
            reply.expect_problem(status, code);
        }
    }
    for method in ["TRACE", "OPTIONS", "PUT", "PATCH", "HEAD", "PROPFIND"] {
        client.send(format!("{method} /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        if method == "HEAD" {
            // Its reply has the length of a body that does not follow.
            client = agent.client();
            continue;
        }
        let refused = client.reply().unwrap().expect_problem(405, "method_not_allowed");
        assert_eq!(refused.header("allow"), Some("GET"), "{method}");
    }
    client.value("canary", "value").expect(200);
}

#[test]
fn heads_are_bounded_by_the_configured_limit_to_the_byte() {
    let home = Home::new();
    let store = home.planted();
    for limit in [1000_usize, 9000, 16 * 1024] {
        let agent = home.agent_with(&format!("{}[limits]\nheader = \"{limit}B\"\n", store.backend("")));
        let head = |size: usize| {
            let rest = "GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX: \r\n\r\n".len();
            format!("GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(size - rest))
        };
        for (size, status) in [(limit, 200), (limit + 1, 431), (limit * 4, 431)] {
            let mut client = agent.client();
            client.send(head(size));
            assert_eq!(client.reply().unwrap().status, status, "{size} bytes where {limit} are allowed");
            assert_eq!(client.closes_within(Duration::from_millis(100)), status != 200);
        }
        let mut client = agent.client();
        // Two heads that are short enough are not one that is too long.
        client.send(head(limit).repeat(2));
        client.reply().unwrap().expect(200);
        client.reply().unwrap().expect(200);
    }
}

#[test]
fn a_target_beyond_what_any_path_needs_is_414_where_the_head_may_be_that_long() {
    let home = Home::new();
    let agent = home.agent_with(&format!("{}[limits]\nheader = \"128KiB\"\n", home.planted().backend("")));
    let mut client = agent.client();
    client.send(format!("GET /v1/secrets/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(70_000)));
    assert_eq!(client.reply().unwrap().status, 414);
    assert!(client.is_closed());
}

#[test]
fn a_body_is_as_long_as_its_head_says() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let body = json!({ "references": ["canary.value"] }).to_string();
    let head =
        |length: usize| format!("POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    // Shorter: what stands behind it is a request of its own, and none that can be read.
    let mut client = agent.client();
    client.send(head(body.len()) + &body + "x");
    client.reply().unwrap().expect(200);
    client.send("\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 400);
    assert!(client.is_closed());
    // Longer, and then the end: refused, or nothing at all.
    let mut client = agent.client();
    client.send(head(body.len() + 10) + &body);
    client.finish();
    if let Some(reply) = client.reply() {
        reply.expect_problem(400, "invalid_request");
    }
    assert!(client.is_closed());
    // One that says first how much it will be, and waits to be told to go on.
    let mut client = agent.client();
    client.send(head(body.len()).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(client.reply().unwrap().status, 100);
    client.send(&body);
    client.reply().unwrap().expect(200);
    // To the byte.
    let agent = home.agent_with(&format!("{}[limits]\nrequest = \"{}B\"\n", home.planted().backend(""), body.len()));
    let mut client = agent.client();
    client.send(head(body.len()) + &body);
    client.reply().unwrap().expect(200);
    client.send(head(body.len() + 1) + &body + " ");
    client.reply().unwrap().expect_problem(413, "too_large");
    assert!(client.is_closed());
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
            remark(format_args!("{what}: cut off after {took:?} (promised: 5 s)"));
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
        client
            .send(format!("POST /v1/check HTTP/1.1\r\nHost: keyside\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
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
fn hostile_names_and_shapes_in_bodies_are_refused_in_bounded_time_and_write_nothing() {
    let home = Home::new();
    let store = home.planted();
    let before = std::fs::read(store.file()).unwrap();
    let agent = home.agent_with(&store.backend("writable = true\nuser = \"default\""));
    let mut client = agent.client();
    let long = "x".repeat(256);
    for name in ["", ".", "..", "a\0", "a\nb", "\u{1b}[2J", "\u{7f}", "\u{85}", long.as_str()] {
        let create = json!({ "name": name, "values": { "k": "v" } });
        client.post("/v1/secrets", &create).expect_problem(400, "invalid_request");
        let rename = json!({ "name": name });
        client.request("PATCH", "/v1/secrets/canary", &[], Some(&rename)).expect_problem(400, "invalid_request");
        let reply = client.post("/v1/resolve", &json!({ "secrets": [name] }));
        assert!([400, 422].contains(&reply.status), "{name:?}: {}", reply.head);
        let check = json!({ "references": [format!("{{{{{name}.key}}}}")] });
        let status = client.post("/v1/check", &check).expect(200).json()["results"][0]["status"].clone();
        assert!([json!("invalid"), json!("secret_missing")].contains(&status), "{name:?}: {status}");
    }
    for key in ["", "a\0b"] {
        let create = json!({ "name": "new", "values": { key: "v" } });
        client.post("/v1/secrets", &create).expect_problem(400, "invalid_request");
    }
    let began = Instant::now();
    let deep = "[".repeat(500_000);
    for body in [
        format!("{{\"references\": {deep}"),
        format!("{{\"x\": {deep}"),
        format!("{{\"references\": [{}1]}}", "1e999999,".repeat(1000)),
        format!("{{\"references\": {}}}", "9".repeat(500_000)),
        format!("{{\"references\": [\"{}", "\\u0000".repeat(100_000)),
        "{\"references\": [\"\\ud800\"]}".to_owned(),
        "{\"references\": [], \"references\": []}".to_owned(),
        "\u{feff}{\"references\": []}".to_owned(),
    ] {
        let length = body.len();
        let mut client = agent.client();
        client.send(format!("POST /v1/check HTTP/1.1\r\nHost: keyside\r\nContent-Length: {length}\r\n\r\n{body}"));
        client.reply().unwrap().expect_problem(400, "invalid_request");
    }
    remark(format_args!("hostile bodies were refused within {:?}", began.elapsed()));
    assert!(began.elapsed() < Duration::from_secs(20));
    client.value("canary", "value").expect(200);
    assert!(std::fs::read(store.file()).unwrap() == before, "nothing was written");
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
