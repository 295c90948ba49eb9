//! Every mistake at once, each with its place and what to write instead.

use crate::scene::{BACKEND, Scene, assert_holds};

fn check(text: &str, expected: &[&str]) {
    assert_holds(&Scene::with_backend_and(text).mistake(), expected);
}

#[test]
fn an_unknown_key_gets_its_place_and_the_nearest_known_key() {
    check("[cache]\n  tll = \"5m\"\n", &["keyside.toml:2:3: unknown key `tll` in [cache]; did you mean `ttl`?"]);
    check("[agent]\nprecedense = []\n", &["keyside.toml:2:1: ", "did you mean `precedence`?"]);
    check("[agent]\npoll_interval = \"1s\"\n", &["unknown key `poll_interval` in [agent]; it belongs in [cache]"]);
    check("[audit]\nzebra = 1\n", &["unknown key `zebra` in [audit]; there are path, required"]);
}

#[test]
fn an_unknown_table_gets_its_place_and_the_nearest_known_table() {
    check("[cahce]\nttl = \"5m\"\n", &["keyside.toml:1:2: unknown table `cahce`; did you mean `cache`?"]);
    check("[grants.x]\nuid = [1]\n", &["unknown table `grants`; did you mean `grant`?"]);
    check("[elephant]\n", &["unknown table `elephant`; there are agent, listener"]);
    check(
        "max_stale = \"5m\"\n",
        &["keyside.toml:1:1: unknown key `max_stale` outside of any table; it belongs in [cache]"],
    );
}

#[test]
fn a_duplicate_key_or_table_is_a_mistake_and_hides_no_other() {
    let mistakes =
        Scene::with_backend_and("[cache]\nttl = \"1m\"\nttl = \"2m\"\n[limits]\nvalu = \"1MiB\"\n").mistakes();
    assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
    assert_eq!(mistakes[0], "keyside.toml:3:1: duplicate key `ttl`; keep one of them");
    assert_holds(&mistakes[1], &["keyside.toml:5:1: ", "did you mean `value`?"]);
    check("[cache]\n[limits]\n[cache]\n", &["keyside.toml:3:", "duplicate key"]);
}

#[test]
fn every_mistake_is_reported_at_once_in_the_order_of_the_file() {
    let scene = Scene::with_config(
        "[agent]\nsocket = \"run/x.sock\"\nvalidation_level = \"all\"\n[cache]\nttl = 5\njitter = 1.5\n\
         [backend.a]\ntype = \"zenml-sql\"\n[grant.g]\nuid = [65534]\nread = [1]\n[snapshot]\npath = \"/x\"\n",
    )
    .variable("KEYSIDE_LIMITS__VALUE", "much");
    let places: Vec<String> =
        scene.mistakes().iter().map(|mistake| mistake.split(": ").next().expect("a place").to_owned()).collect();
    let expected: Vec<String> = [(2, 10), (3, 20), (5, 7), (6, 10), (7, 10), (10, 8), (11, 9), (12, 2)]
        .iter()
        .map(|(line, column)| format!("keyside.toml:{line}:{column}"))
        .chain(["variable KEYSIDE_LIMITS__VALUE".to_owned()])
        .collect();
    assert_eq!(places, expected);
}

#[test]
fn a_value_of_the_wrong_type_says_which_type_is_right() {
    check("[cache]\nttl = 300\n", &["keyside.toml:2:7: `ttl` in [cache] must be a duration", "not an integer"]);
    check("[limits]\nentries = \"many\"\n", &["must be an integer from 1 to", "not a text"]);
    check("[audit]\nrequired = \"yes\"\n", &["must be true or false, not a text"]);
    check("[agent]\nprecedence = \"store\"\n", &["must be a list of texts"]);
    check("[exec]\nenv = [\"A=b\"]\n", &["`env` in [exec] must be a table of templates, not a list"]);
    check("[exec]\nenv = { A = 1 }\n", &["keyside.toml:2:13: ", "`A`, which must be a text, not an integer"]);
    check("cache = 1\n", &["keyside.toml:1:9: [cache] must be a table, not an integer"]);
    check("[grant]\nuid = [1]\n", &["[grant] holds only tables of its own: [grant.NAME], but `uid` is a list"]);
}

