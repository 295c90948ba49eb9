//! Who is at the other end: programs, cgroups, other namespaces, and servers that only pretend to be the agent.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use keyside_tests::eventually::eventually;
use keyside_tests::remark::remark;
use keyside_tests::{Agent, Client, Home, programs};
use rustix::process::Signal;

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn own_exe() -> String {
    std::env::current_exe().unwrap().display().to_string()
}

fn own_cgroup() -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// A socket for everybody, and one grant of everything to `whom`.
fn granting(backend: &str, whom: &str) -> String {
    format!("[agent]\nsocket_mode = \"0666\"\n{backend}[grant.team]\n{whom}\nread = [\"*\"]\n")
}

/// Whether this kernel can say by descriptor who connected (Linux 6.5).
fn has_peer_descriptors() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).filter_map(|part| part.parse::<u32>().ok());
    let recent = (numbers.next(), numbers.next()) >= (Some(6), Some(5));
    if !recent {
        remark("not shown: this kernel has no SO_PEERPIDFD");
    }
    recent
}

/// Asks as a process that is started with these words before it.
fn ask(home: &Home, prelude: &str, socket: &Path, target: &str) -> String {
    let run = home.python([programs::package().join("peers/connect.py"), socket.to_owned()]).arg(target);
    run.after(prelude).prints_values().end().expect_code(0).text()
}

fn tried(home: &Home, what: &str, prelude: &str) -> bool {
    let works = home.python(["-c", ""]).after(prelude).end().code() == Some(0);
    if !works {
        remark(format_args!("not shown: {what} cannot be had here"));
    }
    works
}

#[test]
fn a_grant_by_program_is_for_that_program_alone() {
    if !has_peer_descriptors() {
        return;
    }
    let home = Home::new();
    let store = home.planted();
    let only = |exe: &str| granting(&store.backend(""), &format!("uid = [{}]\nexe = [\"{exe}\"]", own_uid()));
    let agent = home.agent_with(&only(&own_exe()));
    agent.client().value("canary", "value").expect(200);
    // The same user, another program.
    let reply = ask(&home, ":", agent.socket(), "/v1/secrets/canary/value");
    assert!(reply.starts_with("403 ") && reply.contains("peer_refused"), "{reply}");
    drop(agent);
    let agent = home.agent_with(&only("/usr/bin/true"));
    agent.client().value("canary", "value").expect_problem(403, "peer_refused");
    drop(agent);
    // A link to it is not it.
    let link = home.join("link");
    std::os::unix::fs::symlink(own_exe(), &link).unwrap();
    let agent = home.agent_with(&only(link.to_str().unwrap()));
    agent.client().value("canary", "value").expect_problem(403, "peer_refused");
    std::fs::remove_file(link).unwrap();
}

#[test]
fn a_program_that_was_replaced_since_it_started_satisfies_no_grant_and_the_log_says_so_once() {
    if !has_peer_descriptors() {
        return;
    }
    let home = Home::new();
    let python = home.join("python-of-ours");
    std::fs::copy(std::fs::canonicalize(programs::python()).unwrap(), &python).unwrap();
    let whom = format!("uid = [{}]\nexe = [\"{}\"]", own_uid(), python.display());
    let agent = home.agent_with(&granting(&home.planted().backend(""), &whom));
    let as_copy = format!("exec '{}' \"$@\"", python.display());
    let target = "/v1/secrets/canary/user";
    let reply = ask(&home, &as_copy, agent.socket(), target);
    assert!(reply.starts_with("200 admin"), "{reply}");
    // Removed as soon as it runs; the script is what it reads next.
    for _ in 0..2 {
        std::fs::copy(programs::python(), &python).unwrap();
        let script = programs::package().join("peers/connect.py");
        let remove_and_connect = format!(
            "import os, sys; os.unlink({python:?}); sys.argv = ['', {socket:?}, {target:?}]; exec(open({script:?}).read())",
            socket = agent.socket(),
        );
        let run = keyside_tests::run::Run::new(&home, python.clone()).args(["-c", &remove_and_connect]);
        let reply = run.end().expect_code(0).text();
        assert!(reply.starts_with("403 "), "{reply}");
    }
    assert_eq!(agent.log().matches("deleted or replaced").count(), 1, "{}", agent.log());
}

