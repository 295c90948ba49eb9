//! The configuration, live: what a changed file or SIGHUP puts in force, and what a broken one leaves.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::MetadataExt as _;

use keyside_tests::eventually::eventually;
use keyside_tests::{Agent, Client, Home, Store};
use rustix::process::Signal;
use serde_json::json;

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn granting(store: &Store<'_>, read: &str) -> String {
    format!("{}[grant.team]\nuid = [{}]\nread = [{read}]\n", store.backend(""), own_uid())
}

/// Replaces the agent's configuration, as an editor does.
fn rewrite(home: &Home, agent: &Agent<'_>, content: &str) {
    let fresh = home.write("keyside.toml.new", content);
    std::fs::rename(fresh, agent.config()).unwrap();
}

fn reloads(agent: &Agent<'_>) -> usize {
    agent.log().matches("configuration reloaded").count()
}

#[test]
fn a_removed_grant_takes_effect_at_once_on_an_open_connection() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&granting(&store, "\"canary\", \"simple\""));
    let mut open = agent.client();
    open.value("canary", "value").expect(200);
    rewrite(&home, &agent, &granting(&store, "\"simple\""));
    eventually("the file is read again", || (reloads(&agent) == 1).then_some(()));
    let there = open.value("canary", "value");
    assert_eq!(there.status, 404);
    assert_eq!(open.value("missing", "value"), there, "as if it had never been there");
    open.value("simple", "password").expect(200);
}

#[test]
fn sighup_reloads_and_keeps_what_is_cached_and_the_instance() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&store.backend(""));
    let mut open = agent.client();
    let before = open.secret("canary").expect(200).json();
    agent.signal(Signal::HUP);
    eventually("the agent reloads", || (reloads(&agent) == 1).then_some(()));
    let listed = open.get("/v1/secrets?prefix=canary").expect(200).json();
    assert!(listed["secrets"][0]["age_seconds"].is_number(), "it is still in memory: {listed}");
    let after = open.secret("canary").expect(200).json();
    for part in ["instance", "revision"] {
        assert_eq!(before[part], after[part]);
    }
}

#[test]
fn a_broken_file_keeps_what_is_in_force_and_says_where_it_is_broken() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&granting(&store, "\"canary\""));
    let mut open = agent.client();
    for (broken, said) in [
        ("[grant.team\n", "keyside.toml:1:"),
        ("[cache]\nttl = \"soon\"\nttll = 1\n", "keyside.toml:3:"),
        ("[agent]\nsocket = \"/nowhere/at/all/a.sock\"\n[backend.store]\ntype = \"zenml-sql\"\nurl = \"x\"\n", "url"),
    ] {
        let logged = agent.log().len();
        rewrite(&home, &agent, broken);
        eventually("the mistake is told", || {
            let log = agent.log()[logged..].to_owned();
            (log.contains(said) && log.contains("stays")).then_some(())
        });
        open.value("canary", "value").expect(200);
        agent.client().value("canary", "value").expect(200);
    }
    assert_eq!(reloads(&agent), 0);
    rewrite(&home, &agent, &granting(&store, "\"simple\""));
    eventually("a right one is taken", || (reloads(&agent) == 1).then_some(()));
    open.value("canary", "value").expect(404);
}

#[test]
fn a_listener_that_cannot_be_opened_leaves_all_as_it_was() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&granting(&store, "\"canary\""));
    let occupied = home.write("occupied.sock", "a file");
    let content = format!("{}[listener.more]\npath = \"{}\"\n", granting(&store, "\"simple\""), occupied.display());
    rewrite(&home, &agent, &content);
    eventually("the refusal is told", || agent.log().contains("not a socket").then_some(()));
    agent.client().value("canary", "value").expect(200);
    assert_eq!(std::fs::read_to_string(&occupied).unwrap(), "a file");
}

#[test]
fn listeners_come_change_their_mode_and_go_with_the_file() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&store.backend(""));
    let more = home.join("more.sock");
    let with = |mode: &str| {
        format!("{}[listener.more]\npath = \"{}\"\nmode = \"{mode}\"\n", store.backend(""), more.display())
    };
    rewrite(&home, &agent, &with("0600"));
    eventually("the socket is there", || Client::try_connect(&more).ok());
    let mut open = Client::connect(&more).recorded(&home);
    open.value("canary", "value").expect(200);
    rewrite(&home, &agent, &with("0660"));
    eventually("the mode is taken", || (more.metadata().unwrap().mode() & 0o777 == 0o660).then_some(()));
    open.value("canary", "value").expect(200);
    rewrite(&home, &agent, &store.backend(""));
    eventually("the socket is gone", || (!more.exists()).then_some(()));
    eventually("who came by it is nobody any more", || (open.value("canary", "value").status == 403).then_some(()));
    agent.client().value("canary", "value").expect(200);
}

#[test]
fn back_ends_come_and_go_and_what_stays_keeps_its_revisions() {
    let home = Home::new();
    let (first, second) = (home.planted(), home.store("0.43.1-plain"));
    let one = first.backend("");
    let other = second.backend("").replace("[backend.store]", "[backend.other]");
    let agent = home.agent_with(&one);
    let before = agent.client().secret("canary").expect(200).json();
    rewrite(&home, &agent, &format!("[agent]\nprecedence = [\"other\", \"store\"]\n{one}{other}"));
    eventually("both are there", || (reloads(&agent) == 1).then_some(()));
    let after = agent.client().secret("canary").expect(200).json();
    assert_eq!((&after["backend"], &after["revision"]), (&json!("store"), &before["revision"]));
    let state = agent.client().get("/v1/status").expect(200).json();
    assert_eq!(state["backends"].as_array().unwrap().len(), 2);
    rewrite(&home, &agent, &other);
    eventually("one has gone", || (reloads(&agent) == 2).then_some(()));
    agent.client().secret("canary").expect(404);
    agent.client().get("/v1/ready").expect(200);
}
