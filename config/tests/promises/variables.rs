//! `KEYSIDE_TABLE__KEY`: over the file, under the flags.

use keyside_config::settings::{BackendKind, Poll};

use crate::scene::{Scene, assert_holds};

#[test]
fn a_variable_lies_over_the_file_and_the_flag_over_both() {
    let mut scene =
        Scene::with_backend_and("[agent]\nsocket = \"/run/file.sock\"\n[cache]\nttl = \"1m\"\npoll = \"off\"\n")
            .variable("KEYSIDE_CACHE__TTL", "2m")
            .variable("KEYSIDE_AGENT__SOCKET", "/run/variable.sock");
    let settings = scene.load();
    assert_eq!((settings.cache.ttl.as_secs(), settings.cache.poll), (120, Poll::Off));
    assert_eq!(settings.agent.listeners[0].path.to_str(), Some("/run/variable.sock"));
    assert_holds(&settings.sources[1], &["KEYSIDE_AGENT__SOCKET, KEYSIDE_CACHE__TTL"]);
    scene.socket = Some("/run/flag.sock".into());
    assert_eq!(scene.load().agent.listeners[0].path.to_str(), Some("/run/flag.sock"));
}

#[test]
fn variables_alone_make_a_whole_back_end() {
    let settings = Scene::new()
        .variable("KEYSIDE_BACKEND__STORE__TYPE", "zenml-sql")
        .variable("KEYSIDE_BACKEND__STORE__URL", "sqlite:////srv/zenml.db")
        .variable("KEYSIDE_BACKEND__STORE__WRITABLE", "true")
        .variable("KEYSIDE_BACKEND__STORE__PARALLELISM", "3")
        .load();
    let backend = &settings.backends[0];
    assert_eq!((backend.name.as_str(), backend.writable, backend.parallelism), ("store", true, 3));
}

#[test]
fn names_match_in_lower_case_with_dashes_for_underscores() {
    let scene = Scene::with_config("[backend.My-Store]\ntype = \"zenml-sql\"\nurl = \"sqlite:////a.db\"\n")
        .variable("KEYSIDE_BACKEND__MY_STORE__URL", "sqlite:////b.db")
        .variable("KEYSIDE_CACHE__MAX-STALE", "2h");
    let settings = scene.load();
    assert_eq!(settings.backends.len(), 1);
    let BackendKind::ZenmlSql(sql) = &settings.backends[0].kind else { panic!("not zenml-sql") };
    assert_eq!((settings.backends[0].name.as_str(), sql.database.file()), ("My-Store", Some("/b.db".as_ref())));
    assert_eq!(settings.cache.max_stale.as_secs(), 7200);
}

#[test]
fn a_variable_that_may_mean_two_tables_means_neither() {
    let one = |name: &str| format!("[backend.{name}]\ntype = \"zenml-sql\"\nurl = \"sqlite:////a.db\"\n");
    let scene = Scene::with_config(&format!("[agent]\nprecedence = [\"a-b\", \"a_b\"]\n{}{}", one("a-b"), one("a_b")))
        .variable("KEYSIDE_BACKEND__A_B__TTL", "1m");
    assert_holds(&scene.mistake(), &["variable KEYSIDE_BACKEND__A_B__TTL: ", "`a-b` and `a_b`"]);
}

#[test]
fn the_keys_type_decides_how_a_variable_is_read() {
    let settings = Scene::with_backend_and("")
        .variable("KEYSIDE_CACHE__MAX_BYTES", "1024")
        .variable("KEYSIDE_CACHE__JITTER", "0")
        .variable("KEYSIDE_AGENT__PRECEDENCE", "[\"store\"]")
        .variable("KEYSIDE_AGENT__SOCKET_GROUP", "0")
        .variable("KEYSIDE_GRANT__G__UID", "[1, 2]")
        .variable("KEYSIDE_GRANT__G__USER", "root")
        .variable("KEYSIDE_GRANT__G__READ", "[{ secret = \"a\", keys = [\"b\"] }]")
        .variable("KEYSIDE_EXEC__ENV", "{ A = \"{{a.b}}\" }")
        .variable("KEYSIDE_PROFILE__CI", "{ pristine = true }")
        .load();
    assert_eq!(settings.cache.max_bytes, 1024);
    assert!(settings.cache.jitter.abs() < f64::EPSILON);
    assert_eq!(settings.agent.socket_group.as_deref(), Some("0"));
    assert_eq!(settings.grants[0].uids, [1, 2, 0]);
    assert_eq!(settings.grants[0].read[0].keys.as_deref(), Some(&["b".to_owned()][..]));
    assert_eq!(settings.exec.env.expect("a table")["A"], "{{a.b}}");
    assert_eq!(settings.profiles["ci"].pristine, Some(true));
}

#[test]
fn a_table_in_a_variable_merges_and_a_list_replaces() {
    let settings = Scene::with_backend_and("[exec]\nenv = { A = \"1\", B = \"1\" }\nsecret = [\"x\", \"y\"]\n")
        .variable("KEYSIDE_EXEC__ENV", "{ B = \"2\" }")
        .variable("KEYSIDE_EXEC__SECRET", "[\"z\"]")
        .load();
    let env = settings.exec.env.expect("a table");
    assert_eq!((env["A"].as_str(), env["B"].as_str()), ("1", "2"));
    assert_eq!(settings.exec.secret.as_deref(), Some(&["z".to_owned()][..]));
}

