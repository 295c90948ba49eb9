//! What other processes of the same user can see of a running agent: nothing.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use keyside_tests::remark::remark;
use keyside_tests::{Home, programs};

/// The uid of the agent and of whoever looks at it: a user's own, for root may look at anything.
fn uid() -> u32 {
    if programs::is_root() { 1000 } else { rustix::process::geteuid().as_raw() }
}

/// Ways into another process of the same user, and whether each is open: tried as that user.
fn ways_into(home: &Home, pid: u32) -> BTreeMap<String, bool> {
    let pry = home.python([programs::package().join("peers/pry.py")]).arg(pid.to_string());
    let text = if programs::is_root() { pry.as_user(uid()) } else { pry }.end().expect_code(0).text();
    let ways: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(way, found)| (way.to_owned(), found == "open"))
        .collect();
    assert!(ways.len() > 10, "{text}");
    ways
}

fn open(ways: &BTreeMap<String, bool>) -> Vec<&str> {
    ways.iter().filter(|(_, open)| **open).map(|(way, _)| way.as_str()).collect()
}

#[test]
fn a_process_of_the_same_user_cannot_read_the_agents_environment_or_memory() {
    let home = Home::new();
    let store = home.planted();
    if programs::is_root() {
        home.give_to(uid());
    }
    let mut agent = home.agent().config(&store.backend("")).env("A_SECRET_VARIABLE", home.canary());
    if programs::is_root() {
        agent = agent.as_user(uid());
    }
    let agent = agent.start();
    let mut client = match programs::is_root() {
        true => keyside_tests::Client::connect_as(agent.socket(), uid()).recorded(&home),
        false => agent.client(),
    };
    // The agent holds the value by now.
    assert_eq!(client.value("canary", "value").expect(200).body, home.canary().as_bytes());

    // The same eyes see into an ordinary process of that user, so they would see into the agent too.
    let ordinary = keyside_tests::run::Run::new(&home, "/bin/sleep".into()).arg("1000");
    let ordinary = if programs::is_root() { ordinary.as_user(uid()) } else { ordinary }.start();
    let ways = ways_into(&home, ordinary.pid());
    let expected = ["environ", "mem", "maps", "auxv", "fd"];
    assert!(expected.iter().all(|way| ways[*way]), "{ways:?}");
    for way in ["ptrace", "pidfd_getfd", "process_vm_readv"].into_iter().filter(|way| !ways[*way]) {
        remark(format!("not shown here: `{way}` is closed even into an ordinary process"));
    }

    let ways = ways_into(&home, agent.pid());
    assert!(open(&ways).is_empty(), "{ways:?}");
    // A process that is not dumpable belongs to root in /proc.
    let owner = std::fs::metadata(format!("/proc/{}/environ", agent.pid())).unwrap().uid();
    assert_eq!(owner, 0, "the agent is dumpable");
}

#[test]
fn the_agent_writes_no_core_file_and_gains_no_privileges() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    assert!(status.lines().any(|line| line == "NoNewPrivs:\t1"), "{status}");
}

#[test]
fn every_descriptor_of_the_agent_is_closed_on_exec() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let mut client = agent.client();
    assert_eq!(client.value("canary", "value").expect(200).body, home.canary().as_bytes());
    // Its /proc belongs to root.
    let Ok(all) = std::fs::read_dir(format!("/proc/{}/fdinfo", agent.pid())) else {
        return remark("not shown here: only root sees the agent's descriptors");
    };
    let mut seen = 0;
    for entry in all.flatten() {
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let Ok(info) = std::fs::read_to_string(entry.path()) else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let close_on_exec = u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000 != 0;
        // Standard streams are everybody's, and so is what whoever started us left open for all.
        let is_inherited = std::fs::metadata(format!("/proc/self/fd/{number}")).is_ok_and(|ours| {
            std::fs::metadata(format!("/proc/{}/fd/{number}", agent.pid()))
                .is_ok_and(|theirs| (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
        });
        assert!(number < 3 || close_on_exec || is_inherited, "descriptor {number} is not closed on exec: {info}");
        seen += 1;
    }
    assert!(seen > 5, "listener, connection, poll, lock and the standard streams");
}

#[test]
fn a_wrapper_that_waits_for_its_agent_is_closed_to_the_same_user_too() {
    let home = Home::new();
    if programs::is_root() {
        home.give_to(uid());
    }
    let run = home.wrapper(["--wait", "5m", "-e", "A={{canary.value}}", "--", "true"]);
    let run = run.env("KEYSIDE_SOCKET", home.join("nobody.sock"));
    let mut waiting = if programs::is_root() { run.as_user(uid()) } else { run }.start();
    let environ = format!("/proc/{}/environ", waiting.pid());
    // Hardening is its first statement, but the kernel starts it open.
    keyside_tests::eventually::eventually("the wrapper has begun", || {
        (std::fs::metadata(&environ).unwrap().uid() == 0).then_some(())
    });
    let ways = ways_into(&home, waiting.pid());
    assert!(waiting.is_running() && open(&ways).is_empty(), "{ways:?}");
}

#[test]
fn the_step_inherits_neither_the_core_limit_nor_the_lost_dumpability_of_the_wrapper() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let script = "ulimit -c; grep NoNewPrivs /proc/self/status; cat /proc/$$/environ > /dev/null && echo dumpable";
    let seen = |run: keyside_tests::run::Run<'_>| run.args(["-c", script]).end().expect_code(0).text();
    let bare = seen(keyside_tests::run::Run::new(&home, "/bin/sh".into()));
    let wrapped = seen(home.wrapper(["-e", "A={{canary.user}}", "--", "/bin/sh"]).with(&agent));
    assert_eq!(wrapped, bare);
    assert!(bare.contains("dumpable"), "{bare}");
}