#[test]
fn a_value_out_of_its_range_is_a_mistake() {
    for (text, part) in [
        ("[cache]\njitter = 1.5\n", "a number from 0 to 1"),
        ("[cache]\njitter = nan\n", "a number from 0 to 1"),
        ("[cache]\nmax_bytes = 0\n", "larger than 0"),
        ("[cache]\nmax_bytes = -1\n", "must be a size"),
        ("[cache]\nmax_bytes = \"64 megabytes\"\n", "`64 megabytes` is none"),
        ("[cache]\npoll_interval = \"0\"\n", "longer than 0"),
        ("[cache]\nttl = \"5 minutes\"\n", "`5 minutes` is none"),
        ("[cache]\npoll = \"sometimes\"\n", "known are \"auto\", \"on\", \"off\""),
        ("[limits]\nentries = 99999999999999999999999999999999999999999999\n", "an integer from 1 to"),
        ("[agent]\nrequest_timeout = \"0s\"\n", "longer than 0"),
        ("[exec]\nunavailable_exit = 256\n", "an integer from 1 to 255"),
        // The wrapper's own rule: 0 would say that all is well.
        ("[exec]\nunavailable_exit = 0\n", "an integer from 1 to 255"),
        ("[exec]\nuser = \"alice\"\n", "UID or UID:GID"),
        ("[exec]\non_change = [\"signal:\"]\n", "signal:SIG"),
        ("[profile.x]\nfiles = \"disk\"\n", "known are \"auto\", \"private\", \"dir\", \"memfd\""),
    ] {
        check(text, &["keyside.toml:2:", part]);
    }
}

#[test]
fn a_level_that_does_not_exist_lists_the_three_that_do() {
    for level in ["", "none", "SECRET_AND_KEY"] {
        check(
            &format!("[agent]\nvalidation_level = \"{level}\"\n"),
            &["keyside.toml:2:20: ", "NONE, SECRET_EXISTS, SECRET_AND_KEY_EXISTS"],
        );
    }
}

#[test]
fn a_socket_path_must_be_absolute_and_short() {
    let longest = format!("/{}", "s".repeat(106));
    assert_eq!(Scene::with_backend_and(&format!("[agent]\nsocket = \"{longest}\"")).load().agent.listeners.len(), 1);
    check(
        &format!("[agent]\nsocket = \"{longest}s\"\n"),
        &["keyside.toml:2:10: ", "shorter than 108 bytes", "has 108"],
    );
    check("[agent]\nsocket = \"agent.sock\"\n", &["must be absolute, `agent.sock` is not"]);
    check("[agent]\nsocket = \"\"\n", &["is empty"]);
    check("[listener.x]\npath = \"x.sock\"\n", &["keyside.toml:2:8: `path` in [listener.x]", "must be absolute"]);
    let mut scene = Scene::with_backend_and("");
    scene.socket = Some(format!("{longest}s").into());
    assert_holds(&scene.mistake(), &["--socket or KEYSIDE_SOCKET: ", "shorter than 108 bytes"]);
}

#[test]
fn a_mode_is_an_octal_text_of_permission_bits() {
    for mode in ["0o600", "1777", "888", "", "-600", "+600", "rw-------"] {
        check(&format!("[agent]\nsocket_mode = \"{mode}\"\n"), &["octal text"]);
    }
    check("[agent]\nsocket_mode = 600\n", &["octal text", "not an integer"]);
}

#[test]
fn tables_and_keys_of_later_versions_are_refused_with_their_place() {
    for (table, rest) in
        [("snapshot", ""), ("compat", ""), ("schema", ".warehouse"), ("compat", ".key.step"), ("check", "")]
    {
        check(
            &format!("[{table}{rest}]\n"),
            &["keyside.toml:1:2: ", &format!("`[{table}]` is not supported in this version yet")],
        );
    }
    check(
        "[listener.x]\npath = \"/run/x\"\nauth = \"k8s-token\"\n",
        &["keyside.toml:3:8: `auth` = \"k8s-token\" in [listener.x] is not supported in this version yet"],
    );
    for key in ["k8s_namespace", "k8s_serviceaccount"] {
        check(
            &format!("[grant.x]\n{key} = [\"/usr/bin/python3\"]\n"),
            &[&format!("keyside.toml:2:1: `{key}` in [grant.x] is not supported in this version yet")],
        );
    }
}

