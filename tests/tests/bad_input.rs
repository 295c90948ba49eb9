//! What is wrong is named in one line with a hint, changes nothing and shows no value.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use keyside_tests::store::Cases;
use keyside_tests::{Agent, Home, Store, programs};
use serde_json::json;

/// Whether trying again may help: a file that is being copied may be whole soon, a setting stays wrong.
#[derive(Clone, Copy, PartialEq)]
enum Again {
    MayHelp,
    CannotHelp,
}

/// Asks an agent whose back-end is broken in every way a user would, and expects each to say so and to name `named`.
fn every_way_says(home: &Home, agent: &Agent<'_>, secret: &str, key: &str, again: Again, named: &[&str]) {
    let mut client = agent.client();
    let problem = client.value(secret, key).expect_problem(503, "backend_unavailable");
    assert!(problem.json()["hint"].is_string());
    assert_eq!(problem.header("retry-after").is_some(), again == Again::MayHelp, "{}", problem.head);
    let said = problem.json().to_string();
    for name in named {
        assert!(said.contains(name), "`{name}` is not named in {said}");
    }
    let reference = format!("{{{{{secret}.{key}}}}}");
    let resolve = client.post("/v1/resolve", &json!({ "references": { "a": reference } }));
    let failure = match again {
        Again::MayHelp => resolve.expect_problem(503, "backend_unavailable"),
        Again::CannotHelp => resolve.expect_problem(422, "unresolved"),
    };
    assert_eq!(failure.json()["failures"][0]["retry"], again == Again::MayHelp);
    assert_eq!(failure.json()["failures"][0]["code"], "backend_unavailable");
    let started = home.fresh("started");
    let step = home.wrapper(["--wait", "0", "-e"]).arg(format!("A={reference}")).with(agent);
    step.args(["--", "touch"]).arg(&started).end().expect_complaint(125, named);
    let step =
        home.wrapper(["--wait", "0", "--unavailable-exit", "75", "-e"]).arg(format!("A={reference}")).with(agent);
    step.args(["--", "touch"])
        .arg(&started)
        .end()
        .expect_complaint(if again == Again::MayHelp { 75 } else { 125 }, named);
    assert!(!started.exists());
    home.keyside(["get"]).arg(format!("{secret}.{key}")).with(agent).end().expect_complaint(69, named);
    let check = home.keyside(["check", &reference]).with(agent).end().expect_code(69);
    assert!(check.text().contains("unavailable"), "{}", check.text());
}

/// As [`every_way_says`], for a data base that nothing at all can be read from: the agent lives and is not ready.
fn is_broken(home: &Home, file: &Path, again: Again, named: &[&str]) {
    let config =
        format!("[backend.store]\ntype = \"zenml-sql\"\nurl = \"sqlite:///{}\"\nwritable = true\n", file.display());
    let content = |file: &Path| std::fs::read(file).ok();
    let before = content(file);
    let agent = home.agent().config(&config).start_unready();
    let shown = file.display().to_string();
    let named: Vec<&str> = named.iter().copied().chain([shown.as_str()]).collect();
    every_way_says(home, &agent, "canary", "value", again, &named);
    let mut client = agent.client();
    let not_ready = client.get("/v1/ready").expect_problem(503, "not_ready").json().to_string();
    assert!(not_ready.contains("store"), "{not_ready}");
    client.get("/v1/health").expect(200);
    client.get("/v1/status").expect(200);
    let create = client.post("/v1/secrets", &json!({ "name": "new", "values": { "k": home.canary() } }));
    create.expect_problem(503, "backend_unavailable");
    home.keyside(["ready"]).with(&agent).end().expect_complaint(69, &[]);
    let listed = home.keyside(["secret", "list"]).with(&agent).end();
    assert_eq!(listed.code(), Some(69), "an empty list would be a lie: {}", listed.text());
    assert!(agent.stop().success());
    assert_eq!(content(file), before, "the file was changed");
    let beside = ["-journal", "-wal", "-shm"].map(|suffix| format!("{shown}{suffix}"));
    assert!(beside.iter().all(|file| !Path::new(file).exists()), "something was left beside the data base");
}

