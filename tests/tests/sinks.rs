//! What is refused may be a value, or may stand beside one: nothing of it is quoted anywhere. (That no value stands in any
//! log, at trace level, is part of the end of every scenario.)

use keyside_tests::Home;

/// Texts that no parser takes, each with the planted value where the fault is and before it.
fn broken(canary: &str) -> Vec<(&'static str, String)> {
    vec![
        ("open.yaml", format!("a: \"{canary}\nb: [{canary}}}\n")),
        ("alias.yaml", format!("a: &x {canary}\nb: *{canary}\n")),
        ("tag.yaml", format!("a: !!int {canary}\n")),
        ("deep.yaml", format!("a: {{b: {{c: {canary}}}}}\n")),
        ("bare.json", format!("{{\"a\": \"{canary}\", \"b\": {canary}}}")),
        ("deep.json", format!("{{\"a\": {{\"deep\": \"{canary}\"}}}}")),
        ("list.json", format!("[\"{canary}\"]")),
        ("open.toml", format!("[exec]\nenv = {{ A = \"{canary}\", B = {canary} x }}\n")),
        ("open.env", format!("A=\"{canary}\nB={canary} y\n")),
    ]
}

#[test]
fn input_that_cannot_be_read_is_refused_without_a_word_of_it() {
    let home = Home::new();
    // Without quotes and line ends, which would end a text before its fault.
    let canary = home.canary().replace(['"', '\\'], "-");
    home.watch_for(&canary);
    let agent = home.agent_with(&home.planted().backend("writable = true"));
    for (name, text) in broken(&canary) {
        let file = home.write(name, &text);
        home.holds_values(&file);
        let path = file.display().to_string();
        for args in [
            vec!["check", "--file", &path],
            vec!["secret", "create", "new", "-v", &format!("@{path}")],
            vec!["secret", "create", "new", "--values", &text],
            vec!["exec", "--env-file", &path, "--", "true"],
        ] {
            let ended = home.keyside(&args).with(&agent).end();
            // Some texts are well-formed for one reader: what counts is that nobody repeats them.
            assert!(ended.signal().is_none(), "{args:?}: {ended:?}");
        }
        drop(home.wrapper(["--env-file", &path, "--", "true"]).with(&agent).end());
    }
    // The variables of [exec] may be literals.
    let configuration = home.join("open.toml").display().to_string();
    for args in [["agent", "--check-config"], ["exec", "true"]] {
        home.keyside(["--config", &configuration]).args(args).with(&agent).end();
    }
}

#[test]
fn a_login_that_stands_where_it_should_not_is_refused_without_being_shown() {
    let home = Home::new();
    let canary: String = home.canary().chars().filter(char::is_ascii_alphanumeric).collect();
    let backend = "[backend.s]\ntype = \"zenml-sql\"\n";
    for text in [
        format!("{backend}url = \"sqlite:////x\"\nencryption_key = \"{canary}\"\n"),
        format!("{backend}url = \"sqlite:////x\"\nencryption_key_env = {canary}\n"),
        format!("{backend}url = \"mysql://user:{canary}@host/db\"\n"),
        format!("{backend}url = \"{canary}\"\n"),
    ] {
        let file = home.write("keyside.toml", text);
        home.holds_values(&file);
        home.keyside(["--config", &file.display().to_string(), "agent", "--check-config"]).end().expect_code(78);
    }
    for (name, value) in [
        ("KEYSIDE_BACKEND__S__ENCRYPTION_KEY", canary.clone()),
        // A login may stand there, and a data base must.
        ("ZENML_STORE_URL", format!("mysql://user:{canary}@host")),
        ("ZENML_STORE_URL", format!("https://user:{canary}@host")),
    ] {
        home.keyside(["agent", "--check-config"]).env(name, value).end().expect_code(78);
    }
}
