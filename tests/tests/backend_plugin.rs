//! Plug-in back-ends behind the real agent: read, written, broken and ended, and no value where none belongs.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use keyside_tests::eventually::eventually;
use keyside_tests::{Agent, Home, programs};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Every read asks the plug-in again.
const NO_CACHE: &str = "[cache]\nttl = \"0\"\nnegative_ttl = \"0\"\nmax_stale = \"1h\"\n";

fn peer(name: &str) -> String {
    programs::package().join("peers").join(name).display().to_string()
}

fn backend(command: &[&str], keys: &str) -> String {
    format!("[backend.own]\ntype = \"plugin\"\ncommand = {}\n{keys}\n", json!(command))
}

/// The plug-in in Python on a file with the planted value.
fn python(home: &Home, config: &str) -> (String, PathBuf) {
    let store = home.fresh("store.json");
    fs::write(&store, stored(home, json!({})).to_string()).unwrap();
    home.holds_values(&store);
    home.holds_values(store.with_extension("json.new"));
    let program = programs::python().display().to_string();
    let command = [program.as_str(), &peer("plugin.py"), store.to_str().unwrap()];
    (format!("{config}{}", backend(&command, "writable = true\n")), store)
}

fn stored(home: &Home, also: Value) -> Value {
    let mut whole = json!({"secrets": [
        {"name": "canary", "scope": "public", "id": "1", "version": "1", "values": {"value": home.canary()}},
        {"name": "db", "scope": "public", "id": "2", "version": "1", "values": {"user": "one", "raw": {"base64": "/wA="}}},
        {"name": "db", "scope": "private", "id": "3", "version": "1", "values": {"user": "mine"}},
    ]});
    whole.as_object_mut().unwrap().extend(also.as_object().cloned().unwrap());
    whole
}

