//! What an operator sees: metrics, the audit log, status, doctor.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::PermissionsExt;

use keyside_tests::eventually::eventually;
use keyside_tests::run::Run;
use keyside_tests::{Agent, Home};
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
