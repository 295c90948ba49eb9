//! The commands, against a running agent.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::PermissionsExt as _;

use keyside_tests::{Agent, Home};
use serde_json::{Value, json};

fn agent(home: &Home) -> Agent<'_> {
    let store = home.planted();
    store.plant("db", &json!({ "user": "reader", "password": home.canary() }));
    home.agent_with(&store.backend("writable = true\nuser = \"default\""))
}

#[test]
fn check_answers_every_reference_at_once_with_near_misses() {
    let home = Home::new();
    let agent = agent(&home);
    let references = ["{{db.password}}", "db.user", "{{ db.pasword }}", "{{dbb.user}}", "{{.x}}", "{{db.user}}"];
    let check = home.keyside(["check"]).args(references).with(&agent).end().expect_code(1);
    let text = check.text();
    for (status, reference) in [
        ("ok", "{{db.password}}"),
        ("ok", "{{db.user}}"),
        ("key_missing", "{{db.pasword}}"),
        ("secret_missing", "{{dbb.user}}"),
        ("invalid", "{{.x}}"),
    ] {
        let line =
            text.lines().find(|line| line.contains(reference)).unwrap_or_else(|| panic!("no {reference} in:\n{text}"));
        assert!(line.starts_with(status), "{line}");
    }
    let line = |reference: &str| text.lines().find(|line| line.contains(reference)).unwrap().to_owned();
    assert!(line("{{db.pasword}}").contains("`password`") || text.contains("`password`"), "{text}");
    assert!(text.contains("`db`"), "{text}");
    assert!(text.contains("store"), "the back-ends that were asked: {text}");
    home.keyside(["check", "db.user", "{{db.password}}"]).with(&agent).end().expect_code(0);
}

#[test]
fn the_level_decides_what_a_check_asks_and_the_flag_stands_over_the_variable() {
    let home = Home::new();
    let agent = agent(&home);
    let check = |level: &[&str], variable: Option<&str>| {
        let run = home
            .keyside(["check"])
            .args(level)
            .args(["--format", "json", "db.user", "db.missing", "nowhere.key"])
            .with(&agent);
        let run = match variable {
            Some(level) => run.env("ZENML_SECRET_VALIDATION_LEVEL", level),
            None => run,
        };
        let ended = run.end();
        let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
        let statuses: Vec<_> = report["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| result["status"].as_str().unwrap().to_owned())
            .collect();
        (
            ended.code().unwrap(),
            statuses,
            report["level"].as_str().unwrap().to_owned(),
            report["backend_calls"].as_u64().unwrap(),
        )
    };
    let (code, statuses, level, calls) = check(&["--level", "NONE"], None);
    assert_eq!((code, statuses, level.as_str(), calls), (0, vec!["skipped".to_owned(); 3], "NONE", 0));
    let exists = ["ok", "ok", "secret_missing"].map(str::to_owned).to_vec();
    let (code, statuses, level, _) = check(&["--level", "SECRET_EXISTS"], None);
    assert_eq!((code, &statuses, level.as_str()), (1, &exists, "SECRET_EXISTS"));
    assert_eq!(check(&[], Some("SECRET_EXISTS")).1, exists);
    let whole = ["ok", "key_missing", "secret_missing"].map(str::to_owned).to_vec();
    let (code, statuses, level, _) = check(&[], None);
    assert_eq!((code, &statuses, level.as_str()), (1, &whole, "SECRET_AND_KEY_EXISTS"));
    assert_eq!(check(&["--level", "SECRET_AND_KEY_EXISTS"], Some("NONE")).1, whole);
}

#[test]
fn secret_exists_reads_no_value() {
    let home = Home::new();
    let agent = agent(&home);
    home.keyside(["check", "--level", "SECRET_EXISTS", "db.user"]).with(&agent).end().expect_code(0);
    let status = agent.client().get("/v1/status").expect(200).json();
    assert_eq!(
        (status["cache"]["entries"].clone(), status["cache"]["names"].clone()),
        (json!(0), json!([])),
        "{status}"
    );
    home.keyside(["check", "db.user"]).with(&agent).end().expect_code(0);
    assert_eq!(agent.client().get("/v1/status").json()["cache"]["names"], json!(["db"]));
}

#[test]
fn the_agents_own_level_counts_where_the_caller_names_none() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent().config(&store.backend("")).env("ZENML_SECRET_VALIDATION_LEVEL", "NONE").start();
    home.keyside(["check", "no.such"]).with(&agent).end().expect_code(0);
    home.keyside(["check", "--level", "SECRET_EXISTS", "no.such"]).with(&agent).end().expect_code(1);
    // It is no security control: a resolve ignores it.
    home.wrapper(["-e", "A={{no.such}}", "--", "true"]).with(&agent).end().expect_code(125);
}

