//! The file of ZenML's local secrets manager: served as it changes, kept in doubt, written so that ZenML reads it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyside_tests::eventually::eventually;
use keyside_tests::remark::remark;
use keyside_tests::store::Cases;
use keyside_tests::zenml::python_with_yaml;
use keyside_tests::{Agent, Client, Home, programs};
use serde_json::{Value, json};

/// The file of a secrets manager in a directory of its own.
struct File<'h> {
    home: &'h Home,
    path: PathBuf,
}

impl<'h> File<'h> {
    fn new(home: &'h Home, text: &str) -> Self {
        let directory = home.fresh("manager");
        fs::create_dir(&directory).unwrap();
        home.holds_values(&directory);
        let file = Self { home, path: directory.join("secrets.yaml") };
        file.write(text);
        file
    }

    /// A file with the planted value in `canary.value`.
    fn planted(home: &'h Home) -> Self {
        Self::new(home, &secrets(&[("canary", "value", home.canary()), ("db", "user", "one")]))
    }

    /// Empties the file, then writes it: as ZenML does.
    fn write(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
    }

    /// Puts another file in its place: as editors and Keyside do.
    fn replace(&self, text: &str) {
        let new = self.path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, &self.path).unwrap();
    }

    fn backend(&self, keys: &str) -> String {
        format!("[backend.manager]\ntype = \"local\"\npath = \"{}\"\n{keys}\n", self.path.display())
    }

    /// An agent that would not look for changes within the time of a test by itself.
    fn agent(&self, keys: &str) -> Agent<'h> {
        let cache = "[cache]\npoll_interval = \"1h\"\nttl = \"1h\"\nnegative_ttl = \"1h\"\nmax_stale = \"2h\"\n";
        self.home.agent_with(&format!("{cache}{}", self.backend(keys)))
    }

    fn python(&self, python: &Path, args: &[&str]) -> keyside_tests::run::Run<'h> {
        let script = programs::package().join("peers/local_yaml.py");
        keyside_tests::run::Run::new(self.home, python.to_owned()).arg(script).arg(&self.path).args(args)
    }
}

/// The text of a file with one key for each secret.
fn secrets(all: &[(&str, &str, &str)]) -> String {
    let mut text = String::new();
    for (name, key, value) in all {
        let value = STANDARD.encode(value);
        writeln!(text, "{name}:\n  {key}: '{value}'\n  zenml_schema_name: arbitrary").unwrap();
    }
    text
}

fn served(client: &mut Client<'_>, what: &str, value: &str) -> Duration {
    let served = || {
        let reply = client.value("db", "user");
        (reply.status == 200 && reply.body == value.as_bytes()).then_some(())
    };
    eventually(what, served).1
}

#[test]
fn a_change_is_served_at_once_however_the_file_is_changed() {
    let home = Home::new();
    let file = File::planted(&home);
    let agent = file.agent("");
    let mut client = agent.client();
    assert_eq!(client.value("canary", "value").expect(200).body, home.canary().as_bytes());
    assert_eq!(client.value("db", "user").expect(200).body, b"one");
    let revision = |client: &mut Client<'_>| client.secret("db").expect(200).json()["revision"].as_u64().unwrap();
    let (first, kept) = (revision(&mut client), client.secret("canary").json()["revision"].clone());
    let text = |value: &str| secrets(&[("canary", "value", home.canary()), ("db", "user", value)]);

    file.write(&text("two"));
    let took = served(&mut client, "what was written in place is served", "two");
    remark(format_args!("written in place: served after {took:?}"));
    file.replace(&text("three"));
    let took = served(&mut client, "what was put in its place is served", "three");
    remark(format_args!("put in its place: served after {took:?}"));
    assert!(revision(&mut client) > first);
    assert_eq!(client.secret("canary").json()["revision"], kept, "what did not change has its revision");

    fs::remove_file(&file.path).unwrap();
    eventually("what was deleted is gone", || (client.secret("db").status == 404).then_some(()));
    client.value("canary", "value").expect_problem(404, "secret_not_found");
    file.write(&text("four"));
    served(&mut client, "what was made again is served", "four");
    client.value("canary", "value").expect(200);
    file.write(&secrets(&[("canary", "value", home.canary())]));
    eventually("one secret that was removed is gone", || (client.secret("db").status == 404).then_some(()));
    client.value("canary", "value").expect(200);
}

