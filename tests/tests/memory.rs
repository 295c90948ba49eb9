//! What other processes of the same user can see of a running agent: nothing.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use keyside_tests::{Home, programs};
use rustix::process::{Gid, Uid};

/// The uid of the agent and of whoever looks at it: a user's own, for root may look at anything.
fn uid() -> u32 {
    if programs::is_root() { 1000 } else { rustix::process::geteuid().as_raw() }
}

/// Opens and reads files as that user; says of each whether it could be read.
fn readable(files: Vec<String>) -> Vec<(String, bool)> {
    let look = move || {
        if programs::is_root() {
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_gid(Gid::from_raw(uid())).unwrap();
            rustix::thread::set_thread_uid(Uid::from_raw(uid())).unwrap();
        }
        files
            .into_iter()
            .map(|file| {
                let opened = std::fs::File::open(&file).is_ok();
                (file, opened)
            })
            .collect()
    };
    std::thread::spawn(look).join().unwrap()
}

fn private_files(pid: u32) -> Vec<String> {
    ["environ", "mem", "maps", "auxv"].iter().map(|file| format!("/proc/{pid}/{file}")).collect()
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

    // The same eyes see an ordinary process of that user, so they would see the agent too.
    let mut ordinary = Command::new("sleep");
    ordinary.arg("1000").stdin(Stdio::null());
    if programs::is_root() {
        std::os::unix::process::CommandExt::uid(&mut ordinary, uid());
        std::os::unix::process::CommandExt::gid(&mut ordinary, uid());
    }
    let mut ordinary = ordinary.spawn().unwrap();
    let seen = readable(vec![format!("/proc/{}/environ", ordinary.id())]);
    ordinary.kill().unwrap();
    ordinary.wait().unwrap();
    assert!(seen.iter().all(|(_, readable)| *readable), "{seen:?}");

    let seen = readable(private_files(agent.pid()));
    assert!(seen.iter().all(|(_, readable)| !readable), "{seen:?}");
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
    let seen = readable(private_files(waiting.pid()));
    assert!(waiting.is_running() && seen.iter().all(|(_, readable)| !readable), "{seen:?}");
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