#[test]
fn a_file_that_is_no_data_base_is_named() {
    let home = Home::new();
    let garbage =
        "this text is no data base, and it is longer than the hundred bytes at which SQLite looks first of all";
    is_broken(&home, &home.write("garbage.db", garbage), Again::MayHelp, &["not an SQLite data base"]);
}

#[test]
fn a_truncated_data_base_is_named() {
    let home = Home::new();
    let whole = std::fs::read(home.planted().file()).unwrap();
    is_broken(&home, &home.write("truncated.db", &whole[..5000]), Again::MayHelp, &["damaged"]);
}

#[test]
fn a_data_base_with_a_damaged_page_is_named_or_still_serves_the_right_values() {
    let home = Home::new();
    let store = home.planted();
    let mut bytes = std::fs::read(store.file()).unwrap();
    let page = bytes.len() / 4096 - 1;
    bytes[page * 4096..].fill(0xff);
    std::fs::write(store.file(), &bytes).unwrap();
    let agent = home.agent().config(&store.backend("")).start_unready();
    let reply = agent.client().value("canary", "value");
    match reply.status {
        200 => assert_eq!(reply.body, home.canary().as_bytes()),
        _ => drop(reply.expect_problem(503, "backend_unavailable")),
    }
    drop(agent);
    assert!(std::fs::read(store.file()).unwrap() == bytes);
}

#[test]
fn an_empty_file_is_named() {
    let home = Home::new();
    is_broken(&home, &home.write("empty.db", ""), Again::MayHelp, &["empty"]);
}

#[test]
fn a_data_base_of_something_else_is_named() {
    let home = Home::new();
    let file = home.join("other.db");
    let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('CREATE TABLE x (a)'); c.commit()";
    home.python(["-c", script]).arg(&file).end().expect_code(0);
    is_broken(&home, &file, Again::CannotHelp, &["secret"]);
}

#[test]
fn a_directory_where_the_data_base_should_be_is_named() {
    let home = Home::new();
    let directory = home.join("directory.db");
    std::fs::create_dir(&directory).unwrap();
    is_broken(&home, &directory, Again::CannotHelp, &["directory"]);
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0);
}

#[test]
fn a_data_base_that_is_not_there_is_named_and_not_made() {
    let home = Home::new();
    let missing = home.join("missing.db");
    is_broken(&home, &missing, Again::MayHelp, &["does not exist"]);
    assert!(!missing.exists());
}

#[test]
fn a_data_base_that_may_not_be_read_is_named() {
    let home = Home::new();
    let store = home.planted();
    let file = store.file();
    let closed = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    let mut agent = home.agent().config(&store.backend(""));
    if programs::is_root() {
        // Root may read anything, so the agent is somebody else, who may enter the home but not read the file.
        home.give_to(1000);
        std::os::unix::fs::chown(&file, Some(0), Some(0)).unwrap();
        closed(0o600);
        agent = agent.as_user(1000);
    } else {
        closed(0o000);
    }
    let agent = agent.start_unready();
    let shown = file.display().to_string();
    let mut client = match programs::is_root() {
        true => keyside_tests::Client::connect_as(agent.socket(), 1000).recorded(&home),
        false => agent.client(),
    };
    let problem = client.value("canary", "value").expect_problem(503, "backend_unavailable").json();
    assert!(problem["detail"].as_str().unwrap().contains(&shown) && problem["hint"].is_string(), "{problem}");
    let ready = client.get("/v1/ready").expect_problem(503, "not_ready");
    assert!(ready.json().to_string().contains("store"));
    drop(agent);
    closed(0o600);
}

