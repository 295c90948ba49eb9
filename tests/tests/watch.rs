//! Watching, refreshing, purging, stopping: what is heard of a secret, and what an operator does to a running agent.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use keyside_tests::eventually::{LONG, eventually};
use keyside_tests::remark::remark;
use keyside_tests::{Agent, Client, Home, Store};
use rustix::process::Signal;
use serde_json::{Value, json};

/// An agent that looks at its back-end ten times a second.
fn polling<'h>(home: &'h Home, store: &Store<'_>) -> Agent<'h> {
    home.agent_with(&format!("[cache]\npoll_interval = \"100ms\"\n{}", store.backend("")))
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn calls(agent: &Agent<'_>) -> u64 {
    agent.client().get("/v1/status").expect(200).json()["cache"]["backend_calls"].as_u64().unwrap()
}

#[test]
fn a_change_in_the_store_a_deletion_and_its_return_reach_a_watcher_without_a_value() {
    let home = Home::new();
    let store = home.planted();
    store.plant("db", &json!({ "user": home.canary(), "password": home.canary() }));
    let agent = polling(&home, &store);
    let mut watcher = agent.client();
    let hello = watcher.watch("secret=db&secret=canary&secret=later");
    assert_eq!(hello["revisions"].as_object().unwrap().len(), 2);
    assert_eq!(hello["instance"], agent.client().secret("db").expect(200).json()["instance"]);
    store.remove("db");
    assert_eq!(watcher.told(), "delete db");
    agent.client().secret("db").expect(404);
    store.plant("db", &json!({ "user": "another" }));
    let (event, data) = watcher.event().unwrap();
    assert_eq!((event.as_str(), &data["secret"]), ("change", &json!("db")));
    assert!(data["revision"].as_u64() > hello["revisions"]["db"].as_u64());
    let read = agent.client().secret("db").expect(200).json();
    assert_eq!((&read["revision"], &read["version"]), (&data["revision"], &data["version"]));
    store.plant("later", &json!({ "k": home.canary() }));
    assert_eq!(watcher.told(), "change later");
}

#[test]
fn what_vanishes_from_the_first_back_end_is_told_though_the_next_was_never_asked() {
    let home = Home::new();
    let (first, second) = (home.fresh("first").with_extension("yaml"), home.fresh("second").with_extension("yaml"));
    let entry = |name: &str, value: &str| format!("{name}:\n  k: {value}\n  zenml_schema_name: arbitrary\n");
    // `b25l` and `dHdv` are the words one and two.
    std::fs::write(&first, entry("db", "b25l") + &entry("x", "b25l")).unwrap();
    std::fs::write(&second, entry("db", "dHdv")).unwrap();
    let agent = home.agent_with(&format!(
        "[agent]\nprecedence = [\"first\", \"second\"]\n\
         [cache]\npoll_interval = \"1h\"\nttl = \"1h\"\nnegative_ttl = \"1h\"\nmax_stale = \"2h\"\n\
         [backend.first]\ntype = \"local\"\npath = \"{}\"\n[backend.second]\ntype = \"local\"\npath = \"{}\"\n",
        first.display(),
        second.display()
    ));
    let mut watcher = agent.client();
    assert_eq!(watcher.watch("secret=db&secret=x")["revisions"].as_object().unwrap().len(), 2);
    std::fs::write(&first, entry("other", "b25l")).unwrap();
    let mut told = [watcher.told(), watcher.told()];
    told.sort();
    assert_eq!(told, ["change db", "delete x"]);
    assert_eq!(agent.client().secret("db").expect(200).json()["backend"], "second");
}

#[test]
fn a_watcher_hears_of_a_change_when_a_reader_would_read_it() {
    let home = Home::new();
    let store = home.planted();
    store.plant("db", &json!({ "n": "0" }));
    let agent = polling(&home, &store);
    let mut watcher = agent.client();
    let mut revision = watcher.watch("secret=db")["revisions"]["db"].as_u64().unwrap();
    let writer = store.replacing("db");
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let (_, data) = watcher.event().unwrap();
        let read = agent.client().secret("db").expect(200).json()["revision"].as_u64().unwrap();
        let told = data["revision"].as_u64().unwrap();
        assert!(told > revision && read >= told, "told {told} after {revision}, read {read}");
        revision = told;
        // What a reader reads first, a watcher has heard by the time it has asked.
        let mut reader = agent.client();
        let newer = || {
            let now = reader.secret("db").expect(200).json()["revision"].as_u64()?;
            (now > revision).then_some(now)
        };
        let (newer, _) = eventually("a reader reads another revision", newer);
        let read_at = std::time::Instant::now();
        let told = watcher.event().unwrap().1["revision"].as_u64().unwrap();
        assert!(told >= newer);
        revision = told;
        longest = longest.max(read_at.elapsed());
    }
    drop(writer);
    remark(format!("a watcher heard of a change at most {longest:?} after a reader had read it"));
    assert!(longest < LONG);
}