#[test]
fn a_type_that_only_zenml_has_is_refused_by_name() {
    for (word, why) in [
        ("github", "GitHub hands the secrets of that secrets manager of ZenML's to GitHub Actions alone"),
        ("custom", "ZenML loads a class of Python for it; a \"plugin\""),
        ("hashicorp", "ZenML's word for \"vault\""),
        ("sql", "ZenML's word for \"zenml-sql\""),
        ("rest", "ZenML's word for \"zenml-server\""),
    ] {
        let mistake = Scene::with_config(&format!("[backend.x]\ntype = \"{word}\"\n")).mistake();
        let title = format!("keyside.toml:2:8: `type` = \"{word}\" in [backend.x] has no meaning here: ");
        assert_holds(&mistake, &[&title, why]);
    }
}

#[test]
fn an_unknown_type_lists_the_known_ones() {
    let mistake = Scene::with_config("[backend.x]\ntype = \"zenml_sql\"\nurl = \"sqlite:////x.db\"\n").mistake();
    assert_holds(&mistake, &["keyside.toml:2:8: unknown `type` \"zenml_sql\" in [backend.x]"]);
    assert_holds(&mistake, &["\"zenml-sql\"", "\"vault\"", "\"plugin\"", "did you mean \"zenml-sql\"?"]);
    let mistake = Scene::with_config("[backend.x]\nurl = \"sqlite:////x.db\"\n").mistake();
    assert_eq!(mistake, "keyside.toml:1:10: [backend.x] has no `type`");
}

#[test]
fn a_zenml_sql_back_end_needs_the_absolute_url_of_a_file_or_a_server() {
    for (url, part) in
        [("sqlite:///canary.db", "relative"), ("postgres://u:canary@db/x", "scheme"), ("/srv/canary.db", "no URL")]
    {
        let text = format!("[backend.x]\ntype = \"zenml-sql\"\nurl = \"{url}\"\n");
        let mistake = Scene::with_config(&text).mistake();
        assert_holds(&mistake, &["keyside.toml:3:7: `url` in [backend.x]: ", part, "sqlite:////"]);
        assert!(!mistake.contains("canary"), "{mistake}");
    }
    let mistake = Scene::with_config("[backend.x]\ntype = \"zenml-sql\"\n").mistake();
    assert_eq!(mistake, "keyside.toml:1:10: [backend.x] has no `url`");
}

#[test]
fn a_secret_written_inline_is_refused_unquoted_and_names_the_right_keys() {
    for (key, instead) in [
        ("encryption_key", "encryption_key_env"),
        ("encryption_key", "encryption_key_file"),
        ("password", "password_env"),
        ("api_key", "api_key_file"),
        ("token", "token_credential"),
    ] {
        let mistake = Scene::with_config(&format!("{BACKEND}{key} = \"canary\"\n")).mistake();
        assert_holds(&mistake, &["keyside.toml:4:1: ", &format!("`{key}`"), &format!("`{instead}`")]);
        assert!(!mistake.contains("canary"), "{mistake}");
    }
    let scene = Scene::with_backend_and("").variable("KEYSIDE_BACKEND__STORE__ENCRYPTION_KEY", "canary");
    let mistake = scene.mistake();
    assert_holds(&mistake, &["variable KEYSIDE_BACKEND__STORE__ENCRYPTION_KEY: ", "encryption_key_env"]);
    assert!(!mistake.contains("canary"), "{mistake}");
}

#[test]
fn broken_toml_is_placed_and_never_quoted() {
    for text in [
        "[backend.x]\nencryption_key = \"canary\n",
        "[backend.x]\nencryption_key = canary\n",
        "[backend.x]\nencryption_key = canary-123\n",
        "[backend.x]\nencryption_key = 2026-13-99canary\n",
        "[backend.x]\nencryption_key = [\"canary\"\n",
        "[backend.x]\nencryption_key \"canary\"\n",
    ] {
        let mistakes = Scene::with_config(text).mistakes();
        assert_holds(&mistakes[0], &["keyside.toml:"]);
        assert!(mistakes.iter().any(|mistake| mistake.contains("this is not TOML")), "{mistakes:?}");
        for mistake in mistakes {
            assert!(!mistake.contains("canary") || mistake.contains("unknown key"), "{text}: {mistake}");
        }
    }
}