#[test]
fn a_file_in_doubt_leaves_the_old_values() {
    let home = Home::new();
    let file = File::planted(&home);
    // Every read wants to ask the file again.
    let cache = "[cache]\nttl = \"0\"\nnegative_ttl = \"0\"\nmax_stale = \"1h\"\n";
    let agent = home.agent_with(&format!("{cache}{}", file.backend("")));
    let mut client = agent.client();
    client.value("canary", "value").expect(200);
    client.value("db", "user").expect(200);
    let whole = fs::read_to_string(&file.path).unwrap();
    let directory = file.path.parent().unwrap().to_owned();
    let away = home.fresh("away");
    home.holds_values(&away);
    let stays = |what: &str, client: &mut Client<'_>| {
        let stale = || {
            let reply = client.value("canary", "value").expect(200);
            assert_eq!(reply.body, home.canary().as_bytes(), "{what}");
            (reply.header("keyside-stale") == Some("true")).then_some(())
        };
        eventually(&format!("the value is stale: {what}"), stale);
        client.value("never", "there").expect_problem(503, "backend_unavailable");
    };
    let mends = |what: &str, client: &mut Client<'_>| {
        let fresh = || (client.value("never", "there").status == 404).then_some(());
        eventually(&format!("the back-end answers again: {what}"), fresh);
    };
    for (what, text) in [
        ("empty", String::new()),
        ("half", whole[..whole.len() / 2].to_owned()),
        ("without its last line break", whole.trim_end().to_owned()),
        ("no YAML", "{ [\n".to_owned()),
        ("a list", "- canary\n".to_owned()),
    ] {
        file.write(&text);
        stays(what, &mut client);
        file.write(&whole);
        mends(what, &mut client);
    }
    fs::remove_file(&file.path).unwrap();
    fs::create_dir(&file.path).unwrap();
    stays("a directory", &mut client);
    fs::remove_dir(&file.path).unwrap();
    file.write(&whole);
    mends("a directory", &mut client);
    fs::rename(&directory, &away).unwrap();
    stays("its directory is gone", &mut client);
    fs::rename(&away, &directory).unwrap();
    mends("its directory is gone", &mut client);
    assert_eq!(client.value("canary", "value").expect(200).body, home.canary().as_bytes());
}