#[test]
fn a_variable_that_is_no_toml_value_of_its_type_is_a_mistake_and_is_not_quoted() {
    for (variable, value, part) in [
        ("KEYSIDE_AGENT__PRECEDENCE", "canary,b", "a list of texts"),
        ("KEYSIDE_BACKEND__STORE__WRITABLE", "canary", "true or false"),
        ("KEYSIDE_LIMITS__ENTRIES", "1\nconnections_per_uid = 5 # canary", "an integer from 1"),
        ("KEYSIDE_GRANT__G", "canary", "KEYSIDE_GRANT__NAME__KEY"),
    ] {
        let mistake = Scene::with_backend_and("").variable(variable, value).mistake();
        assert_holds(&mistake, &[&format!("variable {variable}: "), part]);
        assert!(!mistake.contains("canary"), "{mistake}");
    }
}

#[test]
fn an_unknown_table_or_key_in_a_variable_is_a_mistake_with_a_suggestion() {
    let mistake = |variable: &str| Scene::with_backend_and("").variable(variable, "x").mistake();
    assert_holds(&mistake("KEYSIDE_CACHE__TLL"), &["variable KEYSIDE_CACHE__TLL: ", "did you mean `ttl`?"]);
    assert_holds(&mistake("KEYSIDE_CACH__TTL"), &["unknown table `cach`; did you mean `cache`?"]);
    assert_holds(&mistake("KEYSIDE_SNAPSHOT__PATH"), &["`[snapshot]` is not supported in this version yet"]);
    assert_holds(
        &mistake("KEYSIDE_BACKEND__STORE__ULR"),
        &["unknown key `ulr` in [backend.store]; did you mean `url`?"],
    );
    assert_holds(&mistake("KEYSIDE_BACKEND____URL"), &["1 to 64 characters"]);
}

#[test]
fn two_variables_for_one_key_are_one_too_many() {
    let scene = Scene::with_backend_and("")
        .variable("KEYSIDE_CACHE__MAX_STALE", "1h")
        .variable("KEYSIDE_CACHE__max-stale", "2h");
    assert_holds(&scene.mistake(), &["variable KEYSIDE_CACHE__max-stale: ", "after variable KEYSIDE_CACHE__MAX_STALE"]);
}

#[test]
fn a_variable_without_a_double_underscore_is_no_configuration() {
    Scene::with_backend_and("")
        .variable("KEYSIDE_CACHE_TTL", "nonsense")
        .variable("KEYSIDE_PORT_8080_TCP", "tcp://10.0.0.1:8080")
        .variable("KEYSIDE__TTL", "nonsense")
        .variable("OTHER__TTL", "nonsense")
        .load();
}

#[test]
fn one_more_name_sets_one_text_of_a_table_as_the_wrapper_takes_it() {
    let scene =
        Scene::with_backend_and("[exec]\nenv = { A = \"file\", B = \"file\" }\n[profile.my-ci]\npristine = true\n")
            .variable("KEYSIDE_EXEC__ENV__B", "{{db.user}}")
            .variable("KEYSIDE_EXEC__env__Mixed__Case", "x")
            .variable("KEYSIDE_EXEC__TEMPLATE", "{ a = \"t\" }")
            .variable("KEYSIDE_EXEC__TEMPLATE__B", "u")
            .variable("KEYSIDE_PROFILE__MY_CI__FILE_ENV__PW", "{{db.password}}")
            .variable("KEYSIDE_PROFILE__NEW__ENV__X", "1");
    let settings = scene.load();
    let env = settings.exec.env.expect("a table");
    let env: Vec<_> = env.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(env, [("A", "file"), ("B", "{{db.user}}"), ("Mixed__Case", "x")]);
    assert_eq!(settings.exec.template.expect("a table").len(), 2);
    assert_eq!(settings.profiles["my-ci"].file_env.as_ref().expect("a table")["PW"], "{{db.password}}");
    assert_eq!(settings.profiles["my-ci"].pristine, Some(true));
    assert_eq!(settings.profiles["new"].env.as_ref().expect("a table")["X"], "1");
    for (variable, value, part) in [
        ("KEYSIDE_EXEC__ENV__B", "{{db", "malformed template under `B`"),
        ("KEYSIDE_EXEC__ENV__", "x", "unknown key `env__`"),
        ("KEYSIDE_EXEC__WAIT__X", "x", "unknown key `wait__x`"),
        ("KEYSIDE_CACHE__TTL__X", "x", "unknown key `ttl__x`"),
    ] {
        let mistake = Scene::with_backend_and("").variable(variable, value).mistake();
        assert_holds(&mistake, &[&format!("variable {variable}: "), part]);
    }
    let twice = Scene::with_backend_and("").variable("KEYSIDE_EXEC__ENV__A", "1").variable("KEYSIDE_EXEC__env__A", "2");
    assert_holds(&twice.mistake(), &["sets `A` a second time, after variable KEYSIDE_EXEC__ENV__A"]);
}