#[test]
fn references_are_found_in_files_of_every_kind_with_path_and_line() {
    let home = Home::new();
    let agent = agent(&home);
    let files = [
        (
            "stack.yaml",
            "name: x\ncomponents:\n  store:\n  - config:\n      url: https://x\n      key: '{{db.missing}}'\n",
            "stack.yaml:6",
            "components.store[0].config.key",
        ),
        ("stack.json", "{\n \"a\": {\n  \"b\": [1, \"{{db.missing}}\"]\n }\n}\n", "stack.json:3", "a.b[1]"),
        ("conf.toml", "[a]\nb = 1\nc = \"{{db.missing}}\"\n", "conf.toml:3", "a.c"),
        (".env", "# comment\nGOOD={{db.user}}\nBAD={{db.missing}}\n", ".env:3", "BAD"),
    ];
    for (name, content, place, path) in files {
        let file = home.write(name, content);
        let check = home.keyside(["check", "--file"]).arg(&file).with(&agent).end().expect_code(1);
        let text = check.text();
        let line = text.lines().find(|line| line.contains("{{db.missing}}")).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(place) && line.contains(path), "neither {place} nor {path} is in: {line}");
        let report = home.keyside(["check", "--format", "json", "--file"]).arg(&file).with(&agent).end().expect_code(1);
        let report: Value = serde_json::from_slice(&report.stdout).unwrap();
        assert_eq!(report["ok"], false);
        assert!(report["results"].to_string().contains(path), "{report}");
    }
    let all = home.keyside(["check"]).args(files.iter().flat_map(|(name, ..)| ["--file", name])).with(&agent);
    let text = all.end().expect_code(1).text();
    assert!(files.iter().all(|(_, _, place, _)| text.contains(place)), "{text}");

    let github =
        home.keyside(["check", "--format", "github", "--file", "stack.yaml"]).with(&agent).end().expect_code(1);
    assert!(github.text().starts_with("::error file=stack.yaml,line=6,"), "{}", github.text());
    let junit = home.keyside(["check", "--format", "junit", "--file", "stack.yaml"]).with(&agent).end().expect_code(1);
    assert!(
        junit.text().contains("<failure type=\"key_missing\"") && junit.text().contains("failures=\"1\""),
        "{}",
        junit.text()
    );
    let broken = home.write("broken.yaml", "a: [\n");
    home.keyside(["check", "--file"]).arg(&broken).with(&agent).end().expect_complaint(2, &["broken.yaml"]);
    home.keyside(["check", "--file", "missing.yaml"]).with(&agent).end().expect_complaint(2, &["missing.yaml"]);
}

#[test]
fn references_come_from_stdin_and_the_environment_too() {
    let home = Home::new();
    let agent = agent(&home);
    let stdin = home.keyside(["check", "-"]).with(&agent).stdin("{{db.user}}\n\ndb.missing\n").end().expect_code(1);
    assert!(stdin.text().contains("{{db.missing}}") && stdin.text().lines().count() == 2, "{}", stdin.text());
    let environment =
        home.keyside(["check", "--env"]).with(&agent).env("MY_VARIABLE", "{{db.missing}}").env("OTHER", "x{{db.user}}");
    let text = environment.end().expect_code(1).text();
    assert!(text.contains("MY_VARIABLE") && text.lines().count() == 1, "{text}");
}

#[test]
fn an_agent_that_is_not_there_is_69_for_every_command() {
    let home = Home::new();
    let socket = home.join("nobody.sock");
    for args in [
        &["check", "a.b"][..],
        &["get", "a.b"],
        &["secret", "list"],
        &["secret", "get", "a"],
        &["secret", "delete", "a", "-y"],
        &["status"],
        &["ready"],
        &["health"],
    ] {
        home.keyside(args).env("KEYSIDE_SOCKET", &socket).end().expect_complaint(69, &[socket.to_str().unwrap()]);
        // A flag before the command word names it as well.
        home.keyside(["--socket"]).arg(&socket).args(args).end().expect_complaint(69, &[socket.to_str().unwrap()]);
    }
}