#[test]
fn our_own_undumpable_programs_can_be_granted_by_an_agent_that_may_look_at_them() {
    if !has_peer_descriptors() {
        return;
    }
    if !programs::is_root() {
        remark("not shown: only root has CAP_SYS_PTRACE to keep");
        return;
    }
    let home = Home::new();
    home.let_others_in();
    let store = home.planted();
    // Where another user can run it from.
    home.keyside(["--version"]).as_user(1234).end().expect_code(0);
    let program = home.join("bin/keyside");
    let whom = format!("uid = [1234]\nexe = [\"{}\"]", program.display());
    let agent = home.agent_with(&granting(&store.backend(""), &whom));
    let kept = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let kept = kept.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap().to_owned();
    assert_eq!(u64::from_str_radix(&kept, 16).unwrap(), 1 << 19, "CAP_SYS_PTRACE and nothing else");
    let get = home.keyside(["get", "canary.value"]).with(&agent).as_user(1234).prints_values().end().expect_code(0);
    assert_eq!(get.text(), home.canary());
    Client::connect_as(agent.socket(), 1234).value("canary", "value").expect_problem(403, "peer_refused");
    assert!(agent.stop().success());

    // Given up when nothing asks for it, and not to be had back.
    let config = granting(&store.backend(""), "uid = [1234]");
    let agent = home.agent_with(&config);
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    home.write(agent.config().file_name().unwrap().to_str().unwrap(), granting(&store.backend(""), &whom));
    agent.signal(Signal::HUP);
    eventually("it says why it cannot", || agent.log().contains("restart needed").then_some(()));
    Client::connect_as(agent.socket(), 1234).value("canary", "value").expect(200);
}

#[test]
fn a_grant_by_cgroup_is_for_that_cgroup_alone() {
    if !has_peer_descriptors() {
        return;
    }
    let Some(cgroup) = own_cgroup() else {
        remark("not shown: there is no unified hierarchy of cgroups here");
        return;
    };
    let home = Home::new();
    let store = home.planted();
    // The root itself is everybody's, and no pattern.
    let own = Some((cgroup.as_str(), 200)).filter(|_| cgroup != "/");
    for (pattern, status) in own.into_iter().chain([("/*", 200), ("/no-such.slice/*", 403)]) {
        let config = granting(&store.backend(""), &format!("cgroup = [\"{pattern}\"]"));
        let agent = home.agent_with(&config);
        agent.client().value("canary", "value").expect(status);
        // Another program in the same cgroup.
        let reply = ask(&home, ":", agent.socket(), "/v1/secrets/canary/user");
        assert!(reply.starts_with(&format!("{status} ")), "{reply}");
    }
}

#[test]
fn a_peer_of_another_pid_namespace_has_no_pid_and_is_granted_by_uid_and_never_by_program() {
    let home = Home::new();
    let unshare = "exec unshare --pid --fork --kill-child --mount-proc \"$0\" \"$@\"";
    if !tried(&home, "a pid namespace", unshare) {
        return;
    }
    let store = home.planted();
    let audit = home.join("audit.jsonl");
    let by_uid = granting(&store.backend(""), &format!("uid = [{}]", own_uid()));
    let config = format!("{by_uid}[audit]\npath = \"{}\"\n", audit.display());
    // The agent lives in a namespace of its own, so that we are foreign to it.
    let agent = home.agent().config(&config).after(unshare).start();
    agent.client().value("canary", "value").expect(200);
    let line = || std::fs::read_to_string(&audit).unwrap_or_default().lines().next().map(str::to_owned);
    let (line, _) = eventually("the decision is written down", line);
    assert!(line.contains("\"uid\":") && !line.contains("\"pid\":"), "{line}");
    drop(agent);
    for narrowed in [format!("exe = [\"{}\"]", own_exe()), "cgroup = [\"/*\"]".to_owned()] {
        let whom = format!("uid = [{}]\n{narrowed}", own_uid());
        let agent = home.agent().config(&granting(&store.backend(""), &whom)).after(unshare).start();
        agent.client().value("canary", "value").expect_problem(403, "peer_refused");
        assert!(agent.log().contains("a grant by exe or cgroup is not satisfied"), "{}", agent.log());
    }
}

#[test]
fn a_client_in_a_pid_namespace_below_the_agents_is_seen_with_its_pid_here() {
    let home = Home::new();
    let unshare = "exec unshare --pid --fork --kill-child \"$0\" \"$@\"";
    if !has_peer_descriptors() || !tried(&home, "a pid namespace", unshare) {
        return;
    }
    let python = std::fs::canonicalize(programs::python()).unwrap();
    let whom = format!("uid = [{}]\nexe = [\"{}\"]", own_uid(), python.display());
    let agent = home.agent_with(&granting(&home.planted().backend(""), &whom));
    let reply = ask(&home, unshare, agent.socket(), "/v1/secrets/canary/user");
    assert!(reply.starts_with("200 admin"), "{reply}");
}

