//! What an operator sees: metrics, the audit log, status, doctor.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use keyside_tests::eventually::eventually;
use keyside_tests::programs::is_root;
use keyside_tests::prometheus::{self, Page};
use keyside_tests::remark::remark;
use keyside_tests::run::{Run, end_of, send};
use keyside_tests::{Agent, Client, Home};
use rustix::process::Signal;
use serde_json::{Value, json};

fn agent(home: &Home) -> Agent<'_> {
    let store = home.planted();
    store.plant("db", &json!({ "user": "reader", "password": home.canary() }));
    home.agent_with(&store.backend("writable = true\nuser = \"default\""))
}

fn doctor(home: &Home, agent: Option<&Agent<'_>>) -> (Option<i32>, Value) {
    let run = home.keyside(["doctor", "--format", "json"]);
    let ended = match agent {
        Some(agent) => run.with(agent),
        None => run,
    }
    .end();
    (ended.code(), serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}")))
}

fn verdict<'r>(report: &'r Value, check: &str) -> &'r str {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("no `{check}` in {report:#}"))["verdict"].as_str().unwrap()
}

#[test]
fn doctor_judges_every_mechanism_with_and_without_an_agent() {
    let home = Home::new();
    let (code, report) = doctor(&home, None);
    assert_eq!(code, Some(1), "nothing is configured: {report:#}");
    assert_eq!((verdict(&report, "configuration"), verdict(&report, "agent")), ("wrong", "wrong"));

    let agent = agent(&home);
    let (_, report) = doctor(&home, Some(&agent));
    let checks = ["kernel", "peer identity", "links in paths", "secret memory", "namespaces", "user", "clock", "swap"];
    let more = ["locked memory", "core files", "other processes", "descriptors", "runtime directory", "secret files"];
    for check in checks.iter().chain(&more) {
        assert_ne!(verdict(&report, check), "wrong", "{report:#}");
    }
    for (check, expected) in [("configuration", "ok"), ("socket", "secure"), ("agent", "ok"), ("ready", "ok")] {
        assert_eq!(verdict(&report, check), expected, "{check} in {report:#}");
    }
    for finding in report["findings"].as_array().unwrap() {
        let bad = ["weak", "insecure", "wrong"].contains(&finding["verdict"].as_str().unwrap());
        assert!(!bad || finding["hint"].is_string(), "no advice: {finding}");
    }
    assert_eq!(report["ok"] == true, doctor(&home, Some(&agent)).0 == Some(0));
}

#[test]
fn doctor_says_what_is_wrong_with_a_configuration_and_with_an_agent_that_is_gone() {
    let home = Home::new();
    let config = home.write("keyside.toml", "[cahce]\nttl = \"5x\"\n[agent]\nsocket = \"/run/x/agent.sock\"\n");
    let ended = home.keyside(["--config"]).arg(&config).arg("doctor").end().expect_code(1);
    let text = ended.text();
    assert!(text.contains("keyside.toml:1:2: ") && text.contains("`cache`"), "{text}");
    assert!(ended.stderr.contains("insecure or wrong"), "{}", ended.stderr);
    let agent = agent(&home);
    let socket = agent.socket().to_owned();
    agent.kill();
    let ended = home.keyside(["--socket"]).arg(&socket).arg("doctor").end().expect_code(1);
    assert!(ended.text().contains("refuses"), "{}", ended.text());
}

#[test]
fn doctor_calls_a_socket_weak_that_lies_in_a_shared_directory() {
    let home = Home::new();
    let store = home.planted();
    let shared = home.join("shared");
    std::fs::create_dir_all(shared.join("keyside")).unwrap();
    std::fs::set_permissions(shared.join("keyside"), PermissionsExt::from_mode(0o711)).unwrap();
    let agent = home.agent().config(&store.backend("")).socket(shared.join("keyside/agent.sock")).start();
    assert_eq!(verdict(&doctor(&home, Some(&agent)).1, "socket"), "secure");
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(verdict(&doctor(&home, Some(&agent)).1, "socket"), "weak");
}