#[test]
fn get_prints_the_bytes_of_one_value_and_nothing_else() {
    let home = Home::new();
    let agent = agent(&home);
    let get = |args: &[&str]| home.keyside(["get"]).args(args).with(&agent).prints_values().end();
    for args in [&["db.password"][..], &["{{db.password}}"], &["db", "--key", "password"]] {
        assert_eq!(get(args).expect_code(0).stdout, home.canary().as_bytes());
    }
    assert_eq!(get(&["dots.and-dashes_under", "--key", "dotted.key"]).expect_code(0).text(), "dk");
    assert_eq!(get(&["binaryish.crlf"]).expect_code(0).text(), "l1\r\nl2\n");
    assert_eq!(get(&["unicode.nul"]).expect_code(0).stdout, b"a\0b");
    assert_eq!(get(&["both_scopes.k"]).expect_code(0).text(), "private-or-user");
    assert_eq!(get(&["both_scopes.k", "--scope", "public"]).expect_code(0).text(), "public-or-workspace");
    get(&["db.pasword"]).expect_complaint(1, &["db", "pasword", "`password`"]);
    get(&["nowhere.key"]).expect_no(&["nowhere"]);
}

#[test]
fn a_whole_secret_comes_back_from_each_format_byte_for_byte() {
    let home = Home::new();
    let agent = agent(&home);
    let get = |secret: &str, format: &str| {
        home.keyside(["get", secret, "--format", format]).with(&agent).prints_values().end().expect_code(0).text()
    };
    let expected = json!({ "user": "reader", "password": home.canary() });
    assert_eq!(serde_json::from_str::<Value>(&get("db", "json")).unwrap(), expected);
    assert_eq!(serde_json::from_str::<Value>(&get("unicode", "json")).unwrap()["nul"], "a\u{0}b");

    let assignments = home.write("assignments", get("db", "env"));
    home.holds_values(&assignments);
    let shell =
        keyside_tests::run::Run::new(&home, "/bin/sh".into()).arg("-c").arg(". ./assignments; printf %s \"$password\"");
    assert_eq!(shell.prints_values().end().expect_code(0).text(), home.canary());

    let dotenv = home.write("dotenv", get("db", "dotenv"));
    home.holds_values(&dotenv);
    let step = home.wrapper(["--env-file"]).arg(&dotenv).args(["--", "/bin/sh", "-c", "printf %s \"$password\""]);
    assert_eq!(step.prints_values().end().expect_code(0).text(), home.canary());

    // What is written as YAML makes the same secret again.
    for secret in ["db", "binaryish", "numeric_like", "json_in_value", "With Spaces"] {
        let yaml = home.write("copy.yaml", get(secret, "yaml"));
        home.holds_values(&yaml);
        let name = format!("copy of {secret}");
        let created = home.keyside(["secret", "create", &name, "-v", "@copy.yaml"]).with(&agent).end();
        created.expect_code(0);
        let mut client = agent.client();
        assert_eq!(client.secret(&name).json()["values"], client.secret(secret).json()["values"], "{secret}");
    }
}

#[test]
fn a_secret_is_created_listed_shown_changed_renamed_exported_and_deleted() {
    let home = Home::new();
    let agent = agent(&home);
    let secret = |args: &[&str]| home.keyside(["secret"]).args(args).with(&agent);
    let values = |name: &str| agent.client().secret(name).expect(200).json()["values"].clone();

    let file = home.write("password.txt", home.canary());
    home.holds_values(&file);
    let created = secret(&["create", "mine", "--password=@password.txt", "--at=@@x", "--empty=", "--a.b-c=d=e"]).end();
    created.expect_code(0);
    assert_eq!(values("mine"), json!({ "password": home.canary(), "at": "@x", "empty": "", "a.b-c": "d=e" }));
    secret(&["create", "mine", "--a=b"]).end().expect_no(&["mine"]);
    let inline = secret(&["create", "inline", "--a=b"]).end().expect_code(0);
    assert_eq!(inline.stderr.matches("process list").count(), 1, "{}", inline.stderr);
    let quiet = secret(&["create", "piped", "--a=@-"]).stdin("b\n").end().expect_code(0);
    assert!(!quiet.stderr.contains("process list"), "{}", quiet.stderr);
    assert_eq!(values("piped"), json!({ "a": "b\n" }));

    let listed = secret(&["list", "--format", "json"]).end().expect_code(0).text();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let names: Vec<_> =
        listed.as_array().unwrap().iter().map(|secret| secret["name"].as_str().unwrap().to_owned()).collect();
    assert!(names.contains(&"mine".to_owned()) && names.is_sorted(), "{names:?}");
    assert!(secret(&["list"]).end().expect_code(0).text().contains("mine"));

    let hidden = secret(&["get", "mine"]).end().expect_code(0).text();
    assert!(hidden.contains("password") && hidden.contains("a.b-c"), "{hidden}");
    let shown = secret(&["get", "mine", "--show", "--format", "json"]).prints_values().end().expect_code(0).text();
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["values"]["password"], home.canary());

    secret(&["update", "mine", "--empty=full", "-r", "at", "-r", "a.b-c"]).end().expect_code(0);
    assert_eq!(values("mine"), json!({ "password": home.canary(), "empty": "full" }));
    secret(&["update", "mine", "-r", "missing"]).end().expect_no(&["missing"]);
    secret(&["update", "nowhere", "--a=b"]).end().expect_no(&["nowhere"]);
    secret(&["update", "mine", "-p", "true"]).end().expect_code(0);
    assert_eq!(agent.client().secret("mine").json()["scope"], "private");
    secret(&["rename", "mine", "-n", "ours"]).end().expect_code(0);
    secret(&["get", "mine"]).end().expect_no(&["mine"]);

    let export = home.join("export.yaml");
    home.holds_values(&export);
    secret(&["export", "ours", "-f", "export.yaml"]).end().expect_code(0);
    assert_eq!(std::fs::metadata(&export).unwrap().permissions().mode() & 0o7777, 0o600);
    secret(&["create", "again", "-v", "@export.yaml"]).end().expect_code(0);
    assert_eq!(values("again"), values("ours"));

    // Nobody answered the question, so nothing is deleted.
    let asked = secret(&["delete", "ours"]).end();
    assert_ne!(asked.code(), Some(0));
    agent.client().secret("ours").expect(200);
    secret(&["delete", "ours"]).stdin("n\n").end();
    agent.client().secret("ours").expect(200);
    secret(&["delete", "ours", "-y"]).end().expect_code(0);
    secret(&["delete", "ours", "-y"]).end().expect_no(&["ours"]);
    agent.client().secret("ours").expect_problem(404, "secret_not_found");
}