#[test]
fn two_back_ends_need_a_precedence_that_names_each_once() {
    let two = "[backend.a]\ntype = \"zenml-sql\"\nurl = \"sqlite:////a.db\"\n\
               [backend.b]\ntype = \"zenml-sql\"\nurl = \"sqlite:////b.db\"\n";
    let mistake = Scene::with_config(two).mistake();
    assert_holds(&mistake, &["keyside.toml:4:10: ", "precedence = [\"a\", \"b\"]"]);
    for (precedence, parts) in [
        ("[\"b\"]", &["keyside.toml:8:14: ", "leaves out `a`"][..]),
        ("[\"b\", \"a\", \"b\"]", &["keyside.toml:8:25: ", "names `b` twice"]),
        ("[\"b\", \"a\", \"bb\"]", &["keyside.toml:8:25: ", "`bb`, which is no back-end"]),
    ] {
        let scene = Scene::with_config(&format!("{two}[agent]\nprecedence = {precedence}\n"));
        assert_holds(&scene.mistake(), parts);
    }
    let settings = Scene::with_config(&format!("{two}[agent]\nprecedence = [\"b\", \"a\"]\n")).load();
    let names: Vec<&str> = settings.backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
}

#[test]
fn a_grant_names_somebody_who_exists() {
    check("[grant.x]\nread = [\"*\"]\n", &["keyside.toml:1:8: [grant.x] names nobody"]);
    check("[grant.x]\nuid = []\n", &["[grant.x] names nobody"]);
    check(
        "[grant.x]\nuser = [\"root\", \"no-such-user-here\"]\n",
        &["keyside.toml:2:17: ", "`no-such-user-here`", "there is no user of this name"],
    );
    check("[grant.x]\ngroup = \"no-such-group-here\"\n", &["keyside.toml:2:9: ", "there is no group of this name"]);
    for id in ["-1", "4294967295", "99999999999999999999999", "\"root\"", "1.5"] {
        check(&format!("[grant.x]\nuid = [{id}]\n"), &["keyside.toml:2:8: ", "numeric ids"]);
    }
}

#[test]
fn a_program_or_cgroup_in_a_grant_is_a_path_as_the_kernel_shows_it() {
    for key in ["exe", "cgroup"] {
        for wrong in ["", "python3", "/", "/usr/bin/", "/usr//bin/x", "/usr/./bin/x", "/usr/../bin/x", "/a\\nb"] {
            check(
                &format!("[grant.x]\nuid = 1\n{key} = \"{wrong}\"\n"),
                &["keyside.toml:3:", &format!("`{key}` in [grant.x] must be the ")],
            );
        }
        // Not the same as left out, which would mean any.
        check(&format!("[grant.x]\nuid = 1\n{key} = []\n"), &["keyside.toml:3:", "is an empty list; leave it out"]);
        check(&format!("[grant.x]\nuid = []\n{key} = \"/a/b\"\n"), &["[grant.x] names nobody"]);
        check(&format!("[grant.x]\n{key} = 1\n"), &["or a list of them, not an integer"]);
    }
}

#[test]
fn metrics_are_served_at_a_number_and_never_at_a_name_or_a_port_of_chance() {
    for wrong in ["localhost:9464", "127.0.0.1", "127.0.0.1:0", ":9464", "0.0.0.0:65536", "9464", "", "http://[::1]:1"]
    {
        check(
            &format!("[metrics]\nlisten = \"{wrong}\"\n"),
            &["keyside.toml:2:10: `listen` in [metrics] must be an IP address with a port other than 0, such as"],
        );
    }
    check("[metrics]\nlisten = 9464\n", &["keyside.toml:2:10: ", "not an integer"]);
    check("[metrics]\nport = 9464\n", &["unknown key `port` in [metrics]; there are listen"]);
}

#[test]
fn a_grant_that_names_the_id_of_all_strangers_is_a_mistake() {
    for key in ["uid", "gid"] {
        check(
            &format!("[grant.x]\n{key} = [1000, 65534]\n"),
            &["keyside.toml:2:14: ", "names id 65534", "satisfies no grant"],
        );
    }
}