#[test]
fn doctor_finds_what_steps_left_that_were_killed_with_their_cleaner() {
    let home = Home::new();
    // Above every possible pid (PID_MAX_LIMIT is 2^22).
    let left = home.runtime().join("keyside/4194999");
    std::fs::create_dir_all(&left).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    std::fs::File::open(&left).unwrap().set_modified(long_ago).unwrap();
    let (code, report) = doctor(&home, None);
    assert_eq!((code, verdict(&report, "left-over files")), (Some(1), "insecure"), "{report:#}");
    std::fs::remove_dir(&left).unwrap();
    assert_eq!(verdict(&doctor(&home, None).1, "left-over files"), "secure");
}

#[test]
fn status_watch_goes_on_until_the_agent_is_gone_and_says_so() {
    let home = Home::new();
    let agent = agent(&home);
    let mut watch = home.keyside(["status", "--watch", "--format", "json"]).with(&agent).start();
    eventually("two looks", || {
        (watch.stdout_so_far().iter().filter(|byte| **byte == b'\n').count() >= 2).then_some(())
    });
    assert!(watch.is_running());
    agent.stop();
    let ended = watch.end().expect_code(69);
    assert!(ended.stderr.starts_with("keyside: "), "{}", ended.stderr);
    for line in ended.text().lines() {
        let status: Value = serde_json::from_str(line).unwrap();
        assert_eq!(status["ready"], true, "{line}");
    }
}

#[test]
fn status_watch_ends_quietly_when_nobody_reads_it_and_by_an_interrupt() {
    let home = Home::new();
    let agent = agent(&home);
    let program = keyside_tests::programs::built("keyside");
    let pipe = format!("{} status --watch | head -n 1; echo ended", program.display());
    let ended = Run::new(&home, "/bin/sh".into()).arg("-c").arg(pipe).with(&agent).end().expect_code(0);
    assert!(ended.text().starts_with("agent") && ended.text().ends_with("ended\n"), "{}", ended.text());
    assert_eq!(ended.stderr, "");
    let mut watch = home.keyside(["status", "--watch"]).with(&agent).start();
    eventually("a look", || (!watch.stdout_so_far().is_empty()).then_some(()));
    watch.signal(Signal::INT);
    assert_eq!(watch.end().signal(), Some(2));
}

fn metrics(agent: &Agent<'_>) -> (String, Page) {
    let reply = agent.client().get("/metrics").expect(200);
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(reply.body).unwrap();
    let page = Page::read(&text);
    (text, page)
}

#[test]
fn metrics_keep_to_the_convention_and_count_what_happens() {
    let home = Home::new();
    let agent = agent(&home);
    let (_, before) = metrics(&agent);
    assert_eq!(before.value("keyside_ready"), 1.0);
    let mut client = agent.client();
    for _ in 0..5 {
        client.value("db", "user").expect(200);
    }
    client.secret("db").expect(200);
    client.secret("none").expect(404);
    client.get("/v1/nonsense").expect(404);
    client.request("POST", "/v1/check", &[], Some(&json!({ "references": ["db.user"] }))).expect(200);
    client.request("PATCH", "/v1/secrets/db", &[], Some(&json!({ "values": { "new": "x" } }))).expect(200);
    let (text, after) = metrics(&agent);
    for (series, count) in [
        ("keyside_requests_total{route=\"value\",code=\"ok\"}", 5.0),
        ("keyside_requests_total{route=\"secret\",code=\"ok\"}", 1.0),
        ("keyside_requests_total{route=\"secret\",code=\"secret_not_found\"}", 1.0),
        ("keyside_requests_total{route=\"other\",code=\"not_found\"}", 1.0),
        ("keyside_requests_total{route=\"check\",code=\"ok\"}", 1.0),
        ("keyside_requests_total{route=\"write\",code=\"ok\"}", 1.0),
        ("keyside_request_duration_seconds_count{route=\"value\"}", 5.0),
        ("keyside_backend_up{backend=\"store\"}", 1.0),
        ("keyside_backend_breaker_open{backend=\"store\"}", 0.0),
        ("keyside_config_reloads_total{outcome=\"failed\"}", 0.0),
    ] {
        assert_eq!(after.value(series), count, "{series}");
    }
    assert!(after.value("keyside_cache_reads_total{outcome=\"hit\"}") >= 4.0);
    assert!(after.value("keyside_backend_calls_total{backend=\"store\"}") >= 2.0);
    assert!(after.value("keyside_connections_opened_total") > before.value("keyside_connections_opened_total"));
    for series in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds", "process_start_time_seconds"]
    {
        assert!(after.value(series) > 0.0, "{series}");
    }
    assert!(!["\"db\"", "\"none\"", "nonsense", "\"user\""].iter().any(|name| text.contains(name)), "{text}");
    // However many names are asked for, there are no more series.
    for number in 0..100 {
        client.secret(&format!("unknown-{number}")).expect(404);
    }
    assert_eq!(metrics(&agent).1.len(), after.len());
}