#[test]
fn hostile_files_are_refused_in_bounded_time_and_the_next_client_is_served() {
    let home = Home::new();
    let file = File::planted(&home);
    let agent = home
        .agent_with(&format!("[cache]\nttl = \"0\"\nnegative_ttl = \"0\"\nmax_stale = \"0\"\n{}", file.backend("")));
    let mut client = agent.client();
    client.value("canary", "value").expect(200);
    let whole = fs::read_to_string(&file.path).unwrap();
    let peak = || peak_memory(agent.pid());
    let before = peak();
    let mib = 1 << 20;
    let mut bomb = "a0: &a0 {k: dg==}\n".to_owned();
    for level in 1..2000 {
        writeln!(bomb, "a{level}: &a{level} [{}]", [format!("*a{}", level - 1).as_str(); 50].join(", ")).unwrap();
    }
    let many: String = (0..mib / 8).map(|_| "dup: {}\n").collect();
    for (what, text, code) in [
        ("alias bomb", bomb, 404),
        ("nesting", "[".repeat(mib), 503),
        ("braces", "{a: ".repeat(mib / 4), 503),
        ("dashes", "- ".repeat(mib / 2), 503),
        ("one name again and again", many, 404),
        ("a huge integer", format!("canary:\n  value: {}\n", "9".repeat(mib)), 503),
        ("a huge name", format!("{}: {{}}\n", "n".repeat(mib)), 503),
        ("NUL bytes", "\0".repeat(mib), 503),
        ("bytes that are no text", "\u{ff}".repeat(mib / 2), 503),
        ("a number for a secret", "canary: 1\n".to_owned(), 503),
        ("no base64", "canary:\n  value: '!!!'\n".to_owned(), 503),
        ("a key twice", "canary:\n  value: dg==\n  value: dg==\n".to_owned(), 503),
    ] {
        file.replace(&text);
        let started = Instant::now();
        let reply = eventually(&format!("{what} is refused"), || {
            let reply = client.value("canary", "value");
            (reply.status == code).then_some(reply)
        });
        if code == 503 {
            let problem = reply.0.expect_problem(503, "backend_unavailable").json();
            assert!(problem["hint"].is_string(), "{what}: {problem}");
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{what} took {:?}", started.elapsed());
        agent.client().get("/v1/health").expect(200);
    }
    file.replace(&whole);
    eventually("the next client is served", || (agent.client().value("canary", "value").status == 200).then_some(()));
    let grown = peak().saturating_sub(before);
    remark(format_args!("memory grew by {} MiB at most", grown >> 10));
    assert!(grown < 200 << 10, "memory grew by {} MiB", grown >> 10);
}

/// The most memory a process has had, in KiB.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn what_keyside_writes_zenmls_own_reader_reads_and_its_writer_writes_alike() {
    let Some(python) = python_with_yaml() else { return };
    let home = Home::new();
    let file = File::planted(&home);
    fs::set_permissions(&file.path, fs::Permissions::from_mode(0o640)).unwrap();
    let agent = file.agent("writable = true");
    let keyside = |args: &[&str]| {
        let run = home.keyside(["secret"]).args(args).args(["--backend", "manager"]).with(&agent);
        run.end()
    };
    let odd =
        json!({ "plain": "v", "": "", "п": "ключ\n", "12": "0", "a: b": "{{x.y}}", "yes": "no", "tab\t": "\u{0}" });
    let mut taken = odd.clone();
    // The empty key is refused everywhere.
    taken.as_object_mut().unwrap().remove("");
    keyside(&["create", "odd", "-v", &odd.to_string()]).expect_complaint(2, &[]);
    keyside(&["create", "odd", "-v", &taken.to_string()]).expect_code(0);
    keyside(&["create", "123", "--k=v"]).expect_code(0);
    keyside(&["update", "db", "--user=two", "--pass=three"]).expect_code(0);
    keyside(&["update", "db", "-r", "pass"]).expect_code(0);
    keyside(&["create", "gone", "--k=v"]).expect_code(0);
    keyside(&["delete", "gone", "-y"]).expect_code(0);
    keyside(&["create", "db", "--k=v"]).expect_code(1);
    keyside(&["create", "x", "-v", "{\"zenml_schema_name\": \"v\"}"]).expect_complaint(2, &["zenml_schema_name"]);

    let shown = file.python(&python, &["show"]).prints_values().end().expect_code(0);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let mut expected = taken.clone();
    expected["zenml_schema_name"] = json!("arbitrary");
    assert_eq!(shown["odd"], expected);
    assert_eq!(shown["123"], json!({ "k": "v", "zenml_schema_name": "arbitrary" }));
    assert_eq!(shown["db"], json!({ "user": "two", "zenml_schema_name": "arbitrary" }));
    assert_eq!(shown["canary"]["value"], home.canary());
    assert_eq!(shown.as_object().unwrap().len(), 4);
    assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(file.path.parent().unwrap()).unwrap().count(), 1, "something is left beside the file");

    // The dumper writes the secrets that are ours as we did.
    let dumped = file.python(&python, &["dump"]).prints_values().end().expect_code(0).text();
    let written = fs::read_to_string(&file.path).unwrap();
    let ours = |text: &str| text[text.find("odd:\n").unwrap()..].to_owned();
    assert_eq!(ours(&written), ours(&dumped));

    let register = file.python(&python, &["register", "db"]).stdin("{\"user\": \"of ZenML\"}");
    register.end().expect_code(0);
    served(&mut agent.client(), "what ZenML's writer wrote is served", "of ZenML");
}

/// ZenML's directory with the data base whose stack has a local secrets manager, and that manager's file.
fn zenml_directory(home: &Home, active_stack: bool) -> (PathBuf, PathBuf, PathBuf) {
    const COMPONENT: &str = "dcfe206f-0939-4b8a-91c5-4ccc53d8acf8";
    let fixtures = programs::package().join("fixtures/zenml");
    let directory = home.fresh("zenml");
    home.holds_values(&directory);
    let stores = directory.join("local_stores");
    let (data_base, file) = (stores.join("default_zen_store/zenml.db"), stores.join(COMPONENT).join("secrets.yaml"));
    for (from, to) in
        [("db/zenml-0.43.1-with-local-secrets-manager.db", &data_base), ("local_secrets_manager_secrets.yaml", &file)]
    {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, fs::read(fixtures.join(from)).unwrap()).unwrap();
    }
    let stack = if active_stack { "active_stack_id: e5de51df-0d30-4cfc-8929-7ce1e6bac9af\n" } else { "" };
    fs::write(directory.join("config.yaml"), format!("{stack}active_workspace_name: default\n")).unwrap();
    (directory, data_base, file)
}