#[test]
fn a_pattern_is_a_name_or_a_secret_with_keys() {
    for (pattern, part) in [
        ("\"\"", "an empty name"),
        ("{ keys = [\"a\"] }", "without `secret`"),
        ("{ secret = \"a\", keys = [] }", "leave `keys` out"),
        ("{ secret = \"a\", key = [\"b\"] }", "did you mean `keys`?"),
        ("{ secret = \"a\", keys = [\"\"] }", "a list of texts"),
        ("\"a\\nb\"", "control character"),
        ("1", "a list of names"),
    ] {
        check(&format!("[grant.x]\nuid = [1]\nread = [{pattern}]\n"), &["keyside.toml:3:", part]);
    }
}

#[test]
fn a_listener_names_grants_that_exist_and_a_path_of_its_own() {
    check(
        "[grant.team-a]\nuid = [1]\n[listener.l]\npath = \"/run/l\"\ngrants = [\"team_a\"]\n",
        &["keyside.toml:5:11: ", "there is no [grant.team_a]; did you mean `team-a`?"],
    );
    check(
        "[agent]\nsocket = \"/run/l\"\n[listener.l]\npath = \"/run/l\"\n",
        &["keyside.toml:4:8: ", "same `path` as `agent`"],
    );
    check("[listener.l]\nmode = \"0600\"\n", &["keyside.toml:1:11: [listener.l] has no `path`"]);
    check("[listener.agent]\npath = \"/run/l\"\n", &["the name `agent` stands for"]);
    check(
        "[listener.l]\npath = \"/run/l\"\ngroup = \"no-such-group-here\"\n",
        &["keyside.toml:3:9: ", "no group of this name"],
    );
}

#[test]
fn a_required_audit_needs_a_path() {
    check("[audit]\nrequired = true\n", &["keyside.toml:2:12: `required` in [audit] needs a `path`"]);
    check("[audit]\npath = \"audit.jsonl\"\n", &["keyside.toml:2:8: ", "an absolute path"]);
}

#[test]
fn a_mistake_stays_on_one_line_whatever_a_name_holds() {
    let scene = Scene::with_backend_and("[cache]\n\"a\\nkeyside: all is well\\u001b[2J\" = 1\n");
    let mistake = scene.mistake();
    assert_holds(&mistake, &["a\\nkeyside", "\\u{1b}"]);
}

#[test]
fn every_mistake_has_a_hint_and_equal_ones_are_said_once() {
    let hints = |scene: &Scene| -> Vec<Option<String>> {
        let Err(error) = scene.try_load() else { panic!("no mistake was found") };
        error.mistakes.into_iter().map(|mistake| mistake.hint).collect()
    };
    let hints_of = hints(&Scene::with_backend_and("[cache]\ntll = 1\nttl = 1\n"));
    assert!(matches!(hints_of.as_slice(), [None, Some(_)]), "{hints_of:?}");
    let missing = Scene::new();
    let path = missing.path("missing.toml");
    let mut long_socket = Scene::with_backend_and("");
    long_socket.socket = Some(format!("/{}", "s".repeat(108)).into());
    for scene in [
        Scene::with_backend_and("[agent\n"),
        Scene::with_backend_and("[agent]\nvalidation_level = \"\"\n"),
        Scene::with_backend_and("").variable("ZENML_SECRET_VALIDATION_LEVEL", "all"),
        Scene::new(),
        missing.config(&path),
        long_socket,
    ] {
        assert!(hints(&scene).last().expect("a mistake").is_some(), "{:?}", scene.mistakes());
    }
}

#[test]
fn a_malformed_template_is_placed_and_a_sound_one_passes() {
    Scene::with_backend_and("[exec]\nenv = { A = \"x{{ db.password | url }}\", B = \"plain\" }\n").load();
    check(
        "[exec]\nenv = { A = \"x{{ db.password\" }\n",
        &["keyside.toml:2:13: `env` in [exec] holds a malformed template under `A`, at its line 1, column 2"],
    );
    check("[profile.ci]\nfile = { A = \"{{db.password | rot13}}\" }\n", &["malformed template under `A`"]);
}