#[test]
fn an_outage_is_told_as_stale_and_its_end_as_fresh_without_polling() {
    let home = Home::new();
    let store = home.planted();
    let cache = "[cache]\npoll = \"off\"\nttl = \"500ms\"\nmax_stale = \"1h\"\n";
    let agent = home.agent_with(&format!("{cache}{}", store.backend("")));
    let mut watcher = agent.client();
    let hello = watcher.watch("secret=canary");
    let whole = std::fs::read(store.file()).unwrap();
    std::fs::write(store.file(), "broken, and longer than the hundred bytes of a header ".repeat(3)).unwrap();
    let (event, data) = watcher.event().unwrap();
    assert_eq!((event.as_str(), &data["revision"]), ("stale", &hello["revisions"]["canary"]));
    let reply = agent.client().value("canary", "value").expect(200);
    assert_eq!(reply.header("keyside-stale"), Some("true"));
    std::fs::write(store.file(), whole).unwrap();
    assert_eq!(watcher.told(), "fresh canary");
    store.remove("canary");
    assert_eq!(watcher.told(), "delete canary", "what is watched is asked for when its ttl is over");
}

#[test]
fn a_deleted_secret_in_use_is_not_served_once_more_when_its_ttl_is_over() {
    let home = Home::new();
    let store = home.planted();
    let cache = "[cache]\npoll = \"off\"\nttl = \"600ms\"\nmax_stale = \"1h\"\nnegative_ttl = \"1h\"\n";
    let agent = home.agent_with(&format!("{cache}{}", store.backend("")));
    agent.client().value("canary", "value").expect(200);
    store.remove("canary");
    // Nobody asks meanwhile: what the agent says of itself is enough.
    eventually("the agent has asked by itself", || {
        let status = agent.client().get("/v1/status").expect(200).json();
        (status["cache"]["entries"] == 0).then_some(())
    });
    agent.client().value("canary", "value").expect_problem(404, "secret_not_found");
    let before = calls(&agent);
    agent.client().value("simple", "password").expect(200);
    eventually("it is asked for once more", || (calls(&agent) == before + 2).then_some(()));
}

#[test]
fn hundreds_of_watchers_cost_one_call_and_a_bounded_memory_that_comes_back() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&format!("[cache]\npoll = \"off\"\n{}", store.backend("")));
    agent.client().value("canary", "value").expect(200);
    let before = (calls(&agent), resident(&agent));
    let mut watchers: Vec<_> = (0..400).map(|_| agent.client()).collect();
    for watcher in &mut watchers {
        watcher.watch("secret=canary");
    }
    assert_eq!(calls(&agent), before.0, "the value is held");
    // What the connections needed before is given back twice a second.
    let each = || resident(&agent).saturating_sub(before.1) / 400;
    let (each, _) = eventually("a watcher costs at most 14 KiB", || Some(each()).filter(|each| *each <= 14 * 1024));
    remark(format!("a watcher costs {each} bytes in this build"));
    drop(watchers);
    eventually("all have left", || {
        let status = agent.client().get("/v1/status").expect(200).json();
        (status["watchers"] == 0).then_some(())
    });
    eventually("the memory comes back", || (resident(&agent) <= 2 * before.1).then_some(()));
}