#[test]
fn a_secrets_manager_among_the_stores_components_comes_after_the_store_without_configuration() {
    for active_stack in [true, false] {
        let home = Home::new();
        let (directory, data_base, file) = zenml_directory(&home, active_stack);
        home.watch_for("-----BEGIN PRIVATE KEY-----");
        let mut text = fs::read_to_string(&file).unwrap();
        text.push_str(&secrets(&[("zz_canary", "value", home.canary()), ("zz_both", "k", "of the manager")]));
        fs::write(&file, &text).unwrap();
        let plant = home.python([programs::package().join("peers/store.py"), data_base.clone()]);
        plant.args(["plant", "zz_both"]).stdin("{\"k\": \"of the store\"}").end().expect_code(0);
        let agent = home.agent().env("ZENML_CONFIG_PATH", &directory).start();
        let mut client = agent.client();

        let mut values = 0;
        for (name, pairs) in Cases::read().public {
            let reply = client.secret(&name);
            // The manager's file was made for an older version, without what the newest fixtures hold besides.
            if name == "max_len" {
                continue;
            }
            let secret = reply.expect(200).json();
            assert_eq!((&secret["backend"], &secret["scope"]), (&json!("manager"), &Value::Null), "{name}");
            for (key, value) in pairs.as_object().unwrap() {
                let expected = if (name.as_str(), key.as_str()) == ("simple", "username") {
                    "admin2"
                } else {
                    value.as_str().unwrap()
                };
                assert_eq!(secret["values"][key], expected, "{name} {key}");
                assert_eq!(client.value(&name, key).expect(200).body, expected.as_bytes(), "{name} {key}");
                values += 1;
            }
            assert_eq!(secret["values"].as_object().unwrap().len(), pairs.as_object().unwrap().len(), "{name}");
        }
        assert!(values > 200, "only {values} values");
        assert_eq!(client.value("zz_canary", "value").expect(200).body, home.canary().as_bytes());
        let both = client.secret("zz_both").expect(200).json();
        assert_eq!((&both["backend"], &both["values"]["k"]), (&json!("store"), &json!("of the store")));
        let of_manager = client.get("/v1/secrets/zz_both?backend=manager").expect(200).json();
        assert_eq!(of_manager["values"]["k"], "of the manager");
        client.secret("simpl").expect_problem(404, "secret_not_found");
        let status = client.get("/v1/status").expect(200).json();
        let names: Vec<_> = status["backends"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
        assert_eq!(names, ["store", "manager"]);
        // Deleted in the store, it is the manager's that counts.
        let remove = home.python([programs::package().join("peers/store.py"), data_base]);
        remove.args(["remove", "zz_both"]).end().expect_code(0);
        let refreshed = home.agent().env("ZENML_CONFIG_PATH", &directory).start();
        assert_eq!(refreshed.client().value("zz_both", "k").expect(200).body, b"of the manager");
        let unchanged = fs::read_to_string(&file).unwrap();
        assert_eq!(unchanged, text, "reading changed the file");
    }
}

#[test]
fn a_manager_that_never_had_a_secret_makes_no_secret_unavailable() {
    let home = Home::new();
    let (directory, _, file) = zenml_directory(&home, true);
    fs::remove_dir_all(file.parent().unwrap()).unwrap();
    let agent = home.agent().env("ZENML_CONFIG_PATH", &directory).start();
    agent.client().secret("simple").expect_problem(404, "secret_not_found");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, secrets(&[("simple", "k", "first")])).unwrap();
    let served = || (agent.client().value("simple", "k").status == 200).then_some(());
    eventually("the first secret is served", served);
}

#[test]
fn a_manager_is_left_out_or_put_first_by_precedence() {
    let home = Home::new();
    let (directory, data_base, _) = zenml_directory(&home, true);
    let plant = home.python([programs::package().join("peers/store.py"), data_base]);
    plant.args(["plant", "upper"]).stdin("{\"KEY\": \"of the store\"}").end().expect_code(0);
    let agent = |precedence: &str| {
        home.agent().env("ZENML_CONFIG_PATH", &directory).env("KEYSIDE_AGENT__PRECEDENCE", precedence).start()
    };
    let alone = agent("[\"store\"]");
    assert_eq!(alone.client().value("upper", "KEY").expect(200).body, b"of the store");
    alone.client().secret("simple").expect_problem(404, "secret_not_found");
    let turned = agent("[\"manager\", \"store\"]");
    assert_eq!(turned.client().value("upper", "KEY").expect(200).body, b"lower");
}