/// The processes whose parent is the agent.
fn children(agent: &Agent<'_>) -> Vec<u32> {
    let pid = agent.pid();
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn is_gone(pid: u32) -> bool {
    !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_plug_in_is_read_written_and_ended_with_the_agent() {
    let home = Home::new();
    let (config, _store) = python(&home, "");
    let agent = home.agent_with(&config);
    let mut client = agent.client();
    assert_eq!(client.value("canary", "value").expect(200).body, home.canary().as_bytes());
    assert_eq!(client.value("db", "user").expect(200).body, b"mine", "the private one hides the public one");
    let public = client.get("/v1/secrets/db?scope=public").expect(200).json();
    assert_eq!(public["values"], json!({"user": "one", "raw": {"base64": "/wA="}}));
    assert_eq!((&public["version"], &public["id"], &public["scope"]), (&json!("1"), &json!("2"), &json!("public")));
    client.value("nope", "user").expect_problem(404, "secret_not_found");
    client.value("db", "nope").expect_problem(404, "key_not_found");
    let listed = client.get("/v1/secrets").expect(200).json();
    let names: Vec<_> = listed["secrets"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["canary", "db"]);

    client.post("/v1/secrets", &json!({"name": "new", "values": {"k": "v"}})).expect(201);
    client.post("/v1/secrets", &json!({"name": "new", "values": {}})).expect_problem(409, "conflict");
    let change = json!({"values": {"k": null, "l": "w"}});
    client.request("PATCH", "/v1/secrets/new", &[], Some(&change)).expect(200);
    assert_eq!(client.value("new", "l").expect(200).body, b"w");
    client.value("new", "k").expect_problem(404, "key_not_found");
    client.request("DELETE", "/v1/secrets/new", &[], None).expect(200);
    client.value("new", "l").expect_problem(404, "secret_not_found");

    let children = children(&agent);
    assert_eq!(children.len(), 1, "one process for all of this");
    agent.stop();
    assert!(children.into_iter().all(is_gone));
}

#[test]
fn a_check_reads_no_value_and_tells_what_is_refused() {
    let home = Home::new();
    let (config, store) = python(&home, NO_CACHE);
    // Whoever reads a value fails.
    fs::write(&store, stored(&home, json!({"spoilt": true})).to_string()).unwrap();
    let agent = home.agent_with(&config);
    let mut client = agent.client();
    let mut check = |level: &str| {
        let references = ["{{canary.value}}", "{{db.nope}}", "{{nope.value}}"];
        let reply = client.post("/v1/check", &json!({"references": references, "level": level})).expect(200).json();
        let results = reply["results"].as_array().unwrap().clone();
        results.into_iter().map(|one| one["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(check("SECRET_EXISTS"), ["ok", "ok", "secret_missing"]);
    assert_eq!(check("SECRET_AND_KEY_EXISTS"), ["ok", "key_missing", "secret_missing"]);
    assert_eq!(check("NONE"), ["skipped", "skipped", "skipped"]);
    client.value("canary", "value").expect_problem(503, "backend_unavailable");
}

#[test]
fn a_plug_in_that_fails_leaves_the_old_values_and_one_that_says_no_takes_them() {
    let home = Home::new();
    let (config, store) = python(&home, NO_CACHE);
    let agent = home.agent_with(&config);
    let mut client = agent.client();
    client.value("canary", "value").expect(200);
    client.value("db", "user").expect(200);
    let write = |also: Value| {
        let new = store.with_extension("json.new");
        fs::write(&new, stored(&home, also).to_string()).unwrap();
        fs::rename(&new, &store).unwrap();
    };
    write(json!({"down": true}));
    eventually("the value is stale", || {
        let reply = client.value("canary", "value").expect(200);
        assert_eq!(reply.body, home.canary().as_bytes());
        (reply.header("keyside-stale") == Some("true")).then_some(())
    });
    write(json!({"denied": ["canary"]}));
    eventually("what is refused is served no more", || (client.value("canary", "value").status == 403).then_some(()));
    eventually("the others are", || (client.value("db", "user").status == 200).then_some(()));
    // Killed, it comes back by itself.
    let first = children(&agent);
    for pid in &first {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
    }
    eventually("another one serves", || (client.value("nope", "user").status == 404).then_some(()));
    assert!(children(&agent).iter().all(|pid| !first.contains(pid)));
    // And it goes with an agent that is killed.
    let last = children(&agent);
    agent.kill();
    eventually("it is gone with the agent", || last.iter().all(|pid| is_gone(*pid)).then_some(()));
}

#[test]
fn what_a_plug_in_logs_is_in_the_agents_log_and_nothing_of_the_agents_own_environment_is_in_its_own() {
    let home = Home::new();
    let script = r#"
        env >"$SEEN.new"; mv "$SEEN.new" "$SEEN"
        echo "log line of the plug-in" >&2
        while IFS= read -r line; do id=${line#'{"id":'}; id=${id%%,*}
            printf '{"id":%s,"result":{"secrets":[],"values":{"k":"v"}}}\n' "$id"
        done"#;
    let seen = home.join("seen");
    let keys = format!("env = {{ SEEN = {} }}\n", json!(seen.to_str().unwrap()));
    let agent = home
        .agent()
        .config(&backend(&["sh", "-c", script], &keys))
        .env("ZENML_STORE_API_KEY", home.canary())
        .env("KEYSIDE_BACKEND__OWN__TIMEOUT", "7s")
        .start();
    let mut client = agent.client();
    assert_eq!(client.value("db", "k").expect(200).body, b"v");
    let text = fs::read_to_string(&seen).unwrap();
    assert!(text.contains("SEEN=") && !text.contains("ZENML_") && !text.contains("KEYSIDE_"), "{text}");
    eventually("its line is in the log", || agent.log().contains("log line of the plug-in").then_some(()));
}

#[test]
fn babble_costs_its_caller_an_error_and_the_next_back_end_nothing() {
    let home = Home::new();
    let (python, store) = python(&home, "[agent]\nprecedence = [\"own\", \"bad\"]\n");
    // What it prints holds the planted value, in a line that is no answer.
    let script = r#"while IFS= read -r line; do printf 'here: '; cat "$0"; echo; done"#;
    let bad = backend(&["/bin/sh", "-c", script, store.to_str().unwrap()], "required = false\n");
    let agent = home.agent_with(&format!("{python}{}", bad.replace("backend.own", "backend.bad")));
    let mut client = agent.client();
    assert_eq!(client.value("db", "user").expect(200).body, b"mine");
    let refused = client.value("nope", "user").expect_problem(503, "backend_unavailable");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("no JSON object"), "{detail}");
    assert_eq!(client.value("canary", "value").expect(200).body, home.canary().as_bytes());
}

#[test]
fn a_step_gets_its_values_from_a_plug_in_without_any_agent() {
    let home = Home::new();
    let directory = home.fresh("directory");
    fs::create_dir(&directory).unwrap();
    home.holds_values(&directory);
    let line = format!("\"canary\"\tpublic\tid\t1\t[\"value\"]\t{}\n", json!({"value": home.canary()}));
    fs::write(directory.join("secrets"), line).unwrap();
    let config = backend(&["/bin/sh", &peer("plugin.sh"), directory.to_str().unwrap()], "");
    let config = home.write("plugin.toml", config);
    let arguments = ["--config", config.to_str().unwrap(), "--agent", "embedded"];
    let ended = home
        .keyside(arguments)
        .args(["exec", "--env", "V={{canary.value}}", "--", "printenv", "V"])
        .prints_values()
        .end()
        .expect_code(0);
    assert_eq!(ended.stdout, format!("{}\n", home.canary()).into_bytes());
    home.keyside(arguments).args(["check", "canary.value", "canary.nope"]).end().expect_code(1);
}

#[test]
fn the_command_examines_both_plug_ins_and_prints_no_value() {
    let home = Home::new();
    let (_, store) = python(&home, "");
    let python = programs::python();
    let command = [python.as_path(), Path::new(&peer("plugin.py")), &store].map(|part| part.as_os_str().to_owned());
    let ended = home.keyside(["plugin", "test", "--writes", "--"]).args(command).end().expect_code(0);
    assert!(ended.text().contains("passed  list"), "{}", ended.text());
    let ended =
        home.keyside(["plugin", "test", "--format", "json", "--", "/bin/sh", "-c", "exit 3"]).end().expect_code(1);
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(report["ok"], json!(false));
    assert_eq!(report["findings"][0]["what"], json!("it ended with exit status 3"));
    for (args, words) in [
        (&["plugin", "test"][..], "<CMD>"),
        (&["plugin", "test", "--env", "x", "--", "true"], "NAME=VALUE"),
        (&["plugin", "tset"], "tset"),
    ] {
        home.keyside(args.iter().copied()).end().expect_complaint(2, &[words]);
    }
}