/// Returns the memory that the agent holds, in bytes.
fn resident(agent: &Agent<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_removed_grant_ends_the_streams_that_it_was_needed_for() {
    let home = Home::new();
    let store = home.planted();
    let granting = |read: &str| format!("{}[grant.team]\nuid = [{}]\nread = [{read}]\n", store.backend(""), own_uid());
    let agent = home.agent_with(&granting("\"canary\", \"simple\""));
    let mut both = agent.client();
    both.watch("secret=canary&secret=simple");
    let mut one = agent.client();
    one.watch("secret=simple");
    let there = agent.client().get("/v1/watch?secret=missing").expect_problem(404, "secret_not_found");
    let fresh = home.write("keyside.toml.new", granting("\"simple\""));
    std::fs::rename(fresh, agent.config()).unwrap();
    assert_eq!(both.told(), "end");
    assert_eq!(agent.client().get("/v1/watch?secret=canary"), there, "as if it had never been there");
    store.remove("simple");
    agent.client().request("GET", "/v1/secrets/simple", &[("Cache-Control", "no-cache")], None).expect(404);
    assert_eq!(one.told(), "delete simple", "a stream outlives a reload that leaves its grant");
}

#[test]
fn a_stop_ends_streams_at_once_and_not_after_the_grace() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&format!("[limits]\ngrace = \"1h\"\n{}", store.backend("")));
    let mut watchers: Vec<_> = (0..20).map(|_| agent.client()).collect();
    for watcher in &mut watchers {
        watcher.watch("secret=canary");
    }
    assert!(agent.stop().success());
    for mut watcher in watchers {
        assert_eq!(watcher.told(), "end");
    }
}

#[test]
fn a_client_that_has_said_all_it_has_to_say_is_still_told() {
    let home = Home::new();
    let store = home.planted();
    let agent = polling(&home, &store);
    let mut watcher = agent.client();
    watcher.watch("secret=canary");
    watcher.close_sending();
    store.remove("canary");
    assert_eq!(watcher.told(), "delete canary");
    drop(watcher);
    eventually("it is noticed that it has gone", || {
        (agent.client().get("/v1/status").expect(200).json()["watchers"] == 0).then_some(())
    });
}

#[test]
fn a_watcher_beyond_the_limit_is_refused() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&format!("[limits]\nwatchers_per_uid = 2\n{}", store.backend("")));
    let mut watchers = [agent.client(), agent.client()];
    watchers.iter_mut().for_each(|watcher| drop(watcher.watch("secret=canary")));
    agent.client().get("/v1/watch?secret=canary").expect_problem(429, "too_many_requests");
}

#[test]
fn a_purge_makes_the_next_read_ask_the_back_end() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&format!("[cache]\npoll = \"off\"\n{}", store.backend("")));
    agent.client().value("canary", "value").expect(200);
    agent.client().value("simple", "password").expect(200);
    let before = calls(&agent);
    let ended = home.keyside(["purge", "canary"]).with(&agent).end().expect_code(0);
    assert_eq!(ended.text(), "purged 1 secret\n");
    agent.client().value("simple", "password").expect(200);
    assert_eq!(calls(&agent), before);
    agent.client().value("canary", "value").expect(200);
    assert_eq!(calls(&agent), before + 1);
    assert_eq!(home.keyside(["purge"]).with(&agent).end().expect_code(0).text(), "purged 2 secrets\n");
    assert_eq!(agent.client().get("/v1/status").expect(200).json()["cache"]["entries"], 0);
}