#[test]
fn in_a_user_namespace_mapped_users_are_seen_right_and_strangers_satisfy_nothing() {
    let home = Home::new();
    home.let_others_in();
    let unshare = "exec unshare --user --map-root-user \"$0\" \"$@\"";
    if !tried(&home, "a user namespace", unshare) {
        return;
    }
    let store = home.planted();
    let open = |grants: &str| format!("[agent]\nsocket_mode = \"0666\"\n{}{grants}", store.backend(""));
    // The agent is root in a namespace that knows no user but ours.
    let agent = home.agent().config(&open("")).after(unshare).start();
    agent.client().value("canary", "value").expect(200);
    let refused_as = |agent: &Agent<'_>, uid: u32| {
        let refused = Client::connect_as(agent.socket(), uid).value("canary", "value");
        let refused = refused.expect_problem(403, "peer_refused").json().to_string();
        assert!(refused.contains("65534"), "{refused}");
    };
    if programs::is_root() {
        refused_as(&agent, 1234);
    } else {
        remark("not shown: only root can connect as a stranger");
    }
    drop(agent);
    let agent = home.agent().config(&open("[grant.all]\ncgroup = [\"/*\"]\nread = [\"*\"]\n")).after(unshare).start();
    if programs::is_root() {
        refused_as(&agent, 1234);
    }
    drop(agent);
    // The other way round: whatever a client is called in its own namespace, here it is who it is.
    let agent = home.agent_with(&open(""));
    let reply = ask(&home, unshare, agent.socket(), "/v1/secrets/canary/user");
    assert!(reply.starts_with("200 admin"), "{reply}");
    let nobody = "exec unshare --user \"$0\" \"$@\"";
    let reply = ask(&home, nobody, agent.socket(), "/v1/secrets/canary/user");
    assert!(reply.starts_with("200 admin"), "{reply}");
}

#[test]
fn a_server_of_another_user_is_sent_nothing_unless_it_was_named() {
    if !programs::is_root() {
        remark("skipped: only root can start a server as somebody else, and root is always trusted");
        return;
    }
    let home = Home::new();
    home.let_others_in();
    let room = home.join("room");
    std::fs::create_dir(&room).unwrap();
    std::os::unix::fs::chown(&room, Some(1234), Some(1234)).unwrap();
    let (socket, record) = (room.join("agent.sock"), room.join("record"));
    let script = home.write("pretend.py", std::fs::read(programs::package().join("peers/pretend.py")).unwrap());
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mut server = home.python([&script, &socket, &record]).as_user(1234).start();
    eventually("it listens", || (server.stdout_so_far() == b"listening\n").then_some(()));
    let received = || std::fs::read_to_string(&record).unwrap_or_default();
    let at = |run: keyside_tests::run::Run<'_>| run.env("KEYSIDE_SOCKET", &socket).end();
    let started = home.join("started");
    let step = home.wrapper(["--wait", "0", "-e", "A={{canary.value}}", "--", "touch"]).arg(&started);
    at(step).expect_complaint(125, &["1234"]);
    for args in [&["get", "canary.value"][..], &["check", "canary.value"], &["secret", "list"], &["status"], &["ready"]]
    {
        let ended = at(home.keyside(args.iter().copied()));
        assert!(!ended.status.success() && ended.stderr.contains("1234"), "{args:?}: {}", ended.stderr);
    }
    let values = home.keyside(["secret", "create", "new", "-v", "{\"a\": \"b\"}"]);
    assert!(!at(values).status.success());
    let said = received();
    assert!(said.lines().all(|line| line == "connected"), "it was sent:\n{said}");
    // Whoever names it, talks to it.
    let named = home.keyside(["get", "canary.value"]).env("KEYSIDE_AGENT_UID", "1234");
    assert!(!at(named).status.success());
    assert!(received().contains("GET /v1/secrets/canary"), "{}", received());
    let other = home.keyside(["get", "canary.value"]).env("KEYSIDE_AGENT_UID", "1235");
    assert!(at(other).stderr.contains("1234"));
    assert!(!started.exists());
}