#[test]
fn writing_to_a_back_end_that_is_not_writable_is_77() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let value = format!("--a={}", home.canary());
    home.keyside(["secret", "create", "new", &value]).with(&agent).end().expect_complaint(77, &["new", "writable"]);
    home.keyside(["secret", "update", "canary", &value])
        .with(&agent)
        .end()
        .expect_complaint(77, &["canary", "writable"]);
    home.keyside(["secret", "delete", "canary", "-y"]).with(&agent).end().expect_complaint(77, &["canary", "writable"]);
}

#[test]
fn a_peer_without_a_grant_is_77() {
    let home = Home::new();
    let store = home.planted();
    let agent = home.agent_with(&format!("{}[grant.other]\nuid = [54321]\nread = [\"*\"]\n", store.backend("")));
    for args in [&["get", "canary.value"][..], &["check", "canary.value"], &["secret", "list"]] {
        home.keyside(args).with(&agent).end().expect_complaint(77, &["grant"]);
    }
    home.keyside(["ready"]).with(&agent).end().expect_code(0);
    home.keyside(["status"]).with(&agent).end().expect_code(0);
}

#[test]
fn status_ready_and_health_tell_of_the_agent_at_a_glance() {
    let home = Home::new();
    let agent = agent(&home);
    let status = home.keyside(["status"]).with(&agent).end().expect_code(0).text();
    for word in ["ready", "store", "zenml-sql", agent.socket().to_str().unwrap(), &agent.pid().to_string()] {
        assert!(status.contains(word), "{word} is not in:\n{status}");
    }
    let status = home.keyside(["status", "--format", "json"]).with(&agent).end().expect_code(0).text();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!((status["ready"].clone(), status["pid"].clone()), (json!(true), json!(agent.pid())));
    home.keyside(["ready"]).with(&agent).end().expect_code(0);
    home.keyside(["health"]).with(&agent).end().expect_code(0);
}

#[test]
fn ready_waits_for_an_agent_that_starts_later() {
    let home = Home::new();
    let store = home.planted();
    let socket = home.join("late.sock");
    let waiting = home.keyside(["ready", "--wait", "30s"]).env("KEYSIDE_SOCKET", &socket).start();
    let agent = home.agent().config(&store.backend("")).socket(&socket).start();
    waiting.end().expect_code(0);
    drop(agent);
}

#[test]
fn every_command_has_help_with_an_example() {
    let home = Home::new();
    let mut commands = vec![vec!["--help"], vec!["secret", "--help"], vec!["exec", "--help"]];
    for command in ["quickstart", "agent", "check", "get", "status", "ready", "health"] {
        commands.push(vec![command, "--help"]);
    }
    for verb in ["create", "list", "get", "update", "delete"] {
        commands.push(vec!["secret", verb, "--help"]);
    }
    for command in commands {
        let help = home.keyside(&command).end().expect_code(0).text();
        assert!(help.contains("Example") && help.contains("keyside"), "{command:?}:\n{help}");
    }
    let help = home.wrapper(["--help"]).end().expect_code(0).text();
    assert!(help.contains("Example"), "{help}");
    home.keyside(["--version"]).end().expect_code(0);
}