#[test]
fn who_has_no_admin_grant_may_refresh_as_the_agents_own_user_and_no_more() {
    let home = Home::new();
    let store = home.planted();
    let grant =
        |admin| format!("{}[grant.team]\nuid = [{}]\nread = [\"*\"]\nadmin = {admin}\n", store.backend(""), own_uid());
    let agent = home.agent_with(&grant(false));
    home.keyside(["purge"]).with(&agent).end().expect_complaint(77, &["may not purge"]);
    agent.client().request("POST", "/v1/shutdown", &[], None).expect_problem(403, "peer_refused");
    let reply = agent.client().post("/v1/refresh", &json!({ "secrets": ["canary", "none"] })).expect(200).json();
    assert_eq!((&reply["refreshed"], &reply["failed"][0]["secret"]), (&json!(1), &json!("none")));
    let agent = home.agent_with(&grant(true));
    home.keyside(["purge"]).with(&agent).end().expect_code(0);
}

#[test]
fn a_shutdown_is_answered_and_ends_the_agent_as_a_signal_does() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&store.backend(""));
    let socket = agent.socket().to_owned();
    let mut watcher = agent.client();
    watcher.watch("secret=canary");
    agent.client().request("POST", "/v1/shutdown", &[], None).expect(202);
    assert!(agent.end().success());
    assert_eq!(watcher.told(), "end");
    assert!(!socket.exists());
}

#[test]
fn keyside_watch_prints_a_line_for_each_change_and_follows_an_agent_that_is_restarted() {
    let home = Home::new();
    let store = home.planted();
    let agent = polling(&home, &store);
    let socket = agent.socket().to_owned();
    let mut watching = home.keyside(["watch", "canary", "simple", "--format", "json"]).with(&agent).start();
    eventually("it watches", || watching.stderr_so_far().contains("watching").then_some(()));
    let mut lines = |count: usize| -> Vec<Value> {
        eventually("the lines are there", || {
            let text = String::from_utf8(watching.stdout_so_far()).unwrap();
            (text.lines().count() >= count && text.ends_with('\n')).then_some(text)
        })
        .0
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
    };
    store.remove("simple");
    let told = lines(1);
    assert_eq!((&told[0]["event"], &told[0]["secret"]), (&json!("delete"), &json!("simple")));
    assert!(agent.stop().success());
    let agent = home.agent().config(&store.backend("")).socket(&socket).start();
    let told = lines(2);
    assert_eq!((&told[1]["event"], &told[1]["secret"]), (&json!("change"), &json!("canary")));
    watching.signal(Signal::INT);
    let ended = watching.end();
    assert_eq!(ended.signal(), Some(2));
    assert!(ended.stderr.contains("trying again"), "{}", ended.stderr);
    drop(agent);
}

#[test]
fn keyside_watch_ends_when_nobody_reads_its_lines() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&store.backend(""));
    let mut command = home.keyside(["watch", "canary"]).with(&agent).command();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    child.stderr.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop(child.stdout.take());
    let (status, _) = eventually("it ends", || child.try_wait().unwrap());
    assert!(status.success());
}

#[test]
fn keyside_watch_says_why_it_cannot_begin() {
    let home = Home::new();
    let store = home.planted();
    home.keyside(["watch", "canary"]).env("KEYSIDE_SOCKET", home.join("nobody.sock")).end().expect_complaint(69, &[]);
    let grant = format!("{}[grant.team]\nuid = [{}]\nread = [\"simple\"]\n", store.backend(""), own_uid());
    let agent = home.agent_with(&grant);
    home.keyside(["watch", "canary"]).with(&agent).end().expect_no(&["canary"]);
    let nobody = home.agent_with(&grant.replace(&format!("[{}]", own_uid()), "[4242]"));
    home.keyside(["watch", "canary"]).with(&nobody).end().expect_complaint(77, &["canary"]);
    assert!(Client::try_connect(agent.socket()).is_ok());
}