#[test]
fn a_locked_data_base_is_waited_for_and_then_named_and_served_once_it_is_free() {
    let home = Home::new();
    let store = home.planted();
    let lock = store.lock();
    // A stale value would hide the lock; nothing is cached yet.
    let agent =
        home.agent().config(&("[agent]\nrequest_timeout = \"2s\"\n".to_owned() + &store.backend(""))).start_unready();
    let problem = agent.client().value("canary", "value").expect_problem(503, "backend_unavailable");
    assert!(problem.header("retry-after").is_some());
    home.keyside(["get", "canary.value"]).with(&agent).end().expect_complaint(69, &["canary"]);
    drop(lock);
    let (value, _) = keyside_tests::eventually::eventually("the free data base is read", || {
        let reply = agent.client().value("canary", "value");
        (reply.status == 200).then_some(reply.body)
    });
    assert_eq!(value, home.canary().as_bytes());

    // What is known is served on while somebody holds the lock.
    let lock = store.lock();
    agent.client().value("canary", "value").expect(200);
    drop(lock);
}

#[test]
fn a_locked_data_base_is_named_as_locked_when_there_is_time_to_say_so() {
    let home = Home::new();
    let store = home.planted();
    let lock = store.lock();
    let agent = home.agent().config(&store.backend("")).start_unready();
    let shown = store.file().display().to_string();
    let problem = agent.client().value("canary", "value").expect_problem(503, "backend_unavailable").json();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("lock") && detail.contains(&shown) && problem["hint"].is_string(), "{problem}");
    let got = home.keyside(["get", "canary.value"]).with(&agent).end();
    got.expect_complaint(69, &["lock", &shown]);
    drop(lock);
}

/// An encrypted store, read with this key; the agent is up, for plain rows could still be read.
fn with_key<'h>(home: &'h Home, store: &Store<'_>, key: Option<&str>) -> Agent<'h> {
    let keys = if key.is_some() { "encryption_key_env = \"THE_KEY\"" } else { "" };
    let agent = home.agent().config(&store.backend(keys));
    match key {
        Some(key) => agent.env("THE_KEY", key).start_unready(),
        None => agent.start_unready(),
    }
}

#[test]
fn a_wrong_encryption_key_is_named_by_its_setting_and_not_shown() {
    let home = Home::new();
    let store = home.store("0.98.0-enc");
    let before = std::fs::read(store.file()).unwrap();
    // The key itself is a secret: it is the planted value here.
    let agent = with_key(&home, &store, Some(home.canary()));
    every_way_says(
        &home,
        &agent,
        "simple",
        "password",
        Again::CannotHelp,
        &["simple", "encryption_key_env", "THE_KEY"],
    );
    assert!(agent.stop().success());
    assert!(std::fs::read(store.file()).unwrap() == before);
    // With the right one, the same file is served.
    let right = with_key(&home, &store, Some(&Cases::read().encryption_key));
    assert_eq!(right.client().value("simple", "password").expect(200).body, b"abc123");
}

#[test]
fn a_missing_encryption_key_is_named_by_its_setting() {
    let home = Home::new();
    let store = home.store("0.98.0-enc");
    let agent = with_key(&home, &store, None);
    every_way_says(
        &home,
        &agent,
        "simple",
        "password",
        Again::CannotHelp,
        &["simple", "encryption_key_env", "encryption_key_file"],
    );
}

#[test]
fn a_key_variable_that_is_not_set_stops_the_agent_and_names_its_line() {
    let home = Home::new();
    let store = home.store("0.98.0-enc");
    let ended = home.agent().config(&store.backend("encryption_key_env = \"NOT_SET\"")).end();
    ended.expect_complaint(78, &["keyside.toml:4:", "NOT_SET"]);
}

#[test]
fn a_key_where_none_is_needed_hides_no_plain_value() {
    let home = Home::new();
    let store = home.planted();
    let agent =
        home.agent().config(&store.backend("encryption_key_env = \"THE_KEY\"")).env("THE_KEY", "unneeded").start();
    // As ZenML: nothing marks a row as encrypted or plain, so either the value or an error, never a wrong value.
    let reply = agent.client().value("canary", "value");
    match reply.status {
        200 => assert_eq!(reply.body, home.canary().as_bytes()),
        _ => drop(reply.expect_problem(503, "backend_unavailable")),
    }
}

