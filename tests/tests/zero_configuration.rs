//! An agent that was told nothing but `ZENML_CONFIG_PATH` serves what real ZenML stored, byte for byte.
#![allow(clippy::unwrap_used, reason = "a test")]

use keyside_tests::remark::remark;
use keyside_tests::store::Cases;
use keyside_tests::{Agent, Home, Store};
use serde_json::{Value, json};

/// A store as ZenML left it, whose values are watched for, since no other can be planted in an encrypted one.
fn store<'h>(home: &'h Home, which: &str) -> Store<'h> {
    for value in ["private-or-user", "public-or-workspace", "prefix-private", "-----BEGIN PRIVATE KEY-----"] {
        home.watch_for(value);
    }
    let store = home.store(which);
    if which.ends_with("plain") {
        store.plant("canary", &json!({ "value": home.canary() }));
    }
    store
}

fn agent<'h>(home: &'h Home, store: &Store<'_>) -> Agent<'h> {
    home.agent().env("ZENML_CONFIG_PATH", store.directory()).start()
}

fn serves_every_value(which: &str) {
    let home = Home::new();
    let store = store(&home, which);
    let before = std::fs::read(store.file()).unwrap();
    let agent = agent(&home, &store);
    let mut client = agent.client();
    let cases = Cases::read();
    let is_private = |name: &str| cases.private.iter().any(|(private, _)| private == name);
    let (own, shared) = if which.starts_with("0.43") { ("user", "workspace") } else { ("private", "public") };

    // The private one of two comes first.
    let usual = cases.private.iter().chain(cases.public.iter().filter(|(name, _)| !is_private(name)));
    let mut values = 0;
    for (name, pairs) in usual {
        let secret = client.secret(name).expect(200).json();
        assert_eq!(&secret["values"], pairs, "{name}");
        assert_eq!(secret["scope"], if is_private(name) { own } else { shared }, "{name}");
        for (key, value) in pairs.as_object().unwrap() {
            let reply = client.value(name, key).expect(200);
            assert_eq!(reply.body, value.as_str().unwrap().as_bytes(), "{name} {key}");
            assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
            values += 1;
        }
    }
    assert!(values > 200, "only {values} values");

    for (scope, secrets) in [(shared, &cases.public), (own, &cases.private)] {
        for (name, pairs) in secrets {
            let name = keyside_tests::canary::url_escaped(name.as_bytes());
            let secret = client.get(&format!("/v1/secrets/{name}?scope={scope}")).expect(200).json();
            assert_eq!(&secret["values"], pairs, "{name}");
        }
    }
    if which.ends_with("plain") {
        assert_eq!(client.value("canary", "value").expect(200).body, home.canary().as_bytes());
    }
    client.secret("simpl").expect_problem(404, "secret_not_found");
    drop(client);
    assert!(agent.stop().success());
    assert!(std::fs::read(store.file()).unwrap() == before, "reading changed the data base");
    let left = std::fs::read_dir(store.file().parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "something is left beside the data base");
}

#[test]
fn every_value_of_a_zenml_0_43_directory_is_served_byte_for_byte() {
    serves_every_value("0.43.1-plain");
}

#[test]
fn every_value_of_an_encrypted_zenml_0_43_directory_is_served_byte_for_byte() {
    serves_every_value("0.43.1-enc");
}

#[test]
fn every_value_of_a_zenml_0_98_directory_is_served_byte_for_byte() {
    serves_every_value("0.98.0-plain");
}

#[test]
fn every_value_of_an_encrypted_zenml_0_98_directory_is_served_byte_for_byte() {
    serves_every_value("0.98.0-enc");
}

/// Prints its variables and files as JSON, in hexadecimal.
const STEP: &str = r#"
import json, os, sys
files = {}
root = os.environ.get("KEYSIDE_FILES")
for directory, _, names in os.walk(root) if root else []:
    for name in names:
        path = os.path.join(directory, name)
        files[os.path.relpath(path, root)] = open(path, "rb").read().hex()
