//! The agent's socket: where it is, how it is guarded, and what is left behind.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use keyside_tests::eventually::eventually;
use keyside_tests::remark::remark;
use keyside_tests::{Client, Home};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::json;

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
        let agent_table =
            if configured.is_empty() { String::new() } else { format!("[agent]\nsocket_mode = \"{configured}\"\n") };
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
fn a_second_signal_ends_the_agent_at_once() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let mut client = agent.client();
    client.send("POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
    agent.client().get("/v1/health").expect(200);
    agent.signal(Signal::TERM);
    eventually("the agent begins to stop", || agent.log().contains("stopping").then_some(()));
    agent.signal(Signal::TERM);
    // Not 0: a request was cut off.
    assert_ne!(agent.end().code(), Some(0));
}

#[test]
fn a_socket_that_vanishes_is_back_within_seconds() {
    let home = Home::new();
    let agent = home.agent().config(&home.planted().backend("")).umask(0).start();
    std::fs::remove_file(agent.socket()).unwrap();
    let ((), took) = eventually("the socket is there again", || agent.socket().exists().then_some(()));
    remark(format_args!("the socket was back after {took:?} (promised: 5 s)"));
    // It listens only once its mode is right.
    eventually("it can be connected to", || Client::try_connect(agent.socket()).ok());
    assert_eq!(std::fs::symlink_metadata(agent.socket()).unwrap().mode() & 0o7777, 0o600);
    agent.client().value("canary", "value").expect(200);
}

#[test]
fn one_user_with_too_many_connections_is_told_so_but_probes_are_answered_and_the_agent_recovers() {
    let home = Home::new();
    let store = home.planted();
    let config = format!("{}[limits]\nconnections_per_uid = 10\n", store.backend(""));
    let agent = home.agent_with(&config);
    let mut held: Vec<_> = (0..10).map(|_| agent.client()).collect();
    for client in &mut held {
        client.get("/v1/health").expect(200);
    }
    for (target, status) in [
        ("/v1/health", 200),
        ("/v1/ready", 200),
        ("/v1/secrets/canary/value", 429),
        ("/v1/status", 429),
        ("/v1/nothing", 429),
    ] {
        let mut one_more = agent.client();
        // Two at once: the second is not for this connection.
        one_more.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(2));
        let reply = one_more.reply().unwrap().expect(status);
        assert_eq!(reply.header("connection"), Some("close"), "{target}");
        if status == 429 {
            reply.expect_problem(429, "too_many_requests");
        }
        assert!(one_more.is_closed(), "{target}");
    }
    held[0].value("canary", "value").expect(200);
    drop(held);
    eventually("there is room again", || (agent.client().value("canary", "value").status == 200).then_some(()));
}

#[test]
fn places_for_probes_are_few_and_not_held_for_long() {
    let home = Home::new();
    let agent = home.agent_with(&format!("{}[limits]\nconnections_per_uid = 1\n", home.planted().backend("")));
    let mut held = agent.client();
    held.get("/v1/health").expect(200);
    // More than there are places; whoever finds none is told at once.
    let mut idle: Vec<_> = (0..40).map(|_| agent.client()).collect();
    let began = std::time::Instant::now();
    let replies = idle.iter_mut().filter_map(Client::reply).map(|reply| reply.expect_problem(429, "too_many_requests"));
    let refused = replies.count();
    assert!((24..40).contains(&refused), "{refused} of 40 were refused at once");
    remark(format_args!("idle places were free again after {:?} (promised: 2 s)", began.elapsed()));
    assert!(began.elapsed() < Duration::from_secs(10));
    agent.client().get("/v1/health").expect(200);
    held.value("canary", "value").expect(200);
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
    let instead = directory.join("keyside/agent.sock");
    ended.expect_complaint(78, &[directory.to_str().unwrap(), "everyone", instead.to_str().unwrap()]);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}