#[test]
fn every_mistake_of_a_configuration_is_named_with_its_place_and_a_suggestion() {
    let home = Home::new();
    let store = home.planted();
    let canary = home.canary().replace('\\', "\\\\").replace('"', "\\\"");
    let config = format!(
        "[agent]\nsockett = \"/x\"\nvalidation_level = \"SOMETIMES\"\n\n{}writeable = true\npassword = \"{canary}\"\n\n[cach]\nttl = \"5m\"\n\n[cache]\nttl = \"5 minutes\"\n",
        store.backend("")
    );
    // The file holds the value that somebody wrote where it does not belong.
    home.holds_values(home.join("mistakes.toml"));
    let path = home.write("mistakes.toml", config);
    let shown = path.display();
    for check in [true, false] {
        let run = home.keyside(["--config"]).arg(&path).arg("agent");
        let ended = if check { run.arg("--check-config").end() } else { run.end() }.expect_code(78);
        let said = ended.text() + &ended.stderr;
        for place in [
            "2:1: unknown key `sockett`",
            "did you mean `socket`?",
            "3:20:",
            "SECRET_AND_KEY_EXISTS",
            "`writable`",
            "table `cach`",
            "`cache`",
        ] {
            assert!(said.contains(place), "`{place}` is not in:\n{said}");
        }
        // A list of places for `--check-config`, errors of the usual form for an agent that does not start.
        let begin = if check { format!("{shown}:") } else { format!("keyside: {shown}:") };
        let places = said.lines().filter(|line| line.starts_with(&begin)).count();
        assert!(places >= 6, "{places} places in:\n{said}");
        assert!(said.contains("hint: "), "{said}");
    }
    let good = home.write("good.toml", store.backend(""));
    home.keyside(["--config"]).arg(good).args(["agent", "--check-config"]).end().expect_code(0);
}

#[test]
fn what_an_agent_would_not_start_with_is_told_by_a_look_at_its_configuration_too() {
    let home = Home::new();
    let missing = home.join("no-such-ca.pem");
    let token = home.write("token", "s.token");
    let config = format!(
        "[agent]\nprecedence = [\"a\", \"b\"]\n[backend.a]\ntype = \"vault\"\nurl = \"https://vault.invalid\"\n\
         token_file = \"{}\"\nca_file = \"{}\"\n[backend.b]\ntype = \"aws\"\nwritable = true\n",
        token.display(),
        missing.display()
    );
    let path = home.write("refused.toml", config);
    let ended = home.keyside(["--config"]).arg(&path).args(["agent", "--check-config"]).end().expect_code(78);
    let said = ended.text() + &ended.stderr;
    for words in ["no-such-ca.pem", "`writable`", "hint: ", "2 back-ends cannot be opened"] {
        assert!(said.contains(words), "`{words}` is not in:\n{said}");
    }
    assert!(!said.contains("back-end `a`: back-end"), "{said}");
}

#[test]
fn a_configuration_that_is_no_toml_is_named_with_its_place_and_not_quoted() {
    let home = Home::new();
    home.holds_values(home.join("broken.toml"));
    let path = home.write("broken.toml", format!("[agent]\nsocket = {} oops\n", home.canary()));
    let ended = home.keyside(["--config"]).arg(&path).arg("agent").end();
    ended.expect_complaint(78, &[&format!("{}:2:", path.display())]);
    let missing = home.join("missing.toml");
    let ended = home.keyside(["--config"]).arg(&missing).arg("agent").end();
    ended.expect_complaint(78, &[missing.to_str().unwrap()]);
    let ended = home.keyside(["--config"]).arg(home.path()).arg("agent").end();
    ended.expect_complaint(78, &[home.path().to_str().unwrap()]);
    let open = home.write("open.toml", home.planted().backend(""));
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o666)).unwrap();
    let ended = home.keyside(["--config"]).arg(&open).arg("agent").end();
    ended.expect_complaint(78, &[open.to_str().unwrap()]);
}