variables = {os.fsdecode(name): value.hex() for name, value in os.environb.items()}
json.dump({"variables": variables, "files": files}, sys.stdout)
"#;

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn injects_into_a_python_step(which: &str) {
    let home = Home::new();
    let store = store(&home, which);
    let agent = agent(&home, &store);
    let cases = Cases::read();
    let case = |name: &str, key: &str| {
        let mut secrets = cases.private.iter().chain(&cases.public);
        let (_, pairs) = secrets.find(|(known, _)| known == name).unwrap();
        pairs[key].as_str().unwrap().to_owned()
    };
    let python = keyside_tests::programs::python();
    for program in ["keyside", "keyside-exec"] {
        let run = if program == "keyside" { home.keyside(["exec"]) } else { home.wrapper([] as [&str; 0]) };
        let step = run
            .with(&agent)
            .env("INHERITED", "{{both_scopes.k}}")
            .env("PLAIN", "x{{both_scopes.k}}")
            .args([
                "-e",
                "RUSSIAN={{unicode.ключ}}",
                "-e",
                "EMOJI=<{{unicode.emoji}}>",
                "-e",
                "EMPTY={{empty_value.key}}",
            ])
            .args(["-e", "CONTROL={{binaryish.ctrl}}", "-e", "LATIN={{binaryish.latin}}", "-e", "LINES={{pem.key}}"])
            .args(["-e", "DATA={{json_in_value.curly}}", "-e", "LONG={{long_value.long}}", "-s", "M_=many_keys"])
            .args(["-f", "nul={{unicode.nul}}", "-f", "deep/crlf={{binaryish.crlf}}", "-F", "PEM={{pem.key}}"])
            .args(["-f", "two={{simple.username}}:{{simple.password}}", "--secret-files", "numeric_like", "--"])
            .arg(&python)
            .args(["-c", STEP])
            .prints_values()
            .end()
            .expect_code(0);
        let seen: Value = serde_json::from_slice(&step.stdout).unwrap();
        let variable = |name: &str| seen["variables"][name].as_str().unwrap_or_default().to_owned();
        for (name, value) in [
            ("INHERITED", "private-or-user".to_owned()),
            ("PLAIN", "x{{both_scopes.k}}".to_owned()),
            ("RUSSIAN", case("unicode", "ключ")),
            ("EMOJI", format!("<{}>", case("unicode", "emoji"))),
            ("EMPTY", String::new()),
            ("CONTROL", case("binaryish", "ctrl")),
            ("LATIN", case("binaryish", "latin")),
            ("LINES", case("pem", "key")),
            ("DATA", "{{other.key}}".to_owned()),
            ("LONG", case("long_value", "long")),
            ("M_k007", "v7".to_owned()),
            ("M_k199", "v199".to_owned()),
        ] {
            assert_eq!(variable(name), hex(&value), "{name} through {program}");
        }
        let file = |name: &str| seen["files"][name].as_str().unwrap_or_default().to_owned();
        for (name, value) in [
            ("nul", case("unicode", "nul")),
            ("deep/crlf", case("binaryish", "crlf")),
            ("PEM", case("pem", "key")),
            ("two", "admin:abc123".to_owned()),
            ("numeric_like/n", "12345".to_owned()),
            ("numeric_like/nul", "null".to_owned()),
        ] {
            assert_eq!(file(name), hex(&value), "{name} through {program}");
        }
    }
}

#[test]
fn a_zenml_0_43_directory_is_injected_into_a_python_step() {
    injects_into_a_python_step("0.43.1-plain");
}

#[test]
fn an_encrypted_zenml_0_98_directory_is_injected_into_a_python_step() {
    injects_into_a_python_step("0.98.0-enc");
}

#[test]
fn a_value_with_a_nul_is_refused_as_a_variable_by_name_and_works_as_a_file() {
    let home = Home::new();
    let store = store(&home, "0.98.0-plain");
    let agent = agent(&home, &store);
    let started = home.join("started");
    let touch = |args: &[&str]| home.wrapper(args).with(&agent).args(["--", "touch"]).arg(&started).end();
    let refused = touch(&["-e", "WITH_NUL={{unicode.nul}}", "-e", "GOOD={{simple.password}}"]);
    refused.expect_complaint(125, &["WITH_NUL", "NUL", "file"]);
    assert!(!started.exists());
    touch(&["-f", "with_nul={{unicode.nul}}"]).expect_code(0);
    assert!(started.exists());
}

#[test]
fn a_whole_secret_whose_keys_are_no_variable_names_is_refused_by_name() {
    let home = Home::new();
    let store = store(&home, "0.98.0-plain");
    let agent = agent(&home, &store);
    let started = home.join("started");
    for (secret, key) in [("With Spaces", "a b"), ("unicode", "ключ")] {
        let refused = home.wrapper(["-s", secret]).with(&agent).args(["--", "touch"]).arg(&started).end();
        refused.expect_complaint(125, &[key]);
    }
    assert!(!started.exists());
}

#[test]
fn without_an_agent_the_same_directory_is_served_by_a_private_one() {
    let home = Home::new();
    let store = store(&home, "0.43.1-enc");
    let got = home.keyside(["get", "both_scopes.k"]).args([] as [&str; 0]);
    let got = got.env("ZENML_CONFIG_PATH", store.directory()).env("KEYSIDE_SOCKET", "").prints_values();
    // The default path of the system may hold somebody's agent; this home's alone must not decide.
    if std::path::Path::new("/run/keyside/agent.sock").exists() {
        remark("skipped: an agent of this machine listens at the default path");
        return;
    }
    let got = got.end().expect_code(0);
    assert_eq!(got.text(), "private-or-user");
}

#[test]
fn nothing_found_is_an_error_that_says_what_was_looked_for() {
    let home = Home::new();
    let ended = home.agent().env("ZENML_CONFIG_PATH", home.join("nowhere")).end();
    ended.expect_complaint(78, &["ZENML_STORE_URL", "nowhere/config.yaml", "zenml.db", "keyside quickstart"]);
}
