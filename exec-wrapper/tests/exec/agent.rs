//! The agent: how it is found, waited for, trusted, and what its refusals become.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Place, agent_at, answer, eventually, failures, is_root, ran, reply};

const NEEDED: [&str; 5] = ["-e", "A={{db.user}}", "--", "printenv", "A"];

#[test]
fn a_named_socket_that_appears_later_is_waited_for() {
    let place = Place::without_agent();
    let child = place.wrapper(&NEEDED).stdout(std::process::Stdio::piped()).spawn().expect("started");
    let seen = agent_at(&place.socket(), |_, _, body| answer(body));
    let output = child.wait_with_output().expect("ended");
    assert_eq!((output.status.code(), &output.stdout[..], seen.count()), (Some(0), &b"alice\n"[..], 1));
}

#[test]
fn a_named_socket_that_is_dead_is_an_error_after_the_wait_and_never_a_fallback() {
    let place = Place::without_agent();
    drop(UnixListener::bind(place.socket()).expect("bound"));
    let started = Instant::now();
    place.run(&[&["--wait", "300ms"], &NEEDED[..]].concat()).refused(125, &["agent.sock", "nobody listens", "hint: "]);
    assert!(started.elapsed() >= Duration::from_millis(300));
    place.run(&[&["--wait", "0", "--unavailable-exit", "75"], &NEEDED[..]].concat()).refused(75, &["agent.sock"]);
    let long = format!("/{}", "x".repeat(200));
    place.run(&[&["--socket", &long], &NEEDED[..]].concat()).refused(125, &["107"]);
}

#[test]
fn without_a_socket_the_places_that_were_looked_at_are_named() {
    let place = Place::without_agent();
    let mut wrapper = place.wrapper(&NEEDED);
    let stderr = ran(wrapper.env_remove("KEYSIDE_SOCKET")).refused(125, &["no agent found"]);
    assert!(stderr.contains("runtime/keyside/agent.sock") && stderr.contains("/run/keyside/agent.sock"), "{stderr}");
}

#[test]
fn a_default_path_is_tried_once_and_its_failure_is_an_error() {
    let place = Place::without_agent();
    std::fs::create_dir(place.path("runtime/keyside")).expect("made");
    drop(UnixListener::bind(place.path("runtime/keyside/agent.sock")).expect("bound"));
    ran(place.wrapper(&NEEDED).env_remove("KEYSIDE_SOCKET"))
        .refused(125, &["runtime/keyside/agent.sock", "nobody listens"]);
}

#[test]
fn a_transient_answer_is_tried_again_within_the_wait() {
    let place = Place::with_script(|number, _, body| match number {
        0 => failures(503, "backend_unavailable", true, &["{{db.user}}"]).replace("X\r\n", "X\r\nRetry-After: 0\r\n"),
        1 => failures(503, "backend_unavailable", true, &["{{db.user}}"]),
        _ => answer(body),
    });
    place.run(&NEEDED).printed("alice\n");
    assert_eq!(place.seen.count(), 3);
}

#[test]
fn a_transient_answer_without_a_wait_is_the_unavailable_exit() {
    let place = Place::with_script(|_, _, _| failures(503, "backend_unavailable", true, &["{{db.user}}"]));
    let run = |flags: &[&str]| place.run(&[flags, &NEEDED].concat());
    run(&["--wait", "0"]).refused(125, &["{{db.user}}", "backend_unavailable", "wanted for A"]);
    run(&["--wait", "0", "--unavailable-exit", "75"]).refused(75, &["{{db.user}}"]);
    assert_eq!(place.seen.count(), 2);
}

#[test]
fn a_definite_failure_is_never_tried_again_nor_called_unavailable() {
    let place = Place::with_script(|_, _, _| failures(422, "key_not_found", false, &["{{db.user}}"]));
    place.run(&[&["--unavailable-exit", "75"], &NEEDED[..]].concat()).refused(125, &["key_not_found"]);
    assert_eq!(place.seen.count(), 1);
}

#[test]
fn a_refusal_of_the_whole_request_is_told_in_the_agents_words() {
    let place = Place::with_script(|_, _, _| {
        reply(
            403,
            r#"{"type":"urn:x","title":"t","status":403,"code":"peer_refused","detail":"uid 5 has no grant","hint":"write a grant"}"#,
        )
    });
    place.run(&NEEDED).refused(125, &["uid 5 has no grant", "peer_refused", "hint: write a grant"]);
}