#[test]
fn an_unknown_configuration_variable_is_named() {
    let home = Home::new();
    let store = home.planted();
    let agent = || home.agent().config(&store.backend(""));
    agent().env("KEYSIDE_CACHE__TLL", "5m").end().expect_complaint(78, &["KEYSIDE_CACHE__TLL", "ttl"]);
    agent().env("KEYSIDE_CACHE__TTL", "soon").end().expect_complaint(78, &["KEYSIDE_CACHE__TTL"]);
    // Not configuration: no double underscore.
    agent().env("KEYSIDE_SOMETHING", "else").start();
}

#[test]
fn a_level_that_does_not_exist_is_refused_everywhere_with_the_three_that_do() {
    let home = Home::new();
    let store = home.planted();
    let three = ["NONE", "SECRET_EXISTS", "SECRET_AND_KEY_EXISTS"];
    let agent = home.agent_with(&store.backend(""));
    for level in ["SOMETIMES", "none", "", " NONE", "SECRET_EXISTS "] {
        let check = home.keyside(["check", "--level", level, "canary.value"]).with(&agent).end();
        check.expect_complaint(2, &three);
        let variable = home.keyside(["check", "canary.value"]).env("ZENML_SECRET_VALIDATION_LEVEL", level).with(&agent);
        variable.end().expect_complaint(78, &three);
        let body = json!({ "references": ["canary.value"], "level": level });
        let refused = agent.client().post("/v1/check", &body).expect_problem(400, "invalid_request").json().to_string();
        assert!(three.iter().all(|level| refused.contains(level)), "{refused}");
        let own = home.agent().config(&store.backend("")).env("ZENML_SECRET_VALIDATION_LEVEL", level);
        own.end().expect_complaint(78, &three);
        let own = home.agent().config(&format!("[agent]\nvalidation_level = \"{level}\"\n{}", store.backend("")));
        own.end().expect_complaint(78, &three);
        let step =
            home.wrapper(["--check-only", "-e", "A={{canary.value}}"]).env("ZENML_SECRET_VALIDATION_LEVEL", level);
        step.with(&agent).args(["--", "true"]).end().expect_complaint(125, &three);
    }
}

#[test]
fn a_socket_path_that_is_too_long_is_named_and_nothing_is_made() {
    let home = Home::new();
    let store = home.planted();
    let directory = home.join("d");
    std::fs::create_dir(&directory).unwrap();
    let path_of = |length: usize| {
        let name = length - directory.as_os_str().len() - 1;
        directory.join("s".repeat(name))
    };
    let long = path_of(108);
    let shown = long.to_str().unwrap();
    home.agent().config(&store.backend("")).socket(&long).end().expect_complaint(78, &[shown, "108"]);
    let configured = format!("[agent]\nsocket = \"{shown}\"\n{}", store.backend(""));
    let path = home.write("long.toml", configured);
    home.keyside(["--config"]).arg(&path).arg("agent").end().expect_complaint(78, &["long.toml:2:"]);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    let started = home.join("started");
    let step = home.wrapper(["-e", "A={{canary.value}}", "--socket", shown, "--", "touch"]).arg(&started).end();
    step.expect_complaint(125, &[shown]);
    assert!(!started.exists());
    // One byte less is a socket like any other.
    let agent = home.agent().config(&store.backend("")).socket(path_of(107)).start();
    agent.client().value("canary", "value").expect(200);
}