#[test]
fn prometheus_own_parser_reads_the_same_figures() {
    let Some(python) = prometheus::python() else { return };
    let home = Home::new();
    let agent = agent(&home);
    agent.client().value("db", "user").expect(200);
    let (text, page) = metrics(&agent);
    let file = home.write("metrics.txt", &text);
    let script = "\
import json, sys
from prometheus_client.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(open(sys.argv[1]).read()))
assert all(family.documentation and family.type != 'unknown' for family in families), families
print(json.dumps([[s.name, s.labels, s.value] for family in families for s in family.samples]))";
    let ended = Run::new(&home, python).arg("-c").arg(script).arg(&file).end().expect_code(0);
    let samples: Vec<Value> = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(samples.len(), page.len());
    let ready = samples.iter().find(|sample| sample[0] == "keyside_ready").expect("a sample");
    assert_eq!(ready[2], 1.0);
}

/// An address of the loopback interface that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn over_tcp(address: SocketAddr, head: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(keyside_tests::eventually::LONG)).unwrap();
    stream.write_all(head.as_bytes()).ok()?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).ok()?;
    let reply = String::from_utf8(reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn scrape(address: SocketAddr) -> Option<(u16, String)> {
    over_tcp(address, &format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

#[test]
fn metrics_over_tcp_have_one_route_and_answer_to_their_own_address_alone() {
    let home = Home::new();
    let store = home.planted();
    let address = free_address();
    let config = |address| format!("{}\n[metrics]\nlisten = \"{address}\"\n", store.backend(""));
    let agent = home.agent_with(&config(address));
    let (status, text) = scrape(address).unwrap();
    assert_eq!((status, Page::read(&text).value("keyside_ready")), (200, 1.0));
    let ask = |head: String| over_tcp(address, &format!("{head}\r\nConnection: close\r\n\r\n")).unwrap().0;
    let port = address.port();
    assert_eq!(ask(format!("GET /metrics HTTP/1.1\r\nHost: localhost:{port}")), 200);
    for target in ["/", "/v1/health", "/v1/status", "/v1/secrets"] {
        assert_eq!(ask(format!("GET {target} HTTP/1.1\r\nHost: {address}")), 404, "{target}");
    }
    assert_eq!(ask(format!("POST /metrics HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0")), 405);
    for head in ["Host: localhost", "Host: attacker.example", "Host: attacker.example:9464", "X-No: host"] {
        assert_eq!(ask(format!("GET /metrics HTTP/1.1\r\n{head}")), 400, "{head}");
    }
    for header in ["Origin: http://x", "Sec-Fetch-Mode: cors", "Forwarded: for=x", "X-Forwarded-For: x", "Via: 1.1 x"] {
        assert_eq!(ask(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n{header}")), 400, "{header}");
    }
    assert_eq!(ask(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked")), 411);
    drop(agent);
    assert!(TcpStream::connect(address).is_err(), "the address is free again");
}

#[test]
fn idle_connections_to_the_metrics_cannot_grow_beyond_their_number_and_are_cut_off() {
    let home = Home::new();
    let store = home.planted();
    let address = free_address();
    let agent = home.agent_with(&format!("{}\n[metrics]\nlisten = \"{address}\"\n", store.backend("")));
    let mut idle: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    let refused = "keyside_connections_refused_total{reason=\"metrics_limit\"}";
    eventually("those beyond the number are refused", || (metrics(&agent).1.value(refused) >= 24.0).then_some(()));
    // The first-byte deadline frees the rest.
    eventually("there is room again", || scrape(address).filter(|(status, _)| *status == 200));
    for stream in &mut idle {
        let mut byte = [0];
        assert!(!matches!(stream.read(&mut byte), Ok(1)));
    }
    assert!(metrics(&agent).1.value("keyside_connections_cut_off_total") >= 16.0);
}

#[test]
fn a_reload_moves_the_metrics_and_is_counted() {
    let home = Home::new();
    let store = home.planted();
    let (first, second) = (free_address(), free_address());
    let config = |listen: &str| format!("{}\n{listen}", store.backend(""));
    let file = home.write("keyside.toml", config(&format!("[metrics]\nlisten = \"{first}\"\n")));
    let agent = home.agent().env("KEYSIDE_CONFIG", &file).start();
    assert_eq!(scrape(first).unwrap().0, 200);
    std::fs::write(&file, config(&format!("[metrics]\nlisten = \"{second}\"\n"))).unwrap();
    agent.signal(Signal::HUP);
    eventually("the new address answers", || scrape(second).filter(|(status, _)| *status == 200));
    eventually("the old one is free", || TcpStream::connect(first).is_err().then_some(()));
    std::fs::write(&file, config("[metrics]\nlisten = \"nowhere\"\n")).unwrap();
    agent.signal(Signal::HUP);
    let failed = "keyside_config_reloads_total{outcome=\"failed\"}";
    eventually("the mistake is counted", || (metrics(&agent).1.value(failed) >= 1.0).then_some(()));
    let (_, page) = metrics(&agent);
    assert!(page.value("keyside_config_reloads_total{outcome=\"ok\"}") >= 1.0);
    assert!(page.value("keyside_config_last_reload_success_timestamp_seconds") > 1.7e9);
    assert_eq!(scrape(second).unwrap().0, 200);
}

#[test]
fn an_address_that_is_taken_ends_the_agent_with_69() {
    let home = Home::new();
    let store = home.planted();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ended = home.agent().config(&format!("{}\n[metrics]\nlisten = \"{address}\"\n", store.backend(""))).end();
    let ended = ended.expect_code(69);
    assert!(ended.stderr.contains(&address.to_string()) && ended.stderr.contains("\nhint: "), "{}", ended.stderr);
}

fn audited<'h>(home: &'h Home, path: &Path, required: bool) -> Agent<'h> {
    let store = home.planted();
    store.plant("db", &json!({ "user": "reader", "password": home.canary() }));
    let audit = format!("\n[audit]\npath = \"{}\"\nrequired = {required}\n", path.display());
    home.agent_with(&(store.backend("writable = true\nuser = \"default\"") + &audit))
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn written(path: &Path, count: usize) -> Vec<Value> {
    eventually("the lines are written", || Some(lines(path)).filter(|lines| lines.len() >= count)).0
}

#[test]
fn every_decision_has_a_line_in_order_and_a_moved_log_is_opened_anew_at_sighup() {
    let home = Home::new();
    let path = home.join("audit.jsonl");
    let agent = audited(&home, &path, false);
    let mut client = agent.client();
    client.value("db", "password").expect(200);
    client.secret("none").expect(404);
    client.get("/v1/secrets").expect(200);
    client.request("PATCH", "/v1/secrets/db", &[], Some(&json!({ "values": { "new": "x" } }))).expect(200);
    client.post("/v1/check", &json!({ "references": ["db.user"] })).expect(200);
    client.post("/v1/resolve", &json!({ "references": { "a": "{{db.user}}" } })).expect(200);
    client.get("/v1/health").expect(200);
    let lines = written(&path, 6);
    let operations: Vec<_> = lines.iter().map(|line| line["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, ["read", "read", "list", "update", "check", "resolve"]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for line in &lines {
        for field in ["time", "request", "uid", "gid", "pid", "grant", "operation", "secrets", "verdict", "ms"] {
            assert!(!line[field].is_null(), "no {field}: {line}");
        }
    }
    assert_eq!((&lines[0]["cache"], &lines[0]["backend"]), (&json!("miss"), &json!("store")));
    assert_eq!((&lines[1]["verdict"], &lines[1]["code"]), (&json!("error"), &json!("secret_not_found")));

    let moved = home.join("audit.jsonl.1");
    std::fs::rename(&path, &moved).unwrap();
    agent.signal(Signal::HUP);
    eventually("the log is made anew", || path.exists().then_some(()));
    client.value("db", "user").expect(200);
    assert_eq!(written(&path, 1)[0]["secrets"][0], json!({ "secret": "db", "key": "user" }));
    assert_eq!(written(&moved, 6).len(), 6);
}

#[test]
fn a_log_is_opened_anew_at_sighup_even_when_the_configuration_has_a_mistake() {
    let home = Home::new();
    let store = home.planted();
    store.plant("db", &json!({ "user": "reader" }));
    let path = home.join("audit.jsonl");
    let config = store.backend("") + &format!("\n[audit]\npath = \"{}\"\n", path.display());
    let file = home.write("keyside.toml", &config);
    let agent = home.agent().env("KEYSIDE_CONFIG", &file).start();
    std::fs::write(&file, config + "\n[nonsense]\n").unwrap();
    std::fs::rename(&path, home.join("moved.jsonl")).unwrap();
    agent.signal(Signal::HUP);
    eventually("the log is made anew", || path.exists().then_some(()));
    agent.client().value("db", "user").expect(200);
    written(&path, 1);
}

#[test]
fn a_required_log_that_cannot_be_written_stops_reads_and_only_while_that_lasts() {
    let home = Home::new();
    let folder = home.join("log");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("audit.jsonl");
    let agent = audited(&home, &path, true);
    let mut client = agent.client();
    client.value("db", "user").expect(200);
    written(&path, 1);
    // Whatever is written to a removed file nobody will read.
    std::fs::remove_dir_all(&folder).unwrap();
    eventually("reads are refused", || (client.value("db", "user").status == 503).then_some(()));
    client.value("db", "user").expect_problem(503, "audit_unavailable");
    client.secret("db").expect_problem(503, "audit_unavailable");
    client
        .post("/v1/resolve", &json!({ "references": { "a": "{{db.user}}" } }))
        .expect_problem(503, "audit_unavailable");
    client.get("/v1/health").expect(200);
    client.get("/v1/ready").expect(200);
    assert_eq!(client.get("/v1/status").json()["audit"], "failing");
    let text = home.keyside(["status"]).with(&agent).end().expect_code(0).text();
    assert!(text.contains("audit log") && text.contains("failing"), "{text}");
    assert!(doctor(&home, Some(&agent)).1.to_string().contains("make room on its disk"));
    std::fs::create_dir(&folder).unwrap();
    // Nobody reads meanwhile: the agent notices by itself.
    eventually("the log is written again", || (metrics(&agent).1.value("keyside_audit_failing") == 0.0).then_some(()));
    client.value("db", "user").expect(200);
    // Nothing was lost, and the reads that were refused are accounted for.
    let lines = written(&path, 3);
    assert!(lines.iter().any(|line| line["verdict"] == "allow"), "{lines:?}");
    let gap = lines.iter().find(|line| line["operation"] == "audit").unwrap_or_else(|| panic!("{lines:?}"));
    assert!(gap["refused"].as_u64().unwrap() >= 4 && gap["lost"] == 0, "{gap}");
    assert_eq!(metrics(&agent).1.value("keyside_audit_lines_total{outcome=\"lost\"}"), 0.0);
}

#[test]
fn a_log_on_a_full_disk_keeps_to_whole_lines_and_goes_on_when_there_is_room() {
    if !is_root() {
        return remark("skipped: only root can mount a small tmpfs; /dev/full is tried by the agent's own tests");
    }
    let home = Home::new();
    let small = home.join("small");
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8k,mode=700", "tmpfs"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return remark("skipped: a small tmpfs cannot be mounted here");
    }
    let _mount = Mounted(&small);
    let path = small.join("audit.jsonl");
    let ballast = small.join("ballast");
    let agent = audited(&home, &path, true);
    std::fs::write(&ballast, [b'x'; 4096]).unwrap();
    let mut client = agent.client();
    // One page is left: some lines fit, and the last of them not wholly.
    eventually("the disk is full", || (client.value("db", "user").status == 503).then_some(()));
    client.value("db", "user").expect_problem(503, "audit_unavailable");
    let whole = std::fs::read_to_string(&path).unwrap();
    assert!(whole.ends_with('\n') && !lines(&path).is_empty(), "{whole:?}");
    std::fs::remove_file(&ballast).unwrap();
    eventually("reads are served again", || (client.value("db", "user").status == 200).then_some(()));
    assert!(written(&path, whole.lines().count() + 2).len() > 2);
    assert!(agent.log().contains("the audit log cannot be written"), "{}", agent.log());
    assert!(agent.log().contains("can be written again"), "{}", agent.log());
}

/// Unmounted when dropped, whatever happens.
struct Mounted<'p>(&'p Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Lazily: an agent that has not ended yet may hold the log.
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_json_log_is_one_object_a_line_with_stable_names() {
    let home = Home::new();
    let store = home.planted();
    store.plant("db", &json!({ "user": "reader", "password": home.canary() }));
    let config = home.write("agent.toml", store.backend(""));
    let socket = home.join("agent.sock");
    let agent = home
        .keyside(["--log-format", "json", "--config"])
        .arg(&config)
        .arg("--socket")
        .arg(&socket)
        .arg("agent")
        .start();
    eventually("the agent answers", || {
        keyside_tests::Client::try_connect(&socket)
            .ok()
            .filter(|_| home.keyside(["--socket"]).arg(&socket).arg("ready").end().code() == Some(0))
    });
    home.keyside(["--socket"]).arg(&socket).args(["get", "db.password"]).prints_values().end().expect_code(0);
    agent.signal(Signal::TERM);
    let ended = agent.end().expect_code(0);
    let lines: Vec<Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for line in &lines {
        for field in ["timestamp", "level", "target"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    assert!(lines.iter().any(|line| line["message"] == "listening" && line["level"] == "INFO"));
}

#[test]
fn doctor_finds_the_files_of_a_step_that_was_pid_1_and_was_killed_whole() {
    let can = Command::new("unshare").args(["--pid", "--fork", "true"]).output().is_ok_and(|ran| ran.status.success());
    if !is_root() || !can {
        return remark("not shown here: only root makes a pid namespace and a step of another user");
    }
    let home = Home::new();
    // A user of this test alone: nobody else's next step removes what is left.
    let uid = 1_200_000_000 + std::process::id();
    let base = std::path::PathBuf::from(format!("/dev/shm/keyside-{uid}"));
    let program = keyside_tests::programs::built("keyside-exec");
    let mut step = Command::new("unshare");
    step.args(["--pid", "--fork", "--kill-child"]).arg(program).args(["--files", "dir", "--user"]);
    let ran = step.arg(format!("{uid}:{uid}")).args(["-F", "A=text", "--", "true"]).output().unwrap();
    let left = base.join("1");
    let was_left = left.exists();
    let (found, _) = eventually("doctor sees it, once it cannot be a start's any more", || {
        let (code, report) = doctor(&home, None);
        let findings = report["findings"].as_array().unwrap().clone();
        let finding = findings.into_iter().find(|finding| finding["check"] == "left-over files").unwrap();
        finding["what"].as_str().unwrap().contains(left.to_str().unwrap()).then_some((code, finding))
    });
    std::fs::remove_dir_all(&base).unwrap();
    assert!(was_left, "{ran:?}");
    assert_eq!((found.0, found.1["verdict"].as_str()), (Some(1), Some("insecure")), "{}", found.1);
}

#[test]
fn an_agent_whose_log_nobody_reads_any_more_serves_and_stops_like_any_other() {
    let home = Home::new();
    let config = home.write("unread.toml", home.planted().backend(""));
    let socket = home.join("unread.sock");
    let mut command = home.keyside(["--config"]).arg(&config).arg("--socket").arg(&socket).arg("agent").command();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    eventually("it answers", || {
        Client::try_connect(&socket).ok().filter(|_| Client::connect(&socket).get("/v1/ready").status == 200)
    });
    send(&child, Signal::TERM);
    assert!(end_of(&mut child, "the agent").success());
    assert!(!socket.exists(), "it has unlinked its socket");
}

#[test]
fn an_agent_that_takes_questions_and_does_not_answer_is_told_within_a_probes_time() {
    let home = Home::new();
    let agent = agent(&home);
    agent.signal(Signal::STOP);
    for command in [&["health"][..], &["ready"], &["status"], &["ready", "--wait", "1ms"]] {
        let ended = home.keyside(command).with(&agent).end();
        let ended = ended.expect_complaint(69, &["did not answer within", "hint: its process may be stopped"]);
        let text = &ended.stderr;
        // The end of a short wait comes before a probe's.
        let within = if command.len() == 3 { "within 500ms" } else { "within 3s" };
        assert!(text.contains(within) && !text.contains("keyside status"), "{command:?}: {text}");
    }
    let (code, report) = doctor(&home, Some(&agent));
    assert_eq!((code, verdict(&report, "agent")), (Some(1), "wrong"), "{report:#}");
    agent.signal(Signal::CONT);
    home.keyside(["ready", "--wait", "30s"]).with(&agent).end().expect_code(0);
}

#[test]
fn every_usage_mistake_comes_with_a_hint() {
    let home = Home::new();
    let complaint = |args: &[&str], named: &[&str]| {
        let ended = home.keyside(args).end().expect_complaint(2, named);
        assert!(!ended.stderr.contains("invalid digit"), "{args:?}");
    };
    complaint(&["--agent", "embedded", "status"], &["hint: leave `--agent` away"]);
    complaint(&["--agent", "embedded", "watch", "db"], &["hint: leave `--agent` away"]);
    complaint(&["secret", "get", "db", "-p", "maybe"], &["`true` or `false`", "hint: see `keyside secret get --help`"]);
    complaint(&["get", ""], &["hint: see `keyside get --help`"]);
    complaint(&["--agent-uid", "abc", "status"], &["a number such as 1000", "hint: "]);
}

#[test]
fn doctor_judges_locked_memory_by_the_limit_of_the_agent_and_not_by_its_own() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent().config(&store.backend("")).after("ulimit -l 64").start();
    let (_, report) = doctor(&home, Some(&agent));
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["check"] == "locked memory").unwrap();
    assert!(found["what"].as_str().unwrap().contains("the agent can lock 64KiB"), "{found}");
}