#[test]
fn a_reply_that_misses_a_value_or_cannot_be_read_starts_nothing_and_quotes_nothing() {
    for body in [
        r#"{"generation":"g","values":{}}"#,
        r#"{"generation":"g","values":{"0":12345}}"#,
        r#"{"generation":"g","values":{"0":"canary-7f3a"#,
        "<html>canary-7f3a</html>",
    ] {
        let place = Place::with_script(move |_, _, _| reply(200, body));
        let stderr = place.run(&NEEDED).refused(125, &["cannot be read"]);
        assert!(!stderr.contains("canary") && !stderr.contains("12345"), "{stderr}");
    }
}

#[test]
fn an_agent_that_does_not_answer_costs_the_timeout() {
    let place = Place::without_agent();
    let _listener = UnixListener::bind(place.socket()).expect("bound");
    let started = Instant::now();
    let flags = ["--wait", "0", "--timeout", "200ms", "--unavailable-exit", "75"];
    place.run(&[&flags, &NEEDED[..]].concat()).refused(75, &["did not answer within 200ms"]);
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[test]
fn everything_is_asked_in_one_request_and_a_repeated_reference_once() {
    let place = Place::with_agent();
    let args = ["-s", "tls", "-s", "T_=tls", "-e", "A={{db.user}}{{db.user}}", "-f", "c={{db.password}}", "--", "true"];
    assert_eq!(ran(place.wrapper(&args).env("B", "{{db.user}}")).code, Some(0));
    let seen = place.seen.all();
    let body: serde_json::Value = serde_json::from_str(&seen[0].1).expect("JSON");
    assert_eq!(
        (seen.len(), body["secrets"].as_array().map(Vec::len), body["references"].as_object().map(|map| map.len())),
        (1, Some(1), Some(2))
    );
}

#[test]
fn a_server_of_another_user_is_sent_nothing_unless_its_uid_is_named() {
    if !is_root("a_server_of_another_user_is_sent_nothing_unless_its_uid_is_named") {
        return;
    }
    // A listening socket speaks for the process that called listen: a copy of this test's socket in a process of
    // another uid will not do, so the server is python3 under that uid.
    let place = Place::without_agent();
    let open =
        |path: &std::path::Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("chmod");
    open(place.path("").as_path());
    let script = "import os,socket,sys\nos.setgid(4242);os.setuid(4242)\ns=socket.socket(socket.AF_UNIX);s.bind(sys.argv[1]);os.chmod(sys.argv[1],0o777);s.listen()\nwhile True:\n c,_=s.accept()\n d=c.recv(65536)\n open(sys.argv[2],'ab').write(d)\n c.close()\n";
    let got = place.path("got");
    let server = place.program("python3").arg("-c").arg(script).arg(place.socket()).arg(&got).spawn();
    let Ok(mut server) = server else {
        eprintln!("SKIPPED, needs python3");
        return;
    };
    eventually("the server listens", || std::os::unix::net::UnixStream::connect(place.socket()).is_ok());
    let started = Instant::now();
    place.run(&NEEDED).refused(125, &["uid 4242", "--agent-uid 4242"]);
    assert!(started.elapsed() < Duration::from_secs(20), "an untrusted server is not waited for");
    assert_eq!(std::fs::read(&got).unwrap_or_default(), b"");
    place
        .run(&[&["--agent-uid", "4242", "--wait", "0"], &NEEDED[..]].concat())
        .refused(125, &["closed the connection"]);
    assert!(std::fs::read(&got).expect("a request").starts_with(b"POST /v1/resolve HTTP/1.1\r\n"));
    let variable = ran(place.wrapper(&[&["--wait", "0"], &NEEDED[..]].concat()).env("KEYSIDE_AGENT_UID", "4242"));
    variable.refused(125, &["closed the connection"]);
    server.kill().expect("killed");
    server.wait().expect("reaped");
}

#[test]
fn waiting_ends_at_a_signal_like_any_program() {
    let place = Place::without_agent();
    let mut child = place.wrapper(&NEEDED).stderr(std::process::Stdio::null()).spawn().expect("started");
    thread::yield_now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .expect("sent");
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(child.wait().expect("ended").signal(), Some(15));
}