#[test]
fn two_agents_on_one_path_is_an_error_for_the_second_even_when_both_start_at_once() {
    let home = Home::new();
    let store = home.planted();
    let config = home.write("race.toml", store.backend(""));
    let socket = home.join("race.sock");
    let start = || home.keyside(["--config"]).arg(&config).arg("--socket").arg(&socket).arg("agent").start();
    let mut agents: Vec<_> = (0..5).map(|_| start()).collect();
    keyside_tests::eventually::eventually("one is left", || {
        (agents.iter_mut().filter_map(|agent| agent.is_running().then_some(())).count() == 1).then_some(())
    });
    keyside_tests::Client::connect(&socket).value("canary", "value").expect(200);
    let (winners, losers): (Vec<_>, Vec<_>) =
        agents.into_iter().map(|mut agent| (agent.is_running(), agent)).partition(|(runs, _)| *runs);
    for (_, loser) in losers {
        loser.end().expect_complaint(69, &[socket.to_str().unwrap()]);
    }
    assert!(std::fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    for (_, winner) in winners {
        winner.signal(rustix::process::Signal::TERM);
        winner.end().expect_code(0);
    }
}

#[test]
fn a_malformed_template_is_named_with_its_place_and_nothing_starts() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let started = home.join("started");
    let step = |args: &[&str]| home.wrapper(args).with(&agent).args(["--", "touch"]).arg(&started).end();
    step(&["-e", "A=x {{canary.value"]).expect_complaint(125, &["--env A", "line 1, column 3"]);
    step(&["-f", "a=line\n  {{canary}}"]).expect_complaint(125, &["--file a", "line 2, column 3"]);
    step(&["-F", "A={{canary.value | nofilter}}"]).expect_complaint(125, &["nofilter"]);
    let env_file = home.write("vars.env", "GOOD={{canary.user}}\nBAD={{canary.}}\n");
    step(&["--env-file", env_file.to_str().unwrap()]).expect_complaint(125, &["vars.env", "BAD"]);
    let template = home.write("template", "user = {{canary.user}}\npassword = {{canary value}}\n");
    let source = format!("out={}", template.display());
    step(&["--template", &source]).expect_complaint(125, &["out", "line 2, column 12"]);
    assert!(!started.exists());
    // All at once.
    let all = step(&["-e", "A={{x", "-e", "B={{y", "-f", "c={{z"]).expect_code(125);
    assert!(["--env A", "--env B", "--file c"].iter().all(|name| all.stderr.contains(name)), "{}", all.stderr);
    let reply =
        agent.client().post("/v1/resolve", &json!({ "templates": { "a": "{{canary.value", "b": "{{canary.user}}" } }));
    let failures = reply.expect_problem(422, "unresolved").json()["failures"].clone();
    assert_eq!(failures.as_array().unwrap().len(), 1);
    assert_eq!(failures[0]["code"], "invalid_reference");
    let lenient = home.wrapper(["--lenient", "--template", &source]).with(&agent).prints_values();
    let lenient = lenient.args(["--", "sh", "-c", "cat $KEYSIDE_FILES/out"]).end().expect_code(0);
    assert_eq!(lenient.text(), "user = admin\npassword = {{canary value}}\n");
}

#[test]
fn a_wrong_command_line_is_refused_with_a_hint() {
    let home = Home::new();
    for args in [
        &["no-such-command"][..],
        &[],
        &["agent", "--no-such-flag"],
        &["--socket"],
        &["get"],
        &["check"],
        &["secret"],
        &["secret", "create", "x"],
        &["secret", "create", "x", "--password"],
        &["ready", "--wait", "soon"],
        &["doctor", "x"],
        &["status", "--watch", "--format", "xml"],
        &["watch"],
        &["watch", "db", "--format", "yaml"],
    ] {
        home.keyside(args.iter().copied()).end().expect_complaint(2, &[]);
    }
    for later in ["stack", "manager", "completions", "man"] {
        home.keyside([later, "x"]).end().expect_complaint(2, &[later, "not in this version"]);
    }
    for args in [&["--no-such-flag", "--", "true"][..], &["--mask", "--", "true"], &["--init", "always", "--", "true"]]
    {
        home.wrapper(args.iter().copied()).end().expect_complaint(125, &[args[0]]);
        home.keyside(["exec"]).args(args.iter().copied()).end().expect_complaint(125, &[args[0]]);
    }
    for action in ["rewrite", "restart", "signal:HUP"] {
        home.wrapper(["--on-change", action, "--", "true"]).end().expect_complaint(125, &["--on-change"]);
    }
    home.wrapper([] as [&str; 0]).end().expect_complaint(125, &[]);
}
